"""What is believed of an attempt: the anchor is followed, and only a deep block on enough nodes is proof."""

import dataclasses

import pytest
from msgspec import structs

from penstock.core.event import Absent, FailedOnChain, Final, Included, Pending, Suspicious
from penstock.core.intent import Resource
from penstock.rails.base import NodeUnreachable
from penstock.rails.bitcoin import coins
from tests.fixtures.bitcoin_bench import SENDER, Bench, coin, funding, intent_of, network, payment, version_of
from tests.fixtures.scripted import Error

FIRST = version_of(intent_of())
SECOND = version_of(coins.bump(FIRST.intent, None, version=2, cancel=False))
CANCEL = version_of(coins.bump(SECOND.intent, None, version=3, cancel=True))
STRANGER = version_of(intent_of((payment(1_000),), attempt_id=7))
"""Another transaction that spends the anchor."""


def test_what_no_node_knows_is_absent_and_proves_nothing():
    assert Bench(2).observe(FIRST) == Absent()


def test_what_waits_in_a_pool_is_pending():
    bench = Bench(2)
    bench.nodes[1].add(FIRST.raw)
    seen = bench.observe(FIRST)
    assert (seen, seen.thin) == (Pending(), True)
    bench.nodes[0].add(FIRST.raw)
    assert not bench.observe(FIRST).thin


def test_one_node_of_three_that_stands_still_keeps_no_price_from_being_raised():
    bench = Bench(3)
    bench.add(FIRST.raw)
    bench.observe(FIRST)
    bench.runtime.seconds += 61
    for node in bench.nodes[:2]:
        node.head = 110
    assert bench.observe(FIRST) == Pending(stuck=True)


def test_the_newest_version_is_sent_again_while_an_older_one_waits():
    bench = Bench()
    bench.add(FIRST.raw)
    assert bench.observe(FIRST, SECOND) == Absent()


@pytest.mark.parametrize(("head", "depth"), [(100, 1), (101, 2)])
def test_a_block_counts_from_one_and_is_not_final_before_its_depth(head, depth):
    bench = Bench(2)
    bench.add(FIRST.raw, height=100)
    bench.show(head=head)
    assert bench.observe(FIRST) == Included(FIRST.txid, 100, depth, succeeded=True)


def test_a_version_that_is_deep_enough_is_final_at_the_fee_of_its_bytes():
    bench = Bench(2)
    bench.add(FIRST.raw, height=98)
    assert bench.observe(FIRST, SECOND) == Final(FIRST.txid, 98, 2_000)
    bench = Bench(2)
    bench.add(SECOND.raw, height=98)
    assert bench.observe(FIRST, SECOND) == Final(SECOND.txid, 98, 2_500)


def test_a_large_amount_waits_for_six_blocks():
    bench = Bench(net=network(large_amount="0.0005"))
    bench.add(FIRST.raw, height=98)
    assert bench.observe(FIRST) == Included(FIRST.txid, 98, 3, succeeded=True)
    bench.show(head=103)
    assert bench.observe(FIRST) == Final(FIRST.txid, 98, 2_000)


def test_our_own_cancel_is_a_failure_once_it_is_final():
    bench = Bench(2)
    bench.add(CANCEL.raw, height=100)
    assert bench.observe(FIRST, SECOND, CANCEL) == Included(CANCEL.txid, 100, 1, succeeded=False)
    bench.show(head=104)
    assert bench.observe(FIRST, SECOND, CANCEL) == Included(CANCEL.txid, 100, 5, succeeded=False)
    bench.show(head=105)
    seen = bench.observe(FIRST, SECOND, CANCEL)
    assert (type(seen), seen.txid, seen.fee) == (FailedOnChain, CANCEL.txid, CANCEL.intent.terms["fee"])


def test_how_far_nodes_have_looked_is_said_by_as_many_as_are_needed():
    """One that claims a height, or is late, or alone, decides nothing: what is not seen by then may be in a block all the same."""
    bench = Bench(3)
    bench.nodes[0].head, bench.nodes[1].head, bench.nodes[2].head = 10**6, 90, 100
    assert bench.observe(FIRST).through == 100
    bench.nodes[2].down = "refused"
    assert bench.observe(FIRST).through == 90
    bench.nodes[1].down = "refused"
    assert bench.observe(FIRST).through is None


def test_of_nodes_that_differ_on_the_block_nothing_says_how_far_they_have_looked():
    bench = Bench(2)
    bench.nodes[0].add(FIRST.raw, height=99)
    bench.nodes[1].add(FIRST.raw, height=97)
    seen = bench.observe(FIRST)
    assert (seen.depth, seen.through) == (0, None)


def test_one_node_of_three_that_names_another_block_keeps_nothing_from_being_final():
    """It did, for as long as it liked."""
    bench = Bench(3)
    bench.nodes[0].add(SECOND.raw, height=91)
    for node in bench.nodes[1:]:
        node.add(FIRST.raw, height=95)
    assert bench.observe(FIRST, SECOND) == Final(FIRST.txid, 95, 2_000)


def test_two_nodes_of_four_that_name_another_block_are_as_many_as_the_others():
    bench = Bench(4)
    for node, (raw, place) in zip(bench.nodes, [(FIRST.raw, 91), (FIRST.raw, 91), (SECOND.raw, 95), (SECOND.raw, 95)], strict=True):
        node.add(raw, height=place)
    assert bench.observe(FIRST, SECOND).depth == 0


def test_one_node_of_two_makes_nothing_final():
    bench = Bench(2)
    bench.node.add(FIRST.raw, height=90)
    assert bench.observe(FIRST) == Included(FIRST.txid, 90, 0, succeeded=True)
    bench.nodes[1].down = "refused"
    bench.runtime.seconds += 5
    assert bench.observe(FIRST) == Included(FIRST.txid, 90, 0, succeeded=True)


def test_two_of_three_nodes_are_enough_and_the_second_one_decides_the_depth():
    bench = Bench(3)
    for node in bench.nodes[:2]:
        node.add(FIRST.raw, height=90)
    bench.nodes[1].head = 91
    assert bench.observe(FIRST) == Included(FIRST.txid, 90, 2, succeeded=True)
    bench.nodes[1].head = 92
    assert bench.observe(FIRST) == Final(FIRST.txid, 90, 2_000)


def test_nodes_on_two_branches_make_nothing_final():
    bench = Bench(2)
    bench.add(FIRST.raw, height=90)
    bench.node.fork = 7
    assert bench.observe(FIRST).depth == 0
    bench = Bench(2)
    bench.node.add(FIRST.raw, height=90)
    bench.nodes[1].add(SECOND.raw, height=90)
    assert bench.observe(FIRST, SECOND).depth == 0


def test_an_undone_block_puts_the_payment_back_to_where_it_was():
    bench = Bench()
    bench.add(FIRST.raw, height=99)
    assert bench.observe(FIRST).depth == 2
    bench.node.undo(FIRST.txid)
    assert bench.observe(FIRST) == Pending()
    bench.node.add(FIRST.raw, height=100)
    bench.node.undo(FIRST.txid, keep=False)
    assert bench.observe(FIRST) == Absent()


def test_the_wallet_finds_what_a_node_without_index_cannot():
    bench = Bench()
    bench.holdings()
    bench.node.has_index = False
    bench.add(FIRST.raw, height=98)
    assert bench.observe(FIRST) == Final(FIRST.txid, 98, 2_000)


def test_a_node_without_index_and_wallet_confirms_the_block_that_another_names():
    bench = Bench(2)
    bench.add(FIRST.raw, height=98)
    bench.nodes[1].has_index = bench.nodes[1].has_wallets = False
    assert bench.observe(FIRST) == Final(FIRST.txid, 98, 2_000)
    bench.nodes[1].fork = 3  # and not one that is not in its chain
    assert bench.observe(FIRST).depth == 0


def test_an_anchor_that_a_stranger_spent_in_a_block_is_suspicious_after_a_while():
    bench = Bench(2)
    bench.holdings()
    bench.add(STRANGER.raw, height=98)
    assert bench.observe(FIRST, SECOND) == Absent()
    bench.runtime.seconds += 11
    seen = bench.observe(FIRST, SECOND)
    assert isinstance(seen, Suspicious)
    assert FIRST.intent.resources[0].name in seen.detail


def test_an_anchor_that_a_stranger_spends_in_the_pools_is_suspicious_too():
    bench = Bench(2)
    bench.add(STRANGER.raw)
    assert bench.observe(FIRST) == Absent()
    bench.runtime.seconds += 11
    assert STRANGER.txid in bench.observe(FIRST).detail
    bench.nodes[1].pool.clear()  # one node's word is not enough
    assert bench.observe(FIRST) == Absent()


@pytest.mark.parametrize("block", [None, 99])
def test_any_coin_of_an_attempt_that_a_stranger_spends_is_noticed(block):
    """Without its second coin the transaction is dead, though its anchor lies there unspent."""
    bench = Bench()
    bench.holdings()
    bench.add(version_of(intent_of((payment(1_000),), (FIRST.intent.resources[1],), fee_cap=2_000)).raw, height=block)
    bench.observe(FIRST)
    bench.runtime.seconds += 11
    assert isinstance(bench.observe(FIRST), Suspicious)


def test_a_node_that_could_not_have_found_our_transaction_accuses_nobody():
    bench = Bench()
    bench.holdings()
    bench.add(FIRST.raw, height=98)
    bench.show(has_index=False)
    bench.node.answers["gettransaction"] = Error("Invalid or non-wallet transaction id", -5)
    bench.node.scanning = True
    bench.observe(FIRST)
    bench.runtime.seconds += 60
    assert bench.observe(FIRST) == Absent()
    bench.show(has_wallets=False)
    assert bench.observe(FIRST) == Absent()


def test_below_what_the_pools_take_it_is_stuck_also_when_it_was_thrown_out():
    bench = Bench()
    bench.show(rate_min=0.00011)
    assert bench.observe(FIRST) == Pending(stuck=True)
    bench.show(rate_min=0.00001)
    assert bench.observe(FIRST) == Absent()


def test_a_version_that_blocks_pass_over_is_stuck_and_its_successor_waits_anew():
    bench = Bench()
    bench.add(FIRST.raw)
    assert bench.observe(FIRST) == Pending()
    bench.show(head=110)
    assert bench.observe(FIRST) == Pending()
    bench.runtime.seconds += 61
    assert bench.observe(FIRST) == Pending(stuck=True)
    bench.node.pool.clear()
    bench.add(SECOND.raw)
    assert bench.observe(FIRST, SECOND) == Pending()


def test_attempts_that_are_looked_at_together_share_their_questions():
    import asyncio

    bench = Bench()
    versions = [version_of(intent_of(coins=(coin(number, 100_000),))) for number in range(1, 21)]
    for version in versions[:10]:
        bench.add(version.raw)

    async def all_at_once():
        return await asyncio.gather(*(bench.rail.observe([version]) for version in versions))

    assert asyncio.run(all_at_once()) == [Pending()] * 10 + [Absent()] * 10
    assert bench.node.posts == 2  # who it is, and one batch


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("getblockchaininfo", {"chain": "regtest", "blocks": -5}),
        ("getblockchaininfo", {"chain": "regtest", "blocks": 2**40}),
        ("getmempoolinfo", {"mempoolminfee": "cheap"}),
        ("gettxspendingprevout", Error("Method not found", -32601)),
        ("gettxspendingprevout", []),
        ("gettxspendingprevout", [{"txid": "00" * 32, "vout": 0}]),
        ("gettxout", 5),
        ("gettxout", Error("boom")),
    ],
)
def test_answers_that_cannot_be_are_no_answers(method, answer):
    bench = Bench()
    bench.node.answers[method] = answer
    with pytest.raises(NodeUnreachable):
        bench.observe(FIRST)


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("getrawtransaction", {"txid": "00" * 32, "blockhash": "11" * 32, "confirmations": 5}),
        ("getrawtransaction", {"txid": FIRST.txid, "blockhash": "xyz", "confirmations": 5}),
        ("getblockheader", {"hash": "11" * 32, "height": 98, "confirmations": 9}),
        ("getblockheader", None),
    ],
)
def test_a_block_that_cannot_be_is_no_block(method, answer):
    bench = Bench()
    bench.add(FIRST.raw, height=98)
    bench.node.answers[method] = answer
    with pytest.raises(NodeUnreachable):
        bench.observe(FIRST)


def test_a_fee_above_the_cap_is_for_a_person():
    dear = dataclasses.replace(FIRST, intent=structs.replace(FIRST.intent, fee_cap=1_999))
    bench = Bench()
    bench.add(FIRST.raw, height=98)
    assert isinstance(bench.observe(dear), Suspicious)


def test_an_attempt_on_real_coins_is_followed_from_funding_to_change():
    bench = Bench(2)
    txid, raw = funding(300_000)
    bench.add(raw, height=90)
    bench.holdings()
    version = version_of(intent_of(coins=(Resource(f"{txid}:0", 300_000),)))
    assert bench.submit(version.raw)[0].detail == ""
    assert bench.observe(version) == Pending()
    bench.add(version.raw, height=101)
    bench.show(head=103)
    assert bench.observe(version) == Final(version.txid, 101, 2_000)
    assert bench.holdings().coins == (Resource(f"{version.txid}:1", 248_000),)
    assert version.intent.sender == SENDER
