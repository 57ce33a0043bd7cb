# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Manifests as files: the same content for the same input, one file per object, files of ours that are no longer wanted removed."""

from __future__ import annotations

import functools
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .._errors import NetguardError
from .._manifests.model import Desired, Manifest
from .._yaml import yaml
from .converge import Outcome

#: Begins the first line of every file: what was written by hand is never overwritten or removed.
MARK = "# Written by homelab.netguard"
MODE = 0o644


@functools.cache
def _dumper() -> type[yaml.SafeDumper]:
    """Block style; texts of several lines stay readable, and there are no anchors, which confuse readers and GitOps tools."""

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return Dumper


def mark(instance: str) -> str:
    """The first line of this instance's files. Files of another instance in the same folder are none of ours."""
    return f"{MARK} for the instance {instance}. Changes made here are lost.\n"


def to_yaml(manifest: Manifest, instance: str) -> str:
    """One document, keys in the order of the builder."""
    return mark(instance) + yaml.dump(manifest, Dumper=_dumper(), sort_keys=False, width=120, allow_unicode=True)


def file_name(manifest: Manifest, *, group: bool = False) -> str:
    """`namespace/kind-name.yaml`, or `cluster/...` for what is in no namespace; with `group` the kind with its API group."""
    meta = manifest["metadata"]
    api = manifest["apiVersion"].rpartition("/")[0]
    kind = f"{manifest['kind']}.{api}" if group and api else manifest["kind"]
    name = re.sub(r"[^A-Za-z0-9.-]", "-", f"{kind.lower()}-{meta['name']}")
    return f"{meta.get('namespace') or 'cluster'}/{name}.yaml"


def file_names(manifests: Iterable[Manifest]) -> list[tuple[str, Manifest]]:
    """A name of its own for each: two policies of one name in two languages are told apart by their group."""
    listed = list(manifests)
    taken = Counter(file_name(item) for item in listed)
    return [(file_name(item, group=taken[file_name(item)] > 1), item) for item in listed]


def without_secrets(manifests: Iterable[Manifest]) -> list[Manifest]:
    """A Secret never goes into a file or a result."""
    return [item for item in manifests if item["kind"] != "Secret"]


def render(
    desired: Desired, *, instance: str, part: str, dest: str, check_mode: bool, prune: bool = True, extra: Iterable[Manifest] = ()
) -> Outcome:
    """Objects (and patched workloads in `extra`) as an outcome; with `dest` as files under `dest/part/`.

    With `prune` the files of this instance that are no longer wanted are removed. Raises NetguardError when a file cannot be
    written, or is not ours.
    """
    manifests = [*without_secrets(desired.objects), *extra]
    outcome = Outcome(manifests=manifests, patches=[] if dest else list(desired.patches))
    if not dest:
        return outcome
    folder = Path(dest) / part
    wanted = {name: to_yaml(item, instance) for name, item in file_names(manifests)}
    for patch in desired.patches:
        target = patch.target
        identity: dict[str, Any] = {
            "apiVersion": target.api_version,
            "kind": target.kind,
            "metadata": {"name": target.name, **({"namespace": target.namespace} if target.namespace else {})},
        }
        name = file_name({**identity, "metadata": {**identity["metadata"], "name": f"patch-{target.name}"}})
        wanted[name] = to_yaml(_joined(identity, patch.body), instance)
    there = _present(folder)
    foreign = [name for name in wanted if name in there and not there[name].startswith(mark(instance))]
    if foreign:
        listed = ", ".join(str(folder / name) for name in foreign)
        raise NetguardError(f"not written for the instance {instance}, so not overwritten: {listed}")
    gone = [name for name, text in there.items() if name not in wanted and text.startswith(mark(instance))] if prune else []
    for name, text in sorted(wanted.items()):
        if there.get(name) != text:
            outcome.files.append((str(folder / name), there.get(name, ""), text))
            if not check_mode:
                _write(folder / name, text)
    for name in gone:
        outcome.files.append((str(folder / name), there[name], ""))
        if not check_mode:
            _remove(folder / name)
    return outcome


def _joined(identity: Manifest, body: Manifest) -> Manifest:
    """A patch as a document: its own metadata beside the name of its target."""
    return {**identity, **body, "metadata": {**identity["metadata"], **(body.get("metadata") or {})}}


def _present(folder: Path) -> dict[str, str]:
    """What stands in the folder, by name; a file that is no text of ours is only known to be there."""
    if not folder.is_dir():
        return {}
    try:
        return {str(path.relative_to(folder)): path.read_text("utf-8", "replace") for path in sorted(folder.rglob("*.yaml"))}
    except OSError as error:
        raise NetguardError(f"{folder} cannot be read: {error}") from None


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:
        raise NetguardError(f"{path} cannot be removed: {error}") from None


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".netguard-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
            os.chmod(temporary, MODE)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise NetguardError(f"{path} cannot be written: {error}") from None


def load(path: str) -> list[Manifest]:
    """Every object of a YAML file, or of all `*.yaml` and `*.yml` of a folder; lists are opened. Raises NetguardError."""
    root = Path(path)
    files = sorted([*root.rglob("*.yaml"), *root.rglob("*.yml")]) if root.is_dir() else [root]
    found: list[Manifest] = []
    for file in files:
        try:
            documents = list(yaml.safe_load_all(file.read_text("utf-8")))
        except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
            raise NetguardError(f"{file} cannot be read: {str(error)[:500]}") from None
        for document in documents:
            found += opened(document, str(file))
    return found


def opened(document: Any, where: str) -> list[Manifest]:
    """The objects of one document: itself, or the items of a list."""
    if document is None:
        return []
    if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
        raise NetguardError(f"{where}: a document is no Kubernetes object")
    if document["kind"] == "List" or (document["kind"].endswith("List") and isinstance(document.get("items"), list)):
        return [item for entry in document.get("items") or [] for item in opened(entry, where)]
    meta = document.get("metadata")
    if not isinstance(meta, dict) or not isinstance(meta.get("name"), str) or not isinstance(document.get("apiVersion"), str):
        raise NetguardError(f"{where}: a {document['kind']} without apiVersion or metadata.name")
    return [document]
