# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An open cluster: identity, reads, and the single writes that plans are made of."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from .._errors import NetguardError
from .._facts.reader import Absent, Trim, Unreadable
from .._manifests.model import MANAGER, RELEASE, Key, Live, Manifest, Patch
from . import fields
from .resources import Resource, Resources
from .transport import (
    APPLY_PATCH,
    JSON_PATCH,
    PAGE,
    STRATEGIC_PATCH,
    ApiError,
    Transport,
    missing_right,
    right,
    unreadable,
)

#: `list` is also the name of a method below.
Objects = list[Manifest]
Answers = list[Any]

METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
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

    def list(
        self,
        api_version: str,
        kind: str,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        *,
        metadata_only: bool = False,
        trim: Trim | None = None,
    ) -> Objects:
        resource = self.resources.find(api_version, kind)
        what = f"list {kind} ({api_version})" + (f" in {namespace}" if namespace else "")
        accept = {"Accept": METADATA_LIST} if metadata_only else {}
        found: Objects = []
        more: str | None = None
        expired = 0
        while True:
            try:
                page = self.transport.send(
                    "GET",
                    resource.path(namespace),
                    what=what,
                    header_params=dict(accept),
                    limit=PAGE,
                    _continue=more,
                    label_selector=label_selector or None,
                    field_selector=field_selector or None,
                )
            except ApiError as error:
                if error.status == 410 and more and expired < 2:  # the page's snapshot expired: start again
                    expired += 1
                    found, more = [], None
                    continue
                raise unreadable(error, what) from None
            listed = page.get("items") or []
            found += listed if trim is None else [kept for item in listed if (kept := trim(item)) is not None]
            more = (page.get("metadata") or {}).get("continue")
            if not more:
                break
        for item in found:  # items of a list carry neither, and metadata alone is of another kind
            item["apiVersion"], item["kind"] = api_version, kind
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
        failed: dict[str, set[str]] = {}
        answered: set[str] = set()
        listed: dict[tuple[str, str], str] = {}
        for read, answer in zip(wanted, answers, strict=True):
            if isinstance(answer, Unreadable):
                if not read.optional:
                    raise answer
                failed.setdefault(read.kind, set()).add(answer.reason)
            else:
                answered.add(read.kind)
                if not read.name and not read.namespace:
                    listed.setdefault((read.api_version, read.kind), read.label_selector)
                objects.update({Key.of(item): item for item in answer})
        return Live(
            tuple(objects.values()),
            {kind: reason for kind, all_of in failed.items() if (reason := _worst(all_of, kind in answered))},
            listed,
        )

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
        if self.check_mode or params.pop("dry", False):
            params["dry_run"] = "All"
        if method != "DELETE":
            params["field_manager"] = MANAGER
        try:
            return self.transport.send(method, resource.path(key.namespace, name), body, f"{verbs[method]} {key}", **params)
        except ApiError as error:
            raise explained(error, method, resource, key) from None

    def apply(self, manifest: Manifest, *, force: bool = False, dry: bool = False) -> Manifest:
        """Server-side apply by our manager; in check mode and with `dry` a dry run. Raises ApiError (409: another's field)."""
        key = Key.of(manifest)
        resource = self.resources.find(key.api_version, key.kind)
        done: Manifest = self._send(
            "PATCH", resource, key, manifest, content_type=APPLY_PATCH, force_conflicts="true" if force else None, dry=dry
        )
        return done

    def patch(self, patch: Patch) -> Manifest:
        """A strategic-merge patch on an object that is not ours; in check mode a dry run. The object afterwards.

        Raises NetguardError when another tool applies a field that the patch would change: it is never forced.
        """
        target = patch.target
        resource = self.resources.find(target.api_version, target.kind)
        before = self.get(target.api_version, target.kind, target.name, target.namespace)
        if before is not None:
            self._refuse_held(patch, before)
        done: Manifest = self._send("PATCH", resource, target, patch.body, content_type=STRATEGIC_PATCH)
        return done

    def _refuse_held(self, patch: Patch, before: Manifest) -> None:
        problems = [
            f"{patch.target}: the field {fields.dotted(path)} is held by {holder.manager}"
            for holder in fields.holders(before)
            if holder.operation == "Apply" and not holder.ours
            for path in fields.overridden(patch.body, before, holder.tree)
        ]
        if problems:
            raise NetguardError(
                "; ".join(problems) + ". Another tool applies it; nothing was forced and the object was left as it is. Change it "
                "in that tool's manifest first.",
                conflicts=problems,
            )

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
        errors = [error for future in futures if (error := future.exception()) is not None]
        told = list(dict.fromkeys(str(error) for error in errors if isinstance(error, NetguardError)))
        if errors and len(told) > 1 and isinstance(errors[0], NetguardError):
            errors[0].details.setdefault("also", told[1:11])
        if errors:
            raise errors[0]
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


def _worst(reasons: set[str], answered: bool) -> str:
    """What several reads of one kind (two versions, say) come to: absent only when no other version answered."""
    if "forbidden" in reasons:
        return "forbidden"
    others = sorted(reasons - {"absent"})
    return others[0] if others else "" if answered else "absent"


def _protected(error: ApiError) -> bool:
    """Whether our own admission refused, because the object is not marked as released."""
    return error.status == 403 and "ValidatingAdmissionPolicy" in error.server_message and RELEASE in error.server_message


def explained(error: ApiError, method: str, resource: Resource, key: Key) -> ApiError:
    """A 403 by RBAC names the rule that is missing; other refusals (admission, quota) speak for themselves."""
    rule = missing_right(error.server_message) if error.status == 403 else ""
    if error.status == 403 and method == "PATCH" and error.server_message.rstrip().endswith("is forbidden:"):
        # what Kubernetes 1.30 says of an apply that would create: no reason at all
        rule = right(resource.group, resource.plural, "create", key.namespace)
    if not rule:
        return error
    return ApiError(403, error.reason, f"{error.server_message.rstrip()}. {rule}", error.causes, error.what)
