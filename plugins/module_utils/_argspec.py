# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Argument specifications that can be joined: options together with the constraints between them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Option = dict[str, Any]


@dataclass(frozen=True)
class ArgumentSpec:
    """Options of a module and what must hold between them."""

    options: Mapping[str, Option] = field(default_factory=dict)
    mutually_exclusive: tuple[tuple[str, ...], ...] = ()
    required_together: tuple[tuple[str, ...], ...] = ()
    required_if: tuple[tuple[Any, ...], ...] = ()

    def merge(self, *others: ArgumentSpec) -> ArgumentSpec:
        """The options and constraints of all; a later option replaces an earlier one of the same name."""
        options = dict(self.options)
        exclusive, together, needed = self.mutually_exclusive, self.required_together, self.required_if
        for other in others:
            options.update(other.options)
            exclusive += other.mutually_exclusive
            together += other.required_together
            needed += other.required_if
        return ArgumentSpec(options, exclusive, together, needed)

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of AnsibleModule. Copied: AnsibleModule changes what it is given."""
        return {
            "argument_spec": copy.deepcopy(dict(self.options)),
            "mutually_exclusive": list(self.mutually_exclusive),
            "required_together": list(self.required_together),
            "required_if": list(self.required_if),
        }


def auth() -> ArgumentSpec:
    """The authentication options of kubernetes.core. Imported here: without it a module must still be able to say so."""
    from ansible_collections.kubernetes.core.plugins.module_utils.args_common import AUTH_ARG_SPEC

    return ArgumentSpec(copy.deepcopy(AUTH_ARG_SPEC))


#: What every module takes: the topology. Its content is judged by `_topology` alone, which reports every fault at once.
TOPOLOGY = ArgumentSpec(
    {
        "instance": {"type": "str", "default": "home"},
        "gateways": {"type": "list", "elements": "raw", "default": []},
        "apps": {"type": "list", "elements": "raw", "default": []},
        "platform": {"type": "dict", "default": {}},
        "namespaces": {"type": "list", "elements": "raw", "default": []},
    }
)
#: The cluster: what is known of it, and which one it must be.
FACTS = ArgumentSpec({"facts": {"type": "dict"}, "expected_cluster": {"type": "str"}})
#: What every writer takes.
WRITER = ArgumentSpec(
    {
        "state": {"type": "str", "choices": ["present", "absent", "rendered"], "default": "present"},
        "prune": {"type": "bool", "default": True},
        "only": {"type": "list", "elements": "str", "default": []},
        "dest": {"type": "path"},
        "live": {"type": "list", "elements": "raw", "default": []},
        "return_manifests": {"type": "bool", "default": False},
    }
)
WAIT = ArgumentSpec({"wait": {"type": "bool", "default": True}, "wait_timeout": {"type": "int", "default": 300}})
IMAGES = ArgumentSpec({"images": {"type": "dict", "options": {"gluetun": {"type": "str"}, "overlay": {"type": "str"}}}})
