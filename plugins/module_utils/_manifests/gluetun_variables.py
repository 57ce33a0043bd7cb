# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Gluetun's variables: what kind of value each takes, which of them are ours to set, which are secrets, and which names are old.

Sources: the environment of the v3.41.3 image, the settings package of its source, and the variables of the release after it.
"""

from __future__ import annotations

from dataclasses import dataclass

from .gluetun import FILTERS, Release

BOTH = (Release.V341, Release.NEXT)
OLD = (Release.V341,)
NEW = (Release.NEXT,)


@dataclass(frozen=True)
class Variable:
    """`kind` names a check of `gluetun_values`; `choices` limit a value (kind choice) or the items of a list (kind names)."""

    name: str
    kind: str = "text"
    choices: tuple[str, ...] = ()
    releases: tuple[Release, ...] = BOTH


#: What `settings` of a gateway may hold.
VARIABLES: dict[str, Variable] = {
    variable.name: variable
    for variable in (
        # WireGuard
        Variable("WIREGUARD_ALLOWED_IPS", "prefixes"),
        Variable("WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL", "duration"),
        Variable("WIREGUARD_MTU", "mtu"),
        Variable("WIREGUARD_IMPLEMENTATION", "choice", ("auto", "userspace", "kernelspace")),
        Variable("WIREGUARD_GSO", "bool", releases=NEW),
        # OpenVPN
        Variable("OPENVPN_VERSION", "choice", ("2.5", "2.6")),
        Variable("OPENVPN_VERBOSITY", "verbosity"),
        Variable("OPENVPN_FLAGS"),
        Variable("OPENVPN_CIPHERS", "names"),
        Variable("OPENVPN_AUTH"),
        Variable("OPENVPN_MSSFIX", "mssfix"),
        Variable("OPENVPN_PROCESS_USER"),
        Variable("PRIVATE_INTERNET_ACCESS_OPENVPN_ENCRYPTION_PRESET", "choice", ("normal", "strong")),
        # Firewall: ours come first, these are added
        Variable("FIREWALL_OUTBOUND_SUBNETS", "prefixes"),
        Variable("FIREWALL_INPUT_PORTS", "ports"),
        Variable("FIREWALL_VPN_INPUT_PORTS", "ports"),
        Variable("FIREWALL_DEBUG", "bool", releases=OLD),
        Variable("FIREWALL_IPTABLES_LOG_LEVEL", "choice", ("debug", "info", "warn", "error"), NEW),
        # DNS: Gluetun's own server is off; DNS_ADDRESS (plain addresses in the next release) is the resolver in the tunnel
        Variable("DNS_ADDRESS", "ip", releases=OLD),
        Variable("DNS_UPSTREAM_PLAIN_ADDRESSES", "addresses", releases=NEW),
        Variable("DNS_UPSTREAM_RESOLVER_TYPE", "choice", ("dot", "doh", "plain")),
        Variable("DNS_UPSTREAM_RESOLVERS", "names"),
        Variable("DNS_UPSTREAM_IPV6", "bool"),
        Variable("DNS_CACHING", "bool"),
        Variable("DNS_UPDATE_PERIOD", "duration"),
        Variable("DNS_BLOCK_IPS", "ips"),
        Variable("DNS_BLOCK_IP_PREFIXES", "prefixes"),
        Variable("DNS_UNBLOCK_HOSTNAMES", "names"),
        Variable("DNS_REBINDING_PROTECTION_EXEMPT_HOSTNAMES", "names"),
        Variable("BLOCK_MALICIOUS", "bool"),
        Variable("BLOCK_ADS", "bool"),
        Variable("BLOCK_SURVEILLANCE", "bool", releases=OLD),
        # Health
        Variable("HEALTH_SERVER_ADDRESS", "listen"),
        Variable("HEALTH_TARGET_ADDRESSES", "names"),
        Variable("HEALTH_ICMP_TARGET_IPS", "ips"),
        Variable("HEALTH_SMALL_CHECK_TYPE", "choice", ("icmp", "dns")),
        Variable("HEALTH_RESTART_VPN", "bool"),
        # Port forwarding by the provider
        Variable("VPN_PORT_FORWARDING", "bool"),
        Variable("VPN_PORT_FORWARDING_PROVIDER"),
        Variable("VPN_PORT_FORWARDING_LISTENING_PORT", "port_or_zero", releases=OLD),
        Variable("VPN_PORT_FORWARDING_LISTENING_PORTS", "ports", releases=NEW),
        Variable("VPN_PORT_FORWARDING_PORTS_COUNT", "count", releases=NEW),
        Variable("VPN_PORT_FORWARDING_STATUS_FILE"),
        Variable("VPN_PORT_FORWARDING_UP_COMMAND"),
        Variable("VPN_PORT_FORWARDING_DOWN_COMMAND"),
        Variable("VPN_UP_COMMAND", releases=NEW),
        Variable("VPN_DOWN_COMMAND", releases=NEW),
        # Control server
        Variable("HTTP_CONTROL_SERVER_ADDRESS", "listen"),
        Variable("HTTP_CONTROL_SERVER_LOG", "bool"),
        # Proxies
        Variable("HTTPPROXY", "bool"),
        Variable("HTTPPROXY_LOG", "bool"),
        Variable("HTTPPROXY_LISTENING_ADDRESS", "listen"),
        Variable("HTTPPROXY_STEALTH", "bool"),
        Variable("SHADOWSOCKS", "bool"),
        Variable("SHADOWSOCKS_LOG", "bool"),
        Variable("SHADOWSOCKS_LISTENING_ADDRESS", "listen"),
        Variable("SHADOWSOCKS_CIPHER", "choice", ("chacha20-ietf-poly1305", "aes-128-gcm", "aes-256-gcm")),
        Variable("SOCKS5_ENABLED", "bool", releases=NEW),
        Variable("SOCKS5_LISTENING_ADDRESS", "listen", releases=NEW),
        # The rest
        Variable("PUBLICIP_ENABLED", "bool"),
        Variable("PUBLICIP_API", "names"),
        Variable("UPDATER_PERIOD", "duration"),
        Variable("UPDATER_MIN_RATIO", "ratio"),
        Variable("UPDATER_VPN_SERVICE_PROVIDERS", "names"),
        Variable("UPDATER_PROTONVPN_EMAIL"),
        Variable("UPDATER_PREFER_DIRECT_DOWNLOAD", "bool", releases=NEW),
        Variable("IPV6_CHECK_ADDRESSES", "addresses", releases=NEW),
        Variable("PMTUD_ICMP_ADDRESSES", "ips", releases=NEW),
        Variable("PMTUD_TCP_ADDRESSES", "addresses", releases=NEW),
        Variable("VERSION_INFORMATION", "bool"),
        Variable("LOG_LEVEL", "choice", ("debug", "info", "warn", "error")),
        Variable("TZ"),
        Variable("PPROF_ENABLED", "bool"),
        Variable("PPROF_BLOCK_PROFILE_RATE", "uint"),
        Variable("PPROF_MUTEX_PROFILE_RATE", "uint"),
        Variable("PPROF_HTTP_SERVER_ADDRESS", "listen"),
    )
}

#: Variables that we set, and what the user sets instead.
OURS: dict[str, str] = {
    "VPN_SERVICE_PROVIDER": "set the gateway's provider",
    "VPN_TYPE": "set the gateway's protocol",
    "VPN_INTERFACE": "the overlay's rules expect tun0: leave it out",
    "WIREGUARD_ADDRESSES": "set wireguard.addresses, or the key wireguard_addresses among the credentials",
    "WIREGUARD_ENDPOINT_IP": "set wireguard.endpoint.ip",
    "WIREGUARD_ENDPOINT_PORT": "set wireguard.endpoint.port",
    "WIREGUARD_PUBLIC_KEY": "set wireguard.public_key",
    "OPENVPN_PROTOCOL": "set openvpn.protocol",
    "OPENVPN_ENDPOINT_IP": "set openvpn.endpoint.ip",
    "OPENVPN_ENDPOINT_PORT": "set openvpn.endpoint.port",
    "OPENVPN_CUSTOM_CONFIG": "put the file's text among the credentials, under openvpn_custom_config",
    "DNS_SERVER": "it stays off: dnsmasq answers the clients on port 53 of the same pod",
    "HTTP_CONTROL_SERVER_AUTH_CONFIG_FILEPATH": "put the file's text among the credentials, under http_control_server_auth_config",
    "PUID": "it is 0: the pod drops the capability to change owners",
    "PGID": "it is 0: the pod drops the capability to change owners",
    "STORAGE_FILEPATH": "it stays off: the list of servers comes with the image",
    "STORAGE_SERVERS_ENABLED": "it stays off: the list of servers comes with the image",
    "STORAGE_SERVERS_DIRECTORY_PATH": "it stays off: the list of servers comes with the image",
    "PUBLICIP_FILE": "the pod's scripts read the file at its default place",
    **{item.variable: f"set server.{key}" for key, item in FILTERS.items()},
}

#: Never, and why.
FORBIDDEN: dict[str, str] = {
    "FIREWALL_ENABLED_DISABLING_IT_SHOOTS_YOU_IN_YOUR_FOOT": "the gateway's firewall is a layer that holds the clients closed",
    "FIREWALL": "Gluetun ignores it since v3.39 and its firewall stays on, which is what is wanted: remove it",
    "DNS_KEEP_NAMESERVER": "it keeps the cluster's resolver in a pod that should ask through the tunnel: remove it",
    "HEALTH_VPN_DURATION_INITIAL": "obsolete: remove it",
    "HEALTH_VPN_DURATION_ADDITION": "obsolete: remove it",
    "PUBLICIP_PERIOD": "obsolete: set PUBLICIP_ENABLED",
    "DOT_PRIVATE_ADDRESS": "obsolete: set DNS_BLOCK_IPS or DNS_BLOCK_IP_PREFIXES",
    "DOT_VERBOSITY": "obsolete: remove it",
    "DOT_VERBOSITY_DETAILS": "obsolete: remove it",
    "DOT_VALIDATION_LOGLEVEL": "obsolete: remove it",
    "OPENVPN_ROOT": "obsolete: set OPENVPN_PROCESS_USER",
}

#: Old names that Gluetun still reads (before the new ones, so that a leftover wins silently), to the names of today.
RENAMED: dict[str, str] = {
    "VPNSP": "VPN_SERVICE_PROVIDER",
    "USER": "OPENVPN_USER",
    "PASSWORD": "OPENVPN_PASSWORD",
    "PROTOCOL": "OPENVPN_PROTOCOL",
    "PORT": "OPENVPN_ENDPOINT_PORT",
    "OPENVPN_PORT": "OPENVPN_ENDPOINT_PORT",
    "OPENVPN_TARGET_IP": "OPENVPN_ENDPOINT_IP",
    "OPENVPN_CIPHER": "OPENVPN_CIPHERS",
    "OPENVPN_INTERFACE": "VPN_INTERFACE",
    "WIREGUARD_INTERFACE": "VPN_INTERFACE",
    "WIREGUARD_ADDRESS": "WIREGUARD_ADDRESSES",
    "VPN_ENDPOINT_IP": "WIREGUARD_ENDPOINT_IP",
    "VPN_ENDPOINT_PORT": "WIREGUARD_ENDPOINT_PORT",
    "ENCRYPTION": "PRIVATE_INTERNET_ACCESS_OPENVPN_ENCRYPTION_PRESET",
    "PIA_ENCRYPTION": "PRIVATE_INTERNET_ACCESS_OPENVPN_ENCRYPTION_PRESET",
    "COUNTRY": "SERVER_COUNTRIES",
    "REGION": "SERVER_REGIONS",
    "CITY": "SERVER_CITIES",
    "SERVER_HOSTNAME": "SERVER_HOSTNAMES",
    "SERVER_NAME": "SERVER_NAMES",
    "OWNED": "OWNED_ONLY",
    "EXTRA_SUBNETS": "FIREWALL_OUTBOUND_SUBNETS",
    "DOT": "DNS_SERVER",
    "DOT_PROVIDERS": "DNS_UPSTREAM_RESOLVERS",
    "DOT_CACHING": "DNS_CACHING",
    "DOT_IPV6": "DNS_UPSTREAM_IPV6",
    "DNS_PLAINTEXT_ADDRESS": "DNS_ADDRESS",
    "UNBLOCK": "DNS_UNBLOCK_HOSTNAMES",
    "BLOCK_NSA": "BLOCK_SURVEILLANCE",
    "HEALTH_ADDRESS_TO_PING": "HEALTH_TARGET_ADDRESSES",
    "HEALTH_TARGET_ADDRESS": "HEALTH_TARGET_ADDRESSES",
    "HEALTH_ICMP_TARGET_IP": "HEALTH_ICMP_TARGET_IPS",
    "PORT_FORWARDING": "VPN_PORT_FORWARDING",
    "PORT_FORWARDING_STATUS_FILE": "VPN_PORT_FORWARDING_STATUS_FILE",
    "PRIVATE_INTERNET_ACCESS_VPN_PORT_FORWARDING": "VPN_PORT_FORWARDING",
    "PRIVATE_INTERNET_ACCESS_VPN_PORT_FORWARDING_STATUS_FILE": "VPN_PORT_FORWARDING_STATUS_FILE",
    "IP_STATUS_FILE": "PUBLICIP_FILE",
    "UPDATER_PROTONVPN_USERNAME": "UPDATER_PROTONVPN_EMAIL",
    "UID": "PUID",
    "GID": "PGID",
    "PROXY": "HTTPPROXY",
    "TINYPROXY": "HTTPPROXY",
    "PROXY_LOG": "HTTPPROXY_LOG",
    "TINYPROXY_LOG": "HTTPPROXY_LOG",
    "PROXY_USER": "HTTPPROXY_USER",
    "TINYPROXY_USER": "HTTPPROXY_USER",
    "PROXY_PASSWORD": "HTTPPROXY_PASSWORD",
    "TINYPROXY_PASSWORD": "HTTPPROXY_PASSWORD",
    "PROXY_PORT": "HTTPPROXY_LISTENING_ADDRESS",
    "TINYPROXY_PORT": "HTTPPROXY_LISTENING_ADDRESS",
    "HTTPPROXY_PORT": "HTTPPROXY_LISTENING_ADDRESS",
    "SHADOWSOCKS_PORT": "SHADOWSOCKS_LISTENING_ADDRESS",
    "SHADOWSOCKS_METHOD": "SHADOWSOCKS_CIPHER",
}

#: Settings of the pod-gateway image: on Gluetun's container they have no effect, and pretend to one.
POD_GATEWAY = (
    "VPN_BLOCK_OTHER_TRAFFIC",
    "VPN_TRAFFIC_PORT",
    "VPN_LOCAL_CIDRS",
    "VPN_INTERFACE_MTU",
    "VXLAN_ID",
    "VXLAN_PORT",
    "VXLAN_IP_NETWORK",
    "VXLAN_GATEWAY_FIRST_DYNAMIC_IP",
    "NOT_ROUTED_TO_GATEWAY_CIDRS",
    "DNS_LOCAL_CIDRS",
    "DNS_LOCAL_SERVER",
    "GATEWAY_NAME",
    "GATEWAY_ENABLE_DNSSEC",
    "K8S_DNS_IPS",
    "IPTABLES_NFT",
    "SNAT_IP",
)

#: Credentials: key among the credentials (and of a Secret), to the variable that names the file it is read from.
#: Gluetun reads any variable X from the file in X_SECRETFILE; the client certificate and key have names of their own.
SECRETS: dict[str, str] = {
    "wireguard_private_key": "WIREGUARD_PRIVATE_KEY_SECRETFILE",
    "wireguard_preshared_key": "WIREGUARD_PRESHARED_KEY_SECRETFILE",
    "wireguard_addresses": "WIREGUARD_ADDRESSES_SECRETFILE",
    "wg0.conf": "WIREGUARD_CONF_SECRETFILE",
    "openvpn_user": "OPENVPN_USER_SECRETFILE",
    "openvpn_password": "OPENVPN_PASSWORD_SECRETFILE",
    "openvpn_cert": "OPENVPN_CLIENTCRT_SECRETFILE",
    "openvpn_key": "OPENVPN_CLIENTKEY_SECRETFILE",
    "openvpn_encrypted_key": "OPENVPN_ENCRYPTED_KEY_SECRETFILE",
    "openvpn_key_passphrase": "OPENVPN_KEY_PASSPHRASE_SECRETFILE",
    "openvpn_custom_config": "OPENVPN_CUSTOM_CONFIG",
    "vpn_port_forwarding_username": "VPN_PORT_FORWARDING_USERNAME_SECRETFILE",
    "vpn_port_forwarding_password": "VPN_PORT_FORWARDING_PASSWORD_SECRETFILE",
    "http_control_server_auth_default_role": "HTTP_CONTROL_SERVER_AUTH_DEFAULT_ROLE_SECRETFILE",
    "http_control_server_auth_config": "HTTP_CONTROL_SERVER_AUTH_CONFIG_FILEPATH",
    "httpproxy_user": "HTTPPROXY_USER_SECRETFILE",
    "httpproxy_password": "HTTPPROXY_PASSWORD_SECRETFILE",
    "shadowsocks_password": "SHADOWSOCKS_PASSWORD_SECRETFILE",
    "updater_protonvpn_password": "UPDATER_PROTONVPN_PASSWORD_SECRETFILE",
    "publicip_api_token": "PUBLICIP_API_TOKEN_SECRETFILE",
}

#: Variables whose value is a secret, to the key among the credentials that holds it.
SECRET_VARIABLES: dict[str, str] = {
    key.upper(): key
    for key in SECRETS
    if key not in ("wg0.conf", "openvpn_custom_config", "wireguard_addresses", "http_control_server_auth_config")
}


def credential_keys(names: list[str] | tuple[str, ...]) -> dict[str, str]:
    """Which key of a Secret holds which credential: {credential: key}.

    A key may be written as here, in capitals (as the variable is called) or with dashes.
    """
    spelled = {name.lower().replace("-", "_"): name for name in sorted(names)}
    return {key: spelled[key.replace("-", "_")] for key in SECRETS if key.replace("-", "_") in spelled}
