# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the kernel itself counts beside the captures: packets at a device's netdev hook (nft), new flows (conntrack events).

Neither can be late or lose a packet for want of processor time, and neither shares code with the captures.
"""

from __future__ import annotations

import ctypes
import ipaddress
import json
import re
import subprocess
import time
from collections import Counter

from .lab import INTERNET, VPN

PATIENCE = 30.0


def quoted(nets: list[str]) -> str:
    return "{ " + ", ".join(nets) + " }"


class Counters:
    """Packets to the internet's addresses at one device, but the tunnel's own; `rule` as for `sensors.Sensor`."""

    def __init__(self, interface: str, rule: str, endpoints: tuple[tuple[int, int], ...]) -> None:
        self.table = f"sensor_{interface}".replace("-", "_")
        v4 = quoted([str(net) for net in INTERNET if net.version == 4])
        v6 = quoted([str(net) for net in INTERNET if net.version == 6])
        lines = []
        if rule != "pod":  # the node's own resets: see `Sensor.judge`
            lines.append("tcp flags & rst == rst return")
            lines += [f"ip daddr {VPN} {'udp' if protocol == 17 else 'tcp'} dport {port} return" for protocol, port in endpoints]
            lines.append(f"ip daddr {VPN} icmp type destination-unreachable return")
        if rule == "internet":
            lines.append(f"ip saddr {VPN} return")
        lines += [f"ip daddr {v4} counter name outside", f"ip6 daddr {v6} counter name outside"]
        hook = "egress" if rule == "uplink" else "ingress"
        body = "\n".join(lines)
        self.nft(
            f"table netdev {self.table}\ndelete table netdev {self.table}\ntable netdev {self.table} {{\ncounter outside {{ }}\n"
            f'chain c {{\ntype filter hook {hook} device "{interface}" priority -400;\n{body}\n}}\n}}'
        )

    @staticmethod
    def nft(text: str) -> None:
        done = subprocess.run(["nft", "-f", "-"], input=text, text=True, capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"nft: {done.stderr}\n{text}")

    def read(self, reset: bool = True) -> int:
        """Packets since the last reset; 0 when the device went away with its pod."""
        verb = "reset" if reset else "list"
        done = subprocess.run(
            ["nft", "-j", verb, "counters", "table", "netdev", self.table], text=True, capture_output=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"nft: {done.stderr}")
        return sum(item["counter"]["packets"] for item in json.loads(done.stdout)["nftables"] if "counter" in item)


def outside(address: str) -> bool:
    return any(ipaddress.ip_address(address) in net for net in INTERNET if (net.version == 6) == (":" in address))


class Connections:
    """New flows of a node by `conntrack -E`. A flow to the internet's addresses is outside, unless it is the tunnel's own."""

    def __init__(self, endpoints: tuple[tuple[int, int], ...]) -> None:
        self.own = {(VPN, {17: "udp", 6: "tcp"}[protocol], str(port)) for protocol, port in endpoints}
        self.outside: Counter[str] = Counter()
        self.lost = False
        self.marks: set[int] = set()
        self.last = 0
        self.process = subprocess.Popen(
            ["conntrack", "-E", "-e", "NEW", "--buffer-size", str(1 << 23)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
            preexec_fn=lambda: ctypes.CDLL(None).prctl(1, 9) and None,  # ends with its parent
        )

    def work(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if "ENOBUFS" in line:
                self.lost = True
            flow = re.search(r"\[NEW\] +(\S+) .*?src=(\S+) dst=(\S+)(?: sport=(\d+) dport=(\d+))?", line)
            if flow is None:
                continue
            protocol, source, target, sport, dport = flow.groups()
            if target == "192.0.2.253":
                self.marks.add(int(sport))
            elif (target, protocol, dport) not in self.own and outside(target) and not outside(source):  # (N1 comes from there)
                self.outside[f"{protocol} {source}:{sport or ''} > {target}:{dport or ''}"] += 1

    def read(self, reset: bool = True) -> tuple[int, list[tuple[str, int]]]:
        """Flows, and examples. A flow made here, which must turn up among the events, shows that all earlier ones are counted."""
        self.last += 1
        mark = 1024 + self.last % 60000
        self.marks.discard(mark)
        ends = ("-s", "192.0.2.254", "-d", "192.0.2.253", "-p", "udp", "--sport", str(mark), "--dport", "9")
        deadline = time.monotonic() + PATIENCE
        while mark not in self.marks:  # again, since the first one can come before `conntrack -E` listens
            subprocess.run(["conntrack", "-I", *ends, "-t", "1"], capture_output=True, check=False)
            until = time.monotonic() + 1
            while mark not in self.marks and time.monotonic() < until:
                time.sleep(0.005)
            if mark not in self.marks:
                subprocess.run(["conntrack", "-D", *ends], capture_output=True, check=False)
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise RuntimeError("conntrack -E tells nothing any more")
        if self.lost:
            raise RuntimeError("conntrack -E lost events: nothing is proven")
        result = (sum(self.outside.values()), self.outside.most_common(5))
        if reset:
            self.outside = Counter()
        return result
