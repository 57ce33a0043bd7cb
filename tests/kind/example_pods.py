# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stand-ins for the apps of an example, as objects: a pod with the app's labels and one small process on the app's ports.

Beside them are pods that nobody declared, and on each node a network namespace that is everything outside of the cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).resolve().parents[1] / "cluster" / "lab" / "standin.py"
IMAGE = "netguard.test/toolbox:1"
LABEL, VALUE = "netguard.test/lab", "examples"
CONFIG = "netguard-lab"
#: Every pod answers on these too: one that nobody declares, and in the mesh the tunnel's, which Istio would listen on.
SPARE, HBONE = ("tcp", 7777), ("tcp", 15008)

#: The cluster's outside: in a namespace of the network on each node, so that none of its packets leaves its node.
OUTSIDE = "netguard-outside"
#: A LAN of documentation addresses, its router and an ordinary host of it.
LAN, HOST = "192.0.2.0/24", "192.0.2.77"
#: "The internet" is documentation addresses too, since no test speaks to a public one: `internet` leaves them out, so that what it
#: opens is not tried here. The second stands for a public host that the list names.
INTERNET, NAMED = "203.0.113.90", "203.0.113.8"
AWAY = (LAN, f"{INTERNET}/32", f"{NAMED}/32")
AWAY_PORTS = (22, 25, 80, 443, 3260, 5000, 5001, 8006, 8080, 8443, 9000)
#: What the example's node exporter would listen on, on the node's own network.
NODE_PORT = 9100

#: Namespaces with a pod that nobody declared; one whose policies are by app, one with a policy for the whole namespace.
STRAYS = {"monitoring", "argocd", "loki"}
#: So that an app's pods have somebody of their own kind to talk to.
REPLICATED = ("peers", "operator")
#: Port that CloudNativePG's operator asks, beside those that the list names.
OPERATOR_STATUS = ("tcp", 8000)

Port = tuple[str, int]
Manifest = dict[str, Any]


@dataclass(frozen=True)
class Workload:
    """Pods of one kind. `app`: key of the app that they stand for; empty for those that nobody declared."""

    kind: str
    namespace: str
    name: str
    labels: tuple[tuple[str, str], ...]
    ports: tuple[Port, ...] = ()
    replicas: int = 1
    app: str = ""

    @property
    def key(self) -> str:
        """As the audit names it."""
        return f"{self.namespace}/{self.kind}/{self.name}"


def listed(value: Any) -> list[Any]:
    """A list, where the list of apps may have one item alone or nothing."""
    if value is None or value is False:
        return []
    return list(value) if isinstance(value, list) else [value]


def port_of(value: Any) -> Port:
    """`8080`, `8080/tcp` or `9094/udp`; examples with other forms would be news here. Raises ValueError."""
    number, _slash, protocol = str(value).partition("/")
    return protocol or "tcp", int(number)


def named_ports(app: Mapping[str, Any]) -> dict[str, tuple[Port, ...]]:
    return {name: tuple(port_of(item) for item in listed(value)) for name, value in (app.get("ports") or {}).items()}


def key_of(app: Mapping[str, Any]) -> str:
    return f"{app['namespace']}/{app['name']}"


def workloads(declared: Mapping[str, Any]) -> list[Workload]:
    """What runs for a list: a workload for each app, the operators, and pods that nobody declared."""
    mesh = {rule["name"] for rule in declared["namespaces"] if rule.get("mesh")}
    found: dict[str, Workload] = {}
    for app in declared["apps"]:
        kind, _slash, name = str(app.get("workload") or f"Deployment/{app['name']}").partition("/")
        ports = [port for group in named_ports(app).values() for port in group]
        if app.get("operator"):
            ports.append(OPERATOR_STATUS)
            operator = Workload("Deployment", "cnpg-system", "operator", (("app.kubernetes.io/name", "cloudnative-pg"),), (SPARE,))
            found[operator.key] = operator
        ports += [SPARE, *([HBONE] if app["namespace"] in mesh else [])]
        replicas = 2 if any(app.get(word) for word in REPLICATED) else 1
        labels = tuple(sorted(app["pods"].items()))
        one = Workload(kind, app["namespace"], name, labels, tuple(dict.fromkeys(ports)), replicas, key_of(app))
        found[one.key] = one
    for namespace in ("guests", *sorted(STRAYS & {app["namespace"] for app in declared["apps"]})):
        ports = (("tcp", 8080), SPARE, *((HBONE,) if namespace in mesh else ()))
        stray = Workload("Deployment", namespace, "nobody", (("app", "nobody"),), ports)
        found[stray.key] = stray
    return list(found.values())


def objects(declared: Mapping[str, Any]) -> list[Manifest]:
    """Everything that is applied, namespaces first."""
    all_of_them = workloads(declared)
    namespaces = sorted({one.namespace for one in all_of_them} | {OUTSIDE})
    found = [_marked("v1", "Namespace", "", name) for name in namespaces if name not in ("default", "kube-system")]
    found += [{**_marked("v1", "ConfigMap", name, CONFIG), "data": {PROGRAM.name: PROGRAM.read_text()}} for name in namespaces]
    for one in all_of_them:
        found.append(_workload(one))
        if one.app and one.ports:
            found.append(_service(one))
    return [*found, _outside()]


def service_name(one: Workload) -> str:
    return one.app.partition("/")[2]


def _marked(api: str, kind: str, namespace: str, name: str) -> Manifest:
    place = {"namespace": namespace} if namespace else {}
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, **place, "labels": {LABEL: VALUE}}}


def _container(name: str, words: Iterable[str], **more: Any) -> Manifest:
    return {
        "name": name,
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": list(words),
        "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}},
        "volumeMounts": [{"name": "lab", "mountPath": "/lab"}],
        **more,
    }


def _serve(name: str, ports: Iterable[Port]) -> list[str]:
    return ["python3", f"/lab/{PROGRAM.name}", "serve", name, *(f"{number}/{protocol}" for protocol, number in ports)]


def _spec(*containers: Manifest, **more: Any) -> Manifest:
    volumes = [{"name": "lab", "configMap": {"name": CONFIG}}]
    quiet = {"terminationGracePeriodSeconds": 1, "automountServiceAccountToken": False, "enableServiceLinks": False}
    return {**quiet, "containers": list(containers), "volumes": volumes, **more}


def _workload(one: Workload) -> Manifest:
    ports = [{"containerPort": number, "protocol": protocol.upper()} for protocol, number in one.ports]
    labels = dict(one.labels)
    spec = _spec(_container("app", _serve(one.key, one.ports), ports=ports))
    template: Manifest = {"metadata": {"labels": labels}, "spec": spec}
    if one.kind == "CronJob":
        # a Job is made of it by hand; nothing starts by itself
        spec["restartPolicy"] = "Never"
        body: Manifest = {"schedule": "0 3 * * *", "suspend": True, "jobTemplate": {"spec": {"template": template}}}
        return {**_marked("batch/v1", one.kind, one.namespace, one.name), "spec": body}
    body = {"selector": {"matchLabels": labels}, "template": template}
    if one.kind != "DaemonSet":
        body["replicas"] = one.replicas
    if one.kind == "StatefulSet":
        body |= {"serviceName": service_name(one), "podManagementPolicy": "Parallel"}
    return {**_marked("apps/v1", one.kind, one.namespace, one.name), "spec": body}


def _service(one: Workload) -> Manifest:
    ports = [{"name": f"{protocol}-{number}", "port": number, "protocol": protocol.upper()} for protocol, number in one.ports]
    spec = {"selector": dict(one.labels), "ports": ports}
    return {**_marked("v1", "Service", one.namespace, service_name(one)), "spec": spec}


def _outside() -> Manifest:
    """On each node a namespace of the network with every address outside, behind a link of its own; the node routes them there.
    All of it ends with the pod. Beside it a server on the node's own network."""
    script = f"""
    ip link delete outside0 2>/dev/null
    set -e
    ip netns add outside
    ip link add outside0 type veth peer name eth0 netns outside
    ip address add 169.254.50.1/30 dev outside0
    ip link set outside0 up
    ip -n outside address add 169.254.50.2/30 dev eth0
    ip -n outside link set eth0 up
    ip -n outside link set lo up
    ip -n outside route add default via 169.254.50.1
    for network in {" ".join(AWAY)}; do
      ip -n outside route add local $network dev lo
      ip route replace $network via 169.254.50.2
    done
    exec ip netns exec outside {" ".join(_serve("outside", [("tcp", number) for number in AWAY_PORTS]))}
    """
    spec = _spec(
        # ready when the node has its routes
        _container(
            "outside",
            ["bash", "-c", script],
            securityContext={"privileged": True},
            readinessProbe={"tcpSocket": {"host": HOST, "port": AWAY_PORTS[0]}, "periodSeconds": 1},
        ),
        _container("node", _serve("node", [("tcp", NODE_PORT)])),
        hostNetwork=True,
    )
    labels = {"app": "outside"}
    body = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}}
    return {**_marked("apps/v1", "DaemonSet", OUTSIDE, "outside"), "spec": body}
