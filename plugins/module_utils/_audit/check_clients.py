# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kill switch: no client reaches the public internet, by any policy, any address family, any detour, and its tunnel works."""

from __future__ import annotations

from collections.abc import Iterator

from .._errors import required
from .._manifests import names
from .._manifests.addresses import PUBLIC_V6, SPECIAL_V4, SPECIAL_V6
from .._topology.model import App
from .check_edges import dns_endpoints, dns_ports, opener_of
from .declared import Declared
from .engine import EGRESS, Engine
from .findings import ERROR, INFO, WARNING, Finding, flow
from .policy import Policy
from .sets import EVERYWHERE, Addresses, Ports
from .world import World, bits

PING = Ports.whole("ICMP")


def public(world: World) -> Addresses:
    """Addresses of public hosts that are not the home's own."""
    everything = Addresses(EVERYWHERE.v4) | Addresses.of([PUBLIC_V6])
    return (everything - Addresses.of((*SPECIAL_V4, *SPECIAL_V6))) & world.world - Addresses.of(world.facts.lan)


def check(engine: Engine, known: Declared, app: App) -> Iterator[Finding]:
    world = engine.world
    mask = world.by_app.get(app.key, 0)
    if not mask:
        yield Finding("client-waiting", INFO, app.key, "its workload does not exist yet, and it names no labels to close it by")
        return
    own = _killswitch(engine, app)
    absent = "Namespace" not in world.live.unreadable and world.live.all("Namespace") and not _namespace(world, app)
    if absent:
        yield Finding("client-waiting", INFO, app.key, f"its namespace {app.namespace} does not exist yet")
        return
    for index in bits(mask):
        one = world.endpoints[index]
        if one.host_network:
            mend = "remove hostNetwork from it, or vpn from the app"
            yield Finding("host-network", ERROR, app.key, f"{one.name} runs on the node's network: no policy holds it", mend)
            continue
        side = engine.side(index, EGRESS)
        if own is None:
            mend = "run killswitch_policy (role killswitch)"
            yield Finding("killswitch-missing", ERROR, app.key, f"there is no NetworkPolicy {names.killswitch(app)}", mend)
        elif not (own.subjects >> index) & 1:
            yield Finding(
                "killswitch-mismatch",
                ERROR,
                app.key,
                f"its kill switch does not select {one.name}: the labels of the pod template are others",
                "run killswitch_policy again, or correct `pods` of the app",
                policy=str(own.ref),
            )
        if not side.isolated and engine.profile.enforces:
            mend = "run killswitch_policy"
            yield Finding(
                "leak",
                ERROR,
                app.key,
                f"no policy isolates the egress of {one.name}",
                mend,
                witness=flow(one.name, "1.1.1.1", "443/tcp"),
            )
            continue
        yield from _leaks(engine, known, app, index)
        yield from _relays(engine, app, index)
        yield from _dns(engine, known, app, index)
    for index, one in enumerate(world.endpoints):
        if one.drifted and one.namespace == app.namespace and own is not None and not (own.subjects >> index) & 1:
            yield from _drifted(world, app, index)


def _namespace(world: World, app: App) -> bool:
    return world.live.get("Namespace", "", app.namespace) is not None


def _drifted(world: World, app: App, index: int) -> Iterator[Finding]:
    """A running pod of the client's workload whose labels the kill switch does not take."""
    one = world.endpoints[index]
    pod = world.live.get("Pod", one.namespace, one.name.rpartition("/")[2]) or {"metadata": {}}
    owners = [owner.get("name", "") for owner in pod["metadata"].get("ownerReferences") or []]
    workload = app.workload or app.name
    if any(name == workload or name.rpartition("-")[0] == workload for name in owners):
        message = f"the running pod {one.name} has labels that its kill switch does not select"
        yield Finding(
            "killswitch-mismatch", ERROR, app.key, message, "restart the workload, so that its pods get the template's labels"
        )


def _killswitch(engine: Engine, app: App) -> Policy | None:
    wanted = names.killswitch(app)
    for policy in engine.policies:
        if policy.language == "networkpolicy" and (policy.ref.namespace, policy.ref.name) == (app.namespace, wanted):
            return policy
    return None


def _leaks(engine: Engine, known: Declared, app: App, index: int) -> Iterator[Finding]:
    world = engine.world
    one = world.endpoints[index]
    side = engine.side(index, EGRESS)
    allowed = Addresses()
    for edge in known.egress:
        if edge.app == app.key:
            allowed = allowed | edge.addresses
    if known.resolvers.get(app.key) != "none":
        allowed = allowed | world.local_resolver
    everywhere = public(world) - allowed
    for name, part in (("IPv4", Addresses(everywhere.v4)), ("IPv6", Addresses(v6=everywhere.v6))):
        opened = [(found, ports - PING) for found, ports in side.possible.towards(part) if ports - PING]
        if opened:
            reached = Addresses()
            for found, _ports in opened:
                reached = reached | found
            policy, rule, by = opener_of(engine, index, reached)
            witness = (by or reached).witness()
            sure = any(ports - PING for _found, ports in side.sure.towards(part))
            covering = ", ".join(str(item) for item in list(reached.networks())[:3])
            yield Finding(
                "leak",
                ERROR,
                app.key,
                f"{one.name} {'reaches' if sure else 'may reach'} the public internet over {name}: {covering}",
                "exclude the client's pods from that policy by label, or have a hard deny before it",
                policy=policy,
                rule=rule,
                witness=flow(one.name, witness, opened[0][1].words()),
            )
        elif side.possible.towards(part) and engine.profile.icmp_always is False:
            policy, rule, by = "", "", part
            yield Finding("leak-icmp", WARNING, app.key, f"{one.name} may ping public addresses over {name}", "narrow the rule")
    rest = EVERYWHERE - public(world) - world.pod_range - world.service_range - allowed
    opened = [(found, ports - PING) for found, ports in side.possible.towards(rest) if ports - PING]
    if opened:
        policy, rule, by = opener_of(engine, index, opened[0][0])
        reached = by or opened[0][0]
        yield Finding(
            "private-open",
            WARNING,
            app.key,
            f"{one.name} reaches addresses at home that it did not declare: "
            + ", ".join(str(item) for item in list(reached.networks())[:4]),
            "name what it needs under `external` and remove the range: routers and proxies at home lead out",
            policy=policy,
            rule=rule,
            witness=flow(one.name, reached.witness(), opened[0][1].words()),
        )


def _relays(engine: Engine, app: App, index: int) -> Iterator[Finding]:
    """Pods that the client reaches and that themselves reach the internet: what runs there can pass it on."""
    world = engine.world
    spared = world.by_gateway.get(required(app.vpn).gateway, 0) | dns_endpoints(engine) | world.by_app.get(app.key, 0)
    everywhere = public(world)
    relays = 0
    first = Ports()
    for other in bits(engine.side(index, EGRESS).possible.any_pod() & ~spared):
        ports = engine.effective(index, other).possible - PING
        if not ports:
            continue
        if any(found - PING for _addresses, found in engine.side(other, EGRESS).possible.towards(everywhere)):
            if not relays:
                first = ports
            relays |= 1 << other
    if relays:
        yield Finding(
            "relay",
            WARNING,
            app.key,
            f"reaches pods that themselves reach the internet: {world.names(relays)}",
            "what listens there must not be a proxy; segment those apps, or drop the edge",
            witness=flow(world.endpoints[index].name, world.endpoints[min(bits(relays))].name, first.words()),
        )


def _dns(engine: Engine, known: Declared, app: App, index: int) -> Iterator[Finding]:
    world = engine.world
    who = known.resolvers.get(app.key, "none")
    for server in bits(dns_endpoints(engine)):
        if not (engine.pair(index, server).possible & dns_ports(engine)):
            continue
        name = world.endpoints[index].name
        witness = flow(name, world.endpoints[server].name, "53/udp")
        if who == "none":
            message = f"{name} may ask the cluster's DNS, which asks from the home line"
            yield Finding(
                "dns-leak", ERROR, app.key, message, "remove the rule for DNS: its names go through the tunnel", witness=witness
            )
        elif who == "client":
            message = "its names are resolved by the cluster's DNS, which asks from the home line (dns: cluster)"
            yield Finding("dns-leak", WARNING, app.key, message, "set dns: vpn or split on the gateway", witness=witness)
        else:
            message = "policy lets the whole pod ask the cluster's DNS; only the guard limits that to finding the gateway"
            yield Finding("dns-open", INFO, app.key, message, witness=witness)
        return
