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
from . import guards, probe, rights, source_dns, source_nodes, source_pods, source_services
from . import observations as obs
from .observations import Asking, Observation, at, networks
from .reader import Reader, Unreadable
from .reconcile import COMPLETE, CONFLICT, Context, Doubt, Range, judge, words
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
    cni = cni_source.detect(world, distribution, given.get("cni"))
    nodes = source_nodes.nodes(world, _given(asking, given, "nodes"))
    ranges = {
        "pods": _pods(world, cni, distribution, given),
        "services": _services(world, distribution, given, probe_namespace),
        "nodes": nodes,
        "lan": source_nodes.lan(world, _given(asking, given, "lan"), lan),
    }
    doubts = [*_cross_checks(world, ranges, cni, reserved or {})]
    if distribution.name == "unknown":
        seen = "; ".join(distribution.signals[:4]) or "no signals"
        doubts.append(Doubt("distribution", f"the distribution is not certain: {seen}", ("distribution",)))
    dns, dns_doubts = source_dns.dns(world)
    api = source_dns.api_server(world)
    mesh, mesh_doubts = source_dns.mesh(world)
    doubts += [*cni.doubts, *mesh_doubts, *dns_doubts]
    if not api["endpoints"]:
        lost = asking.lost("EndpointSlice default")
        why = f" ({', '.join(lost)} is not readable)" if lost else ""
        doubts.append(Doubt("api_server", f"the API server's endpoints are not known{why}", ("api_server.endpoints",)))
    _overrule(ranges, given)
    doubts = [doubt for found in ranges.values() for doubt in found.doubts] + doubts
    for item, ends in asking.notes.malformed.items():
        settle = f"mend it, or {rights.setting(*ends)}"
        doubts.append(Doubt("sources", f"not readable as what it should be: {item}", ends, settle))
    doubts = [doubt for doubt in doubts if not rights.told(given, doubt.ends)]
    families = _families(ranges, world)
    facts = {
        "cidrs": {name: [str(item) for item in found.networks] for name, found in ranges.items()},
        "ranges": {name: found.data() for name, found in ranges.items()},
        "api_server": api,
        "dns": dns,
        "cni": cni.data(cni_source.policy_apis(world, _served(reader, world))),
        "distribution": distribution.data(),
        "server": {"version": world.version},
        "ip_families": families,
        "mesh": mesh,
        "permissions": dict(sorted(asking.notes.permissions.items())),
        "missing_rights": rights.missing(asking.notes.permissions),
        "dns_forwarders": source_dns.forwarders(world),
        "doubts": [doubt.data() for doubt in dict.fromkeys(doubts)],
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


def _given(asking: Asking, given: Mapping[str, Any], about: str) -> list[Observation]:
    return asking.claim(about, given.get(about), obs.GIVEN, "override", "netguard_overrides", about)


def _families(ranges: Mapping[str, Range], world: World) -> list[str]:
    """Families that pods or Services have, else those of the nodes."""
    networks = [*ranges["pods"].networks, *ranges["services"].networks]
    networks += [*source_services.anchors(world), *source_pods.observed(world)[:1000]]
    return [f"ipv{item}" for item in sorted({network.version for network in networks or ranges["nodes"].networks})] or ["ipv4"]


#: What could show the pod range, by allocator: when it may not be read, nothing weaker is complete.
_POD_SOURCES = {
    "calico": ("IPPool",),
    "cilium": ("ConfigMap kube-system/cilium-config",),
    "cilium-pools": ("CiliumPodIPPool",),
    "openshift": ("Network",),
    "ovn": ("ConfigMap ovn-kubernetes/ovn-config",),
    "weave": ("DaemonSet",),
    "nodes": ("Pod", "Node"),
    "antrea": ("ConfigMap",),
    "unknown": ("DaemonSet", "ConfigMap", "IPPool", "Installation", "BlockAffinity", "Pod", "Node"),
}


def _pods(
    world: World, cni: cni_source.CniFound, distribution: distribution_source.Distribution, given: Mapping[str, Any]
) -> Range:
    found = [*source_pods.collect(world, cni, distribution), *_given(world.asking, given, "pods")]
    if cni.ipam == "nodes":
        found += _default("pods", distribution, "nodes")
    lost = world.asking.lost(*_POD_SOURCES.get(cni.ipam, ()))
    result = judge("pods", found, source_pods.observed(world), Context(ipam=cni.ipam, lost=lost))
    if cni.ipam == "vpc" and not result.cidrs:
        result.doubt("pods have addresses of the cloud's own network, which no object of the cluster tells: give its subnets")
    twice = source_pods.doubled(world) if cni.ipam == "nodes" else []
    if twice:
        result.worsen(CONFLICT)
        result.doubt_of_the_cluster("; ".join(twice[:3]))
    return result


def _default(about: str, distribution: distribution_source.Distribution, mechanism: str) -> list[Observation]:
    """The distribution's defaults as the weakest candidates. With node arguments in sight those speak instead."""
    ranges = distribution_source.DEFAULTS.get(distribution.name, ((), ()))[0 if about == "pods" else 1]
    ref = f"the default of {distribution.name}"
    return [
        Observation(about, networks(text), obs.DEFAULT, f"default {text}", ref, "its documentation", text, mechanism)
        for text in ranges
    ]


def _services(world: World, distribution: distribution_source.Distribution, given: Mapping[str, Any], namespace: str) -> Range:
    asking = world.asking
    found = [*source_services.collect(world, distribution), *_given(asking, given, "services")]
    version = parsed_version(world.version)
    if not any(item.trust <= obs.RUNNING and item.complete for item in found):
        found += probe.ask(asking, namespace, version)
    found += _default("services", distribution, "")
    growing = ""
    if not world.service_cidrs and (version >= probe.SEVERAL_SINCE or version == (0, 0) or world.state("ServiceCIDR") != "absent"):
        growing = f"ranges may have been added since (ServiceCIDR: {world.state('ServiceCIDR')})"
    context = Context(
        anchors=source_services.anchors(world),
        lost=asking.lost("ServiceCIDR", "Pod", "dry run", "Network", "Service default/kubernetes"),
        growing=growing,
    )
    result = judge("services", found, source_services.observed(world), context)
    for network in result.networks:
        if network.version in asking.notes.single_stack:
            result.worsen(CONFLICT)
            result.doubt(f"{network} is told, but the API server says that it has no IPv{network.version} Services")
    return result


def _cross_checks(
    world: World, ranges: Mapping[str, Range], cni: cni_source.CniFound, reserved: Mapping[str, Network]
) -> list[Doubt]:
    """What cannot be true together; the classes involved become conflicts."""
    doubts = []
    pods, services, lan = ranges["pods"], ranges["services"], ranges["lan"]
    for one, other in guards.overlaps(pods.networks, services.networks):
        pods.worsen(CONFLICT)
        services.worsen(CONFLICT)
        pods.doubt_of_the_cluster(f"{one} overlap the services {other}")
        services.doubt_of_the_cluster(f"{other} overlap the pods {one}")
    internal = [network for found in source_nodes.node_addresses(world).values() for network in found]
    covered = [address for address in internal if guards.inside(address, services.networks)]
    if covered:
        services.worsen(CONFLICT)
        services.doubt_of_the_cluster(f"they cover the nodes {words(covered)}")
    swallowed = [address for address in internal if guards.inside(address, pods.networks)]
    swallowed += [other for _one, other in guards.overlaps(pods.networks, lan.networks) if other.prefixlen < other.max_prefixlen]
    if swallowed:
        text = f"the pod range covers {words(swallowed)}: pods and the LAN cannot be told apart by address"
        settle = f"another range for pods, or {rights.setting('pods')} where they have only a part of it"
        doubts.append(Doubt("lan", text, settle=settle))
    for endpoint in source_dns.api_server(world)["endpoints"]:
        (address,) = obs.hosts([endpoint["ip"]])
        if guards.inside(address, services.networks):
            services.worsen(CONFLICT)
            services.doubt_of_the_cluster(f"the API endpoint {endpoint['ip']} lies inside of {words(services.networks)}")
        if guards.inside(address, pods.networks) and cni.ipam != "vpc" and not swallowed:
            pods.worsen(CONFLICT)
            pods.doubt_of_the_cluster(f"the API endpoint {endpoint['ip']} lies inside of {words(pods.networks)}")
    for name, network in reserved.items():
        for about, found in ranges.items():
            for one, _other in guards.overlaps(found.networks, [network]):
                found.worsen(CONFLICT)
                text = f"{about}: {one} overlaps {name} {network}"
                doubts.append(Doubt(about, text, settle="netguard_gateways: another network there"))
    return doubts


def _overrule(ranges: Mapping[str, Range], given: Mapping[str, Any]) -> None:
    """`force`: the user's ranges hold although observations contradict them; the doubts stay in sight."""
    if given.get("force") is not True:
        return
    for about in CLASSES:
        if given.get(about) and ranges[about].status != COMPLETE:
            ranges[about].doubt("taken from netguard_overrides by force")
            ranges[about].status = COMPLETE


def _served(reader: Reader, world: World) -> dict[str, bool]:
    """Which policy kinds the server really has: a group alone does not tell."""
    found = {}
    for version, kind in POLICY_APIS:
        found[f"{version} {kind}"] = False
        if world.serves(version) is False:
            continue
        try:
            answer = reader.raw(f"/apis/{version}")
        except Unreadable:
            continue
        found[f"{version} {kind}"] = any(at(item, "kind") == kind for item in obs.items(at(answer, "resources")))
    return found


def _merge(facts: dict[str, Any], given: Mapping[str, Any]) -> None:
    """What the user knows better of what is no range."""
    for key in ("dns", "cni", "api_server", "mesh"):
        if isinstance(given.get(key), Mapping):
            facts[key] = {**facts[key], **given[key]}
    if at(given.get("dns"), "service_ip") and not at(given.get("dns"), "service_ips"):
        facts["dns"]["service_ips"] = [given["dns"]["service_ip"]]
    if given.get("distribution"):
        facts["distribution"] = {**facts["distribution"], "name": str(given["distribution"])}
    if given.get("ip_families"):
        facts["ip_families"] = list(given["ip_families"])
