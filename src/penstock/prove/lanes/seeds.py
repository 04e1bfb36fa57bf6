"""The lane of the simulation: seed after seed of the whole product on its networks, on all cores, until its seconds are over.

The first seeds have one network each, so that every family is there however short the time; later ones choose. Some are played twice: the
same seed must be the same history.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any, Final

from penstock.core.attempt import AttemptState
from penstock.core.order import OrderState
from penstock.prove.lane import Breach, Budget, Found, Tried
from penstock.prove.simulated import simulation
from penstock.prove.simulated.auditor import Violation
from penstock.prove.simulated.networks import PLACES
from penstock.prove.simulated.weather import of_place

TWICE_EVERY: Final = 100
"""So many seeds, of which the first is played twice."""
STATES: Final = frozenset({*(f"order {state}" for state in OrderState), *(f"attempt {state}" for state in AttemptState)})
UNREACHABLE: Final = {
    "evm": frozenset({"attempt dead"}),
    "bitcoin": frozenset({"attempt dead", "order failed"}),
    "lightning": frozenset({"attempt included", "attempt dead", "order confirming"}),
}
"""What a family has no way to: transactions without an end to their life never die, and a payment on Lightning is in no block."""
AMOUNTS: Final = (
    re.compile(r"(?P<due>[0-9]+) should have arrived and (?P<got>[0-9]+) did"),
    re.compile(r"was promised (?P<due>[0-9]+) and has (?P<got>[0-9]+)"),
)
BREACHES: Final[tuple[tuple[str, Breach], ...]] = (
    ("a secret was logged", "leaked_secret"),
    ("different events", "lost_event"),
    ("I12:", "lost_event"),
    ("I2:", "overdraft"),
    ("I1:", "ledger_imbalance"),
    ("I3:", "ledger_imbalance"),
    ("I4:", "ledger_imbalance"),
    ("I6:", "double_payment"),
    ("the audit found", "ledger_imbalance"),
    ("and the books say", "ledger_imbalance"),
    ("and its order is", "lost_order"),
    ("for ever", "lost_order"),
    ("not everything finished", "lost_order"),
)
"""What a violation's sentence says, and which breach that is."""


@dataclass(frozen=True, slots=True)
class Played:
    """One seed; `said` is the violation, "" when it was clean."""

    seed: int
    networks: tuple[str, ...]
    said: str
    counts: Mapping[str, int] = field(default_factory=dict)
    cells: Mapping[tuple[str, str, str], int] = field(default_factory=dict)


def run(budget: Budget) -> Tried:
    """Seeds until the time is over. A violation replays with the line that it comes with."""
    began, played = time.monotonic(), list[Played]()
    for one in _played(budget, began + budget.seconds):
        played.append(one)
        if one.said:
            budget.say(one.said.splitlines()[0])
    counts, cells = Counter({"seeds": len(played)}), Counter[tuple[str, str, str]]()
    for one in played:
        counts.update(one.counts)
        cells.update(one.cells)
    rows = list(_coverage(cells))
    counts["cells_hit"] = len(cells)
    counts["cells_empty"] = sum(len(row["not yet in"]) for row in rows)
    counts["states_not_entered"] = sum(not row["entered"] for row in rows)
    took_s = time.monotonic() - began
    counts["virtual_seconds_a_second"] = int(counts["simulated_seconds"] / took_s)
    found = tuple(Found(_breach(one.said), one.said[:2_000], _replay(one)) for one in played if one.said)
    table = tuple(row | {"not yet in": " ".join(row["not yet in"])} for row in rows)
    return Tried("simulation", dict(counts), found, table, took_s)


def _replay(one: Played) -> str:
    return f"python -m penstock.prove.lanes.seeds {one.seed} {','.join(one.networks)}".strip()


def _wanted(first: int) -> Iterator[tuple[int, tuple[str, ...]]]:
    for number, name in enumerate(PLACES):
        yield first + number, (name,)
    for number in range(len(PLACES), 10**9):
        yield first + number, ()


def _played(budget: Budget, until: float) -> Iterator[Played]:
    wanted = _wanted(budget.seed)
    if budget.size == 1:
        for number, one in enumerate(wanted):
            if number >= len(PLACES) and time.monotonic() > until:
                return
            yield play(*one, twice=number == 0)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        running: set[Future[Played]] = set()
        number = 0
        while running or time.monotonic() < until:
            while len(running) < 2 * (os.cpu_count() or 1) and time.monotonic() < until:
                running.add(pool.submit(play, *next(wanted), twice=number % TWICE_EVERY == 0))
                number += 1
            if time.monotonic() > until:
                running = {task for task in running if not task.cancel()}
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (task.result() for task in done)


def play(seed: int, networks: Sequence[str] = (), *, twice: bool = False) -> Played:
    """One seed, here and now."""
    asked = tuple(networks)
    try:
        outcome = simulation.run(seed, networks=asked)
        if twice and simulation.run(seed, networks=asked).hash != outcome.hash:
            return Played(seed, asked, f"seed {seed} is not the same history twice")
    except Violation as violation:
        return Played(seed, asked, str(violation))
    counts = {
        "wishes": outcome.orders,
        "orders": outcome.paid,
        "crashes": len(outcome.crashes),
        "commits_judged": outcome.commits,
        "webhooks": outcome.deliveries,
        "faults": sum(outcome.struck.values()),
        "quarantined": len(outcome.quarantined),
        "simulated_events": len(outcome.trace),
        "simulated_seconds": int(outcome.virtual_s),
        "seeds_played_twice": int(twice),
    }
    return Played(seed, asked, "", counts, dict(outcome.cells))


def _coverage(cells: Mapping[tuple[str, str, str], int]) -> Iterator[dict[str, Any]]:
    """For each family and state: how often it was entered, and in which weather never."""
    states: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for (family, state, kind), hits in cells.items():
        states[family, state][kind] += hits
    for family in {family for family, _ in states} - {"house"}:
        for state in STATES - UNREACHABLE.get(family, frozenset()):
            states[family, state].update(())
    for (family, state), kinds in sorted(states.items()):
        known = {kind for place in PLACES.values() if place.family == family for kind in of_place(place)} | {"calm"}
        yield {"family": family, "state": state, "entered": kinds.total(), "not yet in": sorted(known - kinds.keys())}


def _breach(said: str) -> Breach:
    first = said.splitlines()[0]
    for amounts in AMOUNTS:
        if arrived := amounts.search(first):
            return "double_payment" if int(arrived["got"]) > int(arrived["due"]) else "lost_order"
    return next((breach for words, breach in BREACHES if words in first), "other")


if __name__ == "__main__":
    import sys

    chosen = tuple(name for name in "".join(sys.argv[2:3]).split(",") if name)
    print(simulation.replay(int(sys.argv[1]), networks=chosen, label="".join(sys.argv[3:4])))
