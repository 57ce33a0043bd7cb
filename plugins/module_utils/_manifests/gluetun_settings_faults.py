# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Groups 9 to 14 of bad input: the free `settings` of a gateway."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from .._errors import Fault
from .._topology.read import did_you_mean
from .gluetun import CONTROL_ROUTES, PUBLICIP_APIS, RESOLVERS, Release, provider
from .gluetun_case import Case
from .gluetun_values import address, network, seconds, tidy, wrong
from .gluetun_variables import FORBIDDEN, OURS, POD_GATEWAY, RENAMED, SECRET_VARIABLES, VARIABLES

Group = Callable[[Case], Iterator[Fault]]


def _names_and_values(case: Case) -> Iterator[Fault]:
    """9 to 14, first half: a variable that exists, that is the user's to set, and a value that can be read."""
    for name, value in case.gateway.settings.items():
        where = f"settings.{name}"
        variable = VARIABLES.get(name)
        if name in RENAMED:
            today = RENAMED[name]
            at = OURS.get(today) or (f"set credentials {SECRET_VARIABLES[today]}" if today in SECRET_VARIABLES else f"set {today}")
            yield case.fault(where, "is an old name, which Gluetun would prefer to the one of today", at)
        elif name in FORBIDDEN:
            yield case.fault(where, "may not be set", FORBIDDEN[name])
        elif name in SECRET_VARIABLES:
            yield case.fault(where, "is a secret, and settings are not", f"set credentials {SECRET_VARIABLES[name]}")
        elif name in OURS:
            yield case.fault(where, "is set by this collection", OURS[name])
        elif name in POD_GATEWAY:
            yield case.fault(where, "is a setting of the pod-gateway image, not of Gluetun", "remove it: it is generated")
        elif name.endswith(("_SECRETFILE", "_FILE")) and name not in VARIABLES:
            yield case.fault(where, "names a file, and files are mounted by this collection", "put the value among the credentials")
        elif variable is None:
            yield case.fault(where, "Gluetun has no such variable", did_you_mean(name, VARIABLES))
        elif case.release not in variable.releases:
            yield case.fault(where, f"Gluetun {case.release.value} does not read it", _instead(name))
        elif message := wrong(variable, value):
            yield case.fault(where, message)


def _instead(name: str) -> str:
    pairs = {
        "DNS_ADDRESS": "set DNS_UPSTREAM_PLAIN_ADDRESSES",
        "DNS_UPSTREAM_PLAIN_ADDRESSES": "set DNS_ADDRESS",
        "FIREWALL_DEBUG": "set FIREWALL_IPTABLES_LOG_LEVEL=debug",
        "FIREWALL_IPTABLES_LOG_LEVEL": "set FIREWALL_DEBUG",
        "VPN_PORT_FORWARDING_LISTENING_PORT": "set VPN_PORT_FORWARDING_LISTENING_PORTS",
        "VPN_PORT_FORWARDING_LISTENING_PORTS": "set VPN_PORT_FORWARDING_LISTENING_PORT",
    }
    return pairs.get(name, "remove it")


def _subnets(case: Case) -> Iterator[Fault]:
    """9. What the gateway may reach beside the tunnel: exact private networks, never a public one."""
    where = "settings.FIREWALL_OUTBOUND_SUBNETS"
    for item in tidy(case.setting("FIREWALL_OUTBOUND_SUBNETS")):
        other = network(item)
        if other is None:
            continue
        if other.network_address.is_unspecified:
            yield case.fault(where, f"{other} is every address", "name the networks one by one")
        elif other == ipaddress.ip_network("10.0.0.0/8"):
            yield case.fault(where, f"{other} holds the tunnels of most providers", "name the exact networks")
        elif other.is_global:
            yield case.fault(where, f"{other} is public: a way around the tunnel", "only private networks may be named")


def _dns(case: Case) -> Iterator[Fault]:
    """10. Name resolution inside the gateway."""
    where = "settings.DNS_UPSTREAM_RESOLVERS"
    for name in tidy(case.setting("DNS_UPSTREAM_RESOLVERS")):
        if name.lower() not in RESOLVERS:
            yield case.fault(
                where, f'no resolver "{name}"', did_you_mean(name.lower(), RESOLVERS) or f"one of {', '.join(RESOLVERS)}"
            )
    period = seconds(case.setting("DNS_UPDATE_PERIOD", "0"))
    if period is not None and period != 0 and period < 30:
        yield case.fault("settings.DNS_UPDATE_PERIOD", "is shorter than 30s", "set 0 or at least 30s")
    if case.release is Release.NEXT:
        kind = case.setting("DNS_UPSTREAM_RESOLVER_TYPE", "plain").lower()
        if kind != "plain":
            yield case.fault(
                "settings.DNS_UPSTREAM_RESOLVER_TYPE", "must be plain, since Gluetun's own server stays off", "remove it"
            )
        plain = case.setting("DNS_UPSTREAM_PLAIN_ADDRESSES")
        for item in tidy(plain):
            host, _colon, port = item.rpartition(":")
            if port != "53" or ":" in host:
                hint = "since Gluetun's own server stays off: write such as 10.2.0.1:53"
                yield case.fault("settings.DNS_UPSTREAM_PLAIN_ADDRESSES", f'"{item}" is not an IPv4 address with port 53', hint)
    for name in ("DNS_ADDRESS", "DNS_UPSTREAM_PLAIN_ADDRESSES"):
        for item in tidy(case.setting(name)):
            found = address(item.rpartition(":")[0] if name != "DNS_ADDRESS" else item)
            if found is None:
                continue
            if found.is_loopback or found.is_unspecified or found.version == 6:
                yield case.fault(f"settings.{name}", f"{found} is no resolver in the tunnel", "write an IPv4 address beyond it")
            elif case.facts and any(found in other for other in (*case.facts.pods, *case.facts.services)):
                hint = "its names would leave outside the VPN: use dns: split for the cluster's own names"
                yield case.fault(f"settings.{name}", f"{found} is inside the cluster", hint)


def _health(case: Case) -> Iterator[Fault]:
    """11. How Gluetun decides that the tunnel lives."""
    targets = tidy(case.setting("HEALTH_ICMP_TARGET_IPS"))
    if len(targets) > 1 and any(found is not None and found.is_unspecified for found in map(address, targets)):
        hint = "alone it means the VPN server: name addresses, or it alone"
        yield case.fault("settings.HEALTH_ICMP_TARGET_IPS", "has 0.0.0.0 among others", hint)
    listen = case.setting("HEALTH_SERVER_ADDRESS", "127.0.0.1:9999")
    host, _colon, port = listen.rpartition(":")
    open_ports = tidy(case.setting("FIREWALL_INPUT_PORTS"))
    found = address(host.strip("[]"))
    wide = not host or found is None or not found.is_loopback
    if wide and port not in open_ports:
        hint = f"add {port} to FIREWALL_INPUT_PORTS, or leave it on 127.0.0.1 (the probes run inside the pod)"
        yield case.fault("settings.HEALTH_SERVER_ADDRESS", f"{listen} is not reachable behind Gluetun's firewall", hint)
    if not wide and port in open_ports:
        hint = "remove the port, or set HEALTH_SERVER_ADDRESS"
        yield case.fault("settings.FIREWALL_INPUT_PORTS", f"opens {port}, but the health server listens on {listen}", hint)


def _tunnel(case: Case) -> Iterator[Fault]:
    """12. The interface and its peer."""
    keepalive = seconds(case.setting("WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL", "0"))
    if keepalive is not None and keepalive < 0:
        yield case.fault("settings.WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL", "is negative", "set 0 or such as 25s")
    if (allowed := tidy(case.setting("WIREGUARD_ALLOWED_IPS"))) and "0.0.0.0/0" not in allowed:
        hint = "what is left out falls to eth0 and is dropped there: remove the setting"
        yield case.fault("settings.WIREGUARD_ALLOWED_IPS", "does not cover 0.0.0.0/0", hint)
    if case.wireguard and ":" in case.endpoint.host and (mtu := case.setting("WIREGUARD_MTU")).isdecimal() and int(mtu) > 1420:
        yield case.fault("settings.WIREGUARD_MTU", f"{mtu} is above the path's 1420 over IPv6", "set 1420 or less")


_ROLE_KEYS = {"name", "routes", "auth", "username", "password", "apikey"}


def _role(case: Case, key: str, role: dict[str, Any]) -> Iterator[Fault]:
    """One role of the control server. Its values are secrets and stay out of the messages."""
    for name in role:
        if name not in _ROLE_KEYS:
            yield case.credential_fault(key, f'has the unknown field "{name}"', did_you_mean(str(name), sorted(_ROLE_KEYS)))
    auth = role.get("auth", "")
    if auth not in ("none", "basic", "apikey"):
        yield case.credential_fault(key, "has a role whose auth is not none, basic or apikey")
    elif auth == "none":
        yield case.credential_fault(key, "has a role with auth none", "any client could stop the VPN: use basic or apikey")
    for name in {"basic": ("username", "password"), "apikey": ("apikey",)}.get(str(auth), ()):
        if not role.get(name):
            yield case.credential_fault(key, f"has a role with auth {auth} and no {name}")
    for route in role.get("routes") or ():
        method, _space, path = str(route).partition(" ")
        if path not in CONTROL_ROUTES:
            yield case.credential_fault(key, f'has the unknown route "{path}"', did_you_mean(path, CONTROL_ROUTES))
        elif method not in (methods := _methods(case, path)):
            yield case.credential_fault(key, f"has method {method} for {path}", f"one of {', '.join(methods)}")
        elif path == "/v1/vpn/settings":
            yield case.credential_fault(key, f"lets a role read {path}", "it contains the keys: remove the route")


def _methods(case: Case, path: str) -> tuple[str, ...]:
    more = ("PUT",) if case.release is Release.NEXT and path == "/v1/portforward" else ()
    return CONTROL_ROUTES[path] + more


def roles_of(text: str) -> list[dict[str, Any]] | None:
    """The `[[roles]]` tables of the control server's TOML file; None when a line is none of what such a file holds."""
    roles: list[dict[str, Any]] = []
    joined = re.sub(r"\[\s*\n[^\[\]]*\]", lambda match: " ".join(match.group(0).split()), text)
    for raw in joined.splitlines():
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if line == "[[roles]]":
            roles.append({})
            continue
        name, equals, value = line.partition("=")
        if not equals or not roles:
            return None
        try:
            # Strings and lists of strings are written alike in TOML and JSON, but for 'literal' strings and a last comma.
            roles[-1][name.strip()] = json.loads(re.sub(r",\s*\]", "]", value.strip().replace("'", '"')))
        except ValueError:
            return None
    return roles


def _control_server(case: Case) -> Iterator[Fault]:
    """13. Who may ask and steer Gluetun."""
    default_key, file_key = "http_control_server_auth_default_role", "http_control_server_auth_config"
    guarded = False
    if text := case.credential(default_key):
        try:
            role = json.loads(text)
        except ValueError:
            role = None
        if not isinstance(role, dict):
            yield case.credential_fault(default_key, "is not a JSON object", 'such as {"auth": "apikey", "apikey": "..."}')
        else:
            guarded = True
            yield from _role(case, default_key, role)
    if text := case.credential(file_key):
        roles = roles_of(text)
        if not roles:
            yield case.credential_fault(file_key, "holds no [[roles]] that can be read")
        for role in roles or ():
            guarded = True
            if not role.get("routes"):
                yield case.credential_fault(file_key, "has a role without routes")
            yield from _role(case, file_key, role)
    listen = case.setting("HTTP_CONTROL_SERVER_ADDRESS", "127.0.0.1:8000")
    host = address(listen.rpartition(":")[0].strip("[]"))
    if (host is None or not host.is_loopback) and not guarded and case.credentials is not None:
        hint = f"leave it on 127.0.0.1, or give {default_key} or {file_key} among the credentials"
        yield case.fault("settings.HTTP_CONTROL_SERVER_ADDRESS", f"{listen} lets every client of the overlay stop the VPN", hint)


def _rest(case: Case) -> Iterator[Fault]:
    """14. Updater, public address, and what remains."""
    period = seconds(case.setting("UPDATER_PERIOD", "0"))
    if period is not None and 0 < period < 60:
        yield case.fault("settings.UPDATER_PERIOD", "is shorter than 1m", "set 0 or at least 1m")
    for name in tidy(case.setting("UPDATER_VPN_SERVICE_PROVIDERS")):
        if provider(name) is None:
            yield case.fault("settings.UPDATER_VPN_SERVICE_PROVIDERS", f'Gluetun has no provider "{name}"')
    email, password = case.setting("UPDATER_PROTONVPN_EMAIL"), case.credential("updater_protonvpn_password")
    if email and not password and case.credentials is not None:
        yield case.credential_fault("updater_protonvpn_password", "is missing beside UPDATER_PROTONVPN_EMAIL")
    if password and not email:
        yield case.fault("settings.UPDATER_PROTONVPN_EMAIL", "is missing beside the password")
    for name in tidy(case.setting("PUBLICIP_API")):
        if name.lower() not in PUBLICIP_APIS and not re.fullmatch(r"echoip#https?://\S+", name):
            hint = did_you_mean(name.lower(), PUBLICIP_APIS) or f"one of {', '.join(PUBLICIP_APIS)} or echoip#http://host:port"
            yield case.fault("settings.PUBLICIP_API", f'no service "{name}"', hint)


GROUPS: tuple[Group, ...] = (_names_and_values, _subnets, _dns, _health, _tunnel, _control_server, _rest)
