# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The unit lane, and a part of the API server lane, on other ansible-core versions (`make cores`).

Each version gets an environment of its own in build/, where a Python that it runs on is there. The summary says of each version
what ran on which Python, or that nothing did and what is missing for it.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
Version = tuple[int, int]


@dataclass(frozen=True)
class Core:
    """The `ansible` package that carries kubernetes.core for a version, and the Pythons that it runs on."""

    package: str
    oldest: Version
    newest: Version


CORES = {
    "2.19": Core("ansible==12.3.0", (3, 11), (3, 13)),
    "2.20": Core("ansible>=13.0.0,<14", (3, 12), (3, 14)),
    "2.21": Core("ansible>=14.0.0,<15", (3, 12), (3, 14)),
}
APISERVER = ["tests/apiserver", "-k", "first or second or removal"]


def usable(command: str) -> bool:
    """Whether this is a Python that can make environments."""
    path = shutil.which(command)
    return (
        path is not None and not subprocess.run([path, "-c", "import venv, ensurepip"], capture_output=True, check=False).returncode
    )


@functools.cache
def pythons() -> list[tuple[Version, str]]:
    """Pythons that can make environments, newest first: those on the PATH and pyenv's."""
    found = []
    for minor in (14, 13, 12, 11):
        places = [f"python3.{minor}", *map(str, sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python")))]
        found += [((3, minor), place) for place in places if usable(place)]
    return found


def environment(core: str, package: str, python: str) -> Path:
    """The environment of one version, made where it is not there."""
    requirements = ROOT / "build" / f"requirements-{core}.txt"
    requirements.parent.mkdir(exist_ok=True)
    others = [
        line
        for line in (ROOT / "tools/requirements.txt").read_text().splitlines()
        if not line.startswith("ansible=") and ">" in line
    ]
    others = [line for line in others if not line.startswith(("ansible>", "ansible=="))]
    requirements.write_text("\n".join([package, *others]) + "\n")
    venv = ROOT / "build" / f"venv-{core}"
    words = ["tools/setup.py", "--venv", str(venv), "--python", python, "--requirements", str(requirements)]
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True)
    return venv


@dataclass
class Outcome:
    """What came of one version. `ran`: lanes and how they ended; none where there is no Python for it."""

    core: str
    text: str
    ran: dict[str, bool] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        return not all(self.ran.values())


def missing(core: str) -> str:
    """Why a version is not tested here, and what would change that."""
    low, high = CORES[core].oldest, CORES[core].newest
    wanted = f"Python {low[0]}.{low[1]}" + (f" to {high[0]}.{high[1]}" if high != low else "")
    here = ", ".join(sorted({f"{version[0]}.{version[1]}" for version, _place in pythons()})) or "none"
    return f"NOT RUN: needs {wanted} with venv and ensurepip on the PATH or in ~/.pyenv/versions; here: {here}"


def tested(core: str) -> Outcome:
    """Runs both lanes on one version, where a Python for it is there."""
    wanted = CORES[core]
    candidates = [(version, place) for version, place in pythons() if wanted.oldest <= version <= wanted.newest]
    if not candidates:
        return Outcome(core, missing(core))
    version, place = candidates[0]
    python = str(environment(core, wanted.package, place) / "bin" / "python")
    ran = {}
    for arguments in (["unit"], ["apiserver", *APISERVER]):
        print(f"\n== ansible-core {core}, Python {version[0]}.{version[1]}: {arguments[0]} ==", flush=True)
        ran[arguments[0]] = subprocess.run([python, "tools/lane.py", *arguments], cwd=ROOT, check=False).returncode == 0
    lanes = ", ".join(f"{lane} {'ok' if good else 'FAILED'}" for lane, good in ran.items())
    return Outcome(core, f"ran on Python {version[0]}.{version[1]}: {lanes}", ran)


def main() -> int:
    chosen = sys.argv[1:] or list(CORES)
    unknown = [core for core in chosen if core not in CORES]
    if unknown:
        print(f"cores: no {', '.join(unknown)}; there are {', '.join(CORES)}")
        return 2
    outcomes = [tested(core) for core in chosen]
    print("\n== summary ==")
    for outcome in outcomes:
        print(f"ansible-core {outcome.core}: {outcome.text}")
    left = [outcome.core for outcome in outcomes if not outcome.ran]
    if left:
        print(f"{len(outcomes) - len(left)} of {len(outcomes)} versions were tested; nothing is known here of {', '.join(left)}")
    return int(len(left) == len(outcomes) or any(outcome.failed for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
