# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waiting: it notices at once, ends at its deadline, and says what is in the way."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._cluster.wait import Deadline, Goal, wait
from ansible_collections.homelab.netguard.plugins.module_utils._errors import NetguardError
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Key
from cluster_lab import Lab
from conftest import Server


@pytest.fixture(scope="module")
def lab(server: Server) -> Lab:
    return Lab(server)


def says(value: str) -> Any:
    def judge(found: Mapping[str, Any] | None) -> tuple[bool, str]:
        if found is None:
            return False, "it does not exist"
        return found["data"]["key"] == value, f"it says {found['data']['key']}"

    return judge


def later(seconds: float, work: Any) -> threading.Thread:
    thread = threading.Timer(seconds, work)
    thread.start()
    return thread


def test_it_is_seen_when_it_appears_and_when_it_changes(lab: Lab) -> None:
    key = Key("v1", "ConfigMap", lab.space, "signal")

    def hand() -> None:
        lab.kubectl("create", "configmap", "signal", "-n", lab.space, "--from-literal=key=red")
        time.sleep(0.5)
        lab.edit("configmap", "signal", {"op": "replace", "path": "/data/key", "value": "green"})

    seen: list[str] = []
    thread = later(0.5, hand)
    started = time.monotonic()
    goal = Goal(key, says("green"), each=lambda found: seen.append(found["data"]["key"]))
    found = wait(lab.cluster, [goal], Deadline(60))
    assert found[key]["data"] == {"key": "green"}
    assert set(seen) == {"red"}
    thread.join()
    assert time.monotonic() - started < 30  # far from the deadline: it was watched, not slept through


def test_it_is_seen_when_it_goes(lab: Lab) -> None:
    lab.kubectl("create", "configmap", "going", "-n", lab.space)
    key = Key("v1", "ConfigMap", lab.space, "going")
    thread = later(0.5, lambda: lab.kubectl("delete", "configmap", "going", "-n", lab.space))
    assert wait(lab.cluster, [Goal(key, lambda found: (found is None, "it is there"))], Deadline(60)) == {key: {}}
    thread.join()


def test_every_goal_that_was_missed_is_told(lab: Lab) -> None:
    lab.kubectl("create", "configmap", "stuck", "-n", lab.space, "--from-literal=key=red")
    keys = [Key("v1", "ConfigMap", lab.space, name) for name in ("stuck", "never")]
    started = time.monotonic()
    with pytest.raises(NetguardError) as caught:
        wait(lab.cluster, [Goal(key, says("green")) for key in keys], Deadline(2))
    assert time.monotonic() - started < 20
    text = str(caught.value)
    assert "not ready after 2 s" in text
    assert f"- ConfigMap {lab.space}/stuck: it says red" in text
    assert f"- ConfigMap {lab.space}/never: it does not exist" in text
    assert caught.value.details["waited_for"] == [str(key) for key in keys]


def state(name: str, found: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": found, **more}


READY = [{"type": "Ready", "status": "False"}]
CRASH = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting failed container"}}
DEAD = {"terminated": {"exitCode": 3, "reason": "Error", "startedAt": None, "finishedAt": None}}
#: (status of a pod, what the message says about it)
PODS: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "image": (
        {
            "conditions": READY,
            "initContainerStatuses": [state("guard", {"waiting": {"reason": "ErrImagePull", "message": "not found"}})],
            "containerStatuses": [state("app", {"waiting": {"reason": "PodInitializing"}})],
        },
        ["container guard: ErrImagePull: not found"],
        ["container app"],
    ),
    "crash": (
        {"conditions": READY, "containerStatuses": [state("app", CRASH, lastState=DEAD)]},
        ["container app: CrashLoopBackOff: back-off 5m0s", "(before: Error)"],
        [],
    ),
    "exit": ({"conditions": READY, "containerStatuses": [state("app", DEAD)]}, ["container app: Error (exit code 3)"], []),
    "unschedulable": (
        {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}]},
        ["Unschedulable: 0/2 nodes"],
        [],
    ),
    "native sidecar not ready": (
        {
            "conditions": READY,
            "initContainerStatuses": [
                state("guard", {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": None, "finishedAt": None}}),
                state("overlay", {"running": {"startedAt": None}}),
            ],
            "containerStatuses": [state("app", {"running": {"startedAt": None}}, ready=True)],
        },
        ["container overlay: running"],
        ["container guard", "container app"],
    ),
}


@pytest.mark.parametrize("case", PODS)
def test_the_pods_explain(lab: Lab, case: str) -> None:
    status, told, untold = PODS[case]
    name = case.replace(" ", "-")
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": lab.space, "labels": {"app": name}},
        # no node takes it, so nobody but this test writes its status
        "spec": {"containers": [{"name": "app", "image": "x"}], "nodeSelector": {"nowhere": "true"}, "schedulerName": "nobody"},
    }
    lab.server.apply(pod)
    lab.kubectl("patch", "pod", name, "-n", lab.space, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
    goal = Goal(Key("v1", "Pod", lab.space, name), lambda _found: (False, "it is not ready"), pods=f"app={name}")
    with pytest.raises(NetguardError) as caught:
        wait(lab.cluster, [goal], Deadline(0.1))
    text = str(caught.value)
    assert f"pod {name}" in text
    assert [part for part in told if part not in text] == []
    assert [part for part in untold if part in text] == []


def with_a_pod(found: Mapping[str, Any] | None) -> tuple[bool, str]:
    return bool(found and (found.get("status") or {}).get("readyReplicas")), "no pod is ready"


def test_a_workload_whose_pods_are_refused_shows_the_event(lab: Lab) -> None:
    lab.kubectl("create", "quota", "none", "-n", lab.space, "--hard=pods=0")
    try:
        lab.kubectl("create", "deployment", "refused", "-n", lab.space, "--image=x")
        key = Key("apps/v1", "Deployment", lab.space, "refused")
        deadline = time.monotonic() + 30
        text = ""
        while "exceeded quota" not in text and time.monotonic() < deadline:
            with pytest.raises(NetguardError) as caught:
                wait(lab.cluster, [Goal(key, with_a_pod, pods="app=refused")], Deadline(1))
            text = str(caught.value)
        assert "it has no pods" in text
        assert "exceeded quota" in text
    finally:
        lab.kubectl("delete", "quota", "none", "-n", lab.space)
