# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Faults of nodes and of the cluster itself (F11 to F14), deleted namespaces, and a collection that is gone."""

from __future__ import annotations

import time

from ..cluster import kind_cluster
from . import sensors
from .accidents import locked_out
from .faults_gateway import move_gateway, restart_clients
from .field import apply, get, kubectl, nodes, playbook, pods, run, wait_for
from .rows import CLIENT, GATEWAY, Table, back, blocked, connected


def other_node() -> str:
    """The node on which the first client is not: the one that may be taken away."""
    return next(name for name in nodes() if name != CLIENT.live()["spec"]["nodeName"])


def f11_gateways_node(table: Table) -> None:
    victim = other_node()
    if GATEWAY.live()["spec"]["nodeName"] != victim:
        move_gateway(table, victim)
        connected()
    try:
        with table.row("F11", "the gateway's node stands still", web=False, asleep=(victim,)) as row:
            run("docker", "pause", victim)
            blocked(row, row.begun)
    finally:
        run("docker", "unpause", victim)
    with table.row("F11", "the node goes on", web=False) as row:
        back(row, row.begun)


def f11_clients_node(table: Table) -> None:
    """A node with a client and the gateway boots: no packet before the rules. The host guard sees all that has no other route."""
    victim = other_node()
    if GATEWAY.live()["spec"]["nodeName"] != victim:
        move_gateway(table, victim)
        connected()
    with table.row("F11", "the node of gateway and second client restarts", web=False, asleep=(victim,)) as row:
        run("docker", "restart", victim, timeout=180)
        kind_cluster.routes(victim)
        sensors.arm_node(victim)
        wait_for("the node is ready again", lambda: node_ready(victim))
        back(row, row.begun + 1)
    connected()
    with table.row("F11", "the node is back, all sensors"):
        pass


def node_ready(name: str) -> bool:
    found = get("node", name)["status"]["conditions"]
    return any(one["type"] == "Ready" and one["status"] == "True" for one in found)


def f12_cluster_parts(table: Table) -> None:
    for part in ("kube-proxy", "kube-dns", "calico-node"):
        with table.row("F12", f"the pods of {part} are killed, and a new client pod starts", web=False):
            kubectl("delete", "pod", "-n", "kube-system", "-l", f"k8s-app={part}", "--wait=false", "--grace-period=0", "--force")
            restart_clients()
        wait_for(f"{part} is back", lambda part=part: all_ready("kube-system", f"k8s-app={part}"))  # type: ignore[misc]
        connected()


def all_ready(namespace: str, selector: str) -> bool:
    found = pods(namespace, selector)
    return bool(found) and all(
        any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", [])) for pod in found
    )


def f13_policies_gone(table: Table) -> None:
    """Admission, NetworkPolicies and hard deny are really gone: the guard alone; then the play repairs."""
    with table.row("F13", "admission and every policy of ours deleted: guard alone"):
        label = ("-l", "homelab.netguard/instance")
        kubectl("delete", "validatingadmissionpolicybindings,validatingadmissionpolicies", *label)

        def gone() -> bool:
            kubectl("delete", "networkpolicies", "-A", *label, check=False)
            kubectl("delete", "globalnetworkpolicies.crd.projectcalico.org", *label, check=False)
            return not get("networkpolicies", "-A", *label)["items"]

        wait_for("the policies are gone", gone, pause=1)
        felix()
    with table.row("F13", "site.yml puts everything back", web=False):
        playbook("site")
        connected()
    again = playbook("site")
    if "changed=0" not in again:
        table.faults.append(f"F13: site.yml changes something in its second run:\n{again[-1500:]}")


def felix() -> None:
    """Waits until the CNI's rules for the client's pod name no policy any more."""
    look = """
    link=$(ip route get "$ip" | sed -n 's/.* dev \\([^ ]*\\).*/\\1/p' | head -1)
    iptables-save -t filter | grep -- "-A cali-fw-$link " | grep -c -- "-j cali-p[oi]-"
    """
    wait_for("the CNI has taken the policies away", lambda: CLIENT.node_shell(look, check=False).strip() == "0")


def f14_no_webhook(table: Table) -> None:
    """Nothing of ours depends on a webhook that could be down: the API server itself judges."""
    with table.row("F14", "no webhook of ours exists: admission is the API server's own") as row:
        for kind in ("mutatingwebhookconfigurations", "validatingwebhookconfigurations"):
            found = [item["metadata"]["name"] for item in get(kind)["items"] if "netguard" in str(item)]
            table.check(not found, row, f"{kind}: {found}")


def locked_out_and_back(table: Table) -> None:
    locked_out(table)
    with table.row("ADM", "site.yml injects the client again", web=False, open_pod=True):
        playbook("site")
        connected()
    with table.row("ADM", "after the repair"):
        pass


def gateways_namespace_deleted(table: Table) -> None:
    """Deleted by hand, with policy and gateway in it: it must come to its end, and its clients stay closed until site.yml."""
    with table.row("NS", "the gateway's namespace is deleted by hand") as row:
        kubectl("delete", "namespace", "vpn", "--wait=true", timeout=240)
        blocked(row, row.begun)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "lab-wg", "namespace": "vpn"}}
    apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "vpn"}},
        {**secret, "stringData": {"wireguard_private_key": kind_cluster.CLIENT_KEY}},
    )
    with table.row("NS", "made again with its Secret, then site.yml", web=False) as row:
        playbook("site")
        back(row, row.begun)


def clients_namespace_deleted(table: Table) -> None:
    """The last row: admission must not keep the namespace from its end, and what comes after is a removal without it."""
    with table.row("NS", "before the clients' namespace is deleted by hand"):
        pass
    took = time.monotonic()
    kubectl("delete", "namespace", "media", "--wait=true", timeout=240)
    table.evidence.measure(
        "the clients' namespace, deleted by hand, is gone after", "kind, calico", f"{time.monotonic() - took:.0f} s"
    )


ROWS = (
    ("F11a", f11_gateways_node),
    ("F12", f12_cluster_parts),
    ("F13", f13_policies_gone),
    ("F14", f14_no_webhook),
    ("README", locked_out_and_back),
    ("NS-gateway", gateways_namespace_deleted),
    ("F11b", f11_clients_node),
    ("NS-clients", clients_namespace_deleted),
)
