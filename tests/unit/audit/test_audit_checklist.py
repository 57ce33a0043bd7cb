# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The checklist beside this file: every line is there, and every test and row that it names exists."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.homelab.netguard.tests.unit import checklist
from test_findings import CASES
from test_load import TEXTS
from test_semantics import REFUSED, ROWS

HERE = Path(__file__).parent
LINES = checklist.lines(HERE / "CHECKLIST.md")
TABLES = {
    "test_semantics": ROWS,
    "test_what_an_api_server_refuses_is_a_problem": REFUSED,
    "test_a_finding": CASES,
    "test_a_text_is_a_finding": TEXTS,
}


@pytest.mark.parametrize("number", LINES)
def test_the_audit_s_checklist_names_what_exists(number: int) -> None:
    assert checklist.faults(LINES[number], HERE.parent, TABLES) == []


def test_the_audit_s_checklist_is_whole() -> None:
    assert [*LINES] == [*range(1, 33)]
    numbered = {name for name in (*ROWS, *REFUSED) if name[0].isdigit()}
    text = (HERE / "CHECKLIST.md").read_text()
    assert not [name for name in numbered if f"[{name}]" not in text], "a row that is numbered stands in its line"


def test_a_line_that_names_nothing_is_seen() -> None:
    gone = "| 1 | x | unit `audit/test_load.py::test_gone`; `audit/test_findings.py::test_a_finding` [no such row] |"
    assert len(checklist.faults(gone, HERE.parent, TABLES)) == 2
    assert checklist.faults("| 1 | x | later |", HERE.parent, TABLES) == ["names no test"]
