"""Whether what callers saw of one thing has a legal serial order: the search of Wing and Gong with Lowe's memory. Exact, both ways.

    why = contradiction(EMPTY, [Operation(began=1.0, ended=2.0, step=..., text="..."), ...])       # "" where an order exists

An operation takes effect at one moment between its beginning and its end. One without an answer ends NEVER: it took effect at any
moment since it began, or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

State = TypeVar("State", bound=Hashable)

NEVER: Final = math.inf
CONFIGURATIONS_MAX: Final = 500_000


class Undecided(Exception):
    """More configurations than a lane has time for; which says nothing about the history."""


@dataclass(frozen=True, slots=True)
class Operation(Generic[State]):
    """One call. `step` is the state after it, or None where it cannot have answered so; times are of one clock, in seconds.

    `monotone` says that where it changes nothing now it will change nothing later either: a question, or what can happen but once.
    """

    began: float
    ended: float
    step: Callable[[State], State | None]
    text: str
    monotone: bool = False


def contradiction(initial: State, operations: Sequence[Operation[State]], *, configurations_max: int = CONFIGURATIONS_MAX) -> str:
    """Why no serial order explains the history, "" where one does. Raises Undecided.

    The sentence names the operation that nothing can make true after the longest order that was found for those before it.
    """
    calls = sorted(operations, key=lambda call: call.began)
    answered = sum(1 << place for place, call in enumerate(calls) if call.ended < NEVER)
    furthest = (0, initial)
    seen = {furthest}
    waiting = [furthest]
    while waiting:
        done, state = waiting.pop()
        if done & answered == answered:
            return ""
        if (done & answered).bit_count() > (furthest[0] & answered).bit_count():
            furthest = done, state
        for following in _following(calls, done, state):
            if following not in seen:
                seen.add(following)
                waiting.append(following)
        if len(seen) > configurations_max:
            raise Undecided(f"{len(calls)} operations have more than {configurations_max} configurations")
    return _complaint(calls, *furthest)


def _following(calls: Sequence[Operation[State]], done: int, state: State) -> list[tuple[int, State]]:
    """The configurations after one more operation, the most urgent last.

    A monotone one that is possible and changes nothing is taken at once: whatever could follow without it can follow it.
    """
    found: list[tuple[float, int, State]] = []
    for place in _possible(calls, done):
        after = calls[place].step(state)
        if calls[place].monotone and after == state:
            return [(done | 1 << place, state)]
        if after is not None:
            found.append((calls[place].ended, done | 1 << place, after))
    found.sort(key=lambda one: -one[0])
    return [(mask, after) for _, mask, after in found]


def _possible(calls: Sequence[Operation[State]], done: int) -> Iterator[int]:
    """Places of operations that began before any that is left had ended."""
    left = []
    first_end = NEVER
    for place in range((~done & (done + 1)).bit_length() - 1, len(calls)):
        if calls[place].began > first_end:
            break
        if not done >> place & 1:
            left.append(place)
            first_end = min(first_end, calls[place].ended)
    return (place for place in left if calls[place].began <= first_end)


def _complaint(calls: Sequence[Operation[State]], done: int, state: State) -> str:
    left = [calls[place] for place in _possible(calls, done)]
    culprit = min(left, key=lambda call: call.ended)
    return f"after {done.bit_count()} of {len(calls)} operations, in state {str(state)[:300]}, nothing explains: {culprit.text[:300]}"
