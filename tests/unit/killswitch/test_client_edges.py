# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The edges of a client, as policy and guard read them: tables of declarations and live objects."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._errors import FaultsError
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.client_edges import edges_of
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Live
from ansible_collections.homelab.netguard.plugins.module_utils._topology.parse import parse
from killswitch_shapes import FACTS, GATEWAYS, PROWLARR, QBIT, deployment, service, topology


def targets(found: Any) -> list[str]:
    return sorted(f"{item.network}:{item.port.number if item.port else 'all'}" for item in found)


def test_a_use_opens_the_service_port_on_its_address_and_the_pod_port_in_the_pod_range() -> None:
    live = Live((deployment("qbit"), deployment("prowlarr", port=9696), service("prowlarr", 80, "web", "10.96.3.4")))
    shape = topology(QBIT | {"uses": ["prowlarr:web"]}, PROWLARR)
    edges = edges_of(shape, FACTS, live, shape.app("media/qbit"))
    assert targets(edges.guard_egress(FACTS)) == ["10.244.0.0/16:9696", "10.96.3.4/32:80"]
    assert edges.selector.labels == {"app": "qbit"}


@pytest.mark.parametrize(
    ("name", "clusterip"),
    [("headless", "None"), ("external name", ""), ("another target", "10.96.3.4")],
)
def test_services_that_lead_elsewhere_give_no_address(name: str, clusterip: str) -> None:
    other = service("prowlarr", 80, 1234 if name == "another target" else "web", clusterip)
    live = Live((deployment("qbit"), deployment("prowlarr", port=9696), other))
    shape = topology(QBIT | {"uses": ["prowlarr:web"]}, PROWLARR)
    edges = edges_of(shape, FACTS, live, shape.app("media/qbit"))
    assert targets(edges.guard_egress(FACTS)) == ["10.244.0.0/16:9696"], name


def test_inbound_edges_of_every_kind() -> None:
    live = Live((deployment("qbit"), deployment("prowlarr", port=9696)))
    shape = topology(
        QBIT | {"lan": ["web"], "exposed": {"port": "web"}, "metrics": "web", "peers": ["web"]},
        PROWLARR | {"uses": ["qbit:web"]},
        ingress={"namespace": "kube-system", "pods": {"app": "traefik"}},
        prometheus={"namespace": "monitoring", "pods": {"app": "prometheus"}},
    )
    edges = edges_of(shape, FACTS, live, shape.app("media/qbit"))
    assert [edge.why.split()[0] for edge in edges.ingress] == ["used", "exposed", "metrics", "peers", "lan"]
    assert targets(edges.guard_ingress(FACTS)) == ["10.244.0.0/16:8080", "192.168.1.0/24:8080"]


def test_kube_api_is_the_endpoint_and_its_service_address() -> None:
    shape = topology(QBIT | {"kube_api": True})
    edges = edges_of(shape, FACTS, Live((deployment("qbit"),)), shape.app("media/qbit"))
    assert targets(edges.guard_egress(FACTS)) == ["10.96.0.1/32:443", "192.168.1.20/32:6443"]


def test_an_ingress_controller_on_the_host_network_comes_from_the_nodes() -> None:
    traefik = deployment("traefik", "kube-system", hostNetwork=True)
    shape = topology(QBIT | {"exposed": {"port": "web"}}, ingress={"namespace": "kube-system", "pods": {"app": "traefik"}})
    edges = edges_of(shape, FACTS, Live((deployment("qbit"), traefik)), shape.app("media/qbit"))
    assert targets(edges.guard_ingress(FACTS)) == ["192.168.1.20/32:8080"]


def test_mesh_adds_hbone_beside_the_plain_port() -> None:
    shape = topology(QBIT | {"uses": ["prowlarr:web"]}, PROWLARR, namespaces=[{"name": "media", "mesh": True}])
    live = Live((deployment("qbit"), deployment("prowlarr", port=9696)))
    edges = edges_of(shape, FACTS, live, shape.app("media/qbit"))
    assert targets(edges.guard_egress(FACTS)) == ["10.244.0.0/16:15008", "10.244.0.0/16:9696"]


@pytest.mark.parametrize(
    ("mode", "translated", "expected"),
    [
        ("vpn", True, "none"),
        ("split", True, "none"),
        ("vpn", False, "gateway"),
        ("vpn", None, "gateway"),
        ("cluster", True, "client"),
    ],
)
def test_who_needs_the_clusters_dns(mode: str, translated: bool | None, expected: str) -> None:
    facts = replace(FACTS, cni=replace(FACTS.cni, translates_kernel_packets=translated))
    shape = parse("home", [GATEWAYS[0] | {"dns": mode}], [QBIT], {}, [])
    assert edges_of(shape, facts, Live((deployment("qbit"),)), shape.app("media/qbit")).dns == expected


def test_probe_ports_are_resolved_per_container() -> None:
    found = deployment("qbit")
    container = found["spec"]["template"]["spec"]["containers"][0]
    container["readinessProbe"] = {"httpGet": {"port": "web"}}
    container["livenessProbe"] = {"tcpSocket": {"port": 9000}}
    container["lifecycle"] = {"preStop": {"httpGet": {"port": 9001}}}
    shape = topology(QBIT)
    edges = edges_of(shape, FACTS, Live((found,)), shape.app("media/qbit"))
    assert edges.probes is not None
    assert sorted(port.number for port in edges.probes) == [8080, 9000, 9001]


@pytest.mark.parametrize(
    ("app", "objects", "said"),
    [
        (QBIT, [], "apps[0].pods: Deployment/qbit does not exist in media"),
        (QBIT, [deployment("qbit", hostNetwork=True)], "apps[0].workload: Deployment/qbit runs on the node's network"),
        (
            QBIT,
            [deployment("qbit", labels={"app": "web"}), deployment("other", labels={"app": "web", "x": "y"})],
            "also selects Deployment/other in media",
        ),
        (QBIT | {"pods": {"app": "typo"}}, [deployment("qbit")], "apps[0].pods: these labels do not select the pods"),
    ],
)
def test_what_no_policy_could_hold_is_refused_with_its_path(app: Any, objects: Any, said: str) -> None:
    shape = topology(app)
    with pytest.raises(FaultsError) as caught:
        edges_of(shape, FACTS, Live(tuple(objects)), shape.app("media/qbit"))
    assert said in str(caught.value)


def test_pods_stand_for_a_workload_that_does_not_exist_yet() -> None:
    shape = topology(QBIT | {"pods": {"app": "qbit"}})
    edges = edges_of(shape, FACTS, Live(), shape.app("media/qbit"))
    assert edges.selector.labels == {"app": "qbit"}
    assert edges.probes is None
