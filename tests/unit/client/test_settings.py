# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The settings of a client: the same edges as its kill switch's, as the client's own kernel sees them."""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._facts.model import Cni, Dns, Facts
from ansible_collections.homelab.netguard.plugins.module_utils._manifests import client_settings, names
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.client_edges import edges_of
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Live
from ansible_collections.homelab.netguard.plugins.module_utils._overlay import scripts
from ansible_collections.homelab.netguard.plugins.module_utils._topology.model import Topology
from ansible_collections.homelab.netguard.plugins.module_utils._topology.parse import parse

TRANSLATES = Cni(name="calico", translates_kernel_packets=True)
FACTS = Facts(
    pods=(ipaddress.ip_network("10.244.0.0/16"),),
    services=(ipaddress.ip_network("10.96.0.0/12"),),
    nodes=(ipaddress.ip_network("192.0.2.10/32"),),
    lan=(ipaddress.ip_network("198.51.100.0/24"),),
    cni=TRANSLATES,
    dns=Dns(service_ips=("10.96.0.10",), namespace="kube-system", pod_labels={"k8s-app": "kube-dns"}),
    server_version=(1, 34),
)
BY_NAME = dataclasses.replace(FACTS, cni=Cni(name="cilium", translates_kernel_packets=False))
LOCAL_CACHE = dataclasses.replace(BY_NAME, dns=dataclasses.replace(FACTS.dns, node_local_ip="169.254.20.10"))
MESH = dataclasses.replace(FACTS, mesh_ambient=True, mesh_probe_sources=(ipaddress.ip_network("169.254.7.127/32"),))


def workload(name: str, **container: Any) -> dict[str, Any]:
    spec = {"containers": [{"name": "app", "image": "example/app", **container}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "media", "uid": name},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": {"metadata": {"labels": {"app": name}}, "spec": spec}},
    }


def service(name: str, namespace: str, address: str, **spec: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"clusterIP": address, **spec}}


GATEWAY = service("netguard-gateway-proton", "vpn", "10.96.7.7")
PROBED = workload("web", readinessProbe={"tcpSocket": {"port": 8080}})


def declared(*, dns: str = "vpn", mesh: bool = False, others: tuple[dict[str, Any], ...] = (), **keys: Any) -> Topology:
    gateways = [{"name": "proton", "namespace": "vpn", "provider": "protonvpn", "credentials": {"secret": "wg"}, "dns": dns}]
    app = {"name": "web", "namespace": "media", "ports": {"http": 8080, "bt": ["6881/tcp", "6881/udp"]}, "vpn": "proton", **keys}
    namespaces = [{"name": "media", "mesh": True}] if mesh else []
    return parse("home", gateways=gateways, apps=[app, *others], namespaces=namespaces)


def text(topology: Topology, *objects: dict[str, Any], facts: Facts = FACTS) -> dict[str, str]:
    """The settings of the first app, by name."""
    live = Live(objects)
    files = client_settings.files(topology, facts, live, edges_of(topology, facts, live, topology.apps[0]))
    assert set(files) == {*scripts.CLIENT_SCRIPTS, scripts.SETTINGS_FILE}
    lines = [line.partition("=") for line in files[scripts.SETTINGS_FILE].splitlines()]
    return {name: value.strip("'") for name, _equals, value in lines}


OTHER = {"name": "arr", "namespace": "media", "ports": {"ui": 9696}}


@pytest.mark.parametrize(
    ("topology", "objects", "facts", "expected"),
    [
        (declared(), (PROBED, GATEWAY), FACTS, {"GATEWAY": "10.96.7.7", "GATEWAY_NAME": "", "DNS_SERVERS": "", "APP_DNS": "no"}),
        (
            declared(),
            (PROBED, GATEWAY),
            BY_NAME,
            {
                "GATEWAY": "",
                "GATEWAY_NAME": "netguard-gateway-proton-pods.vpn.svc.cluster.local",
                "DNS_SERVERS": "10.96.0.10",
                "APP_DNS": "no",
            },
        ),
        (declared(), (PROBED, GATEWAY), LOCAL_CACHE, {"DNS_SERVERS": "10.96.0.10 169.254.20.10"}),
        (declared(dns="cluster"), (PROBED, GATEWAY), FACTS, {"APP_DNS": "yes", "DNS_SERVERS": "10.96.0.10"}),
        (declared(), (PROBED,), FACTS, {"GATEWAY": "0.0.0.0"}),
        (declared(), (PROBED, GATEWAY), FACTS, {"PROBES": "tcp,8080,8080", "EGRESS": "", "INGRESS": "", "MESH": "no"}),
        (declared(lan=["http"]), (PROBED, GATEWAY), FACTS, {"INGRESS": "198.51.100.0/24,tcp,8080,8080"}),
        (
            declared(vpn={"gateway": "proton", "forward": ["bt"]}),
            (PROBED, GATEWAY),
            FACTS,
            {"FORWARDS": "tcp,6881,6881 udp,6881,6881", "INGRESS": ""},
        ),
        (
            declared(uses=["arr:ui"], others=(OTHER,)),
            (
                PROBED,
                GATEWAY,
                workload("arr"),
                service("arr", "media", "10.96.9.9", selector={"app": "arr"}, ports=[{"port": 80, "targetPort": 9696}]),
            ),
            FACTS,
            {"EGRESS": "10.244.0.0/16,tcp,9696,9696 10.96.9.9/32,tcp,80,80"},
        ),
        (
            declared(external=[{"to": "192.168.7.7/32", "ports": ["8006/tcp"]}], icmp=["192.168.7.1/32"]),
            (PROBED, GATEWAY),
            FACTS,
            {"EGRESS": "192.168.7.7/32,tcp,8006,8006 192.168.7.1/32,icmp,0,0"},
        ),
        (
            declared(mesh=True, uses=["arr:ui"], others=({**OTHER, "uses": ["web:http"]},)),
            (PROBED, GATEWAY, workload("arr")),
            MESH,
            {"MESH": "yes", "PROBE_SOURCES": "169.254.7.127/32", "INGRESS": "10.244.0.0/16,tcp,8080,8080"},
        ),
    ],
)
def test_settings(topology: Topology, objects: tuple[dict[str, Any], ...], facts: Facts, expected: dict[str, str]) -> None:
    found = text(topology, *objects, facts=facts)
    assert {name: found[name] for name in expected} == expected


def test_routes_keep_the_cluster_off_the_tunnel_and_are_no_wider() -> None:
    topology = declared(external=[{"to": "192.168.7.7/32", "ports": ["8006/tcp"]}], lan=["http"])
    routes = text(topology, PROBED, GATEWAY, facts=MESH)["ROUTES"].split()
    assert routes == ["10.244.0.0/16", "10.96.0.0/12", "192.0.2.10/32", "169.254.7.127/32", "192.168.7.7/32", "198.51.100.0/24"]
    assert "0.0.0.0/32" not in text(declared(), PROBED)["ROUTES"].split(), "the unknown address of the gateway is no route"


def test_the_port_and_the_overlay_are_the_gateways() -> None:
    topology = declared()
    found = text(topology, PROBED, GATEWAY)
    gateway = topology.gateways[0]
    assert found["VNI"] == str(gateway.overlay.vni)
    assert found["NETWORK"] == str(gateway.overlay.network)
    assert found["PORT"] == str(names.overlay_port(gateway, FACTS))
    assert int(found["PORT"]) not in names.TAKEN_UDP_PORTS
