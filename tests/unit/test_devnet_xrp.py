"""The XRP Ledger in a box: what a transaction does to the ledger, and the code it ends with."""

import json
import random
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from xrpl.core import binarycodec

from penstock.devnet.box import BadCommand
from penstock.devnet.control import control
from penstock.devnet.xrp import hashes
from penstock.devnet.xrp.amounts import NotAnAmount, rounded, units_of, value_text
from penstock.devnet.xrp.engine import apply
from penstock.devnet.xrp.entries import account_key, changes, line_key, metadata
from penstock.devnet.xrp.preflight import preflight
from penstock.devnet.xrp.state import Account, Draft, State
from penstock.devnet.xrp.transactions import Transaction, Unreadable, address_of, read, transaction_id
from tests.fixtures.xrp_box import (
    ALICE,
    BOB,
    CONTRACT,
    ISSUER,
    NETWORK_ID,
    act,
    code_of,
    complete,
    funded,
    key_of,
    landed,
    landed_code,
    pay,
    pay_token,
    sequence,
    signed,
    somebody,
    token,
)

VECTORS = json.loads(Path("tests/vectors/xrp_box.json").read_text())

# Bytes


def test_ids_and_hashes_are_those_of_the_real_ledger():
    entries, header = VECTORS["entry_ids"], VECTORS["header"]
    assert account_key(entries["account"][0]) == entries["account"][1]
    assert line_key(tuple(entries["line"][0])) == entries["line"][1]
    found = hashes.header_hash(
        index=header["index"],
        total_drops=int(header["total_drops"]),
        parent=bytes.fromhex(header["parent"]),
        transactions=bytes.fromhex(header["transactions"]),
        state=bytes.fromhex(header["state"]),
        parent_close_time=header["parent_close_time"],
        close_time=header["close_time"],
        resolution=header["resolution"],
        flags=header["flags"],
    )
    assert found.hex().upper() == header["hash"]


def test_a_payment_of_the_main_network_has_here_the_effects_that_it_had_there():
    """Same metadata to the last byte: the tree of transactions has the real root."""
    real = VECTORS["ledger"]
    before = dict(real["sender_before"])
    state = State()
    start = Draft(state.at(38_128))
    start.accounts[real["transaction"]["Account"]] = Account(before["balance"], before["sequence"], previous=tuple(before["previous"]))
    state.write(38_128, start)
    raw = bytes.fromhex(binarycodec.encode(real["transaction"]))
    with pytest.raises(Unreadable, match="signature"):
        read(raw)  # its signature has a high s, which was allowed in 2013
    transaction = Transaction(transaction_id(raw), raw, real["transaction"])
    assert transaction.txid == real["id"]
    outcome = apply(state.at(38_128), transaction, real["new_account_sequence"])
    meta = metadata(list(changes(outcome.changes)), place=0, code=outcome.code)
    root = hashes.tree_root({transaction.txid: hashes.leaf(transaction.txid, transaction.raw, meta)})
    assert root.hex().upper() == real["transaction_hash"]


def test_a_tree_holds_ids_that_agree_in_many_digits():
    one, other, third = "A" * 64, "A" * 63 + "B", "C" * 64
    leaves = {one: b"\1" * 32, other: b"\2" * 32, third: b"\3" * 32}
    roots = {hashes.tree_root(leaves), hashes.tree_root({one: b"\1" * 32}), hashes.tree_root({**leaves, other: b"\4" * 32})}
    assert len(roots) == 3
    assert hashes.tree_root({}) == bytes(32)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("0", "0"),
        ("1.000001", "1.000001"),
        ("-0.00111", "-0.00111"),
        ("100000000000", "1000000000000000e-4"),
        ("9999999999999999e80", "9999999999999999e80"),
        ("1e-12", "1000000000000000e-27"),
        ("0.3488146605801446", "0.3488146605801446"),
        ("9999999999", "9999999999"),
    ],
)
def test_token_amounts_are_written_as_rippled_writes_them(text, plain):
    assert value_text(units_of(text)) == plain
    assert units_of(plain) == units_of(text)


def test_a_balance_has_sixteen_digits():
    assert rounded(units_of("9999999999") + units_of("0.0000001")) == units_of("9999999999")
    assert rounded(12345678901234565) == 12345678901234560
    assert rounded(12345678901234575) == 12345678901234580
    for wrong in ("1e-31", "12345678901234567", "x", "1e200"):
        with pytest.raises(NotAnAmount):
            units_of(wrong)


@pytest.mark.parametrize(
    "wrong", ["flipped", "empty", "noise", "another type", "unsorted", "unsigned", "no destination", "a field too many"]
)
def test_bytes_that_no_node_takes_are_no_transaction(wrong):
    box = funded()
    raw = bytearray(pay(box))
    made = {
        "flipped": lambda: bytes(raw[:-1]) + bytes([raw[-1] ^ 1]),
        "empty": lambda: b"",
        "noise": lambda: b"\xff" * 40,
        "another type": lambda: signed(TransactionType="AccountDelete", Destination=BOB, Sequence=5),
        "unsorted": lambda: bytes(raw[3:8]) + bytes(raw[:3]) + bytes(raw[8:]),
        "unsigned": lambda: bytes.fromhex(binarycodec.encode(complete({"Destination": BOB, "Amount": "1", "Sequence": 5}))),
        "no destination": lambda: signed(Amount="1", Sequence=5),
        "a field too many": lambda: signed(Destination=BOB, Amount="1", Sequence=5, SetFlag=1),
    }[wrong]()
    with pytest.raises(Unreadable):
        box.chain.submit(made)


def test_whatever_bytes_are_changed_no_other_transaction_comes_of_it():
    box = funded()
    raw, dice = pay(box), random.Random(1)
    for _ in range(300):
        changed = bytearray(raw)
        place = dice.randrange(len(raw))
        changed[place] ^= dice.randrange(1, 256)
        with pytest.raises(Unreadable):
            box.chain.submit(bytes(changed))
    assert box.chain.waiting == []


def test_both_kinds_of_keys_sign():
    box = funded()
    key = Ed25519PrivateKey.from_private_bytes(b"\5" * 32)
    public = b"\xed" + key.public_key().public_bytes_raw()
    eve = address_of(public)
    box.fund(eve, 50_000_000)
    box.mine()
    fields = complete({"Account": eve, "Destination": BOB, "Amount": "20000000", "Sequence": sequence(box, eve)})
    fields["SigningPubKey"] = public.hex().upper()
    fields["TxnSignature"] = key.sign(bytes.fromhex(binarycodec.encode_for_signing(fields))).hex().upper()
    raw = bytes.fromhex(binarycodec.encode(fields))
    assert landed_code(box, raw) == "tesSUCCESS"
    with pytest.raises(Unreadable, match="signature"):
        box.chain.submit(bytes.fromhex(binarycodec.encode({**fields, "Amount": "20000001"})))


# XRP


def test_a_payment_makes_the_account_and_burns_the_fee():
    box = funded()
    total = box.chain.ledgers[box.chain.closed].total_drops
    assert landed_code(box, pay(box)) == "tesSUCCESS"
    assert (box.holding(BOB), box.holding(ALICE)) == (20_000_000, 100_000_000 - 20_000_000 - 12)
    assert sequence(box, BOB) == box.chain.closed
    assert box.chain.ledgers[box.chain.closed].total_drops == total - 12


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"Sequence": 5}, "tefPAST_SEQ"),
        ({"Sequence": 10_000}, "terPRE_SEQ"),
        ({"LastLedgerSequence": 900}, "tefMAX_LEDGER"),
        ({"Fee": "9"}, "telINSUF_FEE_P"),
        ({"Fee": "100000001"}, "terINSUF_FEE_B"),
        ({"NetworkID": None}, "telREQUIRES_NETWORK_ID"),
        ({"NetworkID": NETWORK_ID + 1}, "telWRONG_NETWORK"),
        ({"to": ALICE}, "temREDUNDANT"),
        ({"drops": 0}, "temBAD_AMOUNT"),
        ({"Flags": 0x00020000}, "temBAD_SEND_XRP_PARTIAL"),
        ({"Flags": 0x00000001}, "temINVALID_FLAG"),
        ({"SendMax": "30000000"}, "temBAD_SEND_XRP_MAX"),
        ({"DeliverMin": "1"}, "temBAD_AMOUNT"),
        ({"TicketSequence": 7, "Sequence": 0}, "tefNO_TICKET"),
        ({"TicketSequence": 9_999, "Sequence": 0}, "terPRE_TICKET"),
        ({"TicketSequence": 7}, "temSEQ_AND_TICKET"),
        ({"key": key_of("mallory"), "Account": ALICE}, "tefBAD_AUTH"),
        ({"key": key_of("nobody")}, "terNO_ACCOUNT"),
    ],
)
def test_what_can_be_in_no_ledger_now_is_said_at_once(fields, code):
    box = funded()
    raw = pay(box, **fields)
    before = box.chain.open_count
    assert code_of(box, raw) == code
    assert box.chain.open_count == before


def test_the_real_network_wants_no_network_id_and_others_above_1024_theirs():
    box = funded()
    named, unnamed = read(pay(box)), read(pay(box, NetworkID=None))
    assert (preflight(named, 0), preflight(unnamed, 0)) == ("telNETWORK_ID_MAKES_TX_NON_CANONICAL", "tesSUCCESS")


def test_a_fee_is_an_amount_of_xrp():
    box = funded()
    assert code_of(box, pay(box, Fee=str(10**17))) == "terINSUF_FEE_B"
    assert code_of(box, pay(box, Fee=token("1"))) == "temBAD_FEE"


def test_recipients_have_rules():
    box = funded()
    assert landed_code(box, pay(box, 999_999)) == "tecNO_DST_INSUF_XRP"
    careful = somebody(box, "careful", settings="require_dest")
    closed = somebody(box, "closed", settings="deposit_auth", friends=box.chain.faucet)
    shy = somebody(box, "shy", settings="disallow_xrp")
    assert landed_code(box, pay(box, to=careful)) == "tecDST_TAG_NEEDED"
    assert landed_code(box, pay(box, to=careful, DestinationTag=0)) == "tesSUCCESS"
    assert landed_code(box, pay(box, to=closed)) == "tecNO_PERMISSION"
    assert landed_code(box, pay(box, to=shy)) == "tesSUCCESS"  # a wish that only clients heed
    box.fund(closed, 1_000_000)
    before = box.holding(closed)
    box.mine()
    assert box.holding(closed) == before + 1_000_000
    with pytest.raises(BadCommand, match="settings"):
        control([box], {"do": "account", "name": "x", "settings": "rich"})


def test_an_account_that_is_poor_takes_a_small_deposit_whoever_sends_it():
    box = funded()
    poor = somebody(box, "poor", settings="deposit_auth", drops=1_000_020)
    assert box.holding(poor) == 1_000_000
    assert landed_code(box, pay(box, 1_000_001, to=poor)) == "tecNO_PERMISSION"
    assert landed_code(box, pay(box, 1_000_000, to=poor)) == "tesSUCCESS"
    assert landed_code(box, pay(box, 1_000_000, to=poor)) == "tecNO_PERMISSION"


def test_the_last_fee_may_come_out_of_the_reserve_and_nothing_else():
    box = funded(drops=22_000_000)
    assert landed_code(box, pay(box, 21_000_001)) == "tecUNFUNDED_PAYMENT"
    assert box.holding(ALICE) == 22_000_000 - 12
    assert landed_code(box, pay(box, 22_000_000 - 12 - 1_000_000)) == "tesSUCCESS"
    assert box.holding(ALICE) == 1_000_000 - 12


def test_an_account_that_cannot_pay_its_fee_in_the_closed_ledger_loses_what_it_has():
    box = funded(drops=1_000_030)
    state, raw = box.chain.state, pay(box, to=BOB, drops=5_000_000, Fee="40")
    poor = Draft(state.at(box.chain.closed))
    poor.accounts[ALICE] = Account(25, sequence(box))
    outcome = apply(poor, read(raw), box.chain.open_index)
    assert (outcome.code, outcome.fee, outcome.changes.accounts[ALICE].balance) == ("tecINSUFF_FEE", 25, 0)
    assert apply(poor, read(raw), box.chain.open_index, open_fee_min=10).code == "terINSUF_FEE_B"


# Tokens


def holder(box, units=5_000_000):
    """Alice with tokens."""
    box.fund(ALICE, units, CONTRACT)
    box.mine()
    return box


def test_a_token_reaches_who_trusts_its_issuer_to_the_last_digit():
    box = holder(funded())
    carol = somebody(box, "carol", trusts=CONTRACT)
    sent = landed(box, pay_token(box, "1.000001", carol))
    assert (sent.code, sent.delivered.json()) == ("tesSUCCESS", token("1.000001"))
    assert (box.holding(carol, CONTRACT), box.holding(ALICE, CONTRACT)) == (1_000_001, 3_999_999)
    assert "DeliveredAmount" not in sent.metadata


def test_a_token_does_not_reach_who_trusts_nobody_or_is_not_there():
    box = holder(funded())
    assert landed_code(box, pay_token(box, "1", BOB)) == "tecNO_DST"
    stranger = somebody(box, "stranger")
    assert landed_code(box, pay_token(box, "1", stranger)) == "tecPATH_DRY"
    assert landed_code(box, pay_token(box, "1", stranger, SendMax="1000000")) == "tecPATH_DRY"


def test_more_than_there_is_arrives_in_part_only_when_the_sender_says_so():
    box = holder(funded())
    carol = somebody(box, "carol", trusts=CONTRACT)
    assert landed_code(box, pay_token(box, "6", carol)) == "tecPATH_PARTIAL"
    assert landed_code(box, pay_token(box, "6", carol, Flags=0x00020000, DeliverMin=token("5.5"))) == "tecPATH_PARTIAL"
    part = landed(box, pay_token(box, "6", carol, Flags=0x00020000))
    assert (part.code, part.delivered.json(), part.metadata["DeliveredAmount"]) == ("tesSUCCESS", token("5"), token("5"))
    assert box.holding(carol, CONTRACT) == 5_000_000
    assert landed_code(box, pay_token(box, "1", carol)) == "tecPATH_DRY"


def test_a_transfer_fee_is_taken_between_holders_and_from_no_issuer():
    box = holder(funded(), 10_000_000)
    carol = somebody(box, "carol", trusts=CONTRACT)
    control([box], {"do": "issuer", "contract": CONTRACT, "transfer_rate": 1_002_000_000})
    box.mine()
    assert landed_code(box, pay_token(box, "1", carol)) == "tecPATH_PARTIAL"
    assert landed_code(box, pay_token(box, "1", carol, SendMax=token("1.01"))) == "tesSUCCESS"
    assert (box.holding(carol, CONTRACT), box.holding(ALICE, CONTRACT)) == (1_000_000, 8_998_000)
    back = landed_code(box, pay_token(box, "2", ISSUER))
    assert (back, box.holding(ALICE, CONTRACT)) == ("tesSUCCESS", 6_998_000)
    part = landed(box, pay_token(box, "1", carol, Flags=0x00020000))
    assert part.code == "tesSUCCESS"
    assert part.delivered.json() == token("0.998003992015968")
    assert landed(box, pay_token(box, "1", carol, SendMax=token("1.01"))).delivered.json() == token("1")


@pytest.mark.parametrize(
    ("order", "code"),
    [
        ({"settings": "default_ripple global_freeze"}, "tecPATH_DRY"),
        ({"freeze": "ALICE"}, "tecPATH_DRY"),
        ({"freeze": "CAROL"}, "tesSUCCESS"),
        ({"no_ripple": "ALICE CAROL"}, "tecPATH_DRY"),
        ({"no_ripple": "CAROL"}, "tesSUCCESS"),
        ({"settings": "default_ripple require_auth"}, "tecPATH_DRY"),
        ({"settings": "default_ripple require_auth", "authorize": "CAROL"}, "tesSUCCESS"),
        ({"freeze": "ALICE", "thaw": "ALICE"}, "tesSUCCESS"),
    ],
)
def test_issuers_have_rules_of_their_own(order, code):
    box = holder(funded())
    carol = somebody(box, "carol", trusts=CONTRACT)
    named = {key: value.replace("ALICE", ALICE).replace("CAROL", carol) for key, value in order.items()}
    control([box], {"do": "issuer", "contract": CONTRACT, **named})
    assert landed_code(box, pay_token(box, "1", carol)) == code
    assert landed_code(box, pay_token(box, "1", ISSUER)) == "tesSUCCESS"  # a frozen token may still go home


def test_who_holds_a_token_already_needs_no_authorisation_for_more():
    box = holder(funded())
    carol = somebody(box, "carol", trusts=CONTRACT)
    assert landed_code(box, pay_token(box, "1", carol)) == "tesSUCCESS"
    control([box], {"do": "issuer", "contract": CONTRACT, "settings": "default_ripple require_auth"})
    assert landed_code(box, pay_token(box, "1", carol)) == "tesSUCCESS"


def test_no_more_arrives_than_the_recipient_trusts_for():
    box = holder(funded())
    key = key_of("dora")
    dora = address_of(key.public_key.format())
    box.fund(dora, 20_000_000)
    box.mine()
    box.chain.send(key, {"TransactionType": "TrustSet", "LimitAmount": token("2")})
    box.mine()
    assert landed_code(box, pay_token(box, "3", dora)) == "tecPATH_PARTIAL"
    assert landed_code(box, pay_token(box, "2", dora)) == "tesSUCCESS"
    assert landed_code(box, pay_token(box, "1", dora)) == "tecPATH_DRY"


def test_a_trust_line_is_owned_and_costs_a_reserve_from_the_third_thing_on():
    box = funded(drops=1_200_000)
    assert act(box, "TrustSet", LimitAmount=token("1000")) == "tesSUCCESS"
    assert box.chain.current.account(ALICE).owner_count == 1
    assert act(box, "TrustSet", LimitAmount={**token("1"), "currency": "EUR"}) == "tesSUCCESS"
    assert act(box, "TrustSet", LimitAmount={**token("1"), "currency": "GBP"}) == "tecNO_LINE_INSUF_RESERVE"
    assert act(box, "TrustSet", LimitAmount={**token("0"), "currency": "JPY"}) == "tecNO_LINE_REDUNDANT"
    assert act(box, "TrustSet", LimitAmount=token("0")) == "tesSUCCESS"
    assert box.chain.current.account(ALICE).owner_count == 2  # rippling is not as the account has it by default
    assert act(box, "TrustSet", LimitAmount=token("0"), Flags=0x00020000) == "tesSUCCESS"
    assert box.chain.current.account(ALICE).owner_count == 1


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"LimitAmount": "5"}, "temBAD_LIMIT"),
        ({"LimitAmount": token("5", ALICE)}, "temDST_IS_SRC"),
        ({"LimitAmount": token("5", BOB)}, "tecNO_DST"),
        ({"LimitAmount": token("5"), "Flags": 0x00010000}, "tefNO_AUTH_REQUIRED"),
        ({"LimitAmount": token("5"), "QualityIn": 10**9}, "tesSUCCESS"),
        ({"LimitAmount": token("5"), "QualityIn": 10**9 + 1}, "temDISABLED"),
    ],
)
def test_a_trust_line_has_two_ends(fields, code):
    box = funded()
    raw = signed(TransactionType="TrustSet", Sequence=sequence(box), **fields)
    assert code_of(box, raw) == code


# Settings, tickets, deposits


def test_an_account_says_what_it_wants_of_others():
    box = funded()
    assert act(box, "AccountSet") == "tesSUCCESS"
    assert act(box, "AccountSet", SetFlag=1) == "tesSUCCESS"
    assert box.chain.current.account(ALICE).flags == 0x00020000
    assert act(box, "AccountSet", ClearFlag=1, TransferRate=1_500_000_000) == "tesSUCCESS"
    assert (box.chain.current.account(ALICE).flags, box.chain.current.account(ALICE).transfer_rate) == (0, 1_500_000_000)
    assert act(box, "AccountSet", SetFlag=4) == "tecNO_ALTERNATIVE_KEY"
    assert act(box, "AccountSet", SetFlag=6) == "tesSUCCESS"
    assert act(box, "AccountSet", ClearFlag=6) == "tesSUCCESS"
    assert box.chain.current.account(ALICE).flags == 0x00200000
    for fields, code in (({"SetFlag": 1, "ClearFlag": 1}, "temINVALID_FLAG"), ({"TransferRate": 5}, "temBAD_TRANSFER_RATE")):
        assert code_of(box, signed(TransactionType="AccountSet", Sequence=sequence(box), **fields)) == code


def test_a_ticket_takes_the_place_of_a_sequence_once():
    box = funded()
    before = sequence(box)
    assert act(box, "TicketCreate", TicketCount=2) == "tesSUCCESS"
    account = box.chain.current.account(ALICE)
    assert (account.sequence, account.tickets, account.owner_count) == (before + 3, {before + 1, before + 2}, 2)
    used = pay(box, Sequence=0, TicketSequence=before + 2)
    assert landed_code(box, used) == "tesSUCCESS"
    assert (sequence(box), box.chain.current.account(ALICE).owner_count) == (before + 3, 1)
    assert code_of(box, used) == "tefNO_TICKET"
    assert code_of(box, pay(box, 21_000_000, Sequence=0, TicketSequence=before + 2)) == "tefNO_TICKET"
    assert act(box, "TicketCreate", TicketCount=250) == "tecDIR_FULL"
    assert code_of(box, signed(TransactionType="TicketCreate", TicketCount=251, Sequence=sequence(box))) == "temINVALID_COUNT"


def test_tickets_are_things_that_ask_for_a_reserve():
    box = funded(drops=1_300_000)
    assert act(box, "TicketCreate", TicketCount=2) == "tecINSUFFICIENT_RESERVE"
    assert act(box, "TicketCreate", TicketCount=1) == "tesSUCCESS"


def test_deposits_are_taken_of_friends():
    box = funded()
    box.fund(BOB, 20_000_000)
    box.mine()
    assert act(box, "AccountSet", SetFlag=9) == "tesSUCCESS"
    assert act(box, "DepositPreauth", Authorize=ISSUER) == "tesSUCCESS"
    assert act(box, "DepositPreauth", Authorize=ISSUER) == "tecDUPLICATE"
    assert act(box, "DepositPreauth", Unauthorize=BOB) == "tecNO_ENTRY"
    assert act(box, "DepositPreauth", Authorize=address_of(key_of("ghost").public_key.format())) == "tecNO_TARGET"
    assert box.chain.current.account(ALICE).owner_count == 1
    bob = key_of("bob")
    with pytest.raises(ValueError, match="tecNO_PERMISSION"):
        box.chain.send(bob, {"TransactionType": "Payment", "Destination": ALICE, "Amount": "1500000"})
    box.mine()
    assert box.chain.of_account(BOB)[-1].code == "tecNO_PERMISSION"
    assert act(box, "DepositPreauth", Authorize=BOB) == "tesSUCCESS"
    box.chain.send(bob, {"TransactionType": "Payment", "Destination": ALICE, "Amount": "1500000"})
    box.mine()
    assert box.chain.of_account(BOB)[-1].code == "tesSUCCESS"
    assert act(box, "DepositPreauth", Unauthorize=BOB) == "tesSUCCESS"
    raw = signed(TransactionType="DepositPreauth", Authorize=ALICE, Sequence=sequence(box))
    assert code_of(box, raw) == "temCANNOT_PREAUTH_SELF"
    assert code_of(box, signed(TransactionType="DepositPreauth", Sequence=sequence(box))) == "temMALFORMED"


def test_what_fails_in_the_ledger_costs_its_fee_and_its_sequence_alone():
    box = funded()
    before = sequence(box)
    failed = landed(box, pay(box, 99_999_999))
    assert (failed.code, failed.delivered) == ("tecUNFUNDED_PAYMENT", None)
    assert (box.holding(ALICE), box.holding(BOB), sequence(box)) == (100_000_000 - 12, 0, before + 1)
    (node,) = failed.metadata["AffectedNodes"]
    assert node["ModifiedNode"]["PreviousFields"] == {"Balance": "100000000", "Sequence": before}


def test_xrp_is_neither_made_nor_lost():
    """What all accounts have, and the rest that was never given out, is what the ledger's header says."""
    box = funded()
    for to, drops in ((BOB, 20_000_000), (BOB, 99_000_000), (somebody(box, "carol", trusts=CONTRACT), 1)):
        landed_code(box, pay(box, drops, to=to))
    ledger = box.chain.ledgers[box.chain.closed]
    everybody = {ALICE, BOB, ISSUER, box.chain.faucet} | {name for one in ledger_accounts(box) for name in one}
    first = box.chain.state.at(box.chain.first)
    given_out = sum(account.balance for name in everybody if (account := first.account(name)) is not None)
    burnt = box.chain.ledgers[box.chain.first].total_drops - ledger.total_drops
    assert sum(box.holding(name) for name in everybody) == given_out - burnt
    assert burnt > 0


def ledger_accounts(box):
    return [applied.accounts for ledger in box.chain.ledgers.values() for applied in ledger.applied]
