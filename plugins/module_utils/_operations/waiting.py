# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What waits for a namespace that does not exist yet, such as one that a GitOps tool is about to create."""

from __future__ import annotations

from dataclasses import replace

from .._cluster.outcome import Action
from .._manifests.model import Desired, Key, Live, Manifest
from .._module import Context


def split(context: Context, desired: Desired, live: Live) -> tuple[Desired, list[Action]]:
    """What can be written now, and the rest as actions of the result.

    Nothing waits where manifests are rendered, for a cluster that may have the namespace by then; nor where namespaces may not be
    listed, since an empty list says nothing there.
    """

    def waits(item: Manifest) -> bool:
        namespace = Key.of(item).namespace
        return bool(namespace) and live.get("Namespace", "", namespace) is None

    if context.rendered or "Namespace" in live.unreadable:
        return desired, []
    waves = tuple(tuple(item for item in wave if not waits(item)) for wave in desired.waves)
    actions = [Action(Key.of(item), "waiting") for item in desired.objects if waits(item)]
    return replace(desired, waves=tuple(wave for wave in waves if wave)), actions
