# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs that are killed (SIGKILL) after each of their writes: no client is open then, and the next run completes.

What is killed is the playbook itself at some moments, and its modules in its order at all others: that takes a tenth of the time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
import site_modules
import yaml
from test_site import Home, guard

CLIENTS = {"qbittorrent", "sabnzbd"}
#: Kept writes of a first run at least; each of them is a moment to be killed at.
SITE_WRITES = 22
REMOVE_WRITES = 12
PLAYBOOK_MOMENTS = (2, 10, 14, SITE_WRITES)
PATIENCE = 180


@pytest.fixture
def home(server: Any, tmp_path: Path) -> Iterator[Home]:
    place = Home(server, tmp_path)
    place.variables |= {"kubeconfig": str(server.kubeconfig), "netguard_wait_timeout": PATIENCE}
    yield place
    mine = f"homelab.netguard/instance={place.instance}"
    for kind in ("validatingadmissionpolicybindings", "validatingadmissionpolicies"):
        server.run_kubectl("delete", kind, "-l", mine)
    server.run_kubectl("delete", "namespace", place.media, place.vpn, "--wait=false", "--ignore-not-found")


class Tail:
    """The audit log as it grows: how many kept writes of a homelab there were."""

    def __init__(self, home: Home) -> None:
        self.home, self.place, self.count = home, home.server.mark(), 0

    def read(self) -> int:
        with self.home.server.audit_log.open("rb") as log:
            log.seek(self.place)
            fresh = log.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self.place += len(whole)
        events = [json.loads(line) for line in whole.splitlines() if self.home.instance.encode() in line]
        self.count += sum(self.home.server.kept(event) for event in events)
        return self.count


def killed(home: Home, command: list[str], moment: int) -> None:
    """Runs a command and kills it and its children once the audit log shows so many kept writes."""
    tail = Tail(home)
    with (home.folder / "output").open("wb") as output:
        run = subprocess.Popen(
            command,
            cwd=home.folder,
            env={**os.environ, "KUBECONFIG": str(home.server.kubeconfig)},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        end = time.monotonic() + PATIENCE
        try:
            while tail.read() < moment:
                assert run.poll() is None, f"ended after {tail.count} writes: {(home.folder / 'output').read_text()}"
                assert time.monotonic() < end, f"{tail.count} of {moment} writes"
                time.sleep(0.01)
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
            run.wait()
    assert run.returncode == -signal.SIGKILL, (home.folder / "output").read_text()


def playbook(home: Home) -> list[str]:
    (home.folder / "vars.yml").write_text(yaml.safe_dump(home.variables))
    return [str(Path(sys.executable).parent / "ansible-playbook"), "homelab.netguard.site", "-e", "@vars.yml"]


def modules(home: Home, state: str) -> list[str]:
    (home.folder / "variables.json").write_text(json.dumps(home.variables))
    return [sys.executable, site_modules.__file__, state, "variables.json"]


def named(event: dict[str, Any]) -> tuple[str, str]:
    """(resource, name) of a request for one object."""
    path = event["requestURI"].split("?")[0].split("/")
    return path[-2], path[-1]


#: A client has both.
BINDINGS = ("binding of the pods", "binding of the workload")


def stored(home: Home) -> set[tuple[str, str]]:
    """(resource, name) of what holds clients and is there now."""
    mine = ("-l", f"homelab.netguard/instance={home.instance}")
    places = {"networkpolicies": ("-n", home.media), "validatingadmissionpolicies": mine, "validatingadmissionpolicybindings": mine}
    return {(kind, item["metadata"]["name"]) for kind, words in places.items() for item in home.server.objects(kind, *words)}


def check_closed(home: Home, mark: int, there: Collection[tuple[str, str]] = ()) -> None:
    """In the order of the audit log: a client is patched after its policy and its admission were written and proven.

    `there`: what was stored when a run had been killed; a request whose sender is gone may end as an error and yet be stored.
    """
    done: dict[str, set[str]] = {name: set() for name in CLIENTS}
    for event in home.server.audit(mark):
        text, code = json.dumps(event), event.get("responseStatus", {}).get("code", 0)
        if home.instance not in text:
            continue
        resource, name = named(event)
        dry = "dryRun=All" in event["requestURI"]
        for client, steps in done.items():
            if not dry and (code < 400 or (resource, name) in there) and event["verb"] == "patch":
                if (resource, name) == ("networkpolicies", f"netguard-killswitch-{client}"):
                    steps.add("policy")
                if resource == "validatingadmissionpolicies" and name.endswith("-clients"):
                    steps.add(resource)
                if resource == "validatingadmissionpolicybindings" and f'"homelab.netguard/client": "{client}"' in text:
                    steps.add("binding of the workload" if name.endswith("-workload") else "binding of the pods")
                if resource in ("deployments", "statefulsets") and name == client and "homelab.netguard" in event["requestURI"]:
                    wanted = {"policy", "validatingadmissionpolicies", *BINDINGS, "refused"}
                    assert steps == wanted, f"{client} was patched before {wanted - steps}"
            if event["verb"] == "create" and dry and code == 403 and f'"app": "{client}"' in text:
                steps.add("refused")


def check_now(home: Home) -> set[str]:
    """The guarded workloads as they are; each has its policy and both bindings of the admission policy, which is there."""
    policies = {item["metadata"]["name"] for item in home.server.objects("networkpolicies", "-n", home.media)}
    mine = ("-l", f"homelab.netguard/instance={home.instance}")
    bindings = [
        (item["metadata"]["labels"].get("homelab.netguard/client"), item["metadata"]["name"].endswith("-workload"))
        for item in home.server.objects("validatingadmissionpolicybindings", *mine)
    ]
    about = {item["metadata"]["name"].rsplit("-", 1)[1] for item in home.server.objects("validatingadmissionpolicies", *mine)}
    guarded = {name for name, template in home.templates().items() if guard(template) == "netguard-guard"}
    for name in guarded:
        assert f"netguard-killswitch-{name}" in policies
        assert {(name, False), (name, True)} <= {*bindings}
        assert about == {"clients", "policies"}
    return guarded


def completes(home: Home, start: int) -> None:
    """The next run closes and moves every client, in the right order, and the run after it changes nothing."""
    there = stored(home)
    site_modules.run(home.variables)
    check_closed(home, start, there)
    assert check_now(home) == CLIENTS
    mark = home.server.mark()
    assert site_modules.run(home.variables) is False
    assert home.writes(mark) == []


@pytest.mark.parametrize("moment", range(1, SITE_WRITES + 1))
def test_modules_killed_after_each_write(home: Home, moment: int) -> None:
    start = home.server.mark()
    killed(home, modules(home, "present"), moment)
    check_now(home)
    check_closed(home, start)
    completes(home, start)


@pytest.mark.parametrize("moment", PLAYBOOK_MOMENTS)
def test_site_killed(home: Home, moment: int) -> None:
    start = home.server.mark()
    killed(home, playbook(home), moment)
    check_now(home)
    check_closed(home, start)
    completed = home.play("site")
    assert completed.ok, completed.output
    completes(home, start)


@pytest.mark.parametrize("moment", range(1, REMOVE_WRITES + 1, 3))
def test_removal_killed_on_the_way(home: Home, moment: int) -> None:
    before = home.templates()
    site_modules.run(home.variables)
    assert check_now(home) == CLIENTS
    killed(home, modules(home, "absent"), moment)
    policies = {item["metadata"]["name"] for item in home.server.objects("networkpolicies", "-n", home.media)}
    for name, template in home.templates().items():
        assert guard(template) != "netguard-guard" or f"netguard-killswitch-{name}" in policies
    site_modules.run(home.variables, "absent")
    assert home.templates() == before
    assert home.owned() == []
