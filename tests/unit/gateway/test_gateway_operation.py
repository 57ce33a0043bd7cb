# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The parts of the operation that need no API server; the rest is proven on a real one."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._operations import gateway as operation
from ansible_collections.homelab.netguard.plugins.module_utils._topology.parse import parse

#: As Gluetun v3.41 writes it.
LOG = """2026-11-28T17:00:00Z INFO [wireguard] Connecting to 203.0.113.7:51820
2026-11-28T17:00:01Z INFO [ip getter] Public IP address is 198.51.100.23 (Netherlands, North Holland, Amsterdam - source: ipinfo)
"""


@pytest.mark.parametrize(
    ("log", "found"),
    [
        ("", []),
        (LOG, ["198.51.100.23"]),
        (LOG + LOG.replace("198.51.100.23", "198.51.100.24"), ["198.51.100.23", "198.51.100.24"]),
        ("INFO [ip getter] Public IP address is 2001:db8::5 (", ["2001:db8::5"]),
        ("ERROR Public IP address is unknown", []),
    ],
)
def test_the_exit_address(log: str, found: list[str]) -> None:
    assert operation.exit_addresses(log) == found


def test_no_list_of_secrets_is_asked_for() -> None:
    apps: list[dict[str, Any]] = [
        {"name": "web", "namespace": "media", "ports": {"in": 1}, "vpn": {"gateway": "g", "forward": "in"}}
    ]
    gateways = [{"name": "g", "provider": "protonvpn", "credentials": {"secret": "s"}}, {"name": "h", "provider": "nordvpn"}]
    reads = operation.reads(parse("home", gateways, apps))
    assert {(read.kind, read.namespace, read.name) for read in reads} == {
        ("Namespace", "", "media"),
        ("Namespace", "", "vpn"),
        ("Secret", "vpn", "s"),
        ("Secret", "vpn", "netguard-gateway-h-credentials"),
        ("Deployment", "media", "web"),
    }
    assert all(read.name for read in reads)
