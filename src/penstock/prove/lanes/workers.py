"""The lane of several processes on one database: two that take orders, two workers, one signer. Real processes, PostgreSQL, load all the while.

First the worker that works falls asleep past its lease, the other takes over, and the sleeper wakes. It stops in the middle of a step: with a
slot bound, with a signature in its hands, with bytes on their way. Awake again it goes on as if nothing had been, and must not get far. Then
all four are killed and started again at random. One `serve` that answers in several processes has a story of its own (`family`), on SQLite too.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from penstock.db import Tx
from penstock.prove.installed.installation import ProgramFailed, answers, child, free_port, own_database
from penstock.prove.installed.premises import Premises, premises
from penstock.prove.installed.shop import CHAINS, SEVERAL, Shop
from penstock.prove.lane import Budget, Found, Tried
from penstock.prove.lanes import family
from penstock.prove.lanes.crash import FINISH_S, SCHEDULE

LANE: Final = "workers"
STEPS: Final = (
    "bind:after",
    "signer:journaled",
    "sign:before",
    "sign:after",
    "flight:submit",
    "submit:after",
    "sent:before",
    "flight:observe",
    "settle:before",
    "follow.claim:after",
    "send.claim:after",
    "webhook:sent",
    "recovery.release:before",
    "bind:before",
)
"""Where a worker falls asleep. At those that end in `before` it holds locks, until the server ends its connection."""
ASLEEP_S: Final = 12.0
"""A worker that has not come by its step within this is put to sleep where it is."""
TAKEN_S: Final = 40.0
ENDED_S: Final = 20.0
NEWS: Final = 3
"""So many events come from the new worker before the old one wakes."""
STORM_S: Final = 6.0
"""For each size, how long processes are killed at random."""
CALM_S: Final = (0.2, 1.5)
"""From one kill to the next."""
DOWN_S: Final = (0.0, 0.5, 2.0, 7.5)
"""How long a killed one is away; after the longest another worker has the seat."""


@dataclass(slots=True)
class _Process:
    """One home, role and port, and the process that runs there now."""

    home: Path
    role: str
    port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def is_asleep(self) -> bool:
        """Whether somebody has stopped it, it itself perhaps."""
        if self.process is None or self.process.returncode is not None:
            return False
        try:
            return Path(f"/proc/{self.process.pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] == "T"
        except OSError:
            return False  # gone a moment ago


@dataclass(slots=True)
class _House:
    """Two workers beside two API processes and a signer, all on one database."""

    place: Premises
    dice: random.Random
    workers: tuple[_Process, _Process]
    apis: tuple[_Process, _Process]
    kills: Counter[str] = field(default_factory=Counter)
    found: list[Found] = field(default_factory=list)
    steps: dict[str, int] = field(default_factory=dict)
    takeovers_ms: list[int] = field(default_factory=list)
    deaths: int = 0

    async def open(self) -> None:
        """The signer by itself, and the processes that take orders. Raises PremisesFailed."""
        place = self.place
        place.bystanders.append(await child(place.environment, place.folder / "signer.log", "-m", "penstock", "signer"))
        for api in self.apis:
            await self.start(api)
        for api in self.apis:
            await answers(place.http, f"{api.url}/readyz", api.process, place.log)

    async def start(self, which: _Process, step: str = "", visit: int = 1) -> None:
        """A life; where a step is given, it falls asleep there."""
        words = [
            "-m",
            "penstock.prove.installed.crashing",
            *(["--at", f"{step}:{visit}", "--asleep"] if step else []),
            "serve",
            "--role",
            which.role,
        ]
        own = {"PENSTOCK_HOME": str(which.home), "PENSTOCK_SERVER__LISTEN": f"127.0.0.1:{which.port}"}
        which.process = await child(self.place.environment | own, self.place.log, *words)
        self.place.bystanders.append(which.process)

    async def storm(self, seconds: float) -> None:
        """Any of the four is killed at any moment, two workers at a time too, and started again sooner or later. In the end all run."""
        deadline, returning = time.monotonic() + seconds, set[asyncio.Task[None]]()
        while time.monotonic() < deadline:
            await asyncio.sleep(self.dice.uniform(*CALM_S))
            alive = [one for one in (*self.workers, *self.apis) if one.process is not None and one.process.returncode is None]
            if alive:
                returning.add(asyncio.create_task(self._kill(self.dice.choice(alive), self.dice.choice(DOWN_S))))
        await asyncio.gather(*returning)

    async def _kill(self, which: _Process, down_s: float) -> None:
        process = which.process
        if process is None:
            return
        self.kills[which.role] += 1
        process.kill()
        code = await process.wait()
        if code != -signal.SIGKILL:
            self.found.append(Found("other", f"a process of role {which.role} had ended by itself with {code}"))
        await asyncio.sleep(down_s)
        await self.start(which)

    async def working(self) -> _Process | None:
        """Whose seat it is."""
        async with self.place.product() as product:
            row = await product.database.read(_holder)
        return next((worker for worker in self.workers if row.endswith(f":{worker.home}")), None)

    async def taken_from(self, worker: _Process | None) -> _Process:
        """Wait until somebody else has the seat. Raises ProgramFailed."""
        deadline = time.monotonic() + TAKEN_S
        while time.monotonic() < deadline:
            now = await self.working()
            if now is not None and now is not worker:
                return now
            await asyncio.sleep(0.2)
        raise ProgramFailed("nobody took the seat of a worker that is gone")

    async def round(self, shop: Shop, step: str, following: tuple[str, int]) -> None:
        """The one that works falls asleep, the other works, the first wakes and has to end; then it waits behind the other."""
        sleeper = await self.taken_from(None)
        await _until(sleeper.is_asleep, ASLEEP_S)
        self._put_to_sleep(sleeper, step)
        began = time.monotonic()
        other = await self.taken_from(sleeper)
        self.takeovers_ms.append(int(1000 * (time.monotonic() - began)))
        wanted = shop.arrivals + NEWS
        await _until(lambda: shop.arrivals >= wanted or other.is_asleep(), ASLEEP_S)
        await self._wake(sleeper)
        await self.start(sleeper, *following)

    async def start_anew(self) -> None:
        """Both as the product is: none that falls asleep."""
        for worker in self.workers:
            if worker.process is not None and worker.process.returncode is None:
                worker.process.kill()
                await worker.process.wait()
            await self.start(worker)

    def _put_to_sleep(self, sleeper: _Process, step: str) -> None:
        fell = sleeper.is_asleep()
        name = step if fell else "wherever it was"
        self.steps[name] = self.steps.get(name, 0) + 1
        if not fell and sleeper.process is not None:
            sleeper.process.send_signal(signal.SIGSTOP)

    async def _wake(self, sleeper: _Process) -> None:
        """It ends by itself, saying that it lost the seat; anything else is told."""
        if sleeper.process is None:
            return
        sleeper.process.send_signal(signal.SIGCONT)
        try:
            async with asyncio.timeout(ENDED_S):
                code = await sleeper.process.wait()
        except TimeoutError:
            self.found.append(Found("other", "a worker that had lost its seat in its sleep did not end"))
            sleeper.process.kill()
            code = await sleeper.process.wait()
        self.deaths += code == 1
        if code not in {1, -signal.SIGKILL}:
            self.found.append(Found("other", f"a worker that had lost its seat in its sleep ended with {code}"))


async def run(budget: Budget) -> Tried:
    """A house of each kind, and on PostgreSQL that of two workers. Size 1: one sleep, and a storm of seconds for each."""
    started = time.monotonic()
    databases = ["sqlite", *(["postgresql"] if budget.postgresql else [])]
    share = budget.seconds / (len(databases) + bool(budget.postgresql))
    families = [await family.tell(budget, database, started + share * turn) for turn, database in enumerate(databases, start=1)]
    two = await _two_workers(budget, started + budget.seconds) if budget.postgresql else Tried(LANE, {"rounds": 0})
    kills = sum((one.kills for one in families), Counter[str]())
    counts = {
        **two.counts,
        "orders": two.counts.get("orders", 0) + sum(one.orders for one in families),
        **{f"{who}_killed": kills[who] for who in ("answerer", "parent", "everybody")},
    }
    found = (*two.found, *(one for told in families for one in told.found))
    return Tried(LANE, counts, found, two.table, time.monotonic() - started)


async def _two_workers(budget: Budget, deadline: float) -> Tried:
    with own_database(budget.postgresql, f"penstock_workers_{budget.seed}_{time.time_ns() % 10**9}") as url:
        socket = budget.folder / "s"
        settings = {"PENSTOCK_WEBHOOKS__SCHEDULE": SCHEDULE, "PENSTOCK_SIGNER__SOCKET": str(socket), **SEVERAL}
        async with premises(budget.folder / "place", chains=CHAINS, database_url=url, **settings) as place:
            one, other = place.folder / "home", place.folder / "other"
            shutil.copytree(one, other, ignore=shutil.ignore_patterns("signer"))
            workers, apis = (_Process(one, "worker"), _Process(other, "worker")), (_Process(one, "api"), _Process(other, "api"))
            house = _House(place, random.Random(budget.seed), workers, apis)
            shop = Shop(place, budget.seed)
            shop.urls = tuple(api.url for api in apis)
            try:
                finished = await _tell(house, shop, budget, deadline)
            except ProgramFailed as failed:
                finished = False
                house.found.append(Found("other", f"the program did not go on: {failed}"))
            finally:
                await shop.close()
            replay = f"penstock.prove.lanes.workers: seed {budget.seed}, size {budget.size}; its log: {place.log}"
            found = [Found(one.breach, one.text, replay) for one in (*house.found, *shop.found)]
            counts = {
                "rounds": sum(house.steps.values()),
                "woken_and_ended": house.deaths,
                "workers_killed": house.kills["worker"],
                "apis_killed": house.kills["api"],
                "orders": len(shop.wishes),
                "events_received": shop.arrivals,
                "unfinished_stories": int(not finished),
                "slowest_takeover_ms": max(house.takeovers_ms, default=0),
            }
            table = tuple({"asleep_at": step, "times": times} for step, times in sorted(house.steps.items()))
            return Tried(LANE, counts, tuple(found), table)


async def _tell(house: _House, shop: Shop, budget: Budget, deadline: float) -> bool:
    """Round after round while there is time; then both are as the product is, and everything finishes."""
    await house.open()
    steps = list(STEPS) * max(1, budget.size - 1)
    house.dice.shuffle(steps)
    plan = [(step, house.dice.randint(1, 4)) for step in (steps[:1] if budget.size <= 1 else steps)]
    await shop.settle_in()
    await house.start(house.workers[0], *plan[0])
    await house.taken_from(None)
    await house.start(house.workers[1], *(plan[1] if len(plan) > 1 else ("", 1)))
    trading = asyncio.create_task(shop.trade())
    try:
        for number, (step, _) in enumerate(plan):
            if time.monotonic() > deadline - TAKEN_S and number >= 1:
                break
            budget.say(f"asleep at {step}")
            following = plan[number + 2] if number + 2 < len(plan) else ("", 1)
            await house.round(shop, step, following)
        await house.start_anew()
        budget.say("killed at random")
        await house.storm(min(STORM_S * budget.size, max(STORM_S, deadline - time.monotonic())))
    finally:
        shop.last_orders()
        await trading
    finished = await shop.finished_within(FINISH_S)
    if not finished:
        house.found.append(Found("other", f"not everything finished within {FINISH_S:g} s in good weather"))
    await shop.judge()
    await shop.books_equal_chains(20)
    return finished


async def _until(probe: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not probe() and time.monotonic() < deadline:  # noqa: ASYNC110  processes and many tasks feed it
        await asyncio.sleep(0.05)


def _holder(tx: Tx) -> str:
    row = tx.one("SELECT holder FROM seat")
    return str(row["holder"]) if row is not None else ""
