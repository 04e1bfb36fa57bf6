"""What `penstock prove` found, for a terminal and as one page that needs nothing else (charts: uPlot, in penstock/charts)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from penstock.prove.run import SUMS, Proof

CHARTS: Final = Path(__file__).parent.parent / "charts"
HOLDS: Final = "Nothing was paid twice, nothing was lost."
SEEN: Final = " Every planted bug was seen."
ROWS_MAX: Final = 400
"""Rows of one table on the page; the JSON has them all."""


def on_terminal(proof: Proof) -> RenderableType:
    """A line a lane, what was found, and the verdict."""
    values = proof.values
    lanes = Table(title="What was tried", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("lane", "took", "had", "tried", "breaches"):
        lanes.add_column(name, justify="left" if name in {"lane", "tried"} else "right")
    for lane in values["lanes"]:
        tried = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in lane["counts"].items())
        breaches = Text(str(len(lane["found"])), style="red" if lane["found"] else "green")
        lanes.add_row(lane["lane"], f"{lane['took_s']:.0f} s", f"{lane['had_s']:.0f} s", tried, breaches)
    sums = Table(show_header=False, box=None, pad_edge=False)
    for name in SUMS.values():
        sums.add_row(name.replace("_", " "), Text(str(values[name]), style="bold red" if values[name] else "green"))
    sums.add_row("planted bugs caught", _caught(values))
    found = [_breach(lane["lane"], one) for lane in values["lanes"] for one in lane["found"]]
    return Group(lanes, sums, *found, verdict(proof))


def _caught(values: Mapping[str, Any]) -> str:
    return f"{values['planted_bugs_caught']} of {values['planted_bugs']}" if values["planted_bugs"] else "none looked for"


def _breach(lane: str, one: Mapping[str, str]) -> Text:
    return Text.assemble(
        ("\n" + lane, "bold red"), f" {one['breach']}: {one['text']}", f"\n  again: {one['replay']}" if one["replay"] else ""
    )


def verdict(proof: Proof) -> Text:
    """The last line, which a person remembers."""
    if proof.holds:
        return Text(f"\n{HOLDS}{SEEN if proof.values['planted_bugs'] else ''}", style="bold green")
    return Text("\nSomething is wrong: see above, and say so to the people who make Penstock.", style="bold red")


def page(proof: Proof) -> str:
    """The whole report as one HTML text, script and style inside."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    values = proof.values
    lanes = {lane["lane"]: lane for lane in values["lanes"]}
    return environment.get_template("page.html.j2").render(
        values=values,
        holds=proof.holds,
        verdict=verdict(proof).plain.strip(),
        caught=_caught(values),
        sums=[(name.replace("_", " "), values[name]) for name in SUMS.values()],
        charts=[chart for chart in (_planted(lanes), _recoveries(lanes)) if chart is not None],
        tables=[_table(lane) for lane in values["lanes"] if lane["table"]],
        uplot=(CHARTS / "uPlot.iife.min.js").read_text("utf-8"),
        uplot_css=(CHARTS / "uPlot.min.css").read_text("utf-8"),
    )


def _planted(lanes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    rows = [row for row in lanes.get("planted", {}).get("table", []) if row.get("caught")]
    if not rows:
        return None
    rows.sort(key=lambda row: row["seeds_tried"])
    return {
        "title": "Seeds until each planted bug was caught",
        "names": [row["name"] for row in rows],
        "values": [row["seeds_tried"] for row in rows],
        "unit": "seeds",
    }


def _recoveries(lanes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    rows = [row for row in lanes.get("crash", {}).get("table", []) if row.get("answers_again_s")]  # nothing answers before the first start
    if not rows:
        return None
    return {
        "title": "Longest seconds from a blow to the first answer after it",
        "names": [f"{row['blow']} ({row['database']})" for row in rows],
        "values": [row["answers_again_s"] for row in rows],
        "unit": "s",
    }


def _table(lane: Mapping[str, Any]) -> dict[str, Any]:
    rows: Sequence[Mapping[str, Any]] = lane["table"][:ROWS_MAX]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {"title": f"{lane['lane']}: {lane['title']}", "names": names, "rows": [[row.get(name, "") for name in names] for row in rows]}
