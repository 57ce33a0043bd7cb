# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What manifests need to know of the scripts: files, commands, mounts, environment, capabilities, probes.

**Client pod.** One ConfigMap, `CLIENT_SCRIPTS` and `SETTINGS_FILE`, mounted read-only at `MOUNT` in both containers.
First init container: `CLIENT_INIT` (guard, then overlay; exits 1 and keeps the pod closed when a family cannot be closed;
never waits for the gateway). Sidecar: `CLIENT_SIDECAR`, with `runAsGroup: SIDECAR_GID` (the one group that the guard lets
to the cluster's DNS) and `CLIENT_CAPABILITIES`. Both get `POD_IPS` (status.podIPs) and `HOST_IPS` (status.hostIPs, or
status.hostIP) from the downward API, comma-separated. Probes: `CLIENT_READY` exits 0 while the tunnel answers; it runs in
the sidecar's container. `CLIENT_METRICS` prints the state as Prometheus text.

**Gateway pod.** `GATEWAY_SCRIPTS` and `SETTINGS_FILE` at `MOUNT`; a second ConfigMap with the one key `CLIENTS_FILE`
(`settings.render_clients`) at `CLIENTS_MOUNT` in both, as a whole volume and not by subPath, so that a changed list is followed.
First init container: `GATEWAY_INIT`, privileged unless the pod sets the sysctl net.ipv4.ip_forward=1; before Gluetun.
Beside Gluetun: `GATEWAY_SIDECAR` with `GATEWAY_CAPABILITIES`, which on SIGTERM says goodbye to its clients before it ends: up
to `GOODBYE` seconds, so the pod needs a longer grace period. The pod's address lives until its last container has ended, so no hook
is needed; an emptyDir at `GLUETUN_STATE` in both lets the sidecar follow
a port that the provider hands out. Both need `POD_IPS`. Probe: `GATEWAY_READY` (dnsmasq, rules and tunnel).
Gluetun needs FIREWALL_INPUT_PORTS=<overlay port>,<finder_port>, FIREWALL_OUTBOUND_SUBNETS=<pod ranges>,<cluster DNS>/32 and
DNS_SERVER=off; no post-rules: FORWARD, nat POSTROUTING, nat PREROUTING and mangle are ours (one owner per rule) and are put
back when Gluetun flushes them. Both ends of the overlay send from its port too: it is one UDP flow per client, opened by
the client and never translated. The ClusterIP Service is UDP, `port` = `targetPort` = `finder_port(overlay port)`, with
not-ready addresses published: behind it the sidecar says at which address the gateway's pod is (an ordinary question by
DNS, so it works wherever Services work). Without a ClusterIP clients ask the cluster's DNS for the gateway's headless
Service.
The gateway asks the cluster's DNS for the names in `CLIENTS_FILE` in every DNS mode: its policy must let it.
"""

from __future__ import annotations

from . import (
    script_client_init,
    script_client_ready,
    script_client_sidecar,
    script_clients,
    script_gateway,
    script_gateway_init,
    script_gateway_ready,
    script_gateway_sidecar,
    script_guard,
    script_lib,
    script_overlay,
    script_raw,
)

MOUNT = "/netguard"
SETTINGS_FILE = "settings.sh"
CLIENTS_MOUNT = "/netguard-clients"
CLIENTS_FILE = "clients"
GLUETUN_STATE = "/tmp/gluetun"


def finder_port(overlay_port: int) -> int:
    """UDP port behind the gateway's ClusterIP where clients ask for the pod's address."""
    return overlay_port + 1


POD_IPS = "POD_IPS"
HOST_IPS = "HOST_IPS"

#: Seconds that a gateway's goodbye may take; usually half a second (`clients.sh`, rounds of a ping each).
GOODBYE = 8

#: Group of the client's sidecar (`runAsGroup`).
SIDECAR_GID = 4753

#: Rules, links and routes; raw sockets for ping.
CLIENT_CAPABILITIES = ("NET_ADMIN", "NET_RAW")
#: dnsmasq binds port 53 and gives up root.
GATEWAY_CAPABILITIES = ("NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE", "SETGID", "SETUID")

CLIENT_INIT = ("/bin/sh", f"{MOUNT}/client-init.sh")
CLIENT_SIDECAR = ("/bin/sh", f"{MOUNT}/client-sidecar.sh")
CLIENT_READY = ("/bin/sh", f"{MOUNT}/client-ready.sh")
CLIENT_METRICS = ("/bin/sh", f"{MOUNT}/client-ready.sh", "metrics")
GATEWAY_INIT = ("/bin/sh", f"{MOUNT}/gateway-init.sh")
GATEWAY_SIDECAR = ("/bin/sh", f"{MOUNT}/gateway-sidecar.sh")
GATEWAY_READY = ("/bin/sh", f"{MOUNT}/gateway-ready.sh")
GATEWAY_METRICS = ("/bin/sh", f"{MOUNT}/gateway-ready.sh", "metrics")

#: File name to text.
CLIENT_SCRIPTS: dict[str, str] = {
    "lib.sh": script_lib.SCRIPT,
    "guard.sh": script_guard.SCRIPT,
    "raw.sh": script_raw.SCRIPT,
    "overlay.sh": script_overlay.SCRIPT,
    "client-init.sh": script_client_init.SCRIPT,
    "client-sidecar.sh": script_client_sidecar.SCRIPT,
    "client-ready.sh": script_client_ready.SCRIPT,
}
GATEWAY_SCRIPTS: dict[str, str] = {
    "lib.sh": script_lib.SCRIPT,
    "gateway.sh": script_gateway.SCRIPT,
    "clients.sh": script_clients.SCRIPT,
    "gateway-init.sh": script_gateway_init.SCRIPT,
    "gateway-sidecar.sh": script_gateway_sidecar.SCRIPT,
    "gateway-ready.sh": script_gateway_ready.SCRIPT,
}
