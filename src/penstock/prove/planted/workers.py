"""Planted bugs of several hands: hot addresses of one network, workers beside the one that has the seat, the index of the signer."""

from __future__ import annotations

from typing import Final

from penstock.prove.planted.bug import Bug
from penstock.prove.planted.patch import Edit

_STUCK: Final = (
    "tests/conformance/test_hot_addresses.py::test_a_stuck_transaction_holds_what_is_behind_it_alone_and_later_orders_go_elsewhere"
)
_INDEX: Final = "tests/unit/test_signer_index.py::"

WORKERS: Final = (
    Bug(
        name="one-address-compared-with-the-books-of-all",
        room="ledger",
        history="What one hot address held was compared with what all of them had paid: each payment of another looked like money that came.",
        edits=(
            Edit(
                "penstock.ledger.facts:moved_by_lane",
                'lane_of.get((row["ref_kind"], row["ref_id"]), lanes[0]["id"]) == lane_id',
                'lane_of.get((row["ref_kind"], row["ref_id"]), lanes[0]["id"]) > 0',
            ),
        ),
        test=_STUCK,
    ),
    Bug(
        name="orders-behind-a-stuck-transaction",
        room="orders",
        history="Orders were shared out by number alone: each third one went behind the transaction that was stuck.",
        edits=(
            Edit("penstock.orders.spread:tills", "oldest is not None and oldest <= stuck_since_ms", "False"),
            Edit("penstock.orders.spread:tills", "live = attempts.live_count(tx, lane.id)", "live = 0"),
        ),
        test=_STUCK,
    ),
    Bug(
        name="our-own-address-of-another-lane-paid",
        room="signer",
        history="Only the address that pays was refused as a recipient, not the other hot addresses: coins went round inside the house as payouts.",
        edits=(Edit("penstock.signer.local:LocalSigner._check_network", "*self._senders[intent.chain],", "intent.sender,"),),
        test="tests/unit/test_signer.py::test_every_hot_address_signs_and_none_is_paid",
    ),
    Bug(
        name="index-believed-without-its-journal",
        room="signer",
        history="What the index said it had read was believed without a look at the journal: one that was put back beside it was not read.",
        edits=(Edit("penstock.signer.index:Index._disagreement", "if self.place == START:", "if self.place.number >= 0:"),),
        test=f"{_INDEX}test_another_journal_of_the_same_length_decides_about_what_is_signed",
    ),
    Bug(
        name="index-behind-the-journal-believed",
        room="signer",
        history="After a write of the index that failed the signer went on with what it had: the orders of that batch could be signed again.",
        edits=(
            Edit(
                "penstock.signer.local:LocalSigner._recalled", "if self._index.place != self._journal.end:", "if self._journal.end is None:"
            ),
        ),
        test=f"{_INDEX}test_a_disk_without_room_for_the_index_signs_nothing_more_and_loses_nothing",
    ),
    Bug(
        name="index-with-a-hole-believed",
        room="signer",
        history="An index out of which a name was lost was never compared with the journal again: the order of that name could be signed again.",
        edits=(Edit("penstock.signer.index:_has", "told.names)", "told.names[:0])"),),
        test=f"{_INDEX}test_an_index_with_a_hole_is_found_by_comparing_it_with_the_journal[DELETE FROM holder WHERE name = 'key 1/order-7']",
    ),
    Bug(
        name="what-a-helper-sends-taken-over",
        room="webhooks",
        history="Whoever took the seat took over what workers beside it were sending: every event under way there was sent twice.",
        edits=(Edit("penstock.webhooks.outbox:Outbox.take_over", "SUBSTR(lease, 1, 1) = :seated", "lease <> '' AND :seated <> ''"),),
        test="tests/integration/test_webhooks.py::test_whoever_takes_the_seat_sends_again_what_its_predecessor_was_sending_and_nobody_else[sqlite-False-0]",
    ),
)
