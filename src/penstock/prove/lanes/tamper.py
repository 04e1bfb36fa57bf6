"""Whoever holds the database changes its past, one row at a time: does the audit find it?

A house lives in virtual time; then what keeps rows from being edited is taken away, piece by piece, and random rows are changed, deleted,
doubled, exchanged or cut off, the files of what was archived too, each in a transaction that is rolled back after everything was recomputed.
What changes what somebody owns, or what was decided, has to be found; the table of the report says
of every column how often it was.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from penstock.core.order import Order
from penstock.db import Conflict, DatabaseUnavailable, Row, Tx
from penstock.ledger import archive_audit
from penstock.ledger.audit import recompute
from penstock.prove.lane import Budget, Found, Tried
from penstock.prove.simulated.tampered_house import TamperedHouse
from penstock.runtime import SystemRuntime
from penstock.sql import amount_columns, refusals

TAMPERINGS: Final = 1_000
"""At size 1 on each database; fewer where the seconds are over."""
LEAST: Final = 40
"""On each database, however little time there is."""

GUARDS_LEAST: Final = 4
"""Of what the database itself refuses by, so many are taken away however little time there is."""

_ALL: Final = frozenset({"*"})
_ORDER: Final = frozenset({"archive", *Order.__struct_fields__}) - {"hold_reason"}
"""All but why it waits and who works on it."""

GUARDED: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "balance": frozenset({"holder", "coin_id", "available", "reserved"}),
        "batch": frozenset({"id", "committer", "number", "previous_hash", "hash"}),
        "entry": _ALL,
        "posting": _ALL,
        "order_key": frozenset({"merchant_id", "merchant_order_id", "fingerprint", "order_id"}),
        "orders": _ORDER,
        "order_history": _ALL,
        "attempt": frozenset(
            {"id", "lane_id", "slot", "token_id", "state", "outflow", "fee_cap", "gas_paid", "native_rate", "block", "txid", "archive"}
        ),
        "attempt_order": _ALL,
        "version": frozenset({"id", "attempt_id", "number", "kind", "intent", "txid"}),
        "version_order": frozenset({"version_id", "order_id", "amount"}),
        "outbox": frozenset({"order_id", "merchant_id", "body"}),
        "operator_action": _ALL,
        "audit_checkpoint": _ALL,
        "audit_head": _ALL,
        "audit_balance": _ALL,
        "audit_total": _ALL,
        "archive": _ALL,
        "archive_head": _ALL,
        "archive_total": _ALL,
    }
)
"""By table, the columns that say what somebody owns or what was decided. The others are tried too, and only counted."""
COUNTED: Final = ("lane", "treasury_seen", "webhook_send", "merchant", "account")
"""Tables that are tried and only counted: what they say is checked elsewhere (by the chain, the signer, the receiver), or by nobody."""
KINDS: Final = ("change", "change", "change", "change", "delete", "double", "exchange", "cut")


class _Undo(Exception):
    """Takes a tampering back, with what was found of it."""


@dataclass(frozen=True, slots=True)
class Tampering:
    """One change of the past. `columns` are those it touches, "*" for a whole row; `guarded`: it has to be found."""

    kind: str
    table: str
    column: str
    guarded: bool
    text: str


class Tamperer:
    """Draws tamperings from a seed and judges them, on one house."""

    def __init__(self, house: TamperedHouse, source: random.Random) -> None:
        self._house = house
        self._source = source
        self.clean = self._findings(lambda tx: None)  # noqa: ARG005

    def one(self) -> tuple[Tampering, bool] | None:
        """The next one, and whether it was found; None where the database itself refused it or nothing was changed."""
        return self._judged(self._draw)

    def guards(self) -> Iterator[tuple[Tampering, bool] | None]:
        """Each thing that the database itself refuses by, taken away, and whether that was found."""
        names = [*refusals(self._house.database.dialect), "seat"]
        for name in self._source.sample(names, len(names)):
            yield self._judged(partial(_unguard, name=name))

    def _judged(self, draw: Callable[[Tx], Tampering]) -> tuple[Tampering, bool] | None:
        done: list[Tampering] = []

        def tamper(tx: Tx) -> None:
            done.append(draw(tx))

        try:
            found = self._findings(tamper)
        except (Conflict, _Nothing, DatabaseUnavailable):
            return None
        return done[-1], bool(found - self.clean)

    def _findings(self, tamper: Callable[[Tx], None]) -> set[tuple[str, str]]:
        def job(tx: Tx) -> None:
            tamper(tx)
            report = recompute(tx, self._house.terms, self._house.said)
            archive_audit.check(tx, report, self._house.archives, self._house.terms, self._house.said)
            self._house.said.close(report)
            raise _Undo({(f.invariant, f.text) for f in report.findings})

        try:
            self._house.run(self._house.database.write("tamper", job))
        except _Undo as undone:
            found: set[tuple[str, str]] = undone.args[0]
            return found
        raise AssertionError

    def _draw(self, tx: Tx) -> Tampering:
        kind = self._source.choice(KINDS)
        if kind == "cut":
            return self._cut(tx)
        table = self._source.choice((*GUARDED, *COUNTED))
        rows = tx.all(f"SELECT * FROM {table}")
        if not rows:
            raise _Nothing
        rows.sort(key=lambda row: [str(value) for value in row.values()])
        row = self._source.choice(rows)
        guarded = GUARDED.get(table, frozenset())
        whole = bool(guarded) and not _is_note(tx, table, row)
        if kind == "delete":
            _delete(tx, table, row)
            return Tampering(kind, table, "(row)", whole, f"{kind} {table} {_short(row)}")
        column = self._source.choice(sorted(row))
        decides = bool(guarded & {column, "*"}) and not _undecided(tx, table, column, row)
        if kind == "double":
            self._double(tx, table, row)
            return Tampering(kind, table, "(row)", whole, f"{kind} {table} {_short(row)}")
        value = self._source.choice(rows)[column] if kind == "exchange" else self._other(column, row[column])
        if value == row[column]:
            raise _Nothing
        where, values = _where(row)
        tx.run(f"UPDATE {table} SET {column} = :{column} WHERE {where}", **values, **{column: value})
        return Tampering(kind, table, column, decides, f"{kind} {table}.{column} from {row[column]!r:.60} to {value!r:.60}")

    def _other(self, column: str, value: Any) -> Any:
        """A value of the same type."""
        source = self._source
        if isinstance(value, int):
            return source.choice((value + 1, value - 1, 0, value * 2 + 1, 10**17 if column in amount_columns() else 2**40))
        if value is None:
            return source.choice((1, 2**40)) if column.endswith(("_ms", "block")) or column in amount_columns() else "0" * 8
        place = source.randrange(len(value) + 1)
        return source.choice((value[:place] + source.choice("0a1f{ ") + value[place + 1 :], value[:-1], "", value + "0"))

    def _double(self, tx: Tx, table: str, row: Row) -> None:
        """The same row again under keys of its own."""
        fresh = dict(row)
        for column in ("id", "number", "line", "name", "merchant_order_id", "holder", "account", "committer", "order_id", "version_id"):
            if column in fresh:
                fresh[column] = fresh[column] + 7_000_001 if isinstance(fresh[column], int) else f"{fresh[column]}x"
        if table == "entry":
            fresh["ref_id"] = f"{fresh['ref_id']}7"
        names = ", ".join(fresh)
        tx.run(f"INSERT INTO {table} ({names}) VALUES ({', '.join(':' + name for name in fresh)})", **fresh)

    def _cut(self, tx: Tx) -> Tampering:
        """The end of a committer's chain, with everything that hangs on it."""
        committers = [row["committer"] for row in tx.all("SELECT DISTINCT committer FROM batch ORDER BY committer")]
        committer = self._source.choice(committers)
        last = tx.one("SELECT MAX(number) AS number FROM batch WHERE committer = :committer", committer=committer)
        number = self._source.randint(1, last["number"] if last else 1)
        tail = "(SELECT id FROM batch WHERE committer = :committer AND number >= :number)"
        values = {"committer": committer, "number": number}
        tx.run(f"DELETE FROM posting WHERE entry_id IN (SELECT id FROM entry WHERE batch_id IN {tail})", **values)
        tx.run(f"DELETE FROM entry WHERE batch_id IN {tail}", **values)
        tx.run("DELETE FROM batch WHERE committer = :committer AND number >= :number", **values)
        return Tampering("cut", "batch", "(end)", guarded=True, text=f"cut {committer} from batch {number}")


def as_an_intruder(tx: Tx) -> None:
    """Take away, as only who owns the tables can, what keeps rows from being edited."""
    for name in refusals(tx.dialect):
        _unguard(tx, name=name)


def _unguard(tx: Tx, *, name: str) -> Tampering:
    """Without one trigger, or without the row that says who works."""
    if name == "seat":
        tx.run("DELETE FROM seat")
        return Tampering("unguard", "seat", "(row)", guarded=True, text="delete the row of seat")
    table = name.removeprefix("append_only_").rpartition("_")[0]
    tx.run(f"DROP TRIGGER IF EXISTS {name}{f' ON {table}' if tx.dialect == 'postgresql' else ''}")
    return Tampering("unguard", table, "(trigger)", guarded=True, text=f"drop the trigger {name}")


class _Nothing(Exception):
    """There is nothing to change, or the change changes nothing."""


def _undecided(tx: Tx, table: str, column: str, row: Row) -> bool:
    """Rows of orders and attempts that are not over: what is written there is not a decision yet."""
    if table == "order_history" and (column in ("id", "at_ms", "reason") or row["before"] == row["after"]):
        order = tx.one("SELECT state FROM orders WHERE id = :id", id=row["order_id"])
        return order is not None and order["state"] not in ("succeeded", "failed")
    if table == "orders" and column in ("txid", "fail_reason", "decided_at_ms"):
        return row["state"] not in ("succeeded", "failed") or (column == "txid" and (row["recipient"] != "" or row["state"] == "failed"))
    if table == "audit_total" and column != "amount":
        return bool(row["amount"] == 0)
    if table == "version" and column in ("id", "number"):
        return True  # names of ours; what is paid hangs on the intent
    return table == "attempt" and column in ("block", "txid", "native_rate") and row["state"] != "final"


def _is_note(tx: Tx, table: str, row: Row) -> bool:
    """Whole rows that decide nothing: why an open order still waits, and sums of nothing."""
    if table == "order_history":
        return row["before"] == row["after"] and _undecided(tx, table, "id", row)
    return table == "audit_total" and row["amount"] == 0


def _where(row: Row) -> tuple[str, dict[str, Any]]:
    """Exactly one row, by all that is no amount: no key is one."""
    names = [name for name in row if name not in amount_columns()]
    parts = [f"{name} IS NULL" if row[name] is None else f"{name} = :was_{name}" for name in names]
    return " AND ".join(parts), {f"was_{name}": row[name] for name in names if row[name] is not None}


def _delete(tx: Tx, table: str, row: Row) -> None:
    where, values = _where(row)
    tx.run(f"DELETE FROM {table} WHERE {where}", **values)


def _short(row: Row) -> str:
    return ", ".join(f"{name}={value!r:.24}" for name, value in list(row.items())[:4])


def run(budget: Budget) -> Tried:
    """Tamper with a house on each database until the seconds or the count are over."""
    clock = SystemRuntime()
    began = clock.monotonic()
    counts: Counter[str] = Counter()
    found: list[Found] = []
    seen: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    urls = {"sqlite": f"sqlite:///{budget.folder / 'tamper.db'}"} | ({"postgresql": budget.postgresql} if budget.postgresql else {})
    for name, url in urls.items():
        home = budget.folder / f"tamper-{name}"
        home.mkdir(parents=True, exist_ok=True)
        house = TamperedHouse(url, home, budget.seed)
        try:
            house.live()
            end, replay = clock.monotonic() + budget.seconds / len(urls), f"penstock prove --only tamper --seed {budget.seed}"
            for number, guard in enumerate(Tamperer(house, random.Random(budget.seed)).guards()):
                if number >= GUARDS_LEAST and clock.monotonic() > end:
                    break
                _count(guard, counts, seen, found, replay)
            house.run(house.database.write("intrude", as_an_intruder))
            tamperer = Tamperer(house, random.Random(budget.seed))
            for number in range(TAMPERINGS * budget.size):
                if number >= LEAST and clock.monotonic() > end:
                    break
                _count(tamperer.one(), counts, seen, found, replay)
            _check_clean(tamperer, found)
        finally:
            house.close()
    clock.close()
    table = tuple(
        {
            "table": table,
            "column": column,
            "tried": row["tried"],
            "found": row["found"],
            "has to be found": "yes" if row["guarded"] else "no",
        }
        for (table, column), row in sorted(seen.items())
    )
    return Tried("tamper", dict(counts), tuple(found), table, round(clock.monotonic() - began, 1))


def _count(
    one: tuple[Tampering, bool] | None,
    counts: Counter[str],
    seen: defaultdict[tuple[str, str], Counter[str]],
    found: list[Found],
    replay: str,
) -> None:
    if one is None:
        counts["refused_or_nothing"] += 1
        return
    tampering, detected = one
    counts["tamperings"] += 1
    counts["found"] += detected
    counts["had_to_be_found"] += tampering.guarded
    row = seen[tampering.table, tampering.column]
    row["tried"] += 1
    row["found"] += detected
    row["guarded"] += tampering.guarded
    if tampering.guarded and not detected:
        found.append(Found("other", f"the audit did not see: {tampering.text}", replay))


def _check_clean(tamperer: Tamperer, found: list[Found]) -> None:
    """Nothing of it is left, and nothing is found where nothing was done."""
    if tamperer._findings(lambda tx: None) != tamperer.clean:  # noqa: ARG005
        found.append(Found("other", "the audit finds something in books that nobody has touched"))
