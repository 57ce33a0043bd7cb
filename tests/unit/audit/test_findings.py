# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every finding by name: what makes it, what does not, and that our own policies give none that is an error."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._audit.audit import audit
from ansible_collections.homelab.netguard.plugins.module_utils._audit.explain import explain
from ansible_collections.homelab.netguard.plugins.module_utils._audit.findings import Finding
from ansible_collections.homelab.netguard.plugins.module_utils._audit.matrix import matrix, table
from ansible_collections.homelab.netguard.plugins.module_utils._audit.page import page
from ansible_collections.homelab.netguard.plugins.module_utils._errors import NetguardError
from ansible_collections.homelab.netguard.plugins.module_utils._facts.model import Cni, Facts
from ansible_collections.homelab.netguard.plugins.module_utils._manifests import killswitch, segments
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Live
from ansible_collections.homelab.netguard.plugins.module_utils._topology.model import Topology
from ansible_collections.homelab.netguard.plugins.module_utils._topology.parse import parse
from audit_shapes import custom, deployment, facts, namespace, networks, policy

APIS = {"calico": ("projectcalico.org/v3",), "cilium": ("cilium.io/v2",)}
GATEWAY = {"name": "proton", "namespace": "vpn", "provider": "protonvpn", "credentials": {"secret": "x"}}
APPS: list[dict[str, Any]] = [
    {"name": "qb", "namespace": "media", "pods": {"app": "qb"}, "ports": {"web": 8080}, "vpn": "proton", "uses": ["arr:web"]},
    {"name": "arr", "namespace": "media", "pods": {"app": "arr"}, "ports": {"web": 9696}, "uses": ["data/db:sql"]},
    {"name": "db", "namespace": "data", "pods": {"app": "db"}, "ports": {"sql": 5432}},
]
WORKLOADS = [*deployment("qb", "media"), *deployment("arr", "media"), *deployment("db", "data")]
DNS = deployment("coredns", "kube-system", **{"k8s-app": "kube-dns"})


def topology(apps: list[dict[str, Any]] | None = None, **more: Any) -> Topology:
    return parse("home", [{**GATEWAY, **more.pop("gateway", {})}], apps or APPS, more.get("platform", {}), more.get("namespaces"))


def home(known: Facts, declared: Topology, workloads: list[Any] | None = None, dialect: str = "networkpolicy") -> list[Any]:
    """What our own modules write, with the workloads."""
    there = Live(tuple(WORKLOADS if workloads is None else workloads))
    closed = killswitch.build(declared, known, there, dialect=dialect, clients=declared.clients)
    return [*there.objects, *DNS, *closed.desired.objects, *segments.build(declared, known, there).desired.objects]


def run(
    extra: list[Any] | None = None, *, known: Facts | None = None, declared: Topology | None = None, drop: str = "", **options: Any
) -> list[Finding]:
    known, declared = known or facts(), declared or topology()
    workloads, dialect = options.pop("workloads", None), options.pop("dialect", "networkpolicy")
    objects = [item for item in home(known, declared, workloads, dialect) if not drop or drop not in item["metadata"]["name"]]
    return audit(declared, known, Live((*objects, *(extra or []))), **options).findings


def codes(found: list[Finding], *severities: str) -> set[str]:
    return {item.code for item in found if not severities or item.severity in severities}


@pytest.mark.parametrize("cni", ["calico", "cilium", "kube-router", "kindnet", "antrea", "canal"])
def test_what_we_write_ourselves_is_clean(cni: str) -> None:
    known = facts(cni, cni=Cni(cni, True, policy_apis=APIS.get(cni, ()), translates_kernel_packets=True))
    found = run(known=known, dialect="auto")
    assert codes(found, "error", "warning") == set(), [str(item) for item in found if item.severity != "info"]


def allow(**spec: Any) -> Any:
    return policy("extra", "media", policyTypes=["Egress"], **spec)


def block(cidr: str, *left_out: str) -> dict[str, Any]:
    return {"to": [{"ipBlock": {"cidr": cidr, **({"except": list(left_out)} if left_out else {})}}]}


SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "qb", "namespace": "media"},
    "spec": {"type": "NodePort", "selector": {"app": "qb"}, "ports": [{"port": 80, "targetPort": 8080, "nodePort": 30080}]},
}
WITH_LAN = {"declared": topology([{**APPS[0], "lan": ["web"]}, *APPS[1:]])}
V6 = facts(ip_families=("ipv4", "ipv6"), pods=networks("10.42.0.0/16", "2001:db8:42::/56"))

#: name: (code, severity, what the message or rule holds, objects beside our own, options)
CASES: dict[str, tuple[str, str, str, list[Any], dict[str, Any]]] = {
    "a namespace-wide internet policy": ("leak", "error", "IPv4", [allow(egress=[block("0.0.0.0/0", "10.0.0.0/8")])], {}),
    "two halves of the internet": ("leak", "error", "IPv4", [allow(egress=[block("0.0.0.0/1"), block("128.0.0.0/1")])], {}),
    "one public address": ("leak", "error", "9.9.9.9", [allow(egress=[block("9.9.9.9/32")])], {}),
    "the other family": ("leak", "error", "IPv6", [allow(egress=[block("::/0")])], {"known": V6}),
    "DNS without to": ("leak", "error", "IPv4", [allow(egress=[{"ports": [{"port": 53, "protocol": "UDP"}]}])], {}),
    "a Calico policy before it": (
        "leak",
        "error",
        "IPv4",
        [
            custom(
                "projectcalico.org/v3",
                "GlobalNetworkPolicy",
                "g",
                {"order": 1, "types": ["Egress"], "egress": [{"action": "Allow"}]},
            )
        ],
        {},
    ),
    "a clusterwide Cilium policy": (
        "leak",
        "error",
        "IPv4",
        [
            custom(
                "cilium.io/v2",
                "CiliumClusterwideNetworkPolicy",
                "c",
                {"endpointSelector": {}, "egress": [{"toEntities": ["world"]}]},
            )
        ],
        {"known": facts("cilium")},
    ),
    "an Admin tier that accepts": (
        "leak",
        "error",
        "IPv4",
        [
            custom(
                "policy.networking.k8s.io/v1alpha2",
                "ClusterNetworkPolicy",
                "c",
                {
                    "tier": "Admin",
                    "priority": 1,
                    "subject": {"namespaces": {}},
                    "egress": [{"action": "Accept", "to": [{"networks": ["0.0.0.0/0"]}]}],
                },
            )
        ],
        {"known": facts("kindnet")},
    ),
    "no kill switch": ("killswitch-missing", "error", "qb", [], {"drop": "netguard-killswitch"}),
    "the LAN": ("private-open", "warning", "192.0.2", [allow(egress=[block("192.0.2.0/24")])], {}),
    "carrier-grade addresses": ("private-open", "warning", "100.64", [allow(egress=[block("100.64.0.0/10")])], {}),
    "the cluster's DNS": (
        "dns-leak",
        "error",
        "home line",
        [allow(egress=[{"to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}]}])],
        {},
    ),
    "a pod that nobody declared": (
        "undeclared-open",
        "error",
        "data/Deployment/db",
        [
            allow(egress=[{"to": [{"namespaceSelector": {}}]}]),
            policy("in", "data", policyTypes=["Ingress"], ingress=[{}]),
        ],
        {},
    ),
    "a declared edge without its ingress side": (
        "declared-blocked",
        "error",
        "ingress of data/Deployment/db",
        [],
        {"drop": "segment-db"},
    ),
    "no DNS for an isolated app": ("dns-dead", "error", "DNS", [], {"drop": "segment-arr"}),
    "a gateway that is closed": ("gateway-unreachable", "error", "48879", [policy("shut", "vpn", policyTypes=["Ingress"])], {}),
    "a ping that the image needs": (
        "gateway-icmp-dead",
        "error",
        "icmp",
        [policy("shut", "vpn", policyTypes=["Ingress"], ingress=[{"ports": [{"port": 48879, "protocol": "UDP"}]}])],
        {"declared": topology(gateway={"overlay": {"scripts": "image"}})},
    ),
    "VXLAN on Calico's own port": (
        "vxlan-port-dropped",
        "error",
        "4789",
        [],
        {"declared": topology(gateway={"overlay": {"port": 4789}})},
    ),
    "a CNI without enforcement": ("no-enforcement", "error", "flannel", [], {"known": facts("flannel")}),
    "a language that is not obeyed": (
        "not-obeyed",
        "warning",
        "cilium",
        [custom("projectcalico.org/v3", "GlobalNetworkPolicy", "g", {})],
        {"known": facts("cilium")},
    ),
    "empty egress without policyTypes": ("policytypes", "warning", "isolates nothing", [policy("x", "data", egress=[])], {}),
    "dead rules": ("policytypes", "warning", "dead", [policy("x", "data", policyTypes=["Egress"], ingress=[{}])], {}),
    "a slipped dash": (
        "and-or",
        "warning",
        "either",
        [policy("x", "data", ingress=[{"from": [{"namespaceSelector": {}}, {"podSelector": {"matchLabels": {"a": "b"}}}]}])],
        {},
    ),
    "exceptions that forget": (
        "except-forgets",
        "warning",
        "100.64.0.0/10",
        [policy("x", "data", policyTypes=["Egress"], egress=[block("0.0.0.0/0", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")])],
        {},
    ),
    "the Services' range": (
        "inert",
        "warning",
        "after translation",
        [policy("x", "data", policyTypes=["Egress"], egress=[block("10.43.0.1/32")])],
        {},
    ),
    "the pods' range on Cilium": (
        "inert",
        "warning",
        "matches no pod",
        [policy("x", "data", policyTypes=["Egress"], egress=[block("10.42.0.0/16")])],
        {"known": facts("cilium")},
    ),
    "the pods' range elsewhere": (
        "pod-range",
        "warning",
        "relays",
        [policy("x", "data", policyTypes=["Egress"], egress=[block("10.42.0.0/16")])],
        {},
    ),
    "a policy without pods": (
        "selects-nothing",
        "warning",
        "no pod",
        [policy("x", "data", podSelector={"matchLabels": {"app": "nobody"}}, policyTypes=["Ingress"])],
        {},
    ),
    "a namespace without policies": ("namespace-bare", "info", "namespace wild", deployment("web", "wild"), {}),
    "15008 in the mesh": (
        "hbone-voids-ports",
        "info",
        "15008",
        [
            namespace("data", **{"istio.io/dataplane-mode": "ambient"}),
            policy("x", "data", ingress=[{"from": [{"podSelector": {}}], "ports": [{"port": 15008}, {"port": 5432}]}]),
        ],
        {},
    ),
    "a NodePort that nobody declared": ("answers-outside", "warning", "30080", [SERVICE], {}),
    "a NodePort that is open to the outside": (
        "answers-outside",
        "error",
        "30080",
        [SERVICE, policy("in", "media", policyTypes=["Ingress"], ingress=[{}])],
        {},
    ),
    "a NodePort that hides its sources": (
        "reply-source-lost",
        "warning",
        "externalTrafficPolicy",
        [SERVICE],
        WITH_LAN,
    ),
    "an Ingress that nobody declared": (
        "answers-outside",
        "warning",
        "Ingress",
        [
            {**SERVICE, "spec": {**SERVICE["spec"], "type": "ClusterIP"}},  # type: ignore[dict-item]
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "Ingress",
                "metadata": {"name": "qb", "namespace": "media"},
                "spec": {"defaultBackend": {"service": {"name": "qb", "port": {"number": 80}}}},
            },
        ],
        {},
    ),
    "a Service that leads out": (
        "service-leads-out",
        "info",
        "8.8.8.8",
        [
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "out", "namespace": "data"},
                "spec": {"ports": [{"port": 1}]},
            },
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": "out-1", "namespace": "data", "labels": {"kubernetes.io/service-name": "out"}},
                "endpoints": [{"addresses": ["8.8.8.8"]}],
            },
        ],
        {},
    ),
    "a malformed policy": ("malformed", "error", "no CIDR", [policy("x", "data", egress=[block("10.0.0.0/99")])], {}),
    "a wide range of the LAN": (
        "range-holds-relay",
        "warning",
        "whole networks",
        [],
        {"declared": topology([{**APPS[0], "external": [{"to": "192.168.0.0/16", "ports": [80]}]}, *APPS[1:]])},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_finding(name: str) -> None:
    code, severity, held, extra, options = CASES[name]
    found = [item for item in run(extra, **options) if item.code == code and item.severity == severity]
    assert found, name
    assert any(held in f"{item} {dict(item.witness)}" for item in found), [str(item) for item in found]
    without = run(known=options.get("known"))
    if extra:
        assert not [item for item in without if item.code == code and held in str(item)], "found without its cause"


def test_a_leak_names_witness_policy_and_rule() -> None:
    (found,) = [item for item in run([allow(egress=[{"to": [{"podSelector": {}}]}, block("0.0.0.0/0")])]) if item.code == "leak"]
    assert (found.policy, found.rule) == ("NetworkPolicy media/extra", "egress[1]")
    assert dict(found.witness)["destination"] == "1.1.1.1"
    assert found.mend


@pytest.mark.parametrize(("cni", "apis"), [("calico", "projectcalico.org/v3"), ("cilium", "cilium.io/v2")])
def test_a_hard_deny_holds_against_a_policy_that_opens(cni: str, apis: str) -> None:
    known = facts(cni, cni=Cni(cni, True, policy_apis=(apis,), translates_kernel_packets=True))
    opened = [allow(egress=[block("0.0.0.0/0")])]
    assert "leak" in codes(run(opened, known=known, dialect="networkpolicy"))
    assert "leak" not in codes(run(opened, known=known, dialect="auto"))


def test_a_client_on_the_node_s_network() -> None:
    known, declared = facts(), topology()
    objects = [item for item in home(known, declared) if item["kind"] != "Deployment" or item["metadata"]["name"] != "qb"]
    found = audit(declared, known, Live((*objects, *deployment("qb", "media", host=True)))).findings
    assert "host-network" in codes(found, "error")


def test_a_template_with_other_labels_than_the_kill_switch_selects() -> None:
    known, declared = facts(), topology()
    objects = home(known, declared)
    for item in objects:
        if item["kind"] == "NetworkPolicy" and "killswitch" in item["metadata"]["name"]:
            item["spec"]["podSelector"] = {"matchLabels": {"app": "qbittorrent"}}
    found = audit(declared, known, Live(tuple(objects))).findings
    assert "killswitch-mismatch" in codes(found, "error")


def test_a_relay_is_named() -> None:
    found = run(
        [policy("out", "media", podSelector={"matchLabels": {"app": "arr"}}, policyTypes=["Egress"], egress=[block("0.0.0.0/0")])]
    )
    (relay,) = [item for item in found if item.code == "relay"]
    assert "media/Deployment/arr" in relay.message
    assert relay.subject == "media/qb"


def test_an_unknown_cni_is_evaluated_as_every_one() -> None:
    known = facts("unknown")
    found = run([policy("x", "data", policyTypes=["Egress"], egress=[block("10.42.0.0/16")])], known=known)
    inert = [item for item in found if item.code == "inert" and "pods' range" in item.message]
    assert {name for item in inert for name in item.profiles} == {"cilium", "terway"}
    assert "profiles-disagree" in codes(found, "warning")


def test_a_kind_that_may_not_be_read_is_an_error() -> None:
    objects = home(facts(), topology())
    found = audit(topology(), facts(), Live(tuple(objects), {"GlobalNetworkPolicy": "forbidden", "Tier": "absent"})).findings
    assert [item.subject for item in found if item.code == "not-evaluated"] == ["GlobalNetworkPolicy"]


def test_explanations() -> None:
    known, declared = facts(), topology()
    engine = audit(declared, known, Live(tuple(home(known, declared)))).engine
    denied = explain(engine, {"source": "media/qb", "destination": "1.1.1.1", "port": "443/tcp"})
    assert denied["verdict"] == "denied"
    assert any("netguard-killswitch-qb" in line for line in denied["words"])
    allowed = explain(engine, {"source": "media/arr", "destination": "data/db", "port": "5432"})
    assert allowed["verdict"] == "allowed"
    assert {step["side"] for step in allowed["steps"]} == {"egress", "ingress"}
    with pytest.raises(NetguardError, match="is no address, app"):
        explain(engine, {"source": "media/nobody", "destination": "data/db"})
    with pytest.raises(NetguardError, match="is no port"):
        explain(engine, {"source": "media/qb", "destination": "data/db", "port": "many"})


def test_the_matrix_and_its_page() -> None:
    known, declared = facts(), topology()
    report = audit(declared, known, Live(tuple(home(known, declared))))
    found = matrix(report.engine)
    cells = {(row["from"], name): cell for row in found["rows"] for name, cell in zip(found["names"], row["cells"], strict=True)}
    assert cells["media/arr", "data/db"] == {"verdict": "allowed", "ports": "5432/tcp"}
    assert cells["data/db", "media/arr"]["verdict"] == "denied"
    assert cells["media/qb", "internet"]["verdict"] == "denied"
    assert cells["media/arr", "media/arr"]["verdict"] == "self"
    assert len(table(found)) == len(found["names"]) + 1
    text = page(found, [Finding("x", "error", "<b>", "<script>alert(1)</script>").data()], "home")
    assert "<script>" not in text
    assert "<svg" in text
    assert "http" not in text.replace("http-equiv", ""), "the page needs nothing beside itself"
