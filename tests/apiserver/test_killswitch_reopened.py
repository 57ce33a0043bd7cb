# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Policies of other languages, as the API server stores them, that open a client: found, told, and settled by a hard deny."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._errors import NetguardError
from ansible_collections.homelab.netguard.tests.cluster import crds
from killswitch_lab import Lab, opened

CALICO, CILIUM = "crd.projectcalico.org/v1", "cilium.io/v2"
TIERS, ADMIN = "policy.networking.k8s.io/v1alpha2", "policy.networking.k8s.io/v1alpha1"
QBIT = {"name": "qbit", "pods": {"app": "qbit"}}


@pytest.fixture
def lab(server: Any) -> Iterator[Lab]:
    with opened(str(server.kubeconfig)) as found:
        yield found


@pytest.fixture
def custom(server: Any, request: pytest.FixtureRequest) -> Iterator[None]:
    """The custom resources of a language, for one test."""
    server.crds(request.param)
    yield
    if request.param != "calico":  # a fixture of its own keeps these for the session
        server.run_kubectl("delete", "--ignore-not-found", "-f", str(crds.path(request.param)))


def cluster(name: str, namespace: str) -> dict[str, Any]:
    subject = {"pods": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}, "podSelector": {}}}
    egress = [{"name": "out", "action": "Accept", "to": [{"networks": ["198.51.100.0/24"]}]}]
    return {"tier": "Admin", "priority": 7, "subject": subject, "egress": egress}


def calico(name: str, namespace: str) -> dict[str, Any]:
    rule = {"action": "Allow", "protocol": "TCP", "destination": {"nets": ["198.51.100.0/24"], "ports": [443]}}
    where = f"kubernetes.io/metadata.name == '{namespace}'"
    return {"order": 3, "namespaceSelector": where, "types": ["Egress"], "egress": [rule]}


def cilium(name: str, namespace: str) -> dict[str, Any]:
    labels = {"k8s:io.kubernetes.pod.namespace": namespace}
    return {"endpointSelector": {"matchLabels": labels}, "egress": [{"toCIDR": ["198.51.100.0/24"]}]}


#: custom resources: (API, kind, spec, CNI)
LANGUAGES: dict[str, tuple[str, str, Any, str]] = {
    "calico": (CALICO, "GlobalNetworkPolicy", calico, "calico"),
    "cilium": (CILIUM, "CiliumClusterwideNetworkPolicy", cilium, "cilium"),
    "cluster-network-policy": (TIERS, "ClusterNetworkPolicy", cluster, "kindnet"),
}


@pytest.mark.parametrize(("language", "custom"), [(name, name) for name in LANGUAGES], indirect=["custom"])
@pytest.mark.usefixtures("custom")
def test_an_opening_in_any_language_is_found_and_ranked(lab: Lab, language: str) -> None:
    api, kind, spec, cni = LANGUAGES[language]
    lab.facts["cni"] |= {"policy_apis": [api], "name": cni}
    lab.create(lab.workload("Deployment"))
    name = f"open-{lab.instance}"
    lab.create({"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec(name, lab.namespace)})
    try:
        with pytest.raises(NetguardError, match=rf"{kind} {name}, egress\[0\]: allows 198\.51\.100\.") as caught:
            lab.run([QBIT], dialect="networkpolicy")
        (entry,) = caught.value.details["reopened_by"]
        assert (entry["kind"], entry["name"], entry["effective"]) == (kind, name, True)
        (entry,) = lab.run([QBIT])["reopened_by"]
        assert (entry["name"], entry["effective"]) == (name, False)
    finally:
        lab.send("DELETE", lab.cluster.resources.find(api, kind).path("", name))
    assert lab.run([QBIT])["reopened_by"] == []


@pytest.mark.parametrize("custom", ["admin-network-policy"], indirect=True)
@pytest.mark.usefixtures("custom")
def test_an_admin_policy_that_names_pods_alone_opens_nothing(lab: Lab) -> None:
    """The standard channel of AdminNetworkPolicy has no other peers than pods."""
    lab.facts["cni"] |= {"policy_apis": [ADMIN], "name": "kindnet"}
    lab.create(lab.workload("Deployment"))
    name = f"open-{lab.instance}"
    own = {"matchLabels": {"kubernetes.io/metadata.name": lab.namespace}}
    spec = {
        "priority": 7,
        "subject": {"namespaces": own},
        "egress": [{"action": "Allow", "to": [{"namespaces": {"namespaceSelector": own}}]}],
    }
    lab.create({"apiVersion": ADMIN, "kind": "AdminNetworkPolicy", "metadata": {"name": name}, "spec": spec})
    try:
        assert lab.run([QBIT])["reopened_by"] == []
    finally:
        lab.send("DELETE", lab.cluster.resources.find(ADMIN, "AdminNetworkPolicy").path("", name))
