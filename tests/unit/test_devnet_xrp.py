"""The XRP Ledger in a box: what its engine does, what its nodes say, and how they can be wrong."""

import hashlib
import json

import coincurve
import pytest
from xrpl.core import binarycodec

from penstock.devnet.box import BadCommand, Broken, Request
from penstock.devnet.control import control
from penstock.devnet.xrp.box import network_of
from penstock.devnet.xrp.chain import Issued, XrpChain, XrpSpec, address_of, der_signature
from penstock.devnet.xrp.node import XrpFaults, XrpNode
from penstock.devnet.xrp.transactions import half_sha512

NETWORK_ID = 7_300_144
ISSUER = "rMxCKbEDwqr76QuheSUMdEGf4B9xJ8m5De"
CONTRACT = f"USD.{ISSUER}"
KEY = coincurve.PrivateKey(hashlib.sha256(b"alice").digest())
ALICE = address_of(KEY.public_key.format())
BOB = address_of(coincurve.PrivateKey(hashlib.sha256(b"bob").digest()).public_key.format())


class Clock:
    def __init__(self):
        self.now = 1_790_000_000_000

    def __call__(self):
        return self.now


def network(clock=None, *, block_ms=0, seed=1):
    spec = XrpSpec("XRP", NETWORK_ID, {CONTRACT: Issued("USD", ISSUER, 6)}, block_ms)
    return network_of(XrpChain(spec, now_ms=clock or Clock(), seed=seed))


def funded(**options):
    box = network(**options)
    box.fund(ALICE, 100 * 10**6)
    box.mine(2)
    return box


def signed(key=KEY, **fields):
    complete = {
        "TransactionType": "Payment",
        "Account": address_of(key.public_key.format()),
        "Fee": "12",
        "NetworkID": NETWORK_ID,
        "SigningPubKey": key.public_key.format().hex().upper(),
    } | fields
    complete = {name: value for name, value in complete.items() if value is not None}
    digest = half_sha512(bytes.fromhex(binarycodec.encode_for_signing(complete)))
    complete["TxnSignature"] = der_signature(key, digest).hex().upper()
    return bytes.fromhex(binarycodec.encode(complete))


def sequence(box, address=ALICE):
    return box.chain.state.accounts.at(address, box.chain.closed).sequence


def pay(box, drops=20_000_000, to=BOB, **fields):
    return signed(Destination=to, Amount=str(drops), **{"Sequence": sequence(box), **fields})


def code_of(box, raw):
    code, _ = box.chain.submit(raw)
    return code


def ask(node, method, **params):
    body = json.dumps({"method": method, "params": [params]}).encode()
    return json.loads(node.answer(Request(body)).body)["result"]


def landed(box, raw):
    box.mine()
    return box.chain.applied(half_sha512(b"TXN\0" + raw).hex().upper())


# The engine


def test_a_payment_makes_the_account_and_burns_the_fee():
    box = funded()
    raw = pay(box)
    assert code_of(box, raw) == "tesSUCCESS"
    assert landed(box, raw).code == "tesSUCCESS"
    assert (box.holding(BOB), box.holding(ALICE)) == (20_000_000, 100_000_000 - 20_000_000 - 12)
    assert sequence(box, BOB) == box.chain.closed


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"Sequence": 5}, "tefPAST_SEQ"),
        ({"Sequence": 10_000}, "terPRE_SEQ"),
        ({"LastLedgerSequence": 900}, "tefMAX_LEDGER"),
        ({"Fee": "9"}, "telINSUF_FEE_P"),
        ({"NetworkID": None}, "telREQUIRES_NETWORK_ID"),
        ({"NetworkID": 7_300_145}, "telWRONG_NETWORK"),
        ({"to": ALICE}, "temREDUNDANT"),
        ({"drops": 0}, "temBAD_AMOUNT"),
        ({"TicketSequence": 7, "Sequence": 0}, "tefNO_TICKET"),
        ({"key": coincurve.PrivateKey(b"\7" * 32), "Account": ALICE}, "tefBAD_AUTH"),
    ],
)
def test_what_can_be_in_no_ledger_now_is_said_at_once(fields, code):
    box = funded()
    raw = pay(box, **fields)
    assert code_of(box, raw) == code


def test_other_bytes_have_another_signature():
    box = funded()
    raw = bytearray(pay(box))
    raw[-1] ^= 1  # of the recipient
    assert code_of(box, bytes(raw)) == "temBAD_SIGNATURE"
    assert code_of(box, b"") == code_of(box, b"\xff" * 40) == "temMALFORMED"


def test_recipients_have_rules():
    box = funded()
    assert landed_code(box, pay(box, 999_999, BOB)) == "tecNO_DST_INSUF_XRP"
    careful = control([box], {"do": "account", "name": "careful", "settings": "require_dest"})["address"]
    closed = control([box], {"do": "account", "name": "closed", "settings": "deposit_auth"})["address"]
    assert landed_code(box, pay(box, to=careful)) == "tecDST_TAG_NEEDED"
    assert landed_code(box, pay(box, to=careful, DestinationTag=0)) == "tesSUCCESS"
    assert landed_code(box, pay(box, to=closed)) == "tecNO_PERMISSION"
    assert landed_code(box, pay(box, 99_000_000)) == "tecUNFUNDED_PAYMENT"
    with pytest.raises(BadCommand, match="settings"):
        control([box], {"do": "account", "name": "x", "settings": "rich"})


def landed_code(box, raw):
    assert code_of(box, raw).startswith("tes")
    return landed(box, raw).code


def token(value):
    return {"currency": "USD", "issuer": ISSUER, "value": value}


def test_a_token_reaches_who_trusts_its_issuer_to_the_last_digit():
    box = funded()
    box.fund(ALICE, 5_000_000, CONTRACT)
    box.mine()
    assert box.holding(ALICE, CONTRACT) == 5_000_000
    open_to = control([box], {"do": "account", "name": "trusting", "trusts": CONTRACT})["address"]
    assert landed_code(box, signed(Destination=open_to, Amount=token("1.000001"), Sequence=sequence(box))) == "tesSUCCESS"
    assert (box.holding(open_to, CONTRACT), box.holding(ALICE, CONTRACT)) == (1_000_001, 3_999_999)
    box.fund(BOB, 20_000_000)
    box.mine()
    assert landed_code(box, signed(Destination=BOB, Amount=token("1"), Sequence=sequence(box))) == "tecPATH_DRY"
    assert landed_code(box, signed(Destination=open_to, Amount=token("4"), Sequence=sequence(box))) == "tecPATH_PARTIAL"
    partial = signed(Destination=open_to, Amount=token("4"), Sequence=sequence(box), Flags=0x00020000)
    assert code_of(box, partial) == "tesSUCCESS"
    assert landed(box, partial).delivered.units == 3_999_999 * 10**9


def test_a_ticket_takes_the_place_of_a_sequence_once():
    box = funded()
    assert landed_code(box, signed(TransactionType="TicketCreate", TicketCount=2, Sequence=sequence(box))) == "tesSUCCESS"
    first, *_ = sorted(box.chain.state.accounts.at(ALICE, box.chain.closed).tickets)
    raw = pay(box, Sequence=0, TicketSequence=first)
    assert landed_code(box, raw) == "tesSUCCESS"
    assert code_of(box, pay(box, 21_000_000, Sequence=0, TicketSequence=first)) == "tefNO_TICKET"


# Ledgers


def test_what_comes_early_waits_for_its_sequence():
    box = funded()
    first = sequence(box)
    later, sooner = pay(box, Sequence=first + 1), pay(box, 21_000_000)
    assert (code_of(box, later), code_of(box, sooner)) == ("terPRE_SEQ", "tesSUCCESS")
    box.mine()
    assert box.holding(BOB) == 41_000_000


def test_what_its_last_ledger_passed_is_gone():
    box = funded()
    box.spike(64)
    raw = pay(box, LastLedgerSequence=box.chain.open_index + 1)
    assert code_of(box, raw) == "terQUEUED"
    box.mine(3)
    assert box.holding(BOB) == 0
    assert code_of(box, raw) == "tefMAX_LEDGER"


def test_a_higher_fee_takes_the_place_of_one_with_the_same_sequence():
    box = funded()
    box.spike(64)
    assert code_of(box, pay(box)) == "terQUEUED"
    assert code_of(box, pay(box, Fee="14")) == "telCAN_NOT_QUEUE_FEE"
    assert code_of(box, pay(box, 30_000_000, Fee="800")) == "tesSUCCESS"
    box.mine()
    assert box.holding(BOB) == 30_000_000


def test_a_ledger_is_validated_when_the_next_one_closes_and_undone_only_before():
    clock = Clock()
    box = funded(clock=clock, block_ms=1_000)
    raw = pay(box)
    code_of(box, raw)
    clock.now += 1_000
    box.tick()
    assert box.chain.closed - box.chain.validated == 1
    box.fork(1, "drop")
    assert box.holding(BOB) == 0
    code_of(box, raw)
    box.mine()
    box.fork(1, "keep")
    assert box.holding(BOB) == 20_000_000
    with pytest.raises(ValueError, match="nothing deeper"):
        box.fork(2)


def test_the_same_seed_and_clock_give_the_same_ledgers():
    hashes = []
    for seed in (1, 1, 2):
        box = funded(seed=seed)
        code_of(box, pay(box))
        box.mine(3)
        hashes.append(box.chain.ledgers[box.chain.closed].hash)
    assert hashes[0] == hashes[1] != hashes[2]


# What nodes say


def test_a_transaction_is_found_with_what_it_delivered_and_validated_a_ledger_later():
    box = funded()
    raw, node = pay(box), box.nodes[0]
    said = ask(node, "submit", tx_blob=raw.hex().upper())
    txid = said["tx_json"]["hash"]
    assert (said["engine_result"], said["status"]) == ("tesSUCCESS", "success")
    assert ask(node, "tx", transaction=txid)["validated"] is False
    box.mine()
    found = ask(node, "tx", transaction=txid)
    assert (found["validated"], found["meta"]["TransactionResult"], found["meta"]["delivered_amount"]) == (False, "tesSUCCESS", "20000000")
    box.mine()
    assert ask(node, "tx", transaction=txid)["validated"] is True
    assert ask(node, "account_tx", account=BOB)["transactions"][0]["tx"]["hash"] == txid


def test_a_search_says_whether_it_was_complete():
    box = funded()
    node, validated = box.nodes[0], box.chain.validated
    asked = {"transaction": "0" * 64, "min_ledger": validated - 1, "max_ledger": validated}
    assert ask(node, "tx", **asked) | {"request": 0} == {
        "error": "txnNotFound",
        "error_code": 29,
        "error_message": "Transaction not found.",
        "status": "error",
        "searched_all": True,
        "request": 0,
    }
    box.mine(5)
    node.faults = XrpFaults(gap=3)
    assert ask(node, "tx", transaction="0" * 64, min_ledger=validated, max_ledger=box.chain.validated)["searched_all"] is False
    assert "," in ask(node, "server_info")["info"]["complete_ledgers"]


def test_accounts_are_read_at_any_ledger():
    box = funded()
    before = box.chain.closed
    code_of(box, pay(box))
    box.mine(2)
    node = box.nodes[0]
    old = ask(node, "account_info", account=ALICE, ledger_index=before)["account_data"]["Balance"]
    new = ask(node, "account_info", account=ALICE, ledger_index="validated")["account_data"]["Balance"]
    assert (old, new) == ("100000000", "79999988")
    assert ask(node, "account_info", account=BOB, ledger_index=before)["error"] == "actNotFound"
    assert ask(node, "account_info", account="bob")["error"] == "actMalformed"
    assert ask(node, "account_info", account=BOB, ledger_index=99_999)["error"] == "lgrNotFound"
    assert ask(node, "nonsense")["error"] == "unknownCmd"


def test_faults_are_one_nodes_alone():
    box = funded()
    liar, honest = box.nodes
    liar.faults = XrpFaults(lag=1, chain_id=1, blind=True, drop=1)
    raw = pay(box)
    assert ask(liar, "submit", tx_blob=raw.hex())["engine_result"] == "tesSUCCESS"
    box.mine(2)
    assert box.holding(BOB) == 0
    assert (ask(liar, "server_info")["info"]["network_id"], ask(honest, "server_info")["info"]["network_id"]) == (1, NETWORK_ID)
    assert ask(liar, "ledger")["ledger_index"] == ask(honest, "ledger")["ledger_index"] - 1
    liar.faults = XrpFaults(break_after=1, breakage="reset", duplicate=1)
    with pytest.raises(Broken):
        ask(liar, "submit", tx_blob=raw.hex())
    box.mine(2)
    assert box.holding(BOB) == 20_000_000
    liar.faults = XrpFaults(down="timeout")
    with pytest.raises(Broken):
        XrpNode(box.chain, liar.faults).answer(Request(b"{}"))
    txid = half_sha512(b"TXN\0" + raw).hex().upper()
    assert ask(honest, "tx", transaction=txid)["validated"] is True


def test_what_waits_can_be_forgotten():
    box = funded()
    raw = pay(box)
    code_of(box, raw)
    assert box.forget(half_sha512(b"TXN\0" + raw).hex().upper())
    box.mine()
    assert box.holding(BOB) == 0
