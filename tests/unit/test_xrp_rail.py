"""The rail of the XRP Ledger against nodes of a few variables: what it refuses, what it asks, what it signs and what it believes."""

import asyncio
import dataclasses

import pytest
from msgspec import structs

from penstock.core.intent import Payment
from penstock.rails.base import (
    Destination,
    InvalidDestination,
    LaneView,
    MemoRequired,
    NodeUnreachable,
    NotEnough,
    Opens,
    OwnAddress,
    Prepares,
    TooLittle,
    Unpayable,
    Verdict,
    WrongNetwork,
)
from penstock.rails.xrp import codec
from penstock.rails.xrp.answers import units_below
from penstock.rails.xrp.fees import WINDOW, WINDOW_MAX, born, bumped, window
from tests.fixtures.xrp_bench import (
    ISSUER,
    KEY,
    OTHER,
    RECIPIENT,
    RLUSD,
    RLUSD_TOKEN,
    SENDER,
    XRP_TOKEN,
    Bench,
    XrpNode,
    account,
    account_data,
    intent_of,
    payment,
)

BASE_ADDRESS = "rwyQp3eC5j6AumcptZhfmiXAykpeswZKeJ"
NO_TAG, TAG_1 = "X7AcgcsBL6XDcUb289X4mJ8djcdyKaB5hJDWMArnXr61cqZ", "X7AcgcsBL6XDcUb289X4mJ8djcdyKaGZMhc9YTE92ehJ2Fu"
OF_TEST = "T7oKJ3q7s94kDH6tpkBowhetT1JKfcfdSCmAXbS75iATyLD"


def main_bench():
    return Bench(XrpNode(0), XrpNode(0), chain_id=0, is_test=False)


# Destinations


@pytest.mark.parametrize(
    ("text", "memo", "expected"),
    [
        (BASE_ADDRESS, "573049", Destination(BASE_ADDRESS, "573049")),  # the base document's own example
        (BASE_ADDRESS, "", Destination(BASE_ADDRESS)),
        (BASE_ADDRESS, "0", Destination(BASE_ADDRESS, "0")),
        (BASE_ADDRESS, "007", Destination(BASE_ADDRESS, "7")),
        (TAG_1, "", Destination("r9cZA1mLK5R5Am25ArfXFmqgNwjZgnfk59", "1")),
        (TAG_1, "1", Destination("r9cZA1mLK5R5Am25ArfXFmqgNwjZgnfk59", "1")),
        (NO_TAG, "5", Destination("r9cZA1mLK5R5Am25ArfXFmqgNwjZgnfk59", "5")),
        (NO_TAG, "", Destination("r9cZA1mLK5R5Am25ArfXFmqgNwjZgnfk59")),
    ],
)
def test_a_destination_is_a_classic_address_and_a_tag(text, memo, expected):
    assert main_bench().rail.parse_destination(text, memo) == expected


@pytest.mark.parametrize(
    ("text", "memo", "says"),
    [
        (TAG_1, "2", "another destination tag"),
        (TAG_1, "0", "another destination tag"),
        (OF_TEST, "", "X-address of a test network"),
        (BASE_ADDRESS, "4294967296", "destination tag"),
        (BASE_ADDRESS, "abc", "destination tag"),
        (BASE_ADDRESS[:-1] + "K", "", "mistyped"),
    ],
)
def test_what_is_not_certain_is_refused(text, memo, says):
    with pytest.raises(InvalidDestination, match=says):
        main_bench().rail.parse_destination(text, memo)


def test_an_x_address_of_the_main_network_is_refused_on_a_test_network():
    assert Bench().rail.parse_destination(OF_TEST, "").memo == "123"
    with pytest.raises(InvalidDestination, match="test network"):
        Bench().rail.parse_destination(TAG_1, "")


@pytest.mark.parametrize("text", [SENDER, ISSUER])
def test_our_own_address_and_a_tokens_issuer_are_no_destinations(text):
    with pytest.raises(OwnAddress):
        main_bench().rail.parse_destination(text, "1")


# Looking up while an order is accepted


def test_the_rail_prepares():
    assert isinstance(Bench().rail, Prepares)


def test_a_destination_that_demands_a_tag_is_refused_without_one_and_taken_with_one():
    bench = Bench()
    bench.every(lambda node: node.accounts.update({RECIPIENT: account_data(RECIPIENT, Flags=0x00020000)}))
    with pytest.raises(MemoRequired, match="demands a tag"):
        bench.look_up(Destination(RECIPIENT), XRP_TOKEN, 1_000_000)
    bench.look_up(Destination(RECIPIENT, "0"), XRP_TOKEN, 1_000_000)


def test_an_account_that_does_not_exist_may_be_paid_xrp_and_no_token():
    bench = Bench()
    bench.look_up(Destination(RECIPIENT), XRP_TOKEN, 1_000_000)
    with pytest.raises(TooLittle, match="must be at least 1 XRP"):
        bench.look_up(Destination(RECIPIENT), XRP_TOKEN, 999_999)
    with pytest.raises(InvalidDestination, match="does not exist yet"):
        bench.look_up(Destination(RECIPIENT), RLUSD_TOKEN, 1_000_000)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"Flags": 0x01000000}, "only from accounts that it has authorised"),
        ({"Flags": 0x00080000}, "wants no XRP"),
        ({"AMMID": "0" * 64}, "belongs to the ledger itself"),
        ({"Flags": 0x00100000, "RegularKey": "rrrrrrrrrrrrrrrrrrrrBZbvji"}, "nobody has a key"),
    ],
)
def test_accounts_that_do_not_want_it_or_have_lost_it_are_refused(fields, says):
    bench = Bench()
    bench.every(lambda node: node.accounts.update({RECIPIENT: account_data(RECIPIENT, **fields)}))
    with pytest.raises(InvalidDestination, match=says):
        bench.look_up(Destination(RECIPIENT), XRP_TOKEN, 1_000_000)
    ((problem),) = bench.prepare([payment()], XRP_TOKEN, SENDER, bench.estimate(XRP_TOKEN))
    assert says in str(problem)


def test_a_master_key_that_is_disabled_beside_a_regular_key_of_ones_own_is_no_loss():
    bench = Bench()
    fields = {"Flags": 0x00100000, "RegularKey": OTHER}
    bench.every(lambda node: node.accounts.update({RECIPIENT: account_data(RECIPIENT, **fields)}))
    bench.look_up(Destination(RECIPIENT), XRP_TOKEN, 1_000_000)


def test_an_account_that_has_authorised_us_is_paid():
    bench = Bench()
    bench.every(lambda node: node.accounts.update({RECIPIENT: account_data(RECIPIENT, Flags=0x01000000)}))
    bench.every(lambda node: node.authorised.add((SENDER, RECIPIENT)))
    bench.look_up(Destination(RECIPIENT), XRP_TOKEN, 1_000_000)


def test_a_look_up_is_remembered_for_a_short_time():
    bench = Bench()
    bench.look_up(Destination(RECIPIENT), XRP_TOKEN, 1_000_000)
    asked = len(bench.nodes[0].calls)
    bench.look_up(Destination(RECIPIENT), XRP_TOKEN, 1_000_000)
    assert len(bench.nodes[0].calls) == asked
    bench.every(lambda node: node.accounts.update({RECIPIENT: account_data(RECIPIENT, Flags=0x00020000)}))
    bench.runtime.seconds += 11
    with pytest.raises(MemoRequired):
        bench.look_up(Destination(RECIPIENT), XRP_TOKEN, 1_000_000)


def test_a_request_does_not_wait_for_nodes_that_hang(monkeypatch):
    monkeypatch.setattr("penstock.rails.xrp.rail.LOOK_UP_S", 0.01)
    bench = Bench()
    bench.stalls.append(10**9)
    with pytest.raises(NodeUnreachable, match=r"within 0\.01 s"):
        bench.look_up(Destination(RECIPIENT), XRP_TOKEN, 1_000_000)


# Fees


def test_the_estimate_is_the_fee_that_the_bytes_will_name_and_lives_two_minutes():
    fees = Bench().estimate(XRP_TOKEN)
    assert (fees.cost, fees.fee_cap) == (12, 20_000)
    assert fees.terms == {"fee": 12, "last_ledger": 100 + WINDOW, "reserve": 1_000_000}


def test_a_busy_ledger_costs_more_up_to_the_cap():
    bench = Bench()
    bench.nodes[0].drops["open_ledger_fee"] = "5000"
    assert bench.estimate(XRP_TOKEN).cost == 6_000
    bench.nodes[0].drops["open_ledger_fee"] = "2653937"
    bench.runtime.seconds += 2
    fees = bench.estimate(XRP_TOKEN)
    assert (fees.cost, fees.fee_cap) == (3_184_725, 1_000_000)


def test_a_full_queue_raises_the_least_fee():
    bench = Bench()
    bench.nodes[0].drops["minimum_fee"] = "200"
    assert bench.estimate(XRP_TOKEN).cost == 240


@pytest.mark.parametrize("asked", ["-1", "0x10", "1e3", 10**18, "9" * 30, None, "1000000001", 1.5])
def test_a_node_that_asks_nonsense_is_passed_over(asked):
    bench = Bench()
    bench.nodes[0].drops["open_ledger_fee"] = asked
    assert bench.estimate(XRP_TOKEN).cost == 12
    bench.nodes[1].down = "refused"
    bench.runtime.seconds += 2
    with pytest.raises(NodeUnreachable):
        bench.estimate(XRP_TOKEN)


def test_a_lone_node_that_is_far_ahead_does_not_make_bytes_live_for_ever():
    bench = Bench()
    bench.nodes[0].tip = 2**31
    assert bench.estimate(XRP_TOKEN).terms["last_ledger"] == 100 + WINDOW


def test_a_node_that_no_longer_knows_the_rules_is_not_asked_for_reserves():
    bench = Bench(XrpNode())
    bench.nodes[0].answers["server_state"] = {"state": {"amendment_blocked": True, "validated_ledger": {}}}
    with pytest.raises(NodeUnreachable, match="amendment blocked"):
        bench.estimate(XRP_TOKEN)


def test_what_the_account_owns_raises_its_reserve():
    bench = Bench()
    bench.every(lambda node: node.accounts[SENDER].update(OwnerCount=3))
    assert bench.estimate(XRP_TOKEN).terms["reserve"] == 1_600_000


# Preparing


def prepared(bench, paid, token=XRP_TOKEN):
    (found,) = bench.prepare([paid], token, SENDER, bench.estimate(token))
    return found


def test_a_payment_that_is_prepared_later_lives_from_then_on():
    bench = Bench()
    fees = bench.estimate(XRP_TOKEN)
    bench.every(lambda node: setattr(node, "tip", 140))
    bench.runtime.seconds += 20
    (found,) = bench.prepare([payment()], XRP_TOKEN, SENDER, fees)
    assert found.terms["last_ledger"] == 140 + WINDOW
    assert (found.cost, found.fee_cap, found.terms["fee"]) == (fees.cost, fees.fee_cap, fees.terms["fee"])


def test_the_first_payment_of_a_new_account_covers_its_reserve():
    bench = Bench()
    assert "at least 1 XRP" in str(prepared(bench, payment(999_999)))
    assert prepared(bench, payment(1_000_000)).cost == 12
    bench.every(lambda node: node.accounts.update({RECIPIENT: account_data(RECIPIENT)}))
    assert prepared(bench, payment(1)).cost == 12


def test_a_tag_that_came_to_be_demanded_after_the_order_holds_it():
    bench = Bench()
    bench.every(lambda node: node.accounts.update({RECIPIENT: account_data(RECIPIENT, Flags=0x00020000)}))
    problem = prepared(bench, payment())
    assert isinstance(problem, Unpayable)
    assert not problem.for_ever


def token_bench(theirs=None, ours=None, **issuer):
    """Everything is in order for a token, but for what is given."""
    bench = Bench()
    for node in bench.nodes:
        node.accounts[RECIPIENT] = account_data(RECIPIENT)
        node.accounts[ISSUER] = account_data(ISSUER, **issuer)
        if theirs is not None:
            node.line(RECIPIENT, **theirs)
        if ours is not None:
            node.line(SENDER, balance="500", **ours)
    return bench


def test_a_token_goes_to_whoever_has_a_trust_line_with_room():
    bench = token_bench({"limit": "20", "balance": "7.499999"}, {})
    assert prepared(bench, payment(12_500_001), RLUSD_TOKEN).cost == 12
    assert "trust line allows" in str(prepared(bench, payment(12_500_002), RLUSD_TOKEN))


def test_a_balance_finer_than_our_units_counts_upwards_for_the_limit():
    bench = token_bench({"limit": "20", "balance": "7.4999990001"}, {})
    assert "trust line allows" in str(prepared(bench, payment(12_500_001), RLUSD_TOKEN))


@pytest.mark.parametrize(
    ("theirs", "ours", "issuer", "says"),
    [
        (None, {}, {}, "no trust line to the token's issuer"),
        ({}, None, {}, "hot address has no trust line"),
        ({"freeze_peer": True}, {}, {}, "frozen"),
        ({"deep_freeze_peer": True}, {}, {}, "frozen"),
        ({}, {"freeze_peer": True}, {}, "own trust line is frozen"),
        ({}, {}, {"Flags": 0x00400000}, "frozen it everywhere"),
        ({}, {}, {"TransferRate": 1_002_000_000}, "fee of each transfer"),
        ({}, {"peer_authorized": True}, {"Flags": 0x00040000}, "has not authorised it"),
        ({"peer_authorized": True}, {}, {"Flags": 0x00040000}, "not authorised the hot address"),
        ({"quality_in": 900_000_000}, {}, {}, "at par"),
        ({"no_ripple_peer": True}, {"no_ripple_peer": True}, {}, "No Ripple"),
        ({"currency": "USD"}, {}, {}, "no trust line to the token's issuer"),
    ],
)
def test_what_an_issuer_or_a_line_forbids_is_not_tried(theirs, ours, issuer, says):
    problem = prepared(token_bench(theirs, ours, **issuer), payment(), RLUSD_TOKEN)
    assert isinstance(problem, Unpayable)
    assert says in str(problem)


@pytest.mark.parametrize(
    ("theirs", "ours", "issuer"),
    [
        ({"peer_authorized": True}, {"peer_authorized": True}, {"Flags": 0x00040000}),
        ({"no_ripple_peer": True}, {}, {}),
        ({}, {}, {"TransferRate": 1_000_000_000}),
        ({"freeze_peer": False}, {}, {}),
        ({"limit": "9999999999999999e80"}, {}, {}),
    ],
)
def test_what_is_allowed_is_prepared(theirs, ours, issuer):
    assert prepared(token_bench(theirs, ours, **issuer), payment(), RLUSD_TOKEN).cost == 12


def test_a_token_that_the_catalogue_gives_other_decimals_is_never_paid():
    wrong = dataclasses.replace(RLUSD_TOKEN, decimals=15)
    bench = token_bench({}, {})
    assert "decimals" in str(prepared(bench, payment(), wrong))
    with pytest.raises(Unpayable, match="decimals"):
        bench.rail.bind([payment()], wrong, LaneView("XRP", SENDER, 5), bench.estimate(RLUSD_TOKEN), attempt_id=1)


def test_many_are_prepared_at_once_each_with_its_own_answer():
    bench = Bench()
    bench.every(lambda node: node.accounts.update({RECIPIENT: account_data(RECIPIENT, Flags=0x00020000)}))
    asked = [payment(), payment(memo="5"), payment(recipient=OTHER), payment(5, recipient=account(7))]
    found = bench.prepare(asked, XRP_TOKEN, SENDER, bench.estimate(XRP_TOKEN))
    assert [isinstance(one, Unpayable) for one in found] == [True, False, False, True]
    assert bench.prepare([], XRP_TOKEN, SENDER, bench.estimate(XRP_TOKEN)) == []


def test_while_nobody_answers_nothing_is_prepared():
    bench = Bench()
    fees = bench.estimate(XRP_TOKEN)
    bench.every(lambda node: setattr(node, "down", "refused"))
    with pytest.raises(NodeUnreachable):
        bench.prepare([payment()], XRP_TOKEN, SENDER, fees)


# Binding and bumping


def test_an_intent_is_signed_as_it_stands():
    bench = Bench()
    intent = bench.rail.bind([payment(memo="9")], XRP_TOKEN, LaneView("XRP", SENDER, 5), bench.estimate(XRP_TOKEN), attempt_id=8)
    assert (intent.slot, intent.terms, intent.fee_cap, intent.resources) == (5, {"fee": 12, "last_ledger": 100 + WINDOW}, 20_000, ())
    assert codec.broken_rules(intent, codec.sign(intent, KEY)) == []
    with pytest.raises(ValueError, match="exactly one"):
        bench.rail.bind([payment(), payment()], XRP_TOKEN, LaneView("XRP", SENDER, 5), bench.estimate(XRP_TOKEN), attempt_id=8)


def test_what_the_account_must_keep_is_never_spent():
    bench = Bench()
    fees = bench.estimate(XRP_TOKEN)
    paid, needed = payment(5_000_000), 5_000_000 + 20_000 + 1_000_000
    lane = LaneView("XRP", SENDER, 5, spendable={"xrp": needed})
    assert bench.rail.bind([paid], XRP_TOKEN, lane, fees, attempt_id=1).payments == (paid,)
    with pytest.raises(NotEnough, match=r"lacks 0\.000001 XRP on XRP, where the account itself must keep 1 XRP"):
        bench.rail.bind([paid], XRP_TOKEN, dataclasses.replace(lane, spendable={"xrp": needed - 1}), fees, attempt_id=1)


def test_a_token_needs_xrp_for_fee_and_reserve_only():
    bench = Bench()
    fees = bench.estimate(RLUSD_TOKEN)
    lane = LaneView("XRP", SENDER, 5, spendable={"xrp": 1_020_000})
    assert bench.rail.bind([payment(900_000_000)], RLUSD_TOKEN, lane, fees, attempt_id=1).contract == RLUSD
    with pytest.raises(NotEnough):
        bench.rail.bind([payment(9)], RLUSD_TOKEN, dataclasses.replace(lane, spendable={"xrp": 1_019_999}), fees, attempt_id=1)


def estimate_at(validated, *, fee=12):
    bench = Bench()
    bench.every(lambda node: setattr(node, "tip", validated))
    return dataclasses.replace(bench.estimate(XRP_TOKEN), terms={"fee": fee, "last_ledger": validated + WINDOW, "reserve": 1})


def test_an_expired_version_is_followed_by_one_on_the_same_sequence_that_lives_longer():
    intent = intent_of()
    following = Bench().rail.bump(intent, estimate_at(140), version=2)
    assert following == structs.replace(intent, version=2, terms={"fee": 12, "last_ledger": 140 + 2 * WINDOW})
    assert born(following) == 140
    assert codec.broken_rules(following, codec.sign(following, KEY)) == []


def test_a_version_that_may_still_wait_is_followed_by_one_that_queues_prefer():
    following = bumped(intent_of(fee=12), estimate_at(110), version=2, cancel=False)
    assert following.terms == {"fee": 16, "last_ledger": 110 + 2 * WINDOW}
    assert bumped(intent_of(fee=12), estimate_at(110, fee=900), version=2, cancel=False).terms["fee"] == 900


def test_in_its_very_last_ledger_a_version_counts_as_one_that_may_wait():
    assert bumped(intent_of(fee=12), estimate_at(130), version=2, cancel=False).terms["fee"] == 16
    assert bumped(intent_of(fee=12), estimate_at(131), version=2, cancel=False).terms["fee"] == 12


def test_a_bump_needs_a_fresh_look_and_room_under_the_cap():
    assert bumped(intent_of(), None, version=2, cancel=False) is None
    assert bumped(intent_of(fee=4_500), estimate_at(110), version=2, cancel=False) is None
    assert bumped(intent_of(fee=4_500), estimate_at(140), version=2, cancel=False).terms["fee"] == 4_500
    assert bumped(intent_of(), estimate_at(140, fee=5_001), version=2, cancel=False) is None
    assert bumped(intent_of(last_ledger=2**32 - 1), estimate_at(140), version=2, cancel=False) is None


def test_a_cancel_keeps_the_sequence_and_says_nothing():
    following = bumped(intent_of(), estimate_at(140), version=2, cancel=True)
    assert (following.kind, following.slot) == ("cancel", 5)
    assert codec.build(following)["TransactionType"] == "AccountSet"
    assert bumped(following, estimate_at(300), version=3, cancel=False).kind == "cancel"


def test_twenty_versions_outlast_an_outage_of_half_a_day():
    assert [window(version) for version in (1, 2, 3)] == [WINDOW, 2 * WINDOW, 4 * WINDOW]
    assert max(window(version) for version in range(1, 100)) == WINDOW_MAX < 1_000
    assert sum(window(version) for version in range(1, 21)) * 4 > 12 * 3_600


# Opening tokens


def test_tokens_without_a_trust_line_are_named_and_opened():
    bench = Bench()
    assert isinstance(bench.rail, Opens)
    assert bench.unopened(SENDER, [XRP_TOKEN, RLUSD_TOKEN]) == []  # its issuer is unknown here: a trust line would cost a fee for nothing
    bench.every(lambda node: node.accounts.update({ISSUER: account_data(ISSUER)}))
    assert bench.unopened(SENDER, [XRP_TOKEN, RLUSD_TOKEN]) == [RLUSD_TOKEN]
    bench.nodes[0].line(SENDER, limit="0")
    assert bench.unopened(SENDER, [RLUSD_TOKEN]) == [RLUSD_TOKEN]
    bench.nodes[0].line(SENDER)
    assert bench.unopened(SENDER, [XRP_TOKEN, RLUSD_TOKEN]) == bench.unopened(SENDER, []) == []
    intent = bench.rail.open(RLUSD_TOKEN, LaneView("XRP", SENDER, 5), bench.estimate(RLUSD_TOKEN), attempt_id=3)
    assert (intent.kind, intent.payments, intent.contract, intent.terms) == ("open", (), RLUSD, {"fee": 12, "last_ledger": 100 + WINDOW})
    assert codec.broken_rules(intent, codec.sign(intent, KEY)) == []
    assert bench.rail.bump(intent, estimate_at(140), version=2).kind == "open"


# Submitting


def raw_of(**changes):
    return codec.sign(intent_of(**changes), KEY).raw


@pytest.mark.parametrize("result", ["tesSUCCESS", "terQUEUED", "terPRE_SEQ", "tefALREADY", "tecPATH_DRY", "tecUNFUNDED_PAYMENT"])
def test_a_node_that_has_the_bytes_has_accepted_them(result):
    bench = Bench()
    bench.nodes[0].engine_result = result
    assert bench.submit(raw_of()).verdict is Verdict.ACCEPTED
    assert (bench.nodes[0].sent, bench.nodes[1].sent) == ([raw_of()], [])


@pytest.mark.parametrize(
    "result",
    ["tefPAST_SEQ", "tefMAX_LEDGER", "telINSUF_FEE_P", "telCAN_NOT_QUEUE_FEE", "terRETRY", "temBAD_FEE", "temMALFORMED", "tefFAILURE",
     "telNETWORK_ID_MAKES_TX_NON_CANONICAL", "terNO_ACCOUNT"],
)  # fmt: skip
def test_no_word_of_a_node_proves_that_bytes_cannot_land(result):
    bench = Bench()
    bench.every(lambda node: setattr(node, "engine_result", result))
    said = bench.submit(raw_of())
    assert (said.verdict, said.detail) == (Verdict.UNKNOWN, f"node 2 of 2: {result}")
    assert bench.nodes[0].sent == bench.nodes[1].sent == [raw_of()]


@pytest.mark.parametrize(
    "answer",
    [
        {"error": "amendmentBlocked", "error_code": 14, "error_message": "Amendment blocked, need upgrade."},
        {"engine_result": "SUCCESS"},
        {"engine_result": 0},
        {},
        {"engine_result": "tesSUCCESS", "tx_json": {"hash": "0" * 64}},
        {"engine_result": "tesSUCCESS", "tx_json": {"hash": "x"}},
    ],
)
def test_an_answer_that_says_something_else_is_unknown(answer):
    bench = Bench(XrpNode())
    bench.nodes[0].answers["submit"] = answer
    assert bench.submit(raw_of()).verdict is Verdict.UNKNOWN


def test_a_lost_reply_is_unknown_and_the_same_bytes_go_to_every_node_the_next_time():
    bench = Bench()
    bench.nodes[0].down = "no answer within 8 s"
    assert bench.submit(raw_of()).verdict is Verdict.ACCEPTED
    bench.nodes[0].down = ""
    bench.runtime.seconds += 60
    assert bench.submit(raw_of()).verdict is Verdict.ACCEPTED
    assert (len(bench.nodes[0].sent), len(bench.nodes[1].sent)) == (1, 2)


def test_while_all_nodes_are_down_a_submission_is_unknown():
    bench = Bench()
    bench.every(lambda node: setattr(node, "down", "refused"))
    assert bench.submit(raw_of()).verdict is Verdict.UNKNOWN


def test_only_our_own_reading_refuses_bytes():
    bench = Bench()
    for raw in (b"", b"\x12\x00", raw_of()[:-1], raw_of(chain_id=0), raw_of(chain_id=7300145)):
        assert bench.submit(raw).verdict is Verdict.REFUSED
    assert bench.nodes[0].sent == []


def test_many_are_given_to_a_node_one_after_another_lowest_sequence_first():
    bench = Bench()
    raws = [raw_of(slot=slot) for slot in range(5, 30)]
    bench.stalls = list(range(30))

    async def work():
        tasks = [bench.runtime.spawn(bench.rail.submit(raw), name="submit") for raw in raws]
        return [await task for task in tasks]

    assert {said.verdict for said in asyncio.run(work())} == {Verdict.ACCEPTED}
    assert bench.nodes[0].sent == raws


# Holdings


def test_holdings_are_the_whole_balance_of_one_validated_ledger():
    bench = token_bench({}, {})
    bench.nodes[0].tip = 103
    held = bench.holdings(SENDER, [XRP_TOKEN, RLUSD_TOKEN])
    assert (held.block, held.units, held.slots_used, held.slots_mined) == (100, {"xrp": 50_000_000, "rlusd": 500_000_000}, 5, 5)
    asked = {params["ledger_index"] for method, params in bench.nodes[0].calls if method in ("account_info", "account_lines")}
    assert asked == {100}


def test_what_is_finer_than_our_units_stays_uncounted():
    bench = token_bench({}, {})
    bench.every(lambda node: node.line(SENDER, balance="500.1234567891234"))
    assert bench.holdings(SENDER, [RLUSD_TOKEN]).units == {"rlusd": 500_123_456}


def test_without_a_trust_line_there_is_none_of_the_token():
    assert Bench().holdings(SENDER, [XRP_TOKEN, RLUSD_TOKEN]).units == {"xrp": 50_000_000, "rlusd": 0}


@pytest.mark.parametrize("balance", ["-5", "1000000000", "abc", None, "1e500"])
def test_a_balance_that_cannot_be_is_not_believed(balance):
    bench = token_bench({}, {})
    bench.every(lambda node: node.line(SENDER, balance=balance))
    with pytest.raises(NodeUnreachable):
        bench.holdings(SENDER, [RLUSD_TOKEN])


def test_nodes_that_differ_on_a_balance_are_not_believed():
    bench = Bench()
    bench.nodes[1].accounts[SENDER]["Balance"] = "50000001"
    with pytest.raises(NodeUnreachable, match="differ"):
        bench.holdings(SENDER, [XRP_TOKEN])


def test_a_hot_address_that_nobody_has_funded_opens_no_lane():
    """Its first sequence is the ledger in which it is made: a lane that counted from 0 would take that for a stranger's doing."""
    bench = Bench()
    bench.every(lambda node: node.accounts.clear())
    with pytest.raises(NodeUnreachable, match="does not exist on XRP yet: send it"):
        bench.holdings(SENDER, [XRP_TOKEN])


@pytest.mark.parametrize(
    ("text", "down", "up"),
    [("0", 0, 0), ("1.5", 1_500_000, 1_500_000), ("1e-7", 0, 1), ("-1e-7", -1, 0), ("1000000000000000e-4", 10**17, 10**17), ("2E2", 2 * 10**8, 2 * 10**8)],
)  # fmt: skip
def test_decimal_texts_are_read_exactly(text, down, up):
    assert (units_below(text, 6), units_below(text, 6, up=True)) == (down, up)


# Nodes


def test_heads_are_what_enough_nodes_have_validated():
    bench = Bench(XrpNode(), XrpNode(), XrpNode())
    for node, tip in zip(bench.nodes, (90, 105, 103), strict=True):
        node.tip = tip
    assert (bench.heads().head, bench.heads().final) == (103, 103)


@pytest.mark.parametrize("changes", [{"validated": False}, {"ledger_index": "100"}, {"ledger_index": 2**32}, {"ledger_hash": "x"}])
def test_a_head_that_is_not_validated_is_none(changes):
    bench = Bench(XrpNode())
    said = {"ledger_index": 100, "ledger_hash": "0" * 64, "validated": True, **changes}
    bench.nodes[0].answers["ledger"] = said
    with pytest.raises(NodeUnreachable):
        bench.heads()


@pytest.mark.parametrize("network_id", [0, 1, 7300145])
def test_a_node_of_another_network_is_never_used(network_id):
    bench = Bench(XrpNode(network_id))
    with pytest.raises(WrongNetwork, match=f"serves network id {network_id}, and 7300144 is configured"):
        bench.heads()
    assert bench.submit(raw_of()).verdict is Verdict.UNKNOWN
    assert bench.nodes[0].sent == []
    assert bench.rail.faults() == [f"node 1 of 1: it serves network id {network_id}, and 7300144 is configured"]


def test_a_node_that_names_no_network_is_on_the_main_one():
    assert main_bench().heads().head == 100
    with pytest.raises(WrongNetwork):
        Bench(XrpNode(1), chain_id=0, is_test=False).heads()


def test_a_node_that_names_nonsense_as_its_network_is_not_used():
    bench = Bench(XrpNode("0"))
    with pytest.raises(NodeUnreachable, match="which network"):
        bench.heads()


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"result":[]}', b'{"result":{}}', b'{"result":{"status":"odd"}}', b"<html>", b"\xff"])
def test_what_is_no_answer_is_an_unreachable_node(body):
    bench = Bench(XrpNode())
    bench.nodes[0].answer = lambda _: (200, body)
    with pytest.raises(NodeUnreachable):
        bench.heads()


def test_an_error_is_shown_without_the_nodes_address_or_key():
    bench = Bench(XrpNode())
    words = "see https://node1.example/v2/SECRETKEY1 or SECRETKEY1\n\x1b"
    bench.nodes[0].answers["fee"] = {"error": "slowDown", "error_code": 10, "error_message": words}
    with pytest.raises(NodeUnreachable, match="slowDown") as failed:
        bench.estimate(XRP_TOKEN)
    assert "SECRETKEY1" not in str(failed.value)
    assert "example" not in str(failed.value)


def test_what_an_open_ledger_says_of_an_account_is_not_believed():
    bench = Bench(XrpNode())
    bench.nodes[0].answers["account_info"] = {"account_data": account_data(RECIPIENT), "ledger_index": 100, "validated": False}
    with pytest.raises(NodeUnreachable, match="not validated"):
        bench.look_up(Destination(RECIPIENT), XRP_TOKEN, 1_000_000)


def test_an_account_other_than_the_one_asked_for_is_not_believed():
    bench = Bench(XrpNode())
    bench.nodes[0].answers["account_info"] = {"account_data": account_data(OTHER), "ledger_index": 100, "validated": True}
    with pytest.raises(NodeUnreachable, match="another account"):
        bench.look_up(Destination(RECIPIENT), XRP_TOKEN, 1_000_000)


def test_the_payment_of_an_order_keeps_its_tag_text():
    assert codec.build(intent_of(Payment(1, RECIPIENT, "573049", 10_000_000)))["DestinationTag"] == 573049
