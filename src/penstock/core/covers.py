"""Hashes over what an entry of the books decided besides amounts, so that the chain of batches covers those rows too.

An entry carries the hash, the batch's hash carries the entry, and whoever audits makes it again from the rows as they are now. Each
begins with the number of its form: what a later version covers besides does not make the entries of before wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

from penstock.core.canonical import canonical

_ACCEPTED: Final = (
    "id", "record_id", "merchant_id", "merchant_order_id", "payer", "recipient", "address", "destination", "memo", "token_id", "coin_id",
    "crypto", "chain", "contract", "merchant_pays_fee", "value", "fee", "net", "reserve", "fee_usd", "token_rate", "native_rate",
    "gas_quoted", "seal",
)  # fmt: skip
DECIDED: Final = ("id", "state", "wire", "fail_reason", "decided_at_ms")
_accepted_of: Final = itemgetter(*_ACCEPTED)
_decided_of: Final = itemgetter(*DECIDED)
_step_of: Final = itemgetter("id", "at_ms", "before", "after", "reason")
_retired_of: Final = itemgetter("id", "lane_id", "slot", "token_id", "state", "txid", "block", "gas_paid", "native_rate")


def accepted(order: Mapping[str, Any], fingerprint: str) -> str:
    """What never changes in an order, and the mark by which its repeats are known."""
    return _hash("accepted", [_accepted_of(order), fingerprint])


def internal(order: Mapping[str, Any], fingerprint: str, body: str) -> str:
    """An order that is accepted and decided at once, and its event."""
    return _hash("internal", [_accepted_of(order), fingerprint, _decided_of(order), body])


def decided(order: Mapping[str, Any], history: Iterable[Mapping[str, Any]], body: str) -> str:
    """How an order ended (its columns DECIDED), every step on the way there, and its event."""
    steps = sorted(map(_step_of, history), key=itemgetter(0))
    return _hash("decided", [_decided_of(order), steps, body])


def retired(attempt: Mapping[str, Any]) -> str:
    """Which transaction ended an attempt, where, and what it cost."""
    return _hash("retired", _retired_of(attempt))


def _hash(domain: str, said: Sequence[Any]) -> str:
    return "1:" + hashlib.sha256(canonical([domain, *said])).hexdigest()
