# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Brings the cluster to what is wanted: plan, waves of writes, pruning. In check mode everything is the server's dry run."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .._errors import NetguardError
from .._facts.reader import Absent, Unreadable
from .._manifests.model import LABEL_INSTANCE, LABEL_MANAGED_BY, LABEL_PART, MANAGER, Desired, Key, Live, Manifest, Patch
from . import fields, shown
from .client import Cluster
from .compare import Comparison, compare, takers
from .outcome import Action, Outcome
from .residents import foreign_resident
from .transport import ApiError

__all__ = ["Action", "Convergence", "Outcome", "converge", "is_ours", "owned"]

#: Every kind that a part may consist of: what is listed to find what is no longer wanted.
OWNED_KINDS: dict[str, tuple[tuple[str, str], ...]] = {
    "gateway": (
        ("v1", "Namespace"),
        ("v1", "Secret"),
        ("v1", "ConfigMap"),
        ("v1", "Service"),
        ("apps/v1", "Deployment"),
        ("networking.k8s.io/v1", "NetworkPolicy"),
    ),
    "client": (("v1", "ConfigMap"), ("v1", "Service")),
    "killswitch": (
        ("networking.k8s.io/v1", "NetworkPolicy"),
        ("crd.projectcalico.org/v1", "GlobalNetworkPolicy"),
        ("projectcalico.org/v3", "GlobalNetworkPolicy"),
        ("crd.projectcalico.org/v1", "Tier"),
        ("projectcalico.org/v3", "Tier"),
        ("cilium.io/v2", "CiliumNetworkPolicy"),
        ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy"),
    ),
    "admission": (
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"),
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding"),
    ),
    "segments": (
        ("networking.k8s.io/v1", "NetworkPolicy"),
        ("crd.projectcalico.org/v1", "NetworkPolicy"),
        ("projectcalico.org/v3", "NetworkPolicy"),
        ("cilium.io/v2", "CiliumNetworkPolicy"),
    ),
    "mesh": (),
}

#: More missing objects of one kind than this are looked for by one list.
MANY = 16


def normalised(manifest: Manifest) -> Manifest:
    """A Secret's stringData as data: the server keeps only that, and what it keeps is compared."""
    if manifest.get("kind") != "Secret" or "stringData" not in manifest:
        return manifest
    data = {key: base64.b64encode(str(value).encode()).decode() for key, value in manifest["stringData"].items()}
    return {
        **{key: value for key, value in manifest.items() if key != "stringData"},
        "data": {**(manifest.get("data") or {}), **data},
    }


def is_ours(live: Mapping[str, Any], instance: str, part: str) -> bool:
    """Whether an object was created whole by this part of this instance."""
    labels = (live.get("metadata") or {}).get("labels") or {}
    return bool(
        labels.get(LABEL_INSTANCE) == instance and labels.get(LABEL_PART) == part and labels.get(LABEL_MANAGED_BY) == MANAGER
    )


def made_by_us(live: Mapping[str, Any], instance: str, part: str) -> bool:
    """Whether we applied the content of an object whose owner labels somebody took off (none says that it is another's)."""
    labels = (live.get("metadata") or {}).get("labels") or {}
    if labels.get(LABEL_INSTANCE, instance) != instance or labels.get(LABEL_PART, part) != part:
        return False
    return any(field != "f:metadata" for field in fields.applied(live))


def owned(cluster: Cluster, instance: str, part: str, live: Live | None = None) -> dict[Key, Manifest]:
    """Every object of this part of this instance: of a kind that the snapshot `live` has whole from there, else by a list.

    Raises Unreadable for a kind that may not be listed.
    """
    labels = {LABEL_INSTANCE: instance, LABEL_PART: part}
    selector = ",".join(f"{name}={value}" for name, value in labels.items())

    def listed(kind: tuple[str, str]) -> Sequence[Manifest]:
        known = live.labelled(*kind, labels) if live is not None else None
        if known is not None:
            return known
        try:
            return cluster.list(*kind, label_selector=selector)
        except Absent:
            return []

    found = cluster.parallel(listed, OWNED_KINDS[part])
    return {Key.of(item): item for items in found for item in items}


class Convergence:
    """One run for one part of one instance."""

    def __init__(self, cluster: Cluster, instance: str, part: str) -> None:
        self.cluster = cluster
        self.instance = instance
        self.part = part
        self.outcome = Outcome()
        self._unborn_namespaces: dict[str, bool] = {}

    def run(self, desired: Desired, *, prune: bool, live: Live | None = None) -> Outcome:
        """Writes what differs, wave by wave, then the patches, then deletes what is no longer wanted.

        `live`: a snapshot since which nothing of this part was written; what it has is not asked for again.

        Raises NetguardError naming manager and field where another Apply manager holds one; nothing is written then. An
        error on the way carries what was written before it (`objects`).
        """
        waves = [[normalised(item) for item in wave] for wave in desired.waves]
        there = owned(self.cluster, self.instance, self.part, live)
        wanted = [item for wave in waves for item in wave]
        missing = [Key.of(item) for item in wanted if Key.of(item) not in there]
        others = self._refuse_foreign(missing, there)
        waves = [[item for item in wave if Key.of(item) not in others] for wave in waves]
        wanted = [item for item in wanted if Key.of(item) not in others]
        comparisons = {Key.of(item): compare(item, there[Key.of(item)]) for item in wanted if Key.of(item) in there}
        if prune and self.part not in ("client", "gateway"):  # these two are judged by app, before anything is released
            self._refuse_other_list(wanted, there)
        self._refuse_held(comparisons, there)
        self._settle_doubts(wanted, comparisons, there)
        new_namespaces = {Key.of(item).name for item in wanted if item["kind"] == "Namespace" and Key.of(item) not in there}
        try:
            for wave in waves:
                todo = [item for item in wave if Key.of(item) not in there or not comparisons[Key.of(item)].unchanged]
                self.outcome.unchanged += len(wave) - len(todo)
                self.cluster.parallel(lambda item: self._write(item, there, comparisons, new_namespaces), todo)
            self.cluster.parallel(self._patch, desired.patches)
            if prune:
                self._prune([found for key, found in there.items() if key not in {Key.of(item) for item in wanted}])
        except NetguardError as error:
            error.details.setdefault("changed", self.outcome.changed and not self.cluster.check_mode)
            error.details.setdefault("objects", [action.data() for action in self.outcome.actions])
            raise
        order = {Key.of(item): position for position, item in enumerate(wanted)}
        self.outcome.actions.sort(key=lambda action: order.get(action.key, len(order)))
        # what was written now is newer than what was there
        self.outcome.live = {**there, **self.outcome.live}
        return self.outcome

    def _patch(self, patch: Patch) -> None:
        self.cluster.patch(patch)
        self.outcome.patches.append(patch)

    # -- refusals, before anything is written

    def _refuse_foreign(self, missing: Iterable[Key], there: dict[Key, Manifest]) -> set[Key]:
        """An object of this name that is not ours is neither taken over nor overwritten.

        Namespaces are the exception: one that exists is used as it is. Returns those. One of ours that lost its labels by
        somebody's hand is ours still.
        """
        others: set[Key] = set()
        problems = []
        for key, live in self.cluster.parallel(self._find, self._existing(missing)):
            if live is None:
                continue
            if is_ours(live, self.instance, self.part) or made_by_us(live, self.instance, self.part):
                there[key] = live
            elif key.kind == "Namespace":
                others.add(key)
            else:
                labels = live["metadata"].get("labels") or {}
                other = labels.get(LABEL_INSTANCE)
                whose = f"belongs to the instance {other}" if other else "exists and is not ours"
                problems.append(f"{key} {whose}")
        if problems:
            raise NetguardError(
                "; ".join(problems) + ". Nothing was written: rename or delete it, or choose another name in the list.",
                conflicts=problems,
            )
        return others

    def _refuse_other_list(self, wanted: Iterable[Manifest], there: Mapping[Key, Manifest]) -> None:
        """Nothing in common with what exists: the list is another home's more often than everything was renamed at once."""
        listed = {Key.of(item) for item in wanted}
        gone = [key for key in there if key.kind != "Namespace"]
        if not listed or not gone or listed & set(there):
            return
        some = ", ".join(str(key) for key in gone[:5]) + (", ..." if len(gone) > 5 else "")
        raise NetguardError(
            f"none of the {len(gone)} objects of the instance {self.instance} ({some}) is in this list, and all of them would be "
            "deleted. Nothing was changed. If the list belongs to another home, give it an instance of its own. If everything was "
            "renamed, run once with prune: false (netguard_prune of the roles), then as before; or remove the old ones with "
            "state: absent (playbook remove).",
        )

    def _existing(self, missing: Iterable[Key]) -> list[Key]:
        """Of what is not among ours, that which may exist: for many of one kind one list of names, not a GET for each."""
        by_kind: dict[tuple[str, str], list[Key]] = {}
        for key in missing:
            by_kind.setdefault((key.api_version, key.kind), []).append(key)
        found: list[Key] = []
        for (api_version, kind), keys in by_kind.items():
            if len(keys) > MANY and kind != "Secret":
                try:
                    names = {Key.of(item) for item in self.cluster.list(api_version, kind, metadata_only=True)}
                    keys = [key for key in keys if key in names]
                except Unreadable:
                    pass  # may be read one by one all the same
            found += keys
        return found

    def _find(self, key: Key) -> tuple[Key, Manifest | None]:
        try:
            return key, self.cluster.get(key.api_version, key.kind, key.name, key.namespace)
        except Absent:
            if self.cluster.check_mode:
                return key, None
            raise

    def _settle_doubts(self, wanted: Iterable[Manifest], comparisons: dict[Key, Comparison], there: Mapping[Key, Manifest]) -> None:
        """Where only the server can tell whether it would see a difference, its dry run says so: no write for nothing."""
        doubtful = [item for item in wanted if Key.of(item) in comparisons and comparisons[Key.of(item)].only_doubts]
        for item, after in zip(
            doubtful, self.cluster.parallel(lambda item: self.cluster.apply(item, dry=True), doubtful), strict=True
        ):
            key = Key.of(item)
            if shown.meaningful(after) == shown.meaningful(there[key]):
                comparisons[key] = Comparison()

    def _refuse_held(self, comparisons: Mapping[Key, Comparison], there: Mapping[Key, Manifest]) -> None:
        problems = []
        for key, comparison in comparisons.items():
            held = takers(there[key], comparison.differing)
            problems += [
                f"{key}: the field {fields.dotted(path)} is held by {holder.manager}"
                for path, holder in held
                if holder.operation == "Apply"
            ]
            problems += [
                f"{key}: {holder.manager} added {pointer.strip('/').replace('/', '.')}"
                for pointer, holder in comparison.beside
                if holder.operation == "Apply" and not holder.ours
            ]
        if problems:
            raise NetguardError(
                "; ".join(problems) + ". Another tool applies these fields; nothing was forced and nothing was written. "
                "Take them out of that tool's manifest, or leave the object to it.",
                conflicts=problems,
            )

    # -- writes

    def _write(
        self, item: Manifest, there: Mapping[Key, Manifest], comparisons: Mapping[Key, Comparison], new_namespaces: set[str]
    ) -> None:
        key = Key.of(item)
        before = there.get(key)
        keys = tuple(sorted(item.get("data") or {})) if item["kind"] == "Secret" else ()
        if before is None:
            if self.cluster.check_mode and (self._unborn(key, new_namespaces) or _awaits_policy(item, there)):
                self.outcome.actions.append(Action(key, "created", {}, item, validated=False, keys=keys))
                return
            after = self.cluster.apply(item)
            self.outcome.live[key] = after
            self.outcome.actions.append(Action(key, "created", {}, after, keys=keys))
            return
        comparison = comparisons[key]
        taken = takers(before, comparison.differing)
        after = before
        if comparison.differing or comparison.left_over or comparison.doubtful:
            after = self._apply(item, comparison, force=bool(taken))
        if comparison.beside:
            # Positions in lists are those of now, not those before the write.
            after = self._take_out(key, compare(item, after), after)
        self.outcome.live[key] = after
        if shown.meaningful(after) == shown.meaningful(before):
            self.outcome.unchanged += 1
            return
        repaired = bool(taken or comparison.beside) or not is_ours(before, self.instance, self.part)
        self.outcome.actions.append(Action(key, "repaired" if repaired else "changed", before, after, keys=keys))

    def _apply(self, item: Manifest, comparison: Comparison, *, force: bool) -> Manifest:
        """A strict object which somebody added to may be invalid once ours is joined to it: then its spec is replaced first.

        Seen with validationActions, a set in which [Warn] and our [Deny] exclude each other.
        """
        try:
            return self.cluster.apply(item, force=force)
        except ApiError as error:
            if error.status != 422 or not comparison.beside:
                raise
        self.cluster.json_patch(Key.of(item), [{"op": "replace", "path": "/spec", "value": item["spec"]}])
        return self.cluster.apply(item, force=True)

    def _take_out(self, key: Key, comparison: Comparison, after: Manifest) -> Manifest:
        """Removes what was added beside our fields; deeper list positions first, so that they stay right."""
        pointers = sorted((pointer for pointer, _holder in comparison.beside), key=_pointer_order, reverse=True)
        operations = [{"op": "remove", "path": pointer} for pointer in pointers if _exists(after, pointer)]
        return self.cluster.json_patch(key, operations) if operations else after

    def _unborn(self, key: Key, new_namespaces: set[str]) -> bool:
        """Whether this run would create the namespace (or the kind) first: a dry run cannot know it."""
        if key.namespace in new_namespaces:
            return True
        if not self.cluster.serves(key.api_version, key.kind):
            return True
        if not key.namespace:
            return False
        if key.namespace not in self._unborn_namespaces:
            try:
                missing = self.cluster.get("v1", "Namespace", key.namespace) is None
            except Unreadable:
                missing = False
            self._unborn_namespaces[key.namespace] = missing
        return self._unborn_namespaces[key.namespace]

    # -- pruning

    def _prune(self, gone: list[Manifest]) -> None:
        """Deletes what is ours and no longer wanted; namespaces last, and only when nobody else lives there."""
        ours = [item for item in gone if is_ours(item, self.instance, self.part)]
        plain = [item for item in ours if item["kind"] != "Namespace"]
        # Default denies go before allowances, so that nothing declared is cut on the way.
        denials = [item for item in plain if item["kind"] == "NetworkPolicy" and _allows_nothing(item["spec"])]
        for group in (denials, [item for item in plain if item not in denials]):
            self.cluster.parallel(self._delete, group)
        for item in ours:
            if item["kind"] == "Namespace":
                self._delete_namespace(item)

    def _delete(self, item: Manifest) -> None:
        key = Key.of(item)
        if self.cluster.delete(key, uid=item["metadata"]["uid"]):
            self.outcome.actions.append(Action(key, "deleted", item, {}))

    def _delete_namespace(self, item: Manifest) -> None:
        """A namespace in which others live is given up instead: it loses our labels, and is never ours again."""
        key = Key.of(item)
        resident = foreign_resident(self.cluster, key.name, self.instance)
        if resident is None:
            self._delete(item)
            return
        after = item
        if resident.certain:
            after = self.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": key.name}})
        self.outcome.actions.append(Action(key, "kept", item, after, reason=resident.text))


def _awaits_policy(item: Manifest, there: Mapping[Key, Manifest]) -> bool:
    """Whether this is a binding with parameters of an admission policy that this run would create first.

    The server looks the policy up to see which rights the caller needs, and asks for all there are where it finds none.
    """
    if item["kind"] != "ValidatingAdmissionPolicyBinding" or "paramRef" not in item["spec"]:
        return False
    return Key(item["apiVersion"], "ValidatingAdmissionPolicy", "", item["spec"]["policyName"]) not in there


def _allows_nothing(spec: Mapping[str, Any]) -> bool:
    """A default deny: it is about every pod of its namespace. The one policy of a namespace (`layout: namespace`) has rules."""
    return spec.get("podSelector") == {} and not spec.get("ingress") and not spec.get("egress")


def _pointer_order(pointer: str) -> tuple[tuple[int, str], ...]:
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in pointer.split("/"))


def _exists(manifest: Any, pointer: str) -> bool:
    value = manifest
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        elif isinstance(value, Mapping) and name in value:
            value = value[name]
        else:
            return False
    return True


def converge(
    cluster: Cluster, desired: Desired, *, instance: str, part: str, prune: bool = True, live: Live | None = None
) -> Outcome:
    """Brings one part of one instance to what is wanted; `live` as in `Convergence.run`."""
    try:
        return Convergence(cluster, instance, part).run(desired, prune=prune, live=live)
    except ApiError as error:
        if error.status != 409 or not error.causes:
            raise
        listed = "; ".join(str(cause.get("message") or cause.get("field")) for cause in error.causes)
        raise NetguardError(f"{error}: {listed}. Nothing was forced.", conflicts=[str(cause) for cause in error.causes]) from None
