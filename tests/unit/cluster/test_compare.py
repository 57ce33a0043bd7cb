# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What counts as a difference. What the server really does with these shapes is shown in the API-server lane."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._cluster import fields
from ansible_collections.homelab.netguard.plugins.module_utils._cluster.compare import Sameness, compare, quantity, same
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import MANAGER
from hypothesis import given
from hypothesis import strategies as st

DIFFERENT, DOUBTFUL, SAME = Sameness.DIFFERENT, Sameness.DOUBTFUL, Sameness.SAME

#: (wanted, live, name of the field, typed: not a custom resource, result)
VALUES: list[tuple[Any, Any, str, bool, Sameness]] = [
    ("a", "a", "", True, SAME),
    ("a", "b", "", True, DIFFERENT),
    (1, True, "", True, DIFFERENT),
    (True, True, "", True, SAME),
    (False, None, "privileged", True, SAME),
    (False, None, "privileged", False, DOUBTFUL),
    ([], None, "egress", True, SAME),
    ([], None, "egress", False, DOUBTFUL),
    ({}, None, "matchLabels", True, SAME),
    ({}, None, "namespaceSelector", True, DOUBTFUL),
    ("x", None, "", True, DIFFERENT),
    ([1], None, "", True, DIFFERENT),
    ({"a": 1}, {"a": 1, "protocol": "TCP"}, "", True, SAME),
    ({"a": 1}, {"a": 1, "protocol": "UDP"}, "", True, DOUBTFUL),
    ({"a": 1}, {"a": 1, "except": ["x"]}, "", True, DOUBTFUL),
    ({"a": 1, "b": 2}, {"a": 1}, "", True, DIFFERENT),
    ({"a": 1}, {"a": 2, "x": 1}, "", True, DIFFERENT),
    ([{"a": 1}], [{"a": 1}, {"a": 2}], "", True, DIFFERENT),
    ([1, 2], [2, 1], "", True, DIFFERENT),
    ({"cpu": "1000m", "memory": "1024Mi"}, {"cpu": "1", "memory": "1Gi"}, "limits", True, SAME),
    ({"cpu": "100m"}, {"cpu": "0.2"}, "limits", True, DIFFERENT),
    ({"cpu": "1000m"}, {"cpu": "1"}, "labels", True, DIFFERENT),
]


@pytest.mark.parametrize(("wanted", "live", "name", "typed", "expected"), VALUES)
def test_values(wanted: Any, live: Any, name: str, typed: bool, expected: Sameness) -> None:
    assert same(wanted, live, name, typed=typed) is expected


QUANTITIES = [("1", "1000m"), ("1Gi", "1024Mi"), ("1G", "1000M"), ("0.5", "500m"), ("2k", "2000"), ("1e3", "1e3"), (1, "1")]


@pytest.mark.parametrize(("one", "other"), QUANTITIES)
def test_quantities_that_are_equal(one: Any, other: Any) -> None:
    assert quantity(one) == quantity(other)


@pytest.mark.parametrize(("one", "other"), [("1", "1m"), ("1G", "1Gi"), ("1M", "1m"), ("none", "1")])
def test_quantities_that_are_not(one: Any, other: Any) -> None:
    assert quantity(one) != quantity(other)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "protocol", "limits"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(values, st.booleans())
def test_a_value_equals_itself(value: Any, typed: bool) -> None:
    assert value is None or same(value, copy.deepcopy(value), typed=typed) is SAME


@given(st.dictionaries(st.sampled_from(["a", "b"]), values, max_size=2), values)
def test_what_an_earlier_run_wanted_and_this_one_does_not_is_never_overlooked(value: dict[str, Any], more: Any) -> None:
    found = same(value, {**copy.deepcopy(value), "former": more})
    assert found is (SAME if more is None else DOUBTFUL)


def live(spec: dict[str, Any], *holders: tuple[str, str, dict[str, Any]], kind: str = "NetworkPolicy") -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": kind,
        "metadata": {
            "name": "x",
            "managedFields": [
                {"manager": manager, "operation": operation, "fieldsV1": tree} for manager, operation, tree in holders
            ],
        },
        "spec": spec,
    }


def wanted(spec: dict[str, Any], kind: str = "NetworkPolicy") -> dict[str, Any]:
    return {"apiVersion": "networking.k8s.io/v1", "kind": kind, "metadata": {"name": "x"}, "spec": spec}


OURS = (MANAGER, "Apply", {"f:spec": {"f:podSelector": {}, "f:egress": {}}})
EDIT = ("kubectl-edit", "Update", {"f:spec": {"f:ingress": {}}})
SPEC: dict[str, Any] = {"podSelector": {"matchLabels": {"a": "b"}}, "egress": [{"ports": [{"port": 1}]}]}


def test_unchanged_is_what_we_hold_and_nothing_more() -> None:
    assert compare(wanted(SPEC), live(SPEC, OURS)).unchanged
    assert compare(wanted(SPEC), live({**SPEC, "policyTypes": ["Egress"]}, OURS)).unchanged  # a default is nobody's


def test_a_field_that_we_do_not_hold_is_taken() -> None:
    tree = {"f:spec": {"f:podSelector": {}}}
    assert compare(wanted(SPEC), live(SPEC, (MANAGER, "Apply", tree))).differing == (("f:spec", "f:egress"),)
    assert compare(wanted(SPEC), live(SPEC, (MANAGER, "Update", {"f:spec": {}}))).differing
    assert compare(wanted(SPEC), live(SPEC)).differing


def test_a_field_that_we_hold_and_no_longer_want_is_left_over() -> None:
    tree = {"f:spec": {"f:podSelector": {}, "f:egress": {}, "f:ingress": {}}}
    found = compare(wanted(SPEC), live({**SPEC, "ingress": [{}]}, (MANAGER, "Apply", tree)))
    assert found.left_over == (("f:spec", "f:ingress"),)


@pytest.mark.parametrize(("kind", "expected"), [("NetworkPolicy", ["/spec/ingress"]), ("Deployment", [])])
def test_what_stands_beside_ours_counts_where_it_weakens(kind: str, expected: list[str]) -> None:
    found = compare(wanted(SPEC, kind), live({**SPEC, "ingress": [{}]}, OURS, EDIT, kind=kind))
    assert [pointer for pointer, _holder in found.beside] == expected


def test_beside_the_spec_counts_too() -> None:
    # a CiliumNetworkPolicy has `specs` beside `spec`
    thing = {
        **live(SPEC, OURS, ("kubectl-edit", "Update", {"f:specs": {}}), kind="CiliumNetworkPolicy"),
        "specs": [{"egress": [{}]}],
    }
    found = compare(wanted(SPEC, "CiliumNetworkPolicy"), thing)
    assert [pointer for pointer, _holder in found.beside] == ["/specs"]


def test_a_list_item_of_another_is_not_in_the_way_of_a_new_one_of_ours() -> None:
    tree = {"f:spec": {"f:ports": {'k:{"port":1,"protocol":"TCP"}': {".": {}, "f:port": {}}}}}
    theirs = {"f:spec": {"f:ports": {'k:{"port":9,"protocol":"TCP"}': {".": {}, "f:port": {}}}}}
    thing = live(
        {"ports": [{"port": 1, "protocol": "TCP"}, {"port": 9, "protocol": "TCP"}]},
        (MANAGER, "Apply", tree),
        ("flux", "Apply", theirs),
    )
    found = compare(wanted({"ports": [{"port": 1}, {"port": 2}]}, "Service"), thing)
    assert found.differing == (("f:spec", "f:ports", 'k:{"port":2,"protocol":"TCP"}'),)
    assert not [holder for holder in fields.holders(thing) if not holder.ours and fields.overlaps(holder.tree, found.differing[0])]


POD_TREE = {
    "f:spec": {
        "f:dnsPolicy": {},
        "f:containers": {'k:{"name":"a"}': {".": {}, "f:name": {}, "f:image": {}}},
        "f:labels": {"f:x": {}},
    }
}
POD = {"spec": {"dnsPolicy": "Default", "containers": [{"name": "a", "image": "x"}], "labels": {"x": "1", "y": "2"}}}
#: (patch, held paths that it would change)
PATCHES: list[tuple[dict[str, Any], list[str]]] = [
    ({"dnsPolicy": "Default"}, []),
    ({"dnsPolicy": "None"}, ["spec.dnsPolicy"]),
    ({"dnsPolicy": None}, ["spec.dnsPolicy"]),
    ({"containers": [{"name": "b", "image": "y"}]}, []),
    ({"containers": [{"name": "a", "env": [{"name": "E"}]}]}, []),
    ({"containers": [{"name": "a", "image": "y"}]}, ["spec.containers[a].image"]),
    ({"containers": [{"name": "a", "$patch": "delete"}]}, ["spec.containers[a]"]),
    ({"containers": [{"name": "b", "$patch": "delete"}]}, []),
    ({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}, []),
    ({"labels": {"y": "3", "z": "4"}}, []),
    ({"labels": {"x": None}}, ["spec.labels.x"]),
    ({"$patch": "replace", "dnsPolicy": "Default"}, ["spec"]),
]


@pytest.mark.parametrize(("patch", "expected"), PATCHES)
def test_what_a_patch_would_take_from_its_holder(patch: dict[str, Any], expected: list[str]) -> None:
    assert [fields.dotted(path) for path in fields.overridden({"spec": patch}, POD, POD_TREE)] == expected
