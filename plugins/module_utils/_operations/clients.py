# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""vpn_client_inject: puts guard and overlay into closed clients, and takes them out again in the order that never opens one."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from .._argspec import FACTS, IMAGES, TOPOLOGY, WAIT, WRITER, ArgumentSpec
from .._cluster.client import Read
from .._cluster.converge import Action, Outcome, is_ours
from .._cluster.transport import ApiError
from .._errors import FaultsError, NetguardError, required
from .._facts.model import Facts
from .._manifests import admission, client_checks, client_settings, names
from .._manifests import client as builder
from .._manifests.client import PART, Client
from .._manifests.client_guard import native_sidecars
from .._manifests.client_rollout import rolled_out
from .._manifests.client_template import OUR_CONTAINERS, POLICY, loose_containers, release
from .._manifests.images import Images
from .._manifests.model import LABEL_INSTANCE, LABEL_PART, Desired, Key, Live, Manifest, Patch
from .._manifests.workloads import WORKLOADS, template_of
from .._module import Context
from . import clients_checks, killswitch, killswitch_proof, killswitch_release
from .clients_rollout import Rollouts, overlay_addresses

SPEC = TOPOLOGY.merge(
    FACTS,
    WRITER,
    WAIT,
    IMAGES,
    ArgumentSpec(
        {
            "admission": {"type": "str", "choices": ["auto", "required", "none"], "default": "auto"},
            "manage_pod_security": {"type": "bool", "default": False},
        }
    ),
)

#: What the result calls the actions of the builder.
ACTIONS = {builder.INJECT: "injected", builder.REPAIR: "repaired", builder.UPDATE: "changed"}


def operation(context: Context) -> dict[str, Any]:
    """Shapes of the answer: the module's RETURN. Raises NetguardError."""
    if context.state == "absent":
        return _absent(context)
    if not context.topology.apps:
        context.refuse_empty("apps", PART)
    return _rendered(context) if context.rendered else _present(context)


def reads(instance: str, facts: Facts) -> list[Read]:
    """What the kill switches need, and the ConfigMaps that say which workloads were injected."""
    mine = f"{LABEL_INSTANCE}={instance},{LABEL_PART}={PART}"
    return [*killswitch.reads(instance, facts), Read("v1", "ConfigMap", label_selector=mine, optional=False)]


def _present(context: Context) -> dict[str, Any]:
    topology, facts = context.topology, context.facts()
    live = context.read(reads(topology.instance, facts))
    managed = bool(context.params["manage_pod_security"])
    clients = _planned(context, facts, live, managed)
    there = [client for client in clients if client.workload is not None]
    faults = clients_checks.not_closed(context, facts, live, there)
    faults += clients_checks.not_ready(context, facts, live, there)
    faults += clients_checks.held_fields(topology, there)
    if faults:
        raise FaultsError(faults, "clients that cannot be injected; nothing was patched")
    notes = _notes(context, facts, clients)
    _prove_admission(context, facts, live, there)
    outcome = Outcome()
    opened = builder.pod_security_patches(live, {client.app.namespace for client in there}) if managed else ()
    _patch(context, outcome, opened)
    closed_to_us = {patch.target.name for patch in opened} if context.check_mode else set()
    faults = clients_checks.not_admitted(context, there, notes, closed_to_us)
    if faults:
        raise FaultsError(faults, "clients whose pods would not start guarded; no workload was patched")
    former = _former(context, live) if context.prune else ()
    desired = builder.desired(live, clients)
    settings = context.converge(Desired(desired.waves), part=PART, prune=False)
    killswitch.take_release_off(context, settings)
    outcome.add(settings)
    _patch(context, outcome, desired.patches)
    rollouts = Rollouts(context)
    if context.waits:
        touched = {patch.target for patch in desired.patches}
        pending = [item for item in _workloads(there) if Key.of(item) in touched or not rolled_out(item)[0]]
        try:
            rollouts.wait(pending, guard=True)
        except NetguardError as error:  # what was done is told all the same
            raise NetguardError(str(error), **{**outcome.result(), "notes": [*notes, *rollouts.told()], **error.details}) from None
        outcome.add(killswitch.settle(context, [client.app for client in there], _images(context)))
    if former:
        _release(context, outcome, rollouts, former, live, {app.key for app in topology.clients})
    if context.prune and _without_client(topology.instance, live, desired):
        _prune_configs(context, outcome, desired)
    if context.prune:
        _patch(context, outcome, builder.pod_security_restored(live, {app.namespace for app in topology.clients}))
    outcome.actions += [Action(client.key, "waiting") for client in clients if client.workload is None]
    notes += rollouts.told()
    return outcome.result() | {
        "clients": [*_described(context, clients), *(_freed(item) for item in former)],
        "notes": notes,
    }


def _former(context: Context, live: Live) -> tuple[Manifest, ...]:
    """Workloads to release. Raises NetguardError when that would be every client that there is: another list is meant then."""
    topology = context.topology
    found = builder.former(topology.instance, live, map(builder.workload_key, topology.clients))
    known = builder.known(topology.instance, live)
    if found and known and not known & {app.key for app in topology.apps}:
        listed = ", ".join(str(Key.of(item)) for item in found[:5])
        raise NetguardError(
            f"none of the clients of the instance {topology.instance} ({', '.join(sorted(known)[:5])}) is in the list, and this run"
            f" would release {listed}. Nothing was changed. If the list belongs to another home, give it an instance of its own;"
            " to remove these clients, run with state: absent (playbook remove); prune: false (netguard_prune) leaves them alone."
        )
    return found


def _rendered(context: Context) -> dict[str, Any]:
    """Objects and patches from facts and `live` alone, against workloads as their owners wrote them.

    The patches are for Kustomize (and `kubectl patch --type strategic`), which put new list elements in front and know no
    order of elements.
    """
    topology, facts = context.topology, context.facts()
    given = context.read([])
    live = Live(tuple(_clean(item) for item in given.objects), given.unreadable)
    clients = _planned(context, facts, live, bool(context.params["manage_pod_security"]))
    for client in clients:
        missing = client_settings.unready(topology, facts, live, client.app)
        if missing:
            context.warn(f"{missing}: give it in the option live, else {client.app.key} stays closed for want of its address")
    desired = builder.desired(live, clients, manage_pod_security=bool(context.params["manage_pod_security"]))
    patches = tuple(replace(patch, body=_unordered(patch.body)) for patch in desired.patches)
    outcome = context.converge(replace(desired, patches=patches), part=PART)
    outcome.actions += [Action(client.key, "waiting") for client in clients if client.workload is None]
    return outcome.result() | {"clients": _described(context, clients), "notes": _notes(context, facts, clients)}


def _clean(item: Manifest) -> Manifest:
    """A workload without our injection; anything else as it is."""
    if item["kind"] not in WORKLOADS:
        return item
    result = copy.deepcopy(item)
    template = template_of(result)
    released = release(template)
    template.clear()
    template.update(released)
    return result


def _unordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unordered(item) for key, item in value.items() if not key.startswith("$setElementOrder/")}
    return [_unordered(item) for item in value] if isinstance(value, list) else value


def _planned(context: Context, facts: Facts, live: Live, managed: bool) -> tuple[Client, ...]:
    """The chosen clients; every fault of all of them in one error."""
    topology = context.topology
    wanted = context.chosen(topology.clients)
    faults = client_checks.refusals(topology, facts, live, wanted, manage_pod_security=managed)
    clients: list[Client] = []
    for app in wanted:
        try:
            clients += builder.clients(topology, facts, live, images=_images(context), only=[app])
        except FaultsError as error:
            faults += error.faults
    if faults:
        raise FaultsError(list(dict.fromkeys(faults)))
    return tuple(clients)


def _images(context: Context) -> Images:
    return Images.of(context.params.get("images"))


def _workloads(clients: Iterable[Client]) -> list[Manifest]:
    return [client.workload for client in clients if client.workload is not None]


def _prove_admission(context: Context, facts: Facts, live: Live, clients: Iterable[Client]) -> None:
    """A workload is patched only after a dry-run pod without the guard was refused by the admission of its own client."""
    todo = [client for client in clients if client.patch is not None]
    if context.check_mode or not todo or not killswitch.wants_admission(context, facts, []):
        return
    for client in todo:
        missing = [
            name for name in admission.client_names(context.topology, client.app) if live.get(admission.BINDING, "", name) is None
        ]
        if missing:
            raise NetguardError(
                f"{client.app.key} has no admission guard ({', '.join(missing)}): run homelab.netguard.killswitch_policy with the"
                " same lists first, or set admission: none. Nothing was patched",
            )
    context.online.parallel(lambda client: killswitch_proof.prove_refused(context, live, client.edges), todo)


def _patch(context: Context, outcome: Outcome, patches: Iterable[Patch], *, send: bool = True) -> None:
    """Sends patches side by side (in check mode as dry runs) and reports them."""
    listed = [*patches]
    if send:
        context.online.parallel(lambda patch: _send(context, patch), listed)
    done = Outcome(patches=listed)
    context.diffs += done.diff()
    outcome.add(done)


def _send(context: Context, patch: Patch) -> None:
    try:
        context.online.patch(patch)
    except ApiError as error:
        # check mode: the admission in force is that of the last run, which this run would have changed before
        if not (context.check_mode and clients_checks.by_our_admission(context, error)):
            raise


def _absent(context: Context) -> dict[str, Any]:
    """Releases every client of the instance, or those of `only`; found by labels, the lists are not needed."""
    instance = context.topology.instance
    mine = f"{LABEL_INSTANCE}={instance},{LABEL_PART}={PART}"
    configs = Read("v1", "ConfigMap", label_selector=mine, optional=False)
    live = context.read([*killswitch_release.reads(instance), configs, Read("v1", "Namespace")])
    former = builder.former(instance, live, [])
    apps = [app for app in context.topology.apps if {app.name, app.key} & set(context.only)]
    if context.only:
        chosen = {builder.workload_key(app) for app in apps}
        former = tuple(item for item in former if Key.of(item) in chosen)
    outcome, rollouts = Outcome(), Rollouts(context)
    _release(context, outcome, rollouts, former, live, None)
    if context.only:
        places = {(app.namespace, names.client_config(app)) for app in apps}
        gone = [item for item in live.all("ConfigMap") if (item["metadata"]["namespace"], item["metadata"]["name"]) in places]
        outcome.actions += killswitch_release.delete(context, gone)
    else:
        _patch(context, outcome, builder.pod_security_restored(live, ()))
        outcome.add(context.converge(Desired(), part=PART, prune=True))
    return outcome.result() | {"clients": [_freed(item) for item in former], "notes": rollouts.told()}


def _release(
    context: Context,
    outcome: Outcome,
    rollouts: Rollouts,
    former: Iterable[Manifest],
    live: Live,
    current: Iterable[str] | None,
) -> None:
    """Admission off, then the injection out, then the rollout; the policy stands until no pod has the guard any more.

    `current`: keys of the clients that stay, whose kill switches are none of ours to take; None (state absent): policies are
    left to killswitch_policy altogether.
    """
    released = list(former)
    if not released:
        return
    kept = set(current or ())
    held = {
        one.key: one
        for item in released
        for one in killswitch_release.held_by(live, context.topology.instance, item)
        if one.key not in kept
    }
    outcome.actions += killswitch_release.release(context, list(held.values()), injected=True)
    patches = [patch for item in released if (patch := builder.release_patch(item)) is not None]
    # in check mode admission was not taken off, and would refuse even the dry run
    _patch(context, outcome, patches, send=not (context.check_mode and held))
    if not context.waits:
        return
    rollouts.wait(released, guard=False)
    running = rollouts.unguarded(released)
    rollouts.forget(released)
    for item in running:
        rollouts.notes.append(f"a guarded Job of {Key.of(item)} still runs: its policy stays until a run after its end")
    busy = {one.key for item in running for one in killswitch_release.held_by(live, context.topology.instance, item)}
    if current is not None:
        outcome.actions += killswitch_release.remove(context, [one for key, one in held.items() if key not in busy])
        outcome.actions += killswitch_release.tidy(context)


def _without_client(instance: str, live: Live, desired: Desired) -> bool:
    """Whether ConfigMaps are there that no client has any more; with an app's former name its pods mounted one until now."""
    wanted = {Key.of(item) for item in desired.objects}
    return any(is_ours(item, instance, PART) and Key.of(item) not in wanted for item in live.all("ConfigMap"))


def _prune_configs(context: Context, outcome: Outcome, desired: Desired) -> None:
    """ConfigMaps of released clients, which their last pods mounted until now."""
    kept = len(context.manifests)
    pruned = context.converge(Desired(desired.waves), part=PART, prune=True)
    del context.manifests[kept:]  # they are there already
    pruned.unchanged = 0
    pruned.manifests = []
    if context.check_mode:  # nothing was written, so what would be created shows a second time
        pruned.actions = [action for action in pruned.actions if action.action == "deleted"]
    outcome.add(pruned)


def _described(context: Context, clients: Iterable[Client]) -> list[dict[str, Any]]:
    listed = list(clients)
    present = [client.app for client in listed if client.workload is not None]
    addresses = overlay_addresses(context, present) if present and not context.rendered and not context.check_mode else {}
    return [
        {
            "app": client.app.key,
            "workload": f"{client.key.kind}/{client.key.name}",
            "namespace": client.app.namespace,
            "gateway": client.app.vpn.gateway if client.app.vpn else "",
            "action": ACTIONS.get(client.action, client.action),
            "overlay_addresses": addresses.get(client.app.key, {}),
        }
        for client in listed
    ]


def _freed(item: Mapping[str, Any]) -> dict[str, Any]:
    key = Key.of(item)
    return {
        "app": "",
        "workload": f"{key.kind}/{key.name}",
        "namespace": key.namespace,
        "gateway": "",
        "action": "released",
        "overlay_addresses": {},
    }


def _notes(context: Context, facts: Facts, clients: Iterable[Client]) -> list[str]:
    """What does not hold, or happens besides: one sentence each."""
    notes: dict[str, None] = {}
    for client in clients:
        app = client.app
        gateway = context.topology.gateway(required(app.vpn).gateway)
        if gateway.dns == "cluster":
            notes[f"{app.key} resolves names by the cluster's DNS, outside of the VPN (dns: cluster of {gateway.name})"] = None
        if client.workload is None or client.template is None:
            notes[f"{client.key} does not exist yet: it is injected by the first run after it was created"] = None
            continue
        before = template_of(client.workload)
        for name, why in sorted(loose_containers(before).items()):
            notes[f"container {name} of {app.key} has {why}: it could undo the guard, and the policy alone holds it"] = None
        init = [item["name"] for item in before["spec"].get("initContainers") or () if item["name"] not in OUR_CONTAINERS]
        if init and not native_sidecars(facts):
            notes[f"init containers of {app.key} ({', '.join(init)}) run before its tunnel: they reach nothing outside"] = None
        if app.kind == "CronJob" and client.patch is not None:
            notes[f"a running Job of {app.key} ends as it began; the next one is guarded"] = None
        marks = [((item.get("metadata") or {}).get("annotations") or {}).get(POLICY) for item in (before, client.template)]
        if marks[0] and marks[0] != marks[1]:
            notes[
                f"the pods of {app.key} are restarted: its policy was made or changed after they started, and a policy stops new"
                " flows only"
            ] = None
    return list(notes)
