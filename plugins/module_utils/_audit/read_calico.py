# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Calico's NetworkPolicy and GlobalNetworkPolicy with tiers and order. Source: Calico's reference of both resources and of Tier.

Within a tier, policies go by order and then by name; the first rule that matches decides; a pod that a tier's policies select
and none of their rules matched is treated as the tier's defaultAction says (Deny). Kubernetes' NetworkPolicies stand at order
1000 of the tier "default".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from . import calico_selector
from .endpoints import Endpoint
from .policy import ALLOW, DEFAULT_STAGE, DENY, EGRESS, INGRESS, PASS, Peers, Policy, Problem, Ref, Rule
from .profiles import CALICO, Profile
from .read_kubernetes import by_address
from .reader import Reader
from .sets import EVERY_PORT, EVERYWHERE, PROTOCOLS, Addresses, Intervals, Ports, network
from .world import World

ACTIONS = {"allow": ALLOW, "deny": DENY, "pass": PASS, "next-tier": PASS, "log": ""}
LAST = float("inf")
NUMBERS = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMP", 132: "SCTP"}
ICMP_NAMES = {"ICMP": 4, "ICMPv6": 6}


def tiers(manifests: tuple[Mapping[str, Any], ...]) -> dict[str, tuple[float, str]]:
    """(order, default action) by name of every tier; the built-in ones where no object says otherwise."""
    found = {"default": (DEFAULT_STAGE, DENY)}
    for item in manifests:
        told = item.get("spec")
        spec: Mapping[str, Any] = told if isinstance(told, Mapping) else {}
        order = spec.get("order")
        action = PASS if str(spec.get("defaultAction", "Deny")).lower() == "pass" else DENY
        known = found.get(item["metadata"]["name"], (LAST, DENY))[0]
        found[item["metadata"]["name"]] = (float(order) if isinstance(order, (int, float)) else known, action)
    return found


def rank(ref: Ref, tier: str) -> str:
    """What decides where orders are the same: felix's own name of a policy, the namespace first (PolKVLess in felix/calc)."""
    prefix = f"{tier}."
    name = ref.name if ref.name.startswith(prefix) else prefix + ref.name
    return f"{ref.namespace or 'default'}/{name}" if ref.kind == "NetworkPolicy" else name


def read(
    manifest: Mapping[str, Any], world: World, profile: Profile, known: Mapping[str, tuple[float, str]]
) -> tuple[Policy | None, list[Problem]]:
    """The policy and its problems; what cannot be read makes it a doubtful one, never a silent one."""
    reader = _Reader(Ref.of(manifest), world, profile)
    spec = reader.spec_of(manifest)
    return reader.result(None if spec is None else reader.policy(spec, known))


class _Reader(Reader):
    def policy(self, spec: Mapping[str, Any], known: Mapping[str, tuple[float, str]]) -> Policy:
        world = self.world
        subjects = self.pods(spec.get("selector"), "spec.selector") if spec.get("selector") else world.pods
        if self.ref.kind == "NetworkPolicy":
            subjects &= world.namespace(self.ref.namespace or "default")
        elif spec.get("namespaceSelector"):
            subjects &= self.spaces(spec["namespaceSelector"], "spec.namespaceSelector")
        tier = str(spec.get("tier") or "default")
        certain = not spec.get("serviceAccountSelector") and tier in known
        if tier not in known:
            self.problems.append(Problem("unknown-tier", "warning", self.ref, "spec.tier", f"there is no tier {tier!r}"))
        stage, end = known.get(tier, (LAST, DENY))
        order = spec.get("order")
        rules = {direction: tuple(self.rules(spec.get(direction), direction)) for direction in (EGRESS, INGRESS)}
        types = spec.get("types")
        if isinstance(types, list) and types:
            spoken = tuple(direction for direction in (EGRESS, INGRESS) if direction.capitalize() in types)
        else:
            spoken = (EGRESS,) if rules[EGRESS] and not rules[INGRESS] else (INGRESS,) if not rules[EGRESS] else (EGRESS, INGRESS)
        return Policy(
            ref=self.ref,
            language=CALICO,
            subjects=subjects,
            egress=rules[EGRESS] if EGRESS in spoken else None,
            ingress=rules[INGRESS] if INGRESS in spoken else None,
            stage=stage,
            order=(float(order) if isinstance(order, (int, float)) else LAST, rank(self.ref, tier)),
            isolates=spoken,
            certain=certain,
            end=end,
        )

    def pods(self, text: Any, path: str) -> int:
        test = self.test(text, path)
        return self.world.pods_where(lambda one: test(_labels(one)))

    def spaces(self, text: Any, path: str, *, rule: bool = False) -> int:
        """Pods of the namespaces that a selector takes."""
        test = self.test(text, path, spaces=rule)
        names = {name for name, labels in self.world.namespaces.items() if test({**labels, "projectcalico.org/name": name})}
        return self.world.pods_where(lambda one: one.namespace in names)

    def test(self, text: Any, path: str, *, spaces: bool = False) -> calico_selector.Test:
        try:
            return calico_selector.parse(str(text) if text is not None else "", spaces=spaces)
        except calico_selector.SelectorError as error:
            self.bad(path, f"{str(text)[:80]!r} is no selector: {error}")
            return lambda _labels: False

    def rules(self, listed: Any, direction: str) -> Iterator[Rule]:
        for index, item in enumerate(listed if isinstance(listed, list) else []):
            path = f"{direction}[{index}]"
            if not isinstance(item, Mapping):
                self.bad(path, "is no mapping")
                continue
            action = ACTIONS.get(str(item.get("action", "")).lower())
            if action is None:
                self.bad(f"{path}.action", f"{item.get('action')!r} is no action")
            elif action:
                yield self.rule(item, action, direction, index, path)

    def rule(self, item: Mapping[str, Any], action: str, direction: str, index: int, path: str) -> Rule:
        far, near = ("destination", "source") if direction == EGRESS else ("source", "destination")
        entity, other = item.get(far) or {}, item.get(near) or {}
        version = item.get("ipVersion") or ICMP_NAMES.get(str(item.get("protocol")))
        version = version if version in (4, 6) else 0
        peers = self.peers(entity if isinstance(entity, Mapping) else {}, f"{path}.{far}", version)
        peers = self.family(peers, item)
        ports_of = entity if direction == EGRESS else other
        ports, named, doubtful = self.ports(item, ports_of if isinstance(ports_of, Mapping) else {}, path)
        # What the rule asks of our own side, of the source's port or of the content may or may not hold.
        own = {key for key, value in other.items() if value} - ({"ports", "notPorts"} if direction == INGRESS else set())
        beside = {key for key in ("ports", "notPorts") if direction == INGRESS and entity.get(key)}
        if own or beside or item.get("http") or item.get("icmp") or item.get("notICMP") or item.get("notProtocol") is not None:
            doubtful = True
        return Rule(action, peers, ports, named, index, path, doubtful)

    def peers(self, entity: Mapping[str, Any], path: str, version: int) -> Peers:
        world = self.world
        everything = Peers.sure(world.every, EVERYWHERE)
        found = everything
        nets, not_nets = self.nets(entity.get("nets"), f"{path}.nets"), self.nets(entity.get("notNets"), f"{path}.notNets")
        if entity.get("nets"):
            found = found & by_address(nets, world, self.profile, version)
        if entity.get("notNets"):
            found = found.without(by_address(not_nets, world, self.profile, version))
        if entity.get("selector") or entity.get("namespaceSelector") or entity.get("notSelector"):
            found = found & self.selected(entity, path)
        if entity.get("services"):
            found = found & Peers(0, Addresses(), world.pods, EVERYWHERE)
        if entity.get("serviceAccounts") or entity.get("domains"):
            found = found.doubtful()
        return found

    def selected(self, entity: Mapping[str, Any], path: str) -> Peers:
        """Pods by selector. In a namespaced policy a selector alone stays in its namespace; network sets are addresses."""
        world = self.world
        spaces = entity.get("namespaceSelector")
        mask, addresses = world.pods, Addresses()
        if entity.get("selector"):
            mask &= self.pods(entity["selector"], f"{path}.selector")
        if entity.get("notSelector"):
            mask &= ~self.pods(entity["notSelector"], f"{path}.notSelector")
        if spaces:
            mask &= self.spaces(spaces, f"{path}.namespaceSelector", rule=True)
        elif self.ref.kind == "NetworkPolicy":
            mask &= world.namespace(self.ref.namespace or "default")
        if entity.get("selector") and (not spaces or "global()" in str(spaces)):
            test = self.test(entity["selector"], f"{path}.selector")
            for item in (*world.live.all("GlobalNetworkSet"), *world.live.all("NetworkSet", self.ref.namespace)):
                if test(item["metadata"].get("labels") or {}):
                    addresses = addresses | self.nets((item.get("spec") or {}).get("nets"), "nets")
        return Peers.sure(mask) | by_address(addresses, world, self.profile) if addresses else Peers.sure(mask)

    def nets(self, listed: Any, path: str) -> Addresses:
        found = []
        for text in listed if isinstance(listed, list) else []:
            item = network(str(text))
            if item is None:
                self.bad(path, f"{str(text)[:60]!r} is no CIDR")
            else:
                found.append(item)
        return Addresses.of(found)

    def family(self, peers: Peers, item: Mapping[str, Any]) -> Peers:
        """A rule for one family: the other's addresses are out, and pods count as far as the cluster has that family."""
        version = item.get("ipVersion") or ICMP_NAMES.get(str(item.get("protocol")))
        if version not in (4, 6) or (item.get("protocol") == "ICMP" and not item.get("ipVersion") and not self.world.families[6]):
            return peers
        one = Addresses(EVERYWHERE.v4, Addresses().v6) if version == 4 else Addresses(Addresses().v4, EVERYWHERE.v6)
        only = not self.world.families[6 if version == 4 else 4]
        has = self.world.families[version]
        return peers & Peers(self.world.every if has and only else 0, one, self.world.every if has else 0, one)

    def ports(
        self, item: Mapping[str, Any], entity: Mapping[str, Any], path: str
    ) -> tuple[Ports, tuple[tuple[str, str], ...], bool]:
        protocol = item.get("protocol")
        if protocol is None:
            protocols: tuple[str, ...] = PROTOCOLS
        elif isinstance(protocol, int):
            protocols = (NUMBERS[protocol],) if protocol in NUMBERS else ()
        elif str(protocol) in ICMP_NAMES:
            protocols = ("ICMP",)
        else:
            protocols = (str(protocol),) if str(protocol) in PROTOCOLS else ()
        with_ports = tuple(name for name in protocols if name != "ICMP")
        listed, denied = entity.get("ports"), entity.get("notPorts")
        if not listed and not denied:
            return Ports.whole(*protocols) if protocols else Ports(), (), False
        numbers, names = self.numbers(listed, f"{path}.ports")
        cut, cut_names = self.numbers(denied, f"{path}.notPorts")
        left = (numbers if listed else EVERY_PORT) - cut
        named = tuple((name, text) for name in with_ports for text in names)
        return Ports(dict.fromkeys(with_ports, left)), named, bool(cut_names)

    def numbers(self, listed: Any, path: str) -> tuple[Intervals, list[str]]:
        parts: list[tuple[int, int]] = []
        names: list[str] = []
        for item in listed if isinstance(listed, list) else []:
            first, colon, last = str(item).partition(":")
            if first.isdigit() and (not colon or last.isdigit()):
                low, high = int(first), int(last) if colon else int(first)
                if low > high or high > 65535:
                    self.bad(path, f"{item!r} is no range of ports")
                else:
                    parts.append((low, high))
            else:
                names.append(str(item))
        return Intervals.of(parts), names


def _labels(one: Endpoint) -> dict[str, str]:
    return {
        **one.labels,
        "projectcalico.org/namespace": one.namespace,
        "projectcalico.org/orchestrator": "k8s",
        "projectcalico.org/serviceaccount": one.service_account,
    }
