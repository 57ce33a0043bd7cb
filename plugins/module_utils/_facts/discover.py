# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Discovery: reads every source, judges all of them together, and returns facts with sources and doubts."""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Iterable, Mapping
from typing import Any

from .._errors import Fault, FaultsError
from .._topology.model import Network
from . import cni as cni_source
from . import distribution as distribution_source
from . import guards, probe, source_dns, source_nodes, source_pods, source_services
from . import observations as obs
from .observations import Asking, Observation, networks
from .reader import Reader, Unreadable
from .reconcile import COMPLETE, CONFLICT, Range, judge
from .result import version as parsed_version
from .world import POLICY_APIS, World, look

CLASSES = ("pods", "services", "nodes", "lan")
#: Keys that the user may know better, beside the classes.
OVERRIDES = (*CLASSES, "dns", "cni", "api_server", "distribution", "ip_families", "mesh", "force")


def discover(
    reader: Reader,
    overrides: Mapping[str, Any] | None = None,
    lan: Iterable[str] = (),
    reserved: Mapping[str, Network] | None = None,
    probe_namespace: str = "default",
) -> dict[str, Any]:
    """The facts of a cluster, in the shape that `cluster_cidrs` documents. Never writes.

    `lan` are networks that Ansible facts of nodes showed; `reserved` names networks that must overlap nothing (overlays).
    Raises FaultsError for overrides that cannot be, and nothing for what cannot be read: that becomes a doubt.
    """
    given = dict(overrides or {})
    _check(given)
    asking = Asking(reader)
    world = look(asking)
    distribution = distribution_source.detect(world)
    cni = cni_source.detect(world, distribution)
    if isinstance(given.get("cni"), Mapping) and given["cni"].get("ipam"):
        cni.ipam = str(given["cni"]["ipam"])
    families = _families(world)
    ranges = {
        "pods": _pods(world, cni, distribution, given, families),
        "services": _services(world, distribution, given, families, reader, probe_namespace),
        "nodes": judge("nodes", [*source_nodes.nodes(world), *_given(given, "nodes")], ()),
        "lan": _lan(world, given, lan),
    }
    doubts = [*distribution_doubts(distribution), *cni.doubts]
    doubts += _cross_checks(world, ranges, reserved or {})
    dns, dns_doubts = source_dns.dns(world)
    doubts += dns_doubts
    _overrule(ranges, given, doubts)
    for found in ranges.values():
        doubts += found.doubts
    doubts += [f"not readable as what it should be: {item}" for item in asking.notes.malformed]
    facts = {
        "cidrs": {name: [str(item) for item in found.networks] for name, found in ranges.items()},
        "ranges": {name: found.data() for name, found in ranges.items()},
        "api_server": source_dns.api_server(world),
        "dns": dns,
        "cni": cni.data(cni_source.policy_apis(world, _served(reader, world))),
        "distribution": distribution.data(),
        "server": {"version": world.version},
        "ip_families": [f"ipv{item}" for item in families],
        "mesh": source_dns.mesh(world),
        "permissions": dict(sorted(asking.notes.permissions.items())),
        "dns_forwarders": source_dns.forwarders(world),
        "doubts": _settled(list(dict.fromkeys(doubts))),
    }
    _merge(facts, given)
    facts["digest"] = digest(facts)
    return facts


def digest(facts: Mapping[str, Any]) -> str:
    """Changes when a range, an endpoint or the DNS changes."""
    parts = {key: facts[key] for key in ("cidrs", "api_server", "dns")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _check(given: Mapping[str, Any]) -> None:
    faults = []
    for key, value in given.items():
        path = f"overrides.{key}"
        if key not in OVERRIDES:
            faults.append(Fault(path, "unknown key", f"known: {', '.join(OVERRIDES)}"))
        elif key in CLASSES:
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                faults.append(Fault(path, "a list of networks is expected"))
                continue
            for position, item in enumerate(value):
                try:
                    ipaddress.ip_network(item)
                except ValueError as error:
                    faults.append(Fault(f"{path}[{position}]", str(error)))
        elif key in ("dns", "cni", "api_server", "mesh") and not isinstance(value, Mapping):
            faults.append(Fault(path, "a mapping is expected"))
    if faults:
        raise FaultsError(faults)


def _given(given: Mapping[str, Any], about: str) -> list[Observation]:
    raw = given.get(about)
    if not raw:
        return []
    return [Observation(about, networks(raw), obs.GIVEN, "override", "netguard_overrides", about, ", ".join(raw))]


def _families(world: World) -> tuple[int, ...]:
    """Families that anything of the cluster has an address in."""
    found = {
        item.version for item in (*source_services.anchors(world), *source_services.observed(world), *source_pods.observed(world))
    }
    for node in world.nodes:
        found |= {item.version for item in networks(obs.at(node, "spec", "podCIDRs"))}
    return tuple(sorted(found)) or (4,)


def _pods(
    world: World,
    cni: cni_source.CniFound,
    distribution: distribution_source.Distribution,
    given: Mapping[str, Any],
    families: tuple[int, ...],
) -> Range:
    found = [*source_pods.collect(world, cni, distribution), *_given(given, "pods")]
    if cni.ipam == "nodes":
        found += _default("pods", distribution, "nodes")
    ipam = cni.ipam
    return judge("pods", found, source_pods.observed(world), ipam=ipam, families=families)


def _default(about: str, distribution: distribution_source.Distribution, mechanism: str) -> list[Observation]:
    """The distribution's default as the weakest candidate. With node arguments in sight those speak instead."""
    if distribution.name in distribution_source.ARGUMENTS:
        return []
    ranges = distribution_source.DEFAULTS.get(distribution.name, ((), ()))[0 if about == "pods" else 1]
    return [
        Observation(about, networks(text), obs.DEFAULT, "default", f"default of {distribution.name}", "", text, mechanism)
        for text in ranges
        if ipaddress.ip_network(text).version == 4
    ]


def _services(
    world: World,
    distribution: distribution_source.Distribution,
    given: Mapping[str, Any],
    families: tuple[int, ...],
    reader: Reader,
    namespace: str,
) -> Range:
    found = [*source_services.collect(world, distribution), *_given(given, "services")]
    if not any(item.trust <= obs.RUNNING for item in found):
        found += probe.ask(reader, namespace, parsed_version(world.version))
    found += _default("services", distribution, "")
    return judge("services", found, source_services.observed(world), anchors=source_services.anchors(world), families=families)


def _lan(world: World, given: Mapping[str, Any], facts: Iterable[str]) -> Range:
    """User, then Ansible facts, then annotations with masks, then the nodes' own addresses, which are no network."""
    raw = list(facts)
    shown = (
        [Observation("lan", networks(raw), obs.ALLOCATES, "ansible-facts", "hosts", "default interface", ", ".join(raw))]
        if raw
        else []
    )
    addresses = [network for found in source_nodes.node_addresses(world).values() for network in found]
    found = judge("lan", [*_given(given, "lan"), *shown, *source_nodes.lan(world)], ())
    if not found.cidrs:
        for network in dict.fromkeys(addresses):
            found.cidrs[network] = [
                Observation("lan", (network,), obs.OBSERVED, "node", "nodes", "status.addresses", str(network), "", False)
            ]
        found.status = "partial" if found.cidrs else "unknown"
    elif found.status == CONFLICT and not given.get("lan"):
        found.status = COMPLETE  # nodes in several networks: each is a LAN
        found.doubts = []
    return found


def distribution_doubts(distribution: distribution_source.Distribution) -> list[str]:
    return (
        [f"the distribution is not certain: {'; '.join(distribution.signals) or 'no signals'}"]
        if distribution.name == "unknown"
        else []
    )


def _cross_checks(world: World, ranges: Mapping[str, Range], reserved: Mapping[str, Network]) -> list[str]:
    """What cannot be true together; the classes involved become conflicts."""
    doubts = []
    pods, services, lan = ranges["pods"], ranges["services"], ranges["lan"]
    for one, other in guards.overlaps(pods.networks, services.networks):
        pods.status = services.status = CONFLICT
        doubts.append(f"pods {one} overlap services {other}")
    for address in [network for found in source_nodes.node_addresses(world).values() for network in found]:
        if guards.inside(address, services.networks):
            services.status = CONFLICT
            doubts.append(f"services: they cover the node {address.network_address}")
        elif guards.inside(address, pods.networks):
            doubts.append(
                f"the pod range covers the node {address.network_address}: pods and the LAN cannot be told apart by address"
            )
    for endpoint in source_dns.api_server(world)["endpoints"]:
        if guards.inside(obs.hosts([endpoint["ip"]])[0], services.networks):
            services.status = CONFLICT
            doubts.append(f"the API endpoint {endpoint['ip']} lies inside of the services")
    for name, network in reserved.items():
        for about in ("pods", "services", "lan"):
            for one, _other in guards.overlaps(ranges[about].networks, [network]):
                if about != "lan" or one.prefixlen < one.max_prefixlen:
                    ranges[about].status = CONFLICT
                    doubts.append(f"{about} {one} overlap {name} {network}: set another overlay.network")
    for one, other in guards.overlaps(pods.networks, lan.networks):
        if other.prefixlen < other.max_prefixlen:
            doubts.append(f"the pod range {one} overlaps the LAN {other}: they cannot be told apart by address")
    return doubts


def _overrule(ranges: Mapping[str, Range], given: Mapping[str, Any], doubts: list[str]) -> None:
    """`force`: the user's ranges hold although observations contradict them; the doubts stay in sight."""
    if given.get("force") is not True:
        return
    for about in CLASSES:
        if given.get(about) and ranges[about].status != COMPLETE:
            doubts.append(f"{about}: taken from netguard_overrides by force")
            ranges[about].status = COMPLETE


def _served(reader: Reader, world: World) -> dict[str, bool]:
    """Which policy kinds the server really has: a group alone does not tell."""
    found = {}
    for version, kind in POLICY_APIS:
        found[f"{version} {kind}"] = False
        if not world.serves(version):
            continue
        try:
            answer = reader.raw(f"/apis/{version}")
        except Unreadable:
            continue
        found[f"{version} {kind}"] = any(obs.at(item, "kind") == kind for item in obs.items(obs.at(answer, "resources")))
    return found


def _merge(facts: dict[str, Any], given: Mapping[str, Any]) -> None:
    """What the user knows better of what is no range."""
    for key in ("dns", "cni", "api_server", "mesh"):
        if isinstance(given.get(key), Mapping):
            facts[key] = {**facts[key], **given[key]}
    if given.get("distribution"):
        facts["distribution"] = {**facts["distribution"], "name": str(given["distribution"])}
    if given.get("ip_families"):
        facts["ip_families"] = list(given["ip_families"])


def _settled(doubts: list[str]) -> list[dict[str, str]]:
    """Each doubt with the variable that settles it."""
    return [{"doubt": doubt, "settle": _variable(doubt)} for doubt in doubts]


def _variable(doubt: str) -> str:
    for about in CLASSES:
        if doubt.startswith((f"{about}:", f"{about} ")):
            return f"netguard_overrides: {{{about}: [...]}}"
    for word, key in (
        ("DNS", "dns: {namespace: ..., pod_labels: {...}}"),
        ("CNI", "cni: {name: ...}"),
        ("IPAM", "cni: {ipam: ...}"),
        ("distribution", "distribution: ..."),
    ):
        if word in doubt:
            return f"netguard_overrides: {{{key}}}"
    return "netguard_overrides"
