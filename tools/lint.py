# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The quality gate (`make lint`): every check runs, also after a failure; the table at the end says which failed.

Nothing here needs the network. Checks named as arguments run alone: `make lint ARGS="ruff mypy"`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
COLLECTION = "ansible_collections/homelab/netguard"
PACKAGE = "ansible_collections.homelab.netguard"
PYTHON = sys.executable


def environment(**extra: str) -> dict[str, str]:
    """The caller's environment, our tools first, no Ansible configuration of the caller's."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    kept["PATH"] = f"{BIN}{os.pathsep}{kept.get('PATH', os.defpath)}"
    return {**kept, **extra}


def run(*command: str, cwd: Path = ROOT, **extra: str) -> bool:
    """Runs a command; prints what it said when it failed."""
    done = subprocess.run(
        command, cwd=cwd, env=environment(**extra), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        print(done.stdout.rstrip())
    return done.returncode == 0


def tracked(*patterns: str) -> list[Path]:
    """The project's own files that match, whether or not git is there."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return [ROOT / name for name in done.stdout.splitlines() if (ROOT / name).is_file()]
    skipped = {".venv", "build", ".git", ".ansible", ".cache", "collections"}
    return [
        path
        for pattern in patterns
        for path in ROOT.rglob(pattern)
        if path.is_file() and not skipped & set(path.relative_to(ROOT).parts)
    ]


def site_packages() -> Path:
    """Where the environment's packages are, kubernetes.core among them."""
    return Path(sysconfig.get_paths()["purelib"])


def ruff() -> bool:
    # both always run: one answer tells all
    return all([run("ruff", "check", "--quiet", "."), run("ruff", "format", "--check", "--quiet", ".")])


def yamllint() -> bool:
    return run("yamllint", "--strict", ".")


def mypy() -> bool:
    """Plugins, tools and the test bed, strictly; through a tree of links that gives the collection its real module names."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / COLLECTION
        target.parent.mkdir(parents=True)
        target.symlink_to(ROOT, target_is_directory=True)
        packages = [
            f"{PACKAGE}.{part}" for part in ("plugins", "tests.cluster") if any((ROOT / part.replace(".", "/")).rglob("*.py"))
        ]
        arguments = [word for package in packages for word in ("--package", package)]
        common = ["mypy", "--config-file", str(ROOT / "pyproject.toml"), "--no-error-summary"]
        collection = run(*common, "--cache-dir", str(ROOT / ".mypy_cache"), *arguments, cwd=Path(folder), MYPYPATH=folder)
        tools = run(*common, "--cache-dir", str(ROOT / ".mypy_cache" / "tools"), *map(str, tracked("tools/*.py")), MYPYPATH=folder)
        return collection and tools


def ansible_lint() -> bool:
    # offline: content of other collections resolves from site-packages
    return run("ansible-lint", "--offline", "-q", "--nocolor", ANSIBLE_HOME=str(ROOT / ".ansible"))


def shellcheck() -> bool:
    """Shell files as they are, and the scripts that the overlay ships as Python constants."""
    shells = [path for path in tracked(".ci/*", "*.sh", "molecule/**", "tests/**") if is_shell(path)]
    good = all(run("shellcheck", "--external-sources", str(path)) for path in shells)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in overlay_scripts().items():
            path = Path(folder) / name
            path.write_text(text)
            # the scripts read each other and the settings files: names that cross files look unused or misspelt in one of them
            options = ["--exclude=SC2034,SC2153", *([] if text.startswith("#!") else ["--shell=sh"])]
            good = run("shellcheck", *options, str(path)) and good
    return good


def is_shell(path: Path) -> bool:
    if path.suffix == ".sh":
        return True
    with path.open("rb") as file:
        first = file.readline(80)
    return first.startswith(b"#!") and any(shell in first for shell in (b"/sh", b"bash", b"dash", b" sh"))


def overlay_scripts() -> dict[str, str]:
    """File name -> text of the scripts that run inside pods; empty while there are none."""
    if (
        not (ROOT / "plugins/module_utils/_overlay/scripts.py").exists()
        and not (ROOT / "plugins/module_utils/_overlay/scripts").exists()
    ):
        return {}
    from ansible_collections.homelab.netguard.plugins.module_utils._overlay import scripts

    merged: dict[str, str] = {}
    for name in ("CLIENT_SCRIPTS", "GATEWAY_SCRIPTS"):
        side = name.split("_", maxsplit=1)[0].lower()
        merged |= {f"{side}-{file}": text for file, text in getattr(scripts, name, {}).items() if is_script(file, text)}
    return merged


def is_script(file: str, text: str) -> bool:
    """Whether an overlay file is a shell script (others are configuration)."""
    return file.endswith(".sh") or text.startswith("#!")


def documentation() -> bool:
    """Documentation of plugins and roles.

    antsibull-docs copies what git tracks; a git of a folder above would make it skip everything that is ignored there,
    and with the clone's own .venv in sight it may take the collections of the wrong one. A copy without git and without
    .venv, in a folder that git does not look above, gives the same answer in any clone.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / COLLECTION
        for path in tracked("*"):
            target = copy / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
        others = Path(folder) / "ansible_collections" / "kubernetes"
        others.symlink_to(site_packages() / "ansible_collections" / "kubernetes", target_is_directory=True)
        return run(
            "antsibull-docs",
            "lint-collection-docs",
            "--plugin-docs",
            "--skip-rstcheck",
            ".",
            cwd=copy,
            # kubernetes.core is in .venv, which git ignores: git must not see it as part of the clone
            GIT_CEILING_DIRECTORIES=os.pathsep.join([folder, str(BIN.parent.resolve())]),
            ANSIBLE_COLLECTIONS_PATH=folder,
        )


def changelog() -> bool:
    return run("antsibull-changelog", "lint")


def generated() -> bool:
    """What is generated is up to date: the topology's pages, and what all writers return."""
    return all([run(PYTHON, "tools/topology_docs.py", "--check"), run(PYTHON, "tools/return_docs.py", "--check")])


def house() -> bool:
    """The project's own rules that no other tool knows."""
    return run(PYTHON, "tools/house.py")


CHECKS: dict[str, Callable[[], bool]] = {
    "ruff": ruff,
    "yamllint": yamllint,
    "house": house,
    "generated": generated,
    "shellcheck": shellcheck,
    "changelog": changelog,
    "mypy": mypy,
    "documentation": documentation,
    "ansible-lint": ansible_lint,
}


def main() -> int:
    chosen = sys.argv[1:] or list(CHECKS)
    unknown = [name for name in chosen if name not in CHECKS]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are: {', '.join(CHECKS)}")
        return 2
    results = []
    for name in chosen:
        started = time.monotonic()
        good = CHECKS[name]()
        results.append((name, good))
        print(f"lint: {name:<14} {'ok' if good else 'FAILED'} ({time.monotonic() - started:.0f} s)", flush=True)
    failed = [name for name, good in results if not good]
    print(
        f"lint: {len(results) - len(failed)} of {len(results)} clean" + (f"; failed: {', '.join(failed)}" if failed else ""),
        flush=True,
    )
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
