# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The API server's endpoints, the cluster's DNS, and the mesh."""

from __future__ import annotations

from typing import Any

from .observations import at, items, text
from .world import Object, World

#: Addresses that Istio ambient gives the kubelet's probes (fixed in its source).
PROBE_SOURCES = ("169.254.7.127/32", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff/128")


def api_server(world: World) -> dict[str, Any]:
    """Endpoints with their real port, from the EndpointSlice; an API server on the node's network cannot be selected."""
    endpoints = []
    for item in world.kubernetes_slices:
        for port in items(at(item, "ports")):
            for endpoint in items(at(item, "endpoints")):
                for address in items(at(endpoint, "addresses")):
                    entry = {"ip": address, "port": at(port, "port")}
                    if isinstance(entry["port"], int) and entry not in endpoints:
                        endpoints.append(entry)
    return {
        "endpoints": sorted(endpoints, key=lambda entry: (entry["ip"], entry["port"])),
        "service_ip": text(at(world.kubernetes, "spec", "clusterIP")),
    }


def dns(world: World) -> tuple[dict[str, Any], list[str]]:
    """The DNS Service's pods and their ports, and doubts. Pods listen where `targetPort` says, on OpenShift 5353."""
    found: dict[str, Any] = {
        "service_ip": "",
        "namespace": "",
        "pod_labels": {},
        "ports": {"udp": [], "tcp": []},
        "node_local_ip": "",
        "cluster_domain": _domain(world),
    }
    doubts: list[str] = []
    candidates = [item for item in world.services if _is_dns(item)]
    if not candidates:
        doubts.append("no Service of the cluster's DNS was found" + (" (Services may not be listed)" if not world.services else ""))
    elif len(candidates) > 1:
        doubts.append(
            "several DNS Services: "
            + ", ".join(f"{at(item, 'metadata', 'namespace')}/{at(item, 'metadata', 'name')}" for item in candidates)
        )
    if candidates:
        service = candidates[0]
        namespace = text(at(service, "metadata", "namespace"))
        selector = at(service, "spec", "selector")
        found.update(
            service_ip=text(at(service, "spec", "clusterIP")),
            namespace=namespace,
            pod_labels=dict(selector) if isinstance(selector, dict) else {},
        )
        for port in items(at(service, "spec", "ports")):
            protocol = (text(at(port, "protocol")) or "TCP").lower()
            if at(port, "port") == 53 and protocol in found["ports"]:
                found["ports"][protocol] += _targets(world, namespace, found["pod_labels"], at(port, "targetPort") or 53)
        if not found["pod_labels"]:
            doubts.append("the DNS Service has no selector: its pods cannot be named in a policy")
    for protocol in ("udp", "tcp"):
        found["ports"][protocol] = sorted(set(found["ports"][protocol])) or [53]
    found["node_local_ip"] = _node_local(world)
    return found, doubts


def _is_dns(service: Object) -> bool:
    labels = at(service, "metadata", "labels") or {}
    name = text(at(service, "metadata", "name"))
    has_port = any(at(port, "port") == 53 for port in items(at(service, "spec", "ports")))
    if not has_port or at(service, "spec", "type") == "ExternalName":
        return False
    if name in ("kube-dns-upstream", "node-local-dns"):
        return False
    known = name in ("kube-dns", "coredns", "rke2-coredns-rke2-coredns", "dns-default")
    return known and (
        labels.get("k8s-app") == "kube-dns" or name != "coredns" or at(service, "metadata", "namespace") == "kube-system"
    )


def _targets(world: World, namespace: str, selector: dict[str, str], target: Any) -> list[int]:
    """Numbers of a target port; a name is looked up in the pods."""
    if isinstance(target, int):
        return [target]
    found = [
        at(port, "containerPort")
        for pod in world.pods
        if at(pod, "metadata", "namespace") == namespace
        and selector
        and all((at(pod, "metadata", "labels") or {}).get(key) == value for key, value in selector.items())
        for container in items(at(pod, "spec", "containers"))
        for port in items(at(container, "ports"))
        if at(port, "name") == target
    ]
    return [port for port in found if isinstance(port, int)] or [53]


def _node_local(world: World) -> str:
    """Address of a NodeLocal DNSCache that runs on the node's network (first item of -localip, else the default)."""
    for item in world.daemonsets:
        name = text(at(item, "metadata", "name"))
        if at(item, "metadata", "labels", "k8s-app") != "node-local-dns" and name != "node-local-dns":
            continue
        if at(item, "spec", "template", "spec", "hostNetwork") is not True:
            continue
        for container in items(at(item, "spec", "template", "spec", "containers")):
            words = [text(word) for word in (*items(at(container, "command")), *items(at(container, "args")))]
            for position, word in enumerate(words):
                if word.lstrip("-").startswith("localip="):
                    return word.split("=", 1)[1].split(",")[0]
                if word.lstrip("-") == "localip" and position + 1 < len(words):
                    return words[position + 1].split(",")[0]
        return "169.254.20.10"
    return ""


def _domain(world: World) -> str:
    """The cluster domain: from CoreDNS' own configuration, else from the kubelet's, else the default of all distributions."""
    _reference, data = world.config_map("coredns")
    for line in text(data.get("Corefile")).splitlines():
        words = line.split()
        if words[:1] == ["kubernetes"] and len(words) > 1 and not words[1].endswith((".arpa", "{")):
            return words[1].rstrip(".")
    _reference, data = world.config_map("kubelet-config")
    for line in text(data.get("kubelet")).splitlines():
        if line.strip().startswith("clusterDomain:"):
            return line.split(":", 1)[1].strip().strip('"')
    return "cluster.local"


def forwarders(world: World) -> list[str]:
    """Where CoreDNS sends what it does not know: names of a pod that may ask it leave there, outside of any tunnel."""
    _reference, data = world.config_map("coredns")
    found = []
    for line in text(data.get("Corefile")).splitlines():
        words = line.split()
        if words[:1] == ["forward"] and len(words) > 2:
            found += [word for word in words[2:] if word != "{"]
    return found


def mesh(world: World) -> dict[str, Any]:
    """Whether Istio ambient runs: its CNI agent's DaemonSet with ztunnel beside it."""
    names = {text(at(item, "metadata", "name")) for item in world.daemonsets}
    ambient = "ztunnel" in names
    return {"ambient": ambient, "probe_sources": list(PROBE_SOURCES) if ambient else []}
