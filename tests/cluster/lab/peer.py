# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The far side of the lab, one container: a WireGuard peer, and "the internet" that answers with the source it sees.

Both documentation ranges are local here: HTTP on 80 and UDP on 7 answer with the caller's address, 53 answers names and prints who
asked unless it was through the tunnel. What comes out of the tunnel is answered whatever its destination, and nothing is ever
passed on.

Environment: SERVER_KEY (base64), CLIENTS (public key=address,...), LAB_NETWORK (where the nodes are).
"""

from __future__ import annotations

import base64
import os
import select
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

sys.path.insert(0, "/standin")
import wireguard  # type: ignore[import-not-found]  # the packet lane's, copied into the image

ENDPOINT, RANGES = "198.51.100.10", ("198.51.100.0/24", "203.0.113.0/24")
#: Addresses that answer; the rest of the ranges is silent.
HOSTS, RESOLVER = ("203.0.113.80", "203.0.113.81", "198.51.100.11"), "203.0.113.53"


def run(*command: str) -> None:
    subprocess.run(command, check=True)


class Echo(BaseHTTPRequestHandler):
    """Answers with the source address, which tells the way that a request took."""

    def do_GET(self) -> None:
        body = f"{self.client_address[0]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """The counters of the sensors say more."""


class Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Callers that went away."""


def bound(kind: int, address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, port))
    if kind == socket.SOCK_STREAM:
        made.listen(128)
    return made


def read(question: bytes) -> tuple[str, int]:
    """The name that is asked for, and where the question ends: resolvers put an OPT record behind it."""
    labels, at = [], 12
    while question[at]:
        labels.append(question[at + 1 : at + 1 + question[at]].decode(errors="replace"))
        at += 1 + question[at]
    return ".".join(labels), at + 5


def named(question: bytes, end: int) -> bytes:
    """The answer: one address for every name; there is no IPv6."""
    head, asked = question[:2] + b"\x81\x80\0\1", question[12:end]
    if asked[-4:] != b"\0\1\0\1":
        return head + bytes(6) + asked
    return head + b"\0\1" + bytes(4) + asked + b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + socket.inet_aton(HOSTS[0])


def datagrams() -> None:
    """UDP echo that answers with the caller's address, and names."""
    servers = {bound(socket.SOCK_DGRAM, host, 7): "echo" for host in HOSTS}
    servers[bound(socket.SOCK_DGRAM, RESOLVER, 53)] = "dns"
    inside = clients().values()
    while True:
        for server in select.select(list(servers), [], [])[0]:
            try:
                data, caller = server.recvfrom(2048)
                if servers[server] == "echo":
                    server.sendto(caller[0].encode(), caller)
                    continue
                name, end = read(data)
                if caller[0] not in inside:
                    print("dns", caller[0], name, flush=True)
                server.sendto(named(data, end), caller)
            except (OSError, IndexError) as error:
                print("datagrams:", error, flush=True)


def names_by_tcp() -> None:
    server = bound(socket.SOCK_STREAM, RESOLVER, 53)
    while True:
        server.accept()[0].close()


def clients() -> dict[str, str]:
    """The tunnel's other ends: public key to address."""
    return dict(item.rsplit("=", 1) for item in os.environ["CLIENTS"].split(","))


def tunnel() -> None:
    # wireguard-go answers from the route's source address
    run("ip", "route", "replace", os.environ["LAB_NETWORK"], "dev", "eth0", "src", ENDPOINT)
    subprocess.Popen([wireguard.binary(), "-f", "wg0"], stdout=subprocess.DEVNULL)
    for _try in range(200):
        if os.path.exists("/var/run/wireguard/wg0.sock"):
            break
        time.sleep(0.05)
    lines = ["set=1", f"private_key={base64.b64decode(os.environ['SERVER_KEY']).hex()}", "listen_port=51820"]
    for key, address in clients().items():
        lines += [f"public_key={base64.b64decode(key).hex()}", f"allowed_ip={address}/32"]
    wireguard.configure("wg0", "\n".join(lines))
    run("ip", "address", "add", "10.2.0.1/32", "dev", "wg0")
    run("ip", "link", "set", "wg0", "mtu", "1320", "up")
    for address in clients().values():
        run("ip", "route", "add", f"{address}/32", "dev", "wg0")
    run("ip", "rule", "add", "iif", "wg0", "lookup", "100")
    run("ip", "route", "add", "local", "default", "dev", "lo", "table", "100")


def main() -> None:
    run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    run("ip", "address", "add", f"{ENDPOINT}/32", "dev", "lo")
    for network in RANGES:
        run("ip", "route", "add", "local", network, "dev", "lo")
    tunnel()
    threading.Thread(target=datagrams, daemon=True).start()
    threading.Thread(target=names_by_tcp, daemon=True).start()
    for host in HOSTS[1:]:
        threading.Thread(target=Quiet((host, 80), Echo).serve_forever, daemon=True).start()
    print("ready", flush=True)
    Quiet((HOSTS[0], 80), Echo).serve_forever()


if __name__ == "__main__":
    main()
