# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every doubt that the code can raise: it names the variable that settles it, and that variable does settle it."""

from __future__ import annotations

import ast
import ipaddress
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.homelab.netguard.plugins.filter.netguard import facts_table
from ansible_collections.homelab.netguard.plugins.module_utils import _facts
from ansible_collections.homelab.netguard.plugins.module_utils._errors import FaultsError
from ansible_collections.homelab.netguard.plugins.module_utils._facts.discover import discover
from ansible_collections.homelab.netguard.plugins.module_utils._facts.result import NEEDED, from_result
from clusters import CILIUM, KINDNET, KUBE_PROXY, S244, cluster, plane, two
from clusters_families import CLUSTERS
from contradictions import CASES, PLAIN
from recordings import (
    Cluster,
    Object,
    config,
    custom,
    daemonset,
    dns,
    kubeadm,
    service,
    servicecidr,
)

FOLDER = Path(str(_facts.__file__)).parent


def templates() -> dict[str, re.Pattern[str]]:
    """Each place in the code that raises a doubt -> what its text looks like."""
    found: dict[str, re.Pattern[str]] = {}
    for path in sorted(FOLDER.glob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef) or function.name in ("doubt", "doubt_of_the_cluster"):
                continue
            local = {
                target.id: item.value
                for item in ast.walk(function)
                if isinstance(item, ast.Assign)
                for target in item.targets
                if isinstance(target, ast.Name)
            }
            for call in ast.walk(function):
                name = getattr(call, "func", None) and (getattr(call.func, "attr", "") or getattr(call.func, "id", ""))  # type: ignore[attr-defined]
                if name in ("doubt", "doubt_of_the_cluster", "Doubt"):
                    said = call.args[1 if name == "Doubt" else 0]  # type: ignore[attr-defined]
                    said = local.get(said.id, said) if isinstance(said, ast.Name) else said
                    found[f"{path.name}: {ast.unparse(said)}"] = pattern(said)
    return found


def pattern(said: ast.expr) -> re.Pattern[str]:
    """Fixed words of a text as a pattern."""
    if isinstance(said, ast.Constant):
        return re.compile(re.escape(str(said.value)))
    if isinstance(said, ast.JoinedStr):
        return re.compile(".*".join(re.escape(str(part.value)) for part in said.values if isinstance(part, ast.Constant)))
    if isinstance(said, ast.BinOp):
        return pattern(said.left)
    # The nodes with the same slice: made elsewhere, joined here.
    assert ast.unparse(said) == "'; '.join(twice[:3])", ast.unparse(said)
    return re.compile("have the same slice")


@dataclass(frozen=True)
class Row:
    """A cluster that raises a doubt, a piece of it, and the overrides that settle it."""

    cluster: Cluster
    said: str
    settle: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)


def case(name: str) -> Cluster:
    return CASES[name][0]


PODS, SERVICES = {"pods": ["10.244.0.0/16"]}, {"services": ["10.96.0.0/16"]}
BLIND = PLAIN.broken("DaemonSet", "forbidden")
WHOLE_DNS = {"service_ip": "10.96.0.10", "namespace": "kube-system", "pod_labels": {"k8s-app": "kube-dns"}}
OTHER_DNS = service(
    "second", ["10.96.0.53"], "d", labels={"k8s-app": "kube-dns"}, ports=[{"port": 53, "protocol": "UDP"}], selector={"a": "b"}
)


def without_dns(*objects: Object) -> Cluster:
    return cluster(
        two(S244),
        "10.96.0.1",
        KINDNET,
        *plane("10.244.0.0/16", "10.96.0.0/16"),
        servicecidr("10.96.0.0/16"),
        name_server=[*objects],
    )


def refuse(manifest: Object) -> tuple[int, str]:
    """IPv6 is not there, IPv4 has this range."""
    if ":" in manifest["spec"]["clusterIP"]:
        return 422, "IPv6 is not configured on this cluster"
    return 422, "The range of valid IPs is 10.96.0.0/16"


BOTH_RECORDED = cluster(
    two(S244), "10.96.0.1", KINDNET, kubeadm("10.244.0.0/16", "10.96.0.0/16,fd00:96::/112"), refusal=refuse, version="v1.30.1"
)
ROWS: list[Row] = [
    # pods, services
    Row(cluster(two(), "10.96.0.1"), "pods: no source tells the range", PODS),
    Row(case("controller manager without --allocate-node-cidrs"), "pods: no source tells the range", PODS),
    Row(case("IPv6 pods that no source knows"), "are in use, but no source tells", {"pods": ["10.244.0.0/16", "fd00:77::/64"]}),
    Row(case("slices alone are parts"), "only parts are known", PODS),
    Row(case("running pod outside"), "lie outside of", {"pods": ["10.244.0.0/16", "10.7.0.0/16"]}),
    Row(
        case("controller managers that differ").less("kindnet").plus(daemonset("r", {"k8s-app": "kube-router"})),
        "the objects of kube-controller-manager do not agree",
        PODS,
    ),
    Row(case("flannel and controller manager differ, both cover"), "says 10.240.0.0/12, kube-controller", PODS),
    Row(
        case("ClusterIP outside of the ServiceCIDR, inside of the flag"),
        "but addresses outside of it are in use",
        {"services": ["10.96.0.0/16"]},
    ),
    Row(case("flags fit, but no CNI is to be seen"), "not known which allocator", {"cni": {"ipam": "nodes"}}),
    Row(cluster(two(), "10.96.0.1", refusal=refuse), "there may be further ranges", SERVICES),
    Row(
        cluster(two(S244), "10.96.0.1", KUBE_PROXY, kubeadm("10.244.0.0/16"), daemonset("r", {"k8s-app": "kube-router"}))
        .less("Node")
        .plus(*two()),
        "nothing is observed that would confirm",
        PODS,
    ),
    Row(case("a record that fits, and flags that do not"), "is only the record", PODS),
    Row(case("flags without ServiceCIDR on a version that has it"), "ranges may have been added since", SERVICES),
    Row(case("two nodes with the same slice"), "have the same slice", {**PODS, "force": True}),
    Row(case("pods overlap services"), "overlap the services", {"pods": ["10.96.0.0/16"], "force": True}),
    Row(case("pods overlap services"), "overlap the pods", {"services": ["10.96.0.0/12"], "force": True}),
    Row(case("services cover the nodes"), "they cover the nodes", {"services": ["10.96.0.0/12"], "force": True}),
    Row(case("services cover the nodes"), "services: the API endpoint", {"services": ["10.96.0.0/12"], "force": True}),
    Row(case("API endpoint among the pods"), "pods: the API endpoint", {**PODS, "force": True}),
    Row(BOTH_RECORDED, "has no IPv6 Services", SERVICES),
    Row(
        CLUSTERS["EKS, AWS VPC CNI with Calico's policies"][0],
        "pods have addresses of the cloud's own network",
        {"pods": ["10.1.0.0/16"]},
    ),
    Row(PLAIN, "does not begin at", SERVICES, {"overrides": {"services": ["10.64.0.0/10"]}}),
    Row(PLAIN, "by force", {**PODS, "force": True}, {"overrides": {"pods": ["10.9.0.0/16"], "force": True}}),
    # nodes, LAN
    Row(cluster([], "10.96.0.1"), "nodes: no node is to be seen", {"nodes": ["192.168.1.0/24"]}),
    Row(case("node without an address"), "no InternalIP on n3", {"nodes": ["192.168.1.0/24"]}),
    Row(PLAIN, "are nodes outside of", {"nodes": ["192.168.1.0/24"]}, {"overrides": {"nodes": ["192.168.7.0/24"]}}),
    Row(cluster([], "10.96.0.1"), "lan: no node and no network", {"lan": ["192.168.1.0/24"]}),
    Row(PLAIN, "the network of 192.168.1.10, 192.168.1.11 is not known", {"lan": ["192.168.1.0/24"]}),
    Row(case("pool that swallows the LAN"), "cannot be told apart by address", {"pods": ["192.168.8.0/21"]}),
    # everything else
    Row(PLAIN, "the distribution is not certain", {"distribution": "kubeadm"}),
    Row(BLIND, "no CNI is to be seen", {"cni": {"name": "kindnet", "ipam": "nodes"}}),
    Row(case("two CNIs that both run"), "several CNIs run", {"cni": {"name": "kindnet", "ipam": "nodes"}}),
    Row(
        PLAIN,
        "the allocator of mine is not known",
        {"cni": {"ipam": "nodes"}},
        {"overrides": {"cni": {"name": "mine"}}},
    ),
    Row(case("Calico pools, nothing proves the IPAM"), "nothing proves which IPAM", {"cni": {"ipam": "nodes"}}),
    Row(
        PLAIN.less("kindnet").plus(CILIUM),
        "cilium-config may not be read",
        {"cni": {"ipam": "nodes", "ipblock_matches_nodes": False}},
    ),
    Row(
        PLAIN.less("kindnet").plus(CILIUM, config("cilium-config", {"cni-chaining-mode": "aws-cni"})),
        "Cilium is chained",
        {"cni": {"ipam": "nodes"}},
    ),
    Row(
        PLAIN.less("kindnet").plus(
            daemonset("antrea-agent", {"component": "antrea-agent"}), custom("crd.antrea.io/v1beta1", "IPPool", "lan", spec={})
        ),
        "Antrea has IP pools of its own",
        {"cni": {"ipam": "nodes"}},
    ),
    Row(BLIND, "whether a NodeLocal DNSCache runs", {"dns": {"node_local_ip": ""}}),
    Row(BLIND, "whether Istio ambient runs", {"mesh": {"ambient": False}}),
    Row(without_dns(), "no Service of the cluster's DNS was found", {"dns": WHOLE_DNS}),
    Row(PLAIN.plus(OTHER_DNS), "several Services may be it", {"dns": WHOLE_DNS}),
    Row(without_dns(*dns("10.96.0.10", selector={})), "has no selector", {"dns": {"pod_labels": {"k8s-app": "kube-dns"}}}),
    Row(
        without_dns(dns("10.96.0.10", target="dns")[0]),
        "no endpoint tells the port",
        {"dns": {"ports": {"udp": [53], "tcp": [53]}}},
    ),
    Row(
        PLAIN.broken("EndpointSlice", "forbidden"),
        "the API server's endpoints are not known",
        {"api_server": {"endpoints": [{"ip": "192.168.1.10", "port": 6443}]}},
    ),
    Row(
        PLAIN.plus(config("kubeadm-config", {"ClusterConfiguration": "a: ["})),
        "not readable as what it should be",
        {**PODS, **SERVICES},
    ),
]


def raised(row: Row, overrides: dict[str, Any]) -> list[dict[str, str]]:
    merged = {**row.options.get("overrides", {})}
    for key, value in overrides.items():
        merged[key] = {**merged.get(key, {}), **value} if isinstance(value, dict) else value
    options = {**row.options, "overrides": merged}
    found: list[dict[str, str]] = discover(row.cluster, **options)["doubts"]
    return [item for item in found if row.said in item["doubt"]]


@pytest.mark.parametrize("row", ROWS, ids=[f"{number} {row.said}" for number, row in enumerate(ROWS)])
def test_the_variable_that_is_named_settles_it(row: Row) -> None:
    doubts = raised(row, {})
    assert doubts, discover(row.cluster, **row.options)["doubts"]
    for doubt in doubts:
        for key, value in row.settle.items():
            assert re.search(rf"netguard_overrides: \{{(.*[ ,])?{key}: ", doubt["settle"]) or len(row.settle) > 1, doubt
            for inner in value if isinstance(value, dict) else ():
                assert f"{inner}: " in doubt["settle"], doubt
    left = raised(row, row.settle)
    if row.settle.get("force"):
        # By force the doubt stays in sight, and the range holds.
        options = {**row.options, "overrides": row.settle}
        facts = discover(row.cluster, **options)
        assert {facts["ranges"][about]["status"] for about in row.settle if about != "force"} == {"complete"}
        assert all("force: true" in doubt["settle"] for doubt in doubts if "by force" not in doubt["doubt"])
    else:
        assert left == []


def test_no_doubt_is_missing_above() -> None:
    """Every place in the code that raises one is reached by a row."""
    rest = templates()
    assert len(rest) > 30
    for row in ROWS:
        for doubt in raised(row, {}):
            rest = {where: form for where, form in rest.items() if not form.search(doubt["doubt"])}
    # The networks of gateways are no override: test_an_overlay_that_overlaps.
    assert [where for where in rest if "overlaps" not in where] == []


def every_doubt() -> list[dict[str, str]]:
    """What all recordings and contradictions raise, also with sources that fail."""
    recorded = [*(entry[0] for entry in CLUSTERS.values()), *(entry[0] for entry in CASES.values()), *(row.cluster for row in ROWS)]
    found: dict[str, dict[str, str]] = {}
    for item in recorded:
        for broken in (item, *(item.broken(kind, "forbidden") for kind in ("Node", "DaemonSet", "ConfigMap", "ServiceCIDR"))):
            for doubt in discover(broken)["doubts"]:
                found.setdefault(json.dumps(doubt), doubt)
    return [*found.values()]


def test_each_names_a_variable_that_there_is() -> None:
    """Whatever is written as the setting is one that the module takes."""
    doubts = every_doubt()
    assert len(doubts) > 100
    for doubt in doubts:
        written = doubt["settle"].split("netguard_overrides: ")[1:]
        assert written, doubt
        for text in written:
            text = text[: text.rindex("}") + 1]
            given = yaml.safe_load(text.replace("[...]", "[]").replace("{...}", "{}").replace("...", "x"))
            given = {key: ["192.0.2.0/24"] if value == [] else value for key, value in given.items()}
            discover(PLAIN, overrides=given)  # raises for an unknown key


def test_the_message_and_the_table_have_them_all() -> None:
    """Where a range is not certain the error has every doubt with its setting, and so has the table for people."""
    for row in ROWS:
        facts = discover(row.cluster, **row.options)
        table = " ".join(line.strip() for line in facts_table(facts))
        for doubt in facts["doubts"]:
            assert f"settle it: {doubt['settle']}" in table
        uncertain = [
            name
            for name, found in facts["ranges"].items()
            if found["status"] == "conflict" or (name in NEEDED and found["status"] != "complete")
        ]
        if not uncertain:
            continue
        with pytest.raises(FaultsError) as caught:
            from_result(facts)
        for doubt in facts["doubts"]:
            assert doubt["doubt"] in str(caught.value)
            assert doubt["settle"] in str(caught.value)


def test_an_overlay_that_overlaps() -> None:
    overlay = {"the overlay of gateway proton": ipaddress.ip_network("10.244.7.0/24")}
    (doubt,) = [item for item in discover(PLAIN, reserved=overlay)["doubts"] if "overlaps the overlay" in item["doubt"]]
    assert doubt["settle"].startswith("netguard_gateways:")
    elsewhere = {"the overlay of gateway proton": ipaddress.ip_network("172.31.7.0/24")}
    assert not [item for item in discover(PLAIN, reserved=elsewhere)["doubts"] if "overlaps the overlay" in item["doubt"]]


def test_half_an_answer_settles_nothing() -> None:
    """A value for one question does not silence another one about the same mapping."""
    facts = discover(without_dns().broken("DaemonSet", "forbidden"), overrides={"dns": {"node_local_ip": ""}})
    said = " ".join(item["doubt"] for item in facts["doubts"])
    assert "NodeLocal" not in said
    assert "no Service of the cluster's DNS was found" in said
    assert discover(PLAIN.plus(OTHER_DNS), overrides={"dns": WHOLE_DNS})["dns"]["service_ips"] == ["10.96.0.10"]
