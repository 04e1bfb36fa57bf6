"""A database that breaks off while the program starts: each step is done again, and what lasts ends it with one sentence."""

import pytest
from structlog.testing import capture_logs

from penstock.db import CommitUnknown, DatabaseUnavailable, SqliteDatabase
from penstock.pump import START_WAITS_S
from tests.conformance.places import ETHEREUM as PLACE


class BreaksOff(SqliteDatabase):
    """The COMMITs of one label are done, and nobody hears of the first of them."""

    def __init__(self, runtime, path, label, times):
        self._label, self._left = label, times
        super().__init__(runtime, path)

    def _write(self, label, job):
        result = super()._write(label, job)
        if label == self._label and self._left:
            self._left -= 1
            raise CommitUnknown(label)
        return result


def labels_of_a_start(house):
    """Every transaction that a start makes, by name, without those of the schema and of ids."""
    told = []

    class Tells(SqliteDatabase):
        def _write(self, label, job):
            told.append(label)
            return super()._write(label, job)

    house.die()
    house.open_database = Tells
    house.start()
    return sorted({label for label in told if not label.startswith(("migrate", "ids."))})


def test_a_commit_that_keeps_its_outcome_to_itself_ends_no_start(tmp_path):
    """It ended `serve`, whichever step of the start it fell into."""
    with PLACE.house(tmp_path) as house:
        labels = labels_of_a_start(house)
        assert {"take_over", "clock", "lane", "treasury"} <= set(labels), labels
        for number, label in enumerate(labels):
            house.die()
            house.open_database = lambda runtime, path, label=label: BreaksOff(runtime, path, label, 1)
            with capture_logs() as logs:
                house.start()
            assert [log for log in logs if log["event"] in ("start.again", "audit.failed")], label
            address, memo = PLACE.recipient(house, number, "1")
            assert house.run(house.withdraw(label, PLACE.main, "1", address, memo))["code"] == 10000
            assert house.run(house.until(label, "succeeded", "failed"))["state"] == "succeeded"
        house.judge()


def test_a_database_that_breaks_off_again_and_again_ends_the_start_with_one_sentence(tmp_path):
    with PLACE.house(tmp_path) as house:
        house.die()
        house.open_database = lambda runtime, path: BreaksOff(runtime, path, "take_over", 99)
        with capture_logs() as logs, pytest.raises(DatabaseUnavailable, match=r"while the program started .*; nothing is lost"):
            house.start()
        assert [log["seconds"] for log in logs if log["event"] == "start.again"] == list(START_WAITS_S)
        house.die()
        house.open_database = lambda runtime, path: BreaksOff(runtime, path, "", 0)
        house.start()
        house.judge()
