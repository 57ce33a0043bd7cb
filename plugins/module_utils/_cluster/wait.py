# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waits by watching, and says why it waited in vain: the pod, the container, the reason, the last log line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .._errors import NetguardError
from .._facts.reader import Unreadable
from .._manifests.model import Key, Manifest
from .client import Cluster
from .transport import ApiError

#: Judges an object (None: it does not exist): (done, what is still missing).
Predicate = Callable[[Mapping[str, Any] | None], tuple[bool, str]]  # pylint: disable=unsupported-binary-operation


class Deadline:
    """A point in time, shared by everything that one task waits for."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        return max(0.0, self._end - time.monotonic())

    @property
    def passed(self) -> bool:
        return self.left() <= 0


@dataclass(frozen=True)
class Goal:
    """One object to wait for. `pods` selects the pods that explain a failure (labels as the API writes selectors)."""

    key: Key
    done: Predicate
    pods: str = ""  # label selector
    each: Callable[[Mapping[str, Any]], None] | None = None  # called on every change that is not yet done


def wait(cluster: Cluster, goals: Iterable[Goal], deadline: Deadline) -> dict[Key, Manifest]:
    """The objects once all goals are reached. Raises NetguardError that explains each goal that was not."""
    listed = list(goals)
    answers = cluster.parallel(lambda goal: _reach(cluster, goal, deadline), listed)
    missed = [(goal, answer) for goal, answer in zip(listed, answers, strict=True) if isinstance(answer, str)]
    if missed:
        lines = [f"- {goal.key}: {reason}{explain(cluster, goal)}" for goal, reason in missed]
        raise NetguardError(
            f"not ready after {deadline.seconds:.0f} s:\n" + "\n".join(lines), waited_for=[str(goal.key) for goal, _why in missed]
        )
    return {goal.key: answer for goal, answer in zip(listed, answers, strict=True) if isinstance(answer, dict)}


def _reach(cluster: Cluster, goal: Goal, deadline: Deadline) -> Manifest | str:
    """The object when it is done, else what was missing at the deadline."""
    key = goal.key
    reason = "it does not exist"
    while True:
        try:
            found = cluster.get(key.api_version, key.kind, key.name, key.namespace)
        except Unreadable as error:
            if error.reason != "failed":
                raise
            # An API server that restarts (on one node: with every upgrade) is away for a while.
            if deadline.passed:
                return str(error)
            time.sleep(min(1.0, deadline.left()))
            continue
        done, reason = goal.done(found)
        if done:
            return found or {}
        if found is not None and goal.each is not None:
            goal.each(found)
        if deadline.passed:
            return reason
        version = found["metadata"]["resourceVersion"] if found else "0"
        answer = _watch(cluster, goal, deadline, version)
        if answer is not None:
            return answer


def _watch(cluster: Cluster, goal: Goal, deadline: Deadline, version: str) -> Manifest | None:
    """Follows changes until the goal is reached; None when the watch ended before (time, expired version, network)."""
    key = goal.key
    path = cluster.resources.find(key.api_version, key.kind).path(key.namespace)
    # Bounded even when nothing happens: the object is then read anew, since pods change without their workload changing.
    seconds = max(1, min(int(deadline.left()) or 1, 10))
    try:
        events = cluster.transport.stream(
            path, f"watch {key}", seconds, field_selector=f"metadata.name={key.name}", resource_version=version
        )
        for event in events:
            if event.get("type") == "ERROR":
                return None
            found = event["object"] if event.get("type") != "DELETED" else None
            done, _reason = goal.done(found)
            if done:
                return found or {}
            if found is not None and goal.each is not None:
                goal.each(found)
            if deadline.passed:
                return None
    except (ApiError, Unreadable):
        time.sleep(min(1.0, deadline.left()))
    except Exception as error:  # a broken stream raises what urllib3 and the decoder raise
        if type(error).__module__.partition(".")[0] not in ("urllib3", "json"):
            raise
    return None


def explain(cluster: Cluster, goal: Goal) -> str:
    """What its pods say, as further lines; empty when there is nothing to say."""
    if not goal.pods:
        return ""
    try:
        pods = cluster.list("v1", "Pod", goal.key.namespace, label_selector=goal.pods)
    except Unreadable as error:
        return f"\n  its pods cannot be read: {error}"
    if not pods:
        return "\n  it has no pods" + _events(cluster, goal.key)
    lines = [line for pod in sorted(pods, key=_pod_ready) for line in pod_troubles(cluster, pod)]
    return "".join(f"\n  {line}" for line in lines[:8])


def pod_troubles(cluster: Cluster, pod: Mapping[str, Any]) -> list[str]:
    """Why a pod is not ready: scheduling, or each container's state with the last line of its log."""
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    status = pod.get("status") or {}
    lines = [
        f"pod {name}: {condition.get('reason', 'not scheduled')}: {condition.get('message', '')}".rstrip(": ")
        for condition in status.get("conditions") or []
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False"
    ]
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        if container.get("ready") or (container.get("state") or {}).get("terminated", {}).get("reason") == "Completed":
            continue
        state = container.get("state") or {}
        kind = next(iter(state), "waiting")
        detail = state.get(kind) or {}
        last = ((container.get("lastState") or {}).get("terminated") or {}).get("reason", "")
        if detail.get("reason") in ("PodInitializing", "ContainerCreating") and lines:
            continue  # it waits for the container that was named already
        text = f"pod {name}, container {container['name']}: {detail.get('reason') or kind}"
        if detail.get("exitCode"):
            text += f" (exit code {detail['exitCode']})"
        if detail.get("message"):
            text += f": {str(detail['message']).strip()[-200:]}"
        if last:
            text += f" (before: {last})"
        if detail.get("reason") in ("ContainerCreating", "PodInitializing"):
            # a missing Secret, device or volume is told by the pod's events alone
            lines.append(text + _events(cluster, Key("v1", "Pod", namespace, name)))
            continue
        log = cluster.log_tail(namespace, name, container["name"])
        lines.append(text + (f"; last log line: {log}" if log else ""))
    if not lines and not _pod_ready(pod):
        lines.append(f"pod {name}: phase {status.get('phase', 'unknown')}, not ready")
    return lines


def _pod_ready(pod: Mapping[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(condition.get("type") == "Ready" and condition.get("status") == "True" for condition in conditions)


def _events(cluster: Cluster, key: Key) -> str:
    """The newest warning about an object or about what it owns: a refused pod is told by its ReplicaSet's event."""
    try:
        events = cluster.list("v1", "Event", key.namespace, field_selector="type=Warning")
    except Unreadable:
        return ""
    about = [item for item in events if str((item.get("involvedObject") or {}).get("name", "")).startswith(key.name)]
    about.sort(key=lambda item: str(item.get("lastTimestamp") or item.get("eventTime") or ""))
    return f": {about[-1].get('message', '')[:400]}" if about else ""
