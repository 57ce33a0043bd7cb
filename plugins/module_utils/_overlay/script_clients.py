# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who the gateway's clients are."""

from __future__ import annotations

SCRIPT = r"""#!/bin/sh
# Who the clients are: the pods behind the names of the mounted list, and the ports that are forwarded to them. Sourced by
# gateway-init.sh (so that clients come back before Gluetun is up) and gateway-sidecar.sh, after gateway.sh.

LIST=${NETGUARD_CLIENTS:-/netguard-clients/clients}
GLUETUN=${NETGUARD_GLUETUN:-/tmp/gluetun}
CLIENTS=$STATE/clients
FORWARDED=$STATE/forwarded
MISSED=0
mkdir -p "$STATE/names"
: >"$STATE/heard"
: >"$CLIENTS"
: >"$FORWARDED"

# The pods behind a name, one a line. No answer (as opposed to an empty one) keeps what is known.
ask() {
  ask_type=A
  [ "$OUTER" = 4 ] || ask_type=AAAA
  for ask_server in $DNS_SERVERS; do
    run dig +noall +comments +answer +time=1 +tries=1 "@$ask_server" "$1." "$ask_type" >"$STATE/asked" 2>/dev/null
    ask_text=$(cat "$STATE/asked")
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
  MISSED=0
  : >"$STATE/clients.new"
  : >"$STATE/forwarded.new"
  while read -r name forwards; do
    case $name in
      '' | \#* | */*) continue ;;
    esac
    ask "$name" || MISSED=$((MISSED + 1))
    if [ ! -f "$STATE/names/$name" ]; then
      # never answered yet: whoever the kernel knows from before stays
      cat "$CLIENTS" >>"$STATE/clients.new"
      continue
    fi
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

# A client that has gone silent gets nothing more until it is heard again: when the way to it is missing on the node, the node's
# default route would take the frames out of the cluster. Every client asks for the tunnel about once a second. Who has never
# been heard needs no entry here: frames are answers (`mangle_output`).
SILENT_AFTER=3 # looks, a second or more apart
silence() {
  "$(if [ "$OUTER" = 4 ]; then echo "$IPT4"; else echo "$IPT6"; fi)-save" -c -t mangle 2>/dev/null |
    sed -n 's/^\[\([0-9]*\):[0-9]*\] -A NETGUARD-CLIENTS -s \([^ /]*\).*/\2 \1/p' >"$STATE/counts"
  awk -v limit="$SILENT_AFTER" '
    FILENAME == ARGV[1] { count[$1] = $2; age[$1] = $3; next }
    FILENAME == ARGV[2] { inner[$1] = $2; mac[$1] = $3; next }
    $1 in inner {
      was = ($1 in age) ? age[$1] : -1
      now = ($2 > count[$1]) ? 0 : (was < 0 ? -1 : was + 1)
      print $1, $2, now
      if (now >= limit) print (now == limit ? "quiet" : "still"), $1, mac[$1] > "/dev/stderr"
      else if (was >= limit) print "heard", $1, mac[$1] > "/dev/stderr"
    }' "$STATE/heard" "$CLIENTS" "$STATE/counts" >"$STATE/heard.new" 2>"$STATE/turns"
  mv "$STATE/heard.new" "$STATE/heard"
  while read -r turn_what turn_outer turn_mac; do
    case $turn_what in
      heard) bridge fdb replace "$turn_mac" dev "$VXLAN" dst "$turn_outer" self permanent ;;
      *) bridge fdb del "$turn_mac" dev "$VXLAN" dst "$turn_outer" self 2>/dev/null ;;
    esac
    [ "$turn_what" = still ] || log "client $turn_outer: $turn_what"
  done <"$STATE/turns"
}

# The pod goes, and its address with it: frames that clients still send would follow the routes of their nodes, in clear, wherever
# those lead then. So nothing is answered or sent any more, and each client is asked something, which closes it at once
# (`guard_answers`): its answer tells that nothing more will come. One that cannot answer (a kernel without the `recent` match, a
# broken network) closes by itself when its questions stay unanswered: that is what the rest of the time is for.
tells() { ping -q -c 1 -W 1 -s "$ASKING" "$1" >/dev/null 2>&1; }
GOODBYES=4 # rounds, of up to a second
goodbye() {
  [ -n "${U32:-}" ] || return 0 # this sidecar has hardly begun
  LEAVING=yes
  mangle_text 4 | restore 4 || log 'error: the rules for leaving cannot be loaded'
  mkdir -p "$STATE/closed"
  rm -f "$STATE/closed/"*
  goodbye_round=0
  while [ "$goodbye_round" -lt "$GOODBYES" ]; do
    goodbye_round=$((goodbye_round + 1))
    goodbye_asked=
    while read -r goodbye_outer goodbye_inner _; do
      [ ! -e "$STATE/closed/$goodbye_inner" ] || continue
      # twice: answers that were on their way are then behind it for sure
      { tells "$goodbye_inner" && tells "$goodbye_inner" && : >"$STATE/closed/$goodbye_inner"; } &
      goodbye_asked="$goodbye_asked $!"
    done <"$CLIENTS"
    # shellcheck disable=SC2086 # a list
    [ -z "$goodbye_asked" ] || wait $goodbye_asked
    goodbye_left=
    while read -r goodbye_outer goodbye_inner _; do
      # who has not been heard lately is closed, or gone
      awk -v outer="$goodbye_outer" -v limit="$SILENT_AFTER" '$1 == outer && $3 >= 0 && $3 < limit { found = 1 } END { exit !found }' \
        "$STATE/heard" || continue
      [ -e "$STATE/closed/$goodbye_inner" ] || goodbye_left="$goodbye_left $goodbye_outer"
    done <"$CLIENTS"
    [ -n "$goodbye_left" ] || break
  done
  [ -z "$goodbye_left" ] || log "goodbye: not answered by$goodbye_left"
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
"""
