# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Other ways to the gateway, the second protocol, forwarded ports, what it costs, and two hundred restarts."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import statistics
import time
from pathlib import Path

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._overlay import settings
from ansible_collections.homelab.netguard.plugins.module_utils._topology.model import Port

from . import frames
from .conftest import EVIDENCE, Stage
from .home import CLIENTS, GATEWAY_NAME
from .lab import DNS_VIP, HOST, ip_address, wait_for
from .openvpn import configuration, server
from .test_1_matrix import best_of
from .test_2_layers import open_pod

pytestmark = pytest.mark.layout("cilium-ash")


def test_c0_connects(stage: Stage) -> None:
    stage.connect()


def test_client_by_name(connected: Stage) -> None:
    """No ClusterIP: the sidecar alone may ask the cluster's DNS, and believes answers from the pod ranges only."""
    stage, home = connected, connected.home
    by_name = stage.lab.client_settings(gateway=None, gateway_name=GATEWAY_NAME, dns_servers=(ip_address(DNS_VIP),))
    stage.stop_sidecar()
    home.clear()
    stage.lab.client_up(stage.c1, by_name)
    wait_for("ready", lambda: stage.lab.client_ready(stage.c1), pause=0.1)
    stage.closed("F1", "the gateway is looked up by name, under the sidecar's own group", home.look(), recover=home.back(stage.c1))
    home.gateway_down()
    home.cluster_dns.call("set", GATEWAY_NAME, ["203.0.113.10"])
    home.silent(stage.c1)
    seen = home.watch(4.0)
    stage.closed("F10", "the name leads out of the pod ranges: not believed", seen)
    assert seen.quiet, seen.answers

    def replaced() -> float:
        if home.gateway is not None:
            home.gateway_down()
            time.sleep(1.0)
        home.gateway_up()
        recover = home.back(stage.c1)
        stage.closed("F10", "by name: a new gateway pod at another address", home.look(), recover=recover)
        return recover

    EVIDENCE.target("back on a replaced gateway, by name", stage.where, best_of(3, replaced, 3), 3, generous=20)
    stage.stop_sidecar()
    stage.lab.client_up(stage.c1)


def test_outer_ipv6(connected: Stage) -> None:
    """The overlay between IPv6 addresses: ClusterIPs and pods of IPv6, the tunnel inside stays IPv4."""
    stage, home = connected, connected.home
    stage.stop_sidecar()
    stage.lab.run("c1", "ip link del vxlan0")
    home.gateway_down()
    by_name = {"gateway": None, "gateway_name": GATEWAY_NAME, "dns_servers": (ip_address(DNS_VIP),)}
    pods = (stage.lab.pods_v6(), stage.lab.pods_v4())
    home.clear()
    home.gateway_up(settings_changes={"outer": "6", "pods": pods})
    stage.lab.client_up(stage.c1, stage.lab.client_settings(**by_name, pods=pods))
    wait_for("ready", lambda: stage.lab.client_ready(stage.c1), pause=0.1)
    recover = home.back(stage.c1)
    assert "2001:db8:b::" in stage.lab.run("c1", "bridge fdb show dev vxlan0")
    stage.closed("C1", "connected, outer VXLAN over IPv6", home.watch(1.5), recover=recover)
    stage.stop_sidecar()
    stage.lab.run("c1", "ip link del vxlan0")
    home.gateway_down()
    home.gateway_up()
    stage.lab.client_up(stage.c1)


def test_openvpn(connected: Stage) -> None:
    stage, home = connected, connected.home
    folder = stage.folder / "openvpn"
    process = server(stage.lab, folder)
    home.kill_gluetun()
    environment = home.gateway_environment(VPN_TYPE="openvpn", OPENVPN_CUSTOM_CONFIG=str(configuration(folder)))
    environment = {key: value for key, value in environment.items() if not key.startswith("WIREGUARD")}
    home.gluetun(environment)
    recover = home.back(stage.c1)
    seen = home.watch(1.5, "answers", lambda seen: seen.alive() <= 10)
    stage.closed("C1", "connected by OpenVPN", seen, recover=recover)
    home.kill_gluetun()
    home.silent(stage.c1)
    seen = home.watch(1.5)
    stage.closed("F4", "OpenVPN: process killed", seen)
    assert seen.quiet, seen.answers
    home.clear()
    begun = time.monotonic()
    home.gluetun(environment)
    home.back(stage.c1)
    stage.closed("F4", "OpenVPN: container restarts", home.look(), recover=time.monotonic() - begun)
    home.kill_gluetun()
    stage.lab.stop(process, signal.SIGKILL)


def test_forwarded_ports(connected: Stage) -> None:
    """From the provider's end to the client's own port, by another number; nothing else comes in."""
    stage, home = connected, connected.home
    name = "netguard-forward-qbittorrent.media.svc.cluster.local"
    home.cluster_dns.call("set", name, [stage.c1.ip])
    stage.stop_sidecar()
    stage.lab.client_up(stage.c1, stage.lab.client_settings(forwards=(Port(6881),)))
    assert home.gateway is not None
    folder = stage.folder / home.gateway.name
    services = (
        settings.ClientService(CLIENTS),
        settings.ClientService(name, (settings.Forward(51413, 6881), settings.Forward(0, 6881))),
    )
    (folder / "gluetun").mkdir(exist_ok=True)
    (folder / "gluetun" / "forwarded_port").write_text("40123\n")
    stage.lab.write(home.gateway, {"clients": settings.render_clients(services)})
    app = home.child("c1", lambda: frames.Listener((6881, 6882)))
    inside = home.child("vpn", lambda: frames.Sender("wgs0"))
    home.clear()
    for port, what in ((51413, "the forward"), (40123, "the port that the provider handed out")):
        wait_for(what, lambda port=port: inside.call("connects", "203.0.113.194", port, "", 0.3), pause=0.2)
    assert not inside.call("connects", "203.0.113.194", 6882, "", 0.3)
    stage.closed("A1", "forwarded ports with another number and from the provider's file, new list without a restart", home.look())
    home.drop(app, inside)


def test_split_dns(connected: Stage) -> None:
    """Cluster names by the cluster's DNS, all others through the tunnel."""
    stage, home = connected, connected.home
    home.gateway_down()
    home.gateway_up(settings_changes={"dns": "split"})
    home.back(stage.c1)
    out = home.child("c1", frames.Sender)
    home.clear()
    home.cluster_dns.call("asked")
    from .probes import question

    wait_for("an answer", lambda: "example" in out.call("datagram", "203.0.113.129", 53, question("web.example.test")))
    asked: list[str] = []

    def by_cluster() -> bool:
        out.call("datagram", "203.0.113.129", 53, question("prowlarr.media.svc.cluster.local"))
        asked.extend(what for _source, _server, what in home.cluster_dns.call("asked"))
        return "prowlarr.media.svc.cluster.local" in asked

    wait_for("the cluster's DNS is asked", by_cluster)
    assert "web.example.test" not in asked
    assert home.gateway is not None
    resolv = (stage.folder / home.gateway.name / "resolv.conf").read_text()
    assert resolv.startswith("nameserver 203.0.113.193\n"), "rewritten by Gluetun: the sidecar's next life finds this"
    stage.stop_sidecar(home.gateway)
    stage.lab.gateway_sidecar(home.gateway)
    asked.clear()
    wait_for("the cluster's DNS is asked after the sidecar's restart", by_cluster)
    home.back(stage.c1)
    stage.closed("D1", "split: cluster names by the cluster's DNS, others through the tunnel", home.look())
    home.drop(out)
    home.gateway_down()


def test_long_outage(connected: Stage) -> None:
    """No gateway for a long time: closed all the while, the same sidecar, no back-off that outlives the outage.

    The sidecar's pauses never grow, so ten seconds show in each run what `make bench ARGS=outage` shows over ten minutes.
    """
    stage, home = connected, connected.home
    outage = float(os.environ.get("NETGUARD_OUTAGE", "10"))
    sidecar = stage.c1.processes["sidecar"]
    home.gateway_down()
    home.silent(stage.c1)
    home.clear()
    begun, seen = time.monotonic(), home.look()
    while time.monotonic() - begun < outage:
        seen = home.watch(min(10.0, outage))
        assert seen.total == 0, seen.examples
        assert seen.quiet, seen.answers
    stage.closed("F10", f"no gateway for {outage:.0f} s", seen)
    home.gateway_up()
    recover = home.back(stage.c1)
    assert stage.c1.processes["sidecar"] is sidecar
    assert sidecar.poll() is None, "the sidecar has never ended"
    stage.closed("F10", f"a gateway again after {outage:.0f} s", home.look(), recover=recover)
    EVIDENCE.target(f"back after {outage:.0f} s without a gateway", stage.where, recover, 3, generous=20)


def test_ends_at_once(connected: Stage) -> None:
    """Jobs must end: SIGTERM ends both sidecars at once, whatever they wait for."""
    stage, home = connected, connected.home
    times = []
    for _round in range(5):
        times.append(stage.stop_sidecar())
        stage.lab.client_sidecar(stage.c1)
        time.sleep(random.uniform(0.2, 0.8))
    home.back(stage.c1)  # who is open answers the gateway's goodbye
    assert home.gateway is not None
    times.append(stage.stop_sidecar(home.gateway))
    stage.lab.gateway_sidecar(home.gateway)
    EVIDENCE.target("longest end of a sidecar after SIGTERM", stage.where, max(times), 1, generous=8)
    home.back(stage.c1)


def test_cost_at_rest(connected: Stage) -> None:
    stage, home = connected, connected.home
    home.pause(True)
    time.sleep(1.5)
    process = stage.c1.processes["sidecar"]
    before, begun = ticks(process.pid), time.monotonic()
    time.sleep(15)
    used = (ticks(process.pid) - before) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - begun)
    memory = sum(resident(pid) for pid in group(process.pid))
    home.pause(False)
    EVIDENCE.measure("client sidecar at rest, all its processes", stage.where, f"{used:.1%} of one processor, {memory} KiB")
    assert used < 0.1, used
    assert memory < 16 * 1024, memory


def stat(pid: int) -> list[str]:
    """From the process's state on: [2] is its group, [11] to [14] its own time and that of the children it has waited for."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()


def group(leader: int) -> list[int]:
    """The processes of a container: the leader, and what it started."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(stat(int(path.name))[2]) == leader:
                found.append(int(path.name))
    return found


def ticks(leader: int) -> int:
    """Processor time of a container."""
    total = 0
    for pid in group(leader):
        with contextlib.suppress(OSError):
            total += sum(int(word) for word in stat(pid)[11:15])
    return total


def resident(pid: int) -> int:
    """KiB of memory that belong to this process alone (busybox's pages are shared)."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    return 0


#: Turns of a second each; one in the lane, where the other layouts' rows run beside it, so that it shows no more than that large
#: segments pass. `make bench ARGS="throughput"` takes many, alone.
TURNS = int(os.environ.get("NETGUARD_TURNS", "1"))
#: Mbit/s of a line such as homes have: there the tunnel is what is narrow, not the processor that encrypts.
LINE = 200


def test_throughput(connected: Stage) -> None:
    """The overlay's way against the gateway's own tunnel, in turns: as fast as the processors go, behind a home's line, and with
    guard and raw-frame list taken away, which is what scripts without a guard can reach in this lab at best."""
    stage, home = connected, connected.home
    assert home.gateway is not None
    gateway = home.gateway.name
    home.pause(True)
    for sensor in home.sensors.values():
        sensor.call("hold", True)
    sink = home.child("inet", lambda: frames.Sink(HOST, 5999))
    pumps = {where: home.child(where, lambda: frames.Pump(HOST, 5999)) for where in ("c1", gateway)}

    def compare(what: str) -> str:
        """Median and quartiles of the turns' ratios, and the median rates."""
        rates: dict[str, list[float]] = {where: [] for where in pumps}
        for turn in range(TURNS):
            for where in list(pumps)[:: 1 if turn % 2 else -1]:
                rates[where].append(pumps[where].call("measure", 1.0))
        ratios = [ours / own for ours, own in zip(*rates.values(), strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4) if TURNS > 1 else ratios * 3
        ours, own = (statistics.median(rates[where]) for where in pumps)
        text = f"{what} {middle:.2f} (half of {TURNS} turns {low:.2f} to {high:.2f}; {ours:.0f} of {own:.0f} Mbit/s)"
        print(text, flush=True)
        assert ours > 0, text
        return text

    said = [compare("guarded")]
    if TURNS > 1:
        lab, rate = stage.lab, f"rate {LINE}mbit burst 64kb latency 20ms"
        lab.run("home", f"tc qdisc add dev wan root tbf {rate}")
        said.append(compare(f"behind a line of {LINE} Mbit/s"))
        lab.run("home", "tc qdisc del dev wan root")
        stage.stop_sidecar(how=signal.SIGKILL)  # one that ends in order tells the gateway, which would stop sending
        open_pod(stage)
        said.append(compare("without the guard"))
        lab.client_sidecar(stage.c1)
        EVIDENCE.measure("throughput of the overlay's way / the gateway's own tunnel", stage.where, "; ".join(said))
    home.drop(sink, *pumps.values())
    for sensor in home.sensors.values():
        sensor.call("hold", False)
    home.pause(False)
    home.back(stage.c1)


def test_two_hundred_restarts(connected: Stage) -> None:
    """Containers of client and gateway in random order, never a leaked packet, never a client that stays behind."""
    stage, home = connected, connected.home
    chance = random.Random(4753)
    home.clear()
    count, worst = 0, 0.0

    def client_sidecar() -> None:
        stage.stop_sidecar(how=chance.choice((signal.SIGTERM, signal.SIGKILL)))
        stage.lab.client_sidecar(stage.c1)

    def client_init() -> None:
        done = stage.lab.client_init(stage.c1, stage.lab.client_settings())
        assert done.returncode == 0, done.stderr

    def gateway_sidecar() -> None:
        assert home.gateway is not None
        stage.stop_sidecar(home.gateway, chance.choice((signal.SIGTERM, signal.SIGKILL)))
        stage.lab.gateway_sidecar(home.gateway)

    def gluetun() -> None:
        home.kill_gluetun(chance.choice((signal.SIGTERM, signal.SIGKILL)))
        home.gluetun()

    def gateway() -> None:
        home.gateway_down()
        home.gateway_up()

    actions = [client_sidecar] * 6 + [client_init] + [gateway_sidecar] * 6 + [gluetun] * 6 + [gateway]
    while count < 200:
        for _burst in range(10):
            chance.choice(actions)()
            count += 1
        worst = max(worst, home.back(stage.c1))
    seen = home.look()
    stage.closed("R200", f"{count} restarts of client and gateway in random order", seen, recover=worst)
