# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The settings files that the scripts inside pods read, and what may stand in them.

`render()` gives shell text of plain assignments, mounted as `scripts.SETTINGS_FILE` beside the scripts. Everything in it is
known when manifests are built; what only the pod knows (its own and its node's addresses) comes by environment
(`scripts.POD_IPS`, `scripts.HOST_IPS`).

**Overlay addresses** need no entry: both ends derive them from the pod's address of the outer family (`derived_address`).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from .._topology.model import Address, Network, Port

#: What a tunnel carries when nothing else is said: Gluetun's own default for WireGuard in 3.40 and 3.41.
TUNNEL_MTU = 1320

_SAFE = re.compile(r"[A-Za-z0-9_.,:/@ -]*\Z")


@dataclass(frozen=True)
class Allowed:
    """One network and port beside the tunnel. `port` None: every protocol and port; protocol ICMP: that alone."""

    network: Network
    port: Port | None = None

    def render(self) -> str:
        """`network,protocol,first,last`, with `all`, 0 and 0 for what is not said."""
        if self.port is None:
            return f"{self.network},all,0,0"
        protocol = self.port.protocol.lower()
        if protocol == "icmp":
            return f"{self.network},icmp,0,0"
        if protocol not in ("tcp", "udp", "sctp") or not 0 < self.port.number <= (self.port.end or self.port.number) <= 65535:
            raise ValueError(f"no packet rule can be made of {self.port}: it needs a number and tcp, udp, sctp or icmp")
        return f"{self.network},{protocol},{self.port.number},{self.port.end or self.port.number}"


@dataclass(frozen=True)
class ClientSettings:
    """What guard, overlay and sidecar of one client need.

    `gateway` is the gateway's ClusterIP, behind which its sidecar says where its pod is; None: the sidecar looks up `gateway_name`
    (FQDN without the trailing dot) at `dns_servers`. Either answer counts only inside `pods`.
    `egress`: declared uses, by what the client's kernel sees before translation of Services (`VIP/32:service port`) and after
    it (`pod range:target port`). `ingress`: who may open connections to which pod port. `probes`: TCP ports that the node's
    own addresses (and `probe_sources`: the mesh's probe address) may open. `forwards`: ports open on the overlay.
    `routes`: networks reached by the pod's own interface (pods, services, nodes, LAN where declared): routes are no
    permission. `app_dns`: the app itself may ask `dns_servers` (mode `cluster`).
    """

    vni: int
    port: int
    network: ipaddress.IPv4Network
    pods: tuple[Network, ...]
    gateway: Address | None = None
    gateway_name: str = ""
    dns_servers: tuple[Address, ...] = ()
    app_dns: bool = False
    egress: tuple[Allowed, ...] = ()
    ingress: tuple[Allowed, ...] = ()
    probes: tuple[Port, ...] = ()
    probe_sources: tuple[Network, ...] = ()
    forwards: tuple[Port, ...] = ()
    routes: tuple[Network, ...] = ()
    tunnel_mtu: int = TUNNEL_MTU
    interface: str = ""  # empty: the one that carries the pod's address
    mesh: bool = False  # 15008/tcp from the pod ranges: HBONE between enrolled pods

    def render(self) -> str:
        """Shell text. Raises ValueError for what no script could use."""
        if self.gateway is None and not (self.gateway_name and self.dns_servers):
            raise ValueError("a client needs the gateway's ClusterIP, or its name and the DNS servers that know it")
        probes = tuple(Allowed(ipaddress.ip_network("0.0.0.0/0"), port).render().split(",", 1)[1] for port in self.probes)
        forwards = tuple(Allowed(ipaddress.ip_network("0.0.0.0/0"), port).render().split(",", 1)[1] for port in self.forwards)
        return _text(
            [
                ("VNI", str(self.vni)),
                ("PORT", str(self.port)),
                ("NETWORK", str(self.network)),
                ("INTERFACE", self.interface),
                ("TUNNEL_MTU", str(self.tunnel_mtu)),
                ("OUTER", _family(self.gateway, self.pods)),
                ("GATEWAY", str(self.gateway or "")),
                ("GATEWAY_NAME", self.gateway_name.rstrip(".")),
                ("DNS_SERVERS", _join(self.dns_servers)),
                ("APP_DNS", "yes" if self.app_dns else "no"),
                ("POD_RANGES", _join(self.pods)),
                ("ROUTES", _join(self.routes)),
                ("EGRESS", " ".join(item.render() for item in self.egress)),
                ("INGRESS", " ".join(item.render() for item in self.ingress)),
                ("PROBES", " ".join(probes)),
                ("PROBE_SOURCES", _join(self.probe_sources)),
                ("FORWARDS", " ".join(forwards)),
                ("MESH", "yes" if self.mesh else "no"),
            ]
        )


@dataclass(frozen=True)
class GatewaySettings:
    """What the gateway's init container and sidecar need.

    `upstream`: the resolver that the clients' names are asked at, through the tunnel. `dns`: `vpn`; `split` also asks
    `dns_servers` for `cluster_domain` and `reverse_zones`; `cluster` runs no resolver. `dns_servers` (the cluster's DNS) is
    needed in every mode: the gateway finds its clients by headless Services. `health`: address of Gluetun's health server
    in the pod, empty: the link alone tells whether the tunnel is up.
    """

    vni: int
    port: int
    network: ipaddress.IPv4Network
    pods: tuple[Network, ...]
    dns_servers: tuple[Address, ...]
    upstream: Address | None = None
    dns: str = "vpn"
    cluster_domain: str = "cluster.local"
    reverse_zones: tuple[str, ...] = ()
    tunnel: str = "tun0"
    tunnel_mtu: int = TUNNEL_MTU
    interface: str = ""  # empty: the one that carries the pod's address
    health: str = "127.0.0.1:9999"
    outer: str = ""  # "4" | "6"; empty: by the first pod range

    def render(self) -> str:
        """Shell text. Raises ValueError for what no script could use."""
        if self.dns != "cluster" and self.upstream is None:
            raise ValueError("a gateway that answers its clients' DNS needs the address of a resolver behind the tunnel")
        return _text(
            [
                ("VNI", str(self.vni)),
                ("PORT", str(self.port)),
                ("NETWORK", str(self.network)),
                ("INTERFACE", self.interface),
                ("TUNNEL", self.tunnel),
                ("TUNNEL_MTU", str(self.tunnel_mtu)),
                ("OUTER", self.outer or _family(None, self.pods)),
                ("POD_RANGES", _join(self.pods)),
                ("DNS", self.dns),
                ("DNS_SERVERS", _join(self.dns_servers)),
                ("UPSTREAM", str(self.upstream or "")),
                ("CLUSTER_DOMAIN", self.cluster_domain),
                ("REVERSE_ZONES", " ".join(self.reverse_zones)),
                ("HEALTH", self.health),
            ]
        )


@dataclass(frozen=True)
class Forward:
    """A port at the provider's end, and the client's port behind it; `outer` 0: the port that the provider hands out."""

    outer: int
    inner: int
    protocol: str = "TCP"


@dataclass(frozen=True)
class ClientService:
    """A headless Service whose pods are clients, by FQDN. With `forwards`, of one app with a single pod.

    The Service must publish not-ready addresses: a client's pod is not ready before its tunnel is up.
    """

    name: str
    forwards: tuple[Forward, ...] = field(default=())


def render_clients(services: Iterable[ClientService]) -> str:
    """The file `scripts.CLIENTS_FILE`, a line per Service: `fqdn [protocol:outer:inner]...`. Followed without a restart."""
    lines = []
    for service in sorted(set(services), key=lambda item: (item.name, item.forwards)):
        ports = [f"{item.protocol.lower()}:{item.outer}:{item.inner}" for item in service.forwards]
        lines.append(" ".join([service.name.rstrip("."), *ports]))
    return "".join(f"{line}\n" for line in lines)


def derived_address(pod: Address, network: ipaddress.IPv4Network) -> ipaddress.IPv4Address:
    """The overlay address of the pod with this address (of the outer family): what `lib.sh` computes on both sides.

    IPv4: the address's low bits. IPv6: of its groups, so that a pod range cut into a /64 per node stays unique.
    The network's first two and last two addresses are taken (gateway, tunnel mark, network, broadcast): who would fall on
    them has the highest host bit flipped. Unique while the pod range fits the overlay network; else the gateway serves the
    pod it knew first and names the other.
    """
    bits = 32 - network.prefixlen
    size = 1 << bits
    if isinstance(pod, ipaddress.IPv4Address):
        number = int(pod) % size
    else:
        groups = [int(group, 16) for group in pod.exploded.split(":")]
        number = (groups[7] + 257 * groups[6] + 256 * groups[3] + 65599 * groups[4] + 31 * groups[5]) % size
    if number in (0, 1, size - 2, size - 1):
        number ^= size >> 1
    return network[number]


def gateway_address(network: ipaddress.IPv4Network) -> ipaddress.IPv4Address:
    """The gateway's own address on the overlay, where its resolver listens."""
    return network[1]


def tunnel_address(network: ipaddress.IPv4Network) -> ipaddress.IPv4Address:
    """Answers on the overlay only while the tunnel is up."""
    return network[-2]


def _family(gateway: Address | None, pods: tuple[Network, ...]) -> str:
    if gateway is not None:
        return str(gateway.version)
    if not pods:
        raise ValueError("the pod ranges are not known")
    return str(pods[0].version)


def _join(values: Iterable[object]) -> str:
    return " ".join(str(value) for value in values)


def _text(pairs: list[tuple[str, str]]) -> str:
    for name, value in pairs:
        if not _SAFE.match(value):
            raise ValueError(f"{name}: {value!r} cannot stand in a settings file")
    return "".join(f"{name}='{value}'\n" for name, value in pairs)
