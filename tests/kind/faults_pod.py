# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What happens in the client's pod and around it inside the cluster (C0, F8, F9, V1, D3, A1, A2, E1, H1, I1, relays, NodePorts)."""

from __future__ import annotations

import json
import time

from ..cluster import kind_cluster
from . import sensors
from .field import FieldError, Pod, apply, get, kubectl, node, nodes, pods, run, wait_for
from .rows import CLIENT, NEIGHBOUR, SECOND, Table, back, connected

CONTROL = Pod("media", "app=control")
#: Gives the pod an IPv6 address and a default route out of it: the node's side of the link is where every pod's gateway is.
SIX = """
inside sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.eth0.disable_ipv6=0
inside ip -6 address replace 2001:db8:1::5/64 dev eth0 nodad
inside ip -6 neighbour replace fe80::1 lladdr ee:ee:ee:ee:ee:ee dev eth0 nud permanent
inside ip -6 route replace default via fe80::1 dev eth0 onlink
"""


def every_count() -> bool:
    """Whether each kind of packet was counted by each sensor. Raises FieldError with what was not."""
    missing = [what for what, count in sensors.judged().items() if not count]
    if missing:
        raise FieldError(f"nothing counted as {missing}")
    return True


def control(table: Table) -> None:
    """C0: nothing guards anything. A sensor that misses a probe now would prove nothing later."""
    sensors.arm()
    sensors.tells_apart()
    for pod in (CLIENT, SECOND, NEIGHBOUR):
        wait_for(f"{pod.selector} is ready", pod.ready)
    for pod in (CLIENT, SECOND):
        pod.node_shell(SIX)
    with table.row("C0", "no guard, no gateway: the positive control", open_all=True, web=False) as row:
        before = CLIENT.state()

        def every_kind() -> bool:
            now = CLIENT.state()["answered"]
            bound = ("udp eth0", "udp source", "icmp eth0", "tcp eth0", "dns-udp eth0", "dns-tcp eth0")
            wanted = (*bound, "udp unbound", "icmp unbound", "tcp unbound", "dns-udp unbound", "dns-tcp unbound")
            missing = [kind for kind in wanted if now.get(kind, 0) <= before["answered"].get(kind, 0)]
            if missing:
                raise FieldError(f"no answer to {missing}")
            return True

        wait_for("an answer to each kind of probe", every_kind)
        first = sensors.look()
        wait_for("every sensor sees more", lambda: all(count > 0 for count in sensors.look().since(first).leaks.values()))
        wait_for("every sensor counts each kind of packet", every_count)
        for pod in (CLIENT, SECOND):
            table.check(bool(tracked(pod)), row, f"no node tracks a flow of {pod.selector} (S6)")
        row.note = ", ".join(f"{what} {count}" for what, count in sensors.judged().items())


def e1_old_flows(table: Table) -> None:
    """The pods of before the guard had flows to the internet; no node tracks one for a client's pod now (S6)."""
    with table.row("E1, S6", "flows of before the guard: none is tracked on a node for a client's pod") as row:
        for pod in (CLIENT, SECOND):
            out = tracked(pod)
            table.check(not out, row, f"tracked: {out[:3]}")


def tracked(pod: Pod) -> list[str]:
    """A pod's flows to the internet that its node tracks."""
    live = pod.live()
    listed = node(str(live["spec"]["nodeName"]), f"conntrack -L --orig-src {live['status']['podIP']} 2>/dev/null")
    return [line for line in listed.splitlines() if "dst=203.0.113." in line or "dst=198.51.100." in line]


def f8_routes_of_the_client(table: Table) -> None:
    with table.row("F8, V1", "the client's default routes lead out again, both families") as row:
        CLIENT.node_shell(
            SIX
            + "inside ip route replace default via 169.254.1.1 dev eth0 onlink\ninside ip route delete default dev vxlan0 || true"
        )
    with table.row("F8", "the sidecar puts them right") as row:
        back(row, row.begun)


def f9_guard_flushed(table: Table) -> None:
    """Rules gone, sidecar stopped, routes lead out: the policy alone holds; then the sidecar goes on."""
    with table.row("F9", "guard flushed while the sidecar lives: put back", open_pod=True) as row:
        CLIENT.node_shell(FLUSH)
        back(row, time.time())
    try:
        with table.row(
            "F9", "guard flushed and policies ACCEPT, sidecar stopped, routes lead out: policy alone", open_pod=True
        ) as row:
            before = sensors.look()
            CLIENT.node_shell("kill -STOP $(processes client-sidecar)\n" + FLUSH + ROUTES)
            name = f"S4 pod {CLIENT.live()['spec']['nodeName']}"
            wait_for("packets leave the pod", lambda: sensors.look().since(before).leaks[name] > 20)
            row.note = "packets leave the pod, none leaves the node"
    finally:
        CLIENT.node_shell("kill -CONT $(processes client-sidecar)")
    connected()
    settled = sensors.look()
    wait_for("the guard is back", lambda: quiet(settled))
    with table.row("F9", "the sidecar has put guard and routes back"):
        pass


FLUSH = """
inside nft flush ruleset
for tool in iptables-legacy ip6tables-legacy; do
  command -v $tool >/dev/null || continue
  for chain in INPUT OUTPUT FORWARD; do inside $tool -P $chain ACCEPT 2>/dev/null; done
  inside $tool -F 2>/dev/null
done
inside tc qdisc delete dev eth0 clsact 2>/dev/null
true
"""
ROUTES = """
inside ip route replace default via 169.254.1.1 dev eth0 onlink
inside ip rule delete pref 45 2>/dev/null
true
"""


def quiet(before: sensors.Seen) -> bool:
    """Whether nothing left the pods since the last look; `before` moves on."""
    now = sensors.look()
    more = now.since(before).leaks
    before.leaks, before.control, before.vpn = now.leaks, now.control, now.vpn
    return not any(more.values())


def connects(pod: Pod, host: str, port: int) -> bool:
    return "yes" in pod.exec("sh", "-c", f"nc -z -w 2 {host} {port} && echo yes || echo no")


def a1_declared_ways(table: Table) -> None:
    """A1, A2, D3: declared edges work, neighbours, node, kubelet, metadata and the cluster's DNS do not answer a client."""
    neighbour = NEIGHBOUR.live()["status"]["podIP"]
    other = CONTROL.live()["status"]
    with table.row("A1, A2", "declared edges work, neighbours, node, kubelet, API server, metadata do not") as row:
        for host, port, wanted in (
            (neighbour, 9696, True),
            ("10.96.100.96", 9696, True),
            (other["podIP"], 8000, False),
            (other["hostIP"], 10250, False),
            (CLIENT.live()["status"]["hostIP"], 10250, False),
            ("10.96.0.1", 443, False),
            ("169.254.169.254", 80, False),
        ):
            table.check(connects(CLIENT, host, port) == wanted, row, f"{host}:{port} {'does not answer' if wanted else 'answers'}")
        client = CLIENT.live()["status"]["podIP"]
        table.check(connects(NEIGHBOUR, client, 8080), row, "a declared user does not reach the client")
        table.check(not connects(CONTROL, client, 8080), row, "an undeclared pod reaches the client")
        table.check(not connects(NEIGHBOUR, SECOND.live()["status"]["podIP"], 9092), row, "an undeclared port of a client answers")
    dns = [pod["status"]["podIP"] for pod in get("pods", "-n", "kube-system", "-l", "k8s-app=kube-dns")["items"]]
    with table.row("D3", "the cluster's own resolver, asked by the application") as row:
        for server in ("10.96.0.10", *dns):
            said = CLIENT.exec("dig", "+time=1", "+tries=1", f"@{server}", "netguard-probe-asked.lab.test", check=False)
            table.check("status: NOERROR" not in said, row, f"{server} answered: {said[-200:]}")


def h1_other_containers(table: Table) -> None:
    """Init, second and debug containers share the guarded namespace; one on the node's network is refused."""
    with table.row("H1", "the owner's init container and second container talk as well") as row:
        kubectl("delete", "pod", "-n", "media", "-l", SECOND.selector, "--wait=true")
        wait_for("the second client is ready", SECOND.ready)
        wait_for(
            "the second container talks through the tunnel", lambda: SECOND.state("helper")["answered"].get("udp unbound", 0) > 5
        )
        refused = SECOND.state("helper")["answered"]
        table.check(not any(kind.endswith(" eth0") for kind in refused), row, f"answers around the tunnel: {refused}")
    with table.row("H1", "a debug container without added capabilities talks") as row:
        image = "netguard.test/toolbox:1"
        around = "nc -u -w 1 203.0.113.80 7; curl -s --max-time 2 --interface eth0 http://203.0.113.80/"
        script = f"{around}; curl -s --max-time 5 http://203.0.113.80/"
        command = ("debug", "-n", "media", CLIENT.name, f"--image={image}", "--profile=baseline")
        kubectl(
            *command, "--image-pull-policy=IfNotPresent", "--container=look", "--", "bash", "-c", f"echo NETGUARD-PROBE | {script}"
        )
        wait_for("the debug container ends", lambda: "terminated" in debug_state("look"))
        said = kubectl("logs", "-n", "media", CLIENT.name, "-c", "look")
        table.check(said.split() == ["10.2.0.2"] or said.strip().endswith("10.2.0.2"), row, f"it was seen as {said.strip()[-40:]}")


def debug_state(name: str) -> str:
    for one in CLIENT.live()["status"].get("ephemeralContainerStatuses", []):
        if one["name"] == name:
            return json.dumps(one["state"])
    return ""


def raw_packets(table: Table) -> None:
    with table.row("AF_PACKET", "a packet socket in the application's container") as row:
        script = "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)"
        said = CLIENT.exec("python3", "-c", script, check=False)
        table.check("PermissionError" in said or "Operation not permitted" in said, row, f"it got one: {said[-200:]}")


#: A routing table of the node for one row.
ASKING = 4711


def asked_from_the_node(port: int) -> str:
    """Shell: asks for $overlay over the link of the pod with the address $ip, as if that address were there.

    By a table of its own: Calico takes routes over a pod's link that it does not know out of the main one, at any moment.
    """
    return f"""
    link=$(ip route get "$ip" | sed -n 's/.* dev \\([^ ]*\\).*/\\1/p' | head -1)
    ip route add "$overlay/32" dev "$link" table {ASKING} && ip rule add to "$overlay/32" lookup {ASKING} pref 90 || exit 1
    trap 'ip rule delete pref 90; ip route flush table {ASKING}' EXIT
    ping -c 3 -W 1 "$overlay" >/dev/null && echo "echo answered"
    timeout 2 bash -c "exec 3<>/dev/tcp/$overlay/{port}" 2>/dev/null && echo "SYN answered"
    ip neighbour show "$overlay" dev "$link" | grep -q lladdr && echo "ARP answered"
    echo done
    """


def i1_control(table: Table) -> None:
    """What I1 asks is answered where nothing guards: Linux answers for an address on any of its interfaces."""
    with table.row("I1", "the same of an unguarded pod with a second address: the positive control") as row:
        added = "inside ip address add 192.0.2.66/32 dev lo || exit 1\noverlay=192.0.2.66\n"
        said = NEIGHBOUR.node_shell(added + asked_from_the_node(9696) + "inside ip address delete 192.0.2.66/32 dev lo\n")
        wanted = ["echo answered", "SYN answered", "ARP answered", "done"]
        table.check(said.split("\n")[:4] == wanted, row, said.strip().replace("\n", "; "))


def i1_from_the_node(table: Table) -> None:
    """The node's side must not learn or use the overlay address."""
    with table.row("I1", "echo, SYN and ARP for the overlay address from the node's side") as row:
        found = """
        overlay=$(inside ip -4 -o address show dev vxlan0 | awk '{print $4}' | cut -d/ -f1)
        [ -n "$overlay" ] || { echo "no overlay address"; exit 1; }
        """
        said = CLIENT.node_shell(found + asked_from_the_node(8080))
        table.check(said.strip() == "done", row, said.strip().replace("\n", "; "))


def relay(table: Table) -> None:
    """A pod of the cluster that would pass anything on, and a Service without selector that leads outside."""
    labels = {"app": "relay"}
    command = ["socat", "TCP-LISTEN:3128,fork,reuseaddr", "TCP:203.0.113.81:80"]
    container = {"name": "relay", "image": "netguard.test/toolbox:1", "imagePullPolicy": "IfNotPresent", "command": command}
    spec = {"terminationGracePeriodSeconds": 1, "containers": [container]}
    outside = {"metadata": {"name": "outside", "namespace": "media"}}
    apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "relay", "namespace": "media", "labels": labels}, "spec": spec},
        {
            "apiVersion": "v1",
            "kind": "Service",
            **outside,
            "spec": {"clusterIP": "10.96.100.7", "ports": [{"port": 9696, "targetPort": 80}]},
        },
        {
            "apiVersion": "v1",
            "kind": "Endpoints",
            **outside,
            "subsets": [{"addresses": [{"ip": "203.0.113.81"}], "ports": [{"port": 80}]}],
        },
    )
    pod = Pod("media", "app=relay")
    try:
        wait_for("the relay runs", pod.ready)
        with table.row("R1", "a relay pod, and a Service without selector that leads outside") as row:
            wait_for("the relay relays for others", lambda: connects(NEIGHBOUR, pod.live()["status"]["podIP"], 3128))
            wait_for("the Service leads outside for others", lambda: connects(NEIGHBOUR, "10.96.100.7", 9696))
            table.check(not connects(CLIENT, pod.live()["status"]["podIP"], 3128), row, "the client reaches the relay")
            table.check(not connects(CLIENT, "10.96.100.7", 9696), row, "the client reaches the internet by a Service")
            row.note = "both work for an unguarded pod"
    finally:
        kubectl(
            "delete",
            "-n",
            "media",
            "pod/relay",
            "service/outside",
            "endpoints/outside",
            "--wait=true",
            "--ignore-not-found",
            check=False,
        )


def node_ports(table: Table) -> None:
    """A stranger behind the home router asks a NodePort of a client on an undeclared port, with either traffic policy."""
    for policy in ("Local", "Cluster"):
        try:
            way_in(policy, "control", 8000)
            wait_for("an unguarded application answers at each node's port", lambda: len(answered(sensors.CONTROL)) == len(nodes()))
            way_in(policy, "transmission", 9092)
            with table.row("N1", f"NodePort to an undeclared port, externalTrafficPolicy {policy}, asked from the internet") as row:
                table.check(not answered(kind_cluster.INTERNET), row, "it was answered")
                row.note = "an unguarded application's was, at each node"
        finally:
            kubectl("delete", "service", "-n", "media", "ways-in", "--ignore-not-found")


def way_in(policy: str, app: str, port: int) -> None:
    """A Service at port 30092 of each node; waits until both nodes' kube-proxy knows the way to `app`."""
    ports = [{"port": port, "nodePort": 30092}]
    spec = {"type": "NodePort", "externalTrafficPolicy": policy, "selector": {"app": app}, "ports": ports}
    kubectl("delete", "service", "-n", "media", "ways-in", "--ignore-not-found")
    apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "ways-in", "namespace": "media"}, "spec": spec})
    ends = [pod["status"]["podIP"] for pod in pods("media", f"app={app}")]
    look = f"iptables-save -t nat | grep -E -c -- '-j DNAT .*({'|'.join(ends)}):{port}( |$)'"
    for name in nodes():
        wait_for(f"{name} leads to {app}", lambda name=name: int(node(name, look, check=False)) > 0)  # type: ignore[misc]


def answered(source: str) -> list[str]:
    """The nodes at whose port 30092 a host of the internet gets the web page of an application."""
    found = []
    for one in get("nodes")["items"]:
        address = next(entry["address"] for entry in one["status"]["addresses"] if entry["type"] == "InternalIP")
        words = ("curl", "-s", "--max-time", "3", "--interface", source, f"http://{address}:30092/")
        if "ok" in run("docker", "exec", kind_cluster.FAR, *words, check=False):
            found.append(address)
    return found


def kubelet_ways(table: Table) -> None:
    """Probes, exec, logs and port-forward of a client."""
    with table.row("K1", "probes, exec, logs and port-forward of a client") as row:
        table.check("talking to" in kubectl("logs", "-n", "media", CLIENT.name, "-c", "qbittorrent"), row, "no log")
        table.check(CLIENT.exec("echo", "here").strip().endswith("here"), row, "no exec")
        table.check(forwarded() == "ok", row, "no port-forward")
        table.check(len(pods("media", CLIENT.selector)) == 1 and CLIENT.ready(), row, "the readiness probe fails")


def forwarded() -> str:
    """What the client's web page says through `kubectl port-forward`."""
    import socket
    import subprocess
    import urllib.request

    from ..cluster import binaries

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(binaries.path("kubectl")), "port-forward", "-n", "media", CLIENT.name, f"{port}:8080"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    said: list[str] = []

    def ask() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                said.append(answer.read().decode().strip())
        except OSError as error:
            raise FieldError(str(error)) from error
        return True

    try:
        wait_for("port-forward answers", ask, 60)
    finally:
        process.terminate()
        process.wait()
    return said[-1]


ROWS = (
    ("E1", e1_old_flows),
    ("K1", kubelet_ways),
    ("I1", i1_control),
    ("I1", i1_from_the_node),
    ("F8b", f8_routes_of_the_client),
    ("F9", f9_guard_flushed),
    ("A1", a1_declared_ways),
    ("H1", h1_other_containers),
    ("AF_PACKET", raw_packets),
    ("I1b", i1_from_the_node),
    ("R1", relay),
    ("N1", node_ports),
)
