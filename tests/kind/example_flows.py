# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who asks whom in an example's cluster: every pod each port of every other pod and what is outside, and outside every pod."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .example_by_hand import PING, ByHand
from .example_pods import (
    AWAY_PORTS,
    HOST,
    INTERNET,
    NAMED,
    NODE_PORT,
    OUTSIDE,
    Port,
    Workload,
    listed,
    service_name,
)
from .field import FieldError

KUBELET = 10250
RESOLVER = Workload("Deployment", "kube-system", "coredns", (), (("udp", 53), ("tcp", 53)))


@dataclass(frozen=True)
class Pod:
    """A running pod. `of`: the workload it belongs to."""

    name: str
    address: str
    node: str
    of: Workload


@dataclass(frozen=True)
class Source:
    """Who asks. `words`: how a command comes to run there; `address`: what it asks from, where it has several."""

    label: str
    namespace: str
    pod: str
    container: str
    of: Workload | None = None
    address: str = ""
    node: str = ""

    @property
    def words(self) -> list[str]:
        own = ["ip", "netns", "exec", "outside"] if self.container == "outside" else []
        return [*own, "python3", "/lab/standin.py", "ask", *([self.address] if self.container == "outside" else [])]


@dataclass(frozen=True)
class Flow:
    """One question. `group`: the line of the table; `to`: the workload asked, else `policy` is the address that policies see.
    `host`: what is sent to; `says`: the name that must answer, None where the other side says none. `by_hand`: what the list
    declares, None where it has no say. `own_node`: from a node to a pod of its own.
    """

    group: str
    source: Source
    label: str
    host: str
    port: Port
    says: str | None
    by_hand: bool | None
    to: Workload | None = None
    policy: str = ""
    seen: Port | None = None  # the port that policies see, where it is another one
    own_node: bool = False

    @property
    def kind(self) -> str:
        """What is sent: a datagram to a resolver must be a question."""
        return "dns" if self.port == ("udp", 53) else self.port[0]

    def __str__(self) -> str:
        return f"{self.source.label} to {self.label} on {self.port[0]}{'' if self.port == PING else f' {self.port[1]}'}"


@dataclass(frozen=True)
class Cluster:
    """What runs, by the API server's word. `nodes`: name to address."""

    pods: tuple[Pod, ...]
    nodes: Mapping[str, str]
    outside: Mapping[str, str]  # by node: the pod that is everything outside
    api: tuple[str, int]
    api_service: str
    dns_service: str


def owner(pod: Mapping[str, Any]) -> tuple[str, str]:
    """Kind and name of a pod's workload."""
    for one in pod["metadata"].get("ownerReferences") or []:
        kind, name = str(one["kind"]), str(one["name"])
        if kind in ("ReplicaSet", "Job"):
            return ("Deployment" if kind == "ReplicaSet" else "CronJob"), name.rpartition("-")[0]
        return kind, name
    return "Pod", str(pod["metadata"]["name"])


def cluster(
    found: Iterable[Mapping[str, Any]],
    known: Iterable[Workload],
    nodes: Mapping[str, str],
    *,
    api: tuple[str, int],
    api_service: str,
    dns_service: str,
) -> Cluster:
    """Raises FieldError when a workload lacks pods that are ready."""
    by_key = {one.key: one for one in (*known, RESOLVER)}
    pods, outside, missing = [], {}, dict.fromkeys(by_key, 0)
    for pod in found:
        meta, spec, status = pod["metadata"], pod["spec"], pod["status"]
        kind, name = owner(pod)
        key = f"{meta['namespace']}/{kind}/{name}"
        ready = any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions") or [])
        if "deletionTimestamp" in meta or not ready:
            continue
        if meta["namespace"] == OUTSIDE:
            outside[spec["nodeName"]] = meta["name"]
        elif key in by_key:
            missing[key] += 1
            pods.append(Pod(meta["name"], status["podIP"], spec["nodeName"], by_key[key]))
    lacking = [key for key, one in by_key.items() if missing[key] < (len(nodes) if one.kind == "DaemonSet" else one.replicas)]
    if lacking or len(outside) < len(nodes):
        raise FieldError(f"without pods: {', '.join(lacking) or 'the outside'}")
    return Cluster(tuple(pods), dict(nodes), outside, api, api_service, dns_service)


class Flows:
    """Every question that is asked in a cluster."""

    def __init__(self, there: Cluster, by_hand: ByHand) -> None:
        self.there = there
        self.by_hand = by_hand
        self.lan = sorted({str(address) for app in by_hand.apps.values() for address in self._at_home(app)} | {HOST})

    def _at_home(self, app: Mapping[str, Any]) -> Iterable[str]:
        """Addresses of the LAN that an app names one by one."""
        named = [to for external in listed(app.get("external")) for to in listed(external["to"])] + listed(app.get("icmp"))
        return [to for to in named if "/" not in to and to not in self.there.nodes.values() and to != NAMED]

    def all(self) -> list[Flow]:
        found: list[Flow] = []
        for pod in self.there.pods:
            if pod.of == RESOLVER:
                continue
            source = Source(f"{pod.of.key} ({pod.node})", pod.of.namespace, pod.name, "app", pod.of, node=pod.node)
            found += [*self._to_pods(source, pod), *self._to_cluster(source, pod.of), *self._outward(source, pod.of)]
            found += self._by_name(source, pod.of)
        for node, outside in self.there.outside.items():
            found += self._from_node(Source(f"node {node}", OUTSIDE, outside, "node", address=self.there.nodes[node], node=node))
            found += self._from_outside(node, outside)
        return found

    def _to_pods(self, source: Source, pod: Pod) -> Iterable[Flow]:
        for other in self.there.pods:
            if other == pod:
                continue
            for port in (*other.of.ports, PING):
                if other.of == RESOLVER:
                    by_hand = self.by_hand.names(pod.of) if port != PING else None
                else:
                    by_hand = self.by_hand.pods(pod.of, other.of, port)
                says = other.of.key if port != PING and other.of != RESOLVER else None
                label = f"{other.of.key} ({other.node})"
                yield Flow("pod to pod", source, label, other.address, port, says, by_hand, to=other.of)

    def _by_name(self, source: Source, own: Workload) -> Iterable[Flow]:
        """What is declared, as applications ask: by the name of a Service."""
        others = {one.of.app: one.of for one in self.there.pods if one.of.app}
        for edge in sorted(self.by_hand.edges, key=str):
            if edge.source == own.app and edge.destination != own.app:
                other = others[edge.destination]
                host = f"{service_name(other)}.{other.namespace}.svc.cluster.local"
                yield Flow("pod to Service by name", source, host, host, edge.port, other.key, True, to=other)

    def _to_cluster(self, source: Source, own: Workload) -> Iterable[Flow]:
        there = self.there
        names = self.by_hand.names(own)
        yield Flow("pod to the cluster's DNS", source, "DNS", there.dns_service, ("udp", 53), None, names, to=RESOLVER)
        yield Flow("pod to the cluster's DNS", source, "DNS", there.dns_service, ("tcp", 53), None, names, to=RESOLVER)
        address, number = there.api
        seen, declared = ("tcp", number), self.by_hand.api(own)
        for host, port in ((address, seen), (there.api_service, ("tcp", 443))):
            yield Flow("pod to the API server", source, f"API {host}", host, port, None, declared, policy=address, seen=seen)
        for node, address in there.nodes.items():
            for number, says in ((NODE_PORT, "node"), (KUBELET, None)):
                wanted = self.by_hand.outward(own, address, ("tcp", number))
                port = ("tcp", number)
                yield Flow("pod to node", source, f"node {node}", address, port, says, wanted, policy=address)

    def _outward(self, source: Source, own: Workload) -> Iterable[Flow]:
        groups = (("pod to the internet", [INTERNET, NAMED]), ("pod to the LAN", self.lan))
        for group, addresses in groups:
            for address in addresses:
                for port in (*(("tcp", number) for number in AWAY_PORTS), PING):
                    wanted = self.by_hand.outward(own, address, port)
                    says = "outside" if port != PING else None
                    yield Flow(group, source, address, address, port, says, wanted, policy=address)

    def _from_node(self, source: Source) -> Iterable[Flow]:
        for pod in self.there.pods:
            if pod.of == RESOLVER:
                continue
            own = pod.node == source.node
            for port in (*pod.of.ports, PING):
                wanted = True if own else self.by_hand.webhook(pod.of, port)
                says = pod.of.key if port != PING else None
                group = "node to its own pod" if own else "node to another's pod"
                label = f"{pod.of.key} ({pod.node})"
                yield Flow(group, source, label, pod.address, port, says, wanted, pod.of, source.address, own_node=own)

    def _from_outside(self, node: str, outside: str) -> Iterable[Flow]:
        for group, address in (("LAN to pod", HOST), ("internet to pod", INTERNET)):
            source = Source(f"{group.partition(' ')[0]} {address}", OUTSIDE, outside, "outside", address=address, node=node)
            for pod in self.there.pods:
                if pod.of == RESOLVER or pod.node != node:
                    continue
                for port in (*pod.of.ports, PING):
                    wanted = self.by_hand.lan(pod.of, port) if address == HOST else self.by_hand.nowhere(pod.of)
                    says = pod.of.key if port != PING else None
                    yield Flow(group, source, f"{pod.of.key} ({pod.node})", pod.address, port, says, wanted, pod.of, address)
