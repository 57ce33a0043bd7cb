# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sources that contradict each other, ranges that cannot be, and what is never concluded."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._errors import FaultsError
from ansible_collections.homelab.netguard.plugins.module_utils._facts.discover import discover
from ansible_collections.homelab.netguard.plugins.module_utils._facts.result import from_result
from clusters import CILIUM
from clusters_families import CLUSTERS
from contradictions import CASES, PLAIN
from recordings import (
    config,
    custom,
    daemonset,
    service,
)


@pytest.mark.parametrize("name", CASES)
def test_contradiction(name: str) -> None:
    recorded, about, status, cidrs, said = CASES[name]
    facts = discover(recorded)
    found = facts["ranges"][about]
    words = json.dumps([facts["doubts"], found["rejected"]])
    assert found["status"] == status, words
    if cidrs is not None:
        assert facts["cidrs"][about] == cidrs, words
    assert said in words
    if status != "complete" and about in ("pods", "services"):
        with pytest.raises(FaultsError, match=about):
            from_result(facts)
    from_result(facts, strict=False)


@pytest.mark.parametrize(
    ("overrides", "about", "status", "said"),
    [
        ({"pods": ["10.244.0.0/15"]}, "pods", "complete", ""),
        ({"pods": ["10.9.0.0/16"]}, "pods", "conflict", "lie outside of 10.9.0.0/16"),
        ({"pods": ["10.9.0.0/16"], "force": True}, "pods", "complete", "by force"),
        ({"services": ["10.96.0.0/12"]}, "services", "complete", ""),
        ({"services": ["10.64.0.0/10"]}, "services", "conflict", "does not begin at"),
        ({"lan": ["192.168.0.0/16"]}, "lan", "complete", ""),
        ({"nodes": ["192.168.1.0/24"]}, "nodes", "complete", ""),
        ({"nodes": ["192.168.7.0/24"]}, "nodes", "conflict", "nodes outside of"),
    ],
)
def test_the_user_wins_and_is_checked(overrides: dict[str, Any], about: str, status: str, said: str) -> None:
    facts = discover(PLAIN, overrides=overrides)
    assert facts["ranges"][about]["status"] == status
    assert facts["cidrs"][about] == overrides[about]
    assert facts["ranges"][about]["cidrs"][0]["trust"] == 0
    assert said in json.dumps(facts["doubts"])


def test_overrides_that_cannot_be_are_told_all_at_once() -> None:
    with pytest.raises(FaultsError) as caught:
        discover(PLAIN, overrides={"pod": ["10.0.0.0/8"], "pods": ["10.1.0.1/8"], "lan": "192.168.1.0/24", "dns": []})
    for path in ("overrides.pod:", "overrides.pods[0]:", "overrides.lan:", "overrides.dns:"):
        assert path in str(caught.value)


@pytest.mark.parametrize("about", ["pods", "services", "lan", "nodes"])
def test_networks_of_the_tunnel_overlap_nothing(about: str) -> None:
    network = {"pods": "10.244.7.0/24", "services": "10.96.8.0/24", "lan": "192.168.1.0/24", "nodes": "192.168.1.0/24"}[about]
    facts = discover(PLAIN, lan=["192.168.1.10/24"], reserved={"the overlay of gateway proton": ipaddress.ip_network(network)})
    assert facts["ranges"][about]["status"] == "conflict"
    with pytest.raises(FaultsError, match="overlaps the overlay of gateway proton"):
        from_result(facts)


def test_ansible_facts_count_where_the_cluster_knows_the_address() -> None:
    """The interface that holds the InternalIP tells the LAN; a bridge of the host and one of the controller do not."""
    facts = discover(PLAIN, lan=["192.168.1.10/23", "192.168.1.11/23", "172.17.0.1/16", "10.20.0.5/24"])
    assert facts["cidrs"]["lan"] == ["192.168.0.0/23"]
    assert facts["ranges"]["lan"]["status"] == "complete"
    assert {item["cidr"] for item in facts["ranges"]["lan"]["rejected"]} == {"172.17.0.0/16", "10.20.0.0/24"}


def test_nothing_near_root_is_asked_for() -> None:
    for recorded, _expected in CLUSTERS.values():
        fresh = recorded.plus()
        discover(fresh)
        assert not [item for item in fresh.asked if item[2] == "Secret" or (item[0], item[2]) == ("list", "ConfigMap")]
        assert all("/proxy" not in item[2] and "exec" not in item[3] for item in fresh.asked)


def test_dns_candidates() -> None:
    """A label decides before a name; several leave a doubt, unless the kubelets' address tells them apart."""
    ports = [{"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 1053}]
    second = service("second", ["10.96.0.53"], "dns2", labels={"k8s-app": "kube-dns"}, ports=ports, selector={"app": "dns"})
    home = service("pihole", ["10.96.0.99"], "home", ports=ports, selector={"app": "pihole"})
    assert discover(PLAIN.plus(home))["dns"]["service_ip"] == "10.96.0.10"
    both = discover(PLAIN.plus(second))
    assert "several Services may be it" in json.dumps(both["doubts"])
    told = discover(
        PLAIN.plus(second, config("kubelet-config", {"kubelet": "clusterDNS: [10.96.0.53]\nclusterDomain: home.arpa\n"}))
    )
    assert told["dns"]["service_ip"] == "10.96.0.53"
    assert told["dns"]["ports"]["udp"] == [1053]
    assert told["dns"]["cluster_domain"] == "home.arpa"


def test_node_local_dns_and_forwarders() -> None:
    cache = daemonset("node-local-dns", {"k8s-app": "node-local-dns"}, args=["-localip", "169.254.20.11,10.96.0.10"])
    corefile = ".:53 {\n  kubernetes lab.example in-addr.arpa ip6.arpa\n  forward . 9.9.9.9 1.1.1.1 {\n  }\n}"
    facts = discover(PLAIN.plus(cache, config("coredns", {"Corefile": corefile})))
    assert facts["dns"]["node_local_ip"] == "169.254.20.11"
    assert facts["dns"]["cluster_domain"] == "lab.example"
    assert facts["dns_forwarders"] == ["9.9.9.9", "1.1.1.1"]


@pytest.mark.parametrize(
    ("mode", "nodes", "switch", "api"), [("", False, "", False), ("nodes", True, "true", True), ("nodes", True, "false", False)]
)
def test_what_cilium_matches_and_serves(mode: str, nodes: bool, switch: str, api: bool) -> None:
    settings = {"ipam": "kubernetes", "policy-cidr-match-mode": mode, "enable-k8s-cluster-network-policy": switch}
    policy = custom("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", "x")
    cni = discover(PLAIN.less("kindnet").plus(CILIUM, config("cilium-config", settings), policy))["cni"]
    assert (cni["ipblock_matches_pods"], cni["ipblock_matches_nodes"]) == (False, nodes)
    assert ("policy.networking.k8s.io/v1alpha2" in cni["policy_apis"]) == api


def test_ambient() -> None:
    facts = discover(CLUSTERS["k3s, Calico by operator"][0])
    assert facts["mesh"]["ambient"] is True
    assert from_result(facts).mesh_probe_sources
    assert discover(PLAIN)["mesh"] == {"ambient": False, "probe_sources": []}
