# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options that declare the topology. Generated from its schema by tools/topology_docs.py."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  instance:
    description:
      - Name of this set of objects, part of their labels. Two lists that must not touch each other need two instances.
    type: str
    default: home
  gateways:
    description:
      - The VPN gateways.
      - >-
        Keys: V(name), V(namespace), V(provider), V(protocol), V(server), V(wireguard), V(openvpn), V(credentials),
        V(overlay), V(dns), V(settings).
      - Their meaning is in C(docs/topology.md). Faults are reported together, each with its path.
    type: list
    elements: raw
    default: []
  apps:
    description:
      - The apps and what each of them needs.
      - >-
        Keys: V(name), V(namespace), V(workload), V(pods), V(service_account), V(ports), V(vpn), V(uses), V(exposed),
        V(metrics), V(internet), V(external), V(kube_api), V(lan), V(webhook), V(peers), V(icmp), V(operator).
      - Their meaning is in C(docs/topology.md). Faults are reported together, each with its path.
    type: list
    elements: raw
    default: []
  platform:
    description:
      - The parts of the cluster that serve many apps.
      - >-
        Keys: V(ingress), V(prometheus).
      - Their meaning is in C(docs/topology.md). Faults are reported together, each with its path.
    type: dict
    default: {}
  namespaces:
    description:
      - Namespaces that differ from the default.
      - >-
        Keys: V(name), V(default), V(layout), V(mesh).
      - Their meaning is in C(docs/topology.md). Faults are reported together, each with its path.
    type: list
    elements: raw
    default: []
"""
