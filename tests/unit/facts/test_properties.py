# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Random clusters whose truth is known: what is called complete is the truth, whatever else lies around or may not be read."""

from __future__ import annotations

import ipaddress
import random
from typing import Any

from ansible_collections.homelab.netguard.plugins.module_utils._facts.discover import discover
from clusters import CALICO, CALICO_CONFIG, CILIUM, KUBE_PROXY, cluster, plane
from hypothesis import example, given, settings
from hypothesis import strategies as st
from recordings import Cluster, Object, config, daemonset, flannel, ippool, kubeadm, node, pod, servicecidr

KINDS = ("kindnet", "flannel", "calico", "cilium-pool", "cilium-kubernetes", "weave")


def range4(draw: st.DrawFn, first: int, low: int, high: int) -> str:
    length = draw(st.integers(low, high))
    second = draw(st.integers(0, 255))
    return str(ipaddress.ip_network(f"{first}.{second}.{draw(st.integers(0, 15)) * 16}.0/{length}", strict=False))


def lie(draw: st.DrawFn, truth: dict[str, Any]) -> str:
    """A range that something stale may tell: near the truth (wider, narrower), or anywhere."""
    near = ipaddress.ip_network(truth[draw(st.sampled_from(["pods", "services"]))])
    how = draw(st.sampled_from(["wider", "narrower", "anywhere"]))
    if how == "anywhere":
        return range4(draw, 10, 8, 24)
    if how == "wider":
        return str(near.supernet(draw(st.integers(1, 4))))
    return str(ipaddress.ip_network((near.network_address, near.prefixlen + draw(st.integers(1, 3)))))


def inside(cidr: str, position: int) -> str:
    net = ipaddress.ip_network(cidr)
    return str(net[1 + position % (net.num_addresses - 2)])


@st.composite
def truths(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "kind": draw(st.sampled_from(KINDS)),
        "pods": range4(draw, 10, 12, 20),
        "services": range4(draw, 172, 12, 24),
        "more": draw(st.booleans()),
        "cidr": draw(st.booleans()),
        "seed": draw(st.integers(0, 1000)),
        "count": draw(st.integers(0, 4)),
        "version": draw(st.sampled_from(["v1.30.1", "v1.34.1"])),
    }


def build(truth: dict[str, Any]) -> tuple[Cluster, set[str]]:
    """The cluster and its true service ranges."""
    pods, services, kind = truth["pods"], truth["services"], truth["kind"]
    slices = [*ipaddress.ip_network(pods).subnets(new_prefix=24)]
    by_node = kind in ("kindnet", "flannel", "cilium-kubernetes")
    nodes = [
        node(
            f"n{number}",
            [f"192.168.1.{10 + number}"],
            [str(slices[number % len(slices)])] if by_node and number < len(slices) else [],
        )
        for number in range(2)
    ]
    objects: list[Object] = [KUBE_PROXY]
    dice = random.Random(truth["seed"])
    for number in range(truth["count"]):
        objects.append(pod(f"p{number}", [inside(pods, dice.randrange(1 << 20))]))
    # Where another allocator gives the addresses, the controller manager may cut slices of a range that nobody uses.
    objects += plane(pods if by_node else "10.0.0.0/9", services)
    objects += {
        "kindnet": [daemonset("kindnet", {"app": "kindnet"}, env={"POD_SUBNET": pods})],
        "flannel": [daemonset("f", {"app": "flannel"}, "kube-flannel", mounts=["kube-flannel-cfg"]), flannel(pods)],
        "calico": [CALICO, CALICO_CONFIG, ippool(pods)],
        "cilium-pool": [CILIUM, config("cilium-config", {"ipam": "cluster-pool", "cluster-pool-ipv4-cidr": pods})],
        "cilium-kubernetes": [CILIUM, config("cilium-config", {"ipam": "kubernetes", "cluster-pool-ipv4-cidr": "10.0.0.0/8"})],
        "weave": [daemonset("weave-net", {"name": "weave-net"}, env={"IPALLOC_RANGE": pods})],
    }[kind]
    true = {services}
    if truth["version"] == "v1.34.1" or truth["cidr"]:
        # From 1.33 on the API is always there.
        objects.append(servicecidr(services))
        if truth["more"]:
            objects.append(servicecidr("10.250.0.0/24" if not pods.startswith("10.25") else "172.16.0.0/28", name="more"))
            true.add(objects[-1]["spec"]["cidrs"][0])
    listed = cluster(nodes, inside(services, 0), *objects, version=truth["version"], name_server=[])
    # one inside another is no range of its own
    return listed, {str(net) for net in ipaddress.collapse_addresses(map(ipaddress.ip_network, true))}


LEFTOVERS = ("kubeadm", "flannel", "cilium", "pool", "kube-proxy", "idle", "canal")


def leftover(kind: str, lies: str) -> Object:
    return {
        "kubeadm": kubeadm(lies, lies),
        "flannel": flannel(lies, namespace="kube-system"),
        "cilium": config("cilium-config", {"ipam": "cluster-pool", "cluster-pool-ipv4-cidr": lies}, "old"),
        "pool": config("canal-config", {"net-conf.json": f'{{"Network": "{lies}"}}'}),
        "kube-proxy": config("kube-proxy", {"config.conf": f"clusterCIDR: {lies}\n"}),
        "idle": daemonset("old", {"name": "weave-net"}, desired=0, env={"IPALLOC_RANGE": lies}),
        "canal": daemonset("old", {"k8s-app": "canal"}, desired=3, ready=0, mounts=["canal-config"]),
    }[kind]


def right(recorded: Cluster, truth: dict[str, Any], services: set[str]) -> None:
    facts = discover(recorded)
    for about, true in (("pods", {truth["pods"]}), ("services", services)):
        if facts["ranges"][about]["status"] == "complete":
            assert set(facts["cidrs"][about]) == true, facts["ranges"][about]


NESTED = {"kind": "kindnet", "pods": "10.250.0.0/15", "services": "172.16.0.0/12", "version": "v1.30.1"}


@settings(max_examples=60, deadline=None)
@example(NESTED | {"more": True, "cidr": True, "seed": 0, "count": 0})
@given(truths())
def test_a_consistent_cluster_is_known(truth: dict[str, Any]) -> None:
    """With everything to be seen the truth comes out, and comes out complete."""
    recorded, services = build(truth)
    facts = discover(recorded)
    overlap = any(ipaddress.ip_network(one).overlaps(ipaddress.ip_network(truth["pods"])) for one in services)
    if not overlap:
        assert (facts["ranges"]["pods"]["status"], facts["cidrs"]["pods"]) == ("complete", [truth["pods"]])
        assert (facts["ranges"]["services"]["status"], set(facts["cidrs"]["services"])) == ("complete", services)


@settings(max_examples=80, deadline=None)
@given(truths(), st.lists(st.sampled_from(LEFTOVERS), max_size=3, unique=True), st.data())
def test_leftovers_never_make_it_wrong(truth: dict[str, Any], kinds: list[str], data: st.DataObject) -> None:
    recorded, services = build(truth)
    extra = [leftover(kind, lie(data.draw, truth)) for kind in kinds]
    names = {(item["kind"], item["metadata"]["name"], item["metadata"].get("namespace")) for item in recorded.objects}
    extra = [item for item in extra if (item["kind"], item["metadata"]["name"], item["metadata"].get("namespace")) not in names]
    right(recorded.plus(*extra), truth, services)


@settings(max_examples=80, deadline=None)
@given(
    truths(),
    st.lists(st.sampled_from(LEFTOVERS), max_size=2, unique=True),
    st.dictionaries(
        st.sampled_from(["Node", "Pod", "Service", "ConfigMap", "DaemonSet", "ServiceCIDR", "IPPool", "/apis", "/version"]),
        st.sampled_from(["forbidden", "failed"]),
        max_size=4,
    ),
    st.data(),
)
def test_what_may_not_be_read_never_makes_it_wrong(
    truth: dict[str, Any], kinds: list[str], faults: dict[str, str], data: st.DataObject
) -> None:
    recorded, services = build(truth)
    extra = [leftover(kind, lie(data.draw, truth)) for kind in kinds]
    right(recorded.plus(*extra, faults=faults), truth, services)


@settings(max_examples=60, deadline=None)
@given(truths(), st.randoms(use_true_random=False))
def test_order_never_matters(truth: dict[str, Any], dice: random.Random) -> None:
    recorded, _services = build(truth)
    mixed = recorded.plus()
    dice.shuffle(mixed.objects)
    assert discover(recorded) == discover(mixed)
