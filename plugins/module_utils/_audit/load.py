# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Manifests from YAML text, for people who may have written anything: each fault is a finding, never a traceback.

Duplicate keys are found (most loaders keep the last one silently), aliases may neither turn in circles nor grow without end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .._errors import NetguardError
from .._manifests.model import Manifest
from .._yaml import yaml
from .findings import ERROR, WARNING, Finding

#: Bytes of one file. Policies of a large cluster are a tenth of this.
LARGEST = 64 * 1024 * 1024
#: Nodes of one document after aliases are written out.
MOST_NODES = 5_000_000
DEEPEST = 200


def load(path: str) -> tuple[list[Manifest], list[Finding]]:
    """Objects of a file, or of every *.yaml, *.yml and *.json of a folder. Raises NetguardError when there is none to read."""
    root = Path(path)
    if root.is_dir():
        files = sorted(item for pattern in ("*.yaml", "*.yml", "*.json") for item in root.rglob(pattern) if item.is_file())
    else:
        files = [root]
    objects: list[Manifest] = []
    findings: list[Finding] = []
    for file in files:
        try:
            if file.stat().st_size > LARGEST:
                raise NetguardError(f"{file} is larger than {LARGEST // 2**20} MiB: split it")
            text = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise NetguardError(f"{file} cannot be read: {error}") from None
        found, said = parse(text, str(file))
        objects += found
        findings += said
    return objects, findings


def parse(text: str, where: str) -> tuple[list[Manifest], list[Finding]]:
    """Objects of one text with one or more documents."""
    findings: list[Finding] = []
    objects: list[Manifest] = []
    if _nesting(text) > DEEPEST:
        return [], [_fault(where, "it is nested too deeply to be a manifest")]
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            faults = list(_faults(node, where))
            findings += faults
            if any(fault.code == "unreadable" for fault in faults):
                continue
            document = loader.construct_document(node)
            found, said = objects_of(document, where)
            objects += found
            findings += said
    except yaml.YAMLError as error:
        findings.append(_fault(where, f"is no YAML: {' '.join(str(error).split())[:300]}"))
    except (RecursionError, ValueError, TypeError, OverflowError) as error:
        findings.append(_fault(where, f"cannot be read: {str(error)[:200]}"))
    finally:
        loader.dispose()
    return objects, findings


def _nesting(text: str) -> int:
    """An upper bound of flow nesting: the parser's own recursion would end the process."""
    depth = deepest = 0
    for character in text if "[[[" in text or "{{{" in text or "[{" in text or "{[" in text else "":
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth = max(0, depth - 1)
    return deepest


def _fault(where: str, message: str) -> Finding:
    return Finding("unreadable", ERROR, where, message, "correct the file")


def _faults(root: Any, where: str) -> Iterator[Finding]:
    """Duplicate keys, circles and growth, told from the nodes before anything is built of them."""
    sizes: dict[int, int] = {}
    active: set[int] = set()
    reported: list[Finding] = []
    # an explicit stack: depth is the user's
    stack: list[tuple[Any, bool]] = [(root, False)]
    while stack:
        node, done = stack.pop()
        children = _children(node)
        if done:
            active.discard(id(node))
            sizes[id(node)] = 1 + sum(sizes.get(id(child), 1) for child in children)
            if sizes[id(node)] > MOST_NODES:
                yield _fault(where, f"its aliases write out to more than {MOST_NODES} values")
                return
            continue
        if id(node) in active:
            yield _fault(where, f"line {node.start_mark.line + 1}: an alias leads back to what contains it")
            return
        if id(node) in sizes:
            continue
        active.add(id(node))
        stack.append((node, True))
        for child in children:
            if id(child) in active:
                yield _fault(where, f"line {child.start_mark.line + 1}: an alias leads back to what contains it")
                return
            stack.append((child, False))
        if len(stack) > MOST_NODES:
            yield _fault(where, "it is too large")
            return
        reported += _duplicates(node, where)
    yield from reported


def _children(node: Any) -> list[Any]:
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return []


def _duplicates(node: Any, where: str) -> Iterator[Finding]:
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[tuple[str, str], int] = {}
    for key, _value in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        name = (key.tag, key.value)
        if name in seen:
            message = (
                f"line {key.start_mark.line + 1}: the key {key.value!r} stands twice (before: line {seen[name]}); the last one wins"
            )
            mend = "one of them is lost: a list item may lack its dash"
            yield Finding("duplicate-key", ERROR, f"{where}:{key.start_mark.line + 1}", message, mend)
        seen[name] = key.start_mark.line + 1


def objects_of(document: Any, where: str) -> tuple[list[Manifest], list[Finding]]:
    """The objects of one document: itself, or the items of a list."""
    if document is None:
        return [], []
    if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
        return [], [Finding("not-an-object", WARNING, where, "a document is no Kubernetes object: left out")]
    if document["kind"].endswith("List") and isinstance(document.get("items"), list):
        objects: list[Manifest] = []
        findings: list[Finding] = []
        for entry in document["items"]:
            found, said = objects_of(entry, where)
            objects += found
            findings += said
        return objects, findings
    meta = document.get("metadata")
    if not isinstance(meta, dict) or not isinstance(meta.get("name"), str) or not isinstance(document.get("apiVersion"), str):
        message = f"a {document['kind'][:60]} without apiVersion or metadata.name: left out"
        return [], [Finding("not-an-object", ERROR if "Policy" in document["kind"] else WARNING, where, message)]
    namespace, labels = meta.get("namespace"), meta.get("labels")
    if (namespace is not None and not isinstance(namespace, str)) or (labels is not None and not isinstance(labels, dict)):
        return [], [
            Finding("not-an-object", ERROR, where, f"the metadata of {document['kind'][:60]} {meta['name'][:80]} is malformed")
        ]
    if document["kind"] not in CLUSTER_SCOPED and namespace is None:
        document = {**document, "metadata": {**meta, "namespace": "default"}}
    return [document], []


CLUSTER_SCOPED = frozenset(
    (
        "Namespace",
        "Node",
        "Tier",
        "GlobalNetworkPolicy",
        "GlobalNetworkSet",
        "ClusterNetworkPolicy",
        "AdminNetworkPolicy",
        "BaselineAdminNetworkPolicy",
        "CiliumClusterwideNetworkPolicy",
    )
)


def usable(objects: Iterable[Manifest]) -> tuple[list[Manifest], list[Finding]]:
    """Objects whose workload parts have the shapes that the engine walks; others are left out with a finding."""
    good: list[Manifest] = []
    findings: list[Finding] = []
    for item in objects:
        fault = _shape(item)
        if fault:
            where = f"{item['kind']} {item['metadata'].get('namespace') or ''}/{item['metadata']['name']}"
            findings.append(Finding("malformed", ERROR, where, fault, "correct the manifest"))
        else:
            good.append(item)
    return good, findings


#: Where mappings and lists must stand in what the engine reads beside policies.
_MAPPINGS = ("spec", "spec.template", "spec.template.spec", "spec.template.metadata", "spec.jobTemplate", "spec.selector", "status")


def _shape(item: Manifest) -> str:
    if "Policy" in item["kind"]:
        return ""  # the readers of policies judge these themselves
    for path in _MAPPINGS:
        value: Any = item
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None and not isinstance(value, dict):
            return f"{path} is no mapping"
    spec = item.get("spec") or {}
    for name in ("ports", "rules"):
        if not _mappings(spec.get(name)):
            return f"spec.{name} is no list of mappings"
    pod: Any = item if item["kind"] == "Pod" else (spec.get("template") or {})
    if item["kind"] == "CronJob":
        for part in ("jobTemplate", "spec", "template"):
            holder = item["spec"] if part == "jobTemplate" and isinstance(item.get("spec"), dict) else pod
            pod = holder.get(part) if isinstance(holder, dict) else {}
            pod = pod if isinstance(pod, dict) else {}
    inner = pod.get("spec") or {}
    for name in ("containers", "initContainers"):
        listed = inner.get(name) if isinstance(inner, dict) else None
        if not _mappings(listed) or any(not _mappings(one.get("ports")) for one in listed or []):
            return f"{name} is no list of containers"
    labels = (pod.get("metadata") or {}).get("labels") if isinstance(pod.get("metadata") or {}, dict) else ""
    return "" if labels is None or isinstance(labels, dict) else "labels of the pods are no mapping"


def _mappings(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(item, dict) for item in value))
