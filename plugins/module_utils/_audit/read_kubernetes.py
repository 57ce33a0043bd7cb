# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Kubernetes NetworkPolicy in the engine's form, and what is wrong with how one is written.

Source: pkg/apis/networking/v1 of Kubernetes (defaults.go, validation.go) and the API's documentation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .policy import ALLOW, CALICO_COPY, DEFAULT_STAGE, EGRESS, INGRESS, Peers, Policy, Problem, Ref, Rule
from .profiles import KUBERNETES, Profile
from .reader import Reader
from .sets import EVERYWHERE, PROTOCOLS, Addresses, Intervals, Ports, network
from .world import World

#: IANA service names, as container ports have them.
NAME = re.compile(r"^(?=.*[a-z])[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?$")
PEERS = {EGRESS: "to", INGRESS: "from"}
TYPES = {EGRESS: "Egress", INGRESS: "Ingress"}


def read(manifest: Mapping[str, Any], world: World, profile: Profile) -> tuple[Policy | None, list[Problem]]:
    """The policy (None: an API server refuses it) and its problems."""
    reader = _Reader(Ref.of(manifest), world, profile)
    return reader.result(reader.policy(manifest))


def directions(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """Which directions a policy isolates: absent or empty policyTypes mean Ingress, and Egress only with egress rules."""
    types = spec.get("policyTypes")
    if types:
        return tuple(direction for direction, name in TYPES.items() if name in types)
    return (INGRESS, EGRESS) if spec.get("egress") else (INGRESS,)


class _Reader(Reader):
    def policy(self, manifest: Mapping[str, Any]) -> Policy | None:
        spec = manifest.get("spec")
        if spec is None:
            spec = {}
        if not isinstance(spec, Mapping):
            self.bad("spec", "is no mapping")
            return None
        unknown = set(spec) - {"podSelector", "policyTypes", "ingress", "egress"}
        if unknown:
            self.bad("spec", f"unknown keys: {', '.join(sorted(map(str, unknown)))}", "look for a misspelt or wrongly indented key")
        types = spec.get("policyTypes")
        if types is not None and (
            not isinstance(types, list) or any(name not in TYPES.values() for name in types) or len(types) > 2
        ):
            self.bad("spec.policyTypes", f"{types!r} is no list of Ingress and Egress")
            return None
        if "podSelector" not in spec or spec["podSelector"] is None:
            selector: Any = {}  # a required struct: absent and null become empty, which takes every pod
        else:
            selector = spec["podSelector"]
        subjects = 0
        if self.selector(selector, "spec.podSelector"):
            subjects = self.world.labelled(selector) & self.world.namespace(self.ref.namespace or "default")
        isolated = directions(spec)
        rules: dict[str, tuple[Rule, ...] | None] = {EGRESS: None, INGRESS: None}
        for direction in (EGRESS, INGRESS):
            listed = tuple(self.rules(spec.get(direction), direction))
            if direction in isolated:
                rules[direction] = listed
        return Policy(
            ref=self.ref,
            language=KUBERNETES,
            subjects=subjects,
            egress=rules[EGRESS],
            ingress=rules[INGRESS],
            stage=DEFAULT_STAGE,
            order=(1000.0, f"{self.ref.namespace or 'default'}/{CALICO_COPY}{self.ref.name}"),
            isolates=isolated,
        )

    def rules(self, listed: Any, direction: str) -> Iterator[Rule]:
        if listed is None:
            return
        if not isinstance(listed, list):
            self.bad(f"spec.{direction}", "is no list of rules")
            return
        for index, item in enumerate(listed):
            path = f"{direction}[{index}]"
            if item is None:
                item = {}
            if not isinstance(item, Mapping):
                self.bad(path, "is no mapping")
                continue
            unknown = set(item) - {PEERS[direction], "ports"}
            if unknown:
                hint = "egress rules have `to`, ingress rules have `from`"
                self.bad(path, f"unknown keys: {', '.join(sorted(map(str, unknown)))}", hint)
            peers = self.peers(item.get(PEERS[direction]), path, direction)
            ports, named, doubtful = self.ports(item.get("ports"), path)
            yield Rule(ALLOW, peers, ports, named, index, path, doubtful)

    def peers(self, listed: Any, path: str, direction: str) -> Peers:
        """An absent or empty list is everybody, inside and outside."""
        if listed is None or listed == []:
            return Peers.sure(self.world.every, EVERYWHERE)
        if not isinstance(listed, list):
            self.bad(f"{path}.{PEERS[direction]}", "is no list of peers")
            return Peers()
        found = Peers()
        for index, item in enumerate(listed):
            found = found | self.peer(item, f"{path}.{PEERS[direction]}[{index}]")
        return found

    def peer(self, item: Any, path: str) -> Peers:
        if not isinstance(item, Mapping) or not item:
            self.bad(path, "names no peer", "name podSelector, namespaceSelector or ipBlock; to take everybody leave the list out")
            return Peers()
        unknown = set(item) - {"podSelector", "namespaceSelector", "ipBlock"}
        if unknown:
            self.bad(path, f"unknown keys: {', '.join(sorted(map(str, unknown)))}")
            return Peers()
        block, pods, spaces = item.get("ipBlock"), item.get("podSelector"), item.get("namespaceSelector")
        if block is not None:
            if pods is not None or spaces is not None:
                self.bad(path, "ipBlock beside a selector", "write two list items")
                return Peers()
            addresses = self.block(block, f"{path}.ipBlock")
            return by_address(addresses, self.world, self.profile)
        if pods is None and spaces is None:
            self.bad(path, "names no peer")
            return Peers()
        mask = self.world.pods
        if spaces is not None:
            mask &= self.world.in_namespaces(spaces) if self.selector(spaces, f"{path}.namespaceSelector") else 0
        else:
            mask &= self.world.namespace(self.ref.namespace or "default")
        if pods is not None:
            mask &= self.world.labelled(pods) if self.selector(pods, f"{path}.podSelector") else 0
        return Peers.sure(mask)

    def block(self, block: Any, path: str) -> Addresses:
        if not isinstance(block, Mapping) or not isinstance(block.get("cidr"), str):
            self.bad(path, "needs a cidr")
            return Addresses()
        base = network(block["cidr"])
        if base is None or "/" not in block["cidr"]:
            self.bad(f"{path}.cidr", f"{_short(block['cidr'])} is no CIDR", "an address is written with /32 or /128")
            return Addresses()
        if str(base) != block["cidr"] and ":" not in block["cidr"]:
            message = f"{block['cidr']} has host bits set: it means {base}"
            self.problems.append(Problem("host-bits", "info", self.ref, path, message, f"write {base}"))
        listed = block.get("except") or []
        if not isinstance(listed, list):
            self.bad(f"{path}.except", "is no list")
            return Addresses()
        cut = []
        for index, text in enumerate(listed):
            item = network(text) if isinstance(text, str) else None
            inside = f"{path}.except[{index}]"
            if item is None:
                self.bad(inside, f"{_short(text)} is no CIDR")
            elif item.version != base.version or item.prefixlen <= base.prefixlen or item not in _within(base, item):
                self.bad(inside, f"{item} is not strictly inside {base}")
            else:
                cut.append(item)
        return Addresses.of([base]) - Addresses.of(cut)

    def ports(self, listed: Any, path: str) -> tuple[Ports, tuple[tuple[str, str], ...], bool]:
        """An absent or empty list is every port of every protocol, ICMP included; a list never takes ICMP."""
        if listed is None or listed == []:
            return Ports.whole(), (), False
        if not isinstance(listed, list):
            self.bad(f"{path}.ports", "is no list of ports")
            return Ports(), (), False
        found: dict[str, list[tuple[int, int]]] = {}
        named: list[tuple[str, str]] = []
        doubtful = False
        for index, item in enumerate(listed):
            where = f"{path}.ports[{index}]"
            if item is None:
                item = {}
            if not isinstance(item, Mapping):
                self.bad(where, "is no mapping")
                continue
            protocol = item.get("protocol") or "TCP"
            if protocol not in PROTOCOLS or protocol == "ICMP":
                self.bad(
                    where,
                    f"protocol {_short(protocol)}: a NetworkPolicy knows TCP, UDP and SCTP",
                    "ICMP needs the CNI's own policy",
                )
                continue
            port, end = item.get("port"), item.get("endPort")
            if end is not None and (not _number(port) or not _number(end) or end < port):
                self.bad(where, "endPort needs a numeric port that is not greater")
            elif port is None:
                found.setdefault(protocol, []).append((0, 65535))
            elif _number(port):
                found.setdefault(protocol, []).append((port, end if end is not None else port))
                doubtful |= end is not None and self.profile.end_port is None
            elif isinstance(port, str) and NAME.match(port):
                named.append((protocol, port))
            else:
                self.bad(where, f"{_short(port)} is no port", "a number is written without quotes")
            doubtful |= protocol == "SCTP" and self.profile.sctp is None and len(listed) == 1
        ports = Ports({protocol: Intervals.of(parts) for protocol, parts in found.items()})
        return ports, tuple(dict.fromkeys(named)), doubtful

    def selector(self, selector: Any, path: str) -> bool:
        """Whether a label selector is well formed; its faults are noted."""
        faults = list(selector_faults(selector))
        for message in faults:
            self.bad(path, message)
        return not faults


def selector_faults(selector: Any) -> Iterator[str]:
    if not isinstance(selector, Mapping):
        yield "is no label selector"
        return
    unknown = set(selector) - {"matchLabels", "matchExpressions"}
    if unknown:
        yield f"unknown keys: {', '.join(sorted(map(str, unknown)))} (labels stand under matchLabels)"
    labels = selector.get("matchLabels")
    if labels is not None and (not isinstance(labels, Mapping) or any(not isinstance(value, str) for value in labels.values())):
        yield "matchLabels is no mapping of strings (quote numbers and booleans)"
    expressions = selector.get("matchExpressions")
    if expressions is None:
        return
    if not isinstance(expressions, list):
        yield "matchExpressions is no list"
        return
    for item in expressions:
        if not isinstance(item, Mapping) or not isinstance(item.get("key"), str):
            yield "an expression without key"
            continue
        operator, values = item.get("operator"), item.get("values")
        if operator not in ("In", "NotIn", "Exists", "DoesNotExist"):
            yield f"{_short(operator)} is no operator"
        elif operator in ("In", "NotIn") and (
            not isinstance(values, list) or not values or any(not isinstance(value, str) for value in values)
        ):
            yield f"{operator} needs values (strings)"
        elif operator in ("Exists", "DoesNotExist") and values:
            yield f"{operator} takes no values"


def by_address(addresses: Addresses, world: World, profile: Profile, version: int = 0) -> Peers:
    """Who an address range means under a CNI: some match pods and nodes by address, some never do.

    `version`: the rule is about one family's packets, so that a pod's addresses of the other do not count.
    """
    outside, outside_maybe = addresses, addresses
    pods, pods_maybe = 0, 0
    if profile.ipblock_pods is False:
        outside = outside - world.pod_range
        outside_maybe = outside
    else:
        sure, maybe = world.with_address_in(addresses, version)
        pods, pods_maybe = (sure, maybe) if profile.ipblock_pods else (0, maybe)
        if profile.ipblock_pods is None:
            outside = outside - world.pod_range
    nodes = world.node_addresses | world.api_addresses | world.local_resolver
    if profile.ipblock_nodes is not True and nodes:
        outside = outside - nodes
        if profile.ipblock_nodes is False:
            outside_maybe = outside_maybe - nodes
    return Peers(pods, outside, pods_maybe, outside_maybe)


def _within(base: Any, item: Any) -> tuple[Any, ...]:
    return (item,) if item.subnet_of(base) else ()


def _number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 65535


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
