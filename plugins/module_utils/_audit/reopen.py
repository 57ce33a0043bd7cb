# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What else would let a client out: every rule beside its kill switch that allows an address which the kill switch does not.

The engine of the audit decides, so that policies of every language count with their rank: whatever stands before a hard
deny opens the client, whatever stands behind it does not.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .._errors import FaultsError, NetguardError
from .._facts.model import Facts
from .._manifests import killswitch, names
from .._manifests.client_edges import edges_of
from .._manifests.model import LABEL_INSTANCE, LABEL_PART, Key, Live, Manifest
from .._topology.model import App, Topology
from . import profiles
from .engine import EGRESS, Engine, language
from .policy import ALLOW, Policy, Ref, Rule, rule_region
from .profiles import CLUSTER, KUBERNETES, Profile
from .region import Region
from .sets import EVERYWHERE, Addresses, Ports
from .world import World, bits

#: What an entry shows of the networks that a rule opens.
SHOWN = 6
#: Beside the policies themselves these decide what they mean.
BESIDE = ("Tier", "GlobalNetworkSet", "NetworkSet")


def reopened_by(topology: Topology, facts: Facts, live: Live, desired: Iterable[Manifest] = ()) -> list[dict[str, Any]]:
    """One entry per client and rule that opens it: client, kind, api_version, namespace, name, rule (position, None: the whole
    policy), allows (networks), effective (False: something before it denies what it allows), reason.

    `desired`: policies that this run writes, in place of what is live. Only addresses outside of the cluster count: what pods
    may be reached is the audit's question. What cannot be evaluated counts as an effective opening.
    """
    written = {Key.of(item): item for item in desired}
    objects = [item for item in live.objects if Key.of(item) not in written]
    objects += written.values()
    known = {Key.of(item) for item in objects}
    objects += [item for item in _own(topology, facts, live) if Key.of(item) not in known]
    world = World(topology, facts, Live(tuple(objects), live.unreadable))
    found: dict[tuple[str, Ref, int | None], dict[str, Any]] = {}
    for profile in _profiles(facts):
        engine = Engine(world, profile)
        for app in topology.clients:
            for one in _openings(engine, app):
                entry = found.setdefault((app.key, one.ref, one.rule), _entry(app, one))
                entry["effective"] |= one.effective
    entries = list(found.values())
    for app in topology.clients:
        entries += [_unread(app, kind) for kind in _forbidden(facts, live)]
    return sorted(entries, key=lambda item: (item["client"], item["kind"], item["namespace"], item["name"], item["rule"] or 0))


@dataclass(frozen=True)
class Opening:
    """One rule (by position; None: the policy as a whole) that allows addresses outside of the cluster."""

    ref: Ref
    rule: int | None
    addresses: Addresses
    effective: bool
    reason: str


def _own(topology: Topology, facts: Facts, live: Live) -> Iterator[Manifest]:
    """The kill switches as the declaration wants them, for clients whose own is not there yet."""
    for app in topology.clients:
        if live.get("NetworkPolicy", app.namespace, names.killswitch(app)) is None:
            try:
                yield killswitch.network_policy(topology, facts, edges_of(topology, facts, live, app))
            except (FaultsError, NetguardError):
                continue  # told by whoever builds it


def _profiles(facts: Facts) -> tuple[Profile, ...]:
    """The readings to hold against each other. Whoever serves the tiers' API may or may not be the one that obeys it."""
    found: list[Profile] = []
    for profile in profiles.of(facts.cni):
        if not profile.enforces:
            # nothing holds there but the guard; what the policies would say is told all the same
            profile = replace(profile, enforces=True, languages=(KUBERNETES,))
        found.append(profile)
        if CLUSTER not in profile.languages and any(api.startswith("policy.networking") for api in facts.cni.policy_apis):
            found.append(replace(profile, languages=(*profile.languages, CLUSTER)))
    return tuple(found)


def _openings(engine: Engine, app: App) -> Iterator[Opening]:
    world = engine.world
    unplaced = {problem.ref for problem in engine.problems if problem.code == "unknown-tier"}
    for index in bits(world.by_app.get(app.key, 0)):
        selecting = engine.selecting(index)
        own = [policy for policy in selecting if is_own(world.topology, app, policy)]
        allowed = _allowed_by(own)
        attributed = Region()
        for policy in selecting:
            if policy in own:
                continue
            for rule in policy.egress or ():
                opened = _outside(rule, engine) - allowed if rule.action == ALLOW else Region()
                if opened:
                    attributed = attributed | opened
                    effective = policy.ref in unplaced or bool((opened & engine.side(index, EGRESS).possible).outside)
                    addresses = _addresses(opened)
                    reason = f"allows {addresses.witness()}, which the kill switch does not"
                    if not effective:
                        reason += "; what stands before it denies that"
                    yield Opening(policy.ref, rule.index, addresses, effective, reason)
        if own:
            left = _public(engine.side(index, EGRESS).possible, engine) - allowed - attributed
            if left and selecting:
                reason = "another policy passes this on before the kill switch decides"
                yield Opening(own[0].ref, None, _addresses(left), True, reason)
    for problem in engine.problems:
        # a NetworkPolicy that an API server refuses is in force nowhere; of the other kinds our reading may be the one that lacks
        if problem.rejected and problem.ref.kind != "NetworkPolicy" and problem.ref.namespace in ("", app.namespace):
            reason = f"not evaluated, and it may select this client: {problem.path} {problem.message}"
            yield Opening(problem.ref, None, Addresses(), True, reason)


def is_own(topology: Topology, app: App, policy: Policy) -> bool:
    """Whether a policy is the client's own kill switch: by its name too, since anybody can copy labels."""
    named = (policy.ref.namespace, policy.ref.name) == (app.namespace, names.killswitch(app))
    labelled = policy.labels.get(LABEL_INSTANCE) == topology.instance and policy.labels.get(LABEL_PART) == "killswitch"
    return named and labelled


def _allowed_by(own: Iterable[Policy]) -> Region:
    found = Region()
    for policy in own:
        for rule in policy.egress or ():
            if rule.action == ALLOW:
                found = found | rule_region(rule, {}, maybe=True)
    return Region((), found.outside)


def _outside(rule: Rule, engine: Engine) -> Region:
    """What a rule possibly allows outside of the cluster's pods and Services."""
    return _public(rule_region(rule, {}, maybe=True), engine)


def _public(region: Region, engine: Engine) -> Region:
    world = engine.world
    beyond = EVERYWHERE - world.pod_range - world.service_range
    if world.facts.dns.node_local_ip:
        beyond = beyond - Addresses.of([ipaddress.ip_network(world.facts.dns.node_local_ip)])
    # a CNI that lets pings through does so whatever any policy says
    ports = Ports.whole() if engine.profile.icmp_always is False else Ports.whole("TCP", "UDP", "SCTP")
    return Region((), ((beyond, ports),)) & region


def _addresses(region: Region) -> Addresses:
    found = Addresses()
    for addresses, _ports in region.outside:
        found = found | addresses
    return found


def _forbidden(facts: Facts, live: Live) -> Iterator[str]:
    """Kinds of policies, and of what they refer to, that this account may not read."""
    for kind, state in sorted(live.unreadable.items()):
        if state == "forbidden" and (kind in BESIDE or _is_policy(kind)):
            yield kind


def _is_policy(kind: str) -> bool:
    groups = ("networking.k8s.io", "projectcalico.org", "cilium.io", "policy.networking.k8s.io")
    return any(language({"apiVersion": f"{group}/v1", "kind": kind}) for group in groups)


def _entry(app: App, one: Opening) -> dict[str, Any]:
    return {
        "client": app.key,
        "kind": one.ref.kind,
        "api_version": one.ref.api_version,
        "namespace": one.ref.namespace,
        "name": one.ref.name,
        "rule": one.rule,
        "allows": [str(item) for item in one.addresses.networks()][:SHOWN],
        "effective": one.effective,
        "reason": one.reason,
    }


def _unread(app: App, kind: str) -> dict[str, Any]:
    reason = f"objects of kind {kind} may not be read (docs/rbac.yml), so what they allow is not known"
    return {
        "client": app.key,
        "kind": kind,
        "api_version": "",
        "namespace": "",
        "name": "*",
        "rule": None,
        "allows": [],
        "effective": True,
        "reason": reason,
    }


def told(item: Mapping[str, Any]) -> str:
    """An entry in words, without the client."""
    where = f"{item['namespace']}/{item['name']}" if item["namespace"] else item["name"]
    rule = "" if item["rule"] is None else f", egress[{item['rule']}]"
    return f"{item['kind']} {where}{rule}"
