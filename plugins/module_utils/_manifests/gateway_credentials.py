# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a gateway's credentials are: values of the module's option, or a Secret that the user keeps."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from .._errors import Fault
from .._topology.model import Gateway, Topology
from . import names
from .gluetun_case import Credentials
from .gluetun_variables import SECRETS, credential_keys
from .model import LABEL_GATEWAY, Live, Manifest, owner_labels

Given = Mapping[str, Mapping[str, str]]


def resolve(topology: Topology, given: Given, live: Live, *, complete: bool = True) -> Credentials:
    """By gateway the credentials' values, from the option or from the live Secret; None where they cannot be seen.

    `complete`: what `live` does not hold does not exist (false when rendering).
    """
    found: dict[str, Mapping[str, str] | None] = {
        name: {key: str(value) for key, value in values.items()} for name, values in given.items()
    }
    for gateway in topology.gateways:
        if gateway.credentials_secret:
            secret = live.get("Secret", gateway.namespace, gateway.credentials_secret)
            known = secret is not None or (complete and "Secret" not in live.unreadable)
            found[gateway.name] = values_of(secret or {}) if known else None
    return found


def values_of(secret: Manifest) -> dict[str, str]:
    """Credentials of a Secret, by our names for them; keys that are none of ours are left out."""
    data = {**(secret.get("data") or {})}
    keys = credential_keys(list(data))
    return {key: _decoded(data[name]) for key, name in keys.items()}


def _decoded(value: str) -> str:
    try:
        return base64.b64decode(value).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return ""


def faults(topology: Topology, given: Given, live: Live, *, complete: bool = True) -> list[Fault]:
    """Credentials in two places, and Secrets that do not exist or hold nothing that is known."""
    found: list[Fault] = []
    for position, gateway in enumerate(topology.gateways):
        where = f"gateways[{position}].credentials.secret"
        if not gateway.credentials_secret:
            continue
        if gateway.name in given:
            found.append(
                Fault(f"credentials.{gateway.name}", f"the gateway names a Secret as well ({where})", "keep one of the two")
            )
        secret = live.get("Secret", gateway.namespace, gateway.credentials_secret)
        if secret is None:
            if complete and "Secret" not in live.unreadable:
                at = f"{gateway.namespace}/{gateway.credentials_secret}"
                hint = "create it, or give the values in the option credentials"
                found.append(Fault(where, f"Secret {at} does not exist", hint))
        elif not values_of(secret):
            keys = ", ".join(sorted(secret.get("data") or {})) or "none"
            hint = f"it has {keys}; known are {', '.join(SECRETS)}"
            found.append(Fault(where, f"Secret {gateway.credentials_secret} has no key that is known", hint))
    return found


def secret_of(topology: Topology, gateway: Gateway, given: Given) -> Manifest | None:
    """The Secret that we create from values; None when the user keeps one."""
    values = given.get(gateway.name)
    if gateway.credentials_secret or values is None:
        return None
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": names.gateway_secret(gateway),
            "namespace": gateway.namespace,
            "labels": owner_labels(topology.instance, "gateway", [(LABEL_GATEWAY, gateway.name)]),
        },
        "type": "Opaque",
        "data": {key: base64.b64encode(str(value).strip().encode()).decode() for key, value in sorted(values.items())},
    }


def mounted(gateway: Gateway, credentials: Credentials, live: Live) -> dict[str, str]:
    """Which key of the Secret is mounted as which file: {file: key}; empty when the Secret cannot be seen here."""
    values = credentials.get(gateway.name)
    if values is None:
        return {}
    if not gateway.credentials_secret:
        return {key: key for key in sorted(values)}
    secret = live.get("Secret", gateway.namespace, gateway.credentials_secret) or {}
    return dict(sorted(credential_keys(list(secret.get("data") or {})).items()))


def revision(gateway: Gateway, live: Live, pending: frozenset[tuple[str, str]] = frozenset()) -> str:
    """What the pod template carries so that a changed Secret rolls the pod: uid and resourceVersion, never its content.

    `pending`: (namespace, name) of Secrets that this run would change and has not (check mode).
    """
    name = names.gateway_secret(gateway)
    meta = (live.get("Secret", gateway.namespace, name) or {"metadata": {}})["metadata"]
    known = f"{meta.get('uid', '')}/{meta.get('resourceVersion', '')}".strip("/")
    return f"{known}+changed".lstrip("+") if (gateway.namespace, name) in pending else known
