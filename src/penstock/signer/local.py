"""The signer itself: intents in, signed bytes out, every rule checked on the bytes themselves.

What it promises, whatever anybody asks of it:
  one intent for an attempt for ever; later versions differ in version, kind and terms alone; the same intent gives the same bytes
  one attempt for a slot or resource of a sender, and for an order one at a time: another only when the first was buried; the merchant's
  name of the order counts as much as our id of it
  only orders that carry the seal of who accepted them
  only plain transfers and own cancels, of tokens that are pinned, on networks that are pinned, at a fee not above the cap
  no order above its cap, and not more of a coin within 24 hours than the caps say; nothing at all while the switch says stop
  the journal holds an intent before its signature leaves
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

from penstock.core.canonical import canonical_sorted
from penstock.core.intent import Death, Intent, JournalEntry, Payment, Signed, SignLater, SignRefused, Standing
from penstock.core.seal import OrderSeal
from penstock.runtime import Runtime
from penstock.signer.addresses import PublicAddresses
from penstock.signer.families import FAMILIES, LANES
from penstock.signer.journal import Journal, JournalBroken
from penstock.signer.keys import LaneKey, check_library, lane_keys, public_keys
from penstock.signer.policy import AllowedNetwork, Caps, Spent
from penstock.signer.seed import Seed
from penstock.signer.switch import Turn

_MAY_DIFFER: Final = ("version", "kind", "terms")
_THE_SAME: Final = tuple(one.name for one in fields(Intent) if one.name not in _MAY_DIFFER)
_SWITCHED: Final = ("stop", "go")
_NO_CAPS: Final = Caps()
_INTENT_BYTES_MAX: Final = 512 * 1024
"""In ASCII, as the journal has it: a line holds that, with room for dearer versions. A Bitcoin transaction for 500 orders needs 300 KiB."""
_PROOF_MAX: Final = 1_000
_OPENS_A_DAY: Final = 5
"""How often a token may be opened: more would only burn fees."""


@dataclass(slots=True)
class _Attempt:
    """What the journal knows of an attempt: what never changes, each version's digest and transaction id, and when all have expired."""

    base: bytes
    expires_ms: int | None
    versions: dict[int, tuple[bytes, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Noted:
    """A version that is signed, with the digests by which it is known: over all of it, and over what is the same in each version."""

    intent: Intent
    txid: str
    at_ms: int
    digest: bytes
    base: bytes

    @classmethod
    def of(cls, intent: Intent, txid: str, at_ms: int) -> _Noted:
        """Makes the digests."""
        return cls(intent, txid, at_ms, _digest(intent), _base(intent))


class _Memory:
    """Attempts, slots, resources and orders, as the journal tells them."""

    def __init__(self, caps: Caps) -> None:
        self._caps = caps
        self.spent = Spent()
        self.stopped = ""
        self.turns: set[str] = set()
        self.attempts: dict[int, _Attempt] = {}
        self.owners: dict[tuple[str, int, str, str], int] = {}
        self.orders: dict[int | str, int] = {}
        self.dead: set[int] = set()

    def turned(self, turn: Turn) -> None:
        """Remember a turn of the switch."""
        self.turns.add(turn.id)
        self.stopped = turn.reason if turn.stop else ""

    def note(self, noted: _Noted) -> None:
        """Remember a version."""
        intent = noted.intent
        expires_ms = FAMILIES[intent.family].expires_ms(intent)
        attempt = self.attempts.get(intent.attempt_id)
        if attempt is None:
            self.spent.note(*_counted(self._caps, intent), noted.at_ms)
            attempt = self.attempts[intent.attempt_id] = _Attempt(noted.base, expires_ms)
        if attempt.expires_ms is not None:
            attempt.expires_ms = None if expires_ms is None else max(attempt.expires_ms, expires_ms)
        attempt.versions[intent.version] = (noted.digest, noted.txid)
        self.owners.update(dict.fromkeys(_owned(intent), intent.attempt_id))
        self.orders.update((name, intent.attempt_id) for payment in intent.payments for name in _names(payment))


class LocalSigner(PublicAddresses):
    """`core.intent.Signer` with the keys in this process. Give it a journal that nobody else writes."""

    def __init__(
        self,
        seed: Seed,
        journal: Journal,
        runtime: Runtime,
        allowed: Mapping[str, AllowedNetwork],
        seal: OrderSeal,
        *,
        caps: Caps = _NO_CAPS,
        switch: Callable[[], Turn | None] = lambda: None,
    ) -> None:
        """Read the journal and check the curve library. Raises JournalBroken or KeysUnusable."""
        super().__init__(public_keys(seed), allowed)
        check_library()
        self._journal = journal
        self._runtime = runtime
        self._seal = seal
        self._caps = caps
        self._switch = switch
        self._senders = self._all_senders(lane_keys(seed))
        self._memory = _Memory(caps)
        for number, entry in enumerate(journal.entries(), start=1):
            self._restore(entry, number)

    def _all_senders(self, keys: Mapping[str, LaneKey]) -> dict[str, dict[str, LaneKey | None]]:
        """The addresses that may pay on each network, and their keys where those are ours."""
        found: dict[str, dict[str, LaneKey | None]] = {}
        for chain, network in self._allowed.items():
            lanes = range(0 if network.node else LANES[network.family])
            own = {self._address(network, lane): keys[self._lane_path(network, lane)] for lane in lanes}
            found[chain] = {network.node: None} if network.node else dict(own)
        return found

    def _restore(self, entry: Mapping[str, Any], number: int) -> None:
        try:
            kind = entry["kind"]
            if kind == "death":
                self._memory.dead.add(int(entry["attempt_id"]))
                return
            if kind in _SWITCHED:
                self._memory.turned(Turn(str(entry["id"]), kind == "stop", str(entry["reason"])))
                return
            intent = Intent.from_record(entry["intent"])
            txid, at_ms = str(entry["txid"]), int(entry.get("at_ms", 0))
        except (KeyError, TypeError, ValueError) as error:
            raise JournalBroken(f"journal entry {number} cannot be read") from error
        if kind != "sign" or intent.family not in FAMILIES:
            raise JournalBroken(f"journal entry {number} is of a kind that this version does not know; use the version that wrote it")
        self._memory.note(_Noted.of(intent, txid, at_ms))

    async def standing(self) -> Standing:
        """What it would sign now. Raises JournalBroken when a turn of the switch cannot be recorded."""
        return await self._runtime.in_thread("signer", self._standing)

    def _standing(self) -> Standing:
        now_ms, spent = self._runtime.now_ms(), self._memory.spent
        left = {coin: max(0, cap - spent.within_a_day(coin, now_ms)) for coin, cap in self._caps.day_max.items()}
        stopped = self._stopped()
        return Standing(f"the signer is stopped: {stopped}" if stopped else "", left)

    def _stopped(self) -> str:
        """Read the switch, and note a turn that the journal does not know yet."""
        said = self._switch()
        if said is not None and said.id not in self._memory.turns:
            if said.id == "":
                return said.reason
            entry = {"kind": "stop" if said.stop else "go", "at_ms": self._runtime.now_ms(), "id": said.id, "reason": said.reason}
            self._journal.append([entry])
            self._memory.turned(said)
        return self._memory.stopped

    def _check_switch(self) -> None:
        if reason := self._stopped():
            raise SignLater(f"the signer is stopped: {reason}", everything=True)

    async def entries(self, after: int) -> list[JournalEntry]:
        """A page of the journal. Raises JournalBroken when the file was altered since it was read."""
        page = await self._runtime.in_thread("signer", lambda: self._journal.page(after))
        return [_told(number, link, entry) for number, link, entry in page]

    async def bury(self, deaths: list[Death]) -> None:
        """Note deaths, all or none. Raises SignRefused for an attempt that may still land, JournalBroken when nothing can be recorded."""
        await self._runtime.in_thread("signer", lambda: self._bury(deaths))
        self._runtime.crash_point("signer:buried")

    def _bury(self, deaths: Sequence[Death]) -> None:
        now_ms = self._runtime.now_ms()
        fresh = [death for death in deaths if death.attempt_id not in self._memory.dead]
        for death in fresh:
            attempt = self._memory.attempts.get(death.attempt_id)
            if attempt is not None and attempt.expires_ms is None:
                raise SignRefused(f"attempt {death.attempt_id}: what was signed for it never expires")
            if attempt is not None and attempt.expires_ms is not None and now_ms <= attempt.expires_ms:
                raise SignRefused(f"attempt {death.attempt_id}: what was signed for it has not expired by this clock")
        if fresh:
            self._journal.append(
                [{"kind": "death", "at_ms": now_ms, "attempt_id": d.attempt_id, "proof": d.proof[:_PROOF_MAX]} for d in fresh]
            )
        self._memory.dead.update(death.attempt_id for death in fresh)

    async def sign(self, intents: list[Intent]) -> list[Signed]:
        """Sign all, or none and raise SignRefused naming the first one refused. Raises JournalBroken when nothing can be recorded."""
        signed = await self._runtime.in_thread("signer", lambda: self._sign(intents))
        self._runtime.crash_point("signer:journaled")
        return signed

    def _sign(self, intents: Sequence[Intent]) -> list[Signed]:
        """On the one signer thread: check, build, check again, record, and only then hand out."""
        self._check_switch()
        at_ms = self._runtime.now_ms()
        fresh: list[_Noted] = []
        seen = _Memory(self._caps)
        signed = []
        for intent in intents:
            try:
                new = self._check(intent, seen)
                result = self._make(intent)
                self._check_repeat(intent, result, seen)
                if new:
                    self._check_day(intent, seen, at_ms)
            except SignLater as later:
                raise SignLater(f"attempt {intent.attempt_id} version {intent.version}: {later}", everything=False) from later
            except SignRefused as refusal:
                raise SignRefused(f"attempt {intent.attempt_id} version {intent.version}: {refusal}") from refusal
            signed.append(result)
            if new:
                fresh.append(_Noted.of(intent, result.txid, at_ms))
                seen.note(fresh[-1])
        self._check_switch()  # building many takes a while
        if fresh:
            self._journal.append([{"kind": "sign", "at_ms": at_ms, "intent": n.intent.record(), "txid": n.txid} for n in fresh])
            self._runtime.crash_point("signer:journaled")
        for noted in fresh:
            self._memory.note(noted)
        return signed

    def _check(self, intent: Intent, seen: _Memory) -> bool:
        """Every rule on the intent itself; True when this version is new."""
        self._check_network(intent)
        if intent.attempt_id in self._memory.dead:
            raise SignRefused("the attempt is dead, and nothing is signed for it any more")
        for memory in (self._memory, seen):
            self._check_owner(intent, memory)
        known = {version: said for memory in (self._memory, seen) for version, said in self._versions(memory, intent).items()}
        if intent.version in known:
            if known[intent.version][0] != _digest(intent):
                raise SignRefused("another intent was signed as this version of the attempt")
            return False
        if known and intent.version < max(known):
            raise SignRefused(f"version {max(known)} was signed already, and versions only rise")
        if not known:
            self._check_first(intent)
        return True

    def _check_first(self, intent: Intent) -> None:
        """What holds for the first version holds for all: fee cap and payments never change."""
        if intent.fee_cap > self._allowed[intent.chain].fee_max:
            raise SignRefused(f"the fee cap of {intent.fee_cap} is above the network's {self._allowed[intent.chain].fee_max}")
        if not intent.payments and intent.kind != "open":
            raise SignRefused("it names no order")  # a cancel that answers to none would burn fees slot after slot
        if len(json.dumps(intent.record())) > _INTENT_BYTES_MAX:
            raise SignRefused("the intent is longer than any that a payment needs")
        if too_large := self._caps.order_too_large(intent):
            raise SignRefused(too_large)
        for payment in intent.payments:
            if not self._seal.fits(payment, chain=intent.chain, token_id=intent.token_id):
                raise SignRefused(f"the seal of order {payment.order_id} is not of this payment; was it changed after it was accepted?")

    def _check_day(self, intent: Intent, seen: _Memory, now_ms: int) -> None:
        """A payment that was buried counts on: only the chain knows whether its death was true, and the cap bounds what a lie can take."""
        if intent.attempt_id in self._memory.attempts or intent.attempt_id in seen.attempts:
            return
        symbol, _ = _counted(self._caps, intent)
        spent = sum(memory.spent.within_a_day(symbol, now_ms) for memory in (self._memory, seen))
        if intent.kind == "open" and spent >= _OPENS_A_DAY:
            raise SignRefused(f"{_OPENS_A_DAY} transactions that open this token were signed within 24 hours")
        if full := self._caps.day_full(intent, spent):
            raise SignLater(full, everything=False)

    def _check_owner(self, intent: Intent, memory: _Memory) -> None:
        for key in _owned(intent):
            if (holder := memory.owners.get(key, intent.attempt_id)) != intent.attempt_id:
                raise SignRefused(f"slot or resource {key[-1]} of this sender belongs to attempt {holder}")
        for name in (name for payment in intent.payments for name in _names(payment)):
            holder = memory.orders.get(name, intent.attempt_id)
            if holder != intent.attempt_id and holder not in self._memory.dead:
                raise SignRefused(f"attempt {holder} was signed for this order, and its death is not proved")

    @staticmethod
    def _versions(memory: _Memory, intent: Intent) -> dict[int, tuple[bytes, str]]:
        attempt = memory.attempts.get(intent.attempt_id)
        if attempt is None:
            return {}
        if attempt.base != _base(intent):
            raise SignRefused("another intent was signed for this attempt; versions may differ in version, kind and terms alone")
        return attempt.versions

    def _check_network(self, intent: Intent) -> None:
        network = self._allowed.get(intent.chain)
        if network is None:
            raise SignRefused(f"network {intent.chain} is not configured")
        if (intent.family, intent.chain_id) != (network.family, network.chain_id):
            raise SignRefused(f"chain id {intent.chain_id} is not that of {intent.chain}, {network.chain_id}")
        if intent.token_id not in network.contracts:
            raise SignRefused(f"token {intent.token_id} is not configured on {intent.chain}")
        if intent.contract != network.contracts[intent.token_id]:
            raise SignRefused("the contract is not the token's")
        if intent.sender not in self._senders[intent.chain]:
            raise SignRefused("the sender is not one of this signer's addresses")
        codec = self._codec(network)
        own = [*self._senders[intent.chain], *(contract for contract in network.contracts.values() if contract is not None)]
        if any(codec.same_address(payment.recipient, mine) for payment in intent.payments for mine in own):
            raise SignRefused("the recipient is a token contract or an address of our own")

    def _make(self, intent: Intent) -> Signed:
        """Build, sign, and read the bytes again as a stranger would. Raises SignRefused."""
        codec, key = FAMILIES[intent.family], self._senders[intent.chain][intent.sender]
        try:
            signed = codec.sign(intent, _NO_KEY if key is None else key)
            broken = codec.broken_rules(intent, signed)
        except ValueError as error:
            raise SignRefused(str(error)) from error
        if broken:
            raise SignRefused(f"the transaction does not match its intent: {', '.join(broken)}")
        return signed

    def _check_repeat(self, intent: Intent, result: Signed, seen: _Memory) -> None:
        for memory in (self._memory, seen):
            attempt = memory.attempts.get(intent.attempt_id)
            if attempt is not None and intent.version in attempt.versions and attempt.versions[intent.version][1] != result.txid:
                raise SignRefused("the same intent gave other bytes than the journal says; was the seed replaced?")


class _NoKey:
    """Where a node keeps the coins itself, what we sign is an order to it, not a transaction."""

    @property
    def public_key(self) -> bytes:
        raise ValueError("this network's coins are not under a key of ours")

    def sign(self, digest: bytes) -> tuple[int, int, int]:
        del digest
        raise ValueError("this network's coins are not under a key of ours")


_NO_KEY: Final = _NoKey()


def _told(number: int, link: str, entry: Mapping[str, Any]) -> JournalEntry:
    """An entry as others may know it."""
    kind, at_ms = entry["kind"], int(entry.get("at_ms", 0))
    if kind == "sign":
        intent = Intent.from_record(entry["intent"])
        return JournalEntry(number, link, kind, at_ms, intent.attempt_id, intent, str(entry["txid"]))
    text = str(entry["proof"] if kind == "death" else entry["reason"])
    return JournalEntry(number, link, kind, at_ms, int(entry.get("attempt_id", 0)), text=text)


def _digest(intent: Intent) -> bytes:
    return hashlib.sha256(canonical_sorted(intent)).digest()


def _base(intent: Intent) -> bytes:
    """A digest over all that must be the same in every version of an attempt."""
    return hashlib.sha256(canonical_sorted({name: getattr(intent, name) for name in _THE_SAME})).digest()


def _counted(caps: Caps, intent: Intent) -> tuple[str, int]:
    """What an attempt counts as, and how much of it: its coin, or that it opens a token, which pays nobody but costs a fee."""
    return (f"open {intent.chain} {intent.token_id}", 1) if intent.kind == "open" else caps.amount(intent)


def _names(payment: Payment) -> list[int | str]:
    """What an order is known by: our id, and the merchant's name of it."""
    return [payment.order_id, payment.key] if payment.key else [payment.order_id]


def _owned(intent: Intent) -> list[tuple[str, int, str, str]]:
    """The slot and the resources of an intent, each under its sender."""
    where = sys.intern(intent.family), intent.chain_id, sys.intern(intent.sender)  # kept for ever, and each line of the journal has its own
    return [(*where, f"slot {intent.slot}"), *((*where, resource.name) for resource in intent.resources)]
