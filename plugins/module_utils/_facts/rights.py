# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which right opens which source, what it would tell, and which override says the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Right:
    """`level` as in docs/facts.md, `rule` in the words of a role, `overrides` the keys of netguard_overrides that tell as much."""

    level: int
    rule: str
    tells: str
    overrides: tuple[str, ...]


#: By the beginning of a source's name, the longer ones first.
_RIGHTS: tuple[tuple[str, Right], ...] = (
    ("/", Right(0, "get /version, /apis", "the version and which APIs there are", ("distribution", "cni.policy_apis"))),
    ("Node", Right(1, "list nodes", "addresses of nodes; ranges on k3s and RKE2", ("pods", "services", "nodes", "lan"))),
    ("Service default/", Right(1, "get services/kubernetes", "where the range of Services begins", ("services",))),
    ("EndpointSlice", Right(1, "list endpointslices", "the API server, ports of the DNS", ("api_server.endpoints", "dns.ports"))),
    ("Endpoints", Right(1, "get endpoints", "the API server, ports of the DNS", ("api_server.endpoints", "dns.ports"))),
    ("ServiceCIDR", Right(2, "list servicecidrs", "every range of Services", ("services",))),
    ("IPAddress", Right(2, "list ipaddresses", "addresses of Services that are in use", ("services",))),
    ("IPPool", Right(2, "list ippools", "ranges of pods by Calico or Antrea", ("pods",))),
    ("BlockAffinity", Right(2, "list blockaffinities", "whether Calico allocates", ("cni.ipam",))),
    ("Installation", Right(2, "list installations", "Calico's allocator", ("cni.ipam",))),
    (
        "FelixConfiguration",
        Right(
            2, "list felixconfigurations", "ports that Calico drops", ("cni.drops_workload_vxlan_ports", "cni.overlay_udp_ports")
        ),
    ),
    ("CiliumNode", Right(2, "list ciliumnodes", "subnets of nodes", ("pods", "lan"))),
    ("CiliumPodIPPool", Right(2, "list ciliumpodippools", "ranges of pods by Cilium", ("pods",))),
    ("Network", Right(2, "list networks", "ranges on OpenShift", ("pods", "services"))),
    ("Cluster", Right(2, "list clusters", "the Cluster API's record", ("pods", "services"))),
    ("ConfigMap", Right(3, "get configmaps", "settings of the CNI, records of kubeadm", ("pods", "services", "cni.ipam"))),
    (
        "DaemonSet",
        Right(3, "list daemonsets", "the CNI, a mesh, a node-local DNS", ("cni.name", "mesh.ambient", "dns.node_local_ip")),
    ),
    ("Pod", Right(4, "list pods", "flags of the control plane, addresses of pods", ("pods", "services"))),
    (
        "Service",
        Right(4, "list services", "the DNS, addresses in use", ("services", "dns.namespace", "dns.pod_labels", "dns.service_ip")),
    ),
    ("dry run", Right(5, "create services", "a range of Services, by a dry run", ("services",))),
)
#: What ConfigMaps tell, by the beginning of their name.
_CONFIG_MAPS: dict[str, tuple[str, ...]] = {
    "kubeadm-config": ("pods", "services"),
    "kubelet-config": ("dns.service_ip", "dns.cluster_domain"),
    "kube-proxy": ("pods",),
    "cilium-config": ("pods", "cni.ipam"),
    "calico-config": ("cni.ipam",),
    "antrea-config": ("pods", "cni.ipam"),
    "coredns": ("dns.cluster_domain",),
    "ovn-config": ("pods", "services"),
    "cluster-config-v1": ("lan",),
}


def right(source: str) -> Right | None:
    """The right that opens a source, by its name as `permissions` has it."""
    return next((found for start, found in sorted(_RIGHTS, key=lambda entry: -len(entry[0])) if source.startswith(start)), None)


def overrides(source: str) -> tuple[str, ...]:
    """Keys of netguard_overrides that say what a source says. A ConfigMap is `configmap/NAMESPACE/NAME`."""
    if source.startswith("configmap/"):
        name = source.rpartition("/")[2]
        return next((keys for start, keys in _CONFIG_MAPS.items() if name.startswith(start)), ("pods",))
    found = right(source)
    return found.overrides if found else ("pods", "services")


def missing(permissions: Mapping[str, str]) -> list[dict[str, Any]]:
    """The rights that were refused, the smallest first: `level`, `rule`, and what it `tells`."""
    found = {item for source, state in permissions.items() if state == "forbidden" and (item := right(source)) is not None}
    return [
        {"level": item.level, "rule": item.rule, "tells": item.tells}
        for item in sorted(found, key=lambda one: (one.level, one.rule))
    ]


#: How values are written in a setting; everything else is a single word.
_FORMS = {
    "pods": "[...]",
    "services": "[...]",
    "nodes": "[...]",
    "lan": "[...]",
    "endpoints": "[...]",
    "policy_apis": "[...]",
    "drops_workload_vxlan_ports": "[...]",
    "overlay_udp_ports": "[...]",
    "pod_labels": "{...}",
    "ports": "{udp: [...], tcp: [...]}",
}


def setting(*keys: str) -> str:
    """The variable that settles a doubt, from keys such as `pods` or `dns.namespace`."""
    parts: dict[str, list[str]] = {}
    for key in keys:
        first, _dot, second = key.partition(".")
        parts.setdefault(first, [])
        if second:
            parts[first].append(f"{second}: {_FORMS.get(second, '...')}")
    said = [f"{name}: {{{', '.join(inner)}}}" if inner else f"{name}: {_FORMS.get(name, '...')}" for name, inner in parts.items()]
    return f"netguard_overrides: {{{', '.join(said)}}}"


def told(given: Mapping[str, Any], keys: tuple[str, ...]) -> bool:
    """Whether the user gave all of these keys; false for none."""
    found = []
    for key in keys:
        first, _dot, second = key.partition(".")
        value = given.get(first)
        found.append(value.get(second) is not None if second and isinstance(value, Mapping) else not second and bool(value))
    return bool(found) and all(found)
