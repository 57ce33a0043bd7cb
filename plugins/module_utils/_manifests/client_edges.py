# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a client may do beside its tunnel, computed once for the policy and for the guard.

The kill switch renders these edges as NetworkPolicy rules (selectors and pod ports, after translation of Services),
the guard as packet rules (`pod range:target port` and `VIP/32:service port`, before it). Both come from the same
`ClientEdges`, so that no port is open in the one and closed in the other.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, replace

from .._errors import Fault, FaultsError, required
from .._facts.guards import overlap
from .._facts.model import Facts
from .._topology.model import App, Network, Port, Selector, Topology
from . import workloads
from .model import Live, Manifest
from .workloads import PodSelector

#: TCP port of Istio's HBONE tunnels: between two enrolled pods it is the only port on the wire.
HBONE = Port(15008, "TCP")

#: CNIs that compare policies before a Service's address is translated: the Service's own port must be open too.
BEFORE_TRANSLATION = frozenset({"aws-vpc-cni"})

#: What operators need beside the declared ports. CloudNativePG: its status port and PostgreSQL, from the operator and between
#: instances.
OPERATOR_PORTS = {"cloudnative-pg": (Port(8000), Port(5432))}


@dataclass(frozen=True)
class Pods:
    """Pods of one namespace. `host`: they run on the node's network, so no selector matches them and nodes stand for them."""

    namespace: str
    selector: PodSelector
    host: bool = False


@dataclass(frozen=True)
class Blocks:
    """Addresses that are no pods: LAN hosts, nodes, API endpoints, the mesh's probe address."""

    networks: tuple[Network, ...]


@dataclass(frozen=True, order=True)
class ServicePort:
    """One way to an edge's pods by a Service: what the client's kernel sees before translation."""

    address: str
    port: Port


@dataclass(frozen=True)
class Edge:
    """One declared permission. `ports` are pod ports, empty: every port and protocol. `why` names the declaration."""

    peer: Pods | Blocks
    ports: tuple[Port, ...]
    why: str
    services: tuple[ServicePort, ...] = ()


@dataclass(frozen=True)
class Target:
    """One address range and port as the guard compares them; `port` None: every port and protocol."""

    network: Network
    port: Port | None
    why: str = ""


@dataclass(frozen=True)
class ClientEdges:
    """All that one client needs beside the overlay.

    `dns`: who asks the cluster's DNS: `none`; `gateway`: only the sidecar, to find the gateway's pod; `client`: the app.
    `probes`: TCP ports that the kubelet probes, None: the workload is not known yet.
    `egress` and `ingress` hold neither the gateway's overlay nor DNS nor probes: those have fields of their own.
    """

    app: App
    selector: PodSelector
    egress: tuple[Edge, ...]
    ingress: tuple[Edge, ...]
    dns: str
    probes: tuple[Port, ...] | None
    mesh: bool

    def guard_egress(self, facts: Facts) -> tuple[Target, ...]:
        """What the guard lets out on the pod's own interface: declared uses alone, by address and port."""
        found: dict[tuple[Network, Port | None], Target] = {}
        for edge in self.egress:
            for network in _networks(edge.peer, facts):
                for port in edge.ports or (None,):
                    found.setdefault((network, port), Target(network, port, edge.why))
            for service in edge.services:
                network = ipaddress.ip_network(service.address)
                found.setdefault((network, service.port), Target(network, service.port, edge.why))
        return tuple(found.values())

    def guard_ingress(self, facts: Facts) -> tuple[Target, ...]:
        """From where new connections to which port are let in on the pod's own interface, probes excepted.

        Probes come from the node's own addresses (`status.hostIPs`), which only the pod itself knows, and in the mesh
        from `facts.mesh_probe_sources`; the guard adds both for `probes`.
        """
        found: dict[tuple[Network, Port | None], Target] = {}
        for edge in self.ingress:
            for network in _networks(edge.peer, facts):
                for port in edge.ports or (None,):
                    found.setdefault((network, port), Target(network, port, edge.why))
        return tuple(found.values())


def as_seen(edges: Iterable[Edge], facts: Facts) -> Iterable[Edge]:
    """Egress as this CNI compares it. Before translation it sees the Service's port, which stands for the pods that the rule
    selects; what is selected by address is seen under the Service's address."""
    for edge in edges:
        if facts.cni.name not in BEFORE_TRANSLATION or not edge.ports or not edge.services:
            yield edge
        elif isinstance(edge.peer, Pods):
            yield replace(edge, ports=(*edge.ports, *(service.port for service in edge.services)))
        else:
            yield edge
            networks = tuple(dict.fromkeys(ipaddress.ip_network(service.address) for service in edge.services))
            yield Edge(Blocks(networks), tuple(dict.fromkeys(service.port for service in edge.services)), edge.why)


def _networks(peer: Pods | Blocks, facts: Facts) -> tuple[Network, ...]:
    if isinstance(peer, Blocks):
        return peer.networks
    return facts.nodes if peer.host else facts.pods


def means_nodes(peer: Pods | Blocks, facts: Facts) -> bool:
    """Whether a peer means nodes: pods on their network, or addresses among theirs."""
    if isinstance(peer, Pods):
        return peer.host
    return any(overlap(network, node) for network in peer.networks for node in facts.nodes)


def edges_of(topology: Topology, facts: Facts, live: Live, app: App) -> ClientEdges:
    """The edges of one client. Raises FaultsError with every reason why they cannot be told."""
    found = EdgeBuilder(topology, facts, live, app)
    edges = found.build()
    if found.faults:
        raise FaultsError(found.faults)
    return edges


def needs_dns(topology: Topology, facts: Facts, app: App) -> str:
    """Who of this client must reach the cluster's DNS: none | gateway | client.

    A gateway behind a ClusterIP needs no name; the image's own scripts always look their gateway up.
    """
    gateway = topology.gateway(required(app.vpn).gateway)
    if gateway.dns == "cluster":
        return "client"
    if gateway.overlay.scripts == "image" or not facts.cni.translates_kernel_packets:
        return "gateway"
    return "none"


def in_mesh(topology: Topology, namespace: str) -> bool:
    return any(rule.name == namespace and rule.mesh for rule in topology.namespaces)


class EdgeBuilder:
    """Collects the edges of one client and the faults on the way."""

    def __init__(self, topology: Topology, facts: Facts, live: Live, app: App) -> None:
        self.topology = topology
        self.facts = facts
        self.live = live
        self.app = app
        self.path = f"apps[{topology.position(app)}]"
        self.mesh = in_mesh(topology, app.namespace)
        self.faults: list[Fault] = []

    def build(self) -> ClientEdges:
        app = self.app
        selector = self.selector(app)
        template = workloads.template(app, self.live)
        self.refuse(selector, template)
        probes = None if template is None else workloads.probe_ports(template)
        return ClientEdges(
            app=app,
            selector=selector,
            egress=tuple(self.egress(selector)),
            ingress=tuple(self.ingress(selector)),
            dns=needs_dns(self.topology, self.facts, app),
            probes=probes,
            mesh=self.mesh,
        )

    def refuse(self, selector: PodSelector, template: Manifest | None) -> None:
        """What no policy could hold: pods on the node's network, and a selector that takes other pods too."""
        if template and (template.get("spec") or {}).get("hostNetwork"):
            message = f"{self.app.kind}/{self.app.workload} runs on the node's network, where no policy and no guard holds it"
            self.faults.append(Fault(f"{self.path}.workload", message, "remove hostNetwork from it, or vpn from the app"))
        others = workloads.others_selected(self.app, selector, self.live)
        if others and (selector.labels or selector.expressions):
            message = f"{selector} also selects {', '.join(others)} in {self.app.namespace}"
            hint = f"give the pods of {self.app.kind}/{self.app.workload} a label of their own and name it under `pods`"
            self.faults.append(Fault(f"{self.path}.pods", message, hint))

    def selector(self, app: App) -> PodSelector:
        try:
            return workloads.pod_selector(app, self.live)
        except FaultsError as exc:
            path = f"apps[{self.topology.position(app)}]"
            self.faults.extend(Fault(f"{path}.{fault.path}", fault.message, fault.hint) for fault in exc.faults)
            return PodSelector({})

    def pods(self, app: App) -> Pods:
        template = workloads.template(app, self.live)
        host = bool(template and template.get("spec", {}).get("hostNetwork"))
        return Pods(app.namespace, self.selector(app), host)

    def platform(self, selector: Selector) -> Pods:
        return Pods(
            selector.namespace,
            PodSelector(dict(selector.labels)),
            workloads.on_host_network(selector.namespace, selector.labels, self.live),
        )

    def ports(self, app: App, names: Iterable[str], path: str) -> tuple[Port, ...]:
        """Pod ports by the names that the app declares; container-port names are looked up in its template."""
        found: list[Port] = []
        for name in names:
            for port in app.ports.get(name, ()):
                number = workloads.resolve_port(port, workloads.template(app, self.live))
                if number is None:
                    self.faults.append(
                        Fault(path, f"container port {port.name!r} of {app.key} is not known", "give its number under `ports`")
                    )
                    continue
                found.append(number)
        return tuple(dict.fromkeys(found))

    def services(self, app: App, ports: tuple[Port, ...]) -> tuple[ServicePort, ...]:
        found = workloads.service_ports(app, ports, self.live)
        return tuple(ServicePort(address, port) for address, numbers in found.items() for port in numbers)

    def meshed(self, ports: tuple[Port, ...], peer: Pods, *, always: bool = False) -> tuple[Port, ...]:
        """Between two enrolled pods only HBONE is on the wire; the plain port stays for the time before enrolment."""
        if self.mesh and ports and (always or in_mesh(self.topology, peer.namespace)):
            return (*ports, HBONE)
        return ports

    def replication(self, selector: PodSelector) -> Iterable[Edge]:
        """Between the instances that an operator manages, in either direction."""
        ports = OPERATOR_PORTS.get(self.app.operator.name, ()) if self.app.operator is not None else ()
        if ports:
            peer = Pods(self.app.namespace, selector)
            yield Edge(peer, self.meshed(ports, peer), f"replication of {self.app.key}")

    def egress(self, selector: PodSelector) -> Iterable[Edge]:
        app = self.app
        for index, use in enumerate(app.uses):
            path = f"{self.path}.uses[{index}]"
            target = self.topology.app(use.app)
            peer = self.pods(target)
            ports = self.ports(target, [use.port], path)
            if ports:
                yield Edge(peer, self.meshed(ports, peer), f"uses {use.app}:{use.port}", self.services(target, ports))
        for external in app.external:
            yield Edge(Blocks(external.to), external.ports, "external")
        if app.peers:
            ports = self.ports(app, app.peers, f"{self.path}.peers")
            peer = self.pods(app)
            yield Edge(peer, self.meshed(ports, peer), "peers", self.services(app, ports))
        yield from self.replication(selector)
        if app.kube_api:
            service_ip = self.facts.api_service_ip
            api = (ServicePort(service_ip, Port(443, "TCP")),) if service_ip else ()
            by_port: dict[int, list[Network]] = {}
            for endpoint in self.facts.api_endpoints:
                by_port.setdefault(endpoint.port, []).append(ipaddress.ip_network(endpoint.ip))
            for port, networks in sorted(by_port.items()):
                yield Edge(Blocks(tuple(networks)), (Port(port, "TCP"),), "kube_api", api)

    def ingress(self, selector: PodSelector) -> Iterable[Edge]:
        app, platform = self.app, self.topology.platform
        for other in self.topology.users(app):
            names = [use.port for use in other.uses if use.app == app.key]
            if names:
                peer = self.pods(other)
                ports = self.ports(app, names, f"{self.path}.ports")
                yield Edge(peer, self.meshed(ports, peer), f"used by {other.key}")
        if app.exposed and platform.ingress is not None:
            peer = self.platform(platform.ingress)
            ports = self.ports(app, [exposed.port for exposed in app.exposed], f"{self.path}.exposed")
            yield Edge(peer, self.meshed(ports, peer, always=True), "exposed through the ingress controller")
        if app.metrics and platform.prometheus is not None:
            peer = self.platform(platform.prometheus)
            yield Edge(peer, self.meshed(self.ports(app, app.metrics, f"{self.path}.metrics"), peer), "metrics")
        if app.peers:
            peer = Pods(app.namespace, selector)
            yield Edge(peer, self.meshed(self.ports(app, app.peers, f"{self.path}.peers"), peer), "peers")
        if app.operator is not None:
            peer = self.platform(app.operator.selector)
            named = self.ports(app, app.operator.ports, f"{self.path}.operator")
            ports = tuple(dict.fromkeys([*named, *OPERATOR_PORTS.get(app.operator.name, ())]))
            if ports:
                yield Edge(peer, self.meshed(ports, peer), f"operator {app.operator.name}")
            yield from self.replication(selector)
        if app.lan:
            ports = self.ports(app, app.lan, f"{self.path}.lan")
            if ports and not self.facts.lan:
                hint = "set netguard_overrides: {lan: [...]} "
                self.faults.append(Fault(f"{self.path}.lan", "the LAN's addresses are not known", hint.strip()))
            if ports:
                yield Edge(Blocks(self.facts.lan), ports, "lan")
        if app.webhook:
            yield Edge(Blocks(self.facts.nodes), app.webhook, "webhook called by the API server")
