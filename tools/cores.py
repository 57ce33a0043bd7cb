#!/usr/bin/env python3
# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The unit lane, and a part of the API server lane, on other ansible-core versions (`make cores`).

Each version gets an environment of its own in the cache, where a Python that it runs on is there; others are named and left.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: ansible-core -> (the `ansible` package that carries kubernetes.core for it, oldest Python)
CORES = {"2.19": ("ansible==12.3.0", (3, 11)), "2.20": ("ansible>=13.0.0,<14", (3, 12)), "2.21": ("ansible>=14.0.0,<15", (3, 12))}
APISERVER = ["tests/apiserver", "-k", "first or second or removal"]


def usable(command: str) -> bool:
    """Whether this is a Python that can make environments."""
    path = shutil.which(command)
    return (
        path is not None and not subprocess.run([path, "-c", "import venv, ensurepip"], capture_output=True, check=False).returncode
    )


def pythons() -> list[tuple[tuple[int, int], str]]:
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


def main() -> int:
    chosen = sys.argv[1:] or list(CORES)
    outcome = []
    for core in chosen:
        package, oldest = CORES[core]
        candidates = [place for version, place in pythons() if version >= oldest and (core != "2.19" or version <= (3, 13))]
        if not candidates:
            outcome.append((core, f"left out: no Python {oldest[0]}.{oldest[1]} or newer here"))
            continue
        python = str(environment(core, package, candidates[0]) / "bin" / "python")
        good = True
        for arguments in (["unit"], ["apiserver", *APISERVER]):
            print(f"\n== ansible-core {core}: {arguments[0]} ==", flush=True)
            good = subprocess.run([python, "tools/lane.py", *arguments], cwd=ROOT, check=False).returncode == 0 and good
        outcome.append((core, "ok" if good else "FAILED"))
    print()
    for core, text in outcome:
        print(f"ansible-core {core}: {text}")
    return int(any(text == "FAILED" for _core, text in outcome))


if __name__ == "__main__":
    sys.exit(main())
