# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The modules of site.yml and remove.yml in their order, in one process: for tests that need very many runs.

`python site_modules.py present variables.json` runs them as a program of its own, which may be killed.
"""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

from ansible.module_utils.testing import patch_module_args
from ansible_collections.homelab.netguard.plugins.modules import (
    cluster_cidrs,
    killswitch_policy,
    segmentation_policy,
    vpn_client_inject,
    vpn_gateway,
)


def call(module: Any, variables: dict[str, Any], **options: Any) -> dict[str, Any]:
    """A module as Ansible calls it. `variables`: those of the playbooks, and `kubeconfig`. Raises AssertionError if it fails."""
    given = {name.removeprefix("netguard_"): value for name, value in variables.items()}
    arguments = {**{name: given[name] for name in ("kubeconfig", "instance", "gateways", "apps")}, **options}
    output = io.StringIO()
    with patch_module_args(arguments), redirect_stdout(output), suppress(SystemExit):
        module.main()
    result: dict[str, Any] = json.loads(output.getvalue().strip().splitlines()[-1])
    if result.get("failed"):
        raise AssertionError(result["msg"])
    return result


def run(variables: dict[str, Any], state: str = "present") -> bool:
    """What site.yml (present) or remove.yml (absent) does; whether anything was changed."""
    if state == "absent":
        modules = (segmentation_policy, vpn_client_inject, killswitch_policy, vpn_gateway)
        results = [call(module, variables, state=state) for module in modules]
        return any(result["changed"] for result in results)
    facts = call(cluster_cidrs, variables, overrides=variables["netguard_overrides"])["facts"]
    patience = variables["netguard_wait_timeout"]
    results = [
        call(killswitch_policy, variables, facts=facts, clients="closed"),
        call(vpn_gateway, variables, facts=facts, credentials=variables["netguard_credentials"], wait_timeout=patience),
        call(killswitch_policy, variables, facts=facts),
        call(vpn_client_inject, variables, facts=facts, wait_timeout=patience),
    ]
    return any(result["changed"] for result in results)


if __name__ == "__main__":
    run(json.loads(Path(sys.argv[2]).read_text()), sys.argv[1])
