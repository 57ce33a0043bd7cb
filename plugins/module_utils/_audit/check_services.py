# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Services, host ports and Ingresses by which a closed client answers the outside, and Services that lead out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .._manifests.workloads import PodSelector, service_target, template
from .._topology.model import App, Port
from .check_clients import public
from .engine import INGRESS, Engine
from .findings import ERROR, INFO, WARNING, Finding, flow
from .sets import Addresses, network
from .world import bits


def check(engine: Engine, apps: Iterable[App]) -> Iterator[Finding]:
    for app in apps:
        if app.vpn is not None:
            for index in bits(engine.world.by_app.get(app.key, 0)):
                yield from _inbound(engine, app, index)
                yield from _ranges(engine, app, index)
    yield from _leading_out(engine)


def _inbound(engine: Engine, app: App, index: int) -> Iterator[Finding]:
    world = engine.world
    one = world.endpoints[index]
    lan, exposed = _declared(app, app.lan), _declared(app, [item.port for item in app.exposed])
    services = set()
    for service in world.live.all("Service", app.namespace):
        spec = service.get("spec") or {}
        selector = spec.get("selector")
        if not isinstance(selector, Mapping) or not selector or not PodSelector(selector).matches(one.labels):
            continue
        services.add(service["metadata"]["name"])
        kind = spec.get("type") or "ClusterIP"
        if kind not in ("NodePort", "LoadBalancer") and not spec.get("externalIPs"):
            continue
        for item in spec.get("ports") or []:
            target = service_target(item, template(app, world.live))
            if target is not None:
                yield from _service_port(engine, app, index, service, kind, item, target, lan)
    for protocol, outer, inner in one.host_ports:
        if not _has(lan, protocol, inner):
            yield Finding(
                "answers-outside",
                ERROR if _open_to(engine, index, protocol, inner, world.world) else WARNING,
                app.key,
                f"hostPort {outer} leads to its port {inner}, which it does not declare: it would answer from the home address",
                "remove hostPort, or declare the port under `lan`",
                witness=flow("the LAN and beyond", one.name, f"{inner}/{protocol.lower()}"),
            )
    for ingress in world.live.all("Ingress", app.namespace):
        for name, wanted in _backends(ingress):
            if name in services and not exposed:
                yield Finding(
                    "answers-outside",
                    WARNING,
                    app.key,
                    f"Ingress {ingress['metadata']['name']} leads to its Service {name} (port {wanted}), undeclared",
                    "declare `exposed`, or delete the Ingress",
                    witness=flow("the ingress controller", one.name, str(wanted)),
                )


def _service_port(
    engine: Engine,
    app: App,
    index: int,
    service: Mapping[str, Any],
    kind: str,
    item: Mapping[str, Any],
    target: Port,
    lan: list[Port],
) -> Iterator[Finding]:
    world = engine.world
    one = world.endpoints[index]
    name = service["metadata"]["name"]
    keeps = (service["spec"].get("externalTrafficPolicy") or "Cluster") == "Local"
    outer = item.get("nodePort") or item.get("port")
    witness = flow("the LAN and beyond", one.name, f"{target.number}/{target.protocol.lower()}")
    if not _has(lan, target.protocol, target.number):
        sources = world.world if keeps else world.node_addresses | world.world
        wide = _open_to(engine, index, target.protocol, target.number, sources)
        yield Finding(
            "answers-outside",
            ERROR if wide else WARNING,
            app.key,
            f"{kind} {name} opens its port {target.number} at {outer}, which it does not declare: "
            "it would answer the outside from the home address",
            "make the Service a ClusterIP, or declare the port under `lan`",
            witness=witness,
        )
    elif not keeps:
        yield Finding(
            "reply-source-lost",
            WARNING,
            app.key,
            f"{kind} {name} hides who asks (externalTrafficPolicy: Cluster): a node stands for every source, "
            "so a public one is answered from the home address as well",
            "set externalTrafficPolicy: Local, and let the router forward nothing to it",
            witness=witness,
        )


def _open_to(engine: Engine, index: int, protocol: str, port: int, sources: Addresses) -> bool:
    return any(ports.has(protocol, port) for _found, ports in engine.side(index, INGRESS).possible.towards(sources))


def _declared(app: App, listed: Iterable[str]) -> list[Port]:
    return [port for name in listed for port in app.ports.get(name, ())]


def _has(listed: Iterable[Port], protocol: str, number: int) -> bool:
    return any(port.protocol == protocol and port.number <= number <= (port.end or port.number) for port in listed)


def _backends(ingress: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    spec = ingress.get("spec") or {}
    backends = [spec.get("defaultBackend") or {}]
    for rule in spec.get("rules") or []:
        backends += [path.get("backend") or {} for path in (rule.get("http") or {}).get("paths") or []]
    for backend in backends:
        service = backend.get("service") or {}
        if service.get("name"):
            port = service.get("port") or {}
            yield service["name"], port.get("number") or port.get("name") or ""


def _ranges(engine: Engine, app: App, index: int) -> Iterator[Finding]:
    """Declared ranges behind which pods, Services or proxies stand."""
    world = engine.world
    for external in app.external:
        wanted = Addresses.of(external.to)
        for name, inside in (("pods", world.pod_range), ("Services", world.service_range)):
            if wanted & inside:
                yield Finding(
                    "range-holds-relay",
                    ERROR,
                    app.key,
                    f"`external` names {', '.join(map(str, external.to))}, which holds {name}: any relay there leads out",
                    "name apps under `uses` instead",
                    witness=flow(world.endpoints[index].name, (wanted & inside).witness()),
                )
        if wanted & public(world):
            message = (
                f"`external` names public addresses ({(wanted & public(world)).witness()}): reached from home, not by the tunnel"
            )
            yield Finding("external-public", WARNING, app.key, message, "leave them out: the tunnel reaches them")
        wide = [item for item in external.to if item.num_addresses > 256]
        if wide:
            message = f"`external` names whole networks ({', '.join(map(str, wide))}): a router or proxy there leads out"
            yield Finding("range-holds-relay", WARNING, app.key, message, "name single hosts with ports")


def _leading_out(engine: Engine) -> Iterator[Finding]:
    """Services without selector whose addresses were written by hand: a way out behind an address of the cluster."""
    world = engine.world
    everywhere = public(world)
    hand_made = {
        (item["metadata"].get("namespace"), item["metadata"]["name"])
        for item in world.live.all("Service")
        if not (item.get("spec") or {}).get("selector") and (item.get("spec") or {}).get("type") != "ExternalName"
    }
    for kind in ("EndpointSlice", "Endpoints"):
        for item in world.live.all(kind):
            meta = item["metadata"]
            name = (meta.get("labels") or {}).get("kubernetes.io/service-name") or meta["name"]
            if (meta.get("namespace"), name) not in hand_made or (meta.get("namespace"), name) == ("default", "kubernetes"):
                continue
            outside = [text for text in _addresses_of(item) if (found := network(text)) and Addresses.of([found]) & everywhere]
            if outside:
                message = f"its addresses are public ({', '.join(outside[:3])}) and written by hand: a way out"
                severity = INFO if engine.profile.after_translation else WARNING
                mend = "policies decide after translation here; keep the guards' lists free of the Services' range"
                yield Finding("service-leads-out", severity, f"Service {meta.get('namespace')}/{name}", message, mend)


def _addresses_of(item: Mapping[str, Any]) -> Iterator[str]:
    for endpoint in item.get("endpoints") or []:
        yield from (str(text) for text in endpoint.get("addresses") or [])
    for subset in item.get("subsets") or []:
        yield from (str(address.get("ip")) for address in subset.get("addresses") or [])
