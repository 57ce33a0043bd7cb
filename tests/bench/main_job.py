# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The main job's kill switches at scale, against kubectl apply --server-side and against one task per object.

    python -m ansible_collections.homelab.netguard.tests.bench main_job 1000 [apps in a namespace]

All on one real control plane, in one run, one after the other, each from an empty cluster. kubectl writes the same objects and
proves nothing; the module also shows by dry runs that the admission of each client is in force, and its time includes that. The
audit log tells the writes and the proof apart.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from ..cluster.control_plane import ControlPlane

FACTS = {
    "cidrs": {"pods": ["10.244.0.0/16"], "services": ["10.96.0.0/16"], "nodes": ["192.0.2.11/32"], "lan": ["198.51.100.0/24"]},
    "ranges": {"pods": {"status": "complete"}, "services": {"status": "complete"}},
    "dns": {"service_ip": "10.96.0.10", "namespace": "kube-system", "pod_labels": {"k8s-app": "kube-dns"}},
    "cni": {"name": "calico", "enforces_network_policy": True, "translates_kernel_packets": True},
    "server": {"version": "v1.34.4"},
}
#: Apps in a namespace, unless told.
TOGETHER = 50
#: Tasks of kubernetes.core.k8s that are timed; each costs the same.
TASKS = 20
LISTS = ("networkpolicies", "validatingadmissionpolicies", "validatingadmissionpolicybindings")
KILOBYTE = 1024


def memory(pid: int) -> int:
    """Resident bytes of a process, 0 once it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * KILOBYTE for line in text.splitlines() if line.startswith("VmRSS:")), 0)


def children(folder: Path) -> list[int]:
    """Processes of Ansible modules that were started in a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and b"AnsiballZ_" in (entry / "cmdline").read_bytes() and (entry / "cwd").resolve() == folder:
                found.append(int(entry.name))
        except OSError:
            continue  # ended meanwhile
    return found


class Bench:
    """One control plane and the plays that run on it."""

    def __init__(self, plane: ControlPlane, folder: Path, count: int, together: int) -> None:
        self.plane, self.folder = plane, folder.resolve()
        self.apps = [
            {
                "name": f"app-{number}",
                "namespace": f"bench-{number // together}",
                "pods": {"app": f"app-{number}"},
                "ports": {"web": 8080},
                "vpn": "proton",
            }
            for number in range(count)
        ]
        self.namespaces = sorted({str(app["namespace"]) for app in self.apps})
        self.gateways = [{"name": "proton", "provider": "protonvpn", "credentials": {"secret": "s"}}]
        self.peak = 0

    def prepare(self) -> None:
        """The namespaces, each with the account that pods need."""
        self.plane.apply(*[{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in self.namespaces])
        end = time.monotonic() + 60
        while len(self.plane.run_kubectl("get", "serviceaccounts", "-A", "--no-headers").split("\n")) <= len(self.namespaces):
            if time.monotonic() > end:
                raise RuntimeError("the namespaces got no service accounts within 60 s")
            time.sleep(0.5)

    def play(self, tasks: list[dict[str, Any]]) -> float:
        """Seconds of a run of ansible-playbook. Raises RuntimeError when it fails."""
        plays = [
            {
                "hosts": "localhost",
                "connection": "local",
                "gather_facts": False,
                "vars": {"ansible_python_interpreter": sys.executable},
                "tasks": tasks,
            }
        ]
        (self.folder / "play.yml").write_text(yaml.safe_dump(plays))
        started = time.monotonic()
        with (self.folder / "output").open("wb") as output:
            run = subprocess.Popen(
                [str(Path(sys.executable).parent / "ansible-playbook"), "play.yml"],
                cwd=self.folder,
                env={**os.environ, "KUBECONFIG": str(self.plane.kubeconfig), "ANSIBLE_LOCALHOST_WARNING": "false"},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            while run.poll() is None:
                self.peak = max([self.peak, *map(memory, children(self.folder))])
                time.sleep(0.2)
        if run.returncode:
            raise RuntimeError((self.folder / "output").read_text()[-3000:])
        return time.monotonic() - started

    def killswitch(self, **options: Any) -> tuple[float, dict[str, Any]]:
        """(wall seconds, result) of one run of the module."""
        arguments = {"gateways": self.gateways, "apps": self.apps, "facts": FACTS, **options}
        out = self.folder / "result.json"
        wall = self.play(
            [
                {"homelab.netguard.killswitch_policy": arguments, "register": "found"},
                {"ansible.builtin.copy": {"content": "{{ found | to_json }}", "dest": str(out), "mode": "0600"}},
            ]
        )
        result: dict[str, Any] = json.loads(out.read_text())
        return wall, result

    def remove(self) -> None:
        """Back to an empty cluster."""
        for kind in ("validatingadmissionpolicybindings", "validatingadmissionpolicies"):
            self.plane.run_kubectl("delete", kind, "-l", "homelab.netguard/part=admission", "--wait=false")
        # for a second the API server goes on protecting them
        end = time.monotonic() + 60
        while self.plane.run_kubectl("get", "networkpolicies", "-A", "-o", "name").strip():
            if time.monotonic() > end:
                raise RuntimeError("the network policies could not be deleted within 60 s")
            time.sleep(1)
            self.plane.run_kubectl("delete", "networkpolicies", "--all", "-A", "--wait=false", check=False)


def span(events: list[dict[str, Any]], *, dry: bool) -> float:
    """Seconds from the first to the end of the last write among events of the audit log; with `dry` of the dry runs."""
    chosen = [
        event
        for event in events
        if event["verb"] in ("create", "patch")
        and ("dryRun=All" in event["requestURI"]) == dry
        and "homelab.netguard" in event["requestURI"]
    ]
    started, ended = (
        [datetime.fromisoformat(event[name]) for event in chosen] for name in ("requestReceivedTimestamp", "stageTimestamp")
    )
    return (max(ended) - min(started)).total_seconds()


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main(words: list[str]) -> int:
    count = int(words[0]) if words else 1000
    together = int(words[1]) if len(words) > 1 else TOGETHER
    with ControlPlane(kwok=False) as plane, tempfile.TemporaryDirectory() as name:
        bench = Bench(plane, Path(name), count, together)
        say(f"{count} apps in {len(bench.namespaces)} namespaces on {os.cpu_count()} cores")
        bench.prepare()
        _wall, result = bench.killswitch(state="rendered")
        manifests: list[dict[str, Any]] = result["manifests"]
        (bench.folder / "all.yaml").write_text(yaml.safe_dump_all(manifests))
        say("kubectl apply --server-side")
        started = time.monotonic()
        plane.run_kubectl("apply", "--server-side", "-f", str(bench.folder / "all.yaml"))
        kubectl = time.monotonic() - started
        bench.remove()
        say(f"{TASKS} tasks of kubernetes.core.k8s")
        some = [item for item in manifests if item["kind"] == "NetworkPolicy"][:TASKS]
        empty = bench.play([{"ansible.builtin.meta": "noop"}])
        loop = {"loop": some, "loop_control": {"label": "{{ item.metadata.name }}"}}
        each = (bench.play([{"kubernetes.core.k8s": {"definition": "{{ item }}", "apply": True}, **loop}]) - empty) / len(some)
        bench.remove()
        bench.peak = 0
        say("the first run")
        mark = plane.mark()
        first_wall, first = bench.killswitch()
        sent = plane.audit(mark)
        writing, proving = span(sent, dry=False), span(sent, dry=True)
        peak = bench.peak
        say("the second run")
        mark = plane.mark()
        again_wall, again = bench.killswitch()
        writes = [
            event
            for event in plane.audit(mark)
            if event["verb"] in ("create", "update", "patch", "delete") and "dryRun=All" not in event["requestURI"]
        ]
        server = memory(plane.pid("kube-apiserver"))
    objects = len(manifests)
    ours = first["duration"] / objects
    rows = [
        ("kubectl apply --server-side", f"{kubectl:.1f} s", f"{objects} objects"),
        (
            "first run, module",
            f"{first['duration']:.1f} s",
            f"{first['duration'] / kubectl:.2f} of kubectl, {len(first['proven'])} clients proven",
        ),
        ("of it, the same writes", f"{writing:.1f} s", f"{writing / kubectl:.2f} of kubectl"),
        ("of it, the proof", f"{proving:.1f} s", f"{proving / len(first['proven']) * 1000:.1f} ms a client"),
        ("first run, ansible-playbook", f"{first_wall:.1f} s", f"an empty play takes {empty:.1f} s"),
        ("nothing to do, module", f"{again['duration']:.1f} s", f"{again['duration'] / first['duration']:.2f} of the first run"),
        ("nothing to do, ansible-playbook", f"{again_wall:.1f} s", f"{len(writes)} writes, changed {again['changed']}"),
        ("kubernetes.core.k8s, a task each", f"{each:.2f} s", f"an object; {each / ours:.1f} times ours"),
        ("memory of the module", f"{peak / KILOBYTE**2:.0f} MiB", "at its peak"),
        ("memory of the API server", f"{server / KILOBYTE**2:.0f} MiB", f"with {objects} objects"),
    ]
    for what, value, ratio in rows:
        print(f"{what:<36}{value:>12}  {ratio}")
    return 0
