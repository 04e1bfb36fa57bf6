"""What happened to an order, why it waits, and what comes next: for people, never on the wire."""

from __future__ import annotations

import json
from typing import Any, Final

from penstock.catalog import Catalog
from penstock.core.money import LEDGER_DECIMALS, TokenAmount, parse_units, plain
from penstock.core.order import Order, OrderState
from penstock.core.snowflake import from_wire, moment_ms, wire_id
from penstock.db import Database, Row, Tx
from penstock.orders import store

LIST_MAX: Final = 1_000

_NEXT: Final = {
    OrderState.ACCEPTED: "a worker binds it to the next slot of the hot address and sends it",
    OrderState.SENDING: "the same bytes are sent again until a block has them; the fee is raised under its cap when the network asks for more",
    OrderState.CONFIRMING: "it succeeds when its block is deep enough to report",
    OrderState.QUARANTINED: "a person looks at it and says `penstock order decide`: again, paid or failed; nothing new is sent until then",
    OrderState.SUCCEEDED: "nothing more",
    OrderState.FAILED: "nothing more; its money is back in the balance",
}

_WEBHOOK_NEXT: Final = {
    "due": "its webhook is sent, again and again until the receiver answers success",
    "parked": "nothing by itself: its webhook is parked, and `penstock webhook resend` sends it again",
}

_HELD: Final = {
    "liquidity": "it goes on by itself when the hot address is refilled (see `penstock treasury`)",
    "fee cap": "it goes on by itself when the network is cheaper, or when networks.<CHAIN>.fee_max is raised",
    "network paused": "it goes on by itself when the network answers; after `penstock resume` where it was halted (`penstock audit` shows why), "
    "or `penstock signer go` where the signer is stopped",
    "policy": "the operator's policy must allow it",
    "approval": "a person must approve it",
}


class Timelines:
    """Reads one order, or many, with all that belongs to them."""

    def __init__(self, database: Database, catalog: Catalog) -> None:
        self._database = database
        self._catalog = catalog

    async def listed(self, *, state: str = "", merchant_id: int | None = None, chain: str = "", limit: int = 50) -> list[dict[str, Any]]:
        """Newest first, filtered."""
        # Newest orders for people; ids rise with time.
        rows = await self._database.read(
            lambda tx: tx.all(
                f"SELECT {store.COLUMNS} FROM orders WHERE (:state = '' OR state = :state) AND (:chain = '' OR chain = :chain) "
                "AND (:merchant_id = -1 OR merchant_id = :merchant_id) ORDER BY id DESC LIMIT :limit",
                state=state,
                chain=chain,
                merchant_id=-1 if merchant_id is None else merchant_id,
                limit=min(limit, LIST_MAX),
            )
        )
        return [summary(store.order_of(row)) for row in rows]

    async def of_holder(self, holder: str, limit: int = 50) -> list[dict[str, Any]]:
        """What one holder paid and received, newest first."""
        # Both sides of one holder's orders.
        rows = await self._database.read(
            lambda tx: tx.all(
                f"SELECT {store.COLUMNS} FROM orders WHERE payer = :holder OR recipient = :holder ORDER BY id DESC LIMIT :limit",
                holder=holder,
                limit=min(limit, LIST_MAX),
            )
        )
        return [
            {
                "at_ms": moment_ms(o.id),
                "order_id": wire_id(o.id),
                "amount": plain(o.value if o.payer != holder else -o.value, LEDGER_DECIMALS),
            }
            | {"crypto": o.crypto, "state": o.state.value, "address": o.address}
            for o in map(store.order_of, rows)
        ]

    async def of(self, text: str) -> dict[str, Any] | None:
        """The timeline of an order by our id or the merchant's; None when there is no such order."""
        return await self._database.read(lambda tx: self._of(tx, text))

    async def find(self, text: str) -> Order | None:
        """The order by either id."""
        return await self._database.read(lambda tx: _find(tx, text))

    async def archived(self, order_id: int) -> str:
        """The file that has the rest of an order; "" where it is all in the tables."""
        return await self._database.read(lambda tx: _archived(tx, order_id))

    def _of(self, tx: Tx, text: str) -> dict[str, Any] | None:
        order = _find(tx, text)
        if order is None:
            return None
        history = tx.all("SELECT at_ms, before, after, reason FROM order_history WHERE order_id = :id ORDER BY id", id=order.id)
        attempts = tx.all(
            "SELECT attempt.* FROM attempt JOIN attempt_order ON attempt_order.attempt_id = attempt.id "
            "WHERE attempt_order.order_id = :id ORDER BY attempt.id",
            id=order.id,
        )
        shown = summary(order)
        shown["states"] = [{"at_ms": moment_ms(order.id), "state": _first_state(order), "reason": "the request was accepted"}]
        shown["states"] += [{"at_ms": h["at_ms"], "state": h["after"], "reason": h["reason"]} for h in history]
        if file := _archived(tx, order.id):
            shown["archived"] = file
            told = "what happened on the way is archived"
            shown["states"] += [{"at_ms": order.decided_at_ms, "state": order.state.value, "reason": told}] if not order.is_internal else []
        shown["attempts"] = [self._attempt(tx, order, row) for row in attempts]
        shown["webhook"] = _webhook(tx, order.id)
        shown["waits_for"], shown["next"] = _outlook(order, history, attempts)
        if order.decided_at_ms is not None and shown["webhook"] is not None:
            shown["next"] = shown["next"].replace("nothing more", _WEBHOOK_NEXT.get(shown["webhook"]["state"], "nothing more"))
        return shown

    def _attempt(self, tx: Tx, order: Order, row: Row) -> dict[str, Any]:
        native = self._catalog.native(order.chain)
        versions = tx.all(
            "SELECT number, kind, txid, intent, sends, verdict, sent_at_ms FROM version WHERE attempt_id = :id ORDER BY number",
            id=row["id"],
        )
        network = self._catalog.network(order.chain)
        shown: dict[str, Any] = {
            "slot": row["slot"],
            "state": row["state"],
            "seen": row["seen"],
            "confirmations_needed": network.confirmations if network is not None else None,
            "fee_cap": f"{plain(row['fee_cap'], native.decimals)} {native.coin.symbol}",
            "gas_paid": None if row["gas_paid"] is None else f"{plain(row['gas_paid'], native.decimals)} {native.coin.symbol}",
            "versions": [
                {
                    "number": v["number"],
                    "kind": v["kind"],
                    "txid": v["txid"],
                    "terms": json.loads(v["intent"])["terms"],
                    "sends": v["sends"],
                }
                | {"verdict": v["verdict"], "sent_at_ms": v["sent_at_ms"]}
                for v in versions
            ],
        }
        if row["archive"] is not None:
            return shown  # how its cost was shared is in the file
        weight, whole, count = _part(tx, order.id, row)
        if count > 1:
            shown["shared_by"] = count
        if row["gas_paid"] is not None:
            gas = row["gas_paid"] * weight // whole
            if count > 1:
                shown["gas_part"] = f"{plain(gas, native.decimals)} {native.coin.symbol}"
                shown["gas_saved"] = f"{plain(max(0, order.gas_quoted - gas), native.decimals)} {native.coin.symbol}"
            charged = order.fee if order.state is OrderState.SUCCEEDED else 0
            shown["fee_taken"] = f"{plain(charged, LEDGER_DECIMALS)} {order.crypto}"
            shown["native_rate_quoted"], shown["native_rate_final"] = order.native_rate, row["native_rate"]
            shown["fee_gain_usd"] = _gain(order, TokenAmount(native, gas).to_coin().units, row["native_rate"])
        return shown


def _part(tx: Tx, order_id: int, attempt: Row) -> tuple[int, int, int]:
    """An order's weight in the transaction that pays it, the weight of all its orders, and their number."""
    # Of the version that landed, or else of the newest.
    row = tx.one(
        "SELECT SUM(CASE WHEN order_id = :order_id THEN weight ELSE 0 END) AS part, SUM(weight) AS whole, COUNT(*) AS orders "
        "FROM version_order JOIN version ON version.id = version_order.version_id WHERE version.attempt_id = :id "
        "GROUP BY version.id, version.txid, version.number ORDER BY CASE WHEN version.txid = :txid THEN 0 ELSE 1 END, version.number DESC LIMIT 1",
        order_id=order_id,
        id=attempt["id"],
        txid=attempt["txid"],
    )
    return (int(row["part"]), int(row["whole"]), int(row["orders"])) if row is not None else (1, 1, 1)


def _gain(order: Order, gas: int, native_rate: str) -> str:
    """What the house gained or lost on the fee, in USD: the fee at its quote's rate, less the gas at the rate of its end."""
    one = 10**LEDGER_DECIMALS
    taken = order.fee * parse_units(order.token_rate, LEDGER_DECIMALS) // one if order.state is OrderState.SUCCEEDED else 0
    spent = gas * parse_units(native_rate or "0", LEDGER_DECIMALS) // one
    return plain((taken - spent) // 10**12, 6)


def summary(order: Order) -> dict[str, Any]:
    """An order in one row."""
    return {
        "order_id": wire_id(order.id),
        "merchant_order_id": order.merchant_order_id,
        "merchant_id": order.merchant_id,
        "payer": order.payer,
        "created_at_ms": moment_ms(order.id),
        "state": order.state.value,
        "status": order.wire.text,
        "hold_reason": order.hold_reason,
        "fail_reason": order.fail_reason,
        "chain": order.chain,
        "crypto": order.crypto,
        "value": plain(order.value, LEDGER_DECIMALS),
        "network_fee": plain(order.fee, LEDGER_DECIMALS),
        "net_receivable": plain(order.net, LEDGER_DECIMALS),
        "merchant_pays_fee": order.merchant_pays_fee,
        "address": order.address,
        "memo": order.memo,
        "internal": order.is_internal,
        "txid": order.txid,
        "decided_at_ms": order.decided_at_ms,
    }


def _find(tx: Tx, text: str) -> Order | None:
    order_id = from_wire(text.removeprefix("CP"))
    if order_id is not None:
        row = tx.one(f"SELECT {store.COLUMNS} FROM orders WHERE id = :id", id=order_id)
        if row is not None:
            return store.order_of(row)
    # Two merchants may use one id; the newest order is shown.
    row = tx.one(
        f"SELECT {store.QUALIFIED} FROM order_key JOIN orders ON orders.id = order_key.order_id "
        "WHERE order_key.merchant_order_id = :text ORDER BY orders.id DESC LIMIT 1",
        text=text,
    )
    return store.order_of(row) if row is not None else None


def _archived(tx: Tx, order_id: int) -> str:
    row = tx.one("SELECT archive.file FROM orders JOIN archive ON archive.number = orders.archive WHERE orders.id = :id", id=order_id)
    return str(row["file"]) if row is not None else ""


def _first_state(order: Order) -> str:
    return (OrderState.SUCCEEDED if order.is_internal else OrderState.ACCEPTED).value


def _webhook(tx: Tx, order_id: int) -> dict[str, Any] | None:
    row = tx.one("SELECT id, state, sends, result, due_at_ms, ended_at_ms FROM outbox WHERE order_id = :id", id=order_id)
    if row is None:
        return None
    sends = tx.all("SELECT number, at_ms, took_ms, status, result FROM webhook_send WHERE outbox_id = :id ORDER BY number", id=row["id"])
    return {
        "event_id": str(row["id"]),
        "state": row["state"],
        "sends": sends,
        "result": row["result"],
        "due_at_ms": row["due_at_ms"],
        "ended_at_ms": row["ended_at_ms"],
    }


def _outlook(order: Order, history: list[Row], attempts: list[Row]) -> tuple[str, str]:
    """Why it waits and what happens next."""
    if order.state is OrderState.HELD:
        # The newest text, unless the order is held for another reason by now.
        told = (h["reason"] for h in reversed(history) if h["after"] == "held" and h["reason"].startswith(order.hold_reason))
        why = next(told, order.hold_reason)
        return why, _HELD.get(order.hold_reason, "")
    seen = attempts[-1]["seen"] if attempts else ""
    waits = {
        OrderState.ACCEPTED: "a worker, or a free slot on the hot address",
        OrderState.SENDING: seen or ("a block that has it" if attempts and attempts[-1]["state"] == "sent" else "a node's answer"),
        OrderState.CONFIRMING: seen,
        OrderState.QUARANTINED: next((h["reason"] for h in reversed(history) if h["after"] == "quarantined"), ""),
    }
    return waits.get(order.state, ""), _NEXT[order.state]
