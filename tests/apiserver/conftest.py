# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One real control plane for each worker of the API-server lane."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.homelab.netguard.tests.cluster import binaries, crds
from ansible_collections.homelab.netguard.tests.cluster.control_plane import ControlPlane


@dataclass
class Play:
    """What a run of ansible-playbook came to."""

    code: int
    output: str
    results: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.code == 0

    def task(self, module: str) -> dict[str, Any]:
        """The last result of a module."""
        return next(item for item in reversed(self.results) if item["module"] == module)["result"]


#: A callback that writes every task's result as a line of JSON to the file that NETGUARD_RESULTS names.
CALLBACK = '''
import json, os
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: results
type: notification
short_description: results of tasks as lines of JSON
description: for tests
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_NAME = "results"
    CALLBACK_TYPE = "notification"

    def _write(self, result, ignore_errors=False):
        with open(os.environ["NETGUARD_RESULTS"], "a") as log:
            action = getattr(result, "_task", None) or result.task
            body = getattr(result, "_result", None) or result.result
            log.write(json.dumps({"module": action.action, "name": action.get_name(), "result": body}, default=str) + "\\n")

    v2_runner_on_ok = v2_runner_on_failed = v2_runner_on_skipped = _write
'''


class Server(ControlPlane):
    """A control plane with what tests ask of it."""

    def playbook(
        self,
        playbook: str | list[dict[str, Any]],
        variables: dict[str, Any],
        *words: str,
        kubeconfig: Path | None = None,
        folder: Path,
    ) -> Play:
        """Runs a playbook of the collection (by its name) or plays, from a folder with nothing else in it."""
        callbacks = folder / "callbacks"
        callbacks.mkdir(exist_ok=True)
        (callbacks / "results.py").write_text(CALLBACK)
        log = folder / "results.jsonl"
        log.unlink(missing_ok=True)
        (folder / "vars.yml").write_text(yaml.safe_dump(variables))
        if isinstance(playbook, list):
            (folder / "play.yml").write_text(yaml.safe_dump(playbook, sort_keys=False))
            playbook = "play.yml"
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "K8S_AUTH_"))},
            "KUBECONFIG": str(kubeconfig or self.kubeconfig),
            "ANSIBLE_CALLBACK_PLUGINS": str(callbacks),
            "ANSIBLE_CALLBACKS_ENABLED": "results",
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
            "ANSIBLE_NOCOLOR": "1",
            "NETGUARD_RESULTS": str(log),
        }
        command = [str(Path(sys.executable).parent / "ansible-playbook"), playbook, "-e", "@vars.yml", *words]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600)
        results = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return Play(done.returncode, done.stdout + done.stderr, results)

    def crds(self, name: str) -> None:
        """Custom resources of a CNI or mesh (`crds.NAMES`); they stay for the session, so other tests of this worker see them."""
        if not crds.taken(name, binaries.release()):
            pytest.skip(f"Kubernetes {binaries.release()} does not take the definitions of {name}")
        file = str(crds.path(name))
        self.run_kubectl("apply", "--server-side", "-f", file)
        self.run_kubectl("wait", "--for=condition=Established", "-f", file, "--timeout=60s")

    def objects(self, kind: str, *words: str) -> list[dict[str, Any]]:
        """Objects as kubectl lists them."""
        found: list[dict[str, Any]] = json.loads(self.run_kubectl("get", kind, "-o", "json", *words))["items"]
        return found

    def writes(self, since: int, *, dry: bool = False) -> list[dict[str, Any]]:
        """Writes of our field manager since a mark; without `dry` those that were kept, with it dry runs alone."""
        return [event for event in self.audit(since) if self.kept(event, dry=dry)]

    @staticmethod
    def kept(event: dict[str, Any], *, dry: bool = False) -> bool:
        """Whether an event is a write of our field manager that was kept (with `dry`: that was a dry run)."""
        return (
            event["verb"] in ("create", "update", "patch", "delete", "deletecollection")
            and "ansible" not in event.get("user", {}).get("username", "")
            and event.get("responseStatus", {}).get("code", 0) < 400
            and ("fieldManager=homelab.netguard" in event["requestURI"] or event["verb"].startswith("delete"))
            and ("dryRun=All" in event["requestURI"] or '"dryRun":["All"]' in json.dumps(event.get("requestObject"))) == dry
        )


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A running control plane with two nodes that KWOK plays."""
    with Server(lean=True) as plane:
        plane.nodes()
        yield plane


@pytest.fixture(scope="session")
def calico(server: Server) -> Server:
    """The same control plane with Calico's custom resources."""
    server.crds("calico")
    return server
