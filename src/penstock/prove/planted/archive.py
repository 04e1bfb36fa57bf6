"""Bugs of archives. No history is months long: each names the test that sees it."""

from __future__ import annotations

from typing import Final

from penstock.prove.planted.bug import Bug
from penstock.prove.planted.patch import Edit
from penstock.prove.planted.rooms import without

_TESTS: Final = "tests/integration/test_archive.py::"

ARCHIVE: Final = (
    Bug(
        name="archived-unlike-the-file",
        room="archive",
        history="What had changed since the file was written was removed all the same: an event that was sent again was lost.",
        edits=(Edit("penstock.orders.removal:_events", ' and same(line, have[line["id"]])', ""),),
        test=f"{_TESTS}test_an_event_that_is_sent_again_while_it_is_removed_stays_for_the_next_archive[sqlite]",
    ),
    Bug(
        name="archive-left-half-removed",
        room="archive",
        history="A run that was killed was never ended: rows stayed in the tables and in the file.",
        edits=(Edit("penstock.orders.archiver:Archiver.run", "for recorded in unfinished", "for recorded in unfinished[:0]"),),
        test=f"{_TESTS}test_an_event_that_is_sent_again_while_it_is_removed_stays_for_the_next_archive[sqlite]",
    ),
    Bug(
        name="archived-money-counted-twice",
        room="archive",
        history="What an archive holds counted with its sums and with the rows of it that were still in the tables.",
        edits=(Edit("penstock.ledger.book:totals", "AND NOT EXISTS", "AND 1 = 1 OR NOT EXISTS"),),
        test=f"{_TESTS}test_after_an_archive_everything_is_answered_as_before[sqlite]",
    ),
    Bug(
        name="chain-archived-to-its-end",
        room="archive",
        history="The last batch of a chain was archived, and the next one began the chain anew.",
        edits=(Edit("penstock.orders.retention:_cuts", '(last["number"] if last else 1) - 1', '(last["number"] if last else 1)'),),
        test=f"{_TESTS}test_an_order_that_waited_goes_with_a_later_archive_and_the_chains_go_on[sqlite]",
    ),
    Bug(
        name="archived-before-the-treasury-looked",
        room="archive",
        history="What left since the last look at the treasury was archived, and the next look took it for somebody else's.",
        edits=(Edit("penstock.orders.retention:_unseen", 'return attempt["block"] is not None and', "return False and"),),
        test=f"{_TESTS}test_nothing_goes_that_is_young_or_that_nobody_has_looked_at[sqlite]",
    ),
    Bug(
        name="archived-attempts-adopted",
        room="archive",
        history="A start that read the signer's journal from its beginning took archived payments for some that nobody had asked for.",
        edits=(Edit("penstock.orders.adopt:compare", "if intent.attempt_id in archived:", "if intent.attempt_id in ():"),),
        test=f"{_TESTS}test_the_signers_journal_is_not_astonished_by_what_is_archived[sqlite]",
    ),
    Bug(
        name="archive-believed-unread",
        room="archive",
        history="A file was taken for the one that was recorded because its name was right.",
        edits=(Edit("penstock.ledger.archive_file:lines_of", "if digest(path) != sha256:", "if not path.exists():"),),
        test=f"{_TESTS}test_an_archive_that_was_edited_is_found[sqlite-an amount]",
    ),
    Bug(
        name="books-open-to-delete",
        room="archive",
        history="With the first archive recorded, every entry of its committer could be deleted, archived or not.",
        edits=(without("archive_head.number >= batch.number", "archive_head.number >= 0"),),
        test=f"{_TESTS}test_only_what_a_recorded_archive_has_can_be_deleted[sqlite]",
    ),
)
