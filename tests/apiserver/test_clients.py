# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""vpn_client_inject against a real API server: what owners do meanwhile, refusals, and removal without a trace."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.homelab.netguard.tests.apiserver.clients_lab import (
    GUARD,
    KEY,
    MERGE,
    SIDECAR,
    STRATEGIC,
    Home,
    guard_first,
    said,
    template_of,
    until,
)


@pytest.fixture
def home(server: Any) -> Iterator[Home]:
    place = Home(str(server.kubeconfig))
    yield place
    place.clean()


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet", "CronJob"])
def test_in_and_out_again_field_by_field(home: Home, kind: str) -> None:
    before = home.workload(kind)
    result = home.site()
    assert said(result) == "injected"
    live = home.get(kind, "web")
    init = [item["name"] for item in template_of(live)["spec"]["initContainers"]]
    assert init == [GUARD, SIDECAR, "prepare"]
    if kind != "CronJob":
        pods = home.pods()
        assert pods
        assert all(pod["spec"]["initContainers"][0]["name"] == GUARD for pod in pods)
        (found,) = result["clients"]
        assert set(found["overlay_addresses"]) == {pod["metadata"]["name"] for pod in pods}

    home.run("killswitch")
    versions = home.versions()
    again = home.run()
    assert not again["changed"]
    assert again["patches"] == []
    assert said(again) == "unchanged"
    assert home.versions() == versions

    removed = home.run(state="absent", apps=[], gateways=[])
    assert removed["changed"]
    after = home.get(kind, "web")
    assert template_of(after) == template_of(before)
    assert "homelab.netguard" not in json.dumps({k: v for k, v in after["metadata"].items() if k != "managedFields"})
    assert not home.exists("ConfigMap", "netguard-client-web", "v1")
    for history in ("ReplicaSet", "ControllerRevision"):
        found = home.resource("apps/v1", history).get(namespace=home.media).items
        assert not [item for item in found if GUARD in json.dumps(item.to_dict())], "a roll-back to it would be a broken client"
    assert home.exists("NetworkPolicy", "netguard-killswitch-web", "networking.k8s.io/v1"), "it is killswitch_policy's to delete"
    home.run("killswitch", state="absent", apps=[], gateways=[])
    assert not home.exists("NetworkPolicy", "netguard-killswitch-web", "networking.k8s.io/v1")
    assert not home.run(state="absent", apps=[], gateways=[])["changed"]


def test_refused_without_a_kill_switch(home: Home) -> None:
    before = home.workload()
    home.run("gateway")
    result = home.run(fails=True)
    assert "has no kill switch" in result["msg"]
    assert "killswitch_policy" in result["msg"]
    assert template_of(home.get("Deployment", "web")) == template_of(before)


def test_refused_while_another_policy_opens_the_client(home: Home) -> None:
    home.workload()
    home.run("gateway")
    home.run("killswitch")
    spec = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}
    home.create("networking.k8s.io/v1", "NetworkPolicy", {"metadata": {"name": "open"}, "spec": spec})
    result = home.run(fails=True)
    assert f"{home.media}/open" in result["msg"]
    assert not guard_first(home.get("Deployment", "web"))


def test_refused_without_admission(home: Home) -> None:
    home.workload()
    home.run("gateway")
    home.run("killswitch", admission="none")
    result = home.run(fails=True)
    assert "no admission guard" in result["msg"]
    assert not guard_first(home.get("Deployment", "web"))
    assert said(home.run(admission="none")) == "injected"


def test_refused_without_its_gateway(home: Home) -> None:
    home.workload()
    home.run("killswitch")
    assert "run homelab.netguard.vpn_gateway first" in home.run(fails=True)["msg"]
    assert not guard_first(home.get("Deployment", "web"))


def test_check_mode_writes_nothing_from_the_first_run_on(home: Home) -> None:
    home.workload()
    versions = home.versions()
    first = home.run(check=True)
    assert first["changed"]
    assert said(first) == "injected"
    assert home.versions() == versions
    home.site()
    versions = home.versions()
    home.workload(name="other")
    home.apps[0] = {key: value for key, value in home.apps[0].items() if key != "vpn"}
    dropped = home.run(check=True)
    assert {item["action"] for item in dropped["clients"]} == {"injected", "released"}
    versions[("Deployment", "other")] = home.versions()[("Deployment", "other")]
    assert home.versions() == versions


def test_check_mode_shows_a_change_that_admission_would_refuse_today(home: Home) -> None:
    """The guard's image changes: the admission in force knows the old one alone, until killswitch_policy runs."""
    home.workload()
    home.site()
    versions = home.versions()
    images = {"overlay": "registry.example/guard:2"}
    result = home.run(check=True, images=images)
    assert said(result) == "changed"
    assert home.versions() == versions
    home.run("killswitch", images=images)
    assert said(home.run(images=images)) == "changed"
    home.run("killswitch", images=images)  # from now on the old guard is refused
    assert said(home.run(images=images)) == "unchanged"
    raw_again_by = {"spec": {"template": {"metadata": {"annotations": {"homelab.netguard/digest": "other"}}}}}
    home.patch("Deployment", "web", raw_again_by)
    assert said(home.run(images=images)) == "changed"


def test_a_running_job_of_a_dropped_cron_job_keeps_its_policy(home: Home) -> None:
    home.workload("CronJob")
    home.workload(name="stays")
    home.site()
    template = template_of(home.get("CronJob", "web"))
    name = home.get("CronJob", "web")["metadata"]["name"]
    job = {"metadata": {"name": f"{name}-now"}, "spec": {"template": {**template, "spec": {**template["spec"]}}}}
    job["spec"]["template"]["spec"]["nodeSelector"] = {"example.com/no": "such-node"}  # runs for as long as the test wants
    home.create("batch/v1", "Job", job)
    until(home.pods, lambda pods: len(pods) == 1)
    home.apps = home.apps[1:]
    home.run("killswitch")
    result = home.run()
    assert any("still runs" in note for note in result["notes"])
    policy = ("NetworkPolicy", "netguard-killswitch-web", "networking.k8s.io/v1")
    assert home.exists(*policy)
    home.resource("batch/v1", "Job").delete(name=f"{name}-now", namespace=home.media, body={"propagationPolicy": "Background"})
    until(home.pods, lambda pods: not pods)
    home.run("killswitch")
    assert not home.exists(*policy)


def test_the_owners_apply_keeps_the_injection(home: Home) -> None:
    """Client-side apply is a three-way strategic merge: it touches what its last manifest named."""
    home.workload()
    home.site()
    containers = {"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "example/app:2"}]}}}}
    home.patch("Deployment", "web", containers, STRATEGIC)
    assert guard_first(home.get("Deployment", "web"))
    body = {
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [{"name": "app", "image": "example/app:3"}],
                    "initContainers": [{"name": "prepare", "image": "example/prepare:3"}],
                },
            },
        }
    }
    home.apply("Deployment", "web", body)
    live = home.get("Deployment", "web")
    assert guard_first(live)
    assert template_of(live)["spec"]["containers"][0]["image"] == "example/app:3"
    home.run("killswitch")
    assert said(home.run()) == "unchanged"


def drop_ours(item: dict[str, Any]) -> None:
    """The owner's manifest as it was: what a chart or kubectl replace writes."""
    spec = template_of(item)["spec"]
    spec["initContainers"] = [one for one in spec["initContainers"] if not one["name"].startswith("netguard-")]
    spec["volumes"] = [one for one in spec["volumes"] if not one["name"].startswith("netguard-")]
    spec["dnsPolicy"] = "ClusterFirst"
    spec.pop("dnsConfig", None)
    for container in (*spec["initContainers"], *spec["containers"]):
        container.pop("securityContext", None)
    template_of(item)["metadata"] = {"labels": {"app": "web"}}
    item["metadata"]["labels"] = {}


def zero_first(item: dict[str, Any]) -> None:
    template_of(item)["spec"]["initContainers"].insert(0, {"name": "zero", "image": "example/zero"})


def weaken(item: dict[str, Any]) -> None:
    guard = template_of(item)["spec"]["initContainers"][0]
    guard["env"].append({"name": "OFF", "value": "1"})
    guard["args"] = ["--off"]


def raw_again(item: dict[str, Any]) -> None:
    template_of(item)["spec"]["containers"][0].pop("securityContext")


@pytest.mark.parametrize("change", [drop_ours, zero_first, weaken, raw_again])
def test_drift_is_repaired(home: Home, change: Callable[[dict[str, Any]], Any]) -> None:
    """Without admission, which would refuse the worse half of these."""
    home.workload()
    home.run("gateway")
    home.run("killswitch", admission="none")
    home.run(admission="none")
    wanted = home.get("Deployment", "web")
    home.replace("Deployment", "web", change)
    assert template_of(home.get("Deployment", "web")) != template_of(wanted)
    result = home.run(admission="none")
    assert said(result) == "repaired"
    live = home.get("Deployment", "web")
    assert guard_first(live)
    if change is not zero_first:
        assert template_of(live) == template_of(wanted)
    assert not home.run(admission="none")["changed"]


def test_an_app_that_left_the_list_is_released_in_order(home: Home) -> None:
    before = home.workload()
    home.workload(name="stays")
    home.site()
    home.apps = home.apps[1:]
    home.run("killswitch")
    assert home.exists("NetworkPolicy", "netguard-killswitch-web", "networking.k8s.io/v1"), "kept while the client is injected"
    result = home.run()
    assert {(item["workload"], item["action"]) for item in result["clients"]} == {
        ("Deployment/stays", "unchanged"),
        ("Deployment/web", "released"),
    }
    assert template_of(home.get("Deployment", "web")) == template_of(before)
    assert not home.exists("NetworkPolicy", "netguard-killswitch-web", "networking.k8s.io/v1")
    assert not home.exists("ConfigMap", "netguard-client-web", "v1")
    order = [item["kind"] for item in result["objects"] if item["action"] == "deleted"]
    assert order.index("ValidatingAdmissionPolicyBinding") < order.index("NetworkPolicy")
    assert guard_first(home.get("Deployment", "stays"))
    home.run("killswitch")
    assert not home.run()["changed"]


def test_a_release_that_did_not_come_to_its_end_is_taken_back(home: Home) -> None:
    """The annotation that lets anybody change what the guard reads goes with the next run."""
    home.workload()
    home.site()
    release = {"metadata": {"annotations": {"homelab.netguard/release": "true"}}}
    home.resource("v1", "ConfigMap").patch(body=release, name="netguard-client-web", namespace=home.media, content_type=MERGE)
    result = home.run()
    assert [(item["kind"], item["action"]) for item in result["objects"]] == [("ConfigMap", "repaired")]
    annotations = home.get("ConfigMap", "netguard-client-web", "v1")["metadata"].get("annotations") or {}
    assert "homelab.netguard/release" not in annotations
    assert not home.run()["changed"]


def test_a_moved_workload_frees_the_former_one(home: Home) -> None:
    before = home.workload()
    home.site()
    home.workload(name="new")
    home.apps = [{**home.apps[0], "workload": "Deployment/new"}]
    home.run("killswitch")
    result = home.run()
    assert {(item["workload"], item["action"]) for item in result["clients"]} == {
        ("Deployment/new", "injected"),
        ("Deployment/web", "released"),
    }
    assert guard_first(home.get("Deployment", "new"))
    assert template_of(home.get("Deployment", "web")) == template_of(before)
    home.run("killswitch")
    assert not home.run()["changed"]


def test_a_renamed_app_keeps_its_workload_closed(home: Home) -> None:
    """The former name's kill switch selects the same pods, and its admission knows the former ConfigMap alone."""
    home.workload()
    home.site()
    home.apps = [{**home.apps[0], "name": "new"}]
    home.run("killswitch")
    assert said(home.run(), "new") == "changed"
    item = home.get("Deployment", "web")
    assert guard_first(item)
    assert template_of(item)["spec"]["volumes"][-1]["configMap"]["name"] == "netguard-client-new"
    for kind, name in (("NetworkPolicy", "netguard-killswitch-web"), ("ConfigMap", "netguard-client-web")):
        assert not home.exists(kind, name, "networking.k8s.io/v1" if kind == "NetworkPolicy" else "v1")
    assert not home.run("killswitch")["changed"]
    assert not home.run()["changed"]


def test_a_renamed_gateway_is_followed_in_one_run(home: Home) -> None:
    """In the order of site.yml: the client may reach the new gateway alone before the former one goes, and no other in between."""
    home.workload()
    home.site()
    home.apps = [{**home.apps[0], "vpn": "mullvad"}]
    options: dict[str, Any] = {"gateways": [{"name": "mullvad", "namespace": home.vpn, "provider": "protonvpn"}]}

    def reached() -> list[str]:
        """Gateways that the policy lets the client out to, by every rule that it has."""
        rules = home.get("NetworkPolicy", "netguard-killswitch-web", "networking.k8s.io/v1")["spec"]["egress"]
        return [peer["podSelector"]["matchLabels"]["homelab.netguard/gateway"] for rule in rules for peer in rule["to"]]

    assert reached() == ["proton"]
    home.run("killswitch", clients="closed", **options)
    assert reached() == ["mullvad"]
    result = home.run("gateway", **options, credentials={"mullvad": {"wireguard_private_key": KEY}})
    assert {item["action"] for item in result["objects"] if "proton" in item["name"]} == {"deleted"}
    assert not home.run("killswitch", **options)["changed"]
    assert said(home.run(**options)) == "changed"
    assert reached() == ["mullvad"]
    assert not home.run(**options)["changed"]


def test_a_workload_that_comes_later_is_waiting_first(home: Home) -> None:
    home.apps = [{"name": "web", "namespace": home.media, "pods": {"app": "web"}, "vpn": "proton"}]
    result = home.site()
    assert said(result) == "waiting"
    assert result["changed"] is False
    home.apps.clear()
    home.workload()
    home.apps[0]["pods"] = {"app": "web"}
    assert home.pods() == [], "admission refuses it until it is injected"
    home.run("killswitch")
    assert said(home.run()) == "injected"
    assert home.pods()


def test_a_field_of_another_apply_manager_is_named_and_not_forced(home: Home) -> None:
    home.workload()
    home.apply("Deployment", "web", {"spec": {"template": {"spec": {"dnsPolicy": "Default"}}}}, manager="argocd")
    home.run("gateway")
    home.run("killswitch")
    result = home.run(fails=True)
    assert "argocd" in result["msg"]
    assert "dnsPolicy" in result["msg"]
    live = home.get("Deployment", "web")
    assert template_of(live)["spec"]["dnsPolicy"] == "Default"
    assert not guard_first(live)


def test_an_admission_that_refuses_the_guarded_pod_is_seen_first(home: Home) -> None:
    home.workload()
    home.run("gateway")
    home.run("killswitch")
    label = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}}
    home.resource("v1", "Namespace").patch(body=label, name=home.media, content_type=MERGE)
    result = home.run(fails=True)
    assert "pod-security.kubernetes.io/enforce=privileged" in result["msg"]
    managed = home.run(manage_pod_security=True)
    assert said(managed) == "injected"
    home.run(state="absent", apps=[], gateways=[])
    labels = home.get("Namespace", home.media)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "baseline"


def test_a_webhook_like_policy_that_refuses_the_pod_stops_the_run(home: Home) -> None:
    home.workload()
    home.run("gateway")
    home.run("killswitch")
    name = f"no-root-{home.instance}"
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]
    policy = {
        "matchConstraints": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": home.media}},
            "resourceRules": rules,
        },
        "validations": [
            {"expression": "!has(object.spec.initContainers) || object.spec.initContainers.size() < 2", "message": "too many"}
        ],
    }
    group = "admissionregistration.k8s.io/v1"
    home.create(group, "ValidatingAdmissionPolicy", {"metadata": {"name": name}, "spec": policy})
    binding = {"policyName": name, "validationActions": ["Deny"]}
    home.create(group, "ValidatingAdmissionPolicyBinding", {"metadata": {"name": name}, "spec": binding})
    try:
        time.sleep(2)
        result = home.run(fails=True)
        assert "too many" in result["msg"]
        assert not guard_first(home.get("Deployment", "web"))
    finally:
        for kind in ("ValidatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy"):
            home.resource(group, kind).delete(name=name)


def test_a_gap_in_the_policy_restarts_the_pods_and_says_so(home: Home) -> None:
    home.workload()
    home.site(admission="none")
    old = {pod["metadata"]["name"] for pod in home.pods()}
    resource = home.resource("networking.k8s.io/v1", "NetworkPolicy")
    resource.delete(name="netguard-killswitch-web", namespace=home.media)
    home.run("killswitch", admission="none")
    result = home.run(admission="none")
    assert any("are restarted" in note for note in result["notes"])
    assert old.isdisjoint({pod["metadata"]["name"] for pod in home.pods()})


def test_an_empty_list_tears_nothing_down(home: Home) -> None:
    home.workload()
    home.site()
    result = home.run(apps=[], fails=True)
    assert "apps is empty" in result["msg"]
    assert guard_first(home.get("Deployment", "web"))


def test_another_list_with_the_same_instance_tears_nothing_down(home: Home) -> None:
    home.workload()
    home.site()
    home.apps.clear()
    home.workload(name="other")
    home.run("killswitch")
    result = home.run(fails=True)
    assert "give it an instance of its own" in result["msg"]
    assert guard_first(home.get("Deployment", "web"))
    assert not guard_first(home.get("Deployment", "other"))
    assert home.run(prune=False)["changed"]
    assert guard_first(home.get("Deployment", "web"))


def test_a_subset_leaves_the_others_alone(home: Home) -> None:
    home.workload()
    home.workload(name="other")
    home.run("gateway")
    home.run("killswitch")
    result = home.run(only=["web"])
    assert [item["app"] for item in result["clients"]] == [f"{home.media}/web"]
    assert guard_first(home.get("Deployment", "web"))
    assert not guard_first(home.get("Deployment", "other"))


def test_a_stateful_set_is_not_wedged_by_a_pod_that_cannot_become_ready(home: Home) -> None:
    """A pod of an older revision that is not ready keeps the controller from making the new one (kubernetes issue 67250)."""
    home.workload("StatefulSet", replicas=1)
    home.site(admission="none")
    nowhere = {"example.com/no": "such-node"}
    home.patch("StatefulSet", "web", {"spec": {"template": {"spec": {"nodeSelector": nowhere}}}})
    (pod,) = until(home.pods, lambda pods: len(pods) == 1 and pods[0]["spec"].get("nodeSelector") == nowhere)
    home.patch("StatefulSet", "web", {"spec": {"template": {"spec": {"nodeSelector": None}}}})
    time.sleep(3)
    (stuck,) = home.pods()
    assert stuck["metadata"]["uid"] == pod["metadata"]["uid"], "the controller alone waits for it"
    result = home.run(admission="none")
    assert any(f"{home.media}/web-0" in note for note in result["notes"])
    (new,) = home.pods()
    assert new["metadata"]["uid"] != pod["metadata"]["uid"]


def test_a_rollout_that_does_not_end_is_explained(home: Home) -> None:
    home.workload(pod={"nodeSelector": {"example.com/no": "such-node"}})
    home.run("gateway")
    home.run("killswitch")
    result = home.run(wait_timeout=3, fails=True)
    assert "Deployment" in result["msg"]
    assert "not ready after 3 s" in result["msg"]
    assert "Unschedulable" in result["msg"]
    assert result["changed"], "what was done is told all the same"
    assert result["counts"]["patched"] == 1
    assert guard_first(home.get("Deployment", "web")), "it stays closed and injected"


def test_on_delete_pods_are_replaced_by_the_run(home: Home) -> None:
    home.workload("StatefulSet", replicas=2, updateStrategy={"type": "OnDelete"})
    until(home.pods, lambda pods: len(pods) == 2)
    result = home.site()
    assert all(pod["spec"]["initContainers"][0]["name"] == GUARD for pod in home.pods())
    assert any(f"{home.media}/web-1" in note for note in result["notes"])
