# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What would go wrong with a gateway in this cluster: overlay port and capacity, Pod Security, images, resources."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from .._errors import Fault
from .._facts.model import Facts
from .._overlay.scripts import finder_port
from .._topology.model import Gateway, Topology
from . import names, overlay_image
from .gateway_pod import PodOptions
from .model import LABEL_INSTANCE, LABEL_PART, Live
from .workloads import template_of, workload

#: Gluetun was killed by the kernel at 128 Mi.
LEAST_MEMORY = 256 * 2**20
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)([kKMGT]i?|)")
_FACTORS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def check(topology: Topology, facts: Facts, live: Live, options: PodOptions, *, manage_pod_security: bool) -> list[Fault]:
    """Every fault that depends on the cluster or on the module's own options."""
    faults = [*_options(options)]
    for position, gateway in enumerate(topology.gateways):
        path = f"gateways[{position}]"
        faults += _port(path, gateway, facts)
        faults += _capacity(path, topology, gateway, facts)
        faults += _image_clients(topology, gateway, live)
        if not manage_pod_security:
            faults += _pod_security(path, gateway, facts, live)
    return faults


def notes(topology: Topology, facts: Facts) -> list[str]:
    """What is no fault but worth knowing of these gateways in this cluster."""
    said = []
    if facts.cni.enforces_network_policy is False and topology.gateways:
        said.append(
            f"{facts.cni.name} enforces no NetworkPolicy: the gateways are held closed by the rules inside their pods alone"
        )
    for gateway in topology.gateways:
        ranges = [item for item in facts.pods if item.version == 4]
        wide = len(ranges) > 1 or any(item.prefixlen < gateway.overlay.network.prefixlen for item in ranges)
        if gateway.overlay.scripts == "netguard" and wide:
            said.append(
                f"gateway {gateway.name}: the pods' range is larger than the overlay {gateway.overlay.network}, so two clients "
                "can fall on one address; the gateway then serves the first and names the second in its log"
            )
    return said


def _options(options: PodOptions) -> Iterator[Fault]:
    overlay = options.images.overlay
    tag = overlay.partition("@")[0].rpartition("/")[2].partition(":")[2]
    if "@" not in overlay and not re.search(r"\d+\.\d+\.\d+", tag):
        yield Fault("images.overlay", f'"{overlay}" has no exact version', "pin one such as v1.13.0, best with its digest")
    for name in options.resources:
        if name not in ("gluetun", "overlay"):
            yield Fault(f"resources.{name}", "no such container", "known are gluetun and overlay")
    limit = ((options.resources.get("gluetun") or {}).get("limits") or {}).get("memory")
    if limit is not None and (size := memory(str(limit))) is not None and size < LEAST_MEMORY:
        yield Fault("resources.gluetun.limits.memory", f"{limit} is too little, Gluetun is killed at 128Mi", "set 256Mi or more")


def memory(quantity: str) -> float | None:
    """Bytes of a Kubernetes quantity, None when it is none."""
    match = _QUANTITY.fullmatch(quantity.strip())
    return float(match[1]) * _FACTORS.get(match[2], 1) if match else None


def _port(path: str, gateway: Gateway, facts: Facts) -> Iterator[Fault]:
    """A declared port that the CNI drops or uses; where the CNI is unknown, one that any CNI is known to use."""
    port = gateway.overlay.port
    if port is None:
        return
    cni, where = facts.cni, f"{path}.overlay.port"
    hint = f"leave it out: {names.overlay_port(_automatic(gateway), facts)} would be taken"
    # the image's scripts have no finder
    ports = {port: ""} | ({} if gateway.overlay.scripts == "image" else {finder_port(port): " (the one behind it is needed too)"})
    for number, why in ports.items():
        if number in cni.drops_workload_vxlan_ports:
            yield Fault(where, f"{cni.name} drops UDP {number} from pods{why}", hint)
        elif number in cni.overlay_udp_ports:
            yield Fault(where, f"{cni.name} uses UDP {number} itself{why}", hint)
        elif cni.name == "unknown" and number in names.TAKEN_UDP_PORTS:
            message = f"UDP {number} is used or dropped by common CNIs, and this cluster's is not known{why}"
            yield Fault(where, message, hint)
        elif number > 65535:
            yield Fault(where, f"{number} is no port{why}", hint)


def _automatic(gateway: Gateway) -> Gateway:
    return replace(gateway, overlay=replace(gateway.overlay, port=None))


def _capacity(path: str, topology: Topology, gateway: Gateway, facts: Facts) -> Iterator[Fault]:
    """Whether the overlay has an address for every pod."""
    where = f"{path}.overlay.network"
    if gateway.overlay.scripts == "image":
        if "ipv4" not in facts.ip_families:
            yield Fault(f"{path}.overlay.scripts", "the image's scripts know no IPv6, and the cluster has no IPv4", "use netguard")
        statics = len(overlay_image.static_addresses(topology, gateway))
        if statics > overlay_image.FIRST_DYNAMIC - overlay_image.FIRST_STATIC:
            message = f"the image's scripts have 18 static addresses, and {statics} clients have vpn.forward"
            yield Fault(f"{path}.overlay.scripts", message, "use netguard, or another gateway")
        return
    if not facts.dns.service_ips:
        hint = "netguard_overrides: {dns: {service_ip: ...}}"
        yield Fault(path, "the cluster's DNS is not known, and by it a gateway finds its clients", hint)
    elif not (facts.dns.namespace and facts.dns.pod_labels) and not facts.dns.node_local_ip:
        hint = "netguard_overrides: {dns: {namespace: ..., pod_labels: {...}}}"
        yield Fault(path, "the pods of the cluster's DNS are not known, so the gateway's policy would keep it from them", hint)
    clients = len(topology.clients_of(gateway.name))
    room = gateway.overlay.network.num_addresses - 4
    if clients > room:
        yield Fault(where, f"{gateway.overlay.network} has room for {room} pods and {clients} apps are clients", "set a larger one")


def _image_clients(topology: Topology, gateway: Gateway, live: Live) -> Iterator[Fault]:
    """Clients of the image's scripts, which another injector brings: what it would break, and who would take another's address."""
    if gateway.overlay.scripts != "image":
        return
    clients = topology.clients_of(gateway.name)
    for app in clients:
        path = f"apps[{topology.position(app)}]"
        found = workload(app, live)
        if found is not None and (template_of(found)["spec"]).get("hostNetwork"):
            message = f"{app.kind}/{app.workload} runs on the node's network, whose routes the scripts would rewrite"
            yield Fault(f"{path}.workload", message, "remove hostNetwork from it, or vpn from the app")
        if not (app.vpn and app.vpn.forward):
            continue
        replicas = found["spec"].get("replicas", 1) if found is not None else 1
        if replicas > 1 or app.kind == "DaemonSet":
            what = "a pod on every node" if app.kind == "DaemonSet" else f"{replicas} replicas"
            message = f"{app.kind}/{app.workload} has {what}, which would all take the one static address of its forwards"
            yield Fault(f"{path}.vpn.forward", message, "set replicas: 1, or remove forward")
        prefix = overlay_image.host_prefix(app)
        others = sorted(other.key for other in clients if other.key != app.key and overlay_image.host_prefix(other) == prefix)
        if others:
            message = f'the image\'s scripts know a pod by its name up to the first dash, and {", ".join(others)} is "{prefix}" too'
            yield Fault(f"{path}.vpn.forward", message, "use overlay.scripts: netguard, or another gateway")


def _pod_security(path: str, gateway: Gateway, facts: Facts, live: Live) -> Iterator[Fault]:
    """The pod is privileged (ip_forward) and has NET_ADMIN: neither baseline nor restricted admits it."""
    found = live.get("Namespace", "", gateway.namespace)
    if found is None:
        return
    if found["metadata"].get("deletionTimestamp"):
        yield Fault(f"{path}.namespace", f"namespace {gateway.namespace} is being deleted", "run again when it is gone")
        return
    labels = found["metadata"].get("labels") or {}
    if labels.get(LABEL_INSTANCE) and labels.get(LABEL_PART) == "gateway":
        return  # ours, with the label
    level = labels.get("pod-security.kubernetes.io/enforce", "baseline" if facts.distribution == "talos" else "")
    if level in ("baseline", "restricted"):
        hint = f"kubectl label namespace {gateway.namespace} --overwrite pod-security.kubernetes.io/enforce=privileged"
        message = f"namespace {gateway.namespace} enforces Pod Security {level}, which refuses a gateway"
        yield Fault(f"{path}.namespace", message, f"{hint}, or set manage_pod_security: true")
