# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The expressions of admission policies (CEL). They read `variables` of `admission.clients_policy` and its parameters.

Parameters are annotations of a binding, lines of text with tabs between their fields: CEL splits these, and reads no JSON. A
parameter that is missing or mangled is an error of the expression, and the policy refuses then.
"""

from __future__ import annotations

import json

from .._overlay import scripts
from .client_guard import GUARD, SIDECAR, VOLUME
from .model import PREFIX
from .workloads import PodSelector

#: Parameters: a line for each guard that is accepted,
GUARDS = PREFIX + "guards"
#: a line for each requirement of the selector,
SELECTOR = PREFIX + "selector"
#: the ConfigMap with the scripts and settings that the guard runs (missing: not compared, as long as no run has written it),
CONFIG = PREFIX + "config"
#: and, for messages, what the client is and how it is released.
SUBJECT = PREFIX + "subject"
WAY_OUT = PREFIX + "way-out"
TAB = "\t"
NO_POD = "request.resource.resource != 'pods'"
SUBRESOURCE = "(has(request.subResource) && request.subResource == 'ephemeralcontainers')"
#: Debug containers that were there before are left alone.
EPHEMERAL = (
    "!has(variables.template.spec.ephemeralContainers) || variables.template.spec.ephemeralContainers.all(c,"
    " (has(variables.before.spec.ephemeralContainers) && variables.before.spec.ephemeralContainers.exists(o, o.name == c.name))"
    " || !has(c.securityContext) || ((!has(c.securityContext.privileged) || !c.securityContext.privileged)"
    " && (!has(c.securityContext.capabilities) || !has(c.securityContext.capabilities.add)"
    " || size(c.securityContext.capabilities.add) == 0)))"
)


#: Whether the first init container is one of the accepted guards: it runs to its end before anything else starts.
_FIRST = "variables.init[0]"
_COMMAND = f"{_FIRST}.image + '\\t' + {_FIRST}.command.join('\\t')"
GUARDED = (
    f"{_FIRST}.name == '{GUARD}' && !has({_FIRST}.restartPolicy) && !has({_FIRST}.args) && has({_FIRST}.command)"
    f" && !{_FIRST}.command.exists(w, w.contains('\\t') || w.contains('\\n'))"
    f" && has({_FIRST}.securityContext) && has({_FIRST}.securityContext.capabilities)"
    f" && has({_FIRST}.securityContext.capabilities.add)"
    f" && variables.guards.exists(g, g == g.split('\\t')[0] + '\\t' + {_COMMAND}"
    f" && g.split('\\t')[0].split(',').all(x, x in {_FIRST}.securityContext.capabilities.add))"
)


#: The kubelet's default: it mounts a file there, over whatever stands at that path.
TERMINATION = "/dev/termination-log"
_NAMES = json.dumps([scripts.POD_IPS, scripts.HOST_IPS])
_OURS = f"(c.name == '{GUARD}' || c.name == '{SIDECAR}')"
#: Where others may mount something into our containers: what the server itself mounts there (its token) is read by no script.
SECRETS = "/var/run/secrets/"
_OWN_MOUNT = f"m.name == '{VOLUME}' && m.mountPath == '{scripts.MOUNT}' && !has(m.subPath) && !has(m.subPathExpr)"
_SECRET_MOUNT = f"m.mountPath.startsWith('{SECRETS}') && !m.mountPath.contains('..')"
#: Whether our containers see the client's own ConfigMap, whole, and nothing in its place: `items` would rename scripts, and any
#: other mount could stand for a script or a program, that of the termination message too.
MOUNTED = (
    "variables.volumes.exists(v, has(v.configMap) && v.configMap.name == variables.config && !has(v.configMap.items)"
    " && (!has(v.configMap.optional) || !v.configMap.optional))"
    f" && variables.init.all(c, !{_OURS} || (has(c.volumeMounts) && c.volumeMounts.exists(m, {_OWN_MOUNT})"
    f" && c.volumeMounts.all(m, ({_OWN_MOUNT}) || ({_SECRET_MOUNT})) && c.terminationMessagePath == '{TERMINATION}'))"
)
#: Whether the guard starts as it was written: a variable could preload a library, move PATH, or stand for a setting.
AS_WRITTEN = (
    f"variables.init.all(c, !{_OURS} || (!has(c.envFrom) && (!has(c.env) || c.env.all(e, e.name in {_NAMES}"
    " && has(e.valueFrom) && has(e.valueFrom.fieldRef) && e.valueFrom.fieldRef.fieldPath.startsWith('status.')))))"
)


def volumes(variable: str) -> str:
    """Our volume in a pod or template, as a list."""
    spec = f"variables.{variable}.spec"
    return f"(has({spec}.volumes) ? {spec}.volumes : []).filter(v, v.name == '{VOLUME}')"


#: Images are all that an update of a pod can change about its init containers.
INIT_CHANGED = "dyn(object).spec.?initContainers.orValue([]) != dyn(oldObject).spec.?initContainers.orValue([])"


def text(value: str) -> str:
    """A CEL string literal; JSON's escapes are a subset of CEL's."""
    return json.dumps(value)


def init(variable: str) -> str:
    return f"has(variables.{variable}.spec.initContainers) ? variables.{variable}.spec.initContainers : []"


def pod_of(subject: str) -> str:
    """The pod or pod template of `object` or `oldObject`."""
    found = f"dyn({subject})"
    return (
        f"!({NO_POD}) ? {found} : request.resource.resource == 'cronjobs' ? {found}.spec.jobTemplate.spec.template"
        f" : {found}.spec.template"
    )


def annotation(key: str) -> str:
    """A parameter of the client."""
    return f"params.metadata.annotations[{text(key)}]"


#: The client's ConfigMap, empty where the binding does not name it.
CONFIG_NAME = f"{text(CONFIG)} in params.metadata.annotations ? {annotation(CONFIG)} : ''"


def lines(key: str) -> str:
    """A parameter of several lines, as a list."""
    return f"{annotation(key)}.split('\\n')"


def requirements(selector: PodSelector) -> list[str]:
    """A label selector as lines for `matches`: key, operator, values with commas (which no label value contains)."""
    found = [(key, "In", [value]) for key, value in sorted(selector.labels.items())]
    found += [(item["key"], item["operator"], list(item.get("values") or [])) for item in selector.expressions]
    return [TAB.join((key, operator, ",".join(values))) for key, operator, values in found]


def matches(metadata: str) -> str:
    """Whether the labels in `metadata` fit the client's selector. A missing label fits NotIn and DoesNotExist, as in the API."""
    labels = f"{metadata}.?labels.orValue({{}})"
    listed = f"f[0] in {labels} && {labels}[f[0]] in f[2].split(',')"
    return (
        f"{lines(SELECTOR)}.map(r, r.split('\\t')).all(f, f[1] == 'In' ? ({listed}) : f[1] == 'NotIn' ? !({listed})"
        f" : f[1] == 'Exists' ? f[0] in {labels} : f[1] == 'DoesNotExist' && !(f[0] in {labels}))"
    )
