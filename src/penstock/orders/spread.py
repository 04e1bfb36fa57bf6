"""Which hot address pays which order, where a network has several: one that moves, has room and coins enough, and least under way.

A proposal, made before anything is locked, because what a payment costs may depend on who pays it. `bind` decides under the lane's lock with
what is true then; an order whose lane has become short or full meanwhile comes back and is proposed to another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from penstock.core.money import CoinAmount, Token
from penstock.core.order import Order
from penstock.db import Tx
from penstock.orders import attempts
from penstock.orders.attempts import Lane
from penstock.orders.choose import Purse, purse

STUCK_BLOCKS: Final = 10
"""A lane whose oldest transaction is in no block after so many, or so many times 200 ms, gets orders only when all others are full or short."""


@dataclass(slots=True)
class Till:
    """One lane as it looks now; counted on while orders are proposed to it."""

    lane: Lane
    money: Purse
    room: int
    under_way: int
    is_stuck: bool


def tills(tx: Tx, chain: str, native: Token, *, hot_addresses: int, in_flight_max: int, stuck_since_ms: int) -> list[Till]:
    """The lanes that may take orders: those that the settings ask for, that were looked at. None while the network stands."""
    found = []
    for lane in attempts.lanes(tx, chain):
        money = purse(tx, lane.id, native)
        if lane.number >= hot_addresses or lane.halted or money is None:
            continue
        live = attempts.live_count(tx, lane.id)
        # What is in a block already holds nobody up.
        row = tx.one(
            "SELECT MIN(created_at_ms) AS oldest FROM attempt WHERE lane_id = :lane_id AND state IN ('bound', 'signed', 'sent')",
            lane_id=lane.id,
        )
        oldest = row["oldest"] if row is not None else None
        found.append(Till(lane, money, in_flight_max - live, live, oldest is not None and oldest <= stuck_since_ms))
    return found


def propose(orders: Sequence[Order], among: Sequence[Till], needs: Callable[[Order], Mapping[str, int]]) -> dict[int, list[Order]]:
    """Orders by the number of the lane that shall pay them, oldest first. Who could be paid by none goes where most of its coins are."""
    proposed: dict[int, list[Order]] = {}
    for order in sorted(orders, key=lambda one: one.id):
        wanted = needs(order)

        def rank(till: Till, wanted: Mapping[str, int] = wanted, token_id: str = order.token_id) -> tuple[int, ...]:
            is_short = any(till.money.spendable.get(name, 0) < units for name, units in wanted.items())
            have = till.money.spendable.get(token_id, 0) if is_short else 0
            return is_short, -have, till.room <= 0, till.is_stuck, till.under_way, till.lane.number

        best = min(among, key=rank)
        best.money.take(wanted)
        best.room, best.under_way = best.room - 1, best.under_way + 1
        proposed.setdefault(best.lane.number, []).append(order)
    return proposed


def need_of(order: Order, token: Token, native: Token, fee_max: int) -> dict[str, int]:
    """Base units by token id that a lane has to have for an order."""
    needed = {native.id: fee_max}
    needed[token.id] = needed.get(token.id, 0) + CoinAmount(token.coin, order.net).to_token(token).units
    return needed
