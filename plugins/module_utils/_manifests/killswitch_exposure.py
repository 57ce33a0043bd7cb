# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ways into a client that nobody declared: a closed client that answers a stranger answers from the home address.

The policy refuses what is not declared. What is declared for the LAN stays open to whoever arrives with an address of the
LAN, and a node that hides the source makes every stranger look like one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .._topology.model import Port
from .client_edges import ClientEdges
from .model import Live, Manifest
from .workloads import containers, covers, labels_of, service_target, services_for, template


def notes(edges: ClientEdges, live: Live) -> Iterable[str]:
    """One sentence per Service, host port or Ingress that leads to the client from outside of the cluster."""
    app = edges.app
    found = template(app, live)
    labels = dict(labels_of(found)) if found is not None else dict(app.pods or {})
    lan = [port for edge in edges.ingress if edge.why == "lan" for port in edge.ports]
    for service in services_for(app.namespace, labels, live):
        yield from _service(app.key, service, found, lan)
    for container in containers(found or {}):
        for item in container.get("ports") or []:
            if item.get("hostPort"):
                yield (
                    f"{app.key}: container {container['name']} has hostPort {item['hostPort']}, which opens port"
                    f" {item['containerPort']} on the node's own address; remove it and declare the port under lan"
                )
    exposed = {service["metadata"]["name"] for service in services_for(app.namespace, labels, live)}
    if not app.exposed:
        for ingress in live.all("Ingress", app.namespace):
            if exposed & _backends(ingress):
                name = ingress["metadata"]["name"]
                yield f"{app.key}: Ingress {name} leads to it, and the app declares no exposed: it is refused"


def _service(client: str, service: Manifest, found: Mapping[str, Any] | None, lan: list[Port]) -> Iterable[str]:
    spec, name = service["spec"], service["metadata"]["name"]
    outside = spec.get("type") in ("NodePort", "LoadBalancer") or spec.get("externalIPs")
    if not outside:
        return
    how = spec.get("type") if spec.get("type") in ("NodePort", "LoadBalancer") else "externalIPs"
    for item in spec.get("ports") or []:
        target = service_target(item, found)
        declared = target is not None and any(covers(port, target) for port in lan)
        if not declared:
            yield f"{client}: Service {name} ({how}) leads to port {item['port']}, which is not under lan: it is refused"
        elif spec.get("externalTrafficPolicy", "Cluster") != "Local":
            yield (
                f"{client}: Service {name} ({how}) hides who calls (externalTrafficPolicy Cluster): callers arrive as nodes, so a"
                " stranger may pass for the LAN, or the LAN be refused. Set externalTrafficPolicy: Local"
            )
            return


def _backends(ingress: Mapping[str, Any]) -> set[str]:
    """Names of the Services that an Ingress leads to."""
    spec = ingress.get("spec") or {}
    entries = [spec.get("defaultBackend") or {}]
    entries += [
        path.get("backend") or {} for rule in spec.get("rules") or [] for path in (rule.get("http") or {}).get("paths") or []
    ]
    return {(entry.get("service") or {}).get("name", "") for entry in entries} - {""}
