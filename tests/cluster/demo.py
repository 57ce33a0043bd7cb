# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The main job on a disposable control plane (`make demo`): what it writes, that nothing is left to do, that nothing stays.

The API server, its admission and its controllers are real; KWOK plays the kubelet, so no packet flows and no tunnel comes
up here. The cluster is made for this run and removed with it; one of the user's is refused, not touched.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from . import binaries
from .control_plane import ControlPlane

ROOT = Path(__file__).resolve().parent.parent.parent
HOMELAB = ROOT / "examples" / "quickstart" / "homelab.yml"
#: What discovery cannot find on a cluster without a CNI: the whole of the pod range.
OVERRIDES: dict[str, Any] = {"pods": ["10.244.0.0/16"]}
WRITES = ("create", "update", "patch", "delete", "deletecollection")
MANAGER = "homelab.netguard"


class DemoError(RuntimeError):
    """The demo did not show what it promises."""


def foreign() -> list[str]:
    """Variables of the environment that point at a cluster of the user's."""
    return sorted(name for name in os.environ if name == "KUBECONFIG" or name.startswith("K8S_AUTH_"))


def app(name: str, port: int) -> list[dict[str, Any]]:
    """An app as its owner deploys it: a Deployment and a Service."""
    labels = {"app": name}
    container = {"name": name, "image": f"example.test/{name}:1", "ports": [{"name": "web", "containerPort": port}]}
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": "media", "labels": labels},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": "media"},
            "spec": {"selector": labels, "ports": [{"name": "web", "port": port, "targetPort": port}]},
        },
    ]


def dns() -> list[dict[str, Any]]:
    """The cluster's DNS as kubeadm leaves it: discovery finds it by this Service."""
    labels = {"k8s-app": "kube-dns"}
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    metadata = {"namespace": "kube-system", "labels": labels}
    container = {
        "name": "coredns",
        "image": "registry.k8s.io/coredns/coredns:v1.12.1",
        "ports": [{"name": port["name"], "containerPort": 53, "protocol": port["protocol"]} for port in ports],
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "coredns", "namespace": "kube-system"},
            "data": {"Corefile": ".:53 {\n    kubernetes cluster.local in-addr.arpa ip6.arpa\n    forward . /etc/resolv.conf\n}\n"},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "coredns", **metadata},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", **metadata},
            "spec": {"clusterIP": "10.96.0.10", "selector": labels, "ports": ports},
        },
    ]


def homelab() -> list[dict[str, Any]]:
    """What the user of the quickstart has before the first run."""
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "media"}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "vpn"}},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "proton-wg", "namespace": "vpn"},
            # a key of the right shape that opens nothing
            "stringData": {"wireguard_private_key": "eE5vdEFSZWFsS2V5SnVzdEFEZW1vbnN0cmF0aW9uMDA="},
        },
        *dns(),
        *app("qbittorrent", 8080),
        *app("prowlarr", 9696),
    ]


class Demo:
    """One run on one control plane."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane = plane
        self.folder = folder
        self.started = time.monotonic()

    def say(self, text: str) -> None:
        print(
            f"\n\033[1m[{time.monotonic() - self.started:4.0f} s] {text}\033[0m" if sys.stdout.isatty() else f"\n== {text}",
            flush=True,
        )

    def play(self, name: str, *words: str) -> float:
        """Runs a playbook of the collection as a user does; seconds. Raises DemoError with its output when it fails."""
        variables = self.folder / "overrides.yml"
        variables.write_text(yaml.safe_dump({"netguard_overrides": OVERRIDES} if OVERRIDES else {}))
        command = [f"{Path(sys.executable).parent}/ansible-playbook", f"homelab.netguard.{name}", "-e", f"@{HOMELAB}"]
        command += ["-e", f"@{variables}", *words]
        print(f"$ ansible-playbook homelab.netguard.{name} -e @examples/quickstart/homelab.yml {' '.join(words)}", flush=True)
        started = time.monotonic()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        environment |= {
            "KUBECONFIG": str(self.plane.kubeconfig),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
            "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "false",
            "ANSIBLE_HOME": str(self.folder / "ansible"),
        }
        done = subprocess.run(
            command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        lines = [line.rstrip("* ") for line in done.stdout.splitlines() if line.strip()]
        if done.returncode:
            print("\n".join(lines))
            raise DemoError(f"homelab.netguard.{name} failed")
        print("\n".join(f"  {line}" for line in lines if re.match(r"TASK|changed|failed|localhost", line)), flush=True)
        return time.monotonic() - started

    def writes(self, since: int) -> list[str]:
        """What the API server's audit log says was written by the collection since a mark, in order."""
        found = []
        for event in self.plane.audit(since):
            reference = event.get("objectRef", {})
            ours = MANAGER in event["requestURI"] or (
                event["verb"].startswith("delete") and "python" in event.get("userAgent", "").lower()
            )
            dry = "dryRun=All" in event["requestURI"] or "'dryRun': ['All']" in str(event.get("requestObject"))
            if event["verb"] in WRITES and ours and not dry and event.get("responseStatus", {}).get("code", 0) < 400:
                where = "/".join(filter(None, (reference.get("namespace"), reference.get("name"))))
                found.append(f"{event['verb']:<7} {reference.get('resource')} {where}")
        return found

    def show(self, *words: str) -> str:
        """Runs and prints a kubectl command, also when the server refuses it."""
        print(f"$ kubectl {' '.join(words)}")
        text = self.plane.run_kubectl(*words, check=False).strip()
        print("\n".join(f"  {line}" for line in text.splitlines()), flush=True)
        return text

    def refused(self, *words: str) -> None:
        if "denied" not in self.show(*words):
            raise DemoError("the API server should have refused that")

    def template(self) -> str:
        return self.plane.run_kubectl("-n", "media", "get", "deployment", "qbittorrent", "-o", "jsonpath={.spec.template}")

    def run(self) -> None:
        self.plane.nodes()
        self.plane.apply(*homelab())
        self.plane.run_kubectl("-n", "media", "wait", "--for=condition=Available", "deployment", "--all", "--timeout=60s")
        before = self.template()
        self.say("A homelab with two apps; one of them shall leave through a VPN or not at all")
        print("\n".join(f"  {line}" for line in HOMELAB.read_text().splitlines() if not line.startswith("#")))

        self.say("The first run")
        mark = self.plane.mark()
        first = self.play("site")
        self.say(f"What it wrote, as the API server's audit log has it ({first:.1f} s)")
        print("\n".join(f"  {line}" for line in self.writes(mark)))
        self.show("-n", "media", "get", "pods,networkpolicies", "--no-headers")
        self.show("-n", "vpn", "get", "deployments,services,networkpolicies", "--no-headers")
        path = "{range .spec.template.spec.initContainers[*]}{.name}{'\\n'}{end}"
        self.show("-n", "media", "get", "deployment", "qbittorrent", "-o", f"jsonpath={path}")

        self.say("The second run")
        mark = self.plane.mark()
        second = self.play("site")
        written = self.writes(mark)
        if written:
            raise DemoError("the second run wrote:\n" + "\n".join(written))
        print(f"  writes: 0 ({second:.1f} s)")

        self.say("What an accident cannot do")
        self.refused("-n", "media", "delete", "networkpolicies", "--all")
        self.refused("-n", "media", "run", "unguarded", "--image=example.test/app:1", "--labels=app=qbittorrent")

        self.say("Removal")
        self.play("remove")
        if self.template() != before:
            raise DemoError("the app's pod template is not what it was")
        kinds = "deployments,networkpolicies,configmaps,services,validatingadmissionpolicies,validatingadmissionpolicybindings"
        left = self.plane.run_kubectl("get", kinds, "-A", "-l", "homelab.netguard/instance", "-o", "name").strip()
        if left and "No resources" not in left:
            raise DemoError(f"left behind:\n{left}")
        print("  the app's pod template is what it was; no object carries our label")


def main() -> int:
    started = time.monotonic()
    if foreign():
        print(
            f"demo: {', '.join(foreign())} is set. The demo makes a control plane of its own and touches no other: unset it first."
        )
        return 2
    try:
        with tempfile.TemporaryDirectory(prefix="netguard-demo-") as folder, ControlPlane() as plane:
            Demo(plane, Path(folder)).run()
    except (binaries.BuildError, DemoError, RuntimeError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: stopped; the control plane is gone", file=sys.stderr)
        return 130
    print(f"\ndemo: done in {time.monotonic() - started:.0f} s; the control plane is gone again. Next: README.md, `make test`")
    return 0


if __name__ == "__main__":
    sys.exit(main())
