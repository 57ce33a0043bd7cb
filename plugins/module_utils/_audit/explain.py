# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One flow in words: what each policy says about it, on both sides."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from .._errors import NetguardError
from .engine import ALLOWED, DENIED, EGRESS, INGRESS, UNDECIDED, Engine
from .policy import Policy, Rule
from .sets import Ports
from .world import bits

SAYS = {"allow": "allows it", "deny": "denies it", "pass": "passes it on"}
Address = ipaddress.IPv4Address | ipaddress.IPv6Address  # pylint: disable=unsupported-binary-operation


def explain(engine: Engine, question: Mapping[str, Any]) -> dict[str, Any]:
    """Answers {source, destination, port}: an app, namespace/Kind/name, a Service (namespace/name) or an address each.

    Returns verdict, source, destination, port, profile, `steps` (one per policy asked) and `words`. Raises NetguardError.
    """
    source, destination = str(question.get("source") or ""), str(question.get("destination") or "")
    protocol, number = _port(str(question.get("port") or "443/tcp"))
    sources, destinations = _who(engine, source, "source"), _who(engine, destination, "destination")
    notes: list[str] = []
    if isinstance(destinations, int) and not question.get("pod_port"):
        destinations, number, notes = _service(engine, destination, destinations, protocol, number)
    if not isinstance(sources, int) and not isinstance(destinations, int):
        raise NetguardError("explain: neither source nor destination is a pod of this cluster: no policy here decides about it")
    steps: list[dict[str, str]] = []
    verdicts = []
    for direction, subjects, peers in ((EGRESS, sources, destinations), (INGRESS, destinations, sources)):
        if isinstance(subjects, int):
            index = next(bits(subjects))
            verdicts.append(_side(engine, index, peers, direction, protocol, number, steps))
    if DENIED in verdicts:
        verdict = DENIED
    elif UNDECIDED in verdicts:
        verdict = UNDECIDED
    else:
        verdict = ALLOWED
    if protocol == "UDP" and number in engine.profile.dropped_udp and isinstance(sources, int):
        notes.append(f"{engine.profile.name} drops UDP {number} from pods before any policy")
        verdict = DENIED
    if isinstance(sources, int) and isinstance(destinations, int):
        first, second = (engine.world.endpoints[next(bits(mask))] for mask in (sources, destinations))
        if first.mesh and second.mesh and protocol == "TCP" and number != 15008:
            notes.append("both are in the mesh: on the wire this is port 15008, ask for that one")
    text = "icmp" if protocol == "ICMP" else f"{number}/{protocol.lower()}"
    words = [f"{source} to {destination} on {text}: {verdict} ({engine.profile.name})"]
    words += [f"  {step['side']} of {step['of']}: {step['policy']}: {step['says']}" for step in steps]
    words += [f"  note: {note}" for note in notes]
    return {
        "verdict": verdict,
        "profile": engine.profile.name,
        "source": source,
        "destination": destination,
        "port": text,
        "steps": steps,
        "notes": notes,
        "words": words,
    }


def _port(text: str) -> tuple[str, int]:
    if text.lower() in ("icmp", "ping"):
        return "ICMP", 0
    number, _slash, protocol = text.partition("/")
    protocol = (protocol or "tcp").upper()
    if not number.isdigit() or int(number) > 65535 or protocol not in ("TCP", "UDP", "SCTP"):
        raise NetguardError(f"explain: {text!r} is no port: write 443/tcp, 53/udp or icmp")
    return protocol, int(number)


def _who(engine: Engine, name: str, option: str) -> int | Address:
    world = engine.world
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        pass
    else:
        mask = world.mask_of(address)
        return mask or address
    mask = world.by_app.get(name, 0)
    apps = [app.key for app in world.topology.apps if app.name == name]
    if not mask and len(apps) == 1:
        mask = world.by_app.get(apps[0], 0)
    if not mask:
        for index, one in enumerate(world.endpoints):
            if one.name == name or (one.gateway and one.gateway == name):
                mask |= 1 << index
    if not mask:
        mask = _behind(engine, name)
    if not mask:
        raise NetguardError(
            f"explain: {option} {name!r} is no address, app, workload (namespace/Kind/name) or Service (namespace/name) here"
        )
    return mask


def _behind(engine: Engine, name: str) -> int:
    namespace, _slash, short = name.partition("/")
    service = engine.world.live.get("Service", namespace, short)
    selector = ((service or {}).get("spec") or {}).get("selector")
    if not isinstance(selector, Mapping) or not selector:
        return 0
    return engine.world.namespace(namespace) & engine.world.labelled({"matchLabels": dict(selector)})


def _service(engine: Engine, name: str, mask: int, protocol: str, number: int) -> tuple[int, int, list[str]]:
    """A Service's port becomes the pod's: policies see the latter (the former on few CNIs)."""
    namespace, _slash, short = name.partition("/")
    service = engine.world.live.get("Service", namespace, short)
    if service is None or engine.world.by_app.get(name):
        return mask, number, []
    one = engine.world.endpoints[next(bits(mask))]
    for item in (service.get("spec") or {}).get("ports") or []:
        if item.get("port") == number and (item.get("protocol") or "TCP") == protocol:
            target = item.get("targetPort", number)
            found = one.ports.get((protocol, target)) if isinstance(target, str) and not target.isdigit() else int(target)
            if found is None:
                return mask, number, [f"the Service's targetPort {target!r} is a name that {one.name} does not have"]
            if found != number:
                return mask, found, [f"Service port {number} is pod port {found}: policies are asked about the latter"]
    return mask, number, []


def _side(
    engine: Engine, index: int, peers: int | Address, direction: str, protocol: str, number: int, steps: list[dict[str, str]]
) -> str:
    one = engine.world.endpoints[index]
    if one.host_network:
        steps.append(_step(direction, one.name, "-", "runs on the node's network: no policy holds it"))
        return ALLOWED
    if not engine.profile.enforces:
        steps.append(_step(direction, one.name, "-", f"{engine.profile.name} enforces no policies"))
        return ALLOWED
    side = engine.side(index, direction)
    sure, possible = _open(engine, side.sure, peers), _open(engine, side.possible, peers)
    for place, policies in engine.stages(index, direction):
        for policy in policies:
            steps.append(
                _step(direction, one.name, str(policy.ref), _says(engine, policy, direction, index, peers, protocol, number))
            )
        end, certain = engine.ending(policies, direction)
        if end == "deny" and certain:
            steps.append(_step(direction, one.name, "(end)", "selected by these policies: what none of them allows is denied"))
        del place
    if not side.isolated:
        steps.append(_step(direction, one.name, "-", "no policy isolates it in this direction: what is not denied is allowed"))
    port = 0 if protocol == "ICMP" else number
    if sure.has(protocol, port):
        return ALLOWED
    return UNDECIDED if possible.has(protocol, port) else DENIED


def _open(engine: Engine, region: Any, peers: int | Address) -> Ports:
    if not isinstance(peers, int):
        found: Ports = region.address(peers)
        return found
    index = next(bits(peers))
    if engine.world.endpoints[index].host_network:
        nodes: Ports = region.everywhere(engine.world.node_addresses)
        return nodes
    pod: Ports = region.pod(index)
    return pod


def _says(engine: Engine, policy: Policy, direction: str, index: int, peers: int | Address, protocol: str, number: int) -> str:
    hits = []
    for rule in policy.rules(direction) or ():
        found = _matches(engine, rule, direction, index, peers, protocol, number)
        if found:
            hits.append(f"{rule.path} {SAYS[rule.action]}" + (" (perhaps: left to the implementation)" if found == "maybe" else ""))
    return "; ".join(hits) if hits else "no rule matches"


def _matches(engine: Engine, rule: Rule, direction: str, index: int, peers: int | Address, protocol: str, number: int) -> str:
    port = 0 if protocol == "ICMP" else number
    holder = next(bits(peers)) if isinstance(peers, int) and direction == EGRESS else index
    named = any(engine.world.endpoints[holder].ports.get(item) == number for item in rule.named if item[0] == protocol)
    if not rule.ports.has(protocol, port) and not (named and (direction == INGRESS or isinstance(peers, int))):
        return ""
    if isinstance(peers, int):
        bit = 1 << next(bits(peers))
        sure, maybe = bool(rule.peers.pods & bit), bool(rule.peers.pods_maybe & bit)
    else:
        sure, maybe = peers in rule.peers.addresses, peers in rule.peers.addresses_maybe
    if sure and not rule.doubtful_ports:
        return "sure"
    return "maybe" if maybe else ""


def _step(side: str, of: str, policy: str, says: str) -> dict[str, str]:
    return {"side": side, "of": of, "policy": policy, "says": says}
