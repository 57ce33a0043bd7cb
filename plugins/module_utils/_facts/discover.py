# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Discovery: asks every source, reconciles, returns the facts with sources and doubts."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

import yaml

from .reader import Reader, Unreadable


def discover(reader: Reader, overrides: Mapping[str, Any] | None = None, lan: list[str] | None = None) -> dict[str, Any]:
    """The facts of a cluster in the shape that `cluster_cidrs` documents."""
    given = dict(overrides or {})
    version = reader.raw("/version")
    config = _kubeadm(reader)
    pods = given.get("pods") or _split(config.get("podSubnet"))
    services = given.get("services") or _service_cidrs(reader) or _split(config.get("serviceSubnet"))
    nodes = reader.list("v1", "Node")
    addresses = [
        item["address"]
        for node in nodes
        for item in (node.get("status") or {}).get("addresses") or []
        if item["type"] in ("InternalIP", "ExternalIP")
    ]
    cidrs = {
        "pods": [str(item) for item in pods],
        "services": [str(item) for item in services],
        "nodes": given.get("nodes") or [str(ipaddress.ip_network(item)) for item in addresses],
        "lan": given.get("lan") or lan or [],
    }
    kubernetes = reader.get("v1", "Service", "kubernetes", "default")
    slices = reader.list("discovery.k8s.io/v1", "EndpointSlice", "default", "kubernetes.io/service-name=kubernetes")
    endpoints = [
        {"ip": address, "port": port["port"]}
        for item in slices
        for endpoint in item.get("endpoints") or []
        for address in endpoint["addresses"]
        for port in item.get("ports") or []
    ]
    dns = reader.get("v1", "Service", "kube-dns", "kube-system")
    return {
        "cidrs": cidrs,
        "ranges": {name: {"status": "complete" if values else "unknown"} for name, values in cidrs.items()},
        "api_server": {"endpoints": endpoints, "service_ip": kubernetes["spec"]["clusterIP"] if kubernetes else ""},
        "dns": {
            "service_ip": dns["spec"]["clusterIP"] if dns else "",
            "namespace": "kube-system",
            "pod_labels": (dns["spec"].get("selector") or {}) if dns else {"k8s-app": "kube-dns"},
        },
        "cni": dict(given.get("cni") or {"name": "unknown"}),
        "distribution": {"name": "kubeadm" if config else "unknown"},
        "server": {"version": version["gitVersion"]},
        "ip_families": sorted({f"ipv{ipaddress.ip_network(item).version}" for item in (*pods, *services)}) or ["ipv4"],
    }


def _kubeadm(reader: Reader) -> dict[str, Any]:
    try:
        found = reader.get("v1", "ConfigMap", "kubeadm-config", "kube-system")
    except Unreadable:
        return {}
    text = ((found or {}).get("data") or {}).get("ClusterConfiguration")
    return (yaml.safe_load(text) or {}).get("networking") or {} if text else {}


def _service_cidrs(reader: Reader) -> list[str]:
    try:
        found = reader.list("networking.k8s.io/v1", "ServiceCIDR")
    except Unreadable:
        return []
    return [cidr for item in found for cidr in item["spec"]["cidrs"]]


def _split(text: Any) -> list[str]:
    return [part.strip() for part in str(text).split(",") if part.strip()] if text else []
