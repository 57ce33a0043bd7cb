# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What people and tools do to workloads and policies by accident: admission refuses, pods go on, nothing leaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .field import FieldError, also_named, get, kubectl, refused, wait_for
from .rows import CLIENT, Row, Table, connected

README = Path(__file__).resolve().parents[2] / "README.md"
#: The application's next image: the same one by another name.
NEWER = "netguard.test/toolbox:2"
DEPLOYMENT = ("deployment/qbittorrent", "-n", "media")


def bare(deployment: dict[str, Any]) -> dict[str, Any]:
    """The Deployment as its owner once wrote it: no guard, no overlay."""
    spec = deployment["spec"]["template"]["spec"]
    spec["initContainers"] = [one for one in spec.get("initContainers", []) if not one["name"].startswith("netguard-")]
    spec["volumes"] = [one for one in spec.get("volumes", []) if one["name"] != "netguard-client"]
    meta = deployment["spec"]["template"]["metadata"]
    meta["annotations"] = {key: value for key, value in meta.get("annotations", {}).items() if "netguard" not in key}
    meta["labels"] = {key: value for key, value in meta["labels"].items() if "netguard" not in key}
    for field in ("managedFields", "resourceVersion"):
        deployment["metadata"].pop(field, None)
    deployment.pop("status", None)
    return deployment


def names(kind: str, *words: str) -> list[str]:
    return sorted(f"{item['metadata'].get('namespace', '')}/{item['metadata']['name']}" for item in get(kind, *words)["items"])


def same_pod(row: Row, table: Table, uid: str) -> None:
    table.check(CLIENT.live()["metadata"]["uid"] == uid and CLIENT.ready(), row, "the client's pod was replaced")


def unguarded_revision() -> str:
    """The number of a revision of the first client from before the guard."""
    for item in get("replicasets", "-n", "media", "-l", CLIENT.selector)["items"]:
        if not any(one["name"] == "netguard-guard" for one in item["spec"]["template"]["spec"].get("initContainers", [])):
            return str(item["metadata"]["annotations"]["deployment.kubernetes.io/revision"])
    raise FieldError("no revision from before the guard")


def workloads(table: Table) -> None:
    """`kubectl replace`, `rollout undo`, a changed guard, other scripts for it, another network, another selector label."""
    uid = CLIENT.live()["metadata"]["uid"]
    with table.row("ADM", "kubectl replace with the owner's old manifest") as row:
        refused("replace", "-f", "-", text=json.dumps(bare(get(*DEPLOYMENT))))
        same_pod(row, table, uid)
    with table.row("ADM", "kubectl rollout undo to the revision before the guard") as row:
        refused("rollout", "undo", *DEPLOYMENT, f"--to-revision={unguarded_revision()}")
        same_pod(row, table, uid)
    with table.row("ADM", "kubectl set image of the guard") as row:
        refused("set", "image", *DEPLOYMENT, "netguard-guard=netguard.test/toolbox:1")
        same_pod(row, table, uid)
    with table.row("ADM", "kubectl patch of the guard's volume: another ConfigMap") as row:
        volume = {"name": "netguard-client", "configMap": {"name": "kube-root-ca.crt"}}
        patch = {"spec": {"template": {"spec": {"volumes": [volume]}}}}
        refused("patch", *DEPLOYMENT, "--type=strategic", "-p", json.dumps(patch))
        same_pod(row, table, uid)
    with table.row("ADM", "hostNetwork: true") as row:
        # the lab's sysctl is not allowed on a node's network: the API server would refuse for that reason
        patch = {"spec": {"template": {"spec": {"hostNetwork": True, "securityContext": {"sysctls": None}}}}}
        refused("patch", *DEPLOYMENT, "--type=strategic", "-p", json.dumps(patch))
        same_pod(row, table, uid)
    with table.row("ADM", "kubectl label pod app-, and another value") as row:
        refused("label", "pod", "-n", "media", CLIENT.name, "app-")
        refused("label", "pod", "-n", "media", CLIENT.name, "app=other", "--overwrite")
        same_pod(row, table, uid)


def own_image(table: Table) -> None:
    """The owner's own change of the application's image is none of our business: it rolls, guarded."""
    also_named("netguard.test/toolbox:1", NEWER)
    with table.row("ADM", "kubectl set image of the application: rolls, guarded", web=False):
        kubectl("set", "image", *DEPLOYMENT, f"qbittorrent={NEWER}")
        kubectl("rollout", "status", *DEPLOYMENT, "--timeout=180s", timeout=200)
        connected()
    if CLIENT.live()["spec"]["initContainers"][0]["name"] != "netguard-guard":
        raise FieldError("the guard is not first any more")


def pods_and_debug(table: Table) -> None:
    labels = {"app": "qbittorrent"}
    container = {"name": "rogue", "image": "netguard.test/toolbox:1", "imagePullPolicy": "IfNotPresent", "command": ["sleep", "60"]}
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "rogue", "namespace": "media", "labels": labels},
        "spec": {"containers": [container]},
    }
    with table.row("ADM, H1", "a pod with the client's labels: without the guard, and on the node's network"):
        refused("create", "-f", "-", text=json.dumps(pod))
        pod["spec"]["hostNetwork"] = True
        refused("create", "-f", "-", text=json.dumps(pod))
    image = ("--image=netguard.test/toolbox:1", "--image-pull-policy=IfNotPresent", "--attach=false")
    with table.row("ADM", "kubectl debug with NET_ADMIN, and privileged"):
        for profile in ("netadmin", "sysadmin"):
            refused("debug", "-n", "media", CLIENT.name, *image, f"--profile={profile}", "--", "sleep", "60")


def policies(table: Table) -> None:
    """Everything that opens, empties or takes away a policy of ours."""
    kept = names("networkpolicies", "-A", "-l", "homelab.netguard/instance")
    with table.row("ADM, F13", "kubectl delete networkpolicy -A --all") as row:
        refused("delete", "networkpolicies", "-A", "--all", "--wait=false")
        table.check(names("networkpolicies", "-A", "-l", "homelab.netguard/instance") == kept, row, "policies are gone")
    for namespace, name in (item.split("/") for item in kept):
        with table.row("ADM, F13", f"{name}: opened, and without its owner's label"):
            opened = json.dumps({"spec": {"egress": [{}]}})
            refused("patch", "networkpolicy", "-n", namespace, name, "--type=merge", "-p", opened)
            refused("label", "networkpolicy", "-n", namespace, name, "homelab.netguard/instance-")
    with table.row("ADM, F13", "the hard deny: deleted, and opened"):
        for name in names("globalnetworkpolicies.crd.projectcalico.org", "-l", "homelab.netguard/instance"):
            where = ("globalnetworkpolicy.crd.projectcalico.org", name.strip("/"))
            refused("delete", *where)
            refused("patch", *where, "--type=merge", "-p", json.dumps({"spec": {"egress": [{"action": "Allow"}]}}))


def foreign_opening(table: Table) -> None:
    """Another policy that lets everything out: policies add up, and the hard deny stands before it."""
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "all-out", "namespace": "media"},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]},
    }
    kubectl("apply", "-f", "-", text=json.dumps(policy))
    try:
        with table.row("F13", "another policy opens every pod of the namespace"):
            pass
    finally:
        kubectl("delete", "networkpolicy", "-n", "media", "all-out")


def locked_out(table: Table) -> None:
    """The collection is gone: README's one line frees the owner; policies and guard still hold."""
    line = next(text for text in README.read_text().splitlines() if text.startswith("$ kubectl delete validatingadmission"))
    with table.row(
        "ADM",
        "README's line when locked out; then a replace without the guard is accepted, the policy holds it",
        open_pod=True,
        web=False,
    ):
        kubectl(*line.split()[2:])
        accepted = json.dumps(bare(get(*DEPLOYMENT)))
        wait_for("the replace is accepted", lambda: "replaced" in kubectl("replace", "-f", "-", text=accepted), pause=2)
        kubectl("rollout", "status", *DEPLOYMENT, "--timeout=180s", timeout=200)
    if any(one["name"].startswith("netguard-") for one in CLIENT.live()["spec"].get("initContainers", [])):
        raise FieldError("the guard is still there")


ROWS = (
    ("ADM-workloads", workloads),
    ("ADM-pods", pods_and_debug),
    ("ADM-policies", policies),
    ("ADM-foreign", foreign_opening),
    ("ADM-image", own_image),
)
