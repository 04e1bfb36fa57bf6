"""What is outside of the house, in one small process: an EVM node that puts whatever it is given into its next block, and a receiver of webhooks.

    python -m penstock.bench.outside PORT CHAIN_ID BLOCK_MS

It executes nothing and believes everything, because a benchmark must not measure somebody else's node; what it was given it remembers,
and `GET /` tells it. The rail's own checks meet honest answers: receipts with the Transfer, balances that fall, a head that rises.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import rlp
import uvloop
from Crypto.Hash import keccak

from penstock.core.snowflake import from_wire, moment_ms

FUNDS: Final = 10**33
"""Of everything, for whoever asks."""
GAS: Final = 50_000
BASE_FEE: Final = 10**9
ANSWER: Final = b'{"status":"success"}'


def _hash(data: bytes) -> str:
    return "0x" + keccak.new(digest_bits=256, data=data).hexdigest()


TRANSFER: Final = _hash(b"Transfer(address,address,uint256)")


@dataclass(frozen=True, slots=True)
class Paid:
    """One transaction: its place, and what its receipt says."""

    block: int
    contract: str
    recipient: str
    units: int
    price: int


@dataclass(slots=True)
class Chain:
    """A ledger of one sender's ERC-20 transfers, in blocks that are final when they are made."""

    chain_id: int
    sender: str = ""
    number: int = 1
    paid: dict[str, Paid] = field(default_factory=dict)
    pool: dict[int, tuple[str, Paid]] = field(default_factory=dict)
    nonces: list[int] = field(default_factory=lambda: [0, 0])
    """How many transactions are in each block and those before it."""
    spent: list[dict[str, int]] = field(default_factory=lambda: [{}, {}])
    """What they moved, by contract; "" is the native coin."""

    def take(self, raw: bytes) -> str:
        """A signed transaction of type 2; its id."""
        txid = _hash(raw)
        _, nonce, tip, most, _, to, _, data, *_ = rlp.decode(raw[1:])
        number = int.from_bytes(nonce, "big")
        if txid not in self.paid and number not in self.pool:
            price = min(int.from_bytes(most, "big"), BASE_FEE + int.from_bytes(tip, "big"))
            recipient, units = "0x" + data[16:36].hex(), int.from_bytes(data[36:68], "big")
            self.pool[number] = txid, Paid(0, "0x" + to.hex(), recipient, units, price)
        return txid

    def mine(self) -> None:
        """The next block: everything that is next in line."""
        self.number += 1
        used, spent = self.nonces[-1], dict(self.spent[-1])
        while used in self.pool:
            txid, p = self.pool.pop(used)
            self.paid[txid] = Paid(self.number, p.contract, p.recipient, p.units, p.price)
            spent[p.contract] = spent.get(p.contract, 0) + p.units
            spent[""] = spent.get("", 0) + GAS * p.price
            used += 1
        self.nonces.append(used)
        self.spent.append(spent)

    def block(self, tag: str) -> int:
        """The number that a tag or quantity means."""
        return min(int(tag, 16), self.number) if tag.startswith("0x") else self.number

    def receipt(self, txid: str) -> dict[str, Any] | None:
        """As a node gives it, None for what is in no block."""
        p = self.paid.get(txid)
        if p is None:
            return None
        topics = [TRANSFER, *("0x" + "0" * 24 + address[2:] for address in (self.sender, p.recipient))]
        return {
            "transactionHash": txid,
            "blockNumber": hex(p.block),
            "blockHash": block_hash(p.block),
            "from": self.sender,
            "status": "0x1",
            "gasUsed": hex(GAS),
            "effectiveGasPrice": hex(p.price),
            "logs": [{"address": p.contract, "topics": topics, "data": f"0x{p.units:064x}", "removed": False}],
        }


def block_hash(number: int) -> str:
    """Any hash will do, as long as it stays."""
    return f"0x{number + 1:064x}"


class Node:
    """JSON-RPC over a chain."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._methods: dict[str, Callable[[list[Any]], Any]] = {
            "eth_chainId": lambda _: hex(chain.chain_id),
            "eth_sendRawTransaction": lambda p: chain.take(bytes.fromhex(p[0][2:])),
            "eth_getTransactionReceipt": lambda p: chain.receipt(p[0]),
            "eth_getTransactionByHash": lambda p: {"hash": p[0]} if self._knows(p[0]) else None,
            "eth_getTransactionCount": self._count,
            "eth_getBlockByNumber": self._block,
            "eth_getBalance": lambda p: hex(FUNDS - chain.spent[chain.block(p[1])].get("", 0)),
            "eth_call": lambda p: f"0x{FUNDS - chain.spent[chain.block(p[1])].get(p[0]['to'].lower(), 0):064x}",
            "eth_estimateGas": lambda _: hex(GAS),
            "eth_feeHistory": lambda _: {"baseFeePerGas": [hex(BASE_FEE)], "reward": [[hex(10**8)]]},
            "eth_getCode": lambda _: "0x",
        }

    def answer(self, body: bytes) -> bytes:
        """To one call or a batch."""
        asked = json.loads(body)
        said = [self._one(call) for call in asked] if isinstance(asked, list) else self._one(asked)
        return json.dumps(said, separators=(",", ":")).encode()

    def _one(self, call: dict[str, Any]) -> dict[str, Any]:
        method = self._methods.get(call["method"])
        if method is None:
            return {"jsonrpc": "2.0", "id": call["id"], "error": {"code": -32601, "message": f"no {call['method']} here"}}
        return {"jsonrpc": "2.0", "id": call["id"], "result": method(call["params"])}

    def _knows(self, txid: str) -> bool:
        return txid in self._chain.paid or any(txid == waiting for waiting, _ in self._chain.pool.values())

    def _count(self, params: list[Any]) -> str:
        self._chain.sender = params[0]  # the only address that is ever asked about is the hot address
        return hex(self._chain.nonces[self._chain.block(params[1])])

    def _block(self, params: list[Any]) -> dict[str, Any]:
        number = self._chain.block(params[0])
        return {"number": hex(number), "hash": block_hash(number), "baseFeePerGas": hex(BASE_FEE)}


@dataclass(slots=True)
class Receiver:
    """What webhooks said: when each order's event came first, Unix milliseconds, and how long the order had lived by then."""

    came: dict[str, tuple[int, int]] = field(default_factory=dict)
    again: int = 0

    def answer(self, body: bytes) -> bytes:
        """Success."""
        order_id = str(json.loads(body)["order_id"])
        snowflake, now_ms = from_wire(order_id), time.time_ns() // 1_000_000
        if order_id in self.came:
            self.again += 1
        elif snowflake is not None:
            self.came[order_id] = now_ms, now_ms - moment_ms(snowflake)
        return ANSWER


class Door(asyncio.Protocol):
    """HTTP/1.1 with Content-Length, one request after another, as the product's own clients speak it."""

    def __init__(self, chain: Chain, node: Node, receiver: Receiver) -> None:
        self._chain = chain
        self._node = node
        self._receiver = receiver
        self._buffer = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request that is whole."""
        self._buffer += data
        while True:
            head, split, rest = self._buffer.partition(b"\r\n\r\n")
            if not split:
                return
            _, named, length = head.lower().partition(b"content-length:")
            wanted = int(length.partition(b"\r\n")[0]) if named else 0
            if len(rest) < wanted:
                return
            self._buffer = rest[wanted:]
            content = self._answer(head, rest[:wanted])
            said = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
            self._transport.write(said.encode() + content)

    def _answer(self, head: bytes, body: bytes) -> bytes:
        if head.startswith(b"POST /webhook"):
            return self._receiver.answer(body)
        if head.startswith(b"POST"):
            return self._node.answer(body)
        if head.startswith(b"GET /count"):
            return json.dumps({"came": len(self._receiver.came)}).encode()
        return json.dumps(self._told()).encode()

    def _told(self) -> dict[str, Any]:
        """Transfers and units in blocks, and each event's arrival."""
        paid = self._chain.paid.values()
        came = [*self._receiver.came.values()]
        return {"transfers": len(paid), "units": str(sum(p.units for p in paid)), "came": came, "again": self._receiver.again}


async def serve(port: int, chain_id: int, block_ms: int) -> None:
    """Until SIGTERM."""
    chain, receiver = Chain(chain_id), Receiver()
    node = Node(chain)
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: Door(chain, node, receiver), "127.0.0.1", port, backlog=1_024)
    while True:
        await asyncio.sleep(block_ms / 1_000)
        chain.mine()


if __name__ == "__main__":
    uvloop.run(serve(*(int(word) for word in sys.argv[1:4])))
