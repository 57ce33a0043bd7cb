# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs a module of this collection on the cluster: finds a kubeconfig on the controller, then runs the module untouched.

A relative or vault-encrypted kubeconfig can only be found where the play's files are. kubernetes.core's own action
plugin does it too, but prints arguments in clear, so this collection has its own.
"""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Finds and decrypts a kubeconfig that is a file of the play."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        kubeconfig = arguments.get("kubeconfig")
        found = self._found(kubeconfig) if isinstance(kubeconfig, str) and kubeconfig else ""
        try:
            if found:
                # A vaulted file comes back as the name of a decrypted one, which the loader removes below.
                arguments["kubeconfig"] = self._loader.get_real_file(found)
            result: dict[str, Any] = self._execute_module(
                module_name=self._task.resolved_action or self._task.action, module_args=arguments, task_vars=task_vars
            )
        finally:
            self._loader.cleanup_all_tmp_files()
        return result

    def _found(self, kubeconfig: str) -> str:
        """The file among the play's; empty when it is a path on the host that the module runs on, if anything."""
        try:
            return str(self._find_needle("files", kubeconfig))
        except AnsibleError:
            return ""
