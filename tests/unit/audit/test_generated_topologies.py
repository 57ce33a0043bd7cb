# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Random lists of apps: what we write from them opens every declared edge and no other, under every CNI, in every layout.

Builders and auditor share the declared edges, not how they become policies and verdicts; and the mutations show that the
auditor sees what is taken away and what is added.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._audit.audit import audit
from ansible_collections.homelab.netguard.plugins.module_utils._audit.findings import Finding
from ansible_collections.homelab.netguard.plugins.module_utils._audit.profiles import PROFILES
from ansible_collections.homelab.netguard.plugins.module_utils._errors import FaultsError
from ansible_collections.homelab.netguard.plugins.module_utils._facts.model import Cni, Facts
from ansible_collections.homelab.netguard.plugins.module_utils._manifests import killswitch, segments
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Live
from ansible_collections.homelab.netguard.plugins.module_utils._topology.model import Topology
from ansible_collections.homelab.netguard.plugins.module_utils._topology.parse import parse
from audit_shapes import deployment, facts, networks
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

APIS = {
    "calico": ("projectcalico.org/v3",),
    "canal": ("crd.projectcalico.org/v1",),
    "cilium": ("cilium.io/v2",),
    "kindnet": ("policy.networking.k8s.io/v1alpha2",),
}
CNIS = [name for name, profile in PROFILES.items() if profile.enforces]
SPACES = ("media", "data", "tools")
GATEWAY = {"name": "proton", "namespace": "vpn", "provider": "protonvpn", "credentials": {"secret": "x"}}
PLATFORM = {
    "ingress": {"namespace": "edge", "pods": {"app": "traefik"}},
    "prometheus": {"namespace": "watch", "pods": {"app": "prometheus"}},
}
DNS = deployment("coredns", "kube-system", **{"k8s-app": "kube-dns"})
#: What would say that a declared edge is cut, or that something else is open.
WRONG = {"declared-blocked", "undeclared-open", "gateway-unreachable", "gateway-icmp-dead", "dns-dead", "leak", "malformed"}


@st.composite
def lists(draw: Any) -> dict[str, Any]:
    """Apps, namespaces and platform; ports are shared on purpose, so that edges meet."""
    count = draw(st.integers(2, 6))
    keys = [(f"app{number}", draw(st.sampled_from(SPACES))) for number in range(count)]
    apps: list[dict[str, Any]] = []
    for name, where in keys:
        ports = {"web": draw(st.sampled_from((80, 8080))), "sql": draw(st.sampled_from(("5432/tcp", "53/udp", "9000-9005/tcp")))}
        app: dict[str, Any] = {"name": name, "namespace": where, "pods": {"app": name}, "ports": ports}
        others = [f"{space}/{other}:{port}" for other, space in keys if other != name for port in ports]
        app["uses"] = draw(st.lists(st.sampled_from(others), max_size=3, unique=True))
        for key, value in (
            ("exposed", "web"),
            ("metrics", "sql"),
            ("peers", ["web"]),
            ("kube_api", True),
            ("webhook", 9443),
            ("lan", ["web"]),
            ("external", [{"to": "192.0.2.200", "ports": [8006]}]),
            ("operator", "cloudnative-pg"),
        ):
            if draw(st.integers(0, 3)) == 0:
                app[key] = value
        kind = draw(st.integers(0, 4))
        if kind == 0 and "operator" not in app:
            app["vpn"] = "proton"
            app.pop("webhook", None)
        elif kind == 1:
            app["internet"] = [443]
        apps.append({key: value for key, value in app.items() if value != []})
    spaces = [{"name": name, "layout": draw(st.sampled_from(("app", "namespace"))), "mesh": draw(st.booleans())} for name in SPACES]
    spaces += [{"name": name, "default": "open", "mesh": draw(st.booleans())} for name in ("edge", "watch", "cnpg-system")]
    there = [item for name, where in keys if draw(st.booleans()) for item in deployment(name, where)]
    return {"apps": apps, "namespaces": spaces, "there": there}


def known(cni: str) -> Facts:
    cni_facts = Cni(cni, True, policy_apis=APIS.get(cni, ()), translates_kernel_packets=True)
    return facts(cni, cni=cni_facts, mesh_probe_sources=networks("169.254.7.127/32"))


def build(found: dict[str, Any], cni: str) -> tuple[Topology, list[Any]]:
    declared = parse("home", [GATEWAY], found["apps"], PLATFORM, found["namespaces"])
    there = Live((*found["there"], *DNS))
    try:
        closed = killswitch.build(declared, known(cni), there, dialect="auto").desired.objects
        written = [*closed, *segments.build(declared, known(cni), there).desired.objects]
    except FaultsError:
        assume(False)
        raise
    return declared, [*there.objects, *written]


def judged(declared: Topology, objects: list[Any], cni: str) -> list[Finding]:
    return [item for item in audit(declared, known(cni), Live(tuple(objects))).findings if item.code in WRONG]


@pytest.mark.parametrize("cni", CNIS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(lists())
def test_every_declared_edge_and_no_other(cni: str, found: dict[str, Any]) -> None:
    declared, objects = build(found, cni)
    wrong = judged(declared, objects, cni)
    assert not wrong, "\n".join(str(item) for item in wrong)


def rules_of(objects: list[Any]) -> list[tuple[int, str, int]]:
    """Every rule of our policies of apps: (object, direction, position)."""
    return [
        (place, direction, position)
        for place, item in enumerate(objects)
        if item["kind"] == "NetworkPolicy"
        for direction in ("egress", "ingress")
        for position, _rule in enumerate(item["spec"].get(direction) or [])
    ]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(lists(), st.data())
def test_a_rule_that_is_taken_away_is_missed(found: dict[str, Any], data: Any) -> None:
    # in the mesh several rules open the same tunnel, so that one of them may go unnoticed
    found["namespaces"] = [{**item, "mesh": False} for item in found["namespaces"]]
    declared, objects = build(found, "calico")
    listed = rules_of(objects)
    place, direction, position = data.draw(st.sampled_from(listed))
    broken = copy.deepcopy(objects)
    rule = broken[place]["spec"][direction].pop(position)
    side = "to" if direction == "egress" else "from"
    only_probes = all("169.254.7.127" in str(peer) for peer in rule[side])
    # towards pods that are not there nothing is cut, and of one's own kind only other replicas are
    strangers = all(
        (peer.get("podSelector") or {}).get("matchLabels", {}).get("app") in (None, "traefik", "prometheus") for peer in rule[side]
    )
    assume(not only_probes and not (strangers and "ipBlock" not in str(rule) and "kube-dns" not in str(rule)))
    codes = {item.code for item in judged(declared, broken, "calico")}
    assert codes & {"declared-blocked", "dns-dead", "gateway-unreachable"}, (broken[place]["metadata"], direction, rule)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(lists(), st.data())
def test_an_allowance_that_is_added_is_seen(found: dict[str, Any], data: Any) -> None:
    found["namespaces"] = [{**item, "mesh": False} for item in found["namespaces"]]
    declared, objects = build(found, "calico")
    apps = [app for app in declared.apps if app.vpn is None]
    assume(len(apps) > 1)
    source, destination = data.draw(st.sampled_from(apps)), data.draw(st.sampled_from(apps))
    assume(source.key != destination.key)
    port = {"protocol": "TCP", "port": 7777}

    def opened(app: Any, direction: str, other: Any) -> dict[str, Any]:
        peer = {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": other.namespace}},
            "podSelector": {"matchLabels": dict(other.pods)},
        }
        rule = {"to" if direction == "egress" else "from": [peer], "ports": [port]}
        return {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": f"extra-{direction}", "namespace": app.namespace},
            "spec": {"podSelector": {"matchLabels": dict(app.pods)}, "policyTypes": [direction.capitalize()], direction: [rule]},
        }

    added = [opened(source, "egress", destination), opened(destination, "ingress", source)]
    wrong = judged(declared, [*objects, *added], "calico")
    assert {item.code for item in wrong} == {"undeclared-open"}
    assert all("7777" in str(item.witness) for item in wrong), wrong
