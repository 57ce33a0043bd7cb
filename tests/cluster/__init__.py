# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the disposable clusters of tests and demo are built and run: programs from Go modules, control planes, kind.

Nothing here is shipped with the collection.
"""
