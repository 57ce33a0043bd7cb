# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a user sees of objects, and what a refusal says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._argspec import ArgumentSpec
from ansible_collections.homelab.netguard.plugins.module_utils._cluster.client import explained
from ansible_collections.homelab.netguard.plugins.module_utils._cluster.outcome import Action, Outcome
from ansible_collections.homelab.netguard.plugins.module_utils._cluster.resources import Resource
from ansible_collections.homelab.netguard.plugins.module_utils._cluster.shown import meaningful, redacted, reduced, shown
from ansible_collections.homelab.netguard.plugins.module_utils._cluster.transport import (
    ApiError,
    missing_right,
    refusal,
    unreadable,
)
from ansible_collections.homelab.netguard.plugins.module_utils._facts.reader import Absent, Forbidden, Unreadable
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Key
from hypothesis import given, settings
from hypothesis import strategies as st

secrets = st.text("xyz", min_size=6, max_size=9).map(lambda text: f"@{text}@")
data = st.dictionaries(st.sampled_from(["a", "b", "c"]), secrets, max_size=3)


def secret(values: dict[str, str], field: str = "data") -> dict[str, Any]:
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps(values)}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "annotations": annotations}, field: dict(values)}


@settings(deadline=None)
@given(data, data, st.sampled_from(["data", "stringData"]))
def test_no_secret_value_is_shown_and_every_change_is(before: dict[str, str], after: dict[str, str], field: str) -> None:
    key = Key("v1", "Secret", "n", "s")
    outcome = Outcome([Action(key, "changed", secret(before, field), secret(after, field), keys=tuple(sorted(after)))])
    text = json.dumps([outcome.diff(), outcome.result(), shown(secret(after, field))])
    assert "@" not in text
    left, right = redacted(secret(before, field), secret(after, field))
    for name in {*before, *after}:
        assert (left[field].get(name) != right[field].get(name)) == (before.get(name) != after.get(name))


def test_meaningful_leaves_out_what_is_the_servers() -> None:
    found = meaningful(
        {
            "kind": "ConfigMap",
            "metadata": {"name": "x", "uid": "1", "resourceVersion": "2", "managedFields": [], "labels": {"a": "b"}},
            "status": {"x": 1},
            "data": {"a": "b"},
        }
    )
    assert found == {"kind": "ConfigMap", "metadata": {"name": "x", "labels": {"a": "b"}}, "data": {"a": "b"}}


def test_reduced_keeps_the_identity_and_what_differs() -> None:
    before = {"kind": "A", "metadata": {"name": "x", "labels": {"a": "1", "b": "2"}}, "spec": {"same": 1, "list": [1]}}
    after = {
        "kind": "A",
        "metadata": {"name": "x", "labels": {"a": "1", "b": "3"}},
        "spec": {"same": 1, "list": [1, 2], "new": True},
    }
    left, right = reduced(before, after)
    assert left == {"kind": "A", "metadata": {"name": "x", "labels": {"b": "2"}}, "spec": {"list": [1]}}
    assert right == {"kind": "A", "metadata": {"name": "x", "labels": {"b": "3"}}, "spec": {"list": [1, 2], "new": True}}


@pytest.mark.parametrize(
    ("action", "changed"), [("created", True), ("repaired", True), ("deleted", True), ("kept", False), ("waiting", False)]
)
def test_changed(action: str, changed: bool) -> None:
    assert Outcome([Action(Key("v1", "ConfigMap", "n", "x"), action)]).changed is changed


ROLES = "; docs/rbac.md has the roles"
RIGHTS = [
    (
        'configmaps is forbidden: User "u" cannot list resource "configmaps" in API group "" at the cluster scope',
        'missing right: apiGroups [""], resources ["configmaps"], verbs ["list"], cluster-wide' + ROLES,
    ),
    (
        'deployments.apps "x" is forbidden: User "u" cannot patch resource "deployments" in API group "apps" in the namespace "n"',
        'missing right: apiGroups ["apps"], resources ["deployments"], verbs ["patch"] in the namespace n' + ROLES,
    ),
    ('pods "x" is forbidden: violates PodSecurity "baseline": the container cannot have NET_ADMIN', ""),
    ("ValidatingAdmissionPolicy 'x' denied request: it cannot be", ""),
]


@pytest.mark.parametrize(("message", "expected"), RIGHTS)
def test_the_missing_right(message: str, expected: str) -> None:
    assert missing_right(message) == expected


@pytest.mark.parametrize(
    ("method", "said", "rule"),
    [
        # what Kubernetes 1.30 says of an apply that would create
        ("PATCH", 'configmaps "x" is forbidden: ', 'resources ["configmaps"], verbs ["create"] in the namespace media'),
        ("DELETE", 'configmaps "x" is forbidden: ', ""),
        ("PATCH", 'configmaps "x" is forbidden: exceeded quota', ""),
    ],
)
def test_a_refusal_without_a_reason(method: str, said: str, rule: str) -> None:
    key = Key("v1", "ConfigMap", "media", "x")
    error = ApiError(403, "Forbidden", said, [], "write x")
    text = str(explained(error, method, Resource("v1", "configmaps", True), key))
    assert ("missing right" in text) == bool(rule)
    assert rule in text


class Answer:
    def __init__(self, status: int, body: Any) -> None:
        self.status, self.body, self.reason = status, body, "Reason"


ANSWERS: list[tuple[int, Any, str, type[Unreadable]]] = [
    (403, b'{"message": "no", "reason": "Forbidden"}', "no", Forbidden),
    (401, b'{"message": "who"}', "who", Forbidden),
    (404, b'{"message": "not there"}', "not there", Absent),
    (500, b"<html>", "<html>", Unreadable),
    (503, b"", "Reason", Unreadable),
    (502, b'["list"]', '["list"]', Unreadable),
    (504, None, "Reason", Unreadable),
]


@pytest.mark.parametrize(("status", "body", "text", "kind"), ANSWERS)
def test_refusals(status: int, body: Any, text: str, kind: type[Unreadable]) -> None:
    error = refusal(Answer(status, body), "read x")
    assert error.status == status
    assert str(error) == f"read x: {text}"
    assert unreadable(error, "read x").__class__ is kind


def test_argument_specs_join_and_are_not_shared() -> None:
    one = ArgumentSpec({"a": {"type": "str"}, "b": {"type": "str"}}, mutually_exclusive=(("a", "b"),))
    two = ArgumentSpec(
        {"b": {"type": "int"}, "c": {"type": "str"}}, required_together=(("b", "c"),), required_if=(("a", "x", ["c"]),)
    )
    joined = one.merge(two).arguments()
    assert joined == {
        "argument_spec": {"a": {"type": "str"}, "b": {"type": "int"}, "c": {"type": "str"}},
        "mutually_exclusive": [("a", "b")],
        "required_together": [("b", "c")],
        "required_if": [("a", "x", ["c"])],
    }
    joined["argument_spec"]["a"]["type"] = "changed"
    assert one.options["a"] == {"type": "str"}
