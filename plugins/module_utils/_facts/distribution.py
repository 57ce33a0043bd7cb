# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which distribution this is: several signals, all reported; none decides alone where they disagree."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from . import observations as obs
from .observations import at, text
from .world import World

#: Default ranges: (pods, services) by distribution; hypotheses until confirmed. Sources: the distributions' documentation.
DEFAULTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "kubeadm": ((), ("10.96.0.0/12",)),
    "kind": (("10.244.0.0/16", "fd00:10:244::/56"), ("10.96.0.0/16", "fd00:10:96::/112")),
    "minikube": (("10.244.0.0/16",), ("10.96.0.0/12",)),
    "k3s": (("10.42.0.0/16", "fd00:42::/56"), ("10.43.0.0/16", "fd00:43::/112")),
    "rke2": (("10.42.0.0/16", "fd00:42::/56"), ("10.43.0.0/16", "fd00:43::/112")),
    "microk8s": (("10.1.0.0/16",), ("10.152.183.0/24",)),
    "talos": (("10.244.0.0/16", "fc00:db8:10::/56"), ("10.96.0.0/12", "fc00:db8:20::/112")),
    "k0s": (("10.244.0.0/16",), ("10.96.0.0/12",)),
    "openshift": (("10.128.0.0/14",), ("172.30.0.0/16",)),
    "eks": ((), ("10.100.0.0/16", "172.20.0.0/16")),
    "gke": ((), ("34.118.224.0/20",)),
    "aks": (("10.244.0.0/16", "fd12:3456:789a::/64"), ("10.0.0.0/16", "fd12:3456:789a:1::/108")),
    "kops": ((), ("100.64.0.0/13", "fd00:5e4f:ce::/108")),
}

#: Distributions whose server nodes carry their arguments, so that a missing flag proves the default.
ARGUMENTS = {"k3s": "k3s.io/node-args", "rke2": "rke2.io/node-args"}


@dataclass(frozen=True)
class Distribution:
    """`name` unknown where signals disagree or there are none."""

    name: str
    version: str
    signals: tuple[str, ...]

    def data(self) -> dict[str, Any]:
        return {"name": self.name, "version": self.version, "signals": list(self.signals)}


def detect(world: World) -> Distribution:
    signals: list[tuple[str, str]] = []
    for node in world.nodes:
        name = text(at(node, "metadata", "name"))
        labels = obs.labels_of(node)
        annotations = obs.annotations_of(node)
        kubelet = text(at(node, "status", "nodeInfo", "kubeletVersion"))
        image = text(at(node, "status", "nodeInfo", "osImage"))
        provider = text(at(node, "spec", "providerID")).split(":")[0]
        keys = [*labels, *annotations]
        for found, sign in (
            ("microk8s", "microk8s.io/cluster" in labels),
            ("k3s", any(key.startswith("k3s.io/") for key in annotations)),
            ("rke2", any(key.startswith("rke2.io/") for key in annotations)),
            ("minikube", any(key.startswith("minikube.k8s.io/") for key in keys)),
            ("talos", any(key.startswith(("talos.dev/", "extensions.talos.dev/")) for key in keys)),
            ("k0s", any(key.startswith("k0sproject.io/") for key in keys)),
            ("kops", any(key.startswith("kops.k8s.io/") for key in keys)),
        ):
            if sign:
                signals.append((found, f"node {name}: labels or annotations of {found}"))
        for found, mark in (("k3s", "+k3s"), ("rke2", "+rke2r"), ("eks", "-eks-"), ("gke", "-gke."), ("k0s", "+k0s")):
            if mark in kubelet:
                signals.append((found, f"node {name}: kubelet {kubelet}"))
        if image.startswith("Talos"):
            signals.append(("talos", f"node {name}: {image}"))
        if "CoreOS" in image and world.serves("config.openshift.io/v1"):
            signals.append(("openshift", f"node {name}: {image}"))
        for found, scheme in (("kind", "kind"), ("k3s", "k3s")):
            if provider == scheme:
                signals.append((found, f"node {name}: provider {provider}"))
        if "kubernetes.azure.com/cluster" in labels:
            signals.append(("aks", f"node {name}: label kubernetes.azure.com/cluster"))
        if any(key.startswith("eks.amazonaws.com/") for key in labels):
            signals.append(("eks", f"node {name}: labels of EKS"))
        if any(key.startswith("cloud.google.com/gke-") for key in labels):
            signals.append(("gke", f"node {name}: labels of GKE"))
    if world.serves("config.openshift.io/v1"):
        signals.append(("openshift", "API group config.openshift.io"))
    names = [name for name, _why in signals]
    if "rke2" in names:
        # RKE2 is built from k3s, whose marks it may carry too.
        names = [name for name in names if name != "k3s"]
    reference, _data = world.config_map("kubeadm-config")
    if reference and not names:
        # kind, minikube and others use kubeadm too, so its record speaks only when nothing else does.
        signals.append(("kubeadm", reference))
        names = ["kubeadm"]
    counted = Counter(names)
    name = counted.most_common(1)[0][0] if len(counted) == 1 else "unknown"
    return Distribution(name, world.version, tuple(dict.fromkeys(why for _name, why in signals)))
