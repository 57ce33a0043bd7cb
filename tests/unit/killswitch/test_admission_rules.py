# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Admission objects as values: which guards they accept, what they match, and what is found again by labels alone.

What the expressions do is told by a real API server in tests/apiserver/test_admission.py.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._manifests import admission, client, killswitch
from ansible_collections.homelab.netguard.plugins.module_utils._manifests import admission_cel as cel
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.client_guard import guard_container
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.images import Images
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.killswitch_held import held, injected_workloads, shared
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Live
from killswitch_shapes import FACTS, QBIT, deployment, topology

SHAPE = topology(QBIT)
APP = SHAPE.apps[0]
OLD, NEW = Images(overlay="example.invalid/overlay:1"), Images(overlay="example.invalid/overlay:2")


def guarded(images: Images | None, **changes: Any) -> dict[str, Any]:
    found = copy.deepcopy(deployment("qbit"))
    found["spec"]["template"]["spec"]["initContainers"] = [guard_container(SHAPE, APP, FACTS, images) | changes]
    return found


def objects(live: Live, images: Images | None, dialects: tuple[str, ...] = ()) -> tuple[dict[str, Any], ...]:
    edges = killswitch.build(SHAPE, FACTS, live).edges
    return admission.build(SHAPE, FACTS, live, edges, images=images, dialects=dialects).objects


def accepted(live: Live, images: Images | None) -> list[str]:
    return [item.split("\t")[1] for item in admission.accepted_guards(SHAPE, FACTS, live, APP, images)]


def test_one_guard_is_accepted_when_nothing_is_replaced() -> None:
    assert accepted(Live((deployment("qbit"),)), NEW) == [NEW.overlay]
    assert accepted(Live((guarded(NEW), *objects(Live((guarded(NEW),)), NEW))), NEW) == [NEW.overlay]


def test_the_former_guard_is_accepted_while_the_workload_still_has_it() -> None:
    live = Live((guarded(OLD), *objects(Live((guarded(OLD),)), OLD)))
    assert accepted(live, NEW) == [NEW.overlay, OLD.overlay]
    assert accepted(Live((guarded(NEW), *objects(live, NEW))), NEW) == [NEW.overlay]


@pytest.mark.parametrize("changes", [{"image": "example.invalid/evil"}, {"command": ["true"]}, {"securityContext": {}}])
def test_a_guard_that_no_run_wrote_is_not_taken_over(changes: dict[str, Any]) -> None:
    written = objects(Live((guarded(OLD),)), OLD)
    assert accepted(Live((guarded(OLD, **changes), *written)), OLD) == [OLD.overlay]
    assert accepted(Live((guarded(OLD, **changes),)), OLD) == [OLD.overlay]


@pytest.mark.parametrize(("name", "config"), [("qbit", "netguard-client-qbit"), ("q" * 60, f"netguard-client-{'q' * 38}-5f8d948e")])
def test_admission_and_injection_name_the_same_config_map(name: str, config: str) -> None:
    shape = topology(QBIT | {"name": name})
    live = Live((deployment(name),))
    (edges,) = killswitch.build(shape, FACTS, live).edges
    bindings = admission.client_bindings(shape, FACTS, live, edges)
    assert {item["metadata"]["annotations"]["homelab.netguard/config"] for item in bindings} == {config}
    (injected,) = client.clients(shape, FACTS, live)
    tried = admission.good_pod(shape, FACTS, edges, live)["spec"]
    assert injected.config["metadata"]["name"] == config
    assert injected.template is not None
    for spec in (injected.template["spec"], tried):
        assert spec["volumes"] == [{"name": "netguard-client", "configMap": {"name": config, "defaultMode": 0o555}}]


def test_our_containers_are_as_admission_demands() -> None:
    """The expressions hold names and paths as text: what the builders write is what they ask for."""
    (injected,) = client.clients(SHAPE, FACTS, Live((deployment("qbit"),)))
    assert injected.template is not None
    for container in injected.template["spec"]["initContainers"]:
        assert container["name"] in ("netguard-guard", "netguard-overlay")
        assert [item["mountPath"] for item in container["volumeMounts"]] == ["/netguard"]
        assert container["terminationMessagePath"] == cel.TERMINATION
        for item in container["env"]:
            assert json.dumps(item["name"]) in cel.AS_WRITTEN
            assert item["valueFrom"]["fieldRef"]["fieldPath"].startswith("status.")


def test_a_message_tells_of_the_client_by_its_binding() -> None:
    for rule in admission.clients_policy(SHAPE)["spec"]["validations"]:
        assert "<" not in rule["message"] + rule["messageExpression"]
        assert rule["messageExpression"].count('"') % 2 == 0


def test_every_field_that_the_server_would_fill_in_is_written() -> None:
    for item in objects(Live((deployment("qbit"),)), None, ("calico", "cilium", "clusternetworkpolicy")):
        if item["kind"] == admission.POLICY:
            constraints = item["spec"]["matchConstraints"]
            assert {"matchPolicy", "namespaceSelector", "objectSelector", "resourceRules"} == set(constraints)
            assert all("scope" in rule for rule in constraints["resourceRules"])
            assert item["spec"]["failurePolicy"] == "Fail"
            assert all("\n" not in rule["message"] for rule in item["spec"]["validations"])
        else:
            assert item["spec"]["validationActions"] == ["Deny"]


def test_the_protection_names_the_kinds_that_are_written() -> None:
    def groups(*dialects: str) -> list[str]:
        rules = admission.protection(SHAPE, dialects)["spec"]["matchConstraints"]["resourceRules"]
        return [rule["apiGroups"][0] for rule in rules]

    assert groups() == ["", "networking.k8s.io"], "the core group is there for ConfigMaps"
    assert groups("calico") == ["", "crd.projectcalico.org", "networking.k8s.io", "projectcalico.org"]
    assert groups("cilium") == ["", "cilium.io", "networking.k8s.io"]
    assert groups("clusternetworkpolicy") == ["", "networking.k8s.io", "policy.networking.k8s.io"]


def test_a_pod_for_the_proof_carries_the_templates_labels_without_ours() -> None:
    found = guarded(None)
    found["spec"]["template"]["metadata"]["labels"] = {"app": "qbit", "tier": "x", "homelab.netguard/client": "proton"}
    live = Live((found,))
    (edges,) = killswitch.build(SHAPE, FACTS, live).edges
    assert admission.bad_pod(edges, live)["metadata"]["labels"] == {"app": "qbit", "tier": "x"}


def test_what_is_held_is_told_from_labels_alone() -> None:
    live = Live((guarded(None),))
    built = killswitch.build(SHAPE, FACTS, live)
    written = (*built.desired.objects, *objects(live, None))
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "media", "labels": {"app": "qbit"}}}
    pod["spec"] = guarded(None)["spec"]["template"]["spec"]
    ended = copy.deepcopy(pod) | {"status": {"phase": "Succeeded"}}
    ended["metadata"]["name"] = "ended"
    found = held(Live(written), "home")
    assert list(found) == ["media/qbit"]
    one = found["media/qbit"]
    assert (len(one.policies), len(one.admission)) == (1, 2)  # bindings of its pods and of its workload
    assert injected_workloads(one, Live((guarded(None), pod, ended))) == ["Deployment/qbit", "Pod/p"]
    assert injected_workloads(one, Live((deployment("qbit"),))) == []
    assert [item["kind"] for item in shared(Live(written), "home")] == [admission.BINDING, admission.POLICY, admission.POLICY]
    assert held(Live(written), "another") == {}
