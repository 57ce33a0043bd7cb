# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scenario `faults`: every row of the leak matrix on real pods. `control` writes the positive control alone, names choose rows,
`--scenario=NAME` says whose table it is.

Each row begins connected, breaks something, and mends it. A row that fails is told at the end, and the others still run.
"""

from __future__ import annotations

import argparse
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from ..cluster import images
from . import accidents, faults_cluster, faults_gateway, faults_pod, sensors
from .field import FieldError, fault, program
from .rows import Table, connected, write

ROWS: tuple[tuple[str, Callable[[Table], None]], ...] = (
    *faults_gateway.ROWS,
    *faults_pod.ROWS,
    *accidents.ROWS,
    *faults_cluster.ROWS,
)


def run_rows(rows: tuple[tuple[str, Callable[[Table], None]], ...], table: Table) -> None:
    """Runs each row; what goes wrong is noted, mended, and the next one begins connected again, or all ends."""
    for name, row in rows:
        before = "not begun, nor any row behind it: "
        try:
            connected()
            before = ""
            row(table)
        except (FieldError, images.ImageError) as error:
            table.faults.append(f"{name}: {before}{error}")
            fault(f"{name}: {before}{error}\n{traceback.format_exc(limit=-3)}")
            if before:
                table.leave(name)
                return
            faults_gateway.mend()


def main() -> int:
    arguments = argparse.ArgumentParser(description="rows of the leak matrix")
    arguments.add_argument("--scenario", default="faults")
    arguments.add_argument("rows", nargs="*", help=" ".join(["control", *(name for name, _row in ROWS)]))
    chosen = arguments.parse_args()
    unknown = set(chosen.rows) - {"control", *(name for name, _row in ROWS)}
    if unknown:
        arguments.error(f"no row {', '.join(sorted(unknown))}")
    table = Table(Path(os.environ.get("NETGUARD_TABLES", "build/molecule")) / chosen.scenario / "rows.json")
    begun = time.monotonic()
    if chosen.rows == ["control"]:
        faults_pod.control(table)
    else:
        sensors.armed()
        faults_gateway.mend()
        run_rows(tuple(row for row in ROWS if not chosen.rows or row[0] in chosen.rows), table)
    code = write(table)
    print(f"{len(table.evidence.rows)} rows, {len(table.faults)} faults, {time.monotonic() - begun:.0f} s", flush=True)
    return code


if __name__ == "__main__":
    program(main)
