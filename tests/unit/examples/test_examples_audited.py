# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The examples pass the audit on the CNIs of their homes, and the errors of hand-written policies in their place are found.

Rows are named after the patterns in the examples' README.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._audit.load import load
from ansible_collections.homelab.netguard.plugins.module_utils._manifests import segments
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Live
from seeds import K3S, PRIVATE, RASPBERRY, TRAEFIK, TUNNEL, block, declared, facts, policy, run, space, tcp, workload


@pytest.mark.parametrize("cni", ["kube-router", "cilium", "calico"])
@pytest.mark.parametrize("example", [K3S, RASPBERRY])
def test_an_example_passes(example: str, cni: str) -> None:
    bad = [item for item in run(example, cni) if item.severity != "info"]
    assert not bad, "\n".join(str(item) for item in bad)


#: name: (example, CNI, apps whose own policy is left out, policies by hand, the code, what the finding says)
ERRORS: dict[str, tuple[str, str, tuple[str, ...], tuple[Any, ...], str, str]] = {
    "S1 a namespace that nobody closed": (
        K3S,
        "kube-router",
        (),
        (workload("source-controller", "flux-system"),),
        "namespace-bare",
        "flux-system",
    ),
    "S2 names from every pod of the system's namespace": (
        K3S,
        "kube-router",
        (),
        (
            workload("metrics-server", "kube-system", k8s_app="metrics-server"),
            policy("linkding", egress=[{"to": [space("kube-system")], "ports": [{"protocol": "UDP", "port": 53}]}]),
        ),
        "undeclared-open",
        "metrics-server",
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
    "S9 the internet for an app that did not ask": (
        K3S,
        "kube-router",
        (),
        (policy("pgadmin", egress=[{"to": [block("8.0.0.0/8")], "ports": tcp(443)}]),),
        "undeclared-open",
        "reaches 8.0.0.0/8",
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
    "T1 a dash too many": (
        RASPBERRY,
        "calico",
        (),
        (
            policy(
                "velero",
                egress=[
                    {"to": [space("kube-system"), {"podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}], "ports": tcp(53)}
                ],
            ),
        ),
        "and-or",
        "velero",
    ),
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
    "T5 probes that come through the mesh": (
        RASPBERRY,
        "calico",
        ("loki/",),
        (policy("loki", ingress=[{"from": [space("istio-system"), space("default")], "ports": tcp(15008, 3100)}]),),
        "declared-blocked",
        "169.254.7.127",
    ),
    "T5 the tunnel voids the limits of ports": (
        RASPBERRY,
        "calico",
        (),
        (policy("loki", ingress=[{"from": [space("default")], "ports": tcp(15008)}]),),
        "hbone-voids-ports",
        "loki/by-hand",
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
            workload("speaker", "metallb-system", host=True, kind="DaemonSet", component="speaker"),
            policy("metallb-system", {"component": "speaker"}, ingress=[{"from": [space("default")], "ports": tcp(7472)}]),
        ),
        "selects-nothing",
        "node's network",
    ),
    "T13 rules for an operator on the node's network": (
        RASPBERRY,
        "calico",
        (),
        (
            workload("tigera-operator", "tigera-operator", host=True, name="tigera-operator"),
            policy("tigera-operator", egress=[{"to": [block("10.0.10.101/32")], "ports": tcp(6443)}]),
        ),
        "selects-nothing",
        "tigera-operator",
    ),
    "T13 the kubelet's port in a namespace where it is metrics-server's": (
        RASPBERRY,
        "calico",
        ("kube-system/metrics-server",),
        (policy("kube-system", {"k8s-app": "metrics-server"}, ingress=[{"from": [space("default")], "ports": tcp(10250)}]),),
        "declared-blocked",
        "webhook",
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


def test_t14_one_policy_for_a_namespace_where_that_opens_nothing() -> None:
    topology, known = declared(RASPBERRY), facts(RASPBERRY, "calico")
    wanted = {rule.name for rule in topology.namespaces if rule.layout == "namespace"}
    built = segments.build(topology, known, Live())
    single = {item["metadata"]["namespace"] for item in built.desired.objects if item["metadata"]["name"] == "netguard-segments"}
    assert single == wanted - {"default"}
    assert any(note.startswith("default: one policy for the whole namespace would open") for note in built.notes)
    by_app = {
        item["metadata"]["namespace"] for item in built.desired.objects if item["metadata"]["name"] == "netguard-segment-velero"
    }
    assert by_app == {"velero"}


def test_t15_what_is_removed_is_segmentation_s_and_no_kill_switch() -> None:
    built = segments.build(declared(RASPBERRY), facts(RASPBERRY, "calico"), Live())
    parts = {item["metadata"]["labels"]["homelab.netguard/part"] for item in built.desired.objects}
    assert parts == {"segments"}
