# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An application in a pod that never stops talking: from its first instruction on, by every protocol, bound to eth0 and not.

It also answers on a web port, and asks another app's web port. What it sent and what came back is in /tmp/state.json, with times
of the machine's clock, which all pods of the lab share.

Environment: WEB (port), TARGET (the internet's host), NEIGHBOUR (URL of another app, may be empty), PROBES (kinds, comma between;
unset: all), PAUSE (seconds between turns).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import struct
import threading
import time
import urllib.request
from collections import Counter, deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TARGET = os.environ.get("TARGET", "203.0.113.80")
ENDPOINT, PUBLIC_RESOLVER, TARGET6 = "198.51.100.10", "203.0.113.53", "2001:db8::80"
MARKER, AWAY = b"NETGUARD-PROBE", "192.0.2.7"
CLOCK = "udp unbound"
KINDS = (
    *("udp eth0", "udp source", "icmp unbound", "icmp eth0", "tcp unbound", "tcp eth0"),
    *("dns-udp unbound", "dns-udp eth0", "dns-tcp unbound", "dns-tcp eth0", "resolver unbound", "endpoint eth0"),
    *("udp6 unbound", "udp6 eth0", "icmp6 unbound", "icmp6 eth0"),
    # an address that no node has a route to: it would leave through the home's own router
    *("away unbound", "away eth0"),
)


def resolver() -> str:
    with contextlib.suppress(OSError), open("/etc/resolv.conf") as lines:
        for line in lines:
            if line.startswith("nameserver"):
                return line.split()[1]
    return PUBLIC_RESOLVER


def own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made, contextlib.suppress(OSError):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0\0")
        made.connect((TARGET, 9))
        return str(made.getsockname()[0])
    return os.environ.get("POD_IP", "0.0.0.0")


def question(name: str) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return b"\x47\x11\x01\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1"


class Prober:
    def __init__(self) -> None:
        self.begun = time.time()
        self.sent: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.last: dict[str, float] = {}
        self.times: deque[float] = deque(maxlen=9000)
        self.web: Counter[str] = Counter()
        self.web_failures: deque[tuple[float, float]] = deque(maxlen=400)
        self.web_last = 0.0
        self.sockets: dict[str, socket.socket] = {}
        self.source = ""
        self.count = 0

    def where(self, what: str) -> tuple[str, int]:
        if what.startswith("dns"):
            return PUBLIC_RESOLVER, 53
        if what == "resolver":
            return resolver(), 53
        if what == "away":
            return AWAY, 7
        if what == "endpoint":
            return ENDPOINT, 51820
        return (TARGET6 if what.endswith("6") else TARGET), 80 if what.startswith("tcp") else 7

    def open(self, kind: str) -> socket.socket:
        what, how = kind.split()
        family = socket.AF_INET6 if what.endswith("6") else socket.AF_INET
        if what.startswith("icmp"):
            made = socket.socket(family, socket.SOCK_DGRAM, 58 if family == socket.AF_INET6 else 1)
        else:
            made = socket.socket(family, socket.SOCK_STREAM if "tcp" in what else socket.SOCK_DGRAM)
        made.setblocking(False)
        if how == "eth0":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0\0")
        elif how == "source":
            self.source = self.source or own_address()
            made.bind((self.source, 0))
        return made

    def send(self, kind: str) -> None:
        what = kind.split()[0]
        self.count += 1
        self.sent[kind] += 1
        try:
            if "tcp" in what:
                old = self.sockets.pop(kind, None)
                if old is not None:
                    old.close()
                made = self.sockets[kind] = self.open(kind)
                made.connect_ex(self.where(what))
                return
            made = self.sockets.get(kind) or self.sockets.setdefault(kind, self.open(kind))
            data = MARKER + struct.pack("!d", time.time())
            if what.startswith("icmp"):
                data = struct.pack("!BBHHH", 128 if what.endswith("6") else 8, 0, 0, 0, self.count & 0xFFFF) + data
            elif what in ("resolver", "dns-udp"):
                data = question(f"netguard-probe-{self.count}.lab.test")
            made.sendto(data, self.where(what))
        except OSError as error:
            self.refused[f"{kind} {error.errno}"] += 1
            stale = self.sockets.pop(kind, None)
            if stale is not None:
                stale.close()

    def answer(self, kind: str) -> None:
        now = time.time()
        self.answered[kind] += 1
        self.last[kind] = now
        if kind == CLOCK:
            self.times.append(now)

    def take(self) -> None:
        for kind, made in list(self.sockets.items()):
            try:
                if "tcp" in kind:
                    made.getpeername()
                    self.answer(kind)
                    self.sockets.pop(kind).close()
                    continue
                while made.recv(2048):
                    self.answer(kind)
            except OSError:
                continue

    def work(self) -> None:
        """At each turn the clock's datagram, and two of the other kinds in turn."""
        position, chosen, pause = 0, os.environ.get("PROBES", ""), float(os.environ.get("PAUSE", "0.01"))
        kinds = [kind for kind in chosen.split(",") if kind] if chosen else list(KINDS)
        while True:
            self.send(CLOCK)
            for _one in range(2):
                self.send(kinds[position % len(kinds)])
                position += 1
            time.sleep(pause)
            self.take()

    def ask(self, url: str) -> None:
        """The neighbour's web page, a few times a second: east-west traffic of the cluster. Keeps when each question without an
        answer began and ended, and when the last one began that has ended."""
        while True:
            begun = time.time()
            try:
                # a lost SYN is sent again after one second and after three
                with urllib.request.urlopen(url, timeout=5) as answer:
                    answer.read()
                self.web["ok"] += 1
            except (OSError, http.client.HTTPException):  # an answer that was cut off in the middle is no OSError
                self.web["failed"] += 1
                self.web_failures.append((begun, time.time()))
            self.web_last = begun
            time.sleep(0.3)

    def state(self) -> dict[str, object]:
        return {
            "now": time.time(),
            "begun": self.begun,
            "sent": dict(self.sent),
            "refused": dict(self.refused),
            "answered": dict(self.answered),
            "last": dict(self.last),
            "times": list(self.times),
            "web": dict(self.web),
            "web_failures": list(self.web_failures),
            "web_last": self.web_last,
        }

    def keep(self) -> None:
        while True:
            time.sleep(0.3)
            with contextlib.suppress(OSError, RuntimeError):
                with open("/tmp/state.part", "w") as file:
                    json.dump(self.state(), file)
                os.replace("/tmp/state.part", "/tmp/state.json")


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"ok\n")

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: the kubelet asks every second."""


def main() -> None:
    prober = Prober()
    threading.Thread(target=prober.work, daemon=True).start()
    threading.Thread(target=prober.keep, daemon=True).start()
    if os.environ.get("NEIGHBOUR"):
        threading.Thread(target=prober.ask, args=(os.environ["NEIGHBOUR"],), daemon=True).start()
    print("talking to", TARGET, flush=True)
    ThreadingHTTPServer(("", int(os.environ.get("WEB", "8080"))), Page).serve_forever()


if __name__ == "__main__":
    main()
