# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gateway's Deployment: our init container, Gluetun, and the overlay's server side, in this order and with no more rights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from .._facts.model import Facts
from .._overlay.scripts import CLIENTS_MOUNT, GLUETUN_STATE
from .._topology.model import Topology
from . import names
from .gateway_side import Side
from .gluetun import image_version
from .gluetun_case import Case
from .gluetun_env import CREDENTIALS, resolver
from .images import Images
from .model import LABEL_GATEWAY, LABEL_MANAGED_BY, MANAGER, PREFIX, Manifest, owner_labels

GLUETUN, INIT, SIDECAR = "gluetun", "overlay-init", "overlay"
#: On the pod template: what rolls the pod. Neither holds a secret or anything made from one.
CONFIG, SECRET = PREFIX + "config", PREFIX + "credentials"
TUN = "/dev/net/tun"
#: From this version on Gluetun looks for the device only when it uses it.
TUN_ON_DEMAND = (3, 41, 2)

#: Two rules of WireGuard's table outlive Gluetun when it is killed, and it would retry forever on "file exists" (its issue 2521).
#: BusyBox's ip knows no table above 1023, so they are found by the place that Gluetun gives them as well.
FORGET = "for family in -4 -6; do ip $family rule del table 51820 || ip $family rule del pref 101; done 2>/dev/null"
COMMAND = ("/bin/sh", "-c", f"{FORGET}; exec /gluetun-entrypoint")
HEALTH = ("/gluetun-entrypoint", "healthcheck")

Resources = Mapping[str, Manifest]

#: Gluetun was killed at 128 Mi.
RESOURCES: dict[str, Manifest] = {
    "gluetun": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
    "overlay": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
}


@dataclass(frozen=True)
class PodOptions:
    """`tun`: auto | host | none, or the name of a device plugin's resource such as devic.es/tun."""

    images: Images = field(default_factory=Images)
    resources: Resources = field(default_factory=dict)
    tun: str = "auto"


def needs_tun(case: Case, options: PodOptions) -> bool:
    """Userspace WireGuard, OpenVPN and old versions use the device; kernel WireGuard does not."""
    version = image_version(options.images.gluetun) or TUN_ON_DEMAND
    return not case.wireguard or case.setting("WIREGUARD_IMPLEMENTATION").lower() == "userspace" or version < TUN_ON_DEMAND


def deployment(
    topology: Topology,
    facts: Facts,
    case: Case,
    side: Side,
    environment: Mapping[str, str],
    mounted: Mapping[str, str],
    revision: str,
    options: PodOptions,
) -> Manifest:
    """`mounted`: file to key of the Secret (empty: all keys); `revision`: of the Secret, as `gateway_credentials.revision`."""
    gateway = case.gateway
    name = names.gateway_object(gateway)
    pods = names.gateway_pods(topology, gateway)
    annotations = {CONFIG: digest(environment, side), "kubectl.kubernetes.io/default-container": GLUETUN}
    if revision:
        annotations[SECRET] = revision
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": gateway.namespace,
            "labels": owner_labels(topology.instance, "gateway", [(LABEL_GATEWAY, gateway.name)]),
        },
        "spec": {
            "replicas": 1,
            # one VPN login, one address in the overlay: two pods at once would fight over both
            "strategy": {"type": "Recreate"},
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": pods},
            "template": {
                "metadata": {
                    # the gateway is never part of a mesh: its packets would be taken before Gluetun sees them
                    "labels": {
                        **pods,
                        LABEL_MANAGED_BY: MANAGER,
                        "istio.io/dataplane-mode": "none",
                        "sidecar.istio.io/inject": "false",
                    },
                    "annotations": annotations,
                },
                "spec": {
                    # a Service called openvpn or proxy would inject a variable that stops Gluetun
                    "enableServiceLinks": False,
                    "automountServiceAccountToken": False,
                    # the overlay says goodbye to its clients before the pod's address dies (`scripts.GOODBYE`)
                    "terminationGracePeriodSeconds": 15,
                    # the cluster's resolver is never this pod's: names go through the tunnel or nowhere
                    "dnsPolicy": "None",
                    "dnsConfig": {"nameservers": [resolver(case)], "options": [{"name": "ndots", "value": "1"}]},
                    "initContainers": [_init(side, options)],
                    "containers": [_gluetun(case, side, name, mounted, options), _sidecar(side, options)],
                    "volumes": _volumes(case, side, name, mounted, options),
                },
            },
        },
    }


def digest(environment: Mapping[str, str], side: Side) -> str:
    """Of everything that is read once when the pod starts; what is followed while it runs (the clients) is left out."""
    text = json.dumps([sorted(environment.items()), sorted(side.files.items()), side.post_rules], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _context(*, add: tuple[str, ...] = (), privileged: bool = False, drop: bool = True) -> Manifest:
    context: Manifest = {"runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": False, "privileged": privileged}
    if not privileged:
        capabilities: Manifest = {"add": list(add)}
        if drop:
            capabilities["drop"] = ["ALL"]
        context |= {"allowPrivilegeEscalation": False, "capabilities": capabilities}
    return context


def _container(name: str, image: str, **rest: object) -> Manifest:
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **rest,
    }


def _mounts(side: Side) -> list[Manifest]:
    """The list of clients as a whole volume, so that it is followed (a subPath never changes)."""
    found = [{"name": "scripts", "mountPath": side.mount, "readOnly": True}]
    if side.followed:
        found.append({"name": "clients", "mountPath": CLIENTS_MOUNT, "readOnly": True})
    return found


def _environment(side: Side) -> Manifest:
    """An empty list would be dropped by the API server and look like a difference for ever."""
    return {"env": list(side.env)} if side.env else {}


def _init(side: Side, options: PodOptions) -> Manifest:
    return _container(
        INIT,
        options.images.overlay,
        command=list(side.init),
        # ip_forward is off in new namespaces under containerd, and /proc/sys is writable to a privileged container alone
        securityContext=_context(privileged=True),
        resources=_resources(options, "overlay"),
        volumeMounts=_mounts(side),
        **_environment(side),
    )


def _gluetun(case: Case, side: Side, config: str, mounted: Mapping[str, str], options: PodOptions) -> Manifest:
    probe: Manifest = {"exec": {"command": list(HEALTH)}, "periodSeconds": 10, "timeoutSeconds": 5, "successThreshold": 1}
    mounts: list[Manifest] = [
        {"name": "credentials", "mountPath": CREDENTIALS, "readOnly": True},
        {"name": "state", "mountPath": GLUETUN_STATE},
    ]
    if side.post_rules:
        mounts.append({"name": "rules", "mountPath": "/iptables", "readOnly": True})
    resources = _resources(options, "gluetun")
    tun = _tun(case, options)
    if tun == "host":
        mounts.append({"name": "tun", "mountPath": TUN})
    elif tun:
        resources = {**resources, "limits": {**resources.get("limits", {}), tun: "1"}}
    return _container(
        GLUETUN,
        options.images.gluetun,
        command=list(COMMAND),
        envFrom=[{"configMapRef": {"name": f"{config}-env"}}],
        # no liveness probe: Gluetun restarts a dead tunnel itself, in the same process
        startupProbe={**probe, "failureThreshold": 30},
        readinessProbe={**probe, "failureThreshold": 3},
        securityContext=_context(add=("NET_ADMIN", "NET_RAW")),
        resources=resources,
        volumeMounts=mounts,
    )


def _sidecar(side: Side, options: PodOptions) -> Manifest:
    container = _container(
        SIDECAR,
        options.images.overlay,
        command=list(side.sidecar),
        securityContext=_context(add=side.capabilities, drop=side.drop_all),
        resources=_resources(options, "overlay"),
        volumeMounts=[*_mounts(side), {"name": "state", "mountPath": GLUETUN_STATE, "readOnly": True}],
        **_environment(side),
    )
    if side.ready:
        container["readinessProbe"] = {
            "exec": {"command": list(side.ready)},
            "periodSeconds": 5,
            "timeoutSeconds": 5,
            "successThreshold": 1,
            "failureThreshold": 3,
        }
    return container


def _resources(options: PodOptions, name: str) -> Manifest:
    given = options.resources.get(name)
    return dict(given) if given else RESOURCES[name]


def _tun(case: Case, options: PodOptions) -> str:
    """host, the name of a device plugin's resource, or nothing."""
    if options.tun == "auto":
        return "host" if needs_tun(case, options) else ""
    return "" if options.tun == "none" else options.tun


def _volumes(case: Case, side: Side, name: str, mounted: Mapping[str, str], options: PodOptions) -> list[Manifest]:
    # 0400 and owned by root: the containers drop DAC_OVERRIDE, root reads its own files without it
    secret: Manifest = {"secretName": names.gateway_secret(case.gateway), "defaultMode": 0o400}
    if mounted:
        secret["items"] = [{"key": key, "path": file} for file, key in mounted.items()]
    volumes: list[Manifest] = [
        {"name": "credentials", "secret": secret},
        {"name": "state", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
        {"name": "scripts", "configMap": {"name": f"{name}-scripts", "defaultMode": 0o555}},
    ]
    if side.post_rules:
        volumes.append({"name": "rules", "configMap": {"name": f"{name}-rules", "defaultMode": 0o444}})
    if side.followed:
        volumes.append({"name": "clients", "configMap": {"name": f"{name}-clients", "defaultMode": 0o444}})
    if _tun(case, options) == "host":
        volumes.append({"name": "tun", "hostPath": {"path": TUN, "type": "CharDevice"}})
    return volumes
