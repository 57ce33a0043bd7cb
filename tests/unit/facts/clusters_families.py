# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recorded clusters with both families or IPv6 alone, by distribution.

The ranges are those that each distribution's documentation has as defaults or as its example. Only one family have: weave, Azure's
flat network, Cilium's ENI and Azure modes; EKS has one or the other. k3d and minikube document none but IPv4.
"""

from __future__ import annotations

from clusters import (
    CALICO,
    CALICO_CONFIG,
    CALICO_OPERATOR,
    CILIUM,
    K3S,
    KUBE_PROXY,
    RKE2,
    RKE2_DNS,
    Expected,
    cluster,
    installation,
    plane,
    record,
)
from clusters_dual import BOTH, CLUSTERS
from recordings import Object, block, config, custom, daemonset, dns, flannel, ippool, kubeadm, node, pod, server_args, servicecidr

__all__ = ["CLUSTERS"]

HOME = ("192.168.1.10", "fd00:1::10")
SIX = ("ipv6",)


def nodes(*slices: str, six: bool = False, **options: object) -> list[Object]:
    """One node of a home network, with both addresses or IPv6 alone."""
    return [node("n1", HOME[1:] if six else HOME, slices, **options)]  # type: ignore[arg-type]


record(
    "kubeadm, flannel, dual stack",
    cluster(
        nodes("10.244.0.0/24", "2001:db8:42::/64"),
        "10.96.0.1",
        *plane("10.244.0.0/16,2001:db8:42::/56", "10.96.0.0/16,2001:db8:42:1::/112"),
        kubeadm("10.244.0.0/16,2001:db8:42::/56", "10.96.0.0/16,2001:db8:42:1::/112"),
        KUBE_PROXY,
        daemonset("kube-flannel-ds", {"app": "flannel", "k8s-app": "flannel"}, "kube-flannel", mounts=["kube-flannel-cfg"]),
        flannel("10.244.0.0/16", EnableIPv6=True, IPv6Network="2001:db8:42::/56"),
        servicecidr("10.96.0.0/16", "2001:db8:42:1::/112"),
    ),
    # kubeadm's own example cuts the services out of the pods' prefix: these two overlap, and that stops the run.
    Expected(
        "kubeadm",
        "flannel",
        ("10.244.0.0/16", "2001:db8:42::/56"),
        ("10.96.0.0/16", "2001:db8:42:1::/112"),
        pods_status="conflict",
        services_status="conflict",
        enforces=False,
        ports=(8472,),
        translates=True,
        families=BOTH,
    ),
)
record(
    "kubeadm, flannel, IPv6 only",
    cluster(
        nodes("2001:db8:42::/64", six=True),
        "fd00:96::1",
        *plane("2001:db8:42::/56", "fd00:96::/112"),
        kubeadm("2001:db8:42::/56", "fd00:96::/112"),
        KUBE_PROXY,
        daemonset("kube-flannel-ds", {"app": "flannel", "k8s-app": "flannel"}, "kube-flannel", mounts=["kube-flannel-cfg"]),
        flannel("10.244.0.0/16", EnableIPv4=False, EnableIPv6=True, IPv6Network="2001:db8:42::/56"),
        servicecidr("fd00:96::/112"),
        endpoint="fd00:1::10",
    ),
    Expected(
        "kubeadm",
        "flannel",
        ("2001:db8:42::/56",),
        ("fd00:96::/112",),
        enforces=False,
        ports=(8472,),
        translates=True,
        families=SIX,
        endpoint="fd00:1::10:6443",
    ),
)
record(
    "kubeadm, Calico by operator, eBPF, dual stack",
    cluster(
        nodes(notes={"projectcalico.org/IPv4Address": "192.168.1.10/24", "projectcalico.org/IPv6Address": "fd00:1::10/64"}),
        "10.96.0.1",
        *plane("10.244.0.0/16,fd00:10:244::/56", "10.96.0.0/16,fd00:96::/112"),
        kubeadm("10.244.0.0/16,fd00:10:244::/56", "10.96.0.0/16,fd00:96::/112"),
        CALICO_OPERATOR,
        installation(cni={"type": "Calico", "ipam": {"type": "Calico"}}),
        ippool("10.244.0.0/16"),
        ippool("fd00:10:244::/56", "default-ipv6-ippool"),
        custom("crd.projectcalico.org/v1", "FelixConfiguration", "default", spec={"bpfEnabled": True}),
        servicecidr("10.96.0.0/16", "fd00:96::/112"),
        pod("a", ["10.244.3.4", "fd00:10:244:7::4"]),
    ),
    Expected(
        "kubeadm",
        "calico",
        ("10.244.0.0/16", "fd00:10:244::/56"),
        ("10.96.0.0/16", "fd00:96::/112"),
        ipam="calico",
        ports=(4789, 51820),
        drops=(4789,),
        families=BOTH,
        lan=("192.168.1.0/24", "fd00:1::/64"),
    ),
)
record(
    "kubeadm, Cilium cluster-pool, IPv6 only",
    cluster(
        nodes(six=True),
        "fd00:96::1",
        *plane("", "fd00:96::/112", allocates=False),
        kubeadm("", "fd00:96::/112"),
        CILIUM,
        config(
            "cilium-config",
            {
                "ipam": "cluster-pool",
                "enable-ipv4": "false",
                "enable-ipv6": "true",
                "cluster-pool-ipv4-cidr": "10.0.0.0/8",
                "cluster-pool-ipv6-cidr": "fd00::/104",
                "kube-proxy-replacement": "true",
            },
        ),
        servicecidr("fd00:96::/112"),
        pod("a", ["fd00::77"]),
        endpoint="fd00:1::10",
    ),
    Expected(
        "kubeadm",
        "cilium",
        ("fd00::/104",),
        ("fd00:96::/112",),
        ipam="cilium",
        ports=(8472,),
        translates=False,
        blocks_match_pods=False,
        families=SIX,
        endpoint="fd00:1::10:6443",
    ),
)
record(
    "kind, IPv6 only",
    cluster(
        [node("c", ["fc00:f853:ccd:e793::2"], ["fd00:10:244::/64"], provider="kind://docker/kind/c")],
        "fd00:10:96::1",
        *plane("fd00:10:244::/56", "fd00:10:96::/112"),
        kubeadm("fd00:10:244::/56", "fd00:10:96::/112"),
        KUBE_PROXY,
        daemonset("kindnet", {"app": "kindnet"}, env={"POD_SUBNET": "fd00:10:244::/56"}),
        servicecidr("fd00:10:96::/112"),
        pod("a", ["fd00:10:244::5"]),
        endpoint="fc00:f853:ccd:e793::2",
    ),
    Expected(
        "kind",
        "kindnet",
        ("fd00:10:244::/56",),
        ("fd00:10:96::/112",),
        translates=True,
        families=SIX,
        endpoint="fc00:f853:ccd:e793::2:6443",
    ),
)
record(
    "k3s, several nodes, dual stack, IPv6 first",
    cluster(
        [
            node(
                f"n{number}",
                [f"fd00:1::1{number}", f"192.168.1.1{number}"],
                [f"fd00:42:0:{number}::/64", f"10.42.{number}.0/24"],
                notes=server_args("--cluster-cidr=fd00:42::/56,10.42.0.0/16", "--service-cidr=fd00:43::/112,10.43.0.0/16"),
                **K3S,
            )
            for number in (0, 1)
        ],
        "fd00:43::1",
        servicecidr("fd00:43::/112", "10.43.0.0/16"),
        endpoint="fd00:1::10",
    ),
    Expected(
        "k3s",
        "flannel",
        ("10.42.0.0/16", "fd00:42::/56"),
        ("10.43.0.0/16", "fd00:43::/112"),
        ports=(8472,),
        translates=True,
        families=BOTH,
        endpoint="fd00:1::10:6443",
    ),
)
for name, cidrs, ranges in (
    ("dual stack", ("10.42.0.0/16", "2001:cafe:42::/56"), ("10.43.0.0/16", "2001:cafe:43::/112")),
    ("IPv6 only", ("2001:cafe:42::/56",), ("2001:cafe:43::/112",)),
):
    alone = len(cidrs) == 1
    flags = ["--cluster-cidr", ",".join(cidrs), "--service-cidr", ",".join(ranges), "--cni", "cilium"]
    record(
        f"RKE2, Cilium, {name}",
        cluster(
            nodes(
                *([] if alone else ["10.42.0.0/24"]),
                "2001:cafe:42::/64",
                six=alone,
                notes=server_args(*flags, key="rke2.io/node-args"),
                **RKE2,
            ),
            "2001:cafe:43::1" if alone else "10.43.0.1",
            *plane(",".join(cidrs), ",".join(ranges), where="args"),
            CILIUM,
            config("cilium-config", {"ipam": "kubernetes", "kube-proxy-replacement": "false"}),
            KUBE_PROXY,
            servicecidr(*ranges),
            endpoint=HOME[1] if alone else HOME[0],
            name_server=dns("2001:cafe:43::a", "rke2-coredns-rke2-coredns") if alone else RKE2_DNS,
        ),
        Expected(
            "rke2",
            "cilium",
            cidrs,
            ranges,
            ports=(8472,),
            translates=True,
            blocks_match_pods=False,
            families=SIX if alone else BOTH,
            endpoint=f"{HOME[1] if alone else HOME[0]}:6443",
        ),
    )
record(
    "MicroK8s, dual stack",
    cluster(
        nodes(
            labels={"microk8s.io/cluster": "true"},
            notes={"projectcalico.org/IPv4Address": "192.168.1.10/22", "projectcalico.org/IPv6Address": "fd00:1::10/64"},
        ),
        "10.152.183.1",
        CALICO,
        CALICO_CONFIG,
        ippool("10.1.0.0/16"),
        ippool("fd01::/64", "default-ipv6-ippool"),
        block("10.1.77.0/26"),
        block("fd01::4d00/122"),
        pod("a", ["10.1.77.3", "fd01::4d03"]),
        servicecidr("10.152.183.0/24", "fd98::/108"),
        port=16443,
    ),
    Expected(
        "microk8s",
        "calico",
        ("10.1.0.0/16", "fd01::/64"),
        ("10.152.183.0/24", "fd98::/108"),
        ipam="calico",
        ports=(4789, 51820),
        drops=(4789,),
        families=BOTH,
        lan=("192.168.0.0/22", "fd00:1::/64"),
        endpoint="192.168.1.10:16443",
    ),
)
record(
    "Talos, IPv6 only",
    cluster(
        nodes("fc00:db8:10::/64", six=True, image="Talos (v1.11.0)"),
        "fc00:db8:20::1",
        *plane("fc00:db8:10::/56", "fc00:db8:20::/112", label="k8s-app"),
        daemonset("kube-flannel", {"k8s-app": "flannel"}, mounts=["kube-flannel-cfg"]),
        flannel("", namespace="kube-system", IPv6Network="fc00:db8:10::/56", EnableIPv4=False, EnableIPv6=True),
        KUBE_PROXY,
        servicecidr("fc00:db8:20::/112"),
        endpoint="fd00:1::10",
    ),
    Expected(
        "talos",
        "flannel",
        ("fc00:db8:10::/56",),
        ("fc00:db8:20::/112",),
        enforces=False,
        ports=(4789,),
        translates=True,
        families=SIX,
        endpoint="fd00:1::10:6443",
    ),
)
K0S_PROXY = config("kube-proxy", {"config.conf": "clusterCIDR: 10.244.0.0/16,fd00::/108\n"})
record(
    "k0s, kube-router, dual stack",
    cluster(
        nodes("10.244.0.0/24", "fd00::/117", kubelet="v1.34.1+k0s"),
        "10.96.0.1",
        daemonset("kube-router", {"k8s-app": "kube-router"}),
        K0S_PROXY,
        KUBE_PROXY,
        servicecidr("10.96.0.0/12", "fd01::/108"),
        pod("a", ["10.244.0.3", "fd00::3"]),
    ),
    Expected(
        "k0s",
        "kube-router",
        ("10.244.0.0/16", "fd00::/108"),
        ("10.96.0.0/12", "fd01::/108"),
        translates=True,
        families=BOTH,
    ),
)
record(
    "k0s, Calico, dual stack",
    cluster(
        nodes("10.244.0.0/24", "fd00::/117", kubelet="v1.34.1+k0s"),
        "10.96.0.1",
        CALICO,
        CALICO_CONFIG,
        ippool("10.244.0.0/16"),
        ippool("fd00::/108", "default-ipv6-ippool"),
        K0S_PROXY,
        KUBE_PROXY,
        servicecidr("10.96.0.0/12", "fd01::/108"),
        pod("a", ["10.244.0.3", "fd00::3"]),
    ),
    Expected(
        "k0s",
        "calico",
        ("10.244.0.0/16", "fd00::/108"),
        ("10.96.0.0/12", "fd01::/108"),
        ipam="calico",
        ports=(4789, 51820),
        drops=(4789,),
        translates=True,
        families=BOTH,
    ),
)
for name, cidrs, ranges in (
    ("dual stack", ("10.128.0.0/14", "fd01::/48"), ("172.30.0.0/16", "fd02::/112")),
    ("IPv6 only", ("fd01::/48",), ("fd02::/112",)),
):
    alone = len(cidrs) == 1
    addresses = ["fd2e:6f44:5dd8:c956::5"] if alone else ["192.168.25.5", "fd2e:6f44:5dd8:c956::5"]
    masks = {"ipv6": "fd2e:6f44:5dd8:c956::5/64", **({} if alone else {"ipv4": "192.168.25.5/24"})}
    record(
        f"OpenShift, {name}",
        cluster(
            [
                node(
                    "m0",
                    addresses,
                    image="Red Hat Enterprise Linux CoreOS 418",
                    notes={"k8s.ovn.org/node-primary-ifaddr": str(masks).replace("'", '"')},
                )
            ],
            "fd02::1" if alone else "172.30.0.1",
            daemonset("ovnkube-node", {"app": "ovnkube-node"}, "openshift-ovn-kubernetes"),
            custom(
                "config.openshift.io/v1",
                "Network",
                "cluster",
                spec={},
                status={
                    "networkType": "OVNKubernetes",
                    "clusterNetwork": [{"cidr": item, "hostPrefix": 64 if ":" in item else 23} for item in cidrs],
                    "serviceNetwork": [*ranges],
                },
            ),
            pod("a", ["fd01:0:0:3::8"] if alone else ["10.129.0.8", "fd01:0:0:3::8"]),
            endpoint=addresses[0],
            name_server=dns(
                "fd02::a" if alone else "172.30.0.10",
                "dns-default",
                "openshift-dns",
                "dns",
                labelled=False,
                selector={"dns.operator.openshift.io/daemonset-dns": "default"},
                endpoint=5353,
            ),
            version="v1.31.8",
        ),
        Expected(
            "openshift",
            "ovn-kubernetes",
            cidrs,
            ranges,
            ipam="openshift",
            ports=(6081,),
            lan=("fd2e:6f44:5dd8:c956::/64",) if alone else ("192.168.25.0/24", "fd2e:6f44:5dd8:c956::/64"),
            families=SIX if alone else BOTH,
            endpoint=f"{addresses[0]}:6443",
            dns="openshift-dns",
        ),
    )
record(
    "GKE, dual stack",
    cluster(
        [
            node(
                "gke-1",
                ["10.128.0.2", "fd20:a1:b2:0:8000::"],
                ["10.4.1.0/24", "fd20:a1:b2:0:8000:1::/112"],
                kubelet="v1.33.1-gke.100",
                labels={"cloud.google.com/gke-nodepool": "x"},
            )
        ],
        "34.118.224.1",
        daemonset("anetd", {"k8s-app": "cilium"}, mounts=["cilium-config"]),
        config("cilium-config", {"ipam": "kubernetes", "kube-proxy-replacement": "true"}),
        servicecidr("34.118.224.0/20", "fd20:a1:b2:0:9::/112"),
        pod("a", ["10.4.1.9", "fd20:a1:b2:0:8000:1::9"]),
        endpoint="10.128.0.9",
        port=443,
        version="v1.33.1-gke.100",
    ),
    # Pods have /112 of each node's /96, which comes from the subnet's /64; no object of the cluster has the subnet.
    Expected(
        "gke",
        "cilium",
        ("10.4.0.0/14", "fd20:a1:b2::/64"),
        ("34.118.224.0/20", "fd20:a1:b2:0:9::/112"),
        pods_status="partial",
        translates=False,
        ports=(8472,),
        blocks_match_pods=False,
        families=BOTH,
        endpoint="10.128.0.9:443",
    ),
)
AKS = {"labels": {"kubernetes.azure.com/cluster": "x"}, "provider": "azure:///x"}
for name, addresses, cidrs, ranges in (
    ("one family", ["10.224.0.4"], ("10.244.0.0/16",), ("10.0.0.0/16",)),
    (
        "dual stack",
        ["10.224.0.4", "fd7b:1::4"],
        ("10.244.0.0/16", "fd12:3456:789a::/64"),
        ("10.0.0.0/16", "fd12:3456:789a:1::/108"),
    ),
):
    record(
        f"AKS, Azure CNI overlay, {name}",
        cluster(
            [node("aks-1", addresses, **AKS)],  # type: ignore[arg-type]
            "10.0.0.1",
            daemonset("azure-cns", {"k8s-app": "azure-cns"}),
            daemonset("kube-proxy", {"component": "kube-proxy", "k8s-app": "kube-proxy"}),
            servicecidr(*ranges),
            pod("a", ["10.244.0.40", *(["fd12:3456:789a::28"] if len(cidrs) > 1 else [])]),
            endpoint="20.1.2.3",
            port=443,
        ),
        # The overlay's range is in the cloud's API alone.
        Expected(
            "aks",
            "azure-cni",
            cidrs,
            ranges,
            pods_status="unknown",
            ipam="vpc",
            enforces=None,
            translates=True,
            blocks_match_pods=None,
            families=BOTH if len(cidrs) > 1 else ("ipv4",),
            endpoint="20.1.2.3:443",
        ),
    )
record(
    "kOps, Cilium, IPv6",
    cluster(
        [
            node(
                f"i-{number}",
                [f"2600:1f13:7:a::{number}", f"172.20.1.{number}"],
                [f"2600:1f13:7:a:{number}::/80"],
                labels={"kops.k8s.io/instancegroup": "a"},
                provider=f"aws:///i-{number}",
            )
            for number in (5, 6)
        ],
        "fd00:5e4f:ce::1",
        *plane("", "fd00:5e4f:ce::/108", label="k8s-app", where="args", allocates=False),
        CILIUM,
        config("cilium-config", {"ipam": "kubernetes", "kube-proxy-replacement": "true", "routing-mode": "native"}),
        servicecidr("fd00:5e4f:ce::/108"),
        pod("a", ["2600:1f13:7:a:5::9"]),
        endpoint="2600:1f13:7:a::5",
    ),
    # Each node has a /80 of its subnet for pods; the network's prefix is in the cloud's API alone, and public
    # addresses that only slices tell are refused.
    Expected(
        "kops",
        "cilium",
        ("2600:1f13:7::/56",),
        ("fd00:5e4f:ce::/108",),
        pods_status="unknown",
        translates=False,
        blocks_match_pods=False,
        families=SIX,
        endpoint="2600:1f13:7:a::5:6443",
    ),
)
