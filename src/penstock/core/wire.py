"""Orders as the merchant API prints them: answers, order information and webhook bodies (spec, sections 4 and 7).

Everything here must survive JavaScript's parse and re-serialise: amounts are strings, numbers are small integers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from penstock.core.money import LEDGER_DECIMALS, plain
from penstock.core.order import Order, WireStatus
from penstock.core.snowflake import wire_id


class Height(NamedTuple):
    """Where a chain stands. `block_rate_s` is left out of the answer when it is None."""

    chain: str
    current: int
    confirmations: int
    block_rate_s: int | None


def compact(value: object) -> bytes:
    """Compact JSON in raw UTF-8: the only form both Node SDKs verify (spec, section 2). Not for floats."""
    return msgspec.json.encode(value)


def amount(units: int) -> str:
    """A coin amount in plain notation."""
    return plain(units, LEDGER_DECIMALS)


def withdraw_data(order: Order) -> dict[str, Any]:
    """`data` of an accepted withdrawal (spec 4.1): the same bytes for every repeat, whatever happened since."""
    return {
        "order_id": wire_id(order.id),
        "record_id": wire_id(order.record_id),
        "network_fee": amount(order.fee),
        "network_coin_id": order.coin_id,
        "network_fee_crypto": order.crypto,
        "network_symbol": order.crypto,
        "network_fee_value": order.fee_usd,
        "net_receivable": amount(order.net),
    }


def bill_info(order: Order) -> dict[str, Any]:
    """One element of `bill/info` (spec 4.2; failed orders: 16.10; while pending: open point 15)."""
    failed = order.wire is WireStatus.FAILED
    trade_status = WireStatus.PROCESSING if order.wire is WireStatus.PENDING else order.wire
    decided = order.wire in (WireStatus.SUCCESSFUL, WireStatus.FAILED)
    place = {"chain": order.chain, "contract": order.contract, "crypto": order.crypto}
    return {
        "order_detail": {
            "merchant_order_id": order.merchant_order_id,
            "order_id": wire_id(order.id),
            **place,
            "order_amount": amount(order.value),
            "token_rate": order.token_rate,
            "status": order.wire.text,
            "created": order.created_s,
        },
        "trade_list": [
            {
                "amount": "0" if failed else amount(order.net),
                **place,
                "service_fee": "0",
                "network_fee": "0" if failed else amount(order.fee),
                "network_coin_id": order.coin_id,
                "network_fee_crypto": order.crypto,
                "network_fee_value": "0" if failed else order.fee_usd,
                "txid": order.txid if decided and not order.is_internal else "",
                "pay_time": (order.decided_at_ms or 0) // 1000 if decided else 0,
                "token_rate": order.token_rate,
                "status": trade_status.text,
            }
        ],
    }


def webhook_body(order: Order) -> dict[str, Any]:
    """The `API Withdrawal` event of a decided order (spec 7.2, 16.10)."""
    failed = order.wire is WireStatus.FAILED
    return {
        "pay_status": "failed" if failed else "success",
        "order_type": "API Withdrawal",
        "order_id": wire_id(order.id),
        "record_id": wire_id(order.record_id),
        "withdraw_amount": amount(order.value),
        "net_receivable": "0" if failed else amount(order.net),
        "network_fee": "0" if failed else amount(order.fee),
        "network_fee_crypto": order.crypto,
        "network_coin_id": order.coin_id,
        "network_fee_value": "0" if failed else order.fee_usd,
        "chain": order.chain,
        "contract": order.contract,
        "crypto": order.crypto,
        "to_address": order.address,
        "memo": order.memo,
        "txid": "internal transfer" if order.is_internal else order.txid,
        "merchant_order_id": order.merchant_order_id,
        "merchant_pays_fee": order.merchant_pays_fee,
    }
