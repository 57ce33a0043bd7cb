# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes what every writer returns into the RETURN block of each writer, behind a mark; Ansible has fragments for options alone.

With --check it writes nothing and fails when a module differs.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MARK = "# What every writer returns, by tools/return_docs.py:\n"
END = '"""\n\nfrom ansible_collections'
COMMON = """\
objects:
  description:
    - Everything that was not as it should be, with C(action) V(created), V(changed), V(repaired) (somebody had changed it by
      hand), V(deleted), V(kept) (a namespace of ours in which others live) or V(waiting).
    - A Secret shows its name and its keys.
  returned: always
  type: list
  elements: dict
  sample:
    - api_version: networking.k8s.io/v1
      kind: NetworkPolicy
      namespace: media
      name: netguard-killswitch-qbittorrent
      action: repaired
patches:
  description:
    - Changes of objects that are not ours, such as workloads and Pod Security labels of namespaces, with C(target), C(patch)
      and C(reason). Empty for a module that changes none.
  returned: always
  type: list
  elements: dict
counts:
  description: Number of objects by what happened to them, V(unchanged) among them.
  returned: always
  type: dict
  sample: {created: 4, unchanged: 12}
cluster:
  description: The cluster that was asked, with C(id) (uid of the namespace kube-system), C(host) and C(context).
  returned: when O(state) is not V(rendered)
  type: dict
duration:
  description: Seconds that the module took.
  returned: always
  type: float
manifests:
  description: The objects, without Secrets.
  returned: with O(return_manifests), or with O(state=rendered) and no O(dest)
  type: list
  elements: dict
"""


def writers() -> list[Path]:
    """Modules with the options of a writer."""
    files = sorted((ROOT / "plugins/modules").glob("*.py"))
    return [path for path in files if "- homelab.netguard._writer\n" in path.read_text()]


def rewritten(text: str) -> str:
    """The module with the common part at the end of its RETURN block. Raises ValueError where it has no mark."""
    before, mark, rest = text.partition(MARK)
    _old, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"no line {MARK.strip()!r} in its RETURN block")
    return before + mark + COMMON + end + after


def main() -> int:
    stale = []
    for path in writers():
        text = path.read_text()
        try:
            wanted = rewritten(text)
        except ValueError as error:
            print(f"{path.relative_to(ROOT)}: {error}")
            return 1
        if wanted != text:
            stale.append(str(path.relative_to(ROOT)))
            if "--check" not in sys.argv[1:]:
                path.write_text(wanted)
    if "--check" in sys.argv[1:] and stale:
        print(f"their RETURN differs from the common part: {', '.join(stale)}; run tools/return_docs.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
