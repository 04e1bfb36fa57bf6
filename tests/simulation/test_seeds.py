"""The lane of the simulation at its smallest: the whole product on every family, in bad weather."""

import pytest

from penstock.prove.lane import Budget
from penstock.prove.lanes import seeds
from penstock.prove.simulated.networks import PLACES


@pytest.mark.slow
def test_every_family_lives_through_bad_weather(tmp_path):
    tried = seeds.run(Budget(seconds=1, seed=1, folder=tmp_path))
    assert tried.found == ()
    assert {row["family"] for row in tried.table} >= {place.family for place in PLACES.values()}
    assert tried.counts["seeds_played_twice"] == 1
    assert tried.counts["crashes"] > 0
    assert tried.counts["orders"] > tried.counts["seeds"]


def test_a_violation_is_counted_as_what_it_is():
    assert seeds._breach("seed 3: w1 is called succeeded, 5 should have arrived and 10 did") == "double_payment"
    assert seeds._breach("seed 3: w1: its recipient was promised 5 and has 10") == "double_payment"
    assert seeds._breach("seed 3: w1: its recipient was promised 5 and has 0") == "lost_order"
    assert seeds._breach("seed 3: w1 has 0 different events\n...") == "lost_event"
    assert seeds._breach("seed 3: something new") == "other"


def test_what_was_not_entered_in_some_weather_is_told():
    rows = {row["state"]: row for row in seeds._coverage({("xrp", "order failed", "calm"): 2, ("xrp", "order failed", "gap"): 1})}
    row = rows["order failed"]
    assert row["entered"] == 3
    assert rows["attempt dead"]["entered"] == 0
    assert "gap" not in row["not yet in"]
    assert "dark" in row["not yet in"]
