# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The audit of many workloads, each with a policy of its own: seconds, memory, growth, and network-config-analyzer beside it.

`make bench ARGS="audit 250 1000 4000"` chooses the sizes. The analyzer is run where its program `nca` is found
(`pip install network-config-analyzer`, best in an environment of its own that is on PATH), on 100 of the same workloads.
"""

from __future__ import annotations

import ipaddress
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ...plugins.module_utils._audit import check_clients
from ...plugins.module_utils._audit.audit import audit, chosen
from ...plugins.module_utils._audit.declared import declared
from ...plugins.module_utils._audit.engine import Engine
from ...plugins.module_utils._audit.world import World
from ...plugins.module_utils._facts.model import Cni, Dns, Facts
from ...plugins.module_utils._manifests import killswitch
from ...plugins.module_utils._manifests.model import Live
from ...plugins.module_utils._topology.model import Topology
from ...plugins.module_utils._topology.parse import parse

SIZES = (250, 500, 1000, 2000, 4000)
FACTS = Facts(
    pods=(ipaddress.ip_network("10.42.0.0/16"),),
    services=(ipaddress.ip_network("10.43.0.0/16"),),
    lan=(ipaddress.ip_network("192.168.1.0/24"),),
    dns=Dns(("10.43.0.10",), "kube-system", {"k8s-app": "kube-dns"}),
    cni=Cni("calico", True, translates_kernel_packets=True),
)


def objects(count: int) -> list[dict[str, Any]]:
    """Ten workloads to a namespace; every policy has two peers of its own and a network of its own."""
    found: list[dict[str, Any]] = []
    for number in range(count):
        space, labels = f"ns{number // 10}", {"app": f"a{number}"}
        other = (number * 7 + 3) % count
        template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
        meta = {"name": f"a{number}", "namespace": space}
        selector = {"matchLabels": labels}
        found.append(
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {"selector": selector, "template": template}}
        )
        peer = {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": f"ns{other // 10}"}},
            "podSelector": {"matchLabels": {"app": f"a{other}"}},
        }
        own = {"ipBlock": {"cidr": f"172.{16 + number // 65536}.{number // 256 % 256}.{number % 256}/32"}}
        spec = {
            "podSelector": selector,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [peer, {"podSelector": {}}], "ports": [{"protocol": "TCP", "port": 8080}]}],
            "egress": [{"to": [peer, own], "ports": [{"protocol": "TCP", "port": 8080 + number % 100}]}],
        }
        policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {**meta, "name": f"p{number}"}}
        found.append({**policy, "spec": spec})
    return found


def case(count: int) -> tuple[Topology, Live]:
    """A list whose first app is a client, and the cluster with its kill switch."""
    listed = objects(count)
    apps: list[dict[str, Any]] = [
        {"name": f"a{number}", "namespace": f"ns{number // 10}", "ports": {"web": 8080}} for number in range(count)
    ]
    apps[0]["vpn"] = "proton"
    gateway = {"name": "proton", "namespace": "vpn", "provider": "protonvpn", "credentials": {"secret": "x"}}
    topology = parse("home", [gateway], apps, {}, [])
    there = Live(tuple(listed))
    closed = killswitch.build(topology, FACTS, there, dialect="networkpolicy", clients=topology.clients)
    return topology, Live((*listed, *closed.desired.objects))


def client_alone(topology: Topology, live: Live) -> float:
    """Seconds of the one client's check with the reading of all policies."""
    client = topology.clients[0]
    began = time.perf_counter()
    engine = Engine(World(topology, FACTS, live), chosen(FACTS, "auto")[0])
    list(check_clients.check(engine, declared(topology, FACTS, live, engine.world, [client]), client))
    return time.perf_counter() - began


def one(count: int) -> dict[str, float]:
    """Seconds of a whole audit, of one client's check among policies that were read before, and of that with the reading.

    The reading comes first: behind a whole audit, Python's garbage collector would walk over that one's objects too.
    """
    client_alone(*case(10))
    topology, live = case(count)
    alone = client_alone(topology, live)
    client = topology.clients[0]
    began = time.perf_counter()
    report = audit(topology, FACTS, live)
    whole = time.perf_counter() - began
    known = declared(topology, FACTS, live, report.engine.world, [client])
    report.engine._sides.clear()
    began = time.perf_counter()
    list(check_clients.check(report.engine, known, client))
    check = time.perf_counter() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"whole": whole, "check": check, "alone": alone, "memory": memory, "findings": float(len(report.findings))}


def analyzer(count: int) -> tuple[float, float] | None:
    """(seconds of network-config-analyzer, seconds of ours) on the same files, each as a process; None: it is not there."""
    program = shutil.which("nca", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if program is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        listed = objects(count)
        spaces = sorted({item["metadata"]["namespace"] for item in listed})
        listed += [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in spaces]
        path = Path(folder) / "all.json"
        path.with_suffix(".yaml").write_text("\n---\n".join(json.dumps(item) for item in listed))
        began = time.perf_counter()
        command = [program, "--connectivity", "-r", folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        theirs = time.perf_counter() - began
        if done.returncode:
            print(done.stderr[-300:])
            return None
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", __name__, str(count)], capture_output=True, timeout=600, check=True)
        return theirs, time.perf_counter() - began


def _growth(checks: dict[int, tuple[float, float]]) -> None:
    """How the client's check grows from the least to the most policies, beside n log n."""
    least, most = min(checks), max(checks)
    if least == most:
        return
    expected = most * math.log(most) / (least * math.log(least))
    alone, reading = (checks[most][place] / checks[least][place] for place in (0, 1))
    print(
        f"one client, {least} to {most} policies: {alone:.1f} times, with the reading {reading:.1f} times; n log n: {expected:.1f}"
    )


def main(arguments: list[str]) -> int:
    sizes = [int(text) for text in arguments] or list(SIZES)
    print(
        f"{os.cpu_count()} cores; one client: its check among policies that were read before, and with the reading of all of them"
    )
    print(f"{'workloads':>9} {'policies':>9} {'audit s':>9} {'MiB':>6} {'one client ms':>14} {'with reading s':>15}")
    checks: dict[int, tuple[float, float]] = {}
    for size in sizes:
        done = subprocess.run([sys.executable, "-m", __name__, str(size)], capture_output=True, text=True, timeout=900, check=True)
        found = json.loads(done.stdout)
        whole, memory, check = found["whole"], found["memory"], found["check"] * 1000
        checks[size] = (found["check"], found["alone"])
        print(f"{size:>9} {size + 1:>9} {whole:>9.2f} {memory:>6.0f} {check:>14.2f} {found['alone']:>15.2f}", flush=True)
    _growth(checks)
    beside = analyzer(100)
    if beside is None:
        print("network-config-analyzer is not installed here: no ratio")
    else:
        print(
            f"100 workloads: network-config-analyzer {beside[0]:.1f} s, ours {beside[1]:.1f} s, ratio {beside[0] / beside[1]:.0f}"
        )
    return 0


if __name__ == "__main__":
    print(json.dumps(one(int(sys.argv[1]))))
