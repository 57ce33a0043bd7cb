# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The operation of cluster_cidrs: discovery, and a refusal where something that policies stand on is not certain."""

from __future__ import annotations

import ipaddress
from typing import Any

from .._errors import FaultsError
from .._facts.discover import discover
from .._facts.result import from_result
from .._module import Context
from .._topology.model import Network, Topology


def operation(context: Context) -> dict[str, Any]:
    """Returns `facts`; with `strict` raises FaultsError that names what settles each doubt (the facts beside it). Never writes."""
    params = context.params
    facts = discover(
        context.online,
        overrides=params.get("overrides") or {},
        lan=params.get("lan") or [],
        reserved=_reserved(context.topology),
        probe_namespace=params.get("probe_namespace") or "default",
    )
    facts["server"].update(context.online.identity())
    try:
        from_result(facts, strict=bool(params.get("strict", True)))
    except FaultsError as error:
        error.details["facts"] = facts
        raise
    return {"changed": False, "facts": facts}


def _reserved(topology: Topology) -> dict[str, Network]:
    """Networks that no range of the cluster may overlap: overlays, and the addresses that tunnels have."""
    found: dict[str, Network] = {}
    for gateway in topology.gateways:
        found[f"the overlay of gateway {gateway.name}"] = gateway.overlay.network
        for position, address in enumerate(gateway.wireguard.addresses):
            found[f"the tunnel address {position} of gateway {gateway.name}"] = ipaddress.ip_interface(address).network
    return found
