# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From the returned facts back to typed ones: what every other module takes in its option `facts`."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from .._errors import Fault, FaultsError
from .._topology.model import Network
from .model import Cni, Dns, Endpoint, Facts

#: Ranges without which no policy can be written, and the variable that settles each.
NEEDED = ("pods", "services")


def from_result(facts: Mapping[str, Any], *, strict: bool = True) -> Facts:
    """The typed facts of a result of `cluster_cidrs` (its key `facts`, or the whole result).

    Raises FaultsError, one fault per range or value that is not certain, with the override that settles it; with
    `strict` false only for what is malformed.
    """
    if "facts" in facts and "cidrs" not in facts:
        facts = facts["facts"]
    faults: list[Fault] = []
    cidrs = facts.get("cidrs") or {}
    if strict:
        faults += _doubts(facts)
    found = {name: _networks(cidrs.get(name), f"facts.cidrs.{name}", faults) for name in ("pods", "services", "nodes", "lan")}
    api = facts.get("api_server") or {}
    mesh = facts.get("mesh") or {}
    result = Facts(
        pods=found["pods"],
        services=found["services"],
        nodes=found["nodes"],
        lan=found["lan"],
        api_endpoints=tuple(Endpoint(str(item["ip"]), int(item["port"])) for item in api.get("endpoints") or []),
        api_service_ip=str(api.get("service_ip") or ""),
        dns=_dns(facts.get("dns") or {}),
        cni=_cni(facts.get("cni") or {}),
        distribution=str((facts.get("distribution") or {}).get("name") or "unknown"),
        server_version=version(str((facts.get("server") or {}).get("version") or "")),
        ip_families=tuple(facts.get("ip_families") or ("ipv4",)),
        mesh_ambient=bool(mesh.get("ambient")),
        mesh_probe_sources=_networks(mesh.get("probe_sources"), "facts.mesh.probe_sources", faults),
        digest=str(facts.get("digest") or ""),
    )
    if faults:
        raise FaultsError(faults, "the facts of this cluster are not certain; nothing was changed")
    return result


def _doubts(facts: Mapping[str, Any]) -> list[Fault]:
    found = []
    for name in NEEDED:
        entry = (facts.get("ranges") or {}).get(name) or {}
        status = entry.get("status", "complete" if (facts.get("cidrs") or {}).get(name) else "unknown")
        if status != "complete":
            doubts = [str(item.get("doubt", "")) for item in facts.get("doubts") or [] if isinstance(item, Mapping)]
            reasons = "; ".join(text for text in doubts if text.startswith((f"{name}:", f"{name} ")))
            lost = [source for source, state in (facts.get("permissions") or {}).items() if state in ("forbidden", "failed")]
            if lost:
                reasons += ("; " if reasons else "") + f"not readable: {', '.join(lost[:6])}"
            message = f"the range of the {name} is {status}" + (f": {reasons}" if reasons else "")
            found.append(Fault(f"facts.ranges.{name}", message, f"set netguard_overrides: {{{name}: [...]}}"))
    return found


def _networks(values: Any, path: str, faults: list[Fault]) -> tuple[Network, ...]:
    found = []
    for position, value in enumerate(values or []):
        try:
            found.append(ipaddress.ip_network(str(value)))
        except ValueError as error:
            faults.append(Fault(f"{path}[{position}]", str(error)))
    return tuple(found)


def _dns(dns: Mapping[str, Any]) -> Dns:
    ports = dns.get("ports") or {}
    address = dns.get("service_ip") or []
    return Dns(
        service_ips=tuple(address) if isinstance(address, (list, tuple)) else (str(address),),
        namespace=str(dns.get("namespace") or ""),
        pod_labels=dict(dns.get("pod_labels") or {}),
        ports_udp=_ports(ports.get("udp")),
        ports_tcp=_ports(ports.get("tcp")),
        node_local_ip=str(dns.get("node_local_ip") or ""),
        cluster_domain=str(dns.get("cluster_domain") or "cluster.local"),
    )


def _ports(value: Any) -> tuple[int, ...]:
    if value in (None, "", []):
        return (53,)
    return tuple(int(item) for item in value) if isinstance(value, (list, tuple)) else (int(value),)


def _cni(cni: Mapping[str, Any]) -> Cni:
    return Cni(
        name=str(cni.get("name") or "unknown"),
        enforces_network_policy=cni.get("enforces_network_policy"),
        ipblock_matches_pods=cni.get("ipblock_matches_pods"),
        ipblock_matches_nodes=cni.get("ipblock_matches_nodes"),
        drops_workload_vxlan_ports=tuple(int(port) for port in cni.get("drops_workload_vxlan_ports") or []),
        overlay_udp_ports=tuple(int(port) for port in cni.get("overlay_udp_ports") or []),
        policy_apis=tuple(cni.get("policy_apis") or []),
        translates_kernel_packets=cni.get("translates_kernel_packets"),
    )


def version(text: str) -> tuple[int, int]:
    parts = text.lstrip("v").split(".")
    try:
        return int(parts[0]), int("".join(char for char in parts[1] if char.isdigit()))
    except (IndexError, ValueError):
        return (0, 0)
