"""The attempt's table of moves, and `advance` as a table: what each observation means in each live state."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.attempt import LIVE, MOVES, AttemptState, Outcome, advance, check_move
from penstock.core.errors import InvariantBroken
from penstock.core.event import Absent, Dead, FailedOnChain, Final, Included, Pending, Suspicious
from penstock.sql import migrations

A = AttemptState

# Architecture, section 3; signed -> included and -> final skip a state that nobody saw.
DRAWN = {
    A.BOUND: {A.SIGNED, A.DEAD},
    A.SIGNED: {A.SENT, A.INCLUDED, A.FINAL, A.DEAD},
    A.SENT: {A.INCLUDED, A.FINAL, A.DEAD},
    A.INCLUDED: {A.SENT, A.FINAL, A.DEAD},
    A.FINAL: set(),
    A.DEAD: set(),
}


@pytest.mark.parametrize(("before", "after"), [*itertools.product(A, A)])
def test_an_attempt_moves_as_the_architecture_draws_it_and_in_no_other_way(before, after):
    if after in DRAWN[before]:
        assert check_move(before, after)
    else:
        with pytest.raises(InvariantBroken, match=f"never goes from {before} to {after}"):
            check_move(before, after)


def test_final_and_dead_are_never_left_and_everything_else_is_live():
    assert not [move for move in MOVES if move[0] in {A.FINAL, A.DEAD}]
    assert set(A) - {A.FINAL, A.DEAD} == LIVE


def test_the_schema_knows_the_same_states_as_the_table():
    text = migrations()[0][2]
    assert {word.strip(" '") for word in re.search(r"state IN \(('bound'[^)]*'dead')\)", text)[1].split(",")} == {
        state.value for state in A
    }
    for live in re.findall(r"WHERE state IN \(('bound'[^)]*)\)", text):
        assert {word.strip(" '") for word in live.split(",")} == {state.value for state in LIVE}


def included(depth, succeeded=True):
    return Included("0x1", 100, depth, succeeded)


SAME = "the same state"
TABLE = [
    # seen, report depth, before, after, outcome
    (Absent(), None, A.SENT, SAME, Outcome.RESEND),
    (Absent(), None, A.SIGNED, SAME, Outcome.RESEND),
    (Absent(), None, A.INCLUDED, A.SENT, Outcome.UNDO),
    (Absent(), 1, A.INCLUDED, A.SENT, Outcome.UNDO),
    (Pending(), None, A.SENT, SAME, Outcome.WAIT),
    (Pending(stuck=True), None, A.SENT, SAME, Outcome.BUMP),
    (Pending(), None, A.INCLUDED, A.SENT, Outcome.UNDO),
    (Pending(stuck=True), None, A.INCLUDED, A.SENT, Outcome.UNDO),
    (included(1), None, A.SENT, A.INCLUDED, Outcome.CONFIRM),
    (included(1), None, A.INCLUDED, A.INCLUDED, Outcome.CONFIRM),
    (included(1_000), None, A.INCLUDED, A.INCLUDED, Outcome.CONFIRM),
    (included(1), 2, A.SENT, A.INCLUDED, Outcome.CONFIRM),
    (included(2), 2, A.SENT, A.INCLUDED, Outcome.REPORT),
    (included(3), 2, A.INCLUDED, A.INCLUDED, Outcome.REPORT),
    (included(3, succeeded=False), 2, A.INCLUDED, A.INCLUDED, Outcome.CONFIRM),
    (Final("0x1", 100, 21), None, A.SENT, A.FINAL, Outcome.SETTLE),
    (Final("0x1", 100, 21), 2, A.INCLUDED, A.FINAL, Outcome.SETTLE),
    (FailedOnChain("0x1", 100, 21, "reverted"), None, A.SENT, A.FINAL, Outcome.FAIL),
    (FailedOnChain("0x1", 100, 21, "reverted"), None, A.INCLUDED, A.FINAL, Outcome.FAIL),
    (Dead("expired"), None, A.SENT, A.DEAD, Outcome.FAIL),
    (Dead("expired"), None, A.BOUND, A.DEAD, Outcome.FAIL),
    (Suspicious("a stranger"), None, A.SENT, SAME, Outcome.QUARANTINE),
    (Suspicious("a stranger"), None, A.INCLUDED, SAME, Outcome.QUARANTINE),
]


@pytest.mark.parametrize(("seen", "report_depth", "before", "after", "outcome"), TABLE)
def test_what_an_observation_means(seen, report_depth, before, after, outcome):
    decision = advance(before, seen, report_depth=report_depth)
    assert (decision.state, decision.outcome) == (before if after == SAME else after, outcome)


observations = st.one_of(
    st.just(Absent()),
    st.builds(Pending, st.booleans()),
    st.builds(Included, st.just("0x1"), st.integers(0, 10**9), st.integers(1, 1_000), st.booleans()),
    st.builds(Final, st.just("0x1"), st.integers(0, 10**9), st.integers(0, 10**18)),
    st.builds(FailedOnChain, st.just("0x1"), st.integers(0, 10**9), st.integers(0, 10**18), st.just("reverted")),
    st.just(Dead("proof")),
    st.just(Suspicious("detail")),
)
reports = st.one_of(st.none(), st.integers(1, 100))


@given(st.lists(observations, max_size=60), reports)
def test_any_history_of_a_sent_attempt_is_legal_and_only_proof_ends_it(history, report_depth):
    state = A.SENT
    for seen in history:
        decision = advance(state, seen, report_depth=report_depth)
        if decision.state is not state:
            check_move(state, decision.state)
        assert (decision.state not in LIVE) == isinstance(seen, Final | FailedOnChain | Dead)
        assert (decision.outcome is Outcome.FAIL) == isinstance(seen, FailedOnChain | Dead)
        if decision.outcome is Outcome.REPORT:
            assert seen.depth >= report_depth
            assert seen.succeeded
        state = decision.state
        if state not in LIVE:
            return


@given(st.sampled_from([A.FINAL, A.DEAD]), observations, reports)
def test_what_is_over_is_not_observed(state, seen, report_depth):
    with pytest.raises(InvariantBroken):
        advance(state, seen, report_depth=report_depth)


@given(observations)
def test_nothing_that_was_never_signed_can_be_in_a_block(seen):
    decision = advance(A.BOUND, seen, report_depth=None)
    if isinstance(seen, Included | Final | FailedOnChain):
        with pytest.raises(InvariantBroken):
            check_move(A.BOUND, decision.state)
