# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The endpoints of a snapshot and sets of them by selector, address and name.

Pods are bits of one number, so that a selector's result and every union of results are single operations.
"""

from __future__ import annotations

import ipaddress
import json
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .._facts.model import Facts
from .._manifests.model import Live
from .._manifests.segments_edges import tunnel_addresses
from .._manifests.workloads import PodSelector
from .._topology.model import Network, Topology
from . import endpoints, selectors
from .endpoints import Endpoint
from .sets import EVERYWHERE, Addresses, network


class World:
    """The endpoints of a snapshot and the questions that policies ask about them."""

    def __init__(self, topology: Topology, facts: Facts, live: Live) -> None:
        self.topology = topology
        self.facts = facts
        self.live = live
        self.namespaces = endpoints.namespaces(topology, facts, live)
        self.endpoints: tuple[Endpoint, ...] = tuple(endpoints.endpoints(topology, facts, live, self.namespaces))
        self.pod_range = Addresses.of(facts.pods)
        self.service_range = Addresses.of(facts.services)
        self.node_addresses = Addresses.of((*facts.nodes, *_node_addresses(live)))
        #: Where the node-local resolver listens: on each node, and on no interface that policies know as the node's own.
        self.local_resolver = Addresses.of([found] if (found := network(facts.dns.node_local_ip)) is not None else [])
        #: Of the nodes, inside the pods' ranges: no pod has one.
        self.tunnels = Addresses.of(tunnel_addresses(live))
        self.api_addresses = Addresses.of(ipaddress.ip_network(item.ip) for item in facts.api_endpoints)
        self.families = {4: "ipv4" in facts.ip_families, 6: "ipv6" in facts.ip_families}
        self.every = (1 << len(self.endpoints)) - 1
        self.host = 0
        self._by_namespace: dict[str, int] = defaultdict(int)
        self._by_label: dict[tuple[str, str], int] = defaultdict(int)
        self._by_key: dict[str, int] = defaultdict(int)
        self.by_app: dict[str, int] = defaultdict(int)
        self.by_gateway: dict[str, int] = defaultdict(int)
        self._selected: dict[str, int] = {}
        self._unlocated = 0  # pods whose addresses are not known
        self._located: dict[int, list[tuple[int, int]]] = {4: [], 6: []}  # (address, index)
        self._named: dict[tuple[str, str], dict[int, int]] = defaultdict(lambda: defaultdict(int))
        for index, one in enumerate(self.endpoints):
            bit = 1 << index
            self._by_namespace[one.namespace] |= bit
            for key, value in one.labels.items():
                self._by_label[key, value] |= bit
                self._by_key[key] |= bit
            if one.host_network:
                self.host |= bit
            if one.app:
                self.by_app[one.app] |= bit
            if one.gateway:
                self.by_gateway[one.gateway] |= bit
            for port, number in one.ports.items():
                self._named[port][number] |= bit
            if not one.host_network:
                self._unlocated |= 0 if one.addresses else bit
                for family, parts in ((4, one.addresses.v4.parts), (6, one.addresses.v6.parts)):
                    self._located[family] += [(number, index) for first, last in parts for number in range(first, last + 1)]
        for known in self._located.values():
            known.sort()

    # -- sets of pods

    @property
    def pods(self) -> int:
        """Every endpoint that a selector can take: none on the node's network."""
        return self.every & ~self.host

    @property
    def named(self) -> Mapping[tuple[str, str], Mapping[int, int]]:
        return self._named

    def named_of(self, index: int) -> dict[tuple[str, str], dict[int, int]]:
        """The named ports of one endpoint, as if it were every destination: for its ingress."""
        return {port: {number: self.every} for port, number in self.endpoints[index].ports.items()}

    def namespace(self, name: str) -> int:
        return self._by_namespace.get(name, 0) & ~self.host

    def in_namespaces(self, selector: Mapping[str, Any] | None) -> int:
        """Pods of the namespaces whose labels a selector takes; None: of none."""
        if selector is None:
            return 0
        key = "n" + json.dumps(selector, sort_keys=True)
        if key not in self._selected:
            found = 0
            for name, labels in self.namespaces.items():
                if selectors.matches(selector, labels):
                    found |= self._by_namespace.get(name, 0)
            self._selected[key] = found & ~self.host
        return self._selected[key]

    def labelled(self, selector: Mapping[str, Any] | None) -> int:
        """Pods of any namespace whose labels a selector takes; None: none. By label, not by pod."""
        if selector is None:
            return 0
        key = "p" + json.dumps(selector, sort_keys=True)
        if key not in self._selected:
            found = self.pods
            for label, value in (selector.get("matchLabels") or {}).items():
                found &= self._by_label.get((label, value), 0)
            for item in selector.get("matchExpressions") or []:
                found &= self._expression(item)
            self._selected[key] = found
        return self._selected[key]

    def _expression(self, item: Mapping[str, Any]) -> int:
        key, operator = item.get("key", ""), item.get("operator")
        having = 0
        for value in item.get("values") or []:
            having |= self._by_label.get((key, value), 0)
        if operator == "In":
            return having
        if operator == "NotIn":
            return self.every & ~having
        if operator == "Exists":
            return self._by_key.get(key, 0)
        return self.every & ~self._by_key.get(key, 0) if operator == "DoesNotExist" else 0

    def pods_where(self, test: Any) -> int:
        """Pods whose endpoint passes a test: for languages whose selectors are no Kubernetes label selectors."""
        found = 0
        for index, one in enumerate(self.endpoints):
            if not one.host_network and test(one):
                found |= 1 << index
        return found

    def select(self, namespace: str, selector: PodSelector) -> int:
        """Endpoints of one namespace by a builder's selector, those on the node's network included."""
        found = 0
        for index in bits(self._by_namespace.get(namespace, 0)):
            if selector.matches(self.endpoints[index].labels):
                found |= 1 << index
        return found

    def with_address_in(self, wanted: Addresses, version: int = 0) -> tuple[int, int]:
        """(pods all of whose addresses are in the set, pods of which some may be). `version`: of one family's addresses alone,
        where a pod without any counts as being in the set."""
        sure, maybe = 0, 0
        pod_range = of_family(self.pod_range, version)
        if pod_range and pod_range.issubset(wanted):
            sure = self._unlocated
        if (pod_range & wanted) - self.tunnels if self.pod_range else wanted:
            maybe = self._unlocated
        for family, parts in ((4, wanted.v4.parts), (6, wanted.v6.parts)):
            known = self._located[family] if version in (0, family) else []
            for first, last in parts:
                for _address, index in known[bisect_left(known, (first, 0)) : bisect_right(known, (last, len(self.endpoints)))]:
                    maybe |= 1 << index
        located = maybe & ~self._unlocated
        if version:
            located |= self.pods & ~self._unlocated
        for index in bits(located):
            sure |= int(of_family(self.endpoints[index].addresses, version).issubset(wanted)) << index
        return sure, maybe | sure

    def mask_of(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> int:
        """The pods that have this address now."""
        return sum(1 << index for index, one in enumerate(self.endpoints) if not one.host_network and address in one.addresses)

    # -- addresses

    @property
    def many_nodes(self) -> bool:
        """Whether there is another node than the one that runs a pod, as far as their addresses tell."""
        return any(
            last > first or len(part.parts) > 1
            for part in (self.node_addresses.v4, self.node_addresses.v6)
            for first, last in part.parts
        )

    @property
    def world(self) -> Addresses:
        """Every address that is neither pod, Service nor node."""
        return EVERYWHERE - self.pod_range - self.service_range - self.node_addresses - self.api_addresses

    def names(self, mask: int, most: int = 5) -> str:
        """A list for a message."""
        listed = [self.endpoints[index].name for index in bits(mask)]
        return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def of_family(addresses: Addresses, version: int) -> Addresses:
    """The addresses of IPv4 or IPv6; of both with version 0."""
    if version == 4:
        return Addresses(addresses.v4)
    return Addresses(v6=addresses.v6) if version == 6 else addresses


def bits(mask: int) -> Iterator[int]:
    """Indices of the set bits."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def _node_addresses(live: Live) -> Iterable[Network]:
    for node in live.all("Node"):
        for item in (node.get("status") or {}).get("addresses") or []:
            found = network(str(item.get("address"))) if item.get("type") in ("InternalIP", "ExternalIP") else None
            if found is not None:
                yield found
