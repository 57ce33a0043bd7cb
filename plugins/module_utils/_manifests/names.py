# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The names of everything that is created, so that one module can refer to what another writes."""

from __future__ import annotations

import hashlib

from .._facts.model import Facts
from .._overlay.scripts import finder_port
from .._topology.model import App, Gateway, Topology
from .model import LABEL_GATEWAY, LABEL_INSTANCE

#: Ports that CNIs use for their own tunnels: 4789 VXLAN, 8472 flannel and Cilium, 4790 Calico and others, 6081 Geneve,
#: 51820 and 51871 WireGuard of CNIs and Cilium.
TAKEN_UDP_PORTS = frozenset({4789, 4790, 6081, 8472, 51820, 51821, 51871})
FIRST_OVERLAY_PORT = 48879

#: A DNS label or object name segment ends here; longer names are cut and completed by a digest.
LONGEST_NAME = 63


def short(name: str, longest: int = LONGEST_NAME) -> str:
    """`name`, or its head and a digest where it is too long: unique and stable."""
    if len(name) <= longest:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: longest - 9].rstrip('-.')}-{digest}"


def gateway_object(gateway: Gateway) -> str:
    """Deployment, ConfigMaps, NetworkPolicy and ClusterIP Service of a gateway."""
    return short(f"netguard-gateway-{gateway.name}")


def gateway_headless(gateway: Gateway) -> str:
    return short(f"netguard-gateway-{gateway.name}-pods")


def gateway_secret(gateway: Gateway) -> str:
    """The Secret with credentials: the user's own, else the one that we create."""
    return gateway.credentials_secret or short(f"netguard-gateway-{gateway.name}-credentials")


def gateway_pods(topology: Topology, gateway: Gateway) -> dict[str, str]:
    """Labels that select the gateway's pods."""
    return {LABEL_GATEWAY: gateway.name, LABEL_INSTANCE: topology.instance}


def client_config(app: App) -> str:
    """ConfigMap with scripts and settings of a client, in the client's namespace."""
    return short(f"netguard-client-{app.name}")


def client_service(gateway: Gateway) -> str:
    """Headless Service, one per gateway and client namespace, by which a gateway learns its clients' pods."""
    return short(f"netguard-clients-{gateway.name}")


def killswitch(app: App) -> str:
    return short(f"netguard-killswitch-{app.name}")


def segment(app: App) -> str:
    """The policy of one app under segmentation."""
    return short(f"netguard-segment-{app.name}")


#: One per namespace: denies what no other policy lets through; and the one policy of the layout `namespace`.
DEFAULT_DENY = "netguard-default-deny"
NAMESPACE_SEGMENT = "netguard-segments"


def admission(topology: Topology, what: str) -> str:
    """Cluster-scoped names contain the instance."""
    return short(f"netguard-{topology.instance}-{what}")


def overlay_port(gateway: Gateway, facts: Facts) -> int:
    """The declared UDP port, else the first from 48879 on that no CNI uses and this cluster's CNI neither uses nor drops.

    The same holds for the port behind it, where clients ask for the pod's address.
    """
    if gateway.overlay.port is not None:
        return gateway.overlay.port
    taken = TAKEN_UDP_PORTS | set(facts.cni.overlay_udp_ports) | set(facts.cni.drops_workload_vxlan_ports)
    port = FIRST_OVERLAY_PORT
    while port in taken or finder_port(port) in taken:
        port += 1
    return port
