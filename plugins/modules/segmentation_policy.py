#!/usr/bin/python
# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Default deny and every declared edge, on both sides."""

from __future__ import annotations

DOCUMENTATION = r"""
module: segmentation_policy
short_description: Lets apps talk only to what they declared
version_added: 0.1.0
author:
  - The homelab.netguard developers (@homelab-netguard)
description:
  - Writes one policy per app, complete in both directions, and a default deny per namespace.
  - Every edge is written on both sides. Allowances come first, so that nothing declared is cut on the way.
  - VPN clients get no rule here; M(homelab.netguard.killswitch_policy) holds them with the same edges.
options:
  dialect:
    description:
      - Language of what a NetworkPolicy cannot say, such as pings, or on Cilium nodes and the API server.
      - V(auto) takes the one of the CNI that is there.
    type: str
    choices: [auto, networkpolicy, cilium, calico]
    default: auto
extends_documentation_fragment:
  - homelab.netguard._topology
  - homelab.netguard._cluster
  - homelab.netguard._writer
  - homelab.netguard._attributes
  - kubernetes.core.k8s_auth_options
seealso:
  - module: homelab.netguard.policy_audit
"""

EXAMPLES = r"""
- name: Close a namespace but for what its apps declared
  homelab.netguard.segmentation_policy:
    apps:
      - name: miniflux
        namespace: feeds
        ports: {web: 8080}
        uses: [database/postgres:sql]
        internet: [443]
      - name: postgres
        namespace: database
        workload: StatefulSet/postgres
        ports: {sql: 5432}

- name: Open everything again
  homelab.netguard.segmentation_policy:
    state: absent
"""

RETURN = r"""
edges:
  description: Every edge with the app, the direction, the peer, the ports, the declaration that it comes from and the policy.
  type: list
  elements: dict
  returned: success
not_covered:
  description: Apps that no policy can hold, with the reason.
  type: list
  elements: str
  returned: success
notes:
  description: Where a namespace's one policy (C(layout=namespace)) is replaced by one per app, and what it gives to every pod.
  type: list
  elements: str
  returned: success
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

from ansible_collections.homelab.netguard.plugins.module_utils import _argspec, _module
from ansible_collections.homelab.netguard.plugins.module_utils._operations import segments

SPEC = _argspec.TOPOLOGY.merge(
    _argspec.FACTS,
    _argspec.WRITER,
    _argspec.ArgumentSpec(
        {"dialect": {"type": "str", "choices": ["auto", "networkpolicy", "cilium", "calico"], "default": "auto"}},
    ),
)


def main() -> None:
    _module.run(SPEC, segments.operation)


if __name__ == "__main__":
    main()
