"""TRON's verbs but `observe`: destinations, fees and what a recipient needs, submission, holdings, nodes' addresses."""

import asyncio
import json

import pytest

from penstock.core.intent import Payment
from penstock.rails.base import (
    FeeEstimate,
    InvalidDestination,
    LaneView,
    NodeUnreachable,
    OwnAddress,
    Prepares,
    Rail,
    Unpayable,
    Verdict,
)
from penstock.rails.rpc import Call, Http, Node
from penstock.rails.tron import codec
from penstock.rails.tron.fees import ENERGY_UNKNOWN
from penstock.rails.tron.talk import TronTalk
from tests.fixtures.tron import ALICE, BLOCK_MS, BOB, CHAIN_ID, HOT, KEY, NATIVE, USDT, USDT_CONTRACT, Bench, Runtime, network, reverted

NO_FEES = FeeEstimate("", 0, 0, {}, 0, 0)


def prepare(bench, token, *recipients, units=5_000_000):
    return bench.run(bench.rail.prepare([Payment(place, who, "", units) for place, who in enumerate(recipients)], token, HOT, NO_FEES))


def estimate(bench, token):
    return bench.run(bench.rail.estimate(token))


def test_it_is_a_rail_that_prepares():
    rail: Rail = Bench().rail
    assert isinstance(rail, Prepares)
    assert rail.network.family == "tron"


# Destinations


def test_a_destination_is_base58_whatever_way_it_was_written():
    rail = Bench().rail
    assert rail.parse_destination(ALICE, "a memo is dropped").address == ALICE
    assert rail.parse_destination(codec.account_hex(ALICE).upper(), "").address == ALICE


@pytest.mark.parametrize("address", [HOT, USDT_CONTRACT])
def test_own_addresses_and_token_contracts_are_refused_in_both_ways_of_writing(address):
    rail = Bench().rail
    for text in (address, codec.account_hex(address), codec.account_hex(address).upper()):
        with pytest.raises(OwnAddress):
            rail.parse_destination(text, "")
    with pytest.raises(InvalidDestination):
        rail.parse_destination(address + " ", "")


# Fees


def test_a_transfer_of_trx_costs_its_bytes_when_nothing_is_free():
    bench = Bench()
    bench.node.accounts[ALICE] = {"balance": 1}
    (fees,) = prepare(bench, NATIVE, ALICE)
    raw = codec.sign(bench.rail.bind([Payment(1, ALICE, "", 5_000_000)], NATIVE, LaneView("TRX", HOT, 0), fees, attempt_id=2**62), KEY).raw
    assert fees.cost == (len(raw) + 64) * 1_000
    assert fees.cost < fees.fee_cap <= 2 * fees.cost
    assert "fee_limit" not in fees.terms


@pytest.mark.parametrize(
    ("resources", "cost"),
    [
        ({"freeNetLimit": 600}, 0),
        ({"NetLimit": 600}, 0),
        ({"freeNetLimit": 600, "freeNetUsed": 400}, None),
        ({"freeNetLimit": 200, "NetLimit": 200}, None),
    ],
)
def test_bandwidth_that_is_free_or_staked_is_used_whole_or_not_at_all(resources, cost):
    bench = Bench()
    bench.node.accounts[ALICE] = {"balance": 1}
    bench.node.resources = resources
    (fees,) = prepare(bench, NATIVE, ALICE)
    assert (fees.cost == 0) is (cost == 0)
    assert fees.terms["net_fee_max"] >= 200_000  # what is free now may be used up by then


def test_trx_to_a_new_address_pays_for_the_account():
    bench = Bench()
    (fees,) = prepare(bench, NATIVE, ALICE)
    assert fees.cost == 1_100_000
    assert fees.fee_cap >= 1_100_000
    bench.node.resources = {"NetLimit": 5_000}
    (fees,) = prepare(bench, NATIVE, ALICE)
    assert fees.cost == 1_000_000


def test_trx_to_a_contract_cannot_be_paid_and_to_others_can():
    bench = Bench()
    bench.node.accounts[ALICE] = {"balance": 1}
    bench.node.accounts[BOB] = {"type": "Contract"}
    good, bad = prepare(bench, NATIVE, ALICE, BOB)
    assert isinstance(good, FeeEstimate)
    assert isinstance(bad, Unpayable)


def test_a_token_transfer_burns_its_energy_and_its_limit_leaves_room():
    bench = Bench()
    (fees,) = prepare(bench, USDT, ALICE)
    net = fees.cost - 64_285 * 100
    assert 300_000 < net < 450_000
    assert 64_285 * 100 < fees.terms["fee_limit"] <= 64_285 * 131
    assert fees.fee_cap == fees.terms["fee_limit"] + fees.terms["net_fee_max"]


def test_staked_energy_is_used_and_the_rest_is_burnt():
    bench = Bench()
    full = prepare(bench, USDT, ALICE)[0]
    bench.node.resources = {"EnergyLimit": 50_000, "EnergyUsed": 10_000}
    part = prepare(bench, USDT, ALICE)[0]
    assert full.cost - part.cost == 40_000 * 100
    bench.node.resources = {"EnergyLimit": 500_000, "NetLimit": 10_000}
    none = prepare(bench, USDT, ALICE)[0]
    assert none.cost == 0
    assert none.terms["fee_limit"] == full.terms["fee_limit"]  # it bounds staked energy as well


def test_an_empty_receiver_costs_more_and_the_quote_reckons_with_one():
    bench = Bench()

    def call(body):
        alice = body["parameter"][24:64] == codec.account_hex(ALICE)[2:]
        return {"result": {"result": True}, "energy_used": 64_285 if alice else 130_285, "transaction": {"ret": [{}]}}

    bench.node.answers["wallet/triggerconstantcontract"] = call
    known, new = prepare(bench, USDT, ALICE, BOB)
    assert new.cost - known.cost == 66_000 * 100
    assert abs(estimate(bench, USDT).cost - new.cost) < 10_000


def test_a_treasury_without_the_token_is_quoted_all_the_same_and_waits_for_liquidity():
    bench = Bench()
    for node in bench.nodes:
        node.balances = {}
    assert estimate(bench, USDT).cost > 13_000_000
    (fees,) = prepare(bench, USDT, ALICE)
    assert isinstance(fees, FeeEstimate)


def test_an_account_is_old_only_once_the_block_that_made_it_is_solidified():
    """Seed 3 of the histories: two payments to one new account, its block undone, and the second made the account above its cap."""
    bench = Bench()
    bench.node.accounts[ALICE] = {"balance": 1}
    bench.node.answers["walletsolidity/getaccount"] = {}
    (made_lately,) = prepare(bench, NATIVE, ALICE)
    assert made_lately.terms["net_fee_max"] > 1_100_000
    del bench.node.answers["walletsolidity/getaccount"]
    (old,) = prepare(bench, NATIVE, ALICE)
    assert old.terms["net_fee_max"] < 1_100_000


def test_what_the_contract_refuses_though_the_treasury_has_enough_is_not_sent():
    bench = Bench()
    honest = bench.node.triggerconstantcontract
    for node in reversed(bench.nodes):
        assert not isinstance(prepare(bench, USDT, ALICE)[0], Unpayable)  # not by the word of one
        node.answers["wallet/triggerconstantcontract"] = lambda body: (
            reverted() if body["function_selector"].startswith("transfer") else honest(False, **body)
        )
    (said,) = prepare(bench, USDT, ALICE)
    assert isinstance(said, Unpayable)
    assert not said.for_ever


def test_what_one_node_alone_names_as_energy_is_no_limit_that_a_payment_could_run_out_of():
    """While the other node was away, one that named half made a payment fail on the chain, and its order with it."""
    bench = Bench()
    (by_two,) = prepare(bench, USDT, ALICE)
    bench.nodes[1].down = "no answer"
    (by_one,) = prepare(bench, USDT, ALICE)
    assert by_one.terms["fee_limit"] > by_two.terms["fee_limit"]
    assert by_one.terms["fee_limit"] >= ENERGY_UNKNOWN * 100


def test_an_account_that_one_node_calls_old_and_another_new_is_paid_for_as_new():
    """What the first node said was believed, and making the account cost more than the cap."""
    bench = Bench()
    bench.node.accounts = {**bench.node.accounts, ALICE: {"balance": 1}}
    (told_old,) = prepare(bench, NATIVE, ALICE)
    assert told_old.terms["net_fee_max"] > 1_100_000
    bench.nodes[1].accounts = bench.node.accounts
    (old,) = prepare(bench, NATIVE, ALICE)
    assert old.terms["net_fee_max"] < 1_100_000


def test_one_node_that_names_no_price_makes_no_cap_that_would_not_hold():
    """It did: bytes are burnt whatever the transaction says, and the fee was above the cap of the order."""
    bench = Bench()
    (honest,) = prepare(bench, USDT, ALICE)
    bench.node.answers["wallet/getchainparameters"] = {
        "chainParameter": [
            {"key": key} for key in ("getEnergyFee", "getTransactionFee", "getCreateNewAccountFeeInSystemContract", "getCreateAccountFee")
        ]
    }
    (said,) = prepare(bench, USDT, ALICE)
    assert said.terms["net_fee_max"] >= honest.terms["net_fee_max"]
    assert said.terms["fee_limit"] >= honest.terms["fee_limit"]


@pytest.mark.parametrize("token", [NATIVE, USDT])
def test_what_could_cost_more_than_the_cap_is_not_affordable(token):
    bench = Bench(net=network(params=(("fee_max", "0.2"),)))
    (fees,) = prepare(bench, token, ALICE)
    assert fees.cost > fees.fee_cap
    assert fees.fee_cap == 200_000


@pytest.mark.parametrize(("token", "fee_max"), [(NATIVE, "0.2"), (USDT, "1")])
def test_what_is_free_now_but_could_cost_more_than_the_cap_is_not_affordable(token, fee_max):
    bench = Bench(net=network(params=(("fee_max", fee_max),)))
    bench.node.accounts[ALICE] = {"balance": 1}
    bench.node.resources = {"EnergyLimit": 10**9, "NetLimit": 10**9}
    (fees,) = prepare(bench, token, ALICE)
    assert fees.cost > fees.fee_cap


def test_a_fresh_reference_block_and_eight_minutes_from_the_chains_newest_block():
    bench = Bench()
    first = prepare(bench, USDT, ALICE)[0]
    solid, head = bench.chain.blocks[bench.chain.solid], bench.chain.head
    assert first.terms["ref_block"] == solid.number
    assert first.terms["ref_block_hash"] == int(solid.id[16:32], 16)
    assert first.terms["expiration"] == head.time_ms + 480_000
    bench.chain.run(10)
    assert prepare(bench, USDT, ALICE)[0].terms["expiration"] - first.terms["expiration"] == 10 * BLOCK_MS


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_chain_far_away_from_this_machines_clock_is_not_believed(hours):
    bench = Bench(nodes=1)
    bench.runtime.seconds += hours * 3_600
    with pytest.raises(NodeUnreachable, match="clock"):
        estimate(bench, USDT)


@pytest.mark.parametrize(
    "parameter", ["getEnergyFee", "getTransactionFee", "getCreateAccountFee", "getCreateNewAccountFeeInSystemContract"]
)
@pytest.mark.parametrize("value", [10**18, -1, "100", None, True])
def test_a_price_beyond_belief_is_not_used_while_another_node_answers(parameter, value):
    bench = Bench()
    honest = prepare(bench, USDT, ALICE)[0]
    bench = Bench()
    said = bench.node.getchainparameters(False)
    said["chainParameter"] = [item | {"value": value} if item["key"] == parameter else item for item in said["chainParameter"]]
    bench.node.answers["wallet/getchainparameters"] = said
    assert prepare(bench, USDT, ALICE)[0].fee_cap == honest.fee_cap
    bench.nodes[1].down = "no answer"
    bench.runtime.seconds += 120
    with pytest.raises(NodeUnreachable):
        prepare(bench, USDT, ALICE)


def test_bind_wants_exactly_one_payment():
    bench = Bench()
    fees = prepare(bench, USDT, ALICE)[0]
    with pytest.raises(ValueError, match="exactly one payment"):
        bench.rail.bind([Payment(1, ALICE, "", 1)] * 2, USDT, LaneView("TRX", HOT, 0), fees, attempt_id=1)


# Submission


def submit(bench, version):
    return bench.run(bench.rail.submit(version.raw))


def test_bytes_go_to_the_first_node_and_again_to_all():
    bench = Bench()
    version = bench.attempt()
    assert submit(bench, version).verdict is Verdict.ACCEPTED
    assert [len(node.sent) for node in bench.nodes] == [1, 0]
    assert submit(bench, version).verdict is Verdict.ACCEPTED
    assert [len(node.sent) for node in bench.nodes] == [2, 1]
    assert {raw for node in bench.nodes for raw in node.sent} == {version.raw}


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ({"result": True, "code": "SUCCESS"}, Verdict.ACCEPTED),
        ({"result": True}, Verdict.ACCEPTED),
        ({"result": False, "code": "DUP_TRANSACTION_ERROR"}, Verdict.ACCEPTED),
        *(
            ({"result": False, "code": code}, Verdict.UNKNOWN)
            for code in [
                "SIGERROR",
                "CONTRACT_VALIDATE_ERROR",
                "CONTRACT_EXE_ERROR",
                "BANDWITH_ERROR",
                "TAPOS_ERROR",
                "TOO_BIG_TRANSACTION_ERROR",
                "TRANSACTION_EXPIRATION_ERROR",
                "SERVER_BUSY",
                "NO_CONNECTION",
                "NOT_ENOUGH_EFFECTIVE_CONNECTION",
                "BLOCK_UNSOLIDIFIED",
                "OTHER_ERROR",
                "A_CODE_OF_TOMORROW",
                "SUCCESS",
            ]
        ),
        ({"result": False}, Verdict.UNKNOWN),
        ({"Error": "class java.lang.Exception"}, Verdict.UNKNOWN),
        ({"result": True, "code": "SUCCESS", "txid": "ab" * 32}, Verdict.UNKNOWN),
        ({"result": True, "code": "SUCCESS", "txid": 5}, Verdict.UNKNOWN),
    ],
)
def test_every_word_of_a_node_is_mapped_and_none_is_terminal(said, verdict):
    bench = Bench(nodes=1)
    version = bench.attempt()
    bench.node.broadcast = said
    assert submit(bench, version).verdict is verdict


def test_a_busy_node_is_passed_over_for_the_next():
    bench = Bench()
    version = bench.attempt()
    bench.node.broadcast = {"result": False, "code": "SERVER_BUSY"}
    assert submit(bench, version).verdict is Verdict.ACCEPTED
    assert [len(node.sent) for node in bench.nodes] == [1, 1]


def test_no_answer_says_nothing():
    bench = Bench()
    version = bench.attempt()
    for node in bench.nodes:
        node.down = "no answer within 8 s"
    assert submit(bench, version).verdict is Verdict.UNKNOWN


def test_bytes_that_are_no_transfer_of_ours_reach_no_node():
    bench = Bench()
    assert bench.run(bench.rail.submit(b"\x0a\x00")).verdict is Verdict.REFUSED
    assert bench.node.sent == []


# Heads and holdings


def test_heads_are_those_that_enough_nodes_have_reached():
    bench = Bench()
    bench.nodes[1].lag, bench.nodes[1].solid_lag = 2, 5
    heads = bench.run(bench.rail.heads())
    assert (heads.head, heads.final) == (98, 76)
    bench.node.down = bench.nodes[1].down = "no answer"
    bench.runtime.seconds += 120
    with pytest.raises(NodeUnreachable):
        bench.run(bench.rail.heads())


def held(bench):
    return bench.run(bench.rail.holdings(HOT, [NATIVE, USDT]))


def test_holdings_are_those_of_one_solidified_block():
    bench = Bench()
    for node in bench.nodes:
        node.accounts[HOT] = {"balance": 7_000_000}
    found = held(bench)
    assert (found.block, dict(found.units)) == (81, {"trx": 7_000_000, "usdt": 10**12})
    assert found.slots_used is None
    assert all(method.startswith("walletsolidity/") for method, _ in bench.node.calls if "account" in method or "trigger" in method)


def test_an_address_that_was_never_used_holds_nothing():
    bench = Bench()
    for node in bench.nodes:
        node.balances = {}
    assert dict(held(bench).units) == {"trx": 0, "usdt": 0}


def test_while_the_block_moves_it_is_read_again():
    bench = Bench()
    moves = iter([True, True])

    def account(body):
        if next(moves, False):
            bench.chain.run(1)
        return {}

    bench.node.answers["walletsolidity/getaccount"] = account
    assert held(bench).block == bench.chain.solid


def test_nodes_that_differ_on_what_is_held_say_nothing():
    bench = Bench()
    bench.nodes[1].balances = {HOT: 10**12 - 1}
    with pytest.raises(NodeUnreachable, match="differ"):
        held(bench)
    bench.nodes[1].down = "no answer"
    bench.runtime.seconds += 120
    with pytest.raises(NodeUnreachable, match="no answer"):
        held(bench)  # a single node of two may be blind
    bench.nodes[1].down, bench.nodes[1].balances = "", {HOT: 10**12}
    bench.runtime.seconds += 120
    assert held(bench).units["usdt"] == 10**12


@pytest.mark.parametrize("answer", [{"result": {"result": False, "code": "CONTRACT_VALIDATE_ERROR"}}, reverted(), {"result": {}}])
def test_a_token_that_does_not_answer_is_no_empty_balance_but_on_a_test_network(answer):
    for is_test in (False, True):
        bench = Bench(net=network(is_test=is_test))
        for node in bench.nodes:
            node.answers["walletsolidity/triggerconstantcontract"] = answer
        if is_test and answer["result"].get("code"):
            assert held(bench).units["usdt"] == 0
        else:
            with pytest.raises(NodeUnreachable):
                held(bench)


# Addresses of nodes


def test_a_nodes_address_may_name_a_port_of_its_solidified_half_and_a_key():
    seen = []

    async def post(url, body, timeout_s, *, method="POST", headers=None, first_line=False):
        seen.append((url, headers, json.loads(body)))
        return 200, b"{}"

    async def ask(url):
        talk = TronTalk(Http(post), Runtime(), chain_id=CHAIN_ID)
        await talk.calls(Node("node 1", url), [Call("wallet/getblock", ({"detail": False},)), Call("walletsolidity/getblock")])

    asyncio.run(ask("http://user:pw@10.0.0.1:8090/?solidity_port=8091&tron_pro_api_key=KEY&x=1"))
    assert [url for url, _, _ in seen] == [
        "http://user:pw@10.0.0.1:8090/wallet/getblock?x=1",
        "http://user:pw@10.0.0.1:8091/walletsolidity/getblock?x=1",
    ]
    assert all(headers["TRON-PRO-API-KEY"] == "KEY" for _, headers, _ in seen)
    assert [body for _, _, body in seen] == [{"detail": False}, {}]
    seen.clear()
    asyncio.run(ask("https://api.example/base"))
    assert [(url, headers) for url, headers, _ in seen] == [
        ("https://api.example/base/wallet/getblock", None),
        ("https://api.example/base/walletsolidity/getblock", None),
    ]


def test_the_genesis_of_the_catalogue_is_checked_on_both_halves():
    bench = Bench(nodes=1)
    node = Node("node 1", "https://tron0.example")

    async def post(url, body, timeout_s, *, method="POST", headers=None, first_line=False):
        path = url.removeprefix(node.url)
        return 200, json.dumps(bench.node.answer(path, json.loads(body))).encode()

    def mismatch(genesis):
        return asyncio.run(TronTalk(Http(post), Runtime(), chain_id=CHAIN_ID, genesis=genesis).mismatch(node))

    assert mismatch("0x" + bench.chain.blocks[0].id) == ""
    assert "its first block is" in mismatch("0x" + "00" * 32)
    bench.node.answers["walletsolidity/getblockbynum"] = {"Error": "no such thing"}
    with pytest.raises(ValueError, match="walletsolidity"):
        mismatch(None)
