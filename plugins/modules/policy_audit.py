#!/usr/bin/python
# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What all policies together do, held against the list."""

from __future__ import annotations

DOCUMENTATION = r"""
module: policy_audit
short_description: Proves what all policies of a cluster together do
version_added: 0.1.0
author:
  - The homelab.netguard developers (@homelab-netguard)
description:
  - Reads every policy there is, of Kubernetes, Calico, Cilium and the policy tiers, from the cluster or from files, and holds them
    against the declared list.
  - No VPN client may reach the public internet by any rule; every declared edge must work; nothing else should.
  - Addresses and ports are compared as exact sets of both families, under the rules of the CNI that is there. Where the CNI is not
    known, under those of every one, and disagreements are reported.
  - It never changes the cluster. C(docs/audit.md) lists every finding.
options:
  manifests:
    description:
      - Files or folders of manifests, or objects, to audit instead of the cluster. With O(facts) no cluster is asked.
    type: list
    elements: raw
    default: []
  profile:
    description:
      - The CNI whose reading of policies counts. V(auto) is the cluster's own, V(all) every one.
    type: str
    default: auto
  scope:
    description:
      - V(clients) looks at VPN clients alone.
    type: str
    choices: [all, clients]
    default: all
  fail_on:
    description:
      - The task fails on findings as bad as this, or worse. The result holds all of them in any case.
    type: str
    choices: [error, warning, info, never]
    default: error
  explain:
    description:
      - Flows to explain, each a mapping with V(source), V(destination) and V(port) (such as V(443/tcp) or V(icmp)).
      - Source and destination are an app, C(namespace/Kind/name), a Service (C(namespace/name)) or an address.
    type: list
    elements: dict
    default: []
  matrix:
    description:
      - Whether the result holds the matrix. It grows with the square of the number of apps.
    type: bool
    default: true
  dest:
    description:
      - Writes the picture, the matrix and the findings as one HTML page to this file, or into this folder as C(audit.html).
    type: path
  only:
    description:
      - Apps to hold against the list; policies of all are read in any case.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - homelab.netguard._topology
  - homelab.netguard._cluster
  - homelab.netguard._attributes
  - kubernetes.core.k8s_auth_options
seealso:
  - module: homelab.netguard.killswitch_policy
  - module: homelab.netguard.segmentation_policy
"""

EXAMPLES = r"""
- name: Is any client able to leave from the home address?
  homelab.netguard.policy_audit:
    gateways: "{{ netguard_gateways }}"
    apps: "{{ netguard_apps }}"
    scope: clients

- name: Why does this not connect?
  homelab.netguard.policy_audit:
    apps: "{{ netguard_apps }}"
    fail_on: never
    explain:
      - {source: feeds/miniflux, destination: database/postgres, port: 5432/tcp}

- name: Audit a repository before it is applied, without a cluster
  homelab.netguard.policy_audit:
    apps: "{{ netguard_apps }}"
    facts: "{{ lookup('file', 'facts.json') | from_json }}"
    manifests: [cluster/]
    dest: audit.html
"""

RETURN = r"""
findings:
  description: Every finding, the worst first.
  type: list
  elements: dict
  returned: always
  sample:
    - code: leak
      severity: error
      subject: media/qbittorrent
      message: media/Deployment/qbittorrent reaches the public internet over IPv4
      mend: exclude the client's pods from that policy by label, or have a hard deny before it
      policy: NetworkPolicy media/allow-internet-egress
      rule: egress[0]
      witness: {source: media/Deployment/qbittorrent, destination: 1.1.1.1, port: 443/tcp}
      profiles: [calico]
counts:
  description: Number of findings by severity.
  type: dict
  returned: always
  sample: {error: 0, warning: 2, info: 5}
profiles:
  description: The CNIs under whose rules was evaluated.
  type: list
  elements: str
  returned: always
explain:
  description: One answer per flow and profile, with the verdict, what each policy says, and the same in words.
  type: list
  elements: dict
  returned: always
matrix:
  description: The names, and by source one cell per name with verdict and ports.
  type: dict
  returned: when O(scope) is V(all)
matrix_table:
  description: The matrix as lines for a terminal.
  type: list
  elements: str
  returned: when O(scope) is V(all)
cluster:
  description: C(id), C(host) and C(context) of the cluster.
  type: dict
  returned: when a cluster was asked
duration:
  description: Seconds that the module took.
  type: float
  returned: success
"""

from ansible_collections.homelab.netguard.plugins.module_utils._module import run
from ansible_collections.homelab.netguard.plugins.module_utils._operations.audit import SPEC, operation


def main() -> None:
    run(SPEC, operation)


if __name__ == "__main__":
    main()
