"""In which order blows fall: every label and everything else, or a few of them by the seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from penstock.prove.installed.blows import (
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
from penstock.prove.installed.points import Point, chosen, named, points, recovery, visit

HOUR_MS: Final = 3_600_000
AGES: Final = (2, 4, 5)
"""Schemas of before that the lane goes back to. In the first of all orders had no seal: what was not signed then waits for a person."""


def plan(database: str, seed: int, size: int, *, restarts: bool, only: Sequence[str] = ()) -> list[Blow]:
    """Size 1: three labels, a random kill, a recovery that dies, and one other thing; consecutive seeds choose consecutive labels. Larger: every
    label, `size - 1` times, and everything, in an order drawn from the seed: time may end anywhere. A schema is made once, and first.
    """
    dice = random.Random(seed)
    everything = _others(database, restarts=restarts)
    if size <= 1:
        found = [blow for point in chosen(database, seed, 3) for blow in _kill(point, dice)]
        return _only([*found, *_recovery(database, dice, 2), Kill(), everything[seed % len(everything)]], only)
    births = [point for point in points(database) if point.weather == "migration"]
    others = [point for point in points(database) if point not in births]
    found = [blow for point in births for blow in _kill(point, dice)]
    if only:
        return _only([*found, *(blow for point in others for blow in _kill(point, dice)), Kill(), *everything], only)
    for _ in range(size - 1):
        turn: list[list[Blow]] = [_kill(point, dice) for point in others]
        turn.append(_recovery(database, dice, 4))
        turn += [[blow] for blow in (Kill(), Kill(), Kill(), *everything)]
        dice.shuffle(turn)
        found += [blow for together in turn for blow in together]
    return found


def _only(blows: Sequence[Blow], names: Sequence[str]) -> list[Blow]:
    return [blow for blow in blows if not names or blow.name in names]


def _kill(point: Point, dice: random.Random) -> list[Blow]:
    """At a label, after the death that a start needs to come by it."""
    before = [KillAt(named(point.after, point.database or "sqlite"), 1, again=True)] if point.after else []
    return [*before, KillAt(point, visit(point, dice))]


def _recovery(database: str, dice: random.Random, depth: int) -> list[Blow]:
    return [*(KillAt(point, 1, again=True) for point in recovery(database, dice, depth)), Kill()]


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
