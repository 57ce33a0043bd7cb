# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The order in which clients are closed, patched and released, read off the audit log; kubectl and webhooks of others."""

from __future__ import annotations

import base64
import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from ansible_collections.homelab.netguard.tests.apiserver.clients_lab import GUARD, Home, guard_first, said, template_of

Server = Any


@pytest.fixture
def home(server: Server) -> Iterator[Home]:
    place = Home(str(server.kubeconfig))
    yield place
    place.clean()


def writes(server: Server, since: int) -> list[tuple[str, str, str]]:
    """(verb, resource, name) of every write of our user that was kept, in the order in which the server took them."""
    found = []
    for event in server.audit(since):
        target = event.get("objectRef") or {}
        dry = "dryRun=All" in event["requestURI"]
        ours = event.get("userAgent", "").startswith("OpenAPI-Generator")
        if event["verb"] in ("create", "update", "patch", "delete") and ours and not dry and event["responseStatus"]["code"] < 300:
            found.append((event["verb"], target.get("resource", ""), target.get("name", "")))
    return found


def position(found: list[tuple[str, str, str]], verb: str, resource: str, name: str = "") -> int:
    return next(index for index, item in enumerate(found) if item[:2] == (verb, resource) and name in item[2])


def test_closed_before_it_is_patched_and_released_before_the_policy_goes(server: Server, home: Home) -> None:
    home.workload()
    mark = server.mark()
    home.site()
    found = writes(server, mark)
    patched = position(found, "patch", "deployments", "web")
    assert position(found, "patch", "networkpolicies", "netguard-killswitch-web") < patched
    assert position(found, "patch", "validatingadmissionpolicybindings") < patched
    assert position(found, "patch", "configmaps", "netguard-client-web") < patched

    mark = server.mark()
    home.run("killswitch")
    assert said(home.run()) == "unchanged"
    assert writes(server, mark) == []

    home.workload(name="stays")
    home.site()
    home.apps = home.apps[1:]
    mark = server.mark()
    home.run("killswitch")
    home.run()
    found = writes(server, mark)
    unpatched = position(found, "patch", "deployments", "web")
    assert position(found, "delete", "validatingadmissionpolicybindings", "web") < unpatched
    assert unpatched < position(found, "delete", "networkpolicies", "netguard-killswitch-web")
    assert unpatched < position(found, "delete", "configmaps", "netguard-client-web")

    mark = server.mark()
    home.run("killswitch")
    home.run()
    assert writes(server, mark) == []


def test_check_mode_sends_dry_runs_alone(server: Server, home: Home) -> None:
    home.workload()
    mark = server.mark()
    home.run("gateway", check=True)
    home.run("killswitch", check=True)
    assert said(home.run(check=True)) == "injected"
    assert writes(server, mark) == []


def manifest(home: Home, image: str) -> str:
    spec = {
        "containers": [{"name": "app", "image": image}],
        "initContainers": [{"name": "prepare", "image": image}],
        "volumes": [{"name": "data", "emptyDir": {}}],
    }
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": home.media},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}, "spec": spec}},
    }
    return yaml.safe_dump(body)


@pytest.mark.parametrize("words", [("apply",), ("apply", "--server-side", "--force-conflicts")])
def test_kubectl_apply_of_the_owner_keeps_the_injection(server: Server, home: Home, words: tuple[str, ...]) -> None:
    server.run_kubectl(*words, "-f", "-", stdin=manifest(home, "example/app:1"))
    before = template_of(home.get("Deployment", "web"))
    home.apps = [{"name": "web", "namespace": home.media, "vpn": "proton"}]
    home.site()
    server.run_kubectl(*words, "-f", "-", stdin=manifest(home, "example/app:2"))
    live = home.get("Deployment", "web")
    assert template_of(live)["spec"]["containers"][0]["image"] == "example/app:2"
    assert [item["name"] for item in template_of(live)["spec"]["initContainers"]] == [GUARD, "netguard-overlay", "prepare"]
    home.run("killswitch")
    assert said(home.run()) == "unchanged"
    home.run(state="absent", apps=[], gateways=[])
    after = template_of(home.get("Deployment", "web"))
    for item in (*before["spec"]["containers"], *before["spec"]["initContainers"]):
        item["image"] = "example/app:2"
    assert after == before


def test_kubectl_replace_and_undo_are_refused_while_the_pods_go_on(server: Server, home: Home) -> None:
    server.run_kubectl("apply", "-f", "-", stdin=manifest(home, "example/app:1"))
    home.apps = [{"name": "web", "namespace": home.media, "vpn": "proton"}]
    home.site()
    pods = {pod["metadata"]["uid"] for pod in home.pods()}
    for words, text in (
        (("replace", "-f", "-"), manifest(home, "example/app:3")),
        (("rollout", "undo", "deployment/web", "-n", home.media), None),
    ):
        answer = server.run_kubectl(*words, stdin=text, check=False)
        assert "guard" in answer, answer
        assert guard_first(home.get("Deployment", "web"))
    assert {pod["metadata"]["uid"] for pod in home.pods()} == pods


class Meddler(http.server.BaseHTTPRequestHandler):
    """A mutating webhook that puts a container before everything else, as service meshes with sidecars do."""

    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        patch = [{"op": "add", "path": "/spec/initContainers/0", "value": {"name": "meddler", "image": "example/meddler"}}]
        answer = {
            "apiVersion": review["apiVersion"],
            "kind": review["kind"],
            "response": {
                "uid": review["request"]["uid"],
                "allowed": True,
                "patchType": "JSONPatch",
                "patch": base64.b64encode(json.dumps(patch).encode()).decode(),
            },
        }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


def test_a_webhook_that_gets_before_the_guard_is_seen_first(server: Server, home: Home) -> None:
    home.workload()
    home.run("gateway")
    home.run("killswitch", admission="none")
    certificate, key = server._authority.issue("meddler", server=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    web = http.server.HTTPServer(("127.0.0.1", 0), Meddler)
    web.socket = context.wrap_socket(web.socket, server_side=True)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    name = f"meddler-{home.instance}"
    hook = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [
            {
                "name": "meddler.example.com",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "clientConfig": {
                    "url": f"https://127.0.0.1:{web.server_port}/",
                    "caBundle": base64.b64encode(server._authority.file.read_bytes()).decode(),
                },
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": home.media}},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
            }
        ],
    }
    server.apply(hook)
    try:
        result = home.run(admission="none", fails=True)
        assert "would start with meddler instead of the guard" in result["msg"]
        assert not guard_first(home.get("Deployment", "web"))
    finally:
        server.run_kubectl("delete", "mutatingwebhookconfiguration", name)
        web.shutdown()
