# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Custom resource definitions of CNIs and meshes, read from their Go modules when a test asks for them; never copied here."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import binaries


@dataclass(frozen=True)
class Source:
    """Files of a module at a version; `sum` is the module's hash, as a go.sum would hold it."""

    module: str
    sum: str
    files: tuple[str, ...]
    #: The first Kubernetes that takes them, where that is not every one of ours: their rules use CEL of that release.
    since: tuple[int, int] = (1, 30)


_CILIUM = "pkg/k8s/apis/cilium.io/client/crds/v2"
_GATEWAY = "config/crd/standard/gateway.networking.k8s.io"
SOURCES: dict[str, Source] = {
    "cilium": Source(
        "github.com/cilium/cilium@v1.20.2",
        "h1:dqiEGIcXc+gqCLYG/l7VCFJ8GHyb4HUrwbZOpkX5dL8=",
        tuple(
            f"{_CILIUM}/{name}.yaml"
            for name in ("ciliumnetworkpolicies", "ciliumclusterwidenetworkpolicies", "ciliumcidrgroups", "ciliumnodes")
        ),
    ),
    "cluster-network-policy": Source(
        "sigs.k8s.io/network-policy-api@v0.2.0",
        "h1:W/f0Y9VoeQdOWjX/h2gZyLH6gZ5LLEXmh/9wy9mQWKw=",
        ("config/crd/standard/policy.networking.k8s.io_clusternetworkpolicies.yaml",),
        since=(1, 31),  # isCIDR
    ),
    "admin-network-policy": Source(
        "sigs.k8s.io/network-policy-api@v0.1.1",
        "h1:KDW+AkvCCQI3h8yH8j0hurhvPLNtLeVvmZoqtMaG9ew=",
        (
            "config/crd/policy.networking.k8s.io_adminnetworkpolicies.yaml",
            "config/crd/policy.networking.k8s.io_baselineadminnetworkpolicies.yaml",
        ),
    ),
    "istio": Source(
        "istio.io/api@v1.31.1",
        "h1:5Yb5ihcz4YQsCkciusK7DnFpBMwRB6EFWeUKH1Atuyk=",
        ("kubernetes/customresourcedefinitions.gen.yaml",),
    ),
    "gateway-api": Source(
        "sigs.k8s.io/gateway-api@v1.6.2",
        "h1:vh5YzKlbdBivEaLX61+APKLGRq4tZ7Fj4XfGkv08xB4=",
        tuple(f"{_GATEWAY}_{name}.yaml" for name in ("gatewayclasses", "gateways", "grpcroutes", "httproutes", "referencegrants")),
    ),
}
NAMES = ("calico", *SOURCES)


def taken(name: str, release: str) -> bool:
    """Whether a Kubernetes of this release ("1.30") takes these definitions."""
    major, minor = release.split(".")[:2]
    return name not in SOURCES or SOURCES[name].since <= (int(major), int(minor))


def path(name: str) -> Path:
    """One YAML file with these definitions, in the cache. Raises BuildError."""
    if name == "calico":
        return binaries.calico_crds()
    source = SOURCES[name]
    target = binaries.cache() / "files" / f"{name}-{source.module.rpartition('@')[2]}.yaml"
    if not target.exists():
        folder = _download(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(f".{os.getpid()}")
        partial.write_text("\n---\n".join((folder / file).read_text() for file in source.files))
        partial.rename(target)
    return target


def _download(source: Source) -> Path:
    """The module's folder in Go's cache, its hash compared with ours."""
    command = [binaries.go(), "mod", "download", "-json", source.module]
    done = subprocess.run(command, cwd=binaries.cache(), env=binaries.environment(), capture_output=True, text=True, check=False)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        found = {}
    if found.get("Sum") != source.sum or not found.get("Dir"):
        reason = found.get("Error") or done.stderr[-500:] or f"its hash is {found.get('Sum')}, not {source.sum}"
        raise binaries.BuildError(f"the Go module {source.module} cannot be had: {reason}")
    return Path(found["Dir"])
