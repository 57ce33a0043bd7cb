# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads raw values by the schema: right types and forms, unknown keys, missing keys. Collects faults, never stops at one."""

from __future__ import annotations

import base64
import binascii
import difflib
import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Any

from .._errors import Fault, required
from . import schema
from .model import Network, Port

#: Stands for a value that was refused, so that nothing is concluded from it.
REFUSED = object()

PROTOCOLS = ("TCP", "UDP", "SCTP")

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_PORT_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_HOST = re.compile(r"(\*\.)?([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)*[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_WORKLOAD = re.compile(r"(?P<kind>[A-Za-z]+)/(?P<name>[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)")
_USE = re.compile(r"((?P<namespace>[a-z0-9][-a-z0-9]*)/)?(?P<app>[a-z0-9][-a-z0-9]*):(?P<port>[a-z0-9][-a-z0-9]*)")
_PORT = re.compile(r"(?P<first>\d{1,5})(-(?P<last>\d{1,5}))?(/(?P<protocol>[A-Za-z]+))?")
_SETTING_KEY = re.compile(r"[A-Z][A-Z0-9_]*")

WORKLOAD_KINDS = ("Deployment", "StatefulSet", "DaemonSet", "CronJob")


class Faults:
    """Collects faults in the order in which they were found."""

    def __init__(self) -> None:
        self.found: list[Fault] = []

    def add(self, path: str, message: str, hint: str = "") -> None:
        self.found.append(Fault(path, message, hint))

    def paths(self) -> set[str]:
        """The entries that have one: `apps[2]` for `apps[2].uses[0]`."""
        return {fault.path.partition(".")[0] for fault in self.found}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean "x"?` for the nearest known word, else the words there are (when few), else nothing."""
    words = sorted(set(known))
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if near:
        return f'did you mean "{near[0]}"?'
    return f"known: {', '.join(words)}" if 0 < len(words) <= 24 else ""


def parse_port(value: Any) -> Port | None:
    """`8080`, `"53/udp"`, `"6000-6010/tcp"`; None when it is no port."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    match = _PORT.fullmatch(str(value).strip())
    if match is None:
        return None
    first, last = int(match["first"]), int(match["last"] or match["first"])
    protocol = (match["protocol"] or "tcp").upper()
    if protocol not in PROTOCOLS or not 1 <= first <= last <= 65535:
        return None
    return Port(first, protocol, last if last != first else None)


def parse_network(value: Any) -> Network | str:
    """A network, or the reason why it is none."""
    text = str(value).strip()
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        widened = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return f'"{text}" is no address or network'
    return f'"{text}" has host bits set: write {widened} for the network or {text.partition("/")[0]} for the host'


def _wireguard_key(text: str) -> bool:
    try:
        return len(text) == 44 and len(base64.b64decode(text, validate=True)) == 32
    except (binascii.Error, ValueError):
        return False


def _address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _interface_address(text: str) -> bool:
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        return False
    return True


#: form: (test, what is expected)
FORMS: dict[str, tuple[Callable[[str], bool], str]] = {
    "text": (lambda text: text.strip() != "" and "\n" not in text, "one line of text"),
    "setting": (lambda text: "\n" not in text, "one line of text"),
    "label": (lambda text: bool(_LABEL.fullmatch(text)), "lower-case letters, digits and dashes, at most 63"),
    "name": (lambda text: bool(_NAME.fullmatch(text)), "lower-case letters, digits, dashes and dots"),
    "port_name": (lambda text: bool(_PORT_NAME.fullmatch(text)), "lower-case letters, digits and dashes"),
    "label_value": (
        lambda text: bool(_LABEL_VALUE.fullmatch(text)),
        "a label value: letters, digits, dashes, dots, underscores, at most 63",
    ),
    "label_key": (lambda text: bool(_LABEL_KEY.fullmatch(text)), "a label key"),
    "setting_key": (lambda text: bool(_SETTING_KEY.fullmatch(text)), "a variable name in capitals"),
    "host": (lambda text: bool(_HOST.fullmatch(text)), "a host name in lower case"),
    "workload": (lambda text: bool(_WORKLOAD.fullmatch(text)), "Kind/name, such as Deployment/web"),
    "use": (lambda text: bool(_USE.fullmatch(text)), "[namespace/]app:port"),
    "address": (_address, "an IP address"),
    "interface_address": (_interface_address, "an address with its prefix length, such as 10.2.0.2/32"),
    "overlay_network": (lambda text: text == "auto" or "/" in text, "auto, or a private IPv4 network such as 172.29.0.0/16"),
    "wireguard_key": (_wireguard_key, "a WireGuard key: 44 characters of base64"),
}


def workload(text: str) -> tuple[str, str]:
    """(kind, name) of a text of the form `workload`."""
    match = _WORKLOAD.fullmatch(text)
    match = required(match)
    return match["kind"], match["name"]


def use(text: str) -> tuple[str, str, str]:
    """(namespace or "", app, port) of a text of the form `use`."""
    match = _USE.fullmatch(text)
    match = required(match)
    return match["namespace"] or "", match["app"], match["port"]


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    return f'"{value}"'


def read(kind: schema.Type, value: Any, path: str, faults: Faults) -> Any:
    """The value by its type, or REFUSED. Mappings become dicts that hold only what was declared and accepted."""
    reader = _READERS[type(kind)]
    return reader(kind, value, path, faults)


def _scalar(kind: schema.Scalar, value: Any, path: str, faults: Faults) -> Any:
    if kind.form == "setting" and isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        faults.add(path, f"{_kind(value)} where one value is expected", "quote it" if isinstance(value, bool) else "")
        return REFUSED
    text = str(value)
    if kind.choices:
        if text not in kind.choices:
            faults.add(
                path,
                f'"{text}" is not one of {", ".join(kind.choices)}',
                did_you_mean(text, kind.choices) if len(kind.choices) > 3 else "",
            )
            return REFUSED
        return text
    test, expected = FORMS[kind.form]
    if not test(text):
        faults.add(path, f'"{text}" is not {expected}' if text else f"empty; expected {expected}")
        return REFUSED
    return text


def _boolean(kind: schema.Boolean, value: Any, path: str, faults: Faults) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "yes", "false", "no"):
        return value.lower() in ("true", "yes")
    faults.add(path, f"{_kind(value)} where true or false is expected")
    return REFUSED


def _integer(kind: schema.Integer, value: Any, path: str, faults: Faults) -> Any:
    if kind.auto and value == "auto":
        return None
    text = str(value).strip()
    if isinstance(value, bool) or not text.isascii() or not text.isdigit() or not kind.low <= int(text) <= kind.high:
        faults.add(path, f"{_kind(value)} is not a number from {kind.low} to {kind.high}{' or auto' if kind.auto else ''}")
        return REFUSED
    return int(text)


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _port_list(kind: schema.PortList, value: Any, path: str, faults: Faults) -> Any:
    if kind.every and isinstance(value, bool):
        return value
    ports: list[Port] = []
    listed = isinstance(value, (list, tuple))
    for position, item in enumerate(_items(value)):
        where = f"{path}[{position}]" if listed else path
        port = parse_port(item)
        if port is None:
            faults.add(where, f"{_kind(item)} is no port", "write 8080, 53/udp or 6000-6010/tcp")
        elif port in ports:
            faults.add(where, f"{_kind(item)} is listed twice")
        else:
            ports.append(port)
    if listed and not value:
        faults.add(path, "an empty list of ports", "leave the key out")
    return tuple(ports)


def _name_list(kind: schema.NameList, value: Any, path: str, faults: Faults) -> Any:
    if kind.every and isinstance(value, bool):
        return value
    names: list[str] = []
    listed = isinstance(value, (list, tuple))
    for position, item in enumerate(_items(value)):
        name = _scalar(schema.Scalar("port_name"), item, f"{path}[{position}]" if listed else path, faults)
        if name is not REFUSED and name not in names:
            names.append(name)
    return tuple(names)


def _network_list(kind: schema.NetworkList, value: Any, path: str, faults: Faults) -> Any:
    networks: list[Network] = []
    listed = isinstance(value, (list, tuple))
    for position, item in enumerate(_items(value)):
        network = parse_network(item)
        if isinstance(network, str):
            faults.add(f"{path}[{position}]" if listed else path, network)
        else:
            networks.append(network)
    if listed and not value:
        faults.add(path, "an empty list of networks", "leave the key out")
    return tuple(networks)


def _list(kind: schema.ListOf, value: Any, path: str, faults: Faults) -> Any:
    if not isinstance(value, (list, tuple)):
        if not kind.single:
            faults.add(path, f"{_kind(value)} where a list is expected")
            return REFUSED
        item = read(kind.item, value, path, faults)
        return [] if item is REFUSED else [item]
    return [read(kind.item, item, f"{path}[{position}]", faults) for position, item in enumerate(value)]
    # Positions are kept for the paths of later faults; refused items are left to the caller.


def _map(kind: schema.MapOf, value: Any, path: str, faults: Faults) -> Any:
    if not isinstance(value, dict):
        faults.add(path, f"{_kind(value)} where a mapping is expected")
        return REFUSED
    test, expected = FORMS[kind.keys]
    result: dict[str, Any] = {}
    for name, item in value.items():
        where = f"{path}.{name}"
        if not isinstance(name, str) or not test(name):
            faults.add(where, f'the key "{name}" is not {expected}')
            continue
        entry = read(kind.value, item, where, faults)
        if entry is not REFUSED:
            result[name] = entry
    return result


def _mapping(kind: schema.Mapping, value: Any, path: str, faults: Faults) -> Any:
    if kind.short and isinstance(value, (str, int)) and not isinstance(value, bool):
        value = {kind.short: value}
    if not isinstance(value, dict):
        faults.add(
            path, f"{_kind(value)} where a mapping is expected", f"keys: {', '.join(kind.names())}" if len(kind.keys) <= 6 else ""
        )
        return REFUSED
    result: dict[str, Any] = {}
    known = {key.name: key for key in kind.keys}
    for name, item in value.items():
        where = f"{path}.{name}" if path else str(name)
        if name not in known:
            faults.add(where, "unknown key", did_you_mean(str(name), known))
        elif item is not None:  # `key:` with nothing after it is a key left out
            entry = read(known[name].type, item, where, faults)
            result[name] = entry
    for key in kind.keys:
        if key.required and value.get(key.name) is None:
            faults.add(f"{path}.{key.name}" if path else key.name, "missing", key.doc.split(". ")[0].rstrip("."))
    return {name: entry for name, entry in result.items() if entry is not REFUSED}


_READERS: dict[type, Callable[[Any, Any, str, Faults], Any]] = {
    schema.Scalar: _scalar,
    schema.Boolean: _boolean,
    schema.Integer: _integer,
    schema.PortList: _port_list,
    schema.NameList: _name_list,
    schema.NetworkList: _network_list,
    schema.ListOf: _list,
    schema.MapOf: _map,
    schema.Mapping: _mapping,
}
