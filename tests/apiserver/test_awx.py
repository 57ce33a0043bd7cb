# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The project of examples/awx as AWX runs it: the answers of the survey, what credentials inject, a token and no kubeconfig."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import site_modules
import yaml
from test_rbac import READ, WRITE
from test_site import KEY, Home, guard

AWX = Path(__file__).resolve().parents[2] / "examples" / "awx"
SURVEY = yaml.safe_load((AWX / "survey.yml").read_text())["spec"]
CREDENTIAL = yaml.safe_load((AWX / "credential_type.yml").read_text())


def token(server: Any, name: str) -> str:
    """That of a service account with the shipped roles."""
    server.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "default"}})
    for role in (READ, WRITE):
        own = f"{name}-{role['metadata']['name']}"
        server.apply(
            {**role, "metadata": {"name": own}},
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": own},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": own},
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "default"}],
            },
        )
    return str(server.run_kubectl("create", "token", name, "-n", "default", "--duration=1h")).strip()


def answers(**given: Any) -> dict[str, Any]:
    """What AWX makes of the survey: integers as such, everything else as text; an empty answer stays an empty text."""
    found = {item["variable"]: item["default"] for item in SURVEY} | given
    return {
        item["variable"]: int(found[item["variable"]]) if item["type"] == "integer" else str(found[item["variable"]])
        for item in SURVEY
    }


def injected(**fields: str) -> dict[str, Any]:
    """The extra variables of the custom credential type, its fields filled in."""
    text = json.dumps(CREDENTIAL["injectors"]["extra_vars"])
    for name, value in fields.items():
        text = text.replace("{{ " + name + " }}", value)
    assert "{{" not in text
    found: dict[str, Any] = json.loads(text)
    return found


def launch(home: Home, folder: Path, secret: str, variables: dict[str, Any], *words: str) -> subprocess.CompletedProcess[str]:
    """A job: the project in a folder of its own, the environment of the bearer token credential."""
    project = folder / "project"
    shutil.copytree(AWX / "project", project, dirs_exist_ok=True)
    (folder / "extra.json").write_text(json.dumps(variables))
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("K8S_AUTH_", "ANSIBLE_")) and name != "KUBECONFIG"
    }
    return subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "site.yml", "-e", "@../extra.json", *words],
        cwd=project,
        env={
            **kept,
            "HOME": str(folder),  # no ~/.kube
            "K8S_AUTH_HOST": home.server.host,
            "K8S_AUTH_API_KEY": secret,
            "K8S_AUTH_VERIFY_SSL": "True",
            "K8S_AUTH_SSL_CA_CERT": str(home.server.folder / "ca.crt"),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def test_a_job_of_the_example_project(server: Any, tmp_path: Path) -> None:
    home = Home(server, tmp_path)
    home.variables["kubeconfig"] = str(server.kubeconfig)
    secret = token(server, f"awx-{home.instance}")
    named = ("netguard_overrides", "netguard_gateways", "netguard_apps")
    variables = {
        **{name: home.variables[name] for name in named},
        **injected(gateway="proton", wireguard_private_key=KEY),
        **answers(netguard_instance=home.instance),
    }
    checked = launch(home, tmp_path, secret, variables, "--check", "--diff")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert home.owned() == []
    done = launch(home, tmp_path, secret, variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {name for name, found in home.templates().items() if guard(found) == "netguard-guard"} == {"qbittorrent", "sabnzbd"}
    assert not [item for item in home.owned() if "default-deny" in item]  # the answer "false" is a text, and means it
    for text in (checked.stdout, done.stdout):
        assert KEY not in text
        assert secret not in text
    site_modules.run(home.variables, "absent")
