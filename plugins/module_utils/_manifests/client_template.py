# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pod templates with and without the injection, as values: `inject` adds, `release` gives back what was there before.

Both are pure, and `release(inject(template)) == template` for every template. What a field held before we set it is
remembered in one annotation of the template together with what we set, so that a value which the owner changes after
the injection becomes the new original instead of being overwritten at removal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .client_guard import GUARD, SIDECAR, VOLUME
from .model import LABEL_CLIENT, LABEL_INSTANCE, PREFIX, Manifest

ORIGINALS = PREFIX + "originals"
DIGEST = PREFIX + "digest"
POLICY = PREFIX + "policy"
DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
DNS_CAPTURE = "ambient.istio.io/dns-capture"

OUR_CONTAINERS = (GUARD, SIDECAR)
OUR_LABELS = (LABEL_CLIENT, LABEL_INSTANCE)
OUR_ANNOTATIONS = (ORIGINALS, DIGEST, POLICY)
#: Fields of the pod spec that a DNS mode replaces as a whole.
DNS_FIELDS = ("dnsPolicy", "dnsConfig")
#: Capabilities with which a container can undo the guard or speak past it.
LOOSE = frozenset({"ALL", "NET_ADMIN", "NET_RAW", "SYS_ADMIN"})


@dataclass(frozen=True)
class Additions:
    """What one client's template gets. `dns` empty: the pod keeps its own DNS settings."""

    init: tuple[Manifest, ...]  # in front of the owner's init containers, in this order
    containers: tuple[Manifest, ...] = ()  # behind the owner's containers
    volumes: tuple[Manifest, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)  # ours alone: nobody else has a value for them
    shared: Mapping[str, str] = field(default_factory=dict)  # annotations of others (Istio): the original is remembered
    dns: Mapping[str, Any] = field(default_factory=dict)


def clone(value: Any) -> Any:
    """A deep copy of plain data; several times faster than copy.deepcopy, which tells at a thousand clients."""
    if isinstance(value, dict):
        return {key: clone(item) for key, item in value.items()}
    return [clone(item) for item in value] if isinstance(value, list) else value


def injected(template: Mapping[str, Any]) -> bool:
    """Whether anything of ours is in the template."""
    spec, meta = template.get("spec") or {}, template.get("metadata") or {}
    named = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    return any(item["name"] in OUR_CONTAINERS for item in named) or any(
        key in (meta.get("annotations") or {}) for key in OUR_ANNOTATIONS
    )


def inject(template: Mapping[str, Any], additions: Additions) -> Manifest:
    """The template with the guard first. Injecting twice, or over an older injection, gives the same as injecting once."""
    result: Manifest = clone(dict(template))
    record = _record(result)
    meta, spec = result.setdefault("metadata", {}), result["spec"]
    annotations = meta["annotations"] = dict(meta.get("annotations") or {})
    labels = meta["labels"] = dict(meta.get("labels") or {})

    foreign_init = [item for item in spec.get("initContainers") or () if item["name"] not in OUR_CONTAINERS]
    foreign = [item for item in spec["containers"] if item["name"] not in OUR_CONTAINERS]
    originals: Manifest = {"netRaw": _drop_net_raw([*foreign_init, *foreign], record.get("netRaw", {}))}
    originals["fields"] = {
        key: _replace(spec, key, additions.dns.get(key), record.get("fields", {}).get(key)) for key in DNS_FIELDS if additions.dns
    }
    if not additions.dns:
        _restore(spec, record.get("fields", {}))
    shared = dict(additions.shared)
    remembered = record.get("annotations", {})
    if foreign and (DEFAULT_CONTAINER not in annotations or DEFAULT_CONTAINER in remembered):
        shared[DEFAULT_CONTAINER] = foreign[0]["name"]
    _restore(annotations, {key: value for key, value in remembered.items() if key not in shared})
    originals["annotations"] = {
        key: _replace(annotations, key, value, remembered.get(key)) for key, value in sorted(shared.items())
    }

    spec["initContainers"] = [*clone(list(additions.init)), *foreign_init]
    spec["containers"] = [*foreign, *clone(list(additions.containers))]
    spec["volumes"] = [
        *(item for item in spec.get("volumes") or () if item["name"] != VOLUME),
        *clone(list(additions.volumes)),
    ]
    for key in OUR_ANNOTATIONS:
        annotations.pop(key, None)
    for key in OUR_LABELS:
        labels.pop(key, None)
    labels.update(additions.labels)
    annotations.update(additions.annotations)
    annotations[ORIGINALS] = json.dumps(originals, sort_keys=True, separators=(",", ":"))
    return _tidy(result)


def release(template: Mapping[str, Any]) -> Manifest:
    """The template as it was before `inject`, with whatever its owner changed since."""
    result: Manifest = clone(dict(template))
    had_record = ORIGINALS in ((result.get("metadata") or {}).get("annotations") or {})
    record = _record(result)
    meta, spec = result.get("metadata") or {}, result["spec"]
    annotations = meta.get("annotations") or {}
    for key in ("initContainers", "containers"):
        if key in spec:
            spec[key] = [item for item in spec[key] or () if item["name"] not in OUR_CONTAINERS]
    if "volumes" in spec:
        spec["volumes"] = [item for item in spec["volumes"] or () if item["name"] != VOLUME]
    _give_back_net_raw([*(spec.get("initContainers") or ()), *spec["containers"]], record.get("netRaw", {}))
    _restore(spec, record.get("fields", {}))
    if not had_record and injected(template) and spec.get("dnsPolicy") == "None":
        # The record is lost: the cluster's default is the best guess, since a pod left without DNS would be broken.
        spec["dnsPolicy"] = "ClusterFirst"
        spec.pop("dnsConfig", None)
    _restore(annotations, record.get("annotations", {}))
    for key in OUR_ANNOTATIONS:
        annotations.pop(key, None)
    for key in OUR_LABELS:
        (meta.get("labels") or {}).pop(key, None)
    return _tidy(result)


def loose_containers(template: Mapping[str, Any]) -> dict[str, str]:
    """The owner's containers which could undo the guard or speak past it, each with the reason (capability or privilege)."""
    found: dict[str, str] = {}
    spec = template["spec"]
    for item in [*(spec.get("initContainers") or ()), *spec["containers"]]:
        if item["name"] in OUR_CONTAINERS:
            continue
        context = item.get("securityContext") or {}
        added = LOOSE & {_capability(name) for name in (context.get("capabilities") or {}).get("add") or ()}
        if context.get("privileged"):
            found[item["name"]] = "privileged"
        elif added:
            found[item["name"]] = ", ".join(sorted(added))
    return found


def _record(template: Mapping[str, Any]) -> Manifest:
    text = ((template.get("metadata") or {}).get("annotations") or {}).get(ORIGINALS)
    try:
        record = json.loads(text) if text else {}
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _replace(holder: Manifest, key: str, value: Any, remembered: Mapping[str, Any] | None) -> Manifest:
    """Sets a field (None: removes it) and returns what to remember: the value before us and the value that we set."""
    current = holder.get(key)
    was = remembered["was"] if remembered is not None and current == remembered["set"] else current
    if value is None:
        holder.pop(key, None)
    else:
        holder[key] = clone(value)
    return {"was": was, "set": value}


def _restore(holder: Manifest, remembered: Mapping[str, Any]) -> None:
    """Puts fields back which still hold what we set; a value changed since is the owner's and stays."""
    for key, memory in remembered.items():
        if holder.get(key) != memory["set"]:
            continue
        if memory["was"] is None:
            holder.pop(key, None)
        else:
            holder[key] = memory["was"]


def _capability(name: str) -> str:
    return name.upper().removeprefix("CAP_")


def _drop_net_raw(containers: list[Manifest], remembered: Mapping[str, str]) -> dict[str, str]:
    """Drops NET_RAW from the owner's containers, where it is a default of the runtime and not asked for.

    A packet socket skips the guard's rules, so the default must go. Returns by container the outermost field that exists
    only because of us: `securityContext`, `capabilities` or `drop`.
    """
    made: dict[str, str] = {}
    for item in containers:
        context = item.get("securityContext") or {}
        capabilities = context.get("capabilities") or {}
        dropped = [_capability(name) for name in capabilities.get("drop") or ()]
        added = {_capability(name) for name in capabilities.get("add") or ()}
        if item["name"] in remembered and "NET_RAW" in dropped:
            made[item["name"]] = remembered[item["name"]]
        elif not ({"ALL", "NET_RAW"} & set(dropped) or LOOSE & added or context.get("privileged")):
            made[item["name"]] = _missing(item)
            item["securityContext"] = {
                **context,
                "capabilities": {**capabilities, "drop": [*(capabilities.get("drop") or ()), "NET_RAW"]},
            }
    return made


def _missing(item: Mapping[str, Any]) -> str:
    context = item.get("securityContext")
    if context is None:
        return "securityContext"
    return "capabilities" if context.get("capabilities") is None else "drop"


def _give_back_net_raw(containers: list[Manifest], remembered: Mapping[str, str]) -> None:
    for item in containers:
        outermost = remembered.get(item["name"])
        context = item.get("securityContext") or {}
        capabilities = context.get("capabilities") or {}
        if outermost is None or "NET_RAW" not in (capabilities.get("drop") or ()):
            continue
        capabilities["drop"] = [name for name in capabilities["drop"] if name != "NET_RAW"]
        if not capabilities["drop"]:
            del capabilities["drop"]
        if not capabilities and outermost in ("capabilities", "securityContext"):
            del context["capabilities"]
        if not context and outermost == "securityContext":
            del item["securityContext"]


def _tidy(template: Manifest) -> Manifest:
    """Without empty maps and lists that the API server would not store either."""
    meta, spec = template.get("metadata"), template["spec"]
    for holder, keys in ((meta or {}, ("annotations", "labels")), (spec, ("initContainers", "volumes"))):
        for key in keys:
            if key in holder and not holder[key]:
                del holder[key]
    return template
