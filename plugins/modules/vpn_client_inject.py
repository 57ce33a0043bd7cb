#!/usr/bin/python
# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Module vpn_client_inject."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vpn_client_inject
short_description: Sends apps through their VPN gateway, closed from their first packet on
version_added: 0.1.0
description:
  - Patches the workload of every app with C(vpn) so that the first init container of its pods is the guard, packet rules that let
    nothing out but through the overlay, and the second a sidecar that keeps the overlay to the gateway right.
  - The patch is a strategic merge, so that the owner's own C(kubectl apply) keeps it. A workload that lost it, by
    C(kubectl replace), a roll-back or a chart, is repaired by the next run.
  - An app is refused unless its kill switch is in force, that is M(homelab.netguard.killswitch_policy) ran with the same lists,
    no other policy lets it out, and a dry-run pod without the guard was refused. A dry-run CREATE of the guarded pod must be
    admitted. All
    this is asked before the first workload is patched.
  - An app that left the list is released in the order that never opens it, admission, then the injection, then (after its pods
    were replaced) the policy. The pod template is then what it was before, field by field.
  - A workload that does not exist yet is reported as V(waiting). Policy and admission of it are in force already.
  - Jobs, bare pods, pods on the node's network, on Windows or with secondary networks that were not accepted by name are refused
    with the reason and the way out; see C(docs/clients.md).
options:
  admission:
    description:
      - Whether admission must be in force before a workload is patched. The same value as for
        M(homelab.netguard.killswitch_policy).
      - V(auto) asks for it where the server has it (Kubernetes 1.30 and later), V(required) everywhere, V(none) not at all.
    type: str
    choices: [auto, required, none]
    default: auto
  manage_pod_security:
    description:
      - Whether a namespace that enforces Pod Security V(baseline) or V(restricted) is labelled V(privileged), which the guard's
        NET_ADMIN needs. The level it had comes back with the last client that leaves it. Otherwise its apps are refused with the
        command that does it.
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
  - module: homelab.netguard.killswitch_policy
  - module: homelab.netguard.vpn_gateway
author:
  - The homelab.netguard developers (@homelab-netguard)
"""

EXAMPLES = r"""
- name: Everything that the list sends through a VPN
  homelab.netguard.vpn_client_inject:
    gateways: "{{ netguard_gateways }}"
    apps: "{{ netguard_apps }}"

- name: One app alone, and a longer wait for its pods
  homelab.netguard.vpn_client_inject:
    gateways: "{{ netguard_gateways }}"
    apps: "{{ netguard_apps }}"
    only: [qbittorrent]
    wait_timeout: 900

- name: Patches for Kustomize, without a cluster
  homelab.netguard.vpn_client_inject:
    state: rendered
    dest: manifests
    gateways: "{{ netguard_gateways }}"
    apps: "{{ netguard_apps }}"
    facts: "{{ netguard_facts }}"
    live: [workloads.yml, services.yml]

- name: Give every workload of this instance back as it was
  homelab.netguard.vpn_client_inject:
    state: absent
"""

RETURN = r"""
clients:
  description: Every client of this run, and every workload that was released.
  returned: always
  type: list
  elements: dict
  contains:
    app:
      description: The app, C(namespace/name); empty for one that was released.
      type: str
    workload:
      description: Its workload, C(Kind/name).
      type: str
    namespace:
      description: Its namespace.
      type: str
    gateway:
      description: Name of its gateway.
      type: str
    action:
      description: V(unchanged), V(waiting), V(injected), V(changed), V(repaired) or V(released).
      type: str
    overlay_addresses:
      description: By name of the pod its address on the overlay.
      type: dict
  sample:
    - app: media/qbittorrent
      workload: Deployment/qbittorrent
      namespace: media
      gateway: proton
      action: injected
      overlay_addresses: {qbittorrent-6d5f9c7b8-x2x7k: 172.23.1.17}
notes:
  description: What does not hold or happens besides, one sentence each, such as a container that could undo the guard.
  returned: always
  type: list
  elements: str
  sample: ["container vpn-tools of media/qbittorrent has NET_ADMIN: it could undo the guard, and the policy alone holds it"]
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
from ansible_collections.homelab.netguard.plugins.module_utils._operations.clients import SPEC, operation


def main() -> None:
    run(SPEC, operation)


if __name__ == "__main__":
    main()
