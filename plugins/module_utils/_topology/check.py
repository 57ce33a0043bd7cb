# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What must hold between the parts of a topology: references, duplicates, overlaps, impossible combinations."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Mapping

from .._errors import required
from .model import App, Gateway, NamespaceRule, Network, Platform, Port, Use
from .read import Faults, did_you_mean

#: Namespaces of the cluster itself: a gateway's rules and labels do not belong there.
SYSTEM_NAMESPACES = ("kube-system", "kube-public", "kube-node-lease")

Gateways = list[tuple[str, Gateway]]
Apps = list[tuple[str, App]]


def run(gateways: Gateways, apps: Apps, platform: Platform, namespaces: list[tuple[str, NamespaceRule]], faults: Faults) -> None:
    """Adds every fault found; paths are those of the declared lists."""
    _unique(((path, gateway.name) for path, gateway in gateways), "gateway", faults)
    _unique(((path, app.key) for path, app in apps), "app", faults)
    _unique(((path, rule.name) for path, rule in namespaces), "namespace", faults)
    _workloads(apps, faults)
    _overlays(gateways, faults)
    for path, gateway in gateways:
        if gateway.namespace in SYSTEM_NAMESPACES:
            faults.add(
                f"{path}.namespace",
                f"{gateway.namespace} belongs to the cluster",
                "give the gateway a namespace of its own, such as vpn",
            )
    for path, rule in namespaces:
        if rule.layout == "namespace" and rule.default == "open":
            faults.add(
                f"{path}.layout", "one policy for the whole namespace closes it for every pod", "set default: deny, or layout: app"
            )
    by_key = {app.key: app for _path, app in apps}
    for path, app in apps:
        _own_ports(path, app, faults)
        _edges(path, app, by_key, faults)
        _outside(path, app, faults)
        _platform(path, app, platform, faults)
        if app.vpn is not None:
            _client(path, app, gateways, faults)
    _forwards(apps, faults)


def resolved(app: App, apps: Apps) -> App:
    """The app with its edges in a stable order, each once."""
    return dataclasses.replace(app, uses=tuple(dict.fromkeys(app.uses)))


def _unique(named: Iterable[tuple[str, str]], what: str, faults: Faults) -> None:
    first: dict[str, str] = {}
    for path, name in named:
        if name in first:
            faults.add(f"{path}.name", f'{what} "{name}" is declared twice', f"first at {first[name]}")
        first.setdefault(name, path)


def _workloads(apps: Apps, faults: Faults) -> None:
    first: dict[tuple[str, str, str], tuple[str, str]] = {}
    labels: dict[tuple[str, frozenset[tuple[str, str]]], str] = {}
    for path, app in apps:
        identity = (app.namespace, app.kind, app.workload)
        other = first.setdefault(identity, (path, app.key))
        if other[0] != path and other[1] != app.key:
            faults.add(
                f"{path}.workload", f"{app.kind}/{app.workload} in {app.namespace} belongs to two apps", f"first at {other[0]}"
            )
        if app.pods:
            selected = (app.namespace, frozenset(app.pods.items()))
            seen = labels.setdefault(selected, path)
            if seen != path:
                faults.add(
                    f"{path}.pods",
                    "the same labels as another app in this namespace",
                    f"first at {seen}: policies could not tell them apart",
                )


def _overlays(gateways: Gateways, faults: Faults) -> None:
    for position, (path, gateway) in enumerate(gateways):
        for other_path, other in gateways[:position]:
            if gateway.name == other.name:
                continue
            if gateway.overlay.network.overlaps(other.overlay.network):
                faults.add(
                    f"{path}.overlay.network",
                    f"{gateway.overlay.network} overlaps {other.overlay.network} of {other_path}",
                    f"set overlay.network: {_free_network(gateways)}",
                )
            if gateway.overlay.vni == other.overlay.vni:
                faults.add(f"{path}.overlay.vni", f"{gateway.overlay.vni} is the one of {other_path}", "set overlay.vni")


def _free_network(gateways: Gateways) -> str:
    taken = [gateway.overlay.network for _path, gateway in gateways]
    for network in ipaddress.IPv4Network("172.16.0.0/12").subnets(new_prefix=16):
        if not any(network.overlaps(other) for other in taken):
            return str(network)
    return "another private network"


def _own_ports(path: str, app: App, faults: Faults) -> None:
    """Names of the app's own ports, wherever they are used."""
    used: list[tuple[str, str]] = []
    for key, names in (("metrics", app.metrics), ("lan", app.lan), ("peers", app.peers)):
        used += [(f"{path}.{key}", name) for name in names]
    used += [(f"{path}.exposed", exposed.port) for exposed in app.exposed]
    if app.vpn is not None:
        used += [(f"{path}.vpn.forward", name) for name in app.vpn.forward]
    if app.operator is not None:
        used += [(f"{path}.operator.ports", name) for name in app.operator.ports]
    for where, name in used:
        if name not in app.ports:
            hint = did_you_mean(name, app.ports) if app.ports else "declare it in ports"
            faults.add(where, f'no port "{name}" in ports', hint)
    owner: dict[tuple[str, int], str] = {}
    for name, ports in app.ports.items():
        for port in ports:
            for number in (port.number, port.end or port.number):
                other = owner.setdefault((port.protocol, number), name)
                if other != name:
                    faults.add(f"{path}.ports.{name}", f"{number}/{port.protocol.lower()} is also the port {other}")


def _edges(path: str, app: App, by_key: Mapping[str, App], faults: Faults) -> None:
    for position, edge in enumerate(app.uses):
        where = f"{path}.uses[{position}]"
        if edge == Use("", ""):
            continue  # refused while reading
        target = by_key.get(edge.app)
        if target is None:
            name = edge.app.split("/", 1)[1]
            elsewhere = [other.key for other in by_key.values() if other.name == name]
            hint = f"write {elsewhere[0]}:{edge.port}" if elsewhere else _near_app(edge.app, app.namespace, by_key)
            faults.add(where, f'no app "{name if edge.app.startswith(app.namespace + "/") else edge.app}"', hint)
        elif edge.port not in target.ports:
            hint = did_you_mean(edge.port, target.ports) if target.ports else f"declare it in the ports of {target.key}"
            faults.add(where, f'{target.key} has no port "{edge.port}"', hint)
        elif target.key == app.key:
            faults.add(where, "an app that uses itself", f"write peers: [{edge.port}]")


def _near_app(key: str, namespace: str, known: Iterable[str]) -> str:
    names = {other.removeprefix(namespace + "/"): other for other in known}
    return did_you_mean(key.removeprefix(namespace + "/"), names)


def _outside(path: str, app: App, faults: Faults) -> None:
    for position, external in enumerate(app.external):
        for network in external.to:
            where = f"{path}.external[{position}].to"
            if network.prefixlen == 0:
                faults.add(where, f"{network} is everything", "write internet: with the ports that are needed")
            elif app.vpn is not None and not private(network):
                faults.add(where, f"{network} is public, and the app goes through a VPN", "leave it out: the tunnel reaches it")
    for network in app.icmp:
        if network.prefixlen == 0:
            faults.add(f"{path}.icmp", f"{network} is everything", "name the addresses")
        elif app.vpn is not None and not private(network):
            faults.add(f"{path}.icmp", f"{network} is public, and the app goes through a VPN", "leave it out")


def private(network: Network) -> bool:
    """Whether no address of the network is public: RFC 1918, 100.64.0.0/10, link-local, ULA, documentation ranges."""
    shared = ipaddress.ip_network("100.64.0.0/10")
    if isinstance(network, ipaddress.IPv4Network) and isinstance(shared, ipaddress.IPv4Network) and network.subnet_of(shared):
        return True
    return network.is_private or network.is_link_local


def _platform(path: str, app: App, platform: Platform, faults: Faults) -> None:
    if app.exposed and platform.ingress is None:
        faults.add(f"{path}.exposed", "no ingress controller is declared", "set platform.ingress: {namespace, pods}")
    if app.metrics and platform.prometheus is None:
        faults.add(f"{path}.metrics", "no Prometheus is declared", "set platform.prometheus: {namespace, pods}")


def _client(path: str, app: App, gateways: Gateways, faults: Faults) -> None:
    vpn = required(app.vpn)
    names = [gateway.name for _path, gateway in gateways]
    if vpn.gateway not in names:
        hint = did_you_mean(vpn.gateway, names) if names else "declare it in gateways"
        faults.add(f"{path}.vpn.gateway", f'no gateway "{vpn.gateway}"', hint)
    if app.internet or app.internet_all:
        faults.add(f"{path}.internet", "the app goes through a VPN", "remove internet, or remove vpn")
    holding = [gateway.name for _path, gateway in gateways if gateway.namespace == app.namespace]
    if holding:
        faults.add(
            f"{path}.namespace",
            f'{app.namespace} holds the gateway "{holding[0]}"',
            "a gateway's namespace holds no clients: move one of them",
        )
    if vpn.forward and app.kind not in ("Deployment", "StatefulSet"):
        faults.add(
            f"{path}.vpn.forward",
            f"a {app.kind} has no single pod to forward to",
            "use a Deployment or StatefulSet with one replica",
        )


def _forwards(apps: Apps, faults: Faults) -> None:
    """Two clients of one gateway cannot be given the same forwarded port."""
    owner: dict[tuple[str, str], list[tuple[Port, str, str]]] = defaultdict(list)
    for path, app in apps:
        if app.vpn is None:
            continue
        for name in app.vpn.forward:
            for port in app.ports.get(name, ()):
                for other, other_path, other_key in owner[(app.vpn.gateway, port.protocol)]:
                    last, other_last = port.end or port.number, other.end or other.number
                    if other_key != app.key and port.number <= other_last and other.number <= last:
                        faults.add(
                            f"{path}.vpn.forward",
                            f"{port.number}/{port.protocol.lower()} is forwarded to another app as well",
                            f"at {other_path}",
                        )
                owner[(app.vpn.gateway, port.protocol)].append((port, path, app.key))
