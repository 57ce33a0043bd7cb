# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Verdicts: for every endpoint and direction what is surely open and what possibly is, under one profile.

Between the two lies what the profile leaves to the implementation. A flow needs the egress side of its source and the ingress
side of its destination; answers are never asked about (policies are stateful).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from . import read_calico, read_cilium, read_cluster, read_kubernetes
from .policy import ALLOW, CALICO_COPY, DENY, DIRECTIONS, EGRESS, INGRESS, PASS, Policy, Problem, Ref, Rule, rule_region
from .profiles import CALICO, CILIUM, CLUSTER, KUBERNETES, Profile
from .region import Region
from .sets import EVERYWHERE, Ports
from .world import World, bits

ALLOWED, DENIED, UNDECIDED = "allowed", "denied", "implementation-defined"
HBONE = 15008

#: Kinds by the language that they belong to. Kubernetes' and Calico's NetworkPolicy share a kind, not a group.
KINDS = {
    ("networking.k8s.io", "NetworkPolicy"): KUBERNETES,
    ("extensions", "NetworkPolicy"): KUBERNETES,
    ("projectcalico.org", "NetworkPolicy"): CALICO,
    ("projectcalico.org", "GlobalNetworkPolicy"): CALICO,
    ("crd.projectcalico.org", "NetworkPolicy"): CALICO,
    ("crd.projectcalico.org", "GlobalNetworkPolicy"): CALICO,
    ("cilium.io", "CiliumNetworkPolicy"): CILIUM,
    ("cilium.io", "CiliumClusterwideNetworkPolicy"): CILIUM,
    ("policy.networking.k8s.io", "ClusterNetworkPolicy"): CLUSTER,
    ("policy.networking.k8s.io", "AdminNetworkPolicy"): CLUSTER,
    ("policy.networking.k8s.io", "BaselineAdminNetworkPolicy"): CLUSTER,
}


def language(manifest: Mapping[str, Any]) -> str:
    """The language of a policy object, empty for anything else."""
    return KINDS.get((str(manifest.get("apiVersion", "")).rpartition("/")[0], str(manifest.get("kind", ""))), "")


def labels_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    return {str(key): str(value) for key, value in (manifest["metadata"].get("labels") or {}).items()}


def is_copy(manifest: Mapping[str, Any]) -> bool:
    """Calico's API shows each NetworkPolicy a second time, under a name of its own."""
    name = str(manifest["metadata"]["name"])
    return "projectcalico.org" in str(manifest.get("apiVersion", "")) and name.startswith(CALICO_COPY)


@dataclass(frozen=True)
class Side:
    """One direction of one endpoint: what is surely open, what is possibly, and whether anything isolates it."""

    sure: Region
    possible: Region
    isolated: bool

    @property
    def certain(self) -> bool:
        return self.sure is self.possible


@dataclass(frozen=True)
class PairVerdict:
    """Ports between two endpoints."""

    sure: Ports
    possible: Ports


class Engine:
    """All policies of a snapshot under one profile. Sides are computed when they are asked for, and kept."""

    def __init__(self, world: World, profile: Profile) -> None:
        self.world = world
        self.profile = profile
        self.policies: list[Policy] = []
        self.problems: list[Problem] = []
        self.ignored: list[Ref] = []  # of a language that this CNI does not obey
        self._sides: dict[tuple[int, str], Side] = {}
        known = read_calico.tiers(world.live.all("Tier"))
        for manifest in world.live.objects:
            spoken = language(manifest)
            if not spoken or is_copy(manifest):
                continue
            if spoken not in profile.languages:
                self.ignored.append(Ref.of(manifest))
                continue
            self._read(manifest, spoken, known)
        self._by_subject: dict[int, list[Policy]] = defaultdict(list)
        for policy in sorted(self.policies, key=lambda item: (item.stage, item.order)):
            for index in bits(policy.subjects):
                self._by_subject[index].append(policy)

    def _read(self, manifest: Mapping[str, Any], spoken: str, known: Mapping[str, tuple[float, str]]) -> None:
        one: Policy | None
        try:
            if spoken == CILIUM:
                found, problems = read_cilium.read(manifest, self.world, self.profile)
                self.policies += [replace(item, labels=labels_of(manifest)) for item in found]
            else:
                if spoken == KUBERNETES:
                    one, problems = read_kubernetes.read(manifest, self.world, self.profile)
                elif spoken == CALICO:
                    one, problems = read_calico.read(manifest, self.world, self.profile, known)
                else:
                    one, problems = read_cluster.read(manifest, self.world, self.profile)
                self.policies += [replace(one, labels=labels_of(manifest))] if one is not None else []
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            # the shapes of CRDs are checked by their schema, files may hold anything
            problems = [Problem("malformed", "error", Ref.of(manifest), "spec", f"cannot be read: {error!r}"[:200], rejected=True)]
        self.problems += problems

    def selecting(self, index: int) -> list[Policy]:
        """Policies that select an endpoint, in the order in which they are asked."""
        return self._by_subject.get(index, [])

    def side(self, index: int, direction: str) -> Side:
        key = (index, direction)
        if key not in self._sides:
            self._sides[key] = self._side(index, direction)
        return self._sides[key]

    def _side(self, index: int, direction: str) -> Side:
        everything = Region.everything(self.world.every)
        if not self.profile.enforces or self.world.endpoints[index].host_network:
            return Side(everything, everything, False)
        named = self.world.named if direction == EGRESS else self.world.named_of(index)
        stages = self.stages(index, direction)
        isolated = any(direction in policy.isolates for _place, policies in stages for policy in policies)
        possible, uncertain = self._walk(stages, direction, named, everything, maybe=True)
        sure = possible
        if uncertain:
            sure = possible - self._refused(stages, direction, named, everything)
        if self.profile.icmp_always is not False:
            ping = Region(((self.world.every, Ports.whole("ICMP")),), ((EVERYWHERE, Ports.whole("ICMP")),))
            certain = self.profile.icmp_always and sure is possible
            possible = possible | ping
            sure = possible if certain else (sure | ping if self.profile.icmp_always else sure)
        return Side(sure, possible, isolated)

    def stages(self, index: int, direction: str) -> list[tuple[float, list[Policy]]]:
        """The stages that say something about a direction of an endpoint, in order, each with its policies."""
        found: dict[float, list[Policy]] = defaultdict(list)
        for policy in self.selecting(index):
            if policy.rules(direction) is not None:
                found[policy.stage].append(policy)
        return sorted(found.items())

    def ordered(self, policies: Iterable[Policy], direction: str) -> list[tuple[Policy, Rule]]:
        """The rules of one stage in the order in which they decide: on Cilium denies go first."""
        listed = [(policy, rule) for policy in policies for rule in policy.rules(direction) or ()]
        if any(policy.language == CILIUM for policy, _rule in listed):
            listed.sort(key=lambda item: item[1].action != DENY)
        return listed

    @staticmethod
    def ending(policies: Iterable[Policy], direction: str) -> tuple[str, bool]:
        """What becomes of what no rule of a stage matched, and whether that is certain."""
        isolating = [policy for policy in policies if direction in policy.isolates]
        if not isolating:
            return PASS, True
        return isolating[0].end, any(policy.certain for policy in isolating)

    def _walk(
        self,
        stages: list[tuple[float, list[Policy]]],
        direction: str,
        named: Mapping[tuple[str, str], Mapping[int, int]],
        everything: Region,
        *,
        maybe: bool,
    ) -> tuple[Region, bool]:
        """What may come out as allowed, and whether anything on the way was uncertain."""
        here, opened, uncertain = everything, Region(), False
        for _place, policies in stages:
            passed = Region()
            for policy, rule in self.ordered(policies, direction):
                wide = rule_region(rule, named, maybe=True, own_ports=direction == INGRESS)
                narrow = rule_region(rule, named, maybe=False, own_ports=direction == INGRESS) if policy.certain else Region()
                uncertain |= narrow != wide
                if rule.action == ALLOW:
                    opened = opened | (wide if here is everything else here & wide)
                elif rule.action == PASS:
                    passed = passed | (here & wide)
                    here = here - narrow
                else:
                    here = here - narrow
            end, certain = self.ending(policies, direction)
            uncertain |= not certain
            here = passed if end == DENY and certain else (here if not passed else passed | here)
            if not here:
                return opened, uncertain
        return opened | here, uncertain

    def _refused(
        self,
        stages: list[tuple[float, list[Policy]]],
        direction: str,
        named: Mapping[tuple[str, str], Mapping[int, int]],
        everything: Region,
    ) -> Region:
        """What may come out as denied: the mirror of `_walk`, walked only when something was uncertain."""
        here, closed = everything, Region()
        for _place, policies in stages:
            passed = Region()
            for policy, rule in self.ordered(policies, direction):
                wide = rule_region(rule, named, maybe=True, own_ports=direction == INGRESS)
                narrow = rule_region(rule, named, maybe=False, own_ports=direction == INGRESS) if policy.certain else Region()
                if rule.action == DENY:
                    closed = closed | (here & wide)
                elif rule.action == PASS:
                    passed = passed | (here & wide)
                here = here - narrow
            end, certain = self.ending(policies, direction)
            if end == DENY:
                closed = closed | here
                here = passed if certain else passed | here
            else:
                here = passed | here
            if not here:
                break
        return closed

    # -- pairs

    def pair(self, source: int, destination: int) -> PairVerdict:
        """Ports on which one endpoint reaches another, as the packets on the wire have them."""
        world = self.world
        one, other = world.endpoints[source], world.endpoints[destination]
        if source == destination and not one.host_network:
            # through its own address a pod is not policed as a flow; another pod of the workload is one
            pass
        out_sure, out_possible = self._towards(source, destination, EGRESS)
        in_sure, in_possible = self._towards(destination, source, INGRESS)
        sure, possible = out_sure & in_sure, out_possible & in_possible
        if one.host_network and not other.host_network:
            possible = out_possible  # a node always reaches its own pods, and which node this is nobody says
        if self.profile.dropped_udp and not one.host_network:
            gone = Ports()
            for number in self.profile.dropped_udp:
                gone = gone | Ports.one("UDP", number)
            sure, possible = sure - gone, possible - gone
        return PairVerdict(sure, possible)

    def _towards(self, subject: int, peer: int, direction: str) -> tuple[Ports, Ports]:
        side = self.side(subject, direction)
        world = self.world
        if not world.endpoints[peer].host_network:
            sure = side.sure.pod(peer)
            return sure, sure if side.certain else side.possible.pod(peer)
        nodes = world.node_addresses
        if not nodes:
            return Ports(), Ports.whole()
        possible = Ports()
        for _addresses, ports in side.possible.towards(nodes):
            possible = possible | ports
        return side.sure.everywhere(nodes), possible

    def effective(self, source: int, destination: int) -> PairVerdict:
        """What applications get: inside a mesh an open HBONE port carries every TCP port."""
        found = self.pair(source, destination)
        one, other = self.world.endpoints[source], self.world.endpoints[destination]
        if not (one.mesh and other.mesh):
            return found
        tcp = Ports.whole("TCP")
        sure = found.sure | tcp if found.sure.has("TCP", HBONE) else found.sure
        possible = found.possible | tcp if found.possible.has("TCP", HBONE) else found.possible
        return PairVerdict(sure, possible)

    def reaching(self) -> list[int]:
        """By source the bits of the endpoints that it possibly reaches on some port (both sides looked at, ports not yet)."""
        world = self.world
        wanted = [0] * len(world.endpoints)
        for destination, _one in enumerate(world.endpoints):
            sources = self.side(destination, INGRESS).possible.any_pod()
            if world.host:
                sources |= world.host
            wanted[destination] = sources
        columns = [0] * len(world.endpoints)
        groups: dict[int, int] = defaultdict(int)
        for destination, sources in enumerate(wanted):
            groups[sources] |= 1 << destination
        for sources, destinations in groups.items():
            for source in bits(sources):
                columns[source] |= destinations
        found = []
        for source, _one in enumerate(world.endpoints):
            targets = self.side(source, EGRESS).possible.any_pod() | world.host
            found.append(targets & columns[source])
        return found


def verdict(found: PairVerdict, protocol: str, port: int) -> str:
    if found.sure.has(protocol, port):
        return ALLOWED
    return UNDECIDED if found.possible.has(protocol, port) else DENIED


__all__ = [
    "ALLOWED",
    "DENIED",
    "DIRECTIONS",
    "EGRESS",
    "INGRESS",
    "UNDECIDED",
    "Engine",
    "PairVerdict",
    "Side",
    "language",
    "verdict",
]
