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

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from penstock.core.canonical import canonical, canonical_sorted
from penstock.core.intent import Death, Intent, JournalEntry, Signed, SignLater, SignRefused, Standing
from penstock.core.seal import OrderSeal
from penstock.runtime import Runtime
from penstock.signer.addresses import PublicAddresses
from penstock.signer.families import FAMILIES, LANES
from penstock.signer.index import Index
from penstock.signer.journal import Journal, JournalBroken, Place, entry_of
from penstock.signer.keys import LaneKey, check_library, lane_keys, public_keys
from penstock.signer.memory import Buried, Memory, Noted, base_of, digest_of, names_of, orders, owned
from penstock.signer.policy import AllowedNetwork, Caps, Spent, counted
from penstock.signer.seed import Seed
from penstock.signer.switch import Turn
from penstock.signer.wire import entries_of

_NO_CAPS: Final = Caps()
_INTENT_BYTES_MAX: Final = 512 * 1024
"""In ASCII, as the journal has it: a line holds that, with room for dearer versions. A Bitcoin transaction for 500 orders needs 300 KiB."""
_NUMBER_MAX: Final = 2**63 - 1
"""Of ids, versions and slots: what the books can hold. The journal is for ever, and a start reads it into them."""
_PROOF_MAX: Final = 1_000
_OPENS_A_DAY: Final = 5
"""How often a token may be opened: more would only burn fees."""


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
        index: Index | None = None,
    ) -> None:
        """Read what the journal's `index` does not know yet (None: one in memory), and check the curve library. Raises JournalBroken or
        KeysUnusable.
        """
        super().__init__(public_keys(seed), allowed)
        check_library()
        self._journal = journal
        self._runtime = runtime
        self._seal = seal
        self._caps = caps
        self._switch = switch
        self._senders = self._all_senders(lane_keys(seed))
        self._index = Index(None, journal) if index is None else index
        self._index.catch_up()
        self._turn = self._index.last_turn()
        self._spent = Spent()
        for what, units, at_ms in self._index.spent():
            self._spent.note(*caps.in_coin(what, units), at_ms)

    def _all_senders(self, keys: Mapping[str, LaneKey]) -> dict[str, dict[str, LaneKey | None]]:
        """The addresses that may pay on each network, and their keys where those are ours."""
        found: dict[str, dict[str, LaneKey | None]] = {}
        for chain, network in self._allowed.items():
            lanes = range(0 if network.node else LANES[network.family])
            own = {self._address(network, lane): keys[self._lane_path(network, lane)] for lane in lanes}
            found[chain] = {network.node: None} if network.node else dict(own)
        return found

    def _keep(self, memory: Memory, places: Sequence[Place]) -> None:
        """Behind the journal: what the index lacks is read from there at the next start."""
        self._index.keep(memory, places)
        for noted in memory.first:
            self._spent.note(*self._caps.in_coin(*counted(noted.intent)), noted.at_ms)

    def _recalled(self, names: Iterable[str] = (), attempt_ids: Iterable[int] = ()) -> Memory:
        """What was signed, as far as it concerns these. Raises JournalBroken where the index does not know all that the journal has."""
        if self._index.place != self._journal.end:
            raise JournalBroken("the index of the journal lags behind it; start again")
        return self._index.recall(names, attempt_ids)

    async def standing(self) -> Standing:
        """What it would sign now. Raises JournalBroken when a turn of the switch cannot be recorded."""
        return await self._runtime.in_thread("signer", self._standing)

    def _standing(self) -> Standing:
        now_ms = self._runtime.now_ms()
        left = {coin: max(0, cap - self._spent.within_a_day(coin, now_ms)) for coin, cap in self._caps.day_max.items()}
        stopped = self._stopped()
        return Standing(f"the signer is stopped: {stopped}" if stopped else "", left, dict(self._caps.order_max))

    def _stopped(self) -> str:
        """Read the switch, and note a turn that the journal does not know yet."""
        said, last = self._switch(), self._turn
        if said is not None and said.id == "":
            return said.reason
        if said is not None and (last is None or said.id != last.id) and not self._index.knows_turn(said.id):
            entry = {"kind": "stop" if said.stop else "go", "at_ms": self._runtime.now_ms(), "id": said.id, "reason": said.reason}
            memory = self._recalled()
            memory.note(said)
            self._keep(memory, self._journal.append([entry]))
            self._turn = last = said
        return last.reason if last is not None and last.stop else ""

    def _check_switch(self) -> None:
        if reason := self._stopped():
            raise SignLater(f"the signer is stopped: {reason}", everything=True)

    async def entries(self, after: int) -> list[JournalEntry]:
        """A page of the journal. Raises JournalBroken when the file was altered since it was read."""
        return entries_of(canonical(await self.told(after)))

    async def told(self, after: int) -> list[dict[str, Any]]:
        """The same as records, with the intent's own text in each: whoever gets it reads it once."""
        page = await self._runtime.in_thread("signer", lambda: self._index.page(after))
        return [_told(place, text) for place, text in page]

    async def proofread(self, after: int) -> int:
        """As `Index.proofread`."""
        return await self._runtime.in_thread("signer", lambda: self._index.proofread(after))

    async def bury(self, deaths: list[Death]) -> None:
        """Note deaths, all or none. Raises SignRefused for an attempt that may still land, JournalBroken when nothing can be recorded."""
        await self._runtime.in_thread("signer", lambda: self._bury(deaths))
        self._runtime.crash_point("signer:buried")

    def _bury(self, deaths: Sequence[Death]) -> None:
        now_ms = self._runtime.now_ms()
        memory = self._recalled(attempt_ids=[death.attempt_id for death in deaths])
        fresh = [death for death in deaths if death.attempt_id not in memory.dead]
        for death in fresh:
            _check_numbers(death.attempt_id)
            attempt = memory.attempts.get(death.attempt_id)
            if attempt is not None and attempt.expires_ms is None:
                raise SignRefused(f"attempt {death.attempt_id}: what was signed for it never expires")
            if attempt is not None and attempt.expires_ms is not None and now_ms <= attempt.expires_ms:
                raise SignRefused(f"attempt {death.attempt_id}: what was signed for it has not expired by this clock")
            memory.note(Buried(death.attempt_id))
        if fresh:
            entries = [{"kind": "death", "at_ms": now_ms, "attempt_id": d.attempt_id, "proof": d.proof[:_PROOF_MAX]} for d in fresh]
            self._keep(memory, self._journal.append(entries))

    async def sign(self, intents: list[Intent]) -> list[Signed]:
        """Sign all, or none and raise SignRefused naming the first one refused. Raises JournalBroken when nothing can be recorded."""
        signed = await self._runtime.in_thread("signer", lambda: self._sign(intents))
        self._runtime.crash_point("signer:journaled")
        return signed

    def _sign(self, intents: Sequence[Intent]) -> list[Signed]:
        """On the one signer thread: check, build, check again, record, and only then hand out."""
        self._check_switch()
        at_ms = self._runtime.now_ms()
        memory = self._recalled([name for intent in intents for name in names_of(intent)], [intent.attempt_id for intent in intents])
        signed, entries = [], []
        for intent in intents:
            try:
                new = self._check(intent, memory)
                result = self._make(intent)
                if new:
                    self._check_day(intent, memory, at_ms)
                else:
                    _check_repeat(intent, result, memory)
            except SignLater as later:
                raise SignLater(f"attempt {intent.attempt_id} version {intent.version}: {later}", everything=False) from later
            except SignRefused as refusal:
                raise SignRefused(f"attempt {intent.attempt_id} version {intent.version}: {refusal}") from refusal
            signed.append(result)
            if new:
                entries.append({"kind": "sign", "at_ms": at_ms, "intent": intent, "txid": result.txid})
                memory.note(Noted.of(intent, result.txid, at_ms))
        self._check_switch()  # building many takes a while
        if entries:
            places = self._journal.append(entries)
            self._runtime.crash_point("signer:journaled")
            self._keep(memory, places)
        return signed

    def _check(self, intent: Intent, memory: Memory) -> bool:
        """Every rule on the intent itself; True when this version is new."""
        _check_numbers(intent.attempt_id, intent.version, intent.slot, *(payment.order_id for payment in intent.payments))
        self._check_network(intent)
        if intent.attempt_id in memory.dead:
            raise SignRefused("the attempt is dead, and nothing is signed for it any more")
        _check_holders(intent, memory)
        known = _versions(intent, memory)
        if intent.version in known:
            if known[intent.version][0] != digest_of(intent):
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
        # In ASCII a text is at most three times as long: most need not be written out to be measured.
        if 3 * len(canonical_sorted(intent)) > _INTENT_BYTES_MAX and len(json.dumps(msgspec.to_builtins(intent))) > _INTENT_BYTES_MAX:
            raise SignRefused("the intent is longer than any that a payment needs")
        if too_large := self._caps.order_too_large(intent):
            raise SignRefused(too_large)
        for payment in intent.payments:
            if not self._seal.fits(payment, chain=intent.chain, token_id=intent.token_id):
                raise SignRefused(f"the seal of order {payment.order_id} is not of this payment; was it changed after it was accepted?")

    def _check_day(self, intent: Intent, memory: Memory, now_ms: int) -> None:
        """A payment that was buried counts on: only the chain knows whether its death was true, and the cap bounds what a lie can take."""
        if intent.attempt_id in memory.attempts:
            return
        symbol, _ = self._caps.in_coin(*counted(intent))
        fresh = (self._caps.in_coin(what, units) for what, units in memory.counted.items())
        spent = self._spent.within_a_day(symbol, now_ms) + sum(units for coin, units in fresh if coin == symbol)
        if intent.kind == "open" and spent >= _OPENS_A_DAY:
            raise SignRefused(f"{_OPENS_A_DAY} transactions that open this token for this address were signed within 24 hours")
        if full := self._caps.day_full(intent, spent):
            raise SignLater(full, everything=False)

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


def _check_numbers(*numbers: int) -> None:
    if strange := [number for number in numbers if not 0 <= number <= _NUMBER_MAX]:
        raise SignRefused(f"ids, versions and slots are numbers from 0 to {_NUMBER_MAX}, and {strange[0]} is none")


def _check_holders(intent: Intent, memory: Memory) -> None:
    for called, name in owned(intent):
        if (holder := memory.holders.get(name, intent.attempt_id)) != intent.attempt_id:
            raise SignRefused(f"slot or resource {called} of this sender belongs to attempt {holder}")
    for name in (name for payment in intent.payments for name in orders(payment)):
        holder = memory.holders.get(name, intent.attempt_id)
        if holder != intent.attempt_id and holder not in memory.dead:
            raise SignRefused(f"attempt {holder} was signed for this order, and its death is not proved")


def _versions(intent: Intent, memory: Memory) -> dict[int, tuple[bytes, str]]:
    attempt = memory.attempts.get(intent.attempt_id)
    if attempt is None:
        return {}
    if attempt.base != base_of(intent):
        raise SignRefused("another intent was signed for this attempt; versions may differ in version, kind and terms alone")
    return attempt.versions


def _check_repeat(intent: Intent, result: Signed, memory: Memory) -> None:
    _, txid = memory.attempts[intent.attempt_id].versions[intent.version]
    if txid != result.txid:
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


class _Line(msgspec.Struct):
    """Of an entry what others may know."""

    kind: str
    at_ms: int = 0
    attempt_id: int = 0
    intent: msgspec.Raw = msgspec.Raw(b"null")
    txid: str = ""
    proof: str = ""
    reason: str = ""


class _Of(msgspec.Struct):
    """Of an intent whose it is."""

    attempt_id: int


_LINE: Final = msgspec.json.Decoder(_Line)
_OF: Final = msgspec.json.Decoder(_Of)


def _told(place: Place, text: bytes) -> dict[str, Any]:
    """A `JournalEntry` as a record."""
    if b"\\ud" in text:  # in a journal of before a reason may have half a surrogate pair, which goes over no wire
        text = json.dumps(entry_of(place, text), ensure_ascii=False).encode(errors="replace")
    try:
        line = _LINE.decode(text)
        attempt_id = _OF.decode(line.intent).attempt_id if line.kind == "sign" else line.attempt_id
    except msgspec.MsgspecError as error:
        raise JournalBroken(f"journal entry {place.number} cannot be read") from error
    told = line.proof or line.reason
    return {
        "number": place.number,
        "hash": place.hash,
        "kind": line.kind,
        "at_ms": line.at_ms,
        "attempt_id": attempt_id,
        "intent": line.intent,
        "txid": line.txid,
        "text": told,
    }
