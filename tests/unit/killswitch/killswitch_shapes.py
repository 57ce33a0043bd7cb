# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Facts, declarations and live objects that the tests of kill switches share."""

from __future__ import annotations

import ipaddress
from typing import Any

from ansible_collections.homelab.netguard.plugins.module_utils._facts.model import Cni, Dns, Endpoint, Facts
from ansible_collections.homelab.netguard.plugins.module_utils._topology.model import Topology
from ansible_collections.homelab.netguard.plugins.module_utils._topology.parse import parse

NET = ipaddress.ip_network
FACTS = Facts(
    pods=(NET("10.244.0.0/16"),),
    services=(NET("10.96.0.0/16"),),
    nodes=(NET("192.168.1.20/32"),),
    lan=(NET("192.168.1.0/24"),),
    api_endpoints=(Endpoint("192.168.1.20", 6443),),
    api_service_ip="10.96.0.1",
    dns=Dns(service_ips=("10.96.0.10",), namespace="kube-system", pod_labels={"k8s-app": "kube-dns"}),
    cni=Cni(name="calico", enforces_network_policy=True, translates_kernel_packets=True),
    server_version=(1, 34),
)
GATEWAYS = [
    {
        "name": "proton",
        "namespace": "vpn",
        "provider": "protonvpn",
        "wireguard": {"addresses": ["10.2.0.2/32"]},
        "credentials": {"secret": "proton-wg"},
    }
]


def deployment(
    name: str, namespace: str = "media", port: int = 8080, labels: dict[str, str] | None = None, **spec: Any
) -> dict[str, Any]:
    labels = labels or {"app": name}
    container = {"name": "main", "image": "x", "ports": [{"name": "web", "containerPort": port}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container], **spec}},
        },
    }


def service(name: str, port: int, target: int | str, ip: str, namespace: str = "media", app: str = "") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"app": app or name},
            "clusterIP": ip,
            "clusterIPs": [ip],
            "ports": [{"port": port, "targetPort": target, "protocol": "TCP"}],
        },
    }


def topology(*apps: dict[str, Any], namespaces: list[dict[str, Any]] | None = None, **platform: Any) -> Topology:
    return parse("home", GATEWAYS, list(apps), platform, namespaces or [])


QBIT = {"name": "qbit", "namespace": "media", "ports": {"web": 8080}, "vpn": "proton"}
PROWLARR = {"name": "prowlarr", "namespace": "media", "ports": {"web": 9696}}
