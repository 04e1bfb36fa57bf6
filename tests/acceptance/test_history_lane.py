"""The history lane as `penstock prove` runs it, at its shortest: sound on both databases, and not on a program with a defect in it."""

import asyncio

import pytest

from penstock.prove.lane import Budget
from penstock.prove.lanes import witness
from penstock.prove.planted.serving import FLAWS

SECONDS = 4


def tried(request, folder, database, url="", **how):
    seed = request.config.getoption("--seed") or request.config.getoption("--first-seed")
    return asyncio.run(witness.run(Budget(SECONDS, seed, folder, 1, url), databases=(database,), **how))


@pytest.mark.slow
@pytest.mark.parametrize("database", witness.DATABASES)
def test_what_merchants_saw_of_a_program_that_was_killed_has_a_serial_order(request, tmp_path, database, postgres_url):
    said = tried(request, tmp_path, database, postgres_url)
    assert said.found == (), "\n".join(f"{found.breach}: {found.text} ({found.replay})" for found in said.found)
    for name in ("kills", "created", "conflicts", "short", "queries", "balances", "events_received", "lies_told"):
        assert said.counts[name] > 0, f"{name}: {said.counts}"


# Two of them in one program, since each shows in a place of its own.
SEEN = {
    "answered-before-the-commit": "nothing explains: query",
    "any-body-will-do": "nothing explains: create",
    "balances-from-memory": "nothing explains: balance",
}


@pytest.mark.parametrize("flaws", ["answered-before-the-commit", "any-body-will-do,balances-from-memory"])
def test_a_program_that_tells_merchants_what_is_not_so_is_found_out(request, tmp_path, flaws):
    said = tried(request, tmp_path, "sqlite", entry=("-m", "penstock.prove.planted.serving", flaws), weather=False)
    for flaw in flaws.split(","):
        assert any(SEEN[flaw] in found.text for found in said.found), (flaw, said.found)


def test_each_defect_of_a_serving_program_is_one_that_is_tried():
    assert SEEN.keys() == FLAWS.keys()
