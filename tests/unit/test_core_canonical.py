"""The exact text of what is hashed: what the standard library writes, byte for byte, since hashes of before were made over that."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.canonical import canonical, canonical_sorted

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**80), 10**80) | TEXTS,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(TEXTS, inner),
    max_leaves=20,
)


@given(VALUES)
def test_the_bytes_are_those_of_the_standard_library(value):
    assert canonical(value) == json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    assert canonical_sorted(value) == json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True).encode()


def test_every_character_there_is():
    text = "".join(chr(point) for point in range(0x110000) if not 0xD800 <= point <= 0xDFFF)
    assert canonical(text) == json.dumps(text, ensure_ascii=False).encode()


def test_half_a_surrogate_pair_has_no_bytes():
    with pytest.raises(UnicodeEncodeError):
        canonical("\ud800")
