"""Entries and postings: which accounts move for each event (architecture, section 4).

Signs: liabilities and equity are positive, assets negative, so every entry sums to zero in every coin it touches.
There is no conversion entry: a fee stays in the coin it was taken in, gas is paid in its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

import msgspec

from penstock.core.errors import InvariantBroken

FUNDING: Final = "house:funding"
FEE_INCOME: Final = "house:fee_income"
NETWORK_COST: Final = "house:network_cost"


def available(holder: str) -> str:
    """What a holder may spend."""
    return f"{holder}:available"


def reserved(holder: str) -> str:
    """What a holder's open orders hold back."""
    return f"{holder}:reserved"


def treasury(token_id: str) -> str:
    """Coins of one token on our hot addresses; an asset, so usually negative."""
    return f"treasury:{token_id}"


def in_transit(token_id: str) -> str:
    """Paid out and reported, but not final on chain yet."""
    return f"payout_in_transit:{token_id}"


def is_stored(account: str) -> bool:
    """Whether the account has a balance row (merchants and internal accounts do; the house does not)."""
    return account.startswith(("m:", "u:"))


class Posting(msgspec.Struct, frozen=True):
    """One line of an entry, in coin units of 10^-18."""

    account: str
    coin_id: str
    units: int


class Entry(msgspec.Struct, frozen=True):
    """A balanced fact, unique by (ref_kind, ref_id, posting_kind). `chain` and `block` where it happened on chain."""

    ref_kind: str
    ref_id: str
    posting_kind: str
    postings: tuple[Posting, ...]
    chain: str | None = None
    block: int | None = None
    note: str = ""

    def __post_init__(self) -> None:
        sums: defaultdict[str, int] = defaultdict(int)
        for posting in self.postings:
            sums[posting.coin_id] += posting.units
        if any(sums.values()):
            raise InvariantBroken(f"entry {self.posting_kind} of {self.ref_kind} {self.ref_id} does not sum to zero")


def _lines(coin_id: str, *lines: tuple[str, int]) -> tuple[Posting, ...]:
    return tuple([Posting(account, coin_id, units) for account, units in lines if units])


def credit(command_id: str, holder: str, coin_id: str, units: int, reason: str) -> Entry:
    """Declared funding of a merchant."""
    return Entry("credit", command_id, "credit", _lines(coin_id, (FUNDING, -units), (available(holder), units)), note=reason)


def seen_on_chain(lane: str, token_id: str, coin_id: str, units: int, *, chain: str, block: int) -> Entry:
    """Coins that reached a hot address and are final."""
    lines = _lines(coin_id, (treasury(token_id), -units), (FUNDING, units))
    return Entry("seen", f"{chain}:{lane}:{token_id}:{block}", "seen", lines, chain, block)


def left_the_chain(lane: str, token_id: str, coin_id: str, units: int, *, chain: str, block: int, note: str) -> Entry:
    """Coins that left a hot address without us, final, and a person has said why."""
    lines = _lines(coin_id, (treasury(token_id), units), (FUNDING, -units))
    return Entry("seen", f"{chain}:{lane}:{token_id}:{block}", "left", lines, chain, block, note)


def reserve(order_id: int, holder: str, coin_id: str, units: int) -> Entry:
    """Held back for an order that leaves the house."""
    return Entry("order", str(order_id), "reserve", _lines(coin_id, (available(holder), -units), (reserved(holder), units)))


def internal(order_id: int, payer: str, recipient: str, coin_id: str, units: int) -> Entry:
    """A payout that stays in the house: no reserve, no fee."""
    return Entry("order", str(order_id), "internal", _lines(coin_id, (available(payer), -units), (available(recipient), units)))


def settle(order_id: int, holder: str, token_id: str, coin_id: str, *, net: int, fee: int) -> Entry:
    """The order succeeded. With either flag the reserve is net + fee: (V - F) + F, or V + F."""
    lines = _lines(coin_id, (reserved(holder), -(net + fee)), (in_transit(token_id), net), (FEE_INCOME, fee))
    return Entry("order", str(order_id), "settle", lines)


def release(order_id: int, holder: str, coin_id: str, units: int) -> Entry:
    """The order failed: nothing is charged."""
    return Entry("order", str(order_id), "release", _lines(coin_id, (reserved(holder), -units), (available(holder), units)))


def final(attempt_id: int, token_id: str, coin_id: str, units: int, *, chain: str, block: int, unclaimed: int = 0, note: str = "") -> Entry:
    """The attempt's transaction can never be undone: the coins have left the treasury. `unclaimed` was paid for orders that are not under
    way with it (a restored database has forgotten them): the house bears that, and `note` is why.
    """
    lines = _lines(coin_id, (in_transit(token_id), -units), (FUNDING, -unclaimed), (treasury(token_id), units + unclaimed))
    return Entry("attempt", str(attempt_id), "final", lines, chain, block, note)


def paid_elsewhere(order_id: int, token_id: str, coin_id: str, units: int, *, note: str) -> Entry:
    """By a person's word an order was paid with coins that had left the books as the house's: they were not."""
    lines = _lines(coin_id, (in_transit(token_id), -units), (FUNDING, units))
    return Entry("decision", str(order_id), "paid", lines, note=note)


def gas(attempt_id: int, native_token_id: str, native_coin_id: str, units: int, *, chain: str, block: int) -> Entry:
    """What the network took for the attempt, once: on success, on failure and on cancel."""
    lines = _lines(native_coin_id, (NETWORK_COST, -units), (treasury(native_token_id), units))
    return Entry("attempt", str(attempt_id), "gas", lines, chain, block)


def sums(postings: Iterable[tuple[str, str, int]]) -> dict[tuple[str, str], int]:
    """Balance per (account, coin) of raw postings."""
    totals: defaultdict[tuple[str, str], int] = defaultdict(int)
    for account, coin_id, units in postings:
        totals[account, coin_id] += units
    return dict(totals)
