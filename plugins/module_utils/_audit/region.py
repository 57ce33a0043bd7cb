# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What one side of a connection may speak to: rectangles of pods or addresses by ports."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from .sets import EVERYWHERE, Addresses, Ports

PodPart = tuple[int, Ports]  # a bit per pod (its index), and ports
AddressPart = tuple[Addresses, Ports]


@dataclass(frozen=True)
class Region:
    """A set of (peer, protocol, port). Parts may overlap: the set is their union."""

    pods: tuple[PodPart, ...] = ()
    outside: tuple[AddressPart, ...] = ()

    @classmethod
    def everything(cls, pods: int) -> Region:
        return cls(((pods, Ports.whole()),), ((EVERYWHERE, Ports.whole()),))

    def __bool__(self) -> bool:
        return bool(self.pods or self.outside)

    def __or__(self, other: Region) -> Region:
        return Region((*self.pods, *other.pods), (*self.outside, *other.outside))

    def __and__(self, other: Region) -> Region:
        pods = [
            (mask, ports)
            for mask_one, ports_one in self.pods
            for mask_two, ports_two in other.pods
            if (mask := mask_one & mask_two) and (ports := ports_one & ports_two)
        ]
        outside = [
            (addresses, ports)
            for addresses_one, ports_one in self.outside
            for addresses_two, ports_two in other.outside
            if (ports := ports_one & ports_two) and (addresses := addresses_one & addresses_two)
        ]
        return Region(tuple(pods), tuple(outside))

    def __sub__(self, other: Region) -> Region:
        pods: Iterable[PodPart] = self.pods
        for cut, cut_ports in other.pods:
            pods = [piece for part in pods for piece in _pods_without(part, cut, cut_ports)]
        outside: Iterable[AddressPart] = self.outside
        for cut_addresses, cut_ports in other.outside:
            outside = [piece for part in outside for piece in _addresses_without(part, cut_addresses, cut_ports)]
        return Region(tuple(pods), tuple(outside))

    def pod(self, index: int) -> Ports:
        """The ports towards one pod."""
        found = Ports()
        bit = 1 << index
        for mask, ports in self.pods:
            if mask & bit:
                found = found | ports
        return found

    def address(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Ports:
        """The ports towards one address that is no pod of the snapshot."""
        found = Ports()
        for addresses, ports in self.outside:
            if address in addresses:
                found = found | ports
        return found

    def everywhere(self, addresses: Addresses) -> Ports:
        """The ports that are open towards every one of these addresses."""
        left = Region((), ((addresses, Ports.whole()),)) - self
        missing = Ports()
        for _addresses, ports in left.outside:
            missing = missing | ports
        return Ports.whole() - missing

    def towards(self, addresses: Addresses) -> tuple[AddressPart, ...]:
        """The parts that lead to some of these addresses."""
        return (self & Region((), ((addresses, Ports.whole()),))).outside

    def any_pod(self) -> int:
        """Pods to which anything is open."""
        found = 0
        for mask, _ports in self.pods:
            found |= mask
        return found


def _pods_without(part: PodPart, cut: int, cut_ports: Ports) -> Iterable[PodPart]:
    mask, ports = part
    both = mask & cut
    if not both:
        yield part
        return
    if mask & ~cut:
        yield mask & ~cut, ports
    left = ports - cut_ports
    if left:
        yield both, left


def _addresses_without(part: AddressPart, cut: Addresses, cut_ports: Ports) -> Iterable[AddressPart]:
    addresses, ports = part
    left_ports = ports - cut_ports
    if left_ports == ports:
        yield part
        return
    both = addresses & cut
    if not both:
        yield part
        return
    rest = addresses - cut
    if rest:
        yield rest, ports
    if left_ports:
        yield both, left_ports
