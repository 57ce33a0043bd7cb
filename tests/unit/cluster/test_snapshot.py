# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A snapshot answers for a list only where it has every object that the list would have."""

from __future__ import annotations

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Live, Manifest

API, KIND = "networking.k8s.io/v1", "NetworkPolicy"
WANTED = {"instance": "home", "part": "killswitch"}


def item(name: str, api: str = API, **labels: str) -> Manifest:
    return {"apiVersion": api, "kind": KIND, "metadata": {"name": name, "namespace": "media", "labels": labels}}


OBJECTS = (
    item("ours", **WANTED, more="x"),
    item("another-part", instance="home", part="gateway"),
    item("another-home", instance="away", part="killswitch"),
    item("unlabelled"),
    item("another-api", "crd.projectcalico.org/v1", **WANTED),
)
#: How the kind was read (None: not at all) -> whether the snapshot answers.
READS = {
    "every object": ("", True),
    "by a label that is asked for too": ("instance=home", True),
    "by the other one": ("part=killswitch", True),
    "by another value": ("instance=away", False),
    "by a label that is not asked for": ("more=x", False),
    "by two labels at once": ("instance=home,part=killswitch", False),
    "not at all": (None, False),
}


@pytest.mark.parametrize(("selector", "answers"), READS.values(), ids=READS)
def test_only_what_was_read_whole(selector: str | None, answers: bool) -> None:
    live = Live(OBJECTS, listed={} if selector is None else {(API, KIND): selector})
    found = live.labelled(API, KIND, WANTED)
    assert (None if found is None else [entry["metadata"]["name"] for entry in found]) == (["ours"] if answers else None)


def test_another_api_of_the_same_kind_is_not_answered() -> None:
    live = Live(OBJECTS, listed={(API, KIND): ""})
    assert live.labelled("crd.projectcalico.org/v1", KIND, WANTED) is None
