#!/usr/bin/python
# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the cluster is."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_cidrs
short_description: Finds out what a cluster is, with sources and doubts
version_added: 0.1.0
author:
  - The homelab.netguard developers (@homelab-netguard)
description:
  - Reads every source there is for the ranges of pods, services, nodes and the LAN, for the API endpoints, the DNS, the CNI and
    the distribution, and judges all of them together.
  - Nothing is guessed wider than it is proven. What may not be read is unknown, not absent.
  - It never writes. Where the ranges of services are written nowhere, the API server is asked by a dry run.
options:
  overrides:
    description:
      - What you know better. They win, and are still checked against what is observed.
      - >-
        Keys: V(pods), V(services), V(nodes), V(lan) (lists of networks), V(dns), V(cni), V(api_server), V(mesh) (mappings that
        replace single values), V(distribution), V(ip_families), and V(force) to hold a range against observations.
    type: dict
    default: {}
  lan:
    description:
      - >-
        Addresses of the nodes' interfaces with their prefix length, such as V(192.168.1.10/24), from facts that Ansible gathered
        on them. The role C(cluster_facts) fills it. Only those count that the cluster knows a node by.
    type: list
    elements: str
    default: []
  strict:
    description:
      - Whether a range of pods or services that is not certain fails the task. The message names what settles it.
    type: bool
    default: true
  probe_namespace:
    description:
      - Namespace in which the dry run may create a Service. Without that right the source is left out.
    type: str
    default: default
  expected_cluster:
    description:
      - The id that every run returns under C(cluster), the uid of the namespace C(kube-system). Any other cluster is refused.
    type: str
extends_documentation_fragment:
  - homelab.netguard._topology
  - homelab.netguard._attributes
  - kubernetes.core.k8s_auth_options
"""

EXAMPLES = r"""
- name: Find out what the cluster is
  homelab.netguard.cluster_cidrs:
  register: cluster

- name: The same, with a LAN that nothing in the cluster knows
  homelab.netguard.cluster_cidrs:
    overrides:
      lan: [192.168.1.0/24]

- name: Show what is doubtful instead of failing
  homelab.netguard.cluster_cidrs:
    strict: false
"""

RETURN = r"""
facts:
  description: What was found. Pass it to the option C(facts) of the other modules.
  type: dict
  returned: success
  contains:
    cidrs:
      description: Lists of networks by class.
      type: dict
      sample: {pods: [10.42.0.0/16], services: [10.43.0.0/16], nodes: [192.168.1.10/32], lan: [192.168.1.0/24]}
    ranges:
      description: >-
        By class the status (C(complete), C(partial), C(conflict), C(unknown)), each network with its sources, what was observed
        inside and outside, and what was rejected with the reason.
      type: dict
    api_server:
      description: C(endpoints) with address and port, and the C(service_ip).
      type: dict
    dns:
      description: Address, namespace and labels of the DNS, the ports of its pods, a node-local cache, the cluster domain.
      type: dict
    cni:
      description: Name, allocator, what policies may rely on, and which policy APIs are served.
      type: dict
    distribution:
      description: Name, version and the signals that say so.
      type: dict
    server:
      description: C(version), and the C(id), C(host) and C(context) of the cluster.
      type: dict
    ip_families:
      description: C(ipv4), C(ipv6) or both.
      type: list
      elements: str
    mesh:
      description: Whether Istio ambient runs, and the sources of its probes.
      type: dict
    permissions:
      description: By source C(ok), C(forbidden), C(absent) or C(failed).
      type: dict
    missing_rights:
      description: For each right that was refused its C(level) in the documentation, the C(rule), and what it C(tells).
      type: list
      elements: dict
    dns_forwarders:
      description: Where the cluster's DNS asks for names that it does not know.
      type: list
      elements: str
    doubts:
      description: Each C(doubt), what it is C(about), and the variable that would C(settle) it.
      type: list
      elements: dict
    digest:
      description: Changes when a range, an endpoint or the DNS changes.
      type: str
cluster:
  description: C(id), C(host) and C(context) of the cluster.
  type: dict
  returned: success
duration:
  description: Seconds that the module took.
  type: float
  returned: success
"""

from ansible_collections.homelab.netguard.plugins.module_utils import _argspec, _module
from ansible_collections.homelab.netguard.plugins.module_utils._operations import facts

SPEC = _argspec.TOPOLOGY.merge(
    _argspec.ArgumentSpec(
        {
            "overrides": {"type": "dict", "default": {}},
            "lan": {"type": "list", "elements": "str", "default": []},
            "strict": {"type": "bool", "default": True},
            "probe_namespace": {"type": "str", "default": "default"},
            "expected_cluster": {"type": "str"},
        },
    ),
)


def main() -> None:
    _module.run(SPEC, facts.operation)


if __name__ == "__main__":
    main()
