#!/usr/bin/python
# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Module killswitch_policy."""

from __future__ import annotations

DOCUMENTATION = r"""
module: killswitch_policy
short_description: Policies and admission that hold VPN clients closed
version_added: 0.1.0
description:
  - Closes every app that has C(vpn) with a NetworkPolicy that selects its pods by the workload's own selector, isolates both
    directions, and opens the gateway's pods and what the list declares, nothing else.
  - Adds a hard deny in the CNI's own language where it has one, a ceiling that no other policy lifts, never without the
    NetworkPolicy beside it.
  - Adds ValidatingAdmissionPolicies that refuse pods without the guard, changes of the workload that take the guard away, debug
    containers with added capabilities, and the deletion or change of these policies. Every refusal names the way out.
  - After writing, a dry-run pod without the guard is sent until it is refused, so that M(homelab.netguard.vpn_client_inject) never
    runs before this holds.
  - Fails, after everything was written, when another policy lets a client out again, unless a hard deny stands before it or
    O(force) accepts it.
  - A client that was dropped from the list and is still injected keeps its kill switch. C(docs/killswitch.md) says what each layer
    holds and what none does.
options:
  dialect:
    description:
      - The language of the hard deny.
      - V(auto) writes Calico's or Cilium's where the CNI is one of them and its API is there, else ClusterNetworkPolicy where that
        API is there.
      - V(networkpolicy) writes none.
    type: str
    choices: [auto, networkpolicy, cilium, calico, clusternetworkpolicy]
    default: auto
  admission:
    description:
      - V(auto) writes admission policies where the server has them (Kubernetes 1.30) and warns otherwise.
      - V(required) fails otherwise. V(none) writes none and removes those of this instance.
    type: str
    choices: [auto, required, none]
    default: auto
  clients:
    description:
      - V(closed) handles only clients that have a kill switch already or that do not run yet, and leaves an app that was not
        adopted yet as it is.
    type: str
    choices: [all, closed]
    default: all
  force:
    description:
      - Accepts policies that let a client out again, and with O(state=absent) clients that are still injected.
    type: bool
    default: false
extends_documentation_fragment:
  - homelab.netguard._topology
  - homelab.netguard._cluster
  - homelab.netguard._writer
  - homelab.netguard._images
  - homelab.netguard._attributes
  - kubernetes.core.k8s_auth_options
seealso:
  - module: homelab.netguard.vpn_client_inject
  - module: homelab.netguard.vpn_gateway
  - module: homelab.netguard.policy_audit
author:
  - The homelab.netguard developers (@homelab-netguard)
"""

EXAMPLES = r"""
- name: Close every client of the list
  homelab.netguard.killswitch_policy:
    gateways: "{{ netguard_gateways }}"
    apps: "{{ netguard_apps }}"

- name: An app that GitOps creates later is born closed
  homelab.netguard.killswitch_policy:
    gateways: "{{ netguard_gateways }}"
    apps:
      - name: qbittorrent
        namespace: media
        pods: {app.kubernetes.io/name: qbittorrent}
        vpn: proton
    admission: required

- name: NetworkPolicies alone, as manifests for GitOps
  homelab.netguard.killswitch_policy:
    state: rendered
    dest: manifests
    dialect: networkpolicy
    gateways: "{{ netguard_gateways }}"
    apps: "{{ netguard_apps }}"
    facts: "{{ netguard_facts }}"

- name: Remove every kill switch of this instance
  homelab.netguard.killswitch_policy:
    state: absent
"""

RETURN = r"""
policies:
  description: Every client that this run closed.
  returned: always
  type: list
  elements: dict
  contains:
    client:
      description: The app, as C(namespace/name).
      type: str
    name:
      description: Name of its NetworkPolicy.
      type: str
    selector:
      description: How its pods are selected.
      type: dict
    networkpolicy:
      description: V(present), or V(waiting) while the namespace does not exist.
      type: str
    hard_deny:
      description: The languages of its hard deny, empty when there is none.
      type: list
      elements: str
    admission:
      description: Whether admission refuses its pods without the guard.
      type: bool
    dns:
      description: Who may ask the cluster's DNS, V(none), V(gateway) (only the sidecar, to find its gateway) or V(client).
      type: str
  sample:
    - client: media/qbittorrent
      name: netguard-killswitch-qbittorrent
      selector: {matchLabels: {app: qbittorrent}}
      networkpolicy: present
      hard_deny: [calico]
      admission: true
      dns: none
reopened_by:
  description: >-
    Rules of other policies, of every language that the CNI obeys, that allow a client addresses outside of the cluster which its
    kill switch does not. C(effective) is false where a hard deny or another rank stands before them. What cannot be read counts.
  returned: always
  type: list
  elements: dict
  sample:
    - client: media/qbittorrent
      kind: NetworkPolicy
      api_version: networking.k8s.io/v1
      namespace: media
      name: allow-internet-egress
      rule: 0
      allows: [0.0.0.0/5]
      effective: true
      reason: allows 1.0.0.1, which the kill switch does not
kept:
  description: Clients that are in no list any more and still injected, with the workloads and pods that have the guard.
  returned: always
  type: list
  elements: dict
  sample: [{client: media/sabnzbd, injected: [Deployment/sabnzbd]}]
proven:
  description: Clients for which a dry-run pod without the guard was refused in this run.
  returned: always
  type: list
  elements: str
  sample: [media/qbittorrent]
notes:
  description: What these policies do not hold on this cluster.
  returned: always
  type: list
  elements: str
  sample: ["no hard deny: with kube-router a later policy can open a client again (see reopened_by)"]
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
from ansible_collections.homelab.netguard.plugins.module_utils._operations.killswitch import SPEC, operation


def main() -> None:
    run(SPEC, operation)


if __name__ == "__main__":
    main()
