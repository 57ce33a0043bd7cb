# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The operation of segmentation_policy."""

from __future__ import annotations

from typing import Any

from .._cluster.client import Read
from .._manifests import names, segments
from .._manifests.model import Desired
from .._manifests.workloads import WORKLOADS
from .._module import Context
from . import waiting

READS = (
    *(Read(api_version, kind) for kind, api_version in WORKLOADS.items()),
    Read("v1", "Service"),
    Read("v1", "Node"),
    Read("v1", "Namespace"),
)


def operation(context: Context) -> dict[str, Any]:
    """Writes default denies and every declared edge; `absent` removes them, denials first."""
    if context.state == "absent":
        return context.converge(Desired(), part=segments.PART, prune=True).result() | {"edges": [], "not_covered": [], "notes": []}
    if not context.topology.apps:
        context.refuse_empty("apps", segments.PART)
    live = context.read(READS)
    built = segments.build(context.topology, context.facts(), live, str(context.params["dialect"]))
    desired, later = waiting.split(context, _subset(context, built.desired), live)
    outcome = context.converge(desired, part=segments.PART)
    outcome.actions += later
    return outcome.result() | {"edges": list(built.edges), "not_covered": list(built.not_covered), "notes": list(built.notes)}


def _subset(context: Context, desired: Desired) -> Desired:
    """With `only`: the policies of these apps, and no default deny, which is about a whole namespace."""
    if not context.only:
        return desired
    wanted = {(app.namespace, names.segment(app)) for app in context.chosen(context.topology.apps)}
    waves = tuple(
        tuple(item for item in wave if (item["metadata"]["namespace"], item["metadata"]["name"].removeprefix("default.")) in wanted)
        for wave in desired.waves
    )
    return Desired(tuple(wave for wave in waves if wave))
