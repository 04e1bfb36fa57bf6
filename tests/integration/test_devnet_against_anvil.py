"""The same signed bytes on our devnet and on anvil, a node that we did not write: same ids, same gas, same events, same ends."""

import asyncio

import aiohttp
import pytest

from penstock.devnet.evm import contracts
from penstock.devnet.evm.contracts import BoxToken
from penstock.devnet.evm.node import EvmNode
from penstock.devnet.evm.state import Draft, World
from penstock.rails.evm import codec
from tests.fixtures.evm import ALICE, BOB, CAROL, CHAIN_ID, ETHER, USDT, chain_with

SAME = (
    "transactionHash",
    "transactionIndex",
    "from",
    "to",
    "contractAddress",
    "status",
    "type",
    "gasUsed",
    "cumulativeGasUsed",
    "logsBloom",
)
LATER_FIELDS = {
    "withdrawals",
    "withdrawalsRoot",
    "blobGasUsed",
    "excessBlobGas",
    "parentBeaconBlockRoot",
    "requestsHash",
    "totalDifficulty",
}
SAME_OF_LOGS = ("address", "topics", "data", "logIndex", "removed")
REVERTER = bytes.fromhex("64" + "60006000fd" + "6000526005601bf3")


def payments():
    """Native, token, token that empties the sender, token that is not there, out of gas, creation, and a cancel."""
    yield ALICE.pay(0, BOB.address, ETHER)
    yield ALICE.pay_token(1, BOB.address, 400)
    yield ALICE.pay_token(2, BOB.address, 600)
    yield ALICE.pay_token(3, BOB.address, 1)
    yield ALICE.pay_token(4, CAROL.address, 0, gas=27_000)
    yield ALICE.pay(5, None, 0, data=REVERTER, gas=200_000)
    yield ALICE.pay(6, ALICE.address, 0)
    yield ALICE.pay(7, BOB.address, 1, data=b"\0\1hello", gas=30_000)


@pytest.mark.parametrize("anvil", [{"chain_id": CHAIN_ID}], indirect=True)
def test_the_same_bytes_end_the_same(anvil):
    ours = EvmNode(chain_with(balances={ALICE.address: 100 * ETHER}))
    ours.chain.fund_token(USDT, ALICE.address, 1_000)
    ours.chain.mine()

    async def theirs(session, method, *params):
        async with session.post(anvil, json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params}) as response:
            answer = await response.json()
        assert "error" not in answer, answer
        return answer["result"]

    async def run():
        async with aiohttp.ClientSession() as session:
            await theirs(session, "anvil_setBalance", ALICE.address, hex(100 * ETHER))
            draft = Draft(World())
            contracts.place_token(draft, bytes.fromhex(USDT[2:]), BoxToken("USDT", 6), owner=CAROL.raw_address)
            draft.slots[contracts.balance_slot(bytes.fromhex(USDT[2:]), ALICE.raw_address)] = 1_000
            await theirs(session, "anvil_setCode", USDT, "0x" + contracts.code_of("PlainToken").hex())
            for (_, index), value in draft.slots.items():
                await theirs(session, "anvil_setStorageAt", USDT, hex(index), "0x" + value.to_bytes(32, "big").hex())
            for raw in payments():
                mine = ours.call("eth_sendRawTransaction", "0x" + raw.hex())
                ours.chain.mine()
                assert await theirs(session, "eth_sendRawTransaction", "0x" + raw.hex()) == mine
                await theirs(session, "anvil_mine")
                here, there = ours.call("eth_getTransactionReceipt", mine), await theirs(session, "eth_getTransactionReceipt", mine)
                assert {key: here[key] for key in SAME} == {key: there[key] for key in SAME}
                assert [[log[key] for key in SAME_OF_LOGS] for log in here["logs"]] == [
                    [log[key] for key in SAME_OF_LOGS] for log in there["logs"]
                ]
                assert codec.decode(raw).sender.lower() == there["from"]
                assert set(there) - set(here) <= {"blobGasPrice", "blockTimestamp"}
                blocks = [
                    ours.call("eth_getBlockByNumber", here["blockNumber"], True),
                    await theirs(session, "eth_getBlockByNumber", there["blockNumber"], True),
                ]
                assert blocks[0]["transactionsRoot"] == blocks[1]["transactionsRoot"]
                assert set(blocks[1]) - set(blocks[0]) <= LATER_FIELDS
                transactions = [block["transactions"][0] for block in blocks]
                assert set(transactions[1]) - set(transactions[0]) <= {"blockTimestamp"}
                for key in ("hash", "input", "nonce", "gas", "value", "type", "r", "s", "v", "yParity", "maxFeePerGas"):
                    assert transactions[0][key] == transactions[1][key]

    asyncio.run(run())
