# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waypoints: what is bound to one is reached through it, and a waypoint that is cut or not there is told."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._audit.audit import audit
from ansible_collections.homelab.netguard.plugins.module_utils._audit.findings import Finding
from ansible_collections.homelab.netguard.plugins.module_utils._errors import FaultsError
from ansible_collections.homelab.netguard.plugins.module_utils._facts.model import Cni, Dns, Facts
from ansible_collections.homelab.netguard.plugins.module_utils._manifests import segments
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Live
from ansible_collections.homelab.netguard.plugins.module_utils._topology.parse import parse

FACTS = Facts(
    pods=(ipaddress.ip_network("10.42.0.0/16"),),
    dns=Dns((), "kube-system", {"k8s-app": "kube-dns"}),
    cni=Cni("calico", True),
    mesh_ambient=True,
)
NAME = "gateway.networking.k8s.io/gateway-name"
WEB = {"name": "web", "namespace": "media", "pods": {"app": "web"}, "ports": {"web": 80}, "uses": ["data/db:sql"]}
DB = {"name": "db", "namespace": "data", "pods": {"app": "db"}, "ports": {"sql": 5432}}
WAYPOINT = {"name": "waypoint", "namespace": "data", "pods": {NAME: "waypoint"}, "ports": {}, "uses": ["istio-system/istiod:xds"]}
ISTIOD = {"name": "istiod", "namespace": "istio-system", "pods": {"app": "istiod"}, "ports": {"xds": 15012}}
MESH = [{"name": "media", "mesh": True}, {"name": "data", "mesh": True}]


def space(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def deployment(name: str, namespace: str, labels: dict[str, str]) -> dict[str, Any]:
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {"template": template}}


USE = {"istio.io/use-waypoint": "waypoint"}
BOUND = space("data", **USE)
PODS = deployment("waypoint", "data", {NAME: "waypoint", "istio.io/dataplane-mode": "none"})
#: where the binding stands: objects
BINDINGS: dict[str, list[Any]] = {
    "the namespace": [BOUND],
    "a Service": [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "db", "namespace": "data", "labels": USE},
            "spec": {"selector": {"app": "db"}},
        }
    ],
    "the pods": [deployment("db", "data", {"app": "db", **USE})],
}


def tunnel(rules: list[dict[str, Any]], side: str) -> list[str]:
    """Labels of the peers with which nothing but the tunnel's port is open."""
    found = [rule for rule in rules if [port["port"] for port in rule.get("ports", [])] == [15008]]
    return sorted(str(peer["podSelector"]["matchLabels"]) for rule in found for peer in rule[side])


def build(live: list[Any], *apps: dict[str, Any]) -> dict[str, Any]:
    topology = parse("home", None, [WEB, DB, *apps], None, MESH)
    return {item["metadata"]["name"]: item for item in segments.build(topology, FACTS, Live(tuple(live))).desired.objects}


@pytest.mark.parametrize("binding", BINDINGS)
def test_both_ways_through_a_waypoint_are_open(binding: str) -> None:
    built = build([*BINDINGS[binding], PODS], WAYPOINT, ISTIOD)
    assert tunnel(built["netguard-segment-web"]["spec"]["egress"], "to") == [str({NAME: "waypoint"})]
    assert tunnel(built["netguard-segment-db"]["spec"]["ingress"], "from") == [str({NAME: "waypoint"})]
    own = built["netguard-segment-waypoint"]["spec"]
    assert tunnel(own["egress"], "to") == [str({"app": "db"})]
    assert tunnel(own["ingress"], "from") == [str({"app": "web"})]


def test_an_app_that_opts_out_is_reached_directly() -> None:
    service = {**BINDINGS["a Service"][0]}
    service["metadata"] = {**service["metadata"], "labels": {"istio.io/use-waypoint": "none"}}
    pods = deployment("db", "data", {"app": "db", "istio.io/use-waypoint": "none"})
    built = build([BOUND, service, pods, PODS], WAYPOINT, ISTIOD)
    assert tunnel(built["netguard-segment-web"]["spec"]["egress"], "to") == []


def test_a_waypoint_that_would_be_cut_off_is_refused() -> None:
    with pytest.raises(FaultsError, match=r"apps\[1\]: it is reached through the waypoint data/waypoint"):
        build([BOUND, PODS])


def judged(*dropped: str, live: list[Any] | None = None) -> list[Finding]:
    objects = [BOUND, PODS] if live is None else live
    topology = parse("home", None, [WEB, DB, WAYPOINT, ISTIOD], None, MESH)
    written = segments.build(topology, FACTS, Live(tuple(objects))).desired.objects
    kept = [item for item in written if item["metadata"]["name"] not in dropped]
    return [item for item in audit(topology, FACTS, Live((*objects, *kept))).findings if item.severity != "info"]


def test_what_we_write_for_a_waypoint_passes() -> None:
    assert judged() == []


@pytest.mark.parametrize(
    ("dropped", "said"), [("web", "the egress of media"), ("db", "the ingress of data"), ("waypoint", "waypoint")]
)
def test_a_waypoint_that_is_cut_is_told(dropped: str, said: str) -> None:
    found = judged(f"netguard-segment-{dropped}")
    assert any(item.code == "declared-blocked" and "15008" in item.message and said in item.message for item in found), found


def test_a_waypoint_that_is_not_there_is_told() -> None:
    topology = parse("home", None, [WEB, DB], None, [{**item, "default": "open"} for item in MESH])
    written = segments.build(topology, FACTS, Live((BOUND,))).desired.objects
    found = audit(topology, FACTS, Live((BOUND, *written))).findings
    assert [item.subject for item in found if item.code == "waypoint-missing"] == ["data/db"]
