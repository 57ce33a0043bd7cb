# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an audit says: one finding is one fault with its witness, the policy and rule behind it, and the mend."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

ERROR, WARNING, INFO = "error", "warning", "info"
SEVERITIES = (ERROR, WARNING, INFO)


@dataclass(frozen=True)
class Finding:
    """`witness`: source, destination and port of one flow that shows it; `profiles`: the CNIs under which it holds."""

    code: str
    severity: str
    subject: str
    message: str
    mend: str = ""
    policy: str = ""
    rule: str = ""
    witness: tuple[tuple[str, str], ...] = ()
    profiles: tuple[str, ...] = field(default=())

    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "code": self.code,
            "severity": self.severity,
            "subject": self.subject,
            "message": self.message,
            "mend": self.mend,
            "policy": self.policy,
            "rule": self.rule,
            "witness": dict(self.witness),
            "profiles": list(self.profiles),
        }
        return found

    def __str__(self) -> str:
        by = f" [{self.policy}{' ' + self.rule if self.rule else ''}]" if self.policy else ""
        mend = f" -> {self.mend}" if self.mend else ""
        return f"{self.severity} {self.code}: {self.subject}: {self.message}{by}{mend}"


def flow(source: str, destination: str, port: str = "") -> tuple[tuple[str, str], ...]:
    return (("source", source), ("destination", destination), ("port", port))


def merged(by_profile: Iterable[tuple[str, Iterable[Finding]]]) -> list[Finding]:
    """Findings of several profiles joined: each names the profiles under which it holds. The worst comes first."""
    profiles: dict[Finding, list[str]] = {}
    for name, findings in by_profile:
        for finding in findings:
            known = profiles.setdefault(finding, [])
            if name not in known:
                known.append(name)
    found = [replace(finding, profiles=tuple(names)) for finding, names in profiles.items()]
    return sorted(found, key=lambda item: (SEVERITIES.index(item.severity), item.subject, item.code, item.message))


def reaches(findings: Iterable[Finding], fail_on: str) -> list[Finding]:
    """Those that are as bad as `fail_on` (error, warning, info) or worse; `never`: none."""
    if fail_on not in SEVERITIES:
        return []
    return [item for item in findings if SEVERITIES.index(item.severity) <= SEVERITIES.index(fail_on)]
