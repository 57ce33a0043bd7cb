# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs a module of this collection on the cluster: finds a kubeconfig on the controller, then runs the module untouched.

A relative or vault-encrypted kubeconfig can only be found where the play's files are. kubernetes.core's own action
plugin does it too, but prints arguments in clear, so this collection has its own.
"""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleError, AnsibleFileNotFound
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Finds and decrypts a kubeconfig that is a file of the play."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        kubeconfig = arguments.get("kubeconfig")
        if isinstance(kubeconfig, str) and kubeconfig:
            try:
                # Looks in the play's files folders, and decrypts a vaulted file into a temporary one of the loader's.
                arguments["kubeconfig"] = self._loader.get_real_file(self._find_needle("files", kubeconfig))
            except (AnsibleFileNotFound, AnsibleError):
                arguments["kubeconfig"] = kubeconfig  # a path on the host that the module runs on
        result: dict[str, Any] = self._execute_module(
            module_name=self._task.resolved_action or self._task.action, module_args=arguments, task_vars=task_vars
        )
        self._loader.cleanup_all_tmp_files()
        return result
