# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes what is documented of the topology from its schema: the doc fragment `_topology` and docs/topology.md.

With --check it writes nothing and fails when a file differs from the schema.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

from ansible_collections.homelab.netguard.plugins.module_utils._topology import schema

ROOT = Path(__file__).resolve().parent.parent
HEADER = """# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""
WORDS: dict[type, str] = {
    schema.Scalar: "text",
    schema.Boolean: "true or false",
    schema.PortList: "port or list of ports",
    schema.NameList: "port name or list of names",
    schema.NetworkList: "address, network or a list",
    schema.MapOf: "mapping",
}


def kind(value: schema.Type) -> str:
    """The type in words."""
    if isinstance(value, schema.Scalar) and value.choices:
        return " or ".join(f"`{choice}`" for choice in value.choices)
    if isinstance(value, schema.Integer):
        return f"number {value.low} to {value.high}"
    if isinstance(value, schema.ListOf):
        return "list or one item" if value.single else "list"
    if isinstance(value, schema.Mapping):
        return f"mapping, or its `{value.short}`" if value.short else "mapping"
    return WORDS[type(value)]


def inner(value: schema.Type) -> schema.Mapping | None:
    """The mapping with known keys inside a type, if there is one."""
    if isinstance(value, schema.ListOf):
        return inner(value.item)
    return value if isinstance(value, schema.Mapping) else None


def markdown(text: str) -> str:
    """Ansible's markup as Markdown."""
    return re.sub(r"\b[VOM]\(((?:[^(){}]|\{[^}]*\})*)\)", r"`\1`", text).replace("|", "\\|")


def rows(mapping: schema.Mapping, prefix: str) -> list[str]:
    lines = []
    for key in mapping.keys:
        need = "**required**" if key.required else f"`{key.default}`" if key.default else ""
        lines.append(f"| `{prefix}{key.name}` | {kind(key.type)} | {need} | {markdown(key.doc)} |")
        below = inner(key.type)
        if below is not None:
            lines += rows(below, f"{prefix}{key.name}.")
    return lines


def page() -> str:
    text = [
        "# The topology: what you declare",
        "",
        "Generated from the schema (`tools/topology_docs.py`); an unknown key or a wrong value is refused with its path.",
        "Every module takes these as options, every role as variables with the prefix `netguard_`.",
    ]
    for option in schema.OPTIONS:
        text += [
            "",
            f"## `netguard_{option.name}`",
            "",
            " ".join(option.doc),
            "",
            "| key | type | default | meaning |",
            "|---|---|---|---|",
        ]
        mapping = inner(option.type)
        assert mapping is not None
        text += rows(mapping, "")
    return "\n".join(text) + "\n"


def fragment() -> str:
    lines = [
        HEADER,
        '"""The options that declare the topology. Generated from its schema by tools/topology_docs.py."""',
        "",
        "from __future__ import annotations",
        "",
        "",
        "class ModuleDocFragment:",
        '    DOCUMENTATION = r"""',
        "options:",
        "  instance:",
        "    description:",
        "      - Name of this set of objects, part of their labels. Two lists that must not touch each other need two instances.",
        "    type: str",
        "    default: home",
    ]
    for option in schema.OPTIONS:
        mapping = inner(option.type)
        assert mapping is not None
        listed = isinstance(option.type, schema.ListOf)
        lines += [f"  {option.name}:", "    description:"]
        lines += [f"      - {text}" for text in option.doc]
        keys = textwrap.wrap(f"Keys: {', '.join(f'V({name})' for name in mapping.names())}.", 110)
        lines += ["      - >-", *(f"        {line}" for line in keys)]
        lines.append("      - Their meaning is in C(docs/topology.md). Faults are reported together, each with its path.")
        lines += ["    type: list", "    elements: raw", "    default: []"] if listed else ["    type: dict", "    default: {}"]
    return "\n".join([*lines, '"""']) + "\n"


def main() -> int:
    files = {ROOT / "plugins/doc_fragments/_topology.py": fragment(), ROOT / "docs/topology.md": page()}
    if "--check" in sys.argv[1:]:
        stale = [str(path.relative_to(ROOT)) for path, text in files.items() if not path.exists() or path.read_text() != text]
        if stale:
            print(f"differs from the schema: {', '.join(stale)}; run tools/topology_docs.py")
        return int(bool(stale))
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
