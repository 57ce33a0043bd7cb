# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run did, or would do: for the result, the counts and the diff. Secret values are in none of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from .._manifests.model import Key, Manifest, Patch
from . import shown


@dataclass(frozen=True)
class Action:
    """What happens to one object: created, changed, repaired, deleted, kept (a namespace that others use) or waiting."""

    key: Key
    action: str
    before: Manifest = field(default_factory=dict)
    after: Manifest = field(default_factory=dict)
    validated: bool = True
    keys: tuple[str, ...] = ()  # of a Secret
    reason: str = ""

    def data(self) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "api_version": self.key.api_version,
            "kind": self.key.kind,
            "namespace": self.key.namespace,
            "name": self.key.name,
            "action": self.action,
        }
        if not self.validated:
            entry["validated"] = False
        if self.key.kind == "Secret":
            entry["keys"] = list(self.keys)
        if self.reason:
            entry["reason"] = self.reason
        return entry


@dataclass
class Outcome:
    """What a run did, or in check mode would do."""

    actions: list[Action] = field(default_factory=list)
    patches: list[Patch] = field(default_factory=list)
    unchanged: int = 0
    manifests: list[Manifest] = field(default_factory=list)
    files: list[tuple[str, str, str]] = field(default_factory=list)  # path, before, after
    live: dict[Key, Manifest] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        return bool(self.patches or self.files or any(action.action not in ("kept", "waiting") for action in self.actions))

    def add(self, other: Outcome) -> Outcome:
        """Joins the outcome of a further step into this one."""
        self.actions += other.actions
        self.patches += other.patches
        self.unchanged += other.unchanged
        self.manifests += other.manifests
        self.files += other.files
        self.live.update(other.live)
        return self

    def counts(self) -> dict[str, int]:
        found = Counter(action.action for action in self.actions)
        found["patched"] = len(self.patches)
        found["unchanged"] = self.unchanged
        return dict(sorted((name, number) for name, number in found.items() if number or name == "unchanged"))

    def diff(self) -> list[dict[str, Any]]:
        """Ansible's diffs: the parts that differ, secrets masked."""
        found = []
        for action in self.actions:
            before, after = shown.redacted(shown.meaningful(action.before or None), shown.meaningful(action.after or None))
            left, right = shown.reduced(before, after) if before and after else (before, after)
            found.append(
                {
                    "before": left,
                    "after": right,
                    "before_header": str(action.key),
                    "after_header": f"{action.key} ({action.action})",
                }
            )
        found += [
            {"before": {}, "after": patch.body, "before_header": str(patch.target), "after_header": f"{patch.target} (patched)"}
            for patch in self.patches
        ]
        found += [
            {"before": before, "after": after, "before_header": path, "after_header": path} for path, before, after in self.files
        ]
        return found

    def result(self) -> dict[str, Any]:
        """The keys that every writer returns."""
        return {
            "changed": self.changed,
            "counts": self.counts(),
            "objects": [action.data() for action in self.actions],
            "patches": [{"target": f"{patch.target}", "patch": patch.body, "reason": patch.reason} for patch in self.patches],
        }
