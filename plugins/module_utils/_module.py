# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one way from an AnsibleModule to an operation and back."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from . import _argspec
from ._argspec import ArgumentSpec
from ._cluster.client import Cluster, Read
from ._cluster.connect import open_cluster
from ._cluster.converge import Outcome, converge, owned
from ._cluster.render import load, opened, render
from ._cluster.wait import Deadline
from ._errors import Fault, FaultsError, NetguardError
from ._facts.model import Facts
from ._facts.result import from_result
from ._manifests.gluetun_faults import declared
from ._manifests.model import Desired, Live, Manifest
from ._topology.model import App, Topology
from ._topology.parse import parse
from ._yaml import yaml


@dataclass
class Context:
    """What an operation works with. `cluster` is None when rendering: then nothing may be asked."""

    params: Mapping[str, Any]
    check_mode: bool
    topology: Topology
    cluster: Cluster | None
    started: float = field(default_factory=time.monotonic)
    warnings: list[str] = field(default_factory=list)
    diffs: list[dict[str, Any]] = field(default_factory=list)
    manifests: list[Manifest] = field(default_factory=list)
    _facts: Facts | None = None
    _given: Live | None = None
    _deadline: Deadline | None = None

    @property
    def state(self) -> str:
        """present | absent | rendered."""
        return str(self.params.get("state") or "present")

    @property
    def rendered(self) -> bool:
        return self.state == "rendered"

    @property
    def online(self) -> Cluster:
        """The cluster; for code that never runs when rendering."""
        if self.cluster is None:
            raise NetguardError("this needs a cluster, and state: rendered asks none")
        return self.cluster

    def facts(self) -> Facts:
        """The option `facts`, else what is discovered now. Raises NetguardError naming what settles each doubt."""
        if self._facts is None:
            given = self.params.get("facts")
            if given:
                self._facts = from_result(given)
            elif self.cluster is None:
                raise NetguardError("facts are needed when rendering: pass the saved result of homelab.netguard.cluster_cidrs")
            else:
                # not above: compiling all of discovery is a tenth of the start of a module, and modules are mostly given the facts
                from ._facts.discover import discover

                self._facts = from_result(discover(self.cluster))
        return self._facts

    def read(self, reads: Iterable[Read]) -> Live:
        """A snapshot of the cluster; when rendering, of the manifests in the option `live`."""
        if self.cluster is not None:
            return self.cluster.read(reads)
        if self._given is None:
            found: list[Manifest] = []
            for position, entry in enumerate(self.params.get("live") or []):
                found += load(entry) if isinstance(entry, str) else opened(entry, f"live[{position}]")
            self._given = Live(tuple(found))
        return self._given

    def chosen(self, apps: Iterable[App]) -> tuple[App, ...]:
        """Those of the apps that the option `only` names; all when it is empty."""
        names = set(self.only)
        return tuple(app for app in apps if not names or app.name in names or app.key in names)

    @property
    def only(self) -> tuple[str, ...]:
        return tuple(self.params.get("only") or ())

    @property
    def prune(self) -> bool:
        """Whether what is no longer wanted goes: never with a subset."""
        return bool(self.params.get("prune", True)) and not self.only

    def converge(self, desired: Desired, *, part: str, prune: bool | None = None, live: Live | None = None) -> Outcome:
        """Plans and writes (or renders) one part; diffs and manifests go into the result of the module.

        `live`: a snapshot since which nothing of the part was written.
        """
        if self.cluster is None:
            outcome = render(
                desired,
                instance=self.topology.instance,
                part=part,
                dest=str(self.params.get("dest") or ""),
                check_mode=self.check_mode,
                prune=self.prune if prune is None else prune,
            )
        else:
            outcome = converge(
                self.cluster,
                desired,
                instance=self.topology.instance,
                part=part,
                prune=self.prune if prune is None else prune,
                live=live,
            )
            outcome.manifests = [item for item in desired.objects if item["kind"] != "Secret"]
        self.diffs += outcome.diff()
        self.manifests += outcome.manifests
        return outcome

    def refuse_empty(self, what: str, part: str) -> None:
        """An empty list while objects of ours exist is a mistyped variable more often than a wish: state absent says it.

        `what` is the option (apps, gateways). Raises NetguardError.
        """
        if self.cluster is None or self.state != "present":
            return
        there = [key for key in owned(self.cluster, self.topology.instance, part) if key.kind != "Namespace"]
        if there:
            listed = ", ".join(str(key) for key in there[:5]) + (", ..." if len(there) > 5 else "")
            raise NetguardError(
                f"{what} is empty, but {len(there)} objects of the instance {self.topology.instance} exist ({listed}). Nothing was "
                f"changed. Give the list, name another instance, or set state: absent to remove them."
            )

    @property
    def waits(self) -> bool:
        """Nothing waits in check mode or when rendering."""
        return bool(self.params.get("wait", True)) and not self.check_mode and self.cluster is not None

    @property
    def deadline(self) -> Deadline:
        """One for everything that the task waits for."""
        if self._deadline is None:
            self._deadline = Deadline(float(self.params.get("wait_timeout") or 300))
        return self._deadline

    def warn(self, text: str) -> None:
        """Only for what the user can act on now."""
        if text not in self.warnings:
            self.warnings.append(text)


Operation = Callable[[Context], dict[str, Any]]


def run(spec: ArgumentSpec, operation: Operation) -> None:
    """Runs an operation as an Ansible module: the only place where its errors become a failed task."""
    try:
        options = _argspec.auth().merge(spec)
        missing = "" if yaml is not None else missing_required_lib("PyYAML")
    except ImportError:
        options, missing = spec, missing_required_lib("ansible_collections.kubernetes.core (the collection kubernetes.core)")
    module = AnsibleModule(supports_check_mode=True, **options.arguments())
    if missing:
        module.fail_json(msg=missing)
    # One short process that keeps nearly all it reads to its end: looking for cycles in that takes a sixth of a large run.
    gc.disable()
    try:
        _answer(module, operation)
    finally:
        gc.enable()


def _answer(module: AnsibleModule, operation: Operation) -> None:
    started = time.monotonic()
    context: Context | None = None
    try:
        context = _context(module)
        result = operation(context)
    except NetguardError as error:
        details = {key: value for key, value in error.details.items() if key not in ("msg", "failed")}
        if context is not None and context.cluster is not None and "cluster" not in details:
            details["cluster"] = _identity(context.cluster)
        module.fail_json(msg=str(error), **details)
        return
    for text in context.warnings:
        module.warn(text)
    result.setdefault("changed", False)
    result["duration"] = round(time.monotonic() - started, 3)
    if context.cluster is not None:
        result.setdefault("cluster", context.cluster.identity())
    if "return_manifests" in context.params and (
        context.params["return_manifests"] or (context.rendered and not context.params.get("dest"))
    ):
        result["manifests"] = context.manifests
    if module._diff and context.diffs:
        result["diff"] = context.diffs
    module.exit_json(**result)


def _identity(cluster: Cluster) -> dict[str, str]:
    try:
        return cluster.identity()
    except NetguardError:
        return {"id": "", "host": cluster.transport.host, "context": ""}


def _context(module: AnsibleModule) -> Context:
    params = module.params
    topology = parse(
        params.get("instance") or "home",
        params.get("gateways"),
        params.get("apps"),
        params.get("platform"),
        params.get("namespaces"),
        # vpn_gateway judges its gateways itself, together with their credentials
        judge=None if params.get("state") == "absent" or "credentials" in params else declared,
    )
    _check_only(params.get("only") or [], topology)
    cluster = None
    from_files = bool(params.get("manifests")) and bool(params.get("facts"))
    if params.get("state") != "rendered" and not from_files:
        cluster = _open(module)
        cluster.expect(str(params.get("expected_cluster") or ""))
    elif params.get("dest") is not None and not params["dest"]:
        raise NetguardError("dest is empty: name a folder, or leave it out to get the manifests in the result")
    return Context(params=params, check_mode=module.check_mode, topology=topology, cluster=cluster)


def _check_only(only: list[str], topology: Topology) -> None:
    names = {app.name for app in topology.apps} | {app.key for app in topology.apps}
    unknown = [Fault(f"only[{position}]", f'no app "{name}"') for position, name in enumerate(only) if name not in names]
    if unknown:
        raise FaultsError(unknown)


def _open(module: AnsibleModule) -> Cluster:
    from ansible_collections.kubernetes.core.plugins.module_utils.k8s.core import AnsibleK8SModule

    # The wrapper carries the checks of kubernetes.core (a missing or too old client library) to our module.
    wrapper = AnsibleK8SModule(module_class=lambda **_arguments: module, argument_spec={})
    return open_cluster(wrapper, check_mode=module.check_mode)
