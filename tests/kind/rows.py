# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A row of the table: what the sensors saw while a state or fault lasted, how long until blocked, how long until back.

A row holds when no sensor saw a packet of a client outside of the tunnel, every sensor saw the unguarded application meanwhile, the
clients tried at least `PROBES` times, and a client's web page answered another pod throughout.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..cluster import images, kind_evidence
from ..packets.evidence import BEGIN, END, Evidence
from . import sensors
from .field import CLOCK, FieldError, Pod, fault, say, wait_for

CLIENT = Pod("media", "app=qbittorrent")
SECOND = Pod("media", "app=transmission")
NEIGHBOUR = Pod("media", "app=prowlarr")
GATEWAY = Pod("vpn", "homelab.netguard/gateway=lab")
WHERE = "kind, calico"
#: Packets that the client must have tried to send in a row's window.
PROBES = 150
#: Seconds for which packets may leave where docs/packets.md says that some do: twice its target, since a kind node is a busy one.
REMAINS = 4.0
#: Failures of a run of which the cluster's state is kept.
LEFT = 3


class Row:
    """One row while it lasts. The body sets `block`, `recover` and `note`."""

    def __init__(self, name: str, state: str) -> None:
        self.name, self.state = name, state
        self.block: float | None = None
        self.recover: float | None = None
        self.note = ""
        self.sent = 0
        self.remained = 0  # packets that the host's sensor counted where some are known to remain
        self.begun = time.time()


class Table:
    """The rows of a run; kept in a file, so that several steps of a scenario write one table."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.started = time.monotonic()
        self.evidence = Evidence()
        self.faults: list[str] = []
        self.leaked = False
        self.last: sensors.Seen | None = None  # what the sensors had counted at the end of the last row
        self.was_open = False  # the last row left a pod open
        self.left = 0  # failures of which the moment was kept
        self.paged = False  # the neighbour had its page at the end of the last row
        if path.exists():
            self.evidence.take(path)

    @contextmanager
    def row(self, name: str, state: str, *, open_pod: bool = False, open_all: bool = False, web: bool = True,
            asleep: tuple[str, ...] = (), remains: bool = False) -> Iterator[Row]:  # fmt: skip
        """`open_pod`: the guard is off on purpose, packets may leave the pod but not the node. `open_all`: a positive control.
        `asleep`: nodes that cannot be asked. `remains`: what leaves the nodes is what docs/packets.md says remains; it is noted,
        captured, and must end within `REMAINS`."""
        capture, row = sensors.Capture(self.path.with_name(f"leaked-{len(self.evidence.rows)}.pcap")), Row(name, state)
        faults = len(self.faults)
        try:
            yield from self._row(row, open_pod, open_all, web, asleep, remains)
        except (FieldError, images.ImageError):
            self.leave(name)
            raise
        finally:
            lines = capture.end()
            lasted = sensors.span(lines)
            if remains:
                # a capture that missed packets would pass for a short one
                self.leaked |= lasted > REMAINS or len(lines) < row.remained
                self.check(len(lines) >= row.remained, row, f"captured {len(lines)} of {row.remained} packets that were counted")
                self.check(lasted <= REMAINS, row, f"packets left the nodes for {lasted:.1f} s")
            if self.leaked:
                told = f"leaked ({capture.file}), the first and the last of {len(lines)} packets:"
                say("\n".join([told, *lines[:15], *lines[-5:]]))
            else:
                capture.drop()
        if len(self.faults) > faults:
            self.leave(name)

    def _row(self, row: Row, open_pod: bool, open_all: bool, web: bool, asleep: tuple[str, ...], remains: bool) -> Iterator[Row]:
        self.leaked = False
        if web and not self.paged:
            # of a client that was new in the row before: until kube-proxy knows it, questions go to the old one
            page_since(time.time())
        self.paged = False
        before = sensors.look(asleep)
        self.between(row, before)
        row.begun = time.time()
        yield row
        row.sent = tried(row)
        awake(before, asleep)
        self.last, self.was_open = sensors.look(asleep), open_pod or open_all
        seen = self.last.since(before)
        if remains:
            row.remained = seen.leaks.pop("S3 host")
            row.note = f"what remains: {row.remained} packets of the overlay left the node"
        self.add(row, seen)
        if open_all:
            silent = [sensor for sensor, count in seen.leaks.items() if count == 0]
            self.check(not silent, row, f"the positive control was not seen by {silent}")
            return
        leaks = {sensor: count for sensor, count in seen.leaks.items() if count and not (open_pod and sensor.startswith("S4"))}
        self.leaked = bool(leaks)
        self.check(not leaks, row, f"outside the tunnel: {leaks}")
        if web:
            failed = unanswered(row.begun, time.time())
            told = ", ".join(f"{begun - row.begun:.1f} to {ended - row.begun:.1f} s" for begun, ended in failed)
            self.check(not failed, row, f"the client's web page did not answer its neighbour ({told} of the row)")
            self.paged = not failed

    def between(self, row: Row, now: sensors.Seen) -> None:
        """Sensors count between the rows as well, and in a row that did not come to its end."""
        if self.last is None:
            return
        leaks = {}
        for name, count in now.leaks.items():
            then = self.last.leaks.get(name, count)
            more = count - then if count >= then else count  # one that was loaded anew began at zero
            if more and not (self.was_open and name.startswith("S4")):
                leaks[name] = more
        self.check(not leaks, row, f"before it, outside the tunnel: {leaks}")

    def add(self, row: Row, seen: sensors.Seen) -> None:
        names = sum(count for sensor, count in seen.leaks.items() if "names" in sensor)
        packets = sum(count for sensor, count in seen.leaks.items() if "names" not in sensor)
        times = ["" if value is None else f"{value:.2f} s" for value in (row.block, row.recover)]
        if seen.questions:
            row.note = "; ".join(filter(None, (row.note, f"{seen.questions} questions to a gone gateway without content")))
        # every sensor here is a counter; flows are not looked at but in E1
        cells = (row.name, WHERE, row.state, str(row.sent), *[str(packets)] * 2, "", str(names), str(seen.vpn), *times, row.note)
        self.evidence.rows.append(cells)
        say(f"[{time.monotonic() - self.started:4.0f} s] {' | '.join(cells)}")
        self.keep()

    def check(self, good: bool, row: Row, text: str) -> None:
        if not good:
            self.faults.append(f"{row.name} ({row.state}): {text}")
            fault(self.faults[-1])

    def leave(self, name: str) -> None:
        """Keeps what the cluster looks like while a row fails, before anything is mended; of the first few."""
        self.left += 1
        if self.left <= LEFT:
            folder = self.path.with_name(f"{self.left}-{'-'.join(re.findall('[A-Za-z0-9]+', name))}")
            kind_evidence.collect(folder)
            say(f"logs, routes, rules and events of this moment are in {folder}")

    def keep(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.evidence.keep(self.path)


def tried(row: Row) -> int:
    """Waits until the client has tried often enough since the row began; how often it did. A new pod counts from its start."""

    def sent() -> int:
        state = CLIENT.state()
        total = sum(state["sent"].values())
        if state["begun"] < row.begun:
            total -= base.setdefault(state["begun"], total)
        return int(total)

    base: dict[float, int] = {}
    wait_for("probes of the client", lambda: sent() >= PROBES)
    return sent()


def page_since(moment: float) -> None:
    """Waits until a question for the client's page that its neighbour began after `moment` was answered."""

    def answered() -> bool:
        state = NEIGHBOUR.state()
        failures = [begun for begun, _ended in state["web_failures"]]
        return bool(state["web_last"] > moment and state["web_last"] not in failures)

    wait_for("the client's neighbour has its page", answered)


def unanswered(since: float, until: float) -> list[tuple[float, float]]:
    """The neighbour's questions for the client's page without an answer, each with its begin and end: what ended after `since` and
    began before `until`. Waits for the last of them."""
    state: dict[str, Any] = {}

    def ended() -> bool:
        state.update(NEIGHBOUR.state())
        return bool(state["web_last"] > until)

    wait_for("the neighbour's last question has its answer", ended)
    return [(begun, at) for begun, at in state["web_failures"] if at >= since and begun <= until]


def awake(before: sensors.Seen, asleep: tuple[str, ...]) -> None:
    """Waits until every sensor has seen the unguarded application since `before`."""

    def all_seen() -> bool:
        seen = sensors.look(asleep).since(before)
        missing = [name for name, count in seen.control.items() if count <= 0]
        if missing:
            raise FieldError(f"nothing seen by {missing}")
        return True

    wait_for("every sensor awake", all_seen)


# -- states of the client -------------------------------------------------------------------------------------------------------


def last_answer() -> float:
    """When the client's clock probe was last answered (the machine's clock); 0 when it never was."""
    return float(CLIENT.state()["last"].get(CLOCK, 0.0))


def connected(*, second: bool = True) -> None:
    """Waits until the clients talk through the tunnel and all is ready again."""
    wait_for("the client talks through the tunnel", lambda: time.time() - last_answer() < 1.5)
    wait_for("the gateway is ready", GATEWAY.ready)
    wait_for("the client is ready", CLIENT.ready)
    if second:
        wait_for("the second client is ready", SECOND.ready)


def blocked(row: Row, since: float) -> None:
    """Waits until no answer has come for two seconds; notes how long after the fault the last one came."""

    def still() -> bool:
        state: dict[str, Any] = CLIENT.state()
        return bool(state["now"] - max(state["last"].get(CLOCK, 0.0), since, state["begun"]) > 2.0)

    wait_for("the client is cut off", still)
    row.block = max(0.0, last_answer() - since)


def back(row: Row, since: float) -> None:
    """Waits for the first answer after `since`; notes how long it took."""
    found: list[float] = []

    def answered() -> bool:
        found[:] = [at for at in CLIENT.state()["times"] if at > since]
        return bool(found)

    wait_for("the client is back", answered)
    row.recover = found[0] - since


def gap(row: Row, since: float) -> None:
    """For a fault that heals by itself: the first silence of more than half a second after `since`, and its end."""

    def ended() -> bool:
        times = [since, *(at for at in CLIENT.state()["times"] if at > since)]
        for before, after in itertools.pairwise(times):
            if after - before > 0.5:
                row.block, row.recover = before - since, after - since
                return True
        return False

    wait_for("a gap in the client's traffic, and its end", ended)


def write(table: Table) -> int:
    """Writes the whole table beside its rows, prints it and what failed; the exit code."""
    rows = table.evidence.text().replace(BEGIN, "").replace(END, "").strip()
    faults = "".join(f"\n- FAILED {text}" for text in table.faults)
    table.path.with_name("table.md").write_text(f"{rows}\n{faults}\n")
    print(f"\n{rows}\n{faults}", flush=True)
    return int(bool(table.faults))
