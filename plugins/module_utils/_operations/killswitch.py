# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""killswitch_policy: closes the clients, proves that both policy and admission are in force, and says what could open them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .._argspec import FACTS, IMAGES, TOPOLOGY, WRITER, ArgumentSpec
from .._audit import reopen
from .._cluster.client import Read
from .._cluster.converge import Action, Outcome
from .._errors import NetguardError
from .._facts.model import Facts
from .._manifests import admission, killswitch, killswitch_deny, names
from .._manifests.client_edges import ClientEdges, edges_of
from .._manifests.images import Images
from .._manifests.killswitch_held import Held, held, injected_workloads, shared
from .._manifests.model import LABEL_INSTANCE, RELEASE, Desired, Key, Live, Manifest
from .._manifests.workloads import WORKLOADS, workload
from .._module import Context
from .._topology.model import App
from . import killswitch_proof, killswitch_release, waiting

PART = "killswitch"

CALICO_KINDS = ("GlobalNetworkPolicy", "NetworkPolicy", "Tier", "GlobalNetworkSet", "NetworkSet")
#: Policies that can allow and what they refer to, by the API that serves them: all of them are searched for openings.
POLICY_KINDS = {
    "projectcalico.org/v3": CALICO_KINDS,
    "crd.projectcalico.org/v1": CALICO_KINDS,
    "cilium.io/v2": ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"),
    "policy.networking.k8s.io/v1alpha2": ("ClusterNetworkPolicy",),
    "policy.networking.k8s.io/v1alpha1": ("AdminNetworkPolicy", "BaselineAdminNetworkPolicy"),
}

SPEC = ArgumentSpec(
    {
        "dialect": {"type": "str", "choices": list(killswitch_deny.DIALECTS), "default": "auto"},
        "admission": {"type": "str", "choices": ["auto", "required", "none"], "default": "auto"},
        "clients": {"type": "str", "choices": ["all", "closed"], "default": "all"},
        "force": {"type": "bool", "default": False},
    }
).merge(TOPOLOGY, FACTS, WRITER, IMAGES)


def operation(context: Context) -> dict[str, Any]:
    """Shapes of the answer: the module's RETURN. Raises NetguardError."""
    if context.state == "absent":
        return killswitch_release.absent(context)
    if not context.topology.apps:
        context.refuse_empty("apps", PART)
    facts = context.facts()
    live = context.read(reads(context.topology.instance, facts))
    owned = held(live, context.topology.instance)
    clients = chosen(context, live, owned)
    notes: list[str] = []
    built = killswitch.build(context.topology, facts, live, dialect=context.params["dialect"], clients=clients)
    images = Images.of(context.params.get("images"))
    guard = Desired()
    if wants_admission(context, facts, notes):
        guard = admission.build(context.topology, facts, live, built.edges, dialects=built.dialects, images=images)
    left = _left(context, owned, live, built)
    desired, later = waiting.split(context, built.desired, live)
    unborn = {action.key.namespace for action in later}
    missing = [edges for edges in built.edges if edges.app.namespace in unborn]
    outcome = context.converge(desired, part=PART, prune=False, live=live)
    take_release_off(context, outcome)
    outcome.add(context.converge(guard, part=admission.PART, prune=False, live=live))
    outcome.actions += killswitch_release.delete(context, left.admission)
    proven: list[str] = []
    if guard.waves and not context.rendered and not context.check_mode:
        present = [edges for edges in built.edges if edges not in missing]
        proven = killswitch_proof.prove(context, live, present, outcome.actions, images)
        notes += killswitch_proof.unprotected(context, built.desired.objects, outcome.actions) if present else []
    kept = [] if context.rendered else _drop(context, outcome, owned, live, built, guard, left)
    openings = [] if context.rendered else reopen.reopened_by(context.topology, facts, live, built.desired.objects)
    result = outcome.result() | {
        "policies": [_policy(edges, built.dialects, guard, edges in missing) for edges in built.edges],
        "reopened_by": openings,
        "kept": kept,
        "proven": proven,
        "notes": [*built.notes, *notes],
    }
    if later:
        # Nothing was written for them, so they are no change: admission refuses their pods until the next run can write the policy.
        result["objects"] += [action.data() for action in later]
        result["counts"]["waiting"] = len(later)
    _judge(context, result, built.certain)
    return result


def chosen(context: Context, live: Live, owned: Mapping[str, Held]) -> tuple[App, ...]:
    """The clients of this run. `closed`: those that have a kill switch already, and those that do not run yet.

    With it site.yml closes first what must stay closed even if the tunnel does not come up, and leaves an app that was not
    adopted yet as it is until then.
    """
    clients = context.chosen(context.topology.clients)
    if context.params.get("clients") != "closed":
        return clients
    return tuple(app for app in clients if app.key in owned or workload(app, live) is None)


def reads(instance: str, facts: Facts) -> list[Read]:
    """One LIST per kind: the builders need workloads and Services, the search for openings every policy there is."""
    mine = f"{LABEL_INSTANCE}={instance}"
    listed = [Read(api, kind, optional=False) for kind, api in WORKLOADS.items()]
    listed += [Read("batch/v1", "Job"), Read("v1", "Service", optional=False), Read("v1", "Namespace")]
    listed += [Read("networking.k8s.io/v1", "NetworkPolicy", optional=False), Read("networking.k8s.io/v1", "Ingress")]
    if admission.supported(facts):
        listed += [Read(admission.API, kind, label_selector=mine) for kind in (admission.POLICY, admission.BINDING)]
    for dialect, apis in killswitch_deny.APIS.items():
        if any(api in facts.cni.policy_apis for api in apis):
            listed += [Read(api, kind) for api, kind in killswitch_deny.kinds(dialect, facts)]
    known = {(read.api_version, read.kind) for read in listed}
    calico = [api for api in killswitch_deny.APIS["calico"] if api in facts.cni.policy_apis]
    # both of Calico's APIs show the same objects
    served = [api for api in facts.cni.policy_apis if api not in calico[1:]]
    others = ((api, kind) for api in served for kind in POLICY_KINDS.get(api, ()))
    return [*listed, *(Read(api, kind) for api, kind in others if (api, kind) not in known)]


def settle(context: Context, apps: Iterable[App], images: Images) -> Outcome:
    """After a rollout: admission that accepted an old guard beside the new one accepts the new one alone.

    For vpn_client_inject, so that the next run has nothing left to write.
    """
    topology, facts = context.topology, context.facts()
    if not context.waits or not admission.supported(facts):
        return Outcome()
    mine = f"{LABEL_INSTANCE}={topology.instance}"
    bindings = context.read([Read(admission.API, admission.BINDING, label_selector=mine)])
    double = [app for app in apps if len(admission.recorded(topology, bindings, app)) > 1]
    if not double:
        return Outcome()
    live = context.read(reads(topology.instance, facts))
    edges = [edges_of(topology, facts, live, app) for app in double]
    settled = tuple(binding for item in edges for binding in admission.client_bindings(topology, facts, live, item, images))
    return context.converge(Desired((settled,)), part=admission.PART, prune=False)


def wants_admission(context: Context, facts: Facts, notes: list[str]) -> bool:
    """Whether admission objects are written: not when switched off, and `auto` does without where the server has none."""
    mode = context.params.get("admission") or "auto"
    if mode == "none":
        notes.append("admission is switched off: a workload that loses its guard starts pods without it")
        return False
    if admission.supported(facts):
        return True
    version = ".".join(str(number) for number in facts.server_version)
    said = f"Kubernetes {version} has no ValidatingAdmissionPolicy (general since 1.30)"
    if mode == "required":
        raise NetguardError(f"admission is required, and {said}: upgrade the cluster, or set admission: none")
    context.warn(f"{said}: a workload that loses its guard starts pods without it. Set admission: none to accept that.")
    return False


def _policy(edges: ClientEdges, dialects: tuple[str, ...], guard: Desired, missing: bool) -> dict[str, Any]:
    return {
        "client": edges.app.key,
        "name": names.killswitch(edges.app),
        "selector": edges.selector.manifest(),
        "networkpolicy": "waiting" if missing else "present",
        "hard_deny": list(dialects),
        "admission": bool(guard.waves),
        "dns": edges.dns,
    }


def take_release_off(context: Context, outcome: Outcome) -> None:
    """What is wanted is ours again: the annotation that let anybody change it goes. Also for vpn_client_inject's ConfigMaps."""
    if context.rendered:
        return
    pointer = "/metadata/annotations/" + RELEASE.replace("/", "~1")
    for key, item in list(outcome.live.items()):
        labels = item["metadata"].get("labels") or {}
        if labels.get(LABEL_INSTANCE) != context.topology.instance:
            continue
        if RELEASE in (item["metadata"].get("annotations") or {}):
            after = context.online.json_patch(key, [{"op": "remove", "path": pointer}])
            mended = Action(key, "repaired", item, after)
            context.diffs += Outcome(actions=[mended]).diff()
            outcome.actions = [action for action in outcome.actions if action.key != key] + [mended]


@dataclass(frozen=True)
class Left:
    """Clients that are in the list no more.

    `injected`: by key, what still has the guard and is no other client's. `free`: those to take away. `admission`: what has to go
    before the proof, since it holds pods that are another client's now: an app got another name.
    """

    injected: Mapping[str, list[str]]
    free: tuple[Held, ...]
    admission: tuple[Manifest, ...]


def _left(context: Context, owned: Mapping[str, Held], live: Live, built: killswitch.KillSwitches) -> Left:
    """Raises NetguardError where a client has a former name that this run may not take away."""
    current = {app.key for app in context.topology.clients}
    dropped = [] if context.rendered else [one for key, one in sorted(owned.items()) if key not in current]
    seen = killswitch_release.with_pods(context, live, dropped)
    injected: dict[str, list[str]] = {}
    free: list[Held] = []
    renamed: list[Held] = []
    for one in dropped:
        heirs = [edges.selector for edges in built.edges if edges.app.namespace == one.namespace]
        found = injected_workloads(one, seen, heirs)
        if found:
            injected[one.key] = found
        elif injected_workloads(one, seen):
            renamed.append(one)
            free.append(replace(one, admission=[]))
        else:
            free.append(one)
    if renamed and not context.prune:
        raise NetguardError(
            f"{', '.join(one.key for one in renamed)} left the list, and its pods are those of another client in it, which that"
            " kill switch would go on holding to the former name. Nothing was written: run once without only (netguard_only) and"
            " without prune: false (netguard_prune)"
        )
    return Left(injected, tuple(free), tuple(item for one in renamed for item in one.admission))


def _drop(
    context: Context,
    outcome: Outcome,
    owned: Mapping[str, Held],
    live: Live,
    built: killswitch.KillSwitches,
    guard: Desired,
    left: Left,
) -> list[dict[str, Any]]:
    """Takes away what belongs to no client any more. What is still injected is kept: vpn_client_inject goes first then."""
    if not context.prune:
        return []
    current = {app.key for app in context.topology.clients}
    outcome.actions += killswitch_release.remove(context, left.free)
    remaining = [one for one in owned.values() if one.key in current]
    stale = _stale(remaining, built)
    wanted = {Key.of(item) for item in guard.objects}
    stale += [item for one in remaining for item in one.admission if Key.of(item) not in wanted]
    if not guard.waves and not left.injected and current:
        stale += shared(live, context.topology.instance, admission_only=True)
    outcome.actions += killswitch_release.delete(context, stale)
    if left.free and not current:
        outcome.actions += killswitch_release.tidy(context)
    return [{"client": key, "injected": found} for key, found in sorted(left.injected.items())]


def _stale(clients: Iterable[Held], built: killswitch.KillSwitches) -> list[Manifest]:
    """Hard denies in a language that this run does not write any more."""
    written = {_name(item) for item in built.desired.objects}
    closed = {edges.app.key for edges in built.edges}
    return [item for one in clients if one.key in closed for item in one.policies if _name(item) not in written]


def _name(item: Manifest) -> tuple[str, str, str]:
    return item["apiVersion"], item["kind"], item["metadata"]["name"]


def _judge(context: Context, result: dict[str, Any], certain: bool) -> None:
    """Openings fail the run after everything was written, unless a hard deny stands before them or `force` accepts them."""
    openings = [item for item in result["reopened_by"] if item["effective"] or not certain]
    if not openings or context.params.get("force") or context.check_mode:
        return
    told = "; ".join(_opening(item) for item in openings[:5])
    more = f" and {len(openings) - 5} more" if len(openings) > 5 else ""
    raise NetguardError(
        f"other policies let clients out again: {told}{more}. The kill switches are written, but policies add up: exclude the"
        " clients' pods from these ones by label, or set force: true",
        **result,
    )


def _opening(item: Mapping[str, Any]) -> str:
    return f"{item['client']} by {reopen.told(item)}: {item['reason']}"
