# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One gateway as Gluetun will see it: what was declared, what its credentials say, and what its files override."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from .._errors import Fault
from .._facts.model import Facts
from .._topology.model import App, Gateway
from .gluetun import Provider, Release
from .gluetun_values import truth

#: Gateways' names to their credentials; None: an existing Secret whose content is not known here (rendered without it).
Credentials = Mapping[str, Mapping[str, str] | None]  # pylint: disable=unsupported-binary-operation


@dataclass(frozen=True)
class Endpoint:
    """The VPN server: address as text (a name is a fault), port 0 when the provider chooses, protocol udp or tcp."""

    host: str = ""
    port: int = 0
    protocol: str = "udp"

    @property
    def pinned(self) -> bool:
        """Whether a policy can name this one address."""
        try:
            return not ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False


def wg_conf(text: str) -> dict[str, str]:
    """The keys of a wg-quick file in lower case; the first of repeated keys. Addresses of several lines are joined."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("#")[0].partition("=")
        name = key.strip().lower()
        if equals and name == "address" and name in found:
            found[name] += "," + value.strip()
        elif equals:
            found.setdefault(name, value.strip())
    return found


def ovpn_remotes(text: str) -> list[Endpoint]:
    """The `remote` lines of an OpenVPN configuration, with the protocol and the port that its other lines give."""
    protocol, port = "udp", 1194
    remotes: list[list[str]] = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) > 1 and words[0] == "proto":
            protocol = words[1]
        elif len(words) > 1 and words[0] in ("port", "rport") and words[1].isdecimal():
            port = int(words[1])
        elif len(words) > 1 and words[0] == "remote":
            remotes.append(words[1:])
    return [
        Endpoint(
            words[0],
            int(words[1]) if len(words) > 1 and words[1].isdecimal() else port,
            "tcp" if (words[2] if len(words) > 2 else protocol).startswith("tcp") else "udp",
        )
        for words in remotes
    ]


def split_endpoint(text: str) -> tuple[str, int]:
    """(host, port) of `host:port` or `[v6]:port`; port 0 when there is none."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal():
        return text.strip("[]"), 0
    return host.strip("[]"), int(port)


@dataclass(frozen=True)
class Case:
    """`credentials` None: not known here. `provider` None: unknown to Gluetun (a fault of its own)."""

    path: str
    gateway: Gateway
    release: Release
    provider: Provider | None
    credentials: Mapping[str, str] | None
    facts: Facts | None = None
    clients: tuple[App, ...] = ()

    @property
    def wireguard(self) -> bool:
        return self.gateway.protocol == "wireguard"

    def fault(self, where: str, message: str, hint: str = "") -> Fault:
        return Fault(f"{self.path}.{where}", message, hint)

    def setting(self, name: str, default: str = "") -> str:
        return self.gateway.settings.get(name, "").strip() or default

    def switched_on(self, name: str) -> bool:
        return truth(self.setting(name)) is True

    def credential(self, key: str) -> str:
        return (self.credentials or {}).get(key, "").strip()

    def credential_fault(self, key: str, message: str, hint: str = "") -> Fault:
        """A fault of one credential, where the user keeps it. Never give it the value."""
        if self.gateway.credentials_secret:
            return self.fault("credentials.secret", f"key {key} of {self.gateway.credentials_secret} {message}", hint)
        return Fault(f"credentials.{self.gateway.name}.{key}", message, hint)

    @property
    def conf(self) -> dict[str, str]:
        """The wg-quick file among the credentials; what it says beats everything else."""
        return wg_conf(self.credential("wg0.conf"))

    @property
    def private_key(self) -> str:
        return self.conf.get("privatekey") or self.credential("wireguard_private_key")

    @property
    def preshared_key(self) -> str:
        return self.conf.get("presharedkey") or self.credential("wireguard_preshared_key")

    @property
    def public_key(self) -> str:
        return self.conf.get("publickey") or self.gateway.wireguard.public_key

    @property
    def address_text(self) -> str:
        """Addresses that come from a file of the credentials; they beat those that were declared."""
        return self.conf.get("address") or self.credential("wireguard_addresses")

    @property
    def declared_addresses(self) -> tuple[str, ...]:
        """The tunnel's IPv4 addresses that we write: the overlay is IPv4, and an IPv6 one is fatal where the node has none."""
        return tuple(item for item in self.gateway.wireguard.addresses if ":" not in item)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses of the tunnel's interface as far as they are known here."""
        if self.address_text:
            return tuple(item.strip() for item in self.address_text.split(",") if item.strip())
        rules = self.provider.wireguard if self.provider else None
        default = (rules.default_address,) if rules and rules.default_address else ()
        return self.declared_addresses or default

    @property
    def endpoint(self) -> Endpoint:
        """The one VPN server, as far as it is known here."""
        if self.wireguard:
            declared = self.gateway.wireguard
            if text := self.conf.get("endpoint", ""):
                return Endpoint(*split_endpoint(text))
            return Endpoint(declared.endpoint_ip, declared.endpoint_port)
        remotes = ovpn_remotes(self.credential("openvpn_custom_config"))
        vpn = self.gateway.openvpn
        if self.provider and self.provider.name == "custom" and remotes:
            first = remotes[0]
            return Endpoint(vpn.endpoint_ip or first.host, vpn.endpoint_port or first.port, first.protocol)
        return Endpoint(vpn.endpoint_ip, vpn.endpoint_port, vpn.protocol)

    def own_networks(self) -> tuple[ipaddress.IPv4Network, ...]:
        """The tunnel's own networks, and the provider's resolver: the first address of the /24 (such as 10.2.0.1)."""
        found: list[ipaddress.IPv4Network] = []
        for text in self.addresses:
            try:
                interface = ipaddress.ip_interface(text)
            except ValueError:
                continue
            if isinstance(interface, ipaddress.IPv4Interface):
                around = ipaddress.IPv4Network((interface.ip, 24), strict=False)
                found += [interface.network, ipaddress.IPv4Network((around.network_address + 1, 32))]
        return tuple(found)
