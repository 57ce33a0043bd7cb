# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whose fields the injection would change: another server-side-apply manager's are named, everybody else's are not forced ones."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._facts.model import Cni, Facts
from ansible_collections.homelab.netguard.plugins.module_utils._manifests import client
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Live
from ansible_collections.homelab.netguard.plugins.module_utils._operations.clients_checks import held_fields
from ansible_collections.homelab.netguard.plugins.module_utils._operations.clients_rollout import selector_text
from ansible_collections.homelab.netguard.plugins.module_utils._topology.parse import parse

FACTS = Facts(
    pods=(ipaddress.ip_network("10.244.0.0/16"),),
    cni=Cni(translates_kernel_packets=True),
    server_version=(1, 34),
    mesh_ambient=True,
)
TOPOLOGY = parse(
    "home",
    gateways=[{"name": "proton", "namespace": "vpn", "provider": "protonvpn", "credentials": {"secret": "wg"}}],
    apps=[{"name": "web", "namespace": "media", "vpn": "proton"}],
)
SPEC: dict[str, Any] = {"f:dnsPolicy": {}}
CONFIG: dict[str, Any] = {"f:dnsConfig": {"f:nameservers": {}}}
DROP: dict[str, Any] = {"f:containers": {'k:{"name":"app"}': {"f:securityContext": {"f:capabilities": {"f:drop": {}}}}}}
ADD: dict[str, Any] = {"f:containers": {'k:{"name":"app"}': {"f:securityContext": {"f:capabilities": {"f:add": {}}}}}}
IMAGE: dict[str, Any] = {"f:containers": {'k:{"name":"app"}': {"f:image": {}, "f:name": {}}}}
CAPTURE: dict[str, Any] = {"f:annotations": {"f:ambient.istio.io/dns-capture": {}}}


def workload(manager: str, operation: str, *, spec: dict[str, Any], meta: dict[str, Any], **pod: Any) -> dict[str, Any]:
    tree = {"f:spec": {"f:template": {"f:spec": spec, "f:metadata": meta}}}
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app", "image": "example/app"}], **pod}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "web",
            "namespace": "media",
            "managedFields": [{"manager": manager, "operation": operation, "fieldsV1": tree}],
        },
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template},
    }


@pytest.mark.parametrize(
    ("manager", "operation", "spec", "meta", "pod", "field"),
    [
        ("flux", "Apply", SPEC, {}, {"dnsPolicy": "Default"}, "spec.template.spec.dnsPolicy"),
        ("flux", "Apply", SPEC, {}, {"dnsPolicy": "None"}, ""),
        ("flux", "Apply", CONFIG, {}, {"dnsConfig": {"nameservers": ["192.0.2.1"]}}, "spec.template.spec.dnsConfig"),
        ("kubectl", "Update", SPEC, {}, {"dnsPolicy": "Default"}, ""),
        ("homelab.netguard", "Apply", SPEC, {}, {"dnsPolicy": "Default"}, ""),
        ("argocd", "Apply", DROP, {}, {}, "containers[app].securityContext.capabilities.drop"),
        ("argocd", "Apply", ADD, {}, {}, ""),
        ("argocd", "Apply", IMAGE, {}, {}, ""),
        ("argocd", "Apply", {}, CAPTURE, {}, "metadata.annotations[ambient.istio.io/dns-capture]"),
    ],
)
def test_fields_of_others(
    manager: str, operation: str, spec: dict[str, Any], meta: dict[str, Any], pod: dict[str, Any], field: str
) -> None:
    live = workload(manager, operation, spec=spec, meta=meta, **pod)
    found = [str(fault) for fault in held_fields(TOPOLOGY, client.clients(TOPOLOGY, FACTS, Live((live,))))]
    if not field:
        assert found == []
        return
    assert len(found) == 1
    assert field in found[0]
    assert f"held by {manager}" in found[0]
    assert found[0].startswith("apps[0].workload:")


@pytest.mark.parametrize(
    ("kind", "selector", "expected"),
    [
        ("Deployment", {"matchLabels": {"b": "2", "a": "1"}}, "a=1,b=2"),
        (
            "StatefulSet",
            {
                "matchExpressions": [
                    {"key": "tier", "operator": "In", "values": ["x", "y"]},
                    {"key": "old", "operator": "DoesNotExist"},
                ]
            },
            "tier in (x,y),!old",
        ),
        ("CronJob", None, "app=web"),
    ],
)
def test_selectors_as_queries(kind: str, selector: dict[str, Any] | None, expected: str) -> None:
    template = {"metadata": {"labels": {"app": "web", "homelab.netguard/client": "proton"}}, "spec": {}}
    spec = {"jobTemplate": {"spec": {"template": template}}} if kind == "CronJob" else {"selector": selector, "template": template}
    assert selector_text({"kind": kind, "spec": spec}) == expected
