# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Renders edges as rules of a plain NetworkPolicy. What such a policy cannot say is not rendered here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .._facts.model import Facts
from .._topology.model import Network, Port
from .client_edges import Blocks, Edge, Pods
from .model import Manifest
from .workloads import PodSelector

#: The label that Kubernetes sets on every namespace (1.21 and later).
NAMESPACE_LABEL = "kubernetes.io/metadata.name"


def namespace_selector(namespace: str) -> Manifest:
    return {"matchLabels": {NAMESPACE_LABEL: namespace}}


def pods_peer(namespace: str, selector: PodSelector) -> Manifest:
    """Pods of one namespace. Both selectors in one list item: they must hold together."""
    peer: Manifest = {"namespaceSelector": namespace_selector(namespace)}
    body = selector.manifest()
    if body:
        peer["podSelector"] = body
    return peer


def block(network: Network, exceptions: Iterable[Network] = ()) -> Manifest:
    body: Manifest = {"cidr": str(network)}
    left_out = [str(item) for item in exceptions]
    if left_out:
        body["except"] = left_out
    return {"ipBlock": body}


def peers(peer: Pods | Blocks, facts: Facts) -> list[Manifest]:
    """The peers of one edge. Pods on the node's network are no pods to a policy: the nodes stand for them."""
    if isinstance(peer, Blocks):
        return [block(network) for network in sorted(peer.networks, key=_order)]
    if peer.host:
        return [block(network) for network in sorted(facts.nodes, key=_order)]
    return [pods_peer(peer.namespace, peer.selector)]


def _order(network: Network) -> tuple[int, int, int]:
    return network.version, int(network.network_address), network.prefixlen


def ports(numbers: Iterable[Port]) -> list[Manifest]:
    """Every port with its protocol; an empty list means every port in a policy, so callers leave the key out then."""
    result = []
    for port in sorted(set(numbers)):
        body: Manifest = {"protocol": port.protocol, "port": port.number}
        if port.end is not None:
            body["endPort"] = port.end
        result.append(body)
    return result


def rule(direction: str, targets: list[Manifest], numbers: Iterable[Port]) -> Manifest:
    """One rule; `direction` is from or to."""
    body: Manifest = {direction: targets}
    listed = ports(numbers)
    if listed:
        body["ports"] = listed
    return body


def rules(edges: Iterable[Edge], direction: str, facts: Facts) -> list[Manifest]:
    """One rule per edge that has a peer. Edges with equal ports are joined, so that the policy stays small and stable."""
    joined: dict[tuple[Port, ...], list[Manifest]] = {}
    for edge in edges:
        targets = peers(edge.peer, facts)
        if targets:
            known = joined.setdefault(tuple(sorted(set(edge.ports))), [])
            known += [target for target in targets if target not in known]
    return [rule(direction, targets, numbers) for numbers, targets in sorted(joined.items())]


def dns_rule(facts: Facts) -> Manifest | None:
    """To the cluster's DNS pods on their pod ports, and to the node-local cache where there is one. None: no DNS is known."""
    targets: list[Manifest] = []
    if facts.dns.namespace and facts.dns.pod_labels:
        targets.append(pods_peer(facts.dns.namespace, PodSelector(dict(facts.dns.pod_labels))))
    numbers = [Port(number, "UDP") for number in facts.dns.ports_udp] + [Port(number, "TCP") for number in facts.dns.ports_tcp]
    if facts.dns.node_local_ip:
        suffix = "128" if ":" in facts.dns.node_local_ip else "32"
        targets.append({"ipBlock": {"cidr": f"{facts.dns.node_local_ip}/{suffix}"}})
        numbers += [Port(53, "UDP"), Port(53, "TCP")]
    return rule("to", targets, numbers) if targets else None


def network_policy(
    namespace: str,
    name: str,
    labels: Mapping[str, str],
    selector: Manifest,
    *,
    ingress: list[Manifest] | None = None,
    egress: list[Manifest] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """A NetworkPolicy; a direction that is None is left alone, one that is empty lets nothing through."""
    spec: Manifest = {"podSelector": selector, "policyTypes": []}
    for kind, key, content in (("Ingress", "ingress", ingress), ("Egress", "egress", egress)):
        if content is not None:
            spec["policyTypes"].append(kind)
            if content:
                spec[key] = content
    metadata: Manifest = {"name": name, "namespace": namespace, "labels": dict(labels)}
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}
