# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a failure on kind leaves for its reader, in one folder: logs, events, what stands in the API server, and the addresses,
routes, packet rules and connections of every node and every pod, as they are at this moment.
"""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import images, kind_cluster

#: Seconds for each; one that takes longer is left out.
PATIENCE = 40
#: Of the network namespace it runs in. Counters tell which rule a packet met.
NETWORK = """
network() {
  ip address; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; ip neighbour
  bridge fdb show; iptables-save -c; ip6tables-save -c; conntrack -L
}
"""
#: By file, what runs on each node.
NODE = {
    "journal": "journalctl --no-pager -n 400",
    "logs": "tail -n 60 /var/log/pods/*/*/*.log",
    "network": f"{NETWORK} network; nft list table inet netguard_s4; nft list table netdev netguard_s1",
    "pods": f'{NETWORK} export -f network; for ns in /var/run/netns/*; do echo "== $ns"; nsenter --net="$ns" bash -c network; done',
}
OURS = (
    "networkpolicies,validatingadmissionpolicies,validatingadmissionpolicybindings,deployments,statefulsets,daemonsets,configmaps"
)
#: By file, what kubectl is asked. No Secret is among it.
ASKED = {
    "events": ["get", "events", "-A", "--sort-by=.metadata.creationTimestamp"],
    "objects": ["get", "nodes,pods,services,endpointslices,networkpolicies", "-A", "--output", "wide"],
    "workloads": ["get", "pods,deployments,statefulsets,daemonsets,jobs", "-n", "media", "--output", "yaml"],
    "ours": ["get", OURS, "-A", "-l", "homelab.netguard/instance", "--output", "yaml"],
    "hard-deny": ["get", "globalnetworkpolicies.crd.projectcalico.org", "--output", "yaml"],
}


def collect(folder: Path) -> None:
    """Fills `folder`; what cannot be had is left out, or its file says why. Never raises."""
    folder.mkdir(parents=True, exist_ok=True)
    commands = {name: ["docker", "logs", name] for name in (kind_cluster.DNS, kind_cluster.FAR)}
    commands["guard"] = ["nft", "list", "table", "inet", "netguard_lab"]
    try:
        nodes = kind_cluster.nodes()
    except images.ImageError as error:
        (folder / "nodes.txt").write_text(f"{error}\n")
        nodes = []
    for node in nodes:
        commands |= {f"{node}-{name}": ["docker", "exec", node, "bash", "-c", script] for name, script in NODE.items()}
    if nodes:
        head = ["docker", "exec", nodes[0], *kind_cluster.KUBECTL]
        commands |= {name: [*head, *words] for name, words in ASKED.items()}
    with ThreadPoolExecutor(4) as pool:
        for name, command in commands.items():
            pool.submit(_keep, folder / f"{name}.txt", command)


def _keep(file: Path, command: list[str]) -> None:
    with file.open("wb") as output:
        try:
            subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, timeout=PATIENCE, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            output.write(f"{error}\n".encode())
