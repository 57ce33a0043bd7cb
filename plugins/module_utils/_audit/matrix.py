# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who reaches whom: between apps, platform parts and outside, as data and as a table for a terminal."""

from __future__ import annotations

from typing import Any

from .check_clients import public
from .check_edges import dns_endpoints
from .engine import EGRESS, INGRESS, Engine
from .sets import Addresses, Ports
from .world import World, bits

PING = Ports.whole("ICMP")


def matrix(engine: Engine) -> dict[str, Any]:
    """`names` (apps, then groups, then internet and LAN) and `rows`: by source a list of cells in the same order.

    A cell is {verdict, ports}; verdict is allowed, denied, implementation-defined or self.
    """
    world = engine.world
    groups = _groups(world, engine)
    names = [name for name, _mask in groups]
    outside = {"internet": public(world), "LAN": Addresses.of(world.facts.lan)}
    rows = []
    for name, sources in groups:
        cells: list[dict[str, str]] = []
        for other, destinations in groups:
            cells.append({"verdict": "self", "ports": ""} if name == other else _between(engine, sources, destinations))
        cells += [_outward(engine, sources, addresses, EGRESS) for addresses in outside.values()]
        rows.append({"from": name, "cells": cells})
    for name, addresses in outside.items():
        inward = [_outward(engine, destinations, addresses, INGRESS) for _other, destinations in groups]
        rows.append({"from": name, "cells": [*inward, *({"verdict": "self", "ports": ""} for _one in outside)]})
    return {"profile": engine.profile.name, "names": [*names, *outside], "rows": rows}


def _groups(world: World, engine: Engine) -> list[tuple[str, int]]:
    """Declared apps one by one, gateways, DNS, and what is left by namespace."""
    found = [(app.key, world.by_app[app.key]) for app in world.topology.apps if world.by_app.get(app.key)]
    found += [(f"gateway {name}", mask) for name, mask in sorted(world.by_gateway.items())]
    resolvers = dns_endpoints(engine)
    if resolvers:
        found.append(("cluster DNS", resolvers))
    seen = 0
    for _name, mask in found:
        seen |= mask
    for name in world.namespaces:
        rest = world.namespace(name) & ~seen
        if rest:
            found.append((f"{name}/*", rest))
    return found


def _between(engine: Engine, sources: int, destinations: int) -> dict[str, str]:
    """The union over the members: what any of them reaches of any."""
    sure, possible = Ports(), Ports()
    for source in bits(sources):
        reach = engine.side(source, EGRESS).possible.any_pod() | engine.world.host
        for destination in bits(destinations & reach):
            found = engine.effective(source, destination)
            sure, possible = sure | found.sure, possible | found.possible
    return _cell(sure, possible)


def _outward(engine: Engine, mask: int, addresses: Addresses, direction: str) -> dict[str, str]:
    sure, possible = Ports(), Ports()
    for index in bits(mask):
        side = engine.side(index, direction)
        for _found, ports in side.sure.towards(addresses):
            sure = sure | ports
        for _found, ports in side.possible.towards(addresses):
            possible = possible | ports
    return _cell(sure, possible)


def _cell(sure: Ports, possible: Ports) -> dict[str, str]:
    if sure - PING:
        return {"verdict": "allowed", "ports": (sure - PING).words() if sure != Ports.whole() else sure.words()}
    if possible - PING:
        return {"verdict": "implementation-defined", "ports": (possible - PING).words()}
    if sure or possible:
        return {"verdict": "allowed" if sure else "implementation-defined", "ports": "icmp"}
    return {"verdict": "denied", "ports": ""}


SIGNS = {"allowed": "+", "denied": ".", "implementation-defined": "?", "self": " "}


def table(found: dict[str, Any]) -> list[str]:
    """One line per source: + reaches, . does not, ? left to the implementation. Columns are numbered as the lines are."""
    names = found["names"]
    width = max((len(name) for name in names), default=4) + 4
    lines = [" " * width + " ".join(f"{index:>2}" for index in range(1, len(names) + 1))]
    for index, row in enumerate(found["rows"], 1):
        cells = " ".join(f" {SIGNS[cell['verdict']]}" for cell in row["cells"])
        lines.append(f"{index:>2} {row['from']:<{width - 3}}{cells}")
    return lines
