# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From topology, facts and live workloads to ConfigMaps and patches; and what is refused."""

from __future__ import annotations

import copy
import dataclasses
import ipaddress
from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._facts.model import Cni, Facts
from ansible_collections.homelab.netguard.plugins.module_utils._manifests import client, client_checks, client_rollout, names
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.client_guard import GUARD, SIDECAR, guard_container
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.client_patch import TEMPLATE_PATHS
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.client_template import DIGEST, POLICY
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.images import Images
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import LABEL_INSTANCE, LABEL_PART, Key, Live
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.workloads import template_of
from ansible_collections.homelab.netguard.plugins.module_utils._topology.model import Topology
from ansible_collections.homelab.netguard.plugins.module_utils._topology.parse import parse

FACTS = Facts(
    pods=(ipaddress.ip_network("10.244.0.0/16"),),
    services=(ipaddress.ip_network("10.96.0.0/12"),),
    nodes=(ipaddress.ip_network("192.0.2.10/32"),),
    lan=(ipaddress.ip_network("198.51.100.0/24"),),
    cni=Cni(name="calico", translates_kernel_packets=True),
    server_version=(1, 34),
)
OLD = dataclasses.replace(FACTS, server_version=(1, 28))
KINDS = ("Deployment", "StatefulSet", "DaemonSet", "CronJob")


def topology(kind: str = "Deployment", *, dns: str = "vpn", scripts: str = "netguard", **keys: Any) -> Topology:
    gateways = [
        {
            "name": "proton",
            "namespace": "vpn",
            "provider": "protonvpn",
            "credentials": {"secret": "wg"},
            "dns": dns,
            "overlay": {"scripts": scripts},
        }
    ]
    app = {"name": "web", "namespace": "media", "workload": f"{kind}/web", "vpn": "proton", **keys}
    return parse("home", gateways=gateways, apps=[app])


def template(**spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"dnsPolicy": "ClusterFirst", "containers": [{"name": "app", "image": "example/app"}], **spec},
    }


def workload(kind: str = "Deployment", *, name: str = "web", pod: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    found = pod or template()
    meta = {"name": name, "namespace": "media", "uid": "u1"}
    if kind == "CronJob":
        return {
            "apiVersion": "batch/v1",
            "kind": kind,
            "metadata": meta,
            "spec": {"jobTemplate": {"spec": {"template": found}}, **spec},
        }
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": meta,
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": found, **spec},
    }


def policy(uid: str = "p1", generation: int = 1) -> dict[str, Any]:
    name = names.killswitch(topology().apps[0])
    meta = {"name": name, "namespace": "media", "uid": uid, "generation": generation}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": {}}


def only(declared: Topology, live: Live, facts: Facts = FACTS, images: Images | None = None) -> client.Client:
    (found,) = client.clients(declared, facts, live, images=images)
    return found


def applied(found: client.Client) -> dict[str, Any]:
    """The workload after the patch, as the server would hold it."""
    assert found.workload is not None
    assert found.template is not None
    result = copy.deepcopy(found.workload)
    holder = result
    for key in TEMPLATE_PATHS[result["kind"]][:-1]:
        holder = holder[key]
    holder["template"] = copy.deepcopy(found.template)
    labels = ((found.patch.body if found.patch else {}).get("metadata") or {}).get("labels") or {}
    result["metadata"]["labels"] = {**(result["metadata"].get("labels") or {}), **labels}
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_guard_first_then_a_native_sidecar(kind: str) -> None:
    found = only(topology(kind), Live((workload(kind),)))
    assert found.action == "inject"
    spec = found.template["spec"]  # type: ignore[index]
    assert [item["name"] for item in spec["initContainers"]] == [GUARD, SIDECAR]
    assert "restartPolicy" not in spec["initContainers"][0], "admission takes a guard with a restart policy for no guard"
    assert spec["initContainers"][1]["restartPolicy"] == "Always"
    assert found.patch is not None
    assert found.patch.target == Key("batch/v1" if kind == "CronJob" else "apps/v1", kind, "media", "web")
    assert [item["name"] for item in spec["containers"]] == ["app"]
    assert found.template["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"] == "app"  # type: ignore[index]


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet"])
def test_below_1_29_the_sidecar_is_an_ordinary_container_behind_the_app(kind: str) -> None:
    spec = only(topology(kind), Live((workload(kind),)), OLD).template["spec"]  # type: ignore[index]
    assert [item["name"] for item in spec["initContainers"]] == [GUARD]
    assert [item["name"] for item in spec["containers"]] == ["app", SIDECAR]
    assert "restartPolicy" not in spec["containers"][1]
    assert "startupProbe" not in spec["containers"][1], "it would hold nothing back"


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_run_has_nothing_to_do(kind: str) -> None:
    first = only(topology(kind), Live((workload(kind), policy())))
    second = only(topology(kind), Live((applied(first), first.config, policy())))
    assert second.action == "unchanged"
    assert second.patch is None


@pytest.mark.parametrize("kind", KINDS)
def test_release_leaves_the_workload_as_it_was(kind: str) -> None:
    before = workload(kind)
    after = applied(only(topology(kind), Live((before, policy()))))
    released = client.release_patch(after)
    assert released is not None
    assert released.body["metadata"]["labels"] == {"homelab.netguard/client": None, "homelab.netguard/instance": None}
    assert client.release_patch(before) is None


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("vpn", {"dnsPolicy": "None", "searches": None}),
        ("split", {"dnsPolicy": "None", "searches": ["media.svc.cluster.local", "svc.cluster.local", "cluster.local"]}),
        ("cluster", {"dnsPolicy": "ClusterFirst", "searches": None}),
    ],
)
def test_dns_modes(mode: str, expected: dict[str, Any]) -> None:
    declared = topology(dns=mode)
    spec = only(declared, Live((workload(),))).template["spec"]  # type: ignore[index]
    assert spec["dnsPolicy"] == expected["dnsPolicy"]
    config = spec.get("dnsConfig")
    if mode == "cluster":
        assert config is None
        return
    assert config["nameservers"] == [str(declared.gateways[0].overlay.network[1])]
    assert config["options"] == [{"name": "ndots", "value": "1"}]
    assert config.get("searches") == expected["searches"]


@pytest.mark.parametrize(
    ("vpn", "startup", "readiness"),
    [
        ({}, True, False),
        ({"start": "closed"}, False, False),
        ({"ready": "tunnel"}, True, True),
        ({"start": "closed", "ready": "tunnel"}, False, True),
    ],
)
def test_probes(vpn: dict[str, Any], startup: bool, readiness: bool) -> None:
    declared = topology(vpn={"gateway": "proton", **vpn})
    sidecar = only(declared, Live((workload(),))).template["spec"]["initContainers"][1]  # type: ignore[index]
    assert ("startupProbe" in sidecar, "readinessProbe" in sidecar) == (startup, readiness)
    if startup:
        seconds = sidecar["startupProbe"]["failureThreshold"] * sidecar["startupProbe"]["periodSeconds"]
        assert seconds > 365 * 86400, "a start-up probe that gives up throws the container into back-off"


def test_the_containers_are_root_with_named_capabilities_whatever_the_pod_says() -> None:
    pod = template(securityContext={"runAsUser": 1000, "runAsNonRoot": True})
    for item in only(topology(), Live((workload(pod=pod),))).template["spec"]["initContainers"]:  # type: ignore[index]
        context = item["securityContext"]
        assert (context["runAsUser"], context["runAsNonRoot"], context["privileged"]) == (0, False, False)
        assert "NET_ADMIN" in context["capabilities"]["add"]
        assert context["capabilities"]["drop"] == ["ALL"]


def test_the_guard_in_the_template_is_the_one_that_admission_compares() -> None:
    declared = topology()
    images = Images(overlay="registry.example/guard:1")
    found = only(declared, Live((workload(),)), images=images)
    assert found.template["spec"]["initContainers"][0] == guard_container(declared, declared.apps[0], FACTS, images)  # type: ignore[index]


@pytest.mark.parametrize(
    ("change", "action"),
    [
        ("image", "update"),
        ("settings", "update"),
        ("replaced", "repair"),
        ("rolled back", "repair"),
        ("init in front", "repair"),
        ("guard edited", "repair"),
        ("label gone", "repair"),
        ("policy made again", "repair"),
    ],
)
def test_what_a_run_finds_and_says(change: str, action: str) -> None:
    declared, images, mark = topology(), Images(), policy()
    first = only(declared, Live((workload(), mark)), images=images)
    live = applied(first)
    init = template_of(live)["spec"]["initContainers"]
    if change == "image":
        images = Images(overlay="registry.example/guard:2")
    elif change == "settings":
        declared = topology(dns="split")
    elif change in ("replaced", "rolled back"):
        live = workload()
    elif change == "init in front":
        init.insert(0, {"name": "zero", "image": "example/zero"})
    elif change == "guard edited":
        init[0]["command"] = ["true"]
    elif change == "label gone":
        del live["metadata"]["labels"]["homelab.netguard/client"]
    elif change == "policy made again":
        mark = policy("p2")
    second = only(declared, Live((live, first.config, mark)), images=images)
    assert second.action == action
    assert template_of(applied(second))["spec"]["initContainers"][0]["name"] == GUARD
    third = only(declared, Live((applied(second), second.config, mark)), images=images)
    assert third.action == "unchanged"


def test_a_gap_in_the_policy_restarts_the_pods() -> None:
    marks = []
    for item in (policy("p1", 1), policy("p1", 2), policy("p2", 1)):
        found = only(topology(), Live((workload(), item)))
        marks.append(found.template["metadata"]["annotations"][POLICY])  # type: ignore[index]
        assert found.template["metadata"]["annotations"][DIGEST]  # type: ignore[index]
    assert len(set(marks)) == 3


def test_a_missing_workload_is_waiting_and_gets_no_object() -> None:
    declared = topology(pods={"app": "web"})
    assert only(declared, Live()).action == "waiting"
    assert client.build(declared, FACTS, Live()).objects == ()


def test_former_workloads_are_found_by_label_and_by_configmap() -> None:
    declared = topology()
    first = only(declared, Live((workload(),)))
    live = applied(first)
    assert client.former("home", Live((live,)), []) == (live,)
    assert client.former("home", Live((live,)), [Key.of(live)]) == ()
    assert client.former("other", Live((live,)), []) == ()
    bare = copy.deepcopy(live)
    bare["metadata"].pop("labels")
    assert client.former("home", Live((bare, first.config)), []) == (bare,)
    assert client.former("home", Live((bare,)), []) == ()
    replaced = {**workload(), "metadata": {**workload()["metadata"], "labels": live["metadata"]["labels"]}}
    assert client.former("home", Live((replaced,)), []) == (replaced,), "our labels alone are to be taken off too"
    gateway = {
        **replaced,
        "metadata": {**replaced["metadata"], "labels": {**replaced["metadata"]["labels"], LABEL_PART: "gateway"}},
    }
    assert client.former("home", Live((gateway,)), []) == ()


def test_the_dry_run_pod_has_the_claims_of_a_stateful_set() -> None:
    claim = {"metadata": {"name": "data"}, "spec": {}}
    found = only(topology("StatefulSet"), Live((workload("StatefulSet", volumeClaimTemplates=[claim]),)))
    assert found.workload is not None
    assert found.template is not None
    pod = client.pod_of(found.workload, found.template)
    assert pod["spec"]["initContainers"][0]["name"] == GUARD
    assert {"name": "data", "persistentVolumeClaim": {"claimName": "data-web-0"}} in pod["spec"]["volumes"]
    assert pod["metadata"]["labels"]["app"] == "web"


MULTUS = "k8s.v1.cni.cncf.io/networks"


@pytest.mark.parametrize(
    ("live", "keys", "facts", "expected"),
    [
        (workload(), {}, FACTS, ""),
        (workload(pod=template(hostNetwork=True)), {}, FACTS, "apps[0].workload: Deployment/web runs on the node's network"),
        (workload(pod=template(os={"name": "windows"})), {}, FACTS, "runs on Windows"),
        (workload(pod=template(nodeSelector={"kubernetes.io/os": "windows"})), {}, FACTS, "runs on Windows"),
        (workload("CronJob"), {"workload": "CronJob/web"}, OLD, "native ones need Kubernetes 1.29 (this is 1.28)"),
        (workload(replicas=2, strategy={"type": "Recreate"}), {"forward": True}, FACTS, "has 2 replicas"),
        (
            {**workload(), "metadata": {"name": "web", "namespace": "media", "labels": {LABEL_INSTANCE: "flat2"}}},
            {},
            FACTS,
            'is a client of the instance "flat2"',
        ),
        (workload(), {"scripts": "image"}, FACTS, "runs the image's own overlay scripts"),
        (workload(replicas=1, strategy={"type": "Recreate"}), {"forward": True}, FACTS, ""),
        (workload("StatefulSet", replicas=1), {"forward": True, "workload": "StatefulSet/web"}, FACTS, ""),
        (
            workload(pod={**template(), "metadata": {"labels": {"app": "web"}, "annotations": {MULTUS: "lan@net1, media/iot"}}}),
            {},
            FACTS,
            "secondary networks (lan, media/iot)",
        ),
        (
            workload(pod={**template(), "metadata": {"labels": {"app": "web"}, "annotations": {MULTUS: '[{"name": "lan"}]'}}}),
            {"secondary_networks": ["lan"]},
            FACTS,
            "",
        ),
        (
            workload(pod=template(initContainers=[{"name": GUARD, "image": "example/other"}])),
            {},
            FACTS,
            f"has a part of its own named {GUARD}",
        ),
    ],
)
def test_refusals(live: dict[str, Any], keys: dict[str, Any], facts: Facts, expected: str) -> None:
    vpn: dict[str, Any] = {"gateway": "proton"}
    rest = dict(keys)
    if rest.pop("forward", False):
        vpn["forward"] = ["bt"]
        rest["ports"] = {"bt": 6881}
    if "secondary_networks" in rest:
        vpn["secondary_networks"] = rest.pop("secondary_networks")
    declared = topology(vpn=vpn, **rest)
    found = [str(fault) for fault in client_checks.refusals(declared, facts, Live((live,)), declared.clients)]
    if not expected:
        assert found == []
        return
    assert len(found) == 1
    assert expected in found[0]
    assert found[0].endswith(")"), "the way out is named"


@pytest.mark.parametrize(
    ("level", "managed", "refused"), [("baseline", False, True), ("restricted", True, False), ("privileged", False, False)]
)
def test_pod_security(level: str, managed: bool, refused: bool) -> None:
    declared = topology()
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "media", "labels": {client_checks.PSA_ENFORCE: level}},
    }
    live = Live((workload(), namespace))
    found = client_checks.refusals(declared, FACTS, live, declared.clients, manage_pod_security=managed)
    assert bool(found) is refused
    patches = client.build(declared, FACTS, live, manage_pod_security=managed).patches
    opened = [patch for patch in patches if patch.target.kind == "Namespace"]
    assert bool(opened) is (managed and level != "privileged")
    if opened:
        after = copy.deepcopy(namespace)
        after["metadata"]["labels"].update(opened[0].body["metadata"]["labels"])  # type: ignore[index]
        after["metadata"]["annotations"] = opened[0].body["metadata"]["annotations"]  # type: ignore[index]
        assert client.pod_security_restored(Live((after,)), ["media"]) == ()
        (back,) = client.pod_security_restored(Live((after,)), [])
        assert back.body["metadata"]["labels"] == {client_checks.PSA_ENFORCE: level}


def rolling(kind: str, status: dict[str, Any], *, generation: int = 2, **spec: Any) -> dict[str, Any]:
    item = workload(kind, **spec)
    item["metadata"]["generation"] = generation
    item["status"] = {"observedGeneration": generation, **status}
    return item


@pytest.mark.parametrize(
    ("item", "done", "text"),
    [
        (rolling("Deployment", {"observedGeneration": 1}), False, "has not seen"),
        (rolling("Deployment", {"replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}, replicas=1), True, ""),
        (rolling("Deployment", {"replicas": 2, "updatedReplicas": 1, "availableReplicas": 2}, replicas=1), False, "1 old pods"),
        (rolling("Deployment", {"replicas": 1, "updatedReplicas": 0}, replicas=1, paused=True), False, "paused"),
        (rolling("Deployment", {"replicas": 1, "updatedReplicas": 1}, replicas=1), False, "0 of 1 pods are available"),
        (rolling("Deployment", {}, replicas=0), True, ""),
        (rolling("DaemonSet", {"desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 2}), True, ""),
        (
            rolling("DaemonSet", {"desiredNumberScheduled": 2, "updatedNumberScheduled": 0}, updateStrategy={"type": "OnDelete"}),
            False,
            "OnDelete",
        ),
        (
            rolling(
                "StatefulSet", {"updatedReplicas": 1, "readyReplicas": 1, "updateRevision": "b", "currentRevision": "b"}, replicas=1
            ),
            True,
            "",
        ),
        (
            rolling(
                "StatefulSet",
                {"updatedReplicas": 1, "readyReplicas": 2},
                replicas=2,
                updateStrategy={"rollingUpdate": {"partition": 1}},
            ),
            False,
            "partition 1",
        ),
        (rolling("CronJob", {}), True, ""),
    ],
)
def test_rollout_state(item: dict[str, Any], done: bool, text: str) -> None:
    found = client_rollout.rolled_out(item)
    assert found[0] is done
    assert text in found[1]


@pytest.mark.parametrize(
    ("revision", "guard", "ready", "owner", "stuck"),
    [
        ("a", True, False, "u1", True),
        ("b", True, False, "u1", False),
        ("a", True, True, "u1", False),
        ("a", False, False, "u1", False),
        ("a", True, False, "u2", False),
    ],
)
def test_stuck_pods_of_a_stateful_set(revision: str, guard: bool, ready: bool, owner: str, stuck: bool) -> None:
    item = rolling("StatefulSet", {"updateRevision": "b"})
    pod = {
        "metadata": {"name": "web-0", "labels": {client_rollout.REVISION: revision}, "ownerReferences": [{"uid": owner}]},
        "spec": {"initContainers": [{"name": GUARD if guard else "other"}]},
        "status": {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }
    assert bool(client_rollout.stuck_pods(item, [pod])) is stuck
    assert client_rollout.stuck_pods(rolling("Deployment", {"updateRevision": "b"}), [pod]) == ()
