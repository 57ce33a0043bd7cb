# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The whole audit: every check under every profile that applies, joined into one list of findings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .._errors import NetguardError
from .._facts.model import Facts
from .._manifests.model import Live
from .._topology.model import App, Topology
from . import check_clients, check_edges, check_outside, check_policies, check_services, profiles
from .declared import declared
from .engine import Engine
from .findings import INFO, WARNING, Finding, merged
from .load import usable
from .profiles import Profile
from .world import World

ALL, CLIENTS = "all", "clients"


@dataclass
class Report:
    """`engines` are by profile, the cluster's own first: for explanations and the matrix."""

    findings: list[Finding]
    engines: list[Engine]

    @property
    def engine(self) -> Engine:
        return self.engines[0]


def chosen(facts: Facts, profile: str) -> tuple[Profile, ...]:
    """The profiles to evaluate under. Raises NetguardError for a name that is none."""
    try:
        return profiles.of(facts.cni, "" if profile in ("", "auto") else profile)
    except KeyError:
        known = ", ".join(("auto", "all", *profiles.PROFILES))
        raise NetguardError(f"profile {profile!r} is none of {known}") from None


def audit(
    topology: Topology, facts: Facts, live: Live, *, profile: str = "auto", scope: str = ALL, apps: Iterable[App] | None = None
) -> Report:
    """Findings about all policies of a snapshot (`scope` clients: only what concerns VPN clients).

    Pure: nothing is read or written. `apps` limits what is held against the declaration; the engine sees everything.
    """
    good, malformed = usable(live.objects)
    if malformed:
        live = Live(tuple(good), live.unreadable)
    world = World(topology, facts, live)
    subjects = tuple(topology.apps if apps is None else apps)
    if scope == CLIENTS:
        subjects = tuple(app for app in subjects if app.vpn is not None)
    known = declared(topology, facts, live, world, subjects)
    engines = []
    by_profile = []
    wanted = chosen(facts, profile)
    for one in wanted:
        engine = Engine(world, one)
        engines.append(engine)
        found = [
            *malformed,
            *check_edges.blocked(engine, known),
            *check_outside.blocked(engine, known),
            *check_edges.resolvers(engine, known),
        ]
        for app in subjects:
            if app.vpn is not None:
                found += check_clients.check(engine, known, app)
        found += check_services.check(engine, subjects)
        if one.enforces:
            found += check_edges.undeclared(engine, known, subjects)
            found += check_outside.undeclared(engine, known, subjects)
        own = check_policies.check(engine)
        if scope == CLIENTS:
            own = (item for item in own if item.code in ("no-enforcement", "not-evaluated", "fail-open"))
        found += own
        by_profile.append((one.name, found))
    findings = merged(by_profile)
    if len(wanted) > 1:
        findings = _disagreements(findings, wanted, facts)
    return Report(findings, engines)


def _disagreements(findings: list[Finding], wanted: tuple[Profile, ...], facts: Facts) -> list[Finding]:
    """The CNI is not known: what holds under some profiles only is the disagreement, and it is named."""
    partial = [item for item in findings if len(item.profiles) < len(wanted)]
    said = "" if facts.cni.name in profiles.PROFILES else "the CNI is not known: "
    message = f"{said}evaluated as {len(wanted)} CNIs would, {len(partial)} findings hold under some of them only (see profiles)"
    severity = WARNING if partial else INFO
    return [*findings, Finding("profiles-disagree", severity, "CNI", message, "set netguard_overrides: {cni: {name: ...}}")]
