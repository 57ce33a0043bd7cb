# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real control plane on loopback: etcd, kube-apiserver, and on demand kube-controller-manager and KWOK.

KWOK plays the kubelet: pods become Ready without running anything. What it cannot show (packets, order of init
containers, policies in force) is left to the other lanes.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import datetime
import ipaddress
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from . import binaries

#: Metadata of everything, with the bodies of writes; secrets never with their bodies.
AUDIT_POLICY: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "users": ["system:kube-controller-manager", "system:kube-scheduler", "system:apiserver", "kwok"]},
        {"level": "Metadata", "resources": [{"group": "", "resources": ["secrets", "configmaps"]}]},
        {"level": "Request", "verbs": ["create", "update", "patch", "delete"]},
        {"level": "Metadata"},
    ],
}
SERVICES = "10.96.0.0/16"
#: How KWOK plays the kubelets.
STAGES = Path(__file__).resolve().parent / "stages.yaml"
START_SECONDS = 90
#: Writes warnings about types into a policy's status, and decides nothing. For each expression it compiles all variables anew, once
#: for each kind that the policy is about: more than all other controllers of a test together.
TYPE_CHECKER = "validatingadmissionpolicy-status-controller"
#: Go collects garbage at five times what is in use instead of at twice, up to a limit: a seventh of the servers' time.
GARBAGE = {"GOGC": "400", "GOMEMLIMIT": "600MiB"}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _die_with_parent() -> None:
    """In the child: end when the parent ends, however it ends (prctl PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Authority:
    """A certificate authority for one control plane. Its certificates pass strict checks, Python's default from 3.13 on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "netguard-test")])
        self.file = folder / "ca.crt"
        signs = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
        )
        usage = x509.KeyUsage(**signs, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False)
        certificate = (
            self._certificate(self.name, self.key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
        )
        self.file.write_bytes(certificate.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _certificate(self, subject: x509.Name, key: Any) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )

    def issue(self, name: str, groups: tuple[str, ...] = (), *, server: bool = False) -> tuple[Path, Path]:
        """(certificate, key) of a user with groups, or of the server."""
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._certificate(subject, key.public_key())
        if server:
            names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        cert_file, key_file = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        key_file.chmod(0o600)
        return cert_file, key_file


class ControlPlane:
    """Started in a folder of its own; `stop` ends every process and removes the folder. Usable as a context manager."""

    def __init__(self, *, controllers: bool = True, kwok: bool = True, lean: bool = False) -> None:
        """`lean`: in less processor time, for tests, which need very many policies: without the type checker, and see GARBAGE."""
        self.tools = binaries.control_plane()
        self.folder = Path(tempfile.mkdtemp(prefix="netguard-cluster-"))
        self.kubeconfig = self.folder / "kubeconfig"
        self.audit_log = self.folder / "audit.log"
        self.kubectl = self.tools["kubectl"]
        self._controllers, self._kwok, self._lean = controllers, kwok, lean
        self._processes: list[tuple[str, subprocess.Popen[bytes]]] = []

    def __enter__(self) -> ControlPlane:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_details: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when the API server is ready. Raises RuntimeError with the end of a log when it is not."""
        authority = Authority(self.folder)
        certificate, key = authority.issue("server", server=True)
        signing = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        (self.folder / "sa.key").write_bytes(
            signing.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
            )
        )
        (self.folder / "audit.yaml").write_text(yaml.safe_dump(AUDIT_POLICY))
        client, peer, self.port = free_port(), free_port(), free_port()
        self.host = f"https://127.0.0.1:{self.port}"
        self._authority = authority
        self._run(
            "etcd",
            f"--data-dir={self.folder}/etcd",
            f"--listen-client-urls=http://127.0.0.1:{client}",
            f"--advertise-client-urls=http://127.0.0.1:{client}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            "--unsafe-no-fsync",
        )
        self._run(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{client}",
            f"--secure-port={self.port}",
            "--bind-address=127.0.0.1",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            f"--service-cluster-ip-range={SERVICES}",
            f"--client-ca-file={authority.file}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.folder}/sa.key",
            f"--service-account-signing-key-file={self.folder}/sa.key",
            f"--audit-policy-file={self.folder}/audit.yaml",
            f"--audit-log-path={self.audit_log}",
            f"--cert-dir={self.folder}/cert",
            # the played nodes have no such address: who asks for a log is told so at once, and no packet looks for a kubelet
            "--kubelet-preferred-address-types=ExternalDNS",
        )
        self.kubeconfig = self.user("admin", "system:masters")
        self._ready()
        if self._controllers:
            self._manager(f"*,-{TYPE_CHECKER}" if self._lean else "*")
        if self._kwok:
            self._run(
                "kube-scheduler",
                f"--kubeconfig={self.user('system:kube-scheduler', 'system:masters')}",
                "--leader-elect=false",
                "--bind-address=127.0.0.1",
                f"--secure-port={free_port()}",
            )
            self._run(
                "kwok",
                f"--kubeconfig={self.user('kwok', 'system:masters')}",
                "--manage-all-nodes=true",
                f"--config={STAGES}",
            )

    def _manager(self, controllers: str) -> subprocess.Popen[bytes]:
        return self._run(
            "kube-controller-manager",
            f"--controllers={controllers}",
            f"--kubeconfig={self.user('system:kube-controller-manager', 'system:masters')}",
            f"--service-account-private-key-file={self.folder}/sa.key",
            f"--root-ca-file={self._authority.file}",
            "--leader-elect=false",
            # the nodes that KWOK plays send no heartbeats
            "--node-monitor-grace-period=24h",
            "--bind-address=127.0.0.1",
            f"--secure-port={free_port()}",
            f"--cert-dir={self.folder}/cert",
        )

    @contextlib.contextmanager
    def type_checker(self) -> Iterator[None]:
        """Runs it meanwhile, beside a lean control plane: for tests that look at a policy's status."""
        process = self._manager(TYPE_CHECKER)
        try:
            yield
        finally:
            self._end(process)
            self._processes.remove(("kube-controller-manager", process))

    def user(self, name: str, *groups: str) -> Path:
        """A kubeconfig for a user by certificate; what it may do is decided by RBAC."""
        certificate, key = self._authority.issue(name, groups)
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "test",
                    "cluster": {"server": self.host, "certificate-authority-data": _base64(self._authority.file)},
                }
            ],
            "users": [{"name": name, "user": {"client-certificate-data": _base64(certificate), "client-key-data": _base64(key)}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": name}}],
            "current-context": "test",
        }
        path = self.folder / ("kubeconfig" if name == "admin" else f"kubeconfig-{name.replace(':', '-')}")
        path.write_text(yaml.safe_dump(config))
        path.chmod(0o600)
        return path

    def stop(self) -> None:
        for _name, process in reversed(self._processes):
            process.terminate()
        for _name, process in reversed(self._processes):
            self._end(process)
        self._processes.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def audit(self, since: int = 0) -> list[dict[str, Any]]:
        """Events of the audit log from a byte offset on (`mark`)."""
        with self.audit_log.open("rb") as log:
            log.seek(since)
            return [json.loads(line) for line in log if line.endswith(b"\n")]

    def mark(self) -> int:
        """The present end of the audit log."""
        return self.audit_log.stat().st_size if self.audit_log.exists() else 0

    def nodes(self, count: int = 2) -> None:
        """Nodes for KWOK to play, with slices of a pod range and addresses of a documentation range."""
        items = [
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {
                    "name": f"node-{number}",
                    "labels": {"kubernetes.io/hostname": f"node-{number}", "kubernetes.io/os": "linux"},
                    "annotations": {"kwok.x-k8s.io/node": "fake", "homelab.netguard.test/address": f"192.0.2.{10 + number}"},
                },
                "spec": {"podCIDR": f"10.244.{number}.0/24", "podCIDRs": [f"10.244.{number}.0/24"]},
            }
            for number in range(1, count + 1)
        ]
        self.apply(*items)

    def apply(self, *manifests: dict[str, Any]) -> None:
        """kubectl apply as administrator. Raises RuntimeError with kubectl's words."""
        self.run_kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(manifests))

    def run_kubectl(self, *words: str, stdin: str | None = None, check: bool = True) -> str:
        done = subprocess.run(
            [str(self.kubectl), f"--kubeconfig={self.kubeconfig}", *words], input=stdin, capture_output=True, text=True, check=False
        )
        if check and done.returncode:
            raise RuntimeError(f"kubectl {' '.join(words)}: {done.stderr}")
        return done.stdout + done.stderr

    def pid(self, name: str) -> int:
        """Process id of one of its programs. Raises StopIteration for one that was not started."""
        return next(process.pid for known, process in self._processes if known == name)

    def _run(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [str(self.tools[name]), *words],
                cwd=self.folder,
                env={**os.environ, **(GARBAGE if self._lean else {})},
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                preexec_fn=_die_with_parent,
            )
        self._processes.append((name, process))
        return process

    def _ready(self) -> None:
        context = ssl.create_default_context(cafile=str(self._authority.file))
        context.load_cert_chain(self.folder / "admin.crt", self.folder / "admin.key")
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            for name, process in self._processes:
                if process.poll() is not None:
                    raise RuntimeError(f"{name} ended at its start:\n{self.log_end(name)}")
            try:
                with urllib.request.urlopen(f"{self.host}/readyz", context=context, timeout=2) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise RuntimeError(f"the API server was not ready within {START_SECONDS} s:\n{self.log_end('kube-apiserver')}")

    def log_end(self, name: str, lines: int = 15) -> str:
        return "\n".join((self.folder / f"{name}.log").read_text(errors="replace").splitlines()[-lines:])


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
