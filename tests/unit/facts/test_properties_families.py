# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Random clusters of every distribution and both families: rights taken away and true sources added never make it wrong."""

from __future__ import annotations

import ipaddress
import random
from typing import Any

from ansible_collections.homelab.netguard.plugins.module_utils._facts.discover import discover
from clusters import CALICO, CALICO_CONFIG, CILIUM, KUBE_PROXY, cluster, plane
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import Cluster, Object, config, custom, daemonset, flannel, ippool, kubeadm, node, pod, server_args, servicecidr

KINDS = (
    "flannel",
    "calico",
    "cilium-pool",
    "cilium-pools",
    "cilium-kubernetes",
    "antrea",
    "kube-router",
    "ovn",
    "openshift",
    "k3s",
    "k3s-default",
    "canal",
)
BY_NODE = ("flannel", "cilium-kubernetes", "antrea", "kube-router", "k3s", "k3s-default", "canal")
RIGHTS = ("Node", "Pod", "Service", "ConfigMap", "DaemonSet", "ServiceCIDR", "IPAddress", "IPPool", "CiliumPodIPPool", "Network")


@st.composite
def truths(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(KINDS))
    length, base = draw(st.integers(13, 20)), draw(st.integers(16, 200))
    pods = [str(ipaddress.ip_network(f"10.{base}.0.0/{length}", strict=False))]
    services = [str(ipaddress.ip_network(f"172.{draw(st.integers(16, 31))}.0.0/{draw(st.integers(16, 24))}", strict=False))]
    if kind == "k3s-default":
        pods, services = ["10.42.0.0/16"], ["10.43.0.0/16"]
    elif draw(st.booleans()):
        pods.append(f"2001:db8:{draw(st.integers(1, 99)):x}00::/{draw(st.integers(48, 56))}")
        services.append(f"2001:db8:ffff::/{draw(st.integers(108, 112))}")
    return {
        "kind": kind,
        "pods": pods,
        "services": services,
        "version": draw(st.sampled_from(["v1.30.1", "v1.34.1"])),
        "seed": draw(st.integers(0, 1000)),
        "count": draw(st.integers(0, 3)),
    }


def somewhere(cidr: str, dice: random.Random) -> str:
    net = ipaddress.ip_network(cidr)
    return str(net[2 + dice.randrange(min(net.num_addresses, 1 << 20) - 3)])


def build(truth: dict[str, Any]) -> Cluster:
    kind, pods, services = truth["kind"], truth["pods"], truth["services"]
    dice = random.Random(truth["seed"])
    k3s = kind.startswith("k3s")
    by_node = kind in BY_NODE
    nodes = []
    for number in range(2):
        cut = [str(next(iter(net.subnets(new_prefix=64 if net.version == 6 else 24)))) for net in map(ipaddress.ip_network, pods)]
        # The second node's slices are the last ones, so that slices alone show that the range is wider than one.
        if number:
            cut = [
                str(ipaddress.ip_network((int(net.broadcast_address) >> size << size, net.max_prefixlen - size)))
                for net in map(ipaddress.ip_network, pods)
                for size in [64 if net.version == 6 else 8]
            ]
        words = ["--cluster-cidr", ",".join(pods), "--service-cidr", ",".join(services)] if kind == "k3s" else []
        nodes.append(
            node(
                f"n{number}",
                [f"192.168.1.{10 + number}"],
                cut if by_node else [],
                notes=server_args(*words) if k3s else {},
                kubelet="v1.34.1+k3s1" if k3s else "v1.34.1",
            )
        )
    both, all_services = ",".join(pods), ",".join(services)
    v6 = {"EnableIPv6": True, "IPv6Network": pods[1]} if len(pods) > 1 else {}
    pool = {f"ipv{4 if '.' in item else 6}": {"cidrs": [item]} for item in pods}
    split = {f"cluster-pool-ipv{4 if '.' in item else 6}-cidr": item for item in pods}
    status = {
        "networkType": "OVNKubernetes",
        "clusterNetwork": [{"cidr": item, "hostPrefix": 24} for item in pods],
        "serviceNetwork": services,
    }
    agent = daemonset("ovnkube-node", {"app": "ovnkube-node"}, "ovn-kubernetes")
    hosted = ",".join(f"{item}/{64 if ':' in item else 24}" for item in pods)
    objects: list[Object] = {
        "flannel": [daemonset("f", {"app": "flannel"}, "kube-flannel", mounts=["kube-flannel-cfg"]), flannel(pods[0], **v6)],
        "canal": [
            daemonset("canal", {"k8s-app": "canal"}, mounts=["canal-config"]),
            flannel(pods[0], "canal-config", "kube-system", **v6),
            ippool("192.168.0.0/16"),
        ],
        "calico": [CALICO, CALICO_CONFIG, *(ippool(item, f"pool-{number}") for number, item in enumerate(pods))],
        "cilium-pool": [CILIUM, config("cilium-config", {"ipam": "cluster-pool", **split})],
        "cilium-pools": [
            CILIUM,
            config("cilium-config", {"ipam": "multi-pool", "cluster-pool-ipv4-cidr": "10.0.0.0/12"}),
            custom("cilium.io/v2alpha1", "CiliumPodIPPool", "default", spec=pool),
        ],
        "cilium-kubernetes": [CILIUM, config("cilium-config", {"ipam": "kubernetes", "cluster-pool-ipv4-cidr": "10.0.0.0/8"})],
        "antrea": [daemonset("antrea-agent", {"component": "antrea-agent"})],
        "kube-router": [daemonset("kube-router", {"k8s-app": "kube-router"})],
        "ovn": [agent, config("ovn-config", {"net_cidr": hosted, "svc_cidr": all_services}, "ovn-kubernetes")],
        "openshift": [agent, custom("config.openshift.io/v1", "Network", "cluster", spec={}, status=status)],
        "k3s": [],
        "k3s-default": [],
    }[kind]
    if not k3s and kind not in ("ovn", "openshift"):
        objects += [KUBE_PROXY, *plane(both if by_node else "10.0.0.0/9", all_services)]
    if truth["version"] == "v1.34.1":
        objects.append(servicecidr(*services))
    objects += [pod(f"p{number}", [somewhere(item, dice) for item in pods]) for number in range(truth["count"])]
    anchor = str(ipaddress.ip_network(services[0])[1])
    return cluster(nodes, anchor, *objects, version=truth["version"], name_server=[])


def within(found: list[str], truth: list[str]) -> bool:
    nets = [ipaddress.ip_network(item) for item in truth]
    return all(any(one.version == net.version and one.subnet_of(net) for net in nets) for one in map(ipaddress.ip_network, found))  # type: ignore[arg-type]


def never_wrong(facts: dict[str, Any], truth: dict[str, Any]) -> None:
    """Complete is the truth; a part lies inside of it. Where the allocator is unknown a part may be a range nobody uses. A
    conflict and unknown stop the run, so they are never wrong."""
    for about in ("pods", "services"):
        status, found, true = facts["ranges"][about]["status"], facts["cidrs"][about], truth[about]
        if status == "complete":
            assert set(found) == set(true), (about, facts["ranges"][about])
        elif status == "partial" and (about == "services" or facts["cni"]["ipam"] != "unknown"):
            assert within(found, true), (about, facts["ranges"][about])


@settings(max_examples=40, deadline=None)
@given(truths())
def test_everything_in_sight_is_the_truth(truth: dict[str, Any]) -> None:
    facts = discover(build(truth))
    assert (facts["ranges"]["pods"]["status"], set(facts["cidrs"]["pods"])) == ("complete", set(truth["pods"]))
    assert (facts["ranges"]["services"]["status"], set(facts["cidrs"]["services"])) == ("complete", set(truth["services"]))


@settings(max_examples=50, deadline=None)
@given(truths(), st.lists(st.sampled_from(RIGHTS), min_size=1, max_size=5, unique=True))
def test_rights_taken_away_one_after_the_other(truth: dict[str, Any], rights: list[str]) -> None:
    recorded = build(truth)
    for right in rights:
        recorded = recorded.broken(right, "forbidden")
        never_wrong(discover(recorded), truth)


MORE = ("record", "kube-proxy", "address", "pod", "block")


def true_source(kind: str, truth: dict[str, Any], dice: random.Random) -> Object:
    """Another source that says the truth, or a part of it."""
    pods, services = ",".join(truth["pods"]), ",".join(truth["services"])
    return {
        "record": kubeadm(pods if truth["kind"] in BY_NODE else "", services),
        "kube-proxy": config("kube-proxy", {"config.conf": f"clusterCIDR: {pods}\n"}),
        "address": custom(
            "networking.k8s.io/v1",
            "IPAddress",
            somewhere(truth["services"][0], dice),
            spec={"parentRef": {"resource": "services"}},
        ),
        "pod": pod("late", [somewhere(item, dice) for item in truth["pods"]]),
        "block": config("kubelet-config", {"kubelet": "clusterDomain: cluster.local\n"}),
    }[kind]


@settings(max_examples=50, deadline=None)
@given(
    truths(),
    st.lists(st.sampled_from(MORE), min_size=1, max_size=4, unique=True),
    st.lists(st.sampled_from(RIGHTS), max_size=2, unique=True),
)
def test_true_sources_that_are_added(truth: dict[str, Any], kinds: list[str], rights: list[str]) -> None:
    """What was complete stays so, and nothing becomes wrong, with rights missing or not."""
    dice = random.Random(truth["seed"])
    recorded = build(truth)
    for right in rights:
        recorded = recorded.broken(right, "forbidden")
    before = discover(recorded)
    if truth["kind"].startswith("k3s") or truth["kind"] == "openshift":
        kinds = [kind for kind in kinds if kind in ("address", "pod")]
    for kind in kinds:
        recorded = recorded.plus(true_source(kind, truth, dice))
    after = discover(recorded)
    never_wrong(after, truth)
    for about in ("pods", "services"):
        if before["ranges"][about]["status"] == "complete":
            assert (after["ranges"][about]["status"], after["cidrs"][about]) == ("complete", before["cidrs"][about])
