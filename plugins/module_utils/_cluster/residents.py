# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who else lives in a namespace that we created: it is deleted only when nobody does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._facts.reader import Absent, Forbidden, Unreadable
from .._manifests.model import LABEL_CLIENT, LABEL_INSTANCE
from .client import Cluster

#: What every namespace has without anybody's doing.
_OF_EVERY_NAMESPACE = frozenset(
    {
        ("ConfigMap", "kube-root-ca.crt"),
        ("ConfigMap", "istio-ca-root-cert"),
        ("ServiceAccount", "default"),
        ("Secret", "default-token"),
    }
)
#: Of what people run and keep, nothing may stay unseen: where one of these may not be listed, the namespace is kept. The shipped
#: roles list them; of other kinds (custom resources, say) what may be listed is looked at, too.
_ESSENTIAL = frozenset(
    {
        ("v1", "ConfigMap"),
        ("v1", "PersistentVolumeClaim"),
        ("v1", "Pod"),
        ("v1", "Secret"),
        ("v1", "Service"),
        ("apps/v1", "DaemonSet"),
        ("apps/v1", "Deployment"),
        ("apps/v1", "StatefulSet"),
        ("batch/v1", "CronJob"),
        ("batch/v1", "Job"),
        ("networking.k8s.io/v1", "Ingress"),
        ("networking.k8s.io/v1", "NetworkPolicy"),
    }
)
#: Kinds that only mirror others, or come and go by themselves.
_SHADOWS = frozenset({"Event", "Endpoints", "EndpointSlice", "ControllerRevision", "Lease", "PodMetrics", "CiliumEndpoint"})


@dataclass(frozen=True)
class Resident:
    """Why a namespace is not deleted; `certain` is False where that could not be found out."""

    text: str
    certain: bool = True


def foreign_resident(cluster: Cluster, namespace: str, instance: str) -> Resident | None:
    """The first object that is not of this instance, or the kind that may not be listed; None when nobody lives there.

    Every namespaced kind that may be listed is looked at: deleting a namespace deletes them all.
    """
    kinds = _kinds(cluster)
    answers = cluster.parallel(lambda kind: _look(cluster, kind, namespace, instance), kinds)
    found = [answer for answer in answers if answer is not None]
    return min(found, key=lambda resident: not resident.certain, default=None)


def _kinds(cluster: Cluster) -> list[tuple[str, str]]:
    versions = ["v1"]
    for group in cluster.raw("/apis").get("groups") or ():
        versions.append(str((group.get("preferredVersion") or group["versions"][0])["groupVersion"]))
    found: list[tuple[str, str]] = []
    for kinds in cluster.parallel(lambda version: _listed(cluster, version), versions):
        found += kinds
    return found


def _listed(cluster: Cluster, version: str) -> list[tuple[str, str]]:
    try:
        resources = cluster.resources.all(version)
    except Unreadable:
        return []  # an aggregated API whose server is down holds nothing of etcd's
    return [
        (version, kind)
        for kind, resource in resources.items()
        if resource.namespaced and "list" in resource.verbs and kind not in _SHADOWS
    ]


def _look(cluster: Cluster, kind: tuple[str, str], namespace: str, instance: str) -> Resident | None:
    try:
        found = cluster.list(*kind, namespace, metadata_only=True)
    except Absent:
        return None
    except Forbidden:
        if kind not in _ESSENTIAL:
            return None
        return Resident(f"{kind[1]} ({kind[0]}) may not be listed there, so it may hold what is not ours", certain=False)
    foreign = [item["metadata"]["name"] for item in found if not _expected(kind[1], item, instance)]
    return Resident(f"{kind[1]} {foreign[0]} lives there") if foreign else None


def _expected(kind: str, item: Mapping[str, Any], instance: str) -> bool:
    meta = item["metadata"]
    labels = meta.get("labels") or {}
    if labels.get(LABEL_INSTANCE) == instance and LABEL_CLIENT not in labels:
        return True
    # what a controller made of another object stands or falls with that one, which is looked at itself
    owned = any(owner.get("controller") for owner in meta.get("ownerReferences") or ())
    return owned or (kind, meta["name"]) in _OF_EVERY_NAMESPACE
