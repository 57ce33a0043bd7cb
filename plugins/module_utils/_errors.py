# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The errors that this collection raises on purpose.

Code below the module files raises one of these; only a module file turns it into a failed task.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

Value = TypeVar("Value")


class NetguardError(Exception):
    """A refusal or a failure with a message for the user; `details` are extra keys of the failed result."""

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.details = details


@dataclass(frozen=True, order=True)
class Fault:
    """One thing wrong in what the user declared.

    `path` is where it stands (`apps[2].uses[0]`), `message` what is wrong, `hint` what to do (may be empty).
    """

    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.path}: {self.message}"
        return f"{text} ({self.hint})" if self.hint else text


class FaultsError(NetguardError):
    """Bad input: carries every fault found, so that one run shows them all."""

    def __init__(self, faults: list[Fault] | tuple[Fault, ...], heading: str = "") -> None:
        self.faults = tuple(faults)
        count = len(self.faults)
        lead = heading or f"{count} fault{'s' if count != 1 else ''} in what was declared"
        super().__init__(
            lead + ":\n" + "\n".join(f"- {fault}" for fault in self.faults), faults=[str(fault) for fault in self.faults]
        )


def required(value: Value | None) -> Value:
    """A value that an earlier check has made sure of; AssertionError when it has not."""
    if value is None:
        raise AssertionError("a value is missing that an earlier check makes sure of")
    return value
