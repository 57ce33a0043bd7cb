# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an application might send, all of it all the time: TCP, UDP, ICMP, DNS, both families, bound to eth0 and not.

Every datagram carries the marker. Answers are remembered with their time, so that a row can tell when traffic stopped and when
it was back.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import time
from collections import Counter
from typing import Any

from .lab import HOST, HOST6, RESOLVER, RESOLVER6
from .sensors import MARKER

UDP_PORT, TCP_PORT = 4242, 4243
BACKLOG = 10.0  # seconds of rounds that are made up for
SO_BINDTODEVICE = 25


def question(name: str) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", os.getpid() & 0xFFFF, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", 1, 1)


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def echo_request(family: int, count: int) -> bytes:
    body = MARKER + b"--"
    head = struct.pack("!BBHHH", 8 if family == 4 else 128, 0, 0, 7, count & 0xFFFF)
    if family == 6:
        return head + body
    return struct.pack("!BBHHH", 8, 0, checksum(head + body), 7, count & 0xFFFF) + body


class Prober:
    """`rate`: packets a second over all probes; `resolver`: who the pod's own resolv.conf would name."""

    def __init__(self, rate: float = 120.0, resolver: str = "", source: str = "", gid: int = 1000) -> None:
        with contextlib.suppress(OSError):
            os.setgid(gid)
        self.resolver = resolver
        self.source = source
        self.sent: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.answers: dict[str, list[float]] = {}
        self.unanswered = 0  # datagrams in a row of the one kind that is the clock of a row
        self.kinds = [
            f"{what}{family} {how}"
            for family in (4, 6)
            for how in ("unbound", "eth0", *(("source",) if source and family == 4 else ()))
            for what in ("udp", "icmp", "tcp", "dns-udp", "dns-tcp")
        ]
        if resolver:
            self.kinds.append("resolver unbound")
        self.pause = len(self.kinds) / rate
        self.sockets: dict[str, socket.socket] = {}
        self.paused = False

    def work(self) -> None:
        """Rounds are due by the clock: what a busy machine held up is sent later, not left out."""
        count, due = 0, time.monotonic()
        while True:
            count += 1
            for kind in () if self.paused else self.kinds:
                self.send(kind, count)
            due = max(due, time.monotonic() - BACKLOG) + self.pause
            self.listen(due)

    def open(self, kind: str) -> socket.socket:
        what, how = kind.split()
        family = socket.AF_INET6 if what.endswith("6") else socket.AF_INET
        if what.startswith("icmp"):
            made = socket.socket(family, socket.SOCK_RAW, 58 if what.endswith("6") else 1)
        elif what.startswith(("tcp", "dns-tcp")):
            made = socket.socket(family, socket.SOCK_STREAM)
        else:
            made = socket.socket(family, socket.SOCK_DGRAM)
        if how == "eth0":
            made.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, b"eth0\0")
        if how == "source":
            made.bind((self.source, 0))
        made.setblocking(False)
        return made

    def send(self, kind: str, count: int) -> None:
        what, _how = kind.split()
        six = what.endswith("6")
        try:
            if what.startswith(("tcp", "dns-tcp")):
                old = self.sockets.pop(kind, None)
                if old is not None:
                    old.close()
                made = self.sockets[kind] = self.open(kind)
                self.sent[kind] += 1
                where = (HOST6 if six else HOST, TCP_PORT) if what.startswith("tcp") else (RESOLVER6 if six else RESOLVER, 53)
                made.connect_ex(where)
                return
            self.sent[kind] += 1
            made = self.sockets.get(kind) or self.sockets.setdefault(kind, self.open(kind))
            if what.startswith("icmp"):
                made.sendto(echo_request(6 if six else 4, count), (HOST6 if six else HOST, 0))
            elif what.startswith("dns"):
                made.sendto(question(f"{MARKER.decode()}-{count}.example.test"), (RESOLVER6 if six else RESOLVER, 53))
            elif what == "resolver":
                made.sendto(question(f"{MARKER.decode()}-{count}.example.test"), (self.resolver, 53))
            else:
                made.sendto(MARKER + struct.pack("!d", time.monotonic()), (HOST6 if six else HOST, UDP_PORT))
        except OSError as exc:
            self.refused[f"{kind} {errno.errorcode.get(exc.errno or 0, '?')}"] += 1
            if what == "resolver" or what.startswith("udp"):  # an error queue must not outlive its reason
                stale = self.sockets.pop(kind, None)
                if stale is not None:
                    stale.close()

    def listen(self, until: float) -> None:
        while True:
            if not self.paused:  # one kind more often than the others: it is the clock of a row
                self.unanswered += 1
                self.send("udp4 unbound", 0)
            for kind, made in list(self.sockets.items()):
                self.take(kind, made)
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(0.02, left))

    def take(self, kind: str, made: socket.socket) -> None:
        if kind.startswith(("tcp", "dns-tcp")):
            with contextlib.suppress(OSError):
                made.getpeername()
                self.answered(kind)
                self.sockets.pop(kind, None)
                made.close()
            return
        try:
            while True:
                data = made.recv(4096)
                if kind.startswith("icmp") and (MARKER not in data or (data[20] if kind[4] == "4" else data[0]) not in (0, 129)):
                    continue
                self.answered(kind)
        except OSError:
            return

    def answered(self, kind: str) -> None:
        self.answers.setdefault(kind, []).append(time.monotonic())
        if not kind.startswith("resolver"):  # dnsmasq itself may say that it cannot ask
            self.unanswered = 0

    def every(self) -> list[str]:
        return list(self.kinds)

    def silence(self) -> int:
        """Probes in a row that nothing answered."""
        return self.unanswered

    def read(self, reset: bool = True) -> dict[str, Any]:
        result = {"sent": sum(self.sent.values()), "kinds": dict(self.sent), "refused": dict(self.refused), "answers": self.answers}
        if reset:
            self.sent, self.refused, self.answers = Counter(), Counter(), {}
        return result

    def hold(self, yes: bool) -> None:
        self.paused = yes


class Servers:
    """At the lab's internet (or inside the tunnel): UDP echo, TCP accept, DNS over UDP and TCP; every question is logged."""

    def __init__(self, echo: tuple[str, ...] = (), dns: tuple[str, ...] = (), table: dict[str, list[str]] | None = None) -> None:
        self.questions: list[tuple[str, str, str]] = []  # source, server, name
        self.table = dict(table or {})
        self.sockets: list[tuple[socket.socket, str, str]] = []
        for address in echo:
            self.add(address, socket.SOCK_DGRAM, UDP_PORT, "echo")
            self.add(address, socket.SOCK_STREAM, TCP_PORT, "accept")
        for address in dns:
            self.add(address, socket.SOCK_DGRAM, 53, "dns")
            self.add(address, socket.SOCK_STREAM, 53, "accept")

    def add(self, address: str, kind: int, port: int, role: str) -> None:
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_IP, 15, 1)  # IP_FREEBIND
        made.bind((address, port))
        if kind == socket.SOCK_STREAM:
            made.listen(64)
        made.setblocking(False)
        self.sockets.append((made, role, address))

    def work(self) -> None:
        import select

        by_number = {made.fileno(): (made, role, address) for made, role, address in self.sockets}
        poll = select.poll()
        for number in by_number:
            poll.register(number, select.POLLIN)
        while True:
            for number, _event in poll.poll():
                made, role, address = by_number[number]
                with contextlib.suppress(OSError):
                    if role == "accept":
                        made.accept()[0].close()
                        continue
                    data, source = made.recvfrom(4096)
                    if role == "echo":
                        made.sendto(data, source)
                    else:
                        made.sendto(self.reply(data, source[0], address), source)

    def reply(self, data: bytes, source: str, server: str) -> bytes:
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode())
            at += 1 + data[at]
        kind = int.from_bytes(data[at + 1 : at + 3], "big")
        name = ".".join(labels).lower()
        self.questions.append((source, server, name))
        found = self.table.get(name, [] if name.endswith("cluster.local") else ["203.0.113.10"])
        family = socket.AF_INET if kind == 1 else socket.AF_INET6
        answers = []
        for address in found:
            with contextlib.suppress(OSError):
                raw = socket.inet_pton(family, address)
                answers.append(b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 0, len(raw)) + raw)
        known = name in self.table or not name.endswith("cluster.local")
        head = data[:2] + struct.pack("!HHHHH", 0x8180 | (0 if known else 3), 1, len(answers), 0, 0)
        return head + data[12 : at + 5] + b"".join(answers)

    def set(self, name: str, addresses: list[str]) -> None:
        self.table[name] = addresses

    def asked(self, reset: bool = True) -> list[tuple[str, str, str]]:
        found = list(self.questions)
        if reset:
            self.questions.clear()
        return found
