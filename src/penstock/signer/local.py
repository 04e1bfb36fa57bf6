"""The signer in the same process: intents in, signed bytes out, every rule checked on the bytes themselves.

What it promises, whatever anybody asks of it:
  one intent for an attempt for ever; later versions differ in version, kind and terms alone; the same intent gives the same bytes
  one attempt for a slot of a sender, and one for an order
  only plain transfers and own cancels, of tokens that are pinned, on networks that are pinned, at a fee not above the cap
  the journal holds an intent before its signature leaves
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from penstock.core.intent import Intent, Signed, SignRefused
from penstock.core.money import LEDGER_DECIMALS, Network, Token, parse_units
from penstock.rails.evm import codec
from penstock.runtime import Runtime
from penstock.signer.journal import Journal, JournalBroken
from penstock.signer.keys import LaneKey, check_library, derive
from penstock.signer.seed import Seed

_MAY_DIFFER: Final = ("version", "kind", "terms")
_TRANSFER_SELECTOR: Final = bytes.fromhex("a9059cbb")
"""transfer(address,uint256), written down here and not taken from the codec that it checks. https://eips.ethereum.org/EIPS/eip-20"""


@dataclass(frozen=True, slots=True)
class AllowedNetwork:
    """What may be signed on one network: its chain id, its tokens' contracts (None: native), and the greatest fee cap."""

    family: str
    chain_id: int
    contracts: Mapping[str, str | None]
    fee_max: int


def allow(network: Network, tokens: Iterable[Token], *, fee_max: int | None = None) -> AllowedNetwork:
    """The pin of one network as catalogue and settings have it; `fee_max` in native base units, else the catalogue's."""
    most = parse_units(str(network.param("fee_max", "0")), LEDGER_DECIMALS) if fee_max is None else fee_max
    contracts = {token.id: token.contract for token in tokens if token.chain == network.chain}
    return AllowedNetwork(network.family, network.chain_id, contracts, most)


@dataclass(slots=True)
class _Attempt:
    """What the journal knows of an attempt: what never changes, and each version's digest and transaction id."""

    base: str
    versions: dict[int, tuple[str, str]] = field(default_factory=dict)


class _Memory:
    """Attempts, slots and orders, as the journal tells them."""

    def __init__(self) -> None:
        self.attempts: dict[int, _Attempt] = {}
        self.slots: dict[tuple[str, int, str, int], int] = {}
        self.orders: dict[int, int] = {}

    def note(self, intent: Intent, txid: str) -> None:
        """Remember a version."""
        attempt = self.attempts.setdefault(intent.attempt_id, _Attempt(_base(intent)))
        attempt.versions[intent.version] = (_digest(intent), txid)
        self.slots[_slot(intent)] = intent.attempt_id
        self.orders.update((payment.order_id, intent.attempt_id) for payment in intent.payments)


class AddressesOnly:
    """The addresses of a home without the right to sign: for commands beside a running `serve`."""

    def __init__(self, seed: Seed) -> None:
        self._seed = seed
        self._keys: dict[tuple[str, int], LaneKey] = {}

    async def address(self, family: str, lane: int) -> str:
        """The hot address of a lane. Raises ValueError for a family that has no keys here."""
        return _address(self._key(family, lane))

    async def sign(self, intents: list[Intent]) -> list[Signed]:
        """Always refused."""
        raise SignRefused(f"this process reads addresses and does not sign ({len(intents)} asked)")

    def _key(self, family: str, lane: int) -> LaneKey:
        if (family, lane) not in self._keys:
            self._keys[family, lane] = derive(self._seed, family, lane)
        return self._keys[family, lane]


class LocalSigner(AddressesOnly):
    """`core.intent.Signer` with the keys in this process. Give it a journal that nobody else writes."""

    def __init__(self, seed: Seed, journal: Journal, runtime: Runtime, allowed: Mapping[str, AllowedNetwork], *, lanes: int = 1) -> None:
        """Read the journal and check the curve library. Raises JournalBroken or KeysUnusable."""
        super().__init__(seed)
        check_library()
        self._journal = journal
        self._runtime = runtime
        self._allowed = dict(allowed)
        families = {network.family for network in self._allowed.values()}
        self._senders = {_address(self._key(family, lane)): self._key(family, lane) for family in sorted(families) for lane in range(lanes)}
        self._memory = _Memory()
        for number, entry in enumerate(journal.entries(), start=1):
            self._restore(entry, number)

    def _restore(self, entry: Mapping[str, Any], number: int) -> None:
        try:
            intent = Intent.from_json(json.dumps(entry["intent"]))
            known = entry["kind"] == "sign"
            txid = str(entry["txid"])
        except (KeyError, TypeError, ValueError) as error:
            raise JournalBroken(f"journal entry {number} cannot be read") from error
        if not known:
            raise JournalBroken(f"journal entry {number} is of a kind that this version does not know; use the version that wrote it")
        self._memory.note(intent, txid)

    async def sign(self, intents: list[Intent]) -> list[Signed]:
        """Sign all, or none and raise SignRefused naming the first one refused. Raises JournalBroken when nothing can be recorded."""
        signed = await self._runtime.in_thread("signer", lambda: self._sign(intents))
        self._runtime.crash_point("signer:journaled")
        return signed

    def _sign(self, intents: Sequence[Intent]) -> list[Signed]:
        """On the one signer thread: check, build, check again, record, and only then hand out."""
        fresh: list[tuple[Intent, str]] = []
        seen = _Memory()
        signed = []
        for intent in intents:
            try:
                new = self._check(intent, seen)
                result = self._make(intent)
                self._check_repeat(intent, result, seen)
            except SignRefused as refusal:
                raise SignRefused(f"attempt {intent.attempt_id} version {intent.version}: {refusal}") from refusal
            signed.append(result)
            if new:
                fresh.append((intent, result.txid))
                seen.note(intent, result.txid)
        if fresh:
            at_ms = self._runtime.now_ms()
            self._journal.append([{"kind": "sign", "at_ms": at_ms, "intent": json.loads(i.to_json()), "txid": txid} for i, txid in fresh])
            self._runtime.crash_point("signer:journaled")
        for intent, txid in fresh:
            self._memory.note(intent, txid)
        return signed

    def _check(self, intent: Intent, seen: _Memory) -> bool:
        """Every rule on the intent itself; True when this version is new."""
        self._check_network(intent)
        for memory in (self._memory, seen):
            holder = memory.slots.get(_slot(intent), intent.attempt_id)
            if holder != intent.attempt_id:
                raise SignRefused(f"slot {intent.slot} of this sender belongs to attempt {holder}")
            if any(memory.orders.get(payment.order_id, intent.attempt_id) != intent.attempt_id for payment in intent.payments):
                raise SignRefused("another attempt was signed for this order, and its death is not proved")
        known = {version: said for memory in (self._memory, seen) for version, said in self._versions(memory, intent).items()}
        if intent.version in known:
            if known[intent.version][0] != _digest(intent):
                raise SignRefused("another intent was signed as this version of the attempt")
            return False
        if known and intent.version < max(known):
            raise SignRefused(f"version {max(known)} was signed already, and versions only rise")
        if not known and intent.fee_cap > self._allowed[intent.chain].fee_max:
            raise SignRefused(f"the fee cap of {intent.fee_cap} is above the network's {self._allowed[intent.chain].fee_max}")
        return True

    @staticmethod
    def _versions(memory: _Memory, intent: Intent) -> dict[int, tuple[str, str]]:
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
        if intent.sender not in self._senders:
            raise SignRefused("the sender is not one of this signer's addresses")
        if len(intent.payments) != 1:
            raise SignRefused("a transaction of this family pays exactly one recipient")
        own = {sender.lower() for sender in self._senders} | {c.lower() for c in network.contracts.values() if c is not None}
        if intent.payments[0].recipient.lower() in own:
            raise SignRefused("the recipient is a token contract or an address of our own")

    def _make(self, intent: Intent) -> Signed:
        """Build, sign, and read the bytes again as a stranger would. Raises SignRefused."""
        try:
            unsigned = codec.build(intent)
            y_parity, r, s = self._senders[intent.sender].sign(codec.signing_hash(unsigned))
            raw = codec.encode_signed(unsigned, y_parity, r, s)
            found = codec.decode(raw, intent.chain_id)
        except ValueError as error:
            raise SignRefused(str(error)) from error
        _check_bytes(intent, found)
        return Signed(intent.attempt_id, intent.version, found.txid, raw)

    def _check_repeat(self, intent: Intent, result: Signed, seen: _Memory) -> None:
        for memory in (self._memory, seen):
            attempt = memory.attempts.get(intent.attempt_id)
            if attempt is not None and intent.version in attempt.versions and attempt.versions[intent.version][1] != result.txid:
                raise SignRefused("the same intent gave other bytes than the journal says; was the seed replaced?")


def _check_bytes(intent: Intent, found: codec.SignedTransaction) -> None:
    """The signed bytes say what the intent says and nothing more. Raises SignRefused."""
    it, payment = found.unsigned, intent.payments[0]
    if intent.kind == "cancel":
        content = (intent.sender, 0, b"")
    elif intent.contract is None:
        content = (payment.recipient, payment.units, b"")
    else:
        recipient = bytes.fromhex(payment.recipient.removeprefix("0x")).rjust(32, b"\0")
        content = (intent.contract, 0, _TRANSFER_SELECTOR + recipient + payment.units.to_bytes(32, "big"))
    rules = {
        "sender": found.sender == intent.sender,
        "chain id": it.chain_id == intent.chain_id,
        "nonce": it.nonce == intent.slot,
        "recipient": it.to is not None and it.to.lower() == content[0].lower(),
        "value": it.value == content[1],
        "call": it.data == content[2],
        "fee cap": it.gas_limit * it.max_fee_per_gas + intent.terms.get("l1_fee", 0) <= intent.fee_cap,
    }
    broken = [name for name, holds in rules.items() if not holds]
    if broken:
        raise SignRefused(f"the transaction does not match its intent: {', '.join(broken)}")


def _address(key: LaneKey) -> str:
    return codec.address_of_public_key(key.public_key)


def _digest(intent: Intent) -> str:
    return hashlib.sha256(intent.to_json().encode()).hexdigest()


def _base(intent: Intent) -> str:
    """A digest over all that must be the same in every version of an attempt."""
    fields = {name: value for name, value in json.loads(intent.to_json()).items() if name not in _MAY_DIFFER}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _slot(intent: Intent) -> tuple[str, int, str, int]:
    return intent.family, intent.chain_id, intent.sender, intent.slot
