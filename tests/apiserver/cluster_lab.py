# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tests of `_cluster` share: one instance of its own on the server, and hands that are not ours."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible_collections.homelab.netguard.plugins.module_utils._cluster.client import Cluster
from ansible_collections.homelab.netguard.plugins.module_utils._cluster.converge import Outcome, converge
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Desired, Manifest, owner_labels
from kubernetes import config, dynamic

if TYPE_CHECKING:
    from conftest import Server

NUMBERS = itertools.count(1)
NETWORKING = "networking.k8s.io/v1"
ADMISSION = "admissionregistration.k8s.io/v1"


def connect(kubeconfig: Path, *, check_mode: bool = False) -> Cluster:
    return Cluster(dynamic.DynamicClient(config.new_client_from_config(config_file=str(kubeconfig))), check_mode=check_mode)


class Lab:
    """One instance and one namespace for it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.instance = f"lab{next(NUMBERS)}x{int(time.time()) % 10000}"
        self.space = f"space-{self.instance}"
        self.cluster = connect(server.kubeconfig)
        self.kubectl("create", "namespace", self.space)

    def kubectl(self, *words: str) -> str:
        """As a user at a terminal."""
        return str(self.server.run_kubectl(*words))

    def edit(self, kind: str, name: str, *operations: dict[str, Any], manager: str = "kubectl-edit") -> None:
        """An Update of an object by hand."""
        body = json.dumps(list(operations))
        self.kubectl("patch", kind, name, "-n", self.space, "--type=json", f"--field-manager={manager}", "-p", body)

    def get(self, kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, name, "-n", self.space, "-o", "json", "--show-managed-fields"))
        return found

    def item(
        self, api_version: str, kind: str, name: str, part: str = "gateway", *, cluster: bool = False, **body: Any
    ) -> Manifest:
        """An object of ours."""
        place = {} if cluster else {"namespace": self.space}
        labels = owner_labels(self.instance, part)
        return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, **place, "labels": labels}, **body}

    def policy(self, name: str = "closed", part: str = "killswitch", **spec: Any) -> Manifest:
        given = spec or {"podSelector": {"matchLabels": {"app": "a"}}, "policyTypes": ["Ingress", "Egress"], "egress": []}
        return self.item(NETWORKING, "NetworkPolicy", name, part, spec=given)

    def config(self, name: str = "settings", **data: str) -> Manifest:
        return self.item("v1", "ConfigMap", name, data=data or {"key": "value"})

    def run(self, *items: Manifest, part: str = "", check_mode: bool = False, prune: bool = True, **more: Any) -> Outcome:
        """Converges one part to these objects, as one wave."""
        cluster = connect(self.server.kubeconfig, check_mode=True) if check_mode else self.cluster
        part = part or (items[0]["metadata"]["labels"]["homelab.netguard/part"] if items else "gateway")
        return converge(cluster, Desired((items,), **more), instance=self.instance, part=part, prune=prune)


def user(lab: Lab, name: str, *rules: dict[str, Any]) -> Path:
    """A user with these rights alone."""
    name = f"{name}-{lab.instance}"
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": [*rules]}
    bound = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}],
    }
    lab.server.apply(role, bound)
    return Path(lab.server.user(name))


def actions(outcome: Outcome) -> dict[str, str]:
    return {f"{action.key.kind}/{action.key.name}": action.action for action in outcome.actions}
