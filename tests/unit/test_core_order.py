"""The order's table of moves: nothing else moves, terminal is terminal, the wire never goes back."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import InvariantBroken
from penstock.core.order import MOVES, TERMINAL, HoldReason, OrderState, WireStatus, check_move, fingerprint, wire_status
from penstock.sql import migrations

S = OrderState

# Architecture, section 3, word for word; held -> sending and sending -> succeeded skip a state that nobody saw;
# what was paid before a restore is a person's before it is bound (ADR 0004).
DRAWN = {
    S.ACCEPTED: {S.HELD, S.SENDING, S.FAILED, S.QUARANTINED},
    S.HELD: {S.ACCEPTED, S.SENDING, S.FAILED, S.QUARANTINED},
    S.SENDING: {S.CONFIRMING, S.ACCEPTED, S.SUCCEEDED, S.FAILED, S.QUARANTINED},
    S.CONFIRMING: {S.SENDING, S.ACCEPTED, S.SUCCEEDED, S.FAILED, S.QUARANTINED},
    S.QUARANTINED: {S.SENDING, S.CONFIRMING, S.SUCCEEDED, S.FAILED},
    S.SUCCEEDED: set(),
    S.FAILED: set(),
}


@pytest.mark.parametrize(("before", "after"), [*itertools.product(S, S)])
def test_an_order_moves_as_the_architecture_draws_it_and_in_no_other_way(before, after):
    if after in DRAWN[before]:
        assert check_move(before, after)
    else:
        with pytest.raises(InvariantBroken, match=f"never goes from {before} to {after}"):
            check_move(before, after)


def test_succeeded_and_failed_are_never_left():
    assert {S.SUCCEEDED, S.FAILED} == TERMINAL
    assert not [move for move in MOVES if move[0] in TERMINAL]


def test_every_state_reaches_an_end():
    reach = set(TERMINAL)
    while more := {before for before, after in MOVES if after in reach} - reach:
        reach |= more
    assert reach == set(S)


@st.composite
def walks(draw):
    state = S.ACCEPTED
    steps = [state]
    while state not in TERMINAL and len(steps) < 40:
        state = draw(st.sampled_from(sorted(after for before, after in MOVES if before is state)))
        steps.append(state)
    return steps


@given(walks())
def test_the_wire_status_only_rises_on_any_legal_walk(walk):
    shown = WireStatus.PENDING
    for state in walk:
        after = wire_status(state, shown)
        assert after >= shown
        assert (after in {WireStatus.SUCCESSFUL, WireStatus.FAILED}) == (state in TERMINAL)
        shown = after
    if walk[-1] in TERMINAL:
        assert shown is (WireStatus.SUCCESSFUL if walk[-1] is S.SUCCEEDED else WireStatus.FAILED)


def test_an_order_that_went_back_to_accepted_is_still_processing_on_the_wire():
    assert wire_status(S.ACCEPTED, WireStatus.PENDING).text == "Pending"
    assert wire_status(S.ACCEPTED, WireStatus.PROCESSING).text == "Processing"
    assert [status.text for status in WireStatus] == ["Pending", "Processing", "Successful", "Failed"]


def test_the_schema_knows_the_same_states_as_the_table():
    text = re.sub(r"--[^\n]*", "", migrations()[0][2])
    orders = re.search(r"CREATE TABLE orders \((.*?)\) \{STRICT\}", text, re.DOTALL)[1]
    listed = re.search(r"state TEXT NOT NULL CHECK \(state IN \(([^)]*)\)", orders)[1]
    assert {word.strip(" '") for word in listed.split(",")} == {state.value for state in S}
    assert {reason.value for reason in HoldReason} == {"approval", "policy", "liquidity", "fee cap", "network paused"}


REQUEST = {"address": "9454818", "token_id": "t", "value": "1.5", "memo": "", "merchant_pays_fee": False}


def test_the_fingerprint_is_fixed_for_ever():
    # It lies in order_key and is compared with requests of any later version.
    assert fingerprint(**REQUEST) == "1:235b2558ea17411246e03b128cf81058562ac83da492a99acabaa91f8a4c589b"
    other = REQUEST | {"address": "0xA", "value": "1", "memo": "Grüße"}
    assert fingerprint(**other) == "1:2429f1c7ef596ee1c9ba9b25bfb951b2ddfb6eb5e5dd3e206a491efa4d6c7d28"


@given(st.fixed_dictionaries({"address": st.text(), "token_id": st.text(), "value": st.text(), "memo": st.text()}), st.booleans())
def test_any_other_content_has_another_fingerprint(fields, flag):
    request = {**fields, "merchant_pays_fee": flag}
    mark = fingerprint(**request)
    for name, value in fields.items():
        assert fingerprint(**{**request, name: value + "0"}) != mark
    assert fingerprint(**{**request, "merchant_pays_fee": not flag}) != mark
    # No separator can be moved: text that slides from one field to the next is other content.
    moved = {**request, "address": fields["address"] + '","', "token_id": fields["token_id"]}
    assert fingerprint(**moved) != mark
