# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The images of gateways and clients: one variable for every module that writes or compares them."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  images:
    description:
      - Container images. Each must name an exact version, since Gluetun renames its variables between versions.
      - Give every module the same, since admission compares the image that a client's pods start with.
    type: dict
    suboptions:
      gluetun:
        description: Image with Gluetun, version 3.41 or 3.42. Omitted, 3.41.3 by its digest.
        type: str
      overlay:
        description: Image in which the scripts of guard and overlay run. Omitted, pod-gateway 1.13.0.
        type: str
"""
