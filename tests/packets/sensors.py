# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Captures outside the tested namespace. A sensor counts what must not be there, and keeps a few examples.

A frame is a leak when it goes to the internet's addresses by another way than the tunnel, or when a probe's marker can be
read in it where no frame of the overlay belongs. On the wires inside the cluster, the overlay's frames may carry markers.
"""

from __future__ import annotations

import ipaddress
import select
import socket
import struct
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from .kernel import Counters
from .lab import INTERNET, PATIENCE, PODS, PORT, VPN

MARKER = b"NETGUARD-PROBE"
V4_INTERNET = [net for net in INTERNET if net.version == 4]
V6_INTERNET = [net for net in INTERNET if net.version == 6]


@dataclass(frozen=True)
class Frame:
    family: int
    source: str
    target: str
    protocol: int
    sport: int
    dport: int
    data: bytes
    what: str = ""


def parse(frame: bytes) -> Frame | None:
    if len(frame) < 14:
        return None
    kind = int.from_bytes(frame[12:14], "big")
    if kind == 0x0800 and len(frame) >= 34:
        head = 14 + (frame[14] & 15) * 4
        protocol, family = frame[23], 4
        source, target = str(ipaddress.IPv4Address(frame[26:30])), str(ipaddress.IPv4Address(frame[30:34]))
    elif kind == 0x86DD and len(frame) >= 54:
        head, protocol, family = 54, frame[20], 6
        source, target = str(ipaddress.IPv6Address(frame[22:38])), str(ipaddress.IPv6Address(frame[38:54]))
    else:
        return None
    sport = dport = 0
    if protocol in (6, 17) and len(frame) >= head + 4:
        sport, dport = int.from_bytes(frame[head : head + 2], "big"), int.from_bytes(frame[head + 2 : head + 4], "big")
    elif protocol in (1, 58) and len(frame) > head:
        sport = frame[head]  # the ICMP type
    return Frame(family, source, target, protocol, sport, dport, frame[head:])


def to_internet(frame: Frame) -> bool:
    address = ipaddress.ip_address(frame.target)
    return any(address in net for net in (V4_INTERNET if frame.family == 4 else V6_INTERNET))


def in_pods(address: str) -> bool:
    return any(ipaddress.ip_address(address) in net for net in PODS if net.version == ipaddress.ip_address(address).version)


def inner(frame: Frame) -> Frame | None:
    """What a frame of the overlay carries."""
    if frame.protocol == 17 and frame.dport == PORT and len(frame.data) > 16 + 14:
        return parse(frame.data[16:])
    return None


def name_of(frame: Frame) -> str:
    protocol = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6"}.get(frame.protocol, str(frame.protocol))
    if frame.protocol == 6 and len(frame.data) > 13:
        protocol += f"(flags {frame.data[13]:#x})"
    return f"{protocol} {frame.source}:{frame.sport} > {frame.target}:{frame.dport}"


@dataclass
class Sensor:
    """`rule`: pod (host side of a client's veth), uplink (a node's), router (the home router), internet (whose source?)."""

    interface: str
    rule: str
    endpoints: tuple[tuple[int, int], ...] = ()  # (protocol, port) at the VPN server
    leaks: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    arp: list[str] = field(default_factory=list)
    first: float = 0.0
    last: float = 0.0
    empty: float = 0.0  # when every frame had been looked at
    gone: bool = False
    held: bool = False
    lost: int = 0

    def __post_init__(self) -> None:
        self.open()
        self.counters = Counters(self.interface, self.rule, self.endpoints)

    def open(self) -> None:
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)  # SO_RCVBUFFORCE
        except OSError:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        self.socket.setblocking(False)
        self.socket.bind((self.interface, 0))

    def work(self) -> None:
        while True:
            if self.held:
                self.socket.close()
                while self.held:
                    self.empty = time.monotonic()
                    time.sleep(0.02)
                self.open()
            now = time.monotonic()
            try:
                data, address = self.socket.recvfrom(65535)
            except BlockingIOError:
                self.empty = now
                select.select([self.socket], [], [], 0.05)
                continue
            except OSError:  # the interface went away with its pod
                self.gone = True
                return
            outgoing = address[2] == 4
            if int.from_bytes(data[12:14], "big") == 0x0806 and len(data) >= 42 and not outgoing:
                self.arp.append(f"{int.from_bytes(data[20:22], 'big')} {ipaddress.IPv4Address(data[28:32])}")
            frame = parse(data)
            if frame is not None:
                self.judge(frame, outgoing)

    def judge(self, frame: Frame, outgoing: bool) -> None:
        # A reset on the wires behind the node can be the node's own: the answer to a server that still closes a flow of C0,
        # after the node has forgotten it. One that comes from the pod is seen, and counted, at the pod's own link.
        if self.rule != "pod" and frame.protocol == 6 and len(frame.data) > 13 and frame.data[13] & 4:
            return
        if self.rule == "pod":
            if outgoing:
                return
            leak = to_internet(frame)
            if frame.family == 6 and not (frame.protocol == 58 and 133 <= frame.sport <= 136):
                self.seen["IPv6 but neighbours"] += 1
        elif self.rule == "uplink":
            leak = outgoing and to_internet(frame) and not self.endpoint(frame)
            leak = leak or (outgoing and MARKER in frame.data and not (in_pods(frame.target) or in_pods(frame.source)))
        elif self.rule == "router":
            carried = inner(frame)
            handshake = carried is not None and carried.protocol == 1 and MARKER not in frame.data
            leak = (to_internet(frame) and not self.endpoint(frame)) or (carried is not None and not handshake)
            leak = leak or (MARKER in frame.data)
            if handshake:
                self.seen["handshake"] += 1
                leak = False
        else:
            if outgoing or not to_internet(frame):
                return
            leak = frame.source != VPN
            if frame.source == VPN and frame.protocol != 58:
                self.seen["by VPN"] += 1
        if leak:
            self.leaks[name_of(frame)] += 1
            self.last = time.monotonic()
            self.first = self.first or self.last

    def endpoint(self, frame: Frame) -> bool:
        """The tunnel's own packets; and that nobody listens any more, when the VPN's process is gone."""
        unreachable = frame.protocol == 1 and frame.sport == 3
        known = (frame.protocol, frame.dport) in self.endpoints or unreachable
        return frame.target == VPN and known and MARKER not in frame.data

    def hold(self, yes: bool) -> None:
        """Throughput is measured without captures: they cost more than what they look at."""
        self.held = yes

    def settle(self) -> None:
        """Waits until every frame up to now has been looked at. Raises RuntimeError when some never will be."""
        asked = time.monotonic()
        while self.empty < asked and not self.gone:
            if time.monotonic() - asked > PATIENCE:
                raise RuntimeError(f"the capture at {self.interface} does not keep up")
            time.sleep(0.002)
        if not self.gone and not self.held:
            _packets, dropped = struct.unpack("II", self.socket.getsockopt(263, 6, 8))  # PACKET_STATISTICS, which it resets
            self.lost += dropped
        if self.lost:
            raise RuntimeError(f"the capture at {self.interface} lost {self.lost} frames: nothing is proven")

    def read(self, reset: bool = True) -> dict[str, Any]:
        self.settle()
        counted = self.counters.read(reset)
        result: dict[str, Any] = {"leaks": sum(self.leaks.values()), "examples": self.leaks.most_common(5)}
        result |= {"counted": counted, "seen": dict(self.seen), "arp": list(self.arp), "first": self.first, "last": self.last}
        if reset:
            self.leaks, self.seen, self.arp, self.first, self.last = Counter(), Counter(), [], 0.0, 0.0
        return result
