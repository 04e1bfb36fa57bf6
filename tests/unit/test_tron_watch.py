"""What nodes show of an attempt on TRON, and what it proves; the edge of its life above all (test plan, C4)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.event import Absent, Dead, FailedOnChain, Final, Included, Pending, Suspicious
from penstock.rails.base import NodeUnreachable
from tests.fixtures.tron import ALICE, BLOCK_MS, BOB, CHAIN_ID, HOT, NATIVE, USDT, Bench, network, transfer_log, tx

TEST_NETWORK = network(is_test=True)


def expire(bench, version, blocks_after=0):
    """Blocks until one at or past the expiration is solidified, and some more."""
    while bench.chain.blocks[bench.chain.solid].time_ms < version.intent.terms["expiration"]:
        bench.chain.run(1)
    bench.chain.run(blocks_after)


@pytest.mark.parametrize("token", [NATIVE, USDT])
def test_a_solidified_success_is_final_with_the_fee_that_was_charged(token):
    bench = Bench()
    version = bench.attempt(token)
    bench.chain.add(**{version.txid: tx(token, fee=268_000)})
    bench.chain.run(19)
    assert bench.observe(version) == Final(version.txid, 101, 268_000)


def test_a_success_that_burnt_nothing_is_final_with_fee_0():
    bench = Bench()
    version = bench.attempt()
    landed = tx()
    del landed["info"]["fee"]
    bench.chain.add(**{version.txid: landed})
    bench.chain.run(19)
    assert bench.observe(version) == Final(version.txid, 101, 0)


@pytest.mark.parametrize("token", [NATIVE, USDT])
def test_before_it_is_solidified_it_is_only_included(token):
    bench = Bench()
    version = bench.attempt(token)
    bench.chain.add(**{version.txid: tx(token)})
    bench.chain.run(18)
    assert bench.observe(version) == Included(version.txid, 101, 19, True)


@pytest.mark.parametrize("result", ["OUT_OF_ENERGY", "REVERT", "OUT_OF_TIME", "TRANSFER_FAILED", "INVALID_CODE"])
def test_a_solidified_failure_is_a_failure_and_its_fee_is_burnt(result):
    bench = Bench()
    version = bench.attempt()
    bench.chain.add(**{version.txid: tx(ret=result, fee=7_000_000, logs=[])})
    assert bench.observe(version) == Included(version.txid, 101, 1, False)
    bench.chain.run(19)
    seen = bench.observe(version)
    assert isinstance(seen, FailedOnChain)
    assert (seen.fee, seen.detail) == (7_000_000, f"the transaction failed: {result}")


@pytest.mark.parametrize(
    "landed",
    [
        tx(ret="UNKNOWN", logs=[]),
        tx(ret="DEFAULT", logs=[]),
        tx(ret="A_WORD_OF_TOMORROW", logs=[]),
        tx(ret="REVERT", logs=[], result="SUCESS"),
        tx(result="FAILED"),
        tx() | {"ret": "REVERT"},
    ],
)
def test_words_that_say_neither_or_do_not_fit_together_are_for_a_person(landed):
    bench = Bench()
    version = bench.attempt()
    bench.chain.add(**{version.txid: landed})
    bench.chain.run(19)
    assert isinstance(bench.observe(version), Suspicious)


@pytest.mark.parametrize(
    "logs",
    [
        [],
        [transfer_log(), transfer_log()],
        [transfer_log(units=4_999_999)],
        [transfer_log(contract=BOB)],
        [transfer_log(sender=BOB)],
        [transfer_log(recipient=BOB)],
    ],
)
def test_success_without_exactly_our_transfer_is_for_a_person_and_never_sent_again(logs):
    bench = Bench()
    version = bench.attempt()
    bench.chain.add(**{version.txid: tx(logs=logs)})
    bench.chain.run(19)
    assert isinstance(bench.observe(version), Suspicious)


def test_what_the_tokens_call_returned_means_nothing():
    bench = Bench()
    version = bench.attempt()
    bench.chain.add(**{version.txid: tx(contractResult=["00" * 32])})
    bench.chain.run(19)
    assert isinstance(bench.observe(version), Final)


def test_a_fee_above_the_cap_is_for_a_person():
    bench = Bench()
    version = bench.attempt()
    bench.chain.add(**{version.txid: tx(fee=version.intent.fee_cap + 1)})
    bench.chain.run(19)
    assert isinstance(bench.observe(version), Suspicious)


def test_one_node_of_two_makes_nothing_final():
    bench = Bench()
    version = bench.attempt()
    bench.chain.add(**{version.txid: tx()})
    bench.chain.run(19)
    bench.nodes[1].down = "no answer"
    alone = bench.observe(version)
    assert (alone, alone.through) == (Included(version.txid, 101, 0, True), None)
    bench.nodes[1].down, bench.nodes[1].solid_lag = "", 1
    both = bench.observe(version)
    assert (both, both.through) == (Included(version.txid, 101, 20, True), bench.chain.solid - 1)


def test_a_single_configured_node_may_make_it_final():
    bench = Bench(nodes=1)
    version = bench.attempt()
    bench.chain.add(**{version.txid: tx()})
    bench.chain.run(19)
    assert isinstance(bench.observe(version), Final)


def test_a_forged_receipt_of_one_node_stays_without_weight():
    bench = Bench()
    version = bench.attempt()
    bench.chain.run(19)
    forged = {"id": version.txid, "blockNumber": 101, "fee": 1, "receipt": {"result": "SUCCESS"}, "log": [transfer_log()]}
    for half in ("wallet", "walletsolidity"):
        bench.node.answers[f"{half}/gettransactioninfobyid"] = forged
        bench.node.answers[f"{half}/gettransactionbyid"] = {"txID": version.txid, "ret": [{"contractRet": "SUCCESS"}]}
    assert bench.observe(version) == Included(version.txid, 101, 0, True)


def test_what_only_the_unsolidified_half_of_nodes_says_is_not_final():
    bench = Bench()
    version = bench.attempt()
    bench.chain.run(19)
    for node in bench.nodes:
        node.answers["wallet/gettransactioninfobyid"] = {"id": version.txid, "blockNumber": 82} | tx()["info"]
        node.answers["wallet/gettransactionbyid"] = {"txID": version.txid, "ret": [{"contractRet": "SUCCESS"}]}
    with pytest.raises(NodeUnreachable):
        bench.observe(version)


def test_a_fork_between_two_questions_is_asked_again():
    bench = Bench()
    version = bench.attempt()
    bench.chain.add(**{version.txid: tx()})
    bench.chain.run(19)
    for node in bench.nodes:
        honest = node.gettransactioninfobyid(True, version.txid)
        node.answers["walletsolidity/gettransactioninfobyid"] = honest | {"blockNumber": 99}
    with pytest.raises(NodeUnreachable):
        bench.observe(version)


def test_the_answer_for_another_transaction_is_not_used():
    bench = Bench()
    version, other = bench.attempt(), bench.attempt(attempt_id=5)
    bench.chain.add(**{other.txid: tx()})
    bench.chain.run(19)
    honest = bench.node.gettransactioninfobyid(False, other.txid)
    for node in bench.nodes:
        node.answers["wallet/gettransactioninfobyid"] = honest
    with pytest.raises(NodeUnreachable):
        bench.observe(version)


def test_a_reorg_takes_it_back_and_it_may_land_again():
    bench = Bench()
    version = bench.attempt()
    bench.chain.add(**{version.txid: tx()})
    bench.chain.run(3)
    assert isinstance(bench.observe(version), Included)
    bench.chain.undo(4)
    assert bench.observe(version) == Absent()
    for node in bench.nodes:
        node.pending.add(version.txid)
    assert bench.observe(version) == Pending()
    bench.chain.add(**{version.txid: tx()})
    bench.chain.run(19)
    assert isinstance(bench.observe(version), Final)


# Death


@pytest.mark.parametrize("edge", [-3, -2, -1, 0, 1, 2, 3])
def test_it_is_dead_from_the_first_solidified_block_at_its_expiration_on_and_not_before(edge):
    bench = Bench()
    version = bench.attempt()
    while bench.chain.blocks[bench.chain.solid].time_ms < version.intent.terms["expiration"] + edge * BLOCK_MS:
        bench.chain.run(1)
    seen = bench.observe(version)
    assert isinstance(seen, Dead if edge >= 0 else Absent)
    if edge >= 0:
        assert version.txid in seen.proof
        assert "by 2 nodes" in seen.proof


@pytest.mark.parametrize("missed_ms", [BLOCK_MS, 600_000, 7_200_000])
def test_a_transaction_in_the_first_block_past_its_expiration_is_found(missed_ms):
    """Slots were missed: the block before is younger than the expiration, so this one may hold it (java-tron: validateCommon)."""
    bench = Bench()
    version = bench.attempt()
    while bench.chain.head.time_ms + BLOCK_MS < version.intent.terms["expiration"]:
        bench.chain.run(1)
    bench.chain.add(version.intent.terms["expiration"] + missed_ms, **{version.txid: tx()})
    block = bench.chain.head.number
    assert isinstance(bench.observe(version), Included)
    bench.chain.run(19)
    assert bench.observe(version) == Final(version.txid, block, 6_773_500)


def test_while_solidification_stalls_nothing_is_dead():
    bench = Bench()
    version = bench.attempt()
    for _ in range(600):
        bench.chain.add()  # thirty minutes
    assert bench.chain.head.time_ms > version.intent.terms["expiration"] + 1_000_000
    assert bench.observe(version) == Absent()
    bench.chain.run(1)
    assert isinstance(bench.observe(version), Dead)


@pytest.mark.parametrize("minutes", [-10, 10])
def test_the_clock_of_this_machine_proves_nothing(minutes):
    bench = Bench()
    bench.runtime.seconds += minutes * 60
    version = bench.attempt()
    assert bench.observe(version) == Absent()
    expire(bench, version)
    assert isinstance(bench.observe(version), Dead)


def test_one_node_of_two_proves_no_death():
    bench = Bench()
    version = bench.attempt()
    expire(bench, version)
    bench.nodes[1].down = "no answer"
    assert isinstance(bench.observe(version), Pending)
    bench.nodes[1].down, bench.nodes[1].solid_lag = "", 3
    assert isinstance(bench.observe(version), Pending)
    bench.nodes[1].solid_lag = 0
    assert isinstance(bench.observe(version), Dead)


def test_a_single_node_of_the_real_network_asks_for_a_second_and_one_of_a_test_network_will_do():
    bench = Bench(nodes=1)
    version = bench.attempt()
    expire(bench, version)
    seen = bench.observe(version)
    assert isinstance(seen, Suspicious)
    assert "configure a second one" in seen.detail
    bench = Bench(nodes=1, net=TEST_NETWORK)
    version = bench.attempt()
    expire(bench, version)
    assert isinstance(bench.observe(version), Dead)


@pytest.mark.parametrize("at_the_edge", [False, True])
def test_a_node_that_lost_its_index_but_lists_its_blocks_proves_no_death(at_the_edge):
    bench = Bench()
    version = bench.attempt()
    while at_the_edge and bench.chain.head.time_ms + BLOCK_MS < version.intent.terms["expiration"]:
        bench.chain.run(1)
    bench.chain.add(**{version.txid: tx()})
    assert (bench.chain.head.time_ms >= version.intent.terms["expiration"]) is at_the_edge
    expire(bench, version)
    for node in bench.nodes:
        for half in ("wallet", "walletsolidity"):
            node.answers[f"{half}/gettransactioninfobyid"] = {}
            node.answers[f"{half}/gettransactionbyid"] = {}
    assert bench.observe(version) == Pending()


def without_the_last(answer):
    return {"block": answer["block"][:-1]}


def with_another_parent(answer):
    answer["block"][-1]["block_header"]["raw_data"]["parentHash"] = "ee" * 32
    return answer


def one_block_later(answer):
    return {"block": answer["block"][1:] + answer["block"][-1:]}


def without_the_first_of_the_window(answer):
    first = answer["block"][0]["block_header"]["raw_data"]["number"]
    return {"block": answer["block"][first == 82 :]}


def with_another_number(answer):
    answer["block"][-1]["block_header"]["raw_data"]["number"] += 1
    return answer


@pytest.mark.parametrize(
    "spoil",
    [
        without_the_last,
        one_block_later,
        with_another_parent,
        with_another_number,
        without_the_first_of_the_window,
        lambda _: {},
        lambda _: b"busy",
    ],
)
def test_history_with_a_gap_proves_no_death_and_spoils_nothing_else(spoil):
    bench = Bench()
    version, other = bench.attempt(), bench.attempt(attempt_id=7)
    bench.chain.add(**{other.txid: tx()})
    expire(bench, version)
    node = bench.nodes[1]
    node.answers["walletsolidity/getblockbylimitnext"] = lambda body: spoil(node.getblockbylimitnext(True, **body))
    assert isinstance(bench.observe(version), Pending)
    assert isinstance(bench.observe(other), Final)


def test_nodes_on_two_solidified_branches_are_for_a_person():
    bench = Bench()
    version = bench.attempt()
    expire(bench, version)
    node = bench.nodes[1]

    def forged(body):
        answer = node.getblockbylimitnext(True, **body)
        parent = None
        for block in answer["block"]:
            raw = block["block_header"]["raw_data"]
            block["blockID"] = block["blockID"][:16] + "ab" * 24
            raw["parentHash"] = parent or f"{raw['number'] - 1:016x}" + "ab" * 24
            parent = block["blockID"]
        return answer

    node.answers["walletsolidity/getblockbylimitnext"] = forged
    assert isinstance(bench.observe(version), Suspicious)


def test_a_node_that_hides_a_solidified_transaction_is_outvoted_or_goes_to_a_person():
    bench = Bench(nodes=3)
    version = bench.attempt()
    bench.chain.add(**{version.txid: tx()})
    expire(bench, version)
    bench.nodes[2].blind = True
    assert isinstance(bench.observe(version), Final)
    bench.nodes[1].blind = True
    assert isinstance(bench.observe(version), Suspicious)


def test_a_pool_that_still_holds_it_does_not_keep_it_alive():
    bench = Bench()
    version = bench.attempt()
    expire(bench, version)
    for node in bench.nodes:
        node.pending.add(version.txid)
    assert isinstance(bench.observe(version), Dead)


def test_history_that_was_read_once_is_not_read_again():
    bench = Bench()
    version = bench.attempt()
    expire(bench, version)
    bench.nodes[1].down = "no answer"
    bench.observe(version)
    before = sum(method.endswith("limitnext") for method, _ in bench.node.calls)
    bench.nodes[1].down = ""
    assert isinstance(bench.observe(version), Dead)
    assert before > 0
    assert sum(method.endswith("limitnext") for method, _ in bench.node.calls) == before


def test_many_attempts_that_expired_are_searched_for_in_one_reading():
    import asyncio

    bench = Bench()
    versions = [bench.attempt(attempt_id=number) for number in range(1, 21)]
    bench.chain.add(**{versions[3].txid: tx(), versions[4].txid: tx(ret="REVERT", logs=[])})
    expire(bench, versions[0])

    async def look():
        return await asyncio.gather(*(bench.rail.observe([version]) for version in versions))

    seen = asyncio.run(look())
    assert [type(one).__name__ for one in seen].count("Dead") == 18
    assert isinstance(seen[3], Final)
    assert isinstance(seen[4], FailedOnChain)
    reads = [body["startNum"] for method, body in bench.node.calls if method.endswith("limitnext")]
    assert len(reads) <= 2 * len(set(reads))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_the_chain_and_its_nodes_do_no_death_is_seen_of_what_lands(data):
    """C4: missed slots, stalls, lagging and silent nodes around the expiration; by the real rule a block may hold the transaction while
    the block before is older than the expiration. If anything ever says Dead, no later block may hold it.
    """
    bench = Bench(nodes=data.draw(st.integers(2, 3)), height=30, solid=20)
    version = bench.attempt()
    expiration, dead, landed = version.intent.terms["expiration"], False, False
    bench.chain.add(expiration - data.draw(st.integers(1, 6)) * BLOCK_MS)
    for _ in range(data.draw(st.integers(3, 25))):
        gap_ms = BLOCK_MS * data.draw(st.sampled_from([1, 1, 1, 2, 5, 300]))
        may_land = bench.chain.head.time_ms < expiration and not landed
        assert not (may_land and dead)
        landing = may_land and data.draw(st.booleans())
        landed = landed or landing
        bench.chain.add(bench.chain.head.time_ms + gap_ms, **({version.txid: tx()} if landing else {}))
        bench.chain.solid = max(bench.chain.solid, bench.chain.head.number - data.draw(st.integers(0, 10)))
        for node in bench.nodes:
            node.down = "no answer" if data.draw(st.integers(0, 5)) == 0 else ""
            node.lag, node.solid_lag = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 3))
        try:
            seen = bench.observe(version)
        except NodeUnreachable:
            continue
        dead = dead or isinstance(seen, Dead)
        assert not (isinstance(seen, Dead) and landed)
        assert not isinstance(seen, Suspicious | FailedOnChain)
        assert not (isinstance(seen, Final) and not landed)


# Identity


def test_a_node_of_another_chain_is_never_used():
    bench = Bench()
    version = bench.attempt()
    bench.chain.add(**{version.txid: tx()})
    bench.chain.run(19)
    bench.nodes[1].chain_id = 728126428
    bench.runtime.seconds += 120
    assert bench.observe(version) == Included(version.txid, 101, 0, True)
    assert any(f"serves chain id 728126428, and {CHAIN_ID} is configured" in fault for fault in bench.rail.faults())
    bench.nodes[0].chain_id = 1
    bench.runtime.seconds += 120
    with pytest.raises(NodeUnreachable):
        bench.observe(version)


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("wallet/getblock", {"Error": "class java.lang.NullPointerException : null"}),
        ("wallet/getblock", {}),
        ("wallet/getblock", []),
        ("walletsolidity/getblock", b"<html>busy</html>"),
        ("walletsolidity/getblock", {"blockID": "00" * 32, "block_header": {"raw_data": {"number": -1}}}),
        ("wallet/gettransactioninfobyid", {"id": "ab" * 32}),
        ("wallet/gettransactioninfobyid", ["?"]),
        ("wallet/gettransactioninfobyid", {"Error": "this API is closed because this node is a lite fullnode"}),
    ],
)
def test_a_node_that_talks_nonsense_is_left_out(method, answer):
    bench = Bench()
    version = bench.attempt()
    bench.chain.add(**{version.txid: tx()})
    bench.chain.run(19)
    bench.nodes[1].answers[method] = answer
    assert bench.observe(version) == Included(version.txid, 101, 0, True)


def test_no_secret_of_an_address_reaches_a_text():
    bench = Bench()
    version = bench.attempt()
    bench.runtime.seconds += 120
    for place, node in enumerate(bench.nodes):
        node.answers["wallet/getblock"] = {"Error": f"https://tron{place}.example/SECRETKEY{place} is busy"}
    with pytest.raises(NodeUnreachable) as error:
        bench.observe(version)
    assert "SECRETKEY" not in str(error.value) + str(bench.rail.faults())


def test_an_attempt_has_exactly_one_version():
    bench = Bench()
    version = bench.attempt()
    with pytest.raises(ValueError, match="exactly one version"):
        bench.observe(version, version)
    assert bench.rail.bump(version.intent, None, version=2) is None
    assert bench.rail.bump(version.intent, None, version=2, cancel=True) is None
    assert (version.intent.sender, version.intent.payments[0].recipient) == (HOT, ALICE)
