"""TRON in a box as a state machine: what it takes, what that costs, when it is solidified, and what a fork does to it."""

import hashlib
import json
from pathlib import Path

import coincurve
import pytest

from penstock.catalog import Catalog
from penstock.devnet.boxes import make_networks
from penstock.devnet.evm.contracts import balance_slot
from penstock.devnet.tron import render, schema, wire
from penstock.devnet.tron.blocks import Witness, merkle_root, seal, with_result
from penstock.devnet.tron.chain import CHAIN_ID, ChainSpec
from penstock.devnet.tron.process import Rejected
from penstock.devnet.tron.resources import WINDOW_SLOTS, Prices, Usage, used_at, used_more
from penstock.devnet.tron.tokens import BEHAVIOURS, selector
from penstock.devnet.tron.transaction import Transaction, account_of, account_of_key, keccak256, signed, text_of
from tests.fixtures.evm import Clock
from tests.fixtures.tron_box import ALICE, BOB, CAROL, TRX, USDT, again, chain_with

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/tron_box.json").read_text())
REAL = json.loads((Path(__file__).parents[1] / "vectors/tron.json").read_text())
TRANSFER_TOPIC = "ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"


def refusal(chain, transaction):
    with pytest.raises(Rejected) as error:
        chain.submit(transaction)
    return error.value


def mined(chain, transaction):
    chain.submit(transaction)
    chain.mine()
    found = chain.receipt(transaction.id)
    assert found is not None
    return found[1]


def balance(chain, wallet, height=None):
    return chain.state(chain.head.number if height is None else height).account(wallet.account).balance


def tokens(chain, wallet):
    return chain.state(chain.head.number).slot(balance_slot(account_of(USDT), wallet.account))


def rich(chain, wallet=ALICE, units=1_000_000):
    """Give a wallet tokens."""
    chain.fund_token(USDT, wallet.address, units)
    chain.mine()


# The real network's own bytes


def test_a_block_of_the_real_network_has_the_id_and_the_signature_that_we_compute():
    answer = VECTORS["block"]["answer"]
    header = wire.from_json(schema.HeaderRaw, answer["block_header"]["raw_data"], visible=False)
    digest = hashlib.sha256(header.SerializeToString()).digest()
    assert answer["blockID"] == header.number.to_bytes(8, "big").hex() + digest[8:].hex()
    signature = bytes.fromhex(answer["block_header"]["witness_signature"])
    signer = coincurve.PublicKey.from_signature_and_message(signature, digest, hasher=None)
    assert account_of_key(signer) == header.witness_address[1:]
    assert wire.to_json(header, visible=False) == answer["block_header"]["raw_data"]


@pytest.mark.parametrize("vector", [it for it in REAL["answers"] if "signature" in it])
def test_a_transaction_of_the_real_network_has_the_id_and_the_signer_that_we_compute(vector):
    message = schema.Transaction(signature=[bytes.fromhex(vector["signature"])])
    message.raw_data.ParseFromString(bytes.fromhex(vector["raw_data"]))
    found = Transaction.parse(message.SerializeToString())
    assert found.txid == vector["txid"]
    assert found.owner.hex() == vector["owner"]
    assert [text_of(account) for account in found.signers] == [text_of(bytes.fromhex(vector["owner"])[1:])]
    assert found.content.data.hex() == vector["data"]


def test_a_transaction_of_the_real_network_is_shown_as_the_vendor_shows_it():
    wanted = VECTORS["call"]["answer"]["transaction"]
    message = schema.Transaction()
    message.raw_data.ParseFromString(bytes.fromhex(wanted["raw_data_hex"]))
    message.ret.add()
    assert render.transaction(message, visible=False) | {"visible": False} == wanted


def test_addresses_of_published_keys():
    for vector in REAL["keys"]:
        key = coincurve.PrivateKey(bytes.fromhex(vector["private_key"]))
        assert text_of(account_of_key(key.public_key)) == vector["address"]
    for vector in REAL["hexadecimal"]:
        assert text_of(account_of(vector["hex"])) == vector["address"]
        assert account_of(vector["address"]) == account_of(vector["hex"])


@pytest.mark.parametrize("text", ["", "T", USDT[:-1] + "u", "0x" + "00" * 20, "42" + "00" * 20, "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError):
        account_of(text)


# Blocks


def test_the_genesis_says_the_chain_id_and_every_block_links_to_the_one_before():
    chain = chain_with()
    chain.mine(3)
    assert int.from_bytes(chain.block(0).id[-4:], "big") == CHAIN_ID == 7_300_195
    for number in (1, 2, 3):
        block = chain.block(number)
        assert block.parent == chain.block(number - 1).id
        assert block.id == number.to_bytes(8, "big") + hashlib.sha256(block.header).digest()[8:]
        assert block.time_ms > chain.block(number - 1).time_ms
        signer = coincurve.PublicKey.from_signature_and_message(block.signature, hashlib.sha256(block.header).digest(), hasher=None)
        assert account_of_key(signer) == block.witness.account


def test_the_tree_hashes_transactions_with_their_results_and_an_odd_one_goes_up_alone():
    chain = chain_with()
    for sun in (1, 2, 3):
        chain.submit(ALICE.pay(chain, BOB.address, sun))
    receipts = chain.mine().receipts
    one, two, three = (hashlib.sha256(with_result(it).SerializeToString()).digest() for it in receipts)
    assert chain.head.root == hashlib.sha256(hashlib.sha256(one + two).digest() + three).digest()
    assert merkle_root(receipts[:1]) == one
    assert merkle_root(()) == bytes(32)


def test_a_chain_with_the_id_of_a_real_network_is_not_made():
    with pytest.raises(ValueError, match="never a real network"):
        ChainSpec(chain_id=728126428)


def test_blocks_come_by_the_clock_each_at_its_time():
    clock = Clock()
    chain = chain_with(clock, block_ms=1_000)
    clock.pass_ms(3_500)
    assert chain.tick() == 3
    assert [chain.block(number).time_ms - chain.genesis_ms for number in range(4)] == [0, 1_000, 2_000, 3_000]
    assert chain.tick() == 0


def test_missed_slots_are_a_gap_in_time_and_not_in_height():
    clock = Clock()
    chain = chain_with(clock, block_ms=1_000)
    clock.pass_ms(1_000)
    chain.miss(5)
    clock.pass_ms(6_000)
    assert chain.tick() == 1
    assert chain.head.number == 2
    assert chain.head.time_ms - chain.block(1).time_ms == 6_000
    with pytest.raises(ValueError, match="on demand"):
        chain_with().miss(1)


def test_a_silence_of_days_does_not_end_in_a_million_blocks():
    clock = Clock()
    chain = chain_with(clock, block_ms=1_000)
    clock.pass_ms(30 * 86_400_000)
    assert chain.tick() == 1


def test_the_same_seed_and_clock_give_the_same_ids_and_another_seed_others():
    def story(seed):
        clock = Clock()
        chain = chain_with(clock, seed=seed, block_ms=1_000)
        txids = [chain.fund(ALICE.address, 5), chain.fund_token(USDT, BOB.address, 7)]
        clock.pass_ms(5_000)
        chain.tick()
        chain.fork(2)
        return [*txids, chain.faucet, chain.head.id]

    assert story(1) == story(1)
    assert not set(story(1)) & set(story(2))


def test_old_blocks_are_forgotten_and_the_genesis_and_used_ids_never():
    chain = chain_with(history=10)
    paid = ALICE.pay(chain, BOB.address, 5, at=0)
    mined(chain, paid)
    chain.mine(30)
    assert chain.block(1) is None
    assert chain.block(0) is not None
    assert chain.state(1) is None
    assert chain.receipt(paid.id) is None
    assert refusal(chain, paid).code == "DUP_TRANSACTION_ERROR"


# Solidification


def test_a_block_is_solidified_exactly_four_blocks_later():
    chain = chain_with()
    chain.mine(4)
    assert chain.solid == 0
    chain.mine()
    assert chain.solid == 1


def test_while_it_stalls_nothing_is_solidified_and_afterwards_all_that_is_due():
    chain = chain_with()
    chain.mine(10)
    chain.stall(on=True)
    chain.mine(20)
    assert chain.solid == 6
    chain.stall(on=False)
    assert chain.solid == 26


# What a node takes, in its order of checks and with its codes


def test_a_transfer_moves_sun_and_uses_free_bandwidth():
    chain = chain_with()
    paid = ALICE.pay(chain, BOB.address, 5)
    receipt = mined(chain, paid)
    assert (receipt.result, receipt.fee, receipt.net_usage) == ("SUCCESS", 0, len(paid.raw) + 64)
    assert (balance(chain, ALICE), balance(chain, BOB)) == (1_000 * TRX - 5, 1_000 * TRX + 5)


def test_every_refusal_has_the_code_and_the_words_of_a_node():
    chain = chain_with()
    chain.mine(6)
    good = ALICE.pay(chain, BOB.address, 5)
    alone = {
        ("CONTRACT_VALIDATE_ERROR", "No contract!"): Transaction(schema.Transaction()),
        ("TRANSACTION_EXPIRATION_ERROR", "expired"): again(good, ALICE.key, expiration=chain.head.time_ms),
        ("SIGERROR", "miss sig"): again(good),
        ("SIGERROR", "not contained of permission"): again(good, BOB.key),
        ("TAPOS_ERROR", "Tapos"): again(good, ALICE.key, ref_block_hash=bytes(8)),
        ("TOO_BIG_TRANSACTION_ERROR", "512000"): again(good, ALICE.key, data=bytes(511_800)),
        ("CONTRACT_VALIDATE_ERROR", "yourself"): ALICE.pay(chain, ALICE.address, 5),
        ("CONTRACT_VALIDATE_ERROR", "greater than 0"): ALICE.pay(chain, BOB.address, 0),
        ("CONTRACT_VALIDATE_ERROR", "balance is not sufficient"): ALICE.pay(chain, BOB.address, 1_000 * TRX + 1),
        ("CONTRACT_VALIDATE_ERROR", "does not exist"): CAROL.pay(chain, BOB.address, 5),
        ("CONTRACT_VALIDATE_ERROR", "Cannot transfer TRX to a smartContract."): ALICE.pay(chain, USDT, 5),
        ("CONTRACT_VALIDATE_ERROR", "No contract or not a smart contract"): ALICE.pay_token(chain, BOB.address, contract=BOB.address),
        ("CONTRACT_VALIDATE_ERROR", "feeLimit"): ALICE.pay_token(chain, BOB.address, fee_limit=15_000_000_001),
    }
    for (code, words), transaction in alone.items():
        said = refusal(chain, transaction)
        assert (said.code, words in said.message) == (code, True), said
    assert chain.submit(good) == good.txid
    assert refusal(chain, good).code == "DUP_TRANSACTION_ERROR"
    chain.mine()
    assert refusal(chain, good).code == "DUP_TRANSACTION_ERROR"


def test_signatures_are_one_and_of_the_owner():
    chain = chain_with()
    twice = ALICE.pay(chain, BOB.address)
    twice.message.signature.append(twice.message.signature[0])
    assert "more than key counts" in refusal(chain, Transaction(twice.message)).message
    short = ALICE.pay(chain, BOB.address)
    short.message.signature[0] = bytes(64)
    assert "Signature size is 64" in refusal(chain, Transaction(short.message)).message
    other = ALICE.pay(chain, BOB.address)
    other.message.signature[0] = bytes(64) + b"\x09"
    assert refusal(chain, Transaction(other.message)).code == "SIGERROR"
    ethereum_like = ALICE.pay(chain, BOB.address)
    signature = ethereum_like.message.signature[0]
    ethereum_like.message.signature[0] = signature[:64] + bytes([signature[64] + 27])
    assert chain.submit(Transaction(ethereum_like.message)) == ethereum_like.txid
    permission = ALICE.unsigned(chain, "TransferContract", to_address=b"\x41" + BOB.account, amount=9)
    permission.raw_data.contract[0].Permission_id = 3
    assert "permission isn't exit" in refusal(chain, signed(permission, ALICE.key)).message


def test_the_id_does_not_depend_on_the_signature_or_on_a_result_that_the_sender_writes():
    chain = chain_with()
    paid = ALICE.pay(chain, BOB.address)
    message = schema.Transaction.FromString(paid.raw)
    message.ret.add(contractRet=schema.CONTRACT_RESULTS["REVERT"])
    found = Transaction.parse(message.SerializeToString())
    assert found.txid == paid.txid == hashlib.sha256(message.raw_data.SerializeToString()).hexdigest()
    assert mined(chain, found).result == "SUCCESS"


@pytest.mark.parametrize(("ahead_ms", "taken"), [(0, False), (999, False), (1_000, True), (86_400_000, True), (86_400_001, False)])
def test_an_expiration_is_after_the_next_slot_and_within_a_day_of_the_head(ahead_ms, taken):
    clock = Clock()
    chain = chain_with(clock, block_ms=1_000)
    clock.pass_ms(10_000)
    chain.tick()
    paid = ALICE.pay(chain, BOB.address, life_ms=ahead_ms)
    if taken:
        assert chain.submit(paid) == paid.txid
    else:
        assert refusal(chain, paid).code == "TRANSACTION_EXPIRATION_ERROR"


@pytest.mark.parametrize("late", range(-3, 4))
def test_it_lands_only_while_the_block_before_leaves_it_a_slot(late):
    """C4: expiry at -3 to +3 blocks."""
    clock = Clock()
    chain = chain_with(clock, block_ms=1_000)
    clock.pass_ms(5_000)
    chain.tick()
    paid = ALICE.pay(chain, BOB.address, life_ms=5_000)
    chain.submit(paid, delay_ms=5_000 + 1_000 * late - 999)
    clock.pass_ms(20_000)
    chain.tick()
    found = chain.receipt(paid.id)
    assert (found is not None) == (late <= 0)
    if found is not None:
        assert chain.block(found[0].number - 1).time_ms + 1_000 <= paid.data.expiration


def test_after_missed_slots_a_block_past_the_expiration_may_still_hold_it():
    clock = Clock()
    chain = chain_with(clock, block_ms=1_000)
    clock.pass_ms(5_000)
    chain.tick()
    paid = ALICE.pay(chain, BOB.address, life_ms=2_000)
    chain.submit(paid)
    chain.miss(10)
    clock.pass_ms(12_000)
    chain.tick()
    block, _ = chain.receipt(paid.id)
    assert block.time_ms > paid.data.expiration


def test_a_reference_block_is_recent_and_of_this_branch():
    chain = chain_with()
    chain.mine(3)
    paid = ALICE.pay(chain, BOB.address, at=3)
    chain.fork(1)
    assert refusal(chain, paid).code == "TAPOS_ERROR"
    assert chain.submit(ALICE.pay(chain, BOB.address, at=2))
    ahead = again(paid, ALICE.key, ref_block_bytes=b"\x12\x34")
    assert refusal(chain, ahead).code == "TAPOS_ERROR"
    assert refusal(chain, again(paid, ALICE.key, ref_block_bytes=b"")).code == "TAPOS_ERROR"


def test_a_full_pool_is_a_busy_server():
    chain = chain_with(pool_max=2)
    for sun in (1, 2):
        chain.submit(ALICE.pay(chain, BOB.address, sun))
    assert refusal(chain, ALICE.pay(chain, BOB.address, 3)).code == "SERVER_BUSY"
    chain.mine()
    assert chain.submit(ALICE.pay(chain, BOB.address, 3))


def test_what_waits_is_counted_before_what_comes():
    chain = chain_with()
    chain.submit(ALICE.pay(chain, BOB.address, 600 * TRX))
    assert "not sufficient" in refusal(chain, ALICE.pay(chain, BOB.address, 600 * TRX)).message
    assert chain.submit(BOB.pay(chain, ALICE.address, 1_500 * TRX)), "out of what waits"
    chain.mine()
    assert balance(chain, ALICE) == 1_900 * TRX


def test_other_types_of_contracts_are_not_run():
    chain = chain_with()
    message = ALICE.unsigned(chain, "TransferContract", to_address=b"\x41" + BOB.account, amount=9)
    message.raw_data.contract[0].type = schema.CONTRACT_TYPES["VoteWitnessContract"]
    assert "runs transfers" in refusal(chain, signed(message, ALICE.key)).message
    wrong = ALICE.unsigned(chain, "TransferContract", to_address=b"\x41" + BOB.account, amount=9)
    wrong.raw_data.contract[0].type = schema.CONTRACT_TYPES["TriggerSmartContract"]
    assert refusal(chain, signed(wrong, ALICE.key)).code == "CONTRACT_VALIDATE_ERROR"


# Bandwidth, new accounts, memos


def test_bandwidth_is_free_until_600_points_of_a_day_are_used_and_then_burnt():
    chain = chain_with()
    receipts = [mined(chain, ALICE.pay(chain, BOB.address, 7)) for _ in range(3)]
    points = receipts[0].net_usage
    assert [(it.net_usage, it.net_fee, it.fee) for it in receipts] == [(points, 0, 0), (points, 0, 0), (0, 1_000 * points, 1_000 * points)]
    assert balance(chain, ALICE) == 1_000 * TRX - 21 - 1_000 * points


def test_used_bandwidth_comes_back_evenly_within_a_day():
    usage = used_more(Usage(), 600, slot=0)
    assert used_at(usage, 0) == 600
    assert used_at(usage, WINDOW_SLOTS // 2) == 300
    assert used_at(usage, WINDOW_SLOTS) == 0
    assert used_more(usage, 100, WINDOW_SLOTS // 2).used == 400


def test_a_new_account_costs_one_trx_and_a_tenth():
    chain = chain_with()
    receipt = mined(chain, ALICE.pay(chain, CAROL.address, 5))
    assert (receipt.fee, receipt.net_fee, receipt.net_usage) == (1_100_000, 100_000, 0)
    assert balance(chain, ALICE) == 1_000 * TRX - 5 - 1_100_000
    assert mined(chain, ALICE.pay(chain, CAROL.address, 5)).fee == 0
    poor = chain_with(balances={ALICE.address: 1_099_999, BOB.address: 1})
    assert "not sufficient" in refusal(poor, ALICE.pay(poor, CAROL.address, 1)).message
    assert refusal(poor, BOB.pay(poor, CAROL.address, 1)).code == "BANDWITH_ERROR"


def test_a_memo_costs_one_trx():
    chain = chain_with()
    receipt = mined(chain, again(ALICE.pay(chain, BOB.address, 5), ALICE.key, data=b"thanks"))
    assert receipt.fee == TRX
    assert balance(chain, ALICE) == 1_000 * TRX - 5 - TRX


def test_who_cannot_pay_for_bandwidth_is_refused():
    chain = chain_with(balances={ALICE.address: 100_000, BOB.address: 0})
    for _ in range(2):
        chain.submit(ALICE.pay(chain, BOB.address, 1))
    assert refusal(chain, ALICE.pay(chain, BOB.address, 1)).code == "BANDWITH_ERROR"


# Energy


def test_a_token_transfer_burns_energy_and_twice_as_much_for_an_empty_recipient():
    chain = chain_with()
    rich(chain)
    new, known = (mined(chain, ALICE.pay_token(chain, BOB.address, 5)) for _ in range(2))
    assert new.energy_total > 1.9 * known.energy_total > 100_000
    for receipt in (new, known):
        assert (receipt.energy_usage, receipt.energy_fee) == (0, 100 * receipt.energy_total)
        assert receipt.fee == receipt.energy_fee + receipt.net_fee
    assert tokens(chain, BOB) == 10
    assert balance(chain, ALICE) == 1_000 * TRX - new.fee - known.fee


def test_the_event_is_that_of_trc20():
    chain = chain_with()
    rich(chain)
    (log,) = mined(chain, ALICE.pay_token(chain, BOB.address, 5)).logs
    assert log.address == account_of(USDT)
    assert keccak256(b"Transfer(address,address,uint256)").hex() == TRANSFER_TOPIC
    assert [topic.hex() for topic in log.topics] == [TRANSFER_TOPIC, *(it.account.rjust(32, b"\0").hex() for it in (ALICE, BOB))]
    assert int.from_bytes(log.data, "big") == 5


def test_usdt_returns_false_where_it_succeeds():
    chain = chain_with()
    rich(chain)
    receipt = mined(chain, ALICE.pay_token(chain, BOB.address, 5))
    assert (receipt.result, receipt.output, tokens(chain, BOB)) == ("SUCCESS", bytes(32), 5)


def test_staked_energy_is_used_before_anything_burns():
    chain = chain_with()
    rich(chain)
    chain.stake(ALICE.address, 10_000 * TRX, energy=True)
    chain.mine()
    first = mined(chain, ALICE.pay_token(chain, BOB.address, 5))
    assert (first.energy_usage, first.energy_fee) == (100_000, 100 * (first.energy_total - 100_000))
    second = mined(chain, ALICE.pay_token(chain, BOB.address, 5))
    assert second.energy_usage == 0
    chain.stake(ALICE.address, 10_000 * TRX, energy=True, back=True)
    chain.mine()
    assert chain.state(chain.head.number).account(ALICE.account).energy_staked == 0


def test_staked_bandwidth_pays_for_a_new_account_too():
    chain = chain_with()
    chain.stake(ALICE.address, 1_000 * TRX, energy=False)
    chain.mine()
    receipt = mined(chain, ALICE.pay(chain, CAROL.address, 5))
    assert (receipt.fee, receipt.net_usage > 0) == (1_000_000, True)


def test_nobody_delegates_what_he_has_not():
    chain = chain_with()
    message = ALICE.unsigned(chain, "DelegateResourceContract", resource=1, balance=TRX, receiver_address=b"\x41" + BOB.account)
    assert "available FreezeEnergyV2 balance" in refusal(chain, signed(message, ALICE.key)).message
    with pytest.raises(Rejected, match="not exists"):
        chain.stake(CAROL.address, TRX, energy=True)


def test_a_fee_limit_below_the_need_is_burnt_for_nothing():
    chain = chain_with()
    rich(chain)
    receipt = mined(chain, ALICE.pay_token(chain, BOB.address, 5, fee_limit=3 * TRX))
    assert (receipt.result, receipt.energy_total, receipt.energy_fee) == ("OUT_OF_ENERGY", 30_000, 3 * TRX)
    assert receipt.logs == ()
    assert (tokens(chain, BOB), balance(chain, ALICE)) == (0, 1_000 * TRX - receipt.fee)


def test_the_fee_limit_bounds_staked_energy_too():
    chain = chain_with()
    rich(chain)
    chain.stake(ALICE.address, 100_000 * TRX, energy=True)
    chain.mine()
    receipt = mined(chain, ALICE.pay_token(chain, BOB.address, 5, fee_limit=3 * TRX))
    assert (receipt.result, receipt.energy_usage, receipt.energy_fee) == ("OUT_OF_ENERGY", 30_000, 0)


def test_a_contract_that_is_much_used_asks_for_more():
    chain = chain_with()
    rich(chain)
    dear = mined(chain, ALICE.pay_token(chain, BOB.address, 5))
    chain.set_factor(USDT, 0)
    chain.fund_token(USDT, CAROL.address, 5)
    plain = chain.mine().receipts[0]
    assert (plain.penalty, dear.penalty) == (0, dear.energy_total - plain.energy_total)
    assert dear.energy_total == plain.energy_total + plain.energy_total * 34_000 // 10_000
    with pytest.raises(ValueError, match="no contract"):
        chain.set_factor(BOB.address, 1)


def test_a_spike_multiplies_energy_and_bytes_until_it_is_over():
    chain = chain_with()
    rich(chain)
    usual = mined(chain, ALICE.pay_token(chain, BOB.address, 5))
    chain.spike(3)
    dear = mined(chain, ALICE.pay_token(chain, BOB.address, 5))
    assert dear.energy_fee == 300 * dear.energy_total
    assert chain.prices == Prices(energy=300, byte=3_000)
    chain.spike(1)
    assert mined(chain, ALICE.pay_token(chain, BOB.address, 5)).fee < dear.fee
    assert usual.energy_fee == 100 * usual.energy_total
    with pytest.raises(ValueError, match="1 or more"):
        chain.spike(0)


def test_a_call_with_value_needs_it():
    chain = chain_with()
    fields = {"contract_address": b"\x41" + account_of(USDT), "data": selector("decimals()"), "call_value": 2_000 * TRX}
    message = ALICE.unsigned(chain, "TriggerSmartContract", fee_limit=TRX, **fields)
    assert "balance is not sufficient" in refusal(chain, signed(message, ALICE.key)).message
    fields["call_value"] = 5
    receipt = mined(chain, signed(ALICE.unsigned(chain, "TriggerSmartContract", fee_limit=10 * TRX, **fields), ALICE.key))
    assert receipt.result == "REVERT", "the token takes no TRX"
    assert balance(chain, ALICE) == 1_000 * TRX - receipt.fee


# Tokens that misbehave (C8)


@pytest.mark.parametrize(
    ("behaviour", "result", "moved", "events", "returned"),
    [
        ("usual", "SUCCESS", 1_000, 1, (1).to_bytes(32, "big")),
        ("false", "SUCCESS", 1_000, 1, bytes(32)),
        ("nothing", "SUCCESS", 1_000, 1, b""),
        ("silent", "SUCCESS", 1_000, 0, (1).to_bytes(32, "big")),
        ("short", "SUCCESS", 990, 1, (1).to_bytes(32, "big")),
        ("lying", "SUCCESS", 0, 1, (1).to_bytes(32, "big")),
        ("twice", "SUCCESS", 1_000, 2, (1).to_bytes(32, "big")),
        ("paused", "REVERT", 0, 0, None),
        ("broken", "ILLEGAL_OPERATION", 0, 0, b""),
        ("endless", "OUT_OF_ENERGY", 0, 0, b""),
    ],
)
def test_a_token_does_what_it_was_told(behaviour, result, moved, events, returned):
    chain = chain_with()
    rich(chain)
    chain.behave(USDT, behaviour)
    chain.mine()
    receipt = mined(chain, ALICE.pay_token(chain, BOB.address, 1_000))
    assert (receipt.result, tokens(chain, BOB), len(receipt.logs)) == (result, moved, events)
    assert returned is None or receipt.output == returned
    assert behaviour in BEHAVIOURS


def test_a_revert_pays_for_what_it_ran_and_a_crash_for_everything():
    chain = chain_with()
    rich(chain)
    for behaviour, energy in (("paused", None), ("broken", 1_000_000)):
        chain.behave(USDT, behaviour)
        chain.mine()
        receipt = mined(chain, ALICE.pay_token(chain, BOB.address, 1_000))
        assert receipt.energy_total == energy if energy else receipt.energy_total < 20_000
        assert receipt.error


def test_what_runs_too_long_is_out_of_time():
    chain = chain_with(balances={ALICE.address: 10_000 * TRX})
    rich(chain)
    chain.behave(USDT, "endless")
    chain.mine()
    receipt = mined(chain, ALICE.pay_token(chain, BOB.address, 1, fee_limit=9_000 * TRX))
    assert (receipt.result, receipt.energy_fee) == ("OUT_OF_TIME", 9_000 * TRX)


def test_an_unknown_behaviour_or_contract_is_an_error():
    chain = chain_with()
    with pytest.raises(ValueError, match="one of these ways"):
        chain.behave(USDT, "kind")
    with pytest.raises(ValueError, match="no contract"):
        chain.fund_token(BOB.address, ALICE.address, 1)
    with pytest.raises(ValueError, match="contract"):
        chain.fund(USDT, 1)


# Forks, and a pool that forgets


def test_a_fork_brings_the_transactions_back_in_other_blocks():
    chain = chain_with()
    chain.mine(2)
    paid = ALICE.pay(chain, BOB.address, 5)
    mined(chain, paid)
    before = chain.head.id
    chain.mine()
    old = [chain.block(number) for number in (3, 4)]
    chain.fork(2)
    assert chain.head.number == 5
    assert [chain.block(number).time_ms for number in (3, 4)] == [block.time_ms for block in old]
    assert all(chain.block(number).id != block.id for number, block in zip((3, 4), old, strict=True))
    assert chain.block_by_id(before) is None
    block, _ = chain.receipt(paid.id)
    assert (block.number, balance(chain, BOB)) == (3, 1_000 * TRX + 5)


def test_a_fork_may_drop_them_and_they_land_when_they_are_sent_again():
    chain = chain_with()
    chain.mine()
    paid = ALICE.pay(chain, BOB.address, 5)
    mined(chain, paid)
    chain.fork(1, "drop")
    assert chain.receipt(paid.id) is None
    assert balance(chain, BOB) == 1_000 * TRX
    mined(chain, paid)
    assert balance(chain, BOB) == 1_000 * TRX + 5


def test_a_fork_may_reorder_them_so_that_one_fails_that_succeeded():
    chain = chain_with()
    first, second = ALICE.pay(chain, BOB.address, 600 * TRX), BOB.pay(chain, ALICE.address, 1_500 * TRX)
    for transaction in (first, second):
        chain.submit(transaction)
    chain.mine()
    assert len(chain.head.receipts) == 2
    chain.fork(1, "reorder")
    assert chain.receipt(second.id) is None, "Bob had not been paid yet"
    assert chain.receipt(first.id)[0].number == 2


def test_what_was_in_time_may_be_too_late_after_a_fork():
    clock = Clock()
    chain = chain_with(clock, block_ms=1_000)
    clock.pass_ms(5_000)
    chain.tick()
    paid = ALICE.pay(chain, BOB.address, 5, life_ms=1_000)
    chain.submit(paid)
    clock.pass_ms(1_000)
    chain.tick()
    assert chain.receipt(paid.id) is not None
    chain.fork(1, "reorder")
    assert chain.receipt(paid.id) is None
    assert paid.txid not in chain.pool


def test_no_fork_is_deeper_than_what_is_solidified():
    chain = chain_with()
    chain.mine(10)
    with pytest.raises(ValueError, match="1 to 4 blocks"):
        chain.fork(5)
    chain.stall(on=True)
    chain.mine(3)
    solid = chain.block(chain.solid)
    chain.fork(7)
    assert chain.block(chain.solid) is solid


def test_state_after_a_fork_is_that_of_the_new_branch_at_every_height():
    chain = chain_with()
    chain.mine(2)
    mined(chain, ALICE.pay(chain, BOB.address, 5))
    assert balance(chain, BOB, 2) == 1_000 * TRX
    chain.fork(1, "drop")
    assert [balance(chain, BOB, height) for height in (2, 3, 4)] == [1_000 * TRX] * 3


def test_a_forgotten_transaction_is_in_no_block_until_it_is_sent_again():
    chain = chain_with()
    paid = ALICE.pay(chain, BOB.address, 5)
    chain.submit(paid)
    assert chain.forget(paid.txid)
    assert not chain.forget(paid.txid)
    chain.mine(2)
    assert chain.receipt(paid.id) is None
    mined(chain, paid)
    assert balance(chain, BOB) == 1_000 * TRX + 5


def test_a_delayed_transaction_lands_later_and_can_be_forgotten_before():
    clock = Clock()
    chain = chain_with(clock)
    late, lost = ALICE.pay(chain, BOB.address, 5), ALICE.pay(chain, BOB.address, 6)
    for transaction in (late, lost):
        chain.submit(transaction, delay_ms=2_000)
    chain.mine()
    assert chain.receipt(late.id) is None
    assert chain.forget(lost.txid)
    clock.pass_ms(2_000)
    chain.mine()
    assert chain.receipt(late.id) is not None
    assert chain.receipt(lost.id) is None


def test_two_equal_payments_from_the_faucet_are_two_transactions():
    chain = chain_with()
    assert chain.fund(BOB.address, 5) != chain.fund(BOB.address, 5)
    chain.mine()
    assert balance(chain, BOB) == 1_000 * TRX + 10


# The catalogue


def test_the_catalogues_network_is_boxed_with_its_tokens():
    (box,) = make_networks(Catalog.load(), ["TRX"], now_ms=Clock())
    said = box.status()
    assert (box.name, said["chain_id"], said["block_ms"]) == ("TRX", 7_300_195, 1_000)
    assert said["tokens"]["USDT"] == {"contract": USDT, "decimals": 6, "behaviour": "false", "energy_factor": 34_000}
    assert dict(box.settings) == {"chain_id": 7_300_195}
    assert len(box.nodes) == 2


def test_another_witness_is_another_block():
    first, second = (seal(1, bytes(32), 5, Witness.of(bytes(31) + secret), ()) for secret in (b"\1", b"\2"))
    assert first.id != second.id
    assert first.id[:8] == second.id[:8] == (1).to_bytes(8, "big")
