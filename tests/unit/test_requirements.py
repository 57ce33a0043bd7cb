# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host lacks is said by name: modules run where the play says, with the Python that is there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

MODULES = sorted(path.stem for path in (Path(__file__).parents[2] / "plugins" / "modules").glob("[a-z]*.py"))
PROGRAM = """
import json, runpy, sys
sys.modules[{missing!r}] = None
from ansible.module_utils import basic
basic._ANSIBLE_ARGS = json.dumps({{"ANSIBLE_MODULE_ARGS": {arguments!r}}}).encode()
basic._ANSIBLE_PROFILE = "legacy"
runpy.run_module("ansible_collections.homelab.netguard.plugins.modules.{module}", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("missing", "named"),
    [("yaml", "PyYAML"), ("ansible_collections.kubernetes.core", "kubernetes.core"), ("kubernetes", "kubernetes")],
)
@pytest.mark.parametrize("module", MODULES)
def test_what_is_missing_is_named(module: str, missing: str, named: str) -> None:
    program = PROGRAM.format(missing=missing, module=module, arguments={"instance": "home"})
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    result = json.loads(done.stdout or "{}")
    assert result.get("failed"), done.stderr
    assert named in result["msg"], result
    assert "Traceback" not in done.stderr
