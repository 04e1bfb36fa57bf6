"""From an accepted order to an attempt: claim, choose who pays, bind; commit. Then its stages, while the next batch is bound.

A crash between any two steps is met by `follow`, which finds the attempt in the state it was left in and goes on with the same slot, the
same intent and the same bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import structlog

from penstock.catalog import Catalog
from penstock.core.intent import Signer, Standing
from penstock.core.money import LEDGER_DECIMALS, plain
from penstock.core.order import HoldReason, Order, OrderState
from penstock.core.snowflake import moment_ms
from penstock.db import Database, Tx
from penstock.orders import adopt, attempts, store
from penstock.orders.attempts import Lane, Version
from penstock.orders.board import Board
from penstock.orders.choose import Choice, Chooser, Fees, chooser, payment_of
from penstock.orders.in_hand import InHand
from penstock.orders.side_by_side import SideBySide
from penstock.orders.spread import STUCK_BLOCKS, Till, need_of, propose, tills
from penstock.orders.stages import Stages
from penstock.rails.base import FeeEstimate, NodeUnreachable, Prepares, Rail, Unpayable
from penstock.runtime import Runtime

log = structlog.get_logger()

HELD_RETRY_MS: Final = 5_000
"""How often a held order looks again for what it waits for."""
FULL_S: Final = 0.25
"""How long a network whose lane has no room is passed over."""
BATCHES_AT_ONCE: Final = 3
"""Of one network: while one is given to the nodes the next is signed and the one after that is bound."""


class Sender:
    """The pump job of orders that are due."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        database: Database,
        catalog: Catalog,
        board: Board,
        signer: Signer,
        next_ids: Callable[[int], list[int]],
        in_flight_max: Callable[[str], int],
        hot_addresses: Callable[[str], int],
        held: Callable[[str], str],
        refuse: Callable[[int, str], Awaitable[Any]],
        stages: Stages,
    ) -> None:
        self._runtime = runtime
        self._database = database
        self._catalog = catalog
        self._board = board
        self._signer = signer
        self._next_ids = next_ids
        self._in_flight_max = in_flight_max
        self._hot_addresses = hot_addresses
        self._refuse = refuse
        self._stages = stages
        self._held = held
        self._full_until: dict[str, float] = {}
        self._counting = asyncio.Lock()
        self.in_hand = InHand(runtime)
        self.under_way = SideBySide(runtime, "send", width=BATCHES_AT_ONCE)

    def look_again(self) -> None:
        """Attempts have ended: there may be room."""
        self._full_until.clear()

    async def claim(self, limit: int) -> list[Order]:
        """Orders that are due. Raises what an earlier batch failed with."""
        self.under_way.raise_failure()
        busy = self.under_way.busy
        if self._board.rails and self._board.rails.keys() <= set(busy):
            return []  # without a walk past all that waits: whoever is done wakes the pump
        now_ms, in_hand = self._runtime.now_ms(), self.in_hand.rows()
        full = [chain for chain, until in self._full_until.items() if until > self._runtime.monotonic()]
        full += [chain for chain in self._board.rails if self._held(chain)]

        def job(tx: Tx) -> list[Order]:
            # Oldest due first, none of a network that has no room or is busy, none that we are at already.
            rows = tx.all(
                f"SELECT {store.COLUMNS} FROM orders WHERE due_at_ms <= :now_ms AND chain NOT IN (SELECT k.chain FROM {{ROWS k(chain TEXT)}}) "
                "AND id NOT IN (SELECT h.id FROM {ROWS h(id {INT})}) ORDER BY due_at_ms, id LIMIT :limit",
                now_ms=now_ms,
                limit=limit,
                k=[{"chain": chain} for chain in (*full, *busy)],
                h=in_hand,
            )
            return sorted((store.order_of(row) for row in rows), key=lambda order: order.id)

        found = await self._database.read(job)
        self.in_hand.take(order.id for order in found)
        self._runtime.crash_point("send.claim:after")
        return found

    async def handle(self, orders: Sequence[Order]) -> None:
        """Bind, sign, submit; each network in its own time."""
        by_chain: defaultdict[str, list[Order]] = defaultdict(list)
        for order in orders:
            by_chain[order.chain].append(order)
        for chain, group in by_chain.items():
            self.under_way.start(chain, self._send(chain, group))

    async def _send(self, chain: str, orders: Sequence[Order]) -> None:
        bound = []
        with self.in_hand.worked_on([order.id for order in orders]):
            async with self.under_way.turn(chain, "bind"):
                for number, group in (await self._spread(chain, orders)).items():
                    bound += await self._bind(chain, number, group)
        if not bound:
            return
        async with self.under_way.turn(chain, "sign"):
            signed = await self._stages.sign(bound)
        async with self.under_way.turn(chain, "submit"):
            await self._stages.submit(signed)

    async def _spread(self, chain: str, orders: Sequence[Order]) -> Mapping[int, Sequence[Order]]:
        """Orders by the number of the lane that shall pay them."""
        hot_addresses, native = self._hot_addresses(chain), self._catalog.native(chain)
        if hot_addresses == 1:
            return {0: orders}
        stuck_since_ms = self._runtime.now_ms() - STUCK_BLOCKS * self._board.poll_ms(chain)

        def job(tx: Tx) -> list[Till]:
            room = {"hot_addresses": hot_addresses, "in_flight_max": self._in_flight_max(chain)}
            return tills(tx, chain, native, **room, stuck_since_ms=stuck_since_ms)

        def needs(order: Order) -> Mapping[str, int]:
            token = self._catalog.token(order.token_id)
            estimate = self._board.estimate(token) if token is not None else None
            return {} if token is None or estimate is None else need_of(order, token, native, estimate.fee_cap)

        among = await self._database.read(job)
        return propose(orders, among, needs) if among else {0: orders}

    async def _bind(self, chain: str, number: int, orders: Sequence[Order]) -> list[Version]:
        """Take slot and liquidity for as many as there are, hold the others with the reason; one transaction."""
        rail = self._board.rail(chain)
        lease = self._runtime.random_bytes(8).hex()
        attempt_ids = self._next_ids(len(orders))
        version_ids, history_ids = self._next_ids(len(orders)), self._next_ids(2 * len(orders))
        fees = await self._fees(rail, number, orders)
        standing = await self._signer.standing()
        fees |= _alone(orders, fees, standing)

        def job(tx: Tx) -> Choice:
            now_ms = self._runtime.now_ms()
            lane = attempts.lane_for_update(tx, chain, number)
            fresh = store.lock_again(tx, orders)
            waiting = [o for o in fresh.values() if o.state in (OrderState.ACCEPTED, OrderState.HELD)]
            if self._board.rail(chain) is not None and self._held(chain):
                self._come_back(tx, [(o, moment_ms(o.id)) for o in waiting])
                return Choice()
            waiting = self._unspent(tx, waiting, now_ms)
            chosen = self._chooser(tx, rail, lane)
            if isinstance(chosen, str) or lane is None:
                self._hold(tx, [(o, HoldReason.NETWORK_PAUSED, str(chosen)) for o in waiting], history_ids, now_ms)
                return Choice()
            paused = _unsignable(waiting, standing)
            choice = chosen.choose([o for o in waiting if o.id not in paused], fees, attempt_ids, now_ms=now_ms)
            self._come_back(tx, [(o, min(moment_ms(o.id), now_ms)) for o in choice.no_room] + choice.gathering)
            self._hold(tx, [*choice.held, *paused.values()], history_ids[len(orders) :], now_ms)
            if choice.intents:
                attempts.insert(tx, lane, choice.intents, version_ids[: len(choice.intents)], now_ms=now_ms, lease=lease)
                moves = [
                    store.Move(fresh[p.order_id], OrderState.SENDING, f"slot {i.slot} on {chain}", at_ms=now_ms, hold_reason="")
                    for i in choice.intents
                    for p in i.payments
                ]
                store.move(tx, moves, next_ids=history_ids[: len(moves)])
            return choice

        # A cap is one for all networks, so where there is one they bind one after another: no other bind may come between count and commit.
        async with self._counting if standing.left else contextlib.nullcontext():
            if standing.left:
                standing = await self._beside_unsigned()
            choice = await self._database.write("bind", job)
        if choice.no_room:
            self._full_until[chain] = self._runtime.monotonic() + FULL_S
        for order, reason in choice.hopeless:
            await self._refuse(order.id, reason)
        return [Version.unsigned(intent, version_id) for intent, version_id in zip(choice.intents, version_ids, strict=False)]

    async def _beside_unsigned(self) -> Standing:
        """What the signer's caps leave beside what is bound already, on whatever network, and not signed yet. The tables are asked before the
        signer: what is signed in between is counted twice and not as free, and whoever is held for that looks again soon.
        """
        unsigned = await self._database.read(attempts.unsigned)
        standing = await self._signer.standing()
        left = dict(standing.left)
        for token_id, units in unsigned:
            token = self._catalog.token(token_id)
            if token is not None and token.coin.symbol in left:
                left[token.coin.symbol] = max(0, left[token.coin.symbol] - units * token.scale)
        return replace(standing, left=left)

    def _unspent(self, tx: Tx, orders: Sequence[Order], now_ms: int) -> list[Order]:
        """Without those whose name an attempt of before a restore has paid already: the signer would refuse them for ever."""
        spent = adopt.spent(tx, [order.key for order in orders])
        if not spent:
            return list(orders)
        moves = [
            store.Move(
                order,
                OrderState.QUARANTINED,
                f"attempt {row['attempt_id']}, transaction {row['txid']}, was signed for the merchant's {order.merchant_order_id} before the "
                "database was restored: `penstock order decide` says whether that has paid it",
                at_ms=now_ms,
                hold_reason="",
            )
            for order in orders
            if (row := spent.get(order.key))
        ]
        store.move(tx, moves, next_ids=self._next_ids(len(moves)))
        return [order for order in orders if order.key not in spent]

    def _chooser(self, tx: Tx, rail: Rail | None, lane: Lane | None) -> Chooser | str:
        """Who chooses, or why nothing can be sent on this network."""
        if rail is None:
            return "the network is off"
        if lane is None:
            return "its nodes have not shown the hot address yet, or it was never funded"
        if lane.halted:
            return lane.halted
        found = chooser(tx, self._catalog, rail, lane, in_flight_max=self._in_flight_max(lane.chain))
        return found or "the treasury has not been looked at yet"

    async def _fees(self, rail: Rail | None, number: int, orders: Sequence[Order]) -> dict[int, FeeEstimate | Unpayable]:
        """What each order's transaction may cost; orders whose network gives no fresh estimate are left out."""
        found: dict[int, FeeEstimate | Unpayable] = {}
        by_token: defaultdict[str, list[Order]] = defaultdict(list)
        for order in orders:
            by_token[order.token_id].append(order)
        for token_id, group in by_token.items():
            token = self._catalog.token(token_id)
            estimate = self._board.estimate(token) if token is not None else None
            if rail is None or token is None or estimate is None:
                continue
            fees: list[FeeEstimate | Unpayable] = [estimate] * len(group)
            if isinstance(rail, Prepares):
                payments = [payment_of(order, token) for order in group]
                sender = await self._signer.address(rail.network.chain, number)
                try:
                    fees = await rail.prepare(payments, token, sender, estimate)
                except NodeUnreachable:
                    continue
            found |= {order.id: fee for order, fee in zip(group, fees, strict=True)}
        return found

    def _hold(self, tx: Tx, held: Sequence[tuple[Order, HoldReason, str]], ids: Sequence[int], now_ms: int) -> None:
        if not held:
            return
        again = now_ms + HELD_RETRY_MS
        same = [order for order, why, _ in held if order.state is OrderState.HELD and order.hold_reason == why.value]
        self._postpone(tx, same, again)
        moves = []
        for order, why, text in held:
            if order.state is OrderState.ACCEPTED:
                moves.append(
                    store.Move(order, OrderState.HELD, f"{why.value}: {text}", at_ms=now_ms, hold_reason=why.value, due_at_ms=again)
                )
        store.move(tx, moves, next_ids=ids[: len(moves)])
        changed = [(o, why, text) for o, why, text in held if o.state is OrderState.HELD and o.hold_reason != why.value]
        # Still held, but for another reason.
        tx.run(
            "UPDATE orders SET hold_reason = h.hold_reason, due_at_ms = h.due_at_ms "
            "FROM {ROWS h(id {INT}, hold_reason TEXT, due_at_ms {INT})} WHERE orders.id = h.id AND orders.state = 'held'",
            h=[{"id": order.id, "hold_reason": why.value, "due_at_ms": again} for order, why, _ in changed],
        )
        told = [(order, order.state, f"{why.value}: {text}") for order, why, text in changed]
        store.tell(tx, told, at_ms=now_ms, next_ids=ids[len(moves) : len(moves) + len(told)])

    def _come_back(self, tx: Tx, orders: Sequence[tuple[Order, int]]) -> None:
        if not orders:
            return
        # Without room they keep their place in the queue, due since they were accepted; while they gather, until their transaction goes.
        tx.run(
            "UPDATE orders SET due_at_ms = k.due_at_ms FROM {ROWS k(id {INT}, due_at_ms {INT})} "
            "WHERE orders.id = k.id AND orders.state IN ('accepted', 'held')",
            k=[{"id": order.id, "due_at_ms": due_at_ms} for order, due_at_ms in orders],
        )

    def _postpone(self, tx: Tx, orders: Sequence[Order], due_at_ms: int) -> None:
        # Nothing is wrong with them: come back soon.
        tx.run(
            "UPDATE orders SET due_at_ms = :due_at_ms WHERE state IN ('accepted', 'held') AND id IN (SELECT k.id FROM {ROWS k(id {INT})})",
            due_at_ms=due_at_ms,
            k=[{"id": order.id} for order in orders],
        )


def _alone(orders: Sequence[Order], fees: Fees, standing: Standing) -> dict[int, FeeEstimate]:
    """What the signer will refuse for ever takes no other order with it."""
    above = [order for order in orders if order.net > standing.order_max.get(order.crypto, order.net)]
    return {order.id: replace(known, together=1) for order in above if isinstance(known := fees.get(order.id), FeeEstimate)}


def _unsignable(orders: Sequence[Order], standing: Standing) -> dict[int, tuple[Order, HoldReason, str]]:
    """Orders that the signer would put off, oldest first, so that they take no slot from those that it would sign."""
    held: dict[int, tuple[Order, HoldReason, str]] = {}
    left = dict(standing.left)
    for order in sorted(orders, key=lambda o: o.id):
        room = left.get(order.crypto)
        if standing.stopped:
            held[order.id] = (order, HoldReason.NETWORK_PAUSED, standing.stopped)
        elif room is not None and order.net > room:
            text = f"the signer's cap of 24 hours leaves {plain(room, LEDGER_DECIMALS)} {order.crypto} now (signer.day_max)"
            held[order.id] = (order, HoldReason.POLICY, text)
        elif room is not None:
            left[order.crypto] = room - order.net
    return held
