"""The signer in the same process: intents in, signed bytes out, every rule checked on the bytes themselves.

What it promises, whatever anybody asks of it:
  one intent for an attempt for ever; later versions differ in version, kind and terms alone; the same intent gives the same bytes
  one attempt for a slot or resource of a sender, and for an order one at a time: another only when the first was buried; the merchant's
  name of the order counts as much as our id of it
  only orders that carry the seal of who accepted them
  only plain transfers and own cancels, of tokens that are pinned, on networks that are pinned, at a fee not above the cap
  the journal holds an intent before its signature leaves
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from penstock.core.intent import Codec, Death, Intent, OfflineCodec, Payment, Signed, SignRefused
from penstock.core.money import Network, Token, parse_units
from penstock.core.seal import OrderSeal
from penstock.runtime import Runtime
from penstock.signer.families import FAMILIES, KEYED, OFFLINE
from penstock.signer.journal import Journal, JournalBroken
from penstock.signer.keys import LaneKey, check_library, derive, fingerprint
from penstock.signer.seed import Seed

_MAY_DIFFER: Final = ("version", "kind", "terms")


@dataclass(frozen=True, slots=True)
class AllowedNetwork:
    """What may be signed on one network: its chain id, its tokens' contracts (None: native), and the greatest fee cap.

    `node` is the identity of the node that keeps the coins itself (Lightning), "" where our own keys do.
    """

    family: str
    chain_id: int
    contracts: Mapping[str, str | None]
    fee_max: int
    node: str = ""


def allow(network: Network, tokens: Iterable[Token], *, fee_max: int | None = None, node: str = "") -> AllowedNetwork:
    """The pin of one network as catalogue and settings have it; `fee_max` in native base units, else the catalogue's."""
    here = {token.id: token for token in tokens if token.chain == network.chain}
    if fee_max is None:
        native = here.get(network.native_token_id)
        fee_max = parse_units(str(network.param("fee_max", "0")), native.decimals) if native is not None else 0
    contracts = {token.id: token.contract for token in here.values()}
    return AllowedNetwork(network.family, network.chain_id, contracts, fee_max, node)


@dataclass(slots=True)
class _Attempt:
    """What the journal knows of an attempt: what never changes, each version's digest and transaction id, and when all have expired."""

    base: str
    expires_ms: int | None
    versions: dict[int, tuple[str, str]] = field(default_factory=dict)


class _Memory:
    """Attempts, slots, resources and orders, as the journal tells them."""

    def __init__(self) -> None:
        self.attempts: dict[int, _Attempt] = {}
        self.owners: dict[tuple[str, int, str, str], int] = {}
        self.orders: dict[int | str, int] = {}
        self.dead: set[int] = set()

    def note(self, intent: Intent, txid: str) -> None:
        """Remember a version."""
        expires_ms = FAMILIES[intent.family].expires_ms(intent)
        attempt = self.attempts.setdefault(intent.attempt_id, _Attempt(_base(intent), expires_ms))
        if attempt.expires_ms is not None:
            attempt.expires_ms = None if expires_ms is None else max(attempt.expires_ms, expires_ms)
        attempt.versions[intent.version] = (_digest(intent), txid)
        self.owners.update(dict.fromkeys(_owned(intent), intent.attempt_id))
        self.orders.update((name, intent.attempt_id) for payment in intent.payments for name in _names(payment))


class AddressesOnly:
    """The addresses of a home without the right to sign: for commands beside a running `serve`."""

    def __init__(self, seed: Seed, allowed: Mapping[str, AllowedNetwork]) -> None:
        self._seed = seed
        self._allowed = dict(allowed)
        self._keys: dict[tuple[str, int], LaneKey] = {}

    async def address(self, chain: str, lane: int) -> str:
        """The hot address of a lane. Raises ValueError for a network that has no keys here."""
        network = self._allowed.get(chain)
        if network is None:
            raise ValueError(f"no key for network {chain}")
        return network.node or self._codec(network).address(self._key(network, lane).public_key, network.chain_id)

    def has(self, chain: str) -> bool:
        """Whether there is an address of ours on the network; a node that keeps the coins itself has none until its id is set."""
        network = self._allowed.get(chain)
        return network is not None and (bool(network.node) or network.family in KEYED)

    def export(self, intent: Intent) -> str:
        """The transaction of an intent for an offline signer (Bitcoin: PSBT, base64). Raises ValueError where there is no such form."""
        key, path = self._key(self._allowed[intent.chain], 0), FAMILIES[intent.family].path(intent.chain_id, 0)
        return self._offline(intent).export_psbt(intent, public_key=key.public_key, fingerprint=fingerprint(self._seed), path=path)

    def check_export(self, intent: Intent, text: str) -> Signed:
        """What an offline signer made of it, exactly what the intent says. Raises ValueError."""
        return self._offline(intent).import_psbt(intent, text)

    @staticmethod
    def _offline(intent: Intent) -> OfflineCodec:
        codec = OFFLINE.get(intent.family)
        if codec is None:
            raise ValueError(f"transactions of family {intent.family} have no form for an offline signer")
        return codec

    async def sign(self, intents: list[Intent]) -> list[Signed]:
        """Always refused."""
        raise SignRefused(f"this process reads addresses and does not sign ({len(intents)} asked)")

    async def bury(self, deaths: list[Death]) -> None:
        """Always refused."""
        raise SignRefused(f"this process reads addresses and keeps no journal ({len(deaths)} deaths told)")

    @staticmethod
    def _codec(network: AllowedNetwork) -> Codec:
        if network.family not in FAMILIES:
            raise ValueError(f"no key for a network of family {network.family}")
        return FAMILIES[network.family]

    def _key(self, network: AllowedNetwork, lane: int) -> LaneKey:
        codec = self._codec(network)
        path = codec.path(network.chain_id, lane)
        if (path, lane) not in self._keys:
            self._keys[path, lane] = derive(self._seed, codec, network.chain_id, lane)
        return self._keys[path, lane]


class LocalSigner(AddressesOnly):
    """`core.intent.Signer` with the keys in this process. Give it a journal that nobody else writes."""

    def __init__(
        self, seed: Seed, journal: Journal, runtime: Runtime, allowed: Mapping[str, AllowedNetwork], seal: OrderSeal, *, lanes: int = 1
    ) -> None:
        """Read the journal and check the curve library. Raises JournalBroken or KeysUnusable."""
        super().__init__(seed, allowed)
        check_library()
        self._journal = journal
        self._runtime = runtime
        self._seal = seal
        self._senders = {chain: self._senders_of(network, lanes) for chain, network in self._allowed.items()}
        self._memory = _Memory()
        for number, entry in enumerate(journal.entries(), start=1):
            self._restore(entry, number)

    def _senders_of(self, network: AllowedNetwork, lanes: int) -> dict[str, LaneKey | None]:
        if network.node:
            return {network.node: None}
        codec, keys = self._codec(network), [self._key(network, lane) for lane in range(lanes)]
        return {codec.address(key.public_key, network.chain_id): key for key in keys}

    def _restore(self, entry: Mapping[str, Any], number: int) -> None:
        try:
            kind = entry["kind"]
            if kind == "death":
                self._memory.dead.add(int(entry["attempt_id"]))
                return
            intent = Intent.from_json(json.dumps(entry["intent"]))
            txid = str(entry["txid"])
        except (KeyError, TypeError, ValueError) as error:
            raise JournalBroken(f"journal entry {number} cannot be read") from error
        if kind != "sign" or intent.family not in FAMILIES:
            raise JournalBroken(f"journal entry {number} is of a kind that this version does not know; use the version that wrote it")
        self._memory.note(intent, txid)

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
            self._journal.append([{"kind": "death", "at_ms": now_ms, "attempt_id": d.attempt_id, "proof": d.proof} for d in fresh])
        self._memory.dead.update(death.attempt_id for death in fresh)

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
        for payment in intent.payments:
            if not self._seal.fits(payment, chain=intent.chain, token_id=intent.token_id):
                raise SignRefused(f"the seal of order {payment.order_id} is not of this payment; was it changed after it was accepted?")

    def _check_owner(self, intent: Intent, memory: _Memory) -> None:
        for key in _owned(intent):
            if (holder := memory.owners.get(key, intent.attempt_id)) != intent.attempt_id:
                raise SignRefused(f"slot or resource {key[-1]} of this sender belongs to attempt {holder}")
        for name in (name for payment in intent.payments for name in _names(payment)):
            holder = memory.orders.get(name, intent.attempt_id)
            if holder != intent.attempt_id and holder not in self._memory.dead:
                raise SignRefused("another attempt was signed for this order, and its death is not proved")

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


def _digest(intent: Intent) -> str:
    return hashlib.sha256(intent.to_json().encode()).hexdigest()


def _base(intent: Intent) -> str:
    """A digest over all that must be the same in every version of an attempt."""
    fields = {name: value for name, value in json.loads(intent.to_json()).items() if name not in _MAY_DIFFER}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _names(payment: Payment) -> list[int | str]:
    """What an order is known by: our id, and the merchant's name of it."""
    return [payment.order_id, payment.key] if payment.key else [payment.order_id]


def _owned(intent: Intent) -> list[tuple[str, int, str, str]]:
    """The slot and the resources of an intent, each under its sender."""
    where = intent.family, intent.chain_id, intent.sender
    return [(*where, f"slot {intent.slot}"), *((*where, resource.name) for resource in intent.resources)]
