# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images of the lab's kind cluster: a node, and inside of it everything its pods name, under fixed tags, however it came about.

- `public`: kind's own node image with our Calico; Debian's, Gluetun's and the overlay's images are pulled. Needs Docker.
- `packages`, where none can be pulled: a node from Debian packages and Go modules, and a stand-in for Gluetun. Needs root, Docker
  and debootstrap.

The node image's tag is a hash of all that goes into it, so an unchanged input costs one look.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from ansible_collections.homelab.netguard.plugins.module_utils._manifests.images import GLUETUN_IMAGE, OVERLAY_IMAGE

from . import binaries

HERE = Path(__file__).resolve().parent
KIND = HERE / "kind"
STANDIN = HERE.parent / "packets"
VERSION = f"v{binaries.KUBERNETES}"
TOOLBOX = "netguard.test/toolbox:1"
OVERLAY = "netguard.test/overlay:v1.0.0"
GLUETUN = "netguard.test/gluetun:v3.41.3"
PAUSE = "registry.k8s.io/pause:3.10.1"
CONTROL = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
PROGRAMS = (
    *CONTROL,
    *("etcd", "coredns", "kube-proxy", "kubeadm", "kubelet", "kubectl", "wireguard", "calico-felix", "calico-cni", "kind"),
)
#: What the collection runs where nothing else is asked for, without the digest, which another platform's image has not.
PULLED = {OVERLAY: OVERLAY_IMAGE, GLUETUN: GLUETUN_IMAGE.partition("@")[0]}
#: kind's own node image, and Debian's.
NODE, DEBIAN = "kindest/node:v1.34.0", "debian:bookworm-slim"
#: What is built for `public`.
LAB_PROGRAMS = ("kubectl", "wireguard", "calico-felix", "calico-cni", "kind")
SUITE = "bookworm"
NODE_PACKAGES = (
    "systemd,systemd-sysv,dbus,iptables,nftables,ipset,iproute2,ethtool,conntrack,socat,util-linux,mount,kmod,libseccomp2,e2fsprogs,"
    "bash,ca-certificates,curl,jq,procps,containerd,runc,containernetworking-plugins,iputils-ping,tcpdump"
)
TOOLBOX_PACKAGES = (
    "iptables,nftables,ipset,iproute2,conntrack,iputils-ping,tcpdump,ca-certificates,curl,bind9-dnsutils,netcat-openbsd,openvpn,"
    "dnsmasq-base,socat,procps,wget,python3-minimal,libpython3-stdlib"
)
MASKED = "systemd-binfmt systemd-udevd systemd-udev-trigger getty.target console-getty"


class ImageError(RuntimeError):
    """An image could not be built; the message says which step and why."""


def run(*command: str, **extra: str) -> str:
    """Runs a command; its output. Raises ImageError with the end of what it said."""
    environment = {**os.environ, "DOCKER_BUILDKIT": "0", **extra}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise ImageError(f"{' '.join(command)[:200]} failed:\n{done.stdout[-2000:]}")
    return done.stdout


def missing(public: bool) -> str:
    """What keeps images from being built here; empty when nothing does."""
    if os.geteuid() != 0 and not public:
        return "building images needs root (debootstrap)"
    absent = [tool for tool in (("docker",) if public else ("docker", "debootstrap", "gcc")) if shutil.which(tool) is None]
    if absent:
        return f"missing: {', '.join(absent)}; on Debian: apt install docker.io debootstrap gcc libc6-dev"
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        return "no Docker engine answers"
    return ""


def files() -> list[Path]:
    """Files that go into images, besides packages and programs."""
    standin = [STANDIN / name for name in ("gluetun.py", "wireguard.py")]
    return sorted([Path(__file__), *(path for path in KIND.rglob("*") if path.is_file()), *standin])


def tag(public: bool) -> str:
    """The node image's name."""
    pulled = (NODE, DEBIAN, *PULLED.values()) if public else ()
    digest = hashlib.sha256(" ".join((VERSION, NODE_PACKAGES, TOOLBOX_PACKAGES, *pulled)).encode())
    for path in files():
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    for name in LAB_PROGRAMS if public else PROGRAMS:
        digest.update(str(binaries.path(name).relative_to(binaries.cache())).encode())
    return f"netguard.test/kind-{'public' if public else 'node'}:{digest.hexdigest()[:12]}"


def ensure(public: bool) -> str:
    """Builds what is not there; the node image's name. Raises ImageError or BuildError."""
    name = tag(public)
    if exists(name) and exists(TOOLBOX):
        return name
    problem = missing(public)
    if problem:
        raise ImageError(problem)
    programs = binaries.ensure(*(LAB_PROGRAMS if public else PROGRAMS))
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="netguard-images-") as folder:
        build = (_Public if public else _Packages)(Path(folder), programs, started)
        build.toolbox()
        build.pods()
        build.node(name)
    _forget(name)
    return name


def exists(name: str) -> bool:
    """Whether the engine has this image."""
    return subprocess.run(["docker", "image", "inspect", name], capture_output=True, check=False).returncode == 0


def pull(name: str) -> None:
    """An image that is here is not asked for again."""
    if not exists(name):
        run("docker", "pull", "-q", name)


def _forget(name: str) -> None:
    """Earlier node images, two gigabytes each; one that a container still uses stays."""
    listed = run("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", name.partition(":")[0])
    old = [line for line in listed.split() if line != name]
    if old:
        subprocess.run(["docker", "image", "rm", *old], capture_output=True, check=False)


class _Build(ABC):
    """What both ways share: the toolbox, our files in the node, and what pods name inside of it."""

    #: Names of programs in the toolbox -> those in `binaries`.
    tools: ClassVar[dict[str, str]] = {"wireguard-go": "wireguard", "calico-felix": "calico-felix"}

    def __init__(self, folder: Path, programs: dict[str, Path], started: float) -> None:
        self.folder = folder
        self.programs = programs
        self.started = started

    def say(self, text: str) -> None:
        print(f"images: [{time.monotonic() - self.started:4.0f} s] {text}", flush=True)

    def image(self, name: str, copied: dict[str, Path], *lines: str) -> None:
        """A small image; `copied`: name in the build context -> file."""
        context = self.folder / f"context-{name.replace('/', '-').replace(':', '-')}"
        context.mkdir()
        for target, source in copied.items():
            shutil.copy2(source, context / target)
        (context / "Dockerfile").write_text("\n".join(lines) + "\n")
        run("docker", "build", "-q", "-t", name, str(context))

    @abstractmethod
    def debian(self) -> list[str]:
        """The first lines of the toolbox's Dockerfile: Debian with its packages."""

    @abstractmethod
    def pods(self) -> None:
        """The images that pods name."""

    @abstractmethod
    def node(self, name: str) -> None:
        """The node's image, with the pods' inside."""

    def toolbox(self) -> None:
        """One image with all tools: felix, kube-proxy, the pods' scripts and the lab's containers run in it."""
        first = self.debian()
        copied = {name: self.programs[source] for name, source in self.tools.items()}
        copied |= {name: STANDIN / name for name in ("gluetun.py", "wireguard.py")}
        copied["gluetun-entrypoint"] = KIND / "gluetun-entrypoint"
        self.image(
            TOOLBOX,
            copied,
            *first,
            f"COPY {' '.join(self.tools)} /usr/local/bin/",
            "COPY gluetun.py wireguard.py /standin/",
            "COPY gluetun-entrypoint /gluetun-entrypoint",
            "ENV NETGUARD_WIREGUARD=/usr/local/bin/wireguard-go",
        )

    def tree(self) -> Path:
        """A folder with what we lay into the node: Calico, and where CoreDNS asks."""
        root = self.folder / "tree"
        for folder in ("kind/manifests", "opt/cni/bin"):
            (root / folder).mkdir(parents=True)
        shutil.copy2(self.programs["calico-cni"], root / "opt/cni/bin/calico")
        # the lab's resolver: Docker's own, 127.0.0.11, is out of pods' reach, and CoreDNS would see a loop
        (root / "kind/resolv.conf").write_text("nameserver 172.30.0.53\n")
        manifests = (binaries.calico_crds().read_text(), (KIND / "calico.yaml").read_text())
        (root / "kind/manifests/default-cni.yaml").write_text("\n---\n".join(manifests))
        return root

    def packed(self, root: Path) -> dict[str, Path]:
        """The folder as one file for a build's context."""
        packed = self.folder / "tree.tar"
        run("tar", "-C", str(root), "--owner=0", "--group=0", "-cf", str(packed), ".")
        return {"tree.tar": packed}

    def preload(self, base: str, name: str, *more: str) -> None:
        """The pods' images into the node's containerd, as kind's own builder does it."""
        self.say("node: images inside")
        builder = f"netguard-build-{os.getpid()}"
        images = " ".join([TOOLBOX, OVERLAY, GLUETUN, *more])
        run(
            "docker", "run", "-d", "--privileged", "--network", "none", "--name", builder, "--entrypoint", "sleep", base, "infinity"
        )
        try:
            run("docker", "exec", "-d", builder, "containerd")
            run(
                "docker",
                "exec",
                builder,
                "bash",
                "-c",
                "for i in $(seq 100); do ctr version >/dev/null 2>&1 && exit; sleep 0.2; done; exit 1",
            )
            into = f"docker exec -i {builder} ctr -n k8s.io images import --digests -"
            run("bash", "-o", "pipefail", "-c", f"docker save {images} | {into}")
            run("docker", "exec", builder, "pkill", "containerd")
            time.sleep(2)  # containerd writes its metadata at its end
            entry = 'ENTRYPOINT ["/usr/local/bin/entrypoint","/sbin/init"]'
            run("docker", "commit", "--change", entry, builder, name)
        finally:
            subprocess.run(["docker", "rm", "-f", builder], capture_output=True, check=False)
        self.say(f"{name} is there")


class _Public(_Build):
    """From images of registries; only Calico, which is not kind's own, and the lab's tools are ours."""

    def debian(self) -> list[str]:
        self.say(f"{DEBIAN} with the lab's tools")
        pull(DEBIAN)
        install = f"apt-get install -y -q --no-install-recommends {TOOLBOX_PACKAGES.replace(',', ' ')}"
        return [f"FROM {DEBIAN}", f"RUN apt-get update -q && {install} && rm -rf /var/lib/apt/lists/*"]

    def pods(self) -> None:
        for name, public in PULLED.items():
            self.say(public)
            pull(public)
            run("docker", "tag", public, name)

    def node(self, name: str) -> None:
        self.say(f"{NODE} with Calico")
        pull(NODE)
        base = "netguard.test/kind-pulled:1"
        self.image(base, self.packed(self.tree()), f"FROM {NODE}", "ADD tree.tar /")
        self.preload(base, name)


class _Packages(_Build):
    """From Debian packages and Go modules, without a registry."""

    tools: ClassVar[dict[str, str]] = {**_Build.tools, "kube-proxy": "kube-proxy"}

    def debian(self) -> list[str]:
        return [f"FROM {self.bootstrapped('toolbox', TOOLBOX_PACKAGES)}"]

    def bootstrapped(self, name: str, packages: str) -> str:
        """An image of a Debian system with these packages; built once for each list."""
        image = f"netguard.test/debian-{name}:{hashlib.sha256(f'{SUITE} {packages}'.encode()).hexdigest()[:12]}"
        if exists(image):
            return image
        self.say(f"{name}: Debian packages")
        root = self.folder / name
        run("debootstrap", "--variant=minbase", f"--include={packages}", SUITE, str(root))
        for pattern in ("var/cache/apt/archives/*.deb", "var/lib/apt/lists/*", "usr/share/doc/*", "usr/share/locale/*"):
            for path in root.glob(pattern):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        run("bash", "-o", "pipefail", "-c", f"tar -C '{root}' -c . | docker import - {image}")
        shutil.rmtree(root)
        return image

    def pods(self) -> None:
        """The images that kubeadm's pods and ours name."""
        self.say("images of the pods")
        pause = self.folder / "pause"
        run("gcc", "-static", "-O2", "-o", str(pause), str(KIND / "pause.c"))
        self.image(PAUSE, {"pause": pause}, "FROM scratch", "COPY pause /pause", 'ENTRYPOINT ["/pause"]')
        for name in (*CONTROL, "etcd"):
            lines = ("FROM scratch", f"COPY {name} /usr/local/bin/{name}", "ENV PATH=/usr/local/bin")
            self.image(self.named(name), {name: self.programs[name]}, *lines)
        lines = ("FROM scratch", "COPY coredns /coredns", 'ENTRYPOINT ["/coredns"]')
        self.image(self.named("coredns"), {"coredns": self.programs["coredns"]}, *lines)
        self.image(self.named("kube-proxy"), {}, f"FROM {TOOLBOX}")
        self.image(OVERLAY, {}, f"FROM {TOOLBOX}", 'CMD ["/bin/sh"]')
        self.image(GLUETUN, {}, f"FROM {TOOLBOX}", 'ENTRYPOINT ["/gluetun-entrypoint"]')

    def named(self, name: str) -> str:
        """The image that kubeadm names for a component."""
        if not hasattr(self, "_names"):
            listed = run(str(self.programs["kubeadm"]), "config", "images", "list", "--kubernetes-version", VERSION)
            self._names = [line for line in listed.splitlines() if line.startswith("registry.k8s.io/")]
        return next(image for image in self._names if image.rpartition("/")[2].split(":")[0] == name)

    def node(self, name: str) -> None:
        debian = self.bootstrapped("node", NODE_PACKAGES)
        self.say("node: files")
        root = self.tree()
        for folder in ("etc/kubernetes/manifests", "etc/containerd", "usr/local/bin", "usr/bin", "etc/sysctl.d"):
            (root / folder).mkdir(parents=True)
        (root / "etc/systemd/journald.conf.d").mkdir(parents=True)
        for program in ("kubeadm", "kubelet", "kubectl"):
            shutil.copy2(self.programs[program], root / "usr/bin" / program)
        shutil.copy2(KIND / "node-entrypoint", root / "usr/local/bin/entrypoint")
        shutil.copy2(KIND / "containerd.toml", root / "etc/containerd/config.toml")
        shutil.copytree(KIND / "units", root / "etc/systemd/system")
        (root / "kind/version").write_text(VERSION)
        shutil.copy2(KIND / "storage.yaml", root / "kind/manifests/default-storage.yaml")
        sysctls = ("ip_forward=1", "conf.all.route_localnet=1", "conf.all.arp_ignore=0", "conf.all.rp_filter=1")
        (root / "etc/sysctl.d/10-node.conf").write_text("".join(f"net.ipv4.{line}\n" for line in sysctls))
        (root / "etc/systemd/journald.conf.d/node.conf").write_text("[Journal]\nReadKMsg=no\n")
        base = "netguard.test/kind-root:1"
        self.image(
            base,
            self.packed(root),
            f"FROM {debian}",
            "ADD tree.tar /",
            "RUN cp /usr/lib/cni/* /opt/cni/bin/ && systemctl enable kubelet containerd kubelet.slice"
            f" && systemctl mask {MASKED} && systemctl set-default multi-user.target",
            "ENV container=docker",
            "STOPSIGNAL SIGRTMIN+3",
        )
        self.preload(base, name, PAUSE, *map(self.named, (*CONTROL, "etcd", "coredns", "kube-proxy")))


def main() -> int:
    try:
        print(ensure(public="--public" in sys.argv))
    except (ImageError, binaries.BuildError) as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
