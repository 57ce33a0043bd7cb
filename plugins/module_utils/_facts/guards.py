# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What no range may be, whoever says so. Each guard returns the reason for a refusal, or nothing."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from .._topology.model import Network
from . import observations as obs

#: Public space that a distribution (GKE) uses for Services by design; kOps' 100.64.0.0/13 is shared space, not public.
_NAMED = (ipaddress.ip_network("34.118.224.0/20"),)


def refusal(network: Network, about: str, trust: int) -> str:
    """Why a single range cannot be what a source says; empty when it can."""
    shortest = 8 if network.version == 4 else 40
    if about == "services" and network.version == 6:
        shortest = 64
    if network.prefixlen < shortest and trust != obs.GIVEN:
        return f"wider than /{shortest}"
    if network.is_loopback or network.is_multicast or network.is_link_local or network.is_unspecified:
        return "not a range for hosts"
    if (
        about in ("pods", "services")
        and network.is_global
        and network not in _NAMED
        and trust not in (obs.GIVEN, obs.ALLOCATES, obs.RUNNING)
    ):
        return "public addresses, and the source is no proof"
    if about == "lan" and network.is_global and trust != obs.GIVEN:
        return "public addresses are no LAN unless you say so"
    return ""


def inside(address: Network, networks: Iterable[Network]) -> bool:
    return any(within(address, network) for network in networks)


def within(one: Network, other: Network) -> bool:
    if isinstance(one, ipaddress.IPv4Network) and isinstance(other, ipaddress.IPv4Network):
        return one.subnet_of(other)
    if isinstance(one, ipaddress.IPv6Network) and isinstance(other, ipaddress.IPv6Network):
        return one.subnet_of(other)
    return False


def overlap(one: Network, other: Network) -> bool:
    return any(within(inner, outer) for inner, outer in ((one, other), (other, one)))


def overlaps(ones: Iterable[Network], others: Iterable[Network]) -> list[tuple[Network, Network]]:
    listed = tuple(others)
    return [(one, other) for one in ones for other in listed if overlap(one, other)]
