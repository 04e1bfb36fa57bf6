"""Whether the house can do its work, in sentences for people: `/readyz`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from penstock.core.intent import Signer
from penstock.db import Database, DatabaseUnavailable
from penstock.orders import attempts, auditor
from penstock.orders.board import Board
from penstock.orders.replica import Replica
from penstock.orders.treasury import Treasury
from penstock.rates import Prices
from penstock.runtime import Runtime

UNSIGNED_MS: Final = 60_000
"""How long a payment may be bound and not signed before people are told: what is behind it on its hot address cannot land."""


class Readiness:
    """Asks the rooms what keeps them from working."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        database: Database,
        board: Board,
        prices: Prices,
        treasury: Treasury | None,
        replica: Replica | None = None,
    ) -> None:
        self._runtime = runtime
        self._database = database
        self._board = board
        self._prices = prices
        self._treasury = treasury
        self._replica = replica
        self.signer: Signer | None = None
        """Whose word counts here; none in a process that has nothing signed."""
        self.waits_for: Callable[[], str] = lambda: ""
        """Who works while this process waits for its turn."""

    async def reasons(self) -> tuple[Sequence[str], Sequence[str]]:
        """Why it is not ready (empty: it is), and warnings."""
        not_ready: list[str] = []
        warnings: list[str] = []
        if holder := self.waits_for():
            # No reason not to be ready: whoever rolls out a new version waits for that before it ends the one we wait for.
            warnings.append(f"this worker delivers webhooks and waits for its turn to sign and settle: {holder} does that now")
        try:
            lanes = await self._database.read(
                lambda tx: tx.all("SELECT DISTINCT chain, halted FROM lane WHERE halted <> '' ORDER BY chain")
            )
        except DatabaseUnavailable:
            return ["the database does not answer"], []
        warnings += [
            f"nothing is sent on {lane['chain']}: {lane['halted']} (`penstock resume {lane['chain']}` when you know why)" for lane in lanes
        ]
        held = await self._database.read(attempts.holds)
        warnings += [f"nothing is sent on {chain}, recovery hold: {reason}" for chain, reason in held.items()]
        if self.signer is not None and (stopped := (await self.signer.standing()).stopped):
            warnings.append(f"nothing is signed: {stopped}")
        await self._audited(not_ready, warnings)
        warnings += await self._held()
        warnings += await self._unsigned()
        for chain in self._board.rails:
            fault = self._board.faults.get(chain) or (self._treasury.faults.get(chain) if self._treasury is not None else None)
            if fault is not None:
                warnings.append(f"the nodes of {chain} do not answer as they should: {fault}")
            elif self._board.heads(chain) is None:
                not_ready.append(f"the first fee estimate of {chain} is still on its way")
            for address, why in self._treasury.idle.get(chain, {}).items() if self._treasury is not None else ():
                warnings.append(f"hot address {address} of {chain} pays nothing yet: {why}")
        if self._replica is not None and (problem := self._replica.fault or self._replica.late):
            warnings.append(f"the read replica: {problem}")
        if self._prices.static_symbols:
            warnings.append("prices come from a file and do not age; configure prices.url for a live source")
        warnings += [f"price of {symbol}: {problem}" for symbol, problem in sorted(self._prices.problems.items())]
        return not_ready, warnings

    async def _audited(self, not_ready: list[str], warnings: list[str]) -> None:
        """What the continuous audit has found: a breach of the books is a reason not to be ready until a person has acknowledged it."""
        found = await self._database.read(auditor.standing)
        for row in found.open:
            where = not_ready if row["level"] == "stop" else warnings
            where.append(f"the audit found ({row['invariant']}): {row['text']}")
        if found.acknowledged:
            warnings.append(
                f"{len(found.acknowledged)} findings of the audit were acknowledged and are still there: `penstock audit` names them"
            )
        age_ms = self._runtime.now_ms() - found.ended_at_ms
        if not found.ended_at_ms:
            warnings.append("the books were not audited yet: does a worker run?")
        elif age_ms > auditor.LATE_MS:
            warnings.append(f"the books were last audited {age_ms // 60_000} minutes ago: does a worker run?")

    async def _held(self) -> list[str]:
        # Held orders are always due again some time, so the partial index has them.
        rows = await self._database.read(
            lambda tx: tx.all(
                "SELECT chain, hold_reason, COUNT(*) AS n FROM orders WHERE due_at_ms IS NOT NULL AND state = 'held' "
                "GROUP BY chain, hold_reason ORDER BY chain, hold_reason"
            )
        )
        return [f"{row['n']} held on {row['chain']}, reason {row['hold_reason']}: `penstock order list --state held`" for row in rows]

    async def _unsigned(self) -> list[str]:
        # Through the partial index of what is due again; oldest first.
        rows = await self._database.read(
            lambda tx: tx.all(
                "SELECT lane.chain, attempt.seen FROM attempt JOIN lane ON lane.id = attempt.lane_id WHERE attempt.due_at_ms IS NOT NULL "
                "AND attempt.state = 'bound' AND attempt.created_at_ms <= :since_ms ORDER BY attempt.created_at_ms, attempt.id",
                since_ms=self._runtime.now_ms() - UNSIGNED_MS,
            )
        )
        why: dict[str, str] = {}
        for row in rows:
            why.setdefault(row["chain"], row["seen"] or "the signer was not asked yet; does a worker run?")
        counts = Counter(row["chain"] for row in rows)
        return [f"{counts[chain]} bound on {chain} for more than a minute and not signed: {why[chain]}" for chain in sorted(why)]

    async def waiting(self) -> Sequence[tuple[str, str, int]]:
        """Open orders, live attempts, events under way, halted lanes and findings of the audit, by state."""
        # Each part runs on a partial index, so a page of metrics costs the open rows and not the table.
        rows = await self._database.read(
            lambda tx: tx.all(
                "SELECT 'order' AS kind, state, COUNT(*) AS n FROM orders WHERE due_at_ms IS NOT NULL GROUP BY state "
                "UNION ALL SELECT 'attempt', state, COUNT(*) FROM attempt WHERE state IN ('bound', 'signed', 'sent', 'included') GROUP BY state "
                "UNION ALL SELECT 'event', state, COUNT(*) FROM outbox WHERE due_at_ms IS NOT NULL GROUP BY state "
                "UNION ALL SELECT 'lane', 'halted', COUNT(DISTINCT chain) FROM lane WHERE halted <> '' HAVING COUNT(*) > 0 "
                "UNION ALL SELECT 'finding', CASE WHEN acknowledged_at_ms IS NULL THEN level ELSE 'acknowledged' END AS state, COUNT(*) "
                "FROM audit_finding GROUP BY CASE WHEN acknowledged_at_ms IS NULL THEN level ELSE 'acknowledged' END"
            )
        )
        return [(row["kind"], row["state"], row["n"]) for row in rows]
