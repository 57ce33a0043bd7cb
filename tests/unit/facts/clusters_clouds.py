# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recorded clusters of clouds and OpenShift, most of them with IPv4 alone."""

from __future__ import annotations

from clusters import AWS_NODE, CALICO_OPERATOR, CILIUM, KUBE_PROXY, Expected, cluster, installation, plane, record
from clusters_local import CLUSTERS
from recordings import config, custom, daemonset, dns, ippool, node, pod, service, servicecidr

__all__ = ["CLUSTERS"]

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
