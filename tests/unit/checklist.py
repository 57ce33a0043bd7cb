# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checklists (CHECKLIST.md): tables of what is promised and of the tests that show it."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
_TEST = r"`((?:\w+/)?test_\w+\.py)::(test_\w+)`"


def lines(path: Path) -> dict[int, str]:
    """By number: the rows of a checklist's tables. Raises ValueError when a number stands twice."""
    found: dict[int, str] = {}
    for line in path.read_text().splitlines():
        start = re.match(r"\| (\d+) \|", line)
        if start:
            if int(start[1]) in found:
                raise ValueError(f"{path}: {start[1]} stands twice")
            found[int(start[1])] = line
    return found


def faults(line: str, unit: Path, tables: Mapping[str, Collection[str]]) -> list[str]:
    """What a line names and what does not exist: tests, and rows (in brackets behind a test) of the `tables` of tests.

    A lane (`unit`, below the folder `unit`, `apiserver` or `packets`) holds until the next one. A line without any test is a fault
    too.
    """
    folders = {"unit": unit, "apiserver": TESTS / "apiserver", "packets": TESTS / "packets"}
    shown = line.rsplit("|", 2)[1]
    missing, lane, test = [], "", ""
    for word in re.finditer(rf"(unit|apiserver|packets)? ?{_TEST}|\[([^\]]+)\]", shown):
        if word[4] is not None:
            if word[4] not in tables.get(test, ()):
                missing.append(f"{test} has no row [{word[4]}]")
            continue
        lane, test = word[1] or lane, word[3]
        if test not in _functions(folders[lane] / word[2]):
            missing.append(f"{lane} {word[2]} has no {test}")
    return missing if test else ["names no test"]


def _functions(path: Path) -> set[str]:
    if not path.exists():
        return set()
    return {item.name for item in ast.walk(ast.parse(path.read_text())) if isinstance(item, ast.FunctionDef)}
