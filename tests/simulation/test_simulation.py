"""One seed, one history: bad weather on any network, a crash at every commit, and everybody is paid exactly once.

`make sim SEEDS=1000` runs more; a failure prints the line that replays it.
"""

import pytest

from penstock.commands import Commands
from penstock.prove.simulated import simulation
from penstock.prove.simulated.networks import PLACES
from tests.conformance.places import PLACES as SCENES

LABELS = [
    f"{name}:{when}"
    for name in [
        "intake",
        "bind",
        "sign",
        "give",
        "sent",
        "settle",
        "bump",
        "lane",
        "treasury",
        "audit.claim",
        "audit.pass",
        "deliver.claim",
        "webhook.record",
        "ids.lease",
        "ids.renew",
    ]
    for when in ("before", "after")
] + ["send.claim:after", "follow.claim:after", "signer:journaled", "submit:after", "webhook:sent"]
ON = [*((name,) for name in PLACES), ()]
"""Each network in turn, and then those that the seed chooses."""

crashed_at: set[str] = set()


@pytest.mark.slow
def test_everybody_is_paid_exactly_once(simulation_seed):
    seed = simulation_seed
    outcome = simulation.run(seed, networks=ON[seed % len(ON)], label=LABELS[seed % len(LABELS)], visit=1 + seed // len(LABELS) % 3)
    crashed_at.update(outcome.crashes)
    assert outcome.orders > 0


def test_a_crash_was_survived_at_every_commit(request):
    if request.config.option.seeds < 100 or request.config.option.seed is not None:
        return  # too few seeds to say
    assert set(LABELS) - crashed_at == set()


@pytest.mark.parametrize("seed", [3, 4])
def test_the_same_seed_is_the_same_history_and_another_is_another(seed):
    first, second, other = (simulation.run(one, networks=("ETH", "LIGHTNING")) for one in (seed, seed, seed + 10))
    assert first.trace == second.trace
    assert first.hash == second.hash != other.hash


def test_a_history_can_be_read():
    text = simulation.replay(5, networks=("LIGHTNING",))
    assert "weather LIGHTNING" in text
    assert "nothing wrong" in text.splitlines()[-1]


@pytest.mark.parametrize("label", ["bind:after", "signer:journaled", "submit:after", "settle:before", "follow.claim:after"])
def test_it_dies_where_it_is_told(label):
    assert label in simulation.run(3, networks=("ETH",), label=label).crashes


@pytest.mark.parametrize(
    ("seed", "what"),
    [
        (20261167, "a life that began while the clock was off never gave a short invoice to the node, and nothing ended it"),
        (117, "a call to the node was lost, and the doubt about one payment stopped all others"),
        (25, "the clock was stepped back before the treasury looked, and payments of before seemed to have left without us"),
        (59, "the clock was stepped back while the treasury looked"),
    ],
)
def test_no_clock_and_no_lost_call_stops_lightning(seed, what):
    """Each was a lane that stood until a person came."""
    assert simulation.run(seed, networks=() if seed > 1_000 else ("LIGHTNING",)).orders > 0, what


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
