# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`make bench ARGS="main_job 200"`: runs one benchmark, or all with their default sizes."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def main() -> int:
    names = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))
    chosen = sys.argv[1:]
    if chosen and chosen[0] not in names:
        print(f"there are: {', '.join(names)}")
        return 2
    for name in chosen[:1] or names:
        print(f"== {name} ==", flush=True)
        module = importlib.import_module(f"{__package__}.{name}")
        code: int = module.main(chosen[1:])
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
