# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes a virtual environment with everything and links this clone into it (`make setup`).

The link (site-packages/ansible_collections/homelab/netguard -> the clone) lets `homelab.netguard.*` resolve from
any folder without an ansible.cfg, which would replace the user's own. What pip downloaded is kept in
~/.cache/homelab-netguard/wheels, so a second clone, or one without network, installs from there.

Standard library alone: this runs before anything is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "tools" / "requirements.txt"
OLDEST = (3, 11)
CANDIDATES = ("python3", "python3.13", "python3.12", "python3.11", "python3.14")
PROBE = "import sys, venv, ensurepip, ssl; print('%d.%d' % sys.version_info[:2])"


def say(text: str) -> None:
    """One line of progress."""
    print(f"setup: {text}", flush=True)


def cache() -> Path:
    """The project's cache folder, outside the clone (XDG)."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "homelab-netguard"


def probe(command: str) -> tuple[int, int] | None:
    """The version of a Python that can make virtual environments, None when it cannot."""
    path = shutil.which(command)
    if path is None:
        return None
    done = subprocess.run([path, "-c", PROBE], capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        return None
    major, minor = done.stdout.strip().split(".")
    return int(major), int(minor)


def python(wanted: str | None) -> tuple[str, tuple[int, int]]:
    """The Python to use: the wanted one, else the first candidate that is new enough and has venv and ensurepip."""
    for command in [wanted] if wanted else CANDIDATES:
        version = probe(command)
        if version and version >= OLDEST:
            return command, version
    named = wanted or ", ".join(CANDIDATES)
    raise SystemExit(
        f"setup: no usable Python among: {named}. Python {OLDEST[0]}.{OLDEST[1]} or newer with venv and ensurepip is needed "
        "(on Debian and Ubuntu: apt install python3 python3-venv). Choose one with: make setup PYTHON=/path/to/python3"
    )


def run(*command: str) -> None:
    """Runs a command; its output appears only when it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        print(done.stdout[-4000:])
        raise SystemExit(f"setup: this failed (exit {done.returncode}): {' '.join(command)}")


def install(pip: list[str], requirements: Path, wheels: Path) -> None:
    """Installs from the wheel cache; fills it first where it does not hold exactly these requirements."""
    complete = wheels / "complete"
    if not complete.exists():
        say("downloading packages (once; kept in the cache)")
        wheels.mkdir(parents=True, exist_ok=True)
        run(*pip, "download", "--quiet", "--dest", str(wheels), "--requirement", str(requirements))
        complete.touch()
    say("installing packages")
    # without byte-compiling: `ansible` brings 20 000 files of which we import a few
    offline = ["--no-index", "--find-links", str(wheels)]
    run(*pip, "install", "--quiet", "--no-compile", "--upgrade", *offline, "--requirement", str(requirements))


def link(venv: Path) -> Path:
    """Links the clone into the environment's site-packages."""
    (site,) = venv.glob("lib/python*/site-packages")
    target = site / "ansible_collections" / "homelab" / "netguard"
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink() or target.exists():
        target.unlink()
    target.symlink_to(ROOT, target_is_directory=True)
    return target


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="the environment's folder (default: .venv)")
    parser.add_argument("--python", help="the Python to use (default: the first usable python3)")
    parser.add_argument("--requirements", type=Path, default=REQUIREMENTS, help="another list of requirements")
    parser.add_argument("--upgrade", action="store_true", help="download the newest versions that the list allows")
    options = parser.parse_args()

    started = time.monotonic()
    venv: Path = options.venv
    command, version = python(options.python or None)
    digest = hashlib.sha256(f"{version} {options.requirements.read_text()}".encode()).hexdigest()[:16]
    stamp = venv / "netguard-setup"
    if stamp.exists() and stamp.read_text() == digest and not options.upgrade and (venv / "bin" / "python").exists():
        link(venv)
        stamp.touch()
        return 0
    say(f"Python {version[0]}.{version[1]} ({command}) -> {venv}")
    if venv.exists():
        shutil.rmtree(venv)
    run(command, "-m", "venv", str(venv))
    wheels = cache() / "wheels" / digest
    if options.upgrade:
        shutil.rmtree(wheels, ignore_errors=True)
    install([str(venv / "bin" / "python"), "-m", "pip"], options.requirements, wheels)
    link(venv)
    stamp.write_text(digest)
    say(f"done in {time.monotonic() - started:.0f} s; run things with .venv/bin/ansible-playbook")
    return 0


if __name__ == "__main__":
    sys.exit(main())
