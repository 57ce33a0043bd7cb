# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`ansible-test sanity` without containers (`make sanity`; names of tests as arguments run those alone).

ansible-test wants a real folder ansible_collections/homelab/netguard (no link), kubernetes.core beside it for the doc
fragments, and git to tell what belongs to the collection: so the tracked files are copied to a tree of their own. It also
wants a script that installs pip; where that cannot be fetched, a stand-in that calls ensurepip takes its place.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SITE = Path(sysconfig.get_paths()["purelib"])
BIN = Path(sys.executable).parent
STAND_IN = """import ensurepip, os, subprocess, sys
environment = dict(os.environ)  # ensurepip turns the machine's pip configuration off, for good
ensurepip.bootstrap()
words = [word for word in sys.argv[1:] if not word.startswith("--")]
sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", *words], env=environment) if words else 0)
"""


def copy(target: Path) -> None:
    """The tracked files, in a repository of their own."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    for command in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *command], cwd=target, check=True)


def stand_in(cache: Path) -> None:
    """Puts the pip installer that ansible-test would download where it looks first."""
    text = "".join(path.read_text() for path in (SITE / "ansible_test" / "_internal").rglob("python_requirements.py"))
    versions = set(re.findall(r"get-pip-([\d.]+)\.py", text)) | {"20.3.4", "24.2", "25.1"}
    for version in sorted(versions):
        # the name in the cache is not that of the download
        for name in (f"get-pip-{version}.py", f"get_pip_{version.replace('.', '_')}.py"):
            cache.mkdir(parents=True, exist_ok=True)
            if not (cache / name).exists():
                (cache / name).write_text(STAND_IN)


def main() -> int:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    with tempfile.TemporaryDirectory(prefix="netguard-sanity-") as folder:
        target = Path(folder) / "ansible_collections" / "homelab" / "netguard"
        copy(target)
        (target.parent.parent / "kubernetes").symlink_to(SITE / "ansible_collections" / "kubernetes", target_is_directory=True)
        home = Path(folder) / "home"
        stand_in(home / ".ansible" / "test" / "cache")
        environment = {**os.environ, "HOME": str(home), "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
        tests = [word for name in sys.argv[1:] for word in ("--test", name)]
        command = [str(BIN / "ansible-test"), "sanity", "--color", "no", "--requirements", "--venv", "--python", version, *tests]
        return subprocess.run(command, cwd=target, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
