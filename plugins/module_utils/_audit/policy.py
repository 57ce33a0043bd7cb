# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every policy language in one form: ordered rules with an action, in stages; and what is wrong with a policy as it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .region import Region
from .sets import NOWHERE, Addresses, Ports

ALLOW, DENY, PASS = "allow", "deny", "pass"
EGRESS, INGRESS = "egress", "ingress"
DIRECTIONS = (EGRESS, INGRESS)

#: Places of the stages. Calico's tiers stand at their own order, which is why these are its numbers.
ADMIN_STAGE, DEFAULT_STAGE, BASELINE_STAGE = 1_000.0, 1_000_000.0, 10_000_000.0

#: Calico's own name of a Kubernetes NetworkPolicy begins with this; its API shows each a second time under it.
CALICO_COPY = "knp.default."


@dataclass(frozen=True, order=True)
class Ref:
    """Which policy."""

    kind: str
    namespace: str
    name: str
    api_version: str = ""

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Ref:
        meta = manifest["metadata"]
        return cls(manifest["kind"], meta.get("namespace") or "", meta["name"], manifest["apiVersion"])

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind} {where}{self.name}"


@dataclass(frozen=True)
class Peers:
    """Who a rule is about: pods by bit, addresses by range. `maybe` holds what some conditions leave open, `sure` included."""

    pods: int = 0
    addresses: Addresses = NOWHERE
    pods_maybe: int = 0
    addresses_maybe: Addresses = NOWHERE

    @classmethod
    def sure(cls, pods: int = 0, addresses: Addresses | None = None) -> Peers:
        found = addresses if addresses is not None else Addresses()
        return cls(pods, found, pods, found)

    def __or__(self, other: Peers) -> Peers:
        return Peers(
            self.pods | other.pods,
            self.addresses | other.addresses,
            self.pods_maybe | other.pods_maybe,
            self.addresses_maybe | other.addresses_maybe,
        )

    def __and__(self, other: Peers) -> Peers:
        return Peers(
            self.pods & other.pods,
            self.addresses & other.addresses,
            self.pods_maybe & other.pods_maybe,
            self.addresses_maybe & other.addresses_maybe,
        )

    def without(self, other: Peers) -> Peers:
        """Those that the other does not name; what the other only may name stays only maybe."""
        return Peers(
            self.pods & ~other.pods_maybe,
            self.addresses - other.addresses_maybe,
            self.pods_maybe & ~other.pods,
            self.addresses_maybe - other.addresses,
        )

    def doubtful(self) -> Peers:
        return Peers(0, Addresses(), self.pods_maybe, self.addresses_maybe)


@dataclass(frozen=True)
class Rule:
    """One rule. `named` are ports by name, resolved on the destination's pods. `index` is its place in the policy's list."""

    action: str
    peers: Peers
    ports: Ports
    named: tuple[tuple[str, str], ...] = ()  # (protocol, name)
    index: int = 0
    #: As the user wrote it: `egress[0]`, `egressDeny[1]`.
    path: str = ""
    doubtful_ports: bool = False


@dataclass(frozen=True)
class Policy:
    """One policy, ready to be evaluated. A direction that it does not speak about is None."""

    ref: Ref
    language: str
    subjects: int
    egress: tuple[Rule, ...] | None
    ingress: tuple[Rule, ...] | None
    stage: float = DEFAULT_STAGE
    order: tuple[Any, ...] = (1000.0, "")
    isolates: tuple[str, ...] = DIRECTIONS
    #: False where a condition could not be read: what it says then only may hold.
    certain: bool = True
    #: What the end of the stage does with a selected pod in an isolated direction.
    end: str = DENY
    labels: Mapping[str, str] = field(default_factory=dict)

    def rules(self, direction: str) -> tuple[Rule, ...] | None:
        return self.egress if direction == EGRESS else self.ingress


@dataclass(frozen=True)
class Problem:
    """Something wrong with how a policy is written. `mend` says what to do; `rejected`: an API server refuses it."""

    code: str
    severity: str
    ref: Ref
    path: str
    message: str
    mend: str = ""
    rejected: bool = False


def rule_region(rule: Rule, named: Mapping[tuple[str, str], Mapping[int, int]], *, maybe: bool, own_ports: bool = False) -> Region:
    """The rectangles of a rule. `named`: by (protocol, name) the pods (bits) per port number on the destination's side.

    `own_ports`: the destination is the subject itself (ingress), so that a named port is also one towards addresses outside.
    """
    peers = rule.peers
    pods, addresses = (peers.pods_maybe, peers.addresses_maybe) if maybe else (peers.pods, peers.addresses)
    if rule.doubtful_ports and not maybe:
        return Region()
    parts = [(pods, rule.ports)] if pods and rule.ports else []
    for protocol, name in rule.named:
        for number, mask in named.get((protocol, name), {}).items():
            if mask & pods:
                parts.append((mask & pods, Ports.one(protocol, number)))
    outside = [(addresses, rule.ports)] if addresses and rule.ports else []
    if own_ports and addresses:
        for protocol, name in rule.named:
            outside += [(addresses, Ports.one(protocol, number)) for number in named.get((protocol, name), {})]
    return Region(tuple(parts), tuple(outside))
