# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Discovery on a real API server: every level of rights, the dry-run probe, ServiceCIDRs; and nothing is ever written."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.homelab.netguard.tests.apiserver.conftest import Play, Server
from ansible_collections.homelab.netguard.tests.cluster import binaries

PLAY = [
    {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": {"ansible_python_interpreter": "{{ ansible_playbook_python }}"},
        "tasks": [{"homelab.netguard.cluster_cidrs": {"strict": "{{ strict }}", "overrides": "{{ overrides | default({}) }}"}}],
    }
]
#: The rules of each level in docs/facts.md, each beside those before it.
LEVELS: dict[int, list[dict[str, Any]]] = {
    0: [],
    1: [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]},
        {"apiGroups": [""], "resources": ["services"], "resourceNames": ["kubernetes"], "verbs": ["get"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list"]},
    ],
    2: [
        {"apiGroups": ["networking.k8s.io"], "resources": ["servicecidrs", "ipaddresses"], "verbs": ["list"]},
        {
            "apiGroups": ["crd.projectcalico.org"],
            "resources": ["ippools", "blockaffinities", "felixconfigurations"],
            "verbs": ["list"],
        },
    ],
    3: [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]},
        {"apiGroups": ["apps"], "resources": ["daemonsets"], "verbs": ["list"]},
    ],
    4: [{"apiGroups": [""], "resources": ["pods", "services"], "verbs": ["list"]}],
    5: [{"apiGroups": [""], "resources": ["services"], "verbs": ["create"]}],
}


#: Ranges of Services as objects, which may grow, came with 1.33; an older server has one, fixed when it starts.
GROWING = tuple(int(part) for part in binaries.release().split(".")) >= (1, 33)


@pytest.fixture(autouse=True)
def settled(server: Server) -> None:
    """What the test before left is gone: runs are compared with each other, and Services and pods of a dying namespace count."""
    end = time.monotonic() + 90
    while dying := [item["metadata"]["name"] for item in server.objects("namespaces") if "deletionTimestamp" in item["metadata"]]:
        assert time.monotonic() < end, f"still there: {dying}"
        time.sleep(0.5)


def run(server: Server, folder: Path, kubeconfig: Path | None = None, *words: str, **variables: Any) -> Play:
    return server.playbook(PLAY, {"strict": False, **variables}, *words, kubeconfig=kubeconfig, folder=folder)


def facts_of(play: Play) -> dict[str, Any]:
    assert play.ok, play.output
    found: dict[str, Any] = play.task("homelab.netguard.cluster_cidrs")["facts"]
    return found


@pytest.fixture
def furnished(server: Server) -> Iterator[Server]:
    """What k3s nodes and a flannel cluster would show, beside the control plane's own objects."""
    args = json.dumps(["server", "--cluster-cidr", "10.244.0.0/16", "--service-cidr", "10.96.0.0/16"])
    server.run_kubectl("annotate", "node", "--all", "--overwrite", f"k3s.io/node-args={args}")
    yield server
    server.run_kubectl("annotate", "node", "--all", "k3s.io/node-args-")


@pytest.mark.parametrize("level", LEVELS)
def test_each_level_of_rights(furnished: Server, tmp_path: Path, level: int) -> None:
    """Under a real role: what may not be read is named, and nothing is claimed beyond what is proven."""
    user = f"facts-{level}"
    rules = [rule for number in range(level + 1) for rule in LEVELS[number]]
    furnished.apply(
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": user}, "rules": rules},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": user},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        },
    )
    mark = furnished.mark()
    facts = facts_of(run(furnished, tmp_path, furnished.user(user)))
    status = {name: entry["status"] for name, entry in facts["ranges"].items()}
    # Pods: on k3s the servers' arguments prove the range, from level 1 on. Services: these arguments do not show what was
    # added at run time, so where that can be only the list of ServiceCIDRs makes them complete.
    assert status["pods"] == ("complete" if level >= 1 else "unknown")
    assert status["services"] == ("unknown" if level < 1 else "partial" if level == 1 and GROWING else "complete")
    assert facts["cidrs"]["pods"] == (["10.244.0.0/16"] if level >= 1 else [])
    assert facts["cidrs"]["services"] == (["10.96.0.0/16"] if level >= 1 else [])
    assert bool(facts["api_server"]["endpoints"]) == (level >= 1)
    forbidden = {source for source, state in facts["permissions"].items() if state == "forbidden"}
    assert ("Node" in forbidden) == (level < 1)
    assert ("ServiceCIDR" in forbidden) == (level < 2 and GROWING)
    assert ("DaemonSet" in forbidden) == (level < 3)
    assert ("Pod" in forbidden) == (level < 4)
    # What the next level would add is said, and nothing that is there already.
    missing = {entry["level"] for entry in facts["missing_rights"]}
    assert all(number > level for number in missing)
    assert level >= 4 or level + 1 in missing or (level == 1 and not GROWING)
    assert level > 1 or not GROWING or "list servicecidrs" in {entry["rule"] for entry in facts["missing_rights"]}
    events = [event for event in furnished.audit(mark) if event["user"]["username"] == user]
    assert events
    wrote = [event for event in events if event["verb"] not in ("get", "list") and "dryRun=All" not in event["requestURI"]]
    assert wrote == []
    resources = {(event["objectRef"].get("resource"), event["verb"]) for event in events if "objectRef" in event}
    assert ("configmaps", "list") not in resources
    assert not {"secrets", "nodes/proxy"} & {resource for resource, _verb in resources}


def test_the_probe_creates_nothing(server: Server, tmp_path: Path) -> None:
    """Where no ServiceCIDR may be listed the API server is asked by a dry run; where ranges can grow its answer is a part."""
    user = "facts-probe"
    rules = [*LEVELS[1], *LEVELS[5]]
    server.apply(
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": user}, "rules": rules},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": user},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        },
    )
    before = {item["metadata"]["uid"] for item in server.objects("services", "-A")}
    mark = server.mark()
    facts = facts_of(run(server, tmp_path, server.user(user)))
    services = facts["ranges"]["services"]
    assert facts["cidrs"]["services"] == ["10.96.0.0/16"]
    said = (services["status"], services["cidrs"][0]["sources"][0]["kind"])
    assert said == (("partial", "probe-multi") if GROWING else ("complete", "probe"))
    creates = [event for event in server.audit(mark) if event["verb"] == "create" and event["user"]["username"] == user]
    assert creates
    assert all("dryRun=All" in event["requestURI"] for event in creates)
    assert {item["metadata"]["uid"] for item in server.objects("services", "-A")} == before


@pytest.mark.skipif(not GROWING, reason="this Kubernetes has no ServiceCIDRs")
def test_ranges_that_grow(server: Server, tmp_path: Path) -> None:
    """A second ServiceCIDR is part of the range from the moment it is there, and the digest shows the change."""
    before = facts_of(run(server, tmp_path))
    more = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": "more"},
        "spec": {"cidrs": ["10.250.0.0/24"]},
    }
    server.apply(more)
    try:
        after = facts_of(run(server, tmp_path))
    finally:
        # its finalizer keeps it for ten seconds more, and every test of this server would read it
        server.run_kubectl("delete", "servicecidr", "more", "--wait", "--timeout=90s")
    assert before["cidrs"]["services"] == ["10.96.0.0/16"]
    assert after["cidrs"]["services"] == ["10.96.0.0/16", "10.250.0.0/24"]
    assert after["ranges"]["services"]["status"] == "complete"
    assert before["digest"] != after["digest"]


def test_strict_stops_with_the_question(server: Server, tmp_path: Path) -> None:
    """Nothing on this server tells who gives pods their addresses: the task fails, names the variable, and shows the facts."""
    play = run(server, tmp_path, strict=True)
    failed = play.task("homelab.netguard.cluster_cidrs")
    assert not play.ok
    assert "netguard_overrides: {pods: [...]}" in failed["msg"]
    assert failed["facts"]["ranges"]["pods"]["status"] == "partial"
    settled = run(server, tmp_path, strict=True, overrides={"pods": ["10.244.0.0/16"]})
    assert facts_of(settled)["cidrs"]["pods"] == ["10.244.0.0/16"]
    wrong = run(server, tmp_path, strict=True, overrides={"pods": ["10.9.0.0/16"]})
    assert not wrong.ok
    assert "lie outside of 10.9.0.0/16" in wrong.task("homelab.netguard.cluster_cidrs")["msg"]


def test_check_mode_is_the_same(server: Server, tmp_path: Path) -> None:
    plain = run(server, tmp_path)
    checked = run(server, tmp_path, None, "--check")
    assert facts_of(plain) == facts_of(checked)
    assert plain.task("homelab.netguard.cluster_cidrs")["changed"] is False


def test_the_table(server: Server, tmp_path: Path) -> None:
    """The playbook for people: at most 80 columns, with what settles each doubt."""
    play = server.playbook("homelab.netguard.facts", {}, folder=tmp_path)
    assert play.ok, play.output
    table = play.task("ansible.builtin.debug")["msg"]
    assert all(len(line) <= 80 for line in table)
    assert any(line.startswith("services") and "10.96.0.0/16" in line for line in table)
    assert any("settle it: netguard_overrides: {pods: [...]}" in line for line in table)


#: A Python whose modules see a network namespace of their own: one interface in the LAN, and another one that is none.
NAMESPACE = """#!/bin/sh
exec unshare {options} sh -c 'mount -t sysfs sysfs /sys && ip link set lo up && ip link add lan0 type veth peer name lan1 \\
  && ip addr add 192.168.77.10/24 dev lan0 && ip addr add 192.168.78.1/24 dev lan1 && ip link set lan0 up && ip link set lan1 up \\
  && exec {python} "$@"' python "$@"
"""


def test_the_lan_by_the_nodes_own_interfaces(server: Server, tmp_path: Path) -> None:
    """A group of nodes that Ansible reaches: what their interfaces tell flows into the range, by the node's InternalIP."""
    options = "--net --mount" if os.geteuid() == 0 else "--user --map-root-user --net --mount"
    python = tmp_path / "python"
    python.write_text(NAMESPACE.format(options=options, python=sys.executable))
    python.chmod(0o755)
    host = {"ansible_connection": "local", "ansible_python_interpreter": str(python)}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"nodes": {"hosts": {"reached": host}}}))
    server.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "reached"}})
    status = json.dumps({"status": {"addresses": [{"type": "InternalIP", "address": "192.168.77.10"}]}})
    try:
        server.run_kubectl("patch", "node", "reached", "--subresource=status", "--type=merge", "-p", status)
        variables = {"cluster_facts_node_group": "nodes"}
        play = server.playbook("homelab.netguard.facts", variables, "-i", "hosts.yml", folder=tmp_path)
        alone = server.playbook("homelab.netguard.facts", {}, folder=tmp_path)
    finally:
        server.run_kubectl("delete", "node", "reached", "--wait", "--timeout=90s")
    lan = facts_of(play)["ranges"]["lan"]
    told = {entry["cidr"]: {source["kind"] for source in entry["sources"]} for entry in lan["cidrs"]}
    assert told["192.168.77.0/24"] == {"ansible-facts"}
    assert "192.168.78.0/24" not in told
    assert [entry["reason"] for entry in lan["rejected"] if entry["cidr"] == "192.168.78.0/24"] == [
        "no node has this address as its InternalIP"
    ]
    without = {entry["cidr"] for entry in facts_of(alone)["ranges"]["lan"]["cidrs"]}
    assert "192.168.77.10/32" in without
    assert "192.168.77.0/24" not in without
