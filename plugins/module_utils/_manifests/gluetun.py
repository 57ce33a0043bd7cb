# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Gluetun's contract: its providers, what each of them demands and offers, and the releases that we know.

Facts of Gluetun v3.41.3 (the settings package of its source and its wiki), and of the release after it (`Release.NEXT`), which
renames variables and drops providers. Nothing here judges: `gluetun_faults` does.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field


class Release(enum.Enum):
    """A generation of variable names and defaults; one set of variables does not fit two of them."""

    V341 = "3.41"
    NEXT = "3.42"


#: (major, minor) of an image's version to the names it reads. A version that is not here is refused, never guessed.
RELEASES: dict[tuple[int, int], Release] = {(3, 41): Release.V341, (3, 42): Release.NEXT}

_VERSION = re.compile(r"v?(?P<major>\d+)\.(?P<minor>\d+)\.(?P<patch>\d+)(?:[-.][\w.-]+)?")


def image_version(image: str) -> tuple[int, int, int] | None:
    """(major, minor, patch) of an image such as `.../gluetun:v3.41.3@sha256:...`; None when its tag is no exact version."""
    name = image.partition("@")[0]
    tag = name.rpartition("/")[2].partition(":")[2]
    match = _VERSION.fullmatch(tag)
    return (int(match["major"]), int(match["minor"]), int(match["patch"])) if match else None


def release_of(image: str) -> Release | None:
    """The generation of an image; None when its version is unknown."""
    version = image_version(image)
    return RELEASES.get(version[:2]) if version else None


@dataclass(frozen=True)
class WireGuardRules:
    """`endpoint_ports` None: any, empty: none but `port`, the provider's own. `preshared` required, advised or optional."""

    endpoint_ports: tuple[int, ...] | None = None
    port: int = 51820
    preshared: str = "optional"
    default_address: str = ""
    endpoint_required: bool = False  # endpoint address, port and the server's public key


@dataclass(frozen=True)
class OpenVpnRules:
    """`tcp_ports`, `udp_ports` None: any, empty: none but the provider's own: `tcp_port` (0: Gluetun has none) and `udp_port`.

    `tcp` False: UDP only.
    """

    credentials: tuple[str, ...] = ("openvpn_user", "openvpn_password")  # keys that must be there
    tcp: bool = True
    tcp_port: int = 443
    udp_port: int = 1194
    tcp_ports: tuple[int, ...] | None = ()
    udp_ports: tuple[int, ...] | None = ()
    warning: str = ""


@dataclass(frozen=True)
class Provider:
    """`filters`: the keys of `server` that it has data for. `dropped_in`: the release that knows it no more."""

    name: str
    filters: tuple[str, ...]
    wireguard: WireGuardRules | None = None
    openvpn: OpenVpnRules | None = field(default_factory=OpenVpnRules)
    port_forwarding: bool = False
    dropped_in: Release | None = None


_CERTIFIED = ("openvpn_user", "openvpn_password", "openvpn_cert", "openvpn_key")
_ANY = OpenVpnRules(tcp_ports=None, udp_ports=None)

#: Every provider of Gluetun, by its exact name.
PROVIDERS: dict[str, Provider] = {
    provider.name: provider
    for provider in (
        Provider(
            "airvpn",
            ("regions", "countries", "cities", "hostnames", "names"),
            WireGuardRules((1637, 47107), 1637, preshared="required"),
            OpenVpnRules(
                ("openvpn_cert", "openvpn_key"),
                tcp_ports=(53, 80, 443, 1194, 2018, 41185),
                udp_ports=(53, 80, 443, 1194, 2018, 41185),
            ),
        ),
        Provider(
            "cyberghost",
            ("countries", "hostnames"),
            None,
            OpenVpnRules(_CERTIFIED, udp_port=443, tcp_ports=None, udp_ports=None),
        ),
        Provider("expressvpn", ("countries", "cities", "hostnames"), None, OpenVpnRules(tcp_port=0, udp_port=1195)),
        Provider(
            "fastestvpn",
            ("countries", "cities", "hostnames"),
            WireGuardRules(()),
            OpenVpnRules(tcp_port=4443, udp_port=4443),
        ),
        Provider("giganews", ("regions", "hostnames"), None, OpenVpnRules(tcp=False, udp_port=443)),
        Provider(
            "hidemyass",
            ("countries", "regions", "cities", "hostnames"),
            None,
            OpenVpnRules(
                tcp_port=8080, udp_port=553, tcp_ports=None, udp_ports=None, warning="hidemyass has dropped OpenVPN on Linux"
            ),
        ),
        Provider("ipvanish", ("countries", "cities", "hostnames"), None, OpenVpnRules(tcp=False, udp_port=443)),
        Provider(
            "ivpn",
            ("countries", "cities", "hostnames", "isps"),
            WireGuardRules((53, 2049, 2050, 30587, 41893, 48574, 58237), 58237),
            OpenVpnRules(tcp_ports=(80, 443, 1143), udp_ports=(53, 1194, 2049, 2050)),
        ),
        Provider(
            "mullvad",
            ("countries", "cities", "hostnames", "isps", "owned_only"),
            WireGuardRules(),
            None,  # switched off on 2026-01-15; Gluetun v3.41 would still try
        ),
        Provider(
            "nordvpn",
            ("countries", "regions", "cities", "hostnames", "categories", "numbers"),
            WireGuardRules((), default_address="10.5.0.2/32"),
        ),
        Provider(
            "perfect privacy",
            ("cities",),
            None,
            OpenVpnRules(tcp=False, udp_port=443, udp_ports=(44, 443, 4433)),
            port_forwarding=True,
            dropped_in=Release.NEXT,
        ),
        Provider(
            "privado",
            ("countries", "regions", "cities", "hostnames"),
            None,
            OpenVpnRules(tcp_port=0, tcp_ports=(443, 1194, 8080, 8443), udp_ports=(443, 1194, 8080, 8443)),
        ),
        Provider(
            "private internet access",
            ("regions", "hostnames", "names", "port_forward_only"),
            None,
            OpenVpnRules(
                tcp_port=501,
                udp_port=1197,
                tcp_ports=(80, 110, 443, 501, 502, 8443),
                udp_ports=(53, 1194, 1197, 1198, 8080, 9201),
            ),
            port_forwarding=True,
        ),
        Provider("privatevpn", ("countries", "cities", "hostnames"), None, _ANY, port_forwarding=True),
        Provider(
            "protonvpn",
            (
                "countries",
                "regions",
                "cities",
                "hostnames",
                "free_only",
                "stream_only",
                "secure_core_only",
                "tor_only",
                "port_forward_only",
            ),
            WireGuardRules((), default_address="10.2.0.2/32"),
            OpenVpnRules(tcp_ports=(443, 5995, 8443), udp_ports=(80, 443, 1194, 4569, 5060, 51820)),
            port_forwarding=True,
        ),
        Provider("purevpn", ("countries", "regions", "cities", "hostnames"), None, OpenVpnRules(tcp_port=80, udp_port=53)),
        Provider(
            "slickvpn",
            ("countries", "regions", "cities", "hostnames"),
            None,
            OpenVpnRules(udp_port=443, tcp_ports=(443, 8080, 8888), udp_ports=(443, 8080, 8888), warning="slickvpn uses weak TLS"),
        ),
        Provider(
            "surfshark",
            ("countries", "regions", "cities", "hostnames", "multihop_only"),
            WireGuardRules(()),
            OpenVpnRules(tcp_port=1443),
        ),
        Provider(
            "torguard",
            ("countries", "cities", "hostnames"),
            None,
            OpenVpnRules(tcp_port=1912, udp_port=1912, tcp_ports=None, udp_ports=None),
        ),
        Provider(
            "vpnsecure",
            ("regions", "cities", "hostnames", "premium_only"),
            None,
            OpenVpnRules(("openvpn_cert", "openvpn_encrypted_key", "openvpn_key_passphrase"), tcp_port=110, udp_port=1282),
        ),
        Provider(
            "vpn unlimited",
            ("countries", "cities", "hostnames", "free_only", "stream_only"),
            None,
            OpenVpnRules(_CERTIFIED, tcp_port=1197, udp_port=1197),
        ),
        Provider("vyprvpn", ("regions", "hostnames"), None, OpenVpnRules(tcp=False, udp_port=443)),
        Provider(
            "windscribe",
            ("regions", "cities", "hostnames"),
            WireGuardRules((53, 80, 123, 443, 1194, 65142), 1194, preshared="advised"),
            OpenVpnRules(
                tcp_ports=(21, 22, 80, 123, 143, 443, 587, 1194, 3306, 8080, 54783),
                udp_ports=(53, 80, 123, 443, 1194, 54783),
            ),
        ),
        Provider(
            "custom",
            ("names",),
            WireGuardRules(endpoint_required=True),
            OpenVpnRules(("openvpn_custom_config",), tcp_ports=None, udp_ports=None),
        ),
    )
}

#: Names that Gluetun itself takes for another.
ALIASES = {"pia": "private internet access"}


def provider(name: str) -> Provider | None:
    """The provider of this name (any case, an alias too), None when Gluetun has none."""
    known = name.strip().lower()
    return PROVIDERS.get(ALIASES.get(known, known))


@dataclass(frozen=True)
class Filter:
    """A key of `server`: its variable, and whether it is a switch, a number or a list of names."""

    variable: str
    kind: str = "names"  # names | numbers | switch


#: Keys of a gateway's `server`.
FILTERS: dict[str, Filter] = {
    "countries": Filter("SERVER_COUNTRIES"),
    "regions": Filter("SERVER_REGIONS"),
    "cities": Filter("SERVER_CITIES"),
    "hostnames": Filter("SERVER_HOSTNAMES"),
    "names": Filter("SERVER_NAMES"),
    "categories": Filter("SERVER_CATEGORIES"),
    "isps": Filter("ISP"),
    "numbers": Filter("SERVER_NUMBER", "numbers"),
    "owned_only": Filter("OWNED_ONLY", "switch"),
    "free_only": Filter("FREE_ONLY", "switch"),
    "premium_only": Filter("PREMIUM_ONLY", "switch"),
    "stream_only": Filter("STREAM_ONLY", "switch"),
    "multihop_only": Filter("MULTIHOP_ONLY", "switch"),
    "port_forward_only": Filter("PORT_FORWARD_ONLY", "switch"),
    "secure_core_only": Filter("SECURE_CORE_ONLY", "switch"),
    "tor_only": Filter("TOR_ONLY", "switch"),
}

#: An IVPN account number of this shape needs no password.
IVPN_ACCOUNT = re.compile(r"i-[a-zA-Z0-9]{4}-[a-zA-Z0-9]{4}-[a-zA-Z0-9]{4}")

#: Names that DNS_UPSTREAM_RESOLVERS takes (v3.41 stops at another; the next release panics once the tunnel is up).
RESOLVERS = (
    "cira family",
    "cira private",
    "cira protected",
    "cleanbrowsing adult",
    "cleanbrowsing family",
    "cleanbrowsing security",
    "cloudflare",
    "cloudflare family",
    "cloudflare security",
    "google",
    "libredns",
    "opendns",
    "quad9",
    "quad9 secured",
    "quad9 unsecured",
    "quadrant",
)

PUBLICIP_APIS = ("ipinfo", "ifconfigco", "ip2location", "cloudflare")

#: Routes of the control server and the methods of each; the legacy /v1/openvpn routes are left out on purpose.
CONTROL_ROUTES: dict[str, tuple[str, ...]] = {
    "/v1/vpn/status": ("GET", "PUT"),
    "/v1/vpn/settings": ("GET", "PUT"),
    "/v1/dns/status": ("GET", "PUT"),
    "/v1/updater/status": ("GET", "PUT"),
    "/v1/publicip/ip": ("GET",),
    "/v1/portforward": ("GET",),
    "/v1/version": ("GET",),
}
