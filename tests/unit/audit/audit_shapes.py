# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Small clusters, written shortly: workloads, policies of every language, facts."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

from ansible_collections.homelab.netguard.plugins.module_utils._audit.engine import Engine, verdict
from ansible_collections.homelab.netguard.plugins.module_utils._audit.profiles import PROFILES
from ansible_collections.homelab.netguard.plugins.module_utils._audit.world import World
from ansible_collections.homelab.netguard.plugins.module_utils._facts.model import Cni, Dns, Endpoint, Facts
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Live
from ansible_collections.homelab.netguard.plugins.module_utils._topology.model import Topology

Manifest = dict[str, Any]


def networks(*texts: str) -> tuple[Any, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


def facts(name: str = "calico", /, **changes: Any) -> Facts:
    given: dict[str, Any] = {
        "pods": networks("10.42.0.0/16"),
        "services": networks("10.43.0.0/16"),
        "nodes": networks("192.0.2.11/32", "192.0.2.12/32"),
        "lan": networks("192.0.2.0/24"),
        "api_endpoints": (Endpoint("192.0.2.11", 6443),),
        "api_service_ip": "10.43.0.1",
        "dns": Dns(("10.43.0.10",), "kube-system", {"k8s-app": "kube-dns"}),
        "cni": Cni(name, translates_kernel_packets=True),
    }
    return Facts(**{**given, **changes})


def deployment(
    name: str, namespace: str = "a", *, ip: str = "", host: bool = False, ports: Any = (), **labels: str
) -> list[Manifest]:
    """A Deployment and, with `ip`, its running pod. `ports`: (name, number) or (name, number, protocol)."""
    listed = [{"name": item[0], "containerPort": item[1], "protocol": item[2] if len(item) > 2 else "TCP"} for item in ports]
    spec: Manifest = {"containers": [{"name": "c", "ports": listed}]}
    if host:
        spec["hostNetwork"] = True
    template = {"metadata": {"labels": {"app": name, **labels}}, "spec": spec}
    meta = {"name": name, "namespace": namespace}
    found: list[Manifest] = [{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {"template": template}}]
    if ip:
        found.append(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": f"{name}-1-x",
                    "namespace": namespace,
                    "labels": {"app": name, "pod-template-hash": "1", **labels},
                    "ownerReferences": [{"kind": "ReplicaSet", "name": f"{name}-1", "controller": True}],
                },
                "spec": spec,
                "status": {"phase": "Running", "podIPs": [{"ip": ip}]},
            }
        )
    return found


def policy(name: str = "p", namespace: str = "a", **spec: Any) -> Manifest:
    spec.setdefault("podSelector", {})
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}


def custom(api: str, kind: str, name: str, spec: Manifest, namespace: str = "", **labels: str) -> Manifest:
    meta: Manifest = {"name": name, "labels": labels}
    if namespace:
        meta["namespace"] = namespace
    return {"apiVersion": api, "kind": kind, "metadata": meta, "spec": spec}


def namespace(name: str, **labels: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def engine(
    objects: Iterable[Any], profile: str = "calico", *, known: Facts | None = None, topology: Topology | None = None
) -> Engine:
    flat: list[Manifest] = []
    for item in objects:
        flat += item if isinstance(item, list) else [item]
    world = World(topology or Topology("home"), known or facts(profile), Live(tuple(flat)))
    return Engine(world, PROFILES[profile])


def index(found: Engine, name: str) -> int:
    """By `namespace/name` of a workload."""
    wanted = name.split("/")
    return next(
        place
        for place, one in enumerate(found.world.endpoints)
        if (one.namespace, one.name.split("/")[2]) == (wanted[0], wanted[1])
    )


def ask(found: Engine, source: str, destination: str, port: str) -> str:
    """The verdict for a flow; an end with a slash is a workload, else an address; port as 443/tcp or icmp."""
    number, _slash, protocol = port.partition("/")
    name = "ICMP" if number == "icmp" else protocol.upper()
    value = 0 if number == "icmp" else int(number)
    if "/" in source and "/" in destination:
        return verdict(found.pair(index(found, source), index(found, destination)), name, value)
    inside, outside, direction = (source, destination, "egress") if "/" in source else (destination, source, "ingress")
    side = found.side(index(found, inside), direction)
    address = ipaddress.ip_address(outside)
    if side.sure.address(address).has(name, value):
        return "allowed"
    return "implementation-defined" if side.possible.address(address).has(name, value) else "denied"
