"""A node of one family and a receiver of webhooks on one port.

    python -m penstock.bench.outside PORT evm|bitcoin BLOCK_MS

`POST /webhook` is the receiver, which always says success, every other POST the node; `GET /` tells what was paid and which events came.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Final

import uvloop

from penstock.bench.outside.bitcoin import BitcoinNode
from penstock.bench.outside.evm import EvmNode
from penstock.bench.outside.rpc import Sink, answer
from penstock.core.snowflake import from_wire, moment_ms

ANSWER: Final = b'{"status":"success"}'
NODES: Final[dict[str, type[Sink]]] = {"evm": EvmNode, "bitcoin": BitcoinNode}


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

    def __init__(self, node: Sink, receiver: Receiver) -> None:
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
            return answer(self._node.methods, body)
        if head.startswith(b"GET /count"):
            return json.dumps({"came": len(self._receiver.came)}).encode()
        return json.dumps(self._told()).encode()

    def _told(self) -> dict[str, Any]:
        """What was paid, and each event's arrival."""
        return self._node.told() | {"came": [*self._receiver.came.values()], "again": self._receiver.again}


async def serve(port: int, family: str, block_ms: int) -> None:
    """Until SIGTERM."""
    node, receiver = NODES[family](), Receiver()
    await asyncio.get_running_loop().create_server(lambda: Door(node, receiver), "127.0.0.1", port, backlog=1_024)
    while True:
        await asyncio.sleep(block_ms / 1_000)
        node.mine()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
