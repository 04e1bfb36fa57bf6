"""One seed, one history of the whole product on any of its networks; what the simulation can see, and what it found."""

import pytest

from penstock.commands import Commands
from penstock.prove import history
from tests.conformance.places import PLACES as SCENES


@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_seed_is_the_same_history(seed):
    first, second = (history.run(seed, networks=("ETH", "XRP")) for _ in range(2))
    assert first.trace == second.trace
    assert first.hash == second.hash


def test_a_history_can_be_read():
    text = history.replay(8, networks=("LIGHTNING",))
    assert "weather LIGHTNING" in text
    assert "nothing wrong" in text.splitlines()[-1]


@pytest.mark.parametrize("label", ["bind:after", "signer:journaled", "submit:after", "settle:before"])
def test_it_dies_where_it_is_told(label):
    assert label in history.run(4, networks=("ETH",), label=label).crashes


def test_a_clock_that_was_set_back_while_nobody_ran_stops_no_lightning(tmp_path):
    """Seed 17: payments and looks stood in the wrong order, and the audit saw coins that were already spent."""
    scene = SCENES["LIGHTNING"]
    with scene.house(tmp_path) as house:
        for number, shift_ms in enumerate((0, -30_000, -90_000)):
            house.die()
            house.clock_shift_ms = shift_ms
            house.start()
            address, memo = scene.recipient(house, number, "1234")
            assert house.run(house.withdraw(f"o{number}", "SATS", "1234", address, memo))["code"] == 10000
            house.run(house.until(f"o{number}", "succeeded"))
        house.judge()
        assert house.run(Commands(house.product).audit())["breaches"] == []
