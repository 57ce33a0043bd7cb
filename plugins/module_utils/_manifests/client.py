# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Clients: per client app one ConfigMap with scripts and settings, and the patch that puts guard and overlay first."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .._errors import required
from .._facts.model import Facts
from .._topology.model import App, Topology
from . import client_checks, client_pod, client_settings, names
from .client_edges import ClientEdges, edges_of
from .client_patch import API_VERSIONS, at_template, difference
from .client_template import DIGEST, inject, injected, release
from .images import Images
from .model import LABEL_CLIENT, LABEL_INSTANCE, LABEL_PART, PREFIX, Desired, Key, Live, Manifest, Patch, owner_labels
from .workloads import template_of, workload

PART = "client"
#: On the ConfigMap: the workload that it was written for, so that a moved or dropped one is found again.
WORKLOAD = PREFIX + "workload"
#: On the ConfigMap: the app that it was written for.
APP = PREFIX + "app"
#: On a namespace: the Pod Security level that we replaced.
POD_SECURITY_WAS = PREFIX + "pod-security-was"

INJECT, REPAIR, UPDATE, RELEASE = "inject", "repair", "update", "release"


@dataclass(frozen=True)
class Client:
    """One client as it stands and as it shall be. `workload` None: it does not exist yet."""

    app: App
    edges: ClientEdges
    key: Key
    workload: Manifest | None
    config: Manifest
    template: Manifest | None  # as it shall be
    patch: Patch | None  # None: nothing to do

    @property
    def action(self) -> str:
        """unchanged | waiting | inject | repair | update"""
        if self.workload is None:
            return "waiting"
        return self.patch.reason if self.patch else "unchanged"


def workload_key(app: App) -> Key:
    return Key(API_VERSIONS[app.kind], app.kind, app.namespace, app.workload or app.name)


def clients(
    topology: Topology,
    facts: Facts,
    live: Live,
    *,
    images: Images | None = None,
    only: Iterable[App] | None = None,
) -> tuple[Client, ...]:
    """Every client (or those of `only`) in the order of the topology."""
    wanted = topology.clients if only is None else tuple(only)
    return tuple(_client(topology, facts, live, app, images or Images()) for app in wanted)


def _client(topology: Topology, facts: Facts, live: Live, app: App, images: Images) -> Client:
    key, found = workload_key(app), workload(app, live)
    edges = edges_of(topology, facts, live, app)
    config = config_map(topology, facts, live, edges)
    if found is None:
        return Client(app, edges, key, None, config, None, None)
    before = template_of(found)
    after = inject(before, client_pod.additions(topology, facts, live, app, images, config))
    body = at_template(app.kind, difference(before, after))
    labels = _missing_labels(found, client_pod.labels(topology, app))
    if labels:
        body = {**body, "metadata": {"labels": labels}}
    patch = Patch(key, body, _reason(topology, live, app, before, after)) if body else None
    return Client(app, edges, key, found, config, after, patch)


def _missing_labels(found: Manifest, wanted: Mapping[str, str]) -> dict[str, str]:
    have = found["metadata"].get("labels") or {}
    return {key: value for key, value in wanted.items() if have.get(key) != value}


def _reason(topology: Topology, live: Live, app: App, before: Manifest, after: Manifest) -> str:
    """A client that we wrote before and that is no longer as we wrote it was changed by somebody else."""
    if injected(before):
        annotations = [(template.get("metadata") or {}).get("annotations") or {} for template in (before, after)]
        return REPAIR if annotations[0].get(DIGEST) == annotations[1].get(DIGEST) else UPDATE
    ours = live.get("ConfigMap", app.namespace, names.client_config(app))
    owner = (ours or {"metadata": {}})["metadata"]
    known = (owner.get("labels") or {}).get(LABEL_INSTANCE) == topology.instance
    same = (owner.get("annotations") or {}).get(WORKLOAD) == f"{app.kind}/{app.workload}"
    return REPAIR if known and same else INJECT


def config_map(topology: Topology, facts: Facts, live: Live, edges: ClientEdges) -> Manifest:
    """Scripts and settings that the client's pods mount."""
    app = edges.app
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": names.client_config(app),
            "namespace": app.namespace,
            "labels": owner_labels(topology.instance, PART, [(LABEL_CLIENT, required(app.vpn).gateway)]),
            "annotations": {WORKLOAD: f"{app.kind}/{app.workload}", APP: app.name},
        },
        "data": client_settings.files(topology, facts, live, edges),
    }


def build(
    topology: Topology,
    facts: Facts,
    live: Live,
    *,
    images: Images | None = None,
    only: Iterable[App] | None = None,
    manage_pod_security: bool = False,
) -> Desired:
    """ConfigMaps of every client, then the patches of namespaces (Pod Security) and workloads.

    A client whose workload does not exist yet has neither: it is `waiting`. When its ConfigMap is already there, it stays.
    """
    return desired(live, clients(topology, facts, live, images=images, only=only), manage_pod_security=manage_pod_security)


def desired(live: Live, found: Iterable[Client], *, manage_pod_security: bool = False) -> Desired:
    """The same from clients that were built already."""
    listed = list(found)
    present = [
        client
        for client in listed
        if client.workload is not None or live.get("ConfigMap", client.app.namespace, client.config["metadata"]["name"])
    ]
    patches = [client.patch for client in listed if client.patch is not None]
    opened = (
        pod_security_patches(live, {client.app.namespace for client in listed if client.workload}) if manage_pod_security else ()
    )
    return Desired(waves=(tuple(client.config for client in present),), patches=(*opened, *patches))


def pod_security_patches(live: Live, namespaces: Iterable[str]) -> tuple[Patch, ...]:
    """Namespaces that forbid NET_ADMIN are labelled privileged; the level they had is remembered beside it."""
    return tuple(
        Patch(
            Key("v1", "Namespace", "", namespace),
            {
                "metadata": {
                    "labels": {client_checks.PSA_ENFORCE: "privileged"},
                    "annotations": {POD_SECURITY_WAS: level},
                }
            },
            "pod security",
        )
        for namespace in sorted(namespaces)
        if (level := client_checks.pod_security(live, namespace))
    )


def pod_security_restored(live: Live, still: Iterable[str]) -> tuple[Patch, ...]:
    """Gives namespaces outside `still` (those that hold clients) the level back that we took."""
    kept = set(still)
    patches = []
    for namespace in live.all("Namespace"):
        meta = namespace["metadata"]
        was = (meta.get("annotations") or {}).get(POD_SECURITY_WAS)
        if was is None or meta["name"] in kept:
            continue
        body: Manifest = {"metadata": {"annotations": {POD_SECURITY_WAS: None}}}
        if (meta.get("labels") or {}).get(client_checks.PSA_ENFORCE) == "privileged":
            body["metadata"]["labels"] = {client_checks.PSA_ENFORCE: was}
        patches.append(Patch(Key("v1", "Namespace", "", meta["name"]), body, "pod security"))
    return tuple(patches)


def known(instance: str, live: Live) -> frozenset[str]:
    """Keys (`namespace/app`) of the apps whose ConfigMaps are there: clients that this instance has injected."""
    return frozenset(
        f"{meta['namespace']}/{(meta.get('annotations') or {}).get(APP, '')}"
        for meta in (item["metadata"] for item in live.all("ConfigMap"))
        if (labels := meta.get("labels") or {}).get(LABEL_INSTANCE) == instance and labels.get(LABEL_PART) == PART
    )


def former(instance: str, live: Live, current: Iterable[Key]) -> tuple[Manifest, ...]:
    """Workloads that carry this instance's injection and are no client's any more: dropped apps and moved workloads."""
    kept = set(current)
    found: dict[Key, Manifest] = {}
    for kind in API_VERSIONS:
        for item in live.all(kind):
            labels = item["metadata"].get("labels") or {}
            # an object with a part is ours whole, such as a gateway
            if labels.get(LABEL_INSTANCE) == instance and LABEL_CLIENT in labels and LABEL_PART not in labels:
                found[Key.of(item)] = item
    for config in live.all("ConfigMap"):
        meta = config["metadata"]
        labels = meta.get("labels") or {}
        if labels.get(LABEL_INSTANCE) != instance or labels.get(LABEL_PART) != PART:
            continue
        kind, _slash, name = (meta.get("annotations") or {}).get(WORKLOAD, "").partition("/")
        named = live.get(kind, meta["namespace"], name)
        if named is not None and kind in API_VERSIONS and injected(template_of(named)):
            found[Key.of(named)] = named
    return tuple(item for key, item in sorted(found.items()) if key not in kept)


def release_patch(workload: Manifest) -> Patch | None:
    """The patch that takes the injection out of a workload; None when there is nothing of ours in it."""
    before = template_of(workload)
    body = at_template(workload["kind"], difference(before, release(before)))
    ours = [key for key in (LABEL_CLIENT, LABEL_INSTANCE) if key in (workload["metadata"].get("labels") or {})]
    if ours:
        body["metadata"] = {"labels": dict.fromkeys(ours)}
    return Patch(Key.of(workload), body, RELEASE) if body else None


def pod_of(workload: Manifest, template: Manifest) -> Manifest:
    """A pod as the workload's controller would create it from the template: for dry runs against admission."""
    meta = template.get("metadata") or {}
    spec = copy.deepcopy(template["spec"])
    if workload["kind"] == "DaemonSet":
        spec.pop("nodeName", None)
    claims = [claim["metadata"]["name"] for claim in (workload.get("spec") or {}).get("volumeClaimTemplates") or ()]
    if claims:
        others = [volume for volume in spec.get("volumes") or () if volume["name"] not in claims]
        claimed = [
            {"name": name, "persistentVolumeClaim": {"claimName": f"{name}-{workload['metadata']['name']}-0"}} for name in claims
        ]
        spec["volumes"] = [*others, *claimed]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": names.short(f"{workload['metadata']['name']}-netguard-dry-run"),
            "namespace": workload["metadata"]["namespace"],
            "labels": dict(meta.get("labels") or {}),
            "annotations": dict(meta.get("annotations") or {}),
        },
        "spec": spec,
    }
