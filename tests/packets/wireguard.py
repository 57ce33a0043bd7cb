# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""WireGuard in userspace: finding wireguard-go, keys, and its configuration socket."""

from __future__ import annotations

import os
import shutil
import socket
import time


def binary() -> str:
    """Path of wireguard-go: NETGUARD_WIREGUARD (set by `run.py`, which builds it), else in PATH. Raises RuntimeError."""
    for found in (os.environ.get("NETGUARD_WIREGUARD", ""), shutil.which("wireguard-go") or ""):
        if found and os.access(found, os.X_OK):
            return found
    raise RuntimeError("wireguard-go is needed: name it in NETGUARD_WIREGUARD, or run tests/packets/run.py, which builds it")


def private_key() -> bytes:
    key = bytearray(os.urandom(32))
    key[0] &= 248
    key[31] = (key[31] & 127) | 64
    return bytes(key)


def public_key(private: bytes) -> bytes:
    """X25519 with the base point (RFC 7748, section 5: the Montgomery ladder)."""
    p, k = 2**255 - 19, int.from_bytes(private, "little")
    x1, x2, z2, x3, z3, swap = 9, 1, 0, 9, 1, 0
    for bit in reversed(range(255)):
        now = (k >> bit) & 1
        if swap ^ now:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = now
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a % p, b * b % p, d * a % p, c * b % p
        e = aa - bb
        x3, z3 = pow(da + cb, 2, p), x1 * pow(da - cb, 2, p) % p
        x2, z2 = aa * bb % p, e * (aa + 121665 * e) % p
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, p - 2, p) % p).to_bytes(32, "little")


def configure(interface: str, text: str) -> str:
    """Sends `set=1` with these lines (or `get=1`) to the interface's socket. Raises RuntimeError when it is refused."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(5)
        end = time.monotonic() + 10
        while True:
            try:
                channel.connect(f"/var/run/wireguard/{interface}.sock")
                break
            except ConnectionRefusedError:  # it is there a moment before anybody listens, and on a busy machine a longer one
                if time.monotonic() > end:
                    raise
                time.sleep(0.005)
        channel.sendall(text.encode() + b"\n\n")
        answer = b""
        while b"\n\n" not in answer:
            more = channel.recv(65536)
            if not more:
                break
            answer += more
    if b"errno=0" not in answer:
        raise RuntimeError(f"wireguard {interface}: {answer.decode()}")
    return answer.decode()
