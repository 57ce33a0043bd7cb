# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images for kind where none can be pulled: a node, and everything its pods name, from Debian packages and Go modules.

Needs root, Docker and debootstrap. The node image's tag is a hash of all that goes into it, so an unchanged input costs
one look. What pods name is inside the node image under fixed tags.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import binaries

HERE = Path(__file__).resolve().parent
KIND = HERE / "kind"
STANDIN = HERE.parent / "packets"
VERSION = f"v{binaries.KUBERNETES}"
TOOLBOX = "netguard.test/toolbox:1"
OVERLAY = "netguard.test/overlay:v1.0.0"
GLUETUN = "netguard.test/gluetun-standin:v3.41.3"
PAUSE = "registry.k8s.io/pause:3.10.1"
CONTROL = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
PROGRAMS = (
    *CONTROL,
    *("etcd", "coredns", "kube-proxy", "kubeadm", "kubelet", "kubectl", "wireguard", "calico-felix", "calico-cni", "kind"),
)
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


def missing() -> str:
    """What keeps images from being built here; empty when nothing does."""
    if os.geteuid() != 0:
        return "building images needs root (debootstrap)"
    absent = [tool for tool in ("docker", "debootstrap", "gcc") if shutil.which(tool) is None]
    if absent:
        return f"missing: {', '.join(absent)}; on Debian: apt install docker.io debootstrap gcc libc6-dev"
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        return "no Docker engine answers"
    return ""


def files() -> list[Path]:
    """Files that go into images, besides packages and programs."""
    standin = [STANDIN / name for name in ("gluetun.py", "wireguard.py")]
    return sorted([Path(__file__), *(path for path in KIND.rglob("*") if path.is_file()), *standin])


def tag() -> str:
    """The node image's name."""
    digest = hashlib.sha256(" ".join((VERSION, NODE_PACKAGES, TOOLBOX_PACKAGES)).encode())
    for path in files():
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    for name in PROGRAMS:
        digest.update(str(binaries.path(name).relative_to(binaries.cache())).encode())
    return f"netguard.test/kind-node:{digest.hexdigest()[:12]}"


def ensure() -> str:
    """Builds what is not there; the node image's name. Raises ImageError or BuildError."""
    name = tag()
    if _exists(name) and _exists(GLUETUN):
        return name
    problem = missing()
    if problem:
        raise ImageError(problem)
    programs = binaries.ensure(*PROGRAMS)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="netguard-images-") as folder:
        build = _Build(Path(folder), programs, started)
        build.toolbox()
        build.pods()
        build.node(name)
    _forget(name)
    return name


def _exists(name: str) -> bool:
    return subprocess.run(["docker", "image", "inspect", name], capture_output=True, check=False).returncode == 0


def _forget(name: str) -> None:
    """Earlier node images, two gigabytes each; one that a container still uses stays."""
    listed = run("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", name.partition(":")[0])
    old = [line for line in listed.split() if line != name]
    if old:
        subprocess.run(["docker", "image", "rm", *old], capture_output=True, check=False)


class _Build:
    def __init__(self, folder: Path, programs: dict[str, Path], started: float) -> None:
        self.folder = folder
        self.programs = programs
        self.started = started

    def say(self, text: str) -> None:
        print(f"images: [{time.monotonic() - self.started:4.0f} s] {text}", flush=True)

    def debian(self, name: str, packages: str) -> str:
        """An image of a Debian system with these packages; built once for each list."""
        image = f"netguard.test/debian-{name}:{hashlib.sha256(f'{SUITE} {packages}'.encode()).hexdigest()[:12]}"
        if _exists(image):
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

    def image(self, name: str, copied: dict[str, Path], *lines: str) -> None:
        """A small image; `copied`: name in the build context -> file."""
        context = self.folder / f"context-{name.replace('/', '-').replace(':', '-')}"
        context.mkdir()
        for target, source in copied.items():
            shutil.copy2(source, context / target)
        (context / "Dockerfile").write_text("\n".join(lines) + "\n")
        run("docker", "build", "-q", "-t", name, str(context))

    def toolbox(self) -> None:
        """One image with all tools: felix, kube-proxy, the pods' scripts and the lab's containers run in it."""
        debian = self.debian("toolbox", TOOLBOX_PACKAGES)
        programs = {"wireguard-go": "wireguard", "calico-felix": "calico-felix", "kube-proxy": "kube-proxy"}
        copied = {name: self.programs[source] for name, source in programs.items()}
        copied |= {name: STANDIN / name for name in ("gluetun.py", "wireguard.py")}
        copied["gluetun-entrypoint"] = KIND / "gluetun-entrypoint"
        self.image(
            TOOLBOX,
            copied,
            f"FROM {debian}",
            f"COPY {' '.join(programs)} /usr/local/bin/",
            "COPY gluetun.py wireguard.py /standin/",
            "COPY gluetun-entrypoint /gluetun-entrypoint",
            "ENV NETGUARD_WIREGUARD=/usr/local/bin/wireguard-go",
        )

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
        debian = self.debian("node", NODE_PACKAGES)
        self.say("node: files")
        root = self.folder / "tree"
        for folder in ("kind/manifests", "etc/kubernetes/manifests", "opt/cni/bin", "etc/containerd", "usr/local/bin", "usr/bin"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for folder in ("etc/default", "etc/sysctl.d", "etc/systemd/journald.conf.d"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for program in ("kubeadm", "kubelet", "kubectl"):
            shutil.copy2(self.programs[program], root / "usr/bin" / program)
        shutil.copy2(self.programs["calico-cni"], root / "opt/cni/bin/calico")
        shutil.copy2(KIND / "node-entrypoint", root / "usr/local/bin/entrypoint")
        shutil.copy2(KIND / "containerd.toml", root / "etc/containerd/config.toml")
        shutil.copytree(KIND / "units", root / "etc/systemd/system")
        (root / "kind/version").write_text(VERSION)
        # the lab's resolver: Docker's own, 127.0.0.11, is out of pods' reach, and CoreDNS would see a loop
        (root / "kind/resolv.conf").write_text("nameserver 172.30.0.53\n")
        (root / "etc/default/kubelet").write_text("KUBELET_EXTRA_ARGS=--resolv-conf=/kind/resolv.conf\n")
        manifests = (binaries.calico_crds().read_text(), (KIND / "calico.yaml").read_text())
        (root / "kind/manifests/default-cni.yaml").write_text("\n---\n".join(manifests))
        shutil.copy2(KIND / "storage.yaml", root / "kind/manifests/default-storage.yaml")
        sysctls = ("ip_forward=1", "conf.all.route_localnet=1", "conf.all.arp_ignore=0", "conf.all.rp_filter=1")
        (root / "etc/sysctl.d/10-node.conf").write_text("".join(f"net.ipv4.{line}\n" for line in sysctls))
        (root / "etc/systemd/journald.conf.d/node.conf").write_text("[Journal]\nReadKMsg=no\n")
        base = "netguard.test/kind-root:1"
        run("tar", "-C", str(root), "-cf", str(self.folder / "tree.tar"), ".")
        self.image(
            base,
            {"tree.tar": self.folder / "tree.tar"},
            f"FROM {debian}",
            "ADD tree.tar /",
            "RUN cp /usr/lib/cni/* /opt/cni/bin/ && systemctl enable kubelet containerd kubelet.slice"
            f" && systemctl mask {MASKED} && systemctl set-default multi-user.target",
            "ENV container=docker",
            "STOPSIGNAL SIGRTMIN+3",
        )
        self.preload(base, name)

    def preload(self, base: str, name: str) -> None:
        """The pods' images into the node's containerd, as kind's own builder does it."""
        self.say("node: images inside")
        builder = f"netguard-build-{os.getpid()}"
        components = (*CONTROL, "etcd", "coredns", "kube-proxy")
        images = " ".join([PAUSE, TOOLBOX, OVERLAY, GLUETUN, *map(self.named, components)])
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


def main() -> int:
    try:
        print(ensure())
    except (ImageError, binaries.BuildError) as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
