# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recorded clusters: what they are made of, and those of kubeadm with every CNI; what their documentation says they have."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from recordings import (
    Cluster,
    Object,
    config,
    custom,
    daemonset,
    dns,
    flannel,
    ippool,
    kubeadm,
    kubernetes,
    node,
    pod,
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
RKE2 = {"kubelet": "v1.33.4+rke2r1", "provider": "rke2://n"}
RKE2_DNS = dns("10.43.0.10", "rke2-coredns-rke2-coredns")
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
