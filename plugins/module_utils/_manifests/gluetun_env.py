# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The environment of a gateway's Gluetun container: every value that matters is written out, no secret is among them."""

from __future__ import annotations

from collections.abc import Iterable

from .._errors import required
from .._facts.model import Facts
from .._overlay.scripts import finder_port
from .gluetun import FILTERS, Release
from .gluetun_case import Case
from .gluetun_values import canonical, tidy, truth
from .gluetun_variables import SECRETS, VARIABLES

TUNNEL = "tun0"
#: Where the credentials are mounted. Not /run/secrets: the service account's token would be mounted below it.
CREDENTIALS = "/netguard/credentials"
#: Gluetun's own default since v3.40; written out because overlay and clients compute theirs from it.
MTU = 1320
#: Asked through the tunnel when the user names no other.
RESOLVER = "1.1.1.1"

#: Never part of what Gluetun is told twice: rendered from several sources here.
_MERGED = ("FIREWALL_OUTBOUND_SUBNETS", "FIREWALL_INPUT_PORTS", "DNS_ADDRESS", "DNS_UPSTREAM_PLAIN_ADDRESSES")


def tunnel_mtu(case: Case) -> int:
    """MTU of the tunnel's interface in bytes."""
    return int(case.setting("WIREGUARD_MTU", str(MTU)))


def resolver(case: Case) -> str:
    """The IPv4 address of the resolver that is asked through the tunnel."""
    plain = tidy(case.setting("DNS_UPSTREAM_PLAIN_ADDRESSES"))
    return case.setting("DNS_ADDRESS") or (plain[0].rpartition(":")[0] if plain else RESOLVER)


def environment(case: Case, facts: Facts, overlay_port: int, secrets: Iterable[str]) -> dict[str, str]:
    """Variable to value, sorted. `secrets`: the credentials that are mounted, each named by its file."""
    values = {
        "VPN_SERVICE_PROVIDER": required(case.provider).name,
        "VPN_TYPE": case.gateway.protocol,
        "VPN_INTERFACE": TUNNEL,
        # uid 0 alone: the pod drops CHOWN, and a read-only /etc/passwd would stop Gluetun with another
        "PUID": "0",
        "PGID": "0",
        "HTTP_CONTROL_SERVER_ADDRESS": "127.0.0.1:8000",
        "HEALTH_RESTART_VPN": "on",
        "UPDATER_PERIOD": "0",
        "VERSION_INFORMATION": "off",
        "DNS_SERVER": "off",
    }
    values |= _tunnel(case)
    values |= _filters(case)
    # the next release sums up probes of its own where no MTU is set
    values |= {name: canonical(VARIABLES[name], value) for name, value in case.gateway.settings.items() if name not in _MERGED}
    ranges = [str(network) for network in (*facts.pods, *facts.services)]
    if facts.dns.node_local_ip:
        ranges.append(f"{facts.dns.node_local_ip}/{128 if ':' in facts.dns.node_local_ip else 32}")
    values["FIREWALL_OUTBOUND_SUBNETS"] = _joined(ranges, case.setting("FIREWALL_OUTBOUND_SUBNETS"))
    values["FIREWALL_INPUT_PORTS"] = _joined(
        [str(overlay_port), str(finder_port(overlay_port))], case.setting("FIREWALL_INPUT_PORTS")
    )
    if case.release is Release.V341:
        values |= {"STORAGE_FILEPATH": "", "DNS_ADDRESS": resolver(case)}
    else:
        addresses = case.setting("DNS_UPSTREAM_PLAIN_ADDRESSES", f"{RESOLVER}:53")
        values |= {
            "STORAGE_SERVERS_ENABLED": "off",
            "DNS_UPSTREAM_RESOLVER_TYPE": "plain",
            "DNS_UPSTREAM_PLAIN_ADDRESSES": ",".join(tidy(addresses)),
        }
    values |= {SECRETS[key]: f"{CREDENTIALS}/{key}" for key in secrets}
    return dict(sorted(values.items()))


def _joined(ours: list[str], more: str) -> str:
    return ",".join(dict.fromkeys([*ours, *tidy(more)]))


def _tunnel(case: Case) -> dict[str, str]:
    provider = required(case.provider)
    if not case.wireguard:
        vpn = case.gateway.openvpn
        values = {"OPENVPN_PROTOCOL": vpn.protocol}
        if vpn.endpoint_ip:
            values["OPENVPN_ENDPOINT_IP"] = vpn.endpoint_ip
        rules = provider.openvpn
        own = (rules.tcp_port if vpn.protocol == "tcp" else rules.udp_port) if rules else 0
        if vpn.endpoint_port and (vpn.endpoint_port != own or provider.name == "custom"):
            values["OPENVPN_ENDPOINT_PORT"] = str(vpn.endpoint_port)
        return values
    wireguard = case.gateway.wireguard
    values = {"WIREGUARD_IMPLEMENTATION": "auto", "WIREGUARD_MTU": str(tunnel_mtu(case))}
    if case.declared_addresses and not case.address_text:
        values["WIREGUARD_ADDRESSES"] = ",".join(case.declared_addresses)
    if wireguard.endpoint_ip:
        values["WIREGUARD_ENDPOINT_IP"] = wireguard.endpoint_ip
    # a provider that allows no port of one's own would stop at its default as well
    own = provider.wireguard.port if provider.wireguard and provider.name != "custom" else 0
    if wireguard.endpoint_port and wireguard.endpoint_port != own:
        values["WIREGUARD_ENDPOINT_PORT"] = str(wireguard.endpoint_port)
    if wireguard.public_key:
        values["WIREGUARD_PUBLIC_KEY"] = wireguard.public_key
    return values


def _filters(case: Case) -> dict[str, str]:
    values = {}
    for key, given in case.gateway.server.items():
        known = FILTERS[key]
        if known.kind == "switch":
            values[known.variable] = "on" if truth(given[0]) else "off"
        else:
            values[known.variable] = ",".join(item.strip() for item in given)
    return values
