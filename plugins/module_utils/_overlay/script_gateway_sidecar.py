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

LIST=${NETGUARD_CLIENTS:-/netguard-clients/clients}
GLUETUN=${NETGUARD_GLUETUN:-/tmp/gluetun}
CLIENTS=$STATE/clients
FORWARDED=$STATE/forwarded
RESOLVER=
UP=no
SINCE=$(date +%s)
REPAIRED=0
LEARNT=0

finish() {
  [ -z "$RESOLVER" ] || kill "$RESOLVER" 2>/dev/null
  log ends
  exit 0
}
trap finish TERM INT

choose_iptables
choose_ip6tables
gateway_names
choose_u32
: >"$FORWARDED"
mkdir -p "$STATE/names"
# what an earlier sidecar of this pod had learnt still stands in the kernel
bridge fdb show dev "$VXLAN" | sed -n 's/^\(02:4e:[0-9a-f:]*\) dst \([^ ]*\) .*/\1 \2/p' | while read -r mac outer; do
  echo "$outer $(derived "$outer") $mac"
done >"$CLIENTS"

state() {
  printf 'UP=%s\nKNOWN=%s\nSINCE=%s\nREPAIRED=%s\nRESOLVER=%s\n' "$UP" "$(wc -l <"$CLIENTS" | tr -d ' ')" "$SINCE" "$REPAIRED" \
    "$RESOLVER" >"$STATE/state.new"
  mv "$STATE/state.new" "$STATE/state"
}

# The pods behind a name, one a line. No answer (as opposed to an empty one) keeps what is known.
ask() {
  ask_type=A
  [ "$OUTER" = 4 ] || ask_type=AAAA
  for ask_server in $DNS_SERVERS; do
    ask_text=$(dig +noall +comments +answer +time=1 +tries=1 "@$ask_server" "$1." "$ask_type" 2>/dev/null)
    case $ask_text in
      *'status: NOERROR'* | *'status: NXDOMAIN'*)
        printf '%s\n' "$ask_text" | awk -v t="$ask_type" '$4 == t { print $5 }' | sort -u >"$STATE/names/$1"
        return 0
        ;;
    esac
  done
  return 1
}

learn() {
  [ -r "$LIST" ] || return 0
  : >"$STATE/clients.new"
  : >"$STATE/forwarded.new"
  while read -r name forwards; do
    case $name in
      '' | \#* | */*) continue ;;
    esac
    ask "$name"
    [ -f "$STATE/names/$name" ] || continue
    while read -r outer; do
      if [ "$OUTER" = 4 ]; then is_ipv4 "$outer" || continue; else is_ipv6 "$outer" || continue; fi
      # shellcheck disable=SC2086 # a list
      in_networks "$outer" $POD_RANGES || continue
      inner=$(derived "$outer")
      echo "$outer $inner $(mac_of "$inner")" >>"$STATE/clients.new"
      forward "$inner" "$forwards"
      forwards=
    done <"$STATE/names/$name"
  done <"$LIST"
  settle
}

forward() { # inner, words protocol:outer:inner; outer 0: the port that the provider hands out
  for forward_item in $2; do
    forward_protocol=${forward_item%%:*}
    forward_item=${forward_item#*:}
    forward_outer=${forward_item%%:*}
    if [ "$forward_outer" = 0 ]; then
      forward_outer=$(sed -n '/^[0-9][0-9]*$/{p;q;}' "$GLUETUN/forwarded_port" 2>/dev/null)
      [ -n "$forward_outer" ] || continue
    fi
    echo "$forward_protocol $forward_outer $1 ${forward_item#*:}" >>"$STATE/forwarded.new"
  done
}

# Two pods with one overlay address: who was there first keeps it.
settle() {
  {
    grep -Fx -f "$STATE/clients.new" "$CLIENTS" 2>/dev/null
    cat "$STATE/clients.new"
  } | awk '!seen[$0]++ { if ($2 in taken) print $1, $2 > "/dev/stderr"; else { taken[$2] = 1; print } }' \
    >"$STATE/clients.next" 2>"$STATE/refused"
  sort "$STATE/clients.next" >"$STATE/clients.new"
  if ! cmp -s "$STATE/clients.new" "$CLIENTS"; then
    cp "$CLIENTS" "$STATE/clients.old"
    cp "$STATE/clients.new" "$CLIENTS"
    peers
    clients_load || log 'error: the list of clients cannot be loaded'
    log "clients: $(wc -l <"$CLIENTS" | tr -d ' ') known: $(awk '{ printf "%s=%s ", $1, $2 }' "$CLIENTS")"
    [ ! -s "$STATE/refused" ] ||
      log "error: overlay address taken, closed until they get another pod address: $(tr '\n' ' ' <"$STATE/refused")"
  fi
  if ! cmp -s "$STATE/forwarded.new" "$FORWARDED"; then
    cp "$STATE/forwarded.new" "$FORWARDED"
    nat_text | restore 4 || log 'error: the forwarded ports cannot be loaded'
    log "forwards: $(tr '\n' ';' <"$FORWARDED")"
  fi
}

peers() {
  while read -r outer inner mac; do
    if ! grep -q "^$outer $inner " "$CLIENTS"; then
      bridge fdb del "$mac" dev "$VXLAN" dst "$outer" self 2>/dev/null
      grep -q " $inner " "$CLIENTS" || ip neigh del "$inner" dev "$VXLAN" 2>/dev/null
    fi
  done <"$STATE/clients.old"
  while read -r outer inner mac; do
    bridge fdb replace "$mac" dev "$VXLAN" dst "$outer" self permanent
    ip neigh replace "$inner" lladdr "$mac" dev "$VXLAN" nud permanent
  done <"$CLIENTS"
}

tunnel_works() {
  case $(ip -o link show dev "$TUNNEL" up 2>/dev/null) in
    '') return 1 ;;
  esac
  [ -n "$HEALTH" ] || return 0
  wget -q -T 1 -O /dev/null "http://$HEALTH/" 2>/dev/null
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

resolver() {
  [ "$DNS" != cluster ] || return 0
  if [ -n "$RESOLVER" ] && kill -0 "$RESOLVER" 2>/dev/null; then return 0; fi
  [ -z "$RESOLVER" ] || log 'resolver: dnsmasq ended, starting it again'
  set -- --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --no-poll --pid-file= --cache-size=1000 \
    --user=nobody --bind-interfaces --interface="$VXLAN" --except-interface=lo --listen-address="$VIA" --server="$UPSTREAM" \
    --log-facility=-
  if [ "$DNS" = split ]; then
    for resolver_zone in $CLUSTER_DOMAIN $REVERSE_ZONES; do
      for resolver_server in $DNS_SERVERS; do
        set -- "$@" --server="/$resolver_zone/$resolver_server"
      done
    done
  fi
  dnsmasq "$@" &
  RESOLVER=$!
  state
}

repair() {
  # an address that is gone took its routes and the resolver's socket with it
  ip addr replace "$VIA/${NETWORK#*/}" dev "$VXLAN" 2>/dev/null
  rules_intact && return 0
  REPAIRED=$((REPAIRED + 1))
  log 'repair: rules had been changed (does Gluetun fail to start?)'
  rm -f "$STATE/rules4" "$STATE/rules6"
  if ! gateway_rules || ! rules_intact; then log "error: the rules cannot be put back"; fi
  state
}

ip link show dev "$VXLAN" >/dev/null 2>&1 || die "no $VXLAN: the init container of this pod did not end well"
rm -f "$STATE/rules4" "$STATE/rules6"
gateway_rules || die 'the rules of the gateway cannot be loaded'
ip addr del "$TUNNEL_MARK/32" dev "$VXLAN" 2>/dev/null
state
log "sidecar: waiting for $TUNNEL"
while :; do
  tunnel_state
  resolver
  repair
  # names are asked every two seconds; the cluster's DNS caches for longer than that
  if [ $((LEARNT % 2)) -eq 0 ]; then learn; state; fi
  LEARNT=$((LEARNT + 1))
  run sleep 1
done
"""
