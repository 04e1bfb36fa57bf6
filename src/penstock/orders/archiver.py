"""Archives what is over: write and read back the file, commit that it exists, then remove what it has, page by page, as read from the file.

A kill between any two steps leaves a row in both places and never in none. The next run ends what a run before has begun: what is removed is
always what was read from a file whose SHA-256 is recorded, and only where the tables still say the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from penstock.core.errors import InvariantBroken, Problem, Refused
from penstock.db import Conflict, Database, Tx
from penstock.ledger import archive, archive_file, archive_lines, facts, rules
from penstock.ledger.archive import Archive, Totals
from penstock.ledger.archive_file import ArchiveDamaged, Written
from penstock.ledger.archive_lines import Line
from penstock.ledger.facts import Head
from penstock.ledger.report import Report
from penstock.ledger.rules import Terms
from penstock.orders import removal, retention
from penstock.orders.retention import Chosen
from penstock.runtime import Runtime

AGE_MIN_MS: Final = 30 * 86_400_000
"""Nothing younger is archived: merchants still ask for its events, and nodes for its blocks."""
_PAGE: Final = 100
"""Lines of one kind that are removed in one transaction: some thousand rows, some 50 ms."""
_TURN_S: Final = 0.01
"""How long SQLite's one write lock is left to others after each transaction: those who wait for it have to be woken, on a busy machine too."""


@dataclass(slots=True)
class _Draft:
    """A file that is written and not recorded yet. `sums` are those of its postings."""

    chosen: Chosen
    sums: Totals = field(default_factory=dict)
    written: Written | None = None


class Archiver:
    """One run of the command, on an open product."""

    def __init__(
        self, *, runtime: Runtime, database: Database, next_ids: Callable[[int], list[int]], terms: Callable[[], Terms], folder: Path
    ) -> None:
        self._runtime = runtime
        self._database = database
        self._next_ids = next_ids
        self._terms = terms
        self._folder = folder

    async def run(self, before_ms: int) -> list[dict[str, Any]]:
        """End what an earlier run began, then archive month by month what was over before a moment. Raises Refused."""
        if before_ms > self._runtime.now_ms() - AGE_MIN_MS:
            raise Refused(Problem.INVALID_ARGUMENT, "nothing is archived that is younger than 30 days: name an earlier day")
        with _told(self._folder), archive_file.alone(self._folder):
            ends = await self._database.read(lambda tx: retention.months(tx, before_ms))
            unfinished = await self._database.read(archive.unfinished)
            # All of them now: the lease of ids may run out before a long run ends.
            action_ids = iter(self._next_ids(2 * len(ends) + len(unfinished)))
            done = [await self._remove(recorded, next(action_ids)) for recorded in unfinished]
            for until_ms in ends:
                draft = await self._database.read(partial(self._write, until_ms=until_ms))
                if draft is not None:
                    done.append(await self._remove(await self._record(draft, until_ms, next(action_ids)), next(action_ids)))
        return done

    def _write(self, tx: Tx, *, until_ms: int) -> _Draft | None:
        """The file, from one snapshot; None where there is nothing for it."""
        chosen = retention.choose(tx, until_ms, self._terms())
        if not chosen:
            return None
        last = tx.one("SELECT number, hash FROM archive ORDER BY number DESC LIMIT 1")
        number = last["number"] + 1 if last is not None else 1
        draft = _Draft(chosen)
        head = {"form": archive_file.FORM, "number": number, "before_ms": until_ms, "after": last["hash"] if last is not None else ""}
        draft.written = archive_file.write(self._folder, number, _lines(tx, head, draft), self._runtime)
        return draft

    async def _record(self, draft: _Draft, until_ms: int, action_id: int) -> Archive:
        written = draft.written
        assert written is not None  # noqa: S101  whoever made the draft has written it
        number, now_ms = _number_in(written.name), self._runtime.now_ms()
        await self._database.write(
            "archive.record",
            lambda tx: archive.record(
                tx,
                number=number,
                before_ms=until_ms,
                file=written.name,
                sha256=written.sha256,
                counts=written.counts,
                heads=draft.chosen.heads,
                sums=draft.sums,
                action_id=action_id,
                at_ms=now_ms,
            ),
        )
        return Archive(number, until_ms, written.name, written.sha256, draft.chosen.heads)

    async def _remove(self, recorded: Archive, action_id: int) -> dict[str, Any]:
        """What the tables still have of a recorded archive; what they say otherwise by now stays and is told."""
        lines = archive_file.lines_of(self._folder / recorded.file, recorded.sha256)
        counts = {"order": 0, "attempt": 0, "event": 0, "batch": 0}
        stays = 0
        for kind, run in groupby(lines, archive_file.kind_of):
            for page in facts.pages((line[kind] for line in run), _PAGE):
                counts[kind] = counts.get(kind, 0) + len(page)
                if kind in removal.KINDS:
                    stays += await self._step("archive.remove", partial(removal.remove, kind=kind, archive=recorded.number, lines=page))
        while await self._step("archive.sweep", archive.sweep):
            pass
        kept = await self._database.read(lambda tx: archive.kept(tx, recorded.number))
        now_ms = self._runtime.now_ms()
        await self._database.write("archive.end", lambda tx: archive.end(tx, recorded, kept, action_id=action_id, at_ms=now_ms))
        return {
            "archive": recorded.number,
            "file": str(self._folder / recorded.file),
            "before_at_ms": recorded.before_ms,
            "orders": counts["order"],
            "attempts": counts["attempt"],
            "events": counts["event"],
            "batches": counts["batch"],
            "changed_meanwhile": stays,
        }

    async def _step(self, label: str, job: Callable[[Tx], int]) -> int:
        """One of many transactions in a row, which keep nobody waiting."""
        done = await self._database.write(label, job)
        if self._database.dialect == "sqlite":
            await self._runtime.sleep(_TURN_S)
        return done


def _lines(tx: Tx, head: Mapping[str, Any], draft: _Draft) -> Iterator[Line]:
    """The whole file but its end. Raises Refused where a chain is broken: no archive hides that."""
    yield {"archive": dict(head)}
    for page in facts.pages(draft.chosen.orders):
        yield from archive_lines.of_orders(tx, page)
    for page in facts.pages(draft.chosen.attempts):
        yield from archive_lines.of_attempts(tx, page)
    for page in facts.pages(draft.chosen.events):
        yield from archive_lines.of_events(tx, page)
    for committer, end in draft.chosen.heads.items():
        yield from _batches(tx, committer, draft.chosen.after.get(committer, facts.FIRST), end, draft.sums)


def _batches(tx: Tx, committer: str, begin: Head, end: Head, sums: Totals) -> Iterator[Line]:
    report, head = Report(), begin
    for link in facts.links(tx, committer, begin.number):
        head = rules.check_link(report, head, link)
        if report.findings:
            raise Refused(Problem.INVALID_ARGUMENT, f"nothing is archived from books that are not right: {report.findings[0].text}")
        for line in link.postings:
            key = line["account"], line["coin_id"]
            sums[key] = sums.get(key, 0) + line["amount"]
        yield archive_lines.of_batch(link)
        if head.number == end.number:
            return
    raise Refused(Problem.INVALID_ARGUMENT, f"batch {end.number} of {committer} is not there")


def _number_in(name: str) -> int:
    return int(name.split("-")[1])


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """What goes wrong with files, in a sentence."""
    try:
        yield
    except BlockingIOError as error:
        raise Refused(Problem.SERVICE_ERROR, f"another archive command is at work in {folder}") from error
    except OSError as error:
        raise Refused(Problem.SERVICE_ERROR, f"nothing was removed; {folder} cannot be written: {error.strerror}") from error
    except ArchiveDamaged as error:
        raise Refused(Problem.SERVICE_ERROR, f"nothing more is removed: {error}") from error
    except InvariantBroken as error:
        raise Refused(Problem.SERVICE_ERROR, f"nothing more is removed: {error}") from error
    except Conflict as error:
        raise Refused(Problem.SERVICE_ERROR, "another archive was recorded meanwhile; try again") from error
