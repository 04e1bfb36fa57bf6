"""The lane of two workers as `penstock prove` runs it, at its shortest."""

import asyncio

from penstock.prove import workers
from penstock.prove.lane import Budget


def test_a_worker_that_slept_past_its_lease_wakes_and_pays_nothing_more(request, tmp_path, postgres_url):
    seed = request.config.getoption("--seed") or request.config.getoption("--first-seed")
    tried = asyncio.run(workers.run(Budget(60, seed, tmp_path, 1, postgres_url)))
    assert tried.found == (), "\n".join(f"{found.breach}: {found.text} ({found.replay})" for found in tried.found)
    assert tried.counts["rounds"] == tried.counts["woken_and_ended"] == 1 and tried.counts["orders"] > 10, tried
