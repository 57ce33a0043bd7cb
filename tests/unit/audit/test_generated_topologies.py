# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Random lists of apps: what we write from them opens every declared edge and no other, under every CNI, dialect and layout.

What a list means is read off its words (`generated.py`) and held against the verdicts; the auditor, which shares the declared
edges with the builders, must agree; and the mutations show that it sees what is taken away and what is added.
"""

from __future__ import annotations

import copy
import itertools
import json
from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._audit.audit import audit
from ansible_collections.homelab.netguard.plugins.module_utils._audit.engine import Engine
from ansible_collections.homelab.netguard.plugins.module_utils._audit.findings import Finding
from ansible_collections.homelab.netguard.plugins.module_utils._audit.profiles import PROFILES
from ansible_collections.homelab.netguard.plugins.module_utils._audit.world import World
from ansible_collections.homelab.netguard.plugins.module_utils._errors import FaultsError
from ansible_collections.homelab.netguard.plugins.module_utils._manifests import killswitch, names, segments
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Live
from ansible_collections.homelab.netguard.plugins.module_utils._topology.model import Topology
from ansible_collections.homelab.netguard.plugins.module_utils._topology.parse import parse
from audit_shapes import ask, deployment
from generated import API, CANDIDATES, HBONE, LOCAL_DNS, NODE, PING, PLANNED, PLATFORM, Meaning, Port, known, lists, nodes
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

DNS = deployment("coredns", "kube-system", **{"k8s-app": "kube-dns"})
#: What would say that a declared edge is cut, or that something else is open.
WRONG = {"declared-blocked", "undeclared-open", "gateway-unreachable", "gateway-icmp-dead", "dns-dead", "leak", "malformed"}
SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]

#: CNI, dialect of segmentation and dialect of the kill switches: every one that a cluster with this CNI takes.
LANGUAGES = [
    (cni, dialect, closing)
    for cni, profile in PROFILES.items()
    if profile.enforces
    for dialect, closing in {
        "calico": [("auto", "auto"), ("calico", "clusternetworkpolicy"), ("networkpolicy", "networkpolicy")],
        "canal": [("auto", "calico"), ("networkpolicy", "auto")],
        "cilium": [("auto", "auto"), ("cilium", "cilium"), ("networkpolicy", "cilium")],
        "kindnet": [("auto", "auto"), ("auto", "networkpolicy")],
    }.get(cni, [("auto", "auto")])
]


def spoken(cni: str, dialect: str) -> str:
    """What `auto` stands for."""
    if dialect != "auto":
        return dialect
    return {"calico": "calico", "canal": "calico", "cilium": "cilium"}.get(cni, "networkpolicy")


def parsed(found: dict[str, Any]) -> Topology:
    return parse("home", [found["gateway"]], found["apps"], PLATFORM, found["namespaces"])


def build(found: dict[str, Any], cni: str, dialect: str = "auto", closing: str = "auto") -> tuple[Topology, list[Any]]:
    """Raises FaultsError with the faults of both modules."""
    topology, facts = parsed(found), known(cni, found)
    there = Live((*found["there"], *DNS, *nodes()))
    written: list[Any] = []
    faults = []
    for make in (
        lambda: killswitch.build(topology, facts, there, dialect=closing),
        lambda: segments.build(topology, facts, there, dialect),
    ):
        try:
            written += make().desired.objects  # type: ignore[attr-defined]
        except FaultsError as error:
            faults += error.faults
    if faults:
        raise FaultsError(faults)
    return topology, [*there.objects, *written]


def judged(found: dict[str, Any], topology: Topology, objects: list[Any], cni: str) -> list[Finding]:
    return [
        item
        for item in audit(topology, known(cni, found), Live(tuple(objects))).findings
        if item.code in WRONG and item.severity != "info"
    ]


def engine(found: dict[str, Any], topology: Topology, objects: list[Any], cni: str) -> Engine:
    return Engine(World(topology, known(cni, found), Live(tuple(objects))), PROFILES[cni])


def words(port: Port) -> str:
    return "icmp" if port == PING else f"{port[1]}/{port[0].lower()}"


def differences(found: dict[str, Any], judge: Engine, objects: list[Any]) -> list[str]:
    """Where a verdict is not what the list says."""
    said = Meaning(found, judge.profile.name)
    joined = {item["metadata"]["namespace"] for item in objects if item["metadata"]["name"] == names.NAMESPACE_SEGMENT}
    wrong: list[str] = []

    def compare(source: str, destination: str, port: Port, expected: bool, *, certain: bool = True) -> None:
        verdict = ask(judge, source, destination, words(port))
        if verdict not in ((("allowed",) if certain else ("allowed", "implementation-defined")) if expected else ("denied",)):
            wrong.append(f"{source} to {destination} on {words(port)} is {verdict}, declared: {expected}")

    pairs, is_cilium = said.pairs(), judge.profile.name == "cilium"
    present = {(one.namespace, one.name.split("/")[2]) for one in judge.world.endpoints}
    platform = {key: key if key in said.there else name for key, name in PLANNED.items()}
    sources = {key: key for key in said.apps} | {key: name for key, name in platform.items() if tuple(name.split("/")) in present}
    for source, one in sources.items():
        for destination in said.apps:
            if source not in said.hosts and destination not in said.hosts:
                declared = pairs.get((source, destination), set())
                ports = {*CANDIDATES, *declared}
                if destination.partition("/")[0] in joined or source.partition("/")[0] in joined:
                    if source == destination:  # replicas share what the one policy says about their neighbours
                        ports = declared
                    elif HBONE in declared:  # the tunnel carries every other TCP port already
                        ports = declared | {port for port in ports if port[0] != "TCP"}
                for port in ports:
                    compare(one, destination, port, port in declared)
    for key in said.apps:
        if said.covered(key):
            space = key.partition("/")[0]
            others = [] if said.client(key) or space not in joined else [other for other in said.together(space) if other != key]
            for out, table in ((True, said.outward), (False, said.inward)):
                own, shared = table(key), [table(other) for other in others]
                for address, port in itertools.product(own, (*CANDIDATES, PING)):
                    node = address in (API, NODE, LOCAL_DNS) and judge.profile.ipblock_nodes is not True
                    if (port == PING and judge.profile.icmp_always is not False) or (node and not out):
                        continue  # a pod's own node always comes in
                    # what is said in the CNI's own language is said by app, in whatever layout
                    more = any(one[address] is None or port in one[address] - {PING} for one in shared) and not (node and is_cilium)
                    expected = own[address] is None or port in own[address] or more
                    compare(*((key, address) if out else (address, key)), port, expected, certain=not node)
    return wrong


@pytest.mark.parametrize(("cni", "dialect", "closing"), LANGUAGES)
@settings(max_examples=12, deadline=None, suppress_health_check=SLOW)
@given(lists())
def test_every_declared_edge_and_no_other(cni: str, dialect: str, closing: str, found: dict[str, Any]) -> None:
    refused = Meaning(found, cni).refused(spoken(cni, dialect), spoken(cni, closing))
    if refused:
        with pytest.raises(FaultsError) as error:
            build(found, cni, dialect, closing)
        assert {fault.path for fault in error.value.faults} == refused
        return
    topology, objects = build(found, cni, dialect, closing)
    wrong = differences(found, engine(found, topology, objects, cni), objects)
    wrong += [str(item) for item in judged(found, topology, objects, cni)]
    assert not wrong, "\n".join(wrong)


Token = tuple[str, str, int, int]  # peer as text, protocol, first and last port


def tokens(rule: dict[str, Any], direction: str) -> set[Token]:
    ports = rule.get("ports") or [{"protocol": name, "port": 0, "endPort": 65535} for name in ("TCP", "UDP", "SCTP")]
    spans = [(item["protocol"], item["port"], item.get("endPort", item["port"])) for item in ports]
    return {(json.dumps(peer, sort_keys=True), *span) for peer in rule["to" if direction == "egress" else "from"] for span in spans}


def within(token: Token, others: set[Token]) -> bool:
    return any(one[:2] == token[:2] and one[2] <= token[2] and token[3] <= one[3] for one in others)


def written_rules(objects: list[Any]) -> list[tuple[int, str, int]]:
    """Every rule of a NetworkPolicy that no other rule of it says as well: (object, direction, position)."""
    result = []
    for place, item in enumerate(objects):
        for direction in ("egress", "ingress"):
            listed = (item["spec"].get(direction) or []) if item["apiVersion"] == "networking.k8s.io/v1" else []
            said = [tokens(rule, direction) for rule in listed]
            for position, own in enumerate(said):
                beside = set().union(*said[:position], *said[position + 1 :])
                # an enrolled pair needs its tunnel alone: the plain ports stand for the time before
                if any(not within(token, beside) for token in own) and not any(token[2] == 15008 for token in own | beside):
                    result.append((place, direction, position))
    return result


@pytest.mark.parametrize("cni", ["calico", "kube-router", "cilium"])
@settings(max_examples=25, deadline=None, suppress_health_check=SLOW)
@given(lists(), st.data())
def test_a_rule_that_is_taken_away_is_missed(cni: str, found: dict[str, Any], data: Any) -> None:
    assume(not Meaning(found, cni).refused(spoken(cni, "auto"), spoken(cni, "auto")))
    topology, objects = build(found, cni)
    listed = written_rules(objects)
    assume(listed)
    place, direction, position = data.draw(st.sampled_from(listed))
    broken = copy.deepcopy(objects)
    rule = broken[place]["spec"][direction].pop(position)
    lost = audit(topology, known(cni, found), Live(tuple(broken))).findings
    codes = {item.code for item in lost if item.severity != "info"}
    peers = rule["to" if direction == "egress" else "from"]
    if cni == "cilium" and (all("ipBlock" in peer for peer in peers) or (found["local"] and "kube-dns" in str(peers))):
        return  # nodes and the resolver on them, which its own policies say beside it
    assert codes & {"declared-blocked", "declared-undecided", "dns-dead", "gateway-unreachable"}, (
        broken[place]["metadata"],
        direction,
        rule,
    )


@st.composite
def openings(draw: Any, said: Meaning) -> tuple[str, dict[str, Any], str]:
    """An allowance that nobody declared: (namespace, spec, what the finding's witness must hold)."""
    keys = sorted(key for key in said.apps if said.covered(key))
    assume(keys)
    subject = said.apps[draw(st.sampled_from(keys))]
    pods = {"matchLabels": subject["pods"]}
    direction = draw(st.sampled_from(("Egress", "Ingress")))
    side = "to" if direction == "Egress" else "from"
    kind = draw(st.sampled_from(("public", "home", "half", "every port")))
    block = {"public": "1.1.1.0/24", "home": "192.0.2.64/28", "half": "128.0.0.0/1", "every port": "203.0.113.0/24"}[kind]
    rule: dict[str, Any] = {side: [{"ipBlock": {"cidr": block}}]}
    if kind != "every port":
        rule["ports"] = [{"protocol": draw(st.sampled_from(("TCP", "UDP"))), "port": 7777}]
    return subject["namespace"], {"podSelector": pods, "policyTypes": [direction], direction.lower(): [rule]}, direction


@pytest.mark.parametrize("cni", ["calico", "kube-router", "cilium"])
@settings(max_examples=25, deadline=None, suppress_health_check=SLOW)
@given(lists(), st.data())
def test_an_address_that_is_opened_is_seen(cni: str, found: dict[str, Any], data: Any) -> None:
    said = Meaning(found, cni)
    assume(not said.refused(spoken(cni, "auto"), spoken(cni, "auto")))
    topology, objects = build(found, cni)
    namespace, spec, direction = data.draw(openings(said))
    labels = spec["podSelector"]["matchLabels"]
    app = next(key for key, item in said.apps.items() if item["pods"] == labels)
    # one policy may give it what a neighbour declared
    assume(all(item.get("internet") is not True for item in said.apps.values() if item["namespace"] == namespace))
    meta = {"name": "extra", "namespace": namespace}
    extra = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}
    report = audit(topology, known(cni, found), Live((*objects, extra)))
    wrong = [item for item in report.findings if item.subject == app and item.policy == "NetworkPolicy " + f"{namespace}/extra"]
    if said.client(app) and direction == "Egress" and cni in ("calico", "cilium"):
        assert not [item for item in wrong if item.code == "leak"], "the hard deny stands before it"
        return
    codes = {"leak", "private-open"} if said.client(app) and direction == "Egress" else {"undeclared-open"}
    assert {item.code for item in wrong} & codes, report.findings


@settings(max_examples=25, deadline=None, suppress_health_check=SLOW)
@given(lists(), st.data())
def test_a_pair_that_is_opened_is_seen(found: dict[str, Any], data: Any) -> None:
    said = Meaning(found, "calico")
    topology, objects = build(found, "calico") if not said.refused("calico", "calico") else (None, [])
    keys = sorted(key for key in said.apps if said.covered(key) and not said.client(key))
    assume(topology is not None and len(keys) > 1)
    assert topology is not None
    source, destination = data.draw(st.permutations(keys))[:2]
    # once the tunnel is open between two pods every port is
    assume(("TCP", 15008) not in said.pairs().get((source, destination), set()))
    port = {"protocol": "TCP", "port": 7777}

    def opened(key: str, direction: str, other: str) -> dict[str, Any]:
        namespace = key.partition("/")[0]
        space = {"matchLabels": {"kubernetes.io/metadata.name": other.partition("/")[0]}}
        peer = {"namespaceSelector": space, "podSelector": {"matchLabels": said.apps[other]["pods"]}}
        rule = {"to" if direction == "egress" else "from": [peer], "ports": [port]}
        pods = {"matchLabels": said.apps[key]["pods"]}
        return {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": f"extra-{direction}", "namespace": namespace},
            "spec": {"podSelector": pods, "policyTypes": [direction.capitalize()], direction: [rule]},
        }

    added = [opened(source, "egress", destination), opened(destination, "ingress", source)]
    wrong = judged(found, topology, [*objects, *added], "calico")
    assert {item.code for item in wrong} == {"undeclared-open"}
    assert all("7777" in str(item.witness) for item in wrong), wrong
