"""What every network in a box is, whatever its family: nodes that answer HTTP, faults that break them, and knobs.

The server, the control API and a simulation know networks by these words alone. No socket and no clock here: a network is driven by the
clock it was born with, and makes the blocks that are due before it answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

NODES_MAX: Final = 16
COUNT_MAX: Final = 10_000
CLIENT_VERSION: Final = "penstock-devnet/1 (a network in a box, not a real network)"

Breakage = Literal["500", "503", "reset", "timeout"]
"""How an answer fails to come: two HTTP errors, a connection cut, or nothing at all."""

Keep = Literal["keep", "drop", "reorder"]
"""What becomes of the transactions of blocks that a fork undoes: again in the new blocks, forgotten, or one block later and newest first."""


class BadCommand(ValueError):
    """A command that cannot be done; the text says what would be right."""


class Broken(Exception):
    """There is no answer; `how` says what the caller sees instead."""

    def __init__(self, how: Breakage) -> None:
        super().__init__(how)
        self.how = how


@dataclass(slots=True)
class Faults:
    """What is wrong with one node. All defaults: nothing. A family may add its own.

    `drop`: so many of the next submissions are acknowledged and lost. `delay_ms`: submissions reach the network later by this.
    `duplicate`: so many of the next submissions reach the network twice. `break_after`: so many of the next submissions are taken, and
    then answered by `breakage`. `down`: every call is answered so (a stopped node: "reset"). `lag`: the newest blocks that the node does
    not have yet. `chain_id`: the network it claims to be (0: the truth). `blind`: it knows no transaction.
    """

    drop: int = 0
    delay_ms: int = 0
    duplicate: int = 0
    break_after: int = 0
    breakage: Breakage = "500"
    down: Breakage | Literal[""] = ""
    lag: int = 0
    chain_id: int = 0
    blind: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request to one node. `path` is what follows the node's own address, "" or "/wallet/getnowblock"; header names in lower case."""

    body: bytes = b""
    path: str = ""
    method: str = "POST"
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Response:
    """What a node answers."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"


class Arguments:
    """What a command says beside its verb: each argument is read typed, and none is left over."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given

    def only(self, known: str) -> Arguments:
        """Itself, when it has no other argument than these. Raises BadCommand."""
        if unknown := sorted(set(self._given) - set(known.split())):
            raise BadCommand(f"'{unknown[0]}' is no argument here; known are {known or 'none'}")
        return self

    def number(self, name: str, default: int | None = None, *, most: int = 2**256 - 1) -> int:
        """A whole number, given as number or text. Raises BadCommand."""
        value = self._given.get(name, default)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 78:
            value = int(value)
        if type(value) is not int or not 0 <= value <= most:
            raise BadCommand(f"'{name}' is a whole number from 0 to {most}, given as number or text")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        """A text. Raises BadCommand."""
        value = self._given.get(name, default)
        if not isinstance(value, str):
            raise BadCommand(f"'{name}' is a text")
        return value


Verb = Callable[[Arguments], dict[str, Any]]


class BoxNode(Protocol):
    """One node of a network: it tells the truth, or what its faults make of it."""

    faults: Any
    """A `Faults`, or the family's own kind of it; to be replaced whole, or changed in place."""

    def answer(self, request: Request) -> Response:
        """The answer to one HTTP request. Raises Broken when none comes."""
        ...


class BoxNetwork(Protocol):
    """One network; its first node is served at /NAME, the others at /NAME/1 and so on."""

    @property
    def name(self) -> str:
        """As the wire calls it: ETH, TRX, BTC."""
        ...

    @property
    def nodes(self) -> Sequence[BoxNode]:
        """At least one."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """What `networks.NAME` of the gateway's settings needs: chain_id always; `rpc_url` is the form of a node's address there, with
        {url} in it, where that is more than the plain one.
        """
        ...

    @property
    def verbs(self) -> Mapping[str, Verb]:
        """Knobs of this family beyond the common ones."""
        ...

    def tick(self) -> None:
        """Make the blocks that are due by now."""
        ...

    def status(self) -> dict[str, Any]:
        """What a person wants to know: chain_id, head, final, block_ms, what waits, the faucet, tokens."""
        ...

    def fund(self, address: str, units: int, contract: str | None = None) -> str:
        """Send base units of the native coin, or of a token, from the faucet by a real transaction; its id. Raises ValueError."""
        ...

    def holding(self, address: str, contract: str | None = None) -> int:
        """Base units that an address really has at the head, unspoilt by any fault."""
        ...

    def mine(self, count: int = 1) -> int:
        """Make blocks now, whatever the schedule; the new height."""
        ...

    def set_block_time(self, block_ms: int) -> None:
        """Make blocks at another pace from now on; 0 for only on demand."""
        ...

    def fork(self, depth: int, transactions: Keep = "keep") -> int:
        """Undo `depth` blocks and let a branch win that is longer; the new height. Raises ValueError when that cannot be."""
        ...

    def forget(self, txid: str) -> bool:
        """Drop a transaction from the mempool, as nodes may do; whether it was there."""
        ...

    def spike(self, factor: int) -> None:
        """Multiply what the network asks as fee; 1 is the usual price. Raises ValueError."""
        ...
