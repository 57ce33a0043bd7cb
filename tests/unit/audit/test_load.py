# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that people may have written in any way: a finding or a clear error, never a traceback."""

from __future__ import annotations

import time
from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._audit.audit import audit
from ansible_collections.homelab.netguard.plugins.module_utils._audit.load import load, parse
from ansible_collections.homelab.netguard.plugins.module_utils._errors import NetguardError
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Live
from ansible_collections.homelab.netguard.plugins.module_utils._topology.model import Topology
from audit_shapes import facts

HEAD = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: a}\n"
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + step)}: &{chr(98 + step)} [{', '.join([f'*{chr(97 + step)}'] * 9)}]\n" for step in range(12)
)

#: name: (text, code of the finding, what it says)
TEXTS: dict[str, tuple[str, str, str]] = {
    "a key twice": (HEAD + "spec:\n  podSelector: {}\n  podSelector: {matchLabels: {a: b}}\n", "duplicate-key", "line 6"),
    "a port twice, the dash lost": (
        HEAD + "spec:\n  ingress:\n    - ports:\n        - protocol: TCP\n          port: 15008\n          port: 8080\n",
        "duplicate-key",
        "'port'",
    ),
    "an alias in a circle": (HEAD + "spec: &s\n  ingress: [*s]\n", "unreadable", "leads back"),
    "aliases that grow without end": (LAUGHS, "unreadable", "write out"),
    "no YAML": ("a: [", "unreadable", "no YAML"),
    "a tag of Python": ("!!python/object/apply:os.system [x]", "unreadable", "no YAML"),
    "nested without end": ("[" * 50_000, "unreadable", "nested"),
    "mappings nested without end": ("{a: " * 3_000, "unreadable", ""),
    "no object": ("just text", "not-an-object", "no Kubernetes object"),
    "no name": ("apiVersion: v1\nkind: NetworkPolicy\nmetadata: {}\n", "not-an-object", "metadata.name"),
    "labels that are a list": ("apiVersion: v1\nkind: Pod\nmetadata: {name: x, labels: [a]}\n", "not-an-object", "malformed"),
    "a control character": ("a: \x00", "unreadable", "no YAML"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_is_a_finding(name: str) -> None:
    text, code, held = TEXTS[name]
    _objects, findings = parse(text, "file.yaml")
    assert any(item.code == code and held in f"{item.subject} {item.message}" for item in findings), findings


#: Objects whose shape is not what the API has.
ODD: dict[str, Any] = {
    "a spec that is a text": {"spec": "x"},
    "a template that is a list": {"spec": {"template": []}},
    "containers that are texts": {"spec": {"template": {"spec": {"containers": ["x"]}}}},
    "ports that are numbers": {"spec": {"template": {"spec": {"containers": [{"ports": [1]}]}}}},
    "labels of a pod that are a text": {"spec": {"template": {"metadata": {"labels": "x"}}}},
    "addresses that are none": {"spec": {"podCIDR": "x", "podCIDRs": ["10.0.0.0/99", 1]}},
    "annotations that are no addresses": {
        "metadata": {"name": "x", "namespace": "a", "annotations": {"projectcalico.org/IPv4VXLANTunnelAddr": "x"}},
        "spec": {},
    },
    "labels that are numbers": {"spec": {"template": {"metadata": {"labels": {"a": 1}}, "spec": {}}}},
}
KINDS = (
    ("apps/v1", "Deployment"),
    ("batch/v1", "CronJob"),
    ("v1", "Pod"),
    ("v1", "Service"),
    ("v1", "Node"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("networking.k8s.io/v1", "Ingress"),
    ("projectcalico.org/v3", "GlobalNetworkPolicy"),
    ("projectcalico.org/v3", "Tier"),
    ("cilium.io/v2", "CiliumNetworkPolicy"),
    ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy"),
    ("example.org/v1", "OddPolicy"),
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda item: item[1])
@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("profile", ["calico", "cilium", "kindnet"])
def test_an_odd_object_never_ends_in_a_traceback(kind: tuple[str, str], name: str, profile: str) -> None:
    item = {"apiVersion": kind[0], "kind": kind[1], "metadata": {"name": "x", "namespace": "a"}, **ODD[name]}
    audit(Topology("home"), facts(profile), Live((item,)))


ODD_RULES: tuple[Any, ...] = (
    None,
    "x",
    1,
    [],
    {},
    [None],
    ["x"],
    [[]],
    [{"to": "x"}],
    [{"to": ["x"]}],
    [{"ports": "x"}],
    [{"ports": [1]}],
)


@pytest.mark.parametrize("rules", ODD_RULES, ids=repr)
@pytest.mark.parametrize("kind", [item for item in KINDS if "Policy" in item[1]], ids=lambda item: item[1])
def test_odd_rules(kind: tuple[str, str], rules: Any) -> None:
    spec = {"podSelector": {}, "endpointSelector": {}, "selector": "all()", "tier": "Admin", "subject": {"namespaces": {}}}
    item = {
        "apiVersion": kind[0],
        "kind": kind[1],
        "metadata": {"name": "x", "namespace": "a"},
        "spec": {**spec, "egress": rules, "ingress": rules, "egressDeny": rules},
    }
    for profile in ("calico", "cilium", "kindnet"):
        audit(Topology("home"), facts(profile), Live((item,)))


def test_ten_megabytes(tmp_path: Any) -> None:
    note = "metadata: {name: p, namespace: a, annotations: {note: " + "x" * 4000 + "}}\n"
    entry = HEAD.replace("metadata: {name: p, namespace: a}\n", note) + "spec: {podSelector: {}, policyTypes: [Egress]}\n---\n"
    file = tmp_path / "large.yaml"
    file.write_text(entry * (10 * 2**20 // len(entry)))
    began = time.monotonic()
    objects, findings = load(str(file))
    assert len(objects) > 2_000
    assert not findings
    assert time.monotonic() - began < 120, "bounded, however slow the machine"


def test_a_folder_and_what_is_not_there(tmp_path: Any) -> None:
    (tmp_path / "a.yaml").write_text(HEAD)
    (tmp_path / "b.txt").write_text("no: manifest: here")
    assert [item["kind"] for item in load(str(tmp_path))[0]] == ["NetworkPolicy"]
    with pytest.raises(NetguardError, match="cannot be read"):
        load(str(tmp_path / "gone.yaml"))
