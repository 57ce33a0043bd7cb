# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sources that stand in for others: what they say alone, and that they say nothing of another cluster."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from ansible_collections.homelab.netguard.plugins.module_utils._facts.discover import discover
from clusters import KINDNET, S244, cluster, plane, two
from recordings import Cluster, Object, config, custom, daemonset, metadata, node, servicecidr

KIND = cluster(two(S244), "10.96.0.1", KINDNET, *plane("10.244.0.0/16", "10.96.0.0/16"), servicecidr("10.96.0.0/16"))


def endpoints(name: str, namespace: str, addresses: list[str], *ports: tuple[str, int, str]) -> Object:
    return {
        "kind": "Endpoints",
        "apiVersion": "v1",
        "metadata": metadata(name, namespace),
        "subsets": [
            {
                "addresses": [{"ip": item} for item in addresses],
                "ports": [{"name": word, "port": number, "protocol": protocol} for word, number, protocol in ports],
            }
        ],
    }


OLD = KIND.plus(
    endpoints("kubernetes", "default", ["192.168.1.10"], ("https", 16443, "TCP")),
    endpoints("kube-dns", "kube-system", ["10.244.0.2"], ("dns", 1053, "UDP"), ("dns-tcp", 1053, "TCP")),
)


@pytest.mark.parametrize("fault", ["forbidden", "absent", "failed"])
def test_endpoints_speak_where_slices_may_not_be_read(fault: str) -> None:
    facts = discover(OLD.broken("EndpointSlice", fault))
    assert facts["api_server"]["endpoints"] == [{"ip": "192.168.1.10", "port": 16443}]
    assert facts["dns"]["ports"] == {"udp": [1053], "tcp": [1053]}


def test_endpoints_are_not_asked_beside_slices() -> None:
    recorded = OLD.plus()
    assert discover(recorded)["api_server"]["endpoints"] == [{"ip": "192.168.1.10", "port": 6443}]
    assert not [kind for _verb, _version, kind, _where in recorded.asked if kind == "Endpoints"]


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
@pytest.mark.parametrize(("address", "status"), [("10.96.200.7", "complete"), ("10.97.0.7", "conflict"), ("fd00::7", "unknown")])
def test_addresses_that_were_handed_out_are_observed(version: str, address: str, status: str) -> None:
    handed_out = custom(f"networking.k8s.io/{version}", "IPAddress", address)
    facts = discover(KIND.plus(handed_out).broken("Service", "forbidden"))
    assert facts["permissions"]["IPAddress"] == "ok"
    found = facts["ranges"]["services"]
    assert found["status"] == status
    assert found["observed"]["outside"] == ([address] if status == "conflict" else [])


#: annotation -> (its value on the node 192.168.1.10, the LAN that it tells)
OVN: dict[str, tuple[str, Any, list[str]]] = {
    "every interface of the host": ("host-cidrs", ["192.168.1.10/24", "10.9.0.1/16", "169.254.169.2/29"], ["192.168.1.0/24"]),
    "both families": ("host-cidrs", ["192.168.1.10/24", "2001:db8::a/64"], ["192.168.1.0/24", "2001:db8::/64"]),
    "the gateway": (
        "l3-gateway-config",
        {"default": {"mode": "shared", "ip-addresses": ["192.168.1.10/24"], "next-hops": ["192.168.1.1"], "vlan-id": "0"}},
        ["192.168.1.0/24"],
    ),
    "the gateway, one address": ("l3-gateway-config", {"default": {"ip-address": "192.168.1.10/24"}}, ["192.168.1.0/24"]),
    "no gateway": ("l3-gateway-config", {"default": {"mode": "disabled"}}, ["192.168.1.10/32", "2001:db8::a/128"]),
    "another interface alone": ("host-cidrs", ["10.9.0.1/16"], ["192.168.1.10/32", "2001:db8::a/128"]),
    "no list": ("host-cidrs", {"a": {"b": ["c"]}}, ["192.168.1.10/32", "2001:db8::a/128"]),
}


@pytest.mark.parametrize("name", OVN)
def test_annotations_of_ovn(name: str) -> None:
    key, value, expected = OVN[name]
    host = node("n1", ["192.168.1.10", "2001:db8::a"], S244[:1], notes={f"k8s.ovn.org/{key}": json.dumps(value)})
    facts = discover(cluster([host], "10.96.0.1", servicecidr("10.96.0.0/16")))
    told = [item for item in expected if not item.endswith(("/32", "/128"))]
    assert [item for item in facts["cidrs"]["lan"] if not item.endswith(("/32", "/128"))] == told
    assert facts["ranges"]["lan"]["status"] == ("complete" if len(told) == 2 else "partial")


def owner(host: str, version: str = "v1beta1", pods: str = "10.244.0.0/16", services: str = "10.96.0.0/16") -> Object:
    network = {"pods": {"cidrBlocks": [pods]}, "services": {"cidrBlocks": [services]}}
    spec = {"controlPlaneEndpoint": {"host": host, "port": 6443}, "clusterNetwork": network}
    return custom(f"cluster.x-k8s.io/{version}", "Cluster", "home", spec=spec)


KUBE_ROUTER = daemonset("kube-router", {"k8s-app": "kube-router"})
BARE = cluster(two(S244), "10.96.0.1", KUBE_ROUTER, servicecidr("10.96.0.0/16"))
VIP = config("kubeadm-config", {"ClusterConfiguration": yaml.safe_dump({"controlPlaneEndpoint": "192.168.1.99:6443"})})
#: (cluster, the status of the pods): without a record the slices alone prove nothing
OWNERS: dict[str, tuple[Cluster, str]] = {
    "by the endpoint": (BARE.plus(owner("192.168.1.10")), "complete"),
    "by the endpoint, newer": (BARE.plus(owner("192.168.1.10", "v1beta2")), "complete"),
    "by kubeadm's endpoint": (BARE.plus(VIP, owner("192.168.1.99")), "complete"),
    "another cluster": (BARE.plus(owner("192.168.7.7", pods="10.9.0.0/16")), "partial"),
    "no endpoint yet": (BARE.plus(owner("")), "partial"),
    "a record that is not true": (BARE.plus(owner("192.168.1.10", pods="10.9.0.0/16")), "conflict"),
}


@pytest.mark.parametrize("name", OWNERS)
def test_the_record_of_the_cluster_api(name: str) -> None:
    recorded, status = OWNERS[name]
    facts = discover(recorded)
    assert facts["ranges"]["pods"]["status"] == status
    assert status == "conflict" or "10.9.0.0/16" not in facts["cidrs"]["pods"]
    if status == "complete":
        (found,) = facts["ranges"]["pods"]["cidrs"]
        assert {"cluster-api"} <= {source["kind"] for source in found["sources"]}
