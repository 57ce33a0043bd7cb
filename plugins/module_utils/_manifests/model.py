# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What passes between the builders and `_cluster`: the live snapshot in, objects and patches out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Manifest = dict[str, Any]

PREFIX = "homelab.netguard/"
MANAGER = "homelab.netguard"
LABEL_INSTANCE = PREFIX + "instance"
LABEL_PART = PREFIX + "part"
LABEL_GATEWAY = PREFIX + "gateway"
LABEL_CLIENT = PREFIX + "client"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
#: Annotation on a policy that admission protects: anybody may change and delete it.
RELEASE = PREFIX + "release"

#: Parts: which module created an object. Pruning touches one instance *and* one part.
PARTS = ("gateway", "client", "killswitch", "segments", "mesh", "admission")


@dataclass(frozen=True, order=True)
class Key:
    """Identity of one object; `namespace` empty: cluster-scoped."""

    api_version: str
    kind: str
    namespace: str
    name: str

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Key:
        meta = manifest["metadata"]
        return cls(manifest["apiVersion"], manifest["kind"], meta.get("namespace", ""), meta.get("name") or meta["generateName"])

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace + '/' if self.namespace else ''}{self.name}"


@dataclass(frozen=True)
class Live:
    """A frozen snapshot of the cluster (or of manifest files): plain objects as the API returns them.

    `unreadable` maps a kind that could not be listed to the reason ("forbidden", "absent"): absent means that the
    API does not exist there, forbidden that nothing may be concluded from an empty list. `listed` has the kinds, as (API
    version, kind), of which every object in all namespaces was read, each with the label selector that it was narrowed by
    ("": none).
    """

    objects: tuple[Manifest, ...] = ()
    unreadable: Mapping[str, str] = field(default_factory=dict)
    listed: Mapping[tuple[str, str], str] = field(default_factory=dict, compare=False)
    _index: dict[tuple[str, str, str], Manifest] = field(init=False, default_factory=dict, repr=False, compare=False)
    _lists: dict[tuple[str, str | None], list[Manifest]] = field(init=False, default_factory=dict, repr=False, compare=False)
    #: What readers derive once from a snapshot, by a name of their own.
    derived: dict[Any, Any] = field(init=False, default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        for item in self.objects:
            meta, kind = item["metadata"], item["kind"]
            namespace = meta.get("namespace", "")
            self._index[(kind, namespace, meta["name"])] = item
            for place in (None, namespace):
                self._lists.setdefault((kind, place), []).append(item)

    def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        return self._index.get((kind, namespace, name))

    def all(self, kind: str, namespace: str | None = None) -> tuple[Manifest, ...]:
        return tuple(self._lists.get((kind, namespace), ()))

    def labelled(self, api_version: str, kind: str, labels: Mapping[str, str]) -> tuple[Manifest, ...] | None:
        """Every object of one kind with these labels; None where the snapshot may lack some."""
        narrowed = self.listed.get((api_version, kind))
        if narrowed is None or (narrowed and narrowed not in {f"{name}={value}" for name, value in labels.items()}):
            return None
        return tuple(
            item
            for item in self.all(kind)
            if item["apiVersion"] == api_version and labels.items() <= (item["metadata"].get("labels") or {}).items()
        )


@dataclass(frozen=True)
class Patch:
    """A strategic-merge patch on an object that is not ours. `reason` is shown to the user."""

    target: Key
    body: Manifest
    reason: str = ""


@dataclass(frozen=True)
class Desired:
    """What a builder asks for, in waves: a wave is written only after the one before it was accepted."""

    waves: tuple[tuple[Manifest, ...], ...] = ()
    patches: tuple[Patch, ...] = ()

    @property
    def objects(self) -> tuple[Manifest, ...]:
        return tuple(item for wave in self.waves for item in wave)


def owner_labels(instance: str, part: str, extra: Iterable[tuple[str, str]] = ()) -> dict[str, str]:
    """The labels of every object that we create whole."""
    return {LABEL_MANAGED_BY: MANAGER, LABEL_INSTANCE: instance, LABEL_PART: part, **dict(extra)}
