# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recorded clusters with both families, by CNI, and Cilium where the cloud's network gives the addresses."""

from __future__ import annotations

from clusters import (
    CALICO,
    CALICO_CONFIG,
    CILIUM,
    KUBE_PROXY,
    RKE2,
    RKE2_DNS,
    Expected,
    cluster,
    plane,
    record,
)
from clusters_clouds import CLUSTERS
from recordings import Object, config, custom, daemonset, flannel, ippool, node, pod, server_args, servicecidr

__all__ = ["CLUSTERS"]

PODS, SERVICES = ("10.244.0.0/16", "2001:db8:42::/56"), ("10.96.0.0/12", "2001:db8:43::/112")
BOTH = ("ipv4", "ipv6")
PLANE = [*plane(",".join(PODS), ",".join(SERVICES)), servicecidr(*SERVICES)]


def one(*, slices: bool = True, **options: object) -> list[Object]:
    cut = ["10.244.0.0/24", "2001:db8:42::/64"] if slices else []
    return [node("n1", ["192.168.1.10", "2001:db8:1::10"], cut, **options)]  # type: ignore[arg-type]


record(
    "kubeadm, Calico, dual stack",
    cluster(
        one(notes={"projectcalico.org/IPv4Address": "192.168.1.10/24", "projectcalico.org/IPv6Address": "2001:db8:1::10/64"}),
        "10.96.0.1",
        PLANE,
        KUBE_PROXY,
        CALICO,
        CALICO_CONFIG,
        config("kubeadm-config", {"ClusterConfiguration": "networking: {podSubnet: '10.244.0.0/16,2001:db8:42::/56'}"}),
        ippool("172.20.0.0/16"),
        ippool("2001:db8:77::/48", "default-ipv6-ippool"),
        pod("a", ["172.20.3.4", "2001:db8:77::4"]),
    ),
    Expected(
        "kubeadm",
        "calico",
        ("172.20.0.0/16", "2001:db8:77::/48"),
        SERVICES,
        ipam="calico",
        ports=(4789, 51820),
        drops=(4789,),
        translates=True,
        families=BOTH,
        lan=("192.168.1.0/24", "2001:db8:1::/64"),
    ),
)
for mode, pods, ipam in (
    ("cluster-pool", ("10.50.0.0/16", "2001:db8:50::/104"), "cilium"),
    ("kubernetes", PODS, "nodes"),
    ("multi-pool", ("10.60.0.0/16", "2001:db8:60::/104"), "cilium-pools"),
):
    pool = {"ipv4": {"cidrs": ["10.60.0.0/16"]}, "ipv6": {"cidrs": ["2001:db8:60::/104"]}}
    ranges = {"cluster-pool-ipv4-cidr": "10.50.0.0/16", "cluster-pool-ipv6-cidr": "2001:db8:50::/104"}
    record(
        f"Talos, Cilium {mode}, dual stack",
        cluster(
            one(image="Talos (v1.11.0)"),
            "10.96.0.1",
            PLANE,
            CILIUM,
            config("cilium-config", {"ipam": mode, **ranges, "kube-proxy-replacement": "true"}),
            [custom("cilium.io/v2alpha1", "CiliumPodIPPool", "default", spec=pool)] if mode == "multi-pool" else [],
            pod("a", [pods[0].replace("0.0/16", "1.7"), pods[1].split("/", maxsplit=1)[0] + "7"]),
        ),
        Expected(
            "talos",
            "cilium",
            pods,
            SERVICES,
            ipam=ipam,
            ports=(8472,),
            translates=False,
            blocks_match_pods=False,
            families=BOTH,
        ),
    )
record(
    "RKE2, Canal, dual stack",
    cluster(
        [
            node(
                "n1",
                ["192.168.1.10", "2001:db8:1::10"],
                ["10.42.0.0/24", "2001:db8:42::/64"],
                notes=server_args(
                    "--cluster-cidr",
                    "10.42.0.0/16,2001:db8:42::/56",
                    "--service-cidr",
                    "10.43.0.0/16,2001:db8:43::/112",
                    key="rke2.io/node-args",
                ),
                **RKE2,  # type: ignore[arg-type]
            )
        ],
        "10.43.0.1",
        *plane("10.42.0.0/16,2001:db8:42::/56", "10.43.0.0/16,2001:db8:43::/112", where="args"),
        daemonset("rke2-canal", {"k8s-app": "canal"}, mounts=["rke2-canal-config"]),
        flannel("10.42.0.0/16", "rke2-canal-config", "kube-system", IPv6Network="2001:db8:42::/56", EnableIPv6=True),
        servicecidr("10.43.0.0/16", "2001:db8:43::/112"),
        name_server=RKE2_DNS,
    ),
    Expected(
        "rke2",
        "canal",
        ("10.42.0.0/16", "2001:db8:42::/56"),
        ("10.43.0.0/16", "2001:db8:43::/112"),
        ports=(8472,),
        drops=(4789,),
        families=BOTH,
    ),
)
record(
    "kubeadm, OVN-Kubernetes, dual stack",
    cluster(
        one(notes={"k8s.ovn.org/host-cidrs": '["192.168.1.10/24", "2001:db8:1::10/64", "10.9.0.10/8"]'}, slices=False),
        "10.96.0.1",
        servicecidr(*SERVICES),
        config("kubeadm-config", {"ClusterConfiguration": "networking: {}"}),
        daemonset("ovnkube-node", {"app": "ovnkube-node"}, "ovn-kubernetes"),
        config(
            "ovn-config",
            {"net_cidr": "10.244.0.0/16/24,2001:db8:42::/56/64", "svc_cidr": ",".join(SERVICES)},
            "ovn-kubernetes",
        ),
        pod("a", ["10.244.0.9", "2001:db8:42::9"]),
    ),
    Expected(
        "kubeadm",
        "ovn-kubernetes",
        PODS,
        SERVICES,
        ipam="ovn",
        ports=(6081,),
        families=BOTH,
        lan=("192.168.1.0/24", "2001:db8:1::/64"),
    ),
)
record(
    "kubeadm, Antrea, dual stack",
    cluster(
        one(),
        "10.96.0.1",
        PLANE,
        KUBE_PROXY,
        config("kubeadm-config", {"ClusterConfiguration": "networking: {podSubnet: '10.244.0.0/16,2001:db8:42::/56'}"}),
        daemonset("antrea-agent", {"app": "antrea", "component": "antrea-agent"}, mounts=["antrea-config"]),
        config("antrea-config", {"antrea-controller.conf": "nodeIPAM:\n  enableNodeIPAM: false\n"}),
    ),
    Expected("kubeadm", "antrea", PODS, SERVICES, ports=(6081,), translates=True, families=BOTH),
)
record(
    "AKS, Cilium azure",
    cluster(
        [node("aks-1", ["10.224.0.4"], labels={"kubernetes.azure.com/cluster": "x"}, provider="azure:///x")],
        "10.0.0.1",
        CILIUM,
        config("cilium-config", {"ipam": "azure", "routing-mode": "native", "kube-proxy-replacement": "true"}),
        servicecidr("10.0.0.0/16"),
        pod("a", ["10.224.0.40"]),
    ),
    Expected(
        "aks",
        "cilium",
        ("10.224.0.0/12",),
        ("10.0.0.0/16",),
        pods_status="unknown",
        ipam="vpc",
        translates=False,
        blocks_match_pods=False,
    ),
)
