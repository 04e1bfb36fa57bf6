"""What the chain shows of our hot addresses, compared with the books at one final block.

More than the books say is funding that arrived: it books itself. Less is an outflow that we did not make: the lane stops until a person
resumes it with a reason, and then that amount is booked as taken by the house; slots that others used are passed over in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from penstock.catalog import Catalog
from penstock.core import ledger
from penstock.core.intent import Resource, Signer
from penstock.core.money import CoinAmount, Network, Token, TokenAmount
from penstock.db import Conflict, Database, Row, Tx
from penstock.ledger import facts
from penstock.ledger.book import Book, Sheet
from penstock.orders import attempts
from penstock.orders.attempts import Lane
from penstock.rails.base import CannotOpen, FeeEstimate, Holdings, LaneView, NodeUnreachable, Opens, Rail
from penstock.runtime import Runtime

log = structlog.get_logger()

LOOK_S: Final = 5.0
_GOES_ON: Final = f"SUBSTR(seen, 1, {len(attempts.BEFORE_A_PERSON)}) <> '{attempts.BEFORE_A_PERSON}'"
"""An attempt that only a person can judge may stay so for ever, whatever the person decides of its orders. Nothing waits for it: should it have
paid, that has left without us, and a person says why.
"""


@dataclass(frozen=True, slots=True)
class Look:
    """What one lane held, and between which moments of our own clock that was asked."""

    chain: str
    number: int
    address: str
    began_ms: int
    ended_ms: int
    held: Holdings


class Treasury:
    """Opens the lanes and keeps looking at them."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        database: Database,
        catalog: Catalog,
        rails: Mapping[str, Rail],
        signer: Signer,
        book: Book,
        next_ids: Callable[[int], list[int]],
        hot_addresses: Callable[[str], int],
    ) -> None:
        self._runtime = runtime
        self._database = database
        self._catalog = catalog
        self._rails = rails
        self._signer = signer
        self._book = book
        self._next_ids = next_ids
        self._hot_addresses = hot_addresses
        self._waiting: dict[tuple[str, int], Look] = {}
        self._compared: dict[tuple[str, int], int] = {}
        self.refilled: Callable[[], None] = lambda: None
        self.faults: dict[str, str] = {}
        self.comparable: Callable[[str, int], bool] = lambda chain, began_ms: True  # noqa: ARG005
        """Whether the tables knew all that was signed on a network when a look began: before that, what left may be ours."""
        self.idle: dict[str, dict[str, str]] = {}
        """Hot addresses of each network that were never used and cannot be yet, and why (XRP Ledger: nobody has sent the reserve)."""
        self.compared: dict[str, int] = {}
        """By network: when the newest look began that was compared with the books, of the lane of which that is longest ago."""

    async def refresh(self) -> None:
        """One look at every network that is on."""
        for chain in self._rails:
            try:
                await self.look(chain)
                self.faults.pop(chain, None)
            except NodeUnreachable as error:
                self.faults[chain] = str(error)
            except Conflict:
                log.info("treasury.look.raced", chain=chain)

    async def newest_block(self, chain: str) -> int:
        """The highest block of a network that the books know; 0 for none."""

        def job(tx: Tx) -> int:
            seen = tx.one("SELECT MAX(block) AS block FROM treasury_seen JOIN lane ON lane.id = lane_id WHERE chain = :chain", chain=chain)
            booked = tx.one("SELECT MAX(block) AS block FROM entry WHERE chain = :chain", chain=chain)
            return max(int(row["block"] or 0) for row in (seen, booked) if row is not None)

        return await self._database.read(job)

    async def address_of(self, network: Network) -> str:
        """The first hot address of a network; it exists before the first funding."""
        return await self._signer.address(network.chain, 0)

    async def addresses(self, network: Network) -> dict[int, str]:
        """Every hot address of a network by its number: those that the settings ask for, and those of before, which may hold coins yet."""
        opened = await self._database.read(lambda tx: [lane.number for lane in attempts.lanes(tx, network.chain)])
        numbers = sorted({*range(self._hot_addresses(network.chain)), *opened})
        return {number: await self._signer.address(network.chain, number) for number in numbers}

    async def look(self, chain: str) -> list[Look]:
        """See what each lane holds. Raises NodeUnreachable for the first of those that are open, or the first of all, when all were tried."""
        rail, looks, faults = self._rails[chain], list[Look](), dict[int, NodeUnreachable]()
        addresses = await self.addresses(rail.network)
        for number, address in addresses.items():
            try:
                looks.append(await self._look(rail, number, address))
            except NodeUnreachable as fault:
                faults[number] = fault
        if faults:
            needed = await self._database.read(lambda tx: {0, *(lane.number for lane in attempts.lanes(tx, chain))})
            for number in needed & faults.keys():
                raise faults[number]
        self.idle[chain] = {addresses[number]: str(why) for number, why in faults.items()}
        self.compared[chain] = min(self._compared.get((chain, look.number), -1) for look in looks)
        return looks

    async def _look(self, rail: Rail, number: int, address: str) -> Look:
        """Open the lane if it is new, see what it holds at a final block, and book what arrived. Raises NodeUnreachable."""
        chain = rail.network.chain
        tokens = [token for token in self._catalog.tokens_on(chain) if token.status != 2]
        began_ms = self._runtime.now_ms()
        held = await rail.holdings(address, tokens)
        seen = Look(chain, number, address, began_ms, self._runtime.now_ms(), held)
        await self._open(seen)
        # Without numbered slots a look waits until everything that may be in its block was observed again: the next one is for later.
        due = seen if seen.held.slots_used is not None else self._waiting.setdefault((chain, number), seen)
        behind, arrived = await self._database.write("treasury", lambda tx: self._record(tx, due))
        if not behind:
            self._waiting.pop((chain, number), None)
            if held.steady:
                self._compared[chain, number] = due.began_ms
        if arrived:
            self.refilled()
        return seen

    async def open_tokens(self, chain: str, estimate: Callable[[Token], FeeEstimate | None]) -> list[Token]:
        """Bind what lets each hot address hold each token that it cannot hold yet; the workers send it. Raises NodeUnreachable.

        Returns those tokens; none where a chain asks for no such thing, or all are open or on their way.
        """
        rail = self._rails[chain]
        if not isinstance(rail, Opens):
            return []
        opened: dict[str, Token] = {}
        for lane in await self._database.read(lambda tx: attempts.lanes(tx, chain)):
            opened |= {token.id: token for token in await self._open_tokens(rail, lane, estimate)}
        return list(opened.values())

    async def _open_tokens(self, rail: Opens, of: Lane, estimate: Callable[[Token], FeeEstimate | None]) -> list[Token]:
        chain = of.chain
        tokens = [token for token in self._catalog.tokens_on(chain) if token.status != 2 and not token.is_native]
        wanted = [(token, fees) for token in await rail.unopened(of.address, tokens) if (fees := estimate(token))]
        if dear := [token.coin.symbol for token, fees in wanted if fees.cost > fees.fee_cap]:
            raise CannotOpen(f"the fee of {chain} is above its cap now: {', '.join(dear)} cannot be opened; wait, or raise fee_max")
        attempt_ids, version_ids = self._next_ids(len(wanted)), self._next_ids(len(wanted))

        def job(tx: Tx) -> list[Token]:
            lane = attempts.lane_for_update(tx, chain, of.number)
            if lane is None or lane.halted or chain in attempts.holds(tx):
                return []
            under_way = attempts.opening(tx, lane.id)
            fresh = [(token, fees) for token, fees in wanted if token.id not in under_way]
            views = [LaneView(chain, lane.address, slot) for slot in attempts.free_slots(tx, lane, len(fresh))]
            intents = [
                rail.open(token, view, fees, attempt_id=attempt_id)
                for (token, fees), view, attempt_id in zip(fresh, views, attempt_ids, strict=False)
            ]
            if intents:
                attempts.insert(tx, lane, intents, version_ids[: len(intents)], now_ms=self._runtime.now_ms(), lease="")
                attempts.make_due(tx, [intent.attempt_id for intent in intents], self._runtime.now_ms())
            return [token for token, _ in fresh]

        return await self._database.write("open", job) if wanted else []

    async def _open(self, seen: Look) -> None:
        lane_id, chain, address = self._next_ids(1)[0], seen.chain, seen.address
        mined = seen.held.slots_mined

        def job(tx: Tx) -> int:
            lane = attempts.lane_for_update(tx, chain, seen.number)
            if lane is None:
                # The node's count is the floor of a lane that we have never used. Where the network stands, the new one stands with it.
                tx.run(
                    "INSERT INTO lane (id, chain, number, address, next_slot, halted) VALUES (:id, :chain, :number, :address, :slot, :halted)",
                    id=lane_id,
                    chain=chain,
                    number=seen.number,
                    address=address,
                    slot=mined or 0,
                    halted=next((other.halted for other in attempts.lanes(tx, chain) if other.halted), ""),
                )
                return 0
            if lane.address != address:
                attempts.halt_lane(tx, chain, f"the signer's address is {address}, the books know {lane.address}")
            elif mined is not None and mined > lane.next_slot and self.comparable(chain, seen.began_ms):
                self._strange_slots(tx, lane, mined, seen.held)
            return attempts.retired_count(tx, lane.id)

        retired = await self._database.write("lane", job)
        if mined is not None and mined < retired:
            raise NodeUnreachable(
                f"its nodes show {mined} transactions of ours, the books have {retired} final: they are behind, or another chain"
            )

    def _strange_slots(self, tx: Tx, lane: Lane, mined: int, held: Holdings) -> None:
        strange = f"the chain has used slot {mined - 1}{_which(lane)} and we have bound only to {lane.next_slot - 1}"
        used = held.slots_used if held.slots_used is not None else 0
        if used >= mined and attempts.resumed_after(tx, lane.chain, strange) is not None:
            # A person has looked, and nodes agree that those slots are gone for good.
            tx.run("UPDATE lane SET next_slot = :slot WHERE id = :id", slot=mined, id=lane.id)
            tx.run("DELETE FROM lane_gap WHERE lane_id = :id AND slot < :slot", slot=mined, id=lane.id)
        else:
            attempts.halt_lane(tx, lane.chain, strange)

    def _record(self, tx: Tx, seen: Look) -> tuple[bool, bool]:
        """Whether the books are behind the look, so that they cannot be compared yet, and whether coins arrived."""
        lane = attempts.lane_for_update(tx, seen.chain, seen.number)
        if lane is None or not seen.held.steady or not self.comparable(seen.chain, seen.began_ms):
            return False, False
        if self._is_behind(tx, lane, seen):
            return not seen.held.clocked, False
        before = {
            r["token_id"]: r for r in tx.all("SELECT token_id, block, observed, at_ms FROM treasury_seen WHERE lane_id = :id", id=lane.id)
        }
        sheet = self._book.open(tx, [])
        for token_id, units in seen.held.units.items():
            token, last = self._catalog.token(token_id), before.get(token_id)
            if token is None or (last is not None and last["block"] >= seen.held.block):
                continue
            if self._compare(tx, sheet, lane, token, units, last, seen):
                self._note(tx, lane.id, token_id, seen.held.block, units)
        self._note_coins(tx, lane.id, seen.held.coins)
        now_ms = self._runtime.now_ms()
        self._book.close(tx, sheet, now_ms)
        arrived = any(entry.posting_kind == "seen" for entry in sheet.entries)
        if arrived:
            # Orders that waited for coins look again at once.
            tx.run(
                "UPDATE orders SET due_at_ms = :now_ms WHERE state = 'held' AND hold_reason = 'liquidity' AND chain = :chain AND due_at_ms > :now_ms",
                now_ms=now_ms,
                chain=seen.chain,
            )
        return False, arrived

    def _is_behind(self, tx: Tx, lane: Lane, seen: Look) -> bool:
        """Whether the block may show attempts that our books do not have final yet."""
        if seen.held.slots_used is None and self._stamped_ahead(tx, lane):
            return True
        if seen.held.clocked:
            # Under way now, or ended since by a moment that is later than the look's. What is only bound cannot pay. Moments of the rail only
            # rise; those of the wall clock, which is stepped, say nothing of what came first.
            row = tx.one(
                f"SELECT (SELECT COUNT(*) FROM attempt WHERE lane_id = :lane_id AND state IN ('signed', 'sent', 'included') AND {_GOES_ON} "
                "AND NOT EXISTS (SELECT 1 FROM attempt_order JOIN orders ON orders.id = order_id WHERE attempt_id = attempt.id "
                "AND orders.state = 'quarantined')) "
                "+ (SELECT COUNT(*) FROM entry WHERE chain = :chain AND block > :block) AS n",
                lane_id=lane.id,
                chain=lane.chain,
                block=seen.held.block,
            )
        elif seen.held.slots_used is not None:
            row = tx.one(
                "SELECT COUNT(*) AS n FROM attempt WHERE lane_id = :lane_id AND slot < :used AND state IN ('bound', 'signed', 'sent', 'included') "
                f"AND {_GOES_ON}",
                lane_id=lane.id,
                used=seen.held.slots_used,
            )
        else:
            # Live then and not looked at since by enough nodes that had the block, or in a block of the look and not final in the books: one
            # node that is blind or late says of our own payment that it is nowhere, and then it would be a stranger's.
            row = tx.one(
                "SELECT COUNT(*) AS n FROM attempt WHERE lane_id = :lane_id AND state IN ('signed', 'sent', 'included') "
                "AND created_at_ms <= :ended_ms AND (seen_at_ms IS NULL OR seen_at_ms <= :ended_ms "
                "OR seen_block IS NULL OR seen_block < :block OR block <= :block)",
                lane_id=lane.id,
                ended_ms=seen.ended_ms,
                block=seen.held.block,
            )
        return row is None or bool(row["n"])

    def _stamped_ahead(self, tx: Tx, lane: Lane) -> bool:
        """Whether an attempt under way bears a time still to come: the clock was set back, and times say nothing of what came first."""
        row = tx.one(
            "SELECT COUNT(*) AS n FROM attempt WHERE lane_id = :lane_id AND state IN ('bound', 'signed', 'sent', 'included') "
            "AND (created_at_ms > :now_ms OR seen_at_ms > :now_ms)",
            lane_id=lane.id,
            now_ms=self._runtime.now_ms(),
        )
        return row is None or bool(row["n"])

    def _compare(self, tx: Tx, sheet: Sheet, lane: Lane, token: Token, units: int, last: Row | None, seen: Look) -> bool:
        """Book what arrived, or what a person explained; stop the lane for what left without us. Whether the look is good."""
        block, chain = seen.held.block, seen.chain
        expected = self._expected(tx, lane, token, last, seen)
        if units > expected:
            arrived = TokenAmount(token, units - expected)
            log.warning("treasury.inflow.booked", chain=chain, token=token.id, arrived=str(arrived), block=block)
            more = arrived.to_coin().units
            sheet.post(ledger.seen_on_chain(lane.address, token.id, token.coin.id, more, chain=chain, block=block))
        elif units < expected:
            missing = TokenAmount(token, expected - units)
            what = f"{missing} {token.coin.symbol} left the hot address{_which(lane)}"
            reason = attempts.resumed_after(tx, chain, f"{what} at ", since_ms=last["at_ms"] if last is not None else 0)
            if reason is None:
                log.error("treasury.outflow.unexplained", chain=chain, token=token.id, missing=str(missing), block=block)
                attempts.halt_lane(tx, chain, f"{what} at or before block {block} unexplained")
                return False
            less = missing.to_coin().units
            sheet.post(ledger.left_the_chain(lane.address, token.id, token.coin.id, less, chain=chain, block=block, note=reason))
        return True

    def _expected(self, tx: Tx, lane: Lane, token: Token, last: Row | None, seen: Look) -> int:
        """What the books say the address holds at the block: the last look and every chain entry of this lane since."""
        since = last["block"] if last is not None else -1
        moved = -facts.moved_by_lane(tx, lane.id, ledger.treasury(token.id), after=since, until=seen.held.block)
        held = last["observed"] if last is not None else 0
        return held + CoinAmount(token.coin, moved).to_token(token).units

    def _note(self, tx: Tx, lane_id: int, token_id: str, block: int, units: int) -> None:
        # What the next look is compared with.
        tx.run(
            "INSERT INTO treasury_seen (lane_id, token_id, block, observed, at_ms) VALUES (:lane_id, :token_id, :block, :observed, :at_ms) "
            "ON CONFLICT (lane_id, token_id) DO UPDATE SET block = :block, observed = :observed, at_ms = :at_ms",
            lane_id=lane_id,
            token_id=token_id,
            block=block,
            observed=units,
            at_ms=self._runtime.now_ms(),
        )

    def _note_coins(self, tx: Tx, lane_id: int, coins: Sequence[Resource]) -> None:
        """The coins that attempts may choose from, instead of those of the look before."""
        keys = [{"name": coin.name, "units": coin.units} for coin in coins]
        tx.run(
            "DELETE FROM lane_coin WHERE lane_id = :lane_id AND name NOT IN (SELECT k.name FROM {ROWS k(name TEXT)})",
            lane_id=lane_id,
            k=keys,
        )
        tx.run(
            "INSERT INTO lane_coin (lane_id, name, units) SELECT :lane_id, k.name, k.units FROM {ROWS k(name TEXT, units {AMOUNT})} "
            "WHERE true ON CONFLICT DO NOTHING",
            lane_id=lane_id,
            k=keys,
        )


def _which(lane: Lane) -> str:
    """Names all but the first: a person's word about one of them says nothing of another."""
    return f" {lane.address}" if lane.number else ""
