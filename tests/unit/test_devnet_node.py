"""A node of the box: JSON-RPC as geth speaks it, the ways in which a node may be wrong, and the commands that make it so."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.devnet.box import BadCommand, Broken
from penstock.devnet.control import control
from penstock.devnet.evm.box import network_of
from penstock.devnet.evm.node import BATCH_MAX, EvmFaults, EvmNode, RpcError
from penstock.rails.evm import codec
from tests.fixtures.evm import ALICE, BOB, CAROL, CHAIN_ID, ETHER, GWEI, USDT, Clock, chain_with


def node_with(**spec):
    return EvmNode(chain_with(**spec))


def send(node, raw):
    return node.call("eth_sendRawTransaction", "0x" + raw.hex())


def refusal(node, method, *params):
    with pytest.raises(RpcError) as error:
        node.call(method, *params)
    return error.value


# Identity and state


def test_a_node_says_what_it_is():
    node = node_with()
    assert node.call("eth_chainId") == hex(CHAIN_ID)
    assert node.call("net_version") == str(CHAIN_ID)
    assert "penstock-devnet" in node.call("web3_clientVersion")
    assert "not a real network" in node.call("web3_clientVersion")
    assert node.call("eth_syncing") is False


def test_balances_counts_and_code_at_any_block():
    node = node_with()
    send(node, ALICE.pay(0, BOB.address, 5))
    send(node, ALICE.pay(1, BOB.address, 5))
    assert [node.call("eth_getTransactionCount", ALICE.address, tag) for tag in ("latest", "pending")] == ["0x0", "0x2"]
    node.chain.mine(5)
    assert node.call("eth_getBalance", BOB.address, "latest") == "0xa"
    assert node.call("eth_getBalance", BOB.address, "0x0") == node.call("eth_getBalance", BOB.address, "earliest") == "0x0"
    assert node.call("eth_getBalance", BOB.address, {"blockHash": "0x" + node.chain.block(1).hash.hex()}) == "0xa"
    assert node.call("eth_getTransactionCount", ALICE.address, "finalized") == "0x2"
    assert node.call("eth_getCode", USDT) != node.call("eth_getCode", ALICE.address) == "0x"
    assert int(node.call("eth_getStorageAt", USDT, "0x03", "latest"), 16) == 6, "decimals as written into the genesis"


def test_a_token_answers_calls_now_and_then():
    node = node_with()
    ask = {"to": USDT, "data": "0x" + codec.balance_of_call_data(ALICE.address).hex()}
    node.chain.fund_token(USDT, ALICE.address, 77)
    node.chain.mine()
    assert codec.decode_uint256(node.call("eth_call", ask, "latest")) == 77
    assert codec.decode_uint256(node.call("eth_call", ask, "0x0")) == 0
    for signature, answer in (("decimals()", 6), ("totalSupply()", 10**15 * 10**6)):
        data = "0x" + codec.keccak256(signature.encode()).hex()[:8]
        assert codec.decode_uint256(node.call("eth_call", {"to": USDT, "input": data}, "latest")) == answer
    symbol = bytes.fromhex(node.call("eth_call", {"to": USDT, "input": "0x95d89b41"}, "latest")[2:])
    assert symbol[64:68] == b"USDT"


def test_a_call_that_reverts_says_why():
    node = node_with()
    call = {"from": BOB.address, "to": USDT, "data": "0x" + codec.transfer_call_data(ALICE.address, 1).hex()}
    error = refusal(node, "eth_call", call, "latest")
    assert (error.code, error.message) == (3, "execution reverted: transfer amount exceeds balance")
    assert error.data.startswith("0x08c379a0")
    assert refusal(node, "eth_estimateGas", call).code == 3
    poor = refusal(node, "eth_estimateGas", {"from": BOB.address, "to": ALICE.address, "value": "0x1"})
    assert poor.message.startswith("insufficient funds for transfer")


def test_estimated_gas_is_the_least_that_works():
    node = node_with()
    node.chain.fund_token(USDT, ALICE.address, 77)
    node.chain.mine()
    assert node.call("eth_estimateGas", {"from": ALICE.address, "to": BOB.address, "value": "0x1"}) == hex(21_000)
    for units in (1, 77):  # all of it clears a slot: the refund comes after the need
        data = codec.transfer_call_data(BOB.address, units)
        gas = int(node.call("eth_estimateGas", {"from": ALICE.address, "to": USDT, "data": "0x" + data.hex()}), 16)
        call = {"from": ALICE.address, "to": USDT, "data": "0x" + data.hex()}
        node.call("eth_call", {**call, "gas": hex(gas)}, "latest")
        assert "out of gas" in refusal(node, "eth_call", {**call, "gas": hex(gas - 1)}, "latest").message


# Blocks, transactions, logs


def test_blocks_by_number_hash_and_tag():
    node = node_with()
    txid = send(node, ALICE.pay(0, BOB.address))
    pending = node.call("eth_getBlockByNumber", "pending", False)
    assert (pending["number"], pending["hash"], pending["transactions"]) == ("0x1", None, [txid])
    node.chain.mine(6)
    first = node.call("eth_getBlockByNumber", "0x1", True)
    assert first["transactions"][0]["hash"] == txid
    assert node.call("eth_getBlockByHash", first["hash"], False)["transactions"] == [txid]
    assert {tag: node.call("eth_getBlockByNumber", tag, False)["number"] for tag in ("latest", "safe", "finalized", "earliest")} == {
        "latest": "0x6",
        "safe": "0x4",
        "finalized": "0x2",
        "earliest": "0x0",
    }
    assert node.call("eth_getBlockByNumber", "0x7", False) is None
    assert node.call("eth_blockNumber") == "0x6"
    second = node.call("eth_getBlockByNumber", "0x2", False)
    assert second["parentHash"] == first["hash"]


def test_without_the_tag_there_is_no_finality():
    node = node_with(finality_tag=False)
    assert refusal(node, "eth_getBlockByNumber", "finalized", False).message == "finalized block not found"


def test_a_transaction_from_pending_to_receipt():
    node = node_with()
    raw = ALICE.pay(0, BOB.address, 5, tip=2 * GWEI)
    txid = send(node, raw)
    waiting = node.call("eth_getTransactionByHash", txid)
    assert (waiting["blockHash"], waiting["from"], waiting["to"]) == (None, ALICE.address.lower(), BOB.address.lower())
    assert node.call("eth_getTransactionReceipt", txid) is None
    node.chain.mine()
    mined = node.call("eth_getTransactionByHash", txid)
    receipt = node.call("eth_getTransactionReceipt", txid)
    assert mined["blockHash"] == receipt["blockHash"] == node.call("eth_getBlockByNumber", "latest")["hash"]
    assert (receipt["status"], receipt["gasUsed"], receipt["effectiveGasPrice"]) == ("0x1", hex(21_000), hex(3 * GWEI))
    decoded = codec.decode(raw)
    assert (int(mined["r"], 16), int(mined["s"], 16), int(mined["yParity"], 16)) == (decoded.r, decoded.s, decoded.y_parity)
    assert node.call("eth_getTransactionByHash", "0x" + "00" * 32) is None


def test_a_node_of_an_op_stack_tells_the_l1_fee():
    node = node_with(op_stack=True)
    txid = send(node, ALICE.pay(0, BOB.address))
    node.chain.mine()
    assert int(node.call("eth_getTransactionReceipt", txid)["l1Fee"], 16) > 0
    plain = node_with()
    assert "l1Fee" not in plain.call("eth_getTransactionReceipt", _mined(plain))


def _mined(node):
    txid = send(node, ALICE.pay(0, BOB.address))
    node.chain.mine()
    return txid


def test_logs_are_found_by_contract_topic_and_range():
    node = node_with()
    for wallet in (ALICE, BOB):
        node.chain.fund_token(USDT, wallet.address, 5)
        node.chain.mine()
    everything = {"fromBlock": "0x0", "toBlock": "latest"}
    assert len(node.call("eth_getLogs", everything)) == 2
    to_bob = "0x" + BOB.raw_address.rjust(32, b"\0").hex()
    (log,) = node.call("eth_getLogs", {**everything, "address": USDT, "topics": [codec.TRANSFER_TOPIC, None, [to_bob]]})
    assert codec.exact_transfers([log], USDT, node.chain.faucet, [(BOB.address, 5)])
    assert node.call("eth_getLogs", {"fromBlock": "0x1", "toBlock": "0x1", "address": [USDT]})[0]["blockNumber"] == "0x1"
    assert node.call("eth_getLogs", {"blockHash": log["blockHash"]}) == [log]
    assert node.call("eth_getLogs", {**everything, "address": CAROL.address}) == []
    assert node.call("eth_getLogs", {**everything, "topics": [to_bob]}) == []


def test_fee_history_gives_what_an_estimate_needs():
    node = node_with(gas_limit=42_000)
    for nonce, tip in enumerate((1, 3)):
        send(node, ALICE.pay(nonce, BOB.address, tip=tip * GWEI))
    node.chain.mine(2)
    history = node.call("eth_feeHistory", "0x3", "latest", [0, 60, 100])
    assert history["oldestBlock"] == "0x0"
    assert [int(fee, 16) for fee in history["baseFeePerGas"]] == [GWEI, GWEI, GWEI * 9 // 8, GWEI]
    assert history["gasUsedRatio"] == [0, 1, 0]
    assert [int(tip, 16) // GWEI for tip in history["reward"][1]] == [1, 3, 3]
    assert node.call("eth_maxPriorityFeePerGas") == hex(GWEI)
    assert node.call("eth_gasPrice") == hex(2 * GWEI)


def test_a_legacy_node_tells_one_gas_price():
    node = node_with(legacy=True)
    assert "baseFeePerGas" not in node.call("eth_getBlockByNumber", "latest")
    send(node, ALICE.pay(0, BOB.address, fee=int(node.call("eth_gasPrice"), 16), legacy=True))
    assert len(node.chain.mine().receipts) == 1
    assert node.call("eth_feeHistory", "0x1", "latest", [50])["baseFeePerGas"] == ["0x0", "0x0"]


def test_refusals_come_with_geths_code():
    node = node_with()
    raw = ALICE.pay(0, BOB.address)
    send(node, raw)
    error = refusal(node, "eth_sendRawTransaction", "0x" + raw.hex())
    assert (error.code, error.message) == (-32000, "already known")


# JSON-RPC itself


def test_batches_are_answered_one_by_one():
    node = node_with()
    request = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"}
    answers = node.handle([request, {"id": "x", "method": "eth_nothing", "params": []}, 5])
    assert answers[0] == {"jsonrpc": "2.0", "id": 1, "result": hex(CHAIN_ID)}
    assert answers[1]["id"] == "x"
    assert answers[1]["error"] == {"code": -32601, "message": "the method eth_nothing does not exist/is not available"}
    assert answers[2]["error"]["code"] == -32600
    assert node.handle([])["error"]["message"] == "empty batch"
    assert node.handle([request] * (BATCH_MAX + 1))["error"]["message"] == "batch too large"


def test_wrong_arguments_are_32602():
    node = node_with()
    for method, *params in (
        ("eth_getBalance",),
        ("eth_getBalance", "0x12", "latest"),
        ("eth_getBalance", ALICE.address, "newest"),
        ("eth_getBalance", ALICE.address, "0x01"),
        ("eth_getBalance", ALICE.address, ["latest"]),
        ("eth_getBalance", ALICE.address, "latest", 1),
        ("eth_sendRawTransaction", "raw"),
        ("eth_call", "x", "latest"),
        ("eth_chainId", 1),
    ):
        assert refusal(node, method, *params).code == -32602, (method, params)
    assert refusal(node, "eth_getBalance", ALICE.address, "0x9").message == "header not found"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["latest", "0x1", "0x", ALICE.address, "0x" + "00" * 32, "x"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["to", "from", "data", "gas", "blockHash", "topics"]), inner)
    ),
    max_leaves=6,
)


@settings(max_examples=300)
@given(st.data())
def test_no_request_makes_a_node_stumble(data):
    node = node_with()
    method = data.draw(st.sampled_from(sorted(node._methods)))
    answer = node.handle({"id": 1, "method": method, "params": data.draw(st.lists(json_values, max_size=4) | json_values)})
    assert ("result" in answer) != ("error" in answer)


# Faults


def test_a_dropping_node_says_yes_and_forgets():
    node = node_with()
    node.faults.drop = 1
    raw = ALICE.pay(0, BOB.address)
    txid = send(node, raw)
    assert txid == codec.transaction_id(raw)
    assert node.call("eth_getTransactionByHash", txid) is None
    assert send(node, raw) == txid
    assert node.call("eth_getTransactionByHash", txid) is not None


def test_an_answer_can_be_lost_after_the_transaction_was_taken():
    node = node_with()
    node.faults = EvmFaults(break_after=1, breakage="timeout")
    raw = ALICE.pay(0, BOB.address)
    with pytest.raises(Broken) as broken:
        send(node, raw)
    assert broken.value.how == "timeout"
    assert node.call("eth_getTransactionByHash", codec.transaction_id(raw)) is not None
    assert refusal(node, "eth_sendRawTransaction", "0x" + raw.hex()).message == "already known"


def test_a_node_that_is_down_answers_nothing():
    node = node_with()
    node.faults.down = "503"
    for attempt in (lambda: node.call("eth_chainId"), lambda: node.handle({"id": 1, "method": "eth_chainId"})):
        with pytest.raises(Broken):
            attempt()


def test_a_lagging_node_knows_the_network_as_it_was():
    chain = chain_with()
    true, late = EvmNode(chain), EvmNode(chain, EvmFaults(lag=3))
    txid = _mined(true)
    chain.mine(2)
    assert [node.call("eth_blockNumber") for node in (true, late)] == ["0x3", "0x0"]
    assert late.call("eth_getTransactionReceipt", txid) is None
    assert late.call("eth_getTransactionByHash", txid)["blockHash"] is None
    assert late.call("eth_getTransactionCount", ALICE.address, "latest") == "0x0"
    assert late.call("eth_getBalance", BOB.address, "latest") == "0x0"
    assert late.call("eth_getBlockByNumber", "0x1") is None
    assert late.call("eth_getBlockByNumber", "finalized")["number"] == "0x0"
    assert late.call("eth_getLogs", {"fromBlock": "0x0", "toBlock": "latest"}) == []


def test_a_node_may_lie_about_chain_nonce_and_transactions():
    chain = chain_with()
    node = EvmNode(chain, EvmFaults(chain_id=1, nonce_shift=5, blind=True))
    assert node.call("eth_chainId") == "0x1"
    assert node.call("eth_getTransactionCount", ALICE.address, "latest") == "0x5"
    txid = _mined(node)
    assert node.call("eth_getTransactionByHash", txid) is None
    assert node.call("eth_getTransactionReceipt", txid) is None
    assert EvmNode(chain).call("eth_getTransactionReceipt", txid) is not None
    node.faults.nonce_shift = -5
    assert node.call("eth_getTransactionCount", ALICE.address, "latest") == "0x0"


# Commands


def test_commands_turn_the_knobs():
    clock = Clock()
    network = network_of(chain_with(clock, block_ms=1000))
    chain = network.chain

    def do(name, **arguments):
        return control([network], {"do": name, **arguments})

    assert do("mine", count=3) == {"head": 3}
    assert do("fork", depth=2, transactions="drop") == {"head": 4}
    assert do("spike", factor=10)["base_fee"] == str(10 * GWEI)
    assert do("block_time", block_ms=0) == {"block_ms": 0}
    txid = do("fund", address=BOB.address, units=str(5 * ETHER))["txid"]
    assert do("forget", txid=txid) == {"forgotten": True}
    do("fund_token", contract=USDT, address=BOB.address, units=7)
    assert do("status")["waiting"] == 1
    assert do("faults", lag=2, breakage="reset") == {"faults": [{"lag": 2, "breakage": "reset"}, {}]}
    assert do("faults", node="all", blind=True)["faults"][1] == {"blind": True}
    assert network.nodes[0].faults == EvmFaults(lag=2, breakage="reset", blind=True)
    assert do("heal") == {"faults": [{}, {}]}
    assert do("status")["faucet"] == chain.faucet


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], "JSON object"),
        ({"do": "explode"}, "'do' is one of block_time, faults"),
        ({"network": "DOGE", "do": "mine"}, "'network' is one of ETH"),
        ({"do": "mine", "count": -1}, "whole number"),
        ({"do": "mine", "count": 1.5}, "whole number"),
        ({"do": "mine", "times": 1}, "'times' is no argument"),
        ({"do": "fork", "depth": 9}, "older ones are final"),
        ({"do": "fork", "depth": 1, "transactions": "eat"}, "keep, drop, reorder"),
        ({"do": "fund", "address": "bob", "units": 1}, "40 hexadecimal"),
        ({"do": "fund", "address": BOB.address, "units": 10**30}, "insufficient funds"),
        ({"do": "spike", "factor": 0}, "1 or more"),
        ({"do": "faults", "sleepy": 1}, "no fault"),
        ({"do": "faults", "lag": -1}, "0 or more"),
        ({"do": "faults", "lag": True}, "whole number"),
        ({"do": "faults", "down": "418"}, "is one of '500'"),
        ({"do": "faults", "breakage": ""}, "is one of '500'"),
        ({"do": "heal", "node": 7}, "from 0 to 1"),
    ],
)
def test_a_wrong_command_is_refused_and_says_what_is_right(command, words):
    network = network_of(chain_with())
    with pytest.raises(BadCommand, match=words):
        control([network], command)
    assert network.chain.head.number == 0
    assert all(node.faults == EvmFaults() for node in network.nodes)


def test_with_several_networks_a_command_names_one():
    networks = [network_of(chain_with()), network_of(chain_with())]
    with pytest.raises(BadCommand, match="'network' is one of"):
        control(networks, {"do": "mine"})
