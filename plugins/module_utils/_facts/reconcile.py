# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Judges observations: which range is proven, which is only a lower bound, what contradicts what.

Nothing is ever widened, and sources that contradict each other are never united. Order of sources does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .._topology.model import Network
from . import guards
from . import observations as obs
from .observations import Observation

COMPLETE, PARTIAL, CONFLICT, UNKNOWN = "complete", "partial", "conflict", "unknown"

#: Among sources of equal trust the one further left is closer to what allocates.
_KINDS = (
    "override",
    "openshift",
    "servicecidr",
    "calico-ippool",
    "cilium-pool",
    "cilium-config",
    "flannel",
    "ovn-config",
    "node-args",
    "kube-apiserver",
    "kube-controller-manager",
    "kindnet",
    "weave-net",
    "probe",
    "kubeadm",
    "kube-proxy",
    "default",
)


@dataclass
class Range:
    """The judgement of one class."""

    about: str
    status: str = UNKNOWN
    cidrs: dict[Network, list[Observation]] = field(default_factory=dict)
    observed: int = 0
    outside: list[Network] = field(default_factory=list)
    rejected: list[tuple[Network, str, Observation]] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    def data(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "cidrs": [
                {
                    "cidr": str(network),
                    "trust": min(item.trust for item in sources),
                    "complete": self.status == COMPLETE,
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


def _order(network: Network) -> tuple[int, int, int]:
    return network.version, int(network.network_address), network.prefixlen


def _rank(item: Observation) -> tuple[int, int, str, str]:
    return item.trust, _KINDS.index(item.kind) if item.kind in _KINDS else len(_KINDS), item.ref, item.field


@dataclass(frozen=True)
class Candidate:
    """What all observations of one kind and trust say together: several objects of a kind must agree, unless they are parts."""

    kind: str
    trust: int
    networks: tuple[Network, ...]
    sources: tuple[Observation, ...]
    agrees: bool = True


def _candidates(found: Iterable[Observation]) -> list[Candidate]:
    groups: dict[tuple[int, str], list[Observation]] = {}
    for item in sorted(found, key=_rank):
        groups.setdefault((item.trust, item.kind), []).append(item)
    result = []
    for (trust, kind), items in groups.items():
        words = {frozenset(item.cidrs) for item in items}
        together = tuple(sorted({network for item in items for network in item.cidrs}, key=_order))
        result.append(Candidate(kind, trust, together, tuple(items), len(words) == 1))
    result.sort(key=lambda one: _rank(one.sources[0])[:2])
    return result


def judge(
    about: str,
    found: Iterable[Observation],
    observed: Iterable[Network],
    *,
    ipam: str = "",
    anchors: Iterable[Network] = (),
    families: Iterable[int] = (4,),
) -> Range:
    """The range of one class.

    `observed` are single addresses that are known to be inside; `ipam` the allocator in use (pods; `unknown` when it could
    not be told); `anchors` the ClusterIP of default/kubernetes (services).
    """
    result = Range(about)
    seen = sorted(set(observed), key=_order)
    result.observed = len(seen)
    usable, slices = _usable(result, list(found), ipam, list(anchors))
    evidence = [*seen, *(network for item in slices for network in item.cidrs)]
    candidates = _candidates(usable)
    given = [one for one in candidates if one.trust == obs.GIVEN]
    winner = _winner(candidates, evidence)
    if given:
        winner = given[0]
    if winner is None:
        _without_winner(result, candidates, slices, evidence)
        return result
    for network in winner.networks:
        result.cidrs[network] = [item for item in winner.sources if network in item.cidrs]
    for other in candidates:
        for network in other.networks:
            if other is not winner and network in result.cidrs:
                result.cidrs[network] += [item for item in other.sources if network in item.cidrs]
            elif other is not winner:
                reason = f"contradicts {winner.kind}" if other.trust <= obs.RUNNING else "a record or default that is not in force"
                result.rejected.append((network, reason, other.sources[0]))
                if other.trust <= obs.RUNNING:
                    result.doubts.append(f"{about}: {other.kind} says {network}, {winner.kind} says {_words(winner.networks)}")
    result.outside = [address for address in evidence if not guards.inside(address, winner.networks)]
    missing = set(families) - {network.version for network in winner.networks}
    result.status = _status(about, winner, result.outside, bool(evidence), ipam)
    if missing and result.status == COMPLETE and any(address.version in missing for address in evidence):
        result.status = PARTIAL
        result.doubts.append(f"{about}: no source knows the IPv{'/'.join(str(item) for item in sorted(missing))} range")
    if result.outside:
        result.doubts.append(f"{about}: {_words(result.outside[:3])} lie outside of {_words(winner.networks)} ({winner.kind})")
    if not winner.agrees and winner.trust not in (obs.ALLOCATES, obs.GIVEN):
        result.status = CONFLICT
        result.doubts.append(f"{about}: the objects of {winner.kind} do not agree: {_words(winner.networks)}")
    return result


def _words(networks: Iterable[Network]) -> str:
    return ", ".join(str(item) for item in networks)


def _usable(
    result: Range, found: list[Observation], ipam: str, anchors: list[Network]
) -> tuple[list[Observation], list[Observation]]:
    """Observations that may win, and those that are only parts; the rest is rejected with the reason."""
    usable: list[Observation] = []
    slices: list[Observation] = []
    for item in sorted(found, key=_rank):
        if result.about == "pods" and item.mechanism and ipam not in ("unknown", item.mechanism) and item.trust != obs.GIVEN:
            for network in item.cidrs:
                result.rejected.append((network, f"not-allocating: addresses come from {ipam}", item))
            continue
        kept = []
        for network in item.cidrs:
            reason = guards.refusal(network, result.about, item.trust)
            same_family = [anchor for anchor in anchors if anchor.version == network.version]
            if not reason and same_family and item.complete and item.kind != "servicecidr" and item.trust != obs.GIVEN:
                first = network.network_address + 1
                if all(anchor.network_address != first for anchor in same_family):
                    reason = f"does not begin at the API server's own Service {same_family[0].network_address}"
            if reason:
                result.rejected.append((network, reason, item))
            else:
                kept.append(network)
        if kept:
            kept_item = Observation(
                item.about, tuple(kept), item.trust, item.kind, item.ref, item.field, item.raw, item.mechanism, item.complete
            )
            (usable if item.complete else slices).append(kept_item)
    return usable, slices


def _winner(candidates: list[Candidate], evidence: list[Network]) -> Candidate | None:
    """The most trusted candidate that covers all evidence; the most trusted at all when none does."""
    for one in candidates:
        if all(guards.inside(address, one.networks) or not _family(address, one) for address in evidence) and _relevant(
            one, evidence
        ):
            return one
    return candidates[0] if candidates else None


def _family(address: Network, candidate: Candidate) -> bool:
    return any(network.version == address.version for network in candidate.networks)


def _relevant(candidate: Candidate, evidence: list[Network]) -> bool:
    """Records and defaults need at least one address inside when there are addresses at all."""
    if candidate.trust < obs.RECORD or not evidence:
        return True
    return any(guards.inside(address, candidate.networks) for address in evidence)


def _status(about: str, winner: Candidate, outside: list[Network], evidence: bool, ipam: str) -> str:
    if outside:
        return CONFLICT
    if winner.trust in (obs.GIVEN, obs.ALLOCATES):
        return COMPLETE if about != "pods" or ipam != "unknown" or winner.trust == obs.GIVEN else PARTIAL
    if about == "pods" and ipam == "unknown":
        return PARTIAL
    if winner.trust == obs.RUNNING:
        return PARTIAL if winner.kind == "probe-multi" else COMPLETE
    return COMPLETE if evidence else PARTIAL


def _without_winner(result: Range, candidates: list[Candidate], slices: list[Observation], evidence: list[Network]) -> None:
    for item in slices:
        for network in item.cidrs:
            result.cidrs.setdefault(network, []).append(item)
    result.status = PARTIAL if result.cidrs else UNKNOWN
    if result.cidrs:
        result.doubts.append(f"{result.about}: only parts are known: {_words(list(result.cidrs)[:4])}")
