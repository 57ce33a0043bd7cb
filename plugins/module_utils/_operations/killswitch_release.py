# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The order in which a client is let go, for killswitch_policy and vpn_client_inject.

`release` takes admission away and waits until an unguarded pod would be accepted; the caller then takes the injection out
and waits for the rollout, under the NetworkPolicy; `remove` takes the policies away last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .._cluster import Read
from .._errors import NetguardError
from .._manifests import admission
from .._manifests.killswitch_held import KINDS, Held, held, injected_workloads, shared, unguarded_pod
from .._manifests.model import LABEL_INSTANCE, Desired, Key, Live, Manifest
from .._manifests.workloads import WORKLOADS, labels_of, template_of
from .._module import Context
from . import killswitch_proof

#: API versions in which policies of ours can stand, whatever the facts say now.
POLICY_APIS = (
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("projectcalico.org/v3", "GlobalNetworkPolicy"),
    ("crd.projectcalico.org/v1", "GlobalNetworkPolicy"),
    ("projectcalico.org/v3", "Tier"),
    ("crd.projectcalico.org/v1", "Tier"),
    ("cilium.io/v2", "CiliumNetworkPolicy"),
    ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy"),
    (admission.API, admission.POLICY),
    (admission.API, admission.BINDING),
)


def reads(instance: str) -> list[Read]:
    """Everything of the instance's kill switches, by its labels, and the workloads that may be injected."""
    mine = f"{LABEL_INSTANCE}={instance}"
    listed = [Read(api, kind, label_selector=mine) for api, kind in POLICY_APIS]
    return listed + [Read(api, kind) for kind, api in WORKLOADS.items()]


def with_pods(context: Context, live: Live, clients: Iterable[Held]) -> Live:
    """The snapshot with the pods of the namespaces of these clients: pods outlive the template that made them."""
    namespaces = sorted({one.namespace for one in clients if one.namespace})
    if not namespaces:
        return live
    pods = context.read([Read("v1", "Pod", namespace=namespace) for namespace in namespaces])
    return Live((*live.objects, *pods.all("Pod")), {**live.unreadable, **pods.unreadable})


def held_by(live: Live, instance: str, workload: Manifest) -> list[Held]:
    """The kill switches of the instance that select the pods of a workload."""
    labels = labels_of(template_of(workload))
    return [
        one
        for one in held(live, instance).values()
        if one.namespace == workload["metadata"]["namespace"] and one.selector is not None and one.selector.matches(labels)
    ]


def absent(context: Context) -> dict[str, Any]:
    """Everything of the instance. Refused while a client is still injected, unless `force`."""
    instance = context.topology.instance
    live = context.read(reads(instance))
    clients = list(held(live, instance).values())
    if context.only:
        wanted = set(context.only)
        clients = [one for one in clients if one.client in wanted or one.key in wanted]
    live = with_pods(context, live, clients)
    injected = {one.key: found for one in clients if (found := injected_workloads(one, live))}
    if injected and not context.params.get("force"):
        told = "; ".join(f"{key} ({', '.join(found)})" for key, found in sorted(injected.items()))
        raise NetguardError(
            f"these clients are still injected: {told}. Run vpn_client_inject with state: absent first (playbook remove), so that"
            " no app is ever without its policy while it has its guard"
        )
    objects = release(context, clients)
    objects += remove(context, clients, admission_too=False)
    if not context.only:
        objects += delete(context, shared(live, instance))
    return {"changed": bool(objects), "objects": objects, "policies": [], "reopened_by": [], "kept": [], "notes": []}


def release(context: Context, clients: Sequence[Held]) -> list[dict[str, Any]]:
    """Takes the admission of these clients away and waits until a pod without the guard would be accepted."""
    gone = delete(context, [item for one in clients for item in one.admission])
    if gone and not context.check_mode:
        for one in clients:
            if one.admission and one.selector is not None:
                killswitch_proof.accepted(context, unguarded_pod(one))
    return gone


def remove(context: Context, clients: Sequence[Held], *, admission_too: bool = True) -> list[dict[str, Any]]:
    """Takes the policies of these clients away, hard denies before the NetworkPolicy beside them."""
    admitted = [item for one in clients for item in one.admission] if admission_too else []
    policies = sorted((item for one in clients for item in one.policies), key=lambda item: _rank(item["kind"]))
    return delete(context, [*admitted, *policies])


def _rank(kind: str) -> int:
    return KINDS.index(kind) if kind in KINDS else -1


def delete(context: Context, items: Sequence[Manifest]) -> list[dict[str, Any]]:
    """Deletes in the given order; a protected policy is marked as released first, which its protection asks for."""
    assert context.cluster is not None
    protected = [_released(item) for item in items if item["kind"] in KINDS or item["kind"] == "Tier"]
    if protected and not context.check_mode:
        context.converge(Desired((tuple(protected),)), part="killswitch", prune=False)
    for item in items:
        context.cluster.delete(Key.of(item))
    return [
        {
            "api_version": item["apiVersion"],
            "kind": item["kind"],
            "namespace": item["metadata"].get("namespace", ""),
            "name": item["metadata"]["name"],
            "action": "deleted",
        }
        for item in items
    ]


def _released(item: Manifest) -> Manifest:
    meta = item["metadata"]
    kept = {key: meta[key] for key in ("name", "namespace", "labels") if key in meta}
    annotations = {admission.RELEASE: "true"}
    return {"apiVersion": item["apiVersion"], "kind": item["kind"], "metadata": {**kept, "annotations": annotations}, "spec": item["spec"]}
