# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guard of a client: its rule set."""

from __future__ import annotations

SCRIPT = r"""#!/bin/sh
# The guard: nothing leaves or enters the pod but what is listed here. Sourced by client-init.sh and client-sidecar.sh.
#
# Table filter alone, in chains of our own that end in DROP; a mesh owns nat and mangle. The overlay's chain is open (OPEN=yes)
# only while the gateway answers over the overlay: frames sent before could leave the node by its default route.
# A frame of the overlay carries MARK, which its inner packet got on the way to vxlan0: a datagram that an application
# itself addresses to the gateway's port has none.
#
# Where the kernel has the `recent` match it closes by itself as well, whatever becomes of the sidecar: what leaves by the tunnel
# passes only for LEASE seconds after the gateway's last answer, and no longer once the gateway has said goodbye (a question of
# its own, the only one that it ever asks; the answer tells it that nothing more will come).

MARK=0x4e000000/0xff000000
LEASE=1
LISTED='--mask 0.0.0.0 --rsource --name' # one entry, whoever has answered
ANSWERS=netguard-gateway
ANSWERS_TUNNEL=netguard-tunnel
OPEN=no
PEER= # the address of the gateway's pod
GUARD= # what was loaded last, as `guard_seen` tells it

# The node, as it asks for the pod's health: by its own addresses, or (bridges, Cilium) by that of the pod's own router.
hosts_of() {
  # shellcheck disable=SC2046 # lists of words
  only "$1" $(list "${HOST_IPS:-}") $(saved_via "$1" | sed 's/^via //')
}

matches() { # family protocol first last -> match of the destination port
  case $2 in
    all) ;;
    icmp) if [ "$1" = 4 ]; then printf -- '-p icmp'; else printf -- '-p ipv6-icmp'; fi ;;
    *) printf -- '-p %s --dport %s:%s' "$2" "$3" "$4" ;;
  esac
}

# New flows are judged by the port they were sent to: a mesh redirects them before this table sees them.
new_flow() { # protocol first last
  case $1 in
    tcp) printf -- '-p tcp --syn -m conntrack --ctstate NEW --ctorigdstport %s:%s' "$2" "$3" ;;
    all) printf -- '-m conntrack --ctstate NEW' ;;
    icmp) printf -- '-p icmp -m conntrack --ctstate NEW' ;;
    *) printf -- '-p %s -m conntrack --ctstate NEW --ctorigdstport %s:%s' "$1" "$2" "$3" ;;
  esac
}

# Splits `network,protocol,first,last` (or `protocol,first,last`) into words.
fields() { list "$1"; }

guard_text() {
  family=$1
  echo '*filter'
  printf ':%s DROP [0:0]\n' INPUT OUTPUT FORWARD
  printf ':NETGUARD-%s - [0:0]\n' IN OUT GATEWAY TUNNEL OPEN PEER-IN PEER-OUT
  jump "$family" filter INPUT NETGUARD-IN
  jump "$family" filter OUTPUT NETGUARD-OUT
  guard_input
  guard_output
  gate_text
  echo COMMIT
}

guard_input() {
  a='-A NETGUARD-IN'
  echo "$a -i lo -j ACCEPT"
  if [ "$family" = 4 ]; then
    # an answer to a packet for the tunnel's address that comes by another way would tell who is behind it
    echo "$a ! -i $VXLAN -d $NETWORK -j DROP"
    if [ "$RECENT" = yes ]; then
      echo "$a -i $VXLAN -d $ADDRESS -p icmp -j NETGUARD-GATEWAY"
      guard_answers
    fi
    echo "$a -i $VXLAN -d $ADDRESS -m conntrack --ctstate ESTABLISHED -j ACCEPT"
    echo "$a -i $VXLAN -d $ADDRESS -p icmp --icmp-type destination-unreachable -m conntrack --ctstate RELATED -j ACCEPT"
    for item in $FORWARDS; do
      # shellcheck disable=SC2046 # three words
      echo "$a -i $VXLAN -d $ADDRESS $(new_flow $(fields "$item")) -j ACCEPT"
    done
  fi
  echo "$a -i $VXLAN -j DROP"
  echo "$a -i $INTERFACE -p udp --dport $PORT -j NETGUARD-PEER-IN"
  echo "$a -i $INTERFACE -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
  [ "$family" = 4 ] || neighbours "$a -i"
  for item in $PROBES; do
    # shellcheck disable=SC2086,SC2046 # lists of words
    for source in $(hosts_of "$family") $(only "$family" $PROBE_SOURCES); do
      echo "$a -i $INTERFACE -s $source $(new_flow $(fields "$item")) -j ACCEPT"
    done
  done
  for item in $INGRESS; do
    [ "$(family_of "$item")" = "$family" ] || continue
    # shellcheck disable=SC2046 # four words
    set -- $(fields "$item")
    echo "$a -i $INTERFACE -s $1 $(new_flow "$2" "$3" "$4") -j ACCEPT"
  done
  if [ "$MESH" = yes ]; then
    # shellcheck disable=SC2086 # a list
    for source in $(only "$family" $POD_RANGES); do
      echo "$a -i $INTERFACE -s $source $(new_flow tcp 15008 15008) -j ACCEPT"
    done
  fi
  echo "$a -j DROP"
}

guard_answers() {
  b='-A NETGUARD-GATEWAY'
  answer='-p icmp --icmp-type echo-reply -m conntrack --ctstate ESTABLISHED'
  echo "$b -s $(overlay_mark) $answer -m recent --set $LISTED $ANSWERS_TUNNEL"
  for item in "$(overlay_gateway)" "$(overlay_mark)"; do
    echo "$b -s $item $answer -m recent --set $LISTED $ANSWERS -j ACCEPT"
  done
  goodbye="-s $(overlay_gateway) -p icmp --icmp-type echo-request -m length --length 0:128"
  echo "$b $goodbye -m recent --remove $LISTED $ANSWERS"
  echo "$b $goodbye -j ACCEPT"
}

guard_output() {
  a='-A NETGUARD-OUT'
  echo "$a -o lo -j ACCEPT"
  if [ "$family" = 4 ]; then
    echo "$a -d 127.0.0.0/8 -j ACCEPT"
    echo "$a -o $VXLAN -j NETGUARD-TUNNEL"
    echo "-A NETGUARD-TUNNEL -j MARK --set-xmark $MARK"
    for item in "$(overlay_gateway)" "$(overlay_mark)"; do # the handshake carries nothing of the application's
      echo "-A NETGUARD-TUNNEL -s $ADDRESS -d $item -p icmp --icmp-type echo-request -m length --length 0:128 -j ACCEPT"
    done
    [ "$RECENT" = no ] ||
      echo "-A NETGUARD-TUNNEL -s $ADDRESS -d $(overlay_gateway) -p icmp --icmp-type echo-reply -m length --length 0:128 -j ACCEPT"
    echo '-A NETGUARD-TUNNEL -j NETGUARD-OPEN'
    echo '-A NETGUARD-TUNNEL -j DROP'
    echo "$a -s $NETWORK -j DROP"
  else
    echo "$a -d ::1 -j ACCEPT"
    echo "$a -o $VXLAN -j DROP"
  fi
  echo "$a -o $INTERFACE -p udp --dport $PORT -j NETGUARD-PEER-OUT"
  echo "$a -o $INTERFACE -m conntrack --ctstate ESTABLISHED,RELATED --ctdir REPLY -j ACCEPT"
  [ "$family" = 4 ] || neighbours "$a -o"
  for item in $EGRESS; do
    [ "$(family_of "$item")" = "$family" ] || continue
    # shellcheck disable=SC2046 # four words
    set -- $(fields "$item")
    echo "$a -o $INTERFACE -d $1 $(matches "$family" "$2" "$3" "$4") -j ACCEPT"
  done
  owner="-m owner --gid-owner ${SIDECAR_GID:-4753}"
  # shellcheck disable=SC2086 # none or one
  for item in $(only "$family" $GATEWAY); do
    echo "$a -o $INTERFACE -d $item -p udp --dport $FINDER $owner -j ACCEPT"
  done
  [ "$APP_DNS" = yes ] && owner=
  # shellcheck disable=SC2086 # a list
  for item in $(only "$family" $DNS_SERVERS); do
    for protocol in udp tcp; do
      echo "$a -o $INTERFACE -d $item -p $protocol --dport 53 $owner -j ACCEPT"
    done
  done
  echo "$a -j DROP"
}

neighbours() {
  for type in 133 134 135 136; do
    echo "$1 $INTERFACE -p ipv6-icmp --icmpv6-type $type -m hl --hl-eq 255 -j ACCEPT"
  done
}

# The part that changes with the gateway: who it is, and whether it answers.
gate_text() {
  if [ "$family" = 4 ] && [ "$OPEN" = yes ]; then
    if [ "$RECENT" = yes ]; then
      echo "-A NETGUARD-OPEN -s $ADDRESS -m recent --rcheck --seconds $LEASE $LISTED $ANSWERS -j ACCEPT"
    else
      echo "-A NETGUARD-OPEN -s $ADDRESS -j ACCEPT"
    fi
  fi
  if [ "$family" = "$OUTER" ] && [ -n "$PEER" ]; then
    echo "-A NETGUARD-PEER-IN -s $PEER -p udp --sport $PORT -j ACCEPT"
    echo "-A NETGUARD-PEER-OUT -d $PEER -p udp --sport $PORT -m mark --mark $MARK -j ACCEPT"
  fi
  echo '-A NETGUARD-PEER-IN -j DROP'
  echo '-A NETGUARD-PEER-OUT -j DROP'
}

guard_gate() {
  for family in 4 6; do
    [ "$family" = 6 ] && [ "$OUTER" = 4 ] && continue
    {
      echo '*filter'
      printf ':NETGUARD-%s - [0:0]\n' OPEN PEER-IN PEER-OUT
      gate_text
      echo COMMIT
    } | restore "$family" || return 1
  done
  guard_mark
}

guard_load() {
  for guard_try in 1 2 3; do # somebody may change rules at the same moment
    guard_text 4 | restore 4 || guard_refuse 4
    [ -z "$IPT6" ] || guard_text 6 | restore 6 || guard_refuse 6
    # an application as root, without CAP_DAC_OVERRIDE, must not write the answers itself
    [ "$RECENT" = no ] || chmod 0400 "/proc/net/xt_recent/$ANSWERS" "/proc/net/xt_recent/$ANSWERS_TUNNEL" 2>/dev/null
    guard_mark && return 0
  done
  die 'the guard was loaded three times and does not stand: does another container of this pod change packet rules?'
}

# The full set does not load (a match is missing): close what can be closed, and stop.
guard_refuse() {
  printf '*filter\n:INPUT DROP [0:0]\n:OUTPUT DROP [0:0]\n:FORWARD DROP [0:0]\nCOMMIT\n' | restore "$1"
  die "the rules of IPv$1 cannot be loaded: the pod stays closed and does not start"
}

# What counts of both families, without counters: policies, the first rule of the chains that we jump from, our own chains.
# One look costs five processes, so it can be had every few seconds.
guard_seen() {
  {
    "$IPT4-save" -t filter
    [ -z "$IPT6" ] || "$IPT6-save" -t filter
  } | awk '
    /^\*/ { first["INPUT"] = first["OUTPUT"] = 1; next }
    /^:(INPUT|OUTPUT|FORWARD) / { print $1, $2; next }
    /^:NETGUARD-/ { print $1; next }
    /^-A NETGUARD-/ { print; next }
    $1 == "-A" && first[$2] { first[$2] = 0; print }'
}

# After each load of ours: what stands there is what must stand there from now on, if it closes the pod and is what was meant.
# Others may have changed rules since, which must not pass for ours: as many rules as were written, and the same way out.
guard_mark() {
  GUARD=
  guard_now=$(guard_seen)
  for family in 4 ${IPT6:+6}; do
    guard_part=${guard_now#*:INPUT}
    [ "$family" = 4 ] || guard_part=${guard_part#*:INPUT}
    guard_part=":INPUT${guard_part%%:INPUT*}"
    for guard_line in ':INPUT DROP' ':OUTPUT DROP' ':FORWARD DROP' '-A INPUT -j NETGUARD-IN' '-A OUTPUT -j NETGUARD-OUT' \
      '-A NETGUARD-IN -j DROP' '-A NETGUARD-OUT -j DROP'; do
      case $guard_part in
        *"$guard_line"*) ;;
        *) return 1 ;;
      esac
    done
    guard_want=$(guard_text "$family" | guard_sum)
    [ "$(printf '%s\n' "$guard_part" | guard_sum)" = "$guard_want" ] || return 1
  done
  GUARD=$guard_now
}

# How many rules of ours, and those that let something out, as they are written here and by iptables-save alike.
guard_sum() {
  awk '/^-A NETGUARD-/ { n++ }
    /^-A NETGUARD-(PEER-(IN|OUT)|OPEN) .*-j ACCEPT/ { sub(/\/(32|128) /, " "); print $2, $3, $4 }
    END { print n }' | sort
}

guard_intact() { [ -n "$GUARD" ] && [ "$(guard_seen)" = "$GUARD" ]; }
"""
