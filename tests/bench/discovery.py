# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Discovery of a large cluster, apart from the making of its objects: seconds and peak memory of each, in processes of their own.

`make bench ARGS="discovery 5000 50000 10000 500 2000 500"`: nodes, pods and Services as pages of JSON, then on a real API server.
"""

from __future__ import annotations

import ipaddress
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...plugins.module_utils._cluster.client import Cluster
from ...plugins.module_utils._cluster.transport import MERGE_PATCH, PAGE, ApiError, Transport
from ...plugins.module_utils._facts.discover import discover
from ..cluster.control_plane import ControlPlane

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


@dataclass
class Asked:
    """Where the time went: inside of requests (reading and decoding), and how many there were."""

    requests: int = 0
    seconds: float = 0.0


class Pages(Transport):
    """An API server whose lists lie encoded in files, one for each page, so that making them costs nothing here."""

    def __init__(self, folder: Path, asked: Asked) -> None:
        self.folder, self.asked = folder, asked

    @property
    def host(self) -> str:
        return "https://bench.example"

    def send(self, method: str, path: str, body: Any = None, what: str = "", **params: Any) -> Any:
        started = time.process_time()
        try:
            return self._answer(path, what, int(params.get("_continue") or 0))
        finally:
            self.asked.requests += 1
            self.asked.seconds += time.process_time() - started

    def _answer(self, path: str, what: str, start: int) -> Any:
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
        if name in MAKE:
            return json.loads((self.folder / f"{name}-{start}.json").read_bytes())
        if name == "endpointslices":
            return {"items": []}
        raise ApiError(404, "NotFound", "not found", [], what)


class Counted(Transport):
    """A real connection whose requests are counted."""

    def __init__(self, client: Any, asked: Asked) -> None:
        super().__init__(client)
        self.asked = asked

    def send(self, method: str, path: str, body: Any = None, what: str = "", **params: Any) -> Any:
        started = time.monotonic()
        try:
            return super().send(method, path, body, what, **params)
        finally:
            self.asked.requests += 1
            self.asked.seconds += time.monotonic() - started


#: plural -> how the object of a number is made
MAKE: dict[str, Callable[[int], Object]] = {
    "nodes": node,
    "pods": lambda number: pod(number - 1) if number else kcm(),
    "services": service,
}


def make_pages(folder: Path, counts: list[int]) -> None:
    for name, count in zip(MAKE, (counts[0], counts[1] + 1, counts[2]), strict=True):
        for start in range(0, count, PAGE):
            end = min(start + PAGE, count)
            more = str(end) if end < count else None
            page = {"items": [MAKE[name](number) for number in range(start, end)], "metadata": {"continue": more}}
            (folder / f"{name}-{start}.json").write_bytes(json.dumps(page).encode())


def opened(transport: Transport) -> Cluster:
    cluster = Cluster(None)
    cluster.transport = transport
    cluster.resources._transport = transport
    return cluster


def connected(kubeconfig: str, asked: Asked) -> Cluster:
    from kubernetes.config import new_client_from_config
    from kubernetes.dynamic import DynamicClient

    return opened(Counted(DynamicClient(new_client_from_config(kubeconfig)), asked))


def child(how: str, where: str, counts: list[int]) -> dict[str, Any]:
    """One row, measured in a process of its own: seconds, peak memory, what came out."""
    asked = Asked()
    if how == "server":
        cluster = connected(where, asked)
    else:
        cluster = opened(Pages(Path(where), asked))
    clock = time.monotonic if how == "server" else time.process_time
    empty, started = memory(), clock()
    if how == "making":
        make_pages(Path(where), counts)
        said = f"{sum(path.stat().st_size for path in Path(where).iterdir()) / 1024**2:.0f} MB of JSON"
    elif how == "whole":
        said = f"{sum(len(cluster.list('v1', kind)) for kind in ('Node', 'Pod', 'Service'))} objects held"
    else:
        facts = discover(cluster)
        said = ", ".join(f"{name} {facts['cidrs'][name]} {facts['ranges'][name]['status']}" for name in ("pods", "services"))
    seconds = clock() - started
    return {"seconds": seconds, "requests": asked.requests, "inside": asked.seconds, "empty": empty, "peak": memory(), "said": said}


def memory() -> float:
    """Megabytes at the peak."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(how: str, where: str, counts: list[int]) -> dict[str, Any]:
    """Runs a row. Raises CalledProcessError when it fails."""
    words = [sys.executable, "-m", __package__, "discovery", how, where, *map(str, counts)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def fill(plane: ControlPlane, counts: list[int]) -> None:
    """The same objects on a real API server. A pod's addresses are its status, which is a request of its own."""
    end = time.monotonic() + 120
    while "default" not in plane.run_kubectl("get", "serviceaccounts", "-n", "default", "-o", "name"):
        if time.monotonic() > end:
            raise RuntimeError("the namespace default got no service account within 120 s")
        time.sleep(0.5)
    transport = connected(str(plane.kubeconfig), Asked()).transport

    def create(name: str, number: int) -> None:
        made = MAKE[name](number)
        made["metadata"].pop("managedFields", None)
        space = "" if name == "nodes" else "/namespaces/kube-system" if (name, number) == ("pods", 0) else "/namespaces/default"
        made["metadata"]["namespace"] = space.rpartition("/")[2]
        for container in made["spec"].get("containers", ()):
            container.setdefault("image", "registry.example/none:1")
        if name == "services":
            made["spec"] = {"ports": [{"port": 80}]}
        transport.send("POST", f"/api/v1{space}/{name}", made)
        if name == "pods":
            path = f"/api/v1{space}/pods/{made['metadata']['name']}/status"
            transport.send("PATCH", path, {"status": made["status"]}, content_type=MERGE_PATCH)

    work = [
        (name, number) for name, count in zip(MAKE, (counts[0], counts[1] + 1, counts[2]), strict=True) for number in range(count)
    ]
    with ThreadPoolExecutor(8) as pool:
        for _done in pool.map(lambda item: create(*item), work):
            pass


def line(name: str, row: dict[str, Any], unit: str) -> str:
    rest = f"{row['inside']:8.1f} {row['seconds'] - row['inside']:8.1f} {row['requests']:8}" if row["requests"] else f"{'':26}"
    return f"{name:<22}{row['seconds']:8.1f} {rest} {row['peak'] - row['empty']:7.0f}  {unit}  {row['said']}"


def main(arguments: list[str]) -> int:
    if arguments and arguments[0] in ("making", "whole", "core", "server"):
        print(json.dumps(child(arguments[0], arguments[1], [int(item) for item in arguments[2:]])))
        return 0
    counts = [int(item) for item in arguments[:3]] or [5000, 50000, 10000]
    real = [int(item) for item in arguments[3:]] or [500, 2000, 500]
    print("seconds in all, inside of requests (reading, decoding), outside of them (judging); peak MB beyond an idle process")
    print(f"{'':<22}{'all':>8} {'inside':>8} {'outside':>8} {'requests':>8} {'MB':>7}")
    with tempfile.TemporaryDirectory() as folder:
        for how, name in (("making", "making the objects"), ("core", "discovery, in pages"), ("whole", "the same lists, held")):
            row = measured(how, folder, counts)
            print(line(name, row, "CPU "), flush=True)
    print(f"({counts[0]} nodes, {counts[1]} pods, {counts[2]} Services; {PAGE} objects a page)")
    with ControlPlane(kwok=False) as plane:
        started = time.monotonic()
        fill(plane, real)
        print(f"{'making the objects':<22}{time.monotonic() - started:8.1f} {'':34}  wall  on a real API server", flush=True)
        print(line("discovery", measured("server", str(plane.kubeconfig), real), "wall"), flush=True)
    print(f"({real[0]} nodes, {real[1]} pods, {real[2]} Services)")
    return 0
