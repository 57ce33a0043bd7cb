# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A reference model of the strategic merge of pod templates; tests/apiserver shows that the real server agrees."""

from __future__ import annotations

import copy
from typing import Any

MERGED = ("initContainers", "containers", "volumes")


def merge(original: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(original)
    for key, value in patch.items():
        if key.startswith("$setElementOrder/"):
            continue
        if value is None:
            result.pop(key, None)
        elif key in MERGED:
            result[key] = _list(result.get(key) or [], value)
        elif isinstance(value, dict):
            result[key] = merge(result.get(key) or {}, value)
        else:
            result[key] = copy.deepcopy(value)
    for key, value in patch.items():
        if key.startswith("$setElementOrder/"):
            name = key.split("/")[1]
            order = [item["name"] for item in value]
            assert sorted(order) == sorted(item["name"] for item in result[name]), "the order names every element"
            result[name] = sorted(result[name], key=lambda item: order.index(item["name"]))
    for key in [key for key, value in result.items() if value in ({}, [])]:
        if key in ("labels", "annotations", *MERGED):
            del result[key]
    return result


def _list(original: list[dict[str, Any]], patch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    gone = {item["name"] for item in patch if item.get("$patch") == "delete"}
    result = [copy.deepcopy(item) for item in original if item["name"] not in gone]
    for item in patch:
        if "$patch" in item:
            continue
        found = [position for position, other in enumerate(result) if other["name"] == item["name"]]
        if found:
            result[found[0]] = merge(result[found[0]], item)
        else:
            result.insert(0, copy.deepcopy(item))  # the server may put it anywhere: the order must say where
    return result
