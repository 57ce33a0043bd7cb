# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every bad input that Gluetun would stop at, or worse accept: found before anything is written.

`check` returns the faults of the fourteen groups below, each with the path where it stands and what to do; `advise` returns
what is no fault but worth a word. Groups 1 to 8 (provider, keys, endpoint, credentials, filters, port forwarding) are here,
networks over one another in `gluetun_networks_faults`, groups 9 to 14 (the free `settings`) in `gluetun_settings_faults`.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
from collections.abc import Callable, Iterator, Mapping

from .._errors import Fault
from .._facts.model import Facts
from .._topology.model import Topology
from .._topology.read import did_you_mean
from .gluetun import FILTERS, IVPN_ACCOUNT, PROVIDERS, RELEASES, Release, image_version, provider, release_of
from .gluetun_case import Case, Credentials, ovpn_remotes, split_endpoint
from .gluetun_networks_faults import GROUPS as NETWORKS_GROUPS
from .gluetun_settings_faults import GROUPS as SETTINGS_GROUPS
from .gluetun_values import address, truth, wireguard_key
from .gluetun_variables import SECRETS
from .images import Images

Group = Callable[[Case], Iterator[Fault]]


def check(topology: Topology, credentials: Credentials, *, facts: Facts | None = None, images: Images | None = None) -> list[Fault]:
    """Every fault of every gateway, sorted by path.

    `credentials`: by gateway the values of its credentials, wherever they are kept; None for a Secret that cannot be read here
    (then nothing is said about its content). `facts`: without them what depends on the cluster is not judged.
    """
    image = (images or Images()).gluetun
    release = release_of(image)
    faults = list(_image(image, release))
    names = [gateway.name for gateway in topology.gateways]
    faults += [
        Fault(f"credentials.{name}", f'no gateway "{name}"', did_you_mean(name, names)) for name in credentials if name not in names
    ]
    for case in cases(topology, credentials, facts, release or Release.V341):
        for group in GROUPS:
            faults += group(case)
    return sorted(set(faults))


def declared(topology: Topology) -> list[Fault]:
    """The faults that stand in the list itself: whatever the credentials, the cluster and the release of Gluetun are.

    For every module, so that a gateway that cannot work is refused before the first of them has written anything.
    """
    unknown = {gateway.name: None for gateway in topology.gateways}
    found = [
        {fault for case in cases(topology, unknown, None, release) for group in GROUPS for fault in group(case)}
        for release in Release
    ]
    return sorted(set.intersection(*found))


def cases(topology: Topology, credentials: Credentials, facts: Facts | None, release: Release) -> list[Case]:
    return [
        Case(
            path=f"gateways[{position}]",
            gateway=gateway,
            release=release,
            provider=provider(gateway.provider),
            credentials=credentials.get(gateway.name, None if gateway.credentials_secret else {}),
            facts=facts,
            clients=topology.clients_of(gateway.name),
        )
        for position, gateway in enumerate(topology.gateways)
    ]


def advise(topology: Topology, credentials: Credentials, *, facts: Facts | None = None, images: Images | None = None) -> list[str]:
    """What is no fault but the user should know; one sentence each."""
    release = release_of((images or Images()).gluetun) or Release.V341
    said: list[str] = []
    for case in cases(topology, credentials, facts, release):
        name = case.gateway.name
        if case.provider is None:
            continue
        rules = case.provider.wireguard
        if case.wireguard and rules and rules.preshared == "advised" and case.credentials is not None and not case.preshared_key:
            said.append(f"gateway {name}: {case.provider.name} needs a preshared key in practice (wireguard_preshared_key)")
        if not case.wireguard and case.provider.openvpn and case.provider.openvpn.warning:
            said.append(f"gateway {name}: {case.provider.openvpn.warning}")
        if len([key for key, values in case.gateway.server.items() if FILTERS.get(key) and values]) > 1:
            said.append(
                f"gateway {name}: server filters are combined; a combination that no server matches is only seen at run time"
                " (the image's command format-servers lists what there is)"
            )
        if not case.wireguard and len(ovpn_remotes(case.credential("openvpn_custom_config"))) > 1:
            said.append(f"gateway {name}: of the remotes in openvpn_custom_config only the first is used")
        if len(case.declared_addresses) != len(case.gateway.wireguard.addresses) and case.declared_addresses:
            said.append(f"gateway {name}: the IPv6 addresses of wireguard.addresses are left out; the overlay is IPv4")
        if case.switched_on("VPN_PORT_FORWARDING"):
            said.append(
                f"gateway {name}: whether the provider hands out a port is told by Gluetun's log alone; there are clusters where it"
                " was never asked (Gluetun's issue 2534)"
            )
        if case.gateway.dns == "cluster":
            said.append(f"gateway {name}: dns: cluster lets the names that its clients look up leave outside the VPN")
    return said


def _image(image: str, release: Release | None) -> Iterator[Fault]:
    if image_version(image) is None:
        yield Fault("images.gluetun", f'"{image}" has no exact version', "pin one such as v3.41.3, best with its digest")
    elif release is None:
        known = ", ".join(f"{major}.{minor}" for major, minor in RELEASES)
        yield Fault("images.gluetun", f"the variables of {image} are not known", f"use a version of {known}")


def _provider_and_protocol(case: Case) -> Iterator[Fault]:
    """1. A provider that exists, and that offers the protocol in this release."""
    asked = case.gateway.provider
    if case.provider is None:
        yield case.fault("provider", f'Gluetun has no provider "{asked}"', did_you_mean(asked, PROVIDERS) or "or use custom")
        return
    name = case.provider.name
    if case.provider.dropped_in is case.release:
        yield case.fault("provider", f"Gluetun {case.release.value} has dropped {name}", "pin an image of v3.41")
    if case.wireguard and case.provider.wireguard is None:
        yield case.fault(
            "protocol",
            f"{name} has no WireGuard in Gluetun",
            "set protocol: openvpn, or provider: custom with the WireGuard data the provider gives you",
        )
    if case.gateway.protocol == "openvpn" and case.provider.openvpn is None:
        yield case.fault("protocol", f"{name} has switched OpenVPN off", "set protocol: wireguard")
    if case.gateway.protocol not in ("wireguard", "openvpn"):
        yield case.fault("protocol", f"{case.gateway.protocol} is not supported", "set wireguard or openvpn")


def _keys(case: Case) -> Iterator[Fault]:
    """2. WireGuard keys: base64 of exactly 32 bytes, and a private key at all."""
    if not case.wireguard:
        return
    in_file = case.conf
    for key, field, value in (
        ("wireguard_private_key", "privatekey", case.private_key),
        ("wireguard_preshared_key", "presharedkey", case.preshared_key),
    ):
        if value and (message := wireguard_key(value)):
            hint = "NordVPN's private key is not its access token" if "access token" in message else "copy the key again"
            yield case.credential_fault("wg0.conf" if in_file.get(field) else key, f"{field} {message}", hint)
    if case.public_key and (message := wireguard_key(case.public_key)):
        if in_file.get("publickey"):
            yield case.credential_fault("wg0.conf", f"publickey {message}")
        else:
            yield case.fault("wireguard.public_key", message)
    if case.credentials is not None and not case.private_key:
        yield case.credential_fault("wireguard_private_key", "is missing", _where_to_put(case, "wireguard_private_key"))


def _where_to_put(case: Case, key: str) -> str:
    if case.gateway.credentials_secret:
        return f"add it to the Secret {case.gateway.namespace}/{case.gateway.credentials_secret}"
    return f"set credentials.{case.gateway.name}.{key}, or name a Secret in {case.path}.credentials.secret"


def _addresses(case: Case) -> Iterator[Fault]:
    """3. The addresses of the tunnel's interface."""
    if not case.wireguard:
        return
    key = "wg0.conf" if case.conf.get("address") else "wireguard_addresses"
    if text := case.address_text:
        for item in text.split(","):
            try:
                interface = ipaddress.ip_interface(item.strip())
            except ValueError:
                yield case.credential_fault(key, "has an address that cannot be read", "write such as 10.2.0.2/32")
                continue
            if interface.version == 6 and case.facts is not None and "ipv6" not in case.facts.ip_families:
                yield case.credential_fault(key, "has an IPv6 address, and the cluster has no IPv6", "remove it")
    elif not case.addresses and case.credentials is not None:
        if case.gateway.wireguard.addresses:
            yield case.fault("wireguard.addresses", "has IPv6 addresses alone", "add the tunnel's IPv4 address")
        else:
            yield case.fault("wireguard.addresses", "is missing", "copy Address from the configuration the provider gives you")


def _wireguard_endpoint(case: Case) -> Iterator[Fault]:
    """4. What a provider needs besides the private key: preshared key, endpoint, public key."""
    rules = case.provider.wireguard if case.provider else None
    if not case.wireguard or rules is None or case.provider is None:
        return
    name = case.provider.name
    if rules.preshared == "required" and case.credentials is not None and not case.preshared_key:
        key = "wireguard_preshared_key"
        yield case.credential_fault(key, f"is missing and {name} demands it", _where_to_put(case, key))
    if text := case.conf.get("endpoint", ""):
        host, port = split_endpoint(text)
        hint = "write the server's address and port"
        found = address(host)
        if found is None:
            yield case.credential_fault("wg0.conf", "has a name for endpoint, which would be looked up outside the tunnel", hint)
        elif found.is_unspecified:
            yield case.credential_fault("wg0.conf", "has the unspecified address for endpoint", hint)
        if not port:
            yield case.credential_fault("wg0.conf", "has an endpoint without a port", hint)
    elif case.endpoint.host and not case.endpoint.pinned:
        yield case.fault("wireguard.endpoint.ip", f"{case.endpoint.host} is no server's address", "write its IP address")
    if not rules.endpoint_required or (case.credentials is None and not case.endpoint.host):
        return
    for there, where_, what in (
        (bool(case.endpoint.host), "wireguard.endpoint.ip", "the server's address"),
        (bool(case.endpoint.port), "wireguard.endpoint.port", "the server's port"),
        (bool(case.public_key), "wireguard.public_key", "the server's public key"),
    ):
        if not there:
            yield case.fault(where_, f"{what} is missing and provider {name} needs it", "copy it from the provider's configuration")


def _ports(case: Case) -> Iterator[Fault]:
    """5. Endpoint ports and transports that the provider offers."""
    if case.provider is None:
        return
    name, port = case.provider.name, case.endpoint.port
    if case.wireguard and case.provider.wireguard is not None:
        allowed = case.provider.wireguard.endpoint_ports
        where = "wireguard.endpoint.port"
        # A declared port that is the provider's own is a statement, and left out of what Gluetun is told; in a file it is an order.
        own = port == case.provider.wireguard.port and not case.conf.get("endpoint")
        if port and allowed is not None and port not in allowed and not own:
            hint = f"one of {_listed(allowed)}" if allowed else "remove it; in a wg0.conf remove the Endpoint line"
            message = f"{port} is not a WireGuard port of {name}" if allowed else f"{name} allows no endpoint port"
            yield (
                case.credential_fault("wg0.conf", message, hint) if case.conf.get("endpoint") else case.fault(where, message, hint)
            )
    if not case.wireguard and case.provider.openvpn is not None:
        rules = case.provider.openvpn
        if case.endpoint.protocol == "tcp" and not rules.tcp:
            yield case.fault("openvpn.protocol", f"{name} has OpenVPN over UDP only", "set udp")
            return
        tcp = case.endpoint.protocol == "tcp"
        allowed, own_port = (rules.tcp_ports, rules.tcp_port) if tcp else (rules.udp_ports, rules.udp_port)
        if not port and not own_port:
            yield case.fault("openvpn.protocol", f"Gluetun has no TCP port for {name}, and stops", "set udp, or openvpn.endpoint")
        if port and allowed is not None and port not in (*allowed, own_port):
            hint = f"one of {_listed(allowed)}" if allowed else f"{name} is reached at {own_port} alone"
            yield case.fault("openvpn.endpoint.port", f"{port} is not a port of {name} over {case.endpoint.protocol}", hint)


def _listed(ports: tuple[int, ...]) -> str:
    return ", ".join(str(port) for port in sorted(ports))


def _openvpn_credentials(case: Case) -> Iterator[Fault]:
    """6. OpenVPN's user, password, certificate, key and configuration."""
    if case.wireguard or case.provider is None or case.provider.openvpn is None or case.credentials is None:
        return
    name = case.provider.name
    needed = case.provider.openvpn.credentials
    if name == "ivpn" and IVPN_ACCOUNT.fullmatch(case.credential("openvpn_user")):
        needed = ("openvpn_user",)
    for key in needed:
        if not case.credential(key):
            yield case.credential_fault(key, f"is missing and {name} needs it", _where_to_put(case, key))
    for key in ("openvpn_cert", "openvpn_key", "openvpn_encrypted_key"):
        if (value := case.credential(key)) and not _pem(value):
            yield case.credential_fault(key, "is neither PEM nor base64", "copy the whole block with its BEGIN and END lines")
    if case.credential("openvpn_encrypted_key") and not case.credential("openvpn_key_passphrase"):
        yield case.credential_fault("openvpn_key_passphrase", "is missing for the encrypted key")
    if name == "custom" and (text := case.credential("openvpn_custom_config")):
        remotes = ovpn_remotes(text)
        if not remotes:
            yield case.credential_fault("openvpn_custom_config", "has no line remote", "it must name the server's IP address")
        elif not remotes[0].pinned:
            yield case.credential_fault(
                "openvpn_custom_config",
                "has a remote that is not an IP address",
                "Gluetun looks no name up: write the server's IP address",
            )
    if case.setting("PRIVATE_INTERNET_ACCESS_OPENVPN_ENCRYPTION_PRESET") and name != "private internet access":
        where = "settings.PRIVATE_INTERNET_ACCESS_OPENVPN_ENCRYPTION_PRESET"
        yield case.fault(where, f"{name} has no such preset", "remove it")


def _pem(value: str) -> bool:
    body = "".join(line for line in value.splitlines() if line and not line.startswith("-----"))
    if "-----BEGIN" in value and any(":" in line for line in value.splitlines()):
        return True  # an encrypted PEM has headers before its body
    try:
        base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError):
        return False
    return bool(body)


def _filters(case: Case) -> Iterator[Fault]:
    """7. Server filters that the provider has data for."""
    if case.provider is None:
        return
    name, offered = case.provider.name, case.provider.filters
    for key, values in case.gateway.server.items():
        known = FILTERS.get(key)
        where = f"server.{key}"
        if known is None:
            yield case.fault(where, "no such filter", did_you_mean(key, FILTERS) or f"{name} has {', '.join(offered)}")
            continue
        if key not in offered:
            yield case.fault(where, f"{name} has no {key}", f"it has {', '.join(offered)}")
        elif known.kind == "switch" and (len(values) != 1 or truth(values[0]) is None):
            yield case.fault(where, "is a switch", "set on or off")
        elif known.kind == "numbers" and not all(value.isdecimal() and 0 < int(value) < 65536 for value in values):
            yield case.fault(where, "takes numbers", "such as 1234")
        elif known.kind == "names" and any(value in ("on", "off", "") for value in values):
            yield case.fault(
                where, "has an item that is a boolean or empty", "YAML reads no, off, yes and on as booleans: quote it"
            )
        if any("," in value for value in values):
            yield case.fault(where, "has an item with a comma, which Gluetun reads as two", "list the items one by one")
    if name == "custom" and len(case.gateway.server.get("names", ())) > 1:
        yield case.fault("server.names", "provider custom takes at most one name", "remove the others")
    if name == "protonvpn" and _switched(case, "free_only") and _switched(case, "port_forward_only"):
        yield case.fault("server.port_forward_only", "Proton's free servers forward no ports", "remove free_only")


def _switched(case: Case, key: str) -> bool:
    values = case.gateway.server.get(key, ())
    return bool(values) and truth(values[0]) is True


def _port_forwarding(case: Case) -> Iterator[Fault]:
    """8. Ports that the provider forwards to the gateway."""
    if case.provider is None or not case.switched_on("VPN_PORT_FORWARDING"):
        return
    where = "settings.VPN_PORT_FORWARDING"
    asked = case.setting("VPN_PORT_FORWARDING_PROVIDER")
    serving = provider(asked) if asked else case.provider
    capable = [name for name, entry in PROVIDERS.items() if entry.port_forwarding and entry.dropped_in is not case.release]
    if serving is None or serving.name not in capable:
        place = where if not asked else "settings.VPN_PORT_FORWARDING_PROVIDER"
        hint = f"Gluetun can ask {', '.join(capable)}"
        if case.provider.name == "custom" and not asked:
            hint += "; with custom name one in VPN_PORT_FORWARDING_PROVIDER"
        yield case.fault(place, f'"{asked or case.provider.name}" cannot forward ports', hint)
        return
    if serving.name == "private internet access" and case.credentials is not None:
        for key, fallback in (
            ("vpn_port_forwarding_username", "openvpn_user"),
            ("vpn_port_forwarding_password", "openvpn_password"),
        ):
            if not case.credential(key) and not case.credential(fallback):
                yield case.credential_fault(key, "is missing and port forwarding needs it", _where_to_put(case, key))
        if case.provider.name == "custom" and len(case.gateway.server.get("names", ())) != 1:
            yield case.fault("server.names", "port forwarding needs the server's name", "set the common name of its certificate")
    count = int(case.setting("VPN_PORT_FORWARDING_PORTS_COUNT", "1")) if _digits(case, "VPN_PORT_FORWARDING_PORTS_COUNT") else 1
    most = 5 if serving.name == "protonvpn" else 1
    if count > most:
        yield case.fault(
            "settings.VPN_PORT_FORWARDING_PORTS_COUNT", f"{serving.name} forwards at most {most}", f"set {most} or less"
        )
    listening = case.setting("VPN_PORT_FORWARDING_LISTENING_PORTS")
    if listening and len(listening.split(",")) != count:
        yield case.fault("settings.VPN_PORT_FORWARDING_LISTENING_PORTS", f"names {len(listening.split(','))} ports for {count}")
    yield from _two_owners(case, serving.name)


def _two_owners(case: Case, serving: str) -> Iterator[Fault]:
    """`vpn.forward` beside Gluetun's own redirection: it cannot parse a foreign rule in nat PREROUTING when it removes its own."""
    ports = {port.number for app in case.clients if app.vpn for name in app.vpn.forward for port in app.ports.get(name, ())}
    if not ports:
        return
    where = "settings.VPN_PORT_FORWARDING"
    redirects = case.setting("VPN_PORT_FORWARDING_LISTENING_PORT", "0") != "0" or case.setting(
        "VPN_PORT_FORWARDING_LISTENING_PORTS"
    )
    if redirects or case.gateway.overlay.scripts == "image" or (case.release is Release.NEXT and serving == "protonvpn"):
        message = f"Gluetun {case.release.value} cannot manage its own redirection beside the rules of vpn.forward"
        hint = "give up one of the two, or unset the listening port; with overlay.scripts: image they exclude each other"
        yield case.fault(where, message, hint)
    elif len(ports) > 1:
        message = f"the provider hands out one port and vpn.forward names {len(ports)}: {_listed(tuple(ports))}"
        yield case.fault(where, message, "forward one port number")


def _digits(case: Case, name: str) -> bool:
    return case.setting(name, "1").isdecimal()


def _credential_names(case: Case) -> Iterator[Fault]:
    """Credentials in two places, under names that nothing reads, or of the other protocol's kind."""
    given: Mapping[str, str] = case.credentials or {}
    if case.gateway.credentials_secret:
        return
    for key in given:
        if key not in SECRETS:
            yield Fault(f"credentials.{case.gateway.name}.{key}", "no such credential", did_you_mean(key, SECRETS))
        elif not given[key].strip():
            yield Fault(f"credentials.{case.gateway.name}.{key}", "is empty", "set it or remove it")


GROUPS: tuple[Group, ...] = (
    _provider_and_protocol,
    _keys,
    _addresses,
    _wireguard_endpoint,
    _ports,
    _openvpn_credentials,
    _filters,
    _port_forwarding,
    _credential_names,
    *NETWORKS_GROUPS,
    *SETTINGS_GROUPS,
)
