# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who holds which field: reads `metadata.managedFields` (the FieldsV1 format of server-side apply).

A tree of fields is a dict: `f:name` a field, `k:{...}` an item of a list by its keys, `v:...` a value of a set, `.` the
thing itself. A leaf (`{}`) stands for everything below it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .._manifests.model import MANAGER

Tree = Mapping[str, Any]
Path = tuple[str, ...]


@dataclass(frozen=True)
class Holder:
    """One entry of managedFields: a manager, how it wrote (Apply or Update), and what it holds."""

    manager: str
    operation: str
    tree: Tree

    @property
    def ours(self) -> bool:
        return self.manager == MANAGER


def holders(live: Mapping[str, Any]) -> tuple[Holder, ...]:
    """All who hold fields outside of subresources such as status."""
    return tuple(
        Holder(entry.get("manager", ""), entry.get("operation", ""), entry.get("fieldsV1") or {})
        for entry in (live.get("metadata") or {}).get("managedFields") or []
        if not entry.get("subresource")
    )


def applied(live: Mapping[str, Any]) -> Tree:
    """What we hold by server-side apply."""
    for holder in holders(live):
        if holder.ours and holder.operation == "Apply":
            return holder.tree
    return {}


def child(tree: Tree | None, name: str) -> Tree | None:
    """The subtree of one field; None when it is not held. Below a leaf everything is held."""
    if tree is None:
        return None
    if not tree:
        return {}
    return tree.get(f"f:{name}")


def item_key(entry: str) -> dict[str, Any]:
    """The keys of a `k:{...}` entry."""
    found: dict[str, Any] = json.loads(entry[2:])
    return found


def whole(tree: Tree) -> bool:
    """Whether a held field has no parts that are held one by one."""
    return all(entry == "." for entry in tree)


def entry_of(item: Any, keys: Mapping[str, Any]) -> str:
    """The `k:{...}` entry of a list item, by the names of the keys of another item of the list."""
    values = {key: item.get(key, _DEFAULTS.get(key)) for key in sorted(keys)} if isinstance(item, Mapping) else {}
    return "k:" + json.dumps(values, separators=(",", ":"))


def items(tree: Tree) -> dict[str, Tree]:
    """The held items of an associative list."""
    return {entry: below for entry, below in tree.items() if entry.startswith("k:")}


def matching(values: list[Any], entry: str) -> int | None:
    """Position of the list item that a `k:{...}` entry names."""
    wanted = item_key(entry)
    for position, value in enumerate(values):
        if isinstance(value, Mapping) and all(value.get(key, _DEFAULTS.get(key)) == found for key, found in wanted.items()):
            return position
    return None


#: Keys of list items that the server fills in.
_DEFAULTS = {"protocol": "TCP"}


def leaves(tree: Tree, path: Path = ()) -> Iterator[Path]:
    """Every held path, as entries of the tree."""
    entries = {entry: below for entry, below in tree.items() if entry != "."}
    if not entries:
        yield path
    for entry, below in entries.items():
        yield from leaves(below or {}, (*path, entry))


def locate(value: Any, path: Path) -> tuple[bool, tuple[str | int, ...]]:
    """Whether a held path exists in a value, and where: keys and positions."""
    where: list[str | int] = []
    for entry in path:
        if entry.startswith("f:"):
            name = entry[2:]
            if not isinstance(value, Mapping) or name not in value or value[name] is None:
                return False, ()
            value = value[name]
            where.append(name)
        elif entry.startswith("k:"):
            position = matching(value, entry) if isinstance(value, list) else None
            if position is None:
                return False, ()
            value = value[position]
            where.append(position)
        elif entry.startswith("v:"):
            wanted = json.loads(entry[2:])
            if not isinstance(value, list) or wanted not in value:
                return False, ()
            where.append(value.index(wanted))
            value = wanted
    return True, tuple(where)


def dotted(path: Path) -> str:
    """A held path for people: `spec.egress`, `spec.containers[web].image`."""
    text = ""
    for entry in path:
        if entry.startswith("f:"):
            text += f".{entry[2:]}" if text else entry[2:]
        elif entry.startswith("k:"):
            text += f"[{','.join(str(value) for value in item_key(entry).values())}]"
        elif entry.startswith("v:"):
            text += f"[{entry[2:]}]"
    return text


def overlaps(tree: Tree, path: Path) -> bool:
    """Whether something at, above or below a path is held."""
    node: Tree = tree
    for entry in path:
        entries = [known for known in node if known != "."]
        if not entries:
            return True
        if entry not in node:
            return False
        node = node[entry] or {}
    return True


def overridden(patch: Any, live: Any, tree: Tree, path: Path = ()) -> Iterator[Path]:
    """Held paths whose value a strategic-merge patch would change or take away."""
    if isinstance(patch, Mapping) and patch.get("$patch") in ("delete", "replace"):
        yield path
    elif isinstance(patch, Mapping) and not whole(tree):
        for name, value in patch.items():
            below = None if name.startswith("$") else child(tree, name)
            if below is not None:
                yield from overridden(value, live.get(name) if isinstance(live, Mapping) else None, below, (*path, f"f:{name}"))
    elif isinstance(patch, list) and items(tree):
        for value in patch:
            for entry, below in items(tree).items():
                if matching([value], entry) == 0 and isinstance(live, list) and (there := matching(live, entry)) is not None:
                    yield from overridden(value, live[there], below or {}, (*path, entry))
    elif not _part_of(patch, live):
        yield path


def _part_of(patch: Any, live: Any) -> bool:
    """Whether a value says what is there already."""
    if isinstance(patch, Mapping) and isinstance(live, Mapping):
        return all(_part_of(value, live.get(name)) for name, value in patch.items() if not name.startswith("$"))
    return bool(patch == live)
