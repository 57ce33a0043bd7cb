# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way of facts: JSON and back, the table for people, the addresses of nodes from Ansible's facts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.homelab.netguard.plugins.filter.netguard import facts_table, node_networks
from ansible_collections.homelab.netguard.plugins.module_utils._errors import FaultsError
from ansible_collections.homelab.netguard.plugins.module_utils._facts.discover import discover
from ansible_collections.homelab.netguard.plugins.module_utils._facts.model import Endpoint
from ansible_collections.homelab.netguard.plugins.module_utils._facts.result import from_result, version
from clusters_families import CLUSTERS


@pytest.mark.parametrize("name", CLUSTERS)
def test_json_and_back(name: str) -> None:
    facts = discover(CLUSTERS[name][0])
    saved = json.loads(json.dumps({"facts": facts, "changed": False}))
    assert from_result(saved, strict=False) == from_result(facts, strict=False)
    typed = from_result(facts, strict=False)
    assert typed.api_endpoints
    assert typed.dns.service_ips
    assert typed.cni.name == facts["cni"]["name"]


@pytest.mark.parametrize("name", CLUSTERS)
def test_the_table_fits_a_terminal(name: str) -> None:
    facts = discover(CLUSTERS[name][0])
    lines = facts_table(facts)
    assert max(len(line) for line in lines) <= 80
    text = "\n".join(lines)
    for about in ("pods", "services", "nodes"):
        assert all(cidr in text for cidr in facts["cidrs"][about])
        assert f"= {facts['ranges'][about]['status']}" in text
    assert text.count("settle it:") == len(facts["doubts"])


@pytest.mark.parametrize(
    ("facts", "path"),
    [
        ({"cidrs": {"pods": ["x"], "services": ["10.0.0.0/16"]}}, "facts.cidrs.pods[0]"),
        ({"api_server": {"endpoints": [{"ip": "10.0.0.1"}]}}, "facts.api_server.endpoints[0]"),
        ({"api_server": {"endpoints": ["10.0.0.1"]}}, "facts.api_server.endpoints[0]"),
        ({"dns": {"ports": {"udp": ["dns"]}}}, "facts.dns.ports.udp"),
        ({"cni": {"overlay_udp_ports": "many"}}, "facts.cni.overlay_udp_ports"),
        ({}, "facts.ranges.pods"),
        ({"facts": None}, "facts.ranges.services"),
        ({"cidrs": {"pods": ["10.0.0.0/16"]}}, "facts.ranges.services"),
    ],
)
def test_facts_that_are_none(facts: dict[str, Any], path: str) -> None:
    with pytest.raises(FaultsError) as caught:
        from_result(facts)
    assert path in str(caught.value)


def test_facts_by_hand_need_little() -> None:
    facts = from_result(
        {
            "cidrs": {"pods": ["10.1.0.0/16"], "services": ["10.2.0.0/16"]},
            "api_server": {"endpoints": [{"ip": "10.0.0.1", "port": "6443"}]},
        }
    )
    assert facts.api_endpoints == (Endpoint("10.0.0.1", 6443),)
    assert facts.dns.ports_udp == (53,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v1.34.4", (1, 34)),
        ("v1.30+", (1, 30)),
        ("1.33.1-gke.100", (1, 33)),
        ("v1.27.4+k3s1", (1, 27)),
        ("", (0, 0)),
        ("x", (0, 0)),
    ],
)
def test_versions(text: str, expected: tuple[int, int]) -> None:
    assert version(text) == expected


ETH0 = {
    "ipv4": {"address": "192.168.1.10", "prefix": "24"},
    "ipv6": [{"address": "fd00::10", "prefix": "64"}, {"address": "fe80::1", "prefix": "64"}],
}
BRIDGE = {"ipv4": {"address": "172.17.0.1", "netmask": "255.255.0.0"}}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (
            {
                "interfaces": ["lo", "eth0", "br-lan"],
                "lo": {"ipv4": {"address": "127.0.0.1", "prefix": "8"}},
                "eth0": ETH0,
                "br_lan": BRIDGE,
            },
            ["172.17.0.1/16", "192.168.1.10/24", "fd00::10/64"],
        ),
        ({"ansible_interfaces": ["eth0"], "ansible_eth0": ETH0}, ["192.168.1.10/24", "fd00::10/64"]),
        ({"default_ipv4": {"address": "10.0.0.5", "prefix": "22"}, "default_ipv6": {}}, ["10.0.0.5/22"]),
        ({"default_ipv4": {"address": "10.0.0.5", "prefix": "32"}}, []),
        ({"default_ipv4": {"address": "10.0.0.5"}}, []),
        ({"interfaces": "eth0"}, []),
        ({}, []),
    ],
)
def test_addresses_of_nodes(facts: dict[str, Any], expected: list[str]) -> None:
    assert node_networks(facts) == expected


@pytest.mark.parametrize("wrong", [None, [], "facts"])
def test_filters_refuse_what_is_no_facts(wrong: Any) -> None:
    with pytest.raises(AnsibleFilterError):
        node_networks(wrong)
    with pytest.raises(AnsibleFilterError):
        facts_table(wrong)
