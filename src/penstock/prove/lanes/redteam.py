"""Red team at the signer: whoever has the whole gateway process asks the real signer, over its real socket, for what it must never sign.

Two intruders: one who writes to the database (no seal key), and one who has the gateway's memory (seal key and all). After each attack
an honest payment must still be signed; at the end the journal must hold the honest ones and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import struct
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from msgspec import to_builtins
from msgspec.structs import replace

from penstock.core.intent import Death, Intent, Resource
from penstock.core.money import Token
from penstock.prove.installed.signer_house import UNITS, SignerHouse, signer_house
from penstock.prove.lane import Budget, Found, Tried
from penstock.signer import wire
from penstock.signer.journal import FileJournal, entries
from penstock.signer.place import folder_of
from penstock.signer.policy import allowed_networks

ATTACKS_MIN: Final = 500
"""Of size 1, and so many times more of a greater size."""
CONNECTIONS: Final = 300
"""Held open at once, far more than the signer keeps, without a word."""
DAY_MAX: Final = 40
"""So many times UNITS may be paid in USDC a day: what an intruder splits to get more."""
ANSWER_S: Final = 10.0
BACK_S: Final = 60.0
MUTATIONS: Final = 12
"""Of each token in each round: honest intents with one value exchanged by chance."""
_VALUES: Final[tuple[Any, ...]] = (
    0,
    -1,
    1,
    2,
    2**31,
    2**63,
    2**64,
    10**30,
    "",
    "x",
    "0",
    None,
    True,
    [],
    {},
    "pay",
    "cancel",
    "open",
    "approve",
)


@dataclass(frozen=True, slots=True)
class Scene:
    """What an attack starts from: a fresh honest intent, and one of the same token that was signed already."""

    house: SignerHouse
    new: Intent
    old: Intent


Attack = Callable[[Scene], Intent | dict[str, Any]]
"""What the signer is asked."""


def _paying(intent: Intent, **changes: Any) -> Intent:
    return replace(intent, payments=tuple(replace(payment, **changes) for payment in intent.payments))


def _other_chain(intent: Intent) -> str:
    return "TRX" if intent.chain == "ETH" else "ETH"


def _raw(intent: Intent, **fields: Any) -> dict[str, Any]:
    record: dict[str, Any] = to_builtins(intent)
    return record | fields


DATABASE: Final[Mapping[str, Attack]] = MappingProxyType(
    {
        "recipient changed after the seal": lambda s: _paying(s.new, recipient=s.house.recipient(s.new.chain)),
        "amount changed after the seal": lambda s: _paying(s.new, units=UNITS + 1),
        "memo changed after the seal": lambda s: _paying(s.new, memo="7"),
        "order id changed after the seal": lambda s: _paying(s.new, order_id=s.new.payments[0].order_id + 10**9),
        "merchant's name changed after the seal": lambda s: _paying(s.new, key="9/other"),
        "seal of another order": lambda s: _paying(s.new, seal=s.old.payments[0].seal),
        "no seal": lambda s: _paying(s.new, seal=""),
        "guessed seal": lambda s: _paying(s.new, seal=s.house.source.randbytes(32).hex()),
        "a cancel of an unsealed order": lambda s: _paying(replace(s.new, kind="cancel"), seal=""),
    }
)
"""By who has the database alone."""

MEMORY: Final[Mapping[str, Attack]] = MappingProxyType(
    {
        "another chain id": lambda s: replace(s.new, chain_id=s.new.chain_id + 1),
        "another network's name": lambda s: s.house.sealed(replace(s.new, chain=_other_chain(s.new))),
        "a network that is not configured": lambda s: s.house.sealed(replace(s.new, chain="POLYGON")),
        "another family": lambda s: replace(s.new, family="xrp" if s.new.family != "xrp" else "evm"),
        "a token that is not pinned": lambda s: s.house.sealed(replace(s.new, token_id="worthless")),  # noqa: S106  no password
        "another contract": lambda s: replace(s.new, contract=s.house.senders["ETH"]),
        "another sender": lambda s: replace(s.new, sender=s.house.recipient(s.new.chain)),
        "a payment to ourselves": lambda s: s.house.sealed(_paying(s.new, recipient=s.house.senders[s.new.chain])),
        "an approval": lambda s: _raw(s.new, kind="approve"),
        "a contract call": lambda s: _raw(s.new, kind="call"),
        "call data among the terms": lambda s: replace(s.new, terms={**s.new.terms, "data": 0xA9059CBB}),
        "an opening that pays": lambda s: replace(s.new, kind="open"),
        "a cancel of nothing": lambda s: replace(s.new, kind="cancel", payments=()),
        "a fee cap above the network's": lambda s: replace(s.new, fee_cap=10**30),
        "a fee above its cap": lambda s: replace(s.new, fee_cap=1),
        "a fee that drains": lambda s: replace(s.new, terms=dict.fromkeys(s.new.terms, 10**20)),
        "nothing paid": lambda s: s.house.sealed(_paying(s.new, units=0)),
        "less than nothing paid": lambda s: s.house.sealed(_paying(s.new, units=-UNITS)),
        "more than an order may pay": lambda s: s.house.sealed(_paying(s.new, units=10**30)),
        "an order's second attempt": lambda s: _second(s.house, s.new, order_id=s.old.payments[0].order_id),
        "a merchant's name twice": lambda s: _second(s.house, s.new, key=s.old.payments[0].key),
        "an order under another name": lambda s: _second(s.house, s.new, order_id=s.old.payments[0].order_id, key="1/new"),
        "a used slot": lambda s: (
            replace(s.new, slot=s.old.slot, chain=s.old.chain, sender=s.old.sender) if _alike(s.new, s.old) else _again(s.old)
        ),
        "a used coin or payment hash": lambda s: replace(s.new, resources=s.old.resources) if _owns(s.old) else _again(s.old),
        "another intent as the same version": lambda s: replace(s.old, terms={**s.old.terms, **_dearer(s.old)}),
        "a version to somebody else": lambda s: s.house.sealed(
            replace(_paying(s.old, recipient=s.house.recipient(s.old.chain)), version=2)
        ),
        "a version of another amount": lambda s: s.house.sealed(replace(_paying(s.old, units=UNITS + 1), version=2)),
        "a version on another slot": lambda s: replace(s.old, version=2, slot=s.old.slot + 10**6),
        "a version with another coin": lambda s: replace(s.old, version=2, resources=(Resource("f" * 64 + ":9", 10**6),)),
        "a version with a higher fee cap": lambda s: replace(s.old, version=2, fee_cap=s.old.fee_cap + 1),
        "a version of before the first": lambda s: replace(s.old, version=0),
        "a longer intent than any": lambda s: s.house.sealed(_paying(s.new, key="x" * 600_000)),
        "a field too many": lambda s: _raw(s.new, raw="00"),
        "a field too few": lambda s: {name: value for name, value in to_builtins(s.new).items() if name != "fee_cap"},
        "a text for a number": lambda s: _raw(s.new, slot=str(s.new.slot)),
        "a truth for a number": lambda s: _raw(s.new, version=True),
        "a fraction": lambda s: _raw(s.new, fee_cap=0.5),
        "half a letter": lambda s: _raw(s.new, chain="\ud800"),
    }
)
"""By who has the gateway's memory: what is paid to whom carries a right seal."""


def _second(house: SignerHouse, new: Intent, **names: Any) -> Intent:
    return house.sealed(_paying(new, **names))


def _alike(new: Intent, old: Intent) -> bool:
    return new.chain == old.chain and new.family in ("evm", "xrp")


def _owns(old: Intent) -> bool:
    return bool(old.resources)


def _again(old: Intent) -> Intent:
    """A new attempt over everything that a signed one has."""
    return replace(old, attempt_id=old.attempt_id + 10**9)


def _dearer(intent: Intent) -> dict[str, int]:
    name = next(iter(intent.terms))
    return {name: intent.terms[name] + 1}


def _said(intent: Intent) -> tuple[object, ...]:
    """All that decides who gets what, where and of which coin."""
    paid = tuple((p.order_id, p.key, p.recipient, p.memo, p.units) for p in intent.payments)
    return intent.chain, intent.family, intent.chain_id, intent.sender, intent.token_id, intent.contract, paid


class _Siege:
    """One signer under attack, and what came of it."""

    def __init__(self, house: SignerHouse, budget: Budget) -> None:
        self.house = house
        self.budget = budget
        self.tried: Counter[str] = Counter()
        self.found: list[Found] = []
        self.signed: dict[int, Intent] = {}
        self.last: dict[str, Intent] = {}
        self.honest = 0
        self.fee_max = {chain: allowed.fee_max for chain, allowed in allowed_networks(house.settings, house.catalog).items()}

    async def ask(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """One raw request; None when the signer closed without a word."""
        return await self.send(wire._HEADER.pack(len(body := json.dumps(request).encode())) + body)

    async def send(self, data: bytes) -> dict[str, Any] | None:
        """Bytes as an intruder writes them, and what comes back."""
        try:
            reader, writer = await wire.connected(self.house.socket, self.house.runtime)
        except OSError:
            return None
        try:
            writer.write(data)
            writer.write_eof()
            body = await wire.read_frame(reader, body_s=ANSWER_S)
            return None if body is None else json.loads(body)
        except (OSError, asyncio.IncompleteReadError):
            return None
        finally:
            await wire.hang_up(writer)

    async def attack(self, name: str, request: Mapping[str, Any]) -> None:
        """Whatever is answered, nothing may be signed, and the answer is one of ours."""
        answer = await self.ask(request)
        self.tried[name] += 1
        if answer is not None and "ok" in answer and answer["ok"] is not None:
            self.breach(f"the signer signed {name}", json.dumps(request)[:400])
        if answer is not None and answer.get("error", {}).get("code") == "internal":
            self.breach(f"the signer did not expect {name}", json.dumps(request)[:400])

    def breach(self, text: str, what: str) -> None:
        self.found.append(Found("double_payment" if "signed" in text else "other", f"{text}: {what}", f"redteam seed {self.budget.seed}"))

    async def pay_honestly(self, token: Token) -> Intent:
        """A plain payment goes on being signed, and gives the same bytes again."""
        intent = self.house.honest(token)
        (first,) = await self.house.signer.sign([intent])
        (again,) = await self.house.signer.sign([intent])
        self.honest += 1
        if first != again:
            self.breach("the same intent gave other bytes", intent.to_json()[:400])
        self.signed[intent.attempt_id] = intent
        self.last[token.id] = intent
        return intent

    async def round(self) -> None:
        """Every attack once, on a family after another."""
        for token in self.house.tokens():
            old = await self.pay_honestly(token)
            for name, attack in (*DATABASE.items(), *MEMORY.items()):
                asked = attack(Scene(self.house, self.house.honest(token), old))
                record = to_builtins(asked) if isinstance(asked, Intent) else asked
                await self.attack(name, {"op": "sign", "intents": [record]})
            for _ in range(MUTATIONS):
                await self.mutate(token, old)
            await self.lie_about_deaths(old)
        await self.garbage()

    async def mutate(self, token: Token, old: Intent) -> None:
        """One value of an honest intent is another one. What is signed all the same must pay the same to the same, under the cap."""
        honest = self.house.honest(token)
        record, other = to_builtins(honest), to_builtins(old)
        holder, name, strange = self._place(record, other)
        holder[name] = self.house.source.choice((*_VALUES, strange, strange, self.house.source.randrange(10**6, 2**62)))
        answer = await self.ask({"op": "sign", "intents": [record]})
        self.tried["one value exchanged by chance"] += 1
        if answer is None or not answer.get("ok"):
            if answer is not None and answer.get("error", {}).get("code") == "internal":
                self.breach("the signer did not expect a mutation", json.dumps(record)[:400])
            return
        signed = Intent.from_json(json.dumps(record))
        if _said(signed) != _said(honest) or signed.fee_cap > self.fee_max[signed.chain]:
            self.breach("the signer signed a mutation", json.dumps(record)[:400])
        self.signed[signed.attempt_id] = signed

    def _place(self, record: dict[str, Any], other: dict[str, Any]) -> tuple[dict[str, Any], str, Any]:
        """Where to put another value, and what stands there in an intent that was signed."""
        pairs = [(record, other), (record["terms"], other["terms"])]
        pairs += zip(record["payments"], other["payments"], strict=True)
        pairs += zip(record["resources"], other["resources"], strict=True)
        holder, like = self.house.source.choice(pairs)
        name = self.house.source.choice(sorted(holder))
        return holder, name, like[name]

    async def die(self) -> None:
        """Kill -9: the next process remembers every order, name, slot and coin that was paid."""
        process = self.house.child._process
        if process is None:
            raise LookupError("no signer runs")
        process.kill()
        await process.wait()
        deadline = self.house.runtime.monotonic() + BACK_S
        while (why := (await self.house.signer.standing()).stopped) and self.house.runtime.monotonic() < deadline:
            await self.house.runtime.sleep(0.05)
        if why:
            self.breach("the signer did not come back after kill -9", why)
        for old in self.last.values():
            await self.attack("a second attempt after kill -9", {"op": "sign", "intents": [to_builtins(_again(old))]})
            fresh = replace(_again(old), slot=old.slot + 10**9, resources=())
            await self.attack("a second attempt after kill -9", {"op": "sign", "intents": [to_builtins(fresh)]})

    async def lie_about_deaths(self, old: Intent) -> None:
        """What was signed is buried by a lie, then its order is asked for once more."""
        for proof in ("it expired, believe me", "x" * 100_000):
            await self.attack("a lie about a death", {"op": "bury", "deaths": [to_builtins(Death(old.attempt_id, proof))]})
        second = self.house.sealed(replace(old, attempt_id=old.attempt_id + 10**9, slot=old.slot + 10**9))
        await self.attack("a second attempt after a lie", {"op": "sign", "intents": [to_builtins(second)]})

    async def garbage(self) -> None:
        """Frames that are none; an empty signature list is no signature."""
        source = self.house.source
        frames = [
            b"",
            b"\0",
            struct.pack(">I", 2**32 - 1) + b"x" * 100,
            struct.pack(">I", wire.FRAME_BYTES_MAX + 1),
            struct.pack(">I", 100) + b"{",
            struct.pack(">I", 5) + b"[[[[[",
            struct.pack(">I", 200_000) + b"[" * 200_000,
            struct.pack(">I", 2) + b"[]",
            struct.pack(">I", 13) + b'{"op":"keys"}',
            struct.pack(">I", 14) + b'{"op":"a","op"',
            source.randbytes(64),
            struct.pack(">I", 64) + source.randbytes(64),
        ]
        for frame in frames:
            answer = await self.send(frame)
            self.tried["a frame that is none"] += 1
            if answer is not None and answer.get("error", {}).get("code") != "malformed":
                self.breach("a frame that is none was answered", repr(frame[:40]))
        for request in ({"op": "export"}, {"op": "seed"}, {"op": "sign"}, {"op": "bury", "deaths": 7}, {"op": "standing", "key": 1}):
            await self.attack("a request that there is not", request)

    async def crowd(self) -> None:
        """Far more silent connections than it keeps; honest work goes on among them."""
        held = []
        for _ in range(CONNECTIONS):
            try:
                held.append((await wire.connected(self.house.socket, self.house.runtime))[1])
            except OSError:
                break
            self.tried["a silent connection"] += 1
        await self.pay_honestly(self.house.tokens()[0])
        for writer in held:
            await wire.hang_up(writer)

    async def split(self) -> None:
        """Many sealed orders, each small, together more than the cap of a day."""
        token = self._usdc()
        for _ in range(2 * DAY_MAX):
            intent = self.house.honest(token)
            answer = await self.ask({"op": "sign", "intents": [to_builtins(intent)]})
            self.tried["a cap dodged in small parts"] += 1
            if answer is not None and answer.get("ok"):
                self.signed[intent.attempt_id] = intent
        paid = sum(intent.payments[0].units for intent in self.signed.values() if intent.token_id == token.id)
        if paid != DAY_MAX * UNITS:
            self.breach(f"the cap of a day let {paid} be signed and not {DAY_MAX * UNITS}", token.id)

    def _usdc(self) -> Token:
        token = self.house.catalog.by_symbol("USDC", "ETH")
        if token is None:
            raise LookupError("USDC")
        return token

    def judge(self) -> None:
        """The journal, read by ourselves, holds exactly what was honestly asked."""
        journal = FileJournal(folder_of(self.house.settings))
        try:
            lines = [entry for entry in entries(journal) if entry["kind"] == "sign"]
        finally:
            journal.close()
        for line in lines:
            intent = Intent.from_json(json.dumps(line["intent"]))
            if self.signed.get(intent.attempt_id) != intent:
                self.breach("the journal has a signed intent that nobody asked for honestly", intent.to_json()[:400])
        if len(lines) != len(self.signed):
            self.breach(f"{len(self.signed)} payments were signed and the journal has {len(lines)}", "journal")


async def run(budget: Budget) -> Tried:
    """Attack for so many rounds as the size says, or until time is up."""
    folder = Path(tempfile.mkdtemp(prefix="redteam-", dir=budget.folder))
    caps = {"PENSTOCK_SIGNER__ORDER_MAX__USDC": "1000", "PENSTOCK_SIGNER__DAY_MAX__USDC": f"{DAY_MAX * UNITS / 10**6}"}
    caps |= {f"PENSTOCK_SIGNER__ORDER_MAX__{coin}": "1000000" for coin in ("ETH", "USDT", "TRX", "XRP", "BTC", "SATS")}
    async with signer_house(folder / "home", seed=budget.seed, **caps) as house:
        began = house.runtime.monotonic()
        siege = _Siege(house, budget)
        await siege.split()
        await siege.crowd()
        keeping = house.runtime.spawn(house.child.keep(), name="signer")
        await siege.round()
        await siege.die()
        while sum(siege.tried.values()) < ATTACKS_MIN * budget.size and house.runtime.monotonic() - began < budget.seconds:
            await siege.round()
            budget.say(f"red team: {sum(siege.tried.values())} attacks, {siege.honest} honest payments signed between them")
        took_s = house.runtime.monotonic() - began
        await house.child.stop()
        await keeping
    siege.judge()
    attacks = sum(siege.tried.values())
    counts = {
        "attacks": attacks,
        "kinds_of_attack": len(siege.tried),
        "signed_outside_policy": len(siege.found),
        "honest_signed": siege.honest,
    }
    table = tuple({"attack": name, "tried": count} for name, count in sorted(siege.tried.items()))
    return Tried("red team", counts, tuple(siege.found), table, took_s)
