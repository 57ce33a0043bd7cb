# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table that a run leaves: printed, and written into docs/packets.md with NETGUARD_EVIDENCE=1."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .home import Seen

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "packets.md"
BEGIN, END = "<!-- evidence: written by the packet tests -->", "<!-- end of evidence -->"


def version(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return "absent"
    return (done.stdout + done.stderr).strip().splitlines()[0].strip() if (done.stdout + done.stderr).strip() else "?"


class Evidence:
    def __init__(self) -> None:
        self.rows: list[tuple[str, ...]] = []
        self.measures: list[tuple[str, str, str]] = []
        self.started = time.monotonic()

    def add(self, row: str, where: str, state: str, seen: Seen, *, block: float | None = None, recover: float | None = None,
            note: str = "") -> None:  # fmt: skip
        self.rows.append(
            (
                row,
                where,
                state,
                str(seen.sent),
                str(seen.captured),
                str(seen.counted),
                str(seen.flows),
                str(seen.asked),
                str(seen.by_vpn),
                "" if block is None else f"{block:.2f} s",
                "" if recover is None else f"{recover:.2f} s",
                note,
            )
        )

    def measure(self, what: str, where: str, value: str) -> None:
        self.measures.append((what, where, value))

    def target(self, what: str, where: str, seconds: float, target: float, *, generous: float, note: str = "") -> None:
        """A time against its target. On a machine that is busy with other things only the generous bound is a claim; evidence
        that is written down holds the target itself."""
        value = f"{seconds:.2f} s (target: under {target:g} s{'; ' if note else ''}{note})"
        self.measure(what, where, value)
        bound = target if os.environ.get("NETGUARD_EVIDENCE") == "1" else generous
        assert seconds < bound, f"{what}: {value}"

    def text(self) -> str:
        head = (
            *("row", "layout, shell", "state", "probes", "outside the tunnel", "by counters", "flows", "names outside"),
            *("through the VPN", "blocked after", "back after", "note"),
        )
        lines = [" | ".join(head), "|".join("---" for _column in head), *(" | ".join(row) for row in self.rows)]
        table = "\n".join(f"| {line} |" if "---" not in line else f"|{line}|" for line in lines)
        versions = [
            f"Linux {platform.release().split('-')[0]}",
            version("iptables", "--version"),
            version("nft", "--version"),
            version("ip", "-V"),
            version("busybox"),
            version("dnsmasq", "--version"),
            version("openvpn", "--version"),
        ]
        measures = "\n".join(f"| {what} | {where} | {value} |" for what, where, value in self.measures)
        return (
            f"{BEGIN}\n\n{table}\n\n| measured | layout, shell | value |\n|---|---|---|\n{measures}\n\n"
            f"Written by a run of {time.monotonic() - self.started:.0f} s on {os.cpu_count()} processors with "
            + "; ".join(versions)
            + f".\n\n{END}"
        )

    def keep(self, path: Path) -> None:
        """For the program that started this run: it puts the parts together."""
        path.write_text(json.dumps({"rows": self.rows, "measures": self.measures}))

    def take(self, path: Path) -> None:
        kept = json.loads(path.read_text())
        self.rows += [tuple(row) for row in kept["rows"]]
        self.measures += [tuple(item) for item in kept["measures"]]

    def write(self, good: bool) -> None:
        text = self.text()
        print("\n" + text)
        if not good or os.environ.get("NETGUARD_EVIDENCE") != "1":
            return
        before, _mark, rest = DOCUMENT.read_text().partition(BEGIN)
        DOCUMENT.write_text(before + text + rest.partition(END)[2])
