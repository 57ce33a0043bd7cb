# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which namespaces can have one policy for all their pods without opening anything between pods that nobody declared.

One policy gives every pod of its namespace what any of them needs. As long as the other side names single pods and ports
this is mostly harmless; where both sides meet on a port that they share, and above all on the mesh's 15008, it opens what
no app declared. Such a namespace gets a policy per app instead.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .._errors import FaultsError
from .._facts.model import Facts
from .._topology.model import App, Port, Topology
from . import workloads
from .client_edges import HBONE, Blocks, Edge, Pods, edges_of
from .model import Live
from .segments_edges import AppEdges

Span = tuple[str, int, int]  # protocol, first and last port
EVERY: tuple[Span, ...] = (("TCP", 0, 65535), ("UDP", 0, 65535), ("SCTP", 0, 65535))


@dataclass(frozen=True)
class Layout:
    """`joined`: namespaces with one policy; `notes`: why another one has none, and what the one policy means."""

    joined: frozenset[str]
    notes: tuple[str, ...]


def choose(topology: Topology, facts: Facts, live: Live, apps: Iterable[AppEdges], wanted: Iterable[str]) -> Layout:
    """Splits the namespace that opens the most until the others open nothing."""
    joined = set(wanted)
    if not joined:
        return Layout(frozenset(), ())
    view = _View(topology, facts, live, list(apps))
    notes: list[str] = []
    while opened := {name: found for name in sorted(joined) if (found := view.opened(name, joined))}:
        name = max(opened, key=lambda item: len(opened[item]))
        first, more = opened[name][0], len(opened[name]) - 1
        further = f" (and {more} more)" if more else ""
        notes.append(
            f"{name}: one policy for the whole namespace would open {first}{further}, which nobody declared,"
            " so it has one per app (layout: app)"
        )
        joined.discard(name)
    notes += [note for name in sorted(joined) for note in view.shared(name)]
    return Layout(frozenset(joined), tuple(notes))


class _View:
    """The edges of every app, and who is meant by them."""

    def __init__(self, topology: Topology, facts: Facts, live: Live, apps: Sequence[AppEdges]) -> None:
        self.groups: dict[str, list[AppEdges]] = defaultdict(list)
        self.egress: dict[str, Sequence[Edge]] = {}
        self.ingress: dict[str, Sequence[Edge]] = {}
        self.labels: dict[str, Mapping[str, str]] = {}
        self.places: dict[str, list[str]] = defaultdict(list)
        for edges in apps:
            self.groups[edges.app.namespace].append(edges)
            self._add(edges.app, edges.egress, edges.ingress, live)
        for app in topology.clients:
            try:
                held = edges_of(topology, facts, live, app)
            except FaultsError:
                continue  # told where its kill switch is built
            self._add(app, held.egress, held.ingress, live)

    def _add(self, app: App, egress: Sequence[Edge], ingress: Sequence[Edge], live: Live) -> None:
        template = workloads.template(app, live)
        self.labels[app.key] = workloads.labels_of(template) if template is not None else dict(app.pods or {})
        self.egress[app.key], self.ingress[app.key] = egress, ingress
        self.places[app.namespace].append(app.key)

    def opened(self, name: str, joined: Iterable[str]) -> list[str]:
        """Flows from or to the pods of a namespace that its one policy opens beside the declared ones, in words."""
        found: dict[str, None] = {}
        members = [edges.app.key for edges in self.groups[name]]
        for other in self._peers(name, "egress"):
            for member in members:
                if member != other:
                    self._compare(found, member, other, joined)
        for other in self._peers(name, "ingress"):
            for member in members:
                if member != other:
                    self._compare(found, other, member, joined)
        for edges in self.groups[name]:
            for edge in edges.ingress:
                if isinstance(edge.peer, Pods) and not edge.peer.host and not self._named(edge.peer):
                    self._strangers(found, edge, edge.peer, members)
        return list(found)

    def _named(self, peer: Pods) -> list[str]:
        """The apps that a peer takes."""
        return [key for key in self.places.get(peer.namespace, ()) if peer.selector.matches(dict(self.labels[key]))]

    def _peers(self, name: str, direction: str) -> list[str]:
        edges = [edge for one in self.groups[name] for edge in getattr(one, direction)]
        peers = [edge.peer for edge in edges if isinstance(edge.peer, Pods) and not edge.peer.host]
        return list(dict.fromkeys(key for peer in peers for key in self._named(peer)))

    def _compare(self, found: dict[str, None], source: str, destination: str, joined: Iterable[str]) -> None:
        own = _overlaps(self._spans(self.egress[source], destination), self._spans(self.ingress[destination], source))
        if ("TCP", HBONE.number, HBONE.number) in own:
            own = [*own, EVERY[0]]  # the tunnel carries every port already
        granted = _overlaps(
            self._spans(self._granted(source, "egress", joined), destination),
            self._spans(self._granted(destination, "ingress", joined), source),
        )
        for span in granted:
            if not any(_inside(span, known) for known in own):
                found[f"{source} to {destination} on {_words(span)}"] = None

    def _strangers(self, found: dict[str, None], edge: Edge, peer: Pods, members: Iterable[str]) -> None:
        """From pods that are no app of the list, such as Prometheus: nothing on their own side limits them."""
        for member in members:
            own = [span for one in self.ingress[member] if one.peer == peer for span in spans(one.ports)]
            for span in spans(edge.ports):
                if not any(_inside(span, known) for known in own):
                    found[f"{peer.namespace} ({edge.why}) to {member} on {_words(span)}"] = None

    def _granted(self, key: str, direction: str, joined: Iterable[str]) -> Sequence[Edge]:
        namespace = key.partition("/")[0]
        group = self.groups.get(namespace, ())
        if namespace in joined and any(edges.app.key == key for edges in group):
            return [edge for edges in group for edge in getattr(edges, direction)]
        return (self.egress if direction == "egress" else self.ingress)[key]

    def _spans(self, edges: Iterable[Edge], other: str) -> list[Span]:
        namespace = other.partition("/")[0]
        return [
            span
            for edge in edges
            if isinstance(edge.peer, Pods)
            and edge.peer.namespace == namespace
            and edge.peer.selector.matches(dict(self.labels[other]))
            for span in spans(edge.ports)
        ]

    def shared(self, name: str) -> Iterable[str]:
        """What single apps declared towards or from addresses and the one policy gives to every pod."""
        group = self.groups[name]
        said: dict[str, list[str]] = defaultdict(list)
        for edges in group:
            if edges.internet is not None:
                said["internet"].append(edges.app.name)
            for why in dict.fromkeys(edge.why for edge in (*edges.egress, *edges.ingress) if isinstance(edge.peer, Blocks)):
                if not why.startswith("probes"):
                    said[why].append(edges.app.name)
        alone = [f"{why} ({', '.join(apps)})" for why, apps in said.items() if len(apps) < len(group)]
        if alone:
            yield f"{name}: its one policy gives every pod there what single apps declared: {'; '.join(alone)}"


def spans(ports: Iterable[Port]) -> tuple[Span, ...]:
    """Declared ports as intervals; none are every port."""
    return tuple((port.protocol, port.number, port.end or port.number) for port in ports) or EVERY


def _overlaps(one: Iterable[Span], other: Sequence[Span]) -> list[Span]:
    return [
        (protocol, max(first, begin), min(last, end))
        for protocol, first, last in one
        for known, begin, end in other
        if protocol == known and max(first, begin) <= min(last, end)
    ]


def _inside(span: Span, known: Span) -> bool:
    return span[0] == known[0] and known[1] <= span[1] and span[2] <= known[2]


def _words(span: Span) -> str:
    protocol, first, last = span
    return f"{first}/{protocol.lower()}" if first == last else f"{first}-{last}/{protocol.lower()}"
