"""Older copies put back (test plan, A7): nothing is paid twice, every order that is still there ends, what is lost is named.

A failure names its seed; `penstock.prove.lanes.rollback.play(seed)` replays it.
"""

import contextlib
import logging

import pytest
import structlog

from penstock.orders import adopt, attempts, recovery
from penstock.prove.lane import Budget
from penstock.prove.lanes import rollback
from penstock.signer import local


@pytest.fixture(autouse=True)
def quiet():
    """What the rooms log of a restored past is not what a test prints."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.mark.slow
def test_older_copies_put_back_on_every_family_pay_nobody_twice(tmp_path):
    tried = rollback.run(Budget(seconds=600, seed=1, folder=tmp_path))
    assert tried.found == ()
    assert tried.counts["plays"] == rollback.PLAYS
    assert {name for name in tried.counts if name.startswith("plays_")} == {f"plays_{place.chain}" for place in rollback.PLACES}
    assert min(tried.counts[f"{what}_put_back"] for what in set(rollback.DRAWN)) > 0
    assert tried.counts["stopped"] > 0
    assert tried.counts["forgotten_entries"] > 0


def caught(seeds):
    """What the lane says of the first of these seeds that goes wrong."""
    for seed in seeds:
        with contextlib.suppress(rollback.Crash):
            try:
                rollback.play(seed)
            except rollback.Wrong as wrong:
                return wrong
    return None


def nothing_missing(tx, limit):
    """What only the journal has is overlooked."""
    del tx, limit
    return []


def whatever(*args, **kwargs):
    """No rule, no reason, no look."""
    del args, kwargs
    return ""


def test_the_lane_catches_a_start_that_does_not_put_back_what_only_the_journal_has(monkeypatch):
    monkeypatch.setattr(adopt, "strays", nothing_missing)
    assert caught([0, 5, 15]) is not None


def test_the_lane_catches_a_journal_that_is_older_and_does_not_stop_anything(monkeypatch):
    async def agreed(self):
        del self
        return {}

    monkeypatch.setattr(recovery.Recovery, "_compare_journal", agreed)
    assert "did not stop" in str(caught([2, 3, 7]))


def test_the_lane_catches_a_house_that_neither_holds_nor_remembers(monkeypatch):
    """The historical bug of the field: a restored database pays again what it has forgotten."""
    monkeypatch.setattr(adopt, "strays", nothing_missing)
    monkeypatch.setattr(recovery.Recovery, "held", whatever)
    monkeypatch.setattr(recovery.Recovery, "comparable", lambda *_: True)
    monkeypatch.setattr(attempts, "halt_lane", whatever)
    monkeypatch.setattr(local, "_check_holders", whatever)
    monkeypatch.setattr(local, "_versions", lambda *_: {})
    assert caught([13, 36]).breach == "double_payment"
