# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which CNI is running, which allocator gives pods their addresses, and what policies may rely on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .distribution import Distribution
from .observations import at, items, text
from .world import POLICY_APIS, World

#: DaemonSets by which a CNI is known to run: (labels of which one must match, CNI). A ConfigMap or CRD proves nothing: it
#: stays when a CNI is replaced.
_DAEMONSETS: tuple[tuple[dict[str, tuple[str, ...]], str], ...] = (
    ({"k8s-app": ("cilium",), "app.kubernetes.io/name": ("cilium-agent",)}, "cilium"),
    ({"k8s-app": ("canal", "rke2-canal")}, "canal"),
    ({"k8s-app": ("calico-node",)}, "calico"),
    ({"app": ("flannel",), "k8s-app": ("flannel", "kube-flannel")}, "flannel"),
    ({"app": ("kindnet",), "k8s-app": ("kindnet",)}, "kindnet"),
    ({"app": ("ovnkube-node",), "name": ("ovnkube-node",)}, "ovn-kubernetes"),
    ({"app": ("antrea",), "component": ("antrea-agent",)}, "antrea"),
    ({"k8s-app": ("kube-router",)}, "kube-router"),
    ({"name": ("weave-net",)}, "weave"),
    ({"k8s-app": ("aws-node",)}, "aws-vpc-cni"),
)

#: What ipBlock matches and what the CNI's own tunnels use. Sources: each project's documentation and source; network
#: policies on flannel exist only where something else enforces them.
_TRAITS: dict[str, dict[str, Any]] = {
    "calico": {"enforces": True, "pods": True, "nodes": True, "ports": (4789,), "drops": (4789,)},
    "canal": {"enforces": True, "pods": True, "nodes": True, "ports": (8472,), "drops": (4789,)},
    "cilium": {"enforces": True, "pods": False, "nodes": False, "ports": (8472,), "drops": ()},
    "flannel": {"enforces": False, "pods": True, "nodes": True, "ports": (8472,), "drops": ()},
    "kindnet": {"enforces": True, "pods": True, "nodes": True, "ports": (), "drops": ()},
    "ovn-kubernetes": {"enforces": True, "pods": True, "nodes": None, "ports": (6081,), "drops": ()},
    "antrea": {"enforces": True, "pods": True, "nodes": True, "ports": (6081,), "drops": ()},
    "kube-router": {"enforces": True, "pods": True, "nodes": True, "ports": (), "drops": ()},
    "weave": {"enforces": True, "pods": True, "nodes": True, "ports": (6784,), "drops": ()},
    "aws-vpc-cni": {"enforces": None, "pods": True, "nodes": True, "ports": (), "drops": ()},
}


@dataclass
class CniFound:
    """`ipam`: calico, cilium, nodes (node slices from the controller manager), vpc, ovn, weave, antrea or unknown."""

    name: str = "unknown"
    ipam: str = "unknown"
    signals: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    traits: dict[str, Any] = field(default_factory=dict)

    def data(self, policy_apis: list[str]) -> dict[str, Any]:
        return {
            "name": self.name,
            "ipam": self.ipam,
            "signals": self.signals,
            "enforces_network_policy": self.traits.get("enforces"),
            "ipblock_matches_pods": self.traits.get("pods"),
            "ipblock_matches_nodes": self.traits.get("nodes"),
            "drops_workload_vxlan_ports": list(self.traits.get("drops", ())),
            "overlay_udp_ports": list(self.traits.get("ports", ())),
            "policy_apis": policy_apis,
            "translates_kernel_packets": self.traits.get("translates"),
        }


def detect(world: World, distribution: Distribution) -> CniFound:
    found = CniFound()
    names: dict[str, str] = {}
    for item in world.daemonsets:
        labels = {**(at(item, "metadata", "labels") or {}), **(at(item, "spec", "template", "metadata", "labels") or {})}
        for wanted, name in _DAEMONSETS:
            if any(labels.get(key) in values for key, values in wanted.items()) and (
                at(item, "status", "desiredNumberScheduled") != 0
            ):
                reference = f"daemonset/{at(item, 'metadata', 'namespace')}/{at(item, 'metadata', 'name')}"
                names.setdefault(name, reference)
                found.signals.append(f"{reference} is {name}")
    if not names and distribution.name in ("k3s",) and _flannel_annotations(world):
        names["flannel"] = "node annotations"
        found.signals.append("nodes carry flannel's annotations: the flannel inside k3s")
    if "canal" in names:
        names = {"canal": names["canal"]}
    if "calico" in names and "flannel" in names:
        names = {"canal": names["calico"]}
        found.signals.append("calico-node beside flannel: Canal")
    if len(names) == 1:
        found.name = next(iter(names))
    elif names:
        found.doubts.append(f"several CNIs run: {', '.join(sorted(names))}")
    found.traits = dict(_TRAITS.get(found.name, {}))
    _refine(world, distribution, found)
    return found


def _flannel_annotations(world: World) -> bool:
    return bool(world.nodes) and all(
        any(key.startswith("flannel.alpha.coreos.com/") for key in at(node, "metadata", "annotations") or {})
        for node in world.nodes
    )


def _refine(world: World, distribution: Distribution, found: CniFound) -> None:
    name, traits = found.name, found.traits
    traits["translates"] = _translates(world, name)
    if name in ("flannel", "canal"):
        port = at(_flannel(world), "Backend", "Port")
        backend = text(at(_flannel(world), "Backend", "Type"))
        if isinstance(port, int) and port:
            traits["ports"] = (port,)
        elif distribution.name == "talos":
            traits["ports"] = (4789,)
        elif backend and backend != "vxlan":
            traits["ports"] = ()
        found.ipam = "nodes"
    if name == "flannel" and distribution.name == "k3s":
        disabled = any("--disable-network-policy" in words for words in node_arguments(world, distribution).values())
        traits["enforces"] = not disabled
        found.signals.append("k3s enforces NetworkPolicy by itself" if not disabled else "k3s runs with --disable-network-policy")
    if name in ("kindnet", "kube-router"):
        found.ipam = "nodes"
    if name == "antrea":
        found.ipam = "nodes"
    if name == "ovn-kubernetes":
        found.ipam = "openshift" if world.serves("config.openshift.io/v1") else "ovn"
    if name == "weave":
        found.ipam = "weave"
    if name == "aws-vpc-cni":
        found.ipam = "vpc"
    if name == "calico":
        found.ipam = _calico_ipam(world, found)
        _calico_vxlan(world, found)
    if name == "cilium":
        _cilium(world, found)


def _translates(world: World, name: str) -> bool | None:
    """Whether a ClusterIP works for packets that the kernel itself sends, such as an overlay's.

    kube-proxy translates in netfilter, on the node, whoever sent the packet. A replacement that translates when a program
    connects never sees them.
    """
    _reference, data = world.config_map("cilium-config")
    if name == "cilium" and data.get("kube-proxy-replacement", "").lower() in ("true", "strict", "probe", "partial"):
        return False
    for item in world.daemonsets:
        if at(item, "metadata", "name") == "kube-proxy" or at(item, "metadata", "labels", "k8s-app") == "kube-proxy":
            return True
    if world.static_pods("kube-proxy"):
        return True
    if name == "flannel" and any("k3s.io/node-args" in (at(node, "metadata", "annotations") or {}) for node in world.nodes):
        return True
    return None


def node_arguments(world: World, distribution: Distribution) -> dict[str, list[str]]:
    """Arguments of the server nodes of k3s and RKE2 by node name. Agents carry none of the cluster's flags."""
    keys = {"k3s": "k3s.io/node-args", "rke2": "rke2.io/node-args"}
    key = keys.get(distribution.name, "")
    found: dict[str, list[str]] = {}
    for node in world.nodes:
        raw = text((at(node, "metadata", "annotations") or {}).get(key))
        try:
            words = json.loads(raw) if raw else None
        except ValueError:
            words = None
        if isinstance(words, list) and words and words[0] == "server":
            found[text(at(node, "metadata", "name"))] = [str(word) for word in words]
    return found


def _flannel(world: World) -> Mapping[str, Any]:
    for name, namespaces in (
        ("kube-flannel-cfg", ("kube-flannel", "kube-system")),
        ("canal-config", ("kube-system",)),
        ("rke2-canal-config", ("kube-system",)),
    ):
        _reference, data = world.config_map(name, *namespaces)
        try:
            found = json.loads(text(data.get("net-conf.json")) or "{}")
        except ValueError:
            continue
        if isinstance(found, dict) and found:
            return found
    return {}


def _calico_ipam(world: World, found: CniFound) -> str:
    """Calico's own IPAM needs a proof: pools exist in every installation, also where another IPAM allocates."""
    for installation in world.optional.get("installations", []):
        kind = text(at(installation, "spec", "cni", "ipam", "type"))
        if kind:
            found.signals.append(f"installation {at(installation, 'metadata', 'name')}: IPAM {kind}")
            return {"Calico": "calico", "HostLocal": "nodes", "AmazonVPC": "vpc", "AzureVNET": "vpc"}.get(kind, "unknown")
        if text(at(installation, "spec", "cni", "type")) not in ("", "Calico"):
            found.signals.append("installation: policy only")
            return "vpc"
    if world.optional.get("blocks"):
        found.signals.append("Calico's block affinities exist: its IPAM allocates")
        return "calico"
    found.doubts.append("nothing proves which IPAM Calico uses (no Installation, no block affinities that may be read)")
    return "unknown"


def _calico_vxlan(world: World, found: CniFound) -> None:
    for config in world.optional.get("felix", []):
        port = at(config, "spec", "vxlanPort")
        if isinstance(port, int):
            found.traits["ports"] = (port,)
            found.traits["drops"] = (port,)
        if at(config, "spec", "allowVXLANPacketsFromWorkloads") is True:
            found.traits["drops"] = ()
    if found.traits.get("ports"):
        found.traits["ports"] = (*found.traits["ports"], 51820)


def _cilium(world: World, found: CniFound) -> None:
    reference, data = world.config_map("cilium-config")
    if not reference:
        found.doubts.append("cilium-config may not be read: its IPAM mode and what ipBlock matches are not known")
        found.traits.update(pods=False, nodes=False)
        return
    found.ipam = {
        "cluster-pool": "cilium",
        "cluster-pool-v2beta": "cilium",
        "multi-pool": "cilium-pools",
        "kubernetes": "nodes",
        "eni": "vpc",
        "azure": "vpc",
        "alibabacloud": "vpc",
    }.get(data.get("ipam", "cluster-pool"), "unknown")
    found.signals.append(f"{reference}: ipam {data.get('ipam', 'cluster-pool')}")
    modes = [part for part in data.get("policy-cidr-match-mode", "").replace(",", " ").split() if part]
    found.traits["nodes"] = "nodes" in modes
    found.traits["pods"] = "pods" in modes
    port = data.get("tunnel-port", "")
    found.traits["ports"] = (
        (int(port),) if port.isdigit() else (8472,) if data.get("tunnel-protocol", "vxlan") == "vxlan" else (6081,)
    )
    if data.get("routing-mode") == "native":
        found.traits["ports"] = ()
    if data.get("enable-wireguard") == "true":
        found.traits["ports"] = (*found.traits["ports"], 51871)
    if data.get("enable-policy") == "never":
        found.traits["enforces"] = False


def policy_apis(world: World, resources: Mapping[str, bool]) -> list[str]:
    """API versions with policies that this server serves; `resources` says of each (version kind) whether it is there."""
    found = [version for version, kind in POLICY_APIS if resources.get(f"{version} {kind}")]
    _reference, data = world.config_map("cilium-config")
    if data and data.get("enable-k8s-cluster-network-policy") != "true":
        # The CRD alone does nothing: Cilium has a switch for it that is off by default.
        found = [version for version in found if not version.startswith("policy.networking.k8s.io/")]
    return found


def containers_env(item: Mapping[str, Any], name: str) -> str:
    """Value of an environment variable of a DaemonSet's or pod's containers; empty when it is not there."""
    spec = at(item, "spec", "template", "spec") or at(item, "spec")
    for container in items(at(spec, "containers")):
        for entry in items(at(container, "env")):
            if at(entry, "name") == name:
                return text(at(entry, "value"))
    return ""
