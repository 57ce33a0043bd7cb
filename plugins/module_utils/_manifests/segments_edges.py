# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every edge that segmentation owes an app: what it declared, what others declared towards it, and what nobody declares.

The declared edges of an app are those of `client_edges`; here come the public internet, the platform's own side of
`exposed` and `metrics`, what operators need between the pods that they manage, and the sources that address
translation makes of nodes.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field

from .._errors import Fault
from .._facts.model import Facts
from .._topology.model import App, Network, Port, Selector, Topology
from . import waypoints, workloads
from .client_edges import HBONE, Blocks, Edge, EdgeBuilder, Pods, in_mesh
from .model import Live
from .workloads import PodSelector

EGRESS, INGRESS = "egress", "ingress"

#: Where CNIs write the addresses of their tunnel devices: traffic of a node to pods elsewhere comes from them.
TUNNEL_ANNOTATIONS = (
    "projectcalico.org/IPv4VXLANTunnelAddr",
    "projectcalico.org/IPv6VXLANTunnelAddr",
    "projectcalico.org/IPv4IPIPTunnelAddr",
    "projectcalico.org/IPv4WireguardInterfaceAddr",
    "projectcalico.org/IPv6WireguardInterfaceAddr",
)


@dataclass(frozen=True)
class AppEdges:
    """All edges of one app. `internet`: ports of the public internet, None: not allowed, (): every port."""

    app: App
    selector: PodSelector
    egress: tuple[Edge, ...]
    ingress: tuple[Edge, ...]
    internet: tuple[Port, ...] | None
    icmp: tuple[Network, ...]
    mesh: bool
    host_network: bool


@dataclass
class Collected:
    """The edges of every app that segmentation covers, and the faults on the way."""

    apps: list[AppEdges] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def tunnel_addresses(live: Live) -> tuple[Network, ...]:
    """Addresses of the nodes inside the pod ranges: what the CNI wrote on a node; where it wrote nothing, the first two of the
    node's slice (flannel's device, the bridge). A CNI with address management of its own gives those to pods."""
    found: dict[Network, None] = {}
    for node in live.all("Node"):
        annotations = node["metadata"].get("annotations") or {}
        written = [one for key in TUNNEL_ANNOTATIONS if (one := _network(annotations.get(key))) is not None]
        found.update(dict.fromkeys(written))
        spec = node.get("spec") or {}
        for text in [] if written else spec.get("podCIDRs") or [spec.get("podCIDR")]:
            piece = _network(text)
            if piece is not None:
                base = piece.network_address
                found.update(dict.fromkeys(ipaddress.ip_network(base + offset) for offset in (0, 1)))
    return tuple(found)


def _network(text: object) -> Network | None:
    """None for what is no address: a file may hold anything."""
    try:
        return ipaddress.ip_network(text, strict=False) if isinstance(text, str) else None
    except ValueError:
        return None


def collect(topology: Topology, facts: Facts, live: Live) -> Collected:
    """Edges of every app that is no VPN client: those are held by their kill switch, which has the same edges."""
    result = Collected()
    for app in topology.apps:
        if app.vpn is None:
            builder = SegmentBuilder(topology, facts, live, app)
            result.apps.append(builder.collect())
            result.faults += builder.faults
    result.faults = list(dict.fromkeys(result.faults))
    return result


class SegmentBuilder(EdgeBuilder):
    """The edges of an app that is no client."""

    def collect(self) -> AppEdges:
        app = self.app
        selector = self.selector(app)
        template = workloads.template(app, self.live)
        host = bool(template and (template.get("spec") or {}).get("hostNetwork"))
        if app.internet_all:
            internet: tuple[Port, ...] | None = ()
        else:
            internet = app.internet or None
        return AppEdges(
            app=app,
            selector=selector,
            egress=(*self.egress(selector), *self._platform_egress(), *self._to_waypoints(), *self._as_waypoint(EGRESS)),
            ingress=(*self._ingress(selector), *self._from_waypoints(), *self._as_waypoint(INGRESS)),
            internet=internet,
            icmp=app.icmp,
            mesh=self.mesh,
            host_network=host,
        )

    def _to_waypoints(self) -> Iterable[Edge]:
        """What is bound to a waypoint is spoken to by way of that waypoint's pods."""
        for key in dict.fromkeys(use.app for use in self.app.uses):
            target = self.topology.app(key)
            if self.mesh and in_mesh(self.topology, target.namespace):
                for waypoint in waypoints.bound(target, self.live):
                    yield Edge(Pods(waypoint.namespace, waypoint.selector), (HBONE,), f"waypoint of {key}")

    def _from_waypoints(self) -> Iterable[Edge]:
        if self.mesh and self.topology.users(self.app):
            for waypoint in waypoints.bound(self.app, self.live):
                yield Edge(Pods(waypoint.namespace, waypoint.selector), (HBONE,), waypoints.OWN)

    def _as_waypoint(self, direction: str) -> Iterable[Edge]:
        """The other ends of these edges, where this app is the waypoint."""
        for other in waypoints.served(self.app, self.topology.apps, self.live):
            users = [user for user in self.topology.users(other) if user.vpn is None and in_mesh(self.topology, user.namespace)]
            if not in_mesh(self.topology, other.namespace) or other.vpn is not None or not users:
                continue
            for peer in [other] if direction == EGRESS else users:
                yield Edge(self.pods(peer), (HBONE,), f"waypoint of {other.key}")

    def _is(self, role: Selector | None) -> bool:
        """Whether this app's pods are those of a part of the platform."""
        if role is None or role.namespace != self.app.namespace:
            return False
        template = workloads.template(self.app, self.live)
        labels = workloads.labels_of(template) if template is not None else dict(self.app.pods or {})
        return PodSelector(dict(role.labels)).matches(labels)

    def _platform_egress(self) -> Iterable[Edge]:
        """The ingress controller reaches what is exposed, Prometheus what has metrics: both declared by the other side."""
        platform = self.topology.platform
        for role, why in ((platform.ingress, "exposed"), (platform.prometheus, "metrics")):
            if not self._is(role):
                continue
            for other in self.topology.apps:
                names = [entry.port for entry in other.exposed] if why == "exposed" else list(other.metrics)
                if names and other.key != self.app.key:
                    peer = self.pods(other)
                    ports = self.ports(other, names, f"apps[{self.topology.apps.index(other)}].{why}")
                    if ports:
                        both = self.mesh and in_mesh(self.topology, other.namespace)
                        yield Edge(peer, self.meshed(ports, peer, always=both), f"{why} by {other.key}")

    def _ingress(self, selector: PodSelector) -> Iterable[Edge]:
        for edge in self.ingress(selector):
            if edge.why == "lan":
                yield self._lan(edge)
            elif edge.why.startswith("webhook"):
                yield Edge(Blocks((*self.facts.nodes, *tunnel_addresses(self.live))), edge.ports, edge.why)
            else:
                yield edge
        if self.mesh and self.facts.mesh_probe_sources:
            yield Edge(Blocks(self.facts.mesh_probe_sources), (), "probes through the mesh")

    def _lan(self, edge: Edge) -> Edge:
        """Behind a NodePort or LoadBalancer with externalTrafficPolicy Cluster a LAN client arrives as a node."""
        template = workloads.template(self.app, self.live)
        labels = workloads.labels_of(template) if template is not None else dict(self.app.pods or {})
        translated = any(
            item["spec"].get("type") in ("NodePort", "LoadBalancer")
            and item["spec"].get("externalTrafficPolicy", "Cluster") == "Cluster"
            for item in workloads.services_for(self.app.namespace, labels, self.live)
        )
        if not translated or not isinstance(edge.peer, Blocks):
            return edge
        sources = (*edge.peer.networks, *self.facts.nodes, *tunnel_addresses(self.live))
        return Edge(Blocks(tuple(dict.fromkeys(sources))), edge.ports, "lan, and nodes for what they translate")
