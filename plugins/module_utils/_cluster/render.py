# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Manifests as files: the same content for the same input, one file per object, files of ours that are no longer wanted removed."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from .._errors import NetguardError
from .._manifests.model import Desired, Manifest
from .converge import Outcome

#: First line of every file: what was written by hand is never overwritten or removed.
MARK = "# Written by homelab.netguard. Changes made here are lost.\n"


class _Dumper(yaml.SafeDumper):
    """Block style; texts of several lines stay readable."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)
_Dumper.ignore_aliases = lambda self, data: True  # type: ignore[method-assign, assignment, misc]  # anchors confuse readers and GitOps tools


def to_yaml(manifest: Manifest) -> str:
    """One document, keys in the order of the builder."""
    return MARK + yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def file_name(manifest: Manifest) -> str:
    """`namespace/kind-name.yaml`, or `cluster/...` for what is in no namespace."""
    meta = manifest["metadata"]
    name = re.sub(r"[^A-Za-z0-9.-]", "-", f"{manifest['kind'].lower()}-{meta['name']}")
    return f"{meta.get('namespace', 'cluster')}/{name}.yaml"


def without_secrets(manifests: Iterable[Manifest]) -> list[Manifest]:
    """A Secret never goes into a file or a result."""
    return [item for item in manifests if item["kind"] != "Secret"]


def render(desired: Desired, *, part: str, dest: str, check_mode: bool, extra: Iterable[Manifest] = ()) -> Outcome:
    """Objects (and patched workloads in `extra`) as an outcome; with `dest` as files under `dest/part/`.

    Raises NetguardError when a file cannot be written, or is not ours.
    """
    manifests = [*without_secrets(desired.objects), *extra]
    outcome = Outcome(manifests=manifests, patches=[] if dest else list(desired.patches))
    if not dest:
        return outcome
    folder = Path(dest) / part
    wanted = {file_name(item): to_yaml(item) for item in manifests}
    for patch in desired.patches:
        target = patch.target
        identity: dict[str, Any] = {
            "apiVersion": target.api_version,
            "kind": target.kind,
            "metadata": {"name": target.name, **({"namespace": target.namespace} if target.namespace else {})},
        }
        merged = {**patch.body, **identity, "metadata": {**(patch.body.get("metadata") or {}), **identity["metadata"]}}
        name = file_name({**identity, "metadata": {**identity["metadata"], "name": f"patch-{target.name}"}})
        wanted[name] = to_yaml({key: merged[key] for key in (*identity, *(key for key in merged if key not in identity))})
    try:
        there = (
            {str(path.relative_to(folder)): path.read_text("utf-8") for path in sorted(folder.rglob("*.yaml"))}
            if folder.is_dir()
            else {}
        )
    except (OSError, UnicodeDecodeError) as error:
        raise NetguardError(f"{folder} cannot be read: {error}") from None
    foreign = [name for name in wanted if name in there and not there[name].startswith(MARK)]
    if foreign:
        raise NetguardError(f"not written by us, so not overwritten: {', '.join(str(folder / name) for name in foreign)}")
    for name, text in sorted(wanted.items()):
        if there.get(name) != text:
            outcome.files.append((str(folder / name), there.get(name, ""), text))
            if not check_mode:
                _write(folder / name, text)
    for name, text in there.items():
        if name not in wanted and text.startswith(MARK):
            outcome.files.append((str(folder / name), text, ""))
            if not check_mode:
                (folder / name).unlink()
    return outcome


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".netguard-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
            os.chmod(temporary, 0o644)
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
