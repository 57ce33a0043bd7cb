# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The checklists whose lines name no rows of tables: every line is there, and every test that it names exists."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.homelab.netguard.tests.unit import checklist

HERE = Path(__file__).parent
#: Folder of the checklist -> how many lines it has.
WHOLE = {"killswitch": 49, "modules": 23}
LINES = {(folder, number): line for folder in WHOLE for number, line in checklist.lines(HERE / folder / "CHECKLIST.md").items()}


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line[0]} {line[1]}")
def test_a_checklist_names_what_exists(line: tuple[str, int]) -> None:
    assert checklist.faults(LINES[line], HERE, {}) == []


def test_the_checklists_are_whole() -> None:
    assert [*LINES] == [(folder, number) for folder, last in WHOLE.items() for number in range(1, last + 1)]
