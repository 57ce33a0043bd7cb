# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bad input, group by group (the numbers are those of the module's groups), and good input of every provider and protocol."""

from __future__ import annotations

import base64
import dataclasses
import ipaddress
from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._facts.model import Facts
from ansible_collections.homelab.netguard.plugins.module_utils._manifests import gluetun, gluetun_faults
from ansible_collections.homelab.netguard.plugins.module_utils._manifests import gluetun_variables as variables
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.images import Images
from ansible_collections.homelab.netguard.plugins.module_utils._topology.model import (
    App,
    Gateway,
    OpenVpn,
    Overlay,
    Port,
    Topology,
    Vpn,
    WireGuard,
)

KEY = base64.b64encode(bytes(range(32))).decode()
TOKEN = base64.b64encode(bytes(48)).decode()
PEM = "-----BEGIN CERTIFICATE-----\n" + KEY + "\n-----END CERTIFICATE-----\n"
CONF = f"[Interface]\nPrivateKey = {KEY}\nAddress = 10.2.0.2/32\n[Peer]\nPublicKey = {KEY}\nEndpoint = 203.0.113.7:51820\n"
OVPN = "client\nproto udp\nremote 203.0.113.9 1194\n"
NEXT = Images(gluetun="ghcr.io/qdm12/gluetun:v3.42.0")
FACTS = Facts(
    pods=(ipaddress.ip_network("10.42.0.0/16"),),
    services=(ipaddress.ip_network("10.43.0.0/16"),),
    nodes=(ipaddress.ip_network("192.168.1.10/32"),),
    lan=(ipaddress.ip_network("192.168.1.0/24"),),
)


def gateway(provider: str = "protonvpn", protocol: str = "wireguard", **keys: Any) -> Gateway:
    wireguard = {key: keys.pop(key) for key in ("addresses", "endpoint_ip", "endpoint_port", "public_key") if key in keys}
    openvpn = {key[1:]: keys.pop(key) for key in ("_endpoint_ip", "_endpoint_port", "_protocol") if key in keys}
    overlay = Overlay(
        42, ipaddress.IPv4Network(keys.pop("network", "172.29.0.0/16")), keys.pop("port", None), keys.pop("scripts", "netguard")
    )
    return Gateway("g", "vpn", provider, protocol, overlay, wireguard=WireGuard(**wireguard), openvpn=OpenVpn(**openvpn), **keys)


def said(entry: Gateway, credentials: dict[str, str] | None = None, **options: Any) -> list[str]:
    apps = options.pop("apps", ())
    given = {"g": {"wireguard_private_key": KEY} if credentials is None else credentials}
    if entry.credentials_secret and credentials is None:
        given = {}
    return [str(fault) for fault in gluetun_faults.check(Topology("home", (entry,), apps), given, **options)]


def settings(**values: str) -> Gateway:
    return gateway(settings=values)


CUSTOM = {"endpoint_ip": "203.0.113.7", "endpoint_port": 51820, "public_key": KEY, "addresses": ("10.2.0.2/32",)}
USER = {"openvpn_user": "u", "openvpn_password": "p"}
CERTS = {"openvpn_cert": PEM, "openvpn_key": PEM}

#: provider, what WireGuard needs beside the private key: (gateway keys, credentials)
WIREGUARD_NEEDS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "airvpn": ({"addresses": ("10.9.0.2/32",)}, {"wireguard_preshared_key": KEY}),
    "fastestvpn": ({"addresses": ("10.9.0.2/32",)}, {}),
    "ivpn": ({"addresses": ("10.9.0.2/32",)}, {}),
    "mullvad": ({"addresses": ("10.9.0.2/32",)}, {}),
    "nordvpn": ({}, {}),
    "protonvpn": ({}, {}),
    "surfshark": ({"addresses": ("10.9.0.2/32",)}, {}),
    "windscribe": ({"addresses": ("10.9.0.2/32",)}, {"wireguard_preshared_key": KEY}),
    "custom": (CUSTOM, {}),
}
OPENVPN_NEEDS: dict[str, dict[str, str]] = {
    "airvpn": CERTS,
    "cyberghost": {**USER, **CERTS},
    "vpnsecure": {"openvpn_cert": PEM, "openvpn_encrypted_key": PEM, "openvpn_key_passphrase": "x"},
    "vpn unlimited": {**USER, **CERTS},
    "custom": {"openvpn_custom_config": OVPN},
}


@pytest.mark.parametrize("provider", gluetun.PROVIDERS)
def test_every_provider_is_accepted_with_what_it_needs_and_refused_without(provider: str) -> None:
    entry = gluetun.PROVIDERS[provider]
    if entry.wireguard is not None:
        keys, more = WIREGUARD_NEEDS[provider]
        assert said(gateway(provider, **keys), {"wireguard_private_key": KEY, **more}, facts=FACTS) == []
        for name in more:
            left = {"wireguard_private_key": KEY, **{key: value for key, value in more.items() if key != name}}
            advised = entry.wireguard.preshared == "advised"
            assert (said(gateway(provider, **keys), left) == []) is advised
        for name in keys:
            assert said(gateway(provider, **{key: value for key, value in keys.items() if key != name})) != []
    else:
        assert any("has no WireGuard" in text for text in said(gateway(provider)))
    credentials = OPENVPN_NEEDS.get(provider, USER)
    if entry.openvpn is None:
        assert any("has switched OpenVPN off" in text for text in said(gateway(provider, "openvpn"), credentials))
        return
    assert said(gateway(provider, "openvpn"), credentials, facts=FACTS) == []
    for name in credentials:
        left = {key: value for key, value in credentials.items() if key != name}
        assert any(text.startswith(f"credentials.g.{name}:") for text in said(gateway(provider, "openvpn"), left))


def test_the_reference_table_is_whole() -> None:
    assert len(gluetun.PROVIDERS) == 24
    assert {name for name, entry in gluetun.PROVIDERS.items() if entry.wireguard} == set(WIREGUARD_NEEDS)


@pytest.mark.parametrize("provider", gluetun.PROVIDERS)
def test_filters_of_every_provider(provider: str) -> None:
    entry = gluetun.PROVIDERS[provider]
    values = {"switch": ("on",), "numbers": ("12",), "names": ("x",)}
    for key, known in gluetun.FILTERS.items():
        if entry.openvpn is not None:
            texts = said(gateway(provider, "openvpn", server={key: values[known.kind]}), OPENVPN_NEEDS.get(provider, USER))
        else:
            keys, more = WIREGUARD_NEEDS[provider]
            texts = said(gateway(provider, server={key: values[known.kind]}, **keys), {"wireguard_private_key": KEY, **more})
        assert (texts == []) is (key in entry.filters), (key, texts)


@pytest.mark.parametrize("provider", [name for name, entry in gluetun.PROVIDERS.items() if entry.openvpn and name != "custom"])
@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_openvpn_ports_of_every_provider(provider: str, protocol: str) -> None:
    rules = gluetun.PROVIDERS[provider].openvpn
    assert rules is not None
    allowed = rules.tcp_ports if protocol == "tcp" else rules.udp_ports

    def texts(port: int) -> list[str]:
        keys = {"_endpoint_ip": "203.0.113.7", "_endpoint_port": port, "_protocol": protocol}
        return said(gateway(provider, "openvpn", **keys), OPENVPN_NEEDS.get(provider, USER))

    if protocol == "tcp" and not rules.tcp:
        assert any("UDP only" in text for text in texts(443))
        return
    own = rules.tcp_port if protocol == "tcp" else rules.udp_port
    for port in (*(allowed or ()), *((own,) if own else ())):
        assert texts(port) == []
    keys = {"_protocol": protocol}
    assert (said(gateway(provider, "openvpn", **keys), OPENVPN_NEEDS.get(provider, USER)) == []) is (own != 0)
    assert (texts(7777) == []) is (allowed is None)


Row = tuple[Gateway, dict[str, str] | None, str, dict[str, Any]]
SECRET = {"wireguard_private_key": KEY}


def row(entry: Gateway, expected: str, credentials: dict[str, str] | None = None, **options: Any) -> Row:
    return entry, credentials, expected, options


ROLE = "http_control_server_auth_default_role"
ROLES = "http_control_server_auth_config"
FORWARDING = App("t", "media", ports={"in": (Port(6881),)}, vpn=Vpn("g", forward=("in",)))

BAD: dict[str, Row] = {
    # 1 provider and protocol
    "1 unknown provider": row(
        gateway("protonvnp"), 'gateways[0].provider: Gluetun has no provider "protonvnp" (did you mean "protonvpn"?)'
    ),
    "1 no wireguard": row(gateway("privado"), "gateways[0].protocol: privado has no WireGuard"),
    "1 amneziawg": row(gateway("custom", "amneziawg"), "gateways[0].protocol: amneziawg is not supported"),
    "1 mullvad openvpn": row(gateway("mullvad", "openvpn"), "gateways[0].protocol: mullvad has switched OpenVPN off", USER),
    "1 perfect privacy": row(
        gateway("perfect privacy", "openvpn"), "gateways[0].provider: Gluetun 3.42 has dropped perfect privacy", USER, images=NEXT
    ),
    "1 unknown version": row(gateway(), "images.gluetun: the variables of", images=Images(gluetun="gluetun:v3.99.1")),
    **{
        f"1 moving tag {tag}": row(gateway(), "has no exact version", images=Images(gluetun=f"ghcr.io/qdm12/gluetun{tag}"))
        for tag in (":latest", ":v3", ":v3.41", "", "@sha256:" + 64 * "0")
    },
    # 2 keys
    "2 not base64": row(
        gateway(), "credentials.g.wireguard_private_key: privatekey is not base64", {"wireguard_private_key": "??"}
    ),
    "2 token": row(gateway("nordvpn"), "that is an access token, not a WireGuard key", {"wireguard_private_key": TOKEN}),
    "2 short": row(gateway(), "has 3 bytes, not 32", {"wireguard_private_key": "AAAA"}),
    "2 missing": row(gateway(), "credentials.g.wireguard_private_key: is missing", {}),
    "2 preshared": row(gateway(), "presharedkey has 3 bytes", {**SECRET, "wireguard_preshared_key": "AAAA"}),
    "2 public": row(gateway("custom", **{**CUSTOM, "public_key": "AAAA"}), "gateways[0].wireguard.public_key: has 3 bytes"),
    "2 in a conf": row(
        gateway(),
        "credentials.g.wg0.conf: privatekey has 3 bytes",
        {"wg0.conf": "[Interface]\nPrivateKey = AAAA\nAddress = 10.2.0.2/32"},
    ),
    # 3 addresses
    "3 empty": row(gateway("mullvad"), "gateways[0].wireguard.addresses: is missing"),
    "3 only v6": row(gateway("mullvad", addresses=("fd00::2/128",)), "gateways[0].wireguard.addresses: has IPv6 addresses alone"),
    "3 unparsable": row(
        gateway(), "credentials.g.wireguard_addresses: has an address that cannot", {**SECRET, "wireguard_addresses": "10.2"}
    ),
    "3 v6 without v6": row(
        gateway(),
        "credentials.g.wireguard_addresses: has an IPv6 address, and the cluster has no IPv6",
        {**SECRET, "wireguard_addresses": "10.2.0.2/32,fd00::2/128"},
        facts=FACTS,
    ),
    # 4 what the provider needs
    "4 airvpn": row(
        gateway("airvpn", addresses=("10.9.0.2/32",)), "credentials.g.wireguard_preshared_key: is missing and airvpn demands it"
    ),
    "4 no endpoint": row(
        gateway("custom", addresses=("10.2.0.2/32",), public_key=KEY), "gateways[0].wireguard.endpoint.ip: the server's"
    ),
    "4 no port": row(gateway("custom", **{**CUSTOM, "endpoint_port": 0}), "gateways[0].wireguard.endpoint.port: the server's port"),
    "4 no public key": row(gateway("custom", **{**CUSTOM, "public_key": ""}), "gateways[0].wireguard.public_key: the server's"),
    "4 hostname": row(gateway("custom", **{**CUSTOM, "endpoint_ip": "vpn.example"}), "vpn.example is no server's address"),
    "4 unspecified": row(gateway("custom", **{**CUSTOM, "endpoint_ip": "0.0.0.0"}), "0.0.0.0 is no server's address"),
    "4 hostname in a conf": row(
        gateway("custom"), "has a name for endpoint", {"wg0.conf": CONF.replace("203.0.113.7", "vpn.example")}
    ),
    "4 unspecified in a conf": row(gateway("custom"), "has the unspecified", {"wg0.conf": CONF.replace("203.0.113.7", "0.0.0.0")}),
    "4 no port in a conf": row(gateway("custom"), "an endpoint without a port", {"wg0.conf": CONF.replace(":51820", "")}),
    # 5 ports
    **{
        f"5 {name} takes none": row(
            gateway(name, endpoint_ip="203.0.113.7", endpoint_port=51821, addresses=("10.9.0.2/32",)),
            f"gateways[0].wireguard.endpoint.port: {name} allows no endpoint port",
        )
        for name in ("fastestvpn", "nordvpn", "protonvpn", "surfshark")
    },
    **{
        f"5 {name} has others": row(
            gateway(name, endpoint_ip="203.0.113.7", endpoint_port=51820, addresses=("10.9.0.2/32",)),
            f"51820 is not a WireGuard port of {name}",
            {**SECRET, "wireguard_preshared_key": KEY},
        )
        for name in ("airvpn", "ivpn", "windscribe")
    },
    "5 in a conf": row(gateway(), "credentials.g.wg0.conf: protonvpn allows no endpoint port", {"wg0.conf": CONF}),
    # 6 OpenVPN
    "6 no user": row(gateway("privado", "openvpn"), "credentials.g.openvpn_user: is missing", {"openvpn_password": "p"}),
    "6 ivpn without password": row(
        gateway("ivpn", "openvpn"), "credentials.g.openvpn_password: is missing", {"openvpn_user": "ivpn12"}
    ),
    "6 not pem": row(
        gateway("airvpn", "openvpn"), "credentials.g.openvpn_cert: is neither PEM nor", {**CERTS, "openvpn_cert": "?"}
    ),
    "6 no passphrase": row(
        gateway("privado", "openvpn"), "openvpn_key_passphrase: is missing", {**USER, "openvpn_encrypted_key": PEM}
    ),
    "6 no config": row(gateway("custom", "openvpn"), "credentials.g.openvpn_custom_config: is missing", {}),
    "6 no remote": row(gateway("custom", "openvpn"), "has no line remote", {"openvpn_custom_config": "client\n"}),
    "6 remote is a name": row(
        gateway("custom", "openvpn"), "has a remote that is not", {"openvpn_custom_config": "remote vpn.example"}
    ),
    "6 version": row(settings(OPENVPN_VERSION="2.4"), 'settings.OPENVPN_VERSION: "2.4" is not one of 2.5, 2.6'),
    "6 verbosity": row(settings(OPENVPN_VERBOSITY="7"), "settings.OPENVPN_VERBOSITY: 7 is not within 0 and 6"),
    "6 mssfix": row(settings(OPENVPN_MSSFIX="10001"), "settings.OPENVPN_MSSFIX: 10001 is not within 0 and 10000"),
    "6 preset": row(
        gateway("pia", "openvpn", settings={"PRIVATE_INTERNET_ACCESS_OPENVPN_ENCRYPTION_PRESET": "weak"}),
        "not one of normal, strong",
        USER,
    ),
    "6 preset elsewhere": row(
        gateway("privado", "openvpn", settings={"PRIVATE_INTERNET_ACCESS_OPENVPN_ENCRYPTION_PRESET": "strong"}),
        "has no such preset",
        USER,
    ),
    # 7 filters
    "7 not offered": row(gateway(server={"names": ("x",)}), "gateways[0].server.names: protonvpn has no names"),
    "7 unknown": row(
        gateway(server={"country": ("NL",)}), 'gateways[0].server.country: no such filter (did you mean "countries"?)'
    ),
    "7 switch": row(gateway(server={"free_only": ("perhaps",)}), "gateways[0].server.free_only: is a switch"),
    "7 country no": row(gateway(server={"countries": ("off",)}), "YAML reads no, off, yes and on as booleans: quote it"),
    "7 number": row(gateway("nordvpn", server={"numbers": ("nl1",)}), "gateways[0].server.numbers: takes numbers"),
    "7 comma": row(gateway(server={"countries": ("A, B",)}), "has an item with a comma"),
    "7 wrong switch": row(
        gateway("mullvad", addresses=("10.9.0.2/32",), server={"free_only": ("on",)}), "mullvad has no free_only"
    ),
    "7 free and forwarding": row(
        gateway(server={"free_only": ("on",), "port_forward_only": ("on",)}), "free servers forward no ports"
    ),
    "7 two names": row(gateway("custom", server={"names": ("a", "b")}, **CUSTOM), "at most one name"),
    "7 custom filter": row(gateway("custom", server={"countries": ("a",)}, **CUSTOM), "custom has no countries"),
    # 8 port forwarding
    "8 unable": row(
        gateway("mullvad", addresses=("10.9.0.2/32",), settings={"VPN_PORT_FORWARDING": "on"}),
        'VPN_PORT_FORWARDING: "mullvad" cannot',
    ),
    "8 custom unnamed": row(
        gateway("custom", settings={"VPN_PORT_FORWARDING": "on"}, **CUSTOM), "name one in VPN_PORT_FORWARDING_PROVIDER"
    ),
    "8 pia without user": row(
        gateway("pia", "openvpn", settings={"VPN_PORT_FORWARDING": "on"}),
        "vpn_port_forwarding_username: is missing",
        {"openvpn_password": "p"},
    ),
    "8 pia by custom": row(
        gateway(
            "custom", settings={"VPN_PORT_FORWARDING": "on", "VPN_PORT_FORWARDING_PROVIDER": "private internet access"}, **CUSTOM
        ),
        "gateways[0].server.names: port forwarding needs the server's name",
        {**SECRET, "vpn_port_forwarding_username": "u", "vpn_port_forwarding_password": "p"},
    ),
    "8 count": row(
        gateway("privatevpn", "openvpn", settings={"VPN_PORT_FORWARDING": "on", "VPN_PORT_FORWARDING_PORTS_COUNT": "2"}),
        "privatevpn forwards at most 1",
        USER,
        images=NEXT,
    ),
    "8 proton's count": row(
        gateway(settings={"VPN_PORT_FORWARDING": "on", "VPN_PORT_FORWARDING_PORTS_COUNT": "6"}),
        "6 is not within 1 and 5",
        images=NEXT,
    ),
    "8 listening": row(
        gateway(
            settings={
                "VPN_PORT_FORWARDING": "on",
                "VPN_PORT_FORWARDING_PORTS_COUNT": "2",
                "VPN_PORT_FORWARDING_LISTENING_PORTS": "1,2,3",
            }
        ),
        "names 3 ports for 2",
        images=NEXT,
    ),
    "8 beside vpn.forward": row(
        gateway(settings={"VPN_PORT_FORWARDING": "on", "VPN_PORT_FORWARDING_LISTENING_PORT": "6881"}),
        "cannot manage its own redirection",
        apps=(FORWARDING,),
    ),
    "8 beside nat.conf": row(
        gateway(scripts="image", settings={"VPN_PORT_FORWARDING": "on"}), "cannot manage its own redirection", apps=(FORWARDING,)
    ),
    # 9 subnets and ports
    **{
        f"9 {value}": row(settings(FIREWALL_OUTBOUND_SUBNETS=value), expected, facts=FACTS)
        for value, expected in {
            "0.0.0.0/0": "is every address",
            "0.0.0.0/1": "is every address",
            "::/0": "is every address",
            "10.42.0.5/16": "has host bits set, which the kernel refuses: write 10.42.0.0/16",
            "10.42.0.0": "has no prefix length",
            "192.168.1.0/24, 192.168.2.0/24": "has blanks around its commas",
            "10.0.0.0/8": "holds the tunnels of most providers",
            "10.2.0.0/16": "overlaps 10.2.0.1/32 of the tunnel",
            "172.16.0.0/12": "overlaps the overlay 172.29.0.0/16",
            "203.0.0.0/8": "is public",
            "128.0.0.0/1": "is public",
            "2a00::/16": "is public",
            "home": "has no prefix length",
        }.items()
    },
    "9 port 0": row(settings(FIREWALL_INPUT_PORTS="0"), "settings.FIREWALL_INPUT_PORTS: 0 is not within 1 and 65535"),
    "9 no port": row(settings(FIREWALL_VPN_INPUT_PORTS="http"), '"http" is no number'),
    "9 spaced ports": row(settings(FIREWALL_INPUT_PORTS="80, 81"), "blanks around its commas"),
    **{
        f"9 overlay in {what}": row(gateway(network=value), expected, facts=FACTS)
        for what, value, expected in (
            ("pods", "10.42.0.0/20", "overlaps the pod range 10.42.0.0/16"),
            ("services", "10.40.0.0/14", "overlaps the service range"),
            ("lan", "192.168.0.0/16", "overlaps the LAN"),
            ("tunnel", "10.2.0.0/16", "overlaps 10.2.0.2/32 of the tunnel"),
        )
    },
    "9 a node in the tunnel": row(
        gateway(),
        "gateways[0].wireguard.addresses: 10.2.0.1/32 of the tunnel is inside the nodes 10.2.0.1/32",
        facts=dataclasses.replace(FACTS, nodes=(ipaddress.ip_network("10.2.0.1/32"),)),
    ),
    "9 tunnel in pods": row(gateway("mullvad", addresses=("10.42.7.7/32",)), "of the tunnel is inside the pod range", facts=FACTS),
    # 10 DNS
    "10 type": row(settings(DNS_UPSTREAM_RESOLVER_TYPE="udp"), "not one of dot, doh, plain"),
    "10 name": row(settings(DNS_UPSTREAM_RESOLVERS="cloudfare"), 'no resolver "cloudfare" (did you mean "cloudflare"?)'),
    "10 name in next": row(settings(DNS_UPSTREAM_RESOLVERS="nobody"), 'no resolver "nobody"', images=NEXT),
    "10 period": row(settings(DNS_UPDATE_PERIOD="29s"), "is shorter than 30s"),
    "10 period without unit": row(settings(DNS_UPDATE_PERIOD="60"), '"60" is no duration: write a unit'),
    "10 server on": row(settings(DNS_SERVER="on"), "dnsmasq answers the clients on port 53 of the same pod"),
    "10 keep": row(settings(DNS_KEEP_NAMESERVER="on"), "settings.DNS_KEEP_NAMESERVER: may not be set"),
    "10 not plain": row(settings(DNS_UPSTREAM_RESOLVER_TYPE="doh"), "must be plain", images=NEXT),
    "10 plain port": row(
        settings(DNS_UPSTREAM_PLAIN_ADDRESSES="10.2.0.1:5353"), "is not an IPv4 address with port 53", images=NEXT
    ),
    "10 plain v6": row(settings(DNS_UPSTREAM_PLAIN_ADDRESSES="[fd00::1]:53"), "is not an IPv4 address with port 53", images=NEXT),
    "10 plain without port": row(settings(DNS_UPSTREAM_PLAIN_ADDRESSES="10.2.0.1"), "is not address:port", images=NEXT),
    "10 old name in next": row(
        settings(DNS_ADDRESS="10.2.0.1"), "does not read it (set DNS_UPSTREAM_PLAIN_ADDRESSES)", images=NEXT
    ),
    "10 new name in old": row(settings(DNS_UPSTREAM_PLAIN_ADDRESSES="10.2.0.1:53"), "does not read it (set DNS_ADDRESS)"),
    "10 cluster's resolver": row(settings(DNS_ADDRESS="10.43.0.10"), "10.43.0.10 is inside the cluster", facts=FACTS),
    "10 loopback": row(settings(DNS_ADDRESS="127.0.0.1"), "is no resolver in the tunnel"),
    # 11 health
    "11 type": row(settings(HEALTH_SMALL_CHECK_TYPE="tcp"), "not one of icmp, dns"),
    "11 mixed": row(settings(HEALTH_ICMP_TARGET_IPS="0.0.0.0,1.1.1.1"), "has 0.0.0.0 among others"),
    "11 wide": row(settings(HEALTH_SERVER_ADDRESS=":9999"), "add 9999 to FIREWALL_INPUT_PORTS"),
    "11 narrow": row(settings(FIREWALL_INPUT_PORTS="9999"), "opens 9999, but the health server listens on 127.0.0.1:9999"),
    # 12 the tunnel
    "12 interface": row(settings(VPN_INTERFACE="wg0"), "the overlay's rules expect tun0"),
    "12 implementation": row(settings(WIREGUARD_IMPLEMENTATION="kernel"), "not one of auto, userspace, kernelspace"),
    "12 keepalive": row(settings(WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL="-5s"), "is negative"),
    "12 keepalive unit": row(settings(WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL="25"), '"25" is no duration'),
    "12 mtu": row(settings(WIREGUARD_MTU="1500"), "1500 is not within 576 and 1440"),
    "12 mtu over v6": row(
        gateway("custom", settings={"WIREGUARD_MTU": "1440"}, **{**CUSTOM, "endpoint_ip": "2001:db8::7"}), "above the path's 1420"
    ),
    "12 allowed": row(settings(WIREGUARD_ALLOWED_IPS="0.0.0.0/1,128.0.0.0/1"), "does not cover 0.0.0.0/0"),
    # 13 control server
    "13 not json": row(gateway(), f"credentials.g.{ROLE}: is not a JSON object", {**SECRET, ROLE: "{"}),
    "13 unknown key": row(
        gateway(), 'has the unknown field "key" (did you mean "apikey"?)', {**SECRET, ROLE: '{"auth": "apikey", "key": "x"}'}
    ),
    "13 basic": row(gateway(), "with auth basic and no password", {**SECRET, ROLE: '{"auth": "basic", "username": "u"}'}),
    "13 apikey": row(gateway(), "with auth apikey and no apikey", {**SECRET, ROLE: '{"auth": "apikey"}'}),
    "13 none": row(gateway(), "has a role with auth none", {**SECRET, ROLE: '{"auth": "none"}'}),
    "13 public": row(settings(HTTP_CONTROL_SERVER_ADDRESS=":8000"), "lets every client of the overlay stop the VPN"),
    "13 no port": row(settings(HTTP_CONTROL_SERVER_ADDRESS="127.0.0.1"), "is not [address]:port"),
    "13 no roles": row(gateway(), "holds no [[roles]]", {**SECRET, ROLES: "roles = 1"}),
    "13 route": row(
        gateway(),
        'unknown route "/v1/vpn/state"',
        {**SECRET, ROLES: '[[roles]]\nroutes = ["GET /v1/vpn/state"]\nauth = "apikey"\napikey = "k"'},
    ),
    "13 method": row(
        gateway(),
        "has method PUT for /v1/publicip/ip",
        {**SECRET, ROLES: "[[roles]]\nroutes = ['PUT /v1/publicip/ip']\nauth='none'"},
    ),
    "13 settings": row(
        gateway(),
        "it contains the keys",
        {**SECRET, ROLES: '[[roles]]\nroutes = [\n  "GET /v1/vpn/settings",\n]\nauth = "apikey"\napikey = "k"'},
    ),
    # 14 the rest
    "14 updater": row(settings(UPDATER_PERIOD="59s"), "is shorter than 1m"),
    "14 ratio 0": row(settings(UPDATER_MIN_RATIO="0"), "is not above 0 and at most 1"),
    "14 ratio 2": row(settings(UPDATER_MIN_RATIO="2"), "is not above 0 and at most 1"),
    "14 email": row(settings(UPDATER_PROTONVPN_EMAIL="a@b.example"), "updater_protonvpn_password: is missing"),
    "14 password": row(gateway(), "settings.UPDATER_PROTONVPN_EMAIL: is missing", {**SECRET, "updater_protonvpn_password": "p"}),
    "14 publicip": row(settings(PUBLICIP_API="ipinfo,nobody"), 'no service "nobody"'),
    "14 level": row(settings(LOG_LEVEL="verbose"), "not one of debug, info, warn, error"),
    "14 boolean": row(settings(HTTPPROXY="1"), "is no boolean that Gluetun knows: write on or off"),
    "14 firewall": row(settings(FIREWALL="off"), "settings.FIREWALL: may not be set"),
    "14 dot": row(settings(DOT="off"), "settings.DOT: is an old name"),
    "14 unblock": row(settings(UNBLOCK="a.example"), "(set DNS_UNBLOCK_HOSTNAMES)"),
    **{
        f"14 old name {name}": row(
            settings(**{name: "x"}), f"gateways[0].settings.{name}: is an old name, which Gluetun would prefer to the one of today"
        )
        for name in variables.RENAMED
        if name not in ("DOT", "UNBLOCK", "PASSWORD")
    },
    **{f"14 gone: {name}": row(settings(**{name: "off"}), f"settings.{name}: may not be set") for name in variables.FORBIDDEN},
    **{
        f"14 set by us: {name}": row(settings(**{name: "x"}), f"settings.{name}: is set by this collection")
        for name in variables.OURS
    },
    "14 old secret": row(settings(PASSWORD="x"), "(set credentials openvpn_password)"),
    "14 firewall off": row(settings(FIREWALL_ENABLED_DISABLING_IT_SHOOTS_YOU_IN_YOUR_FOOT="off"), "may not be set"),
    "14 pod-gateway's": row(settings(VPN_BLOCK_OTHER_TRAFFIC="true"), "of the pod-gateway image"),
    "14 secret": row(settings(WIREGUARD_PRIVATE_KEY=KEY), "is a secret, and settings are not"),
    "14 file": row(settings(OPENVPN_USER_SECRETFILE="/x"), "names a file"),
    "14 typing error": row(settings(WIREGUARD_MUT="1300"), '(did you mean "WIREGUARD_MTU"?)'),
    # where credentials are kept
    "name of a gateway": row(gateway(), 'credentials.h: no gateway "h" (known: g)'),
    "name of a credential": row(gateway(), "credentials.g.private_key: no such credential", {**SECRET, "private_key": "x"}),
    "empty credential": row(gateway(), "credentials.g.openvpn_user: is empty", {**SECRET, "openvpn_user": " "}),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_its_path(name: str) -> None:
    entry, credentials, expected, options = BAD[name]
    if name == "name of a gateway":
        topology = Topology("home", (entry,))
        texts = [str(fault) for fault in gluetun_faults.check(topology, {"g": SECRET, "h": SECRET})]
    else:
        texts = said(entry, credentials, **options)
    assert any(expected in text for text in texts), texts
    assert not any(KEY in text or TOKEN in text for text in texts), "a secret stands in a message"


#: Every contact of Gluetun with the outside, led to one place or switched off.
LAB = {
    "HEALTH_TARGET_ADDRESSES": "203.0.113.5:8080",
    "HEALTH_ICMP_TARGET_IPS": "203.0.113.5",
    "HEALTH_RESTART_VPN": "off",
    "PUBLICIP_API": "echoip#http://203.0.113.5:8080",
    "VERSION_INFORMATION": "off",
    "UPDATER_PERIOD": "0",
    "WIREGUARD_MTU": "1320",
    "BLOCK_MALICIOUS": "off",
    "DNS_UPDATE_PERIOD": "0",
}

GOOD: dict[str, Row] = {
    "a pinned server at the provider's own port": row(gateway(endpoint_ip="203.0.113.7", endpoint_port=51820), ""),
    "wg0.conf of a custom server": row(gateway("custom"), "", {"wg0.conf": CONF}, facts=FACTS),
    "ivpn by account number": row(gateway("ivpn", "openvpn"), "", {"openvpn_user": "i-aaaa-bbbb-cccc"}),
    "pia by its short name": row(gateway("PIA", "openvpn", settings={"VPN_PORT_FORWARDING": "yes"}), "", USER),
    "proton forwards five": row(
        gateway(settings={"VPN_PORT_FORWARDING": "on", "VPN_PORT_FORWARDING_PORTS_COUNT": "5"}), "", images=NEXT
    ),
    "a LAN beside the tunnel": row(settings(FIREWALL_OUTBOUND_SUBNETS="192.168.1.0/24,100.64.0.0/10"), "", facts=FACTS),
    "every boolean word": row(settings(HTTPPROXY="Enabled", SHADOWSOCKS="no", BLOCK_ADS="true"), ""),
    "zero durations": row(settings(DNS_UPDATE_PERIOD="0", UPDATER_PERIOD="0"), ""),
    "wide health with its port": row(settings(HEALTH_SERVER_ADDRESS="0.0.0.0:9998", FIREWALL_INPUT_PORTS="9998"), ""),
    "guarded control server": row(
        settings(HTTP_CONTROL_SERVER_ADDRESS=":8000"), "", {**SECRET, ROLE: '{"auth": "apikey", "apikey": "k"}'}
    ),
    "a role file": row(
        settings(HTTP_CONTROL_SERVER_ADDRESS=":8000"),
        "",
        {**SECRET, ROLES: '# who\n[[roles]]\nname = "exporter"\nroutes = ["GET /v1/publicip/ip"]\nauth = "apikey"\napikey = "k"\n'},
    ),
    "own public address service": row(settings(PUBLICIP_API="echoip#http://203.0.113.5:8080"), ""),
    "lone unspecified target": row(settings(HEALTH_ICMP_TARGET_IPS="0.0.0.0"), ""),
    "a Secret nobody has read": row(gateway("airvpn", credentials_secret="s"), ""),
    "declared IPv6 is left out": row(gateway("mullvad", addresses=("10.9.0.2/32", "fd00::2/128")), "", facts=FACTS),
    "vpn.forward alone": row(gateway(), "", apps=(FORWARDING,)),
    **{
        f"a lab in which nothing goes out, {release}": row(settings(**{**LAB, **more}), "", images=images)
        for release, images, more in (
            ("3.41", Images(), {"DNS_ADDRESS": "203.0.113.53"}),
            ("3.42", NEXT, {"DNS_UPSTREAM_PLAIN_ADDRESSES": "203.0.113.53:53", "IPV6_CHECK_ADDRESSES": "203.0.113.5:53"}),
        )
    },
}


@pytest.mark.parametrize("name", GOOD)
def test_good_input_is_accepted(name: str) -> None:
    entry, credentials, _expected, options = GOOD[name]
    assert said(entry, credentials, **options) == []


def test_all_faults_are_reported_at_once() -> None:
    entry = dataclasses.replace(gateway("custom"), settings={"DOT": "on", "UPDATER_PERIOD": "5"}, server={"regions": ("x",)})
    assert len(said(entry, {})) == 8
    topology = Topology("home", (entry, dataclasses.replace(entry, name="second")))
    assert {str(fault)[:11] for fault in gluetun_faults.check(topology, {}) if fault.path.startswith("gateways")} == {
        "gateways[0]",
        "gateways[1]",
    }


@pytest.mark.parametrize("name", GOOD)
def test_what_is_good_with_its_credentials_is_no_fault_of_the_list(name: str) -> None:
    assert gluetun_faults.declared(Topology("home", (GOOD[name][0],))) == []


@pytest.mark.parametrize(
    ("entry", "path"),
    [
        (gateway("protonvpm"), "gateways[0].provider"),
        (gateway("custom", **{**CUSTOM, "endpoint_ip": "vpn.example.test"}), "gateways[0].wireguard.endpoint.ip"),
        (gateway("custom", **{**CUSTOM, "public_key": TOKEN}), "gateways[0].wireguard.public_key"),
        (settings(VPN_SERVICE_PROVIDER="mullvad"), "gateways[0].settings.VPN_SERVICE_PROVIDER"),
    ],
)
def test_faults_of_the_list_need_no_credentials(entry: Gateway, path: str) -> None:
    assert path in [fault.path for fault in gluetun_faults.declared(Topology("home", (entry,)))]


@pytest.mark.parametrize(
    ("entry", "credentials", "expected"),
    [
        (gateway("windscribe", addresses=("10.9.0.2/32",)), SECRET, "preshared key in practice"),
        (gateway("hidemyass", "openvpn"), USER, "has dropped OpenVPN"),
        (gateway("slickvpn", "openvpn"), USER, "weak TLS"),
        (settings(VPN_PORT_FORWARDING="on"), SECRET, "whether the provider hands out a port"),
        (gateway(server={"countries": ("NL",), "cities": ("x",)}), SECRET, "no server matches"),
        (gateway("custom", "openvpn"), {"openvpn_custom_config": OVPN + "remote 203.0.113.10\n"}, "only the first is used"),
        (gateway("mullvad", addresses=("10.9.0.2/32", "fd00::2/128")), SECRET, "left out"),
        (gateway(dns="cluster"), SECRET, "leave outside the VPN"),
    ],
)
def test_advice(entry: Gateway, credentials: dict[str, str], expected: str) -> None:
    texts = gluetun_faults.advise(Topology("home", (entry,)), {"g": credentials})
    assert any(expected in text for text in texts), texts
    assert gluetun_faults.advise(Topology("home", (gateway(),)), {"g": SECRET}) == []
