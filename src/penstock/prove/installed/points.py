"""Where the program is killed: every named crash point, what it is in the road of a withdrawal, and the weather that it needs."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from penstock.sql import migrations

Weather = Literal["", "start", "migration", "fork", "spike", "down", "slow"]
"""What makes the program come by: ordinary load, its own start, a start on an older schema, a reorganisation, fees that rise, nodes that are
away, or half a minute of patience."""


@dataclass(frozen=True, slots=True)
class Point:
    """One label and the step after which, or before which, it lies."""

    label: str
    step: str
    weather: Weather = ""
    database: str = ""
    """Only on this one."""
    after: str = ""
    """Only a start that follows a death there comes by."""


_ROAD: Final = (
    Point("intake:unreserved", "order inserted, its reserve not posted"),
    Point("intake:before", "order, reserve and key written, not committed"),
    Point("intake:after", "order committed, no answer yet"),
    Point("answer:begun", "the answer is ready, none of it is sent"),
    Point("send.claim:after", "order claimed, nothing bound"),
    Point("bind:before", "resource taken, not committed"),
    Point("bind:after", "resource committed, nothing signed"),
    Point("signer:journaled", "the signer's answer has come, nothing of it is stored"),
    Point("sign:before", "bytes written, not committed"),
    Point("sign:after", "bytes stored, no node has the first of them"),
    Point("give:before", "bytes for a Lightning node about to be given, not committed"),
    Point("give:after", "bytes for a Lightning node known to be given, and not given yet"),
    Point("flight:submit", "bytes on their way to a node"),
    Point("submit:after", "the node has answered, its answer not recorded"),
    Point("sent:before", "the answer written, not committed"),
    Point("sent:after", "the answer recorded"),
    Point("follow.claim:after", "attempt claimed to be observed"),
    Point("flight:observe", "in the middle of asking nodes"),
    Point("settle:before", "seen and decided, not committed"),
    Point("settle:booked", "settled in the ledger, with its event, not committed"),
    Point("settle:after", "settled, event not picked up"),
    Point("deliver.claim:after", "event leased, not sent"),
    Point("flight:webhook", "the webhook on its way"),
    Point("webhook:sent", "the receiver has said success, not recorded"),
    Point("webhook.record:before", "success written, not committed"),
    Point("webhook.record:after", "success recorded"),
    Point("treasury:before", "chain read, coins not booked", "start"),
    Point("treasury:after", "coins booked at the start", "start"),
    Point("ids.lease:before", "worker number taken, not committed", "start"),
    Point("ids.lease:after", "worker number leased, nothing runs yet", "start"),
    Point("seat.take:before", "the worker's seat taken, not committed", "start"),
    Point("seat.take:after", "the worker's seat taken, nothing runs yet", "start"),
    Point("take_over:before", "the dead one's leases freed, not committed", "start"),
    Point("take_over:after", "the dead one's leases freed", "start"),
    Point("recovery.begin:before", "a start holds everything, not committed", "start"),
    Point("recovery.begin:after", "a start holds everything", "start"),
    Point("recovery.hold:before", "what is held and why, not committed", "start"),
    Point("recovery.hold:after", "what is held and why can be seen", "start"),
    Point("recovery.journal:before", "journal and tables compared, not committed", "start", after="signer:journaled"),
    Point("recovery.journal:after", "journal and tables compared, the tables lack bytes", "start", after="signer:journaled"),
    Point("recovery.restore:before", "the signer's bytes put back, not committed", "start", after="signer:journaled"),
    Point("recovery.restore:after", "the signer's bytes put back, no node has them", "start", after="signer:journaled"),
    Point("recovery.release:before", "a network agrees with its chain, not committed", "start"),
    Point("recovery.release:after", "one network goes on, the others are held", "start"),
    Point("ids.renew:before", "worker number kept, not committed", "slow"),
    Point("ids.renew:after", "worker number kept", "slow"),
    Point("follow:again", "a block undone, the same bytes not given again", "fork"),
    Point("bump:before", "the dearer version written, not committed", "spike"),
    Point("bump:after", "the dearer version stored, not signed", "spike"),
    Point("bump:sent", "the dearer version sent", "spike"),
    Point("follow.later:before", "no node answers: to be asked later, not committed", "down"),
    Point("follow.later:after", "no node answers: to be asked later", "down"),
)


def points(database: str) -> list[Point]:
    """Every point of a database's kind, migrations first: they need one that is not there yet."""
    schema = [
        Point(f"migrate:{number:04d}:{when}", f"schema {name}{' not' if when == 'before' else ''} committed", "migration")
        for number, name, _ in migrations()
        for when in ("before", "after")
    ]
    return schema + [point for point in _ROAD if point.database in {"", database}]


def chosen(database: str, seed: int, count: int) -> list[Point]:
    """So many points, or all: consecutive seeds choose consecutive ones of a fixed shuffle, so that a few seeds cover every label."""
    every = points(database)
    if count >= len(every):
        return every
    shuffled = random.Random(7).sample(every, len(every))
    first = seed * count % len(every)
    found = {point.label for point in (shuffled + shuffled)[first : first + count]}
    return [point for point in every if point.label in found]


def visit(point: Point, dice: random.Random) -> int:
    """At which visit to die: the first one where there are few."""
    return 1 if point.weather else dice.randint(1, 4)


def recovery(database: str, dice: random.Random, depth: int) -> Sequence[Point]:
    """Points of a start, one crash after the other: a recovery that dies while it recovers, each time a step further.

    Before the first of them bytes are signed that the tables lack, so that there is something to put back.
    """
    every = points(database)
    at_start = [point for point in every if point.weather == "start" and not point.after]
    late = [point for point in at_start if point.label.startswith(("recovery.release", "treasury"))]
    early = [point for point in at_start if point not in late]
    steps = [
        early,
        *([point for point in every if point.label.startswith(name)] for name in ("recovery.journal", "recovery.restore")),
        late,
    ]
    chosen = sorted(dice.sample(range(len(steps)), min(depth, len(steps))))
    again = [dice.choice(early) for _ in range(depth - len(chosen))]
    return [named("signer:journaled", database), *again, *(dice.choice(steps[step]) for step in chosen)]


def named(label: str, database: str) -> Point:
    """The point with this label."""
    return next(point for point in points(database) if point.label == label)
