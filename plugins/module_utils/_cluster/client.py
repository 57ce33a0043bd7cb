# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An open cluster: identity, reads, and the single writes that plans are made of."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from .._errors import NetguardError
from .._facts.reader import Absent, Unreadable
from .._manifests.model import MANAGER, RELEASE, Key, Live, Manifest, Patch
from .resources import Resource, Resources
from .transport import APPLY_PATCH, JSON_PATCH, PAGE, STRATEGIC_PATCH, ApiError, Transport, unreadable

#: `list` is also the name of a method below.
Objects = list[Manifest]
Answers = list[Any]

#: Requests in flight at once.
WORKERS = 8


@dataclass(frozen=True)
class Read:
    """One list (or, with `name`, one object) to take into a snapshot. One that is not `optional` must be readable."""

    api_version: str
    kind: str
    namespace: str = ""
    name: str = ""
    label_selector: str = ""
    optional: bool = True


class Cluster:
    """One API server. Implements `_facts.reader.Reader`."""

    def __init__(self, client: Any, *, check_mode: bool = False, context: str = "") -> None:
        self.transport = Transport(client)
        self.resources = Resources(self.transport)
        self.check_mode = check_mode
        self._context = context
        self._identity: dict[str, str] | None = None
        self._lock = threading.Lock()

    # -- identity

    def identity(self) -> dict[str, str]:
        """`id` (uid of the namespace kube-system, empty where that may not be read), `host`, `context`."""
        with self._lock:
            if self._identity is None:
                try:
                    found = self.get("v1", "Namespace", "kube-system")
                except Unreadable as error:
                    if error.reason != "forbidden":
                        raise
                    found = None
                uid = found["metadata"]["uid"] if found else ""
                self._identity = {"id": uid, "host": self.transport.host, "context": self._context}
            return self._identity

    def expect(self, expected: str) -> None:
        """Refuses any cluster but the one with this id. Raises NetguardError."""
        if not expected:
            return
        found = self.identity()
        if found["id"] != expected:
            seen = found["id"] or "unknown, since kube-system may not be read"
            raise NetguardError(
                f"this is another cluster: {found['host']} has the id {seen}, expected {expected}. Nothing was done. "
                "Select the right kubeconfig or context, or correct netguard_expected_cluster.",
                cluster=found,
            )

    # -- reads (the protocol of discovery)

    def get(self, api_version: str, kind: str, name: str, namespace: str = "") -> Manifest | None:
        resource = self.resources.find(api_version, kind)
        what = f"read {Key(api_version, kind, namespace, name)}"
        try:
            found: Manifest = self.transport.send("GET", resource.path(namespace, name), what=what)
        except ApiError as error:
            if error.status == 404:
                return None
            raise unreadable(error, what) from None
        return found

    def list(self, api_version: str, kind: str, namespace: str = "", label_selector: str = "", field_selector: str = "") -> Objects:
        resource = self.resources.find(api_version, kind)
        what = f"list {kind} ({api_version})" + (f" in {namespace}" if namespace else "")
        found: Objects = []
        more: str | None = None
        while True:
            try:
                page = self.transport.send(
                    "GET",
                    resource.path(namespace),
                    what=what,
                    limit=PAGE,
                    _continue=more,
                    label_selector=label_selector or None,
                    field_selector=field_selector or None,
                )
            except ApiError as error:
                if error.status == 410 and more:  # the page's snapshot expired: start again
                    found, more = [], None
                    continue
                raise unreadable(error, what) from None
            found += page.get("items") or []
            more = (page.get("metadata") or {}).get("continue")
            if not more:
                break
        for item in found:  # items of a list carry neither
            item.setdefault("apiVersion", api_version)
            item.setdefault("kind", kind)
        return found

    def raw(self, path: str) -> Any:
        try:
            return self.transport.send("GET", path)
        except ApiError as error:
            raise unreadable(error, path) from None

    def dry_run_create(self, manifest: Manifest) -> tuple[int, str]:
        return self.dry_run("CREATE", manifest)

    def read(self, reads: Iterable[Read]) -> Live:
        """The snapshot of several lists, taken side by side. Raises Unreadable for one that is not optional."""
        wanted = [*dict.fromkeys(reads)]
        with ThreadPoolExecutor(WORKERS) as pool:
            answers = [*pool.map(self._read_one, wanted)]
        objects: dict[Key, Manifest] = {}
        failed: dict[str, str] = {}
        for read, answer in zip(wanted, answers, strict=True):
            if isinstance(answer, Unreadable):
                if not read.optional:
                    raise answer
                failed[read.kind] = answer.reason
            else:
                objects.update({Key.of(item): item for item in answer})
        return Live(tuple(objects.values()), failed)

    def _read_one(self, read: Read) -> Objects | Unreadable:
        try:
            if read.name:
                found = self.get(read.api_version, read.kind, read.name, read.namespace)
                return [found] if found else []
            return self.list(read.api_version, read.kind, read.namespace, read.label_selector)
        except Unreadable as error:
            return error

    # -- writes

    def _send(self, method: str, resource: Resource, key: Key, body: Any, **params: Any) -> Any:
        name = "" if method == "POST" else key.name
        verbs = {"POST": "create", "PATCH": "write", "PUT": "replace", "DELETE": "delete"}
        if self.check_mode:
            params["dry_run"] = "All"
        if method != "DELETE":
            params["field_manager"] = MANAGER
        try:
            return self.transport.send(method, resource.path(key.namespace, name), body, f"{verbs[method]} {key}", **params)
        except ApiError as error:
            raise explained(error, method, resource, key) from None

    def apply(self, manifest: Manifest, *, force: bool = False) -> Manifest:
        """Server-side apply by our manager; in check mode a dry run. Raises ApiError (409: another manager's field)."""
        key = Key.of(manifest)
        resource = self.resources.find(key.api_version, key.kind)
        done: Manifest = self._send(
            "PATCH", resource, key, manifest, content_type=APPLY_PATCH, force_conflicts="true" if force else None
        )
        return done

    def patch(self, patch: Patch) -> Manifest:
        """A strategic-merge patch on an object that is not ours; in check mode a dry run."""
        resource = self.resources.find(patch.target.api_version, patch.target.kind)
        done: Manifest = self._send("PATCH", resource, patch.target, patch.body, content_type=STRATEGIC_PATCH)
        return done

    def json_patch(self, key: Key, operations: Answers) -> Manifest:
        resource = self.resources.find(key.api_version, key.kind)
        done: Manifest = self._send("PATCH", resource, key, operations, content_type=JSON_PATCH)
        return done

    def delete(self, key: Key, *, uid: str = "") -> bool:
        """Deletes one object (with `uid`: only that very one); False when it was gone already."""
        resource = self.resources.find(key.api_version, key.kind)
        body: Manifest = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        if self.check_mode:
            # a DELETE with a body takes all its options from there: the server ignores dryRun in the query
            body["dryRun"] = ["All"]
        try:
            self._send("DELETE", resource, key, body)
        except ApiError as error:
            if error.status == 404:
                return False
            if not _protected(error):
                raise
            # A DELETE names no field manager, so what admission protects is marked as released first, which it lets us do.
            if not self.check_mode:
                self._release(key)
                self._send("DELETE", resource, key, body)
        return True

    def _release(self, key: Key) -> None:
        found = self.get(key.api_version, key.kind, key.name, key.namespace) or {"metadata": {}}
        operations: Objects = (
            [] if found["metadata"].get("annotations") else [{"op": "add", "path": "/metadata/annotations", "value": {}}]
        )
        pointer = "/metadata/annotations/" + RELEASE.replace("/", "~1")
        self.json_patch(key, [*operations, {"op": "add", "path": pointer, "value": "true"}])

    def dry_run(self, verb: str, manifest: Manifest) -> tuple[int, str]:
        """What the server would answer to a CREATE, UPDATE or DELETE of an object: (HTTP status, message). Nothing is kept."""
        key = Key.of(manifest)
        resource = self.resources.find(key.api_version, key.kind)
        method, name = {"CREATE": ("POST", ""), "UPDATE": ("PUT", key.name), "DELETE": ("DELETE", key.name)}[verb.upper()]
        deletes = method == "DELETE"
        try:
            self.transport.send(
                method,
                resource.path(key.namespace, name),
                None if deletes else manifest,
                f"dry run of {verb.lower()} {key}",
                dry_run="All",
                **({} if deletes else {"field_manager": MANAGER}),
            )
        except ApiError as error:
            return error.status, error.server_message
        return 200, ""

    def dry_run_patch(self, patch: Patch) -> tuple[int, str]:
        """What the server would answer to a strategic-merge patch: (HTTP status, message). Nothing is kept."""
        key = patch.target
        path = self.resources.find(key.api_version, key.kind).path(key.namespace, key.name)
        what = f"dry run of a patch of {key}"
        try:
            self.transport.send("PATCH", path, patch.body, what, content_type=STRATEGIC_PATCH, dry_run="All", field_manager=MANAGER)
        except ApiError as error:
            return error.status, error.server_message
        return 200, ""

    def dry_run_object(self, manifest: Manifest) -> Manifest:
        """The object as a CREATE would make it, defaults and admission applied. Raises ApiError; nothing is kept."""
        key = Key.of(manifest)
        resource = self.resources.find(key.api_version, key.kind)
        done: Manifest = self.transport.send(
            "POST", resource.path(key.namespace), manifest, f"dry run of create {key}", dry_run="All", field_manager=MANAGER
        )
        return done

    def parallel(self, work: Callable[[Any], Any], items: Iterable[Any]) -> Answers:
        """Results in the order of the items; the first error is raised after all have ended."""
        listed = [*items]
        if len(listed) <= 1:
            return [work(item) for item in listed]
        with ThreadPoolExecutor(min(WORKERS, len(listed))) as pool:
            futures = [pool.submit(work, item) for item in listed]
        return [future.result() for future in futures]

    def log(self, namespace: str, pod: str, container: str, lines: int) -> str:
        """The last lines of a container's log, empty when there is none or it may not be read."""
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
        try:
            return self.transport.text(path, query=[("container", container), ("tailLines", str(lines))])
        except NetguardError:
            return ""

    def log_tail(self, namespace: str, pod: str, container: str) -> str:
        """The last line of a container's log, empty when there is none or it may not be read."""
        return self.log(namespace, pod, container, 1).strip()[-300:]

    def serves(self, api_version: str, kind: str) -> bool:
        """Whether the server has this kind. Raises Unreadable when that may not be asked."""
        try:
            self.resources.find(api_version, kind)
        except Absent:
            return False
        return True


def _protected(error: ApiError) -> bool:
    """Whether our own admission refused, because the object is not marked as released."""
    return error.status == 403 and "ValidatingAdmissionPolicy" in error.server_message and RELEASE in error.server_message


def explained(error: ApiError, method: str, resource: Resource, key: Key) -> ApiError:
    """A 403 by RBAC names the rule that is missing; other refusals (admission) speak for themselves."""
    if error.status != 403 or "cannot" not in error.server_message:
        return error
    verbs = {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}
    group = resource.api_version.rpartition("/")[0]
    where = f" in the namespace {key.namespace}" if key.namespace else ""
    hint = f'missing right: apiGroups ["{group}"], resources ["{resource.plural}"], verbs ["{verbs[method]}"]{where}'
    return ApiError(403, error.reason, f"{error.server_message}. {hint}; docs/rbac.md has the roles.", error.causes, f"write {key}")


def open_cluster(module: Any, *, check_mode: bool) -> Cluster:
    """The cluster that the authentication options name. `module` needs `params` and the checks of kubernetes.core's module.

    Raises NetguardError when no connection can be made from them.
    """
    from ansible_collections.kubernetes.core.plugins.module_utils.k8s.client import get_api_client
    from ansible_collections.kubernetes.core.plugins.module_utils.k8s.exceptions import CoreException

    params: Mapping[str, Any] = module.params
    if params.get("kubeconfig") in ({}, ""):
        raise NetguardError("kubeconfig is empty: leave it out, or name a file or its content; nothing was tried instead of it")
    try:
        client = get_api_client(module)
    except CoreException as error:
        raise NetguardError(str(error)) from None
    return Cluster(client.client, check_mode=check_mode, context=str(params.get("context") or ""))
