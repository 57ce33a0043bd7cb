# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wrong with policies as they are written: traps of the language, and rules that this CNI does not obey."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from .._manifests.addresses import SPECIAL_V4
from .._manifests.model import LABEL_MANAGED_BY, MANAGER
from .check_clients import public
from .engine import HBONE, Engine
from .findings import ERROR, INFO, WARNING, Finding
from .policy import DIRECTIONS, EGRESS, INGRESS, Policy, Rule
from .profiles import KUBERNETES
from .read_kubernetes import PEERS, TYPES
from .sets import EVERYWHERE, Addresses, network
from .world import bits

PRIVATE = tuple(ipaddress.ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
#: What a list of the private ranges alone forgets: more than documentation ranges, somebody answers there.
FORGOTTEN = tuple(
    item
    for item in SPECIAL_V4
    if str(item) in ("100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4")
)


def check(engine: Engine) -> Iterator[Finding]:
    """Every finding about single policies, and about the CNI as a whole."""
    yield from _cni(engine)
    for problem in engine.problems:
        yield Finding(
            problem.code,
            problem.severity,
            str(problem.ref),
            f"{problem.path}: {problem.message}",
            problem.mend,
            str(problem.ref),
            problem.path,
        )
    for ref in engine.ignored:
        if engine.profile.enforces:
            message = f"{engine.profile.name} does not obey policies of this kind"
            yield Finding(
                "not-obeyed", WARNING, str(ref), message, "delete it, or say it in a language that the CNI obeys", str(ref)
            )
    refused = {problem.ref for problem in engine.problems if problem.rejected}
    manifests = {
        (item["kind"], item["metadata"].get("namespace") or "", item["metadata"]["name"], item["apiVersion"]): item
        for item in engine.world.live.objects
        if isinstance(item.get("spec"), Mapping)
    }
    for policy in engine.policies:
        ref = policy.ref
        if policy.language == KUBERNETES and ref not in refused:
            spec = manifests.get((ref.kind, ref.namespace, ref.name, ref.api_version), {}).get("spec") or {}
            yield from _written(engine, policy, spec)
        yield from _selects(engine, policy)
        yield from _hbone(engine, policy)
    yield from _bare_namespaces(engine)


def _cni(engine: Engine) -> Iterator[Finding]:
    profile = engine.profile
    if profile.enforces is False and engine.world.live.all("NetworkPolicy"):
        mend = "install a CNI that enforces policies (Calico, Cilium, or a policy controller beside flannel)"
        yield Finding(
            "no-enforcement", ERROR, profile.name, f"{profile.name} enforces no NetworkPolicy: every policy is without effect", mend
        )
    if profile.opens:
        yield Finding("fail-open", INFO, profile.name, profile.opens)
    if profile.icmp_always:
        message = "pings pass whatever a policy says: never take a ping for a proof"
        yield Finding("icmp-passes", INFO, profile.name, message)
    for kind, reason in engine.world.live.unreadable.items():
        if reason != "absent" and kind.endswith("NetworkPolicy"):
            message = f"could not be read ({reason}): policies of this kind may open or close anything"
            yield Finding("not-evaluated", ERROR, kind, message, "grant list on it (docs/rbac.md)")
    for item in engine.world.live.objects:
        if item["kind"].startswith("Staged") and item["kind"].endswith("NetworkPolicy"):
            yield Finding("staged", INFO, f"{item['kind']} {item['metadata']['name']}", "a staged policy: it has no effect")


def _written(engine: Engine, policy: Policy, spec: Mapping[str, Any]) -> Iterator[Finding]:
    ref = str(policy.ref)
    yield from _types(ref, spec)
    for direction in DIRECTIONS:
        rules = policy.rules(direction)
        for index, item in enumerate(spec.get(direction) or []):
            rule = rules[index] if rules is not None and index < len(rules) else None
            yield from _rule(engine, policy, ref, direction, item or {}, rule, f"{direction}[{index}]")


def _types(ref: str, spec: Mapping[str, Any]) -> Iterator[Finding]:
    types = spec.get("policyTypes")
    if not types:
        if "egress" in spec and not spec["egress"]:
            message = "without policyTypes an empty egress isolates nothing there: it isolates ingress"
            yield Finding("policytypes", WARNING, ref, message, "write policyTypes: [Egress]", ref, "policyTypes")
        elif spec.get("egress"):
            message = "without policyTypes its egress rules isolate ingress as well"
            mend = "write policyTypes: [Egress], or [Ingress, Egress] where both are meant"
            severity = WARNING if "ingress" not in spec else INFO
            yield Finding("policytypes", severity, ref, message, mend, ref, "policyTypes")
        return
    for direction, name in TYPES.items():
        if name not in types and spec.get(direction):
            message = f"its {direction} rules are dead: policyTypes does not name {name}"
            yield Finding("policytypes", WARNING, ref, message, f"add {name} to policyTypes, or remove the rules", ref, direction)
        if name in types and spec.get(direction) is None and name == "Egress" and "ingress" in spec:
            message = "it names Egress and has no egress rules: every packet out of its pods is dropped"
            yield Finding("policytypes", INFO, ref, message, "", ref, "policyTypes")


def _rule(
    engine: Engine, policy: Policy, ref: str, direction: str, item: Mapping[str, Any], rule: Rule | None, path: str
) -> Iterator[Finding]:
    side = PEERS[direction]
    peers = item.get(side) or []
    if not peers and item.get("ports") and direction == EGRESS:
        ports = ", ".join(str(port.get("port", "every")) for port in item["ports"] if isinstance(port, Mapping))
        message = f"a rule with ports and no `to` allows port {ports} to the whole internet"
        yield Finding("rule-without-to", WARNING, ref, message, "name the peers, for DNS the pods of the cluster's DNS", ref, path)
    elif not peers and direction == EGRESS:
        yield Finding(
            "rule-for-everything",
            WARNING,
            ref,
            "a rule without `to` and ports allows everything",
            "name peers and ports",
            ref,
            path,
        )
    for one, two in itertools.pairwise(peers):
        if (
            isinstance(one, Mapping)
            and isinstance(two, Mapping)
            and {frozenset(one), frozenset(two)}
            == {
                frozenset({"namespaceSelector"}),
                frozenset({"podSelector"}),
            }
        ):
            message = "namespaceSelector and podSelector are two list items: either of them is enough"
            mend = "write both in one item (one dash) if pods of that namespace are meant"
            yield Finding("and-or", WARNING, ref, message, mend, ref, f"{path}.{side}")
            break
    for place, peer in enumerate(peers):
        if isinstance(peer, Mapping) and isinstance(peer.get("ipBlock"), Mapping):
            yield from _block(engine, policy, direction, peer["ipBlock"], f"{path}.{side}[{place}]")
    if rule is not None and rule.named:
        yield from _named(engine, policy, ref, direction, rule, path)


def _block(engine: Engine, policy: Policy, direction: str, block: Mapping[str, Any], path: str) -> Iterator[Finding]:
    ref = str(policy.ref)
    # what our own modules write for every CNI has its other half in this CNI's language beside it
    severity = INFO if policy.labels.get(LABEL_MANAGED_BY) == MANAGER else WARNING
    base = network(str(block.get("cidr")))
    if base is None:
        return
    world, profile = engine.world, engine.profile
    found = Addresses.of([base]) - Addresses.of(
        item for text in block.get("except") or [] if (item := network(str(text))) is not None
    )
    if world.service_range and found.issubset(world.service_range) and profile.after_translation:
        mend = "select the pods behind the Service, by selector and pod port; for the API server its endpoints"
        message = f"{base} is the Services' range: {profile.name} decides after translation, so this never matches"
        yield Finding("inert", severity, ref, message, mend, ref, path)
    if world.pod_range and found.issubset(world.pod_range) and profile.ipblock_pods is False:
        message = f"{base} is the pods' range: {profile.name} matches no pod by address"
        yield Finding("inert", severity, ref, message, "select pods by namespaceSelector and podSelector", ref, path)
    nodes = world.node_addresses | world.api_addresses
    if nodes and found.issubset(nodes) and profile.ipblock_nodes is False:
        message = f"{base} is a node: {profile.name} matches no node by address"
        yield Finding(
            "inert",
            severity,
            ref,
            message,
            "write a CiliumNetworkPolicy with entities (host, remote-node, kube-apiserver)",
            ref,
            path,
        )
    if direction == EGRESS and base.prefixlen and profile.ipblock_pods and world.pod_range and world.pod_range.issubset(found):
        message = f"{base} holds every pod of the cluster: relays among them lead to the internet"
        yield Finding("pod-range", WARNING, ref, message, "select the pods that are meant", ref, path)
    if direction == EGRESS and found & public(world):
        yield from _exceptions(engine, ref, found, block, path)


def _exceptions(engine: Engine, ref: str, found: Addresses, block: Mapping[str, Any], path: str) -> Iterator[Finding]:
    """A list that excepts private ranges means "the internet", and forgets more than it knows."""
    left_out = [item for text in block.get("except") or [] if (item := network(str(text))) is not None]
    named = Addresses.of(left_out)
    if not any(Addresses.of([item]).issubset(named) for item in PRIVATE):
        return
    forgotten = [item for item in (*PRIVATE, *FORGOTTEN) if Addresses.of([item]) & found]
    if forgotten:
        listed = ", ".join(str(item) for item in forgotten)
        mend = "add them to except: somebody may answer there (Tailscale, cloud metadata, the router)"
        yield Finding("except-forgets", WARNING, ref, f"its exceptions leave open {listed}", mend, ref, path)


def _named(engine: Engine, policy: Policy, ref: str, direction: str, rule: Rule, path: str) -> Iterator[Finding]:
    if rule.peers.addresses and rule.peers.addresses != EVERYWHERE and direction == EGRESS:
        message = f"the named port {rule.named[0][1]} matches nothing for addresses"
        yield Finding("named-port", WARNING, ref, message, "write the number", ref, path)
    holders = rule.peers.pods_maybe if direction == EGRESS else policy.subjects
    for protocol, name in rule.named:
        known = engine.world.named.get((protocol, name), {})
        if holders and not any(mask & holders for mask in known.values()):
            message = f"none of the pods has a {protocol} port named {name}"
            yield Finding("named-port", WARNING, ref, message, "correct the name, or write the number", ref, path)


def _selects(engine: Engine, policy: Policy) -> Iterator[Finding]:
    """Policies without pods, and rules whose peers are none."""
    ref = str(policy.ref)
    world = engine.world
    if not policy.subjects:
        severity = WARNING if world.endpoints else INFO
        host = policy.ref.namespace and any(one.host_network and one.namespace == policy.ref.namespace for one in world.endpoints)
        more = " (its namespace has pods on the node's network: no policy holds those)" if host else ""
        empty = policy.ref.namespace and not world.namespace(policy.ref.namespace)
        if empty and not host:
            severity = INFO
        yield Finding(
            "selects-nothing", severity, ref, f"selects no pod{more}", "compare its selector with the pod templates' labels", ref
        )
    for direction in DIRECTIONS:
        for rule in policy.rules(direction) or ():
            if not rule.peers.pods_maybe and not rule.peers.addresses_maybe and policy.certain:
                message = "its peers are no pods and no addresses on this CNI: the rule is without effect"
                yield Finding(
                    "peers-nobody", INFO, ref, message, "compare the selectors with labels of pods and namespaces", ref, rule.path
                )


def _hbone(engine: Engine, policy: Policy) -> Iterator[Finding]:
    """Port 15008 between enrolled pods carries every TCP port."""
    world = engine.world
    meshed = sum(1 << index for index in bits(policy.subjects) if world.endpoints[index].mesh)
    if not meshed:
        return
    for rule in policy.rules(INGRESS) or ():
        if rule.action == "allow" and rule.ports.has("TCP", HBONE) and rule.ports.by_protocol["TCP"].parts != ((0, 65535),):
            message = "15008 (HBONE) is open between enrolled pods: whoever may use it reaches every TCP port of these pods"
            mend = "limit ports with an AuthorizationPolicy; this policy can only limit peers"
            yield Finding("hbone-voids-ports", INFO, str(policy.ref), message, mend, str(policy.ref), rule.path)


def _bare_namespaces(engine: Engine) -> Iterator[Finding]:
    world = engine.world
    for name in world.namespaces:
        pods = world.namespace(name)
        if pods and not any(engine.selecting(index) for index in bits(pods)):
            message = "no policy selects any of its pods"
            yield Finding("namespace-bare", INFO, f"namespace {name}", message, "segmentation_policy closes it by default")
