"""The intent: what the order room, the rail and the signer agree on, in plain values that serialise.

The signer builds the transaction itself from these values and checks it against them; no interface takes a digest
and none takes a key (architecture, section 5).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

Kind = Literal["pay", "cancel"]


@dataclass(frozen=True, slots=True)
class Payment:
    """One recipient of a transaction. `units` are base units of the intent's token."""

    order_id: int
    recipient: str
    memo: str
    units: int


@dataclass(frozen=True, slots=True)
class Intent:
    """One version of one attempt: everything the transaction says, before it is bytes.

    `slot` is the conflict resource on the lane (EVM: the nonce). `terms` are the family's fee fields in the native
    coin's base units (EVM: gas_limit and either max_fee_per_gas and max_priority_fee_per_gas, or gas_price).
    `fee_cap` bounds the whole native fee of every version. A version differs from the first only in `version`,
    `kind` and `terms`.
    """

    attempt_id: int
    version: int
    kind: Kind
    chain: str
    family: str
    chain_id: int
    sender: str
    slot: int
    token_id: str
    contract: str | None
    payments: tuple[Payment, ...]
    terms: Mapping[str, int]
    fee_cap: int

    def to_json(self) -> str:
        """Canonical text: the same intent is the same bytes."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Intent:
        """The inverse of `to_json`."""
        fields = json.loads(text)
        fields["payments"] = tuple(Payment(**payment) for payment in fields["payments"])
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Signed:
    """One signed transaction: its bytes and the id that we computed ourselves."""

    attempt_id: int
    version: int
    txid: str
    raw: bytes


class SignRefused(Exception):
    """The signer will not sign this intent; `args[0]` says which rule it breaks. Nothing was signed."""


class Signer(Protocol):
    """Holds the keys. The same intent always gives the same bytes; a second intent for an attempt is refused."""

    async def sign(self, intents: list[Intent]) -> list[Signed]:
        """Sign all or raise SignRefused naming the first one refused."""
        ...

    async def address(self, family: str, lane: int) -> str:
        """The hot address of a lane of a chain family, as that chain writes it."""
        ...
