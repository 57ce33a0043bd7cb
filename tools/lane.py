# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs one lane of tests, or all that README calls "the tests", and sums up what passed (`make unit`, `make test`, ...)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / "build" / "reports"
PACKAGE = "ansible_collections.homelab.netguard"
NOTHING_COLLECTED = 5
#: Seconds that a stopped lane has for its clean-up before it is told again, and then killed.
GRACE = 20


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


@dataclass
class Run:
    """A lane that runs now."""

    lane: Lane
    report: Path
    process: subprocess.Popen[bytes]
    started: float = field(default_factory=time.time)

    def outcome(self) -> Outcome:
        """Waits for its end."""
        code = self.process.wait()
        passed, failed, skipped = counts(self.report) if self.report.exists() else (0, 0, 0)
        note = "" if self.report.exists() else f"pytest ended with {code} and wrote no report"
        if code == NOTHING_COLLECTED:
            note = "no test matched"
        # one that ran beside another may have ended long ago
        ended = self.report.stat().st_mtime if self.report.exists() else time.time()
        return Outcome(self.lane.name, code == 0, ended - self.started, passed, failed, skipped, note)


@contextlib.contextmanager
def running(lane: Lane, extra: list[str], output: Path | None = None) -> Iterator[Run]:
    """pytest over a lane's folder; what it says goes to the file `output`, else where ours goes. Whatever ends us ends it."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    report = REPORTS / f"{lane.name}.xml"
    report.unlink(missing_ok=True)
    paths = [] if any((ROOT / item.split("::")[0]).exists() for item in extra if not item.startswith("-")) else [lane.folder]
    command = [sys.executable, *lane.program, "-ra", "--junitxml", str(report), *lane.options, *extra, *paths]
    with contextlib.ExitStack() as stack:
        to = stack.enter_context(output.open("wb")) if output else None
        beside = {"stdin": subprocess.DEVNULL, "stdout": to, "stderr": subprocess.STDOUT} if to else {}
        process = subprocess.Popen(command, cwd=ROOT, env=environment(), **beside)  # type: ignore[call-overload]
        try:
            yield Run(lane, report, process)
        except KeyboardInterrupt:  # the terminal has told it as well, and a second time would cut its clean-up short
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            raise
        finally:
            for signum in (signal.SIGINT, signal.SIGKILL):
                if process.poll() is None:
                    process.send_signal(signum)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(GRACE)


def pytest(name: str, extra: list[str]) -> Outcome:
    """Runs one lane to its end."""
    with running(lanes()[name], extra) as run:
        return run.outcome()


def unbuilt() -> Outcome | None:
    """Builds what the control planes run before the API server lane, so that the tests' time is theirs; what that lane came to
    where it cannot be built."""
    from ansible_collections.homelab.netguard.tests.cluster import binaries

    try:
        binaries.control_plane()
    except binaries.BuildError as error:
        print(f"apiserver: {error}", flush=True)
        return Outcome("apiserver", False, 0, note="the control plane could not be built")
    return None


def lint() -> Outcome:
    started = time.monotonic()
    done = subprocess.run([sys.executable, "tools/lint.py"], cwd=ROOT, check=False)
    return Outcome("lint", done.returncode == 0, time.monotonic() - started, note="clean" if done.returncode == 0 else "see above")


def everything() -> int:
    """`make test`: every lane runs, also after a failure, so that one run tells all."""
    outcomes = []
    for name in ("lint", "unit"):
        print(f"\n== {name} ==", flush=True)
        outcomes.append(run_lane(name, []))
        print(outcomes[-1].line(), flush=True)
    outcomes += side_by_side()
    print("\n== summary ==")
    for outcome in outcomes:
        print(outcome.line())
    passed = sum(outcome.passed for outcome in outcomes)
    failed = sum(outcome.failed for outcome in outcomes) or sum(not outcome.ok for outcome in outcomes)
    print(f"{passed} passed, {failed} failed, {sum(outcome.skipped for outcome in outcomes)} skipped", flush=True)
    return int(not all(outcome.ok for outcome in outcomes))


def side_by_side() -> list[Outcome]:
    """The two long lanes: a row of the packets lane mostly waits, for what must happen and for what must not. What that lane says
    is shown when both have ended, since the other's dots go on in between."""
    print("\n== apiserver, and packets beside it ==", flush=True)
    missing = unbuilt()
    said = REPORTS / "packets.txt"
    with running(lanes()["packets"], [], said) as packets:
        first = missing or pytest("apiserver", [])
        print(first.line(), flush=True)
        print("\n== packets ==", flush=True)
        second = packets.outcome()
    print(said.read_text(errors="replace").rstrip(), flush=True)
    print(second.line(), flush=True)
    return [first, second]


def run_lane(name: str, extra: list[str]) -> Outcome:
    if name == "lint":
        return lint()
    return (unbuilt() if name == "apiserver" else None) or pytest(name, extra)


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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nstopped", flush=True)
        sys.exit(128 + signal.SIGINT)
