# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The main job as users run it: ansible-playbook, against a real API server, judged by its audit log."""

from __future__ import annotations

import base64
import contextlib
import copy
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import site_modules
import yaml

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
OVERRIDES = {
    "pods": ["10.244.0.0/16"],
    "services": ["10.96.0.0/16"],
    "lan": ["198.51.100.0/24"],
    "dns": {"service_ip": "10.96.0.10", "namespace": "kube-system", "pod_labels": {"k8s-app": "kube-dns"}},
    "cni": {"name": "calico", "ipam": "calico", "enforces_network_policy": True, "translates_kernel_packets": True},
}
KINDS = (
    "networkpolicies,configmaps,secrets,services,deployments,statefulsets,namespaces,"
    "validatingadmissionpolicies,validatingadmissionpolicybindings"
)


class Home:
    """One homelab: an instance, its namespaces and apps on the shared API server."""

    number = 0

    def __init__(self, server: Any, folder: Path) -> None:
        Home.number += 1
        self.server = server
        self.folder = folder
        self.instance = f"site{Home.number}x{os.getpid()}"
        self.vpn, self.media = f"vpn-{self.instance}", f"media-{self.instance}"
        server.apply(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": self.media, "labels": {"pod-security.kubernetes.io/enforce": "privileged"}},
            }
        )
        self.workload("Deployment", "qbittorrent")
        self.workload("StatefulSet", "sabnzbd")
        self.workload("Deployment", "prowlarr")
        self.variables: dict[str, Any] = {
            "netguard_instance": self.instance,
            "netguard_overrides": OVERRIDES,
            "netguard_wait_timeout": 120,
            "netguard_credentials": {"proton": {"wireguard_private_key": KEY}},
            "netguard_gateways": [
                {
                    "name": "proton",
                    "namespace": self.vpn,
                    "provider": "protonvpn",
                    "server": {"countries": ["Netherlands"]},
                    "wireguard": {"addresses": ["10.2.0.2/32"]},
                }
            ],
            "netguard_apps": [
                {"name": "qbittorrent", "namespace": self.media, "ports": {"web": 8080}, "vpn": "proton", "lan": ["web"]},
                {
                    "name": "sabnzbd",
                    "namespace": self.media,
                    "workload": "StatefulSet/sabnzbd",
                    "ports": {"web": 8085},
                    "vpn": "proton",
                    "uses": ["prowlarr:web"],
                },
                {"name": "prowlarr", "namespace": self.media, "ports": {"web": 9696}},
                {"name": "later", "namespace": self.media, "pods": {"app": "later"}, "ports": {"web": 80}, "vpn": "proton"},
            ],
        }

    def workload(self, kind: str, name: str) -> None:
        spec: dict[str, Any] = {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}, "annotations": {"example.test/kept": "yes"}},
                "spec": {
                    "initContainers": [{"name": "prepare", "image": "example.test/prepare:1"}],
                    "containers": [{"name": "app", "image": f"example.test/{name}:1"}],
                },
            },
        }
        if kind == "StatefulSet":
            spec["serviceName"] = name
        self.server.apply(
            {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": self.media}, "spec": spec}
        )

    def play(self, name: str, *words: str, **changed: Any) -> Any:
        return self.server.playbook(f"homelab.netguard.{name}", {**self.variables, **changed}, *words, folder=self.folder)

    def templates(self) -> dict[str, Any]:
        return {
            item["metadata"]["name"]: item["spec"]["template"]
            for kind in ("deployments", "statefulsets")
            for item in self.server.objects(kind, "-n", self.media)
        }

    def owned(self) -> list[str]:
        found = self.server.objects(KINDS, "-A", "-l", f"homelab.netguard/instance={self.instance}")
        return sorted(f"{item['kind']}/{item['metadata']['name']}" for item in found)

    def writes(self, since: int, **how: Any) -> list[dict[str, Any]]:
        """Our writes to what belongs to this homelab."""
        return [event for event in self.server.writes(since, **how) if self.instance in json.dumps(event)]


@pytest.fixture
def home(server: Any, tmp_path: Path) -> Iterator[Home]:
    place = Home(server, tmp_path)
    yield place
    # by the modules alone: the playbook that removes has a test, and is slow to start
    try:
        site_modules.run({**place.variables, "kubeconfig": str(server.kubeconfig)}, "absent")
    finally:
        server.run_kubectl("delete", "namespace", place.media, place.vpn, "--wait=false", "--ignore-not-found", check=False)


def guard(template: dict[str, Any]) -> str:
    return str(template["spec"]["initContainers"][0]["name"])


@pytest.fixture
def every_controller(server: Any) -> Iterator[None]:
    with server.type_checker():
        yield


@pytest.mark.usefixtures("every_controller")
def test_a_list_becomes_closed_clients_and_goes_without_a_trace(home: Home) -> None:
    """The whole life: converge, nothing to do, an app dropped, removal."""
    before = home.templates()
    start = home.server.mark()
    first = home.play("site")
    assert first.ok, first.output
    templates = home.templates()
    assert {name for name, template in templates.items() if guard(template) == "netguard-guard"} == {"qbittorrent", "sabnzbd"}
    check_order(home, start)

    mark = home.server.mark()
    second = home.play("site")
    assert second.ok, second.output
    assert home.writes(mark) == []
    assert not any(entry["result"].get("changed") for entry in second.results)

    fewer = [app for app in home.variables["netguard_apps"] if app["name"] != "sabnzbd"]
    dropped = home.play("site", netguard_apps=fewer)
    assert dropped.ok, dropped.output
    assert home.templates()["sabnzbd"] == before["sabnzbd"]
    mark = home.server.mark()
    again = home.play("site", netguard_apps=fewer)
    assert again.ok, again.output
    assert home.writes(mark) == []

    removed = home.server.playbook(
        "homelab.netguard.remove", {"netguard_instance": home.instance}, folder=home.folder
    )  # without the list
    assert removed.ok, removed.output
    assert home.templates() == before
    assert home.owned() == []


def check_order(home: Home, start: int) -> None:
    """Every client's policy is there, and a bad pod was refused, before its workload is patched."""
    seen: set[str] = set()
    refused = 0
    patched = []
    for event in home.server.audit(start):
        text = json.dumps(event)
        if home.instance not in text or event.get("responseStatus", {}).get("code") is None:
            continue
        uri, code = event["requestURI"], event["responseStatus"]["code"]
        dry = "dryRun=All" in uri
        if "/networkpolicies/netguard-killswitch-" in uri and code < 400 and not dry:
            seen.add(uri.split("netguard-killswitch-")[1].split("?")[0])
        if event["verb"] == "create" and "/pods?" in uri and dry and code >= 400:
            refused += 1
        workload = f"/{home.media}/" in uri and ("/deployments/" in uri or "/statefulsets/" in uri)
        if event["verb"] == "patch" and workload and not dry and "homelab.netguard" in uri and code < 400:
            name = uri.split("?")[0].rsplit("/", 1)[1]
            patched.append(name)
            assert name in seen, f"{name} was patched before its policy"
            assert refused, f"{name} was patched before admission refused anything"
    assert set(patched) == {"qbittorrent", "sabnzbd"}


def test_check_mode_on_an_empty_cluster_lists_everything_and_writes_nothing(home: Home) -> None:
    mark = home.server.mark()
    checked = home.play("site", "--check", "--diff")
    assert checked.ok, checked.output
    assert home.writes(mark) == []
    assert home.owned() == []
    listed = [
        item
        for entry in checked.results
        for item in (*(entry["result"].get("objects") or []), *(entry["result"].get("patches") or []))
        if isinstance(item, dict)
    ]
    kinds = {item["kind"] for item in listed if "kind" in item}
    assert kinds >= {"Secret", "ConfigMap", "Deployment", "Service", "NetworkPolicy", "ValidatingAdmissionPolicy"}
    assert KEY not in checked.output


class ArgumentLists:
    """Looks at the arguments of every process meanwhile, and keeps those of processes that carry one of `words`."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = [word.encode() for word in words]
        self.found: set[bytes] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    found = entry.read_bytes()
                    if any(word in found for word in self.words):
                        self.found.add(found)

    def __enter__(self) -> ArgumentLists:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def test_no_secret_is_shown_anywhere(home: Home) -> None:
    """Neither in what is said, nor in annotations, process arguments, or what is written beside the Secret itself."""
    second = KEY.replace("A", "B")
    words = [KEY, second, *(base64.b64encode(key.encode()).decode() for key in (KEY, second))]
    with ArgumentLists([KEY]) as watched:  # it does see one that is there
        subprocess.run([sys.executable, "-c", "import time; time.sleep(1)", KEY], check=True)
    assert watched.found
    mark = home.server.mark()
    with ArgumentLists(words) as watched:
        shown = home.play("site", "-vvv", "--diff")
        assert shown.ok, shown.output[-4000:]
        changed = home.play("site", "-vvv", "--diff", netguard_credentials={"proton": {"wireguard_private_key": second}})
        assert changed.ok, changed.output[-4000:]
    assert not watched.found
    found = home.server.objects(KINDS, "-A")
    objects = json.dumps([item["metadata"] if item["kind"] == "Secret" else item for item in found])
    # the log never has the bodies of Secrets, and those of all else that was written
    events = json.dumps([event for event in home.server.audit(mark) if home.instance in json.dumps(event)])
    assert '"requestObject"' in events
    for word in words:
        assert word not in shown.output + changed.output
        assert word not in objects
        assert word not in events


#: name: (changed variables, words of the message)
REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a mistyped key": ({"netguard_apps": [{"name": "a", "namespace": "b", "vpm": "proton"}]}, ["apps[0].vpm", "vpn"]),
    "an unknown gateway": (
        {"netguard_apps": [{"name": "a", "namespace": "b", "vpn": "protn"}]},
        ["apps[0].vpn.gateway", 'did you mean \\"proton\\"?'],
    ),
    "another cluster": ({"netguard_expected_cluster": "00000000-0000-0000-0000-000000000000"}, ["this is another cluster"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_changes_nothing(home: Home, name: str) -> None:
    changed, words = REFUSED[name]
    mark = home.server.mark()
    refused = home.play("site", **changed)
    assert not refused.ok
    for word in words:
        assert word in refused.output, refused.output
    assert home.writes(mark) == []


def test_an_empty_list_tears_nothing_down(home: Home) -> None:
    assert home.play("site").ok
    before, templates = home.owned(), home.templates()
    empty = home.play("site", netguard_apps=[], netguard_gateways=[])
    assert not empty.ok
    assert home.owned() == before
    assert home.templates() == templates


def test_a_run_killed_by_the_clock(home: Home) -> None:
    """Wherever it is after five seconds; `test_site_killed` kills after each write."""
    (home.folder / "vars.yml").write_text(yaml.safe_dump(home.variables))
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "homelab.netguard.site", "-e", "@vars.yml"]
    environment = {**os.environ, "KUBECONFIG": str(home.server.kubeconfig)}
    run = subprocess.Popen(
        command, cwd=home.folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    time.sleep(5)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    policies = {item["metadata"]["name"] for item in home.server.objects("networkpolicies", "-n", home.media)}
    for name, template in home.templates().items():
        if guard(template) == "netguard-guard":
            assert f"netguard-killswitch-{name}" in policies
    completed = home.play("site")
    assert completed.ok, completed.output
    assert guard(home.templates()["qbittorrent"]) == "netguard-guard"
    mark = home.server.mark()
    assert home.play("site").ok
    assert home.writes(mark) == []


def test_rendering_needs_no_cluster_and_is_stable(home: Home, tmp_path: Path) -> None:
    facts = home.server.playbook(
        [
            {
                "hosts": "localhost",
                "connection": "local",
                "gather_facts": False,
                "vars": {"ansible_python_interpreter": sys.executable},
                "tasks": [{"homelab.netguard.cluster_cidrs": {"overrides": OVERRIDES}}],
            }
        ],
        {},
        folder=home.folder,
    ).task("homelab.netguard.cluster_cidrs")["facts"]
    apps = copy.deepcopy(home.variables["netguard_apps"])
    for app in apps:
        app.setdefault("pods", {"app": app["name"]})
    dest = tmp_path / "out"
    live = [
        {**item, "apiVersion": "apps/v1", "kind": kind}
        for kind, plural in (("Deployment", "deployments"), ("StatefulSet", "statefulsets"))
        for item in home.server.objects(plural, "-n", home.media)
    ]
    variables = {
        "netguard_facts": facts,
        "netguard_apps": apps,
        "netguard_dest": str(dest),
        "netguard_live": live,
        "netguard_segmentation": True,
    }
    variables["netguard_gateways"] = [{**home.variables["netguard_gateways"][0], "credentials": {"secret": "proton-wg"}}]
    mark = home.server.mark()
    first = home.play("render", netguard_credentials={}, **variables)
    assert first.ok, first.output
    files = {str(path.relative_to(dest)): path.read_text() for path in dest.rglob("*.yaml")}
    assert any("netguard-killswitch-qbittorrent" in name for name in files)
    assert any("netguard-default-deny" in name for name in files)
    second = home.play("render", netguard_credentials={}, **variables)
    assert second.ok, second.output
    assert not any(entry["result"].get("changed") for entry in second.results)
    assert {str(path.relative_to(dest)): path.read_text() for path in dest.rglob("*.yaml")} == files
    assert home.writes(mark) == []
    home.server.apply(
        *[
            document
            for name, text in files.items()
            if "/patch-" not in name and name.startswith("segments/")
            for document in yaml.safe_load_all(text)
        ]
    )


def test_segmentation_from_the_same_list(home: Home) -> None:
    first = home.play("site", netguard_segmentation=True)
    assert first.ok, first.output
    names = {item["metadata"]["name"] for item in home.server.objects("networkpolicies", "-n", home.media)}
    assert names >= {"netguard-segment-prowlarr", "netguard-default-deny", "netguard-killswitch-qbittorrent"}
    assert "netguard-segment-qbittorrent" not in names
    mark = home.server.mark()
    second = home.play("site", netguard_segmentation=True)
    assert second.ok, second.output
    assert home.writes(mark) == []
