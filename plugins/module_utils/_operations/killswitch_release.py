# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The order in which a client is let go, for killswitch_policy and vpn_client_inject.

`release` takes admission away and waits until an unguarded pod would be accepted; the caller then takes the injection out
and waits for the rollout, under the NetworkPolicy; `remove` takes the policies away last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .._cluster.client import Read
from .._cluster.converge import Action, Outcome
from .._errors import NetguardError
from .._manifests import admission
from .._manifests.killswitch_held import KINDS, Held, held, injected_workloads, shared, unguarded_pod
from .._manifests.model import LABEL_INSTANCE, Key, Live, Manifest
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


def held_by(live: Live, instance: str, workload: Mapping[str, Any]) -> list[Held]:
    """The kill switches of the instance that select the pods of a workload."""
    labels, namespace = labels_of(template_of(workload)), workload["metadata"]["namespace"]
    return [
        one
        for one in held(live, instance).values()
        if one.namespace == namespace and one.selector is not None and one.selector.matches(labels)
    ]


def absent(context: Context) -> dict[str, Any]:
    """Everything of the instance (or of `only`). Refused while a client is still injected, unless `force`."""
    instance = context.topology.instance
    live = context.read(reads(instance))
    clients = [one for one in held(live, instance).values() if not context.only or {one.client, one.key} & set(context.only)]
    injected = still_injected(context, live, clients)
    if injected and not context.params.get("force"):
        told = "; ".join(f"{key} ({', '.join(found)})" for key, found in sorted(injected.items()))
        raise NetguardError(
            f"these clients are still injected: {told}. Run vpn_client_inject with state: absent first (playbook remove does), so"
            " that no app loses its policy before its guard",
            injected=injected,
        )
    outcome = Outcome(actions=[*release(context, clients), *remove(context, clients, admission_too=False)])
    if not context.only:
        outcome.actions += delete(context, shared(live, instance))
    return outcome.result() | {"policies": [], "reopened_by": [], "kept": [], "proven": [], "notes": []}


def still_injected(context: Context, live: Live, clients: Sequence[Held]) -> dict[str, list[str]]:
    """By client: the workloads and running pods that still have the guard."""
    seen = with_pods(context, live, clients)
    return {one.key: found for one in clients if (found := injected_workloads(one, seen))}


def release(context: Context, clients: Sequence[Held], *, injected: bool = False) -> list[Action]:
    """Takes the admission of these clients away and waits until a pod without the guard would be accepted.

    `injected`: their workloads come next. Then it waits also for admission that an earlier run, which did not get to its end, took
    away: the API server goes on refusing for about a second.
    """
    gone = delete(context, [item for one in clients for item in one.admission])
    if not context.check_mode:
        for one in clients:
            if (injected or one.admission) and one.selector is not None:
                killswitch_proof.accepted(context, unguarded_pod(one))
    return gone


def remove(context: Context, clients: Sequence[Held], *, admission_too: bool = True) -> list[Action]:
    """Takes the policies of these clients away, hard denies before the NetworkPolicy beside them."""
    admitted = [item for one in clients for item in one.admission] if admission_too else []
    policies = sorted((item for one in clients for item in one.policies), key=lambda item: KINDS.index(item["kind"]))
    return delete(context, [*admitted, *policies])


def tidy(context: Context) -> list[Action]:
    """Once the last client is gone: what the instance had as a whole. Not foreseen in check mode, which deletes nothing."""
    if context.check_mode:
        return []
    live = context.read(reads(context.topology.instance))
    return [] if held(live, context.topology.instance) else delete(context, shared(live, context.topology.instance))


def delete(context: Context, items: Sequence[Manifest]) -> list[Action]:
    """Deletes in the given order, those of one kind side by side; what is gone already is no change."""
    actions: list[Action] = []
    for kind in dict.fromkeys(item["kind"] for item in items):
        of_kind = [item for item in items if item["kind"] == kind]
        done = context.online.parallel(
            lambda item: context.online.delete(Key.of(item), uid=item["metadata"].get("uid", "")), of_kind
        )
        actions += [Action(Key.of(item), "deleted", item) for item, gone in zip(of_kind, done, strict=True) if gone]
    context.diffs += Outcome(actions=actions).diff()
    return actions
