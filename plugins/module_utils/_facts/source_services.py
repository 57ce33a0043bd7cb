# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where service ranges are written, and the addresses that prove or refute them."""

from __future__ import annotations

from collections.abc import Iterable

from .._topology.model import Network
from . import observations as obs
from .cni import node_arguments
from .distribution import DEFAULTS, Distribution
from .observations import Observation, at, items, networks, text
from .source_pods import family_defaults, flags, kubeadm
from .world import World


def collect(world: World, distribution: Distribution) -> Iterable[Observation]:
    found = [text(cidr) for item in world.service_cidrs for cidr in items(at(item, "spec", "cidrs"))]
    if networks(found):
        names = ",".join(text(at(item, "metadata", "name")) for item in world.service_cidrs)
        yield Observation(
            "services", networks(found), obs.ALLOCATES, "servicecidr", f"servicecidr/{names}", "spec.cidrs", ", ".join(found)
        )
    for item in world.optional.get("openshift", []):
        raw = [text(entry) for entry in items(at(item, "status", "serviceNetwork"))]
        if networks(raw):
            yield Observation(
                "services", networks(raw), obs.ALLOCATES, "openshift", "network/cluster", "status.serviceNetwork", ", ".join(raw)
            )
    for component in ("kube-apiserver", "kube-controller-manager"):
        yield from flags(world, "services", component, "service-cluster-ip-range", "")
    for node, words in node_arguments(world, distribution).items():
        raw_flag = obs.flag_values(words, "service-cidr")
        if raw_flag and networks(raw_flag):
            yield Observation(
                "services", networks(raw_flag), obs.RUNNING, "node-args", f"node/{node}", "--service-cidr", ",".join(raw_flag)
            )
        elif raw_flag is None:
            default = family_defaults(world, DEFAULTS[distribution.name][1])
            yield Observation("services", default, obs.RUNNING, "node-args", f"node/{node}", "no --service-cidr: the default")
    reference, data = world.config_map("ovn-config", "ovn-kubernetes")
    if networks(text(data.get("svc_cidr"))):
        raw_text = text(data.get("svc_cidr"))
        yield Observation("services", networks(raw_text), obs.RUNNING, "ovn-config", reference, "svc_cidr", raw_text)
    yield from kubeadm(world, "services", "serviceSubnet", "")


def anchors(world: World) -> tuple[Network, ...]:
    """The ClusterIP of default/kubernetes: the first address of the primary service range."""
    return obs.hosts([at(world.kubernetes, "spec", "clusterIP")])


def observed(world: World) -> tuple[Network, ...]:
    words = [
        address
        for service in (*world.services, world.kubernetes)
        for address in (items(at(service, "spec", "clusterIPs")) or [at(service, "spec", "clusterIP")])
        if address != "None"
    ]
    return obs.hosts(words)
