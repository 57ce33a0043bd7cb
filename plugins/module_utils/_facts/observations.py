# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What sources say, before anybody judges it: observations with their origin, and which sources could be read."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .._topology.model import Network
from .reader import Reader, Unreadable

#: Trust levels: 0 given by the user, 1 the object that drives allocation, 2 flags of a running component, 3 a record of
#: the installation, 4 observed addresses (a lower bound), 5 a built-in default (a hypothesis).
GIVEN, ALLOCATES, RUNNING, RECORD, OBSERVED, DEFAULT = range(6)


@dataclass(frozen=True)
class Observation:
    """One source's word about one class of range (pods, services, nodes, lan).

    `mechanism` is the allocator that the source is about (calico, cilium, nodes, ...; empty: whatever allocates);
    `complete` says whether the source knows the whole range of its families, `ref` the object, `field` where in it, and
    `raw` the text as it stood there.
    """

    about: str
    cidrs: tuple[Network, ...]
    trust: int
    kind: str
    ref: str
    field: str = ""
    raw: str = ""
    mechanism: str = ""
    complete: bool = True

    def source(self) -> dict[str, str]:
        return {"kind": self.kind, "ref": self.ref, "field": self.field, "raw": self.raw}


@dataclass
class Notes:
    """What collecting leaves behind beside observations."""

    permissions: dict[str, str] = field(default_factory=dict)
    malformed: list[str] = field(default_factory=list)


Objects = list[dict[str, Any]]


class Asking:
    """Reads through a Reader; remembers what could not be read instead of failing."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.notes = Notes()

    def _try(self, name: str, ask: Callable[[], Any], empty: Any) -> Any:
        try:
            found = ask()
        except Unreadable as error:
            self.notes.permissions[name] = error.reason
            return empty
        self.notes.permissions[name] = "ok"
        return found

    def list(self, api_version: str, kind: str, namespace: str = "", labels: str = "") -> Objects:
        name = f"{kind} {namespace}".strip()
        found = self._try(name, lambda: self.reader.list(api_version, kind, namespace, labels), [])
        return [item for item in found if isinstance(item, dict) and isinstance(item.get("metadata"), dict)]

    def get(self, api_version: str, kind: str, name: str, namespace: str = "") -> dict[str, Any]:
        what = f"{kind} {namespace + '/' if namespace else ''}{name}"
        found = self._try(what, lambda: self.reader.get(api_version, kind, name, namespace), None)
        if found is None and self.notes.permissions.get(what) == "ok":
            self.notes.permissions[what] = "absent"
        return found if isinstance(found, dict) else {}

    def raw(self, path: str) -> Any:
        return self._try(path, lambda: self.reader.raw(path), {})

    def lost(self, *names: str) -> tuple[str, ...]:
        """Those of the sources (by the beginning of their name) that could not be read for want of rights or an answer."""
        found = (
            name
            for name, state in self.notes.permissions.items()
            if state in ("forbidden", "failed") and any(name.startswith(start) for start in names)
        )
        return tuple(sorted(found))


def at(value: Any, *path: str | int) -> Any:
    """What stands at a path of keys and positions; None where something else stands in the way."""
    for part in path:
        if isinstance(part, int):
            if not isinstance(value, list) or not -len(value) <= part < len(value):
                return None
            value = value[part]
        else:
            if not isinstance(value, Mapping):
                return None
            value = value.get(part)
    return value


def items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def split(raw: Any) -> list[str]:
    """`a,b c` or a list of texts, as texts."""
    parts = raw if isinstance(raw, list) else [raw]
    return [word for part in parts if isinstance(part, str) for word in re.split(r"[,\s]+", part) if word]


def networks(raw: Any) -> tuple[Network, ...]:
    """Every usable network in a text or list: OVN's `CIDR/hostPrefix` loses its suffix, host bits are masked; zone ids,
    IPv4-mapped addresses and /0 are refused. What cannot be read is left out: `unreadable` tells."""
    return tuple(dict.fromkeys(found for word in split(raw) if (found := network(word)) is not None))


def network(word: str) -> Network | None:
    parts = word.split("/")
    if len(parts) == 3:
        word = "/".join(parts[:2])
    if "%" in word:
        return None
    try:
        found = ipaddress.ip_network(word, strict=False)
    except ValueError:
        return None
    if found.prefixlen == 0 or (isinstance(found, ipaddress.IPv6Network) and found.network_address.ipv4_mapped is not None):
        return None
    return found


def address(word: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text(word).split("%")[0])
    except ValueError:
        return None


def hosts(words: Iterable[Any]) -> tuple[Network, ...]:
    """Single addresses as networks."""
    found = [ipaddress.ip_network(item) for word in words if (item := address(word)) is not None]
    return tuple(dict.fromkeys(found))


def flag(pod: Mapping[str, Any], name: str) -> list[str] | None:
    """Values of a flag of a pod's containers, in command, args or a shell line, `--flag=value` or as two items, repeated or
    not; None when it is not there."""
    found: list[str] = []
    seen = False
    for container in items(at(pod, "spec", "containers")):
        words: list[str] = []
        for part in (*items(at(container, "command")), *items(at(container, "args"))):
            words += text(part).split() if " " in text(part) else [text(part)]
        values = flag_values(words, name)
        if values is not None:
            seen = True
            found += values
    return found if seen else None


def flag_values(words: list[str], name: str) -> list[str] | None:
    found: list[str] = []
    seen = False
    for position, word in enumerate(words):
        word = word.strip("\"'")
        if word.startswith(f"--{name}="):
            seen = True
            found += split(word.split("=", 1)[1].strip("\"'"))
        elif word == f"--{name}" and position + 1 < len(words):
            seen = True
            found += split(words[position + 1].strip("\"'"))
    return found if seen else None
