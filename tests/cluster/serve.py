# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A disposable control plane to try things on (`make server`)."""

from __future__ import annotations

import signal
import sys

from .binaries import BuildError
from .control_plane import ControlPlane


def main() -> int:
    try:
        with ControlPlane() as plane:
            plane.nodes()
            print(f"export KUBECONFIG={plane.kubeconfig}\nkubectl: {plane.kubectl}\nCtrl-C ends and removes it.", flush=True)
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            signal.pause()
    except BuildError as error:
        print(f"build: {error}")
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
