# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shows by dry runs that admission is in force: a pod that must be refused is refused, by our own policy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .._errors import NetguardError
from .._manifests import admission, names
from .._manifests.client_edges import ClientEdges
from .._manifests.model import Live, Manifest
from .._module import Context

#: A fresh policy and binding take 0.6 to 0.8 s to be in force (measured); a busy server takes longer.
PATIENCE = 60.0
PAUSE = 0.2


def prove(context: Context, live: Live, found: Sequence[ClientEdges], written: Iterable[dict[str, Any]] = ()) -> None:
    """Waits until a bad pod of each client is refused. Raises NetguardError with the last answer.

    Of clients whose admission was not written in this run (`written`: the run's objects) the first one stands for all.
    """
    fresh = {item["name"] for item in written if item["kind"] in (admission.POLICY, admission.BINDING)}
    tried = [edges for edges in found if admission.client_name(context.topology, edges.app) in fresh] or list(found[:1])
    deadline = time.monotonic() + PATIENCE
    for edges in tried:
        prove_client(context, live, edges, deadline)
    if tried and admission.protection_name(context.topology) in fresh:
        _prove_protection(context, tried[0], deadline)


def prove_client(context: Context, live: Live, edges: ClientEdges, deadline: float | None = None) -> None:
    """Waits until a dry-run pod without the guard is refused by this client's policy."""
    name = admission.client_name(context.topology, edges.app)
    pod = admission.bad_pod(edges, live)
    answer = wait_until(lambda: _try(context, "create", pod), lambda status, text: status == 403 and name in text, deadline)
    if answer is not None:
        raise NetguardError(
            f"admission of {edges.app.key} is not in force: a pod without the guard should be refused by {name}, and a dry run"
            f" answered {answer}. Nothing was injected; look at the binding's validationActions and at the API server's log"
        )


def _prove_protection(context: Context, edges: ClientEdges, deadline: float) -> None:
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": names.killswitch(edges.app), "namespace": edges.app.namespace},
    }
    name = admission.protection_name(context.topology)
    answer = wait_until(lambda: _try(context, "delete", policy), lambda status, text: status == 403 and name in text, deadline)
    if answer is not None:
        raise NetguardError(f"the kill switches are not protected: {name} should refuse their deletion, and a dry run answered {answer}")


def accepted(context: Context, pod: Manifest) -> None:
    """Waits until a dry-run pod without the guard is no longer refused by admission of this instance.

    Another reason to refuse it (a quota, a webhook) is none of ours and does not hold the removal up.
    """
    ours = f"netguard-{context.topology.instance}-"
    answer = wait_until(
        lambda: _try(context, "create", pod), lambda status, text: not (status == 403 and "ValidatingAdmissionPolicy" in text and ours in text)
    )
    if answer is not None:
        raise NetguardError(f"admission still refuses pods without the guard: {answer}. Their workload was left as it is")


def _try(context: Context, verb: str, manifest: Manifest) -> tuple[int, str]:
    assert context.cluster is not None
    status, text = context.cluster.dry_run(verb, manifest)
    return status, text


def wait_until(
    attempt: Callable[[], tuple[int, str]], good: Callable[[int, str], bool], deadline: float | None = None
) -> str | None:
    """None once an answer is good; the last answer when time is up."""
    end = time.monotonic() + PATIENCE if deadline is None else deadline
    while True:
        status, text = attempt()
        if good(status, text):
            return None
        if time.monotonic() > end:
            return f"{status}: {text}" if text else str(status)
        time.sleep(PAUSE)
