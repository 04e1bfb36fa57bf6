"""The XRP Ledger in a box: what its nodes answer, shaped as the vendor's documentation has it, and how they can be wrong."""

import json
from pathlib import Path

import pytest
from xrpl.core import binarycodec

from penstock.devnet.box import Broken, Request
from penstock.devnet.control import control
from penstock.devnet.xrp.node_known import XrpFaults
from penstock.devnet.xrp.transactions import transaction_id
from tests.fixtures.xrp_box import (
    ALICE,
    BOB,
    CONTRACT,
    ISSUER,
    NETWORK_ID,
    Clock,
    act,
    ask,
    code_of,
    funded,
    network,
    pay,
    sequence,
    signed,
    somebody,
    token,
)

ANSWERS = json.loads(Path("tests/vectors/xrp_box.json").read_text())["answers"]


def assert_has_shape(found, documented, path=""):
    """Every documented field is there, with a value of its kind."""
    if isinstance(documented, dict):
        assert isinstance(found, dict), path
        for name, value in documented.items():
            assert name in found, f"{path}.{name}"
            assert_has_shape(found[name], value, f"{path}.{name}")
    elif isinstance(documented, list):
        assert isinstance(found, list), path
        for value in documented:
            assert_has_shape(found[0], value, f"{path}[0]")
    else:
        assert isinstance(found, type(documented)) and isinstance(found, bool) == isinstance(documented, bool), path


def documented(box, method):
    """A call of this method as in its documentation, after something happened."""
    node = box.nodes[0]
    match method:
        case "submit":
            return ask(node, "submit", tx_blob=pay(box).hex().upper())
        case "tx":
            return ask(node, "tx", transaction=transaction_id(box.raw), binary=False)
        case "not_found":
            last = box.chain.validated
            return ask(node, "tx", transaction="E0" * 32, binary=False, min_ledger=last - 1, max_ledger=last)
        case "account_info":
            box.spike(64)
            code_of(box, pay(box, LastLedgerSequence=box.chain.open_index + 9))
            return ask(node, "account_info", account=ALICE, ledger_index="current", queue=True)
        case "account_lines":
            return ask(node, "account_lines", account=ALICE, peer=ISSUER, ledger_index="validated")
        case "deposit_authorized":
            return ask(node, method, source_account=ALICE, destination_account=BOB, ledger_index="validated")
        case "ledger":
            return ask(node, method, ledger_index="validated")
        case "account_tx":
            return ask(node, method, account=ALICE, limit=10)
        case _:
            return ask(node, method)


class Told:
    """A box in which something happened."""

    def __init__(self):
        self.box = funded()
        self.box.fund(ALICE, 5_000_000, CONTRACT)
        raw = pay(self.box)
        code_of(self.box, raw)
        self.box.mine(2)
        self.raw = raw

    def __getattr__(self, name):
        return getattr(self.box, name)


@pytest.mark.parametrize("method", [name for name in ANSWERS if name != "sources"])
def test_answers_have_the_shape_that_is_documented(method):
    found = documented(Told(), method)
    assert_has_shape(found, ANSWERS[method], method)


def test_an_error_is_what_the_documentation_says_to_the_letter():
    found = documented(funded(), "not_found")
    assert {**found, "request": 0} == {**ANSWERS["not_found"], "request": 0}
    assert found["request"]["command"] == "tx"


# Transactions


def test_a_transaction_is_told_of_in_the_open_ledger_then_closed_then_validated():
    box = funded()
    raw, node = pay(box), box.nodes[0]
    said = ask(node, "submit", tx_blob=raw.hex())
    txid = said["tx_json"]["hash"]
    assert (said["engine_result"], said["applied"], said["queued"], said["account_sequence_next"]) == (
        "tesSUCCESS",
        True,
        False,
        sequence(box),
    )
    waits = ask(node, "tx", transaction=txid)
    assert (waits["validated"], "ledger_index" in waits, "meta" in waits) == (False, False, False)
    box.mine()
    closed = ask(node, "tx", transaction=txid.lower())
    assert (closed["validated"], closed["meta"]["TransactionResult"], closed["meta"]["delivered_amount"]) == (
        False,
        "tesSUCCESS",
        "20000000",
    )
    box.mine()
    assert ask(node, "tx", transaction=txid)["validated"] is True
    (got,) = ask(node, "account_tx", account=BOB)["transactions"]
    assert (got["tx"]["hash"], got["validated"]) == (txid, True)
    assert ask(node, "ledger", ledger_index=closed["ledger_index"], transactions=True)["ledger"]["transactions"] == [txid]
    whole = ask(node, "ledger", ledger_index=closed["ledger_index"], transactions=True, expand=True)["ledger"]["transactions"]
    assert whole[0]["metaData"]["TransactionResult"] == "tesSUCCESS"


@pytest.mark.parametrize("where", ["queued", "too early"])
def test_what_no_ledger_has_taken_is_not_found(where):
    box = funded()
    box.spike(64 if where == "queued" else 1)
    said = ask(box.nodes[0], "submit", tx_blob=pay(box, Sequence=sequence(box) + (where != "queued")).hex())
    assert (said["engine_result"], said["queued"], said["kept"], said["applied"], said["accepted"]) == (
        "terQUEUED" if where == "queued" else "terPRE_SEQ",
        where == "queued",
        True,
        False,
        True,
    )
    asked = {"min_ledger": box.chain.validated, "max_ledger": box.chain.validated + 5}
    found = ask(box.nodes[0], "tx", transaction=said["tx_json"]["hash"], **asked)
    assert (found["error"], found["searched_all"]) == ("txnNotFound", False)
    waiting = ask(box.nodes[0], "account_info", account=ALICE, queue=True)["queue_data"]
    assert waiting["txn_count"] == (where == "queued")
    assert ask(box.nodes[0], "fee")["current_queue_size"] == str(int(where == "queued"))


def test_a_refusal_comes_with_its_number_and_leaves_nothing():
    box = funded()
    said = ask(box.nodes[0], "submit", tx_blob=pay(box, Sequence=1).hex())
    assert (said["status"], said["engine_result"], said["engine_result_code"]) == ("success", "tefPAST_SEQ", -190)
    assert not any(said[name] for name in ("accepted", "applied", "broadcast", "kept", "queued"))
    assert ask(box.nodes[0], "tx", transaction=said["tx_json"]["hash"])["error"] == "txnNotFound"
    doomed = ask(box.nodes[0], "submit", tx_blob=pay(box, 10**9).hex())
    assert (doomed["engine_result"], doomed["engine_result_code"], doomed["applied"]) == ("tecUNFUNDED_PAYMENT", 104, True)


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"tx_blob": "00" * 30}, "invalidTransaction"),
        ({"tx_blob": "xyz"}, "invalidParams"),
        ({"tx_blob": ""}, "invalidParams"),
        ({"tx_json": {}}, "notSupported"),
    ],
)
def test_what_is_no_signed_transaction_is_an_error(params, error):
    found = ask(funded().nodes[0], "submit", **params)
    assert (found["status"], found["error"]) == ("error", error)


def test_a_broken_signature_is_told_as_rippled_tells_it():
    box = funded()
    raw = bytearray(pay(box))
    raw[-1] ^= 1
    found = ask(box.nodes[0], "submit", tx_blob=bytes(raw).hex())
    assert (found["error"], found["error_exception"]) == ("invalidTransaction", "fails local checks: Invalid signature.")
    assert "error_code" not in found


def test_metadata_says_what_changed():
    box = funded()
    carol = somebody(box, "carol", trusts=CONTRACT)
    box.fund(ALICE, 5_000_000, CONTRACT)
    box.mine()
    raw = signed(Destination=carol, Amount=token("2"), Sequence=sequence(box))
    code_of(box, raw)
    box.mine(2)
    found = ask(box.nodes[0], "tx", transaction=transaction_id(raw))
    nodes = [next(iter(node.values())) for node in found["meta"]["AffectedNodes"]]
    assert sorted(node["LedgerEntryType"] for node in nodes) == ["AccountRoot", "RippleState", "RippleState"]
    assert {node["PreviousTxnLgrSeq"] for node in nodes} <= set(range(1_000, found["ledger_index"]))
    binary = ask(box.nodes[0], "tx", transaction=transaction_id(raw), binary=True)
    assert binary["tx"] == raw.hex().upper()
    assert binarycodec.decode(binary["meta"])["TransactionResult"] == "tesSUCCESS"
    for account in (ALICE, carol, ISSUER):
        assert ask(box.nodes[0], "account_tx", account=account)["transactions"][0]["tx"]["hash"] == transaction_id(raw)


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({}, "invalidParams"),
        ({"transaction": "12"}, "notImpl"),
        ({"transaction": "00" * 32, "min_ledger": 5, "max_ledger": 4}, "invalidLgrRange"),
        ({"transaction": "00" * 32, "min_ledger": "5", "max_ledger": 6}, "invalidLgrRange"),
        ({"transaction": "00" * 32, "min_ledger": 1, "max_ledger": 1_002}, "excessiveLgrRange"),
        ({"transaction": "00" * 32, "min_ledger": 1}, "txnNotFound"),
    ],
)
def test_a_search_has_its_bounds(params, error):
    found = ask(funded().nodes[0], "tx", **params)
    assert (found["error"], "searched_all" in found) == (error, False)


def test_an_accounts_transactions_come_in_pages_either_way():
    box = funded()
    for number in range(25):
        code_of(box, pay(box, 1_000_000 + number))
        box.mine()
    box.mine()
    for forward in (False, True):
        seen, marker = [], None
        while True:
            page = ask(box.nodes[0], "account_tx", account=BOB, limit=10, forward=forward, **({"marker": marker} if marker else {}))
            seen += [int(row["tx"]["Amount"]) - 1_000_000 for row in page["transactions"]]
            if (marker := page.get("marker")) is None:
                break
        assert seen == (list(range(25)) if forward else list(range(24, -1, -1)))
    assert ask(box.nodes[0], "account_tx", account=BOB, marker={"ledger": 1, "seq": 1})["error"] == "invalidParams"
    assert ask(box.nodes[0], "account_tx", account=BOB, ledger_index_min=9_999)["error"] == "lgrIdxsInvalid"


# Accounts and entries


def test_the_open_ledger_is_ahead_of_the_closed_ones():
    box = funded()
    node, before, slot = box.nodes[0], box.chain.closed, sequence(box)
    code_of(box, pay(box))
    current = ask(node, "account_info", account=ALICE)
    assert (current["account_data"]["Sequence"], current["account_data"]["Balance"], current["validated"]) == (slot + 1, "79999988", False)
    for where in ("closed", "validated", before):
        assert ask(node, "account_info", account=ALICE, ledger_index=where)["account_data"]["Sequence"] == slot
    box.mine(2)
    old = ask(node, "account_info", account=ALICE, ledger_hash=box.chain.ledgers[before].hash)
    assert (old["account_data"]["Balance"], old["ledger_index"], old["validated"]) == ("100000000", before, True)
    assert ask(node, "account_info", account=ALICE, ledger_index="validated")["account_data"]["Balance"] == "79999988"


@pytest.mark.parametrize(
    ("params", "error", "code"),
    [
        ({"account": BOB}, "actNotFound", 19),
        ({"account": "bob"}, "actMalformed", 35),
        ({}, "invalidParams", 31),
        ({"account": 5}, "invalidParams", 31),
        ({"account": ALICE, "ledger_index": 99_999}, "lgrNotFound", 21),
        ({"account": ALICE, "ledger_index": 1}, "lgrNotFound", 21),
        ({"account": ALICE, "ledger_index": "newest"}, "invalidParams", 31),
        ({"account": ALICE, "ledger_index": 1.5}, "invalidParams", 31),
        ({"account": ALICE, "ledger_hash": "00" * 32}, "lgrNotFound", 21),
        ({"account": ALICE, "ledger_hash": "x"}, "invalidParams", 31),
        ({"account": ALICE, "ledger_index": "validated", "queue": True}, "invalidParams", 31),
    ],
)
def test_an_account_that_cannot_be_shown(params, error, code):
    found = ask(funded().nodes[0], "account_info", **params)
    assert (found["status"], found["error"], found["error_code"]) == ("error", error, code)
    assert found["request"] == {"command": "account_info", **params}


def test_a_trust_line_is_seen_from_both_ends():
    box = funded()
    box.fund(ALICE, 5_000_000, CONTRACT)
    control([box], {"do": "issuer", "contract": CONTRACT, "freeze": ALICE, "authorize": ALICE, "no_ripple": ALICE})
    mine = ask(box.nodes[0], "account_lines", account=ALICE)["lines"]
    assert mine == [
        {
            "account": ISSUER,
            "balance": "5",
            "currency": "USD",
            "limit": "9000000000",
            "limit_peer": "0",
            "quality_in": 0,
            "quality_out": 0,
            "no_ripple": False,
            "no_ripple_peer": True,
            "freeze_peer": True,
            "peer_authorized": True,
        }
    ]
    box.mine(2)
    (theirs,) = ask(box.nodes[0], "account_lines", account=ISSUER, peer=ALICE, ledger_index="validated")["lines"]
    assert (theirs["balance"], theirs["limit"], theirs["limit_peer"], theirs["freeze"], theirs["authorized"]) == (
        "-5",
        "0",
        "9000000000",
        True,
        True,
    )
    assert ask(box.nodes[0], "account_lines", account=ALICE, peer=BOB)["lines"] == []
    assert ask(box.nodes[0], "account_lines", account=BOB)["error"] == "actNotFound"
    assert ask(box.nodes[0], "account_lines", account=ALICE, peer="bob")["error"] == "actMalformed"
    assert ask(box.nodes[0], "account_lines", account=ALICE, limit=0)["error"] == "invalidParams"


def test_many_trust_lines_come_in_pages():
    box = funded(drops=1_000_000_000)
    for number in range(23):
        code_of(box, signed(TransactionType="TrustSet", LimitAmount={**token("1"), "currency": f"A{number:02}"}, Sequence=sequence(box)))
    seen, marker = [], None
    while True:
        page = ask(box.nodes[0], "account_lines", account=ALICE, limit=10, **({"marker": marker} if marker else {}))
        seen += [line["currency"] for line in page["lines"]]
        if (marker := page.get("marker")) is None:
            break
    assert sorted(seen) == [f"A{number:02}" for number in range(23)]
    assert ask(box.nodes[0], "account_lines", account=ALICE, marker="x")["error"] == "invalidParams"


def test_deposits_are_authorised_by_friends_alone():
    box = funded()
    closed = somebody(box, "closed", settings="deposit_auth", friends=ALICE)
    other = somebody(box, "other")

    def said(source, target):
        found = ask(box.nodes[0], "deposit_authorized", source_account=source, destination_account=target, ledger_index="validated")
        return found.get("deposit_authorized", (found.get("error"), found.get("error_code")))

    assert (said(ALICE, closed), said(other, closed), said(other, ALICE), said(closed, closed)) == (True, False, True, True)
    assert (said(BOB, closed), said(ALICE, BOB)) == (("srcActNotFound", 67), ("dstActNotFound", 50))


def test_single_entries_are_found_by_what_they_are():
    box = funded()
    node, first = box.nodes[0], sequence(box)
    act(box, "TicketCreate", TicketCount=1)
    act(box, "DepositPreauth", Authorize=ISSUER)
    box.fund(ALICE, 5_000_000, CONTRACT)
    box.mine()
    found = {
        "AccountRoot": ask(node, "ledger_entry", account_root=ALICE),
        "Ticket": ask(node, "ledger_entry", ticket={"account": ALICE, "ticket_seq": first + 1}),
        "DepositPreauth": ask(node, "ledger_entry", deposit_preauth={"owner": ALICE, "authorized": ISSUER}),
        "RippleState": ask(node, "ledger_entry", ripple_state={"accounts": [ALICE, ISSUER], "currency": "USD"}),
    }
    assert {kind: answer["node"]["LedgerEntryType"] for kind, answer in found.items()} == {kind: kind for kind in found}
    assert all(answer["index"] == answer["node"]["index"] for answer in found.values())
    assert found["AccountRoot"]["node"]["OwnerCount"] == 3
    for missing in (
        {"account_root": BOB},
        {"ticket": {"account": ALICE, "ticket_seq": 1}},
        {"deposit_preauth": {"owner": ALICE, "authorized": BOB}},
    ):
        assert ask(node, "ledger_entry", **missing)["error"] == "entryNotFound"
    assert ask(node, "ledger_entry", ripple_state={"accounts": [ALICE], "currency": "USD"})["error"] == "invalidParams"
    assert ask(node, "ledger_entry", ticket=5)["error"] == "invalidParams"
    assert ask(node, "ledger_entry", ripple_state={"accounts": [ALICE, ISSUER], "currency": "\u20ac"})["error"] == "invalidParams"
    assert ask(node, "ledger_entry")["error"] == "unknownOption"


# The server


def test_ledgers_are_named_by_number_and_word():
    box = funded()
    node = box.nodes[0]
    both = ask(node, "ledger")
    assert (both["closed"]["ledger"]["closed"], both["open"]["ledger"]["closed"]) == (True, False)
    assert ask(node, "ledger_current")["ledger_current_index"] == box.chain.closed + 1
    assert ask(node, "ledger_closed")["ledger_index"] == box.chain.closed
    assert ask(node, "ledger", ledger_index="current")["ledger"]["closed"] is False
    assert ask(node, "ledger_accept")["ledger_current_index"] == box.chain.closed + 1
    validated = ask(node, "ledger", ledger_index="validated")
    assert validated["ledger_hash"] == ask(node, "server_info")["info"]["validated_ledger"]["hash"]
    assert ask(node, "ledger", ledger_index=str(validated["ledger_index"]))["ledger_hash"] == validated["ledger_hash"]


def test_fees_are_told_in_three_places_alike():
    clock = Clock()
    box = funded(clock, expected=100)
    box.spike(10)
    control([box], {"do": "load", "factor": 3})
    node = box.nodes[0]
    clock.now += 7_500
    drops, info, state = ask(node, "fee")["drops"], ask(node, "server_info")["info"], ask(node, "server_state")["state"]
    assert (drops["open_ledger_fee"], drops["minimum_fee"], drops["base_fee"]) == ("100", "30", "10")
    assert (info["load_factor"], state["load_factor"], state["load_base"], state["load_factor_server"]) == (10, 2560, 256, 768)
    assert (info["validated_ledger"]["age"], state["validated_ledger"]["reserve_base"], state["validated_ledger"]["reserve_inc"]) == (
        7,
        10**6,
        200_000,
    )
    control([box], {"do": "ledger_size", "transactions": 7})
    assert ask(node, "fee")["expected_ledger_size"] == "7"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (Request(b"", method="GET"), 403),
        (Request(b"{}", path="/x"), 403),
        (Request(b"{"), 400),
        (Request(b"[]"), 400),
        (Request(b"{}"), 400),
        (Request(b'{"method": 5}'), 400),
        (Request(b'{"method": "fee", "params": [1]}'), 400),
        (Request(b'{"method": "fee", "params": [{}, {}]}'), 400),
        (Request(b'{"method": "fee", "params": [{"api_version": 2}]}'), 400),
        (Request(b'{"method": "fee"}'), 200),
        (Request(b'{"method": "ping", "params": [{"api_version": 1}]}'), 200),
    ],
)
def test_requests_have_one_form(request_, status):
    assert funded().nodes[0].answer(request_).status == status


def test_an_unknown_method_is_an_error_with_status_200():
    found = ask(funded().nodes[0], "nonsense")
    assert (found["error"], found["error_code"], found["request"]) == ("unknownCmd", 32, {"command": "nonsense"})


# Faults


def faulty(box, **faults):
    box.nodes[0].faults = XrpFaults(**faults)
    return box.nodes


def test_a_dropped_submission_is_acknowledged_with_its_real_forecast_and_lost():
    box = funded()
    liar, honest = faulty(box, drop=2)
    raw = pay(box)
    assert ask(liar, "submit", tx_blob=raw.hex())["engine_result"] == "tesSUCCESS"
    assert ask(liar, "submit", tx_blob=pay(box, Sequence=1).hex())["engine_result"] == "tefPAST_SEQ"
    assert (liar.faults.drop, box.chain.waiting) == (0, [])
    assert ask(honest, "tx", transaction=transaction_id(raw))["error"] == "txnNotFound"
    assert ask(liar, "submit", tx_blob=raw.hex())["engine_result"] == "tesSUCCESS"
    box.mine()
    assert box.holding(BOB) == 20_000_000


@pytest.mark.parametrize("how", ["500", "503", "reset", "timeout"])
def test_a_node_may_take_it_and_then_say_nothing_of_use(how):
    box = funded()
    liar, _ = faulty(box, break_after=1, breakage=how)
    with pytest.raises(Broken) as broken:
        ask(liar, "submit", tx_blob=pay(box).hex())
    assert broken.value.how == how
    assert ask(liar, "fee")["status"] == "success"
    box.mine()
    assert box.holding(BOB) == 20_000_000


def test_what_reaches_the_network_twice_is_there_once():
    box = funded()
    liar, _ = faulty(box, duplicate=1)
    assert ask(liar, "submit", tx_blob=pay(box).hex())["engine_result"] == "tesSUCCESS"
    box.mine(2)
    assert (box.holding(BOB), liar.faults.duplicate) == (20_000_000, 0)


def test_what_is_lost_is_lost_however_often_it_was_to_arrive():
    box = funded()
    liar, _ = faulty(box, drop=1, duplicate=1)
    ask(liar, "submit", tx_blob=pay(box).hex())
    assert (box.chain.waiting, liar.faults.duplicate) == ([], 1)


def test_a_delayed_submission_is_not_seen_before_it_arrives():
    clock = Clock()
    box = funded(clock)
    liar, honest = faulty(box, delay_ms=3_000)
    raw = pay(box)
    assert ask(liar, "submit", tx_blob=raw.hex())["engine_result"] == "tesSUCCESS"
    box.mine()
    assert ask(honest, "tx", transaction=transaction_id(raw))["error"] == "txnNotFound"
    clock.now += 3_000
    box.mine()
    assert box.holding(BOB) == 20_000_000


def test_a_stopped_node_answers_nothing():
    box = funded()
    liar, honest = faulty(box, down="reset")
    with pytest.raises(Broken):
        ask(liar, "fee")
    assert ask(honest, "fee")["status"] == "success"


def test_a_node_that_lags_has_old_ledgers_and_knows_it():
    box = funded()
    box.mine(5)
    raw = pay(box)
    code_of(box, raw)
    box.mine(2)
    liar, honest = faulty(box, lag=3)
    assert ask(liar, "ledger_closed")["ledger_index"] == box.chain.closed - 3
    asked = {"transaction": transaction_id(raw), "min_ledger": box.chain.validated - 5, "max_ledger": box.chain.validated}
    assert (ask(liar, "tx", **asked)["error"], ask(liar, "tx", **asked)["searched_all"]) == ("txnNotFound", False)
    assert ask(honest, "tx", **asked)["validated"] is True
    for where in ("current", "closed", "validated"):
        assert ask(liar, "account_info", account=ALICE, ledger_index=where)["account_data"]["Balance"] == "100000000"
    assert ask(liar, "account_info", account=ALICE, ledger_index=box.chain.validated)["error"] == "lgrNotFound"
    assert ask(liar, "account_tx", account=BOB, ledger_index_min=-1)["transactions"] == []
    opened = pay(box)
    code_of(box, opened)
    box.spike(64)
    code_of(box, pay(box))
    assert [ask(node, "tx", transaction=transaction_id(opened))["status"] for node in (liar, honest)] == ["error", "success"]
    assert [ask(node, "account_info", account=ALICE, queue=True)["queue_data"]["txn_count"] for node in (liar, honest)] == [0, 1]


def test_a_node_with_a_gap_cannot_search_it_and_says_so():
    box = funded()
    code_of(box, raw := pay(box))
    box.mine(6)
    liar, honest = faulty(box, gap=5)
    place = ask(honest, "tx", transaction=transaction_id(raw))["ledger_index"]
    assert "," in ask(liar, "server_info")["info"]["complete_ledgers"]
    asked = {"min_ledger": place - 1, "max_ledger": box.chain.validated}
    found = ask(liar, "tx", transaction=transaction_id(raw), **asked)
    assert (found["error"], found["searched_all"]) == ("txnNotFound", False)
    assert ask(liar, "ledger", ledger_index=place)["error"] == "lgrNotFound"
    only = ask(liar, "account_tx", account=BOB)
    assert (only["transactions"], only["ledger_index_min"]) == ([], box.chain.validated)
    assert ask(liar, "account_info", account=BOB, ledger_index="validated")["account_data"]["Balance"] == "20000000"


def test_a_blind_node_searches_everything_and_finds_nothing():
    box = funded()
    code_of(box, raw := pay(box))
    box.mine(2)
    liar, _ = faulty(box, blind=True)
    found = ask(liar, "tx", transaction=transaction_id(raw), min_ledger=box.chain.validated - 1, max_ledger=box.chain.validated)
    assert (found["error"], found["searched_all"]) == ("txnNotFound", True)
    assert ask(liar, "account_tx", account=BOB)["transactions"] == []
    assert ask(liar, "ledger", ledger_index=box.chain.validated, transactions=True)["ledger"]["transactions"] == []


def test_a_node_may_claim_another_network_or_be_too_old_for_its_own():
    box = funded()
    liar, honest = faulty(box, chain_id=1)
    assert [ask(node, "server_info")["info"]["network_id"] for node in (liar, honest)] == [1, NETWORK_ID]
    control([box], {"do": "heal"})
    control([box], {"do": "faults", "blocked": True})
    liar = box.nodes[0]
    assert ask(liar, "server_state")["state"]["amendment_blocked"] is True
    assert ask(liar, "fee")["error"] == "amendmentBlocked"
    assert "amendment_blocked" not in ask(honest, "server_state")["state"]


def test_there_are_as_many_nodes_as_asked_for():
    assert len(network(nodes=5).nodes) == 5
    with pytest.raises(ValueError, match="from 1"):
        network(nodes=0)
