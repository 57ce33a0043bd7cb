# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy. Source: Cilium's documentation of layers 3 to 7 and of deny policies.

All of Cilium's policies and Kubernetes' own add up; a deny beats every allow. A pod is isolated in a direction as soon as one
of them has rules for it, unless `enableDefaultDeny` says otherwise. A rule `{}` isolates and allows nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .policy import ALLOW, DEFAULT_STAGE, DENY, EGRESS, INGRESS, Peers, Policy, Problem, Ref, Rule
from .profiles import CILIUM, Profile
from .read_kubernetes import by_address, selector_faults
from .reader import Reader
from .sets import EVERY_PORT, EVERYWHERE, Addresses, Intervals, Ports, network
from .world import World

NAMESPACE = "io.kubernetes.pod.namespace"
NAMESPACE_LABELS = "io.cilium.k8s.namespace.labels."
SERVICE_ACCOUNT = "io.cilium.k8s.policy.serviceaccount"
PREFIXES = ("k8s:", "any:", "k8s.", "any.")
PEER_FIELDS = ("Endpoints", "Entities", "CIDR", "CIDRSet", "FQDNs", "Services", "Groups", "Nodes", "Requires")


def read(manifest: Mapping[str, Any], world: World, profile: Profile) -> tuple[list[Policy], list[Problem]]:
    """One policy per `spec` (a resource may have several under `specs`), and the problems."""
    reader = _Reader(Ref.of(manifest), world, profile)
    specs = [manifest["spec"]] if manifest.get("spec") is not None else []
    if isinstance(manifest.get("specs"), list):
        specs += manifest["specs"]
    if not specs:
        reader.bad("spec", "is missing")
    found = []
    for spec in specs:
        if not isinstance(spec, Mapping):
            reader.bad("spec", "is no mapping")
            continue
        policy = reader.policy(spec)
        if policy is not None:
            found.append(policy)
    return ([] if reader.refused else found), reader.problems


class _Reader(Reader):
    @property
    def clusterwide(self) -> bool:
        return self.ref.kind == "CiliumClusterwideNetworkPolicy"

    def policy(self, spec: Mapping[str, Any]) -> Policy | None:
        if "nodeSelector" in spec:
            return None  # a policy for nodes, not for pods
        if not isinstance(spec.get("endpointSelector"), Mapping):
            self.bad("spec.endpointSelector", "is missing")
            return None
        subjects = self.selected(spec["endpointSelector"], "spec.endpointSelector", restrict=True)
        spoken = []
        rules: dict[str, tuple[Rule, ...]] = {}
        told = spec.get("enableDefaultDeny")
        wanted: Mapping[str, Any] = told if isinstance(told, Mapping) else {}
        for direction in (EGRESS, INGRESS):
            denied = tuple(self.rules(spec.get(f"{direction}Deny"), direction, DENY))
            allowed = tuple(self.rules(spec.get(direction), direction, ALLOW))
            rules[direction] = (*denied, *allowed)
            default = wanted.get(direction)
            if default is None:
                default = bool(rules[direction])
            if default:
                spoken.append(direction)
        return Policy(
            ref=self.ref,
            language=CILIUM,
            subjects=subjects,
            egress=rules[EGRESS],
            ingress=rules[INGRESS],
            stage=DEFAULT_STAGE,
            order=(1000.0, str(self.ref)),
            isolates=tuple(spoken),
        )

    def rules(self, listed: Any, direction: str, action: str) -> Iterator[Rule]:
        field = direction if action == ALLOW else f"{direction}Deny"
        if listed is None:
            return
        if not isinstance(listed, list):
            self.bad(f"spec.{field}", "is no list")
            return
        for index, item in enumerate(listed):
            path = f"{field}[{index}]"
            if not isinstance(item, Mapping):
                self.bad(path, "is no mapping")
                continue
            peers = self.peers(item, direction, path)
            ports, named = self.ports(item, path)
            yield Rule(action, peers, ports, named, index, path)

    def peers(self, item: Mapping[str, Any], direction: str, path: str) -> Peers:
        side = "to" if direction == EGRESS else "from"
        given = {name: item[side + name] for name in PEER_FIELDS if item.get(side + name) is not None}
        if not given:
            # no peer at all: everybody on these ports; without ports either, nobody
            if item.get("toPorts") or item.get("icmps"):
                return Peers.sure(self.world.every, EVERYWHERE)
            return Peers()
        found = Peers()
        for name, listed in given.items():
            where = f"{path}.{side}{name}"
            if not isinstance(listed, list):
                self.bad(where, "is no list")
                continue
            for entry in listed:
                found = found | self.peer(name, entry, where)
        return found

    def peer(self, name: str, entry: Any, path: str) -> Peers:
        world = self.world
        if name == "Endpoints":
            return Peers.sure(self.selected(entry, path)) if isinstance(entry, Mapping) else Peers()
        if name == "Entities":
            return self.entity(str(entry), path)
        if name == "CIDR":
            return self.cidr(str(entry), [], path)
        if name == "CIDRSet":
            if isinstance(entry, Mapping) and isinstance(entry.get("cidr"), str):
                return self.cidr(entry["cidr"], entry.get("except") or [], path)
            return Peers(0, Addresses(), 0, world.world)  # a group of CIDRs by reference
        if name == "FQDNs":
            return Peers(0, Addresses(), 0, world.world)  # whatever address the names resolve to
        if name == "Nodes":
            return Peers(0, Addresses(), 0, world.node_addresses)
        if name == "Requires":
            return Peers()
        return Peers(0, Addresses(), world.pods, world.world)

    def cidr(self, text: str, left_out: list[Any], path: str) -> Peers:
        base = network(text)
        if base is None:
            self.bad(path, f"{text[:60]!r} is no CIDR")
            return Peers()
        cut = [item for value in left_out if (item := network(str(value))) is not None]
        return by_address(Addresses.of([base]) - Addresses.of(cut), self.world, self.profile)

    def entity(self, name: str, path: str) -> Peers:
        world = self.world
        nodes = world.node_addresses | world.local_resolver
        outside = {
            "host": (0, Addresses(), nodes),
            "remote-node": (0, Addresses(), nodes),
            "kube-apiserver": (0, world.api_addresses, world.api_addresses),
            "cluster": (world.pods, nodes | world.api_addresses | world.pod_range, nodes | world.api_addresses | world.pod_range),
            "world": (0, world.world, world.world),
            "world-ipv4": (0, Addresses(world.world.v4), Addresses(world.world.v4)),
            "world-ipv6": (0, Addresses(Intervals(), world.world.v6), Addresses(Intervals(), world.world.v6)),
            "all": (world.every, EVERYWHERE, EVERYWHERE),
        }
        if name in outside:
            mask, sure, maybe = outside[name]
            return Peers(mask, sure, mask, maybe)
        if name not in ("init", "ingress", "health", "unmanaged", "none"):
            self.bad(path, f"{name[:40]!r} is no entity")
        return Peers()

    def ports(self, item: Mapping[str, Any], path: str) -> tuple[Ports, tuple[tuple[str, str], ...]]:
        if not item.get("toPorts") and not item.get("icmps"):
            return Ports.whole(), ()
        parts: dict[str, list[tuple[int, int]]] = {}
        named: list[tuple[str, str]] = []
        if item.get("icmps"):
            parts["ICMP"] = list(EVERY_PORT.parts)
        for group in item.get("toPorts") or []:
            for port in (group.get("ports") if isinstance(group, Mapping) else None) or [{"port": "0"}]:
                if not isinstance(port, Mapping):
                    self.bad(f"{path}.toPorts", "a port is no mapping")
                    continue
                protocol = str(port.get("protocol") or "ANY").upper()
                names = ("TCP", "UDP", "SCTP") if protocol == "ANY" else (protocol.replace("ICMPV6", "ICMP"),)
                text = str(port.get("port", "0"))
                for name in names:
                    if not text.isdigit():
                        named.append((name, text))
                    elif int(text) == 0 or name == "ICMP":
                        parts.setdefault(name, []).append((0, 65535))
                    else:
                        parts.setdefault(name, []).append((int(text), int(port.get("endPort") or text)))
        return Ports({name: Intervals.of(listed) for name, listed in parts.items()}), tuple(named)

    def selected(self, selector: Mapping[str, Any], path: str, *, restrict: bool = False) -> int:
        """Pods by an endpoint selector; in a namespaced policy its own namespace unless the selector names another."""
        clean: dict[str, Any] = {"matchLabels": {}, "matchExpressions": []}
        spaces: dict[str, Any] = {"matchLabels": {}, "matchExpressions": []}
        faults = list(selector_faults(selector))
        if faults:
            self.bad(path, "; ".join(faults))
            return 0
        for key, value in (selector.get("matchLabels") or {}).items():
            kind, name = _key(key)
            if kind == "reserved":
                return 0
            (spaces if kind == "namespace" else clean)["matchLabels"][name] = value
        for item in selector.get("matchExpressions") or []:
            kind, name = _key(item["key"])
            if kind == "reserved":
                return 0
            (spaces if kind == "namespace" else clean)["matchExpressions"].append({**item, "key": name})
        account = clean["matchLabels"].pop(SERVICE_ACCOUNT, None)
        mask = self.world.labelled(clean)
        if account is not None:
            mask &= self.world.pods_where(lambda one: one.service_account == account)
        named = bool(spaces["matchLabels"] or spaces["matchExpressions"])
        if named:
            mask &= self.world.in_namespaces(spaces)
        if not self.clusterwide and (restrict or not named):
            mask &= self.world.namespace(self.ref.namespace or "default")
        return mask


def _key(key: str) -> tuple[str, str]:
    """(what it is about, the bare key): namespace, pod or reserved."""
    if key.startswith("reserved:"):
        return "reserved", key
    for prefix in PREFIXES:
        key = key.removeprefix(prefix)
    if key == NAMESPACE:
        return "namespace", "kubernetes.io/metadata.name"
    if key.startswith(NAMESPACE_LABELS):
        return "namespace", key[len(NAMESPACE_LABELS) :]
    return "pod", key
