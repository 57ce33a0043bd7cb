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
    """Addresses of a node's interfaces with their prefix length (`192.168.1.10/24`), from Ansible's own facts.

    `facts` is the node's `ansible_facts` after the network subset of setup. Which of the interfaces is the node's own is not
    decided here: `cluster_cidrs` keeps those that hold an address which the cluster knows the node by, so that bridges,
    tunnels and pods' interfaces fall out. Raises AnsibleFilterError for anything else than facts.
    """
    if not isinstance(facts, Mapping):
        raise AnsibleFilterError("node_networks expects the ansible_facts of a host")
    # As hostvars have them, or with the prefix that a registered result of setup keeps.
    facts = {str(key).removeprefix("ansible_"): value for key, value in facts.items()}
    found: set[str] = set()
    names = facts.get("interfaces")
    entries: list[Any] = [facts.get("default_ipv4"), facts.get("default_ipv6")]
    for name in names if isinstance(names, (list, tuple)) else ():
        # Ansible turns characters that no variable may have into underscores.
        interface = facts.get(str(name).replace("-", "_").replace(".", "_").replace(":", "_"))
        if isinstance(interface, Mapping):
            for key in ("ipv4", "ipv6", "ipv4_secondaries"):
                entry = interface.get(key)
                entries += entry if isinstance(entry, (list, tuple)) else [entry]
    for entry in entries:
        word = _with_prefix(entry) if isinstance(entry, Mapping) else ""
        if word:
            found.add(word)
    return sorted(found)


def _with_prefix(entry: Mapping[str, Any]) -> str:
    prefix = entry.get("prefix")
    try:
        if prefix in (None, "") and entry.get("netmask"):
            prefix = ipaddress.ip_network(f"0.0.0.0/{entry['netmask']}").prefixlen
        interface = ipaddress.ip_interface(f"{entry.get('address')}/{prefix}")
    except ValueError:
        return ""
    single = interface.network.prefixlen == interface.network.max_prefixlen
    return "" if single or interface.ip.is_link_local or interface.ip.is_loopback else str(interface)


#: Trust levels of a source in words.
_TRUST = ("given", "allocates", "running", "record", "observed", "default")


def facts_table(facts: Any) -> list[str]:
    """The facts of `cluster_cidrs` as lines of at most 80 columns: value, trust and source, then doubts and what settles them."""
    if not isinstance(facts, Mapping) or "ranges" not in facts:
        raise AnsibleFilterError("facts_table expects the facts that homelab.netguard.cluster_cidrs returned")
    lines = [f"{'what':<13}{'value':<26}{'trust':<10}source", "-" * 80]
    for name, found in facts["ranges"].items():
        rows = [(item["cidr"], _TRUST[item["trust"]], item["sources"][0]["ref"]) for item in found["cidrs"]]
        for position, (cidr, trust, source) in enumerate(rows[:_ROWS] or [("?", "", "")]):
            lines += _row(name if position == 0 else "", cidr, trust, source)
        if len(rows) > _ROWS:
            lines += _row("", f"and {len(rows) - _ROWS} more", "", "")
        lines += _row("", f"= {found['status']}", "", f"{found['observed']['count']} addresses seen")
    for endpoint in facts["api_server"]["endpoints"]:
        address = f"[{endpoint['ip']}]" if ":" in endpoint["ip"] else endpoint["ip"]
        lines += _row("API server", f"{address}:{endpoint['port']}", "allocates", "endpoints of default/kubernetes")
    dns, cni, distribution = facts["dns"], facts["cni"], facts["distribution"]
    ports = ", ".join(str(port) for port in dns["ports"]["udp"])
    lines += _row("DNS", str(dns["service_ip"] or "?"), "", f"{dns['namespace'] or '?'}, pods at port {ports}")
    if dns["node_local_ip"]:
        lines += _row("", dns["node_local_ip"], "", "NodeLocal DNSCache")
    for forwarder in facts.get("dns_forwarders") or []:
        lines += _row("", f"forwards to {forwarder}", "", "what may ask the DNS can leak names")
    policies = {True: "enforces policies", False: "NO policies", None: "policies not known"}[cni["enforces_network_policy"]]
    lines += _row("CNI", cni["name"], "", "; ".join([policies, *cni["signals"][:1]]))
    lines += _row("addresses by", cni["ipam"], "", "")
    lines += _row("distribution", distribution["name"], "", distribution["version"])
    lost = [f"{source}: {state}" for source, state in facts["permissions"].items() if state in ("forbidden", "failed")]
    for item in lost:
        lines += textwrap.wrap(f"! not readable: {item}", 80, subsequent_indent="  ")
    for right in facts.get("missing_rights") or []:
        said = f"+ {right['rule']} (level {right['level']}) would tell: {right['tells']}"
        lines += textwrap.wrap(said, 80, subsequent_indent="  ")
    for item in facts["doubts"]:
        lines += textwrap.wrap(f"? {item['doubt']}", 80, subsequent_indent="  ")
        lines += textwrap.wrap(f"  settle it: {item['settle']}", 80, subsequent_indent="  ")
    return [line.rstrip() for line in lines]


#: Rows of one class: a cluster can have thousands of nodes.
_ROWS = 8


def _row(what: str, value: str, trust: str, source: str) -> list[str]:
    """One row; a value that is too long for its column pushes the rest to the next line, a long source is wrapped."""
    head = f"{what:<13}{value:<26}"
    lines = []
    if len(value) > 25 and (trust or source):
        lines.append(head[:80])
        head = " " * 39
    wrapped = textwrap.wrap(source, 31) or [""]
    lines.append(f"{head}{trust:<10}{wrapped[0]}")
    return lines + [" " * 49 + line for line in wrapped[1:]]


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"facts_table": facts_table, "node_networks": node_networks}
