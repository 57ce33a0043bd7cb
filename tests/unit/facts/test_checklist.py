# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The checklist beside this file: every line is there, and every test and row that it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from clusters_families import CLUSTERS
from contradictions import CASES

HERE = Path(__file__).parent
LINES = [line for line in (HERE / "CHECKLIST.md").read_text().splitlines() if re.match(r"\| \d+ \|", line)]
FOLDERS = {"unit": HERE, "apiserver": HERE.parents[1] / "apiserver"}
ROWS = {"test_recorded": CLUSTERS, "test_contradiction": CASES}


def named(line: str) -> list[tuple[str, str, str]]:
    """(lane, file, test) of everything that a line names; a lane holds until the next one."""
    found, lane = [], ""
    for word in re.finditer(r"(unit|apiserver)? ?`(test_\w+\.py)::(test_\w+)`", line):
        lane = word[1] or lane
        found.append((lane, word[2], word[3]))
    return found


@pytest.mark.parametrize("line", LINES, ids=[line.split("|")[1].strip() for line in LINES])
def test_what_is_named_exists(line: str) -> None:
    found = named(line)
    assert len(found) == line.count("::"), found
    for lane, file, test in found:
        tree = ast.parse((FOLDERS[lane] / file).read_text())
        assert test in {item.name for item in ast.walk(tree) if isinstance(item, ast.FunctionDef)}, (lane, file, test)
    shown = line.rsplit("|", 2)[1]
    for part in re.split(r"(?=`test_\w+\.py::)", shown):
        test = re.match(r"`test_\w+\.py::(test_\w+)`", part)
        for row in re.findall(r"\[([^\]]+)\]", part):
            assert test, part
            assert row in ROWS[test[1]], row


def test_no_line_is_missing() -> None:
    assert [int(line.split("|")[1]) for line in LINES] == [*range(1, 56)]
