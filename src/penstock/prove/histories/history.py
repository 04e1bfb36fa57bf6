"""What callers saw of a gateway, call by call, and whether one order of things explains it (test plan, D10).

Each merchant order id and each balance is judged by itself; an order's effect on a balance lies where its own calls show that it must.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from penstock.core.errors import Problem
from penstock.core.order import WireStatus
from penstock.prove.histories import models
from penstock.prove.histories.models import ABSENT, Known, Purse, Wish
from penstock.prove.histories.serial import NEVER, Operation, State, Undecided, contradiction
from penstock.prove.lane import Breach, Found

OK: Final = 10000
UNKNOWN: Final = 0
CONFLICT: Final = Problem.ORDER_DUPLICATE.code
SHORT: Final = Problem.BALANCE_INSUFFICIENT.code


@dataclass(frozen=True, slots=True)
class Call:
    """One call about one id or one coin. `code` is what was answered, UNKNOWN where nothing was; `said` what was told: `data` of a withdrawal,
    one element of bill/info or None where there is none, an event's body, or a balance in units of 10^-18.
    """

    kind: Literal["create", "query", "event", "cancel", "balance"]
    merchant: str
    about: str
    began: float
    ended: float = NEVER
    code: int = OK
    said: Any = None
    wish: Wish | None = None

    def __str__(self) -> str:
        return f"{self.kind} of {self.about} by {self.merchant}, {self.began:.3f} to {self.ended:.3f}: {self.code} {str(self.said)[:200]}"

    @property
    def shows(self) -> WireStatus | None:
        """What it says of an order that is there, None where it proves none."""
        if self.code == CONFLICT or (self.kind == "create" and self.code == OK):
            return WireStatus.PENDING
        if self.kind == "query" and self.said is not None:
            return WireStatus[self.said["order_detail"]["status"].upper()]
        if self.kind == "event":
            return WireStatus.FAILED if self.said["pay_status"] == "failed" else WireStatus.SUCCESSFUL
        return WireStatus.FAILED if self.kind == "cancel" and self.code == OK else None


@dataclass(slots=True)
class History:
    """Everything that was seen. `credits` are the units that each merchant had of each coin before the first call."""

    calls: list[Call] = field(default_factory=list)
    credits: dict[tuple[str, str], int] = field(default_factory=dict)

    def judge(self) -> list[Found]:
        """What no serial order explains. It must end with a query of every id, made when nothing was under way any more."""
        orders, reads = defaultdict[tuple[str, str], list[Call]](list), defaultdict[tuple[str, str], list[Call]](list)
        for call in self.calls:
            (reads if call.kind == "balance" else orders)[call.merchant, call.about].append(call)
        found = [one for (_, about), calls in orders.items() for one in _judged(_breach(calls), about, ABSENT, _of_order(calls))]
        found += _exchanged(orders.values())
        for (merchant, coin_id), units in self.credits.items():
            operations = [_operation(call, models.read(call.said)) for call in reads[merchant, coin_id]]
            for (owner, _), calls in orders.items():
                if owner == merchant:
                    operations += _of_purse(calls, coin_id)
            found += _judged("ledger_imbalance", f"the balance of {merchant} in {coin_id}", Purse(units), operations)
        return found


def _judged(breach: Breach, about: str, initial: State, operations: Sequence[Operation[State]]) -> list[Found]:
    try:
        why = contradiction(initial, operations)
    except Undecided as undecided:
        breach, why = "other", str(undecided)
    return [Found(breach, f"{about}: {why}")] if why else []


def _operation(call: Call, step: Callable[[State], State | None]) -> Operation[State]:
    # Orders and their ends are for ever; a cancelling that met no order may be one that met it later.
    return Operation(call.began, call.ended, step, str(call), monotone=call.kind != "cancel")


# --------------------------------------------------------------------------------------------------------------------- one id


def _of_order(calls: Sequence[Call]) -> list[Operation[Known]]:
    return [_operation(call, step) for call in calls if (step := _step(call)) is not None]


def _step(call: Call) -> models.OrderStep | None:
    """None for what is true of every history."""
    match call.kind, call.code:
        case "create", _ if call.wish is not None:
            if call.code in (OK, UNKNOWN):
                return models.created(call.wish, call.said) if call.code == OK else models.maybe_created(call.wish)
            return models.conflicted(call.wish) if call.code == CONFLICT else models.refused
        case "query", _:
            return models.unknown if call.said is None else models.shown(call.said)
        case "event", _:
            return models.told(call.said)
        case "cancel", (0 | 10000) as code:
            return models.cancelled if code == OK else models.maybe_cancelled
        case _:
            return None


def _breach(calls: Sequence[Call]) -> Breach:
    """What a contradiction about this id is called."""
    if len({call.said["order_id"] for call in calls if call.kind == "create" and call.code == OK}) > 1:
        return "double_payment"
    last = max(calls, key=lambda call: call.began)
    return "lost_order" if last.kind == "query" and last.said is None else "other"


def _exchanged(orders: Sequence[Sequence[Call]] | Any) -> Iterator[Found]:
    """Numbers that name two orders."""
    names = Counter[tuple[str, str]]()
    for calls in orders:
        said = [call.said for call in calls if call.code == OK and call.kind in ("create", "event")]
        said += [call.said["order_detail"] for call in calls if call.kind == "query" and call.said is not None]
        names.update({(name, one[name]) for one in said for name in ("order_id", "record_id") if name in one})
    yield from (Found("other", f"{name} {number} was given to {times} orders") for (name, number), times in names.items() if times > 1)


# ------------------------------------------------------------------------------------------------------------------ one balance


def _of_purse(calls: Sequence[Call], coin_id: str) -> Iterator[Operation[Purse]]:
    """What the calls about one order say of the balance: the amount went, it came back, there was too little of it."""
    for call in calls:
        if call.code == SHORT and call.wish is not None and call.wish.coin_id == coin_id:
            yield _operation(call, models.too_little(call.wish.units))
    wish = _stored_wish(calls)
    if wish is None or wish.coin_id != coin_id:
        return
    began, ended = _stored_between(calls, wish)
    yield Operation(began, ended, models.taken(wish.merchant_order_id, wish.units), f"{wish.units} for {wish.merchant_order_id}")
    if failed := [call for call in calls if call.shows is WireStatus.FAILED]:
        began = max([began, *(call.began for call in failed if call.kind == "cancel")])
        ended = min(call.ended for call in failed)
        yield Operation(
            began, ended, models.given_back(wish.merchant_order_id, wish.units), f"{wish.units} back from {wish.merchant_order_id}"
        )


def _stored_wish(calls: Sequence[Call]) -> Wish | None:
    """Which of the things that were asked under this id is stored, None for none: an answer says so, or what is shown."""
    wishes = [call.wish for call in calls if call.wish is not None]
    for call in calls:
        if call.kind == "create" and call.code == OK:
            return call.wish
        if call.kind == "query" and call.said is not None:
            return next((wish for wish in wishes if models.is_of(wish, call.said)), None)
    return None


def _stored_between(calls: Sequence[Call], wish: Wish) -> tuple[float, float]:
    """Not before it was asked for, nor before anybody was still told that it is not there; not after the first who saw it."""
    ended = min(call.ended for call in calls if call.shows is not None)
    asked = min(call.began for call in calls if call.wish == wish and call.code in (OK, UNKNOWN))
    absent = [call.began for call in calls if (call.kind == "query" and call.said is None) or call.code == SHORT]
    return max([asked, *(began for began in absent if began <= ended)]), ended
