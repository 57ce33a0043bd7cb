# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Molecule's scenarios on one kind cluster (`make molecule`); names of scenarios as arguments, else all.

NETGUARD_KIND says how the cluster comes about: `public` (images are pulled), `packages` (images are built here), or unset:
`packages` where no image can be pulled, which is tried. Either needs root. NETGUARD_KIND_KEEP=1 leaves the cluster for a look.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import binaries, images, kind_cluster, kind_evidence

ROOT = Path(__file__).resolve().parent.parent.parent
#: Scenarios that run once for each of these, which they find in NETGUARD_EXAMPLE.
EXAMPLES = {"examples": ("seed-003", "seed-004")}
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
#: What a scenario said, and what its steps said meanwhile.
OUTPUT = ("output.txt", "progress.txt")
ACTION = re.compile(r"➜ (\w+): Executing")
#: What our own steps, Ansible and Molecule say of a failure.
CAUSE = re.compile(r"\s*(FAULT |fatal: |failed: |\[ERROR\]|ERROR )")


def scenarios() -> list[str]:
    return sorted(path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml"))


def mode() -> tuple[str, str]:
    """How the cluster comes about, and why: kind's own image where it can be had, which is tried."""
    chosen = os.environ.get("NETGUARD_KIND", "")
    if chosen in ("public", "packages"):
        return chosen, "NETGUARD_KIND says so"
    problem = kind_cluster.unreachable()
    if not problem:
        return "public", "the registry of kind's node image answers"
    return "packages", problem


def runs(chosen: list[str]) -> list[tuple[str, str]]:
    """Scenarios in order, each with its example; empty for those that have none."""
    return [(name, example) for name in chosen for example in EXAMPLES.get(name, ("",))]


def environment(kubeconfig: Path, example: str) -> dict[str, str]:
    """A scenario's environment: this cluster, the lab's keys, and no memory of Molecule's earlier runs."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "K8S_AUTH_", "MOLECULE_"))}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}",
        "KUBECONFIG": str(kubeconfig),
        "K8S_AUTH_KUBECONFIG": str(kubeconfig),
        "NETGUARD_VARS": str(ROOT / "molecule" / "lab" / "vars" / "homelab.yml"),
        "NETGUARD_TABLES": str(ROOT / "build" / "molecule"),
        "NETGUARD_EXAMPLE": example,
        "MOLECULE_EPHEMERAL_DIRECTORY": tempfile.mkdtemp(prefix="molecule-", dir=kubeconfig.parent),
        "MOLECULE_GLOB": "molecule/*/molecule.yml",
        "NETGUARD_CLIENT_KEY": kind_cluster.CLIENT_KEY,
        "NETGUARD_SECOND_KEY": kind_cluster.SECOND_KEY,
        "NETGUARD_SERVER_PUBLIC": kind_cluster.public_key(kind_cluster.SERVER_KEY),
    }


def molecule(name: str, example: str, kubeconfig: Path, evidence: Path) -> tuple[bool, str]:
    """One scenario, in a session of its own: whatever ends this program ends all of it. What it said is kept as evidence.

    Whether it was good, and how long each of its actions took.
    """
    command = [str(Path(sys.executable).parent / "molecule"), "test", "--scenario-name", name]
    output, progress = (evidence / name for name in OUTPUT)
    variables = {**environment(kubeconfig, example), "NETGUARD_PROGRESS": str(progress)}
    progress.write_text("")
    with output.open("wb") as to:
        process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=to, stderr=subprocess.STDOUT, start_new_session=True)
    begun: list[tuple[str, float]] = []
    try:
        with output.open(errors="replace") as said, progress.open() as told:
            going = True
            while going:
                going = process.poll() is None
                news = said.read()
                begun += [(action, time.monotonic()) for action in ACTION.findall(COLOURS.sub("", news))]
                print(told.read(), news, sep="", end="", flush=True)
                time.sleep(0.5 if going else 0)
        ends = [*(at for _action, at in begun[1:]), time.monotonic()]
        took = ", ".join(f"{action} {end - at:.0f}" for (action, at), end in zip(begun, ends, strict=False))
        return process.returncode == 0, took
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def causes(evidence: Path) -> list[str]:
    """The lines of a scenario's output that say what failed; each once, and not longer than a reader of the last lines can bear."""
    plain = [COLOURS.sub("", (evidence / name).read_text(errors="replace")) for name in reversed(OUTPUT)]
    found = dict.fromkeys(line.strip()[:400] for text in plain for line in text.splitlines() if CAUSE.match(line))
    return list(found)[:12]


def table(evidence: Path) -> None:
    """What a scenario wrote for its reader."""
    path = evidence / "table.md"
    if path.exists():
        print(path.read_text(), flush=True)


def main() -> int:
    way, why = mode()
    chosen = sys.argv[1:] or scenarios()
    unknown = [name for name in chosen if name not in scenarios()]
    if unknown:
        print(f"molecule: no scenario {', '.join(unknown)}; there are: {', '.join(scenarios())}")
        return 2
    print(f"molecule: images: {way} ({why})", flush=True)
    passed, failed = 0, list[str]()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="netguard-kind-") as folder:
            kubeconfig = Path(folder) / "kubeconfig"
            kind_cluster.up(kubeconfig, public=way == "public")
            for name, example in runs(chosen):
                started = time.monotonic()
                title = f"{name} {example}".strip()
                evidence = ROOT / "build" / "molecule" / name / example
                shutil.rmtree(evidence, ignore_errors=True)
                evidence.mkdir(parents=True)
                good, took = molecule(name, example, kubeconfig, evidence)
                passed += good
                table(evidence)
                print(f"molecule: {title} {'ok' if good else 'FAILED'} in {time.monotonic() - started:.0f} s ({took})", flush=True)
                if not good:
                    kind_evidence.collect(evidence)
                    failed.append("\n".join([f"molecule: {title} FAILED; see {evidence}:", *causes(evidence)]))
                    print(f"molecule: logs, rules and events are in {evidence}", flush=True)
                    reset(kubeconfig, way)
    except (images.ImageError, binaries.BuildError) as error:
        print(*failed, f"molecule: {error}", sep="\n")
        return 1
    except KeyboardInterrupt:
        print(*failed, "molecule: stopped", sep="\n", flush=True)
        return 130
    finally:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # what is below must come to its end
        if not os.environ.get("NETGUARD_KIND_KEEP"):
            kind_cluster.down()
    print(*failed, f"{passed} passed, {len(failed)} failed", sep="\n")  # the causes last: they are what is looked for
    return int(bool(failed))


def reset(kubeconfig: Path, way: str) -> None:
    """A new cluster after a failure: the next scenario must not trip over what this one left."""
    if not os.environ.get("NETGUARD_KIND_KEEP"):
        kind_cluster.down()
        kind_cluster.up(kubeconfig, public=way == "public")


if __name__ == "__main__":
    sys.exit(main())
