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
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#1c2733;background:#fff}
h1,h2{line-height:1.2}table{border-collapse:collapse}td,th{padding:.25rem .5rem;text-align:left;vertical-align:top}
.m td{border:1px solid #d5dce3;text-align:center;min-width:1.4rem}.m th.c{writing-mode:vertical-rl;font-weight:500}
.allowed{background:#f6c7c0}.allowed.want{background:#bfe3c8}.denied{background:#f4f6f8}.implementation-defined{background:#fbe7a9}
.self{background:#dfe5ea}.error{color:#a8201a;font-weight:600}.warning{color:#8a5a00;font-weight:600}.info{color:#46586a}
svg text{font:12px system-ui,sans-serif;fill:currentColor}.scroll{overflow:auto}
@media(prefers-color-scheme:dark){body{background:#141a20;color:#dbe4ec}.m td{border-color:#34414d}.denied{background:#1d252d}
.allowed{background:#6b2b25}.implementation-defined{background:#63531b}.self{background:#2a343d}.error{color:#ff8a80}.warning{color:#ffc966}
.info{color:#9fb2c4}}
"""


def page(found: dict[str, Any], findings: Iterable[dict[str, Any]], title: str) -> str:
    """The page as text. `found` is the matrix, `findings` are plain data."""
    listed = list(findings)
    counts = {name: sum(1 for item in listed if item["severity"] == name) for name in ("error", "warning", "info")}
    summary = f"{counts['error']} errors, {counts['warning']} warnings, {counts['info']} notes."
    legend = "Red: reaches. Yellow: left to the implementation. Grey: closed. Point at a cell for the ports."
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        f"<p>{summary} Read as {escape(found['profile'])} reads policies.</p>",
        "<h2>Who reaches whom</h2>",
        _picture(found),
        f'<div class="scroll">{_table(found)}</div>',
        f"<p>{legend}</p>",
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
    tip = escape(f"{source} to {target}: {cell['ports'] or verdict}")
    return f'<td class="{verdict}" title="{tip}">{sign}</td>'


def _picture(found: dict[str, Any]) -> str:
    """Names on a circle, a line for each way that is open. Beyond sixty names a picture says nothing any more."""
    names = found["names"]
    if not 1 < len(names) <= 60:
        return ""
    radius, middle = 210, (430, 270)
    places = [
        (
            middle[0] + radius * math.cos(2 * math.pi * index / len(names)),
            middle[1] + radius * math.sin(2 * math.pi * index / len(names)),
        )
        for index in range(len(names))
    ]
    lines = []
    for source, row in enumerate(found["rows"]):
        for target, cell in enumerate(row["cells"]):
            if cell["verdict"] in ("allowed", "implementation-defined") and source != target:
                (x1, y1), (x2, y2) = places[source], places[target]
                colour = "#c0392b" if names[target] == "internet" else "#5d7f9d"
                dash = ' stroke-dasharray="4 3"' if cell["verdict"] != "allowed" else ""
                label = f"{names[source]} to {names[target]}: {cell['ports']}"
                lines.append(
                    f'<path d="M{x1:.0f},{y1:.0f} Q{middle[0]},{middle[1]} {x2:.0f},{y2:.0f}" fill="none" stroke="{colour}"'
                    f' stroke-opacity=".55"{dash} marker-end="url(#a)"><title>{escape(label)}</title></path>'
                )
    dots = []
    for name, (x, y) in zip(names, places, strict=True):
        anchor = "start" if x >= middle[0] else "end"
        shift = 9 if anchor == "start" else -9
        dots.append(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="5" fill="#2f5d86"/>')
        dots.append(f'<text x="{x + shift:.0f}" y="{y + 4:.0f}" text-anchor="{anchor}">{escape(name)}</text>')
    arrow = (
        '<defs><marker id="a" viewBox="0 0 8 8" refX="12" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#5d7f9d"/></marker></defs>'
    )
    return f'<svg viewBox="0 0 860 540" role="img" aria-label="Who reaches whom">{arrow}{"".join(lines)}{"".join(dots)}</svg>'


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
    return f"<table><tr><th></th><th>what</th><th>where</th><th>why</th><th>mend</th></tr>{rows}</table>"
