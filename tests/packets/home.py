# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab inhabited: servers on the internet, a VPN, a gateway, clients, an application that never stops talking, sensors."""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from ansible_collections.homelab.netguard.plugins.module_utils._manifests.gateway_pod import COMMAND
from ansible_collections.homelab.netguard.plugins.module_utils._overlay import settings

from . import frames, wireguard
from .children import Child
from .kernel import Connections
from .lab import (
    DNS_VIP,
    GATEWAY_VIP,
    HOST,
    HOST6,
    NODES,
    PATIENCE,
    PORT,
    RESOLVER,
    RESOLVER6,
    TUNNEL_RESOLVER,
    VPN,
    Lab,
    Pod,
    wait_for,
)
from .probes import TCP_PORT, Prober, Servers
from .sensors import MARKER, Sensor

CLIENTS = "netguard-clients-proton.media.svc.cluster.local"
GATEWAY_NAME = "netguard-gateway-proton-pods.vpn.svc.cluster.local"
WG_PORT = 51820
INSIDE = ip_network("203.0.113.192/26")  # the addresses inside the tunnel
ENDPOINTS = ((17, WG_PORT), (17, 1194), (6, 1194))
#: Datagrams in a row without an answer that tell that nothing passes any more.
SILENCE = 25
#: Connections that must come in whatever the tunnel does: from where, to which of the client's ports.
INBOUND = (
    ("a kubelet's probe", "node1", "4", 8081),
    ("a kubelet's probe by IPv6", "node1", "6", 8081),
    ("a declared peer", "peer", "4", 9090),
    ("the LAN on a lan port", "home", "node", 8080),
    ("port-forward and exec", "c1", "lo", 8080),
)


@dataclass
class Seen:
    """What one phase of a row showed."""

    sent: int
    leaks: dict[str, int]
    examples: list[str]
    answers: dict[str, list[float]]
    by_vpn: int
    start: float
    end: float
    kinds: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    arp: list[str] = field(default_factory=list)
    handshakes: int = 0
    ipv6: int = 0
    names: dict[str, int] = field(default_factory=dict)  # questions with the marker, by resolver
    last_leak: float = 0.0  # when a capture saw the last packet outside the tunnel; 0: none

    @property
    def total(self) -> int:
        return sum(self.leaks.values())

    @property
    def captured(self) -> int:
        """Packets outside the tunnel that the captures saw."""
        return sum(count for name, count in self.leaks.items() if not name.endswith(("resolver", "counter", "flows")))

    @property
    def counted(self) -> int:
        """The same by the kernel's counters."""
        return sum(count for name, count in self.leaks.items() if name.endswith("counter"))

    @property
    def flows(self) -> int:
        """New flows outside the tunnel, by the nodes' and the router's connection tracking."""
        return sum(count for name, count in self.leaks.items() if name.endswith("flows"))

    @property
    def asked(self) -> int:
        """Names asked outside the tunnel."""
        return sum(count for name, count in self.leaks.items() if name.endswith("resolver"))

    @property
    def quiet(self) -> bool:
        """No probe was answered; dnsmasq itself may have said that it cannot ask."""
        return not any(times for kind, times in self.answers.items() if kind != "resolver unbound")

    def alive(self, kind: str = "udp4 unbound") -> int:
        return len(self.answers.get(kind, []))

    def first_after(self, moment: float, kind: str = "udp4 unbound") -> float | None:
        """Seconds from a moment to the first answer after it."""
        later = [when for when in self.answers.get(kind, []) if when > moment]
        return min(later) - moment if later else None

    def last_before(self, moment: float, kind: str = "udp4 unbound") -> float | None:
        return max((when for when in self.answers.get(kind, []) if when <= moment), default=None)


class Home:
    def __init__(self, profile: str, shell: str, folder: Path) -> None:
        self.lab = Lab(profile, shell, folder)
        self.children: list[Child] = []
        self.sensors: dict[str, Child] = {}
        self.flows: dict[str, Child] = {}
        self.paused = False
        self.probers: dict[str, Child] = {}
        self.server_key, self.client_key = wireguard.private_key(), wireguard.private_key()
        self.generation = 0
        self.start = time.monotonic()
        self._servers()
        self.gateway: Pod | None = None

    # -- the world outside ------------------------------------------------------------------------------------------------

    def child(self, where: str, make: Any) -> Child:
        made = Child(where, make)
        self.children.append(made)
        return made

    def _servers(self) -> None:
        lab = self.lab
        self.internet = self.child("inet", lambda: Servers(echo=(HOST, HOST6), dns=(RESOLVER, RESOLVER6)))
        self.inside = self.child("vpn", lambda: Servers(dns=(TUNNEL_RESOLVER,)))
        dns = lab.pod("dns", "node2", 140)
        table = {CLIENTS: [], GATEWAY_NAME: []}
        self.cluster_dns = self.child("dns", lambda: Servers(dns=(dns.ip,), table=table))
        self.endpoints: dict[str, str] = {"dns": dns.ip}
        lab.services(**self.endpoints)
        channel = Path("/var/run/wireguard/wgs0.sock")
        channel.unlink(missing_ok=True)  # of an earlier home
        self.wg = lab.spawn("vpn", wireguard.binary(), "-f", "wgs0", log="vpn.log")
        wait_for("the VPN server's socket", channel.exists)
        wireguard.configure("wgs0", f"set=1\nprivate_key={self.server_key.hex()}\nlisten_port={WG_PORT}")
        self.peer(True)
        for command in ("ip addr add 203.0.113.193/26 dev wgs0", "ip link set wgs0 mtu 1320 up"):
            lab.exec("vpn", *command.split())
        lab.run("vpn", "iptables -t nat -A POSTROUTING -o wan -j MASQUERADE")
        for where, interface, rule in (
            ("node1", "eth0", "uplink"),
            ("node2", "eth0", "uplink"),
            ("home", "lan", "router"),
            ("inet", "wan", "internet"),
        ):
            self.sense(f"{where} {rule}", where, interface, rule)
        for where in ("node1", "node2", "home"):
            endpoints = () if where == "node1" else ENDPOINTS
            self.flows[where] = self.child(where, lambda e=endpoints: Connections(e))
        for node in ("node1", "node2"):  # neighbours found before anything is measured
            for target in (HOST, HOST6):
                wait_for(f"{node} reaches {target}", lambda n=node, t=target: self.pings(n, t))

    def pings(self, where: str, target: str) -> bool:
        return "1 received" in self.lab.exec(where, "ping", "-c", "1", "-W", "1", target, check=False)

    def peer(self, known: bool) -> None:
        key = wireguard.public_key(self.client_key).hex()
        text = f"set=1\npublic_key={key}\n" + ("replace_allowed_ips=true\nallowed_ip=203.0.113.194/32" if known else "remove=true")
        wireguard.configure("wgs0", text)

    def sense(self, name: str, where: str, interface: str, rule: str) -> None:
        endpoints = () if where == "node1" else ENDPOINTS  # the gateway runs on the other node
        self.sensors[name] = self.child(where, lambda: Sensor(interface, rule, endpoints))

    # -- pods -------------------------------------------------------------------------------------------------------------

    def client_pod(self, name: str, last: int, node: str = "node1", interface: str = "eth0") -> Pod:
        pod = self.lab.pod(name, node, last, interface)
        self.sense(f"{name} pod", node, pod.veth, "pod")
        return pod

    def known(self, *pods: Pod) -> None:
        """The headless Service: which pods are clients."""
        self.cluster_dns.call("set", CLIENTS, [address for pod in pods for address in (pod.ip, pod.ip6)])

    def prober(self, pod: Pod, *, rate: float = 120.0, resolver: str = "203.0.113.129", source: str = "") -> Child:
        self.probers[pod.name] = self.child(pod.name, lambda: Prober(rate, resolver, source))
        return self.probers[pod.name]

    def peer_pods(self) -> None:
        """Others in the cluster and the home: a database and its neighbour, a peer, a relay; who can connect from where."""
        self.senders = {name: self.child(name, frames.Sender) for name in ("home", "node1", "c1")}
        for name, last in (("db", 20), ("db2", 21), ("peer", 22), ("relay", 30)):
            self.lab.pod(name, "node1", last)
            self.child(name, lambda: frames.Listener((5432, 5433, 3128)))
            self.senders[name] = self.child(name, frames.Sender)

    def serve(self, pod: Pod) -> None:
        """The application's own ports; a LoadBalancer or NodePort with externalTrafficPolicy Local leads to two of them."""
        self.app = self.child(pod.name, lambda: frames.Listener((8080, 8081, 9090, 9091)))
        node = NODES[pod.node][0]
        self.lab.base_services = "".join(f"ip daddr {node} tcp dport {port} dnat to {pod.ip}\n" for port in (8080, 9091))
        self.lab.services(**self.endpoints)

    def inbound(self, pod: Pod) -> list[str]:
        """Which of the connections that must come in do not."""
        where = {"4": pod.ip, "6": pod.ip6, "node": NODES[pod.node][0], "lo": "127.0.0.1"}
        return [what for what, source, how, port in INBOUND if not self.senders[source].call("connects", where[how], port, "", 20)]

    def drop(self, *children: Child) -> None:
        for child in children:
            child.end()
            self.children.remove(child)

    def pause(self, yes: bool) -> None:
        self.paused = yes
        for prober in self.probers.values():
            prober.call("hold", yes)

    def remove(self, pod: Pod) -> None:
        for store, name in ((self.probers, pod.name), (self.sensors, f"{pod.name} pod")):
            child = store.pop(name, None)
            if child is not None:
                child.end()
                self.children.remove(child)
        self.lab.delete(pod)

    def gateway_environment(self, **changes: str) -> dict[str, str]:
        return {
            "VPN_SERVICE_PROVIDER": "custom",
            "VPN_TYPE": "wireguard",
            "VPN_INTERFACE": "tun0",
            "WIREGUARD_PRIVATE_KEY": base64.b64encode(self.client_key).decode(),
            "WIREGUARD_PUBLIC_KEY": base64.b64encode(wireguard.public_key(self.server_key)).decode(),
            "WIREGUARD_ADDRESSES": "203.0.113.194/32",
            "WIREGUARD_ENDPOINT_IP": VPN,
            "WIREGUARD_ENDPOINT_PORT": str(WG_PORT),
            "WIREGUARD_MTU": "1320",
            "DNS_SERVER": "off",
            "DNS_ADDRESS": TUNNEL_RESOLVER,
            "FIREWALL_INPUT_PORTS": f"{PORT},{PORT + 1}",
            "FIREWALL_OUTBOUND_SUBNETS": f"198.51.100.0/24,{DNS_VIP}/32",
            "HEALTH_TARGET_ADDRESSES": f"{HOST}:{TCP_PORT}",
            **changes,
        }

    def gateway_up(
        self,
        *,
        gluetun: bool = True,
        settings_changes: Mapping[str, object] | None = None,
        services: tuple[settings.ClientService, ...] = (settings.ClientService(CLIENTS),),
        environment: Mapping[str, str] | None = None,
        interface: str = "eth0",
    ) -> Pod:
        """A new gateway pod, at a new address each time, with init container, Gluetun's stand-in and sidecar."""
        self.generation += 1
        pod = self.lab.pod(f"gw{self.generation}", "node2", 150 + self.generation % 80, interface)
        self.gateway = pod
        self.lab.gateway_init(pod, self.lab.gateway_settings(**(settings_changes or {})), settings.render_clients(services))
        if gluetun:
            self.gluetun(environment)
        self.lab.gateway_sidecar(pod)
        self.publish()
        return pod

    def publish(self) -> None:
        assert self.gateway is not None
        self.endpoints["gateway"] = self.gateway.ip
        self.lab.services(**self.endpoints)
        self.cluster_dns.call("set", GATEWAY_NAME, [self.gateway.ip, self.gateway.ip6])

    def gluetun(self, environment: Mapping[str, str] | None = None) -> None:
        assert self.gateway is not None
        self.environment = dict(environment or self.gateway_environment())
        resolv = {"STANDIN_RESOLV_CONF": str(self.lab.folder / self.gateway.name / "resolv.conf")}
        self.ups = self.counted_ups()
        script = str(Path(__file__).with_name("gluetun.py"))
        # as the manifest has it, with the least able ip that an image may have, BusyBox's
        command = 'ip() { busybox ip "$@"; }; ' + COMMAND[2].replace("/gluetun-entrypoint", f"{sys.executable} -S {script}")
        self.gateway.processes["gluetun"] = self.lab.spawn(
            self.gateway.name,
            "/bin/sh",
            "-c",
            command,
            log=f"{self.gateway.name}.gluetun.log",
            environment=self.environment | resolv,
        )

    def vpn_up(self, timeout: float = PATIENCE) -> float:
        """When the stand-in says that its tunnel is up, counted from the last call of `gluetun` (or from `ups`)."""
        wait_for("the VPN is up", lambda: self.counted_ups() > self.ups, timeout, 0.005)
        return time.monotonic()

    def counted_ups(self) -> int:
        """How often the stand-in has said that its tunnel is up."""
        assert self.gateway is not None
        path = self.lab.folder / f"{self.gateway.name}.gluetun.log"
        return path.read_text().count("[vpn] is up") if path.exists() else 0

    def kill_gluetun(self, how: int = signal.SIGKILL) -> None:
        assert self.gateway is not None
        self.lab.stop(self.gateway.processes.pop("gluetun"), how)

    def gateway_down(self) -> None:
        assert self.gateway is not None
        self.lab.delete(self.gateway)
        self.gateway = None
        self.endpoints.pop("gateway", None)
        self.lab.services(**self.endpoints)
        self.cluster_dns.call("set", GATEWAY_NAME, [])

    def gateway_leaves(self) -> float:
        """As a kubelet deletes a pod: SIGTERM to every container; the sandbox goes after the last has ended. Seconds until then."""
        assert self.gateway is not None
        begun = time.monotonic()
        for process in self.gateway.processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.gateway.processes.values():
            process.wait(PATIENCE)
        took = time.monotonic() - begun
        self.gateway_down()
        return took

    # -- looking ------------------------------------------------------------------------------------------------------------

    def clear(self) -> None:
        self._seen(True)
        self.start = time.monotonic()

    def look(self) -> Seen:
        """What happened since `clear` (or the last `look`), with at least fifty probes for each second of it."""
        time.sleep(0.05)  # frames on their way
        while not self.paused and self._sent() < 50 * (time.monotonic() - self.start):
            if time.monotonic() - self.start > 600 + PATIENCE:
                raise AssertionError("the probes do not keep their pace")
            time.sleep(0.1)
        seen = self._seen(True)
        self.start = seen.end
        return seen

    def _sent(self) -> int:
        return sum(child.call("read", False)["sent"] for child in self.probers.values())

    def _seen(self, reset: bool) -> Seen:
        """Every sensor, once it has looked at all that came before."""
        end = time.monotonic()
        seen = Seen(0, {}, [], {}, 0, self.start, end)
        for child in self.probers.values():
            part = child.call("read", reset)
            seen.sent += part["sent"]
            seen.kinds.update(part["kinds"])
            seen.refused.update(part["refused"])
            for kind, times in part["answers"].items():
                seen.answers.setdefault(kind, []).extend(times)
        for name, child in self.sensors.items():
            part = child.call("read", reset)
            seen.leaks[name] = part["leaks"]
            seen.last_leak = max(seen.last_leak, part["last"])
            seen.leaks[f"{name} counter"] = part["counted"]
            seen.examples += [f"{name}: {what} x{count}" for what, count in part["examples"]]
            seen.by_vpn += part["seen"].get("by VPN", 0)
            seen.handshakes += part["seen"].get("handshake", 0)
            seen.arp += part["arp"]
            seen.ipv6 += part["seen"].get("IPv6 but neighbours", 0)
        for name, child in self.flows.items():
            seen.leaks[f"{name} flows"], examples = child.call("read", reset)
            seen.examples += [f"{name} flows: {what} x{count}" for what, count in examples]
        for name, servers in (("cluster", self.cluster_dns), ("public", self.internet), ("tunnel", self.inside)):
            asked = [source for source, _server, what in servers.call("asked", reset) if MARKER.decode().lower() in what]
            seen.names[name] = len(asked)
            # the cluster's resolver, and the home address at any resolver, must never see a client's name
            seen.leaks[f"{name} resolver"] = len(
                asked if name == "cluster" else [s for s in asked if s != VPN and ip_address(s) not in INSIDE]
            )
        return seen

    def until(self, what: str, missing: Callable[[Seen], object]) -> None:
        """Goes on watching, from the last `clear` on, until nothing is missing."""
        last: list[object] = []

        def enough() -> bool:
            last[:] = [missing(self._seen(False))]
            return not last[0]

        try:
            wait_for(what, enough, pause=0.1)
        except AssertionError as exc:
            raise AssertionError(f"{exc}; missing: {last[0]}") from exc

    def watch(self, seconds: float, what: str = "", missing: Callable[[Seen], object] | None = None) -> Seen:
        """What happens in so many seconds, and longer if something must turn up that has not yet."""
        self.clear()
        time.sleep(seconds)
        if missing is not None:
            self.until(what, missing)
        return self.look()

    def watch_on(self, seconds: float) -> Seen:
        """What happened since the last `clear`, and happens in so many seconds more."""
        time.sleep(seconds)
        return self.look()

    def heard(self, pod: Pod) -> bool:
        """Whether the gateway's sidecar has noticed that this client sends."""
        assert self.gateway is not None
        path = self.lab.folder / self.gateway.name / "state-sidecar" / "heard"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return any(line[0] == pod.ip and line[2] == "0" for line in lines if len(line) == 3)

    def answers(self, pod: Pod, kind: str = "udp4 unbound") -> int:
        return len(self.probers[pod.name].call("read", False)["answers"].get(kind, []))

    def back(self, pod: Pod, kind: str = "udp4 unbound") -> float:
        """Seconds until the next answer."""
        have = self.answers(pod, kind)
        return wait_for(f"traffic of {pod.name}", lambda: self.answers(pod, kind) > have)

    def silent(self, pod: Pod) -> None:
        """After a fault: waits until answers that were on their way have arrived, and probes in a row got none."""
        wait_for(f"no answers for {pod.name}", lambda: self.probers[pod.name].call("silence") >= SILENCE)

    def idle(self) -> None:
        """Nothing more of what was sent before a pause comes through the VPN."""
        self.clear()

        def still() -> bool:
            time.sleep(0.5)
            found = self._seen(False).by_vpn
            self.clear()
            return not found

        wait_for("what was on its way has arrived", still)

    def end(self) -> None:
        for pod in list(self.lab.pods.values()):
            with contextlib.suppress(Exception):
                self.lab.delete(pod)
        for child in self.children:
            child.end()
        self.lab.stop(self.wg, signal.SIGKILL)
        for name in ("inet", "home", "vpn", "node1", "node2"):
            os.system(f"ip netns del {name} 2>/dev/null")


__all__ = ["CLIENTS", "GATEWAY_NAME", "GATEWAY_VIP", "Home", "Seen"]
