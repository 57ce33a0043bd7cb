# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One file per module: an operation takes a context and returns the module's result. Builders, plans and waits meet here alone."""
