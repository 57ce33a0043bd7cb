# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pure builders: (topology, facts, live) to objects and patches, one file per kind of thing.

Nothing here reads or writes a cluster.
"""
