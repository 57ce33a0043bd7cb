# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The expressions of admission policies (CEL). They read `variables` of `admission.client_policy`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from .client_guard import GUARD
from .workloads import PodSelector

NO_POD = "request.resource.resource != 'pods'"
SUBRESOURCE = "(has(request.subResource) && request.subResource == 'ephemeralcontainers')"
#: Debug containers that were there before are left alone.
EPHEMERAL = (
    "!has(variables.template.spec.ephemeralContainers) || variables.template.spec.ephemeralContainers.all(c,"
    " (has(variables.before.spec.ephemeralContainers) && variables.before.spec.ephemeralContainers.exists(o, o.name == c.name))"
    " || !has(c.securityContext) || ((!has(c.securityContext.privileged) || !c.securityContext.privileged)"
    " && (!has(c.securityContext.capabilities) || !has(c.securityContext.capabilities.add)"
    " || size(c.securityContext.capabilities.add) == 0)))"
)


def text(value: str) -> str:
    """A CEL string literal; JSON's escapes are a subset of CEL's."""
    return json.dumps(value)


def init(variable: str) -> str:
    return f"has(variables.{variable}.spec.initContainers) ? variables.{variable}.spec.initContainers : []"


def guard_expression(guards: Iterable[Mapping[str, Any]]) -> str:
    """Whether the first init container is one of the accepted guards: it runs to its end before anything else starts."""
    first = "variables.init[0]"
    either = " || ".join(
        f"({first}.image == {text(guard['image'])} && {first}.command == {json.dumps(guard['command'])}"
        f" && {json.dumps(guard['capabilities'])}.all(x, x in {first}.securityContext.capabilities.add))"
        for guard in guards
    )
    return (
        f"{first}.name == {text(GUARD)} && !has({first}.restartPolicy) && !has({first}.args) && has({first}.command)"
        f" && has({first}.securityContext) && has({first}.securityContext.capabilities)"
        f" && has({first}.securityContext.capabilities.add) && ({either})"
    )


def selector_expression(selector: PodSelector, subject: str) -> str:
    """Whether the labels of `subject` (an expression for something with metadata) fit a label selector.

    A missing label fits NotIn and DoesNotExist, as in the API.
    """
    labels = f"{subject}.metadata.labels"
    parts: list[str] = []
    for key, value in sorted(selector.labels.items()):
        parts.append(f"{_has(labels, key)} && {labels}[{text(key)}] == {text(value)}")
    for expression in selector.expressions:
        key, operator = expression["key"], expression["operator"]
        values = json.dumps(list(expression.get("values") or []))
        if operator == "In":
            parts.append(f"{_has(labels, key)} && {labels}[{text(key)}] in {values}")
        elif operator == "NotIn":
            parts.append(f"!({_has(labels, key)} && {labels}[{text(key)}] in {values})")
        else:
            parts.append(_has(labels, key) if operator == "Exists" else f"!({_has(labels, key)})")
    return " && ".join(parts)


def _has(labels: str, key: str) -> str:
    return f"has({labels}) && {text(key)} in {labels}"
