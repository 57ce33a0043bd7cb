# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A guard that runs something else: another ConfigMap, something mounted in its place, variables. On a real API server."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.client_guard import SIDECAR, VOLUME
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.workloads import template_of
from killswitch_lab import MERGE, Lab, Refused, opened

BINDING = "ValidatingAdmissionPolicyBinding"
KINDS = ["Deployment", "StatefulSet", "DaemonSet", "CronJob"]
EMPTY = {"name": "own", "emptyDir": {}}
SECRETS = "/var/run/secrets/"

VOLUMES = "the volume netguard-client must be the ConfigMap netguard-client-qbit"
VARIABLES = "and no other variable"

Spec = dict[str, Any]


@pytest.fixture
def lab(server: Any) -> Iterator[Lab]:
    with opened(str(server.kubeconfig)) as found:
        yield found


def source(**body: Any) -> Callable[[Spec], Any]:
    """Another source of our volume."""
    return lambda spec: spec.update(volumes=[{"name": VOLUME, **body}, *(one for one in spec["volumes"] if one["name"] != VOLUME)])


def config(**more: Any) -> Callable[[Spec], Any]:
    return source(configMap={"name": "netguard-client-qbit", **more})


def mount(index: int = 0, **body: Any) -> Callable[[Spec], Any]:
    """One mount more in the guard (0) or the sidecar (1)."""

    def change(spec: Spec) -> None:
        spec["volumes"].append(EMPTY)
        spec["initContainers"][index]["volumeMounts"].append({"name": "own", **body})

    return change


def ours(**body: Any) -> Callable[[Spec], Any]:
    """The guard's own mount, changed; what is None goes."""

    def change(spec: Spec) -> None:
        (found,) = spec["initContainers"][0]["volumeMounts"]
        found.update(body)

    return change


def guard(index: int = 0, **body: Any) -> Callable[[Spec], Any]:
    return lambda spec: spec["initContainers"][index].update(body)


def variable(index: int = 0, **body: Any) -> Callable[[Spec], Any]:
    return lambda spec: spec["initContainers"][index]["env"].append(body)


def moved(spec: Spec) -> None:
    """The guard's mount made from another volume; ours stays, unused."""
    spec["volumes"].append({"name": "own", "configMap": {"name": "evil"}})
    spec["initContainers"][0]["volumeMounts"] = [{"name": "own", "mountPath": "/netguard"}]


REFUSED: list[tuple[str, Callable[[Spec], Any], str]] = [
    ("another ConfigMap", source(configMap={"name": "evil"}), VOLUMES),
    ("the ConfigMap of another client", source(configMap={"name": "netguard-client-sab"}), VOLUMES),
    ("no ConfigMap", source(emptyDir={}), VOLUMES),
    ("a Secret of its name", source(secret={"secretName": "netguard-client-qbit"}), VOLUMES),
    ("projected", source(projected={"sources": [{"configMap": {"name": "netguard-client-qbit"}}]}), VOLUMES),
    ("a file in place of another", config(items=[{"key": "lib.sh", "path": "client-init.sh"}]), VOLUMES),
    ("it may be missing", config(optional=True), VOLUMES),
    ("mounted from another volume", moved, VOLUMES),
    ("mounted elsewhere", ours(mountPath="/other"), VOLUMES),
    ("a part of it", ours(subPath="x"), VOLUMES),
    ("a part of it by a variable", ours(subPathExpr="$(POD_IPS)"), VOLUMES),
    ("over a script", mount(mountPath="/netguard/client-init.sh", subPath="x"), VOLUMES),
    ("over all of them", mount(mountPath="/netguard/"), VOLUMES),
    ("above them", mount(mountPath="/"), VOLUMES),
    ("over the shell", mount(mountPath="/bin"), VOLUMES),
    ("over a library", mount(mountPath="/lib"), VOLUMES),
    ("by a detour", mount(mountPath=f"{SECRETS}../../../bin"), VOLUMES),
    ("over the sidecar's scripts", mount(1, mountPath="/netguard/lib.sh", subPath="x"), VOLUMES),
    ("a message over a script", guard(terminationMessagePath="/netguard/client-init.sh"), VOLUMES),
    ("a message over the sidecar's", guard(1, terminationMessagePath="/netguard/guard.sh"), VOLUMES),
    ("a library before others", variable(name="LD_PRELOAD", value=f"{SECRETS}evil.so"), VARIABLES),
    ("another path of programs", variable(name="PATH", value=f"{SECRETS}evil"), VARIABLES),
    ("the sidecar's path", variable(1, name="PATH", value=f"{SECRETS}evil"), VARIABLES),
    ("an address by hand", guard(env=[{"name": "HOST_IPS", "value": "203.0.113.1"}]), VARIABLES),
    (
        "an address from a label",
        guard(env=[{"name": "HOST_IPS", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}}]),
        VARIABLES,
    ),
    ("variables of a ConfigMap", guard(envFrom=[{"configMapRef": {"name": "evil"}}]), VARIABLES),
]
ACCEPTED: list[tuple[str, Callable[[Spec], Any]]] = [
    ("nothing", lambda spec: None),
    ("another mode", config(defaultMode=0o444)),
    ("no variables", guard(env=[])),
    ("a token of others", mount(mountPath=f"{SECRETS}example.com/token", readOnly=True)),
    ("an application's own mounts and variables", lambda spec: spec["volumes"].append(EMPTY) or own(spec)),
    ("no sidecar", lambda spec: spec["initContainers"].pop(1)),
]


def own(spec: Spec) -> None:
    spec["containers"][0] |= {
        "volumeMounts": [{"name": "own", "mountPath": "/netguard"}, {"name": VOLUME, "mountPath": "/scripts"}],
        "env": [{"name": "PATH", "value": "/own"}],
        "terminationMessagePath": "/netguard/message",
    }


def client(lab: Lab, kind: str = "Deployment", **app: Any) -> dict[str, Any]:
    """A client that was there before its kill switch, injected; returns its workload as it was sent."""
    manifest = lab.inject(lab.workload(kind))
    spec = template_of(manifest)["spec"]
    sidecar = copy.deepcopy(spec["initContainers"][0]) | {"name": SIDECAR, "restartPolicy": "Always"}
    spec["initContainers"].insert(1, sidecar)
    lab.create(manifest)
    lab.run([{"name": "qbit", "workload": f"{kind}/qbit", "ports": {"web": 8080}} | app])
    return manifest


def changed(manifest: dict[str, Any], change: Callable[[Spec], Any]) -> dict[str, Any]:
    result = copy.deepcopy(manifest)
    change(template_of(result)["spec"])
    return result


def pod_of(lab: Lab, manifest: dict[str, Any]) -> dict[str, Any]:
    found = template_of(manifest)
    meta = {"name": "one", "namespace": lab.namespace, "labels": found["metadata"]["labels"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": found["spec"]}


def answers(lab: Lab, manifest: dict[str, Any]) -> dict[str, str]:
    """What is said in dry runs to a pod and to the workload itself, empty: accepted."""
    tries = {"pod": ("POST", lab.path("Pod"), pod_of(lab, manifest))}
    tries["workload"] = ("PUT", lab.path(manifest["kind"], "qbit"), manifest)
    said = {}
    for what, (method, path, body) in tries.items():
        try:
            lab.send(method, path, body, dry_run="All")
            said[what] = ""
        except Refused as error:
            said[what] = str(error)
    return said


def test_the_guard_runs_its_own_scripts_and_nothing_else(lab: Lab) -> None:
    manifest = client(lab)
    wrong = {
        (what, where): answer
        for what, change, said in REFUSED
        for where, answer in answers(lab, changed(manifest, change)).items()
        if not (said in answer and "run the site playbook" in answer and "kubectl delete validatingadmission" in answer)
    }
    wrong |= {
        (what, where): answer
        for what, change in ACCEPTED
        for where, answer in answers(lab, changed(manifest, change)).items()
        if answer
    }
    assert not wrong


def test_the_server_finds_no_fault_with_the_types(server: Any, lab: Lab) -> None:
    client(lab)

    def status() -> Any:
        found = lab.policy("ValidatingAdmissionPolicy")
        body = found.get("status") or {}
        return body if body.get("observedGeneration") == found["metadata"]["generation"] else None

    with server.type_checker():
        assert not (lab.until(status).get("typeChecking") or {}).get("expressionWarnings")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_workload(lab: Lab, kind: str) -> None:
    manifest = client(lab, kind)
    assert answers(lab, manifest) == {"pod": "", "workload": ""}
    said = answers(lab, changed(manifest, source(configMap={"name": "evil"})))
    assert all(VOLUMES in answer for answer in said.values()), said


def test_pods_with_and_without_a_token_start(lab: Lab) -> None:
    """The server mounts the account's token in every container, ours too."""
    client(lab)
    lab.until(lambda: lab.pods("app=qbit"))
    (pod,) = lab.pods("app=qbit")
    mounts = [item["mountPath"] for item in pod["spec"]["initContainers"][0]["volumeMounts"]]
    assert mounts == ["/netguard", f"{SECRETS}kubernetes.io/serviceaccount"]
    manifest = changed(lab.inject(lab.workload("Deployment")), lambda spec: spec.update(automountServiceAccountToken=False))
    lab.create(pod_of(lab, manifest))


def test_what_was_there_before_stays_free_for_other_changes(lab: Lab) -> None:
    """A workload whose volume was changed while nothing compared it: no worse is let through, and better is."""
    manifest = client(lab)
    evil = changed(manifest, source(configMap={"name": "evil"}))
    forget(lab)
    lab.until(lambda: not answers(lab, evil)["workload"])
    lab.send("PUT", lab.path("Deployment", "qbit"), evil)
    run = lab.run([{"name": "qbit", "ports": {"web": 8080}}])
    assert [(item["kind"], item["action"]) for item in run["objects"]] == [(BINDING, "changed")] * 2
    lab.until(lambda: VOLUMES in answers(lab, evil)["pod"])
    newer = changed(evil, lambda spec: spec["containers"][0].update(image="example.invalid/app:2"))
    assert answers(lab, newer)["workload"] == ""
    worse = changed(evil, source(configMap={"name": "worse"}))
    assert VOLUMES in answers(lab, worse)["workload"]
    assert answers(lab, manifest) == {"pod": "", "workload": ""}


def test_a_binding_that_names_no_config_map_compares_none(lab: Lab) -> None:
    """As an older run wrote it, beside a policy that a run with `only` has renewed: nobody is locked out."""
    manifest = client(lab)
    other = {"name": "sab", "pods": {"app": "sab"}}
    forget(lab)
    lab.until(lambda: not answers(lab, changed(manifest, source(configMap={"name": "evil"})))["workload"])
    assert answers(lab, manifest) == {"pod": "", "workload": ""}
    lab.run([{"name": "qbit", "ports": {"web": 8080}}, other], only=["sab"])
    assert answers(lab, manifest) == {"pod": "", "workload": ""}
    # what is compared by name alone is asked for all the same
    assert VARIABLES in answers(lab, changed(manifest, variable(name="PATH", value="/evil")))["pod"]


def forget(lab: Lab) -> None:
    for of_workload in (False, True):
        name = lab.policy(BINDING, of_workload=of_workload)["metadata"]["name"]
        lab.edit_cluster_object(BINDING, name, {"metadata": {"annotations": {"homelab.netguard/config": None}}})


def test_the_guard_s_image_in_a_running_pod(lab: Lab) -> None:
    """Init containers run again where a pod gets a new sandbox, with the image that it has then."""
    client(lab)
    lab.until(lambda: lab.pods("app=qbit"))
    name = lab.pods("app=qbit")[0]["metadata"]["name"]
    own_image = {"spec": {"containers": [{"name": "main", "image": "example.invalid/app:2"}]}}
    lab.patch("Pod", name, own_image)
    with pytest.raises(Refused, match="takes the guard away"):
        lab.patch("Pod", name, {"spec": {"initContainers": [{"name": "netguard-guard", "image": "example.invalid/evil"}]}})
    lab.patch("Pod", name, {"metadata": {"annotations": {"note": "x"}}}, how=MERGE)


def test_a_pod_as_large_as_pods_get(lab: Lab) -> None:
    """The cost of the expressions stays within the server's limits, which grow with the pod and not with the clients."""
    manifest = client(lab)

    def grow(spec: Spec) -> None:
        spec["volumes"] += [{"name": f"v{number}", "emptyDir": {}} for number in range(250)]
        mounts = [{"name": f"v{number}", "mountPath": f"/v{number}"} for number in range(250)]
        env = [{"name": f"V{number}", "value": "x" * 100} for number in range(100)]
        for number in range(60):
            spec["initContainers"].append({"name": f"i{number}", "image": "example.invalid/i", "volumeMounts": mounts, "env": env})
        tokens = [{"name": f"v{number}", "mountPath": f"{SECRETS}{number}"} for number in range(250)]
        for container in spec["initContainers"][:2]:
            container["volumeMounts"] = [*container["volumeMounts"], *tokens]

    assert answers(lab, changed(manifest, grow)) == {"pod": "", "workload": ""}
    worse = changed(changed(manifest, grow), source(configMap={"name": "evil"}))
    assert all(VOLUMES in answer for answer in answers(lab, worse).values())
