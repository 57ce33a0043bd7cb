# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Requests to an API server: one place where they are sent, and where an answer becomes an error of ours."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

from .._errors import NetguardError
from .._facts.reader import Absent, Forbidden, Unreadable

#: Objects per page of a list: bounded memory on large clusters.
PAGE = 500
#: Seconds until a request without an answer is given up.
REQUEST_TIMEOUT = 60
#: A busy server (429) did nothing with the request: it is sent again, after the seconds that the server names, up to these.
ATTEMPTS = 6
LONGEST_PAUSE = 10.0

MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


class ApiError(NetguardError):
    """A refusal by the API server: HTTP `status`, the server's `reason` and `message`, and the `causes` it names."""

    def __init__(self, status: int, reason: str, message: str, causes: list[dict[str, Any]], what: str) -> None:
        self.status = status
        self.reason = reason
        self.server_message = message
        self.causes = causes
        self.what = what
        super().__init__(f"{what}: {message or reason or status}")


class Transport:
    """Sends requests with the dynamic client's connection and decodes the answers."""

    def __init__(self, client: Any) -> None:
        self._client = client

    @property
    def host(self) -> str:
        return str(self._client.client.configuration.host)

    def send(self, method: str, path: str, body: Any = None, what: str = "", **params: Any) -> Any:
        """The decoded JSON of the answer. Raises ApiError on a refusal and Unreadable when no answer came."""
        response = self._request(method, path, body, what, **params)
        text = response.data.decode("utf-8", "replace")
        try:
            return json.loads(text) if text else None
        except ValueError:
            raise Unreadable(f"{what or path}: {self.host} does not answer like an API server: {text[:100]!r}") from None

    def text(self, path: str, what: str = "", query: list[tuple[str, Any]] | None = None) -> str:
        """The plain text of a GET, such as a log."""
        data = self._request("GET", path, None, what, query_params=query or [], header_params={"Accept": "*/*"}).data
        return str(data.decode("utf-8", "replace"))

    def stream(self, path: str, what: str, seconds: int, **params: Any) -> Iterator[dict[str, Any]]:
        """Events of a watch, until the server ends it after `seconds`."""
        response = self._request(
            "GET", path, None, what, watch="true", timeout_seconds=seconds, _request_timeout=seconds + 10, **params
        )
        rest = b""
        for chunk in response.stream(4096, decode_content=False):
            rest += chunk
            *lines, rest = rest.split(b"\n")
            for line in lines:
                if line.strip():
                    yield json.loads(line)

    def _request(self, method: str, path: str, body: Any, what: str, **params: Any) -> Any:
        import urllib3
        from kubernetes.client.exceptions import ApiException
        from kubernetes.dynamic.exceptions import DynamicApiError

        params.setdefault("_request_timeout", REQUEST_TIMEOUT)
        params.setdefault("query_params", [])
        params.setdefault("header_params", {})
        what = what or f"{method} {path}"
        try:
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    return self._client.request(method.lower(), path, body=body, serialize=False, **params)
                except (DynamicApiError, ApiException) as error:
                    if error.status != 429 or attempt == ATTEMPTS:
                        raise refusal(error, what) from None
                    time.sleep(_pause(error))
        except urllib3.exceptions.HTTPError as error:
            raise Unreadable(f"{what}: no answer from {self.host}: {short(error)}") from None


def refusal(error: Any, what: str) -> ApiError:
    """The server's Status as an ApiError."""
    body = error.body.decode("utf-8", "replace") if isinstance(error.body, bytes) else str(error.body or "")
    try:
        status = json.loads(body)
    except ValueError:
        status = {}
    if not isinstance(status, dict):
        status = {}
    causes = (status.get("details") or {}).get("causes") or []
    message = str(status.get("message") or body[:500] or error.reason or "")
    return ApiError(int(error.status or 0), str(status.get("reason") or ""), message, causes, what)


def unreadable(error: ApiError, what: str) -> Unreadable:
    """A refused read in the words of discovery: forbidden, absent or failed."""
    if error.status in (401, 403):
        rule = missing_right(error.server_message)
        return Forbidden(f"{what}: {error.server_message}{f'. {rule}' if rule else ''}")
    if error.status == 404:
        return Absent(f"{what}: not served by this API server")
    return Unreadable(f"{what}: {error.server_message}")


def _pause(error: Any) -> float:
    """Seconds to wait before the next attempt."""
    try:
        asked = float((error.headers or {}).get("Retry-After") or 1)
    except ValueError:
        asked = 1.0
    return min(max(asked, 0.1), LONGEST_PAUSE)


_RIGHT = re.compile(
    r'cannot (?P<verb>\S+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]+)")?'
)


def missing_right(message: str) -> str:
    """The RBAC rule that a refusal asks for; empty when it is no refusal by RBAC (admission, quota)."""
    found = _RIGHT.search(message)
    return right(found["group"], found["resource"], found["verb"], found["namespace"]) if found else ""


def right(group: str, resource: str, verb: str, namespace: str | None) -> str:
    """An RBAC rule in words; no namespace: cluster-wide."""
    where = f" in the namespace {namespace}" if namespace else ", cluster-wide"
    return f'missing right: apiGroups ["{group}"], resources ["{resource}"], verbs ["{verb}"]{where}; docs/rbac.md has the roles'


def short(error: Exception) -> str:
    """An error's text, cut: urllib3 quotes whole requests."""
    text = str(error)
    return text if len(text) <= 300 else text[:300] + "..."
