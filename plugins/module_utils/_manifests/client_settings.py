# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The settings file of a client, from its edges, its gateway and the facts; and the scripts that read it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from .._errors import Fault, FaultsError, required
from .._facts.model import Facts
from .._overlay import scripts
from .._overlay.settings import TUNNEL_MTU, Allowed, ClientSettings
from .._topology.model import Address, App, Gateway, Network, Port, Topology
from . import names
from .client_edges import HBONE, Blocks, ClientEdges, Target
from .model import Live

#: What stands for the gateway's address where it is not known yet (check mode before the first run, rendering).
UNKNOWN = ipaddress.ip_address("0.0.0.0")


def files(topology: Topology, facts: Facts, live: Live, edges: ClientEdges) -> dict[str, str]:
    """File name to text, as mounted. Raises FaultsError for what no script could use."""
    app = edges.app
    try:
        text = settings(topology, facts, live, edges).render()
    except ValueError as error:
        raise FaultsError([Fault(f"apps[{topology.position(app)}]", str(error))]) from None
    return {**scripts.CLIENT_SCRIPTS, scripts.SETTINGS_FILE: text}


def settings(topology: Topology, facts: Facts, live: Live, edges: ClientEdges) -> ClientSettings:
    """The same edges as the kill switch's, as the client's own kernel sees them: before translation of Services too."""
    app = edges.app
    vpn = required(app.vpn)
    gateway = topology.gateway(vpn.gateway)
    address = gateway_address(topology, facts, live, app)
    servers = dns_servers(facts) if edges.dns != "none" or address is None else ()
    return ClientSettings(
        vni=gateway.overlay.vni,
        port=names.overlay_port(gateway, facts),
        network=gateway.overlay.network,
        pods=facts.pods,
        gateway=address,
        gateway_name="" if address is not None else gateway_name(facts, gateway),
        dns_servers=servers,
        app_dns=edges.dns == "client",
        egress=_allowed(edges.guard_egress(facts)) + tuple(Allowed(network, Port(0, "ICMP")) for network in app.icmp),
        # 15008 has a switch of its own
        ingress=_allowed(target for target in edges.guard_ingress(facts) if target.port != HBONE),
        probes=edges.probes or (),
        probe_sources=facts.mesh_probe_sources if edges.mesh or facts.mesh_ambient else (),
        forwards=tuple(port for name in vpn.forward for port in app.ports.get(name, ())),
        routes=_routes(facts, edges, address, servers),
        tunnel_mtu=int(gateway.settings.get("WIREGUARD_MTU") or TUNNEL_MTU),
        mesh=edges.mesh,
    )


def gateway_address(topology: Topology, facts: Facts, live: Live, app: App) -> Address | None:
    """The ClusterIP of the gateway's Service where the kernel's packets are translated; None: it is looked up by name.

    The Service is vpn_gateway's: as long as it does not exist the address is UNKNOWN.
    """
    if not facts.cni.translates_kernel_packets:
        return None
    gateway = topology.gateway(required(app.vpn).gateway)
    found = live.get("Service", gateway.namespace, names.gateway_object(gateway))
    address = ((found or {}).get("spec") or {}).get("clusterIP") or ""
    return ipaddress.ip_address(address) if address and address != "None" else UNKNOWN


def gateway_name(facts: Facts, gateway: Gateway) -> str:
    return f"{names.gateway_headless(gateway)}.{gateway.namespace}.svc.{facts.dns.cluster_domain}"


def dns_servers(facts: Facts) -> tuple[Address, ...]:
    """Where the pod's own queries to the cluster's DNS go: the Service, and the node-local cache where there is one."""
    addresses = dict.fromkeys([*facts.dns.service_ips, *([facts.dns.node_local_ip] if facts.dns.node_local_ip else [])])
    return tuple(ipaddress.ip_address(item) for item in addresses)


def unready(topology: Topology, facts: Facts, live: Live, app: App) -> str:
    """Why a client's settings cannot be told yet; empty when they can."""
    if gateway_address(topology, facts, live, app) != UNKNOWN:
        return ""
    gateway = topology.gateway(required(app.vpn).gateway)
    return f"the Service {gateway.namespace}/{names.gateway_object(gateway)} of its gateway does not exist yet"


def _allowed(targets: Iterable[Target]) -> tuple[Allowed, ...]:
    return tuple(Allowed(target.network, target.port) for target in targets)


def _routes(facts: Facts, edges: ClientEdges, gateway: Address | None, servers: Iterable[Address]) -> tuple[Network, ...]:
    """Reached by the pod's own interface: the cluster's ranges, the mesh's probes, and every outside address declared."""
    outside = [
        network for edge in (*edges.egress, *edges.ingress) if isinstance(edge.peer, Blocks) for network in edge.peer.networks
    ]
    single = [ipaddress.ip_network(str(item)) for item in (*([gateway] if gateway else []), *servers)]
    ranges = [*facts.pods, *facts.services, *facts.nodes, *facts.mesh_probe_sources, *edges.app.icmp, *outside, *single]
    known = [network for network in dict.fromkeys(ranges) if network.network_address != UNKNOWN]
    return tuple(network for network in known if not any(network != other and covers(other, network) for other in known))


def covers(outer: Any, inner: Any) -> bool:
    return bool(outer.version == inner.version and inner.subnet_of(outer))


def changed_files(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the files that differ, for messages."""
    return tuple(sorted(name for name in {*before, *after} if before.get(name) != after.get(name)))
