# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs of killswitch_policy on a real API server: written, proven, repaired, kept, removed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._errors import NetguardError
from ansible_collections.homelab.netguard.plugins.module_utils._manifests import admission
from ansible_collections.homelab.netguard.plugins.module_utils._operations import killswitch_proof
from ansible_collections.homelab.netguard.tests.cluster import crds
from killswitch_lab import MERGE, Lab, Refused, opened

QBIT = {"name": "qbit", "ports": {"web": 8080}}
SAB = {"name": "sab", "pods": {"app": "sab"}}
POLICY, BINDING = "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"


@pytest.fixture
def lab(server: Any) -> Iterator[Lab]:
    with opened(str(server.kubeconfig)) as found:
        yield found


def killswitch(lab: Lab, name: str = "netguard-killswitch-qbit") -> dict[str, Any] | None:
    return lab.get("networking.k8s.io/v1", "NetworkPolicy", name)


def actions(result: dict[str, Any]) -> list[tuple[str, str]]:
    return sorted((item["kind"], item["action"]) for item in result["objects"])


def ours(item: dict[str, Any]) -> Any:
    """What of an object only a writer changes: the server's controllers write the status of a policy whenever they come to it."""
    meta = {key: value for key, value in item["metadata"].items() if key not in ("resourceVersion", "managedFields")}
    managed = [entry for entry in item["metadata"]["managedFields"] if entry.get("subresource") != "status"]
    return item["spec"], meta, managed


def test_a_run_writes_policy_before_admission_proves_both_and_a_second_writes_nothing(lab: Lab) -> None:
    lab.create(lab.workload("Deployment"))
    result = lab.run([QBIT])
    assert [item["kind"] for item in result["objects"]] == ["NetworkPolicy", *[POLICY] * 2, *[BINDING] * 3]
    assert result["proven"] == [f"{lab.namespace}/qbit"]
    written = [ours(item) for item in (killswitch(lab), lab.policy(POLICY), lab.policy(BINDING)) if item]
    again = lab.run([QBIT])
    assert (again["changed"], again["objects"]) == (False, [])
    assert [ours(item) for item in (killswitch(lab), lab.policy(POLICY), lab.policy(BINDING)) if item] == written


def test_check_mode_writes_nothing_and_lists_everything(lab: Lab) -> None:
    lab.create(lab.workload("Deployment"))
    result = lab.run([QBIT], check_mode=True)
    created = ["NetworkPolicy", *[POLICY] * 2, *[BINDING] * 3]
    assert actions(result) == [(kind, "created") for kind in created]
    assert killswitch(lab) is None
    lab.run([QBIT])
    assert lab.run([QBIT], check_mode=True)["changed"] is False


def test_an_app_that_does_not_exist_yet_is_born_protected(lab: Lab) -> None:
    result = lab.run([SAB])
    assert result["policies"][0]["admission"]
    lab.create(lab.workload("Deployment", "sab"))
    lab.until(
        lambda: [
            item
            for found in lab.cluster.list("apps/v1", "ReplicaSet", lab.namespace)
            for item in (found.get("status") or {}).get("conditions", [])
            if item["type"] == "ReplicaFailure"
        ]
    )
    assert not lab.pods()


def test_a_namespace_that_does_not_exist_yet_is_closed_by_admission_alone(lab: Lab) -> None:
    result = lab.run([SAB | {"namespace": f"{lab.namespace}-later"}])
    assert ("NetworkPolicy", "waiting") in actions(result)
    assert lab.policy(BINDING, "sab")
    assert lab.run([SAB | {"namespace": f"{lab.namespace}-later"}])["changed"] is False


def test_a_policy_opened_by_hand_is_closed_and_reported(lab: Lab) -> None:
    lab.create(lab.workload("Deployment"))
    lab.run([QBIT], admission="none")
    wanted = killswitch(lab)
    assert wanted is not None
    for body in (
        {"spec": {"egress": [{}]}},
        {"spec": {"policyTypes": ["Ingress"]}},
        {"spec": {"podSelector": {"matchLabels": {"x": "y"}}}},
    ):
        lab.patch("NetworkPolicy", "netguard-killswitch-qbit", body, how=MERGE)
        result = lab.run([QBIT], admission="none")
        assert actions(result) == [("NetworkPolicy", "repaired")], body
        found = killswitch(lab)
        assert found is not None
        assert found["spec"] == wanted["spec"], body
    lab.send("DELETE", lab.path("NetworkPolicy", "netguard-killswitch-qbit"))
    assert actions(lab.run([QBIT], admission="none")) == [("NetworkPolicy", "created")]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (BINDING, {"spec": {"validationActions": ["Warn"]}}),
        (BINDING, {"spec": {"matchResources": {"namespaceSelector": {"matchLabels": {"no": "where"}}}}}),
        (
            BINDING,
            {
                "spec": {
                    "matchResources": {
                        "excludeResourceRules": [
                            {"apiGroups": [""], "apiVersions": ["*"], "operations": ["*"], "resources": ["pods"]}
                        ]
                    }
                }
            },
        ),
        (POLICY, {"spec": {"failurePolicy": "Ignore"}}),
        (POLICY, {"spec": {"matchConditions": [{"name": "of-the-client", "expression": "false"}]}}),
        (POLICY, {"spec": {"validations": [{"expression": "true"}]}}),
        (POLICY, {"spec": {"matchConstraints": {"objectSelector": {"matchLabels": {"no": "thing"}}}}}),
    ],
    ids=["actions", "resources", "excluded", "failure", "condition", "validations", "selector"],
)
@pytest.mark.parametrize("whose", ["qbit", ""], ids=["client", "protection"])
def test_admission_loosened_by_hand_is_tightened_and_in_force_again(lab: Lab, kind: str, body: dict[str, Any], whose: str) -> None:
    lab.create(lab.workload("Deployment"))
    lab.run([QBIT])
    wanted = lab.policy(kind, whose)
    lab.edit_cluster_object(kind, wanted["metadata"]["name"], body)
    result = lab.run([QBIT])
    assert actions(result) == [(kind, "repaired")]
    assert lab.policy(kind, whose)["spec"] == wanted["spec"]
    assert lab.run([QBIT])["changed"] is False
    pod = {
        "metadata": {"name": "bare", "namespace": lab.namespace, "labels": {"app": "qbit"}},
        "spec": {"containers": [{"name": "a", "image": "b"}]},
    }
    with pytest.raises(Refused):
        lab.create({"apiVersion": "v1", "kind": "Pod"} | pod)


def test_a_condition_added_beside_ours_is_taken_out(lab: Lab) -> None:
    lab.create(lab.workload("Deployment"))
    lab.run([QBIT])
    name = lab.policy(POLICY)["metadata"]["name"]
    path = f"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/{name}"
    extra = [{"op": "add", "path": "/spec/matchConditions/-", "value": {"name": "never", "expression": "false"}}]
    lab.send("PATCH", path, extra, content_type="application/json-patch+json")
    assert actions(lab.run([QBIT])) == [(POLICY, "repaired")]
    assert [item["name"] for item in lab.policy(POLICY)["spec"]["matchConditions"]] == ["of-the-client"]


def test_an_opening_by_another_policy_fails_the_run_after_writing(lab: Lab) -> None:
    lab.create(lab.workload("Deployment"))
    opening = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "allow-internet-egress", "namespace": lab.namespace},
        "spec": {
            "podSelector": {},
            "policyTypes": ["Egress"],
            "egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}], "ports": [{"port": 443}]}],
        },
    }
    lab.create(opening)
    with pytest.raises(NetguardError, match=r"allow-internet-egress, egress\[0\]") as caught:
        lab.run([QBIT])
    assert caught.value.details["reopened_by"][0]["name"] == "allow-internet-egress"
    assert killswitch(lab) is not None
    result = lab.run([QBIT], force=True)
    assert len(result["reopened_by"]) == 1
    narrowed = {"spec": {"podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["qbit"]}]}}}
    lab.patch("NetworkPolicy", "allow-internet-egress", narrowed, how=MERGE)
    assert lab.run([QBIT])["reopened_by"] == []


def test_a_dropped_client_keeps_its_kill_switch_while_it_is_injected(lab: Lab) -> None:
    manifest = lab.workload("Deployment")
    lab.create(manifest)
    lab.run([QBIT, SAB])
    lab.put_guard(manifest)
    result = lab.run([SAB])
    assert result["kept"][0]["client"] == f"{lab.namespace}/qbit"
    assert "Deployment/qbit" in result["kept"][0]["injected"]
    assert result["changed"] is False
    assert killswitch(lab)
    with pytest.raises(NetguardError, match="still injected"):
        lab.remove()
    result = lab.run([QBIT])
    assert (BINDING, "deleted") in actions(result)
    assert ("NetworkPolicy", "deleted") in actions(result)
    assert killswitch(lab, "netguard-killswitch-sab") is None


def test_a_renamed_client_is_held_by_one_kill_switch(lab: Lab) -> None:
    """Two names of one workload would each refuse what the other one asks for."""
    manifest = lab.workload("Deployment")
    lab.create(manifest)
    lab.run([QBIT])
    lab.put_guard(manifest)
    renamed = [QBIT | {"name": "new", "workload": "Deployment/qbit"}]
    for partial in ({"only": ["new"]}, {"prune": False}):
        with pytest.raises(NetguardError, match="/qbit left the list, and its pods are those of another client"):
            lab.run(renamed, **partial)
    assert lab.run(renamed, clients="closed")["kept"], "the other half of site.yml leaves it as it is"
    expected = (
        [(BINDING, "created")] * 2 + [(BINDING, "deleted")] * 2 + [("NetworkPolicy", "created"), ("NetworkPolicy", "deleted")]
    )
    assert sorted(actions(lab.run(renamed, check_mode=True))) == sorted(expected)
    result = lab.run(renamed)
    assert sorted(actions(result)) == sorted(expected)
    assert result["proven"] == [f"{lab.namespace}/new"]
    assert lab.run(renamed)["changed"] is False


def test_a_pod_that_outlives_its_template_still_counts_as_injected(lab: Lab) -> None:
    manifest = lab.workload("StatefulSet", updateStrategy={"type": "OnDelete"})
    lab.create(lab.inject(manifest))
    (pod,) = lab.until(lab.pods)
    lab.run([QBIT | {"workload": "StatefulSet/qbit"}])
    for kind in (BINDING, POLICY):
        lab.send(
            "DELETE",
            lab.cluster.resources.find("admissionregistration.k8s.io/v1", kind).path("", lab.policy(kind)["metadata"]["name"]),
        )

    def replaced() -> bool:
        try:
            lab.replace(manifest)
        except Refused:
            return False
        return True

    lab.until(replaced)
    with pytest.raises(NetguardError, match=f"Pod/{pod['metadata']['name']}"):
        lab.remove()


def test_removal_releases_admission_first_and_leaves_nothing(lab: Lab) -> None:
    lab.create(lab.workload("Deployment"))
    lab.run([QBIT, SAB])
    result = lab.remove()
    kinds = [item["kind"] for item in result["objects"]]
    assert kinds.index(POLICY) > kinds.index("NetworkPolicy") > kinds.index(BINDING)
    for api, kind in (
        ("networking.k8s.io/v1", "NetworkPolicy"),
        ("admissionregistration.k8s.io/v1", POLICY),
        ("admissionregistration.k8s.io/v1", BINDING),
    ):
        assert not lab.cluster.list(api, kind, label_selector=f"homelab.netguard/instance={lab.instance}")
    assert lab.remove()["changed"] is False


def test_the_readmes_one_line_frees_the_user(lab: Lab) -> None:
    manifest = lab.workload("Deployment")
    lab.create(manifest)
    lab.run([QBIT])
    lab.put_guard(manifest)
    selector = f"homelab.netguard/instance={lab.instance},homelab.netguard/part=admission"
    for kind in (BINDING, POLICY):
        lab.send("DELETE", lab.cluster.resources.find("admissionregistration.k8s.io/v1", kind).path(), label_selector=selector)

    def free() -> bool:
        try:
            lab.replace(manifest)
            lab.send("DELETE", lab.path("NetworkPolicy", "netguard-killswitch-qbit"))
        except Refused:
            return False
        return True

    lab.until(free)


def test_an_empty_list_tears_nothing_down(lab: Lab) -> None:
    lab.run([SAB])
    with pytest.raises(NetguardError, match="apps is empty"):
        lab.run([])
    assert killswitch(lab, "netguard-killswitch-sab")


def test_only_writes_a_subset_and_prunes_nothing(lab: Lab) -> None:
    lab.create(lab.workload("Deployment"))
    lab.run([QBIT, SAB])
    third = {"name": "third", "pods": {"app": "third"}}
    result = lab.run([QBIT, third, {"name": "fourth", "pods": {"app": "fourth"}}], only=["third"])
    assert [item["client"] for item in result["policies"]] == [f"{lab.namespace}/third"]
    assert killswitch(lab, "netguard-killswitch-sab")
    assert killswitch(lab, "netguard-killswitch-fourth") is None


def test_closed_clients_are_those_with_a_kill_switch_or_without_a_workload(lab: Lab) -> None:
    lab.create(lab.workload("Deployment"))
    result = lab.run([QBIT, SAB], clients="closed")
    assert [item["client"] for item in result["policies"]] == [f"{lab.namespace}/sab"]
    assert killswitch(lab) is None
    lab.run([QBIT, SAB])
    assert len(lab.run([QBIT, SAB], clients="closed")["policies"]) == 2


def test_without_admission_its_objects_go_and_with_an_old_server_auto_warns(lab: Lab) -> None:
    lab.create(lab.workload("Deployment"))
    lab.run([QBIT])
    result = lab.run([QBIT], admission="none")
    assert actions(result) == [(POLICY, "deleted")] * 2 + [(BINDING, "deleted")] * 3
    assert any("switched off" in note for note in result["notes"])
    lab.facts["server"] = {"version": "v1.28.0"}
    context = lab.context([QBIT])
    from ansible_collections.homelab.netguard.plugins.module_utils._operations import killswitch as operations

    assert operations.operation(context)["policies"][0]["admission"] is False
    assert "1.30" in context.warnings[0]
    with pytest.raises(NetguardError, match="admission is required"):
        lab.run([QBIT], admission="required")


@pytest.mark.usefixtures("calico")
def test_calicos_hard_deny_is_written_protected_and_exchanged(lab: Lab) -> None:
    lab.facts["cni"]["policy_apis"] = ["crd.projectcalico.org/v1"]
    lab.create(lab.workload("Deployment"))
    result = lab.run([QBIT | {"external": [{"to": "192.168.1.10/32"}]}])
    assert [item["kind"] for item in result["objects"]][:2] == ["NetworkPolicy", "GlobalNetworkPolicy"]
    assert not [note for note in result["notes"] if "not protected" in note]
    name = next(item["name"] for item in result["objects"] if item["kind"] == "GlobalNetworkPolicy")
    path = lab.cluster.resources.find("crd.projectcalico.org/v1", "GlobalNetworkPolicy").path("", name)
    with pytest.raises(Refused, match="cannot be deleted"):
        lab.send("DELETE", path)
    with pytest.raises(Refused, match="spec cannot be changed"):
        lab.send("PATCH", path, {"spec": {"order": 5000}}, content_type=MERGE)
    assert lab.run([QBIT | {"external": [{"to": "192.168.1.10/32"}]}])["changed"] is False
    other = {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": f"first-{lab.instance}"},
        "spec": {"order": 3, "types": ["Egress"], "egress": [{"action": "Allow"}]},
    }
    lab.create(other)
    try:
        result = lab.run([QBIT])
        assert ("GlobalNetworkPolicy", "changed") in actions(result)
        assert lab.get("crd.projectcalico.org/v1", "GlobalNetworkPolicy", name, "")["spec"]["order"] == 2  # type: ignore[index]
    finally:
        lab.send("DELETE", path.replace(name, f"first-{lab.instance}"))
    result = lab.run([QBIT], dialect="networkpolicy")
    assert ("GlobalNetworkPolicy", "deleted") in actions(result)


@pytest.mark.usefixtures("calico")
def test_a_hard_deny_that_nothing_protects_is_told(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where another server serves the API, which knows nothing of admission policies."""
    lab.facts["cni"]["policy_apis"] = ["crd.projectcalico.org/v1"]
    lab.create(lab.workload("Deployment"))
    monkeypatch.setattr(killswitch_proof, "DENY_PATIENCE", 1.0)
    whole = admission.protection
    monkeypatch.setattr(admission, "protection", lambda topology, _dialects=(): whole(topology))
    (note,) = [note for note in lab.run([QBIT])["notes"] if "not protected" in note]
    assert note.startswith("GlobalNetworkPolicy (crd.projectcalico.org/v1) is not protected against deletion")


def test_a_policy_that_looks_at_no_volume_is_not_in_force(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What refuses a pod without the guard may let one pass whose guard runs somebody else's scripts: an older policy would."""
    lab.create(lab.workload("Deployment"))
    monkeypatch.setattr(killswitch_proof, "PATIENCE", 3.0)
    with monkeypatch.context() as older:
        older.setattr(admission.cel, "CONFIG_NAME", "''")
        with pytest.raises(NetguardError, match="another ConfigMap's, and a dry run answered 200"):
            lab.run([QBIT])
    assert lab.run([QBIT])["proven"] == [f"{lab.namespace}/qbit"]


def test_two_hundred_clients_in_one_namespace(lab: Lab) -> None:
    """Each pod is judged by its own client's bindings alone, so that no limit on their cost comes near, and quickly."""
    apps = [{"name": f"app{number}", "pods": {"app": f"app{number}"}} for number in range(200)]
    result = lab.run(apps)
    assert len(result["proven"]) == 200
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "bare", "namespace": lab.namespace, "labels": {"app": "app199"}},
        "spec": {"containers": [{"name": "main", "image": "example.invalid/app:1"}]},
    }
    with pytest.raises(Refused, match="must start with"):
        lab.create(pod)
    pod["metadata"]["labels"] = {"app": "of-nobody"}
    started = time.monotonic()
    lab.create(pod)
    assert time.monotonic() - started < 5


def test_the_last_client_takes_what_the_instance_had_as_a_whole(lab: Lab) -> None:
    other = {"name": "plain", "vpn": None}
    lab.run([SAB])
    result = lab.run([other])
    assert actions(result) == [("NetworkPolicy", "deleted")] + [(POLICY, "deleted")] * 2 + [(BINDING, "deleted")] * 3
    assert lab.run([other])["changed"] is False


@pytest.fixture
def custom(server: Any, request: pytest.FixtureRequest) -> Iterator[None]:
    """The custom resources of a dialect, for one test: other tests of this session discover none of them."""
    name = request.param
    server.crds(name)
    yield
    server.run_kubectl("delete", "--ignore-not-found", "-f", str(crds.path(name)))


@pytest.mark.parametrize(
    ("dialect", "api", "kind", "custom"),
    [
        ("cilium", "cilium.io/v2", "CiliumNetworkPolicy", "cilium"),
        ("clusternetworkpolicy", "policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", "cluster-network-policy"),
    ],
    indirect=["custom"],
)
@pytest.mark.usefixtures("custom")
def test_other_hard_denies_are_valid_stable_protected_and_removed(lab: Lab, dialect: str, api: str, kind: str) -> None:
    app = SAB | {"kube_api": True, "icmp": ["192.168.1.1/32"], "external": [{"to": "192.168.1.10/32", "ports": ["8006/tcp"]}]}
    lab.facts["cni"] |= {"policy_apis": [api], "name": "cilium" if dialect == "cilium" else "kube-router"}
    lab.facts["api_server"] = {"endpoints": [{"ip": "192.168.1.20", "port": 6443}], "service_ip": "10.96.0.1"}
    lab.facts["dns"]["node_local_ip"] = "169.254.20.10"
    result = lab.run([app])
    assert result["policies"][0]["hard_deny"] == [dialect]
    assert not [note for note in result["notes"] if "not protected" in note]
    assert lab.run([app])["changed"] is False
    (found,) = lab.cluster.list(api, kind, label_selector=f"homelab.netguard/instance={lab.instance}")
    path = lab.cluster.resources.find(api, kind).path(found["metadata"].get("namespace", ""), found["metadata"]["name"])
    with pytest.raises(Refused, match="cannot be deleted"):
        lab.send("DELETE", path)
    with pytest.raises(Refused, match="spec cannot be changed"):
        lab.send("PATCH", path, [{"op": "remove", "path": "/spec/egress"}], content_type="application/json-patch+json")
    lab.remove()
    assert not lab.cluster.list(api, kind, label_selector=f"homelab.netguard/instance={lab.instance}")
