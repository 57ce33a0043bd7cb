# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The settings file of a client, from its edges, its gateway and the facts; and the scripts that read it."""

from __future__ import annotations

from .._facts.model import Facts
from .._topology.model import App, Topology
from . import names
from .client_edges import edges_of
from .client_guard import MOUNT
from .model import Live

#: Exits 0 while the tunnel answers: what the probes run.
TUNNEL_CHECK = ("/bin/sh", f"{MOUNT}/client-ready.sh")


def files(topology: Topology, facts: Facts, live: Live, app: App) -> dict[str, str]:
    """File name to text."""
    assert app.vpn is not None
    gateway = topology.gateway(app.vpn.gateway)
    edges = edges_of(topology, facts, live, app)
    lines = [
        f"VNI={gateway.overlay.vni}",
        f"PORT={names.overlay_port(gateway, facts)}",
        f"NETWORK={gateway.overlay.network}",
        f"DNS={edges.dns}",
    ]
    return {"settings.sh": "".join(f"{line}\n" for line in lines)}
