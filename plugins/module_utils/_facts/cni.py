# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which CNI is running, which allocator gives pods their addresses, and what policies may rely on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import guards
from . import observations as obs
from .cni_config import antrea_config, cilium_config, flannel_configs, node_arguments
from .distribution import Distribution
from .observations import at, items, text
from .reconcile import Doubt
from .world import POLICY_APIS, World, mounted

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
    ({"k8s-app": ("azure-cns",)}, "azure-cni"),
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
    "azure-cni": {"enforces": None, "pods": None, "nodes": None, "ports": (), "drops": ()},
}

#: Allocators of CNIs that leave no choice: slices that the controller manager cuts for nodes, or their own.
_FIXED_IPAM = {
    "flannel": "nodes",
    "canal": "nodes",
    "kindnet": "nodes",
    "kube-router": "nodes",
    "weave": "weave",
    "aws-vpc-cni": "vpc",
    "azure-cni": "vpc",
}


@dataclass
class CniFound:
    """`ipam`: calico, cilium, nodes (node slices from the controller manager), vpc, ovn, weave, antrea or unknown."""

    name: str = "unknown"
    ipam: str = "unknown"
    signals: list[str] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)
    traits: dict[str, Any] = field(default_factory=dict)

    def doubt(self, text: str, *ends: str) -> None:
        self.doubts.append(Doubt("cni", f"CNI: {text}", ends))

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


def detect(world: World, distribution: Distribution, given: Mapping[str, Any] | None = None) -> CniFound:
    """The CNI by what runs, or the one that the user names; `given` is the user's word with `name` and `ipam`."""
    chosen, ipam = text(at(given, "name")), text(at(given, "ipam"))
    found = CniFound()
    names = _running(world, found)
    args = node_arguments(world, distribution)
    if not names:
        names = _named_elsewhere(world, distribution, args, found)
    main = {name for name in names if name not in _chained(names)}
    if main == {"calico", "flannel"}:
        main = {"canal"}
        found.signals.append("calico-node beside flannel: Canal")
    if "canal" in main:
        main -= {"calico", "flannel"}
    if chosen:
        found.name = chosen
        found.signals.append("netguard_overrides")
    elif len(main) == 1:
        found.name = next(iter(main))
    elif main:
        found.doubt(f"several CNIs run: {', '.join(sorted(main))}", "cni.name", "cni.ipam")
    else:
        lost = world.asking.lost("DaemonSet")
        why = f" (not readable: {', '.join(lost)})" if lost else ""
        found.doubt(f"no CNI is to be seen{why}", "cni.name", "cni.ipam")
    found.traits = dict(_TRAITS.get(found.name, {}))
    _refine(world, distribution, found)
    if found.ipam == "unknown" and not found.doubts:
        found.doubt(f"the allocator of {found.name} is not known", "cni.ipam")
    found.ipam = ipam or found.ipam
    if found.name == "aws-vpc-cni" and names & {"calico", "cilium"}:
        found.traits["enforces"] = True
    return found


def _running(world: World, found: CniFound) -> set[str]:
    """CNIs whose DaemonSet has pods to run. One that has none ready while another has is a leftover."""
    ready: dict[str, bool] = {}
    for item in world.daemonsets:
        labels = {**obs.labels_of(item), **obs.strings(at(item, "spec", "template", "metadata", "labels"))}
        for wanted, name in _DAEMONSETS:
            if not any(labels.get(key) in values for key, values in wanted.items()):
                continue
            reference = f"daemonset/{at(item, 'metadata', 'namespace')}/{text(at(item, 'metadata', 'name'))}"
            if at(item, "status", "desiredNumberScheduled") == 0:
                found.signals.append(f"{reference} is {name}, but runs nowhere")
                continue
            found.signals.append(f"{reference} is {name}")
            ready[name] = ready.get(name, False) or at(item, "status", "numberReady") != 0
    if any(ready.values()):
        found.signals += [f"{name} has no pod that is ready: a leftover" for name, is_ready in ready.items() if not is_ready]
        return {name for name, is_ready in ready.items() if is_ready}
    return set(ready)


def _chained(names: set[str]) -> set[str]:
    """Those that only enforce policies beside another CNI that gives the addresses."""
    if names & {"aws-vpc-cni", "azure-cni"}:
        return names & {"calico", "cilium", "antrea", "kube-router"}
    return names & {"kube-router"} if names & {"flannel", "kindnet"} else set()


def _named_elsewhere(world: World, distribution: Distribution, args: dict[str, list[str]], found: CniFound) -> set[str]:
    """Without a DaemonSet: the CNI inside k3s, what RKE2 was told to install, what OpenShift reports."""
    for item in world.optional.get("openshift", []):
        kind = text(at(item, "status", "networkType"))
        name = {"OVNKubernetes": "ovn-kubernetes", "Calico": "calico", "Cilium": "cilium"}.get(kind)
        if name:
            found.signals.append(f"network/cluster: networkType {kind}")
            return {name}
    if distribution.name == "k3s" and args:
        backends = {tuple(obs.flag_values(words, "flannel-backend") or ("vxlan",)) for words in args.values()}
        if len(backends) == 1 and backends != {("none",)}:
            found.signals.append(f"the flannel inside k3s ({', '.join(next(iter(backends)))})")
            return {"flannel"}
    if distribution.name == "rke2" and args and world.state("DaemonSet") != "ok":
        chosen = {tuple(obs.flag_values(words, "cni") or ("canal",)) for words in args.values()}
        names = [name for name in next(iter(chosen)) if name != "multus"]
        if len(chosen) == 1 and len(names) == 1 and names[0] in _TRAITS:
            found.signals.append(f"server arguments of RKE2: CNI {names[0]}")
            return {names[0]}
    return set()


def _refine(world: World, distribution: Distribution, found: CniFound) -> None:
    name, traits = found.name, found.traits
    traits["translates"] = _translates(world, distribution, name)
    found.ipam = _FIXED_IPAM.get(name, "unknown")
    if name in ("flannel", "canal"):
        _flannel_backend(world, distribution, found)
    if name == "flannel" and distribution.name == "k3s":
        disabled = any(obs.switch(words, "disable-network-policy") for words in node_arguments(world, distribution).values())
        traits["enforces"] = not disabled
        found.signals.append("k3s enforces NetworkPolicy by itself" if not disabled else "k3s runs with --disable-network-policy")
    elif name == "flannel" and "kube-router" in " ".join(found.signals):
        traits["enforces"] = True
    if name == "ovn-kubernetes":
        # Where the Network may not be read, the group is there all the same.
        found.ipam = "openshift" if world.serves("config.openshift.io/v1") or world.optional.get("openshift") else "ovn"
    if name == "antrea":
        _antrea(world, found)
    if name in ("calico", "canal"):
        if name == "calico":
            found.ipam = _calico_ipam(world, found)
        _calico_vxlan(world, found)
    if name == "cilium":
        _cilium(world, found)


def _flannel_backend(world: World, distribution: Distribution, found: CniFound) -> None:
    configs = [config for _reference, config in flannel_configs(world)]
    backend = text(at(configs[0], "Backend", "Type")) if configs else ""
    port = at(configs[0], "Backend", "Port") if configs else None
    for words in node_arguments(world, distribution).values() if distribution.name == "k3s" else ():
        backend = next(iter(obs.flag_values(words, "flannel-backend") or []), "vxlan")
    if isinstance(port, int) and port:
        found.traits["ports"] = (port,)
    elif backend in ("wireguard", "wireguard-native"):
        found.traits["ports"] = (51820, 51821)
    elif distribution.name == "talos" and backend in ("", "vxlan"):
        found.traits["ports"] = (4789,)
    elif backend not in ("", "vxlan"):
        found.traits["ports"] = ()


def _antrea(world: World, found: CniFound) -> None:
    _reference, controller = antrea_config(world)
    found.ipam = "antrea" if at(controller, "nodeIPAM", "enableNodeIPAM") is True else "nodes"
    if world.optional.get("antreapools"):
        found.ipam = "unknown"
        found.doubt("Antrea has IP pools of its own, from which pods may have addresses: the IPAM is not certain", "cni.ipam")


def _translates(world: World, distribution: Distribution, name: str) -> bool | None:
    """Whether a ClusterIP works for packets that the kernel itself sends, such as an overlay's.

    kube-proxy translates in netfilter, on the node, whoever sent the packet. A replacement that translates when a program
    connects never sees them.
    """
    _reference, data = cilium_config(world)
    if name == "cilium" and data.get("kube-proxy-replacement", "").lower() in ("true", "strict", "probe", "partial"):
        return False
    for item in world.daemonsets:
        if at(item, "metadata", "name") == "kube-proxy" or at(item, "metadata", "labels", "k8s-app") == "kube-proxy":
            return True
    if world.static_pods("kube-proxy"):
        return True
    servers = node_arguments(world, distribution).values() if distribution.name == "k3s" else ()
    if servers and not any(obs.switch(words, "disable-kube-proxy") for words in servers):
        return True  # k3s has it built in
    return None


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
    for (namespace, name), data in world.config.items():
        kind = _ipam_type(data.get("cni_network_config", "")) if name == "calico-config" else ""
        if kind and _mounts(world, "calico-node", namespace, name):
            found.signals.append(f"configmap/{namespace}/{name}: IPAM {kind}")
            return {"calico-ipam": "calico", "host-local": "nodes"}.get(kind, "unknown")
    blocks = obs.networks([text(at(item, "spec", "cidr")) for item in world.optional.get("blocks", [])])
    pods = obs.hosts(world.pod_ips)
    # Blocks outlive a change of the IPAM, so running pods have to lie inside of them.
    if blocks and pods and all(guards.inside(address, blocks) for address in pods):
        found.signals.append("all running pods lie inside of Calico's blocks: its IPAM allocates")
        return "calico"
    found.doubt(
        "nothing proves which IPAM Calico uses (no Installation, calico-config, or blocks with all pods inside)", "cni.ipam"
    )
    return "unknown"


def _ipam_type(raw: str) -> str:
    """Type of the IPAM in a CNI configuration, which is a template and therefore not always JSON."""
    match = re.search(r'"ipam"\s*:\s*\{[^{}]*?"type"\s*:\s*"([^"]+)"', raw)
    return match.group(1) if match else ""


def _mounts(world: World, label: str, namespace: str, name: str) -> bool:
    """Whether the running DaemonSet refers to this ConfigMap, by a volume or by an environment variable."""
    for item in world.daemonsets:
        if obs.labels_of(item).get("k8s-app") != label or at(item, "metadata", "namespace") != namespace:
            continue
        spec = at(item, "spec", "template", "spec")
        entries = [
            entry
            for kind in ("containers", "initContainers")
            for container in items(at(spec, kind))
            for entry in items(at(container, "env"))
        ]
        if name in mounted(item) or any(at(entry, "valueFrom", "configMapKeyRef", "name") == name for entry in entries):
            return True
    return False


def _calico_vxlan(world: World, found: CniFound) -> None:
    """Felix drops what pods send to its VXLAN port, whether it encapsulates or not, unless it is told to let it pass."""
    for config in world.optional.get("felix", []):
        if at(config, "metadata", "name") != "default":
            continue
        port = at(config, "spec", "vxlanPort")
        if isinstance(port, int):
            found.traits["drops"] = (port,)
            if found.name == "calico":
                found.traits["ports"] = (port,)
        if at(config, "spec", "allowVXLANPacketsFromWorkloads") is True:
            found.traits["drops"] = ()
        if at(config, "spec", "bpfEnabled") is True:
            found.signals.append("felixconfiguration/default: eBPF data plane")
            found.traits["translates"] = None
    if found.name == "calico":
        found.traits["ports"] = (*found.traits.get("ports", ()), 51820)


def _cilium(world: World, found: CniFound) -> None:
    reference, data = cilium_config(world)
    if not reference:
        found.doubt(
            "cilium-config may not be read or is not there: the IPAM and what ipBlock matches are not known",
            "cni.ipam",
            "cni.ipblock_matches_nodes",
        )
        found.traits.update(pods=False, nodes=False, translates=None)
        return
    found.ipam = {
        "cluster-pool": "cilium",
        "cluster-pool-v2beta": "cilium",
        "multi-pool": "cilium-pools",
        "kubernetes": "nodes",
        "eni": "vpc",
        "azure": "vpc",
        "alibabacloud": "vpc",
        "delegated-plugin": "vpc",
    }.get(data.get("ipam", "cluster-pool"), "unknown")
    if data.get("cni-chaining-mode", "none") not in ("", "none", "portmap"):
        found.ipam = "unknown"
        found.doubt(f"Cilium is chained ({data['cni-chaining-mode']}): its IPAM gives no addresses", "cni.ipam")
    found.signals.append(f"{reference}: ipam {data.get('ipam', 'cluster-pool')}")
    modes = [part for part in data.get("policy-cidr-match-mode", "").replace(",", " ").split() if part]
    found.traits["nodes"] = "nodes" in modes
    found.traits["pods"] = False
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
    _reference, data = cilium_config(world)
    if data and data.get("enable-k8s-cluster-network-policy") != "true":
        # The CRD alone does nothing: Cilium has a switch for it that is off by default.
        found = [version for version in found if not version.startswith("policy.networking.k8s.io/")]
    return found
