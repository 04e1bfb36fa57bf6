"""What `penstock bench` measured, for a terminal and as one page that needs nothing else, not even a script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from penstock.bench.parts import CONNECTIONS

COUNTED: Final = "Every order was counted in the database, and the audit found nothing."
Values = Mapping[str, Any]

COLUMNS: Final = {
    "part": "part",
    "store": "store",
    "merchants": "merchants",
    "preloaded": "before",
    "ids": "ids",
    "processes": "processes",
    "connections": "connections",
    "per_second": "a second",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "baseline_per_second": "pgbench",
    "ratio": "ratio",
    "gateway_cores": "gateway cores",
    "gateway_us": "us each",
    "load_cores": "load",
    "outside_cores": "outside",
    "others_cores": "others",
    "rss_mb": "MB",
    "wal_bytes": "WAL bytes",
}
"""What a row of the table shows, under which heading."""
TEXTS: Final = frozenset({"part", "store", "ids"})
"""Headings over words; the others are over numbers."""


def on_terminal(values: Values) -> RenderableType:
    """A line a case, the baselines, the starts, and the verdict."""
    table = Table(title=f"{values['machine']}, {values['at']}", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in COLUMNS.values():
        table.add_column(heading, justify="left" if heading in TEXTS else "right")
    for row in values["results"]:
        table.add_row(*(shown(row.get(name)) for name in COLUMNS))
    lines = [f"{name}: {number}" for name, number in asides(values)]
    return Group(table, *lines, Text("\n" + verdict(values), style="bold green" if values["ok"] else "bold red"))


def shown(value: object) -> str:
    """A cell."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}".rstrip("0").rstrip(".")
    return f"{value:,}" if isinstance(value, int) else str(value)


def asides(values: Values) -> list[tuple[str, str]]:
    """What belongs to no single row."""
    bases = [
        (f"pgbench, {b['clients']} clients, {b['accounts']:,} accounts", f"{b['per_second']:,.0f} a second") for b in values["baselines"]
    ]
    starts = [
        (
            f"from the start of serve to its first answer, {s['store']}, {s['network']}, {s['preloaded']:,} orders",
            f"{s['first_answer_s']:g} s",
        )
        for s in values["starts"]
    ]
    return bases + starts


def verdict(values: Values) -> str:
    """The last line."""
    return COUNTED if values["ok"] else "Something is wrong: " + "; ".join(values["wrong"])


def page(values: Values) -> str:
    """The whole result as one HTML text, script and style inside."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("page.html.j2").render(
        values=values,
        verdict=verdict(values),
        headings=COLUMNS.values(),
        texts=TEXTS,
        rows=[[(heading, shown(row.get(name))) for name, heading in COLUMNS.items()] for row in values["results"]],
        asides=asides(values),
        charts=[chart for chart in charts(values) if chart["bars"]],
    )


def charts(values: Values) -> list[dict[str, Any]]:
    """Rates beside the baselines, and how long requests take."""
    rows: Sequence[Values] = values["results"]
    names = [_name(row) for row in rows]
    bases = [(f"pgbench, {b['clients']} clients, {_many(b['accounts'], 'account')}", b["per_second"]) for b in values["baselines"]]
    slow = [(name, row["p99_ms"]) for name, row in zip(names, rows, strict=True) if row["p99_ms"] is not None]
    ratios = [(name, row["ratio"]) for name, row in zip(names, rows, strict=True) if row["ratio"] is not None]
    return [
        _chart("How many a second", "", [*zip(names, (row["per_second"] for row in rows), strict=True)], bases),
        _chart("Times the baseline of the same run", "times", ratios),
        _chart("99 of 100 take no longer than", "ms", slow),
    ]


def _chart(title: str, unit: str, ours: Sequence[tuple[str, float]], beside: Sequence[tuple[str, float]] = ()) -> dict[str, Any]:
    """Horizontal bars; those `beside` are not ours."""
    most = max((value for _, value in (*ours, *beside)), default=0) or 1
    bars = [(name, value, False) for name, value in ours] + [(name, value, True) for name, value in beside]
    return {
        "title": title,
        "unit": unit,
        "bars": [{"name": n, "value": shown(v), "percent": round(100 * v / most, 1), "beside": other} for n, v, other in bars],
    }


def _name(row: Values) -> str:
    more = [
        _many(row["merchants"], "merchant"),
        *([f"{row['preloaded']:,} before"] if row["preloaded"] else []),
        *([f"{row['ids']} ids"] if row["ids"] != "random" else []),
        *([f"{row['processes']} processes"] if row["processes"] > 1 else []),
        *([f"{row['connections']} connections"] if row["connections"] != CONNECTIONS else []),
    ]
    return f"{row['part']} {row['store']} ({', '.join(more)})"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
