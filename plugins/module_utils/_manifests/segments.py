# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Segmentation: default deny per namespace and every declared edge on both sides, in an order that never cuts what is declared.

The first wave holds policies that are complete for the pods they select; the last wave the default denies. A pod that
no app declares is reached by the default deny alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from .._errors import Fault, FaultsError
from .._facts.model import Facts
from .._topology.model import NamespaceRule, Topology
from . import addresses, names, rules, segments_dialects, segments_layout, waypoints
from .client_edges import Blocks, Edge, as_seen
from .model import Desired, Live, Manifest, owner_labels
from .segments_edges import AppEdges, collect
from .workloads import PodSelector, pod_selector

PART = "segments"


@dataclass(frozen=True)
class Segments:
    """What was built: objects in waves, the edges as data, what no policy can hold, and what became of a wish for a layout."""

    desired: Desired
    edges: tuple[dict[str, object], ...]
    not_covered: tuple[str, ...]
    notes: tuple[str, ...] = ()


def namespace_rules(topology: Topology) -> dict[str, NamespaceRule]:
    """The rule of every namespace with an app, and of those declared: `deny` where nothing was said."""
    found = {app.namespace: NamespaceRule(app.namespace) for app in topology.apps}
    found.update({rule.name: rule for rule in topology.namespaces})
    return dict(sorted(found.items()))


def build(topology: Topology, facts: Facts, live: Live, dialect: str = "auto") -> Segments:
    """Objects for every app that is no VPN client and the default deny of every namespace.

    Raises FaultsError with everything that cannot be said in this cluster's policies.
    """
    language = segments_dialects.choose(dialect, facts)
    collected = collect(topology, facts, live)
    faults = list(collected.faults)
    rules_by_namespace = namespace_rules(topology)
    faults += _platform_faults(topology, rules_by_namespace, live)
    faults += _waypoint_faults(topology, rules_by_namespace, live)
    covered = [edges for edges in collected.apps if not edges.host_network]
    faults += segments_dialects.faults(topology, facts, covered, language)
    first: list[Manifest] = []
    groups = _grouped(covered, rules_by_namespace)
    wanted = [name for name in groups if rules_by_namespace[name].layout == "namespace"]
    layout = segments_layout.choose(topology, facts, live, covered, wanted)
    for name, group in groups.items():
        if name in layout.joined:
            manifest, found = _namespace_policy(topology, facts, live, name, group)
            faults += found
            first.append(manifest)
        else:
            first += [_app_policy(topology, facts, edges) for edges in group]
    if faults:
        raise FaultsError(faults)
    first += segments_dialects.extras(topology, facts, covered, language)
    denies = tuple(_default_deny(topology, name) for name, rule in rules_by_namespace.items() if rule.default == "deny")
    not_covered = tuple(
        f"{edges.app.key} runs on the node's network: no policy holds it" for edges in collected.apps if edges.host_network
    )
    waves = tuple(wave for wave in (tuple(first), denies) if wave)
    return Segments(Desired(waves), tuple(_edge_data(covered, layout.joined)), not_covered, layout.notes)


def _grouped(apps: Iterable[AppEdges], known: dict[str, NamespaceRule]) -> dict[str, list[AppEdges]]:
    groups: dict[str, list[AppEdges]] = defaultdict(list)
    for edges in apps:
        groups[edges.app.namespace].append(edges)
    return {name: groups[name] for name in known if name in groups}


def egress_rules(group: Iterable[AppEdges], facts: Facts) -> list[Manifest]:
    """What one policy lets out for these apps: rules with equal ports are one rule."""
    apps = list(group)
    found = rules.rules([edge for edges in apps for edge in as_seen(edges.egress, facts)], "to", facts)
    dns = rules.dns_rule(facts)
    if dns is not None:
        found.insert(0, dns)
    for ports in dict.fromkeys(edges.internet for edges in apps if edges.internet is not None):
        targets = [rules.block(network, exceptions) for network, exceptions in addresses.public_blocks(facts)]
        found.append(rules.rule("to", targets, ports))
    return found


def _ingress_rules(group: Iterable[AppEdges], facts: Facts) -> list[Manifest]:
    return rules.rules([edge for edges in group for edge in edges.ingress], "from", facts)


def _app_policy(topology: Topology, facts: Facts, edges: AppEdges) -> Manifest:
    return rules.network_policy(
        edges.app.namespace,
        names.segment(edges.app),
        owner_labels(topology.instance, PART),
        edges.selector.manifest(),
        ingress=_ingress_rules([edges], facts),
        egress=egress_rules([edges], facts),
        annotations=segments_dialects.comment(facts, [edges]),
    )


def _namespace_policy(
    topology: Topology, facts: Facts, live: Live, namespace: str, group: list[AppEdges]
) -> tuple[Manifest, list[Fault]]:
    """One policy for all pods of a namespace but the VPN clients: the union of what its apps need."""
    expressions, faults = _without_clients(topology, live, namespace)
    ingress, egress = _ingress_rules(group, facts), egress_rules(group, facts)
    selector: Manifest = {"matchExpressions": expressions} if expressions else {}
    labels, comment = owner_labels(topology.instance, PART), segments_dialects.comment(facts, group)
    manifest = rules.network_policy(
        namespace, names.NAMESPACE_SEGMENT, labels, selector, ingress=ingress, egress=egress, annotations=comment
    )
    return manifest, faults


def _without_clients(topology: Topology, live: Live, namespace: str) -> tuple[list[Manifest], list[Fault]]:
    """Expressions that leave out every VPN client of the namespace: an allowance for all would re-open it."""
    left_out: dict[str, set[str]] = defaultdict(set)
    faults: list[Fault] = []
    for position, app in enumerate(topology.apps):
        if app.vpn is None or app.namespace != namespace:
            continue
        labels = pod_selector(app, live).labels
        others = [pod_selector(other, live) for other in topology.apps if other.namespace == namespace and other.key != app.key]
        own = [(key, value) for key, value in sorted(labels.items()) if all(other.labels.get(key) != value for other in others)]
        if own:
            left_out[own[0][0]].add(own[0][1])
        else:
            hint = "set its namespace's layout to app, or give its pods a label of their own"
            faults.append(
                Fault(f"apps[{position}].pods", "no label tells this VPN client from the other apps of its namespace", hint)
            )
    expressions = [{"key": key, "operator": "NotIn", "values": sorted(values)} for key, values in sorted(left_out.items())]
    return expressions, faults


def _default_deny(topology: Topology, namespace: str) -> Manifest:
    return rules.network_policy(namespace, names.DEFAULT_DENY, owner_labels(topology.instance, PART), {}, ingress=[], egress=[])


def _platform_faults(topology: Topology, known: dict[str, NamespaceRule], live: Live) -> list[Fault]:
    """A part of the platform under default deny whose own needs nobody declared would be cut off."""
    found = []
    for name, role in (("ingress", topology.platform.ingress), ("prometheus", topology.platform.prometheus)):
        if role is None or role.namespace not in known or known[role.namespace].default != "deny":
            continue
        selector = PodSelector(dict(role.labels))
        declared = [
            app for app in topology.apps if app.namespace == role.namespace and selector.matches(_labels(topology, live, app.key))
        ]
        if not declared:
            message = f"its pods are in {role.namespace}, which is closed by default, and no app declares what they need"
            hint = f"declare it as an app there, or add netguard_namespaces: [{{name: {role.namespace}, default: open}}]"
            found.append(Fault(f"platform.{name}", message, hint))
    return found


def _waypoint_faults(topology: Topology, known: dict[str, NamespaceRule], live: Live) -> list[Fault]:
    """A waypoint under default deny whose own needs nobody declared would be cut off, and what is bound to it with it."""
    found = []
    for position, app in enumerate(topology.apps):
        if app.vpn is not None or not topology.users(app) or not known[app.namespace].mesh:
            continue
        for waypoint in waypoints.bound(app, live):
            closed = waypoint.namespace in known and known[waypoint.namespace].default == "deny"
            if closed and not any(
                other.namespace == waypoint.namespace and waypoint.selector.matches(_labels(topology, live, other.key))
                for other in topology.apps
            ):
                message = (
                    f"it is reached through the waypoint {waypoint}, whose namespace is closed by default, and no app declares it"
                )
                hint = f"declare it as an app with pods {{{waypoints.GATEWAY_NAME}: {waypoint.name}}}, which uses istiod on 15012"
                found.append(Fault(f"apps[{position}]", message, hint))
    return found


def _labels(topology: Topology, live: Live, key: str) -> dict[str, str]:
    app = topology.app(key)
    try:
        return dict(pod_selector(app, live).labels)
    except FaultsError:
        return {}


def _edge_data(apps: Iterable[AppEdges], joined: frozenset[str]) -> Iterable[dict[str, object]]:
    for edges in apps:
        policy = names.NAMESPACE_SEGMENT if edges.app.namespace in joined else names.segment(edges.app)
        for direction, found in (("egress", edges.egress), ("ingress", edges.ingress)):
            for edge in found:
                yield _entry(edges.app.key, direction, edge, policy)
        if edges.internet is not None:
            yield {
                "app": edges.app.key,
                "direction": "egress",
                "peer": "internet",
                "ports": [_port(port.number, port.protocol, port.end) for port in edges.internet],
                "why": "internet",
                "policy": policy,
            }


def _port(number: int, protocol: str, end: int | None) -> str:
    return f"{number}-{end}/{protocol.lower()}" if end else f"{number}/{protocol.lower()}"


def _entry(app: str, direction: str, edge: Edge, policy: str) -> dict[str, object]:
    if isinstance(edge.peer, Blocks):
        peer = ", ".join(str(network) for network in edge.peer.networks)
    else:
        labels = ",".join(f"{key}={value}" for key, value in sorted(edge.peer.selector.labels.items()))
        peer = f"{edge.peer.namespace}/{labels or '*'}"
    return {
        "app": app,
        "direction": direction,
        "peer": peer,
        "ports": [_port(port.number, port.protocol, port.end) for port in edge.ports],
        "why": edge.why,
        "policy": policy,
    }
