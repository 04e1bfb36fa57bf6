"""Of one key too many the oldest is forgotten, however it was put in."""

import pytest

from penstock.core.latest import Latest


def put(kept, key, value):
    kept[key] = value


@pytest.mark.parametrize("way", [put, Latest.setdefault])
def test_the_key_that_was_put_in_first_is_forgotten(way):
    kept = Latest(2)
    for key in "abc":
        way(kept, key, key.upper())
    assert kept == {"b": "B", "c": "C"}


def test_a_key_that_is_there_is_no_younger_for_being_written_or_asked():
    kept = Latest(2)
    kept["a"], kept["b"] = 1, 2
    kept["a"] = 3
    assert kept.setdefault("a", 4) == 3
    kept["c"] = 5
    assert kept == {"b": 2, "c": 5}
