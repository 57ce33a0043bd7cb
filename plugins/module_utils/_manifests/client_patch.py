# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The strategic-merge patch that turns one pod template into another.

Server-side apply would append a new init container; a strategic-merge patch can order a list. Only what differs is in
the patch, so an unchanged template gives an empty one and nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .client_guard import VOLUME
from .client_template import OUR_CONTAINERS
from .model import Manifest

#: Lists of the pod spec which are merged by name; every other list is replaced as a whole.
MERGED = ("initContainers", "containers", "volumes")
OURS = frozenset({*OUR_CONTAINERS, VOLUME})

TEMPLATE_PATHS: Mapping[str, tuple[str, ...]] = {
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
API_VERSIONS: Mapping[str, str] = {"Deployment": "apps/v1", "StatefulSet": "apps/v1", "DaemonSet": "apps/v1", "CronJob": "batch/v1"}


def template_of(workload: Mapping[str, Any]) -> Manifest:
    """The pod template of a Deployment, StatefulSet, DaemonSet or CronJob (shared, not copied)."""
    found: Any = workload
    for key in TEMPLATE_PATHS[workload["kind"]]:
        found = found[key]
    result: Manifest = found
    return result


def at_template(kind: str, patch: Manifest) -> Manifest:
    """A patch of the template as a patch of the workload; empty stays empty."""
    if not patch:
        return {}
    for key in reversed(TEMPLATE_PATHS[kind]):
        patch = {key: patch}
    return patch


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> Manifest:
    """The strategic-merge patch (possibly empty) that makes the pod template `before` equal to `after`."""
    patch: Manifest = {}
    metadata = _metadata(before.get("metadata") or {}, after.get("metadata") or {})
    if metadata:
        patch["metadata"] = metadata
    old, new = before["spec"], after["spec"]
    spec = _maps({k: v for k, v in old.items() if k not in MERGED}, {k: v for k, v in new.items() if k not in MERGED})
    for key in MERGED:
        changed = _named(old.get(key) or [], new.get(key) or [])
        if changed is not None:
            spec[key], order = changed
            if order:
                spec["$setElementOrder/" + key] = [{"name": name} for name in order]
            if not spec[key]:
                del spec[key]
    if spec:
        patch["spec"] = spec
    return patch


def _metadata(before: Mapping[str, Any], after: Mapping[str, Any]) -> Manifest:
    """Labels and annotations key by key: a whole map is never removed, since others may have added to it meanwhile."""
    patch = {key: _maps(before.get(key) or {}, after.get(key) or {}) for key in ("labels", "annotations")}
    return {key: value for key, value in patch.items() if value}


def _maps(before: Mapping[str, Any], after: Mapping[str, Any]) -> Manifest:
    patch: Manifest = {key: None for key in before if key not in after}
    for key, value in after.items():
        if key not in before:
            patch[key] = value
        elif value != before[key]:
            both = isinstance(value, Mapping) and isinstance(before[key], Mapping)
            patch[key] = _maps(before[key], value) if both else value
    return patch


def _named(before: list[Manifest], after: list[Manifest]) -> tuple[list[Manifest], list[str]] | None:
    """The elements to patch and the order to set; None when the lists are equal.

    An element of ours that was changed by hand is deleted and added in one patch: merging would keep what was added to it.
    """
    if before == after:
        return None
    old = {item["name"]: item for item in before}
    new = {item["name"]: item for item in after}
    patches: list[Manifest] = [
        {"$patch": "delete", "name": name} for name in old if name not in new or (name in OURS and old[name] != new[name])
    ]
    for name, item in new.items():
        if name not in old or (name in OURS and old[name] != item):
            patches.append(item)
        elif old[name] != item:
            patches.append({"name": name, **_maps(old[name], item)})
    only_removed = [name for name in old if name in new] == list(new) and all("$patch" in item for item in patches)
    only_edited = list(old) == list(new) and not any("$patch" in item for item in patches)
    return patches, [] if only_removed or only_edited else list(new)
