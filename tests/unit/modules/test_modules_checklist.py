# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The checklist beside this file: every line is there, and every test and row that it names exists."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.homelab.netguard.tests.unit import checklist

HERE = Path(__file__).parent
LINES = checklist.lines(HERE / "CHECKLIST.md")


@pytest.mark.parametrize("number", LINES)
def test_the_modules_checklist_names_what_exists(number: int) -> None:
    assert checklist.faults(LINES[number], HERE.parent, {}) == []


def test_the_modules_checklist_is_whole() -> None:
    assert [*LINES] == [*range(1, 24)]
