# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The schema of what the user declares: every key with its type, whether it is needed, and its documentation.

This is data alone. `read` judges values by it, `parse` gives them their meaning, and the documentation (the doc
fragment `_topology` and `docs/topology.md`) is generated from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Scalar:
    """One value. `form` is a pattern's name of `read.FORMS`; `choices` limit it."""

    form: str = "text"
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Boolean:
    pass


@dataclass(frozen=True)
class Integer:
    low: int
    high: int
    auto: bool = False  # the word auto is accepted as well


@dataclass(frozen=True)
class PortList:
    """A port, or a list of ports: `8080`, `53/udp`, `6000-6010/tcp`. `every`: true stands for all ports."""

    every: bool = False


@dataclass(frozen=True)
class NameList:
    """A name or a list of names of the app's own ports. `every`: true is accepted too."""

    every: bool = False


@dataclass(frozen=True)
class NetworkList:
    """An address or a network, or a list of them; a bare address is that host alone."""


@dataclass(frozen=True)
class ListOf:
    item: Type
    single: bool = False  # one item without the list is accepted


@dataclass(frozen=True)
class MapOf:
    """A mapping with free keys of the form `keys`."""

    value: Type
    keys: str = "text"


@dataclass(frozen=True)
class Key:
    name: str
    type: Type
    doc: str
    required: bool = False
    default: str = ""  # as documented; parse applies it


@dataclass(frozen=True)
class Mapping:
    """A mapping with known keys. `short`: the key that a bare scalar stands for."""

    keys: tuple[Key, ...]
    short: str = ""

    def names(self) -> tuple[str, ...]:
        return tuple(key.name for key in self.keys)


Type = Scalar | Boolean | Integer | PortList | NameList | NetworkList | ListOf | MapOf | Mapping  # pylint: disable=unsupported-binary-operation

PODS = Mapping(
    (
        Key("namespace", Scalar("label"), "Namespace of the pods.", required=True),
        Key("pods", MapOf(Scalar("label_value"), "label_key"), "Labels of the pods; without it every pod of the namespace."),
    )
)

WIREGUARD = Mapping(
    (
        Key(
            "addresses",
            ListOf(Scalar("interface_address"), single=True),
            "Addresses of the tunnel interface as the provider prints them, such as V(10.2.0.2/32).",
        ),
        Key(
            "endpoint",
            Mapping(
                (
                    Key(
                        "ip",
                        Scalar("address"),
                        "Address of the VPN server. A name is refused: it would be looked up outside the tunnel.",
                        required=True,
                    ),
                    Key("port", Integer(1, 65535), "UDP port of the VPN server.", required=True),
                )
            ),
            "The one server to use; needed by the provider V(custom), a pin for the others.",
        ),
        Key(
            "public_key",
            Scalar("wireguard_key"),
            "The server's public key (44 characters of base64); needed by the provider V(custom).",
        ),
    )
)

OPENVPN = Mapping(
    (
        Key(
            "endpoint",
            Mapping(
                (
                    Key("ip", Scalar("address"), "Address of the VPN server.", required=True),
                    Key("port", Integer(1, 65535), "Port of the VPN server.", required=True),
                )
            ),
            "The one server to use; a pin.",
        ),
        Key("protocol", Scalar(choices=("udp", "tcp")), "Transport of the tunnel.", default="udp"),
    )
)

OVERLAY = Mapping(
    (
        Key(
            "vni",
            Integer(1, 16777215, auto=True),
            "VXLAN network identifier. V(auto) is derived from the gateway's name.",
            default="auto",
        ),
        Key(
            "network",
            Scalar("overlay_network"),
            "Private IPv4 network of the overlay, /12 to /24. V(auto) is a /16 of 172.16.0.0/12 derived from the gateway's name.",
            default="auto",
        ),
        Key(
            "port",
            Integer(1024, 65535, auto=True),
            "UDP port of the overlay. V(auto) picks one that this cluster's CNI neither uses nor drops.",
            default="auto",
        ),
        Key(
            "scripts",
            Scalar(choices=("netguard", "image")),
            "V(netguard) runs this collection's own scripts in the pod-gateway image; V(image) the image's.",
            default="netguard",
        ),
    )
)

CREDENTIALS = Mapping(
    (Key("secret", Scalar("name"), "Name of an existing Secret in the gateway's namespace.", required=True),),
)

GATEWAY = Mapping(
    (
        Key("name", Scalar("label"), "Name of the gateway; apps refer to it.", required=True),
        Key("namespace", Scalar("label"), "Namespace of the gateway, created when missing. It holds no clients.", default="vpn"),
        Key(
            "provider", Scalar("text"), "VPN provider by Gluetun's name for it, such as V(protonvpn), or V(custom).", required=True
        ),
        Key("protocol", Scalar(choices=("wireguard", "openvpn")), "Protocol of the tunnel.", default="wireguard"),
        Key(
            "server",
            MapOf(ListOf(Scalar("setting"), single=True)),
            "Filters that choose the server, such as V({countries: [Netherlands]}). Which exist depends on the provider.",
        ),
        Key("wireguard", WIREGUARD, "Settings of a WireGuard tunnel."),
        Key("openvpn", OPENVPN, "Settings of an OpenVPN tunnel."),
        Key(
            "credentials",
            CREDENTIALS,
            "Where the credentials are. Without it they are given in the option O(credentials) of M(homelab.netguard.vpn_gateway).",
        ),
        Key("overlay", OVERLAY, "The VXLAN between the gateway and its clients."),
        Key(
            "dns",
            Scalar(choices=("vpn", "split", "cluster")),
            "How clients resolve names. V(vpn): all through the tunnel. V(split): cluster names by the cluster, "
            "the rest through the tunnel. "
            "V(cluster): all by the cluster's DNS, which is a leak of the names.",
            default="vpn",
        ),
        Key("settings", MapOf(Scalar("setting"), "setting_key"), "Any other Gluetun variable; checked against the known ones."),
    )
)

VPN = Mapping(
    (
        Key("gateway", Scalar("label"), "Name of the gateway.", required=True),
        Key("forward", NameList(), "Ports of this app that the provider forwards to it."),
        Key(
            "start",
            Scalar(choices=("tunnel", "closed")),
            "What the app's own containers wait for: V(tunnel) the first working tunnel, V(closed) only the closed guard.",
            default="tunnel",
        ),
        Key(
            "ready",
            Scalar(choices=("always", "tunnel")),
            "V(tunnel) makes the pod unready while the tunnel is down; V(always) keeps its web interface reachable in the cluster.",
            default="always",
        ),
        Key(
            "secondary_networks",
            ListOf(Scalar("text"), single=True),
            "Secondary networks (Multus) of the pod that are accepted. No layer guards them all.",
        ),
    ),
    short="gateway",
)

EXPOSED = Mapping(
    (
        Key("port", Scalar("port_name"), "Name of the port.", required=True),
        Key("host", Scalar("host"), "Host name under which it is served."),
    ),
    short="port",
)

EXTERNAL = Mapping(
    (
        Key("to", NetworkList(), "Addresses or networks outside the cluster.", required=True),
        Key("ports", PortList(), "Ports there; without it every port of every protocol."),
    )
)

OPERATOR = Mapping(
    (
        Key(
            "name",
            Scalar("label"),
            "V(cloudnative-pg) is known with its ports and labels; any other needs O(namespace).",
            required=True,
        ),
        Key("namespace", Scalar("label"), "Namespace of the operator.", default="cnpg-system for cloudnative-pg"),
        Key("pods", MapOf(Scalar("label_value"), "label_key"), "Labels of the operator's pods."),
        Key("ports", NameList(), "Ports of this app that the operator reaches; V(cloudnative-pg) adds its own."),
    ),
    short="name",
)

APP = Mapping(
    (
        Key("name", Scalar("label"), "Name of the app, unique in its namespace.", required=True),
        Key("namespace", Scalar("label"), "Namespace of the app.", required=True),
        Key(
            "workload",
            Scalar("workload"),
            "Its workload as V(Kind/name); Deployment, StatefulSet, DaemonSet or CronJob.",
            default="Deployment/<name>",
        ),
        Key(
            "pods",
            MapOf(Scalar("label_value"), "label_key"),
            "Labels that policies select its pods by. Needed when the workload does not exist yet, or when rendering without it.",
            default="the workload's own selector, read live",
        ),
        Key("service_account", Scalar("name"), "Service account of the pods: the identity in the mesh."),
        Key(
            "ports", MapOf(PortList(), "port_name"), "Ports of the pods (not of Services), each under a name used everywhere else."
        ),
        Key("vpn", VPN, "Sends the app out through a gateway only. The bare name of a gateway is the short form."),
        Key("uses", ListOf(Scalar("use"), single=True), "Ports of other apps it connects to, as V([namespace/]app:port)."),
        Key("exposed", ListOf(EXPOSED, single=True), "Ports served through the platform's ingress controller."),
        Key("metrics", NameList(), "Ports scraped by the platform's Prometheus."),
        Key(
            "internet",
            PortList(every=True),
            "Public destinations on these ports; V(true) for every port. Not together with O(vpn).",
        ),
        Key("external", ListOf(EXTERNAL, single=True), "Destinations outside the cluster by address, such as a NAS."),
        Key("kube_api", Boolean(), "Whether it talks to the Kubernetes API.", default="false"),
        Key("lan", NameList(every=True), "Ports that answer the local network; V(true) for the exposed ports."),
        Key("webhook", PortList(), "Ports that the API server calls."),
        Key("peers", NameList(every=True), "Ports between the pods of this app; V(true) for all its ports."),
        Key("icmp", NetworkList(), "Addresses it may ping. Needs Calico's or Cilium's own policies."),
        Key("operator", OPERATOR, "Who manages the pods, and so must reach them."),
    )
)

PLATFORM = Mapping(
    (
        Key("ingress", PODS, "Pods of the ingress controller."),
        Key("prometheus", PODS, "Pods of Prometheus."),
    )
)

NAMESPACE = Mapping(
    (
        Key("name", Scalar("label"), "Name of the namespace.", required=True),
        Key("default", Scalar(choices=("deny", "open")), "What holds for its pods that no rule names.", default="deny"),
        Key(
            "layout",
            Scalar(choices=("app", "namespace")),
            "V(app): small policies per app; V(namespace): one policy for the whole namespace's default.",
            default="app",
        ),
        Key("mesh", Boolean(), "Whether its pods are in the Istio ambient mesh.", default="false"),
    )
)


@dataclass(frozen=True)
class Option:
    """One topology option of every module."""

    name: str
    type: Type
    doc: tuple[str, ...] = field(default=())


OPTIONS = (
    Option("gateways", ListOf(GATEWAY), ("The VPN gateways.",)),
    Option("apps", ListOf(APP), ("The apps and what each of them needs.",)),
    Option("platform", PLATFORM, ("The parts of the cluster that serve many apps.",)),
    Option("namespaces", ListOf(NAMESPACE), ("Namespaces that differ from the default.",)),
)
