"""What is bound, bumped and submitted, and what heights and balances are believed; on nodes made of a few variables."""

import asyncio
import dataclasses

import pytest
from msgspec import structs

from penstock.rails.base import InvalidDestination, LaneView, NodeUnreachable, OwnAddress, Verdict
from penstock.rails.evm import codec
from tests.fixtures.evm_bench import CONTRACT, GWEI, NATIVE, RECIPIENT, SENDER, USDT, Bench, attempt, estimate_of, network
from tests.fixtures.scripted import Error

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
    with pytest.raises(ValueError, match="from 1 to 1 such"):
        Bench().rail.bind([], USDT, LaneView("ETH", SENDER, 5), estimate_of(), attempt_id=1)


def test_a_bump_raises_both_fields_by_an_eighth_and_keeps_all_else():
    intent = attempt(terms={"gas_limit": 60_000, "max_fee_per_gas": 4 * GWEI + 1, "max_priority_fee_per_gas": 0}).intent
    bumped = Bench().rail.bump(intent, None, version=2)
    assert bumped.terms == {"gas_limit": 60_000, "max_fee_per_gas": 4_500_000_002, "max_priority_fee_per_gas": 1}
    assert structs.replace(bumped, version=1, terms=intent.terms) == intent


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
    held = asyncio.run(bench.rail.holdings_at(SENDER, [], 90))
    assert (held.slots_mined, held.slots_used) == (5, 5)
    assert [params for method, params in bench.node.calls if method == "eth_getTransactionCount"] == [[SENDER, "latest"], [SENDER, "0x5a"]]


def balance(bench, token):
    return asyncio.run(bench.rail.holdings_at(SENDER, [token], 90)).units[token.id]


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
    with pytest.raises(NodeUnreachable, match="1 of the 2 nodes that must agree"):
        balance(two, NATIVE)


def test_a_count_of_transactions_that_one_node_claims_alone_is_not_believed():
    """It was, and one lying node of two halted the lane: a stranger seemed to use the key."""
    bench = Bench(2)
    bench.node.eth_getTransactionCount = lambda _, block: hex(1_005 if block == "latest" else 5)
    held = asyncio.run(bench.rail.holdings_at(SENDER, [], 90))
    assert (held.slots_mined, held.slots_used) == (5, 5)


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
