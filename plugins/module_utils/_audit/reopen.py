# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What else would let a client out: every policy beside its kill switch that allows an address which the kill switch does not."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from .._errors import FaultsError
from .._facts.model import Facts
from .._manifests import names
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


def reopened_by(topology: Topology, facts: Facts, live: Live) -> list[dict[str, Any]]:
    """One entry per client and policy that opens it: client, kind, namespace, name, rule (position, None: the whole
    policy), allows (networks), reason.

    Only addresses outside of the cluster count: what pods may be reached is the audit's question.
    """
    found: list[dict[str, Any]] = []
    for app in topology.clients:
        labels = _labels(topology, app, live)
        if labels is None:
            continue
        declared = _declared(topology, facts, live, app)
        for policy in live.all("NetworkPolicy", app.namespace):
            if not _is_ours(policy, topology, app) and policy["apiVersion"].startswith("networking.k8s.io/"):
                found += _network_policy(app, policy, labels, facts, declared)
        for kind, namespaced in OTHER_KINDS.items():
            for policy in live.all(kind, app.namespace if namespaced else None):
                if _part(policy, topology) is None:
                    found.append(_entry(app, policy, None, (), "not evaluated: it may select this client and allow more"))
        for policy in live.all("NetworkPolicy", app.namespace):
            if "projectcalico.org" in policy["apiVersion"] and _part(policy, topology) is None:
                found.append(_entry(app, policy, None, (), "not evaluated: it may select this client and allow more"))
    return found


def _labels(topology: Topology, app: App, live: Live) -> Mapping[str, str] | None:
    """Labels that the client's pods carry once it is injected, as far as they are known: others may exclude clients by ours."""
    assert app.vpn is not None
    found = template(app, live)
    known = {**(labels_of(found) if found is not None else {}), **(app.pods or {})}
    return {**known, LABEL_CLIENT: app.vpn.gateway, LABEL_INSTANCE: topology.instance} if known else None


def _part(policy: Manifest, topology: Topology) -> str | None:
    labels = policy["metadata"].get("labels") or {}
    return labels.get(LABEL_PART) if labels.get(LABEL_INSTANCE) == topology.instance else None


def _is_ours(policy: Manifest, topology: Topology, app: App) -> bool:
    return _part(policy, topology) == "killswitch" and policy["metadata"]["name"] == names.killswitch(app)


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


def _network_policy(
    app: App, policy: Manifest, labels: Mapping[str, str], facts: Facts, declared: Addresses
) -> Iterable[dict[str, Any]]:
    spec = policy.get("spec") or {}
    if not is_egress(policy) or not selectors.matches(spec.get("podSelector") or {}, labels):
        return
    inside = Addresses.of((*facts.pods, *facts.services)) | declared
    for position, rule in enumerate(spec.get("egress") or []):
        opened = rule_addresses(rule) - inside
        if opened:
            shown = [str(item) for item in opened.networks()][:6]
            yield _entry(app, policy, position, shown, f"allows {opened.witness()}, which the kill switch does not")


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
