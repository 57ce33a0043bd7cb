# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compares what is wanted with what is there: unchanged, to be written, taken by somebody, or added beside.

Unchanged means: what is wanted is a part of what is there, we hold each of its fields, and we hold nothing more. What we
hold as a whole (a selector, a list without keys) must be equal. Where only the server can tell whether two forms mean the
same (it drops some empty values and adds defaults), the comparison is `doubtful` and a dry run decides.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from enum import IntEnum
from typing import Any

from . import fields
from .fields import Holder, Path, Tree

#: Kinds in which whatever somebody adds beside our fields weakens what they say, and server-side apply would leave it there.
STRICT_KINDS = frozenset(
    {
        "NetworkPolicy",
        "GlobalNetworkPolicy",
        "CiliumNetworkPolicy",
        "CiliumClusterwideNetworkPolicy",
        "ClusterNetworkPolicy",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    }
)

#: Fields of metadata that are compared; everything else there is the server's.
_META = ("labels", "annotations")
_QUANTITY_FIELDS = frozenset({"requests", "limits", "capacity", "sizeLimit", "storage", "divisor"})
_QUANTITY = re.compile(r"(?P<number>[+-]?[0-9.]+)(?P<suffix>[numkMGTPE]|[KMGTPE]i)?")
_FACTORS = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    **{letter: Decimal(1000) ** power for power, letter in enumerate("kMGTPE", 1)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)},
}


#: API groups whose objects the server holds as typed values: it drops empty lists, texts and false. Custom resources keep them.
_TYPED_GROUPS = frozenset({"networking.k8s.io", "admissionregistration.k8s.io", "rbac.authorization.k8s.io", "scheduling.k8s.io"})
#: Maps of texts: an empty one means what an absent one means. Any other empty mapping is a choice (`namespaceSelector: {}`).
_MAPS = frozenset({"matchLabels", "labels", "annotations", "nodeSelector", "data"})
#: What the server adds to items of lists that are held as a whole.
_ITEM_DEFAULTS = {"protocol": "TCP", "scope": "*", "apiVersion": "v1"}


class Sameness(IntEnum):
    """How two values compare; the lower counts where parts differ."""

    DIFFERENT = 0
    DOUBTFUL = 1
    SAME = 2


@dataclass(frozen=True)
class Comparison:
    """What must be done about one object that exists.

    `differing`: held paths (as entries of a fields tree) whose value is not what is wanted; `left_over`: paths that we
    hold and no longer want; `beside`: JSON pointers of what others added to a strict kind, with who holds it; `doubtful`:
    paths where a dry run must tell whether the server sees a difference.
    """

    differing: tuple[Path, ...] = ()
    left_over: tuple[Path, ...] = ()
    beside: tuple[tuple[str, Holder], ...] = ()
    doubtful: tuple[Path, ...] = ()

    @property
    def unchanged(self) -> bool:
        return not (self.differing or self.left_over or self.beside or self.doubtful)

    @property
    def only_doubts(self) -> bool:
        return bool(self.doubtful) and not (self.differing or self.left_over or self.beside)


def compare(wanted: Mapping[str, Any], live: Mapping[str, Any]) -> Comparison:
    """Both are whole objects; `live` as the server returned it, with managedFields."""
    ours = fields.applied(live)
    group = str(wanted["apiVersion"]).rpartition("/")[0]
    walk = _Walk(typed="." not in group or group in _TYPED_GROUPS)
    for name, value in _body(wanted).items():
        walk.value(value, live.get(name), fields.child(ours, name) if ours else None, (f"f:{name}",), name)
    meta, live_meta = wanted.get("metadata") or {}, live.get("metadata") or {}
    meta_tree = fields.child(ours, "metadata") if ours else None
    for name in _META:
        if meta.get(name):
            path: Path = ("f:metadata", f"f:{name}")
            walk.value(meta[name], live_meta.get(name), fields.child(meta_tree, name), path, name)
    left_over = tuple(path for path in fields.leaves(ours) if ours and not fields.locate(wanted, path)[0])
    beside = tuple(_beside(wanted, live)) if wanted.get("kind") in STRICT_KINDS else ()
    return Comparison(tuple(walk.differing), left_over, beside, tuple(walk.doubtful))


def _body(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in manifest.items() if name not in ("apiVersion", "kind", "metadata", "status")}


@dataclass
class _Walk:
    """Goes down a wanted value beside the live one and the tree of what we hold."""

    typed: bool
    differing: list[Path] = field(default_factory=list)
    doubtful: list[Path] = field(default_factory=list)

    def value(self, wanted: Any, live: Any, tree: Tree | None, path: Path, name: str) -> None:
        if wanted is None:
            return
        if tree is None:
            # Nobody holds an empty value that the server dropped; anything else is ours to take.
            self._judge(_absent(wanted, name, self.typed) if live is None else Sameness.DIFFERENT, path)
        elif fields.whole(tree):
            self._judge(same(wanted, live, name, typed=self.typed), path)
        elif isinstance(wanted, Mapping) and isinstance(live, Mapping):
            for key, value in wanted.items():
                inner = name if _quantities(name) else key
                self.value(value, live.get(key), fields.child(tree, key), (*path, f"f:{key}"), inner)
        elif isinstance(wanted, list) and isinstance(live, list) and fields.items(tree):
            self._items(wanted, live, tree, path, name)
        elif isinstance(wanted, list) and isinstance(live, list):
            missing = [value for value in wanted if value not in live or f"v:{json.dumps(value)}" not in tree]
            if missing:
                self.differing.append(path)
        else:
            self._judge(same(wanted, live, name, typed=self.typed), path)

    def _judge(self, found: Sameness, path: Path) -> None:
        if found is Sameness.DIFFERENT:
            self.differing.append(path)
        elif found is Sameness.DOUBTFUL:
            self.doubtful.append(path)

    def _items(self, wanted: list[Any], live: list[Any], tree: Tree, path: Path, name: str) -> None:
        """A list whose items have keys: ours are compared one by one, others' items may stand beside them."""
        entries = fields.items(tree)
        covered: set[int] = set()
        for entry, below in entries.items():
            position = fields.matching(wanted, entry)
            if position is None:
                continue  # left over
            covered.add(position)
            there = fields.matching(live, entry)
            if there is None:
                self.differing.append((*path, entry))
            else:
                self.value(wanted[position], live[there], below or {}, (*path, entry), name)
        keys = fields.item_key(next(iter(entries)))
        for position, item in enumerate(wanted):
            if position not in covered:
                self.differing.append((*path, fields.entry_of(item, keys)))


def _quantities(name: str) -> bool:
    return name in _QUANTITY_FIELDS


def _absent(wanted: Any, name: str, typed: bool) -> Sameness:
    """How a wanted value compares to nothing."""
    if wanted is None:
        return Sameness.SAME
    if wanted == {}:
        return Sameness.SAME if typed and name in _MAPS else Sameness.DOUBTFUL
    if wanted in ([], "", 0):  # 0 stands for false too
        return Sameness.SAME if typed else Sameness.DOUBTFUL
    return Sameness.DIFFERENT


def same(wanted: Any, live: Any, name: str = "", *, typed: bool = True) -> Sameness:
    """Whether two values are equal, up to quantities, the known defaults of items, and what only the server can tell.

    `name` is the field's, which says what its text means; `typed`: not of a custom resource.
    """
    if live is None:
        return _absent(wanted, name, typed)
    if isinstance(wanted, Mapping) and isinstance(live, Mapping):
        found = Sameness.SAME
        for key in {**wanted, **live}:
            inner = name if _quantities(name) else key
            if wanted.get(key) is None and live.get(key) is not None:
                # added by the server, or by an earlier run of ours that wanted it
                found = min(found, Sameness.SAME if _ITEM_DEFAULTS.get(key) == live[key] else Sameness.DOUBTFUL)
            else:
                found = min(found, same(wanted.get(key), live.get(key), inner, typed=typed))
        return found
    if isinstance(wanted, list) and isinstance(live, list):
        if len(wanted) != len(live):
            return Sameness.DIFFERENT
        pairs = zip(wanted, live, strict=True)
        return min((same(one, other, name, typed=typed) for one, other in pairs), default=Sameness.SAME)
    if isinstance(wanted, bool) or isinstance(live, bool):
        return Sameness.SAME if wanted is live else Sameness.DIFFERENT
    if _quantities(name):
        return Sameness.SAME if quantity(wanted) == quantity(live) else Sameness.DIFFERENT
    return Sameness.SAME if wanted == live else Sameness.DIFFERENT


def quantity(value: Any) -> Decimal | str:
    """A resource quantity as a number (`100m` is 0.1); the text itself when it is none."""
    match = _QUANTITY.fullmatch(str(value))
    if match is None:
        return str(value)
    try:
        return Decimal(match["number"]) * _FACTORS[match["suffix"] or ""]
    except InvalidOperation:
        return str(value)


def _beside(wanted: Mapping[str, Any], live: Mapping[str, Any]) -> Iterable[tuple[str, Holder]]:
    """What others hold outside of metadata and status of a strict kind that is not part of what is wanted."""
    seen: set[str] = set()
    for holder in fields.holders(live):
        if holder.ours and holder.operation == "Apply":
            continue
        body = {name: below for name, below in holder.tree.items() if name not in ("f:metadata", "f:status")}
        for path in fields.leaves(body) if body else ():
            if fields.locate(wanted, path)[0]:
                continue
            pointer = _pointer(_highest(wanted, path), live)
            if pointer and pointer not in seen:
                seen.add(pointer)
                yield pointer, holder


def _highest(wanted: Mapping[str, Any], path: Path) -> Path:
    """The shortest beginning of a path that is not wanted: removing it removes all of what was added there."""
    for length in range(1, len(path) + 1):
        if not fields.locate(wanted, path[:length])[0]:
            return path[:length]
    return path


def _pointer(path: Path, live: Mapping[str, Any]) -> str:
    found, where = fields.locate(live, path)
    if not found:
        return ""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in where)


def takers(live: Mapping[str, Any], paths: Iterable[Path]) -> list[tuple[Path, Holder]]:
    """Who else holds one of these paths."""
    others = [holder for holder in fields.holders(live) if not holder.ours]
    return [(path, holder) for path in paths for holder in others if fields.overlaps(holder.tree, path)]
