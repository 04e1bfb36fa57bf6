"""The lane of several processes on one database as `penstock prove` runs it, at its shortest."""

import asyncio

import pytest

from penstock.prove.lane import Budget
from penstock.prove.lanes import workers


@pytest.mark.slow
def test_workers_asleep_past_their_lease_and_processes_killed_at_random_pay_everybody_once(request, tmp_path, postgres_url):
    seed = request.config.getoption("--seed") or request.config.getoption("--first-seed")
    tried = asyncio.run(workers.run(Budget(40, seed, tmp_path, 1, postgres_url)))
    assert tried.found == (), "\n".join(f"{found.breach}: {found.text} ({found.replay})" for found in tried.found)
    assert tried.counts["rounds"] == tried.counts["woken_and_ended"] == 1 and tried.counts["orders"] > 10, tried
    assert tried.counts["workers_killed"] and tried.counts["apis_killed"], tried
    assert tried.counts["answerer_killed"] >= 2 and tried.counts["everybody_killed"] >= 2, tried
