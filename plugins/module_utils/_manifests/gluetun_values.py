# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a value is one that Gluetun can read, kind by kind (the rules of its settings library), and how we write it."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable

from .._topology.model import Network
from .gluetun_variables import Variable

TRUE = ("on", "yes", "true", "enabled")
FALSE = ("off", "no", "false", "disabled")

_DURATION = re.compile(r"(?P<sign>[+-]?)(?P<parts>(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+)", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)", re.ASCII)
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

#: 1500 bytes of an ordinary path less 60 for the outer IPv4 and UDP headers and WireGuard's own.
LARGEST_MTU = 1440
#: IPv6 demands this much of every link, and providers' servers assume it.
SMALLEST_MTU = 576


def truth(value: str) -> bool | None:
    """The meaning of a boolean word, None when it is none."""
    word = value.strip().lower()
    return True if word in TRUE else False if word in FALSE else None


def seconds(value: str) -> float | None:
    """A duration in seconds, None when it has no unit or is no duration; 0 needs no unit."""
    text = value.strip()
    if text == "0":
        return 0.0
    match = _DURATION.fullmatch(text)
    if match is None:
        return None
    total = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(match["parts"]))
    return -total if match["sign"] == "-" else total


def network(text: str) -> Network | None:
    """A network without host bits, None when it is none."""
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return None


def address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def wireguard_key(value: str) -> str:
    """What is wrong with a WireGuard key, empty when nothing; the value itself is never in the text."""
    try:
        size = len(base64.b64decode(value.strip(), validate=True))
    except (binascii.Error, ValueError):
        return "is not base64"
    if size == 32:
        return ""
    if size == 48:
        return "has 48 bytes, not 32: that is an access token, not a WireGuard key"
    return f"has {size} bytes, not 32"


def items(value: str) -> list[str]:
    """The items of a list, untouched: Gluetun does not trim them."""
    return value.split(",") if value else []


def _spaced(value: str) -> str:
    return "has blanks around its commas, which Gluetun takes for part of the item" if value != ",".join(tidy(value)) else ""


def tidy(value: str) -> list[str]:
    return [item.strip() for item in items(value)]


def _number(value: str, low: int, high: int) -> str:
    if not re.fullmatch(r"-?[0-9]+", value):
        return f'"{value}" is no number'
    return "" if low <= int(value) <= high else f"{value} is not within {low} and {high}"


def _each(value: str, test: Callable[[str], str]) -> str:
    return _spaced(value) or next((wrong for item in items(value) if (wrong := test(item))), "")


def _is_ip(text: str) -> str:
    return "" if address(text) else f'"{text}" is no IP address'


def _is_prefix(text: str) -> str:
    if "/" not in text:
        return f'"{text}" has no prefix length'
    if network(text):
        return ""
    try:
        masked = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return f'"{text}" is no network'
    return f'"{text}" has host bits set, which the kernel refuses: write {masked}'


def _is_ip_port(text: str) -> str:
    host, _colon, port = text.rpartition(":")
    if not address(host.strip("[]")):
        return f'"{text}" is not address:port'
    return _number(port, 1, 65535)


def _is_listen(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or (host and not address(host.strip("[]"))):
        return f'"{text}" is not [address]:port'
    return _number(port, 1, 65535)


def _bool(value: str) -> str:
    return "" if truth(value) is not None else f'"{value}" is no boolean that Gluetun knows: write on or off'


def _duration(value: str) -> str:
    return "" if seconds(value) is not None else f'"{value}" is no duration: write a unit, such as 25s'


def _ratio(value: str) -> str:
    try:
        number = float(value)
    except ValueError:
        return f'"{value}" is no number'
    return "" if 0 < number <= 1 else f"{value} is not above 0 and at most 1"


#: kind of a variable: what is wrong with a value, empty when nothing.
KINDS: dict[str, Callable[[str], str]] = {
    "text": lambda value: "",
    "bool": _bool,
    "duration": _duration,
    "names": _spaced,
    "ip": _is_ip,
    "ips": lambda value: _each(value, _is_ip),
    "prefixes": lambda value: _each(value, _is_prefix),
    "addresses": lambda value: _each(value, _is_ip_port),
    "listen": _is_listen,
    "ports": lambda value: _each(value, lambda item: _number(item, 1, 65535)),
    "port_or_zero": lambda value: _number(value, 0, 65535),
    "count": lambda value: _number(value, 1, 5),
    "uint": lambda value: _number(value, 0, 2**31 - 1),
    "mtu": lambda value: _number(value, SMALLEST_MTU, LARGEST_MTU),
    "verbosity": lambda value: _number(value, 0, 6),
    "mssfix": lambda value: _number(value, 0, 10000),
    "ratio": _ratio,
}


def wrong(variable: Variable, value: str) -> str:
    """What is wrong with a value of this variable, empty when nothing. An empty value means unset and is never wrong."""
    text = value.strip()
    if not text:
        return ""
    if variable.kind == "choice":
        return "" if text.lower() in variable.choices else f'"{text}" is not one of {", ".join(variable.choices)}'
    return KINDS[variable.kind](text)


def canonical(variable: Variable, value: str) -> str:
    """The value as we write it: booleans as on and off, lists joined by bare commas."""
    text = value.strip()
    if variable.kind == "bool" and (meaning := truth(text)) is not None:
        return "on" if meaning else "off"
    if variable.kind in ("names", "ips", "prefixes", "addresses", "ports"):
        return ",".join(tidy(text))
    return text.lower() if variable.kind == "choice" else text
