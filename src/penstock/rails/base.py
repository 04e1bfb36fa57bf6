"""The verbs of a rail and the words in which a chain answers.

Whatever a node says is mapped here to one of few outcomes, and whatever cannot be mapped is *unknown*: a timeout,
an error text or a miss in the mempool proves nothing (failure model, R1).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import msgspec

from penstock.core.event import Observation
from penstock.core.intent import Intent, Payment, Resource
from penstock.core.money import Network, Token


class InvalidDestination(ValueError):
    """The address is not one that this network can pay; the text says what is wrong and what would be right."""


def check_characters(text: str) -> None:
    """What holds for an address of every network: nothing around it, and plain ASCII alone. Raises InvalidDestination."""
    if text != text.strip():
        raise InvalidDestination("The address has a space or line break at its beginning or end; remove it.")
    for position, character in enumerate(text[:100], start=1):
        if not "!" <= character <= "~":
            raise InvalidDestination(
                f"Character {position} of the address is not a plain ASCII letter or digit (it may only look like one); "
                "copy the address again from its source."
            )


class OwnAddress(InvalidDestination):
    """The address is the house's own, or a token contract: coins sent there are lost or go round in a circle."""


class MemoRequired(ValueError):
    """The destination demands a memo or tag and none was given."""


class TooLittle(ValueError):
    """Less than the network lets anybody pay there; the text names its rule and the least."""


class NodeUnreachable(Exception):
    """No configured node gave a usable answer. Says nothing about any transaction."""


class PostFailed(Exception):
    """No answer came: refused, reset, timed out, too large. The text names the kind and never the address."""


class WrongNetwork(NodeUnreachable):
    """A node serves another chain id or genesis than configured; it is never used."""


class Unpayable(Exception):
    """A payment that cannot be made now, though the destination is well formed; the text says why. Nothing was bound or sent.

    `for_ever`: nothing that may change will make it payable (an invoice that expired). `short`: coins are what is missing.
    """

    def __init__(self, text: str, *, for_ever: bool = False, short: bool = False) -> None:
        super().__init__(text)
        self.for_ever = for_ever
        self.short = short


class CannotOpen(Exception):
    """Tokens cannot be opened on this network yet; the text says what has to be done first."""


class NotEnough(Exception):
    """The lane has no coins free that could make this transaction; the text says what is missing. Fewer payments may fit."""


class Destination(msgspec.Struct, frozen=True, gc=False):
    """A recipient in the network's canonical form.

    `units` is what it asks for by itself, in base units of its token (an invoice's amount), None where any amount will do.
    `once` names what may be paid only once for ever, by anyone ("lightning:<payment hash>"), "" where there is no such thing.
    """

    address: str
    memo: str = ""
    units: int | None = None
    once: str = ""


@dataclass(frozen=True, slots=True)
class FeeEstimate:
    """What one plain transfer of `token_id` costs now.

    `cost` is the expected whole fee, `fee_cap` the most that a version may ever be allowed to cost, both in base units of the
    native coin. `terms` are ready for an Intent. Holds until `holds_until_ms` (Unix milliseconds). `together`: the most payments of this
    token that one transaction may make, this one among them.
    """

    token_id: str
    cost: int
    fee_cap: int
    terms: Mapping[str, int]
    at_ms: int
    holds_until_ms: int
    together: int = 1


@dataclass(frozen=True, slots=True)
class Heads:
    """Heights of one network: the newest block, and the newest that can never be undone (Lightning: its node's block height twice)."""

    head: int
    final: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a hot address holds at the end of one final block, exactly.

    `units` by token id. `slots_used` counts the slots that the chain had used by then and `slots_mined` those by now, where it numbers
    them (EVM: nonces); both None elsewhere. `coins` are the single coins, where the chain keeps money in such (Bitcoin): final, and
    not known to be spent, also not by what only waits. `block` may be any number that rises with the chain; entries of `Final`
    observations carry numbers of the same kind. `clocked`: the chain has no such numbers, and `block` is our own clock in milliseconds. `steady` False: amounts are on the move
    and cannot be compared with books now.
    """

    block: int
    units: Mapping[str, int]
    slots_used: int | None = None
    slots_mined: int | None = None
    coins: tuple[Resource, ...] = ()
    clocked: bool = False
    steady: bool = True


@dataclass(frozen=True, slots=True)
class LaneView:
    """A hot address as `bind` sees it. `slot` is the next free one; `coins` are those that no attempt has ever owned. `spendable` is what
    the books leave it of each token id, live attempts taken off; None where nobody has counted.
    """

    chain: str
    address: str
    slot: int
    coins: tuple[Resource, ...] = ()
    spendable: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class VersionView:
    """A signed transaction as `observe` sees it: own id, own bytes, and the intent it was built from.

    `given`: nodes may have its bytes. False only where a rail that `Withholds` never had them given, by a record of before the first call.
    """

    number: int
    txid: str
    raw: bytes
    intent: Intent
    given: bool = True


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
    """A rail whose fee or whose consent depends on the recipient: asked after the estimate and before `bind`, outside of any transaction."""

    async def prepare(self, payments: Sequence[Payment], token: Token, sender: str, fees: FeeEstimate) -> list[FeeEstimate | Unpayable]:
        """For each payment, in order: `fees` with what its own recipient needs, or why it cannot be paid. Raises NodeUnreachable."""
        ...


@runtime_checkable
class Clocked(Protocol):
    """A rail that puts what happened in order by its own clock, because its network has no blocks to do that by."""

    def begin_after(self, moment_ms: int) -> None:
        """The books know this moment of its clock (Unix milliseconds): later ones follow it, though the wall clock was set back meanwhile."""
        ...


@runtime_checkable
class Opens(Protocol):
    """A rail whose hot address must say something once of each token before it can be used there (XRP Ledger: a trust line to its issuer) or be
    paid to many at once (EVM: an allowance).
    """

    async def unopened(self, address: str, tokens: Sequence[Token]) -> list[Token]:
        """Those of the tokens for which it has not said so yet. Raises NodeUnreachable or CannotOpen."""
        ...

    def open(self, token: Token, lane: LaneView, fees: FeeEstimate, *, attempt_id: int) -> Intent:
        """Pure: the intent of kind "open" that says it of one token, without payments."""
        ...


@runtime_checkable
class Batches(Protocol):
    """A rail whose transactions can pay many orders at once, where an estimate says so."""

    @property
    def window_ms(self) -> int:
        """How long the oldest order waits for company, in milliseconds; 0: not at all."""
        ...


@runtime_checkable
class Withholds(Protocol):
    """A rail whose bytes are given for a limited time, after which no absence proves that they were not (Lightning).

    That they are given is therefore committed before the first call, so that what has no such record is known to be with nobody.
    """

    async def withheld(self, raw: bytes) -> str:
        """Why `submit` would give these bytes to no node now, "" when it may. Never raises for a node's fault: that is a reason."""
        ...


class Rail(Protocol):
    """One network. Every number a node gives is bounded before it is believed. Rails inherit from this for `look_up`'s sake."""

    @property
    def network(self) -> Network:
        """The network this rail serves."""
        ...

    def parse_destination(self, text: str, memo: str) -> Destination:
        """Pure. Raises InvalidDestination or MemoRequired."""
        ...

    async def look_up(self, destination: Destination, token: Token, units: int) -> None:
        """While an order is accepted: what keeps the network from paying so many base units there: dust, an account that has to be made
        first, the recipient's own rules (XRP Ledger: RequireDest). Nothing, unless a rail says otherwise. From memory where it can be, and
        never for longer than a caller waits: where nobody answers the order is accepted, and `prepare` asks again. Raises
        InvalidDestination, MemoRequired, TooLittle or NodeUnreachable.
        """
        del destination, token, units

    async def estimate(self, token: Token) -> FeeEstimate:
        """Read only, called in the background. Raises NodeUnreachable."""
        ...

    async def heads(self) -> Heads:
        """Newest and final height. Raises NodeUnreachable."""
        ...

    async def holdings(self, address: str, tokens: Sequence[Token]) -> Holdings:
        """What the address holds of these tokens at one final block of the rail's choice, the newest that enough nodes agree on.
        Raises NodeUnreachable.
        """
        ...

    def bind(self, payments: Sequence[Payment], token: Token, lane: LaneView, fees: FeeEstimate, *, attempt_id: int) -> Intent:
        """Pure: choose the lane's slot and resources and say what will be signed; never asks database or node. The intent's `fee_cap`
        bounds the whole transaction, however many payments it makes. Raises NotEnough, or Unpayable for a single payment.
        """
        ...

    def bump(self, intent: Intent, fees: FeeEstimate | None, *, version: int, cancel: bool = False) -> Intent | None:
        """Pure: the next version on the same slot and resources at a fee that nodes must take, with a new expiry where there is one; or
        None when the cap forbids it.
        """
        ...

    async def submit(self, raw: bytes) -> Submission:
        """Give the bytes to the nodes; safe to repeat. Never raises for a node's fault: that is UNKNOWN."""
        ...

    async def observe(self, versions: Sequence[VersionView]) -> Observation:
        """What became of an attempt. `Pending(stuck=True)` asks for a bump; `Dead` retires the attempt and its orders get another one, so
        it needs proof for every version. Raises NodeUnreachable when nobody answers.
        """
        ...
