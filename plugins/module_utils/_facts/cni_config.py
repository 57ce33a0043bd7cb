# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How CNIs are configured: their ConfigMaps, the environment of their containers, and the arguments of k3s and RKE2."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .._yaml import yaml
from . import observations as obs
from .distribution import ARGUMENTS, Distribution
from .observations import at, items, text
from .world import World, mounted


def antrea_config(world: World) -> tuple[str, Any]:
    """(reference, the controller's configuration) of Antrea; its ConfigMap's name may carry a hash."""
    for (namespace, name), data in world.config.items():
        if name.startswith("antrea-config"):
            reference = f"configmap/{namespace}/{name}"
            try:
                return reference, yaml.safe_load(data.get("antrea-controller.conf") or "") or {}
            except (yaml.YAMLError, RecursionError, ValueError):
                world.asking.malformed(f"{reference}: antrea-controller.conf is no YAML", "pods", "cni.ipam")
    return "", {}


def cilium_config(world: World) -> tuple[str, dict[str, str]]:
    """(reference, data) of Cilium's configuration, in the namespace of its DaemonSet first."""
    there = [namespace for namespace, name in world.config if name == "cilium-config"]
    agents = [
        text(at(item, "metadata", "namespace")) for item in world.daemonsets if obs.labels_of(item).get("k8s-app") == "cilium"
    ]
    chosen = [namespace for namespace in there if namespace in agents] or there
    return world.config_map("cilium-config", *chosen[:1]) if chosen else ("", {})


def flannel_configs(world: World) -> list[tuple[str, Any]]:
    """(reference, net-conf.json) of flannel's ConfigMaps: those that a running DaemonSet mounts, else all that there are."""
    names = ("kube-flannel-cfg", "canal-config", "rke2-canal-config")
    there = [(namespace, name) for namespace, name in world.config if name in names]
    used = {
        (text(at(item, "metadata", "namespace")), name)
        for item in world.daemonsets
        if at(item, "status", "desiredNumberScheduled") != 0
        for name in mounted(item)
    }
    found = []
    for namespace, name in [key for key in there if key in used] or there:
        reference = f"configmap/{namespace}/{name}"
        raw = world.config[(namespace, name)].get("net-conf.json")
        try:
            config = json.loads(raw) if raw else None
        except (ValueError, RecursionError):
            world.asking.malformed(f"{reference}: net-conf.json is no JSON", "pods")
            continue
        if isinstance(config, dict):
            found.append((reference, config))
    return found


def node_arguments(world: World, distribution: Distribution) -> dict[str, list[str]]:
    """Arguments of the server nodes of k3s and RKE2 by node name; empty for other distributions."""
    return server_arguments(world, ARGUMENTS.get(distribution.name, ""))


def server_arguments(world: World, key: str) -> dict[str, list[str]]:
    """Arguments in an annotation of server nodes, by node name. Agents carry none of the cluster's flags."""
    found: dict[str, list[str]] = {}
    for node in world.nodes:
        raw = obs.annotations_of(node).get(key, "")
        name = text(at(node, "metadata", "name"))
        try:
            words = json.loads(raw) if raw else None
        except (ValueError, RecursionError):
            world.asking.malformed(f"node/{name}: {key} is no JSON", "pods", "services")
            continue
        if isinstance(words, list) and words and words[0] == "server":
            found[name] = [str(word) for word in words]
    return found


def containers_env(item: Mapping[str, Any], name: str) -> str:
    """Value of an environment variable of a DaemonSet's or pod's containers; empty when it is not there."""
    spec = at(item, "spec", "template", "spec") or at(item, "spec")
    for container in items(at(spec, "containers")):
        for entry in items(at(container, "env")):
            if at(entry, "name") == name:
                return text(at(entry, "value"))
    return ""
