"""What people read on a terminal: tables and timelines from the same values that `--json` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

NO_NETWORK = "no network is on; set networks.<CHAIN>.rpc_urls."

_STATE_STYLE = {
    "succeeded": "green",
    "failed": "red",
    "held": "yellow",
    "quarantined": "bold red",
    "Successful": "green",
    "Failed": "red",
}


def moment(at_ms: int | None) -> str:
    """A time in UTC, to the second."""
    return "" if at_ms is None else f"{datetime.fromtimestamp(at_ms // 1000, UTC):%Y-%m-%d %H:%M:%S}"


def _cell(name: str, value: object) -> Text:
    if name.endswith("_at_ms") or name == "at_ms":
        return Text(moment(value if isinstance(value, int) else None))
    if isinstance(value, Mapping):
        return Text(", ".join(f"{key} {item}" for key, item in value.items()))
    if isinstance(value, list | tuple):
        return Text(", ".join(str(item) for item in value))
    text = "" if value is None else "yes" if value is True else "no" if value is False else str(value)
    return Text(text, style=_STATE_STYLE.get(text, ""))


def _title(name: str) -> str:
    return "at" if name == "at_ms" else name.removesuffix("_at_ms").replace("_", " ")


def facts(title: str, values: Mapping[str, Any]) -> RenderableType:
    """One thing, a line a fact."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in values.items():
        table.add_row(_title(name), _cell(name, value))
    return Panel(table, title=title, title_align="left", expand=False)


def rows(title: str, values: Sequence[Mapping[str, Any]], *, empty: str = "none yet.") -> RenderableType:
    """Many things, a row each; `empty` is said when there are none."""
    if not values:
        return Text(f"{title}: {empty}")
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in values[0]:
        table.add_column(_title(name), overflow="fold")
    for value in values:
        table.add_row(*(_cell(name, value.get(name)) for name in values[0]))
    return table


def orders(values: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Orders, newest first."""
    columns = ("created_at_ms", "order_id", "merchant_order_id", "state", "hold_reason", "chain", "crypto", "value", "net_receivable")
    return rows("Orders", [{name: order[name] for name in columns} for order in values])


def treasury(values: Sequence[Mapping[str, Any]], *, every: bool) -> RenderableType:
    """Hot addresses; networks that are off only on demand, as one line each address otherwise."""
    shown = [value for value in values if every or value["on_chain"] is not None or value["in_books"] != "0"]
    addresses = sorted({value["address"] for value in values})
    return Group(
        rows("Treasury", shown, empty=NO_NETWORK),
        *(Text(f"Hot address of every EVM network, on or off: {address}") for address in addresses),
    )


def account(value: Mapping[str, Any]) -> RenderableType:
    """An internal account with balances and history."""
    head = facts("Account", {name: value[name] for name in ("c_id", "email", "nickname")})
    return Group(head, rows("Balances", value["balances"]), rows("History", value["history"]))


def timeline(order: Mapping[str, Any]) -> RenderableType:
    """One order from request to webhook."""
    names = ("merchant_order_id", "chain", "crypto", "value", "network_fee", "net_receivable", "address", "memo", "txid")
    parts: list[RenderableType] = [
        facts(f"Order {order['order_id']}: {order['state']}", {n: order[n] for n in names if order[n] != ""}),
        rows("States", [{"at_ms": s["at_ms"], "state": s["state"], "reason": s["reason"]} for s in order["states"]]),
    ]
    for number, attempt in enumerate(order["attempts"], 1):
        shown = {n: attempt[n] for n in ("slot", "state", "seen", "fee_cap", "gas_paid", "fee_taken") if attempt.get(n) not in (None, "")}
        versions = [{n: v[n] for n in ("number", "kind", "txid", "sends", "verdict", "sent_at_ms")} for v in attempt["versions"]]
        parts += [facts(f"Attempt {number}", shown), rows("Versions", versions)]
    if order["webhook"] is not None:
        webhook = order["webhook"]
        never = Text(f"Webhook: {webhook['state']}, {webhook['result'] or 'not sent yet'}")
        parts.append(rows(f"Webhook: {webhook['state']}", webhook["sends"]) if webhook["sends"] else never)
    if order["waits_for"]:
        parts.append(Text(f"Waits for: {order['waits_for']}", style="yellow"))
    parts.append(Text(f"Next: {order['next']}", style="bold"))
    return Group(*parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun if number == 1 else 'entries' if noun == 'entry' else noun + 's'}"


def audit(report: Mapping[str, Any]) -> RenderableType:
    """What was checked and what differs."""
    counts = report["counts"]
    clean = not report["breaches"]
    parts: list[RenderableType] = [
        Text(
            f"Recomputed {_count(counts['orders'], 'order')} from {_count(counts['entries'], 'entry')}: "
            + ("the books are sound." if clean else "THE BOOKS DIFFER."),
            style="green" if clean else "bold red",
        )
    ]
    if report["breaches"]:
        parts.append(rows("Breaches (stop)", report["breaches"]))
    if report["warnings"]:
        parts.append(rows("Warnings", report["warnings"]))
    house = [{"account": name, "coin": coin, "balance": text} for name, coins in report["balances"].items() for coin, text in coins.items()]
    parts.append(rows("House accounts", house))
    return Group(*parts)
