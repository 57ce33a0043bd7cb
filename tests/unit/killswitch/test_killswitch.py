# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kill switch as objects: the checklist for generated policies, and the hard deny of every dialect."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._errors import FaultsError, NetguardError
from ansible_collections.homelab.netguard.plugins.module_utils._facts.model import Facts
from ansible_collections.homelab.netguard.plugins.module_utils._manifests import killswitch, killswitch_deny
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Live
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.workloads import PodSelector
from ansible_collections.homelab.netguard.plugins.module_utils._topology.parse import parse
from killswitch_shapes import FACTS, GATEWAYS, NET, PROWLARR, QBIT, deployment, service, topology

CALICO = ("crd.projectcalico.org/v1",)
BUSY = QBIT | {
    "uses": ["prowlarr:web"],
    "lan": ["web"],
    "exposed": {"port": "web"},
    "metrics": "web",
    "peers": ["web"],
    "kube_api": True,
    "external": [{"to": "192.168.1.10/32", "ports": ["8006/tcp"]}],
}
PLATFORM = {
    "ingress": {"namespace": "kube-system", "pods": {"app": "traefik"}},
    "prometheus": {"namespace": "monitoring", "pods": {"app": "prometheus"}},
}
LIVE = Live((deployment("qbit"), deployment("prowlarr", port=9696), service("prowlarr", 80, "web", "10.96.3.4")))


def with_cni(**changes: Any) -> Facts:
    return replace(FACTS, cni=replace(FACTS.cni, **changes))


def policy(app: dict[str, Any], facts: Facts = FACTS, live: Live = LIVE, gateway: dict[str, Any] | None = None, **more: Any) -> Any:
    shape = parse("home", [GATEWAYS[0] | (gateway or {})], [app, PROWLARR], PLATFORM, more.get("namespaces", []))
    return killswitch.build(shape, facts, live, dialect="networkpolicy").desired.objects[0]


def blocks(spec: dict[str, Any]) -> list[str]:
    rules = [*spec.get("egress", []), *spec.get("ingress", [])]
    peers = [peer for rule in rules for peer in [*rule.get("to", []), *rule.get("from", [])]]
    return [peer["ipBlock"]["cidr"] for peer in peers if "ipBlock" in peer]


@pytest.mark.parametrize("app", [QBIT, BUSY], ids=["alone", "busy"])
@pytest.mark.parametrize("dns", ["vpn", "split", "cluster"])
@pytest.mark.parametrize("translated", [True, False])
@pytest.mark.parametrize("mesh", [True, False])
def test_the_checklist_of_generated_policies(app: dict[str, Any], dns: str, translated: bool, mesh: bool) -> None:
    facts = with_cni(translates_kernel_packets=translated)
    spec = policy(app, facts, gateway={"dns": dns}, namespaces=[{"name": "media", "mesh": mesh}])["spec"]
    assert sorted(spec["policyTypes"]) == ["Egress", "Ingress"]
    for direction, key in (("egress", "to"), ("ingress", "from")):
        for rule in spec[direction]:
            assert rule.get(key), "a rule without peers is the whole world"
            for peer in rule[key]:
                assert peer, "an empty peer"
                assert set(peer) in ({"ipBlock"}, {"namespaceSelector", "podSelector"}), peer
            for port in rule.get("ports", []):
                assert port["protocol"] in ("TCP", "UDP", "SCTP")
                assert isinstance(port["port"], int)
    for cidr in blocks(spec):
        network = ipaddress.ip_network(cidr)
        assert not any(network.overlaps(other) for other in (*FACTS.pods, *FACTS.services)), "pods and Services by selector only"
    first = spec["egress"][0]
    assert first["to"][0]["podSelector"]["matchLabels"]["homelab.netguard/gateway"] == "proton"
    assert "ports" not in first, "ports on the gateway's rule drop ICMP"
    assert spec["ingress"][0]["ports"] == [{"protocol": "UDP", "port": 48879}]


@pytest.mark.parametrize(
    ("dns", "translated", "asks"),
    [("vpn", True, False), ("split", True, False), ("vpn", False, True), ("cluster", True, True)],
)
def test_cluster_dns_is_open_only_where_something_asks_it(dns: str, translated: bool, asks: bool) -> None:
    spec = policy(QBIT, with_cni(translates_kernel_packets=translated), gateway={"dns": dns})["spec"]
    found = [rule for rule in spec["egress"] if any("k8s-app" in str(peer) for peer in rule["to"])]
    assert bool(found) is asks
    for rule in found:
        assert rule["ports"] == [{"protocol": "TCP", "port": 53}, {"protocol": "UDP", "port": 53}]


def test_dns_ports_are_those_of_the_pods_and_the_local_cache_has_its_address() -> None:
    facts = replace(FACTS, dns=replace(FACTS.dns, ports_udp=(5353,), ports_tcp=(5353,), node_local_ip="169.254.20.10"))
    spec = policy(QBIT, facts, gateway={"dns": "cluster"})["spec"]
    assert "169.254.20.10/32" in blocks(spec)
    assert {"protocol": "UDP", "port": 5353} in spec["egress"][1]["ports"]


def test_dns_that_is_needed_and_unknown_is_refused() -> None:
    facts = replace(FACTS, dns=replace(FACTS.dns, namespace="", pod_labels={}))
    with pytest.raises(NetguardError, match="netguard_overrides"):
        policy(QBIT, facts, gateway={"dns": "cluster"})


@pytest.mark.parametrize(("cni", "ports"), [("calico", [9696]), ("cilium", [9696]), ("aws-vpc-cni", [80, 9696])])
def test_the_service_port_counts_only_where_policy_comes_before_translation(cni: str, ports: list[int]) -> None:
    spec = policy(QBIT | {"uses": ["prowlarr:web"]}, with_cni(name=cni))["spec"]
    assert [port["port"] for port in spec["egress"][1]["ports"]] == ports


def test_the_probe_address_of_the_mesh_is_let_in_on_probe_ports_alone() -> None:
    probed = deployment("qbit")
    probed["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] = {"httpGet": {"port": "web"}}
    facts = replace(FACTS, mesh_probe_sources=(NET("169.254.7.127/32"),))
    live = Live((probed, deployment("prowlarr", port=9696)))
    spec = policy(QBIT, facts, live, namespaces=[{"name": "media", "mesh": True}])["spec"]
    assert spec["ingress"][-1] == {
        "from": [{"ipBlock": {"cidr": "169.254.7.127/32"}}],
        "ports": [{"protocol": "TCP", "port": 8080}],
    }
    assert "169.254.7.127/32" not in blocks(policy(QBIT, facts, live)["spec"])


def test_guard_and_policy_open_the_same_ports() -> None:
    shape = parse("home", GATEWAYS, [BUSY, PROWLARR], PLATFORM, [])
    built = killswitch.build(shape, FACTS, LIVE, dialect="networkpolicy")
    spec, edges = built.desired.objects[0]["spec"], built.edges[0]
    for direction, targets in (("egress", edges.guard_egress(FACTS)), ("ingress", edges.guard_ingress(FACTS))):
        ruled = {port["port"] for rule in spec[direction][1:] for port in rule.get("ports", [])}
        services = {service.port.number for edge in edges.egress for service in edge.services} if direction == "egress" else set()
        assert {target.port.number for target in targets if target.port} - services == ruled - services


def test_every_client_that_cannot_be_held_is_named_in_one_error() -> None:
    other = {"name": "sab", "namespace": "media", "vpn": "proton"}
    with pytest.raises(FaultsError) as caught:
        killswitch.build(topology(QBIT, other), FACTS, Live())
    assert "apps[0].pods" in str(caught.value)
    assert "apps[1].pods" in str(caught.value)


# Hard denies


@pytest.mark.parametrize(
    ("asked", "cni", "apis", "chosen"),
    [
        ("auto", "calico", CALICO, ("calico",)),
        ("auto", "canal", CALICO, ("calico",)),
        ("auto", "cilium", ("cilium.io/v2",), ("cilium",)),
        ("auto", "flannel", (), ()),
        ("auto", "flannel", CALICO, ()),
        ("auto", "kube-router", ("policy.networking.k8s.io/v1alpha2",), ("clusternetworkpolicy",)),
        ("auto", "calico", (*CALICO, "policy.networking.k8s.io/v1alpha2"), ("calico",)),
        ("networkpolicy", "calico", CALICO, ()),
        ("clusternetworkpolicy", "calico", ("policy.networking.k8s.io/v1alpha2",), ("clusternetworkpolicy",)),
    ],
)
def test_choice_of_the_dialect(asked: str, cni: str, apis: tuple[str, ...], chosen: tuple[str, ...]) -> None:
    assert killswitch_deny.choose(asked, with_cni(name=cni, policy_apis=apis)) == chosen


@pytest.mark.parametrize("dialect", ["calico", "cilium", "clusternetworkpolicy"])
def test_a_dialect_without_its_api_is_refused_and_names_what_is_there(dialect: str) -> None:
    with pytest.raises(NetguardError, match="other/v1"):
        killswitch_deny.choose(dialect, with_cni(policy_apis=("other/v1",)))


def deny(dialect: str, apis: tuple[str, ...], *others: dict[str, Any], app: dict[str, Any] = BUSY) -> tuple[Any, ...]:
    shape = parse("home", GATEWAYS, [app, PROWLARR], PLATFORM, [])
    live = Live((*LIVE.objects, *others))
    waves = killswitch.build(shape, with_cni(policy_apis=apis), live, dialect=dialect).desired.waves
    assert waves[0][0]["kind"] == "NetworkPolicy", "the deny never stands alone"
    return waves[1]


def calico_policy(kind: str, order: float | None, **meta: Any) -> dict[str, Any]:
    spec = {} if order is None else {"order": order}
    return {"apiVersion": CALICO[0], "kind": kind, "metadata": {"name": f"x{order}", **meta}, "spec": spec}


@pytest.mark.parametrize(
    ("others", "order"),
    [
        ([], 10),
        ([calico_policy("GlobalNetworkPolicy", 900)], 10),
        ([calico_policy("GlobalNetworkPolicy", 3)], 2),
        ([calico_policy("GlobalNetworkPolicy", -4.5)], -6),
        ([calico_policy("NetworkPolicy", 7, namespace="media")], 6),
        ([calico_policy("GlobalNetworkPolicy", None)], 10),
        ([calico_policy("GlobalNetworkPolicy", 1, labels={"app.kubernetes.io/managed-by": "homelab.netguard"})], 10),
    ],
)
def test_calico_comes_before_every_order_of_others(others: list[dict[str, Any]], order: int) -> None:
    (found,) = deny("calico", CALICO, *others)
    assert found["spec"]["order"] == order


def test_calico_without_tiers_denies_per_family_and_never_passes() -> None:
    (found,) = deny("calico", CALICO)
    assert found["kind"] == "GlobalNetworkPolicy"
    assert found["spec"]["egress"] == [
        {
            "action": "Deny",
            "ipVersion": 4,
            "destination": {"notNets": ["10.244.0.0/16", "192.168.1.10/32", "192.168.1.20/32"]},
        },
        {"action": "Deny", "ipVersion": 6},
    ]
    assert found["spec"]["namespaceSelector"] == "kubernetes.io/metadata.name == 'media'"
    assert found["spec"]["selector"] == "app == 'qbit'"
    assert found["spec"]["types"] == ["Egress"]
    assert "." not in found["metadata"]["name"]


def test_calico_with_tiers_stands_in_the_first_one_and_passes_the_rest_on() -> None:
    tiers = [
        {"apiVersion": CALICO[0], "kind": "Tier", "metadata": {"name": name}, "spec": {"order": order}}
        for name, order in (("default", 1000000), ("security", 5))
    ]
    tier, found = deny("calico", CALICO, *tiers)
    assert (tier["kind"], tier["spec"]["order"]) == ("Tier", 4)
    assert found["spec"]["tier"] == tier["metadata"]["name"]
    assert found["metadata"]["name"].startswith(tier["metadata"]["name"] + ".")
    assert found["spec"]["egress"][-1] == {"action": "Pass"}


def test_calicos_own_api_is_preferred_to_its_storage() -> None:
    (found,) = deny("calico", (*CALICO, "projectcalico.org/v3"))
    assert found["apiVersion"] == "projectcalico.org/v3"


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        (PodSelector({"a": "1", "b/c": "2"}), "a == '1' && b/c == '2'"),
        (PodSelector({}, ({"key": "a", "operator": "In", "values": ["1", "2"]},)), "a in { '1', '2' }"),
        (PodSelector({}, ({"key": "a", "operator": "NotIn", "values": ["1"]},)), "a not in { '1' }"),
        (PodSelector({}, ({"key": "a", "operator": "Exists"},)), "has(a)"),
        (PodSelector({}, ({"key": "a", "operator": "DoesNotExist"},)), "!has(a)"),
    ],
)
def test_selectors_in_calicos_language(selector: PodSelector, text: str) -> None:
    assert killswitch_deny.calico_selector(selector) == text


def test_cilium_denies_all_but_what_is_declared_and_isolates_nothing_by_itself() -> None:
    (found,) = deny("cilium", ("cilium.io/v2",))
    spec = found["spec"]
    assert spec["enableDefaultDeny"] == {"egress": False, "ingress": False}
    assert spec["egressDeny"] == [
        {"toCIDRSet": [{"cidr": "0.0.0.0/0", "except": ["10.244.0.0/16", "192.168.1.10/32", "192.168.1.20/32"]}]},
        {"toCIDRSet": [{"cidr": "::/0"}]},
    ]
    assert spec["egress"] == [{"toEntities": ["kube-apiserver"], "toPorts": [{"ports": [{"port": "6443", "protocol": "TCP"}]}]}]


def admin(priority: int) -> dict[str, Any]:
    return {
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": f"x{priority}"},
        "spec": {"tier": "Admin", "priority": priority},
    }


@pytest.mark.parametrize(("others", "priority"), [([], 10), ([4], 3), ([0], 0), ([500], 10)])
def test_cluster_network_policy_passes_pods_and_declared_addresses_then_denies(others: list[int], priority: int) -> None:
    (found,) = deny("clusternetworkpolicy", ("policy.networking.k8s.io/v1alpha2",), *map(admin, others))
    spec = found["spec"]
    assert (spec["tier"], spec["priority"]) == ("Admin", priority)
    assert [rule["action"] for rule in spec["egress"]] == ["Pass", "Deny"]
    assert spec["egress"][0]["to"] == [{"namespaces": {}}, {"networks": ["192.168.1.10/32", "192.168.1.20/32"]}]
    assert spec["egress"][1]["to"] == [{"networks": ["0.0.0.0/0", "::/0"]}]


def test_long_lists_of_networks_are_spread_over_peers() -> None:
    app = QBIT | {"external": [{"to": [f"192.168.{2 * number}.1/32" for number in range(60)]}]}
    (found,) = deny("clusternetworkpolicy", ("policy.networking.k8s.io/v1alpha2",), app=app)
    assert [len(peer["networks"]) for peer in found["spec"]["egress"][0]["to"][1:]] == [25, 25, 10]


def test_names_of_cluster_scoped_objects_are_unique_and_hold_the_instance() -> None:
    apps = [
        {"name": name, "namespace": namespace, "vpn": "proton"}
        for name, namespace in (("c", "a-b"), ("b-c", "a"), ("x" * 63, "y" * 63))
    ]
    shape = topology(*apps)
    names = [killswitch_deny.cluster_name("home", app.namespace, app.name) for app in shape.apps]
    assert len(set(names)) == 3
    assert all(name.startswith("netguard-home-") and len(name) <= 63 for name in names)


@pytest.mark.parametrize(
    ("enforces", "apis", "said"),
    [
        (False, (), "enforces no NetworkPolicy"),
        (None, (), "not known whether"),
        (True, (), "no hard deny"),
    ],
)
def test_notes_say_what_is_not_held(enforces: bool | None, apis: tuple[str, ...], said: str) -> None:
    built = killswitch.build(topology(QBIT), with_cni(enforces_network_policy=enforces, policy_apis=apis), LIVE)
    assert any(said in note for note in built.notes)


def test_with_a_hard_deny_there_is_nothing_to_note() -> None:
    assert killswitch.build(topology(QBIT), with_cni(policy_apis=CALICO), LIVE).notes == ()


def test_a_hard_deny_that_may_come_second_is_not_relied_on() -> None:
    shape, facts = topology(QBIT), with_cni(policy_apis=("policy.networking.k8s.io/v1alpha2",))
    assert killswitch.build(shape, facts, LIVE, dialect="clusternetworkpolicy").certain
    live = Live((*LIVE.objects, admin(0)))
    built = killswitch.build(shape, facts, live, dialect="clusternetworkpolicy")
    assert not built.certain
    assert any("x0 has priority 0" in note for note in built.notes)
    unread = Live(LIVE.objects, {"GlobalNetworkPolicy": "forbidden"})
    assert not killswitch.build(shape, with_cni(policy_apis=CALICO), unread).certain
    assert not killswitch.build(shape, FACTS, LIVE, dialect="networkpolicy").certain


def outside(kind: str, port: int = 8080, **spec: Any) -> dict[str, Any]:
    found = service("door", 80, port, "10.96.9.9", app="qbit")
    found["spec"] |= {"type": kind} | spec
    return found


@pytest.mark.parametrize(
    ("lan", "objects", "said"),
    [
        (["web"], [outside("NodePort")], "hides who calls"),
        (["web"], [outside("LoadBalancer")], "hides who calls"),
        (["web"], [outside("LoadBalancer", externalTrafficPolicy="Local")], ""),
        (["web"], [outside("NodePort", 9999, externalTrafficPolicy="Local")], "not under lan"),
        ([], [outside("ClusterIP")], ""),
        ([], [outside("ClusterIP", externalIPs=["192.168.1.50"])], "externalIPs"),
        ([], [outside("NodePort")], "not under lan"),
        (
            [],
            [
                outside("ClusterIP"),
                {
                    "apiVersion": "networking.k8s.io/v1",
                    "kind": "Ingress",
                    "metadata": {"name": "site", "namespace": "media"},
                    "spec": {"rules": [{"http": {"paths": [{"backend": {"service": {"name": "door"}}}]}}]},
                },
            ],
            "Ingress site",
        ),
    ],
)
def test_ways_in_that_nobody_declared_are_told(lan: list[str], objects: list[dict[str, Any]], said: str) -> None:
    facts = with_cni(policy_apis=CALICO)
    notes = killswitch.build(topology(QBIT | {"lan": lan}), facts, Live((deployment("qbit"), *objects))).notes
    assert [said in note for note in notes] == ([True] if said else [])


def test_a_host_port_is_told() -> None:
    found = deployment("qbit")
    found["spec"]["template"]["spec"]["containers"][0]["ports"][0]["hostPort"] = 80
    notes = killswitch.build(topology(QBIT), with_cni(policy_apis=CALICO), Live((found,))).notes
    assert "hostPort 80" in notes[0]
