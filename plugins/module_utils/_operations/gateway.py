# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Gateways: the credentials first (their revision rolls the pods), then all else, then the wait for the tunnels."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from .._argspec import FACTS, IMAGES, TOPOLOGY, WAIT, WRITER, ArgumentSpec
from .._cluster.client import Read
from .._cluster.converge import Action, Outcome, is_ours
from .._cluster.wait import Goal, wait
from .._errors import NetguardError
from .._facts.model import Facts
from .._manifests import client as clients
from .._manifests import gateway as builder
from .._manifests import gateway_credentials, names
from .._manifests.client_patch import API_VERSIONS
from .._manifests.client_rollout import rolled_out
from .._manifests.gateway_checks import notes as cluster_notes
from .._manifests.gateway_pod import GLUETUN, PodOptions
from .._manifests.gateway_policy import client_namespaces, vpn_port
from .._manifests.gluetun_case import Case
from .._manifests.gluetun_env import tunnel_mtu
from .._manifests.gluetun_faults import advise
from .._manifests.images import Images
from .._manifests.model import LABEL_GATEWAY, LABEL_INSTANCE, LABEL_PART, Desired, Key, Live, Manifest
from .._module import Context
from .._topology.model import Gateway, Topology

SPEC = TOPOLOGY.merge(
    FACTS,
    WRITER,
    WAIT,
    IMAGES,
    ArgumentSpec(
        {
            # the one option with secrets: apart from the list, so that masking them leaves the rest readable
            "credentials": {"type": "dict", "default": {}, "no_log": True},
            "resources": {"type": "dict", "default": {}},
            "tun": {"type": "str", "default": "auto"},
            "manage_pod_security": {"type": "bool", "default": False},
        }
    ),
)

#: How Gluetun reports the address from which the tunnel is seen.
_EXIT = re.compile(r"Public IP address is ([0-9A-Fa-f:.]+)")


def operation(context: Context) -> dict[str, Any]:
    """Creates, changes, renders or removes the gateways; the result of the module."""
    if context.state == "absent":
        return _removed(context).result()
    topology, params = context.topology, context.params
    if not topology.gateways:
        context.refuse_empty("gateways", builder.PART)
    given = _given(params)
    options = PodOptions(Images.of(params["images"]), params["resources"] or {}, params["tun"])
    facts = context.facts()
    live = context.read(reads(topology))
    there = _deployments(context)
    _refuse_other_list(context, there)
    how = {
        "given": given,
        "options": options,
        "complete": not context.rendered,
        "manage_pod_security": params["manage_pod_security"],
    }
    credentials = builder.judge(topology, facts, live, **how)
    only = _chosen(context)
    subset = replace(topology, gateways=tuple(gateway for gateway in topology.gateways if gateway.name in only))
    outcome, live, pending = _credentials_first(context, subset, live, given)
    desired = builder.build(topology, facts, live, only=only, pending=pending, **how)
    outcome.add(_converged(context, desired, there))
    if context.waits:
        _wait(context, subset)
    cases = [case for case in builder.gateway_cases(topology, facts, credentials, options) if case.gateway.name in only]
    return {
        **outcome.result(),
        "gateways": [_described(context, facts, live, case, changed=outcome.changed) for case in cases],
        "notes": _notes(context, topology, facts, credentials, options),
    }


def _refuse_other_list(context: Context, there: list[Manifest]) -> None:
    """Raises NetguardError when no gateway that is there is in the list: another home's, unless a client of it is known here.

    A client tells a renamed gateway from another list: it stays closed until it is moved.
    """
    topology = context.topology
    if not there or not context.prune or {Key.of(item) for item in there} & {_deployment(gateway) for gateway in topology.gateways}:
        return
    mine = f"{LABEL_INSTANCE}={topology.instance},{LABEL_PART}={clients.PART}"
    configs = context.read([Read("v1", "ConfigMap", label_selector=mine, optional=False)])
    if clients.known(topology.instance, configs) & {app.key for app in topology.clients}:
        return
    some = ", ".join(str(Key.of(item)) for item in there[:5])
    raise NetguardError(
        f"none of the gateways of the instance {topology.instance} ({some}) is in the list, nor is a client that it has injected,"
        " and all of them would be deleted. Nothing was changed. If the list belongs to another home, give it an instance of its"
        " own; if the gateways were renamed, run once with prune: false (netguard_prune of the roles), then as before; to remove"
        " them, run with state: absent (playbook remove)"
    )


def _deployments(context: Context) -> list[Manifest]:
    """The gateways that are there; none when rendering."""
    if context.rendered:
        return []
    instance = context.topology.instance
    selector = f"{LABEL_INSTANCE}={instance},{LABEL_PART}={builder.PART}"
    listed = context.online.list("apps/v1", "Deployment", label_selector=selector)
    return [item for item in listed if is_ours(item, instance, builder.PART)]


def _removed(context: Context) -> Outcome:
    outcome = _converged(context, Desired(), _deployments(context))
    ending = [action.key for action in outcome.actions if action.key.kind == "Namespace" and action.action == "deleted"]
    if context.waits and ending:
        wait(context.online, [Goal(key, _ended) for key in ending], context.deadline)
    return outcome


def _converged(context: Context, desired: Desired, there: list[Manifest]) -> Outcome:
    """Writes, and prunes so that the pod of a gateway that is no longer wanted ends before its policy goes.

    `there`: the Deployments of ours that are live. In check mode the pruning lists them itself.
    """
    wanted = {Key.of(item) for item in desired.objects}
    gone = [item for item in there if Key.of(item) not in wanted] if context.prune and not context.check_mode else []
    if not gone:
        return context.converge(desired, part=builder.PART)
    kept = len(context.manifests)
    outcome = context.converge(desired, part=builder.PART, prune=False)
    outcome.add(_retire(context, gone))
    del context.manifests[kept:]  # the next step has them again
    rest = context.converge(desired, part=builder.PART)
    rest.unchanged = 0
    return outcome.add(rest)


def _ended(found: Mapping[str, Any] | None) -> tuple[bool, str]:
    """A namespace that is still going would refuse what the next run writes into it."""
    return found is None, "it is still being deleted"


def _given(params: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The option `credentials`. Raises NetguardError without showing what stands there."""
    given = params["credentials"] or {}
    for name, values in given.items():
        if not isinstance(values, Mapping) or not all(isinstance(value, (str, int)) for value in values.values()):
            raise NetguardError(f"credentials.{name} is no dictionary of credential and text")
    return {str(name): {str(key): str(value) for key, value in values.items()} for name, values in given.items()}


def reads(topology: Topology) -> list[Read]:
    """Namespaces and Secrets by name (no list of Secrets), and the workloads of apps with forwards."""
    namespaces = {gateway.namespace for gateway in topology.gateways} | {app.namespace for app in topology.clients}
    secrets = [Read("v1", "Secret", gateway.namespace, names.gateway_secret(gateway)) for gateway in topology.gateways]
    workloads = [
        Read(API_VERSIONS[app.kind], app.kind, app.namespace, app.workload or app.name)
        for app in topology.clients
        if app.vpn and (topology.gateway(app.vpn.gateway).overlay.scripts == "image" or (app.pods is None and app.vpn.forward))
    ]
    return [*(Read("v1", "Namespace", name=name) for name in sorted(namespaces)), *secrets, *workloads]


def _chosen(context: Context) -> frozenset[str]:
    """The gateways of the apps that `only` names; every gateway without it."""
    if not context.only:
        return frozenset(gateway.name for gateway in context.topology.gateways)
    return frozenset(app.vpn.gateway for app in context.chosen(context.topology.clients) if app.vpn)


def _credentials_first(
    context: Context, topology: Topology, live: Live, given: gateway_credentials.Given
) -> tuple[Outcome, Live, list[tuple[str, str]]]:
    """Writes the Secrets that differ (and their namespaces), since their new revisions are part of the pods.

    Returns what was done, the snapshot with the Secrets as they are now, and in check mode which of them would have changed.
    """
    wanted = builder.secrets(topology, given)
    differing = [item for item in wanted if (live.get(*_place(item)) or {}).get("data") != item["data"]]
    if context.rendered or not differing:
        return Outcome(), live, []
    shown, kept = len(context.diffs), len(context.manifests)
    outcome = context.converge(builder.groundwork(topology, live, given), part=builder.PART, prune=False)
    del context.manifests[kept:]  # the second step has them again
    if context.check_mode:
        del context.diffs[shown:]
        return Outcome(), live, [_place(item)[1:] for item in differing]
    found = context.read([Read("v1", *_place(item)) for item in differing])
    fresh = {Key.of(item): item for item in (*live.objects, *found.objects)}
    outcome.unchanged = -len(outcome.actions)  # the second step finds them unchanged
    return outcome, Live(tuple(fresh.values()), {**live.unreadable, **found.unreadable}), []


def _place(item: Manifest) -> tuple[str, str, str]:
    return item["kind"], item["metadata"]["namespace"], item["metadata"]["name"]


def _retire(context: Context, gone: list[Manifest]) -> Outcome:
    """Deletes Deployments and waits for the end of their pods. Raises NetguardError when they do not end; the policies stay."""
    cluster, instance = context.online, context.topology.instance
    outcome = Outcome()
    for item in gone:
        if cluster.delete(Key.of(item), uid=item["metadata"]["uid"]):
            outcome.actions.append(Action(Key.of(item), "deleted", item, {}))
    context.diffs += outcome.diff()
    for item in gone if context.waits else ():
        meta = item["metadata"]
        pods = f"{LABEL_INSTANCE}={instance},{LABEL_GATEWAY}={meta['labels'].get(LABEL_GATEWAY, '')}"
        while cluster.list("v1", "Pod", meta["namespace"], label_selector=pods):
            if context.deadline.passed:
                text = f"the pod of {Key.of(item)} has not ended after {context.deadline.seconds:.0f} s; its policy was kept"
                raise NetguardError(text)
            time.sleep(0.5)
    return outcome


def _wait(context: Context, topology: Topology) -> None:
    """Until every tunnel is up: readiness is Gluetun's own health check. Raises NetguardError that says what is in the way."""
    goals = []
    for gateway in topology.gateways:
        pods = ",".join(f"{key}={value}" for key, value in sorted(names.gateway_pods(topology, gateway).items()))
        goals.append(Goal(_deployment(gateway), _ready, pods))
    wait(context.online, goals, context.deadline)


def _deployment(gateway: Gateway) -> Key:
    return Key("apps/v1", "Deployment", gateway.namespace, names.gateway_object(gateway))


def _ready(found: Mapping[str, Any] | None) -> tuple[bool, str]:
    if found is None:
        return False, "it does not exist"
    return rolled_out(found)


def _described(context: Context, facts: Facts, live: Live, case: Case, *, changed: bool) -> dict[str, Any]:
    gateway, topology = case.gateway, context.topology
    port = vpn_port(case)
    missing = builder.waiting_namespaces(topology, live, complete=not context.rendered)
    return {
        "name": gateway.name,
        "namespace": gateway.namespace,
        "pods": names.gateway_pods(topology, gateway),
        "dns_name": f"{names.gateway_headless(gateway)}.{gateway.namespace}.svc.{facts.dns.cluster_domain}",
        "service": names.gateway_object(gateway),
        "overlay": {
            "vni": gateway.overlay.vni,
            "network": str(gateway.overlay.network),
            "port": names.overlay_port(gateway, facts),
            "mtu": tunnel_mtu(case),
        },
        "endpoint": {
            "address": case.endpoint.host if case.endpoint.pinned else "",
            "port": port.number if port else 0,
            "protocol": port.protocol.lower() if port else "",
        },
        "exit_ip": _exit_ip(context, gateway, patient=changed) if context.waits else "",
        "waiting": [name for name in client_namespaces(topology, gateway.name) if name in missing],
    }


def _exit_ip(context: Context, gateway: Gateway, *, patient: bool) -> str:
    """As Gluetun found it through the tunnel, read from its log; empty when it has not said so or may not be read.

    Gluetun asks for it after it is ready: `patient` gives it some seconds.
    """
    cluster = context.online
    selector = ",".join(f"{key}={value}" for key, value in sorted(names.gateway_pods(context.topology, gateway).items()))
    for _attempt in range(6 if patient else 1):
        try:
            pods = cluster.list("v1", "Pod", gateway.namespace, label_selector=selector)
        except NetguardError:
            return ""
        texts = [cluster.log(gateway.namespace, pod["metadata"]["name"], GLUETUN, lines=200) for pod in pods]
        found = exit_addresses("\n".join(texts))
        if found or not any(texts) or context.deadline.passed:
            return found[-1] if found else ""
        time.sleep(1)
    return ""


def exit_addresses(log: str) -> list[str]:
    """The public addresses that Gluetun's log names, oldest first."""
    return _EXIT.findall(log)


def _notes(
    context: Context, topology: Topology, facts: Facts, credentials: gateway_credentials.Given | Any, options: PodOptions
) -> list[str]:
    said: Iterable[str] = [*advise(topology, credentials, facts=facts, images=options.images), *cluster_notes(topology, facts)]
    unwritten = [
        f"gateway {gateway.name}: a Secret is never rendered, create {gateway.namespace}/{names.gateway_secret(gateway)}"
        for gateway in topology.gateways
        if context.rendered and not gateway.credentials_secret
    ]
    return [*said, *unwritten]
