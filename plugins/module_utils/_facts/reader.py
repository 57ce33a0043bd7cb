# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How discovery and builders see an API server: a protocol that `_cluster` implements and tests replace by recordings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from .._errors import NetguardError

Trim = Callable[[dict[str, Any]], dict[str, Any] | None]  # pylint: disable=unsupported-binary-operation


class Unreadable(NetguardError):
    """A read that gave no answer to rely on; `reason` is forbidden, absent or failed."""

    reason = "failed"


class Forbidden(Unreadable):
    """401 or 403: nothing may be concluded."""

    reason = "forbidden"


class Absent(Unreadable):
    """404 of the API itself (group, version or kind): the kind does not exist on this server."""

    reason = "absent"


class Reader(Protocol):
    """Reads plain objects. Lists are paged by the implementation and yield complete objects."""

    def get(self, api_version: str, kind: str, name: str, namespace: str = "") -> dict[str, Any] | None:
        """One object, None when it does not exist. Raises Unreadable."""

    def list(
        self,
        api_version: str,
        kind: str,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        *,
        trim: Trim | None = None,
    ) -> list[dict[str, Any]]:
        """Every object (`namespace` empty: of all namespaces). Raises Unreadable.

        `trim` is given each object of a page before the next page is asked for, and returns what to keep of it or None.
        """

    def raw(self, path: str) -> Any:
        """The decoded JSON of a GET on a path such as `/version` or `/apis`. Raises Unreadable."""

    def dry_run_create(self, manifest: dict[str, Any]) -> tuple[int, str]:
        """Server-side dry run of a CREATE: (HTTP status, message). Never persists anything. Raises Unreadable on no answer."""
