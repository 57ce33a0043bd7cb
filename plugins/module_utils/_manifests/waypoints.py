# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waypoints of Istio ambient: what is bound to one is reached through its pods, on the tunnel's port on both ways.

Source: Istio's documentation of waypoints (labels `istio.io/use-waypoint` and `istio.io/use-waypoint-namespace` on Pod, Service or
Namespace; the pods carry `gateway.networking.k8s.io/gateway-name`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .._topology.model import App
from . import workloads
from .model import Live
from .workloads import PodSelector

USE, USE_NAMESPACE = "istio.io/use-waypoint", "istio.io/use-waypoint-namespace"
GATEWAY_NAME = "gateway.networking.k8s.io/gateway-name"
#: Why an edge from a waypoint to what is bound to it is there.
OWN = "its waypoint"


@dataclass(frozen=True, order=True)
class Waypoint:
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def selector(self) -> PodSelector:
        return PodSelector({GATEWAY_NAME: self.name})


def bound(app: App, live: Live) -> tuple[Waypoint, ...]:
    """The waypoints by which an app may be reached: of its pods, of Services that select them, else of its namespace."""
    labels = _pod_labels(app, live)
    named = [labels, *(_labels(item) for item in workloads.services_for(app.namespace, labels, live))]
    namespace = live.get("Namespace", "", app.namespace)
    inherited = _labels(namespace) if namespace is not None else {}
    found: dict[Waypoint, None] = {}
    for own in named:
        source = own if USE in own else inherited
        name = source.get(USE, "none")
        if name != "none":
            found[Waypoint(source.get(USE_NAMESPACE, app.namespace), name)] = None
    return tuple(found)


def served(app: App, apps: Iterable[App], live: Live) -> tuple[App, ...]:
    """The apps behind a waypoint, when this app is one."""
    name = _pod_labels(app, live).get(GATEWAY_NAME)
    if not name:
        return ()
    own = Waypoint(app.namespace, name)
    return tuple(other for other in apps if other.key != app.key and own in bound(other, live))


def _pod_labels(app: App, live: Live) -> Mapping[str, str]:
    template = workloads.template(app, live)
    return workloads.labels_of(template) if template is not None else dict(app.pods or {})


def _labels(item: Mapping[str, object]) -> Mapping[str, str]:
    meta = item.get("metadata")
    found = meta.get("labels") if isinstance(meta, Mapping) else None
    return found if isinstance(found, Mapping) else {}
