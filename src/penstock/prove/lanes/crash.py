"""The lane that kills the real program: at every crash point, at random times, while it recovers, and takes its world away from it.

One story a database: `serve` on a home of its own, devnet with all five families, a merchant that never gives up. Blow after blow falls on
it under load; then the world is good again, everything must finish, and the networks' own truth is asked what each order got.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from psycopg import AsyncConnection, sql

from penstock.prove.installed.blows import Blow, Calm, Kill, KillAt, Scene
from penstock.prove.installed.installation import ProgramFailed
from penstock.prove.installed.plan import plan
from penstock.prove.installed.premises import premises
from penstock.prove.installed.shop import CHAINS, SEVERAL, Shop
from penstock.prove.installed.wire import wired
from penstock.prove.lane import Budget, Found, Tried

LANE: Final = "crash"
DATABASES: Final = ("sqlite", "postgresql")
BIRTHS_MIN: Final = 2
BIRTHS_SHARE: Final = 0.2
BIRTH_S: Final = 3.0
"""The first starts of all may take that share of the time, at so many seconds each; which of them is drawn."""
FINISH_S: Final = 90.0
"""In good weather every order is over within this, leases of the dead included."""
BETWEEN: Final = 6
"""So many events come between two blows."""
SCHEDULE: Final = "1,1,1,2,2,3,3,5,5,10,10,10,10,10,10,10"
"""Webhooks are tried again sooner than in production, or a story would take four days."""

Restart = Callable[[], Awaitable[None]]
"""Restarts PostgreSQL as `pg_ctl restart -m immediate` does: nothing is flushed, every connection is cut; returns once it answers again."""


@dataclass(slots=True)
class _Row:
    """What became of one kind of blow."""

    falls: int = 0
    missed: int = 0
    orders: int = 0
    answered_s: list[float] = field(default_factory=list)
    event_s: list[float] = field(default_factory=list)


@dataclass(slots=True)
class _Story:
    """One database's story, as far as it was told."""

    database: str
    rows: dict[str, _Row] = field(default_factory=dict)
    found: list[Found] = field(default_factory=list)
    orders: int = 0
    lives: int = 0
    arrivals: int = 0
    refusals: int = 0
    commits_lost: int = 0
    finished: bool = False

    def row(self, blow: Blow) -> _Row:
        return self.rows.setdefault(blow.name, _Row())


async def run(budget: Budget, *, restart: Restart | None = None, only: Sequence[str] = (), databases: Sequence[str] = DATABASES) -> Tried:
    """One database after the other. `restart` belongs to `budget.postgresql`; without it that blow is left out. `only`: these blows.

    The seconds are shared; a story that has none left lets everything finish and is judged on the blows that fell.
    """
    started = time.monotonic()
    told = [database for database in databases if database == "sqlite" or budget.postgresql]
    stories = []
    for number, database in enumerate(told):
        share = (budget.seconds - (time.monotonic() - started)) / (len(told) - number)
        stories.append(await _tell(budget, database, restart if database == "postgresql" else None, share, only))
    found = [found for story in stories for found in story.found]
    return Tried(LANE, _counts(stories), tuple(found), tuple(_table(stories)), time.monotonic() - started)


async def _tell(budget: Budget, database: str, restart: Restart | None, seconds: float, only: Sequence[str]) -> _Story:
    story = _Story(database)
    deadline = time.monotonic() + seconds
    blows = plan(database, budget.seed, budget.size, restarts=restart is not None, only=only)
    async with contextlib.AsyncExitStack() as stack:
        url, wire_url, wire = "", "", None
        if database == "postgresql":
            url = await stack.enter_async_context(
                _own_database(budget.postgresql, f"penstock_crash_{budget.seed}_{time.time_ns() % 10**9}")
            )
            wire_url, wire = await stack.enter_async_context(wired(url))
        folder = budget.folder / database
        settings = {"PENSTOCK_WEBHOOKS__SCHEDULE": SCHEDULE, **(SEVERAL if budget.seed % 2 else {})}
        place = await stack.enter_async_context(premises(folder, chains=CHAINS, database_url=url, wire_url=wire_url, **settings))
        shop = Shop(place, budget.seed)
        stack.push_async_callback(shop.close)
        scene = Scene(place, shop, random.Random(budget.seed), wire, restart)
        try:
            await _live(scene, story, blows, deadline, budget.say)
            story.finished = await _end(scene)
            if not story.finished:
                shop.found.append(Found("other", f"not everything finished within {FINISH_S:g} s in good weather: {await _stuck(scene)}"))
            await shop.judge()
            await shop.books_equal_chains(20)
        except ProgramFailed as failed:
            shop.found.append(Found("other", f"the program did not come back: {failed}"))
        replay = f"penstock.prove.lanes.crash: seed {budget.seed}, size {budget.size}, {database}; its log: {place.log}"
        story.found += [Found(one.breach, f"{database}: {one.text}", replay) for one in shop.found]
        story.orders, story.lives, story.arrivals = len(shop.wishes), place.lives, shop.arrivals
        story.refusals, story.commits_lost = sum(shop.refusals.values()), wire.lost if wire is not None else 0
    return story


async def _live(scene: Scene, story: _Story, blows: Sequence[Blow], deadline: float, say: Callable[[str], None]) -> None:
    """Born, then blow after blow while there is time. What every start passes is killed at the first start already: there is no schema yet."""
    place, shop = scene.place, scene.shop
    births = [blow for blow in blows if isinstance(blow, KillAt) and blow.point.weather == "migration"]
    count = max(BIRTHS_MIN, int((deadline - time.monotonic()) * BIRTHS_SHARE / BIRTH_S))
    for blow in sorted(scene.dice.sample(births, min(count, len(births))), key=births.index):
        await place.start(blow.at)
        _count(story.row(blow), fell=await place.dead_within(30), orders=0)
    await place.start()
    await place.ready()
    await shop.settle_in()
    trading = asyncio.create_task(shop.trade())
    try:
        await Calm("", until_events=2).fall(scene)
        for later in [blow for blow in blows if blow not in births]:
            if time.monotonic() > deadline - 25:  # what is open has to finish
                break
            say(f"{story.database}: {later.name}")
            await _strike(scene, story, later)
    finally:
        shop.last_orders()
        await trading


async def _strike(scene: Scene, story: _Story, blow: Blow) -> None:
    """Let it fall, bring up what it killed, and see how long nothing moved."""
    row, before = story.row(blow), len(scene.shop.wishes)
    began = time.monotonic()
    fell = await blow.fall(scene)
    ended = time.monotonic()
    if isinstance(blow, Kill | KillAt) or not scene.place.is_running:
        await scene.revive()
    if not (isinstance(blow, KillAt) and blow.again):  # the next blow falls before anything can move
        silence = await scene.silence(began if blow.is_sudden else ended, ended)
        if silence is not None:
            row.answered_s.append(silence[0])
            row.event_s.append(silence[1])
        await Calm("", until_events=BETWEEN).fall(scene)
    _count(row, fell=fell, orders=len(scene.shop.wishes) - before)


def _count(row: _Row, *, fell: bool, orders: int) -> None:
    row.falls += fell
    row.missed += not fell
    row.orders += orders


async def _end(scene: Scene) -> bool:
    """The world is good, nothing kills any more: everything finishes, also after one more clean stop."""
    if not scene.place.is_running:
        await scene.revive()
    await scene.heal()
    await scene.place.ready()  # one that is only starting has not heard of clean stops yet
    code = await scene.place.stop()
    if code != 0:
        scene.shop.found.append(Found("other", f"a clean stop ended with {code}"))
    await scene.place.start()
    await scene.place.ready()
    return await scene.shop.finished_within(FINISH_S)


async def _stuck(scene: Scene) -> str:
    """What is left, for whoever looks."""
    async with scene.place.commands() as commands:
        rows = await commands.list_orders(state="", app_id="", chain="", limit=1000)
        left = [row for row in rows if row["state"] not in {"succeeded", "failed"}]
    open_wishes = [wish.name for wish in scene.shop.unfinished()]
    return json.dumps(
        {"orders": left[:5], "count": len(left), "wishes": open_wishes[:10], "refused": dict(scene.shop.refusals)}, default=str
    )


@contextlib.asynccontextmanager
async def _own_database(server: str, name: str) -> AsyncIterator[str]:
    """The URL of an empty database on the server, dropped at the end; its user may create databases."""
    base, _, query = server.partition("?")
    drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
    async with await AsyncConnection.connect(server, autocommit=True) as admin:
        await admin.execute(drop)
        await admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    try:
        yield f"{base.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")
    finally:
        async with await AsyncConnection.connect(server, autocommit=True) as admin:
            await admin.execute(drop)


def _counts(stories: Sequence[_Story]) -> dict[str, int]:
    rows = [row for story in stories for row in story.rows.values()]
    slowest = [max(row.answered_s + row.event_s, default=0.0) for row in rows]
    return {
        "databases": len(stories),
        "orders": sum(story.orders for story in stories),
        "blows": sum(row.falls for row in rows),
        "blows_not_reached": sum(row.missed for row in rows),
        "points": len({name for story in stories for name, row in story.rows.items() if row.falls}),
        "lives": sum(story.lives for story in stories),
        "events_received": sum(story.arrivals for story in stories),
        "refusals_repeated": sum(story.refusals for story in stories),
        "commits_lost": sum(story.commits_lost for story in stories),
        "unfinished_stories": sum(not story.finished for story in stories),
        "slowest_progress_ms": int(1000 * max(slowest, default=0.0)),
    }


def _table(stories: Sequence[_Story]) -> list[dict[str, Any]]:
    """A row a blow: how often it fell, and the longest until an answer, and until an event, came again."""
    return [
        {
            "database": story.database,
            "blow": name,
            "fell": row.falls,
            "not_reached": row.missed,
            "orders": row.orders,
            "answers_again_s": round(max(row.answered_s, default=0.0), 2),
            "events_again_s": round(max(row.event_s, default=0.0), 2),
        }
        for story in stories
        for name, row in story.rows.items()
    ]
