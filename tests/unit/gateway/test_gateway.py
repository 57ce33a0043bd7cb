# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a gateway becomes: the checklist of the gateway's manifest, object by object."""

from __future__ import annotations

import base64
import ipaddress
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._errors import FaultsError
from ansible_collections.homelab.netguard.plugins.module_utils._facts.model import Cni, Dns, Facts
from ansible_collections.homelab.netguard.plugins.module_utils._manifests import gateway as builder
from ansible_collections.homelab.netguard.plugins.module_utils._manifests import gateway_checks, gluetun
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.addresses import reverse_zones
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.gateway_pod import PodOptions
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.images import Images
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Desired, Live
from ansible_collections.homelab.netguard.plugins.module_utils._overlay import scripts as overlay_scripts
from ansible_collections.homelab.netguard.plugins.module_utils._topology.parse import parse

KEY = base64.b64encode(bytes(range(32))).decode()
OTHER_KEY = base64.b64encode(bytes(range(1, 33))).decode()
FACTS = Facts(
    pods=(ipaddress.ip_network("10.42.0.0/16"),),
    services=(ipaddress.ip_network("10.43.0.0/16"),),
    nodes=(ipaddress.ip_network("192.168.1.10/32"),),
    lan=(ipaddress.ip_network("192.168.1.0/24"),),
    dns=Dns(("10.43.0.10",), "kube-system", {"k8s-app": "kube-dns"}),
    cni=Cni("calico", True, drops_workload_vxlan_ports=(4789,), translates_kernel_packets=True),
    server_version=(1, 33),
)
GATEWAY: dict[str, Any] = {"name": "g", "provider": "protonvpn"}
APPS: list[dict[str, Any]] = [
    {"name": "qbittorrent", "namespace": "media", "ports": {"web": 8080, "in": ["6881/tcp", "6881/udp"]}, "vpn": {"gateway": "g"}},
    {"name": "prowlarr", "namespace": "index", "ports": {"web": 9696}, "vpn": "g"},
]
SECRET = {"g": {"wireguard_private_key": KEY}}
BOTH = pytest.mark.parametrize("scripts", ["netguard", "image"])


def namespace(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def secret(name: str = "s", namespace: str = "vpn", version: str = "7", **data: str) -> dict[str, Any]:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    meta = {"name": name, "namespace": namespace, "uid": "u-1", "resourceVersion": version}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": encoded}


LIVE = (namespace("media"), namespace("index"), namespace("vpn"))


def built(
    *gateways: dict[str, Any], apps: Any = None, live: tuple[Any, ...] = LIVE, facts: Facts = FACTS, **options: Any
) -> Desired:
    topology = parse("home", gateways=list(gateways or (GATEWAY,)), apps=APPS if apps is None else apps)
    options.setdefault("given", SECRET)
    return builder.build(topology, facts, Live(live), **options)


def found(desired: Desired, kind: str, name: str = "netguard-gateway-g", namespace: str = "vpn") -> dict[str, Any]:
    matches = [
        item
        for item in desired.objects
        if item["kind"] == kind and item["metadata"]["name"] == name and item["metadata"].get("namespace", "") == namespace
    ]
    assert len(matches) == 1, [(item["kind"], item["metadata"]["name"]) for item in desired.objects]
    return matches[0]


def pod(desired: Desired) -> dict[str, Any]:
    return found(desired, "Deployment")["spec"]["template"]


def container(desired: Desired, name: str) -> dict[str, Any]:
    spec = pod(desired)["spec"]
    return {item["name"]: item for item in (*spec["initContainers"], *spec["containers"])}[name]


def environment(desired: Desired) -> dict[str, str]:
    return found(desired, "ConfigMap", "netguard-gateway-g-env")["data"]


def entry(scripts: str = "netguard", **keys: Any) -> dict[str, Any]:
    return {**GATEWAY, "overlay": {"scripts": scripts}, **keys}


# Pod and rollout


@BOTH
def test_pod_and_rollout(scripts: str) -> None:
    desired = built(entry(scripts))
    deployment = found(desired, "Deployment")
    spec = pod(desired)["spec"]
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert spec["enableServiceLinks"] is False
    assert spec["automountServiceAccountToken"] is False
    assert spec["terminationGracePeriodSeconds"] > overlay_scripts.GOODBYE
    assert spec["dnsPolicy"] == "None"
    assert spec["dnsConfig"] == {"nameservers": ["1.1.1.1"], "options": [{"name": "ndots", "value": "1"}]}
    assert pod(desired)["metadata"]["labels"]["istio.io/dataplane-mode"] == "none"
    assert [item["name"] for item in spec["initContainers"]] == ["overlay-init"]
    assert [item["name"] for item in spec["containers"]] == ["gluetun", "overlay"]
    limit = container(desired, "gluetun")["resources"]["limits"]["memory"]
    assert (gateway_checks.memory(limit) or 0) >= gateway_checks.LEAST_MEMORY
    for item in (*spec["initContainers"], *spec["containers"]):
        tag = item["image"].partition("@")[0].rpartition(":")[2]
        assert tag.count(".") == 2
        assert "@sha256:" in item["image"] or item["name"] != "gluetun"


def test_the_policy_is_written_before_the_pod_and_the_namespace_before_everything() -> None:
    desired = built(live=())
    kinds = [[item["kind"] for item in wave] for wave in desired.waves]
    assert kinds[0] == ["Namespace"]
    assert kinds[1] == ["Secret"]
    assert "NetworkPolicy" in kinds[2]
    assert kinds[3] == ["Deployment"]
    created = desired.waves[0][0]["metadata"]
    assert created["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"


# Privileges


@BOTH
def test_privileges(scripts: str) -> None:
    desired = built(entry(scripts))
    context = container(desired, "gluetun")["securityContext"]
    assert context["capabilities"] == {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]}
    assert context["runAsUser"] == 0
    assert context["privileged"] is False
    assert not {"MKNOD", "SYS_MODULE"} & set(str(pod(desired)))
    assert container(desired, "overlay")["securityContext"]["privileged"] is False
    assert container(desired, "overlay-init")["securityContext"]["privileged"] is True


@pytest.mark.parametrize(
    ("gateway", "credentials", "options", "where"),
    [
        (GATEWAY, SECRET, PodOptions(), ""),
        ({**GATEWAY, "settings": {"WIREGUARD_IMPLEMENTATION": "userspace"}}, SECRET, PodOptions(), "host"),
        ({**GATEWAY, "protocol": "openvpn"}, {"g": {"openvpn_user": "u", "openvpn_password": "p"}}, PodOptions(), "host"),
        (GATEWAY, SECRET, PodOptions(Images(gluetun="gluetun:v3.41.1")), "host"),
        (GATEWAY, SECRET, PodOptions(tun="host"), "host"),
        (GATEWAY, SECRET, PodOptions(tun="devic.es/tun"), "devic.es/tun"),
        ({**GATEWAY, "protocol": "openvpn"}, {"g": {"openvpn_user": "u", "openvpn_password": "p"}}, PodOptions(tun="none"), ""),
    ],
)
def test_the_tun_device(gateway: dict[str, Any], credentials: Any, options: PodOptions, where: str) -> None:
    desired = built(gateway, given=credentials, options=options)
    mounted = [item["mountPath"] for item in container(desired, "gluetun")["volumeMounts"]]
    assert ("/dev/net/tun" in mounted) is (where == "host")
    assert container(desired, "gluetun")["resources"].get("limits", {}).get(where or "-") == (
        None if where in ("", "host") else "1"
    )
    assert any(
        volume.get("hostPath") == {"path": "/dev/net/tun", "type": "CharDevice"} for volume in pod(desired)["spec"]["volumes"]
    ) is (where == "host")


def test_command_and_probes() -> None:
    gluetun_container = container(built(), "gluetun")
    forgotten, started = gluetun_container["command"][-1].split("; exec ")
    assert started == "/gluetun-entrypoint"
    # BusyBox's ip, which the image may have, refuses table numbers above 1023
    assert forgotten.startswith("for family in -4 -6; do ip $family rule del table 51820 || ip $family rule del pref 101; done")
    for probe in ("startupProbe", "readinessProbe"):
        assert gluetun_container[probe]["exec"]["command"] == ["/gluetun-entrypoint", "healthcheck"]
        assert (gluetun_container[probe]["periodSeconds"], gluetun_container[probe]["timeoutSeconds"]) == (10, 5)
    assert gluetun_container["startupProbe"]["failureThreshold"] >= 30
    assert "livenessProbe" not in gluetun_container
    assert "httpGet" not in json.dumps(pod(built()))
    assert "tcpSocket" not in json.dumps(pod(built()))


# Environment


def test_environment_of_v341() -> None:
    values = environment(built())
    assert values == {
        "DNS_ADDRESS": "1.1.1.1",
        "DNS_SERVER": "off",
        "FIREWALL_INPUT_PORTS": "48879,48880",
        "FIREWALL_OUTBOUND_SUBNETS": "10.42.0.0/16,10.43.0.0/16",
        "HEALTH_RESTART_VPN": "on",
        "HTTP_CONTROL_SERVER_ADDRESS": "127.0.0.1:8000",
        "PGID": "0",
        "PUID": "0",
        "STORAGE_FILEPATH": "",
        "UPDATER_PERIOD": "0",
        "VERSION_INFORMATION": "off",
        "VPN_INTERFACE": "tun0",
        "VPN_SERVICE_PROVIDER": "protonvpn",
        "VPN_TYPE": "wireguard",
        "WIREGUARD_IMPLEMENTATION": "auto",
        "WIREGUARD_MTU": "1320",
        "WIREGUARD_PRIVATE_KEY_SECRETFILE": "/netguard/credentials/wireguard_private_key",
    }


def test_environment_of_the_next_release() -> None:
    values = environment(built(options=PodOptions(Images(gluetun="gluetun:v3.42.0"))))
    assert values["DNS_UPSTREAM_RESOLVER_TYPE"] == "plain"
    assert values["DNS_UPSTREAM_PLAIN_ADDRESSES"] == "1.1.1.1:53"
    assert values["STORAGE_SERVERS_ENABLED"] == "off"
    assert values["WIREGUARD_MTU"] == "1320"
    assert not {"DNS_ADDRESS", "STORAGE_FILEPATH", "DNS_KEEP_NAMESERVER"} & set(values)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"settings": {"HTTPPROXY": True, "BLOCK_ADS": "No"}}, {"HTTPPROXY": "on", "BLOCK_ADS": "off"}),
        (
            {"settings": {"FIREWALL_OUTBOUND_SUBNETS": "192.168.7.0/24"}},
            {"FIREWALL_OUTBOUND_SUBNETS": "10.42.0.0/16,10.43.0.0/16,192.168.7.0/24"},
        ),
        ({"settings": {"FIREWALL_INPUT_PORTS": "8888"}}, {"FIREWALL_INPUT_PORTS": "48879,48880,8888"}),
        ({"overlay": {"port": 5555}}, {"FIREWALL_INPUT_PORTS": "5555,5556"}),
        ({"settings": {"DNS_ADDRESS": "10.2.0.1"}}, {"DNS_ADDRESS": "10.2.0.1"}),
        ({"settings": {"WIREGUARD_MTU": 1280}}, {"WIREGUARD_MTU": "1280"}),
        ({"server": {"countries": ["Netherlands", "Iceland"]}}, {"SERVER_COUNTRIES": "Netherlands,Iceland"}),
        ({"server": {"free_only": True}}, {"FREE_ONLY": "on"}),
        ({"wireguard": {"addresses": ["10.2.0.2/32", "fd00::2/128"]}}, {"WIREGUARD_ADDRESSES": "10.2.0.2/32"}),
        ({"wireguard": {"endpoint": {"ip": "203.0.113.7", "port": 51820}}}, {"WIREGUARD_ENDPOINT_IP": "203.0.113.7"}),
    ],
)
def test_what_the_user_sets(keys: dict[str, Any], expected: dict[str, str]) -> None:
    values = environment(built({**GATEWAY, **keys}))
    assert {name: values.get(name) for name in expected} == expected
    assert "WIREGUARD_ENDPOINT_PORT" not in values, "the provider's own port may not be set"


@pytest.mark.parametrize("provider", [name for name, item in gluetun.PROVIDERS.items() if item.openvpn])
def test_no_secret_is_in_any_object_but_the_secret(provider: str) -> None:
    rules = gluetun.PROVIDERS[provider].openvpn
    assert rules is not None
    pem = f"-----BEGIN X-----\n{KEY}\n-----END X-----"
    secrets = {
        key: "remote 203.0.113.9 1194"
        if key == "openvpn_custom_config"
        else pem
        if key in ("openvpn_cert", "openvpn_key")
        else "hunter" + key
        for key in rules.credentials
    }
    if "openvpn_encrypted_key" in secrets:
        secrets["openvpn_encrypted_key"] = pem
    desired = built({"name": "g", "provider": provider, "protocol": "openvpn"}, given={"g": secrets})
    for item in desired.objects:
        if item["kind"] == "Secret":
            assert set(item["data"]) == set(secrets)
            continue
        text = json.dumps(item)
        assert not any(value in text or base64.b64encode(value.encode()).decode() in text for value in secrets.values())
    values = environment(desired)
    assert values["VPN_SERVICE_PROVIDER"] == provider
    files = {value for value in values.values() if value.startswith("/netguard/credentials/")}
    assert {file.rpartition("/")[2] for file in files} == set(secrets)


# Credentials


def test_an_existing_secret_is_mounted_by_the_keys_it_has() -> None:
    live = (*LIVE, secret(**{"WIREGUARD-PRIVATE-KEY": KEY, "something-else": "x"}))
    desired = built({**GATEWAY, "credentials": {"secret": "s"}}, live=live, given={})
    volume = {item["name"]: item for item in pod(desired)["spec"]["volumes"]}["credentials"]["secret"]
    assert volume == {
        "secretName": "s",
        "defaultMode": 0o400,
        "items": [{"key": "WIREGUARD-PRIVATE-KEY", "path": "wireguard_private_key"}],
    }
    assert pod(desired)["metadata"]["annotations"]["homelab.netguard/credentials"] == "u-1/7"
    assert not [item for item in desired.objects if item["kind"] == "Secret"]


def test_a_changed_secret_rolls_the_pod_by_its_revision() -> None:
    gateway = {**GATEWAY, "credentials": {"secret": "s"}}
    first = built(gateway, live=(*LIVE, secret(wireguard_private_key=KEY)), given={})
    second = built(gateway, live=(*LIVE, secret(version="8", wireguard_private_key=KEY)), given={})
    assert pod(first) != pod(second)
    ours = secret("netguard-gateway-g-credentials", wireguard_private_key=KEY)
    known, pending = built(live=(*LIVE, ours)), built(live=(*LIVE, ours), pending=[("vpn", "netguard-gateway-g-credentials")])
    assert pod(known)["metadata"]["annotations"]["homelab.netguard/credentials"] == "u-1/7"
    assert pod(pending)["metadata"]["annotations"]["homelab.netguard/credentials"] == "u-1/7+changed"


@pytest.mark.parametrize(
    ("live", "given", "expected"),
    [
        (LIVE, {}, "gateways[0].credentials.secret: Secret vpn/s does not exist"),
        ((*LIVE, secret(key="x")), {}, "has no key that is known (it has key;"),
        ((*LIVE, secret(wireguard_private_key="short")), {}, "key wireguard_private_key of s privatekey"),
        ((*LIVE, secret(wireguard_preshared_key=KEY)), {}, "key wireguard_private_key of s is missing"),
        ((*LIVE, secret(wireguard_private_key=KEY)), SECRET, "credentials.g: the gateway names a Secret as well"),
    ],
)
def test_faults_of_an_existing_secret(live: tuple[Any, ...], given: Any, expected: str) -> None:
    with pytest.raises(FaultsError) as error:
        built({**GATEWAY, "credentials": {"secret": "s"}}, live=live, given=given)
    assert expected in str(error.value)
    assert KEY not in str(error.value)


def test_rendering_does_not_need_the_secret() -> None:
    desired = built({**GATEWAY, "credentials": {"secret": "s"}}, live=(), given={}, complete=False)
    volume = {item["name"]: item for item in pod(desired)["spec"]["volumes"]}["credentials"]["secret"]
    assert "items" not in volume
    assert environment(desired)["WIREGUARD_CONF_SECRETFILE"] == "/netguard/credentials/wg0.conf"
    assert "homelab.netguard/credentials" not in pod(desired)["metadata"]["annotations"]


# What rolls the pod


@BOTH
def test_a_changed_setting_rolls_the_pod_and_a_new_client_does_not(scripts: str) -> None:
    before = built(entry(scripts))
    changed = built(entry(scripts, settings={"LOG_LEVEL": "debug"}))
    assert pod(before) != pod(changed)
    more = [*APPS, {"name": "sonarr", "namespace": "media", "ports": {"web": 8989}, "vpn": "g"}]
    assert pod(built(entry(scripts), apps=more)) == pod(before)
    elsewhere = [*APPS, {"name": "sonarr", "namespace": "shows", "ports": {"web": 8989}, "vpn": "g", "pods": {"app": "sonarr"}}]
    after = built(entry(scripts), apps=elsewhere, live=(*LIVE, namespace("shows")))
    assert pod(after) == pod(before)
    assert found(after, "NetworkPolicy") != found(before, "NetworkPolicy")
    services = [item for item in after.objects if item["metadata"].get("namespace") == "shows"]
    assert [item["metadata"]["name"] for item in services] == (["netguard-clients-g"] if scripts == "netguard" else [])


def test_a_client_namespace_that_does_not_exist_waits() -> None:
    desired = built(live=(namespace("media"), namespace("vpn")))
    assert [item["metadata"]["namespace"] for item in desired.objects if item["metadata"]["name"] == "netguard-clients-g"] == [
        "media"
    ]


# Services


def test_services() -> None:
    desired = built()
    headless, service = found(desired, "Service", "netguard-gateway-g-pods"), found(desired, "Service")
    clients = found(desired, "Service", "netguard-clients-g", "media")
    assert headless["spec"]["clusterIP"] == clients["spec"]["clusterIP"] == "None"
    assert "clusterIP" not in service["spec"]
    for item in (headless, service, clients):
        assert item["spec"]["publishNotReadyAddresses"] is True
        ports = [(port["name"], port["protocol"], port["port"], port["targetPort"]) for port in item["spec"]["ports"]]
        finder = [] if item is clients else [("finder", "UDP", 48880, 48880)]
        assert ports == [("overlay", "UDP", 48879, 48879), *finder]
    assert service["spec"]["selector"] == found(desired, "Deployment")["spec"]["selector"]["matchLabels"]
    assert clients["spec"]["selector"] == {"homelab.netguard/client": "g", "homelab.netguard/instance": "home"}


# Policy


def egress(desired: Desired) -> list[dict[str, Any]]:
    return found(desired, "NetworkPolicy")["spec"]["egress"]


def test_policy_of_a_native_provider() -> None:
    spec = found(built(), "NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    clients = [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
            "podSelector": {"matchLabels": {"homelab.netguard/client": "g", "homelab.netguard/instance": "home"}},
        }
        for name in ("index", "media")
    ]
    assert spec["ingress"] == [{"from": clients, "ports": [{"protocol": "UDP", "port": 48879}, {"protocol": "UDP", "port": 48880}]}]
    assert spec["egress"][0]["ports"] == [{"protocol": "UDP", "port": 51820}]
    assert spec["egress"][1] == {"to": clients, "ports": [{"protocol": "UDP", "port": 48879}]}
    (world,) = spec["egress"][0]["to"]
    excepted = [ipaddress.ip_network(item) for item in world["ipBlock"]["except"]]
    for text in ("10.42.1.1", "10.43.0.10", "192.168.1.10", "192.168.1.99", "169.254.169.254", "100.64.0.1", "172.20.0.1"):
        assert any(ipaddress.ip_address(text) in item for item in excepted), text


WG_CONF = f"[Interface]\nPrivateKey={KEY}\nAddress=10.9.0.2/32\n[Peer]\nPublicKey={KEY}\nEndpoint=203.0.113.8:1443\n"


@pytest.mark.parametrize(
    ("gateway", "given", "to", "port"),
    [
        ({**GATEWAY, "wireguard": {"endpoint": {"ip": "203.0.113.7", "port": 51820}}}, SECRET, "203.0.113.7/32", ("UDP", 51820)),
        ({"name": "g", "provider": "custom"}, {"g": {"wg0.conf": WG_CONF}}, "203.0.113.8/32", ("UDP", 1443)),
        (
            {"name": "g", "provider": "custom", "protocol": "openvpn"},
            {"g": {"openvpn_custom_config": "proto tcp\nremote 203.0.113.9 8443"}},
            "203.0.113.9/32",
            ("TCP", 8443),
        ),
        (
            {
                "name": "g",
                "provider": "privado",
                "protocol": "openvpn",
                "openvpn": {"endpoint": {"ip": "2001:db8::7", "port": 443}},
            },
            {"g": {"openvpn_user": "u", "openvpn_password": "p"}},
            "2001:db8::7/128",
            ("UDP", 443),
        ),
        ({"name": "g", "provider": "windscribe", "wireguard": {"addresses": ["10.9.0.2/32"]}}, SECRET, "0.0.0.0/0", ("UDP", 1194)),
        (
            {
                "name": "g",
                "provider": "pia",
                "protocol": "openvpn",
                "settings": {"PRIVATE_INTERNET_ACCESS_OPENVPN_ENCRYPTION_PRESET": "normal"},
            },
            {"g": {"openvpn_user": "u", "openvpn_password": "p"}},
            "0.0.0.0/0",
            ("UDP", 1198),
        ),
        (
            {"name": "g", "provider": "torguard", "protocol": "openvpn", "openvpn": {"protocol": "tcp"}},
            {"g": {"openvpn_user": "u", "openvpn_password": "p"}},
            "0.0.0.0/0",
            ("TCP", 1912),
        ),
    ],
)
def test_the_vpn_server_in_the_policy(gateway: dict[str, Any], given: Any, to: str, port: tuple[str, int]) -> None:
    rule = egress(built(gateway, given=given))[0]
    assert [item["ipBlock"]["cidr"] for item in rule["to"]] == [to]
    assert rule["ports"] == [{"protocol": port[0], "port": port[1]}]


def test_a_custom_server_that_only_the_cluster_knows() -> None:
    gateway = {"name": "g", "provider": "custom", "credentials": {"secret": "s"}}
    rule = egress(built(gateway, given={}, live=(), complete=False))[0]
    assert rule["ports"] == [{"protocol": "UDP"}]


def test_two_families_in_the_policy() -> None:
    facts = Facts(**{**FACTS.__dict__, "ip_families": ("ipv4", "ipv6")})
    assert [item["ipBlock"]["cidr"] for item in egress(built(facts=facts))[0]["to"]] == ["0.0.0.0/0", "2000::/3"]


def test_a_gateway_without_clients_is_reached_by_nobody() -> None:
    spec = found(built(apps=[]), "NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in spec
    assert len(spec["egress"]) == 1


# Several gateways


def test_two_gateways_share_nothing() -> None:
    second = {"name": "h", "provider": "mullvad", "wireguard": {"addresses": ["10.9.0.2/32"]}}
    given = {**SECRET, "h": {"wireguard_private_key": OTHER_KEY}}
    desired = built(GATEWAY, second, given=given)
    keys = [(item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]) for item in desired.objects]
    assert len(keys) == len(set(keys))
    one, two = (found(desired, "Deployment", f"netguard-gateway-{name}")["spec"]["selector"]["matchLabels"] for name in "gh")
    assert one != two
    assert found(desired, "ConfigMap", "netguard-gateway-h-env")["data"]["VPN_SERVICE_PROVIDER"] == "mullvad"


def test_every_object_is_ours() -> None:
    for item in built(live=()).objects:
        labels = item["metadata"]["labels"]
        assert labels["homelab.netguard/instance"] == "home"
        assert labels["homelab.netguard/part"] == "gateway"


# Refusals that depend on the cluster


@pytest.mark.parametrize(
    ("keys", "options", "expected"),
    [
        ({"overlay": {"port": 4789}}, {}, "gateways[0].overlay.port: calico drops UDP 4789 from pods (leave it out: 48879"),
        ({"overlay": {"port": 4788}}, {}, "calico drops UDP 4789 from pods (the one behind it is needed too)"),
        ({"overlay": {"port": 65535}}, {}, "gateways[0].overlay.port: 65536 is no port"),
        ({"overlay": {"network": "10.42.0.0/16"}}, {}, "gateways[0].overlay.network: 10.42.0.0/16 overlaps the pod range"),
        ({"overlay": {"network": "172.29.0.0/24"}}, {"many": 300}, "has room for 252 pods and 300 apps are clients"),
        ({}, {"level": "restricted"}, "gateways[0].namespace: namespace vpn enforces Pod Security restricted"),
        ({}, {"level": "baseline"}, "kubectl label namespace vpn --overwrite pod-security.kubernetes.io/enforce=privileged"),
        ({}, {"pod": PodOptions(Images(overlay="pod-gateway:latest"))}, "images.overlay:"),
        ({}, {"pod": PodOptions(resources={"gluetun": {"limits": {"memory": "128Mi"}}})}, "resources.gluetun.limits.memory: 128Mi"),
        ({}, {"pod": PodOptions(resources={"sidecar": {}})}, "resources.sidecar: no such container"),
    ],
)
def test_refused_in_this_cluster(keys: dict[str, Any], options: dict[str, Any], expected: str) -> None:
    apps = [{"name": f"a{number}", "namespace": "media", "vpn": "g"} for number in range(options.get("many", 1))]
    level = options.get("level")
    live = (namespace("media"), namespace("vpn", **({"pod-security.kubernetes.io/enforce": level} if level else {})))
    with pytest.raises(FaultsError) as error:
        built({**GATEWAY, **keys}, apps=apps, live=live, options=options.get("pod"))
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("cni", "port"),
    [
        (Cni("calico", True, drops_workload_vxlan_ports=(4789,)), "48879"),
        (Cni("other", True, overlay_udp_ports=(48879,)), "48880"),
        (Cni("other", True, drops_workload_vxlan_ports=(48880,)), "48881"),
        (Cni("cilium", True, overlay_udp_ports=(8472, 48879, 48882)), "48880"),
    ],
)
def test_the_overlay_s_port(cni: Cni, port: str) -> None:
    facts = Facts(**{**FACTS.__dict__, "cni": cni})
    assert environment(built(facts=facts))["FIREWALL_INPUT_PORTS"] == f"{port},{int(port) + 1}"


@pytest.mark.parametrize("port", [4789, 4790, 6081, 8471, 8472, 51819, 51820, 51871])
def test_ports_that_some_cni_takes_need_a_known_one(port: int) -> None:
    gateway = {**GATEWAY, "overlay": {"port": port}}
    with pytest.raises(FaultsError, match=r"overlay\.port: UDP \d+ is used or dropped by common CNIs"):
        built(gateway, facts=Facts(**{**FACTS.__dict__, "cni": Cni()}))


def test_pod_security_can_be_managed() -> None:
    live = (*LIVE[:2], namespace("vpn", **{"pod-security.kubernetes.io/enforce": "restricted"}))
    desired = built(live=live, manage_pod_security=True)
    (patch,) = desired.patches
    assert patch.target.name == "vpn"
    assert patch.body == {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}
    assert not [item for item in desired.objects if item["kind"] == "Namespace"]


def test_a_namespace_that_is_going_is_refused() -> None:
    going = namespace("vpn")
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    with pytest.raises(FaultsError, match="namespace vpn is being deleted"):
        built(live=(*LIVE[:2], going))


@pytest.mark.parametrize(
    ("facts", "keys", "expected"),
    [
        ({}, {}, None),
        ({"cni": Cni("flannel", False)}, {}, "flannel enforces no NetworkPolicy"),
        ({"pods": (ipaddress.ip_network("10.0.0.0/12"),)}, {}, "larger than the overlay"),
        ({}, {"overlay": {"network": "172.29.0.0/20"}}, "larger than the overlay"),
    ],
)
def test_notes(facts: dict[str, Any], keys: dict[str, Any], expected: str | None) -> None:
    topology = parse("home", gateways=[{**GATEWAY, **keys}], apps=APPS)
    said = gateway_checks.notes(topology, Facts(**{**FACTS.__dict__, **facts}))
    assert said == [] if expected is None else any(expected in text for text in said)


def test_the_documentation_lists_every_provider_as_it_is() -> None:
    text = (Path(__file__).parents[3] / "docs" / "gateway.md").read_text("utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ") and line.count(" | ") == 3]
    table = {row[0].strip("| ").split(" (")[0].split(", 3.41")[0].replace(" ⇄", ""): row for row in rows}
    for name, provider in gluetun.PROVIDERS.items():
        assert name in table, name
        assert table[name][1] == ", ".join(f"`{key}`" for key in provider.filters)
        assert (table[name][2] == "–") is (provider.wireguard is None)
        assert ("⇄" in table[name][0]) is provider.port_forwarding
        if provider.openvpn is None:
            assert table[name][3].startswith("–")
        elif name != "custom":
            assert ("no TCP" in table[name][3]) is not (
                provider.openvpn.tcp and bool(provider.openvpn.tcp_port or provider.openvpn.tcp_ports)
            )
            for port in provider.openvpn.udp_ports or (provider.openvpn.udp_port,):
                assert str(port) in table[name][3]


# Our own scripts


def clients_file(desired: Desired) -> list[str]:
    return found(desired, "ConfigMap", "netguard-gateway-g-clients")["data"]["clients"].splitlines()


def test_our_scripts_own_every_rule() -> None:
    desired = built()
    assert not [item for item in desired.objects if item["metadata"]["name"].endswith("-rules")], "Gluetun gets no post-rules"
    assert "/iptables" not in json.dumps(pod(desired))


@BOTH
def test_nothing_of_the_gateway_is_read_only_and_its_state_is_a_volume_of_its_own(scripts: str) -> None:
    desired = built(entry(scripts))
    for name in ("gluetun", "overlay", "overlay-init"):
        assert not container(desired, name)["securityContext"].get("readOnlyRootFilesystem")
    mounts = {item["mountPath"]: item["name"] for item in container(desired, "gluetun")["volumeMounts"]}
    assert mounts["/tmp/gluetun"] == "state"
    assert not [path for path in mounts if path.startswith("/run/secrets")]


def test_the_wait_is_longer_than_a_dead_tunnel_goes_unnoticed() -> None:
    text = (Path(__file__).parents[3] / "plugins" / "doc_fragments" / "_wait.py").read_text("utf-8")
    (default,) = re.findall(r"wait_timeout:.*?default: (\d+)", text, re.S)
    assert int(default) > 180


def test_the_settings_of_our_scripts() -> None:
    files = found(built(), "ConfigMap", "netguard-gateway-g-scripts")["data"]
    values = dict(line.split("=", 1) for line in files["settings.sh"].splitlines())
    values = {name: value.strip("'") for name, value in values.items()}
    assert values["PORT"] == "48879"
    assert values["TUNNEL"] == environment(built())["VPN_INTERFACE"]
    assert values["TUNNEL_MTU"] == environment(built())["WIREGUARD_MTU"]
    assert values["UPSTREAM"] == environment(built())["DNS_ADDRESS"]
    assert values["POD_RANGES"] == "10.42.0.0/16"
    assert values["DNS"] == "vpn"
    assert values["REVERSE_ZONES"] == ""
    assert set(files) == {*overlay_scripts.GATEWAY_SCRIPTS, "settings.sh"}


def test_split_names_only_our_own_zones() -> None:
    files = found(built({**GATEWAY, "dns": "split"}), "ConfigMap", "netguard-gateway-g-scripts")["data"]
    assert "REVERSE_ZONES='42.10.in-addr.arpa 43.10.in-addr.arpa'" in files["settings.sh"]


@pytest.mark.parametrize(
    ("network", "zones"),
    [
        ("10.42.0.0/16", ("42.10.in-addr.arpa",)),
        ("10.96.0.0/15", ("96.10.in-addr.arpa", "97.10.in-addr.arpa")),
        ("10.0.0.0/8", ("10.in-addr.arpa",)),
        ("192.168.1.10/32", ("10.1.168.192.in-addr.arpa",)),
        ("2001:db8:42::/47", ("2.4.0.0.8.b.d.0.1.0.0.2.ip6.arpa", "3.4.0.0.8.b.d.0.1.0.0.2.ip6.arpa")),
        ("fd00::/8", ("d.f.ip6.arpa",)),
    ],
)
def test_reverse_zones(network: str, zones: tuple[str, ...]) -> None:
    got = reverse_zones((ipaddress.ip_network(network),))
    assert got[: len(zones)] == zones
    first, last = (ipaddress.ip_network(network)[position].reverse_pointer for position in (0, -1))
    assert all(any(name == zone or name.endswith("." + zone) for zone in got) for name in (first, last))


def test_the_gateway_learns_its_clients_by_service() -> None:
    assert clients_file(built()) == [
        "netguard-clients-g.index.svc.cluster.local",
        "netguard-clients-g.media.svc.cluster.local",
    ]
    mounts = {item["name"]: item for item in container(built(), "overlay")["volumeMounts"]}
    assert mounts["clients"]["mountPath"] == "/netguard-clients"
    assert "subPath" not in mounts["clients"]


def forwarding(settings: dict[str, str] | None = None, **keys: Any) -> Desired:
    app = {**FORWARD[0], **keys}
    return built({**GATEWAY, "settings": settings or {}}, apps=[app])


def test_forwards_lead_to_the_pods_of_one_app() -> None:
    desired = forwarding(pods={"app": "qbittorrent"})
    assert clients_file(desired)[-1] == "netguard-forward-qbittorrent.media.svc.cluster.local tcp:6881:6881 udp:6881:6881"
    service = found(desired, "Service", "netguard-forward-qbittorrent", "media")
    assert service["spec"]["selector"] == {
        "app": "qbittorrent",
        "homelab.netguard/client": "g",
        "homelab.netguard/instance": "home",
    }
    dynamic = forwarding({"VPN_PORT_FORWARDING": "on"}, pods={"app": "qbittorrent"})
    assert clients_file(dynamic)[-1].endswith(" tcp:0:6881 udp:0:6881")
    assert pod(forwarding(pods={"app": "qbittorrent"})) == pod(built(apps=[])), "a forward rolls no gateway"


def test_forwards_of_a_workload_that_does_not_exist_yet_wait() -> None:
    assert clients_file(forwarding()) == ["netguard-clients-g.media.svc.cluster.local"]


def test_forwards_beside_the_one_port_of_a_provider() -> None:
    ports = {"in": ["6881/tcp", "6882/tcp"]}
    with pytest.raises(FaultsError, match=r"hands out one port and vpn\.forward names 2"):
        forwarding({"VPN_PORT_FORWARDING": "on"}, ports=ports, pods={"app": "q"})


def test_the_pods_of_the_cluster_dns_must_be_known() -> None:
    with pytest.raises(FaultsError, match="the pods of the cluster's DNS are not known"):
        built(facts=Facts(**{**FACTS.__dict__, "dns": Dns(("10.43.0.10",))}))


def test_the_cluster_dns_must_be_known() -> None:
    with pytest.raises(FaultsError, match="the cluster's DNS is not known"):
        built(facts=Facts(**{**FACTS.__dict__, "dns": Dns()}))


# The pod-gateway image's own scripts

FORWARD = [
    {
        "name": "qbittorrent",
        "namespace": "media",
        "ports": {"in": ["6881/tcp", "6881/udp"]},
        "vpn": {"gateway": "g", "forward": ["in"]},
    }
]


def image_settings(text: str) -> dict[str, str]:
    """The assignments of settings.sh, by name; what is computed where the scripts run is left out."""
    lines = [line.split("=", 1) for line in text.splitlines() if re.match(r"(?!PATH_MTU)[A-Z0-9_]+=", line)]
    return {name: value.strip('"') for name, value in lines}


def image_files(**keys: Any) -> dict[str, str]:
    desired = built(entry("image", **keys), apps=FORWARD)
    rules = found(desired, "ConfigMap", "netguard-gateway-g-rules")["data"]
    return {**found(desired, "ConfigMap", "netguard-gateway-g-scripts")["data"], **rules}


def test_every_setting_of_the_image_is_written() -> None:
    values = image_settings(image_files()["settings.sh"])
    assert values["VXLAN_PORT"] == environment(built(entry("image")))["FIREWALL_INPUT_PORTS"].split(",")[0] == "48879"
    assert values["VPN_BLOCK_OTHER_TRAFFIC"] == "true"
    assert values["VPN_TRAFFIC_PORT"] == "51820"
    assert values["VPN_LOCAL_CIDRS"] == values["NOT_ROUTED_TO_GATEWAY_CIDRS"] == "10.42.0.0/16 10.43.0.0/16 192.168.1.10/32"
    assert values["GATEWAY_NAME"] == "netguard-gateway-g-pods.vpn.svc.cluster.local"
    assert values["K8S_DNS_IPS"] == values["DNS_LOCAL_SERVER"] == "10.43.0.10"
    assert values["VPN_INTERFACE"] == ""
    assert int(values["CONNECTION_RETRY_COUNT"]) >= 5
    assert values["VXLAN_IP_NETWORK"].count(".") == 2
    assert values["DNS_LOCAL_CIDRS"] == "", "in mode vpn no name goes to the cluster's DNS"
    assert len(values) == 19


def test_the_image_s_settings_of_other_clusters() -> None:
    split = image_settings(image_files(dns="split")["settings.sh"])
    assert split["DNS_LOCAL_CIDRS"] == "cluster.local 42.10.in-addr.arpa 43.10.in-addr.arpa", "our own zones and none besides"
    dns = Dns(("10.43.0.10",), "kube-system", {"k8s-app": "kube-dns"}, node_local_ip="169.254.20.10")
    facts = Facts(**{**FACTS.__dict__, "dns": dns, "mesh_probe_sources": (ipaddress.ip_network("169.254.7.127/32"),)})
    files = found(built(entry("image"), facts=facts), "ConfigMap", "netguard-gateway-g-scripts")["data"]
    values = image_settings(files["settings.sh"])
    assert "169.254.20.10/32" in values["VPN_LOCAL_CIDRS"].split()
    assert values["NOT_ROUTED_TO_GATEWAY_CIDRS"].split()[-2:] == ["169.254.20.10/32", "169.254.7.127/32"]


@pytest.mark.parametrize(
    ("own", "tunnel", "mtu"), [(1500, 1320, "1320"), (1370, 1320, "1320"), (1369, 1320, "1319"), (1450, 1440, "1400")]
)
def test_the_image_s_mtu_is_one_that_the_pod_s_interface_holds(own: int, tunnel: int, mtu: str, tmp_path: Path) -> None:
    (tmp_path / "mtu").write_text(f"{own}\n")
    text = image_files(settings={"WIREGUARD_MTU": tunnel})["settings.sh"].replace("/sys/class/net/eth0", str(tmp_path))
    done = subprocess.run(
        ["/bin/sh", "-eu", "-c", f'{text}\nprintf %s "$VPN_INTERFACE_MTU"'], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == (mtu, "")


def test_the_image_rules_have_one_owner_and_only_what_gluetun_parses() -> None:
    files = image_files()
    for line in files["post-rules.txt"].splitlines():
        assert line.startswith(("iptables ", "ip6tables "))
        assert not set(line) & set("\"'#")
        words = line.split()
        if words[2] in ("INPUT", "OUTPUT"):
            assert not {"--sport", "!", "comment", "multiport", "conntrack"} & set(words)
            assert words[words.index("-j") + 1] in ("ACCEPT", "DROP", "REJECT")
        if words[2] == "FORWARD" and "-A" in words:
            assert "eth0" not in words
    first = files["post-rules.txt"].splitlines()[0]
    assert first == "iptables -F FORWARD"
    script = files["init.sh"]
    assert (
        script.index("-P FORWARD DROP")
        < script.index("-t mangle -A FORWARD -i vxlan0 ! -o tun0 -j DROP")
        < script.index("gateway_init.sh")
    )
    assert script.index("gateway_init.sh") < script.index("-t nat -A POSTROUTING -o tun0 -j MASQUERADE")
    assert "clamp-mss-to-pmtu" in script
    assert script.index("/sys/class/net/eth0") < script.index("-P FORWARD DROP"), "another interface is told before anything else"
    inputs = [line for line in files["post-rules.txt"].splitlines() if " INPUT " in line]
    assert all("-p icmp" in line or "--dport" in line for line in inputs), "no range of pods or of the home has every port"
    assert "-A INPUT -i eth0 -p icmp -s 10.42.0.0/16 -j ACCEPT" in files["post-rules.txt"]


def test_port_forwards_of_the_image() -> None:
    files = image_files()
    assert files["nat.conf"] == "qbittorrent 2 tcp:6881,udp:6881\n"
    address = next(line for line in files["init.sh"].splitlines() if "DNAT" in line).rpartition(" ")[2]
    assert f"-A FORWARD -i tun0 -o vxlan0 -d {address} -p udp --dport 6881 -j ACCEPT" in files["post-rules.txt"]


@pytest.mark.parametrize(
    ("more", "live", "expected"),
    [
        ([], {}, ""),
        ([{"name": "radarr", "namespace": "media", "vpn": "g"}], {}, ""),
        (
            [{"name": "qbittorrent-nox", "namespace": "index", "vpn": "g"}],
            {},
            'up to the first dash, and index/qbittorrent-nox is "qbittorrent" too',
        ),
        ([], {"replicas": 2}, "apps[0].vpn.forward: Deployment/qbittorrent has 2 replicas"),
        ([], {"template": {"hostNetwork": True}}, "apps[0].workload: Deployment/qbittorrent runs on the node's network"),
    ],
)
def test_what_the_image_s_scripts_would_confuse(more: list[dict[str, Any]], live: dict[str, Any], expected: str) -> None:
    labels = {"app": "qbittorrent"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": "x"}], **live.get("template", {})}}
    workload = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "qbittorrent", "namespace": "media"},
        "spec": {"replicas": live.get("replicas", 1), "selector": {"matchLabels": labels}, "template": template},
    }
    apps = [*FORWARD, *more]
    if not expected:
        built(entry("image"), apps=apps, live=(*LIVE, workload))
        return
    with pytest.raises(FaultsError) as error:
        built(entry("image"), apps=apps, live=(*LIVE, workload))
    assert expected in str(error.value)


def test_the_image_s_scripts_know_no_ipv6() -> None:
    only_v6 = {"pods": (ipaddress.ip_network("2001:db8:42::/56"),), "services": (ipaddress.ip_network("2001:db8:43::/112"),)}
    facts = Facts(**{**FACTS.__dict__, **only_v6, "ip_families": ("ipv6",)})
    with pytest.raises(FaultsError, match=r"overlay\.scripts: the image's scripts know no IPv6"):
        built(entry("image"), facts=facts)


def test_the_image_policy_lets_the_first_ping_through() -> None:
    apps = [{**APPS[0], "pods": {"app": "q"}}, APPS[1]]
    spec = found(built(entry("image"), apps=apps), "NetworkPolicy")["spec"]
    assert "ports" not in spec["ingress"][0]
    # another injector brings these clients: their own labels select them, and who does not exist yet is not let in
    assert [peer["podSelector"] for peer in spec["ingress"][0]["from"]] == [{"matchLabels": {"app": "q"}}]
