# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How soon a client is back after a gateway's outage of ten minutes: `make bench ARGS="outage 600"`.

The row is `test_long_outage` of the packet lane, which holds for ten seconds in each run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    seconds = arguments[0] if arguments else "600"
    lane = Path(__file__).resolve().parents[1] / "packets" / "run.py"
    command = [sys.executable, str(lane), "-q", "-k", "long_outage or (cilium and f1_before)"]
    return subprocess.run(command, env={**os.environ, "NETGUARD_OUTAGE": seconds}, check=False).returncode
