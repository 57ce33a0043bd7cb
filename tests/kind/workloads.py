# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scenario `workloads`: every kind of workload as a client, each pod seen by the internet as its own gateway's tunnel.
`early` starts the Job that runs before anything is guarded.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from .field import FieldError, get, kubectl, pods, program, ready, say, wait_for

#: App: number of pods, the address that the internet sees.
EXPECTED = {"two": (2, "10.2.0.2"), "ordered": (2, "10.2.0.2"), "everywhere": (2, "10.2.0.3"), "careful": (1, "10.2.0.3")}


def ask(pod: dict[str, Any], *words: str) -> str:
    """What the internet answers to a pod; empty when it does not."""
    meta = pod["metadata"]
    command = ("curl", "-s", "--max-time", "3", *words, "http://203.0.113.80/")
    return kubectl("exec", "-n", "media", meta["name"], "-c", meta["labels"]["app"], "--", *command, check=False).strip()


def workload(app: str, count: int, address: str) -> None:
    wait_for(f"{app}: {count} pods ready", lambda: [ready(pod) for pod in pods("media", f"app={app}")] == [True] * count)
    for pod in pods("media", f"app={app}"):
        name, first = pod["metadata"]["name"], [one["name"] for one in pod["spec"]["initContainers"]]
        if first[:2] != ["netguard-guard", "netguard-overlay"]:
            raise FieldError(f"{name}: the init containers are {first}")
        wait_for(f"{name} is seen as {address}", lambda pod=pod: ask(pod) == address)  # type: ignore[misc]
        around = ask(pod, "--interface", "eth0")
        if "10." in around or "172." in around:
            raise FieldError(f"{name} leaves around the tunnel as {around}")
        say(f"{name}: guard first, seen as {address}, no way around")


def early() -> None:
    """A Job made by hand from the CronJob runs before anything is guarded."""
    kubectl("create", "job", "-n", "media", "early", "--from=cronjob/nightly")

    def runs() -> bool:
        return [pod["status"]["phase"] for pod in pods("media", "job-name=early")] == ["Running"]

    wait_for("the early Job runs", runs)


def jobs() -> None:
    """One Job has run since before admission was there; one is started from the patched CronJob. Both must end."""
    (early,) = pods("media", "job-name=early")
    if early["status"]["phase"] != "Running":
        raise FieldError(f"the early Job is {early['status']['phase']}")
    kubectl("exec", "-n", "media", early["metadata"]["name"], "--", "touch", "/tmp/end")
    kubectl("create", "job", "-n", "media", "tonight", "--from=cronjob/nightly")
    for name in ("early", "tonight"):
        wait_for(f"Job {name} ends well", lambda name=name: get("job", "-n", "media", name)["status"].get("succeeded") == 1)  # type: ignore[misc]
    said = kubectl("logs", "-n", "media", "-l", "job-name=tonight", "-c", "nightly").strip()
    if said != "10.2.0.3":
        raise FieldError(f"the Job was seen as {said}")
    (tonight,) = pods("media", "job-name=tonight")
    if tonight["spec"]["initContainers"][0]["name"] != "netguard-guard":
        raise FieldError(f"the Job's pod has no guard: {json.dumps(tonight['spec']['initContainers'])[:300]}")
    # what has ended is its owner's to keep or to delete; a removal of ours leaves it
    kubectl("delete", "job", "-n", "media", "early", "tonight", "--wait=true")
    say("jobs: the early one ended, tonight's is guarded and seen as 10.2.0.3")


def main() -> int:
    if sys.argv[1:] == ["early"]:
        early()
        return 0
    for app, (count, address) in EXPECTED.items():
        workload(app, count, address)
    jobs()
    return 0


if __name__ == "__main__":
    program(main)
