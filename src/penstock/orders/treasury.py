"""What the chain shows of our hot addresses, compared with the books at one final block.

More than the books say is funding that arrived: it books itself. Less is an outflow that we did not make: the lane stops until a person
resumes it with a reason, and then that amount is booked as taken by the house; slots that others used are passed over in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from penstock.catalog import Catalog
from penstock.core import ledger
from penstock.core.intent import Signer
from penstock.core.money import CoinAmount, Network, Token, TokenAmount
from penstock.db import Conflict, Database, Tx
from penstock.ledger.book import Book
from penstock.orders import attempts
from penstock.rails.base import NodeUnreachable, Rail
from penstock.runtime import Runtime

log = structlog.get_logger()

LOOK_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Look:
    """One lane at one final block: slots used and base units of each token."""

    chain: str
    address: str
    block: int
    slots_used: int
    observed: Mapping[str, int]


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
    ) -> None:
        self._runtime = runtime
        self._database = database
        self._catalog = catalog
        self._rails = rails
        self._signer = signer
        self._book = book
        self._next_ids = next_ids
        self.refilled: Callable[[], None] = lambda: None
        self.faults: dict[str, str] = {}

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

    async def address_of(self, network: Network) -> str:
        """The hot address of a network; it exists before the first funding."""
        return await self._signer.address(network.family, 0)

    async def look(self, chain: str) -> Look:
        """Open the lane if it is new, read it at the final block, and book what arrived. Raises NodeUnreachable."""
        rail = self._rails[chain]
        address = await self.address_of(rail.network)
        heads = await rail.heads()
        mined = await rail.next_slot(address)
        used = await rail.next_slot(address, block=heads.final)
        await self._open(chain, address, mined, used)
        tokens = [token for token in self._catalog.tokens_on(chain) if token.status != 2]
        observed = {token.id: await rail.balance(address, token, block=heads.final) for token in tokens}
        seen = Look(chain, address, heads.final, used, observed)
        if await self._database.write("treasury", lambda tx: self._record(tx, seen)):
            self.refilled()
        return seen

    async def _open(self, chain: str, address: str, mined: int, used: int) -> None:
        lane_id = self._next_ids(1)[0]

        def job(tx: Tx) -> int:
            lane = attempts.lane_for_update(tx, chain)
            if lane is None:
                # The node's count is the floor of a lane that we have never used.
                tx.run(
                    "INSERT INTO lane (id, chain, number, address, next_slot, halted) VALUES (:id, :chain, 0, :address, :slot, '')",
                    id=lane_id,
                    chain=chain,
                    address=address,
                    slot=mined,
                )
            elif lane.address != address:
                attempts.halt_lane(tx, chain, f"the signer's address is {address}, the books know {lane.address}")
            elif mined > lane.next_slot:
                strange = f"the chain has used slot {mined - 1} and we have bound only to {lane.next_slot - 1}"
                if used >= mined and attempts.resumed_after(tx, chain, strange) is not None:
                    # A person has looked, and nodes agree that those slots are gone for good.
                    tx.run("UPDATE lane SET next_slot = :slot WHERE id = :id", slot=mined, id=lane.id)
                else:
                    attempts.halt_lane(tx, chain, strange)
            return 0 if lane is None else attempts.retired_count(tx, lane.id)

        retired = await self._database.write("lane", job)
        if mined < retired:
            raise NodeUnreachable(
                f"its nodes show {mined} transactions of ours, the books have {retired} final: they are behind, or another chain"
            )

    def _record(self, tx: Tx, seen: Look) -> bool:
        """Note the look; True when coins arrived. Compared only when every slot used by that block is final in our books."""
        lane = attempts.lane_for_update(tx, seen.chain)
        if lane is None:
            return False
        # Attempts that the block already shows and our books do not yet.
        behind = tx.one(
            "SELECT COUNT(*) AS n FROM attempt WHERE lane_id = :lane_id AND slot < :used AND state IN ('bound', 'signed', 'sent', 'included')",
            lane_id=lane.id,
            used=seen.slots_used,
        )
        if behind is None or behind["n"]:
            return False
        before = {
            r["token_id"]: r for r in tx.all("SELECT token_id, block, observed, at_ms FROM treasury_seen WHERE lane_id = :id", id=lane.id)
        }
        sheet = self._book.open(tx, [])
        for token_id, units in seen.observed.items():
            token = self._catalog.token(token_id)
            if token is None:
                continue
            last = before.get(token_id)
            if last is not None and last["block"] >= seen.block:
                continue
            expected = self._expected(tx, token, last, seen)
            if units > expected:
                more = TokenAmount(token, units - expected).to_coin().units
                sheet.post(ledger.seen_on_chain(lane.address, token.id, token.coin.id, more, chain=seen.chain, block=seen.block))
            elif units < expected:
                missing = TokenAmount(token, expected - units)
                what = f"{missing} {token.coin.symbol} left the hot address"
                reason = attempts.resumed_after(tx, seen.chain, f"{what} ", since_ms=last["at_ms"] if last is not None else 0)
                if reason is None:
                    log.error("treasury.outflow.unexplained", chain=seen.chain, token=token.id, missing=str(missing), block=seen.block)
                    attempts.halt_lane(tx, seen.chain, f"{what} at or before block {seen.block} unexplained")
                    continue
                less = missing.to_coin().units
                sheet.post(
                    ledger.left_the_chain(lane.address, token.id, token.coin.id, less, chain=seen.chain, block=seen.block, note=reason)
                )
            self._note(tx, lane.id, token_id, seen.block, units)
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
        return arrived

    def _expected(self, tx: Tx, token: Token, last: dict[str, int] | None, seen: Look) -> int:
        """What the books say the address holds at the block: the last look and every chain entry since."""
        since = last["block"] if last is not None else -1
        rows = tx.all(
            "SELECT posting.account, posting.coin_id, posting.amount FROM entry JOIN posting ON posting.entry_id = entry.id "
            "WHERE entry.chain = :chain AND entry.block > :since AND entry.block <= :block AND posting.account = :account",
            chain=seen.chain,
            since=since,
            block=seen.block,
            account=ledger.treasury(token.id),
        )
        moved = -sum(row["amount"] for row in rows)
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
