# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shared by all scripts: addresses, logging, loading of rules."""

from __future__ import annotations

SCRIPT = r"""#!/bin/sh
# Shared by every script: arithmetic on addresses, logging, and the one way packet rules are loaded.
# Sourced; needs DIR (the folder of the scripts). Runs under busybox ash and dash.

# shellcheck disable=SC1091 # written by the manifests
. "$DIR/settings.sh"

STATE=${NETGUARD_STATE:-/run/netguard}
VXLAN=vxlan0
# Bytes that a question carries: a client asks whether the gateway is there, or tells it that the pod ends.
ASKING=16
ENDING=40
SAVED_TABLE=4753 # the default routes that the pod was born with, kept in its namespace: it outlives every container
# Behind the gateway's ClusterIP its sidecar says at which address its pod is (a name asked by DNS, on the port after the
# overlay's): the overlay itself is never translated, whatever the CNI does with packets of the kernel.
FINDER=$((PORT + 1))
FINDER_NAME=gateway.netguard
mkdir -p "$STATE"

log() { printf '%s netguard %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$*"; }
die() {
  log "error: $*"
  exit 1
}

# Whether a process of this container runs. `kill -0` would say no of one that gave up root, as dnsmasq does: in a pod root has no
# CAP_KILL.
alive() { [ -n "$1" ] && [ -d "/proc/$1" ]; }

# A sleep or command that a signal ends at once: a shell runs traps only between foreground commands.
run() {
  "$@" &
  wait $!
}

list() { printf '%s' "$1" | tr ',' ' '; }

family_of() {
  case $1 in
    *:*) echo 6 ;;
    *) echo 4 ;;
  esac
}

# Those of the words that are of family $1.
only() {
  only_family=$1
  shift
  for only_word in "$@"; do
    [ "$(family_of "$only_word")" = "$only_family" ] && printf '%s ' "$only_word"
  done
  return 0
}

first() { printf '%s' "${1-}"; }

is_ipv4() {
  case $1 in
    *[!0-9.]* | '' | .* | *. | *..*) return 1 ;;
  esac
  is_ifs=$IFS
  IFS=.
  # shellcheck disable=SC2086 # split on dots
  set -- $1
  IFS=$is_ifs
  [ $# -eq 4 ] || return 1
  for is_octet in "$@"; do
    [ "${#is_octet}" -le 3 ] && [ "$is_octet" -le 255 ] || return 1
  done
}

is_ipv6() {
  case $1 in
    *:*) ;;
    *) return 1 ;;
  esac
  case $1 in
    *[!0-9a-fA-F:]*) return 1 ;;
  esac
}

number4() {
  number_ifs=$IFS
  IFS=.
  # shellcheck disable=SC2086 # split on dots
  set -- $1
  IFS=$number_ifs
  echo $(($1 * 16777216 + $2 * 65536 + $3 * 256 + $4))
}

dotted() { echo "$(($1 / 16777216 % 256)).$(($1 / 65536 % 256)).$(($1 / 256 % 256)).$(($1 % 256))"; }

# The eight groups of an IPv6 address as decimal numbers.
groups6() {
  groups_head=${1%%::*}
  groups_tail=
  case $1 in
    *::*) groups_tail=${1#*::} ;;
  esac
  groups_ifs=$IFS
  IFS=:
  # shellcheck disable=SC2086 # split on colons
  set -- $groups_head
  groups_count=$#
  groups_text="$*"
  # shellcheck disable=SC2086 # split on colons
  set -- $groups_tail
  groups_missing=$((8 - groups_count - $#))
  groups_rest="$*"
  IFS=$groups_ifs
  while [ "$groups_missing" -gt 0 ]; do
    groups_text="$groups_text:0"
    groups_missing=$((groups_missing - 1))
  done
  for groups_word in $(printf '%s:%s' "$groups_text" "$groups_rest" | tr ':' ' '); do
    printf '%d ' "0x$groups_word"
  done
}

# Whether address $1 is in one of the networks that follow.
in_networks() {
  in_address=$1
  shift
  for in_network in "$@"; do
    [ "$(family_of "$in_address")" = "$(family_of "$in_network")" ] || continue
    in_bits=${in_network#*/}
    if [ "$(family_of "$in_address")" = 4 ]; then
      [ "$in_bits" = "$in_network" ] && in_bits=32
      in_size=$((1 << (32 - in_bits)))
      [ $(($(number4 "$in_address") / in_size)) -eq $(($(number4 "${in_network%/*}") / in_size)) ] && return 0
    else
      [ "$in_bits" = "$in_network" ] && in_bits=128
      in_network6 "$in_bits" "$(groups6 "$in_address")" "$(groups6 "${in_network%/*}")" && return 0
    fi
  done
  return 1
}

in_network6() {
  in_left=$1
  in_other=$3
  for in_group in $2; do
    [ "$in_left" -gt 0 ] || return 0
    in_this=${in_other%% *}
    in_other=${in_other#* }
    in_skip=$((in_left < 16 ? 16 - in_left : 0))
    [ $((in_group >> in_skip)) -eq $((in_this >> in_skip)) ] || return 1
    in_left=$((in_left - 16))
  done
}

# The overlay address of the pod at address $1 (the same sum as settings.derived_address).
derived() {
  derived_size=$((1 << (32 - ${NETWORK#*/})))
  if [ "$(family_of "$1")" = 4 ]; then
    derived_host=$(($(number4 "$1") % derived_size))
  else
    # shellcheck disable=SC2046 # split into groups
    set -- $(groups6 "$1")
    derived_host=$((($8 + 257 * $7 + 256 * $4 + 65599 * $5 + 31 * $6) % derived_size))
  fi
  case $derived_host in
    0 | 1 | $((derived_size - 2)) | $((derived_size - 1))) derived_host=$((derived_host ^ (derived_size >> 1))) ;;
  esac
  dotted $(($(number4 "${NETWORK%/*}") + derived_host))
}

overlay_gateway() { dotted $(($(number4 "${NETWORK%/*}") + 1)); }
overlay_mark() { dotted $(($(number4 "${NETWORK%/*}") + (1 << (32 - ${NETWORK#*/})) - 2)); }

# MAC addresses follow from overlay addresses, so that neither side learns anything from the wire.
mac_of() {
  mac_number=$(number4 "$1")
  printf '02:4e:%02x:%02x:%02x:%02x' $((mac_number / 16777216 % 256)) $((mac_number / 65536 % 256)) \
    $((mac_number / 256 % 256)) $((mac_number % 256))
}

link_mtu() { ip -o link show dev "$1" | sed -n 's/.* mtu \([0-9]*\).*/\1/p'; }

# What fits into the tunnel and, with its 50 (IPv6: 70) bytes of headers, into the pod's own interface.
overlay_mtu() {
  mtu_room=$(($(link_mtu "$INTERFACE") - (OUTER == 6 ? 70 : 50)))
  if [ "$mtu_room" -lt "$TUNNEL_MTU" ]; then echo "$mtu_room"; else echo "$TUNNEL_MTU"; fi
}

own_address() {
  # shellcheck disable=SC2046,SC2086 # lists of words
  first $(only "$OUTER" $(list "${POD_IPS:-}"))
}

# The pod's own interface is the one that carries its address, whatever the CNI calls it and however many others there are;
# for want of an address, the one of the default route.
choose_interface() {
  [ -z "$INTERFACE" ] || return 0
  # shellcheck disable=SC2046 # a list
  for choose_ip in $(list "${POD_IPS:-}"); do
    INTERFACE=$(ip -o addr show to "$choose_ip" 2>/dev/null | sed -n '1s/^[0-9]*: *\([^ ]*\) .*/\1/p')
    [ -z "$INTERFACE" ] || return 0
  done
  INTERFACE=$(ip route show default 2>/dev/null | sed -n '1s/.* dev \([^ ]*\).*/\1/p')
  [ -n "$INTERFACE" ] || INTERFACE=eth0
}

has_ipv6() { [ -e /proc/net/if_inet6 ]; }

# The nft build, in Gluetun's order. Rules of the legacy build stand in tables of their own: the saved rules of one build do not
# show the other's, and a DROP in one is not undone by an ACCEPT in the other.
choose_build() { # iptables or ip6tables -> its name; fails with choose_found saying what is here instead
  choose_found="no $1"
  for choose_tool in "$1" "$1-nft"; do
    command -v "$choose_tool" >/dev/null 2>&1 || continue
    case $("$choose_tool" -V 2>/dev/null) in
      *nf_tables*) ;;
      *)
        choose_found="$choose_tool is the legacy build"
        continue
        ;;
    esac
    choose_found="$choose_tool takes no rule"
    "$choose_tool" -w 5 -A OUTPUT -o netguard-probe -j DROP 2>/dev/null || continue
    "$choose_tool" -w 5 -D OUTPUT -o netguard-probe -j DROP && return 0
  done
  return 1
}
choose_iptables() {
  choose_build iptables || die "no working iptables of the nft build ($choose_found): the pod cannot be closed"
  IPT4=$choose_tool
}
choose_ip6tables() {
  IPT6=
  if choose_build ip6tables; then
    IPT6=$choose_tool
  elif has_ipv6; then
    die "no working ip6tables of the nft build ($choose_found), and the kernel speaks IPv6: the pod cannot be closed"
  fi
}
# Whether the kernel can remember when something was last seen (its `recent` match): not every kernel has it.
choose_recent() {
  RECENT=no
  ipt 4 -N NETGUARD-TRY 2>/dev/null
  ipt 4 -A NETGUARD-TRY -m recent --rcheck --seconds 1 --mask 0.0.0.0 --rsource --name netguard-try 2>/dev/null && RECENT=yes
  ipt 4 -F NETGUARD-TRY
  ipt 4 -X NETGUARD-TRY
}
ipt() {
  ipt_family=$1
  shift
  if [ "$ipt_family" = 4 ]; then "$IPT4" -w 5 "$@"; else "$IPT6" -w 5 "$@"; fi
}
# All rules of a family in one transaction; what is not named stays.
restore() {
  if [ "$1" = 4 ]; then
    "$IPT4-restore" -w 5 --noflush
  else
    "$IPT6-restore" -w 5 --noflush
  fi
}
tables_of() { if [ "$1" = 4 ]; then "$IPT4-save" -t "$2"; else "$IPT6-save" -t "$2"; fi; }

# The line that makes $3 the first jump of chain $2, unless it is: foreign rules stay, behind it.
jump() {
  [ "$(ipt "$1" -t "$2" -S "$3" 2>/dev/null | sed -n 2p)" = "-A $3 -j $4" ] || echo "-I $3 1 -j $4"
}
"""
