# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plays that bring their own kubeconfig: found beside the play, decrypted, and in no output."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_lab import Lab
from conftest import Server

#: Where a play looks for a file.
PLACES = {"in files": "files/home.kubeconfig", "beside the play": "home.kubeconfig"}


@pytest.fixture(scope="module")
def lab(server: Server) -> Lab:
    return Lab(server)


def play(**options: Any) -> list[dict[str, Any]]:
    task = {"homelab.netguard.segmentation_policy": {"state": "absent", "instance": "nobody", **options}}
    return [
        {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {"ansible_python_interpreter": "{{ ansible_playbook_python }}"},
            "tasks": [task],
        }
    ]


def run(lab: Lab, folder: Path, plays: list[dict[str, Any]], *words: str) -> Any:
    """Without any other way to a cluster than what the play names."""
    return lab.server.playbook(plays, {}, *words, kubeconfig=Path("/nonexistent/kubeconfig"), folder=folder)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("vaulted", [False, True])
def test_a_kubeconfig_of_the_play(lab: Lab, tmp_path: Path, place: str, vaulted: bool) -> None:
    path = tmp_path / PLACES[place]
    path.parent.mkdir(exist_ok=True)
    path.write_text(lab.server.kubeconfig.read_text())
    words = ["-vvv"]
    if vaulted:
        (tmp_path / "password").write_text("open sesame")
        vault = str(Path(sys.executable).parent / "ansible-vault")
        subprocess.run([vault, "encrypt", str(path), "--vault-password-file", "password"], cwd=tmp_path, check=True, timeout=60)
        assert path.read_text().startswith("$ANSIBLE_VAULT")
        words += ["--vault-password-file", "password"]
    done = run(lab, tmp_path, play(kubeconfig="home.kubeconfig"), *words)
    assert done.ok, done.output
    result = done.task("homelab.netguard.segmentation_policy")
    uid = lab.get("namespace", "kube-system")["metadata"]["uid"]
    assert result["cluster"]["id"] == uid
    assert result["changed"] is False
    key = yaml.safe_load(lab.server.kubeconfig.read_text())["users"][0]["user"]["client-key-data"]
    assert key[:60] not in done.output + json.dumps(done.results)
    assert path.read_text()[:14] == ("$ANSIBLE_VAULT" if vaulted else lab.server.kubeconfig.read_text()[:14])


def test_a_kubeconfig_that_is_nowhere(lab: Lab, tmp_path: Path) -> None:
    done = run(lab, tmp_path, play(kubeconfig="missing.kubeconfig"))
    assert not done.ok
    assert "there is no kubeconfig at" in done.output
    assert "Traceback" not in done.output


def test_a_vault_that_cannot_be_opened_is_told_as_such(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "home.kubeconfig"
    path.write_text(lab.server.kubeconfig.read_text())
    for name in ("right", "wrong"):
        (tmp_path / name).write_text(name)
    vault = str(Path(sys.executable).parent / "ansible-vault")
    subprocess.run([vault, "encrypt", str(path), "--vault-password-file", "right"], cwd=tmp_path, check=True, timeout=60)
    for words in ([], ["--vault-password-file", "wrong"]):
        done = run(lab, tmp_path, play(kubeconfig="home.kubeconfig"), *words)
        assert not done.ok
        assert "vault" in done.output.lower()


def test_defaults_of_the_action_group_reach_every_module(lab: Lab, tmp_path: Path) -> None:
    plays = play()
    defaults = {"kubeconfig": str(lab.server.kubeconfig), "expected_cluster": "some-other-cluster"}
    plays[0]["module_defaults"] = {"group/homelab.netguard.netguard": defaults}
    done = run(lab, tmp_path, plays)
    assert not done.ok
    assert "this is another cluster" in done.output
