# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs one lane of tests, or all that README calls "the tests", and sums up what passed (`make unit`, `make test`, ...)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / "build" / "reports"
PACKAGE = "ansible_collections.homelab.netguard"
NOTHING_COLLECTED = 5


@dataclass
class Outcome:
    """What a lane came to."""

    name: str
    ok: bool
    seconds: float
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    note: str = ""

    def line(self) -> str:
        counts = f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"
        return f"{self.name:<10} {'ok' if self.ok else 'FAILED':<7} {self.seconds:6.0f} s  {self.note or counts}"


@dataclass
class Lane:
    """A folder of tests and how pytest runs over it."""

    name: str
    folder: str
    options: list[str] = field(default_factory=list)
    program: list[str] = field(default_factory=lambda: ["-m", "pytest"])


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def lanes() -> dict[str, Lane]:
    workers = str(min(4, cores()))
    return {
        "unit": Lane("unit", "tests/unit", ["-n", workers]),
        "apiserver": Lane("apiserver", "tests/apiserver", ["-n", workers, "--dist", "worksteal"]),
        # in namespaces of its own: the program says itself when it cannot make them
        "packets": Lane("packets", "tests/packets", program=[str(ROOT / "tests" / "packets" / "run.py")]),
    }


def counts(report: Path) -> tuple[int, int, int]:
    """Passed, failed and skipped tests of a JUnit report."""
    tests = failed = skipped = 0
    for suite in ET.parse(report).getroot().iter("testsuite"):
        tests += int(suite.get("tests", 0))
        failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped += int(suite.get("skipped", 0))
    return tests - failed - skipped, failed, skipped


def environment() -> dict[str, str]:
    """The caller's environment without what would point tests at the caller's own cluster or configuration."""
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("K8S_AUTH_", "ANSIBLE_")) and key != "KUBECONFIG"
    }
    kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}"
    return kept


def pytest(lane: Lane, extra: list[str]) -> Outcome:
    """Runs pytest over a lane's folder."""
    started = time.monotonic()
    folder = ROOT / lane.folder
    REPORTS.mkdir(parents=True, exist_ok=True)
    report = REPORTS / f"{lane.name}.xml"
    report.unlink(missing_ok=True)
    paths = [] if any((ROOT / item.split("::")[0]).exists() for item in extra if not item.startswith("-")) else [str(folder)]
    command = [sys.executable, *lane.program, "-ra", "--junitxml", str(report), *lane.options, *extra, *paths]
    done = subprocess.run(command, cwd=ROOT, env=environment(), check=False)
    passed, failed, skipped = counts(report) if report.exists() else (0, 0, 0)
    ok = done.returncode == 0
    note = "" if report.exists() else f"pytest ended with {done.returncode} and wrote no report"
    if done.returncode == NOTHING_COLLECTED:
        note = "no test matched"
    return Outcome(lane.name, ok, time.monotonic() - started, passed, failed, skipped, note)


def apiserver(extra: list[str]) -> Outcome:
    """The API server lane: what its control planes run is built first, so that the tests' time is theirs."""
    lane = lanes()["apiserver"]
    from ansible_collections.homelab.netguard.tests.cluster import binaries

    try:
        binaries.control_plane()
    except binaries.BuildError as error:
        print(f"apiserver: {error}", flush=True)
        return Outcome(lane.name, False, 0, note="the control plane could not be built")
    return pytest(lane, extra)


def lint() -> Outcome:
    started = time.monotonic()
    done = subprocess.run([sys.executable, "tools/lint.py"], cwd=ROOT, check=False)
    return Outcome("lint", done.returncode == 0, time.monotonic() - started, note="clean" if done.returncode == 0 else "see above")


def everything() -> int:
    """`make test`: every lane runs, also after a failure, so that one run tells all."""
    outcomes = []
    for name in ("lint", "unit", "apiserver", "packets"):
        print(f"\n== {name} ==", flush=True)
        outcomes.append(run_lane(name, []))
        print(outcomes[-1].line(), flush=True)
    print("\n== summary ==")
    for outcome in outcomes:
        print(outcome.line())
    passed = sum(outcome.passed for outcome in outcomes)
    failed = sum(outcome.failed for outcome in outcomes) or sum(not outcome.ok for outcome in outcomes)
    print(f"{passed} passed, {failed} failed, {sum(outcome.skipped for outcome in outcomes)} skipped", flush=True)
    return int(not all(outcome.ok for outcome in outcomes))


def run_lane(name: str, extra: list[str]) -> Outcome:
    if name == "lint":
        return lint()
    if name == "apiserver":
        return apiserver(extra)
    return pytest(lanes()[name], extra)


def script(folder: str, main: str, arguments: list[str]) -> NoReturn:
    """Lanes that are programs of their own: benchmarks and Molecule. In this process, so that a signal reaches them alone."""
    module = f"{PACKAGE}.{folder.replace('/', '.')}.{main.removesuffix('.py')}"
    os.chdir(ROOT)
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], environment())


def main() -> int:
    name, extra = sys.argv[1], sys.argv[2:]
    if name == "all":
        return everything()
    if name == "bench":
        script("tests/bench", "__main__.py", extra)
    if name == "molecule":
        script("tests/cluster", "molecule.py", extra)
    outcome = run_lane(name, extra)
    print(outcome.line(), flush=True)
    return int(not outcome.ok)


if __name__ == "__main__":
    sys.exit(main())
