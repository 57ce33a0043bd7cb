# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`overlay.scripts: image`: settings for the pod-gateway image's own scripts (v1.13.0), gateway and client.

The scripts take every setting that is missing from defaults that leak (VPN_LOCAL_CIDRS 10.0.0.0/8, VPN_TRAFFIC_PORT 443), so
all of them are written. Of the two contracts between those scripts and Gluetun this is the one with VPN_INTERFACE empty: the
scripts make the overlay and nothing else, and every packet rule is ours (`init_script`, `post_rules`), so that none has two
owners and none stands in a chain that Gluetun parses.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from .._facts.model import Facts
from .._topology.model import App, Gateway, Port, Topology
from . import names
from .addresses import reverse_zones
from .gluetun_case import Case
from .gluetun_env import TUNNEL, tunnel_mtu

#: Addresses from here on are leased by DHCP, those below are static (1 is the gateway).
FIRST_DYNAMIC = 20
FIRST_STATIC = 2
#: Tries of the client's pings; with the default of 1 apps restart several times a day.
RETRIES = 5


def network(gateway: Gateway) -> ipaddress.IPv4Network:
    """The scripts know /24 alone: the declared network, or the first /24 of a larger one."""
    declared = gateway.overlay.network
    return declared if declared.prefixlen == 24 else ipaddress.IPv4Network((declared.network_address, 24))


def static_addresses(topology: Topology, gateway: Gateway) -> dict[str, int]:
    """Last octets of the clients with port forwards, by app key; stable while no such client is added before it by name."""
    forwarding = sorted(app.key for app in topology.clients_of(gateway.name) if app.vpn and app.vpn.forward)
    return {key: FIRST_STATIC + position for position, key in enumerate(forwarding)}


def host_prefix(app: App) -> str:
    """The name by which the scripts know a pod: its host name up to the first dash."""
    return (app.workload or app.name).partition("-")[0]


def forwarded(app: App) -> tuple[Port, ...]:
    return tuple(port for name in (app.vpn.forward if app.vpn else ()) for port in app.ports.get(name, ()))


def nat_line(app: App, octet: int) -> str:
    """`name last-octet proto:port,...`; a range is written port by port, since the scripts know none."""
    ports = [
        f"{port.protocol.lower()}:{number}"
        for port in forwarded(app)
        for number in range(port.number, (port.end or port.number) + 1)
    ]
    return f"{host_prefix(app)} {octet} {','.join(ports)}"


def nat_conf(topology: Topology, gateway: Gateway) -> str:
    """nat.conf of the gateway and of its clients: `gateway_checks` sees to it that no name is another's too."""
    octets = static_addresses(topology, gateway)
    lines = [nat_line(client, octets[client.key]) for client in topology.clients_of(gateway.name) if client.key in octets]
    return "".join(f"{line}\n" for line in sorted(lines))


def settings(topology: Topology, facts: Facts, gateway: Gateway, case: Case, vpn_port: int) -> str:
    """settings.sh of gateway and clients alike: every variable that the image's scripts read."""
    local_cache = [ipaddress.ip_network(facts.dns.node_local_ip)] if facts.dns.node_local_ip else []
    outside = [str(item) for item in (*facts.pods, *facts.services, *facts.nodes, *local_cache) if item.version == 4]
    own_zones = [facts.dns.cluster_domain, *reverse_zones((*facts.pods, *facts.services))]
    domain = f"{names.gateway_headless(gateway)}.{gateway.namespace}.svc.{facts.dns.cluster_domain}"
    values = {
        "GATEWAY_NAME": domain,
        "K8S_DNS_IPS": _first_v4(facts.dns.service_ips),
        "NOT_ROUTED_TO_GATEWAY_CIDRS": " ".join([*outside, *(str(item) for item in facts.mesh_probe_sources if item.version == 4)]),
        "VXLAN_ID": str(gateway.overlay.vni),
        "VXLAN_PORT": str(names.overlay_port(gateway, facts)),
        "VXLAN_IP_NETWORK": str(network(gateway).network_address).rpartition(".")[0],
        "VXLAN_GATEWAY_FIRST_DYNAMIC_IP": str(FIRST_DYNAMIC),
        "VPN_INTERFACE": "",
        "VPN_BLOCK_OTHER_TRAFFIC": "true",
        "VPN_TRAFFIC_PORT": str(vpn_port),
        "VPN_LOCAL_CIDRS": " ".join(outside),
        "DNS_LOCAL_CIDRS": " ".join(own_zones) if gateway.dns != "vpn" else "",
        "DNS_LOCAL_SERVER": _first_v4(facts.dns.service_ips),
        "RESOLV_CONF_COPY": "/etc/resolv_copy.conf",
        "CONNECTION_RETRY_COUNT": str(RETRIES),
        "GATEWAY_ENABLE_DNSSEC": "false",
        "IPTABLES_NFT": "no",
        "SNAT_IP": "",
        "VPN_INTERFACE_MTU": str(tunnel_mtu(case)),
    }
    return "".join(f'{name}="{value}"\n' for name, value in values.items()) + _MTU


#: The kernel refuses more than the pod's interface holds, and the script would end there: it takes the value as it is written.
_MTU = """PATH_MTU="$(cat /sys/class/net/eth0/mtu 2>/dev/null || echo 1500)"
if [ "$((PATH_MTU - 50))" -lt "$VPN_INTERFACE_MTU" ]; then VPN_INTERFACE_MTU="$((PATH_MTU - 50))"; fi
"""


def _first_v4(addresses: Iterable[str]) -> str:
    return next((item for item in addresses if ":" not in item), "")


def post_rules(topology: Topology, facts: Facts, gateway: Gateway) -> str:
    """/iptables/post-rules.txt: run by Gluetun with the backend it chose, after its own rules.

    Only matches that its parser of INPUT and OUTPUT knows; one command a line, no quotes, no comments. FORWARD is flushed first:
    after a restart of the container alone the lines run again in the same namespace.
    """
    lines = [
        "iptables -F FORWARD",
        f"iptables -A FORWARD -i vxlan0 -o {TUNNEL} -j ACCEPT",
        f"iptables -A FORWARD -i {TUNNEL} -o vxlan0 -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
    ]
    lines += [
        f"iptables -A FORWARD -i {TUNNEL} -o vxlan0 -d {address} -p {port.protocol.lower()} --dport {_span(port)} -j ACCEPT"
        for address, port in _forwards(topology, gateway)
    ]
    lines += ["iptables -A INPUT -i vxlan0 -p udp --dport 67 -j ACCEPT", "iptables -A OUTPUT -o vxlan0 -j ACCEPT"]
    # the client's script pings the gateway's pod before it starts; where pods have a /32 Gluetun drops that
    lines += [f"iptables -A INPUT -i eth0 -p icmp -s {item} -j ACCEPT" for item in facts.pods if item.version == 4]
    return "".join(f"{line}\n" for line in lines)


def _span(port: Port) -> str:
    return f"{port.number}:{port.end}" if port.end else str(port.number)


def _forwards(topology: Topology, gateway: Gateway) -> list[tuple[str, Port]]:
    octets = static_addresses(topology, gateway)
    inside = network(gateway)
    return [
        (str(inside.network_address + octets[app.key]), port)
        for app in topology.clients_of(gateway.name)
        if app.key in octets
        for port in forwarded(app)
    ]


def init_script(topology: Topology, gateway: Gateway) -> str:
    """Runs once per pod, before Gluetun: first the rules that hold when Gluetun does not, then the image's script, then NAT."""
    forwards = [
        f"iptables -t nat -A PREROUTING -i {TUNNEL} -p {port.protocol.lower()} --dport {_span(port)}"
        f" -j DNAT --to-destination {address}"
        for address, port in _forwards(topology, gateway)
    ]
    return "\n".join(
        [
            "#!/bin/sh",
            "set -eu",
            "# The image's scripts know no other name.",
            "if [ ! -e /sys/class/net/eth0 ]; then",
            "  echo 'the pod has no interface eth0: use overlay.scripts: netguard' >&2",
            "  exit 1",
            "fi",
            "# Nothing from the overlay leaves but through the tunnel, whatever becomes of the filter table (Gluetun v3.41 empties",
            "# it when it fails to set it up). A second run in the same pod finds the rules and leaves them.",
            "for tables in iptables ip6tables; do",
            '  if [ "$tables" = ip6tables ] && [ ! -e /proc/net/if_inet6 ]; then continue; fi',
            '  "$tables" -P FORWARD DROP',
            f'  "$tables" -t mangle -C FORWARD -i vxlan0 ! -o {TUNNEL} -j DROP 2>/dev/null ||',
            f'    "$tables" -t mangle -A FORWARD -i vxlan0 ! -o {TUNNEL} -j DROP',
            "done",
            "iptables -t nat -F POSTROUTING",
            "iptables -t nat -F PREROUTING",
            "/bin/gateway_init.sh",
            "# The script masquerades on every interface.",
            "iptables -t nat -F POSTROUTING",
            f"iptables -t nat -A POSTROUTING -o {TUNNEL} -j MASQUERADE",
            "iptables -t mangle -F POSTROUTING",
            f"iptables -t mangle -A POSTROUTING -o {TUNNEL} -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu",
            *forwards,
            "",
        ]
    )
