# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Address ranges: what is public, and how to say "public" with exceptions in a policy.

Source of the special ranges: the IANA special-purpose address registries (RFC 6890 and its updates), multicast
(RFC 5771, RFC 4291) and the former class E (RFC 1112).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from .._facts.model import Facts
from .._topology.model import Network

#: IPv4 that no public host has.
SPECIAL_V4: tuple[ipaddress.IPv4Network, ...] = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
#: IPv6: public hosts are in 2000::/3 alone; this is what is special inside it, and NAT64's well-known prefix leads to IPv4.
PUBLIC_V6 = ipaddress.IPv6Network("2000::/3")
SPECIAL_V6: tuple[ipaddress.IPv6Network, ...] = tuple(
    ipaddress.IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
ALL_V4 = ipaddress.IPv4Network("0.0.0.0/0")


def own_ranges(facts: Facts) -> tuple[Network, ...]:
    """Every range of the cluster and of the home: never part of "the internet", public or not."""
    return (
        *facts.pods,
        *facts.services,
        *facts.nodes,
        *facts.lan,
        *(ipaddress.ip_network(endpoint.ip) for endpoint in facts.api_endpoints),
    )


def public_blocks(facts: Facts) -> tuple[tuple[Network, tuple[Network, ...]], ...]:
    """(range, exceptions) per family of the cluster: together the public addresses that are not the home's own."""
    own = own_ranges(facts)
    blocks: list[tuple[Network, tuple[Network, ...]]] = [(ALL_V4, merged(ALL_V4, (*SPECIAL_V4, *own)))]
    if "ipv6" in facts.ip_families:
        blocks.append((PUBLIC_V6, merged(PUBLIC_V6, (*SPECIAL_V6, *own))))
    if "ipv4" not in facts.ip_families:
        blocks.pop(0)
    return tuple(blocks)


def merged(inside: Network, networks: Iterable[Network]) -> tuple[Network, ...]:
    """Those of the networks that are strictly inside a range, collapsed and sorted."""
    if isinstance(inside, ipaddress.IPv4Network):
        v4 = [net for net in networks if isinstance(net, ipaddress.IPv4Network) and net != inside and net.subnet_of(inside)]
        return tuple(ipaddress.collapse_addresses(v4))
    v6 = [net for net in networks if isinstance(net, ipaddress.IPv6Network) and net != inside and net.subnet_of(inside)]
    return tuple(ipaddress.collapse_addresses(v6))


def reverse_zones(networks: tuple[Network, ...]) -> tuple[str, ...]:
    """The zones under in-addr.arpa and ip6.arpa that cover these networks and nothing more: one per whole label."""
    zones: list[str] = []
    for network in networks:
        step = 8 if network.version == 4 else 4
        length = max(step, -(-network.prefixlen // step) * step)
        parts = network.subnets(new_prefix=length) if length > network.prefixlen else (network,)
        for part in parts:
            labels = part.network_address.reverse_pointer.split(".")
            zones.append(".".join(labels[len(labels) - 2 - length // step :]))
    return tuple(dict.fromkeys(zones))
