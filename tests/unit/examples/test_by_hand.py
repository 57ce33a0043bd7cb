# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An example's list, read a second time by no code of the collection, against the audit of the policies that are written for it.

The same pods stand on kind (Molecule scenario `examples`), where packets answer instead.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import yaml
from ansible_collections.homelab.netguard.plugins.module_utils._audit.engine import ALLOWED, DENIED, Engine, verdict
from ansible_collections.homelab.netguard.plugins.module_utils._audit.profiles import PROFILES
from ansible_collections.homelab.netguard.plugins.module_utils._audit.world import World
from ansible_collections.homelab.netguard.plugins.module_utils._manifests import segments
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Live
from ansible_collections.homelab.netguard.tests.kind.example_by_hand import PING, ByHand
from ansible_collections.homelab.netguard.tests.kind.example_pods import objects, workloads
from seeds import K3S, RASPBERRY, ROOT, declared, facts


def plain(example: str) -> dict[str, Any]:
    found = yaml.safe_load((ROOT / "examples" / example / "homelab.yml").read_text())
    return {name: found[f"netguard_{name}"] for name in ("apps", "platform", "namespaces")}


@pytest.mark.parametrize("example", [K3S, RASPBERRY])
def test_what_is_read_by_hand_is_what_the_audit_says(example: str) -> None:
    known, pods = facts(example, "calico"), tuple(objects(plain(example)))
    built = segments.build(declared(example), known, Live(pods))
    world = World(declared(example), known, Live((*pods, *built.desired.objects)))
    engine, by_hand = Engine(world, PROFILES["calico"]), ByHand(plain(example))
    index = {one.name: number for number, one in enumerate(world.endpoints)}
    wrong, counts = [], Counter[bool | None]()
    for source in workloads(plain(example)):
        for destination in workloads(plain(example)):
            found = engine.pair(index[source.key], index[destination.key])
            for port in (*destination.ports, PING):
                wanted = by_hand.pods(source, destination, port)
                said = verdict(found, port[0].upper(), port[1])
                counts[wanted] += 1
                if wanted is not None and said != (ALLOWED if wanted else DENIED):
                    wrong.append(f"{source.key} to {destination.key} on {port}: by hand {wanted}, {said}")
    assert not wrong, "\n".join(wrong[:40])
    assert counts[True] > 30
    assert counts[False] > 10 * counts[True]
