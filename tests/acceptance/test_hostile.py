"""The lanes of hostile callers, receivers and races at the size of every test run: nothing found, and something tried of each kind."""

import asyncio
import base64
import inspect

import pytest

from penstock.prove.lane import Budget
from penstock.prove.lanes import canaries, hostile, races, sinks


def tried(run, folder, seconds, postgresql=""):
    """What a lane says at size 1, which has found nothing."""
    said = run(Budget(seconds, 1, folder, 1, postgresql))
    found = asyncio.run(said) if inspect.iscoroutine(said) else said
    assert found.found == ()
    return found.counts


@pytest.mark.slow
def test_hostile_callers_get_nothing_and_leave_nothing_behind(tmp_path):
    counts = tried(hostile.run, tmp_path, 40)
    assert counts["endless_requests"] == 8
    assert counts["http_shapes"] > 60
    assert counts["signed_things_of_ours"] > 15
    for name in ("forged_signatures", "malformed_bodies", "reflections", "addresses_by_wire", "idle_connections", "healthy_requests"):
        assert counts[name] > 20, name
    assert counts["addresses"] == 10_000
    assert counts["bodies_understood"] > 0, "a fuzz that never gets through tries nothing"


def test_races_make_one_order_and_spend_no_money_twice_on_either_database(tmp_path, postgres_url):
    counts = tried(races.run, tmp_path, 20, postgres_url)
    assert counts["races"] == 16
    assert counts["control_overdrafts"] > 0
    assert counts["paid"] + counts["cancelled"] == 32


def test_hostile_receivers_learn_nothing_and_lose_no_event(tmp_path):
    counts = tried(sinks.run, tmp_path, 20)
    assert counts["sends"] == counts["receivers"] >= 28
    assert counts["lures"] > 100
    assert counts["connections_seen"] > counts["sends"], "the hook below the sockets sees nothing"
    assert counts["connections_to_public_addresses"] == 2, "both lures with a public answer are followed as far as that"
    assert counts["events_parked_and_resent"] == 44
    assert counts["signatures_verified"] > 100


def test_no_secret_is_anywhere_but_where_it_must_be(tmp_path, postgres_url):
    counts = tried(canaries.run, tmp_path, 20, postgres_url)
    assert counts["leaked_secrets"] == 0
    assert counts["secrets"] == 13
    assert (counts["bad_starts"], counts["bad_settings"]) == (2, 4)
    assert counts["places"] > 50
    assert counts["trace_lines"] > 100, "the program was not as talkative as it can be"
    assert counts["events_parked_in_the_log"] > 0


@pytest.mark.parametrize("how", [str, lambda s: s.encode().hex(), lambda s: base64.b64encode(b"xy" + s.encode()).decode(), repr])
def test_the_search_finds_a_secret_however_it_is_written(how):
    search = canaries.Search()
    search.add("the secret", "correct horse battery")
    search.keep("a page", "before " + how("correct horse battery") + " after")
    search.keep("another page", "correct horse")
    search.run()
    assert [found.text for found in search.found] == ["a page holds the secret"]
    assert search.counts["leaked_secrets"] >= 1
