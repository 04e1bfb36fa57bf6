"""A worker loop on a virtual clock: it claims, rests, wakes, backs off, and stops only when asked."""

import asyncio
import random

import pytest
from structlog.testing import capture_logs

from penstock.db import CommitUnknown, DatabaseUnavailable
from penstock.prove.simulated.virtual import Journal, VirtualLoop, VirtualRuntime
from penstock.pump import BACK_OFF_S_MAX, Pump


class Rows:
    """A job over a list; each item may be an exception to raise when it is handled."""

    def __init__(self, runtime, *due, takes_s=0.0):
        self.runtime = runtime
        self.due = list(due)
        self.takes_s = takes_s
        self.claims = []
        self.handled = []
        self.claim_fails = []

    async def claim(self, limit):
        self.claims.append(self.runtime.monotonic())
        if self.claim_fails:
            raise self.claim_fails.pop(0)
        taken, self.due = self.due[:limit], self.due[limit:]
        return taken

    async def handle(self, items):
        await self.runtime.sleep(self.takes_s)
        for item in items:
            if isinstance(item, BaseException):
                raise item
            self.handled.append((item, self.runtime.monotonic()))


def scenario(body):
    loop = VirtualLoop()
    runtime = VirtualRuntime(loop, random.Random(1), Journal())
    try:
        with capture_logs() as logs:
            loop.run_until_complete(body(runtime))
        return logs
    finally:
        runtime.bury()
        loop.close()


def test_it_claims_until_nothing_is_due_and_then_polls():
    async def body(runtime):
        rows = Rows(runtime, *range(250))
        pump = Pump("test", rows, runtime, limit=100, idle_s=2)
        runtime.spawn(pump.run(), name="pump")
        await runtime.sleep(5)
        await pump.stop()
        assert [item for item, _ in rows.handled] == list(range(250))
        assert rows.claims == [0, 0, 0, 0, 2, 4]

    scenario(body)


def test_a_wake_cuts_the_rest_short_also_one_that_came_while_it_worked():
    async def body(runtime):
        rows = Rows(runtime, takes_s=1)
        pump = Pump("test", rows, runtime, limit=100, idle_s=60)
        runtime.spawn(pump.run(), name="pump")
        await runtime.sleep(5)
        rows.due.append("a")
        pump.wake()
        await runtime.sleep(0.5)
        claim, rows_claim = rows.claim, []

        async def empty_once(limit):
            rows.claim = claim
            rows_claim.append(limit)
            rows.due.append("b")
            pump.wake()
            return []

        rows.claim = empty_once
        await runtime.sleep(3)
        await pump.stop()
        assert [item for item, _ in rows.handled] == ["a", "b"]
        assert rows.handled[0][1] == pytest.approx(6)
        assert rows.handled[1][1] == pytest.approx(7)

    scenario(body)


def test_while_the_database_is_away_it_backs_off_and_no_wake_hurries_it():
    async def body(runtime):
        rows = Rows(runtime)
        rows.claim_fails = [DatabaseUnavailable("x")] * 12 + [CommitUnknown("y")]
        pump = Pump("test", rows, runtime, limit=100, idle_s=1)
        runtime.spawn(pump.run(), name="pump")
        for _ in range(2_000):
            pump.wake()
            await runtime.sleep(0.1)
            if pump.failures == 13:
                assert pump.fault == "CommitUnknown"
        gaps = [b - a for a, b in zip(rows.claims, rows.claims[1:], strict=False)][:13]
        assert all(0.5 * min(BACK_OFF_S_MAX, 0.1 * 2**n) <= gap <= 1.1 * min(BACK_OFF_S_MAX, 0.1 * 2**n) for n, gap in enumerate(gaps))
        assert (pump.failures, pump.fault) == (0, "")
        await pump.stop()

    logs = scenario(body)
    assert [line for line in logs if line["event"] == "pump.recovered"] == [
        {"event": "pump.recovered", "pump": "test", "failures": 13, "log_level": "info"}
    ]


def test_an_unforeseen_failure_is_told_without_its_text_and_the_loop_goes_on():
    async def body(runtime):
        rows = Rows(runtime, RuntimeError("the secret is 0123"), "next")
        pump = Pump("test", rows, runtime, limit=1)
        runtime.spawn(pump.run(), name="pump")
        await runtime.sleep(5)
        await pump.stop()
        assert [item for item, _ in rows.handled] == ["next"]

    logs = scenario(body)
    assert [line["event"] for line in logs] == ["pump.step.failed", "pump.back_off", "pump.recovered"]
    assert all("0123" not in str(value) for line in logs for value in line.values())


def test_stop_waits_for_the_batch_that_runs():
    async def body(runtime):
        rows = Rows(runtime, "a", "b", takes_s=3)
        pump = Pump("test", rows, runtime, limit=1)
        runtime.spawn(pump.run(), name="pump")
        await runtime.sleep(1)
        await pump.stop()
        assert rows.handled == [("a", 3)]
        assert rows.due == ["b"]

    scenario(body)


def test_each_failure_is_told_for_metrics():
    async def body(runtime):
        rows = Rows(runtime)
        rows.claim_fails = [DatabaseUnavailable("x"), KeyError("y")]
        pump = Pump("test", rows, runtime, limit=1)
        told = []
        pump.failed = told.append
        runtime.spawn(pump.run(), name="pump")
        await runtime.sleep(5)
        await pump.stop()
        assert [type(error) for error in told] == [DatabaseUnavailable, KeyError]

    scenario(body)


@pytest.mark.parametrize("fails", [[], [DatabaseUnavailable("x")] * 50])
def test_stop_ends_a_rest_and_a_back_off_at_once(fails):
    async def body(runtime):
        rows = Rows(runtime)
        rows.claim_fails = list(fails)
        pump = Pump("test", rows, runtime, limit=100, idle_s=1_000)
        runtime.spawn(pump.run(), name="pump")
        await runtime.sleep(100)
        await pump.stop()
        assert runtime.monotonic() == pytest.approx(100)

    scenario(body)


def test_stopped_before_it_started_it_does_nothing():
    async def body(runtime):
        rows = Rows(runtime, "a")
        pump = Pump("test", rows, runtime, limit=1)
        await pump.stop()
        await pump.run()
        assert rows.claims == []

    scenario(body)


def test_a_cancelled_pump_passes_the_cancellation_on():
    async def body(runtime):
        pump = Pump("test", Rows(runtime), runtime, limit=1)
        task = runtime.spawn(pump.run(), name="run")
        await runtime.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    scenario(body)
