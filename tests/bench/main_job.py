# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The main job's kill switches at scale, against kubectl apply --server-side and against one task per object.

    python -m ansible_collections.homelab.netguard.tests.bench main_job 1000

All on one real control plane, in one run, one after the other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
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
NAMESPACE = "bench"
PER_TASK = 100


class Bench:
    """One control plane and the plays that run on it."""

    def __init__(self, plane: ControlPlane, folder: Path, count: int) -> None:
        self.plane, self.folder = plane, folder
        names = [f"app-{number}" for number in range(count)]
        client = {"namespace": NAMESPACE, "ports": {"web": 8080}, "vpn": "proton"}
        self.apps = [{**client, "name": name, "pods": {"app": name}} for name in names]
        self.gateways = [{"name": "proton", "provider": "protonvpn", "credentials": {"secret": "s"}}]

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
        done = subprocess.run(
            [str(Path(sys.executable).parent / "ansible-playbook"), "play.yml"],
            cwd=self.folder,
            env={**os.environ, "KUBECONFIG": str(self.plane.kubeconfig), "ANSIBLE_LOCALHOST_WARNING": "false"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError((done.stdout + done.stderr)[-3000:])
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
        self.plane.run_kubectl("delete", "networkpolicies", "--all", "-n", NAMESPACE, check=False)
        kinds = "validatingadmissionpolicybindings,validatingadmissionpolicies"
        self.plane.run_kubectl("delete", kinds, "-l", "homelab.netguard/part=admission", check=False)


def rendered(bench: Bench) -> list[dict[str, Any]]:
    _wall, result = bench.killswitch(state="rendered")
    found: list[dict[str, Any]] = result["manifests"]
    return found


def main(words: list[str]) -> int:
    count = int(words[0]) if words else 1000
    with ControlPlane(kwok=False) as plane, tempfile.TemporaryDirectory() as name:
        bench = Bench(plane, Path(name), count)
        plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        manifests = rendered(bench)
        (bench.folder / "all.yaml").write_text(yaml.safe_dump_all(manifests))
        started = time.monotonic()
        plane.run_kubectl("apply", "--server-side", "-f", str(bench.folder / "all.yaml"))
        kubectl = time.monotonic() - started
        bench.remove()
        some = [item for item in manifests if item["kind"] == "NetworkPolicy"][:PER_TASK]
        per_task = bench.play(
            [
                {
                    "kubernetes.core.k8s": {"definition": "{{ item }}", "apply": True},
                    "loop": some,
                    "loop_control": {"label": "{{ item.metadata.name }}"},
                }
            ]
        )
        bench.remove()
        empty = bench.play([{"ansible.builtin.meta": "noop"}])
        first_wall, first = bench.killswitch()
        mark = plane.mark()
        again_wall, again = bench.killswitch()
        writes = [
            event
            for event in plane.audit(mark)
            if event["verb"] in ("create", "update", "patch", "delete") and "dryRun=All" not in event["requestURI"]
        ]
    objects = len(manifests)
    each, ours = per_task / max(1, len(some)), first["duration"] / objects
    rows = [
        ("objects", f"{objects}", ""),
        ("kubectl apply --server-side", f"{kubectl:.1f} s", "1.00"),
        ("first run, module", f"{first['duration']:.1f} s", f"{first['duration'] / kubectl:.2f} of kubectl"),
        ("first run, ansible-playbook", f"{first_wall:.1f} s", f"empty play {empty:.1f} s"),
        ("nothing to do, module", f"{again['duration']:.1f} s", f"{again['duration'] / first['duration']:.2f} of the first run"),
        ("nothing to do, ansible-playbook", f"{again_wall:.1f} s", f"{len(writes)} writes, changed {again['changed']}"),
        ("kubernetes.core.k8s, one task each", f"{each:.2f} s/object", f"{each / ours:.1f} times ours"),
    ]
    print(f"{count} apps on {os.cpu_count()} cores")
    for what, value, ratio in rows:
        print(f"{what:<36}{value:>16}  {ratio}")
    return 0
