# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which other policies open a client: the traps of the NetworkPolicy API, one row each."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._audit.reopen import reopened_by
from ansible_collections.homelab.netguard.plugins.module_utils._manifests import killswitch
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Live
from killswitch_shapes import FACTS, QBIT, deployment, topology

ANYWHERE: dict[str, Any] = {"egress": [{}], "policyTypes": ["Egress"]}


def policy(spec: dict[str, Any], namespace: str = "media", **meta: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "other", "namespace": namespace} | meta,
        "spec": {"podSelector": {}} | spec,
    }


def to(*cidrs: str, **block: Any) -> dict[str, Any]:
    return {"policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": cidr} | block} for cidr in cidrs]}]}


@pytest.mark.parametrize(
    ("name", "spec", "opens"),
    [
        ("a rule without to", {"policyTypes": ["Egress"], "egress": [{"ports": [{"port": 53}]}]}, True),
        ("an empty rule", ANYWHERE, True),
        ("no policyTypes, but egress rules", {"egress": [{}]}, True),
        ("egress rules under Ingress alone are dead", {"policyTypes": ["Ingress"], "egress": [{}]}, False),
        ("deny all", {"policyTypes": ["Egress"]}, False),
        ("everything", to("0.0.0.0/0"), True),
        ("everything in two halves", to("0.0.0.0/1", "128.0.0.0/1"), True),
        ("IPv6", to("::/0"), True),
        ("except private ranges", to("0.0.0.0/0", **{"except": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]}), True),
        ("one public host", to("1.1.1.1/32"), True),
        ("the pod range", to("10.244.0.0/16"), False),
        ("pods by selector", {"policyTypes": ["Egress"], "egress": [{"to": [{"namespaceSelector": {}}]}]}, False),
        ("an undeclared LAN host", to("192.168.1.99/32"), True),
        ("other pods", ANYWHERE | {"podSelector": {"matchLabels": {"app": "other"}}}, False),
        (
            "clients excluded by our label",
            ANYWHERE | {"podSelector": {"matchExpressions": [{"key": "homelab.netguard/client", "operator": "DoesNotExist"}]}},
            False,
        ),
        (
            "the client excluded by its own",
            ANYWHERE | {"podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["qbit"]}]}},
            False,
        ),
        (
            "NotIn on a label that it lacks",
            ANYWHERE | {"podSelector": {"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["x"]}]}},
            True,
        ),
    ],
)
def test_network_policies(name: str, spec: dict[str, Any], opens: bool) -> None:
    found = reopened_by(topology(QBIT), FACTS, Live((deployment("qbit"), policy(spec))))
    assert bool(found) is opens, name
    if opens:
        assert (found[0]["client"], found[0]["name"], found[0]["rule"]) == ("media/qbit", "other", 0)


def test_what_the_client_declares_itself_is_no_opening() -> None:
    app = QBIT | {"external": [{"to": "192.168.1.10/32"}]}
    live = Live((deployment("qbit"), policy(to("192.168.1.10/32"))))
    assert reopened_by(topology(app), FACTS, live) == []


def test_policies_of_other_namespaces_and_kill_switches_are_none() -> None:
    shape = topology(QBIT)
    own = killswitch.build(shape, FACTS, Live((deployment("qbit"),))).desired.objects
    assert reopened_by(shape, FACTS, Live((deployment("qbit"), policy(ANYWHERE, "other"), *own))) == []


@pytest.mark.parametrize(
    ("api", "kind", "meta", "counts"),
    [
        ("cilium.io/v2", "CiliumNetworkPolicy", {"namespace": "media"}, True),
        ("cilium.io/v2", "CiliumNetworkPolicy", {"namespace": "other"}, False),
        ("cilium.io/v2", "CiliumClusterwideNetworkPolicy", {}, True),
        ("crd.projectcalico.org/v1", "GlobalNetworkPolicy", {}, True),
        ("projectcalico.org/v3", "NetworkPolicy", {"namespace": "media"}, True),
        ("projectcalico.org/v3", "NetworkPolicy", {"namespace": "media", "name": "knp.default.x"}, False),
    ],
)
def test_kinds_that_are_not_evaluated_count_as_openings(api: str, kind: str, meta: dict[str, Any], counts: bool) -> None:
    other = {"apiVersion": api, "kind": kind, "metadata": {"name": "x"} | meta, "spec": {}}
    found = reopened_by(topology(QBIT), FACTS, Live((deployment("qbit"), other)))
    assert bool(found) is counts
