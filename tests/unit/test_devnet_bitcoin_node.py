"""What a Bitcoin node of the box answers, in the shapes of https://bitcoincore.org/en/doc/29.0.0/, and how it may be wrong."""

import base64
import json
import re

import pytest

from penstock.devnet.bitcoin import rpc
from penstock.devnet.bitcoin.chain import CHAIN_ID
from penstock.devnet.bitcoin.node import NAMES
from penstock.devnet.bitcoin.rpc import Number, RpcError, btc, encode, units_of
from penstock.devnet.bitcoin.transaction import read
from penstock.devnet.box import Broken
from penstock.devnet.control import control
from tests.fixtures.bitcoin_box import ALICE, BOB, CAROL, COIN, VECTORS, Town, outputs_of

HEX64 = re.compile(r"[0-9a-f]{64}")
HELP = """
createwallet decoderawtransaction estimatesmartfee generatetoaddress getbalances getbestblockhash getblock getblockchaininfo
getblockcount getblockhash getblockheader getchaintips getconnectioncount getdescriptorinfo getindexinfo getmempoolentry
getmempoolinfo getnetworkinfo getrawmempool getrawtransaction gettransaction gettxout gettxspendingprevout getwalletinfo help
importdescriptors invalidateblock listdescriptors listsinceblock listunspent listwallets loadwallet reconsiderblock
sendrawtransaction submitpackage testmempoolaccept unloadwallet uptime validateaddress
"""


def error(town, method, *params, **where):
    with pytest.raises(RpcError) as caught:
        town.call(method, *params, **where)
    return caught.value.code, caught.value.message


def faults(town, node=0, **changes):
    control([town.box], {"do": "faults", "node": node, **changes})


# HTTP and JSON-RPC


def test_the_first_version_answers_errors_with_http_errors():
    town = Town(funds=())
    assert town.post({"method": "getblockcount", "id": "x"}) == (200, {"result": 200, "error": None, "id": "x"})
    missing = {"result": None, "error": {"code": -32601, "message": "Method not found"}, "id": 7}
    assert town.post({"jsonrpc": "1.0", "method": "nope", "params": [], "id": 7}) == (404, missing)
    status, told = town.post({"method": "getblockhash", "params": [999], "id": 7})
    assert (status, told["error"]) == (500, {"code": -8, "message": "Block height out of range"})
    parse = (500, {"result": None, "error": {"code": -32700, "message": "Parse error"}, "id": None})
    assert town.post(b"{") == town.post(b"\xff\xff") == parse
    assert town.post(b"[" * 200_000) == parse
    assert town.post(b"7")[1]["error"] == {"code": -32700, "message": "Top-level object parse error"}
    assert town.post({"id": 1})[0] == 400


def test_the_second_version_answers_errors_with_200_and_notifications_with_nothing():
    town = Town(funds=())
    body = {"jsonrpc": "2.0", "method": "getblockcount", "id": 1}
    assert town.post(body) == (200, {"jsonrpc": "2.0", "result": 200, "id": 1})
    assert town.post({**body, "method": "nope"}) == (
        200,
        {"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": 1},
    )
    assert town.post({"jsonrpc": "2.0", "method": "getblockcount"}) == (204, b"")
    assert town.post({**body, "jsonrpc": "3.0"})[1]["error"] == {"code": -32600, "message": "JSON-RPC version not supported"}
    assert town.post({**body, "params": "x"})[1]["error"]["code"] == -32600


def test_a_batch_answers_each_call_in_its_own_version():
    town = Town(funds=())
    calls = [
        {"jsonrpc": "2.0", "method": "getblockcount", "id": 1},
        {"method": "getblockcount", "id": 2},
        {"jsonrpc": "2.0", "method": "getblockcount"},
        7,
        {"jsonrpc": "2.0", "method": "getblockhash", "params": [-1], "id": 3},
    ]
    status, told = town.post(calls)
    assert status == 200
    assert told == [
        {"jsonrpc": "2.0", "result": 200, "id": 1},
        {"result": 200, "error": None, "id": 2},
        {"result": None, "error": {"code": -32600, "message": "Invalid Request object"}, "id": None},
        {"jsonrpc": "2.0", "error": {"code": -8, "message": "Block height out of range"}, "id": 3},
    ]
    assert town.post([calls[2]]) == (204, b"")
    assert town.post([]) == (200, [])


def test_parameters_may_have_names():
    town = Town(funds=())
    first = VECTORS["genesis"]["hash"]
    assert town.post({"method": "getblockhash", "params": {"height": 0}, "id": 1})[1]["result"] == first
    named = {"method": "getblockheader", "params": {"args": [first], "verbose": False}, "id": 1}
    assert len(town.post(named)[1]["result"]) == 160
    wrong = {"method": "getblockhash", "params": {"heigth": 0}, "id": 1}
    assert town.post(wrong)[1]["error"] == {"code": -8, "message": "Unknown named parameter heigth"}
    assert error(town, "getblockhash") == error(town, "getblockhash", 1, 2) == (-1, 'getblockhash "height"')
    assert error(town, "getblockhash", "1") == (-3, "JSON value of type string is not of expected type number")


def test_any_user_is_let_in_and_only_post_is_answered():
    town = Town(funds=())
    body = {"method": "uptime", "id": 1}
    basic = "Basic " + base64.b64encode(b"user:password").decode()
    assert town.post(body, headers={"authorization": basic})[0] == 200
    assert town.post(body, headers={"authorization": "Bearer x"})[0] == 401
    assert town.post(body, headers={"authorization": "Basic !"})[0] == 401
    assert town.post(body, method="GET") == (405, b"JSONRPC server handles only POST requests")
    assert town.post(body, path="/rest")[0] == 404
    assert town.post(body, path="/")[0] == 200


def test_amounts_are_written_with_eight_decimals_and_read_exactly():
    assert encode({"a": [btc(1), btc(-12 * COIN), Number("4.6e-10"), None, True, 'q"']}) == (
        '{"a":[0.00000001,-12.00000000,4.6e-10,null,true,"q\\""]}'
    )
    known = {
        "0.1": 10_000_000,
        "1e-8": 1,
        "1E-05": 1_000,
        "21000000": 21_000_000 * COIN,
        "0": 0,
        "0.100000000": 10_000_000,
        "2e1": 20 * COIN,
    }
    assert {text: units_of(text) for text in known} == known
    for bad in ("0.000000001", "-1", "1e-9", "x", "", "21000001", "1e99", True, [], "٣"):
        with pytest.raises(RpcError) as caught:
            units_of(bad)
        assert caught.value.code == rpc.TYPE_ERROR
    with pytest.raises(TypeError):
        encode(0.1)


def test_help_names_every_method():
    town = Town(funds=())
    assert [line.split()[0] for line in town.call("help").splitlines()] == HELP.split()
    assert town.call("help", "getblock") == 'getblock "blockhash" ( verbosity )'
    assert town.call("help", "nope") == "help: unknown command: nope"


# Blocks


def test_the_chain_is_told_as_core_tells_it():
    town = Town(funds=())
    told = town.call("getblockchaininfo")
    head = town.chain.blocks.head
    assert told == {
        "chain": "regtest",
        "blocks": 200,
        "headers": 200,
        "bestblockhash": head.hash,
        "bits": "207fffff",
        "target": "7fffff" + "00" * 29,
        "difficulty": 4.656542373906925e-10,
        "time": head.time,
        "mediantime": head.median_time,
        "verificationprogress": 1,
        "initialblockdownload": False,
        "chainwork": f"{402:064x}",
        "size_on_disk": told["size_on_disk"],
        "pruned": False,
        "warnings": [],
    }
    assert (town.call("getblockcount"), town.call("getbestblockhash")) == (200, head.hash)
    assert town.call("getblockhash", 0) == VECTORS["genesis"]["hash"]
    assert town.call("getindexinfo") == {"txindex": {"synced": True, "best_block_height": 200}}
    assert "not a real network" in town.call("getnetworkinfo")["subversion"]


def test_a_block_is_told_in_four_ways():
    town = Town()
    txid = town.send(fee=1_234)
    town.mine()
    head = town.chain.blocks.head
    raw = town.call("getblock", head.hash, 0)
    assert raw == head.raw.hex()
    assert raw[:160] == town.call("getblockheader", head.hash, False)
    one, two, three = (town.call("getblock", head.hash, level) for level in (1, 2, 3))
    assert one["tx"] == [head.transactions[0].txid, txid]
    header = town.call("getblockheader", head.hash)
    assert {key: one[key] for key in header} == header
    assert (one["size"], one["weight"], one["strippedsize"] * 3 + one["size"]) == (len(raw) // 2, head.weight, head.weight)
    assert (one["confirmations"], one["nTx"], "nextblockhash" in one) == (1, 2, False)
    assert "fee" not in two["tx"][0]
    assert (two["tx"][1]["fee"], two["tx"][1]["hex"]) == (0.00001234, head.transactions[1].raw.hex())
    assert list(two["tx"][0]["vin"][0]) == ["coinbase", "txinwitness", "sequence"]
    assert three["tx"][1]["vin"][0]["prevout"]["value"] == 1.0
    town.mine()
    assert town.call("getblock", head.hash)["nextblockhash"] == town.chain.blocks.head.hash
    assert error(town, "getblock", "00" * 32) == (-5, "Block not found")
    assert error(town, "getblock", "abc") == (-8, "blockhash must be of length 64 (not 3, for 'abc')")
    assert error(town, "getblock", "g" * 64)[1].startswith("blockhash must be hexadecimal string")


def test_a_block_off_the_chain_is_still_known_with_no_confirmations():
    town = Town()
    town.send()
    town.mine()
    old = town.chain.blocks.head
    town.box.fork(1, "drop")
    assert town.call("getblockheader", old.hash)["confirmations"] == -1
    tips = town.call("getchaintips")
    assert [(tip["hash"], tip["branchlen"], tip["status"]) for tip in tips[1:]] == [(old.hash, 1, "valid-fork")]
    told = town.call("getrawtransaction", old.transactions[1].txid, 1, old.hash)
    assert (told["in_active_chain"], told["confirmations"], "blocktime" in told) == (False, 0, False)


def test_blocks_are_made_undone_and_brought_back_by_their_calls():
    town = Town(funds=())
    made = town.call("generatetoaddress", 2, BOB.address)
    assert town.chain.blocks.head.hash == made[-1]
    assert town.chain.blocks.head.transactions[0].outputs[0].script == BOB.script
    assert town.call("invalidateblock", made[0]) is None
    assert (town.call("getblockcount"), town.call("getchaintips")[1]["status"]) == (200, "invalid")
    town.call("reconsiderblock", made[0])
    assert town.call("getbestblockhash") == made[1]
    assert error(town, "generatetoaddress", 1, "x") == (-5, "Error: Invalid address")
    assert error(town, "invalidateblock", VECTORS["genesis"]["hash"])[0] == -8


def test_blocks_too_old_are_told_to_be_gone():
    town = Town(funds=(), history=20)
    assert error(town, "getblock", town.call("getblockhash", 3)) == (-1, "Block not available (pruned data)")


# Transactions


def test_a_transaction_is_told_while_it_waits_and_when_it_is_mined():
    town = Town()
    raw = town.pay()
    txid = town.chain.submit(raw).tx.txid
    assert town.call("getrawtransaction", txid) == town.call("getrawtransaction", txid, 0) == raw.hex()
    told = town.call("getrawtransaction", txid, True)
    tx = read(raw)
    assert (told["txid"], told["hash"], told["version"], told["locktime"]) == (txid, tx.wtxid, 2, 0)
    assert (told["size"], told["vsize"], told["weight"]) == (len(raw), -(-tx.weight // 4), tx.weight)
    assert "confirmations" not in told
    (vin,) = told["vin"]
    assert (vin["txid"], vin["vout"], vin["scriptSig"], vin["sequence"]) == (*tx.inputs[0].outpoint, {"asm": "", "hex": ""}, 0xFFFFFFFD)
    assert [len(item) // 2 for item in vin["txinwitness"]] == [len(item) for item in tx.inputs[0].witness]
    script = told["vout"][0]["scriptPubKey"]
    assert (script["type"], script["address"], script["asm"]) == ("witness_v0_keyhash", BOB.address, f"0 {BOB.script[2:].hex()}")
    assert script["desc"].startswith(f"addr({BOB.address})#")
    town.mine(2)
    told = town.call("getrawtransaction", txid, 2)
    block = town.chain.blocks.at(town.chain.blocks.head.height - 1)
    assert (told["blockhash"], told["confirmations"], told["blocktime"], told["fee"]) == (block.hash, 2, block.time, 0.00001)
    assert town.call("getrawtransaction", txid, 1, block.hash)["in_active_chain"] is True
    assert error(town, "getrawtransaction", txid, 1, town.chain.blocks.head.hash)[1].startswith(
        "No such transaction found in the provided block"
    )
    assert error(town, "getrawtransaction", "00" * 32)[1].startswith("No such mempool or blockchain transaction")
    assert error(town, "getrawtransaction", txid, 1, "00" * 32) == (-5, "Block hash not found")
    assert error(town, "getrawtransaction", VECTORS["genesis"]["merkle_root"])[1].startswith("The genesis block coinbase")


def test_a_coin_is_told_until_something_spends_it():
    town = Town()
    (((txid, number), _),) = town.coins()
    told = town.call("gettxout", txid, number)
    assert (told["bestblock"], told["confirmations"], told["value"], told["coinbase"]) == (town.chain.blocks.head.hash, 1, 1.0, False)
    assert town.call("gettxspendingprevout", [{"txid": txid, "vout": number}]) == [{"txid": txid, "vout": number}]
    spender = town.send()
    assert town.call("gettxout", txid, number) is None
    assert town.call("gettxout", txid, number, False)["value"] == 1.0
    assert town.call("gettxspendingprevout", [{"txid": txid, "vout": number}])[0]["spendingtxid"] == spender
    assert town.call("gettxout", spender, 0)["confirmations"] == 0
    assert town.call("gettxout", spender, 9) is None
    town.mine()
    assert town.call("gettxout", txid, number, False) is None
    assert error(town, "gettxspendingprevout", [])[0] == -8


def test_sending_answers_the_id_and_repeating_it_is_no_error_until_it_is_mined():
    town = Town()
    raw = town.pay()
    txid = town.call("sendrawtransaction", raw.hex())
    assert txid == read(raw).txid == town.call("sendrawtransaction", raw.hex())
    town.mine()
    assert error(town, "sendrawtransaction", raw.hex()) == (-27, "Transaction outputs already in utxo set")
    town.call("sendrawtransaction", town.pay(fee=700).hex())
    town.call("sendrawtransaction", town.pay(purse=BOB, to=CAROL, units=5_000).hex())
    town.mine()
    assert error(town, "sendrawtransaction", raw.hex()) == (-25, "bad-txns-inputs-missingorspent")


def test_sending_refuses_in_cores_codes_and_words():
    town = Town()
    decode = (-22, "TX decode failed. Make sure the tx has at least one input.")
    assert error(town, "sendrawtransaction", "zz") == error(town, "sendrawtransaction", town.pay().hex() + "00") == decode
    code, words = error(town, "sendrawtransaction", town.pay(fee=10).hex())
    assert (code, words) == (-26, "min relay fee not met, 10 < 141")
    dear = town.pay(fee=COIN // 2)
    words = "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)"
    assert error(town, "sendrawtransaction", dear.hex()) == (-25, words)
    assert error(town, "sendrawtransaction", town.pay(fee=20_000).hex(), "0.00000100") == (-25, words)
    assert error(town, "sendrawtransaction", town.pay().hex(), 1)[0] == -8
    burn = ALICE.spend(town.coins(), [(b"\x6a\x04test", 1_000), (ALICE.script, COIN - 9_000)])
    assert error(town, "sendrawtransaction", burn.hex())[1] == "Unspendable output exceeds maximum configured by user (maxburnamount)"
    town.call("sendrawtransaction", burn.hex(), 0, "0.00001")
    town.call("sendrawtransaction", dear.hex(), 0)


def test_what_would_be_taken_is_told_without_taking_it():
    town = Town()
    raw = town.pay(fee=1_410)
    tx = read(raw)
    told = town.call("testmempoolaccept", [raw.hex()])
    fees = {"base": 0.0000141, "effective-feerate": 0.0001, "effective-includes": [tx.wtxid]}
    assert told == [{"txid": tx.txid, "wtxid": tx.wtxid, "allowed": True, "vsize": 141, "fees": fees}]
    child = town.pay(coins=outputs_of(raw, tx.txid, ALICE))
    assert [one["allowed"] for one in town.call("testmempoolaccept", [raw.hex(), child.hex()])] == [True, True]
    assert town.call("testmempoolaccept", [child.hex()])[0]["reject-reason"] == "missing-inputs"
    assert town.call("testmempoolaccept", [town.pay(fee=0).hex()])[0]["reject-reason"] == "min relay fee not met"
    assert town.call("testmempoolaccept", [town.pay(fee=COIN // 2).hex()])[0]["reject-reason"] == "max-fee-exceeded"
    assert len(town.chain.mempool) == 0
    assert error(town, "testmempoolaccept", [])[0] == -8


def test_a_package_brings_in_a_parent_that_is_too_poor_alone():
    town = Town()
    raw = town.pay(fee=0)
    parent = read(raw)
    child = read(town.pay(coins=outputs_of(raw, parent.txid, ALICE), fee=1_000))
    told = town.call("submitpackage", [raw.hex(), child.raw.hex()])
    assert (told["package_msg"], told["replaced-transactions"]) == ("success", [])
    assert told["tx-results"][parent.wtxid]["fees"]["effective-includes"] == [parent.wtxid, child.wtxid]
    assert town.call("getmempoolentry", child.txid)["fees"]["ancestor"] == 0.00001
    town.mine()
    assert town.chain.blocks.find(parent.txid) is not None
    poor = town.pay(fee=0)
    grandchild = town.pay(coins=outputs_of(poor, read(poor).txid, ALICE), fee=100)
    told = town.call("submitpackage", [poor.hex(), grandchild.hex()])
    assert told["package_msg"] == "transaction failed"
    assert len(town.chain.mempool) == 0


def test_the_mempool_is_told():
    town = Town()
    assert town.call("getrawmempool") == []
    raw = town.pay(fee=500)
    parent = town.chain.submit(raw).tx.txid
    child = town.send(coins=outputs_of(raw, parent, ALICE), fee=700)
    assert town.call("getrawmempool") == [parent, child]
    told = town.call("getrawmempool", True)
    assert told[child] == town.call("getmempoolentry", child)
    assert (told[child]["depends"], told[parent]["spentby"], told[child]["ancestorcount"]) == ([parent], [child], 2)
    assert told[child]["fees"] == {"base": 0.000007, "modified": 0.000007, "ancestor": 0.000012, "descendant": 0.000007}
    assert (told[parent]["descendantcount"], told[parent]["bip125-replaceable"]) == (2, True)
    info = town.call("getmempoolinfo")
    assert (info["size"], info["bytes"], info["total_fee"], info["fullrbf"]) == (2, 282, 0.000012, True)
    assert (info["mempoolminfee"], info["minrelaytxfee"], info["incrementalrelayfee"]) == (0.00001, 0.00001, 0.00001)
    assert error(town, "getmempoolentry", "00" * 32) == (-5, "Transaction not in mempool")


def test_fees_are_estimated_for_a_number_of_blocks():
    town = Town()
    assert town.call("estimatesmartfee", 1) == {"feerate": 0.00002, "blocks": 2}
    assert [town.call("estimatesmartfee", target)["feerate"] for target in (2, 6, 1_008)] == [0.00002, 0.000015, 0.0000125]
    town.box.spike(30)
    assert town.call("estimatesmartfee", 2, "conservative")["feerate"] == 0.0006
    assert error(town, "estimatesmartfee", 0) == (-8, "Invalid conf_target, must be between 1 and 1008")
    assert error(town, "estimatesmartfee", 2, "cheap")[0] == -8


def test_addresses_are_judged():
    town = Town(funds=())
    address, script = VECTORS["key_io"]["regtest"][2]
    told = town.call("validateaddress", address)
    assert told == {
        "isvalid": True, "address": address, "scriptPubKey": script, "isscript": False, "iswitness": True, "witness_version": 0,
        "witness_program": script[4:],
    }  # fmt: skip
    assert town.call("validateaddress", VECTORS["key_io"]["other_networks"][0])["isvalid"] is False


# Faults


def test_a_dropped_submission_is_acknowledged_and_lost():
    town = Town()
    faults(town, drop=1)
    raw = town.pay()
    txid = town.call("sendrawtransaction", raw.hex())
    assert (txid, len(town.chain.mempool)) == (read(raw).txid, 0)
    assert town.call("sendrawtransaction", raw.hex()) == txid
    assert len(town.chain.mempool) == 1


@pytest.mark.parametrize("how", ["500", "503", "reset", "timeout"])
def test_an_answer_may_break_after_the_transaction_was_taken(how):
    town = Town()
    faults(town, break_after=1, breakage=how)
    with pytest.raises(Broken) as broken:
        town.call("sendrawtransaction", town.pay().hex())
    assert broken.value.how == how
    town.mine()
    assert town.box.holding(BOB.address) == 10_000


def test_a_submission_that_comes_twice_pays_once():
    town = Town()
    faults(town, duplicate=1)
    town.call("sendrawtransaction", town.pay().hex())
    town.mine()
    assert (town.box.holding(BOB.address), town.node.faults.duplicate) == (10_000, 0)


def test_a_stopped_node_answers_nothing_and_the_other_one_goes_on():
    town = Town()
    faults(town, down="reset")
    with pytest.raises(Broken):
        town.post({"method": "uptime", "id": 1})
    assert town.call("getblockcount", node=1) == 201
    control([town.box], {"do": "heal"})
    assert town.call("getblockcount") == 201


def test_a_node_that_lags_knows_the_world_as_it_was():
    town = Town()
    (((coin, number), _),) = town.coins()
    raw = town.pay()
    txid = town.chain.submit(raw).tx.txid
    before = town.chain.blocks.head
    town.mine(2)
    faults(town, lag=2)
    assert (town.call("getblockcount"), town.call("getbestblockhash")) == (201, before.hash)
    assert (town.call("getblockcount", node=1), town.call("getblockchaininfo")["headers"]) == (203, 201)
    assert "confirmations" not in town.call("getrawtransaction", txid, 1), "for it the transaction still waits"
    assert town.call("getrawmempool") == [txid]
    assert town.call("getmempoolentry", txid)["fees"]["base"] == 0.00001
    assert town.call("gettxout", coin, number) is None
    assert town.call("gettxout", coin, number, False)["confirmations"] == 1
    assert town.call("sendrawtransaction", raw.hex()) == txid
    assert error(town, "getblock", town.chain.blocks.head.hash) == (-5, "Block not found")
    faults(town, syncing=True)
    told = town.call("getblockchaininfo")
    assert (told["headers"], told["blocks"], told["initialblockdownload"]) == (203, 201, True)


def test_a_node_may_claim_another_network():
    town = Town()
    for claimed, (name, genesis) in NAMES.items():
        faults(town, chain_id=claimed)
        assert (town.call("getblockchaininfo")["chain"], town.call("getblockhash", 0)) == (name, genesis)
    faults(town, chain_id=12345)
    assert town.call("getblockhash", 0) != VECTORS["genesis"]["hash"]
    faults(town, chain_id=CHAIN_ID)
    assert town.call("getblockchaininfo")["chain"] == "regtest"


def test_a_blind_node_knows_no_transaction():
    town = Town()
    txid = town.send()
    faults(town, blind=True)
    assert error(town, "getrawtransaction", txid)[0] == -5
    assert (town.call("getrawmempool"), town.call("getrawmempool", node=1)) == ([], [txid])
    assert error(town, "getmempoolentry", txid)[0] == -5
    town.mine()
    assert error(town, "getrawtransaction", txid, 1, town.chain.blocks.head.hash)[0] == -5


def test_fee_estimates_may_be_refused_or_wrong():
    town = Town()
    faults(town, no_estimate=True)
    assert town.call("estimatesmartfee", 6) == {"errors": ["Insufficient data or no feerate found"], "blocks": 6}
    faults(town, no_estimate=False, fee_percent_shift=-50)
    assert town.call("estimatesmartfee", 2)["feerate"] == 0.00001
    faults(town, fee_percent_shift=900)
    assert town.call("estimatesmartfee", 2)["feerate"] == 0.0002


def test_answers_are_json_that_any_parser_reads():
    town = Town()
    answer = json.loads(encode(town.node.call("getblock", town.chain.blocks.head.hash, 3)), parse_float=str)
    assert answer["tx"][1]["vin"][0]["prevout"]["value"] == "50.00000000"
    assert all(HEX64.fullmatch(tx["txid"]) for tx in answer["tx"])
