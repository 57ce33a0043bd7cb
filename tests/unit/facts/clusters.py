# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Clusters of every distribution and CNI, with the facts that their documentation says they have."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from recordings import (
    Cluster,
    Object,
    block,
    config,
    custom,
    daemonset,
    dns,
    endpoint_slice,
    flannel,
    ippool,
    kubeadm,
    kubernetes,
    node,
    pod,
    server_args,
    service,
    servicecidr,
    static,
)


@dataclass(frozen=True)
class Expected:
    """What must come out. `pods` and `services` are the whole truth; a status other than complete may know less of it."""

    distribution: str
    cni: str
    pods: tuple[str, ...]
    services: tuple[str, ...]
    pods_status: str = "complete"
    services_status: str = "complete"
    ipam: str = "nodes"
    enforces: bool | None = True
    ports: tuple[int, ...] = ()
    drops: tuple[int, ...] = ()
    translates: bool | None = None
    blocks_match_pods: bool | None = True
    lan: tuple[str, ...] | None = None
    families: tuple[str, ...] = ("ipv4",)
    endpoint: str = "192.168.1.10:6443"
    dns: str = "kube-system"


KUBE_PROXY = daemonset("kube-proxy", {"k8s-app": "kube-proxy"}, mounts=["kube-proxy"])


def cluster(
    nodes: list[Object],
    api: str,
    *more: Object | list[Object],
    endpoint: str = "192.168.1.10",
    port: int = 6443,
    name_server: list[Object] | None = None,
    **options: Any,
) -> Cluster:
    listed: list[Object] = [*nodes, *kubernetes(api, endpoint, port=port)]
    listed += dns(".".join([*api.split(".")[:3], "10"]) if "." in api else f"{api[:-1]}a") if name_server is None else name_server
    for item in more:
        listed += item if isinstance(item, list) else [item]
    return Cluster(listed, **options)


def two(slices: Iterable[Iterable[str]] = (), **options: Any) -> list[Object]:
    """Two nodes of a home network."""
    parts = [*slices] or [(), ()]
    return [node(f"n{number}", [f"192.168.1.{9 + number}"], parts[number - 1], **options) for number in (1, 2)]


def plane(pods: str, services: str, label: str = "component", where: str = "command", allocates: bool = True) -> list[Object]:
    allocate = ["--allocate-node-cidrs=true", f"--cluster-cidr={pods}"] if allocates else []
    return [
        static("kube-apiserver", f"--service-cluster-ip-range={services}", label=label, where=where),
        static("kube-controller-manager", *allocate, f"--service-cluster-ip-range={services}", label=label, where=where),
    ]


S244 = [("10.244.0.0/24",), ("10.244.1.0/24",)]
S42 = [("10.42.0.0/24",), ("10.42.1.0/24",)]
KINDNET = daemonset("kindnet", {"app": "kindnet", "k8s-app": "kindnet"}, env={"POD_SUBNET": "10.244.0.0/16"})
CALICO = daemonset("calico-node", {"k8s-app": "calico-node"}, mounts=["calico-config"])
CALICO_OPERATOR = daemonset("calico-node", {"k8s-app": "calico-node"}, "calico-system")
CALICO_CONFIG = config(
    "calico-config", {"cni_network_config": '{"plugins": [{"type": "calico", "ipam": {"type": "calico-ipam"}}]}'}
)
CILIUM = daemonset("cilium", {"k8s-app": "cilium"}, mounts=["cilium-config"])
AWS_NODE = daemonset("aws-node", {"k8s-app": "aws-node"})


def installation(**spec: Any) -> Object:
    return custom("operator.tigera.io/v1", "Installation", "default", spec=spec)


def ambient() -> list[Object]:
    return [daemonset("ztunnel", {"app": "ztunnel"}, "istio-system", host=False), daemonset("istio-cni-node", {}, "istio-system")]


K3S = {"kubelet": "v1.34.1+k3s1", "provider": "k3s://n"}
#: name -> (cluster, expected)
CLUSTERS: dict[str, tuple[Cluster, Expected]] = {}


def record(name: str, recorded: Cluster, expected: Expected) -> None:
    CLUSTERS[name] = (recorded, expected)


record(
    "kubeadm, flannel",
    cluster(
        two(S244),
        "10.96.0.1",
        *plane("10.244.0.0/16", "10.96.0.0/12"),
        kubeadm("10.244.0.0/16"),
        KUBE_PROXY,
        flannel("10.244.0.0/16"),
        daemonset("kube-flannel-ds", {"app": "flannel", "k8s-app": "flannel"}, "kube-flannel", mounts=["kube-flannel-cfg"]),
        servicecidr("10.96.0.0/12"),
        pod("a", ["10.244.1.7"]),
    ),
    Expected("kubeadm", "flannel", ("10.244.0.0/16",), ("10.96.0.0/12",), enforces=False, ports=(8472,), translates=True),
)
record(
    "kubeadm, Calico by manifest",
    cluster(
        two([("10.0.0.0/24",), ("10.0.1.0/24",)], notes={"projectcalico.org/IPv4Address": "192.168.1.10/24"}),
        "10.96.0.1",
        *plane("10.0.0.0/16", "10.96.0.0/12"),
        kubeadm("10.0.0.0/16"),
        KUBE_PROXY,
        CALICO,
        CALICO_CONFIG,
        ippool("172.20.0.0/16"),
        ippool("172.21.0.0/24", "lb", allowedUses=["LoadBalancer"]),
        ippool("172.22.0.0/24", "old", disabled=True),
        pod("a", ["172.20.3.4"]),
        pod("b", ["172.22.0.9"]),
        pod("c", ["192.168.1.10"], host=True),
        pod("d", ["10.0.1.4"], phase="Succeeded"),
        servicecidr("10.96.0.0/12"),
    ),
    Expected(
        "kubeadm",
        "calico",
        ("172.20.0.0/16", "172.22.0.0/24"),
        ("10.96.0.0/12",),
        ipam="calico",
        ports=(4789, 51820),
        drops=(4789,),
        translates=True,
        lan=("192.168.1.0/24",),
    ),
)
record(
    "kubeadm, Calico by operator, eBPF",
    cluster(
        two(S244),
        "10.96.0.1",
        *plane("10.244.0.0/16", "10.96.0.0/12"),
        kubeadm("10.244.0.0/16"),
        CALICO_OPERATOR,
        installation(cni={"type": "Calico", "ipam": {"type": "Calico"}}, calicoNetwork={"ipPools": [{"cidr": "10.244.0.0/16"}]}),
        ippool("10.244.0.0/16"),
        custom(
            "crd.projectcalico.org/v1",
            "FelixConfiguration",
            "default",
            spec={"bpfEnabled": True, "vxlanPort": 4790, "allowVXLANPacketsFromWorkloads": True},
        ),
        servicecidr("10.96.0.0/12"),
    ),
    Expected("kubeadm", "calico", ("10.244.0.0/16",), ("10.96.0.0/12",), ipam="calico", ports=(4790, 51820), translates=None),
)
record(
    "kubeadm, Calico with host-local",
    cluster(
        two(S244),
        "10.96.0.1",
        *plane("10.244.0.0/16", "10.96.0.0/12"),
        CALICO_OPERATOR,
        KUBE_PROXY,
        kubeadm("10.244.0.0/16"),
        installation(cni={"type": "Calico", "ipam": {"type": "HostLocal"}}),
        ippool("192.168.0.0/16"),
        servicecidr("10.96.0.0/12"),
    ),
    Expected("kubeadm", "calico", ("10.244.0.0/16",), ("10.96.0.0/12",), ports=(4789, 51820), drops=(4789,), translates=True),
)
record(
    "kubeadm, Canal",
    cluster(
        two(S244),
        "10.96.0.1",
        *plane("10.244.0.0/16", "10.96.0.0/12"),
        kubeadm("10.244.0.0/16"),
        KUBE_PROXY,
        daemonset("canal", {"k8s-app": "canal"}, mounts=["canal-config"]),
        flannel("10.244.0.0/16", "canal-config", "kube-system"),
        ippool("192.168.0.0/16"),
        servicecidr("10.96.0.0/12"),
    ),
    Expected("kubeadm", "canal", ("10.244.0.0/16",), ("10.96.0.0/12",), ports=(8472,), drops=(4789,), translates=True),
)
for mode, pods, ipam, extra in (
    ("cluster-pool", ("10.50.0.0/16",), "cilium", []),
    ("kubernetes", ("10.244.0.0/16",), "nodes", []),
    (
        "multi-pool",
        ("10.60.0.0/16", "10.61.0.0/16"),
        "cilium-pools",
        [
            custom("cilium.io/v2alpha1", "CiliumPodIPPool", "default", spec={"ipv4": {"cidrs": ["10.60.0.0/16"]}}),
            custom("cilium.io/v2alpha1", "CiliumPodIPPool", "b", spec={"ipv4": {"cidrs": ["10.61.0.0/16"]}}),
        ],
    ),
):
    record(
        f"kubeadm, Cilium {mode}",
        cluster(
            two(S244),
            "10.96.0.1",
            *plane("10.244.0.0/16", "10.96.0.0/12"),
            kubeadm("10.244.0.0/16"),
            CILIUM,
            config(
                "cilium-config",
                {"ipam": mode, "cluster-pool-ipv4-cidr": "10.50.0.0/16", "kube-proxy-replacement": "true", "tunnel-port": "8473"},
            ),
            extra,
            servicecidr("10.96.0.0/12"),
            pod("a", [pods[0].replace("0.0/16", "1.7")]),
        ),
        Expected(
            "kubeadm",
            "cilium",
            pods,
            ("10.96.0.0/12",),
            ipam=ipam,
            ports=(8473,),
            translates=False,
            blocks_match_pods=False,
        ),
    )
record(
    "EKS, Cilium ENI",
    cluster(
        [node("i-1", ["10.1.2.10"], kubelet="v1.34.1-eks-abc", labels={"eks.amazonaws.com/nodegroup": "x"}, provider="aws:///i-1")],
        "172.20.0.1",
        CILIUM,
        config("cilium-config", {"ipam": "eni", "routing-mode": "native"}),
        custom(
            "cilium.io/v2",
            "CiliumNode",
            "i-1",
            spec={},
            status={"eni": {"enis": {"eni-1": {"subnet": {"cidr": "10.1.2.0/24"}}}}},
        ),
        servicecidr("172.20.0.0/16"),
        pod("a", ["10.1.2.77"]),
        endpoint="10.1.9.1",
        port=443,
    ),
    Expected(
        "eks",
        "cilium",
        ("10.1.0.0/16",),
        ("172.20.0.0/16",),
        pods_status="partial",
        ipam="vpc",
        blocks_match_pods=False,
        lan=("10.1.2.0/24",),
        endpoint="10.1.9.1:443",
    ),
)
record(
    "EKS, AWS VPC CNI with Calico's policies",
    cluster(
        [node("i-1", ["10.1.2.10"], kubelet="v1.34.1-eks-abc", provider="aws:///i-1", external="52.1.2.3")],
        "172.20.0.1",
        AWS_NODE,
        CALICO_OPERATOR,
        KUBE_PROXY,
        ippool("172.16.0.0/16"),
        installation(cni={"type": "AmazonVPC"}),
        servicecidr("172.20.0.0/16"),
        pod("a", ["10.1.2.77"]),
        endpoint="10.1.9.1",
        port=443,
    ),
    Expected(
        "eks",
        "aws-vpc-cni",
        ("10.1.0.0/16",),
        ("172.20.0.0/16",),
        pods_status="unknown",
        ipam="vpc",
        translates=True,
        endpoint="10.1.9.1:443",
    ),
)
record(
    "EKS, IPv6",
    cluster(
        [node("i-1", ["10.1.2.10", "2600:1f13:1::10"], kubelet="v1.34.1-eks-abc", provider="aws:///i-1")],
        "fd12:3456:789a::1",
        AWS_NODE,
        KUBE_PROXY,
        servicecidr("fd12:3456:789a::/108"),
        pod("a", ["2600:1f13:1::77"]),
        endpoint="2600:1f13:1::1",
        port=443,
    ),
    Expected(
        "eks",
        "aws-vpc-cni",
        ("2600:1f13:1::/56",),
        ("fd12:3456:789a::/108",),
        pods_status="unknown",
        ipam="vpc",
        enforces=None,
        translates=True,
        families=("ipv6",),
        endpoint="2600:1f13:1::1:443",
    ),
)
record(
    "GKE",
    cluster(
        [node("gke-1", ["10.128.0.2"], ["10.4.1.0/24"], kubelet="v1.33.1-gke.100", labels={"cloud.google.com/gke-nodepool": "x"})],
        "34.118.224.1",
        daemonset("anetd", {"k8s-app": "cilium"}, mounts=["cilium-config"]),
        config("cilium-config", {"ipam": "kubernetes", "kube-proxy-replacement": "true"}),
        servicecidr("34.118.224.0/20"),
        pod("a", ["10.4.1.9"]),
        daemonset("node-local-dns", {"k8s-app": "node-local-dns"}, args=["-localip", "169.254.20.10,34.118.224.10"]),
        endpoint="10.128.0.9",
        port=443,
        version="v1.33.1-gke.100",
    ),
    Expected(
        "gke",
        "cilium",
        ("10.4.0.0/14",),
        ("34.118.224.0/20",),
        pods_status="partial",
        translates=False,
        ports=(8472,),
        blocks_match_pods=False,
        endpoint="10.128.0.9:443",
    ),
)
record(
    "AKS, Azure CNI",
    cluster(
        [node("aks-1", ["10.224.0.4"], labels={"kubernetes.azure.com/cluster": "x"}, provider="azure:///x")],
        "10.0.0.1",
        daemonset("azure-cns", {"k8s-app": "azure-cns"}),
        daemonset("kube-proxy", {"component": "kube-proxy", "k8s-app": "kube-proxy"}),
        servicecidr("10.0.0.0/16"),
        servicecidr("10.250.0.0/24", name="more", ready=False),
        service("late", ["10.250.0.9"]),
        pod("a", ["10.224.0.40"]),
        endpoint="20.1.2.3",
        port=443,
    ),
    Expected(
        "aks",
        "azure-cni",
        ("10.224.0.0/12",),
        ("10.0.0.0/16", "10.250.0.0/24"),
        pods_status="unknown",
        ipam="vpc",
        enforces=None,
        translates=True,
        blocks_match_pods=None,
        endpoint="20.1.2.3:443",
    ),
)
record(
    "kOps",
    cluster(
        [
            node("i-1", ["172.20.1.5"], ["100.96.0.0/24"], labels={"kops.k8s.io/instancegroup": "a"}, provider="aws:///i-1"),
            node("i-2", ["172.20.1.6"], ["100.96.1.0/24"], labels={"kops.k8s.io/instancegroup": "a"}, provider="aws:///i-2"),
        ],
        "100.64.0.1",
        *plane("100.96.0.0/11", "100.64.0.0/13", label="k8s-app", where="args"),
        daemonset("kube-router", {"k8s-app": "kube-router"}),
        servicecidr("100.64.0.0/13"),
        endpoint="172.20.1.5",
    ),
    Expected("kops", "kube-router", ("100.96.0.0/11",), ("100.64.0.0/13",), endpoint="172.20.1.5:6443"),
)
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
RKE2 = {"kubelet": "v1.33.4+rke2r1", "provider": "rke2://n"}
RKE2_DNS = dns("10.43.0.10", "rke2-coredns-rke2-coredns")
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
record(
    "OpenShift",
    cluster(
        [
            node(
                "m0",
                ["10.0.0.5"],
                image="Red Hat Enterprise Linux CoreOS 418",
                notes={"k8s.ovn.org/node-primary-ifaddr": '{"ipv4":"10.0.0.5/22"}'},
            )
        ],
        "172.30.0.1",
        daemonset("ovnkube-node", {"app": "ovnkube-node"}, "openshift-ovn-kubernetes"),
        custom(
            "config.openshift.io/v1",
            "Network",
            "cluster",
            spec={"clusterNetwork": [{"cidr": "10.130.0.0/16"}], "serviceNetwork": ["172.30.0.0/16"]},
            status={
                "networkType": "OVNKubernetes",
                "clusterNetwork": [{"cidr": "10.128.0.0/14", "hostPrefix": 23}],
                "serviceNetwork": ["172.30.0.0/16"],
            },
        ),
        pod("a", ["10.129.0.8"]),
        endpoint="10.0.0.5",
        name_server=dns(
            "172.30.0.10",
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
        ("10.128.0.0/14",),
        ("172.30.0.0/16",),
        ipam="openshift",
        ports=(6081,),
        lan=("10.0.0.0/22",),
        endpoint="10.0.0.5:6443",
        dns="openshift-dns",
    ),
)
record(
    "kubeadm, OVN-Kubernetes",
    cluster(
        two([("10.128.0.0/23",), ("10.128.2.0/23",)]),
        "10.96.0.1",
        kubeadm("10.128.0.0/14"),
        daemonset("ovnkube-node", {"app": "ovnkube-node", "name": "ovnkube-node"}, "ovn-kubernetes"),
        config("ovn-config", {"net_cidr": "10.128.0.0/14/23", "svc_cidr": "10.96.0.0/16"}, "ovn-kubernetes"),
        pod("a", ["10.129.4.8"]),
        servicecidr("10.96.0.0/16"),
    ),
    Expected("kubeadm", "ovn-kubernetes", ("10.128.0.0/14",), ("10.96.0.0/16",), ipam="ovn", ports=(6081,)),
)
record(
    "kubeadm, Antrea",
    cluster(
        two(S244),
        "10.96.0.1",
        *plane("10.244.0.0/16", "10.96.0.0/12", where="shell"),
        kubeadm("10.244.0.0/16"),
        KUBE_PROXY,
        daemonset("antrea-agent", {"app": "antrea", "component": "antrea-agent"}, mounts=["antrea-config"]),
        config("antrea-config", {"antrea-controller.conf": "nodeIPAM:\n  enableNodeIPAM: false\n"}),
        servicecidr("10.96.0.0/12"),
    ),
    Expected("kubeadm", "antrea", ("10.244.0.0/16",), ("10.96.0.0/12",), ports=(6081,), translates=True),
)
record(
    "kubeadm, Antrea with its own node IPAM",
    cluster(
        two(S244),
        "10.96.0.1",
        *plane("10.9.0.0/16", "10.96.0.0/12", allocates=False),
        kubeadm(),
        daemonset("antrea-agent", {"app": "antrea", "component": "antrea-agent"}, mounts=["antrea-config-7h"]),
        config(
            "antrea-config-7h",
            {"antrea-controller.conf": json.dumps({"nodeIPAM": {"enableNodeIPAM": True, "clusterCIDRs": ["10.244.0.0/18"]}})},
        ),
        servicecidr("10.96.0.0/12"),
        pod("a", ["10.244.1.3"]),
    ),
    Expected("kubeadm", "antrea", ("10.244.0.0/18",), ("10.96.0.0/12",), ipam="antrea", ports=(6081,)),
)
record(
    "kubeadm, weave",
    cluster(
        two(),
        "10.96.0.1",
        kubeadm(),
        daemonset("weave-net", {"name": "weave-net"}, env={"IPALLOC_RANGE": "10.32.0.0/12"}),
        KUBE_PROXY,
        pod("a", ["10.40.0.3"]),
        *plane("10.9.0.0/16", "10.96.0.0/12", allocates=False),
        version="v1.22.1",
    ),
    Expected("kubeadm", "weave", ("10.32.0.0/12",), ("10.96.0.0/12",), ipam="weave", ports=(6784,), translates=True),
)

__all__ = ["CLUSTERS", "Expected", "cluster", "endpoint_slice", "two"]
