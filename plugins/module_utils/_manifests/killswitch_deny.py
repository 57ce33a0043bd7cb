# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hard denies: a ceiling on where a client may send, in the CNI's own language, which no later policy lifts.

Each lets pass what the NetworkPolicy beside it decides about (pods, declared addresses) and denies every other address.
None of them narrows anything by itself, so none is ever written without that NetworkPolicy.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .._errors import NetguardError
from .._facts.guards import overlap
from .._facts.model import Facts
from .._topology.model import App, Network, Topology
from .client_edges import Blocks, ClientEdges, means_nodes
from .model import LABEL_CLIENT, LABEL_MANAGED_BY, MANAGER, PREFIX, Live, Manifest, owner_labels
from .names import killswitch, short
from .workloads import PodSelector

CALICO_V3 = "projectcalico.org/v3"
CALICO_V1 = "crd.projectcalico.org/v1"
CILIUM = "cilium.io/v2"
CLUSTER_POLICY = "policy.networking.k8s.io/v1alpha2"

#: Which APIs a dialect can be written in, the preferred one first.
APIS = {"calico": (CALICO_V3, CALICO_V1), "cilium": (CILIUM,), "clusternetworkpolicy": (CLUSTER_POLICY,)}
#: Which CNIs obey a dialect where its API exists. ClusterNetworkPolicy is obeyed by whoever installed its CRD.
CNIS = {"calico": ("calico", "canal"), "cilium": ("cilium",)}
DIALECTS = ("auto", "networkpolicy", "cilium", "calico", "clusternetworkpolicy")
#: CNIs that let every ping pass, whatever a policy says.
PINGS_PASS = frozenset({"kube-router"})

#: Calico puts Kubernetes' own policies at order 1000 in the default tier, whose own order is 1000000.
FIRST_ORDER = 10
FIRST_TIER_ORDER = 10
#: Namespace of the client that a cluster-scoped object is about.
LABEL_NAMESPACE = PREFIX + "namespace"
#: ClusterNetworkPolicy allows so many peers in one rule.
MOST_PEERS = 25


def choose(dialect: str, facts: Facts) -> tuple[str, ...]:
    """The hard denies to write. Raises NetguardError when one that was asked for has no API on this cluster."""
    if dialect == "networkpolicy":
        return ()
    if dialect != "auto":
        if not any(api in facts.cni.policy_apis for api in APIS[dialect]):
            known = ", ".join(facts.cni.policy_apis) or "none"
            wanted = " or ".join(APIS[dialect])
            raise NetguardError(f"dialect {dialect} needs the API {wanted}, and this cluster's policy APIs are: {known}")
        return (dialect,)
    own = [name for name, cnis in CNIS.items() if facts.cni.name in cnis and _api(name, facts)]
    if own:
        return tuple(own)
    return ("clusternetworkpolicy",) if _api("clusternetworkpolicy", facts) else ()


def _api(dialect: str, facts: Facts) -> str:
    return next((api for api in APIS[dialect] if api in facts.cni.policy_apis), "")


def kinds(dialect: str, facts: Facts) -> tuple[tuple[str, str], ...]:
    """(api version, kind) of what a dialect writes and must know of others, for reading."""
    api = _api(dialect, facts)
    if dialect == "calico":
        return ((api, "GlobalNetworkPolicy"), (api, "NetworkPolicy"), (api, "Tier"))
    return ((api, "CiliumNetworkPolicy" if dialect == "cilium" else "ClusterNetworkPolicy"),)


def uncertain(dialect: str, facts: Facts, live: Live) -> tuple[str, ...]:
    """Why this dialect's deny may not be the first to decide, one sentence each; empty when it is."""
    reasons = [
        f"{kind} ({api}) may not be read, so it is not known what comes before the hard deny"
        for api, kind in kinds(dialect, facts)
        if live.unreadable.get(kind) == "forbidden"
    ]
    if dialect == "clusternetworkpolicy":
        reasons += [
            f"ClusterNetworkPolicy {item['metadata']['name']} has priority 0 of the Admin tier, and between two of one priority"
            " there is no order: give it a higher number"
            for item in live.all("ClusterNetworkPolicy")
            if not _ours(item) and (item.get("spec") or {}).get("tier") == "Admin" and (item["spec"].get("priority") == 0)
        ]
    return tuple(reasons)


def cluster_name(instance: str, namespace: str, client: str) -> str:
    """Name of a cluster-scoped object of one client.

    The digest keeps `a-b/c` and `a/b-c` apart; no dot, which Calico reads as the end of a tier's name.
    """
    digest = hashlib.sha256(f"{namespace}/{client}".encode()).hexdigest()[:6]
    return f"{short(f'netguard-{instance}-{namespace}-{client}', 56)}-{digest}"


def render(dialect: str, topology: Topology, facts: Facts, live: Live, found: Iterable[ClientEdges]) -> tuple[Manifest, ...]:
    builders: dict[str, Callable[[Topology, Facts, Live, list[ClientEdges]], list[Manifest]]] = {
        "calico": _calico,
        "cilium": _cilium,
        "clusternetworkpolicy": _cluster_policy,
    }
    clients = list(found)
    return tuple(builders[dialect](topology, facts, live, clients)) if clients else ()


def spared(facts: Facts, edges: ClientEdges, *, pods: bool) -> list[Network]:
    """Addresses the ceiling leaves to the NetworkPolicy: declared ones, the node-local resolver and, with `pods`, all pods."""
    networks: list[Network] = list(facts.pods) if pods else []
    for edge in edges.egress:
        if isinstance(edge.peer, Blocks):
            networks.extend(edge.peer.networks)
        elif edge.peer.host:
            networks.extend(facts.nodes)
    networks.extend(edges.app.icmp)
    if edges.dns != "none" and facts.dns.node_local_ip:
        networks.append(ipaddress.ip_network(facts.dns.node_local_ip))
    v4 = [network for network in networks if isinstance(network, ipaddress.IPv4Network)]
    v6 = [network for network in networks if isinstance(network, ipaddress.IPv6Network)]
    return [*ipaddress.collapse_addresses(v4), *ipaddress.collapse_addresses(v6)]


def client_labels(topology: Topology, part: str, app: App) -> dict[str, str]:
    """Labels of a cluster-scoped object of one client: it says which namespace it is about."""
    return owner_labels(topology.instance, part, [(LABEL_CLIENT, app.name), (LABEL_NAMESPACE, app.namespace)])


def _meta(topology: Topology, app: App, name: str = "") -> Manifest:
    own = name or cluster_name(topology.instance, app.namespace, app.name)
    return {"name": own, "labels": client_labels(topology, "killswitch", app)}


# Calico ------------------------------------------------------------------------------------------------------------


def _calico(topology: Topology, facts: Facts, live: Live, found: list[ClientEdges]) -> list[Manifest]:
    """A GlobalNetworkPolicy per client, before everything else that could allow.

    Where the cluster has tiers, ours stands in a tier of its own before every other one and ends with Pass, so that the
    tiers behind it go on as before; without tiers it stands first in the only one, where Pass would mean "allow".
    """
    api = _api("calico", facts)
    tiers = [item for item in live.all("Tier") if not _ours(item)]
    if not tiers:
        order = _order(_foreign(live, "GlobalNetworkPolicy", "NetworkPolicy"), FIRST_ORDER)
        return [_global_policy(api, topology, facts, edges, {"order": order}, tier="") for edges in found]
    name = short(f"netguard-{topology.instance}")
    tier = {
        "apiVersion": api,
        "kind": "Tier",
        "metadata": {"name": name, "labels": owner_labels(topology.instance, "killswitch")},
        "spec": {"order": _order(tiers, FIRST_TIER_ORDER)},
    }
    return [
        tier,
        *(_global_policy(api, topology, facts, edges, {"tier": name, "order": FIRST_ORDER}, tier=name) for edges in found),
    ]


def _foreign(live: Live, *wanted: str) -> list[Manifest]:
    """Calico's policies that are not ours. Kubernetes' own NetworkPolicy has the same kind and another group."""
    return [item for kind in wanted for item in live.all(kind) if item["apiVersion"] in APIS["calico"] and not _ours(item)]


def _ours(item: Mapping[str, Any]) -> bool:
    """Of any instance: two instances that each went before the other would never come to rest."""
    return (item["metadata"].get("labels") or {}).get(LABEL_MANAGED_BY) == MANAGER


def _order(others: Iterable[Mapping[str, Any]], first: int) -> int:
    """Before every order that exists; an unset order is the last."""
    orders = [order for item in others if (order := (item.get("spec") or {}).get("order")) is not None]
    return int(min([first, *(_floor(order) - 1 for order in orders)]))


def _floor(order: float) -> int:
    return int(order // 1)


def _global_policy(
    api: str, topology: Topology, facts: Facts, edges: ClientEdges, place: Mapping[str, Any], *, tier: str
) -> Manifest:
    networks = spared(facts, edges, pods=True)
    rules = [*_calico_pings(edges), _calico_deny(4, networks), _calico_deny(6, networks)]
    if tier:
        rules.append({"action": "Pass"})
    name = cluster_name(topology.instance, edges.app.namespace, edges.app.name)
    return {
        "apiVersion": api,
        "kind": "GlobalNetworkPolicy",
        "metadata": _meta(topology, edges.app, f"{tier}.{name}" if tier else name),
        "spec": {
            **place,
            "namespaceSelector": f"kubernetes.io/metadata.name == '{edges.app.namespace}'",
            "selector": calico_selector(edges.selector),
            "types": ["Egress"],
            "egress": rules,
        },
    }


def _calico_pings(edges: ClientEdges) -> Iterable[Manifest]:
    """The declared pings: the NetworkPolicy behind the deny cannot allow them, so they are accepted before it."""
    for version, protocol in ((4, "ICMP"), (6, "ICMPv6")):
        nets = [str(network) for network in edges.app.icmp if network.version == version]
        if nets:
            yield {"action": "Allow", "ipVersion": version, "protocol": protocol, "destination": {"nets": nets}}


def _calico_deny(version: int, networks: Iterable[Network]) -> Manifest:
    """One rule per family: Felix leaves a rule out for a family of which its notNets name nothing."""
    own = [str(network) for network in networks if network.version == version]
    rule: Manifest = {"action": "Deny", "ipVersion": version}
    if own:
        rule["destination"] = {"notNets": own}
    return rule


def calico_selector(selector: PodSelector) -> str:
    """A label selector in Calico's expression language."""
    parts = [f"{key} == '{value}'" for key, value in sorted(selector.labels.items())]
    for expression in selector.expressions:
        key, operator = expression["key"], expression["operator"]
        values = ", ".join(f"'{value}'" for value in expression.get("values") or [])
        if operator == "In":
            parts.append(f"{key} in {{ {values} }}")
        elif operator == "NotIn":
            parts.append(f"{key} not in {{ {values} }}")
        else:
            parts.append(f"has({key})" if operator == "Exists" else f"!has({key})")
    return " && ".join(parts)


# Cilium ------------------------------------------------------------------------------------------------------------


def _cilium(topology: Topology, facts: Facts, live: Live, found: list[ClientEdges]) -> list[Manifest]:
    """A CiliumNetworkPolicy per client: deny beats every allow there.

    `enableDefaultDeny` is off because the NetworkPolicy beside it isolates. Address ranges match no pods on Cilium unless
    `policyCIDRMatchMode` says so, hence the pod ranges are spared in any case. What a NetworkPolicy cannot say there (API
    server, host) is allowed here by entity.
    """
    manifests: list[Manifest] = []
    for edges in found:
        networks = spared(facts, edges, pods=True)
        spec: Manifest = {
            "endpointSelector": edges.selector.manifest(),
            "enableDefaultDeny": {"egress": False, "ingress": False},
            "egressDeny": [
                {"toCIDRSet": [_except("0.0.0.0/0", [item for item in networks if item.version == 4])]},
                {"toCIDRSet": [_except("::/0", [item for item in networks if item.version == 6])]},
            ],
        }
        egress, ingress = _cilium_egress(facts, edges), _cilium_ingress(facts, edges)
        if egress:
            spec["egress"] = egress
        if ingress:
            spec["ingress"] = ingress
        manifests.append(
            {
                "apiVersion": CILIUM,
                "kind": "CiliumNetworkPolicy",
                "metadata": _meta(topology, edges.app, killswitch(edges.app)) | {"namespace": edges.app.namespace},
                "spec": spec,
            }
        )
    return manifests


def _except(cidr: str, networks: Iterable[Network]) -> Manifest:
    item: Manifest = {"cidr": cidr}
    inner = [str(network) for network in networks]
    if inner:
        item["except"] = inner
    return item


def _cilium_ports(ports: Iterable[Any]) -> list[Manifest]:
    rendered = [
        {"port": str(port.number), "protocol": port.protocol, **({"endPort": port.end} if port.end else {})}
        for port in sorted(set(ports))
    ]
    return [{"ports": rendered}] if rendered else []


def _cilium_rule(direction: str, entities: list[str], ports: Iterable[Any]) -> Manifest:
    rule: Manifest = {direction: entities}
    rendered = _cilium_ports(ports)
    if rendered:
        rule["toPorts"] = rendered
    return rule


def _cilium_egress(facts: Facts, edges: ClientEdges) -> list[Manifest]:
    rules: list[Manifest] = []
    for edge in edges.egress:
        if edge.why == "kube_api":
            rules.append(_cilium_rule("toEntities", ["kube-apiserver"], edge.ports))
        elif means_nodes(edge.peer, facts):
            rules.append(_cilium_rule("toEntities", ["host", "remote-node"], edge.ports))
    if edges.dns != "none" and facts.dns.node_local_ip:
        ports = [{"port": "53", "protocol": "UDP"}, {"port": "53", "protocol": "TCP"}]
        rules.append({"toEntities": ["host"], "toPorts": [{"ports": ports}]})
    rules += cilium_pings(edges.app.icmp, facts)
    return rules


def cilium_pings(networks: Iterable[Network], facts: Facts) -> list[Manifest]:
    """Echo requests to these addresses; those of nodes are not matched by address."""
    found: list[Manifest] = []
    for version, echo in ((4, {"family": "IPv4", "type": 8}), (6, {"family": "IPv6", "type": 128})):
        own = [network for network in networks if network.version == version]
        icmps = [{"fields": [echo]}]
        if own:
            found.append({"toCIDR": [str(network) for network in own], "icmps": icmps})
        if any(overlap(network, node) for network in own for node in facts.nodes):
            found.append({"toEntities": ["host", "remote-node"], "icmps": icmps})
    return found


def _cilium_ingress(facts: Facts, edges: ClientEdges) -> list[Manifest]:
    rules: list[Manifest] = []
    for edge in edges.ingress:
        if edge.why.startswith("webhook"):
            rules.append(_cilium_rule("fromEntities", ["kube-apiserver", "remote-node", "host"], edge.ports))
        elif means_nodes(edge.peer, facts):
            rules.append(_cilium_rule("fromEntities", ["host", "remote-node"], edge.ports))
    return rules


# ClusterNetworkPolicy -----------------------------------------------------------------------------------------------


def _cluster_policy(topology: Topology, facts: Facts, live: Live, found: list[ClientEdges]) -> list[Manifest]:
    """The Admin tier: Pass to what the NetworkPolicy decides about, then Deny everything.

    Its networks match pods as well, so pods must be passed first. Two policies of one priority have no order, so ours
    is lower than every other one as long as there is room.
    """
    others = [
        int(spec["priority"])
        for item in live.all("ClusterNetworkPolicy")
        if (spec := item.get("spec") or {}).get("tier") == "Admin" and not _ours(item)
    ]
    priority = max(0, min([10, *(other - 1 for other in others)]))
    manifests = []
    for edges in found:
        networks = [{"networks": [str(item) for item in spared(facts, edges, pods=False)]}]
        passed = [{"namespaces": {}}, *_chunks(networks)]
        rules = [{"name": "netguard-decided-by-networkpolicy", "action": "Pass", "to": passed}]
        everything = [{"networks": ["0.0.0.0/0", "::/0"]}]
        rules.append({"name": "netguard-nothing-else", "action": "Deny", "to": everything})
        selector = edges.selector.manifest()
        manifests.append(
            {
                "apiVersion": CLUSTER_POLICY,
                "kind": "ClusterNetworkPolicy",
                "metadata": _meta(topology, edges.app),
                "spec": {
                    "tier": "Admin",
                    "priority": priority,
                    "subject": {
                        "pods": {
                            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": edges.app.namespace}},
                            "podSelector": selector,
                        }
                    },
                    "egress": rules,
                },
            }
        )
    return manifests


def _chunks(peers: list[Manifest]) -> list[Manifest]:
    """`networks` holds at most 25 items, so long lists are spread over several peers."""
    return [
        {"networks": peer["networks"][start : start + MOST_PEERS]}
        for peer in peers
        for start in range(0, len(peer["networks"]), MOST_PEERS)
    ]
