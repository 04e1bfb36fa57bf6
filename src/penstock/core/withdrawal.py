"""A withdrawal as a merchant asks for it: decoded and bounded, not yet judged against catalogue or balances."""

from __future__ import annotations

import msgspec


class WithdrawRequest(msgspec.Struct, frozen=True, gc=False):
    """What `POST /withdraw` said (spec 4.1), in the form that the fingerprint covers.

    merchant_order_id
      1 to 64 printable characters, never trimmed (spec 16.7)
    address
      exactly as given, because webhooks echo it and repeats compare it; only an e-mail is trimmed, when it is looked up (spec 5.2)
    value
      in 10^-18 of the coin, above zero
    memo
      text, "" for none; leading zeros kept. `memo_is_number_zero`: the JSON number 0 was sent, which is a mistake on a token that takes
      memos and nothing elsewhere (spec 16.2); `memo` is "" then
    """

    merchant_order_id: str
    address: str
    token_id: str
    value: int
    memo: str
    memo_is_number_zero: bool
    merchant_pays_fee: bool
