"""What a transfer is said to cost, from what nodes say of fees and gas."""

import asyncio

import pytest

from penstock.core.intent import Payment
from penstock.rails.base import NodeUnreachable, Prepares
from tests.fixtures.evm_bench import CONTRACT, GWEI, NATIVE, RECIPIENT, SENDER, STRANGER, USDT, Bench, estimate_of, network
from tests.fixtures.scripted import Error

# Estimates


def history(base=10 * GWEI, tips=(GWEI, 2 * GWEI, 3 * GWEI)):
    return {"oldestBlock": "0x1", "baseFeePerGas": [hex(base)] * (len(tips) + 1), "reward": [[hex(tip)] for tip in tips]}


def test_a_native_transfer_costs_21000_gas_at_the_median_tip_with_headroom():
    bench = Bench()
    bench.show(answers={"eth_feeHistory": history()})
    fees = bench.estimate()
    assert fees.cost == 21_000 * 12 * GWEI
    assert fees.terms == {"gas_limit": 21_000, "max_fee_per_gas": 22 * GWEI, "max_priority_fee_per_gas": 2 * GWEI}
    assert fees.fee_cap == 10 * fees.cost
    assert fees.holds_until_ms == fees.at_ms + 60_000


@pytest.mark.parametrize(("tips", "expected"), [((), GWEI // 100), ((0, 0, 0), GWEI // 100), ((0, 5 * GWEI, 0), 5 * GWEI)])
def test_blocks_without_tips_do_not_count_and_the_floor_holds(tips, expected):
    bench = Bench()
    bench.show(answers={"eth_feeHistory": history(tips=tips)})
    assert bench.estimate().terms["max_priority_fee_per_gas"] == expected


def test_a_history_without_tips_is_enough():
    bench = Bench()
    bench.show(answers={"eth_feeHistory": {"baseFeePerGas": ["0x1", "0x2"]}})
    assert bench.estimate().terms["max_fee_per_gas"] == 4 + GWEI // 100


def test_a_token_transfer_asks_for_the_gas_of_a_new_holder_and_adds_a_margin():
    bench = Bench()
    bench.show(answers={"eth_feeHistory": history(), "eth_estimateGas": hex(50_000)})
    fees = bench.estimate(USDT)
    assert (fees.cost, fees.terms["gas_limit"]) == (50_000 * 12 * GWEI, 65_000)
    (asked,) = [params[0] for method, params in bench.node.calls if method == "eth_estimateGas"]
    assert (asked["from"], asked["to"]) == (SENDER, CONTRACT)
    assert asked["data"].startswith("0xa9059cbb")


def test_nobody_can_tell_which_new_holder_is_asked_about():
    """Whoever could gave it a base unit: then it is no new holder any more, and every payment to one runs out of gas."""
    asked = []
    for later_s in (0, 61):
        bench = Bench()
        bench.runtime.seconds += later_s
        bench.show(answers={"eth_feeHistory": history(), "eth_estimateGas": hex(50_000)})
        bench.estimate(USDT)
        asked += [params[0]["data"] for method, params in bench.node.calls if method == "eth_estimateGas"]
    assert len(set(asked)) == 2


def test_what_one_node_alone_names_as_gas_is_no_limit_that_a_payment_could_run_out_of():
    """While the other node was away, one that named half made a payment fail on the chain, and its order with it."""
    bench = Bench(2)
    bench.show(answers={"eth_feeHistory": history(), "eth_estimateGas": hex(50_000)})
    bench.node.answers = bench.node.answers | {"eth_estimateGas": hex(25_000)}
    assert bench.estimate(USDT).terms["gas_limit"] == 65_000
    alone = Bench(2)
    alone.show(answers={"eth_feeHistory": history(), "eth_estimateGas": hex(25_000)})
    alone.nodes[1].down = "refused"
    assert alone.estimate(USDT).terms["gas_limit"] == 100_000


def test_gas_and_prices_are_not_asked_for_each_time():
    bench = Bench()
    bench.show(answers={"eth_feeHistory": history(), "eth_estimateGas": hex(50_000)})
    for _ in range(5):
        bench.estimate(USDT)
    assert [method for method, _ in bench.node.calls].count("eth_feeHistory") == 1
    bench.runtime.seconds += 61
    bench.estimate(USDT)
    assert [method for method, _ in bench.node.calls].count("eth_estimateGas") == 2


def test_a_treasury_without_tokens_still_has_an_estimate():
    bench = Bench()
    bench.show(answers={"eth_feeHistory": history(), "eth_estimateGas": Error("execution reverted", 3)})
    fees = bench.estimate(USDT)
    assert (fees.cost, fees.terms["gas_limit"]) == (65_000 * 12 * GWEI, 100_000)


@pytest.mark.parametrize(
    "answers",
    [
        {"eth_feeHistory": history(base=501 * GWEI)},
        {"eth_feeHistory": {"baseFeePerGas": []}},
        {"eth_feeHistory": {"baseFeePerGas": ["0x1"] * 30}},
        {"eth_feeHistory": {"baseFeePerGas": ["0x1"], "reward": [[]]}},
        {"eth_feeHistory": {"baseFeePerGas": ["0x1"], "reward": {"a": 1}}},
        {"eth_feeHistory": {"baseFeePerGas": ["1"]}},
        {"eth_feeHistory": None},
        {"eth_feeHistory": history(), "eth_estimateGas": hex(300_001)},
        {"eth_feeHistory": history(), "eth_estimateGas": hex(20_999)},
        {"eth_feeHistory": history(), "eth_estimateGas": "0x" + "f" * 64},
    ],
)
def test_a_node_that_asks_for_nonsense_is_not_believed(answers):
    bench = Bench(2)
    bench.node.answers = {"eth_estimateGas": hex(50_000)} | answers
    bench.nodes[1].answers = {"eth_feeHistory": history(), "eth_estimateGas": hex(50_000)}
    assert bench.estimate(USDT).cost == 50_000 * 12 * GWEI
    bench.nodes[1].down = "refused"
    bench.runtime.seconds += 100
    with pytest.raises(NodeUnreachable):
        bench.estimate(USDT)


def test_a_huge_tip_is_cut_to_what_is_believed():
    bench = Bench()
    bench.show(answers={"eth_feeHistory": history(tips=(10**15,))})
    assert bench.estimate().terms == {"gas_limit": 21_000, "max_fee_per_gas": 500 * GWEI, "max_priority_fee_per_gas": 490 * GWEI}


def test_a_legacy_network_has_one_price_and_a_tenth_of_headroom():
    bench = Bench(net=network(fee_model="legacy"))
    bench.show(answers={"eth_gasPrice": hex(5 * GWEI)})
    fees = bench.estimate()
    assert fees.terms == {"gas_limit": 21_000, "gas_price": 5_500_000_000}
    assert fees.cost == 21_000 * 5 * GWEI
    bench.show(answers={"eth_gasPrice": hex(501 * GWEI)})
    bench.runtime.seconds += 2
    with pytest.raises(NodeUnreachable, match="no more than"):
        bench.estimate()


def test_the_cap_is_the_operators_and_terms_keep_within_it():
    bench = Bench(fee_max=21_000 * 15 * GWEI)
    bench.show(answers={"eth_feeHistory": history()})
    fees = bench.estimate()
    assert fees.fee_cap == 21_000 * 15 * GWEI
    assert fees.terms["max_fee_per_gas"] == 15 * GWEI


def test_a_market_above_the_cap_is_a_cost_above_the_cap():
    bench = Bench(fee_max=60_000 * 12 * GWEI)
    bench.show(answers={"eth_feeHistory": history(), "eth_estimateGas": hex(50_000)})
    fees = bench.estimate(USDT)
    assert fees.cost > fees.fee_cap == 60_000 * 12 * GWEI


def test_the_cap_of_a_cheap_moment_leaves_room_for_a_dear_one():
    bench = Bench()
    bench.show(answers={"eth_feeHistory": history(base=1, tips=())})
    assert bench.estimate().fee_cap == 10**15


def test_where_gas_varies_the_node_is_asked_for_a_plain_transfer_too():
    bench = Bench(net=network(gas_varies=True))
    bench.show(answers={"eth_feeHistory": history(base=GWEI // 100, tips=()), "eth_estimateGas": hex(120_000)})
    assert bench.estimate().terms["gas_limit"] == 180_000


def test_the_l1_fee_is_in_cost_terms_and_cap():
    bench = Bench(net=network(op_stack=True))
    bench.show(answers={"eth_feeHistory": history(), "eth_estimateGas": hex(50_000), "eth_call": f"0x{10**12:064x}"})
    plain, token = bench.estimate(), bench.estimate(USDT)
    assert (plain.cost, plain.terms["l1_fee"]) == (21_000 * 12 * GWEI + 10**12, 2 * 10**12)
    assert token.terms["l1_fee"] == 2 * 10**12
    sizes = [len(params[0]["data"]) for method, params in bench.node.calls if method == "eth_call"]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("answer", ["0x", "0x" + "f" * 64, None, "0x1"])
def test_an_l1_fee_that_cannot_be_is_no_estimate(answer):
    bench = Bench(net=network(op_stack=True))
    bench.show(answers={"eth_feeHistory": history(), "eth_call": answer})
    with pytest.raises(NodeUnreachable):
        bench.estimate()


def test_a_test_network_need_not_have_an_l1():
    bench = Bench(net=network(op_stack=True, is_test=True))
    bench.show(answers={"eth_feeHistory": history(), "eth_call": "0x"})
    assert bench.estimate().terms["l1_fee"] == 0


# What a recipient needs


def prepare(bench, token=NATIVE, recipients=(RECIPIENT, STRANGER)):
    fees = estimate_of(gas_limit=21_000, max_fee_per_gas=22 * GWEI, max_priority_fee_per_gas=2 * GWEI)
    payments = [Payment(n, recipient, "", 10) for n, recipient in enumerate(recipients)]
    return fees, asyncio.run(bench.rail.prepare(payments, token, SENDER, fees))


def code(params):
    return "0xef01" if params[0] == STRANGER else "0x"


def test_a_recipient_with_code_gets_the_gas_that_its_code_uses():
    bench = Bench()
    bench.show(answers={"eth_feeHistory": history(), "eth_getCode": code, "eth_estimateGas": hex(40_000)})
    fees, (plain, contract) = prepare(bench)
    assert isinstance(bench.rail, Prepares)
    assert plain is fees
    assert (contract.terms["gas_limit"], contract.cost) == (52_000, 40_000 * 12 * GWEI)
    assert contract.fee_cap >= 52_000 * 22 * GWEI


def test_a_recipient_whose_code_would_refuse_gets_a_fixed_limit_and_the_chain_decides():
    bench = Bench()
    bench.show(answers={"eth_feeHistory": history(), "eth_getCode": code, "eth_estimateGas": Error("execution reverted")})
    assert prepare(bench)[1][1].terms["gas_limit"] == 100_000


def test_a_greedy_recipient_is_bounded():
    bench = Bench()
    bench.show(answers={"eth_feeHistory": history(), "eth_getCode": code, "eth_estimateGas": hex(30_000_000)})
    assert prepare(bench)[1][1].terms["gas_limit"] == 300_000


def test_tokens_and_plain_accounts_need_no_more_questions():
    bench = Bench()
    fees, found = prepare(bench, USDT)
    assert (found, bench.node.calls) == ([fees, fees], [])
    bench.show(answers={"eth_getCode": "0x"})
    fees, found = prepare(bench)
    assert found == [fees, fees]
    assert bench.node.posts == 2  # its chain id, and all codes together
