# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Label selectors as Kubernetes evaluates them (labels.Selector of apimachinery)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Labels = Mapping[str, str]


def matches(selector: Mapping[str, Any] | None, labels: Labels) -> bool:
    """Whether a `LabelSelector` takes these labels: empty takes all, None takes none.

    NotIn and DoesNotExist also take objects without the key. An operator that does not exist takes nothing.
    """
    if selector is None:
        return False
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    return all(_expression(item, labels) for item in selector.get("matchExpressions") or [])


def _expression(item: Mapping[str, Any], labels: Labels) -> bool:
    key, values = item.get("key", ""), item.get("values") or []
    operator = item.get("operator")
    if operator == "In":
        return labels.get(key) in values
    if operator == "NotIn":
        return labels.get(key) not in values
    if operator == "Exists":
        return key in labels
    return operator == "DoesNotExist" and key not in labels


def empty(selector: Mapping[str, Any] | None) -> bool:
    """Whether a selector takes everything."""
    return selector is not None and not selector.get("matchLabels") and not selector.get("matchExpressions")
