# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Networks that lie over one another: the overlay's, the tunnel's, the cluster's, the home's."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .._errors import Fault
from .._topology.model import Network
from .gluetun_case import Case
from .gluetun_values import network


def overlapping(case: Case) -> Iterator[Fault]:
    """The overlay's network against every other one that a packet of a client may name (groups 3 and 9 in one)."""
    mine = case.gateway.overlay.network
    where = "overlay.network"
    facts = case.facts
    ranges: list[tuple[str, tuple[Network, ...]]] = []
    if facts is not None:
        ranges = [("pod range", facts.pods), ("service range", facts.services), ("nodes", facts.nodes), ("LAN", facts.lan)]
    for what, networks in ranges:
        for other in networks:
            if mine.overlaps(other):
                yield case.fault(where, f"{mine} overlaps the {what} {other}", "set another private network")
    for other in case.own_networks():
        if mine.overlaps(other):
            yield case.fault(where, f"{mine} overlaps {other} of the tunnel", "set another private network")
    for what, networks in ranges[:3]:
        for other in networks:
            for own in case.own_networks():
                if own.overlaps(other):
                    at = "wireguard.addresses"
                    yield case.fault(
                        at,
                        f"{own} of the tunnel is inside the {what} {other}",
                        "the provider's resolver would be looked for in the cluster: ask the provider for another address",
                    )


def outbound(case: Case) -> Iterator[Fault]:
    """9, second half: networks that the gateway reaches beside the tunnel, against the tunnel and the overlay."""
    for item in case.setting("FIREWALL_OUTBOUND_SUBNETS").split(","):
        other = network(item)
        if other is None:
            continue  # said already, as a value that cannot be read
        where = "settings.FIREWALL_OUTBOUND_SUBNETS"
        for own in case.own_networks():
            if own.overlaps(other):
                yield case.fault(where, f"{other} overlaps {own} of the tunnel, whose packets would leave beside it", "narrow it")
        if other.overlaps(case.gateway.overlay.network):
            yield case.fault(where, f"{other} overlaps the overlay {case.gateway.overlay.network}", "narrow it")


GROUPS: tuple[Callable[[Case], Iterator[Fault]], ...] = (overlapping, outbound)
