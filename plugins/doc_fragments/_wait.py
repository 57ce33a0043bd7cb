# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of modules that wait."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  wait:
    description:
      - Whether to wait until what was written works. Nothing waits in check mode.
    type: bool
    default: true
  wait_timeout:
    description:
      - Seconds to wait at most, for everything that the task waits for together.
      - A timeout names the pod, the container, the reason and the last line of its log.
    type: int
    default: 300
"""
