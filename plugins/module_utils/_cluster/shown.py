# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What of an object is shown: meaningful fields, never a secret value."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from .._manifests.model import Manifest

_SERVER_FIELDS = ("managedFields", "resourceVersion", "uid", "generation", "creationTimestamp", "selfLink", "ownerReferences")
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def meaningful(manifest: Mapping[str, Any] | None) -> Manifest:
    """The object without status and without what the server keeps in its metadata."""
    if manifest is None:
        return {}
    found = {key: copy.deepcopy(value) for key, value in manifest.items() if key != "status"}
    meta = {key: value for key, value in (found.get("metadata") or {}).items() if key not in _SERVER_FIELDS}
    annotations = {key: value for key, value in (meta.get("annotations") or {}).items() if key != _LAST_APPLIED}
    if annotations:
        meta["annotations"] = annotations
    else:
        meta.pop("annotations", None)
    found["metadata"] = meta
    return found


def redacted(before: Manifest, after: Manifest) -> tuple[Manifest, Manifest]:
    """Both sides of a diff; values of a Secret are replaced by words that still show whether they changed."""
    if "Secret" not in (before.get("kind"), after.get("kind")):
        return before, after
    before, after = copy.deepcopy(before), copy.deepcopy(after)
    for field in ("data", "stringData"):
        old, new = before.get(field) or {}, after.get(field) or {}
        for key in {*old, *new}:
            changed = old.get(key) != new.get(key)
            if key in old:
                old[key] = "*** (before)" if changed else "***"
            if key in new:
                new[key] = "*** (after)" if changed else "***"
    return before, after


def shown(manifest: Manifest) -> Manifest:
    """One object for a result: secret values masked."""
    return redacted({}, meaningful(manifest))[1]


def reduced(before: Any, after: Any) -> tuple[Any, Any]:
    """The parts in which two values differ; identity (kind, name, namespace) stays."""
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return before, after
    left: Manifest = {}
    right: Manifest = {}
    for key in {**before, **after}:
        old, new = before.get(key), after.get(key)
        if key in ("apiVersion", "kind", "name", "namespace"):
            chosen: tuple[Any, Any] = (old, new)
        elif old == new:
            continue
        else:
            chosen = reduced(old, new) if isinstance(old, Mapping) and isinstance(new, Mapping) else (old, new)
        if key in before:
            left[key] = chosen[0]
        if key in after:
            right[key] = chosen[1]
    return left, right
