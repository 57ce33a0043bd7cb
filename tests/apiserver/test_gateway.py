# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""vpn_gateway against a real API server: what a run writes, in which order, and what it leaves alone."""

from __future__ import annotations

import base64
import io
import itertools
import json
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.homelab.netguard.plugins.modules import vpn_gateway
from kubernetes import client, config, dynamic

KEY = base64.b64encode(bytes(range(32))).decode()
OTHER_KEY = base64.b64encode(bytes(range(100, 132))).decode()
PASSWORD = "correct-horse-battery"
FACTS = {
    "cidrs": {"pods": ["10.244.0.0/16"], "services": ["10.96.0.0/16"], "nodes": ["192.168.1.10/32"], "lan": ["192.168.1.0/24"]},
    "ranges": {"pods": {"status": "complete"}, "services": {"status": "complete"}},
    "dns": {"service_ip": "10.96.0.10", "namespace": "kube-system", "pod_labels": {"k8s-app": "kube-dns"}},
    "cni": {"name": "calico", "enforces_network_policy": True},
    "server": {"version": "v1.34.4"},
    "ip_families": ["ipv4"],
}
OURS = "homelab.netguard/instance={instance}"
NUMBERS = itertools.count(1)
KINDS = (
    ("v1", "Namespace"),
    ("v1", "Secret"),
    ("v1", "ConfigMap"),
    ("v1", "Service"),
    ("apps/v1", "Deployment"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
)


class Home:
    """One instance with namespaces of its own, and eyes on the API server that are not the module's."""

    def __init__(self, kubeconfig: str) -> None:
        self.number = next(NUMBERS)
        self.instance = f"gw{self.number}x{int(time.time()) % 100000}"
        self.vpn, self.media = f"vpn-{self.instance}", f"media-{self.instance}"
        self.kubeconfig = kubeconfig
        self.api = dynamic.DynamicClient(config.new_client_from_config(config_file=kubeconfig))
        self.create("v1", "Namespace", {"metadata": {"name": self.media}})

    def resource(self, api_version: str, kind: str) -> Any:
        return self.api.resources.get(api_version=api_version, kind=kind)

    def create(self, api_version: str, kind: str, body: dict[str, Any], namespace: str | None = None) -> None:
        manifest = {"apiVersion": api_version, "kind": kind, **body}
        self.resource(api_version, kind).create(body=manifest, namespace=namespace, field_manager="somebody")

    def patch(self, api_version: str, kind: str, name: str, body: Any, namespace: str, **options: Any) -> None:
        options.setdefault("content_type", "application/merge-patch+json")
        self.resource(api_version, kind).patch(body=body, name=name, namespace=namespace, field_manager="kubectl-edit", **options)

    def get(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        try:
            return dict(self.resource(api_version, kind).get(name=name, namespace=namespace).to_dict())
        except client.ApiException as error:
            if error.status == 404:
                return None
            raise

    def owned(self) -> dict[tuple[str, str, str], dict[str, Any]]:
        found = {}
        for api_version, kind in KINDS:
            for item in self.resource(api_version, kind).get(label_selector=OURS.format(instance=self.instance)).items:
                meta = item.metadata
                found[(kind, meta.get("namespace") or "", meta.name)] = item.to_dict()
        return found

    def pods(self) -> list[Any]:
        return list(self.resource("v1", "Pod").get(namespace=self.vpn, label_selector=OURS.format(instance=self.instance)).items)

    def versions(self) -> dict[tuple[str, str, str], str]:
        """Of what a run could have written; a Deployment's changes with its status, so its generation stands for it."""
        return {
            key: item["metadata"]["generation"] if key[0] == "Deployment" else item["metadata"]["resourceVersion"]
            for key, item in self.owned().items()
        }

    def gateway(self, name: str = "proton", **keys: Any) -> dict[str, Any]:
        return {"name": name, "namespace": self.vpn, "provider": "protonvpn", **keys}

    def app(self, name: str = "web", **keys: Any) -> dict[str, Any]:
        return {"name": name, "namespace": self.media, "ports": {"http": 8080}, "pods": {"app": name}, "vpn": "proton", **keys}

    def run(self, *, check: bool = False, diff: bool = True, fails: bool = False, **options: Any) -> dict[str, Any]:
        """The module's result. Without other options one gateway with one client."""
        arguments = {
            "kubeconfig": self.kubeconfig,
            "instance": self.instance,
            "facts": FACTS,
            "gateways": [self.gateway()],
            "apps": [self.app()],
            "credentials": {"proton": {"wireguard_private_key": KEY}},
            "wait_timeout": 60,
            "_ansible_check_mode": check,
            "_ansible_diff": diff,
            **options,
        }
        output = io.StringIO()
        with patch_module_args(arguments), redirect_stdout(output), pytest.raises(SystemExit):
            vpn_gateway.main()
        result: dict[str, Any] = json.loads(output.getvalue().strip().splitlines()[-1])
        assert bool(result.get("failed")) is fails, result.get("msg")
        shown = json.dumps({key: value for key, value in result.items() if key != "invocation"})
        for value in (KEY, OTHER_KEY, PASSWORD):
            assert value not in shown
            assert base64.b64encode(value.encode()).decode() not in shown
        return result


WRITES = ("create", "update", "patch", "delete", "deletecollection")


def written(server: Any, since: int) -> list[tuple[str, str, str]]:
    """What the module has written since a mark of the audit log: (verb, resource, name), in order; dry runs left out."""
    return [
        (event["verb"], event["objectRef"]["resource"], event["objectRef"].get("name", ""))
        for event in server.writes(since)
        if event["stage"] == "ResponseComplete" and event["user"]["username"] == "admin"
    ]


@pytest.fixture
def home(server: Any) -> Iterator[Home]:
    place = Home(str(server.kubeconfig))
    yield place
    for name in (place.vpn, place.media):
        if place.get("v1", "Namespace", name) is not None:
            place.resource("v1", "Namespace").delete(name=name)


def actions(result: dict[str, Any]) -> dict[str, set[tuple[str, str]]]:
    found: dict[str, set[tuple[str, str]]] = {}
    for item in result["objects"]:
        found.setdefault(item["action"], set()).add((item["kind"], item["name"]))
    return found


BASE = "netguard-gateway-proton"
EVERYTHING = {
    ("Secret", f"{BASE}-credentials"),
    ("ConfigMap", f"{BASE}-env"),
    ("ConfigMap", f"{BASE}-scripts"),
    ("ConfigMap", f"{BASE}-clients"),
    ("Service", BASE),
    ("Service", f"{BASE}-pods"),
    ("Service", "netguard-clients-proton"),
    ("NetworkPolicy", BASE),
    ("Deployment", BASE),
}


def test_first_run_second_run_and_removal(home: Home, server: Any) -> None:
    mark = server.mark()
    first = home.run()
    order = [resource for verb, resource, _name in written(server, mark) if verb == "patch"]
    assert order[:2] == ["namespaces", "secrets"]
    assert order.index("networkpolicies") < order.index("deployments") == len(order) - 1
    assert first["changed"]
    assert actions(first) == {"created": {*EVERYTHING, ("Namespace", home.vpn)}}
    owned = home.owned()
    assert {(kind, name) for kind, _namespace, name in owned} == {*EVERYTHING, ("Namespace", home.vpn)}
    (pod,) = home.pods()
    policy = owned[("NetworkPolicy", home.vpn, BASE)]
    # one counter for the whole of etcd: what was written first has the smaller number
    assert int(policy["metadata"]["resourceVersion"]) < int(pod.metadata.resourceVersion)
    assert first["gateways"][0]["pods"] == {"homelab.netguard/gateway": "proton", "homelab.netguard/instance": home.instance}
    assert first["cluster"]["id"]
    assert "manifests" not in first, "a large answer costs more than the work"

    before = home.versions()
    mark = server.mark()
    second = home.run()
    assert written(server, mark) == []
    assert server.writes(mark, dry=True) == []
    assert not second["changed"]
    assert second["objects"] == []
    assert second["counts"] == {"unchanged": len(EVERYTHING) + 1}
    assert "diff" not in second
    assert home.versions() == before
    asked = home.run(check=True, return_manifests=True)["manifests"]
    assert {(item["kind"], item["metadata"]["name"]) for item in asked} == {*EVERYTHING, ("Namespace", home.vpn)} - {
        ("Secret", f"{BASE}-credentials")
    }

    check = home.run(check=True, state="absent")
    assert actions(check)["deleted"] == {*EVERYTHING, ("Namespace", home.vpn)}
    assert home.versions() == before
    mark = server.mark()
    removed = home.run(state="absent", gateways=[], apps=[])
    deleted = [
        resource
        for verb, resource, name in written(server, mark)
        if verb == "delete" and (name.startswith("netguard") or resource == "namespaces")
    ]
    assert deleted[0] == "deployments"
    assert deleted[-1] == "namespaces"
    assert actions(removed) == {"deleted": {*EVERYTHING, ("Namespace", home.vpn)}}
    assert home.owned() == {}
    assert not home.run(state="absent")["changed"]
    assert home.get("v1", "Namespace", home.media) is not None


def test_check_mode_on_an_empty_cluster_lists_everything_and_writes_nothing(home: Home, server: Any) -> None:
    mark = server.mark()
    result = home.run(check=True)
    assert written(server, mark) == []
    assert result["changed"]
    assert actions(result) == {"created": {*EVERYTHING, ("Namespace", home.vpn)}}
    assert home.owned() == {}
    assert home.get("v1", "Namespace", home.vpn) is None


def test_a_changed_setting_rolls_the_pod(home: Home) -> None:
    home.run()
    (old,) = home.pods()
    changed = [home.gateway(settings={"LOG_LEVEL": "debug"})]
    expected = {"changed": {("ConfigMap", f"{BASE}-env"), ("Deployment", BASE)}}
    assert actions(home.run(check=True, gateways=changed)) == expected
    assert actions(home.run(gateways=changed)) == expected
    assert [pod.metadata.uid for pod in home.pods()] != [old.metadata.uid]
    assert not home.run(gateways=changed)["changed"]


def test_a_changed_secret_rolls_the_pod_without_showing_anything(home: Home) -> None:
    home.run()
    credentials = {"proton": {"wireguard_private_key": OTHER_KEY}}
    expected = {"changed": {("Secret", f"{BASE}-credentials"), ("Deployment", BASE)}}
    assert actions(home.run(check=True, credentials=credentials)) == expected
    result = home.run(credentials=credentials)
    assert actions(result) == expected
    secret = home.get("v1", "Secret", f"{BASE}-credentials", home.vpn)
    deployment = home.get("apps/v1", "Deployment", BASE, home.vpn)
    assert secret is not None
    assert deployment is not None
    assert base64.b64decode(base64.b64decode(secret["data"]["wireguard_private_key"])) == bytes(range(100, 132))
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    assert annotations["homelab.netguard/credentials"] == f"{secret['metadata']['uid']}/{secret['metadata']['resourceVersion']}"
    assert not home.run(credentials=credentials)["changed"]


def test_a_secret_of_the_user(home: Home) -> None:
    home.create("v1", "Namespace", {"metadata": {"name": home.vpn}})
    gateways = [home.gateway(credentials={"secret": "mine"})]
    failed = home.run(gateways=gateways, credentials={}, fails=True)
    assert f"gateways[0].credentials.secret: Secret {home.vpn}/mine does not exist" in failed["msg"]
    data = {"stringData": {"WIREGUARD_PRIVATE_KEY": KEY}}
    home.create("v1", "Secret", {"metadata": {"name": "mine"}, **data}, home.vpn)
    home.run(gateways=gateways, credentials={})
    assert not home.run(gateways=gateways, credentials={})["changed"]
    home.patch("v1", "Secret", "mine", {"stringData": {"WIREGUARD_PRIVATE_KEY": OTHER_KEY}}, home.vpn)
    assert actions(home.run(gateways=gateways, credentials={})) == {"changed": {("Deployment", BASE)}}
    home.run(state="absent")
    assert home.get("v1", "Secret", "mine", home.vpn) is not None
    assert home.get("v1", "Namespace", home.vpn) is not None, "a namespace that we did not create stays"


def test_a_new_client_rolls_nothing(home: Home) -> None:
    home.run()
    (old,) = home.pods()
    generation = home.versions()[("Deployment", home.vpn, BASE)]
    elsewhere = f"shows-{home.instance}"
    apps = [home.app(), home.app("sonarr", namespace=elsewhere)]
    waiting = home.run(apps=apps)
    assert waiting["gateways"][0]["waiting"] == [elsewhere]
    home.create("v1", "Namespace", {"metadata": {"name": elsewhere}})
    result = home.run(apps=apps)
    assert actions(result) == {"created": {("Service", "netguard-clients-proton")}}
    assert result["gateways"][0]["waiting"] == []
    assert home.versions()[("Deployment", home.vpn, BASE)] == generation
    assert [pod.metadata.uid for pod in home.pods()] == [old.metadata.uid]
    home.run()
    assert ("Service", elsewhere, "netguard-clients-proton") not in home.owned()
    home.resource("v1", "Namespace").delete(name=elsewhere)


def test_two_gateways_and_one_dropped(home: Home) -> None:
    second = home.gateway("pia", provider="pia", protocol="openvpn")
    credentials = {"proton": {"wireguard_private_key": KEY}, "pia": {"openvpn_user": "somebody", "openvpn_password": PASSWORD}}
    result = home.run(gateways=[home.gateway(), second], credentials=credentials)
    assert [item["name"] for item in result["gateways"]] == ["proton", "pia"]
    assert len(home.pods()) == 2
    limited = home.run(
        gateways=[home.gateway(settings={"LOG_LEVEL": "debug"}), {**second, "settings": {"LOG_LEVEL": "debug"}}],
        credentials=credentials,
        only=["web"],
    )
    assert actions(limited) == {"changed": {("ConfigMap", f"{BASE}-env"), ("Deployment", BASE)}}
    dropped = home.run()
    assert ("Deployment", "netguard-gateway-pia") in actions(dropped)["deleted"]
    assert not [key for key in home.owned() if "pia" in key[2]]
    assert [pod.metadata.labels["homelab.netguard/gateway"] for pod in home.pods()] == ["proton"]


def test_what_was_opened_by_hand_is_closed(home: Home) -> None:
    home.run()
    opened = [{"op": "add", "path": "/spec/egress/-", "value": {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}}]
    home.patch("networking.k8s.io/v1", "NetworkPolicy", BASE, opened, home.vpn, content_type="application/json-patch+json")
    result = home.run()
    assert actions(result) == {"repaired": {("NetworkPolicy", BASE)}}
    policy = home.get("networking.k8s.io/v1", "NetworkPolicy", BASE, home.vpn)
    assert policy is not None
    assert {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]} not in policy["spec"]["egress"]
    home.patch("apps/v1", "Deployment", BASE, {"spec": {"replicas": 2}}, home.vpn)
    assert actions(home.run()) == {"repaired": {("Deployment", BASE)}}


def test_bad_input_writes_nothing(home: Home) -> None:
    bad = home.gateway(settings={"DOT": "on", "FIREWALL_OUTBOUND_SUBNETS": "0.0.0.0/0"}, server={"names": ["x"]})
    failed = home.run(gateways=[bad], credentials={"proton": {"wireguard_private_key": "short"}}, fails=True)
    for text in (
        "credentials.proton.wireguard_private_key: privatekey is not base64",
        "gateways[0].server.names: protonvpn has no names",
        "gateways[0].settings.DOT: is an old name",
        "gateways[0].settings.FIREWALL_OUTBOUND_SUBNETS: 0.0.0.0/0 is every address",
    ):
        assert text in failed["msg"]
    assert home.owned() == {}
    assert home.get("v1", "Namespace", home.vpn) is None


def test_an_empty_list_tears_nothing_down(home: Home) -> None:
    home.run()
    failed = home.run(gateways=[], apps=[], credentials={}, fails=True)
    assert "gateways is empty" in failed["msg"]
    assert len(home.owned()) == len(EVERYTHING) + 1


@pytest.mark.parametrize("namespace", ["", "-elsewhere"])
def test_another_list_with_the_same_instance_tears_nothing_down(home: Home, namespace: str) -> None:
    """Another home's gateway and app; then the same home's, of which an injected client is known: it was renamed."""
    home.run()
    before = home.versions()
    other = {
        "gateways": [home.gateway("mullvad", namespace=home.vpn + namespace)],
        "apps": [home.app(vpn="mullvad")],
        "credentials": {"mullvad": {"wireguard_private_key": KEY}},
    }
    for check in (True, False):
        said = home.run(**other, check=check, fails=True)["msg"]
        assert "none of the gateways of the instance" in said
        assert "instance of its own" in said
        assert home.versions() == before
    labels = {"homelab.netguard/instance": home.instance, "homelab.netguard/part": "client"}
    meta = {"name": "netguard-client-web", "labels": labels, "annotations": {"homelab.netguard/app": "web"}}
    home.create("v1", "ConfigMap", {"metadata": meta}, home.media)
    for check in (True, False):
        deleted = [item for item in home.run(**other, check=check)["objects"] if item["action"] == "deleted"]
        assert ("Deployment", "netguard-gateway-proton") in {(item["kind"], item["name"]) for item in deleted}
    assert [key[2] for key in home.owned() if key[0] == "Deployment"] == ["netguard-gateway-mullvad"]


def test_an_object_of_somebody_else_is_not_taken(home: Home) -> None:
    home.create("v1", "Namespace", {"metadata": {"name": home.vpn}})
    home.create("v1", "ConfigMap", {"metadata": {"name": f"{BASE}-env"}, "data": {"mine": "yes"}}, home.vpn)
    failed = home.run(fails=True)
    assert f"ConfigMap {home.vpn}/{BASE}-env exists and is not ours" in failed["msg"]
    assert {kind for kind, _namespace, _name in home.owned()} <= {"Secret"}
    found = home.get("v1", "ConfigMap", f"{BASE}-env", home.vpn)
    assert found is not None
    assert found["data"] == {"mine": "yes"}


def test_a_timeout_says_why(home: Home) -> None:
    home.create("v1", "Namespace", {"metadata": {"name": home.vpn}})
    home.create("v1", "ResourceQuota", {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}, home.vpn)
    failed = home.run(wait_timeout=4, fails=True)
    assert "not ready after 4 s" in failed["msg"]
    assert "exceeded quota" in failed["msg"]


def test_pod_security(home: Home) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "baseline"}
    home.create("v1", "Namespace", {"metadata": {"name": home.vpn, "labels": labels}})
    failed = home.run(fails=True)
    assert "enforces Pod Security baseline" in failed["msg"]
    result = home.run(manage_pod_security=True)
    assert len(result["patches"]) == 1
    found = home.get("v1", "Namespace", home.vpn)
    assert found is not None
    assert found["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"
    assert not home.run()["changed"]


def test_the_admission_of_a_real_server_takes_the_pod_with_the_images_scripts(home: Home) -> None:
    gateways = [home.gateway(overlay={"scripts": "image"}, dns="split")]
    apps = [home.app(vpn={"gateway": "proton", "forward": ["http"]})]
    assert home.run(gateways=gateways, apps=apps)["changed"]
    assert not home.run(gateways=gateways, apps=apps)["changed"]


def test_the_role_shows_no_secret_at_any_verbosity(home: Home, server: Any, tmp_path: Path) -> None:
    (tmp_path / "keys.yml").write_text(json.dumps({"netguard_credentials": {"proton": {"wireguard_private_key": KEY}}}))
    variables = {
        "netguard_instance": home.instance,
        "netguard_gateways": [home.gateway()],
        "netguard_apps": [home.app()],
        "netguard_facts": FACTS,
    }
    play = [
        {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {"ansible_python_interpreter": "{{ ansible_playbook_python }}"},
            "vars_files": ["keys.yml"],
            "roles": ["homelab.netguard.vpn_gateway"],
        }
    ]
    for words in (["-vvv", "--diff", "--check"], ["-vvv", "--diff"]):
        done = server.playbook(play, variables, *words, folder=tmp_path)
        assert done.ok, done.output
        assert KEY not in done.output
        assert base64.b64encode(KEY.encode()).decode() not in done.output
        assert done.task("homelab.netguard.vpn_gateway")["changed"]
    events = json.dumps(server.audit())
    assert KEY not in events or "stringData" in events, "the module writes data, which the audit log's policy keeps out"


def test_rendering(home: Home, tmp_path: Path) -> None:
    def files() -> dict[str, str]:
        return {str(path.relative_to(tmp_path)): path.read_text("utf-8") for path in tmp_path.rglob("*.yaml")}

    result = home.run(state="rendered", dest=str(tmp_path), kubeconfig="/does/not/exist")
    assert result["changed"]
    assert "cluster" not in result
    assert any("a Secret is never rendered" in note for note in result["notes"])
    written = files()
    assert not [name for name in written if "secret" in name]
    assert len(written) == len(EVERYTHING)
    assert not home.run(state="rendered", dest=str(tmp_path), kubeconfig="/does/not/exist")["changed"]
    assert files() == written
    assert home.owned() == {}


@pytest.mark.parametrize("wrong", [{"proton": "zzz"}, {"proton": {"wireguard_private_key": ["zzz"]}}])
def test_credentials_of_another_shape(home: Home, wrong: Any) -> None:
    assert "is no dictionary of credential and text" in home.run(credentials=wrong, fails=True)["msg"]
