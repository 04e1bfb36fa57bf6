"""The EVM network in a box as a state machine: no socket, and a clock that the test turns."""

import json
import random
import sys

import pytest
import rlp
from eth.vm.forks.london.blocks import LondonBlockHeader
from eth_bloom import BloomFilter
from hypothesis import given, settings
from hypothesis import strategies as st
from trie import HexaryTrie

from penstock.catalog import Catalog
from penstock.devnet.boxes import make_networks
from penstock.devnet.evm import blocks
from penstock.devnet.evm.chain import CATCH_UP_MAX, CHAIN_IDS, L1_FEE_VAULT, ChainSpec, EvmChain, box_chain_id
from penstock.devnet.evm.execution import Call, Log
from penstock.devnet.evm.mempool import Rejected
from penstock.devnet.evm.specs import specs as specs_of
from penstock.rails.evm import codec
from tests.fixtures.evm import ALICE, BOB, CAROL, CHAIN_ID, ETHER, GWEI, USDT, Clock, Wallet, chain_with


def wei(chain, wallet, height=None):
    return chain.state(chain.head.number if height is None else height).account(wallet.raw_address).balance


def units(chain, wallet, height=None):
    to = bytes.fromhex(USDT[2:])
    call = Call(bytes(20), to, 0, codec.balance_of_call_data(wallet.address), 100_000, 0, 0)
    return codec.decode_uint256(chain.call(call, chain.head.number if height is None else height).output)


def refusal(chain, raw):
    with pytest.raises(Rejected) as error:
        chain.submit(raw)
    return str(error.value)


# Identity


def test_a_box_never_has_the_chain_id_of_a_real_network():
    real = {network.chain_id for network in Catalog.load().networks()}
    for chain_id in [*real, 1, 31337, CHAIN_IDS.start - 1, CHAIN_IDS.stop]:
        with pytest.raises(ValueError, match="never a real network's"):
            ChainSpec(name="ETH", chain_id=chain_id)
    with pytest.raises(ValueError, match="no private chain id"):
        box_chain_id(11_155_111)


def test_the_catalogue_in_a_box_keeps_names_contracts_and_decimals():
    catalog = Catalog.load()
    specs = specs_of(catalog)
    assert {spec.name for spec in specs} == {network.chain for network in catalog.networks() if network.family == "evm"}
    assert len({spec.chain_id for spec in specs}) == len(specs)
    for spec in specs:
        assert spec.chain_id in CHAIN_IDS
        assert spec.chain_id == CHAIN_IDS.start + catalog.network(spec.name).chain_id
        tokens = {token.contract: token.decimals for token in catalog.tokens_on(spec.name) if token.contract}
        assert {address: token.decimals for address, token in spec.tokens.items()} == tokens
    assert [network.name for network in make_networks(catalog, ["BSC"], now_ms=lambda: 0)] == ["BSC"]
    with pytest.raises(ValueError, match="no network DOGE"):
        make_networks(catalog, ["DOGE"], now_ms=lambda: 0)


def test_the_same_inputs_make_the_same_chain():
    def run(seed):
        clock = Clock()
        chain = chain_with(clock, seed=seed, block_ms=1000)
        for nonce in range(5):
            chain.submit(ALICE.pay(nonce, BOB.address, nonce))
            clock.pass_ms(700)
        chain.fund_token(USDT, BOB.address, 5)
        clock.pass_ms(5000)
        chain.tick()
        chain.fork(2, "reorder")
        return chain.head.hash

    assert run(1) == run(1)
    assert run(1) != run(2)


# Blocks


def test_a_header_hashes_as_py_evm_hashes_it():
    chain = chain_with()
    chain.submit(ALICE.pay(0, BOB.address))
    for block in (chain.head, chain.mine()):
        header = block.header
        theirs = LondonBlockHeader(
            difficulty=0,
            block_number=header.number,
            gas_limit=header.gas_limit,
            timestamp=header.timestamp,
            coinbase=header.coinbase,
            parent_hash=header.parent_hash,
            uncles_hash=blocks.EMPTY_UNCLES_HASH,
            state_root=header.state_root,
            transaction_root=header.transactions_root,
            receipt_root=header.receipts_root,
            bloom=header.logs_bloom,
            gas_used=header.gas_used,
            extra_data=header.extra,
            mix_hash=header.mix_hash,
            nonce=bytes(8),
            base_fee_per_gas=header.base_fee,
        )
        assert block.hash == theirs.hash
    assert chain.head.header.parent_hash == chain.block(0).hash
    assert chain.block_by_hash(chain.head.hash) is chain.head


@given(st.lists(st.binary(min_size=1, max_size=80), max_size=300))
def test_the_roots_of_a_block_are_those_of_the_real_trie(values):
    trie = HexaryTrie({})
    for position, value in enumerate(values):
        trie[rlp.encode(position)] = value
    assert blocks.ordered_trie_root(values) == trie.root_hash


@given(st.lists(st.tuples(st.binary(min_size=20, max_size=20), st.lists(st.binary(min_size=32, max_size=32), max_size=4)), max_size=5))
def test_blooms_are_those_of_eth_bloom(events):
    theirs = BloomFilter()
    for address, topics in events:
        theirs.extend([address, *topics])
    assert blocks.bloom([Log(address, tuple(topics), b"") for address, topics in events]) == int(theirs)


def test_the_base_fee_moves_as_eip_1559_says():
    # https://github.com/ethereum/go-ethereum/blob/master/consensus/misc/eip1559/eip1559_test.go (TestCalcBaseFee)
    assert blocks.next_base_fee(1_000_000_000, 10_000_000, 20_000_000) == 1_000_000_000
    assert blocks.next_base_fee(1_000_000_000, 9_000_000, 20_000_000) == 987_500_000
    assert blocks.next_base_fee(1_000_000_000, 11_000_000, 20_000_000) == 1_012_500_000
    assert blocks.next_base_fee(7, 20_000_000, 20_000_000) == 8, "one wei at least"


def test_full_blocks_raise_the_base_fee_and_empty_ones_lower_it_to_its_floor():
    chain = chain_with(gas_limit=42_000, base_fee=GWEI)
    for nonce in range(4):
        chain.submit(ALICE.pay(nonce, BOB.address))
    fees = [chain.mine().header.base_fee for _ in range(2)] + [chain.next_base_fee()]
    assert fees == [GWEI, GWEI * 9 // 8, GWEI * 81 // 64]
    chain.mine(5)
    assert chain.next_base_fee() == GWEI


def test_however_many_spikes_come_the_fee_stays_a_number_that_falls_again():
    """Seeds 961476727 and 2025020344: a stormy day multiplied it past 256 bits, and no good weather brought it down."""
    chain = chain_with(base_fee=GWEI)
    for _ in range(300):
        chain.spike(8)
        chain.mine()
    assert chain.next_base_fee() == 10_000 * GWEI * 7 // 8
    for _ in range(100):
        chain.mine()
    assert chain.next_base_fee() == GWEI


def test_blocks_come_with_the_clock_and_looking_often_changes_nothing():
    chains = []
    for step in (100, 5_000):
        clock = Clock()
        chain = chain_with(clock, block_ms=1000)
        for _ in range(10_000 // step):
            clock.pass_ms(step)
            chain.tick()
        chains.append(chain)
    often, seldom = chains
    assert often.head.number == seldom.head.number == 10
    assert often.head.hash == seldom.head.hash
    assert [often.block(number).header.timestamp for number in (0, 1, 10)] == [1_800_000_000, 1_800_000_001, 1_800_000_010]


def test_a_submission_gets_into_the_next_block_due_and_no_earlier_one():
    clock = Clock()
    chain = chain_with(clock, block_ms=1000)
    clock.pass_ms(2_500)
    txid = chain.submit(ALICE.pay(0, BOB.address))
    assert chain.head.number == 2
    clock.pass_ms(500)
    assert chain.tick() == 1
    assert chain.receipt(txid)[0].number == 3


def test_after_a_long_silence_the_network_has_stood_still():
    clock = Clock()
    chain = chain_with(clock, block_ms=10)
    clock.pass_ms(10 * (CATCH_UP_MAX + 2))
    assert chain.tick() == 1
    clock.pass_ms(20)
    assert chain.tick() == 2


def test_a_clock_that_goes_back_makes_no_block_and_no_timestamp_fall():
    clock = Clock()
    chain = chain_with(clock, block_ms=1000)
    clock.pass_ms(3_000)
    chain.tick()
    clock.pass_ms(-60_000)
    assert chain.tick() == 0
    assert chain.mine().header.timestamp == 1_800_000_003


def test_old_states_are_forgotten_but_never_the_genesis_block():
    chain = chain_with(history=10)
    first = chain.submit(ALICE.pay(0, BOB.address, 7))
    for _ in range(30):
        chain.mine()
    assert chain.state(19) is None
    assert wei(chain, BOB, 20) == wei(chain, BOB) == 7
    assert chain.block(5) is None
    assert chain.receipt(first) is None
    assert chain.block(0).number == 0


# Money


def test_a_payment_moves_value_burns_the_base_fee_and_tips_the_maker():
    chain = chain_with()
    txid = chain.submit(ALICE.pay(0, BOB.address, 5 * ETHER, tip=2 * GWEI))
    block = chain.mine()
    _, receipt = chain.receipt(txid)
    assert (receipt.success, receipt.gas_used, receipt.price) == (True, 21_000, 3 * GWEI)
    assert wei(chain, BOB) == 5 * ETHER
    assert wei(chain, ALICE) == 95 * ETHER - 21_000 * 3 * GWEI
    assert chain.state(1).account(block.header.coinbase).balance == 21_000 * 2 * GWEI
    assert wei(chain, ALICE, 0) == 100 * ETHER, "the state of every block stays"


def test_a_payment_to_oneself_costs_only_the_fee():
    chain = chain_with()
    chain.submit(ALICE.pay(0, ALICE.address, ETHER))
    chain.mine()
    assert wei(chain, ALICE) == 100 * ETHER - 21_000 * 2 * GWEI


def test_a_token_moves_and_says_so_in_its_event():
    chain = chain_with()
    chain.fund_token(USDT, ALICE.address, 1_000)
    chain.mine()
    txid = chain.submit(ALICE.pay_token(0, BOB.address, 400))
    chain.mine()
    block, receipt = chain.receipt(txid)
    assert (units(chain, ALICE), units(chain, BOB), units(chain, ALICE, block.number - 1)) == (600, 400, 1_000)
    (log,) = receipt.logs
    as_json = {"address": "0x" + log.address.hex(), "topics": ["0x" + topic.hex() for topic in log.topics], "data": "0x" + log.data.hex()}
    assert codec.exact_transfers([as_json], USDT, ALICE.address, [(BOB.address, 400)])
    assert block.header.logs_bloom == blocks.bloom([log])
    assert 45_000 < receipt.gas_used < 55_000, "as on a real network, a first transfer to somebody"


def test_a_token_that_is_not_there_reverts_keeps_the_fee_and_uses_the_nonce():
    chain = chain_with()
    txid = chain.submit(ALICE.pay_token(0, BOB.address, 1))
    chain.mine()
    _, receipt = chain.receipt(txid)
    assert (receipt.success, receipt.logs) == (False, ())
    assert wei(chain, ALICE) == 100 * ETHER - receipt.gas_used * receipt.price
    assert chain.pending_nonce(ALICE.raw_address) == 1


def test_out_of_gas_takes_all_gas():
    chain = chain_with()
    chain.fund_token(USDT, ALICE.address, 1_000)
    chain.mine()
    txid = chain.submit(ALICE.pay_token(0, BOB.address, 1, gas=30_000))
    chain.mine()
    _, receipt = chain.receipt(txid)
    assert (receipt.success, receipt.gas_used) == (False, 30_000)


def test_a_contract_can_be_created_and_refuse_money():
    chain = chain_with()
    # PUSH1 0 PUSH1 0 REVERT, returned by init code: a contract that takes nothing
    runtime = bytes.fromhex("60006000fd")
    init = bytes.fromhex("64" + runtime.hex() + "6000526005601bf3")
    created = chain.submit(ALICE.pay(0, None, 0, data=init, gas=200_000))
    chain.mine()
    _, receipt = chain.receipt(created)
    assert receipt.success
    assert chain.state(1).account(receipt.created).code == runtime
    paid = chain.submit(ALICE.pay(1, codec.checksum("0x" + receipt.created.hex()), ETHER, gas=50_000))
    chain.mine()
    assert not chain.receipt(paid)[1].success
    assert chain.state(2).account(receipt.created).balance == 0


def test_calls_nested_too_deep_fail_and_the_interpreter_stays_as_it_was():
    # calls itself with all gas: PUSH1 0 x5, ADDRESS, GAS, CALL
    chain = chain_with(contracts={CAROL.address: bytes.fromhex("60006000600060006000305af1")})
    txid = chain.submit(ALICE.pay(0, CAROL.address, 0, gas=29_000_000))
    chain.mine()
    assert chain.receipt(txid) is not None
    assert sys.getrecursionlimit() == 1_000
    with pytest.raises(RecursionError):
        json.loads("[" * 100_000)


def test_code_can_stand_in_the_genesis():
    chain = chain_with(contracts={CAROL.address: bytes.fromhex("60006000fd")})
    txid = chain.submit(ALICE.pay(0, CAROL.address, 1, gas=50_000))
    chain.mine()
    assert not chain.receipt(txid)[1].success


def test_on_an_op_stack_the_l1_fee_is_really_paid():
    chain = chain_with(op_stack=True)
    raw = ALICE.pay(0, BOB.address, ETHER)
    txid = chain.submit(raw)
    chain.mine()
    _, receipt = chain.receipt(txid)
    unsigned = codec.encode_unsigned(codec.decode(raw).unsigned)
    oracle = bytes.fromhex(codec.GAS_PRICE_ORACLE[2:])
    answer = chain.call(Call(bytes(20), oracle, 0, codec.get_l1_fee_call_data(unsigned), 100_000, 0, 0), 1)
    assert codec.decode_uint256(answer.output) == receipt.l1_fee > 0
    assert wei(chain, ALICE) == 99 * ETHER - 21_000 * receipt.price - receipt.l1_fee
    assert chain.state(1).account(L1_FEE_VAULT).balance == receipt.l1_fee
    poor = chain_with(op_stack=True, balances={ALICE.address: ETHER + 21_000 * 100 * GWEI})
    assert "insufficient funds" in refusal(poor, raw)


def test_a_legacy_network_knows_no_base_fee_and_no_type_2():
    chain = chain_with(legacy=True, base_fee=3 * GWEI)
    assert refusal(chain, ALICE.pay(0, BOB.address)).startswith("transaction type not supported")
    low = chain.submit(ALICE.pay(0, BOB.address, fee=2 * GWEI, legacy=True))
    block = chain.mine()
    assert block.header.base_fee is None
    assert chain.receipt(low) is None, "below what the block takes"
    chain.submit(ALICE.pay(0, BOB.address, fee=4 * GWEI, legacy=True))
    block = chain.mine()
    assert chain.state(2).account(block.header.coinbase).balance == 21_000 * 4 * GWEI


# Forks


def test_a_fork_brings_transactions_back_in_other_blocks():
    chain = chain_with()
    txid = chain.submit(ALICE.pay(0, BOB.address, 7))
    old = chain.mine()
    chain.mine()
    chain.fork(2)
    assert chain.head.number == 3, "the winning branch is longer"
    block, _ = chain.receipt(txid)
    assert block.number == 1
    assert block.hash != old.hash
    assert chain.block_by_hash(old.hash) is None
    assert wei(chain, BOB) == 7


def test_a_fork_can_lose_transactions_for_good():
    chain = chain_with()
    raw = ALICE.pay(0, BOB.address, 7)
    txid = chain.submit(raw)
    chain.mine()
    chain.fork(1, "drop")
    assert chain.receipt(txid) is None
    assert chain.mempool.get(txid) is None
    assert (wei(chain, BOB), wei(chain, ALICE)) == (0, 100 * ETHER)
    assert chain.submit(raw) == txid, "the same bytes are as good as before"
    chain.mine()
    assert wei(chain, BOB) == 7


def test_a_fork_can_bring_another_order():
    chain = chain_with(balances={wallet.address: ETHER for wallet in (ALICE, BOB)})
    for wallet in (ALICE, BOB):
        chain.submit(wallet.pay(0, CAROL.address))
    assert [receipt.transaction.sender for receipt in chain.mine().receipts] == [ALICE.address, BOB.address]
    chain.fork(1, "reorder")
    assert chain.block(1).receipts == ()
    assert [receipt.transaction.sender for receipt in chain.block(2).receipts] == [BOB.address, ALICE.address]


def test_a_transaction_that_succeeded_can_fail_in_the_other_branch():
    chain = chain_with(balances={wallet.address: ETHER for wallet in (ALICE, BOB)})
    chain.fund_token(USDT, ALICE.address, 10)
    chain.mine()
    first, second = ALICE.pay_token(0, CAROL.address, 10), ALICE.pay_token(1, BOB.address, 10)
    chain.submit(first)
    chain.mine()
    chain.fork(1, "drop")
    chain.submit(ALICE.pay_token(0, BOB.address, 10, tip=2 * GWEI))
    chain.submit(second)
    assert [receipt.success for receipt in chain.mine().receipts] == [True, False]


def test_what_is_final_is_never_undone():
    chain = chain_with(finality_depth=3)
    chain.mine(5)
    assert (chain.final, chain.safe) == (2, 3)
    with pytest.raises(ValueError, match="from 1 to 3"):
        chain.fork(4)
    chain.fork(3)
    free = chain_with(finality_tag=False)
    free.mine(300)
    free.fork(256)
    assert free.head.number == 301


def test_a_spike_falls_by_an_eighth_a_block():
    chain = chain_with()
    chain.spike(100)
    assert [chain.mine().header.base_fee // GWEI for _ in range(3)] == [100, 87, 76]


def test_the_faucet_pays_by_real_transactions():
    chain = chain_with()
    coins, tokens = chain.fund(CAROL.address, 5), chain.fund_token(USDT.lower(), CAROL.address.lower(), 6)
    chain.mine()
    assert chain.receipt(coins)[1].transaction.sender == chain.faucet
    assert chain.receipt(tokens)[1].success
    assert (wei(chain, CAROL), units(chain, CAROL)) == (5, 6)


wallets = [Wallet.number(number) for number in range(1, 5)]
deeds = st.lists(st.tuples(st.sampled_from(["pay", "token", "mine", "fork", "spike", "bump"]), st.integers(0, 2**16)), max_size=25)


@settings(max_examples=40)
@given(deeds)
def test_whatever_happens_no_wei_and_no_token_comes_or_goes(deeds):
    chain = chain_with(balances={wallet.address: ETHER for wallet in wallets}, op_stack=True)
    for wallet in wallets:
        chain.fund_token(USDT, wallet.address, 1_000)
    chain.mine()
    total = 10**27 + len(wallets) * ETHER
    for deed, number in deeds:
        sender, recipient = wallets[number % 4], wallets[number // 4 % 4]
        nonce = chain.pending_nonce(sender.raw_address)
        try:
            match deed:
                case "pay":
                    chain.submit(sender.pay(nonce, recipient.address, number))
                case "token":
                    chain.submit(sender.pay_token(nonce, recipient.address, number % 1_500))
                case "bump":
                    chain.submit(sender.pay(max(0, nonce - 1), recipient.address, number, tip=2 * GWEI, fee=130 * GWEI))
                case "mine":
                    chain.mine()
                case "fork":
                    chain.fork(1 + number % 3, random.Random(number).choice(["keep", "drop", "reorder"]))
                case "spike":
                    chain.spike(1 + number % 5)
        except (Rejected, ValueError):
            continue
    head, burnt = chain.head.number, 0
    for height in range(1, head + 1):
        block = chain.block(height)
        assert block.header.parent_hash == chain.block(height - 1).hash
        burnt += block.header.gas_used * block.header.base_fee
    holders = {chain.head.header.coinbase, L1_FEE_VAULT, bytes.fromhex(chain.faucet[2:]), *(wallet.raw_address for wallet in wallets)}
    state = chain.state(head)
    assert sum(state.account(holder).balance for holder in holders) + burnt == total
    assert sum(units(chain, wallet) for wallet in wallets) <= 1_000 * len(wallets)
    mined = [receipt for height in range(1, head + 1) for receipt in chain.block(height).receipts]
    assert len({receipt.transaction.txid for receipt in mined}) == len(mined)
    for wallet in wallets:
        nonces = [receipt.transaction.unsigned.nonce for receipt in mined if receipt.transaction.sender == wallet.address]
        assert nonces == list(range(state.account(wallet.raw_address).nonce))


def test_two_networks_share_nothing():
    clock = Clock()
    first, second = (EvmChain(ChainSpec(name=name, chain_id=CHAIN_ID + n), now_ms=clock) for n, name in enumerate(("A", "B")))
    assert first.head.hash != second.head.hash
    assert first.faucet != second.faucet
