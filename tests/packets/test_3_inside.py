# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Inside the cluster: what is declared works in every row, what is not does not; neighbours that lie; a node without routes."""

from __future__ import annotations

import signal
import time
from ipaddress import ip_network

import pytest

from . import frames
from .conftest import EVIDENCE, Stage
from .home import Seen
from .lab import DNS_VIP, GATEWAY_VIP, HOST, NODES, PORT, wait_for
from .sensors import MARKER

C2_ADDRESS = "203.0.113.139"


def dropped(stage: Stage) -> list[float]:
    """Packets on their way out that the guard has dropped, IPv4 and IPv6, as the sidecar's metrics tell."""
    metrics = stage.lab.metrics(stage.c1, "client-ready.sh")
    return [metrics[f'netguard_guard_dropped_packets{{family="{family}",chain="OUT"}}'] for family in (4, 6)]


@pytest.mark.everywhere
def test_a1_declared_ways(stage: Stage) -> None:
    """Egress by address and port, ingress by source and port; also while the VPN is down."""
    stage.connect()
    home = stage.home
    out = home.child("c1", frames.Sender)
    node_ip = NODES["node1"][0]
    for state in ("connected", "VPN gone"):
        home.clear()
        before = dropped(stage)
        assert out.call("connects", "198.51.100.20", 5432, "", 20), "the declared use"
        assert not out.call("connects", "2001:db8:a::14", 5432, "", 0.3), "declared by IPv4 alone"
        for where, port in (("198.51.100.20", 5433), ("198.51.100.21", 5432), (node_ip, 10250), ("169.254.169.254", 80)):
            assert not out.call("connects", where, port, "", 0.3), (where, port)
        assert all(now > was for now, was in zip(dropped(stage), before, strict=True)), "the guard counts what it drops, by family"
        # who may come in is asked in every row (`Stage.closed`); here: who may not
        assert not home.senders["home"].call("connects", node_ip, 9091, "", 0.3)
        assert not home.senders["relay"].call("connects", stage.c1.ip, 9091, "", 0.3)
        stage.closed("A1", f"declared edges both ways work, others do not ({state})", home.look())
        if state == "connected":
            home.kill_gluetun()
    stage.closed("A2", "node, kubelet, metadata address: refused unless declared", home.watch(0.5))
    home.drop(out)


def test_a1_the_meshs_probes(connected: Stage) -> None:
    """A mesh asks for the pod's health from a link-local address of its own: let in where it is told of, and answered there."""
    stage, home = connected, connected.home
    probes = "169.254.7.127"
    stage.lab.run(stage.c1.node, f"ip addr add {probes}/32 dev lo")
    stage.lab.run(stage.c1.node, f"ip route replace {stage.c1.ip}/32 dev {stage.c1.veth} src {probes}")
    home.clear()
    assert not home.senders["node1"].call("connects", stage.c1.ip, 8081, "", 0.5), "not told of"
    stage.stop_sidecar()
    stage.lab.client_up(stage.c1, stage.lab.client_settings(probe_sources=(ip_network(f"{probes}/32"),)))
    assert home.senders["node1"].call("connects", stage.c1.ip, 8081, "", 20), "a probe from the mesh's address"
    assert not home.senders["node1"].call("connects", stage.c1.ip, 9091, "", 0.3), "no other port"
    home.back(stage.c1)
    stage.lab.run(stage.c1.node, f"ip route replace {stage.c1.ip}/32 dev {stage.c1.veth}")
    stage.lab.run(stage.c1.node, f"ip addr del {probes}/32 dev lo")
    stage.closed("A1", "probes from the mesh's own address", home.look())
    stage.stop_sidecar()
    stage.lab.client_up(stage.c1)


def test_d3_cluster_resolver(connected: Stage) -> None:
    stage, home = connected, connected.home
    out = home.child("c1", frames.Sender)
    home.clear()
    for target in (DNS_VIP, "198.51.100.140"):
        assert out.call("datagram", target, 53, MARKER, 0, "", 2) in ("PermissionError", "")
    seen = home.look()
    stage.closed("D3", "the cluster's own resolver, asked by the application", seen)
    assert seen.names["cluster"] == 0
    home.drop(out)


def test_r1_relays(connected: Stage) -> None:
    """A pod that would pass anything on, and a Service without selector that leads outside: routes are no permission."""
    stage, home = connected, connected.home
    out = home.child("c1", frames.Sender)
    stage.lab.more_services = f"ip daddr 192.0.2.150 tcp dport 443 dnat to {HOST}:4243\n"
    stage.lab.services(**home.endpoints)
    home.clear()
    for where, port in (("198.51.100.30", 3128), ("192.0.2.150", 443)):
        assert not out.call("connects", where, port, "", 0.4), where
        assert not out.call("connects", where, port, "eth0", 0.4), where
    stage.closed("R1", "a relay pod and a Service without selector behind declared ranges", home.look())
    stage.lab.more_services = ""
    stage.lab.services(**home.endpoints)
    home.drop(out)


def test_n1_from_outside(connected: Stage) -> None:
    """An inbound flow through NodePort with its source kept: a closed client must not answer the internet by itself."""
    stage, home = connected, connected.home
    before = home.app.call("count")
    outside = home.child("inet", frames.Sender)
    for where, text in (
        ("home", f'tcp dport 30080 iifname "wan" dnat to {NODES["node1"][0]}'),
        ("node1", f"tcp dport 30080 dnat to {stage.c1.ip}:8080"),
    ):
        chain = f"chain p {{ type nat hook prerouting priority -90; {text}; }}"
        stage.lab.nft(where, f"table ip inbound\ndelete table ip inbound\ntable ip inbound {{ {chain} }}")
    home.clear()
    assert not outside.call("connects", "203.0.113.1", 30080, "", 0.6)
    assert home.app.call("count") == before
    stage.closed("N1", "NodePort from the internet to a lan port", home.look())
    for where in ("home", "node1"):
        stage.lab.nft(where, "delete table ip inbound")
    home.drop(outside)


@pytest.mark.everywhere
def test_i1_the_node_asks_for_the_tunnels_address(connected: Stage) -> None:
    stage, home = connected, connected.home
    node = home.child(stage.c1.node, lambda: frames.Sender(stage.c1.veth))
    target = "203.0.113.138"
    pod_mac = frames.mac(stage.mac("c1"))
    home.clear()
    own = node.call("address")
    node.call("frame", frames.ethernet(b"\xff" * 6, own, 0x0806, frames.arp(1, own, "169.254.1.1", b"\0" * 6, target)))
    answer = frames.tcp(4243, 40000, 0x12, HOST, target)
    node.call("frame", frames.ethernet(pod_mac, own, 0x0800, frames.ip4(HOST, target, 6, answer)))
    node.call("frame", frames.ethernet(pod_mac, own, 0x0800, frames.ip4("192.0.2.11", target, 1, frames.echo())))
    seen = home.look()
    assert not [line for line in seen.arp if line == f"2 {target}"], seen.arp
    stage.closed("I1", "ARP, SYN-ACK and echo for the overlay address from the node's side", seen)
    home.drop(node)


@pytest.mark.everywhere
def test_i2_a_third_pod_forges(connected: Stage) -> None:
    """Frames of the overlay and ARP from a pod that is no client, to the gateway and to a client."""
    stage, home = connected, connected.home
    assert home.gateway is not None
    third = home.senders["relay"]
    before = stage.lab.run("c1", "bridge fdb show dev vxlan0") + stage.lab.run("c1", "ip neigh show dev vxlan0")
    gateway_before = stage.lab.run(home.gateway.name, "bridge fdb show dev vxlan0")
    gateway_mac, client_mac = frames.overlay_mac("203.0.113.129"), frames.overlay_mac("203.0.113.138")
    to_world = frames.ethernet(
        gateway_mac, client_mac, 0x0800, frames.ip4("203.0.113.138", HOST, 17, frames.udp(5, 4242, MARKER + b"I2"))
    )
    to_client = frames.ethernet(client_mac, gateway_mac, 0x0800, frames.ip4("203.0.113.129", "203.0.113.138", 1, frames.echo()))
    lie = frames.ethernet(
        client_mac, gateway_mac, 0x0806, frames.arp(2, b"\2\2\2\2\2\2", "203.0.113.129", client_mac, "203.0.113.138")
    )
    home.pause(True)
    home.idle()
    for target in (home.gateway.ip, GATEWAY_VIP):
        third.call("datagram", target, PORT, frames.vxlan(to_world), PORT)
    for inner in (to_client, lie):
        third.call("datagram", stage.c1.ip, PORT, frames.vxlan(inner), PORT)
    time.sleep(0.3)
    seen = home.look()
    home.pause(False)
    stage.record("I2", "a third pod sends frames of the overlay and forged ARP", seen)
    assert seen.total == 0, seen.examples
    assert seen.by_vpn == 0, "nothing was delivered"
    assert stage.lab.run("c1", "bridge fdb show dev vxlan0") + stage.lab.run("c1", "ip neigh show dev vxlan0") == before
    assert stage.lab.run(home.gateway.name, "bridge fdb show dev vxlan0") == gateway_before


@pytest.mark.everywhere
def test_i3_another_clients_address(connected: Stage) -> None:
    """A client whose guard is gone takes another client's inner address: the gateway binds addresses to pods."""
    stage, home = connected, connected.home
    c2 = home.client_pod("c2", 11)
    home.known(stage.c1, c2)
    stage.lab.client_up(c2)
    home.prober(c2, source=c2.ip)
    wait_for("the second client is ready", lambda: stage.lab.client_ready(c2), pause=0.1)
    home.back(c2)
    out = home.child("c1", frames.Sender)
    # clients cannot reach each other over the overlay
    assert out.call("datagram", C2_ADDRESS, 4242, MARKER) in ("", "PermissionError")
    home.pause(True)
    stage.stop_sidecar()
    stage.lab.run("c1", "iptables -I OUTPUT -j ACCEPT")
    stage.lab.run("c1", f"ip addr add {C2_ADDRESS}/32 dev vxlan0")
    stage.lab.run("c1", f"ip route replace default via 203.0.113.129 dev vxlan0 onlink src {C2_ADDRESS}")
    home.idle()
    assert out.call("datagram", HOST, 4242, MARKER) == ""
    seen = home.look()
    stage.record("I3", "client c1, its guard opened, sends with the inner address of c2", seen)
    assert seen.by_vpn == 0
    home.pause(False)
    stage.lab.run("c1", f"ip addr del {C2_ADDRESS}/32 dev vxlan0")
    stage.lab.run("c1", "iptables -D OUTPUT -j ACCEPT")
    stage.lab.client_sidecar(stage.c1)
    home.back(stage.c1)
    home.remove(c2)
    home.known(stage.c1)
    home.drop(out)


def test_c2_a_second_interface(connected: Stage) -> None:
    """A secondary network with a default route of its own, also in a table of its own: gone, and closed to bound sockets."""
    stage, home = connected, connected.home
    pod = home.client_pod("multi", 15)
    stage.lab.link("home", "to-multi", "multi", "net1")
    stage.lab.run("home", "ip link set to-multi master lan")
    for command in (
        "ip addr add 192.0.2.50/25 dev net1",
        "ip route add default via 192.0.2.1 dev net1 metric 5",
        "ip route add default via 192.0.2.1 dev net1 table 100",
        "ip rule add from 192.0.2.50 lookup 100",
    ):
        stage.lab.run("multi", command)
    out = home.child("multi", frames.Sender)
    wait_for("the control: an answer by net1", lambda: out.call("datagram", HOST, 4242, MARKER, 0, "net1") != "")
    home.known(stage.c1, pod)
    stage.lab.client_up(pod)
    wait_for("ready", lambda: stage.lab.client_ready(pod), pause=0.1)
    home.clear()
    for interface in ("net1", "eth0"):
        assert out.call("datagram", HOST, 4242, MARKER, 0, interface) in ("PermissionError", "OSError"), interface
        assert not out.call("connects", HOST, 4243, interface, 0.3), interface
    assert out.call("connects", HOST, 4243, "", 20), "the tunnel"
    stage.closed("C2", "a second interface with default routes of its own", home.look())
    routes = stage.lab.run("multi", "ip route show table all").splitlines()
    assert [line for line in routes if line.startswith("default") and "table 4753" not in line and "dev vxlan0" not in line] == []
    home.drop(out)
    home.remove(pod)
    home.known(stage.c1)


def test_c2_another_name_of_the_interface(connected: Stage) -> None:
    """Neither end's own interface is called eth0, and the client has a second one with the first default route."""
    stage, home = connected, connected.home
    pod = home.client_pod("named", 16, interface="ens3")
    stage.lab.link("home", "to-named", "named", "net1")
    stage.lab.run("home", "ip link set to-named master lan")
    stage.lab.run("named", "ip addr add 192.0.2.51/25 dev net1")
    stage.lab.run("named", "ip route add default via 192.0.2.1 dev net1 metric 5")
    stage.lab.run("named", "ip link set ens3 mtu 1300")  # and narrower than the tunnel with the overlay's headers
    home.gateway_down()
    home.gateway_up(interface="pod0")
    home.known(stage.c1, pod)
    stage.lab.client_up(pod)
    wait_for("ready", lambda: stage.lab.client_ready(pod), pause=0.1)
    assert "mtu 1250 " in stage.lab.run("named", "ip -o link show dev vxlan0")
    assert "mtu 1320 " in stage.lab.run("c1", "ip -o link show dev vxlan0")
    out = home.child("named", lambda: frames.Sender("ens3"))
    home.back(stage.c1)
    home.clear()
    for interface in ("ens3", "net1"):
        assert out.call("datagram", HOST, 4242, MARKER, 0, interface) in ("PermissionError", "OSError"), interface
        assert not out.call("connects", HOST, 4243, interface, 0.3), interface
    assert out.call("connects", HOST, 4243, "", 20), "the tunnel"
    stage.closed("C2", "neither the client's nor the gateway's interface is called eth0", home.look())
    home.drop(out)
    home.remove(pod)
    home.known(stage.c1)
    home.gateway_down()


@pytest.mark.everywhere
def test_f10_a_client_ends(connected: Stage) -> None:
    """A client's pod ends while a server goes on sending to it, and what goes to its address takes a node's default route. One
    that is killed is the positive control; one that is deleted has told its gateway."""
    stage, home = connected, connected.home
    server = home.child("inet", lambda: frames.Chatter(HOST, 7779))
    for last, how in ((25, signal.SIGKILL), (26, signal.SIGTERM)):
        name = f"ends{last}"
        pod = home.client_pod(name, last)
        home.known(stage.c1, pod)
        stage.lab.client_up(pod)
        wait_for("ready", lambda pod=pod: stage.lab.client_ready(pod), pause=0.1)
        talker = home.child(name, lambda: frames.Talker(HOST, 7779))
        wait_for("the server's flow runs", lambda talker=talker: talker.call("received") > 10)
        wait_for("the gateway has heard its client", lambda pod=pod: home.heard(pod))
        home.clear()
        if how == signal.SIGTERM:
            stage.stop_sidecar(pod)
            wait_for("what was on its way has arrived", lambda talker=talker: not talker.call("received"), pause=0.1)
        home.drop(talker)
        home.remove(pod)
        stage.lab.run("node2", f"ip route replace {pod.ip}/32 via 192.0.2.1")
        seen = home.watch_on(2.0)
        if how == signal.SIGTERM:
            stage.closed("F10", "a client is deleted: it tells its gateway, then its address is gone", seen)
        else:
            stage.record("F10", "a client is killed, its address is gone: the positive control", seen)
            assert seen.leaks["home router"] > 10, seen.leaks
            home.known(stage.c1)
            wait_for("the gateway stops sending", lambda: home.watch(0.5).total == 0)
        stage.lab.run("node2", f"ip route del {pod.ip}/32")
    home.known(stage.c1)
    home.drop(server)


def test_e1_flows_from_before(connected: Stage) -> None:
    """Flows opened before the guard, untracked, with a server that never stops sending: cut, nothing more from the pod."""
    stage, home = connected, connected.home
    e1 = home.client_pod("e1", 13)
    for tool in ("iptables", "ip6tables"):
        stage.lab.run("e1", f"{tool} -t raw -A PREROUTING -j NOTRACK")
        stage.lab.run("e1", f"{tool} -t raw -A OUTPUT -j NOTRACK")
    server = home.child("inet", lambda: frames.Chatter(HOST, 7777))
    talker = home.child("e1", lambda: frames.Talker(HOST, 7777))
    wait_for("the flows run", lambda: talker.call("received") > 10)
    for tool in ("iptables", "ip6tables"):
        stage.lab.run("e1", f"{tool} -t raw -F")
    home.known(stage.c1, e1)
    begun = time.monotonic()
    stage.lab.client_up(e1)
    block = time.monotonic() - begun
    time.sleep(0.1)
    talker.call("received")
    seen = home.watch(2.0)
    stage.closed("E1", "TCP and UDP flows opened before the guard, untracked; the server keeps sending", seen, block=block)
    wait_for("ready", lambda: stage.lab.client_ready(e1), pause=0.1)
    stage.closed("E1", "the same, once the tunnel is up", home.watch(1.0))
    home.drop(talker, server)
    home.remove(e1)
    home.known(stage.c1)


def test_m1_path_mtu(connected: Stage) -> None:
    stage, home = connected, connected.home
    rules = "chain f { type filter hook forward priority 0; meta length > 800 drop; }"
    stage.lab.nft("node2", f"table inet cut\ndelete table inet cut\ntable inet cut {{ {rules} }}")
    out = home.child("c1", frames.Sender)
    home.clear()
    out.call("datagram", HOST, 4242, MARKER + b"-" * 1200, 0, "", 3)
    time.sleep(1.0)
    home.until("small packets live", lambda seen: seen.alive() <= 5)
    seen = home.look()
    stage.lab.nft("node2", "delete table inet cut")
    stage.closed("M1", "the path takes 800 bytes only: nothing goes another way, small packets live", seen)
    home.drop(out)


@pytest.mark.everywhere
def test_route_to_the_other_node_missing(connected: Stage) -> None:
    """After a node's start the routes to other nodes' pods may be missing for a while: frames would take the default route."""
    stage, home = connected, connected.home
    # a server that never stops sending to the client, whatever the client does
    server = home.child("inet", lambda: frames.Chatter(HOST, 7778))
    talker = home.child("c1", lambda: frames.Talker(HOST, 7778))
    wait_for("the server's flow runs", lambda: talker.call("received") > 10)
    home.clear()
    stage.lab.node_routes("del")
    stage.lab.exec("node1", "conntrack", "-F", check=False)
    begun = time.monotonic()
    wait_for("the overlay closes", lambda: "default" not in stage.lab.run("c1", "ip route show default dev vxlan0"))
    seen: Seen = home.look()
    window = max(0.0, seen.last_leak - begun)
    stage.record("F11", "the node loses its routes under an open overlay", seen, block=window, note="what remains: the window")
    assert {name for name, count in seen.leaks.items() if count} <= {"home router", "node1 uplink"}, seen.leaks
    assert home.gateway is not None
    name = home.gateway.name
    begun = time.monotonic()
    wait_for("the gateway stops sending", lambda: "dst 198.51.100.10 " not in stage.lab.run(name, "bridge fdb show dev vxlan0"))
    behind = time.monotonic() - begun
    stage.closed("F11", "routes missing: the overlay stays closed, handshakes alone are sent", home.watch(1.5))
    stage.stop_sidecar()
    stage.lab.client_up(stage.c1)
    seen = home.watch(2.0)
    stage.closed("F11", "a client starts on a node without routes", seen, note=f"{seen.handshakes} handshakes without content")
    assert not stage.lab.client_ready(stage.c1)
    stage.lab.node_routes()
    stage.lab.exec("node1", "conntrack", "-F", check=False)
    stage.closed("F11", "routes are there", home.look(), recover=home.back(stage.c1))
    home.drop(talker, server)
    EVIDENCE.target("frames by the default route until the overlay closes", stage.where, window, 2, generous=20)
    EVIDENCE.target("frames from the gateway to a client out of reach", stage.where, behind, 6, generous=60)
