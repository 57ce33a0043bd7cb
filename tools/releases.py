# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The API server lane on the oldest and the newest Kubernetes that we support (`make releases`).

Arguments that are releases choose among them; all others go to pytest. Each release's servers are built once, minutes when cold.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ansible_collections.homelab.netguard.tests.cluster import binaries

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    chosen = [argument for argument in sys.argv[1:] if argument in binaries.RELEASES] or list(binaries.RELEASES)
    options = [argument for argument in sys.argv[1:] if argument not in binaries.RELEASES]
    passed = {}
    for release in chosen:
        print(f"\n== Kubernetes {binaries.RELEASES[release]} ==", flush=True)
        environment = {**os.environ, binaries.RELEASE_VARIABLE: release}
        command = [sys.executable, "tools/lane.py", "apiserver", *options]
        passed[release] = not subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    print("\n== summary ==")
    for release, ok in passed.items():
        print(f"Kubernetes {binaries.RELEASES[release]}: {'ok' if ok else 'FAILED'}")
    return int(not all(passed.values()))


if __name__ == "__main__":
    sys.exit(main())
