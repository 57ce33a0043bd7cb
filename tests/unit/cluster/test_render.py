# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Manifests in a folder: the same bytes for the same input, and hands off what others wrote."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.homelab.netguard.plugins.module_utils._cluster.outcome import Outcome
from ansible_collections.homelab.netguard.plugins.module_utils._cluster.render import load, opened, render
from ansible_collections.homelab.netguard.plugins.module_utils._errors import NetguardError
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Desired, Key, Manifest, Patch


def item(kind: str, name: str, namespace: str = "media", api: str = "v1", **body: Any) -> Manifest:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, **({"namespace": namespace} if namespace else {})}, **body}


SCRIPT = "#!/bin/sh\nset -eu\nexec true # on: yes\n"
OBJECTS = (
    item("ConfigMap", "one", data={"script": SCRIPT, "yes": "on", "number": "0123"}),
    item("Secret", "login", stringData={"key": "hidden"}),
    item("Namespace", "media", ""),
    item("NetworkPolicy", "closed", api="networking.k8s.io/v1", spec={}),
    item("NetworkPolicy", "closed", api="crd.projectcalico.org/v1", spec={}),
)
PATCHES = (
    Patch(Key("apps/v1", "Deployment", "media", "app"), {"spec": {"replicas": 1}}),
    Patch(Key("v1", "Namespace", "", "media"), {"metadata": {"labels": {"a": "b"}}}),
)


def written(folder: Path, objects: tuple[Manifest, ...] = OBJECTS, *, instance: str = "home", **more: Any) -> Outcome:
    options = {"part": "gateway", "dest": str(folder), "check_mode": False, **more}
    return render(Desired((objects,), options.pop("patches", ())), instance=instance, **options)


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_files(tmp_path: Path) -> None:
    outcome = written(tmp_path, patches=PATCHES)
    found = files(tmp_path)
    assert sorted(found) == [
        "gateway/cluster/namespace-media.yaml",
        "gateway/cluster/namespace-patch-media.yaml",
        "gateway/media/configmap-one.yaml",
        "gateway/media/deployment-patch-app.yaml",
        "gateway/media/networkpolicy.crd.projectcalico.org-closed.yaml",
        "gateway/media/networkpolicy.networking.k8s.io-closed.yaml",
    ]
    assert yaml.safe_load(found["gateway/media/configmap-one.yaml"]) == OBJECTS[0]
    assert yaml.safe_load(found["gateway/cluster/namespace-patch-media.yaml"])["metadata"] == {
        "name": "media",
        "labels": {"a": "b"},
    }
    assert "script: |\n" in found["gateway/media/configmap-one.yaml"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*.yaml")} == {0o644}
    assert outcome.changed
    assert {path for path, _before, _after in outcome.files} == {str(tmp_path / name) for name in found}
    assert "hidden" not in repr((outcome.diff(), outcome.result(), found))


def test_again_is_no_change_and_check_mode_writes_nothing(tmp_path: Path) -> None:
    check = written(tmp_path, check_mode=True)
    assert check.changed
    assert files(tmp_path) == {}
    real = written(tmp_path)
    assert real.diff() == check.diff()
    first = files(tmp_path)
    assert not written(tmp_path).changed
    assert files(tmp_path) == first


def test_what_is_no_longer_wanted_goes_unless_it_is_anothers(tmp_path: Path) -> None:
    written(tmp_path)
    written(tmp_path, (item("ConfigMap", "theirs"),), instance="other")
    (tmp_path / "gateway" / "media" / "notes.yaml").write_text("mine: true\n")
    kept = written(tmp_path, OBJECTS[:1], prune=False)
    assert not kept.changed
    outcome = written(tmp_path, OBJECTS[:1])
    assert [name for name, _before, after in outcome.files if not after] == [
        str(tmp_path / "gateway" / name)
        for name in (
            "cluster/namespace-media.yaml",
            "media/networkpolicy.crd.projectcalico.org-closed.yaml",
            "media/networkpolicy.networking.k8s.io-closed.yaml",
        )
    ]
    assert sorted(files(tmp_path)) == [
        "gateway/media/configmap-one.yaml",
        "gateway/media/configmap-theirs.yaml",
        "gateway/media/notes.yaml",
    ]


@pytest.mark.parametrize("text", ["kind: Handmade\n", "\xff", "# Written by homelab.netguard for the instance other. Changes\n"])
def test_what_was_not_written_for_us_is_not_overwritten(tmp_path: Path, text: str) -> None:
    path = tmp_path / "gateway" / "media" / "configmap-one.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="latin-1")
    with pytest.raises(NetguardError, match=r"configmap-one\.yaml"):
        written(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [path]
    assert path.read_text("latin-1") == text


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NetguardError, match="cannot be written"):
        written(tmp_path / "file")


def test_load_takes_files_folders_and_lists(tmp_path: Path) -> None:
    one, two = item("ConfigMap", "one"), item("ConfigMap", "two")
    (tmp_path / "a.yaml").write_text(yaml.safe_dump_all([one, None, {"kind": "List", "apiVersion": "v1", "items": [two]}]))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.yml").write_text(yaml.safe_dump(item("ConfigMap", "three")))
    assert [found["metadata"]["name"] for found in load(str(tmp_path))] == ["one", "two", "three"]
    assert load(str(tmp_path / "a.yaml")) == [one, two]


BAD = [
    "- 1",
    "kind: 5",
    "kind: ConfigMap",
    "kind: ConfigMap\nmetadata: {name: 7}\napiVersion: v1",
    "a: [",
    "kind: ConfigMap\nmetadata: x",
]


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_manifest_is_told_with_its_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(NetguardError, match=r"bad\.yaml"):
        load(str(tmp_path))
    with pytest.raises(NetguardError, match="nowhere"):
        load(str(tmp_path / "nowhere"))


def test_opened_names_the_place() -> None:
    with pytest.raises(NetguardError, match=r"live\[2\]"):
        opened("text", "live[2]")
