"""The verbs of a rail and the words in which a chain answers.

Whatever a node says is mapped here to one of few outcomes, and whatever cannot be mapped is *unknown*: a timeout,
an error text or a miss in the mempool proves nothing (failure model, R1).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from penstock.core.event import Observation
from penstock.core.intent import Intent, Payment
from penstock.core.money import Network, Token


class InvalidDestination(ValueError):
    """The address is not one that this network can pay; the text says what is wrong and what would be right."""


class OwnAddress(InvalidDestination):
    """The address is the house's own, or a token contract: coins sent there are lost or go round in a circle."""


class MemoRequired(ValueError):
    """The destination demands a memo or tag and none was given."""


class NodeUnreachable(Exception):
    """No configured node gave a usable answer. Says nothing about any transaction."""


class PostFailed(Exception):
    """No answer came: refused, reset, timed out, too large. The text names the kind and never the address."""


class WrongNetwork(NodeUnreachable):
    """A node serves another chain id or genesis than configured; it is never used."""


@dataclass(frozen=True, slots=True)
class Destination:
    """A recipient in the network's canonical form."""

    address: str
    memo: str = ""


@dataclass(frozen=True, slots=True)
class FeeEstimate:
    """What one plain transfer of `token_id` costs now.

    `cost` is the expected whole fee, `fee_cap` the most that a version may ever be allowed to cost, both in base units of the
    native coin. `terms` are ready for an Intent. Holds until `holds_until_ms` (Unix milliseconds).
    """

    token_id: str
    cost: int
    fee_cap: int
    terms: Mapping[str, int]
    at_ms: int
    holds_until_ms: int


@dataclass(frozen=True, slots=True)
class Heads:
    """Heights of one network: the newest block, and the newest that can never be undone."""

    head: int
    final: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class LaneView:
    """A hot address as `bind` sees it. `slot` is the next free conflict resource."""

    chain: str
    address: str
    slot: int


@dataclass(frozen=True, slots=True)
class VersionView:
    """A signed transaction as `observe` sees it: own id, own bytes, and the intent it was built from."""

    number: int
    txid: str
    raw: bytes
    intent: Intent


class Verdict(enum.Enum):
    """What one node said of bytes we gave it. None of the three is terminal (failure model, section 3)."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Submission:
    """A verdict with the node's words, cut short and free of secrets."""

    verdict: Verdict
    detail: str = ""


@runtime_checkable
class Prepares(Protocol):
    """A rail whose fee depends on the recipient: asked after the estimate and before `bind`, outside of any transaction."""

    async def prepare(self, payments: Sequence[Payment], token: Token, sender: str, fees: FeeEstimate) -> list[FeeEstimate]:
        """`fees` for each payment, in order, with what its own recipient needs. Raises NodeUnreachable."""
        ...


class Rail(Protocol):
    """One network. Every number a node gives is bounded before it is believed."""

    @property
    def network(self) -> Network:
        """The network this rail serves."""
        ...

    def parse_destination(self, text: str, memo: str) -> Destination:
        """Pure. Raises InvalidDestination or MemoRequired."""
        ...

    async def estimate(self, token: Token) -> FeeEstimate:
        """Read only, called in the background. Raises NodeUnreachable."""
        ...

    async def heads(self) -> Heads:
        """Newest and final height. Raises NodeUnreachable."""
        ...

    async def next_slot(self, address: str, *, block: int | None = None) -> int:
        """The node's floor for the next slot (EVM: count of mined nonces), newest or at the end of a block. Raises NodeUnreachable."""
        ...

    def bind(self, payments: Sequence[Payment], token: Token, lane: LaneView, fees: FeeEstimate, *, attempt_id: int) -> Intent:
        """Pure: choose the lane's slot and say what will be signed; never asks database or node."""
        ...

    def bump(self, intent: Intent, fees: FeeEstimate | None, *, version: int, cancel: bool = False) -> Intent | None:
        """Pure: the next version on the same slot at a fee that nodes must take, or None when the cap forbids it."""
        ...

    async def submit(self, raw: bytes) -> Submission:
        """Give the bytes to the nodes; safe to repeat. Never raises for a node's fault: that is UNKNOWN."""
        ...

    async def observe(self, versions: Sequence[VersionView]) -> Observation:
        """What became of an attempt. Raises NodeUnreachable when nobody answers."""
        ...

    async def balance(self, address: str, token: Token, *, block: int) -> int:
        """Base units of the token at the end of that block. Raises NodeUnreachable."""
        ...
