# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shows by dry runs that admission is in force: a pod that must be refused is refused, by our own policy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from .._cluster.converge import Action
from .._cluster.transport import missing_right
from .._errors import NetguardError
from .._manifests import admission, names
from .._manifests.client_edges import ClientEdges
from .._manifests.client_guard import GUARD
from .._manifests.images import Images
from .._manifests.killswitch_held import guarded
from .._manifests.model import Key, Live, Manifest, Patch
from .._manifests.workloads import template_of, workload
from .._module import Context

#: A fresh policy and binding take 0.6 to 0.8 s to be in force (measured). Where a thousand are written at once it takes minutes
#: on a small server, but some come into force every few seconds: patience counts from the last of them.
PATIENCE = 60.0
#: The protection was seen in force by then, for NetworkPolicies.
DENY_PATIENCE = 10.0
PAUSE = 0.2
#: What a pause grows to: each attempt costs the server an evaluation of every policy of the namespace.
LONG_PAUSE = 2.0

Answer = tuple[int, str]


class Patience:
    """How long to go on trying; for everything that is proven side by side together. Each success renews it."""

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = PATIENCE if seconds is None else seconds
        self.renew()

    def renew(self) -> None:
        self.end = time.monotonic() + self.seconds

    @property
    def over(self) -> bool:
        return time.monotonic() > self.end


def prove(
    context: Context, live: Live, found: Sequence[ClientEdges], written: Iterable[Action], images: Images | None = None
) -> list[str]:
    """Waits until a bad pod of each client is refused; returns the clients (`namespace/app`) for which that was shown.

    Of clients whose admission was not written in this run the first one stands for all. Raises NetguardError with the last
    answer.
    """
    fresh = {action.key.name: action.action for action in written if action.key.kind in (admission.POLICY, admission.BINDING)}
    written_now = [edges for edges in found if any(name in fresh for name in admission.client_names(context.topology, edges.app))]
    tried = written_now or list(found[:1])
    patience = Patience()

    def one(edges: ClientEdges) -> None:
        # a binding that was not there before has no former version; what the policy itself accepts, one client shows for all
        bindings = admission.client_names(context.topology, edges.app)
        former = edges is tried[0] or any(fresh.get(name, "created") != "created" for name in bindings)
        prove_client(context, live, edges, images, patience, former=former)

    context.online.parallel(one, tried)
    if tried and admission.protection_name(context.topology) in fresh:
        _prove_protection(context, tried[0], patience)
    return [edges.app.key for edges in tried]


def prove_client(
    context: Context,
    live: Live,
    edges: ClientEdges,
    images: Images | None = None,
    patience: Patience | None = None,
    *,
    former: bool = True,
) -> None:
    """Waits until a dry-run pod without the guard is refused by this client's policy.

    With `former` something else was in force before, which may refuse that pod just as well: then one with the guard must not be
    refused by it, and one whose guard has another ConfigMap's scripts must be refused. Where the workload has its guard already,
    taking it away must be refused too. Raises NetguardError with the last answer.
    """
    prove_refused(context, live, edges, patience)
    name, of_workload = map(_binding, admission.client_names(context.topology, edges.app))
    if former:
        good = admission.good_pod(context.topology, context.facts(), edges, live, images)
        answer = wait_until(lambda: context.online.dry_run("CREATE", good), lambda status, text: name not in text, patience)
        if answer:
            raise NetguardError(f"admission of {edges.app.key} still refuses the guard itself: {answer}. Nothing was injected")
        tampered = admission.tampered_pod(context.topology, context.facts(), edges, live, images)
        # by whomever: Pod Security speaks first where it takes no guard at all
        answer = wait_until(lambda: context.online.dry_run("CREATE", tampered), lambda status, text: status == 403, patience)
        if answer:
            raise NetguardError(
                f"admission of {edges.app.key} is not in force: {name} should refuse a guard whose scripts are another ConfigMap's,"
                f" and a dry run answered {answer}. Nothing was injected"
            )
    taking = _guard_taken(edges, live)
    if taking is not None:
        answer = wait_until(
            lambda: context.online.dry_run_patch(taking), lambda status, text: status == 403 and of_workload in text, patience
        )
        if answer:
            raise NetguardError(
                f"admission of {edges.app.key} is not in force: {of_workload} should refuse a workload whose guard is taken away,"
                f" and a dry run answered {answer}"
            )


def prove_refused(context: Context, live: Live, edges: ClientEdges, patience: Patience | None = None) -> None:
    """The first part of it: waits until a dry-run pod without the guard is refused by this client's policy."""
    name, bad = _binding(admission.client_name(context.topology, edges.app)), admission.bad_pod(edges, live)
    answer = wait_until(
        lambda: context.online.dry_run("CREATE", bad), lambda status, text: status == 403 and name in text, patience
    )
    if answer:
        raise NetguardError(
            f"admission of {edges.app.key} is not in force: {name} should refuse a pod without the guard, and a dry run answered"
            f" {answer}. Nothing was injected; look at it, and at the status of its ValidatingAdmissionPolicy"
        )


def _binding(name: str) -> str:
    """How the API server's refusal names a binding."""
    return f"binding '{name}'"


def _guard_taken(edges: ClientEdges, live: Live) -> Patch | None:
    """A patch that takes the guard out of the live workload, None where it has none yet."""
    found = workload(edges.app, live)
    if found is None or not guarded(template_of(found)):
        return None
    pod = {"template": {"spec": {"initContainers": [{"$patch": "delete", "name": GUARD}]}}}
    return Patch(Key.of(found), {"spec": {"jobTemplate": {"spec": pod}} if edges.app.kind == "CronJob" else pod})


def _prove_protection(context: Context, edges: ClientEdges, patience: Patience) -> None:
    policy: Manifest = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": names.killswitch(edges.app), "namespace": edges.app.namespace},
    }
    name = admission.protection_name(context.topology)
    answer = _deletion_goes(context, policy, name, patience)
    if answer:
        raise NetguardError(
            f"the kill switches are not protected: {name} should refuse their deletion, and a dry run answered {answer}"
        )


def kinds_of(objects: Iterable[Manifest]) -> list[Manifest]:
    """The first object of each API and kind other than NetworkPolicy: the hard denies, one for all of its kind."""
    found: dict[tuple[str, str], Manifest] = {}
    for item in objects:
        found.setdefault((item["apiVersion"], item["kind"]), item)
    return [item for (_api, kind), item in found.items() if kind != "NetworkPolicy"]


def unprotected(context: Context, denies: Iterable[Manifest], written: Iterable[Action]) -> list[str]:
    """Tries to delete a hard deny of each kind, where the protection was written in this run; a sentence for each that could go.

    No error: an API that another server serves (Calico's own) may know nothing of admission policies, and the deny holds packets
    all the same.
    """
    name = admission.protection_name(context.topology)
    if not any(action.key.name == name for action in written):
        return []
    said = []
    for deny in kinds_of(denies):
        try:
            answer = _deletion_goes(context, deny, name, Patience(DENY_PATIENCE))
        except NetguardError as error:
            said.append(f"whether {deny['kind']} ({deny['apiVersion']}) is protected against deletion is not known: {error}")
            continue
        if answer:
            said.append(
                f"{deny['kind']} ({deny['apiVersion']}) is not protected against deletion: {name} should refuse it, and a dry run"
                f" answered {answer}"
            )
    return said


def _deletion_goes(context: Context, item: Manifest, policy: str, patience: Patience) -> str:
    """Empty once `policy` refuses the deletion of an object in a dry run, else the last answer."""
    return wait_until(
        lambda: context.online.dry_run("DELETE", item), lambda status, text: status == 403 and policy in text, patience
    )


def accepted(context: Context, pod: Manifest) -> None:
    """Waits until a dry-run pod without the guard is no longer refused by admission of this instance.

    Another reason to refuse it (a quota, a webhook) is none of ours and does not hold the removal up.
    """
    ours = f"ValidatingAdmissionPolicy 'netguard-{context.topology.instance}-"
    answer = wait_until(lambda: context.online.dry_run("CREATE", pod), lambda status, text: not (status == 403 and ours in text))
    if answer:
        raise NetguardError(f"admission still refuses pods without the guard: {answer}. Their workload was left as it is")


def wait_until(attempt: Callable[[], Answer], good: Callable[[int, str], bool], patience: Patience | None = None) -> str:
    """Empty once an answer is good; the last answer when time is up."""
    patience = patience or Patience()
    pause = PAUSE
    while True:
        status, text = attempt()
        if good(status, text):
            patience.renew()
            return ""
        right = missing_right(text) if status == 403 and "ValidatingAdmissionPolicy" not in text else ""
        if right:
            raise NetguardError(f"the proof is a dry run and needs its right all the same: {right}")
        if patience.over:
            return f"{status}: {text}" if text else str(status)
        time.sleep(pause)
        pause = min(LONG_PAUSE, pause * 1.3)
