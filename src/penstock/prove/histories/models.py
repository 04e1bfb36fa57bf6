"""The two things whose histories are judged: what stands behind one merchant order id, and what a balance is.

Each function gives the `step` of an operation (prove/histories/serial.py): the state after it, None where it cannot have been answered so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from penstock.core.money import LEDGER_DECIMALS, parse_units
from penstock.core.order import WireStatus
from penstock.core.wire import compact


@dataclass(frozen=True, slots=True)
class Wish:
    """What one request asks for. `units` are of the coin, 10^-18; the merchant's fee comes out of them."""

    merchant_order_id: str
    address: str
    token_id: str
    coin_id: str
    chain: str
    value: str
    units: int
    is_internal: bool

    @property
    def body(self) -> bytes:
        """The request."""
        return compact(
            {"merchant_order_id": self.merchant_order_id, "address": self.address, "token_id": self.token_id, "value": self.value}
        )


class Known(NamedTuple):
    """What is stored under an id as far as anybody was told. `answer` and `end` are texts that must never change once they were said."""

    wish: Wish | None = None
    order_id: str = ""
    record_id: str = ""
    created: int = 0
    answer: str = ""
    shown: WireStatus = WireStatus.PENDING
    end: str = ""


ABSENT: Final = Known()
OrderStep = Callable[[Known], Known | None]
Shown = Mapping[str, Any]


def created(wish: Wish, data: Shown) -> OrderStep:
    """A withdrawal was accepted, or found: the same data for ever."""
    answer = compact(data).decode()
    fits = data["network_coin_id"] == wish.coin_id and _units(data["net_receivable"]) == wish.units - _units(data["network_fee"])

    def step(known: Known) -> Known | None:
        if not fits or known.wish not in (None, wish) or known.answer not in ("", answer):
            return None
        return _named(known._replace(wish=wish, answer=answer), order_id=data["order_id"], record_id=data["record_id"])

    return step


def maybe_created(wish: Wish) -> OrderStep:
    """Nobody was told what became of it."""
    return lambda known: known._replace(wish=wish) if known.wish is None else known


def conflicted(wish: Wish) -> OrderStep:
    """The id was used for something else before."""
    return lambda known: known if known.wish not in (None, wish) else None


def refused(known: Known) -> Known | None:
    """For a reason that lies in the request or the balance: a stored order would have won over that."""
    return known if known.wish is None else None


def unknown(known: Known) -> Known | None:
    """No order is shown under this id."""
    return known if known.wish is None else None


def shown(element: Shown) -> OrderStep:
    """`bill/info` has it: what it says of the wish is the wish, its state never goes back, its end never changes."""
    detail, [trade] = element["order_detail"], element["trade_list"]
    status = WireStatus[detail["status"].upper()]
    end = compact(trade).decode() if status >= WireStatus.SUCCESSFUL else ""

    def step(known: Known) -> Known | None:
        wish = known.wish
        if wish is None or detail["merchant_order_id"] != wish.merchant_order_id or not is_of(wish, element):
            return None
        if known.created not in (0, detail["created"]):
            return None
        named = _named(known._replace(created=detail["created"]), order_id=detail["order_id"], record_id="")
        return None if named is None else _moved(named, status, end)

    return step


def told(event: Shown) -> OrderStep:
    """A webhook came. It says what the end was, in other words than `bill/info`."""
    status = WireStatus.FAILED if event["pay_status"] == "failed" else WireStatus.SUCCESSFUL

    def step(known: Known) -> Known | None:
        wish = known.wish
        if wish is None or event["to_address"] != wish.address or _units(event["withdraw_amount"]) != wish.units:
            return None
        named = _named(known, order_id=event["order_id"], record_id=event["record_id"])
        return None if named is None else _moved(named, status, known.end)

    return step


def cancelled(known: Known) -> Known | None:
    """A person failed it while nothing was bound for it."""
    if known.wish is None or known.shown is not WireStatus.PENDING:
        return None
    return known._replace(shown=WireStatus.FAILED)


def maybe_cancelled(known: Known) -> Known:
    """Nobody was told whether."""
    return cancelled(known) or known


def _named(known: Known, *, order_id: str, record_id: str) -> Known | None:
    if known.order_id not in ("", order_id) or (record_id and known.record_id not in ("", record_id)):
        return None
    return known._replace(order_id=order_id, record_id=record_id or known.record_id)


def _moved(known: Known, status: WireStatus, end: str) -> Known | None:
    """On the way to its end whatever happens in the house happens between two calls; from its end there is no way."""
    if status < known.shown or (known.shown >= WireStatus.SUCCESSFUL and status != known.shown):
        return None
    if known.end not in ("", end) and end:
        return None
    return known._replace(shown=status, end=end or known.end)


class Purse(NamedTuple):
    """A balance in units of 10^-18, and whose orders it is less by."""

    available: int
    spent: frozenset[str] = frozenset()


PurseStep = Callable[[Purse], Purse | None]


def taken(name: str, units: int) -> PurseStep:
    """An order was stored, and its amount reserved or paid."""

    def step(purse: Purse) -> Purse | None:
        if name in purse.spent or purse.available < units:
            return None
        return Purse(purse.available - units, purse.spent | {name})

    return step


def given_back(name: str, units: int) -> PurseStep:
    """An order failed, and the whole of its amount came back."""
    return lambda purse: Purse(purse.available + units, purse.spent - {name}) if name in purse.spent else None


def read(units: int) -> PurseStep:
    """What a merchant was shown."""
    return lambda purse: purse if purse.available == units else None


def too_little(units: int) -> PurseStep:
    """An order was refused for want of money."""
    return lambda purse: purse if purse.available < units else None


def is_of(wish: Wish, element: Shown) -> bool:
    """Whether an element of `bill/info` is of this wish and no other one under its id."""
    return _units(element["order_detail"]["order_amount"]) == wish.units


def _units(text: str) -> int:
    return parse_units(text, LEDGER_DECIMALS)
