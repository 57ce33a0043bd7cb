# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gateway's own NetworkPolicy: its clients on the overlay's port, the VPN server, and nothing else.

It is in force before the pod exists, and it holds when Gluetun's own firewall does not (gluetun v3.41 opens its chains when
an error strikes while it sets them up).
"""

from __future__ import annotations

import contextlib
import ipaddress

from .._errors import FaultsError, required
from .._facts.model import Facts
from .._overlay.scripts import finder_port
from .._topology.model import Port, Topology
from . import names
from .addresses import public_blocks
from .gluetun_case import Case
from .model import LABEL_CLIENT, LABEL_GATEWAY, LABEL_INSTANCE, Live, Manifest, owner_labels
from .rules import block, dns_rule, network_policy, pods_peer, rule
from .workloads import PodSelector, pod_selector


def client_namespaces(topology: Topology, gateway: str) -> tuple[str, ...]:
    return tuple(sorted({app.namespace for app in topology.clients_of(gateway)}))


def client_labels(topology: Topology, gateway: str) -> dict[str, str]:
    """Labels of a client's pods: a pod that lost them with its guard has no overlay to speak through either."""
    return {LABEL_CLIENT: gateway, LABEL_INSTANCE: topology.instance}


def vpn_port(case: Case) -> Port | None:
    """Protocol and port of the VPN server; None: only the cluster knows (a Secret that cannot be read here)."""
    provider = required(case.provider)
    endpoint = case.endpoint
    if case.wireguard:
        rules = provider.wireguard
        if provider.name == "custom" and not endpoint.port:
            return None
        return Port(endpoint.port or (rules.port if rules else 0), "UDP")
    if provider.name == "custom" and not endpoint.port:
        return None
    return Port(endpoint.port or _own_port(case), endpoint.protocol.upper())


def _own_port(case: Case) -> int:
    """The provider's own OpenVPN port. Private Internet Access has a pair for each of its presets."""
    openvpn = required(required(case.provider).openvpn)
    tcp = case.endpoint.protocol == "tcp"
    if case.setting("PRIVATE_INTERNET_ACCESS_OPENVPN_ENCRYPTION_PRESET").lower() == "normal":
        return 502 if tcp else 1198
    return openvpn.tcp_port if tcp else openvpn.udp_port


def endpoint_rule(case: Case, facts: Facts) -> Manifest:
    """To the VPN server: its one address where it is known, else public addresses on the provider's protocol and port.

    The wide form names neither private nor cluster nor LAN ranges, so that what forces the gateway open reaches no neighbour.
    """
    port = vpn_port(case)
    if case.endpoint.pinned:
        host = ipaddress.ip_network(case.endpoint.host)
        return rule("to", [block(host)], [port] if port else [])
    targets = [block(network, exceptions) for network, exceptions in public_blocks(facts)]
    found = rule("to", targets, [port] if port else [])
    if port is None:
        found["ports"] = [{"protocol": "UDP" if case.wireguard else case.endpoint.protocol.upper()}]
    return found


def client_peers(topology: Topology, live: Live, case: Case) -> list[Manifest]:
    """The clients' pods as peers: by the labels that injection gives them.

    The image's own client scripts are brought by another injector, which knows no label of ours: there each app's own
    selector stands, and one whose workload does not exist yet is left out until it does.
    """
    gateway = case.gateway
    if gateway.overlay.scripts != "image":
        selector = PodSelector(client_labels(topology, gateway.name))
        return [pods_peer(namespace, selector) for namespace in client_namespaces(topology, gateway.name)]
    peers: list[Manifest] = []
    for app in sorted(case.clients, key=lambda item: item.key):
        with contextlib.suppress(FaultsError):
            peers.append(pods_peer(app.namespace, pod_selector(app, live)))
    return peers


def policy(topology: Topology, facts: Facts, live: Live, case: Case, *, asks_cluster_dns: bool) -> Manifest:
    """Ingress: the overlay's port from clients. Egress: the same to clients, the VPN server, DNS where the DNS mode needs it.

    The image's own client script pings the gateway's pod before anything else, so its rule has no ports (a rule with ports
    lets no ICMP through).
    """
    gateway = case.gateway
    clients = client_peers(topology, live, case)
    overlay = [Port(names.overlay_port(gateway, facts), "UDP")]
    # where clients ask for the pod's address behind the ClusterIP
    finder = Port(finder_port(overlay[0].number), "UDP")
    ingress = [rule("from", clients, [] if gateway.overlay.scripts == "image" else [*overlay, finder])] if clients else []
    egress = [endpoint_rule(case, facts)]
    if clients:
        egress.append(rule("to", clients, overlay))
    if asks_cluster_dns and (dns := dns_rule(facts)):
        egress.append(dns)
    labels = owner_labels(topology.instance, "gateway", [(LABEL_GATEWAY, gateway.name)])
    pods = PodSelector(names.gateway_pods(topology, gateway)).manifest()
    return network_policy(gateway.namespace, names.gateway_object(gateway), labels, pods, ingress=ingress, egress=egress)
