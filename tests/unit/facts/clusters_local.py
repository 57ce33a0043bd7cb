# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recorded clusters of distributions for one's own machines, most of them with IPv4 alone."""

from __future__ import annotations

from clusters import (
    CALICO,
    CALICO_CONFIG,
    CALICO_OPERATOR,
    CILIUM,
    CLUSTERS,
    K3S,
    KINDNET,
    KUBE_PROXY,
    RKE2,
    RKE2_DNS,
    S42,
    S244,
    Expected,
    ambient,
    cluster,
    installation,
    plane,
    record,
    two,
)
from recordings import block, config, daemonset, flannel, ippool, kubeadm, node, pod, server_args, servicecidr, static

__all__ = ["CLUSTERS"]

record(
    "kind",
    cluster(
        [node("c", ["172.18.0.2"], ["10.244.0.0/24"], provider="kind://docker/kind/c")],
        "10.96.0.1",
        *plane("10.244.0.0/16", "10.96.0.0/16"),
        kubeadm("10.244.0.0/16", "10.96.0.0/16"),
        KUBE_PROXY,
        KINDNET,
        servicecidr("10.96.0.0/16"),
        pod("a", ["10.244.0.5"]),
        endpoint="172.18.0.2",
    ),
    Expected("kind", "kindnet", ("10.244.0.0/16",), ("10.96.0.0/16",), translates=True, endpoint="172.18.0.2:6443"),
)
record(
    "kind, dual stack",
    cluster(
        [
            node(
                "c",
                ["172.18.0.2", "fc00:f853:ccd::2"],
                ["10.244.0.0/24", "fd00:10:244::/64"],
                provider="kind://docker/kind/c",
            )
        ],
        "10.96.0.1",
        *plane("10.244.0.0/16,fd00:10:244::/56", "10.96.0.0/16,fd00:10:96::/112"),
        KUBE_PROXY,
        daemonset("kindnet", {"app": "kindnet"}, env={"POD_SUBNET": "10.244.0.0/16,fd00:10:244::/56"}),
        servicecidr("10.96.0.0/16", "fd00:10:96::/112"),
        pod("a", ["10.244.0.5", "fd00:10:244::5"]),
        endpoint="172.18.0.2",
    ),
    Expected(
        "kind",
        "kindnet",
        ("10.244.0.0/16", "fd00:10:244::/56"),
        ("10.96.0.0/16", "fd00:10:96::/112"),
        translates=True,
        families=("ipv4", "ipv6"),
        endpoint="172.18.0.2:6443",
    ),
)
record(
    "minikube",
    cluster(
        [node("minikube", ["192.168.49.2"], ["10.244.0.0/24"], labels={"minikube.k8s.io/name": "minikube"})],
        "10.96.0.1",
        *plane("10.244.0.0/16", "10.96.0.0/12"),
        kubeadm("10.244.0.0/16"),
        KUBE_PROXY,
        KINDNET,
        endpoint="192.168.49.2",
        port=8443,
        version="v1.31.0",
    ),
    Expected("minikube", "kindnet", ("10.244.0.0/16",), ("10.96.0.0/12",), translates=True, endpoint="192.168.49.2:8443"),
)
record(
    "k3s, one node",
    cluster(
        [node("n1", ["192.168.1.10"], ["10.42.0.0/24"], notes=server_args(), **K3S)],
        "10.43.0.1",
        servicecidr("10.43.0.0/16"),
        pod("a", ["10.42.0.7"]),
    ),
    Expected("k3s", "flannel", ("10.42.0.0/16",), ("10.43.0.0/16",), ports=(8472,), translates=True),
)
record(
    "k3s, several nodes, wireguard, no policies",
    cluster(
        [
            node(
                "n1",
                ["192.168.1.10"],
                ["10.42.0.0/24"],
                notes=server_args("--flannel-backend", "wireguard-native", "--disable-network-policy"),
                **K3S,
            ),
            node("n2", ["192.168.1.11"], ["10.42.1.0/24"], notes={"k3s.io/node-args": '["agent"]'}, **K3S),
        ],
        "10.43.0.1",
        servicecidr("10.43.0.0/16"),
    ),
    Expected("k3s", "flannel", ("10.42.0.0/16",), ("10.43.0.0/16",), enforces=False, ports=(51820, 51821), translates=True),
)
record(
    "k3s, own ranges, before ServiceCIDR",
    cluster(
        two(
            [("10.200.0.0/24",), ("10.200.1.0/24",)],
            notes=server_args("--cluster-cidr=10.200.0.0/15", "--service-cidr", "10.210.0.0/16"),
            **K3S,
        ),
        "10.210.0.1",
        version="v1.30.4+k3s1",
    ),
    Expected("k3s", "flannel", ("10.200.0.0/15",), ("10.210.0.0/16",), ports=(8472,), translates=True),
)
record(
    "k3s, dual stack",
    cluster(
        [
            node(
                "n1",
                ["192.168.1.10", "fd00:1::10"],
                ["10.42.0.0/24", "fd00:42::/64"],
                notes=server_args("--cluster-cidr", "10.42.0.0/16,fd00:42::/56", "--service-cidr", "10.43.0.0/16,fd00:43::/112"),
                **K3S,
            )
        ],
        "10.43.0.1",
        servicecidr("10.43.0.0/16", "fd00:43::/112"),
    ),
    Expected(
        "k3s",
        "flannel",
        ("10.42.0.0/16", "fd00:42::/56"),
        ("10.43.0.0/16", "fd00:43::/112"),
        ports=(8472,),
        translates=True,
        families=("ipv4", "ipv6"),
    ),
)
record(
    "k3s, IPv6 only",
    cluster(
        [node("n1", ["fd00:1::10"], ["fd00:42::/64"], notes=server_args(), **K3S)],
        "fd00:43::1",
        endpoint="fd00:1::10",
        version="v1.30.4+k3s1",
    ),
    Expected(
        "k3s",
        "flannel",
        ("fd00:42::/56",),
        ("fd00:43::/112",),
        ports=(8472,),
        translates=True,
        families=("ipv6",),
        endpoint="fd00:1::10:6443",
    ),
)
record(
    "k3s, Tailscale",
    cluster(
        [node("n1", ["100.101.102.103"], ["10.42.0.0/24"], notes=server_args("--vpn-auth", "********"), **K3S)],
        "10.43.0.1",
        servicecidr("10.43.0.0/16"),
        endpoint="100.101.102.103",
    ),
    Expected(
        "k3s", "flannel", ("10.42.0.0/16",), ("10.43.0.0/16",), ports=(8472,), translates=True, endpoint="100.101.102.103:6443"
    ),
)
record(
    "k3d",
    cluster(
        [node("k3d-x-server-0", ["172.19.0.2"], ["10.42.0.0/24"], notes=server_args("--tls-san", "0.0.0.0"), **K3S)],
        "10.43.0.1",
        servicecidr("10.43.0.0/16"),
        endpoint="172.19.0.2",
    ),
    Expected("k3s", "flannel", ("10.42.0.0/16",), ("10.43.0.0/16",), ports=(8472,), translates=True, endpoint="172.19.0.2:6443"),
)
record(
    "k3s, Calico by operator",
    cluster(
        two(S42, notes=server_args("--flannel-backend=none", "--disable-network-policy"), **K3S),
        "10.43.0.1",
        CALICO_OPERATOR,
        installation(cni={"type": "Calico", "ipam": {"type": "Calico"}}),
        ippool("192.168.64.0/18"),
        pod("a", ["192.168.65.3"]),
        servicecidr("10.43.0.0/16"),
        ambient(),
    ),
    Expected(
        "k3s",
        "calico",
        ("192.168.64.0/18",),
        ("10.43.0.0/16",),
        ipam="calico",
        ports=(4789, 51820),
        drops=(4789,),
        translates=True,
    ),
)
record(
    "RKE2, Canal",
    cluster(
        two(S42, notes=server_args(key="rke2.io/node-args"), **RKE2),
        "10.43.0.1",
        *plane("10.42.0.0/16", "10.43.0.0/16", where="args"),
        daemonset("rke2-canal", {"k8s-app": "canal"}, mounts=["rke2-canal-config"]),
        flannel("10.42.0.0/16", "rke2-canal-config", "kube-system"),
        static("kube-proxy", "--cluster-cidr=10.42.0.0/16", where="args"),
        servicecidr("10.43.0.0/16"),
        name_server=RKE2_DNS,
    ),
    Expected("rke2", "canal", ("10.42.0.0/16",), ("10.43.0.0/16",), ports=(8472,), drops=(4789,), translates=True),
)
record(
    "RKE2, Cilium",
    cluster(
        two(S42, notes=server_args("--cni", "cilium", key="rke2.io/node-args"), **RKE2),
        "10.43.0.1",
        *plane("10.42.0.0/16", "10.43.0.0/16", where="args"),
        CILIUM,
        config("cilium-config", {"ipam": "kubernetes", "kube-proxy-replacement": "false"}),
        static("kube-proxy", "--cluster-cidr=10.42.0.0/16", where="args"),
        daemonset("node-local-dns", {"k8s-app": "node-local-dns"}, host=False),
        servicecidr("10.43.0.0/16"),
        name_server=RKE2_DNS,
    ),
    Expected("rke2", "cilium", ("10.42.0.0/16",), ("10.43.0.0/16",), ports=(8472,), translates=True, blocks_match_pods=False),
)
record(
    "MicroK8s",
    cluster(
        [
            node(
                "m",
                ["192.168.1.10"],
                labels={"microk8s.io/cluster": "true"},
                notes={"projectcalico.org/IPv4Address": "192.168.1.10/22"},
            )
        ],
        "10.152.183.1",
        CALICO,
        CALICO_CONFIG,
        ippool("10.1.0.0/16"),
        block("10.1.77.0/26"),
        pod("a", ["10.1.77.3"]),
        servicecidr("10.152.183.0/24"),
        port=16443,
    ),
    Expected(
        "microk8s",
        "calico",
        ("10.1.0.0/16",),
        ("10.152.183.0/24",),
        ipam="calico",
        ports=(4789, 51820),
        drops=(4789,),
        lan=("192.168.0.0/22",),
        endpoint="192.168.1.10:16443",
    ),
)
record(
    "Talos",
    cluster(
        two(S244, image="Talos (v1.11.0)"),
        "10.96.0.1",
        *plane("10.244.0.0/16", "10.96.0.0/12", label="k8s-app"),
        daemonset("kube-flannel", {"k8s-app": "flannel"}, mounts=["kube-flannel-cfg"]),
        flannel("10.244.0.0/16", namespace="kube-system", Backend={"Type": "vxlan", "Port": 4789}),
        KUBE_PROXY,
        servicecidr("10.96.0.0/12"),
    ),
    Expected("talos", "flannel", ("10.244.0.0/16",), ("10.96.0.0/12",), enforces=False, ports=(4789,), translates=True),
)
record(
    "Talos, dual stack",
    cluster(
        [node("n1", ["192.168.1.10"], ["10.244.0.0/24", "fc00:db8:10::/64"], image="Talos (v1.11.0)")],
        "10.96.0.1",
        *plane("10.244.0.0/16,fc00:db8:10::/56", "10.96.0.0/12,fc00:db8:20::/112", label="k8s-app"),
        daemonset("kube-flannel", {"k8s-app": "flannel"}, mounts=["kube-flannel-cfg"]),
        flannel("10.244.0.0/16", namespace="kube-system", IPv6Network="fc00:db8:10::/56", EnableIPv6=True),
        KUBE_PROXY,
        servicecidr("10.96.0.0/12", "fc00:db8:20::/112"),
    ),
    Expected(
        "talos",
        "flannel",
        ("10.244.0.0/16", "fc00:db8:10::/56"),
        ("10.96.0.0/12", "fc00:db8:20::/112"),
        enforces=False,
        ports=(4789,),
        translates=True,
        families=("ipv4", "ipv6"),
    ),
)
record(
    "k0s, kube-router",
    cluster(
        two(S244, kubelet="v1.34.1+k0s"),
        "10.96.0.1",
        daemonset("kube-router", {"k8s-app": "kube-router"}),
        config("kube-proxy", {"config.conf": "clusterCIDR: 10.244.0.0/16\n"}),
        KUBE_PROXY,
        servicecidr("10.96.0.0/12"),
        pod("a", ["10.244.1.3"]),
    ),
    Expected("k0s", "kube-router", ("10.244.0.0/16",), ("10.96.0.0/12",), translates=True),
)
