"""What the signer remembers of some intents: their attempts, who holds each slot, resource and order, who is dead, and what of it is new.

`signer/index` makes one for each call, from what the journal says of these intents, and keeps what is new in it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from penstock.core.canonical import canonical_sorted
from penstock.core.intent import Intent, Payment
from penstock.signer.families import FAMILIES
from penstock.signer.journal import JournalBroken
from penstock.signer.policy import counted
from penstock.signer.switch import Turn

_MAY_DIFFER: Final = ("version", "kind", "terms")
_THE_SAME: Final = tuple(name for name in Intent.__struct_fields__ if name not in _MAY_DIFFER)
_SWITCHED: Final = ("stop", "go")


@dataclass(slots=True)
class Attempt:
    """What the journal knows of an attempt: what never changes, when all has expired, and each version's digest and transaction id."""

    base: bytes
    expires_ms: int | None
    versions: dict[int, tuple[bytes, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Noted:
    """A version that is signed, with the digests by which it is known: over all of it, and over what is the same in each version."""

    intent: Intent
    txid: str
    at_ms: int
    digest: bytes
    base: bytes
    names: Sequence[str]

    @classmethod
    def of(cls, intent: Intent, txid: str, at_ms: int) -> Noted:
        """Makes digests and names."""
        return cls(intent, txid, at_ms, digest_of(intent), base_of(intent), names_of(intent))


@dataclass(frozen=True, slots=True)
class Buried:
    """That an attempt is dead."""

    attempt_id: int


class Memory:
    """What is known of some attempts and names, and what was noted since, in order."""

    def __init__(self) -> None:
        self.attempts: dict[int, Attempt] = {}
        self.holders: dict[str, int] = {}
        self.dead: set[int] = set()
        self.fresh: list[Noted | Buried | Turn] = []
        self.first: list[Noted] = []
        """Of what is new, the first versions: caps count an attempt once."""
        self.counted: Counter[str] = Counter()
        """What these count as, and how much of it."""

    def note(self, told: Noted | Buried | Turn) -> None:
        """Remember what the journal says, or will say before a signature leaves."""
        self.fresh.append(told)
        if isinstance(told, Noted):
            self._note_version(told)
        elif isinstance(told, Buried):
            self.dead.add(told.attempt_id)

    def _note_version(self, noted: Noted) -> None:
        intent = noted.intent
        expires_ms = FAMILIES[intent.family].expires_ms(intent)
        attempt = self.attempts.get(intent.attempt_id)
        if attempt is None:
            self.first.append(noted)
            what, units = counted(intent)
            self.counted[what] += units
            attempt = self.attempts[intent.attempt_id] = Attempt(noted.base, expires_ms)
        if attempt.expires_ms is not None:
            attempt.expires_ms = None if expires_ms is None else max(attempt.expires_ms, expires_ms)
        attempt.versions[intent.version] = (noted.digest, noted.txid)
        self.holders.update(dict.fromkeys(noted.names, intent.attempt_id))


def told_by(entry: Mapping[str, Any], number: int) -> Noted | Buried | Turn:
    """What an entry of the journal says. Raises JournalBroken."""
    try:
        kind = entry["kind"]
        if kind == "death":
            return Buried(int(entry["attempt_id"]))
        if kind in _SWITCHED:
            return Turn(str(entry["id"]), kind == "stop", str(entry["reason"]))
        intent = msgspec.convert(entry["intent"], Intent)
        txid, at_ms = str(entry["txid"]), int(entry.get("at_ms", 0))
    except (KeyError, TypeError, ValueError) as error:
        raise JournalBroken(f"journal entry {number} cannot be read") from error
    if kind != "sign" or intent.family not in FAMILIES:
        raise JournalBroken(f"journal entry {number} is of a kind that this version does not know; use the version that wrote it")
    return Noted.of(intent, txid, at_ms)


def digest_of(intent: Intent) -> bytes:
    """By which a version is known."""
    return hashlib.sha256(canonical_sorted(intent)).digest()


def base_of(intent: Intent) -> bytes:
    """A digest over all that must be the same in every version of an attempt."""
    return hashlib.sha256(canonical_sorted({name: getattr(intent, name) for name in _THE_SAME})).digest()


def owned(intent: Intent) -> list[tuple[str, str]]:
    """The slot and the resources of an intent: what each is called, and its name for ever, under the sender."""
    where = f"held {intent.family} {intent.chain_id} {intent.sender} "
    called = [f"slot {intent.slot}", *(resource.name for resource in intent.resources)]
    return [(one, where + one) for one in called]


def orders(payment: Payment) -> list[str]:
    """What an order is known by: our id, and the merchant's name of it."""
    mine = f"order {payment.order_id}"
    return [mine, f"key {payment.key}"] if payment.key else [mine]


def names_of(intent: Intent) -> list[str]:
    """All that one attempt alone may have."""
    return [*(name for _, name in owned(intent)), *(name for payment in intent.payments for name in orders(payment))]
