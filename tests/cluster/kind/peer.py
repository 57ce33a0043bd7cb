# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The far side of the lab, one container: a WireGuard peer, and "the internet" that answers with the source it sees.

Addresses: the endpoint 198.51.100.10, the internet 203.0.113.80 (HTTP on 80 and UDP on 7 answer with the caller's address).
Environment: SERVER_KEY (base64), CLIENT_PUBLIC (base64), CLIENT_ADDRESS, LAB_NETWORK (where the nodes are).
"""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

sys.path.insert(0, "/standin")
import wireguard  # type: ignore[import-not-found]  # the packet lane's, copied into the image

ENDPOINT, INTERNET = "198.51.100.10", "203.0.113.80"


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
        print(self.client_address[0], format % args, flush=True)


def udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as echo:
        echo.bind((INTERNET, 7))
        while True:
            _data, caller = echo.recvfrom(2048)
            print(caller[0], "udp", flush=True)
            echo.sendto(caller[0].encode(), caller)


def main() -> None:
    for address in (ENDPOINT, INTERNET):
        run("ip", "address", "add", f"{address}/32", "dev", "lo")
    # wireguard-go answers from the route's source address
    run("ip", "route", "replace", os.environ["LAB_NETWORK"], "dev", "eth0", "src", ENDPOINT)
    subprocess.Popen([wireguard.binary(), "-f", "wg0"], stdout=subprocess.DEVNULL)
    for _try in range(100):
        if os.path.exists("/var/run/wireguard/wg0.sock"):
            break
        time.sleep(0.05)
    key, peer = (base64.b64decode(os.environ[name]).hex() for name in ("SERVER_KEY", "CLIENT_PUBLIC"))
    client = os.environ["CLIENT_ADDRESS"]
    wireguard.configure("wg0", f"set=1\nprivate_key={key}\nlisten_port=51820\npublic_key={peer}\nallowed_ip={client}/32")
    run("ip", "address", "add", "10.2.0.1/32", "dev", "wg0")
    run("ip", "link", "set", "wg0", "mtu", "1320", "up")
    run("ip", "route", "add", f"{client}/32", "dev", "wg0")
    threading.Thread(target=udp, daemon=True).start()
    ThreadingHTTPServer((INTERNET, 80), Echo).serve_forever()


if __name__ == "__main__":
    main()
