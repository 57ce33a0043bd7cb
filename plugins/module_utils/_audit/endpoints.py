# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who there is, read off the snapshot and the declared list: namespaces with their labels, and pods by workload."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .._facts.model import Facts
from .._manifests import names
from .._manifests.model import LABEL_CLIENT, LABEL_INSTANCE, Live, Manifest
from .._manifests.waypoints import GATEWAY_NAME
from .._manifests.workloads import WORKLOADS, PodSelector, containers, labels_of, template_of
from .._topology.model import App, Network, Selector, Topology
from .sets import NOWHERE, Addresses, network

NAMESPACE_LABEL = "kubernetes.io/metadata.name"
#: Labels that controllers put on single pods: they tell a workload's pods apart, not workloads.
VOLATILE = (
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/job-name",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-completion-index",
    "job-name",
    "controller-uid",
)


@dataclass(frozen=True)
class Endpoint:
    """The pods of one workload, a pod that no workload's template explains, or pods that are declared and not there yet."""

    name: str  # namespace/Kind/name
    namespace: str
    labels: Mapping[str, str]
    ports: Mapping[tuple[str, str], int] = field(default_factory=dict)  # (protocol, name) -> number
    numbers: tuple[tuple[str, int], ...] = ()  # (protocol, number) of the declared container ports
    host_ports: tuple[tuple[str, int, int], ...] = ()  # (protocol, port of the node, container port)
    host_network: bool = False
    addresses: Addresses = NOWHERE  # of its running pods; empty: not known
    service_account: str = "default"
    mesh: bool = False
    app: str = ""  # key of the app that declares it
    planned: bool = False  # declared, not seen
    drifted: bool = False  # a pod whose labels are not its workload's
    gateway: str = ""  # name of the gateway that it is


def namespaces(topology: Topology, facts: Facts, live: Live) -> dict[str, dict[str, str]]:
    """Labels by namespace. The name's own label is set by the API server, so files that lack it still mean it."""
    found: dict[str, dict[str, str]] = {}
    for item in live.all("Namespace"):
        found[item["metadata"]["name"]] = _strings(item["metadata"].get("labels"))
    for item in live.objects:
        name = item["metadata"].get("namespace")
        if isinstance(name, str) and name:
            found.setdefault(name, {})
    for name in (*(app.namespace for app in topology.apps), *(gateway.namespace for gateway in topology.gateways)):
        found.setdefault(name, {})
    roles = [topology.platform.ingress, topology.platform.prometheus]
    roles += [app.operator.selector for app in topology.apps if app.operator is not None]
    for name in (facts.dns.namespace, *(role.namespace for role in roles if role is not None)):
        if name:
            found.setdefault(name, {})
    return {name: {**labels, NAMESPACE_LABEL: name} for name, labels in sorted(found.items())}


def _strings(value: Any) -> dict[str, str]:
    """Labels that are strings; files may hold anything."""
    if not isinstance(value, Mapping):
        return {}
    return {str(key): text for key, text in value.items() if isinstance(text, str)}


def endpoints(topology: Topology, facts: Facts, live: Live, namespaces: Mapping[str, Mapping[str, str]]) -> Iterable[Endpoint]:
    apps = {(app.kind, app.namespace, app.workload or app.name): app for app in topology.apps}
    seen: set[str] = set()
    addresses, strays = _pods(live)
    for kind in (*WORKLOADS, "ReplicaSet", "ReplicationController", "Job"):
        for item in live.all(kind):
            meta = item["metadata"]
            if kind in ("ReplicaSet", "Job") and any(owner.get("controller") for owner in meta.get("ownerReferences") or []):
                continue
            namespace = meta.get("namespace") or "default"
            app = apps.get((kind, namespace, meta["name"]))
            if app is not None:
                seen.add(app.key)
            known = addresses.get((namespace, kind, meta["name"]), ())
            yield _endpoint(topology, namespaces, kind, namespace, meta["name"], template_of(item), app, known)
    for item in strays:
        meta = item["metadata"]
        owned = bool(meta.get("ownerReferences"))
        yield _endpoint(
            topology, namespaces, "Pod", meta.get("namespace") or "default", meta["name"], item, None, _ips(item), drifted=owned
        )
    yield from _planned(topology, facts, live, namespaces, seen)


def _planned(
    topology: Topology, facts: Facts, live: Live, namespaces: Mapping[str, Mapping[str, str]], seen: set[str]
) -> Iterable[Endpoint]:
    """What is declared and not there: apps by their labels, gateways, parts of the platform, DNS."""
    for app in topology.apps:
        if app.key not in seen and app.pods:
            name = app.workload or app.name
            template: Manifest = {"metadata": {"labels": dict(app.pods)}, "spec": {}}
            yield _endpoint(topology, namespaces, app.kind, app.namespace, name, template, app, (), planned=True)
    for gateway in topology.gateways:
        if live.get("Deployment", gateway.namespace, names.gateway_object(gateway)) is None:
            template = {"metadata": {"labels": names.gateway_pods(topology, gateway)}, "spec": {}}
            yield _endpoint(
                topology,
                namespaces,
                "Deployment",
                gateway.namespace,
                names.gateway_object(gateway),
                template,
                None,
                (),
                planned=True,
            )
    roles = [("ingress controller", topology.platform.ingress), ("prometheus", topology.platform.prometheus)]
    if facts.dns.namespace and facts.dns.pod_labels:
        roles.append(("dns", Selector(facts.dns.namespace, facts.dns.pod_labels)))
    operators = {(app.operator.name, app.operator.selector.namespace): app.operator for app in topology.apps if app.operator}
    roles += [(f"operator {operator.name}", operator.selector) for operator in operators.values()]
    known = {(app.namespace, tuple(sorted((app.pods or {}).items()))) for app in topology.apps if app.key not in seen}
    for name, role in roles:
        if role is None or not role.namespace or _there(role, live, known):
            continue
        template = {"metadata": {"labels": dict(role.labels)}, "spec": {}}
        yield _endpoint(topology, namespaces, "Deployment", role.namespace, name, template, None, (), planned=True)


def _there(role: Selector, live: Live, known: set[tuple[str, tuple[tuple[str, str], ...]]]) -> bool:
    selector = PodSelector(dict(role.labels))
    if any(namespace == role.namespace and selector.matches(dict(labels)) for namespace, labels in known):
        return True
    templates = (template_of(item) for kind in WORKLOADS for item in live.all(kind, role.namespace))
    return any(selector.matches(_strings(labels_of(template))) for template in templates) or any(
        selector.matches(_strings(labels_of(item))) for item in live.all("Pod", role.namespace)
    )


def _endpoint(
    topology: Topology,
    namespaces: Mapping[str, Mapping[str, str]],
    kind: str,
    namespace: str,
    name: str,
    template: Mapping[str, Any],
    app: App | None,
    addresses: Iterable[Network],
    *,
    planned: bool = False,
    drifted: bool = False,
) -> Endpoint:
    labels = _strings(labels_of(template))
    spec = template.get("spec") or {}
    if app is not None and app.vpn is not None:
        # As it will be once it is injected: what is decided about it must hold then.
        labels = {**labels, LABEL_CLIENT: app.vpn.gateway, LABEL_INSTANCE: topology.instance}
    ports: dict[tuple[str, str], int] = {}
    numbers: list[tuple[str, int]] = []
    host_ports: list[tuple[str, int, int]] = []
    for container in containers(template):
        for port in container.get("ports") or []:
            number = port.get("containerPort")
            if not isinstance(number, int):
                continue
            protocol = port.get("protocol") or "TCP"
            numbers.append((protocol, number))
            if port.get("name"):
                ports[protocol, port["name"]] = number
            if port.get("hostPort"):
                host_ports.append((protocol, int(port["hostPort"]), number))
    if planned and app is not None:
        for declared in app.ports.values():
            numbers += [(port.protocol, port.number) for port in declared if port.number]
    return Endpoint(
        name=f"{namespace}/{kind}/{name}",
        namespace=namespace,
        labels=labels,
        ports=ports,
        numbers=tuple(dict.fromkeys(numbers)),
        host_ports=tuple(host_ports),
        host_network=bool(spec.get("hostNetwork")),
        addresses=Addresses.of(addresses),
        service_account=str(spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"),
        mesh=_in_mesh(topology, namespaces.get(namespace, {}), namespace, labels),
        app=app.key if app is not None else "",
        planned=planned,
        drifted=drifted,
        gateway=_gateway(topology, namespace, labels),
    )


def _gateway(topology: Topology, namespace: str, labels: Mapping[str, str]) -> str:
    for gateway in topology.gateways:
        wanted = names.gateway_pods(topology, gateway)
        if namespace == gateway.namespace and all(labels.get(key) == value for key, value in wanted.items()):
            return gateway.name
    return ""


def _in_mesh(topology: Topology, namespace_labels: Mapping[str, str], namespace: str, labels: Mapping[str, str]) -> bool:
    """Istio ambient: the namespace is enrolled, or declared to be, and the pod does not opt out. A waypoint is not captured and
    speaks the tunnel by itself."""
    own = labels.get("istio.io/dataplane-mode")
    if own is not None:
        return own == "ambient" or GATEWAY_NAME in labels
    if namespace_labels.get("istio.io/dataplane-mode") == "ambient":
        return True
    return any(rule.name == namespace and rule.mesh for rule in topology.namespaces)


def _ips(pod: Mapping[str, Any]) -> tuple[Network, ...]:
    status = pod.get("status") or {}
    texts = [item.get("ip") for item in status.get("podIPs") or []] or [status.get("podIP")]
    return tuple(found for text in texts if text and (found := network(str(text))) is not None and found.num_addresses == 1)


def _pods(live: Live) -> tuple[dict[tuple[str, str, str], tuple[Network, ...]], list[Manifest]]:
    """Addresses by workload of the pods that its template explains, and the pods that none explains.

    A pod that has ended keeps an address that others may have by now, so it counts as gone.
    """
    found: dict[tuple[str, str, str], tuple[Network, ...]] = {}
    strays: list[Manifest] = []
    for pod in live.all("Pod"):
        if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            continue
        owner = _owner(pod, live)
        labels = {key: value for key, value in _strings(labels_of(pod)).items() if key not in VOLATILE}
        if owner is not None and labels == _strings(labels_of(template_of(owner))):
            key = (pod["metadata"].get("namespace") or "default", owner["kind"], owner["metadata"]["name"])
            found[key] = (*found.get(key, ()), *_ips(pod))
        else:
            strays.append(pod)
    return found, strays


def _owner(pod: Manifest, live: Live) -> Manifest | None:
    """The workload of a pod: its controller, or that one's controller (also when the one between was not read)."""
    namespace = pod["metadata"].get("namespace") or "default"
    for owner in pod["metadata"].get("ownerReferences") or []:
        kind, name = owner.get("kind", ""), owner.get("name", "")
        between = live.get(kind, namespace, name)
        if kind in ("ReplicaSet", "Job"):
            above = [
                item for item in ((between or {}).get("metadata") or {}).get("ownerReferences") or [] if item.get("controller")
            ]
            if above:
                return live.get(above[0]["kind"], namespace, above[0]["name"])
            if between is None:
                parent = "Deployment" if kind == "ReplicaSet" else "CronJob"
                return live.get(parent, namespace, name.rpartition("-")[0])
        if between is not None:
            return between
    return None
