# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds the collection's artifact, installs it into an empty folder and runs the main job from there, twice.

Nothing of the clone is in sight of these runs: `ansible-galaxy` installs the artifact into a folder of its own, and only
kubernetes.core comes from the environment. (Galaxy is not needed: the dependency is already there.)
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from .binaries import BuildError
from .control_plane import ControlPlane
from .demo import HOMELAB, OVERRIDES, ROOT, homelab

BIN = Path(sys.executable).parent


class ArtifactError(RuntimeError):
    """The artifact does not do what the clone does."""


def run(folder: Path, *command: str, **extra: str) -> str:
    """Runs a command in a folder without the clone's environment; its output. Raises ArtifactError with it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "K8S_AUTH_", "PYTHON"))}
    done = subprocess.run(
        command, cwd=folder, env={**kept, **extra}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise ArtifactError(f"{' '.join(command)} failed:\n{done.stdout[-6000:]}")
    return done.stdout


def install(folder: Path) -> Path:
    """Builds and installs; the collections folder."""
    run(ROOT, str(BIN / "ansible-galaxy"), "collection", "build", "--force", "--output-path", str(folder / "build"))
    (artifact,) = (folder / "build").glob("homelab-netguard-*.tar.gz")
    collections = folder / "collections"
    # --force: the clone in the environment has the same name and version, which would count as installed
    run(
        folder,
        str(BIN / "ansible-galaxy"),
        "collection",
        "install",
        "--force",
        "--no-deps",
        str(artifact),
        "--collections-path",
        str(collections),
    )
    installed = collections / "ansible_collections" / "homelab" / "netguard"
    for unwanted in ("tests", "tools", "Makefile", ".venv", ".ci"):
        if (installed / unwanted).exists():
            raise ArtifactError(f"the artifact holds {unwanted}, which is for developers (build_ignore in galaxy.yml)")
    # kubernetes.core as Galaxy would have put it beside; the environment's own folder would bring the clone back in sight
    (site,) = BIN.parent.glob("lib/python*/site-packages")
    (collections / "ansible_collections" / "kubernetes").symlink_to(site / "ansible_collections" / "kubernetes")
    return collections


def converge(kubeconfig: Path, folder: Path, collections: Path, variables: dict[str, Any]) -> int:
    """Runs site.yml from the installed artifact; number of changed tasks. Raises ArtifactError."""
    (folder / "homelab.yml").write_text(yaml.safe_dump(variables))
    output = run(
        folder,
        str(BIN / "ansible-playbook"),
        "-v",
        "homelab.netguard.site",
        "-e",
        "@homelab.yml",
        KUBECONFIG=str(kubeconfig),
        ANSIBLE_COLLECTIONS_PATH=str(collections),
        ANSIBLE_COLLECTIONS_SCAN_SYS_PATH="false",
        ANSIBLE_HOME=str(folder / "ansible"),
    )
    if str(ROOT) + os.sep in output.replace(str(BIN.parent), ""):
        raise ArtifactError(f"the run saw the clone:\n{output[-3000:]}")
    recap = re.search(r"changed=(\d+)", output)
    if recap is None:
        raise ArtifactError(f"no recap:\n{output[-3000:]}")
    return int(recap[1])


def twice(kubeconfig: Path, folder: Path, collections: Path, variables: dict[str, Any]) -> None:
    """The first run changes something, the second nothing. Raises ArtifactError."""
    for step, expected in (("first", True), ("second", False)):
        changed = converge(kubeconfig, folder, collections, variables)
        if (changed > 0) != expected:
            raise ArtifactError(f"the {step} run of site.yml from the artifact: changed={changed}")
        print(f"artifact: {step} run of homelab.netguard.site: changed={changed}", flush=True)


def main() -> int:
    try:
        with tempfile.TemporaryDirectory(prefix="netguard-artifact-") as name, ControlPlane() as plane:
            folder = Path(name)
            collections = install(folder)
            print("artifact: built and installed into an empty folder", flush=True)
            plane.nodes()
            plane.apply(*homelab())
            variables = {**yaml.safe_load(HOMELAB.read_text()), "netguard_overrides": OVERRIDES}
            twice(plane.kubeconfig, folder, collections, variables)
    except (ArtifactError, BuildError, RuntimeError) as error:
        print(f"artifact: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
