# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Clusters whose sources contradict each other, and what has to come of each."""

from __future__ import annotations

from clusters import CALICO, CALICO_CONFIG, CILIUM, KINDNET, KUBE_PROXY, S244, cluster, plane, two
from recordings import (
    Cluster,
    block,
    config,
    daemonset,
    flannel,
    ippool,
    kubeadm,
    node,
    pod,
    server_args,
    service,
    servicecidr,
    static,
)

FLANNEL = daemonset("kube-flannel-ds", {"app": "flannel"}, "kube-flannel", mounts=["kube-flannel-cfg"])
PLAIN = cluster(two(S244), "10.96.0.1", KINDNET, KUBE_PROXY, *plane("10.244.0.0/16", "10.96.0.0/16"), servicecidr("10.96.0.0/16"))
NO_POOL = cluster(two(), "10.96.0.1", CALICO, CALICO_CONFIG, servicecidr("10.96.0.0/16"))
BARE = cluster(two(S244), "10.96.0.1", FLANNEL)

#: name -> (cluster, class, status, cidrs, a piece of a doubt or of a reason for a rejection)
CASES: dict[str, tuple[Cluster, str, str, list[str] | None, str]] = {
    "plain": (PLAIN, "pods", "complete", ["10.244.0.0/16"], ""),
    "stale kubeadm record": (PLAIN.plus(kubeadm("10.9.0.0/16")), "pods", "complete", ["10.244.0.0/16"], "not in force"),
    "leftover flannel ConfigMap": (
        PLAIN.plus(flannel("10.0.0.0/8")),
        "pods",
        "complete",
        ["10.244.0.0/16"],
        "not-allocating",
    ),
    "leftover cilium-config": (
        PLAIN.plus(config("cilium-config", {"ipam": "cluster-pool", "cluster-pool-ipv4-cidr": "10.0.0.0/8"})),
        "pods",
        "complete",
        ["10.244.0.0/16"],
        "not-allocating",
    ),
    "leftover Calico pools": (
        PLAIN.plus(ippool("192.168.0.0/16"), block("192.168.7.0/26")),
        "pods",
        "complete",
        ["10.244.0.0/16"],
        "not-allocating",
    ),
    "leftover DaemonSet that runs nowhere": (
        PLAIN.plus(daemonset("calico-node", {"k8s-app": "calico-node"}, desired=0), ippool("192.168.0.0/16")),
        "pods",
        "complete",
        ["10.244.0.0/16"],
        "not-allocating",
    ),
    "leftover DaemonSet with nothing ready": (
        PLAIN.plus(daemonset("weave-net", {"name": "weave-net"}, desired=2, ready=0, env={"IPALLOC_RANGE": "10.0.0.0/8"})),
        "pods",
        "complete",
        ["10.244.0.0/16"],
        "not-allocating",
    ),
    "two CNIs that both run": (
        PLAIN.plus(CILIUM, config("cilium-config", {"ipam": "cluster-pool", "cluster-pool-ipv4-cidr": "10.0.0.0/8"})),
        "pods",
        "conflict",
        None,
        "several CNIs run",
    ),
    "flannel's own ConfigMap is stale": (
        BARE.plus(flannel("10.0.0.0/16"), *plane("10.244.0.0/16", "10.96.0.0/16"), servicecidr("10.96.0.0/16")),
        "pods",
        "complete",
        ["10.244.0.0/16"],
        "contradicts kube-controller-manager",
    ),
    "flannel and controller manager differ, both cover": (
        BARE.plus(flannel("10.240.0.0/12"), *plane("10.244.0.0/16", "10.96.0.0/16")),
        "pods",
        "conflict",
        None,
        "kube-controller-manager (pod/kube-system/kube-controller-manager-one) says 10.244.0.0/16",
    ),
    "two flannel ConfigMaps, one is mounted": (
        BARE.plus(flannel("10.244.0.0/16"), flannel("10.244.0.0/14", namespace="kube-system")),
        "pods",
        "complete",
        ["10.244.0.0/16"],
        "",
    ),
    "flannel without IPv4": (
        cluster(
            [node("n", ["fd00:1::10"], ["fd00:10::/64"])],
            "fd00:96::1",
            FLANNEL,
            flannel("10.244.0.0/16", EnableIPv4=False, EnableIPv6=True, IPv6Network="fd00:10::/48"),
            endpoint="fd00:1::10",
        ),
        "pods",
        "complete",
        ["fd00:10::/48"],
        "",
    ),
    "controller manager without --allocate-node-cidrs": (
        cluster(two(), "10.96.0.1", FLANNEL, static("kube-controller-manager", "--cluster-cidr=10.9.0.0/16")),
        "pods",
        "unknown",
        [],
        "no source tells the range",
    ),
    "controller managers that differ": (
        cluster(
            two(S244),
            "10.96.0.1",
            KINDNET,
            static("kube-controller-manager", "--allocate-node-cidrs", "--cluster-cidr=10.244.0.0/16", name="kcm-1"),
            static("kube-controller-manager", "--allocate-node-cidrs", "--cluster-cidr", "10.244.0.0/15", name="kcm-2"),
        ),
        "pods",
        "conflict",
        None,
        "",
    ),
    "dual-stack controller manager, IPv4 slices": (
        cluster(
            two(S244),
            "10.96.0.1",
            FLANNEL,
            *plane("10.244.0.0/16,fd00:10:244::/56", "10.96.0.0/16"),
        ),
        "pods",
        "complete",
        ["10.244.0.0/16", "fd00:10:244::/56"],
        "",
    ),
    "IPv6 pods that no source knows": (
        PLAIN.plus(pod("six", ["10.244.1.9", "fd00:77::9"])),
        "pods",
        "unknown",
        ["10.244.0.0/16"],
        "fd00:77::9",
    ),
    "two nodes with the same slice": (
        PLAIN.plus(node("n3", ["192.168.1.12"], ["10.244.1.0/24"])),
        "pods",
        "conflict",
        None,
        "n2 and n3 have the same slice 10.244.1.0/24",
    ),
    "running pod outside": (PLAIN.plus(pod("a", ["10.7.7.7"])), "pods", "conflict", None, "10.7.7.7 lie outside"),
    "host pods and finished pods prove nothing": (
        PLAIN.plus(pod("a", ["192.168.1.10"], host=True), pod("b", ["10.7.7.7"], phase="Failed")),
        "pods",
        "complete",
        ["10.244.0.0/16"],
        "",
    ),
    "slices alone are parts": (
        cluster(two(S244), "10.96.0.1", KUBE_PROXY, FLANNEL),
        "pods",
        "partial",
        ["10.244.0.0/24", "10.244.1.0/24"],
        "only parts",
    ),
    "Calico pools that do not hold all pods": (
        cluster(two(), "10.96.0.1", CALICO, CALICO_CONFIG, ippool("10.1.0.0/16"), pod("a", ["10.2.0.9"])),
        "pods",
        "conflict",
        None,
        "10.2.0.9 lie outside",
    ),
    "Calico pools, nothing proves the IPAM": (
        cluster(
            two(S244),
            "10.96.0.1",
            daemonset("calico-node", {"k8s-app": "calico-node"}),
            ippool("192.168.0.0/16"),
            block("192.168.7.0/26"),
        ),
        "pods",
        "conflict",
        None,
        "nothing proves which IPAM",
    ),
    "Calico pools, pods are in the blocks": (
        cluster(
            two(),
            "10.96.0.1",
            daemonset("calico-node", {"k8s-app": "calico-node"}),
            ippool("10.1.0.0/16"),
            block("10.1.7.0/26"),
            pod("a", ["10.1.7.2"]),
        ),
        "pods",
        "complete",
        ["10.1.0.0/16"],
        "",
    ),
    "a pool that cannot be": (NO_POOL.plus(ippool("10.0.0.0/7")), "pods", "unknown", [], "wider than /8"),
    "one pool of two that cannot be": (
        NO_POOL.plus(ippool("10.0.0.0/7"), ippool("172.16.0.0/16", "b")),
        "pods",
        "partial",
        ["172.16.0.0/16"],
        "wider than /8",
    ),
    "one word of two that cannot be read": (
        NO_POOL.plus(ippool("10.0.0.0/x"), ippool("172.16.0.0/16", "b")),
        "pods",
        "partial",
        ["172.16.0.0/16"],
        "10.0.0.0/x",
    ),
    "pool that swallows the LAN": (
        NO_POOL.plus(ippool("192.168.0.0/16"), pod("a", ["192.168.9.9"])),
        "pods",
        "complete",
        ["192.168.0.0/16"],
        "pods and the LAN cannot be told apart",
    ),
    "API endpoint among the pods": (
        cluster(two(S244), "10.96.0.1", KINDNET, *plane("10.244.0.0/16", "10.96.0.0/16"), endpoint="10.244.9.9"),
        "pods",
        "conflict",
        None,
        "API endpoint",
    ),
    "pods overlap services": (
        cluster(
            two([("10.96.1.0/24",), ("10.96.2.0/24",)]),
            "10.96.0.1",
            KINDNET.copy() | {"spec": {}},
            servicecidr("10.96.0.0/12"),
            *plane("10.96.0.0/16", "10.96.0.0/12"),
        ),
        "pods",
        "conflict",
        None,
        "overlap the services",
    ),
    "defaults prove nothing": (
        cluster(two(S244, labels={"minikube.k8s.io/name": "m"}), "10.96.0.1", KINDNET.copy() | {"spec": {"template": {}}}),
        "pods",
        "partial",
        ["10.244.0.0/24", "10.244.1.0/24"],
        "10.244.0.0/16, the default of minikube, would fit",
    ),
    "a record that fits, but flags may not be read": (
        PLAIN.less("kindnet", "kube-controller-manager-one")
        .plus(CILIUM, config("cilium-config", {"ipam": "kubernetes"}), kubeadm("10.244.0.0/14"))
        .broken("Pod", "forbidden"),
        "pods",
        "partial",
        ["10.244.0.0/14"],
        "only the record kubeadm",
    ),
    "a record that fits, and flags that do not": (
        BARE.plus(*plane("10.9.0.0/16", "10.96.0.0/16"), kubeadm("10.244.0.0/16")),
        "pods",
        "partial",
        ["10.244.0.0/16"],
        "only the record kubeadm",
    ),
    "flags fit, but no CNI is to be seen": (
        PLAIN.less("kindnet"),
        "pods",
        "partial",
        ["10.244.0.0/16"],
        "not known which allocator",
    ),
    "the only DaemonSet runs nowhere": (
        cluster(
            two(), "10.96.0.1", daemonset("weave-net", {"name": "weave-net"}, desired=0, env={"IPALLOC_RANGE": "10.32.0.0/12"})
        ),
        "pods",
        "unknown",
        [],
        "no CNI is to be seen",
    ),
    "k3s servers that differ": (
        cluster(
            [
                node("n1", ["192.168.1.10"], ["10.42.0.0/24"], notes=server_args(), kubelet="v1.30.1+k3s1"),
                node(
                    "n2",
                    ["192.168.1.11"],
                    ["10.42.1.0/24"],
                    notes=server_args("--cluster-cidr=10.42.0.0/15"),
                    kubelet="v1.30.1+k3s1",
                ),
            ],
            "10.43.0.1",
        ),
        "pods",
        "conflict",
        None,
        "",
    ),
    "k3s agents prove no default": (
        cluster(
            [node("n1", ["192.168.1.10"], ["10.42.0.0/24"], notes={"k3s.io/node-args": '["agent"]'}, kubelet="v1.30.1+k3s1")],
            "10.43.0.1",
        ),
        "pods",
        "partial",
        ["10.42.0.0/24"],
        "",
    ),
    # services
    "service range misses the API's Service": (
        cluster(
            two(S244),
            "10.96.0.1",
            FLANNEL,
            *plane("10.244.0.0/16", "10.96.0.0/16", allocates=False),
            kubeadm("", "10.100.0.0/16"),
            version="v1.30.1",
        ).less("kube-apiserver-one", "kube-controller-manager-one"),
        "services",
        "unknown",
        [],
        "does not begin at the API server's own Service 10.96.0.1",
    ),
    "several ServiceCIDRs, one not ready": (
        PLAIN.plus(servicecidr("10.250.0.0/24", name="b", ready=False), service("s", ["10.250.0.7"])),
        "services",
        "complete",
        ["10.96.0.0/16", "10.250.0.0/24"],
        "",
    ),
    "ServiceCIDR as beta": (
        PLAIN.less("ServiceCIDR").plus(servicecidr("10.96.0.0/16", version="v1beta1"), version="v1.32.0"),
        "services",
        "complete",
        ["10.96.0.0/16"],
        "",
    ),
    "ClusterIP outside of the ServiceCIDRs": (PLAIN.plus(service("s", ["10.77.0.7"])), "services", "conflict", None, "10.77.0.7"),
    "ClusterIP outside of the ServiceCIDR, inside of the flag": (
        PLAIN.less("ServiceCIDR").plus(servicecidr("10.96.0.0/24"), service("s", ["10.96.7.7"])),
        "services",
        "conflict",
        None,
        "but addresses outside of it are in use",
    ),
    "flags differ, no ServiceCIDR": (
        cluster(
            two(S244),
            "10.96.0.1",
            FLANNEL,
            static("kube-apiserver", "--service-cluster-ip-range=10.96.0.0/12", name="a"),
            static("kube-apiserver", "--service-cluster-ip-range=10.96.0.0/16", name="b"),
            version="v1.30.1",
        ),
        "services",
        "conflict",
        None,
        "do not agree",
    ),
    "flags without ServiceCIDR on a version that has it": (
        PLAIN.broken("ServiceCIDR", "forbidden"),
        "services",
        "partial",
        ["10.96.0.0/16"],
        "ranges may have been added since",
    ),
    "flags before ServiceCIDR": (
        PLAIN.less("ServiceCIDR").plus(version="v1.30.1"),
        "services",
        "complete",
        ["10.96.0.0/16"],
        "",
    ),
    "ClusterIPs alone": (cluster(two(S244), "10.96.0.1", FLANNEL, version="v1.30.1"), "services", "unknown", [], "10.96.0.1"),
    "services cover the nodes": (
        cluster([node("n", ["10.96.5.5"])], "10.96.0.1", servicecidr("10.96.0.0/12"), endpoint="10.96.5.5"),
        "services",
        "conflict",
        None,
        "cover the nodes",
    ),
    "public services of a record": (
        cluster(two(), "8.8.0.1", kubeadm("", "8.8.0.0/16"), version="v1.30.1"),
        "services",
        "unknown",
        [],
        "public addresses",
    ),
    "the public range of GKE": (
        cluster(two(), "34.118.224.1", servicecidr("34.118.224.0/20")),
        "services",
        "complete",
        ["34.118.224.0/20"],
        "",
    ),
    # nodes and LAN
    "no mask anywhere": (PLAIN, "lan", "partial", ["192.168.1.10/32", "192.168.1.11/32"], "is not known"),
    "external addresses are no LAN": (
        PLAIN.plus(node("n3", ["192.168.1.12"], external="203.0.113.9")),
        "lan",
        "partial",
        ["192.168.1.10/32", "192.168.1.11/32", "192.168.1.12/32"],
        "",
    ),
    "mask of another interface": (
        cluster(two(notes={"projectcalico.org/IPv4Address": "10.99.0.1/24"}), "10.96.0.1"),
        "lan",
        "partial",
        ["192.168.1.10/32", "192.168.1.11/32"],
        "",
    ),
    "mask of a node that is not in it": (
        cluster(
            [
                node("n1", ["192.168.1.10"], notes={"projectcalico.org/IPv4Address": "192.168.2.5/24"}),
                node("n2", ["192.168.2.11"]),
            ],
            "10.96.0.1",
        ),
        "lan",
        "partial",
        ["192.168.1.10/32", "192.168.2.11/32"],
        "",
    ),
    "host masks say nothing": (
        cluster([node("n1", ["192.168.1.10"], notes={"projectcalico.org/IPv4Address": "192.168.1.10/32"})], "10.96.0.1"),
        "lan",
        "partial",
        ["192.168.1.10/32"],
        "",
    ),
    "a public LAN is asked for": (
        cluster([node("n1", ["52.1.2.3"], notes={"projectcalico.org/IPv4Address": "52.1.2.3/20"})], "10.96.0.1"),
        "lan",
        "partial",
        ["52.1.2.3/32"],
        "public addresses are no LAN",
    ),
    "masks of two annotations differ": (
        cluster(
            [
                node(
                    "n1",
                    ["192.168.1.10"],
                    notes={
                        "projectcalico.org/IPv4Address": "192.168.1.10/16",
                        "k8s.ovn.org/node-primary-ifaddr": '{"ipv4": "192.168.1.10/24"}',
                    },
                )
            ],
            "10.96.0.1",
        ),
        "lan",
        "complete",
        ["192.168.1.0/24"],
        "ovn says 192.168.1.0/24",
    ),
    "machine network of OpenShift": (
        cluster(
            two(),
            "10.96.0.1",
            config("cluster-config-v1", {"install-config": "networking: {machineNetwork: [{cidr: 192.168.0.0/20}]}"}),
        ),
        "lan",
        "complete",
        ["192.168.0.0/20"],
        "",
    ),
    "node without an address": (
        PLAIN.plus(node("n3")),
        "nodes",
        "partial",
        ["192.168.1.10/32", "192.168.1.11/32"],
        "no InternalIP on n3",
    ),
}
