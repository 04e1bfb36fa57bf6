"""The lane of lying nodes: every behaviour before one of two nodes, or before both, on every family, and what became of the orders."""

from __future__ import annotations

import asyncio
import hashlib
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import coincurve
from structlog.testing import capture_logs

from penstock.catalog import Catalog
from penstock.commands import Commands
from penstock.core.money import parse_units
from penstock.devnet.boxes import make_networks
from penstock.devnet.control import control
from penstock.prove.lane import Breach, Budget, Found, Tried
from penstock.prove.liars.liar import Liar
from penstock.prove.liars.lies import LIES
from penstock.prove.liars.lines import LyingPost
from penstock.prove.simulated.scene import Shop
from penstock.rails.bitcoin.script import address_of_public_key
from penstock.rails.evm import codec as evm
from penstock.rails.lightning import codec as lightning
from penstock.rails.tron import codec as tron

Who = Literal["first", "second", "all"]
SECRET: Final = "cREDENTIALoFtHEnODE"  # noqa: S105  what must be in no log
ORDERS: Final = 3
WHO: Final[tuple[Who, ...]] = ("first", "second", "all")
OUTCOMES: Final = ("", "went on", "waited for the truth", "asked a person", "believed", "BREACH")
"""From good to bad. Only where every node tells the same lie is a person asked, or the lie believed."""
LOST_BY_OWN_NODE: Final = frozenset({"swallowed", "kept_waiting", "fake_success", "frozen", "flapping_absence"})
"""On Lightning every address is the operator's one node, which alone knows what it paid: what it took and does not know any more is asked of
a person, and never sent again; also when one address of two took it.
"""
BETWEEN_S: Final = 10.0
LYING_S: Final = 150.0
"""Virtual seconds for which the lie is told at most."""
MENDED_S: Final = 2_400.0
"""Virtual seconds within which everything must be over once nobody lies: two lives of a transaction on TRON, and more."""
RESUMES_MAX: Final = 5
TASKS_MAX: Final = 400


@dataclass(frozen=True, slots=True)
class Scene:
    """One family's network in a box: what is paid, and to whom."""

    chain: str
    symbol: str
    value: str
    funds: Mapping[str, int]


SCENES: Final[Mapping[str, Scene]] = MappingProxyType(
    {
        "evm": Scene("ETH", "USDT", "12.5", {"ETH": 5 * 10**18, "USDT": 500 * 10**6}),
        "bitcoin": Scene("BTC", "BTC", "0.015", {"BTC": 5 * 10**8}),
        "tron": Scene("TRX", "USDT", "12.5", {"TRX": 5_000 * 10**6, "USDT": 500 * 10**6}),
        "xrp": Scene("XRP", "XRP", "12.5", {"XRP": 500 * 10**6}),
        "lightning": Scene("LIGHTNING", "SATS", "1234", {"SATS": 500_000_000}),
    }
)
"""By family."""


@dataclass(frozen=True, slots=True)
class Case:
    """One run: who lies how on which family."""

    family: str
    lie: str
    who: Who
    seed: int

    @property
    def replay(self) -> str:
        """The line that plays it again."""
        return f"lie {self.family}/{self.lie}/{self.who}/{self.seed}"


@dataclass(slots=True)
class Result:
    """What became of a case: how its orders ended, when, and what must not have happened."""

    case: Case
    outcome: str = ""
    states: Counter[str] = field(default_factory=Counter)
    told: int = 0
    quarantined: bool = False
    resumed: str = ""
    believed: set[str] = field(default_factory=set)
    reasons: set[str] = field(default_factory=set)
    found: list[Found] = field(default_factory=list)

    def breach(self, kind: Breach, text: str) -> None:
        """Note one."""
        self.found.append(Found(kind, f"{self.case.replay}: {text}", self.case.replay))


def cases(seed: int) -> Iterator[Case]:
    """Every behaviour on every family, by one node of two and by both."""
    for lie in LIES:
        for family in SCENES:
            for who in WHO:
                yield Case(family, lie, who, seed)


def replay(line: str, folder: Path) -> Result:
    """Play the case of a `Case.replay` again."""
    family, lie, who, seed = line.removeprefix("lie ").split("/")
    return Play(Case(family, lie, next(one for one in WHO if one == who), int(seed)), folder)()


def run(budget: Budget) -> Tried:
    """As many cases as the seconds allow, in an order drawn from the seed; at a larger size each of them with more seeds."""
    began = time.monotonic()
    drawn = [case for place in range(budget.size) for case in cases(budget.seed + place)]
    random.Random(budget.seed).shuffle(drawn)
    results: list[Result] = []
    for place, case in enumerate(drawn):
        if time.monotonic() - began > budget.seconds:
            break
        with tempfile.TemporaryDirectory(dir=budget.folder, prefix=f"lie-{place}-") as folder:
            results.append(Play(case, Path(folder))())
        for found in results[-1].found:
            budget.say(found.text)
    return told(results, time.monotonic() - began)


def told(results: Sequence[Result], took_s: float) -> Tried:
    """One row a behaviour: what became of its orders on each family, the worst of its cases."""
    rows: dict[str, dict[str, Any]] = {}
    for result in results:
        row = rows.setdefault(result.case.lie, {"lie": result.case.lie, "a node that": LIES[result.case.lie].about, "runs": 0})
        row["runs"] += 1
        outcome = "BREACH" if result.found else result.outcome
        row[result.case.family] = max(outcome, row.get(result.case.family, ""), key=OUTCOMES.index)
    outcomes = Counter(result.outcome for result in results if not result.found)
    counts = {
        "runs": len(results),
        "lies": len(rows),
        "orders": sum(result.states.total() for result in results),
        "answers_spoiled": sum(result.told for result in results),
        "went_on": outcomes["went on"],
        "waited_for_the_truth": outcomes["waited for the truth"],
        "asked_a_person": outcomes["asked a person"],
        "believed_all_nodes": outcomes["believed"],
    }
    found = tuple(found for result in results for found in result.found)
    return Tried("lying nodes", counts, found, tuple(rows[name] for name in LIES if name in rows), took_s)


class Play:
    """One case on one house, from funding to the last order's end."""

    def __init__(self, case: Case, home: Path) -> None:
        self.case = case
        self.scene = SCENES[case.family]
        self.lie = LIES[case.lie]
        self.result = Result(case)
        settings: dict[str, Any] = {"confirmations": 7} if case.family in {"evm", "bitcoin"} else {}
        form = str(self._network(lambda: 0).settings.get("rpc_url", "{url}")) if case.family == "lightning" else "{url}"
        settings["rpc_url"] = f"{form}{'&' if '?' in form else '?'}key={SECRET}"
        self.house = Shop(home, self._network, settings)
        chain_id = self.house.network.settings["chain_id"]
        places = {"first": (0,), "second": (1,), "all": (0, 1)}[case.who]
        self.liars = {place: Liar(self.lie, case.family, chain_id=chain_id, seed=case.seed * 2 + place) for place in places}
        for liar in self.liars.values():
            liar.on = False
            liar.memory = self.liars[places[0]].memory  # those who lie together tell one story
        self.house.post = LyingPost(self.house.post, self.liars)
        self._recipients: dict[str, str] = {}

    def _network(self, now_ms: Callable[[], int]) -> Any:
        (network,) = make_networks(Catalog.load(), [self.scene.chain], now_ms=now_ms, seed=1)
        return network

    def __call__(self) -> Result:
        """Play it. Never raises for what the product did: that is in the result."""
        with capture_logs() as logs:
            try:
                self._play()
            except Exception as error:  # noqa: BLE001  whatever broke is what was looked for
                self.result.breach("other", f"{type(error).__name__}: {str(error)[:300]}")
            finally:
                self.house.die()
                self.house.loop.close()
        for log in logs:
            if SECRET in str(log):
                self.result.breach("leaked_secret", f"the log {log.get('event')!r} holds a credential of a node")
        return self.result

    def _play(self) -> None:
        house = self.house
        house.start()
        self._fund()
        recipients = [self._recipient(number) for number in range(ORDERS)]
        self._lying(True)
        if self.case.seed % 2:
            house.restart()  # a program that begins among liars, and remembers nothing
        house.run(self._orders(recipients))
        while_lying = self._over()
        if not while_lying:
            house.run(self._note_reasons())
        self._lying(False)
        house.wait(30)  # what stands then is for a person
        house.run(self._resume())
        # What was believed may leave the house short of coins that were never spent, or spent twice by its own books: that is for a person.
        house.run(self._until_over(MENDED_S if not self.result.believed else 2 * BETWEEN_S))
        house.wait(30)
        self._check_end(while_lying)

    def _lying(self, on: bool) -> None:  # noqa: FBT001  a switch
        for liar in self.liars.values():
            liar.on = on

    # Setting up

    def _fund(self) -> None:
        house, scene = self.house, self.scene
        house.run(house.open({scene.symbol: "1000000"}))
        hot = house.run(self._hot())
        for symbol, units in scene.funds.items():
            token = house.product.catalog.by_symbol(symbol, scene.chain)
            house.network.fund(hot, units, token.contract if token is not None else None)
            house.wait(10)
        house.run(house.product.treasury.refresh())
        house.wait(10)
        house.run(house.product.treasury.refresh())
        found = house.product.catalog.by_symbol(scene.symbol, scene.chain)
        assert found is not None  # noqa: S101  the scenes are of the catalogue
        self.token = found
        self.units = parse_units(scene.value, self.token.decimals)

    async def _hot(self) -> str:
        network = self.house.product.catalog.network(self.scene.chain)
        assert network is not None  # noqa: S101  the scenes are of the catalogue
        return await self.house.product.treasury.address_of(network)

    def _recipient(self, number: int) -> str:
        house, key = self.house, coincurve.PrivateKey(hashlib.sha256(f"recipient {number}".encode()).digest())
        public = key.public_key.format(compressed=False)
        chain_id = house.network.settings["chain_id"]
        match self.case.family:
            case "evm":
                return evm.address_of_public_key(public)
            case "bitcoin":
                return address_of_public_key(public, chain_id)
            case "tron":
                return tron.address(public, chain_id)
            case "xrp":
                answer = control([house.network], {"do": "account", "name": f"recipient {number}", "drops": 1_200_000})
                return str(answer["address"])
            case _:
                made = control([house.network], {"do": "invoice", "units": int(self.scene.value) * 1_000, "expiry_s": 100_000})
                return str(made["invoice"])

    def received(self, address: str) -> int:
        """Base units that a recipient really has, at the head."""
        network = self.house.network
        if self.case.family == "lightning":
            hash_ = lightning.parse(address, network.settings["chain_id"]).payment_hash
            return int(control([network], {"do": "settled", "payment_hash": hash_})["received"])
        held: int = network.holding(address, self.token.contract)
        return held - (1_200_000 if self.case.family == "xrp" else 0)

    # Orders

    async def _orders(self, recipients: list[str]) -> None:
        self._asking = [asyncio.ensure_future(self._ask(number, address)) for number, address in enumerate(recipients)]
        await self._until_over(LYING_S, step_s=0.5)

    async def _ask(self, number: int, address: str) -> None:
        """As a patient merchant does, until the order is taken; one order after another."""
        house, token, name = self.house, self.token, f"o{number}"
        await asyncio.sleep(number * BETWEEN_S)
        while True:
            answer = await house.withdraw(
                merchant_order_id=name, address=address, token_id=token.id, value=self.scene.value, merchant_pays_fee=True
            )
            if answer["code"] == 10000:
                self._recipients[name] = address
                return
            self.result.reasons.add(f"{answer['code']}: {answer['msg']}"[:200])
            await asyncio.sleep(5)

    async def _look(self) -> bool:
        """Look at every order as it stands; whether all are over. What is said to be over must be true at that moment.

        To be quarantined is the end while there are liars: a person is asked.
        """
        asked = self._lost or any(liar.on for liar in self.liars.values())
        ends = {"succeeded", "failed"} | ({"quarantined"} if asked else set())
        over = 0
        for name, address in list(self._recipients.items()):
            state = (await self.house.order(name))["state"]
            got = self.received(address)
            if got not in {0, self.units}:
                self.result.breach("double_payment", f"{name} is {state} and its recipient got {got} of {self.units}")
            if state == "succeeded" and not got:
                self._false(name, "lost_order", f"{name} succeeded and nothing was paid")
            if state == "failed" and got:
                self._false(name, "double_payment", f"{name} failed and was paid")
            self.result.quarantined |= state == "quarantined"
            over += state in ends
        if self.house.product.broken is not None:
            raise RuntimeError(f"a loop of the program ended: {self.house.product.broken!r}")
        if len(asyncio.all_tasks()) > TASKS_MAX:
            raise RuntimeError(f"{len(asyncio.all_tasks())} tasks are alive")
        return over == ORDERS

    def _false(self, name: str, kind: Breach, text: str) -> None:
        """An end that is not true: the declared limit of a lie that every node tells alike, or a breach."""
        if self.case.who == "all" and self.lie.limit == "believed":
            self.result.believed.add(text)
        elif not any(f"{name} " in found.text for found in self.result.found):
            self.result.breach(kind, text)

    def _over(self) -> bool:
        return bool(self.house.run(self._look()))

    async def _note_reasons(self) -> None:
        """What a person would read while orders wait."""
        product, chain = self.house.product, self.scene.chain
        said = {
            product.board.faults.get(chain, ""),
            product.treasury.faults.get(chain, ""),
            *getattr(product.rails[chain], "faults", list)(),
        }
        for name in self._recipients:
            order = await self.house.order(name)
            said.add(f"{name} waits for {order['waits_for']}" if order["waits_for"] else "")
        self.result.reasons |= {text for text in said if text}

    async def _until_over(self, seconds: float, *, step_s: float = 2.0) -> None:
        """A look now and then, on the virtual clock."""
        end = self.house.loop.time() + seconds
        while self.house.loop.time() < end:
            if await self._look() and all(task.done() for task in self._asking):
                break
            await asyncio.sleep(step_s)

    # The end

    def _check_end(self, while_lying: bool) -> None:  # noqa: FBT001  when it ended
        house, result = self.house, self.result
        for name in self._recipients:
            order = house.run(house.order(name))
            result.states[order["state"]] += 1
            if (order["state"] == "quarantined" and self._lost) or result.believed:
                continue
            if order["state"] == "failed" and self.case.who != "all":
                result.breach("lost_order", f"{name} failed, and an honest node knew how to pay it: {order['states'][-1]['reason'][:160]}")
            if order["state"] not in {"succeeded", "failed"}:
                seen = [attempt["seen"] for attempt in order["attempts"]]
                why = f"{order['states'][-1]['reason']}; {order['waits_for']}; {seen[-1:]}"
                result.breach("lost_order", f"{name} is {order['state']} long after the lie: {why[:300]}")
            elif len(house.events.get(name, ())) != 1:
                result.breach("lost_event", f"{name} has {len(house.events.get(name, ()))} different terminal events")
        if len(self._recipients) < ORDERS:
            result.breach("lost_order", f"only {len(self._recipients)} of {ORDERS} orders were taken: {sorted(result.reasons)}")
        result.told = sum(liar.told for liar in self.liars.values())
        if not while_lying and not result.reasons:
            result.breach("other", "orders waited, and nothing says why")
        house.run(self._check_fees())
        if (halted := house.run(house.halted())) and not self._lost and not result.believed:
            result.breach("other", f"the lane is halted at the end: {halted[:160]}")
        elif not halted and not result.found and not result.believed:
            for text in house.run(house.differences()):
                result.breach("ledger_imbalance", text[:300])
        result.outcome = "went on" if while_lying else "waited for the truth"
        if result.quarantined or result.resumed:
            result.outcome = "asked a person"
        if result.believed:
            result.outcome = "believed"

    @property
    def _lost(self) -> bool:
        return self.case.family == "lightning" and self.case.lie in LOST_BY_OWN_NODE

    @property
    def _may_ask(self) -> bool:
        """Whether only a person can end what this lie began."""
        return self._lost or (self.case.who == "all" and bool(self.lie.limit))

    async def _resume(self) -> None:
        """What a person does about a lane that was halted, and only where every node told the lie that halted it."""
        halted = await self.house.halted()
        if halted and not self._may_ask:
            self.result.breach("other", f"the lane is halted, and only a person may end that: {halted[:160]}")
        self.result.resumed = halted
        for _ in range(RESUMES_MAX if halted else 0):
            await Commands(self.house.product).resume(self.scene.chain, "the nodes lied")
            await asyncio.sleep(30)
            if not await self.house.halted():
                break

    async def _check_fees(self) -> None:
        rows = await self.house.product.database.read(lambda tx: tx.all("SELECT gas_paid, fee_cap FROM attempt WHERE gas_paid IS NOT NULL"))
        for row in rows:
            if row["gas_paid"] > row["fee_cap"]:
                self.result.breach("other", f"a fee of {row['gas_paid']} above its cap {row['fee_cap']}")
