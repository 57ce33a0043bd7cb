# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ClusterNetworkPolicy, and AdminNetworkPolicy and BaselineAdminNetworkPolicy before it (policy.networking.k8s.io).

Tiers Admin, NetworkPolicy, Baseline; the first rule that matches decides; Pass goes on to the next tier. They isolate nothing
by themselves. Source: the types of kubernetes-sigs/network-policy-api, v1alpha1 and v1alpha2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .policy import ADMIN_STAGE, ALLOW, BASELINE_STAGE, DENY, DIRECTIONS, EGRESS, PASS, Peers, Policy, Problem, Ref, Rule
from .profiles import CLUSTER, Profile
from .read_kubernetes import selector_faults
from .reader import Reader
from .sets import Addresses, Intervals, Ports, network
from .world import World

ACTIONS = {"Accept": ALLOW, "Allow": ALLOW, "Deny": DENY, "Pass": PASS}


def read(manifest: Mapping[str, Any], world: World, profile: Profile) -> tuple[Policy | None, list[Problem]]:
    reader = _Reader(Ref.of(manifest), world, profile)
    spec = reader.spec_of(manifest)
    return reader.result(None if spec is None else reader.policy(spec))


class _Reader(Reader):
    def policy(self, spec: Mapping[str, Any]) -> Policy:
        baseline = self.ref.kind == "BaselineAdminNetworkPolicy" or spec.get("tier") == "Baseline"
        if self.ref.kind == "ClusterNetworkPolicy" and spec.get("tier") not in ("Admin", "Baseline"):
            self.bad("spec.tier", f"{spec.get('tier')!r} is neither Admin nor Baseline")
        priority = spec.get("priority", 0)
        if not isinstance(priority, int) or not 0 <= priority <= 1000:
            self.bad("spec.priority", "is no number from 0 to 1000")
            priority = 0
        rules = {direction: tuple(self.rules(spec.get(direction), direction)) for direction in DIRECTIONS}
        return Policy(
            ref=self.ref,
            language=CLUSTER,
            subjects=self.pods(spec.get("subject"), "spec.subject"),
            egress=rules[EGRESS] or None,
            ingress=rules["ingress"] or None,
            stage=BASELINE_STAGE if baseline else ADMIN_STAGE,
            order=(float(priority), self.ref.name),
            isolates=(),
        )

    def pods(self, item: Any, path: str) -> int:
        """A subject or a peer by selectors: `namespaces` or `pods`."""
        if not isinstance(item, Mapping):
            self.bad(path, "is no mapping")
            return 0
        if "namespaces" in item:
            found = item["namespaces"]
            # v1alpha1's peers had one level more
            if isinstance(found, Mapping) and "namespaceSelector" in found:
                found = found["namespaceSelector"]
            return self.world.in_namespaces(found) if self.good(found, path) else 0
        inner = item.get("pods")
        if not isinstance(inner, Mapping):
            self.bad(path, "names neither namespaces nor pods")
            return 0
        spaces, pods = inner.get("namespaceSelector", inner.get("namespaces", {})), inner.get("podSelector", {})
        if isinstance(spaces, Mapping) and "namespaceSelector" in spaces:
            spaces = spaces["namespaceSelector"]
        if not self.good(spaces, path) or not self.good(pods, path):
            return 0
        return self.world.in_namespaces(spaces) & self.world.labelled(pods)

    def good(self, selector: Any, path: str) -> bool:
        faults = list(selector_faults(selector))
        if faults:
            self.bad(path, "; ".join(faults))
        return not faults

    def rules(self, listed: Any, direction: str) -> Iterator[Rule]:
        side = "to" if direction == EGRESS else "from"
        for index, item in enumerate(listed if isinstance(listed, list) else []):
            path = f"{direction}[{index}]"
            if not isinstance(item, Mapping) or item.get("action") not in ACTIONS:
                self.bad(path, "has no action Accept, Deny or Pass")
                continue
            peers = Peers()
            for place, entry in enumerate(item.get(side) or []):
                peers = peers | self.peer(entry, f"{path}.{side}[{place}]")
            ports, named = self.ports(item)
            yield Rule(ACTIONS[item["action"]], peers, ports, named, index, path)

    def peer(self, entry: Any, path: str) -> Peers:
        if not isinstance(entry, Mapping):
            self.bad(path, "is no mapping")
            return Peers()
        if "networks" in entry:
            found = [network(str(text)) for text in entry["networks"] or []]
            if any(item is None for item in found):
                self.bad(path, "networks holds something that is no CIDR")
            addresses = Addresses.of(item for item in found if item is not None)
            # its networks match pods and nodes too, whatever the CNI makes of an ipBlock
            sure, maybe = self.world.with_address_in(addresses)
            return Peers(sure, addresses, maybe, addresses)
        if "nodes" in entry:
            return Peers(0, Addresses(), 0, self.world.node_addresses)
        if "domainNames" in entry:
            return Peers(0, Addresses(), 0, self.world.world)
        return Peers.sure(self.pods(entry, path))

    def ports(self, item: Mapping[str, Any]) -> tuple[Ports, tuple[tuple[str, str], ...]]:
        listed = item.get("protocols") or item.get("ports")
        if not listed:
            return Ports.whole(), ()
        parts: dict[str, list[tuple[int, int]]] = {}
        named: list[tuple[str, str]] = []
        for entry in listed if isinstance(listed, list) else []:
            for protocol, number, name in _port(entry):
                if name:
                    named.append((protocol, name))
                else:
                    parts.setdefault(protocol, []).append(number)
        return Ports({name: Intervals.of(found) for name, found in parts.items()}), tuple(named)


def _port(entry: Any) -> Iterator[tuple[str, tuple[int, int], str]]:
    """(protocol, interval, name) of one entry, of either version of the API."""
    if not isinstance(entry, Mapping):
        return
    none = (0, 0)
    for protocol in ("tcp", "udp", "sctp"):
        if protocol in entry:
            where = (entry[protocol] or {}).get("destinationPort") or {}
            span = where.get("range") or {}
            if "number" in where:
                yield protocol.upper(), (int(where["number"]), int(where["number"])), ""
            elif span:
                yield protocol.upper(), (int(span["start"]), int(span["end"])), ""
            else:
                yield protocol.upper(), (0, 65535), ""
    if entry.get("destinationNamedPort"):
        for protocol in ("TCP", "UDP", "SCTP"):
            yield protocol, none, str(entry["destinationNamedPort"])
    if isinstance(entry.get("portNumber"), Mapping):
        one = entry["portNumber"]
        yield str(one.get("protocol") or "TCP"), (int(one["port"]), int(one["port"])), ""
    if isinstance(entry.get("portRange"), Mapping):
        span = entry["portRange"]
        yield str(span.get("protocol") or "TCP"), (int(span["start"]), int(span["end"])), ""
    if entry.get("namedPort"):
        for protocol in ("TCP", "UDP", "SCTP"):
            yield protocol, none, str(entry["namedPort"])
