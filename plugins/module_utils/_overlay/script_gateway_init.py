# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The first container of a gateway's pod."""

from __future__ import annotations

SCRIPT = r"""#!/bin/sh
# First container of a gateway's pod, before Gluetun: nothing is forwarded but from the overlay into the tunnel, from the
# first moment on; then the overlay's link, which Gluetun takes for a local network because it is there before it.
DIR=${0%/*}
# shellcheck source=/dev/null
. "$DIR/lib.sh"
# shellcheck source=/dev/null
. "$DIR/gateway.sh"
# shellcheck source=/dev/null
. "$DIR/clients.sh"

choose_interface
choose_iptables
choose_ip6tables
gateway_names
choose_u32
choose_recent
save_via=$(ip "-$OUTER" route show default | sed -n "s/^default \(via [^ ]*\) .*dev $INTERFACE.*/\1/p" | head -n 1)
if [ -z "$(ip "-$OUTER" route show table "$NET_TABLE" 2>/dev/null)" ] && [ -n "$save_via" ]; then
  # shellcheck disable=SC2086 # `via ADDRESS`
  ip "-$OUTER" route replace default $save_via dev "$INTERFACE" onlink table "$NET_TABLE"
fi
gateway_rules || die 'the rules of the gateway cannot be loaded'
POD=$(own_address)
[ -n "$POD" ] || die "the pod has no IPv$OUTER address (POD_IPS='${POD_IPS:-}')"

if [ "$(cat /proc/sys/net/ipv4/ip_forward)" != 1 ]; then
  { echo 1 >/proc/sys/net/ipv4/ip_forward; } 2>/dev/null ||
    die 'net.ipv4.ip_forward is 0 and cannot be set: run this container privileged, or set the sysctl in the pod'
fi

# why one port and no outer checksum: see overlay.sh
case $(ip -d -o link show dev "$VXLAN" 2>/dev/null) in
  *"vxlan id $VNI local $POD dev $INTERFACE "*"dstport $PORT "*nolearning*) ;;
  '') ;;
  *) ip link del "$VXLAN" ;;
esac
ip link show dev "$VXLAN" >/dev/null 2>&1 ||
  ip link add "$VXLAN" type vxlan id "$VNI" local "$POD" dev "$INTERFACE" nolearning \
    dstport "$PORT" srcport "$PORT" "$((PORT + 1))" noudpcsum udp6zerocsumtx udp6zerocsumrx ||
  die "the overlay's link cannot be made: is the kernel's vxlan there?"
ip link set "$VXLAN" addrgenmode none 2>/dev/null
ip link set "$VXLAN" address "$(mac_of "$VIA")" mtu "$(overlay_mtu)" arp off up || die "the overlay's link cannot be set up"
ip addr replace "$VIA/${NETWORK#*/}" dev "$VXLAN"

# Frames to the clients' pods never look at the tunnel's routes, frames to the overlay neither:
# the link's own network, where there is one, must keep its place before that default
ip "-$OUTER" route show dev "$INTERFACE" scope link | grep -v '^fe80\|^default' | while read -r link_route; do
  # shellcheck disable=SC2086 # a route as ip prints it
  ip "-$OUTER" route replace ${link_route%% *} dev "$INTERFACE" table "$NET_TABLE" 2>/dev/null
done
while ip "-$OUTER" rule del pref 45 2>/dev/null; do :; done
while ip rule del pref 46 2>/dev/null; do :; done
ip "-$OUTER" rule add pref 45 from "$POD" ipproto udp dport "$PORT" lookup "$NET_TABLE" ||
  ip "-$OUTER" rule add pref 45 from "$POD" lookup "$NET_TABLE"
ip rule add pref 46 to "$NETWORK" lookup main
log "gateway: $VIA by $POD, VXLAN $VNI on UDP $PORT, forwarding into $TUNNEL alone"
[ "$U32" = yes ] || log 'warning: no u32 match here: a client pod with NET_ADMIN or NET_RAW could use another client'"'"'s address'
learn
"""
