#!/usr/bin/python
# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Module vpn_gateway."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vpn_gateway
short_description: VPN gateways as pods, one VPN login for many apps
version_added: 0.1.0
description:
  - Creates for every entry of O(gateways) a pod with Gluetun and the server side of an overlay network, through which the apps
    that name the gateway in C(vpn) leave the cluster.
  - Writes in this order, each step only after the one before was accepted, namespace (when missing), Secret (from O(credentials)),
    ConfigMaps, Services and the gateway's own NetworkPolicy, and last the Deployment (one replica, strategy Recreate).
    Then it waits until the tunnel is up.
  - The NetworkPolicy lets the gateway's clients in on the overlay's port, and the pod out to the VPN server (its address where
    it is declared, else public addresses on the provider's protocol and port), to its clients and to the cluster's DNS. It names
    no private, cluster or LAN range.
  - A changed setting or Secret restarts the pod. A new client does not, since the pod follows the list of its clients.
  - Everything that Gluetun would stop at, or worse accept, is refused before anything is written, all faults at once and each
    with its path and what to do. C(docs/gateway.md) has the providers, what each of them needs, and every refusal.
options:
  credentials:
    description:
      - Credentials by gateway, for gateways that name no Secret of their own; each a dictionary of credential and value.
      - >-
        Known are V(wireguard_private_key), V(wireguard_preshared_key), V(wireguard_addresses), V(wg0.conf) (the text of a
        wg-quick file), V(openvpn_user), V(openvpn_password), V(openvpn_cert), V(openvpn_key), V(openvpn_encrypted_key),
        V(openvpn_key_passphrase), V(openvpn_custom_config) (the text of the configuration),
        V(vpn_port_forwarding_username), V(vpn_port_forwarding_password), V(http_control_server_auth_default_role),
        V(http_control_server_auth_config), V(httpproxy_user), V(httpproxy_password), V(shadowsocks_password),
        V(updater_protonvpn_password) and V(publicip_api_token).
      - They are kept in one Secret per gateway and mounted as files. No result, difference, log or annotation shows them.
      - A Secret named in C(credentials.secret) of a gateway uses the same names as keys; capitals and dashes are accepted too.
    type: dict
    default: {}
  resources:
    description:
      - Resources of the containers as Kubernetes writes them, V(gluetun) and V(overlay), each with C(requests) and C(limits).
      - Gluetun is killed at a memory limit of 128Mi; less than 256Mi is refused.
    type: dict
    default: {}
  tun:
    description:
      - How the pod gets the device /dev/net/tun.
      - V(auto) mounts the node's device for OpenVPN, userspace WireGuard and Gluetun before 3.41.2; kernel WireGuard needs none.
      - V(host) always mounts it, V(none) never does; any other value is the name of a device plugin's resource, such as
        V(devic.es/tun).
    type: str
    default: auto
  manage_pod_security:
    description:
      - Whether a namespace that enforces Pod Security V(baseline) or V(restricted) is labelled V(privileged). Otherwise it is
        refused with the command that does it. A namespace that this module creates is labelled from the start.
    type: bool
    default: false
extends_documentation_fragment:
  - homelab.netguard._topology
  - homelab.netguard._cluster
  - homelab.netguard._writer
  - homelab.netguard._images
  - homelab.netguard._wait
  - homelab.netguard._attributes
  - kubernetes.core.k8s_auth_options
seealso:
  - module: homelab.netguard.vpn_client_inject
  - module: homelab.netguard.killswitch_policy
author:
  - The homelab.netguard developers (@homelab-netguard)
"""

EXAMPLES = r"""
- name: One gateway, its key from a vaulted variable
  homelab.netguard.vpn_gateway:
    gateways:
      - name: proton
        provider: protonvpn
        server: {countries: [Netherlands]}
    credentials:
      proton: {wireguard_private_key: "{{ vault_proton_key }}"}

- name: Two gateways, one by OpenVPN with a Secret that exists
  homelab.netguard.vpn_gateway:
    gateways:
      - name: mullvad
        provider: mullvad
        wireguard: {addresses: [10.64.12.34/32]}
        credentials: {secret: mullvad-wg}
      - name: pia
        provider: private internet access
        protocol: openvpn
        server: {regions: [Netherlands]}
        credentials: {secret: pia-login}
        settings: {VPN_PORT_FORWARDING: true}
    apps: "{{ netguard_apps }}"

- name: A server of one's own, pinned in the policy
  homelab.netguard.vpn_gateway:
    gateways:
      - name: home
        provider: custom
        wireguard:
          addresses: [10.8.0.2/32]
          endpoint: {ip: 203.0.113.7, port: 51820}
          public_key: "{{ server_public_key }}"
        credentials: {secret: home-wg}
    wait_timeout: 120

- name: Manifests for GitOps, without a cluster
  homelab.netguard.vpn_gateway:
    state: rendered
    dest: manifests
    gateways: "{{ netguard_gateways }}"
    apps: "{{ netguard_apps }}"
    facts: "{{ netguard_facts }}"

- name: Remove every gateway of this instance
  homelab.netguard.vpn_gateway:
    state: absent
"""

RETURN = r"""
gateways:
  description: Every gateway of the topology.
  returned: when O(state) is not V(absent)
  type: list
  elements: dict
  contains:
    name:
      description: Name of the gateway.
      type: str
    namespace:
      description: Its namespace.
      type: str
    pods:
      description: Labels that select its pod.
      type: dict
    dns_name:
      description: Name that leads to its pod.
      type: str
    service:
      description: Name of the Service with an address that survives the pod.
      type: str
    overlay:
      description: Its overlay network, with C(vni), C(network), C(port) (UDP) and C(mtu) (bytes, of the tunnel).
      type: dict
    endpoint:
      description: The VPN server in its policy, C(address) (empty where the provider chooses it), C(port), C(protocol).
      type: dict
    exit_ip:
      description: Address from which its clients are seen, as Gluetun found it. Empty when unknown, or nothing was waited for.
      type: str
    waiting:
      description: Namespaces of its clients that do not exist yet.
      type: list
      elements: str
  sample:
    - name: proton
      namespace: vpn
      pods: {homelab.netguard/gateway: proton, homelab.netguard/instance: home}
      dns_name: netguard-gateway-proton-pods.vpn.svc.cluster.local
      service: netguard-gateway-proton
      overlay: {vni: 4711, network: 172.23.0.0/16, port: 48879, mtu: 1320}
      endpoint: {address: "", port: 51820, protocol: udp}
      exit_ip: 198.51.100.23
      waiting: []
notes:
  description: What is no fault but worth knowing, one sentence each.
  returned: when O(state) is not V(absent)
  type: list
  elements: str
  sample: ["gateway windscribe: windscribe needs a preshared key in practice (wireguard_preshared_key)"]
# What every writer returns, by tools/return_docs.py:
objects:
  description:
    - Everything that was not as it should be, with C(action) V(created), V(changed), V(repaired) (somebody had changed it by
      hand), V(deleted), V(kept) (a namespace of ours in which others live) or V(waiting).
    - A Secret shows its name and its keys.
  returned: always
  type: list
  elements: dict
  sample:
    - api_version: networking.k8s.io/v1
      kind: NetworkPolicy
      namespace: media
      name: netguard-killswitch-qbittorrent
      action: repaired
patches:
  description:
    - Changes of objects that are not ours, such as workloads and Pod Security labels of namespaces, with C(target), C(patch)
      and C(reason). Empty for a module that changes none.
  returned: always
  type: list
  elements: dict
counts:
  description: Number of objects by what happened to them, V(unchanged) among them.
  returned: always
  type: dict
  sample: {created: 4, unchanged: 12}
cluster:
  description: The cluster that was asked, with C(id) (uid of the namespace kube-system), C(host) and C(context).
  returned: when O(state) is not V(rendered)
  type: dict
duration:
  description: Seconds that the module took.
  returned: always
  type: float
manifests:
  description: The objects, without Secrets.
  returned: with O(return_manifests), or with O(state=rendered) and no O(dest)
  type: list
  elements: dict
"""

from ansible_collections.homelab.netguard.plugins.module_utils._module import run
from ansible_collections.homelab.netguard.plugins.module_utils._operations.gateway import SPEC, operation


def main() -> None:
    run(SPEC, operation)


if __name__ == "__main__":
    main()
