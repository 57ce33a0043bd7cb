# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The parsed topology: frozen, typed, cross-checked values. Built only by `_topology.parse`."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network  # pylint: disable=unsupported-binary-operation
Address = ipaddress.IPv4Address | ipaddress.IPv6Address  # pylint: disable=unsupported-binary-operation


@dataclass(frozen=True, order=True)
class Port:
    """One port (or range up to `end`) of one protocol. `number` 0 with `name` set: a port known by its container-port name."""

    number: int
    protocol: str = "TCP"  # TCP | UDP | SCTP
    end: int | None = None
    name: str = ""


@dataclass(frozen=True)
class Selector:
    """Pods by namespace and equality labels; `namespace` empty: every namespace, `labels` empty: every pod of it."""

    namespace: str
    labels: Mapping[str, str]


@dataclass(frozen=True)
class WireGuard:
    addresses: tuple[str, ...] = ()  # interface addresses with prefix length, as the provider prints them
    endpoint_ip: str = ""
    endpoint_port: int = 0
    public_key: str = ""


@dataclass(frozen=True)
class OpenVpn:
    endpoint_ip: str = ""
    endpoint_port: int = 0
    protocol: str = "udp"  # udp | tcp


@dataclass(frozen=True)
class Overlay:
    """The VXLAN between a gateway and its clients. `port` None: picked from the facts (`overlay_port`)."""

    vni: int
    network: ipaddress.IPv4Network
    port: int | None = None
    scripts: str = "netguard"  # netguard | image


@dataclass(frozen=True)
class Gateway:
    name: str
    namespace: str
    provider: str
    protocol: str  # wireguard | openvpn
    overlay: Overlay
    server: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    wireguard: WireGuard = field(default_factory=WireGuard)
    openvpn: OpenVpn = field(default_factory=OpenVpn)
    credentials_secret: str = ""  # name of an existing Secret; empty: values come in `credentials`
    dns: str = "vpn"  # vpn | split | cluster
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Vpn:
    gateway: str
    forward: tuple[str, ...] = ()  # names of the app's ports that the provider forwards
    start: str = "tunnel"  # tunnel | closed: what the app container waits for
    ready: str = "always"  # always | tunnel: whether readiness follows the tunnel
    secondary_networks: tuple[str, ...] = ()  # accepted by name


@dataclass(frozen=True)
class Use:
    """An edge to another app (`app` is its key `namespace/name`) on one of its named ports."""

    app: str
    port: str


@dataclass(frozen=True)
class Exposed:
    port: str
    host: str = ""


@dataclass(frozen=True)
class External:
    """A destination outside the cluster: networks (never the pod or service range) and ports; no ports: all."""

    to: tuple[Network, ...]
    ports: tuple[Port, ...] = ()


@dataclass(frozen=True)
class Operator:
    """Who manages the pods of an app (CloudNativePG and the like): its pods may reach `ports` of the app."""

    name: str  # cloudnative-pg | custom
    selector: Selector
    ports: tuple[str, ...] = ()


@dataclass(frozen=True)
class App:
    name: str
    namespace: str
    kind: str = "Deployment"  # Deployment | StatefulSet | DaemonSet | CronJob
    workload: str = ""  # name of the workload; always set by parse
    pods: Mapping[str, str] | None = None  # None: the workload's own selector, read live
    service_account: str = ""
    ports: Mapping[str, tuple[Port, ...]] = field(default_factory=dict)
    vpn: Vpn | None = None
    uses: tuple[Use, ...] = ()
    exposed: tuple[Exposed, ...] = ()
    metrics: tuple[str, ...] = ()
    internet: tuple[Port, ...] = ()
    internet_all: bool = False  # internet: true
    external: tuple[External, ...] = ()
    kube_api: bool = False
    lan: tuple[str, ...] = ()  # names of ports that answer the LAN
    webhook: tuple[Port, ...] = ()  # ports the API server calls
    peers: tuple[str, ...] = ()  # ports between pods of the same app
    icmp: tuple[Network, ...] = ()
    operator: Operator | None = None

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Platform:
    """Parts of the cluster that serve many apps; None: not declared."""

    ingress: Selector | None = None
    prometheus: Selector | None = None


@dataclass(frozen=True)
class NamespaceRule:
    """What a namespace has by default: `default` deny | open, layout and whether it is in the mesh."""

    name: str
    default: str = "deny"  # deny | open
    layout: str = "app"  # app (a policy per app and direction) | namespace (one policy)
    mesh: bool = False


@dataclass(frozen=True)
class Topology:
    instance: str
    gateways: tuple[Gateway, ...] = ()
    apps: tuple[App, ...] = ()
    platform: Platform = field(default_factory=Platform)
    namespaces: tuple[NamespaceRule, ...] = ()
    _positions: dict[str, int] = field(init=False, default_factory=dict, repr=False, compare=False)
    _users: dict[str, list[App]] = field(init=False, default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        for position, app in enumerate(self.apps):
            self._positions[app.key] = position
            for key in dict.fromkeys(use.app for use in app.uses):
                self._users.setdefault(key, []).append(app)

    def gateway(self, name: str) -> Gateway:
        """Raises KeyError when no gateway has this name."""
        return {gateway.name: gateway for gateway in self.gateways}[name]

    def app(self, key: str) -> App:
        """By `namespace/name`; raises KeyError."""
        return self.apps[self._positions[key]]

    def position(self, app: App) -> int:
        """Where the app stands in the declared list, for paths in messages."""
        return self._positions[app.key]

    def users(self, app: App) -> tuple[App, ...]:
        """The apps that use one of its ports, in the order of the list."""
        return tuple(self._users.get(app.key, ()))

    @property
    def clients(self) -> tuple[App, ...]:
        return tuple(app for app in self.apps if app.vpn is not None)

    def clients_of(self, gateway: str) -> tuple[App, ...]:
        return tuple(app for app in self.apps if app.vpn is not None and app.vpn.gateway == gateway)


Declared = Mapping[str, Any]
