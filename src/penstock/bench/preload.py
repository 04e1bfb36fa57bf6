"""The past of a house before the clock starts: settled payouts inside it, in the rows that the product's own functions make.

One order for each account comes by the product's road, the others are copies of these with ids, merchant and name of their own. What is left
out is the caller, whose request would be read, judged and answered: rows, balances, events, hashes and the chain of batches are those of the
intake, and the audit reads them like any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from penstock.core import covers, ledger
from penstock.core.money import LEDGER_DECIMALS
from penstock.core.order import Order, holder_of_merchant
from penstock.core.party import Merchant
from penstock.core.snowflake import moment_ms
from penstock.core.withdrawal import WithdrawRequest
from penstock.db import Tx
from penstock.ledger.book import Book
from penstock.orders import store
from penstock.orders.accept import mark_of
from penstock.orders.intake import event_row
from penstock.runtime import rest_memory
from penstock.wiring import Product

BATCH: Final = 2_000
TELL_EVERY: Final = 100_000


@dataclass(frozen=True, slots=True)
class _Pattern:
    """The fields of a settled order, and the fingerprint that its request had; copies have the same request but for the name."""

    fields: Mapping[str, Any]
    mark: str


async def preload_orders(product: Product, accounts: Sequence[str], token_id: str, orders: int, say: Callable[[str], None]) -> None:
    """So many settled orders, spread over merchants and accounts. A house of one writer."""
    merchants = [merchant for merchant in await product.directory.list_merchants() if merchant.app_id]
    requests = [
        WithdrawRequest(f"preloaded-{n}", account, token_id, 10**LEDGER_DECIMALS, "", False, False)
        for n, account in enumerate(accounts[:orders])
    ]
    async with product.taking_orders():
        firsts = await asyncio.gather(*(product.accept.withdraw(merchants[0], request) for request in requests))
    patterns = [_Pattern(store.columns_of(order), mark_of(request)) for order, request in zip(firsts, requests, strict=True)]
    book = product.book("preload")
    rest_memory()
    for start in range(len(patterns), orders, BATCH):
        numbers = range(start, min(start + BATCH, orders))
        await product.database.write(
            "preload", partial(_write, product=product, book=book, merchants=merchants, patterns=patterns, numbers=numbers)
        )
        if numbers.stop // TELL_EVERY > start // TELL_EVERY:
            say(f"{numbers.stop // TELL_EVERY * TELL_EVERY:,} of {orders:,} orders preloaded")


def _write(tx: Tx, *, product: Product, book: Book, merchants: Sequence[Merchant], patterns: Sequence[_Pattern], numbers: range) -> None:
    now_ms, ids = product.runtime.now_ms(), product.ids.next(3 * len(numbers))
    chosen = [patterns[number % len(patterns)] for number in numbers]
    made = [
        _copy(pattern.fields, merchants[number % len(merchants)], number, order_id, record_id)
        for pattern, number, order_id, record_id in zip(chosen, numbers, ids[0::3], ids[1::3], strict=True)
    ]
    sheet = book.open(tx, {(holder, order.coin_id) for order in made for holder in (order.payer, order.recipient)})
    for order in made:
        sheet.post(ledger.internal(order.id, order.payer, order.recipient, order.coin_id, order.value))
    marked = [(order, pattern.mark) for order, pattern in zip(made, chosen, strict=True)]
    tx.insert(
        "order_key(merchant_id {INT}, merchant_order_id TEXT, fingerprint TEXT, order_id {INT}, created_at_ms {INT})",
        [
            {
                "merchant_id": order.merchant_id,
                "merchant_order_id": order.merchant_order_id,
                "fingerprint": mark,
                "order_id": order.id,
                "created_at_ms": now_ms,
            }
            for order, mark in marked
        ],
    )
    store.insert(tx, made, due_at_ms=now_ms)
    events = [event_row(order, event_id, now_ms) for order, event_id in zip(made, ids[2::3], strict=True)]
    product.outbox.enqueue(tx, events)
    sheet.cover(
        {
            ("order", str(order.id), "internal"): covers.internal(store.columns_of(order), mark, event["body"])
            for (order, mark), event in zip(marked, events, strict=True)
        }
    )
    book.close(tx, sheet, now_ms)


def _copy(fields: Mapping[str, Any], merchant: Merchant, number: int, order_id: int, record_id: int) -> Order:
    own = {
        "id": order_id,
        "record_id": record_id,
        "merchant_id": merchant.id,
        "merchant_order_id": f"preloaded-{number}",
        "payer": holder_of_merchant(merchant.id),
        "decided_at_ms": moment_ms(order_id),
    }
    return Order(**{**fields, **own})
