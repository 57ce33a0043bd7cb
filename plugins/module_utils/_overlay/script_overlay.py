# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The client's end of the overlay: link, neighbours, routes."""

from __future__ import annotations

SCRIPT = r"""#!/bin/sh
# The client's end of the overlay: link, neighbours, routes. Sourced after guard.sh; every function may be called again at
# any time and keeps nothing but what the namespace itself remembers.

overlay_names() {
  ADDRESS=$(derived "$POD")
  VIA=$(overlay_gateway)
  TUNNEL_MARK=$(overlay_mark)
  VIA_MAC=$(mac_of "$VIA")
}

# The default route that the pod was born with, as `via ADDRESS` or nothing for a link without a router.
saved_via() {
  ip "-$1" route show table "$SAVED_TABLE" 2>/dev/null | sed -n "s/^default \(via [^ ]*\) .*dev $INTERFACE.*/\1/p" | head -n 1
}

save_default() {
  [ -z "$(ip "-$1" route show table "$SAVED_TABLE" 2>/dev/null)" ] || return 0
  save_via=$(ip "-$1" route show default | sed -n "s/^default \(via [^ ]*\) .*dev $INTERFACE.*/\1/p" | head -n 1)
  # shellcheck disable=SC2086 # `via ADDRESS`
  [ -z "$save_via" ] || ip "-$1" route replace default $save_via dev "$INTERFACE" onlink table "$SAVED_TABLE"
}

# Every way out but ours: several defaults, other tables, halves of everything.
drop_defaults() {
  drop_left=64
  ip "-$1" route show table all 2>/dev/null | grep -E '^(default|0\.0\.0\.0/1|128\.0\.0\.0/1|::/1|8000::/1|2000::/3) ' |
    grep -v "table $SAVED_TABLE\|dev $VXLAN" | while read -r drop_route; do
    drop_left=$((drop_left - 1))
    [ "$drop_left" -gt 0 ] || break
    # shellcheck disable=SC2046 # a route as ip prints it
    ip "-$1" route del $(printf '%s' "$drop_route" | sed 's/ expires [^ ]*//; s/ pref [a-z]*//; s/ \(linkdown\|dead\)//g') \
      2>/dev/null
  done
  # nothing matches: applications hear it at once instead of waiting for an answer
  ip "-$1" route replace unreachable default metric 4294967294 2>/dev/null
  return 0
}

# Declared networks keep the pod's own way. A route is no permission: the guard has the last word.
pod_routes() {
  route_via=$(saved_via "$1")
  {
    # shellcheck disable=SC2086,SC2046 # lists of words
    only "$1" $POD_RANGES $ROUTES $PROBE_SOURCES $DNS_SERVERS $GATEWAY $PEER $(list "${HOST_IPS:-}")
    for route_item in $EGRESS $INGRESS; do
      # shellcheck disable=SC2086 # one word
      only "$1" ${route_item%%,*}
    done
  } | tr ' ' '\n' | sort -u | while read -r route_network; do
    case $route_network in
      '' | 0.0.0.0/* | ::/*) continue ;;
    esac
    # a range that is the link itself stays so
    [ -z "$(ip "-$1" route show "$route_network" dev "$INTERFACE" scope link 2>/dev/null)" ] || continue
    # shellcheck disable=SC2086 # `via ADDRESS`
    ip "-$1" route replace "$route_network" $route_via dev "$INTERFACE" ${route_via:+onlink} 2>/dev/null ||
      log "warning: no route to $route_network by $INTERFACE"
  done
}

# One port for both directions makes the overlay a single UDP flow, which a Service's translation and a policy's replies
# understand. The kernel takes a source port from a range without its end; an empty range would mean any port. The outer
# checksum is zero (the frames inside have their own): translation spoils the one of a frame whose inner checksum is still to
# be filled in by the device, and the gateway would drop it.
overlay_link() {
  overlay_now=$(ip -d -o link show dev "$VXLAN" 2>/dev/null)
  case $overlay_now in
    *"vxlan id $VNI local $POD dev $INTERFACE "*"dstport $PORT "*nolearning*) ;;
    '') ;;
    *) ip link del "$VXLAN" ;;
  esac
  ip link show dev "$VXLAN" >/dev/null 2>&1 ||
    ip link add "$VXLAN" type vxlan id "$VNI" local "$POD" dev "$INTERFACE" nolearning \
      dstport "$PORT" srcport "$PORT" "$((PORT + 1))" noudpcsum udp6zerocsumtx udp6zerocsumrx ||
    die "the overlay's link cannot be made: is the kernel's vxlan there?"
  ip link set "$VXLAN" addrgenmode none 2>/dev/null
  ip link set "$VXLAN" address "$(mac_of "$ADDRESS")" mtu "$(overlay_mtu)" arp off up || die "the overlay's link cannot be set up"
  ip addr replace "$ADDRESS/32" dev "$VXLAN"
  for overlay_item in "$VIA" "$TUNNEL_MARK"; do
    ip route replace "$overlay_item/32" dev "$VXLAN" src "$ADDRESS"
    ip neigh replace "$overlay_item" lladdr "$VIA_MAC" dev "$VXLAN" nud permanent
  done
}

overlay_peer() {
  [ -n "$PEER" ] || return 0
  bridge fdb replace "$VIA_MAC" dev "$VXLAN" dst "$PEER" self permanent || return 1
  # shellcheck disable=SC2086,SC2046 # `via ADDRESS`
  [ -n "$(ip "-$OUTER" route show "$PEER" dev "$INTERFACE" 2>/dev/null)" ] || pod_routes "$OUTER"
}

# The node's side must not learn the tunnel's address by asking for it: answer ARP for the interface's own address alone.
arp_hold() {
  if [ "$(cat "/proc/sys/net/ipv4/conf/$INTERFACE/arp_ignore")" != 0 ]; then return 0; fi
  { echo 1 >"/proc/sys/net/ipv4/conf/$INTERFACE/arp_ignore"; } 2>/dev/null && return 0
  arp_rule="iifname \"$INTERFACE\" arp daddr ip $NETWORK drop"
  if command -v nft >/dev/null 2>&1 && {
    printf 'add table arp netguard\ndelete table arp netguard\n'
    printf 'table arp netguard {\nchain in {\ntype filter hook input priority 0;\n%s\n}\n}\n' "$arp_rule"
  } | nft -f - 2>/dev/null; then
    return 0
  fi
  for arp_tool in arptables-nft arptables; do
    command -v "$arp_tool" >/dev/null 2>&1 || continue
    "$arp_tool" -D INPUT -i "$INTERFACE" -d "$NETWORK" -j DROP 2>/dev/null
    "$arp_tool" -A INPUT -i "$INTERFACE" -d "$NETWORK" -j DROP 2>/dev/null && return 0
  done
  log "warning: the node can learn this pod's overlay address by ARP (no sysctl, nft or arptables here)"
}

overlay_up() {
  for overlay_family in 4 6; do
    [ "$overlay_family" = 6 ] && ! has_ipv6 && continue
    save_default "$overlay_family"
    pod_routes "$overlay_family"
  done
  overlay_link
  overlay_peer
  for overlay_family in 4 6; do
    [ "$overlay_family" = 6 ] && ! has_ipv6 && continue
    drop_defaults "$overlay_family"
  done
}

overlay_default() { ip route replace default via "$VIA" dev "$VXLAN" src "$ADDRESS" onlink; }
overlay_no_default() {
  ip route del default dev "$VXLAN" 2>/dev/null
  return 0
}

# Cheap to ask, every few seconds: are link and routes as they should be?
overlay_intact() {
  {
    ip route show table all
    ! has_ipv6 || ip -6 route show table all
    ip -d addr show dev "$VXLAN"
    bridge fdb show dev "$VXLAN"
  } 2>/dev/null | awk -v open="$OPEN" -v link="$VXLAN" -v way="default via $VIA dev $VXLAN " -v vni="vxlan id $VNI " -v address="inet $ADDRESS/" \
    -v saved="table $SAVED_TABLE" -v peer="${PEER:+$VIA_MAC dst $PEER }" '
    index($0, way) == 1 { ours = 1; next }
    /^default / && !index($0, saved) { others = 1 }
    index($0, ": " link ":") && /[<,]UP[,>]/ { up = 1 }
    index($0, vni) { right = 1 }
    index($0, address) { addressed = 1 }
    peer != "" && index($0, peer) { known = 1 }
    END { exit !(!others && up && right && addressed && (open == "no" || ours) && (peer == "" || known)) }'
}
"""
