# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The dry run of a Service that cannot be: every text that Kubernetes has answered with."""

from __future__ import annotations

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._facts import probe
from ansible_collections.homelab.netguard.plugins.module_utils._facts.discover import discover
from clusters import cluster, two
from clusters_families import CLUSTERS
from recordings import Cluster, Object

X = "192.0.2.1"
WRAP = 'Service "netguard-probe-" is invalid: '
RANGE = "10.96.0.0/12"
GO = f'spec.clusterIPs: Invalid value: []string{{"{X}"}}: '
JSON = f'spec.clusterIPs: Invalid value: ["{X}"]: '
OUTSIDE = "is not in the valid range. The range of valid IPs is"
#: version -> (text, the range that it names)
TEXTS: dict[str, tuple[str, str]] = {
    "1.7": (f'spec.clusterIP: Invalid value: "{X}": provided IP is not in the valid range', ""),
    "1.8": (f'spec.clusterIP: Invalid value: "{X}": provided IP {OUTSIDE} {RANGE}', RANGE),
    "1.20": (f"{GO}failed to allocated ip:{X} with error:provided IP {OUTSIDE} {RANGE}", RANGE),
    "1.23": (f"{GO}failed to allocate IP {X}: provided IP {OUTSIDE} {RANGE}", RANGE),
    "1.32": (f"{GO}failed to allocate IP {X}: the provided IP ({X}) {OUTSIDE} {RANGE}", RANGE),
    "1.34 dry": (f"{JSON}failed to allocate IP {X}: the provided IP ({X}) {OUTSIDE} {RANGE}", RANGE),
    "1.33": (f"{JSON}failed to allocate IP {X}: the provided network does not match the current range", ""),
    "1.33, older form": (f"{GO}failed to allocate IP {X}: the provided network does not match the current range", ""),
    "proposed, shorter": (f"{JSON}provided IP {X} is not in the valid range", ""),
    "proposed": (f"{JSON}the provided IP ({X}) is not in the valid range", ""),
    "IPv6": ("The range of valid IPs is fd00:10:96::/112", "fd00:10:96::/112"),
    "not ready": ("allocator not ready", ""),
    "full": ("Internal error occurred: failed to allocate a serviceIP: range is full", ""),
}


@pytest.mark.parametrize("version", TEXTS)
def test_texts(version: str) -> None:
    text, expected = TEXTS[version]
    assert probe.answer(WRAP + text) == expected


@pytest.mark.parametrize(
    "text",
    [
        'spec.clusterIPs[0]: Invalid value: []string{"::1"}: IPv6 is not configured on this cluster',
        'spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster',
        "spec.ipFamilyPolicy: Invalid value: this cluster is not configured for dual-stack services",
    ],
)
def test_a_family_that_is_not_there(text: str) -> None:
    assert probe.single_stack(WRAP + text)
    assert not probe.answer(WRAP + text)


def asked(version: str, status: int, text: str) -> tuple[Cluster, dict[str, object]]:
    def refuse(manifest: Object) -> tuple[int, str]:
        if ":" in manifest["spec"]["clusterIP"]:
            return 422, WRAP + 'spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster'
        return status, WRAP + text

    recorded = cluster(two(), "10.96.0.1", version=version, refusal=refuse)
    return recorded, discover(recorded)["ranges"]["services"]


def test_it_proves_the_range_where_there_is_only_one() -> None:
    recorded, services = asked("v1.30.1", 422, TEXTS["1.32"][0])
    assert services["status"] == "complete"
    assert [item["cidr"] for item in services["cidrs"]] == [RANGE]  # type: ignore[attr-defined]
    assert [item["spec"]["clusterIP"] for item in recorded.probes] == [X, "2001:db8::1"]
    assert all("generateName" in item["metadata"] and "name" not in item["metadata"] for item in recorded.probes)


def test_it_is_never_the_sole_proof_where_there_may_be_several() -> None:
    recorded, services = asked("v1.34.1", 422, TEXTS["1.34 dry"][0])
    assert services["status"] == "partial"
    assert [item["spec"]["clusterIP"] for item in recorded.probes].count(X) == 3


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (201, ""),
        (403, "services is forbidden"),
        (400, "admission webhook does not support dry run"),
        (500, TEXTS["full"][0]),
        (422, TEXTS["1.33"][0]),
        (422, "something new"),
        (422, "The range of valid IPs is everything"),
        (422, "The range of valid IPs is 0.0.0.0/0"),
        (422, "The range of valid IPs is 10.200.0.0/16"),  # not where the API server's own Service is
    ],
)
def test_everything_else_is_no_answer(status: int, text: str) -> None:
    _recorded, services = asked("v1.30.1", status, text)
    assert services["status"] == "unknown"
    assert services["cidrs"] == []


def test_it_is_not_asked_where_the_range_is_written() -> None:
    for name, (recorded, expected) in CLUSTERS.items():
        fresh = recorded.plus()
        discover(fresh)
        assert expected.services_status != "complete" or fresh.probes == [], name
