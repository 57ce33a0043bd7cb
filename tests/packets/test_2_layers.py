# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each layer alone: the guard without a policy (every other row), the policy without a guard, the gateway without its firewall."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

import pytest

from . import frames
from .conftest import Stage
from .lab import GATEWAY_VIP, HOST, PORT, VPN, wait_for
from .sensors import MARKER

#: What the kill switch of a client would say: the gateway's pods by any port, one declared edge.
POLICY = (f"ip daddr 198.51.100.128/25 udp dport {PORT}", "ip daddr 198.51.100.20 tcp dport 5432")


def open_pod(stage: Stage) -> None:
    """An application with NET_ADMIN undoes everything that stands in the pod's own namespace."""
    for tool in ("iptables", "ip6tables"):
        for chain in ("INPUT", "OUTPUT", "FORWARD"):
            stage.lab.run("c1", f"{tool} -P {chain} ACCEPT")
        stage.lab.run("c1", f"{tool} -F")
    stage.lab.run("c1", "tc qdisc del dev eth0 clsact", check=False)
    stage.lab.run("c1", "nft delete table netdev netguard", check=False)


def test_c0_start(stage: Stage) -> None:
    stage.connect()


@pytest.mark.everywhere
def test_f9_policy_alone(connected: Stage) -> None:
    """Rules flushed, policies ACCEPT, sidecar gone, routes lead out: the policy on the node still holds."""
    stage, home = connected, connected.home
    stage.lab.policy(stage.c1, POLICY)
    stage.stop_sidecar()
    open_pod(stage)
    old = next(line for line in stage.lab.run("c1", "ip route show table 4753").splitlines() if line.startswith("default"))
    stage.lab.exec("c1", "ip", "route", "replace", *old.split())
    time.sleep(0.2)
    seen = home.watch(2.0, "the application is free to try", lambda seen: seen.leaks["c1 pod"] <= 50)
    stage.closed("F9", "guard flushed and policies ACCEPT, sidecar gone: policy alone", seen, ignore=("c1 pod",))
    stage.lab.no_policy(stage.c1)
    seen = home.watch(1.0, "packets past the node", lambda seen: seen.leaks["node1 uplink"] <= 10)
    stage.record("F9", "policy removed as well: the positive control", seen)
    stage.lab.client_sidecar(stage.c1)
    wait_for("closed again", lambda: home.watch(0.5).total == 0)
    stage.closed("F9", "the sidecar puts guard and routes back", home.watch(1.0), recover=home.back(stage.c1))


def test_f9_guard_repairs_itself(connected: Stage) -> None:
    stage, home = connected, connected.home
    open_pod(stage)
    begun = time.monotonic()
    wait_for("the guard is back", lambda: "-A OUTPUT -j NETGUARD-OUT" in stage.lab.run("c1", "iptables-save"), pause=0.1)
    block = time.monotonic() - begun
    wait_for("closed again, both families", lambda: home.watch(0.3).total == 0)
    stage.closed("F9", "guard flushed while the sidecar lives: put back", home.watch(1.0), block=block)
    home.back(stage.c1)


@pytest.mark.everywhere
def test_f9_the_kernel_closes_alone(connected: Stage) -> None:
    """The sidecar is killed under an open overlay and does not come back: the lease on the gateway's last answer ends."""
    stage, home = connected, connected.home
    home.clear()
    stage.stop_sidecar(how=signal.SIGKILL)
    begun = time.monotonic()
    home.silent(stage.c1)
    assert "default" in stage.lab.run("c1", "ip route show default dev vxlan0"), "nobody has closed it but the kernel"
    seen = home.look()
    last = seen.last_before(time.monotonic())
    seen = home.watch(1.5)
    block = max(0.0, (last or begun) - begun)
    stage.closed("F9", "the client's sidecar is killed and stays away: the kernel alone", seen, block=block)
    assert seen.quiet, seen.answers
    stage.lab.client_sidecar(stage.c1)
    stage.closed("F9", "the sidecar is there again", home.look(), recover=home.back(stage.c1))


@pytest.mark.layout("cilium-ash")
def test_without_the_kernels_lease(connected: Stage) -> None:
    """Kernels without the `recent` match: the sidecar closes; a gateway's goodbye is not answered, and waits until it has."""
    stage, home = connected, connected.home
    assert home.gateway is not None
    libraries = stage.folder / "xtables"
    shutil.copytree(xtables(), libraries)
    (libraries / "libxt_recent.so").unlink()
    stage.stop_sidecar()
    stage.lab.more_environment["XTABLES_LIBDIR"] = str(libraries)
    try:
        stage.lab.client_up(stage.c1)
    finally:
        stage.lab.more_environment.clear()
    home.back(stage.c1)
    assert "-m recent" not in stage.lab.run("c1", "iptables-save")
    wait_for("the gateway has heard its client", lambda: home.heard(stage.c1))
    home.clear()
    home.gateway_leaves()
    stage.lab.node_routes("del")
    stage.lab.exec("node1", "conntrack", "-F", check=False)
    seen = home.watch_on(3.0)
    stage.lab.node_routes()
    stage.closed("F10", "no `recent` match: the gateway is deleted, and waits for what its client makes of silence", seen)
    home.gateway_up()
    stage.closed("F10", "no `recent` match: the next gateway", home.look(), recover=home.back(stage.c1))
    stage.stop_sidecar()
    stage.lab.client_up(stage.c1)


@pytest.mark.parametrize(
    ("who", "when", "what", "back"),
    [
        ("client", "-S NETGUARD-PEER-OUT", "-F NETGUARD-PEER-OUT", "-A NETGUARD-PEER-OUT -d "),
        ("client", "-S NETGUARD-PEER-OUT", "-D NETGUARD-IN 1", "-A NETGUARD-IN -i lo -j ACCEPT"),
        ("gateway", "-S NETGUARD-FORWARD", "-F NETGUARD-FORWARD", " -i vxlan0 -o tun0 -j ACCEPT"),
        ("gateway", "-S NETGUARD-FORWARD", "-D FORWARD -j NETGUARD-FORWARD", "-A FORWARD -j NETGUARD-FORWARD"),
    ],
    ids=lambda value: value.replace(" ", "_"),
)
def test_f9_changed_before_the_first_look(connected: Stage, who: str, when: str, what: str, back: str) -> None:
    """Rules change between being loaded and being looked at: what stands there then must not pass for what was meant."""
    stage, home, lab = connected, connected.home, connected.lab
    assert home.gateway is not None
    pod = stage.c1 if who == "client" else home.gateway
    tools, ours = stage.folder / f"late-{who}-{len(what)}", lab.tools
    shutil.copytree(ours, tools, symlinks=True)
    iptables, save, flag = shutil.which("iptables"), shutil.which("iptables-save"), tools / "once"
    (tools / "iptables-save").unlink()
    (tools / "iptables-save").write_text(
        f"#!/bin/sh\nif [ -e {flag} ] && {iptables} -w 5 {when} | grep -q ACCEPT; then\n"
        f'  rm {flag}\n  {iptables} -w 5 {what}\nfi\nexec {save} "$@"\n'
    )
    (tools / "iptables-save").chmod(0o755)
    stage.stop_sidecar(pod)
    flag.touch()
    home.clear()
    lab.tools = str(tools)
    try:
        if who == "client":
            lab.client_sidecar(pod)
        else:
            lab.gateway_sidecar(pod)
    finally:
        lab.tools = ours
    wait_for("the rules are changed", lambda: not flag.exists())
    wait_for("the rules are back", lambda: back in lab.run(pod.name, "iptables-save -t filter"))
    state = f"{who}: rules change while they are loaded ({what})"
    stage.closed("F9", state, home.look(), recover=home.back(stage.c1))
    stage.stop_sidecar(pod)
    if who == "client":
        lab.client_sidecar(pod)
    else:
        lab.gateway_sidecar(pod)


@pytest.mark.layout("cilium-ash")
def test_a_ping_of_whole_seconds(connected: Stage) -> None:
    """An image whose ping takes no fraction of a second: the lease is longer, and the overlay stays open on it."""
    stage, home, lab = connected, connected.home, connected.lab
    tools, ours = stage.folder / "whole-seconds", lab.tools
    shutil.copytree(ours, tools, symlinks=True)
    ping = (tools / "ping").resolve()
    (tools / "ping").unlink()
    (tools / "ping").write_text(f'#!/bin/sh\ncase " $* " in\n  *" -i 0."*) exit 1 ;;\nesac\nexec {ping} ping "$@"\n')
    (tools / "ping").chmod(0o755)
    stage.stop_sidecar()
    lab.tools = str(tools)
    try:
        lab.client_up(stage.c1)
    finally:
        lab.tools = ours
    wait_for("ready", lambda: lab.client_ready(stage.c1), pause=0.1)
    assert "--seconds 3 " in lab.run("c1", "iptables-save")
    seen = home.watch(4.0, "answers", lambda seen: seen.alive() <= 50)
    opened = lab.metrics(stage.c1, "client-ready.sh")["netguard_overlay_opened_total"]
    stage.closed("C1", "a ping of whole seconds: connected", seen, note=f"opened {opened:.0f} times")
    home.gateway_down()
    home.silent(stage.c1)
    seen = home.watch(1.5)
    stage.closed("F10", "a ping of whole seconds: the gateway's pod is gone", seen)
    home.gateway_up()
    home.back(stage.c1)
    stage.stop_sidecar()
    lab.client_up(stage.c1)


def xtables() -> Path:
    """The folder of the matches that iptables loads."""
    found = next(Path("/usr/lib").glob("**/xtables/libxt_recent.so"), None)
    assert found is not None, "the matches of iptables are not where they were expected"
    return found.parent


def test_f9_the_first_container_again(connected: Stage) -> None:
    """It closes the pod behind the back of a sidecar that is closed itself, and knows its gateway: the sidecar must see it."""
    stage, home = connected, connected.home
    home.clear()
    lost = f"chain f {{ type filter hook forward priority 0; udp dport {PORT} drop; }}"
    stage.lab.nft("node2", f"table inet lost\ndelete table inet lost\ntable inet lost {{ {lost} }}")
    wait_for("the overlay closes", lambda: "default" not in stage.lab.run("c1", "ip route show default dev vxlan0"))
    done = stage.lab.client_init(stage.c1, stage.lab.client_settings())
    assert done.returncode == 0, done.stderr
    stage.lab.nft("node2", "delete table inet lost")
    stage.closed("F9", "the first container runs again beside a closed sidecar", home.look(), recover=home.back(stage.c1))
    stage.lab.run("c1", "iptables -I NETGUARD-OPEN -j ACCEPT")
    wait_for("a rule too many goes", lambda: "-A NETGUARD-OPEN -j ACCEPT" not in stage.lab.run("c1", "iptables-save"))


def test_the_legacy_build_is_refused(stage: Stage) -> None:
    """Its rules are in tables that the other build does not see: the first container stops, unless the nft build is there."""
    lab = stage.lab
    pod, ours = stage.home.client_pod("old", 14), lab.tools
    tools = stage.folder / "legacy"
    shutil.copytree(ours, tools, symlinks=True)
    for tool in ("iptables", "ip6tables"):
        for part in ("", "-save", "-restore"):
            (tools / f"{tool}{part}").unlink()
            (tools / f"{tool}{part}").symlink_to(str(shutil.which(f"{tool}-legacy{part}")))
            (tools / f"{tool}-nft{part}").rename(tools / f"kept-{tool}{part}")
    lab.tools = str(tools)
    try:
        done = lab.client_init(pod, lab.client_settings())
        assert done.returncode == 1, done.stdout
        assert "iptables is the legacy build" in done.stdout + done.stderr
        assert "-A" not in lab.run("old", "iptables-legacy-save", check=False)
        for tool in ("iptables", "ip6tables"):
            for part in ("", "-save", "-restore"):
                (tools / f"kept-{tool}{part}").rename(tools / f"{tool}-nft{part}")
        done = lab.client_init(pod, lab.client_settings())
        assert done.returncode == 0, done.stdout + done.stderr
        assert "-A OUTPUT -j NETGUARD-OUT" in lab.run("old", "iptables-nft-save")
    finally:
        lab.tools = ours
        stage.home.remove(pod)


def test_ip6tables_alone_is_missing(stage: Stage) -> None:
    """A kernel that speaks IPv6, and no tool to close it: the first container stops."""
    lab = stage.lab
    pod, ours = stage.home.client_pod("old6", 17), lab.tools
    tools = stage.folder / "no-ip6tables"
    shutil.copytree(ours, tools, symlinks=True)
    for path in tools.glob("ip6tables*"):
        path.unlink()
    lab.tools = str(tools)
    try:
        done = lab.client_init(pod, lab.client_settings())
    finally:
        lab.tools = ours
        stage.home.remove(pod)
    assert done.returncode == 1, done.stdout
    assert "ip6tables" in done.stdout + done.stderr
    assert "the pod cannot be closed" in done.stdout + done.stderr


def test_foreign_rules_stay(stage: Stage) -> None:
    """Others (a mesh, the runtime) have rules of their own: none is lost, and none comes before ours."""
    lab = stage.lab
    pod = stage.home.client_pod("mesh", 18)
    foreign = (
        "-t nat -N OTHER",
        "-t nat -A OUTPUT -j OTHER",
        "-t mangle -A PREROUTING -p tcp -j MARK --set-mark 1337",
        "-t raw -A PREROUTING -p tcp --dport 1 -j ACCEPT",
        "-N OTHER",
        "-A INPUT -j OTHER",
        "-A OUTPUT -j ACCEPT",
    )
    for tool in ("iptables", "ip6tables"):
        for rule in foreign:
            lab.run("mesh", f"{tool} {rule}")
    before = {
        tool: [line for line in lab.run("mesh", f"{tool}-save").splitlines() if line[:3] == "-A "]
        for tool in ("iptables", "ip6tables")
    }
    for _run in range(2):  # a first container may run again
        done = lab.client_init(pod, lab.client_settings())
        assert done.returncode == 0, done.stdout + done.stderr
        for tool, rules in before.items():
            now = lab.run("mesh", f"{tool}-save").splitlines()
            assert [line for line in now if line in rules] == rules
            for chain in ("INPUT", "OUTPUT"):
                jumps = [line for line in now if line.startswith(f"-A {chain} -j") and "NETGUARD" in line]
                firsts = [next(line for line in part if line.startswith(f"-A {chain} ")) for part in tables(now, "filter")]
                assert firsts == jumps, (tool, chain, now)
    stage.home.remove(pod)


def tables(lines: list[str], name: str) -> list[list[str]]:
    """The parts of a saved rule set that are of this table."""
    text = "\n".join(lines)
    return [part.splitlines()[1:] for part in text.split("*")[1:] if part.startswith(f"{name}\n")]


def test_f9_gateway_firewall_flushed(connected: Stage) -> None:
    """What Gluetun does when it cannot start: filter flushed, policies ACCEPT, tunnel gone, masquerading in place."""
    stage, home = connected, connected.home
    assert home.gateway is not None
    name = home.gateway.name
    home.kill_gluetun()
    home.clear()
    for tool in ("iptables", "ip6tables"):
        stage.lab.run(name, f"{tool} -F")
        for chain in ("INPUT", "OUTPUT", "FORWARD"):
            stage.lab.run(name, f"{tool} -P {chain} ACCEPT")
    stage.lab.run(name, "ip rule del pref 101", check=False)
    stage.lab.run(name, "iptables -t nat -I POSTROUTING -j MASQUERADE")
    home.silent(stage.c1)
    stage.closed("F9", "gateway: filter flushed, policies ACCEPT, no tunnel: mangle alone", home.look())
    stage.stop_sidecar_of_gateway()
    stage.lab.run(name, "iptables -F")
    stage.lab.run(name, "iptables -P FORWARD ACCEPT")
    seen = home.watch(1.5)
    stage.closed("F9", "the same, and its sidecar gone", seen)
    assert seen.quiet, seen.answers
    stage.lab.run(name, "iptables -t nat -D POSTROUTING -j MASQUERADE")
    stage.lab.gateway_sidecar(home.gateway)
    home.gluetun()
    stage.closed("F9", "gateway: sidecar and Gluetun back", home.look(), recover=home.back(stage.c1))


def test_f9_bad_post_rule(connected: Stage) -> None:
    """v3.41.3 opens its chains when enabling fails, and exits, again and again."""
    stage, home = connected, connected.home
    rules = stage.folder / "post-rules.txt"
    rules.write_text("iptables -A INPUT -m no-such-match -j ACCEPT\n")
    home.kill_gluetun()
    assert home.gateway is not None
    for _round in range(2):
        home.clear()
        home.gluetun({**home.gateway_environment(), "STANDIN_POST_RULES": str(rules)})
        wait_for("the stand-in exits", lambda: home.gateway.processes["gluetun"].poll() == 1)  # type: ignore[union-attr]
        home.kill_gluetun()
        time.sleep(1.0)
        stage.closed("F9", "a bad post-rule: Gluetun opens its chains and exits", home.look())
    home.gluetun()
    stage.closed("F9", "the rule is mended", home.look(), recover=home.back(stage.c1))


@pytest.mark.everywhere
def test_c2_raw_frames(connected: Stage) -> None:
    """AF_PACKET skips netfilter's OUTPUT: the egress list holds it, by tc not for sockets that bypass queueing."""
    stage, home = connected, connected.home
    sender = home.child("c1", frames.Sender)
    router = stage.router_mac()
    held = (stage.folder / "c1" / "state-sidecar" / "raw").read_text().strip()
    packet = frames.ip4(stage.c1.ip, HOST, 17, frames.udp(4000, 4242, MARKER + b"raw"))
    home.clear()
    assert sender.call("packet", router, packet) == 0 or held == "nft"
    seen = home.look()
    stage.closed("C2", f"raw frames (held by {held})", seen)
    assert held == ("nft" if stage.shell == "dash" else "tc")
    stage.lab.policy(stage.c1, POLICY)
    home.clear()
    sender.call("packet", router, packet, True)
    seen = home.look()
    stage.lab.no_policy(stage.c1)
    if held == "nft":
        stage.closed("C2", "raw frames that bypass queueing", seen)
    else:
        stage.closed("C2", "raw frames that bypass queueing: not held by tc, held by the policy", seen, ignore=("c1 pod",))
    # a frame of the overlay made by hand: an inner packet of another client's
    forged = frames.vxlan(frames.ethernet(frames.overlay_mac("203.0.113.129"), frames.overlay_mac("203.0.113.139"), 0x0800,
                                          frames.ip4("203.0.113.139", HOST, 17, frames.udp(1, 4242, MARKER))))  # fmt: skip
    home.clear()
    sender.call("packet", router, frames.ip4(stage.c1.ip, GATEWAY_VIP, 17, frames.udp(PORT, PORT, forged)))
    assert sender.call("datagram", GATEWAY_VIP, PORT, forged) == "PermissionError"
    seen = home.look()
    stage.closed("C2", "frames of the overlay made by the application itself", seen)
    sender.end()


def test_c3_clear_text_to_the_endpoint(connected: Stage) -> None:
    stage, home = connected, connected.home
    sender = home.child("c1", frames.Sender)
    home.clear()
    assert sender.call("datagram", VPN, 51820, MARKER, 0, "eth0") == "PermissionError"
    sender.call("datagram", VPN, 51820, MARKER)
    time.sleep(0.5)
    stage.closed("C3", "the client talks to the VPN's endpoint in clear", home.look())
    sender.end()
