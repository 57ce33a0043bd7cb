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
CLASSES = ("pods", "services", "nodes", "lan")


def from_result(facts: Mapping[str, Any], *, strict: bool = True) -> Facts:
    """The typed facts of a result of `cluster_cidrs` (its key `facts`, or the whole result).

    Raises FaultsError, one fault per range or value that is not certain, with the override that settles it; with
    `strict` false only for what is malformed.
    """
    if "facts" in facts and "cidrs" not in facts:
        facts = _mapping(facts["facts"])
    faults: list[Fault] = []
    cidrs = _mapping(facts.get("cidrs"))
    if strict:
        faults += _doubts(facts)
    found = {name: _networks(cidrs.get(name), f"facts.cidrs.{name}", faults) for name in CLASSES}
    api, mesh = _mapping(facts.get("api_server")), _mapping(facts.get("mesh"))
    result = Facts(
        pods=found["pods"],
        services=found["services"],
        nodes=found["nodes"],
        lan=found["lan"],
        api_endpoints=_endpoints(api.get("endpoints"), faults),
        api_service_ip=str(api.get("service_ip") or ""),
        dns=_dns(_mapping(facts.get("dns")), faults),
        cni=_cni(_mapping(facts.get("cni")), faults),
        distribution=str(_mapping(facts.get("distribution")).get("name") or "unknown"),
        server_version=version(str(_mapping(facts.get("server")).get("version") or "")),
        ip_families=tuple(facts.get("ip_families") or ("ipv4",)),
        mesh_ambient=bool(mesh.get("ambient")),
        mesh_probe_sources=_networks(mesh.get("probe_sources"), "facts.mesh.probe_sources", faults),
        digest=str(facts.get("digest") or ""),
    )
    if faults:
        heading = (
            "the facts of this cluster are not certain; nothing was changed" if strict else "these are no facts of cluster_cidrs"
        )
        raise FaultsError(faults, heading)
    return result


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _doubts(facts: Mapping[str, Any]) -> list[Fault]:
    """One fault for each range that is not certain enough, then every other doubt; none when all ranges that policies stand on
    are certain."""
    ranges = _mapping(facts.get("ranges"))
    cidrs = _mapping(facts.get("cidrs"))
    doubts = [item for item in facts.get("doubts") or [] if isinstance(item, Mapping)]
    lost = [source for source, state in _mapping(facts.get("permissions")).items() if state in ("forbidden", "failed")]
    bad = []
    for name in CLASSES:
        status = _mapping(ranges.get(name)).get("status", "complete" if cidrs.get(name) or name not in NEEDED else "unknown")
        if status == "complete" or (name not in NEEDED and status != "conflict"):
            continue
        ours = [item for item in doubts if item.get("about") == name]
        reasons = "; ".join(str(item.get("doubt", "")) for item in ours)
        settles = dict.fromkeys(str(item.get("settle") or "") for item in ours)
        plain = f"netguard_overrides: {{{name}: [...]}}"
        if lost and not reasons:
            reasons = f"not readable: {', '.join(lost[:6])}"
        message = f"the range of the {name} is {status}" + (f": {reasons}" if reasons else "")
        bad.append(Fault(f"facts.ranges.{name}", message, "; ".join(item for item in settles if item) or plain))
    if not bad:
        return []
    told = {fault.path.rpartition(".")[2] for fault in bad}
    others = [item for item in doubts if item.get("about") not in told]
    return bad + [
        Fault(f"facts.{item.get('about') or 'doubts'}", str(item.get("doubt", "")), str(item.get("settle", ""))) for item in others
    ]


def _endpoints(values: Any, faults: list[Fault]) -> tuple[Endpoint, ...]:
    found = []
    for position, item in enumerate(values if isinstance(values, (list, tuple)) else []):
        try:
            found.append(Endpoint(str(ipaddress.ip_address(item["ip"])), int(item["port"])))
        except (KeyError, TypeError, ValueError):
            faults.append(Fault(f"facts.api_server.endpoints[{position}]", "an address `ip` and a `port` are expected"))
    return tuple(found)


def _networks(values: Any, path: str, faults: list[Fault]) -> tuple[Network, ...]:
    found = []
    for position, value in enumerate(values or []):
        try:
            found.append(ipaddress.ip_network(str(value)))
        except ValueError as error:
            faults.append(Fault(f"{path}[{position}]", str(error)))
    return tuple(found)


def _dns(dns: Mapping[str, Any], faults: list[Fault]) -> Dns:
    ports = _mapping(dns.get("ports"))
    addresses = dns.get("service_ips") or dns.get("service_ip") or []
    return Dns(
        service_ips=tuple(str(item) for item in addresses) if isinstance(addresses, (list, tuple)) else (str(addresses),),
        namespace=str(dns.get("namespace") or ""),
        pod_labels=dict(_mapping(dns.get("pod_labels"))),
        ports_udp=_ports(ports.get("udp"), "facts.dns.ports.udp", faults) or (53,),
        ports_tcp=_ports(ports.get("tcp"), "facts.dns.ports.tcp", faults) or (53,),
        node_local_ip=str(dns.get("node_local_ip") or ""),
        cluster_domain=str(dns.get("cluster_domain") or "cluster.local"),
    )


def _ports(value: Any, path: str, faults: list[Fault]) -> tuple[int, ...]:
    listed = value if isinstance(value, (list, tuple)) else [] if value in (None, "") else [value]
    try:
        return tuple(int(item) for item in listed)
    except (TypeError, ValueError):
        faults.append(Fault(path, "port numbers are expected"))
        return ()


def _cni(cni: Mapping[str, Any], faults: list[Fault]) -> Cni:
    return Cni(
        name=str(cni.get("name") or "unknown"),
        enforces_network_policy=cni.get("enforces_network_policy"),
        ipblock_matches_pods=cni.get("ipblock_matches_pods"),
        ipblock_matches_nodes=cni.get("ipblock_matches_nodes"),
        drops_workload_vxlan_ports=_ports(cni.get("drops_workload_vxlan_ports"), "facts.cni.drops_workload_vxlan_ports", faults),
        overlay_udp_ports=_ports(cni.get("overlay_udp_ports"), "facts.cni.overlay_udp_ports", faults),
        policy_apis=tuple(cni.get("policy_apis") or []),
        translates_kernel_packets=cni.get("translates_kernel_packets"),
    )


def version(text: str) -> tuple[int, int]:
    parts = text.lstrip("v").split(".")
    try:
        return int(parts[0]), int("".join(char for char in parts[1] if char.isdigit()))
    except (IndexError, ValueError):
        return (0, 0)
