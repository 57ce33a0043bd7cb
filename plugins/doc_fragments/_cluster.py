# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options that say which cluster it is and what is known of it."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  facts:
    description:
      - The C(facts) that M(homelab.netguard.cluster_cidrs) returned. Without them the cluster is asked.
      - Needed when nothing may be asked.
    type: dict
  expected_cluster:
    description:
      - The id that every run returns under C(cluster), the uid of the namespace C(kube-system). Any other cluster is refused.
    type: str
"""
