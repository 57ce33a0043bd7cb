# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where service ranges are written, and the addresses that prove or refute them."""

from __future__ import annotations

from collections.abc import Iterable

from .._topology.model import Network
from . import observations as obs
from .cni_config import node_arguments
from .distribution import DEFAULTS, Distribution
from .observations import Observation, at, items, text
from .source_pods import cluster_api, family_defaults, flags, kubeadm
from .world import World


def collect(world: World, distribution: Distribution) -> Iterable[Observation]:
    asking = world.asking
    # Those that are not ready or on their way out too, while addresses of theirs may be in use.
    found = [cidr for item in world.service_cidrs for cidr in items(at(item, "spec", "cidrs"))]
    names = ",".join(sorted(text(at(item, "metadata", "name")) for item in world.service_cidrs))
    yield from asking.claim("services", found, obs.ALLOCATES, "servicecidr", f"servicecidr/{names}", "spec.cidrs")
    for item in world.optional.get("openshift", []):
        raw = at(item, "status", "serviceNetwork") or at(item, "spec", "serviceNetwork")
        yield from asking.claim("services", raw, obs.ALLOCATES, "openshift", "network/cluster", "status.serviceNetwork")
    for component in ("kube-apiserver", "kube-controller-manager"):
        yield from flags(world, "services", component, "service-cluster-ip-range", "")
    for node, words in node_arguments(world, distribution).items():
        raw_flag = obs.flag_values(words, "service-cidr")
        if raw_flag is not None:
            yield from asking.claim("services", raw_flag, obs.RUNNING, "node-args", f"node/{node}", "--service-cidr")
            continue
        default = family_defaults(world, DEFAULTS[distribution.name][1])
        if default:
            yield Observation("services", default, obs.RUNNING, "node-args", f"node/{node}", "no --service-cidr: the default")
    reference, data = world.config_map("ovn-config", "ovn-kubernetes")
    yield from asking.claim("services", data.get("svc_cidr"), obs.RUNNING, "ovn-config", reference, "svc_cidr")
    yield from kubeadm(world, "services", "serviceSubnet", "")
    yield from cluster_api(world, "services", "")


def anchors(world: World) -> tuple[Network, ...]:
    """The ClusterIP of default/kubernetes: the first address of the primary service range."""
    return obs.hosts([at(world.kubernetes, "spec", "clusterIP")])


def observed(world: World) -> tuple[Network, ...]:
    """ClusterIPs in use: those that Services have, and those that the allocator has handed out."""
    own = [*items(at(world.kubernetes, "spec", "clusterIPs")), at(world.kubernetes, "spec", "clusterIP")]
    words = [*world.cluster_ips, *world.ip_addresses, *own]
    return obs.hosts(word for word in words if word != "None")
