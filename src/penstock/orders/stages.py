"""From a bound attempt to bytes on a node: sign, commit; submit. `send` takes new attempts through, `follow` those that were left on the way.

Each step may be done again after a crash: the same intent gives the same bytes, and the same bytes are one transaction.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import structlog

from penstock.core.intent import Death, Signed, Signer, SignLater, SignRefused
from penstock.core.order import OrderState
from penstock.db import Database, Tx
from penstock.orders import attempts, store
from penstock.orders.attempts import Version
from penstock.orders.board import Board
from penstock.rails.base import Withholds
from penstock.runtime import Runtime

log = structlog.get_logger()

REFUSED_RETRY_MS: Final = 60_000
"""How often an attempt is looked at whose further version the signer refused."""
LATER_MS: Final = 5_000
"""How often an attempt is shown again to a signer that said later."""
SUBMITS_AT_ONCE: Final = 32


class Stages:
    """What happens to versions once they are stored."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        database: Database,
        board: Board,
        signer: Signer,
        next_ids: Callable[[int], list[int]],
        held: Callable[[str], str],
    ) -> None:
        self._runtime = runtime
        self._database = database
        self._board = board
        self._signer = signer
        self._next_ids = next_ids
        self._held = held

    async def sign(self, versions: Sequence[Version]) -> list[Version]:
        """Have the signer build and sign, and commit its bytes. What it refuses goes to a person, what it puts off waits, the others go on.
        Nothing is signed for a lane that stands, or for a network that is held.
        """
        versions = await self._of_open_lanes(await self._free(versions))
        if not versions:
            return []
        try:
            signed = await self._signer.sign([version.intent for version in versions])
        except SignRefused as refusal:
            signed = await self._sign_each(versions, refusal)
        await self._database.write("sign", lambda tx: attempts.store_signed(tx, signed))
        by_version = {(s.attempt_id, s.version): s for s in signed}
        pairs = [(version, by_version.get((version.attempt_id, version.number))) for version in versions]
        return [replace(version, txid=one.txid, raw=one.raw) for version, one in pairs if one is not None]

    async def _free(self, versions: Sequence[Version]) -> list[Version]:
        """Those of networks that are not held; the others wait."""
        held = {chain: why for chain in {v.intent.chain for v in versions} if (why := self._held(chain))}
        for chain, why in held.items():
            await self.put_off([version for version in versions if version.intent.chain == chain], why)
        return [version for version in versions if version.intent.chain not in held]

    async def _sign_each(self, versions: Sequence[Version], why: SignRefused) -> list[Signed]:
        """One after another, until the signer says that it signs nothing at all now."""
        signed: list[Signed] = []
        later: list[Version] = []
        for version in versions:
            if isinstance(why, SignLater) and why.everything:
                later.append(version)
                continue
            try:
                signed += await self._signer.sign([version.intent])
            except SignLater as put_off:
                why = put_off
                later.append(version)
            except SignRefused as refusal:
                log.error("order.sign.refused", attempt=version.attempt_id, reason=str(refusal))  # noqa: TRY400
                await self._quarantine(version, f"the signer refused: {refusal}")
        if later:
            log.warning("order.sign.later", attempts=len(later), reason=str(why))
            await self.put_off(later, str(why))
        return signed

    async def put_off(self, versions: Sequence[Version], reason: str) -> None:
        """They are looked at again after LATER_MS."""

        def job(tx: Tx) -> None:
            # They keep slot and coins, and are shown to the signer again soon; nothing else is wrong with them.
            tx.run(
                "UPDATE attempt SET seen = :seen, lease = '', due_at_ms = :later_ms WHERE id IN (SELECT k.id FROM {ROWS k(id {INT})}) "
                "AND state IN ('bound', 'signed', 'sent', 'included')",
                seen=reason[:200],
                later_ms=self._runtime.now_ms() + LATER_MS,
                k=[{"id": version.attempt_id} for version in versions],
            )

        await self._database.write("sign.later", job)

    async def _of_open_lanes(self, versions: Sequence[Version]) -> list[Version]:
        """Those that may be signed; the others are looked at again until a person has resumed their lane."""
        rows = await self._database.read(lambda tx: tx.all("SELECT chain FROM lane WHERE halted <> ''"))
        halted = {row["chain"] for row in rows}
        waiting = [version for version in versions if version.intent.chain in halted]
        if waiting:
            await self.put_off(waiting, "waits to be signed until the network is resumed")
        return [version for version in versions if version.intent.chain not in halted]

    async def bury(self, deaths: list[Death]) -> bool:
        """Tell the signer that attempts are dead, so that their orders may be signed again; whether it believes it."""
        try:
            await self._signer.bury(deaths)
        except SignRefused as refusal:
            log.warning("attempt.bury.refused", reason=str(refusal))
            return False
        return True

    async def _quarantine(self, version: Version, reason: str) -> None:
        ids = self._next_ids(len(version.intent.payments))

        def job(tx: Tx) -> None:
            now_ms = self._runtime.now_ms()
            orders = store.lock(tx, [payment.order_id for payment in version.intent.payments])
            moves = [
                store.Move(o, OrderState.QUARANTINED, reason, at_ms=now_ms)
                for o in orders.values()
                if o.state in (OrderState.SENDING, OrderState.CONFIRMING)
            ]
            store.move(tx, moves, next_ids=ids[: len(moves)])
            # An attempt without bytes rests until the lane is resumed; one of which a version was signed is followed on: that one can land.
            tx.run(
                "UPDATE attempt SET seen = :seen, lease = '', due_at_ms = "
                "CASE WHEN EXISTS (SELECT 1 FROM version WHERE attempt_id = :id AND raw IS NOT NULL) THEN :later_ms END "
                "WHERE id = :id AND state IN ('bound', 'signed', 'sent', 'included')",
                seen=reason[:200],
                id=version.attempt_id,
                later_ms=now_ms + REFUSED_RETRY_MS,
            )
            # Later slots cannot land before this one, so nothing more is bound here until a person has looked.
            attempts.halt_lane(tx, version.intent.chain, f"{reason} (attempt {version.attempt_id})")

        await self._database.write("quarantine", job)

    async def submit(self, versions: Sequence[Version]) -> None:
        """Give the bytes to the nodes, lowest slot first, and record what they said. Unknown changes nothing."""
        versions = await self._recorded(versions)
        gate = asyncio.Semaphore(SUBMITS_AT_ONCE)

        async def one(version: Version) -> tuple[Version, str]:
            async with gate:
                rail = self._board.rail(version.intent.chain)
                if rail is None or version.raw is None:
                    return version, "unknown: the network is off"
                if self._held(version.intent.chain):
                    return version, ""
                said = await rail.submit(version.raw)
                self._runtime.crash_point("submit:after")
                return version, f"{said.verdict.value}: {said.detail}" if said.detail else said.verdict.value

        tasks = [self._runtime.spawn(one(version), name="submit") for version in versions]
        results = [(version, verdict) for version, verdict in [await task for task in tasks] if verdict]
        if not results:
            return

        def job(tx: Tx) -> None:
            now_ms = self._runtime.now_ms()
            by_chain: defaultdict[str, list[tuple[Version, str]]] = defaultdict(list)
            for version, verdict in results:
                by_chain[version.intent.chain].append((version, verdict))
            for chain, sent in by_chain.items():
                attempts.record_sent(tx, sent, now_ms=now_ms, due_at_ms=now_ms + self._board.poll_ms(chain))

        await self._database.write("sent", job)

    async def _recorded(self, versions: Sequence[Version]) -> list[Version]:
        """Those that may be given to nodes now. Where a rail withholds bytes after a time, it is committed first that they are given: what is
        `signed` for such a rail was given to nobody, whatever was killed when. What a hold keeps from that commit goes nowhere, though the
        hold may end before the others are given.
        """
        gate = asyncio.Semaphore(SUBMITS_AT_ONCE)

        async def ask(version: Version, rail: Withholds, raw: bytes) -> tuple[Version, str]:
            async with gate:
                return version, await rail.withheld(raw)

        rails: dict[str, object] = {chain: self._board.rail(chain) for chain in {version.intent.chain for version in versions}}
        withholding = {chain: rail for chain, rail in rails.items() if isinstance(rail, Withholds)}
        tasks, free_of_it = [], []
        for version in versions:
            rail = withholding.get(version.intent.chain)
            if rail is None or version.raw is None or version.sends:
                free_of_it.append(version)
            elif not self._held(version.intent.chain):
                tasks.append(self._runtime.spawn(ask(version, rail, version.raw), name="withheld"))
        said = [await task for task in tasks]
        for reason in {reason for _, reason in said if reason}:
            await self.put_off([version for version, why in said if why == reason], reason)
        may = [version for version, reason in said if not reason]
        given = await self._database.write("give", lambda tx: attempts.record_giving(tx, [v.attempt_id for v in may])) if may else set()
        return free_of_it + [version for version in may if version.attempt_id in given]
