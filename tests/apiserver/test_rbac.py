# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shipped roles are enough, and each of their writing rules is needed."""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path
from typing import Any

import pytest
import site_modules
import yaml
from test_facts import GROWING
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
    # the dry runs of an empty cluster, too: the server asks for more rights where it finds no policy for a binding
    for playbook, *words in (("site", "--check"), ("site",), ("site", "--check"), ("remove",)):
        play = calico.playbook(f"homelab.netguard.{playbook}", variables, *words, kubeconfig=kubeconfig, folder=tmp_path)
        assert play.ok, play.output
    assert home.owned() == []


def test_reading_is_enough_for_facts(server: Any, tmp_path: Path) -> None:
    kubeconfig = account(server, f"reader-{os.getpid()}", READ)
    play = server.playbook("homelab.netguard.facts", {}, kubeconfig=kubeconfig, folder=tmp_path)
    assert play.ok, play.output
    facts = play.task("homelab.netguard.cluster_cidrs")["facts"]
    # an older server tells the range to nobody but who may try to create a Service
    assert facts["cidrs"]["services"] == (["10.96.0.0/16"] if GROWING else [])
    forbidden = {name for name, answer in facts["permissions"].items() if answer == "forbidden"}
    assert forbidden == (set() if GROWING else {"dry run of a Service, IPv4", "dry run of a Service, IPv6"})


ADMISSION = "admissionregistration.k8s.io"
#: (group, resource, verb): what a first run needs, and what a removal needs, beside reading.
CONVERGE = [
    *[("", resource, verb) for resource in ("namespaces", "secrets", "configmaps", "services") for verb in ("create", "patch")],
    ("", "pods", "create"),
    ("apps", "deployments", "create"),
    ("apps", "deployments", "patch"),
    ("apps", "statefulsets", "patch"),
    ("networking.k8s.io", "networkpolicies", "create"),
    ("networking.k8s.io", "networkpolicies", "patch"),
    *[
        (ADMISSION, resource, verb)
        for resource in ("validatingadmissionpolicies", "validatingadmissionpolicybindings")
        for verb in ("create", "patch")
    ],
    (ADMISSION, "validatingadmissionpolicybindings", "get"),  # each is its own parameter
    ("", "secrets", "list"),
    ("apps", "deployments", "list"),
    ("apps", "statefulsets", "list"),
    ("networking.k8s.io", "networkpolicies", "list"),
]
REMOVE = [
    *[("", resource, "delete") for resource in ("namespaces", "secrets", "configmaps", "services")],
    ("apps", "deployments", "delete"),
    ("networking.k8s.io", "networkpolicies", "delete"),
    (ADMISSION, "validatingadmissionpolicies", "delete"),
    (ADMISSION, "validatingadmissionpolicybindings", "delete"),
]
ROWS = [("present", *row) for row in CONVERGE] + [("absent", *row) for row in REMOVE]
RIGHT = re.compile(r'apiGroups \["([^"]*)"\], resources \["([^"]*)"\], verbs \["([^"]*)"\]')


@pytest.mark.parametrize(("state", "group", "resource", "verb"), ROWS, ids=["-".join(filter(None, row)) for row in ROWS])
def test_each_right_is_needed_and_named(server: Any, tmp_path: Path, state: str, group: str, resource: str, verb: str) -> None:
    """With one right less the run stops, and its message names that right and no other."""
    home = Home(server, tmp_path)
    home.variables["kubeconfig"] = str(server.kubeconfig)
    name = f"less-{home.instance}"
    less = {**home.variables, "kubeconfig": str(account(server, name, *(without(role, resource, verb) for role in (READ, WRITE))))}
    if state == "absent":
        site_modules.run(home.variables)
    with pytest.raises(AssertionError) as stopped:
        site_modules.run(less, state)
    assert set(RIGHT.findall(str(stopped.value))) == {(group, resource, verb)}, str(stopped.value)
    site_modules.run(home.variables, "absent")


def test_the_playbook_names_a_missing_right(server: Any, tmp_path: Path) -> None:
    home = Home(server, tmp_path)
    kubeconfig = account(server, f"less-{home.instance}", READ, without(WRITE, "networkpolicies", "patch"))
    play = server.playbook("homelab.netguard.site", home.variables, kubeconfig=kubeconfig, folder=tmp_path)
    assert not play.ok
    assert 'resources [\\"networkpolicies\\"], verbs [\\"patch\\"]' in play.output, play.output
    home.play("remove")
