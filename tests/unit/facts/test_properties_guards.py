# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Random clusters: masks of nodes, what no range may be, the probe, and proofs that an allocator needs."""

from __future__ import annotations

import ipaddress

from ansible_collections.homelab.netguard.plugins.module_utils._facts.discover import discover
from clusters import CALICO, CALICO_CONFIG, KUBE_PROXY, cluster, plane
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import block, daemonset, ippool, kubeadm, node, pod, servicecidr
from test_properties_contradictions import ROUTER, SERVICES, bare, bases, lengths, net, pods_of, says, seeds, slices

NOTES = ["projectcalico.org/IPv4Address", "kilo.squat.ai/internal-ip", "k8s.ovn.org/node-primary-ifaddr"]
HOW = ["own", "host mask", "other", "another node's", "none"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(NOTES), st.sampled_from(HOW)), min_size=1),
    st.integers(20, 28),
)
def test_the_lan_is_what_masks_of_the_nodes_say(told: list[tuple[int, str, str]], length: int) -> None:
    """A mask counts where the node's own address lies inside; every other node counts by its address alone."""
    nodes, networks, single = [], set(), set()
    for number, (part, key, how) in enumerate(told):
        address = f"192.168.{part * 16}.{number + 1}"
        mine = str(ipaddress.ip_network(f"{address}/{length}", strict=False))
        word = {
            "own": f"{address}/{length}",
            "host mask": f"{address}/32",
            "other": "10.9.0.1/16",
            "another node's": f"192.168.{(part + 1) % 4 * 16}.1/{length}",
            "none": "",
        }[how]
        notes = {key: f'{{"ipv4": "{word}"}}' if key.startswith("k8s.ovn.org") else word} if word else {}
        nodes.append(node(f"n{number}", [address], notes=notes))
        if how == "own":
            networks.add(mine)
        single.add(address)
    single = {item for item in single if not any(ipaddress.ip_address(item) in ipaddress.ip_network(one) for one in networks)}
    facts = discover(cluster(nodes, "10.96.0.1", servicecidr(SERVICES), endpoint="192.168.0.1"))
    assert set(facts["cidrs"]["lan"]) == networks | {f"{item}/32" for item in single}
    assert facts["ranges"]["lan"]["status"] == ("partial" if single else "complete")


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["calico", "weave", "kindnet"]), st.sampled_from(["host", "Succeeded", "Failed", "Pending"]), seeds)
def test_pods_that_prove_nothing(kind: str, how: str, seed: int) -> None:
    """Those of the host's network and those that do not run may have any address."""
    address = f"172.31.{seed % 250}.9"
    other = pod("x", [address], host=how == "host", phase="Running" if how == "host" else how)
    recorded = cluster(bare(), "10.96.0.1", *says(kind, "10.20.0.0/16"), servicecidr(SERVICES), other)
    assert pods_of(recorded) == ("complete", ["10.20.0.0/16"])


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["calico", "cilium-pool", "weave", "ovn"]), st.sampled_from(["4.0.0.0/6", "64.0.0.0/4", "0.0.0.0/1"]))
def test_a_range_that_cannot_be_is_never_taken(kind: str, cidr: str) -> None:
    facts = discover(cluster(bare(), "10.96.0.1", *says(kind, cidr), servicecidr(SERVICES)))
    assert (facts["ranges"]["pods"]["status"], facts["cidrs"]["pods"]) == ("unknown", [])


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["8.8.0.0/16", "45.10.0.0/20", "52.0.0.0/12", "2600:1f13::/56"]))
def test_public_space_needs_more_than_a_record(cidr: str) -> None:
    """A record with public pods is refused although a slice fits; the object that allocates is taken."""
    cut = str(next(iter(ipaddress.ip_network(cidr).subnets(new_prefix=64 if ":" in cidr else 24))))
    host = node("n1", ["192.168.1.10"], [cut])
    recorded = cluster([host], "10.96.0.1", ROUTER, kubeadm(cidr, SERVICES), servicecidr(SERVICES))
    assert pods_of(recorded) == ("unknown", [])
    assert pods_of(cluster([host], "10.96.0.1", CALICO, CALICO_CONFIG, ippool(cidr), servicecidr(SERVICES))) == ("complete", [cidr])


@settings(max_examples=40, deadline=None)
@given(st.integers(17, 24), st.booleans())
def test_the_probe_is_no_whole_where_several_may_be(length: int, new: bool) -> None:
    range_ = f"10.96.0.0/{length}"
    recorded = cluster(bare(), "10.96.0.1", ROUTER, version="v1.34.1" if new else "v1.30.1").plus(
        refusal=lambda _manifest: (422, f"The range of valid IPs is {range_}")
    )
    facts = discover(recorded)
    assert (facts["ranges"]["services"]["status"], facts["cidrs"]["services"]) == ("partial" if new else "complete", [range_])


@settings(max_examples=40, deadline=None)
@given(seeds, st.booleans(), st.booleans())
def test_calicos_blocks_prove_its_ipam_with_every_pod_inside(seed: int, inside: bool, pods: bool) -> None:
    """Without its settings in sight: blocks alone, or a pod outside of them, prove nothing."""
    agent = daemonset("calico-node", {"k8s-app": "calico-node"})
    running = [pod("a", [f"10.20.7.{1 + seed % 60}"]), *([] if inside else [pod("b", ["10.20.8.9"])])]
    objects = [agent, ippool("10.20.0.0/16"), block("10.20.7.0/26"), servicecidr(SERVICES), *(running if pods else [])]
    proven = inside and pods
    assert pods_of(cluster(bare(), "10.96.0.1", *objects)) == ("complete" if proven else "partial", ["10.20.0.0/16"])


@settings(max_examples=30, deadline=None)
@given(bases, lengths)
def test_a_slice_that_two_nodes_have(base: str, length: int) -> None:
    whole = net(base, length)
    (first,) = slices(whole)
    again = node("again", ["192.168.1.77"], first["spec"]["podCIDRs"])
    objects = [ROUTER, *plane(whole, SERVICES), KUBE_PROXY, servicecidr(SERVICES)]
    assert pods_of(cluster([first], "10.96.0.1", *objects)) == ("complete", [whole])
    assert pods_of(cluster([first, again], "10.96.0.1", *objects))[0] == "conflict"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(16, 28), min_size=1, max_size=4, unique=True))
def test_ranges_of_services_inside_of_each_other_are_one(sizes: list[int]) -> None:
    listed = [servicecidr(f"10.96.0.0/{length}", name=f"r{length}") for length in sizes]
    facts = discover(cluster(bare(), "10.96.0.1", ROUTER, *listed, name_server=[]))
    assert (facts["ranges"]["services"]["status"], facts["cidrs"]["services"]) == ("complete", [f"10.96.0.0/{min(sizes)}"])
