"""The lane of two workers on one database: the one that works falls asleep past its lease, the other takes over, and the sleeper wakes.

Two homes with one signer, real processes, PostgreSQL, load all the while. The sleeper stops in the middle of a step: with a slot bound, with
a signature in its hands, with bytes on their way. Awake again it goes on as if nothing had been, and must not get far.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from penstock.db import Tx
from penstock.prove.crash import FINISH_S, SCHEDULE
from penstock.prove.installation import ProgramFailed, answers, child, free_port, own_database
from penstock.prove.lane import Budget, Found, Tried
from penstock.prove.premises import Premises, premises
from penstock.prove.shop import CHAINS, Shop

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


@dataclass(slots=True)
class _Worker:
    """One home, and the process that works or waits there."""

    home: Path
    process: asyncio.subprocess.Process | None = None

    def is_asleep(self) -> bool:
        """Whether somebody has stopped it, it itself perhaps."""
        if self.process is None or self.process.returncode is not None:
            return False
        try:
            return Path(f"/proc/{self.process.pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] == "T"
        except OSError:
            return False  # gone a moment ago


@dataclass(slots=True)
class _Pair:
    """Two workers beside an API process and a signer, all on one database."""

    place: Premises
    dice: random.Random
    workers: tuple[_Worker, _Worker]
    found: list[Found] = field(default_factory=list)
    steps: dict[str, int] = field(default_factory=dict)
    takeovers_ms: list[int] = field(default_factory=list)
    deaths: int = 0

    async def start(self, worker: _Worker, step: str = "", visit: int = 1) -> None:
        """A life that falls asleep at the step."""
        words = ["-m", "penstock.prove.crashing", *(["--at", f"{step}:{visit}", "--asleep"] if step else []), "serve", "--role", "worker"]
        own = {"PENSTOCK_HOME": str(worker.home), "PENSTOCK_SERVER__LISTEN": f"127.0.0.1:{free_port()}"}
        worker.process = await child(self.place.environment | own, self.place.log, *words)
        self.place.bystanders.append(worker.process)

    async def working(self) -> _Worker | None:
        """Whose seat it is."""
        async with self.place.product() as product:
            row = await product.database.read(_holder)
        return next((worker for worker in self.workers if row.endswith(f":{worker.home}")), None)

    async def taken_from(self, worker: _Worker | None) -> _Worker:
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

    def _put_to_sleep(self, sleeper: _Worker, step: str) -> None:
        fell = sleeper.is_asleep()
        name = step if fell else "wherever it was"
        self.steps[name] = self.steps.get(name, 0) + 1
        if not fell and sleeper.process is not None:
            sleeper.process.send_signal(signal.SIGSTOP)

    async def _wake(self, sleeper: _Worker) -> None:
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
    """On PostgreSQL; without one nothing is tried. Size 1: one sleep."""
    started = time.monotonic()
    if not budget.postgresql:
        return Tried(LANE, {"rounds": 0})
    with own_database(budget.postgresql, f"penstock_workers_{budget.seed}_{time.time_ns() % 10**9}") as url:
        socket = budget.folder / "s"
        settings = {"PENSTOCK_WEBHOOKS__SCHEDULE": SCHEDULE, "PENSTOCK_SIGNER__SOCKET": str(socket)}
        async with premises(budget.folder / "place", chains=CHAINS, database_url=url, **settings) as place:
            homes = (place.folder / "home", place.folder / "other")
            shutil.copytree(homes[0], homes[1], ignore=shutil.ignore_patterns("signer"))
            dice = random.Random(budget.seed)
            pair = _Pair(place, dice, (_Worker(homes[0]), _Worker(homes[1])))
            shop = Shop(place, budget.seed)
            try:
                finished = await _tell(pair, shop, budget, started + budget.seconds)
            except ProgramFailed as failed:
                finished = False
                pair.found.append(Found("other", f"the program did not go on: {failed}"))
            finally:
                await shop.close()
            replay = f"penstock.prove.workers: seed {budget.seed}, size {budget.size}; its log: {place.log}"
            found = [Found(one.breach, one.text, replay) for one in (*pair.found, *shop.found)]
            counts = {
                "rounds": sum(pair.steps.values()),
                "woken_and_ended": pair.deaths,
                "orders": len(shop.wishes),
                "events_received": shop.arrivals,
                "unfinished_stories": int(not finished),
                "slowest_takeover_ms": max(pair.takeovers_ms, default=0),
            }
            table = tuple({"asleep_at": step, "times": times} for step, times in sorted(pair.steps.items()))
            return Tried(LANE, counts, tuple(found), table, time.monotonic() - started)


async def _tell(pair: _Pair, shop: Shop, budget: Budget, deadline: float) -> bool:
    """Round after round while there is time; then both are as the product is, and everything finishes."""
    place = pair.place
    await _open(place)
    steps = list(STEPS) * max(1, budget.size - 1)
    pair.dice.shuffle(steps)
    plan = [(step, pair.dice.randint(1, 4)) for step in (steps[:1] if budget.size <= 1 else steps)]
    await shop.settle_in()
    await pair.start(pair.workers[0], *plan[0])
    await pair.taken_from(None)
    await pair.start(pair.workers[1], *(plan[1] if len(plan) > 1 else ("", 1)))
    trading = asyncio.create_task(shop.trade())
    try:
        for number, (step, _) in enumerate(plan):
            if time.monotonic() > deadline - TAKEN_S and number >= 1:
                break
            budget.say(f"asleep at {step}")
            following = plan[number + 2] if number + 2 < len(plan) else ("", 1)
            await pair.round(shop, step, following)
    finally:
        shop.last_orders()
        await trading
    await pair.start_anew()
    finished = await shop.finished_within(FINISH_S)
    if not finished:
        pair.found.append(Found("other", f"not everything finished within {FINISH_S:g} s in good weather"))
    await shop.judge()
    await shop.books_equal_chains(20)
    return finished


async def _open(place: Premises) -> None:
    """The signer by itself, and a process that takes orders."""
    place.bystanders.append(await child(place.environment, place.folder / "signer.log", "-m", "penstock", "signer"))
    place.process = await child(place.environment, place.log, "-m", "penstock", "serve", "--role", "api")
    await answers(place.http, f"{place.url}/readyz", place.process, place.log)


async def _until(probe: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not probe() and time.monotonic() < deadline:  # noqa: ASYNC110  processes and many tasks feed it
        await asyncio.sleep(0.05)


def _holder(tx: Tx) -> str:
    row = tx.one("SELECT holder FROM seat")
    return str(row["holder"]) if row is not None else ""
