# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The client's exec check and metrics."""

from __future__ import annotations

SCRIPT = r"""#!/bin/sh
# Exit 0 while the tunnel answers; with `metrics`: the state as Prometheus text. Runs in the sidecar's container.
DIR=${0%/*}
# shellcheck source=/dev/null
. "$DIR/lib.sh"

OVERLAY=no
TUNNEL=unknown
PEER=
ADDRESS=
SINCE=0
OPENED=0
REPAIRED=0
RAW=unknown
# shellcheck source=/dev/null
[ ! -f "$STATE/state" ] || . "$STATE/state"

drops() {
  command -v "$1" >/dev/null 2>&1 || return 0
  "$1" -w 5 -nvxL "NETGUARD-$2" 2>/dev/null | awk '$3 == "DROP" { n += $1 } END { print n + 0 }'
}
yes() { if [ "$1" = "$2" ]; then echo 1; else echo 0; fi; }

if [ "${1-}" = metrics ]; then
  echo "netguard_overlay_open $(yes "$OVERLAY" yes)"
  echo "netguard_tunnel_up $(yes "$TUNNEL" up)"
  echo "netguard_state_since_seconds $SINCE"
  echo "netguard_overlay_opened_total $OPENED"
  echo "netguard_repairs_total $REPAIRED"
  echo "netguard_raw_frames_held{by=\"$RAW\"} $([ "$RAW" = nft ] && echo 1 || echo 0)"
  for family in 4 6; do
    tool=iptables
    [ "$family" = 4 ] || tool=ip6tables
    for way in IN OUT; do
      echo "netguard_guard_dropped_packets{family=\"$family\",chain=\"$way\"} $(drops "$tool" "$way")"
    done
  done
  exit 0
fi
echo "overlay ${OVERLAY}, tunnel ${TUNNEL}, gateway ${PEER:-unknown}, address ${ADDRESS:-unknown}"
[ "$TUNNEL" = up ]
"""
