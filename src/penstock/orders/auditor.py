"""The continuous audit: a pass at start and every minute, one process at a time, and what its findings stop.

A pass over much goes in slices, each with a checkpoint of its own, so that none is longer than its lease and what one has read is never read
again. The first is read here; where it is not the whole, the rest is read by a process beside (`ledger/beside`), so that a long pass takes
nothing from those who pay. What it answers is believed as far as it ends where the books do; where it does not answer, the slice is read here.

A stop-level finding halts the lanes of the network it is about, or of every network that pays its coin, or all. The halt is in the lane's
row, which everybody who binds or signs reads under its lock. A person who resumes the network has seen the finding: it halts nothing
again as long as it stays the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from penstock.catalog import Catalog
from penstock.child import ChildFailed
from penstock.core.errors import InvariantBroken
from penstock.db import Conflict, Database, Row, Tx
from penstock.ledger import chain, facts
from penstock.ledger.audit import Finding, Report, look_again
from penstock.ledger.beside import Look
from penstock.ledger.checkpoint import Checkpoint
from penstock.ledger.late import HALTED
from penstock.ledger.rules import Terms
from penstock.orders import attempts
from penstock.runtime import Runtime

log = structlog.get_logger()

Reader = Callable[[], AbstractAsyncContextManager[Look]]

PASS_S: Final = 60.0
LEASE_MS: Final = 3 * 60_000
"""Longer than any slice; a process that dies in one delays the next by no more than this."""
SLICE_ENTRIES: Final = 2_000
"""What the first slice reads at least before it stops, in entries of the books: a tenth of a second or two. To start a process costs as much."""
LONG_SLICE_ENTRIES: Final = 20_000
"""The same for those behind it: some seconds of another core. Each costs us some milliseconds, and an order that two of them meet is read twice."""
LATE_MS: Final = 5 * 60_000
"""After so long without a pass, people are told that nobody audits."""
STANDING: Final = ("I2", "I3", "I4", "I10", "I11", "I16")
"""Invariants that every pass checks as a whole: what it does not find any more is over. The others are found once, where they happened."""


@dataclass(frozen=True, slots=True)
class AuditStanding:
    """How the audit stands: what was found and not acknowledged, what was, and when the last pass ended (0: never)."""

    open: Sequence[Row]
    acknowledged: Sequence[Row]
    ended_at_ms: int


class NotTheBooks(InvariantBroken):
    """What was read is not what is stored: nothing that it says is believed, least of all that all is well."""


class Auditor:
    """Runs the passes of one process."""

    def __init__(
        self, *, runtime: Runtime, database: Database, catalog: Catalog, terms: Callable[[], Terms], beside: Reader | None = None
    ) -> None:
        """`beside` opens what reads a long pass; without it that is done here."""
        self._runtime = runtime
        self._beside = beside or (lambda: contextlib.nullcontext(self._here))
        self._database = database
        self._catalog = catalog
        self._terms = terms
        self.caught_up = False
        """Whether the first pass of this process has come to its end, or could not be made: nothing is signed before."""

    async def first(self) -> None:
        """The first slice of the pass before the first signature. Where it is not the whole of it, `turn` goes on while callers are served
        and every network is held. An audit that cannot be made is told, and tried again in its time: nobody is paid later because of it,
        and `/readyz` says that nobody audits.
        """
        try:
            report = await self._slice(self._here, SLICE_ENTRIES)
            self.caught_up = report is None or report.whole
        except Exception as error:  # noqa: BLE001  see above
            self.caught_up = True
            log.error("audit.failed", error=type(error).__name__, detail=str(error)[:200])  # noqa: TRY400

    async def turn(self) -> Report | None:
        """One pass to its end; the report of its last slice, None where another process is at it."""
        try:
            report = await self._slice(self._here, SLICE_ENTRIES)
            if report is not None and not report.whole:
                async with self._beside() as look:
                    report = await self._all_slices(look)
        finally:
            self.caught_up = True
        return report

    async def _all_slices(self, look: Look) -> Report | None:
        """As many as what is there now may need, and then the rest at once: who is faster than the audit must not keep it from its end."""
        entries = await self._database.read(lambda tx: tx.one("SELECT COUNT(*) AS n FROM entry"))
        for _ in range((entries["n"] if entries is not None else 0) // LONG_SLICE_ENTRIES):
            report = await self._slice(look, LONG_SLICE_ENTRIES)
            if report is None or report.whole:
                return report
            if report.counts["entries"] < LONG_SLICE_ENTRIES:
                break  # only what is under way is left
        return await self._slice(look, None)

    async def _here(self, terms: Terms, entries_max: int | None) -> tuple[Report, Checkpoint]:
        return await self._database.read(lambda tx: look_again(tx, terms, entries_max))

    async def _slice(self, look: Look, entries_max: int | None) -> Report | None:
        """Read a part of what is new and store what was found; None where another process is at it."""
        lease = self._runtime.random_bytes(8).hex()
        ends = await self._database.write("audit.claim", lambda tx: self._claim(tx, lease))
        if ends is None:
            return None
        terms = self._terms()
        if look != self._here:
            try:
                return await self._judged(lease, ends, entries_max, *await look(terms, entries_max))
            except (ChildFailed, NotTheBooks) as error:
                log.warning("audit.beside.failed", detail=str(error))
        return await self._judged(lease, ends, entries_max, *await self._here(terms, entries_max))

    async def _judged(
        self, lease: str, ends: Mapping[str, int], entries_max: int | None, report: Report, checkpoint: Checkpoint
    ) -> Report | None:
        """Store what was found, and tell what is new of it. Raises NotTheBooks."""
        missed = [name for name, number in ends.items() if checkpoint.heads.get(name, facts.FIRST).number < number]
        if (report.whole and missed) or (entries_max is None and not report.whole):
            raise NotTheBooks("the audit was to read everything, and has not")
        try:
            fresh = await self._database.write("audit.pass", lambda tx: self._store(tx, lease, report, checkpoint))
        except Conflict:
            log.info("audit.pass.raced")
            return None
        for finding in fresh:
            say = log.error if finding.level == "stop" else log.warning
            say(f"audit.{finding.level}", invariant=finding.invariant, text=finding.text, chain=finding.chain)
        return report

    def _claim(self, tx: Tx, lease: str) -> dict[str, int] | None:
        """Where the books end now, if nobody else audits."""
        now_ms = self._runtime.now_ms()
        # One auditor at a time; what a dead one held comes back by itself.
        claimed = tx.run(
            "UPDATE audit_run SET lease = :lease, lease_until_ms = :until_ms WHERE id = 1 AND lease_until_ms <= :now_ms",
            lease=lease,
            until_ms=now_ms + LEASE_MS,
            now_ms=now_ms,
        )
        return facts.ends(tx) if claimed else None

    def take_over(self, tx: Tx) -> None:
        """What a dead process held is free. Only for the one process that can be sure to be alone."""
        tx.run("UPDATE audit_run SET lease = '', lease_until_ms = 0 WHERE id = 1")

    def _store(self, tx: Tx, lease: str, report: Report, checkpoint: Checkpoint) -> list[Finding]:
        """Checkpoint, findings and halts in one transaction, if nobody else has taken over. Returns the findings that are new."""
        now_ms = self._runtime.now_ms()
        ended = tx.run(
            "UPDATE audit_run SET lease = '', lease_until_ms = 0, ended_at_ms = CASE WHEN :whole = 1 THEN :now_ms ELSE ended_at_ms END "
            "WHERE id = 1 AND lease = :lease",
            now_ms=now_ms,
            whole=int(report.whole),
            lease=lease,
        )
        if not ended:
            raise Conflict("another process has taken the audit over")
        if not facts.are_batches(tx, checkpoint.moved):
            raise NotTheBooks("the audit has read batches that are not in the books")
        checkpoint.store(tx, now_ms)
        return note(tx, self._catalog, report.findings, now_ms=now_ms, over=STANDING if report.whole else ())


def note(tx: Tx, catalog: Catalog, findings: Sequence[Finding], *, now_ms: int, over: Sequence[str] | None) -> list[Finding]:
    """Remember findings and halt what they are about; returns those that were not known. What was known of the invariants `over` (None: of
    all) and was not found again is over.
    """
    known = {row["digest"]: row for row in tx.all("SELECT digest, invariant, acknowledged_at_ms FROM audit_finding")}
    now = {finding.digest: finding for finding in findings if finding.mark != HALTED}
    gone = [digest for digest, row in known.items() if digest not in now and (over is None or row["invariant"] in over)]
    tx.run("DELETE FROM audit_finding WHERE digest IN (SELECT k.digest FROM {ROWS k(digest TEXT)})", k=[{"digest": d} for d in gone])
    fresh = {digest: finding for digest, finding in now.items() if digest not in known}
    tx.run(
        "INSERT INTO audit_finding (digest, invariant, level, text, chain, coin_id, first_at_ms) "
        "SELECT f.digest, f.invariant, f.level, f.text, f.chain, f.coin_id, :now_ms "
        "FROM {ROWS f(digest TEXT, invariant TEXT, level TEXT, text TEXT, chain TEXT, coin_id TEXT)} WHERE true ON CONFLICT DO NOTHING",
        now_ms=now_ms,
        f=[
            {"digest": d, "invariant": f.invariant, "level": f.level, "text": f.text[:1000], "chain": f.chain, "coin_id": f.coin_id}
            for d, f in fresh.items()
        ],
    )
    # Also the known ones that nobody has acknowledged: a lane may have been opened since.
    for digest, finding in now.items():
        if finding.level == "stop" and (digest in fresh or known[digest]["acknowledged_at_ms"] is None):
            for name in _chains(tx, catalog, finding.chain, finding.coin_id):
                attempts.halt_lane(tx, name, f"{finding.invariant}: {finding.text}")
    return list(fresh.values())


def acknowledge(tx: Tx, catalog: Catalog, chain_name: str, *, now_ms: int) -> list[str]:
    """A person has looked at what stops this network ("" for all): none of it halts anything again. Returns what they have seen."""
    rows = tx.all("SELECT digest, text, chain, coin_id FROM audit_finding WHERE acknowledged_at_ms IS NULL ORDER BY first_at_ms, digest")
    seen = [row for row in rows if not chain_name or chain_name in _chains(tx, catalog, row["chain"], row["coin_id"])]
    tx.run(
        "UPDATE audit_finding SET acknowledged_at_ms = :now_ms WHERE digest IN (SELECT k.digest FROM {ROWS k(digest TEXT)})",
        now_ms=now_ms,
        k=[{"digest": row["digest"]} for row in seen],
    )
    return [row["text"] for row in seen]


def _chains(tx: Tx, catalog: Catalog, chain_name: str, coin_id: str) -> list[str]:
    """The networks that a finding is about, among those that have a lane."""
    lanes = [row["chain"] for row in tx.all("SELECT DISTINCT chain FROM lane ORDER BY chain")]
    if chain_name:
        about = {chain_name}
    elif coin_id:
        about = {token.chain for token in catalog.tokens() if token.coin.id == coin_id}
    else:
        about = set(lanes)
    return [name for name in lanes if name in about]


async def resume(
    database: Database, catalog: Catalog, chain_name: str, reason: str, *, next_ids: Callable[[int], list[int]], now_ms: int
) -> dict[str, str]:
    """A person has looked: bind and sign again on this network ("" for all), and remember what they have seen. Why each stood, by
    network; "" as a name stands for findings that halted none.
    """
    job = partial(_resume, catalog=catalog, chain_name=chain_name, reason=reason, next_ids=next_ids, now_ms=now_ms)
    return await database.write("resume", job)


def _resume(tx: Tx, *, catalog: Catalog, chain_name: str, reason: str, next_ids: Callable[[int], list[int]], now_ms: int) -> dict[str, str]:
    names = [chain_name] if chain_name else [row["chain"] for row in tx.all("SELECT chain FROM lane WHERE number = 0 ORDER BY chain")]
    stood = {}
    for name in names:
        why = attempts.resume_lane(tx, name, reason, action_id=next_ids(1)[0], now_ms=now_ms)
        if why is not None:
            stood[name] = why
    seen = acknowledge(tx, catalog, chain_name, now_ms=now_ms)
    if seen:
        subject = f"{chain_name or 'all'}: {'; '.join(seen)}"[:4000]
        chain.record_action(tx, next_ids(1)[0], action="acknowledge", subject=subject, reason=reason, at_ms=now_ms)
    if seen and not stood:
        stood[""] = "; ".join(seen)
    return stood


def standing(tx: Tx) -> AuditStanding:
    """For /readyz, /metrics and people."""
    rows = tx.all(
        "SELECT digest, invariant, level, text, chain, acknowledged_at_ms FROM audit_finding ORDER BY level DESC, first_at_ms, digest LIMIT 100"
    )
    run = tx.one("SELECT ended_at_ms FROM audit_run WHERE id = 1")
    if run is None:
        raise InvariantBroken("the row of the audit is gone")
    unseen = [row for row in rows if row["acknowledged_at_ms"] is None]
    return AuditStanding(unseen, [row for row in rows if row["acknowledged_at_ms"] is not None], run["ended_at_ms"])
