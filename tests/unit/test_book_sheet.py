"""A sheet of balances: an entry is posted whole, or the sheet is as it was. And the link that a batch of entries becomes."""

import pytest

from penstock.core.ledger import FUNDING, Entry, Posting
from penstock.ledger.book import GENESIS, Balance, Overdraft, Sheet, Side, batch_hash

C = "coin c"


def sheet():
    return Sheet({("m:1", C): Balance(1, 0, Side(10), Side(3)), ("m:2", C): Balance(2, 0, Side(10), Side(0))})


def entry(*lines):
    postings = [Posting(account, C, units) for account, units in lines]
    return Entry("order", "5", "reserve", (*postings, Posting(FUNDING, C, -sum(units for _, units in lines))))


def amounts(found):
    return [(balance.available.now, balance.reserved.now, balance.touched) for balance in found.balances.values()]


def test_a_balance_may_be_spent_to_the_last_unit():
    found = sheet()
    found.post(entry(("m:1:available", -10), ("m:1:reserved", 10)))
    assert amounts(found) == [(0, 13, True), (10, 0, False)]
    assert len(found.entries) == 1


def test_an_entry_whose_last_line_overdraws_leaves_nothing_of_its_first_ones():
    found = sheet()
    with pytest.raises(Overdraft) as short:
        found.post(entry(("m:1:available", -7), ("m:1:reserved", 7), ("m:2:available", -12)))
    assert (short.value.holder, short.value.available, short.value.missing) == ("m:2", 10, 2)
    assert amounts(found) == [(10, 3, False), (10, 0, False)]
    assert found.entries == []


def test_one_unit_too_much_is_an_overdraft():
    found = sheet()
    with pytest.raises(Overdraft) as short:
        found.post(entry(("m:1:available", -11), ("m:1:reserved", 11)))
    assert (short.value.available, short.value.missing) == (10, 1)


def test_what_was_read_and_the_least_on_the_way_stay_known():
    found = sheet()
    for units in (-7, 4, -2, 9):
        found.post(entry(("m:1:available", units)))
    side = found.balances["m:1", C].available
    assert (side.read, side.least, side.now) == (10, 3, 14)


def test_the_link_of_a_batch_is_fixed_for_ever():
    """It lies in the chain of batches and is computed again by every later version: of entries that cover rows, and of those of before."""
    columns = {"ref_kind": "credit", "ref_id": "11", "posting_kind": "credit", "chain": None, "block": None, "at_ms": 1_700_000_000_000}
    entries = [{"id": 8, "note": "", "covers": "ab", **columns}, {"id": 7, "note": "Überweisung 5", "covers": "", **columns}]
    postings = [
        {"entry_id": entry_id, "line": line, "account": account, "coin_id": C, "amount": amount}
        for entry_id in (8, 7)
        for line, account, amount in ((1, "m:1:available", 10**30), (0, FUNDING, -(10**30)))
    ]
    link = batch_hash(GENESIS, entries, postings)
    assert link == "4ab8e488176707cbd4026b152927b3f7ea2900ba312c182304fd2812f25e6736"
    assert batch_hash(GENESIS, entries[::-1], postings[::-1]) == link, "rows are hashed in the order of their ids"
    assert batch_hash(link, entries, postings) != link
