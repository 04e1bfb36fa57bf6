"""The lane of the simulation: seed after seed, on every family of networks, on all cores, until its seconds are over; one each at least."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Final

from penstock.prove import families, simulation
from penstock.prove.lane import Breach, Budget, Found, Tried
from penstock.prove.places import PLACES
from penstock.prove.simulation import Violation
from penstock.prove.virtual import Stuck
from penstock.prove.world import CHAIN

NETWORKS: Final = (CHAIN, *PLACES)
ARRIVED: Final = re.compile(r"([0-9]+) should have arrived and ([0-9]+) did")
BREACHES: Final[tuple[tuple[str, Breach], ...]] = (
    ("a secret was logged", "leaked_secret"),
    ("different events", "lost_event"),
    ("the audit found", "ledger_imbalance"),
    ("and the books say", "ledger_imbalance"),
    ("and its order is", "lost_order"),
    ("not everything finished", "lost_order"),
)
"""What a violation's sentence says, and which breach that is."""


@dataclass(frozen=True, slots=True)
class Played:
    """One seed on one network; `said` is the violation, "" when it was clean."""

    network: str
    seed: int
    events: int
    said: str


def run(budget: Budget) -> Tried:
    """All networks in turn, each under a seed of its own. A violation replays with the line that it comes with."""
    began, played = time.monotonic(), list[Played]()
    for one in _played(budget, began + budget.seconds):
        played.append(one)
        if one.said:
            budget.say(one.said.splitlines()[0])
    seeds, events = Counter(one.network for one in played), Counter[str]()
    for one in played:
        events[one.network] += one.events
    found = tuple(
        Found(_breach(one.said), one.said[:2_000], f"python -m penstock.prove.seeds {one.network} {one.seed}") for one in played if one.said
    )
    table = tuple({"network": name, "seeds": seeds[name], "events": events[name]} for name in NETWORKS if seeds[name])
    return Tried("simulation", {"seeds": len(played), "simulated_events": events.total()}, found, table, time.monotonic() - began)


def _played(budget: Budget, until: float) -> Iterator[Played]:
    wanted = ((NETWORKS[number % len(NETWORKS)], budget.seed + number // len(NETWORKS)) for number in range(10**9))
    if budget.size == 1:
        for number, (network, seed) in enumerate(wanted):
            if number >= len(NETWORKS) and time.monotonic() > until:
                return
            yield play(network, seed)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        running: set[Future[Played]] = set()
        while running or time.monotonic() < until:
            while len(running) < 2 * (os.cpu_count() or 1) and time.monotonic() < until:
                running.add(pool.submit(play, *next(wanted)))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (task.result() for task in done)


def play(network: str, seed: int) -> Played:
    """One seed, here and now."""
    try:
        trace = simulation.run(seed).trace if network == CHAIN else families.run(seed, network)
    except Violation as violation:
        return Played(network, seed, 0, str(violation))
    except Stuck:
        return Played(network, seed, 0, f"seed {seed} on {network}: everything waits and nothing is due")
    return Played(network, seed, len(trace), "")


def _breach(said: str) -> Breach:
    first = said.splitlines()[0]
    if arrived := ARRIVED.search(first):
        return "double_payment" if int(arrived[2]) > int(arrived[1]) else "lost_order"
    return next((breach for words, breach in BREACHES if words in first), "other")


if __name__ == "__main__":
    import sys

    print(play(sys.argv[1], int(sys.argv[2])).said or "clean")
