# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The policies that hold a client closed: one NetworkPolicy each and, where the CNI can, a deny that nothing re-opens.

Pods are named by selectors alone. An address range stands only for what is no pod (LAN hosts, nodes, the node-local
resolver, the mesh's probe address): a rule on the pod or service range would let a relay pod, or a Service without
selector, carry the client out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .._errors import Fault, FaultsError, NetguardError, required
from .._facts.model import Facts
from .._topology.model import App, Network, Port, Topology
from . import killswitch_deny, names, rules
from . import killswitch_exposure as exposure
from .client_edges import Blocks, ClientEdges, Pods, as_seen, edges_of
from .killswitch_deny import PINGS_PASS
from .model import LABEL_CLIENT, Desired, Live, Manifest, owner_labels
from .workloads import PodSelector

#: Dialects that can allow a ping.
PINGS = frozenset({"calico", "cilium"})


@dataclass(frozen=True)
class KillSwitches:
    """`edges` by client, `desired` for `_cluster`, `dialects` the hard denies that stand beside the NetworkPolicies.

    `notes` say what these policies do not hold on this cluster, one sentence each. `certain`: nothing comes before a hard deny.
    """

    edges: tuple[ClientEdges, ...]
    desired: Desired
    dialects: tuple[str, ...]
    notes: tuple[str, ...]
    certain: bool


def build(
    topology: Topology, facts: Facts, live: Live, *, dialect: str = "auto", clients: Iterable[App] | None = None
) -> KillSwitches:
    """The kill switches of `clients` (None: of every client). Raises FaultsError with every client that cannot be held."""
    found: list[ClientEdges] = []
    faults: list[Fault] = []
    dialects = killswitch_deny.choose(dialect, facts)
    pings = facts.cni.name in PINGS_PASS or PINGS & set(dialects)
    for app in topology.clients if clients is None else clients:
        try:
            found.append(edges_of(topology, facts, live, app))
        except FaultsError as exc:
            faults.extend(exc.faults)
            continue
        if app.icmp and not pings:
            hint = "only Calico's and Cilium's own policies know ICMP: remove icmp, or set the dialect"
            faults.append(Fault(f"apps[{topology.position(app)}].icmp", "a NetworkPolicy cannot allow ICMP", hint))
    if faults:
        raise FaultsError(list(dict.fromkeys(faults)))
    policies = tuple(network_policy(topology, facts, edges) for edges in found)
    denies = tuple(item for name in dialects for item in killswitch_deny.render(name, topology, facts, live, found))
    # The deny stands only beside a NetworkPolicy: in the wave after it, never alone.
    waves = tuple(wave for wave in (policies, denies) if wave)
    doubts = [reason for name in dialects for reason in killswitch_deny.uncertain(name, facts, live)]
    notes = [*_notes(facts, found, dialects), *doubts, *(note for edges in found for note in exposure.notes(edges, live))]
    return KillSwitches(tuple(found), Desired(waves), dialects, tuple(notes), certain=bool(dialects) and not doubts)


def network_policy(topology: Topology, facts: Facts, edges: ClientEdges) -> Manifest:
    """The NetworkPolicy of one client, isolating both directions.

    Ingress is isolated too, because answers are always allowed out: an open port would answer the internet from the home
    address through a NodePort.
    """
    app = edges.app
    gateway = topology.gateway(required(app.vpn).gateway)
    pods = rules.pods_peer(gateway.namespace, PodSelector(names.gateway_pods(topology, gateway)))
    overlay = Port(names.overlay_port(gateway, facts), "UDP")
    return rules.network_policy(
        app.namespace,
        names.killswitch(app),
        owner_labels(topology.instance, "killswitch", [(LABEL_CLIENT, app.name)]),
        edges.selector.manifest(),
        # No ports towards the gateway: a rule with ports drops ICMP on Calico and Cilium, and the tunnel with it.
        egress=[rules.rule("to", [pods], ()), *_dns(facts, edges), *rules.rules(as_seen(edges.egress, facts), "to", facts)],
        # VXLAN is two independent UDP flows: what the gateway sends is no answer to what the client sent.
        ingress=[rules.rule("from", [pods], [overlay]), *rules.rules(edges.ingress, "from", facts), *_probes(facts, edges)],
    )


def _dns(facts: Facts, edges: ClientEdges) -> list[Manifest]:
    """Cluster DNS, only where something of this client has to ask it."""
    if edges.dns == "none":
        return []
    rule = rules.dns_rule(facts)
    if rule is None:
        raise NetguardError(
            f"{edges.app.key} has to reach the cluster's DNS, and its pods are not known: set dns in netguard_overrides,"
            " or use a gateway with dns: vpn behind a ClusterIP"
        )
    return [rule]


def _probes(facts: Facts, edges: ClientEdges) -> list[Manifest]:
    """In the mesh probes come from a fixed address instead of the node's, whose traffic every CNI lets in by itself."""
    if not edges.mesh or not facts.mesh_probe_sources or edges.probes == ():
        return []
    return [rules.rule("from", [rules.block(network) for network in facts.mesh_probe_sources], edges.probes or ())]


def _notes(facts: Facts, found: Iterable[ClientEdges], dialects: tuple[str, ...]) -> Iterable[str]:
    cni = facts.cni
    if cni.enforces_network_policy is False:
        yield f"{cni.name} enforces no NetworkPolicy: only the guard and admission hold the clients closed"
    elif cni.enforces_network_policy is None:
        yield f"it is not known whether {cni.name} enforces NetworkPolicy: the guard and admission hold in any case"
    elif not dialects:
        yield f"no hard deny: with {cni.name} a later policy can open a client again (see reopened_by)"
    nodes = _texts(facts.nodes)
    for edges in found:
        lan = [edge for edge in (*edges.egress, *edges.ingress) if isinstance(edge.peer, Pods) and edge.peer.host]
        if lan and cni.name == "cilium" and "cilium" not in dialects:
            yield f"{edges.app.key}: peers on the host network are not matched by address ranges on Cilium; use dialect cilium"
        blocks = [edge.peer for edge in edges.egress if isinstance(edge.peer, Blocks) and edge.why == "external"]
        if cni.ipblock_matches_nodes is False and any(_texts(block.networks) & nodes for block in blocks):
            yield f"{edges.app.key}: an external address is a node, which {cni.name} does not match by address range"


def _texts(networks: Iterable[Network]) -> frozenset[str]:
    return frozenset(str(network) for network in networks)
