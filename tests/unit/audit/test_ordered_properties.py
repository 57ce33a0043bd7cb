# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Policies with order, tiers, passes and denies: the engine against evaluators that walk them rule by rule for one flow.

Each evaluator is written from the documentation of its API: Calico's tiers and order, the Admin and Baseline tiers,
Cilium's denies.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from audit_shapes import ask, custom, deployment, engine, policy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PODS = [
    *deployment("one", ip="10.42.0.1", side="left"),
    *deployment("two", ip="10.42.0.2", side="right"),
    *deployment("far", "b", ip="10.42.0.3", side="right"),
]
LABELS = {"a/one": "left", "a/two": "right", "b/far": "right"}
ADDRESSES = {"a/one": "10.42.0.1", "a/two": "10.42.0.2", "b/far": "10.42.0.3"}
OUTSIDE = ("1.1.1.1", "198.51.100.7")
NETS = ("10.42.0.0/16", "10.42.0.2/31", "1.1.1.0/24", "0.0.0.0/0")
PORTS = (80, 443)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

ports = st.lists(st.sampled_from(PORTS), max_size=1)
peer = st.one_of(st.tuples(st.just("net"), st.sampled_from(NETS)), st.tuples(st.just("side"), st.sampled_from(("left", "right"))))
plain = st.lists(st.tuples(peer, ports), max_size=2)


def fits(item: tuple[str, str], target: str) -> bool:
    kind, value = item
    if kind == "side":
        return LABELS.get(target) == value
    return ipaddress.ip_address(ADDRESSES.get(target, target)) in ipaddress.ip_network(value)


def matches(rule: tuple[Any, ...], target: str, port: int) -> bool:
    return fits(rule[-2], target) and (not rule[-1] or port in rule[-1])


def network_policy(rules: list[Any]) -> dict[str, Any]:
    """For pod `one`, egress."""

    def to(item: tuple[str, str]) -> dict[str, Any]:
        if item[0] == "net":
            return {"ipBlock": {"cidr": item[1]}}
        return {"namespaceSelector": {}, "podSelector": {"matchLabels": {"side": item[1]}}}

    egress = [
        {"to": [to(item)], **({"ports": [{"port": number} for number in numbers]} if numbers else {})} for item, numbers in rules
    ]
    found: dict[str, Any] = policy("plain", podSelector={"matchLabels": {"app": "one"}}, policyTypes=["Egress"], egress=egress)
    return found


def compare(objects: list[Any], profile: str, wanted: Any) -> None:
    found = engine([*PODS, *objects], profile)
    assert not [problem for problem in found.problems if problem.rejected]
    for target in ("a/two", "b/far", *OUTSIDE):
        for port in PORTS:
            expected = "allowed" if wanted(target, port) else "denied"
            assert ask(found, "a/one", target, f"{port}/tcp") == expected, (target, port)


calico_rules = st.lists(st.tuples(st.sampled_from(("Allow", "Deny", "Pass")), peer, ports), max_size=3)
calico = st.lists(st.tuples(st.sampled_from(("first", "default")), st.sampled_from((5, 500, 2000)), calico_rules), max_size=3)


@QUICK
@given(calico, st.none() | plain, st.sampled_from(("Deny", "Pass")))
def test_calico(found: list[Any], kubernetes: list[Any] | None, end: str) -> None:
    """Tiers by order; in a tier policies by order, then name; the first match decides; the tier's end for who was selected."""
    objects = [custom("projectcalico.org/v3", "Tier", "first", {"order": 10, "defaultAction": end})]
    tiers: dict[str, list[tuple[Any, str, list[Any]]]] = {"first": [], "default": []}
    for place, (tier, order, rules) in enumerate(found):
        egress = []
        for action, item, numbers in rules:
            if item[0] == "net":
                destination: dict[str, Any] = {"nets": [item[1]]}
            else:
                destination = {"selector": f"side == '{item[1]}'", "namespaceSelector": "all()"}
            egress.append(
                {"action": action, "protocol": "TCP", "destination": destination | ({"ports": list(numbers)} if numbers else {})}
            )
        spec = {"tier": tier, "order": order, "selector": "app == 'one'", "types": ["Egress"], "egress": egress}
        objects.append(custom("projectcalico.org/v3", "GlobalNetworkPolicy", f"g{place}", spec))
        tiers[tier].append((order, f"g{place}", list(rules)))
    if kubernetes is not None:
        objects.append(network_policy(kubernetes))
        tiers["default"].append((1000, "plain", [("Allow", *rule) for rule in kubernetes]))

    def wanted(target: str, port: int) -> bool:
        for name, last in (("first", end), ("default", "Deny")):
            if not tiers[name]:
                continue
            for _order, _name, rules in sorted(tiers[name], key=lambda item: item[:2]):
                action = next((rule[0] for rule in rules if matches(rule, target, port)), None)
                if action is not None:
                    break
            else:
                action = last
            if action != "Pass":
                return bool(action == "Allow")
        return True  # no tier decided: the profile of a namespace allows

    compare(objects, "calico", wanted)


tiered_rules = st.lists(st.tuples(st.sampled_from(("Accept", "Deny", "Pass")), peer, ports), min_size=1, max_size=3)
tiered = st.lists(tiered_rules, max_size=2)


@QUICK
@given(tiered, tiered, st.none() | plain, st.booleans())
def test_the_tiers_around_network_policy(admin: list[Any], baseline: list[Any], kubernetes: list[Any] | None, old: bool) -> None:
    """Admin by priority; then NetworkPolicy, final where it isolates; then Baseline; else allowed."""
    objects: list[Any] = [] if kubernetes is None else [network_policy(kubernetes)]
    if old:
        baseline = baseline[:1]
    for tier, listed in (("Admin", admin), ("Baseline", baseline)):
        for priority, rules in enumerate(listed):
            egress = []
            for action, item, numbers in rules:
                to = (
                    {"networks": [item[1]]}
                    if item[0] == "net"
                    else {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"side": item[1]}}}}
                )
                rule: dict[str, Any] = {"action": action, "to": [to]}
                if old:
                    rule["action"] = {"Accept": "Allow"}.get(action, action)
                    if numbers:
                        rule["ports"] = [{"portNumber": {"protocol": "TCP", "port": number}} for number in numbers]
                elif numbers:
                    rule["protocols"] = [{"tcp": {"destinationPort": {"number": number}}} for number in numbers]
                egress.append(rule)
            subject = {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "one"}}}}
            spec: dict[str, Any] = {"priority": priority, "subject": subject, "egress": egress}
            kind = "ClusterNetworkPolicy"
            if old:
                kind = "AdminNetworkPolicy" if tier == "Admin" else "BaselineAdminNetworkPolicy"
            else:
                spec["tier"] = tier
            version = "policy.networking.k8s.io/v1alpha1" if old else "policy.networking.k8s.io/v1alpha2"
            objects.append(custom(version, kind, f"{tier.lower()}{priority}", spec))

    def decided(listed: list[Any], target: str, port: int) -> str | None:
        return next((rule[0] for rules in listed for rule in rules if matches(rule, target, port)), None)

    def wanted(target: str, port: int) -> bool:
        action = decided(admin, target, port)
        if action in ("Accept", "Deny"):
            return action == "Accept"
        if kubernetes is not None:
            return any(matches(rule, target, port) for rule in kubernetes)
        return decided(baseline, target, port) != "Deny"

    compare(objects, "kindnet", wanted)


cilium_peer = st.one_of(
    st.tuples(st.just("net"), st.sampled_from(NETS)),
    st.tuples(st.just("side"), st.sampled_from(("left", "right"))),
    st.tuples(st.just("entity"), st.sampled_from(("world", "cluster", "all"))),
)
cilium_rules = st.lists(st.tuples(cilium_peer, ports), max_size=2)


@QUICK
@given(st.lists(st.tuples(cilium_rules, cilium_rules, st.sampled_from((None, True, False))), max_size=3))
def test_cilium(found: list[Any]) -> None:
    """A deny beats every allow; one policy with rules isolates, unless it says otherwise; a CIDR never means a pod."""
    objects = []
    for place, (allowed, denied, default) in enumerate(found):
        spec: dict[str, Any] = {"endpointSelector": {"matchLabels": {"app": "one"}}}
        for key, rules in (("egress", allowed), ("egressDeny", denied)):
            if rules:
                spec[key] = []
            for item, numbers in rules:
                rule: dict[str, Any] = {
                    "net": {"toCIDR": [item[1]]},
                    "side": {
                        "toEndpoints": [
                            {"matchLabels": {"k8s:side": item[1], "k8s:io.kubernetes.pod.namespace": name}} for name in "ab"
                        ]
                    },
                    "entity": {"toEntities": [item[1]]},
                }[item[0]]
                if numbers:
                    rule["toPorts"] = [{"ports": [{"port": str(number), "protocol": "TCP"} for number in numbers]}]
                spec[key].append(rule)
        if default is not None:
            spec["enableDefaultDeny"] = {"egress": default, "ingress": False}
        objects.append(custom("cilium.io/v2", "CiliumNetworkPolicy", f"c{place}", spec, "a"))

    def named(item: tuple[str, str], target: str) -> bool:
        pod = target in LABELS
        if item[0] == "side":
            return LABELS.get(target) == item[1]
        if item[0] == "entity":
            return item[1] == "all" or (item[1] == "cluster") == pod
        return not pod and ipaddress.ip_address(target) in ipaddress.ip_network(item[1])

    def any_of(rules: list[Any], target: str, port: int) -> bool:
        return any(named(item, target) and (not numbers or port in numbers) for item, numbers in rules)

    def wanted(target: str, port: int) -> bool:
        if any(any_of(denied, target, port) for _allowed, denied, _default in found):
            return False
        isolated = any(default if default is not None else bool(allowed or denied) for allowed, denied, default in found)
        return not isolated or any(any_of(allowed, target, port) for allowed, _denied, _default in found)

    compare(objects, "cilium", wanted)
