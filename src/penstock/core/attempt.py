"""The attempt: one conflict resource for ever, its states, and what follows from what a chain shows.

`advance` is the only place where an observation becomes a decision. It is pure: state and observation in, decision out.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final as Constant
from typing import assert_never

from penstock.core.errors import InvariantBroken
from penstock.core.event import Absent, Dead, FailedOnChain, Final, Included, Observation, Pending, Suspicious


class AttemptState(enum.StrEnum):
    """Where an attempt stands. Final and dead retire its resource."""

    BOUND = "bound"
    SIGNED = "signed"
    SENT = "sent"
    INCLUDED = "included"
    FINAL = "final"
    DEAD = "dead"


A = AttemptState

MOVES: Constant[dict[tuple[AttemptState, AttemptState], str]] = {
    (A.BOUND, A.SIGNED): "the signer's bytes are stored",
    (A.SIGNED, A.SENT): "the bytes were given to a node, whatever it said, or are about to be",
    (A.SIGNED, A.INCLUDED): "a version is in a block",
    (A.SENT, A.INCLUDED): "a version is in a block",
    (A.INCLUDED, A.SENT): "the block was undone (reorg)",
    (A.SIGNED, A.FINAL): "a version is in a block that stays",
    (A.SENT, A.FINAL): "a version is in a block that stays",
    (A.INCLUDED, A.FINAL): "a version is in a block that stays",
    (A.BOUND, A.DEAD): "proof that no version can land",
    (A.SIGNED, A.DEAD): "proof that no version can land",
    (A.SENT, A.DEAD): "proof that no version can land",
    (A.INCLUDED, A.DEAD): "proof that no version can land",
}
"""Every legal move. The CHECK in the schema and docs/states.md come from this table."""

LIVE: Constant = frozenset({A.BOUND, A.SIGNED, A.SENT, A.INCLUDED})


def check_move(before: AttemptState, after: AttemptState) -> str:
    """Why this move exists. Raises InvariantBroken for one that does not."""
    try:
        return MOVES[before, after]
    except KeyError:
        raise InvariantBroken(f"an attempt never goes from {before} to {after}") from None


class Outcome(enum.Enum):
    """What an observation means for the orders of an attempt."""

    WAIT = "wait"
    RESEND = "resend the same bytes"
    BUMP = "sign a new version on the same resource"
    CONFIRM = "it is in a block"
    UNDO = "its block is gone"
    REPORT = "it is deep enough to report"
    SETTLE = "it is final"
    FAIL = "it failed for good"
    QUARANTINE = "a person must judge"


@dataclass(frozen=True, slots=True)
class Decision:
    """The attempt's next state and what happens to its orders."""

    state: AttemptState
    outcome: Outcome


def advance(state: AttemptState, seen: Observation, *, report_depth: int | None) -> Decision:
    """What to do after an observation. `report_depth` is where succeeded is reported before finality, if anywhere.

    Nothing but `Final`, `FailedOnChain` and `Dead` retires the resource; a miss on every node means: send the same bytes again.
    """
    if state not in LIVE:
        raise InvariantBroken(f"an attempt that is {state} is not observed")
    match seen:
        case Absent():
            return _not_in_a_block(state, Outcome.RESEND)
        case Pending(stuck=stuck):
            return _not_in_a_block(state, Outcome.BUMP if stuck else Outcome.WAIT)
        case Included(depth=depth, succeeded=succeeded):
            reported = report_depth is not None and depth >= report_depth and succeeded
            return Decision(A.INCLUDED, Outcome.REPORT if reported else Outcome.CONFIRM)
        case Final():
            return Decision(A.FINAL, Outcome.SETTLE)
        case FailedOnChain():
            return Decision(A.FINAL, Outcome.FAIL)
        case Dead():
            return Decision(A.DEAD, Outcome.FAIL)
        case Suspicious():
            return Decision(state, Outcome.QUARANTINE)
        case _:
            assert_never(seen)


def _not_in_a_block(state: AttemptState, outcome: Outcome) -> Decision:
    return Decision(A.SENT, Outcome.UNDO) if state is A.INCLUDED else Decision(state, outcome)
