# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Everything that is read of a cluster, read once: the other files look only here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .observations import Asking, at, items, text

Object = dict[str, Any]

#: ConfigMaps that are asked for by name: (namespace, name). A cluster-wide list is never asked for.
CONFIG_MAPS = (
    ("kube-system", "kubeadm-config"),
    ("kube-system", "kubelet-config"),
    ("kube-system", "kube-proxy"),
    ("kube-system", "cilium-config"),
    ("kube-system", "canal-config"),
    ("kube-system", "rke2-canal-config"),
    ("kube-system", "kube-flannel-cfg"),
    ("kube-flannel", "kube-flannel-cfg"),
    ("kube-system", "antrea-config"),
    ("kube-system", "coredns"),
    ("ovn-kubernetes", "ovn-config"),
    ("kube-system", "cluster-config-v1"),
)
#: Optional APIs: asked for only where the server lists their group.
OPTIONAL = {
    "ippools": ("crd.projectcalico.org/v1", "IPPool"),
    "blocks": ("crd.projectcalico.org/v1", "BlockAffinity"),
    "felix": ("crd.projectcalico.org/v1", "FelixConfiguration"),
    "installations": ("operator.tigera.io/v1", "Installation"),
    "ciliumnodes": ("cilium.io/v2", "CiliumNode"),
    "ciliumpools": ("cilium.io/v2alpha1", "CiliumPodIPPool"),
    "openshift": ("config.openshift.io/v1", "Network"),
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
    """Raw objects of a cluster. What may not be read is empty here and named in `asking.notes.permissions`."""

    asking: Asking
    version: str = ""
    groups: dict[str, list[str]] = field(default_factory=dict)
    nodes: list[Object] = field(default_factory=list)
    services: list[Object] = field(default_factory=list)
    pods: list[Object] = field(default_factory=list)
    daemonsets: list[Object] = field(default_factory=list)
    service_cidrs: list[Object] = field(default_factory=list)
    kubernetes: Object = field(default_factory=dict)
    kubernetes_slices: list[Object] = field(default_factory=list)
    config: dict[tuple[str, str], Object] = field(default_factory=dict)
    optional: dict[str, list[Object]] = field(default_factory=dict)

    def config_map(self, name: str, *namespaces: str) -> tuple[str, dict[str, str]]:
        """(reference, data) of the first ConfigMap of this name; empty when there is none."""
        for namespace in namespaces or ("kube-system",):
            found = self.config.get((namespace, name))
            if found:
                data = found.get("data")
                return f"configmap/{namespace}/{name}", data if isinstance(data, dict) else {}
        return "", {}

    def serves(self, api_version: str) -> bool:
        group, _, version = api_version.rpartition("/")
        return version in self.groups.get(group, [])

    def static_pods(self, component: str) -> list[Object]:
        """Pods of a control-plane component, by the labels that distributions give them."""
        return [
            pod
            for pod in self.pods
            if pod["metadata"].get("namespace") == "kube-system"
            and component in (at(pod, "metadata", "labels", "component"), at(pod, "metadata", "labels", "k8s-app"))
        ]


def look(asking: Asking) -> World:
    """Reads every source that there is. Nothing that fails ends the look."""
    world = World(asking)
    world.version = text(at(asking.raw("/version"), "gitVersion"))
    for group in items(at(asking.raw("/apis"), "groups")):
        world.groups[text(at(group, "name"))] = [text(at(item, "version")) for item in items(at(group, "versions"))]
    world.nodes = asking.list("v1", "Node")
    world.services = asking.list("v1", "Service")
    world.pods = asking.list("v1", "Pod")
    if asking.notes.permissions.get("Pod") == "forbidden":
        world.pods = asking.list("v1", "Pod", "kube-system")
    world.daemonsets = asking.list("apps/v1", "DaemonSet")
    world.kubernetes = asking.get("v1", "Service", "kubernetes", "default")
    world.kubernetes_slices = asking.list(
        "discovery.k8s.io/v1", "EndpointSlice", "default", "kubernetes.io/service-name=kubernetes"
    )
    for version in ("v1", "v1beta1"):
        if world.serves(f"networking.k8s.io/{version}") and not world.service_cidrs:
            world.service_cidrs = asking.list(f"networking.k8s.io/{version}", "ServiceCIDR")
    for namespace, name in CONFIG_MAPS:
        world.config[(namespace, name)] = asking.get("v1", "ConfigMap", name, namespace)
    for key, (api_version, kind) in OPTIONAL.items():
        world.optional[key] = asking.list(api_version, kind) if world.serves(api_version) else []
    return world
