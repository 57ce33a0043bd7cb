# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Calico's selector expressions: `app == 'web' && !has(tier)`. Source: Calico's reference, "Selectors"."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache

Labels = Mapping[str, str]
Test = Callable[[Labels], bool]

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'[^']*'|\"[^\"]*\")|(?P<sign>&&|\|\||==|!=|[!(){},])|(?P<word>[A-Za-z0-9_./-]+))",
)
#: Deeper nesting is no selector that a person wrote.
DEEPEST = 50


class SelectorError(ValueError):
    """Text that is no selector."""


@lru_cache(maxsize=4096)
def parse(text: str, *, spaces: bool = False) -> Test:
    """The test that a selector stands for; empty takes everything. Raises SelectorError.

    `spaces`: it says which namespaces a rule means. There alone `global()` means what is in none; elsewhere felix takes it
    for `all()`. Calico's own API refuses to store it there, the CRD does not.
    """
    found = _Parser(text, spaces)
    if not found.tokens:
        return lambda _labels: True
    test = found.either(0)
    if found.position != len(found.tokens):
        raise SelectorError(f"unexpected {found.tokens[found.position]!r}")
    return test


class _Parser:
    def __init__(self, text: str, spaces: bool) -> None:
        self.spaces = spaces
        self.tokens: list[str] = []
        self.position = 0
        place = 0
        stripped = text.rstrip()
        while place < len(stripped):
            match = _TOKEN.match(stripped, place)
            if match is None:
                raise SelectorError(f"unexpected character at {place}")
            self.tokens.append(match.group().strip())
            place = match.end()

    def peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        found = self.peek()
        if not found or (wanted and found != wanted):
            raise SelectorError(f"expected {wanted or 'more'}, found {found or 'the end'}")
        self.position += 1
        return found

    def either(self, depth: int) -> Test:
        if depth > DEEPEST:
            raise SelectorError("nested too deeply")
        tests = [self.both(depth)]
        while self.peek() == "||":
            self.take()
            tests.append(self.both(depth))
        return tests[0] if len(tests) == 1 else lambda labels: any(test(labels) for test in tests)

    def both(self, depth: int) -> Test:
        tests = [self.one(depth)]
        while self.peek() == "&&":
            self.take()
            tests.append(self.one(depth))
        return tests[0] if len(tests) == 1 else lambda labels: all(test(labels) for test in tests)

    def one(self, depth: int) -> Test:
        if depth > DEEPEST:
            raise SelectorError("nested too deeply")
        token = self.take()
        if token == "!":
            inner = self.one(depth + 1)
            return lambda labels: not inner(labels)
        if token == "(":
            inner = self.either(depth + 1)
            self.take(")")
            return inner
        if token in ("all", "global") and self.peek() == "(":
            self.take("(")
            self.take(")")
            every = token == "all" or not self.spaces
            return lambda _labels: every
        if token == "has":
            self.take("(")
            key = self.take()
            self.take(")")
            return lambda labels: key in labels
        return self.comparison(token)

    def comparison(self, key: str) -> Test:
        operator = self.take()
        if operator in ("==", "!="):
            value, equal = self.text(), operator == "=="
            return lambda labels: (labels.get(key) == value) is equal
        if operator in ("in", "not"):
            if operator == "not":
                self.take("in")
            values, inside = self.values(), operator == "in"
            return lambda labels: (labels.get(key) in values) is inside
        if operator == "contains":
            part = self.text()
            return lambda labels: key in labels and part in labels[key]
        if operator in ("starts", "ends"):
            self.take("with")
            part, start = self.text(), operator == "starts"
            return lambda labels: key in labels and (labels[key].startswith(part) if start else labels[key].endswith(part))
        raise SelectorError(f"{operator!r} is no operator")

    def text(self) -> str:
        found = self.take()
        if found[0] not in "'\"":
            raise SelectorError(f"{found!r} is not quoted")
        return found[1:-1]

    def values(self) -> frozenset[str]:
        self.take("{")
        found: set[str] = set()
        while self.peek() != "}":
            found.add(self.text())
            if self.peek() == ",":
                self.take()
        self.take("}")
        return frozenset(found)
