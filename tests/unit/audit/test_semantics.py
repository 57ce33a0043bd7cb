# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a NetworkPolicy means, one named row per fact, and what each CNI makes of it."""

from __future__ import annotations

from typing import Any

import pytest
from audit_shapes import ask, custom, deployment, engine, facts, namespace, networks, policy

YES, NO, EITHER = "allowed", "denied", "implementation-defined"
PODS = [
    *deployment("one", ip="10.42.0.1", ports=[("web", 8080), ("dns", 53, "UDP")], tier="front"),
    *deployment("two", ip="10.42.0.2", ports=[("web", 80)]),
    *deployment("far", "b", ip="10.42.0.3", ports=[("web", 9090)], tier="front"),
    *deployment("host", "a", host=True),
    namespace("b", team="blue"),
]
ONE = {"matchLabels": {"app": "one"}}
FAR = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "b"}}}
PUBLIC = "1.1.1.1"

#: name: (spec of one policy in namespace a, [(source, destination, port, verdict)])
ROWS: dict[str, tuple[dict[str, Any], list[tuple[str, str, str, str]]]] = {
    "1 empty egress without policyTypes isolates ingress, not egress": (
        {"podSelector": ONE, "egress": []},
        [("a/one", PUBLIC, "443/tcp", YES), ("a/two", "a/one", "80/tcp", NO)],
    ),
    "1 egress rules without policyTypes isolate both": (
        {"podSelector": ONE, "egress": [{"to": [FAR]}]},
        [("a/one", PUBLIC, "443/tcp", NO), ("a/one", "b/far", "443/tcp", YES), ("a/two", "a/one", "80/tcp", NO)],
    ),
    "1 an empty list of policyTypes is none": (
        {"podSelector": ONE, "policyTypes": [], "egress": []},
        [("a/one", PUBLIC, "443/tcp", YES), ("a/two", "a/one", "80/tcp", NO)],
    ),
    "2 rules of a direction that policyTypes does not name are dead": (
        {"podSelector": ONE, "policyTypes": ["Egress"], "ingress": [{"from": [FAR]}], "egress": []},
        [("a/two", "a/one", "80/tcp", YES), ("a/one", PUBLIC, "443/tcp", NO)],
    ),
    "2 a named direction without rules is closed": (
        {"podSelector": ONE, "policyTypes": ["Ingress", "Egress"], "ingress": [{}]},
        [("a/one", PUBLIC, "443/tcp", NO), ("a/two", "a/one", "80/tcp", YES)],
    ),
    "3 an empty rule allows everything": (
        {"podSelector": ONE, "policyTypes": ["Egress"], "egress": [{}]},
        [("a/one", PUBLIC, "443/tcp", YES), ("a/one", PUBLIC, "icmp", YES)],
    ),
    "3 a rule without to is for everybody": (
        {"podSelector": ONE, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": 53, "protocol": "UDP"}]}]},
        [("a/one", PUBLIC, "53/udp", YES), ("a/one", PUBLIC, "53/tcp", NO), ("a/one", "b/far", "53/udp", YES)],
    ),
    "3 an empty to is for everybody": (
        {"podSelector": ONE, "policyTypes": ["Egress"], "egress": [{"to": [], "ports": [{"port": 53}]}]},
        [("a/one", PUBLIC, "53/tcp", YES), ("a/one", PUBLIC, "54/tcp", NO)],
    ),
    "6 a port without protocol is TCP": (
        {"podSelector": ONE, "policyTypes": ["Egress"], "egress": [{"to": [FAR], "ports": [{"port": 53}]}]},
        [("a/one", "b/far", "53/tcp", YES), ("a/one", "b/far", "53/udp", NO)],
    ),
    "6 a protocol without port is all of its ports": (
        {"podSelector": ONE, "policyTypes": ["Egress"], "egress": [{"to": [FAR], "ports": [{"protocol": "UDP"}]}]},
        [("a/one", "b/far", "1/udp", YES), ("a/one", "b/far", "65535/udp", YES), ("a/one", "b/far", "1/tcp", NO)],
    ),
    "7 endPort is a range": (
        {"podSelector": ONE, "policyTypes": ["Egress"], "egress": [{"to": [FAR], "ports": [{"port": 100, "endPort": 200}]}]},
        [("a/one", "b/far", "150/tcp", YES), ("a/one", "b/far", "200/tcp", YES), ("a/one", "b/far", "201/tcp", NO)],
    ),
    "8 host bits are masked": (
        {"podSelector": ONE, "policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": "203.0.113.213/24"}}]}]},
        [("a/one", "203.0.113.1", "80/tcp", YES), ("a/one", "203.0.114.1", "80/tcp", NO)],
    ),
    "8 except is no deny": (
        {
            "podSelector": ONE,
            "policyTypes": ["Egress"],
            "egress": [
                {"to": [{"ipBlock": {"cidr": "203.0.113.0/24", "except": ["203.0.113.0/28"]}}]},
                {"to": [{"ipBlock": {"cidr": "203.0.113.1/32"}}]},
            ],
        },
        [("a/one", "203.0.113.1", "80/tcp", YES), ("a/one", "203.0.113.2", "80/tcp", NO), ("a/one", "203.0.113.99", "80/tcp", YES)],
    ),
    "9 an empty podSelector is the whole namespace and no other": (
        {"policyTypes": ["Egress"]},
        [("a/one", PUBLIC, "1/tcp", NO), ("a/two", PUBLIC, "1/tcp", NO), ("b/far", PUBLIC, "1/tcp", YES)],
    ),
    "10 NotIn takes pods without the label": (
        {
            "podSelector": {"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["front"]}]},
            "policyTypes": ["Egress"],
        },
        [("a/one", PUBLIC, "1/tcp", YES), ("a/two", PUBLIC, "1/tcp", NO)],
    ),
    "10 DoesNotExist takes pods without the label": (
        {"podSelector": {"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, "policyTypes": ["Egress"]},
        [("a/one", PUBLIC, "1/tcp", YES), ("a/two", PUBLIC, "1/tcp", NO)],
    ),
    "10 all of labels and expressions must hold": (
        {
            "podSelector": {
                "matchLabels": {"app": "one"},
                "matchExpressions": [{"key": "tier", "operator": "In", "values": ["back", "side"]}],
            },
            "policyTypes": ["Egress"],
        },
        [("a/one", PUBLIC, "1/tcp", YES)],
    ),
    "10 a null namespaceSelector is none, an empty one every namespace": (
        {
            "podSelector": ONE,
            "policyTypes": ["Egress"],
            "egress": [{"to": [{"namespaceSelector": None, "podSelector": {"matchLabels": {"tier": "front"}}}]}],
        },
        [("a/one", "b/far", "1/tcp", NO)],
    ),
    "14 a flow needs both sides": (
        {"podSelector": {"matchLabels": {"app": "two"}}, "policyTypes": ["Ingress"], "ingress": [{"from": [FAR]}]},
        [("b/far", "a/two", "80/tcp", YES), ("a/one", "a/two", "80/tcp", NO), (PUBLIC, "a/two", "80/tcp", NO)],
    ),
    "15 podSelector alone is the policy's own namespace": (
        {"podSelector": ONE, "policyTypes": ["Egress"], "egress": [{"to": [{"podSelector": {}}]}]},
        [("a/one", "a/two", "1/tcp", YES), ("a/one", "b/far", "1/tcp", NO)],
    ),
    "15 both selectors in one item must hold": (
        {
            "podSelector": ONE,
            "policyTypes": ["Egress"],
            "egress": [{"to": [{**FAR, "podSelector": {"matchLabels": {"app": "other"}}}]}],
        },
        [("a/one", "b/far", "1/tcp", NO)],
    ),
    "15 two items are either": (
        {
            "podSelector": ONE,
            "policyTypes": ["Egress"],
            "egress": [{"to": [FAR, {"podSelector": {"matchLabels": {"app": "two"}}}]}],
        },
        [("a/one", "b/far", "1/tcp", YES), ("a/one", "a/two", "1/tcp", YES)],
    ),
    "15 selectors match no address outside and no pod of the node's network": (
        {"podSelector": ONE, "policyTypes": ["Egress"], "egress": [{"to": [{"namespaceSelector": {}}]}]},
        [("a/one", PUBLIC, "1/tcp", NO), ("a/one", "a/host", "1/tcp", NO), ("a/one", "b/far", "1/tcp", YES)],
    ),
    "16 a namespace's name is a label even where nobody wrote it": (
        {"podSelector": ONE, "policyTypes": ["Egress"], "egress": [{"to": [FAR]}]},
        [("a/one", "b/far", "1/tcp", YES)],
    ),
    "17 a named port is the destination's": (
        {
            "podSelector": ONE,
            "policyTypes": ["Egress"],
            "egress": [{"to": [{"namespaceSelector": {}}], "ports": [{"port": "web"}]}],
        },
        [("a/one", "a/two", "80/tcp", YES), ("a/one", "b/far", "9090/tcp", YES), ("a/one", "b/far", "80/tcp", NO)],
    ),
    "17 a named port is one protocol's": (
        {
            "podSelector": ONE,
            "policyTypes": ["Ingress"],
            "ingress": [{"ports": [{"port": "dns", "protocol": "UDP"}, {"port": "dns"}]}],
        },
        [("a/two", "a/one", "53/udp", YES), ("a/two", "a/one", "53/tcp", NO)],
    ),
    "17 a named port matches no address outside": (
        {"podSelector": ONE, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": "web"}]}]},
        [("a/one", PUBLIC, "80/tcp", NO), ("a/one", "a/two", "80/tcp", YES)],
    ),
    "20 a node reaches its own pods, and which node it is nobody says": (
        {"podSelector": ONE, "policyTypes": ["Ingress"]},
        [("a/host", "a/one", "8080/tcp", EITHER)],
    ),
    "21 a pod of the node's network is no subject": ({"policyTypes": ["Egress"]}, [("a/host", PUBLIC, "1/tcp", YES)]),
    "22 a rule with ports takes no ICMP": (
        {"podSelector": ONE, "policyTypes": ["Egress"], "egress": [{"to": [FAR], "ports": [{"port": 53}]}]},
        [("a/one", "b/far", "icmp", NO)],
    ),
    "22 a rule without ports takes ICMP": (
        {"podSelector": ONE, "policyTypes": ["Egress"], "egress": [{"to": [FAR]}]},
        [("a/one", "b/far", "icmp", YES)],
    ),
    "23 isolation is for both families": (
        {"podSelector": ONE, "policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]},
        [("a/one", PUBLIC, "1/tcp", YES), ("a/one", "2606:4700:4700::1111", "1/tcp", NO)],
    ),
    "27 two halves are the whole": (
        {
            "podSelector": ONE,
            "policyTypes": ["Egress"],
            "egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/1"}}, {"ipBlock": {"cidr": "128.0.0.0/1"}}]}],
        },
        [("a/one", PUBLIC, "1/tcp", YES), ("a/one", "203.0.113.5", "1/tcp", YES)],
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_semantics(name: str) -> None:
    spec, flows = ROWS[name]
    found = engine([*PODS, policy(**spec)])
    assert found.problems == [] or name.startswith("8 host bits")
    for source, destination, port, wanted in flows:
        assert ask(found, source, destination, port) == wanted, (source, destination, port)


def test_13_policies_add_up_and_order_never_matters() -> None:
    closed = policy("a-deny", podSelector=ONE, policyTypes=["Egress"])
    opened = policy("z-allow", podSelector={}, policyTypes=["Egress"], egress=[{"to": [FAR]}])
    for order in ([closed, opened], [opened, closed]):
        assert ask(engine([*PODS, *order]), "a/one", "b/far", "1/tcp") == YES


#: name: a spec that an API server refuses
REFUSED: dict[str, dict[str, Any]] = {
    "4 an empty peer": {"egress": [{"to": [{}]}]},
    "4 ipBlock beside a selector": {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}]},
    "2 an unknown policy type": {"policyTypes": ["Both"]},
    "6 ICMP": {"egress": [{"ports": [{"protocol": "ICMP"}]}]},
    "7 endPort with a named port": {"egress": [{"ports": [{"port": "web", "endPort": 90}]}]},
    "7 endPort without port": {"egress": [{"ports": [{"endPort": 90}]}]},
    "7 endPort before port": {"egress": [{"ports": [{"port": 91, "endPort": 90}]}]},
    "8 except as wide as cidr": {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}]}]},
    "8 except of the other family": {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["2001:db8::/32"]}}]}]},
    "8 an absurd CIDR": {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/99"}}]}]},
    "8 a range is no CIDR": {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.40.101-10.0.40.103"}}]}]},
    "10 Exists with values": {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}},
    "10 In without values": {"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
    "10 an unknown operator": {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Like", "values": ["b"]}]}},
    "labels beside matchLabels": {"podSelector": {"app": "one"}},
    "port 0": {"egress": [{"ports": [{"port": 0}]}]},
    "port 70000": {"egress": [{"ports": [{"port": 70000}]}]},
    "a rule that is a text": {"egress": ["all"]},
    "rules that are a mapping": {"egress": {"to": []}},
    "from in egress": {"egress": [{"from": []}]},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_an_api_server_refuses_is_a_problem(name: str) -> None:
    found = engine([*PODS, policy(**REFUSED[name])])
    assert [problem for problem in found.problems if problem.rejected], found.problems
    assert not found.policies


PODRANGE = {"podSelector": ONE, "policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": "10.42.0.0/16"}}]}]}
NODES = {"podSelector": ONE, "policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}]}
DENIED = {"podSelector": ONE, "policyTypes": ["Egress"]}
OPEN = {"podSelector": ONE, "policyTypes": ["Egress"], "egress": [{}]}

#: CNI: what an ipBlock of the pod range does for a pod, what one of the LAN does for a node in it, a ping under deny-all,
#: and UDP 4789 from a pod
CNIS: dict[str, tuple[str, str, str, str]] = {
    "calico": (YES, YES, NO, NO),
    "canal": (YES, YES, NO, NO),
    "cilium": (NO, NO, NO, YES),
    "kube-router": (YES, YES, YES, YES),
    "kindnet": (YES, YES, NO, YES),
    "antrea": (YES, YES, NO, YES),
    "ovn-kubernetes": (YES, YES, NO, YES),
    "weave": (YES, YES, NO, YES),
    "aws-vpc-cni": (YES, YES, NO, YES),
    "terway": (NO, EITHER, NO, YES),
    "flannel": (YES, YES, YES, YES),
}


@pytest.mark.parametrize("cni", CNIS)
def test_the_matrix_of_cnis(cni: str) -> None:
    pods, nodes, ping, vxlan = CNIS[cni]
    assert ask(engine([*PODS, policy(**PODRANGE)], cni), "a/one", "b/far", "80/tcp") == pods
    assert ask(engine([*PODS, policy(**NODES)], cni), "a/one", "192.0.2.11", "80/tcp") == nodes
    assert ask(engine([*PODS, policy(**DENIED)], cni), "a/one", "b/far", "icmp") == ping
    assert ask(engine([*PODS, policy(**OPEN)], cni), "a/one", "b/far", "4789/udp") == vxlan
    closed = YES if cni == "flannel" else NO
    assert ask(engine([*PODS, policy(**DENIED)], cni), "a/one", "1.1.1.1", "443/tcp") == closed


def test_a_part_of_the_pod_range_matches_the_pods_that_have_these_addresses() -> None:
    spec = {"podSelector": ONE, "policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": "10.42.0.2/31"}}]}]}
    found = engine([*PODS, policy(**spec)])
    assert ask(found, "a/one", "a/two", "1/tcp") == YES
    assert ask(engine([*deployment("one"), *deployment("two"), policy(**spec)]), "a/one", "a/two", "1/tcp") == EITHER


CALICO = "projectcalico.org/v3"
CILIUM = "cilium.io/v2"
CLUSTER = "policy.networking.k8s.io/v1alpha2"
ADMIN = "policy.networking.k8s.io/v1alpha1"
ALLOW_ALL = policy("allow", policyTypes=["Egress"], egress=[{}])
DENY_ALL = policy("deny", policyTypes=["Egress"])
OF_ONE = {"selector": "app == 'one'", "types": ["Egress"]}


def gnp(order: int | None, rules: list[dict[str, Any]], **spec: Any) -> dict[str, Any]:
    place = {} if order is None else {"order": order}
    return custom(
        CALICO, "GlobalNetworkPolicy", "g", {"selector": "app == 'one'", "types": ["Egress"], "egress": rules, **place, **spec}
    )


#: name: (profile, objects, [(source, destination, port, verdict)])
LANGUAGES: dict[str, tuple[str, list[Any], list[tuple[str, str, str, str]]]] = {
    "Calico: a deny before order 1000 holds against a NetworkPolicy": (
        "calico",
        [ALLOW_ALL, gnp(900, [{"action": "Deny", "destination": {"notNets": ["10.42.0.0/16"]}}])],
        [("a/one", PUBLIC, "1/tcp", NO), ("a/one", "b/far", "1/tcp", YES), ("a/two", PUBLIC, "1/tcp", YES)],
    ),
    "Calico: a deny after order 1000 comes too late": (
        "calico",
        [ALLOW_ALL, gnp(1100, [{"action": "Deny"}])],
        [("a/one", PUBLIC, "1/tcp", YES)],
    ),
    "Calico: an allow before order 1000 opens a kill switch": (
        "calico",
        [DENY_ALL, gnp(10, [{"action": "Allow", "protocol": "TCP", "destination": {"ports": [443, "8000:8010"]}}])],
        [("a/one", PUBLIC, "443/tcp", YES), ("a/one", PUBLIC, "8005/tcp", YES), ("a/one", PUBLIC, "444/tcp", NO)],
    ),
    "Calico: a policy isolates what it selects": ("calico", [gnp(None, [])], [("a/one", PUBLIC, "1/tcp", NO)]),
    "Calico: an earlier tier decides, Pass goes on": (
        "calico",
        [
            ALLOW_ALL,
            custom(CALICO, "Tier", "first", {"order": 5}),
            gnp(1, [{"action": "Deny", "destination": {"nets": ["1.1.1.0/24"]}}, {"action": "Pass"}], tier="first"),
        ],
        [("a/one", PUBLIC, "1/tcp", NO), ("a/one", "9.9.9.9", "1/tcp", YES)],
    ),
    "Calico: the end of an earlier tier denies": (
        "calico",
        [
            ALLOW_ALL,
            custom(CALICO, "Tier", "first", {"order": 5}),
            gnp(1, [{"action": "Deny", "destination": {"nets": ["1.1.1.0/24"]}}], tier="first"),
        ],
        [("a/one", "9.9.9.9", "1/tcp", NO), ("a/two", "9.9.9.9", "1/tcp", YES)],
    ),
    "Calico: a tier may pass by default": (
        "calico",
        [
            ALLOW_ALL,
            custom(CALICO, "Tier", "first", {"order": 5, "defaultAction": "Pass"}),
            gnp(1, [{"action": "Deny", "destination": {"nets": ["1.1.1.0/24"]}}], tier="first"),
        ],
        [("a/one", "9.9.9.9", "1/tcp", YES), ("a/one", PUBLIC, "1/tcp", NO)],
    ),
    "Calico: ICMP by protocol": (
        "calico",
        [gnp(10, [{"action": "Allow", "protocol": "ICMP", "destination": {"nets": ["203.0.113.1/32"]}}])],
        [("a/one", "203.0.113.1", "icmp", YES), ("a/one", "203.0.113.2", "icmp", NO), ("a/one", "203.0.113.1", "1/tcp", NO)],
    ),
    "Calico: selectors of namespaces and pods": (
        "calico",
        [
            gnp(
                10,
                [
                    {
                        "action": "Allow",
                        "destination": {"selector": "has(tier) && app != 'one'", "namespaceSelector": "team == 'blue'"},
                    }
                ],
            )
        ],
        [("a/one", "b/far", "1/tcp", YES), ("a/one", "a/two", "1/tcp", NO)],
    ),
    # felix compares its own names, `a/default.z` with `a/knp.default.allow` and with `default.b`
    "Calico: of one order, its own policy comes before Kubernetes' in a namespace": (
        "calico",
        [ALLOW_ALL, custom(CALICO, "NetworkPolicy", "z", OF_ONE | {"order": 1000, "egress": [{"action": "Deny"}]}, "a")],
        [("a/one", PUBLIC, "1/tcp", NO), ("a/two", PUBLIC, "1/tcp", YES)],
    ),
    "Calico: without an order, names decide, the namespace before them": (
        "calico",
        [
            custom(CALICO, "NetworkPolicy", "default.z", OF_ONE | {"egress": [{"action": "Deny"}]}, "a"),
            custom(CALICO, "GlobalNetworkPolicy", "default.b", OF_ONE | {"egress": [{"action": "Allow"}]}),
        ],
        [("a/one", PUBLIC, "1/tcp", NO)],
    ),
    # felix 3.28, seen on packets: only among a rule's namespaces does global() mean "in none"
    "Calico: global() takes every pod where it says whom a policy selects": (
        "calico",
        [gnp(10, [{"action": "Deny"}], namespaceSelector="global()")],
        [("a/one", PUBLIC, "1/tcp", NO), ("a/two", PUBLIC, "1/tcp", YES)],
    ),
    "Calico: global() takes no pod where it says whom a rule means": (
        "calico",
        [gnp(10, [{"action": "Allow", "destination": {"selector": "all()", "namespaceSelector": "global()"}}])],
        [("a/one", "a/two", "1/tcp", NO), ("a/one", "b/far", "1/tcp", NO)],
    ),
    "Calico: all() beside something else takes nothing away": (
        "calico",
        [gnp(10, [{"action": "Allow", "destination": {"namespaceSelector": "all() && team == 'blue'"}}])],
        [("a/one", "a/two", "1/tcp", NO), ("a/one", "b/far", "1/tcp", YES)],
    ),
    "Cilium: a deny beats every allow": (
        "cilium",
        [
            ALLOW_ALL,
            custom(
                CILIUM,
                "CiliumNetworkPolicy",
                "d",
                {"endpointSelector": ONE, "egressDeny": [{"toCIDRSet": [{"cidr": "0.0.0.0/0", "except": ["203.0.113.0/24"]}]}]},
                "a",
            ),
        ],
        [("a/one", PUBLIC, "1/tcp", NO), ("a/one", "203.0.113.1", "1/tcp", YES), ("a/one", "b/far", "1/tcp", YES)],
    ),
    "Cilium: a clusterwide allow opens a kill switch": (
        "cilium",
        [
            DENY_ALL,
            custom(CILIUM, "CiliumClusterwideNetworkPolicy", "c", {"endpointSelector": {}, "egress": [{"toEntities": ["world"]}]}),
        ],
        [("a/one", PUBLIC, "1/tcp", YES), ("a/one", "b/far", "1/tcp", NO), ("b/far", "a/one", "1/tcp", NO)],
    ),
    "Cilium: an empty rule isolates and allows nobody": (
        "cilium",
        [custom(CILIUM, "CiliumNetworkPolicy", "c", {"endpointSelector": ONE, "egress": [{}]}, "a")],
        [("a/one", PUBLIC, "1/tcp", NO), ("a/two", PUBLIC, "1/tcp", YES)],
    ),
    "Cilium: enableDefaultDeny false only adds": (
        "cilium",
        [
            custom(
                CILIUM,
                "CiliumNetworkPolicy",
                "c",
                {"endpointSelector": ONE, "enableDefaultDeny": {"egress": False}, "egress": [{"toEntities": ["cluster"]}]},
                "a",
            )
        ],
        [("a/one", PUBLIC, "1/tcp", YES)],
    ),
    "Cilium: entities stand for the API server": (
        "cilium",
        [
            custom(
                CILIUM,
                "CiliumNetworkPolicy",
                "c",
                {
                    "endpointSelector": ONE,
                    "egress": [{"toEntities": ["kube-apiserver"], "toPorts": [{"ports": [{"port": "6443", "protocol": "TCP"}]}]}],
                },
                "a",
            )
        ],
        [("a/one", "192.0.2.11", "6443/tcp", YES), ("a/one", "192.0.2.11", "22/tcp", NO), ("a/one", "192.0.2.12", "6443/tcp", NO)],
    ),
    "Cilium: endpoints of another namespace by its label": (
        "cilium",
        [
            custom(
                CILIUM,
                "CiliumNetworkPolicy",
                "c",
                {
                    "endpointSelector": ONE,
                    "egress": [{"toEndpoints": [{"matchLabels": {"k8s:io.kubernetes.pod.namespace": "b", "k8s:app": "far"}}]}],
                },
                "a",
            )
        ],
        [("a/one", "b/far", "1/tcp", YES), ("a/one", "a/two", "1/tcp", NO)],
    ),
    "Cilium: names resolve to addresses that nobody knows": (
        "cilium",
        [
            custom(
                CILIUM,
                "CiliumNetworkPolicy",
                "c",
                {"endpointSelector": ONE, "egress": [{"toFQDNs": [{"matchName": "x.org"}]}]},
                "a",
            )
        ],
        [("a/one", PUBLIC, "1/tcp", EITHER)],
    ),
    "tiers: Accept of the Admin tier skips NetworkPolicy": (
        "kindnet",
        [
            DENY_ALL,
            custom(
                CLUSTER,
                "ClusterNetworkPolicy",
                "c",
                {
                    "tier": "Admin",
                    "priority": 5,
                    "subject": {"namespaces": {}},
                    "egress": [{"action": "Accept", "to": [{"networks": ["0.0.0.0/0"]}]}],
                },
            ),
        ],
        [("a/one", PUBLIC, "1/tcp", YES)],
    ),
    "tiers: Pass before Deny of the Admin tier": (
        "kindnet",
        [
            ALLOW_ALL,
            custom(
                CLUSTER,
                "ClusterNetworkPolicy",
                "c",
                {
                    "tier": "Admin",
                    "priority": 5,
                    "subject": {"pods": {"namespaceSelector": {}, "podSelector": ONE}},
                    "egress": [
                        {"action": "Pass", "to": [{"namespaces": {}}]},
                        {"action": "Deny", "to": [{"networks": ["0.0.0.0/0", "::/0"]}]},
                    ],
                },
            ),
        ],
        [("a/one", PUBLIC, "1/tcp", NO), ("a/one", "b/far", "1/tcp", YES), ("a/two", PUBLIC, "1/tcp", YES)],
    ),
    "tiers: a lower priority number goes first": (
        "kindnet",
        [
            custom(
                ADMIN,
                "AdminNetworkPolicy",
                name,
                {
                    "priority": number,
                    "subject": {"namespaces": {}},
                    "egress": [{"action": action, "to": [{"networks": ["1.1.1.0/24"]}], "ports": [{"portNumber": {"port": 443}}]}],
                },
            )
            for name, number, action in (("first", 1, "Deny"), ("second", 2, "Allow"))
        ],
        [("a/one", PUBLIC, "443/tcp", NO), ("a/one", PUBLIC, "80/tcp", YES)],
    ),
    "tiers: the baseline counts only where no NetworkPolicy isolates": (
        "kindnet",
        [
            custom(
                CLUSTER,
                "ClusterNetworkPolicy",
                "c",
                {
                    "tier": "Baseline",
                    "priority": 0,
                    "subject": {"namespaces": {}},
                    "egress": [{"action": "Deny", "to": [{"networks": ["0.0.0.0/0"]}]}],
                },
            ),
            policy("only-one", podSelector=ONE, policyTypes=["Egress"], egress=[{}]),
        ],
        [("a/one", PUBLIC, "1/tcp", YES), ("a/two", PUBLIC, "1/tcp", NO)],
    ),
    "a language that the CNI does not obey changes nothing": (
        "kube-router",
        [DENY_ALL, gnp(1, [{"action": "Allow"}])],
        [("a/one", PUBLIC, "1/tcp", NO)],
    ),
}


@pytest.mark.parametrize("name", LANGUAGES)
def test_languages(name: str) -> None:
    profile, objects, flows = LANGUAGES[name]
    found = engine([*PODS, *objects], profile)
    assert found.problems == []
    for source, destination, port, wanted in flows:
        assert ask(found, source, destination, port) == wanted, (source, destination, port)


def test_17_a_named_port_of_ones_own_is_open_to_addresses_outside() -> None:
    """It resolves on the destination, which on ingress is the subject; towards addresses it names nothing."""
    pods = deployment("one", ip="10.42.0.1", ports=[("web", 8080)])
    inward = policy("p", policyTypes=["Ingress"], ingress=[{"ports": [{"port": "web"}]}])
    outward = policy("q", policyTypes=["Egress"], egress=[{"ports": [{"port": "web"}]}])
    assert ask(engine([*pods, inward]), "1.1.1.1", "a/one", "8080/tcp") == YES
    assert ask(engine([*pods, inward]), "1.1.1.1", "a/one", "8081/tcp") == NO
    assert ask(engine([*pods, outward]), "a/one", "1.1.1.1", "8080/tcp") == NO


def test_in_the_mesh_15008_is_every_port() -> None:
    mesh = {"istio.io/dataplane-mode": "ambient"}
    hbone = policy("p", podSelector=ONE, policyTypes=["Ingress"], ingress=[{"from": [FAR], "ports": [{"port": 15008}]}])
    pods = [*deployment("one"), *deployment("far", "b"), namespace("a", **mesh), namespace("b", **mesh)]
    found = engine([*pods, hbone])
    pair = found.effective(*(place for name in ("b/far", "a/one") for place in [_place(found, name)]))
    assert pair.sure.has("TCP", 8080)
    assert not pair.sure.has("UDP", 8080)
    plain = engine([*deployment("one"), *deployment("far", "b"), hbone])
    assert not plain.effective(_place(plain, "b/far"), _place(plain, "a/one")).sure.has("TCP", 8080)


def _place(found: Any, name: str) -> int:
    from audit_shapes import index

    return index(found, name)


def test_addresses_of_pods_that_have_ended_are_nobody_s() -> None:
    pod = deployment("old", ip="10.42.0.9")[1]
    pod["status"]["phase"] = "Succeeded"
    found = engine([pod], known=facts(pods=networks("10.42.0.0/16")))
    assert not found.world.endpoints or all(not one.addresses for one in found.world.endpoints)
