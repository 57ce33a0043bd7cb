# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Exact sets: addresses of both families and ports of every protocol, as disjoint intervals. No sampling anywhere."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

from .._topology.model import Network

Interval = tuple[int, int]  # first and last, both inside

_BITS = {4: 32, 6: 128}
_Self = TypeVar("_Self", bound="Intervals")


def _normal(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """Sorted, disjoint, and adjacent ones joined."""
    found: list[Interval] = []
    for first, last in sorted(intervals):
        if found and first <= found[-1][1] + 1:
            if last > found[-1][1]:
                found[-1] = (found[-1][0], last)
        else:
            found.append((first, last))
    return tuple(found)


@dataclass(frozen=True)
class Intervals:
    """A set of whole numbers."""

    parts: tuple[Interval, ...] = ()

    @classmethod
    def of(cls, intervals: Iterable[Interval]) -> Intervals:
        return cls(_normal(intervals))

    def __bool__(self) -> bool:
        return bool(self.parts)

    def __contains__(self, number: int) -> bool:
        low, high = 0, len(self.parts)
        while low < high:
            middle = (low + high) // 2
            if self.parts[middle][1] < number:
                low = middle + 1
            else:
                high = middle
        return low < len(self.parts) and self.parts[low][0] <= number

    def __or__(self, other: Intervals) -> Intervals:
        if not other.parts:
            return self
        if not self.parts:
            return other
        return Intervals.of((*self.parts, *other.parts))

    def __and__(self, other: Intervals) -> Intervals:
        found: list[Interval] = []
        left, right = 0, 0
        while left < len(self.parts) and right < len(other.parts):
            one, two = self.parts[left], other.parts[right]
            first, last = max(one[0], two[0]), min(one[1], two[1])
            if first <= last:
                found.append((first, last))
            if one[1] < two[1]:
                left += 1
            else:
                right += 1
        return Intervals(tuple(found))

    def __sub__(self, other: Intervals) -> Intervals:
        if not self.parts or not other.parts:
            return self
        found: list[Interval] = []
        for first, last in self.parts:
            start = first
            for cut_first, cut_last in other.parts:
                if cut_last < start:
                    continue
                if cut_first > last:
                    break
                if cut_first > start:
                    found.append((start, cut_first - 1))
                start = cut_last + 1
                if start > last:
                    break
            if start <= last:
                found.append((start, last))
        return Intervals(tuple(found))

    def issubset(self, other: Intervals) -> bool:
        return not (self - other)

    def first(self) -> int:
        """The smallest member; of an empty set an IndexError."""
        return self.parts[0][0]


@dataclass(frozen=True)
class Addresses:
    """A set of IP addresses of both families."""

    v4: Intervals = Intervals()
    v6: Intervals = Intervals()

    @classmethod
    def of(cls, networks: Iterable[Network]) -> Addresses:
        parts: dict[int, list[Interval]] = {4: [], 6: []}
        for network in networks:
            parts[network.version].append((int(network.network_address), int(network.broadcast_address)))
        return cls(Intervals.of(parts[4]), Intervals.of(parts[6]))

    def __bool__(self) -> bool:
        return bool(self.v4 or self.v6)

    def __contains__(self, address: object) -> bool:
        if isinstance(address, ipaddress.IPv4Address):
            return int(address) in self.v4
        return isinstance(address, ipaddress.IPv6Address) and int(address) in self.v6

    def __or__(self, other: Addresses) -> Addresses:
        return Addresses(self.v4 | other.v4, self.v6 | other.v6)

    def __and__(self, other: Addresses) -> Addresses:
        return Addresses(self.v4 & other.v4, self.v6 & other.v6)

    def __sub__(self, other: Addresses) -> Addresses:
        return Addresses(self.v4 - other.v4, self.v6 - other.v6)

    def issubset(self, other: Addresses) -> bool:
        return not (self - other)

    def networks(self) -> Iterator[Network]:
        """The set as the fewest networks, in order."""
        for first, last in self.v4.parts:
            yield from ipaddress.summarize_address_range(ipaddress.IPv4Address(first), ipaddress.IPv4Address(last))
        for first, last in self.v6.parts:
            yield from ipaddress.summarize_address_range(ipaddress.IPv6Address(first), ipaddress.IPv6Address(last))

    def witness(self) -> str:
        """One member for a message: a well-known public address if it is inside, else the first."""
        for text in ("1.1.1.1", "2606:4700:4700::1111"):
            if ipaddress.ip_address(text) in self:
                return text
        if self.v4:
            return str(ipaddress.IPv4Address(self.v4.first()))
        return str(ipaddress.IPv6Address(self.v6.first())) if self.v6 else ""


NOWHERE = Addresses()
EVERYWHERE = Addresses(Intervals(((0, 2**32 - 1),)), Intervals(((0, 2**128 - 1),)))


@lru_cache(maxsize=4096)
def network(text: str) -> Network | None:
    """A CIDR or an address as policies write it; None when it is neither. Host bits are masked as the API server's CNIs do."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


PROTOCOLS = ("TCP", "UDP", "SCTP", "ICMP")
EVERY_PORT = Intervals(((0, 65535),))


@dataclass(frozen=True)
class Ports:
    """A set of (protocol, port). ICMP stands for both of its families and has no ports: its interval is whole or empty."""

    by_protocol: Mapping[str, Intervals] = field(default_factory=dict)

    @classmethod
    def one(cls, protocol: str, first: int, last: int | None = None) -> Ports:
        return cls({protocol: Intervals(((first, first if last is None else last),))})

    @classmethod
    def whole(cls, *protocols: str) -> Ports:
        return cls(dict.fromkeys(protocols or PROTOCOLS, EVERY_PORT))

    def __bool__(self) -> bool:
        return any(self.by_protocol.values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ports) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash(frozenset(self._parts().items()))

    def _parts(self) -> dict[str, tuple[Interval, ...]]:
        return {name: found.parts for name, found in self.by_protocol.items() if found}

    def has(self, protocol: str, port: int) -> bool:
        return port in self.by_protocol.get(protocol, Intervals())

    def __or__(self, other: Ports) -> Ports:
        names = {*self.by_protocol, *other.by_protocol}
        return Ports({name: self.by_protocol.get(name, Intervals()) | other.by_protocol.get(name, Intervals()) for name in names})

    def __and__(self, other: Ports) -> Ports:
        return Ports(
            {name: found & other.by_protocol[name] for name, found in self.by_protocol.items() if name in other.by_protocol}
        )

    def __sub__(self, other: Ports) -> Ports:
        return Ports({name: found - other.by_protocol.get(name, Intervals()) for name, found in self.by_protocol.items()})

    def issubset(self, other: Ports) -> bool:
        return not (self - other)

    def words(self) -> str:
        """`443/tcp, 53/udp`; `every port` for all, `nothing` for none."""
        if self == Ports.whole():
            return "every port"
        parts = []
        for name in PROTOCOLS:
            for first, last in self.by_protocol.get(name, Intervals()).parts:
                if name == "ICMP":
                    parts.append("icmp")
                elif (first, last) == (0, 65535):
                    parts.append(f"every {name.lower()} port")
                else:
                    parts.append(f"{first}/{name.lower()}" if first == last else f"{first}-{last}/{name.lower()}")
        return ", ".join(parts) or "nothing"
