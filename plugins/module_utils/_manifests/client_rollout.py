# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a workload's pods run the template that was written, read off its status and its pods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .client_guard import GUARD
from .client_template import DIGEST, POLICY
from .model import Manifest
from .workloads import template_of

REVISION = "controller-revision-hash"


def rolled_out(workload: Mapping[str, Any]) -> tuple[bool, str]:
    """(done, what is missing). A CronJob has nothing to roll: its next Job takes the new template.

    Facts: the status fields that `kubectl rollout status` reads. A paused Deployment, a StatefulSet partition and the
    update strategy OnDelete never finish by themselves: the text says so.
    """
    kind, spec, status = workload["kind"], workload.get("spec") or {}, workload.get("status") or {}
    if kind == "CronJob":
        return True, ""
    if status.get("observedGeneration", 0) < workload["metadata"].get("generation", 0):
        return False, "its controller has not seen the new template yet"
    if kind == "Deployment":
        return _deployment(spec, status)
    strategy = spec.get("updateStrategy") or {}
    if kind == "DaemonSet":
        wanted = status.get("desiredNumberScheduled", 0)
        updated, ready = status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0)
    else:
        wanted = spec.get("replicas", 1)
        updated, ready = status.get("updatedReplicas", 0), status.get("readyReplicas", 0)
        if status.get("updateRevision") and status.get("updateRevision") == status.get("currentRevision"):
            updated = max(updated, status.get("currentReplicas", 0))
    if updated < wanted:
        if strategy.get("type") == "OnDelete":
            return False, f"{updated} of {wanted} pods are new, and its update strategy is OnDelete: delete the old pods"
        partition = (strategy.get("rollingUpdate") or {}).get("partition", 0)
        if partition:
            return False, f"{updated} of {wanted} pods are new, and its partition {partition} keeps the others: set it to 0"
        return False, f"{updated} of {wanted} pods are new"
    if ready < wanted:
        return False, f"{ready} of {wanted} pods are ready"
    return True, ""


def _deployment(spec: Mapping[str, Any], status: Mapping[str, Any]) -> tuple[bool, str]:
    wanted = spec.get("replicas", 1)
    replicas, updated = status.get("replicas", 0), status.get("updatedReplicas", 0)
    available = status.get("availableReplicas", 0)
    if updated < wanted or replicas > updated:
        if spec.get("paused"):
            return False, "it is paused: kubectl rollout resume"
        failed = [
            item for item in status.get("conditions") or () if item.get("type") == "ReplicaFailure" and item.get("status") == "True"
        ]
        if failed:
            return False, f"its pods are refused: {failed[0].get('message', '')}"
        return (
            False,
            f"{updated} of {wanted} pods are new" if updated < wanted else f"{replicas - updated} old pods are still there",
        )
    if available < wanted:
        return False, f"{available} of {wanted} pods are available"
    return True, ""


def stuck_pods(workload: Mapping[str, Any], pods: Iterable[Mapping[str, Any]]) -> tuple[Manifest, ...]:
    """Pods of a StatefulSet that keep a new revision from rolling: of an older revision, with our guard, and not ready.

    The controller waits for such a pod to become ready before it replaces it, which it cannot while its tunnel or its
    settings are the old ones (kubernetes issue 67250). Without our guard they are the owner's business.
    """
    if workload["kind"] != "StatefulSet":
        return ()
    current = (workload.get("status") or {}).get("updateRevision")
    if not current:
        return ()
    return tuple(
        dict(pod)
        for pod in pods
        if _owned(pod, workload)
        and (pod["metadata"].get("labels") or {}).get(REVISION, current) != current
        and not pod["metadata"].get("deletionTimestamp")
        and guarded(pod.get("spec") or {})
        and not ready(pod)
    )


def guarded(spec: Mapping[str, Any]) -> bool:
    """Whether a pod spec starts with the guard."""
    init: Sequence[Mapping[str, Any]] = spec.get("initContainers") or []
    return bool(init) and bool(init[0].get("name") == GUARD)


def ready(pod: Mapping[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(item.get("type") == "Ready" and item.get("status") == "True" for item in conditions)


def _owned(pod: Mapping[str, Any], workload: Mapping[str, Any]) -> bool:
    return any(owner.get("uid") == workload["metadata"].get("uid") for owner in pod["metadata"].get("ownerReferences") or ())


def outdated_pods(workload: Mapping[str, Any], pods: Iterable[Mapping[str, Any]]) -> tuple[Manifest, ...]:
    """With the update strategy OnDelete: the next pod of an older template, and only while every other pod is ready."""
    own = [pod for pod in pods if _owned(pod, workload)]
    wanted = _mark(template_of(workload))
    old = [pod for pod in own if _mark(pod) != wanted]
    others = [pod for pod in own if pod not in old]
    if any(pod["metadata"].get("deletionTimestamp") or not ready(pod) for pod in others):
        return ()
    return tuple(dict(pod) for pod in old[:1] if not pod["metadata"].get("deletionTimestamp"))


def _mark(item: Mapping[str, Any]) -> tuple[str | None, ...]:
    annotations = (item.get("metadata") or {}).get("annotations") or {}
    return tuple(annotations.get(key) for key in (DIGEST, POLICY))
