"""The XRP Ledger in a box: what waits, what it pays to be let in, how ledgers close and are undone, and that all of it can be repeated."""

from itertools import pairwise

import pytest

from penstock.catalog import Catalog
from penstock.devnet.box import BadCommand
from penstock.devnet.boxes import make_networks
from penstock.devnet.control import control
from penstock.devnet.xrp import chain as chainlib
from penstock.devnet.xrp.queue import fee_at, level_of, open_level
from penstock.devnet.xrp.transactions import transaction_id
from tests.fixtures.xrp_box import ALICE, BOB, CONTRACT, NETWORK_ID, Clock, code_of, funded, network, pay, sequence, signed, somebody

# Waiting


def test_what_comes_early_waits_for_its_sequence():
    box = funded()
    first = sequence(box)
    last, later, sooner = (pay(box, 20_000_000 + number, Sequence=first + 2 - number) for number in range(3))
    assert [code_of(box, raw) for raw in (last, later, sooner)] == ["terPRE_SEQ", "terPRE_SEQ", "tesSUCCESS"]
    assert box.chain.open_count == 3
    box.mine()
    assert box.holding(BOB) == 60_000_003


def test_an_account_that_comes_to_be_lets_in_what_it_sent_too_early():
    box = network()
    raw = signed(Destination=BOB, Amount="20000000", Sequence=box.chain.open_index)
    assert code_of(box, raw) == "terNO_ACCOUNT"
    box.fund(ALICE, 100_000_000)
    box.mine()
    assert box.holding(BOB) == 20_000_000


def test_what_is_in_the_open_ledger_cannot_be_replaced_however_much_another_pays():
    box = funded()
    first, slot = pay(box), sequence(box)
    assert code_of(box, first) == "tesSUCCESS"
    assert code_of(box, first) == "tefALREADY"
    assert code_of(box, pay(box, 30_000_000, Sequence=slot, Fee="100000")) == "tefPAST_SEQ"
    box.mine()
    assert box.holding(BOB) == 20_000_000
    assert code_of(box, first) == "tefPAST_SEQ"


def test_what_is_only_queued_gives_way_to_a_quarter_more():
    box = funded()
    box.spike(64)
    first = pay(box)
    assert code_of(box, first) == "terQUEUED"
    assert code_of(box, first) == "telCAN_NOT_QUEUE_FEE"
    assert code_of(box, pay(box, Fee="14")) == "telCAN_NOT_QUEUE_FEE"
    assert code_of(box, pay(box, 25_000_000, Fee="15")) == "terQUEUED"
    assert code_of(box, pay(box, 30_000_000, Fee="640")) == "tesSUCCESS"
    box.mine()
    assert (box.holding(BOB), len(box.chain.queue)) == (30_000_000, 0)


def test_the_queue_takes_ten_of_an_account_one_after_another_and_they_enter_in_order():
    box = funded()
    box.spike(1_000)
    first = sequence(box)
    codes = [code_of(box, pay(box, 1_000_000 + number, Sequence=first + number)) for number in range(11)]
    assert codes == ["terQUEUED"] * 10 + ["telCAN_NOT_QUEUE_FULL"]
    assert code_of(box, pay(box, Sequence=first + 12)) == "terPRE_SEQ"
    box.mine(12)
    assert box.holding(BOB) == 10_000_000 + 45
    assert len(box.chain.queue) == 0


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"LastLedgerSequence": 1}, "telCAN_NOT_QUEUE"),
        ({"LastLedgerSequence": 2}, "terQUEUED"),
        ({"drops": 99_000_000, "Fee": "600"}, "terQUEUED"),
    ],
)
def test_the_queue_wants_a_little_time(fields, code):
    box = funded()
    box.spike(64)
    if "LastLedgerSequence" in fields:
        fields = {"LastLedgerSequence": box.chain.open_index + fields["LastLedgerSequence"]}
    assert code_of(box, pay(box, **fields)) == code


def test_the_queue_does_not_bet_on_money_that_is_promised_already():
    box = funded()
    box.spike(64)
    first = sequence(box)
    assert code_of(box, pay(box, 99_999_990, Sequence=first)) == "terQUEUED"
    assert code_of(box, pay(box, Sequence=first + 1)) == "telCAN_NOT_QUEUE_BALANCE"


def test_what_its_last_ledger_passed_is_gone():
    box = funded()
    box.spike(1_000)
    raw = pay(box, LastLedgerSequence=box.chain.open_index + 2)
    held = pay(box, Sequence=sequence(box) + 5, LastLedgerSequence=box.chain.open_index + 2)
    assert (code_of(box, raw), code_of(box, held)) == ("terQUEUED", "terPRE_SEQ")
    box.mine(3)
    assert (box.holding(BOB), box.chain.waiting) == (0, [])
    assert code_of(box, raw) == "tefMAX_LEDGER"


def test_the_last_ledger_is_the_last_that_may_hold_it():
    for late, lands in ((0, True), (1, False)):
        box = funded()
        raw = pay(box, LastLedgerSequence=box.chain.open_index)
        box.mine(late)
        code_of(box, raw)
        box.mine()
        assert (box.holding(BOB) > 0) is lands


def test_a_ledger_above_its_expected_size_asks_for_the_square():
    assert (open_level(32, 32), open_level(33, 32)) == (256, 128_000 * 33 * 33 // (32 * 32))
    assert (level_of(10), fee_at(256), fee_at(257)) == (256, 10, 11)
    box = funded(expected=3)
    first = sequence(box)
    codes = [code_of(box, pay(box, 1_000_000, Sequence=first + number)) for number in range(5)]
    assert codes == ["tesSUCCESS"] * 4 + ["terQUEUED"]
    assert box.chain.open_fee == fee_at(128_000 * 16 // 9)
    box.mine()
    assert (box.holding(BOB), box.chain.open_count, box.chain.open_fee) == (4_000_000, 1, 10)
    box.mine()
    assert box.holding(BOB) == 5_000_000


def test_a_spike_halves_with_every_ledger_and_load_stays():
    box = funded()
    control([box], {"do": "spike", "factor": 64})
    assert [box.chain.open_fee, box.mine() and box.chain.open_fee] == [640, 320]
    control([box], {"do": "load", "factor": 5})
    assert code_of(box, pay(box)) == "telINSUF_FEE_P"
    assert code_of(box, pay(box, Fee="50")) == "terQUEUED"
    box.mine(9)
    assert (box.chain.open_fee, box.holding(BOB)) == (50, 20_000_000)
    with pytest.raises(BadCommand, match="spike"):
        control([box], {"do": "spike", "factor": 0})


@pytest.mark.parametrize("where", ["open", "queued", "held", "delayed"])
def test_what_waits_can_be_forgotten(where):
    box = funded()
    if where == "queued":
        box.spike(64)
    raw = pay(box, Sequence=sequence(box) + (where == "held"))
    box.chain.submit(raw, delay_ms=5_000 if where == "delayed" else 0)
    assert box.chain.waiting == [transaction_id(raw)]
    assert box.forget(transaction_id(raw).lower())
    assert not box.forget(transaction_id(raw))
    assert box.chain.waiting == []
    box.mine(8)
    assert box.holding(BOB) == 0


def test_what_follows_a_forgotten_one_waits_for_its_place():
    box = funded()
    first, second = pay(box), pay(box, 30_000_000, Sequence=sequence(box) + 1)
    code_of(box, first)
    code_of(box, second)
    box.forget(transaction_id(first))
    box.mine()
    assert box.holding(BOB) == 0
    assert code_of(box, first) == "tesSUCCESS"
    box.mine()
    assert box.holding(BOB) == 50_000_000


# Ledgers


def test_a_recipient_that_a_payment_of_the_same_ledger_makes_is_there_whatever_the_order():
    """Whoever comes first under the salt, what fails for want of an account is tried again."""
    box = funded()
    for number in range(6):
        somebody(box, f"payer {number}")
    box.fund(BOB, 1_000_000)
    payers = [chainlib.coincurve.PrivateKey(chainlib.hashlib.sha256(f"somebody called payer {n}".encode()).digest()) for n in range(6)]
    for key in payers:
        box.chain.send(key, {"TransactionType": "Payment", "Destination": BOB, "Amount": "1"})
    box.mine()
    assert box.holding(BOB) == 1_000_006


def test_a_ledger_is_validated_when_the_next_one_closes_and_undone_only_before():
    clock = Clock()
    box = funded(clock, block_ms=1_000)
    raw = pay(box)
    code_of(box, raw)
    clock.now += 1_000
    box.tick()
    assert box.chain.closed - box.chain.validated == 1
    box.fork(1, "drop")
    assert box.holding(BOB) == 0
    code_of(box, raw)
    box.mine()
    assert box.chain.applied(transaction_id(raw)) is not None
    with pytest.raises(ValueError, match="nothing deeper"):
        box.fork(2)


@pytest.mark.parametrize("fate", ["keep", "drop", "reorder"])
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_where_validation_is_slow_forks_go_deeper(depth, fate):
    box = funded()
    control([box], {"do": "validation", "ledgers": 5})
    box.mine(5)
    first = sequence(box)
    raws = [pay(box, 1_000_000 + number, Sequence=first + number) for number in range(depth)]
    for raw in raws:
        code_of(box, raw)
        box.mine()
    before, head = box.chain.ledgers[box.chain.closed].hash, box.chain.closed
    box.fork(depth, fate)
    assert box.chain.closed == head + 1
    assert box.chain.ledgers[head].hash != before
    arrived = 0 if fate == "drop" else sum(1_000_000 + number for number in range(depth))
    assert (box.holding(BOB), sequence(box) - first) == (arrived, 0 if fate == "drop" else depth)
    assert [one.transaction.raw for one in box.chain.of_account(BOB)] == ([] if fate == "drop" else raws)
    for raw in raws:
        code_of(box, raw)
    box.mine(7)
    assert box.holding(BOB) == sum(1_000_000 + number for number in range(depth))
    assert all(box.chain.applied(transaction_id(raw)).index <= box.chain.validated for raw in raws)


def test_nothing_validated_is_undone_when_validation_comes_to_lag_or_halts():
    box = funded()
    validated = box.chain.validated
    control([box], {"do": "validation", "ledgers": 10_000})
    code_of(box, pay(box))
    box.mine(20)
    assert (box.chain.validated, box.holding(BOB)) == (validated, 20_000_000)
    box.fork(box.chain.closed - validated, "drop")
    assert box.holding(BOB) == 0
    control([box], {"do": "validation", "ledgers": 0})
    assert box.mine() == box.chain.validated
    with pytest.raises(BadCommand, match="nothing deeper"):
        control([box], {"do": "fork", "depth": 1})


def test_a_fork_undoes_what_issuers_and_holders_did_there_and_does_it_again():
    box = funded()
    control([box], {"do": "validation", "ledgers": 3})
    box.fund(ALICE, 5_000_000, CONTRACT)
    control([box], {"do": "issuer", "contract": CONTRACT, "transfer_rate": 1_100_000_000})
    box.mine()
    box.fork(1, "keep")
    assert box.holding(ALICE, CONTRACT) == 5_000_000
    assert box.chain.current.account(CONTRACT.split(".")[1]).transfer_rate == 1_100_000_000


def test_hashes_link_and_close_times_never_fall():
    clock = Clock()
    box = funded(clock, block_ms=250)
    for number in range(10):
        code_of(box, pay(box, 1_000_000 + number))
        clock.now += 700
        box.tick()
    ledgers = [box.chain.ledgers[index] for index in range(chainlib.FIRST, box.chain.closed + 1)]
    assert all(later.parent == earlier.hash for earlier, later in pairwise(ledgers))
    assert all(later.close_time >= earlier.close_time for earlier, later in pairwise(ledgers))
    assert len({ledger.hash for ledger in ledgers}) == len(ledgers)
    last = ledgers[-1].close_time
    clock.now -= 60_000
    box.mine()
    assert box.chain.ledgers[box.chain.closed].close_time == last


def test_the_same_seed_and_clock_give_the_same_ledgers():
    hashes = []
    for seed in (1, 1, 2):
        box = funded(seed=seed)
        somebody(box, "carol", trusts=CONTRACT, settings="require_dest")
        box.spike(8)
        code_of(box, pay(box))
        box.mine(5)
        hashes.append(box.chain.ledgers[box.chain.closed].hash)
    assert hashes[0] == hashes[1] != hashes[2]


def test_after_a_long_silence_the_network_stood_still():
    clock = Clock()
    box = funded(clock, block_ms=1_000)
    head = box.chain.closed
    clock.now += 365 * 86_400_000
    box.tick()
    assert box.chain.closed == head + 1
    box.set_block_time(0)
    clock.now += 5_000
    box.tick()
    assert box.chain.closed == head + 1


def test_what_is_delayed_arrives_when_its_time_has_come():
    clock = Clock()
    box = funded(clock, block_ms=1_000)
    raw = pay(box)
    assert box.chain.submit(raw, delay_ms=2_500)[0] == "tesSUCCESS"
    clock.now += 2_000
    box.tick()
    assert box.chain.opened(transaction_id(raw)) is None
    clock.now += 600
    box.tick()
    assert box.chain.opened(transaction_id(raw)) is not None
    clock.now += 400
    box.tick()
    assert box.holding(BOB) == 20_000_000


def test_old_ledgers_are_forgotten_and_the_state_stays(monkeypatch):
    monkeypatch.setattr(chainlib, "HISTORY", 20)
    monkeypatch.setattr(chainlib, "PRUNE_EVERY", 5)
    box = funded()
    raw = pay(box)
    code_of(box, raw)
    box.mine(60)
    assert box.chain.first > chainlib.FIRST + 20
    assert box.chain.applied(transaction_id(raw)) is None
    assert (box.holding(BOB), box.chain.of_account(BOB)) == (20_000_000, [])


# The box


def test_the_faucet_gives_what_is_asked_for_or_says_why_not():
    box = network()
    for address, units, contract, match in (
        (ALICE, 999_999, None, "begins with"),
        ("alice", 10**6, None, "classic"),
        (ALICE, 1, CONTRACT, "fund it with that first"),
        (ALICE, 1, "EUR.nobody", "no token"),
    ):
        with pytest.raises(ValueError, match=match):
            box.fund(address, units, contract)
    box.fund(ALICE, 1_000_000)
    txid = box.fund(ALICE, 7, CONTRACT)
    box.mine()
    assert box.chain.applied(txid).code == "tesSUCCESS"
    assert (box.holding(ALICE), box.holding(ALICE, CONTRACT), box.holding(BOB), box.holding(BOB, CONTRACT)) == (1_000_000, 7, 0, 0)


@pytest.mark.parametrize(
    ("command", "match"),
    [
        ({"do": "account", "name": "x", "trusts": "EUR.nobody"}, "no token"),
        ({"do": "issuer", "contract": CONTRACT, "settings": "kind"}, "settings"),
        ({"do": "issuer", "contract": CONTRACT, "transfer_rate": 5}, "transfer_rate"),
        ({"do": "issuer", "contract": CONTRACT, "freeze": "bob"}, "classic"),
        ({"do": "issuer", "contract": "EUR.nobody"}, "no token"),
        ({"do": "validation", "ledgers": "many"}, "whole number"),
        ({"do": "dance"}, "validation"),
    ],
)
def test_a_command_that_cannot_be_done_says_what_would_be_right(command, match):
    box = funded()
    head = box.chain.closed
    with pytest.raises(BadCommand, match=match):
        control([box], command)
    assert box.chain.closed == head


def test_the_catalogues_network_is_put_into_a_box_of_another_id():
    (box,) = make_networks(Catalog.load(), ["XRP"], now_ms=Clock(), seed=3)
    status = box.status()
    assert (box.settings["chain_id"], status["chain_id"], len(box.nodes)) == (NETWORK_ID, NETWORK_ID, 2)
    assert status["block_ms"] <= 1_000
    assert {"RLUSD"} <= {bytes.fromhex(code).rstrip(b"\0").decode() if len(code) == 40 else code for code in status["tokens"]}
