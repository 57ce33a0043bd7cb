# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tests of kill switches on a real API server share: an owner's hands, and runs of the operation."""

from __future__ import annotations

import copy
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ansible_collections.homelab.netguard.plugins.module_utils._cluster.client import Cluster
from ansible_collections.homelab.netguard.plugins.module_utils._cluster.transport import ApiError
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.client_guard import guard_container, guard_volume
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.images import Images
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.workloads import template_of
from ansible_collections.homelab.netguard.plugins.module_utils._module import Context
from ansible_collections.homelab.netguard.plugins.module_utils._operations import killswitch
from ansible_collections.homelab.netguard.plugins.module_utils._topology.parse import parse

STRATEGIC = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
GATEWAYS = [
    {
        "name": "proton",
        "namespace": "vpn",
        "provider": "protonvpn",
        "wireguard": {"addresses": ["10.2.0.2/32"]},
        "credentials": {"secret": "proton-wg"},
    }
]
FACTS: dict[str, Any] = {
    "cidrs": {"pods": ["10.244.0.0/16"], "services": ["10.96.0.0/16"], "nodes": ["192.168.1.20/32"], "lan": ["192.168.1.0/24"]},
    "server": {"version": "v1.34.4"},
    "dns": {"service_ip": "10.96.0.10", "namespace": "kube-system", "pod_labels": {"k8s-app": "kube-dns"}},
    "cni": {"name": "calico", "enforces_network_policy": True, "translates_kernel_packets": True, "policy_apis": []},
}
PATHS = {"Deployment": "apps/v1", "StatefulSet": "apps/v1", "DaemonSet": "apps/v1", "CronJob": "batch/v1", "Job": "batch/v1"}


class Refused(Exception):
    """What the API server answered an owner."""

    def __init__(self, error: ApiError) -> None:
        self.status = error.status
        super().__init__(error.server_message)


class Lab:
    """One namespace and one instance of their own on a shared API server."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.cluster = Cluster(client)
        token = uuid.uuid4().hex[:6]
        self.namespace, self.instance = f"media-{token}", f"t{token}"
        self.facts = copy.deepcopy(FACTS)
        self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})
        # Without a controller-manager's account no pod may be created, whatever our policies say.
        self.until(lambda: self.get("v1", "ServiceAccount", "default") is not None)

    # -- runs

    def context(self, apps: list[dict[str, Any]], *, check_mode: bool = False, **params: Any) -> Context:
        listed = [{"namespace": self.namespace, "vpn": "proton"} | app for app in apps]
        listed = [{key: value for key, value in app.items() if value is not None} for app in listed]
        options = {"facts": self.facts, "dialect": "auto", "admission": "auto", "state": "present"} | params
        topology = parse(self.instance, GATEWAYS, listed, {}, [])
        return Context(options, check_mode, topology, Cluster(self.client, check_mode=check_mode))

    def run(self, apps: list[dict[str, Any]], *, check_mode: bool = False, **params: Any) -> dict[str, Any]:
        return killswitch.operation(self.context(apps, check_mode=check_mode, **params))

    def remove(self, **params: Any) -> dict[str, Any]:
        return self.run([], state="absent", **params)

    def clean(self) -> None:
        self.remove(force=True)
        if self.get("v1", "Namespace", self.namespace, "") is not None:
            self.send("DELETE", f"/api/v1/namespaces/{self.namespace}")

    # -- an owner's hands

    def send(self, method: str, path: str, body: Any = None, manager: str = "kubectl", **params: Any) -> Any:
        try:
            named = {"field_manager": manager} if method in ("POST", "PUT", "PATCH") else {}
            return self.cluster.transport.send(method, path, body, **named, **params)
        except ApiError as error:
            raise Refused(error) from None

    def path(self, kind: str, name: str = "", subresource: str = "", api: str = "") -> str:
        version = api or PATHS.get(kind) or ("networking.k8s.io/v1" if kind == "NetworkPolicy" else "v1")
        found = self.cluster.resources.find(version, kind).path(self.namespace, name)
        return f"{found}/{subresource}" if subresource else found

    def create(self, manifest: dict[str, Any]) -> dict[str, Any]:
        resource = self.cluster.resources.find(manifest["apiVersion"], manifest["kind"])
        namespace = manifest["metadata"].get("namespace", "")
        answer: dict[str, Any] = self.send("POST", resource.path(namespace), manifest)
        return answer

    def patch(self, kind: str, name: str, body: Any, how: str = STRATEGIC, subresource: str = "", **params: Any) -> Any:
        return self.send("PATCH", self.path(kind, name, subresource), body, content_type=how, **params)

    def replace(self, manifest: dict[str, Any]) -> Any:
        """`kubectl replace`: the manifest as the owner has it, over whatever is there."""
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        return self.send("PUT", self.path(kind, name), manifest, manager="kubectl-replace")

    def get(self, api: str, kind: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        return self.cluster.get(api, kind, name, self.namespace if namespace is None else namespace)

    def pods(self, selector: str = "") -> list[dict[str, Any]]:
        return self.cluster.list("v1", "Pod", self.namespace, label_selector=selector)

    def until(self, true: Callable[[], Any], seconds: float = 120, what: str = "") -> Any:
        end = time.monotonic() + seconds
        while True:
            found = true()
            if found:
                return found
            assert time.monotonic() < end, what or "it did not come true in time"
            time.sleep(0.2)

    # -- what is in a pod

    def guard(self, image: str = "") -> dict[str, Any]:
        context = self.context([{"name": "any", "pods": {"app": "any"}}])
        return guard_container(context.topology, context.topology.apps[0], context.facts(), Images.of({"overlay": image}))

    def volume(self, name: str = "qbit") -> dict[str, Any]:
        return guard_volume(self.context([{"name": name, "pods": {"app": name}}]).topology.apps[0])

    def inject(self, manifest: dict[str, Any], image: str = "") -> dict[str, Any]:
        """A copy of the owner's manifest with the guard first, as the client qbit."""
        found = copy.deepcopy(manifest)
        spec = template_of(found)["spec"]
        spec["initContainers"] = [self.guard(image), *spec.get("initContainers", [])]
        spec["volumes"] = [*spec.get("volumes", []), self.volume()]
        return found

    def put_guard(self, manifest: dict[str, Any], image: str = "") -> Any:
        """Injects the live workload, by a strategic-merge patch as the collection does."""
        spec = {"initContainers": [self.guard(image)], "volumes": [self.volume()]}
        body: dict[str, Any] = {"spec": {"template": {"spec": spec}}}
        if manifest["kind"] == "CronJob":
            body = {"spec": {"jobTemplate": {"spec": {"template": {"spec": spec}}}}}
        return self.patch(manifest["kind"], manifest["metadata"]["name"], body, manager="homelab.netguard")

    def workload(self, kind: str, name: str = "qbit", labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
        labels = labels or {"app": name}
        container = {"name": "main", "image": "example.invalid/app:1", "ports": [{"name": "web", "containerPort": 8080}]}
        pod = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
        meta = {"name": name, "namespace": self.namespace}
        body: dict[str, Any] = {"selector": {"matchLabels": labels}, "template": pod}
        if kind == "StatefulSet":
            body["serviceName"] = name
        if kind == "Job":
            body = {"template": pod, "backoffLimit": 0}
            pod["spec"]["restartPolicy"] = "Never"
        if kind == "CronJob":
            pod["spec"]["restartPolicy"] = "Never"
            body = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": pod}}}
        return {"apiVersion": PATHS[kind], "kind": kind, "metadata": meta, "spec": body | spec}

    def policy(self, kind: str, app: str = "qbit", *, of_workload: bool = False) -> dict[str, Any]:
        """The admission policy about clients, a client's binding of it, or (`app` empty) those of the protection of policies."""
        for item in self.cluster.list(
            "admissionregistration.k8s.io/v1", kind, label_selector=f"homelab.netguard/instance={self.instance}"
        ):
            meta = item["metadata"]
            if kind == "ValidatingAdmissionPolicy":
                if meta["name"].endswith("-clients" if app else "-policies"):
                    return item
            elif meta["labels"].get("homelab.netguard/client", "") == app and meta["name"].endswith("-workload") == of_workload:
                return item
        raise AssertionError(f"no {kind} of {app or 'the instance'}")

    def edit_cluster_object(self, kind: str, name: str, body: Any) -> Any:
        """`kubectl edit` of an admission object."""
        path = self.cluster.resources.find("admissionregistration.k8s.io/v1", kind).path("", name)
        return self.send("PATCH", path, body, content_type=MERGE, manager="kubectl-edit")


def client(kubeconfig: str) -> Any:
    """A client as administrator."""
    from kubernetes import config
    from kubernetes.dynamic import DynamicClient

    return DynamicClient(config.new_client_from_config(kubeconfig))


@contextmanager
def opened(kubeconfig: str) -> Iterator[Lab]:
    """A lab that leaves nothing behind."""
    lab = Lab(client(kubeconfig))
    try:
        yield lab
    finally:
        lab.clean()
