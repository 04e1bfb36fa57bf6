"""The Bitcoin mempool of the box: what a node takes, what it refuses and in which words, what replaces what, and what gets into blocks."""

import pytest
from embit.script import Script
from embit.transaction import Transaction, TransactionOutput

from penstock.devnet.bitcoin import policy
from penstock.devnet.bitcoin.mempool import RELATIVES_MAX
from penstock.devnet.bitcoin.policy import Rejected, dust_limit, money
from penstock.devnet.bitcoin.transaction import read
from penstock.devnet.bitcoin.twin import twin_of
from penstock.devnet.control import control
from tests.fixtures.bitcoin_box import ALICE, BOB, CAROL, COIN, Town, outputs_of

NULLDATA = b"\x6a\x04test"


def refusal(town, raw):
    with pytest.raises(Rejected) as error:
        town.chain.submit(raw)
    return str(error.value)


def to(town, outputs, *, fee=2_000, **how):
    coins = town.coins()
    change = sum(coin.units for _, coin in coins) - fee - sum(units for _, units in outputs)
    return ALICE.spend(coins, [*outputs, (ALICE.script, change)], **how)


def waiting(town):
    return {entry.tx.txid for entry in town.chain.mempool}


# What is refused


def test_a_forged_signature_is_refused_by_cores_own_code():
    town = Town()
    raw = town.pay(forged=True)
    tx = read(raw)
    txid, number = tx.inputs[0].outpoint
    assert refusal(town, raw) == (
        f"mandatory-script-verify-flag-failed (unknown error), input 0 of {tx.txid} (wtxid {tx.wtxid}), spending {txid}:{number}"
    )
    assert refusal(town, town.pay(purse=BOB, coins=town.coins(ALICE))).startswith("mandatory-script-verify-flag-failed")
    assert waiting(town) == set()


def test_what_the_bytes_alone_say_is_judged_first():
    town = Town()
    (coin,) = town.coins()
    assert refusal(town, ALICE.spend([coin], [])) == "bad-txns-vout-empty"
    assert refusal(town, ALICE.spend([coin, coin], [(BOB.script, 1)])) == "bad-txns-inputs-duplicate"
    assert refusal(town, ALICE.spend([coin], [(BOB.script, 2**63)])) == "bad-txns-vout-negative"
    assert refusal(town, ALICE.spend([coin], [(BOB.script, 21_000_000 * COIN + 1)])) == "bad-txns-vout-toolarge"
    assert refusal(town, ALICE.spend([coin], [(BOB.script, 21_000_000 * COIN)] * 2)) == "bad-txns-txouttotal-toolarge"
    assert refusal(town, town.chain.blocks.head.transactions[0].raw) == "coinbase"


def test_what_is_not_standard_is_refused_in_cores_words():
    town = Town()
    assert refusal(town, town.pay(version=4)) == "version"
    assert refusal(town, to(town, [(b"\x51", 1_000)])) == "scriptpubkey"
    assert refusal(town, to(town, [(NULLDATA, 0), (NULLDATA, 0)])) == "multi-op-return"
    assert refusal(town, to(town, [(b"\x6a\x4c\x51" + bytes(81), 0)])) == "scriptpubkey"
    assert refusal(town, to(town, [(BOB.script, 293)])) == "dust, tx with dust output must be 0-fee"
    assert refusal(town, to(town, [(BOB.script, 293)] * 2)) == "dust"
    assert refusal(town, ALICE.spend(town.coins(), [(b"\x6a", 0)])) == "tx-size-small"
    assert refusal(town, to(town, [(BOB.script, 1_000)] * 3_300)) == "tx-size"
    town.chain.submit(to(town, [(NULLDATA, 0), (BOB.script, 294)]))


def test_the_least_amounts_are_those_that_core_documents():
    known = {"76a914" + "00" * 20 + "88ac": 546, "a914" + "00" * 20 + "87": 540, "0014" + "00" * 20: 294, "0020" + "00" * 32: 330}
    known |= {"5120" + "00" * 32: 330, "6a": 0}
    assert {script: dust_limit(bytes.fromhex(script)) for script in known} == known


def test_money_that_is_not_there_is_refused():
    town = Town()
    (coin,) = town.coins()
    raw = ALICE.spend([coin], [(BOB.script, COIN + 1)])
    assert refusal(town, raw) == "bad-txns-in-belowout, value in (1.00) < value out (1.00000001)"
    unknown = (("00" * 31 + "01", 0), coin[1])
    assert refusal(town, ALICE.spend([unknown], [(BOB.script, 1_000)])) == "bad-txns-inputs-missingorspent"
    raw = town.pay()
    town.chain.submit(raw)
    assert refusal(town, raw) == "txn-already-in-mempool"
    town.mine()
    assert refusal(town, raw) == "txn-already-known"
    spent = town.pay(coins=[coin], fee=5_000)
    assert refusal(town, spent) == "bad-txns-inputs-missingorspent"


def test_a_fee_below_the_relay_fee_is_refused_to_the_satoshi():
    town = Town()
    size = read(town.pay(fee=0)).vsize
    assert refusal(town, town.pay(fee=0)) == f"min relay fee not met, 0 < {size}"
    assert refusal(town, town.pay(fee=size - 1)) == f"min relay fee not met, {size - 1} < {size}"
    town.chain.submit(town.pay(fee=size))


def test_a_full_mempool_throws_out_the_cheapest_and_asks_for_more():
    town = Town(funds=(COIN, COIN))
    cheap, dear = (town.send(coins=[coin], fee=fee) for coin, fee in zip(town.coins(), (200, 2_000), strict=True))
    control([town.box], {"do": "mempool_min", "sat_per_kvb": 5_000})
    assert waiting(town) == {dear}
    assert refusal(town, town.pay(coins=town.coins()[:1], fee=500)).startswith("mempool min fee not met, 500 < 7")
    assert town.call("getmempoolinfo")["mempoolminfee"] == 0.00005
    assert town.chain.market_fee(6) >= 5_000
    control([town.box], {"do": "mempool_min", "sat_per_kvb": 0})
    assert town.send(coins=[town.coins()[0]], fee=200) == cheap, "the same bytes, taken once more"


def test_the_subsidy_of_a_block_may_be_spent_after_a_hundred_blocks():
    town = Town(funds=())
    (block,) = town.chain.mine(1, script=ALICE.script)
    assert refusal(town, town.pay()) == "bad-txns-premature-spend-of-coinbase, tried to spend coinbase at depth 1"
    town.mine(98)
    assert refusal(town, town.pay()) == "bad-txns-premature-spend-of-coinbase, tried to spend coinbase at depth 99"
    town.mine()
    town.chain.submit(town.pay())
    assert block.transactions[0].outputs[0].units == 25 * COIN


def test_locktimes_are_waited_for():
    town = Town()
    height = town.chain.blocks.head.height
    assert refusal(town, town.pay(locktime=height + 1)) == "non-final"
    assert refusal(town, town.pay(locktime=town.chain.blocks.head.median_time)) == "non-final"
    assert read(town.pay(locktime=height + 9, sequence=0xFFFFFFFF)).locktime == height + 9
    town.chain.judge(read(town.pay(locktime=height + 9, sequence=0xFFFFFFFF)))
    assert refusal(town, town.pay(sequence=2)) == "non-BIP68-final"
    assert refusal(town, town.pay(sequence=1 << 22 | 1)) == "non-BIP68-final"
    town.chain.judge(read(town.pay(sequence=2, version=1)))
    raw = town.pay(sequence=2, locktime=height)
    town.mine()
    town.chain.submit(raw)
    town.mine()
    assert town.box.holding(BOB.address) == 10_000, "and Core's own code agrees"


def test_a_witness_where_none_belongs_is_refused():
    town = Town()
    legacy = b"\x76\xa9\x14" + BOB.script[2:] + b"\x88\xac"
    raw = to(town, [(legacy, 50_000)])
    txid = town.chain.submit(raw).tx.txid
    coin = ((txid, 0), town.chain.mempool.made((txid, 0)))
    assert refusal(town, BOB.spend([coin], [(CAROL.script, 40_000)])) == "bad-witness-nonstandard"


def test_signature_checks_are_counted_and_paid_for():
    town = Town()
    assert town.chain.judge(read(town.pay())).sigops == 1
    bare = b"\x51" + b"\x21" + BOB.public + b"\x51\xae"
    raw = to(town, [(bare, 1_000)] * 60, fee=100_000)
    entry = town.chain.judge(read(raw))
    assert entry.sigops == 60 * 80 + 1
    assert entry.vsize == -(-entry.sigops * 20 // 4) > entry.tx.vsize
    assert refusal(town, to(town, [(bare, 1_000)] * 201, fee=COIN // 2)) == "bad-txns-too-many-sigops, 16081"


# Replacement


def test_a_replacement_pays_more_by_its_own_relay():
    town = Town()
    old = town.send(fee=1_000)
    size = town.chain.mempool.get(old).vsize
    same = read(town.pay(CAROL, fee=1_000))
    rate = f"0.{1_000 * 1_000 // size:08d} BTC/kvB"
    assert refusal(town, same.raw) == (f"insufficient fee, rejecting replacement {same.txid}; new feerate {rate} <= old feerate {rate}")
    little = read(town.pay(CAROL, fee=1_000 + size - 1))
    assert refusal(town, little.raw) == (
        f"insufficient fee, rejecting replacement {little.txid}, not enough additional fees to relay; {money(size - 1)} < {money(size)}"
    )
    new = town.send(CAROL, fee=1_000 + size)
    assert waiting(town) == {new}
    town.mine()
    assert (town.box.holding(BOB.address), town.box.holding(CAROL.address)) == (0, 10_000)


def test_full_replacement_asks_for_no_signal():
    town = Town()
    town.send(sequence=0xFFFFFFFF)
    new = town.send(CAROL, fee=5_000, sequence=0xFFFFFFFF)
    assert waiting(town) == {new}


def test_a_replacement_pays_for_the_children_that_go_with_it():
    town = Town()
    raw = town.pay(fee=1_000)
    parent = town.chain.submit(raw).tx.txid
    town.send(coins=outputs_of(raw, parent, ALICE), fee=9_000)
    short = read(town.pay(CAROL, fee=9_999))
    assert refusal(town, short.raw) == (
        f"insufficient fee, rejecting replacement {short.txid}, less fees than conflicting txs; 0.00009999 < 0.0001"
    )
    new = town.send(CAROL, fee=10_500)
    assert waiting(town) == {new}


def test_a_replacement_brings_no_new_unconfirmed_input():
    town = Town(funds=(COIN, COIN))
    one, two = town.coins()
    raw = town.pay(coins=[one])
    other = town.chain.submit(raw).tx.txid
    town.send(coins=[two])
    new = read(town.pay(CAROL, coins=[two, *outputs_of(raw, other, ALICE)], fee=9_000))
    assert refusal(town, new.raw) == f"replacement-adds-unconfirmed, replacement {new.txid} adds unconfirmed input, idx 1"


def test_nothing_spends_from_what_it_replaces():
    town = Town()
    raw = town.pay()
    old = town.chain.submit(raw).tx.txid
    new = read(town.pay(CAROL, coins=[*town.coins(), *outputs_of(raw, old, ALICE)], fee=9_000))
    assert refusal(town, new.raw) == f"bad-txns-spends-conflicting-tx, {new.txid} spends conflicting transaction {old}"


def test_every_bump_of_twenty_wins_and_one_is_mined():
    town = Town()
    sent = [town.send(fee=1_000 + 200 * number) for number in range(20)]
    assert waiting(town) == {sent[-1]}
    town.mine()
    assert [txid for txid in sent if town.chain.blocks.find(txid)] == [sent[-1]]
    assert town.box.holding(BOB.address) == 10_000


# Another signature on the way


def test_a_segwit_payment_keeps_its_id_whatever_is_done_to_its_signature():
    town = Town()
    raw = town.pay()
    sent = town.chain.submit(raw).tx
    child = town.send(coins=outputs_of(raw, sent.txid, ALICE), fee=700)
    assert control([town.box], {"do": "malleate", "txid": sent.txid}) == {"txid": sent.txid}
    town.mine()
    mined = town.chain.blocks.head.transactions[1]
    assert (mined.txid, mined.wtxid != sent.wtxid) == (sent.txid, True)
    assert town.chain.blocks.head.transactions[2].txid == child


def test_a_legacy_payment_gets_another_id_and_its_children_are_gone():
    town = Town()
    paid = town.chain.submit(to(town, [(ALICE.legacy_script, 50_000)])).tx.txid
    town.mine()
    raw = ALICE.spend_legacy((paid, 0), [(BOB.script, 20_000), (ALICE.script, 29_000)])
    sent = town.chain.submit(raw).tx
    child = town.send(coins=outputs_of(raw, sent.txid, ALICE), units=1_000, fee=300)
    twin = town.chain.malleate(sent.txid)
    assert twin != sent.txid
    assert waiting(town) == {twin}
    assert refusal(town, raw).startswith(f"insufficient fee, rejecting replacement {sent.txid}"), "it is a conflict of its twin"
    town.mine()
    assert (town.box.holding(BOB.address), town.chain.blocks.find(child), town.chain.blocks.find(sent.txid)) == (20_000, None, None)


def test_there_is_no_twin_of_what_does_not_wait_or_bears_no_such_signature():
    town = Town()
    with pytest.raises(ValueError, match="no such transaction waits"):
        town.chain.malleate("00" * 32)
    with pytest.raises(ValueError, match="no ECDSA signature"):
        twin_of(town.chain.blocks.head.transactions[0])


# Chains of unconfirmed ones


def test_a_chain_of_unconfirmed_ones_is_at_most_twenty_five_long():
    town = Town()
    coins, first = town.coins(), ""
    for _ in range(RELATIVES_MAX):
        raw = town.pay(coins=coins, units=1_000, fee=300)
        txid = town.chain.submit(raw).tx.txid
        first = first or txid
        coins = outputs_of(raw, txid, ALICE)
    words = f"too-long-mempool-chain, too many unconfirmed ancestors [limit: {RELATIVES_MAX}]"
    assert refusal(town, town.pay(coins=coins, fee=300)) == words
    bob = [(outpoint, coin) for outpoint, coin in outputs_of(town.chain.mempool.get(first).tx.raw, first, BOB)]
    words = f"too-long-mempool-chain, too many descendants for tx {first} [limit: {RELATIVES_MAX}]"
    assert refusal(town, BOB.spend(bob, [(CAROL.script, 500)])) == words
    town.mine()
    assert len(town.chain.blocks.head.transactions) == RELATIVES_MAX + 1


def test_a_child_pays_for_its_parent():
    town = Town()
    raw = town.pay(fee=200)
    parent = town.chain.submit(raw).tx.txid
    town.box.spike(10)
    town.mine()
    assert town.chain.blocks.find(parent) is None
    child = town.send(coins=outputs_of(raw, parent, ALICE), fee=4_000)
    town.mine()
    assert [tx.txid for tx in town.chain.blocks.head.transactions[1:]] == [parent, child]


def test_a_child_that_pays_too_little_waits_while_its_parent_goes():
    town = Town()
    raw = town.pay(fee=3_000)
    parent = town.chain.submit(raw).tx.txid
    child = town.send(coins=outputs_of(raw, parent, ALICE), fee=200)
    town.box.spike(10)
    town.mine()
    assert [tx.txid for tx in town.chain.blocks.head.transactions[1:]] == [parent]
    assert waiting(town) == {child}


def test_a_delayed_submission_is_mined_when_it_has_arrived():
    town = Town()
    town.node.faults.delay_ms = 900_000
    txid = town.call("sendrawtransaction", town.pay().hex())
    town.mine()
    assert town.chain.blocks.find(txid) is None
    town.mine()
    assert town.chain.blocks.find(txid) is not None


def test_the_fee_is_what_inputs_have_over_outputs():
    town = Town()
    (coin,) = town.coins()
    made = Transaction.parse(ALICE.spend([coin], [(BOB.script, COIN - 4_321)]))
    assert made.vout[0].serialize() == TransactionOutput(COIN - 4_321, Script(BOB.script)).serialize()
    assert town.chain.judge(read(made.serialize())).fee == 4_321
    assert policy.fee_at(1_001, 1_000) == 1_001
    assert policy.fee_at(1_000, 141) == 141
    assert policy.fee_at(100, 141) == 15, "rounded up"
