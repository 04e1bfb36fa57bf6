"""The generated pages are what the code says, and say all of it."""

from penstock.core import attempt, order
from penstock.core.errors import Problem
from tests.generated_docs import errors_page, stale, states_page


def test_the_pages_are_up_to_date():
    assert stale() == []


def test_each_error_has_a_row_and_a_code_of_its_own():
    page = errors_page()
    for problem in Problem:
        assert f"| {problem.code} | `{problem.reason}` | {problem.when} |" in page
    assert len({problem.code for problem in Problem}) == len({problem.reason for problem in Problem}) == len(Problem)


def test_each_move_is_in_table_and_diagram():
    page = states_page()
    for (before, after), why in [*order.MOVES.items(), *attempt.MOVES.items()]:
        assert f"| {before} | {after} | {why} |" in page
        assert f"    {before} --> {after}\n" in page
