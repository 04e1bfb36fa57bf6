"""What `penstock prove` makes of its lanes' answers."""

import importlib
import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from penstock.prove import report
from penstock.prove.run import LANES, LEAST_S, chosen, prove
from tests.fixtures import lanes


def proof_of(**functions):
    wanted = [replace(lane, function=f"tests.fixtures.lanes:{functions[lane.name]}") for lane in LANES if lane.name in functions]
    said = []
    return prove(wanted, minutes=0.1, seed=7, size=1, say=lambda _, line: said.append(line)), said


def read(proof):
    console = Console(file=io.StringIO(), width=200)
    console.print(report.on_terminal(proof))
    return console.file.getvalue()


def test_what_was_tried_is_summed_over_all_lanes_and_says_itself_in_numbers():
    proof, said = proof_of(planted="sound", races="waits")
    values = json.loads(json.dumps(proof.values))
    assert (values["orders"], values["planted_bugs"], values["planted_bugs_caught"], values["seed"]) == (17, 2, 2, 7)
    sums = ("double_payments", "lost_orders", "ledger_imbalances", "overdrafts", "lost_events", "leaked_secrets", "other_breaches")
    assert {values[name] for name in sums} == {0}
    assert proof.holds
    assert "one of one" in said
    assert "nothing was lost. Every planted bug was seen." in read(proof)


def test_where_no_planted_bug_was_looked_for_none_is_said_to_be_seen():
    proof, _ = proof_of(races="waits")
    assert "nothing was lost." in read(proof)
    assert "planted bug was seen" not in read(proof)


def test_a_breach_is_counted_by_its_kind_and_shown_with_what_replays_it():
    proof, _ = proof_of(planted="sound", crash="breached")
    assert proof.values["double_payments"] == 1
    assert not proof.holds
    assert "again: penstock prove --seed 7" in read(proof)
    page = report.page(proof)
    assert "w3 &lt;b&gt;paid&lt;/b&gt; twice" in page
    assert "databases: sqlite;" in page  # though a lane counts something of that name
    assert "Seeds until each planted bug was caught" in page


def test_what_a_lane_counts_never_hides_a_breach_that_it_found():
    proof, _ = proof_of(canaries="leaked")
    assert proof.values["leaked_secrets"] == 1
    assert not proof.holds


def test_a_planted_bug_that_nobody_saw_is_no_proof():
    assert not proof_of(planted="missed")[0].holds


def test_a_lane_that_breaks_down_is_a_breach_and_the_others_go_on():
    proof, _ = proof_of(planted="broken", races="waits")
    assert (proof.values["other_breaches"], proof.values["orders"]) == (1, 5)
    assert "no space left on device" in read(proof)


def test_a_lane_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="no lane is called nonsense"):
        chosen(["nonsense"])


@pytest.mark.parametrize("lane", LANES, ids=lambda lane: lane.name)
def test_every_lane_is_there(lane):
    module, _, name = lane.function.partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_what_one_lane_takes_too_long_is_made_up_for_by_those_that_come_after_it(monkeypatch):
    """Ten minutes were fifteen: each lane kept to its share of the whole, and none to what was left."""
    monkeypatch.setattr("penstock.prove.run.time", lanes.CLOCK)
    proof, _ = proof_of(races="slow", crash="punctual", planted="punctual")
    races, crash, planted = proof.values["lanes"]
    assert races["took_s"] == races["had_s"] + 2
    assert (crash["took_s"], planted["took_s"]) == (crash["had_s"], planted["had_s"])
    assert proof.values["took_s"] == 6


def test_a_lane_that_finds_nothing_left_of_the_time_still_does_its_least(monkeypatch):
    monkeypatch.setattr("penstock.prove.run.time", lanes.CLOCK)
    proof, _ = proof_of(races="endless", planted="punctual")
    assert proof.values["lanes"][1]["had_s"] == LEAST_S


def test_what_was_not_measured_is_in_no_picture_and_what_was_not_looked_for_is_not_called_none_of_none():
    proof, _ = proof_of(crash="born")
    page = report.page(proof)
    assert "bind:after (sqlite)" in page
    assert "migrate:0001:after (sqlite)" not in page
    assert "none looked for" in page
    assert "none looked for" in read(proof)
