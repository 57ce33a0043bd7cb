# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Addresses of nodes, and the local network where something with a mask tells it.

No core API has a node's netmask, and none is ever guessed: without a source the LAN is the nodes' exact addresses.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Mapping
from typing import Any

from .._topology.model import Network
from . import guards
from . import observations as obs
from .observations import Observation, annotations_of, at, items, mapping, text
from .reconcile import COMPLETE, CONFLICT, PARTIAL, UNKNOWN, Range, order, words
from .source_pods import document
from .world import World

#: Annotations that carry a node's address with its prefix length, written from the host's interface; the nearer first.
_MASKED = (
    ("k8s.ovn.org/node-primary-ifaddr", "ovn"),
    ("k8s.ovn.org/l3-gateway-config", "ovn"),
    ("k8s.ovn.org/host-cidrs", "ovn"),
    ("projectcalico.org/IPv4Address", "calico"),
    ("projectcalico.org/IPv6Address", "calico"),
    ("kilo.squat.ai/internal-ip", "kilo"),
    ("cloud.network.openshift.io/egress-ipconfig", "egress-ipconfig"),
)


def node_addresses(world: World, kinds: tuple[str, ...] = ("InternalIP",)) -> dict[str, tuple[Network, ...]]:
    """Addresses by node."""
    return {text(at(node, "metadata", "name")): _addresses(node, kinds) for node in world.nodes}


def _addresses(node: Mapping[str, Any], kinds: tuple[str, ...]) -> tuple[Network, ...]:
    entries = items(at(node, "status", "addresses"))
    return obs.hosts(at(entry, "address") for entry in entries if at(entry, "type") in kinds)


def nodes(world: World, given: list[Observation]) -> Range:
    """Exact addresses; an external one is a node's too, but never the LAN's."""
    result = Range("nodes", COMPLETE)
    every = node_addresses(world, ("InternalIP", "ExternalIP"))
    without = [name for name, found in node_addresses(world).items() if not found]
    known = sorted({address for found in every.values() for address in found}, key=order)
    result.observed = len(known)
    if given:
        result.cidrs = {network: [given[0]] for network in given[0].cidrs}
        result.outside = [address for address in known if not guards.inside(address, given[0].cidrs)]
        if result.outside:
            result.status = CONFLICT
            result.doubt(f"{words(result.outside)} are nodes outside of {words(given[0].cidrs)}, which you gave")
        return result
    for name, found in every.items():
        for address in found:
            raw = str(address.network_address)
            source = Observation("nodes", (address,), obs.ALLOCATES, "node", f"node/{name}", "status.addresses", raw)
            result.cidrs.setdefault(address, []).append(source)
    result.cidrs = dict(sorted(result.cidrs.items(), key=lambda entry: order(entry[0])))
    if not world.nodes:
        result.status = UNKNOWN
        result.doubt("no node is to be seen" + (" (Node is not readable)" if world.state("Node") != "ok" else ""))
    elif without:
        result.status = PARTIAL
        result.doubt(f"no InternalIP on {', '.join(without[:3])}" + (" and others" if len(without) > 3 else ""))
    return result


def lan(world: World, given: list[Observation], shown: Iterable[str]) -> Range:
    """The networks that nodes are in: the user's word, what Ansible saw on the nodes, annotations with masks, the
    installation's record, else the nodes' own addresses, which are no network. `shown` are `address/prefix` of interfaces."""
    result = Range("lan", COMPLETE)
    inside = sorted({address for found in node_addresses(world).values() for address in found}, key=order)
    result.observed = len(inside)
    if given:
        result.cidrs = {network: [given[0]] for network in given[0].cidrs}
        result.outside = [address for address in inside if not guards.inside(address, given[0].cidrs)]
        return result
    found = [*_interfaces(result, shown, inside), *_annotations(world), *_machine_network(world)]
    # Thousands of nodes tell the same few networks: each is looked at once, with all its sources.
    told: dict[tuple[str, Network], list[Observation]] = {}
    for item in found:
        for network in item.cidrs:
            told.setdefault((item.kind, network), []).append(item)
    usable = [(kind, network) for (kind, network), items_ in told.items() if _usable(result, network, items_[0])]
    refused: dict[tuple[str, Network], str] = {}
    bare = []
    for address in inside:
        fitting = [(kind, network) for kind, network in usable if guards.within(address, network)]
        if not fitting:
            bare.append(address)
            continue
        best, chosen = fitting[0]
        for kind, network in fitting:
            if kind == best or network == chosen:
                result.cidrs[network] = told[(kind, network)]
            else:
                refused[(kind, network)] = f"{best} says {chosen}"
    result.rejected += [(network, why, told[(kind, network)][0]) for (kind, network), why in sorted(refused.items(), key=str)]
    for address in bare:
        raw = str(address.network_address)
        result.cidrs[address] = [Observation("lan", (address,), obs.OBSERVED, "node", "nodes", "status.addresses", raw, "", False)]
        result.complete[address] = False
    result.cidrs = dict(sorted(result.cidrs.items(), key=lambda entry: order(entry[0])))
    if not result.cidrs:
        result.status = UNKNOWN
        result.doubt("no node and no network of one is to be seen")
    elif bare:
        result.status = PARTIAL
        result.doubt(f"the network of {words(bare)} is not known: only the exact addresses of nodes count as the LAN")
    return result


def _usable(result: Range, network: Network, item: Observation) -> bool:
    reason = guards.refusal(network, "lan", item.trust)
    if reason:
        result.rejected.append((network, reason, item))
    return not reason


def _interfaces(result: Range, shown: Iterable[str], inside: list[Network]) -> Iterable[Observation]:
    """Of the interfaces that Ansible saw on nodes those that hold an InternalIP: a bridge or a tunnel is no LAN."""
    own = {address.network_address for address in inside}
    for word in sorted(set(shown)):
        try:
            interface = ipaddress.ip_interface(word)
        except ValueError:
            continue
        network = interface.network
        source = Observation("lan", (network,), obs.ALLOCATES, "ansible-facts", "hosts", "interfaces", word)
        if network.prefixlen == network.max_prefixlen or network.prefixlen == 0:
            continue
        if interface.ip in own:
            yield source
        else:
            result.rejected.append((network, "no node has this address as its InternalIP", source))


def _annotations(world: World) -> Iterable[Observation]:
    """A mask counts only if the node's own InternalIP lies inside; a host mask never."""
    for key, kind in _MASKED:
        for node in world.nodes:
            ref = f"node/{text(at(node, 'metadata', 'name'))}"
            inside = _addresses(node, ("InternalIP",))
            raw = annotations_of(node).get(key, "")
            for word in _json_words(raw) if raw[:1] in ("{", "[") else obs.split(raw):
                network = obs.network(word)
                if network is None:
                    world.asking.malformed(f"{ref} {key}: {word}", "lan")
                elif network.prefixlen < network.max_prefixlen and any(guards.within(address, network) for address in inside):
                    yield Observation("lan", (network,), obs.RUNNING, kind, ref, key, word)
    for item in world.optional.get("ciliumnodes", []):
        ref = f"ciliumnode/{text(at(item, 'metadata', 'name'))}"
        for eni in mapping(at(item, "status", "eni", "enis")).values():
            yield from world.asking.claim("lan", at(eni, "subnet", "cidr"), obs.RUNNING, "cilium-eni", ref, "subnet.cidr")


def _machine_network(world: World) -> Iterable[Observation]:
    reference, data = world.config_map("cluster-config-v1")
    config = document(world, reference, data.get("install-config"))
    for entry in items(at(config, "networking", "machineNetwork")):
        yield from world.asking.claim("lan", at(entry, "cidr"), obs.RECORD, "openshift", reference, "machineNetwork")


def _json_words(raw: str) -> list[str]:
    """Addresses with their masks in the forms that annotations have.

    `{"ipv4": "10.0.0.1/24"}`, `[{"ifaddr": {"ipv4": ...}}]`, `["10.0.0.1/24", ...]` (every interface of the host) and
    `{"default": {"ip-addresses": ["10.0.0.1/24"], ...}}` (OVN's gateway).
    """
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return [raw]
    words: list[str] = []
    for entry in found if isinstance(found, list) else [found]:
        if isinstance(entry, str):
            words.append(entry)
        elif isinstance(entry, dict):
            masked = mapping(entry.get("ifaddr")) or entry
            gateways = [item for item in masked.values() if isinstance(item, dict)]
            words += [text(value) for value in masked.values() if text(value)]
            words += [text(value) for item in gateways for value in (*items(item.get("ip-addresses")), item.get("ip-address"))]
    return [word for word in words if word]
