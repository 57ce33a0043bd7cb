# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The main job on this cluster from the installed artifact, twice, with nothing of the clone in sight."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import yaml

from ..cluster import artifact
from .field import FieldError, program


def main() -> int:
    variables = yaml.safe_load(Path(os.environ["NETGUARD_VARS"]).read_text())
    with tempfile.TemporaryDirectory(prefix="netguard-artifact-") as name:
        folder = Path(name)
        try:
            artifact.twice(Path(os.environ["KUBECONFIG"]), folder, artifact.install(folder), variables)
        except artifact.ArtifactError as error:
            raise FieldError(f"artifact: {error}") from error
    return 0


if __name__ == "__main__":
    program(main)
