# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The container images that the collection runs, and how a user replaces them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: Alpine with iproute2, iptables (nft build) and dig; amd64 and arm64. Our own scripts run inside it too.
OVERLAY_IMAGE = "ghcr.io/angelnu/pod-gateway:v1.13.0"
#: The digest is that of the multi-platform index of the tag.
GLUETUN_IMAGE = "ghcr.io/qdm12/gluetun:v3.41.3@sha256:fa19cc76b2af13d57a8d3dc3066f2ada061b1c761b8aecf989b3877c0486e027"


@dataclass(frozen=True)
class Images:
    """`overlay` runs the guard and both ends of the overlay, `gluetun` the tunnel."""

    overlay: str = OVERLAY_IMAGE
    gluetun: str = GLUETUN_IMAGE

    @classmethod
    def of(cls, option: Mapping[str, str | None] | None) -> Images:
        """From the module option `images` (keys `overlay` and `gluetun`, each may be missing or empty)."""
        given = option or {}
        return cls(overlay=given.get("overlay") or OVERLAY_IMAGE, gluetun=given.get("gluetun") or GLUETUN_IMAGE)
