# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Everything that is read of a cluster, read once: the other files look only here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from . import rights
from .observations import Asking, at, items, labels_of, mapping, strings, text
from .reader import Trim

Object = dict[str, Any]

#: ConfigMaps that are asked for by name: (namespace, name). A cluster-wide list is never asked for.
CONFIG_MAPS = (
    ("kube-system", "kubeadm-config"),
    ("kube-system", "kubelet-config"),
    ("kube-system", "kube-proxy"),
    ("kube-system", "cilium-config"),
    ("kube-system", "calico-config"),
    ("kube-system", "canal-config"),
    ("kube-system", "rke2-canal-config"),
    ("kube-system", "kube-flannel-cfg"),
    ("kube-flannel", "kube-flannel-cfg"),
    ("kube-system", "antrea-config"),
    ("kube-system", "coredns"),
    ("ovn-kubernetes", "ovn-config"),
    ("kube-system", "cluster-config-v1"),
)
#: Beginnings of names of ConfigMaps that a CNI's DaemonSet mounts and that are worth a question.
MOUNTED = ("cilium-config", "calico-config", "canal-config", "rke2-canal-config", "kube-flannel-cfg", "antrea-config")
#: Optional APIs: asked for only where the server lists their group, or may not be asked for its groups.
OPTIONAL = {
    "ippools": ("crd.projectcalico.org/v1", "IPPool"),
    "blocks": ("crd.projectcalico.org/v1", "BlockAffinity"),
    "felix": ("crd.projectcalico.org/v1", "FelixConfiguration"),
    "installations": ("operator.tigera.io/v1", "Installation"),
    "ciliumnodes": ("cilium.io/v2", "CiliumNode"),
    "ciliumpools": ("cilium.io/v2alpha1", "CiliumPodIPPool"),
    "antreapools": ("crd.antrea.io/v1beta1", "IPPool"),
    "openshift": ("config.openshift.io/v1", "Network"),
    "clusters": ("cluster.x-k8s.io/v1beta2", "Cluster"),
    "clusters-beta1": ("cluster.x-k8s.io/v1beta1", "Cluster"),
}
POLICY_APIS = (
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("crd.projectcalico.org/v1", "GlobalNetworkPolicy"),
    ("projectcalico.org/v3", "GlobalNetworkPolicy"),
    ("cilium.io/v2", "CiliumNetworkPolicy"),
    ("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy"),
    ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy"),
)


@dataclass
class World:
    """Raw objects of a cluster, shortened to what is looked at.

    What may not be read is empty here and named in `asking.notes.permissions`. `pods` are those of kube-system alone;
    of all other pods, and of all Services, only the addresses are kept.
    """

    asking: Asking
    version: str = ""
    groups: dict[str, list[str]] | None = field(default_factory=dict)  # None: may not be read
    nodes: list[Object] = field(default_factory=list)
    services: list[Object] = field(default_factory=list)  # those with a port 53
    cluster_ips: list[str] = field(default_factory=list)
    pods: list[Object] = field(default_factory=list)
    pod_ips: list[str] = field(default_factory=list)
    daemonsets: list[Object] = field(default_factory=list)
    service_cidrs: list[Object] = field(default_factory=list)
    ip_addresses: list[str] = field(default_factory=list)  # allocated to Services
    kubernetes: Object = field(default_factory=dict)
    kubernetes_slices: list[Object] = field(default_factory=list)
    dns_slices: dict[tuple[str, str], list[Object]] = field(default_factory=dict)
    config: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    optional: dict[str, list[Object]] = field(default_factory=dict)

    def config_map(self, name: str, *namespaces: str) -> tuple[str, dict[str, str]]:
        """(reference, data) of the first ConfigMap of this name; empty when there is none."""
        for namespace in namespaces or ("kube-system",):
            found = self.config.get((namespace, name))
            if found is not None:
                return f"configmap/{namespace}/{name}", found
        return "", {}

    def serves(self, api_version: str) -> bool | None:
        """Whether the server lists a version of a group; None when it may not be asked."""
        if self.groups is None:
            return None
        group, _slash, version = api_version.rpartition("/")
        return version in self.groups.get(group, [])

    def state(self, source: str) -> str:
        """ok, absent, forbidden or failed; empty when it was not asked for."""
        return self.asking.notes.permissions.get(source, "")

    def static_pods(self, component: str) -> list[Object]:
        """Pods of a control-plane component, by the labels that distributions give them."""
        return [pod for pod in self.pods if component in (labels_of(pod).get("component"), labels_of(pod).get("k8s-app"))]


def look(asking: Asking) -> World:
    """Reads every source that there is. Nothing that fails ends the look."""
    world = World(asking)
    world.version = text(at(asking.raw("/version"), "gitVersion"))
    groups = at(asking.raw("/apis"), "groups")
    world.groups = None
    if isinstance(groups, list):
        world.groups = {
            text(at(group, "name")): [text(at(item, "version")) for item in items(at(group, "versions"))] for group in groups
        }
    world.nodes = asking.list("v1", "Node", trim=_node)
    _services(world)
    _pods(world)
    world.daemonsets = asking.list("apps/v1", "DaemonSet")
    if world.state("DaemonSet") == "forbidden":
        world.daemonsets = asking.list("apps/v1", "DaemonSet", "kube-system")
    world.kubernetes = asking.get("v1", "Service", "kubernetes", "default")
    of_kubernetes = "kubernetes.io/service-name=kubernetes"
    world.kubernetes_slices = asking.list("discovery.k8s.io/v1", "EndpointSlice", "default", of_kubernetes)
    world.kubernetes_slices = world.kubernetes_slices or _endpoints(world, "kubernetes", "default")
    world.service_cidrs = _networking(world, "ServiceCIDR")
    _networking(world, "IPAddress", lambda item: world.ip_addresses.append(text(at(item, "metadata", "name"))))
    _config(world)
    for key, (api_version, kind) in OPTIONAL.items():
        world.optional[key] = []
        if world.serves(api_version) is False:
            asking.notes.permissions[f"{kind} {api_version}"] = "absent"
        else:
            asked = asking.list(api_version, kind)
            asking.notes.permissions[f"{kind} {api_version}"] = asking.notes.permissions.pop(kind)
            world.optional[key] = asked
    return world


def _networking(world: World, kind: str, trim: Trim | None = None) -> list[Object]:
    """Objects of a kind that was beta before Kubernetes 1.33."""
    found: list[Object] = []
    for version in ("v1", "v1beta1"):
        api_version = f"networking.k8s.io/{version}"
        if world.serves(api_version) is not False and world.state(kind) not in ("ok", "forbidden"):
            found = world.asking.list(api_version, kind, trim=trim)
    if not world.state(kind):
        world.asking.notes.permissions[kind] = "absent"
    return found


def _endpoints(world: World, name: str, namespace: str) -> list[Object]:
    """The older form of a Service's EndpointSlices, where those may not be read."""
    if world.state(f"EndpointSlice {namespace}") == "ok":
        return []
    found = world.asking.get("v1", "Endpoints", name, namespace)
    return [
        {
            "endpoints": [{"addresses": [text(at(entry, "ip"))]} for entry in items(at(subset, "addresses"))],
            "ports": items(at(subset, "ports")),
        }
        for subset in items(at(found, "subsets"))
    ]


def _config(world: World) -> None:
    """ConfigMaps by name, and those that running CNI DaemonSets mount, wherever they are."""
    wanted = [*CONFIG_MAPS]
    for item in world.daemonsets:
        namespace = text(at(item, "metadata", "namespace"))
        wanted += [(namespace, name) for name in mounted(item) if name.startswith(MOUNTED)]
    for namespace, name in dict.fromkeys(wanted):
        found = world.asking.get("v1", "ConfigMap", name, namespace)
        if found:
            if not isinstance(found.get("data"), dict):
                reference = f"configmap/{namespace}/{name}"
                world.asking.malformed(f"{reference}: no data", *rights.overrides(reference))
            world.config[(namespace, name)] = strings(found.get("data"))


def mounted(daemonset: Object) -> list[str]:
    """Names of the ConfigMaps that a DaemonSet's pods mount."""
    volumes = items(at(daemonset, "spec", "template", "spec", "volumes"))
    return [name for volume in volumes if (name := text(at(volume, "configMap", "name")))]


def _node(node: Object) -> Object:
    """Without its images, which are most of a node."""
    status = mapping(node.get("status"))
    return {
        "metadata": {key: node["metadata"].get(key) for key in ("name", "labels", "annotations")},
        "spec": mapping(node.get("spec")),
        "status": {"addresses": status.get("addresses"), "nodeInfo": status.get("nodeInfo")},
    }


def _services(world: World) -> None:
    seen: dict[str, None] = {}

    def keep(item: Object) -> Object | None:
        for address in items(at(item, "spec", "clusterIPs")) or [at(item, "spec", "clusterIP")]:
            if text(address) not in ("", "None"):
                seen[text(address)] = None
        return item if any(at(port, "port") == 53 for port in items(at(item, "spec", "ports"))) else None

    world.services = world.asking.list("v1", "Service", trim=keep)
    if world.state("Service") == "forbidden":
        for namespace in ("kube-system", "openshift-dns"):
            world.services += world.asking.list("v1", "Service", namespace, trim=keep)
    world.cluster_ips = [*seen]
    for service in world.services:
        namespace, name = text(at(service, "metadata", "namespace")), text(at(service, "metadata", "name"))
        if namespace and name:
            selector = f"kubernetes.io/service-name={name}"
            slices = world.asking.list("discovery.k8s.io/v1", "EndpointSlice", namespace, selector)
            kept = [item for item in slices if labels_of(item).get(selector.partition("=")[0]) == name]
            world.dns_slices[(namespace, name)] = kept or _endpoints(world, name, namespace)


def _pods(world: World) -> None:
    seen: dict[str, None] = {}

    def keep(pod: Object) -> Object | None:
        if at(pod, "spec", "hostNetwork") is not True and at(pod, "status", "phase") == "Running":
            for entry in items(at(pod, "status", "podIPs")) or [{"ip": at(pod, "status", "podIP")}]:
                if text(at(entry, "ip")):
                    seen[text(at(entry, "ip"))] = None
        return pod if pod["metadata"].get("namespace") == "kube-system" else None

    world.pods = world.asking.list("v1", "Pod", trim=keep)
    if world.state("Pod") == "forbidden":
        world.pods = world.asking.list("v1", "Pod", "kube-system", trim=keep)
    world.pod_ips = [*seen]
