"""Which of the orders that are due go now, which wait and why: slot, coins and liquidity are taken here, under the lane's lock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from penstock.catalog import Catalog
from penstock.core.errors import InvariantBroken
from penstock.core.intent import Intent, Payment, Resource
from penstock.core.money import CoinAmount, Token
from penstock.core.order import HoldReason, Order
from penstock.core.snowflake import moment_ms
from penstock.db import Tx
from penstock.orders import attempts
from penstock.orders.attempts import Lane
from penstock.rails.base import Batches, FeeEstimate, LaneView, NotEnough, Rail, Unpayable

Fees = Mapping[int, FeeEstimate | Unpayable]
"""By order id; none for an order whose network gives no fresh estimate."""

_NO_ESTIMATE: Final = "there is no fresh fee estimate from the network's nodes"
_NO_SEAL: Final = "it was accepted before orders were sealed, and the signer pays no such order; cancel it and ask again"


@dataclass(slots=True)
class Purse:
    """What a lane can still spend, counted down while attempts are bound under its lock."""

    spendable: dict[str, int]

    def take(self, amounts: Mapping[str, int]) -> bool:
        """Take all or nothing."""
        if any(self.spendable.get(token_id, 0) < units for token_id, units in amounts.items()):
            return False
        for token_id, units in amounts.items():
            self.spendable[token_id] -= units
        return True


def purse(tx: Tx, lane_id: int, native: Token) -> Purse | None:
    """Observed final balance, less what attempts that the observation does not show yet will take; None before the first look."""
    seen = {
        r["token_id"]: r for r in tx.all("SELECT token_id, block, observed FROM treasury_seen WHERE lane_id = :lane_id", lane_id=lane_id)
    }
    if native.id not in seen:
        return None
    oldest = min(row["block"] for row in seen.values())
    # Live attempts, and final ones in blocks that are newer than the observation; like ones together, because there may be thousands.
    rows = tx.all(
        "SELECT token_id, outflow, fee_cap, gas_paid, final_block, COUNT(*) AS n FROM ("
        "SELECT token_id, outflow, fee_cap, gas_paid, NULL AS final_block FROM attempt WHERE lane_id = :lane_id AND state IN "
        "('bound', 'signed', 'sent', 'included') UNION ALL SELECT token_id, outflow, fee_cap, gas_paid, block FROM attempt "
        "WHERE lane_id = :lane_id AND state = 'final' AND block > :oldest) AS counted "
        "GROUP BY token_id, outflow, fee_cap, gas_paid, final_block",
        lane_id=lane_id,
        oldest=oldest,
    )
    spendable = {token_id: row["observed"] for token_id, row in seen.items()}
    for row in rows:
        fee = row["fee_cap"] if row["gas_paid"] is None else row["gas_paid"]
        for token_id, units in ((row["token_id"], row["outflow"]), (native.id, fee)):
            if token_id in seen and (row["final_block"] is None or row["final_block"] > seen[token_id]["block"]):
                spendable[token_id] -= units * row["n"]
    return Purse(spendable)


@dataclass(slots=True)
class Choice:
    """What becomes of each order: bound, held with a reason, postponed until there is room or company, or never payable."""

    intents: list[Intent] = field(default_factory=list)
    held: list[tuple[Order, HoldReason, str]] = field(default_factory=list)
    no_room: list[Order] = field(default_factory=list)
    gathering: list[tuple[Order, int]] = field(default_factory=list)
    hopeless: list[tuple[Order, str]] = field(default_factory=list)

    def refuse(self, order: Order, problem: Unpayable) -> None:
        """It cannot be paid now, or ever."""
        if problem.for_ever:
            self.hopeless.append((order, str(problem)))
        else:
            self.held.append((order, HoldReason.LIQUIDITY if problem.short else HoldReason.POLICY, str(problem)))


class Chooser:
    """Chooses for one lane in one transaction."""

    def __init__(self, catalog: Catalog, rail: Rail, lane: Lane, money: Purse, *, coins: Sequence[Resource], slots: Sequence[int]) -> None:
        self._catalog = catalog
        self._rail = rail
        self._window_ms = rail.window_ms if isinstance(rail, Batches) else 0
        self._lane = lane
        self._money = money
        self._coins = list(coins)
        self._slots = slots
        self._native = catalog.native(lane.chain)

    def choose(self, orders: Sequence[Order], fees_of: Fees, attempt_ids: Sequence[int], *, now_ms: int) -> Choice:
        """Oldest first; where a transaction can pay many, those of one token go together."""
        choice, fit = Choice(), []
        for order in sorted(orders, key=lambda o: o.id):
            fees = fees_of.get(order.id)
            if not order.seal:
                choice.held.append((order, HoldReason.POLICY, _NO_SEAL))
            elif fees is None:
                choice.held.append((order, HoldReason.NETWORK_PAUSED, _NO_ESTIMATE))
            elif isinstance(fees, Unpayable):
                choice.refuse(order, fees)
            elif fees.cost > fees.fee_cap:
                asks = f"the network asks {fees.cost} and the cap is {fees.fee_cap} base units of {self._native.coin.symbol}"
                choice.held.append((order, HoldReason.FEE_CAP, asks))
            else:
                fit.append((order, fees))
        for group in self._groups(self._affordable(choice, fit)):
            if len(choice.intents) >= len(self._slots):
                choice.no_room += [order for order, _ in group]
            elif (until_ms := self._gathers_until(group, now_ms)) > now_ms:
                choice.gathering += [(order, until_ms) for order, _ in group]
            else:
                self._bind(choice, group, attempt_ids[len(choice.intents)])
        return choice

    def _affordable(self, choice: Choice, fit: Sequence[tuple[Order, FeeEstimate]]) -> list[tuple[Order, FeeEstimate]]:
        """Without those that there are no coins for and that would hold others with them."""
        left, found = Purse(dict(self._money.spendable)), []
        for order, fees in fit:
            needs = {order.token_id: payment_of(order, self._token(order)).units}
            if fees.together == 1 or left.take(needs):
                found.append((order, fees))
            else:
                choice.held.append((order, HoldReason.LIQUIDITY, _shortage(left, needs, self._catalog)))
        return found

    def _groups(self, fit: Sequence[tuple[Order, FeeEstimate]]) -> list[list[tuple[Order, FeeEstimate]]]:
        """Each one transaction, that of the oldest order first."""
        groups: list[list[tuple[Order, FeeEstimate]]] = []
        filling: dict[tuple[str, int], list[tuple[Order, FeeEstimate]]] = {}
        for order, fees in fit:
            group = filling.get((order.token_id, fees.together))
            if group is None or len(group) >= fees.together:
                group = filling[order.token_id, fees.together] = []
                groups.append(group)
            group.append((order, fees))
        return groups

    def _gathers_until(self, group: Sequence[tuple[Order, FeeEstimate]], now_ms: int) -> int:
        """When a transaction that is not full goes all the same, Unix milliseconds: at the end of the window that its oldest order came in, so
        that all who came in one window are due together.

        An id from a moment still to come was drawn while the clock was ahead: how long its order has waited nobody knows.
        """
        (oldest, fees), window_ms = group[0], self._window_ms
        if not window_ms or len(group) >= fees.together or moment_ms(oldest.id) > now_ms:
            return 0
        return (moment_ms(oldest.id) // window_ms + 1) * window_ms

    def _bind(self, choice: Choice, group: Sequence[tuple[Order, FeeEstimate]], attempt_id: int) -> None:
        """One intent for the group, or for as many of its oldest as can be paid."""
        waiting = list(group)
        token = self._token(waiting[0][0])
        while waiting:
            newest = waiting[-1][0]
            try:
                intent = self._intent([order for order, _ in waiting], token, waiting[0][1], choice, attempt_id)
            except NotEnough as error:
                choice.held.append((newest, HoldReason.LIQUIDITY, str(error)))
            except Unpayable as problem:
                choice.refuse(newest, problem)
            else:
                needs = {self._native.id: intent.fee_cap}
                needs[token.id] = needs.get(token.id, 0) + sum(payment.units for payment in intent.payments)
                if self._money.take(needs):
                    choice.intents.append(intent)
                    owned = {resource.name for resource in intent.resources}
                    self._coins = [coin for coin in self._coins if coin.name not in owned]
                    return
                choice.held.append((newest, HoldReason.LIQUIDITY, _shortage(self._money, needs, self._catalog)))
            waiting.pop()

    def _intent(self, orders: Sequence[Order], token: Token, fees: FeeEstimate, choice: Choice, attempt_id: int) -> Intent:
        lane = self._lane
        slot, spendable = self._slots[len(choice.intents)], dict(self._money.spendable)
        view = LaneView(lane.chain, lane.address, slot, tuple(self._coins), spendable)
        return self._rail.bind([payment_of(order, token) for order in orders], token, view, fees, attempt_id=attempt_id)

    def _token(self, order: Order) -> Token:
        token = self._catalog.token(order.token_id)
        if token is None:
            raise InvariantBroken(f"order {order.id} has an estimate and its token {order.token_id} is not in the catalogue")
        return token


def payment_of(order: Order, token: Token) -> Payment:
    """What the order's recipient gets."""
    units = CoinAmount(token.coin, order.net).to_token(token).units
    return Payment(order.id, order.destination, order.memo, units, key=order.key, seal=order.seal)


def chooser(tx: Tx, catalog: Catalog, rail: Rail, lane: Lane, *, in_flight_max: int) -> Chooser | None:
    """For a locked lane; None before its treasury was looked at."""
    money = purse(tx, lane.id, catalog.native(lane.chain))
    if money is None:
        return None
    slots = attempts.free_slots(tx, lane, max(0, in_flight_max - attempts.live_count(tx, lane.id)))
    return Chooser(catalog, rail, lane, money, coins=attempts.free_coins(tx, lane.id), slots=slots)


def _shortage(money: Purse, needs: Mapping[str, int], catalog: Catalog) -> str:
    lacking: list[str] = []
    chain = ""
    for token_id, units in needs.items():
        token = catalog.token(token_id)
        if token is not None and money.spendable.get(token_id, 0) < units:
            have = max(0, money.spendable.get(token_id, 0))
            lacking.append(f"{CoinAmount(token.coin, (units - have) * token.scale)} {token.coin.symbol}")
            chain = token.chain
    return f"the treasury lacks {' and '.join(lacking)} on {chain}" if lacking else "the treasury is short"
