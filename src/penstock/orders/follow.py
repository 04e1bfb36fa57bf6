"""Attempts until they are final: resume what a crash left, observe, decide, and let `settle` write the decision."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from penstock.catalog import Catalog
from penstock.core.attempt import AttemptState, Outcome, advance
from penstock.core.errors import InvariantBroken
from penstock.core.event import Dead, FailedOnChain, Included, Observation, Pending, Suspicious
from penstock.core.event import Final as FinalOnChain
from penstock.core.intent import Death
from penstock.db import Conflict, Database, DatabaseUnavailable, Tx
from penstock.orders import attempts
from penstock.orders.attempts import Attempt, Version
from penstock.orders.board import Board
from penstock.orders.in_hand import InHand
from penstock.orders.settle import Settler, Verdict
from penstock.orders.side_by_side import SideBySide
from penstock.orders.stages import Stages
from penstock.orders.store import LostRace
from penstock.rails.base import NodeUnreachable, Withholds
from penstock.runtime import Runtime

log = structlog.get_logger()

UNREACHABLE_RETRY_MS: Final = 3_000
BATCHES_AT_ONCE: Final = 2
"""Of one network: while what was seen of one is written, nodes are asked about the next."""
PAYMENTS_AT_ONCE: Final = 400
"""How many orders one transaction settles, unless a single attempt pays more."""
VERSIONS_MAX: Final = 20


class Follower:
    """The pump job of attempts that are due."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        database: Database,
        catalog: Catalog,
        board: Board,
        stages: Stages,
        settler: Settler,
        next_ids: Callable[[int], list[int]],
        report_depth: Callable[[str], int | None],
        held: Callable[[str], str],
    ) -> None:
        self._runtime = runtime
        self._database = database
        self._catalog = catalog
        self._board = board
        self._stages = stages
        self._settler = settler
        self._next_ids = next_ids
        self._report_depth = report_depth
        self._held = held
        self.in_hand = InHand(runtime)
        self.under_way = SideBySide(runtime, "follow", width=BATCHES_AT_ONCE)

    async def claim(self, limit: int) -> list[Attempt]:
        """Attempts that are due. Raises what an earlier batch failed with."""
        self.under_way.raise_failure()
        busy = self.under_way.busy
        if self._board.rails and self._board.rails.keys() <= set(busy):
            return []  # whoever is done wakes the pump
        now_ms, in_hand = self._runtime.now_ms(), self.in_hand.rows()
        found = await self._database.read(lambda tx: attempts.due(tx, now_ms=now_ms, limit=limit, chains_but=busy, ids_but=in_hand))
        self.in_hand.take(attempt.id for attempt in found)
        self._runtime.crash_point("follow.claim:after")
        return found

    async def handle(self, due: Sequence[Attempt]) -> None:
        """Observe those that nodes have seen, and resume those that a crash left between two steps; each network in its own time."""
        by_chain: defaultdict[str, list[Attempt]] = defaultdict(list)
        for attempt in due:
            by_chain[attempt.chain].append(attempt)
        for chain, group in by_chain.items():
            self.under_way.start(chain, self._follow(chain, group))

    async def _follow(self, chain: str, due: Sequence[Attempt]) -> None:
        with self.in_hand.worked_on([attempt.id for attempt in due]):
            # First what was sent: a signer that is out of order must not keep what is paid from being settled, nor one the other.
            failure: Exception | None = None
            over: set[int] = set()
            try:
                over = await self._watch(chain, [attempt for attempt in due if attempt.signed and self._is_watched(attempt)])
            except Exception as error:  # noqa: BLE001  raised again when the others are resumed
                failure = error
            if left := [attempt for attempt in due if attempt.id not in over]:
                async with self.under_way.turn(chain, "act"):
                    await self._resume(left)
            if failure is not None:
                raise failure

    def _is_watched(self, attempt: Attempt) -> bool:
        """What was given to a node; and what may have been, while nothing may be given to one now; and what may be over without it."""
        is_given = attempt.state in (AttemptState.SENT, AttemptState.INCLUDED)
        return is_given or bool(self._held(attempt.chain)) or isinstance(self._board.rail(attempt.chain), Withholds)

    async def _resume(self, due: Sequence[Attempt]) -> None:
        unsent = [a for a in due if a.newest.raw is not None and a.state is AttemptState.SIGNED and not self._is_watched(a)]
        wanted, ended = await self._wanted(unsent)
        if wanted:
            await self._stages.submit([attempt.newest for attempt in wanted])
        if ended:
            seen = [await self._observe(attempt) for attempt in ended]
            await self._act(ended, [verdict for verdict in seen if verdict is not None])
        wanted, ended = await self._wanted([attempt for attempt in due if attempt.newest.raw is None])
        if wanted:
            await self._stages.submit(await self._stages.sign([attempt.newest for attempt in wanted]))
        if ended:
            await self._stages.put_off(
                [attempt.newest for attempt in ended], "a person has ended its order: nothing more is signed to pay it"
            )

    async def _wanted(self, some: Sequence[Attempt]) -> tuple[list[Attempt], list[Attempt]]:
        """Those for which more may be signed and sent, and the others: where a person has ended an order without its attempt, nothing pays
        that order any more. If it was all that the attempt pays, a cancel uses up its slot; else what was sent of it is only watched.
        """
        paying = [attempt for attempt in some if attempt.newest.kind == "pay"]
        gone = await self._database.read(lambda tx: attempts.detached(tx, paying)) if paying else {}
        for attempt in paying:
            if gone.get(attempt.id) == len(attempt.newest.intent.payments) and not self._held(attempt.chain):
                log.warning("attempt.ended.by.hand", attempt=attempt.id, chain=attempt.chain)
                await self._bump(attempt, cancel=True)
        return [attempt for attempt in some if attempt.id not in gone], [attempt for attempt in some if attempt.id in gone]

    async def _watch(self, chain: str, watched: Sequence[Attempt]) -> set[int]:
        """Look, write what was decided and do what follows; the ids of those that are over."""
        async with self.under_way.turn(chain, "look"):
            tasks = [self._runtime.spawn(self._observe(attempt), name="observe") for attempt in watched]
            seen = [await task for task in tasks]
        async with self.under_way.turn(chain, "act"):
            return await self._act(watched, [verdict for verdict in seen if verdict is not None])

    async def _act(self, watched: Sequence[Attempt], seen: list[Verdict]) -> set[int]:
        """Write what was decided and do what follows; the ids of those that are over."""
        verdicts = await self._buried(seen)
        if verdicts:
            await self._settle(_lots(verdicts))
        written = {verdict.attempt.id for verdict in verdicts}
        await self._look_again([attempt for attempt in watched if attempt.id not in written])
        again = [v.attempt for v in verdicts if v.decision.outcome in (Outcome.RESEND, Outcome.UNDO) or _doubtful(v)]
        # A cancel that waits to be signed is not overtaken by what it shall replace.
        if bytes_ := [a.signed[-1] for a in (await self._wanted(again))[0] if a.signed[-1].kind == a.newest.kind]:
            self._runtime.crash_point("follow:again")
            await self._stages.submit(bytes_)
        stuck = [v.attempt for v in verdicts if v.decision.outcome is Outcome.BUMP and not self._held(v.attempt.chain)]
        for attempt in (await self._wanted(stuck))[0]:
            await self._bump(attempt, cancel=attempt.newest.kind == "cancel")
        return {verdict.attempt.id for verdict in verdicts if verdict.due_at_ms is None}

    async def _observe(self, attempt: Attempt) -> Verdict | None:
        rail = self._board.rail(attempt.chain)
        seen: Observation | None = None
        try:
            if rail is not None:
                seen = await rail.observe(attempt.views())
        except NodeUnreachable as error:
            log.warning("attempt.observe.unreachable", chain=attempt.chain, detail=str(error))
        if seen is None:
            return None
        decision = advance(attempt.state, seen, report_depth=self._report_depth(attempt.chain))
        at_last = isinstance(seen, FinalOnChain | FailedOnChain | Dead)
        poll_ms = 60_000 if isinstance(seen, Suspicious) else self._board.poll_ms(attempt.chain)
        return Verdict(attempt, seen, decision, None if at_last else self._runtime.now_ms() + poll_ms)

    async def _buried(self, verdicts: list[Verdict]) -> list[Verdict]:
        """Deaths are told to the signer before they are written, or the next attempt of an order would be refused. One that the signer
        does not believe yet is looked at again.
        """
        deaths = [Death(v.attempt.id, v.seen.proof) for v in verdicts if isinstance(v.seen, Dead)]
        if not deaths or await self._stages.bury(deaths):
            return verdicts
        return [verdict for verdict in verdicts if not isinstance(verdict.seen, Dead)]

    async def _look_again(self, unanswered: Sequence[Attempt]) -> None:
        if not unanswered:
            return
        again = self._runtime.now_ms() + UNREACHABLE_RETRY_MS

        def job(tx: Tx) -> None:
            # Nobody answered, which proves nothing: ask again soon.
            tx.run(
                "UPDATE attempt SET due_at_ms = :again, lease = '' FROM {ROWS k(id {INT}, due_at_ms {INT})} "
                "WHERE attempt.id = k.id AND attempt.due_at_ms = k.due_at_ms",
                again=again,
                k=[{"id": attempt.id, "due_at_ms": attempt.due_at_ms} for attempt in unanswered],
            )

        await self._database.write("follow.later", job)

    async def _settle(self, lots: Sequence[Sequence[Verdict]]) -> None:
        """Each lot in one transaction; where one of its verdicts is refused, each alone, so that no order holds up another. Raises
        InvariantBroken when all were tried.
        """
        broken: InvariantBroken | None = None
        for lot in lots:
            try:
                await self._settler.apply(lot)
            except DatabaseUnavailable:
                raise
            except (LostRace, Conflict, InvariantBroken) as error:
                try:
                    await self._refused(lot, error)
                except InvariantBroken as found:
                    broken = found
        if broken is not None:
            raise broken

    async def _refused(self, lot: Sequence[Verdict], error: LostRace | Conflict | InvariantBroken) -> None:
        if len(lot) > 1:
            await self._settle([[verdict] for verdict in lot])
        elif isinstance(error, InvariantBroken):
            raise error
        else:
            log.warning("attempt.settle.refused", attempt=lot[0].attempt.id, error=type(error).__name__, detail=str(error)[:200])
            await self._look_again([lot[0].attempt])

    async def _bump(self, attempt: Attempt, *, cancel: bool) -> None:
        """A new version on the same slot, stored before it is signed. Under the cap or not at all."""
        rail, token = self._board.rail(attempt.chain), self._catalog.token(attempt.token_id)
        newest = attempt.newest
        if rail is None or token is None or (newest.raw is None and not cancel):
            return
        intent = None
        if len(attempt.versions) < VERSIONS_MAX:
            intent = rail.bump(newest.intent, self._board.estimate(token), version=newest.number + 1, cancel=cancel)
        if intent is None:
            log.warning("attempt.bump.capped", attempt=attempt.id, chain=attempt.chain)
            if newest.raw is not None and (newest.kind == "cancel" or not cancel):
                await self._stages.submit([newest])
            return
        version_id = self._next_ids(1)

        def job(tx: Tx) -> Version | None:
            if attempts.is_halted(tx, attempt.chain):
                return None  # a lane that stands signs nothing; what was signed is followed as it is
            attempts.insert_versions(tx, [intent], version_id, now_ms=self._runtime.now_ms())
            found = attempts.load(tx, [attempt.id])
            return found[0].newest if found else None

        try:
            version = await self._database.write("bump", job)
        except Conflict:
            return  # another worker made this version already
        if version is not None:
            await self._stages.submit(await self._stages.sign([version]))
            self._runtime.crash_point("bump:sent")


def _lots(verdicts: Sequence[Verdict]) -> list[list[Verdict]]:
    """As they go into one transaction: an attempt may pay hundreds, and others wait for what it locks."""
    lots: list[list[Verdict]] = []
    paid = 0
    for verdict in verdicts:
        many = max(1, len(verdict.attempt.newest.intent.payments))
        if not lots or paid + many > PAYMENTS_AT_ONCE:
            lots.append([])
            paid = 0
        lots[-1].append(verdict)
        paid += many
    return lots


def _doubtful(verdict: Verdict) -> bool:
    """Held by too few nodes: one may keep it to itself. Or still in a block by their word: one may stand on a branch that the others have
    left. Either way the others lack the bytes.
    """
    seen = verdict.seen
    if isinstance(seen, Pending):
        return seen.thin and not seen.stuck
    return isinstance(seen, Included) and not seen.depth and verdict.attempt.state is AttemptState.INCLUDED
