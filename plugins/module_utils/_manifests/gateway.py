# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Gateways: per gateway a namespace, credentials, configuration, Services, a NetworkPolicy, and the pod, in waves.

The policy is accepted before the pod is written. A new client changes what the pod follows (a ConfigMap, a headless Service) and
the policy, and never the pod itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from .._errors import FaultsError
from .._facts.model import Facts
from .._overlay.scripts import finder_port
from .._topology.model import Gateway, Topology
from . import gateway_credentials, names
from .gateway_checks import check as check_gateways
from .gateway_credentials import Given
from .gateway_pod import PodOptions, deployment
from .gateway_policy import client_labels, client_namespaces, policy
from .gateway_side import Side, forward_service, forwarding, side
from .gluetun import Release, release_of
from .gluetun_case import Case, Credentials
from .gluetun_env import environment
from .gluetun_faults import cases
from .gluetun_faults import check as check_gluetun
from .model import LABEL_GATEWAY, LABEL_INSTANCE, LABEL_PART, Desired, Key, Live, Manifest, Patch, owner_labels

PART = "gateway"
POD_SECURITY = "pod-security.kubernetes.io/enforce"


def gateway_cases(topology: Topology, facts: Facts, credentials: Credentials, options: PodOptions) -> list[Case]:
    return cases(topology, credentials, facts, release_of(options.images.gluetun) or Release.V341)


def judge(
    topology: Topology,
    facts: Facts,
    live: Live,
    *,
    given: Given | None = None,
    options: PodOptions | None = None,
    complete: bool = True,
    manage_pod_security: bool = False,
) -> Credentials:
    """The credentials as far as they are known; raises FaultsError with everything that is wrong, before anything is written."""
    options = options or PodOptions()
    values = given or {}
    credentials = gateway_credentials.resolve(topology, values, live, complete=complete)
    faults = gateway_credentials.faults(topology, values, live, complete=complete)
    missing = {fault.path for fault in faults}
    faults += [
        fault
        for fault in check_gluetun(topology, credentials, facts=facts, images=options.images)
        if fault.path not in missing  # a Secret that does not exist lacks every key: once is enough
    ]
    faults += check_gateways(topology, facts, live, options, manage_pod_security=manage_pod_security)
    if faults:
        raise FaultsError(sorted(set(faults)))
    return credentials


def build(
    topology: Topology,
    facts: Facts,
    live: Live,
    *,
    given: Given | None = None,
    options: PodOptions | None = None,
    complete: bool = True,
    manage_pod_security: bool = False,
    pending: Iterable[tuple[str, str]] = (),
    only: Iterable[str] | None = None,
) -> Desired:
    """Everything of every gateway, or of those that `only` names. `given`: the option `credentials`.

    `live` holds the gateways' and clients' Namespaces, the credentials' Secrets and the workloads of apps with forwards;
    `complete`: what it lacks does not exist. `pending`: Secrets (namespace, name) that would be changed. Raises FaultsError.
    """
    options = options or PodOptions()
    chosen = frozenset(gateway.name for gateway in topology.gateways) if only is None else frozenset(only)
    credentials = judge(
        topology,
        facts,
        live,
        given=given,
        options=options,
        complete=complete,
        manage_pod_security=manage_pod_security,
    )
    configuration: list[Manifest] = []
    pods: list[Manifest] = []
    for case in gateway_cases(topology, facts, credentials, options):
        gateway = case.gateway
        if gateway.name not in chosen:
            continue
        server = side(topology, facts, live, case)
        mounted = gateway_credentials.mounted(gateway, credentials, live)
        known = mounted or _possible(case)
        variables = environment(case, facts, names.overlay_port(gateway, facts), known)
        configuration += config_maps(topology, gateway, server, variables)
        configuration += services(topology, facts, gateway)
        configuration += client_services(topology, facts, live, case, complete=complete)
        configuration.append(policy(topology, facts, live, case, asks_cluster_dns=server.asks_cluster_dns))
        revision = gateway_credentials.revision(gateway, live, frozenset(pending))
        pods.append(deployment(topology, facts, case, server, variables, mounted, revision, options))
    patches = pod_security_patches(topology, live) if manage_pod_security else ()
    subset = replace(topology, gateways=tuple(gateway for gateway in topology.gateways if gateway.name in chosen))
    return Desired((*groundwork(subset, live, given or {}).waves, tuple(configuration), tuple(pods)), patches)


def _possible(case: Case) -> tuple[str, ...]:
    """Files that a Secret which nobody has read may hold: a variable that names a file which is not there is unset."""
    if case.wireguard:
        return ("wireguard_private_key", "wireguard_preshared_key", "wireguard_addresses", "wg0.conf")
    return tuple(case.provider.openvpn.credentials) if case.provider and case.provider.openvpn else ()


def groundwork(topology: Topology, live: Live, given: Given) -> Desired:
    """What must exist before the rest can be told: the Secrets' revisions roll the pods."""
    return Desired(tuple(wave for wave in (namespaces(topology, live), secrets(topology, given)) if wave))


def secrets(topology: Topology, given: Given) -> tuple[Manifest, ...]:
    found = (gateway_credentials.secret_of(topology, gateway, given) for gateway in topology.gateways)
    return tuple(secret for secret in found if secret is not None)


def namespaces(topology: Topology, live: Live) -> tuple[Manifest, ...]:
    """Those that do not exist yet or that we created; anybody else's stays as it is, and so does one that cannot be read."""
    if "Namespace" in live.unreadable:
        return ()
    wanted: list[Manifest] = []
    for name in sorted({gateway.namespace for gateway in topology.gateways}):
        found = live.get("Namespace", "", name)
        labels = (found or {"metadata": {}})["metadata"].get("labels") or {}
        ours = labels.get(LABEL_INSTANCE) == topology.instance and labels.get(LABEL_PART) == PART
        if found is None or ours:
            own = owner_labels(topology.instance, PART, [(POD_SECURITY, "privileged")])
            wanted.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": own}})
    return tuple(wanted)


def pod_security_patches(topology: Topology, live: Live) -> tuple[Patch, ...]:
    """Of namespaces that are not ours and whose Pod Security level would refuse the pod."""
    patches = []
    for name in sorted({gateway.namespace for gateway in topology.gateways}):
        found = live.get("Namespace", "", name)
        labels = (found or {"metadata": {}})["metadata"].get("labels") or {}
        if found is not None and labels.get(POD_SECURITY) in ("baseline", "restricted"):
            body = {"metadata": {"labels": {POD_SECURITY: "privileged"}}}
            patches.append(Patch(Key("v1", "Namespace", "", name), body, "pod security"))
    return tuple(patches)


def _meta(topology: Topology, gateway: Gateway, name: str, namespace: str = "") -> Manifest:
    labels = owner_labels(topology.instance, PART, [(LABEL_GATEWAY, gateway.name)])
    return {"name": name, "namespace": namespace or gateway.namespace, "labels": labels}


def config_maps(topology: Topology, gateway: Gateway, server: Side, variables: Mapping[str, str]) -> list[Manifest]:
    base = names.gateway_object(gateway)
    parts: dict[str, Mapping[str, str]] = {"env": variables, "scripts": server.files}
    if server.post_rules:
        parts["rules"] = {"post-rules.txt": server.post_rules}
    if server.followed:
        parts["clients"] = server.followed
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _meta(topology, gateway, f"{base}-{part}"), "data": dict(data)}
        for part, data in parts.items()
    ]


def services(topology: Topology, facts: Facts, gateway: Gateway) -> list[Manifest]:
    """The pod's name, and an address that survives the pod.

    Both lead to a pod that is not ready as well: a client keeps its overlay while Gluetun looks for another server.
    """
    port = names.overlay_port(gateway, facts)
    spec: Manifest = {
        "selector": names.gateway_pods(topology, gateway),
        "publishNotReadyAddresses": True,
        "ports": [
            {"name": name, "protocol": "UDP", "port": number, "targetPort": number}
            for name, number in (("overlay", port), ("finder", finder_port(port)))
        ],
    }
    pairs = ((names.gateway_headless(gateway), {"clusterIP": "None"}), (names.gateway_object(gateway), {"type": "ClusterIP"}))
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": _meta(topology, gateway, name), "spec": {**spec, **more}}
        for name, more in pairs
    ]


def client_services(topology: Topology, facts: Facts, live: Live, case: Case, *, complete: bool) -> list[Manifest]:
    """By their names the gateway learns its clients' pods: one per namespace, one more per app with forwards.

    A namespace that does not exist yet waits.
    """
    gateway = case.gateway
    port = names.overlay_port(gateway, facts)
    labels = client_labels(topology, gateway.name)
    if gateway.overlay.scripts == "image":
        return []  # its clients lease their addresses by DHCP
    wanted = [(names.client_service(gateway), namespace, labels) for namespace in client_namespaces(topology, gateway.name)]
    wanted += [(forward_service(app), app.namespace, {**labels, **own}) for app, own in forwarding(topology, live, case)]
    waiting = waiting_namespaces(topology, live, complete=complete)
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": _meta(topology, gateway, name, namespace),
            "spec": {
                "clusterIP": "None",
                "selector": selector,
                # a client that waits for the tunnel is not ready, and the tunnel waits for its name
                "publishNotReadyAddresses": True,
                "ports": [{"name": "overlay", "protocol": "UDP", "port": port, "targetPort": port}],
            },
        }
        for name, namespace, selector in wanted
        if namespace not in waiting
    ]


def waiting_namespaces(topology: Topology, live: Live, *, complete: bool) -> tuple[str, ...]:
    """Namespaces of clients that do not exist yet."""
    if not complete or "Namespace" in live.unreadable:
        return ()
    return tuple(sorted({app.namespace for app in topology.clients if live.get("Namespace", "", app.namespace) is None}))
