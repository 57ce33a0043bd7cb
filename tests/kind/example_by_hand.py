# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a list declares, read a second time and as plainly as can be, by no code of the collection.

It judges the packets, and the audit with them: one that builds policies and audits them could be wrong twice in the same way.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .example_pods import HBONE, OPERATOR_STATUS, SPARE, STRAYS, Port, Workload, key_of, listed, named_ports, port_of

PING: Port = ("icmp", 0)
DNS: tuple[Port, ...] = (("udp", 53), ("tcp", 53))
OPERATOR = "cnpg-system/Deployment/operator"


@dataclass(frozen=True)
class Edge:
    """From an app or an operator to an app."""

    source: str
    destination: str
    port: Port


class ByHand:
    """Answers True for what is declared, False for what is not, None where the list has no say."""

    def __init__(self, declared: Mapping[str, Any]) -> None:
        self.apps = {key_of(app): app for app in declared["apps"]}
        self.mesh = {rule["name"] for rule in declared["namespaces"] if rule.get("mesh")}
        self.shared = {rule["name"] for rule in declared["namespaces"] if rule.get("layout") == "namespace"}
        self.platform: Mapping[str, Any] = declared["platform"]
        self.edges: set[Edge] = set()
        for key in self.apps:
            self._edges(key)

    def _edges(self, key: str) -> None:
        app = self.apps[key]
        for use in listed(app.get("uses")):
            name, _colon, port = use.partition(":")
            target = name if "/" in name else f"{app['namespace']}/{name}"
            self._add(key, target, named_ports(self.apps[target])[port])
        ports = named_ports(app)
        for role, names in (("ingress", listed(app.get("exposed"))), ("prometheus", listed(app.get("metrics")))):
            for name in names:
                self._add(self._part(role), key, ports[name])
        for name in listed(app.get("peers")):
            self._add(key, key, ports[name])
        if app.get("operator"):
            for source in (OPERATOR, key):
                self._add(source, key, (OPERATOR_STATUS, ("tcp", 5432)))

    def _add(self, source: str, destination: str, ports: tuple[Port, ...]) -> None:
        self.edges |= {Edge(source, destination, port) for port in ports}

    def _part(self, role: str) -> str:
        """The app whose pods are a part of the platform."""
        wanted = self.platform[role]
        (found,) = [
            key
            for key, app in self.apps.items()
            if app["namespace"] == wanted["namespace"] and wanted["pods"].items() <= app["pods"].items()
        ]
        return found

    def pods(self, source: Workload, destination: Workload, port: Port) -> bool | None:
        """From pods to other pods."""
        if not source.app and not destination.app:
            # among those that nobody declared
            return (
                None if source.namespace not in STRAYS and destination.namespace not in STRAYS else self._stray(source, destination)
            )
        one, other = source.app or source.key, destination.app or destination.key
        if Edge(one, other, port) in self.edges:
            return True
        if port == HBONE and {source.namespace, destination.namespace} <= self.mesh:
            return None  # the tunnel's port is opened for whom the mesh needs it
        if not source.app or not destination.app:
            return self._stray(source, destination)
        return False

    def _stray(self, source: Workload, destination: Workload) -> bool | None:
        """The one policy of a namespace selects whoever is in there."""
        strays = [one for one in (source, destination) if not one.app and one.namespace in self.shared]
        return None if strays else False

    def _nobody(self, one: Workload) -> bool | None:
        """Of a pod that nobody declared: in a namespace that is closed for all but its apps it has nothing."""
        return False if one.namespace in STRAYS - self.shared else None

    def _beside(self, source: Workload) -> list[Mapping[str, Any]]:
        """Apps whose one policy is that of a pod too: towards addresses it gives to all what one of them declared."""
        own = source.namespace if source.namespace in self.shared else ""
        return [app for app in self.apps.values() if app["namespace"] == own]

    def names(self, source: Workload) -> bool | None:
        """The cluster's DNS."""
        return True if source.app else self._nobody(source)

    def api(self, source: Workload) -> bool | None:
        if not source.app:
            return self._nobody(source)
        if self.apps[source.app].get("kube_api"):
            return True
        return None if any(app.get("kube_api") for app in self._beside(source)) else False

    def outward(self, source: Workload, address: str, port: Port) -> bool | None:
        """To an address outside of the cluster, or a node's; none of the lab's is public, so `internet` means none of them."""
        if not source.app:
            return self._nobody(source)
        if self._outward(self.apps[source.app], address, port):
            return True
        return None if any(self._outward(app, address, port) for app in self._beside(source)) else False

    def _outward(self, app: Mapping[str, Any], address: str, port: Port) -> bool:
        if port == PING:
            return any(_inside(address, network) for network in listed(app.get("icmp")))
        for external in listed(app.get("external")):
            ports = [port_of(item) for item in listed(external.get("ports"))]
            if port in ports and any(_inside(address, network) for network in listed(external["to"])):
                return True
        return False

    def lan(self, destination: Workload, port: Port) -> bool | None:
        """From the LAN."""
        return self._inward(destination, port, "lan")

    def webhook(self, destination: Workload, port: Port) -> bool | None:
        """From a node, to the pods of another one."""
        return self._inward(destination, port, "webhook")

    def nowhere(self, destination: Workload) -> bool | None:
        """From the internet."""
        return self._inward(destination, SPARE, "")

    def _inward(self, destination: Workload, port: Port, word: str) -> bool | None:
        if not destination.app:
            return self._nobody(destination)
        app = self.apps[destination.app]
        names = named_ports(app)
        values = listed(app.get(word))
        ports = {item for value in values for item in (names.get(value, ()) if isinstance(value, str) else (port_of(value),))}
        if port in ports:
            return True
        return None if word and destination.namespace in self.shared else False


def _inside(address: str, network: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(network)
