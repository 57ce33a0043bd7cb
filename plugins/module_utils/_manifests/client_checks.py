# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What makes a client impossible to hold closed: each refusal names the reason and the way out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from .._errors import Fault, required
from .._facts.model import Facts
from .._topology.model import App, Topology
from .client_guard import NATIVE_SIDECAR_SINCE, VOLUME, native_sidecars
from .client_template import OUR_CONTAINERS, injected
from .model import LABEL_INSTANCE, Live
from .workloads import template_of, workload

PSA_ENFORCE = "pod-security.kubernetes.io/enforce"
SECONDARY_NETWORKS = "k8s.v1.cni.cncf.io/networks"


def refusals(
    topology: Topology, facts: Facts, live: Live, apps: Iterable[App], *, manage_pod_security: bool = False
) -> list[Fault]:
    """Every reason why one of the given clients cannot be injected. A workload that does not exist is no reason."""
    faults: list[Fault] = []
    for app in apps:
        found = workload(app, live)
        if found is None:
            continue
        path = f"apps[{topology.position(app)}]"
        other = (found["metadata"].get("labels") or {}).get(LABEL_INSTANCE, topology.instance)
        if other != topology.instance:
            faults.append(
                Fault(
                    f"{path}.workload",
                    f'{app.kind}/{app.workload} is a client of the instance "{other}"',
                    f"take it out of that one's list first, or set netguard_instance: {other}",
                )
            )
        faults += [Fault(f"{path}.{where}", message, hint) for where, message, hint in _workload(app, found, facts)]
        vpn = required(app.vpn)
        if topology.gateway(vpn.gateway).overlay.scripts == "image":
            faults.append(
                Fault(
                    f"{path}.vpn.gateway",
                    f'the gateway "{vpn.gateway}" runs the image\'s own overlay scripts, which no guard lets through',
                    "set overlay.scripts: netguard for it",
                )
            )
        level = pod_security(live, app.namespace)
        if level and not manage_pod_security:
            faults.append(
                Fault(
                    f"{path}.namespace",
                    f'Pod Security level "{level}" of namespace {app.namespace} forbids the guard, which needs NET_ADMIN',
                    f"kubectl label namespace {app.namespace} {PSA_ENFORCE}=privileged --overwrite, "
                    "or set netguard_manage_pod_security: true",
                )
            )
    return faults


def pod_security(live: Live, namespace: str) -> str:
    """The level that a namespace enforces where it forbids the guard: baseline or restricted, else empty."""
    found = live.get("Namespace", "", namespace)
    level = ((found or {"metadata": {}})["metadata"].get("labels") or {}).get(PSA_ENFORCE, "")
    return level if level in ("baseline", "restricted") else ""


def _workload(app: App, found: Mapping[str, Any], facts: Facts) -> Iterable[tuple[str, str, str]]:
    vpn = required(app.vpn)
    template = template_of(found)
    spec, name = template["spec"], f"{app.kind}/{app.workload}"
    if spec.get("hostNetwork"):
        yield (
            "workload",
            f"{name} runs on the node's network (hostNetwork): the guard would rewrite the node's own rules and routes",
            "remove hostNetwork from it, or vpn from the app",
        )
    if (spec.get("os") or {}).get("name") == "windows" or (spec.get("nodeSelector") or {}).get("kubernetes.io/os") == "windows":
        yield "workload", f"{name} runs on Windows, where the guard's packet rules do not exist", "remove vpn from the app"
    networks = [item for item in secondary_networks(template) if item not in vpn.secondary_networks]
    if networks:
        yield (
            "vpn.secondary_networks",
            f"{name} has secondary networks ({', '.join(networks)}), which no policy covers and which the guard closes",
            "take them off the pod, or accept each by name in vpn.secondary_networks",
        )
    if vpn.forward:
        replicas = found["spec"].get("replicas", 1)
        if replicas > 1:
            yield (
                "vpn.forward",
                f"{name} has {replicas} replicas, and a forwarded port leads to one pod",
                "set replicas: 1, or remove forward",
            )
    if app.kind == "CronJob" and not native_sidecars(facts):
        needed = ".".join(str(part) for part in NATIVE_SIDECAR_SINCE)
        have = ".".join(str(part) for part in facts.server_version)
        yield (
            "workload",
            f"{name}: beside an ordinary sidecar a Job never ends, and native ones need Kubernetes {needed} (this is {have})",
            "upgrade the cluster, or turn the CronJob into a Deployment that sleeps between its runs",
        )
    taken = [
        item["name"] for key in ("initContainers", "containers") for item in spec.get(key) or () if item["name"] in OUR_CONTAINERS
    ]
    taken += [item["name"] for item in spec.get("volumes") or () if item["name"] == VOLUME]
    if taken and not injected_by_us(template):
        yield "workload", f"{name} has a part of its own named {', '.join(taken)}", "rename it"


def injected_by_us(template: Mapping[str, Any]) -> bool:
    """Whether our annotations are there: a container that merely has one of our names is the owner's."""
    annotations = (template.get("metadata") or {}).get("annotations") or {}
    return injected(template) and any(key.startswith("homelab.netguard/") for key in annotations)


def secondary_networks(template: Mapping[str, Any]) -> tuple[str, ...]:
    """Names (`name` or `namespace/name`) of the networks that Multus attaches beside the cluster's own."""
    text = ((template.get("metadata") or {}).get("annotations") or {}).get(SECONDARY_NETWORKS, "").strip()
    if not text:
        return ()
    if text.startswith("["):
        try:
            items = json.loads(text)
            return tuple(f"{item['namespace']}/{item['name']}" if item.get("namespace") else item["name"] for item in items)
        except (ValueError, KeyError, TypeError, AttributeError):
            return (text,)
    return tuple(part.strip().split("@")[0] for part in text.split(",") if part.strip())
