"""`/withdraw` and `/bill/info`: decoding (spec 4.1, 4.2; quirks 14; decisions 16), the call, and the answer.

Everything here can be decided from the request alone. What needs the catalogue, a balance or a price is the order room's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from penstock.core.errors import Problem, Refused
from penstock.core.order import Order
from penstock.core.wire import bill_info, withdraw_data
from penstock.core.withdrawal import WithdrawRequest
from penstock.http.fields import ADDRESS, ID_CHARACTERS_MAX, TOKEN_ID, Call, Text, amount, integer_text, kind, refuse
from penstock.http.strict_json import JsonNumber, JsonObject, JsonValue

IDS_MAX: Final = 100

MERCHANT_ORDER_ID: Final = Text("merchant_order_id", ID_CHARACTERS_MAX, "give your own id of 1 to 64 printable characters", numbers=True)
_MEMO: Final = Text("memo", 256, "give the receiver's memo or tag as a string, or leave it out")
_VALUE: Final = 'give the amount as a plain decimal string such as "12.5"'
_IDS: Final = "give 1 to 100 of your order ids as strings"


async def withdraw(call: Call) -> Mapping[str, Any]:
    """Create a withdrawal order, or find the one that this id made before."""
    return withdraw_data(await call.ports.withdrawals.withdraw(call.merchant, decode_withdraw(call.body)))


async def order_information(call: Call) -> list[dict[str, Any]]:
    """The orders that exist, in the order of the request, each once."""
    ids = decode_order_ids(call.body)
    found: Mapping[str, Order] = await call.ports.orders.find(call.merchant.id, ids) if ids else {}
    return [bill_info(found[order_id]) for order_id in ids if order_id in found]


def decode_withdraw(body: JsonObject) -> WithdrawRequest:
    """A typed request. Raises Refused."""
    merchant_order_id = MERCHANT_ORDER_ID.need(body)
    address = ADDRESS.need(body)
    token_id = TOKEN_ID.need(body)
    value = amount(body, "value", _VALUE)
    memo, is_number_zero = _memo(body)
    return WithdrawRequest(
        merchant_order_id=merchant_order_id,
        address=address,
        token_id=token_id,
        value=value,
        memo=memo,
        memo_is_number_zero=is_number_zero,
        merchant_pays_fee=_flag(body, "merchant_pays_fee"),
    )


def _memo(body: JsonObject) -> tuple[str, bool]:
    """The text "0" is tag 0; the number 0 is a mistake that only tokens with memos mind (spec 16.2)."""
    value = body.get("memo")
    if not isinstance(value, JsonNumber):
        return _MEMO.read(body) or "", False
    if not (value.text.isascii() and value.text.isdigit()):
        refuse('memo must be a string or a whole number without sign: give it as a string such as "573049".')
    return ("", True) if value.text == "0" else (value.text, False)


def _flag(body: JsonObject, name: str) -> bool:
    """False when not given; nothing but a JSON boolean is ever guessed to be true."""
    match body.get(name):
        case None | "" | False | JsonNumber(text="0"):
            return False
        case True:
            return True
        case _:
            raise Refused(Problem.INVALID_ARGUMENT, f"{name} must be true or false: give it without quotes, or leave it out for false.")


def decode_order_ids(body: JsonObject) -> list[str]:
    """The ids that may exist, each once; the limit counts the raw list (spec 16.8). Raises Refused."""
    name = "merchant_order_ids"
    value = body.get(name)
    if value is None or value == "":
        name, value = "merchant_order_id", body.get("merchant_order_id")
    match value:
        case None | "":
            refuse(f"merchant_order_ids is missing: {_IDS}.")
        case list():
            ids = value
        case str() | JsonNumber():
            ids = [value]
        case _:
            refuse(f"{name} must be an array of strings, not {kind(value)}: {_IDS}.")
    if not ids:
        refuse(f"{name} is empty: {_IDS}.")
    if len(ids) > IDS_MAX:
        raise Refused(Problem.QUERY_NUM_MAX, f"{name} holds {len(ids)} ids, more than {IDS_MAX}: ask in several calls.")
    texts = (_id_text(value, name) for value in ids)
    return [text for text in dict.fromkeys(texts) if 1 <= len(text) <= ID_CHARACTERS_MAX]


def _id_text(value: JsonValue, name: str) -> str:
    """Too long or empty ids are no errors, they are unknown."""
    text = integer_text(value) if isinstance(value, JsonNumber) else value
    if text is None and value is not None:
        refuse(f"{name} holds a number that is not a whole one below 2^53: {_IDS}.")
    if not isinstance(text, str):
        refuse(f"{name} holds {kind(value)}: {_IDS}.")
    return text
