# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How texts become ranges and addresses, how flags are found, and what no text can become."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._facts import guards
from ansible_collections.homelab.netguard.plugins.module_utils._facts import observations as obs
from ansible_collections.homelab.netguard.plugins.module_utils._facts.discover import discover
from clusters import KINDNET, KUBE_PROXY, S244, cluster, plane, two
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import Cluster, config, kubeadm, node, pod, servicecidr, static

#: text -> networks that are in it
WORDS: dict[str, list[str]] = {
    "10.0.0.0/16": ["10.0.0.0/16"],
    "10.0.0.0/16,fd00::/64": ["10.0.0.0/16", "fd00::/64"],
    " 10.0.0.0/16 ,\n fd00::/64\t": ["10.0.0.0/16", "fd00::/64"],
    "10.0.0.0/16 10.0.0.0/16": ["10.0.0.0/16"],
    "10.128.0.0/14/23": ["10.128.0.0/14"],
    "10.128.0.0/14/23,fd01::/48/64": ["10.128.0.0/14", "fd01::/48"],
    "10.1.2.3/16": ["10.1.0.0/16"],
    "fd00::1/64": ["fd00::/64"],
    "10.0.0.0/255.255.0.0": ["10.0.0.0/16"],
    # no ranges
    "": [],
    ",": [],
    "10.0.0.1": [],
    "fd00::1": [],
    "fe80::1%eth0/64": [],
    "fe80::%eth0/64": [],
    "::ffff:10.0.0.0/112": [],
    "0.0.0.0/0": [],
    "::/0": [],
    "10.0.0.0/33": [],
    "10.0.0.0/-1": [],
    "10.0.0/16": [],
    "010.0.0.0/8": [],
    "10.0.0.0/16/24/26": [],
    "all": [],
    "/16": [],
}


@pytest.mark.parametrize("text", WORDS)
def test_networks_in_a_text(text: str) -> None:
    assert [str(item) for item in obs.networks(text)] == WORDS[text]


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="0123456789abcdef:./%, x", max_size=40))
def test_whatever_is_written_nothing_wide_comes_out(text: str) -> None:
    """No text crashes, and none becomes everything."""
    for network in obs.networks(text):
        assert network.prefixlen > 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("fd00::1", "fd00::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fe80::1%eth0", None),
        ("10.0.0.1/32", None),
        ("", None),
        (None, None),
        (7, None),
        (["10.0.0.1"], None),
    ],
)
def test_addresses(text: Any, expected: str | None) -> None:
    found = obs.address(text)
    assert (None if found is None else str(found)) == expected


def lines(*containers: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"containers": [*containers]}}


#: where the flag stands -> (pod, its values)
FLAGS: dict[str, tuple[dict[str, Any], list[str] | None]] = {
    "command": (lines({"command": ["kcm", "--cluster-cidr=10.0.0.0/16"]}), ["10.0.0.0/16"]),
    "args": (lines({"command": ["kcm"], "args": ["--cluster-cidr=10.0.0.0/16"]}), ["10.0.0.0/16"]),
    "two items": (lines({"args": ["--cluster-cidr", "10.0.0.0/16", "--v=2"]}), ["10.0.0.0/16"]),
    "shell": (lines({"command": ["/bin/sh", "-c", "exec kcm --v=2 --cluster-cidr=10.0.0.0/16 2>&1"]}), ["10.0.0.0/16"]),
    "shell, two words": (lines({"command": ["sh", "-ec", "kcm --cluster-cidr 10.0.0.0/16 \\\n --v=2"]}), ["10.0.0.0/16"]),
    "quoted": (lines({"command": ["sh", "-c", "kcm --cluster-cidr='10.0.0.0/16,fd00::/56'"]}), ["10.0.0.0/16", "fd00::/56"]),
    "comma list": (lines({"args": ["--cluster-cidr=10.0.0.0/16,fd00::/56"]}), ["10.0.0.0/16", "fd00::/56"]),
    "repeated": (lines({"args": ["--cluster-cidr=10.0.0.0/16", "--cluster-cidr", "fd00::/56"]}), ["10.0.0.0/16", "fd00::/56"]),
    "second container": (lines({"command": ["log"]}, {"args": ["--cluster-cidr=10.0.0.0/16"]}), ["10.0.0.0/16"]),
    "no value": (lines({"args": ["--cluster-cidr", "--v=2"]}), []),
    "at the end": (lines({"args": ["--cluster-cidr"]}), []),
    "empty": (lines({"args": ["--cluster-cidr="]}), []),
    "a longer flag": (lines({"args": ["--cluster-cidr-mask=24", "--node-cluster-cidr=10.9.0.0/16"]}), None),
    "not there": (lines({"args": ["--v=2"]}), None),
    "nothing": (lines(), None),
    "no texts": ({"spec": {"containers": [{"args": [7, None, {"a": 1}]}, "x"]}}, None),
    "no pod": ({"spec": 3}, None),
}


@pytest.mark.parametrize("where", FLAGS)
def test_flags(where: str) -> None:
    item, expected = FLAGS[where]
    assert obs.flag(item, "cluster-cidr") == expected


BASE = cluster(two(S244), "10.96.0.1", KINDNET, KUBE_PROXY, servicecidr("10.96.0.0/16"))


def kubeadm_text(text: str) -> Cluster:
    bare = cluster(two(S244), "10.96.0.1", {**KINDNET, "spec": {}}, KUBE_PROXY, servicecidr("10.96.0.0/16"))
    return bare.plus(config("kubeadm-config", {"ClusterConfiguration": text}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("networking:\n  podSubnet: 10.244.0.0/16\n", ["10.244.0.0/16"]),
        ("networking: {podSubnet: '10.244.0.0/16'}", ["10.244.0.0/16"]),
        ('{"networking": {"podSubnet": "10.244.0.0/16"}}', ["10.244.0.0/16"]),
        ("# podSubnet: 10.0.0.0/8\nnetworking:\n  podSubnet: 10.244.0.0/16 # podSubnet: 10.0.0.0/9\n", ["10.244.0.0/16"]),
        ("apiServer: {extraArgs: {podSubnet: 10.0.0.0/8}}\nnetworking:\n  podSubnet: &a 10.244.0.0/16\n", ["10.244.0.0/16"]),
        ("networking:\n  podSubnet: >-\n    10.244.0.0/16\n", ["10.244.0.0/16"]),
        ("other: |\n  podSubnet: 10.0.0.0/8\nnetworking: {}\n", None),
        ("networking: {podSubnet: 10}", None),
        ("networking: [podSubnet]", None),
        ("a: [", None),
        ("!!python/object:os.system x", None),
    ],
)
def test_kubeadm_is_read_as_yaml(text: str, expected: list[str] | None) -> None:
    """Without a record the slices alone are parts."""
    facts = discover(kubeadm_text(text))
    assert facts["cidrs"]["pods"] == (expected or ["10.244.0.0/24", "10.244.1.0/24"])
    assert facts["ranges"]["pods"]["status"] == ("complete" if expected else "partial")


def test_the_raw_text_is_kept() -> None:
    recorded = BASE.plus(*plane("10.244.0.0/16", "10.96.0.0/16"), kubeadm(" 10.244.0.0/16,fd00:1:2::/56 "))
    (found,) = [item for item in discover(recorded)["ranges"]["pods"]["cidrs"] if item["cidr"] == "10.244.0.0/16"]
    raws = {item["kind"]: item["raw"] for item in found["sources"]}
    assert raws["kubeadm"] == " 10.244.0.0/16,fd00:1:2::/56 "
    assert raws["kindnet"] == "10.244.0.0/16"


@pytest.mark.parametrize("word", ["fe80::1%eth0/64", "::ffff:10.244.0.0/112", "0.0.0.0/0", "10.244.0.0/99"])
def test_a_word_that_is_refused_is_named_and_leaves_no_whole(word: str) -> None:
    """A claim of which a word cannot be read is a part."""
    facts = discover(cluster(two(S244), "10.96.0.1", {**KINDNET, "spec": {}}, kubeadm(f"10.244.0.0/16,{word}")))
    assert facts["ranges"]["pods"]["status"] == "partial"
    assert any(word in item["doubt"] for item in facts["doubts"])


#: what an interface in a pod or a tunnel has: none of it is a network of the LAN
POD_INTERFACES = [
    "10.244.0.7/32",
    "169.254.1.1/32",
    "fe80::aabb/64",
    "fe80::aabb/128",
    "10.244.0.7/24",
    "0.0.0.0/0",
    "x",
    "127.0.0.1/8",
]


def test_a_pods_own_interface_proves_nothing() -> None:
    assert discover(BASE, lan=POD_INTERFACES)["cidrs"] == discover(BASE)["cidrs"]


@pytest.mark.parametrize(
    ("network", "about", "trust", "refused"),
    [
        ("10.0.0.0/8", "pods", obs.ALLOCATES, False),
        ("10.0.0.0/7", "pods", obs.ALLOCATES, True),
        ("8.0.0.0/7", "services", obs.RUNNING, True),
        ("10.0.0.0/7", "pods", obs.GIVEN, False),
        ("fd00::/40", "pods", obs.ALLOCATES, False),
        ("fc00::/39", "pods", obs.ALLOCATES, True),
        ("fd00::/64", "services", obs.ALLOCATES, False),
        ("fd00::/63", "services", obs.ALLOCATES, True),
        ("8.8.0.0/16", "pods", obs.ALLOCATES, False),
        ("8.8.0.0/16", "pods", obs.RECORD, True),
        ("8.8.0.0/16", "services", obs.DEFAULT, True),
        ("8.8.0.0/16", "services", obs.RUNNING, False),
        ("2600:1f13::/56", "pods", obs.RECORD, True),
        ("2600:1f13::/56", "pods", obs.ALLOCATES, False),
        ("34.118.224.0/20", "services", obs.DEFAULT, False),
        ("34.118.224.0/19", "services", obs.DEFAULT, True),
        ("34.118.240.0/20", "services", obs.DEFAULT, True),
        ("100.64.0.0/13", "services", obs.RECORD, False),
        ("100.96.0.0/11", "pods", obs.RECORD, False),
        ("fd12:3456:789a::/108", "services", obs.RECORD, False),
        ("8.8.0.0/16", "lan", obs.ALLOCATES, True),
        ("8.8.0.0/16", "lan", obs.GIVEN, False),
        ("127.0.0.0/8", "pods", obs.GIVEN, True),
        ("169.254.0.0/16", "lan", obs.ALLOCATES, True),
        ("224.0.0.0/8", "pods", obs.ALLOCATES, True),
        ("fe80::/64", "lan", obs.ALLOCATES, True),
    ],
)
def test_guards(network: str, about: str, trust: int, refused: bool) -> None:
    (found,) = obs.networks(network)
    assert bool(guards.refusal(found, about, trust)) == refused


def test_all_pods_of_a_component_are_read() -> None:
    """One pod's flag is not the fleet's: the third of three differs."""
    managers = [
        static(
            "kube-controller-manager",
            "--allocate-node-cidrs",
            f"--cluster-cidr=10.244.0.0/{length}",
            name=f"kcm-{number}",
            where=where,
        )
        for number, (length, where) in enumerate([(16, "command"), (16, "args"), (15, "shell")])
    ]
    bare = cluster(two(S244), "10.96.0.1", {**KINDNET, "spec": {}}, servicecidr("10.96.0.0/16"))
    assert discover(bare.plus(*managers))["ranges"]["pods"]["status"] == "conflict"
    assert discover(bare.plus(*managers[:2]))["ranges"]["pods"]["status"] == "complete"


def test_evidence_of_mapped_addresses_is_ipv4() -> None:
    mapped = [pod("a", ["::ffff:10.7.0.9"]), node("n9", ["::ffff:192.168.1.9"])]
    facts = discover(BASE.plus(*plane("10.244.0.0/16", "10.96.0.0/16"), *mapped))
    assert facts["ranges"]["pods"]["observed"]["outside"] == ["10.7.0.9"]
    assert "192.168.1.9/32" in facts["cidrs"]["nodes"]
