# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builders of the API objects that clusters show, and a Reader that answers from them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import yaml
from ansible_collections.homelab.netguard.plugins.module_utils._facts.reader import Absent, Forbidden, Unreadable

Object = dict[str, Any]


def metadata(name: str, namespace: str = "", labels: dict[str, str] | None = None, notes: dict[str, str] | None = None) -> Object:
    found: Object = {"name": name, "labels": labels or {}, "annotations": notes or {}}
    return {**found, "namespace": namespace} if namespace else found


def node(
    name: str,
    ips: Iterable[str] = (),
    slices: Iterable[str] = (),
    *,
    labels: dict[str, str] | None = None,
    notes: dict[str, str] | None = None,
    kubelet: str = "v1.34.1",
    image: str = "Debian GNU/Linux 12 (bookworm)",
    provider: str = "",
    external: str = "",
) -> Object:
    addresses = [{"type": "InternalIP", "address": item} for item in ips]
    if external:
        addresses.append({"type": "ExternalIP", "address": external})
    cidrs = [*slices]
    return {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": metadata(name, "", labels, notes),
        "spec": {**({"podCIDR": cidrs[0], "podCIDRs": cidrs} if cidrs else {}), **({"providerID": provider} if provider else {})},
        "status": {
            "addresses": [*addresses, {"type": "Hostname", "address": name}],
            "nodeInfo": {"kubeletVersion": kubelet, "osImage": image},
        },
    }


def pod(name: str, ips: Iterable[str], namespace: str = "apps", *, host: bool = False, phase: str = "Running") -> Object:
    listed = [{"ip": item} for item in ips]
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": metadata(name, namespace),
        "spec": {"hostNetwork": True, "containers": []} if host else {"containers": []},
        "status": {"phase": phase, "podIPs": listed},
    }


def static(component: str, *words: str, label: str = "component", where: str = "command", name: str = "") -> Object:
    """A control-plane pod with its flags in `command` or `args`."""
    container = {"name": component, "command": [component]}
    if where == "shell":
        container["command"] = ["/bin/sh", "-c", f"exec {component} {' '.join(words)} 2>&1"]
    else:
        container[where] = [*(container.get(where) or []), *words]
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": metadata(name or f"{component}-one", "kube-system", {label: component}),
        "spec": {"hostNetwork": True, "containers": [container]},
        "status": {"phase": "Running", "podIPs": [{"ip": "192.168.1.10"}]},
    }


def service(name: str, ips: list[str], namespace: str = "apps", *, labels: dict[str, str] | None = None, **spec: Any) -> Object:
    return {
        "kind": "Service",
        "apiVersion": "v1",
        "metadata": metadata(name, namespace, labels),
        "spec": {"clusterIP": ips[0], "clusterIPs": ips, "type": "ClusterIP", "ports": [{"port": 80, "protocol": "TCP"}], **spec},
    }


def dns(
    ip: str,
    name: str = "kube-dns",
    namespace: str = "kube-system",
    target: Any = 53,
    *,
    labelled: bool = True,
    selector: dict[str, str] | None = None,
    endpoint: int = 53,
) -> list[Object]:
    """The DNS Service with its EndpointSlice."""
    ports = [{"name": "dns", "port": 53, "protocol": "UDP", "targetPort": target}]
    ports.append({"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": target})
    found = service(
        name,
        [ip],
        namespace,
        labels={"k8s-app": "kube-dns"} if labelled else {},
        ports=ports,
        selector={"k8s-app": "kube-dns"} if selector is None else selector,
    )
    ends = [{"name": item["name"], "port": endpoint, "protocol": item["protocol"]} for item in ports]
    return [found, endpoint_slice(name, namespace, ["10.9.9.9"], ends)]


def endpoint_slice(name: str, namespace: str, addresses: list[str], ports: list[Object]) -> Object:
    return {
        "kind": "EndpointSlice",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": metadata(f"{name}-x", namespace, {"kubernetes.io/service-name": name}),
        "endpoints": [{"addresses": [item]} for item in addresses],
        "ports": ports,
    }


def kubernetes(ip: str, *endpoints: str, port: int = 6443) -> list[Object]:
    """The Service of the API server and its endpoints."""
    found = service("kubernetes", [ip], "default")
    found["spec"]["ports"] = [{"name": "https", "port": 443, "targetPort": port, "protocol": "TCP"}]
    ports = [{"name": "https", "port": port, "protocol": "TCP"}]
    return [found, endpoint_slice("kubernetes", "default", [*endpoints], ports)]


def config(name: str, data: dict[str, Any], namespace: str = "kube-system") -> Object:
    return {"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata(name, namespace), "data": data}


def daemonset(
    name: str,
    labels: dict[str, str],
    namespace: str = "kube-system",
    *,
    env: dict[str, str] | None = None,
    mounts: Iterable[str] = (),
    args: Iterable[str] = (),
    desired: int = 1,
    ready: int | None = None,
    host: bool = True,
) -> Object:
    container = {"name": name, "env": [{"name": key, "value": value} for key, value in (env or {}).items()], "args": [*args]}
    volumes = [{"name": item, "configMap": {"name": item}} for item in mounts]
    return {
        "kind": "DaemonSet",
        "apiVersion": "apps/v1",
        "metadata": metadata(name, namespace, labels),
        "spec": {
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [container], "volumes": volumes, "hostNetwork": host},
            }
        },
        "status": {"desiredNumberScheduled": desired, "numberReady": desired if ready is None else ready},
    }


def servicecidr(*cidrs: str, name: str = "kubernetes", version: str = "v1", ready: bool = True) -> Object:
    return {
        "kind": "ServiceCIDR",
        "apiVersion": f"networking.k8s.io/{version}",
        "metadata": metadata(name),
        "spec": {"cidrs": [*cidrs]},
        "status": {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }


def custom(api_version: str, kind: str, name: str, **content: Any) -> Object:
    return {"kind": kind, "apiVersion": api_version, "metadata": metadata(name), **content}


def ippool(cidr: str, name: str = "default-ipv4-ippool", **spec: Any) -> Object:
    return custom("crd.projectcalico.org/v1", "IPPool", name, spec={"cidr": cidr, **spec})


def block(cidr: str) -> Object:
    return custom("crd.projectcalico.org/v1", "BlockAffinity", f"b-{cidr.replace('/', '-')}", spec={"cidr": cidr})


def kubeadm(pods: str = "", services: str = "10.96.0.0/12", domain: str = "cluster.local") -> Object:
    networking = {"dnsDomain": domain, "serviceSubnet": services, **({"podSubnet": pods} if pods else {})}
    return config("kubeadm-config", {"ClusterConfiguration": yaml.safe_dump({"networking": networking})})


def flannel(network: str, name: str = "kube-flannel-cfg", namespace: str = "kube-flannel", **more: Any) -> Object:
    return config(name, {"net-conf.json": json.dumps({"Network": network, "Backend": {"Type": "vxlan"}, **more})}, namespace)


def server_args(*words: str, key: str = "k3s.io/node-args") -> dict[str, str]:
    return {key: json.dumps(["server", *words])}


@dataclass
class Cluster:
    """A recorded cluster: objects, version, and the ways in which sources fail. Implements the Reader of discovery.

    `faults` maps a kind, or kind/name for a ConfigMap, to forbidden, absent, malformed or empty. `refusal` answers the dry
    run: (status, message).
    """

    objects: list[Object] = field(default_factory=list)
    version: str = "v1.34.1"
    groups: tuple[str, ...] = ()  # beside those of the objects
    faults: dict[str, str] = field(default_factory=dict)
    refusal: Callable[[Object], tuple[int, str]] | None = None
    asked: list[tuple[str, str, str, str]] = field(default_factory=list)
    probes: list[Object] = field(default_factory=list)

    def plus(self, *objects: Object, **changes: Any) -> Cluster:
        return replace(self, objects=[*self.objects, *objects], asked=[], probes=[], **changes)

    def less(self, *kinds: str) -> Cluster:
        kept = [item for item in self.objects if item["kind"] not in kinds and item["metadata"]["name"] not in kinds]
        return replace(self, objects=kept, asked=[], probes=[])

    def broken(self, source: str, fault: str) -> Cluster:
        return replace(self, faults={**self.faults, source: fault}, asked=[], probes=[])

    def _served(self) -> dict[str, set[str]]:
        served: dict[str, set[str]] = {"discovery.k8s.io": {"v1"}, "apps": {"v1"}}
        for api_version in ("networking.k8s.io/v1", *self.groups, *(item["apiVersion"] for item in self.objects)):
            group, _slash, version = api_version.rpartition("/")
            if group:
                served.setdefault(group, set()).add(version)
        return served

    def _fault(self, kind: str, name: str = "") -> str:
        fault = self.faults.get(f"{kind}/{name}" if name else kind) or self.faults.get(kind, "")
        if fault == "forbidden":
            raise Forbidden(f"{kind}: forbidden")
        if fault == "absent":
            raise Absent(f"{kind}: not served")
        if fault == "failed":
            raise Unreadable(f"{kind}: no answer")
        return fault

    def get(self, api_version: str, kind: str, name: str, namespace: str = "") -> Object | None:
        self.asked.append(("get", api_version, kind, f"{namespace}/{name}"))
        fault = self._fault(kind, name)
        if fault == "empty":
            return None
        for item in self.objects:
            where = item["metadata"]
            if (item["kind"], where["name"], where.get("namespace", "")) == (kind, name, namespace):
                return mangled(item) if fault == "malformed" else item
        return None

    def list(
        self,
        api_version: str,
        kind: str,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        *,
        trim: Callable[[Object], Object | None] | None = None,
    ) -> list[Object]:
        self.asked.append(("list", api_version, kind, namespace))
        fault = self._fault(kind, namespace)
        if fault == "empty":
            return []
        group, _slash, version = api_version.rpartition("/")
        there = [item for item in self.objects if item["kind"] == kind and item["apiVersion"] == api_version]
        if not there and kind in ("ServiceCIDR", "IPAddress"):
            raise Absent(f"{kind}: not served")
        if group and version not in self._served().get(group, set()):
            raise Absent(f"{kind}: not served")
        key, _equals, value = label_selector.partition("=")
        found = [
            item
            for item in there
            if (not namespace or item["metadata"].get("namespace") == namespace)
            and (not key or item["metadata"]["labels"].get(key) == value)
        ]
        if fault == "malformed":
            found = [mangled(item) for item in found]
        return found if trim is None else [kept for item in found if (kept := trim(item)) is not None]

    def raw(self, path: str) -> Any:
        fault = self._fault(path)
        if fault == "malformed":
            return ["not", "what", "was", "expected"]
        if fault == "empty":
            return {}
        if path == "/version":
            return {"gitVersion": self.version}
        if path == "/apis":
            return {
                "groups": [
                    {"name": group, "versions": [{"version": item} for item in sorted(versions)]}
                    for group, versions in self._served().items()
                ]
            }
        kinds = {item["kind"] for item in self.objects if item["apiVersion"] == path.removeprefix("/apis/")}
        return {"resources": [{"kind": kind} for kind in {*kinds, *(["NetworkPolicy"] if "networking" in path else [])}]}

    def dry_run_create(self, manifest: Object) -> tuple[int, str]:
        self.probes.append(manifest)
        self._fault("probe")
        return self.refusal(manifest) if self.refusal else (403, "forbidden")


def mangled(item: Object) -> Object:
    """The same object with numbers, lists and nothing where texts and mappings belong."""

    def spoil(value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            return [1, None] if depth > 2 else {key: spoil(entry, depth + 1) for key, entry in value.items()}
        if isinstance(value, list):
            return {"0": 7} if depth % 2 else [spoil(entry, depth + 1) for entry in value]
        return 5 if depth > 1 else value

    spoiled: Object = spoil({key: value for key, value in item.items() if key != "metadata"}, 0)
    kept = {key: item["metadata"][key] for key in ("name", "namespace") if key in item["metadata"]}
    return {
        **spoiled,
        "kind": item["kind"],
        "apiVersion": item["apiVersion"],
        "metadata": {**kept, "labels": ["x"], "annotations": 3},
    }
