"""Nodes that lie or break, on every family: nothing is paid twice, nothing is lost, and no end is told that is not true."""

import pytest

from penstock.prove.lane import Budget
from penstock.prove.lanes.lying import SCENES, Case, Play, cases, run
from penstock.prove.liars.dialects import DIALECTS
from penstock.prove.liars.lies import LIES

SAMPLE_S = 20.0
SEED = 20_261_121

ONCE_WRONG = (
    # One node's count of our transactions halted the lane for a person.
    Case("evm", "strangers_wait", "first", 1),
    # One of two addresses of a Lightning node was believed alone: that a payment had failed (and the order was paid all the same), that it
    # was gone, what it had cost, and what was left in the channels.
    Case("lightning", "fake_failure", "first", 1),
    Case("lightning", "false_absence", "first", 1),
    Case("lightning", "fee_zero", "first", 1),
    Case("lightning", "balance_too_low", "first", 1),
    # One node of TRON that asked nothing: the transaction cost more than its cap, and the next ran out of energy.
    Case("tron", "fee_zero", "first", 1),
    # One node that named too little gas or energy: the payment ran out of it and its order failed.
    Case("tron", "too_little_gas", "first", 1),
    Case("evm", "too_little_gas", "first", 1),
    # A version that was made on a head that is not: it was dead at once, no node keeps the ledgers in which to search for it, and the order
    # waited for ever, also long after the lie.
    Case("xrp", "stale_head", "first", 1),
)
KEPT = tuple(Case(family, "kept_waiting", "first", 1) for family in ("evm", "bitcoin", "tron", "xrp"))
"""One node that showed in its pool what it passed on to nobody: nothing was sent again while it said so, and fees rose to their cap."""
"""What the product once did wrong, with what it was."""


@pytest.mark.slow
def test_a_sample_of_all_lies_pays_each_order_once_and_tells_no_false_end(tmp_path):
    tried = run(Budget(seconds=SAMPLE_S, seed=SEED, folder=tmp_path))
    assert tried.found == ()
    assert tried.counts["runs"] > 0
    assert tried.counts["orders"] == 3 * tried.counts["runs"]


@pytest.mark.parametrize("case", ONCE_WRONG, ids=lambda case: case.replay)
def test_what_a_lie_once_did_it_does_no_more(tmp_path, case):
    result = Play(case, tmp_path)()
    assert result.found == []
    assert result.states == {"succeeded": 3}


@pytest.mark.parametrize("case", KEPT, ids=lambda case: case.replay)
def test_what_one_node_keeps_to_itself_reaches_the_others_while_it_lies(tmp_path, case):
    result = Play(case, tmp_path)()
    assert (result.outcome, result.found, result.states) == ("went on", [], {"succeeded": 3})


def test_there_are_many_lies_and_each_is_told_on_every_family_by_one_node_and_by_both():
    assert len(LIES) >= 24
    assert len(set(cases(0))) == len(LIES) * len(SCENES) * 3
    assert set(SCENES) == set(DIALECTS)


def test_a_credential_of_a_node_in_a_log_would_be_seen(tmp_path, monkeypatch):
    """The judge itself is tried: a program that names nodes by their addresses is found out."""
    monkeypatch.setattr("penstock.rails.rpc.Node.name", property(lambda node: node.url, lambda *_: None))
    result = Play(Case("evm", "html_with_200", "all", 0), tmp_path)()
    assert "leaked_secret" in {found.breach for found in result.found}


def test_a_program_that_believes_one_node_would_be_found_out(tmp_path, monkeypatch):
    """The judge again: with one node enough for everything, one liar makes it tell ends that are not true."""
    monkeypatch.setattr("penstock.rails.evm.watch.Watch.needed", property(lambda _: 1))
    result = Play(Case("evm", "fake_success", "first", 1), tmp_path)()
    assert "lost_order" in {found.breach for found in result.found}
