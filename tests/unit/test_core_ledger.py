"""Every event of architecture, section 4, as the postings it stands for. Liabilities and equity positive, assets negative."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core import ledger
from penstock.core.errors import InvariantBroken
from penstock.core.ledger import Entry, Posting, sums

C, G = "coin c", "coin g"
V, F, GAS = 1_000, 30, 7


def lines(entry):
    return [(p.account, p.coin_id, p.units) for p in entry.postings]


def key(entry):
    return entry.ref_kind, entry.ref_id, entry.posting_kind


def test_credit():
    entry = ledger.credit("11", "m:1", C, V, "bank transfer 5")
    assert lines(entry) == [("house:funding", C, -V), ("m:1:available", C, V)]
    assert key(entry) == ("credit", "11", "credit")
    assert (entry.chain, entry.block, entry.note) == (None, None, "bank transfer 5")


def test_coins_seen_on_chain():
    entry = ledger.seen_on_chain("0xabc", "t", C, V, chain="ETH", block=100)
    assert lines(entry) == [("treasury:t", C, -V), ("house:funding", C, V)]
    assert key(entry) == ("seen", "ETH:0xabc:t:100", "seen")
    assert (entry.chain, entry.block) == ("ETH", 100)


def test_coins_that_left_the_chain():
    entry = ledger.left_the_chain("0xabc", "t", C, V, chain="ETH", block=100, note="swept by hand")
    assert lines(entry) == [("treasury:t", C, V), ("house:funding", C, -V)]
    assert key(entry) == ("seen", "ETH:0xabc:t:100", "left")
    assert (entry.chain, entry.block, entry.note) == ("ETH", 100, "swept by hand")


def test_reserve():
    entry = ledger.reserve(5, "m:1", C, V)
    assert lines(entry) == [("m:1:available", C, -V), ("m:1:reserved", C, V)]
    assert key(entry) == ("order", "5", "reserve")


def test_internal_has_no_reserve_and_no_fee():
    entry = ledger.internal(5, "m:1", "u:1000001", C, V)
    assert lines(entry) == [("m:1:available", C, -V), ("u:1000001:available", C, V)]
    assert key(entry) == ("order", "5", "internal")


def test_settle_when_the_recipient_pays_the_fee():
    entry = ledger.settle(5, "m:1", "t", C, net=V - F, fee=F)
    assert lines(entry) == [("m:1:reserved", C, -V), ("payout_in_transit:t", C, V - F), ("house:fee_income", C, F)]
    assert key(entry) == ("order", "5", "settle")


def test_settle_when_the_merchant_pays_the_fee():
    entry = ledger.settle(5, "m:1", "t", C, net=V, fee=F)
    assert lines(entry) == [("m:1:reserved", C, -(V + F)), ("payout_in_transit:t", C, V), ("house:fee_income", C, F)]


def test_settle_without_a_fee_has_no_line_for_it():
    assert lines(ledger.settle(5, "m:1", "t", C, net=V, fee=0)) == [("m:1:reserved", C, -V), ("payout_in_transit:t", C, V)]


def test_final():
    entry = ledger.final(9, "t", C, V - F, chain="ETH", block=100)
    assert lines(entry) == [("payout_in_transit:t", C, -(V - F)), ("treasury:t", C, V - F)]
    assert key(entry) == ("attempt", "9", "final")
    assert (entry.chain, entry.block) == ("ETH", 100)


def test_gas_is_paid_in_its_own_coin():
    entry = ledger.gas(9, "native", G, GAS, chain="ETH", block=100)
    assert lines(entry) == [("house:network_cost", G, -GAS), ("treasury:native", G, GAS)]
    assert key(entry) == ("attempt", "9", "gas")
    assert (entry.chain, entry.block) == ("ETH", 100)


def test_release_charges_nothing():
    entry = ledger.release(5, "m:1", C, V + F)
    assert lines(entry) == [("m:1:reserved", C, -(V + F)), ("m:1:available", C, V + F)]
    assert key(entry) == ("order", "5", "release")


amounts = st.integers(0, 10**77)


@given(amounts, amounts)
def test_every_event_sums_to_zero_in_the_one_coin_it_touches(net, fee):
    entries = [
        ledger.credit("11", "m:1", C, net, ""),
        ledger.seen_on_chain("0xabc", "t", C, net, chain="ETH", block=1),
        ledger.reserve(5, "m:1", C, net),
        ledger.internal(5, "m:1", "u:1000001", C, net),
        ledger.settle(5, "m:1", "t", C, net=net, fee=fee),
        ledger.final(9, "t", C, net, chain="ETH", block=1),
        ledger.gas(9, "native", C, fee, chain="ETH", block=1),
        ledger.release(5, "m:1", C, net),
    ]
    for entry in entries:
        assert sum(p.units for p in entry.postings) == 0
        assert {p.coin_id for p in entry.postings} <= {C}
        assert all(p.units for p in entry.postings)
    assert len({key(entry) for entry in entries}) == len(entries)


@given(amounts, amounts)
def test_the_life_of_a_payout_leaves_nothing_behind_but_the_fee_and_the_gas(net, fee):
    life = [
        ledger.credit("11", "m:1", C, net + fee, ""),
        ledger.reserve(5, "m:1", C, net + fee),
        ledger.settle(5, "m:1", "t", C, net=net, fee=fee),
        ledger.final(9, "t", C, net, chain="ETH", block=1),
        ledger.gas(9, "native", G, GAS, chain="ETH", block=1),
    ]
    left = {account: units for account, units in sums((p.account, p.coin_id, p.units) for e in life for p in e.postings).items() if units}
    expected = {
        ("house:funding", C): -(net + fee),
        ("house:fee_income", C): fee,
        ("treasury:t", C): net,
        ("house:network_cost", G): -GAS,
        ("treasury:native", G): GAS,
    }
    assert left == {account: units for account, units in expected.items() if units}


@pytest.mark.parametrize("postings", [[("a", C, 1)], [("a", C, 1), ("b", C, -2)], [("a", C, 1), ("b", G, -1)]])
def test_an_entry_that_does_not_sum_to_zero_in_each_coin_cannot_exist(postings):
    with pytest.raises(InvariantBroken, match="does not sum to zero"):
        Entry("order", "1", "settle", tuple(Posting(*p) for p in postings))


def test_merchants_and_accounts_have_a_balance_row_and_the_house_has_none():
    assert all(ledger.is_stored(account) for account in ("m:1:available", "m:0:reserved", "u:1000001:available"))
    house = (ledger.FUNDING, ledger.FEE_INCOME, ledger.NETWORK_COST, ledger.treasury("m:1"), ledger.in_transit("u:1"))
    assert not any(ledger.is_stored(account) for account in house)
