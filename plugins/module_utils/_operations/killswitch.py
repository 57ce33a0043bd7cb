# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""killswitch_policy: closes the clients, proves that both policy and admission are in force, and says what could open them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .._audit import reopen
from .._cluster import Read
from .._errors import NetguardError
from .._facts.model import Facts
from .._manifests import admission, killswitch, killswitch_deny
from .._manifests.client_edges import ClientEdges
from .._manifests.images import Images
from .._manifests.killswitch_held import Held, held, injected_workloads, shared
from .._manifests.model import LABEL_INSTANCE, Desired, Live, Manifest
from .._manifests.workloads import WORKLOADS
from .._module import Context
from .._topology.model import App
from . import killswitch_proof, killswitch_release
from .results import joined

PART = "killswitch"


def operation(context: Context) -> dict[str, Any]:
    if context.state == "absent":
        return killswitch_release.absent(context)
    facts = context.facts()
    clients = selected(context)
    live = context.read(reads(context.topology.instance, facts))
    owned = held(live, context.topology.instance)
    if not context.topology.apps and owned and context.state == "present":
        names = ", ".join(sorted(owned))
        raise NetguardError(
            f"the list of apps is empty, and these clients are held closed: {names}. Give the list, or set state: absent"
        )
    built = killswitch.build(context.topology, facts, live, dialect=context.params["dialect"], clients=clients)
    notes = [*built.notes]
    guard = Desired()
    if wants_admission(context, facts, notes):
        guard = admission.build(
            context.topology, facts, live, built.edges, dialects=built.dialects, images=Images.of(context.params.get("images"))
        )
    missing = [] if context.state == "rendered" else _without_namespace(live, built.edges)
    policies = context.converge(_existing(built.desired, missing), part=PART, prune=False)
    admitted = context.converge(guard, part=admission.PART, prune=False)
    result = joined(policies, admitted)
    result["policies"] = [_policy(edges, built.dialects, guard, edges in missing) for edges in built.edges]
    result["notes"] = notes
    if context.state == "rendered":
        return result
    for edges in missing:
        result["objects"].append(_waiting(edges))
    if guard.waves and not context.check_mode:
        killswitch_proof.prove(context, live, [edges for edges in built.edges if edges not in missing], result["objects"])
    _drop(context, result, owned, live, guard)
    result["reopened_by"] = reopen.reopened_by(context.topology, facts, live)
    _judge(context, result, built.dialects)
    return result


def selected(context: Context) -> tuple[App, ...]:
    """The clients of this run: all, or those that `only` names (`name` or `namespace/name`)."""
    if not context.only:
        return context.topology.clients
    wanted = set(context.only)
    return tuple(app for app in context.topology.clients if app.name in wanted or app.key in wanted)


def reads(instance: str, facts: Facts) -> list[Read]:
    """One LIST per kind: the builders need workloads and Services, the search for openings every policy there is."""
    mine = f"{LABEL_INSTANCE}={instance}"
    listed = [Read(api, kind) for kind, api in WORKLOADS.items()]
    listed += [Read("v1", "Service"), Read("v1", "Namespace"), Read("networking.k8s.io/v1", "NetworkPolicy")]
    if admission.supported(facts):
        listed += [Read(admission.API, kind, label_selector=mine) for kind in (admission.POLICY, admission.BINDING)]
    for dialect, apis in killswitch_deny.APIS.items():
        if any(api in facts.cni.policy_apis for api in apis):
            listed += [Read(api, kind) for api, kind in killswitch_deny.kinds(dialect, facts)]
    return listed


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
    notes.append(f"{said}: a workload that loses its guard starts pods without it")
    return False


def _without_namespace(live: Live, found: Iterable[ClientEdges]) -> list[ClientEdges]:
    """Clients of namespaces that do not exist yet: admission refuses their pods until the next run can write the policy."""
    known = {item["metadata"]["name"] for item in live.all("Namespace")}
    if "Namespace" in live.unreadable:
        return []
    return [edges for edges in found if edges.app.namespace not in known]


def _existing(desired: Desired, missing: Iterable[ClientEdges]) -> Desired:
    absent = {edges.app.namespace for edges in missing}
    waves = tuple(tuple(item for item in wave if item["metadata"].get("namespace") not in absent) for wave in desired.waves)
    return Desired(waves, desired.patches)


def _policy(edges: ClientEdges, dialects: tuple[str, ...], guard: Desired, missing: bool) -> dict[str, Any]:
    return {
        "client": edges.app.key,
        "selector": edges.selector.manifest(),
        "networkpolicy": not missing,
        "hard_deny": list(dialects),
        "admission": bool(guard.waves),
        "dns": edges.dns,
    }


def _waiting(edges: ClientEdges) -> dict[str, Any]:
    policy = {"api_version": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
    return {**policy, "namespace": edges.app.namespace, "name": killswitch.names.killswitch(edges.app), "action": "waiting"}


def _drop(context: Context, result: dict[str, Any], owned: dict[str, Held], live: Live, guard: Desired) -> None:
    """Takes away what belongs to no client any more, unless one is still injected: vpn_client_inject goes first then."""
    result["kept"] = []
    if context.only or not context.params.get("prune", True):
        return
    current = {app.key for app in context.topology.clients}
    dropped = [one for key, one in sorted(owned.items()) if key not in current]
    live = killswitch_release.with_pods(context, live, dropped)
    free: list[Held] = []
    for one in dropped:
        injected = injected_workloads(one, live)
        if injected:
            result["kept"].append({"client": one.key, "injected": injected})
        else:
            free.append(one)
    gone = killswitch_release.remove(context, free)
    stale = [item for one in owned.values() if one.key in current for item in _stale(one, result)]
    if not guard.waves:
        stale += [item for one in owned.values() if one.key in current for item in one.admission]
        if not result["kept"]:
            stale += [item for item in shared(live, context.topology.instance) if item["kind"] != "Tier"]
    gone += killswitch_release.delete(context, stale)
    result["objects"] += gone
    result["changed"] = result["changed"] or bool(gone)


def _stale(one: Held, result: dict[str, Any]) -> list[Manifest]:
    """Hard denies of a dialect that is no longer written."""
    written = {"calico": "GlobalNetworkPolicy", "cilium": "CiliumNetworkPolicy", "clusternetworkpolicy": "ClusterNetworkPolicy"}
    kinds = {"NetworkPolicy"} | {written[name] for policy in result["policies"] for name in policy["hard_deny"]}
    return [item for item in one.policies if item["kind"] not in kinds]


def _judge(context: Context, result: dict[str, Any], dialects: tuple[str, ...]) -> None:
    """Openings fail the run after everything was written, unless a hard deny stands before them or `force` accepts them."""
    openings = result["reopened_by"]
    if not openings or dialects or context.params.get("force"):
        return
    told = "; ".join(f"{item['client']} by {item['policy']}: {item['reason']}" for item in openings[:5])
    more = f" and {len(openings) - 5} more" if len(openings) > 5 else ""
    raise NetguardError(
        f"other policies let clients out again: {told}{more}. The kill switches are written, but policies only add up: narrow"
        " these ones (exclude the client's pods by label), or set force: true",
        **result,
    )
