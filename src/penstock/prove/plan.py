"""In which order blows fall: every label and everything else, or a few of them by the seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from penstock.prove.blows import (
    Blow,
    ClockSteps,
    EmptyWallet,
    FullDisk,
    Kill,
    KillAt,
    KillSigner,
    KillSignerAt,
    LoseCommits,
    LoseJournal,
    NodesDown,
    RestartDatabase,
    Sleepwalk,
    Upgrade,
)
from penstock.prove.points import Point, chosen, named, points, recovery, visit

HOUR_MS: Final = 3_600_000
AGES: Final = (2, 4, 5)
"""Schemas of before that the lane goes back to. In the first of all orders had no seal: what was not signed then waits for a person."""


def plan(database: str, seed: int, size: int, *, restarts: bool, only: Sequence[str] = ()) -> list[Blow]:
    """Size 1: three labels, a random kill, a recovery that dies, and one other thing. Larger: every label, `size - 1` times, and everything.

    Consecutive seeds choose consecutive labels.
    """
    dice = random.Random(seed)
    everything = _others(database, restarts=restarts)
    if size <= 1:
        labels = chosen(database, seed, 3)
        others = [everything[seed % len(everything)]]
        found = _kills(labels, dice, rounds=1) + _recovery(database, dice, 2) + [Kill()] + others
    else:
        rounds = size - 1
        found = _kills(points(database), dice, rounds=rounds) + _recovery(database, dice, 4) * rounds
        found += [Kill() for _ in range(3 * rounds)] + everything * rounds
    if only:
        found = [blow for blow in (*_kills(points(database), dice, rounds=1), Kill(), *everything) if blow.name in only]
    return found


def _kills(labels: Sequence[Point], dice: random.Random, *, rounds: int) -> list[Blow]:
    found: list[Blow] = []
    for point in list(labels) * rounds:
        if point.after:
            found.append(KillAt(named(point.after, point.database or "sqlite"), 1, again=True))
        found.append(KillAt(point, visit(point, dice)))
    return found


def _recovery(database: str, dice: random.Random, depth: int) -> list[Blow]:
    return [KillAt(point, 1, again=True) for point in recovery(database, dice, depth)] + [Kill()]


def _others(database: str, *, restarts: bool) -> list[Blow]:
    found: list[Blow] = [
        KillSigner(),
        KillSignerAt(1),
        KillSignerAt(2),
        *(Upgrade(number) for number in AGES),
        LoseJournal(),
        EmptyWallet(),
        NodesDown(),
        ClockSteps("clock an hour ahead", HOUR_MS),
        ClockSteps("clock an hour behind", -HOUR_MS),
        Sleepwalk(),
        FullDisk("disk full to the last byte", 0),
    ]
    if database == "sqlite":
        found.append(FullDisk("disk nearly full", 20_000))
    else:
        found.append(LoseCommits())
        if restarts:
            found.append(RestartDatabase())
    return found
