# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The field of a test on kind: kubectl, a node's view of a pod, and what the applications in the pods say of themselves."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from ..cluster import binaries, images, kind_cluster

#: Bound of every wait: generous, since only the order of things is tested, not how fast this machine is.
PATIENCE = 180.0
CLOCK = "udp unbound"


class FieldError(AssertionError):
    """Something did not come to pass; the message says what, and what was seen instead."""


def say(text: str) -> None:
    """Prints at once, and into the file that `make molecule` reads along: a task tells what it printed at its end only."""
    print(text, flush=True)
    if "NETGUARD_PROGRESS" in os.environ:
        with open(os.environ["NETGUARD_PROGRESS"], "a") as file:
            file.write(f"{text}\n")


def fault(text: str) -> None:
    """Says what failed, in a line that `make molecule` repeats as its last words."""
    say(f"FAULT {text}")


def program(main: Callable[[], int]) -> NoReturn:
    """Runs a step of a scenario as a program: what did not come to pass is told like any other fault."""
    try:
        code = main()
    except (FieldError, images.ImageError) as error:
        fault(f"{error}\n{traceback.format_exc(limit=-3)}")
        code = 1
    sys.exit(code)


def run(*command: str, text: str | None = None, timeout: float = 120, check: bool = True) -> str:
    """Runs a command; its output. Raises FieldError with the end of it."""
    try:
        done = subprocess.run(
            command, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise FieldError(f"{shlex.join(command)[:200]} took longer than {timeout} s") from error
    if check and done.returncode:
        raise FieldError(f"{shlex.join(command)[:200]} failed:\n{done.stdout[-1500:]}")
    return done.stdout


def kubectl(*words: str, text: str | None = None, check: bool = True, timeout: float = 120) -> str:
    return run(str(binaries.path("kubectl")), *words, text=text, check=check, timeout=timeout)


def refused(*words: str, text: str | None = None) -> str:
    """What kubectl says when the request is denied. Raises FieldError when it was let through."""
    done = subprocess.run(
        [str(binaries.path("kubectl")), *words],
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode == 0:
        raise FieldError(f"kubectl {shlex.join(words)} was let through: {done.stdout[-300:]}")
    if "ValidatingAdmissionPolicy" not in done.stdout:
        raise FieldError(f"kubectl {shlex.join(words)} failed for another reason: {done.stdout[-600:]}")
    return done.stdout


def get(*words: str) -> Any:
    return json.loads(kubectl("get", *words, "--output", "json"))


def wait_for(what: str, condition: Callable[[], object], timeout: float = PATIENCE, pause: float = 0.2) -> float:
    """Seconds until the condition held; an error inside it counts as not yet. Raises FieldError."""
    begun, said = time.monotonic(), ""
    while True:
        try:
            if condition():
                return time.monotonic() - begun
            said = ""
        except (FieldError, ValueError, KeyError, IndexError) as error:
            said = f": {error}"
        if time.monotonic() - begun > timeout:
            raise FieldError(f"{what}: not within {timeout:.0f} s{said[:800]}")
        time.sleep(pause)


# -- pods -----------------------------------------------------------------------------------------------------------------------


def pods(namespace: str, selector: str) -> list[dict[str, Any]]:
    """Pods that are not on their way out, newest first."""
    found = [pod for pod in get("pods", "-n", namespace, "-l", selector)["items"] if "deletionTimestamp" not in pod["metadata"]]
    return sorted(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), reverse=True)


def ready(pod: dict[str, Any]) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", []))


class Pod:
    """One pod, and its network namespace as its node sees it."""

    def __init__(self, namespace: str, selector: str) -> None:
        self.namespace, self.selector = namespace, selector
        self.known = ""  # the pod that was asked last

    def live(self) -> dict[str, Any]:
        found = pods(self.namespace, self.selector)
        if not found:
            raise FieldError(f"no pod {self.selector} in {self.namespace}")
        return found[0]

    @property
    def name(self) -> str:
        return str(self.live()["metadata"]["name"])

    def ready(self) -> bool:
        found = pods(self.namespace, self.selector)
        return len(found) == 1 and ready(found[0])

    def exec(self, *command: str, container: str = "", check: bool = True, timeout: float = 30) -> str:
        where = ["-c", container] if container else []
        return kubectl("exec", "-n", self.namespace, self.name, *where, "--", *command, check=check, timeout=timeout)

    def state(self, container: str = "") -> dict[str, Any]:
        """What the lab's application in it says (tests/cluster/lab/app.py)."""
        where = ["-c", container] if container else []
        said = ""
        for name in (self.known, ""):
            self.known = name or self.name
            said = kubectl("exec", "-n", self.namespace, self.known, *where, "--", "cat", "/tmp/state.json", check=False)
            try:
                # kubectl may first say which container it chose
                found: dict[str, Any] = json.loads(said[said.index('{"now"') :])
                return found
            except ValueError:
                continue
        self.known = ""
        raise FieldError(f"no state of {self.selector}: {said[-300:]}")

    def node_shell(self, script: str, *, check: bool = True) -> str:
        """A script in the pod's node. $ip: the pod's address, $ns: its network namespace, `inside`: a command in there."""
        live = self.live()
        head = f"""ip={live["status"]["podIP"]}
        for ns in /var/run/netns/*; do
          nsenter --net="$ns" ip -4 -o address show dev eth0 2>/dev/null | grep -qF "inet $ip/" && break
        done
        inside() {{ nsenter --net="$ns" "$@"; }}
        # pids in the pod's namespace whose command line holds a word
        processes() {{
          want=$(inside readlink /proc/self/ns/net)
          for p in /proc/[0-9]*; do
            [ "$(readlink "$p/ns/net" 2>/dev/null)" = "$want" ] || continue
            tr '\\0' ' ' <"$p/cmdline" 2>/dev/null | grep -q -- "$1" && echo "${{p#/proc/}}"
          done
        }}
        """
        return node(str(live["spec"]["nodeName"]), head + script, check=check)


def node(name: str, script: str, *, check: bool = True, timeout: float = 60) -> str:
    return run("docker", "exec", "-i", name, "bash", "-s", text=script, check=check, timeout=timeout)


def nodes() -> list[str]:
    return kind_cluster.nodes()


def also_named(image: str, name: str) -> None:
    """An image of the nodes by another name: a newer one that is pulled by nobody."""
    for each in nodes():
        node(each, f"ctr -n k8s.io images tag --force {image} {name}")


def apply(*objects: dict[str, Any]) -> None:
    kubectl("apply", "-f", "-", text="\n---\n".join(json.dumps(item) for item in objects))


def playbook(name: str, *words: str, check: bool = True, timeout: float = 900) -> str:
    """Runs a playbook of the collection with the scenario's variables; its output."""
    variables = [word for path in os.environ.get("NETGUARD_VARS", "").split(os.pathsep) if path for word in ("-e", f"@{path}")]
    return run("ansible-playbook", "-i", "localhost,", f"homelab.netguard.{name}", *variables, *words, check=check, timeout=timeout)
