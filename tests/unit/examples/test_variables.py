# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Variables of roles: each is specified, passed on, and documented, and none is more than one of these."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
NAMES = re.compile(rf"\b(?:netguard|{'|'.join(ROLES)})_[a-z_]+\b")
MODULES = {path.stem for path in (ROOT / "plugins" / "modules").glob("*.py")}
#: Registered by the roles themselves.
RESULTS = {f"{role}_result" for role in ROLES} | {"verify_clients_result", "cluster_facts_nodes", "cluster_facts_lan"}


def specified(role: str) -> set[str]:
    spec = yaml.safe_load((ROOT / "roles" / role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    return {name for entry in spec.values() for name in entry["options"]}


@pytest.mark.parametrize("role", ROLES)
def test_a_role_uses_what_it_specifies_and_nothing_else(role: str) -> None:
    text = "".join(path.read_text() for path in (ROOT / "roles" / role / "tasks").glob("*.yml"))
    assert set(NAMES.findall(text)) - RESULTS - MODULES - set(ROLES) == specified(role)


def test_the_page_has_every_variable_and_no_other() -> None:
    page = (ROOT / "docs" / "variables.md").read_text()
    named = {name for name in re.findall(r"`([a-z_]+)`", page) if NAMES.fullmatch(name)}
    assert named == {name for role in ROLES for name in specified(role)} | {"netguard_segmentation"}
