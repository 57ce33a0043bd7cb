# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Random lists of apps, and what such a list means, read off its raw words: who may speak to whom, and what is refused.

Nothing here is shared with the builders but the words of the list.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ansible_collections.homelab.netguard.plugins.module_utils._facts.model import Cni, Dns, Facts
from audit_shapes import Manifest, deployment, facts, networks
from hypothesis import strategies as st

Port = tuple[str, int]  # (TCP, 80); ("ICMP", 0)

CALICO_APIS = ("projectcalico.org/v3", "policy.networking.k8s.io/v1alpha2")
APIS = {
    "calico": CALICO_APIS,
    "canal": ("crd.projectcalico.org/v1",),
    "cilium": ("cilium.io/v2",),
    "kindnet": ("policy.networking.k8s.io/v1alpha2",),
}
SPACES = ("media", "data", "tools")
PUBLIC, PUBLIC6, LAN_HOST, EXTERNAL, API, NODE, PINGED = (
    "1.1.1.1",
    "2606:4700:4700::1111",
    "192.0.2.77",
    "192.0.2.200",
    "192.0.2.11",
    "192.0.2.12",
    "198.51.100.7",
)
VIP = "10.43.0.1"
NOBODY = (VIP, "169.254.169.254", "100.64.0.1", "203.0.113.9")
PROBES, LOCAL_DNS, TUNNEL = "169.254.7.127", "169.254.20.10", "10.42.1.0"
HBONE = ("TCP", 15008)
PLATFORM = {
    "ingress": {"namespace": "edge", "pods": {"app": "traefik"}},
    "prometheus": {"namespace": "watch", "pods": {"app": "prometheus"}},
}
INGRESS, PROMETHEUS, OPERATOR = "edge/traefik", "watch/prometheus", "cnpg-system/cloudnative-pg"
#: The names that the world gives to platform parts that are declared and not there.
PLANNED = {INGRESS: "edge/ingress controller", PROMETHEUS: "watch/prometheus", OPERATOR: "cnpg-system/operator cloudnative-pg"}
#: Every port that a list below can name, and one that none does.
CANDIDATES = [("TCP", number) for number in (80, 443, 5432, 6443, 7777, 8000, 8006, 8080, 9000, 9005, 9006, 9443, 15008)]
CANDIDATES += [("TCP", 53), *(("UDP", number) for number in (53, 443, 7777))]
PING = ("ICMP", 0)


@st.composite
def lists(draw: Any) -> Manifest:
    """Apps, namespaces, gateway and what is there; ports are shared on purpose, so that edges meet."""
    keys = [(f"app{number}", draw(st.sampled_from(SPACES))) for number in range(draw(st.integers(2, 5)))]
    apps: list[Manifest] = []
    there: list[Manifest] = []
    for name, where in keys:
        ports = {"web": draw(st.sampled_from((80, 8080))), "sql": draw(st.sampled_from(("5432/tcp", "53/udp", "9000-9005/tcp")))}
        app: Manifest = {"name": name, "namespace": where, "pods": {"app": name}, "ports": ports}
        others = [f"{space}/{other}:{port}" for other, space in keys if other != name for port in ports]
        app["uses"] = draw(st.lists(st.sampled_from(others), max_size=3, unique=True))
        for key, value in (
            ("exposed", draw(st.sampled_from(("web", {"port": "web", "host": "a.example"}, ["web", "sql"])))),
            ("metrics", draw(st.sampled_from(("sql", ["web", "sql"])))),
            ("peers", ["web"]),
            ("kube_api", True),
            ("webhook", 9443),
            ("lan", ["web"]),
            ("external", [{"to": draw(st.sampled_from((EXTERNAL, NODE))), **draw(st.sampled_from(({"ports": [8006]}, {})))}]),
            ("icmp", [draw(st.sampled_from((LAN_HOST, API)))]),
            ("operator", draw(st.sampled_from(("cloudnative-pg", {"name": "cloudnative-pg", "ports": ["web"]})))),
        ):
            if draw(st.integers(0, 11 if key == "icmp" else 3)) == 0:
                app[key] = value
        kind = draw(st.integers(0, 5))
        if kind == 0:
            app["vpn"] = "proton"
            app.pop("webhook", None)
        elif kind == 1:
            app["internet"] = draw(st.sampled_from(([443], True, ["443/udp", 80])))
            if draw(st.integers(0, 3)) == 0:
                app["icmp"] = [PINGED]
        host = draw(st.integers(0, 11)) == 0
        if host or draw(st.booleans()):
            there += deployment(name, where, host=host)
        if app.get("lan") and draw(st.booleans()):
            there.append(_service(name, where, draw))
        apps.append({key: value for key, value in app.items() if value != []})
    spaces = [{"name": name, "layout": draw(st.sampled_from(("app", "namespace"))), "mesh": draw(st.booleans())} for name in SPACES]
    spaces += [{"name": name, "default": "open", "mesh": draw(st.booleans())} for name in ("edge", "watch", "cnpg-system")]
    if draw(st.booleans()):
        there += deployment("traefik", "edge", host=draw(st.booleans()))
    gateway = {"name": "proton", "namespace": "vpn", "provider": "protonvpn", "credentials": {"secret": "x"}}
    gateway["dns"] = draw(st.sampled_from(("vpn", "split", "cluster")))
    return {
        "apps": apps,
        "namespaces": spaces,
        "gateway": gateway,
        "there": there,
        "dual": draw(st.booleans()),
        "local": draw(st.booleans()),
    }


def _service(name: str, namespace: str, draw: Any) -> Manifest:
    spec = {
        "type": draw(st.sampled_from(("NodePort", "LoadBalancer", "ClusterIP"))),
        "externalTrafficPolicy": draw(st.sampled_from(("Local", "Cluster"))),
        "selector": {"app": name},
        "ports": [{"port": 80, "targetPort": 80}, {"port": 8080, "targetPort": 8080}],
    }
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def known(cni: str, found: Manifest) -> Facts:
    changes: dict[str, Any] = {
        "cni": Cni(cni, True, policy_apis=APIS.get(cni, ()), translates_kernel_packets=True),
        "mesh_probe_sources": networks(f"{PROBES}/32"),
        "dns": Dns(("10.43.0.10",), "kube-system", {"k8s-app": "kube-dns"}, node_local_ip=LOCAL_DNS if found["local"] else ""),
    }
    if found["dual"]:
        changes |= {"ip_families": ("ipv4", "ipv6"), "pods": networks("10.42.0.0/16", "fd00:10:42::/56")}
    return facts(cni, **changes)


def nodes() -> list[Manifest]:
    return [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": f"n{number}"},
            "spec": {"podCIDR": f"10.42.{number}.0/24"},
            "status": {"addresses": [{"type": "InternalIP", "address": f"192.0.2.{10 + number}"}]},
        }
        for number in (1, 2)
    ]


class Meaning:
    """A list, read word by word."""

    def __init__(self, found: Manifest, cni: str) -> None:
        self.cni = cni
        self.apps: dict[str, Manifest] = {f"{app['namespace']}/{app['name']}": app for app in found["apps"]}
        self.meshed = {item["name"] for item in found["namespaces"] if item["mesh"]}
        self.local = found["local"]
        self.dual = found["dual"]
        # Cilium knows nodes by what they are: one of them is all of them, the resolver on it included
        self.nodes = (API, NODE, LOCAL_DNS) if cni == "cilium" and self.local else (API, NODE)
        self.gateway_dns = found["gateway"]["dns"]
        self.there = {f"{item['metadata']['namespace']}/{item['metadata']['name']}" for item in self._workloads(found)}
        self.hosts = {
            f"{item['metadata']['namespace']}/{item['metadata']['name']}"
            for item in self._workloads(found)
            if item["spec"]["template"]["spec"].get("hostNetwork")
        }
        self.translated = {
            f"{item['metadata']['namespace']}/{item['metadata']['name']}"
            for item in found["there"]
            if item["kind"] == "Service"
            and item["spec"]["type"] != "ClusterIP"
            and item["spec"]["externalTrafficPolicy"] == "Cluster"
        }

    @staticmethod
    def _workloads(found: Manifest) -> list[Manifest]:
        return [item for item in found["there"] if item["kind"] == "Deployment"]

    def covered(self, key: str) -> bool:
        return key in self.apps and key not in self.hosts

    def together(self, namespace: str) -> list[str]:
        """The apps that the one policy of a namespace holds."""
        return [key for key in self.apps if key.startswith(f"{namespace}/") and self.covered(key) and not self.client(key)]

    def client(self, key: str) -> bool:
        return "vpn" in self.apps[key]

    def ports(self, key: str, names: Any) -> set[Port]:
        listed = [names] if isinstance(names, (str, dict)) else names
        wanted = [item["port"] if isinstance(item, dict) else item for item in listed]
        return {port for name in wanted for port in numbers(self.apps[key]["ports"][name])}

    def pairs(self) -> dict[tuple[str, str], set[Port]]:
        """Ports on the wire by (source, destination)."""
        result: dict[tuple[str, str], set[Port]] = {}

        def add(source: str, destination: str, ports: set[Port], *, tunnel: bool | None = None) -> None:
            both = source.split("/")[0] in self.meshed and destination.split("/")[0] in self.meshed
            more = {HBONE} if (both if tunnel is None else tunnel) else set()
            result[source, destination] = result.get((source, destination), set()) | ports | more

        for key, app in self.apps.items():
            for use in app.get("uses", ()):
                target, _colon, port = use.partition(":")
                add(key, target, self.ports(target, [port]))
            if "peers" in app:
                add(key, key, self.ports(key, app["peers"]))
            if "exposed" in app:
                # a controller may be enrolled, or speak the tunnel's protocol by itself
                add(INGRESS, key, self.ports(key, app["exposed"]), tunnel=app["namespace"] in self.meshed)
            if "metrics" in app:
                add(PROMETHEUS, key, self.ports(key, app["metrics"]))
            if "operator" in app:
                own = {("TCP", 8000), ("TCP", 5432)}
                more = self.ports(key, app["operator"]["ports"]) if isinstance(app["operator"], dict) else set()
                add(OPERATOR, key, own | more)
                add(key, key, own)
        return result

    def outward(self, key: str) -> dict[str, set[Port] | None]:
        """Ports by address that an app may speak to; None: every port, pings too."""
        app = self.apps[key]
        result: dict[str, set[Port] | None] = {
            name: set() for name in (PUBLIC, PUBLIC6, LAN_HOST, EXTERNAL, API, NODE, PINGED, *NOBODY)
        }
        result[LOCAL_DNS] = set()

        def add(address: str, ports: set[Port] | None) -> None:
            before = result[address]
            result[address] = None if before is None or ports is None else before | ports

        if "internet" in app:
            wanted = None if app["internet"] is True else {port for item in app["internet"] for port in numbers(item)}
            for address in (PUBLIC, PUBLIC6) if self.dual else (PUBLIC,):
                add(address, wanted)
        for item in app.get("external", ()):
            wanted = {port for value in item["ports"] for port in numbers(value)} if "ports" in item else None
            for address in self.nodes if item["to"] == NODE and self.cni == "cilium" else (item["to"],):
                add(address, wanted)
        if app.get("kube_api"):
            add(API, {("TCP", 6443)})
            if self.cni == "aws-vpc-cni":  # it sees the Service's address
                add(VIP, {("TCP", 443)})
        for address in app.get("icmp", ()):
            for one in self.nodes if address == API and self.cni == "cilium" else (address,):
                add(one, {PING})
        for (source, destination), ports in self.pairs().items():
            if source == key and destination in self.hosts:
                for address in self.nodes:
                    add(address, ports)
        if self.local and (not self.client(key) or self.gateway_dns == "cluster"):
            for address in self.nodes if self.cni == "cilium" else (LOCAL_DNS,):
                add(address, {("UDP", 53), ("TCP", 53)})
        return result

    def inward(self, key: str) -> dict[str, set[Port] | None]:
        """Ports by address that may speak to an app."""
        app = self.apps[key]
        result: dict[str, set[Port] | None] = {name: set() for name in (PUBLIC, LAN_HOST, NODE, PINGED, *NOBODY)}

        def add(address: str, ports: set[Port]) -> None:
            before = result[address]
            result[address] = None if before is None else before | ports

        if "lan" in app:
            for address in (LAN_HOST, NODE):
                add(address, self.ports(key, app["lan"]))
        if "webhook" in app:
            add(NODE, {("TCP", app["webhook"])})
        for (source, destination), ports in self.pairs().items():
            if destination == key and source in self.hosts:
                add(NODE, ports)
        if not self.client(key):
            result[PROBES] = None if app["namespace"] in self.meshed else set()
        return result

    def refused(self, language: str, closing: str) -> set[str]:
        """Paths of what cannot be said in these languages (of segmentation, of the kill switches)."""
        return {path for place, key in enumerate(self.apps) for path in self._refused(place, key, language, closing)}

    def _refused(self, place: int, key: str, language: str, closing: str) -> Iterator[str]:
        app = self.apps[key]
        if key in self.hosts:
            if self.client(key):
                yield f"apps[{place}].workload"
            return
        own = closing if self.client(key) else language
        if "icmp" in app and own not in ("calico", "cilium") and self.cni != "kube-router":
            yield f"apps[{place}].icmp"
        if self.cni == "cilium" and own != "cilium" and not self.client(key):
            beside = any(
                (one == key and other in self.hosts) or (other == key and one in self.hosts) for one, other in self.pairs()
            )
            node = any(item["to"] == NODE for item in app.get("external", ()))
            if beside or node or "kube_api" in app or "webhook" in app or self.local:
                yield f"apps[{place}]"


def numbers(text: Any) -> set[Port]:
    span, _slash, protocol = str(text).partition("/")
    first, _dash, last = span.partition("-")
    return {((protocol or "tcp").upper(), number) for number in range(int(first), int(last or first) + 1)}
