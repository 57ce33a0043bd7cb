# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Random clusters in which a source lies: what is observed refutes it, or nothing is called certain."""

from __future__ import annotations

import ipaddress
import random
from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._facts.discover import discover
from clusters import CALICO, CALICO_CONFIG, CILIUM, KUBE_PROXY, cluster, plane
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import (
    Cluster,
    Object,
    config,
    custom,
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
from test_properties_families import BY_NODE, build, somewhere, truths

FLANNEL = daemonset("f", {"app": "flannel"}, "kube-flannel", mounts=["kube-flannel-cfg"])
ROUTER = daemonset("kube-router", {"k8s-app": "kube-router"})
SERVICES = "10.96.0.0/16"

bases = st.integers(16, 90).map(lambda number: f"10.{number}.0.0")
lengths = st.integers(13, 20)
seeds = st.integers(0, 1000)


def net(base: str, length: int) -> str:
    return str(ipaddress.ip_network(f"{base}/{length}", strict=False))


def halves(cidr: str) -> tuple[str, str]:
    first, second = ipaddress.ip_network(cidr).subnets()
    return str(first), str(second)


def slices(*cidrs: str) -> list[Object]:
    """A node for each range, with the first /24 of it."""
    return [
        node(f"n{number}", [f"192.168.1.{10 + number}"], [str(next(iter(ipaddress.ip_network(cidr).subnets(new_prefix=24))))])
        for number, cidr in enumerate(cidrs)
    ]


def bare(*nodes: Object) -> list[Object]:
    return [*nodes] or [node("n1", ["192.168.1.10"])]


def pods_of(recorded: Cluster) -> tuple[str, list[str]]:
    facts = discover(recorded)
    return facts["ranges"]["pods"]["status"], facts["cidrs"]["pods"]


def says(kind: str, cidr: str) -> list[Object]:
    """A CNI that allocates, and that says this range."""
    settings_of = {"ipam": "cluster-pool", "cluster-pool-ipv4-cidr": cidr}
    pool = custom("cilium.io/v2alpha1", "CiliumPodIPPool", "default", spec={"ipv4": {"cidrs": [cidr]}})
    network = {"networkType": "OVNKubernetes", "clusterNetwork": [{"cidr": cidr}], "serviceNetwork": [SERVICES]}
    agent = daemonset("ovnkube-node", {"app": "ovnkube-node"}, "ovn-kubernetes")
    return {
        "calico": [CALICO, CALICO_CONFIG, ippool(cidr)],
        "cilium-pool": [CILIUM, config("cilium-config", settings_of)],
        "cilium-pools": [CILIUM, config("cilium-config", {"ipam": "multi-pool"}), pool],
        "weave": [daemonset("weave-net", {"name": "weave-net"}, env={"IPALLOC_RANGE": cidr})],
        "ovn": [agent, config("ovn-config", {"net_cidr": f"{cidr}/24", "svc_cidr": SERVICES}, "ovn-kubernetes")],
        "openshift": [agent, custom("config.openshift.io/v1", "Network", "cluster", spec={}, status=network)],
        "kindnet": [daemonset("kindnet", {"app": "kindnet"}, env={"POD_SUBNET": cidr})],
    }[kind]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["calico", "cilium-pool", "cilium-pools", "weave", "ovn", "openshift", "kindnet"]), bases, lengths, seeds)
def test_an_allocator_that_does_not_hold_its_pods(kind: str, base: str, length: int, seed: int) -> None:
    """A pod in the half that the allocator does not know of: never certain, and the pod is named."""
    known, rest = halves(net(base, length))
    dice = random.Random(seed)
    inside, outside = pod("a", [somewhere(known, dice)]), pod("b", [somewhere(rest, dice)])
    objects = [*says(kind, known), servicecidr(SERVICES), inside]
    assert pods_of(cluster(bare(), "10.96.0.1", *objects)) == ("complete", [known])
    facts = discover(cluster(bare(), "10.96.0.1", *objects, outside))
    assert facts["ranges"]["pods"]["status"] == "conflict"
    assert facts["ranges"]["pods"]["observed"]["outside"] == [outside["status"]["podIPs"][0]["ip"]]


@settings(max_examples=40, deadline=None)
@given(bases, lengths)
def test_a_slice_outside_refutes_as_a_pod_does(base: str, length: int) -> None:
    known, rest = halves(net(base, length))
    objects = [*says("kindnet", known), servicecidr(SERVICES)]
    assert pods_of(cluster(slices(known), "10.96.0.1", *objects)) == ("complete", [known])
    assert pods_of(cluster(slices(known, rest), "10.96.0.1", *objects))[0] == "conflict"


@settings(max_examples=40, deadline=None)
@given(bases, lengths)
def test_a_stale_record_of_the_cni_is_passed_over(base: str, length: int) -> None:
    """flannel's ConfigMap knows a half, slices lie in both: what the controller manager runs with holds them."""
    whole = net(base, length)
    known, rest = halves(whole)
    recorded = cluster(
        slices(known, rest), "10.96.0.1", FLANNEL, flannel(known), *plane(whole, SERVICES), KUBE_PROXY, servicecidr(SERVICES)
    )
    assert pods_of(recorded) == ("complete", [whole])


@settings(max_examples=40, deadline=None)
@given(bases, lengths, st.integers(1, 3), st.booleans())
def test_two_that_hold_everything_and_differ(base: str, length: int, wider: int, fleet: bool) -> None:
    """flannel and the controller manager, or two controller managers: nothing tells which of them is right."""
    whole = net(base, length)
    more = str(ipaddress.ip_network(whole).supernet(wider))
    flags = ("--allocate-node-cidrs=true",)
    if fleet:
        cni = [ROUTER]
        claims = [
            static("kube-controller-manager", *flags, f"--cluster-cidr={item}", name=f"kcm-{number}")
            for number, item in enumerate((whole, whole, more))
        ]
    else:
        cni = [FLANNEL, flannel(more)]
        claims = [static("kube-controller-manager", *flags, f"--cluster-cidr={whole}")]
    status, _cidrs = pods_of(cluster(slices(whole), "10.96.0.1", *cni, *claims, servicecidr(SERVICES)))
    assert status == "conflict"


@settings(max_examples=40, deadline=None)
@given(st.integers(17, 28), seeds)
def test_service_addresses_outside_of_the_ranges_that_are_listed(length: int, seed: int) -> None:
    """A Service outside of the ServiceCIDRs: neither they nor the wider flag are certain."""
    listed = f"10.96.0.0/{length}"
    dice = random.Random(seed)
    outside = str(ipaddress.ip_address(int(ipaddress.ip_network(listed)[-1]) + 1 + dice.randrange(255)))
    found = cluster(
        bare(),
        "10.96.0.1",
        ROUTER,
        *plane("10.244.0.0/16", SERVICES),
        servicecidr(listed),
        service("late", [outside]),
        name_server=[],
    )
    assert discover(found)["ranges"]["services"]["status"] == "conflict"
    handed_out = custom("networking.k8s.io/v1", "IPAddress", outside, spec={})
    assert discover(found.less("late").plus(handed_out))["ranges"]["services"]["status"] == "conflict"


@settings(max_examples=60, deadline=None)
@given(bases, lengths, st.sampled_from(["nothing in use", "flags that do not fit", "pods unreadable"]))
def test_a_record_alone(base: str, length: int, how: str) -> None:
    """kubeadm's record is certain with something inside of it, and with nothing of more trust that is lost or says otherwise."""
    whole = net(base, length)
    record = kubeadm(whole, SERVICES)
    good = cluster(slices(whole), "10.96.0.1", ROUTER, record, servicecidr(SERVICES))
    assert pods_of(good) == ("complete", [whole])
    doubtful = {
        "nothing in use": cluster(bare(), "10.96.0.1", ROUTER, record, servicecidr(SERVICES)),
        "flags that do not fit": good.plus(*plane("10.9.0.0/24", SERVICES)),
        "pods unreadable": good.broken("Pod", "forbidden"),
    }[how]
    assert pods_of(doubtful) == ("partial", [whole])


LABELS = {
    "minikube": {"labels": {"minikube.k8s.io/name": "m"}},
    "talos": {"image": "Talos (v1.11.0)"},
    "k0s": {"kubelet": "v1.34.1+k0s"},
    "aks": {"labels": {"kubernetes.azure.com/cluster": "x"}},
    "k3s": {"kubelet": "v1.34.1+k3s1"},
}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(LABELS)), st.booleans(), seeds)
def test_a_default_that_everything_fits_is_a_hypothesis(name: str, in_default: bool, seed: int) -> None:
    """Slices and pods inside of a distribution's default, and outside of it: without a source both are unknown or parts."""
    range_ = {"k3s": "10.42.0.0/16"}.get(name, "10.244.0.0/16") if in_default else "10.7.0.0/16"
    cut = str(next(iter(ipaddress.ip_network(range_).subnets(new_prefix=24))))
    host = node("n1", ["192.168.1.10"], [cut], **LABELS[name])  # type: ignore[arg-type]
    running = pod("a", [somewhere(cut, random.Random(seed))])
    facts = discover(cluster([host], "10.96.0.1", ROUTER, running, version="v1.30.1"))
    assert facts["ranges"]["pods"]["status"] == "partial"
    assert facts["cidrs"]["pods"] == [cut]
    assert facts["ranges"]["services"]["status"] == "unknown"


@pytest.mark.parametrize("kind", ["calico", "k3s", "antrea", "kube-router", "cilium-kubernetes"])
@settings(max_examples=12, deadline=None)
@given(truth=truths().filter(lambda one: one["kind"] != "k3s-default"), seed=seeds)
def test_sources_that_are_about_something_else(kind: str, truth: dict[str, Any], seed: int) -> None:
    """Pools for load balancers, arguments of agents, a controller manager that cuts no slices, a family that is switched off."""
    truth = {**truth, "kind": kind}
    recorded = build(truth)
    other = f"10.{210 + seed % 30}.0.0/16"
    more: list[Object] = [ippool(other, "lb", allowedUses=["LoadBalancer"])]
    agent = server_args("--cluster-cidr", other, "--service-cidr", other)["k3s.io/node-args"].replace('"server"', '"agent"')
    if kind == "k3s":
        more.append(node("agent", ["192.168.1.99"], notes={"k3s.io/node-args": agent}, kubelet="v1.34.1+k3s1"))
    if kind in ("antrea", "kube-router"):
        more.append(static("kube-controller-manager", f"--cluster-cidr={other}", name="kcm-idle"))
    facts = discover(recorded.plus(*more))
    assert (facts["ranges"]["pods"]["status"], set(facts["cidrs"]["pods"])) == ("complete", set(truth["pods"]))
    assert set(facts["cidrs"]["services"]) == set(truth["services"])


@settings(max_examples=40, deadline=None)
@given(lengths, st.booleans())
def test_flannel_with_a_family_switched_off(length: int, six: bool) -> None:
    """What its ConfigMap says of a family that is off is no range of pods."""
    four, other = net("10.20.0.0", length), "2001:db8:7::/56"
    host = node("n1", ["2001:db8:1::9"] if six else ["192.168.1.10"], ["2001:db8:7::/64"] if six else [])
    words = {"EnableIPv4": not six, "EnableIPv6": six, "IPv6Network": other}
    recorded = cluster([host], "fd00:96::1" if six else "10.96.0.1", FLANNEL, flannel(four, **words), endpoint="2001:db8:1::9")
    assert discover(recorded)["cidrs"]["pods"] == [other if six else four]


@pytest.mark.parametrize("right", ["DaemonSet", "ConfigMap", "IPPool", "CiliumPodIPPool", "Network", "Pod", "Node"])
@settings(max_examples=12, deadline=None)
@given(truth=truths(), seed=seeds)
def test_lies_are_never_taken_for_what_may_not_be_read(right: str, truth: dict[str, Any], seed: int) -> None:
    """The source that speaks is forbidden, and a record lies: whatever is then called complete is the truth all the same."""
    dice = random.Random(seed)
    near = ipaddress.ip_network(truth["pods"][0])
    wide = str(near.supernet(dice.randint(1, 3)))
    lies = [kubeadm(wide, truth["services"][0]), config("kube-proxy", {"config.conf": f"clusterCIDR: {wide}\n"})]
    recorded = build(truth).plus(*(lies if truth["kind"] in BY_NODE and not truth["kind"].startswith("k3s") else []))
    facts = discover(recorded.broken(right, "forbidden"))
    for about in ("pods", "services"):
        if facts["ranges"][about]["status"] == "complete":
            assert set(facts["cidrs"][about]) == set(truth[about]), (about, right)


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 60), st.integers(16, 24), st.sampled_from(["flag", "record", "record alone", "probe"]))
def test_a_range_that_does_not_begin_at_the_api_servers_own_service(number: int, length: int, how: str) -> None:
    """One that is wider holds every ClusterIP, but begins elsewhere: it is refused, whoever says it."""
    true, wide = f"10.{2 * number + 1}.0.0/{length}", f"10.{2 * number}.0.0/15"
    anchor = f"10.{2 * number + 1}.0.1"
    objects: list[Object] = [ROUTER, service("a", [f"10.{2 * number + 1}.0.9"])]
    options: dict[str, Any] = {"version": "v1.30.1", "name_server": []}
    if how in ("flag", "record"):
        objects.append(static("kube-apiserver", f"--service-cluster-ip-range={true}"))
    if how == "flag":
        objects.append(static("kube-controller-manager", f"--service-cluster-ip-range={wide}"))
    elif how == "probe":
        options["refusal"] = lambda _manifest: (422, f"The range of valid IPs is {wide}")
    else:
        objects.append(kubeadm("", wide))
    facts = discover(cluster(bare(), anchor, *objects, **options))
    found = facts["ranges"]["services"]
    wanted = ("complete", [true]) if how in ("flag", "record") else ("unknown", [])
    assert (found["status"], facts["cidrs"]["services"]) == wanted
    assert any(entry["cidr"] == wide and "does not begin at" in entry["reason"] for entry in found["rejected"])


@settings(max_examples=40, deadline=None)
@given(bases, lengths, st.sampled_from([4, 6]), seeds)
def test_one_family_in_doubt_is_enough(base: str, length: int, family: int, seed: int) -> None:
    """The other family is whole, and the class is no more certain than the worse of both."""
    four, six = net(base, length), "2001:db8:7::/56"
    dice = random.Random(seed)
    outside = {4: "10.200.0.9", 6: "2001:db8:99::9"}[family]
    both = [somewhere(four, dice), somewhere(six, dice)]
    objects = [CALICO, CALICO_CONFIG, ippool(four), ippool(six, "six"), servicecidr(SERVICES), pod("a", both)]
    assert pods_of(cluster(bare(), "10.96.0.1", *objects)) == ("complete", [four, six])
    assert pods_of(cluster(bare(), "10.96.0.1", *objects, pod("b", [outside])))[0] == "conflict"
    alone = [item for item in objects if item["kind"] != "IPPool" or (":" in item["spec"]["cidr"]) != (family == 6)]
    assert pods_of(cluster(bare(), "10.96.0.1", *alone)) == ("unknown", [six if family == 4 else four])


def leftover(kind: str, cidr: str) -> Object:
    """Something of a CNI that is gone, or a record that nobody keeps, with a range."""
    idle = {"desired": 3, "ready": 0}
    return {
        "flannel's ConfigMap": flannel(cidr),
        "cilium-config": config("cilium-config", {"ipam": "cluster-pool", "cluster-pool-ipv4-cidr": cidr}),
        "ovn-config": config("ovn-config", {"net_cidr": f"{cidr}/24"}, "ovn-kubernetes"),
        "a pool of Calico": ippool(cidr),
        "kindnet, nothing ready": daemonset("old", {"app": "kindnet"}, env={"POD_SUBNET": cidr}, **idle),  # type: ignore[arg-type]
        "weave, nothing ready": daemonset("old", {"name": "weave-net"}, env={"IPALLOC_RANGE": cidr}, **idle),  # type: ignore[arg-type]
        "kube-proxy": config("kube-proxy", {"config.conf": f"clusterCIDR: {cidr}\n"}),
        "kubeadm": kubeadm(cidr, SERVICES),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "flannel's ConfigMap",
        "cilium-config",
        "ovn-config",
        "a pool of Calico",
        "kindnet, nothing ready",
        "weave, nothing ready",
        "kube-proxy",
        "kubeadm",
    ],
)
@settings(max_examples=10, deadline=None)
@given(base=bases, length=lengths, wider=st.integers(1, 3))
def test_leftovers_cost_no_certainty(kind: str, base: str, length: int, wider: int) -> None:
    """One that holds everything that is observed is still none of the allocator's."""
    whole = net(base, length)
    more = str(ipaddress.ip_network(whole).supernet(wider))
    recorded = cluster(slices(whole), "10.96.0.1", ROUTER, *plane(whole, SERVICES), KUBE_PROXY, servicecidr(SERVICES))
    assert pods_of(recorded) == ("complete", [whole])
    facts = discover(recorded.plus(leftover(kind, more)))
    assert (facts["ranges"]["pods"]["status"], facts["cidrs"]["pods"]) == ("complete", [whole])
    assert more in {entry["cidr"] for entry in facts["ranges"]["pods"]["rejected"]}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 255), st.integers(0, 255), st.sampled_from(["k3s.io/node-args", "rke2.io/node-args"]))
def test_two_families_are_never_a_default(four: int, six: int, key: str) -> None:
    """No server has a default of both: slices of both without a flag are set elsewhere, and stay parts."""
    cut = [f"10.42.{four}.0/24", str(ipaddress.ip_network(f"fd00:42:0:{six:x}::/64"))]
    suffix = "+k3s1" if key.startswith("k3s") else "+rke2r1"
    host = node("n1", ["192.168.1.10", "fd00:1::10"], cut, notes=server_args(key=key), kubelet=f"v1.30.4{suffix}")
    assert pods_of(cluster([host], "10.43.0.1", ROUTER)) == ("partial", cut)
    assert pods_of(cluster([{**host, "spec": {"podCIDRs": cut[:1]}}], "10.43.0.1", ROUTER)) == ("complete", ["10.42.0.0/16"])


@settings(max_examples=30, deadline=None)
@given(bases, st.integers(0, 3), st.booleans())
def test_pods_and_services_that_overlap(base: str, deeper: int, within: bool) -> None:
    """The Services are a part of the pods' range, or the other way round: both are a conflict."""
    wide, part = net(base, 16), net(base, 16 + deeper)
    pods, services = (wide, part) if within else (part, wide)
    anchor = str(ipaddress.ip_network(services)[1])
    last = str([*ipaddress.ip_network(pods).subnets(new_prefix=24)][-1])
    host = node("n1", ["192.168.1.10"], [last])
    facts = discover(cluster([host], anchor, ROUTER, *plane(pods, services), servicecidr(services), name_server=[]))
    assert {facts["ranges"][about]["status"] for about in ("pods", "services")} == {"conflict"}


@settings(max_examples=30, deadline=None)
@given(st.integers(13, 24), st.sampled_from(["Pod", "ServiceCIDR"]), st.sampled_from(["forbidden", "failed"]))
def test_a_record_of_services_alone(length: int, lost: str, fault: str) -> None:
    """Certain where no flag and no list could say otherwise, a part where one of them may not be read."""
    range_ = f"10.96.0.0/{length}"
    recorded = cluster(bare(), "10.96.0.1", ROUTER, kubeadm("", range_), version="v1.30.1", refusal=lambda _manifest: (201, ""))
    facts = discover(recorded)
    assert (facts["ranges"]["services"]["status"], facts["cidrs"]["services"]) == ("complete", [range_])
    assert discover(recorded.broken(lost, fault))["ranges"]["services"]["status"] == "partial"


@settings(max_examples=30, deadline=None)
@given(bases, lengths, st.sampled_from(["POD_SUBNET", "IPALLOC_RANGE"]))
def test_a_daemonset_that_runs_nowhere_is_no_cni(base: str, length: int, variable: str) -> None:
    """Even where it is the only one."""
    labels = {"app": "kindnet"} if variable == "POD_SUBNET" else {"name": "weave-net"}
    only = daemonset("old", labels, desired=0, env={variable: net(base, length)})
    facts = discover(cluster(bare(), "10.96.0.1", only, servicecidr(SERVICES)))
    assert (facts["ranges"]["pods"]["status"], facts["cni"]["name"]) == ("unknown", "unknown")
