# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stand-in for Gluetun v3.41.3: the same variables, rules, order, restart and failure behaviour, with wireguard-go or OpenVPN.

It is no VPN client for users. What it copies, from where, and which row relies on it: README.md beside this file. Run as
`python gluetun.py` in the gateway's namespace with Gluetun's environment variables; `python gluetun.py healthcheck` exits 0
when the health server answers 200.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import wireguard

FWMARK = 51820
POST_RULES = Path(os.environ.get("STANDIN_POST_RULES", "/iptables/post-rules.txt"))
RESOLV = Path(os.environ.get("STANDIN_RESOLV_CONF", "/etc/resolv.conf"))


class Failure(Exception):
    """What makes Gluetun exit with code 1."""


def run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if check and done.returncode:
        raise Failure(f"{' '.join(command)}: {done.stderr.strip()}")
    return done


def log(text: str) -> None:
    print(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "INFO", text, flush=True)


def env(name: str, default: str = "") -> str:
    """Secret files come before the environment; an empty value is an unset one; outer quotes and spaces go."""
    path = os.environ.get(f"{name}_SECRETFILE", f"/run/secrets/{name.lower()}")
    with contextlib.suppress(OSError):
        return Path(path).read_text().rstrip("\n")
    return os.environ.get(name, "").strip().strip("\"'") or default


def boolean(name: str, default: str) -> bool:
    value = env(name, default).lower()
    if value in ("on", "yes", "true", "enabled"):
        return True
    if value in ("off", "no", "false", "disabled"):
        return False
    raise Failure(f"environment variable {name}: {value!r} is no boolean")


class Health:
    """What the health server answers: 500 until a check went well."""

    error = "healthcheck did not run yet"

    @staticmethod
    def serve(server: socket.socket) -> None:
        while True:
            with contextlib.suppress(OSError):
                caller = server.accept()[0]
                caller.settimeout(1)
                caller.recv(4096)
                status = "500 Internal Server Error" if Health.error else "200 OK"
                caller.sendall(f"HTTP/1.0 {status}\r\nContent-Length: {len(Health.error)}\r\n\r\n{Health.error}".encode())
                caller.close()


class Gluetun:
    def __init__(self) -> None:
        self.interface = env("VPN_INTERFACE", "tun0")
        self.default = ""
        self.address = ""
        self.router = ""
        self.local: list[tuple[str, str, str]] = []  # interface, own address, network
        self.ipt = "iptables"
        self.ip6t = "ip6tables"
        self.process: subprocess.Popen[bytes] | None = None
        self.endpoint: tuple[str, str, str] | None = None
        self.rules: list[tuple[str, ...]] = []

    # 2 Default routes and local networks
    def routes(self) -> None:
        for line in run("ip", "-4", "route", "show", "table", "main").stdout.splitlines():
            words = line.split()
            device = words[words.index("dev") + 1] if "dev" in words else ""
            if words[0] == "default" and not self.default:
                self.default, self.router = device, words[words.index("via") + 1] if "via" in words else ""
            elif words[0] not in ("default", "unreachable", "blackhole") and "via" not in words and device != "lo":
                net = words[0] if "/" in words[0] else f"{words[0]}/32"
                self.local.append((device, self.own(device), net))
        if not self.default:
            raise Failure("no default route found")
        self.address = self.own(self.default)

    @staticmethod
    def own(device: str) -> str:
        words = run("ip", "-4", "-o", "addr", "show", "dev", device).stdout.split()
        return words[words.index("inet") + 1].split("/")[0] if "inet" in words else ""

    # 3 iptables: the first build that really takes a rule
    def choose(self) -> None:
        for name in ("iptables", "iptables-nft", "iptables-legacy"):
            if shutil.which(name) and not run(name, "-A", "OUTPUT", "-o", "standin-test", "-j", "DROP", check=False).returncode:
                run(name, "-D", "OUTPUT", "-o", "standin-test", "-j", "DROP")
                self.ipt, self.ip6t = name, name.replace("iptables", "ip6tables")
                return
        raise Failure("no iptables supported found")

    def both(self, *rule: str) -> None:
        run(self.ipt, *rule)
        run(self.ip6t, *rule)

    # 4 Firewall on; any error in here flushes filter, opens the policies and exits
    def firewall(self) -> None:
        if not boolean("FIREWALL_ENABLED_DISABLING_IT_SHOOTS_YOU_IN_YOUR_FOOT", "on"):
            return
        try:
            for chain in ("INPUT", "OUTPUT", "FORWARD"):
                self.both("--policy", chain, "DROP")
            self.both("-A", "INPUT", "-i", "lo", "-j", "ACCEPT")
            self.both("-A", "OUTPUT", "-o", "lo", "-j", "ACCEPT")
            for chain in ("OUTPUT", "INPUT"):
                self.both("-A", chain, "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT")
            for device, own, net in self.local:
                run(self.ipt, "-A", "OUTPUT", "-o", device, "-s", own, "-d", net, "-j", "ACCEPT")
                run(self.ip6t, "-A", "OUTPUT", "-o", device, "-d", "ff02::1:ff00:0/104", "-j", "ACCEPT")
                run(self.ipt, "-A", "INPUT", "-i", device, "-d", net, "-j", "ACCEPT")
            self.post_rules()
        except Failure:
            for tool in (self.ipt, self.ip6t):
                run(tool, "--flush", check=False)
                run(tool, "--delete-chain", check=False)
                for chain in ("INPUT", "OUTPUT", "FORWARD"):
                    run(tool, "--policy", chain, "ACCEPT", check=False)
            raise

    def post_rules(self) -> None:
        if not POST_RULES.exists():
            return
        for line in POST_RULES.read_text().splitlines():
            for build in ("", "-nft", "-legacy"):
                for prefix, tool in ((f"iptables{build} ", self.ipt), (f"ip6tables{build} ", self.ip6t)):
                    if line.startswith(prefix):
                        run(tool, *line[len(prefix) :].split())

    # 7 Settings
    def validate(self) -> None:
        if env("VPN_TYPE", "openvpn") not in ("wireguard", "openvpn"):
            raise Failure("VPN type is not valid")
        if env("VPN_TYPE", "openvpn") == "wireguard":
            import base64

            try:
                key = base64.b64decode(env("WIREGUARD_PRIVATE_KEY"), validate=True)
            except ValueError as exc:
                raise Failure(f"WireGuard private key is not valid: {exc}") from exc
            if len(key) != 32:
                raise Failure("WireGuard private key is not valid: it must be 32 bytes")
            if not env("WIREGUARD_ADDRESSES"):
                raise Failure("WireGuard interface address is not set")
            try:
                socket.inet_aton(env("WIREGUARD_ENDPOINT_IP"))
            except OSError as exc:
                raise Failure("WireGuard endpoint IP is not valid") from exc
        elif not Path(env("OPENVPN_CUSTOM_CONFIG")).is_file():
            raise Failure("OpenVPN custom configuration file cannot be read")

    # 10-12 Rules and routes, outbound subnets, input ports
    def rule(self, *words: str) -> None:
        """As netlink's RuleAdd: an existing one is an error."""
        run("ip", "-4", "rule", "add", *words)
        self.rules.append(words)

    def routing(self) -> None:
        for stale in ("98", "99", "100"):  # of this namespace's earlier run: Gluetun looks before it adds these
            while not run("ip", "-4", "rule", "del", "pref", stale, check=False).returncode:
                pass
        via = ("via", self.router) if self.router else ()
        run("ip", "route", "replace", "default", *via, "dev", self.default, "onlink", "table", "200")
        self.rule("from", self.address, "lookup", "200", "pref", "100")
        for _device, _own, net in self.local:
            self.rule("to", net, "lookup", "main", "pref", "98")
        for net in filter(None, env("FIREWALL_OUTBOUND_SUBNETS").split(",")):
            if ":" in net:
                continue
            if net.startswith("0.0.0.0"):
                raise Failure("outbound subnet has an unspecified address")
            run("ip", "route", "replace", net, *via, "dev", self.default, "onlink", "table", "199")
            self.rule("to", net, "lookup", "199", "pref", "99")
            run(self.ipt, "-A", "OUTPUT", "-o", self.default, "-s", self.address, "-d", net, "-j", "ACCEPT")
        for port in filter(None, env("FIREWALL_INPUT_PORTS").split(",")):
            if not 0 < int(port) < 65536:
                raise Failure(f"input port {port} is not valid")
            for protocol in ("tcp", "udp"):
                self.both("-A", "INPUT", "-i", self.default, "-p", protocol, "-m", protocol, "--dport", port, "-j", "ACCEPT")

    # 13 DNS, with the built-in server off: one nameserver for the whole pod, whether the tunnel is up or not; the rest of the file
    # stays, and nothing is put back at the end
    def dns(self) -> None:
        if boolean("DNS_SERVER", "on") or boolean("DNS_KEEP_NAMESERVER", "off"):
            return
        address = env("DNS_ADDRESS", "127.0.0.1")
        kept = [line for line in RESOLV.read_text().splitlines() if not line.startswith("nameserver ")]
        RESOLV.write_text("\n".join([f"nameserver {address}", *kept]) + "\n")

    # 13 Health server
    def serve(self) -> None:
        host, port = env("HEALTH_SERVER_ADDRESS", "127.0.0.1:9999").rsplit(":", 1)
        server = socket.create_server((host, int(port)))
        _thread.start_new_thread(Health.serve, (server,))

    # 14 The VPN
    def connect(self) -> None:
        kind = env("VPN_TYPE", "openvpn")
        if kind == "wireguard":
            address, port, protocol = env("WIREGUARD_ENDPOINT_IP"), env("WIREGUARD_ENDPOINT_PORT", "51820"), "udp"
        else:
            words = [line.split() for line in Path(env("OPENVPN_CUSTOM_CONFIG")).read_text().splitlines()]
            remote = next(line for line in words if line[:1] == ["remote"])
            address, port = remote[1], remote[2]
            protocol = next((line[1] for line in words if line[:1] == ["proto"]), "udp")[:3]
        self.allow("OUTPUT", "-d", address, "-o", self.default, "-p", protocol, "-m", protocol, "--dport", port, "-j", "ACCEPT")
        self.allow("OUTPUT", "-o", self.interface, "-j", "ACCEPT")
        run(self.ip6t, "-A", "OUTPUT", "-o", self.interface, "-j", "ACCEPT")
        if kind == "wireguard":
            self.wireguard(address, port)
        else:
            self.openvpn()

    def allow(self, chain: str, *rule: str) -> None:
        """Added once; on a restart in the same namespace Gluetun appends it again, as it knows nothing of the old one."""
        run(self.ipt, "-A", chain, *rule)

    def wireguard(self, address: str, port: str) -> None:
        import base64

        channel = Path(f"/var/run/wireguard/{self.interface}.sock")
        channel.unlink(missing_ok=True)  # of a killed process
        self.process = subprocess.Popen(
            [wireguard.binary(), "-f", self.interface], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + 10
        while not channel.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        key, peer = base64.b64decode(env("WIREGUARD_PRIVATE_KEY")), base64.b64decode(env("WIREGUARD_PUBLIC_KEY"))
        for own in env("WIREGUARD_ADDRESSES").split(","):
            run("ip", "addr", "add", own if "/" in own else f"{own}/32", "dev", self.interface)
        wireguard.configure(
            self.interface,
            f"set=1\nprivate_key={key.hex()}\nfwmark={FWMARK}\nreplace_peers=true\npublic_key={peer.hex()}\n"
            f"endpoint={address}:{port}\nreplace_allowed_ips=true\nallowed_ip=0.0.0.0/0\nallowed_ip=::/0\n"
            f"persistent_keepalive_interval={env('WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL', '0').rstrip('s')}",
        )
        run("ip", "link", "set", self.interface, "mtu", env("WIREGUARD_MTU", "1320"), "up")
        for net in env("WIREGUARD_ALLOWED_IPS", "0.0.0.0/0,::/0").split(","):
            if ":" not in net:
                run("ip", "route", "add", net, "dev", self.interface, "table", str(FWMARK))
        # a rule that an earlier, killed process left is an error that is tried again for ever (#2521)
        if run(
            "ip", "-4", "rule", "add", "not", "fwmark", str(FWMARK), "lookup", str(FWMARK), "pref", "101", check=False
        ).returncode:
            raise Failure("adding IPv4 rule: file exists")

    def openvpn(self) -> None:
        """Routes are the server's own push (redirect-gateway), in the main table."""
        self.process = subprocess.Popen(
            ["openvpn", "--config", env("OPENVPN_CUSTOM_CONFIG"), "--dev", self.interface, "--dev-type", "tun"]
        )

    def check(self) -> bool:
        """Start-up: TCP to all targets, 6 s; then every minute ICMP (here TCP), ten tries over two minutes."""
        for target in filter(None, env("HEALTH_TARGET_ADDRESSES").split(",")):
            host, port = target.rsplit(":", 1)
            try:
                socket.create_connection((host, int(port)), timeout=6).close()
            except OSError as exc:
                Health.error = f"startup check: {exc}"
                return False
        Health.error = ""
        return True

    def stop_vpn(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(5)
        run("ip", "-4", "rule", "del", "pref", "101", check=False)

    def loop(self) -> None:
        back_off = 15.0
        while True:
            try:
                self.connect()
            except Failure as exc:
                log(f"ERROR [vpn] {exc}")
                if self.process is not None:
                    self.process.kill()
                    self.process.wait(5)
                time.sleep(back_off)
                back_off *= 2
                continue
            back_off = 15.0
            log("[vpn] is up")
            self.check()
            assert self.process is not None
            while self.process.poll() is None:
                time.sleep(1)
                if Health.error:
                    self.check()
            log("ERROR [vpn] the VPN process ended")
            run("ip", "-4", "rule", "del", "pref", "101", check=False)

    def shutdown(self, *_arguments: object) -> None:
        """On SIGTERM rules and routes go, but for the local networks' rules; the firewall stays."""
        self.stop_vpn()
        for words in self.rules:
            if words[-1] != "98":
                run("ip", "-4", "rule", "del", *words, check=False)
        for table in ("199", "200"):
            run("ip", "-4", "route", "flush", "table", table, check=False)
        os._exit(0)


def main() -> int:
    if sys.argv[1:] == ["healthcheck"]:
        host, port = env("HEALTH_SERVER_ADDRESS", "127.0.0.1:9999").rsplit(":", 1)
        try:
            with socket.create_connection((host or "127.0.0.1", int(port)), timeout=1) as channel:
                channel.sendall(b"GET / HTTP/1.0\r\n\r\n")
                return 0 if b" 200 " in channel.recv(4096) else 1
        except OSError:
            return 1
    gluetun = Gluetun()
    signal.signal(signal.SIGTERM, gluetun.shutdown)
    try:
        gluetun.routes()
        gluetun.choose()
        gluetun.firewall()
        gluetun.validate()
        gluetun.routing()
        gluetun.dns()
        gluetun.serve()
        gluetun.loop()
    except Failure as exc:
        log(f"ERROR {exc}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
