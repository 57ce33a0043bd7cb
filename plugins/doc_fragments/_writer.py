# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of every module that writes."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  state:
    description:
      - V(present) brings the cluster to what is declared.
      - V(absent) removes what this module created for O(instance), whatever the lists say.
      - V(rendered) touches no cluster and returns or writes the manifests.
    type: str
    choices: [present, absent, rendered]
    default: present
  prune:
    description:
      - Whether objects of this instance that are no longer wanted are removed.
    type: bool
    default: true
  only:
    description:
      - Names of apps. Everything is judged, only these are written, and nothing is pruned.
    type: list
    elements: str
    default: []
  dest:
    description:
      - Folder to write the manifests to with O(state=rendered). Without it they are returned.
    type: path
  live:
    description:
      - With O(state=rendered) the manifests that exist already, such as the apps' own workloads, as objects or as paths
        of files and folders.
    type: list
    elements: raw
    default: []
  return_manifests:
    description:
      - Whether the result holds the manifests. Large results slow a play down. Secrets are never among them.
    type: bool
    default: false
"""
