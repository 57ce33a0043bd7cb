# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The overlay's server side of a gateway's pod: which files it mounts and what its two containers run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .._facts.model import Facts
from .._topology.model import Topology
from . import overlay_image
from .gateway_policy import vpn_port
from .gluetun_case import Case
from .model import Manifest

#: Where the files are mounted in the containers that run our scripts.
MOUNT = "/netguard"


@dataclass(frozen=True)
class Side:
    """`files` are read once, when the pod starts; `followed` are read again whenever they change (no restart).

    `post_rules`: the text of Gluetun's /iptables/post-rules.txt, empty: none. `asks_cluster_dns`: whether the pod may reach the
    cluster's DNS. `ready`: a command that exits 0 while the overlay works, empty: none.
    """

    files: Mapping[str, str]
    init: tuple[str, ...]
    sidecar: tuple[str, ...]
    mount: str = MOUNT
    followed: Mapping[str, str] = field(default_factory=dict)
    post_rules: str = ""
    capabilities: tuple[str, ...] = ("NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE")
    drop_all: bool = True
    asks_cluster_dns: bool = False
    ready: tuple[str, ...] = ()
    env: tuple[Manifest, ...] = ()


def side(topology: Topology, facts: Facts, case: Case) -> Side:
    return _image(topology, facts, case)


def _image(topology: Topology, facts: Facts, case: Case) -> Side:
    """The pod-gateway image's own scripts, with every setting and every rule ours."""
    gateway = case.gateway
    port = vpn_port(case)
    return Side(
        files={
            "settings.sh": overlay_image.settings(topology, facts, gateway, case, port.number if port else 51820),
            "nat.conf": overlay_image.nat_conf(topology, gateway),
            "init.sh": overlay_image.init_script(topology, gateway),
        },
        init=("/bin/sh", "/config/init.sh"),
        sidecar=("/bin/gateway_sidecar.sh",),
        mount="/config",
        post_rules=overlay_image.post_rules(topology, facts, gateway),
        # its dnsmasq changes to a user of its own, for which it needs the runtime's default capabilities
        capabilities=("NET_ADMIN", "NET_RAW"),
        drop_all=False,
        asks_cluster_dns=gateway.dns != "vpn",
    )
