"""How fast the signer signs: its real process over its socket, with journal, policy and limits, given accepted orders as the sender gives them.

    python -m penstock.bench.signing COUNT FIRST        with PENSTOCK_HOME set; prints signatures a second

What was signed must never be sent afterwards: the signer takes an order's key once.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from penstock import logs
from penstock.bench.place import EVM
from penstock.config import load
from penstock.core.intent import Intent
from penstock.core.order import Order
from penstock.db import Tx
from penstock.orders import store
from penstock.orders.choose import payment_of
from penstock.process import opened
from penstock.rails.base import LaneView
from penstock.wiring import Product

AT_ONCE: Final = 200
"""As many as the sender's pump takes."""
SLOTS_FROM: Final = 10**9
"""Behind those that orders have which were really sent."""


async def signed_per_second(count: int, first: int) -> float:
    """Signs that many accepted orders, leaving out the first ones. Raises ValueError when there are too few."""
    async with opened(load(), signing=True) as product:
        await product.board.refresh()
        orders = await product.database.read(lambda tx: _unsent(tx, first, count))
        if len(orders) < count:
            raise ValueError(f"{len(orders)} of {count} orders wait to be signed")
        intents = await _intents(product, orders, first)
        began = time.monotonic()
        for start in range(0, count, AT_ONCE):
            await product.signer.sign(intents[start : start + AT_ONCE])
        return count / (time.monotonic() - began)


def _unsent(tx: Tx, offset: int, count: int) -> list[Order]:
    rows: list[dict[str, Any]] = tx.all(
        f"SELECT {store.COLUMNS} FROM orders WHERE state = 'accepted' ORDER BY id LIMIT :count OFFSET :offset", count=count, offset=offset
    )
    return [store.order_of(row) for row in rows]


async def _intents(product: Product, orders: Sequence[Order], first: int) -> list[Intent]:
    token = product.catalog.token(orders[0].token_id)
    fees = product.board.estimate(token) if token is not None else None
    if token is None or fees is None:
        raise ValueError("the network gave no estimate")
    rail, address = product.rails[EVM.chain], await product.signer.address(EVM.chain, 0)
    attempt_ids = product.ids.next(len(orders))
    return [
        rail.bind([payment_of(order, token)], token, LaneView(EVM.chain, address, SLOTS_FROM + first + place), fees, attempt_id=attempt_id)
        for place, (order, attempt_id) in enumerate(zip(orders, attempt_ids, strict=True))
    ]


if __name__ == "__main__":
    logs.configure(logging.ERROR)
    print(json.dumps(asyncio.run(signed_per_second(int(sys.argv[1]), int(sys.argv[2])))))
