"""Whole histories on the other families' networks: bad weather, crashes, commits of unknown outcome, and everybody paid exactly once."""

import pytest

from penstock.prove.families import run
from penstock.prove.places import PLACES


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("chain", list(PLACES))
def test_everybody_is_paid_exactly_once(chain, seed):
    assert any("CRASH" in line or "weather" in line for line in run(seed, chain))


def test_the_same_seed_is_the_same_history():
    assert run(1, "XRP") == run(1, "XRP")
