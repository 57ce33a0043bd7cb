# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gateway's rules."""

from __future__ import annotations

SCRIPT = r"""#!/bin/sh
# The gateway's rules. Sourced by gateway-init.sh and gateway-sidecar.sh.
#
# Gluetun owns the tables' policies and its INPUT and OUTPUT rules; ours are FORWARD, nat and mangle, in chains of our own, so
# that its parser (which reads INPUT, OUTPUT and nat PREROUTING) meets nothing it does not know. When Gluetun fails to start it
# flushes `filter` and opens the policies: what must hold then stands in mangle, and the sidecar puts the rest back.

ENDED=netguard-ended # clients that have said that they end, and not asked since; the kernel keeps the latest hundred
LEAVING=no # yes: the pod goes, and its clients hear nothing more but that
NET_TABLE=4753 # SAVED_TABLE: the way to the clients' pods, beside the tunnel's routes

gateway_names() {
  VIA=$(overlay_gateway)
  TUNNEL_MARK=$(overlay_mark)
}

# Who dnsmasq runs as: its questions leave by the tunnel alone.
resolver_uid() { id -u nobody 2>/dev/null || echo 65534; }

mangle_text() {
  family=$1
  echo '*mangle'
  printf ':NETGUARD-%s - [0:0]\n' FORWARD OUT CLIENTS SOURCES LOCAL
  jump "$family" mangle FORWARD NETGUARD-FORWARD
  jump "$family" mangle OUTPUT NETGUARD-OUT
  jump "$family" mangle INPUT NETGUARD-LOCAL
  jump "$family" mangle PREROUTING NETGUARD-SOURCES
  mangle_forward
  mangle_local
  mangle_output
  clients_text
  echo COMMIT
}

# From the overlay to the tunnel and back, and nothing else: not to the home, the cluster, or another client.
mangle_forward() {
  a='-A NETGUARD-FORWARD'
  if [ "$family" = 4 ] && [ "$LEAVING" = no ]; then
    # first of all: the pod that this goes to has said that it ends
    [ "$RECENT" = no ] || echo "$a -o $VXLAN -m recent --rcheck --rdest --name $ENDED -j DROP"
    echo "$a -i $VXLAN -o $TUNNEL -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu"
    echo "$a -i $TUNNEL -o $VXLAN -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu"
    echo "$a -i $VXLAN -o $TUNNEL -s $NETWORK -j RETURN"
    echo "$a -i $TUNNEL -o $VXLAN -d $NETWORK -j RETURN"
  fi
  echo "$a -j DROP"
}

# Clients may ping the gateway and ask its resolver; the control server and whatever else listens is not theirs.
mangle_local() {
  a='-A NETGUARD-LOCAL'
  if [ "$family" = 4 ]; then
    if [ "$LEAVING" = yes ]; then
      echo "$a -i $VXLAN -d $VIA -p icmp --icmp-type echo-reply -j RETURN"
    else
      if [ "$RECENT" = yes ]; then
        b="$a -i $VXLAN -d $VIA -p icmp --icmp-type echo-request -m length --length"
        echo "$b $((28 + ENDING)) -m recent --set --rsource --name $ENDED"
        echo "$b $((28 + ASKING)) -m recent --remove --rsource --name $ENDED"
      fi
      echo "$a -i $VXLAN -d $NETWORK -p icmp --icmp-type echo-request -j RETURN"
      echo "$a -i $VXLAN -d $VIA -p udp --dport 53 -j RETURN"
      echo "$a -i $VXLAN -d $VIA -p tcp --dport 53 -j RETURN"
    fi
    echo "$a ! -i $VXLAN -d $NETWORK ! -s $NETWORK -j DROP"
  fi
  echo "$a -i $VXLAN -j DROP"
  [ "$family$OUTER" != 66 ] || neighbours_text LOCAL -i -s
  # shellcheck disable=SC2086 # a list
  for item in $(only "$family" $POD_RANGES); do
    echo "$a -i $INTERFACE -s $item -p udp --dport $FINDER -j RETURN"
  done
  for protocol in udp tcp; do
    echo "$a -i $INTERFACE -p $protocol --dport $FINDER -j DROP"
  done
  if [ "$family" = "$OUTER" ]; then
    echo "$a -i $INTERFACE -p udp --dport $PORT -j NETGUARD-CLIENTS"
  else
    echo "$a -i $INTERFACE -p udp --dport $PORT -j DROP"
  fi
}

mangle_output() {
  a='-A NETGUARD-OUT'
  echo "$a -o lo -j RETURN"
  [ "$family$OUTER" != 66 ] || neighbours_text OUT -o -d
  # frames go to who asked for them: the way to a silent client may be missing on the node
  echo "$a -p udp --dport $PORT -m conntrack --ctstate ESTABLISHED --ctdir REPLY -j RETURN"
  echo "$a -p udp --dport $PORT -j DROP"
  echo "$a -o $TUNNEL -j RETURN"
  if [ "$LEAVING" = yes ]; then
    [ "$family" = 6 ] || echo "$a -o $VXLAN -s $VIA -p icmp --icmp-type echo-request -j RETURN"
    echo "$a -o $VXLAN -j DROP"
  fi
  if [ "$family" = 4 ]; then
    [ "$RECENT" = no ] || echo "$a -o $VXLAN ! -p icmp -m recent --rcheck --rdest --name $ENDED -j DROP"
    echo "$a -o $VXLAN -j RETURN"
  fi
  if [ "$DNS" = split ]; then
    # shellcheck disable=SC2086 # a list
    for item in $(only "$family" $DNS_SERVERS); do
      for protocol in udp tcp; do
        echo "$a -d $item -p $protocol --dport 53 -j RETURN"
      done
    done
  fi
  echo "$a -m owner --uid-owner $(resolver_uid) -j DROP"
}

# CLIENTS holds `outer inner mac` lines. An inner source is believed only behind its own pod's address (u32: inner EtherType
# and source behind the headers of UDP, VXLAN and Ethernet), and again without the frame's own claims on vxlan0.
clients_text() {
  a='-A NETGUARD-CLIENTS'
  if [ "$family" = "$OUTER" ] && [ -s "$CLIENTS" ]; then
    while read -r outer inner _; do
      number=$(printf '0x%08x' "$(number4 "$inner")")
      if [ "$U32" = no ]; then
        echo "$a -s $outer -j RETURN"
      elif [ "$family" = 4 ]; then
        echo "$a -s $outer -m u32 --u32 0>>22&0x3C@26&0xFFFF=0x0800&&0>>22&0x3C@42=$number -j RETURN"
      else
        echo "$a -s $outer -m u32 --u32 66&0xFFFF=0x0800&&82=$number -j RETURN"
      fi
    done <"$CLIENTS"
  fi
  echo "$a -j DROP"
  a='-A NETGUARD-SOURCES'
  if [ "$family" = 4 ] && [ -s "$CLIENTS" ]; then
    while read -r outer inner mac; do
      echo "$a -i $VXLAN -s $inner -m mac --mac-source $mac -j RETURN"
    done <"$CLIENTS"
  fi
  echo "$a -i $VXLAN -j DROP"
}

filter_text() {
  family=$1
  echo '*filter'
  echo ':FORWARD DROP [0:0]'
  echo ':NETGUARD-FORWARD - [0:0]'
  jump "$family" filter FORWARD NETGUARD-FORWARD
  a='-A NETGUARD-FORWARD'
  if [ "$family" = 4 ]; then
    echo "$a -i $VXLAN -o $TUNNEL -s $NETWORK -j ACCEPT"
    echo "$a -i $TUNNEL -o $VXLAN -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
    echo "$a -i $TUNNEL -o $VXLAN -m conntrack --ctstate NEW,DNAT -j ACCEPT"
  fi
  echo "$a -j DROP"
  echo COMMIT
}

# nat PREROUTING gets a jump only when there is something to forward: Gluetun reads that chain.
nat_text() {
  echo '*nat'
  printf ':NETGUARD-%s - [0:0]\n' NAT DNAT
  jump 4 nat POSTROUTING NETGUARD-NAT
  echo "-A NETGUARD-NAT -s $NETWORK -o $TUNNEL -j MASQUERADE"
  if [ -s "$FORWARDED" ]; then
    jump 4 nat PREROUTING NETGUARD-DNAT
    while read -r protocol outer inner port; do
      echo "-A NETGUARD-DNAT -i $TUNNEL -p $protocol --dport $outer -j DNAT --to-destination $inner:$port"
    done <"$FORWARDED"
  fi
  echo COMMIT
}

# Gluetun's IPv6 rules leave no room for neighbour discovery, without which nobody reaches the pod over IPv6. These stand in its
# own chains, in the one form that its parser reads; mangle narrows them to discovery.
neighbours() {
  [ "$OUTER" = 6 ] && [ -n "$IPT6" ] || return 0
  for neighbour_of in ff02::/16 fe80::/10 $(router6); do
    neighbour_end=-s
    [ "$neighbour_of" != ff02::/16 ] || neighbour_end=-d
    for neighbour_rule in "INPUT -i $INTERFACE $neighbour_end" "OUTPUT -o $INTERFACE -d"; do
      # shellcheck disable=SC2086 # words of a rule
      ipt 6 -C $neighbour_rule "$neighbour_of" -j ACCEPT 2>/dev/null ||
        ipt 6 -I $neighbour_rule "$neighbour_of" -j ACCEPT || return 1
    done
  done
}
router6() { ip -6 route show table "$NET_TABLE" 2>/dev/null | sed -n 's/^default via \([^ ]*\) .*/\1/p' | grep -v '^fe80:'; }

neighbours_text() { # chain, match of the interface, match of the address
  for type in 133 134 135 136; do
    echo "-A NETGUARD-$1 $2 $INTERFACE -p ipv6-icmp --icmpv6-type $type -m hl --hl-eq 255 -j RETURN"
  done
  for item in fe80::/10 $(router6); do
    echo "-A NETGUARD-$1 $2 $INTERFACE $3 $item -j DROP"
  done
  echo "-A NETGUARD-$1 $2 $INTERFACE -d ff02::/16 -j DROP"
}

# Loads everything, and keeps what stands there then as what must stand there from now on. Others may have changed rules since:
# unless it is as many as were written, nothing is kept, and the next look puts them back.
gateway_rules() {
  for rules_family in 4 ${IPT6:+6}; do
    rm -f "$STATE/rules$rules_family"
    {
      mangle_text "$rules_family"
      filter_text "$rules_family"
      [ "$rules_family" = 6 ] || nat_text
    } >"$STATE/rules.new"
    restore "$rules_family" <"$STATE/rules.new" || return 1
    rules_look "$rules_family" || continue
    [ "$(printf '%s\n' "$rules_now" | rules_count)" -eq "$(rules_count <"$STATE/rules.new")" ] || continue
    printf '%s\n' "$rules_now" >"$STATE/rules$rules_family"
  done
  neighbours
}
rules_count() { grep -c -- '-A NETGUARD-\(FORWARD\|LOCAL\|OUT\|NAT\) '; }

clients_load() {
  for family in 4 6; do
    [ "$family" = 6 ] && [ -z "$IPT6" ] && continue
    {
      echo '*mangle'
      printf ':NETGUARD-%s - [0:0]\n' CLIENTS SOURCES
      clients_text
      echo COMMIT
    } | restore "$family" || return 1
  done
}

choose_u32() {
  U32=no
  ipt "$OUTER" -t mangle -N NETGUARD-TRY 2>/dev/null
  ipt "$OUTER" -t mangle -A NETGUARD-TRY -m u32 --u32 '42=0' -j RETURN 2>/dev/null && U32=yes
  ipt "$OUTER" -t mangle -F NETGUARD-TRY
  ipt "$OUTER" -t mangle -X NETGUARD-TRY
}

# What stands there of family $1, table by table, without what changes with the clients and the forwarded ports -> rules_now.
# Fails where a chain of ours is not jumped to, or the pod would forward what no rule names.
rules_look() {
  rules_now=$("$([ "$1" = 4 ] && echo "$IPT4" || echo "$IPT6")-save" | awk '
    /^\*/ { table = $1 }
    /^:FORWARD / { print table, $1, $2 }
    /^-A (NETGUARD-(FORWARD|LOCAL|OUT|NAT)|FORWARD|POSTROUTING) / || /^-A [A-Z]+ -j NETGUARD-(LOCAL|OUT|SOURCES)$/ { print table, $0 }')
  for look_line in '*filter :FORWARD DROP' '*filter -A FORWARD -j NETGUARD-FORWARD' '*mangle -A FORWARD -j NETGUARD-FORWARD' \
    '*mangle -A OUTPUT -j NETGUARD-OUT' '*mangle -A INPUT -j NETGUARD-LOCAL' '*mangle -A PREROUTING -j NETGUARD-SOURCES' \
    "$([ "$1" = 6 ] || echo '*nat -A POSTROUTING -j NETGUARD-NAT')"; do
    case $rules_now in
      *"$look_line"*) ;;
      *) return 1 ;;
    esac
  done
}

rules_intact() {
  for intact_family in 4 ${IPT6:+6}; do
    rules_look "$intact_family" && [ "$rules_now" = "$(cat "$STATE/rules$intact_family" 2>/dev/null)" ] || return 1
  done
}
"""
