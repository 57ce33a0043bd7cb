# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The API server's endpoints, the cluster's DNS, and the mesh."""

from __future__ import annotations

from typing import Any

from . import observations as obs
from .cni_config import server_arguments
from .distribution import ARGUMENTS
from .observations import at, items, text
from .reconcile import Doubt
from .source_pods import document
from .world import Object, World

#: What names another DNS Service.
_SERVICE = ("dns.service_ip", "dns.namespace", "dns.pod_labels")
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
                    if isinstance(entry["port"], int) and obs.address(address) and entry not in endpoints:
                        endpoints.append(entry)
    return {
        "endpoints": sorted(endpoints, key=lambda entry: (entry["ip"], entry["port"])),
        "service_ip": text(at(world.kubernetes, "spec", "clusterIP")),
    }


def dns(world: World) -> tuple[dict[str, Any], list[Doubt]]:
    """The DNS Service's pods and their ports, and doubts. Pods listen where the endpoints say, on OpenShift at 5353."""
    found: dict[str, Any] = {
        "service_ip": "",
        "service_ips": [],
        "namespace": "",
        "pod_labels": {},
        "ports": {"udp": [], "tcp": []},
        "node_local_ip": _node_local(world),
        "cluster_domain": _domain(world),
    }
    doubts: list[Doubt] = []

    def doubt(text: str, *ends: str) -> None:
        doubts.append(Doubt("dns", f"DNS: {text}", ends))

    if world.state("DaemonSet") != "ok" and not found["node_local_ip"]:
        doubt("whether a NodeLocal DNSCache runs is not known (DaemonSet is not readable)", "dns.node_local_ip")
    candidates = _candidates(world)
    if not candidates:
        lost = world.asking.lost("Service")
        why = f" (not readable: {', '.join(lost)})" if lost else ""
        doubt(f"no Service of the cluster's DNS was found{why}", *_SERVICE)
    elif len(candidates) > 1:
        doubt(f"several Services may be it: {', '.join(_name(item) for item in candidates)}", *_SERVICE)
    if candidates:
        service = candidates[0]
        namespace, name = text(at(service, "metadata", "namespace")), text(at(service, "metadata", "name"))
        selector = obs.strings(at(service, "spec", "selector"))
        addresses = [item for item in items(at(service, "spec", "clusterIPs")) if obs.address(item)]
        found["service_ip"] = text(at(service, "spec", "clusterIP"))
        found["service_ips"] = addresses or [found["service_ip"]]
        found.update(namespace=namespace, pod_labels=selector)
        found["ports"] = _ports(world, service, world.dns_slices.get((namespace, name), []), selector)
        if not selector:
            doubt(f"{namespace}/{name} has no selector: its pods cannot be named in a policy", "dns.pod_labels")
        elif not all(found["ports"].values()):
            doubt(f"{namespace}/{name}: no endpoint tells the port of its pods", "dns.ports")
    for protocol in ("udp", "tcp"):
        found["ports"][protocol] = found["ports"][protocol] or [53]
    return found, doubts


def _name(service: Object) -> str:
    return f"{text(at(service, 'metadata', 'namespace'))}/{text(at(service, 'metadata', 'name'))}"


def _candidates(world: World) -> list[Object]:
    """By the label that all distributions but OpenShift give, OpenShift's own, the kubelets' address, a known name."""
    real = sorted(
        (
            item
            for item in world.services
            if at(item, "spec", "type") != "ExternalName"
            and obs.address(at(item, "spec", "clusterIP")) is not None
            and text(at(item, "metadata", "name")) not in ("kube-dns-upstream", "node-local-dns")
        ),
        key=_name,
    )
    told = _kubelet_dns(world)
    steps = (
        [item for item in real if obs.labels_of(item).get("k8s-app") == "kube-dns"],
        [item for item in real if _name(item) == "openshift-dns/dns-default"],
        [item for item in real if at(item, "spec", "clusterIP") in told],
        [item for item in real if _name(item) in _NAMES],
    )
    chosen = next((step for step in steps if step), [])
    narrowed = [item for item in chosen if at(item, "spec", "clusterIP") in told]
    return narrowed if len(chosen) > 1 and len(narrowed) == 1 else chosen


#: Names of the DNS Service where it carries no label.
_NAMES = ("kube-system/kube-dns", "kube-system/coredns", "kube-system/rke2-coredns-rke2-coredns")


def _kubelet_dns(world: World) -> list[str]:
    """What kubelets hand out as name server, by kubeadm's record and by the arguments of k3s and RKE2 servers."""
    reference, data = world.config_map("kubelet-config")
    found = [text(item) for item in items(at(document(world, reference, data.get("kubelet")), "clusterDNS"))]
    return found + _server_flag(world, "cluster-dns")


def _server_flag(world: World, name: str) -> list[str]:
    """Values of an argument of k3s and RKE2 servers."""
    found: list[str] = []
    for key in ARGUMENTS.values():
        for words in server_arguments(world, key).values():
            found += obs.flag_values(words, name) or []
    return found


def _ports(world: World, service: Object, slices: list[Object], selector: dict[str, str]) -> dict[str, list[int]]:
    """Ports of the pods: by the endpoints, else by numbers in the Service, else by names in pods that may be read."""
    names = {
        (protocol, text(at(port, "name")))
        for port in items(at(service, "spec", "ports"))
        if at(port, "port") == 53 and (protocol := (text(at(port, "protocol")) or "TCP").lower()) in ("udp", "tcp")
    }
    found: dict[str, set[int]] = {"udp": set(), "tcp": set()}
    for item in slices:
        for port in items(at(item, "ports")):
            protocol = (text(at(port, "protocol")) or "TCP").lower()
            number = at(port, "port")
            if (protocol, text(at(port, "name"))) in names and isinstance(number, int):
                found[protocol].add(number)
    for port in items(at(service, "spec", "ports")):
        protocol = (text(at(port, "protocol")) or "TCP").lower()
        target = at(port, "targetPort") or 53
        if at(port, "port") != 53 or found.get(protocol, {0}):
            continue
        found[protocol].update([target] if isinstance(target, int) else _by_name(world, selector, target))
    return {protocol: sorted(numbers) for protocol, numbers in found.items()}


def _by_name(world: World, selector: dict[str, str], target: Any) -> list[int]:
    found = [
        at(port, "containerPort")
        for pod in world.pods
        if selector and selector.items() <= obs.labels_of(pod).items()
        for container in items(at(pod, "spec", "containers"))
        for port in items(at(container, "ports"))
        if at(port, "name") == target
    ]
    return [port for port in found if isinstance(port, int)]


def _node_local(world: World) -> str:
    """Address of a NodeLocal DNSCache that runs on the node's network (first item of -localip, else the default)."""
    for item in world.daemonsets:
        name = text(at(item, "metadata", "name"))
        if obs.labels_of(item).get("k8s-app") != "node-local-dns" and name != "node-local-dns":
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
    reference, data = world.config_map("kubelet-config")
    domain = text(at(document(world, reference, data.get("kubelet")), "clusterDomain"))
    reference, data = world.config_map("kubeadm-config")
    domain = domain or text(at(document(world, reference, data.get("ClusterConfiguration")), "networking", "dnsDomain"))
    domain = domain or next(iter(_server_flag(world, "cluster-domain")), "")
    return domain.rstrip(".") or "cluster.local"


def forwarders(world: World) -> list[str]:
    """Where CoreDNS sends what it does not know: names of a pod that may ask it leave there, outside of any tunnel."""
    _reference, data = world.config_map("coredns")
    found = []
    for line in text(data.get("Corefile")).splitlines():
        words = line.split()
        if words[:1] == ["forward"] and len(words) > 2:
            found += [word for word in words[2:] if word != "{"]
    return found


def mesh(world: World) -> tuple[dict[str, Any], list[Doubt]]:
    """Whether Istio ambient runs (ztunnel's DaemonSet), and from where it sends probes; None where that may not be seen."""
    names = {text(at(item, "metadata", "name")) for item in world.daemonsets}
    if "ztunnel" in names:
        return {"ambient": True, "probe_sources": [*PROBE_SOURCES]}, []
    if world.state("DaemonSet") == "ok":
        return {"ambient": False, "probe_sources": []}, []
    doubt = Doubt("mesh", "mesh: whether Istio ambient runs is not known (DaemonSet is not readable)", ("mesh.ambient",))
    return {"ambient": None, "probe_sources": []}, [doubt]
