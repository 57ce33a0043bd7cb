# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The operation of cluster_cidrs: discovery, and a refusal where something that policies stand on is not certain."""

from __future__ import annotations

from typing import Any

from .._facts.discover import discover
from .._facts.result import from_result
from .._module import Context


def operation(context: Context) -> dict[str, Any]:
    """Returns `facts`; with `strict` raises FaultsError that names what settles each doubt. Never writes."""
    params = context.params
    facts = discover(
        context.online,
        overrides=params.get("overrides") or {},
        lan=params.get("lan") or [],
        reserved={f"the overlay of gateway {gateway.name}": gateway.overlay.network for gateway in context.topology.gateways},
        probe_namespace=params.get("probe_namespace") or "default",
    )
    facts["server"].update(context.online.identity())
    from_result(facts, strict=bool(params.get("strict", True)))
    return {"changed": False, "facts": facts}
