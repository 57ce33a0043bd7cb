# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs of segmentation_policy on a real API server: the order of its writes, and what becomes of policies that are not wanted
any more, not written by us, or changed by others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._errors import NetguardError
from ansible_collections.homelab.netguard.plugins.module_utils._module import Context
from ansible_collections.homelab.netguard.plugins.module_utils._operations import segments
from ansible_collections.homelab.netguard.plugins.module_utils._topology.parse import parse
from killswitch_lab import APPLY, GATEWAYS, MERGE, Lab, client

API = "networking.k8s.io/v1"
CALICO = "crd.projectcalico.org/v1"
DENY = "netguard-default-deny"
WEB: dict[str, Any] = {"name": "web", "ports": {"http": 8080}, "uses": ["db:sql"]}
DB: dict[str, Any] = {"name": "db", "ports": {"sql": 5432}}
PING: dict[str, Any] = {"icmp": ["192.168.1.1/32"]}


class Segmented(Lab):
    """A lab with two workloads, and runs of segmentation_policy."""

    def apps(self, *apps: dict[str, Any], rules: list[dict[str, Any]] | None = None, **params: Any) -> Context:
        listed = [{"namespace": self.namespace} | app for app in apps or (WEB, DB)]
        topology = parse(self.instance, GATEWAYS, listed, {}, rules or [])
        options = {"facts": self.facts, "dialect": "auto", "state": "present"} | params
        check_mode = bool(options.pop("check_mode", False))
        return Context(options, check_mode, topology, type(self.cluster)(self.client, check_mode=check_mode))

    def segment(self, *apps: dict[str, Any], **params: Any) -> dict[str, Any]:
        result: dict[str, Any] = segments.operation(self.apps(*apps, **params))
        return result

    def names(self, kind: str = "NetworkPolicy", api: str = API) -> set[str]:
        return {item["metadata"]["name"] for item in self.cluster.list(api, kind, self.namespace)}

    def edit(self, name: str, body: dict[str, Any], how: str = MERGE, manager: str = "kubectl-edit") -> None:
        self.send("PATCH", self.path("NetworkPolicy", name), body, manager=manager, content_type=how)

    def clean(self) -> None:
        self.segment(state="absent")
        super().clean()


@pytest.fixture
def lab(server: Any) -> Iterator[Segmented]:
    found = Segmented(client(str(server.kubeconfig)))
    try:
        for name in ("web", "db"):
            found.create(found.workload("Deployment", name))
        yield found
    finally:
        found.clean()


def written(server: Any, mark: int, lab: Lab) -> list[tuple[str, str]]:
    """(verb, name) of what was kept in the lab's namespace since the mark, in the order of the audit log."""
    found = []
    for event in server.writes(mark):
        place = re.search(rf"/namespaces/{lab.namespace}/[a-z]+(?:/([^/?]+))?", event["requestURI"])
        if place:
            found.append((event["verb"], place[1] or event["requestObject"]["metadata"]["name"]))
    return found


def actions(result: dict[str, Any]) -> list[tuple[str, str]]:
    return sorted((item["name"], item["action"]) for item in result["objects"])


def test_what_is_allowed_comes_first_and_what_denies_goes_first(server: Any, lab: Segmented) -> None:
    mark = server.mark()
    first = lab.segment()
    order = [name for _verb, name in written(server, mark, lab)]
    assert sorted(order[:2]) == ["netguard-segment-db", "netguard-segment-web"]
    assert order[2:] == [DENY]
    assert actions(first) == [(name, "created") for name in sorted(order)]
    mark = server.mark()
    second = lab.segment()
    assert (second["changed"], second["objects"], written(server, mark, lab)) == (False, [], [])
    mark = server.mark()
    lab.segment(state="absent")
    gone = [name for verb, name in written(server, mark, lab) if verb == "delete"]
    assert gone[0] == DENY
    assert lab.names() == set()


def test_check_mode_says_all_and_keeps_nothing(server: Any, lab: Segmented) -> None:
    mark = server.mark()
    said = lab.segment(check_mode=True)
    assert actions(said) == [(name, "created") for name in (DENY, "netguard-segment-db", "netguard-segment-web")]
    assert written(server, mark, lab) == []
    lab.segment()
    assert lab.segment(check_mode=True)["changed"] is False


def test_a_renamed_app_has_its_new_policy_before_the_old_one_goes(server: Any, lab: Segmented) -> None:
    lab.segment()
    mark = server.mark()
    renamed = {**DB, "name": "postgres", "workload": "Deployment/db"}
    lab.segment({**WEB, "uses": ["postgres:sql"]}, renamed)
    order = written(server, mark, lab)
    assert order[-1] == ("delete", "netguard-segment-db")
    assert "netguard-segment-postgres" in [name for _verb, name in order[:-1]]
    assert lab.names() == {DENY, "netguard-segment-postgres", "netguard-segment-web"}


def test_an_app_dropped_from_the_list_stays_denied(lab: Segmented) -> None:
    """Its policy goes, and with it what it was allowed; the namespace's default deny holds it from then on."""
    lab.segment()
    result = lab.segment({**WEB, "uses": []})
    assert ("netguard-segment-db", "deleted") in actions(result)
    assert lab.names() == {DENY, "netguard-segment-web"}


def test_a_list_without_apps_tears_nothing_down(lab: Segmented) -> None:
    lab.segment()
    context = lab.apps()
    empty = Context(context.params, False, parse(lab.instance, GATEWAYS, [], {}, []), context.online)
    with pytest.raises(NetguardError, match="apps"):
        segments.operation(empty)
    assert DENY in lab.names()


def test_only_touches_these_apps_and_no_default_deny(lab: Segmented) -> None:
    lab.segment(only=["web"])
    assert lab.names() == {"netguard-segment-web"}
    lab.segment()
    lab.segment({**WEB, "uses": []}, only=["web"])
    assert lab.names() == {DENY, "netguard-segment-db", "netguard-segment-web"}


def test_one_policy_for_a_namespace_and_back(server: Any, lab: Segmented) -> None:
    lab.segment()
    joined = [{"name": lab.namespace, "layout": "namespace"}]
    apart = {**DB, "ports": {"sql": 5432}}
    mark = server.mark()
    result = lab.segment({**WEB, "uses": []}, apart, rules=joined)
    assert lab.names() == {DENY, "netguard-segments"}, result["notes"]
    order = written(server, mark, lab)
    first = [verb for verb, _name in order].index("delete")
    assert "netguard-segments" in [name for _verb, name in order[:first]]
    for _try in range(5):  # it selects every pod as well, and is no denial: deleted beside the deny it was now and then the first
        mark = server.mark()
        lab.segment(state="absent")
        assert written(server, mark, lab) == [("delete", DENY), ("delete", "netguard-segments")]
        lab.segment({**WEB, "uses": []}, apart, rules=joined)
    mark = server.mark()
    lab.segment({**WEB, "uses": []}, apart)
    assert written(server, mark, lab)[-1] == ("delete", "netguard-segments")
    assert lab.names() == {DENY, "netguard-segment-db", "netguard-segment-web"}


def test_an_owners_policy_of_our_name_is_left_as_it_is(lab: Segmented) -> None:
    meta = {"name": "netguard-segment-web", "namespace": lab.namespace}
    theirs = {"apiVersion": API, "kind": "NetworkPolicy", "metadata": meta, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}
    lab.create(theirs)
    with pytest.raises(NetguardError, match="netguard-segment-web"):
        lab.segment()
    found = lab.get(API, "NetworkPolicy", "netguard-segment-web")
    assert found is not None
    assert found["spec"] == theirs["spec"]
    assert lab.names() == {"netguard-segment-web"}, "nothing of a run that cannot end is written"
    assert lab.segment(state="absent")["changed"] is False
    assert lab.names() == {"netguard-segment-web"}


LOOSENED: dict[str, dict[str, Any]] = {
    "everything in": {"spec": {"ingress": [{}]}},
    "everything out": {"spec": {"egress": [{}]}},
    "one direction alone": {"spec": {"policyTypes": ["Ingress"]}},
    "other pods": {"spec": {"podSelector": {"matchLabels": {"x": "y"}}}},
}


@pytest.mark.parametrize("name", [DENY, "netguard-segment-db"])
@pytest.mark.parametrize("body", LOOSENED.values(), ids=LOOSENED)
def test_a_policy_changed_by_hand_is_mended_and_told(lab: Segmented, name: str, body: dict[str, Any]) -> None:
    lab.segment()
    wanted = lab.get(API, "NetworkPolicy", name)
    lab.edit(name, body)
    assert actions(lab.segment()) == [(name, "repaired")]
    found = lab.get(API, "NetworkPolicy", name)
    assert found is not None
    assert wanted is not None
    assert found["spec"] == wanted["spec"]


def test_a_field_of_another_owner_is_an_error_that_names_both(lab: Segmented) -> None:
    lab.segment()
    taken = {
        "apiVersion": API,
        "kind": "NetworkPolicy",
        "metadata": {"name": DENY, "namespace": lab.namespace},
        "spec": {"policyTypes": ["Ingress"]},
    }
    path = lab.path("NetworkPolicy", DENY)
    lab.send("PATCH", path, taken, manager="argocd-controller", content_type=APPLY, force_conflicts="true")
    with pytest.raises(NetguardError, match=r"(?s)argocd-controller.*policyTypes|policyTypes.*argocd-controller"):
        lab.segment()
    found = lab.get(API, "NetworkPolicy", DENY)
    assert found is not None
    assert found["spec"]["policyTypes"] == ["Ingress"]


def test_another_language_takes_over_and_hands_back(calico: Any, lab: Segmented) -> None:
    """On Calico pings have a policy of their own kind; without `icmp` it goes again."""
    lab.client.resources.invalidate_cache()
    lab.facts["cni"] |= {"ipam": "calico", "policy_apis": [API, CALICO]}
    mark = calico.mark()
    lab.segment({**WEB, **PING}, DB)
    extra = lab.names("NetworkPolicy", CALICO)
    assert extra, "pings need Calico's own kind"
    assert [name for _verb, name in written(calico, mark, lab)][-1] == DENY
    lab.segment()
    assert lab.names("NetworkPolicy", CALICO) == set()
    assert lab.names() == {DENY, "netguard-segment-db", "netguard-segment-web"}


def test_a_namespace_that_is_not_there_is_waited_for_and_the_others_are_done(lab: Segmented) -> None:
    later = {"name": "later", "namespace": f"{lab.namespace}-later", "pods": {"app": "later"}, "ports": {"http": 80}}
    result = lab.segment(WEB, DB, later)
    assert result["counts"]["waiting"] == 2
    assert ("netguard-segment-later", "waiting") in actions(result)
    assert lab.names() == {DENY, "netguard-segment-db", "netguard-segment-web"}
