# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From the authentication options of kubernetes.core to an open cluster; every way in which that fails is a message."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .._errors import NetguardError
from .._yaml import yaml
from .client import Cluster
from .transport import refusal, short


def open_cluster(module: Any, *, check_mode: bool) -> Cluster:
    """The cluster that the authentication options name. `module` needs `params` and the checks of kubernetes.core's module.

    Raises NetguardError when no connection can be made from them.
    """
    import urllib3
    from ansible_collections.kubernetes.core.plugins.module_utils.k8s.client import get_api_client
    from ansible_collections.kubernetes.core.plugins.module_utils.k8s.exceptions import CoreException
    from kubernetes.client.exceptions import ApiException
    from kubernetes.dynamic.exceptions import DynamicApiError

    params: Mapping[str, Any] = module.params
    kubeconfig = _option(params, "kubeconfig")
    if params.get("kubeconfig") in ({}, ""):
        raise NetguardError("kubeconfig is empty: leave it out, or name a file or its content; nothing was tried instead of it")
    if isinstance(kubeconfig, str) and not any(os.path.exists(os.path.expanduser(path)) for path in kubeconfig.split(os.pathsep)):
        raise NetguardError(f"there is no kubeconfig at {kubeconfig}; nothing was tried instead of it")
    try:
        client = get_api_client(module)
    except CoreException as error:
        if "No configuration found" in str(error):
            place = os.environ.get("KUBECONFIG") or "~/.kube/config"
            raise NetguardError(
                f"no cluster is named: there is no kubeconfig at {place} and no host. Set kubeconfig, or host with api_key"
                " (or K8S_AUTH_KUBECONFIG, K8S_AUTH_HOST and K8S_AUTH_API_KEY, or KUBECONFIG)"
            ) from None
        raise NetguardError(str(error)) from None
    except (DynamicApiError, ApiException) as error:
        raise refusal(error, "the API server refuses the credentials") from None
    except urllib3.exceptions.HTTPError as error:
        raise NetguardError(f"the API server does not answer: {short(error)}") from None
    except AttributeError:  # its discovery takes an answer apart that is none
        raise NetguardError("what answers is no API server: check host, proxy and port") from None
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:  # a kubeconfig that is none, as its loader says it
        text = _without_content(error)
        raise NetguardError(f"no connection can be made from the kubeconfig: {type(error).__name__}: {text}") from None
    return Cluster(client.client, check_mode=check_mode, context=_context(params))


def _option(params: Mapping[str, Any], name: str) -> Any:
    """An authentication option, or its environment variable."""
    return params.get(name) or os.environ.get(f"K8S_AUTH_{name.upper()}")


def _without_content(error: Exception) -> str:
    """The first line alone: what a loader quotes of a kubeconfig may be a credential."""
    return str(error).partition("\n")[0][:200] if isinstance(error, OSError) else "it cannot be read"


def _context(params: Mapping[str, Any]) -> str:
    """The context in use: the chosen one, else the current one of the kubeconfig; empty where a host was given instead."""

    if context := _option(params, "context"):
        return str(context)
    if _option(params, "host"):
        return ""
    import kubernetes

    kubeconfig = _option(params, "kubeconfig")
    try:
        if isinstance(kubeconfig, Mapping):
            return str(kubeconfig.get("current-context") or "")
        _all, current = kubernetes.config.list_kube_config_contexts(config_file=kubeconfig)
    except (kubernetes.config.ConfigException, OSError):  # in-cluster credentials
        return ""
    return str((current or {}).get("name") or "")
