"""What people read on a terminal: tables and timelines from the same values that `--json` prints."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from penstock.core.money import LEDGER_DECIMALS, plain

NO_NETWORK = "no network is on; set networks.<CHAIN>.rpc_urls."
ALL_OPEN = "nothing to open: the hot address can use every token of this network, or will soon."

# What is copied from the screen stays in one piece as long as the terminal is wide enough for it alone.
_WHOLE = frozenset({"order_id", "token_id", "coin_id", "app_id", "c_id", "chain", "coin", "crypto"})

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
    return Text(text, style=_STATE_STYLE.get(text.partition(":")[0], ""))


def _title(name: str) -> str:
    if name == "at_ms" or name.endswith("_at_ms"):
        return f"{name.removesuffix('_ms').removesuffix('_at')} (UTC)"
    return name.replace("_", " ")


def facts(title: str, values: Mapping[str, Any]) -> RenderableType:
    """One thing, a line a fact."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in values.items():
        table.add_row(_title(name), _cell(name, value))
    return Panel(table, title=title, title_align="left", expand=False)


def secret(title: str, values: Mapping[str, Any]) -> RenderableType:
    """The same without a frame and without folding: what is shown once has to survive being copied from a narrow terminal."""
    width = max(len(_title(name)) for name in values)
    lines = [
        Text.assemble((f"{_title(name):{width}}  ", "dim"), _cell(name, value), no_wrap=True, overflow="ignore")
        for name, value in values.items()
        if value != ""
    ]
    return Group(Text(title, style="bold yellow"), *lines)


class _Rows:
    """A table that leaves out its spare columns, one after the other, where the terminal is too narrow for them."""

    def __init__(self, title: str, values: Sequence[Mapping[str, Any]], spare: Sequence[str]) -> None:
        self._title = title
        self._values = values
        self._spare = spare

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        names = list(self._values[0])
        table = self._table(names)
        for name in self._spare:
            if Measurement.get(console, options.update(max_width=10_000), table).maximum <= options.max_width:
                break
            names.remove(name)
            table = self._table(names)
        yield table

    def _table(self, names: Sequence[str]) -> Table:
        table = Table(
            title=self._title,
            title_justify="left",
            title_style="bold",
            header_style="dim",
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        for name in names:
            table.add_column(_title(name), overflow="fold", no_wrap=name in _WHOLE)
        for value in self._values:
            table.add_row(*(_cell(name, value.get(name)) for name in names))
        return table


def rows(title: str, values: Sequence[Mapping[str, Any]], *, empty: str = "none yet.", spare: Sequence[str] = ()) -> RenderableType:
    """Many things, a row each; `empty` is said when there are none, `spare` columns go first where there is no room."""
    return _Rows(title, values, spare) if values else Text(f"{title}: {empty}")


def orders(values: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Orders, newest first."""
    shown = [
        {
            "order_id": order["order_id"],
            "merchant's id": order["merchant_order_id"],
            "state": f"{order['state']}: {order['hold_reason']}" if order["hold_reason"] else order["state"],
            "amount": f"{order['value']} {order['crypto']}",
            "chain": "inside" if order["internal"] else order["chain"],
            "net_receivable": order["net_receivable"],
            "created_at_ms": order["created_at_ms"],
        }
        for order in values
    ]
    return rows("Orders", shown, spare=("net_receivable", "created_at_ms"))


def treasury(values: Sequence[Mapping[str, Any]], *, every: bool) -> RenderableType:
    """What the hot addresses hold; networks that are off only on demand. Networks of a family share one address."""
    shown = [value for value in values if every or value["on"] or value["in_books"] != "0"]
    columns = ("chain", "crypto", "on_chain", "in_books")
    table = [{name: value[name] for name in columns} for value in shown]
    silent = sorted({value["chain"] for value in shown if value["on"] and value["on_chain"] is None})
    chains_of: dict[str, dict[str, None]] = {}
    for value in values:
        for address in value["addresses"]:
            chains_of.setdefault(address, {})[value["chain"]] = None
    several = [
        {"chain": value["chain"], "crypto": value["crypto"], "address": address, "on_chain": on_chain}
        for value in shown
        for address, on_chain in value["addresses"].items()
        if len(value["addresses"]) > 1
    ]
    return Group(
        rows("Treasury", table, empty=NO_NETWORK),
        *([rows("Each hot address", several)] if several else []),
        *(
            Text(f"The nodes of {chain} do not answer as they should; /readyz and the log of serve say why.", style="yellow")
            for chain in silent
        ),
        Text("Hot addresses, of networks on or off:"),
        *(Text(f"{address}  {', '.join(chains)}", no_wrap=True, overflow="ignore") for address, chains in chains_of.items()),
    )


def catalog(values: Sequence[Mapping[str, Any]]) -> RenderableType:
    """What can be paid; the wire's numbers as words."""
    words = {1: "on", 2: "off"}
    columns = ("coin", "chain", "token_id", "decimals", "status", "contract", "coin_id")
    table = [{name: value[name] for name in columns} | {"status": words.get(value["status"], value["status"])} for value in values]
    return rows("Catalogue", table, spare=("coin_id", "contract"))


def fees(values: Sequence[Mapping[str, Any]]) -> RenderableType:
    """What a payout costs; what is wrong once a network, below."""
    columns = ("coin", "chain", "fee", "fee_usd", "age_s", "token_id")
    problems = dict.fromkeys(f"{value['chain']}: {value['problem']}" for value in values if value["problem"])
    table = [{name: value[name] for name in columns} for value in values]
    return Group(rows("Fees", table, empty=NO_NETWORK, spare=("token_id",)), *(Text(problem, style="yellow") for problem in problems))


def _spaced(*parts: RenderableType) -> RenderableType:
    """One below the other, with an empty line between."""
    return Group(parts[0], *(line for part in parts[1:] for line in ("", part)))


def devnet(networks: Sequence[Mapping[str, Any]], control: str) -> RenderableType:
    """Boxes, and the lines that connect a gateway to them and put coins on its hot address."""
    lines = [
        f"{n['network']} = {{ {', '.join(f'{key} = {json.dumps(value)}' for key, value in n['settings'].items())} }}" for n in networks
    ]
    shown = [{"network": n["network"], "chain_id": n["chain_id"], "url": n["url"]} for n in networks]
    fund = json.dumps({"network": networks[0]["network"], "do": "fund", "address": "...", "units": str(10**18)}, separators=(",", ":"))
    return _spaced(
        rows("Networks in a box (Ctrl-C ends them)", shown),
        Text("For the penstock.toml of a home of its own:", style="dim"),
        Text("\n".join(["[networks]", *lines]), no_wrap=True, overflow="ignore"),
        Text("Coins for its hot address (penstock treasury shows it), in base units: an ether has 10^18, a bitcoin 10^8:", style="dim"),
        Text(f"curl -s {control} -d '{fund}'", no_wrap=True, overflow="ignore"),
    )


def account(value: Mapping[str, Any]) -> RenderableType:
    """An internal account with balances and history."""
    head = facts("Account", {name: value[name] for name in ("c_id", "email", "nickname")})
    return _spaced(head, rows("Balances", value["balances"]), rows("History", value["history"], spare=("at_ms",)))


def timeline(order: Mapping[str, Any]) -> RenderableType:
    """One order from request to webhook."""
    names = ("merchant_order_id", "chain", "crypto", "value", "network_fee", "net_receivable", "address", "memo", "txid")
    parts: list[RenderableType] = [
        facts(f"Order {order['order_id']}: {order['state']}", {n: order[n] for n in names if order[n] != ""}),
        rows("States", [{"at_ms": s["at_ms"], "state": s["state"], "reason": s["reason"]} for s in order["states"]]),
    ]
    for number, attempt in enumerate(order["attempts"], 1):
        shown = {
            n: attempt[n]
            for n in ("slot", "state", "seen", "fee_cap", "gas_paid", "shared_by", "gas_part", "gas_saved", "fee_taken", "fee_gain_usd")
            if attempt.get(n) not in (None, "")
        }
        versions = [{n: v[n] for n in ("number", "kind", "txid", "sends", "verdict", "sent_at_ms")} for v in attempt["versions"]]
        parts += [facts(f"Attempt {number}", shown), *([rows("Versions", versions)] if versions else [])]
    if order["webhook"] is not None:
        webhook = order["webhook"]
        never = Text(f"Webhook: {webhook['state']}, {webhook['result'] or 'not sent yet'}")
        parts.append(rows(f"Webhook: {webhook['state']}", webhook["sends"]) if webhook["sends"] else never)
    if "archived" in order:
        parts.append(Text(f"Everything else of it is archived in {order['archived']}"))
    outlook = [Text(f"Waits for: {order['waits_for']}", style="yellow")] if order["waits_for"] else []
    parts.append(Group(*outlook, Text(f"Next: {order['next']}", style="bold")))
    return _spaced(*parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun if number == 1 else 'entries' if noun == 'entry' else noun + 's'}"


def chain(report: Mapping[str, Any]) -> RenderableType:
    """Whether the past is what it was, and what to write down."""
    counts = report["counts"]
    if not report["ok"]:
        return _spaced(
            Text(f"THE CHAIN IS BROKEN: {report['first_break']}", style="bold red"), rows("Breaks", [{"text": t} for t in report["breaks"]])
        )
    return Group(
        Text(f"The past is what it was: {_count(counts['entries'], 'entry')} of {counts['committers']} committers.", style="green"),
        Text("Write this head down where this machine cannot reach it; --head finds it again, or the history was written anew:"),
        Text(report["head"], no_wrap=True, overflow="ignore"),
    )


def owed(values: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What a proof shows, in coins."""
    return [
        {"holder": v["holder"], "coin": v["coin"]} | {n: plain(int(v[n]), LEDGER_DECIMALS) for n in ("available", "reserved")}
        for v in values
    ]


def liabilities(value: Mapping[str, Any]) -> RenderableType:
    """What was written, and for whom."""
    coins = [{**coin, "total": plain(int(coin["total"]), LEDGER_DECIMALS)} for coin in value["coins"]]
    return _spaced(
        rows("Owed", coins, empty="nothing.", spare=("coin_id",)),
        Text(
            f"Publish {value['published']}. Keep {value['secret']} to yourself: proofs are made from it, and it names what everybody owns."
        ),
    )


def audit(report: Mapping[str, Any]) -> RenderableType:
    """What was checked and what differs."""
    counts = report["counts"]
    clean = not report["breaches"]
    parts: list[RenderableType] = [
        Text(
            f"Recomputed {_count(counts['orders'], 'order')} from {_count(counts['entries'], 'entry')}: "
            + ("the books are sound." if clean else "THE BOOKS DIFFER."),
            style="green" if clean else "bold red",
        ),
        Text(f"Signer's journal: {report['journal']}."),
    ]
    if report["breaches"]:
        parts.append(rows("Breaches (stop)", report["breaches"]))
    if report["warnings"]:
        parts.append(rows("Warnings", report["warnings"]))
    house = [{"account": name, "coin": coin, "balance": text} for name, coins in report["balances"].items() for coin, text in coins.items()]
    parts.append(rows("House accounts (above 0: earned or owed, below 0: spent or held)", house))
    return _spaced(*parts)
