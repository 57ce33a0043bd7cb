# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Counters outside of every pod: nothing in a pod can tell them what to see.

| sensor | where | counts |
|---|---|---|
| S1 uplink | each node's eth0, netdev egress | what leaves a node for the internet, but the tunnel itself |
| S2 clear | the lab's internet, eth0 | what arrives there by another way than the tunnel |
| S3 host | the machine, forward | what tries to leave the kind bridge (the host guard, which drops it) |
| S4 pod | each node, prerouting, cali* | what leaves any pod for the internet, before any policy |
| S5 names | the lab's resolvers | the applications' names at the cluster's upstream, or asked from outside of the tunnel |

S6, the nodes' connection tracking, is looked at by the rows that need it. An unguarded application talks to an internet address of
its own all the time: every sensor counts these packets apart, so that a row knows its sensors to be awake.
"""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..cluster import kind_cluster
from .field import FieldError, node, nodes, run, wait_for

CONTROL = kind_cluster.UNGUARDED
#: The lab's internet, and a network that no node has a route to: what is sent there would leave through the home's own router.
RANGES = ", ".join((*kind_cluster.RANGES, "192.0.2.0/24"))
#: The first eight bytes of the applications' marker: in clear towards the VPN's port they are a leak too.
MARKED = "@th,64,64 0x4e45544755415244"
COUNTERS = "".join(f"  counter {name} {{ }}\n" for name in ("control", "leak", "six", "plain", "tunnel", "vpn"))


def _judge(match: str) -> str:
    """The rules of one sensor, for packets that `match`."""
    endpoint = f"ip daddr {kind_cluster.ENDPOINT} udp dport 51820"
    return f"""
      {match} ip daddr {CONTROL} counter name control return
      {match} {endpoint} {MARKED} counter name plain return
      {match} {endpoint} counter name tunnel return
      {match} ip daddr {kind_cluster.ENDPOINT} icmp type destination-unreachable counter name tunnel return
      {match} ip daddr {{ {RANGES} }} counter name leak
      {match} icmpv6 type echo-request counter name six
      {match} meta l4proto != ipv6-icmp ip6 daddr != ff00::/8 counter name six
    """


def _table(family: str, name: str, chain: str) -> str:
    return f"table {family} {name}\ndelete table {family} {name}\ntable {family} {name} {{\n{COUNTERS}\n{chain}\n}}\n"


PODS, UPLINK, FAR_SIDE = _judge('iifname "cali*"'), _judge(""), _judge("iifname eth0")
PREROUTING = "type filter hook prerouting priority -310;"
NODE = _table("inet", "netguard_s4", f"chain c {{ {PREROUTING} {PODS} }}") + _table(
    "netdev", "netguard_s1", f"chain c {{ type filter hook egress device eth0 priority 0; {UPLINK} }}"
)
FAR = _table("inet", "netguard_s2", f"chain c {{ {PREROUTING} iifname wg0 counter name vpn return; {FAR_SIDE} }}")

#: A node as homes with IPv6 have it: it passes on what pods send, to a router on the kind bridge that is not there. Docker turns
#: IPv6 off in its containers, and a kernel drops it then before any counter.
SIX = """
for file in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 0 >"$file"; done
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
ip -6 neighbour replace fe80::53 lladdr 02:00:00:00:00:53 dev eth0 nud permanent
ip -6 route replace 2001:db8::/32 via fe80::53 dev eth0
"""


@dataclass
class Seen:
    """Counts by sensor; `control` of the unguarded application, `vpn` what came out of the tunnel."""

    leaks: dict[str, int] = field(default_factory=dict)
    control: dict[str, int] = field(default_factory=dict)
    vpn: int = 0
    questions: int = 0  # of clients to a gateway that is gone, by a node's default route: they carry nothing

    def since(self, before: Seen) -> Seen:
        return Seen(
            {name: count - before.leaks.get(name, 0) for name, count in self.leaks.items()},
            {name: count - before.control.get(name, 0) for name, count in self.control.items()},
            self.vpn - before.vpn,
            self.questions - before.questions,
        )


def arm() -> None:
    """Loads every sensor; one that is loaded begins at zero again."""
    for name in nodes():
        arm_node(name)
    run("docker", "exec", "-i", kind_cluster.FAR, "nft", "-f", "-", text=FAR)


def armed() -> None:
    """Loads the sensors where they are not loaded yet; what they have counted stays."""
    try:
        look()
    except (FieldError, KeyError):
        arm()


def arm_node(name: str) -> None:
    node(name, f"nft -f - <<'RULES'\n{NODE}\nRULES\n{SIX}")


def _counters(listed: str) -> dict[str, dict[str, int]]:
    """Table to counter to packets."""
    found: dict[str, dict[str, int]] = {}
    for item in json.loads(listed)["nftables"]:
        counter: dict[str, Any] = item.get("counter", {})
        if counter:
            found.setdefault(str(counter["table"]), {})[str(counter["name"])] = int(counter["packets"])
    return found


def _listed(container: str) -> dict[str, dict[str, int]]:
    return _counters(run("docker", "exec", container, "nft", "--json", "list", "counters"))


#: The clients' two questions, as `kind_cluster.QUESTIONS` says for the host's sensor.
ASKED = (
    "(udp dst port 48879 and udp[28:2] = 0x0800 and udp[30] = 0x45 and udp[32:2] <= 128 and udp[39] = 1"
    " and (udp[50] = 0 or udp[50] = 8) and not (udp[58:4] = 0x4e455447 and udp[62:4] = 0x55415244))"
    " or (udp dst port 48880 and udp[20:4] = 0x07676174 and udp[24:4] = 0x65776179)"
)


class Capture:
    """What leaves the nodes by another way than the tunnel, packet by packet: it tells what the counters counted."""

    def __init__(self, file: Path) -> None:
        link = json.loads(run("ip", "--json", "link", "show", "dev", kind_cluster.BRIDGE))[0]["address"]
        allowed = f"{ASKED} or host {CONTROL} or (src host {kind_cluster.ENDPOINT} and udp src port 51820)"
        away = f"ether dst {link} and ip and not dst net {kind_cluster.SUBNET} and not ({allowed})"
        lab = f"dst net {kind_cluster.RANGES[1]} and not dst host {CONTROL}"
        server = f"dst net {kind_cluster.RANGES[0]} and not udp port 51820 and not icmp"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        self.file = file
        filters = f"({away}) or ({lab}) or ({server})"
        # tcpdump would give root away, and with it the right to write here
        command = ["tcpdump", "-Z", "root", "--immediate-mode", "-Uni", kind_cluster.BRIDGE, "-w", str(file), filters]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for("the capture", lambda: file.exists() and file.stat().st_size > 0, 10)  # its header is written once it listens

    def end(self) -> list[str]:
        """Stops it; a line for each packet, which begins with its time in seconds. The file stays until `drop`."""
        self.process.terminate()
        self.process.wait()
        command = ["tcpdump", "-ttnnr", str(self.file)]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout.splitlines()

    def drop(self) -> None:
        self.file.unlink(missing_ok=True)


def span(lines: list[str]) -> float:
    """Seconds between the first and the last packet of a capture."""
    times = [float(line.split()[0]) for line in (lines[:1] + lines[-1:])]
    return times[-1] - times[0] if times else 0.0


#: Sends what the host's sensor must tell apart to an address that leads out of the machine: the two questions, then what is none.
LOOKALIKES = """
import socket, struct
def inside(protocol, content, length=0):
    length = length or 20 + len(content)
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, length, 0, 0, 64, protocol, 0, bytes([172, 28, 0, 9]), bytes([172, 28, 0, 1]))
    return struct.pack("!II", 0x08000000, 0x4E4700) + b"\\2N" + bytes(10) + struct.pack("!H", 0x0800) + head + content
def dns(name):
    labels = b"".join(bytes([len(label)]) + label for label in name)
    return bytes([0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]) + labels + bytes([0, 0, 1, 0, 1])
echo = struct.pack("!BBHHH", 8, 0, 0, 7, 1)
sent = [
    (48879, inside(1, echo + bytes(16))),
    (48880, dns([b"gateway", b"netguard"])),
    (48879, inside(1, echo + b"NETGUARD-PROBE" + bytes(8))),
    (48879, inside(1, echo + bytes(200))),
    (48879, inside(1, struct.pack("!BBHHH", 3, 0, 0, 7, 1) + bytes(16))),
    (48879, inside(17, struct.pack("!HHHH", 7, 7, 22, 0) + b"NETGUARD-PROBE")),
    (48879, inside(6, struct.pack("!HHIIBBHHH", 7, 80, 0, 0, 0x50, 2, 512, 0, 0))),
    (48879, b"NETGUARD-PROBE" + bytes(60)),
    (48880, dns([b"netguard-probe-1", b"lab", b"test"])),
    (7, b"NETGUARD-PROBE"),
]
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
    for port, content in sent:
        made.sendto(content, ("192.0.2.7", port))
print(len(sent) - 2)
"""


def tells_apart() -> None:
    """The host's sensor takes the two questions for questions, and nothing that resembles them. Called before any client is there.

    Raises FieldError.
    """
    leaks, questions = kind_cluster.leaked()
    others = int(run("docker", "exec", "-i", kind_cluster.FAR, "python3", "-", text=LOOKALIKES))
    more, asked = (now - before for now, before in zip(kind_cluster.leaked(), (leaks, questions), strict=True))
    if asked != 2 or more < others:
        raise FieldError(f"2 questions and {others} packets that resemble them: {asked} taken for questions, {more} for leaks")


def look(asleep: tuple[str, ...] = ()) -> Seen:
    """What every sensor has counted; `asleep`: nodes that stand still and cannot be asked."""
    seen = Seen()
    awake = [name for name in nodes() if name not in asleep]
    with ThreadPoolExecutor() as pool:
        counted = {name: pool.submit(_listed, name) for name in (*awake, kind_cluster.FAR)}
        asked = {name: pool.submit(run, "docker", "logs", name) for name in (kind_cluster.DNS, kind_cluster.FAR)}
    for name in awake:
        for sensor, table in (("S1 uplink", "netguard_s1"), ("S4 pod", "netguard_s4")):
            _add(seen, f"{sensor} {name}", counted[name].result().get(table, {}))
    far = counted[kind_cluster.FAR].result().get("netguard_s2", {})
    _add(seen, "S2 clear", far)
    seen.vpn = far["vpn"]
    seen.leaks["S3 host"], seen.questions = kind_cluster.leaked()
    upstream = asked[kind_cluster.DNS].result().splitlines()
    seen.leaks["S5 names upstream"] = sum("query" in line and "netguard-probe" in line for line in upstream)
    # the internet's resolver says who asked it unless it was through the tunnel
    seen.leaks["S5 names in clear"] = sum(line.startswith("dns ") for line in asked[kind_cluster.FAR].result().splitlines())
    return seen


def _add(seen: Seen, name: str, counters: dict[str, int]) -> None:
    if not counters:
        raise FieldError(f"sensor {name} is not loaded")
    seen.leaks[name] = counters["leak"] + counters["six"] + counters["plain"]
    seen.control[name] = counters["control"]


def judged() -> dict[str, int]:
    """By sensor and kind of packet, over all nodes: what was counted since `arm`. For the positive control."""
    total = {f"{sensor} {kind}": 0 for sensor in ("s1", "s4") for kind in ("leak", "six", "plain")}
    for name in nodes():
        for table, counters in _listed(name).items():
            for kind in ("leak", "six", "plain"):
                key = f"{table.removeprefix('netguard_')} {kind}"
                if key in total:
                    total[key] += counters.get(kind, 0)
    return total
