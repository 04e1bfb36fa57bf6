"""What nodes say, and what the rail makes of it; each line of the mapping, on nodes made of a few variables."""

import asyncio
import dataclasses

import coincurve
import pytest

from penstock.core.event import Absent, FailedOnChain, Included, Pending, Suspicious
from penstock.core.event import Final as FinalOnChain
from penstock.core.intent import Payment
from penstock.core.money import Coin, Network, Token
from penstock.rails.base import FeeEstimate, InvalidDestination, LaneView, NodeUnreachable, OwnAddress, Prepares, Verdict, VersionView
from penstock.rails.evm import codec
from penstock.rails.evm.rail import EvmRail
from penstock.rails.rpc import Nodes
from tests.fixtures.scripted import Error, ManualRuntime, ScriptedNode, block_hash, network_of

KEY = coincurve.PrivateKey((7).to_bytes(32, "big"))
SENDER = codec.address_of_public_key(KEY.public_key.format())
RECIPIENT = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
STRANGER = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
CONTRACT = "0xdAC17F958D2ee523a2206206994597C13D831ec7"
GWEI = 10**9

COIN = Coin("eth", "ETH", "Ether", 18)
NATIVE = Token("native", COIN, "ETH", "ERC20", None, "1", 18)
USDT = Token("usdt", Coin("c", "USDT", "Tether", 6), "ETH", "ERC20", CONTRACT, CONTRACT, 6)

PARAMS = {
    "has_finality_tag": True,
    "fee_model": "eip1559",
    "fee_max": "0.05",
    "gas_price_max_wei": 500 * GWEI,
    "priority_fee_min_wei": GWEI // 100,
}


def network(*, is_test=False, confirmations=3, **params):
    merged = tuple(sorted((PARAMS | params).items()))
    return Network("ETH", "evm", "Ethereum", "native", 31337, None, 12_000, confirmations, is_test=is_test, params=merged)


class Bench:
    """A rail on scripted nodes, and one attempt of it."""

    def __init__(self, count=1, net=None, **options):
        self.nodes = [ScriptedNode() for _ in range(count)]
        self.node = self.nodes[0]
        self.runtime = ManualRuntime()
        reached = network_of(self.nodes)
        nodes = Nodes(reached.urls, reached.post, self.runtime, chain_id=31337)
        self.rail = EvmRail(net or network(), nodes, self.runtime, own=[SENDER], contracts=[CONTRACT], **options)
        for node in self.nodes:
            node.used[SENDER] = 5

    def show(self, **values):
        for node in self.nodes:
            for name, value in values.items():
                setattr(node, name, value)

    def land(self, version, *nodes, block=85, **changes):
        for node in nodes or self.nodes:
            node.receipts[version.txid] = receipt(version, block=block, **changes)
            node.used[SENDER] = 6

    def observe(self, *versions):
        return asyncio.run(self.rail.observe(list(versions)))

    def submit(self, *raws):
        async def all_at_once():
            return await asyncio.gather(*(self.rail.submit(raw) for raw in raws))

        return asyncio.run(all_at_once())

    def estimate(self, token=NATIVE):
        return asyncio.run(self.rail.estimate(token))


def estimate_of(**terms):
    return FeeEstimate("x", 1, 10**15, terms or {"gas_limit": 60_000, "max_fee_per_gas": 4 * GWEI, "max_priority_fee_per_gas": GWEI}, 0, 1)


def version_of(intent):
    unsigned = codec.build(intent)
    signature = KEY.sign_recoverable(codec.signing_hash(unsigned), hasher=None)
    raw = codec.encode_signed(unsigned, signature[64], int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big"))
    return VersionView(intent.version, codec.transaction_id(raw), raw, intent)


def attempt(token=USDT, slot=5, units=1_000_000, **changes):
    rail = Bench().rail
    intent = rail.bind([Payment(1, RECIPIENT, "", units)], token, LaneView("ETH", SENDER, slot), estimate_of(), attempt_id=9)
    return version_of(dataclasses.replace(intent, **changes))


def transfer_log(units=1_000_000, contract=CONTRACT, sender=SENDER, recipient=RECIPIENT):
    topics = [codec.TRANSFER_TOPIC, *("0x" + address[2:].lower().rjust(64, "0") for address in (sender, recipient))]
    return {"address": contract.lower(), "topics": topics, "data": f"0x{units:064x}", "removed": False}


def receipt(version, *, block=85, fork=0, **changes):
    logs = [transfer_log()] if version.intent.contract and version.intent.kind == "pay" else []
    return {
        "transactionHash": version.txid,
        "blockHash": block_hash(block, fork),
        "blockNumber": hex(block),
        "from": version.intent.sender.lower(),
        "status": "0x1",
        "gasUsed": hex(21_000),
        "effectiveGasPrice": hex(2 * GWEI),
        "logs": logs,
    } | changes


FEE = 21_000 * 2 * GWEI


# Destinations


def test_a_destination_is_taken_in_its_checksummed_form_and_without_memo():
    destination = Bench().rail.parse_destination(RECIPIENT.lower(), "12345")
    assert (destination.address, destination.memo) == (RECIPIENT, "")


@pytest.mark.parametrize("text", [SENDER, SENDER.lower(), CONTRACT, CONTRACT.lower()])
def test_own_addresses_and_token_contracts_are_refused_as_such(text):
    with pytest.raises(OwnAddress):
        Bench().rail.parse_destination(text, "")


def test_other_mistakes_are_not_called_own():
    with pytest.raises(InvalidDestination) as caught:
        Bench().rail.parse_destination("vitalik.eth", "")
    assert not isinstance(caught.value, OwnAddress)


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


# Bind and bump


def test_bind_says_what_will_be_signed():
    intent = attempt().intent
    assert (intent.sender, intent.slot, intent.contract, intent.chain_id, intent.version, intent.kind) == (
        SENDER,
        5,
        CONTRACT,
        31337,
        1,
        "pay",
    )
    assert (intent.fee_cap, intent.terms) == (10**15, estimate_of().terms)
    with pytest.raises(ValueError, match="exactly one payment"):
        Bench().rail.bind([], USDT, LaneView("ETH", SENDER, 5), estimate_of(), attempt_id=1)


def test_a_bump_raises_both_fields_by_an_eighth_and_keeps_all_else():
    intent = attempt(terms={"gas_limit": 60_000, "max_fee_per_gas": 4 * GWEI + 1, "max_priority_fee_per_gas": 0}).intent
    bumped = Bench().rail.bump(intent, None, version=2)
    assert bumped.terms == {"gas_limit": 60_000, "max_fee_per_gas": 4_500_000_002, "max_priority_fee_per_gas": 1}
    assert dataclasses.replace(bumped, version=1, terms=intent.terms) == intent


def test_a_bump_goes_to_the_market_where_that_is_more():
    market = estimate_of(gas_limit=99_000, max_fee_per_gas=9 * GWEI, max_priority_fee_per_gas=3 * GWEI)
    bumped = Bench().rail.bump(attempt().intent, market, version=2)
    assert bumped.terms == {"gas_limit": 60_000, "max_fee_per_gas": 9 * GWEI, "max_priority_fee_per_gas": 3 * GWEI}


def test_a_bump_ends_at_the_cap():
    rail, intent, count = Bench().rail, attempt().intent, 1
    market = estimate_of(gas_limit=60_000, max_fee_per_gas=100 * GWEI, max_priority_fee_per_gas=50 * GWEI)
    dear = rail.bump(intent, market, version=2)
    assert dear.terms["gas_limit"] * dear.terms["max_fee_per_gas"] <= intent.fee_cap
    while (following := rail.bump(intent, None, version=count + 1)) is not None:
        assert codec.build(following).max_fee_per_gas * 8 >= intent.terms["max_fee_per_gas"] * 9
        intent, count = following, count + 1
    assert count == 13


def test_a_cancel_pays_nothing_to_ourselves_on_the_same_nonce():
    cancel = Bench().rail.bump(attempt().intent, None, version=2, cancel=True)
    built = codec.build(cancel)
    assert (built.to, built.value, built.data, built.nonce, built.gas_limit) == (SENDER, 0, b"", 5, 21_000)
    varying = Bench(net=network(gas_varies=True)).rail.bump(attempt().intent, None, version=2, cancel=True)
    assert varying.terms["gas_limit"] == 60_000


def test_a_legacy_price_and_the_l1_part_are_bumped_too():
    intent = attempt(terms={"gas_limit": 60_000, "gas_price": GWEI, "l1_fee": 5}).intent
    bumped = Bench().rail.bump(intent, estimate_of(gas_limit=1, gas_price=1, l1_fee=7), version=2)
    assert bumped.terms == {"gas_limit": 60_000, "gas_price": 1_125_000_000, "l1_fee": 7}


# Submit


def test_bytes_go_to_the_first_node_that_takes_them():
    bench, version = Bench(2), attempt()
    assert bench.submit(version.raw)[0].verdict is Verdict.ACCEPTED
    assert (bench.node.sent, bench.nodes[1].sent) == ([version.raw], [])


def test_bytes_that_were_sent_before_go_to_every_node():
    bench, version = Bench(3), attempt()
    bench.submit(version.raw)
    bench.nodes[1].down = "refused"
    bench.submit(version.raw)
    bench.submit(version.raw)
    assert [len(node.sent) for node in bench.nodes] == [3, 0, 2]


def test_many_at_once_share_a_question_and_keep_their_order():
    bench, versions = Bench(), [attempt(slot=n) for n in range(20)]
    assert {s.verdict for s in bench.submit(*(v.raw for v in versions))} == {Verdict.ACCEPTED}
    assert bench.node.sent == [v.raw for v in versions]
    assert bench.node.posts == 2


@pytest.mark.parametrize(
    "words",
    [
        "already known",
        "AlreadyKnown",
        "ALREADY_EXISTS: already known",
        "Known transaction",
        "transaction already imported",
        "Transaction already exists in the pool",
        "tx already in the cache",
    ],
)
def test_a_node_that_has_the_bytes_has_accepted_them(words):
    bench = Bench()
    bench.show(answers={"eth_sendRawTransaction": Error(words)})
    assert bench.submit(attempt().raw)[0].verdict is Verdict.ACCEPTED


@pytest.mark.parametrize(
    "answer",
    [
        Error("nonce too low: next nonce 7, tx nonce 5"),
        Error("replacement transaction underpriced"),
        Error("transaction underpriced"),
        Error("insufficient funds for gas * price + value"),
        Error("intrinsic gas too low"),
        Error("invalid sender"),
        Error("only replay-protected (EIP-155) transactions allowed over RPC"),
        Error("rate limited", -32005),
        Error(""),
        "0x" + "11" * 32,
        None,
        "0x",
        {"hash": 1},
    ],
)
def test_every_other_answer_is_unknown_and_the_next_node_is_asked(answer):
    bench, version = Bench(2), attempt()
    bench.node.answers["eth_sendRawTransaction"] = answer
    assert bench.submit(version.raw)[0].verdict is Verdict.ACCEPTED
    assert bench.nodes[1].sent == [version.raw]
    bench.nodes[1].answers["eth_sendRawTransaction"] = answer
    said = bench.submit(attempt(slot=6).raw)[0]
    assert said.verdict is Verdict.UNKNOWN
    assert "SECRET" not in said.detail


@pytest.mark.parametrize("change", [{"down": "no answer within 8 s"}, {"status": 503}, {"chain_id": 1}])
def test_no_answer_is_unknown(change):
    bench = Bench()
    bench.show(**change)
    said = bench.submit(attempt().raw)[0]
    assert said.verdict is Verdict.UNKNOWN
    assert said.detail.startswith("node 1 of 1")


@pytest.mark.parametrize("raw", [b"", b"\x02\xc0", attempt().raw[:-1]])
def test_only_our_own_decoder_refuses(raw):
    bench = Bench()
    assert bench.submit(raw)[0].verdict is Verdict.REFUSED
    assert bench.node.sent == []
    other = Bench(net=dataclasses.replace(network(), chain_id=1))
    assert other.submit(attempt().raw)[0].verdict is Verdict.REFUSED


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


# Heights, slots, balances


def test_heads_are_what_enough_nodes_have_reached():
    bench = Bench(3)
    for node, (head, final) in zip(bench.nodes, [(10**9, 10**9), (100, 90), (98, 91)], strict=True):
        node.head, node.final = head, final
    heads = asyncio.run(bench.rail.heads())
    assert (heads.head, heads.final) == (100, 91)
    bench.nodes[0].down = bench.nodes[1].down = "refused"
    assert asyncio.run(bench.rail.heads()).head == 98
    bench.nodes[2].down = "refused"
    with pytest.raises(NodeUnreachable):
        asyncio.run(bench.rail.heads())


@pytest.mark.parametrize("answer", [None, {}, {"number": "0x" + "f" * 20}, {"number": 5}])
def test_a_head_that_cannot_be_is_none(answer):
    bench = Bench()
    asyncio.run(bench.rail.heads())
    bench.show(answers={"eth_getBlockByNumber": answer})
    with pytest.raises(NodeUnreachable, match="no usable block"):
        asyncio.run(bench.rail.heads())


def test_the_next_slot_is_the_count_of_mined_nonces():
    bench = Bench()
    assert asyncio.run(bench.rail.next_slot(SENDER)) == 5
    assert asyncio.run(bench.rail.next_slot(SENDER, block=90)) == 5
    assert [params for method, params in bench.node.calls if method == "eth_getTransactionCount"] == [[SENDER, "latest"], [SENDER, "0x5a"]]


def balance(bench, token):
    return asyncio.run(bench.rail.balance(SENDER, token, block=90))


def test_balances_are_read_at_the_block_that_was_asked_for():
    bench = Bench()
    bench.show(answers={"eth_getBalance": hex(10**18), "eth_call": f"0x{7:064x}"})
    assert (balance(bench, NATIVE), balance(bench, USDT)) == (10**18, 7)
    assert [params[1] for method, params in bench.node.calls if method in ("eth_getBalance", "eth_call")] == ["0x5a", "0x5a"]


def test_nodes_that_differ_on_a_balance_are_not_believed_and_a_third_decides():
    two, three = Bench(2), Bench(3)
    for bench in (two, three):
        bench.show(answers={"eth_getBalance": "0x5"})
        bench.node.answers = {"eth_getBalance": "0x99"}
    with pytest.raises(NodeUnreachable, match="the nodes differ"):
        balance(two, NATIVE)
    assert balance(three, NATIVE) == 5
    two.nodes[1].down = "refused"
    assert balance(two, NATIVE) == 0x99


@pytest.mark.parametrize("answer", ["0x", None, "0x1", Error("missing trie node"), "0x" + "0" * 128])
def test_a_token_balance_is_one_word(answer):
    bench = Bench()
    bench.show(answers={"eth_call": answer})
    with pytest.raises(NodeUnreachable):
        balance(bench, USDT)


def test_a_test_network_need_not_have_every_token():
    bench = Bench(net=network(is_test=True))
    bench.show(answers={"eth_call": "0x"})
    assert balance(bench, USDT) == 0
