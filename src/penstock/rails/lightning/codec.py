"""What a Lightning payment order says, as bytes that can be stored, sent again and checked: `core.intent.Codec` of the family.

The coins are under the keys of the operator's own node, so nothing is signed here: the bytes are the order that the node gets, in canonical JSON.
They name the node's identity, which no other node may carry out, and its id is the payment hash. Pure: no I/O, no clock, no key.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from typing import Final

from penstock.core.intent import Intent, Key, Payment, Resource, Signed
from penstock.rails.lightning.invoice import (
    AMOUNT_MSAT_MAX,
    CHAINS,
    CLTV_FINAL_MAX,
    MSAT,
    Chain,
    Invoice,
    chain_of,
    parse,
)

__all__ = [
    "AMOUNT_MSAT_MAX",
    "CHAINS",
    "CLTV_FINAL_MAX",
    "MSAT",
    "Chain",
    "InvalidOrder",
    "Invoice",
    "PayOrder",
    "address",
    "broken_rules",
    "chain_of",
    "decode",
    "expires_ms",
    "node_id",
    "parse",
    "path",
    "same_address",
    "sign",
]

RAW_BYTES_MAX: Final = 8_192
TIMEOUT_S_MAX: Final = 600
CLTV_LIMIT_MAX: Final = 2_016
"""Blocks; LND's own --max-cltv-expiry."""
TERMS: Final = frozenset({"fee_limit_msat", "cltv_limit", "timeout_s", "send_by_ms"})

_NODE_ID: Final = re.compile(r"0[23][0-9a-f]{64}", re.ASCII)


class InvalidOrder(ValueError):
    """Bytes that are no payment order of this network; the text says why."""


@dataclass(frozen=True, slots=True)
class PayOrder:
    """What the node is told. `send_by_ms`: Unix milliseconds after which this order is never given to the node again.

    Why it ends: a node that lost its records would pay the same hash a second time, so an order whose fate is unknown is not repeated for ever.
    """

    amount_msat: int
    chain_id: int
    cltv_limit: int
    fee_limit_msat: int
    invoice: str
    node: str
    payment_hash: str
    send_by_ms: int
    timeout_s: int

    def to_bytes(self) -> bytes:
        """Canonical: the same order is the same bytes."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()


_FIELDS: Final = {field.name: field.type for field in fields(PayOrder)}
_LIMITS: Final = {
    "amount_msat": AMOUNT_MSAT_MAX,
    "chain_id": 2**32 - 1,
    "cltv_limit": CLTV_LIMIT_MAX,
    "fee_limit_msat": AMOUNT_MSAT_MAX,
    "send_by_ms": 2**53,
    "timeout_s": TIMEOUT_S_MAX,
}


def node_id(text: str) -> str:
    """The identity public key of a node, in lower case: 33 bytes, compressed. Raises ValueError."""
    if _NODE_ID.fullmatch(text.lower()) is None:
        raise ValueError("a node's identity is 66 hex digits that begin with 02 or 03")
    return text.lower()


def decode(raw: bytes, chain_id: int) -> PayOrder:
    """An order of this network, read as a stranger would. Raises InvalidOrder."""
    try:
        said = json.loads(raw) if len(raw) <= RAW_BYTES_MAX else None
    except (ValueError, RecursionError) as error:
        raise InvalidOrder("they are not JSON") from error
    if not isinstance(said, dict) or said.keys() != _FIELDS.keys():
        raise InvalidOrder("they are no payment order")
    for name, kind in _FIELDS.items():
        if type(said[name]).__name__ != kind or (name in _LIMITS and not 0 <= said[name] <= _LIMITS[name]):
            raise InvalidOrder(f"{name} cannot be right")
    order = PayOrder(**said)
    if order.to_bytes() != raw:
        raise InvalidOrder("they are not in canonical form")
    if order.chain_id != chain_id:
        raise InvalidOrder(f"they are for chain id {order.chain_id}, not {chain_id}")
    if _NODE_ID.fullmatch(order.node) is None:
        raise InvalidOrder("the node is no identity")
    try:
        invoice = parse(order.invoice, chain_id)
    except ValueError as error:
        raise InvalidOrder(str(error)) from error
    if invoice.text != order.invoice or invoice.payment_hash != order.payment_hash:
        raise InvalidOrder("the payment hash is not the invoice's")
    if invoice.amount_msat not in (None, order.amount_msat) or order.amount_msat % MSAT or not order.amount_msat:
        raise InvalidOrder("the amount is not the invoice's, or not whole satoshi")
    return order


def path(chain_id: int, lane: int) -> str:
    """Raises ValueError: the node has keys of its own."""
    raise ValueError(f"lane {lane} of chain id {chain_id}: the coins of a Lightning node are under its own keys")


def address(public_key: bytes, chain_id: int) -> str:
    """Raises ValueError: the address is the node's identity, which stands in the settings (node_id)."""
    raise ValueError(f"chain id {chain_id}: a Lightning node's identity stands in the settings, no key of {len(public_key)} bytes has one")


def same_address(one: str, other: str) -> bool:
    """Invoices and identities know no letter case."""
    return one.lower() == other.lower()


def expires_ms(intent: Intent) -> int | None:
    """Never: a payment that was sent may settle long after its invoice has expired."""
    del intent
    return None


def sign(intent: Intent, key: Key) -> Signed:
    """The order's bytes; no key is asked. Raises ValueError when the intent cannot be one."""
    del key
    invoice, payment = _checked(intent)
    order = PayOrder(
        amount_msat=payment.units,
        chain_id=intent.chain_id,
        invoice=invoice.text,
        node=intent.sender,
        payment_hash=invoice.payment_hash,
        **intent.terms,
    )
    raw = order.to_bytes()
    decode(raw, intent.chain_id)
    return Signed(intent.attempt_id, intent.version, invoice.payment_hash, raw)


def _checked(intent: Intent) -> tuple[Invoice, Payment]:
    """Raises ValueError."""
    if intent.family != "lightning" or intent.kind != "pay" or intent.contract is not None or len(intent.payments) != 1:
        raise ValueError("a Lightning intent makes exactly one payment, of the network's own coin")
    if intent.terms.keys() != TERMS or any(type(term) is not int for term in intent.terms.values()):
        raise ValueError(f"the terms of a Lightning intent are {', '.join(sorted(TERMS))}")
    invoice = parse(intent.payments[0].recipient, intent.chain_id)
    if intent.resources != (Resource(invoice.payment_hash),):
        raise ValueError("a Lightning intent owns its payment hash and nothing else")
    if node_id(intent.sender) == invoice.payee:
        raise ValueError("the invoice is our own node's")
    return invoice, intent.payments[0]


def broken_rules(intent: Intent, signed: Signed) -> list[str]:
    """What in the bytes is not what the intent says; empty when all is right. Raises ValueError for bytes that cannot be read."""
    order = decode(signed.raw, intent.chain_id)
    payments = intent.payments
    invoice = parse(order.invoice, intent.chain_id)
    rules = {
        "attempt": (signed.attempt_id, signed.version) == (intent.attempt_id, intent.version),
        "family": intent.family == "lightning" and intent.kind == "pay",
        "contract": intent.contract is None,
        "sender": order.node == intent.sender != invoice.payee,
        "recipient": len(payments) == 1 and payments[0].recipient == order.invoice and not payments[0].memo,
        "amount": sum(payment.units for payment in payments) == order.amount_msat,
        "payment hash": signed.txid == order.payment_hash and intent.resources == (Resource(order.payment_hash),),
        "terms": dict(intent.terms) == {name: getattr(order, name) for name in TERMS},
        "fee cap": order.fee_limit_msat <= intent.fee_cap,
        "expiry": order.send_by_ms <= invoice.expires_s * 1000,
    }
    return [name for name, holds in rules.items() if not holds]
