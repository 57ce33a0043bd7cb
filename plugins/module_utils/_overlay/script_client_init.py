# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The first container of a client's pod."""

from __future__ import annotations

SCRIPT = r"""#!/bin/sh
# First container of a client's pod: closes the pod, then lays the overlay. It never waits for the gateway.
DIR=${0%/*}
# shellcheck source=/dev/null
. "$DIR/lib.sh"
# shellcheck source=/dev/null
. "$DIR/guard.sh"
# shellcheck source=/dev/null
. "$DIR/raw.sh"
# shellcheck source=/dev/null
. "$DIR/overlay.sh"

choose_interface
choose_iptables
choose_ip6tables
choose_recent
POD=$(own_address)
save_default 4
has_ipv6 && save_default 6
# closed before anything is asked for: an unknown address must not leave the pod open
if [ -z "$POD" ]; then
  ADDRESS=0.0.0.0
  guard_load
  die "the pod has no IPv$OUTER address (POD_IPS='${POD_IPS:-}'): the overlay of this gateway needs one"
fi
overlay_names
guard_load
log "guard: IPv4 and IPv6 closed, with ${IPT4} and ${IPT6:-no IPv6}"
ip link show dev "$INTERFACE" >/dev/null 2>&1 || die "the pod has no interface $INTERFACE"
raw_load
arp_hold
overlay_up
log "overlay: $ADDRESS by $POD, gateway ${GATEWAY:-$GATEWAY_NAME}; waiting for it is the sidecar's part"
"""
