# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Frames made by hand, for what an application with raw sockets or a hostile neighbour would send."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import socket
import struct
import time
from ipaddress import ip_address

from .lab import VNI
from .probes import checksum
from .sensors import MARKER

PACKET_QDISC_BYPASS = 20


def mac(text: str) -> bytes:
    return bytes(int(part, 16) for part in text.split(":"))


def overlay_mac(address: str) -> bytes:
    return b"\x02\x4e" + ip_address(address).packed


def udp(sport: int, dport: int, body: bytes) -> bytes:
    return struct.pack("!HHHH", sport, dport, 8 + len(body), 0) + body


def echo(body: bytes = MARKER, kind: int = 8) -> bytes:
    body += b"-" * (len(body) % 2)
    head = struct.pack("!BBHHH", kind, 0, 0, 9, 9)
    return struct.pack("!BBHHH", kind, 0, checksum(head + body), 9, 9) + body


def tcp(sport: int, dport: int, flags: int, source: str, target: str) -> bytes:
    head = struct.pack("!HHIIBBHHH", sport, dport, 1, 1, 0x50, flags, 1024, 0, 0)
    pseudo = ip_address(source).packed + ip_address(target).packed + struct.pack("!BBH", 0, 6, len(head))
    return head[:16] + struct.pack("!H", checksum(pseudo + head)) + head[18:]


def ip4(source: str, target: str, protocol: int, body: bytes) -> bytes:
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 1, 0, 64, protocol, 0, ip_address(source).packed, ip_address(target).packed
    )
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def ethernet(target: bytes, source: bytes, kind: int, body: bytes) -> bytes:
    return target + source + struct.pack("!H", kind) + body


def arp(operation: int, sender_mac: bytes, sender: str, target_mac: bytes, target: str) -> bytes:
    return struct.pack(
        "!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, operation, sender_mac, ip_address(sender).packed, target_mac, ip_address(target).packed
    )


def vxlan(inner: bytes) -> bytes:
    return struct.pack("!II", 0x08000000, VNI << 8) + inner


class Sender:
    """Sends raw frames from one interface of its namespace, and datagrams and connections as any program would."""

    def __init__(self, interface: str = "eth0") -> None:
        self.interface = interface

    def address(self) -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            return fcntl.ioctl(probe.fileno(), 0x8927, struct.pack("256s", self.interface.encode()))[18:24]

    def frame(self, data: bytes, count: int = 5, bypass: bool = False) -> int:
        """How many the kernel took."""
        taken = 0
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            if bypass:
                raw.setsockopt(263, PACKET_QDISC_BYPASS, 1)
            raw.bind((self.interface, 0))
            for _turn in range(count):
                with contextlib.suppress(OSError):
                    taken += bool(raw.send(data))
                time.sleep(0.02)
        return taken

    def packet(self, target_mac: bytes, packet: bytes, bypass: bool = False) -> int:
        return self.frame(ethernet(target_mac, self.address(), 0x0800, packet), bypass=bypass)

    def datagram(self, address: str, port: int, body: bytes = MARKER, sport: int = 0, interface: str = "", count: int = 5) -> str:
        """An answer, or the error's name, or nothing."""
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as made:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if interface:
                made.setsockopt(socket.SOL_SOCKET, 25, interface.encode() + b"\0")
            made.settimeout(0.1)
            result = ""
            try:
                if sport:
                    made.bind(("::" if ":" in address else "0.0.0.0", sport))
                for _turn in range(count):
                    made.sendto(body, (address, port))
                    with contextlib.suppress(TimeoutError):
                        result = made.recv(4096).decode(errors="replace")
            except OSError as exc:
                return type(exc).__name__
            return result

    def connects(self, address: str, port: int, interface: str = "", seconds: float = 1.0) -> bool:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as made:
            if interface:
                made.setsockopt(socket.SOL_SOCKET, 25, interface.encode() + b"\0")
            made.settimeout(seconds)
            try:
                made.connect((address, port))
            except OSError:
                return False
            return True

    def group(self, gid: int) -> None:
        if ctypes.CDLL(None).setgid(gid):
            raise OSError("setgid")


class Listener:
    """Listens on TCP ports of a pod and keeps every flow open; and opens one flow to the world that the other end keeps alive."""

    def __init__(self, ports: tuple[int, ...]) -> None:
        self.open: list[socket.socket] = []
        self.servers = []
        for port in ports:
            self.servers.append(socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True))
        self.accepted = 0

    def work(self) -> None:
        import select

        while self.servers:
            for server in select.select(self.servers, [], [])[0]:
                made, _from = server.accept()
                self.accepted += 1
                with contextlib.suppress(OSError):
                    made.send(b"hello")
                self.open.append(made)
                self.open = self.open[-64:]

    def count(self) -> int:
        return self.accepted


class Chatter:
    """A server on the internet that never stops sending to whoever has spoken to it, over TCP and UDP."""

    def __init__(self, address: str, port: int) -> None:
        self.server = socket.create_server((address, port))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((address, port))
        self.peers: list[socket.socket] = []
        self.spoken: set[tuple[str, int]] = set()

    def work(self) -> None:
        self.server.setblocking(False)
        self.udp.setblocking(False)
        while True:
            with contextlib.suppress(OSError):
                self.peers.append(self.server.accept()[0])
            with contextlib.suppress(OSError):
                self.spoken.add(self.udp.recvfrom(2048)[1])
            for peer in self.peers:
                with contextlib.suppress(OSError):
                    peer.setblocking(False)
                    peer.send(b"the server goes on")
            for spoken in self.spoken:
                with contextlib.suppress(OSError):
                    self.udp.sendto(b"the server goes on", spoken)
            time.sleep(0.02)


class Talker:
    """The other end of `Chatter` in a pod: long-lived flows that existed before the guard."""

    def __init__(self, address: str, port: int) -> None:
        self.tcp = socket.create_connection((address, port), timeout=3)
        self.tcp.setblocking(False)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.connect((address, port))
        self.udp.setblocking(False)
        self.got = 0

    def work(self) -> None:
        while True:
            for made in (self.tcp, self.udp):
                with contextlib.suppress(OSError):
                    made.send(MARKER)
                with contextlib.suppress(OSError):
                    self.got += len(made.recv(65536))
            time.sleep(0.02)

    def received(self) -> int:
        got, self.got = self.got, 0
        return got


class Sink:
    """Takes in whatever is sent to it."""

    def __init__(self, address: str, port: int) -> None:
        self.server = socket.create_server((address, port))

    def work(self) -> None:
        while True:
            made = self.server.accept()[0]
            while made.recv(1 << 20):
                pass


class Pump:
    """Sends as fast as it can."""

    def __init__(self, address: str, port: int) -> None:
        self.where = (address, port)

    def measure(self, seconds: float) -> float:
        """Mbit/s that the other end has acknowledged."""
        block, sent = b"\0" * 65536, 0
        with socket.create_connection(self.where, timeout=5) as made:
            begun = time.monotonic()
            while time.monotonic() - begun < seconds:
                sent += made.send(block)
            waiting = struct.unpack("i", fcntl.ioctl(made.fileno(), 0x5411, b"\0\0\0\0"))[0]
            return (sent - waiting) * 8 / (time.monotonic() - begun) / 1e6
