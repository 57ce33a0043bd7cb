# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Declared edges towards and from addresses: each works, and no other address is reached or let in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from .._manifests import names
from .._manifests.model import LABEL_PART
from .._topology.model import App
from .declared import Declared, ToAddresses
from .engine import EGRESS, INGRESS, Engine, Side
from .findings import ERROR, INFO, WARNING, Finding, flow
from .region import AddressPart, Region
from .sets import NOWHERE, Addresses, Ports
from .world import World, bits

PING = Ports.whole("ICMP")
#: How many networks a message lists.
MOST = 3


def blocked(engine: Engine, known: Declared) -> Iterator[Finding]:
    for direction, edges in ((EGRESS, known.egress), (INGRESS, known.ingress)):
        for edge in edges:
            yield from _blocked(engine, edge, direction)


def _blocked(engine: Engine, edge: ToAddresses, direction: str) -> Iterator[Finding]:
    world, profile = engine.world, engine.profile
    wanted = edge.addresses
    if direction == INGRESS and profile.ipblock_nodes is not True:
        # the node that runs a pod always reaches it; of the others such a CNI knows them by identity, not by address
        wanted = wanted - world.node_addresses - world.pod_range
    if not wanted:
        return
    for index in bits(world.by_app.get(edge.app, 0)):
        side = engine.side(index, direction)
        open_ports, maybe = side.sure.everywhere(wanted), side.possible.everywhere(wanted)
        lacking = edge.ports - maybe
        one = world.endpoints[index].name
        target = _words(wanted)
        pair = (one, target) if direction == EGRESS else (target, one)
        if lacking:
            yield Finding(
                "declared-blocked",
                ERROR,
                edge.app,
                f"declared ({edge.why}) and cut on {lacking.words()}: the {direction} of {one} does not allow {target}",
                f"allow it in a policy that selects {one}, or run the module that writes the declared edges",
                policy=isolating(engine, index, direction),
                witness=flow(*pair, lacking.words()),
            )
        elif edge.ports - open_ports:
            yield Finding(
                "declared-undecided",
                INFO,
                edge.app,
                f"declared ({edge.why}) and left to the implementation: {target}",
                witness=flow(*pair, (edge.ports - open_ports).words()),
            )


def isolating(engine: Engine, index: int, direction: str) -> str:
    """The policies that isolate one side, for a message."""
    found = [str(policy.ref) for policy in engine.selecting(index) if direction in policy.isolates]
    return ", ".join(found[:4])


def segmented(engine: Engine) -> set[str]:
    """Namespaces that segmentation holds: they have a policy of its part."""
    found = set()
    for item in engine.world.live.all("NetworkPolicy"):
        if (item["metadata"].get("labels") or {}).get(LABEL_PART) == "segments":
            found.add(item["metadata"].get("namespace") or "")
    return found


def undeclared(engine: Engine, known: Declared, apps: Iterable[App]) -> Iterator[Finding]:
    """Addresses that an isolated app reaches, or that reach it, and that it did not declare.

    Where a client gets out is looked at as a leak, and pods by their addresses as pods.
    """
    world, widened = engine.world, _widened(engine)
    closed = segmented(engine)
    declared = {EGRESS: _by_app(known.egress, widened), INGRESS: _by_app(known.ingress, widened)}
    nodes = _towards_nodes(world, known, world.node_addresses | widened)
    for app in apps:
        if app.key in known.unknown:
            continue
        for index in bits(world.by_app.get(app.key, 0) & world.pods):
            for direction in (EGRESS, INGRESS):
                side = engine.side(index, direction)
                if not side.isolated or (app.vpn is not None and direction == EGRESS):
                    continue
                own = declared[direction].get(app.key, [])
                always = _always(world, known, app, direction, widened)
                left = _left(world, side, [*own, *nodes.get((index, direction), ()), *always])
                if left:
                    joined = known.shared.get(app.namespace, {}).get(direction, []) if _joined(engine, index) else []
                    shared = _parts(joined, widened)
                    yield from _undeclared(engine, app, index, direction, left, shared, app.namespace in closed)


def _undeclared(
    engine: Engine, app: App, index: int, direction: str, left: Region, shared: list[AddressPart], closed: bool
) -> Iterator[Finding]:
    name = engine.world.endpoints[index].name
    beyond = left - Region((), tuple(shared))
    for region, own in ((left - beyond if shared else Region(), True), (beyond, False)):
        for ports, addresses in _grouped(engine, region).items():
            policy, rule = _opener(engine, index, direction, addresses, ports)
            target = _words(addresses)
            says = f"reaches {target}" if direction == EGRESS else f"lets in {target}"
            pair = (name, addresses.witness()) if direction == EGRESS else (addresses.witness(), name)
            if own:
                yield Finding(
                    "layout-shares",
                    INFO,
                    app.key,
                    f"{says} on {ports.words()}, which other apps of its namespace declared: they share one policy",
                    "set the namespace's layout to app",
                    policy=policy,
                    rule=rule,
                    witness=flow(*pair, ports.words()),
                )
                continue
            severity = WARNING if (closed or app.vpn is not None) and ports - PING else INFO
            yield Finding(
                "undeclared-open",
                severity,
                app.key,
                f"{says} on {ports.words()}, which it did not declare",
                "declare it (internet, external, lan, webhook, icmp), or narrow the rule that opens it",
                policy=policy,
                rule=rule,
                witness=flow(*pair, ports.words()),
            )


def _grouped(engine: Engine, region: Region) -> dict[Ports, Addresses]:
    """Addresses by the ports that are open to them. A ping that no policy can close is nobody's fault."""
    found: dict[Ports, Addresses] = defaultdict(Addresses)
    for addresses, ports in region.outside:
        said = ports if engine.profile.icmp_always is False else ports - PING
        if said:
            found[said] = found[said] | addresses
    return found


def _left(world: World, side: Side, allowed: Iterable[AddressPart]) -> Region:
    own = world.pod_range | world.service_range
    declared = Region((), (*([(own, Ports.whole())] if own else []), *allowed))
    return Region((), side.possible.outside) - declared


def _widened(engine: Engine) -> Addresses:
    """Where nodes are known by what they are and not by address, what is declared towards one is open towards each."""
    world = engine.world
    if engine.profile.ipblock_nodes is True:
        return NOWHERE
    return world.node_addresses | world.api_addresses | world.local_resolver


def _by_app(edges: Iterable[ToAddresses], widened: Addresses) -> dict[str, list[AddressPart]]:
    found: dict[str, list[ToAddresses]] = defaultdict(list)
    for edge in edges:
        found[edge.app].append(edge)
    return {app: _parts(listed, widened) for app, listed in found.items()}


def _parts(edges: Iterable[ToAddresses], widened: Addresses) -> list[AddressPart]:
    """No ports declared are every port; a rule without ports opens pings as well."""
    every = Ports.whole() - PING
    found = []
    for edge in edges:
        addresses = edge.addresses | widened if edge.addresses & widened else edge.addresses
        found.append((addresses, Ports.whole() if edge.ports == every else edge.ports))
    return found


def _towards_nodes(world: World, known: Declared, nodes: Addresses) -> Mapping[tuple[int, str], list[AddressPart]]:
    """Edges with pods on the nodes' network, as the addresses that policies see of them."""
    found: dict[tuple[int, str], list[AddressPart]] = defaultdict(list)
    if not world.host:
        return found
    for (source, destination), ports in known.pairs.items():
        if (world.host >> destination) & 1:
            found[source, EGRESS].append((nodes, ports))
        if (world.host >> source) & 1:
            found[destination, INGRESS].append((nodes, ports))
    return found


def _always(world: World, known: Declared, app: App, direction: str, widened: Addresses) -> Iterator[AddressPart]:
    """What nobody declares and everybody needs: the node-local resolver, and probes through the mesh."""
    if direction == INGRESS:
        yield Addresses.of(world.facts.mesh_probe_sources) | world.local_resolver, Ports.whole()
        return
    if world.local_resolver and known.resolvers.get(app.key) != "none":
        # where no address stands for a node, the resolver on it is "the node" to a policy
        yield world.local_resolver | widened, Ports.one("UDP", 53) | Ports.one("TCP", 53)


def _joined(engine: Engine, index: int) -> bool:
    """Whether the one policy of its namespace selects it."""
    return any(policy.ref.name == names.NAMESPACE_SEGMENT and LABEL_PART in policy.labels for policy in engine.selecting(index))


def _opener(engine: Engine, index: int, direction: str, addresses: Addresses, ports: Ports) -> tuple[str, str]:
    for policy in engine.selecting(index):
        for rule in policy.rules(direction) or ():
            if rule.action == "allow" and rule.peers.addresses_maybe & addresses and (rule.named or rule.ports & ports):
                return str(policy.ref), rule.path
    return "", ""


def _words(addresses: Addresses) -> str:
    listed = list(addresses.networks())
    more = f" and {len(listed) - MOST} more" if len(listed) > MOST else ""
    return ", ".join(str(item) for item in listed[:MOST]) + more
