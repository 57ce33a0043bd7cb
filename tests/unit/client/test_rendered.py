# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""vpn_client_inject without a cluster: files for GitOps, the same at every run."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.homelab.netguard.plugins.modules import vpn_client_inject

FACTS = {
    "cidrs": {"pods": ["10.244.0.0/16"], "services": ["10.96.0.0/16"], "nodes": ["192.0.2.10/32"], "lan": ["198.51.100.0/24"]},
    "ranges": {"pods": {"status": "complete"}, "services": {"status": "complete"}},
    "dns": {"service_ip": "10.96.0.10", "namespace": "kube-system", "pod_labels": {"k8s-app": "kube-dns"}},
    "cni": {"name": "calico", "enforces_network_policy": True, "translates_kernel_packets": True},
    "server": {"version": "v1.34.4"},
    "ip_families": ["ipv4"],
}
WORKLOAD: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "namespace": "media"},
    "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app", "image": "example/app"}]}},
    },
}
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "netguard-gateway-proton", "namespace": "vpn"},
    "spec": {"clusterIP": "10.96.7.7"},
}
NAMESPACE = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": "media", "labels": {"pod-security.kubernetes.io/enforce": "baseline"}},
}


def run(*, check: bool = False, fails: bool = False, **options: Any) -> dict[str, Any]:
    arguments = {
        "state": "rendered",
        "facts": FACTS,
        "gateways": [{"name": "proton", "namespace": "vpn", "provider": "protonvpn"}],
        "apps": [{"name": "web", "namespace": "media", "vpn": "proton"}],
        "live": [WORKLOAD, SERVICE],
        "_ansible_check_mode": check,
        **options,
    }
    output = io.StringIO()
    with patch_module_args(arguments), redirect_stdout(output), pytest.raises(SystemExit):
        vpn_client_inject.main()
    result: dict[str, Any] = json.loads(output.getvalue().strip().splitlines()[-1])
    assert bool(result.get("failed")) is fails, result.get("msg")
    return result


def test_the_same_files_at_every_run(tmp_path: Path) -> None:
    check = run(dest=str(tmp_path), check=True)
    assert check["changed"]
    assert not list(tmp_path.rglob("*.yaml"))
    assert run(dest=str(tmp_path))["changed"]
    files = {path: path.read_text() for path in tmp_path.rglob("*.yaml")}
    assert not run(dest=str(tmp_path))["changed"]
    assert {path: path.read_text() for path in tmp_path.rglob("*.yaml")} == files
    (patch,) = [text for text in files.values() if "kind: Deployment" in text]
    assert "$setElementOrder" not in patch, "Kustomize knows no such key"
    template = yaml.safe_load(patch)["spec"]["template"]["spec"]
    assert [item["name"] for item in template["initContainers"]] == ["netguard-guard", "netguard-overlay"]


def test_a_live_workload_that_is_injected_already_renders_the_same() -> None:
    first = run()
    (entry,) = first["patches"]
    injected = json.loads(json.dumps(WORKLOAD))
    template, patch = injected["spec"]["template"], entry["patch"]["spec"]["template"]
    template["metadata"] = {
        "labels": {**template["metadata"]["labels"], **patch["metadata"]["labels"]},
        "annotations": patch["metadata"]["annotations"],
    }
    containers = template["spec"]["containers"]
    template["spec"] = {**template["spec"], **patch["spec"], "containers": [{**containers[0], **patch["spec"]["containers"][0]}]}
    assert run(live=[injected, SERVICE])["patches"] == first["patches"]


def test_an_unknown_gateway_address_is_a_warning_and_stays_closed(capfd: pytest.CaptureFixture[str]) -> None:
    result = run(live=[WORKLOAD])
    # shapes of warnings differ between versions of ansible-core; where its controller code is loaded too, they are printed
    assert "does not exist yet" in json.dumps(result.get("warnings")) + capfd.readouterr().err
    (config,) = [item for item in result["manifests"] if item["kind"] == "ConfigMap"]
    assert "GATEWAY='0.0.0.0'" in config["data"]["settings.sh"]


def test_pod_security(tmp_path: Path) -> None:
    live = [WORKLOAD, SERVICE, NAMESPACE]
    assert "pod-security.kubernetes.io/enforce=privileged" in run(live=live, fails=True)["msg"]
    run(live=live, manage_pod_security=True, dest=str(tmp_path))
    patches = [yaml.safe_load(path.read_text()) for path in tmp_path.rglob("*patch*") if "kind: Namespace" in path.read_text()]
    assert [item["metadata"]["labels"] for item in patches] == [{"pod-security.kubernetes.io/enforce": "privileged"}]


def test_a_workload_that_is_not_given_is_waiting() -> None:
    apps = [{"name": "web", "namespace": "media", "vpn": "proton", "pods": {"app": "web"}}]
    result = run(live=[], apps=apps)
    assert [item["action"] for item in result["clients"]] == ["waiting"]
    assert result["manifests"] == []
