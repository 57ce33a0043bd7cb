# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Addresses of nodes, and the local network where something with a mask tells it."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable

import yaml

from .._topology.model import Network
from . import observations as obs
from .observations import Observation, at, items, networks, text
from .world import World

#: Annotations that carry a node's address with its prefix length, written from the host's interface.
_MASKED = (
    ("projectcalico.org/IPv4Address", "calico"),
    ("projectcalico.org/IPv6Address", "calico"),
    ("kilo.squat.ai/internal-ip", "kilo"),
)


def node_addresses(world: World, kinds: tuple[str, ...] = ("InternalIP",)) -> dict[str, tuple[Network, ...]]:
    """Addresses by node."""
    return {
        text(at(node, "metadata", "name")): obs.hosts(
            at(entry, "address") for entry in items(at(node, "status", "addresses")) if at(entry, "type") in kinds
        )
        for node in world.nodes
    }


def nodes(world: World) -> Iterable[Observation]:
    """Exact addresses; an external one is a node's too, but never the LAN's."""
    for name, found in node_addresses(world, ("InternalIP", "ExternalIP")).items():
        if found:
            raw = ", ".join(str(item.network_address) for item in found)
            yield Observation("nodes", found, obs.ALLOCATES, "node", f"node/{name}", "status.addresses", raw)


def lan(world: World) -> Iterable[Observation]:
    """Networks that some node's interface is in. A mask counts only if the node's InternalIP lies inside; a host mask never."""
    for node in world.nodes:
        name = text(at(node, "metadata", "name"))
        inside = obs.hosts(
            at(entry, "address") for entry in items(at(node, "status", "addresses")) if at(entry, "type") == "InternalIP"
        )
        annotations = at(node, "metadata", "annotations") or {}
        words = [(key, kind, text(annotations.get(key))) for key, kind in _MASKED]
        for key in ("k8s.ovn.org/node-primary-ifaddr", "cloud.network.openshift.io/egress-ipconfig"):
            words += [(key, "ovn", word) for word in _ovn(text(annotations.get(key)))]
        for key, kind, word in words:
            for network in networks(word):
                if network.prefixlen == network.max_prefixlen:
                    continue
                if any(_within(address, network) for address in inside):
                    yield Observation("lan", (network,), obs.RUNNING, kind, f"node/{name}", key, word)
    reference, data = world.config_map("cluster-config-v1")
    try:
        config = yaml.safe_load(text(data.get("install-config"))) if data.get("install-config") else {}
    except (yaml.YAMLError, RecursionError):
        config = {}
    raw = [text(at(entry, "cidr")) for entry in items(at(config, "networking", "machineNetwork"))]
    if networks(raw):
        yield Observation("lan", networks(raw), obs.RECORD, "openshift", reference, "machineNetwork", ", ".join(raw))


def _within(address: Network, network: Network) -> bool:
    return address.version == network.version and ipaddress.ip_address(address.network_address) in network


def _ovn(raw: str) -> list[str]:
    """`{"ipv4": "10.0.0.1/24"}` or `[{"ifaddr": {"ipv4": ...}}]`."""
    try:
        found = json.loads(raw) if raw else {}
    except ValueError:
        return []
    entries = [at(item, "ifaddr") for item in found] if isinstance(found, list) else [found]
    return [text(value) for entry in entries if isinstance(entry, dict) for value in entry.values()]
