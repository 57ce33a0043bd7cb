# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the builders need of the cluster: a typed, frozen view of the `facts` that `cluster_cidrs` returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .._topology.model import Network


@dataclass(frozen=True)
class Endpoint:
    ip: str
    port: int


@dataclass(frozen=True)
class Dns:
    service_ips: tuple[str, ...] = ()
    namespace: str = ""
    pod_labels: Mapping[str, str] = field(default_factory=dict)
    ports_udp: tuple[int, ...] = (53,)  # pod ports, after the Service's translation
    ports_tcp: tuple[int, ...] = (53,)
    node_local_ip: str = ""
    cluster_domain: str = "cluster.local"


@dataclass(frozen=True)
class Cni:
    #: calico, canal, cilium, flannel, kindnet, kube-router, antrea, ovn-kubernetes, weave, aws-vpc-cni or unknown
    name: str = "unknown"
    enforces_network_policy: bool | None = None  # None: unknown
    ipblock_matches_pods: bool | None = None
    ipblock_matches_nodes: bool | None = None
    drops_workload_vxlan_ports: tuple[int, ...] = ()
    overlay_udp_ports: tuple[int, ...] = ()
    policy_apis: tuple[
        str, ...
    ] = ()  # e.g. "crd.projectcalico.org/v1", "projectcalico.org/v3", "cilium.io/v2", "policy.networking.k8s.io/v1alpha2"
    translates_kernel_packets: bool | None = (
        None  # does kube-proxy (or its replacement) translate packets the kernel sends, such as VXLAN, to a ClusterIP
    )


@dataclass(frozen=True)
class Facts:
    pods: tuple[Network, ...] = ()
    services: tuple[Network, ...] = ()
    nodes: tuple[Network, ...] = ()
    lan: tuple[Network, ...] = ()
    api_endpoints: tuple[Endpoint, ...] = ()
    api_service_ip: str = ""
    dns: Dns = field(default_factory=Dns)
    cni: Cni = field(default_factory=Cni)
    distribution: str = "unknown"
    server_version: tuple[int, int] = (0, 0)  # (major, minor)
    ip_families: tuple[str, ...] = ("ipv4",)  # ipv4, ipv6
    mesh_ambient: bool = False
    mesh_probe_sources: tuple[Network, ...] = ()
    digest: str = ""
