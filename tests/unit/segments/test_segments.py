# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Segmentation as tables: one declaration, the rules on both of its sides, and what is refused."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.homelab.netguard.plugins.module_utils._errors import FaultsError, NetguardError
from ansible_collections.homelab.netguard.plugins.module_utils._facts.model import Cni, Dns, Endpoint, Facts
from ansible_collections.homelab.netguard.plugins.module_utils._manifests import segments
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Live
from ansible_collections.homelab.netguard.plugins.module_utils._topology.parse import parse

ROOT = Path(__file__).resolve().parents[3]


def networks(*texts: str) -> tuple[Any, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


FACTS = Facts(
    pods=networks("10.42.0.0/16"),
    services=networks("10.43.0.0/16"),
    nodes=networks("10.0.40.101/32", "10.0.40.102/32"),
    lan=networks("10.0.0.0/16"),
    api_endpoints=(Endpoint("10.0.40.101", 6443),),
    api_service_ip="10.43.0.1",
    dns=Dns(("10.43.0.10",), "kube-system", {"k8s-app": "kube-dns"}),
    cni=Cni("calico", True, policy_apis=("crd.projectcalico.org/v1",)),
)
PLATFORM = {
    "ingress": {"namespace": "kube-system", "pods": {"app": "traefik"}},
    "prometheus": {"namespace": "monitoring", "pods": {"app": "prometheus"}},
}


def app(name: str, namespace: str = "media", **keys: Any) -> dict[str, Any]:
    return {"name": name, "namespace": namespace, "pods": {"app": name}, "ports": {"web": 8080}, **keys}


def build(
    apps: list[dict[str, Any]], facts: Facts = FACTS, live: Live | None = None, dialect: str = "auto", **declared: Any
) -> Any:
    topology = parse("home", declared.get("gateways"), apps, declared.get("platform", {}), declared.get("namespaces"))
    return segments.build(topology, facts, live or Live(), dialect)


def policies(built: Any) -> dict[tuple[str, str], Any]:
    return {(item["metadata"]["namespace"], item["metadata"]["name"]): item["spec"] for item in built.desired.objects}


def pods(namespace: str, **labels: str) -> dict[str, Any]:
    return {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "podSelector": {"matchLabels": labels},
    }


DNS = {
    "to": [pods("kube-system", **{"k8s-app": "kube-dns"})],
    "ports": [{"protocol": "TCP", "port": 53}, {"protocol": "UDP", "port": 53}],
}


def tcp(*numbers: int) -> list[dict[str, Any]]:
    return [{"protocol": "TCP", "port": number} for number in numbers]


def test_an_app_that_declares_nothing_may_resolve_names_and_no_more() -> None:
    built = policies(build([app("web")]))
    assert built[("media", "netguard-segment-web")] == {
        "podSelector": {"matchLabels": {"app": "web"}},
        "policyTypes": ["Ingress", "Egress"],
        "egress": [DNS],
    }
    assert built[("media", "netguard-default-deny")] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_allowances_come_before_denials() -> None:
    waves = build([app("web"), app("db", "data")]).desired.waves
    assert [[item["metadata"]["name"] for item in wave] for wave in waves] == [
        ["netguard-segment-db", "netguard-segment-web"],
        ["netguard-default-deny", "netguard-default-deny"],
    ]


def test_a_use_is_written_on_both_sides() -> None:
    built = policies(build([app("web", uses=["data/db:web"]), app("db", "data")]))
    assert {"to": [pods("data", app="db")], "ports": tcp(8080)} in built[("media", "netguard-segment-web")]["egress"]
    assert built[("data", "netguard-segment-db")]["ingress"] == [{"from": [pods("media", app="web")], "ports": tcp(8080)}]


#: name: (keys of the app, direction, the rule that must be there)
RULES: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "exposed": ({"exposed": "web"}, "ingress", {"from": [pods("kube-system", app="traefik")], "ports": tcp(8080)}),
    "metrics": ({"metrics": "web"}, "ingress", {"from": [pods("monitoring", app="prometheus")], "ports": tcp(8080)}),
    "external": (
        {"external": [{"to": "192.168.1.10", "ports": [8006]}]},
        "egress",
        {"to": [{"ipBlock": {"cidr": "192.168.1.10/32"}}], "ports": tcp(8006)},
    ),
    "kube_api": ({"kube_api": True}, "egress", {"to": [{"ipBlock": {"cidr": "10.0.40.101/32"}}], "ports": tcp(6443)}),
    "lan": ({"lan": ["web"]}, "ingress", {"from": [{"ipBlock": {"cidr": "10.0.0.0/16"}}], "ports": tcp(8080)}),
    "peers, egress": ({"peers": ["web"]}, "egress", {"to": [pods("media", app="web")], "ports": tcp(8080)}),
    "peers, ingress": ({"peers": ["web"]}, "ingress", {"from": [pods("media", app="web")], "ports": tcp(8080)}),
    "webhook": (
        {"webhook": 9443},
        "ingress",
        {"from": [{"ipBlock": {"cidr": "10.0.40.101/32"}}, {"ipBlock": {"cidr": "10.0.40.102/32"}}], "ports": tcp(9443)},
    ),
    "CloudNativePG, the operator": (
        {"operator": "cloudnative-pg"},
        "ingress",
        {
            "from": [pods("cnpg-system", **{"app.kubernetes.io/name": "cloudnative-pg"}), pods("media", app="web")],
            "ports": tcp(5432, 8000),
        },
    ),
    "CloudNativePG, replication": (
        {"operator": "cloudnative-pg"},
        "egress",
        {"to": [pods("media", app="web")], "ports": tcp(5432, 8000)},
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_a_declaration_becomes_a_rule(name: str) -> None:
    keys, direction, rule = RULES[name]
    namespaces = [{"name": name, "default": "open"} for name in ("kube-system", "monitoring")]
    built = policies(build([app("web", **keys)], platform=PLATFORM, namespaces=namespaces))
    assert rule in built[("media", "netguard-segment-web")][direction]


def test_the_internet_leaves_out_everything_special_and_everything_of_the_home() -> None:
    facts = Facts(**{**FACTS.__dict__, "lan": networks("10.0.0.0/16", "8.8.4.0/24")})
    rule = policies(build([app("web", internet=[443])], facts))[("media", "netguard-segment-web")]["egress"][-1]
    (block,) = (target["ipBlock"] for target in rule["to"])
    left_out = [ipaddress.ip_network(text) for text in block["except"]]
    assert block["cidr"] == "0.0.0.0/0"
    assert rule["ports"] == tcp(443)
    for inside in ("10.1.2.3", "100.64.0.1", "169.254.169.254", "127.0.0.1", "192.168.1.1", "172.16.0.1", "224.0.0.1", "8.8.4.4"):
        assert any(ipaddress.ip_address(inside) in network for network in left_out), inside
    for outside in ("1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1"):
        assert not any(ipaddress.ip_address(outside) in network for network in left_out), outside


def test_both_families_where_the_cluster_has_both() -> None:
    facts = Facts(**{**FACTS.__dict__, "ip_families": ("ipv4", "ipv6")})
    rule = policies(build([app("web", internet=True)], facts))[("media", "netguard-segment-web")]["egress"][-1]
    assert [target["ipBlock"]["cidr"] for target in rule["to"]] == ["0.0.0.0/0", "2000::/3"]
    assert "ports" not in rule


def test_a_vpn_client_gets_no_rule_here() -> None:
    built = policies(build([app("qb", vpn="proton"), app("web", internet=True)], gateways=[{"name": "proton", "provider": "x"}]))
    assert set(built) == {("media", "netguard-segment-web"), ("media", "netguard-default-deny")}


def test_a_namespace_s_one_policy_leaves_vpn_clients_out() -> None:
    apps = [app("qb", vpn="proton"), app("web", internet=True), app("db")]
    gateways = [{"name": "proton", "provider": "x"}]
    built = policies(build(apps, gateways=gateways, namespaces=[{"name": "media", "layout": "namespace"}]))
    assert built[("media", "netguard-segments")]["podSelector"] == {
        "matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["qb"]}]
    }


def test_a_client_that_no_label_tells_apart_is_refused_in_that_layout() -> None:
    apps = [app("qb", vpn="proton", pods={"app": "a"}), app("web", pods={"app": "a", "part": "web"})]
    gateways = [{"name": "proton", "provider": "x"}]
    with pytest.raises(FaultsError, match=r"apps\[0\]\.pods: no label tells"):
        build(apps, gateways=gateways, namespaces=[{"name": "media", "layout": "namespace"}])


def test_the_controller_reaches_what_is_exposed() -> None:
    apps = [app("web", exposed="web"), app("traefik", "kube-system", lan=["web"])]
    built = policies(build(apps, platform={"ingress": PLATFORM["ingress"]}))
    assert {"to": [pods("media", app="web")], "ports": tcp(8080)} in built[("kube-system", "netguard-segment-traefik")]["egress"]


def test_a_controller_that_would_be_cut_off_is_refused() -> None:
    apps = [app("web", exposed="web"), app("other", "kube-system")]
    with pytest.raises(FaultsError, match=r"platform\.ingress: its pods are in kube-system"):
        build(apps, platform={"ingress": PLATFORM["ingress"]})


def test_nodes_stand_for_lan_clients_behind_a_translating_service() -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "media"},
        "spec": {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    # what the CNI wrote is the tunnel's address; a slice of a CNI with address management of its own belongs to pods
    written = {"projectcalico.org/IPv4VXLANTunnelAddr": "10.42.7.9"}
    nodes = (
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}, "spec": {"podCIDRs": ["10.42.1.0/24"]}},
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "b", "annotations": written},
            "spec": {"podCIDRs": ["10.42.2.0/24"]},
        },
    )
    built = policies(build([app("web", lan=["web"])], live=Live((service, *nodes))))
    sources = [entry["ipBlock"]["cidr"] for entry in built[("media", "netguard-segment-web")]["ingress"][0]["from"]]
    assert sources == ["10.0.0.0/16", "10.0.40.101/32", "10.0.40.102/32", "10.42.1.0/32", "10.42.1.1/32", "10.42.7.9/32"]


def test_the_mesh_opens_its_tunnel_between_members_only() -> None:
    apps = [app("web", uses=["data/db:web", "plain/old:web"]), app("db", "data"), app("old", "plain")]
    facts = Facts(**{**FACTS.__dict__, "mesh_ambient": True, "mesh_probe_sources": networks("169.254.7.127/32")})
    built = policies(build(apps, facts, namespaces=[{"name": "media", "mesh": True}, {"name": "data", "mesh": True}]))
    egress = built[("media", "netguard-segment-web")]["egress"]
    assert {"to": [pods("data", app="db")], "ports": tcp(8080, 15008)} in egress
    assert {"to": [pods("plain", app="old")], "ports": tcp(8080)} in egress
    ingress = built[("data", "netguard-segment-db")]["ingress"]
    assert {"from": [pods("media", app="web")], "ports": tcp(8080, 15008)} in ingress
    assert {"from": [{"ipBlock": {"cidr": "169.254.7.127/32"}}]} in ingress


CILIUM = Facts(**{**FACTS.__dict__, "cni": Cni("cilium", True, False, False, policy_apis=("cilium.io/v2",))})


def extra(built: Any, kind: str) -> Any:
    (found,) = (item for item in built.desired.objects if item["kind"] == kind and "segment" in item["metadata"]["name"])
    return found["spec"]


def test_cilium_is_told_of_nodes_and_the_api_server_in_its_own_words() -> None:
    keys = {"kube_api": True, "webhook": 9443, "icmp": ["10.0.1.1"], "external": [{"to": "10.0.40.102", "ports": [9100]}]}
    built = build([app("web", **keys)], CILIUM)
    found = next(item["spec"] for item in built.desired.objects if item["kind"] == "CiliumNetworkPolicy")
    assert found["enableDefaultDeny"] == {"ingress": False, "egress": False}
    assert {"toEntities": ["kube-apiserver"], "toPorts": [{"ports": [{"port": "6443", "protocol": "TCP"}]}]} in found["egress"]
    assert {"toEntities": ["host", "remote-node"], "toPorts": [{"ports": [{"port": "9100", "protocol": "TCP"}]}]} in found["egress"]
    assert {"toCIDR": ["10.0.1.1/32"], "icmps": [{"fields": [{"family": "IPv4", "type": 8}]}]} in found["egress"]
    assert found["ingress"][0]["fromEntities"] == ["kube-apiserver", "remote-node", "host"]


@pytest.mark.parametrize("layout", ["app", "namespace"])
def test_rules_that_match_nothing_on_cilium_are_said_to(layout: str) -> None:
    spaces = [{"name": "media", "layout": layout}]
    apps = [app("web", kube_api=True, webhook=9443, external=[{"to": "192.168.1.10", "ports": [8006]}])]
    for facts, said in ((CILIUM, "kube_api, webhook called by the API server"), (FACTS, "")):
        objects = build(apps, facts, namespaces=spaces).desired.objects
        written = [
            item["metadata"].get("annotations", {}) for item in objects if item["metadata"]["name"].startswith("netguard-segment")
        ]
        assert said in written[0].get("homelab.netguard/inert", "")
        assert bool(written[0]) == bool(said)


def test_calico_is_told_of_pings() -> None:
    built = build([app("web", icmp=["10.0.1.1", "fd00::1"])])
    found = next(item for item in built.desired.objects if item["apiVersion"] == "crd.projectcalico.org/v1")
    assert found["spec"]["selector"] == "app == 'web'"
    assert found["spec"]["egress"] == [
        {"action": "Allow", "protocol": "ICMP", "destination": {"nets": ["10.0.1.1/32"]}},
        {"action": "Allow", "protocol": "ICMPv6", "destination": {"nets": ["fd00::1/128"]}},
    ]


def test_what_cannot_be_said_is_refused() -> None:
    facts = Facts(**{**FACTS.__dict__, "cni": Cni("kindnet", True)})
    with pytest.raises(FaultsError, match=r"apps\[0\]\.icmp: a NetworkPolicy cannot allow ICMP"):
        build([app("web", icmp=["10.0.1.1"])], facts)
    with pytest.raises(NetguardError, match=r"dialect cilium needs cilium\.io/v2"):
        build([app("web")], facts, dialect="cilium")


def test_pings_need_no_policy_where_they_always_pass() -> None:
    facts = Facts(**{**FACTS.__dict__, "cni": Cni("kube-router", True)})
    assert all(
        item["apiVersion"] == "networking.k8s.io/v1" for item in build([app("web", icmp=["10.0.1.1"])], facts).desired.objects
    )


@pytest.mark.parametrize("keys", [{"kube_api": True}, {"webhook": 9443}, {"external": [{"to": "10.0.40.102", "ports": [8006]}]}])
def test_what_a_plain_policy_cannot_say_on_cilium_is_refused(keys: dict[str, Any]) -> None:
    cilium = Facts(**{**FACTS.__dict__, "cni": Cni("cilium", True, policy_apis=("cilium.io/v2",))})
    with pytest.raises(FaultsError, match=r"apps\[0\]: a NetworkPolicy on Cilium matches neither nodes nor the API server"):
        build([app("web", **keys)], cilium, dialect="networkpolicy")
    assert build([app("web", **keys)], cilium).desired.objects
    by_address = Facts(**{**FACTS.__dict__, "cni": Cni("cilium", True, ipblock_matches_nodes=True)})
    assert build([app("web", **keys)], by_address, dialect="networkpolicy").desired.objects


def test_an_operator_reaches_its_database_through_the_mesh() -> None:
    facts = Facts(**{**FACTS.__dict__, "mesh_ambient": True})
    spaces = [{"name": "media", "mesh": True}, {"name": "cnpg-system", "mesh": True, "default": "open"}]
    built = policies(build([app("db", operator="cloudnative-pg")], facts, namespaces=spaces))
    rule = built[("media", "netguard-segment-db")]["ingress"][0]
    assert [port["port"] for port in rule["ports"]] == [5432, 8000, 15008]


def test_pods_on_the_node_s_network_are_reported() -> None:
    workload = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "media"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"hostNetwork": True, "containers": []}},
        },
    }
    built = build([app("web"), app("other", uses=["web:web"])], live=Live((workload,)))
    assert built.not_covered == ("media/web runs on the node's network: no policy holds it",)
    assert {
        "to": [{"ipBlock": {"cidr": "10.0.40.101/32"}}, {"ipBlock": {"cidr": "10.0.40.102/32"}}],
        "ports": tcp(8080),
    } in policies(built)[("media", "netguard-segment-other")]["egress"]


MESH = [{"name": "media", "mesh": True, "layout": "namespace"}, {"name": "data", "mesh": True, "layout": "namespace"}]


def test_one_policy_for_a_namespace_that_would_open_the_tunnel_to_others_is_split() -> None:
    """Plain ports tell db and queue apart, 15008 does not: with both unions web would reach queue through the tunnel."""
    queue = app("queue", "data", ports={"web": 9000})
    apps = [app("web", uses=["data/db:web"]), app("job", uses=["data/queue:web"]), app("db", "data"), queue]
    built = build(apps, namespaces=MESH)
    assert {(namespace, name) for namespace, name in policies(built) if "deny" not in name} == {
        ("media", "netguard-segments"),
        ("data", "netguard-segment-db"),
        ("data", "netguard-segment-queue"),
    }
    assert "media/web to data/queue on 15008/tcp" in built.notes[0]
    plain = build(apps, namespaces=[{**item, "mesh": False} for item in MESH])
    assert {name for _namespace, name in policies(plain)} == {"netguard-segments", "netguard-default-deny"}


def test_one_policy_for_a_namespace_stays_where_it_opens_nothing_between_pods() -> None:
    apps = [app("web", uses=["data/db:web"], internet=[443]), app("job"), app("db", "data")]
    built = build(apps, namespaces=MESH[:1])
    assert ("media", "netguard-segments") in policies(built)
    assert built.notes == ("media: its one policy gives every pod there what single apps declared: internet (web)",)
    assert {entry["policy"] for entry in built.edges if entry["app"] == "media/web"} == {"netguard-segments"}


def test_prometheus_that_no_app_declares_reaches_each_app_on_its_own_port_alone() -> None:
    apps = [app("web", metrics="web"), app("job", ports={"web": 9000}, metrics="web")]
    namespaces = [{"name": "media", "layout": "namespace"}, {"name": "monitoring", "default": "open"}]
    built = build(apps, platform={"prometheus": PLATFORM["prometheus"]}, namespaces=namespaces)
    assert ("media", "netguard-segment-web") in policies(built)
    assert "monitoring (metrics) to media/web on 9000/tcp" in built.notes[0] or "media/job on 8080/tcp" in built.notes[0]


@pytest.mark.parametrize("name", ["seed-003", "seed-004"])
def test_the_seed_examples_build_and_are_stable(name: str) -> None:
    declared = yaml.safe_load((ROOT / "examples" / name / "homelab.yml").read_text())
    topology = parse(
        "home", None, declared["netguard_apps"], declared.get("netguard_platform"), declared.get("netguard_namespaces")
    )
    first, second = (segments.build(topology, FACTS, Live()) for _turn in range(2))
    assert first == second
    assert {item["metadata"]["namespace"] for item in first.desired.objects} >= {app.namespace for app in topology.apps}
