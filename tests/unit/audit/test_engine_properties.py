# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine against an evaluator that asks every policy about every flow, written from the API's documentation alone."""

from __future__ import annotations

import ipaddress
from typing import Any

from ansible_collections.homelab.netguard.plugins.module_utils._audit.sets import Addresses, Intervals
from audit_shapes import deployment, engine, namespace, policy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

KEYS, VALUES = ("app", "tier"), ("a", "b", "c")
SPACES = ("one", "two")
NAMES = ("web", "sql")
NUMBERS = (80, 443, 5432)
ADDRESSES = ("10.42.0.1", "10.42.0.2", "10.42.0.3", "10.42.0.4", "1.1.1.1", "192.0.2.77", "198.51.100.1", "2606:4700::1")
CIDRS = ("0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "10.42.0.0/16", "10.42.0.2/31", "1.1.1.0/24", "::/0", "192.0.2.0/24")

labels = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES))
expression = st.one_of(
    st.fixed_dictionaries(
        {
            "key": st.sampled_from(KEYS),
            "operator": st.sampled_from(("In", "NotIn")),
            "values": st.lists(st.sampled_from(VALUES), min_size=1, max_size=2),
        }
    ),
    st.fixed_dictionaries({"key": st.sampled_from(KEYS), "operator": st.sampled_from(("Exists", "DoesNotExist"))}),
)
selector = st.fixed_dictionaries({}, optional={"matchLabels": labels, "matchExpressions": st.lists(expression, max_size=2)})
space = st.sampled_from(
    [{}, *({"matchLabels": {"kubernetes.io/metadata.name": name}} for name in SPACES), {"matchLabels": {"team": "x"}}]
)


@st.composite
def block(draw: Any) -> dict[str, Any]:
    cidr = draw(st.sampled_from(CIDRS))
    base = ipaddress.ip_network(cidr)
    inside = [
        text
        for text in CIDRS
        if (item := ipaddress.ip_network(text)).version == base.version and item != base and item.subnet_of(base)  # type: ignore[arg-type]
    ]
    left_out = draw(st.lists(st.sampled_from(inside), max_size=2)) if inside else []
    return {"ipBlock": {"cidr": cidr, **({"except": left_out} if left_out else {})}}


peer = st.one_of(
    block(),
    st.fixed_dictionaries({"podSelector": selector}),
    st.fixed_dictionaries({"namespaceSelector": space}),
    st.fixed_dictionaries({"namespaceSelector": space, "podSelector": selector}),
)
port = st.one_of(
    st.fixed_dictionaries({}, optional={"protocol": st.sampled_from(("TCP", "UDP")), "port": st.sampled_from((*NUMBERS, *NAMES))}),
    st.just({"port": 80, "endPort": 500}),
)


def rule(side: str) -> Any:
    return st.fixed_dictionaries({}, optional={side: st.lists(peer, max_size=2), "ports": st.lists(port, max_size=2)})


spec = st.fixed_dictionaries(
    {"podSelector": selector},
    optional={
        "policyTypes": st.lists(st.sampled_from(("Ingress", "Egress")), unique=True),
        "ingress": st.lists(rule("from"), max_size=2),
        "egress": st.lists(rule("to"), max_size=2),
    },
)
pod = st.tuples(st.sampled_from(SPACES), labels, st.sampled_from(NUMBERS))
PODS = st.lists(pod, min_size=2, max_size=4)
POLICIES = st.lists(st.tuples(st.sampled_from(SPACES), spec), max_size=4)


class Plain:
    """Every question asked of every policy, one flow at a time."""

    def __init__(self, pods: list[Any], policies: list[Any]) -> None:
        self.pods, self.policies = pods, policies

    def selects(self, found: dict[str, Any], own: dict[str, str]) -> bool:
        for key, value in (found.get("matchLabels") or {}).items():
            if own.get(key) != value:
                return False
        for item in found.get("matchExpressions") or []:
            has, value = item["key"] in own, own.get(item["key"])
            if item["operator"] == "In" and not (has and value in item["values"]):
                return False
            if item["operator"] == "NotIn" and has and value in item["values"]:
                return False
            if item["operator"] == "Exists" and not has:
                return False
            if item["operator"] == "DoesNotExist" and has:
                return False
        return True

    def labels(self, index: int) -> dict[str, str]:
        labels: dict[str, str] = self.pods[index][1]
        return labels

    def space(self, name: str) -> dict[str, str]:
        return {"kubernetes.io/metadata.name": name, **({"team": "x"} if name == "two" else {})}

    def peer(self, item: dict[str, Any], policy_space: str, other: int | None, address: str) -> bool:
        if "ipBlock" in item:
            where = ipaddress.ip_address(address)
            if where not in ipaddress.ip_network(item["ipBlock"]["cidr"]):
                return False
            return not any(where in ipaddress.ip_network(text) for text in item["ipBlock"].get("except", []))
        if other is None:
            return False
        name = self.pods[other][0]
        if "namespaceSelector" in item:
            if not self.selects(item["namespaceSelector"], self.space(name)):
                return False
        elif name != policy_space:
            return False
        return "podSelector" not in item or self.selects(item["podSelector"], self.labels(other))

    def port(self, item: dict[str, Any], holder: int | None, protocol: str, number: int) -> bool:
        if item.get("protocol", "TCP") != protocol:
            return False
        wanted = item.get("port")
        if wanted is None:
            return True
        if isinstance(wanted, str):
            return holder is not None and wanted == "web" and protocol == "TCP" and self.pods[holder][2] == number
        return wanted <= number <= int(item.get("endPort", wanted))

    def allows(self, index: int, direction: str, other: int | None, address: str, protocol: str, number: int) -> bool:
        isolated = False
        holder = other if direction == "egress" else index
        for where, found in self.policies:
            if where != self.pods[index][0] or not self.selects(found["podSelector"], self.labels(index)):
                continue
            types = found.get("policyTypes") or ["Ingress", *(["Egress"] if found.get("egress") else [])]
            if direction.capitalize() not in types:
                continue
            isolated = True
            for item in found.get(direction) or []:
                peers = item.get("to" if direction == "egress" else "from")
                if peers and not any(self.peer(one, where, other, address) for one in peers):
                    continue
                ports = item.get("ports")
                if not ports or any(self.port(one, holder, protocol, number) for one in ports):
                    return True
        return not isolated


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PODS, POLICIES)
def test_the_engine_says_what_the_documentation_says(pods: list[Any], policies: list[Any]) -> None:
    objects: list[Any] = [namespace("two", team="x"), namespace("one")]
    for place, (where, own, number) in enumerate(pods):
        objects += deployment(f"p{place}", where, ip=ADDRESSES[place], ports=[("web", number)])
        for item in objects[-2:]:
            template = item["spec"]["template"]["metadata"] if item["kind"] == "Deployment" else item["metadata"]
            template["labels"].pop("app")
            template["labels"].update(own)
    objects += [policy(f"n{place}", where, **found) for place, (where, found) in enumerate(policies)]
    plain, found = Plain(pods, policies), engine(objects, "kindnet")
    places = {one.name.split("/")[2]: index for index, one in enumerate(found.world.endpoints)}
    assert len(places) == len(pods) + 1, "and the DNS"
    flows = [("TCP", 80), ("TCP", 443), ("TCP", 5432), ("UDP", 80), ("TCP", 501), ("UDP", 7)]
    for source in range(len(pods)):
        for protocol, number in flows:
            for target in range(len(pods)):
                if source != target:
                    wanted = plain.allows(source, "egress", target, ADDRESSES[target], protocol, number)
                    wanted = wanted and plain.allows(target, "ingress", source, ADDRESSES[source], protocol, number)
                    pair = found.pair(places[f"p{source}"], places[f"p{target}"])
                    assert pair.possible.has(protocol, number) is pair.sure.has(protocol, number) is wanted
            for address in ADDRESSES[4:]:
                for direction in ("egress", "ingress"):
                    wanted = plain.allows(source, direction, None, address, protocol, number)
                    side = found.side(places[f"p{source}"], direction)
                    assert side.sure.address(ipaddress.ip_address(address)).has(protocol, number) is wanted


intervals = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 8)), max_size=5)


def members(found: Intervals) -> set[int]:
    return {number for first, last in found.parts for number in range(first, last + 1)}


@settings(max_examples=200, deadline=None)
@given(intervals, intervals)
def test_intervals_are_sets(one: list[tuple[int, int]], two: list[tuple[int, int]]) -> None:
    left, right = (Intervals.of((first, first + length) for first, length in item) for item in (one, two))
    assert members(left | right) == members(left) | members(right)
    assert members(left & right) == members(left) & members(right)
    assert members(left - right) == members(left) - members(right)
    assert all((number in left) == (number in members(left)) for number in range(50))
    assert all(before[1] + 1 < after[0] for before, after in zip((left | right).parts, (left | right).parts[1:], strict=False))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(CIDRS), max_size=4), st.lists(st.sampled_from(CIDRS), max_size=4))
def test_addresses_written_as_networks_are_the_same_addresses(one: list[str], two: list[str]) -> None:
    left, right = (Addresses.of(ipaddress.ip_network(text) for text in item) for item in (one, two))
    found = left - right
    assert Addresses.of(found.networks()) == found
    assert not found & right
    assert (found | (left & right)) == left
