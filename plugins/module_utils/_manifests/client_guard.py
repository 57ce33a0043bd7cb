# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The containers that we add to a client's pod: the guard, which must run first, and the sidecar that keeps the overlay.

The guard's container and its volume are what admission compares pods and workloads against (`admission_cel`), so they depend
on nothing but their arguments.
"""

from __future__ import annotations

from .._facts.model import Facts
from .._overlay import scripts
from .._topology.model import App, Topology
from . import names
from .images import Images
from .model import Manifest

GUARD = "netguard-guard"
SIDECAR = "netguard-overlay"
VOLUME = "netguard-client"

#: The first Kubernetes version in which an init container with restartPolicy Always is on by default.
NATIVE_SIDECAR_SINCE = (1, 29)
#: status.hostIPs (both families) can be read through the downward API from here on; status.hostIP before.
HOST_IPS_SINCE = (1, 30)


def native_sidecars(facts: Facts) -> bool:
    """Whether the server runs init containers with restartPolicy Always without a feature gate."""
    return facts.server_version >= NATIVE_SIDECAR_SINCE


def guard_container(topology: Topology, app: App, facts: Facts, images: Images | None = None) -> Manifest:
    """The guard as it stands at index 0 of `initContainers` of every pod of `app`.

    Every field that the API server would default is written out, so that the live object can be compared literally.
    """
    return {
        "name": GUARD,
        "image": (images or Images()).overlay,
        "imagePullPolicy": "IfNotPresent",
        "command": list(scripts.CLIENT_INIT),
        "env": pod_environment(facts),
        "securityContext": security_context(scripts.CLIENT_CAPABILITIES),
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
        "volumeMounts": [{"name": VOLUME, "mountPath": scripts.MOUNT, "readOnly": True}],
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def guard_volume(app: App) -> Manifest:
    """The client's ConfigMap, as both containers mount it."""
    return {"name": VOLUME, "configMap": {"name": names.client_config(app), "defaultMode": 0o555}}


def pod_environment(facts: Facts) -> list[Manifest]:
    """What only the kubelet knows: the pod's and the node's addresses (comma-separated where there are several)."""
    host = "status.hostIPs" if facts.server_version >= HOST_IPS_SINCE else "status.hostIP"
    return [
        {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
        for name, path in ((scripts.POD_IPS, "status.podIPs"), (scripts.HOST_IPS, host))
    ]


def security_context(capabilities: tuple[str, ...], group: int = 0) -> Manifest:
    """Root with the named capabilities alone, whatever the pod's own security context says; `privileged` is never used."""
    return {
        "runAsUser": 0,
        "runAsGroup": group,
        "runAsNonRoot": False,
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": False,
        "capabilities": {"add": list(capabilities), "drop": ["ALL"]},
    }
