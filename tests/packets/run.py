# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the packet tests inside namespaces of their own: `python tests/packets/run.py [pytest arguments]` (`make packets`).

As root, or as a user where user namespaces are allowed. Network, mounts, processes and /run are private, so that nothing of
the lab can reach the host, two runs do not meet, and everything is gone when the run ends, however it ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.cluster import binaries
from tests.packets.evidence import Evidence

#: Rows run in two parts side by side, to be done in five minutes.
PARTS = ("calico-ash,flannel-dash", "cilium-ash")
NOTHING_SELECTED = 5
ROOT = Path(__file__).resolve().parents[2]
TOOLS = (
    *("ip", "bridge", "tc", "nft", "iptables", "ip6tables", "iptables-restore", "iptables-legacy", "arptables-nft", "conntrack"),
    *("dig", "dnsmasq", "busybox", "dash", "setpriv", "nsenter", "unshare", "ping", "wget"),
)
PACKAGES = "iproute2 nftables iptables conntrack bind9-dnsutils dnsmasq-base busybox dash util-linux iputils-ping wget openvpn"


def inside() -> int:
    """Second stage: private /run, the collection importable, then pytest."""
    import pytest

    for folder in ("/run", "/var/run"):
        if not os.path.islink(folder):
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
    os.makedirs("/run/netns", exist_ok=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    arguments = sys.argv[1:] or ["-x"]
    if not any("tests/packets" in item and not item.startswith("-") for item in arguments):
        arguments.append(str(ROOT / "tests" / "packets"))
    return int(pytest.main(["-p", "no:cacheprovider", "--rootdir", str(ROOT), *arguments]))


def main() -> int:
    if os.environ.get("NETGUARD_LAB") == "inside":
        return inside()
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        print(f"packets: missing here: {', '.join(missing)} (Debian: apt-get install {PACKAGES})", file=sys.stderr)
        return 1
    unshare = [
        "unshare",
        "--net",
        "--mount",
        "--pid",
        "--ipc",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--propagation",
        "private",
    ]
    if os.geteuid() != 0:  # a range of ids, since the sidecar has a group of its own and the resolver a user
        unshare[1:1] = ["--user", "--map-root-user", "--map-auto"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        plain = (
            subprocess.run(["unshare", "--user", "--map-root-user", "--net", "true"], capture_output=True, check=False).returncode
            == 0
        )
        print(
            "packets: not as root, and user namespaces map one id alone here: needs util-linux 2.38 or later, newuidmap (Debian: "
            "apt-get install uidmap) and a range for this user in /etc/subuid and /etc/subgid"
            if plain
            else "packets: needs root, or user namespaces (sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces, "
            "kernel.apparmor_restrict_unprivileged_userns)",
            file=sys.stderr,
        )
        return 1
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        print("packets: /dev/net/tun cannot be opened by this user: the VPN's processes need it (modprobe tun)", file=sys.stderr)
        return 1
    if not os.environ.get("NETGUARD_WIREGUARD"):
        try:  # here, since inside there is no network to build it with
            os.environ["NETGUARD_WIREGUARD"] = str(binaries.ensure("wireguard")["wireguard"])
        except binaries.BuildError as error:
            print(f"packets: {error}", file=sys.stderr)
            return 1
    evidence = Evidence()
    with tempfile.TemporaryDirectory(prefix="netguard-packets-") as folder:
        links = Path(folder) / "path" / "ansible_collections" / "homelab"
        links.mkdir(parents=True)
        (links / "netguard").symlink_to(ROOT)
        parts = [start(unshare, Path(folder), links.parent.parent, layouts) for layouts in PARTS]
        try:
            for process, home, _report in parts:
                process.wait()
                print((home / "output").read_text(), flush=True)
                if (home / "evidence.json").exists():
                    evidence.take(home / "evidence.json")
        finally:  # whatever ends us; the kernel takes all of the namespaces back
            for process, _home, _report in parts:
                process.kill()
                process.wait()
        codes = [process.returncode for process, _home, _report in parts]
        merge([report for _process, _home, report in parts if report])
    # a part in which no row was selected is no failure, as long as there is another
    bad = [code for code in codes if code not in (0, NOTHING_SELECTED)]
    code = bad[0] if bad else min(codes)
    evidence.write(code == 0)
    return code


def start(unshare: list[str], folder: Path, path: Path, layouts: str) -> tuple[subprocess.Popen[bytes], Path, Path | None]:
    """One part of the rows, in namespaces of its own: process, its folder, its JUnit report."""
    home = folder / layouts.split(",")[0]
    home.mkdir()
    arguments, report = list(sys.argv[1:]), None
    if "--junitxml" in arguments:
        at = arguments.index("--junitxml") + 1
        report = Path(arguments[at]).with_suffix(f".{home.name}.xml")
        arguments[at] = str(report)
    environment = {
        **os.environ,
        "NETGUARD_LAB": "inside",
        "NETGUARD_LAB_FOLDER": str(home),
        "NETGUARD_LAYOUTS": layouts,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(path), os.environ.get("PYTHONPATH", "")))),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with open(home / "output", "wb") as output:
        process = subprocess.Popen([*unshare, sys.executable, __file__, *arguments], env=environment, stdout=output, stderr=output)
    return process, home, report


def merge(reports: list[Path]) -> None:
    """The parts' JUnit reports as the one that was asked for."""
    found = [report for report in reports if report.exists()]
    if not found:
        return
    root = ElementTree.Element("testsuites")
    for report in found:
        root.extend(ElementTree.parse(report).getroot().iter("testsuite"))
        report.unlink()
    ElementTree.ElementTree(root).write(sys.argv[sys.argv.index("--junitxml") + 1], encoding="utf-8", xml_declaration=True)


if __name__ == "__main__":
    sys.exit(main())
