# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The homes of the examples, and policies as a hand writes them."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.homelab.netguard.plugins.module_utils._audit.audit import audit
from ansible_collections.homelab.netguard.plugins.module_utils._audit.findings import Finding
from ansible_collections.homelab.netguard.plugins.module_utils._facts.model import Cni, Dns, Endpoint, Facts
from ansible_collections.homelab.netguard.plugins.module_utils._manifests import segments
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Live
from ansible_collections.homelab.netguard.plugins.module_utils._topology.model import Topology
from ansible_collections.homelab.netguard.plugins.module_utils._topology.parse import parse

ROOT = Path(__file__).resolve().parents[3]
APIS = {"calico": ("projectcalico.org/v3",), "cilium": ("cilium.io/v2",)}
K3S, RASPBERRY = "seed-003", "seed-004"
EVERYWHERE = {"namespaceSelector": {}}


def facts(example: str, cni: str) -> Facts:
    first = "10.0.40" if example == K3S else "10.0.10"
    pods, services = ("10.42.0.0/16", "10.43.0.0/16") if example == K3S else ("10.244.0.0/16", "10.96.0.0/16")
    service = ipaddress.ip_network(services)
    return Facts(
        pods=(ipaddress.ip_network(pods),),
        services=(service,),
        nodes=tuple(ipaddress.ip_network(f"{first}.{number}/32") for number in (101, 102, 103)),
        lan=(ipaddress.ip_network("10.0.0.0/16"),),
        api_endpoints=(Endpoint(f"{first}.101", 6443),),
        api_service_ip=str(service[1]),
        dns=Dns((str(service[10]),), "kube-system", {"k8s-app": "kube-dns"}),
        cni=Cni(cni, cni != "flannel", policy_apis=APIS.get(cni, ()), translates_kernel_packets=True),
        mesh_ambient=example == RASPBERRY,
        mesh_probe_sources=(ipaddress.ip_network("169.254.7.127/32"),) if example == RASPBERRY else (),
    )


def declared(example: str) -> Topology:
    found = yaml.safe_load((ROOT / "examples" / example / "homelab.yml").read_text())
    return parse("home", None, found["netguard_apps"], found.get("netguard_platform"), found.get("netguard_namespaces"))


def run(example: str, cni: str, without: tuple[str, ...] = (), extra: tuple[Any, ...] = ()) -> list[Finding]:
    """Findings over what we write, without the policies of some apps (`namespace/app`, or `namespace/` for the one of a
    namespace) and with others beside."""
    topology, known = declared(example), facts(example, cni)
    parts = [key.partition("/") for key in without]
    left_out = {(place, f"netguard-segment-{app}" if app else "netguard-segments") for place, _slash, app in parts}
    nodes = tuple(item for item in extra if item["kind"] == "Node")
    written = segments.build(topology, known, Live(nodes)).desired.objects
    kept = [item for item in written if (item["metadata"]["namespace"], item["metadata"]["name"]) not in left_out]
    assert len(written) - len(kept) >= len(left_out)
    return audit(topology, known, Live((*kept, *extra))).findings


def workload(name: str, namespace: str, /, *, host: bool = False, kind: str = "Deployment", **labels: str) -> dict[str, Any]:
    marks = {key.replace("__", "/").replace("_", "-"): value for key, value in labels.items()} or {"app": name}
    spec: dict[str, Any] = {"containers": [{"name": "c", "image": "x"}], **({"hostNetwork": True} if host else {})}
    template = {"metadata": {"labels": marks}, "spec": spec}
    meta = {"name": name, "namespace": namespace}
    body = {"selector": {"matchLabels": marks}, "template": template}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": meta, "spec": body}


def policy(namespace: str, pods: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    selector = {"matchLabels": pods} if pods else {}
    types = [name.capitalize() for name in ("ingress", "egress") if name in spec]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "by-hand", "namespace": namespace},
        "spec": {"podSelector": selector, "policyTypes": types, **spec},
    }


def space(name: str, **pods: str) -> dict[str, Any]:
    found: dict[str, Any] = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}
    return (
        {**found, "podSelector": {"matchLabels": {key.replace("__", "/"): value for key, value in pods.items()}}} if pods else found
    )


def block(cidr: str, *left_out: str) -> dict[str, Any]:
    return {"ipBlock": {"cidr": cidr, **({"except": list(left_out)} if left_out else {})}}


def tcp(*numbers: int) -> list[dict[str, Any]]:
    return [{"protocol": "TCP", "port": number} for number in numbers]


TRAEFIK = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "traefik"}},
}
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
TUNNEL = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "pi", "annotations": {"projectcalico.org/IPv4VXLANTunnelAddr": "10.244.7.0"}},
}
