# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every distribution and CNI: what is discovered is what their documentation says, and what cannot be known is asked for."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._errors import FaultsError
from ansible_collections.homelab.netguard.plugins.module_utils._facts.discover import discover
from ansible_collections.homelab.netguard.plugins.module_utils._facts.result import from_result
from clusters import Expected
from clusters_families import CLUSTERS
from recordings import Cluster


def within(found: list[str], truth: tuple[str, ...]) -> bool:
    nets = [ipaddress.ip_network(item) for item in truth]
    return all(any(one.version == net.version and one.subnet_of(net) for net in nets) for one in map(ipaddress.ip_network, found))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CLUSTERS)
def test_recorded(name: str) -> None:
    cluster, expected = CLUSTERS[name]
    facts = discover(cluster)
    assert said(facts) == wanted(expected), json.dumps(facts["doubts"], indent=1)
    for about in ("pods", "services"):
        truth = getattr(expected, about)
        if facts["ranges"][about]["status"] == "complete":
            assert set(facts["cidrs"][about]) == set(truth)
        else:
            assert within(facts["cidrs"][about], truth)
    if expected.lan is not None:
        assert set(facts["cidrs"]["lan"]) == set(expected.lan)
    if {expected.pods_status, expected.services_status} == {"complete"}:
        typed = from_result(facts)
        assert {str(item) for item in typed.pods} == set(expected.pods)
        assert typed.digest == facts["digest"]
    else:
        with pytest.raises(FaultsError, match=r"netguard_overrides: \{(pods|services): \[\.\.\.\]"):
            from_result(facts)


def said(facts: dict[str, Any]) -> dict[str, Any]:
    cni = facts["cni"]
    return {
        "distribution": facts["distribution"]["name"],
        "cni": cni["name"],
        "ipam": cni["ipam"],
        "pods_status": facts["ranges"]["pods"]["status"],
        "services_status": facts["ranges"]["services"]["status"],
        "enforces": cni["enforces_network_policy"],
        "ports": cni["overlay_udp_ports"],
        "drops": cni["drops_workload_vxlan_ports"],
        "translates": cni["translates_kernel_packets"],
        "match": cni["ipblock_matches_pods"],
        "families": facts["ip_families"],
        "endpoint": [f"{item['ip']}:{item['port']}" for item in facts["api_server"]["endpoints"]],
        "dns": facts["dns"]["namespace"],
        "dns_ports": facts["dns"]["ports"],
    }


def wanted(expected: Expected) -> dict[str, Any]:
    port = [5353] if expected.distribution == "openshift" else [53]
    return {
        "distribution": expected.distribution,
        "cni": expected.cni,
        "ipam": expected.ipam,
        "pods_status": expected.pods_status,
        "services_status": expected.services_status,
        "enforces": expected.enforces,
        "ports": [*expected.ports],
        "drops": [*expected.drops],
        "translates": expected.translates,
        "match": expected.blocks_match_pods,
        "families": [*expected.families],
        "endpoint": [expected.endpoint],
        "dns": expected.dns,
        "dns_ports": {"udp": port, "tcp": port},
    }


#: Everything that discovery asks for, and the ways in which an answer can be none.
SOURCES = [
    "Node",
    "Pod",
    "Service",
    "ConfigMap",
    "DaemonSet",
    "EndpointSlice",
    "Endpoints",
    "ServiceCIDR",
    "IPAddress",
    "IPPool",
    "BlockAffinity",
    "Installation",
    "FelixConfiguration",
    "CiliumNode",
    "CiliumPodIPPool",
    "Network",
    "Cluster",
    "probe",
    "/version",
    "/apis",
]


@pytest.mark.parametrize("fault", ["forbidden", "absent", "failed", "malformed", "empty"])
@pytest.mark.parametrize("source", SOURCES)
def test_a_source_that_fails_takes_nothing_but_certainty(source: str, fault: str) -> None:
    """Whatever one source answers: no crash, nothing claimed that is not true, and the loss is named."""
    for name, (cluster, expected) in CLUSTERS.items():
        broken = cluster.broken(source, fault)
        facts = discover(broken)
        nothing_wrong(facts, expected, f"{name}, {source} {fault}")
        if fault in ("forbidden", "failed") and source not in ("probe", "/version", "/apis"):
            asked = any(kind == source for _verb, _version, kind, _where in broken.asked)
            named = any(key.startswith(source) and state == fault for key, state in facts["permissions"].items())
            assert named or not asked, (name, facts["permissions"])


def nothing_wrong(facts: dict[str, Any], expected: Expected, where: str) -> None:
    for about in ("pods", "services"):
        status, found, truth = facts["ranges"][about]["status"], facts["cidrs"][about], getattr(expected, about)
        if status == "complete":
            assert set(found) == set(truth), (where, about, found)
        elif status == "partial":
            assert within(found, truth), (where, about, found)


@pytest.mark.parametrize("lost", [SOURCES[:1], SOURCES[1:3], SOURCES[3:6], SOURCES[6:12], SOURCES])
def test_many_sources_that_may_not_be_read(lost: list[str]) -> None:
    for name, (cluster, expected) in CLUSTERS.items():
        broken: Cluster = cluster
        for source in lost:
            broken = broken.broken(source, "forbidden")
        facts = discover(broken)
        nothing_wrong(facts, expected, f"{name}, {lost}")
        json.dumps(facts)


@pytest.mark.parametrize("name", CLUSTERS)
def test_order_never_matters(name: str) -> None:
    cluster, _expected = CLUSTERS[name]
    turned = cluster.plus()
    turned.objects = [*reversed(turned.objects)]
    first, second = discover(cluster), discover(turned)
    for key in ("cidrs", "ranges", "digest", "dns", "api_server"):
        assert first[key] == second[key]
