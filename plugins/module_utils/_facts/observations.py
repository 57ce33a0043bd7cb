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
from . import rights
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
    malformed: dict[str, tuple[str, ...]] = field(default_factory=dict)  # text -> the overrides that say what is lost
    single_stack: list[int] = field(default_factory=list)  # families that the API server said it does not have


Objects = list[dict[str, Any]]
Claims = list[Observation]
Trim = Callable[[dict[str, Any]], dict[str, Any] | None]  # pylint: disable=unsupported-binary-operation


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

    def list(self, api_version: str, kind: str, namespace: str = "", labels: str = "", trim: Trim | None = None) -> Objects:
        """Objects of a kind. `trim` sees each and may shorten it or drop it (None), so that large lists need little memory."""
        name = f"{kind} {namespace}".strip()

        def careful(item: Any) -> dict[str, Any] | None:
            if not isinstance(item, dict) or not isinstance(item.get("metadata"), dict):
                self.malformed(f"{name}: an entry is no object", *rights.overrides(kind))
                return None
            return trim(item) if trim else item

        found = self._try(name, lambda: self.reader.list(api_version, kind, namespace, labels, trim=careful), [])
        if not isinstance(found, list):
            self.notes.permissions[name] = "failed"
            self.malformed(f"{name}: the answer is no list", *rights.overrides(kind))
            return []
        return sorted(found, key=lambda item: (text(item["metadata"].get("namespace")), text(item["metadata"].get("name"))))

    def malformed(self, text: str, *overrides: str) -> None:
        """Notes something that is not what it should be, and the overrides that say what it would have said."""
        self.notes.malformed[text] = tuple(dict.fromkeys((*self.notes.malformed.get(text, ()), *overrides)))

    def claim(
        self,
        about: str,
        raw: Any,
        trust: int,
        kind: str,
        ref: str,
        field: str = "",
        mechanism: str = "",
        complete: bool = True,
    ) -> Claims:
        """What a source says as an observation, or nothing. A list of which a word cannot be read is no longer the whole."""
        if raw in (None, "", [], ()):
            return []
        words = split(raw)
        if not isinstance(raw, (str, list)) or (isinstance(raw, list) and not all(isinstance(item, str) for item in raw)):
            self.malformed(f"{ref} {field}: no text", about)
            complete = False
        bad = [word for word in words if network(word) is None]
        if bad:
            self.malformed(f"{ref} {field}: {', '.join(bad[:3])}", about)
        found = networks(words)
        if not found:
            return []
        shown = raw if isinstance(raw, str) else ", ".join(words)
        return [Observation(about, found, trust, kind, ref, field, shown, mechanism, complete and not bad)]

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


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def strings(value: Any) -> dict[str, str]:
    """Those entries of labels, annotations or a ConfigMap's data that are texts, as they all should be."""
    return {key: item for key, item in mapping(value).items() if isinstance(key, str) and isinstance(item, str)}


def labels_of(item: Any) -> dict[str, str]:
    return strings(at(item, "metadata", "labels"))


def annotations_of(item: Any) -> dict[str, str]:
    return strings(at(item, "metadata", "annotations"))


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
    if "%" in word or len(parts) < 2:  # a single address is no range
        return None
    try:
        found = ipaddress.ip_network(word, strict=False)
    except ValueError:
        return None
    if found.prefixlen == 0 or (isinstance(found, ipaddress.IPv6Network) and found.network_address.ipv4_mapped is not None):
        return None
    return found


def address(word: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """A single address without a zone; an IPv4-mapped one is the IPv4 address that everything else in the cluster sees."""
    try:
        found = ipaddress.ip_address(text(word))
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address):
        return None if found.scope_id else found.ipv4_mapped or found
    return found


def hosts(words: Iterable[Any]) -> tuple[Network, ...]:
    """Single addresses as networks."""
    found = [ipaddress.ip_network(item) for word in words if (item := address(word)) is not None]
    return tuple(dict.fromkeys(found))


def flag(pod: Mapping[str, Any], name: str) -> list[str] | None:
    """Values of a flag of a pod's containers, in command, args or a shell line, `--flag=value` or as two items, repeated or
    not; None when it is not there."""
    found: list[str] = []
    seen = False
    for words in command_lines(pod):
        values = flag_values(words, name)
        if values is not None:
            seen = True
            found += values
    return found if seen else None


def command_lines(pod: Mapping[str, Any]) -> Iterable[list[str]]:
    """The words of each container's command and arguments, shell lines split."""
    for container in items(at(pod, "spec", "containers")):
        words: list[str] = []
        for part in (*items(at(container, "command")), *items(at(container, "args"))):
            words += text(part).split() or [""]
        yield words


def switch(words: Iterable[str], name: str) -> bool | None:
    """A flag that is true, false or not there: `--name`, `--name=true`; the last one counts."""
    found = None
    for word in words:
        word = word.strip("\"'")
        if word == f"--{name}":
            found = True
        elif word.startswith(f"--{name}="):
            found = word.split("=", 1)[1].strip("\"'").lower() in ("true", "1", "t")
    return found


def flag_values(words: list[str], name: str) -> list[str] | None:
    found: list[str] = []
    seen = False
    for position, word in enumerate(words):
        word = word.strip("\"'")
        if word.startswith(f"--{name}="):
            seen = True
            found += split(word.split("=", 1)[1].strip("\"'"))
        elif word == f"--{name}":
            seen = True
            following = words[position + 1] if position + 1 < len(words) else "--"
            found += [] if following.startswith("--") else split(following.strip("\"'"))
    return found if seen else None
