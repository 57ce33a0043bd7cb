# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filters of this collection."""

from __future__ import annotations

import ipaddress
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError


def node_networks(facts: Any) -> list[str]:
    """Networks of a node's interfaces that lead to its default gateway, from Ansible's own facts (without prefix).

    `facts` is the node's `ansible_facts` after the network subset of setup. Raises AnsibleFilterError for anything else.
    """
    if not isinstance(facts, Mapping):
        raise AnsibleFilterError("node_networks expects the ansible_facts of a host")
    found = []
    for family, width in (("default_ipv4", 32), ("default_ipv6", 128)):
        entry = facts.get(family)
        if not isinstance(entry, Mapping) or not entry.get("address"):
            continue
        prefix = entry.get("prefix")
        if not prefix and entry.get("netmask"):
            prefix = ipaddress.ip_network(f"0.0.0.0/{entry['netmask']}").prefixlen
        try:
            network = ipaddress.ip_network(f"{entry['address']}/{prefix}", strict=False)
        except ValueError:
            continue
        if network.prefixlen < width and not network.is_link_local:
            found.append(str(network))
    return found


#: Trust levels of a source in words.
_TRUST = ("given", "allocates", "running", "record", "observed", "default")


def facts_table(facts: Any) -> list[str]:
    """The facts of `cluster_cidrs` as lines of at most 80 columns: value, trust and source, then doubts and what settles them."""
    if not isinstance(facts, Mapping) or "ranges" not in facts:
        raise AnsibleFilterError("facts_table expects the facts that homelab.netguard.cluster_cidrs returned")
    lines = [f"{'what':<13}{'value':<25}{'trust':<11}source", "-" * 80]
    for name, found in facts["ranges"].items():
        rows = [(item["cidr"], _TRUST[item["trust"]], item["sources"][0]["ref"]) for item in found["cidrs"]]
        for position, (cidr, trust, source) in enumerate(rows or [("?", "", "")]):
            lines.append(_row(name if position == 0 else "", cidr, trust, source))
        lines.append(_row("", f"= {found['status']}", "", ""))
    api = facts["api_server"]
    for endpoint in api["endpoints"]:
        lines.append(_row("API server", f"{endpoint['ip']}:{endpoint['port']}", "allocates", "endpointslice/default/kubernetes"))
    dns, cni, distribution = facts["dns"], facts["cni"], facts["distribution"]
    lines.append(_row("DNS", str(dns["service_ip"] or "?"), "", f"{dns['namespace']} port {dns['ports']['udp']}"))
    lines.append(_row("CNI", cni["name"], "", "; ".join(cni["signals"][:1])))
    lines.append(_row("distribution", distribution["name"], "", distribution["version"]))
    for item in facts["doubts"]:
        lines += textwrap.wrap(f"? {item['doubt']}", 80, subsequent_indent="  ")
        lines += textwrap.wrap(f"  settle it: {item['settle']}", 80, subsequent_indent="  ")
    return [line.rstrip() for line in lines]


def _row(what: str, value: str, trust: str, source: str) -> str:
    return f"{what:<13}{value:<25}{trust:<11}{source}"[:80]


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"facts_table": facts_table, "node_networks": node_networks}
