# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The second protocol: an OpenVPN server in the lab, with a certificate authority of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .lab import VPN, Lab, sh, wait_for

PORT = 1194


def certificates(folder: Path) -> None:
    folder.mkdir()
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    sh(
        [
            "openssl",
            "req",
            "-x509",
            *curve,
            "-keyout",
            f"{folder}/ca.key",
            "-out",
            f"{folder}/ca.crt",
            "-subj",
            "/CN=lab",
            "-days",
            "2",
        ]
    )
    for name in ("server", "client"):
        sh(["openssl", "req", *curve, "-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.csr", "-subj", f"/CN={name}"])
        signing = ["-CA", f"{folder}/ca.crt", "-CAkey", f"{folder}/ca.key", "-CAcreateserial", "-days", "2"]
        sh(["openssl", "x509", "-req", "-in", f"{folder}/{name}.csr", "-out", f"{folder}/{name}.crt", *signing])


def server(lab: Lab, folder: Path) -> subprocess.Popen[bytes]:
    """Pushes its routes, as providers do (redirect-gateway def1)."""
    certificates(folder)
    text = f"""port {PORT}
proto udp
dev ovpn0
dev-type tun
ca {folder}/ca.crt
cert {folder}/server.crt
key {folder}/server.key
dh none
topology subnet
server 203.0.113.224 255.255.255.224
push "redirect-gateway def1"
keepalive 2 10
duplicate-cn
"""
    (folder / "server.conf").write_text(text)
    process = lab.spawn("vpn", "openvpn", "--config", f"{folder}/server.conf", log="openvpn.log")
    wait_for("the OpenVPN server", lambda: "Initialization Sequence Completed" in (lab.folder / "openvpn.log").read_text(), 15)
    lab.run("vpn", "ip addr add 203.0.113.193/32 dev ovpn0", check=False)
    return process


def configuration(folder: Path) -> Path:
    """A client's file, as a provider hands it out."""
    path = folder / "client.conf"
    path.write_text(
        f"client\nremote {VPN} {PORT}\nproto udp\nnobind\nca {folder}/ca.crt\ncert {folder}/client.crt\nkey {folder}/client.key\n"
        "remote-cert-tls none\nping 2\nping-restart 6\n".replace("remote-cert-tls none\n", "")
    )
    return path
