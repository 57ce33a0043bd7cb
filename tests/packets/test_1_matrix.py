# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The states and faults of a client's life, in this order: each row begins connected unless it says otherwise."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from . import frames
from .conftest import EVIDENCE, Stage
from .home import WG_PORT, Seen
from .lab import HOST, PATIENCE, wait_for


@pytest.mark.everywhere
def test_c0_without_anything_every_probe_is_seen(stage: Stage) -> None:
    """The positive control: what no sensor could see would prove nothing."""
    kinds = stage.home.probers["c1"].call("every")
    assert len(kinds) > 20, kinds
    places = ("c1 pod", "node1 uplink", "home router", "inet internet")
    sensors = [*places, *(f"{place} counter" for place in places), "node1 flows", "home flows", "public resolver"]

    def missing(seen: Seen) -> list[str]:
        found = [kind for kind in kinds if kind != "resolver unbound" and not seen.alive(kind)]
        found += [sensor for sensor in sensors if not seen.leaks[sensor]]
        return found if seen.ipv6 else [*found, "IPv6 at the pod's link"]

    seen = stage.home.watch(0.0, "an answer to each kind of probe, and every sensor sees probes", missing)
    stage.record("C0", "no guard, no gateway: the positive control", seen)
    assert not stage.home.inbound(stage.c1)
    for node in ("node1", "node2", "home"):  # flows of the control: from here on a packet outside begins a new one
        stage.lab.exec(node, "conntrack", "-D", "-s", stage.c1.ip, check=False)
        stage.lab.exec(node, "conntrack", "-f", "ipv6", "-D", "-s", stage.c1.ip6, check=False)


@pytest.mark.everywhere
def test_f1_before_its_gateway(stage: Stage) -> None:
    """The client starts, its gateway does not exist: closed from the end of the first container on, and not ready."""
    begun = time.monotonic()
    done = stage.lab.client_init(stage.c1, stage.lab.client_settings())
    assert done.returncode == 0, done.stdout + done.stderr
    block = time.monotonic() - begun
    stage.home.known(stage.c1)
    seen = stage.home.watch(1.0)
    stage.closed("F1", "first container has ended, no sidecar, no gateway", seen, block=block)
    stage.lab.client_sidecar(stage.c1)
    seen = stage.home.watch(2.0)
    stage.closed("F1", "sidecar waits, the gateway does not exist", seen)
    assert not stage.lab.client_ready(stage.c1)
    wait_for("it says what it waits for", lambda: "waits for the gateway" in stage.logs(), pause=0.1)


@pytest.mark.everywhere
def test_c1_connected(stage: Stage) -> None:
    stage.home.clear()
    begun = time.monotonic()
    stage.home.gateway_up()
    stage.connect()
    first = stage.home.look()
    stage.closed("F1", "the gateway is created after its client", first, recover=first.first_after(begun))
    kinds = [f"{kind} unbound" for kind in ("udp4", "icmp4", "tcp4", "dns-udp4", "dns-tcp4", "resolver")]
    seen = stage.home.watch(
        2.0,
        "answers to every kind of probe, by the VPN's address",
        lambda seen: [kind for kind in kinds if seen.alive(kind) < 5] + ["by the VPN"] * (seen.by_vpn <= 20),
    )
    stage.closed("C1", "connected", seen)
    assert stage.home.gateway is not None
    client = stage.lab.metrics(stage.c1, "client-ready.sh")
    assert client["netguard_overlay_open"] == client["netguard_tunnel_up"] == 1, client
    gateway = stage.lab.metrics(stage.home.gateway, "gateway-ready.sh")
    assert gateway["netguard_gateway_tunnel_up"] == gateway["netguard_gateway_clients"] == 1, gateway


def test_the_gateways_own_rules(connected: Stage) -> None:
    """What is promised of a gateway that works, and what its own processes may do when the VPN does not."""
    stage, home = connected, connected.home
    assert home.gateway is not None
    name = home.gateway.name
    forward = [line for line in stage.lab.run(name, "iptables -S").splitlines() if "FORWARD" in line]
    assert "-P FORWARD DROP" in forward
    accepts = [line for line in forward if line.endswith("-j ACCEPT")]
    assert accepts
    assert all(("-i vxlan0 -o tun0" in line) or ("-i tun0 -o vxlan0" in line) for line in accepts), accepts
    assert not [line for line in forward if "eth0" in line]
    found = {line.split(":")[0] for line in stage.lab.run(name, "ip rule").splitlines()}
    assert found >= {"98", "99", "100", "101"}, found
    home.kill_gluetun()
    home.silent(stage.c1)
    out = home.child(name, frames.Sender)
    home.clear()
    assert not out.call("connects", HOST, 4243, "", 0.5)
    stage.closed("F4", "VPN process gone: a process of the gateway's pod tries the internet", home.look())
    home.drop(out)


def test_f1_gluetun_has_not_started(connected: Stage) -> None:
    """The gateway's pod is there, Gluetun is not yet: nothing that comes by the overlay leaves by eth0."""
    stage, home = connected, connected.home
    home.gateway_down()
    home.gateway_up(gluetun=False)
    wait_for("the overlay opens", lambda: "default" in stage.lab.run("c1", "ip route show default dev vxlan0"))
    seen = home.watch(2.0)
    stage.closed("F1", "the overlay is open, Gluetun has not started", seen)
    assert seen.quiet, seen.answers
    home.gluetun()
    stage.closed("F1", "Gluetun starts", home.look(), recover=home.back(stage.c1))


@pytest.mark.everywhere
def test_c2_bound_to_the_pods_own_interface(connected: Stage) -> None:
    kinds = [kind for kind in connected.home.probers["c1"].call("every") if kind.endswith((" eth0", " source"))]
    assert len(kinds) > 10, kinds
    seen = connected.home.watch(1.5, "probes of each kind", lambda seen: [kind for kind in kinds if seen.kinds.get(kind, 0) <= 3])
    connected.closed("C2", "connected, probes bound to eth0 and to its address", seen)
    assert not [kind for kind in kinds if seen.alive(kind)]


@pytest.mark.everywhere
def test_d1_names_go_through_the_tunnel(connected: Stage) -> None:
    seen = connected.home.watch(
        1.5,
        "names at the tunnel's resolver, and (D2: explicit public resolvers) at the public one by the VPN's address alone",
        lambda seen: [name for name in ("tunnel", "public") if seen.names[name] <= 3],
    )
    connected.closed("D1", "names asked at the pod's resolver", seen, note=f"{seen.names['tunnel']} at the tunnel's resolver")
    assert seen.names["cluster"] == 0


def test_f2_endpoint_never_answers(connected: Stage) -> None:
    stage, home = connected, connected.home
    home.kill_gluetun()
    drop_endpoint(stage, True)
    home.gluetun()
    home.silent(stage.c1)
    time.sleep(1.0)
    seen = home.watch(2.5)
    stage.closed("F2", "connecting: the endpoint never answers", seen)
    assert seen.quiet, seen.answers
    assert seen.by_vpn == 0
    wait_for("not ready", lambda: not stage.lab.client_ready(stage.c1), pause=0.2)
    drop_endpoint(stage, False)
    recover = home.back(stage.c1)
    stage.closed("F2", "the endpoint answers at last", home.look(), recover=recover)


def drop_endpoint(stage: Stage, yes: bool) -> None:
    text = "table inet fault\ndelete table inet fault\n"
    if yes:
        rules = f"udp dport {WG_PORT} drop; udp sport {WG_PORT} drop;"
        text += f"table inet fault {{ chain f {{ type filter hook forward priority 0; {rules} }} }}"
    stage.lab.nft("home", text)


def test_f3_refused_key(connected: Stage) -> None:
    import base64

    from . import wireguard

    stage, home = connected, connected.home
    home.kill_gluetun()
    wrong = base64.b64encode(wireguard.private_key()).decode()
    home.gluetun(home.gateway_environment(WIREGUARD_PRIVATE_KEY=wrong))
    home.silent(stage.c1)
    time.sleep(1.0)
    seen = home.watch(2.0)
    stage.closed("F3", "the server does not know the key", seen)
    assert seen.quiet, seen.answers
    home.kill_gluetun()
    home.gluetun(home.gateway_environment(WIREGUARD_PRIVATE_KEY="no key"))
    assert home.gateway is not None
    wait_for("the stand-in exits", lambda: home.gateway.processes["gluetun"].poll() == 1)  # type: ignore[union-attr]
    seen = home.watch(1.0)
    stage.closed("F3", "Gluetun refuses its settings and exits", seen)
    assert seen.quiet, seen.answers
    home.kill_gluetun()


@pytest.mark.everywhere
def test_f4_vpn_process_killed(connected: Stage) -> None:
    stage, home = connected, connected.home
    whole, after = [], []
    for _round in range(3):
        home.kill_gluetun()
        home.silent(stage.c1)
        home.clear()
        begun = time.monotonic()
        home.gluetun()
        up = home.vpn_up()
        wait_for("traffic", lambda: home.answers(stage.c1) > 0)
        seen = home.look()
        whole.append(seen.first_after(begun) or PATIENCE)
        after.append(max(0.0, begun + whole[-1] - up))
        stage.closed("F4", "VPN process killed, its container restarts in the same namespace", seen, recover=whole[-1])
    what = "back after SIGKILL of the VPN process: after its own start"
    EVIDENCE.target(what, stage.where, min(after), 0.5, generous=10, note=f"{min(whole):.2f} s with it")
    home.kill_gluetun()
    home.silent(stage.c1)
    seen = home.watch(2.0)
    stage.closed("F4", "VPN process gone for good", seen)
    assert seen.quiet, seen.answers


def test_f5_vpn_process_stopped(connected: Stage) -> None:
    stage, home = connected, connected.home
    assert home.gateway is not None
    signal_group(home.gateway.processes["gluetun"].pid, signal.SIGSTOP)
    home.silent(stage.c1)
    seen = home.watch(2.0)
    stage.closed("F5", "VPN process stands still", seen)
    assert seen.quiet, seen.answers
    signal_group(home.gateway.processes["gluetun"].pid, signal.SIGCONT)
    recover = home.back(stage.c1)
    stage.closed("F5", "VPN process goes on", home.look(), recover=recover)


def signal_group(pid: int, how: int) -> None:
    import os

    os.killpg(pid, how)


def test_f6_endpoint_lost_and_found(connected: Stage) -> None:
    stage, home = connected, connected.home
    drop_endpoint(stage, True)
    home.silent(stage.c1)
    seen = home.watch(3.0)
    stage.closed("F6", "the endpoint's port is dropped mid-session", seen)
    assert seen.quiet, seen.answers
    drop_endpoint(stage, False)
    recover = home.back(stage.c1)
    stage.closed("F6", "the endpoint is back", home.look(), recover=recover)


@pytest.mark.layout("cilium-ash")
def test_f7_server_forgets_the_peer(connected: Stage) -> None:
    stage, home = connected, connected.home
    home.peer(False)
    home.silent(stage.c1)
    seen = home.watch(2.0)
    stage.closed("F7", "the server has removed our key", seen)
    assert seen.quiet, seen.answers
    home.peer(True)
    recover = home.back(stage.c1)
    stage.closed("F7", "the server knows us again", home.look(), recover=recover)


def test_f8_routes_and_rules_of_the_gateway(connected: Stage) -> None:
    stage, home = connected, connected.home
    assert home.gateway is not None
    stage.lab.run(home.gateway.name, "ip rule del pref 101")
    home.silent(stage.c1)
    seen = home.watch(1.5)
    stage.closed("F8", "the gateway's rule into the tunnel is deleted", seen)
    assert not seen.alive()
    stage.lab.run(home.gateway.name, "ip rule add not fwmark 51820 lookup 51820 pref 101")
    home.back(stage.c1)
    home.ups = home.counted_ups()
    stage.lab.run(home.gateway.name, "ip link del tun0")
    home.clear()
    home.vpn_up()
    recover = home.back(stage.c1)
    stage.closed("F8", "the tunnel's link is deleted", home.look(), recover=recover)


@pytest.mark.everywhere
def test_f8_routes_of_the_client(connected: Stage) -> None:
    """Somebody gives the pod its old default routes back."""
    stage, home = connected, connected.home
    saved = stage.lab.run("c1", "ip route show table 4753").splitlines()
    old = next(line for line in saved if line.startswith("default"))
    home.clear()
    stage.lab.exec("c1", "ip", "route", "replace", *old.replace("onlink", "").split(), "onlink", check=False)
    stage.lab.run("c1", "ip -6 route add default via fe80::1 dev eth0 metric 1", check=False)
    stage.lab.run("c1", "ip route del default dev vxlan0", check=False)
    time.sleep(1.0)
    seen = home.look()
    stage.closed("F8", "the client's default routes lead out again, both families", seen)
    recover = home.back(stage.c1)
    stage.closed("V1", "IPv6 default route present, tunnel IPv4 only", home.look(), recover=recover)
    assert seen.ipv6 == 0


@pytest.mark.everywhere
def test_f10_gateway_replaced(connected: Stage) -> None:
    """The best of up to three counts: a busy machine adds its own seconds to each."""
    stage, home = connected, connected.home

    def replaced() -> float:
        home.clear()
        home.gateway_down()
        time.sleep(1.0)
        stage.closed("F10", "the gateway's pod is gone", home.look())
        home.gateway_up()
        recover = home.back(stage.c1)
        stage.closed("F10", "a new gateway pod at another address", home.look(), recover=recover)
        return recover

    EVIDENCE.target("back on a replaced gateway", stage.where, best_of(3, replaced, 3), 3, generous=20)


@pytest.mark.everywhere
def test_f10_gateway_leaves(connected: Stage) -> None:
    """Its address dies and the routes to it go in the same moment, so that frames would take the node's default route. A gateway
    that is killed is the positive control; one that is deleted has said goodbye before, and every client is closed by then."""
    stage, home = connected, connected.home

    def gone(leave: Callable[[], object]) -> tuple[float, Seen]:
        leave()
        died = time.monotonic()
        stage.lab.node_routes("del")
        stage.lab.exec("node1", "conntrack", "-F", check=False)
        home.silent(stage.c1)
        wait_for("the overlay closes", lambda: "default" not in stage.lab.run("c1", "ip route show default dev vxlan0"))
        seen = home.watch_on(2.0)
        stage.lab.node_routes()
        return died, seen

    home.clear()
    died, seen = gone(home.gateway_down)
    window = seen.last_leak - died
    stage.record("F10", "the gateway is killed, its address and the way to it gone: the positive control", seen, block=window)
    assert {name for name, count in seen.leaks.items() if count} >= {"home router"}, seen.leaks
    home.gateway_up()
    home.back(stage.c1)
    wait_for("the gateway has heard its client", lambda: home.heard(stage.c1))
    home.clear()
    begun = time.monotonic()
    died, seen = gone(home.gateway_leaves)
    stage.closed("F10", "the gateway is deleted: it says goodbye, then its address and the way to it are gone", seen)
    EVIDENCE.target("a gateway's goodbye, until its last container has ended", stage.where, died - begun, 2, generous=20)
    home.gateway_up()
    stage.closed("F10", "the next gateway", home.look(), recover=home.back(stage.c1))


def best_of(rounds: int, measure: Callable[[], float], target: float) -> float:
    """The shortest of some, no more than needed to see the target met."""
    best = measure()
    while best >= target and rounds > 1:
        rounds -= 1
        best = min(best, measure())
    return best


def test_e2_reconnect(connected: Stage) -> None:
    stage, home = connected, connected.home
    home.clear()
    home.kill_gluetun(signal.SIGTERM)
    time.sleep(0.5)
    home.gluetun()
    recover = home.back(stage.c1)
    stage.closed("E2", "orderly restart of the VPN", home.look(), recover=recover)
