"""What a merchant asked for, decoded and typed, before anything was looked up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WithdrawRequest:
    """One `/withdraw` (spec 4.1). `value_text` is plain decimal text; `memo_is_number_zero` remembers a JSON 0 (spec 16.2)."""

    merchant_order_id: str
    address: str
    token_id: str
    value_text: str
    memo: str
    memo_is_number_zero: bool
    merchant_pays_fee: bool
