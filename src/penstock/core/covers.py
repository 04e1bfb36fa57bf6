"""Hashes over what an entry of the books decided besides amounts, so that the chain of batches covers those rows too.

An entry carries the hash, the batch's hash carries the entry, and whoever audits makes it again from the rows as they are now. Each
begins with the number of its form: what a later version covers besides does not make the entries of before wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from penstock.core.canonical import canonical

_ACCEPTED: Final = (
    "id", "record_id", "merchant_id", "merchant_order_id", "payer", "recipient", "address", "destination", "memo", "token_id", "coin_id",
    "crypto", "chain", "contract", "merchant_pays_fee", "value", "fee", "net", "reserve", "fee_usd", "token_rate", "native_rate",
    "gas_quoted", "seal",
)  # fmt: skip
DECIDED: Final = ("id", "state", "wire", "fail_reason", "decided_at_ms")
_HISTORY: Final = ("id", "at_ms", "before", "after", "reason")
_RETIRED: Final = ("id", "lane_id", "slot", "token_id", "state", "txid", "block", "gas_paid", "native_rate")


def accepted(order: Mapping[str, Any], fingerprint: str) -> str:
    """What never changes in an order, and the mark by which its repeats are known."""
    return _hash("accepted", [_columns(order, _ACCEPTED), fingerprint])


def internal(order: Mapping[str, Any], fingerprint: str, body: str) -> str:
    """An order that is accepted and decided at once, and its event."""
    return _hash("internal", [_columns(order, _ACCEPTED), fingerprint, _columns(order, DECIDED), body])


def decided(order: Mapping[str, Any], history: Iterable[Mapping[str, Any]], body: str) -> str:
    """How an order ended (its columns DECIDED), every step on the way there, and its event."""
    steps = [_columns(row, _HISTORY) for row in sorted(history, key=lambda row: row["id"])]
    return _hash("decided", [_columns(order, DECIDED), steps, body])


def retired(attempt: Mapping[str, Any]) -> str:
    """Which transaction ended an attempt, where, and what it cost."""
    return _hash("retired", _columns(attempt, _RETIRED))


def _columns(row: Mapping[str, Any], names: Iterable[str]) -> list[Any]:
    return [int(value) if isinstance(value := row[name], bool) else value for name in names]


def _hash(domain: str, said: list[Any]) -> str:
    return "1:" + hashlib.sha256(canonical([domain, *said])).hexdigest()
