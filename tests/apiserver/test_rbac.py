# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shipped roles are enough, and each of their writing rules is needed."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_site import Home

ROOT = Path(__file__).resolve().parents[2]
READ, WRITE = yaml.safe_load_all((ROOT / "docs" / "rbac.yml").read_text())


def account(server: Any, name: str, *roles: dict[str, Any]) -> Path:
    """A user with these cluster roles and nothing else."""
    for role in roles:
        own = copy.deepcopy(role)
        own["metadata"]["name"] = f"{name}-{role['metadata']['name']}"
        server.apply(
            own,
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": own["metadata"]["name"]},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": own["metadata"]["name"]},
                "subjects": [{"kind": "User", "name": name}],
            },
        )
    path: Path = server.user(name)
    return path


def without(role: dict[str, Any], resource: str, verb: str) -> dict[str, Any]:
    """The role without one verb on one resource."""
    less = copy.deepcopy(role)
    rules = []
    for rule in less["rules"]:
        if resource in rule["resources"] and verb in rule["verbs"]:
            rest = [name for name in rule["resources"] if name != resource]
            rules.append({**rule, "resources": [resource], "verbs": [name for name in rule["verbs"] if name != verb]})
            if rest:
                rules.append({**rule, "resources": rest})
        else:
            rules.append(rule)
    less["rules"] = [rule for rule in rules if rule["verbs"]]
    return less


def test_the_shipped_roles_are_enough(calico: Any, tmp_path: Path) -> None:
    home = Home(calico, tmp_path)
    kubeconfig = account(calico, f"runner-{os.getpid()}", READ, WRITE)
    variables = {**home.variables, "netguard_segmentation": True}
    for playbook in ("site", "remove"):
        play = calico.playbook(f"homelab.netguard.{playbook}", variables, kubeconfig=kubeconfig, folder=tmp_path)
        assert play.ok, play.output
    assert home.owned() == []


def test_reading_is_enough_for_facts(server: Any, tmp_path: Path) -> None:
    kubeconfig = account(server, f"reader-{os.getpid()}", READ)
    play = server.playbook("homelab.netguard.facts", {}, kubeconfig=kubeconfig, folder=tmp_path)
    assert play.ok, play.output
    facts = play.task("homelab.netguard.cluster_cidrs")["facts"]
    assert facts["cidrs"]["services"] == ["10.96.0.0/16"]
    assert "forbidden" not in facts["permissions"].values()


#: (resource, verb) of the writing role whose absence must be named
NAMED = [
    ("networkpolicies", "patch"),
    ("validatingadmissionpolicies", "create"),
    ("secrets", "create"),
    ("deployments", "patch"),
]


@pytest.mark.parametrize(("resource", "verb"), NAMED, ids=[f"{verb} {resource}" for resource, verb in NAMED])
def test_a_missing_right_is_named(server: Any, tmp_path: Path, resource: str, verb: str) -> None:
    home = Home(server, tmp_path)
    kubeconfig = account(server, f"less-{resource}-{verb}-{os.getpid()}", READ, without(WRITE, resource, verb))
    play = server.playbook("homelab.netguard.site", home.variables, kubeconfig=kubeconfig, folder=tmp_path)
    assert not play.ok
    assert resource in play.output
    assert verb in play.output
    home.play("remove")
