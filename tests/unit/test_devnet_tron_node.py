"""A node of TRON's box: java-tron's HTTP API in both halves, the ways in which a node may be wrong, and the commands that make it so."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.devnet.box import BadCommand, Broken, Request
from penstock.devnet.control import control
from penstock.devnet.tron import schema, wire
from penstock.devnet.tron.chain import CHAIN_ID
from penstock.devnet.tron.node import BLOCKS_MAX, TronFaults, TronNode
from penstock.devnet.tron.transaction import Transaction
from tests.fixtures.evm import Clock
from tests.fixtures.tron_box import ALICE, BOB, CAROL, TRX, USDT, again, box_with, chain_with

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/tron_box.json").read_text())
USDT_HEX = "41a614f803b6fd780986a42c78ec9c7f77e6ded13c"
TRANSFER = "transfer(address,uint256)"


def node_with(**spec):
    return TronNode(chain_with(**spec))


def send(node, transaction):
    return node.call("wallet/broadcasthex", transaction=transaction.raw.hex())


def paid_in_block(node, transaction=None, blocks=1):
    transaction = transaction or ALICE.pay(node.chain, BOB.address, 5)
    assert send(node, transaction)["code"] == "SUCCESS"
    node.chain.mine(blocks)
    return transaction.txid


def token_in_block(node, blocks=1):
    node.chain.fund_token(USDT, ALICE.address, 1_000)
    node.chain.mine()
    return paid_in_block(node, ALICE.pay_token(node.chain, BOB.address, 5), blocks)


def parameter(to, units):
    return f"{to.account.hex():0>64}{units:064x}"


def ask(node, method, *, solid=False, visible=False, **fields):
    if visible:
        fields["visible"] = True
    return node.call(f"wallet{'solidity' if solid else ''}/{method}", **fields)


# Blocks


def test_a_block_has_the_shape_of_the_vendors_example():
    node = node_with()
    node.chain.mine(3)
    wanted = VECTORS["block"]["answer"]
    found = ask(node, "getblock", id_or_num="2", detail=False)
    assert found.keys() == wanted.keys()
    assert found["block_header"].keys() == wanted["block_header"].keys()
    assert found["block_header"]["raw_data"].keys() == wanted["block_header"]["raw_data"].keys()
    assert {name: type(value) for name, value in found["block_header"]["raw_data"].items()} == {
        name: type(value) for name, value in wanted["block_header"]["raw_data"].items()
    }
    assert ask(node, "getblock", id_or_num=found["blockID"]) == ask(node, "getblockbynum", num=2) == found
    assert ask(node, "getblockbyid", value=found["blockID"]) == found
    assert ask(node, "getnowblock") == ask(node, "getblock") == ask(node, "getblockbynum", num=3)


def test_the_genesis_leaves_out_its_number_and_says_the_chain_id():
    found = ask(node_with(), "getblockbynum")
    assert "number" not in found["block_header"]["raw_data"]
    assert int(found["blockID"][-8:], 16) == CHAIN_ID


def test_detail_decides_whether_transactions_are_shown():
    node = node_with()
    txid = paid_in_block(node)
    assert "transactions" not in ask(node, "getblock")
    (found,) = ask(node, "getblock", detail=True)["transactions"]
    assert found == ask(node, "gettransactionbyid", value=txid)
    assert ask(node, "getnowblock")["transactions"] == [found]


def test_blocks_are_listed_to_the_end_exclusive_at_most_a_hundred():
    node = node_with()
    node.chain.mine(120)
    found = ask(node, "getblockbylimitnext", startNum=0, endNum=BLOCKS_MAX)["block"]
    assert [block["block_header"]["raw_data"].get("number", 0) for block in found] == list(range(100))
    assert [len(ask(node, "getblockbylimitnext", startNum=118, endNum=125)["block"])] == [3]
    for start, end in ((0, 101), (5, 5), (6, 5), (121, 125)):
        assert ask(node, "getblockbylimitnext", startNum=start, endNum=end) == {}


def test_what_is_unknown_is_an_empty_object():
    node = node_with()
    for method in ("gettransactionbyid", "gettransactioninfobyid", "getblockbyid", "gettransactionfrompending", "getcontract"):
        assert ask(node, method, value="ab" * 32) == {}
    for method in ("getaccount", "getaccountresource", "getaccountnet"):
        assert ask(node, method, address=CAROL.hex) == ask(node, method) == {}
    assert (
        ask(node, "getblockbynum", num=99) == ask(node, "getblockbynum", num=-1) == ask(node, "gettransactioninfobyblocknum", num=0) == {}
    )
    assert ask(node, "gettransactioninfobyblocknum", num=99) == []


def test_block_ids_that_are_none_are_told_so():
    node = node_with()
    assert ask(node, "getblock", id_or_num="-1") == {"Error": "num must be non-positive number."}
    for text in ("ab", "zz" * 32, "ff" * 32):
        assert ask(node, "getblock", id_or_num=text) == {"Error": "id must be legal block hash."}
    assert ask(node, "getblock", id_or_num="99") == {}


# Transactions and receipts


def test_a_transaction_has_the_shape_of_the_vendors_example():
    node = node_with()
    found = ask(node, "gettransactionbyid", value=token_in_block(node))
    wanted = VECTORS["transaction"]
    assert set(found) == set(wanted["fields"])
    assert set(found["raw_data"]) == set(wanted["raw_fields"])
    assert found["ret"] == [{"contractRet": "SUCCESS"}]
    (contract,) = found["raw_data"]["contract"]
    assert contract["parameter"]["value"] == {
        "owner_address": ALICE.hex,
        "contract_address": USDT_HEX,
        "data": "a9059cbb" + parameter(BOB, 5),
    }
    assert (contract["type"], contract["parameter"]["type_url"]) == (
        "TriggerSmartContract",
        "type.googleapis.com/protocol.TriggerSmartContract",
    )


def test_receipts_have_the_shape_of_the_vendors_examples():
    node = node_with()
    token_in_block(node)
    ask_info = lambda txid: ask(node, "gettransactioninfobyid", value=txid)  # noqa: E731
    found = ask_info(paid_in_block(node, ALICE.pay_token(node.chain, BOB.address, 5)))
    assert list(found) == VECTORS["receipt"]["fields"]
    assert set(found["receipt"]) == set(VECTORS["receipt"]["receipt_fields"]) | {"energy_penalty_total"}
    paid_in_block(node)
    plain = ask_info(paid_in_block(node))
    assert list(plain) == VECTORS["plain_receipt"]["fields"]
    assert list(plain["receipt"]) == VECTORS["plain_receipt"]["receipt_fields"]
    assert plain["contractResult"] == [""]
    assert found["log"][0]["address"] == USDT_HEX[2:], "a log names its contract without the prefix"
    assert ask(node, "gettransactioninfobyblocknum", num=found["blockNumber"]) == [found]


def test_a_failed_call_says_how_it_ended():
    node = node_with()
    node.chain.behave(USDT, "paused")
    node.chain.fund_token(USDT, ALICE.address, 5)
    node.chain.mine()
    txid = paid_in_block(node, ALICE.pay_token(node.chain, BOB.address, 5))
    info = ask(node, "gettransactioninfobyid", value=txid)
    assert (info["result"], info["receipt"]["result"]) == ("FAILED", "REVERT")
    assert bytes.fromhex(info["resMessage"]) == b"REVERT opcode executed"
    assert bytes.fromhex(info["contractResult"][0])[68:88] == b"transfers are paused"
    assert ask(node, "gettransactioninfobyid", visible=True, value=txid)["resMessage"] == "REVERT opcode executed"
    assert ask(node, "gettransactionbyid", value=txid)["ret"] == [{"contractRet": "REVERT"}]


def test_visible_writes_addresses_as_people_do():
    node = node_with()
    txid = token_in_block(node)
    info = ask(node, "gettransactioninfobyid", visible=True, value=txid)
    assert info["contract_address"] == info["log"][0]["address"] == USDT
    value = ask(node, "gettransactionbyid", visible=True, value=txid)["raw_data"]["contract"][0]["parameter"]["value"]
    assert (value["owner_address"], value["contract_address"]) == (ALICE.address, USDT)
    assert ask(node, "getnowblock", visible="true")["block_header"]["raw_data"]["witness_address"].startswith("T")


def test_what_waits_is_shown_by_the_full_half_with_the_result_that_it_would_have():
    node = node_with()
    waiting = ALICE.pay(node.chain, BOB.address, 5)
    send(node, waiting)
    assert ask(node, "gettransactionbyid", value=waiting.txid)["ret"] == [{"contractRet": "SUCCESS"}]
    assert ask(node, "gettransactionfrompending", value=waiting.txid)["txID"] == waiting.txid
    assert ask(node, "gettransactionlistfrompending") == {"txId": [waiting.txid]}
    assert ask(node, "getpendingsize") == {"pendingSize": 1}
    assert ask(node, "gettransactioninfobyid", value=waiting.txid) == {}
    assert ask(node, "gettransactionbyid", solid=True, value=waiting.txid) == {}
    assert ask(node, "getaccount", address=ALICE.hex)["balance"] == 1_000 * TRX - 5
    assert ask(node, "getaccount", solid=True, address=ALICE.hex)["balance"] == 1_000 * TRX


# The solidified half


def test_the_solidified_half_is_four_blocks_behind_in_everything():
    node = node_with()
    txid = token_in_block(node)
    info = ask(node, "gettransactioninfobyid", value=txid)
    height = info["blockNumber"]
    calls = {
        "gettransactionbyid": {"value": txid},
        "gettransactioninfobyid": {"value": txid},
        "getblockbynum": {"num": height},
        "gettransactioninfobyblocknum": {"num": height},
        "getblockbylimitnext": {"startNum": height, "endNum": height + 1},
    }
    node.chain.mine(3)
    assert not any(ask(node, method, solid=True, **fields) for method, fields in calls.items())
    node.chain.mine()
    for method, fields in calls.items():
        assert ask(node, method, solid=True, **fields) == ask(node, method, **fields)
    assert ask(node, "getnowblock", solid=True)["block_header"]["raw_data"]["number"] == height
    assert ask(node, "getblock", solid=True) == ask(node, "getblock", id_or_num=str(height))


def test_balances_of_the_solidified_half_are_those_of_its_own_block():
    node = node_with()
    token_in_block(node)
    call = {
        "owner_address": BOB.hex,
        "contract_address": USDT_HEX,
        "function_selector": "balanceOf(address)",
        "parameter": f"{BOB.hex[2:]:0>64}",
    }
    held = lambda solid: int(ask(node, "triggerconstantcontract", solid=solid, **call)["constant_result"][0], 16)  # noqa: E731
    assert (held(solid=False), held(solid=True)) == (5, 0)
    node.chain.mine(4)
    assert held(solid=True) == 5


# Accounts


def test_an_account_as_the_vendor_shows_it():
    node = node_with()
    paid_in_block(node)
    found = ask(node, "getaccount", address=ALICE.hex)
    assert found["address"] == ALICE.hex
    assert found["balance"] == 1_000 * TRX - 5
    assert found["free_net_usage"] > 200
    assert found["owner_permission"] == {"permission_name": "owner", "threshold": 1, "keys": [{"address": ALICE.hex, "weight": 1}]}
    assert found["frozenV2"] == [{}, {"type": "ENERGY"}, {"type": "TRON_POWER"}]
    assert "type" not in found
    assert ask(node, "getaccount", visible=True, address=USDT)["type"] == "Contract"
    assert ask(node, "getaccount", visible=True, address=ALICE.address)["address"] == ALICE.address


def test_resources_say_what_is_left_of_free_and_of_staked():
    node = node_with()
    assert ask(node, "getaccountresource", address=ALICE.hex) == {
        "freeNetLimit": 600,
        "TotalNetLimit": 43_200_000_000,
        "TotalNetWeight": 27_000_000_000,
        "TotalTronPowerWeight": 45_000_000_000,
        "TotalEnergyLimit": 180_000_000_000,
        "TotalEnergyWeight": 18_000_000_000,
    }
    node.chain.stake(ALICE.address, 1_000 * TRX, energy=True)
    node.chain.stake(ALICE.address, 1_000 * TRX, energy=False)
    node.chain.mine()
    found = ask(node, "getaccountresource", visible=True, address=ALICE.address)
    assert (found["EnergyLimit"], found["NetLimit"]) == (10_000, 1_600)
    assert ask(node, "getaccountnet", address=ALICE.hex)["NetLimit"] == 1_600
    paid = paid_in_block(node)
    assert (
        ask(node, "getaccountnet", address=ALICE.hex)["NetUsed"] == ask(node, "gettransactioninfobyid", value=paid)["receipt"]["net_usage"]
    )


def test_addresses_are_judged_by_their_form():
    node = node_with()
    assert ask(node, "validateaddress", address=ALICE.hex) == {"result": True, "message": "Hex string format"}
    assert ask(node, "validateaddress", address=ALICE.address) == {"result": True, "message": "Base58check format"}
    assert ask(node, "validateaddress", address="42" + ALICE.hex[2:]) == {"result": False, "message": "Invalid address"}
    assert ask(node, "validateaddress", address="T") == {"result": False, "message": "Length error"}
    for text in (ALICE.address[:-1] + "1", "zz" * 21, "#" * 28):
        assert ask(node, "validateaddress", address=text)["result"] is False


def test_a_contract_says_who_made_it_and_what_it_can():
    node = node_with()
    found = ask(node, "getcontract", value=USDT_HEX)
    assert found["contract_address"] == USDT_HEX
    assert (found["consume_user_resource_percent"], len(found["abi"]["entrys"])) == (100, 5)
    assert ask(node, "getcontract", visible=True, value=USDT)["origin_address"] == node.chain.faucet
    assert ask(node, "getcontract", value=ALICE.hex) == {}


def test_parameters_say_the_prices_of_the_moment_and_leave_out_zeros():
    node = node_with()
    said = {it["key"]: it.get("value") for it in ask(node, "getchainparameters")["chainParameter"]}
    assert (said["getEnergyFee"], said["getTransactionFee"], said["getCreateAccountFee"]) == (100, 1_000, 100_000)
    assert (said["getCreateNewAccountFeeInSystemContract"], said["getMaxFeeLimit"]) == (1_000_000, 15_000_000_000)
    assert said["getAllowUpdateAccountName"] is None
    node.chain.spike(4)
    said = {it["key"]: it.get("value") for it in ask(node, "getchainparameters")["chainParameter"]}
    assert (said["getEnergyFee"], said["getTransactionFee"]) == (400, 4_000)


def test_a_node_says_what_it_is():
    node = node_with()
    node.chain.mine(6)
    found = ask(node, "getnodeinfo")
    assert "not a real network" in found["configNodeInfo"]["codeVersion"]
    assert found["block"] == f"Num:6,ID:{node.chain.head.id.hex()}"
    assert found["solidityBlock"].startswith("Num:2,ID:")


# Calls


def test_a_call_has_the_shape_of_the_vendors_example():
    node = node_with()
    wanted = VECTORS["call"]["answer"]
    call = {
        "owner_address": ALICE.hex,
        "contract_address": USDT_HEX,
        "function_selector": "balanceOf(address)",
        "parameter": f"{ALICE.hex[2:]:0>64}",
    }
    found = ask(node, "triggerconstantcontract", **call)
    assert found.keys() == wanted.keys() | {"energy_penalty"}
    assert found["transaction"].keys() == wanted["transaction"].keys()
    assert found["transaction"]["raw_data"].keys() == wanted["transaction"]["raw_data"].keys()
    assert (found["result"], found["transaction"]["ret"]) == ({"result": True}, [{}])
    by_data = {**call, "data": "70a08231" + call["parameter"]}
    del by_data["function_selector"], by_data["parameter"]
    assert ask(node, "triggerconstantcontract", **by_data)["constant_result"] == found["constant_result"]


def test_a_call_says_the_energy_that_the_transaction_will_use():
    node = node_with()
    node.chain.fund_token(USDT, ALICE.address, 1_000)
    node.chain.mine()
    for _ in range(2):
        call = {"owner_address": ALICE.hex, "contract_address": USDT_HEX, "function_selector": TRANSFER, "parameter": parameter(BOB, 5)}
        said = ask(node, "triggerconstantcontract", **call)
        estimated = ask(node, "estimateenergy", **call)
        txid = paid_in_block(node, ALICE.pay_token(node.chain, BOB.address, 5))
        used = ask(node, "gettransactioninfobyid", value=txid)["receipt"]
        assert said["energy_used"] == used["energy_usage_total"]
        assert said["energy_penalty"] == used["energy_penalty_total"]
        assert used["energy_usage_total"] <= estimated["energy_required"] <= used["energy_usage_total"] + 10_000
    assert ask(node, "getpendingsize") == {"pendingSize": 0}


def test_a_call_that_reverts_is_an_answer_and_one_that_breaks_is_an_error():
    node = node_with()
    call = {"owner_address": BOB.hex, "contract_address": USDT_HEX, "function_selector": TRANSFER, "parameter": parameter(ALICE, 5)}
    found = ask(node, "triggerconstantcontract", **call)
    assert found["result"] == {"result": True, "message": b"REVERT opcode executed".hex()}
    assert found["transaction"]["ret"] == [{"ret": "FAILED"}]
    assert found["constant_result"][0].startswith("08c379a0")
    assert ask(node, "estimateenergy", **call)["result"]["code"] == "CONTRACT_EXE_ERROR"
    node.chain.behave(USDT, "broken")
    node.chain.mine()
    said = ask(node, "triggerconstantcontract", visible=True, **{**call, "owner_address": BOB.address, "contract_address": USDT})
    assert said["result"]["code"] == "OTHER_ERROR"
    assert "IllegalOperationException" in said["result"]["message"]


def test_a_call_of_nothing_is_refused_in_the_vendors_way():
    node = node_with()
    missing = ask(node, "triggerconstantcontract", visible=True, owner_address=BOB.address, contract_address=ALICE.address)
    assert missing["result"] == {"code": "CONTRACT_VALIDATE_ERROR", "message": "Smart contract is not exist."}
    for fields in ({}, {"owner_address": BOB.hex}, {"owner_address": "zz", "contract_address": USDT_HEX}):
        assert ask(node, "triggerconstantcontract", **fields)["result"]["code"] == "OTHER_ERROR"
    rich = {"owner_address": BOB.hex, "contract_address": USDT_HEX, "call_value": 10**15}
    assert ask(node, "estimateenergy", **rich)["result"]["code"] == "CONTRACT_VALIDATE_ERROR"


# Submission


def test_hexadecimal_bytes_are_taken_and_shown_again_as_text():
    node = node_with()
    paid = ALICE.pay(node.chain, BOB.address, 5)
    found = send(node, paid)
    assert {name: found[name] for name in ("result", "code", "message", "txid")} == {
        "result": True, "code": "SUCCESS", "message": "", "txid": paid.txid,
    }  # fmt: skip
    assert json.loads(found["transaction"])["signature"] == [paid.message.signature[0].hex()]
    again_said = send(node, paid)
    assert {name: again_said[name] for name in ("result", "code", "message", "txid")} == {
        "result": False, "code": "DUP_TRANSACTION_ERROR", "message": "Dup transaction.", "txid": paid.txid,
    }  # fmt: skip


@pytest.mark.parametrize("visible", [False, True])
def test_json_is_packed_from_raw_data_and_the_hexadecimal_beside_it_is_not_looked_at(visible):
    node = node_with()
    node.chain.fund_token(USDT, ALICE.address, 50)
    node.chain.mine()
    for paid in (ALICE.pay(node.chain, BOB.address, 5), ALICE.pay_token(node.chain, BOB.address, 5)):
        send(node, paid)
        shown = ask(node, "gettransactionfrompending", visible=visible, value=paid.txid)
        node.chain.forget(paid.txid)
        found = node.call("wallet/broadcasttransaction", **{**shown, "raw_data_hex": "00", "visible": visible})
        assert found == {"result": True, "txid": paid.txid}
        words = "Dup transaction."
        refused = node.call("wallet/broadcasttransaction", **shown, visible=visible)
        said = words if visible else words.encode().hex()
        assert refused == {"code": "DUP_TRANSACTION_ERROR", "message": said, "txid": paid.txid}
    node.chain.mine()
    assert len(node.chain.head.receipts) == 2


def test_json_that_is_no_transaction_is_answered_as_a_node_does():
    node = node_with()
    shown = {"raw_data": {"contract": [{"type": "TransferContract", "parameter": {"value": {"amount": "many"}}}], "expiration": 1}}
    assert node.call("wallet/broadcasttransaction", **shown)["code"] == "CONTRACT_VALIDATE_ERROR"
    for fields in ({}, {"raw_data": 5}, {"raw_data": {"contract": 1}}, {"raw_data": {"contract": [], "expiration": "x"}}):
        assert node.call("wallet/broadcasttransaction", **fields) == {"Error": "class java.lang.NullPointerException : null"}
    assert "DecoderException" in node.call("wallet/broadcasthex", transaction="zz")["Error"]
    assert "InvalidProtocolBufferException" in node.call("wallet/broadcasthex", transaction="ff")["Error"]
    empty = node.call("wallet/broadcasthex")
    assert (empty["code"], empty["message"]) == ("CONTRACT_VALIDATE_ERROR", "Contract validate error : No contract!")


# HTTP


def test_a_get_asks_with_its_query():
    node = node_with()
    txid = paid_in_block(node)
    answer = node.answer(Request(path="/wallet/gettransactionbyid", method="GET", query={"value": txid, "visible": "true"}))
    assert json.loads(answer.body) == ask(node, "gettransactionbyid", visible=True, value=txid)
    assert json.loads(node.answer(Request(path="/wallet/getblockbynum", method="GET", query={"num": "1"})).body)["blockID"]


def test_other_paths_and_methods_are_not_there():
    node = node_with()
    for path, method in (
        ("", "POST"),
        ("/wallet/nothing", "POST"),
        ("/walletsolidity/broadcasthex", "POST"),
        ("/wallet/getnowblock", "PUT"),
    ):
        assert node.answer(Request(b"{}", path, method)).status == 404
    assert node.answer(Request(b" " * (5 * 1024 * 1024), "/wallet/getnowblock")).status == 413


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"5", b"[" * 100_000, b'{"num": "x"}', b'{"num": 1.5}', b'{"num": 99999999999999999999}', b'{"num": []}']
)
def test_a_body_that_is_no_question_is_an_error_and_nothing_else(body):
    answer = node_with().answer(Request(body, "/wallet/getblockbynum"))
    assert (answer.status, list(json.loads(answer.body))) == (200, ["Error"])


METHODS = sorted(TronNode(chain_with())._methods)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.text(max_size=70), st.sampled_from([ALICE.hex, ALICE.address, USDT_HEX, USDT, "00" * 32]),
    st.lists(st.integers(0, 3), max_size=3), st.dictionaries(st.sampled_from(["contract", "expiration"]), st.lists(st.integers(0, 3), max_size=2), max_size=2),
)  # fmt: skip
FIELDS = st.dictionaries(
    st.sampled_from(["value", "num", "address", "visible", "owner_address", "contract_address", "data", "function_selector", "parameter",
                     "raw_data", "signature", "transaction", "id_or_num", "startNum", "endNum", "call_value"]),
    VALUES, max_size=5,
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(method=st.sampled_from(METHODS), fields=FIELDS)
def test_no_question_whatever_breaks_a_node(method, fields):
    answer = _SHARED.answer(Request(json.dumps(fields).encode(), method))
    assert answer.status == 200
    json.loads(answer.body)


_SHARED = node_with()


@settings(max_examples=300, deadline=None)
@given(flips=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4), cut=st.integers(0, 40))
def test_no_bytes_whatever_move_money_but_the_owners_own(flips, cut):
    node = node_with()
    paid = ALICE.pay(node.chain, BOB.address, 5)
    raw = bytearray(paid.raw)
    for place, value in flips:
        raw[place % len(raw)] = value
    said = node.call("wallet/broadcasthex", transaction=bytes(raw[: len(raw) - cut]).hex())
    node.chain.mine()
    moved = 1_000 * TRX - node.chain.state(node.chain.head.number).account(ALICE.account).balance
    if said.get("result"):
        assert moved == 5, "the signature holds what is signed; what is outside of it changes nothing"
    else:
        assert moved == 0


@settings(max_examples=200, deadline=None)
@given(sun=st.integers(1, 2**62), expiration=st.integers(0, 2**62), data=st.binary(max_size=80))
def test_json_of_a_transaction_and_back_is_the_same_bytes(sun, expiration, data):
    chain = _SHARED.chain
    paid = again(ALICE.pay(chain, BOB.address, sun), ALICE.key, expiration=expiration, data=data)
    raw = wire.from_json(schema.Raw, wire.to_json(paid.data, visible=False), visible=False)
    assert raw == paid.data


# Faults


def with_faults(**faults):
    node = node_with()
    node.faults = TronFaults(**faults)
    return node, TronNode(node.chain)


def test_a_dropped_submission_is_acknowledged_and_lost():
    node, honest = with_faults(drop=1)
    paid = ALICE.pay(node.chain, BOB.address, 5)
    assert send(node, paid)["code"] == "SUCCESS"
    assert ask(honest, "getpendingsize") == {"pendingSize": 0}
    assert send(node, paid)["code"] == "SUCCESS"
    assert ask(honest, "getpendingsize") == {"pendingSize": 1}


@pytest.mark.parametrize("how", ["500", "503", "reset", "timeout"])
def test_an_answer_breaks_after_the_transaction_was_taken(how):
    node, honest = with_faults(break_after=1, breakage=how)
    paid = ALICE.pay(node.chain, BOB.address, 5)
    with pytest.raises(Broken) as broken:
        send(node, paid)
    assert broken.value.how == how
    assert ask(honest, "gettransactionfrompending", value=paid.txid)["txID"] == paid.txid
    assert send(node, paid)["code"] == "DUP_TRANSACTION_ERROR"


def test_a_busy_server_may_have_taken_it():
    node, honest = with_faults(busy_after=1)
    paid = ALICE.pay(node.chain, BOB.address, 5)
    assert (send(node, paid)["code"], send(node, paid)["code"]) == ("SERVER_BUSY", "DUP_TRANSACTION_ERROR")
    node.chain.mine()
    assert ask(honest, "gettransactioninfobyid", value=paid.txid)["blockNumber"] == 1


def test_a_duplicate_is_one_transaction():
    node, _ = with_faults(duplicate=1)
    paid = ALICE.pay(node.chain, BOB.address, 5)
    assert send(node, paid)["code"] == "SUCCESS"
    node.chain.mine()
    assert len(node.chain.head.receipts) == 1
    assert node.faults.duplicate == 0


def test_a_delayed_submission_reaches_the_network_later():
    clock = Clock()
    node = TronNode(chain_with(clock, block_ms=1_000), TronFaults(delay_ms=3_000))
    paid = ALICE.pay(node.chain, BOB.address, 5)
    assert send(node, paid)["code"] == "SUCCESS"
    clock.pass_ms(2_500)
    assert ask(node, "gettransactioninfobyid", value=paid.txid) == {}
    clock.pass_ms(1_000)
    assert ask(node, "gettransactioninfobyid", value=paid.txid)["blockNumber"] == 3


def test_a_node_that_lags_is_behind_in_both_halves():
    node, honest = with_faults(lag=3)
    txid = token_in_block(honest)
    node.chain.mine(2)
    assert ask(node, "gettransactioninfobyid", value=txid) == ask(node, "gettransactionbyid", value=txid) == {}
    assert ask(node, "getaccount", address=ALICE.hex)["balance"] == 1_000 * TRX
    node.chain.mine(4)
    heads = [
        [ask(it, "getblock", solid=solid)["block_header"]["raw_data"].get("number", 0) for solid in (False, True)] for it in (node, honest)
    ]
    assert heads == [[5, 1], [8, 4]]


def test_the_solidified_half_may_lag_by_itself():
    node, honest = with_faults(solid_lag=2)
    node.chain.mine(10)
    assert ask(node, "getblock") == ask(honest, "getblock")
    assert ask(node, "getnowblock", solid=True)["block_header"]["raw_data"]["number"] == 4
    assert ask(node, "getblockbynum", solid=True, num=5) == {}


def test_a_node_of_another_network_says_so_in_its_first_block_alone():
    node, honest = with_faults(chain_id=728126428)
    node.chain.mine(2)
    first, second, third = (ask(node, "getblockbynum", num=number) for number in (0, 1, 2))
    assert int(first["blockID"][-8:], 16) == 728126428
    assert [second, third] == [ask(honest, "getblockbynum", num=number) for number in (1, 2)]
    assert first["blockID"] != ask(honest, "getblockbynum", num=0)["blockID"]
    assert ask(node, "getblockbyid", value=first["blockID"]) == first


def test_a_blind_node_knows_no_transaction():
    node, honest = with_faults(blind=True)
    txid = token_in_block(honest)
    waiting = BOB.pay(node.chain, ALICE.address, 5)
    send(honest, waiting)
    for it in (txid, waiting.txid):
        for method in ("gettransactionbyid", "gettransactioninfobyid", "gettransactionfrompending"):
            assert ask(node, method, value=it) == {}
    assert ask(node, "gettransactionlistfrompending") == {}
    assert ask(honest, "gettransactioninfobyid", value=txid)


def test_a_node_may_omit_transactions_from_blocks_or_events_from_receipts():
    node, honest = with_faults(omit=True)
    txid = token_in_block(honest)
    height = ask(honest, "gettransactioninfobyid", value=txid)["blockNumber"]
    assert "transactions" not in ask(node, "getblockbynum", num=height)
    assert ask(node, "gettransactioninfobyblocknum", num=height) == []
    assert "transactions" in ask(honest, "getblockbynum", num=height)
    mute, _ = TronNode(node.chain, TronFaults(logless=True)), None
    assert "log" not in ask(mute, "gettransactioninfobyid", value=txid)
    assert "log" in ask(honest, "gettransactioninfobyid", value=txid)


def test_a_node_that_is_down_answers_nothing():
    node, _ = with_faults(down="reset")
    with pytest.raises(Broken):
        ask(node, "getnowblock")


# The knobs


def test_every_knob_through_the_control_api():
    box = box_with(Clock(), block_ms=1_000)
    do = lambda **command: control([box], command)  # noqa: E731
    do(do="fund", address=CAROL.address, units="5000000")
    do(do="fund_token", contract=USDT, address=CAROL.address, units=7)
    assert do(do="mine", count=6) == {"head": 6}
    assert (box.holding(CAROL.address), box.holding(CAROL.address, USDT)) == (5_000_000, 7)
    assert do(do="stake", address=CAROL.address, sun=10_000_000)["txid"]
    assert do(do="stake", address=CAROL.address, resource="bandwidth", sun=10_000_000)["txid"]
    assert do(do="behave", contract=USDT, behaviour="short")["txid"]
    do(do="mine")
    assert do(do="unstake", address=CAROL.address, sun=10_000_000)["txid"]
    assert do(do="status")["tokens"]["USDT"]["behaviour"] == "short"
    assert do(do="energy_factor", contract=USDT, factor=50_000)["tokens"]["USDT"]["energy_factor"] == 50_000
    assert do(do="stall")["stalled"] is True
    assert do(do="stall", on=0)["stalled"] is False
    assert do(do="miss", slots=3)["head"] == 7
    assert do(do="spike", factor=2)["energy_sun"] == 200
    assert do(do="fork", depth=2, transactions="drop") == {"head": 8}
    assert do(do="block_time", block_ms=0) == {"block_ms": 0}
    assert do(do="forget", txid="00" * 32) == {"forgotten": False}
    assert (
        do(do="faults", node="all", solid_lag=3, busy_after=1, logless=True)["faults"]
        == [{"busy_after": 1, "solid_lag": 3, "logless": True}] * 2
    )
    assert do(do="heal") == {"faults": [{}, {}]}


@pytest.mark.parametrize(
    "command",
    [
        {"do": "stake", "address": BOB.address, "resource": "votes", "sun": 1},
        {"do": "stake", "address": BOB.address, "sun": 1},
        {"do": "stake", "address": "T", "sun": 10**7},
        {"do": "behave", "contract": USDT, "behaviour": "kind"},
        {"do": "energy_factor", "contract": BOB.address, "factor": 1},
        {"do": "miss", "slots": 1},
        {"do": "stall", "on": 2},
        {"do": "fund", "address": USDT, "units": 1},
        {"do": "fund", "address": "nowhere", "units": 1},
        {"do": "fund", "address": BOB.address, "units": 10**18},
        {"do": "fork", "depth": 1},
        {"do": "faults", "solid_lag": -1},
    ],
)
def test_a_wrong_command_does_nothing(command):
    box = box_with()
    with pytest.raises(BadCommand):
        control([box], command)
    assert len(box.chain.pool) == 0


def test_a_transaction_is_never_in_two_blocks_whatever_the_network_does():
    """Forks, forgetting and sending again: each transfer is in at most one block, and balances add up."""
    box = box_with()
    chain = box.chain
    sent = [ALICE.pay(chain, BOB.address, 10**number) for number in range(6)]
    for round_ in range(12):
        for transaction in sent:
            box.nodes[round_ % 2].call("wallet/broadcasthex", transaction=transaction.raw.hex())
        chain.mine()
        if round_ % 3 == 2:
            chain.fork(min(3, chain.head.number - chain.solid), ("keep", "drop", "reorder")[round_ % 2])
    places = [it.transaction.txid for number in range(chain.head.number + 1) for it in chain.block(number).receipts]
    assert sorted(places) == sorted(transaction.txid for transaction in sent)
    assert box.holding(BOB.address) == 1_000 * TRX + 111_111
    assert isinstance(sent[0], Transaction)
