# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A home in network namespaces: two nodes, pods, a router, the internet behind it and a VPN server in that.

Everything lives in the namespaces that `run.py` unshared: no link leads to the host, and the kernel takes all of it back when
the run ends. Addresses are those of the documentation ranges:

    192.0.2.0/25        LAN: router .1, nodes .11 and .12          2001:db8:1::/64
    192.0.2.128/25      ClusterIPs: DNS .130, gateway .140
    198.51.100.0/24     pods: /25 per node                          2001:db8:a::/64 and b::/64
    203.0.113.0/26      internet: home .1, VPN .2, host .10, resolver .53      2001:db8:ff::/64
    203.0.113.128/26    overlay (never on a wire outside VXLAN); 203.0.113.192/26 inside the tunnel
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path

from ansible_collections.homelab.netguard.plugins.module_utils._overlay import scripts, settings
from ansible_collections.homelab.netguard.plugins.module_utils._topology.model import Port

OVERLAY = ip_network("203.0.113.128/26")
PODS = (ip_network("198.51.100.0/24"), ip_network("2001:db8:a::/47"))
INTERNET = (ip_network("203.0.113.0/26"), ip_network("2001:db8:ff::/64"))
HOST, RESOLVER, VPN, HOME = "203.0.113.10", "203.0.113.53", "203.0.113.2", "203.0.113.1"
HOST6, RESOLVER6 = "2001:db8:ff::10", "2001:db8:ff::53"
TUNNEL_RESOLVER = "203.0.113.193"  # the provider's own, inside the tunnel
NODES = {"node1": ("192.0.2.11", "2001:db8:1::11"), "node2": ("192.0.2.12", "2001:db8:1::12")}
DNS_VIP, GATEWAY_VIP = "192.0.2.130", "192.0.2.140"
PORT, VNI = 48879, 4753
PROFILES = ("calico", "flannel", "cilium")

#: Seconds that anything which must happen may take: a row fails for what our scripts do, not for how busy the machine is.
PATIENCE = 90.0

#: The tools that the overlay image has beside its shell's; nft is not among them. (wget, because that of Debian's static
#: busybox crashes on names.)
IMAGE_TOOLS = (
    *("ip", "bridge", "tc", "dig", "dnsmasq", "setpriv", "arptables-nft", "wget"),
    *(f"{tool}{build}{part}" for tool in ("iptables", "ip6tables") for build in ("", "-nft") for part in ("", "-save", "-restore")),
)


def sh(
    command: Sequence[str], *, check: bool = True, text: str | None = None, **options: object
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=PATIENCE, check=False, **options)  # type: ignore[call-overload]
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done  # type: ignore[no-any-return]


def wait_for(what: str, test: Callable[[], bool], timeout: float = PATIENCE, pause: float = 0.02) -> float:
    """Seconds until `test` held; fails after `timeout`."""
    start = time.monotonic()
    while not test():
        if time.monotonic() - start > timeout:
            raise AssertionError(f"{what}: not within {timeout} s")
        time.sleep(pause)
    return time.monotonic() - start


@dataclass
class Pod:
    name: str
    node: str
    ip: str
    ip6: str
    veth: str
    interface: str = "eth0"
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def ips(self) -> str:
        return f"{self.ip},{self.ip6}"


class Lab:
    """`profile` is how the CNI lays out pods; `shell` runs the scripts: `ash` (busybox, the image's tools) or `dash` (with nft)."""

    def __init__(self, profile: str, shell: str, folder: Path) -> None:
        self.profile = profile
        self.shell = shell
        self.folder = folder
        self.pods: dict[str, Pod] = {}
        self.base_services = self.more_services = ""
        self.more_environment: dict[str, str] = {}  # of containers that start from now on
        folder.mkdir(parents=True, exist_ok=True)
        self.tools = self._tools()
        self._network()

    # -- commands -------------------------------------------------------------------------------------------------------

    def exec(self, where: str, *command: str, check: bool = True, text: str | None = None) -> str:
        return sh(["nsenter", f"--net=/run/netns/{where}", *command], check=check, text=text).stdout

    def run(self, where: str, command: str, check: bool = True) -> str:
        """A command without spaces inside its words."""
        return self.exec(where, *command.split(), check=check)

    def spawn(self, where: str, *command: str, log: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        with open(self.folder / log, "ab") as output:
            return subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{where}", *command],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )

    def nft(self, where: str, text: str) -> None:
        self.exec(where, "nft", "-f", "-", text=text.replace("; }", ";\n}\n"))

    # -- layout ---------------------------------------------------------------------------------------------------------

    def _tools(self) -> str:
        """A PATH: with `ash` the applets of busybox and what the image adds, nothing else."""
        if self.shell == "dash":
            return os.environ["PATH"]
        tools = self.folder / "tools"
        tools.mkdir()
        for applet in sh(["busybox", "--list"]).stdout.split():
            (tools / applet).symlink_to(str(shutil.which("busybox")))
        for tool in IMAGE_TOOLS:
            found = shutil.which(tool)
            if found is None:
                raise RuntimeError(f"{tool} is missing here")
            (tools / tool).unlink(missing_ok=True)
            (tools / tool).symlink_to(found)
        return str(tools)

    def _network(self) -> None:
        for name in ("inet", "home", "vpn", *NODES):
            self._namespace(name)
        for command in (
            "ip link add wan type bridge",
            # a bridge takes the lowest address of its ports, and another one when a port joins: neighbours would go on with the old
            "ip link set wan address 02:00:00:00:00:03 up",
            f"ip addr add {HOST}/26 dev wan",
            f"ip addr add {RESOLVER}/26 dev wan",
        ):
            self.exec("inet", *command.split())
        for address in (HOST6, RESOLVER6):
            self.run("inet", f"ip -6 addr add {address}/64 dev wan nodad")
        for name, last in (("home", 1), ("vpn", 2)):
            self.link("inet", f"to-{name}", name, "wan")
            self.run("inet", f"ip link set to-{name} master wan")
            self.run(name, f"ip addr add 203.0.113.{last}/26 dev wan")
            self.run(name, f"ip -6 addr add 2001:db8:ff::{last}/64 dev wan nodad")
        self.run("home", "ip link add lan type bridge")
        self.run("home", "ip link set lan address 02:00:00:00:00:02 up")
        self.run("home", "ip addr add 192.0.2.1/25 dev lan")
        self.run("home", "ip -6 addr add 2001:db8:1::1/64 dev lan nodad")
        self.run("home", "iptables -t nat -A POSTROUTING -o wan -j MASQUERADE")
        self.run("inet", "ip -6 route add 2001:db8::/33 via 2001:db8:ff::1")
        for index, (node, (v4, v6)) in enumerate(NODES.items()):
            self.link("home", f"to-{node}", node, "eth0")
            self.run("home", f"ip link set to-{node} master lan")
            self.run(node, f"ip addr add {v4}/25 dev eth0")
            self.run(node, f"ip -6 addr add {v6}/64 dev eth0 nodad")
            self.run(node, "ip route add default via 192.0.2.1")
            self.run(node, "ip -6 route add default via 2001:db8:1::1")
            self.run("home", f"ip -6 route add 2001:db8:{'ab'[index]}::/64 via {v6}")
            # pods reach the LAN and each other as themselves, the rest of the world as their node
            self.nft(
                node,
                "table ip masq { chain post { type nat hook postrouting priority 100; ip saddr 198.51.100.0/24"
                " ip daddr != { 198.51.100.0/24, 192.0.2.0/24 } masquerade; } }",
            )
            if self.profile == "flannel":
                self.run(node, "ip link add cni0 type bridge")
                self.run(node, "ip link set cni0 address 02:00:00:00:00:01 up")
                self.run(node, f"ip addr add {self._router(node)}/25 dev cni0")
                self.run(node, f"ip -6 addr add {self._router6(node)}/64 dev cni0 nodad")
            elif self.profile == "cilium":
                self.run(node, f"ip addr add {self._router(node)}/32 dev lo")
                self.run(node, f"ip -6 addr add {self._router6(node)}/128 dev lo")
            if self.profile != "flannel":  # what is no pod of this node goes nowhere: Calico's blocks, Cilium's pod range
                own = ("198.51.100.0/25", "2001:db8:a::/64") if node == "node1" else ("198.51.100.128/25", "2001:db8:b::/64")
                self.run(node, f"ip route add blackhole {own[0]}")
                self.run(node, f"ip -6 route add blackhole {own[1]} metric 4096")
        self.node_routes()
        self.services()

    def _namespace(self, name: str) -> None:
        sh(["ip", "netns", "add", name])
        self.run(name, "ip link set lo up")
        for setting in ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.all.rp_filter=0"):
            self.exec(name, "sysctl", "-qw", setting)

    def link(self, one: str, one_name: str, other: str, other_name: str) -> None:
        sh(f"ip link add {one_name} netns {one} type veth peer name {other_name} netns {other}".split())
        for where, name in ((one, one_name), (other, other_name)):
            self.run(where, f"ip link set {name} up")

    def _router(self, node: str) -> str:
        return "198.51.100.1" if node == "node1" else "198.51.100.129"

    def _router6(self, node: str) -> str:
        return "2001:db8:a::1" if node == "node1" else "2001:db8:b::1"

    def node_routes(self, verb: str = "replace") -> None:
        """The routes to the other node's pods; `verb` del: as on a node that has just started."""
        for node, other, v4, v6 in (
            ("node1", "node2", "198.51.100.128/25", "2001:db8:b::/64"),
            ("node2", "node1", "198.51.100.0/25", "2001:db8:a::/64"),
        ):
            self.run(node, f"ip route {verb} {v4} via {NODES[other][0]}", check=False)
            self.run(node, f"ip -6 route {verb} {v6} via {NODES[other][1]}", check=False)

    def pod(self, name: str, node: str, last: int, interface: str = "eth0") -> Pod:
        """A sandbox as the CNI leaves it: no container has run yet."""
        self._namespace(name)
        self.exec(name, "sysctl", "-qw", "net.ipv4.ip_forward=0")
        self.exec(name, "sysctl", "-qw", "net.ipv6.conf.all.forwarding=0")
        veth = f"v-{name}"[:15]
        self.link(node, veth, name, interface)
        pod = Pod(name, node, f"198.51.100.{last}", f"2001:db8:{'a' if node == 'node1' else 'b'}::{last:x}", veth, interface)
        router, router6 = self._router(node), self._router6(node)
        if self.profile == "flannel":
            self.run(node, f"ip link set {veth} master cni0")
            self.run(name, f"ip addr add {pod.ip}/25 dev {interface}")
            self.run(name, f"ip -6 addr add {pod.ip6}/64 dev {interface} nodad")
            self.run(name, f"ip route add 198.51.100.0/24 via {router}")
            self.run(name, f"ip route add default via {router}")
            self.run(name, f"ip -6 route add default via {router6}")
        else:
            via, via6 = ("169.254.1.1", "fe80::1") if self.profile == "calico" else (router, router6)
            self.exec(node, "sysctl", "-qw", f"net.ipv4.conf.{veth}.proxy_arp=1", f"net.ipv4.neigh.{veth}.proxy_delay=0")
            self.run(node, f"ip -6 addr add {via6}/128 dev {veth} nodad", check=self.profile == "calico")
            self.run(node, f"ip -6 addr add fe80::1/64 dev {veth} nodad", check=False)
            self.run(node, f"ip route replace {pod.ip}/32 dev {veth}")
            self.run(node, f"ip -6 route replace {pod.ip6}/128 dev {veth}")
            self.run(name, f"ip addr add {pod.ip}/32 dev {interface}")
            self.run(name, f"ip -6 addr add {pod.ip6}/128 dev {interface} nodad")
            self.run(name, f"ip route add {via}/32 dev {interface} scope link")
            self.run(name, f"ip route add default via {via} dev {interface}")
            if self.profile == "cilium":
                self.run(name, f"ip -6 route add {via6}/128 dev {interface}")
            self.run(name, f"ip -6 route add default via {via6} dev {interface}")
        self.pods[name] = pod
        self.write(pod, {"resolv.conf": f"nameserver {DNS_VIP}\nsearch svc.cluster.local\noptions ndots:5\n"})
        return pod

    def delete(self, pod: Pod) -> None:
        for process in list(pod.processes.values()):
            self.stop(process, signal.SIGKILL)
        pod.processes.clear()
        sh(["ip", "netns", "pids", pod.name], check=False)
        self.exec(pod.node, "ip", "link", "del", pod.veth, check=False)
        sh(["ip", "netns", "del", pod.name])
        self.pods.pop(pod.name, None)

    @staticmethod
    def stop(process: subprocess.Popen[bytes], how: int = signal.SIGTERM) -> float:
        """Ends a process and its children; seconds that it took."""
        start = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        process.wait(PATIENCE)
        return time.monotonic() - start

    # -- what a cluster does --------------------------------------------------------------------------------------------

    def services(self, gateway: str = "", dns: str = "") -> None:
        """kube-proxy: translation of ClusterIPs on both nodes, and stale UDP flows forgotten."""
        rules = ""
        if gateway:
            rules += f"ip daddr {GATEWAY_VIP} udp dport {PORT + 1} dnat to {gateway}\n"
        if dns:
            rules += f"ip daddr {DNS_VIP} udp dport 53 dnat to {dns}\nip daddr {DNS_VIP} tcp dport 53 dnat to {dns}\n"
        rules += self.base_services + self.more_services
        for node in NODES:
            self.nft(
                node,
                "table ip services\ndelete table ip services\ntable ip services {\n"
                f"chain pre {{ type nat hook prerouting priority -100;\n{rules}}}\n"
                f"chain out {{ type nat hook output priority -100;\n{rules}}}\n"
                "chain none { type filter hook forward priority 5; ip daddr 192.0.2.128/25 reject; }\n}",
            )
            self.exec(node, "conntrack", "-D", "-p", "udp", "--orig-dst", GATEWAY_VIP, check=False)

    def policy(self, pod: Pod, allow: Sequence[str] = ()) -> None:
        """The policy layer on the client's node: the pod talks to what `allow` says (nft matches), else nothing."""
        rules = "\n".join(f"{match} accept" for match in allow)
        table = f"policy_{pod.name}"
        # by the pod's own link, not by the address that a packet claims
        mac = self.run(pod.name, f"ip -o link show dev {pod.interface}").split("link/ether ")[1].split()[0]
        self.nft(
            pod.node,
            f"table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n"
            f"chain out {{\nct state established,related ct direction reply accept\n{rules}\ncounter drop\n}}\n"
            "chain f {\ntype filter hook forward priority 0;\n"
            f"ether saddr {mac} jump out\n}}\n}}",
        )

    def no_policy(self, pod: Pod) -> None:
        self.nft(pod.node, f"table inet policy_{pod.name}\ndelete table inet policy_{pod.name}")

    # -- our containers -------------------------------------------------------------------------------------------------

    def write(self, pod: Pod, files: Mapping[str, str]) -> Path:
        folder = self.folder / pod.name
        folder.mkdir(exist_ok=True)
        for name, text in files.items():
            path = folder / f".{name}"
            path.write_text(text)
            path.rename(folder / name)
        return folder

    def container(self, pod: Pod, container: str, script: str, *more: str, privileged: bool = False, gid: int = 0) -> list[str]:
        """The command of one of our containers: own state, read-only /proc/sys, the tools of its image."""
        folder = self.folder / pod.name
        state = folder / f"state-{container}"
        if "ready" not in script:  # a container that starts again finds a fresh file system
            shutil.rmtree(state, ignore_errors=True)
        state.mkdir(exist_ok=True)
        shell = [str(Path(self.tools) / "ash")] if self.shell == "ash" else [str(shutil.which("dash"))]
        closed = f"mount --bind {folder}/resolv.conf /etc/resolv.conf && "  # one file for all containers of a pod
        closed += "" if privileged else "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && "
        group = f"setpriv --regid {gid} --clear-groups " if gid else ""
        setup = f'{closed}export PATH={self.tools} && exec {group}"$@"'
        return ["env", f"NETGUARD_STATE={state}", f"NETGUARD_CLIENTS={folder}/clients", f"NETGUARD_GLUETUN={folder}/gluetun",
                f"POD_IPS={pod.ips}", f"HOST_IPS={','.join(NODES[pod.node])}",
                *(f"{name}={value}" for name, value in self.more_environment.items()), "unshare", "-m", "--propagation", "private",
                "/bin/sh", "-c", setup, "container", *shell, str(folder / script), *more]  # fmt: skip

    @staticmethod
    def pods_v4() -> IPv4Network:
        return IPv4Network(PODS[0])

    @staticmethod
    def pods_v6() -> IPv6Network:
        return IPv6Network(PODS[1])

    def client_settings(self, **changes: object) -> settings.ClientSettings:
        values: dict[str, object] = {
            "vni": VNI,
            "port": PORT,
            "network": IPv4Network(OVERLAY),
            "pods": PODS,
            "gateway": ip_address(GATEWAY_VIP),
            "ingress": (settings.Allowed(ip_network("192.0.2.0/25"), Port(8080)), settings.Allowed(PODS[0], Port(9090))),
            "egress": (settings.Allowed(ip_network("198.51.100.20/32"), Port(5432)),),
            "probes": (Port(8081),),
            "routes": (ip_network("192.0.2.0/24"),),
            "tunnel_mtu": 1320,
        }
        values.update(changes)
        return settings.ClientSettings(**values)  # type: ignore[arg-type]

    def client_init(self, pod: Pod, configuration: settings.ClientSettings) -> subprocess.CompletedProcess[str]:
        self.write(pod, {**scripts.CLIENT_SCRIPTS, scripts.SETTINGS_FILE: configuration.render()})
        return sh(["nsenter", f"--net=/run/netns/{pod.name}", *self.container(pod, "init", "client-init.sh")], check=False)

    def client_sidecar(self, pod: Pod) -> None:
        command = self.container(pod, "sidecar", "client-sidecar.sh", gid=scripts.SIDECAR_GID)
        pod.processes["sidecar"] = self.spawn(pod.name, *command, log=f"{pod.name}.log")

    def metrics(self, pod: Pod, script: str) -> dict[str, float]:
        """What the exec check says with `metrics`, run in the sidecar's container."""
        command = self.container(pod, "sidecar", script, "metrics")
        lines = sh(["nsenter", f"--net=/run/netns/{pod.name}", *command]).stdout.splitlines()
        return {name: float(value) for name, _space, value in (line.rpartition(" ") for line in lines)}

    def client_ready(self, pod: Pod) -> bool:
        command = self.container(pod, "sidecar", "client-ready.sh")
        return sh(["nsenter", f"--net=/run/netns/{pod.name}", *command], check=False).returncode == 0

    def client_up(self, pod: Pod, configuration: settings.ClientSettings | None = None) -> None:
        done = self.client_init(pod, configuration or self.client_settings())
        assert done.returncode == 0, done.stdout + done.stderr
        (self.folder / f"{pod.name}.log").open("a").write(done.stdout + done.stderr)
        self.client_sidecar(pod)

    def gateway_settings(self, **changes: object) -> settings.GatewaySettings:
        values: dict[str, object] = {
            "vni": VNI,
            "port": PORT,
            "network": IPv4Network(OVERLAY),
            "pods": PODS,
            "dns_servers": (ip_address(DNS_VIP),),
            "upstream": ip_address(TUNNEL_RESOLVER),
            "tunnel_mtu": 1320,
        }
        values.update(changes)
        return settings.GatewaySettings(**values)  # type: ignore[arg-type]

    def gateway_init(self, pod: Pod, configuration: settings.GatewaySettings, clients: str) -> None:
        text = configuration.render()
        self.write(pod, {**scripts.GATEWAY_SCRIPTS, scripts.SETTINGS_FILE: text, scripts.CLIENTS_FILE: clients})
        command = self.container(pod, "init", "gateway-init.sh", privileged=True)
        done = sh(["nsenter", f"--net=/run/netns/{pod.name}", *command], check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        (self.folder / f"{pod.name}.log").open("a").write(done.stdout + done.stderr)

    def gateway_sidecar(self, pod: Pod) -> None:
        command = self.container(pod, "sidecar", "gateway-sidecar.sh")
        pod.processes["sidecar"] = self.spawn(pod.name, *command, log=f"{pod.name}.log")
