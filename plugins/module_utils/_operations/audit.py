# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""policy_audit: reads every policy there is, live or from files, and says what they do. Writes nothing but its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .._argspec import FACTS, TOPOLOGY, ArgumentSpec
from .._audit import explain as words
from .._audit.audit import ALL, CLIENTS, audit
from .._audit.findings import SEVERITIES, Finding, reaches
from .._audit.load import load, objects_of
from .._audit.matrix import matrix, table
from .._audit.page import page
from .._cluster.client import Read
from .._errors import FaultsError, NetguardError
from .._facts.model import Facts
from .._manifests import killswitch
from .._manifests.model import Key, Live, Manifest
from .._manifests.workloads import WORKLOADS
from .._module import Context

SPEC = ArgumentSpec(
    {
        "manifests": {"type": "list", "elements": "raw", "default": []},
        "profile": {"type": "str", "default": "auto"},
        "fail_on": {"type": "str", "choices": [*SEVERITIES, "never"], "default": "error"},
        "scope": {"type": "str", "choices": [ALL, CLIENTS], "default": ALL},
        "explain": {"type": "list", "elements": "dict", "default": []},
        "dest": {"type": "path"},
        "only": {"type": "list", "elements": "str", "default": []},
        "matrix": {"type": "bool", "default": True},
    }
).merge(TOPOLOGY, FACTS)

#: What says something about reachability, by API; APIs that the cluster does not have are left out silently.
KINDS = (
    *((api, kind) for kind, api in WORKLOADS.items()),
    ("batch/v1", "Job"),
    ("apps/v1", "ReplicaSet"),
    ("v1", "Pod"),
    ("v1", "Service"),
    ("v1", "Namespace"),
    ("v1", "Node"),
    ("discovery.k8s.io/v1", "EndpointSlice"),
    ("networking.k8s.io/v1", "Ingress"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("cilium.io/v2", "CiliumNetworkPolicy"),
    ("cilium.io/v2", "CiliumClusterwideNetworkPolicy"),
    ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy"),
    ("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy"),
    ("policy.networking.k8s.io/v1alpha1", "BaselineAdminNetworkPolicy"),
)
CALICO = ("GlobalNetworkPolicy", "NetworkPolicy", "Tier", "GlobalNetworkSet", "NetworkSet")


def reads(facts: Facts) -> list[Read]:
    """One LIST per kind. Calico's kinds come from one of its two APIs: both show the same objects."""
    found = [Read(api, kind) for api, kind in KINDS]
    calico = next((api for api in ("projectcalico.org/v3", "crd.projectcalico.org/v1") if api in facts.cni.policy_apis), "")
    if calico:
        found += [Read(calico, kind) for kind in CALICO]
    return found


def operation(context: Context) -> dict[str, Any]:
    """Shapes of the answer: the module's RETURN. Raises NetguardError when findings are as bad as `fail_on`."""
    params = context.params
    facts = context.facts()
    loaded, said = _manifests(params.get("manifests") or [])
    if params.get("manifests"):
        live = Live(tuple(loaded))
    else:
        live = context.read(reads(facts))
        if context.check_mode and params["scope"] == CLIENTS:
            live = _planned(context, facts, live)
    report = audit(
        context.topology,
        facts,
        live,
        profile=str(params.get("profile") or "auto"),
        scope=str(params["scope"]),
        apps=context.chosen(context.topology.apps),
    )
    findings = [*said, *report.findings]
    data = [finding.data() for finding in findings]
    counts = {name: sum(1 for item in findings if item.severity == name) for name in SEVERITIES}
    result: dict[str, Any] = {
        "changed": False,
        "findings": data,
        "counts": counts,
        "profiles": [engine.profile.name for engine in report.engines],
        "explain": [words.explain(engine, question) for question in params["explain"] for engine in report.engines],
    }
    if params["scope"] == ALL and (params.get("matrix", True) or params.get("dest")):
        found = matrix(report.engine)
        result |= {"matrix": found, "matrix_table": table(found)}
        if params.get("dest"):
            result["changed"] = _page(context, page(found, data, f"Policies of {context.topology.instance}"))
    bad = reaches(findings, str(params["fail_on"]))
    if bad:
        raise NetguardError(_told(bad), **result)
    return result


def _manifests(given: list[Any]) -> tuple[list[Manifest], list[Finding]]:
    """Files and folders by path, or objects as they are."""
    objects: list[Manifest] = []
    findings: list[Finding] = []
    for position, entry in enumerate(given):
        found, said = load(entry) if isinstance(entry, str) else objects_of(entry, f"manifests[{position}]")
        objects += found
        findings += said
    unique: dict[Key, Manifest] = {}
    for item in objects:
        key = Key.of(item)
        if key in unique and unique[key] != item:
            message = "stands in the manifests more than once, with other content; the last one counts"
            findings.append(Finding("duplicate-object", "warning", str(key), message, "remove one of them"))
        unique[key] = item
    return list(unique.values()), findings


def _planned(context: Context, facts: Facts, live: Live) -> Live:
    """In check mode the policies that this run would have written stand in for those that are not there yet."""
    try:
        built = killswitch.build(context.topology, facts, live, dialect="auto", clients=context.chosen(context.topology.clients))
    except (FaultsError, NetguardError):
        return live
    known = {Key.of(item) for item in live.objects}
    return Live((*live.objects, *(item for item in built.desired.objects if Key.of(item) not in known)), live.unreadable)


def _page(context: Context, text: str) -> bool:
    """Writes the page when it differs; whether it did (or would)."""
    target = Path(str(context.params["dest"]))
    if target.is_dir():
        target /= "audit.html"
    try:
        before = target.read_text("utf-8") if target.exists() else ""
        if before == text:
            return False
        if not context.check_mode:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, "utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise NetguardError(f"{target} cannot be written: {error}") from None
    return True


def _told(bad: list[Finding]) -> str:
    lines = [f"- {finding}" for finding in bad[:10]]
    if len(bad) > 10:
        lines.append(f"- and {len(bad) - 10} more, in `findings`")
    return f"the audit found {len(bad)} fault{'s' if len(bad) != 1 else ''}:\n" + "\n".join(lines)
