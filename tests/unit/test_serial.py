"""The search for a serial order, against every order of small histories."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.prove.histories.serial import NEVER, Operation, Undecided, contradiction


def write(began, ended, value):
    return Operation(began, ended, lambda _: value, f"write {value}")


def read(began, ended, value):
    return Operation(began, ended, lambda state: state if state == value else None, f"read {value}", monotone=True)


def add(began, ended, value):
    return Operation(began, ended, lambda state: state + value, f"add {value}")


def test_calls_one_after_the_other_have_one_order():
    assert contradiction(0, [write(0, 1, 7), read(2, 3, 7)]) == ""
    assert "nothing explains: read 0" in contradiction(0, [write(0, 1, 7), read(2, 3, 0)])


def test_calls_at_the_same_time_may_be_either_way_round():
    assert contradiction(0, [write(0, 9, 7), read(1, 2, 0), read(3, 4, 7)]) == ""
    assert contradiction(0, [write(0, 9, 7), read(1, 2, 7), read(3, 4, 0)]) != ""


def test_what_was_never_answered_happened_or_did_not_but_not_both():
    lost = write(0, NEVER, 7)
    assert contradiction(0, [lost, read(1, 2, 0), read(3, 4, 0)]) == ""
    assert contradiction(0, [lost, read(1, 2, 0), read(3, 4, 7)]) == ""
    assert contradiction(0, [lost, read(1, 2, 7), read(3, 4, 0)]) != ""
    assert contradiction(0, [read(1, 2, 7), write(3, NEVER, 7)]) != "", "nothing happens before it was asked for"


def test_a_read_may_lie_between_two_calls_that_ended_after_it_began():
    assert contradiction(0, [add(0, 2, 1), add(0, 9, 2), read(1, 9, 2), read(3, 9, 3)]) == ""


def test_what_changes_nothing_now_may_change_something_later():
    """It was taken at once, and then nothing was left to explain the read: a contradiction where there is none."""
    assert contradiction(0, [write(0, 1, 1), write(0, 3, 0), read(2, 3, 0)]) == ""


def test_more_than_can_be_decided_is_said_to_be_undecided():
    with pytest.raises(Undecided):
        contradiction(0, [add(0, 9, 1 << bit) for bit in range(12)] + [read(10, 11, -1)], configurations_max=100)


@st.composite
def histories(draw):
    calls = []
    for _ in range(draw(st.integers(1, 5))):
        began = draw(st.integers(0, 6))
        ended = draw(st.one_of(st.just(NEVER), st.integers(began + 1, 8)))
        make = draw(st.sampled_from([write, read, add]))
        calls.append(make(began, ended, draw(st.integers(0, 2))))
    return calls


def explained(calls):
    """By trying each order of each choice of those without an answer."""
    answered = [call for call in calls if call.ended < NEVER]
    lost = [call for call in calls if call.ended == NEVER]
    for count in range(len(lost) + 1):
        for some in itertools.combinations(lost, count):
            for order in itertools.permutations([*answered, *some]):
                if any(later.ended < earlier.began for earlier, later in itertools.combinations(order, 2)):
                    continue
                state = 0
                for call in order:
                    state = call.step(state) if state is not None else None
                if state is not None:
                    return True
    return False


@given(histories())
def test_it_finds_an_order_exactly_where_there_is_one(calls):
    assert (contradiction(0, calls) == "") == explained(calls)
