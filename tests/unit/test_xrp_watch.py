"""What became of a transaction on the XRP Ledger: only validated ledgers count, and only by the word of enough nodes (test plan, C5)."""

import asyncio

import pytest
from msgspec import structs

from penstock.core.event import Absent, FailedOnChain, Final, Included, Pending, Suspicious
from penstock.rails.base import NodeUnreachable
from penstock.rails.xrp.watch import STRANGER_S, View, judge
from tests.fixtures.xrp_bench import (
    ISSUER,
    OTHER,
    RLUSD,
    RLUSD_CODE,
    SENDER,
    Bench,
    XrpNode,
    intent_of,
    payment,
    views_of,
)


def seen_by(bench, *versions):
    return bench.observe(list(versions))


def landed(bench, version, **how):
    bench.every(lambda node: node.lands(version, **how))


# Success


@pytest.mark.parametrize("contract", [None, RLUSD])
def test_a_payment_that_two_nodes_have_validated_and_that_delivered_its_amount_is_final(contract):
    bench, (version,) = Bench(), views_of(intent_of(payment(memo="7"), contract=contract))
    landed(bench, version)
    assert seen_by(bench, version) == Final(version.txid, 101, 12)


def test_one_node_of_two_is_not_enough():
    bench, (version,) = Bench(), views_of(intent_of())
    bench.nodes[0].lands(version)
    assert seen_by(bench, version) == Included(version.txid, 101, 0, succeeded=True)
    bench.nodes[1].down = "refused"
    assert seen_by(bench, version) == Included(version.txid, 101, 0, succeeded=True)
    bench.nodes[1].down = ""
    bench.nodes[1].lands(version)
    bench.runtime.seconds += 60
    assert seen_by(bench, version) == Final(version.txid, 101, 12)


def test_a_network_with_one_node_believes_that_one():
    for bench in (Bench(XrpNode()), Bench(XrpNode(0), chain_id=0, is_test=False)):
        (version,) = views_of(intent_of(chain_id=bench.rail.network.chain_id))
        landed(bench, version)
        assert isinstance(seen_by(bench, version), Final)


def test_a_result_that_is_not_validated_says_nothing():
    bench, (version,) = Bench(), views_of(intent_of())
    meta = {"TransactionResult": "tesSUCCESS", "delivered_amount": "12500001"}
    for said in ({"ledger_index": 101, "meta": meta}, {"validated": False, "ledger_index": 101, "meta": meta}, {"validated": "yes"}):
        bench.every(lambda node, said=said: node.transactions.update({version.txid: said}))
        assert seen_by(bench, version) == Pending()


@pytest.mark.parametrize(
    "delivered",
    ["12500000", "12500002", "unavailable", {"currency": "USD", "issuer": ISSUER, "value": "12.500001"}, 12500001, ["12500001"]],
)
def test_success_without_exactly_the_amount_goes_to_a_person(delivered):
    bench, (version,) = Bench(), views_of(intent_of())
    landed(bench, version, delivered=delivered)
    assert "did not deliver exactly" in seen_by(bench, version).detail


def test_success_without_a_delivered_amount_goes_to_a_person():
    bench, (version,) = Bench(), views_of(intent_of())
    landed(bench, version)
    bench.every(lambda node: node.transactions[version.txid]["meta"].pop("delivered_amount"))
    assert isinstance(seen_by(bench, version), Suspicious)


@pytest.mark.parametrize(
    "delivered",
    [
        {"currency": RLUSD_CODE, "issuer": ISSUER, "value": "12.5"},
        {"currency": RLUSD_CODE, "issuer": ISSUER, "value": "12.5000010000001"},
        {"currency": RLUSD_CODE, "issuer": OTHER, "value": "12.500001"},
        {"currency": "USD", "issuer": ISSUER, "value": "12.500001"},
        "12500001",
    ],
)
def test_a_token_that_arrived_short_or_as_another_goes_to_a_person(delivered):
    bench, (version,) = Bench(), views_of(intent_of(contract=RLUSD))
    landed(bench, version, delivered=delivered)
    assert isinstance(seen_by(bench, version), Suspicious)


def test_a_trust_line_is_done_when_its_ledger_is_validated():
    bench, (version,) = Bench(), views_of(intent_of(kind="open", contract=RLUSD, payments=()))
    bench.nodes[0].lands(version)
    assert seen_by(bench, version) == Included(version.txid, 101, 0, succeeded=True)
    landed(bench, version)
    assert seen_by(bench, version) == Final(version.txid, 101, 12)
    landed(bench, version, result="tecNO_LINE_INSUF_RESERVE")
    assert isinstance(seen_by(bench, version), FailedOnChain)


# Failure


@pytest.mark.parametrize("result", ["tecDST_TAG_NEEDED", "tecUNFUNDED_PAYMENT", "tecNO_DST_INSUF_XRP", "tecPATH_DRY", "tecNO_PERMISSION"])
def test_a_tec_code_in_a_validated_ledger_took_the_fee_and_moved_nothing(result):
    bench, (version,) = Bench(), views_of(intent_of())
    landed(bench, version, result=result)
    assert seen_by(bench, version) == FailedOnChain(version.txid, 101, 12, f"the ledger refused it: {result}")


def test_a_fee_that_took_what_was_left_goes_to_a_person():
    """Then the fee is not the one that the bytes name, and the books would be wrong by the difference."""
    bench, (version,) = Bench(), views_of(intent_of())
    landed(bench, version, result="tecINSUFF_FEE")
    assert isinstance(seen_by(bench, version), Suspicious)


def test_our_own_cancel_is_the_end_of_the_payment():
    bench = Bench()
    first = intent_of()
    versions = views_of(first, structs.replace(first, version=2, kind="cancel", terms={"fee": 15, "last_ledger": 190}))
    landed(bench, versions[1])
    assert seen_by(bench, *versions) == FailedOnChain(versions[1].txid, 101, 15, "our own cancel used the sequence")


@pytest.mark.parametrize("result", ["tefPAST_SEQ", "terQUEUED", "telINSUF_FEE_P", "temMALFORMED", "success", "tes", "", None, 0])
def test_a_code_that_no_validated_ledger_holds_is_not_believed(result):
    bench, (version,) = Bench(), views_of(intent_of())
    landed(bench, version)
    bench.every(lambda node: node.transactions[version.txid]["meta"].update(TransactionResult=result))
    with pytest.raises(NodeUnreachable):
        seen_by(bench, version)


@pytest.mark.parametrize(
    "changes", [{"hash": "0" * 64}, {"hash": None}, {"ledger_index": 0}, {"ledger_index": "101"}, {"ledger_index": 131}, {"meta": None}]
)
def test_an_answer_that_cannot_be_this_transactions_is_not_believed(changes):
    """131 is after its last ledger."""
    bench, (version,) = Bench(), views_of(intent_of())
    landed(bench, version)
    bench.every(lambda node: node.transactions[version.txid].update(changes))
    with pytest.raises(NodeUnreachable):
        seen_by(bench, version)


def test_nodes_that_show_two_different_ends_are_not_believed_until_they_agree():
    bench, (version,) = Bench(XrpNode(), XrpNode(), XrpNode()), views_of(intent_of())
    bench.nodes[0].lands(version)
    bench.nodes[1].lands(version, result="tecPATH_DRY")
    seen = seen_by(bench, version)
    assert (type(seen), seen.depth) == (Included, 0)
    bench.nodes[2].lands(version)
    assert isinstance(seen_by(bench, version), Included)
    bench.nodes[1].lands(version)
    assert isinstance(seen_by(bench, version), Final)


# Waiting, lost, expired


def at(bench, tip):
    bench.every(lambda node: setattr(node, "tip", tip))
    return bench


def test_what_no_node_knows_is_sent_again_while_it_can_land():
    bench, (version,) = Bench(), views_of(intent_of())
    assert seen_by(bench, version) == Absent()
    assert seen_by(at(bench, 130), version) == Absent()


def test_the_nodes_are_asked_to_search_every_ledger_of_the_versions_life():
    bench, (version,) = Bench(), views_of(intent_of())
    seen_by(bench, version)
    (asked,) = [params for method, params in bench.nodes[0].calls if method == "tx"]
    assert (asked["min_ledger"], asked["max_ledger"]) == (100, 130)


def test_a_version_past_its_last_ledger_that_nobody_has_gets_a_successor():
    bench, (version,) = Bench(), views_of(intent_of())
    assert seen_by(at(bench, 131), version) == Pending(stuck=True)


@pytest.mark.parametrize("tip", [127, 128, 129, 130])
def test_up_to_its_last_ledger_a_version_is_never_called_expired(tip):
    bench, (version,) = Bench(), views_of(intent_of())
    assert seen_by(at(bench, tip), version) == Absent()


def test_a_ledger_gap_means_wait():
    bench, (version,) = Bench(), views_of(intent_of())
    at(bench, 131).nodes[0].searches_all = False
    assert seen_by(bench, version) == Pending()
    bench.nodes[1].searches_all = False
    assert seen_by(bench, version) == Pending()


@pytest.mark.parametrize("complete", ["100-130", "1-140", "5,7-9,32-200", "1-99,100-131,140", "101-140", "129-140", "135-140"])
def test_a_node_that_keeps_every_ledger_proves_it_though_one_is_empty(complete):
    """rippled says searched_all false of ranges with an empty ledger: https://github.com/XRPLF/rippled/issues/3750

    Of ledgers older than any that it keeps the account speaks, whose sequence is unused in a later one: a version that was made on a head
    that a node lied about is not searched for in vain for ever.
    """
    bench, (version,) = Bench(), views_of(intent_of())
    for node in at(bench, 140).nodes:
        node.searches_all, node.complete = False, complete
    assert seen_by(bench, version) == Pending(stuck=True)


@pytest.mark.parametrize("complete", ["empty", "1-129", "1-115,117-140", "100", "1-50,60-99,131-140"])
def test_a_node_that_lacks_one_ledger_of_its_life_proves_nothing(complete):
    bench, (version,) = Bench(), views_of(intent_of())
    for node in at(bench, 140).nodes:
        node.searches_all, node.complete = False, complete
    assert seen_by(bench, version) == Pending()


@pytest.mark.parametrize("complete", ["", "1-", "a-b", "1--2", "1-2,", 5, None, "1," * 6_000 + "1", "99999999999"])
def test_ranges_that_are_none_make_a_node_unusable(complete):
    bench, (version,) = Bench(XrpNode()), views_of(intent_of())
    bench.nodes[0].answers["server_info"] = {"info": {"network_id": 7300144, "complete_ledgers": complete}}
    with pytest.raises(NodeUnreachable):
        seen_by(bench, version)


def test_a_node_that_is_behind_does_not_prove_an_expiry():
    bench, (version,) = Bench(), views_of(intent_of())
    at(bench, 140).nodes[1].tip = 125
    assert seen_by(bench, version) == Absent()


def test_one_node_alone_proves_no_expiry_on_a_network_with_two():
    bench, (version,) = Bench(), views_of(intent_of())
    at(bench, 140).nodes[1].down = "refused"
    assert seen_by(bench, version) == Pending()


def test_a_real_network_with_one_node_asks_for_a_second_one():
    bench = Bench(XrpNode(0), chain_id=0, is_test=False)
    (version,) = views_of(intent_of(chain_id=0))
    seen = seen_by(at(bench, 140), version)
    assert isinstance(seen, Suspicious)
    assert "configure a second node" in seen.detail
    assert seen_by(at(Bench(XrpNode()), 140), *views_of(intent_of())) == Pending(stuck=True)


def test_a_version_that_a_node_remembers_though_no_ledger_took_it_expires_too():
    """rippled keeps what it was given in memory, long after its last ledger; that the sequence is unused there proves the expiry."""
    bench, (version,) = Bench(), views_of(intent_of())
    bench.every(lambda node: node.transactions.update({version.txid: {"validated": False}}))
    assert seen_by(at(bench, 130), version) == Pending()
    assert seen_by(at(bench, 131), version) == Pending(stuck=True)
    bench.every(lambda node: node.accounts[SENDER].update(Sequence=6))
    assert seen_by(bench, version) == Pending()


def test_an_older_version_that_may_still_be_somewhere_keeps_the_newer_from_being_called_expired():
    bench, first = Bench(), intent_of()
    versions = views_of(first, structs.replace(first, version=2, terms={"fee": 12, "last_ledger": 200}))
    missing = {"error": "txnNotFound", "error_code": 29, "error_message": "Transaction not found."}
    at(bench, 201)
    assert seen_by(bench, *versions) == Pending(stuck=True)
    bench.every(lambda node: node.answers.update(tx=lambda params: {**missing, "searched_all": params["transaction"] != versions[0].txid}))
    assert seen_by(bench, *versions) == Pending()


def test_a_transaction_that_landed_at_the_last_moment_is_seen_and_not_called_expired():
    bench, (version,) = Bench(), views_of(intent_of())
    landed(bench, version, ledger=130, tip=200)
    assert seen_by(bench, version) == Final(version.txid, 130, 12)


def test_any_version_that_landed_is_the_end_whichever_is_the_newest():
    bench, first = Bench(), intent_of()
    versions = views_of(first, structs.replace(first, version=2, terms={"fee": 16, "last_ledger": 200}))
    landed(bench, versions[0])
    assert seen_by(bench, *versions) == Final(versions[0].txid, 101, 12)


def test_two_versions_that_both_landed_cannot_be():
    bench, first = Bench(), intent_of()
    versions = views_of(first, structs.replace(first, version=2, terms={"fee": 16, "last_ledger": 200}))
    for version in versions:
        landed(bench, version)
    with pytest.raises(NodeUnreachable):
        seen_by(bench, *versions)


# Price


def dear(bench, fee="50"):
    bench.every(lambda node: node.drops.update(open_ledger_fee=fee))
    return bench


def test_a_fee_below_the_open_ledgers_asks_for_a_bump_once_it_has_waited():
    bench, (version,) = Bench(), views_of(intent_of())
    assert seen_by(dear(bench), version) == Absent()
    assert seen_by(at(bench, 103), version) == Pending(stuck=True)
    bench.every(lambda node: node.transactions.update({version.txid: {"validated": False}}))
    assert seen_by(bench, version) == Pending(stuck=True)
    assert seen_by(dear(bench, "12"), version) == Pending()


def test_only_the_first_in_line_is_bumped():
    bench, (version,) = Bench(), views_of(intent_of(slot=6))
    assert seen_by(at(dear(bench), 103), version) == Absent()


def test_one_node_that_asks_too_much_bumps_nothing():
    bench, (version,) = Bench(), views_of(intent_of())
    at(bench, 103).nodes[0].drops["open_ledger_fee"] = "99999"
    assert seen_by(bench, version) == Absent()


# Strangers


def test_a_sequence_that_somebody_else_used_goes_to_a_person_after_a_while():
    bench, (version,) = Bench(), views_of(intent_of())
    bench.every(lambda node: node.accounts[SENDER].update(Sequence=6))
    assert seen_by(bench, version) == Absent()
    bench.runtime.seconds += STRANGER_S
    seen = seen_by(bench, version)
    assert isinstance(seen, Suspicious)
    assert f"sequence 5 of {SENDER}" in seen.detail
    landed(bench, version)
    assert isinstance(seen_by(bench, version), Final)


def test_one_node_with_another_sequence_accuses_nobody():
    bench, (version,) = Bench(), views_of(intent_of())
    bench.nodes[0].accounts[SENDER]["Sequence"] = 6
    for _ in range(3):
        assert seen_by(bench, version) == Absent()
        bench.runtime.seconds += STRANGER_S


def test_a_used_sequence_is_never_called_expired():
    bench, (version,) = Bench(), views_of(intent_of())
    bench.every(lambda node: node.accounts[SENDER].update(Sequence=6))
    assert seen_by(at(bench, 140), version) == Pending()


# Nodes


def test_while_nobody_answers_nothing_is_concluded():
    bench, (version,) = Bench(), views_of(intent_of())
    bench.every(lambda node: setattr(node, "down", "refused"))
    with pytest.raises(NodeUnreachable):
        seen_by(bench, version)
    with pytest.raises(ValueError, match="at least one version"):
        bench.observe([])


def test_a_node_that_does_not_know_our_account_is_not_asked_about_its_transactions():
    bench, (version,) = Bench(XrpNode()), views_of(intent_of())
    bench.nodes[0].accounts.clear()
    with pytest.raises(NodeUnreachable):
        seen_by(at(bench, 140), version)


def test_many_attempts_share_their_questions():
    bench = Bench()
    attempts = [views_of(intent_of(slot=slot)) for slot in range(5, 25)]
    bench.every(lambda node: node.lands(attempts[0][0]))

    async def work():
        tasks = [bench.runtime.spawn(bench.rail.observe(attempt), name="observe") for attempt in attempts]
        return [await task for task in tasks]

    seen = asyncio.run(work())
    assert [type(one) for one in seen] == [Final] + [Absent] * 19
    methods = [method for method, _ in bench.nodes[0].calls]
    assert (methods.count("tx"), methods.count("ledger") <= 2, methods.count("account_info") <= 2) == (20, True, True)


def test_a_view_of_nothing_proves_nothing():
    versions = views_of(intent_of())
    assert judge(versions, [View(100, 10)], needed=1, stranger=False, alone=False) == Absent()
