# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ValidatingAdmissionPolicies that refuse what would undo a client's protection by accident.

One policy and binding per client (its pods and its workload) and one per instance (the policies themselves). A policy of
its own for each client keeps every expression small, whatever the number of clients, and lets one client be released
without touching another. Nothing protects these objects: this is a guard against accidents.

Facts that shaped the rules (measured on Kubernetes 1.34): `namespaceObject` is null in matchConditions; matching every
UPDATE of pods keeps Jobs from finishing, because the removal of their finalizer is refused; DELETE carries no field
manager, so a policy of ours is marked as released before it is deleted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .._facts.model import Facts
from .._topology.model import App, Topology
from . import admission_cel as cel
from . import names
from .client_edges import ClientEdges
from .client_guard import GUARD, guard_container
from .images import Images
from .killswitch_deny import CALICO_V1, CALICO_V3, client_labels, cluster_name
from .model import LABEL_INSTANCE, LABEL_PART, MANAGER, PREFIX, RELEASE, Desired, Live, Manifest, owner_labels
from .workloads import labels_of, template, template_of, workload

API = "admissionregistration.k8s.io/v1"
POLICY = "ValidatingAdmissionPolicy"
BINDING = "ValidatingAdmissionPolicyBinding"
PART = "admission"
#: General availability of ValidatingAdmissionPolicy.
SINCE = (1, 30)
#: On a client's admission policy: fingerprints of the guards that it accepts, for the next run.
GUARDS = PREFIX + "guards"
#: Parts whose network policies are protected, and that of the ConfigMaps with what the guard reads.
PROTECTED_PARTS = ("gateway", "killswitch", "client")

_RESOURCES = {
    "Deployment": ("apps", "deployments"),
    "StatefulSet": ("apps", "statefulsets"),
    "DaemonSet": ("apps", "daemonsets"),
    "CronJob": ("batch", "cronjobs"),
}


def supported(facts: Facts) -> bool:
    return facts.server_version >= SINCE


def build(
    topology: Topology,
    facts: Facts,
    live: Live,
    found: Iterable[ClientEdges],
    *,
    dialects: Sequence[str] = (),
    images: Images | None = None,
) -> Desired:
    """Policies, then their bindings: of the instance, and of each client."""
    clients = list(found)
    policies = [protection(topology, dialects)]
    bindings = [_binding(topology, policies[0])]
    for edges in clients:
        policy = client_policy(topology, facts, live, edges, images)
        policies.append(policy)
        bindings.append(_binding(topology, policy))
    return Desired((tuple(policies), tuple(bindings))) if clients else Desired()


def client_name(topology: Topology, app: App) -> str:
    """Name of the policy and of the binding of one client."""
    return cluster_name(topology.instance, app.namespace, app.name)


def protection_name(topology: Topology) -> str:
    return names.admission(topology, "policies")


def fingerprint(container: Mapping[str, Any]) -> Manifest:
    """What a guard is compared by."""
    added = ((container.get("securityContext") or {}).get("capabilities") or {}).get("add") or []
    return {
        "image": container.get("image", ""),
        "command": list(container.get("command") or []),
        "capabilities": sorted(added),
    }


def accepted_guards(topology: Topology, facts: Facts, live: Live, app: App, images: Images | None = None) -> list[Manifest]:
    """Fingerprints of the guard that this run wants, and of the one that the workload still has while it is replaced.

    The old one counts only if the last run accepted it: a guard that somebody changed by hand is not taken over.
    """
    wanted = fingerprint(guard_container(topology, app, facts, images))
    known = recorded(topology, live, app)
    found = template(app, live) or {}
    init = (found.get("spec") or {}).get("initContainers") or []
    current = [fingerprint(item) for item in init if item.get("name") == GUARD]
    return [wanted, *(item for item in current if item != wanted and item in known)]


def recorded(topology: Topology, live: Live, app: App) -> list[Manifest]:
    """Fingerprints of the guards that the client's live policy accepts, empty where there is none."""
    policy = live.get(POLICY, "", client_name(topology, app)) or {"metadata": {}}
    try:
        known = json.loads((policy["metadata"].get("annotations") or {}).get(GUARDS, "[]"))
    except ValueError:
        return []
    return known if isinstance(known, list) else []


def client_policy(topology: Topology, facts: Facts, live: Live, edges: ClientEdges, images: Images | None = None) -> Manifest:
    """Refuses pods of the client without the guard, and changes of its workload that take the guard away."""
    app = edges.app
    group, resource = _RESOURCES[app.kind]
    guards = accepted_guards(topology, facts, live, app, images)
    where = "spec.jobTemplate.spec.template" if app.kind == "CronJob" else "spec.template"
    name = client_name(topology, app)
    who = (
        f"{app.kind} {app.namespace}/{app.workload or app.name} is a VPN client of homelab.netguard (instance {topology.instance})"
    )
    out = (
        "To release the client, remove vpn from the app and run the site playbook,"
        f" or run: kubectl delete validatingadmissionpolicybinding {name}"
    )
    matches = {item: cel.selector_expression(edges.selector, item) for item in ("object", "oldObject")}
    return {
        "apiVersion": API,
        "kind": POLICY,
        "metadata": {
            "name": name,
            "labels": client_labels(topology, PART, app),
            "annotations": {GUARDS: json.dumps(guards, sort_keys=True, separators=(",", ":"))},
        },
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "matchPolicy": "Equivalent",
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": app.namespace}},
                "objectSelector": {},
                "resourceRules": [
                    _rule("", ["CREATE", "UPDATE"], ["pods", "pods/ephemeralcontainers"]),
                    _rule(group, ["UPDATE"], [resource], [app.workload or app.name]),
                ],
            },
            "matchConditions": [
                {
                    "name": "of-the-client",
                    # Of UPDATEs only those that lead out of the selection: matching the others keeps Jobs from finishing.
                    "expression": (
                        f"{cel.NO_POD} || (request.operation == 'CREATE' ? ({matches['object']}) :"
                        f" (({matches['oldObject']}) && ({cel.SUBRESOURCE} || !({matches['object']}))))"
                    ),
                }
            ],
            "variables": [
                {"name": "template", "expression": f"{cel.NO_POD} ? dyn(object).{where} : dyn(object)"},
                {"name": "before", "expression": f"{cel.NO_POD} ? dyn(oldObject).{where} : dyn(oldObject)"},
                {"name": "init", "expression": cel.init("template")},
                {"name": "initBefore", "expression": cel.init("before")},
                {"name": "guarded", "expression": f"size(variables.init) > 0 && ({cel.guard_expression(guards)})"},
                {"name": "newPod", "expression": "request.operation == 'CREATE'"},
                {
                    "name": "wasGuarded",
                    "expression": f"{cel.NO_POD} && variables.initBefore.exists(c, c.name == {cel.text(GUARD)})",
                },
            ],
            "validations": [
                _validation(
                    "!variables.newPod || variables.guarded",
                    f"{who}: a pod of it must start with the init container {GUARD} ({_images(guards)}). Run the site playbook to"
                    f" put it into the workload. {out}",
                ),
                _validation(
                    "!variables.wasGuarded || variables.guarded || variables.init == variables.initBefore",
                    f"{who}: this change takes the guard away from the front of its init containers, so it is refused and the"
                    " pods go on as they are. Keep it: use kubectl apply (--server-side puts own init containers behind it) in"
                    f" place of replace, rollout undo or a forced upgrade. {out}",
                ),
                _validation(
                    "!(variables.newPod || variables.wasGuarded) || !has(variables.template.spec.hostNetwork)"
                    " || !variables.template.spec.hostNetwork",
                    f"{who}: on the node's network nothing would hold it. {out}",
                ),
                _validation(
                    f"{cel.NO_POD} ? (!variables.wasGuarded || ({cel.selector_expression(edges.selector, 'variables.template')}))"
                    f" : (variables.newPod || {cel.SUBRESOURCE})",
                    f"{who}: without the labels {edges.selector} its pods would leave the kill switch. {out}",
                ),
                _validation(
                    f"!{cel.SUBRESOURCE} || {cel.EPHEMERAL}",
                    f"{who}: a debug container with added capabilities or privileges could undo the guard; use"
                    f" kubectl debug --profile=restricted or baseline. {out}",
                ),
            ],
        },
    }


def protection(topology: Topology, dialects: Iterable[str] = ()) -> Manifest:
    """Refuses deletion, relabelling and change of the network policies that hold clients and gateways, and of the ConfigMaps
    that guards read.

    Whoever may edit a ConfigMap could open the guard of the next pod that starts; where the CNI enforces nothing, no other
    layer stands behind it.
    """
    name = protection_name(topology)
    out = (
        f"homelab.netguard (instance {topology.instance}) writes it: change the lists and run the site playbook."
        f" To take it over: kubectl annotate <kind> <name> {RELEASE}=true, and do it again"
    )
    resources = {"": ["configmaps"], "networking.k8s.io": ["networkpolicies"]}
    if "calico" in dialects:
        for api in (CALICO_V1, CALICO_V3):
            resources[api.split("/")[0]] = ["globalnetworkpolicies", "tiers"]
    if "cilium" in dialects:
        resources["cilium.io"] = ["ciliumnetworkpolicies"]
    if "clusternetworkpolicy" in dialects:
        resources["policy.networking.k8s.io"] = ["clusternetworkpolicies"]
    return {
        "apiVersion": API,
        "kind": POLICY,
        "metadata": {"name": name, "labels": owner_labels(topology.instance, PART)},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "matchPolicy": "Equivalent",
                "namespaceSelector": {},
                # Matches when the old or the new object fits: taking the labels off is seen too.
                "objectSelector": {
                    "matchLabels": {LABEL_INSTANCE: topology.instance},
                    "matchExpressions": [{"key": LABEL_PART, "operator": "In", "values": list(PROTECTED_PARTS)}],
                },
                "resourceRules": [
                    _rule(group, ["UPDATE", "DELETE"], kinds, versions=["*"], scope="*")
                    for group, kinds in sorted(resources.items())
                ],
            },
            "matchConditions": [
                {
                    "name": "not-a-gateway-s-settings",
                    "expression": f"request.resource.resource != 'configmaps' || ({_of_client('object')})"
                    f" || ({_of_client('oldObject')})",
                }
            ],
            "variables": [
                {"name": "same", "expression": _SAME},
                {"name": "ours", "expression": f"dyn(request.options).?fieldManager.orValue('') == {cel.text(MANAGER)}"},
                {
                    "name": "released",
                    "expression": f"has(oldObject.metadata.annotations) && {cel.text(RELEASE)} in oldObject.metadata.annotations",
                },
                {
                    "name": "leaving",
                    "expression": "namespaceObject != null && has(namespaceObject.metadata.deletionTimestamp)",
                },
            ],
            "validations": [
                _validation(
                    "request.operation != 'DELETE' || variables.released || variables.leaving",
                    f"This object holds VPN traffic closed and cannot be deleted. {out}",
                ),
                _validation(
                    "request.operation != 'UPDATE' || variables.ours || variables.released || variables.same",
                    f"This object holds VPN traffic closed and its spec cannot be changed (the data of a ConfigMap). {out}",
                ),
                _validation(
                    "request.operation != 'UPDATE' || variables.ours || variables.released ||"
                    f" oldObject.metadata.labels.all(k, !k.startsWith({cel.text(PREFIX)}) || (has(object.metadata.labels)"
                    " && k in object.metadata.labels && object.metadata.labels[k] == oldObject.metadata.labels[k]))",
                    f"This object holds VPN traffic closed and its labels cannot be taken off. {out}",
                ),
            ],
        },
    }


#: Whether an update leaves what counts as it is: the spec of a policy, the content of a ConfigMap.
_SAME = "request.resource.resource == 'configmaps' ? ({}) : dyn(object).spec == dyn(oldObject).spec".format(
    " && ".join(f"dyn(object).?{key}.orValue({{}}) == dyn(oldObject).?{key}.orValue({{}})" for key in ("data", "binaryData"))
)


def _of_client(subject: str) -> str:
    """Whether an object (of the request) is labelled as a client's."""
    labels = f"{subject}.metadata.labels"
    key = cel.text(LABEL_PART)
    return f"{subject} != null && has({labels}) && {key} in {labels} && {labels}[{key}] == 'client'"


def bad_pod(edges: ClientEdges, live: Live) -> Manifest:
    """A pod of the client without a guard, to be refused in a dry run."""
    found = workload(edges.app, live)
    labels = dict(edges.selector.labels)
    if found is not None:
        labels = {key: value for key, value in labels_of(template_of(found)).items() if not key.startswith(PREFIX)}
    return dry_run_pod(edges.app.namespace, labels)


def good_pod(topology: Topology, facts: Facts, edges: ClientEdges, live: Live, images: Images | None = None) -> Manifest:
    """The same pod with the guard, not to be refused by us: shows that the newest version of the policy is in force."""
    pod = bad_pod(edges, live)
    guard = guard_container(topology, edges.app, facts, images)
    pod["spec"]["initContainers"] = [{key: value for key, value in guard.items() if key not in ("volumeMounts", "env")}]
    return pod


def dry_run_pod(namespace: str, labels: Mapping[str, str]) -> Manifest:
    """It meets every Pod Security level, so that nothing but our own policy has a reason to refuse it."""
    context = {
        "allowPrivilegeEscalation": False,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "netguard-dry-run", "namespace": namespace, "labels": dict(labels)},
        "spec": {"containers": [{"name": "unguarded", "image": "netguard.invalid/dry-run", "securityContext": context}]},
    }


def _rule(
    group: str,
    operations: list[str],
    resources: list[str],
    resource_names: list[str] | None = None,
    *,
    versions: list[str] | None = None,
    scope: str = "Namespaced",
) -> Manifest:
    rule: Manifest = {
        "apiGroups": [group],
        "apiVersions": versions or ["v1"],
        "operations": operations,
        "resources": resources,
        "scope": scope,
    }
    if resource_names:
        rule["resourceNames"] = resource_names
    return rule


def _validation(expression: str, message: str) -> Manifest:
    return {"expression": expression, "message": message, "reason": "Forbidden"}


def _images(guards: Iterable[Mapping[str, Any]]) -> str:
    return " or ".join(dict.fromkeys(str(guard["image"]) for guard in guards))


def _binding(topology: Topology, policy: Manifest) -> Manifest:
    return {
        "apiVersion": API,
        "kind": BINDING,
        "metadata": {"name": policy["metadata"]["name"], "labels": dict(policy["metadata"]["labels"])},
        "spec": {"policyName": policy["metadata"]["name"], "validationActions": ["Deny"]},
    }
