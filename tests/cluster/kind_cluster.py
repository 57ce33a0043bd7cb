# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A kind cluster and its lab: a resolver, a VPN peer and "the internet" as containers beside the nodes.

Two ways to the same cluster, as `images` tells: `public` takes kind's own node image and pulls what pods run, `packages` builds all
of it. In both the nodes have Calico, and nothing that starts on the kind bridge may leave this machine while the lab is up: a rule
of the host drops and counts it before the first container runs, and its counter is one of the leak sensors.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from . import binaries, images
from .images import run

CLUSTER = "netguard"
NETWORK = "kind"
BRIDGE = "br-kind"
SUBNET = "172.30.0.0/16"
RESOLVER, PEER = "172.30.0.53", "172.30.0.80"
ENDPOINT, INTERNET = "198.51.100.10", "203.0.113.80"
RANGES = ("198.51.100.0/24", "203.0.113.0/24")
KUBECTL = ("kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf")
#: What a client's sidecar asks, byte by byte from the start of the UDP header; anything else that is sent to a gateway's pod is a
#: leak. Whether the gateway answers: inside of the overlay an IPv4 packet of at most 128 bytes, an ICMP echo or its reply, without
#: the applications' marker. And where it is: a DNS question for the name `gateway.netguard` at the finder's port.
MARKER = "0x4e45544755415244"
ECHO = f"@th,224,16 0x0800 @th,240,8 0x45 @th,256,16 <= 128 @th,312,8 1 @th,400,8 {{ 0, 8 }} @th,464,64 != {MARKER}"
QUESTIONS = (f"udp dport 48879 {ECHO}", "udp dport 48880 @th,160,64 0x0767617465776179")
#: The internet's host that unguarded applications alone talk to, and the cluster's own ranges.
UNGUARDED, OWN = "203.0.113.81", "10.244.0.0/16, 10.96.0.0/16"
AWAY = f'iifname "{BRIDGE}" oifname != "{BRIDGE}"'
GUARD = f"""table inet netguard_lab {{
  counter leak {{ }}
  counter question {{ }}
  counter tunnel {{ }}
  counter unguarded {{ }}
  counter own {{ }}
  chain forward {{
    type filter hook forward priority -10
    {AWAY} {QUESTIONS[0]} counter name question drop
    {AWAY} {QUESTIONS[1]} counter name question drop
    {AWAY} ip saddr {ENDPOINT} udp sport 51820 counter name tunnel drop
    {AWAY} ip saddr {UNGUARDED} counter name unguarded drop
    {AWAY} ip daddr {UNGUARDED} counter name unguarded drop
    {AWAY} udp dport {{ 48879, 48880 }} counter name leak drop
    {AWAY} ip daddr {{ {OWN} }} udp dport != 7 @th,64,64 != {MARKER} counter name own drop
    {AWAY} ip daddr {{ {OWN} }} meta l4proto tcp counter name own drop
    {AWAY} counter name leak drop
  }}
}}
"""
#: Keys of the lab's tunnel, for these tests alone: they open nothing.
SERVER_KEY = "cGVlcmtleW9mdGhldGVzdGxhYm9mbmV0Z3VhcmQwMFE="
CLIENT_KEY = "Y2xpZW50a2V5b2Z0aGV0ZXN0bGFib2ZuZXRndWFyZDA="
SECOND_KEY = "c2Vjb25ka2V5b2Z0aGV0ZXN0bGFib2ZuZXRndWFyZDA="
CLIENT_ADDRESS, SECOND_ADDRESS = "10.2.0.2", "10.2.0.3"
LAB = Path(__file__).resolve().parent / "lab"
DNS, FAR = "netguard-dns", "netguard-peer"


def public_key(private: str) -> str:
    """The public half of a WireGuard key, both as base64."""
    import base64

    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    key = X25519PrivateKey.from_private_bytes(base64.b64decode(private))
    return base64.b64encode(key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)).decode()


def unreachable() -> str:
    """Why kind's own node image cannot be had; empty when it is here or its registry answers."""
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        return "no Docker engine answers"
    if images.exists(images.NODE):
        return ""
    try:
        asked = subprocess.run(
            ["docker", "manifest", "inspect", images.NODE], capture_output=True, text=True, timeout=30, check=False
        )
    except subprocess.TimeoutExpired:
        return f"{images.NODE} cannot be pulled: no answer"
    return f"{images.NODE} cannot be pulled: {asked.stderr.strip()[-160:]}" if asked.returncode else ""


def kind(*words: str) -> str:
    found = str(binaries.path("kind")) if binaries.path("kind").exists() else shutil.which("kind")
    if found is None:
        raise images.ImageError("kind is missing")
    return run(found, *words)


def nodes() -> list[str]:
    """Containers of the cluster, the control plane first."""
    return sorted(name for name in kind("get", "nodes", "--name", CLUSTER).split() if name.startswith(CLUSTER))


def exists() -> bool:
    return CLUSTER in kind("get", "clusters").split()


def up(kubeconfig: Path, *, public: bool, workers: int = 1) -> None:
    """Starts what is not there. Raises ImageError or BuildError with the step that failed."""
    network()
    image = images.ensure(public)
    lab()
    if exists():
        kubeconfig.write_text(kind("get", "kubeconfig", "--name", CLUSTER))
        return
    started = time.monotonic()
    print("kind: creating the cluster", flush=True)
    config = kubeconfig.with_suffix(".kind.yaml")
    roles = [{"role": "control-plane"}, *({"role": "worker"} for _worker in range(workers))]
    kubelet = json.dumps({"kind": "KubeletConfiguration", "resolvConf": "/kind/resolv.conf"})
    wanted = {"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "nodes": roles, "kubeadmConfigPatches": [kubelet]}
    config.write_text(json.dumps(wanted))
    words = ["--name", CLUSTER, "--config", str(config), "--kubeconfig", str(kubeconfig), "--wait", "180s", "--image", image]
    kind("create", "cluster", *words)
    for node in nodes():
        routes(node)
    # both nodes take pods, so that a client and its gateway can be on different ones
    run("docker", "exec", nodes()[0], *KUBECTL, "taint", "nodes", nodes()[0], "node-role.kubernetes.io/control-plane-")
    print(f"kind: ready in {time.monotonic() - started:.0f} s", flush=True)


def routes(node: str, own: str = "") -> None:
    """A node's way to the lab's internet; and an address of its range that no pod has leads nowhere, instead of out by the default
    route: Calico's own address management sees to that, host-local addresses do not. A restarted node has lost both.
    `own`: its range of pods, where the API server cannot be asked.
    """
    for network in RANGES:
        run("docker", "exec", node, "ip", "route", "replace", network, "via", PEER)
    run("docker", "exec", node, "ip", "route", "replace", "blackhole", own or pod_range(node))


def pod_range(node: str) -> str:
    return run("docker", "exec", nodes()[0], *KUBECTL, "get", "node", node, "--output", "jsonpath={.spec.podCIDR}").strip()


def network() -> None:
    """The bridge with a known name, and the host's guard, before anything starts on it. Raises ImageError where it cannot be."""
    if os.geteuid() != 0 or shutil.which("nft") is None:
        raise images.ImageError("the lab's guard on this host needs root and nft; on Debian: apt install nftables")
    if subprocess.run(["docker", "network", "inspect", NETWORK], capture_output=True, check=False).returncode:
        name = f"com.docker.network.bridge.name={BRIDGE}"
        run("docker", "network", "create", "-o", name, "--subnet", SUBNET, NETWORK)
    if subprocess.run(["nft", "list", "table", "inet", "netguard_lab"], capture_output=True, check=False).returncode:
        subprocess.run(["nft", "-f", "-"], input=GUARD, text=True, check=True)


def lab() -> None:
    """The resolver must answer before workers join: kube-proxy finds the control plane by name."""
    # Docker's resolver is asked for the nodes' names alone: anything else it would pass on to the machine's own
    known = [f"--server=/{CLUSTER}-{name}/127.0.0.11" for name in ("control-plane", "worker")]
    resolver = ["dnsmasq", "-k", "--no-resolv", "--no-hosts", "--log-queries", "--log-facility=-", "--user=root"]
    container(DNS, RESOLVER, [], [*resolver, *known, "--address=/lab.test/203.0.113.80"])
    clients = ((CLIENT_KEY, CLIENT_ADDRESS), (SECOND_KEY, SECOND_ADDRESS))
    variables = {
        "SERVER_KEY": SERVER_KEY,
        "CLIENTS": ",".join(f"{public_key(key)}={address}" for key, address in clients),
        "LAB_NETWORK": SUBNET,
    }
    words = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
    container(FAR, PEER, ["--privileged", "--volume", f"{LAB}:/lab:ro", *words], ["python3", "/lab/peer.py"])
    deadline = time.monotonic() + 60
    while "ready" not in run("docker", "logs", FAR):
        if time.monotonic() > deadline:
            raise images.ImageError(f"the lab's far side does not start:\n{run('docker', 'logs', FAR)[-1500:]}")
        time.sleep(0.2)


def container(name: str, address: str, words: list[str], command: list[str]) -> None:
    """A container of the lab; one that ended is replaced."""
    state = subprocess.run(["docker", "inspect", "-f", "{{.State.Running}}", name], capture_output=True, text=True, check=False)
    if state.stdout.strip() == "true":
        return
    subprocess.run(["docker", "rm", "-f", name], capture_output=True, check=False)
    run("docker", "run", "-d", "--name", name, "--network", NETWORK, "--ip", address, *words, images.TOOLBOX, *command)


def leaked() -> tuple[int, int]:
    """Packets that tried to leave the machine from the kind bridge: the host guard's counters, of questions to a gateway apart.

    Neither are the server's encrypted packets to a gateway's pod that is gone, what an unguarded application sends and gets, and
    what a node that has just booted, without its routes, sends to pods and Services of its own cluster (kubelet, declared uses).
    """
    listed = json.loads(run("nft", "--json", "list", "table", "inet", "netguard_lab"))["nftables"]
    counts = {entry["counter"]["name"]: int(entry["counter"]["packets"]) for entry in listed if "counter" in entry}
    if not counts:
        raise images.ImageError("the host guard has no counter")
    return counts["leak"], counts["question"]


def down() -> None:
    """Removes the cluster, the lab, its network and the host's rule; what is not there is no fault."""
    if binaries.path("kind").exists() or shutil.which("kind"):
        subprocess.run([_kind_path(), "delete", "cluster", "--name", CLUSTER], capture_output=True, check=False)
    for name in (DNS, FAR):
        subprocess.run(["docker", "rm", "-f", name], capture_output=True, check=False)
    left = subprocess.run(
        ["docker", "network", "inspect", "-f", "{{len .Containers}}", NETWORK], capture_output=True, text=True, check=False
    )
    if left.stdout.strip() == "0" and os.geteuid() == 0:
        subprocess.run(["docker", "network", "rm", NETWORK], capture_output=True, check=False)
        subprocess.run(["nft", "delete", "table", "inet", "netguard_lab"], capture_output=True, check=False)


def _kind_path() -> str:
    return str(binaries.path("kind")) if binaries.path("kind").exists() else shutil.which("kind") or "kind"
