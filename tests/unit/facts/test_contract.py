# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What holds for every result: sources with their texts, nothing that nobody said, rights that are missing, the digest."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.homelab.netguard.plugins.module_utils._facts import observations as obs
from ansible_collections.homelab.netguard.plugins.module_utils._facts import rights
from ansible_collections.homelab.netguard.plugins.module_utils._facts.discover import discover
from ansible_collections.homelab.netguard.plugins.module_utils._facts.distribution import DEFAULTS
from ansible_collections.homelab.netguard.plugins.module_utils._facts.world import CONFIG_MAPS, OPTIONAL
from clusters import CILIUM, KINDNET, KUBE_PROXY, S244, cluster, plane, two
from clusters_families import CLUSTERS
from contradictions import CASES, PLAIN
from recordings import Cluster, Object, config, custom, daemonset, ippool, kubeadm, node, pod, server_args, service, servicecidr
from test_clusters import SOURCES

RECORDED = {**{name: entry[0] for name, entry in CLUSTERS.items()}, **{f"case: {name}": entry[0] for name, entry in CASES.items()}}


@pytest.mark.parametrize("name", RECORDED)
def test_every_range_has_its_sources(name: str) -> None:
    """Trust, completeness, and for each source the object, the field and the text; a reason for everything that was dropped."""
    for about, found in discover(RECORDED[name])["ranges"].items():
        assert found["status"] in ("complete", "partial", "conflict", "unknown")
        for entry in found["cidrs"]:
            assert entry["trust"] in range(6)
            assert entry["sources"], entry
            assert isinstance(entry["complete"], bool)
            if found["status"] == "complete":
                assert entry["complete"], (about, entry)
            for source in entry["sources"]:
                assert all(source[key] for key in ("kind", "ref", "field")), source
                assert source["raw"] or "default" in source["field"], source
        for entry in found["rejected"]:
            assert all((entry["reason"], entry["source"]["ref"])), entry


@pytest.mark.parametrize("name", RECORDED)
def test_nothing_is_wider_than_a_source_says(name: str) -> None:
    """Each range of pods, Services and the LAN is one that a source has in its text, or the default of a server without a flag."""
    facts = discover(RECORDED[name])
    for about in ("pods", "services", "lan"):
        for entry in facts["ranges"][about]["cidrs"]:
            written = {str(item) for source in entry["sources"] for item in obs.networks(source["raw"])}
            written |= {str(item) for source in entry["sources"] for item in obs.hosts([source["raw"]])}
            if any(source["field"].endswith("the default") for source in entry["sources"]):
                written |= {item for ranges in DEFAULTS.values() for part in ranges for item in part}
            assert entry["cidr"] in written, (about, entry)


@pytest.mark.parametrize("name", CLUSTERS)
def test_every_source_is_asked(name: str) -> None:
    """There is no first hit: whatever is found, every source that the server can have is asked all the same."""
    fresh = CLUSTERS[name][0].plus()
    discover(fresh)
    asked = {(verb, kind) for verb, _version, kind, _where in fresh.asked}
    for kind in ("Node", "Pod", "Service", "DaemonSet", "EndpointSlice", "ServiceCIDR", "IPAddress"):
        assert ("list", kind) in asked
    there = {where for verb, _version, kind, where in fresh.asked if (verb, kind) == ("get", "ConfigMap")}
    assert {f"{namespace}/{item}" for namespace, item in CONFIG_MAPS} <= there
    served = {item["apiVersion"] for item in fresh.objects}
    for version, kind in OPTIONAL.values():
        assert (("list", version, kind) in {entry[:3] for entry in fresh.asked}) == (version in served)


@pytest.mark.parametrize("name", CLUSTERS)
def test_distribution_and_cni_show_their_signals(name: str) -> None:
    recorded, expected = CLUSTERS[name]
    facts = discover(recorded)
    assert facts["distribution"]["signals"]
    assert facts["cni"]["signals"]
    assert not any("leftover" in item for item in facts["cni"]["signals"]), expected


def test_signals_of_two_distributions_decide_nothing() -> None:
    mixed = cluster([node("n1", ["192.168.1.10"], kubelet="v1.34.1+k3s1", labels={"microk8s.io/cluster": "true"})], "10.43.0.1")
    found = discover(mixed)["distribution"]
    assert found["name"] == "unknown"
    assert len(found["signals"]) == 2


# Rights


def test_what_may_not_be_read_is_unknown_and_what_is_not_there_is_absent() -> None:
    old = PLAIN.less("ServiceCIDR").plus(version="v1.30.1")
    forbidden, absent = discover(old.broken("ServiceCIDR", "forbidden")), discover(old)
    assert (forbidden["permissions"]["ServiceCIDR"], absent["permissions"]["ServiceCIDR"]) == ("forbidden", "absent")
    assert forbidden["ranges"]["services"]["status"] == "partial"
    assert absent["ranges"]["services"]["status"] == "complete"


def denied(source: str) -> Cluster:
    """A cluster that is asked for the source, and refuses."""
    more = [
        ippool("10.1.0.0/16"),
        custom("crd.projectcalico.org/v1", "BlockAffinity", "b", spec={}),
        custom("crd.projectcalico.org/v1", "FelixConfiguration", "default", spec={}),
        custom("operator.tigera.io/v1", "Installation", "default", spec={}),
        custom("cilium.io/v2", "CiliumNode", "n", spec={}),
        custom("cilium.io/v2alpha1", "CiliumPodIPPool", "p", spec={}),
        custom("config.openshift.io/v1", "Network", "other", spec={}),
        custom("cluster.x-k8s.io/v1beta1", "Cluster", "c", spec={}),
        custom("networking.k8s.io/v1", "IPAddress", "10.96.0.1", spec={}),
    ]
    base = PLAIN.plus(*more).broken("EndpointSlice", "absent") if source == "Endpoints" else PLAIN.plus(*more)
    if source == "probe":
        base = cluster(two(S244), "10.96.0.1", KINDNET, version="v1.30.1")
    return base.broken(source, "forbidden")


@pytest.mark.parametrize("source", SOURCES)
def test_a_right_that_is_refused_is_named_with_what_it_tells(source: str) -> None:
    found = discover(denied(source))["missing_rights"]
    assert found, source
    assert all(set(entry) == {"level", "rule", "tells"} and entry["tells"] for entry in found)
    assert [entry["level"] for entry in found] == sorted(entry["level"] for entry in found)
    for state in ("absent", "failed"):
        other = denied(source)
        other.faults = {key: state if value == "forbidden" else value for key, value in other.faults.items()}
        # The dry run and the list of groups are answered in their own words.
        rules = {entry["rule"] for entry in discover(other)["missing_rights"]} - {"create services"}
        assert not rules & {entry["rule"] for entry in found}, (source, state)


def test_the_roles_of_the_documentation_have_every_right() -> None:
    """Each right that can be missing is in docs/rbac.yml, apart from the dry run's, and from what everybody may read."""
    roles = [*yaml.safe_load_all((Path(__file__).parents[3] / "docs" / "rbac.yml").read_text())]
    granted = {(verb, resource) for rule in roles[0]["rules"] for verb in rule["verbs"] for resource in rule["resources"]}
    for source in (*SOURCES, "Service default/kubernetes", "dry run of a Service, IPv4"):
        right = rights.right(source)
        if right is None:
            assert source == "probe"
            continue
        verb, resource = right.rule.split()[:2]
        resource = resource.split("/")[0]
        assert right.level == 0 or verb == "create" or (verb, resource) in granted, right


# Judgement


def test_a_family_that_the_api_server_does_not_have() -> None:
    """A record with IPv6 Services, and an API server that says it has none: a conflict."""

    def refuse(manifest: Object) -> tuple[int, str]:
        if ":" in manifest["spec"]["clusterIP"]:
            return 422, 'spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster'
        return 403, "forbidden"

    record = kubeadm("10.244.0.0/16", "10.96.0.0/16,fd00:96::/112")
    facts = discover(cluster(two(S244), "10.96.0.1", KINDNET, record, version="v1.30.1", refusal=refuse))
    assert facts["ranges"]["services"]["status"] == "conflict"
    assert any("has no IPv6 Services" in item["doubt"] for item in facts["doubts"])


SLICES: dict[str, Cluster] = {
    "of nodes": cluster(two(S244), "10.96.0.1", KUBE_PROXY, daemonset("r", {"k8s-app": "kube-router"})),
    "of kube-router": cluster(
        two(notes={"kube-router.io/pod-cidr": "10.244.7.0/24"}), "10.96.0.1", daemonset("r", {"k8s-app": "kube-router"})
    ),
    "of Cilium": cluster(
        two(),
        "10.96.0.1",
        CILIUM,
        config("cilium-config", {"ipam": "cluster-pool"}),
        custom("cilium.io/v2", "CiliumNode", "n1", spec={"ipam": {"podCIDRs": ["10.50.3.0/24"]}}),
    ),
}


@pytest.mark.parametrize("name", SLICES)
def test_slices_are_never_the_range(name: str) -> None:
    found = discover(SLICES[name])["ranges"]["pods"]
    assert found["status"] == "partial"
    assert all(not entry["complete"] and entry["trust"] == obs.OBSERVED for entry in found["cidrs"])


@pytest.mark.parametrize("count", [1, 50])
def test_addresses_alone_are_never_a_range(count: int) -> None:
    """However many pods and Services run."""
    pods = [pod(f"p{number}", [f"10.244.{number}.9"]) for number in range(count)]
    services = [service(f"s{number}", [f"10.96.{number}.9"]) for number in range(count)]
    bare = cluster(two(), "10.96.0.1", daemonset("r", {"k8s-app": "kube-router"}), *pods, *services, version="v1.30.1")
    for found in (discover(bare)["ranges"]["pods"], discover(bare)["ranges"]["services"]):
        assert (found["status"], found["cidrs"]) == ("unknown", [])
        assert found["observed"]["count"] >= count


K3S = {"kubelet": "v1.30.4+k3s1"}


@pytest.mark.parametrize(
    ("nodes", "status"),
    [
        ([node("n1", ["192.168.1.10"], ["10.42.0.0/24"], notes=server_args(), **K3S)], "complete"),  # type: ignore[arg-type]
        ([node("n1", ["192.168.1.10"], ["10.99.0.0/24"], notes=server_args(), **K3S)], "conflict"),  # type: ignore[arg-type]
        ([node("n1", ["192.168.1.10"], ["10.42.0.0/24"], notes={"k3s.io/node-args": "{"}, **K3S)], "partial"),  # type: ignore[arg-type]
        ([node("n1", ["192.168.1.10"], ["10.42.0.0/24"], **K3S)], "partial"),  # type: ignore[arg-type]
        ([node("n1", ["192.168.1.10"], ["10.42.0.0/24"], notes=server_args(), labels={"microk8s.io/cluster": ""})], "partial"),
    ],
)
def test_a_default_needs_its_proof(nodes: list[Object], status: str) -> None:
    """The distribution, arguments of a server in sight, slices inside."""
    assert discover(cluster(nodes, "10.43.0.1"))["ranges"]["pods"]["status"] == status


def test_a_service_range_that_was_extended_by_a_wider_one() -> None:
    """Two ServiceCIDRs of which one holds the other are told as one range, by both texts."""
    facts = discover(PLAIN.less("ServiceCIDR").plus(servicecidr("10.96.0.0/24"), servicecidr("10.96.0.0/16", name="wider")))
    assert facts["cidrs"]["services"] == ["10.96.0.0/16"]
    assert facts["ranges"]["services"]["status"] == "complete"


def test_a_pool_that_cilium_does_not_use() -> None:
    """A family that is switched off has a range in the settings all the same."""
    settings = {"ipam": "cluster-pool", "cluster-pool-ipv4-cidr": "10.0.0.0/8", "cluster-pool-ipv6-cidr": "fd00::/104"}
    bare = cluster(two(), "10.96.0.1", CILIUM, servicecidr("10.96.0.0/16"))
    both = discover(bare.plus(config("cilium-config", settings)))
    assert both["ranges"]["pods"]["status"] == "conflict"  # 10.0.0.0/8 holds the Services
    six = discover(bare.plus(config("cilium-config", {**settings, "enable-ipv4": "false"})))
    assert (six["ranges"]["pods"]["status"], six["cidrs"]["pods"]) == ("complete", ["fd00::/104"])


# Drift

CHANGES: dict[str, tuple[list[Object], bool]] = {
    "another range of Services": ([servicecidr("10.250.0.0/24", name="more")], True),
    "another node": ([node("n3", ["192.168.1.12"], ["10.244.2.0/24"])], True),
    "another pod": ([pod("a", ["10.244.1.9"])], False),
    "another Service": ([service("s", ["10.96.7.7"])], False),
    "a record": ([kubeadm("10.244.0.0/16", "10.96.0.0/16")], False),
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_digest_follows_what_policies_stand_on(name: str) -> None:
    more, changed = CHANGES[name]
    assert (discover(PLAIN)["digest"] != discover(PLAIN.plus(*more))["digest"]) == changed


def test_the_digest_follows_endpoints_and_the_dns() -> None:
    digests = {discover(PLAIN)["digest"]}
    for change in (
        cluster(two(S244), "10.96.0.1", KINDNET, *plane("10.244.0.0/16", "10.96.0.0/16"), servicecidr("10.96.0.0/16"), port=7443),
        PLAIN.broken("EndpointSlice", "forbidden"),
        PLAIN.plus(config("coredns", {"Corefile": ".:53 {\n kubernetes lab.example\n}"})),
    ):
        digests.add(discover(change)["digest"])
    assert len(digests) == 4


def test_ranges_of_one_family_never_hold_another() -> None:
    for recorded, expected in CLUSTERS.values():
        facts: dict[str, Any] = discover(recorded)
        for about in ("pods", "services"):
            for cidr in facts["cidrs"][about]:
                assert f"ipv{ipaddress.ip_network(cidr).version}" in expected.families
