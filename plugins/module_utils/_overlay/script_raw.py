# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guard against raw frames: destinations at the egress hook of the device."""

from __future__ import annotations

SCRIPT = r"""#!/bin/sh
# Raw frames (AF_PACKET) skip the guard's chains: a list of destinations at the device's egress hook holds them.
# By nft (kernel 5.16), else by a classic BPF program under tc, which a socket with PACKET_QDISC_BYPASS gets around; where
# neither works the log says so, and the application must not have NET_RAW. Sourced after guard.sh.

# Networks of family $1 that the guard's accepts can lead to; the gateway is apart, by port and mark.
raw_networks() {
  # shellcheck disable=SC2046,SC2086 # lists of words
  set -- "$1" $(hosts_of "$1") $(only "$1" $PROBE_SOURCES $DNS_SERVERS $GATEWAY)
  for raw_item in $EGRESS $INGRESS; do
    [ "$(family_of "$raw_item")" = "$1" ] && set -- "$@" "${raw_item%%,*}"
  done
  # shellcheck disable=SC2086,SC2046 # a list
  [ "$MESH" = yes ] && set -- "$@" $(only "$1" $POD_RANGES)
  [ "$1" = 6 ] && set -- "$@" ff02::/16 fe80::/10
  shift
  for raw_item in "$@"; do
    echo "$raw_item"
  done | sort -u
}

raw_nft() {
  command -v nft >/dev/null 2>&1 || return 1
  raw_port="udp dport $PORT meta mark and 0xff000000 == 0x4e000000 accept"
  {
    echo 'add table netdev netguard'
    echo 'delete table netdev netguard'
    echo 'table netdev netguard {'
    echo '  chain egress {'
    echo "    type filter hook egress device \"$INTERFACE\" priority 0; policy drop;"
    echo '    ether type arp accept'
    if [ -n "$PEER" ]; then
      if [ "$OUTER" = 4 ]; then echo "    ip daddr $PEER $raw_port"; else echo "    ip6 daddr $PEER $raw_port"; fi
    fi
    # toward networks that may be talked to, a frame of the overlay must not be forged either
    echo "    udp dport $PORT counter drop"
    raw_networks 4 | sed 's/.*/    ip daddr & accept/'
    raw_networks 6 | sed 's/.*/    ip6 daddr & accept/'
    echo '    counter drop'
    echo '  }'
    echo '}'
  } | nft -f - 2>/dev/null
}

# One line per instruction: code, jump if true, jump if false, operand.
raw_program() {
  {
    echo "port $PORT"
    [ -n "$PEER" ] && echo "net $(raw_words "$PEER")"
    raw_networks 4 | while read -r raw_item; do echo "net $(raw_words "$raw_item")"; done
    raw_networks 6 | while read -r raw_item; do echo "net $(raw_words "$raw_item")"; done
  } | awk '
    function put(code, jt, jf, k) { program[++n] = code " " jt " " jf " " k }
    $1 == "net" && $2 == 4 { v4[++n4] = $0 }
    $1 == "net" && $2 == 6 { v6[++n6] = $0 }
    END {
      put(40, 0, 0, 12); put(21, 0, 1, 2054); put(6, 0, 0, 0)
      put(21, 1, 0, 2048); put(5, 0, 0, n4 * 4 + 1)
      for (i = 1; i <= n4; i++) {
        split(v4[i], w, " ")
        put(32, 0, 0, 30); put(84, 0, 0, w[4]); put(21, 0, 1, w[3]); put(6, 0, 0, 0)
      }
      put(6, 0, 0, 2)
      put(40, 0, 0, 12); put(21, 1, 0, 34525); put(6, 0, 0, 2)
      for (i = 1; i <= n6; i++) {
        split(v6[i], w, " ")
        for (j = 0; j < 4; j++) {
          put(32, 0, 0, 38 + 4 * j); put(84, 0, 0, w[4 + 2 * j])
          put(21, 0, 3 * (3 - j) + 1, w[3 + 2 * j])
        }
        put(6, 0, 0, 0)
      }
      put(6, 0, 0, 2)
      printf "%d", n
      for (i = 1; i <= n; i++) printf ",%s", program[i]
    }'
}

# Family, then network and mask by words of 32 bits.
raw_words() {
  raw_bits=${1#*/}
  if [ "$(family_of "$1")" = 4 ]; then
    [ "$raw_bits" = "$1" ] && raw_bits=32
    raw_mask=$(((4294967295 << (32 - raw_bits)) & 4294967295))
    echo "4 $(($(number4 "${1%/*}") & raw_mask)) $raw_mask"
    return
  fi
  [ "$raw_bits" = "$1" ] && raw_bits=128
  # shellcheck disable=SC2046 # split into groups
  set -- $(groups6 "${1%/*}")
  printf 6
  while [ $# -gt 0 ]; do
    raw_part=$((raw_bits > 32 ? 32 : raw_bits))
    raw_mask=$(((4294967295 << (32 - raw_part)) & 4294967295))
    printf ' %s %s' "$((($1 * 65536 + $2) & raw_mask))" "$raw_mask"
    raw_bits=$((raw_bits - raw_part))
    shift 2
  done
  echo
}

raw_tc() {
  command -v tc >/dev/null 2>&1 || return 1
  tc qdisc add dev "$INTERFACE" clsact 2>/dev/null
  tc filter replace dev "$INTERFACE" egress protocol all prio 4753 handle 1 bpf direct-action bytecode "$(raw_program)" 2>/dev/null
}

raw_load() {
  if raw_nft; then
    RAW=nft
  elif raw_tc; then
    RAW=tc
  else
    RAW=none
  fi
  [ "$RAW" = "$(cat "$STATE/raw" 2>/dev/null)" ] && return 0
  echo "$RAW" >"$STATE/raw"
  case $RAW in
    nft) log 'raw frames: held by an nft list of destinations' ;;
    tc) log 'raw frames: held by a tc program, except for sockets that bypass queueing: take NET_RAW from the application' ;;
    none) log 'warning: raw frames are not held here (no nft, no tc with BPF): take NET_RAW from the application' ;;
  esac
}
"""
