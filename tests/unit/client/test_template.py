# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Injection as arithmetic on pod templates: whatever the owner wrote comes back, field by field."""

from __future__ import annotations

import copy
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._manifests import client_template as subject
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.client_guard import GUARD, SIDECAR, VOLUME
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.client_patch import difference
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.client_template import Additions, inject, release
from hypothesis import given, settings
from hypothesis import strategies as st

_spec = importlib.util.spec_from_file_location("netguard_strategic", Path(__file__).with_name("strategic.py"))
assert _spec is not None
assert _spec.loader is not None
strategic = importlib.util.module_from_spec(_spec)
sys.modules["netguard_strategic"] = strategic
_spec.loader.exec_module(strategic)
merge = strategic.merge

names = st.sampled_from(["a", "b", "c", "zero", "app"])
contexts = st.one_of(
    st.none(),
    st.just({}),
    st.just({"runAsUser": 1000}),
    st.builds(
        lambda add, drop, extra: {
            **extra,
            "capabilities": {**({"add": add} if add else {}), **({"drop": drop} if drop else {})},
        },
        st.lists(st.sampled_from(["NET_ADMIN", "NET_RAW", "CHOWN", "NET_BIND_SERVICE"]), max_size=2, unique=True),
        st.lists(st.sampled_from(["ALL", "NET_RAW", "MKNOD"]), max_size=2, unique=True),
        st.sampled_from([{}, {"privileged": True}, {"runAsNonRoot": True}]),
    ),
)


def container(name: str, context: dict[str, Any] | None) -> dict[str, Any]:
    return {"name": name, "image": f"example/{name}", **({} if context is None else {"securityContext": context})}


containers = st.lists(st.tuples(names, contexts), max_size=3, unique_by=lambda pair: pair[0]).map(
    lambda pairs: [container(*pair) for pair in pairs]
)
dns = st.one_of(
    st.just({"dnsPolicy": "ClusterFirst"}),
    st.just({"dnsPolicy": "Default"}),
    st.just({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.53"], "options": [{"name": "ndots", "value": "2"}]}}),
    st.just({"dnsPolicy": "ClusterFirst", "dnsConfig": {"searches": ["home.example"]}}),
)
annotations = st.one_of(
    st.none(),
    st.just({"note": "kept"}),
    st.just({"kubectl.kubernetes.io/default-container": "b", "ambient.istio.io/dns-capture": "true"}),
)


@st.composite
def templates(draw: st.DrawFn) -> dict[str, Any]:
    init, main = draw(containers), draw(containers)
    taken = {item["name"] for item in init}
    main = [item for item in main if item["name"] not in taken] or [container("main", draw(contexts))]
    notes = draw(annotations)
    spec: dict[str, Any] = {"containers": main, "restartPolicy": "Always", "securityContext": {}, **draw(dns)}
    if init:
        spec["initContainers"] = init
    if draw(st.booleans()):
        spec["volumes"] = [{"name": "data", "emptyDir": {}}]
    return {"metadata": {"labels": {"app": "web"}, **({} if notes is None else {"annotations": notes})}, "spec": spec}


def additions(*, native: bool = True, dns_mode: str = "vpn", digest: str = "1", image: str = "example/guard:1") -> Additions:
    guard = {"name": GUARD, "image": image, "volumeMounts": [{"name": VOLUME, "mountPath": "/netguard"}]}
    sidecar = {"name": SIDECAR, "image": image, **({"restartPolicy": "Always"} if native else {})}
    return Additions(
        init=(guard, sidecar) if native else (guard,),
        containers=() if native else (sidecar,),
        volumes=({"name": VOLUME, "configMap": {"name": "netguard-client-web"}},),
        labels={"homelab.netguard/client": "proton", "homelab.netguard/instance": "home"},
        annotations={subject.DIGEST: digest},
        shared={"ambient.istio.io/dns-capture": "false"} if dns_mode == "vpn" else {},
        dns={"dnsPolicy": "None", "dnsConfig": {"nameservers": [f"172.16.0.{digest}"]}} if dns_mode == "vpn" else {},
    )


added = st.builds(
    additions,
    native=st.booleans(),
    dns_mode=st.sampled_from(["vpn", "cluster"]),
    digest=st.sampled_from(["1", "2"]),
    image=st.sampled_from(["example/guard:1", "example/guard:2"]),
)


@settings(max_examples=300, deadline=None)
@given(templates(), added)
def test_release_gives_back_what_was_there(template: dict[str, Any], extra: Additions) -> None:
    before = copy.deepcopy(template)
    assert release(inject(template, extra)) == before
    assert template == before, "the input is not touched"


@settings(max_examples=300, deadline=None)
@given(templates(), added, added)
def test_an_older_injection_leaves_no_trace(template: dict[str, Any], first: Additions, second: Additions) -> None:
    twice = inject(inject(template, first), second)
    assert twice == inject(template, second)
    assert release(twice) == template


@settings(max_examples=300, deadline=None)
@given(templates(), added, added)
def test_the_patch_is_exactly_the_difference(template: dict[str, Any], first: Additions, second: Additions) -> None:
    one = inject(template, first)
    two = inject(template, second)
    for before, after in ((template, one), (one, two), (two, template)):
        patch = difference(before, after)
        assert merge(before, patch) == after
        assert (patch == {}) == (before == after)


@settings(max_examples=100, deadline=None)
@given(templates(), added)
def test_the_guard_is_first_and_the_owners_order_is_kept(template: dict[str, Any], extra: Additions) -> None:
    spec = inject(template, extra)["spec"]
    assert spec["initContainers"][0]["name"] == GUARD
    ours = {GUARD, SIDECAR}
    for key in ("initContainers", "containers"):
        assert [item["name"] for item in spec[key] if item["name"] not in ours] == [
            item["name"] for item in template["spec"].get(key, [])
        ]


BASE = {
    "metadata": {"labels": {"app": "web"}},
    "spec": {"dnsPolicy": "ClusterFirst", "containers": [{"name": "app", "image": "example/app"}]},
}


def after_injection(change: str) -> dict[str, Any]:
    """The injected BASE with one field changed by hand."""
    template = inject(BASE, additions())
    spec = template["spec"]
    if change == "init in front":
        spec["initContainers"].insert(0, {"name": "zero", "image": "example/zero"})
    elif change == "guard edited":
        spec["initContainers"][0]["env"] = [{"name": "OFF", "value": "1"}]
    elif change == "guard gone":
        del spec["initContainers"][0]
    elif change == "dns taken back":
        spec["dnsPolicy"] = "ClusterFirst"
        del spec["dnsConfig"]
    elif change == "record gone":
        del template["metadata"]["annotations"][subject.ORIGINALS]
    elif change == "volume edited":
        spec["volumes"][0]["configMap"]["name"] = "other"
    elif change == "raw sockets back":
        del spec["containers"][0]["securityContext"]
    elif change == "label gone":
        del template["metadata"]["labels"]["homelab.netguard/client"]
    return template


@pytest.mark.parametrize(
    "change",
    ["init in front", "guard edited", "guard gone", "dns taken back", "volume edited", "raw sockets back", "label gone"],
)
def test_drift_is_repaired(change: str) -> None:
    drifted = after_injection(change)
    repaired = inject(drifted, additions())
    patch = difference(drifted, repaired)
    assert patch, "drift is a difference"
    assert merge(drifted, patch) == repaired
    assert repaired["spec"]["initContainers"][0] == additions().init[0]
    assert inject(repaired, additions()) == repaired


def test_a_value_that_the_owner_sets_later_becomes_the_original() -> None:
    template = inject(BASE, additions())
    template["spec"]["dnsPolicy"] = "Default"
    del template["spec"]["dnsConfig"]
    template = inject(template, additions())
    assert template["spec"]["dnsPolicy"] == "None"
    released = release(template)
    assert released["spec"]["dnsPolicy"] == "Default"
    assert "dnsConfig" not in released["spec"]


def test_without_the_record_the_pod_is_not_left_without_dns() -> None:
    released = release(after_injection("record gone"))
    assert released["spec"]["dnsPolicy"] == "ClusterFirst"
    assert "dnsConfig" not in released["spec"]
    assert not subject.injected(released)


@pytest.mark.parametrize(
    ("context", "loose", "drops"),
    [
        (None, "", True),
        ({"capabilities": {"drop": ["ALL"]}}, "", False),
        ({"capabilities": {"add": ["NET_RAW"]}}, "NET_RAW", False),
        ({"capabilities": {"add": ["CAP_NET_ADMIN"]}}, "NET_ADMIN", False),
        ({"privileged": True}, "privileged", False),
        ({"capabilities": {"add": ["CHOWN"]}}, "", True),
    ],
)
def test_raw_sockets_are_dropped_or_reported(context: dict[str, Any] | None, loose: str, drops: bool) -> None:
    template = copy.deepcopy(BASE)
    template["spec"]["containers"] = [container("app", context)]
    found = subject.loose_containers(template)
    assert found == ({"app": loose} if loose else {})
    after = inject(template, additions())["spec"]["containers"][0]
    assert ("NET_RAW" in after.get("securityContext", {}).get("capabilities", {}).get("drop", [])) is drops


def test_nothing_of_ours_in_a_plain_template() -> None:
    assert not subject.injected(BASE)
    assert subject.injected(inject(BASE, additions()))
