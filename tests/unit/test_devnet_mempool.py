"""The mempool of the box: what a node takes, what it refuses and in which words, and what gets into the next block."""

import pytest

from penstock.devnet.evm.mempool import Rejected
from tests.fixtures.evm import ALICE, BOB, CAROL, CHAIN_ID, ETHER, GWEI, Clock, chain_with


def refusal(chain, raw):
    with pytest.raises(Rejected) as error:
        chain.submit(raw)
    return str(error.value)


def test_what_a_node_refuses_it_refuses_in_geths_words():
    chain = chain_with()
    raw = ALICE.pay(0, BOB.address)
    chain.submit(raw)
    assert refusal(chain, raw) == "already known"
    chain.mine()
    assert refusal(chain, raw) == "already known", "geth too knows what it has just mined"
    assert refusal(chain, ALICE.pay(0, CAROL.address)) == "nonce too low: next nonce 1, tx nonce 0"
    cost = 21_000 * 100 * GWEI + 1
    assert refusal(chain, BOB.pay(0, ALICE.address)) == (
        f"insufficient funds for gas * price + value: balance 1, tx cost {cost}, overshot {cost - 1}"
    )
    assert refusal(chain, ALICE.pay(1, BOB.address, gas=20_999)) == "intrinsic gas too low: gas 20999, minimum needed 21000"
    assert refusal(chain, ALICE.pay(1, BOB.address, data=b"\1\0", gas=21_019)) == "intrinsic gas too low: gas 21019, minimum needed 21020"
    floor = "insufficient gas for floor data gas cost: gas 21020, minimum needed 21050"
    assert refusal(chain, ALICE.pay(1, BOB.address, data=b"\1\0", gas=21_020)) == floor
    assert refusal(chain, ALICE.pay(1, BOB.address, gas=30_000_001)) == "exceeds block gas limit"
    assert refusal(chain, ALICE.pay(1, BOB.address, tip=0)) == "transaction underpriced: gas tip cap 0, minimum needed 1"
    wrong = f"invalid sender: invalid chain id for signer: have 1 want {CHAIN_ID}"
    assert refusal(chain, ALICE.pay(1, BOB.address, chain_id=1)) == wrong
    assert refusal(chain, b"\1") == "transaction type not supported"
    assert len(chain.mempool) == 0


def test_a_gap_waits_until_it_is_filled():
    chain = chain_with()
    third, second = chain.submit(ALICE.pay(2, BOB.address)), chain.submit(ALICE.pay(1, BOB.address))
    assert chain.mine().receipts == ()
    assert chain.pending_nonce(ALICE.raw_address) == 0
    first = chain.submit(ALICE.pay(0, BOB.address))
    assert chain.pending_nonce(ALICE.raw_address) == 3
    assert [receipt.transaction.txid for receipt in chain.mine().receipts] == [first, second, third]


@pytest.mark.parametrize(("tip", "fee", "taken"), [(110, 1100, True), (109, 1100, False), (110, 1099, False), (125, 1000, False)])
def test_a_replacement_offers_a_tenth_more_on_both_fees(tip, fee, taken):
    chain = chain_with(base_fee=1)
    old = chain.submit(ALICE.pay(0, BOB.address, tip=100, fee=1000))
    raw = ALICE.pay(0, CAROL.address, tip=tip, fee=fee)
    if not taken:
        assert refusal(chain, raw) == "replacement transaction underpriced"
        return
    new = chain.submit(raw)
    assert [receipt.transaction.txid for receipt in chain.mine().receipts] == [new]
    assert chain.receipt(old) is None


def test_all_that_waits_must_be_covered_together():
    chain = chain_with(balances={ALICE.address: 3 * ETHER})
    chain.submit(ALICE.pay(0, BOB.address, 2 * ETHER))
    assert "queued cost" in refusal(chain, ALICE.pay(1, BOB.address, 2 * ETHER))
    chain.submit(ALICE.pay(0, BOB.address, 2 * ETHER, tip=2 * GWEI, fee=120 * GWEI))


def test_the_best_tip_goes_first_and_then_who_came_first():
    chain = chain_with(balances={wallet.address: ETHER for wallet in (ALICE, BOB, CAROL)})
    for wallet, tip in ((ALICE, 1), (BOB, 5), (CAROL, 5)):
        chain.submit(wallet.pay(0, CAROL.address, tip=tip * GWEI))
    assert [receipt.transaction.sender for receipt in chain.mine().receipts] == [BOB.address, CAROL.address, ALICE.address]


def test_a_fee_below_the_base_fee_waits():
    chain = chain_with(base_fee=10 * GWEI)
    txid = chain.submit(ALICE.pay(0, BOB.address, fee=9 * GWEI))
    assert chain.mine().receipts == ()
    assert chain.mempool.get(txid) is not None


def test_a_block_holds_no_more_than_its_gas():
    chain = chain_with(gas_limit=50_000)
    for nonce in range(5):
        chain.submit(ALICE.pay(nonce, BOB.address))
    assert [len(chain.mine().receipts) for _ in range(3)] == [2, 2, 1]


def test_a_transaction_that_its_sender_can_no_longer_pay_waits():
    chain = chain_with(balances={ALICE.address: ETHER})
    chain.submit(ALICE.pay(0, BOB.address, ETHER // 2))
    chain.mine()
    chain.submit(BOB.pay(0, CAROL.address, ETHER // 3))
    chain.fork(1, "drop")
    assert len(chain.mempool) == 1
    assert chain.pending_nonce(BOB.raw_address) == 1


def test_a_forgotten_transaction_is_gone_until_sent_again():
    chain = chain_with()
    raw = ALICE.pay(0, BOB.address)
    txid = chain.submit(raw)
    assert chain.forget(txid)
    assert not chain.forget(txid)
    assert chain.mine().receipts == ()
    assert chain.submit(raw) == txid


def test_a_delayed_submission_misses_blocks():
    clock = Clock()
    chain = chain_with(clock, block_ms=1000)
    txid = chain.submit(ALICE.pay(0, BOB.address), delay_ms=2_500)
    clock.pass_ms(10_000)
    chain.tick()
    assert chain.receipt(txid)[0].number == 3
