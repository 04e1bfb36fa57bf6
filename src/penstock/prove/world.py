"""The world around one simulated Penstock: a network in a box, a webhook receiver, a merchant, and the weather that breaks them.

The world outlives every crash of the program. It never lies about what happened to it: at the end it says who was paid what.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from penstock.catalog import Catalog
from penstock.core import wire_signature
from penstock.core.wire import compact
from penstock.devnet.box import Keep
from penstock.devnet.evm.box import EvmBox, network_of
from penstock.devnet.evm.chain import EvmChain
from penstock.devnet.evm.node import EvmFaults
from penstock.devnet.evm.specs import specs
from penstock.prove.reach import BoxPost
from penstock.prove.virtual import START_MS, Journal, VirtualLoop
from penstock.webhooks.deliver import Reply, TargetFailed

CHAIN: Final = "ETH"
FATES: Final[tuple[Keep, ...]] = ("keep", "drop", "reorder")
"""What becomes of the transactions of blocks that a fork undoes."""
STORM_S: Final = 90.0
"""How long the weather is bad. After it everything must finish."""


@dataclass(slots=True)
class Wish:
    """What the merchant wants, and the answer it has at last."""

    name: str
    at_s: float
    address: str
    token_id: str
    value: str
    merchant_pays_fee: bool
    answer: dict[str, Any] | None = None

    @property
    def is_internal(self) -> bool:
        """Whether it stays in the house."""
        return self.address.isdigit()


@dataclass(slots=True)
class SimulatedWorld:
    """One seed's world."""

    seed: int
    loop: VirtualLoop
    catalog: Catalog = field(default_factory=Catalog.load)
    journal: Journal = field(default_factory=Journal)
    source: random.Random = field(init=False)
    network: EvmBox = field(init=False)
    nodes: BoxPost = field(init=False)
    wishes: list[Wish] = field(default_factory=list)
    events: dict[str, list[bytes]] = field(default_factory=dict)
    app_id: str = ""
    app_secret: str = ""
    forged: int = 0
    sink_down: bool = False
    hot: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        self.source = random.Random(self.seed)
        spec = next(spec for spec in specs(self.catalog) if spec.name == CHAIN)
        chain = EvmChain(spec, now_ms=self.now_ms, seed=self.seed)
        self.network = network_of(chain, nodes=2)
        self.nodes = BoxPost([self.network], pause=lambda: self._pause(0.05))

    def now_ms(self) -> int:
        """The clock that everything shares."""
        return START_MS + int(self.loop.time() * 1000)

    @property
    def stormy(self) -> bool:
        """Whether the weather is still bad."""
        return self.loop.time() < STORM_S

    async def _pause(self, most_s: float) -> None:
        await asyncio.sleep(self.source.random() * most_s)

    # ------------------------------------------------------------------------------------------------------------- nodes

    async def rpc(self, url: str, body: bytes, timeout_s: float, **how: Any) -> tuple[int, bytes]:
        """A node's HTTP, without HTTP."""
        status, answer = await self.nodes(url, body, timeout_s, **how)
        if b"eth_sendRawTransaction" in body:
            self.journal.note(self.now_ms(), f"node {url[-1]} took bytes: {answer[:120].decode()}")
        return status, answer

    async def weather(self) -> None:
        """Break and mend the network until the storm is over."""
        chain, nodes = self.network.chain, self.network.nodes
        while self.stormy:
            await self._pause(4.0)
            node = self.source.choice(nodes)
            what = self.source.choice(("drop", "break", "slow", "down", "lag", "fork", "spike", "forget", "sink", "calm"))
            node.faults = EvmFaults()
            match what:
                case "drop":
                    node.faults.drop = self.source.randint(1, 3)
                case "break":
                    node.faults.break_after, node.faults.breakage = (
                        self.source.randint(1, 3),
                        self.source.choice(("500", "reset", "timeout")),
                    )
                case "slow":
                    node.faults.delay_ms = self.source.randint(100, 5_000)
                case "down":
                    node.faults.down = self.source.choice(("500", "503", "reset", "timeout"))
                case "lag":
                    node.faults.lag = self.source.randint(1, 5)
                case "fork":
                    undoable = chain.head.number - chain.final
                    depth, fate = self.source.randint(1, max(1, min(3, undoable))), self.source.choice(FATES)
                    if undoable:
                        chain.fork(depth, fate)
                case "spike":
                    chain.spike(self.source.randint(2, 8))
                case "forget":
                    for txid in self._waiting()[:2]:
                        chain.forget(txid)
                case "sink":
                    self.sink_down = not self.sink_down
                case _:
                    pass
            self.journal.note(self.now_ms(), f"weather: {what}")
        self.clear_up()

    def _waiting(self) -> Sequence[str]:
        return sorted(entry.transaction.txid for entry in self.network.chain.mempool)

    def fund(self, address: str, contract: str) -> None:
        """Coins for the hot address, less than the wishes cost: some orders wait until it clears up."""
        self.hot = (address, contract)
        self.network.chain.fund(address, 3 * 10**18)
        self.network.chain.fund_token(contract, address, 150 * 10**6)

    def clear_up(self) -> None:
        """Good weather from now on, and coins enough, also where a fork swallowed the first ones."""
        if self.hot is not None:
            address, contract = self.hot
            self.network.chain.fund(address, 3 * 10**18)
            self.network.chain.fund_token(contract, address, 10_000 * 10**6)
        for node in self.network.nodes:
            node.faults = EvmFaults()
        self.network.chain.spike(1)
        self.sink_down = False

    def received(self, address: str, token_id: str) -> int:
        """Base units of a token that an address really has, at the head."""
        token = self.catalog.token(token_id)
        return self.network.holding(address, token.contract if token is not None else None)

    # ---------------------------------------------------------------------------------------------------------- merchant

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Reply:
        """The merchant's receiver."""
        await self._pause(0.2)
        if self.sink_down:
            raise TargetFailed("the receiver is down")
        if url != "https://shop.example/webhook" or not self._is_ours(headers, body):
            self.forged += 1
        name = json.loads(body)["merchant_order_id"]
        self.events.setdefault(name, []).append(body)
        self.journal.note(self.now_ms(), f"event {name}")
        if self.stormy and self.source.random() < 0.2:
            raise TargetFailed("the answer was lost")
        return Reply(200, "success")

    def _is_ours(self, headers: Mapping[str, str], body: bytes) -> bool:
        expected = wire_signature.sign(self.app_id, self.app_secret, headers["Timestamp"], body)
        return headers["Appid"] == self.app_id and headers["Sign"] == expected

    async def ask(self, app: Callable[..., Any], wish: Wish) -> dict[str, Any]:
        """One signed request, and its verified answer."""
        body = compact(
            {
                "merchant_order_id": wish.name,
                "address": wish.address,
                "token_id": wish.token_id,
                "value": wish.value,
                "merchant_pays_fee": wish.merchant_pays_fee,
            }
        )
        timestamp = str(self.now_ms() // 1000)
        signature = wire_signature.sign(self.app_id, self.app_secret, timestamp, body)
        headers, raw = await call_asgi(
            app, "/ccpayment/v1/withdraw", {"Appid": self.app_id, "Timestamp": timestamp, "Sign": signature}, body
        )
        if not self._is_ours(headers, raw):
            self.forged += 1
        answer: dict[str, Any] = json.loads(raw)
        self.journal.note(self.now_ms(), f"answer {wish.name} {answer['code']}")
        return answer


async def call_asgi(app: Callable[..., Any], path: str, headers: Mapping[str, str | bytes], body: bytes) -> tuple[dict[str, str], bytes]:
    """One POST to an ASGI application, without a socket."""
    sent: list[dict[str, Any]] = []
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return waiting.pop() if waiting else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    raw_headers = [(name.lower().encode(), value if isinstance(value, bytes) else value.encode()) for name, value in headers.items()]
    raw_headers.append((b"content-length", str(len(body)).encode()))
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": raw_headers}
    await app({**scope, "client": ("127.0.0.1", 1), "scheme": "http", "http_version": "1.1"}, receive, send)
    found = {name.decode().title(): value.decode() for name, value in sent[0]["headers"]}
    return found, b"".join(message.get("body", b"") for message in sent[1:])
