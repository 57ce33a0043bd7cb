# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which other policies open a client: the traps of the NetworkPolicy API, and every other language by its rank."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._audit.reopen import reopened_by
from ansible_collections.homelab.netguard.plugins.module_utils._facts.model import Facts
from ansible_collections.homelab.netguard.plugins.module_utils._manifests import killswitch
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Live, owner_labels
from killswitch_shapes import FACTS, QBIT, deployment, topology

ANYWHERE: dict[str, Any] = {"egress": [{}], "policyTypes": ["Egress"]}


def policy(spec: dict[str, Any], namespace: str = "media", **meta: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "other", "namespace": namespace} | meta,
        "spec": {"podSelector": {}} | spec,
    }


def to(*cidrs: str, **block: Any) -> dict[str, Any]:
    return {"policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": cidr} | block} for cidr in cidrs]}]}


@pytest.mark.parametrize(
    ("name", "spec", "opens"),
    [
        ("a rule without to", {"policyTypes": ["Egress"], "egress": [{"ports": [{"port": 53}]}]}, True),
        ("an empty rule", ANYWHERE, True),
        ("no policyTypes, but egress rules", {"egress": [{}]}, True),
        ("egress rules under Ingress alone are dead", {"policyTypes": ["Ingress"], "egress": [{}]}, False),
        ("deny all", {"policyTypes": ["Egress"]}, False),
        ("everything", to("0.0.0.0/0"), True),
        ("everything in two halves", to("0.0.0.0/1", "128.0.0.0/1"), True),
        ("IPv6", to("::/0"), True),
        ("except private ranges", to("0.0.0.0/0", **{"except": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]}), True),
        ("one public host", to("1.1.1.1/32"), True),
        ("the pod range", to("10.244.0.0/16"), False),
        ("pods by selector", {"policyTypes": ["Egress"], "egress": [{"to": [{"namespaceSelector": {}}]}]}, False),
        ("an undeclared LAN host", to("192.168.1.99/32"), True),
        ("other pods", ANYWHERE | {"podSelector": {"matchLabels": {"app": "other"}}}, False),
        (
            "clients excluded by our label",
            ANYWHERE | {"podSelector": {"matchExpressions": [{"key": "homelab.netguard/client", "operator": "DoesNotExist"}]}},
            False,
        ),
        (
            "the client excluded by its own",
            ANYWHERE | {"podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["qbit"]}]}},
            False,
        ),
        (
            "NotIn on a label that it lacks",
            ANYWHERE | {"podSelector": {"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["x"]}]}},
            True,
        ),
    ],
)
def test_network_policies(name: str, spec: dict[str, Any], opens: bool) -> None:
    found = reopened_by(topology(QBIT), FACTS, Live((deployment("qbit"), policy(spec))))
    assert bool(found) is opens, name
    if opens:
        assert (found[0]["client"], found[0]["name"], found[0]["rule"]) == ("media/qbit", "other", 0)


def test_what_the_client_declares_itself_is_no_opening() -> None:
    app = QBIT | {"external": [{"to": "192.168.1.10/32"}]}
    live = Live((deployment("qbit"), policy(to("192.168.1.10/32"))))
    assert reopened_by(topology(app), FACTS, live) == []


def test_policies_of_other_namespaces_and_kill_switches_are_none() -> None:
    shape = topology(QBIT)
    own = killswitch.build(shape, FACTS, Live((deployment("qbit"),))).desired.objects
    assert reopened_by(shape, FACTS, Live((deployment("qbit"), policy(ANYWHERE, "other"), *own))) == []


def facts(cni: str, *apis: str) -> Facts:
    return replace(FACTS, cni=replace(FACTS.cni, name=cni, policy_apis=apis))


V3, CILIUM, TIERS, ADMIN = (
    "projectcalico.org/v3",
    "cilium.io/v2",
    "policy.networking.k8s.io/v1alpha2",
    "policy.networking.k8s.io/v1alpha1",
)
ALLOW_PUBLIC = {"action": "Allow", "destination": {"nets": ["1.1.1.0/24"]}}
QBIT_PODS = {"matchLabels": {"app": "qbit"}}


def other(api: str, kind: str, spec: dict[str, Any], name: str = "other", **meta: Any) -> dict[str, Any]:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name} | meta, "spec": spec}


def gnp(order: float | None = None, tier: str = "", **rule: Any) -> dict[str, Any]:
    place = ({"order": order} if order is not None else {}) | ({"tier": tier} if tier else {})
    spec = {"selector": "app == 'qbit'", "types": ["Egress"], "egress": [ALLOW_PUBLIC | rule]}
    return other(V3, "GlobalNetworkPolicy", spec | place)


def tier(name: str, order: float, **spec: Any) -> dict[str, Any]:
    return other(V3, "Tier", {"order": order} | spec, name)


def clusterwide(**spec: Any) -> dict[str, Any]:
    return other(CILIUM, "CiliumClusterwideNetworkPolicy", {"endpointSelector": {}} | spec)


def cluster(priority: int, action: str = "Accept", level: str = "Admin") -> dict[str, Any]:
    egress = [{"action": action, "to": [{"networks": ["1.1.1.0/24"]}]}]
    subject = {"pods": {"namespaceSelector": {}, "podSelector": QBIT_PODS}}
    return other(TIERS, "ClusterNetworkPolicy", {"tier": level, "priority": priority, "subject": subject, "egress": egress})


def admin(kind: str, action: str = "Allow") -> dict[str, Any]:
    rule = {"action": action, "to": [{"networks": ["1.1.1.0/24"]}]}
    return other(ADMIN, kind, {"priority": 7, "subject": {"namespaces": {}}, "egress": [rule]})


#: name: (CNI, its APIs, other objects, whether a hard deny is written, {entry: whether it is effective})
RANKS: dict[str, tuple[str, tuple[str, ...], list[dict[str, Any]], bool, dict[str, bool]]] = {
    "Calico: an allow opens a NetworkPolicy alone": ("calico", (V3,), [gnp(10)], False, {"GlobalNetworkPolicy/other": True}),
    "Calico: an allow after order 1000 does not come to speak": (
        "calico",
        (V3,),
        [gnp(2000)],
        False,
        {"GlobalNetworkPolicy/other": True},  # the NetworkPolicy passes on within the tier what it does not allow
    ),
    "Calico: the hard deny goes before every allow": ("calico", (V3,), [gnp(-5)], True, {"GlobalNetworkPolicy/other": False}),
    "Calico: the hard deny goes before every tier": (
        "calico",
        (V3,),
        [tier("early", -100), tier("default", 1_000_000), gnp(1, "early")],
        True,
        {"GlobalNetworkPolicy/other": False},
    ),
    "Calico: a tier after the default one never speaks": (
        "calico",
        (V3,),
        [tier("late", 2_000_000), tier("default", 1_000_000), gnp(1, "late")],
        False,
        {"GlobalNetworkPolicy/other": False},
    ),
    "Calico: a tier that cannot be found may stand anywhere": (
        "calico",
        (V3,),
        [gnp(1, "gone")],
        False,
        {"GlobalNetworkPolicy/other": True},
    ),
    "Calico: a deny is none": ("calico", (V3,), [gnp(10, action="Deny")], False, {}),
    "Calico: other pods": (
        "calico",
        (V3,),
        [other(V3, "GlobalNetworkPolicy", {"selector": "app == 'web'", "types": ["Egress"], "egress": [ALLOW_PUBLIC]})],
        False,
        {},
    ),
    "Calico: another namespace": (
        "calico",
        (V3,),
        [other(V3, "NetworkPolicy", {"order": 1, "types": ["Egress"], "egress": [ALLOW_PUBLIC]}, namespace="other")],
        False,
        {},
    ),
    "Calico: the namespace itself": (
        "calico",
        (V3,),
        [other(V3, "NetworkPolicy", {"order": 1, "types": ["Egress"], "egress": [ALLOW_PUBLIC]}, namespace="media")],
        False,
        {"NetworkPolicy/other": True},
    ),
    "Calico: its copy of a NetworkPolicy": (
        "calico",
        (V3,),
        [
            other(
                V3,
                "NetworkPolicy",
                {"order": 1, "types": ["Egress"], "egress": [ALLOW_PUBLIC]},
                "knp.default.x",
                namespace="media",
            )
        ],
        False,
        {},
    ),
    "Calico: a set of networks": (
        "calico",
        (V3,),
        [
            other(V3, "GlobalNetworkSet", {"nets": ["9.9.9.9/32"]}, "resolvers", labels={"role": "dns"}),
            gnp(10, destination={"selector": "role == 'dns'", "namespaceSelector": "global()"}),
        ],
        False,
        {"GlobalNetworkPolicy/other": True},
    ),
    "Calico: what cannot be read": (
        "calico",
        (V3,),
        [gnp(10, destination={"selector": "app = x"})],
        False,
        {"GlobalNetworkPolicy/other": True},
    ),
    "Cilium: an allow for all endpoints": (
        "cilium",
        (CILIUM,),
        [clusterwide(egress=[{"toEntities": ["world"]}])],
        False,
        {"CiliumClusterwideNetworkPolicy/other": True},
    ),
    "Cilium: the hard deny beats it": (
        "cilium",
        (CILIUM,),
        [clusterwide(egress=[{"toEntities": ["world"]}])],
        True,
        {"CiliumClusterwideNetworkPolicy/other": False},
    ),
    "Cilium: names": (
        "cilium",
        (CILIUM,),
        [clusterwide(egress=[{"toFQDNs": [{"matchName": "example.org"}]}])],
        False,
        {"CiliumClusterwideNetworkPolicy/other": True},
    ),
    "Cilium: pods only": ("cilium", (CILIUM,), [clusterwide(egress=[{"toEndpoints": [{}]}])], False, {}),
    "Cilium: ingress only": ("cilium", (CILIUM,), [clusterwide(ingress=[{"fromEntities": ["world"]}])], False, {}),
    "Cilium: what cannot be read": (
        "cilium",
        (CILIUM,),
        [other(CILIUM, "CiliumNetworkPolicy", {}, namespace="media")],
        False,
        {"CiliumNetworkPolicy/other": True},
    ),
    "Cilium: what cannot be read, elsewhere": (
        "cilium",
        (CILIUM,),
        [other(CILIUM, "CiliumNetworkPolicy", {}, namespace="other")],
        False,
        {},
    ),
    "tiers: Accept of the Admin tier skips the kill switch": (
        "kindnet",
        (TIERS,),
        [cluster(5)],
        False,
        {"ClusterNetworkPolicy/other": True},
    ),
    "tiers: the hard deny has the first priority": ("kindnet", (TIERS,), [cluster(5)], True, {"ClusterNetworkPolicy/other": False}),
    "tiers: Pass opens nothing by itself": ("kindnet", (TIERS,), [cluster(5, "Pass")], False, {}),
    "tiers: the baseline comes after the kill switch": (
        "kindnet",
        (TIERS,),
        [cluster(5, level="Baseline")],
        False,
        {"ClusterNetworkPolicy/other": False},
    ),
    "tiers: AdminNetworkPolicy": (
        "kindnet",
        (ADMIN,),
        [admin("AdminNetworkPolicy")],
        False,
        {"AdminNetworkPolicy/other": True},
    ),
    "tiers: BaselineAdminNetworkPolicy": (
        "kindnet",
        (ADMIN,),
        [admin("BaselineAdminNetworkPolicy")],
        False,
        {"BaselineAdminNetworkPolicy/other": False},
    ),
    "a language that this CNI does not obey": ("kube-router", (V3, CILIUM), [gnp(10)], False, {}),
    "tiers beside a CNI that may not know them": (
        "kube-router",
        (TIERS,),
        [cluster(5)],
        False,
        {"ClusterNetworkPolicy/other": True},
    ),
    "a hard deny that the CNI may not obey holds nothing": (
        "kube-router",
        (TIERS,),
        [policy(to("1.1.1.1/32"))],
        True,
        {"NetworkPolicy/other": True},
    ),
    "an unknown CNI may be any": ("unknown", (V3,), [gnp(10)], False, {"GlobalNetworkPolicy/other": True}),
}


@pytest.mark.parametrize("name", RANKS)
def test_every_language_counts_with_its_rank(name: str) -> None:
    cni, apis, others, denied, wanted = RANKS[name]
    known, shape = facts(cni, *apis), topology(QBIT)
    live = Live((deployment("qbit"), *others))
    built = killswitch.build(shape, known, live, dialect="auto" if denied else "networkpolicy")
    assert bool(built.dialects) is denied
    found = reopened_by(shape, known, live, built.desired.objects)
    assert {f"{item['kind']}/{item['name']}": item["effective"] for item in found} == wanted


def test_what_may_not_be_read_counts() -> None:
    live = Live((deployment("qbit"),), {"GlobalNetworkPolicy": "forbidden", "Tier": "forbidden", "Job": "forbidden"})
    found = reopened_by(topology(QBIT), facts("calico", V3), live)
    assert [(item["kind"], item["effective"]) for item in found] == [("GlobalNetworkPolicy", True), ("Tier", True)]


def test_labels_of_a_kill_switch_make_none() -> None:
    labels = owner_labels("home", "killswitch", [("homelab.netguard/client", "qbit")])
    found = reopened_by(topology(QBIT), FACTS, Live((deployment("qbit"), policy(ANYWHERE, labels=labels))))
    assert [(item["name"], item["effective"]) for item in found] == [("other", True)]


def test_the_ports_that_the_kill_switch_opens_are_the_limit() -> None:
    app = QBIT | {"external": [{"to": "192.168.1.10", "ports": [8006]}]}
    wide, same = ({"port": 8006, "endPort": 8007}, {"port": 8006})
    for port, opens in ((wide, True), (same, False)):
        spec = to("192.168.1.10/32")
        spec["egress"][0]["ports"] = [port]
        assert bool(reopened_by(topology(app), FACTS, Live((deployment("qbit"), policy(spec))))) is opens
