# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The scripts without packets: their arithmetic against Python's, settings files, and shellcheck."""

from __future__ import annotations

import ipaddress
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.homelab.netguard.plugins.module_utils._overlay import scripts, settings
from ansible_collections.homelab.netguard.plugins.module_utils._topology.model import Port

NETWORK = ipaddress.IPv4Network("172.29.0.0/16")
PODS = (ipaddress.ip_network("10.42.0.0/16"), ipaddress.ip_network("fd00:10:42::/56"))
ALL = {**scripts.CLIENT_SCRIPTS, **scripts.GATEWAY_SCRIPTS}
SHELLS = [shell for shell in (("dash",), ("busybox", "ash")) if shutil.which(shell[0])]


def client(**changes: object) -> settings.ClientSettings:
    values: dict[str, object] = {
        "vni": 7,
        "port": 48879,
        "network": NETWORK,
        "pods": PODS,
        "gateway": ipaddress.ip_address("10.43.0.9"),
    }
    return settings.ClientSettings(**{**values, **changes})  # type: ignore[arg-type]


def run(shell: tuple[str, ...], folder: Path, text: str) -> str:
    """The text after lib.sh, with a client's settings."""
    (folder / "settings.sh").write_text(client().render())
    (folder / "lib.sh").write_text(scripts.CLIENT_SCRIPTS["lib.sh"])
    script = f"DIR={folder}\nNETGUARD_STATE={folder}/state\n. {folder}/lib.sh\n{text}\n"
    done = subprocess.run([*shell, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_is_a_shell_to_try() -> None:
    assert SHELLS, "neither dash nor busybox is here"


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_addresses_as_python_computes_them(shell: tuple[str, ...], tmp_path: Path) -> None:
    chance = random.Random(4753)
    pods = [
        ipaddress.ip_address(text)
        for text in ("10.42.0.0", "10.42.0.1", "10.42.255.254", "10.42.255.255", "10.42.3.7", "fd00::", "::1")
    ]
    pods += [ipaddress.ip_address(chance.randrange(2**32)) for _turn in range(20)]
    pods += [ipaddress.IPv6Address(chance.randrange(2**128)) for _turn in range(20)]
    lines = run(shell, tmp_path, "\n".join(f"derived {pod}; mac_of $(derived {pod})" for pod in pods)).split("\n")
    found = run(shell, tmp_path, "\n".join(f"derived {pod}" for pod in pods)).split()
    assert found == [str(settings.derived_address(pod, NETWORK)) for pod in pods]
    assert lines


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_membership_as_python_computes_it(shell: tuple[str, ...], tmp_path: Path) -> None:
    chance = random.Random(1)
    cases = []
    for _turn in range(30):
        for kind, bits in ((ipaddress.IPv4Address, 32), (ipaddress.IPv6Address, 128)):
            address = kind(chance.randrange(2**bits))
            length = chance.randrange(1, bits + 1)
            near = kind(int(address) ^ chance.choice((0, 1 << chance.randrange(bits))))
            cases.append((near, ipaddress.ip_network((address, length), strict=False)))
    text = "\n".join(f"in_networks {address} 192.0.2.0/31 {network} && echo yes || echo no" for address, network in cases)
    assert run(shell, tmp_path, text).split() == ["yes" if address in network else "no" for address, network in cases]


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
@pytest.mark.parametrize("text", ["", ";; timed out", "10.0.0", "10.0.0.256", "1.2.3.4.5", "a.b.c.d", "10.0.0.-1", "$(id)"])
def test_what_is_no_address(shell: tuple[str, ...], tmp_path: Path, text: str) -> None:
    assert run(shell, tmp_path, f"is_ipv4 '{text}' && echo yes || echo no").split() == ["no"]


def test_derived_addresses_are_unique_and_free_of_the_reserved() -> None:
    size = NETWORK.num_addresses
    reserved = {NETWORK[0], NETWORK[1], NETWORK[-2], NETWORK[-1]}
    found = [settings.derived_address(ipaddress.IPv4Address(0x0A2A0000 + number), NETWORK) for number in range(2, size - 2)]
    assert len(set(found)) == len(found)
    assert not reserved & set(found)
    for number in (0, 1, size - 2, size - 1):
        assert settings.derived_address(ipaddress.IPv4Address(0x0A2A0000 + number), NETWORK) not in reserved


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (settings.Allowed(PODS[0]), "10.42.0.0/16,all,0,0"),
        (settings.Allowed(PODS[0], Port(80)), "10.42.0.0/16,tcp,80,80"),
        (settings.Allowed(PODS[1], Port(1000, "UDP", 1010)), "fd00:10:42::/56,udp,1000,1010"),
        (settings.Allowed(PODS[0], Port(0, "ICMP")), "10.42.0.0/16,icmp,0,0"),
    ],
)
def test_allowed(item: settings.Allowed, text: str) -> None:
    assert item.render() == text


@pytest.mark.parametrize("port", [Port(0), Port(0, name="web"), Port(70000), Port(90, end=80), Port(80, "GRE")])
def test_refused_ports(port: Port) -> None:
    with pytest.raises(ValueError, match="no packet rule"):
        settings.Allowed(PODS[0], port).render()


def test_settings_refuse_what_a_shell_would_run() -> None:
    with pytest.raises(ValueError, match="cannot stand in a settings file"):
        client(gateway=None, gateway_name="a'; reboot; '", dns_servers=(ipaddress.ip_address("10.43.0.10"),)).render()
    with pytest.raises(ValueError, match="ClusterIP, or its name"):
        client(gateway=None).render()


def test_clients_file() -> None:
    services = [
        settings.ClientService("b.media.svc.cluster.local."),
        settings.ClientService("a.media.svc.cluster.local", (settings.Forward(51413, 6881), settings.Forward(0, 6881, "UDP"))),
    ]
    assert settings.render_clients(services) == ("a.media.svc.cluster.local tcp:51413:6881 udp:0:6881\nb.media.svc.cluster.local\n")


@pytest.mark.parametrize("name", sorted(ALL))
def test_shellcheck(name: str, tmp_path: Path) -> None:
    """SC1090, SC1091: files that manifests write; SC2034, SC2153, SC2154: variables of the settings and of sourced files."""
    tool = shutil.which("shellcheck")
    assert tool, "shellcheck is missing here"
    path = tmp_path / name
    path.write_text(ALL[name])
    done = subprocess.run(
        [tool, "-s", "sh", "-e", "SC1090,SC1091,SC2034,SC2153,SC2154", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_commands_name_scripts_that_exist() -> None:
    for command in (scripts.CLIENT_INIT, scripts.CLIENT_SIDECAR, scripts.CLIENT_READY, scripts.CLIENT_METRICS):
        assert command[1].removeprefix(f"{scripts.MOUNT}/") in scripts.CLIENT_SCRIPTS
    for command in (scripts.GATEWAY_INIT, scripts.GATEWAY_SIDECAR, scripts.GATEWAY_READY, scripts.GATEWAY_METRICS):
        assert command[1].removeprefix(f"{scripts.MOUNT}/") in scripts.GATEWAY_SCRIPTS


def test_a_goodbye_ends_in_time() -> None:
    """Rounds of a question, which waits a second for its answer; the rules and the shell come on top."""
    rounds = int(scripts.GATEWAY_SCRIPTS["clients.sh"].split("GOODBYES=")[1].split()[0])
    assert rounds + 3 < scripts.GOODBYE


def test_a_config_map_holds_them() -> None:
    """A ConfigMap is at most 1 MiB; what stands in each client's is far below."""
    assert sum(map(len, scripts.CLIENT_SCRIPTS.values())) < 100_000
    assert sum(map(len, scripts.GATEWAY_SCRIPTS.values())) < 100_000
