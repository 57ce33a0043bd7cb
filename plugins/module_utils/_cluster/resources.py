# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which path serves a kind. Each group and version that is needed is asked once."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from .._facts.reader import Absent
from .transport import ApiError, Transport, unreadable


@dataclass(frozen=True)
class Resource:
    """One served kind: its group and version, plural name and scope."""

    api_version: str
    plural: str
    namespaced: bool
    verbs: frozenset[str] = frozenset()

    @property
    def group(self) -> str:
        """The API group; empty for the core one."""
        return self.api_version.rpartition("/")[0]

    def path(self, namespace: str = "", name: str = "") -> str:
        """Path of one object, or of the list; without a namespace the list of all."""
        parts = [_root(self.api_version)]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name:
            parts.append(name)
        return "/".join(parts)


def _root(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


class Resources:
    """The kinds of a server, looked up by group and version on first use."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._known: dict[str, dict[str, Resource] | Exception] = {}
        self._lock = threading.Lock()

    def find(self, api_version: str, kind: str) -> Resource:
        """Raises Unreadable: Absent when the server has no such kind."""
        found = self.all(api_version)
        if kind not in found:
            raise Absent(f"{kind} ({api_version}): not served by this API server")
        return found[kind]

    def all(self, api_version: str) -> dict[str, Resource]:
        """The kinds of one group and version. Raises Unreadable."""
        with self._lock:
            if api_version not in self._known:
                self._known[api_version] = self._ask(api_version)
            found = self._known[api_version]
        if isinstance(found, Exception):
            raise found
        return found

    def forget(self) -> None:
        """After a custom resource definition was added."""
        with self._lock:
            self._known.clear()

    def _ask(self, api_version: str) -> dict[str, Resource] | Exception:
        try:
            answer = self._transport.send("GET", _root(api_version), what=f"resources of {api_version}")
        except ApiError as error:
            return unreadable(error, api_version)
        return {
            item["kind"]: Resource(api_version, item["name"], item["namespaced"], frozenset(item.get("verbs") or ()))
            for item in answer["resources"]
            if "/" not in item["name"]
        }
