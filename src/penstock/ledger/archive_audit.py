"""The audit of the files themselves: every rule that their rows were under in the tables, and that they join what the tables have."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from penstock.db import Tx
from penstock.ledger import archive, archive_file, archive_lines, facts, rules
from penstock.ledger.archive import Archive
from penstock.ledger.archive_file import ArchiveDamaged
from penstock.ledger.facts import FIRST, Head
from penstock.ledger.report import Report
from penstock.ledger.rules import Terms, Totals
from penstock.ledger.signed import Said

_PAGE = 500


@dataclass(slots=True)
class Reading:
    """What was read of all files so far, oldest first."""

    tx: Tx
    report: Report
    terms: Terms
    said: Said | None
    named: Mapping[tuple[str, int], str]
    """Batches that checkpoints name, with the hashes they had then."""
    heads: dict[str, Head] = field(default_factory=dict)
    sums: Totals = field(default_factory=dict)
    lines: int = 0

    def read(self, folder: Path, recorded: Archive) -> None:
        """One file, line by line."""
        readers: dict[str, Callable[[list[Any], int], None]] = {
            "order": self._orders,
            "attempt": self._attempts,
            "batch": self._batches,
        }
        lines = archive_file.lines_of(folder / recorded.file, recorded.sha256)
        for kind, run in groupby(lines, archive_file.kind_of):
            for page in facts.pages((line[kind] for line in run), _PAGE):
                self.lines += len(page)
                if kind in readers:
                    readers[kind](page, recorded.number)
        for committer, head in recorded.heads.items():
            if self.heads.get(committer) != head:
                self.report.add("I15", f"the chain of {committer} in {recorded.file} does not end where archive {recorded.number} does")

    def _orders(self, page: list[Any], number: int) -> None:
        have = {order.id: order.row for order in facts.orders(self.tx, [said["id"] for said in page])}
        for said in page:
            rules.check_order(self.report, archive_lines.order_facts(said), self.terms)
            self._compare("order", said, have[said["id"]], number)

    def _attempts(self, page: list[Any], number: int) -> None:
        have = {attempt.id: attempt.row for attempt in facts.attempts(self.tx, [said["id"] for said in page])}
        for said in page:
            rules.check_attempt(self.report, archive_lines.attempt_facts(said), self.terms)
            self._compare("attempt", said, have[said["id"]], number)
            if self.said is not None:
                self.said.compare_archived(self.report, said["versions"], said["row"]["chain"])

    def _compare(self, what: str, said: Mapping[str, Any], row: Any, number: int) -> None:
        if row is not None and row["archive"] is None:
            return  # it has changed before it was removed, and is all in the tables
        if row is None or row["archive"] != number or not archive_lines.same(said["row"], row):
            self.report.add("I15", f"{what} {said['id']} is another one in the tables than in archive {number}")

    def _batches(self, page: list[Any], number: int) -> None:
        told = {entry["id"]: entry for said in page for entry in said["entries"]}
        for entry in facts.entries_of(self.tx, [said["id"] for said in page]):
            # Those of orders that are still under way, and what a run has not come to yet.
            if not archive_lines.same(told.get(entry["id"]), entry):
                self.report.add("I15", f"entry {entry['id']} is another one in the tables than in archive {number}")
        rows = {said["id"]: said["row"] for said in page}
        for batch in self.tx.all(
            "SELECT * FROM batch WHERE id IN (SELECT k.id FROM {ROWS k(id {INT})})", k=[{"id": row_id} for row_id in rows]
        ):
            if not archive_lines.same(rows[batch["id"]], batch):
                self.report.add(
                    "I15", f"batch {batch['number']} of {batch['committer']} is another one in the tables than in archive {number}"
                )
        for said in page:
            link = archive_lines.link_of(said)
            committer = link.batch["committer"]
            head = self.heads[committer] = rules.check_link(self.report, self.heads.get(committer, FIRST), link)
            if self.named.get((committer, head.number), head.hash) != head.hash:
                self.report.add("I15", f"a checkpoint has seen another batch {head.number} of {committer} than its archive has")
            for line in link.postings:
                key = line["account"], line["coin_id"]
                self.sums[key] = self.sums.get(key, 0) + line["amount"]


def check(tx: Tx, report: Report, folder: Path, terms: Terms, said: Said | None = None) -> None:
    """I1 to I15 over all recorded archives, which are looked for in one folder; a file that is missing or was edited is I15."""
    reading = Reading(tx, report, terms, said, _named(tx))
    for recorded in archive.listed(tx):
        try:
            reading.read(folder, recorded)
        except (ArchiveDamaged, KeyError, TypeError, ValueError) as error:
            report.add("I15", f"archive {recorded.number}: {error}")
            reading.heads |= recorded.heads
    if {key: units for key, units in reading.sums.items() if units} != {key: units for key, units in archive.totals(tx).items() if units}:
        report.add("I15", "the sums of what is archived are not those of the postings in the files")
    report.counts["archived_lines"] = reading.lines
    report.close()


def _named(tx: Tx) -> dict[tuple[str, int], str]:
    named: dict[tuple[str, int], str] = {}
    after = 0
    while page := tx.all("SELECT number, heads FROM audit_checkpoint WHERE number > :after ORDER BY number LIMIT 1000", after=after):
        for row in page:
            with contextlib.suppress(KeyError, TypeError, ValueError):  # chain.check names what cannot be read
                named |= {(name, head[0]): head[1] for name, head in json.loads(row["heads"])["batches"].items()}
        after = page[-1]["number"]
    return named
