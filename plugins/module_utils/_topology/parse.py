# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Turns what the user wrote into a Topology, or raises one error with every fault in it."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable, Iterable
from typing import Any

from .._errors import Fault, FaultsError
from . import check, read, schema
from .model import (
    App,
    Exposed,
    External,
    Gateway,
    NamespaceRule,
    OpenVpn,
    Operator,
    Overlay,
    Platform,
    Selector,
    Topology,
    Use,
    Vpn,
    WireGuard,
)
from .read import REFUSED, Faults, did_you_mean

#: What `auto` networks are taken from: sixteen /16 that no Kubernetes distribution uses for pods by default.
AUTO_POOL = ipaddress.IPv4Network("172.16.0.0/12")

#: Labels and namespace that CloudNativePG's own manifests give its operator.
KNOWN_OPERATORS = {"cloudnative-pg": ("cnpg-system", {"app.kubernetes.io/name": "cloudnative-pg"})}


def _number(text: str, size: int) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % size


def auto_vni(gateway: str) -> int:
    """A VXLAN identifier in 1..16777215 that depends on the gateway's name alone."""
    return 1 + _number(f"vni {gateway}", 2**24 - 1)


def auto_network(gateway: str) -> ipaddress.IPv4Network:
    """One /16 of AUTO_POOL that depends on the gateway's name alone."""
    pool = list(AUTO_POOL.subnets(new_prefix=16))
    return pool[_number(f"network {gateway}", len(pool))]


def parse(
    instance: str = "home",
    gateways: Any = None,
    apps: Any = None,
    platform: Any = None,
    namespaces: Any = None,
    *,
    judge: Callable[[Topology], Iterable[Fault]] | None = None,
) -> Topology:
    """The topology of the four declared values (each as Ansible passes it; None: not declared).

    `judge` knows more about gateways than their form: its faults come in the same error, except for gateways that are
    malformed already. Raises FaultsError, which lists every fault with its path.
    """
    faults = Faults()
    if read.read(schema.Scalar("label"), instance, "instance", faults) is REFUSED:
        instance = "home"
    raw = {"gateways": gateways, "apps": apps, "platform": platform, "namespaces": namespaces}
    declared: dict[str, Any] = {}
    for option in schema.OPTIONS:
        value = raw[option.name]
        empty: Any = {} if isinstance(option.type, schema.Mapping) else []
        answer = read.read(option.type, value, option.name, faults) if value is not None else empty
        declared[option.name] = empty if answer is REFUSED else answer

    parsed_gateways = _each(declared["gateways"], _gateway, faults, "gateways", ("name", "provider"))
    parsed_platform = _platform(declared["platform"])
    parsed_apps = _each(declared["apps"], _app, faults, "apps", ("name", "namespace"))
    parsed_namespaces = _each(declared["namespaces"], _namespace, faults, "namespaces", ("name",))
    check.run(parsed_gateways, parsed_apps, parsed_platform, parsed_namespaces, faults)
    topology = Topology(
        instance,
        tuple(entry for _path, entry in parsed_gateways),
        tuple(check.resolved(app, parsed_apps) for _path, app in parsed_apps),
        parsed_platform,
        tuple(entry for _path, entry in parsed_namespaces),
    )
    if judge is not None and len(parsed_gateways) == len(declared["gateways"]):  # else positions would be wrong
        known = faults.paths()
        faults.found += [fault for fault in judge(topology) if not known & {fault.path.partition(".")[0]}]
    if faults.found:
        raise FaultsError(sorted(set(faults.found), key=faults.found.index))
    return topology


def _each(items: list[Any], build: Any, faults: Faults, path: str, needed: Iterable[str]) -> list[tuple[str, Any]]:
    """(path, value) of every entry that has what is needed to say more about it."""
    result = []
    for position, item in enumerate(items):
        if item is not REFUSED and all(name in item for name in needed):
            where = f"{path}[{position}]"
            result.append((where, build(item, where, faults)))
    return result


def _accepted(items: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(item for item in items if item is not REFUSED)


def _gateway(item: dict[str, Any], path: str, faults: Faults) -> Gateway:
    wireguard, openvpn = item.get("wireguard", {}), item.get("openvpn", {})
    protocol = item.get("protocol", "wireguard")
    for name in ("wireguard", "openvpn"):
        if name in item and name != protocol:
            faults.add(
                f"{path}.{name}", f"settings for {name}, but the protocol is {protocol}", f"set protocol: {name}, or leave them out"
            )
    endpoint, pin = wireguard.get("endpoint", {}), openvpn.get("endpoint", {})
    return Gateway(
        name=item["name"],
        namespace=item.get("namespace", "vpn"),
        provider=item["provider"],
        protocol=protocol,
        overlay=_overlay(item, path, faults),
        server={name: _accepted(values) for name, values in item.get("server", {}).items()},
        wireguard=WireGuard(
            addresses=_accepted(wireguard.get("addresses", ())),
            endpoint_ip=endpoint.get("ip", ""),
            endpoint_port=endpoint.get("port", 0),
            public_key=wireguard.get("public_key", ""),
        ),
        openvpn=OpenVpn(endpoint_ip=pin.get("ip", ""), endpoint_port=pin.get("port", 0), protocol=openvpn.get("protocol", "udp")),
        credentials_secret=item.get("credentials", {}).get("secret", ""),
        dns=item.get("dns", "vpn"),
        settings=item.get("settings", {}),
    )


def _overlay(item: dict[str, Any], path: str, faults: Faults) -> Overlay:
    overlay, name = item.get("overlay", {}), item["name"]
    network, text = auto_network(name), overlay.get("network", "auto")
    if text != "auto":
        where = f"{path}.overlay.network"
        given = read.parse_network(text)
        if isinstance(given, str):
            faults.add(where, given)
        elif not isinstance(given, ipaddress.IPv4Network) or not given.is_private or given.is_loopback or given.is_link_local:
            faults.add(
                where,
                f"{given} is not a private IPv4 network",
                "the addresses of the overlay never leave the cluster: take one of 172.16.0.0/12",
            )
        elif not 12 <= given.prefixlen <= 24:
            faults.add(where, f"{given} is not between /12 and /24")
        else:
            network = given
    return Overlay(
        vni=overlay.get("vni") or auto_vni(name),
        network=network,
        port=overlay.get("port"),
        scripts=overlay.get("scripts", "netguard"),
    )


def _platform(item: dict[str, Any]) -> Platform:
    return Platform(**{name: _selector(value) for name, value in item.items()})


def _selector(item: dict[str, Any]) -> Selector | None:
    return Selector(item["namespace"], item.get("pods", {})) if "namespace" in item else None


def _namespace(item: dict[str, Any], path: str, faults: Faults) -> NamespaceRule:
    return NamespaceRule(item["name"], item.get("default", "deny"), item.get("layout", "app"), item.get("mesh", False))


def _app(item: dict[str, Any], path: str, faults: Faults) -> App:
    name, ports = item["name"], item.get("ports", {})
    kind, workload = read.workload(item["workload"]) if "workload" in item else ("Deployment", name)
    if kind not in read.WORKLOAD_KINDS:
        hint = did_you_mean(kind, read.WORKLOAD_KINDS)
        if kind in ("Pod", "Job"):
            hint = "a finished or bare pod cannot be changed: use a CronJob or a Deployment"
        faults.add(f"{path}.workload", f"{kind} is not supported", hint)
    if "pods" in item and not item["pods"]:
        faults.add(
            f"{path}.pods",
            "no labels: that would select every pod of the namespace",
            "name at least one label, or leave the key out",
        )
    exposed = tuple(
        Exposed(entry["port"], entry.get("host", "")) for entry in _accepted(item.get("exposed", ())) if "port" in entry
    )
    internet = item.get("internet", ())
    return App(
        name=name,
        namespace=item["namespace"],
        kind=kind,
        workload=workload,
        pods=item.get("pods") or None,
        service_account=item.get("service_account", ""),
        ports=ports,
        vpn=_vpn(item["vpn"]) if "gateway" in item.get("vpn", {}) else None,
        uses=_uses(item, path),
        exposed=exposed,
        metrics=_named(item, "metrics", ports),
        internet=() if isinstance(internet, bool) else internet,
        internet_all=internet is True,
        external=tuple(
            External(entry["to"], entry.get("ports", ())) for entry in _accepted(item.get("external", ())) if "to" in entry
        ),
        kube_api=item.get("kube_api", False),
        lan=_named(item, "lan", [entry.port for entry in exposed]),
        webhook=item.get("webhook", ()),
        peers=_named(item, "peers", ports),
        icmp=item.get("icmp", ()),
        operator=_operator(item, path, faults),
    )


def _named(item: dict[str, Any], key: str, every: Iterable[str]) -> tuple[str, ...]:
    value = item.get(key, ())
    if isinstance(value, bool):
        return tuple(dict.fromkeys(every)) if value else ()
    return tuple(value)


def _vpn(item: dict[str, Any]) -> Vpn:
    return Vpn(
        gateway=item["gateway"],
        forward=tuple(item.get("forward", ())),
        start=item.get("start", "tunnel"),
        ready=item.get("ready", "always"),
        secondary_networks=_accepted(item.get("secondary_networks", ())),
    )


def _uses(item: dict[str, Any], path: str) -> tuple[Use, ...]:
    """Edges; one without a namespace means the app's own. `check` knows the path by the position."""
    result = []
    for text in item.get("uses", ()):
        if text is REFUSED:
            result.append(Use("", ""))
            continue
        namespace, app, port = read.use(text)
        result.append(Use(f"{namespace or item['namespace']}/{app}", port))
    return tuple(result)


def _operator(item: dict[str, Any], path: str, faults: Faults) -> Operator | None:
    operator = item.get("operator", {})
    if "name" not in operator:
        return None
    namespace, labels = KNOWN_OPERATORS.get(operator["name"], ("", {}))
    namespace = operator.get("namespace", namespace)
    if not namespace:
        faults.add(
            f"{path}.operator.namespace",
            "missing",
            f"only {', '.join(KNOWN_OPERATORS)} is known by name: say where this operator runs",
        )
        return None
    return Operator(operator["name"], Selector(namespace, operator.get("pods", labels)), tuple(operator.get("ports", ())))
