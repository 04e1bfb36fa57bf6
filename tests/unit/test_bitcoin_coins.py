"""Which coins are spent, what is paid for it, and that any two versions conflict."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from penstock.rails.base import LaneView, NotEnough, Unpayable
from penstock.rails.bitcoin import codec, coins
from tests.fixtures.bitcoin_bench import BTC, FEES, KEY, RECIPIENTS, SENDER, coin, network, payment, version_of

NET = network()


def lane(*units):
    return LaneView("BTC", SENDER, 4, tuple(coin(place, held) for place, held in enumerate(units, start=1)))


def bound(payments, *units, fees=FEES, fee_max=500_000):
    return coins.bind(payments, BTC, lane(*units), fees, attempt_id=9, network=NET, fee_max=fee_max)


def rate_of(intent):
    """Satoshi for 1,000 virtual bytes of the bytes themselves."""
    raw, stripped = codec.sign(intent, KEY).raw, codec.build(intent).serialize()
    return intent.terms["fee"] * 1000 / ((3 * len(stripped) + len(raw)) / 4)


# Binding


def test_one_payment_takes_the_smallest_coin_that_covers_it_and_its_fee_cap():
    intent = bound([payment(50_000)], 10**8, 120_000, 200_000)
    assert [resource.units for resource in intent.resources] == [120_000]
    assert (intent.slot, intent.kind, intent.version, intent.contract) == (4, "pay", 1, None)
    assert 10_000 <= rate_of(intent) <= 10_100
    assert intent.terms["fee"] <= FEES.cost
    assert intent.fee_cap >= 10 * intent.terms["fee"]


def test_many_payments_share_one_transaction_and_its_fee_by_weight():
    payments = [payment(20_000, kind, place) for place, kind in enumerate(RECIPIENTS)]
    intent = bound(payments, 10**7)
    assert [(p.order_id, p.units) for p in intent.payments] == [(p.order_id, p.units) for p in payments]
    assert intent.terms["fee"] < 3 * FEES.cost
    whole = codec.weight_of(1, [codec.parse_address(p.recipient, NET.chain_id).weight for p in payments] + [124] * intent.terms["change"])
    assert whole - len(payments) < sum(p.weight for p in intent.payments) <= whole
    by_kind = dict(zip(RECIPIENTS, (p.weight for p in intent.payments), strict=True))
    assert by_kind["p2tr"] - by_kind["p2wpkh"] == 4 * 12


def test_where_no_coin_is_enough_the_largest_go_together_and_the_last_is_no_larger_than_needed():
    intent = bound([payment(250_000)], 100_000, 90_000, 200_000, 300)
    assert [resource.units for resource in intent.resources] == [200_000, 100_000, 90_000]
    intent = bound([payment(180_000)], 60_000, 90_000, 200_000)
    assert [resource.units for resource in intent.resources] == [200_000, 60_000]


def test_what_is_lacking_is_said_and_fewer_payments_may_fit():
    with pytest.raises(NotEnough, match=r"lack 0\.00"):
        bound([payment(50_000)], 60_000)
    with pytest.raises(NotEnough, match="lack"):
        bound([payment(50_000)])
    with pytest.raises(NotEnough, match="lack"):
        bound([payment(50_000), payment(50_000)], 150_000)
    assert bound([payment(50_000)], 150_000).payments[0].units == 50_000


def test_dust_is_never_payable_and_does_not_spoil_a_batch_silently():
    with pytest.raises(Unpayable, match=r"0\.00000545 is dust") as caught:
        bound([payment(545, "p2pkh")], 10**8)
    assert caught.value.for_ever
    with pytest.raises(NotEnough, match="dust"):
        bound([payment(50_000), payment(293)], 10**8)
    assert bound([payment(294)], 10**8).payments[0].units == 294


def test_coins_that_cost_more_than_they_hold_are_left_alone():
    with pytest.raises(NotEnough):
        bound([payment(10_000)], *[20_000] * 10)
    assert [r.units for r in bound([payment(10_000)], *[20_000] * 10, 100_000).resources] == [100_000]


def test_a_large_change_is_cut_into_coins_until_there_are_enough():
    assert bound([payment(50_000)], 10**8).terms["change"] == coins.CUT_MAX
    assert bound([payment(50_000)], 10**8, *[400_000] * 6, 10**7).terms["change"] == 1  # takes a small one
    assert bound([payment(10**7)], 10**8, *[400_000] * 6).terms["change"] == 2
    assert bound([payment(3 * 10**7)], 10**8).terms["change"] == 2  # each as large as what is paid now
    assert bound([payment(50_000)], 200_000).terms["change"] == 1


def test_the_cap_of_one_transaction_is_never_above_the_networks():
    payments = [payment(50_000, "p2tr", place) for place in range(60)]
    assert bound(payments, 10**8).fee_cap == 500_000
    with pytest.raises(NotEnough, match=r"its cap is 0\.0001"):
        bound(payments, 10**8, fee_max=10_000)
    with pytest.raises(Unpayable, match=r"its cap is 0\.00001"):
        bound([payment(50_000)], 10**8, fee_max=1_000)


@given(
    st.lists(st.integers(1_000, 10**9), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(600, 10**8), st.sampled_from(sorted(RECIPIENTS))), min_size=1, max_size=6),
    st.integers(1_000, 30_000),
)
def test_whatever_is_bound_can_be_signed_and_bumped_to_its_cap(held, wanted, rate):
    """C6: every pair of versions spends the same coins; a chain of bumps ends at the cap and never below dust."""
    fees = dataclasses.replace(FEES, terms=FEES.terms | {"fee_rate": rate})
    payments = [payment(units, kind, place) for place, (units, kind) in enumerate(wanted)]
    try:
        intent = bound(payments, *held, fees=fees)
    except NotEnough:
        return
    versions = 1
    while intent is not None:
        signed = codec.sign(intent, KEY)
        assert codec.broken_rules(intent, signed) == []
        last, versions = intent, versions + 1
        intent = coins.bump(intent, None, version=versions, cancel=False)
        assert intent is None or intent.resources == last.resources
    assert last.fee_cap - last.terms["fee"] < codec.vsize_of(codec.weight_of(len(last.resources), [172] * 14))


# Bumping


def test_a_bump_pays_a_quarter_more_from_the_change_of_the_same_coins():
    intent = bound([payment(50_000)], 10**7)
    bumped = coins.bump(intent, None, version=2, cancel=False)
    assert bumped.terms["fee"] == -(-intent.terms["fee"] * 5 // 4)
    assert structs.replace(bumped, version=1, terms=intent.terms) == intent
    first, second = (codec.decode(codec.sign(it, KEY).raw) for it in (intent, bumped))
    assert first.outpoints() == second.outpoints()
    assert first.outputs()[0] == second.outputs()[0]
    assert rate_of(bumped) > rate_of(intent)


def test_a_bump_goes_to_the_market_where_that_is_more_and_pays_at_least_the_relay_step():
    intent = bound([payment(50_000)], 10**7)
    dear = dataclasses.replace(FEES, terms=FEES.terms | {"fee_rate": 50_000})
    assert 49_000 < rate_of(coins.bump(intent, dear, version=2, cancel=False)) < 51_000
    cheap = bound([payment(50_000)], 10**7, fees=dataclasses.replace(FEES, terms=FEES.terms | {"fee_rate": 1_000}))
    assert coins.bump(cheap, None, version=2, cancel=False).terms["fee"] == 2 * cheap.terms["fee"]


def test_twenty_bumps_all_spend_the_anchor_and_the_last_stands_at_the_cap():
    dear = dataclasses.replace(FEES, terms=FEES.terms | {"fee_rate": 10**6})
    intent = bound([payment(50_000)], 10**7)
    chain = [intent]
    while len(chain) < 20 and (following := coins.bump(chain[-1], None, version=len(chain) + 1, cancel=False)) is not None:
        chain.append(following)
    assert {version_of(it).raw.hex()[10:76] for it in chain} == {version_of(intent).raw.hex()[10:76]}
    assert [it.terms["fee"] for it in chain] == sorted({it.terms["fee"] for it in chain})
    assert chain[-1].terms["fee"] == intent.fee_cap
    assert coins.bump(chain[-1], dear, version=21, cancel=False) is None


def test_a_cancel_outbids_its_payment_and_returns_everything():
    intent = bound([payment(50_000), payment(60_000, "p2tr", 2)], 10**7)
    cancel = coins.bump(intent, None, version=2, cancel=True)
    assert (cancel.kind, cancel.payments, cancel.resources) == ("cancel", intent.payments, intent.resources)
    assert cancel.terms["fee"] > intent.terms["fee"]
    assert rate_of(cancel) > rate_of(intent)
    assert sum(units for _, units in codec.decode(codec.sign(cancel, KEY).raw).outputs()) == 10**7 - cancel.terms["fee"]
