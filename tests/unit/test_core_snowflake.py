"""Ids in the vendor's form: every published one fits its own prefix, and ours go both ways."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.snowflake import EPOCH_MS, SEQUENCES, WORKERS, compose, from_wire, moment_ms, wire_id

PUBLISHED = [
    # Spec, section 4.1, 4.2 and 7.2, and both base documents. An on-chain order also showed the prefix CP before its 33 digits.
    ("202301090616511612332555323101184", 333),
    ("202302010636261620672405236006912", 492),
    ("202307270722481684464338564370432", 789),
    ("202307270722481684464338581147648", 789),
    ("202307310832281685931420435083264", 831),
    ("202307310832281685931420447666176", 831),
    ("202310310658501719247540351442944", 458),
    ("202311110049091723140772755197952", 269),
]

moments = st.integers(EPOCH_MS, EPOCH_MS + (1 << 41) - 1)
workers = st.integers(0, WORKERS - 1)
sequences = st.integers(0, SEQUENCES - 1)


@pytest.mark.parametrize(("text", "worker"), PUBLISHED)
def test_a_published_id_was_drawn_in_the_second_of_its_prefix(text, worker):
    snowflake = from_wire(text)
    assert snowflake is not None
    assert wire_id(snowflake) == text
    assert f"{datetime.fromtimestamp(moment_ms(snowflake) // 1000, UTC):%Y%m%d%H%M%S}" == text[:14]
    assert (snowflake >> 12 & 1023, snowflake & 4095) == (worker, 0)


@pytest.mark.parametrize(("order", "record"), [(PUBLISHED[2][0], PUBLISHED[3][0]), (PUBLISHED[4][0], PUBLISHED[5][0])])
def test_a_record_is_drawn_a_few_milliseconds_after_its_order_on_the_same_worker(order, record):
    assert 3 <= moment_ms(from_wire(record)) - moment_ms(from_wire(order)) <= 4


@given(moments, workers, sequences)
def test_an_id_goes_to_the_wire_and_back(at_ms, worker, sequence):
    snowflake = compose(at_ms, worker, sequence)
    assert 0 <= snowflake < 1 << 63
    assert moment_ms(snowflake) == at_ms
    assert len(wire_id(snowflake)) == 33
    assert from_wire(wire_id(snowflake)) == snowflake


@given(st.tuples(moments, workers, sequences), st.tuples(moments, workers, sequences))
def test_ids_are_ordered_like_time_then_worker_then_sequence_and_never_collide(one, two):
    assert (compose(*one) < compose(*two)) == (one < two)
    assert (compose(*one) == compose(*two)) == (one == two)
    assert (wire_id(compose(*one)) < wire_id(compose(*two))) == (one < two)


@pytest.mark.parametrize(
    "text",
    [
        "", "1", "202300000000000000000000000000001", "202310310658511719247540351442944", "CP202311110049091723140772755197952",
        "202310310658501719247540351442944 ", "202310310658501719247540351442944\n", "20231031065850171924754035144294",
        "2023103106585017192475403514429440", "\uff1202310310658501719247540351442944", "202310310658509999999999999999999", "9" * 33, "0" * 33,
        "-02310310658501719247540351442944", "+02310310658501719247540351442944", "2023-0310658501719247540351442944",
    ],
)  # fmt: skip
def test_what_does_not_fit_its_own_time_is_no_id(text):
    assert from_wire(text) is None


@given(st.text("0123456789", min_size=33, max_size=33))
def test_whatever_is_taken_as_an_id_prints_as_it_was(text):
    snowflake = from_wire(text)
    assert snowflake is None or wire_id(snowflake) == text
