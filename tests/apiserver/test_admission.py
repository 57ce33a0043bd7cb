# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an owner, Helm or a tired administrator does to a client, on a real API server: refused, or let through unharmed."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.images import Images
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Key
from ansible_collections.homelab.netguard.plugins.module_utils._operations import killswitch
from killswitch_lab import APPLY, MERGE, Lab, Refused, opened

KINDS = ["Deployment", "StatefulSet", "DaemonSet", "CronJob"]
QBIT = {"name": "qbit", "ports": {"web": 8080}}


@pytest.fixture
def lab(server: Any) -> Iterator[Lab]:
    with opened(str(server.kubeconfig)) as found:
        yield found


def app(kind: str, **more: Any) -> dict[str, Any]:
    return QBIT | {"workload": f"{kind}/qbit"} | more


def closed(lab: Lab, kind: str = "Deployment", **spec: Any) -> dict[str, Any]:
    """A client as after a run of site.yml; returns the owner's own manifest."""
    manifest = lab.workload(kind, **spec)
    lab.create(manifest)
    lab.run([app(kind)])
    lab.put_guard(manifest)
    return manifest


def template(lab: Lab, kind: str) -> dict[str, Any]:
    found = lab.get("batch/v1" if kind == "CronJob" else "apps/v1", kind, "qbit")
    assert found is not None
    spec = found["spec"]["jobTemplate"]["spec"] if kind == "CronJob" else found["spec"]
    return spec["template"]["spec"]


def pod_patch(kind: str, pod: dict[str, Any], **meta: Any) -> dict[str, Any]:
    inner = {"template": {"spec": pod} | ({"metadata": meta} if meta else {})}
    return {"spec": {"jobTemplate": {"spec": inner}}} if kind == "CronJob" else {"spec": inner}


@pytest.mark.parametrize("kind", KINDS)
def test_replace_is_refused_and_the_message_names_the_way_out(lab: Lab, kind: str) -> None:
    manifest = closed(lab, kind)
    before = template(lab, kind)
    with pytest.raises(Refused, match="takes the guard away") as caught:
        lab.replace(manifest)
    assert "kubectl delete validatingadmissionpolicybinding" in str(caught.value)
    assert template(lab, kind) == before


@pytest.mark.parametrize("kind", KINDS)
def test_an_owner_goes_on_working(lab: Lab, kind: str) -> None:
    manifest = closed(lab, kind)
    lab.patch(kind, "qbit", pod_patch(kind, {"containers": [{"name": "main", "image": "example.invalid/app:2"}]}))
    server_side = copy.deepcopy(manifest)
    lab.send("PATCH", lab.path(kind, "qbit"), server_side, manager="owner", content_type=APPLY, force_conflicts="true")
    lab.patch(kind, "qbit", {"metadata": {"annotations": {"note": "mine"}}}, how=MERGE)
    found = template(lab, kind)
    assert found["initContainers"][0]["name"] == "netguard-guard"


def test_scaling_and_status_are_not_looked_at(lab: Lab) -> None:
    closed(lab)
    lab.patch("Deployment", "qbit", {"spec": {"replicas": 3}}, how=MERGE, subresource="scale")
    lab.until(lambda: len(lab.pods("app=qbit")) == 3)


def test_rollout_undo_to_the_time_before_the_guard_is_refused(lab: Lab) -> None:
    closed(lab)
    old = pod_patch("Deployment", {"initContainers": None, "containers": [{"name": "main", "image": "example.invalid/app:1"}]})
    with pytest.raises(Refused, match="takes the guard away"):
        lab.patch("Deployment", "qbit", old, how=MERGE)


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("another image", {"image": "example.invalid/evil"}),
        ("another command", {"command": ["sleep", "1"]}),
        ("arguments", {"args": ["x"]}),
        ("no capabilities", {"securityContext": {"capabilities": {"add": None}}}),
        ("a sidecar", {"restartPolicy": "Always"}),
    ],
)
def test_a_guard_that_is_none_any_more_is_refused(lab: Lab, what: str, change: dict[str, Any]) -> None:
    closed(lab)
    with pytest.raises(Refused, match="takes the guard away"):
        lab.patch("Deployment", "qbit", pod_patch("Deployment", {"initContainers": [{"name": "netguard-guard", **change}]}))


def test_an_init_container_may_stand_behind_the_guard_and_not_in_front(lab: Lab) -> None:
    closed(lab)
    mine = {"name": "mine", "image": "example.invalid/init:1"}
    behind = {"initContainers": [mine], "$setElementOrder/initContainers": [{"name": "netguard-guard"}, {"name": "mine"}]}
    lab.patch("Deployment", "qbit", pod_patch("Deployment", behind))
    front = {
        "initContainers": [mine | {"name": "zero"}],
        "$setElementOrder/initContainers": [{"name": "zero"}, {"name": "netguard-guard"}],
    }
    with pytest.raises(Refused, match="takes the guard away"):
        lab.patch("Deployment", "qbit", pod_patch("Deployment", front))


def test_a_repaired_binding_is_in_force_when_the_run_ends(lab: Lab) -> None:
    """The pods' rule was never off here, so a refused pod alone would prove nothing about the workload's rule."""
    manifest = closed(lab)
    binding = lab.policy("ValidatingAdmissionPolicyBinding", of_workload=True)["metadata"]["name"]
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]
    lab.edit_cluster_object("ValidatingAdmissionPolicyBinding", binding, {"spec": {"matchResources": {"resourceRules": rules}}})
    lab.until(lambda: _goes(lambda: lab.send("PUT", lab.path("Deployment", "qbit"), manifest, dry_run="All")))
    lab.run([app("Deployment")])
    with pytest.raises(Refused, match="takes the guard away"):
        lab.replace(manifest)


@pytest.mark.parametrize("kind", KINDS)
def test_the_host_network_is_refused(lab: Lab, kind: str) -> None:
    closed(lab, kind)
    with pytest.raises(Refused, match="on the node's network"):
        lab.patch(kind, "qbit", pod_patch(kind, {"hostNetwork": True}))


def test_a_cronjobs_template_keeps_the_selecting_labels(lab: Lab) -> None:
    closed(lab, "CronJob")
    with pytest.raises(Refused, match="would leave the kill switch"):
        lab.patch("CronJob", "qbit", pod_patch("CronJob", {}, labels={"app": "other"}))


def test_pods_of_the_client_need_the_guard_first(lab: Lab) -> None:
    closed(lab)
    bare = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "bare", "namespace": lab.namespace, "labels": {"app": "qbit"}},
        "spec": {"containers": [{"name": "main", "image": "example.invalid/app:1"}]},
    }
    with pytest.raises(Refused, match="must start with the init container netguard-guard"):
        lab.create(bare)
    second = copy.deepcopy(bare)
    second["spec"]["initContainers"] = [{"name": "first", "image": "example.invalid/x"}, lab.guard()]
    second["spec"]["volumes"] = [lab.volume()]
    with pytest.raises(Refused, match="must start with"):
        lab.create(second)
    host = copy.deepcopy(bare)
    host["spec"] |= {"initContainers": [lab.guard()], "volumes": [lab.volume()], "hostNetwork": True}
    with pytest.raises(Refused, match="on the node's network"):
        lab.create(host)
    good = copy.deepcopy(bare)
    good["spec"] |= {"initContainers": [lab.guard()], "volumes": [lab.volume()]}
    lab.create(good)
    other = copy.deepcopy(bare)
    other["metadata"] |= {"name": "other", "labels": {"app": "other"}}
    lab.create(other)


def test_a_workload_that_lost_its_guard_while_unprotected_starts_no_pods(lab: Lab) -> None:
    """The workload's rule taken off by hand: the pods' rule still holds until the next run."""
    manifest = closed(lab)
    lab.until(lambda: any(pod["spec"].get("initContainers") for pod in lab.pods("app=qbit")))
    binding = lab.policy("ValidatingAdmissionPolicyBinding", of_workload=True)["metadata"]["name"]
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]
    lab.edit_cluster_object("ValidatingAdmissionPolicyBinding", binding, {"spec": {"matchResources": {"resourceRules": rules}}})
    newer = copy.deepcopy(manifest)
    newer["spec"]["template"]["spec"]["containers"][0]["image"] = "example.invalid/app:2"
    lab.until(lambda: _goes(lambda: lab.replace(newer)))
    failure = lab.until(
        lambda: [
            item
            for found in lab.cluster.list("apps/v1", "ReplicaSet", lab.namespace)
            for item in (found.get("status") or {}).get("conditions", [])
            if item["type"] == "ReplicaFailure" and "netguard-guard" in item["message"]
        ]
    )
    assert failure
    result = lab.run([app("Deployment")])
    assert [item["action"] for item in result["objects"]] == ["repaired"]
    lab.put_guard(manifest)
    lab.until(lambda: not _goes(lambda: lab.send("PUT", lab.path("Deployment", "qbit"), manifest, dry_run="All")))


def _goes(attempt: Any) -> bool:
    try:
        attempt()
    except Refused:
        return False
    return True


def test_pods_keep_the_selecting_label_and_may_change_others(lab: Lab) -> None:
    closed(lab)
    name = lab.until(lambda: [pod for pod in lab.pods("app=qbit") if pod["spec"].get("initContainers")])[0]["metadata"]["name"]
    lab.patch("Pod", name, {"metadata": {"labels": {"other": "x"}}}, how=MERGE)
    for change in ({"app": None}, {"app": "else"}):
        with pytest.raises(Refused, match="would leave the kill switch"):
            lab.patch("Pod", name, {"metadata": {"labels": change}}, how=MERGE)


@pytest.mark.parametrize(
    ("context", "refused"),
    [
        ({"capabilities": {"add": ["NET_ADMIN"]}}, True),
        ({"capabilities": {"add": ["SYS_PTRACE"]}}, True),
        ({"privileged": True}, True),
        ({"capabilities": {"drop": ["ALL"]}}, False),
        (None, False),
    ],
)
def test_debug_containers(lab: Lab, context: Any, refused: bool) -> None:
    closed(lab)
    name = lab.until(lambda: [pod for pod in lab.pods("app=qbit") if pod["spec"].get("initContainers")])[0]["metadata"]["name"]
    container = {"name": "debugger", "image": "busybox"} | ({"securityContext": context} if context else {})
    body = {"spec": {"ephemeralContainers": [container]}}
    if refused:
        with pytest.raises(Refused, match="could undo the guard"):
            lab.patch("Pod", name, body, subresource="ephemeralcontainers")
    else:
        lab.patch("Pod", name, body, subresource="ephemeralcontainers")


def test_what_the_guard_reads_is_ours_to_write(lab: Lab) -> None:
    """Settings that let everything out would open the guard of the next pod that starts."""
    closed(lab)

    def config(name: str, part: str) -> dict[str, Any]:
        labels = {"homelab.netguard/instance": lab.instance, "homelab.netguard/part": part}
        meta = {"name": name, "namespace": lab.namespace, "labels": labels}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"settings": "closed"}}

    lab.create(config("netguard-client-qbit", "client"))
    lab.create(config("gateway", "gateway"))
    opened = {"data": {"settings": "open"}}
    for change, said in (
        (opened, "cannot be changed"),
        ({"binaryData": {"settings2": "eA=="}}, "cannot be changed"),
        ({"metadata": {"labels": {"homelab.netguard/part": None}}}, "labels cannot be taken off"),
    ):
        with pytest.raises(Refused, match=said):
            lab.patch("ConfigMap", "netguard-client-qbit", change, how=MERGE)
    with pytest.raises(Refused, match="cannot be deleted"):
        lab.send("DELETE", lab.path("ConfigMap", "netguard-client-qbit"))
    lab.patch("ConfigMap", "netguard-client-qbit", {"metadata": {"annotations": {"note": "x"}}}, how=MERGE)
    lab.patch("ConfigMap", "netguard-client-qbit", opened, how=MERGE, manager="homelab.netguard")
    lab.patch("ConfigMap", "gateway", opened, how=MERGE)
    assert lab.cluster.delete(Key("v1", "ConfigMap", lab.namespace, "netguard-client-qbit"))
    assert lab.get("v1", "ConfigMap", "netguard-client-qbit") is None


def test_policies_survive_a_delete_of_all(lab: Lab) -> None:
    closed(lab)
    lab.create(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "someone-else", "namespace": lab.namespace},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
        }
    )
    with pytest.raises(Refused, match="cannot be deleted"):
        lab.send("DELETE", lab.path("NetworkPolicy"))
    assert lab.get("networking.k8s.io/v1", "NetworkPolicy", "netguard-killswitch-qbit")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"spec": {"egress": [{}]}}, "spec cannot be changed"),
        ({"spec": {"policyTypes": ["Ingress"]}}, "spec cannot be changed"),
        ({"metadata": {"labels": {"homelab.netguard/instance": None}}}, "labels cannot be taken off"),
        ({"metadata": {"labels": {"homelab.netguard/part": "segments"}}}, "labels cannot be taken off"),
        ({"metadata": {"labels": None}}, "labels cannot be taken off"),
    ],
)
def test_policies_cannot_be_opened_or_relabelled(lab: Lab, body: dict[str, Any], said: str) -> None:
    closed(lab)
    with pytest.raises(Refused, match=said) as caught:
        lab.patch("NetworkPolicy", "netguard-killswitch-qbit", body, how=MERGE)
    assert "homelab.netguard/release" in str(caught.value)


def test_a_released_policy_is_its_owners_until_the_next_run(lab: Lab) -> None:
    closed(lab)
    lab.patch("NetworkPolicy", "netguard-killswitch-qbit", {"metadata": {"annotations": {"note": "mine"}}}, how=MERGE)
    release = {"metadata": {"annotations": {"homelab.netguard/release": "true"}}}
    lab.patch("NetworkPolicy", "netguard-killswitch-qbit", release, how=MERGE)
    lab.patch("NetworkPolicy", "netguard-killswitch-qbit", {"spec": {"egress": [{}]}}, how=MERGE)
    result = lab.run([app("Deployment")])
    assert [(item["kind"], item["action"]) for item in result["objects"]] == [("NetworkPolicy", "repaired")]
    found = lab.get("networking.k8s.io/v1", "NetworkPolicy", "netguard-killswitch-qbit")
    assert found is not None
    assert {} not in found["spec"]["egress"]
    assert found["metadata"]["annotations"] == {"note": "mine"}
    with pytest.raises(Refused):
        lab.patch("NetworkPolicy", "netguard-killswitch-qbit", {"spec": {"egress": [{}]}}, how=MERGE)


def test_a_namespace_can_be_deleted_with_everything_in_it(lab: Lab) -> None:
    closed(lab)
    lab.send("DELETE", f"/api/v1/namespaces/{lab.namespace}")
    lab.until(lambda: lab.get("v1", "Namespace", lab.namespace, "") is None, 60, "the namespace is stuck")


def test_a_job_that_runs_while_admission_is_created_finishes(lab: Lab) -> None:
    cronjob = lab.create(lab.workload("CronJob"))
    job = lab.workload("Job", labels={"app": "qbit"})
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": "qbit", "uid": cronjob["metadata"]["uid"], "controller": True}
    job["metadata"] |= {"name": "run", "ownerReferences": [owner]}
    job["spec"]["template"]["spec"]["nodeSelector"] = {"this-test": "decides-when-it-ends"}
    lab.create(job)
    (pod,) = lab.until(lambda: lab.pods("job-name=run"))
    lab.run([app("CronJob")])
    status = {"status": {"phase": "Succeeded", "containerStatuses": []}}
    lab.patch("Pod", pod["metadata"]["name"], status, how=MERGE, subresource="status")

    def complete() -> bool:
        found = lab.get("batch/v1", "Job", "run")
        return any(item["type"] == "Complete" for item in ((found or {}).get("status") or {}).get("conditions", []))

    lab.until(complete, 60, "the Job does not finish")
    lab.until(lambda: not any(item["metadata"].get("finalizers") for item in lab.pods("job-name=run")))


def test_jobs_of_a_closed_cronjob_need_the_guard(lab: Lab) -> None:
    manifest = lab.workload("CronJob")
    lab.create(manifest)
    lab.run([app("CronJob")])
    job = lab.workload("Job")
    job["metadata"]["name"] = "bare"
    lab.create(job)
    guarded = lab.inject(job)
    guarded["metadata"]["name"] = "guarded"
    lab.create(guarded)
    lab.until(lambda: lab.pods("job-name=guarded"))
    assert not lab.pods("job-name=bare")


def test_selectors_with_expressions_are_held_too(lab: Lab) -> None:
    selector = {
        "matchLabels": {"app": "qbit"},
        "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["a", "b"]},
            {"key": "canary", "operator": "DoesNotExist"},
            {"key": "tier", "operator": "Exists"},
            {"key": "zone", "operator": "NotIn", "values": ["x"]},
        ],
    }
    manifest = lab.workload("Deployment", labels={"app": "qbit", "tier": "a"})
    manifest["spec"]["selector"] = selector
    lab.create(manifest)
    lab.run([app("Deployment")])
    pod = {"apiVersion": "v1", "kind": "Pod", "spec": manifest["spec"]["template"]["spec"]}

    def put(name: str, labels: dict[str, str]) -> None:
        lab.create(pod | {"metadata": {"name": name, "namespace": lab.namespace, "labels": labels}})

    for name, labels in (("one", {"tier": "a"}), ("two", {"tier": "b", "zone": "y"})):
        with pytest.raises(Refused):
            put(name, {"app": "qbit"} | labels)
    for name, labels in (
        ("three", {"tier": "c"}),
        ("four", {"tier": "a", "canary": "x"}),
        ("five", {"tier": "a", "zone": "x"}),
        ("six", {}),
    ):
        put(name, {"app": "qbit"} | labels)

    put_in = pod | {"spec": lab.inject(manifest)["spec"]["template"]["spec"]}
    lab.create(put_in | {"metadata": {"name": "held", "namespace": lab.namespace, "labels": {"app": "qbit", "tier": "a"}}})

    def relabel(**labels: str | None) -> None:
        lab.patch("Pod", "held", {"metadata": {"labels": labels}}, how=MERGE)

    # "tier" and "In" are words of the rule itself, and must not pass for its values
    for change in ({"tier": "c"}, {"tier": "tier"}, {"tier": "In"}, {"tier": None}, {"canary": ""}, {"zone": "x"}, {"app": None}):
        with pytest.raises(Refused, match="would leave the kill switch"):
            relabel(**change)
    relabel(tier="b", zone="y")


@pytest.mark.parametrize(
    ("key", "value", "action"),
    [("guards", None, "changed"), ("guards", "mangled", "repaired"), ("selector", None, "changed"), ("subject", None, "changed")],
)
def test_without_its_parameters_everything_of_the_client_is_refused(lab: Lab, key: str, value: str | None, action: str) -> None:
    """A binding whose annotation somebody took off or mangled: closed, and mended by the next run."""
    manifest = closed(lab)
    for of_workload in (False, True):
        name = lab.policy("ValidatingAdmissionPolicyBinding", of_workload=of_workload)["metadata"]["name"]
        annotations = {"metadata": {"annotations": {f"homelab.netguard/{key}": value}}}
        lab.edit_cluster_object("ValidatingAdmissionPolicyBinding", name, annotations)
    labels = {"metadata": {"name": "bare", "namespace": lab.namespace, "labels": {"app": "qbit"}}}
    bare = {"apiVersion": "v1", "kind": "Pod", "spec": manifest["spec"]["template"]["spec"]} | labels
    for _attempt in range(10):
        with pytest.raises(Refused):
            lab.create(bare)
        with pytest.raises(Refused):
            lab.replace(manifest)
        time.sleep(0.2)
    # what is allowed with them is not without
    if key == "guards":
        guarded = bare | {"spec": lab.inject(manifest)["spec"]["template"]["spec"]}
        lab.until(lambda: not _goes(lambda: lab.send("POST", lab.path("Pod"), guarded, dry_run="All")))
    if key == "selector":
        newer = pod_patch("Deployment", {"containers": [{"name": "main", "image": "example.invalid/app:2"}]})
        lab.until(lambda: not _goes(lambda: lab.patch("Deployment", "qbit", newer, dry_run="All")))
    result = lab.run([app("Deployment")])
    assert [(item["kind"], item["action"]) for item in result["objects"]] == [("ValidatingAdmissionPolicyBinding", action)] * 2
    with pytest.raises(Refused, match="is a VPN client of"):
        lab.create(bare)
    with pytest.raises(Refused, match="takes the guard away"):
        lab.replace(manifest)


def test_one_client_s_parameters_are_not_another_s(lab: Lab) -> None:
    """Two clients of one namespace share the policy: each is judged by its own guards, selector and message."""
    for name in ("qbit", "sab"):
        lab.create(lab.workload("Deployment", name))
    apps = [app("Deployment"), QBIT | {"name": "sab"}]
    lab.run(apps)
    for name, other in (("qbit", "sab"), ("sab", "qbit")):
        labels = {"metadata": {"name": f"bare-{name}", "namespace": lab.namespace, "labels": {"app": name}}}
        bare = {"apiVersion": "v1", "kind": "Pod", "spec": lab.workload("Deployment", name)["spec"]["template"]["spec"]} | labels
        with pytest.raises(Refused, match=f"Deployment {lab.namespace}/{name} is a VPN client") as caught:
            lab.create(bare)
        assert f"{lab.namespace}/{other}" not in str(caught.value)
    lab.run(apps[:1])
    lab.until(lambda: _goes(lambda: lab.send("POST", lab.path("Pod"), bare, dry_run="All")))
    with pytest.raises(Refused):
        lab.create(bare | {"metadata": bare["metadata"] | {"name": "bare-qbit", "labels": {"app": "qbit"}}})


def test_old_and_new_guard_are_accepted_while_one_replaces_the_other(lab: Lab) -> None:
    manifest = closed(lab)
    new = "example.invalid/overlay:v2"
    lab.run([app("Deployment")], images={"overlay": new})
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "old", "namespace": lab.namespace, "labels": {"app": "qbit"}},
        "spec": copy.deepcopy(lab.inject(manifest)["spec"]["template"]["spec"]),
    }
    lab.create(pod)
    lab.put_guard(manifest, new)
    context = lab.context([app("Deployment")])
    settled = killswitch.settle(context, context.topology.clients, Images.of({"overlay": new}))
    assert [action.action for action in settled.actions] == ["changed", "changed"], "the bindings of pods and workload"
    late = copy.deepcopy(pod)
    late["metadata"]["name"] = "late"

    def refused() -> bool:
        try:
            lab.send("POST", lab.path("Pod"), late, dry_run="All")
        except Refused:
            return True
        return False

    lab.until(refused)
    assert lab.run([app("Deployment")], images={"overlay": new})["changed"] is False


def test_a_guard_that_was_changed_by_hand_is_not_taken_over(lab: Lab) -> None:
    manifest = closed(lab)
    binding = lab.policy("ValidatingAdmissionPolicyBinding", of_workload=True)["metadata"]["name"]
    lab.edit_cluster_object("ValidatingAdmissionPolicyBinding", binding, {"spec": {"validationActions": ["Audit"]}})
    lab.until(lambda: _goes(lambda: lab.put_guard(manifest, "example.invalid/evil")))
    lab.run([app("Deployment")])
    evil = lab.inject(manifest, "example.invalid/evil")["spec"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "evil", "namespace": lab.namespace} | evil["metadata"],
        "spec": evil["spec"],
    }
    with pytest.raises(Refused, match="must start with"):
        lab.create(pod)
    # What is no worse than before is let through, so that controllers and the next run can write.
    lab.patch("Deployment", "qbit", {"metadata": {"annotations": {"note": "x"}}}, how=MERGE)
    lab.put_guard(manifest)
