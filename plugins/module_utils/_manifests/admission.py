# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ValidatingAdmissionPolicies that refuse what would undo a client's protection by accident.

Two policies per instance: one about clients (their pods and workloads), one about the policies themselves. Each client has two
bindings of the first, for its pods and for its workload, whose annotations are the parameters: what the client is, which labels
select its pods, which guards are accepted. A binding names itself as its parameter, so both appear and go as one, and a client is
released by deleting them. The server filters by the bindings' selectors before it evaluates anything.

A policy of its own for each client would be compiled by the server for each: measured on Kubernetes 1.34, tens of
milliseconds and 2.5 MB of the API server's memory each, and every new pod would be evaluated by all policies of its namespace.
Nothing protects these objects: this is a guard against accidents.

Facts that shaped the rules (measured on Kubernetes 1.34): `namespaceObject` is null in matchConditions; matching every
UPDATE of pods keeps Jobs from finishing, because the removal of their finalizer is refused; DELETE carries no field
manager, so a policy of ours is marked as released before it is deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .._facts.model import Facts
from .._overlay import scripts
from .._topology.model import App, Topology
from . import admission_cel as cel
from . import names
from .client_edges import ClientEdges
from .client_guard import GUARD, SIDECAR, VOLUME, guard_container, guard_volume
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
#: Name of the workload's binding: that of the pods' and this. Names of clients end with a digest, so the two cannot meet.
OF_WORKLOAD = "-workload"
#: In a message: what a binding says of its client (the images of the guards that are accepted, its ConfigMap), as an expression.
IMAGES, CONFIG = "<images>", "<config>"
_TOLD = {IMAGES: "variables.guards.map(g, g.split('\\t')[1]).join(' or ')", CONFIG: "variables.config"}
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
    if not clients:
        return Desired()
    protecting = protection(topology, dialects)
    bindings = [_binding(topology, protecting["metadata"]["name"], protecting["metadata"])]
    for edges in clients:
        bindings += client_bindings(topology, facts, live, edges, images)
    return Desired(((protecting, clients_policy(topology)), tuple(bindings)))


def client_name(topology: Topology, app: App) -> str:
    """Name of the binding for the pods of one client."""
    return cluster_name(topology.instance, app.namespace, app.name)


def client_names(topology: Topology, app: App) -> tuple[str, str]:
    """Names of the bindings of one client, for its pods and for its workload."""
    name = client_name(topology, app)
    return name, name + OF_WORKLOAD


def clients_name(topology: Topology) -> str:
    """Name of the policy about clients."""
    return names.admission(topology, "clients")


def protection_name(topology: Topology) -> str:
    return names.admission(topology, "policies")


def fingerprint(container: Mapping[str, Any]) -> str:
    """What a guard is compared by, as a line: capabilities with commas, image, words of the command, tabs between."""
    added = ((container.get("securityContext") or {}).get("capabilities") or {}).get("add") or []
    words = [",".join(sorted(added)), str(container.get("image", "")), *map(str, container.get("command") or [])]
    return cel.TAB.join(words)


def accepted_guards(topology: Topology, facts: Facts, live: Live, app: App, images: Images | None = None) -> list[str]:
    """Fingerprints of the guard that this run wants, and of the one that the workload still has while it is replaced.

    The old one counts only if the last run accepted it: a guard that somebody changed by hand is not taken over.
    """
    wanted = fingerprint(guard_container(topology, app, facts, images))
    known = recorded(topology, live, app)
    found = template(app, live) or {}
    init = (found.get("spec") or {}).get("initContainers") or []
    current = [fingerprint(item) for item in init if item.get("name") == GUARD]
    return [wanted, *(item for item in current if item != wanted and item in known)]


def recorded(topology: Topology, live: Live, app: App) -> list[str]:
    """Fingerprints of the guards that the client's live binding accepts, empty where there is none."""
    binding = live.get(BINDING, "", client_name(topology, app)) or {"metadata": {}}
    known = str((binding["metadata"].get("annotations") or {}).get(cel.GUARDS, ""))
    return known.split("\n") if known else []


def client_bindings(
    topology: Topology, facts: Facts, live: Live, edges: ClientEdges, images: Images | None = None
) -> tuple[Manifest, Manifest]:
    """What applies the policy to one client: to its pods by their labels, and to its workload by its name."""
    app = edges.app
    group, resource = _RESOURCES[app.kind]
    workload_name = app.workload or app.name
    both = client_names(topology, app)
    annotations = {
        cel.GUARDS: "\n".join(accepted_guards(topology, facts, live, app, images)),
        cel.SELECTOR: "\n".join(cel.requirements(edges.selector)),
        cel.CONFIG: names.client_config(app),
        cel.SUBJECT: (
            f"{app.kind} {app.namespace}/{workload_name} is a VPN client of homelab.netguard (instance {topology.instance})"
        ),
        cel.WAY_OUT: (
            "To release the client, remove vpn from the app and run the site playbook,"
            f" or run: kubectl delete validatingadmissionpolicybinding {' '.join(both)}"
        ),
    }
    rules: tuple[tuple[Manifest, Manifest], ...] = (
        (edges.selector.manifest(), _rule("", ["CREATE", "UPDATE"], ["pods", "pods/ephemeralcontainers"])),
        ({}, _rule(group, ["UPDATE"], [resource], [workload_name])),
    )

    def binding(name: str, selector: Manifest, rule: Manifest) -> Manifest:
        meta = {"name": name, "labels": client_labels(topology, PART, app), "annotations": dict(annotations)}
        found = _binding(topology, clients_name(topology), meta)
        found["spec"] |= {
            # Only a binding that was deleted finds no parameter: for a second the server goes on asking, and must be let go.
            "paramRef": {"name": name, "parameterNotFoundAction": "Allow"},
            "matchResources": {
                "matchPolicy": "Equivalent",
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": app.namespace}},
                "objectSelector": selector,
                "resourceRules": [rule],
            },
        }
        return found

    pods, of_workload = (binding(name, *rule) for name, rule in zip(both, rules, strict=True))
    return pods, of_workload


def clients_policy(topology: Topology) -> Manifest:
    """Refuses pods of a client without the guard, and changes of its workload that take the guard away."""
    kinds: dict[str, list[str]] = {}
    for group, resource in _RESOURCES.values():
        kinds.setdefault(group, []).append(resource)
    selected = cel.matches("variables.template.metadata")
    return {
        "apiVersion": API,
        "kind": POLICY,
        "metadata": {"name": clients_name(topology), "labels": owner_labels(topology.instance, PART)},
        "spec": {
            "failurePolicy": "Fail",
            "paramKind": {"apiVersion": API, "kind": BINDING},
            "matchConstraints": {
                "matchPolicy": "Equivalent",
                "namespaceSelector": {},
                "objectSelector": {},
                "resourceRules": [
                    _rule("", ["CREATE", "UPDATE"], ["pods", "pods/ephemeralcontainers"]),
                    *(_rule(group, ["UPDATE"], resources) for group, resources in sorted(kinds.items())),
                ],
            },
            "matchConditions": [
                {
                    "name": "of-the-client",
                    # The binding lets through what was selected before or is now. Of UPDATEs of pods only those count that
                    # lead out of the selection or change an image of the init containers, which run again in a new sandbox:
                    # matching the others keeps Jobs from finishing.
                    "expression": (
                        f"{cel.NO_POD} || request.operation == 'CREATE' || {cel.SUBRESOURCE}"
                        f" || !({cel.matches('dyn(object).metadata')}) || {cel.INIT_CHANGED}"
                    ),
                }
            ],
            "variables": [
                {"name": "guards", "expression": cel.lines(cel.GUARDS)},
                {"name": "template", "expression": cel.pod_of("object")},
                {"name": "before", "expression": cel.pod_of("oldObject")},
                {"name": "init", "expression": cel.init("template")},
                {"name": "initBefore", "expression": cel.init("before")},
                {"name": "volumes", "expression": cel.volumes("template")},
                {"name": "volumesBefore", "expression": cel.volumes("before")},
                {"name": "config", "expression": cel.CONFIG_NAME},
                {"name": "guarded", "expression": f"size(variables.init) > 0 && ({cel.GUARDED})"},
                {"name": "mounted", "expression": f"variables.config == '' || ({cel.MOUNTED})"},
                {"name": "newPod", "expression": "request.operation == 'CREATE'"},
                {
                    "name": "wasGuarded",
                    "expression": (
                        f"request.operation == 'UPDATE' && !{cel.SUBRESOURCE}"
                        f" && variables.initBefore.exists(c, c.name == {cel.text(GUARD)})"
                    ),
                },
                # What was there before and is no worse now stays free for other changes.
                {"name": "sameInit", "expression": "variables.init == variables.initBefore"},
                {
                    "name": "changed",
                    "expression": (
                        "variables.newPod || (variables.wasGuarded"
                        " && !(variables.sameInit && variables.volumes == variables.volumesBefore))"
                    ),
                },
            ],
            "validations": [
                _of_client_said(
                    "!variables.newPod || variables.guarded",
                    f"a pod of it must start with the init container {GUARD} ({IMAGES}). Run the site playbook to put it into"
                    " the workload.",
                ),
                _of_client_said(
                    "!variables.wasGuarded || variables.guarded || variables.sameInit",
                    "this change takes the guard away from the front of its init containers, so it is refused and the"
                    " pods go on as they are. Keep it: use kubectl apply (--server-side puts own init containers behind it) in"
                    " place of replace, rollout undo or a forced upgrade.",
                ),
                _of_client_said(
                    "!variables.changed || variables.mounted",
                    f"the volume {VOLUME} must be the ConfigMap {CONFIG}, whole, and the only one that {GUARD} and {SIDECAR}"
                    f" mount (at {scripts.MOUNT}; below {cel.SECRETS} others may), with the termination message at"
                    f" {cel.TERMINATION}: with another one the guard may let everything out. Put it back, or run the site"
                    " playbook; a webhook that mounts something into every container must leave these two out.",
                ),
                _of_client_said(
                    f"!variables.changed || ({cel.AS_WRITTEN})",
                    f"{GUARD} and {SIDECAR} take {scripts.POD_IPS} and {scripts.HOST_IPS} from the pod's status and no other"
                    " variable, which could change what they do. Take it off, or run the site playbook; a webhook that adds"
                    " variables to every container must leave these two out.",
                ),
                _of_client_said(
                    "!(variables.newPod || variables.wasGuarded) || !has(variables.template.spec.hostNetwork)"
                    " || !variables.template.spec.hostNetwork",
                    "on the node's network nothing would hold it.",
                ),
                _of_client_said(
                    f"variables.newPod || {cel.SUBRESOURCE} || ({cel.NO_POD} && !variables.wasGuarded) || ({selected})",
                    "without the labels that the kill switch selects, its pods would leave the kill switch.",
                ),
                _of_client_said(
                    f"!{cel.SUBRESOURCE} || {cel.EPHEMERAL}",
                    "a debug container with added capabilities or privileges could undo the guard; use"
                    " kubectl debug --profile=restricted or baseline.",
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
            resources[api.partition("/")[0]] = ["globalnetworkpolicies", "tiers"]
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
    pod["spec"] |= {
        "initContainers": [guard_container(topology, edges.app, facts, images)],
        "volumes": [guard_volume(edges.app)],
    }
    return pod


def tampered_pod(topology: Topology, facts: Facts, edges: ClientEdges, live: Live, images: Images | None = None) -> Manifest:
    """That pod with another ConfigMap behind the guard's scripts, to be refused: a policy that compares names alone would not."""
    pod = good_pod(topology, facts, edges, live, images)
    pod["spec"]["volumes"][0]["configMap"]["name"] += "-tampered"
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


def _of_client_said(expression: str, message: str) -> Manifest:
    """A validation whose message names the client and the way out, both from its binding."""
    plain, said = message, cel.text(f": {message} ")
    for mark, expression_of_it in _TOLD.items():
        plain = plain.replace(mark, "of this collection")
        said = said.replace(mark, f'" + {expression_of_it} + "')
    said = f"{cel.annotation(cel.SUBJECT)} + {said} + {cel.annotation(cel.WAY_OUT)}"
    return _validation(expression, plain) | {"messageExpression": said}


def _binding(topology: Topology, policy: str, meta: Mapping[str, Any]) -> Manifest:
    return {
        "apiVersion": API,
        "kind": BINDING,
        "metadata": {**meta, "labels": dict(meta["labels"])},
        "spec": {"policyName": policy, "validationActions": ["Deny"]},
    }
