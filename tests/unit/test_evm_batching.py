"""Which orders of a token may share an EVM transaction, from what nodes say; and what the signer would see in one that differs."""

import asyncio
import dataclasses

import pytest
from msgspec import structs

from penstock.core.intent import Payment, Signed
from penstock.rails.base import CannotOpen, FeeEstimate, LaneView, OwnAddress
from penstock.rails.evm import batching, codec
from tests.fixtures.evm_bench import CONTRACT, GWEI, KEY, RECIPIENT, SENDER, USDT, Bench, network
from tests.fixtures.scripted import Error

FEES = FeeEstimate("usdt", 1, 10**15, {"gas_limit": 60_000, "max_fee_per_gas": 4 * GWEI, "max_priority_fee_per_gas": GWEI}, 0, 1)
ALLOWANCE = codec.allowance_call_data(SENDER, codec.PAY_MANY)[:4].hex()
PAY = "17508fb6"
REFUSED = codec.checksum("0x" + "ab" * 20)


class Key:
    public_key = KEY.public_key.format(compressed=False)

    @staticmethod
    def sign(digest):
        made = KEY.sign_recoverable(digest, hasher=None)
        return made[64], int.from_bytes(made[:32], "big"), int.from_bytes(made[32:64], "big")


def payment(number, units=5, recipient=RECIPIENT):
    return Payment(number, recipient, "", units)


def called(params, *, allowed=2**256 - 1):
    """A contract that pays everybody but one."""
    data = params[0]["data"][2:]
    if data.startswith(ALLOWANCE):
        return f"0x{allowed:064x}"
    if REFUSED[2:].lower() in data:
        raise Error(3, "execution reverted")
    return "0x" + data[8 + 128 : 8 + 192]


def bench(count=1, **params):
    made = Bench(count, network(**{"batch_max": 100} | params))
    block = {"number": "0x64", "hash": "0x" + "11" * 32, "baseFeePerGas": "0x1", "gasLimit": hex(30_000_000)}
    made.show(answers={"eth_call": called, "eth_getBlockByNumber": lambda _: block})
    return made


def together(made, payments, fees=FEES):
    return [found.together for found in asyncio.run(made.rail.prepare(payments, USDT, SENDER, fees))]


def trials(made):
    return [params for method, params in made.node.calls if method == "eth_call" and params[0]["data"].startswith("0x" + PAY)]


def test_all_of_a_token_go_together_after_one_trial():
    made = bench()
    assert together(made, [payment(number) for number in range(90)]) == [100] * 90
    assert len(trials(made)) == 1


def test_who_is_refused_is_found_by_halves_and_goes_alone():
    made = bench()
    asked = [payment(number, recipient=REFUSED if number == 37 else RECIPIENT) for number in range(64)]
    assert together(made, asked) == [1 if number == 37 else 100 for number in range(64)]
    assert len(trials(made)) == 14  # the last one is of all that were left


def test_when_all_are_refused_the_questions_end():
    made = bench()
    assert together(made, [payment(number, recipient=REFUSED) for number in range(100)]) == [1] * 100
    assert len(trials(made)) == batching.TRIES_MAX


def test_what_is_paid_by_halves_and_not_at_once_goes_alone():
    """Coins for one of two."""
    made = bench()
    made.show(answers=made.node.answers | {"eth_call": lambda p: called(p) if len(p[0]["data"]) <= 2 + 2 * (4 + 4 * 32) else "0x"})
    assert together(made, [payment(1), payment(2)]) == [1, 1]


@pytest.mark.parametrize(
    "answer",
    ["0x", f"0x{2**95 - 1:064x}", "0x" + "00" * 32, Error(-32000, "execution reverted"), None, 7],
)
def test_without_a_lasting_allowance_each_goes_alone(answer):
    made = bench()
    made.show(answers=made.node.answers | {"eth_call": answer})
    assert together(made, [payment(1), payment(2)]) == [1, 1]


@pytest.mark.parametrize("said", ["0x", "0x" + "00" * 32, f"0x{3:064x}", f"0x{1:064x}", None])
def test_where_the_contract_does_not_stand_each_goes_alone(said):
    made = bench()
    made.show(answers=made.node.answers | {"eth_call": lambda p: called(p) if p[0]["data"].startswith("0x" + ALLOWANCE) else said})
    assert together(made, [payment(1), payment(2)]) == [1, 1]


def test_one_node_alone_gives_nobody_company():
    made = bench(2)
    made.nodes[1].answers = made.nodes[1].answers | {"eth_call": lambda p: called(p, allowed=0)}
    assert together(made, [payment(1), payment(2)]) == [1, 1]
    made = bench(2)
    made.nodes[1].down = "refused"
    assert together(made, [payment(1), payment(2)]) == [1, 1]


def test_an_allowance_is_seen_as_soon_as_it_is_there():
    made = bench()
    made.show(answers=made.node.answers | {"eth_call": lambda p: called(p, allowed=0)})
    assert together(made, [payment(1), payment(2)]) == [1, 1]
    made.show(answers=made.node.answers | {"eth_call": called})
    assert together(made, [payment(1), payment(2)]) == [100, 100]


@pytest.mark.parametrize(
    ("changes", "most"),
    [
        ({}, 100),
        ({"batch_max": 7}, 7),
        ({"batch_max": 1}, 1),
        ({"batch_max": 5_000, "fee_max": "5"}, codec.GAS_MAX // 60_000 - 29),
        ({"fee_max": "0.0024"}, 5),
        ({"fee_max": "0.0004"}, 1),
    ],
)
def test_fee_cap_and_gas_bound_how_many(changes, most):
    made = bench(**changes)
    assert together(made, [payment(1), payment(2)]) == [most, most]


def test_what_is_too_large_for_a_word_goes_alone():
    assert together(bench(), [payment(1), payment(2, 2**96), payment(3, 2**96 - 1)]) == [100, 1, 100]


def test_an_only_order_asks_nobody_unless_it_waits_for_company():
    made = bench()
    assert together(made, [payment(1)]) == [1]
    assert trials(made) == []
    assert together(bench(batch_window_ms=5_000), [payment(1)]) == [100]


def bound(count=3, **terms):
    fees = dataclasses.replace(FEES, together=100, terms={**FEES.terms, **terms})
    lane = LaneView("ETH", SENDER, 5)
    return bench().rail.bind([payment(number, 5 + number) for number in range(count)], USDT, lane, fees, attempt_id=1)


def test_many_are_bound_with_the_gas_of_each_under_the_cap_of_one_transaction():
    intent = bound(3, l1_fee=7)
    assert intent.terms == {**FEES.terms, "gas_limit": 180_000, "l1_fee": 21}
    assert (intent.fee_cap, intent.slot, len(intent.payments)) == (3 * 10**15, 5, 3)
    assert bound(60).fee_cap == 5 * 10**16
    with pytest.raises(ValueError, match="from 1 to 100"):
        bound(101)
    bumped = bench().rail.bump(intent, None, version=2)
    assert structs.replace(bumped, version=1, terms=intent.terms) == intent
    cancel = bench().rail.bump(intent, None, version=2, cancel=True)
    assert (cancel.kind, cancel.terms["gas_limit"]) == ("cancel", 21_000)


def test_an_opening_stays_one_when_its_price_is_raised():
    made = bench()
    intent = made.rail.open(USDT, LaneView("ETH", SENDER, 5), FEES, attempt_id=1)
    assert (intent.kind, intent.payments, intent.contract) == ("open", (), CONTRACT)
    assert made.rail.bump(intent, None, version=2).kind == "open"
    assert made.rail.bump(intent, None, version=2, cancel=True).kind == "cancel"


def test_nothing_is_opened_where_the_contract_does_not_stand():
    made = bench()
    made.show(answers=made.node.answers | {"eth_getCode": "0x6001"})
    with pytest.raises(CannotOpen, match=codec.PAY_MANY):
        asyncio.run(made.rail.unopened(SENDER, [USDT]))
    assert asyncio.run(bench(batch_max=1).rail.unopened(SENDER, [USDT])) == []


def test_pay_many_is_nobody_to_pay():
    with pytest.raises(OwnAddress):
        bench().rail.parse_destination(codec.PAY_MANY.lower(), "")
    with pytest.raises(ValueError, match="lost"):
        codec.build(structs.replace(bound(2), payments=(payment(1), payment(2, recipient=codec.PAY_MANY))))


def test_it_stands_where_its_code_says():
    # EIP-1014: keccak256(0xff ++ deployer ++ salt ++ keccak256(init code))[12:]
    init = codec.DEPLOYMENT[32:]
    assert (codec.DEPLOYMENT[:32], init[10:], init[1:3]) == (bytes(32), codec.CODE, len(codec.CODE).to_bytes(2, "big"))
    at = codec.keccak256(bytes.fromhex("ff" + codec.DEPLOYER[2:]) + bytes(32) + codec.keccak256(init))[12:]
    assert codec.checksum("0x" + at.hex()) == codec.PAY_MANY == "0x0AC3Ab227471797426542C09a829Cf2590cbAf6F"


def test_what_is_signed_for_many_is_read_back_as_the_very_same():
    for intent in (bound(3), bench().rail.open(USDT, LaneView("ETH", SENDER, 5), FEES, attempt_id=1)):
        assert codec.broken_rules(intent, codec.sign(intent, Key)) == []


@pytest.mark.parametrize(
    "changed",
    [
        lambda paid: paid[::-1],
        lambda paid: paid[:2],
        lambda paid: (*paid, payment(9)),
        lambda paid: (paid[0], paid[0], paid[2]),
        lambda paid: (structs.replace(paid[0], units=6), *paid[1:]),
        lambda paid: (structs.replace(paid[0], recipient=REFUSED), *paid[1:]),
    ],
)
def test_another_payment_than_was_asked_for_is_named(changed):
    intent = bound(3)
    signed = codec.sign(structs.replace(intent, payments=changed(intent.payments)), Key)
    assert codec.broken_rules(intent, signed) == ["call"]


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({"data": codec.approve_call_data(REFUSED, codec.UINT256_MAX)}, ["call"]),
        ({"data": codec.approve_call_data(codec.PAY_MANY, codec.UINT256_MAX - 1)}, ["call"]),
        ({"to": REFUSED}, ["recipient"]),
        ({"value": 1}, ["value"]),
    ],
)
def test_another_allowance_than_was_asked_for_is_named(change, broken):
    intent = bench().rail.open(USDT, LaneView("ETH", SENDER, 5), FEES, attempt_id=1)
    unsigned = dataclasses.replace(codec.build(intent), **change)
    raw = codec.encode_signed(unsigned, *Key.sign(codec.signing_hash(unsigned)))
    assert codec.broken_rules(intent, Signed(1, 1, codec.transaction_id(raw), raw)) == broken
