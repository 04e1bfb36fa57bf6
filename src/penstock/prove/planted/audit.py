"""Bugs of the audit. Simulations read every pass in their own process: each names the test that sees it."""

from __future__ import annotations

from typing import Final

from penstock.prove.planted.bug import Bug
from penstock.prove.planted.patch import Edit

_TESTS: Final = "tests/integration/test_audit_beside.py::"

AUDIT: Final = (
    Bug(
        name="audit-sound-without-having-looked",
        room="audit",
        history="The process that reads beside said that all was well and had read nothing, and the pass was noted as one over everything.",
        edits=(Edit("penstock.orders.auditor:Auditor._judged", "(report.whole and missed)", "False"),),
        test=f"{_TESTS}test_a_process_that_says_sound_without_having_looked_is_not_believed[sqlite-True]",
    ),
    Bug(
        name="audit-of-other-books",
        room="audit",
        history="The process that reads beside was led to a standby that had gone its own way, and what it read there became the checkpoint here.",
        edits=(Edit("penstock.orders.auditor:Auditor._store", "if not facts.are_batches(tx, checkpoint.moved):", "if False:"),),
        test=f"{_TESTS}test_a_process_that_has_read_other_books_is_not_believed[sqlite]",
    ),
    Bug(
        name="audit-silent-is-sound",
        room="audit",
        history="A process that died in the middle of a pass was taken for one that had found nothing.",
        edits=(Edit("penstock.orders.auditor:Auditor._slice", 'log.warning("audit.beside.failed", detail=str(error))', "return Report()"),),
        test=f"{_TESTS}test_a_process_that_is_killed_in_a_pass_is_not_missed[sqlite-asyncio]",
    ),
    Bug(
        name="audit-blind-for-new-batches",
        room="audit",
        history="A pass read no new batch, compared what it had with what it had, and said that all was well.",
        edits=(Edit("penstock.ledger.audit:look_again", "in reading.links(tx, entries_max):", "in ():"),),
        test="tests/integration/test_auditor.py::test_a_pass_goes_on_where_the_one_before_ended[sqlite]",
    ),
)
