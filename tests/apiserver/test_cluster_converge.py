# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plan, apply, repair and prune against a real API server; the audit log says what was written."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._cluster.converge import owned
from ansible_collections.homelab.netguard.plugins.module_utils._errors import NetguardError
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Desired, Key, Manifest, Patch
from cluster_lab import ADMISSION, NETWORKING, Lab, actions, connect, converge, user
from conftest import Server


@pytest.fixture
def lab(server: Server) -> Lab:
    return Lab(server)


POD: dict[str, Any] = {
    "containers": [
        {
            "name": "a",
            "image": "x",
            "command": ["a"],
            "args": [],
            "env": [{"name": "EMPTY", "value": ""}, {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "resources": {"requests": {"cpu": "1000m", "memory": "1024Mi"}, "limits": {"memory": "1Gi", "cpu": 1}},
            "ports": [{"containerPort": 53, "protocol": "UDP", "name": "u"}, {"containerPort": 53, "name": "t"}],
            "securityContext": {"capabilities": {"add": ["NET_ADMIN"], "drop": []}, "privileged": False},
            "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": False}],
            "livenessProbe": {"exec": {"command": ["x"]}, "periodSeconds": 10},
        }
    ],
    "initContainers": [{"name": "i", "image": "y", "restartPolicy": "Always"}],
    "volumes": [
        {"name": "v", "emptyDir": {}},
        {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "0.5Gi"}},
        {"name": "c", "configMap": {"name": "x", "defaultMode": 493, "optional": True}},
        {"name": "d", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "p", "projected": {"sources": [{"configMap": {"name": "x", "items": []}}]}},
    ],
    "tolerations": [],
    "nodeSelector": {},
    "hostAliases": [],
    "dnsConfig": {"options": [{"name": "ndots", "value": "1"}], "searches": []},
    "securityContext": {},
    "automountServiceAccountToken": False,
    "terminationGracePeriodSeconds": 0,
    "affinity": {},
    "topologySpreadConstraints": [],
}
UDP_AND_TCP = [{"port": 53, "protocol": "UDP", "name": "u"}, {"port": 53, "name": "t", "targetPort": "t"}]

#: Forms that the server keeps otherwise than they were written. (api version, kind, content)
SHAPES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "empty value": ("v1", "ConfigMap", {"data": {"a": "", "b": "x\n"}}),
    "empty data": ("v1", "ConfigMap", {"data": {}}),
    "stringData": ("v1", "Secret", {"stringData": {"k": "hidden"}, "type": "Opaque"}),
    "headless without ports": ("v1", "Service", {"spec": {"clusterIP": "None", "selector": {"a": "b"}, "ports": []}}),
    "false": ("v1", "Service", {"spec": {"clusterIP": "None", "selector": {"a": "b"}, "publishNotReadyAddresses": False}}),
    "one port number, two protocols": (
        "v1",
        "Service",
        {"spec": {"selector": {"a": "b"}, "ports": UDP_AND_TCP, "ipFamilyPolicy": "PreferDualStack", "externalIPs": []}},
    ),
    "empty rules": (
        NETWORKING,
        "NetworkPolicy",
        {"spec": {"podSelector": {}, "ingress": [], "egress": [], "policyTypes": ["Ingress", "Egress"]}},
    ),
    "rules with empty parts": (
        NETWORKING,
        "NetworkPolicy",
        {
            "spec": {
                "podSelector": {"matchLabels": {"a": "b"}},
                "policyTypes": ["Egress"],
                "egress": [
                    {"to": [{"podSelector": {}, "namespaceSelector": {}}], "ports": []},
                    {
                        "to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": []}}],
                        "ports": [{"port": "http"}, {"port": 1000, "endPort": 2000, "protocol": "TCP"}],
                    },
                    {},
                ],
            }
        },
    ),
    "empty labels": (NETWORKING, "NetworkPolicy", {"spec": {"podSelector": {"matchLabels": {}}, "policyTypes": ["Egress"]}}),
    "pods": (
        "apps/v1",
        "Deployment",
        {
            "spec": {
                "replicas": 0,
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": {"app": "d"}},
                "template": {"metadata": {"labels": {"app": "d"}, "annotations": {}}, "spec": POD},
            }
        },
    ),
}
#: The part whose kinds include it.
PART_OF = {"NetworkPolicy": "killswitch"}


@pytest.mark.parametrize("shape", SHAPES)
def test_what_was_written_is_unchanged(lab: Lab, shape: str) -> None:
    api_version, kind, body = SHAPES[shape]
    item = lab.item(api_version, kind, "one", PART_OF.get(kind, "gateway"), **body)
    assert actions(lab.run(item)) == {f"{kind}/one": "created"}
    before = lab.server.mark()
    again = lab.run(item)
    assert not again.changed
    assert again.unchanged == 1
    assert lab.server.writes(before) == []
    assert lab.server.writes(before, dry=True) == []


RULE = {"to": [{"podSelector": {"matchLabels": {"a": "b"}}}], "ports": [{"port": 53, "protocol": "UDP"}]}


def rules(*egress: dict[str, Any], labels: dict[str, str] | None = None) -> dict[str, Any]:
    return {"podSelector": {"matchLabels": labels or {"app": "a"}}, "policyTypes": ["Egress"], "egress": list(egress)}


#: (before, after): what a new version of ours wants must reach the server, also where it only takes something away.
CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a port less": (rules(RULE), rules({**RULE, "ports": []})),
    "ports gone": (rules(RULE), rules({"to": RULE["to"]})),
    "a selector more in a peer": (rules(RULE), rules({**RULE, "to": [{**RULE["to"][0], "namespaceSelector": {}}]})),
    "a selector less in a peer": (rules({**RULE, "to": [{**RULE["to"][0], "namespaceSelector": {}}]}), rules(RULE)),
    "a label less": (rules(labels={"app": "a", "tier": "b"}), rules(labels={"app": "a"})),
    "a label more": (rules(labels={"app": "a"}), rules(labels={"app": "a", "tier": "b"})),
    "another protocol": (rules(RULE), rules({**RULE, "ports": [{"port": 53, "protocol": "TCP"}]})),
    "a rule less": (rules(RULE, RULE), rules(RULE)),
    "an exception gone": (
        rules({"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}),
        rules({"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_new_version_of_ours_arrives_whole(lab: Lab, change: str) -> None:
    old, new = CHANGES[change]
    lab.run(lab.policy(**old))
    assert actions(lab.run(lab.policy(**new))) == {"NetworkPolicy/closed": "changed"}
    fresh = lab.policy("fresh", **new)
    lab.run(lab.policy(**new), fresh)
    assert lab.get("networkpolicy", "closed")["spec"] == lab.get("networkpolicy", "fresh")["spec"]
    before = lab.server.mark()
    assert not lab.run(lab.policy(**new), fresh).changed
    assert lab.server.writes(before) == []


def test_a_field_that_is_no_longer_wanted_goes(lab: Lab) -> None:
    lab.run(lab.config(a="1", b="2"))
    assert actions(lab.run(lab.config(a="1"))) == {"ConfigMap/settings": "changed"}
    assert lab.get("configmap", "settings")["data"] == {"a": "1"}


OPENINGS: dict[str, list[dict[str, Any]]] = {
    "a rule in the list": [{"op": "add", "path": "/spec/egress", "value": [{}]}],
    "ingress beside ours": [{"op": "add", "path": "/spec/ingress", "value": [{}]}],
    "other pods": [{"op": "replace", "path": "/spec/podSelector", "value": {"matchLabels": {"app": "b"}}}],
    "one direction only": [{"op": "replace", "path": "/spec/policyTypes", "value": ["Ingress"]}],
    "owner label off": [{"op": "remove", "path": "/metadata/labels/homelab.netguard~1part"}],
    "every label off": [{"op": "remove", "path": "/metadata/labels"}],
}


@pytest.mark.parametrize("opening", OPENINGS)
def test_a_policy_opened_by_hand_is_repaired(lab: Lab, opening: str) -> None:
    lab.run(lab.policy())
    written = lab.get("networkpolicy", "closed")
    lab.edit("networkpolicy", "closed", *OPENINGS[opening])
    assert actions(lab.run(lab.policy(), check_mode=True)) == {"NetworkPolicy/closed": "repaired"}
    assert lab.get("networkpolicy", "closed")["spec"] | {"x": 1} != {}  # check mode wrote nothing:
    assert actions(lab.run(lab.policy())) == {"NetworkPolicy/closed": "repaired"}
    found = lab.get("networkpolicy", "closed")
    assert found["spec"] == written["spec"]
    assert found["metadata"]["labels"] == written["metadata"]["labels"]
    before = lab.server.mark()
    assert not lab.run(lab.policy()).changed
    assert lab.server.writes(before) == []


def binding(lab: Lab) -> tuple[Manifest, Manifest]:
    name = f"netguard-{lab.instance}"
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["limitranges"]},
            ]
        },
        "matchConditions": [{"name": "ours", "expression": f"request.namespace == '{lab.space}'"}],
        "validations": [{"expression": "false", "message": "closed"}],
    }
    return (
        lab.item(ADMISSION, "ValidatingAdmissionPolicy", name, "admission", cluster=True, spec=spec),
        lab.item(
            ADMISSION,
            "ValidatingAdmissionPolicyBinding",
            name,
            "admission",
            cluster=True,
            spec={"policyName": name, "validationActions": ["Deny"]},
        ),
    )


NOWHERE = {"matchLabels": {"nowhere": "true"}}
UNDONE: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "matchResources": (
        "validatingadmissionpolicybinding",
        [{"op": "add", "path": "/spec/matchResources", "value": {"namespaceSelector": NOWHERE}}],
    ),
    "warnings only": (
        "validatingadmissionpolicybinding",
        [{"op": "replace", "path": "/spec/validationActions", "value": ["Warn"]}],
    ),
    "an action beside ours": (
        "validatingadmissionpolicybinding",
        [{"op": "add", "path": "/spec/validationActions/-", "value": "Audit"}],
    ),
    "a condition": (
        "validatingadmissionpolicy",
        [{"op": "add", "path": "/spec/matchConditions/-", "value": {"name": "never", "expression": "false"}}],
    ),
    "our condition": (
        "validatingadmissionpolicy",
        [{"op": "replace", "path": "/spec/matchConditions/0/expression", "value": "false"}],
    ),
    "an exclusion": (
        "validatingadmissionpolicy",
        [{"op": "add", "path": "/spec/matchConstraints/namespaceSelector", "value": NOWHERE}],
    ),
    "failures ignored": ("validatingadmissionpolicy", [{"op": "replace", "path": "/spec/failurePolicy", "value": "Ignore"}]),
}


@pytest.mark.parametrize("how", UNDONE)
def test_admission_weakened_by_hand_is_repaired(lab: Lab, how: str) -> None:
    kind, operations = UNDONE[how]
    items = binding(lab)
    name = items[0]["metadata"]["name"]
    lab.run(*items)
    written = lab.get(kind, name)["spec"]
    assert not lab.run(*items).changed
    lab.edit(kind, name, *operations)
    assert set(actions(lab.run(*items)).values()) == {"repaired"}
    assert lab.get(kind, name)["spec"] == written
    before = lab.server.mark()
    assert not lab.run(*items).changed
    assert lab.server.writes(before) == []
    lab.run(part="admission")


def test_fields_of_another_apply_manager_are_never_forced(lab: Lab) -> None:
    lab.run(lab.policy())
    theirs = {**lab.policy(**rules(RULE)), "metadata": {"name": "closed", "namespace": lab.space}}
    apply_as(lab, theirs, "flux", force=True)
    written = lab.server.mark()
    with pytest.raises(NetguardError, match=r"NetworkPolicy .*/closed: the field spec.egress is held by flux"):
        lab.run(lab.policy(), lab.policy("second"))
    assert lab.server.writes(written) == []
    assert lab.get("networkpolicy", "closed")["spec"]["egress"] == [RULE]


def test_what_another_apply_manager_adds_beside_ours_is_told(lab: Lab) -> None:
    lab.run(lab.policy())
    theirs = {"apiVersion": NETWORKING, "kind": "NetworkPolicy", "metadata": {"name": "closed", "namespace": lab.space}}
    apply_as(lab, {**theirs, "spec": {"ingress": [{}]}}, "flux")
    with pytest.raises(NetguardError, match=r"flux added spec.ingress"):
        lab.run(lab.policy())


def apply_as(lab: Lab, manifest: Manifest, manager: str, *, force: bool = False) -> None:
    path = lab.server.folder / f"{lab.instance}.json"
    path.write_text(json.dumps(manifest))
    lab.kubectl("apply", "--server-side", f"--field-manager={manager}", *(["--force-conflicts"] if force else []), "-f", str(path))


def test_an_object_of_somebody_else_is_left_alone(lab: Lab) -> None:
    lab.kubectl("create", "configmap", "settings", "-n", lab.space, "--from-literal=key=theirs")
    other = Lab(lab.server)
    other.space = lab.space
    other.run(other.config("of-another-instance"))
    before = lab.server.mark()
    with pytest.raises(NetguardError) as caught:
        lab.run(lab.config("fine"), lab.config(), lab.config("of-another-instance"))
    assert f"ConfigMap {lab.space}/settings exists and is not ours" in str(caught.value)
    assert f"belongs to the instance {other.instance}" in str(caught.value)
    assert lab.server.writes(before) == []
    assert lab.get("configmap", "settings")["data"] == {"key": "theirs"}


def test_pruning_touches_one_instance_and_one_part(lab: Lab) -> None:
    other = Lab(lab.server)
    other.run(other.config("kept"))
    lab.run(lab.policy("of-another-part"))
    lab.run(lab.config("one"), lab.config("two"), lab.config("three"))
    lab.kubectl("create", "configmap", "theirs", "-n", lab.space)
    lab.kubectl("label", "configmap", "theirs", "-n", lab.space, f"homelab.netguard/instance={lab.instance}")
    assert lab.run(lab.config("two"), prune=False).changed is False
    assert actions(lab.run(lab.config("two"), check_mode=True)) == {"ConfigMap/one": "deleted", "ConfigMap/three": "deleted"}
    assert actions(lab.run(lab.config("two"))) == {"ConfigMap/one": "deleted", "ConfigMap/three": "deleted"}
    names = {item["metadata"]["name"] for item in lab.server.objects("configmap", "-n", lab.space)}
    assert names == {"two", "theirs", "kube-root-ca.crt"}
    assert owned(lab.cluster, other.instance, "gateway")
    assert owned(lab.cluster, lab.instance, "killswitch")


def namespace(lab: Lab, name: str) -> Manifest:
    return lab.item("v1", "Namespace", name, cluster=True)


def test_a_namespace_that_we_made_goes_when_it_is_empty(lab: Lab) -> None:
    name = f"made-{lab.instance}"
    inside = {**lab.config(), "metadata": {**lab.config()["metadata"], "namespace": name}}
    desired = Desired(((namespace(lab, name),), (inside,)))
    check = converge(connect(lab.server.kubeconfig, check_mode=True), desired, instance=lab.instance, part="gateway")
    assert [(entry["kind"], entry.get("validated", True)) for entry in check.result()["objects"]] == [
        ("Namespace", True),
        ("ConfigMap", False),
    ]
    converge(lab.cluster, desired, instance=lab.instance, part="gateway")
    assert actions(lab.run()) == {"ConfigMap/settings": "deleted", f"Namespace/{name}": "deleted"}


RESIDENTS: dict[str, Callable[[Lab, str], Any]] = {
    "a ConfigMap": lambda lab, name: lab.kubectl("create", "configmap", "theirs", "-n", name),
    "a ServiceAccount": lambda lab, name: lab.kubectl("create", "serviceaccount", "theirs", "-n", name),
    "a Role": lambda lab, name: lab.kubectl("create", "role", "theirs", "-n", name, "--verb=get", "--resource=pods"),
    "an Ingress": lambda lab, name: lab.kubectl("create", "ingress", "theirs", "-n", name, "--rule=a.example/=svc:80"),
}


@pytest.mark.parametrize("resident", RESIDENTS)
def test_a_namespace_in_which_others_live_is_given_up(lab: Lab, resident: str) -> None:
    name = f"shared-{lab.instance}"
    lab.run(namespace(lab, name))
    RESIDENTS[resident](lab, name)
    outcome = lab.run()
    assert actions(outcome) == {f"Namespace/{name}": "kept"}
    assert "theirs lives there" in outcome.result()["objects"][0]["reason"]
    found = lab.get("namespace", name)
    assert found["status"]["phase"] == "Active"
    assert not [label for label in found["metadata"].get("labels") or {} if label.startswith("homelab.netguard")]
    assert not lab.run().changed


def test_a_namespace_that_exists_is_used_as_it_is(lab: Lab) -> None:
    before = lab.server.mark()
    assert not lab.run(namespace(lab, lab.space)).changed
    assert lab.server.writes(before) == []
    assert not lab.run().changed


def test_check_mode_is_the_servers_own(lab: Lab) -> None:
    wrong = lab.policy(podSelector={}, policyTypes=["Sideways"])
    before = lab.server.mark()
    with pytest.raises(NetguardError, match="Sideways"):
        lab.run(wrong, check_mode=True)
    outcome = lab.run(lab.policy(), check_mode=True)
    assert actions(outcome) == {"NetworkPolicy/closed": "created"}
    assert lab.server.writes(before) == []
    assert len(lab.server.writes(before, dry=True)) == 1
    assert owned(lab.cluster, lab.instance, "killswitch") == {}


def test_an_error_on_the_way_says_what_was_written(lab: Lab) -> None:
    with pytest.raises(NetguardError) as caught:
        lab.run(lab.policy("good"), lab.policy("bad", podSelector={}, policyTypes=["Sideways"]), lab.policy("UPPER"))
    assert caught.value.details["changed"] is True
    assert [entry["name"] for entry in caught.value.details["objects"]] == ["good"]
    assert "UPPER" in str(caught.value) + str(caught.value.details["also"])


def test_secret_values_are_in_nothing_that_is_shown(lab: Lab) -> None:
    def wanted(value: str) -> Manifest:
        return lab.item("v1", "Secret", "login", stringData={"user": "me", "key": value})

    shown = []
    for value in ("first-hidden-value", "second-hidden-value"):
        outcome = lab.run(wanted(value))
        shown.append(json.dumps([outcome.result(), outcome.diff()]))
        assert outcome.result()["objects"][0]["keys"] == ["key", "user"]
    for text in shown:
        assert "hidden" not in text
        assert "aGlkZGVu" not in text
    assert "*** (before)" in shown[1]
    assert not lab.run(wanted("second-hidden-value")).changed
    assert "hidden" not in json.dumps(lab.get("secret", "login")["metadata"])


DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "spec": {
        "replicas": 0,
        "selector": {"matchLabels": {"app": "a"}},
        "template": {
            "metadata": {"labels": {"app": "a"}},
            "spec": {"dnsPolicy": "Default", "containers": [{"name": "a", "image": "x"}]},
        },
    },
}


def patch_of(lab: Lab, **pod: Any) -> Patch:
    return Patch(Key("apps/v1", "Deployment", lab.space, "app"), {"spec": {"template": {"spec": pod}}}, "because")


def test_a_patch_never_takes_a_field_that_another_tool_applies(lab: Lab) -> None:
    apply_as(lab, {**DEPLOYMENT, "metadata": {"name": "app", "namespace": lab.space}}, "flux")
    before = lab.server.mark()
    for pod in (
        {"dnsPolicy": "ClusterFirst"},
        {"containers": [{"name": "a", "image": "y"}]},
        {"containers": [{"name": "a", "$patch": "delete"}]},
    ):
        with pytest.raises(NetguardError, match=r"Deployment .*/app: the field spec\.template\.spec\.\S+ is held by flux"):
            lab.run(part="gateway", patches=(patch_of(lab, **pod),))
    assert lab.server.writes(before) == []
    guard = {"name": "guard", "image": "z"}
    outcome = lab.run(part="gateway", patches=(patch_of(lab, initContainers=[guard], dnsPolicy="Default"),))
    assert outcome.changed
    assert lab.get("deployment", "app")["spec"]["template"]["spec"]["initContainers"][0]["name"] == "guard"


def test_many_new_objects_are_looked_for_by_one_list(lab: Lab) -> None:
    before = lab.server.mark()
    outcome = lab.run(*(lab.config(f"number-{number}") for number in range(40)))
    assert outcome.counts() == {"created": 40, "unchanged": 0}
    names = [event for event in lab.server.audit(before) if event["verb"] == "get" and "/configmaps/number-" in event["requestURI"]]
    assert names == []
    assert [action.key.name for action in outcome.actions] == [f"number-{number}" for number in range(40)]


def test_another_list_tears_nothing_down(lab: Lab) -> None:
    one, two, three = (lab.policy(name, part="segments") for name in ("one", "two", "three"))
    lab.run(one, two)
    before = lab.server.mark()
    with pytest.raises(NetguardError, match="give it an instance of its own"):
        lab.run(three)
    assert lab.server.writes(before) == []
    assert actions(lab.run(three, prune=False)) == {"NetworkPolicy/three": "created"}
    assert actions(lab.run(three)) == {"NetworkPolicy/one": "deleted", "NetworkPolicy/two": "deleted"}


def test_a_namespace_that_may_not_be_looked_into_is_kept(lab: Lab) -> None:
    name = f"unseen-{lab.instance}"
    lab.run(namespace(lab, name))
    rules = [
        {"apiGroups": [""], "resources": ["namespaces", "configmaps"], "verbs": ["get", "list", "patch", "delete"]},
        {"apiGroups": ["apps", "networking.k8s.io", ""], "resources": ["*"], "verbs": ["list"]},
    ]
    cluster = connect(user(lab, "half-blind", *rules))
    outcome = converge(cluster, Desired(), instance=lab.instance, part="gateway")
    assert actions(outcome) == {f"Namespace/{name}": "kept"}
    assert "may not be listed there" in outcome.result()["objects"][0]["reason"]
    assert not outcome.changed
    assert actions(lab.run()) == {f"Namespace/{name}": "deleted"}
