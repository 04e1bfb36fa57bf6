"""D7 of the test plan: the simulation finds each planted bug by the seed that is known for it, and is clean under that seed without it.

`penstock prove` goes on with fresh seeds; `python -m penstock.prove.planted NAME` replays one.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import penstock
from penstock.core import order
from penstock.prove.lane import Budget
from penstock.prove.planted import lane
from penstock.prove.planted.bug import Bug
from penstock.prove.planted.lists import ALL, BUGS, TESTED, UNSEEN
from penstock.prove.planted.patch import Edit, Moved, planted, resolve
from tests.fixtures.commands import base_environment, command_runner

ROOT = Path(__file__).parents[2]
GOES_BACK = Edit("penstock.core.order:wire_status", "max(_WIRE[state], shown)", "_WIRE[state]")


@pytest.mark.slow
def test_each_planted_bug_is_found_by_its_seed(tmp_path):
    tried = lane.run(Budget(seconds=600, seed=1, folder=tmp_path))
    assert tried.found == ()
    assert tried.counts["planted_bugs_caught"] == tried.counts["planted_bugs"] == len(tried.table) == len(BUGS) >= 40


@pytest.fixture(scope="module")
def pytests():
    """Runs of pytest, each in a process of its own, with the product imported once and no plugin but our own."""
    with command_runner(
        "from pytest import console_main as main; import hypothesis, penstock.prove.planted.lists, penstock.wiring"
    ) as runner:
        yield runner


@pytest.mark.parametrize("bug", TESTED, ids=lambda bug: bug.name)
def test_the_test_that_is_named_for_it_fails_with_it(pytests, bug, tmp_path, postgres_url):
    env = base_environment(tmp_path) | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PENSTOCK_TEST_POSTGRES": postgres_url}
    ended = pytests.run("-q", "-p", "no:cacheprovider", "--planted", bug.name, f"{ROOT}/{bug.test}", env=env, cwd=ROOT)
    assert ended.code == pytest.ExitCode.TESTS_FAILED, ended
    assert re.search("planted line was reached [1-9]", ended.out)


def test_planted_bugs_have_names_and_histories_of_their_own():
    assert len({bug.name for bug in ALL}) == len(ALL)
    assert all(bug.history.endswith((".", ")")) and bug.edits for bug in ALL)


def test_each_planted_bug_is_seen_or_it_is_said_why_not():
    assert all(sum(map(bool, (bug.seed, bug.test, bug.unseen))) == 1 for bug in ALL)
    assert len(BUGS) + len(TESTED) + len(UNSEEN) == len(ALL)


def test_the_historical_bugs_of_the_plan_are_all_seen():
    seen = {number for bug in (*BUGS, *TESTED) for number in bug.plan.split()}
    assert {f"M{number}" for number in range(1, 41)} - seen == {"M38", "M39"}  # what the console needs comes with it


@pytest.mark.parametrize("bug", ALL, ids=lambda bug: bug.name)
def test_it_fits_the_product_and_is_taken_out_again(bug):
    functions = {resolve(edit.where) for edit in bug.edits}
    sound = {function: function.__code__ for function in functions}
    with planted(bug.edits):
        assert all(function.__code__ is not code for function, code in sound.items())
    assert all(function.__code__ is code and "__planted__" not in function.__globals__ for function, code in sound.items())


def test_who_holds_the_function_already_runs_the_defect_and_is_counted():
    held = order.wire_status
    with planted([GOES_BACK]) as reached:
        assert held(order.OrderState.ACCEPTED, order.WireStatus.SUCCESSFUL) is order.WireStatus.PENDING
        assert reached.times == 1
    assert held(order.OrderState.ACCEPTED, order.WireStatus.SUCCESSFUL) is order.WireStatus.SUCCESSFUL
    assert reached.times == 1


@pytest.mark.parametrize(
    "edit",
    [
        Edit("penstock.core.order:no_such", "a", "b"),
        Edit("penstock.core.nowhere:wire_status", "a", "b"),
        Edit("penstock.core.order:Order", "id", "ID"),
        Edit(GOES_BACK.where, "words that are not there", ""),
        Edit(GOES_BACK.where, "e", ""),
    ],
)
def test_a_patch_that_does_not_fit_is_an_error(edit):
    before = order.wire_status.__code__
    with pytest.raises(Moved), planted([GOES_BACK, edit] if edit.where != GOES_BACK.where else [edit]):
        pass
    assert order.wire_status.__code__ is before


def test_a_bug_that_no_seed_finds_is_a_finding_of_the_lane():
    harmless = Bug("harmless", "core", "Nothing.", (Edit(GOES_BACK.where, "max(", "max(shown, "),), 1)
    catch, problem = lane.look(harmless, [3])
    assert not catch.caught
    assert "was not found in 1 seeds" in problem.text


def test_no_product_room_loads_anything_that_breaks_it():
    """Every module of the product, the command line too, in a process of its own: nothing of `prove` is there."""
    rooms = Path(penstock.__file__).parent
    names = [
        ".".join(("penstock", *path.relative_to(rooms).with_suffix("").parts)).removesuffix(".__init__")
        for path in sorted(rooms.rglob("*.py"))
        if path.relative_to(rooms).parts[0] not in {"prove", "bench", "demo", "devnet"}
    ]
    code = f"import importlib, json, sys; [importlib.import_module(n) for n in {names!r}]; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    assert "penstock.process" in loaded
    assert [name for name in loaded if name.startswith("penstock.prove")] == []
