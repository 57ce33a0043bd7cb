# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Molecule's scenarios on one kind cluster (`make molecule`); names of scenarios as arguments, else all.

NETGUARD_KIND says how the cluster comes about: `public` (images are pulled), `packages` (images are built here, root), or unset:
packages where no image can be pulled. NETGUARD_KIND_KEEP=1 leaves the cluster for a look.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import binaries, images, kind_cluster

ROOT = Path(__file__).resolve().parent.parent.parent
#: Scenarios that need the lab's VPN peer, which only the cluster from packages has.
LAB = ("default",)


def scenarios() -> list[str]:
    return sorted(path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml"))


def mode() -> tuple[str, str]:
    """How the cluster comes about, and why."""
    chosen = os.environ.get("NETGUARD_KIND", "")
    if chosen in ("public", "packages"):
        return chosen, "NETGUARD_KIND says so"
    if not images.missing():
        return "packages", "root, Docker and debootstrap are here, so that the lab's VPN peer can run as well"
    return "public", images.missing()


def environment(kubeconfig: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "K8S_AUTH_", "MOLECULE_"))}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}",
        "KUBECONFIG": str(kubeconfig),
        "K8S_AUTH_KUBECONFIG": str(kubeconfig),
        "MOLECULE_GLOB": "molecule/*/molecule.yml",
        "NETGUARD_CLIENT_KEY": kind_cluster.CLIENT_KEY,
        "NETGUARD_SERVER_PUBLIC": kind_cluster.public_key(kind_cluster.SERVER_KEY),
    }


def main() -> int:
    way, why = mode()
    chosen = sys.argv[1:] or [name for name in scenarios() if way == "packages" or name not in LAB]
    unknown = [name for name in chosen if name not in scenarios()]
    if unknown:
        print(f"molecule: no scenario {', '.join(unknown)}; there are: {', '.join(scenarios())}")
        return 2
    print(f"molecule: images: {way} ({why})", flush=True)
    outcome: list[tuple[str, str]] = []
    try:
        with tempfile.TemporaryDirectory(prefix="netguard-kind-") as folder:
            kubeconfig = Path(folder) / "kubeconfig"
            kind_cluster.up(kubeconfig, packages=way == "packages")
            for name in chosen:
                started = time.monotonic()
                command = [str(Path(sys.executable).parent / "molecule"), "test", "--scenario-name", name]
                done = subprocess.run(command, cwd=ROOT, env=environment(kubeconfig), check=False)
                outcome.append((name, "ok" if done.returncode == 0 else "FAILED"))
                print(f"molecule: {name} {outcome[-1][1]} in {time.monotonic() - started:.0f} s", flush=True)
                if done.returncode:
                    evidence = ROOT / "build" / "molecule" / name
                    kind_cluster.collect(evidence)
                    print(f"molecule: logs, rules and events are in {evidence}", flush=True)
    except (images.ImageError, binaries.BuildError) as error:
        print(f"molecule: {error}")
        return 1
    finally:
        if not os.environ.get("NETGUARD_KIND_KEEP"):
            kind_cluster.down()
    failed = sum(text == "FAILED" for _name, text in outcome)
    print(f"{len(outcome) - failed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
