# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the topology declares, as edges between endpoints and towards addresses: what the verdicts are held against."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from .._errors import FaultsError
from .._facts.model import Facts
from .._manifests import names
from .._manifests.addresses import public_blocks
from .._manifests.client_edges import Blocks, Edge, edges_of, needs_dns
from .._manifests.model import Live
from .._manifests.segments_edges import AppEdges, _Segment
from .._topology.model import App, Topology
from .._topology.model import Port as DeclaredPort
from .sets import Addresses, Intervals, Ports
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
    for app in apps:
        try:
            egress, ingress, internet = _edges(topology, facts, live, app)
        except FaultsError as error:
            found.unknown[app.key] = "; ".join(str(fault) for fault in error.faults)
            continue
        for edge in egress:
            _edge(found, world, app, edge, outgoing=True)
        for edge in ingress:
            _edge(found, world, app, edge, outgoing=False)
        if internet is not None:
            blocks = Addresses()
            for base, left_out in public_blocks(facts):
                blocks = blocks | (Addresses.of([base]) - Addresses.of(left_out))
            found.egress.append(ToAddresses(app.key, blocks, ports_of(internet), "internet"))
        if app.vpn is not None:
            found.resolvers[app.key] = needs_dns(topology, facts, app)
            _gateway(found, topology, facts, world, app)
        else:
            found.resolvers[app.key] = "client"
    return found


def _edges(
    topology: Topology, facts: Facts, live: Live, app: App
) -> tuple[tuple[Edge, ...], tuple[Edge, ...], tuple[DeclaredPort, ...] | None]:
    if app.vpn is not None:
        edges = edges_of(topology, facts, live, app)
        return edges.egress, edges.ingress, None
    builder = _Segment(topology, facts, live, app)
    found: AppEdges = builder.collect()
    if builder.faults:
        raise FaultsError(builder.faults)
    return found.egress, found.ingress, found.internet


def _edge(found: Declared, world: World, app: App, edge: Edge, *, outgoing: bool) -> None:
    ports = ports_of(edge.ports)
    if isinstance(edge.peer, Blocks):
        target = found.egress if outgoing else found.ingress
        target.append(ToAddresses(app.key, Addresses.of(edge.peer.networks), ports, edge.why))
        return
    own = world.by_app.get(app.key, 0)
    others = world.select(edge.peer.namespace, edge.peer.selector)
    if not others:
        found.missing.append((app.key, edge.why))
    for mine in bits(own):
        for other in bits(others):
            pair = (mine, other) if outgoing else (other, mine)
            found.pairs[pair] = found.pairs.get(pair, Ports()) | ports
            found.reasons.setdefault(pair, edge.why)


def _gateway(found: Declared, topology: Topology, facts: Facts, world: World, app: App) -> None:
    """The overlay: two UDP flows, one in each direction. The image's own scripts ping first."""
    assert app.vpn is not None
    gateway = topology.gateway(app.vpn.gateway)
    overlay = Ports.one("UDP", names.overlay_port(gateway, facts))
    for mine in bits(world.by_app.get(app.key, 0)):
        for other in bits(world.by_gateway.get(gateway.name, 0)):
            out = overlay | Ports.whole("ICMP") if gateway.overlay.scripts == "image" else overlay
            found.overlays.add((mine, other))
            for pair, ports in (((mine, other), out), ((other, mine), overlay)):
                found.pairs[pair] = found.pairs.get(pair, Ports()) | ports
                found.reasons[pair] = f"the overlay of gateway {gateway.name}"
