"""How deep JSON nests is known before it is decoded, whatever its texts hold."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.nesting import is_deeper

VALUES = st.recursive(
    st.none() | st.integers() | st.text(alphabet='[]{}"\\:, aé\n', max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='[{"\\a', max_size=4), inner, max_size=3),
    max_leaves=12,
)


def levels_of(value):
    """One by one, as no decoder would."""
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(levels_of, value), default=0) if isinstance(value, list) else 0


@given(VALUES, st.booleans())
def test_json_is_deeper_than_all_numbers_below_its_levels_and_than_no_other(value, is_ascii):
    content = json.dumps(value, ensure_ascii=is_ascii).encode()
    deepest = levels_of(value)
    assert [is_deeper(content, levels) for levels in range(deepest + 2)] == [True] * deepest + [False] * 2


@pytest.mark.parametrize("after", ["", "]" * 100, '"', "\\", '\\"' + "]" * 100, "}" * 100])
def test_what_follows_a_deep_beginning_does_not_hide_it(after):
    assert is_deeper(b"[" * 100 + after.encode(), 64)
    assert is_deeper(b'{"a\\\\":' * 100 + after.encode(), 64)
