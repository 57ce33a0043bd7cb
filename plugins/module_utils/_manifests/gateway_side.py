# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The overlay's server side of a gateway's pod: which files it mounts and what its two containers run."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from .._errors import FaultsError
from .._facts.model import Facts
from .._overlay import scripts
from .._overlay.settings import ClientService, Forward, GatewaySettings, render_clients
from .._topology.model import Address, App, Topology
from . import names, overlay_image
from .addresses import reverse_zones
from .gateway_policy import client_namespaces, vpn_port
from .gluetun_case import Case
from .gluetun_env import TUNNEL, resolver, tunnel_mtu
from .model import Live, Manifest
from .workloads import pod_selector


@dataclass(frozen=True)
class Side:
    """`files` are read once, when the pod starts; `followed` are read again whenever they change (no restart).

    `post_rules`: the text of Gluetun's /iptables/post-rules.txt, empty: none. `asks_cluster_dns`: whether the pod may reach the
    cluster's DNS. `ready`: a command that exits 0 while the overlay works, empty: none.
    """

    files: Mapping[str, str]
    init: tuple[str, ...]
    sidecar: tuple[str, ...]
    mount: str = scripts.MOUNT
    followed: Mapping[str, str] = field(default_factory=dict)
    post_rules: str = ""
    capabilities: tuple[str, ...] = scripts.GATEWAY_CAPABILITIES
    drop_all: bool = True
    asks_cluster_dns: bool = True
    ready: tuple[str, ...] = ()
    env: tuple[Manifest, ...] = ()


def side(topology: Topology, facts: Facts, live: Live, case: Case) -> Side:
    return _image(topology, facts, case) if case.gateway.overlay.scripts == "image" else _netguard(topology, facts, live, case)


def _netguard(topology: Topology, facts: Facts, live: Live, case: Case) -> Side:
    """Our own scripts. They keep every rule that is theirs, whatever Gluetun does to its tables: no post-rules."""
    gateway = case.gateway
    settings = GatewaySettings(
        vni=gateway.overlay.vni,
        port=names.overlay_port(gateway, facts),
        network=gateway.overlay.network,
        pods=facts.pods,
        dns_servers=dns_servers(facts),
        upstream=ipaddress.ip_address(resolver(case)),
        dns=gateway.dns,
        cluster_domain=facts.dns.cluster_domain,
        reverse_zones=reverse_zones((*facts.pods, *facts.services)) if gateway.dns == "split" else (),
        tunnel=TUNNEL,
        tunnel_mtu=tunnel_mtu(case),
        health=health(case),
    )
    pod_ips = {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIPs"}}
    return Side(
        files={**scripts.GATEWAY_SCRIPTS, scripts.SETTINGS_FILE: settings.render()},
        init=scripts.GATEWAY_INIT,
        sidecar=scripts.GATEWAY_SIDECAR,
        # by their names the clients are found, in every DNS mode
        asks_cluster_dns=bool(case.clients) or gateway.dns == "split",
        followed={scripts.CLIENTS_FILE: render_clients(client_services(topology, facts, live, case))},
        ready=scripts.GATEWAY_READY,
        env=({"name": scripts.POD_IPS, "valueFrom": pod_ips},),
    )


def dns_servers(facts: Facts) -> tuple[Address, ...]:
    return tuple(ipaddress.ip_address(item) for item in facts.dns.service_ips)


def health(case: Case) -> str:
    """Where Gluetun's health server answers inside the pod."""
    return f"127.0.0.1:{case.setting('HEALTH_SERVER_ADDRESS', '127.0.0.1:9999').rpartition(':')[2]}"


def fqdn(facts: Facts, service: str, namespace: str) -> str:
    return f"{service}.{namespace}.svc.{facts.dns.cluster_domain}"


def client_services(topology: Topology, facts: Facts, live: Live, case: Case) -> tuple[ClientService, ...]:
    """The headless Services by which the gateway learns its clients: one per namespace, one more per app with forwards."""
    gateway = case.gateway
    found = [
        ClientService(fqdn(facts, names.client_service(gateway), namespace))
        for namespace in client_namespaces(topology, gateway.name)
    ]
    for app, _labels in forwarding(topology, live, case):
        found.append(ClientService(fqdn(facts, forward_service(app), app.namespace), forwards_of(app, case)))
    return tuple(found)


def forward_service(app: App) -> str:
    """The headless Service of one app with `vpn.forward`: the pod behind it gets the forwarded ports."""
    return names.short(f"netguard-forward-{app.name}")


def forwarding(topology: Topology, live: Live, case: Case) -> list[tuple[App, Mapping[str, str]]]:
    """Apps with forwards and the labels of their pods; one whose workload does not exist yet is left out until it does."""
    found: list[tuple[App, Mapping[str, str]]] = []
    for app in case.clients:
        if app.vpn and app.vpn.forward:
            try:
                labels = pod_selector(app, live).labels
            except FaultsError:
                continue
            if labels:
                found.append((app, labels))
    return found


def forwards_of(app: App, case: Case) -> tuple[Forward, ...]:
    """Each port by its own number; where the provider hands one out, that one leads to the app's port."""
    dynamic = case.switched_on("VPN_PORT_FORWARDING")
    return tuple(
        Forward(0 if dynamic else number, number, port.protocol)
        for port in overlay_image.forwarded(app)
        for number in range(port.number, (port.end or port.number) + 1)
    )


def _image(topology: Topology, facts: Facts, case: Case) -> Side:
    """The pod-gateway image's own scripts, with every setting and every rule ours."""
    gateway = case.gateway
    port = vpn_port(case)
    return Side(
        files={
            "settings.sh": overlay_image.settings(topology, facts, gateway, case, port.number if port else 51820),
            "nat.conf": overlay_image.nat_conf(topology, gateway),
            "init.sh": overlay_image.init_script(topology, gateway),
        },
        init=("/bin/sh", "/config/init.sh"),
        sidecar=("/bin/gateway_sidecar.sh",),
        mount="/config",
        post_rules=overlay_image.post_rules(topology, facts, gateway),
        # its dnsmasq changes to a user of its own, for which it needs the runtime's default capabilities
        capabilities=("NET_ADMIN", "NET_RAW"),
        drop_all=False,
        asks_cluster_dns=gateway.dns != "vpn",
    )
