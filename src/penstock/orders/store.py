"""Orders as rows: read, written, and moved from state to state by compare-and-set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any, Final

from msgspec.structs import asdict, replace

from penstock.core.order import Order, OrderState, WireStatus, check_move, wire_status
from penstock.db import Database, DatabaseUnavailable, Row, Tx
from penstock.orders.replica import Replica
from penstock.runtime import Runtime
from penstock.together import Together

_FIELDS: Final = Order.__struct_fields__
_VALUES: Final = itemgetter(*_FIELDS)
_FLAG, _STATE, _WIRE = (_FIELDS.index(name) for name in ("merchant_pays_fee", "state", "wire"))
_CHANGES: Final = ("state", "wire", "hold_reason", "fail_reason", "txid", "decided_at_ms")
"""What moves write; everything else of an order is as it was accepted."""
_changes_of: Final = itemgetter(*_CHANGES)
_changes_in: Final = attrgetter(*_CHANGES)
COLUMNS: Final = ", ".join(_FIELDS)
QUALIFIED: Final = ", ".join(f"orders.{name}" for name in _FIELDS)

QUERIES_AT_ONCE: Final = 32
"""Requests whose orders are looked up in one statement, of up to 100 ids each."""
_Asked = tuple[int, Sequence[str]]

_TYPES: Final = {
    "INT": {"id", "record_id", "merchant_id", "merchant_pays_fee", "wire", "decided_at_ms", "due_at_ms", "lease_until_ms"},
    "AMOUNT": {"value", "fee", "net", "reserve", "gas_quoted"},
}


def _column_type(name: str) -> str:
    return next(("{" + kind + "}" for kind, names in _TYPES.items() if name in names), "TEXT")


_ROW: Final = "orders(" + ", ".join(f"{name} {_column_type(name)}" for name in (*_FIELDS, "due_at_ms", "lease", "lease_until_ms")) + ")"


def order_of(row: Row) -> Order:
    """An order from a row that has all of COLUMNS."""
    values: list[Any] = list(_VALUES(row))
    values[_FLAG] = bool(values[_FLAG])
    values[_STATE] = OrderState(values[_STATE])
    values[_WIRE] = WireStatus(values[_WIRE])
    return Order(*values)


def _columns_of(order: Order) -> Row:
    """What an order's columns hold, by their names: plain values, because a driver looks long for a way to store anything else."""
    row = asdict(order)
    row["merchant_pays_fee"], row["state"], row["wire"] = int(order.merchant_pays_fee), str(order.state), int(order.wire)
    return row


def history(tx: Tx, order_ids: Sequence[int]) -> dict[int, list[Row]]:
    """Every step of these orders so far."""
    found: dict[int, list[Row]] = {order_id: [] for order_id in order_ids}
    for row in tx.all(
        "SELECT id, order_id, at_ms, before, after, reason FROM order_history WHERE order_id IN (SELECT k.id FROM {ROWS k(id {INT})})",
        k=[{"id": order_id} for order_id in order_ids],
    ):
        found[row["order_id"]].append(row)
    return found


def insert(tx: Tx, orders: Sequence[Order], *, due_at_ms: int) -> list[Row]:
    """New orders; those that are not decided yet are due at once. Returns their rows."""
    rows: list[Row] = []
    for order in orders:
        row = _columns_of(order)
        row["due_at_ms"] = None if order.decided_at_ms is not None else due_at_ms
        row["lease"], row["lease_until_ms"] = "", 0
        rows.append(row)
    tx.insert(_ROW, rows)
    return rows


def lock(tx: Tx, order_ids: Iterable[int]) -> dict[int, Order]:
    """Orders by id, locked in id order until the transaction ends."""
    # The orders that are about to move.
    rows = tx.all(
        f"SELECT {COLUMNS} FROM orders WHERE id IN (SELECT k.id FROM {{ROWS k(id {{INT}})}}) ORDER BY id {{FOR_UPDATE}}",
        k=[{"id": order_id} for order_id in sorted(set(order_ids))],
    )
    return {row["id"]: order_of(row) for row in rows}


def lock_again(tx: Tx, orders: Sequence[Order]) -> dict[int, Order]:
    """Orders that were read before, as they are now, locked in id order until the transaction ends. What never changes is not read again."""
    known = {order.id: order for order in orders}
    rows = tx.all(
        f"SELECT id, {', '.join(_CHANGES)} FROM orders WHERE id IN (SELECT k.id FROM {{ROWS k(id {{INT}})}}) ORDER BY id {{FOR_UPDATE}}",
        k=[{"id": order_id} for order_id in sorted(known)],
    )
    return {row["id"]: _as_now(known[row["id"]], row) for row in rows}


def _as_now(order: Order, row: Row) -> Order:
    if _changes_of(row) == _changes_in(order):
        return order
    return replace(order, **{**row, "state": OrderState(row["state"]), "wire": WireStatus(row["wire"])})


class Move:
    """One change of state, with what it writes besides."""

    def __init__(self, order: Order, after: OrderState, reason: str, *, at_ms: int, **changes: Any) -> None:
        check_move(order.state, after)
        self.order = order
        self.after = after
        self.reason = reason
        self.at_ms = at_ms
        self.changes = changes

    def row(self) -> dict[str, Any]:
        """What the order's row becomes, and the state that it must have `before`."""
        order, changes = self.order, self.changes
        return {
            "id": order.id,
            "before": order.state.value,
            "state": self.after.value,
            "wire": int(wire_status(self.after, order.wire)),
            "hold_reason": changes.get("hold_reason", order.hold_reason),
            "fail_reason": changes.get("fail_reason", order.fail_reason),
            "txid": changes.get("txid", order.txid),
            "decided_at_ms": changes.get("decided_at_ms", order.decided_at_ms),
            "due_at_ms": changes.get("due_at_ms"),
        }

    def moved(self) -> Order:
        """The order as it is then."""
        changes = {name: value for name, value in self.changes.items() if name in _FIELDS}
        return replace(self.order, state=self.after, wire=wire_status(self.after, self.order.wire), **changes)


def move(tx: Tx, moves: Sequence[Move], *, next_ids: Sequence[int]) -> None:
    """Apply moves of locked orders: state, wire status, history. Raises LostRace where one is not in that state any more."""
    if not moves:
        return
    rows = [m.row() for m in moves]
    # Compare and set: an order moves only from the state it was read in.
    moved = tx.run(
        "UPDATE orders SET state = m.state, wire = m.wire, hold_reason = m.hold_reason, fail_reason = m.fail_reason, txid = m.txid, "
        "decided_at_ms = m.decided_at_ms, due_at_ms = m.due_at_ms "
        "FROM {ROWS m(id {INT}, before TEXT, state TEXT, wire {INT}, hold_reason TEXT, fail_reason TEXT, txid TEXT, "
        "decided_at_ms {INT}, due_at_ms {INT})} WHERE orders.id = m.id AND orders.state = m.before",
        m=rows,
    )
    if moved != len(rows):
        raise LostRace(f"{len(rows) - moved} of {len(rows)} orders had moved already")
    _note(
        tx,
        [
            {"id": i, "order_id": m.order.id, "at_ms": m.at_ms, "before": m.order.state.value, "after": m.after.value, "reason": m.reason}
            for m, i in zip(moves, next_ids, strict=True)
        ],
    )


def tell(tx: Tx, news: Sequence[tuple[Order, OrderState, str]], *, at_ms: int, next_ids: Sequence[int]) -> None:
    """Why an order stays in its state, where the reason is another one by now."""
    _note(
        tx,
        [
            {"id": i, "order_id": order.id, "at_ms": at_ms, "before": state.value, "after": state.value, "reason": reason}
            for (order, state, reason), i in zip(news, next_ids, strict=True)
        ],
    )


def _note(tx: Tx, history: Sequence[dict[str, Any]]) -> None:
    # What happened, for people.
    tx.insert("order_history(id {INT}, order_id {INT}, at_ms {INT}, before TEXT, after TEXT, reason TEXT)", history)


class LostRace(Exception):
    """A compare-and-set found another state. The transaction is rolled back; the job will be seen again."""


NAMED: Final = (
    # Through the key table, which is never partitioned; those of many requests at once. Of a pair that is IN a list SQLite looks up the first
    # half alone, and reads all orders of a merchant.
    "{ROWS k(merchant_id {INT}, merchant_order_id TEXT)} JOIN order_key ON order_key.merchant_id = k.merchant_id "
    "AND order_key.merchant_order_id = k.merchant_order_id JOIN orders ON orders.id = order_key.order_id"
)
"""The keys `k` with their orders, as far as there are any."""
_BY_KEY: Final = f"SELECT {QUALIFIED} FROM {NAMED}"
_ENDED: Final = (
    # Those that can change no more: a success that was reported before it was final may still get another transaction's id.
    f"{_BY_KEY} WHERE orders.state IN ('succeeded', 'failed') "
    "AND NOT EXISTS (SELECT 1 FROM attempt_order WHERE attempt_order.order_id = orders.id AND attempt_order.live = 1)"
)


def _rows_of(keys: Iterable[tuple[int, str]]) -> list[dict[str, Any]]:
    return [{"merchant_id": merchant_id, "merchant_order_id": text} for merchant_id, text in sorted(keys)]


class OrderStore:
    """Reads for the API and the commands."""

    def __init__(self, runtime: Runtime, database: Database, replica: Replica | None = None) -> None:
        self._database = database
        self._replica = replica
        self._found: Together[_Asked, Mapping[str, Order]] = Together(
            runtime, self._find, name="orders", most=QUERIES_AT_ONCE, broken=DatabaseUnavailable
        )

    async def find(self, merchant_id: int, merchant_order_ids: Sequence[str]) -> Mapping[str, Order]:
        """Orders of one merchant by the merchant's own ids; unknown ids are left out. Raises DatabaseUnavailable."""
        return await self._found((merchant_id, merchant_order_ids))

    async def _find(self, asked: list[_Asked]) -> Sequence[Mapping[str, Order] | Exception]:
        """Each gets its own merchant's orders alone."""
        keys = {(merchant_id, text) for merchant_id, texts in asked for text in texts}
        try:
            rows = await self._ended(keys)
            if left := keys - {(row["merchant_id"], row["merchant_order_id"]) for row in rows}:
                rows = [*rows, *await self._database.read(lambda tx: tx.all(_BY_KEY, k=_rows_of(left)))]
        except DatabaseUnavailable as error:
            return [error] * len(asked)
        except Exception as error:  # noqa: BLE001  what the database refuses of one must not be refused to the others
            return [error] if len(asked) == 1 else [(await self._find([one]))[0] for one in asked]
        orders = {(row["merchant_id"], row["merchant_order_id"]): order_of(row) for row in rows}
        return [{text: orders[merchant_id, text] for text in texts if (merchant_id, text) in orders} for merchant_id, texts in asked]

    async def _ended(self, keys: Iterable[tuple[int, str]]) -> list[Row]:
        """What the replica, if there is one, can tell of these for ever."""
        if self._replica is None:
            return []
        return await self._replica.read(lambda tx: tx.all(_ENDED, k=_rows_of(keys))) or []
