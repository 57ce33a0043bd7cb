# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scenario `examples`: an example's list on real pods, where packets say whether the audit is right, and the list read by hand.

`prepare FOLDER` makes the pods and sees that each answers each; `verify FOLDER` asks again and compares; `clean` removes the pods.
In the folder are `list.json` (apps, platform, namespaces) and `audit.json` (facts and the result of policy_audit).
"""

from __future__ import annotations

import ipaddress
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.homelab.netguard.plugins.module_utils._audit.engine import (
    ALLOWED,
    DENIED,
    EGRESS,
    INGRESS,
    UNDECIDED,
    Engine,
    PairVerdict,
    verdict,
)
from ansible_collections.homelab.netguard.plugins.module_utils._audit.explain import explain
from ansible_collections.homelab.netguard.plugins.module_utils._audit.matrix import matrix
from ansible_collections.homelab.netguard.plugins.module_utils._audit.profiles import of as profiles_of
from ansible_collections.homelab.netguard.plugins.module_utils._audit.world import World
from ansible_collections.homelab.netguard.plugins.module_utils._facts.result import from_result
from ansible_collections.homelab.netguard.plugins.module_utils._manifests.model import Live
from ansible_collections.homelab.netguard.plugins.module_utils._operations.audit import reads
from ansible_collections.homelab.netguard.plugins.module_utils._topology.parse import parse

from .example_by_hand import ByHand
from .example_flows import Cluster, Flow, Flows, Source, cluster
from .example_pods import LABEL, OUTSIDE, VALUE, objects, workloads
from .field import FieldError, fault, get, kubectl, program, say, wait_for

#: Pods that ask at the same time: each waits mostly, and two processors have other things to do.
AT_ONCE = 6
#: Seconds for an answer; whoever should have answered and did not is asked again with more of them.
PATIENCE, MORE_PATIENCE = 2.5, 8.0
PACKETS = {True: "answered", False: "silent"}


@dataclass
class Line:
    """One line of the table."""

    tried: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    answered: int = 0
    wrong: int = 0
    declared: Counter[bool] = field(default_factory=Counter)
    undeclared: Counter[bool] = field(default_factory=Counter)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


# -- asking ---------------------------------------------------------------------------------------------------------------------


def ask(source: Source, flows: list[Flow], patience: float) -> dict[int, str]:
    """What was said, by the place of the flow in the list; who was silent is missing."""
    targets = [[str(number), flow.kind, flow.host, flow.port[1]] for number, flow in enumerate(flows)]
    words = ["exec", "-i", "-n", source.namespace, source.pod, "-c", source.container, "--", *source.words]
    said = kubectl(*words, text=json.dumps({"patience": patience, "targets": targets}), timeout=patience + 60)
    try:
        return {int(key): answer for key, answer in json.loads(said).items()}
    except ValueError as error:
        raise FieldError(f"{source.label} says: {said[-600:]}") from error


def good(flow: Flow, said: str | None) -> bool:
    """Whether the one who was asked has answered, and nobody else."""
    return said is not None and not said.startswith("!") and (flow.says is None or said == flow.says)


def answers(flows: Iterable[Flow], wanted: dict[Flow, bool]) -> dict[Flow, bool]:
    """Asks everything; what should have answered and did not is asked twice more."""
    by_source: dict[Source, list[Flow]] = defaultdict(list)
    for flow in flows:
        by_source[flow.source].append(flow)
    found: dict[Flow, bool] = {}

    def one(source: Source) -> None:
        left = by_source[source]
        for patience in (PATIENCE, MORE_PATIENCE, MORE_PATIENCE):
            said = ask(source, left, patience)
            for number, flow in enumerate(left):
                found[flow] = good(flow, said.get(number))
            left = [flow for flow in left if wanted[flow] and not found[flow]]
            if not left:
                return

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, by_source))
    return found


# -- what is there --------------------------------------------------------------------------------------------------------------


def there(declared: dict[str, Any]) -> Cluster:
    nodes = {
        one["metadata"]["name"]: next(item["address"] for item in one["status"]["addresses"] if item["type"] == "InternalIP")
        for one in get("nodes")["items"]
    }
    served = get("endpointslices", "-n", "default", "kubernetes")
    return cluster(
        get("pods", "-A")["items"],
        workloads(declared),
        nodes,
        api=(served["endpoints"][0]["addresses"][0], served["ports"][0]["port"]),
        api_service=get("service", "-n", "default", "kubernetes")["spec"]["clusterIP"],
        dns_service=get("service", "-n", "kube-system", "kube-dns")["spec"]["clusterIP"],
    )


def prepare(folder: Path) -> int:
    """Makes the pods, and shows that without policies everybody is answered by everybody."""
    declared = read_json(folder / "list.json")
    begun = time.monotonic()
    made = objects(declared)
    kubectl("apply", "--server-side", "-f", "-", text="\n---\n".join(json.dumps(item) for item in made))
    for item in made:
        if item["kind"] == "CronJob":
            name, namespace = item["metadata"]["name"], item["metadata"]["namespace"]
            kubectl("create", "job", "-n", namespace, f"{name}-now", f"--from=cronjob/{name}")
    wait_for("every pod is ready", lambda: there(declared), timeout=300, pause=2)
    say(f"{len(there(declared).pods)} pods after {time.monotonic() - begun:.0f} s")
    begun = time.monotonic()
    flows = Flows(there(declared), ByHand(declared)).all()
    found = answers(flows, dict.fromkeys(flows, True))
    silent = [str(flow) for flow in flows if not found[flow]]
    told = f"before any policy {len(flows) - len(silent)} of {len(flows)} answered, {time.monotonic() - begun:.0f} s"
    (folder / "control.txt").write_text(told)
    say(told)
    if silent:
        raise FieldError("without any policy these were not answered:\n" + "\n".join(silent[:60]))
    return 0


# -- what the audit says --------------------------------------------------------------------------------------------------------


class Audit:
    """The engine over what the cluster has now, as policy_audit reads it."""

    def __init__(self, declared: dict[str, Any], result: dict[str, Any]) -> None:
        facts = from_result(result["facts"])
        topology = parse("home", None, declared["apps"], declared["platform"], declared["namespaces"])
        live = Live(tuple(item for one in reads(facts) for item in _list(one.api_version, one.kind)))
        self.engine = Engine(World(topology, facts, live), profiles_of(facts.cni)[0])
        self.index = {one.name: number for number, one in enumerate(self.engine.world.endpoints)}
        self.same = matrix(self.engine) == result["matrix"]
        self.told: dict[tuple[str, str, str], dict[str, Any]] = {}

    def says(self, flow: Flow) -> str:
        protocol, port = flow.seen or flow.port
        return verdict(self._verdict(flow), protocol.upper(), port)

    def _verdict(self, flow: Flow) -> PairVerdict:
        engine, source = self.engine, flow.source.of
        if flow.own_node:
            return engine.pair(self.index[f"{OUTSIDE}/DaemonSet/outside"], self.index[_required(flow).key])
        if source is not None and flow.to is not None:
            return engine.pair(self.index[source.key], self.index[flow.to.key])
        subject = source or _required(flow)
        side = engine.side(self.index[subject.key], EGRESS if source is not None else INGRESS)
        address = ipaddress.ip_address(flow.policy)
        return PairVerdict(side.sure.address(address), side.possible.address(address))

    def explained(self, flow: Flow) -> dict[str, Any]:
        """The module's own answer about a flow, with its steps."""
        protocol, port = flow.seen or flow.port
        source = flow.source.of.key if flow.source.of is not None else flow.policy
        destination = flow.to.key if flow.to is not None else flow.policy
        text = "icmp" if protocol == "icmp" else f"{port}/{protocol}"
        key = (source, destination, text)
        if key not in self.told:
            self.told[key] = explain(self.engine, {"source": source, "destination": destination, "port": text, "pod_port": True})
        return self.told[key]


def _required(flow: Flow) -> Any:
    if flow.to is None:
        raise FieldError(f"{flow}: neither side is a pod")
    return flow.to


def _list(api: str, kind: str) -> list[dict[str, Any]]:
    group, _slash, version = api.rpartition("/")
    name = f"{kind}.{version}.{group}" if group else kind
    said = kubectl("get", name, "-A", "--output", "json", check=False)
    if "the server doesn't have a resource type" in said:
        return []
    begin = said.find("{")
    if begin < 0:
        raise FieldError(f"kubectl get {name}: {said[-300:]}")
    # what kubectl says beside it, such as that it waited, is in the same output
    found: list[dict[str, Any]] = json.JSONDecoder().raw_decode(said[begin:])[0]["items"]
    return found


# -- comparing ------------------------------------------------------------------------------------------------------------------


def verify(folder: Path) -> int:
    declared, result = read_json(folder / "list.json"), read_json(folder / "audit.json")
    audit = Audit(declared, result)
    flows = Flows(there(declared), ByHand(declared)).all()
    said = {flow: audit.says(flow) for flow in flows}
    begun = time.monotonic()
    found = answers(flows, {flow: said[flow] == ALLOWED or flow.by_hand is True for flow in flows})
    seconds = time.monotonic() - begun
    faults = [] if audit.same else ["the matrix of policy_audit is another one than the engine's over the same cluster"]
    table: dict[str, Line] = defaultdict(Line)
    for flow in flows:
        line, answered = table[flow.group], found[flow]
        line.tried += 1
        line.verdicts[said[flow]] += 1
        line.answered += answered
        if said[flow] != UNDECIDED and answered != (said[flow] == ALLOWED):
            line.wrong += 1
            faults.append(f"{flow}: {said[flow]}, and the packets were {PACKETS[answered]}")
            faults += [f"    {words}" for words in audit.explained(flow)["words"]]
        if flow.by_hand is not None:
            (line.declared if flow.by_hand else line.undeclared)[answered] += 1
            if answered != flow.by_hand:
                faults.append(f"{flow}: {'declared' if flow.by_hand else 'not declared'}, and the packets were {PACKETS[answered]}")
        if not flow.own_node and audit.explained(flow)["verdict"] != said[flow]:
            faults.append(f"{flow}: the audit says {said[flow]}, and explains {audit.explained(flow)['verdict']}")
    findings = [item for item in result["findings"] if item["severity"] == "error"]
    faults += [f"finding: {item}" for item in findings]
    text = report(table, Counter(item["severity"] for item in result["findings"]), seconds)
    text += f"; {(folder / 'control.txt').read_text()}"
    faults_text = "".join(f"\n{line}" if line.startswith(" ") else f"\n- {line}" for line in faults)
    (folder / "table.md").write_text(f"{text}\n{faults_text}\n")
    (folder / "flows.tsv").write_text(
        "".join(f"{flow.group}\t{flow}\t{said[flow]}\t{flow.by_hand}\t{PACKETS[found[flow]]}\n" for flow in flows)
    )
    print(text, flush=True)
    for line in faults:
        (say if line.startswith(" ") else fault)(line)
    return int(bool(faults))


def report(table: dict[str, Line], findings: Counter[str], seconds: float) -> str:
    head = ("flows", "tried", "allowed", "denied", "left open", "answered", "disagree", "declared, work", "undeclared, closed")
    rows = []
    for group, line in table.items():
        verdicts = [line.verdicts[word] for word in (ALLOWED, DENIED, UNDECIDED)]
        declared = f"{line.declared[True]} of {line.declared.total()}"
        closed = f"{line.undeclared[False]} of {line.undeclared.total()}"
        rows.append((group, line.tried, *verdicts, line.answered, line.wrong, declared, closed))
    lines = [" | ".join(map(str, row)) for row in (head, ["---"] * len(head), *rows)]
    total = f"{sum(line.tried for line in table.values())} flows, {sum(line.wrong for line in table.values())} disagreements"
    told = ", ".join(f"{count} {name}" for name, count in sorted(findings.items()))
    return "\n".join(f"| {line} |" for line in lines) + f"\n\n{total}, {seconds:.0f} s; findings of the audit: {told or 'none'}"


def clean() -> int:
    """Removes what `prepare` made."""
    chosen = f"{LABEL}={VALUE}"
    kinds = "deployments,statefulsets,daemonsets,cronjobs,services,configmaps"
    for namespace in ("default", "kube-system"):
        kubectl("delete", kinds, "-n", namespace, "-l", chosen, "--ignore-not-found")
    kubectl("delete", "namespaces", "-l", chosen, "--ignore-not-found", "--wait=true", timeout=240)
    return 0


def main() -> int:
    command = sys.argv[1]
    if command == "clean":
        return clean()
    return (prepare if command == "prepare" else verify)(Path(sys.argv[2]))


if __name__ == "__main__":
    program(main)
