"""The lane of planted bugs: each is put in, and the simulation must find it; the same seed without it must be clean.

Size 1 tries the seed that is known to find each bug, in this process, and a few more where a change of the product has moved it. Larger sizes go on with fresh seeds, on all cores and each bug in a
process of its own, and say how many seeds it took.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from multiprocessing import get_context

from penstock.prove.lane import Budget, Found, Tried
from penstock.prove.planted.bug import Bug
from penstock.prove.planted.lists import BUGS, TESTED, UNSEEN
from penstock.prove.planted.patch import Moved, planted
from penstock.prove.simulated import simulation
from penstock.prove.simulated.auditor import Violation

SEEDS_MAX = 2_000
"""Fresh seeds within which a bug must be found."""
SEEDS_KNOWN = 25
"""Every change of the product shuffles what a seed means: the known one first, then so many others."""


@dataclass(frozen=True, slots=True)
class Catch:
    """What came of looking for one bug: `seed` is the first that found it (0: none did), `catches` how many did, `said` what the simulation said then."""

    name: str
    room: str
    plan: str
    caught: bool
    seed: int
    catches: int
    seeds_tried: int
    said: str
    history: str


def run(budget: Budget) -> Tried:
    """Every planted bug within the budget's seconds; what was not looked for in time is counted."""
    began = time.monotonic()
    order = list(BUGS)
    random.Random(budget.seed).shuffle(order)
    found: list[Found] = []
    catches: list[Catch] = []
    for catch, problem in _looks(order, budget, began + budget.seconds):
        catches.append(catch)
        found += [problem] if problem is not None else []
        budget.say(f"{catch.name}: {'seed ' + str(catch.seed) if catch.caught else 'not found'}")
    rows = sorted(catches, key=lambda catch: catch.name)
    counts = {
        "planted_bugs": len(rows),
        "planted_bugs_not_looked_for": len(BUGS) - len(rows),
        "planted_bugs_seen_by_a_test": len(TESTED),
        "planted_bugs_not_seen_yet": len(UNSEEN),
        "planted_bugs_caught": sum(row.caught for row in rows),
        "planted_bug_seeds": sum(row.seeds_tried for row in rows),
    }
    return Tried("planted", counts, tuple(found), tuple(asdict(row) for row in rows), time.monotonic() - began)


def _looks(bugs: list[Bug], budget: Budget, until: float) -> Iterator[tuple[Catch, Found | None]]:
    if budget.size == 1:
        for bug in bugs:
            if time.monotonic() > until:
                return
            yield look(bug, _known_seeds(bug))
        return
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        source, left = random.Random(budget.seed), list(bugs)
        running: set[Future[tuple[Catch, Found | None] | None]] = set()
        while running or (left and time.monotonic() < until):
            # No more than are looked for at once: a process that only finds that there is no time left takes seconds to begin.
            while left and len(running) < (os.cpu_count() or 1) and time.monotonic() < until:
                running.add(pool.submit(_look_within, left.pop(0), source.randrange(2**31), until))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (found for task in done if (found := task.result()) is not None)


def _look_within(bug: Bug, seed: int, until: float) -> tuple[Catch, Found | None] | None:
    """In a process of its own: the known seed, then how many fresh ones it takes. None when there is no time left."""
    if time.monotonic() > until:
        return None
    known, problem = look(bug, _known_seeds(bug))
    if known.caught and problem is not None:
        return known, problem
    fresh, late = look(bug, _fresh_seeds(seed, until))
    if not fresh.caught and fresh.seeds_tried < SEEDS_MAX:  # time was over, which says nothing
        return (known, None) if known.caught else (fresh, problem)
    return (replace(known, seeds_tried=fresh.seeds_tried, catches=1 + fresh.catches) if known.caught else fresh), late


def _known_seeds(bug: Bug) -> Iterable[int]:
    return dict.fromkeys([bug.seed, *range(1, SEEDS_KNOWN)])


def _fresh_seeds(seed: int, until: float) -> Iterator[int]:
    source = random.Random(seed)
    for _ in range(SEEDS_MAX):
        if time.monotonic() > until:
            return
        yield source.randrange(1, 2**31)


def look(bug: Bug, seeds: Iterable[int]) -> tuple[Catch, Found | None]:
    """Try seeds until one finds the bug. The second value is what is wrong: not found, or its seed is not clean without it."""
    tried = reached = 0
    for seed in seeds:
        tried += 1
        said, times = caught(bug, seed)
        reached += times
        if said:
            problem = _not_clean(bug, seed)
            return Catch(bug.name, bug.room, bug.plan, True, seed, 1, tried, said, bug.history), problem
    text = f"planted bug {bug.name} was not found in {tried} seeds; its line was reached {reached} times"
    missed = Catch(bug.name, bug.room, bug.plan, False, 0, 0, tried, "", bug.history)
    return missed, Found("other", text, f"python -m penstock.prove.planted {bug.name}")


def caught(bug: Bug, seed: int) -> tuple[str, int]:
    """The violation's first line, "" where there is none, and how often the planted line was reached. Raises Moved."""
    with planted(bug.edits) as reached:
        try:
            simulation.run(seed, networks=bug.networks, label=bug.crash)
        except Violation as violation:
            if not reached.times:
                raise Moved(f"{bug.name}: seed {seed} fails without coming by the planted line") from violation
            return str(violation).splitlines()[0][:300], reached.times
    return "", reached.times


@lru_cache(maxsize=4096)
def _clean(networks: tuple[str, ...], seed: int, crash: str) -> str:
    """What the product as it is breaks under a seed, "" for nothing. Many bugs share one seed."""
    try:
        simulation.run(seed, networks=networks, label=crash)
    except Violation as violation:
        return str(violation).splitlines()[0]
    return ""


def _not_clean(bug: Bug, seed: int) -> Found | None:
    """The product as it is, under the seed that found the bug."""
    said = _clean(bug.networks, seed, bug.crash)
    line = f"python -m penstock.prove.lanes.seeds {seed} {','.join(bug.networks)} {bug.crash}".strip()
    return Found("other", f"without {bug.name} too {said}", line) if said else None
