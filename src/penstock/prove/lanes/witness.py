"""The lane of witnesses: merchants note all that the real program tells them while it is killed and nodes lie, and no order of things may be missing.

`penstock prove --only history` runs it on SQLite, and on PostgreSQL where there is one.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from penstock.catalog import Catalog
from penstock.core.order import TERMINAL, OrderState
from penstock.prove.histories.customers import CHAINS, CLIENTS, FUNDS, Customer
from penstock.prove.histories.history import CONFLICT, OK, SHORT, UNKNOWN, History
from penstock.prove.installed.installation import ProgramFailed, own_database
from penstock.prove.installed.premises import BLOCK_MS, ENTRY, Premises, premises
from penstock.prove.lane import Budget, Found, Tried
from penstock.prove.liars.liar import Liar
from penstock.prove.liars.lies import LIES
from penstock.prove.liars.lines import lying_proxy

LANE: Final = "history"
DATABASES: Final = ("sqlite", "postgresql")
FINISH_S: Final = 90.0
END_S: Final = 20.0
"""What the last orders and the verdict take of the time, about."""
TROUBLE_S: Final = 4.0
"""There is never less trouble than this."""
PAUSE_S: Final = 0.06
"""Between two calls of a client."""
SCHEDULE: Final = "1,1,1,2,2,3,3,5,5,10,10,10,10,10,10,10"
DEATHS: Final = (
    "intake:unreserved",
    "intake:before",
    "intake:after",
    "answer:begun",
    "bind:after",
    "settle:before",
    "settle:booked",
    "settle:after",
)
"""Labels of the road at which a life may end, besides any moment at all: those between what a merchant is told and what is stored."""
TOLD: Final = (
    "timeout_after_accept", "timeout_before_accept", "reset_after_accept", "reset_mid_body", "http_500_after_accept", "http_503_before_accept",
    "http_429_storm", "truncated_json", "wrong_id", "answer_before", "refused_after_accept", "foreign_hash", "swallowed", "false_absence",
    "flapping_absence", "head_going_back", "stale_head", "old_nonce", "fee_times_a_million",
)  # fmt: skip
"""What one node of two may do meanwhile; the lane `lying` has them all, and judges what they lead to."""


@dataclass(slots=True)
class Stage:
    """One installation, its merchants, and what happens to it."""

    place: Premises
    dice: random.Random
    hook: str
    account: str
    liars: list[Liar]
    history: History = field(default_factory=History)
    customers: dict[str, Customer] = field(default_factory=dict)
    found: list[Found] = field(default_factory=list)
    is_over: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    catalog: Catalog = field(default_factory=Catalog.load)

    async def enter(self, *, is_tight: bool = False) -> Customer:
        """One more merchant."""
        customer = Customer(self.place, f"{'tight' if is_tight else 'm'}{len(self.customers)}", self.dice, self.history)
        self.customers[customer.name] = customer
        async with self.place.commands() as commands:
            await customer.settle_in(commands, self.catalog, self.hook, self.account, is_tight=is_tight)
        return customer

    async def trade(self, customer: Customer, pause_s: float) -> None:
        """All clients of one merchant at once, until it closes or has nothing left to order."""
        await asyncio.gather(*(customer.trade(pause_s) for _ in range(CLIENTS)))

    async def kill(self) -> None:
        """SIGKILL, now or at a label of the next life, and start again."""
        self.place.signal(signal.SIGKILL)
        await self.place.dead_within(10)
        self.counts["kills"] += 1
        if self.dice.random() < 0.5:
            await self.place.start(f"{self.dice.choice(DEATHS)}:{self.dice.randint(1, 8)}")
            self.counts["kills"] += await self.place.dead_within(8)
        await self.place.start()  # a life that has not come by its label yet would die of it some other time

    def lie(self) -> None:
        """The first node of each network gets another habit, or none."""
        for liar in self.liars:
            liar.on = self.dice.random() < 0.7
            liar.lie = LIES[self.dice.choice(TOLD)]
            self.counts["lies"] += liar.on

    async def heal(self) -> None:
        """Good weather: nobody lies, and a life that nothing kills, which begins when nothing is under way any more."""
        for liar in self.liars:
            liar.on = False
        self.place.signal(signal.SIGKILL)
        await self.place.dead_within(10)
        await self.place.start()
        await self.place.ready()

    async def judge(self) -> None:
        """Everybody closes; what is there has its end, and then the histories, the recipients and the books are looked at."""
        deadline, left = time.monotonic() + FINISH_S, list[str]()
        for customer in self.customers.values():
            left += await customer.finish(deadline)
            self.found += customer.found
        if left:
            self.found.append(Found("other", f"{len(left)} orders did not end within {FINISH_S:g} s: {await self._stuck()}"))
        self.found += self.history.judge()
        async with self.place.commands() as commands:
            report = await commands.audit()
        self.found += [Found("ledger_imbalance", f"audit: {one['invariant']} {one['text']}") for one in report["breaches"]]

    async def _stuck(self) -> str:
        """What is left, for whoever looks."""
        async with self.place.commands() as commands:
            left = []
            for state in set(OrderState) - TERMINAL:
                rows = await commands.list_orders(state=state, app_id="", chain="", limit=3)
                left += [(row["merchant_order_id"], row["chain"], row["state"], row["hold_reason"], row["network_fee"]) for row in rows]
            return f"{left}, {await commands.holds()}, {await commands.signing_stopped()}"

    def counted(self) -> dict[str, int]:
        """What was seen, by what it was."""
        calls = Counter((call.kind, call.code) for call in self.history.calls)
        kinds = Counter(call.kind for call in self.history.calls)
        return {
            **self.counts,
            "calls": len(self.history.calls),
            "orders": sum(len(customer.order_ids) for customer in self.customers.values()),
            "created": calls["create", OK],
            "unknown": calls["create", UNKNOWN],
            "conflicts": calls["create", CONFLICT],
            "short": calls["create", SHORT],
            "cancelled": calls["cancel", OK],
            "queries": kinds["query"],
            "balances": kinds["balance"],
            "events_received": kinds["event"],
            "lies_told": sum(liar.told for liar in self.liars),
            "lives": self.place.lives,
        }


async def run(budget: Budget, *, databases: Sequence[str] = DATABASES, entry: Sequence[str] = ENTRY, weather: bool = True) -> Tried:
    """One installation a database; the seconds are shared. `entry` runs another program in its place, to see what this lane sees; without
    `weather` nobody kills it, and no node lies.
    """
    began = time.monotonic()
    told = [database for database in databases if database == "sqlite" or budget.postgresql]
    counts, found = Counter[str](databases=len(told)), list[Found]()
    for number, database in enumerate(told):
        share = (budget.seconds - (time.monotonic() - began)) / (len(told) - number)
        counted, breaches = await _watch(budget, database, share, entry, weather=weather)
        counts.update(counted)
        found += [Found(one.breach, f"{database}: {one.text}", f"penstock prove --only {LANE} --seed {budget.seed}") for one in breaches]
    return Tried(LANE, counts, tuple(found), (), time.monotonic() - began)


async def _watch(
    budget: Budget, database: str, seconds: float, entry: Sequence[str], *, weather: bool
) -> tuple[dict[str, int], list[Found]]:
    deadline = time.monotonic() + seconds - END_S
    async with staged(budget.folder / database, budget.seed, budget.postgresql if database == "postgresql" else "", entry) as stage:
        try:
            customers = [await stage.enter(is_tight=number == 0) for number in range(2 + budget.size)]
            trading = [asyncio.create_task(stage.trade(customer, PAUSE_S)) for customer in customers]
            deadline = max(deadline, time.monotonic() + TROUBLE_S)
            await (_trouble(stage, deadline, budget) if weather else asyncio.sleep(deadline - time.monotonic()))
            for customer in customers:
                customer.is_open = False
            await asyncio.gather(*trading)
            await stage.heal()
            await stage.judge()
        except ProgramFailed as failed:
            stage.found.append(Found("other", f"the program did not come back: {failed}"))
        return stage.counted(), stage.found


async def _trouble(stage: Stage, deadline: float, budget: Budget) -> None:
    """Kills and lies in turn while there is time."""
    while time.monotonic() < deadline:
        stage.lie()
        await asyncio.sleep(stage.dice.uniform(0.5, 2.0))
        budget.say(f"{len(stage.history.calls)} calls, {stage.counts['kills']} kills")
        await stage.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await stage.place.ready()


@contextlib.asynccontextmanager
async def staged(folder: Path, seed: int, server: str, entry: Sequence[str] = ENTRY) -> AsyncIterator[Stage]:
    """A program that runs, with money on its addresses, a liar before the first node of each network, and a receiver of webhooks."""
    async with contextlib.AsyncExitStack() as stack:
        url = stack.enter_context(own_database(server, f"penstock_history_{seed}_{time.time_ns() % 10**9}")) if server else ""
        place = await stack.enter_async_context(premises(folder, chains=CHAINS, database_url=url, PENSTOCK_WEBHOOKS__SCHEDULE=SCHEDULE))
        place.entry = tuple(entry)
        liars = [await _liar(stack, place, chain, seed) for chain in CHAINS]
        await place.start()
        await place.ready()
        async with place.commands() as commands:
            account = str((await commands.add_account("ada@example.com", "Ada"))["c_id"])
            hot = await commands.treasury_rows()
        customers: dict[str, Customer] = {}
        stage = Stage(place, random.Random(seed), await _receiver(stack, customers), account, liars, customers=customers)
        await _fund(stage, hot)
        yield stage


async def _liar(stack: contextlib.AsyncExitStack, place: Premises, chain: str, seed: int) -> Liar:
    """Before the first node of a network."""
    name = f"PENSTOCK_NETWORKS__{chain}__RPC_URLS"
    network = Catalog.load().network(chain)
    if network is None:
        raise ValueError(f"{chain} is not in the catalogue")
    first, *others = place.environment[name].split(",")
    liar = Liar(LIES[TOLD[0]], network.family, chain_id=int(place.environment[f"PENSTOCK_NETWORKS__{chain}__CHAIN_ID"]), seed=seed)
    liar.on = False
    proxy = await stack.enter_async_context(lying_proxy(first, liar))
    place.environment[name] = ",".join([proxy.url, *others])
    return liar


async def _receiver(stack: contextlib.AsyncExitStack, customers: dict[str, Customer]) -> str:
    async def receive(request: web.Request) -> web.Response:
        return await customers[request.match_info["name"]].receive(request)

    application = web.Application()
    application.router.add_post("/{name}", receive)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return f"http://127.0.0.1:{runner.addresses[0][1]}"


async def _fund(stage: Stage, hot: Sequence[Mapping[str, Any]]) -> None:
    """Coins on the hot addresses, and blocks as often as the settings say."""
    for chain in CHAINS:
        await stage.place.control(chain, "block_time", block_ms=BLOCK_MS)
    for row in hot:
        token = stage.catalog.by_symbol(row["crypto"], row["chain"])
        if token is None or row["chain"] not in CHAINS or row["crypto"] not in FUNDS:
            continue
        units = str(FUNDS[row["crypto"]] * 10**token.decimals)
        how = {"do": "fund"} if token.contract is None else {"do": "fund_token", "contract": token.contract}
        await stage.place.control(row["chain"], **how, address=row["address"], units=units)
