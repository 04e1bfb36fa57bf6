"""The soak: the history lane for as long as one likes, at a steady rate, with an eye on memory and open files (test plan, D9).

`penstock prove --only soak --minutes 60`, or `make soak MINUTES=60`.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from penstock.prove.installed.installation import ProgramFailed
from penstock.prove.lane import Budget, Found, Tried
from penstock.prove.lanes.witness import Stage, staged

LANE: Final = "soak"
CUSTOMERS: Final = 3
PAUSE_S: Final = 0.5
"""Between two calls of a client: with three clients each, about five orders a second in all."""
KILLS_SHARE: Final = 0.2
"""Of the time. After it one life has to last, or a slope would say nothing."""
WARM_SHARE: Final = 0.25
"""Of that life, before what it holds is measured."""
LOOK_S: Final = 2.0
GROWTH_MAX_BYTES: Final = 50 * 1024 * 1024
FILES_GROWTH_MAX: Final = 30
MEASURED_S_MIN: Final = 300.0
"""Caches that fill look like leaks; below this no slope is judged."""


@dataclass(slots=True)
class Gauge:
    """What one life held, look by look: seconds since it began, bytes, open files."""

    looks: list[tuple[float, int, int]] = field(default_factory=list)

    def look(self, pid: int, at_s: float) -> None:
        """Once more; nothing where the system does not say."""
        folder = Path(f"/proc/{pid}")
        try:
            kib = next(line.split()[1] for line in (folder / "status").read_text("ascii").splitlines() if line.startswith("VmRSS"))
            self.looks.append((at_s, int(kib) * 1024, sum(1 for _ in (folder / "fd").iterdir())))
        except (OSError, StopIteration):
            return

    def counted(self) -> dict[str, int]:
        """Memory at the end and how it grew, and the same of open files, after the warm-up."""
        warm = self.looks[int(len(self.looks) * WARM_SHARE) :]
        if len(warm) < 2:
            return {}
        times, sizes, files = zip(*warm, strict=True)
        third = max(1, len(files) // 3)
        return {
            "measured_s": int(times[-1] - times[0]),
            "resident_bytes": sizes[-1],
            "resident_bytes_per_hour": int(3600 * statistics.linear_regression(times, sizes).slope),
            "files": max(files),
            "files_grown": int(statistics.median(files[-third:]) - statistics.median(files[:third])),
        }


async def run(budget: Budget) -> Tried:
    """On SQLite, or on PostgreSQL where there is one."""
    began = time.monotonic()
    async with staged(budget.folder, budget.seed, budget.postgresql) as stage:
        gauge = Gauge()
        try:
            await _live(stage, gauge, budget, began + budget.seconds)
            await stage.heal()
            await stage.judge()
        except ProgramFailed as failed:
            stage.found.append(Found("other", f"the program did not come back: {failed}"))
        counts = {**stage.counted(), **gauge.counted()}
    replay = f"penstock prove --only {LANE} --seed {budget.seed}"
    found = [Found(one.breach, one.text, replay) for one in (*stage.found, *_grown(counts))]
    return Tried(LANE, counts, tuple(found), (), time.monotonic() - began)


async def _live(stage: Stage, gauge: Gauge, budget: Budget, deadline: float) -> None:
    """Merchants come and go while nodes lie; for the first part of it the program is killed now and then."""
    began = time.monotonic()
    trading = [asyncio.create_task(_trade(stage)) for _ in range(CUSTOMERS)]
    last_kill_at = began + KILLS_SHARE * (deadline - began)
    try:
        while time.monotonic() < deadline:
            stage.lie()
            budget.say(f"{len(stage.history.calls)} calls, {stage.counts['kills']} kills")
            if time.monotonic() < last_kill_at:
                await stage.kill()
                gauge.looks.clear()
            for _ in range(5):
                await asyncio.sleep(min(LOOK_S, max(0.0, deadline - time.monotonic())))
                if not stage.place.is_running:
                    stage.found.append(Found("other", "the program ended by itself"))
                    await stage.place.start()
                    gauge.looks.clear()
                if stage.place.process is not None:
                    gauge.look(stage.place.process.pid, time.monotonic() - began)
    finally:
        stage.is_over = True
        for customer in stage.customers.values():
            customer.is_open = False
        await asyncio.gather(*trading)


async def _trade(stage: Stage) -> None:
    """One merchant after the other: each has as many orders as its balances can tell apart."""
    while not stage.is_over:
        customer = await stage.enter()
        await stage.trade(customer, PAUSE_S)
        customer.is_open = False


def _grown(counts: dict[str, int]) -> Sequence[Found]:
    """What looks like a leak."""
    if counts.get("measured_s", 0) < MEASURED_S_MIN:
        return []
    grown = counts["resident_bytes_per_hour"] * counts["measured_s"] // 3600
    found = []
    if grown > GROWTH_MAX_BYTES:
        found.append(Found("other", f"memory grew by {grown >> 20} MiB in {counts['measured_s']} s"))
    if counts["files_grown"] > FILES_GROWTH_MAX:
        found.append(Found("other", f"{counts['files_grown']} more files are open than in the beginning"))
    return found
