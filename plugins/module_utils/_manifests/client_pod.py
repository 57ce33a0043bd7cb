# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a client's pod gets: containers, volume, labels, annotations and DNS, from the app, its gateway and the facts."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache

from .._errors import required
from .._facts.model import Facts
from .._overlay import scripts
from .._overlay.settings import gateway_address
from .._topology.model import App, Gateway, Topology
from . import names
from .client_guard import SIDECAR, VOLUME, guard_container, guard_volume, native_sidecars, pod_environment, security_context
from .client_template import DIGEST, DNS_CAPTURE, POLICY, Additions
from .images import Images
from .model import LABEL_CLIENT, LABEL_INSTANCE, Live, Manifest

#: A start-up probe that gives up restarts the container, with growing pauses: ours must never give up.
NEVER = 1_000_000_000


def labels(topology: Topology, app: App) -> dict[str, str]:
    """On the workload and on its pods: by these the gateway's headless Service finds its clients."""
    return {LABEL_CLIENT: required(app.vpn).gateway, LABEL_INSTANCE: topology.instance}


def additions(topology: Topology, facts: Facts, live: Live, app: App, images: Images, config: Manifest) -> Additions:
    """All that is added to the pod template of a client."""
    gateway = topology.gateway(required(app.vpn).gateway)
    guard = guard_container(topology, app, facts, images)
    sidecar = sidecar_container(topology, app, facts, images)
    native = native_sidecars(facts)
    volume = guard_volume(app)
    dns = pod_dns(gateway, app, facts)
    annotations = {DIGEST: _digest(_scripts(), config["data"][scripts.SETTINGS_FILE], guard, sidecar, dns, volume)}
    mark = policy_mark(live, app)
    if mark:
        annotations[POLICY] = mark
    return Additions(
        init=(guard, sidecar) if native else (guard,),
        containers=() if native else (sidecar,),
        volumes=(volume,),
        labels=labels(topology, app),
        annotations=annotations,
        # ztunnel would ask the cluster's DNS whatever the pod's resolv.conf says (istio PR 52867)
        shared={DNS_CAPTURE: "false"} if facts.mesh_ambient and gateway.dns != "cluster" else {},
        dns=dns,
    )


def sidecar_container(topology: Topology, app: App, facts: Facts, images: Images) -> Manifest:
    """Keeps overlay and routes right; native where the server has native sidecars, so that Jobs end and the app waits for it."""
    vpn = required(app.vpn)
    native = native_sidecars(facts)
    container: Manifest = {
        "name": SIDECAR,
        "image": images.overlay,
        "imagePullPolicy": "IfNotPresent",
        "command": list(scripts.CLIENT_SIDECAR),
        "env": pod_environment(facts),
        "securityContext": security_context(scripts.CLIENT_CAPABILITIES, scripts.SIDECAR_GID),
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
        "volumeMounts": [{"name": VOLUME, "mountPath": scripts.MOUNT, "readOnly": True}],
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if native:
        container["restartPolicy"] = "Always"
    if native and vpn.start == "tunnel":
        container["startupProbe"] = _probe(period=1, failures=NEVER)
    if vpn.ready == "tunnel":
        container["readinessProbe"] = _probe(period=5, failures=2)
    return container


def _probe(*, period: int, failures: int) -> Manifest:
    return {
        "exec": {"command": list(scripts.CLIENT_READY)},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "successThreshold": 1,
        "failureThreshold": failures,
    }


def pod_dns(gateway: Gateway, app: App, facts: Facts) -> Manifest:
    """`dnsPolicy` and `dnsConfig` by the gateway's DNS mode; empty in mode cluster, where the pod keeps its own.

    ndots 1: with the usual 5 every outside name would first be asked with each of the cluster's suffixes.
    """
    if gateway.dns == "cluster":
        return {}
    config: Manifest = {
        "nameservers": [str(gateway_address(gateway.overlay.network))],
        "options": [{"name": "ndots", "value": "1"}],
    }
    if gateway.dns == "split":
        domain = facts.dns.cluster_domain
        config["searches"] = [f"{app.namespace}.svc.{domain}", f"svc.{domain}", domain]
    return {"dnsPolicy": "None", "dnsConfig": config}


def policy_mark(live: Live, app: App) -> str:
    """Identity and generation of the kill switch that is live; empty when there is none (or when rendering).

    A new policy stops new flows only. With the mark in the template, every gap in the policy (deleted and made again,
    opened and closed again) restarts the client's pods, and with them the flows that were opened meanwhile.
    """
    found = live.get("NetworkPolicy", app.namespace, names.killswitch(app))
    if found is None or not found["metadata"].get("uid"):
        return ""
    return f"{found['metadata']['uid']}.{found['metadata'].get('generation', 1)}"


@lru_cache(maxsize=1)
def _scripts() -> str:
    """One digest for every client: they all mount the same scripts."""
    return _digest(scripts.CLIENT_SCRIPTS)


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
