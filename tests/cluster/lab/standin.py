# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stand-in for an app that others declare connections to: answers on each of its ports with its name, and asks others when told.

`serve NAME PORT...`, each port as `8080/tcp` or `9094/udp`, runs until it is stopped. `ask [SOURCE]` reads JSON from its input,
{"patience": seconds, "targets": [[key, protocol, host, port], ...]}; protocols are tcp, udp, icmp and dns (a question by UDP). It
asks all of them at once and prints {key: what was said} for those that answered: the other side's name, or nothing where it says
nothing by itself. A target that is missing there was silent; an answer that begins with `!` is an error, such as a refusal.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import struct
import sys
import threading
import time

#: The A record of the API server's Service, as a DNS message: every cluster has it.
QUESTION = (
    b"\x47\x11\x01\0\0\1\0\0\0\0\0\0"
    + b"".join(bytes([len(part)]) + part for part in b"kubernetes.default.svc.cluster.local".split(b"."))
) + b"\0\0\1\0\1"
#: Between two questions to the same target by what is not TCP.
AGAIN = 0.7
#: How long a side that took the connection may take to say its name; servers of the cluster's own never do.
NAMED = 1.0


def bound(protocol: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("", port))
    made.setblocking(False)
    if protocol == "tcp":
        made.listen(256)
    return made


def serve(name: str, ports: list[str]) -> None:
    signal.signal(signal.SIGTERM, lambda *_signal: os._exit(0))
    said = name.encode()
    waiting = selectors.DefaultSelector()
    for text in ports:
        number, _slash, protocol = text.partition("/")
        waiting.register(bound(protocol, int(number)), selectors.EVENT_READ, protocol)
    while True:
        for key, _events in waiting.select():
            server = key.fileobj
            with contextlib.suppress(OSError):
                if key.data == "udp":
                    server.sendto(said, server.recvfrom(2048)[1])  # type: ignore[union-attr]
                    continue
                caller = server.accept()[0]  # type: ignore[union-attr]
                with caller:
                    caller.sendall(said + b"\n")


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


class Asker:
    """All targets at once, in one thread: what is closed is mostly silent, and silence takes its time."""

    def __init__(self, source: str, patience: float) -> None:
        self.source = source
        self.patience = patience
        self.answers: dict[str, str] = {}
        self.waiting = selectors.DefaultSelector()
        self.again: list[tuple[str, socket.socket, bytes]] = []
        self.pings: dict[tuple[str, int], str] = {}
        self.connected: dict[str, float] = {}
        self.marker = os.getpid() & 0xFFFF
        self.pinger: socket.socket | None = None

    def open(self, kind: int, protocol: int = 0) -> socket.socket:
        made = socket.socket(socket.AF_INET, kind, protocol)
        made.setblocking(False)
        if self.source:
            made.bind((self.source, 0))
        return made

    def begin(self, key: str, protocol: str, address: str, port: int) -> None:
        if protocol == "icmp":
            self.ping(key, address)
            return
        made = self.open(socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
        code = made.connect_ex((address, port))
        if protocol == "tcp":
            if code not in (0, 115):  # EINPROGRESS
                self.answers[key] = f"!{os.strerror(code)}"
                return
            self.waiting.register(made, selectors.EVENT_WRITE, (key, protocol))
        else:
            self.again.append((key, made, QUESTION if protocol == "dns" else b"?"))
            self.waiting.register(made, selectors.EVENT_READ, (key, protocol))

    def ping(self, key: str, address: str) -> None:
        if self.pinger is None:
            self.pinger = self.open(socket.SOCK_RAW, socket.IPPROTO_ICMP)
            self.pinger.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            self.waiting.register(self.pinger, selectors.EVENT_READ, ("", "icmp"))
        self.pings[address, len(self.pings) + 1] = key

    def repeat(self) -> None:
        for key, made, data in self.again:
            if key not in self.answers:
                with contextlib.suppress(OSError):
                    made.send(data)
        for (address, number), key in self.pings.items():
            if key not in self.answers and self.pinger is not None:
                body = struct.pack("!HH", self.marker, number) + b"netguard"
                echo = b"\x08\0" + struct.pack("!H", checksum(b"\x08\0\0\0" + body)) + body
                with contextlib.suppress(OSError):
                    self.pinger.sendto(echo, (address, 0))

    def take(self, key: str, protocol: str, made: socket.socket) -> None:
        """What a socket has to say. A refused datagram is said by the next call, like any other error."""
        try:
            if protocol == "icmp":
                self.pong(made)
            elif protocol == "tcp" and key not in self.connected:
                code = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    raise OSError(code, os.strerror(code))
                self.connected[key] = time.monotonic()
                self.waiting.modify(made, selectors.EVENT_READ, (key, protocol))
            else:
                data = made.recv(2048)
                self.end(key, made, "" if protocol == "dns" else data.decode(errors="replace").strip())
        except BlockingIOError:
            return
        except OSError as error:
            self.end(key, made, "" if key in self.connected else f"!{error.strerror}")

    def pong(self, made: socket.socket) -> None:
        while True:
            data, caller = made.recvfrom(2048)
            body = data[(data[0] & 15) * 4 :]
            kind, marker, number = body[0], *struct.unpack("!HH", body[4:8])
            key = self.pings.get((caller[0], number))
            if kind == 0 and marker == self.marker and key is not None:
                self.answers[key] = ""

    def end(self, key: str, made: socket.socket, said: str) -> None:
        self.answers[key] = said
        self.waiting.unregister(made)
        made.close()

    def quiet(self) -> None:
        """A connection that was taken counts, whether or not the other side says its name in time."""
        now = time.monotonic()
        for key, since in self.connected.items():
            if now - since > NAMED:
                self.answers.setdefault(key, "")

    def run(self, targets: list[tuple[str, str, str, int]]) -> dict[str, str]:
        for key, protocol, address, port in targets:
            self.begin(key, protocol, address, port)
        wanted = {key for key, _protocol, _address, _port in targets}
        until, again = time.monotonic() + self.patience, 0.0
        while time.monotonic() < until and wanted - self.answers.keys():
            if time.monotonic() >= again:
                self.repeat()
                again = time.monotonic() + AGAIN
            for ready, _events in self.waiting.select(0.1):
                self.take(*ready.data, ready.fileobj)  # type: ignore[call-arg,arg-type]
            self.quiet()
        for key in self.connected:
            self.answers.setdefault(key, "")
        return self.answers


def resolved(targets: list[list[object]], answers: dict[str, str]) -> list[tuple[str, str, str, int]]:
    """Targets by address; a name that nobody knows is an answer already."""
    found: list[tuple[str, str, str, int]] = []

    def look_up(key: str, protocol: str, host: str, port: int) -> None:
        try:
            found.append((key, protocol, str(socket.getaddrinfo(host, port, socket.AF_INET)[0][4][0]), port))
        except OSError as error:
            answers[key] = f"!{host}: {error}"

    threads = [threading.Thread(target=look_up, args=target) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def ask(source: str) -> None:
    asked = json.load(sys.stdin)
    answers: dict[str, str] = {}
    names = [target for target in asked["targets"] if not str(target[2]).replace(".", "").isdigit()]
    addresses = [tuple(target) for target in asked["targets"] if target not in names]
    answers |= Asker(source, float(asked["patience"])).run([*addresses, *resolved(names, answers)])
    json.dump(answers, sys.stdout)


def main() -> None:
    if sys.argv[1] == "serve":
        serve(sys.argv[2], sys.argv[3:])
    else:
        ask(sys.argv[2] if len(sys.argv) > 2 else "")


if __name__ == "__main__":
    main()
