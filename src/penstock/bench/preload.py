"""The past of a house before the clock starts: settled payouts inside it, by the product's own intake.

One order for each account comes the whole road, the others are copies of these with ids, merchant and name of their own, handed to the intake as
drafts. What is left out is the caller, whose request would be read and judged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from msgspec.structs import replace

from penstock.core.money import LEDGER_DECIMALS
from penstock.core.order import Order, holder_of_merchant
from penstock.core.party import Merchant
from penstock.core.snowflake import moment_ms
from penstock.core.withdrawal import WithdrawRequest
from penstock.orders.accept import mark_of
from penstock.orders.intake import BATCH_MAX, Draft
from penstock.runtime import rest_memory
from penstock.wiring import Product

TELL_EVERY: Final = 100_000


async def preload_orders(product: Product, accounts: Sequence[str], token_id: str, orders: int, say: Callable[[str], None]) -> None:
    """So many settled orders, spread over merchants and accounts."""
    merchants = [merchant for merchant in await product.directory.list_merchants() if merchant.app_id]
    requests = [
        WithdrawRequest(f"preloaded-{n}", account, token_id, 10**LEDGER_DECIMALS, "", False, False)
        for n, account in enumerate(accounts[:orders])
    ]
    rest_memory()
    async with product.taking_orders():
        firsts = await asyncio.gather(*(product.accept.withdraw(merchants[0], request) for request in requests))
        patterns = [(order, mark_of(request)) for order, request in zip(firsts, requests, strict=True)]
        for start in range(len(patterns), orders, BATCH_MAX):
            numbers = range(start, min(start + BATCH_MAX, orders))
            ids = product.ids.next(2 * len(numbers))
            drafts = [
                _copy(*patterns[number % len(patterns)], merchants[number % len(merchants)], number, order_id, record_id)
                for number, order_id, record_id in zip(numbers, ids[0::2], ids[1::2], strict=True)
            ]
            await asyncio.gather(*map(product.intake.submit, drafts))
            if numbers.stop // TELL_EVERY > start // TELL_EVERY:
                say(f"{numbers.stop // TELL_EVERY * TELL_EVERY:,} of {orders:,} orders preloaded")


def _copy(order: Order, mark: str, merchant: Merchant, number: int, order_id: int, record_id: int) -> Draft:
    own = replace(
        order,
        id=order_id,
        record_id=record_id,
        merchant_id=merchant.id,
        merchant_order_id=f"preloaded-{number}",
        payer=holder_of_merchant(merchant.id),
        decided_at_ms=moment_ms(order_id),
    )
    return Draft(merchant.id, own.merchant_order_id, mark, own)
