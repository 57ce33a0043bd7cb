# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Kill switches as hands and other tools write them (patterns K1 to K4): what the auditor says of each."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._audit.audit import audit
from ansible_collections.homelab.netguard.plugins.module_utils._audit.findings import Finding
from ansible_collections.homelab.netguard.plugins.module_utils._facts.model import Cni, Dns, Endpoint, Facts
from ansible_collections.homelab.netguard.plugins.module_utils._manifests import killswitch
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Live
from ansible_collections.homelab.netguard.plugins.module_utils._topology.model import Topology
from ansible_collections.homelab.netguard.plugins.module_utils._topology.parse import parse
from seeds import block, policy, space, tcp, workload

GATEWAY = {"name": "proton", "namespace": "vpn", "provider": "protonvpn", "credentials": {"secret": "x"}}
APPS = [
    {"name": "sabnzbd", "namespace": "media", "pods": {"app": "sabnzbd"}, "ports": {"web": 8080}, "vpn": "proton"},
    {"name": "proxy", "namespace": "tools", "pods": {"app": "proxy"}, "ports": {"http": 3128}, "internet": True},
]
TOPOLOGY: Topology = parse("home", [GATEWAY], APPS, None, None)
NAMES = {"to": [space("kube-system")], "ports": [{"protocol": name, "port": 53} for name in ("UDP", "TCP")]}
DNS = workload("coredns", "kube-system", k8s_app="kube-dns")


def home(cni: str, pods: str = "10.1.0.0/16", services: str = "10.152.183.0/24") -> Facts:
    return Facts(
        pods=(ipaddress.ip_network(pods),),
        services=(ipaddress.ip_network(services),),
        nodes=(ipaddress.ip_network("192.168.0.11/32"),),
        lan=(ipaddress.ip_network("192.168.0.0/24"),),
        api_endpoints=(Endpoint("192.168.0.11", 6443),),
        dns=Dns((), "kube-system", {"k8s-app": "kube-dns"}),
        cni=Cni(cni, True, translates_kernel_packets=True),
    )


def by_hand(*cidrs: str) -> dict[str, Any]:
    rules = [{"to": [block(cidr)]} for cidr in cidrs]
    return policy("media", {"app": "sabnzbd"}, egress=[*rules, NAMES])


K1 = by_hand("10.1.0.0/16", "10.152.183.0/24", "192.168.0.0/24", "169.254.7.127/32")
K2 = by_hand("10.42.0.0/16", "10.96.0.0/12")


def written(known: Facts) -> tuple[Any, ...]:
    return killswitch.build(TOPOLOGY, known, Live(), dialect="networkpolicy").desired.objects


def anything(*targets: Any, ports: Any = None) -> dict[str, Any]:
    rule: dict[str, Any] = {"to": [*targets]}
    return policy("media", egress=[{**rule, "ports": ports} if ports else rule])


BOTH = replace(home("calico"), ip_families=("ipv4", "ipv6"), pods=(*home("calico").pods, ipaddress.ip_network("2001:db8:1::/56")))
K3S = home("kube-router", "10.42.0.0/16", "10.43.0.0/16")

#: name: (facts, whether our own kill switch stands there, objects beside it, code, severity, what is said)
ROWS: dict[str, tuple[Facts, bool, tuple[Any, ...], str, str, str]] = {
    "K1 the pods' range holds relays": (home("calico"), False, (K1,), "relay", "warning", "tools/Deployment/proxy"),
    "K1 the pods' range by address": (home("calico"), False, (K1,), "pod-range", "warning", "10.1.0.0/16"),
    "K1 the Services' range never matches": (home("calico"), False, (K1,), "inert", "warning", "10.152.183.0/24"),
    "K1 the LAN leads out": (home("calico"), False, (K1,), "private-open", "warning", "192.168.0.0/24"),
    "K1 names go by the home line": (home("calico"), False, (K1,), "dns-leak", "error", "sabnzbd"),
    "K1 on Cilium the gateway is cut": (home("cilium"), False, (K1,), "gateway-unreachable", "error", "overlay"),
    "K1 on Cilium no pod is matched by address": (home("cilium"), False, (K1,), "inert", "warning", "10.1.0.0/16"),
    "K2 ranges of another distribution": (K3S, False, (K2,), "private-open", "warning", "10.96.0.0/12"),
    "K2 it cannot be bypassed, but for the node's network": (
        K3S,
        True,
        (workload("sabnzbd", "media", host=True),),
        "host-network",
        "error",
        "sabnzbd",
    ),
    "K4 a policy is added": (home("calico"), True, (anything(block("0.0.0.0/0")),), "leak", "error", "IPv4"),
    "K4 the other family": (BOTH, True, (anything(block("::/0"), ports=tcp(443)),), "leak", "error", "IPv6"),
    "K4 names": (home("calico"), True, (anything(space("kube-system")),), "dns-leak", "error", "sabnzbd"),
    "K4 pings pass": (K3S, True, (), "icmp-passes", "info", "kube-router"),
    "K4 the time until a fresh pod's rules are written": (K3S, True, (), "fail-open", "info", "kube-router"),
    "K4 the policy daemon is down": (home("kindnet"), True, (), "fail-open", "info", "kindnet"),
}


def run(known: Facts, ours: bool, extra: tuple[Any, ...]) -> list[Finding]:
    live = Live((DNS, *extra, *(written(known) if ours else ())))
    return audit(TOPOLOGY, known, live).findings


@pytest.mark.parametrize("name", ROWS)
def test_a_kill_switch_by_hand(name: str) -> None:
    known, ours, extra, code, severity, said = ROWS[name]
    if "host-network" in code:  # it would refuse to be built
        found = audit(TOPOLOGY, known, Live((DNS, *extra))).findings
    else:
        found = run(known, ours, extra)
    assert any(item.code == code and item.severity == severity and said in f"{item} {item.policy}" for item in found), "\n".join(
        str(item) for item in found
    )


@pytest.mark.parametrize("cni", ["calico", "cilium", "kube-router", "kindnet"])
def test_k3_ours_has_its_name_and_its_owner_and_is_clean(cni: str) -> None:
    known = home(cni)
    (own,) = written(known)
    assert own["metadata"]["name"] == "netguard-killswitch-sabnzbd"
    assert own["metadata"]["labels"]["homelab.netguard/part"] == "killswitch"
    assert own["metadata"]["labels"]["homelab.netguard/instance"] == "home"
    bad = [item for item in run(known, True, ()) if item.severity != "info"]
    assert not bad, "\n".join(str(item) for item in bad)
