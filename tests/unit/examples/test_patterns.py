# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The checklist beside this file: every pattern is there, and every test and row that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.homelab.netguard.tests.unit import checklist
from test_examples_audited import ERRORS
from test_killswitches_by_hand import ROWS

HERE = Path(__file__).parent
LINES = checklist.lines(HERE / "CHECKLIST.md")
TABLES = {"test_an_error_made_by_hand_is_found": ERRORS, "test_a_kill_switch_by_hand": ROWS}
PATTERNS = [f"{letter}{number}" for letter, last in (("K", 4), ("S", 16), ("T", 15)) for number in range(1, last + 1)]


@pytest.mark.parametrize("number", LINES)
def test_a_pattern_names_what_exists(number: int) -> None:
    assert checklist.faults(LINES[number], HERE.parent, TABLES) == []


def test_every_pattern_is_there_and_every_row_stands_in_its_line() -> None:
    assert [re.split(r"[| ]+", line)[2] for line in LINES.values()] == PATTERNS
    for row in (*ERRORS, *ROWS):
        place = PATTERNS.index(row.split()[0])
        assert f"[{row}]" in LINES[place + 1], row
