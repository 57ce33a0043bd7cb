# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gateway's sidecar."""

from __future__ import annotations

SCRIPT = r"""#!/bin/sh
# Keeps the gateway's end right: who the clients are, what is forwarded to them, whether the tunnel is up, the resolver.
DIR=${0%/*}
# shellcheck source=/dev/null
. "$DIR/lib.sh"
# shellcheck source=/dev/null
. "$DIR/gateway.sh"
# shellcheck source=/dev/null
. "$DIR/clients.sh"

RESOLVER=
ANSWERER=
UP=no
SINCE=$(date +%s)
REPAIRED=0
TURN=0

finish() {
  trap '' TERM INT
  [ -z "$RESOLVER" ] || kill "$RESOLVER" 2>/dev/null
  [ -z "$ANSWERER" ] || kill "$ANSWERER" 2>/dev/null
  goodbye
  log ends
  exit 0
}
trap finish TERM INT

state() {
  printf 'UP=%s\nKNOWN=%s\nSINCE=%s\nREPAIRED=%s\nRESOLVER=%s\n' "$UP" "$(wc -l <"$CLIENTS" | tr -d ' ')" "$SINCE" "$REPAIRED" \
    "$RESOLVER" >"$STATE/state.new"
  mv "$STATE/state.new" "$STATE/state"
}

tunnel_works() {
  case $(ip -o link show dev "$TUNNEL" up 2>/dev/null) in
    '') return 1 ;;
  esac
  [ -n "$HEALTH" ] || return 0
  run wget -q -T 1 -O /dev/null "http://$HEALTH/" 2>/dev/null
}

# The clients learn whether the tunnel is up by an address that answers only then.
tunnel_state() {
  tunnel_now=no
  tunnel_works && tunnel_now=yes
  [ "$tunnel_now" = "$UP" ] && return 0
  UP=$tunnel_now
  if [ "$UP" = yes ]; then
    ip addr replace "$TUNNEL_MARK/32" dev "$VXLAN"
  else
    ip addr del "$TUNNEL_MARK/32" dev "$VXLAN" 2>/dev/null
  fi
  log "tunnel $([ "$UP" = yes ] && echo up || echo down) (after $(($(date +%s) - SINCE)) s)"
  SINCE=$(date +%s)
  state
}

# What every dnsmasq here has in common: nothing is read from files, nothing is asked but what is named. Run in background.
serve() {
  exec dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --no-poll --pid-file= --user=nobody \
    --bind-interfaces --except-interface=lo --log-facility=- "$@"
}

# Tells clients that ask behind the ClusterIP at which address this pod is.
answerer() {
  if alive "$ANSWERER"; then return 0; fi
  serve --port="$FINDER" --listen-address="$POD" --cache-size=0 --local-ttl=0 --address="/$FINDER_NAME/$POD" &
  ANSWERER=$!
}

resolver() {
  [ "$DNS" != cluster ] || return 0
  if alive "$RESOLVER"; then return 0; fi
  [ -z "$RESOLVER" ] || log 'resolver: dnsmasq ended, starting it again'
  set -- --cache-size=1000 --interface="$VXLAN" --listen-address="$VIA" --server="$UPSTREAM"
  if [ "$DNS" = split ]; then
    for resolver_zone in $CLUSTER_DOMAIN $REVERSE_ZONES; do
      for resolver_server in $DNS_SERVERS; do
        set -- "$@" --server="/$resolver_zone/$resolver_server"
      done
    done
  fi
  serve "$@" &
  RESOLVER=$!
  state
}

repair() {
  # an address that is gone took its routes and the resolver's socket with it
  ip addr replace "$VIA/${NETWORK#*/}" dev "$VXLAN" 2>/dev/null
  neighbours
  rules_intact && return 0
  REPAIRED=$((REPAIRED + 1))
  log 'repair: rules had been changed (does Gluetun fail to start?)'
  if ! gateway_rules || ! rules_intact; then log "error: the rules cannot be put back"; fi
  state
}

# what clients wait for comes first
POD=$(own_address)
answerer
choose_interface
choose_iptables
choose_ip6tables
gateway_names
choose_u32
choose_recent
# what an earlier sidecar of this pod had learnt still stands in the kernel
bridge fdb show dev "$VXLAN" | sed -n 's/^\(02:4e:[0-9a-f:]*\) dst \([^ ]*\) .*/\1 \2/p' | while read -r mac outer; do
  echo "$outer $(derived "$outer") $mac"
done >"$CLIENTS"
sed 's/ .*/ 0 0/' "$CLIENTS" >"$STATE/heard"
ip link show dev "$VXLAN" >/dev/null 2>&1 || die "no $VXLAN: the init container of this pod did not end well"
gateway_rules || die 'the rules of the gateway cannot be loaded'
ip addr del "$TUNNEL_MARK/32" dev "$VXLAN" 2>/dev/null
state
log "sidecar: waiting for $TUNNEL"
while :; do
  tunnel_state
  answerer
  resolver
  repair
  silence
  # names are asked every two seconds (the cluster's DNS caches for longer than that), after a failure every second
  if [ "$MISSED" -gt 0 ] || [ $((TURN % 2)) -eq 0 ]; then learn; state; fi
  TURN=$((TURN + 1))
  run sleep 1
done
"""
