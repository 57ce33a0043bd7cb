# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the topology declares, as edges between endpoints and towards addresses: what the verdicts are held against."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from .._errors import FaultsError, required
from .._facts.model import Facts
from .._manifests import names
from .._manifests.addresses import public_blocks
from .._manifests.client_edges import Blocks, Edge, Pods, edges_of, needs_dns
from .._manifests.model import Live
from .._manifests.segments_edges import AppEdges, SegmentBuilder
from .._topology.model import App, Topology
from .._topology.model import Port as DeclaredPort
from .policy import EGRESS, INGRESS
from .sets import NOWHERE, Addresses, Intervals, Ports
from .world import World, bits


@dataclass(frozen=True)
class ToAddresses:
    """A declared edge to or from addresses. `ports` None: every port."""

    app: str
    addresses: Addresses
    ports: Ports
    why: str


@dataclass
class Declared:
    """`pairs`: declared ports by (source, destination) with the reasons; `unknown`: apps whose edges cannot be told, and why."""

    pairs: dict[tuple[int, int], Ports] = field(default_factory=dict)
    reasons: dict[tuple[int, int], str] = field(default_factory=dict)
    egress: list[ToAddresses] = field(default_factory=list)
    ingress: list[ToAddresses] = field(default_factory=list)
    shared: dict[str, dict[str, list[ToAddresses]]] = field(default_factory=dict)  # namespace with one policy -> direction -> all
    overlays: set[tuple[int, int]] = field(default_factory=set)  # (client, its gateway): selected without ports
    missing: list[tuple[str, str]] = field(default_factory=list)  # (app, edge) whose other side has no pods
    unknown: dict[str, str] = field(default_factory=dict)
    resolvers: dict[str, str] = field(default_factory=dict)  # app -> none | gateway | client


def ports_of(listed: Iterable[DeclaredPort]) -> Ports:
    """Declared ports as a set; none are every port of every protocol but ICMP, which no NetworkPolicy can promise."""
    parts: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for port in listed:
        parts[port.protocol].append((port.number, port.end or port.number))
    if not parts:
        return Ports.whole("TCP", "UDP", "SCTP")
    return Ports({name: Intervals.of(found) for name, found in parts.items()})


def declared(topology: Topology, facts: Facts, live: Live, world: World, apps: Iterable[App]) -> Declared:
    """The edges of these apps, both directions. Edges come from the same code that the policies are built from."""
    found = Declared()
    public = Addresses()
    for base, left_out in public_blocks(facts):
        public = public | (Addresses.of([base]) - Addresses.of(left_out))
    for app in apps:
        try:
            edges = _edges(topology, facts, live, app)
        except FaultsError as error:
            found.unknown[app.key] = "; ".join(str(fault) for fault in error.faults)
            continue
        for direction, target in ((EGRESS, found.egress), (INGRESS, found.ingress)):
            for edge in edges[direction]:
                if isinstance(edge.peer, Pods):
                    _edge(found, world, app, edge, edge.peer, outgoing=direction == EGRESS)
            target += _to_addresses(app, edges, direction, public)
        if app.vpn is not None:
            found.resolvers[app.key] = needs_dns(topology, facts, app)
            _gateway(found, topology, facts, world, app)
        else:
            found.resolvers[app.key] = "client"
    for rule in topology.namespaces:
        if rule.layout == "namespace":
            found.shared[rule.name] = _shared(topology, facts, live, rule.name, public, world.node_addresses)
    return found


@dataclass(frozen=True)
class _Edges:
    """Both directions of one app. `internet`: ports of the public internet, None: not declared."""

    egress: tuple[Edge, ...]
    ingress: tuple[Edge, ...]
    internet: tuple[DeclaredPort, ...] | None

    def __getitem__(self, direction: str) -> tuple[Edge, ...]:
        return self.egress if direction == EGRESS else self.ingress


def _edges(topology: Topology, facts: Facts, live: Live, app: App) -> _Edges:
    if app.vpn is not None:
        edges = edges_of(topology, facts, live, app)
        probed = edges.mesh and facts.mesh_probe_sources and edges.probes != ()
        probes = (Edge(Blocks(facts.mesh_probe_sources), edges.probes or (), "probes through the mesh"),) if probed else ()
        return _Edges(edges.egress, (*edges.ingress, *probes), None)
    builder = SegmentBuilder(topology, facts, live, app)
    found: AppEdges = builder.collect()
    if builder.faults:
        raise FaultsError(builder.faults)
    return _Edges(found.egress, found.ingress, found.internet)


def _to_addresses(app: App, edges: _Edges, direction: str, public: Addresses, nodes: Addresses = NOWHERE) -> Iterable[ToAddresses]:
    """What an app declares towards or from what is no pod: blocks, the internet, pings; with `nodes` the pods on their network."""
    for edge in edges[direction]:
        if isinstance(edge.peer, Blocks):
            yield ToAddresses(app.key, Addresses.of(edge.peer.networks), ports_of(edge.ports), edge.why)
        elif edge.peer.host and nodes:
            yield ToAddresses(app.key, nodes, ports_of(edge.ports), edge.why)
    if direction == EGRESS and edges.internet is not None:
        yield ToAddresses(app.key, public, ports_of(edges.internet), "internet")
    if direction == EGRESS and app.icmp:
        yield ToAddresses(app.key, Addresses.of(app.icmp), Ports.whole("ICMP"), "icmp")


def _shared(
    topology: Topology, facts: Facts, live: Live, namespace: str, public: Addresses, nodes: Addresses
) -> dict[str, list[ToAddresses]]:
    """What the one policy of a namespace gives to every pod of it: what any of its apps declared."""
    found: dict[str, list[ToAddresses]] = {EGRESS: [], INGRESS: []}
    for app in topology.apps:
        if app.namespace == namespace and app.vpn is None:
            with contextlib.suppress(FaultsError):  # said where the app itself is looked at
                edges = _edges(topology, facts, live, app)
                for direction, listed in found.items():
                    listed += _to_addresses(app, edges, direction, public, nodes)
    return found


def _edge(found: Declared, world: World, app: App, edge: Edge, peer: Pods, *, outgoing: bool) -> None:
    ports = ports_of(edge.ports)
    own = world.by_app.get(app.key, 0)
    others = world.select(peer.namespace, peer.selector)
    if not others:
        found.missing.append((app.key, edge.why))
    for mine in bits(own):
        for other in bits(others):
            pair = (mine, other) if outgoing else (other, mine)
            found.pairs[pair] = found.pairs.get(pair, Ports()) | ports
            found.reasons.setdefault(pair, edge.why)


def _gateway(found: Declared, topology: Topology, facts: Facts, world: World, app: App) -> None:
    """The overlay: two UDP flows, one in each direction. The image's own scripts ping first."""
    gateway = topology.gateway(required(app.vpn).gateway)
    overlay = Ports.one("UDP", names.overlay_port(gateway, facts))
    for mine in bits(world.by_app.get(app.key, 0)):
        for other in bits(world.by_gateway.get(gateway.name, 0)):
            out = overlay | Ports.whole("ICMP") if gateway.overlay.scripts == "image" else overlay
            found.overlays.add((mine, other))
            for pair, ports in (((mine, other), out), ((other, mine), overlay)):
                found.pairs[pair] = found.pairs.get(pair, Ports()) | ports
                found.reasons[pair] = f"the overlay of gateway {gateway.name}"
