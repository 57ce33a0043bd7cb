# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where pod ranges are written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .._topology.model import Network
from .._yaml import yaml
from . import observations as obs
from . import rights
from .cni import CniFound
from .cni_config import antrea_config, containers_env, flannel_configs, node_arguments
from .distribution import DEFAULTS, Distribution
from .observations import Observation, annotations_of, at, items, mapping, networks, text
from .world import World


def collect(world: World, cni: CniFound, distribution: Distribution) -> Iterable[Observation]:
    """What every source says about the pod range; which of them counts is decided by the reconciler."""
    yield from _openshift(world)
    yield from _calico(world)
    yield from _cilium(world)
    yield from _flannel(world, cni)
    yield from _environment(world, cni)
    yield from _antrea(world)
    yield from _ovn(world)
    yield from _arguments(world, distribution)
    yield from flags(world, "pods", "kube-controller-manager", "cluster-cidr", "nodes")
    yield from kubeadm(world, "pods", "podSubnet", "nodes")
    yield from cluster_api(world, "pods", "nodes")
    yield from _kube_proxy(world)
    yield from _slices(world)


def _openshift(world: World) -> Iterable[Observation]:
    for item in world.optional.get("openshift", []):
        if at(item, "metadata", "name") != "cluster":
            continue
        for part in ("status", "spec"):
            raw = [at(entry, "cidr") for entry in items(at(item, part, "clusterNetwork"))]
            if raw:
                yield from world.asking.claim(
                    "pods", raw, obs.ALLOCATES, "openshift", "network/cluster", f"{part}.clusterNetwork", "openshift"
                )
                break


def _calico(world: World) -> Iterable[Observation]:
    """Several pools are a union. A disabled pool keeps its addresses; one for load balancers alone has no pods."""
    raws: list[Any] = []
    names: list[str] = []
    for pool in world.optional.get("ippools", []):
        uses = at(pool, "spec", "allowedUses")
        if isinstance(uses, list) and uses and "Workload" not in uses:
            continue
        raws.append(at(pool, "spec", "cidr"))
        names.append(text(at(pool, "metadata", "name")))
    ref = f"ippool/{','.join(sorted(names))}"
    yield from world.asking.claim("pods", raws, obs.ALLOCATES, "calico-ippool", ref, "spec.cidr", "calico")


def _cilium(world: World) -> Iterable[Observation]:
    asking = world.asking
    for (namespace, name), data in world.config.items():
        if name != "cilium-config":
            continue
        # A family that is switched off may have a range there all the same.
        families = [item for item in ("ipv4", "ipv6") if data.get(f"enable-{item}", "").lower() != "false"]
        raw = [data[key] for item in families if data.get(key := f"cluster-pool-{item}-cidr")]
        ref = f"configmap/{namespace}/{name}"
        yield from asking.claim("pods", raw, obs.ALLOCATES, "cilium-config", ref, "cluster-pool-ipv4-cidr", "cilium")
    pools = [
        cidr
        for pool in world.optional.get("ciliumpools", [])
        for family in ("ipv4", "ipv6")
        for cidr in items(at(pool, "spec", family, "cidrs"))
    ]
    yield from asking.claim("pods", pools, obs.ALLOCATES, "cilium-pool", "ciliumpodippool", "spec.ipv4.cidrs", "cilium-pools")
    for node in world.optional.get("ciliumnodes", []):
        ref = f"ciliumnode/{text(at(node, 'metadata', 'name'))}"
        subnets = [at(eni, "subnet", "cidr") for eni in mapping(at(node, "status", "eni", "enis")).values()]
        field = "status.eni.enis[].subnet.cidr"
        yield from asking.claim("pods", subnets, obs.ALLOCATES, "cilium-eni", ref, field, "vpc", False)
        slices = at(node, "spec", "ipam", "podCIDRs")
        yield from asking.claim("pods", slices, obs.OBSERVED, "ciliumnode", ref, "spec.ipam.podCIDRs", "cilium", False)


def _flannel(world: World, cni: CniFound) -> Iterable[Observation]:
    """A ConfigMap of flannel's stays behind when flannel goes: it speaks for the node slices only while flannel runs."""
    mechanism = "nodes" if cni.name in ("flannel", "canal") else "flannel"
    for reference, config in flannel_configs(world):
        words = [at(config, "Network")] if at(config, "EnableIPv4") is not False else []
        if at(config, "EnableIPv6") is True:
            words.append(at(config, "IPv6Network"))
        words = [word for word in words if word is not None]
        yield from world.asking.claim("pods", words, obs.ALLOCATES, "flannel", reference, "net-conf.json", mechanism)


def _environment(world: World, cni: CniFound) -> Iterable[Observation]:
    for item in world.daemonsets:
        if at(item, "status", "desiredNumberScheduled") == 0:
            continue
        ref = f"daemonset/{at(item, 'metadata', 'namespace')}/{text(at(item, 'metadata', 'name'))}"
        for variable, kind, name, ipam in (
            ("POD_SUBNET", "kindnet", "kindnet", "nodes"),
            ("IPALLOC_RANGE", "weave-net", "weave", "weave"),
        ):
            mechanism = ipam if cni.name == name else name
            raw = containers_env(item, variable)
            yield from world.asking.claim("pods", raw, obs.RUNNING, kind, ref, f"env {variable}", mechanism)


def _antrea(world: World) -> Iterable[Observation]:
    reference, controller = antrea_config(world)
    if at(controller, "nodeIPAM", "enableNodeIPAM") is True:
        raw = at(controller, "nodeIPAM", "clusterCIDRs")
        yield from world.asking.claim("pods", raw, obs.ALLOCATES, "antrea-config", reference, "nodeIPAM.clusterCIDRs", "antrea")


def _ovn(world: World) -> Iterable[Observation]:
    reference, data = world.config_map("ovn-config", "ovn-kubernetes")
    yield from world.asking.claim("pods", data.get("net_cidr"), obs.RUNNING, "ovn-config", reference, "net_cidr", "ovn")


def _arguments(world: World, distribution: Distribution) -> Iterable[Observation]:
    for node, words in node_arguments(world, distribution).items():
        raw = obs.flag_values(words, "cluster-cidr")
        where = f"node/{node}"
        if raw is not None:
            yield from world.asking.claim("pods", raw, obs.RUNNING, "node-args", where, "--cluster-cidr", "nodes")
            continue
        default = family_defaults(world, DEFAULTS[distribution.name][0])
        if default:
            yield Observation("pods", default, obs.RUNNING, "node-args", where, "no --cluster-cidr: the default", "", "nodes")


def family_defaults(world: World, ranges: tuple[str, ...]) -> tuple[Network, ...]:
    """The default of the family that nodes have slices in; several families are never a default by themselves."""
    versions = {
        found.version
        for node in world.nodes
        for found in networks(at(node, "spec", "podCIDRs") or text(at(node, "spec", "podCIDR")))
    }
    if len(versions) > 1:
        return ()
    return tuple(found for found in networks(list(ranges)) if found.version in (versions or {4}))


def flags(world: World, about: str, component: str, name: str, mechanism: str) -> Iterable[Observation]:
    """One observation per pod of a control-plane component that has the flag."""
    for pod in world.static_pods(component):
        if about == "pods" and not any(obs.switch(words, "allocate-node-cidrs") for words in obs.command_lines(pod)):
            continue  # the range is then nobody's
        raw = obs.flag(pod, name)
        ref = f"pod/kube-system/{text(at(pod, 'metadata', 'name'))}"
        yield from world.asking.claim(about, raw, obs.RUNNING, component, ref, f"--{name}", mechanism)


def document(world: World, reference: str, raw: str | None) -> Any:
    """YAML in a ConfigMap; what is none is noted."""
    try:
        return yaml.safe_load(raw) if raw else {}
    except (yaml.YAMLError, RecursionError, ValueError):
        world.asking.malformed(f"{reference}: no YAML", *rights.overrides(reference))
        return {}


def kubeadm(world: World, about: str, key: str, mechanism: str) -> Iterable[Observation]:
    """The installation's record. It is not kept up to date."""
    reference, data = world.config_map("kubeadm-config")
    config = document(world, reference, data.get("ClusterConfiguration"))
    raw = at(config, "networking", key)
    yield from world.asking.claim(about, raw, obs.RECORD, "kubeadm", reference, f"networking.{key}", mechanism)


def cluster_api(world: World, about: str, mechanism: str) -> Iterable[Observation]:
    """The Cluster API's record, in a cluster that manages itself: its Cluster is the one with its endpoint."""
    reference, data = world.config_map("kubeadm-config")
    endpoint = text(at(document(world, reference, data.get("ClusterConfiguration")), "controlPlaneEndpoint"))
    own = {endpoint.rpartition(":")[0].strip("[]")} | {
        text(address)
        for item in world.kubernetes_slices
        for entry in items(at(item, "endpoints"))
        for address in items(at(entry, "addresses"))
    }
    for item in [*world.optional.get("clusters", []), *world.optional.get("clusters-beta1", [])]:
        host = text(at(item, "spec", "controlPlaneEndpoint", "host"))
        if host and host in own:
            ref = f"cluster/{text(at(item, 'metadata', 'namespace'))}/{text(at(item, 'metadata', 'name'))}"
            raw = at(item, "spec", "clusterNetwork", about, "cidrBlocks")
            yield from world.asking.claim(about, raw, obs.RECORD, "cluster-api", ref, f"spec.clusterNetwork.{about}", mechanism)


def _kube_proxy(world: World) -> Iterable[Observation]:
    """What kube-proxy takes for the pod range; it only decides what is masqueraded, so it is no more than a record."""
    reference, data = world.config_map("kube-proxy")
    config = document(world, reference, data.get("config.conf"))
    raw = at(config, "clusterCIDR")
    yield from world.asking.claim("pods", raw, obs.RECORD, "kube-proxy", reference, "config.conf clusterCIDR", "nodes")
    for pod in world.static_pods("kube-proxy"):
        ref = f"pod/kube-system/{text(at(pod, 'metadata', 'name'))}"
        yield from world.asking.claim(
            "pods", obs.flag(pod, "cluster-cidr"), obs.RECORD, "kube-proxy", ref, "--cluster-cidr", "nodes"
        )


def _slices(world: World) -> Iterable[Observation]:
    for node in world.nodes:
        ref = f"node/{text(at(node, 'metadata', 'name'))}"
        notes = annotations_of(node)
        for key in ("kube-router.io/pod-cidrs", "kube-router.io/pod-cidr"):
            yield from world.asking.claim("pods", notes.get(key), obs.OBSERVED, "kube-router", ref, key, "nodes", False)
        raw = at(node, "spec", "podCIDRs") or at(node, "spec", "podCIDR")
        yield from world.asking.claim("pods", raw, obs.OBSERVED, "node", ref, "spec.podCIDRs", "nodes", False)


def observed(world: World) -> tuple[Network, ...]:
    """Addresses of running pods that have a network of their own."""
    return obs.hosts(world.pod_ips)


def doubled(world: World) -> list[str]:
    """Slices that two nodes have at once: one of them is a leftover, or the allocator is broken."""
    seen: dict[Network, str] = {}
    found = []
    for node in world.nodes:
        name = text(at(node, "metadata", "name"))
        for network in networks(at(node, "spec", "podCIDRs") or text(at(node, "spec", "podCIDR"))):
            other = seen.setdefault(network, name)
            if other != name:
                found.append(f"the nodes {other} and {name} have the same slice {network}")
    return found
