# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Proofs by dry runs: an account without the right to try is told so, and not kept waiting."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._cluster.converge import Action
from ansible_collections.homelab.netguard.plugins.module_utils._errors import NetguardError
from ansible_collections.homelab.netguard.plugins.module_utils._manifests import admission
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Key
from ansible_collections.homelab.netguard.plugins.module_utils._operations import killswitch_proof
from killswitch_shapes import QBIT, topology

SHAPE = topology(QBIT)
PROTECTION = admission.protection_name(SHAPE)
DENY = {"apiVersion": "crd.projectcalico.org/v1", "kind": "GlobalNetworkPolicy", "metadata": {"name": "deny"}}


def forbidden(verb: str, resource: str, group: str = "") -> str:
    return f'{resource} is forbidden: User "x" cannot {verb} resource "{resource}" in API group "{group}" in the namespace "media"'


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(killswitch_proof, "PATIENCE", 0.0)
    monkeypatch.setattr(killswitch_proof, "DENY_PATIENCE", 0.0)
    monkeypatch.setattr(killswitch_proof, "PAUSE", 0.0)


@pytest.mark.parametrize(
    ("verb", "resource", "group"),
    [("create", "pods", ""), ("delete", "networkpolicies", "networking.k8s.io"), ("patch", "pods", "")],
)
def test_a_missing_right_for_the_proof_is_named_at_once(verb: str, resource: str, group: str) -> None:
    tries: list[int] = []

    def attempt() -> tuple[int, str]:
        tries.append(1)
        return 403, forbidden(verb, resource, group)

    with pytest.raises(NetguardError, match="needs its right all the same") as caught:
        killswitch_proof.wait_until(attempt, lambda status, text: False)
    assert f'apiGroups ["{group}"], resources ["{resource}"], verbs ["{verb}"]' in str(caught.value)
    assert len(tries) == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((403, f"ValidatingAdmissionPolicy '{PROTECTION}' with binding '{PROTECTION}' denied request"), ""),
        ((200, ""), f"is not protected against deletion: {PROTECTION} should refuse it"),
        ((403, forbidden("delete", "globalnetworkpolicies", "crd.projectcalico.org")), 'verbs ["delete"]'),
    ],
)
def test_what_is_said_of_a_hard_deny(answer: tuple[int, str], said: str) -> None:
    """No error whatever comes: the deny holds packets all the same."""
    context: Any = SimpleNamespace(topology=SHAPE, online=SimpleNamespace(dry_run=lambda verb, item: answer))
    written = [Action(Key(admission.API, admission.POLICY, "", PROTECTION), "created")]
    notes = killswitch_proof.unprotected(context, [DENY], written)
    assert len(notes) == bool(said)
    assert all(said in note and note.count("GlobalNetworkPolicy") == 1 for note in notes)


def test_the_protection_that_was_not_written_now_is_not_tried_again() -> None:
    context: Any = SimpleNamespace(topology=SHAPE)
    assert killswitch_proof.unprotected(context, [DENY], []) == []
