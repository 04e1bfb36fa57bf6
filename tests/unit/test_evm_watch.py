"""What nodes show of an attempt, and what it proves; each line of the mapping."""

import asyncio
import dataclasses

import pytest

from penstock.core.event import Absent, FailedOnChain, Included, Pending, Suspicious
from penstock.core.event import Final as FinalOnChain
from penstock.core.intent import Payment
from penstock.rails.base import LaneView, NodeUnreachable
from penstock.rails.evm import codec
from tests.fixtures.evm_bench import (
    FEE,
    GWEI,
    NATIVE,
    RECIPIENT,
    SENDER,
    STRANGER,
    USDT,
    Bench,
    attempt,
    estimate_of,
    network,
    receipt,
    transfer_log,
    version_of,
)
from tests.fixtures.scripted import Error

# Observe: one node


@pytest.mark.parametrize("token", [NATIVE, USDT])
def test_a_receipt_in_a_final_block_is_final(token):
    bench, version = Bench(), attempt(token)
    bench.land(version)
    assert bench.observe(version) == FinalOnChain(version.txid, 85, FEE)


def test_a_receipt_in_a_later_block_is_included():
    bench, version = Bench(), attempt()
    bench.land(version, block=91)
    assert bench.observe(version) == Included(version.txid, 91, 10, True)
    bench.land(version, block=100, status="0x0", logs=[])
    assert bench.observe(version) == Included(version.txid, 100, 1, False)


@pytest.mark.parametrize(("block", "final"), [(98, True), (99, False)])
@pytest.mark.parametrize("net", [network(is_test=True), network(has_finality_tag=False)])
def test_depth_stands_in_where_there_is_no_finality(net, block, final):
    bench, version = Bench(net=net), attempt()
    bench.land(version, block=block)
    assert isinstance(bench.observe(version), FinalOnChain if final else Included)


@pytest.mark.parametrize(
    ("answer", "final"),
    [
        (None, False),
        (Error("finalized block not found"), False),
        (Error("Unknown block", -39001), False),
        (Error("invalid argument 0: hex string without 0x prefix", -32602), True),
        (Error("'finalized' tag not supported on pre-merge network"), True),
        ({"number": "0xffff"}, True),
    ],
)
def test_what_a_node_says_of_finality(answer, final):
    bench, version = Bench(), attempt()
    honest = bench.node.eth_getBlockByNumber
    bench.node.answers["eth_getBlockByNumber"] = lambda params: answer if params[0] == "finalized" else honest(*params)
    bench.land(version, block=98)
    assert isinstance(bench.observe(version), FinalOnChain if final else Included)


def test_a_node_that_merely_fails_to_name_its_final_block_is_not_used():
    bench, version = Bench(), attempt()
    honest = bench.node.eth_getBlockByNumber
    bench.node.answers["eth_getBlockByNumber"] = lambda params: (
        Error("rate limited", -32005) if params[0] == "finalized" else honest(*params)
    )
    bench.land(version)
    with pytest.raises(NodeUnreachable, match="no final block"):
        bench.observe(version)


@pytest.mark.parametrize(
    "logs",
    [
        [],
        [transfer_log(), transfer_log()],
        [transfer_log(units=999_999)],
        [transfer_log(contract=STRANGER)],
        [transfer_log(sender=STRANGER)],
        [transfer_log(recipient=STRANGER)],
        [transfer_log() | {"removed": True}],
    ],
)
def test_success_without_exactly_the_one_event_is_for_a_person(logs):
    bench, version = Bench(), attempt()
    bench.land(version, logs=logs)
    assert isinstance(bench.observe(version), Suspicious)
    bench.land(version, logs=logs, block=95)
    assert bench.observe(version) == Included(version.txid, 95, 6, False)


def test_a_fee_taken_besides_the_exact_event_is_success():
    bench, version = Bench(), attempt()
    bench.land(version, logs=[transfer_log(units=1, recipient=STRANGER), transfer_log()])
    assert isinstance(bench.observe(version), FinalOnChain)


def test_a_final_revert_is_failed_on_chain():
    bench, version = Bench(), attempt()
    bench.land(version, status="0x0", logs=[])
    assert bench.observe(version) == FailedOnChain(version.txid, 85, FEE, "the transaction reverted")


def attempt_of(*paid, slot=5):
    payments = [Payment(n, recipient, "", units) for n, (recipient, units) in enumerate(paid, start=1)]
    fees = dataclasses.replace(estimate_of(), together=len(paid))
    rail = Bench(fee_max=10**18).rail
    return version_of(rail.bind(payments, USDT, LaneView("ETH", SENDER, slot), fees, attempt_id=slot))


SEVEN, EIGHT = (RECIPIENT, 7), (STRANGER, 8)


def logs_of(*paid):
    return [transfer_log(units=units, recipient=recipient) for recipient, units in paid]


@pytest.mark.parametrize("logs", [logs_of(SEVEN, EIGHT, SEVEN), logs_of(EIGHT, SEVEN, SEVEN), logs_of((SENDER, 1), SEVEN, SEVEN, EIGHT)])
def test_many_are_paid_when_each_has_its_event_as_often_as_it_is_paid(logs):
    bench, version = Bench(), attempt_of(SEVEN, SEVEN, EIGHT)
    bench.land(version, logs=logs)
    assert bench.observe(version) == FinalOnChain(version.txid, 85, FEE)


@pytest.mark.parametrize(
    "logs",
    [
        [],
        logs_of(SEVEN, EIGHT),
        logs_of(SEVEN, SEVEN),
        logs_of(SEVEN, SEVEN, SEVEN),
        logs_of(SEVEN, SEVEN, SEVEN, EIGHT),
        logs_of(SEVEN, SEVEN, EIGHT, EIGHT),
        logs_of(SEVEN, (STRANGER, 7), (RECIPIENT, 8)),
        logs_of((RECIPIENT, 14), EIGHT),
        [*logs_of(SEVEN, EIGHT), transfer_log(units=7, contract=STRANGER)],
        [*logs_of(SEVEN, EIGHT), transfer_log(units=7, sender=codec.PAY_MANY)],
        [*logs_of(SEVEN, EIGHT), transfer_log(units=7) | {"removed": True}],
    ],
)
def test_many_of_whom_one_has_no_event_or_one_too_many_are_for_a_person(logs):
    bench, version = Bench(), attempt_of(SEVEN, SEVEN, EIGHT)
    bench.land(version, logs=logs)
    assert isinstance(bench.observe(version), Suspicious)


def test_many_that_reverted_were_not_paid_and_an_opening_needs_no_payment():
    bench, version = Bench(), attempt_of(SEVEN, SEVEN, EIGHT)
    bench.land(version, status="0x0", logs=[])
    assert bench.observe(version) == FailedOnChain(version.txid, 85, FEE, "the transaction reverted")
    opening = version_of(bench.rail.open(USDT, LaneView("ETH", SENDER, 6), estimate_of(), attempt_id=10))
    bench.land(opening, logs=[])
    assert bench.observe(opening) == FinalOnChain(opening.txid, 85, FEE)
    bench.land(opening, status="0x0", logs=[])
    assert bench.observe(opening) == FailedOnChain(opening.txid, 85, FEE, "the transaction reverted")


def test_receipts_of_many_come_in_smaller_requests():
    """A receipt of 500 payments is as long as 26 ordinary ones; two of them fit no request of 50."""
    bench = Bench()
    versions = [attempt_of(*[(RECIPIENT, n) for n in range(1, 501)], slot=slot) for slot in range(5, 10)]
    for version in versions:
        bench.land(version, logs=logs_of(*((paid.recipient, paid.units) for paid in version.intent.payments)))

    async def all_at_once():
        return await asyncio.gather(*(bench.rail.observe([version]) for version in versions))

    assert asyncio.run(all_at_once()) == [FinalOnChain(version.txid, 85, FEE) for version in versions]
    # Its chain id; the heads and counts with the first receipt, the other four; the block they are in.
    assert bench.node.posts == 1 + 5 + 1


def test_our_own_cancel_is_failed_on_chain_and_an_older_version_may_win():
    bench, pay = Bench(), attempt()
    cancel = version_of(bench.rail.bump(pay.intent, None, version=2, cancel=True))
    bench.land(cancel)
    assert bench.observe(pay, cancel) == FailedOnChain(cancel.txid, 85, FEE, "our own cancel used the nonce")
    bench.node.receipts.clear()
    bench.land(pay)
    assert bench.observe(pay, cancel) == FinalOnChain(pay.txid, 85, FEE)


def test_the_l1_fee_counts():
    bench, version = Bench(net=network(op_stack=True)), attempt()
    bench.land(version, l1Fee="0x7b")
    assert bench.observe(version) == FinalOnChain(version.txid, 85, FEE + 123)
    bench.land(version, l1Fee=hex(10**15))
    assert isinstance(bench.observe(version), Suspicious)
    bench.node.receipts[version.txid].pop("l1Fee")
    with pytest.raises(NodeUnreachable):
        bench.observe(version)


@pytest.mark.parametrize(
    "change",
    [
        {"transactionHash": "0x" + "11" * 32},
        {"from": STRANGER},
        {"from": None},
        {"gasUsed": hex(60_001)},
        {"gasUsed": "0x" + "f" * 30},
        {"effectiveGasPrice": hex(4 * GWEI + 1)},
        {"effectiveGasPrice": None},
        {"status": "0x2"},
        {"status": None},
        {"blockNumber": "latest"},
        {"blockHash": None},
        {"logs": None},
        {"logs": [1]},
        {"logs": {}},
    ],
)
def test_a_receipt_that_cannot_be_ours_is_no_answer(change):
    bench, version = Bench(), attempt()
    bench.land(version, **change)
    with pytest.raises(NodeUnreachable):
        bench.observe(version)


def test_a_receipt_of_an_abandoned_block_is_asked_for_again():
    bench, version = Bench(), attempt()
    bench.land(version)
    bench.show(fork=1)
    with pytest.raises(NodeUnreachable):
        bench.observe(version)


def test_receipts_of_two_versions_are_a_lie():
    bench, pay = Bench(), attempt()
    cancel = version_of(bench.rail.bump(pay.intent, None, version=2, cancel=True))
    bench.land(pay)
    bench.land(cancel)
    with pytest.raises(NodeUnreachable):
        bench.observe(pay, cancel)


def test_an_unusable_answer_for_one_attempt_spoils_no_other():
    bench, bad, good = Bench(), attempt(slot=4), attempt(slot=5)
    bench.land(bad, status=None)
    bench.land(good)

    async def both():
        return await asyncio.gather(bench.rail.observe([bad]), bench.rail.observe([good]), return_exceptions=True)

    first, second = asyncio.run(both())
    assert isinstance(first, NodeUnreachable)
    assert second == FinalOnChain(good.txid, 85, FEE)
    assert bench.node.posts == 3


def test_nothing_known_is_absent_and_proves_nothing():
    bench = Bench()
    assert bench.observe(attempt()) == Absent()


def test_a_pool_that_holds_only_an_older_version_is_asked_to_take_the_newest():
    bench, old = Bench(), attempt()
    new = version_of(bench.rail.bump(old.intent, None, version=2))
    bench.node.known = {old.txid}
    assert bench.observe(old, new) == Absent()
    bench.node.known = {old.txid, new.txid}
    assert bench.observe(old, new) == Pending()


def test_a_waiting_transaction_below_the_base_fee_is_stuck_but_only_at_the_head_of_the_line():
    bench, version = Bench(), attempt()
    bench.node.known = {version.txid}
    assert bench.observe(version) == Pending(stuck=False)
    bench.show(base_fee=4 * GWEI + 1)
    assert bench.observe(version) == Pending(stuck=True)
    bench.node.used[SENDER] = 4
    assert bench.observe(version) == Pending(stuck=False)


def test_what_the_pools_have_thrown_out_below_the_base_fee_is_stuck_too():
    bench, version = Bench(), attempt()
    bench.show(base_fee=4 * GWEI + 1)
    assert bench.observe(version) == Pending(stuck=True)


def test_one_node_of_three_that_stands_still_keeps_no_price_from_being_raised():
    bench, version = Bench(3), attempt()
    for node in bench.nodes:
        node.known = {version.txid}
    bench.nodes[2].used[SENDER] = 4
    assert bench.observe(version) == Pending()
    bench.runtime.seconds += 70
    for node in bench.nodes[:2]:
        node.head = 110
    assert bench.observe(version) == Pending(stuck=True)


def test_one_node_of_two_that_runs_ahead_raises_no_price():
    bench, version = Bench(2), attempt()
    bench.observe(version)
    bench.runtime.seconds += 70
    bench.nodes[0].head = 10_000
    assert bench.observe(version) == Absent()


def test_what_fewer_nodes_hold_than_must_agree_is_held_thinly():
    bench, version = Bench(2), attempt()
    bench.nodes[0].known = {version.txid}
    assert bench.observe(version).thin
    bench.nodes[1].known = {version.txid}
    assert not bench.observe(version).thin


@pytest.mark.parametrize("known", [True, False])
def test_waiting_long_at_the_head_of_the_line_is_stuck_too(known):
    bench, version = Bench(), attempt()
    bench.node.known = {version.txid} if known else set()
    waiting = Pending() if known else Absent()
    assert bench.observe(version) == waiting
    bench.runtime.seconds += 70
    assert bench.observe(version) == waiting
    bench.show(head=110)
    assert bench.observe(version) == Pending(stuck=True)
    bench.land(version, block=110)
    bench.observe(version)
    bench.node.receipts.clear()
    assert bench.observe(version) == waiting


def test_a_nonce_used_by_a_stranger_is_for_a_person_once_it_is_sure():
    bench, version = Bench(), attempt()
    bench.node.used[SENDER] = 6
    assert bench.observe(version) == Absent()
    bench.runtime.seconds += 11
    seen = bench.observe(version)
    assert isinstance(seen, Suspicious)
    assert "nonce 5" in seen.detail
    bench.land(version)
    assert isinstance(bench.observe(version), FinalOnChain)


def test_a_node_without_old_state_accuses_nobody():
    bench, version = Bench(), attempt()
    bench.node.answers["eth_getTransactionCount"] = lambda params: "0x6" if params[1] == "latest" else Error("missing trie node")
    for _ in range(3):
        assert bench.observe(version) == Absent()
        bench.runtime.seconds += 20


def test_a_count_that_is_not_final_yet_accuses_nobody():
    bench, version = Bench(), attempt()
    bench.node.answers["eth_getTransactionCount"] = lambda params: "0x6" if params[1] == "latest" else "0x5"
    for _ in range(3):
        assert bench.observe(version) == Absent()
        bench.runtime.seconds += 20


# Observe: several nodes


def test_two_nodes_must_agree_before_anything_is_final():
    bench, version = Bench(2), attempt()
    bench.land(version, bench.node)
    assert bench.observe(version) == Included(version.txid, 85, 0, True)
    bench.land(version)
    assert bench.observe(version) == FinalOnChain(version.txid, 85, FEE)
    bench.nodes[1].final = 84
    assert bench.observe(version) == Included(version.txid, 85, 16, True)


def test_one_of_two_nodes_down_delays_finality_and_undoes_nothing():
    bench, version = Bench(2), attempt()
    bench.land(version)
    bench.nodes[1].down = "refused"
    assert bench.observe(version) == Included(version.txid, 85, 0, True)
    bench.node.down = "refused"
    with pytest.raises(NodeUnreachable):
        bench.observe(version)


@pytest.mark.parametrize("liar", [0, 1, 2])
def test_one_liar_of_three_changes_nothing(liar):
    bench, version = Bench(3), attempt()
    bench.land(version)
    for lie in ({}, {version.txid: receipt(version, status="0x0", logs=[])}, {version.txid: receipt(version, gasUsed="0x1")}):
        bench.nodes[liar].receipts = lie
        assert bench.observe(version) == FinalOnChain(version.txid, 85, FEE)
    bench.nodes[liar].receipts = {}
    bench.nodes[liar].used[SENDER] = 99
    bench.runtime.seconds += 60
    assert bench.observe(version) == FinalOnChain(version.txid, 85, FEE)


def test_one_liar_of_two_stops_finality_and_says_nothing_false():
    bench, version = Bench(2), attempt()
    bench.land(version)
    bench.nodes[1].receipts = {version.txid: receipt(version, status="0x0", logs=[])}
    seen = bench.observe(version)
    assert (type(seen), seen.depth) == (Included, 0)


def test_two_against_two_is_nothing_final():
    bench, version = Bench(4), attempt()
    bench.land(version)
    for node in bench.nodes[2:]:
        node.receipts = {version.txid: receipt(version, status="0x0", logs=[])}
    assert bench.observe(version).depth == 0


def test_one_node_alone_cannot_accuse_a_stranger_or_hide_a_receipt():
    bench, version = Bench(2), attempt()
    bench.node.used[SENDER] = 9
    for _ in range(3):
        assert bench.observe(version) == Absent()
        bench.runtime.seconds += 20
    bench.land(version, bench.nodes[1])
    assert isinstance(bench.observe(version), Included)


def test_one_node_alone_cannot_make_us_bid_higher():
    bench, version = Bench(2), attempt()
    bench.show(known={version.txid})
    bench.node.base_fee = 400 * GWEI
    assert bench.observe(version) == Pending(stuck=False)
