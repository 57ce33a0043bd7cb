# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every example is a topology without a fault."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible_collections.homelab.netguard.plugins.module_utils._topology.parse import parse

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = sorted((ROOT / "examples").glob("*/homelab.yml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_an_example_parses(path: Path) -> None:
    declared = yaml.safe_load(path.read_text())
    names = ("gateways", "apps", "platform", "namespaces")
    assert set(declared) <= {f"netguard_{name}" for name in (*names, "overrides", "credentials", "segmentation")}
    topology = parse("home", **{name: declared.get(f"netguard_{name}") for name in names})
    assert topology.apps


def test_there_are_examples() -> None:
    assert {path.parent.name for path in EXAMPLES} >= {"quickstart", "seed-003", "seed-004"}
