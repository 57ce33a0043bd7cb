# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Faults of the gateway, the VPN server and the way between them (F1 to F8, F10, E2)."""

from __future__ import annotations

import base64
import json
import os
import time

from ..cluster import kind_cluster
from .field import FieldError, kubectl, nodes, pods, run, wait_for
from .rows import CLIENT, GATEWAY, SECOND, Table, back, blocked, connected, gap

DEPLOYMENT = "deployment/netguard-gateway-lab"


def c1_connected(table: Table) -> None:
    with table.row("C1", "connected; bound to eth0 and to its address (C2), in clear to the endpoint (C3)") as row:
        before = CLIENT.state()
    after = CLIENT.state()
    for kind in ("udp unbound", "tcp unbound", "dns-udp unbound", "dns-tcp unbound", "icmp unbound", "resolver unbound"):
        more = after["answered"].get(kind, 0) - before["answered"].get(kind, 0)
        table.check(more > 0, row, f"no answer to {kind} by the tunnel")
    for kind in after["answered"]:
        if kind.endswith((" eth0", " source")):
            table.check(after["answered"][kind] == before["answered"].get(kind, 0), row, f"{kind} was answered")
    for kind in ("udp eth0", "udp source", "icmp eth0", "tcp eth0", "endpoint eth0"):
        table.check(after["sent"].get(kind, 0) > before["sent"].get(kind, 0), row, f"{kind} was never tried")


def f1_before_its_gateway(table: Table) -> None:
    """Client without gateway, then the gateway; then both at once. The second client must not start its application."""
    kubectl("scale", "-n", "vpn", DEPLOYMENT, "--replicas=0")
    wait_for("no gateway", lambda: not pods("vpn", GATEWAY.selector))
    with table.row("F1", "the client starts, its gateway does not exist", web=False):
        restart_clients()
    with table.row("F1", "the same, once it runs: not ready, application held back (start: tunnel)"):
        unready(table)
    healed = time.time()
    with table.row("F1", "the gateway is created after its client") as row:
        kubectl("scale", "-n", "vpn", DEPLOYMENT, "--replicas=1")
        back(row, healed)
    connected()
    kubectl("scale", "-n", "vpn", DEPLOYMENT, "--replicas=0")
    wait_for("no gateway", lambda: not pods("vpn", GATEWAY.selector))
    with table.row("F1", "client and gateway are created together", web=False) as row:
        kubectl("scale", "-n", "vpn", DEPLOYMENT, "--replicas=1")
        restart_clients()
        back(row, row.begun)


def restart_clients() -> None:
    """New pods of both clients; waits until the first one's application talks."""
    old = {pod["metadata"]["uid"] for selector in (CLIENT.selector, SECOND.selector) for pod in pods("media", selector)}
    kubectl("delete", "pod", "-n", "media", "-l", "app in (qbittorrent, transmission)", "--wait=false")
    CLIENT.known = SECOND.known = ""

    def fresh() -> bool:
        found = pods("media", CLIENT.selector)
        return bool(len(found) == 1 and found[0]["metadata"]["uid"] not in old and CLIENT.ready() and CLIENT.state()["sent"])

    wait_for("a new client talks", fresh)


def unready(table: Table) -> None:
    """The client with `ready: tunnel` is not ready and, with `start: tunnel`, has not started its own containers."""
    live = SECOND.live()
    states = {one["name"]: one.get("started", False) for one in live["status"].get("containerStatuses", [])}
    if SECOND.ready() or any(states.values()):
        raise FieldError(f"a client without a tunnel started {states}, ready {SECOND.ready()}")


# -- the far side -----------------------------------------------------------------------------------------------------------------


def far(script: str) -> str:
    return run("docker", "exec", "-i", kind_cluster.FAR, "bash", "-s", text=script)


def endpoint(open_: bool) -> None:
    """Opens or drops the VPN server's port."""
    rules = "chain i { type filter hook prerouting priority -300; udp dport 51820 drop; }\n"
    rules += "chain o { type filter hook output priority -300; udp sport 51820 drop; }\n"
    far(
        "nft -f - <<'R'\ntable inet fault\ndelete table inet fault\n"
        + ("" if open_ else f"table inet fault {{ {rules} }}\n")
        + "R\n"
    )


def peer(known: bool) -> None:
    """The VPN server knows the gateway's key, or not."""
    key = base64.b64decode(kind_cluster.public_key(kind_cluster.CLIENT_KEY)).hex()
    text = f"set=1\\npublic_key={key}\\n" + (f"allowed_ip={kind_cluster.CLIENT_ADDRESS}/32" if known else "remove=true")
    far(f"""python3 -c "import sys; sys.path.insert(0, '/standin'); import wireguard; wireguard.configure('wg0', '{text}')" """)


def new_gateway() -> None:
    """Deletes the gateway's pod and waits until the next one's containers run."""
    old = GATEWAY.name
    kubectl("delete", "pod", "-n", "vpn", old, "--wait=true", timeout=180)
    wait_for("a new gateway pod runs", lambda: GATEWAY.name != old and GATEWAY.live()["status"]["phase"] == "Running")


def f2_endpoint_never_answers(table: Table) -> None:
    endpoint(False)
    try:
        with table.row("F2, D4", "the endpoint never answers a new gateway") as row:
            new_gateway()
            blocked(row, row.begun)
        with table.row("F2", "the second client starts meanwhile: not ready"):
            kubectl("delete", "pod", "-n", "media", "-l", SECOND.selector, "--wait=true")
            wait_for("the sidecar of the second client runs", lambda: "netguard-overlay" in running(SECOND.live()))
            unready(table)
    finally:
        endpoint(True)
    with table.row("F2", "the endpoint answers at last") as row:
        back(row, row.begun)


def running(pod: dict[str, object]) -> list[str]:
    status = pod["status"]
    assert isinstance(status, dict)
    found = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return [one["name"] for one in found if "running" in one.get("state", {})]


def secret(key: str) -> None:
    kubectl("patch", "secret", "-n", "vpn", "lab-wg", "-p", json.dumps({"stringData": {"wireguard_private_key": key}}))


def f3_refused_key(table: Table) -> None:
    try:
        secret(base64.b64encode(bytes([8, *os.urandom(30), 64])).decode())
        with table.row("F3", "the server does not know the key") as row:
            new_gateway()
            blocked(row, row.begun)
        secret("no key")
        with table.row("F3", "Gluetun refuses its settings and exits", web=True) as row:
            old = GATEWAY.name
            kubectl("delete", "pod", "-n", "vpn", old, "--wait=true", timeout=180)
            wait_for("the log says why", lambda: "private key is not valid" in logs())
            blocked(row, row.begun)
    finally:
        secret(kind_cluster.CLIENT_KEY)
    with table.row("F3", "the right key again") as row:
        new_gateway()
        back(row, row.begun)


def logs() -> str:
    words = ("-n", "vpn", DEPLOYMENT, "-c", "gluetun", "--tail=50")
    return kubectl("logs", *words, check=False) + kubectl("logs", *words, "--previous", check=False)


def signal_gluetun(how: str) -> None:
    # the stand-in's tunnel is a process of its own, Gluetun's is inside of it
    words = "gluetun[.-] wireguard-go" if how in ("STOP", "CONT") else "gluetun[.-]"
    GATEWAY.node_shell(f'kill -{how} $(for word in {words}; do processes "$word"; done)')


def mend() -> None:
    """Undoes what a row that did not come to its end may have left."""
    endpoint(True)
    peer(True)
    secret(kind_cluster.CLIENT_KEY)
    kubectl("uncordon", *nodes())
    kubectl("scale", "-n", "vpn", DEPLOYMENT, "--replicas=1")
    if "private key is not valid" in logs():
        kubectl("delete", "pod", "-n", "vpn", "-l", GATEWAY.selector, "--wait=false")


def f4_vpn_process_killed(table: Table) -> None:
    with table.row("F4, D4", "VPN process killed, its container restarts in the same namespace") as row:
        signal_gluetun("KILL")
        gap(row, row.begun)


def f5_vpn_process_stopped(table: Table) -> None:
    with table.row("F5", "VPN process stands still") as row:
        signal_gluetun("STOP")
        blocked(row, row.begun)
    with table.row("F5", "VPN process goes on") as row:
        signal_gluetun("CONT")
        back(row, row.begun)


def f6_endpoint_lost_and_found(table: Table) -> None:
    try:
        with table.row("F6, D4", "the endpoint's port is dropped mid-session") as row:
            endpoint(False)
            blocked(row, row.begun)
    finally:
        endpoint(True)
    with table.row("F6", "the endpoint is back") as row:
        back(row, row.begun)


def f7_server_forgets(table: Table) -> None:
    try:
        with table.row("F7", "the server has removed our key") as row:
            peer(False)
            blocked(row, row.begun)
    finally:
        peer(True)
    with table.row("F7", "the server knows us again") as row:
        back(row, row.begun)


def tunnel_link() -> str:
    """The number of the tunnel's link; empty while there is none."""
    return GATEWAY.node_shell("inside ip -o link show dev tun0 2>/dev/null | cut -d: -f1", check=False).strip()


def f8_tunnel_deleted(table: Table) -> None:
    with table.row("F8", "the tunnel's link is deleted") as row:
        before = tunnel_link()
        GATEWAY.node_shell("inside ip link delete tun0")
        wait_for("another tunnel", lambda: tunnel_link() not in ("", before))
        back(row, row.begun)
    with table.row("F8", "the gateway's rule into the tunnel is deleted") as row:
        GATEWAY.node_shell("inside ip rule delete pref 101")
        blocked(row, row.begun)
    with table.row("F8", "the rule is back") as row:
        GATEWAY.node_shell("inside ip rule add not fwmark 51820 lookup 51820 pref 101")
        back(row, row.begun)


def f10_gateway_deleted(table: Table) -> None:
    with table.row("F10", "the gateway's pod is deleted") as row:
        kubectl("delete", "pod", "-n", "vpn", GATEWAY.name, "--wait=false")
        gap(row, row.begun)


def f10_without_blackhole(table: Table) -> None:
    """Host-local addresses without a route to nowhere (Canal): whatever is sent to a pod that is gone leaves by the default route.

    A gateway that is told to go closes its clients first. One that is killed has no time to: what leaves until they close by
    themselves, a second after its last answer, is measured.
    """
    try:
        for name in nodes():
            run("docker", "exec", name, "ip", "route", "delete", "blackhole", kind_cluster.pod_range(name))
        with table.row("F10", "no node has a blackhole; the gateway's pod is deleted") as row:
            kubectl("delete", "pod", "-n", "vpn", GATEWAY.name, "--wait=false")
            gap(row, row.begun)
        connected()
        with table.row("F10", "no node has a blackhole; the gateway's pod is evicted") as row:
            evict(GATEWAY.name)
            gap(row, row.begun)
        connected()
        with table.row("F10", "no node has a blackhole; the gateway's pod is killed outright", remains=True) as row:
            kubectl("delete", "pod", "-n", "vpn", GATEWAY.name, "--wait=false", "--grace-period=0", "--force")
            gap(row, row.begun)
        connected()
    finally:
        for name in nodes():
            run("docker", "exec", name, "ip", "route", "replace", "blackhole", kind_cluster.pod_range(name))


def evict(name: str) -> None:
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "vpn"}}
    kubectl("create", "--raw", f"/api/v1/namespaces/vpn/pods/{name}/eviction", "-f", "-", text=json.dumps(eviction))


def f10_gateway_moved(table: Table) -> None:
    with table.row("F10", "the gateway's pod is evicted") as row:
        evict(GATEWAY.name)
        gap(row, row.begun)
    connected()
    move_gateway(table, next(name for name in nodes() if name != GATEWAY.live()["spec"]["nodeName"]))


def move_gateway(table: Table, target: str) -> None:
    """The gateway's next pod comes to this node."""
    others = [name for name in nodes() if name != target]
    try:
        with table.row("F10", f"the gateway moves to another node ({target.rpartition('-')[2]})") as row:
            kubectl("cordon", *others)
            kubectl("delete", "pod", "-n", "vpn", GATEWAY.name, "--wait=false")
            gap(row, row.begun)
    finally:
        kubectl("uncordon", *others)
    if GATEWAY.live()["spec"]["nodeName"] != target:
        raise FieldError(f"the gateway is on {GATEWAY.live()['spec']['nodeName']}")


def e2_reconnect(table: Table) -> None:
    with table.row("E2", "orderly restart of the VPN") as row:
        signal_gluetun("TERM")
        gap(row, row.begun)


ROWS = (
    ("C1", c1_connected),
    ("F1", f1_before_its_gateway),
    ("F2", f2_endpoint_never_answers),
    ("F3", f3_refused_key),
    ("F4", f4_vpn_process_killed),
    ("F5", f5_vpn_process_stopped),
    ("F6", f6_endpoint_lost_and_found),
    ("F7", f7_server_forgets),
    ("F8", f8_tunnel_deleted),
    ("F10a", f10_gateway_deleted),
    ("F10c", f10_without_blackhole),
    ("F10b", f10_gateway_moved),
    ("E2", e2_reconnect),
)
