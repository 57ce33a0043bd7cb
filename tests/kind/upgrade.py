# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scenario `upgrade`: what an owner changes later, while the clients never stop talking (U1, U2 and the like)."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from ..cluster import kind_cluster
from . import sensors
from .faults_cluster import node_ready
from .field import FieldError, Pod, also_named, apply, kubectl, nodes, playbook, pods, program, run, wait_for
from .rows import CLIENT, GATEWAY, SECOND, Table, back, blocked, connected, write

VARIABLES = Path(__file__).resolve().parents[2] / "molecule" / "lab" / "vars" / "homelab.yml"
NEWER = "netguard.test/overlay:v1.0.1"


def site(**changes: Any) -> str:
    """site.yml with some of the variables changed."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(changes, file)
        file.flush()
        return playbook("site", "-e", f"@{file.name}")


def gateways(**changes: Any) -> list[dict[str, Any]]:
    variables: dict[str, Any] = yaml.safe_load(VARIABLES.read_text())
    return [{**gateway, **changes} for gateway in variables["netguard_gateways"]]


def images(**changes: str) -> dict[str, str]:
    variables: dict[str, Any] = yaml.safe_load(VARIABLES.read_text())
    return {**variables["netguard_images"], **changes}


def u1_twice(table: Table) -> None:
    with table.row("U1", "site.yml twice, nothing changed") as row:
        before = {pod["metadata"]["uid"] for pod in pods("media", "app in (qbittorrent, transmission)")}
        for _turn in range(2):
            said = playbook("site")
            table.check("changed=0" in said, row, f"changes: {said[-600:]}")
        after = {pod["metadata"]["uid"] for pod in pods("media", "app in (qbittorrent, transmission)")}
        table.check(before == after, row, "pods were replaced")


def image_bump(table: Table) -> None:
    also_named("netguard.test/overlay:v1.0.0", NEWER)
    with table.row("U1", "a newer overlay image: gateway and clients roll", web=False):
        site(netguard_images=images(overlay=NEWER))
        connected()
    for pod in (CLIENT, SECOND):
        if pod.live()["spec"]["initContainers"][0]["image"] != NEWER:
            raise FieldError("the client has the old image")
    with table.row("U1", "and back", web=False):
        site()
        connected()


def overlay_network(table: Table) -> None:
    with table.row("U1", "another overlay network: gateway and clients roll", web=False):
        site(netguard_gateways=gateways(overlay={"network": "172.28.0.0/16"}))
        connected()
    if "172.28." not in CLIENT.node_shell("inside ip -4 -o address show dev vxlan0"):
        raise FieldError("the client is still in the old overlay network")
    with table.row("U1", "and back", web=False):
        site()
        connected()


def gateway_namespace(table: Table) -> None:
    elsewhere = Pod("elsewhere", GATEWAY.selector)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "lab-wg", "namespace": "elsewhere"}}
    apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "elsewhere"}},
        {**secret, "stringData": {"wireguard_private_key": kind_cluster.CLIENT_KEY}},
    )
    with table.row("U1", "the gateway moves to another namespace", web=False) as row:
        site(netguard_gateways=gateways(namespace="elsewhere"))
        wait_for("the new gateway is ready", elsewhere.ready)
        back(row, row.begun)
    if pods("vpn", GATEWAY.selector):
        raise FieldError("the old gateway is still there")
    with table.row("U1", "and back", web=False):
        site()
        connected()
    kubectl("delete", "namespace", "elsewhere", "--wait=true", timeout=180)


def drained_node(table: Table) -> None:
    victim = next(name for name in nodes() if name != CLIENT.live()["spec"]["nodeName"])
    with table.row("U1", "the other node is drained and comes back", web=False):
        try:
            kubectl("drain", victim, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=180s", timeout=200)
        finally:
            kubectl("uncordon", victim)
        connected()


def rolling_restart(table: Table) -> None:
    """Node after node, as kernels are updated. What a node sends before its own sensors are there again, the host's sees."""
    for victim in reversed(nodes()):
        role, own = victim.removeprefix(f"{kind_cluster.CLUSTER}-"), kind_cluster.pod_range(victim)
        with table.row("U1", f"rolling restart: {role} is drained and boots", web=False, asleep=(victim,)):
            drain = ("--ignore-daemonsets", "--delete-emptydir-data", "--force", "--disable-eviction", "--timeout=180s")
            kubectl("drain", victim, *drain, timeout=200)
            run("docker", "restart", victim, timeout=180)
            kind_cluster.routes(victim, own)
            sensors.arm_node(victim)
            wait_for("the node is ready again", lambda victim=victim: node_ready(victim))  # type: ignore[misc]
            wait_for("the node takes pods again", lambda victim=victim: "cordoned" in kubectl("uncordon", victim))  # type: ignore[misc]
            connected()
        with table.row("U1", f"rolling restart: {role} is back, all sensors"):
            pass


def u2_gateway_absent(table: Table) -> None:
    """The gateway is taken away while its clients stay: either the module refuses, or they are closed."""
    words = ("ansible", "-i", "localhost,", "localhost", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}")
    with table.row("U2", "vpn_gateway state=absent while its clients remain") as row:
        said = run(*words, "-m", "homelab.netguard.vpn_gateway", "-a", "state=absent", check=False)
        if pods("vpn", GATEWAY.selector):
            row.note = "refused"
            table.check("FAILED" in said and "client" in said, row, f"neither refused nor removed: {said[-400:]}")
        else:
            row.note = "removed; clients closed"
            blocked(row, row.begun)
    with table.row("U2", "site.yml puts it back", web=False):
        site()
        connected()


ROWS: tuple[tuple[str, Callable[[Table], None]], ...] = (
    ("U1", u1_twice),
    ("image", image_bump),
    ("overlay", overlay_network),
    ("namespace", gateway_namespace),
    ("drain", drained_node),
    ("restart", rolling_restart),
    ("U2", u2_gateway_absent),
)


def main() -> int:
    from .faults import run_rows

    table = Table(Path(os.environ.get("NETGUARD_TABLES", "build/molecule")) / "upgrade" / "rows.json")
    sensors.arm()
    run_rows(tuple(row for row in ROWS if not sys.argv[1:] or row[0] in sys.argv[1:]), table)
    return write(table)


if __name__ == "__main__":
    program(main)
