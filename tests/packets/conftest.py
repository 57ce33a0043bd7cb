# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One home per layout, shared by the rows of the matrix; and the table of what they saw."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from .evidence import Evidence
from .home import Home, Seen
from .lab import Pod, wait_for

if os.environ.get("NETGUARD_LAB") != "inside":
    raise pytest.UsageError("the packet tests run in namespaces of their own: use `make packets` or tests/packets/run.py")

EVIDENCE = Evidence()
#: (how the CNI lays out pods, shell and tools of the containers)
HOMES = (("calico", "ash"), ("flannel", "dash"), ("cilium", "ash"))


class Stage:
    """A home with one client, `c1`, that talks all the time."""

    def __init__(self, profile: str, shell: str) -> None:
        self.folder = Path(os.environ["NETGUARD_LAB_FOLDER"]) / f"{profile}-{shell}"
        self.home = Home(profile, shell, self.folder)
        self.lab = self.home.lab
        self.profile, self.shell = profile, shell
        self.c1 = self.home.client_pod("c1", 10)
        self.home.prober(self.c1, source=self.c1.ip)
        self.home.peer_pods()
        self.home.serve(self.c1)

    @property
    def where(self) -> str:
        return f"{self.profile}, {self.shell}"

    def connect(self) -> None:
        """Whatever a row left behind, the next one begins with a client that is connected."""
        home = self.home
        if home.paused:
            for sensor in home.sensors.values():
                sensor.call("hold", False)
            home.pause(False)
        if "sidecar" not in self.c1.processes:
            home.known(self.c1)
            self.lab.client_up(self.c1)
        if home.gateway is None:
            home.gateway_up()
        assert home.gateway is not None
        if "gluetun" in home.gateway.processes and home.environment != home.gateway_environment():
            home.kill_gluetun()
        if "gluetun" not in home.gateway.processes:
            home.gluetun()
        try:
            wait_for("the client is ready", lambda: self.lab.client_ready(self.c1), pause=0.1)
            home.back(self.c1)
        except AssertionError:  # a row that failed must not take the others with it
            home.gateway_down()
            home.gateway_up()
            home.back(self.c1)

    def record(self, row: str, state: str, seen: Seen, **more: object) -> None:
        EVIDENCE.add(row, self.where, state, seen, **more)

    def closed(self, row: str, state: str, seen: Seen, *, ignore: tuple[str, ...] = (), **more: object) -> None:
        """The row's claim: while the probes never paused, nothing left by another way than the tunnel; and who may come in can."""
        self.record(row, state, seen, **more)
        leaks = {name: count for name, count in seen.leaks.items() if count and not (ignore and name.startswith(ignore))}
        assert not leaks, f"{row} {state}: {leaks}\n" + "\n".join(seen.examples) + "\n" + self.rules()
        seconds = seen.end - seen.start
        assert seen.sent >= 50 * min(seconds, 600) or seconds < 0.3, f"{row}: {seen.sent} probes in {seconds:.1f} s are too few"
        refused = self.home.inbound(self.c1)
        assert not refused, f"{row} {state}: cannot connect: {refused}\n{self.rules()}"

    def rules(self) -> str:
        return "\n".join(
            f"--- {pod.name}: {tool}\n{self.lab.exec(pod.name, tool, '-c', check=False)}"
            for pod in self.lab.pods.values()
            if pod.name != "dns"
            for tool in ("iptables-save", "ip6tables-save")
        )

    def logs(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.log")))

    def stop_sidecar(self, pod: Pod | None = None, how: int = signal.SIGTERM) -> float:
        return self.lab.stop((pod or self.c1).processes.pop("sidecar"), how)

    def stop_sidecar_of_gateway(self) -> None:
        assert self.home.gateway is not None
        self.stop_sidecar(self.home.gateway)

    def mac(self, where: str, interface: str = "eth0") -> str:
        return self.lab.run(where, f"ip -o link show dev {interface}").split("link/ether ")[1].split()[0]

    def router_mac(self) -> bytes:
        """Where the pod's own default route sends its frames."""
        interface = "cni0" if self.profile == "flannel" else self.c1.veth
        return bytes(int(part, 16) for part in self.mac(self.c1.node, interface).split(":"))


@pytest.fixture(scope="session", params=HOMES, ids=["-".join(home) for home in HOMES])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    made = Stage(*request.param)
    yield made
    made.home.end()


@pytest.fixture
def connected(stage: Stage) -> Stage:
    stage.connect()
    return stage


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "everywhere: the row runs in every layout; the others in the first alone")
    # where only that layout has it, or where the two parts of the lane would not take equally long
    config.addinivalue_line("markers", "layout(name): the row runs in this layout")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Which row runs where; NETGUARD_PACKETS=all runs every row of the matrix in every layout."""
    first = "-".join(HOMES[0])
    kept, dropped = [], []
    for item in items:
        here = "-".join(item.callspec.params.get("stage", HOMES[0])) if hasattr(item, "callspec") else first
        layout = item.get_closest_marker("layout")
        everywhere = item.get_closest_marker("everywhere") or os.environ.get("NETGUARD_PACKETS") == "all"
        wanted = here in os.environ.get("NETGUARD_LAYOUTS", here).split(",")
        (kept if wanted and (layout.args[0] == here if layout else here == first or everywhere) else dropped).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=dropped)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    stage = getattr(item, "funcargs", {}).get("stage")
    if report.failed and stage is not None:
        report.sections.append(("logs of the pods", stage.logs()))


def pytest_sessionfinish(session: pytest.Session) -> None:
    EVIDENCE.keep(Path(os.environ["NETGUARD_LAB_FOLDER"]) / "evidence.json")
