# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What of a kill switch is live, by the labels it carries: how a client that is in no list any more is found and released."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .admission import BINDING, POLICY, dry_run_pod
from .client_guard import GUARD
from .killswitch_deny import LABEL_NAMESPACE
from .model import LABEL_CLIENT, LABEL_INSTANCE, LABEL_PART, PREFIX, Live, Manifest
from .workloads import WORKLOADS, PodSelector, labels_of, template_of

NETWORK_POLICY = "networking.k8s.io/v1"
#: Kinds of what a kill switch consists of, the NetworkPolicy last: nothing of it is deleted before the rest.
KINDS = ("GlobalNetworkPolicy", "CiliumNetworkPolicy", "ClusterNetworkPolicy", "NetworkPolicy")


@dataclass
class Held:
    """One client as its objects tell: `policies` and `admission` are live objects of this instance."""

    namespace: str
    client: str
    selector: PodSelector | None = None  # None: its NetworkPolicy is gone
    policies: list[Manifest] = field(default_factory=list)
    admission: list[Manifest] = field(default_factory=list)

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.client}"


def held(live: Live, instance: str) -> dict[str, Held]:
    """By `namespace/client`: every client of the instance that has a kill switch or admission, whole or in part."""
    found: dict[str, Held] = {}
    for kind, part in (*((kind, "killswitch") for kind in KINDS), (BINDING, "admission"), (POLICY, "admission")):
        for item in _owned(live, kind, instance, part):
            labels = item["metadata"]["labels"]
            if LABEL_CLIENT not in labels:
                continue
            namespace, client = labels.get(LABEL_NAMESPACE) or item["metadata"].get("namespace", ""), labels[LABEL_CLIENT]
            one = found.setdefault(f"{namespace}/{client}", Held(namespace, client))
            (one.policies if part == "killswitch" else one.admission).append(item)
            if item["apiVersion"] == NETWORK_POLICY:
                one.selector = selector_of(item["spec"]["podSelector"])
    return found


def shared(live: Live, instance: str, *, admission_only: bool = False) -> list[Manifest]:
    """Objects of the instance as a whole: the protection of policies, and (unless `admission_only`) Calico's tier."""
    kinds = [(BINDING, "admission"), (POLICY, "admission")] + ([] if admission_only else [("Tier", "killswitch")])
    return [
        item
        for kind, part in kinds
        for item in _owned(live, kind, instance, part)
        if LABEL_CLIENT not in item["metadata"]["labels"]
    ]


def selector_of(body: Mapping[str, Any]) -> PodSelector:
    return PodSelector(dict(body.get("matchLabels") or {}), tuple(body.get("matchExpressions") or ()))


def _owned(live: Live, kind: str, instance: str, part: str) -> Iterable[Manifest]:
    for item in live.all(kind):
        labels = item["metadata"].get("labels") or {}
        if labels.get(LABEL_INSTANCE) == instance and labels.get(LABEL_PART) == part:
            yield item


def injected_workloads(one: Held, live: Live, heirs: Iterable[PodSelector] = ()) -> list[str]:
    """`Kind/name` of the workloads and `Pod/name` of the running pods that this kill switch selects and that have the guard.

    `heirs`: selectors of kill switches in the same namespace that hold what they select in place of this one.
    """
    if one.selector is None:
        return []
    own, others = one.selector, list(heirs)

    def holds(labels: Mapping[str, str]) -> bool:
        return own.matches(labels) and not any(other.matches(labels) for other in others)

    found = [
        f"{kind}/{item['metadata']['name']}"
        for kind in WORKLOADS
        for item in live.all(kind, one.namespace)
        if guarded(template_of(item)) and holds(labels_of(template_of(item)))
    ]
    return found + [
        f"Pod/{item['metadata']['name']}"
        for item in live.all("Pod", one.namespace)
        if guarded(item) and holds(labels_of(item)) and (item.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
    ]


def guarded(template: Mapping[str, Any]) -> bool:
    """Whether a pod (template) has the guard anywhere among its init containers."""
    return any(item.get("name") == GUARD for item in (template.get("spec") or {}).get("initContainers") or [])


def unguarded_pod(one: Held) -> Manifest:
    """A pod that the kill switch selects, without a guard, for dry runs."""
    labels = dict(one.selector.labels) if one.selector else {}
    for expression in one.selector.expressions if one.selector else ():
        if expression["operator"] in ("In", "Exists"):
            labels.setdefault(expression["key"], (expression.get("values") or [""])[0])
    return dry_run_pod(one.namespace, {key: value for key, value in labels.items() if not key.startswith(PREFIX)})
