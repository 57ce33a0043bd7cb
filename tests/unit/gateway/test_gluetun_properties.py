# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whatever stands in settings and credentials: faults come back, never an exception, and never a credential's value."""

from __future__ import annotations

import base64
import ipaddress

from ansible_collections.homelab.netguard.plugins.module_utils._facts.model import Cni, Dns, Facts
from ansible_collections.homelab.netguard.plugins.module_utils._manifests import (
    gluetun,
    gluetun_case,
    gluetun_faults,
    gluetun_settings_faults,
    gluetun_values,
)
from ansible_collections.homelab.netguard.plugins.module_utils._manifests import gluetun_variables as variables
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.gateway import build
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.gateway_pod import PodOptions
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.images import Images
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Live
from ansible_collections.homelab.netguard.plugins.module_utils._topology.model import (
    Gateway,
    OpenVpn,
    Overlay,
    Topology,
    WireGuard,
)
from hypothesis import given, settings
from hypothesis import strategies as st

FACTS = Facts(
    pods=(ipaddress.ip_network("10.42.0.0/16"), ipaddress.ip_network("fd00:42::/56")),
    services=(ipaddress.ip_network("10.43.0.0/16"),),
    dns=Dns(("10.43.0.10",), "kube-system", {"k8s-app": "kube-dns"}),
    cni=Cni("calico", True),
    ip_families=("ipv4", "ipv6"),
)
IMAGES = (Images(), Images(gluetun="gluetun:v3.42.0"))
WORDS = st.sampled_from(
    [
        *("on", "off", "0", "-1", "25s", "²", "x:²", "1.1.1.1:²", "٣", "1.1.1.1"),
        *("0.0.0.0/0", "10.0.0.0/8", "10.2.0.0/24", "fd00::/8", "[::]:1", ":53", "a,b", ",", "/", "1,2"),
    ]
)
TEXT = (
    WORDS
    | st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=20)
    | st.from_regex(r"[0-9.,:/ -]{0,24}", fullmatch=True)
)
NAMES = sorted({*variables.VARIABLES, *variables.OURS, *variables.FORBIDDEN, *variables.RENAMED, *variables.SECRET_VARIABLES})
SECRET = st.text(alphabet="abcdefghijklmnopqrstuvwxyz", min_size=24, max_size=24).map(lambda text: f"Q{text}Z")
CONF = SECRET.map(lambda text: f"PrivateKey = {text}\nEndpoint = {text}:1")
CREDENTIALS = st.dictionaries(st.sampled_from([*variables.SECRETS, "other"]), SECRET | TEXT | CONF)
VALUES = st.lists(TEXT, min_size=1, max_size=3).map(tuple)
SERVER = st.dictionaries(st.sampled_from([*gluetun.FILTERS, "other"]), VALUES, max_size=3)


@st.composite
def gateways(draw: st.DrawFn) -> Gateway:
    return Gateway(
        "g",
        "vpn",
        draw(st.sampled_from([*gluetun.PROVIDERS, "nobody"])),
        draw(st.sampled_from(["wireguard", "openvpn"])),
        Overlay(42, ipaddress.IPv4Network("172.29.0.0/16"), None, draw(st.sampled_from(["netguard", "image"]))),
        server=draw(SERVER),
        wireguard=WireGuard(("10.2.0.2/32",), draw(TEXT), draw(st.integers(0, 65535)), draw(TEXT)),
        openvpn=OpenVpn(draw(TEXT), draw(st.integers(0, 65535)), draw(st.sampled_from(["udp", "tcp"]))),
        settings=draw(st.dictionaries(st.sampled_from(NAMES), TEXT, max_size=5)),
    )


@settings(max_examples=400, deadline=None)
@given(gateways(), CREDENTIALS, st.sampled_from(IMAGES))
def test_any_input_is_judged(gateway: Gateway, credentials: dict[str, str], images: Images) -> None:
    topology = Topology("home", (gateway,))
    texts = [str(fault) for fault in gluetun_faults.check(topology, {"g": credentials}, facts=FACTS, images=images)]
    texts += gluetun_faults.advise(topology, {"g": credentials}, facts=FACTS, images=images)
    for value in credentials.values():
        for word in value.split():
            if word.startswith("Q") and word.endswith("Z") and len(word) == 26:
                assert not any(word in text for text in texts)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(variables.VARIABLES)), TEXT, max_size=4), st.sampled_from(IMAGES))
def test_what_is_accepted_can_be_built_and_written(values: dict[str, str], images: Images) -> None:
    gateway = Gateway("g", "vpn", "protonvpn", "wireguard", Overlay(42, ipaddress.IPv4Network("172.29.0.0/16")), settings=values)
    topology = Topology("home", (gateway,))
    given_credentials = {"g": {"wireguard_private_key": base64.b64encode(bytes(range(32))).decode()}}
    if gluetun_faults.check(topology, given_credentials, facts=FACTS, images=images):
        return
    desired = build(topology, FACTS, Live(), given=given_credentials, options=PodOptions(images))
    (environment,) = [item["data"] for item in desired.objects if item["metadata"]["name"].endswith("-env")]
    for name, value in environment.items():
        known = variables.VARIABLES.get(name)
        if known is not None:
            assert gluetun_values.wrong(known, value) == "", (name, value)
            assert ", " not in value or known.kind == "text"


@given(st.text(max_size=200))
def test_files_of_the_user_never_raise(text: str) -> None:
    gluetun_case.wg_conf(text)
    gluetun_case.ovpn_remotes(text)
    gluetun_case.split_endpoint(text)
    gluetun_settings_faults.roles_of(text)
    gluetun.image_version(text)


@given(st.integers(0, 10**6), st.sampled_from(["s", "m", "h", "ms"]))
def test_durations(number: int, unit: str) -> None:
    factor = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]
    assert gluetun_values.seconds(f"{number}{unit}") == number * factor
    assert gluetun_values.seconds(f"-{number}{unit}") == -number * factor
    assert gluetun_values.seconds(str(number)) == (0.0 if number == 0 else None)
