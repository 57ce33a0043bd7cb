# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compares what is wanted with what is there: unchanged, to be written, taken by somebody, or added beside.

Unchanged means: what is wanted is a part of what is there, we hold each of its fields, and we hold nothing more. The
server's own defaults are nobody's, so they never count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
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


@dataclass(frozen=True)
class Comparison:
    """What must be done about one object that exists.

    `differing`: held paths (as entries of a fields tree) whose value is not what is wanted; `left_over`: paths that we
    hold and no longer want; `beside`: JSON pointers of what others added to a strict kind, with who holds it.
    """

    differing: tuple[Path, ...] = ()
    left_over: tuple[Path, ...] = ()
    beside: tuple[tuple[str, Holder], ...] = ()

    @property
    def unchanged(self) -> bool:
        return not (self.differing or self.left_over or self.beside)


def compare(wanted: Mapping[str, Any], live: Mapping[str, Any]) -> Comparison:
    """Both are whole objects; `live` as the server returned it, with managedFields."""
    ours = fields.applied(live)
    differing: list[Path] = []
    for name, value in _body(wanted).items():
        _walk(value, live.get(name), fields.child(ours, name) if ours else None, (f"f:{name}",), differing, name)
    meta, live_meta = wanted.get("metadata") or {}, live.get("metadata") or {}
    meta_tree = fields.child(ours, "metadata") if ours else None
    for name in _META:
        if meta.get(name):
            path: Path = ("f:metadata", f"f:{name}")
            _walk(meta[name], live_meta.get(name), fields.child(meta_tree, name), path, differing, name)
    left_over = tuple(path for path in fields.leaves(ours) if ours and not fields.locate(wanted, path)[0])
    beside = tuple(_beside(wanted, live)) if wanted.get("kind") in STRICT_KINDS else ()
    return Comparison(tuple(differing), left_over, beside)


def _body(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in manifest.items() if name not in ("apiVersion", "kind", "metadata", "status")}


def _walk(wanted: Any, live: Any, tree: Tree | None, path: Path, differing: list[Path], name: str) -> None:
    if wanted is None:
        return
    if isinstance(wanted, Mapping) and isinstance(live, Mapping):
        if not wanted and tree is None:
            differing.append(path)
        for key, value in wanted.items():
            inner = name if _quantities(name) else key
            _walk(value, live.get(key), fields.child(tree, key), (*path, f"f:{key}"), differing, inner)
        return
    if isinstance(wanted, list) and isinstance(live, list) and tree and fields.items(tree):
        _walk_items(wanted, live, tree, path, differing, name)
        return
    if isinstance(wanted, list) and isinstance(live, list) and tree and any(entry.startswith("v:") for entry in tree):
        if any(value not in live for value in wanted):
            differing.append(path)
        return
    if tree is None or not same(wanted, live, name):
        differing.append(path)


def _quantities(name: str) -> bool:
    return name in _QUANTITY_FIELDS


def _walk_items(wanted: list[Any], live: list[Any], tree: Tree, path: Path, differing: list[Path], name: str) -> None:
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
            differing.append((*path, entry))
        else:
            _walk(wanted[position], live[there], below or {}, (*path, entry), differing, name)
    if len(covered) != len(wanted):
        differing.append(path)


def same(wanted: Any, live: Any, name: str = "") -> bool:
    """Equal up to what the server writes differently: absent and empty, quantities, defaults inside of items."""
    if wanted in (None, {}, [], "") and live in (None, {}, [], ""):
        return True
    if isinstance(wanted, Mapping) and isinstance(live, Mapping):
        return all(same(value, live.get(key), name if _quantities(name) else key) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(live, list):
        return len(wanted) == len(live) and all(same(one, other, name) for one, other in zip(wanted, live, strict=True))
    if isinstance(wanted, bool) or isinstance(live, bool):
        return wanted is live
    if _quantities(name):
        return quantity(wanted) == quantity(live)
    return bool(wanted == live)


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
    """What others hold in the spec of a strict kind that is not part of what is wanted."""
    seen: set[str] = set()
    for holder in fields.holders(live):
        if holder.ours and holder.operation == "Apply":
            continue
        spec = holder.tree.get("f:spec")
        if spec is None:
            continue
        for path in fields.leaves(spec, ("f:spec",)):
            if fields.locate(wanted, path)[0]:
                continue
            found, _where = fields.locate(live, path)
            if not found:
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
