# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every declared edge works, and nothing else does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from .._manifests.waypoints import OWN as WAYPOINT
from .._topology.model import App
from . import check_outside
from .declared import Declared
from .engine import EGRESS, HBONE, INGRESS, Engine, Side
from .findings import ERROR, INFO, WARNING, Finding, flow
from .sets import NOWHERE, Addresses, Ports
from .world import bits


def blocked(engine: Engine, known: Declared) -> Iterator[Finding]:
    """Declared edges that a policy cuts, with the side that cuts them."""
    world = engine.world
    for (source, destination), wanted in known.pairs.items():
        one, other = world.endpoints[source], world.endpoints[destination]
        if one.host_network and other.host_network:
            continue
        needed = wanted
        if one.mesh and other.mesh and wanted.has("TCP", HBONE):
            # between enrolled pods the plain port is never on the wire
            needed = Ports.one("TCP", HBONE) | Ports({name: part for name, part in wanted.by_protocol.items() if name != "TCP"})
        elif not (one.mesh and other.mesh):
            needed = wanted - Ports.one("TCP", HBONE)  # offered for the day when both are enrolled
        found = engine.pair(source, destination)
        lacking = needed - found.possible
        if one.host_network and world.many_nodes:
            # its own node always comes in, the others do not
            lacking = needed - engine.side(destination, INGRESS).possible.everywhere(world.node_addresses)
        why = known.reasons[source, destination]
        if lacking:
            side = engine.side(source, EGRESS)
            cut = EGRESS if not _covers(engine, side, destination, lacking) else INGRESS
            subject = one if cut == EGRESS else other
            policies = check_outside.isolating(engine, source if cut == EGRESS else destination, cut)
            dropped = [number for number in engine.profile.dropped_udp if lacking.has("UDP", number)]
            overlay = why.startswith("the overlay")
            if dropped:
                yield Finding(
                    "vxlan-port-dropped",
                    ERROR,
                    one.app or one.name,
                    f"{engine.profile.name} drops UDP {dropped[0]} from pods, whatever policies say",
                    "set overlay.port of the gateway to another port, or leave it out",
                    witness=flow(one.name, other.name, f"{dropped[0]}/udp"),
                )
                continue
            code = "gateway-unreachable" if overlay else "declared-blocked"
            if overlay and not (lacking - Ports.whole("ICMP")):
                code = "gateway-icmp-dead"
            yield Finding(
                code,
                ERROR,
                one.app or one.name,
                f"declared ({why}) and cut on {lacking.words()}: the {cut} of {subject.name} does not allow it",
                f"allow it in a policy that selects {subject.name}, or run the module that writes the declared edges",
                policy=policies,
                witness=flow(one.name, other.name, lacking.words()),
            )
        elif needed - found.sure:
            left = (needed - found.sure).words()
            # towards the nodes' network: which node it is nobody says, so it matters whether some of them are cut
            some_cut = other.host_network and not _covers(engine, engine.side(source, EGRESS), destination, needed)
            yield Finding(
                "declared-undecided",
                INFO if (one.host_network or other.host_network) and not some_cut else WARNING,
                one.app or one.name,
                f"declared ({why}) and left to the implementation on {left}",
                "",
                witness=flow(one.name, other.name, left),
            )
    for app, why in known.missing:
        if why == WAYPOINT:
            message = "its waypoint has no pods: what should pass through it goes past it, and its rules hold nothing"
            yield Finding("waypoint-missing", WARNING, app, message, "create the waypoint, or remove istio.io/use-waypoint")
            continue
        yield Finding("declared-missing", INFO, app, f"declared ({why}), and no pod is there for the other side")
    for app, why in known.unknown.items():
        yield Finding("edges-unknown", WARNING, app, f"what it declares cannot be told: {why}")


def _covers(engine: Engine, side: Side, peer: int, ports: Ports) -> bool:
    if engine.world.endpoints[peer].host_network:
        return ports.issubset(side.possible.everywhere(engine.world.node_addresses))
    return ports.issubset(side.possible.pod(peer))


def resolvers(engine: Engine, known: Declared) -> Iterator[Finding]:
    """Whoever is isolated and needs names must reach the cluster's DNS."""
    world = engine.world
    servers = dns_endpoints(engine)
    wanted = dns_ports(engine)
    if not servers:
        return
    for app, who in known.resolvers.items():
        for index in bits(world.by_app.get(app, 0)):
            side = engine.side(index, EGRESS)
            if who == "none" or not side.isolated:
                continue
            local = world.facts.dns.node_local_ip
            cut = [server for server in bits(servers) if not wanted.issubset(engine.pair(index, server).possible)]
            if cut and not (local and _local(side, local)):
                yield Finding(
                    "dns-dead",
                    ERROR,
                    app,
                    f"{world.endpoints[index].name} is isolated and does not reach the cluster's DNS",
                    "allow UDP and TCP 53 to the pods of the DNS, by selector",
                    policy=check_outside.isolating(engine, index, EGRESS),
                    witness=flow(world.endpoints[index].name, world.endpoints[cut[0]].name, wanted.words()),
                )


def _local(side: Side, address: str) -> bool:
    import ipaddress

    return side.possible.address(ipaddress.ip_address(address)).has("UDP", 53)


def dns_endpoints(engine: Engine) -> int:
    """Pods of the cluster's DNS."""
    dns = engine.world.facts.dns
    if not dns.namespace or not dns.pod_labels:
        return 0
    return engine.world.namespace(dns.namespace) & engine.world.labelled({"matchLabels": dict(dns.pod_labels)})


def dns_ports(engine: Engine) -> Ports:
    found = Ports()
    for number in engine.world.facts.dns.ports_udp:
        found = found | Ports.one("UDP", number)
    for number in engine.world.facts.dns.ports_tcp:
        found = found | Ports.one("TCP", number)
    return found


def undeclared(engine: Engine, known: Declared, apps: Iterable[App]) -> Iterator[Finding]:
    """What is open between pods and nobody declared, grouped by source and by what opens it.

    Where neither side is isolated there is nothing to compare: that is said once per app.
    """
    world = engine.world
    wanted = {app.key: app for app in apps}
    mine = 0
    for key in wanted:
        mine |= world.by_app.get(key, 0)
    segmented = check_outside.segmented(engine)
    for index in bits(mine):
        one = world.endpoints[index]
        open_sides = [name for name in (EGRESS, INGRESS) if not engine.side(index, name).isolated]
        if open_sides and not one.host_network:
            severity = WARNING if one.namespace in segmented else INFO
            mend = "segmentation_policy writes a default deny and what the app declared"
            yield Finding("not-isolated", severity, one.app, f"no policy isolates its {' and '.join(open_sides)}", mend)
    reach = engine.reaching()
    resolvers_mask, resolver_ports = dns_endpoints(engine), dns_ports(engine)
    for source, targets in enumerate(reach):
        if not (mine >> source) & 1:
            targets &= mine
        # pods on the nodes' network are addresses to a policy, and are looked at as such
        targets &= world.pods & ~(1 << source) if (world.pods >> source) & 1 else 0
        groups: dict[str, list[tuple[int, Ports]]] = defaultdict(list)
        egress_isolated = engine.side(source, EGRESS).isolated
        for destination in bits(targets):
            if (source, destination) in known.overlays:
                continue  # the client's side names no ports on purpose; the gateway's own policy does
            if not egress_isolated and not engine.side(destination, INGRESS).isolated:
                continue
            allowed = known.pairs.get((source, destination), Ports())
            if allowed.has("TCP", HBONE):
                allowed = allowed | Ports.whole("TCP")
            if (resolvers_mask >> destination) & 1:
                allowed = allowed | resolver_ports
            left = engine.pair(source, destination).possible - allowed
            if not left or not (left - Ports.whole("ICMP")):
                continue
            groups[left.words()].append((destination, left))
        yield from _undeclared(engine, source, groups, wanted, segmented)


def _undeclared(
    engine: Engine, source: int, groups: dict[str, list[tuple[int, Ports]]], apps: dict[str, App], segmented: set[str]
) -> Iterator[Finding]:
    world = engine.world
    one = world.endpoints[source]
    client = one.app in apps and apps[one.app].vpn is not None
    for words, targets in groups.items():
        first = world.endpoints[targets[0][0]]
        mask = sum(1 << destination for destination, _ports in targets)
        closed = {one.namespace, *(world.endpoints[destination].namespace for destination, _ports in targets)} & segmented
        severity = ERROR if client else WARNING if closed else INFO
        policy, rule = opener(engine, source, targets[0][0], targets[0][1])
        yield Finding(
            "undeclared-open",
            severity,
            one.app or one.name,
            f"reaches {world.names(mask)} on {words}, which nobody declared",
            "declare it (uses, exposed, metrics, peers), or narrow the rule that opens it",
            policy=policy,
            rule=rule,
            witness=flow(one.name, first.name, words),
        )


def opener(engine: Engine, source: int, destination: int, ports: Ports) -> tuple[str, str]:
    """The policy and rule that open a pair: of the source's egress, else of the destination's ingress."""
    for subject, peer, direction in ((source, destination, EGRESS), (destination, source, INGRESS)):
        for policy in engine.selecting(subject):
            for rule in policy.rules(direction) or ():
                if rule.action == "allow" and (rule.peers.pods_maybe >> peer) & 1 and (rule.named or rule.ports & ports):
                    return str(policy.ref), rule.path
    return "", ""


def opener_of(engine: Engine, index: int, addresses: Addresses, direction: str = EGRESS) -> tuple[str, str, Addresses]:
    """The policy and rule that let an endpoint out to some of these addresses, and which of them."""
    for policy in engine.selecting(index):
        for rule in policy.rules(direction) or ():
            found = rule.peers.addresses_maybe & addresses
            if rule.action == "allow" and found and rule.ports - Ports.whole("ICMP"):
                return str(policy.ref), rule.path, found
    return "", "", NOWHERE
