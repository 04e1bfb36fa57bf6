"""The lane of the simulation at its smallest: the real rooms on every family, in bad weather."""

import pytest

from penstock.prove import seeds
from penstock.prove.lane import Budget


@pytest.mark.slow
def test_every_family_lives_through_bad_weather(tmp_path):
    tried = seeds.run(Budget(seconds=30, seed=1, folder=tmp_path))
    assert tried.found == ()
    assert {row["network"] for row in tried.table} == set(seeds.NETWORKS)


def test_a_violation_is_counted_as_what_it_is():
    assert seeds._breach("seed 3: w1 is succeeded, 5 should have arrived and 10 did") == "double_payment"
    assert seeds._breach("seed 3: w1 is succeeded, 5 should have arrived and 0 did") == "lost_order"
    assert seeds._breach("seed 3: w1 has 0 different events\n...") == "lost_event"
    assert seeds._breach("seed 3: something new") == "other"
