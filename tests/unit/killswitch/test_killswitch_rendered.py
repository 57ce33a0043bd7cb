# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rendering asks no cluster: files are the same for the same input, and policies come with the admission beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.homelab.netguard.plugins.module_utils._errors import FaultsError
from ansible_collections.homelab.netguard.plugins.module_utils._module import Context
from ansible_collections.homelab.netguard.plugins.module_utils._operations import killswitch
from killswitch_shapes import QBIT, deployment, topology

FACTS: dict[str, Any] = {
    "cidrs": {"pods": ["10.244.0.0/16"], "services": ["10.96.0.0/16"]},
    "server": {"version": "v1.34.4"},
    "cni": {
        "name": "calico",
        "enforces_network_policy": True,
        "translates_kernel_packets": True,
        "policy_apis": ["crd.projectcalico.org/v1"],
    },
}


def render(folder: Path, app: dict[str, Any], **params: Any) -> dict[str, Any]:
    options = {"state": "rendered", "dest": str(folder), "facts": FACTS, "dialect": "auto"} | params
    return killswitch.operation(Context(options, False, topology(app), None))


def test_every_object_is_a_file_and_a_second_run_changes_none(tmp_path: Path) -> None:
    result = render(tmp_path, QBIT | {"pods": {"app": "qbit"}})
    written = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*.yaml")}
    kinds = sorted(yaml.safe_load(content)["kind"] for content in written.values())
    assert (
        kinds
        == ["GlobalNetworkPolicy", "NetworkPolicy"] + ["ValidatingAdmissionPolicy"] * 2 + ["ValidatingAdmissionPolicyBinding"] * 3
    )
    assert result["changed"]
    assert render(tmp_path, QBIT | {"pods": {"app": "qbit"}})["changed"] is False
    assert written == {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*.yaml")}


def test_the_workloads_own_manifest_stands_for_pods(tmp_path: Path) -> None:
    render(tmp_path, QBIT, live=[deployment("qbit", labels={"its": "own"})])
    (policy,) = [
        found for path in tmp_path.rglob("*.yaml") if (found := yaml.safe_load(path.read_text()))["kind"] == "NetworkPolicy"
    ]
    assert policy["spec"]["podSelector"] == {"matchLabels": {"its": "own"}}


def test_without_pods_or_manifest_rendering_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FaultsError, match=r"apps\[0\].pods"):
        render(tmp_path, QBIT)
