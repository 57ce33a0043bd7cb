# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every module of this collection can do."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can predict what it would change, by the API server's own dry run.
    support: full
  diff_mode:
    description: Returns what changed, with the values of secrets masked.
    support: full
  action_group:
    description: Belongs to the action group of this collection, so that C(module_defaults) reach it.
    support: full
    membership:
      - homelab.netguard.netguard
requirements:
  - python >= 3.10
  - kubernetes >= 24.2.0, != 36.0.0
"""
