# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The examples pass the audit on the CNIs of their homes, and the errors of hand-written policies in their place are found.

Rows are named after the patterns in the examples' README.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.homelab.netguard.plugins.module_utils._audit.audit import audit
from ansible_collections.homelab.netguard.plugins.module_utils._audit.findings import Finding
from ansible_collections.homelab.netguard.plugins.module_utils._audit.load import load
from ansible_collections.homelab.netguard.plugins.module_utils._facts.model import Cni, Dns, Endpoint, Facts
from ansible_collections.homelab.netguard.plugins.module_utils._manifests import segments
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Live
from ansible_collections.homelab.netguard.plugins.module_utils._topology.model import Topology
from ansible_collections.homelab.netguard.plugins.module_utils._topology.parse import parse

ROOT = Path(__file__).resolve().parents[3]
APIS = {"calico": ("projectcalico.org/v3",), "cilium": ("cilium.io/v2",)}
K3S, RASPBERRY = "seed-003", "seed-004"
EVERYWHERE = {"namespaceSelector": {}}


def facts(example: str, cni: str) -> Facts:
    first = "10.0.40" if example == K3S else "10.0.10"
    pods, services = ("10.42.0.0/16", "10.43.0.0/16") if example == K3S else ("10.244.0.0/16", "10.96.0.0/16")
    service = ipaddress.ip_network(services)
    return Facts(
        pods=(ipaddress.ip_network(pods),),
        services=(service,),
        nodes=tuple(ipaddress.ip_network(f"{first}.{number}/32") for number in (101, 102, 103)),
        lan=(ipaddress.ip_network("10.0.0.0/16"),),
        api_endpoints=(Endpoint(f"{first}.101", 6443),),
        api_service_ip=str(service[1]),
        dns=Dns((str(service[10]),), "kube-system", {"k8s-app": "kube-dns"}),
        cni=Cni(cni, cni != "flannel", policy_apis=APIS.get(cni, ()), translates_kernel_packets=True),
        mesh_ambient=example == RASPBERRY,
        mesh_probe_sources=(ipaddress.ip_network("169.254.7.127/32"),) if example == RASPBERRY else (),
    )


def declared(example: str) -> Topology:
    found = yaml.safe_load((ROOT / "examples" / example / "homelab.yml").read_text())
    apps = [{key: value for key, value in app.items() if key != "icmp"} for app in found["netguard_apps"]]
    return parse("home", None, apps, found.get("netguard_platform"), found.get("netguard_namespaces"))


def run(example: str, cni: str, without: tuple[str, ...] = (), extra: tuple[Any, ...] = ()) -> list[Finding]:
    """Findings over what we write, without the policies of some apps (`namespace/app`, or `namespace/` for the one of a
    namespace) and with others beside."""
    topology, known = declared(example), facts(example, cni)
    parts = [key.partition("/") for key in without]
    left_out = {(place, f"netguard-segment-{app}" if app else "netguard-segments") for place, _slash, app in parts}
    nodes = tuple(item for item in extra if item["kind"] == "Node")
    written = segments.build(topology, known, Live(nodes)).desired.objects
    kept = [item for item in written if (item["metadata"]["namespace"], item["metadata"]["name"]) not in left_out]
    assert len(written) - len(kept) >= len(left_out)
    return audit(topology, known, Live((*kept, *extra))).findings


@pytest.mark.parametrize("cni", ["kube-router", "cilium", "calico"])
@pytest.mark.parametrize("example", [K3S, RASPBERRY])
def test_an_example_passes(example: str, cni: str) -> None:
    bad = [item for item in run(example, cni) if item.severity != "info"]
    assert not bad, "\n".join(str(item) for item in bad)


def policy(namespace: str, pods: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    selector = {"matchLabels": pods} if pods else {}
    types = [name.capitalize() for name in ("ingress", "egress") if name in spec]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "by-hand", "namespace": namespace},
        "spec": {"podSelector": selector, "policyTypes": types, **spec},
    }


def space(name: str, **pods: str) -> dict[str, Any]:
    found: dict[str, Any] = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}
    return (
        {**found, "podSelector": {"matchLabels": {key.replace("__", "/"): value for key, value in pods.items()}}} if pods else found
    )


def block(cidr: str, *left_out: str) -> dict[str, Any]:
    return {"ipBlock": {"cidr": cidr, **({"except": list(left_out)} if left_out else {})}}


def tcp(*numbers: int) -> list[dict[str, Any]]:
    return [{"protocol": "TCP", "port": number} for number in numbers]


TRAEFIK = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "traefik"}},
}
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
TUNNEL = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "pi", "annotations": {"projectcalico.org/IPv4VXLANTunnelAddr": "10.244.7.0"}},
}

#: name: (example, CNI, apps whose own policy is left out, policies by hand, the code, what the finding says)
ERRORS: dict[str, tuple[str, str, tuple[str, ...], tuple[Any, ...], str, str]] = {
    "S1 a namespace that nobody closed": (
        K3S,
        "kube-router",
        (),
        (
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "source-controller", "namespace": "flux-system"},
                "spec": {
                    "selector": {"matchLabels": {"app": "source-controller"}},
                    "template": {
                        "metadata": {"labels": {"app": "source-controller"}},
                        "spec": {"containers": [{"name": "c", "image": "x"}]},
                    },
                },
            },
        ),
        "namespace-bare",
        "flux-system",
    ),
    "S3 the controller on every port of the namespace": (
        K3S,
        "kube-router",
        ("kube-system/traefik",),
        (policy("ntfy", ingress=[{"from": [TRAEFIK]}]),),
        "undeclared-open",
        "ntfy",
    ),
    "S4 every pod of the database's namespace": (
        K3S,
        "kube-router",
        (),
        (
            policy("pgadmin", egress=[{"to": [space("database")], "ports": tcp(5432)}]),
            policy("database", ingress=[{"from": [space("pgadmin")], "ports": tcp(5432)}]),
        ),
        "undeclared-open",
        "database",
    ),
    "S5 an app that the shared list of the database forgot": (
        K3S,
        "kube-router",
        ("database/postgresql",),
        (policy("database", ingress=[{"from": [space("immich"), space("linkding"), space("pgadmin")], "ports": tcp(5432)}]),),
        "declared-blocked",
        "commafeed",
    ),
    "S6 nobody thought of the database's operator": (
        K3S,
        "kube-router",
        ("database/postgresql",),
        (policy("database", ingress=[{"from": [space("immich"), space("linkding")], "ports": tcp(5432)}]),),
        "declared-blocked",
        "operator",
    ),
    "S7 Prometheus may not leave its namespace": (
        K3S,
        "kube-router",
        ("monitoring/prometheus",),
        (policy("monitoring", egress=[{"to": [{"podSelector": {}}]}]),),
        "declared-blocked",
        "metrics",
    ),
    "S8 logs from the namespace of the logs alone": (
        K3S,
        "kube-router",
        ("monitoring/promtail",),
        (policy("monitoring", {"app.kubernetes.io/name": "promtail"}, egress=[{"to": [space("monitoring")], "ports": tcp(9090)}]),),
        "declared-blocked",
        "3100",
    ),
    "S9 private ranges alone are left out of the internet": (
        K3S,
        "kube-router",
        (),
        (policy("linkding", egress=[{"to": [block("0.0.0.0/0", *PRIVATE)], "ports": tcp(80, 443)}]),),
        "except-forgets",
        "100.64.0.0/10",
    ),
    "S10 the whole of 10.0.0.0/8 for one host in it": (
        K3S,
        "kube-router",
        (),
        (policy("homepage", egress=[{"to": [block("0.0.0.0/0", *PRIVATE[1:])], "ports": tcp(80, 443, 8006)}]),),
        "except-forgets",
        "10.",
    ),
    "S11 the internet for all of the databases": (
        K3S,
        "kube-router",
        (),
        (policy("database", egress=[{"to": [block("0.0.0.0/0", *PRIVATE)], "ports": tcp(443)}]),),
        "except-forgets",
        "database",
    ),
    "S12 one side of an edge": (K3S, "kube-router", ("immich/server",), (), "declared-blocked", "ingress of immich"),
    "S13 a range that is no CIDR": (
        K3S,
        "kube-router",
        (),
        (policy("database", egress=[{"to": [block("10.0.40.101-10.0.40.103")], "ports": tcp(6443)}]),),
        "malformed",
        "no CIDR",
    ),
    "S13 the API by its Service address": (
        K3S,
        "kube-router",
        (),
        (policy("database", egress=[{"to": [block("10.43.0.1/32")], "ports": tcp(443)}]),),
        "inert",
        "10.43.0.1",
    ),
    "S14 machine learning is closed": (
        K3S,
        "kube-router",
        ("immich/machine-learning",),
        (),
        "declared-blocked",
        "machine-learning",
    ),
    "S15 readers without the object storage": (
        K3S,
        "kube-router",
        ("monitoring/loki",),
        (policy("monitoring", {"app.kubernetes.io/name": "loki"}, egress=[{"to": [{"podSelector": {}}]}]),),
        "declared-blocked",
        "10.0.40.10",
    ),
    "S16 flannel enforces nothing": (K3S, "flannel", (), (), "no-enforcement", "flannel"),
    "T2 the API by its Service address": (
        RASPBERRY,
        "calico",
        ("velero/velero",),
        (policy("velero", egress=[{"to": [block("10.96.0.1/32")], "ports": tcp(443)}]),),
        "declared-blocked",
        "kube_api",
    ),
    "T3 metrics for a whole namespace": (
        RASPBERRY,
        "calico",
        (),
        (
            policy("velero", ingress=[{"from": [space("default")], "ports": tcp(8085)}]),
            policy("default", egress=[{"to": [space("velero")], "ports": tcp(8085)}]),
        ),
        "undeclared-open",
        "velero",
    ),
    "T4 private ranges alone are left out of the internet": (
        RASPBERRY,
        "calico",
        (),
        (policy("velero", egress=[{"to": [block("0.0.0.0/0", *PRIVATE)], "ports": tcp(443)}]),),
        "except-forgets",
        "169.254.0.0/16",
    ),
    "T6 no tunnel to where it leads": (
        RASPBERRY,
        "calico",
        ("default/grafana",),
        (policy("default", {"app.kubernetes.io/name": "grafana"}, egress=[{"to": [space("istio-system")], "ports": tcp(15008)}]),),
        "declared-blocked",
        "15008/tcp: the egress of default/Deployment/grafana",
    ),
    "T7 a bucket for one of its three users": (
        RASPBERRY,
        "calico",
        ("localstack/",),
        (policy("localstack", ingress=[{"from": [space("velero")], "ports": tcp(4566)}]),),
        "declared-blocked",
        "argo",
    ),
    "T8 what may ping and is isolated by it": (
        RASPBERRY,
        "calico",
        ("default/blackbox-exporter",),
        (
            {
                "apiVersion": "projectcalico.org/v3",
                "kind": "NetworkPolicy",
                "metadata": {"name": "ping", "namespace": "default"},
                "spec": {
                    "selector": "app == 'blackbox-exporter'",
                    "types": ["Egress"],
                    "egress": [{"action": "Allow", "protocol": "ICMP", "destination": {"nets": ["8.8.8.8/32"]}}],
                },
            },
        ),
        "declared-blocked",
        "blackbox-exporter",
    ),
    "T10 the webhook from nodes that come through a tunnel": (
        RASPBERRY,
        "calico",
        ("cert-manager/cert-manager-webhook",),
        (TUNNEL, policy("cert-manager", ingress=[{"from": [block("10.0.10.0/24")], "ports": tcp(10250)}])),
        "declared-blocked",
        "webhook",
    ),
    "T11 the router by its other address": (
        RASPBERRY,
        "calico",
        ("unipoller/",),
        (policy("unipoller", egress=[{"to": [block("10.0.1.2/32")], "ports": tcp(443, 8443)}]),),
        "declared-blocked",
        "10.0.1.1",
    ),
    "T12 a policy for pods on the node's network": (
        RASPBERRY,
        "calico",
        (),
        (
            {
                "apiVersion": "apps/v1",
                "kind": "DaemonSet",
                "metadata": {"name": "speaker", "namespace": "metallb-system"},
                "spec": {
                    "selector": {"matchLabels": {"component": "speaker"}},
                    "template": {
                        "metadata": {"labels": {"component": "speaker"}},
                        "spec": {"hostNetwork": True, "containers": [{"name": "c", "image": "x"}]},
                    },
                },
            },
            policy("metallb-system", {"component": "speaker"}, ingress=[{"from": [space("default")], "ports": tcp(7472)}]),
        ),
        "selects-nothing",
        "node's network",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_made_by_hand_is_found(name: str) -> None:
    example, cni, without, extra, code, said = ERRORS[name]
    found = run(example, cni, without, extra)
    assert any(item.code == code and said in f"{item} {item.policy}" for item in found), "\n".join(
        str(item) for item in found if item.severity != "info"
    )


def test_t9_a_key_that_stands_twice_is_found_before_a_loader_loses_it(tmp_path: Path) -> None:
    text = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: scans, namespace: trivy-system}
spec:
  podSelector: {}
  ingress:
    - from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: default}}}]
      ports:
        - protocol: TCP
          port: 15008
          port: 8080
"""
    (tmp_path / "policy.yaml").write_text(text)
    objects, found = load(str(tmp_path))
    assert [item.code for item in found] == ["duplicate-key"]
    assert "port" in found[0].message
    assert objects, "it is audited all the same, as a loader reads it"
