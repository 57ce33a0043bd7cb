# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the readers of every policy language share: the policy at hand, the world, and the faults found on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .policy import Policy, Problem, Ref
from .profiles import Profile
from .world import World


class Reader:
    """Reads one policy. Faults are collected; one for which an API server would refuse the policy makes it none."""

    def __init__(self, ref: Ref, world: World, profile: Profile) -> None:
        self.ref = ref
        self.world = world
        self.profile = profile
        self.problems: list[Problem] = []

    def bad(self, path: str, message: str, mend: str = "") -> None:
        self.problems.append(Problem("malformed", "error", self.ref, path, message, mend, rejected=True))

    @property
    def refused(self) -> bool:
        return any(problem.rejected for problem in self.problems)

    def spec_of(self, manifest: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The policy's spec; None, and a fault, where it is no mapping."""
        spec = manifest.get("spec")
        if isinstance(spec, Mapping):
            return spec
        self.bad("spec", "is no mapping")
        return None

    def result(self, policy: Policy | None) -> tuple[Policy | None, list[Problem]]:
        return (None if self.refused else policy), self.problems
