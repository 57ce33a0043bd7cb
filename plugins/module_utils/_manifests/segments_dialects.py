# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a plain NetworkPolicy cannot say, in the CNI's own language: ICMP, and on Cilium the API server and the nodes.

Cilium matches no node and no pod by address (its documentation of layer 3 policies), so rules by address towards the
API server, nodes or the node-local DNS cache are inert there. The extra policies allow only; they do not isolate.
"""

from __future__ import annotations

from collections.abc import Iterable

from .._errors import Fault, NetguardError
from .._facts.guards import overlap
from .._facts.model import Facts
from .._topology.model import Network, Port, Topology
from . import names
from .client_edges import Edge, Pods, means_nodes
from .killswitch_deny import PINGS_PASS, calico_selector, cilium_pings
from .model import PREFIX, Manifest, owner_labels
from .segments_edges import AppEdges

PART = "segments"
DIALECTS = ("auto", "networkpolicy", "cilium", "calico")
CILIUM_API = "cilium.io/v2"
CALICO_APIS = ("projectcalico.org/v3", "crd.projectcalico.org/v1")
#: Before Kubernetes' own policies, which Calico ranks at 1000.
CALICO_ORDER = 900
#: Annotation of a policy with rules that this CNI does not obey.
INERT = PREFIX + "inert"


def choose(dialect: str, facts: Facts) -> str:
    """The language in force. Raises NetguardError for one whose API the cluster does not have."""
    if dialect == "auto":
        if facts.cni.name == "cilium" and CILIUM_API in facts.cni.policy_apis:
            return "cilium"
        if facts.cni.name in ("calico", "canal") and any(api in facts.cni.policy_apis for api in CALICO_APIS):
            return "calico"
        return "networkpolicy"
    needed = {"cilium": (CILIUM_API,), "calico": CALICO_APIS}.get(dialect, ())
    if needed and not any(api in facts.cni.policy_apis for api in needed):
        raise NetguardError(f"dialect {dialect} needs {' or '.join(needed)}, which this cluster does not serve; set dialect: auto")
    return dialect


def faults(topology: Topology, facts: Facts, apps: Iterable[AppEdges], dialect: str) -> list[Fault]:
    """What this language cannot say on this CNI."""
    found = []
    for edges in apps:
        path = f"apps[{topology.position(edges.app)}]"
        if dialect == "networkpolicy" and edges.icmp and facts.cni.name not in PINGS_PASS:
            hint = "only Calico's and Cilium's own policies know ICMP: remove icmp, or set the dialect"
            found.append(Fault(f"{path}.icmp", "a NetworkPolicy cannot allow ICMP", hint))
        if dialect != "cilium" and facts.cni.name == "cilium" and facts.cni.ipblock_matches_nodes is not True:
            cut = dict.fromkeys(edge.why for edge in (*edges.egress, *edges.ingress) if _nodes_alone(edge, facts))
            if facts.dns.node_local_ip:
                cut["the node-local DNS"] = None
            hint = "set the dialect to auto or cilium; both need the API cilium.io/v2"
            found += [
                Fault(path, f"a NetworkPolicy on Cilium matches neither nodes nor the API server, and this is one: {why}", hint)
                for why in cut
            ]
    return found


def comment(facts: Facts, group: Iterable[AppEdges]) -> dict[str, str]:
    """Annotations of a NetworkPolicy that says which of its rules match nothing on this CNI; none where all of them do."""
    if facts.cni.name != "cilium" or facts.cni.ipblock_matches_nodes is True:
        return {}
    whys = dict.fromkeys(edge.why for edges in group for edge in (*edges.egress, *edges.ingress) if _nodes_alone(edge, facts))
    if not whys:
        return {}
    return {INERT: f"Cilium matches no node by address; the CiliumNetworkPolicy beside this one says: {', '.join(whys)}"}


def _nodes_alone(edge: Edge, facts: Facts) -> bool:
    """Whether nothing is left of an edge where nodes and API server are not matched by address."""
    if isinstance(edge.peer, Pods):
        return edge.peer.host
    if edge.why == "kube_api" or edge.why.startswith("webhook"):
        return True
    return bool(edge.peer.networks) and all(_inside(network, facts.nodes) for network in edge.peer.networks)


def _inside(network: Network, others: Iterable[Network]) -> bool:
    return any(overlap(network, other) and network.prefixlen >= other.prefixlen for other in others)


def extras(topology: Topology, facts: Facts, apps: Iterable[AppEdges], dialect: str) -> list[Manifest]:
    """The additional policies of every app that needs one."""
    if dialect == "cilium":
        found = (_cilium(topology, facts, edges) for edges in apps)
    elif dialect == "calico":
        found = (_calico(topology, facts, edges) for edges in apps)
    else:
        return []
    return [manifest for manifest in found if manifest is not None]


def _calico(topology: Topology, facts: Facts, edges: AppEdges) -> Manifest | None:
    if not edges.icmp:
        return None
    api = next(api for api in CALICO_APIS if api in facts.cni.policy_apis)
    name = names.segment(edges.app)
    families = {4: "ICMP", 6: "ICMPv6"}
    egress = [
        {"action": "Allow", "protocol": families[version], "destination": {"nets": nets}}
        for version in (4, 6)
        if (nets := [str(network) for network in edges.icmp if network.version == version])
    ]
    return {
        "apiVersion": api,
        "kind": "NetworkPolicy",
        # Calico keeps the policies of its default tier under this prefix in the datastore.
        "metadata": {
            "name": name if api.startswith("projectcalico.org") else f"default.{name}",
            "namespace": edges.app.namespace,
            "labels": owner_labels(topology.instance, PART),
        },
        "spec": {"order": CALICO_ORDER, "selector": calico_selector(edges.selector), "types": ["Egress"], "egress": egress},
    }


def _cilium(topology: Topology, facts: Facts, edges: AppEdges) -> Manifest | None:
    egress = list(_cilium_egress(facts, edges))
    ingress = list(_cilium_ingress(facts, edges))
    if not egress and not ingress:
        return None
    spec: Manifest = {
        "endpointSelector": edges.selector.manifest(),
        "enableDefaultDeny": {"ingress": False, "egress": False},  # the NetworkPolicy isolates; this one only adds
    }
    if ingress:
        spec["ingress"] = ingress
    if egress:
        spec["egress"] = egress
    return {
        "apiVersion": CILIUM_API,
        "kind": "CiliumNetworkPolicy",
        "metadata": {
            "name": names.segment(edges.app),
            "namespace": edges.app.namespace,
            "labels": owner_labels(topology.instance, PART),
        },
        "spec": spec,
    }


def _cilium_egress(facts: Facts, edges: AppEdges) -> Iterable[Manifest]:
    for edge in edges.egress:
        if edge.why == "kube_api":
            yield _entities("to", ["kube-apiserver"], edge.ports)
        elif means_nodes(edge.peer, facts):
            yield _entities("to", ["host", "remote-node"], edge.ports)
    if facts.dns.node_local_ip:
        yield _entities("to", ["host"], (Port(53, "UDP"), Port(53, "TCP")))
    yield from cilium_pings(edges.icmp, facts)


def _cilium_ingress(facts: Facts, edges: AppEdges) -> Iterable[Manifest]:
    for edge in edges.ingress:
        if edge.why.startswith("webhook"):
            yield _entities("from", ["kube-apiserver", "remote-node", "host"], edge.ports)
        elif means_nodes(edge.peer, facts):
            yield _entities("from", ["host", "remote-node"], edge.ports)


def _entities(direction: str, entities: list[str], ports: Iterable[Port]) -> Manifest:
    body: Manifest = {f"{direction}Entities": entities}
    listed = []
    for port in sorted(set(ports)):
        entry: Manifest = {"port": str(port.number), "protocol": port.protocol}
        if port.end is not None:
            entry["endPort"] = port.end
        listed.append(entry)
    if listed:
        body["toPorts"] = [{"ports": listed}]
    return body
