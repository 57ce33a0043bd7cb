# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The checklist beside this file: every line is there, and every test and row that it names exists."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.homelab.netguard.tests.unit import checklist
from test_gluetun_faults import BAD, GOOD

HERE = Path(__file__).parent
LINES = checklist.lines(HERE / "CHECKLIST.md")
TABLES = {"test_bad_input_is_refused_with_its_path": BAD, "test_good_input_is_accepted": GOOD}


@pytest.mark.parametrize("number", LINES)
def test_the_gateway_s_checklist_names_what_exists(number: int) -> None:
    assert checklist.faults(LINES[number], HERE.parent, TABLES) == []


def test_the_gateway_s_checklist_is_whole() -> None:
    assert [*LINES] == [*range(1, len(LINES) + 1)]
    assert len(LINES) >= 80
    text = (HERE / "CHECKLIST.md").read_text()
    generated = ("1 moving tag ", "14 old name ", "14 gone: ", "14 set by us: ")
    missing = [name for name in BAD if name[0].isdigit() and not name.startswith(generated) and f"[{name}]" not in text]
    assert missing == [], "a row that belongs to a group stands in its line"
