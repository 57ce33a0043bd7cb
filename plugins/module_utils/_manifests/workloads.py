# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What can be read off workloads and Services of the snapshot: selectors, templates, ports, Service addresses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .._errors import Fault, FaultsError
from .._topology.model import App, Port
from .model import Live, Manifest

#: API version by kind of the workloads that an app can be.
WORKLOADS = {"Deployment": "apps/v1", "StatefulSet": "apps/v1", "DaemonSet": "apps/v1", "CronJob": "batch/v1"}


@dataclass(frozen=True)
class PodSelector:
    """A label selector as the API writes it: equality labels and expressions, all of which must hold."""

    labels: Mapping[str, str]
    expressions: tuple[Mapping[str, Any], ...] = ()

    def manifest(self) -> Manifest:
        """As a `podSelector` or `labelSelector`."""
        body: Manifest = {}
        if self.labels:
            body["matchLabels"] = dict(sorted(self.labels.items()))
        if self.expressions:
            body["matchExpressions"] = [dict(expression) for expression in self.expressions]
        return body

    def matches(self, labels: Mapping[str, str]) -> bool:
        if any(labels.get(key) != value for key, value in self.labels.items()):
            return False
        return all(_holds(expression, labels) for expression in self.expressions)

    def __str__(self) -> str:
        """As `kubectl --selector` writes it."""
        parts = [f"{key}={value}" for key, value in sorted(self.labels.items())]
        for expression in self.expressions:
            key, operator, values = expression["key"], expression["operator"], ",".join(expression.get("values") or [])
            written = {"Exists": key, "DoesNotExist": f"!{key}"}
            parts.append(written.get(operator, f"{key} {operator.lower()} ({values})"))
        return ",".join(parts)


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """NotIn and DoesNotExist match objects that lack the key (Kubernetes label selectors)."""
    key, operator, values = expression["key"], expression["operator"], expression.get("values") or []
    if operator == "In":
        return labels.get(key) in values
    if operator == "NotIn":
        return labels.get(key) not in values
    if operator == "Exists":
        return key in labels
    return key not in labels


def workload(app: App, live: Live) -> Manifest | None:
    return live.get(app.kind, app.namespace, app.workload or app.name)


def template_of(manifest: Mapping[str, Any]) -> Manifest:
    """The pod template of a workload of any of our kinds."""
    spec = manifest.get("spec") or {}
    if manifest.get("kind") == "CronJob":
        spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    return spec.get("template") or {}


def template(app: App, live: Live) -> Manifest | None:
    """The live pod template of an app, None while the workload does not exist."""
    found = workload(app, live)
    return None if found is None else template_of(found)


def labels_of(template: Mapping[str, Any]) -> Mapping[str, str]:
    return (template.get("metadata") or {}).get("labels") or {}


def pod_selector(app: App, live: Live) -> PodSelector:
    """How policies and admission select the pods of an app: `pods`, else the workload's own selector.

    A CronJob has no selector of its own (each Job gets one by uid): its template's labels stand for it.
    Labels that we inject ourselves are never used: an owner's replace loses them.
    Raises FaultsError whose path is relative to the app.
    """
    found = workload(app, live)
    if app.pods:
        selector = PodSelector(dict(app.pods))
        if found is not None and not selector.matches(labels_of(template_of(found))):
            message = f"these labels do not select the pods of {app.kind}/{app.workload or app.name} in {app.namespace}"
            raise FaultsError([Fault("pods", message, f"its template has {dict(labels_of(template_of(found)))}")])
        return selector
    if found is None:
        message = f"{app.kind}/{app.workload or app.name} does not exist in {app.namespace} (or was not given in `live`)"
        raise FaultsError([Fault("pods", message, "name the labels of its pods, so that they can be selected in advance")])
    if found["kind"] == "CronJob":
        selector = PodSelector({k: v for k, v in labels_of(template_of(found)).items() if "homelab.netguard/" not in k})
    else:
        own = found["spec"].get("selector") or {}
        selector = PodSelector(dict(own.get("matchLabels") or {}), tuple(own.get("matchExpressions") or ()))
    if not selector.labels and not selector.expressions:
        raise FaultsError(
            [Fault("pods", f"{app.kind}/{app.workload or app.name} labels no pods", "add a label to its pod template")]
        )
    return selector


def others_selected(app: App, selector: PodSelector, live: Live) -> tuple[str, ...]:
    """`Kind/name` of other workloads in the namespace whose pods the selector takes too."""
    own = (app.kind, app.workload or app.name)
    by_label, everyone = _pod_makers(live, app.namespace)
    candidates = min((by_label.get(pair, []) for pair in selector.labels.items()), key=len, default=everyone)
    return tuple(
        f"{item['kind']}/{item['metadata']['name']}"
        for item in candidates
        if (item["kind"], item["metadata"]["name"]) != own
        and not _owned_by(item, app)
        and not _finished(item)
        and selector.matches(labels_of(template_of(item)))
    )


def _pod_makers(live: Live, namespace: str) -> tuple[dict[tuple[str, str], list[Manifest]], list[Manifest]]:
    """Workloads and Jobs of a namespace by each label of their pods, and all of them; derived once per snapshot."""
    key = ("pod makers", namespace)
    if key not in live.derived:
        everyone = [item for kind in (*WORKLOADS, "Job") for item in live.all(kind, namespace)]
        by_label: dict[tuple[str, str], list[Manifest]] = {}
        for item in everyone:
            for pair in labels_of(template_of(item)).items():
                by_label.setdefault(pair, []).append(item)
        live.derived[key] = (by_label, everyone)
    found: tuple[dict[tuple[str, str], list[Manifest]], list[Manifest]] = live.derived[key]
    return found


def _owned_by(item: Mapping[str, Any], app: App) -> bool:
    owners = item["metadata"].get("ownerReferences") or []
    return any(owner.get("kind") == app.kind and owner.get("name") == (app.workload or app.name) for owner in owners)


def _finished(item: Mapping[str, Any]) -> bool:
    """A Job that is through makes no more pods."""
    conditions = (item.get("status") or {}).get("conditions") or []
    return any(found.get("type") in ("Complete", "Failed") and found.get("status") == "True" for found in conditions)


def containers(template: Mapping[str, Any]) -> tuple[Manifest, ...]:
    spec = template.get("spec") or {}
    return (*(spec.get("initContainers") or []), *(spec.get("containers") or []))


def resolve_port(port: Port, template: Mapping[str, Any] | None) -> Port | None:
    """A port by number; one known by its container-port name is looked up, None when it cannot be."""
    if port.number:
        return Port(port.number, port.protocol, port.end)
    for container in containers(template or {}):
        for item in container.get("ports") or []:
            if item.get("name") == port.name and item.get("protocol", "TCP") == port.protocol:
                return Port(int(item["containerPort"]), port.protocol)
    return None


def probe_ports(template: Mapping[str, Any]) -> tuple[Port, ...]:
    """TCP ports that the kubelet's probes and lifecycle hooks connect to, by number."""
    found: dict[Port, None] = {}
    for container in containers(template):
        hooks = container.get("lifecycle") or {}
        checks = [container.get(kind) for kind in ("startupProbe", "readinessProbe", "livenessProbe")]
        for check in [*checks, hooks.get("postStart"), hooks.get("preStop")]:
            for how in ("httpGet", "tcpSocket", "grpc"):
                wanted = ((check or {}).get(how) or {}).get("port")
                if wanted is None:
                    continue
                port = Port(0, name=wanted) if isinstance(wanted, str) and not wanted.isdigit() else Port(int(wanted))
                number = resolve_port(port, {"spec": {"containers": [container]}})
                if number is not None:
                    found[number] = None
    return tuple(found)


def services_for(namespace: str, labels: Mapping[str, str], live: Live) -> tuple[Manifest, ...]:
    """Services of the namespace whose (non-empty) selector takes pods with these labels."""
    return tuple(
        item
        for item in live.all("Service", namespace)
        if (selector := (item.get("spec") or {}).get("selector")) and PodSelector(selector).matches(labels)
    )


def service_ports(app: App, ports: Iterable[Port], live: Live) -> dict[str, tuple[Port, ...]]:
    """By ClusterIP: the Service ports that lead to one of these pod ports of the app. Headless Services have no address."""
    found = template(app, live)
    labels = labels_of(found) if found is not None else dict(app.pods or {})
    wanted = tuple(ports)
    result: dict[str, tuple[Port, ...]] = {}
    for service in services_for(app.namespace, labels, live):
        spec = service["spec"]
        addresses = [ip for ip in spec.get("clusterIPs") or [spec.get("clusterIP", "")] if ip and ip != "None"]
        numbers = tuple(
            Port(int(item["port"]), item.get("protocol", "TCP"))
            for item in spec.get("ports") or []
            if (target := service_target(item, found)) is not None and any(covers(port, target) for port in wanted)
        )
        for address in addresses:
            result[address] = tuple(dict.fromkeys([*result.get(address, ()), *numbers]))
    return {address: numbers for address, numbers in result.items() if numbers}


def service_target(item: Mapping[str, Any], template: Mapping[str, Any] | None) -> Port | None:
    """The pod port behind a Service port (`targetPort` by number or by name); None: a name that nobody has."""
    protocol = item.get("protocol", "TCP")
    target = item.get("targetPort", item["port"])
    if isinstance(target, str) and not target.isdigit():
        return resolve_port(Port(0, protocol, name=target), template)
    return Port(int(target), protocol)


def covers(port: Port, other: Port) -> bool:
    """Whether `port` (or its range) contains `other`."""
    return port.protocol == other.protocol and port.number <= other.number <= (port.end or port.number)


def on_host_network(namespace: str, labels: Mapping[str, str], live: Live) -> bool:
    """Whether a workload with these pod labels runs on the node's network: selectors never match such pods."""
    selector = PodSelector(dict(labels))
    return any(
        (template_of(item).get("spec") or {}).get("hostNetwork") and selector.matches(labels_of(template_of(item)))
        for kind in WORKLOADS
        for item in live.all(kind, namespace)
    )
