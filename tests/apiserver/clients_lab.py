# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A home for tests of clients: workloads of an owner, the modules in the order of site.yml, and eyes on the API server."""

from __future__ import annotations

import base64
import io
import itertools
import json
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.homelab.netguard.plugins.modules import killswitch_policy, vpn_client_inject, vpn_gateway
from kubernetes import client, config, dynamic

KEY = base64.b64encode(bytes(range(32))).decode()
FACTS = {
    "cidrs": {"pods": ["10.244.0.0/16"], "services": ["10.96.0.0/16"], "nodes": ["192.168.1.10/32"], "lan": ["192.168.1.0/24"]},
    "ranges": {"pods": {"status": "complete"}, "services": {"status": "complete"}},
    "dns": {"service_ip": "10.96.0.10", "namespace": "kube-system", "pod_labels": {"k8s-app": "kube-dns"}},
    "cni": {"name": "calico", "enforces_network_policy": True, "translates_kernel_packets": True},
    "server": {"version": "v1.34.4"},
    "ip_families": ["ipv4"],
}
NUMBERS = itertools.count(1)
API = {"Deployment": "apps/v1", "StatefulSet": "apps/v1", "DaemonSet": "apps/v1", "CronJob": "batch/v1", "Namespace": "v1"}
STRATEGIC = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"
GUARD, SIDECAR = "netguard-guard", "netguard-overlay"
MODULES = {"gateway": vpn_gateway, "killswitch": killswitch_policy, "clients": vpn_client_inject}


def template_of(item: dict[str, Any]) -> dict[str, Any]:
    spec = item["spec"]["jobTemplate"]["spec"] if item["kind"] == "CronJob" else item["spec"]
    found: dict[str, Any] = spec["template"]
    return found


def guard_first(item: dict[str, Any]) -> bool:
    init = template_of(item)["spec"].get("initContainers") or [{}]
    return bool(init[0].get("name") == GUARD)


class Home:
    """One instance with namespaces of its own, and eyes on the API server that are not the module's."""

    def __init__(self, kubeconfig: str) -> None:
        self.instance = f"cl{next(NUMBERS)}x{int(time.time()) % 100000}"
        self.vpn, self.media = f"vpn-{self.instance}", f"media-{self.instance}"
        self.kubeconfig = kubeconfig
        self.api = dynamic.DynamicClient(config.new_client_from_config(config_file=kubeconfig))
        self.apps: list[dict[str, Any]] = []
        self.create("v1", "Namespace", {"metadata": {"name": self.media}})
        self.create("v1", "ServiceAccount", {"metadata": {"name": "default"}}, quiet=True)

    def resource(self, api_version: str, kind: str) -> Any:
        return self.api.resources.get(api_version=api_version, kind=kind)

    def create(self, api_version: str, kind: str, body: dict[str, Any], *, quiet: bool = False) -> dict[str, Any]:
        manifest = {"apiVersion": api_version, "kind": kind, **body}
        namespace = None if kind == "Namespace" else self.media
        try:
            made = self.resource(api_version, kind).create(body=manifest, namespace=namespace, field_manager="owner")
        except client.ApiException as error:
            if quiet and error.status == 409:
                return manifest
            raise
        return dict(made.to_dict())

    def workload(
        self, kind: str = "Deployment", name: str = "web", *, pod: dict[str, Any] | None = None, **spec: Any
    ) -> dict[str, Any]:
        """Creates a workload and declares it as a client."""
        found = {
            "metadata": {"labels": {"app": name}},
            "spec": {
                "containers": [{"name": "app", "image": "example/app"}],
                "initContainers": [{"name": "prepare", "image": "example/prepare"}],
                "volumes": [{"name": "data", "emptyDir": {}}],
                **(pod or {}),
            },
        }
        if kind == "CronJob":
            found["spec"]["restartPolicy"] = "Never"
            body: dict[str, Any] = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": found}}, **spec}
        else:
            body = {"selector": {"matchLabels": {"app": name}}, "template": found, **spec}
            if kind == "StatefulSet":
                body["serviceName"] = name
        made = self.create(API[kind], kind, {"metadata": {"name": name}, "spec": body})
        self.apps.append({"name": name, "namespace": self.media, "workload": f"{kind}/{name}", "vpn": "proton"})
        return made

    def get(self, kind: str, name: str, api_version: str = "") -> dict[str, Any]:
        namespace = None if kind == "Namespace" else self.media
        return dict(self.resource(api_version or API[kind], kind).get(name=name, namespace=namespace).to_dict())

    def exists(self, kind: str, name: str, api_version: str) -> bool:
        try:
            self.get(kind, name, api_version)
        except client.ApiException as error:
            if error.status == 404:
                return False
            raise
        return True

    def patch(self, kind: str, name: str, body: Any, content_type: str = MERGE) -> None:
        namespace = None if kind == "Namespace" else self.media
        options = {"field_manager": "owner", "content_type": content_type}
        self.resource(API[kind], kind).patch(body=body, name=name, namespace=namespace, **options)

    def apply(self, kind: str, name: str, body: dict[str, Any], manager: str = "flux") -> None:
        """Server-side apply as another tool does it, forced."""
        manifest = {"apiVersion": API[kind], "kind": kind, "metadata": {"name": name, "namespace": self.media}, **body}
        resource = self.resource(API[kind], kind)
        resource.server_side_apply(body=manifest, name=name, namespace=self.media, field_manager=manager, force_conflicts=True)

    def replace(self, kind: str, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
        item = self.get(kind, name)
        change(item)
        for key in ("resourceVersion", "managedFields", "uid", "creationTimestamp"):
            item["metadata"].pop(key, None)
        self.resource(API[kind], kind).replace(body=item, name=name, namespace=self.media, field_manager="kubectl-replace")

    def pods(self, name: str = "web") -> list[dict[str, Any]]:
        found = self.resource("v1", "Pod").get(namespace=self.media, label_selector=f"app={name}").items
        return [item.to_dict() for item in found if not item.metadata.get("deletionTimestamp")]

    def run(self, module: str = "clients", *, check: bool = False, fails: bool = False, **options: Any) -> dict[str, Any]:
        arguments = {
            "kubeconfig": self.kubeconfig,
            "instance": self.instance,
            "facts": FACTS,
            "gateways": [{"name": "proton", "namespace": self.vpn, "provider": "protonvpn"}],
            "apps": self.apps,
            "_ansible_check_mode": check,
            "_ansible_diff": True,
            **({"credentials": {"proton": {"wireguard_private_key": KEY}}} if module == "gateway" else {}),
            **({} if module == "killswitch" else {"wait_timeout": 60}),
            **options,
        }
        output = io.StringIO()
        with patch_module_args(arguments), redirect_stdout(output), pytest.raises(SystemExit):
            MODULES[module].main()
        result: dict[str, Any] = json.loads(output.getvalue().strip().splitlines()[-1])
        assert bool(result.get("failed")) is fails, json.dumps(result.get("msg") or result, indent=1)[:4000]
        return result

    def site(self, admission: str = "auto") -> dict[str, Any]:
        """Gateway and kill switches first, as site.yml does; the result is that of the clients."""
        self.run("gateway")
        self.run("killswitch", admission=admission)
        return self.run(admission=admission)

    def versions(self) -> dict[tuple[str, str], Any]:
        """Of everything that a run could have written; what changes with its status is told by its generation."""
        found: dict[tuple[str, str], Any] = {}
        kinds = [*API.items(), ("ConfigMap", "v1"), ("NetworkPolicy", "networking.k8s.io/v1"), ("Service", "v1")]
        for kind, api_version in kinds:
            if kind == "Namespace":
                continue
            for item in self.resource(api_version, kind).get(namespace=self.media).items:
                meta = item.metadata
                if meta.name == "kube-root-ca.crt":  # the controllers publish it in a new namespace, a moment later
                    continue
                found[(kind, meta.name)] = meta.get("generation") or meta.resourceVersion
        return found

    def clean(self) -> None:
        for kind in ("ValidatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy"):
            resource = self.resource("admissionregistration.k8s.io/v1", kind)
            for item in resource.get(label_selector=f"homelab.netguard/instance={self.instance}").items:
                resource.delete(name=item.metadata.name)
        for name in (self.vpn, self.media):
            try:
                self.resource("v1", "Namespace").delete(name=name)
            except client.ApiException as error:
                if error.status != 404:
                    raise


def until(read: Callable[[], Any], good: Callable[[Any], bool]) -> Any:
    end = time.monotonic() + 20
    while not good(found := read()):
        assert time.monotonic() < end, found
        time.sleep(0.2)
    return found


def said(result: dict[str, Any], app: str = "web") -> str:
    (found,) = [item for item in result["clients"] if item["app"].endswith(f"/{app}")]
    action: str = found["action"]
    return action
