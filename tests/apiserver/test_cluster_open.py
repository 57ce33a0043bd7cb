# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which cluster it is, who may read and write what, and how every way to name it ends: right, or in a message."""

from __future__ import annotations

import base64
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.homelab.netguard.plugins.module_utils._cluster.client import Read
from ansible_collections.homelab.netguard.plugins.module_utils._errors import NetguardError
from ansible_collections.homelab.netguard.plugins.module_utils._facts.reader import Absent, Forbidden, Unreadable
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Key
from cluster_lab import Lab, connect, user
from conftest import Server


@pytest.fixture(scope="module")
def lab(server: Server) -> Lab:
    return Lab(server)


def allow(resource: str, *verbs: str, group: str = "") -> dict[str, Any]:
    return {"apiGroups": [group], "resources": [resource], "verbs": [*verbs]}


# -- identity


def test_identity(lab: Lab) -> None:
    uid = lab.get("namespace", "kube-system")["metadata"]["uid"]
    assert lab.cluster.identity() == {"id": uid, "host": lab.server.host, "context": ""}
    lab.cluster.expect("")
    lab.cluster.expect(uid)
    with pytest.raises(NetguardError, match="this is another cluster") as caught:
        lab.cluster.expect("0" * 8)
    assert caught.value.details["cluster"]["id"] == uid


def test_who_may_not_read_kube_system_is_never_taken_for_the_expected_one(lab: Lab) -> None:
    cluster = connect(user(lab, "blind"))
    assert cluster.identity()["id"] == ""
    with pytest.raises(NetguardError, match="may not be read"):
        cluster.expect("something")


# -- reads


def test_lists_come_in_pages_and_whole(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible_collections.homelab.netguard.plugins.module_utils._cluster.client.PAGE", 3)
    lab.run(*(lab.config(f"page-{number}") for number in range(8)), prune=False)
    before = lab.server.mark()
    found = lab.cluster.list("v1", "ConfigMap", lab.space, label_selector=f"homelab.netguard/instance={lab.instance}")
    assert {item["metadata"]["name"] for item in found} == {f"page-{number}" for number in range(8)}
    assert {(item["apiVersion"], item["kind"]) for item in found} == {("v1", "ConfigMap")}
    lists = [event for event in lab.server.audit(before) if event["verb"] == "list" and "limit=3" in event["requestURI"]]
    assert len(lists) == 3


def test_an_api_that_is_not_there_costs_one_request(lab: Lab) -> None:
    cluster = connect(lab.server.kubeconfig)
    before = lab.server.mark()
    for _turn in range(3):
        with pytest.raises(Absent):
            cluster.list("example.org/v1", "Thing")
        with pytest.raises(Absent):
            cluster.list("networking.k8s.io/v1", "Thing")
    paths = [event["requestURI"] for event in lab.server.audit(before) if "kubectl" not in event.get("userAgent", "")]
    assert sorted(path for path in paths if path.startswith("/apis/")) == ["/apis/example.org/v1", "/apis/networking.k8s.io/v1"]


def test_a_snapshot_says_what_could_not_be_read(lab: Lab) -> None:
    cluster = connect(user(lab, "reader", allow("services", "list"), allow("configmaps", "get", "list")))
    live = cluster.read(
        [
            Read("v1", "Service"),
            Read("v1", "Secret"),
            Read("example.org/v1", "Thing"),
            Read("v1", "ConfigMap", lab.space, "kube-root-ca.crt"),
            Read("v1", "ConfigMap", lab.space, "missing"),
            Read("example.org/v1", "Service"),  # another version of a kind that was read
        ]
    )
    assert live.unreadable == {"Secret": "forbidden", "Thing": "absent"}
    assert live.get("ConfigMap", lab.space, "missing") is None
    assert live.get("Service", "default", "kubernetes") is not None
    with pytest.raises(
        Forbidden, match=r'missing right: apiGroups \[""\], resources \["secrets"\], verbs \["list"\], cluster-wide'
    ):
        cluster.read([Read("v1", "Secret", optional=False)])


# -- rights


MISSING = {
    "patch": ((), 'apiGroups [""], resources ["configmaps"], verbs ["patch"] in the namespace {space}'),
    "create": (("patch",), 'apiGroups [""], resources ["configmaps"], verbs ["create"] in the namespace {space}'),
}


@pytest.mark.parametrize("verb", MISSING)
def test_the_missing_right_is_named(lab: Lab, verb: str) -> None:
    granted, text = MISSING[verb]
    cluster = connect(user(lab, f"without-{verb}", allow("configmaps", "get", "list", *granted)))
    with pytest.raises(NetguardError) as caught:
        cluster.apply(lab.config(f"never-{verb}"))
    assert text.format(space=lab.space) in str(caught.value)
    assert f"ConfigMap {lab.space}/never-{verb}" in str(caught.value)


def test_deleting_without_the_right(lab: Lab) -> None:
    lab.run(lab.config("stays"), prune=False)
    cluster = connect(user(lab, "without-delete", allow("configmaps", "get", "list")))
    with pytest.raises(NetguardError, match=r'verbs \["delete"\]'):
        cluster.delete(Key("v1", "ConfigMap", lab.space, "stays"))


# -- single writes


def test_a_delete_hits_the_very_object_that_was_meant(lab: Lab) -> None:
    key = Key("v1", "ConfigMap", lab.space, "reborn")
    lab.kubectl("create", "configmap", "reborn", "-n", lab.space)
    with pytest.raises(NetguardError):
        lab.cluster.delete(key, uid="00000000-0000-0000-0000-000000000000")
    check = connect(lab.server.kubeconfig, check_mode=True)
    assert check.delete(key)
    assert lab.cluster.delete(key, uid=lab.get("configmap", "reborn")["metadata"]["uid"])
    assert not lab.cluster.delete(key)


def test_dry_runs_keep_nothing(lab: Lab) -> None:
    item = lab.config("dry")
    assert lab.cluster.dry_run("CREATE", item) == (200, "")
    assert lab.cluster.dry_run("DELETE", item)[0] == 404
    lab.run(item, prune=False)
    assert lab.cluster.dry_run("CREATE", item)[0] == 409
    assert lab.cluster.dry_run("DELETE", item) == (200, "")
    assert lab.cluster.dry_run("UPDATE", {**item, "data": {"other": "value"}}) == (200, "")
    assert lab.get("configmap", "dry")["data"] == {"key": "value"}


# -- through a real module: how the connection is made


MODULE = "ansible_collections.homelab.netguard.plugins.modules.segmentation_policy"


def module(arguments: dict[str, Any], **environment: str) -> dict[str, Any]:
    """A module in a process of its own, as Ansible starts it."""
    given = {"ANSIBLE_MODULE_ARGS": {"state": "absent", "instance": "nobody", **arguments}}
    base = {key: value for key, value in os.environ.items() if not key.startswith("K8S_AUTH") and key != "KUBECONFIG"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, MODULE, json.dumps(given)],
        env={**base, "HOME": "/nonexistent", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


RUN = """
import importlib, json, sys
from ansible.module_utils.testing import patch_module_args
with patch_module_args(json.loads(sys.argv[2])["ANSIBLE_MODULE_ARGS"]):
    importlib.import_module(sys.argv[1]).main()
"""


def test_ways_to_name_a_cluster(lab: Lab, tmp_path: Path) -> None:
    config = yaml.safe_load(lab.server.kubeconfig.read_text())
    current = config["current-context"]
    uid = lab.get("namespace", "kube-system")["metadata"]["uid"]
    path = str(lab.server.kubeconfig)
    own = {"id": uid, "host": lab.server.host}
    assert module({"kubeconfig": path})["cluster"] == {**own, "context": current}
    assert module({}, K8S_AUTH_KUBECONFIG=path)["cluster"] == {**own, "context": current}
    assert module({}, KUBECONFIG=path)["cluster"] == {**own, "context": current}
    assert module({"kubeconfig": path, "context": current, "expected_cluster": uid})["changed"] is False
    authority = config["clusters"][0]["cluster"]["certificate-authority-data"]
    assert authority
    token = lab.kubectl("create", "token", "default", "-n", lab.space).strip()
    (tmp_path / "ca.crt").write_bytes(base64.b64decode(authority))
    answer = module(
        {}, K8S_AUTH_HOST=lab.server.host, K8S_AUTH_API_KEY=token, K8S_AUTH_SSL_CA_CERT=str(tmp_path / "ca.crt"), KUBECONFIG=path
    )
    # the credential alone counts, never the administrator's kubeconfig beside it
    assert answer["failed"]
    assert f"system:serviceaccount:{lab.space}:default" in answer["msg"]
    assert token not in json.dumps(answer)


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "empty dictionary": ({"kubeconfig": {}}, "kubeconfig is empty"),
    "empty text": ({"kubeconfig": ""}, "kubeconfig is empty"),
    "nothing at all": ({}, "no cluster is named: there is no kubeconfig at ~/.kube/config"),
    "no such file": ({"kubeconfig": "/nonexistent/config"}, "there is no kubeconfig"),
    "no kubeconfig": ({"kubeconfig": {"some": "thing"}}, "onfig"),
    "no such context": ({"kubeconfig": "{path}", "context": "elsewhere"}, "elsewhere"),
    "not YAML": ({"kubeconfig": "{folder}/broken"}, "cannot be read"),
    "another cluster": ({"kubeconfig": "{path}", "expected_cluster": "1234"}, "this is another cluster"),
    "nobody there": ({"host": "https://127.0.0.1:1", "api_key": "hidden-token"}, "127.0.0.1"),
    "a wrong token": ({"host": "{host}", "api_key": "hidden-token", "validate_certs": False}, "Unauthorized"),
    "no API server": ({"host": "{web}", "api_key": "hidden-token"}, "API server"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_connection_is_a_message(lab: Lab, tmp_path: Path, case: str) -> None:
    class Web(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, *_words: object) -> None:
            pass

    web = http.server.HTTPServer(("127.0.0.1", 0), Web)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    (tmp_path / "broken").write_text("users: [{user: {token: hidden-token\n  {")
    places = {
        "{host}": lab.server.host,
        "{path}": str(lab.server.kubeconfig),
        "{folder}": str(tmp_path),
        "{web}": f"http://127.0.0.1:{web.server_port}",
    }
    arguments, text = BROKEN[case]

    def filled(value: Any) -> Any:
        for mark, place in places.items():
            value = value.replace(mark, place) if isinstance(value, str) else value
        return value

    answer = module({key: filled(value) for key, value in arguments.items()})
    web.shutdown()
    assert answer["failed"]
    assert text in answer["msg"]
    assert "hidden-token" not in json.dumps(answer)
    assert "exception" not in answer


def test_a_server_that_answers_nothing_is_unreadable(lab: Lab) -> None:
    from kubernetes import client, dynamic

    cluster = connect(lab.server.kubeconfig)
    assert isinstance(cluster.transport._client, dynamic.DynamicClient)
    configuration = client.Configuration(host="https://127.0.0.1:1")
    configuration.retries = False
    cluster.transport._client.client = client.ApiClient(configuration)
    with pytest.raises(Unreadable, match="no answer from"):
        cluster.raw("/version")
