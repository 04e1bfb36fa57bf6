"""Destinations, fees, submission, heights and holdings of Bitcoin, on nodes made of a few variables."""

import asyncio
import dataclasses

import pytest

from penstock.core.intent import Resource
from penstock.rails.base import (
    Batches,
    Destination,
    InvalidDestination,
    NodeUnreachable,
    OwnAddress,
    Prepares,
    TooLittle,
    Unpayable,
    Verdict,
)
from penstock.rails.bitcoin import codec
from penstock.rails.bitcoin.talk import BadAnswer, height, rate
from tests.fixtures.bitcoin_bench import (
    BTC,
    FEES,
    RECIPIENTS,
    SENDER,
    Bench,
    coin,
    funding,
    intent_of,
    network,
    payment,
    version_of,
)
from tests.fixtures.scripted import Error

# Destinations and batches


def test_a_destination_is_taken_in_small_letters_and_without_memo():
    destination = Bench().rail.parse_destination(RECIPIENTS["p2tr"].upper(), "12345")
    assert (destination.address, destination.memo, destination.units) == (RECIPIENTS["p2tr"], "", None)


@pytest.mark.parametrize("text", [SENDER, SENDER.upper()])
def test_our_own_address_is_refused_as_such(text):
    with pytest.raises(OwnAddress):
        Bench().rail.parse_destination(text, "")


def test_an_address_of_another_network_is_refused():
    with pytest.raises(InvalidDestination, match="another Bitcoin network"):
        Bench().rail.parse_destination("bc1qvyq0cc6rahyvsazfdje0twl7ez82ndmuac2lhv", "")


def test_the_operator_says_how_many_go_together_and_how_long_they_wait():
    rail = Bench(net=network(batch_max=7, batch_window_ms=1_000)).rail
    assert isinstance(rail, Batches)
    assert isinstance(rail, Prepares)
    (fees,) = asyncio.run(rail.prepare([payment()], BTC, SENDER, FEES))
    assert (fees.together, rail.window_ms) == (7, 1_000)


def test_dust_is_refused_while_the_merchant_waits():
    rail = Bench().rail
    for units, kind in ((294, "p2wpkh"), (546, "p2pkh")):
        destination = Destination(RECIPIENTS[kind])
        asyncio.run(rail.look_up(destination, BTC, units))
        with pytest.raises(TooLittle, match=rf"is dust, .* 0\.00000{units} is the least"):
            asyncio.run(rail.look_up(destination, BTC, units - 1))


def test_dust_is_named_before_anything_is_bound():
    rail = Bench().rail
    said = asyncio.run(rail.prepare([payment(293), payment(294), payment(545, "p2pkh")], BTC, SENDER, FEES))
    assert said[1] == dataclasses.replace(FEES, together=100)
    assert [problem.for_ever for problem in said[::2]] == [True, True]
    assert all(isinstance(problem, Unpayable) for problem in said[::2])


def test_another_token_than_the_coin_itself_is_not_bound():
    with pytest.raises(ValueError, match="one coin"):
        Bench().rail.bind([payment()], dataclasses.replace(BTC, contract="x"), None, FEES, attempt_id=1)


# Fees


def test_the_quote_is_one_payment_at_the_nodes_rate():
    fees = Bench().run(Bench().rail.estimate(BTC))
    assert (fees.cost, fees.terms["fee_rate"]) == (1_530, 10_000)
    assert fees.fee_cap == 15_300


def test_the_cap_stays_within_what_the_operator_allows():
    assert Bench(fee_max=12_000).run(Bench(fee_max=12_000).rail.estimate(BTC)).fee_cap == 12_000
    bench = Bench()
    bench.node.rate = 0.00001
    assert bench.run(bench.rail.estimate(BTC)).fee_cap == 10_000  # a fiftieth of 0.005


def test_a_node_without_estimate_gives_the_fallback_and_a_full_pool_more():
    bench = Bench()
    bench.node.rate = None
    assert bench.run(bench.rail.estimate(BTC)).terms["fee_rate"] == 10_000
    bench = Bench()
    bench.node.rate, bench.node.rate_min = 0.00001, 0.00042
    assert bench.run(bench.rail.estimate(BTC)).terms["fee_rate"] == 42_000


@pytest.mark.parametrize("said", [0.011, -0.1, 1e30, "0.0001", True, [1]])
def test_a_rate_beyond_belief_is_not_believed(said):
    bench = Bench(2)
    bench.node.rate = said
    assert bench.run(bench.rail.estimate(BTC)).terms["fee_rate"] == 10_000  # the second node's
    bench.runtime.seconds += 60
    bench.show(rate=said)
    with pytest.raises(NodeUnreachable):
        bench.run(bench.rail.estimate(BTC))


def test_rates_are_exact_to_the_last_satoshi():
    assert [rate(value) for value in (0, 1e-8, 0.00012345, 0.1 + 0.2, 20_999_999.99999999)] == [
        0,
        1,
        12_345,
        30_000_000,
        2_099_999_999_999_999,
    ]
    for wrong in (21_000_001, float("nan"), float("inf"), None):
        with pytest.raises(BadAnswer):
            rate(wrong)
    for wrong in (-1, 1.0, True, 2**31):
        with pytest.raises(BadAnswer):
            height(wrong)


# Who the nodes are


def test_a_node_of_another_network_or_genesis_is_never_used():
    bench = Bench(2)
    bench.node.name = "main"
    bench.node.head = 999
    assert bench.run(bench.rail.heads()).head == 100
    assert bench.rail.faults() == ["node 1 of 2: it serves the network 'main', and 'regtest' is configured"]
    bench = Bench()
    bench.node.genesis = "00" * 32
    with pytest.raises(NodeUnreachable, match="its first block is 0000"):
        bench.run(bench.rail.heads())


def test_the_head_is_what_enough_nodes_have_and_finality_its_depth():
    bench = Bench(3)
    for node, head in zip(bench.nodes, (120, 103, 101), strict=True):
        node.head = head
    heads = bench.run(bench.rail.heads())
    assert (heads.head, heads.final) == (103, 101)


def test_a_node_that_still_downloads_says_nothing_of_a_real_network():
    still = {"chain": "regtest", "blocks": 5, "initialblockdownload": True}
    bench = Bench(2, net=network(is_test=False))
    bench.node.answers["getblockchaininfo"] = still
    assert bench.run(bench.rail.heads()).head == 100
    bench = Bench()
    bench.node.answers["getblockchaininfo"] = still
    assert bench.run(bench.rail.heads()).head == 5  # regtest says so for ever


# Submitting


def test_bytes_go_to_the_first_node_and_again_to_every_one():
    bench, version = Bench(2), version_of(intent_of())
    assert bench.submit(version.raw)[0].verdict is Verdict.ACCEPTED
    assert [len(node.sent) for node in bench.nodes] == [1, 0]
    bench.submit(version.raw)
    assert [node.sent for node in bench.nodes] == [[version.raw] * 2, [version.raw]]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-27, "Transaction outputs already in utxo set"),
        (-27, "Transaction already in block chain"),
        (-26, "txn-already-in-mempool"),
        (-25, "txn-already-known"),
        (-26, "txn-same-nonwitness-data-in-mempool"),
    ],
)
def test_a_node_that_has_them_already_has_accepted_them(code, words):
    bench = Bench()
    bench.node.answers["sendrawtransaction"] = Error(words, code)
    assert bench.submit(version_of(intent_of()).raw)[0].verdict is Verdict.ACCEPTED


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-25, "bad-txns-inputs-missingorspent"),
        (-25, "missing-inputs"),
        (-26, "txn-mempool-conflict"),
        (-26, "insufficient fee, rejecting replacement"),
        (-26, "min relay fee not met, 1 < 2"),
        (-26, "mandatory-script-verify-flag-failed"),
        (-22, "TX decode failed"),
        (-28, "Loading block index..."),
        (-32601, "Method not found"),
    ],
)
def test_no_error_of_a_node_is_proof_that_bytes_cannot_land(code, words):
    bench = Bench()
    bench.node.answers["sendrawtransaction"] = Error(words, code)
    said = bench.submit(version_of(intent_of()).raw)[0]
    assert said.verdict is Verdict.UNKNOWN
    assert words[:12] in said.detail


def test_silence_and_another_id_are_unknown_too():
    bench, raw = Bench(), version_of(intent_of()).raw
    bench.node.answers["sendrawtransaction"] = "11" * 32
    assert bench.submit(raw)[0].verdict is Verdict.UNKNOWN
    bench.node.down = "timed out"
    assert bench.submit(raw)[0].verdict is Verdict.UNKNOWN


def test_only_bytes_that_are_no_transaction_of_ours_are_refused():
    bench = Bench()
    said = bench.submit(b"\x01" * 50, codec.build(intent_of()).serialize())
    assert [verdict.verdict for verdict in said] == [Verdict.REFUSED] * 2
    assert bench.node.sent == []


# Holdings


def test_a_hot_address_holds_the_final_coins_and_nothing_newer():
    bench = Bench()
    old, raw = funding(70_000_000)
    bench.add(raw, height=98)
    bench.add(funding(5_000, 2)[1], height=99)
    bench.add(funding(6_000, 3)[1])
    held = bench.holdings()
    assert (held.block, held.units, held.steady) == (98, {"btc": 70_000_000}, True)
    assert held.coins == (Resource(f"{old}:0", 70_000_000),)
    assert (held.slots_used, held.slots_mined) == (None, None)
    assert list(bench.node.wallets) == [f"penstock-{SENDER}"]


@pytest.mark.parametrize("spent_in", [None, 99, 100])
def test_what_was_spent_since_was_still_held_then_and_is_not_free_now(spent_in):
    bench = Bench()
    old, raw = funding(200_000)
    kept, other = funding(90_000, 2)
    bench.add(raw, height=50)
    bench.add(other, height=60)
    bench.add(version_of(intent_of(coins=(Resource(f"{old}:0", 200_000),))).raw, height=spent_in)
    held = bench.holdings()
    assert held.units == {"btc": 290_000}
    assert held.coins == (Resource(f"{kept}:0", 90_000),)


def test_change_counts_when_the_block_of_its_payment_is_final():
    bench = Bench()
    old, raw = funding(200_000)
    bench.add(raw, height=50)
    version = version_of(intent_of(coins=(Resource(f"{old}:0", 200_000),)))
    bench.add(version.raw, height=98)
    held = bench.holdings()
    assert held.units == {"btc": 148_000}
    assert held.coins == (Resource(f"{version.txid}:1", 148_000),)


def test_a_version_that_lost_its_coins_to_another_long_ago_spends_nothing():
    bench = Bench()
    old, raw = funding(200_000)
    bench.add(raw, height=50)
    first = version_of(intent_of(coins=(Resource(f"{old}:0", 200_000),)))
    second = version_of(bench.rail.bump(first.intent, None, version=2))
    bench.add(second.raw, height=60)
    bench.node.raws[first.txid] = first.raw
    bench.node.conflicted.add(first.txid)
    assert bench.holdings().units == {"btc": 147_500}


def test_a_coin_of_a_payment_that_the_pool_threw_out_is_not_free():
    bench = Bench()
    old, raw = funding(200_000)
    bench.add(raw, height=50)
    version = version_of(intent_of(coins=(Resource(f"{old}:0", 200_000),)))
    bench.node.raws[version.txid] = version.raw
    bench.node.limbo.add(version.txid)
    held = bench.holdings()
    assert (held.units, held.coins) == ({"btc": 200_000}, ())


def test_a_coin_that_only_one_pool_knows_to_be_spent_is_not_free():
    bench = Bench(2)
    old, raw = funding(200_000)
    bench.add(raw, height=50)
    bench.nodes[1].add(version_of(intent_of(coins=(Resource(f"{old}:0", 200_000),))).raw)
    held = bench.holdings()
    assert (held.units, held.coins) == ({"btc": 200_000}, ())


def test_nodes_that_differ_on_the_coins_are_not_believed():
    bench = Bench(2)
    bench.add(funding(200_000)[1], height=50)
    bench.node.add(funding(100, 2)[1], height=60)
    with pytest.raises(NodeUnreachable, match="differ on the coins"):
        bench.holdings()


def test_as_many_nodes_as_must_agree_keep_wallets():
    bench = Bench(3)
    bench.add(funding(200_000)[1], height=50)
    bench.node.has_wallets = False
    assert bench.holdings().units == {"btc": 200_000}
    bench = Bench(3)
    bench.add(funding(200_000)[1], height=50)
    for node in bench.nodes[:2]:
        node.has_wallets = False
    with pytest.raises(NodeUnreachable, match="keeps no wallets"):
        bench.holdings()
    bench = Bench(2)
    bench.show(has_wallets=False)
    with pytest.raises(NodeUnreachable, match="keeps no wallets"):
        bench.holdings()


def test_bytes_that_are_not_those_of_the_id_are_no_coin():
    bench = Bench()
    txid, raw = funding(200_000)
    bench.add(raw, height=50)
    bench.node.raws[txid] = funding(2_000_000, 5)[1]
    with pytest.raises(NodeUnreachable, match="other bytes"):
        bench.holdings()


def test_a_wallet_that_still_scans_or_holds_keys_is_no_source():
    bench = Bench()
    bench.node.scanning = True
    with pytest.raises(NodeUnreachable, match="still scans"):
        bench.holdings()
    bench.node.scanning = False
    bench.node.answers["getwalletinfo"] = {"private_keys_enabled": True, "scanning": False}
    with pytest.raises(NodeUnreachable, match="holds private keys"):
        bench.holdings()
    del bench.node.answers["getwalletinfo"]
    assert bench.holdings().units == {"btc": 0}


def test_the_wallet_is_made_once_and_again_when_the_node_lost_it():
    bench = Bench()
    bench.holdings()
    (entry,) = bench.node.wallets[f"penstock-{SENDER}"]
    assert (entry["desc"], entry["timestamp"]) == (f"addr({SENDER})#abcdefgh", 0)
    bench.holdings()
    assert [method for method, _ in bench.node.calls].count("importdescriptors") == 1
    bench.node.wallets.clear()
    with pytest.raises(NodeUnreachable):
        bench.holdings()
    assert bench.holdings().units == {"btc": 0}
    assert [method for method, _ in bench.node.calls].count("importdescriptors") == 2


def test_a_real_network_is_not_scanned_from_its_beginning():
    bench = Bench(net=network(is_test=False, watch_from_s=1_767_225_600))
    bench.holdings()
    assert bench.node.wallets[f"penstock-{SENDER}"][0]["timestamp"] == 1_767_225_600


@pytest.mark.parametrize(("time_s", "good"), [(1_767_225_600 - 7_200, True), (1_767_225_600, False), (None, False)])
def test_a_pruned_node_is_a_source_only_with_the_blocks_to_look_through(time_s, good):
    bench = Bench(net=network(is_test=False, watch_from_s=1_767_225_600))
    bench.node.answers["getblockchaininfo"] = {"chain": "regtest", "blocks": 100, "pruned": True, "pruneheight": 40}
    bench.node.answers["getblockheader"] = {"time": time_s}
    if good:
        assert bench.holdings().units == {"btc": 0}
        return
    for _ in range(2):  # and it stays so
        with pytest.raises(NodeUnreachable, match="is pruned"):
            bench.holdings()
    assert bench.node.wallets == {f"penstock-{SENDER}": []}


def test_no_secret_of_a_nodes_address_reaches_a_text():
    bench = Bench()
    bench.node.answers["sendrawtransaction"] = Error("refused by https://user:hunter2pass@node1.example/v2/SECRETKEY1")
    said = bench.submit(version_of(intent_of()).raw)[0].detail
    assert "hunter2" not in said
    assert "SECRET" not in said


def test_the_same_coins_come_in_the_same_order():
    bench = Bench()
    for number in range(1, 6):
        bench.add(funding(1_000 * number, number)[1], height=50)
    held = bench.holdings()
    assert [c.units for c in held.coins] == [5_000, 4_000, 3_000, 2_000, 1_000]
    assert held == bench.holdings()
    assert coin(1, 5) != held.coins[0]
