# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The scripts that run inside pods, as Python constants, and the settings files they read. Nothing here runs on the controller.

`scripts` says how containers call them, `settings` what they are told; each `script_*` file holds one script.
"""
