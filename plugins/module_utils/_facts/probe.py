# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Asks the API server for its service range by a Service that cannot be: always a dry run, nothing is ever created.

The wording by version: Kubernetes' service allocator; a refusal names the range after "valid IPs is" up to 1.32, and on
later versions in a dry run only, where it names one of possibly several ranges.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from . import observations as obs
from .observations import Asking, Observation
from .reader import Unreadable

PROBES = {4: "192.0.2.1", 6: "2001:db8::1"}
_RANGE = re.compile(r"valid IPs is\s+([0-9a-f:.]+/\d{1,3})", re.IGNORECASE)
_SINGLE = re.compile(r"not configured (on this cluster|for dual-stack)|IPv[46] is not configured", re.IGNORECASE)
#: From this version on several ranges can exist, and an answer names one of them.
SEVERAL_SINCE = (1, 33)


def answer(message: str) -> str:
    """The range that a refusal names; empty when it names none."""
    match = _RANGE.search(message)
    return match.group(1) if match else ""


def single_stack(message: str) -> bool:
    """Whether the refusal proves that the cluster does not have the family."""
    return bool(_SINGLE.search(message))


def ask(asking: Asking, namespace: str, version: tuple[int, int]) -> Iterable[Observation]:
    """One probe per family, three times where several ranges can exist. Whatever else is answered is no answer."""
    for family, address in PROBES.items():
        manifest = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"generateName": "netguard-probe-", "namespace": namespace},
            "spec": {"clusterIP": address, "ports": [{"port": 80, "protocol": "TCP"}]},
        }
        source = f"dry run of a Service, IPv{family}"
        found: list[str] = []
        for _attempt in range(3 if version >= SEVERAL_SINCE else 1):
            try:
                status, message = asking.reader.dry_run_create(manifest)
            except Unreadable as error:
                asking.notes.permissions[source] = error.reason
                return
            asking.notes.permissions[source] = "forbidden" if status in (401, 403) else "ok"
            if status == 422 and single_stack(message):
                asking.notes.single_stack.append(family)
                break
            if status != 422 or not answer(message):
                break
            found.append(answer(message))
        kind = "probe" if (0, 0) < version < SEVERAL_SINCE else "probe-multi"
        words = list(dict.fromkeys(found))
        yield from asking.claim("services", words, obs.RUNNING, kind, source, "message")
