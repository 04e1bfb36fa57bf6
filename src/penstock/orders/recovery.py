"""The recovery hold: after a start nothing is bound, signed or submitted on a network until journal, tables and chain agree.

A start is all that happens after a crash, a restored database, a promoted standby or a lost connection: nobody can tell them apart, so
all are met in the same way. Observing goes on meanwhile. Three things are compared:

  the signer's journal with the tables, from a stored checkpoint on: what only the journal has is adopted (`orders/adopt`)
  the tables with the journal: bytes that it does not know mean that it is older than the database, and stop the network
  the tables with the chain: each attempt under way was looked at, and then the hot address, by which slots and coins are compared
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import structlog

from penstock.catalog import Catalog
from penstock.core.attempt import AttemptState, Decision, Outcome
from penstock.core.event import Dead
from penstock.core.intent import Death, Intent, JournalEntry, Signed, Signer, SignLater, SignRefused
from penstock.db import Conflict, Database, Row, Tx
from penstock.ledger.chain import record_action
from penstock.orders import adopt, attempts
from penstock.orders.adopt import HALTED, Tools
from penstock.orders.attempts import Attempt
from penstock.orders.settle import Settler, Verdict
from penstock.orders.treasury import Treasury
from penstock.rails.base import InvalidDestination, MemoRequired, NodeUnreachable, Rail, Withholds
from penstock.runtime import Runtime

log = structlog.get_logger()

TURN_S: Final = 0.5
"""How often a network that is held is tried again."""
CALM_S: Final = 10.0
"""How often the journal is compared while nothing is held, so that the next start has little to do."""
BATCH: Final = 100
NOT_YET: Final = "the start has not compared the signer's journal, the tables and the chain yet"
UNAUDITED: Final = "the books of before the start are being audited"
OLDER: Final = (
    "the signer's journal is older than the database: put its newest copy back (docs/backup.md), or, if it is lost for good, "
    "`penstock signer relearn`"
)
LEARNS: Final = "the signer learns again what it had signed; this goes on by itself (docs/backup.md) as soon as it does not say any more: "


class Recovery:
    """Holds every network at a start, and lets each go on by itself."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        database: Database,
        catalog: Catalog,
        rails: Mapping[str, Rail],
        signer: Signer,
        settler: Settler,
        treasury: Treasury,
        next_ids: Callable[[int], list[int]],
    ) -> None:
        self._runtime = runtime
        self._database = database
        self._catalog = catalog
        self._rails = rails
        self._signer = signer
        self._settler = settler
        self._treasury = treasury
        self._next_ids = next_ids
        self._breaks = -1
        self._since_ms = 0
        self._held: dict[str, str] = {}
        self._disagree: dict[str, str] = {}
        self._compared = False
        self._agreed_ms: dict[str, int] = {}
        self._calm_until = 0.0
        self._written: dict[str, str] | None = None
        self.released: Callable[[], None] = lambda: None
        self.audited: Callable[[], bool] = lambda: True
        """Whether the books of before the start have been audited: nothing is signed before."""

    def held(self, chain: str) -> str:
        """Why nothing may be bound, signed or submitted on a network now; "" when it may."""
        if self._breaks != self._database.breaks:
            return NOT_YET
        return self._held.get(chain, NOT_YET)

    def comparable(self, chain: str, began_ms: int) -> bool:
        """Whether the tables knew all that was signed when a look began, so that coins that left are ours or not."""
        agreed = self._compared and self._breaks == self._database.breaks and chain not in self._disagree
        return agreed and began_ms >= self._agreed_ms.get(chain, 0)

    async def turn(self) -> None:
        """Compare what has to be compared, and let networks go on. Raises what the database raises."""
        await self.compare()
        chains = [chain for chain in self._rails if self._held.get(chain)]
        tasks = [self._runtime.spawn(self._meet(chain), name=f"recover-{chain}") for chain in chains]
        for task in tasks:
            await task
        await self._write_holds()

    async def compare(self) -> None:
        """The journal's part: before anybody asks what the chain shows."""
        breaks = self._database.breaks
        if breaks != self._breaks:
            await self._begin()
            self._breaks = breaks
            await self._write_holds()
        elif not any(self._held.values()) and self._runtime.monotonic() < self._calm_until:
            return
        try:
            self._disagree = await self._compare_journal()
            if not self._compared:
                self._agreed_ms = dict.fromkeys(self._rails, self._runtime.now_ms())
            self._compared = True
        except SignLater as away:
            # A signer that is away signs nothing; what goes on goes on.
            if not self._compared:
                self._disagree = dict.fromkeys(self._rails, f"the signer's journal cannot be read: {away}")
        for chain, reason in self._disagree.items():
            self._say(chain, reason)
        self._calm_until = self._runtime.monotonic() + CALM_S
        await self._write_holds()

    async def _begin(self) -> None:
        """Hold everything, and have what is under way looked at."""
        self._compared, self._since_ms = False, self._runtime.now_ms()
        self._held = dict.fromkeys(self._rails, NOT_YET)
        self._written = None

        def job(tx: Tx) -> None:
            tx.run(
                "UPDATE attempt SET due_at_ms = :now_ms, lease = '' WHERE state IN ('signed', 'sent', 'included') AND due_at_ms > :now_ms",
                now_ms=self._since_ms,
            )

        await self._database.write("recovery.begin", job)

    def _say(self, chain: str, reason: str) -> None:
        if self._held.get(chain) != reason:
            log.warning("recovery.held", chain=chain, reason=reason)
        self._held[chain] = reason

    # ------------------------------------------------------------------------------------------------------------ the journal

    async def _compare_journal(self) -> dict[str, str]:
        """Why each network has to wait for a person or for the signer; none where the tables now know all that was signed."""
        found = await self._read_journal()
        if not found:
            found = await self._unknown_bytes()
        commanded = await self._may_relearn()
        if found and commanded:
            found = await self._relearn()
        if commanded and not found:
            await self._database.write("recovery.relearned", _relearned)
        if not found:
            found = await self._adopt()
            found = await self._restore() | found
        return found

    async def _read_journal(self) -> dict[str, str]:
        """From the checkpoint to the end."""
        last = await self._database.read(lambda tx: tx.one("SELECT number, hash FROM journal_checkpoint"))
        after: int = last["number"] if last is not None else 0
        if last is not None and after:
            page = await self._signer.entries(after - 1)
            if not page or page[0].hash != last["hash"]:
                text = f"{OLDER}; entry {after} is not what it was when it was last compared"
                return dict.fromkeys(self._rails, text)
        while page := await self._signer.entries(after):
            await self._settle_deaths(page)
            now_ms = self._runtime.now_ms()
            await self._database.write("recovery.journal", lambda tx, page=page, now_ms=now_ms: _note(tx, page, now_ms))  # type: ignore[misc]
            after = page[-1].number
        return {}

    async def _settle_deaths(self, page: Sequence[JournalEntry]) -> None:
        """What the signer buried is dead here too. A verdict that meets another writer is tried again with the whole page."""
        proofs = {entry.attempt_id: entry.text for entry in page if entry.kind == "death"}
        if not proofs:
            return

        def alive(tx: Tx) -> list[Attempt]:
            return [a for a in attempts.load(tx, list(proofs)) if a.state not in (AttemptState.FINAL, AttemptState.DEAD)]

        for attempt in await self._database.read(alive):
            seen = Dead(proofs[attempt.id])
            await self._settler.apply([Verdict(attempt, seen, Decision(AttemptState.DEAD, Outcome.FAIL), None)])
        if await self._database.read(alive):
            raise Conflict("an attempt that the signer has buried is being written by somebody else")

    async def _unknown_bytes(self) -> dict[str, str]:
        """Versions with bytes that the journal does not have, though it was read after they were."""
        before = {row["id"] for row in await self._database.read(_unjournaled)}
        if not before or (problem := await self._read_journal()):
            return problem if before else {}
        still = [row for row in await self._database.read(_unjournaled) if row["id"] in before]
        return {
            chain: f"{OLDER}; it lacks {count} signed versions, such as version {row['number']} of attempt {row['attempt_id']}"
            for chain, count in Counter(row["chain"] for row in still).items()
            for row in [next(row for row in still if row["chain"] == chain)]
        }

    async def _may_relearn(self) -> bool:
        """Whether a person has said, since the journal last agreed, that it is lost for good."""
        return await self._database.read(_commanded_since) is not None

    async def _relearn(self) -> dict[str, str]:
        """Teach the signer again what it had signed: the same intents give the same bytes, and are in its journal then."""

        def forget(tx: Tx) -> None:
            tx.run("UPDATE journal_checkpoint SET number = 0, hash = ''")
            tx.run("UPDATE version SET journaled = 0 WHERE journaled = 1")

        # Begun once: what was compared with this journal since need not be taught again.
        if await self._read_journal():
            await self._database.write("recovery.relearn", forget)
            await self._read_journal()
        while rows := await self._database.read(_unjournaled):
            try:
                for row in rows[:BATCH]:
                    await self._teach(row)
            except SignLater as later:
                # No network goes on before the signer knows all of them: what it does not know it would sign a second time.
                return dict.fromkeys(self._rails, f"{LEARNS}{later}")
            except SignRefused as refusal:
                return dict.fromkeys(self._rails, f"the signer does not take back what it had signed: {refusal}")
            await self._read_journal()
        log.warning("recovery.relearned")
        return {}

    async def _teach(self, row: Row) -> None:
        (signed,) = await self._signer.sign([Intent.from_json(row["intent"])])
        if signed.txid != row["txid"]:
            raise SignRefused(f"attempt {row['attempt_id']} has become another transaction; is it another seed?")
        if row["state"] == "dead":
            await self._signer.bury([Death(row["attempt_id"], row["seen"])])

    async def _restore(self) -> dict[str, str]:
        """The signer's bytes of live attempts, where a crash or an old database has kept them from the tables."""
        found: dict[str, str] = {}
        rows = await self._database.read(_unrestored)
        for row in rows:
            try:
                signed = await self._signer.sign([Intent.from_json(row["intent"])])
            except SignRefused as refusal:
                found[row["chain"]] = f"the signer does not give the bytes of attempt {row['attempt_id']} again: {refusal}"
                continue
            await self._database.write("recovery.restore", lambda tx, row=row, signed=signed: self._store(tx, row, signed))  # type: ignore[misc]
        return {chain: reason for chain, reason in found.items() if self._held.get(chain, NOT_YET)}

    def _store(self, tx: Tx, row: Row, signed: Sequence[Signed]) -> None:
        attempts.store_signed(tx, signed)
        if isinstance(self._rails.get(row["chain"]), Withholds):
            # The journal knew more than the tables: a life that they have forgotten may have given the bytes away.
            attempts.record_giving(tx, [row["attempt_id"]])

    async def _adopt(self) -> dict[str, str]:
        """Put back what can be put back; stop the lanes of the rest until a person has looked."""
        problems: dict[str, list[str]] = {}
        for stray in await self._database.read(lambda tx: adopt.strays(tx, 10 * BATCH)):
            try:
                problem = await self._database.write("recovery.adopt", lambda tx, stray=stray: adopt.adopt(tx, stray, self._tools()))  # type: ignore[misc]
            except Conflict as conflict:
                problem = f"attempt {stray.attempt_id} does not fit into the tables: {conflict}"
            if problem:
                problems.setdefault(stray.chain, []).append(problem)
            else:
                self._agreed_ms[stray.chain] = self._runtime.now_ms()
                log.warning("recovery.adopted", chain=stray.chain, attempt=stray.attempt_id, slot=stray.first.slot)
        found = dict.fromkeys(problems, adopt.UNOPENED)
        for chain, texts in problems.items():
            if grave := [text for text in texts if text != adopt.UNOPENED]:
                found[chain] = f"{HALTED}{_many(grave)} that nobody here asked for: {grave[0]}"
        stand = [chain for chain, text in found.items() if text != adopt.UNOPENED]

        def halt(tx: Tx) -> None:
            for chain in stand:
                attempts.halt_lane(tx, chain, found[chain])

        if stand:
            await self._database.write("recovery.halt", halt)
        return found

    def _tools(self) -> Tools:
        return Tools(self._catalog, self._next_ids, self._once, self._signer.addresses, self._runtime.now_ms())

    def _once(self, intent: Intent) -> Sequence[str]:
        rail, names = self._rails.get(intent.chain), []
        for payment in intent.payments if rail is not None else ():
            try:
                names.append(rail.parse_destination(payment.recipient, payment.memo).once)  # type: ignore[union-attr]
            except (InvalidDestination, MemoRequired):
                continue
        return [name for name in names if name]

    # -------------------------------------------------------------------------------------------------------------- the chain

    async def _meet(self, chain: str) -> None:
        """Compare one network with its chain, and let it go on."""
        if chain in self._disagree or not self._compared:
            return
        if not self.audited():
            self._say(chain, UNAUDITED)
            return
        breaks = self._breaks
        unseen = await self._database.read(lambda tx: _unseen(tx, chain, self._since_ms))
        if unseen:
            self._say(chain, f"{unseen} transactions under way have not been looked at since the start")
            return
        try:
            seen = await self._treasury.look(chain)
        except NodeUnreachable as error:
            self._say(chain, f"its nodes do not show the hot address: {error}")
            return
        except Conflict:
            return
        # A node that has only a clock cannot be compared while payments are under way; it pays nothing twice by itself.
        if not all(look.held.clocked for look in seen) and self._treasury.compared.get(chain, -1) < self._since_ms:
            self._say(chain, "what is under way has to come to rest before its coins can be compared with the books")
            return
        if breaks != self._database.breaks:
            return
        now_ms = self._runtime.now_ms()
        await self._database.write("recovery.release", lambda tx: _wake(tx, chain, now_ms))
        self._held[chain] = ""
        log.info("recovery.released", chain=chain, took_ms=now_ms - self._since_ms)
        self.released()

    async def _write_holds(self) -> None:
        """For people and for commands, which are other processes."""
        held = {chain: reason for chain, reason in self._held.items() if reason}
        if held == self._written:
            return
        rows = [{"chain": chain, "reason": reason} for chain, reason in held.items()]

        def job(tx: Tx) -> None:
            tx.run("DELETE FROM recovery_hold WHERE chain NOT IN (SELECT k.chain FROM {ROWS k(chain TEXT)})", k=rows)
            tx.run(
                "INSERT INTO recovery_hold (chain, reason, since_ms) SELECT k.chain, k.reason, :since_ms FROM {ROWS k(chain TEXT, reason TEXT)} "
                "WHERE true ON CONFLICT (chain) DO UPDATE SET reason = excluded.reason",
                since_ms=self._since_ms,
                k=rows,
            )

        await self._database.write("recovery.hold", job)
        self._written = held


def relearn(tx: Tx, reason: str, *, action_id: int, now_ms: int) -> bool:
    """A person says that the signer's journal is lost for good; whether any network waits for that."""
    if not any(text.startswith(OLDER[:40]) for text in attempts.holds(tx).values()):
        return False
    record_action(tx, action_id, action="relearn", subject="signer", reason=reason, at_ms=now_ms)
    return True


def _commanded_since(tx: Tx) -> int | None:
    """When the journal last agreed, where a person has said since that it is lost for good; None where nobody has. Commands are few."""
    row = tx.one("SELECT at_ms FROM journal_checkpoint WHERE at_ms < (SELECT MAX(at_ms) FROM operator_action WHERE action = 'relearn')")
    return int(row["at_ms"]) if row is not None else None


def _note(tx: Tx, page: Sequence[JournalEntry], now_ms: int) -> None:
    """As `adopt.compare`. While the signer is taught again the checkpoint keeps its time: the person's word counts until all is taught."""
    agreed_ms = _commanded_since(tx)
    adopt.compare(tx, page, now_ms=now_ms)
    if agreed_ms is not None:
        tx.run("UPDATE journal_checkpoint SET at_ms = :agreed_ms", agreed_ms=agreed_ms)


def _relearned(tx: Tx) -> None:
    """The word has been done: a journal that is lost once more needs another."""
    tx.run("UPDATE journal_checkpoint SET at_ms = (SELECT MAX(at_ms) FROM operator_action WHERE action = 'relearn')")


def _unjournaled(tx: Tx) -> list[Row]:
    # Through the partial index: few at any time but the first. The + keeps SQLite from reading all versions for the sake of their order.
    return tx.all(
        "SELECT version.id, version.attempt_id, version.number, version.intent, version.txid, lane.chain, attempt.state, attempt.seen "
        "FROM version JOIN attempt ON attempt.id = version.attempt_id JOIN lane ON lane.id = attempt.lane_id "
        "WHERE version.journaled = 0 AND version.raw IS NOT NULL ORDER BY +version.attempt_id, version.number LIMIT :limit",
        limit=10 * BATCH,
    )


def _unrestored(tx: Tx) -> list[Row]:
    # The same of the other partial index.
    return tx.all(
        "SELECT version.attempt_id, version.intent, lane.chain FROM version JOIN attempt ON attempt.id = version.attempt_id "
        "JOIN lane ON lane.id = attempt.lane_id WHERE version.journaled = 1 AND version.raw IS NULL "
        "AND attempt.state IN ('bound', 'signed', 'sent', 'included') ORDER BY +version.attempt_id, version.number LIMIT :limit",
        limit=10 * BATCH,
    )


def _unseen(tx: Tx, chain: str, since_ms: int) -> int:
    row = tx.one(
        "SELECT COUNT(*) AS n FROM attempt JOIN lane ON lane.id = attempt.lane_id WHERE lane.chain = :chain "
        "AND attempt.state IN ('signed', 'sent', 'included') AND (attempt.seen_at_ms IS NULL OR attempt.seen_at_ms < :since_ms)",
        chain=chain,
        since_ms=since_ms,
    )
    return int(row["n"]) if row is not None else 0


def _wake(tx: Tx, chain: str, now_ms: int) -> None:
    """What the hold has kept from being signed or sent is due at once."""
    tx.run(
        "UPDATE attempt SET due_at_ms = :now_ms, lease = '' WHERE lane_id IN (SELECT id FROM lane WHERE chain = :chain) "
        "AND state IN ('bound', 'signed') AND due_at_ms > :now_ms",
        now_ms=now_ms,
        chain=chain,
    )


def _many(texts: Sequence[Any]) -> str:
    return "the signer has signed a transaction" if len(texts) == 1 else f"the signer has signed {len(texts)} transactions"
