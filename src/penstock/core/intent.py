"""The intent: what the order room, the rail and the signer agree on, in plain values that serialise.

The signer builds the transaction itself from these values and checks it against them; no interface takes a digest
and none takes a key (architecture, section 5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import msgspec

from penstock.core.canonical import canonical_sorted

Kind = Literal["pay", "cancel", "open"]
"""Pay recipients; use the resource up without paying; or let the hot address hold a token (XRP Ledger: a trust line), for no order."""


class Payment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """One recipient of a transaction. `units` are base units of the intent's token; `weight` is this payment's part of what the
    transaction weighs, where many share its fee (Bitcoin: weight units), and decides nothing but how the fee is shown. `key` is the
    merchant's own name of the order ("MERCHANT_ID/MERCHANT_ORDER_ID") and `seal` what `core.seal` made of all this when the order was
    accepted; both are "" in journals of before.
    """

    order_id: int
    recipient: str
    memo: str
    units: int
    weight: int = 1
    key: str = ""
    seal: str = ""


class Resource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What an attempt owns for ever beside its slot, by the chain's own name, so that no other attempt can use it.

    Bitcoin: each outpoint it spends ("txid:vout", `units` in satoshi; the first is the anchor). Lightning: the payment hash (0 units).
    """

    name: str
    units: int = 0


class Intent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """One version of one attempt: everything the transaction says, before it is bytes.

    `slot` is the conflict resource on the lane where the chain numbers them (EVM: nonce, XRP Ledger: sequence), else our own count;
    `resources` are what it owns beside that. `terms` are the family's own whole numbers that make the bytes complete: fee fields in
    the native coin's base units (EVM: gas_limit and either max_fee_per_gas and max_priority_fee_per_gas, or gas_price), and what
    bounds its life (TRON: reference block and expiration; XRP Ledger: last ledger). `fee_cap` bounds the whole native fee of every
    version. A version differs from the first only in `version`, `kind` and `terms`.
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
    resources: tuple[Resource, ...] = ()

    def to_json(self) -> str:
        """Canonical text: the same intent is the same bytes."""
        return canonical_sorted(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Intent:
        """The inverse of `to_json`. Raises ValueError for what is no JSON, or has other fields or kinds of values."""
        return _INTENT.decode(text)


_INTENT: Final = msgspec.json.Decoder(Intent)


class Signed(msgspec.Struct, frozen=True, gc=False):
    """One signed transaction: its bytes and the id that we computed ourselves."""

    attempt_id: int
    version: int
    txid: str
    raw: bytes


class Death(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """That no version of an attempt can ever land, and why in words: what the signer must know before it signs another for its order."""

    attempt_id: int
    proof: str


class SignRefused(Exception):
    """The signer will not sign this intent; `args[0]` says which rule it breaks. Nothing was signed."""


class SignLater(SignRefused):
    """Nothing is wrong with the intent: it waits and is asked again. `everything`: nothing at all is signed now (somebody stopped the
    signer, or it does not answer), else this one alone is put off.
    """

    def __init__(self, text: str, *, everything: bool) -> None:
        super().__init__(text)
        self.everything = everything


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether the signer would sign: why nothing at all, "" when it would; and by coin symbol how many ledger units its caps leave now, and
    how many one order may have.
    """

    stopped: str
    left: Mapping[str, int]
    order_max: Mapping[str, int] = field(default_factory=dict)


class JournalEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What the signer noted, in the order of its journal: `number` counts from 1, `hash` is over this entry and all before it, hexadecimal.

    "sign": a version that it signed, with its transaction id. "death": `attempt_id` is buried, `text` is the proof. "stop" and "go": a
    turn of its switch, `text` is the reason.
    """

    number: int
    hash: str
    kind: Literal["sign", "death", "stop", "go"]
    at_ms: int
    attempt_id: int = 0
    intent: Intent | None = None
    txid: str = ""
    text: str = ""


class Key(Protocol):
    """A private key on secp256k1 that stays where it is."""

    @property
    def public_key(self) -> bytes:
        """65 bytes, uncompressed."""
        ...

    def sign(self, digest: bytes) -> tuple[int, int, int]:
        """Recovery bit, r and s of a deterministic (RFC 6979), low-s signature of 32 bytes."""
        ...


class Codec(Protocol):
    """What a chain family gives the signer: a module of pure functions, rails/FAMILY/codec.py.

    The signer builds the bytes with `sign`, then reads them again as a stranger would with `broken_rules`. Neither ever takes bytes or
    a digest from outside.
    """

    def path(self, chain_id: int, lane: int) -> str:
        """BIP-32 path of a lane's key."""
        ...

    def address(self, public_key: bytes, chain_id: int) -> str:
        """The hot address of a key (65 bytes, uncompressed), as the network writes it."""
        ...

    def same_address(self, one: str, other: str) -> bool:
        """Whether two texts are one account (letter case, X-address and classic, hex and base58)."""
        ...

    def sign(self, intent: Intent, key: Key) -> Signed:
        """Build and sign; the same intent gives the same bytes. Raises ValueError when the intent cannot be this family's."""
        ...

    def broken_rules(self, intent: Intent, signed: Signed) -> list[str]:
        """What in the bytes is not exactly what the intent says: kind, sender, recipients, amounts, contract, network, slot, fee cap,
        expiry, id; empty when all is right. Raises ValueError for bytes that cannot be read.
        """
        ...

    def expires_ms(self, intent: Intent) -> int | None:
        """Unix milliseconds of the chain's clock after which no version can land; None where nothing expires."""
        ...


class OfflineCodec(Protocol):
    """A family whose transactions can be signed elsewhere (Bitcoin: BIP-174)."""

    def export_psbt(self, intent: Intent, *, public_key: bytes, fingerprint: str, path: str) -> str:
        """The unsigned transaction with all that a signer needs to check it. Raises ValueError."""
        ...

    def import_psbt(self, intent: Intent, text: str) -> Signed:
        """The signed transaction, exactly what the intent says. Raises ValueError."""
        ...


class Signer(Protocol):
    """Holds the keys. The same intent always gives the same bytes; a second intent for an attempt is refused, and so is a second
    attempt of an order whose first was not buried.
    """

    async def sign(self, intents: list[Intent]) -> list[Signed]:
        """Sign all or raise SignRefused naming the first one refused, SignLater where it should just be asked again."""
        ...

    async def bury(self, deaths: list[Death]) -> None:
        """Note for ever that these attempts are dead: they are never signed again, and their orders may be. Raises SignRefused for one
        whose bytes may still land by the signer's own clock.
        """
        ...

    async def standing(self) -> Standing:
        """What it would sign now."""
        ...

    async def entries(self, after: int) -> list[JournalEntry]:
        """The next page of its journal behind the entry of that number, in order; empty at the end. Raises SignLater when it is away."""
        ...

    def export(self, intent: Intent) -> str:
        """The transaction of an intent for an offline signer. Raises ValueError where the family has no such form."""
        ...

    def check_export(self, intent: Intent, text: str) -> Signed:
        """What an offline signer made of it, exactly what the intent says. Raises ValueError."""
        ...

    async def address(self, chain: str, lane: int) -> str:
        """The hot address of a lane of a network, as that network writes it."""
        ...

    def addresses(self, chain: str) -> list[str]:
        """Every hot address that the network can have here, whether it is used or not: one that is ours is no recipient."""
        ...
