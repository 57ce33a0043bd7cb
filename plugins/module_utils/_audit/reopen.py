# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What else would let a client out: every policy beside its kill switch that allows an address which the kill switch does not."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .._errors import FaultsError
from .._facts.model import Facts
from .._manifests.client_edges import Blocks, edges_of
from .._manifests.model import LABEL_CLIENT, LABEL_INSTANCE, LABEL_PART, Live, Manifest
from .._manifests.workloads import labels_of, template
from .._topology.model import App, Topology
from . import selectors
from .sets import EVERYWHERE, Addresses, network

#: Policies of other languages: whether they open a client is told by the audit; here their presence alone counts.
OTHER_KINDS = {
    "CiliumNetworkPolicy": True,
    "CiliumClusterwideNetworkPolicy": False,
    "GlobalNetworkPolicy": False,
    "ClusterNetworkPolicy": False,
    "AdminNetworkPolicy": False,
    "BaselineAdminNetworkPolicy": False,
}

#: How Calico's API names its copy of a NetworkPolicy.
CALICO_COPY = "knp.default."


def reopened_by(topology: Topology, facts: Facts, live: Live) -> list[dict[str, Any]]:
    """One entry per client and policy that opens it: client, kind, namespace, name, rule (position, None: the whole
    policy), allows (networks), reason.

    Only addresses outside of the cluster count: what pods may be reached is the audit's question.
    """
    found: list[dict[str, Any]] = []
    openings: dict[str, list[Opening]] = {}
    unread = {True: _not_evaluated(topology, live, True), False: _not_evaluated(topology, live, False)}
    for app in topology.clients:
        labels = _labels(topology, app, live)
        if labels is None:
            continue
        if app.namespace not in openings:
            openings[app.namespace] = list(_openings(topology, facts, live, app.namespace))
        selecting = [item for item in openings[app.namespace] if selectors.matches(item.selector, labels)]
        if selecting:
            declared = _declared(topology, facts, live, app)
            found += [entry for opening in selecting for entry in _entries(app, opening, declared)]
        for policy in (*unread[False], *(item for item in unread[True] if item["metadata"].get("namespace") == app.namespace)):
            found.append(_entry(app, policy, None, (), "not evaluated: it may select this client and allow more"))
    return found


@dataclass(frozen=True)
class Opening:
    """A NetworkPolicy with rules (by position) that allow addresses outside of the cluster's pods and Services."""

    policy: Manifest
    selector: Mapping[str, Any]
    rules: tuple[tuple[int, Addresses], ...]


def _openings(topology: Topology, facts: Facts, live: Live, namespace: str) -> Iterable[Opening]:
    """Told once per namespace: most policies open nothing, and only the others are held against each client."""
    inside = Addresses.of((*facts.pods, *facts.services))
    for policy in live.all("NetworkPolicy", namespace):
        if not policy["apiVersion"].startswith("networking.k8s.io/") or _part(policy, topology) == "killswitch":
            continue
        spec = policy.get("spec") or {}
        if not is_egress(policy):
            continue
        opened = [(position, rule_addresses(rule) - inside) for position, rule in enumerate(spec.get("egress") or [])]
        rules = tuple((position, addresses) for position, addresses in opened if addresses)
        if rules:
            yield Opening(policy, spec.get("podSelector") or {}, rules)


def _not_evaluated(topology: Topology, live: Live, namespaced: bool) -> list[Manifest]:
    """Policies in other languages that may allow. Calico shows each NetworkPolicy a second time, under a name of its own."""
    found = [policy for kind, inside in OTHER_KINDS.items() if inside == namespaced for policy in live.all(kind)]
    if namespaced:
        found += [policy for policy in live.all("NetworkPolicy") if "projectcalico.org" in policy["apiVersion"]]
    return [
        policy for policy in found if _part(policy, topology) is None and not policy["metadata"]["name"].startswith(CALICO_COPY)
    ]


def _labels(topology: Topology, app: App, live: Live) -> Mapping[str, str] | None:
    """Labels that the client's pods carry once it is injected, as far as they are known: others may exclude clients by ours."""
    assert app.vpn is not None
    found = template(app, live)
    known = {**(labels_of(found) if found is not None else {}), **(app.pods or {})}
    return {**known, LABEL_CLIENT: app.vpn.gateway, LABEL_INSTANCE: topology.instance} if known else None


def _part(policy: Manifest, topology: Topology) -> str | None:
    labels = policy["metadata"].get("labels") or {}
    return labels.get(LABEL_PART) if labels.get(LABEL_INSTANCE) == topology.instance else None


def _declared(topology: Topology, facts: Facts, live: Live, app: App) -> Addresses:
    """Addresses outside of the pods that the kill switch itself allows."""
    try:
        edges = edges_of(topology, facts, live, app).egress
    except FaultsError:
        return Addresses()
    blocks = [item for edge in edges if isinstance(edge.peer, Blocks) for item in edge.peer.networks]
    if facts.dns.node_local_ip:
        blocks.append(ipaddress.ip_network(facts.dns.node_local_ip))
    return Addresses.of(blocks)


def is_egress(policy: Manifest) -> bool:
    """Whether a NetworkPolicy is about egress: as it says, or, where it does not say, when it has egress rules."""
    spec = policy.get("spec") or {}
    types = spec.get("policyTypes")
    return "Egress" in types if types else "egress" in spec


def _entries(app: App, opening: Opening, declared: Addresses) -> Iterable[dict[str, Any]]:
    for position, addresses in opening.rules:
        opened = addresses - declared
        if opened:
            shown = [str(item) for item in opened.networks()][:6]
            yield _entry(app, opening.policy, position, shown, f"allows {opened.witness()}, which the kill switch does not")


def rule_addresses(rule: Mapping[str, Any]) -> Addresses:
    """The addresses that one rule's `to` names: everything without one, nothing of what pods its selectors take."""
    peers = rule.get("to") or []
    if not peers:
        return EVERYWHERE
    found = Addresses()
    for peer in peers:
        block = peer.get("ipBlock")
        if not block:
            continue
        base = network(str(block.get("cidr")))
        if base is None:
            continue
        left_out = [item for text in block.get("except") or [] if (item := network(str(text))) is not None]
        found |= Addresses.of([base]) - Addresses.of(left_out)
    return found


def _entry(app: App, policy: Manifest, rule: int | None, allows: Iterable[str], reason: str) -> dict[str, Any]:
    return {
        "client": app.key,
        "kind": policy["kind"],
        "api_version": policy["apiVersion"],
        "namespace": policy["metadata"].get("namespace", ""),
        "name": policy["metadata"]["name"],
        "rule": rule,
        "allows": list(allows),
        "reason": reason,
    }
