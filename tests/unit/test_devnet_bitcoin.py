"""The Bitcoin network in a box as a state machine: Core's consensus code as judge, and a clock that the test turns."""

import gc
import random
from contextlib import suppress

import pytest

from penstock.catalog import Catalog
from penstock.devnet.bitcoin import blocks as blocklib
from penstock.devnet.bitcoin.box import network_of
from penstock.devnet.bitcoin.chain import CATCH_UP_MAX, CHAIN_ID, BitcoinChain, ChainSpec
from penstock.devnet.bitcoin.coins import EarlierCoins
from penstock.devnet.bitcoin.folder import PREFIX
from penstock.devnet.bitcoin.kernel import BadBytes, Kernel, Refused, first_bad_input
from penstock.devnet.bitcoin.policy import Rejected
from penstock.devnet.bitcoin.specs import networks_in_boxes
from penstock.devnet.bitcoin.transaction import COIN, address_of, hex_id, read, script_of, sha256d
from penstock.devnet.box import BadCommand
from penstock.devnet.boxes import make_networks
from penstock.devnet.control import control
from tests.fixtures.bitcoin_box import ALICE, BOB, CAROL, VECTORS, Town, outputs_of
from tests.fixtures.evm import Clock


def chain_on(clock, **spec):
    return BitcoinChain(ChainSpec(**{"name": "BTC", "block_ms": 0} | spec), now_ms=clock, seed=1)


def txids(block):
    return [tx.txid for tx in block.transactions[1:]]


# Bytes, addresses and the judge


@pytest.mark.parametrize("vector", VECTORS["bip143"]["transactions"], ids=lambda vector: vector["what"])
def test_published_transactions_are_read_and_their_signatures_hold(vector):
    raw, spent = bytes.fromhex(vector["raw"]), [(bytes.fromhex(script), units) for script, units in vector["spent"]]
    tx = read(raw)
    base = tx.base_size if tx.inputs[0].script == b"" else tx.base_size - len(tx.inputs[0].script)
    assert base == len(bytes.fromhex(vector["unsigned"]))
    assert tx.wtxid == hex_id(sha256d(raw))
    assert tx.weight == 3 * tx.base_size + len(raw)
    assert first_bad_input(raw, spent) is None
    wrong = [*spent[:-1], (spent[-1][0], spent[-1][1] + 1)]
    assert first_bad_input(raw, wrong) == len(spent) - 1, "a signature binds the amount"


def test_the_id_leaves_the_witness_out():
    town = Town()
    tx = read(town.pay())
    assert tx.txid != tx.wtxid
    without = tx.raw[:4] + tx.raw[6 : 6 + tx.base_size - 8] + tx.raw[-4:]
    assert tx.txid == hex_id(sha256d(without))


def test_what_is_not_exactly_one_transaction_is_none():
    raw = bytes.fromhex(VECTORS["bip143"]["transactions"][0]["raw"])
    for bad in (b"", raw[:-1], raw + b"\0", b"\xff" * 60):
        with pytest.raises(BadBytes):
            read(bad)


def test_published_regtest_addresses_are_read_and_written():
    for address, script in VECTORS["key_io"]["regtest"]:
        assert script_of(address).hex() == script
        assert address_of(bytes.fromhex(script)) == address
        if address.startswith("bcrt"):
            assert script_of(address.upper()).hex() == script
            mixed = address[:-1] + address[-1].upper()
            if mixed != address:
                with pytest.raises(ValueError, match="Invalid address"):
                    script_of(mixed)


def test_addresses_of_other_networks_and_damaged_ones_are_none():
    damaged = [address[:-1] + ("q" if address[-1] != "q" else "p") for address, _ in VECTORS["key_io"]["regtest"]]
    for address in [*VECTORS["key_io"]["other_networks"], *damaged, "", "bcrt1", " " + BOB.address]:
        with pytest.raises(ValueError, match="Invalid address"):
            script_of(address)


def test_the_first_block_is_regtests_own():
    town = Town(funds=())
    first = town.chain.blocks.at(0)
    known = VECTORS["genesis"]
    assert (first.hash, first.time, first.header[36:68][::-1].hex()) == (known["hash"], known["time"], known["merkle_root"])
    assert first.transactions[0].txid == known["merkle_root"]
    assert town.chain.blocks.coins.of(first.transactions[0].outputs[0].script) == {}, "nobody can ever spend it"


def test_core_itself_refuses_a_block_with_a_forged_signature():
    town = Town()
    forged = read(town.pay(forged=True))
    blocks = [town.chain.blocks.at(height) for height in range(1, town.chain.blocks.head.height + 1)]

    def offered(transaction):
        kernel = Kernel()
        for block in blocks:
            kernel.offer(block.raw, block.time)
        own = blocklib.coinbase(len(blocks) + 1, ALICE.script, 1_000, [transaction], b"test")
        found, header = blocklib.mine_header(blocks[-1].hash, [own, transaction], blocks[-1].time + 600)
        kernel.offer(header + b"\2" + own.raw + transaction.raw, blocks[-1].time + 600)
        return kernel.tip == found, kernel.verdict

    assert offered(forged) == (False, "INVALID: CONSENSUS")
    assert offered(read(town.pay())) == (True, "VALID: UNSET")


def test_core_refuses_a_block_without_work_at_once():
    town = Town()
    raw = bytearray(town.chain.blocks.head.raw)
    raw[76:80] = next(
        nonce.to_bytes(4, "little")
        for nonce in range(1_000)
        if int.from_bytes(sha256d(bytes(raw[:76]) + nonce.to_bytes(4, "little")), "little") > blocklib.TARGET
    )
    with pytest.raises(Refused, match="INVALID_HEADER"):
        Kernel().offer(bytes(raw), town.chain.blocks.head.time)


def test_a_box_is_never_the_main_network():
    with pytest.raises(ValueError, match="never a real network's"):
        ChainSpec(name="BTC", chain_id=3652501241)
    assert network_of(chain_on(Clock())).settings["chain_id"] == CHAIN_ID


# Blocks


def test_the_same_inputs_make_the_same_chain_and_another_seed_another_one():
    def run(seed):
        town = Town(seed=seed, block_ms=1_000)
        town.send()
        town.clock.pass_ms(5_700)
        town.box.tick()
        town.box.fund(BOB.address, 5_000)
        town.box.fork(2, "reorder")
        return town.chain.blocks.head.hash

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_blocks_come_when_they_are_due_and_bear_that_time():
    clock = Clock()
    chain = chain_on(clock, block_ms=1_000)
    clock.pass_ms(999)
    assert chain.tick() == 0
    clock.pass_ms(2_001)
    assert chain.tick() == 3
    assert [chain.blocks.at(height).time for height in (201, 202, 203)] == [1_800_000_001, 1_800_000_002, 1_800_000_003]


def test_after_a_long_silence_the_network_stood_still():
    clock = Clock()
    chain = chain_on(clock, block_ms=1_000)
    clock.pass_ms((CATCH_UP_MAX + 2) * 1_000)
    assert chain.tick() == 1


@pytest.mark.parametrize("now_ms", [0, 1_500_000_000_000, 4_000_000_000_000])
def test_any_clock_will_do_be_it_behind_the_first_block_or_ahead_of_this_machine(now_ms):
    chain = chain_on(Clock(now_ms))
    chain.mine(3)
    assert chain.blocks.head.height == 203
    assert chain.blocks.head.time == max(now_ms // 1_000, chain.blocks.at(202).median_time + 1)


def test_blocks_follow_faster_than_seconds_and_the_median_still_rises():
    town = Town(block_ms=50)
    town.clock.pass_ms(5_000)
    town.box.tick()
    medians = [town.chain.blocks.at(height).median_time for height in range(town.chain.blocks.head.height + 1)]
    times = [town.chain.blocks.at(height).time for height in range(town.chain.blocks.head.height + 1)]
    assert all(time > median for time, median in zip(times[1:], medians, strict=False))


def test_the_subsidy_halves_and_fees_go_to_the_maker_of_the_block():
    town = Town()
    assert [blocklib.subsidy(height) for height in (1, 149, 150, 299, 300)] == [50 * COIN, 50 * COIN, 25 * COIN, 25 * COIN, 1_250_000_000]
    town.send(fee=777)
    town.mine()
    assert town.chain.blocks.head.transactions[0].outputs[0].units == blocklib.subsidy(town.chain.blocks.head.height) + 777


def test_money_is_where_it_was_sent():
    town = Town()
    town.send(BOB, 30_000, fee=500)
    assert town.box.holding(BOB.address) == 0, "what waits is not held"
    town.mine()
    assert (town.box.holding(BOB.address), town.box.holding(ALICE.address)) == (30_000, COIN - 30_500)
    with pytest.raises(ValueError, match="Invalid address"):
        town.box.holding("bc1qvyq0cc6rahyvsazfdje0twl7ez82ndmuac2lhv")


def test_old_blocks_are_forgotten_and_the_chain_goes_on():
    town = Town(history=30)
    town.mine(30)
    assert town.chain.blocks.at(5) is None
    assert town.chain.blocks.was_pruned(town.chain.blocks.hash_at(5))
    assert len(town.chain.blocks.coins.of(ALICE.script)) == 1
    with pytest.raises(ValueError, match="from 1 to 18 "):
        town.box.fork(19)
    assert town.box.fork(18) == 232


# The faucet


def test_the_faucet_pays_every_kind_of_address_by_real_transactions():
    town = Town()
    paid = {address: town.box.fund(address, 50_000 + place) for place, (address, _) in enumerate(VECTORS["key_io"]["regtest"])}
    town.mine()
    assert txids(town.chain.blocks.head) == list(paid.values())
    assert [town.box.holding(address) for address in paid] == [50_000 + place for place in range(len(paid))]


def test_the_faucet_can_pay_at_once_often_and_much():
    town = Town(funds=())
    town.box.fund(BOB.address, 2_000 * COIN)
    for _ in range(150):
        town.box.fund(ALICE.address, COIN)
    town.mine()
    assert (town.box.holding(ALICE.address), town.box.holding(BOB.address)) == (150 * COIN, 2_000 * COIN)


def test_the_faucet_refuses_what_no_transaction_can_do():
    town = Town()
    for address, units, words in [
        (BOB.address, 293, "from 294"),
        (BOB.address, 10_000 * COIN, "the faucet has"),
        ("bc1qvyq0cc6rahyvsazfdje0twl7ez82ndmuac2lhv", 10_000, "Invalid address"),
    ]:
        with pytest.raises(ValueError, match=words):
            town.box.fund(address, units)
    with pytest.raises(ValueError, match="no tokens"):
        town.box.fund(BOB.address, 10_000, "USDT")


# Forks


@pytest.mark.parametrize("depth", range(1, 7))
def test_a_fork_that_keeps_brings_the_transactions_back(depth):
    town = Town()
    txid = town.send()
    height = town.mine(depth)
    before = town.chain.blocks.head.hash
    assert town.box.fork(depth) == height + 1
    assert town.chain.blocks.find(txid)[0].height == height - depth + 1
    assert not town.chain.blocks.is_active(town.chain.blocks.get(before)), "the old block is known, and no longer of the chain"
    assert town.box.holding(BOB.address) == 10_000


def test_a_fork_that_drops_forgets_until_somebody_sends_again():
    town = Town()
    raw = town.pay()
    txid = town.chain.submit(raw).tx.txid
    town.mine()
    town.box.fork(1, "drop")
    town.mine()
    assert town.chain.blocks.find(txid) is None
    assert town.box.holding(BOB.address) == 0
    town.chain.submit(raw)
    town.mine()
    assert town.box.holding(BOB.address) == 10_000


def test_a_fork_that_reorders_brings_them_a_block_later_and_newest_first():
    town = Town(funds=(COIN, COIN))
    (first, second) = (town.send(coins=[coin], fee=fee) for coin, fee in zip(town.coins(), (2_000, 1_000), strict=True))
    town.mine()
    assert txids(town.chain.blocks.head) == [first, second]
    town.box.fork(1, "reorder")
    older, newer = (town.chain.blocks.at(town.chain.blocks.head.height - back) for back in (1, 0))
    assert (txids(older), txids(newer)) == ([], [second, first])


def test_what_spends_from_a_dropped_transaction_is_dropped_with_it():
    town = Town()
    raw = town.pay()
    txid = town.chain.submit(raw).tx.txid
    town.mine()
    child = town.send(purse=BOB, to=CAROL, units=5_000)
    town.box.fork(1, "drop")
    assert town.chain.mempool.get(child) is None
    assert town.chain.blocks.find(txid) is None


def test_a_conflicting_payment_may_win_the_fork():
    town = Town()
    first, other = town.send(BOB), town.pay(CAROL)
    town.mine()
    town.box.set_block_time(0)
    town.box.fork(1, "drop")
    second = town.chain.submit(other).tx.txid
    town.mine()
    assert (town.box.holding(BOB.address), town.box.holding(CAROL.address)) == (0, 10_000)
    assert town.chain.blocks.find(first) is None
    assert town.chain.blocks.find(second) is not None


def test_a_fork_may_be_as_deep_as_the_chain():
    town = Town()
    height = town.chain.blocks.head.height
    assert town.box.fork(height) == height + 1
    assert town.box.holding(ALICE.address) == 0, "it came from the subsidy of a block that is no more"
    for depth in (0, height + 2):
        with pytest.raises(ValueError, match="a fork is from 1"):
            town.box.fork(depth)


def test_coins_are_the_same_after_undoing_and_making_the_blocks_again():
    town = Town(funds=(COIN, COIN, COIN))
    for _ in range(3):
        town.send(fee=400)
        town.mine()
    before = dict(town.chain.blocks.coins.of(ALICE.script))
    town.box.fork(3)
    assert {outpoint: coin.units for outpoint, coin in town.chain.blocks.coins.of(ALICE.script).items()} == {
        outpoint: coin.units for outpoint, coin in before.items()
    }


def test_an_invalidated_block_is_undone_with_all_that_follows_and_may_come_back():
    town = Town()
    txid = town.send()
    height = town.mine()
    block = town.chain.blocks.head
    town.mine(2)
    tip = town.chain.blocks.head.hash
    town.chain.invalidate(block)
    assert town.chain.blocks.head.height == height - 1
    assert town.chain.mempool.get(txid) is not None
    town.mine()
    assert town.chain.blocks.find(txid)[0].hash != block.hash
    town.chain.reconsider(block)
    assert town.chain.blocks.head.hash == tip
    assert town.chain.blocks.find(txid)[0].hash == block.hash
    town.mine()


# Earlier coins, other knobs


def test_coins_as_they_were_some_blocks_ago():
    town = Town()
    before = town.chain.blocks.coins.of(ALICE.script)
    raw = town.pay()
    txid = town.chain.submit(raw).tx.txid
    town.mine()
    (change,) = outputs_of(raw, txid, ALICE)
    town.send(coins=[change], fee=900)
    town.mine()
    unseen = [town.chain.blocks.at(town.chain.blocks.head.height - back) for back in (1, 0)]
    earlier = EarlierCoins(town.chain.blocks.coins, unseen)
    assert earlier.of(ALICE.script) == before
    assert earlier.of(BOB.script) == {}
    assert earlier.get(change[0]) is None, "it did not exist yet, though it is spent by now"
    assert [earlier.get(outpoint) for outpoint in before] == list(before.values())


def test_a_spike_makes_cheap_ones_wait_until_it_is_over():
    town = Town()
    usual = town.chain.market_fee(1)
    cheap = town.send(fee=300)
    town.box.spike(10)
    assert town.chain.market_fee(1) == 10 * usual
    town.mine(2)
    assert town.chain.mempool.get(cheap) is not None
    town.box.fund(BOB.address, 5_000)
    town.mine()
    assert len(txids(town.chain.blocks.head)) == 1, "the faucet pays what is asked"
    town.box.spike(1)
    town.mine()
    assert town.chain.blocks.find(cheap) is not None
    with pytest.raises(ValueError, match="1 or more"):
        town.box.spike(0)


def test_forgotten_transactions_leave_the_mempool_with_their_children():
    town = Town()
    raw = town.pay()
    parent = town.chain.submit(raw).tx.txid
    child = town.send(coins=outputs_of(raw, parent, ALICE), fee=700)
    assert town.box.forget(parent)
    assert (town.chain.mempool.get(child), town.box.forget(parent)) == (None, False)
    town.mine()
    assert town.box.holding(BOB.address) == 0


def test_small_blocks_take_the_best_feerates_first():
    town = Town(funds=[COIN] * 80)
    control([town.box], {"do": "block_weight", "weight": 40_000})
    sent = [town.send(coins=[coin], fee=300 + 10 * place) for place, coin in enumerate(town.coins())]
    town.mine()
    first = txids(town.chain.blocks.head)
    assert first == list(reversed(sent))[: len(first)]
    assert 0 < len(first) < len(sent)
    assert town.chain.blocks.head.weight <= 40_000
    town.mine()
    assert len(first) + len(txids(town.chain.blocks.head)) == len(sent)


def test_the_knobs_of_the_family_answer_with_the_status_and_refuse_nonsense():
    town = Town()
    assert control([town.box], {"do": "relay_fee", "sat_per_kvb": 100})["fee_sat_per_kvb"] == 2_000
    assert town.call("getnetworkinfo")["relayfee"] == 0.000001
    for command in ({"do": "block_weight", "weight": 1}, {"do": "mempool_min"}, {"do": "relay_fee", "sat_per_kvb": -1}):
        with pytest.raises(BadCommand):
            control([town.box], command)
    status = control([town.box], {"do": "status"})
    assert (status["network"], status["chain_id"], status["faults"]) == ("BTC", CHAIN_ID, [{}, {}])


# The box among boxes


def test_the_catalogues_bitcoin_is_in_the_box_at_a_second_a_block():
    (network,) = make_networks(Catalog.load(), ["BTC"], now_ms=Clock())
    assert (network.name, network.settings["chain_id"], network.status()["block_ms"], len(network.nodes)) == ("BTC", CHAIN_ID, 1_000, 2)
    assert set(networks_in_boxes(Catalog.load(), now_ms=Clock(), seed=0, nodes=1)) == {"BTC"}
    with pytest.raises(ValueError, match="from 1 to 16"):
        network_of(chain_on(Clock()), nodes=17)


def test_where_cores_code_is_not_installed_bitcoin_is_left_out(monkeypatch):
    monkeypatch.setattr("penstock.devnet.bitcoin.specs.KERNEL", "no_such_package")
    with pytest.raises(ValueError, match="no network BTC"):
        make_networks(Catalog.load(), ["BTC"], now_ms=Clock())


def test_several_chains_live_in_one_process_each_with_its_own_clock():
    early, late = Town(), Town(seed=2)
    late.clock.pass_ms(10**12)
    for _ in range(3):
        early.mine()
        late.mine()
    assert late.chain.blocks.head.time - early.chain.blocks.head.time == 10**9
    assert early.chain.blocks.head.height == late.chain.blocks.head.height == 204


def test_block_files_go_with_the_box(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    chain = chain_on(Clock())
    assert [path.name.startswith(PREFIX) for path in tmp_path.iterdir()] == [True]
    del chain
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_block_files_of_a_box_that_was_killed_go_with_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    killed, foreign = tmp_path / f"{PREFIX}killed", tmp_path / f"{PREFIX}foreign"
    for folder in (killed, foreign):
        folder.mkdir()
    (killed / "lock").touch()
    alive = chain_on(Clock())
    second = chain_on(Clock())
    assert (killed.exists(), foreign.exists(), len(list(tmp_path.iterdir()))) == (False, True, 3)
    alive.mine()
    assert (alive.blocks.head.height, second.blocks.head.height) == (201, 200)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_core_agrees_and_no_satoshi_is_made_or_lost(seed):
    dice = random.Random(seed)
    town = Town(seed=seed, funds=[COIN] * 4)
    purses = [ALICE, BOB, CAROL]

    def coins_to_hand(purse):
        waiting = [
            (outpoint, coin)
            for entry in town.chain.mempool
            for outpoint, coin in outputs_of(entry.tx.raw, entry.tx.txid, purse)
            if dice.random() < 0.5
        ]
        return [*town.coins(purse), *waiting]

    def pay():
        purse = dice.choice(purses)
        coins = coins_to_hand(purse)
        if coins:
            taken = dice.sample(coins, min(len(coins), dice.randint(1, 3)))
            held, fee = sum(coin.units for _, coin in taken), dice.choice([150, 500, 2_000, 9_000])
            if held > 2 * fee + 2_000:
                with suppress(Rejected):
                    town.chain.submit(town.pay(dice.choice(purses), (held - fee) // 2, fee=fee, coins=taken, purse=purse))

    def fork():
        town.box.fork(dice.randint(1, 6), dice.choice(["keep", "drop", "reorder"]))

    def forget():
        if len(town.chain.mempool):
            town.box.forget(dice.choice([entry.tx.txid for entry in town.chain.mempool]))

    def undo():
        block = town.chain.blocks.at(town.chain.blocks.head.height - dice.randint(0, 3))
        town.chain.invalidate(block)
        if dice.random() < 0.5:
            town.mine(dice.randint(1, 3))
        town.chain.reconsider(block)

    for _ in range(150):
        dice.choice([pay] * 12 + [town.mine] * 4 + [fork, forget, undo, lambda: town.box.spike(dice.randint(1, 8))])()
    town.mine()
    made = sum(blocklib.subsidy(height) for height in range(1, town.chain.blocks.head.height + 1))
    held = sum(coin.units for coin in town.chain.blocks.coins)
    assert held == made, "fees go to the makers of blocks, and nothing else is lost"
    for entry in town.chain.mempool:
        assert town.chain.mempool.parents(entry.tx.txid) or all(town.chain.blocks.coins.get(one.outpoint) for one in entry.tx.inputs)
