# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Discovery of a large cluster: 5000 nodes, 50 000 pods and 10 000 Services, read in pages as JSON.

`make bench ARGS="discovery 5000 50000 10000"` prints seconds and peak memory, and beside them the same lists held whole.
"""

from __future__ import annotations

import ipaddress
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from ...plugins.module_utils._cluster.client import Cluster
from ...plugins.module_utils._cluster.transport import ApiError, Transport
from ...plugins.module_utils._facts.discover import discover

Object = dict[str, Any]

#: What makes real objects large: fields that discovery has no use for.
MANAGED = [{"manager": "kubelet", "operation": "Update", "fieldsV1": {f"f:field-{number}": {} for number in range(60)}}]
MASK = "projectcalico.org/IPv4Address"
PODS, SERVICES = ipaddress.ip_network("10.32.0.0/11"), ipaddress.ip_network("10.96.0.0/12")


def node(number: int) -> Object:
    address = ipaddress.ip_address("172.16.0.10") + number
    cidr = f"{PODS.network_address + number * 256}/24"
    return {
        "metadata": {"name": f"node-{number}", "managedFields": MANAGED, "labels": {}, "annotations": {MASK: f"{address}/16"}},
        "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
        "status": {
            "addresses": [{"type": "InternalIP", "address": str(address)}],
            "images": [{"names": [f"registry.example/image-{item}@sha256:{'0' * 64}"], "sizeBytes": 1} for item in range(50)],
            "nodeInfo": {"kubeletVersion": "v1.34.1", "osImage": "Debian"},
        },
    }


def pod(number: int) -> Object:
    address = PODS.network_address + (number % 5000) * 256 + 2 + number // 5000
    container = {
        "name": "app",
        "image": "registry.example/app:1",
        "env": [{"name": f"V{item}", "value": "x" * 40} for item in range(20)],
    }
    return {
        "metadata": {"name": f"pod-{number}", "namespace": f"ns-{number % 200}", "managedFields": MANAGED, "labels": {"app": "x"}},
        "spec": {"containers": [container]},
        "status": {"phase": "Running", "podIPs": [{"ip": str(address)}]},
    }


def service(number: int) -> Object:
    address = str(SERVICES.network_address + 100 + number)
    return {
        "metadata": {"name": f"service-{number}", "namespace": f"ns-{number % 200}", "managedFields": MANAGED, "labels": {}},
        "spec": {"clusterIP": address, "clusterIPs": [address], "ports": [{"port": 80}]},
    }


def kcm() -> Object:
    words = [
        "kube-controller-manager",
        "--allocate-node-cidrs=true",
        f"--cluster-cidr={PODS}",
        f"--service-cluster-ip-range={SERVICES}",
    ]
    return {
        "metadata": {"name": "kcm", "namespace": "kube-system", "labels": {"component": "kube-controller-manager"}},
        "spec": {"hostNetwork": True, "containers": [{"name": "kcm", "command": words}]},
        "status": {"phase": "Running"},
    }


KINDS = {
    "nodes": "Node",
    "pods": "Pod",
    "services": "Service",
    "configmaps": "ConfigMap",
    "daemonsets": "DaemonSet",
    "endpointslices": "EndpointSlice",
    "servicecidrs": "ServiceCIDR",
}


class Pages(Transport):
    """An API server in memory: every page is made, encoded and decoded when it is asked for."""

    def __init__(self, nodes: int, pods: int, services: int) -> None:
        self.counts = {"nodes": nodes, "pods": pods + 1, "services": services}

    @property
    def host(self) -> str:
        return "https://bench.example"

    def send(self, method: str, path: str, body: Any = None, what: str = "", **params: Any) -> Any:
        if path == "/version":
            return {"gitVersion": "v1.34.1"}
        if path == "/apis":
            groups = ("apps", "discovery.k8s.io", "networking.k8s.io")
            return {"groups": [{"name": group, "versions": [{"version": "v1"}]} for group in groups]}
        name = path.rsplit("/", 1)[1]
        if path in ("/api/v1", "/apis/apps/v1", "/apis/discovery.k8s.io/v1", "/apis/networking.k8s.io/v1"):
            return {"resources": [{"name": plural, "kind": kind, "namespaced": True} for plural, kind in KINDS.items()]}
        if name == "kubernetes":
            return {"metadata": {"name": name}, "spec": {"clusterIP": str(SERVICES.network_address + 1)}}
        if name == "daemonsets":
            meta = {"name": "kindnet", "namespace": "kube-system", "labels": {"app": "kindnet"}}
            return {"items": [{"metadata": meta, "spec": {}, "status": {"desiredNumberScheduled": 1}}]}
        if name == "servicecidrs":
            return {"items": [{"metadata": {"name": "kubernetes"}, "spec": {"cidrs": [str(SERVICES)]}}]}
        if name in self.counts:
            return self._page(name, int(params.get("_continue") or 0), int(params["limit"]))
        if name == "endpointslices":
            return {"items": []}
        raise ApiError(404, "NotFound", "not found", [], what)

    def _page(self, name: str, start: int, limit: int) -> Any:
        make = {"nodes": node, "services": service, "pods": lambda number: pod(number - 1) if number else kcm()}[name]
        end = min(start + limit, self.counts[name])
        more = str(end) if end < self.counts[name] else None
        page = {"items": [make(number) for number in range(start, end)], "metadata": {"continue": more}}
        return json.loads(json.dumps(page))


def opened(counts: list[int]) -> Cluster:
    cluster = Cluster(None)
    cluster.transport = Pages(*counts)
    cluster.resources._transport = cluster.transport
    return cluster


def one(how: str, counts: list[int]) -> int:
    started = time.monotonic()
    cluster = opened(counts)
    if how == "whole":
        kept = [cluster.list("v1", kind) for kind in ("Node", "Pod", "Service")]
        said = f"{sum(len(item) for item in kept)} objects"
    else:
        facts = discover(cluster)
        said = ", ".join(f"{name} {facts['cidrs'][name]} {facts['ranges'][name]['status']}" for name in ("pods", "services"))
    seconds, busy = time.monotonic() - started, time.process_time()
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{how:<8} {seconds:6.1f} s ({busy:.1f} s of CPU) {megabytes:7.0f} MB  {said}", flush=True)
    return 0


def lines() -> Iterator[str]:
    yield "whole: the same lists held in memory, nothing judged; discover: discovery as the module does it."
    yield "Both times hold the making of the objects."


def main(arguments: list[str]) -> int:
    if arguments and arguments[0] in ("whole", "discover"):
        return one(arguments[0], [int(item) for item in arguments[1:]])
    counts = [int(item) for item in arguments] or [5000, 50000, 10000]
    print(f"{counts[0]} nodes, {counts[1]} pods, {counts[2]} Services")
    print("\n".join(lines()), flush=True)
    for how in ("discover", "whole"):
        done = subprocess.run([sys.executable, "-m", __package__, "discovery", how, *map(str, counts)], check=False)
        if done.returncode:
            return done.returncode
    return 0
