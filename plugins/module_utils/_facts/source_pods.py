# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where pod ranges are written."""

from __future__ import annotations

import json
from collections.abc import Iterable

import yaml

from .._topology.model import Network
from . import observations as obs
from .cni import CniFound, containers_env, node_arguments
from .distribution import DEFAULTS, Distribution
from .observations import Observation, at, items, networks, text
from .world import World


def collect(world: World, cni: CniFound, distribution: Distribution) -> Iterable[Observation]:
    """What every source says about the pod range; which of them counts is decided by the reconciler."""
    yield from _openshift(world)
    yield from _calico(world)
    yield from _cilium(world)
    yield from _flannel(world)
    yield from _environment(world)
    yield from _ovn(world)
    yield from _arguments(world, distribution)
    yield from flags(world, "pods", "kube-controller-manager", "cluster-cidr", "nodes")
    yield from kubeadm(world, "pods", "podSubnet", "nodes")
    yield from _kube_proxy(world)
    yield from _slices(world)


def _openshift(world: World) -> Iterable[Observation]:
    for item in world.optional.get("openshift", []):
        if at(item, "metadata", "name") != "cluster":
            continue
        for part in ("status", "spec"):
            raw = [text(at(entry, "cidr")) for entry in items(at(item, part, "clusterNetwork"))]
            if networks(raw):
                field = f"{part}.clusterNetwork"
                yield Observation(
                    "pods", networks(raw), obs.ALLOCATES, "openshift", "network/cluster", field, ", ".join(raw), "openshift"
                )
                break


def _calico(world: World) -> Iterable[Observation]:
    """Several pools are a union. A disabled pool keeps its addresses; one for load balancers alone has no pods."""
    found: list[Network] = []
    raws: list[str] = []
    names: list[str] = []
    for pool in world.optional.get("ippools", []):
        uses = at(pool, "spec", "allowedUses")
        if isinstance(uses, list) and uses and "Workload" not in uses:
            continue
        raw = text(at(pool, "spec", "cidr"))
        found += networks(raw)
        raws.append(raw)
        names.append(text(at(pool, "metadata", "name")))
    if found:
        yield Observation(
            "pods",
            tuple(found),
            obs.ALLOCATES,
            "calico-ippool",
            f"ippool/{','.join(names)}",
            "spec.cidr",
            ", ".join(raws),
            "calico",
        )


def _cilium(world: World) -> Iterable[Observation]:
    reference, data = world.config_map("cilium-config")
    raw = [text(data.get(key)) for key in ("cluster-pool-ipv4-cidr", "cluster-pool-ipv6-cidr") if text(data.get(key))]
    if networks(raw):
        yield Observation(
            "pods", networks(raw), obs.ALLOCATES, "cilium-config", reference, "cluster-pool-ipv4-cidr", ", ".join(raw), "cilium"
        )
    pools = [
        text(cidr)
        for pool in world.optional.get("ciliumpools", [])
        for family in ("ipv4", "ipv6")
        for cidr in items(at(pool, "spec", family, "cidrs"))
    ]
    if networks(pools):
        yield Observation(
            "pods",
            networks(pools),
            obs.ALLOCATES,
            "cilium-pool",
            "ciliumpodippool",
            "spec.ipv4.cidrs",
            ", ".join(pools),
            "cilium-pools",
        )
    subnets = [
        text(at(eni, "subnet", "cidr"))
        for node in world.optional.get("ciliumnodes", [])
        for eni in (at(node, "status", "eni", "enis") or {}).values()
    ]
    if networks(subnets):
        yield Observation(
            "pods",
            networks(subnets),
            obs.ALLOCATES,
            "cilium-eni",
            "ciliumnode",
            "status.eni.enis[].subnet.cidr",
            ", ".join(subnets),
            "vpc",
            False,
        )
    slices = [text(cidr) for node in world.optional.get("ciliumnodes", []) for cidr in items(at(node, "spec", "ipam", "podCIDRs"))]
    if networks(slices):
        yield Observation(
            "pods",
            networks(slices),
            obs.OBSERVED,
            "ciliumnode",
            "ciliumnode",
            "spec.ipam.podCIDRs",
            ", ".join(slices),
            "cilium",
            False,
        )


def _flannel(world: World) -> Iterable[Observation]:
    for name, namespaces in (
        ("kube-flannel-cfg", ("kube-flannel", "kube-system")),
        ("canal-config", ("kube-system",)),
        ("rke2-canal-config", ("kube-system",)),
    ):
        reference, data = world.config_map(name, *namespaces)
        raw = text(data.get("net-conf.json"))
        try:
            config = json.loads(raw) if raw else {}
        except ValueError:
            world.asking.notes.malformed.append(f"{reference}: net-conf.json is no JSON")
            continue
        words = [text(at(config, "Network"))] if at(config, "EnableIPv4") is not False else []
        if at(config, "EnableIPv6") is True:
            words.append(text(at(config, "IPv6Network")))
        if networks(words):
            yield Observation(
                "pods", networks(words), obs.ALLOCATES, "flannel", reference, "net-conf.json", " ".join(words), "nodes"
            )


def _environment(world: World) -> Iterable[Observation]:
    for item in world.daemonsets:
        name = text(at(item, "metadata", "name"))
        reference = f"daemonset/{at(item, 'metadata', 'namespace')}/{name}"
        for variable, mechanism in (("POD_SUBNET", "nodes"), ("IPALLOC_RANGE", "weave")):
            raw = containers_env(item, variable)
            if networks(raw):
                yield Observation("pods", networks(raw), obs.RUNNING, name, reference, f"env {variable}", raw, mechanism)


def _ovn(world: World) -> Iterable[Observation]:
    reference, data = world.config_map("ovn-config", "ovn-kubernetes")
    raw = text(data.get("net_cidr"))
    if networks(raw):
        yield Observation("pods", networks(raw), obs.RUNNING, "ovn-config", reference, "net_cidr", raw, "ovn")


def _arguments(world: World, distribution: Distribution) -> Iterable[Observation]:
    for node, words in node_arguments(world, distribution).items():
        raw = obs.flag_values(words, "cluster-cidr")
        where = f"node/{node}"
        if raw and networks(raw):
            yield Observation("pods", networks(raw), obs.RUNNING, "node-args", where, "--cluster-cidr", ",".join(raw), "nodes")
        elif raw is None:
            default = family_defaults(world, DEFAULTS[distribution.name][0])
            yield Observation("pods", default, obs.RUNNING, "node-args", where, "no --cluster-cidr: the default", "", "nodes")


def family_defaults(world: World, ranges: tuple[str, ...]) -> tuple[Network, ...]:
    """The defaults of the families in which nodes have addresses; several families are never a default by themselves."""
    versions = {found.version for node in world.nodes for found in networks(text(at(node, "spec", "podCIDR")))}
    return tuple(found for found in networks(list(ranges)) if found.version in (versions or {4}))


def flags(world: World, about: str, component: str, name: str, mechanism: str) -> Iterable[Observation]:
    """One observation per pod of a control-plane component that has the flag."""
    for pod in world.static_pods(component):
        raw = obs.flag(pod, name)
        if component == "kube-controller-manager" and about == "pods" and obs.flag(pod, "allocate-node-cidrs") != ["true"]:
            continue  # the range is then nobody's
        if raw and networks(raw):
            reference = f"pod/kube-system/{at(pod, 'metadata', 'name')}"
            yield Observation(about, networks(raw), obs.RUNNING, component, reference, f"--{name}", ",".join(raw), mechanism)


def kubeadm(world: World, about: str, key: str, mechanism: str) -> Iterable[Observation]:
    """The installation's record. It is not kept up to date."""
    reference, data = world.config_map("kubeadm-config")
    raw_text = text(data.get("ClusterConfiguration"))
    try:
        config = yaml.safe_load(raw_text) if raw_text else {}
    except (yaml.YAMLError, RecursionError):
        world.asking.notes.malformed.append(f"{reference}: ClusterConfiguration is no YAML")
        return
    raw = text(at(config, "networking", key))
    if networks(raw):
        yield Observation(about, networks(raw), obs.RECORD, "kubeadm", reference, f"networking.{key}", raw, mechanism)


def _kube_proxy(world: World) -> Iterable[Observation]:
    reference, data = world.config_map("kube-proxy")
    try:
        config = yaml.safe_load(text(data.get("config.conf"))) if data.get("config.conf") else {}
    except (yaml.YAMLError, RecursionError):
        world.asking.notes.malformed.append(f"{reference}: config.conf is no YAML")
        config = {}
    raw = text(at(config, "clusterCIDR"))
    if networks(raw):
        yield Observation("pods", networks(raw), obs.RECORD, "kube-proxy", reference, "config.conf clusterCIDR", raw, "nodes")


def _slices(world: World) -> Iterable[Observation]:
    for node in world.nodes:
        raw = at(node, "spec", "podCIDRs") or at(node, "spec", "podCIDR")
        if networks(raw):
            reference = f"node/{at(node, 'metadata', 'name')}"
            yield Observation(
                "pods", networks(raw), obs.OBSERVED, "node", reference, "spec.podCIDRs", " ".join(obs.split(raw)), "nodes", False
            )


def observed(world: World) -> tuple[Network, ...]:
    """Addresses of running pods that have a network of their own."""
    words = [
        at(entry, "ip")
        for pod in world.pods
        if at(pod, "spec", "hostNetwork") is not True and at(pod, "status", "phase") == "Running"
        for entry in items(at(pod, "status", "podIPs"))
    ]
    return obs.hosts(words)
