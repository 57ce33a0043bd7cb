# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gateway's exec check and metrics."""

from __future__ import annotations

SCRIPT = r"""#!/bin/sh
# Exit 0 while tunnel, rules and resolver are there; with `metrics`: the state as Prometheus text. Runs in the sidecar.
DIR=${0%/*}
# shellcheck source=/dev/null
. "$DIR/lib.sh"

UP=no
KNOWN=0
SINCE=0
REPAIRED=0
RESOLVER=
# shellcheck source=/dev/null
[ ! -f "$STATE/state" ] || . "$STATE/state"

drops() {
  command -v "$1" >/dev/null 2>&1 || return 0
  "$1" -w 5 -t mangle -nvxL "NETGUARD-$2" 2>/dev/null | awk '$3 == "DROP" { n += $1 } END { print n + 0 }'
}

if [ "${1-}" = metrics ]; then
  echo "netguard_gateway_tunnel_up $([ "$UP" = yes ] && echo 1 || echo 0)"
  echo "netguard_gateway_clients $KNOWN"
  echo "netguard_gateway_refused_clients $(wc -l <"$STATE/refused" 2>/dev/null | tr -d ' ')"
  echo "netguard_gateway_state_since_seconds $SINCE"
  echo "netguard_gateway_repairs_total $REPAIRED"
  for family in 4 6; do
    tool=iptables
    [ "$family" = 4 ] || tool=ip6tables
    for chain in FORWARD CLIENTS SOURCES LOCAL OUT; do
      echo "netguard_gateway_dropped_packets{family=\"$family\",chain=\"$chain\"} $(drops "$tool" "$chain")"
    done
  done
  exit 0
fi
echo "tunnel ${UP}, ${KNOWN} clients"
[ "$UP" = yes ] || exit 1
[ "$DNS" = cluster ] || alive "$RESOLVER"
"""
