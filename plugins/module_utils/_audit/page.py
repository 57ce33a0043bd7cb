# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The audit as one HTML page that needs nothing beside itself: a picture, the matrix, the findings."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape
from typing import Any

STYLE = """
:root{color-scheme:light dark;--ink:#1c2733;--soft:#46586a;--line:#d5dce3;--page:#fff;--closed:#f4f6f8;--self:#dfe5ea;
--open:#bcd3ea;--out:#f6c7c0;--maybe:#fbe7a9;--error:#a8201a;--warning:#8a5a00;--way:#5d7f9d;--lead:#c0392b;--dot:#2f5d86}
@media(prefers-color-scheme:dark){:root{--ink:#dbe4ec;--soft:#9fb2c4;--line:#34414d;--page:#141a20;--closed:#1d252d;--self:#2a343d;
--open:#27496b;--out:#6b2b25;--maybe:#63531b;--error:#ff8a80;--warning:#ffc966;--way:#7fa3c2;--lead:#ff7a6b;--dot:#8fb8dc}}
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:110rem;padding:0 1rem;color:var(--ink);background:var(--page)}
h1,h2{line-height:1.2}p{max-width:60rem}table{border-collapse:collapse}
td,th{padding:.25rem .5rem;text-align:left;vertical-align:top}
.m td{border:1px solid var(--line);text-align:center;min-width:1rem;padding:.1rem .3rem;background:var(--closed)}
.m th{white-space:nowrap;font-weight:500;font-size:13px}
.m th.c{writing-mode:vertical-rl;vertical-align:bottom;transform:rotate(180deg)}
.m tr>th:first-child{position:sticky;left:0;background:var(--page)}.m tr:hover>*{outline:1px solid var(--way)}
.m td.self{background:var(--self)}.m td.allowed{background:var(--open)}.m td.out{background:var(--out)}
.m td.implementation-defined{background:var(--maybe)}
.error{color:var(--error);font-weight:600}.warning{color:var(--warning);font-weight:600}.info{color:var(--soft)}
svg{display:block;width:100%;max-width:64rem;height:auto;margin:auto}svg text{font:11px system-ui,sans-serif;fill:var(--ink)}
.way{fill:none;stroke:var(--way);stroke-opacity:.6}.lead{stroke:var(--lead)}.perhaps{stroke-dasharray:4 3}.way:hover{stroke-width:3}
.tip{fill:var(--way)}.dot{fill:var(--dot)}.scroll{overflow-x:auto}.f td{border-top:1px solid var(--line)}
"""


def page(found: dict[str, Any], findings: Iterable[dict[str, Any]], title: str) -> str:
    """The page as text. `found` is the matrix, `findings` are plain data."""
    listed = list(findings)
    counts = {name: sum(1 for item in listed if item["severity"] == name) for name in ("error", "warning", "info")}
    summary = f"{counts['error']} errors, {counts['warning']} warnings, {counts['info']} notes."
    legend = "Rows reach columns. Blue: open. Red: open to the internet. Yellow: left to the implementation. Grey: closed."
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        f"<p>{summary} Read as {escape(found['profile'])} reads policies.</p>",
        "<h2>Who reaches whom</h2>",
        _picture(found),
        f"<p>{legend} Point at a cell or a line for the ports.</p>",
        f'<div class="scroll">{_table(found)}</div>',
        "<h2>Findings</h2>",
        _findings(listed),
        "</body></html>",
        "",
    ]
    return "\n".join(parts)


def _table(found: dict[str, Any]) -> str:
    head = "".join(f'<th class="c">{escape(name)}</th>' for name in found["names"])
    rows = []
    for row in found["rows"]:
        cells = "".join(_cell(row["from"], name, cell) for name, cell in zip(found["names"], row["cells"], strict=True))
        rows.append(f"<tr><th>{escape(row['from'])}</th>{cells}</tr>")
    return f'<table class="m"><tr><th></th>{head}</tr>{"".join(rows)}</table>'


def _cell(source: str, target: str, cell: dict[str, str]) -> str:
    verdict = cell["verdict"]
    sign = {"allowed": "+", "implementation-defined": "?"}.get(verdict, "")
    kind = "out" if verdict == "allowed" and target == "internet" else verdict
    tip = escape(f"{source} to {target}: {cell['ports'] or verdict}")
    return f'<td class="{kind}" title="{tip}">{sign}</td>'


def _picture(found: dict[str, Any]) -> str:
    """Names on a circle, a line for each way that is open. Beyond sixty names a picture says nothing any more."""
    names = found["names"]
    if not 1 < len(names) <= 60:
        return ""
    radius = max(150, 7 * len(names))  # so that neighbours on the circle keep a line's height between them
    edge = radius + 12 + 6 * max(len(name) for name in names)
    turns = [2 * math.pi * index / len(names) for index in range(len(names))]
    places = [(radius * math.cos(turn), radius * math.sin(turn)) for turn in turns]
    lines = []
    for source, row in enumerate(found["rows"]):
        for target, cell in enumerate(row["cells"]):
            if cell["verdict"] in ("allowed", "implementation-defined") and source != target:
                (x1, y1), (x2, y2) = places[source], places[target]
                kind = "way lead" if names[target] == "internet" else "way"
                kind += " perhaps" if cell["verdict"] != "allowed" else ""
                label = f"{names[source]} to {names[target]}: {cell['ports']}"
                lines.append(
                    f'<path class="{kind}" d="M{x1:.0f},{y1:.0f} Q{(x1 + x2) / 6:.0f},{(y1 + y2) / 6:.0f} {x2:.0f},{y2:.0f}"'
                    f' marker-end="url(#a)"><title>{escape(label)}</title></path>'
                )
    dots = []
    for name, turn, (x, y) in zip(names, turns, places, strict=True):
        # read outwards on the right half and inwards on the left, so that no name stands on its head
        right = math.cos(turn) >= -1e-9
        angle = math.degrees(turn) + (0 if right else 180)
        anchor, shift = ("start", 9) if right else ("end", -9)
        dots.append(f'<circle class="dot" cx="{x:.0f}" cy="{y:.0f}" r="4"/>')
        place = f'transform="translate({x:.0f} {y:.0f}) rotate({angle:.1f})" x="{shift}" y="4" text-anchor="{anchor}"'
        dots.append(f"<text {place}>{escape(name)}</text>")
    arrow = (
        '<defs><marker id="a" viewBox="0 0 8 8" refX="11" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
        '<path class="tip" d="M0,0 L8,4 L0,8 z"/></marker></defs>'
    )
    box = f"{-edge} {-edge} {2 * edge} {2 * edge}"
    return f'<svg viewBox="{box}" role="img" aria-label="Who reaches whom">{arrow}{"".join(lines)}{"".join(dots)}</svg>'


def _findings(listed: list[dict[str, Any]]) -> str:
    if not listed:
        return "<p>None.</p>"
    rows = "".join(
        f'<tr><td class="{item["severity"]}">{item["severity"]}</td>'
        f"<td>{escape(item['code'])}</td><td>{escape(item['subject'])}</td>"
        f"<td>{escape(item['message'])}<br><small>{escape(item['policy'])} {escape(item['rule'])}</small></td>"
        f"<td>{escape(item['mend'])}</td></tr>"
        for item in listed
    )
    return f'<table class="f"><tr><th></th><th>what</th><th>where</th><th>why</th><th>mend</th></tr>{rows}</table>'
