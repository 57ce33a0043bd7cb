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

ROOT = Path(__file__).resolve().parents[2]
TOOLS = (
    *("ip", "bridge", "tc", "nft", "iptables", "ip6tables", "iptables-restore", "arptables-nft", "conntrack"),
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
    sys.path.insert(0, str(ROOT))
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
    if os.geteuid() != 0:
        unshare[1:1] = ["--user", "--map-root-user"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        print(
            "packets: needs root, or user namespaces (sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces)",
            file=sys.stderr,
        )
        return 1
    with tempfile.TemporaryDirectory(prefix="netguard-packets-") as folder:
        links = Path(folder) / "path" / "ansible_collections" / "homelab"
        links.mkdir(parents=True)
        (links / "netguard").symlink_to(ROOT)
        environment = {
            **os.environ,
            "NETGUARD_LAB": "inside",
            "NETGUARD_LAB_FOLDER": folder,
            "PYTHONPATH": os.pathsep.join(filter(None, (str(links.parent.parent), os.environ.get("PYTHONPATH", "")))),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return subprocess.run([*unshare, sys.executable, __file__, *sys.argv[1:]], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
