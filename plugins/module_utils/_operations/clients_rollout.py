# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waits for rollouts of clients, lets stuck ones go on, and tells which pod has which overlay address."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .._cluster.wait import Goal, wait
from .._errors import NetguardError
from .._facts.reader import Unreadable
from .._manifests.client_rollout import guarded, outdated_pods, rolled_out, stuck_pods
from .._manifests.model import LABEL_CLIENT, LABEL_INSTANCE, Key, Manifest
from .._manifests.workloads import labels_of, template_of
from .._module import Context
from .._overlay.settings import derived_address
from .._topology.model import App

Missing = tuple[bool, str]


@dataclass
class Rollouts:
    """`restarted` collects the pods that were deleted so that a rollout could go on."""

    context: Context
    restarted: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def told(self) -> list[str]:
        """What happened on the way, one sentence each."""
        listed = ", ".join(self.restarted)
        return [*self.notes, *([f"deleted so that their workload could roll: {listed}"] if listed else [])]

    def wait(self, workloads: Iterable[Manifest], *, guard: bool) -> None:
        """Until each workload's pods are those of its template, which has (or no longer has) the guard first.

        Raises NetguardError that says what each one waited for.
        """
        goals = [self._goal(item, guard) for item in workloads]
        if goals:
            wait(self.context.online, goals, self.context.deadline)

    def unguarded(self, workloads: Iterable[Manifest]) -> list[Manifest]:
        """Waits until no pod of these workloads has the guard any more: policies may go only then. Raises NetguardError.

        Returns the CronJobs whose Jobs still run: they end by themselves, and are not waited for.
        """
        running: list[Manifest] = []
        for item in workloads:
            if item["kind"] == "CronJob":
                running += [item] if self._guarded_pods(item) else []
                continue
            while names := self._guarded_pods(item):
                if self.context.deadline.passed:
                    raise NetguardError(f"{Key.of(item)} was released, but pods with the guard still run: {', '.join(names)}")
                time.sleep(min(0.5, self.context.deadline.left()))
        return running

    def forget(self, workloads: Iterable[Manifest]) -> list[Manifest]:
        """Deletes the workloads' history that is still injected, and returns it: a roll-back to it would be a broken client.

        Such revisions carry our labels, since a controller copies its template's. What may not be deleted stays.
        """
        uids = {item["metadata"]["uid"]: item for item in workloads}
        mine = f"{LABEL_INSTANCE}={self.context.topology.instance}"
        gone: list[Manifest] = []
        for kind in ("ReplicaSet", "ControllerRevision"):
            for namespace in sorted({item["metadata"]["namespace"] for item in uids.values()}):
                try:
                    found = self.context.online.list("apps/v1", kind, namespace, label_selector=mine)
                    for item in found:
                        owners = {owner.get("uid") for owner in item["metadata"].get("ownerReferences") or ()}
                        used = (item.get("spec") or {}).get("replicas") or (item.get("status") or {}).get("replicas")
                        if (
                            owners & set(uids)
                            and not used
                            and self.context.online.delete(Key.of(item), uid=item["metadata"]["uid"])
                        ):
                            gone.append(item)
                except NetguardError:
                    continue
        return gone

    def _guarded_pods(self, workload: Manifest) -> list[str]:
        namespace = workload["metadata"]["namespace"]
        pods = self.context.online.list("v1", "Pod", namespace, label_selector=selector_text(workload))
        done = ("Succeeded", "Failed")
        return [
            pod["metadata"]["name"] for pod in pods if guarded(pod["spec"]) and (pod.get("status") or {}).get("phase") not in done
        ]

    def _goal(self, workload: Manifest, guard: bool) -> Goal:
        return Goal(Key.of(workload), _done(guard), selector_text(workload), self._go_on)

    def _go_on(self, workload: Mapping[str, Any]) -> None:
        """Deletes pods that the controller would wait for forever, and with OnDelete the next one of an older template."""
        on_delete = (workload["spec"].get("updateStrategy") or {}).get("type") == "OnDelete"
        if workload["kind"] != "StatefulSet" and not on_delete:
            return
        key = Key.of(workload)
        try:
            pods = self.context.online.list("v1", "Pod", key.namespace, label_selector=selector_text(workload))
        except Unreadable:
            return
        for pod in outdated_pods(workload, pods) if on_delete else stuck_pods(workload, pods):
            meta = pod["metadata"]
            if self.context.online.delete(Key("v1", "Pod", key.namespace, meta["name"]), uid=meta.get("uid", "")):
                self.restarted.append(f"{key.namespace}/{meta['name']}")


def _done(guard: bool) -> Callable[[Mapping[str, Any] | None], Missing]:
    def judge(found: Mapping[str, Any] | None) -> Missing:
        if found is None:
            return not guard, "it was deleted meanwhile"
        if guarded(template_of(found)["spec"]) is not guard:
            return False, "somebody took the guard out of it" if guard else "somebody put the guard back"
        return rolled_out(found)

    return judge


def selector_text(workload: Mapping[str, Any]) -> str:
    """The workload's selector as a query; a CronJob's pods are found by its template's labels."""
    if workload["kind"] == "CronJob":
        labels = {key: value for key, value in labels_of(template_of(workload)).items() if not key.startswith("homelab.netguard/")}
        return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    selector = workload["spec"].get("selector") or {}
    parts = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for item in selector.get("matchExpressions") or ():
        key, values = item["key"], ",".join(item.get("values") or ())
        known = {"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": key, "DoesNotExist": f"!{key}"}
        parts.append(known[item["operator"]])
    return ",".join(parts)


def overlay_addresses(context: Context, apps: Iterable[App]) -> dict[str, dict[str, str]]:
    """By app key and pod name: the address on the overlay. Empty where pods may not be read."""
    found: dict[str, dict[str, str]] = {app.key: {} for app in apps}
    by_place = {(app.namespace, app.workload or app.name, app.kind): app for app in apps}
    selector = f"{LABEL_INSTANCE}={context.topology.instance},{LABEL_CLIENT}"
    try:
        pods = context.online.list("v1", "Pod", label_selector=selector)
    except Unreadable:
        return found
    for pod in pods:
        app = by_place.get(_owner(pod))
        addresses = [item["ip"] for item in (pod.get("status") or {}).get("podIPs") or ()]
        if app is None or app.vpn is None or not addresses or not guarded(pod["spec"]):
            continue
        network = context.topology.gateway(app.vpn.gateway).overlay.network
        found[app.key][pod["metadata"]["name"]] = str(derived_address(ipaddress.ip_address(addresses[0]), network))
    return found


def _owner(pod: Mapping[str, Any]) -> tuple[str, str, str]:
    """(namespace, name, kind) of the workload: a ReplicaSet's name is the Deployment's and a hash, a Job's the CronJob's."""
    meta = pod["metadata"]
    for owner in meta.get("ownerReferences") or ():
        kind, name = owner["kind"], owner["name"]
        if kind in ("ReplicaSet", "Job"):
            return meta["namespace"], name.rpartition("-")[0], {"ReplicaSet": "Deployment", "Job": "CronJob"}[kind]
        return meta["namespace"], name, kind
    return meta["namespace"], "", ""
