"""`penstock prove`: every lane in turn, each in a folder and for a share of the time of its own, and one result of all.

A lane is imported only when it runs: none of this is ever part of `serve`.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import inspect
import os
import platform
import random
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, get_args

from penstock.prove.lane import Breach, Budget, Found, Tried

SUMS: Final[dict[Breach, str]] = {
    "double_payment": "double_payments",
    "lost_order": "lost_orders",
    "ledger_imbalance": "ledger_imbalances",
    "overdraft": "overdrafts",
    "lost_event": "lost_events",
    "leaked_secret": "leaked_secrets",
    "other": "other_breaches",
}
"""What each kind of breach is called where it is counted."""
LEAST_S: Final = 1.0
"""What a lane has when those before it have used up everything: enough for the least that it does."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One way to try to break Penstock: where its function is, how much of the time it has, and what it does, for people."""

    name: str
    function: str
    share: float
    title: str
    by_name: bool = False
    """Runs only where it is asked for."""


LANES: Final = (
    Lane("races", "penstock.prove.lanes.races:run", 0.05, "a thousand callers at once: one id, one balance"),
    Lane("hostile", "penstock.prove.lanes.hostile:run", 0.08, "forged, bent and replayed requests over real sockets"),
    Lane("sinks", "penstock.prove.lanes.sinks:run", 0.05, "receivers of webhooks that hang, lie and point inwards"),
    Lane("canaries", "penstock.prove.lanes.canaries:run", 0.04, "marked secrets, and whether they show up anywhere"),
    Lane("redteam", "penstock.prove.lanes.redteam:run", 0.04, "a gateway in a thief's hands, against the real signer"),
    Lane("lying", "penstock.prove.lanes.lying:run", 0.12, "nodes that lie, on every network"),
    Lane("tamper", "penstock.prove.lanes.tamper:run", 0.04, "rows edited behind our back"),
    Lane("crash", "penstock.prove.lanes.crash:run", 0.22, "the real program killed at named points"),
    Lane(
        "workers",
        "penstock.prove.lanes.workers:run",
        0.05,
        "two API processes and two workers on one database, asleep past their lease or killed",
    ),
    Lane("history", "penstock.prove.lanes.witness:run", 0.08, "what merchants saw of a killed program has one order of things"),
    Lane("rollback", "penstock.prove.lanes.rollback:run", 0.06, "older copies of database and journal put back, on every network"),
    Lane("planted", "penstock.prove.planted.lane:run", 0.13, "known bugs of the field put in: does the simulation see them?"),
    Lane("simulation", "penstock.prove.lanes.seeds:run", 0.17, "whole days of bad weather on all networks, in virtual time"),
    Lane("soak", "penstock.prove.lanes.soak:run", 1.0, "the same for long, with an eye on memory and open files", by_name=True),
)


@dataclass(frozen=True, slots=True)
class Proof:
    """What all lanes did, for the terminal, as JSON and as a page."""

    values: dict[str, Any]

    @property
    def holds(self) -> bool:
        """No breach, and every planted bug was caught."""
        missed: int = self.values["planted_bugs"] - self.values["planted_bugs_caught"]
        return not missed and not any(self.values[name] for name in SUMS.values())


def chosen(names: Sequence[str]) -> list[Lane]:
    """The lanes of these names; when none is named all but those that are run by name. Raises ValueError for a name that is none."""
    known = {lane.name: lane for lane in LANES}
    if strange := [name for name in names if name not in known]:
        raise ValueError(f"no lane is called {strange[0]}; there are {', '.join(known)}")
    return [known[name] for name in names] or [lane for lane in LANES if not lane.by_name]


def prove(
    lanes: Sequence[Lane],
    *,
    minutes: float,
    seed: int | None,
    size: int,
    postgresql: str = "",
    say: Callable[[Lane, str], None],
) -> Proof:
    """Run lane after lane. A lane that breaks down itself is a breach: nothing is passed that did not run. Each has its share of what the ones
    before it have left, so that those that need their time whole are made up for by those that can end at any moment, which come last.
    """
    began, wall = time.monotonic(), datetime.now(UTC)
    seed = random.SystemRandom().randrange(1, 2**31) if seed is None else seed
    left = sum(lane.share for lane in lanes)
    results: list[tuple[Tried, float]] = []
    with tempfile.TemporaryDirectory(prefix="penstock-prove-") as name:
        for lane in lanes:
            folder = Path(name) / lane.name
            folder.mkdir(mode=0o700)
            say(lane, "")
            budget = Budget(
                seconds=max(LEAST_S, (began + minutes * 60 - time.monotonic()) * lane.share / left),
                seed=seed,
                folder=folder,
                size=size,
                postgresql=postgresql,
                say=lambda line, lane=lane: say(lane, line),  # type: ignore[misc]
            )
            left -= lane.share
            results.append((_one(lane, budget), budget.seconds))
    return Proof(
        {
            **_sums([tried for tried, _ in results]),  # first: a lane may count something by a name of ours
            "at": f"{wall:%Y-%m-%dT%H:%M:%SZ}",
            "seed": seed,
            "took_s": round(time.monotonic() - began, 1),
            "version": importlib.metadata.version("penstock"),
            "machine": _machine(),
            "databases": ["sqlite", *(["postgresql"] if postgresql else [])],
            "lanes": [_lane(tried, seconds) for tried, seconds in results],
        }
    )


def _one(lane: Lane, budget: Budget) -> Tried:
    began = time.monotonic()
    try:
        module, _, name = lane.function.partition(":")
        result = getattr(importlib.import_module(module), name)(budget)
        tried: Tried = asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result
    except Exception as error:  # noqa: BLE001  whatever it was, the lane proved nothing
        text = f"the lane itself ended with {type(error).__name__}: {str(error)[:500]}"
        tried = Tried(lane.name, {}, (Found("other", text, f"penstock prove --only {lane.name} --seed {budget.seed}"),))
    return Tried(lane.name, tried.counts, tried.found, tried.table, time.monotonic() - began)


async def _awaited(work: Any) -> Any:
    return await work


def _sums(results: Sequence[Tried]) -> dict[str, int]:
    found = Counter(SUMS[one.breach] for tried in results for one in tried.found)
    counts: Counter[str] = Counter({"planted_bugs": 0, "planted_bugs_caught": 0})
    for tried in results:
        counts.update(tried.counts)
    return {**counts, **{name: found[name] for name in SUMS.values()}}


def _lane(tried: Tried, seconds: float) -> dict[str, Any]:
    return {
        "lane": tried.lane,
        "title": next(lane.title for lane in LANES if lane.name == tried.lane),
        "took_s": round(tried.took_s, 1),
        "had_s": round(seconds, 1),
        "counts": dict(tried.counts),
        "found": [{"breach": one.breach, "text": one.text, "replay": one.replay} for one in tried.found],
        "table": [dict(row) for row in tried.table],
    }


def _machine() -> str:
    return f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"


if set(SUMS) != set(get_args(Breach)):
    raise AssertionError("a kind of breach has no name to be counted under")
