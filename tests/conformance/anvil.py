"""anvil, a node that we did not write, in the shape of a box: its chain is real, and its nodes can be as wrong as those of a box."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.devnet.box import Broken, Faults, Keep, Request, Response, Verb
from penstock.rails.evm import codec
from tests.fixtures.networks import AnvilChain, post_json
from tests.fixtures.nodes import anvil_node

CHAIN_ID = 31337
BLOCK_MS = 1_000
HEADS = ("latest", "pending", "finalized", "safe")


@dataclass(slots=True)
class AnvilNode:
    """One way to the same anvil, with faults of its own."""

    network: "AnvilNetwork"
    faults: Any = field(default_factory=Faults)

    def answer(self, request: Request) -> Response:
        if self.faults.down:
            raise Broken(self.faults.down)
        self.network.tick()
        asked = json.loads(request.body)
        calls = asked if isinstance(asked, list) else [asked]
        answers = [self._one(call) for call in calls]
        return Response(json.dumps(answers if isinstance(asked, list) else answers[0]).encode())

    def _one(self, call: dict[str, Any]) -> dict[str, Any]:
        method, faults = call["method"], self.faults
        if method == "eth_sendRawTransaction":
            return self._send(call)
        if method == "eth_chainId" and faults.chain_id:
            return self._said(call, hex(faults.chain_id))
        if faults.blind and method in {"eth_getTransactionByHash", "eth_getTransactionReceipt"}:
            return self._said(call, None)
        if faults.lag:
            head = max(0, self.network.head - faults.lag)
            if method == "eth_blockNumber":
                return self._said(call, hex(head))
            params = [hex(head) if param in HEADS else param for param in call.get("params", [])]
            answer = self.network.post({**call, "params": params})
            if method == "eth_getTransactionReceipt" and answer.get("result") and int(answer["result"]["blockNumber"], 16) > head:
                return self._said(call, None)
            return answer
        return self.network.post(call)

    def _send(self, call: dict[str, Any]) -> dict[str, Any]:
        faults = self.faults
        if faults.drop:
            faults.drop -= 1
            return self._said(call, codec.transaction_id(bytes.fromhex(call["params"][0][2:])))
        answer = self.network.post(call)
        if faults.duplicate:
            faults.duplicate -= 1
            self.network.post(call)
        if faults.break_after:
            faults.break_after -= 1
            raise Broken(faults.breakage)
        return answer

    @staticmethod
    def _said(call: dict[str, Any], result: Any) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": call["id"], "result": result}


class AnvilNetwork:
    """`devnet.box.BoxNetwork` over a running anvil that mines only when it is told to."""

    name = "ETH"
    settings: Mapping[str, Any] = {"chain_id": CHAIN_ID}
    verbs: Mapping[str, Verb] = {}

    def __init__(self, chain: AnvilChain, now_ms: Callable[[], int]) -> None:
        self._chain = chain
        self._now_ms = now_ms
        self._block_ms = BLOCK_MS
        self._due_ms = now_ms() + BLOCK_MS
        self.nodes = (AnvilNode(self), AnvilNode(self))

    @property
    def head(self) -> int:
        return int(self._chain.rpc("eth_blockNumber"), 16)

    def post(self, call: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = post_json(self._chain.url, call)
        return answer

    def code(self, address: str) -> str:
        return str(self._chain.rpc("eth_getCode", address, "latest"))

    def set_code(self, address: str, code: str) -> None:
        self._chain.rpc("anvil_setCode", address, code)

    def tick(self) -> None:
        due = 0
        while self._block_ms and self._due_ms <= self._now_ms():
            self._due_ms += self._block_ms
            due += 1
        if due:
            self.mine(due)

    def status(self) -> dict[str, Any]:
        return {"head": self.head}

    def fund(self, address: str, units: int, contract: str | None = None) -> str:
        symbol = next(symbol for symbol, token in self._chain.tokens.items() if token.contract == contract)
        decimals = self._chain.tokens[symbol].decimals
        self._chain.fund(address, {symbol: f"{units // 10**decimals}.{units % 10**decimals:0{decimals}d}"})
        return ""

    def holding(self, address: str, contract: str | None = None) -> int:
        symbol = next(symbol for symbol, token in self._chain.tokens.items() if token.contract == contract)
        return self._chain.balance(address, symbol)

    def mine(self, count: int = 1) -> int:
        self._chain.mine(count)
        return self.head

    def set_block_time(self, block_ms: int) -> None:
        self.tick()
        self._block_ms, self._due_ms = block_ms, self._now_ms() + block_ms

    def fork(self, depth: int, transactions: Keep = "keep") -> int:
        """anvil_reorg: the blocks are made anew, with the transactions named or without them."""
        head = self.head
        if depth >= head:
            raise ValueError("the chain is not so long")
        again = []
        for number in range(head - depth + 1, head + 1):
            block = self._chain.rpc("eth_getBlockByNumber", hex(number), False)
            again += [self._chain.rpc("eth_getRawTransactionByHash", txid) for txid in block["transactions"]]
        place = 0 if transactions == "keep" else min(1, depth - 1)
        self._chain.rpc("anvil_reorg", depth, [] if transactions == "drop" else [[raw, place] for raw in again])
        return self.mine(1)

    def forget(self, txid: str) -> bool:
        return self._chain.rpc("anvil_dropTransaction", txid) == txid

    def spike(self, factor: int) -> None:
        block = self._chain.rpc("eth_getBlockByNumber", "latest", False)
        self._chain.rpc("anvil_setNextBlockBaseFeePerGas", hex(int(block["baseFeePerGas"], 16) * factor))


@contextlib.contextmanager
def anvil_network() -> Iterator[Callable[[Callable[[], int]], AnvilNetwork]]:
    """What makes the network once the house has a clock."""
    with anvil_node("--no-mining", chain_id=CHAIN_ID) as node:
        chain = AnvilChain("ETH", node.url, CHAIN_ID)
        chain.place_tokens()
        yield lambda now_ms: AnvilNetwork(chain, now_ms)
