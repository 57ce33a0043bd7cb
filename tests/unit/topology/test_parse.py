# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the user declares: every fault with its path and a way out, every key with its meaning."""

from __future__ import annotations

import copy
import ipaddress
from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._errors import FaultsError
from ansible_collections.homelab.netguard.plugins.module_utils._manifests import gluetun_faults
from ansible_collections.homelab.netguard.plugins.module_utils._topology.model import Exposed, External, Port, Selector, Use, Vpn
from ansible_collections.homelab.netguard.plugins.module_utils._topology.parse import auto_network, auto_vni, parse
from hypothesis import given
from hypothesis import strategies as st

GATEWAY: dict[str, Any] = {"name": "proton", "provider": "protonvpn"}
PLATFORM: dict[str, Any] = {
    "ingress": {"namespace": "kube-system", "pods": {"app": "traefik"}},
    "prometheus": {"namespace": "monitoring", "pods": {"app": "prometheus"}},
}


def app(name: str = "web", namespace: str = "media", **keys: Any) -> dict[str, Any]:
    return {"name": name, "namespace": namespace, "ports": {"http": 8080}, **keys}


def faults(**declared: Any) -> list[str]:
    try:
        parse("home", **declared)
    except FaultsError as error:
        return [str(fault) for fault in error.faults]
    return []


def only(**keys: Any) -> Any:
    """The app with these keys, parsed."""
    return parse("home", [GATEWAY], [app(**keys), app("db", "database", ports={"sql": 5432})], PLATFORM).apps[0]


ACCEPTED = {
    "ports, one number": ({"ports": {"http": 80}}, "ports", {"http": (Port(80),)}),
    "ports, protocols and a range": (
        {"ports": {"p2p": ["6881/tcp", "6881/UDP"], "range": "7000-7010"}},
        "ports",
        {"p2p": (Port(6881), Port(6881, "UDP")), "range": (Port(7000, "TCP", 7010),)},
    ),
    "vpn, short form": ({"vpn": "proton"}, "vpn", Vpn("proton")),
    "vpn, long form": (
        {"vpn": {"gateway": "proton", "forward": "http", "start": "closed", "ready": "tunnel"}},
        "vpn",
        Vpn("proton", ("http",), "closed", "tunnel"),
    ),
    "uses, other namespace, listed twice": ({"uses": ["database/db:sql", "database/db:sql"]}, "uses", (Use("database/db", "sql"),)),
    "uses, one": ({"uses": "database/db:sql"}, "uses", (Use("database/db", "sql"),)),
    "exposed, short form": ({"exposed": "http"}, "exposed", (Exposed("http"),)),
    "exposed, with a host": (
        {"exposed": {"port": "http", "host": "a.home.example"}},
        "exposed",
        (Exposed("http", "a.home.example"),),
    ),
    "lan, true is what is exposed": ({"exposed": "http", "lan": True}, "lan", ("http",)),
    "lan, false": ({"lan": False}, "lan", ()),
    "lan, names": ({"lan": ["http"]}, "lan", ("http",)),
    "peers, true is every port": ({"peers": True}, "peers", ("http",)),
    "metrics": ({"metrics": "http"}, "metrics", ("http",)),
    "internet, ports": ({"internet": [443, "443/udp"]}, "internet", (Port(443), Port(443, "UDP"))),
    "internet, true": ({"internet": True}, "internet_all", True),
    "external": (
        {"external": {"to": "192.168.1.10", "ports": 8006}},
        "external",
        (External((ipaddress.ip_network("192.168.1.10/32"),), (Port(8006),)),),
    ),
    "workload": ({"workload": "StatefulSet/other"}, "kind", "StatefulSet"),
    "workload, default": ({}, "workload", "web"),
    "a key with nothing after it": ({"vpn": None, "uses": None}, "vpn", None),
    "operator, known": (
        {"operator": "cloudnative-pg"},
        "operator.selector",
        Selector("cnpg-system", {"app.kubernetes.io/name": "cloudnative-pg"}),
    ),
    "icmp": ({"icmp": "10.0.1.1"}, "icmp", (ipaddress.ip_network("10.0.1.1/32"),)),
    "webhook": ({"webhook": 9443}, "webhook", (Port(9443),)),
    "kube_api as text": ({"kube_api": "yes"}, "kube_api", True),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_key_has_its_meaning(name: str) -> None:
    keys, attribute, expected = ACCEPTED[name]
    value = only(**keys)
    for part in attribute.split("."):
        value = getattr(value, part)
    assert value == expected


#: name: (declared, texts that one fault each must contain)
REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown key": ({"apps": [app(prots={})]}, ['apps[0].prots: unknown key (did you mean "ports"?)']),
    "unknown key of a gateway": (
        {"gateways": [{**GATEWAY, "protcol": "x"}]},
        ['gateways[0].protcol: unknown key (did you mean "protocol"?)'],
    ),
    "missing": ({"apps": [{"name": "a"}]}, ["apps[0].namespace: missing"]),
    "not a list": ({"apps": "x"}, ['apps: "x" where a list is expected']),
    "not a mapping": ({"apps": [3]}, ['apps[0]: "3" where a mapping is expected']),
    "bad name": ({"apps": [app("Web")]}, ['apps[0].name: "Web" is not lower-case']),
    "boolean for a name": ({"apps": [app(True)]}, ["apps[0].name: the boolean true where one value is expected (quote it)"]),
    "duplicate app": ({"apps": [app(), app()]}, ['apps[1].name: app "media/web" is declared twice (first at apps[0])']),
    "duplicate gateway": ({"gateways": [GATEWAY, GATEWAY]}, ['gateways[1].name: gateway "proton" is declared twice']),
    "one workload, two apps": (
        {"apps": [app("a", workload="Deployment/x"), app("b", workload="Deployment/x")]},
        ["apps[1].workload: Deployment/x in media belongs to two apps"],
    ),
    "one selector, two apps": ({"apps": [app("a", pods={"a": "b"}), app("b", pods={"a": "b"})]}, ["apps[1].pods: the same labels"]),
    "empty selector": ({"apps": [app(pods={})]}, ["apps[0].pods: no labels"]),
    "wrong reference": (
        {"apps": [app(uses=["prowlar:web"]), app("prowlarr", ports={"web": 9696})]},
        ['apps[0].uses[0]: no app "prowlar" (did you mean "prowlarr"?)'],
    ),
    "reference to another namespace": (
        {"apps": [app(uses=["db:sql"]), app("db", "database", ports={"sql": 5432})]},
        ['apps[0].uses[0]: no app "db" (write database/db:sql)'],
    ),
    "wrong port of a reference": (
        {"apps": [app(uses=["db:sqll"]), app("db", ports={"sql": 5432})]},
        ['apps[0].uses[0]: media/db has no port "sqll" (did you mean "sql"?)'],
    ),
    "use of itself": ({"apps": [app(uses=["web:http"])]}, ["apps[0].uses[0]: an app that uses itself (write peers: [http])"]),
    "own port unknown": ({"apps": [app(lan=["htp"])]}, ['apps[0].lan: no port "htp" in ports (did you mean "http"?)']),
    "port twice": ({"apps": [app(ports={"a": 80, "b": "80/tcp"})]}, ["apps[0].ports.b: 80/tcp is also the port a"]),
    "no port": (
        {"apps": [app(ports={"a": "80/icmp", "b": 0, "c": "9-1"})]},
        ["apps[0].ports.a:", "apps[0].ports.b:", "apps[0].ports.c:"],
    ),
    "host bits": ({"apps": [app(external=[{"to": "10.0.0.1/8"}])]}, ["apps[0].external[0].to: "]),
    "everything": ({"apps": [app(external=[{"to": "0.0.0.0/0"}])]}, ["apps[0].external[0].to: 0.0.0.0/0 is everything"]),
    "exposed without a controller": ({"apps": [app(exposed="http")]}, ["apps[0].exposed: no ingress controller is declared"]),
    "metrics without Prometheus": ({"apps": [app(metrics="http")]}, ["apps[0].metrics: no Prometheus is declared"]),
    "kind": ({"apps": [app(workload="Pod/x")]}, ["apps[0].workload: Pod is not supported (a finished or bare pod"]),
    "operator unknown": ({"apps": [app(operator="percona")]}, ["apps[0].operator.namespace: missing"]),
    "internet with vpn": (
        {"gateways": [GATEWAY], "apps": [app(vpn="proton", internet=443)]},
        ["apps[0].internet: the app goes through a VPN (remove internet, or remove vpn)"],
    ),
    "all of the internet with vpn": ({"gateways": [GATEWAY], "apps": [app(vpn="proton", internet=True)]}, ["apps[0].internet:"]),
    "unknown gateway": (
        {"gateways": [GATEWAY], "apps": [app(vpn="protn")]},
        ['apps[0].vpn.gateway: no gateway "protn" (did you mean "proton"?)'],
    ),
    "client beside its gateway": (
        {"gateways": [GATEWAY], "apps": [app(namespace="vpn", vpn="proton")]},
        ["apps[0].namespace: vpn holds the gateway"],
    ),
    "client with a public exception": (
        {"gateways": [GATEWAY], "apps": [app(vpn="proton", external=[{"to": "203.0.114.7"}], icmp="8.8.8.8")]},
        ["apps[0].external[0].to: 203.0.114.7/32 is public", "apps[0].icmp: 8.8.8.8/32 is public"],
    ),
    "forward to a DaemonSet": (
        {"gateways": [GATEWAY], "apps": [app(workload="DaemonSet/x", vpn={"gateway": "proton", "forward": ["http"]})]},
        ["apps[0].vpn.forward: a DaemonSet has no single pod"],
    ),
    "one port forwarded twice": (
        {"gateways": [GATEWAY], "apps": [app(n, vpn={"gateway": "proton", "forward": ["http"]}) for n in ("a", "b")]},
        ["apps[1].vpn.forward: 8080/tcp is forwarded to another app as well (at apps[0])"],
    ),
    "gateway in the cluster's namespace": (
        {"gateways": [{**GATEWAY, "namespace": "kube-system"}]},
        ["gateways[0].namespace: kube-system belongs"],
    ),
    "public overlay": (
        {"gateways": [{**GATEWAY, "overlay": {"network": "8.8.0.0/16"}}]},
        ["gateways[0].overlay.network: 8.8.0.0/16 is not a private"],
    ),
    "narrow overlay": (
        {"gateways": [{**GATEWAY, "overlay": {"network": "10.9.0.0/28"}}]},
        ["gateways[0].overlay.network: 10.9.0.0/28 is not between"],
    ),
    "IPv6 overlay": ({"gateways": [{**GATEWAY, "overlay": {"network": "fd00::/16"}}]}, ["gateways[0].overlay.network:"]),
    "overlapping overlays": (
        {
            "gateways": [
                {**GATEWAY, "overlay": {"network": "172.20.0.0/14"}},
                {**GATEWAY, "name": "b", "overlay": {"network": "172.22.0.0/16"}},
            ]
        },
        ["gateways[1].overlay.network: 172.22.0.0/16 overlaps 172.20.0.0/14 of gateways[0] (set overlay.network: 172.16.0.0/16)"],
    ),
    "the same VNI": (
        {
            "gateways": [
                {**GATEWAY, "overlay": {"vni": 5}},
                {**GATEWAY, "name": "b", "overlay": {"vni": 5, "network": "10.9.0.0/16"}},
            ]
        },
        ["gateways[1].overlay.vni: 5 is the one of gateways[0]"],
    ),
    "WireGuard settings for OpenVPN": (
        {"gateways": [{**GATEWAY, "protocol": "openvpn", "wireguard": {"addresses": "10.2.0.2/32"}}]},
        ["gateways[0].wireguard: settings for wireguard, but the protocol is openvpn"],
    ),
    "a key that is none": ({"gateways": [{**GATEWAY, "wireguard": {"public_key": "abc"}}]}, ["gateways[0].wireguard.public_key:"]),
    "endpoint by name": (
        {"gateways": [{**GATEWAY, "wireguard": {"endpoint": {"ip": "vpn.example", "port": 51820}}}]},
        ['gateways[0].wireguard.endpoint.ip: "vpn.example" is not an IP address'],
    ),
    "choice": ({"gateways": [{**GATEWAY, "dns": "off"}]}, ['gateways[0].dns: "off" is not one of vpn, split, cluster']),
    "a setting in lower case": ({"gateways": [{**GATEWAY, "settings": {"tz": "UTC"}}]}, ["gateways[0].settings.tz:"]),
    "namespace twice": ({"namespaces": [{"name": "a"}, {"name": "a"}]}, ['namespaces[1].name: namespace "a" is declared twice']),
    "an open namespace with one policy": (
        {"namespaces": [{"name": "a", "default": "open", "layout": "namespace"}]},
        ["namespaces[0].layout: one policy for the whole namespace closes it"],
    ),
    "instance": ({"instance": "My Home"}, ["instance: "]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_fault_is_reported_with_its_path(name: str) -> None:
    declared, expected = REFUSED[name]
    declared = dict(declared)
    instance = declared.pop("instance", "home")
    with pytest.raises(FaultsError) as error:
        parse(instance, **declared)
    found = [str(fault) for fault in error.value.faults]
    assert len(found) == len(expected), found
    for text in expected:
        assert any(text in fault for fault in found), (text, found)


def test_all_faults_come_in_one_error() -> None:
    declared = {
        "gateways": [{**GATEWAY, "dns": "off"}, {"name": "x"}],
        "apps": [app(uses=["nobody:web"], foo=1), app("b", vpn="nowhere")],
    }
    found = faults(**declared)
    assert len(found) == 5, found


#: entries of the list of gateways, and the faults that are found, those of the judge among them
JUDGED: dict[str, tuple[list[Any], list[str]]] = {
    "known provider": ([GATEWAY], []),
    "its faults come with those of the form": (
        [GATEWAY | {"provider": "protonvpm"}, {"name": "b", "provider": "mullvad", "dns": "off"}],
        ["gateways[1].dns", "gateways[0].provider"],
    ),
    "a malformed gateway is not judged: what was refused is not missing": (
        [GATEWAY | {"provider": "nobody", "dns": "off"}],
        ["gateways[0].dns"],
    ),
    "an entry that is no gateway moves no path": ([{"provider": "nobody"}, GATEWAY | {"provider": "nobody"}], ["gateways[0].name"]),
}


@pytest.mark.parametrize("name", JUDGED)
def test_a_judge_of_gateways_is_heard_in_the_same_error(name: str) -> None:
    gateways, expected = JUDGED[name]
    found: list[str] = []
    try:
        parse("home", gateways, judge=gluetun_faults.declared)
    except FaultsError as error:
        found = [fault.path for fault in error.faults]
    assert found == expected


def test_input_is_left_as_it_was() -> None:
    declared = {"gateways": [copy.deepcopy(GATEWAY)], "apps": [app(vpn="proton")]}
    before = copy.deepcopy(declared)
    parse("home", **declared)
    assert declared == before


def test_auto_values_depend_on_the_name_alone() -> None:
    alone = parse("home", [GATEWAY]).gateways[0].overlay
    among = parse("home", [{"name": "zz", "provider": "x", "overlay": {"network": "10.9.0.0/16"}}, GATEWAY]).gateways[1].overlay
    assert alone == among
    assert alone.network == auto_network("proton")
    assert alone.vni == auto_vni("proton")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(
    ["name", "namespace", "ports", "vpn", "uses", "exposed", "external", "overlay", "wireguard", "server", "operator", "lan"]
)


@given(gateways=ANYTHING, apps=st.lists(st.dictionaries(KEYS, ANYTHING), max_size=3), platform=ANYTHING, namespaces=ANYTHING)
def test_no_input_whatever_crashes(gateways: Any, apps: Any, platform: Any, namespaces: Any) -> None:
    found: tuple[Any, ...] = ()
    try:
        parse("home", gateways, apps, platform, namespaces, judge=gluetun_faults.declared)
    except FaultsError as error:
        found = error.faults
    assert all(fault.path for fault in found)
