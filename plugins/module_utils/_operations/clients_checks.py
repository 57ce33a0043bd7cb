# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is asked of the live cluster before a client is patched: is it closed, would its pod be admitted, whose are the fields."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .._audit import reopen
from .._cluster import fields
from .._cluster.compare import compare
from .._cluster.transport import ApiError
from .._errors import Fault, required
from .._facts.model import Facts
from .._facts.reader import Unreadable
from .._manifests import client_settings, killswitch, names
from .._manifests.client import Client, pod_of
from .._manifests.client_guard import GUARD
from .._manifests.client_patch import TEMPLATE_PATHS
from .._manifests.client_template import DNS_CAPTURE, OUR_CONTAINERS
from .._manifests.model import Live, Manifest
from .._manifests.workloads import template_of
from .._module import Context
from .._topology.model import Topology
from . import killswitch_proof


def path_of(topology: Topology, client: Client) -> str:
    return f"apps[{topology.position(client.app)}]"


def not_closed(context: Context, facts: Facts, live: Live, clients: Sequence[Client]) -> list[Fault]:
    """Clients without a kill switch in force: the policy that this topology asks for is live, and nothing opens it again.

    In check mode a policy that is missing or differs is no fault: killswitch_policy would have written it before.
    """
    topology = context.topology
    planned: tuple[Manifest, ...] = ()
    if context.check_mode:
        planned = killswitch.build(topology, facts, live, clients=[client.app for client in clients]).desired.objects
    openings = reopen.reopened_by(topology, facts, live, planned)
    faults: list[Fault] = []
    for client in clients:
        app, path = client.app, f"{path_of(topology, client)}.vpn"
        wanted = killswitch.network_policy(topology, facts, client.edges)
        found = live.get("NetworkPolicy", app.namespace, names.killswitch(app))
        if not context.check_mode and (found is None or not compare(wanted, found).unchanged):
            state = "has no kill switch" if found is None else "has a kill switch that differs from what its declaration asks for"
            faults.append(Fault(path, f"{app.key} {state}", "run homelab.netguard.killswitch_policy with the same lists first"))
        for item in openings:
            if item["client"] == app.key and item["effective"]:
                faults.append(
                    Fault(
                        path,
                        f"{reopen.told(item)} lets {app.key} out beside its kill switch: {item['reason']}",
                        "exclude the client's pods from that policy by label, or narrow the rule",
                    )
                )
    return faults


def not_ready(context: Context, facts: Facts, live: Live, clients: Iterable[Client]) -> list[Fault]:
    """What a rollout would wait for in vain, and a gateway that is not there."""
    faults: list[Fault] = []
    for client in clients:
        path = path_of(context.topology, client)
        missing = client_settings.unready(context.topology, facts, live, client.app)
        if missing and not context.check_mode:
            faults.append(Fault(f"{path}.vpn.gateway", missing, "run homelab.netguard.vpn_gateway first"))
        spec = (client.workload or {}).get("spec") or {}
        if client.patch is not None and client.app.kind == "Deployment" and spec.get("paused"):
            faults.append(
                Fault(
                    f"{path}.workload",
                    f"{client.key} is paused: its pods would go on without the guard",
                    f"kubectl -n {client.app.namespace} rollout resume deployment {client.key.name}",
                )
            )
        partition = ((spec.get("updateStrategy") or {}).get("rollingUpdate") or {}).get("partition") or 0
        if client.patch is not None and client.app.kind == "StatefulSet" and partition:
            faults.append(
                Fault(
                    f"{path}.workload",
                    f"the partition {partition} of {client.key} keeps pods of the old revision, without the guard",
                    "set updateStrategy.rollingUpdate.partition: 0",
                )
            )
    return faults


def held_fields(topology: Topology, clients: Iterable[Client]) -> list[Fault]:
    """Fields that the injection would change and that another server-side-apply manager holds: never forced."""
    faults: list[Fault] = []
    for client in clients:
        if client.workload is None or client.template is None or client.patch is None:
            continue
        before, after = template_of(client.workload), client.template
        for holder in fields.holders(client.workload):
            if holder.operation != "Apply" or holder.ours:
                continue
            for field, value in _changed(before, after, _below(holder.tree, TEMPLATE_PATHS[client.app.kind])):
                faults.append(
                    Fault(
                        f"{path_of(topology, client)}.workload",
                        f"the field {field} of {client.key} is held by {holder.manager}, and the injection needs {value}",
                        f"set it so in what {holder.manager} applies, or take it out of there; nothing was forced",
                    )
                )
    return faults


def _below(tree: Any, path: Iterable[str]) -> Mapping[str, Any]:
    for key in path:
        tree = tree.get(f"f:{key}") if isinstance(tree, Mapping) else None
    return tree if isinstance(tree, Mapping) else {}


def _changed(before: Manifest, after: Manifest, tree: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    spec = _below(tree, ("spec",))
    for field in ("dnsPolicy", "dnsConfig"):
        if f"f:{field}" in spec and before["spec"].get(field) != after["spec"].get(field):
            value = after["spec"].get(field)
            yield f"spec.template.spec.{field}", "it unset" if value is None else str(value)
    if f"f:{DNS_CAPTURE}" in _below(tree, ("metadata", "annotations")):
        old, new = (((item.get("metadata") or {}).get("annotations") or {}).get(DNS_CAPTURE) for item in (before, after))
        if old != new:
            yield f"spec.template.metadata.annotations[{DNS_CAPTURE}]", str(new)
    for kind in ("initContainers", "containers"):
        old_items = {item["name"]: item for item in before["spec"].get(kind) or ()}
        for item in after["spec"].get(kind) or ():
            name = item["name"]
            if name in OUR_CONTAINERS or item == old_items.get(name):
                continue
            entry = _below(spec, (kind,)).get(f'k:{{"name":"{name}"}}')
            if "f:drop" in _below(entry, ("securityContext", "capabilities")):
                yield f"spec.template.spec.{kind}[{name}].securityContext.capabilities.drop", "NET_RAW in it"


def not_admitted(context: Context, clients: Iterable[Client], notes: list[str], skip: Iterable[str] = ()) -> list[Fault]:
    """Dry-run CREATE of each resulting pod: foreign webhooks, Pod Security and quotas show before anything is written.

    `skip`: namespaces whose Pod Security level this run would change (check mode).
    """
    skipped = set(skip)
    todo = [item for item in clients if item.patch is not None and item.workload is not None and item.app.namespace not in skipped]
    answers = context.online.parallel(lambda client: _admitted(context, client), todo)
    faults: list[Fault] = []
    for client, text in zip(todo, answers, strict=True):
        if not text:
            continue
        if "exceeded quota" in text and _replaces(client.workload or {}):
            # the pod that it replaces frees what it takes; only the added containers' share may be missing
            notes.append(f"{client.app.key}: one pod more than now would not fit the quota: {text}")
            continue
        hint = "nothing was patched; let it in, or exclude the workload from what refuses it"
        faults.append(Fault(f"{path_of(context.topology, client)}.workload", f"the guarded pod of {client.key} {text}", hint))
    return faults


def _admitted(context: Context, client: Client) -> str:
    template = required(client.template)
    pod = pod_of(required(client.workload), template)
    end = time.monotonic() + killswitch_proof.PATIENCE
    while True:
        try:
            made = context.online.dry_run_object(pod)
            break
        except ApiError as error:
            ours = by_our_admission(context, error)
            if ours and context.check_mode:
                return ""
            # a policy that was changed just now takes a moment to know the new guard
            if not ours or time.monotonic() > end:
                return f"would be refused: {error.server_message}"
            time.sleep(killswitch_proof.PAUSE)
        except Unreadable as error:
            return f"cannot be tried: {error}"
    init = (made.get("spec") or {}).get("initContainers") or [{}]
    if init[0].get("name") != GUARD:
        return f"would start with {init[0].get('name', 'no init container')} instead of the guard: an admission webhook changes it"
    wanted = template["spec"]["initContainers"][0]
    if any(init[0].get(key) != wanted[key] for key in ("image", "command")):
        return "would start with another guard: an admission webhook changes its image or command"
    return ""


def by_our_admission(context: Context, error: ApiError) -> bool:
    """Whether it was a policy of this instance that refused."""
    return error.status == 403 and f"ValidatingAdmissionPolicy 'netguard-{context.topology.instance}-" in error.server_message


def _replaces(workload: Mapping[str, Any]) -> bool:
    strategy = ((workload.get("spec") or {}).get("strategy") or {}).get("type")
    return workload["kind"] in ("StatefulSet", "DaemonSet") or strategy == "Recreate"
