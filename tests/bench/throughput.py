# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way through the overlay against the gateway's own tunnel: `make bench ARGS="throughput 30"` (turns of a second each).

The row is `test_throughput` of the packet lane, run alone. As fast as the processors go, userspace WireGuard shares them with
whatever the client's way adds, so that ratio is the lab's worst case; behind a home's line it is the owner's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    turns = arguments[0] if arguments else "30"
    lane = Path(__file__).resolve().parents[1] / "packets" / "run.py"
    command = [sys.executable, str(lane), "-q", "-s", "-k", "throughput"]
    return subprocess.run(command, env={**os.environ, "NETGUARD_TURNS": turns}, check=False).returncode
