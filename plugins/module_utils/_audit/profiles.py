# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How each CNI reads policies: what an ipBlock matches, what it sees of a Service, and what it does beside any policy.

Sources: the CNIs' own documentation and code; the table in docs/audit.md names them by row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .._facts.model import Cni

#: Families of policy kinds.
KUBERNETES, CALICO, CILIUM, CLUSTER = "networkpolicy", "calico", "cilium", "cluster"


@dataclass(frozen=True)
class Profile:
    """One reading of policies. A None is "may be either": verdicts that hang on it are implementation-defined."""

    name: str
    enforces: bool | None = True
    languages: tuple[str, ...] = (KUBERNETES,)
    ipblock_pods: bool | None = True
    ipblock_nodes: bool | None = True
    #: Whether policy sees the pod behind a Service (True) or the Service's own address (False).
    after_translation: bool | None = True
    #: ICMP passes whatever a policy says.
    icmp_always: bool | None = False
    #: UDP ports that are dropped when a pod sends to them, before any policy.
    dropped_udp: tuple[int, ...] = ()
    #: What holds while the policy daemon is down or a pod is fresh; empty: nothing is known to open.
    opens: str = ""
    #: Whether endPort is obeyed.
    end_port: bool | None = True
    sctp: bool | None = True


_CLUSTERED = (KUBERNETES, CLUSTER)

PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile("calico", languages=(KUBERNETES, CALICO, CLUSTER), dropped_udp=(4789,)),
        Profile("canal", languages=(KUBERNETES, CALICO, CLUSTER), dropped_udp=(4789,)),
        Profile(
            "cilium",
            languages=(KUBERNETES, CILIUM, CLUSTER),
            ipblock_pods=False,
            ipblock_nodes=False,
            dropped_udp=(),
            sctp=None,
        ),
        Profile(
            "kube-router",
            icmp_always=True,
            opens="a fresh pod is open until its rules are written (closed only by --netpol-default-deny)",
        ),
        Profile("kindnet", languages=_CLUSTERED, opens="its policy daemon fails open: packets pass while it is down"),
        Profile("antrea", languages=_CLUSTERED),
        Profile("ovn-kubernetes", languages=_CLUSTERED),
        Profile("weave"),
        Profile("aws-vpc-cni", after_translation=False),
        Profile("terway", ipblock_pods=False, ipblock_nodes=None),
        Profile("flannel", enforces=False, languages=()),
    )
}

#: What an unknown CNI may be. One that enforces nothing is reported apart: under it every verdict is "allowed".
UNKNOWN = tuple(profile for profile in PROFILES.values() if profile.enforces)


def of(cni: Cni, wanted: str = "") -> tuple[Profile, ...]:
    """The profiles to evaluate: the one that is wanted (`all`: every one), else the cluster's own, else every one.

    What discovery knows better than the table (a Cilium whose CIDRs match nodes, a flannel with a policy daemon) wins.
    Raises KeyError for a name that is no profile.
    """
    if wanted == "all":
        return UNKNOWN
    name = wanted or cni.name
    if name not in PROFILES:
        if wanted:
            raise KeyError(wanted)
        return UNKNOWN
    found = PROFILES[name]
    if name != cni.name:
        return (found,)
    if cni.enforces_network_policy is not None and cni.enforces_network_policy != found.enforces:
        languages = found.languages or (KUBERNETES,)
        found = replace(found, enforces=cni.enforces_network_policy, languages=languages if cni.enforces_network_policy else ())
    if cni.ipblock_matches_pods is not None:
        found = replace(found, ipblock_pods=cni.ipblock_matches_pods)
    if cni.ipblock_matches_nodes is not None:
        found = replace(found, ipblock_nodes=cni.ipblock_matches_nodes)
    if cni.drops_workload_vxlan_ports:
        found = replace(found, dropped_udp=cni.drops_workload_vxlan_ports)
    return (found,)
