"""How a Lightning node is spoken to, whatever program it is: four questions, and the identity by which the one node is known.

A program is an `Adapter`; the scheme of the node's address names it: lnd+https://host:8080?macaroon=HEX, electrum+http://user:password@host:7777.
What adapters answer is already checked and bounded, so that the rail knows no program.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from penstock.rails.base import NodeUnreachable, Submission
from penstock.rails.lightning.codec import AMOUNT_MSAT_MAX, PayOrder, chain_of, node_id
from penstock.rails.rpc import BadAnswer, Call, Fault, Node

LOOK: Final = "look"
SEND: Final = "send"
PURSE: Final = "purse"

HEIGHT_MAX: Final = 2**31 - 1
CHANNELS_MAX: Final = 10_000


class Fate(enum.Enum):
    """What a node says of a payment hash. UNKNOWN proves nothing; FAILED is its word that no part may settle any more."""

    UNKNOWN = "unknown"
    PENDING = "pending"
    SETTLED = "settled"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Sighting:
    """One payment as the node shows it. `preimage` is not checked yet; amounts in millisatoshi."""

    fate: Fate
    preimage: str = field(default="", repr=False)
    amount_msat: int = 0
    fee_msat: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a node is, and which network it serves in its own program's words."""

    node: str
    network: str


@dataclass(frozen=True, slots=True)
class Purse:
    """What the node holds in channels, in millisatoshi.

    `owned_msat` is exact where `steady`; `sendable_msat` is what could leave now. `fee_floor_msat` and `fee_floor_ppm`: limits of routing fees
    below which this program cannot be held; `opens`: it pays invoices that name no amount.
    """

    owned_msat: int
    sendable_msat: int
    steady: bool
    height: int
    fee_floor_msat: int = 0
    fee_floor_ppm: int = 0
    opens: bool = True


class Adapter(Protocol):
    """One program's interface. Each method raises NodeUnreachable, or BadAnswer for what cannot be."""

    def network(self, chain_id: int) -> str:
        """What this program calls the network."""
        ...

    async def identity(self, node: Node) -> Identity:
        """Who answers."""
        ...

    async def look(self, node: Node, payment_hash: str, amount_msat: int) -> Sighting:
        """What became of a payment. FAILED only where no part of it is in flight."""
        ...

    async def send(self, node: Node, order: PayOrder) -> Submission:
        """Start the payment; do not wait for its end. Never REFUSED."""
        ...

    async def purse(self, node: Node) -> Purse:
        """What is in the channels."""
        ...


class LightningTalk:
    """`rails.rpc.Talk` of the one node that pays: every address in the settings has to lead to it."""

    def __init__(self, adapters: Mapping[str, Adapter], *, chain_id: int, own: str) -> None:
        """`adapters` by the first part of an address's scheme; `own` is the identity that the settings pin. Raises ValueError."""
        chain_of(chain_id)
        self._adapters = adapters
        self._chain_id = chain_id
        self._own = node_id(own)

    def _adapter(self, node: Node) -> Adapter:
        program = urlsplit(node.url).scheme.partition("+")[0]
        if program not in self._adapters:
            raise BadAnswer(f"its address begins with none of {', '.join(f'{name}+https://' for name in self._adapters)}")
        return self._adapters[program]

    async def mismatch(self, node: Node) -> str:
        """Another node or network than configured. Raises NodeUnreachable or BadAnswer."""
        adapter = self._adapter(node)
        found = await adapter.identity(node)
        if found.node != self._own:
            return f"it is node {found.node}, and {self._own} is configured (node_id)"
        wanted = adapter.network(self._chain_id)
        return "" if found.network == wanted else f"it serves the network {found.network[:20]!r}, and {wanted!r} is configured"

    async def calls(self, node: Node, calls: Sequence[Call]) -> list[Any | Fault]:
        """One answer a call: a Sighting, Submission or Purse. Raises NodeUnreachable."""
        adapter = self._adapter(node)
        try:
            return [await self._answer(adapter, node, call) for call in calls]
        except BadAnswer as error:
            raise NodeUnreachable(f"{node.name} gave no usable answer to {calls[0].method}: {error}") from error

    @staticmethod
    async def _answer(adapter: Adapter, node: Node, call: Call) -> Any:
        match call.method:
            case "look":
                return await adapter.look(node, *call.params)
            case "send":
                return await adapter.send(node, *call.params)
            case "purse":
                return await adapter.purse(node)
            case _:
                raise ValueError(f"a Lightning node is not asked {call.method}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A node's address taken apart: where to post, and what goes with it. Nothing of it is ever shown."""

    node: Node
    user: str
    password: str = field(repr=False)
    options: Mapping[str, str] = field(repr=False)


class Endpoints:
    """Each address is taken apart once."""

    def __init__(self) -> None:
        self._known: dict[str, Endpoint] = {}

    def of(self, node: Node) -> Endpoint:
        """What an adapter posts to: the address without its first scheme, its user and its query."""
        if node.url not in self._known:
            parts = urlsplit(node.url)
            plain = urlunsplit((parts.scheme.partition("+")[2], parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
            user, password = unquote(parts.username or ""), unquote(parts.password or "")
            self._known[node.url] = Endpoint(Node(node.name, plain), user, password, dict(parse_qsl(parts.query)))
        return self._known[node.url]


def whole(value: object, most: int = AMOUNT_MSAT_MAX) -> int:
    """A whole number from 0 to `most`, as JSON's number or, as gateways of protocol buffers write 64 bits, as text. Raises BadAnswer."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:
        value = int(value)
    if type(value) is not int or not 0 <= value <= most:
        raise BadAnswer("not a number that can be")
    return value


def items(value: object, most: int = CHANNELS_MAX) -> list[Mapping[str, Any]]:
    """A list of objects, of bounded length. Raises BadAnswer."""
    if not isinstance(value, list) or len(value) > most or not all(isinstance(item, dict) for item in value):
        raise BadAnswer("not a list of objects")
    return value
