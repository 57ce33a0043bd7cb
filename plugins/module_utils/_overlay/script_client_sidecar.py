# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The client's sidecar."""

from __future__ import annotations

SCRIPT = r"""#!/bin/sh
# Keeps the overlay right as long as the pod lives. The way out is open only while the gateway answers over the overlay.
DIR=${0%/*}
# shellcheck source=/dev/null
. "$DIR/lib.sh"
# shellcheck source=/dev/null
. "$DIR/guard.sh"
# shellcheck source=/dev/null
. "$DIR/raw.sh"
# shellcheck source=/dev/null
. "$DIR/overlay.sh"

ASKER=
TUNNEL_ASKER=
finish() {
  trap '' TERM INT
  [ -z "$ASKER" ] || kill "$ASKER" "$TUNNEL_ASKER" 2>/dev/null
  # the pod ends: the gateway must not go on sending to an address that dies
  [ "$OPEN" = no ] || tells "$VIA" || tells "$VIA"
  log ends
  exit 0
}
tells() { ping -q -c 1 -W 1 -s "$ENDING" "$1" >/dev/null 2>&1; }
trap finish TERM INT

choose_interface
choose_iptables
choose_ip6tables
choose_recent
POD=$(own_address)
[ -n "$POD" ] || die "the pod has no IPv$OUTER address"
overlay_names
TUNNEL=unknown
STARTED=$(date +%s)
SINCE=$STARTED
OPENED=0
REPAIRED=0

state() {
  printf 'OVERLAY=%s\nTUNNEL=%s\nPEER=%s\nADDRESS=%s\nSINCE=%s\nOPENED=%s\nREPAIRED=%s\nRAW=%s\n' \
    "$OPEN" "$TUNNEL" "$PEER" "$ADDRESS" "$SINCE" "$OPENED" "$REPAIRED" "$RAW" >"$STATE/state.new"
  mv "$STATE/state.new" "$STATE/state"
}

lay() {
  guard_load
  raw_load
  arp_hold
  overlay_up
  [ "$OPEN" = no ] || overlay_default
}

# Where the gateway's pod is: asked behind its ClusterIP, else at the cluster's DNS. Taken only from inside the pod ranges.
look_up() {
  look_port=53
  look_name=$GATEWAY_NAME
  if [ -n "$GATEWAY" ]; then
    look_port=$FINDER
    look_name=$FINDER_NAME
  fi
  look_type=A
  [ "$OUTER" = 4 ] || look_type=AAAA
  for look_server in ${GATEWAY:-$DNS_SERVERS}; do
    for look_answer in $(dig +short +time=1 +tries=1 -p "$look_port" "@$look_server" "$look_name." "$look_type" 2>/dev/null); do
      if [ "$OUTER" = 4 ]; then is_ipv4 "$look_answer" || continue; else is_ipv6 "$look_answer" || continue; fi
      # shellcheck disable=SC2086 # a list
      if in_networks "$look_answer" $POD_RANGES; then
        echo "$look_answer"
        return 0
      fi
    done
  done
  return 1
}

follow() {
  look_up >"$STATE/peer" &
  wait $!
  follow_found=$(cat "$STATE/peer")
  [ -n "$follow_found" ] || return 1
  [ "$follow_found" != "$PEER" ] || return 0
  log "gateway: ${GATEWAY:-$GATEWAY_NAME} is the pod at $follow_found"
  PEER=$follow_found
  overlay_peer
  guard_gate
  raw_load
}

answers() { run ping -q -n -c 1 -W 1 -s "$ASKING" "$1" >/dev/null 2>&1; }

change() { # OVERLAY TUNNEL reason
  [ "$1 $2" = "$OPEN $TUNNEL" ] && return 0
  if [ "$1" = yes ] && [ "$OPEN" = no ]; then
    OPEN=yes
    OPENED=$((OPENED + 1))
    guard_gate
    overlay_default
  elif [ "$1" = no ] && [ "$OPEN" = yes ]; then
    overlay_no_default
    OPEN=no
    guard_gate
  fi
  TUNNEL=$2
  log "overlay $([ "$OPEN" = yes ] && echo open || echo closed), tunnel $TUNNEL: $3 (after $(($(date +%s) - SINCE)) s)"
  SINCE=$(date +%s)
  state
}

# Where the kernel notes the answers, two processes ask all the time, and a look is no more than reading when the last one came.
ask() {
  alive "$ASKER" || {
    ping -q -i "$EVERY" -s "$ASKING" "$VIA" >/dev/null 2>&1 &
    ASKER=$!
  }
  alive "$TUNNEL_ASKER" || {
    ping -q -i "$EVERY_TUNNEL" -s "$ASKING" "$TUNNEL_MARK" >/dev/null 2>&1 &
    TUNNEL_ASKER=$!
  }
}

# The kernel's time of the last answer in a list; nothing when there was none, or the gateway has said goodbye since.
# Fails without the list: it goes with the rules that name it.
noted() {
  noted_line=
  NOTED=
  [ -r "/proc/net/xt_recent/$1" ] || return 1
  read -r noted_line <"/proc/net/xt_recent/$1"
  NOTED=${noted_line#*last_seen: }
  NOTED=${NOTED%% *}
}

noted "$ANSWERS"
LAST=$NOTED # of the time before this sidecar
LAST_TUNNEL=
SILENT=0
SILENT_TUNNEL=0
# A ping that knows whole seconds only needs a longer lease, which bears a lost answer.
EVERY=0.25
EVERY_TUNNEL=0.5
SILENCE=1 # looks
choose_pace() {
  ping -q -c 1 -W 1 -i "$EVERY" 127.0.0.1 >/dev/null 2>&1 && return 0
  EVERY=1
  EVERY_TUNNEL=1
  SILENCE=3
  LEASE=3
}

look_noted() {
  ask
  noted "$ANSWERS_TUNNEL"
  if [ "$NOTED" = "$LAST_TUNNEL" ]; then SILENT_TUNNEL=$((SILENT_TUNNEL + 1)); else SILENT_TUNNEL=0; fi
  LAST_TUNNEL=$NOTED
  noted "$ANSWERS" || repair
  if [ "$NOTED" = "$LAST" ]; then SILENT=$((SILENT + 1)); else SILENT=0; fi
  LAST=$NOTED
  if [ "$OPEN" = no ]; then
    if [ "$SILENT" -eq 0 ] && [ -n "$NOTED" ] && [ -n "$PEER" ]; then
      SILENT_TUNNEL=0
      change yes unknown 'the gateway answers'
    else
      change no down "no answer from the gateway ${PEER:-${GATEWAY:-$GATEWAY_NAME}} over the overlay"
      follow
    fi
  elif [ -z "$NOTED" ]; then
    change no down "the gateway $PEER has said goodbye"
  elif [ "$SILENT" -ge "$SILENCE" ] && [ "$SILENT_TUNNEL" -ge "$SILENCE" ] && [ "$TUNNEL" = up ] || [ "$SILENT" -ge 5 ]; then
    change no down "no answer from the gateway $PEER over the overlay"
  elif [ "$SILENT_TUNNEL" -eq 0 ]; then
    change yes up 'its tunnel is up'
  elif [ "$SILENT_TUNNEL" -ge 5 ] || { [ "$SILENT_TUNNEL" -gt "$SILENCE" ] && [ "$TUNNEL" = up ]; }; then
    change yes down 'the gateway answers, its tunnel is down'
  fi
}

# Elsewhere: two questions without an answer, two seconds, close the overlay. While it is closed, where the gateway is comes
# first: if nobody can tell, it is seldom worth a second to ping the old one.
look_asked() {
  if [ "$OPEN" = no ]; then
    if { follow || [ $((turn % 4)) -eq 0 ]; } && [ -n "$PEER" ] && answers "$VIA"; then
      change yes unknown 'the gateway answers' # its tunnel is the next question, and may take a second
    else
      change no down "no answer from the gateway ${PEER:-${GATEWAY:-$GATEWAY_NAME}} over the overlay"
    fi
  elif answers "$TUNNEL_MARK"; then
    change yes up 'its tunnel is up'
  elif answers "$VIA"; then
    change yes down 'the gateway answers, its tunnel is down'
  else
    change no down "no answer from the gateway $PEER over the overlay"
  fi
}

repair() {
  guard_intact && overlay_intact && return 0
  REPAIRED=$((REPAIRED + 1))
  log 'repair: rules, link or routes had been changed'
  lay
  state
}

lay
[ "$RECENT" = no ] || choose_pace
overlay_no_default
state
log "sidecar: $ADDRESS waits for the gateway ${PEER:-${GATEWAY:-$GATEWAY_NAME}}"
turn=0
if [ "$RECENT" = yes ]; then
  log "the kernel itself closes the overlay ${LEASE} s after the gateway's last answer"
else
  log 'warning: no kernel match called recent here: the overlay closes when the sidecar has missed two answers'
fi
while :; do
  if [ "$RECENT" = yes ]; then look_noted; else look_asked; fi
  turn=$((turn + 1))
  if [ $((turn % 5)) -eq 0 ]; then repair; fi
  # a pod that waits looks often, one that works once a second
  if [ "$OPEN $TUNNEL" = 'yes up' ]; then run sleep 1; else run sleep 0.2; fi
done
"""
