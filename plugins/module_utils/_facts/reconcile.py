# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Judges observations: which range is proven, which is only a lower bound, what contradicts what.

Each family is judged alone. Nothing is ever widened, sources that contradict each other are never united, and where two that
both claim to allocate cannot be told apart by what is observed, the answer is a conflict. Order of sources does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from .._topology.model import Network
from . import guards, rights
from . import observations as obs
from .observations import Observation

COMPLETE, PARTIAL, CONFLICT, UNKNOWN = "complete", "partial", "conflict", "unknown"
#: From good to bad: a class is as certain as the worst of its families.
_ORDER = (COMPLETE, PARTIAL, UNKNOWN, CONFLICT)

#: Among sources of equal trust the one further up is closer to what allocates.
_KINDS = (
    "override",
    "openshift",
    "servicecidr",
    "calico-ippool",
    "cilium-pool",
    "cilium-config",
    "antrea-config",
    "flannel",
    "ovn-config",
    "kindnet",
    "weave-net",
    "kube-apiserver",
    "node-args",
    "kube-controller-manager",
    "probe",
    "probe-multi",
    "kubeadm",
    "kube-proxy",
    "default",
)
#: Objects that the allocator itself follows at run time: a flag beside them is only where they began.
_AUTHORITIES = ("openshift", "servicecidr", "calico-ippool", "cilium-pool", "cilium-config", "antrea-config")


@dataclass(frozen=True)
class Doubt:
    """Something that is not certain: about what, in words, and the variable that settles it.

    `ends`: keys of netguard_overrides (`dns.namespace`) that end it once all are given. Without them the doubt is judged again
    with what was given, and `settle` says what to give, a range of this class unless it is written.
    """

    about: str
    text: str
    ends: tuple[str, ...] = ()
    settle: str = ""

    def data(self) -> dict[str, str]:
        settle = self.settle or rights.setting(*(self.ends or (self.about,)))
        return {"about": self.about, "doubt": self.text, "settle": settle}


@dataclass
class Range:
    """The judgement of one class."""

    about: str
    status: str = UNKNOWN
    cidrs: dict[Network, list[Observation]] = field(default_factory=dict)
    complete: dict[Network, bool] = field(default_factory=dict)
    observed: int = 0
    outside: list[Network] = field(default_factory=list)
    rejected: list[tuple[Network, str, Observation]] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)

    def doubt(self, text: str, settle: str = "") -> None:
        self.doubts.append(Doubt(self.about, f"{self.about}: {text}", settle=settle))

    def doubt_of_the_cluster(self, text: str) -> None:
        """What no other range would settle: the cluster itself has to be mended, or the ranges are held by force."""
        self.doubt(text, f"mend the cluster, or netguard_overrides: {{{self.about}: [...], force: true}}")

    def worsen(self, status: str) -> None:
        self.status = max(self.status, status, key=_ORDER.index)

    def data(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "cidrs": [
                {
                    "cidr": str(network),
                    "trust": min(item.trust for item in sources),
                    "complete": self.status in (COMPLETE, PARTIAL) and self.complete.get(network, self.status == COMPLETE),
                    "sources": [item.source() for item in sources],
                }
                for network, sources in self.cidrs.items()
            ],
            "observed": {"count": self.observed, "outside": [str(item.network_address) for item in self.outside]},
            "rejected": [
                {"cidr": str(network), "reason": reason, "source": item.source()} for network, reason, item in self.rejected
            ],
        }

    @property
    def networks(self) -> list[Network]:
        return list(self.cidrs)


def order(network: Network) -> tuple[int, int, int]:
    return network.version, int(network.network_address), network.prefixlen


def _rank(item: Observation) -> tuple[int, int, str, str, str, str]:
    kind = _KINDS.index(item.kind) if item.kind in _KINDS else len(_KINDS)
    return item.trust, kind, item.kind, item.ref, item.field, item.raw


def words(networks: Iterable[Network]) -> str:
    listed = [str(item.network_address if item.prefixlen == item.max_prefixlen else item) for item in networks]
    return ", ".join(listed[:4]) + (f" and {len(listed) - 4} more" if len(listed) > 4 else "")


@dataclass(frozen=True)
class Candidate:
    """What all observations of one kind and trust say together in one family; several objects of a kind must agree."""

    kind: str
    trust: int
    networks: tuple[Network, ...]
    sources: tuple[Observation, ...]
    agrees: bool

    def covers(self, evidence: Iterable[Network]) -> bool:
        return all(guards.inside(address, self.networks) for address in evidence)

    @property
    def name(self) -> str:
        return f"{self.kind} ({self.sources[0].ref})"


@dataclass(frozen=True)
class Context:
    """What a class is judged by beside its observations.

    `ipam`: the allocator in use (pods; `unknown` when it could not be told, empty where it does not matter); `anchors`: the
    ClusterIP of default/kubernetes (services); `lost`: sources of higher trust that could not be read; `growing`: the object
    that would show later extensions could not be read.
    """

    ipam: str = ""
    anchors: tuple[Network, ...] = ()
    lost: tuple[str, ...] = ()
    growing: str = ""


def judge(about: str, found: Iterable[Observation], observed: Iterable[Network], context: Context) -> Range:
    """The range of one class. `observed` are single addresses that are known to be inside."""
    result = Range(about, COMPLETE)
    seen = sorted(set(observed), key=order)
    result.observed = len(seen)
    claims, parts = _usable(result, list(found), context)
    judged = False
    for version in (4, 6):
        ours = [_of(item, version) for item in claims]
        rest = [_of(item, version) for item in parts]
        addresses = [item for item in seen if item.version == version]
        ours, rest = [item for item in ours if item.cidrs], [item for item in rest if item.cidrs]
        # A default alone is no reason to believe that the cluster has the family.
        if rest or addresses or any(item.trust < obs.DEFAULT for item in ours):
            judged = True
            _family(result, ours, rest, addresses, context)
    if not judged:
        result.status = UNKNOWN
        hint = "".join(f"; {words(item.cidrs)} is {item.ref}" for item in claims)
        result.doubt(f"no source tells the range{hint}{_lost(context)}")
    result.cidrs = dict(sorted(result.cidrs.items(), key=lambda entry: order(entry[0])))
    return result


def _lost(context: Context) -> str:
    return f" (not readable: {', '.join(context.lost)})" if context.lost else ""


def _of(item: Observation, version: int) -> Observation:
    return replace(item, cidrs=tuple(network for network in item.cidrs if network.version == version))


def _usable(result: Range, found: list[Observation], context: Context) -> tuple[list[Observation], list[Observation]]:
    """Claims to a whole range, and parts; the rest is rejected with the reason. A claim of which something is refused is no
    longer the whole."""
    claims: list[Observation] = []
    parts: list[Observation] = []
    for item in sorted(found, key=_rank):
        given = item.trust == obs.GIVEN
        if item.mechanism and context.ipam not in ("", "unknown", item.mechanism) and not given:
            reason = f"not-allocating: addresses come from {context.ipam}"
            result.rejected += [(network, reason, item) for network in item.cidrs]
            continue
        kept = []
        complete = item.complete
        for network in item.cidrs:
            reason = guards.refusal(network, result.about, item.trust)
            if reason:
                complete = False
                result.rejected.append((network, reason, item))
            else:
                kept.append(network)
        missed = [] if given or not complete else _missed_anchors(kept, context.anchors)
        if missed:
            reason = f"does not begin at the API server's own Service {words(missed)}"
            gone = {anchor.version for anchor in missed}
            result.rejected += [(network, reason, item) for network in kept if network.version in gone]
            kept = [network for network in kept if network.version not in gone]
        if kept:
            (claims if complete else parts).append(replace(item, cidrs=tuple(kept), complete=complete))
    return claims, parts


def _missed_anchors(networks: list[Network], anchors: tuple[Network, ...]) -> list[Network]:
    """Anchors of whose family there are networks, of which none begins right before it."""
    missed = []
    for anchor in anchors:
        family = [network for network in networks if network.version == anchor.version]
        if family and all(network.network_address + 1 != anchor.network_address for network in family):
            missed.append(anchor)
    return missed


def _candidates(found: Iterable[Observation]) -> list[Candidate]:
    groups: dict[tuple[int, str], list[Observation]] = {}
    for item in sorted(found, key=_rank):
        groups.setdefault((item.trust, item.kind), []).append(item)
    result = []
    for (trust, kind), listed in groups.items():
        every = {network for item in listed for network in item.cidrs}
        # What one source says twice, once as a part of something wider, is said once.
        inner = {one for one in every for other in every if one != other and guards.within(one, other)}
        together = tuple(sorted(every - inner, key=order))
        agrees = len({frozenset(item.cidrs) for item in listed}) == 1
        result.append(Candidate(kind, trust, together, tuple(listed), agrees))
    return sorted(result, key=lambda one: _rank(one.sources[0])[:3])


def _family(result: Range, claims: list[Observation], parts: list[Observation], addresses: list[Network], context: Context) -> None:
    evidence = [*addresses, *(network for item in parts for network in item.cidrs)]
    candidates = _candidates(claims)
    # The user's word wins whatever is observed. A default is a hypothesis: it is told to the user, never taken.
    serious = [one for one in candidates if one.trust < obs.DEFAULT]
    covering = [one for one in serious if one.covers(evidence)]
    winner = next((one for one in serious if one.trust == obs.GIVEN), None) or next(iter([*covering, *serious]), None)
    if winner is None:
        _without_winner(result, candidates, parts, addresses, context)
        return
    _take(result, winner, candidates)
    status = _status(result, winner, candidates, evidence, context)
    result.worsen(status)
    for network in winner.networks:
        result.complete[network] = status == COMPLETE


def _take(result: Range, winner: Candidate, candidates: list[Candidate]) -> None:
    for network in winner.networks:
        result.cidrs[network] = [item for item in winner.sources if network in item.cidrs]
    for other in candidates:
        for network in other.networks if other is not winner else ():
            if network in result.cidrs:
                result.cidrs[network] += [item for item in other.sources if network in item.cidrs]
            else:
                reason = f"contradicts {winner.name}" if other.trust <= obs.RUNNING else "a record or default that is not in force"
                result.rejected.append((network, reason, other.sources[0]))


def _status(result: Range, winner: Candidate, candidates: list[Candidate], evidence: list[Network], context: Context) -> str:
    anchors = [item for item in context.anchors if item.version == winner.networks[0].version]
    outside = [address for address in evidence if not guards.inside(address, winner.networks)]
    if outside:
        result.outside += outside
        result.doubt(f"{words(outside)} lie outside of {words(winner.networks)}, which {winner.name} says")
        return CONFLICT
    if winner.trust == obs.GIVEN:
        if _missed_anchors([*winner.networks], tuple(anchors)):
            result.doubt(f"{words(winner.networks)} does not begin at the API server's own Service {words(anchors)}")
            return CONFLICT
        return COMPLETE
    if not winner.agrees:
        result.doubt(f"the objects of {winner.kind} do not agree: {words(winner.networks)}")
        return CONFLICT
    refuted = [one for one in candidates if one.trust <= obs.RECORD and not one.covers(evidence)]
    if any(one.kind in _AUTHORITIES for one in refuted):
        one = next(one for one in refuted if one.kind in _AUTHORITIES)
        result.doubt(f"{one.name} says {words(one.networks)}, but addresses outside of it are in use")
        return CONFLICT
    rivals = [
        one
        for one in candidates
        if one is not winner
        and one.trust <= max(winner.trust, obs.RUNNING)
        and one.networks != winner.networks
        and one.covers(evidence)
    ]
    if rivals and winner.kind not in _AUTHORITIES:
        for one in rivals:
            result.doubt(f"{winner.name} says {words(winner.networks)}, {one.name} says {words(one.networks)}")
        return CONFLICT
    return _certainty(result, winner, refuted, bool(evidence), context)


def _certainty(result: Range, winner: Candidate, refuted: list[Candidate], evidence: bool, context: Context) -> str:
    """Nothing contradicts the winner: how much does it prove?"""
    shown = words(winner.networks)
    if context.ipam == "unknown":
        settle = f"{rights.setting('cni.ipam')}, or {rights.setting(result.about)}"
        result.doubt(f"{shown} by {winner.name}, but it is not known which allocator gives the addresses", settle)
        return PARTIAL
    if winner.kind == "probe-multi":
        result.doubt(f"{shown} is what the API server named; there may be further ranges{_lost(context)}")
        return PARTIAL
    if winner.trust == obs.RECORD:
        if not evidence:
            result.doubt(f"{shown} is only the record {winner.name}; nothing is observed that would confirm it{_lost(context)}")
            return PARTIAL
        if context.lost or any(one.trust <= obs.RUNNING for one in refuted):
            result.doubt(f"{shown} is only the record {winner.name}{_lost(context)}")
            return PARTIAL
    if context.growing and winner.trust >= obs.RUNNING:
        result.doubt(f"{shown} by {winner.name}, but {context.growing}")
        return PARTIAL
    return COMPLETE


def _without_winner(
    result: Range, candidates: list[Candidate], parts: list[Observation], addresses: list[Network], context: Context
) -> None:
    for item in parts:
        for network in item.cidrs:
            result.cidrs.setdefault(network, []).append(item)
            result.complete[network] = False
    evidence = [*addresses, *(network for item in parts for network in item.cidrs)]
    fitting = [one for one in candidates if one.covers(evidence)]
    hint = "".join(f"; {words(one.networks)}, {one.sources[0].ref}, would fit" for one in fitting)
    for one in candidates:
        reason = "a default, which nothing proves" if one in fitting else "a default, and addresses outside of it are in use"
        result.rejected += [(network, reason, one.sources[0]) for network in one.networks]
    if parts:
        result.worsen(PARTIAL)
        some = words(sorted({network for item in parts for network in item.cidrs}, key=order))
        result.doubt(f"only parts are known: {some}{hint}{_lost(context)}")
        return
    result.worsen(UNKNOWN)
    if addresses:
        result.doubt(f"addresses such as {words(addresses[:2])} are in use, but no source tells the range{hint}{_lost(context)}")
    else:
        result.doubt(f"no source tells the range{hint}{_lost(context)}")
