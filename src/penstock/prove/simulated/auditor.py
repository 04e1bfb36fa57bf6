"""Watches every commit of a simulated house: triggers on its own connection tell what changed, and only that is judged, at once.

What the whole database says is the audit's own business (ledger/audit.py); here it is that no single step is a wrong one: no move that
the tables of moves do not have, no postings that do not sum to zero, no second live attempt, no success that the network does not show.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol, TypeVar

from penstock.core import attempt as attempts
from penstock.core import order as orders
from penstock.core.attempt import AttemptState
from penstock.core.ledger import available, is_stored, reserved
from penstock.core.order import TERMINAL, OrderState
from penstock.db import CommitUnknown, SqliteDatabase, Tx
from penstock.db.sqlite import SqliteTx
from penstock.prove.simulated.virtual import Crash, VirtualRuntime

T = TypeVar("T")

FROZEN_ORDER: Final = (
    "merchant_id merchant_order_id payer recipient address destination memo token_id coin_id chain contract value fee net reserve seal"
)
FROZEN_ATTEMPT: Final = "lane_id slot token_id fee_cap"
FOR_EVER: Final = "batch entry posting order_history attempt_resource webhook_send operator_action"
"""Tables whose rows are written once."""
KEYS: Final = "order_key single_use"
"""And those whose rows go only together with a wish that was refused."""


class Violation(Exception):
    """Something that must never happen did; the text says what, and the seed replays it."""


class Stopped(Crash):
    """The history ends here: something happened that must never."""


@dataclass(slots=True)
class Alarm:
    """The first thing that must never happen. It ends the history where it was noticed, whatever would catch an exception."""

    text: str = ""

    def __call__(self, text: str) -> NoReturn:
        """Raises Stopped."""
        self.text = self.text or text
        raise Stopped(text)


class Truth(Protocol):
    """What the networks themselves know of an order."""

    def received(self, merchant_id: int, name: str) -> int | None:
        """Base units that its recipient has got, from whatever order; None for an order that is not watched."""
        ...

    def promised(self, merchant_id: int, name: str, net: int) -> int:
        """Base units of the token that `net` is."""
        ...

    def weather(self, chain: str) -> Collection[str]:
        """What is wrong with a network now."""
        ...

    def excuses(self, chain: str) -> bool:
        """Whether a person may have to look at this network: the weather did what no proof can undo."""
        ...

    def family(self, chain: str) -> str:
        """Of a network."""
        ...


def _changed(columns: str) -> str:
    return " OR ".join(f"OLD.{column} IS NOT NEW.{column}" for column in columns.split())


_ATTEMPT_CHANGED: Final = f"{_changed(FROZEN_ATTEMPT)} OR (OLD.outflow <> NEW.outflow AND NOT (NEW.outflow = '0' AND NEW.state = 'final'))"
"""A transfer that failed on chain took nothing."""


_TRIGGERS: Final = (
    "AFTER INSERT ON main.orders BEGIN SELECT saw('order', NEW.id, '', NEW.state, NEW.payer, NEW.coin_id, NEW.reserve, NEW.recipient, 0, NEW.wire, 0); END",
    (
        f"AFTER UPDATE ON main.orders WHEN OLD.state <> NEW.state OR OLD.wire <> NEW.wire OR {_changed(FROZEN_ORDER)} BEGIN "
        "SELECT saw('order', NEW.id, OLD.state, NEW.state, NEW.payer, NEW.coin_id, NEW.reserve, NEW.recipient, OLD.wire, NEW.wire, "
        f"({_changed(FROZEN_ORDER)})); END"
    ),
    "AFTER INSERT ON main.attempt BEGIN SELECT saw('attempt', NEW.id, '', NEW.state, 0, NEW.gas_paid, NEW.fee_cap); END",
    (
        f"AFTER UPDATE ON main.attempt WHEN OLD.state <> NEW.state OR OLD.gas_paid IS NOT NEW.gas_paid OR {_ATTEMPT_CHANGED} BEGIN "
        f"SELECT saw('attempt', NEW.id, OLD.state, NEW.state, ({_ATTEMPT_CHANGED}), NEW.gas_paid, NEW.fee_cap); END"
    ),
    "AFTER INSERT ON main.attempt_order BEGIN SELECT saw('pair', NEW.attempt_id, NEW.order_id); END",
    (
        "AFTER UPDATE ON main.version WHEN OLD.intent <> NEW.intent OR (OLD.raw IS NOT NULL AND OLD.raw IS NOT NEW.raw) OR NEW.sends < OLD.sends "
        "OR (NEW.sends > 0 AND NEW.raw IS NULL) BEGIN SELECT saw('forged', 'version', NEW.id); END"
    ),
    "AFTER INSERT ON main.entry BEGIN SELECT saw('entry', NEW.id, NEW.ref_kind, NEW.ref_id, NEW.posting_kind); END",
    "AFTER INSERT ON main.posting BEGIN SELECT saw('posting', NEW.entry_id, NEW.account, NEW.coin_id, NEW.amount); END",
    "AFTER INSERT ON main.balance BEGIN SELECT saw('balance', NEW.holder, NEW.coin_id, '0', NEW.available, '0', NEW.reserved); END",
    "AFTER UPDATE ON main.balance BEGIN SELECT saw('balance', NEW.holder, NEW.coin_id, OLD.available, NEW.available, OLD.reserved, NEW.reserved); END",
    "AFTER UPDATE ON main.lane WHEN OLD.halted <> NEW.halted BEGIN SELECT saw('halt', NEW.chain, NEW.halted); END",
    "AFTER INSERT ON main.outbox BEGIN SELECT saw('event', NEW.order_id); END",
    "AFTER UPDATE ON main.outbox WHEN OLD.body <> NEW.body OR OLD.order_id <> NEW.order_id BEGIN SELECT saw('forged', 'outbox', NEW.id); END",
    *(
        f"AFTER DELETE ON main.{table} BEGIN SELECT saw('forged', '{table}', OLD.id); END"
        for table in ("orders", "attempt", "version", "outbox")
    ),
    *(f"AFTER DELETE ON main.{table} BEGIN SELECT saw('forged', '{table}', 0); END" for table in FOR_EVER.split()),
    *(f"AFTER UPDATE ON main.{table} BEGIN SELECT saw('forged', '{table}', 0); END" for table in (FOR_EVER + " " + KEYS).split()),
    *(
        f"AFTER DELETE ON main.{table} WHEN EXISTS (SELECT id FROM main.orders WHERE id = OLD.order_id) "
        f"BEGIN SELECT saw('forged', '{table}', OLD.order_id); END"
        for table in KEYS.split()
    ),
)


@dataclass(slots=True)
class Auditor:
    """One seed's auditor; it outlives every life. `cells` counts which states were entered in which weather of which family."""

    truth: Truth
    alarm: Alarm
    note: Callable[[str], None]
    doubt: Callable[[str], bool] = lambda label: False  # noqa: ARG005
    commits: int = 0
    checks: int = 0
    cells: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def open(self, runtime: VirtualRuntime, path: Path) -> WatchedDatabase:
        """The database as a life has it."""
        return WatchedDatabase(runtime, path, self)

    def judge(self, rows: list[tuple[Any, ...]], tx: Tx) -> None:
        """One commit, after it. Raises Stopped."""
        self.commits += 1
        if not rows:
            return
        self.checks += len(rows)
        of: defaultdict[str, list[tuple[Any, ...]]] = defaultdict(list)
        for kind, *columns in rows:
            of[kind].append(tuple(columns))
        for table, row_id in of["forged"]:
            self.alarm(f"I15: row {row_id} of {table} was changed or deleted")
        for chain, why in of["halt"]:
            self.note(f"lane {chain}: {why or 'goes on'}")
            if why and not self.truth.excuses(chain):
                self.alarm(f"{chain} was stopped without a reason: {why}")
        self._judge_money(of)
        for row in of["order"]:
            self._judge_order(row, of, tx)
        for seen in of["attempt"]:
            self._judge_attempt(seen, tx)
        for attempt_id, order_id in of["pair"]:
            self._judge_pair(attempt_id, order_id, tx)

    def _judge_money(self, of: defaultdict[str, list[tuple[Any, ...]]]) -> None:
        entries: defaultdict[tuple[int, str], int] = defaultdict(int)
        moved: defaultdict[tuple[str, str], int] = defaultdict(int)
        for entry_id, account, coin_id, amount in of["posting"]:
            entries[entry_id, coin_id] += int(amount)
            if is_stored(account):
                moved[account, coin_id] += int(amount)
        for (entry_id, _), total in entries.items():
            if total:
                self.alarm(f"I1: entry {entry_id} does not sum to zero")
        stored: defaultdict[tuple[str, str], int] = defaultdict(int)
        for holder, coin_id, old_available, new_available, old_reserved, new_reserved in of["balance"]:
            stored[available(holder), coin_id] += int(new_available) - int(old_available)
            stored[reserved(holder), coin_id] += int(new_reserved) - int(old_reserved)
            if int(new_available) < 0 or int(new_reserved) < 0:
                self.alarm(f"I2: {holder} has less than nothing")
        for key in stored.keys() | moved.keys():
            if stored[key] != moved[key]:
                self.alarm(f"I3: {key[0]} changed by {stored[key]} and its postings by {moved[key]}")
        self._judge_reserves(of, stored)

    def _judge_reserves(self, of: defaultdict[str, list[tuple[Any, ...]]], stored: dict[tuple[str, str], int]) -> None:
        held: defaultdict[tuple[str, str], int] = defaultdict(int)
        for _, before, after, payer, coin_id, reserve, recipient, *_ in of["order"]:
            if not recipient and (before in TERMINAL or not before) != (after in TERMINAL):
                held[reserved(payer), coin_id] += -int(reserve) if after in TERMINAL else int(reserve)
        for key in held.keys() | {key for key in stored if key[0].endswith(":reserved")}:
            if held[key] != stored.get(key, 0):
                self.alarm(f"I4: {key[0]} changed by {stored.get(key, 0)}, its open orders by {held[key]}")

    def _judge_order(self, row: tuple[Any, ...], of: defaultdict[str, list[tuple[Any, ...]]], tx: Tx) -> None:
        order_id, before, after, _, _, _, recipient, shown, shows, changed = row
        if changed:
            self.alarm(f"I5: what order {order_id} pays to whom was changed")
        if shows < shown:
            self.alarm(f"I14: order {order_id} showed {shown} and now {shows}")
        if before and before != after and (OrderState(before), OrderState(after)) not in orders.MOVES:
            self.alarm(f"I5: order {order_id} went from {before} to {after}")
        if before == after:
            return
        if after in TERMINAL and [order_id] not in [list(event) for event in of["event"]]:
            self.alarm(f"I12: order {order_id} is {after} and no event was queued with that")
        order = tx.one("SELECT merchant_id, merchant_order_id, chain, net, state FROM orders WHERE id = :id", id=order_id)
        if order is None:
            self.alarm(f"I5: order {order_id} is gone")
        self._count(order["chain"], f"order {after}")
        self.note(f"order {order['merchant_order_id']} {before or 'new'} -> {after}")
        if not recipient:
            self._judge_truth(order)

    def _judge_truth(self, order: dict[str, Any]) -> None:
        """What the network shows of it now."""
        name = order["merchant_order_id"]
        received = self.truth.received(order["merchant_id"], name)
        if received is None:
            return
        net = self.truth.promised(order["merchant_id"], name, order["net"])
        if order["state"] == OrderState.SUCCEEDED and received < net:
            self.alarm(f"{name} is called succeeded, {net} should have arrived and {received} did")

    def _judge_attempt(self, row: tuple[Any, ...], tx: Tx) -> None:
        attempt_id, before, after, changed, gas_paid, fee_cap = row
        if changed:
            self.alarm(f"I7: what attempt {attempt_id} owns or may cost was changed")
        if before and before != after and (AttemptState(before), AttemptState(after)) not in attempts.MOVES:
            self.alarm(f"I5: attempt {attempt_id} went from {before} to {after}")
        if gas_paid is not None and int(gas_paid) > int(fee_cap):
            self.alarm(f"I13: attempt {attempt_id} paid {gas_paid} over its cap of {fee_cap}")
        if before == after:
            return
        lane = tx.one("SELECT chain FROM lane JOIN attempt ON lane.id = lane_id WHERE attempt.id = :id", id=attempt_id)
        if lane is not None:
            self._count(lane["chain"], f"attempt {after}")
            self.note(f"attempt {attempt_id} on {lane['chain']} {before or 'new'} -> {after}")

    def _judge_pair(self, attempt_id: int, order_id: int, tx: Tx) -> None:
        others = tx.all(
            "SELECT attempt.id, attempt.state FROM attempt_order JOIN attempt ON attempt.id = attempt_id "
            "WHERE order_id = :order_id AND attempt_id <> :attempt_id AND attempt.state <> 'dead' AND NOT (attempt.state = 'final' AND "
            "attempt.id NOT IN (SELECT CAST(ref_id AS INTEGER) FROM entry WHERE ref_kind = 'attempt' AND posting_kind = 'final'))",
            order_id=order_id,
            attempt_id=attempt_id,
        )
        if others:
            self.alarm(f"I6: order {order_id} got a second attempt beside {others}")

    def _count(self, chain: str, state: str) -> None:
        family = self.truth.family(chain)
        for kind in self.truth.weather(chain) or ("calm",):
            self.cells[family, state, kind] += 1


class WatchedDatabase(SqliteDatabase):
    """Tells the auditor of each commit; now and then a commit is done and nobody hears of it, as where a connection breaks."""

    def __init__(self, runtime: VirtualRuntime, path: Path, auditor: Auditor) -> None:
        super().__init__(runtime, path)
        self._auditor = auditor
        self._rows: list[tuple[Any, ...]] = []
        self._writer.create_function("saw", -1, lambda *row: self._rows.append(row))
        self._watching = False

    def _write(self, label: str, job: Callable[[Tx], T]) -> T:
        if not self._watching and not label.startswith("migrate"):
            self._watch(self._writer)
        self._rows.clear()
        try:
            result = super()._write(label, job)
        except Crash as crash:
            if str(crash) == f"{label}:after":  # it died, and its last commit stays
                self._auditor.judge(self._rows, SqliteTx(self._writer))
            raise
        except BaseException:
            self._rows.clear()
            raise
        rows, self._rows = self._rows, []
        self._auditor.judge(rows, SqliteTx(self._writer))
        if not label.startswith("migrate") and self._auditor.doubt(label):
            raise CommitUnknown(label)
        return result

    def _watch(self, connection: sqlite3.Connection) -> None:
        for number, trigger in enumerate(_TRIGGERS):
            connection.execute(f"CREATE TEMP TRIGGER saw_{number} {trigger}")
        self._watching = True
