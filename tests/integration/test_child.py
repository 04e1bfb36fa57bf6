"""A child process as `serve` starts and keeps it: what it is told, what is heard of it, how often it is started, and how it ends."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
import uvloop

from penstock.child import AGAIN_S, Child, ChildFailed
from penstock.process import kept
from penstock.runtime import SystemRuntime

UP = "import os, sys, time\nfrom penstock import child\ntold = child.told()\nchild.say('ready')\n"
LISTENS = "import asyncio\nasyncio.run(child.until_end())\n"


class Patient(SystemRuntime):
    """Notes how long it was asked to sleep, and does not; after so many it tells `done`."""

    def __init__(self, naps):
        super().__init__()
        self.slept, self._naps, self.done = [], naps, asyncio.Event()

    async def sleep(self, seconds):
        self.slept.append(seconds)
        if len(self.slept) == self._naps:
            self.done.set()
            await asyncio.Event().wait()


def child(code, runtime=None, **options):
    environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return Child(runtime or SystemRuntime(), "helper", ("-c", code), environment, {"word": "x" * 200_000}, **options)


def play(scenario):
    uvloop.run(scenario())


async def gone(pid):
    """Until nobody has that number any more."""
    async with asyncio.timeout(20):
        while Path(f"/proc/{pid}").exists():
            await asyncio.sleep(0.01)


def test_it_is_told_more_than_a_pipe_holds_and_what_it_says_is_heard():
    async def scenario():
        heard, came = bytearray(), asyncio.Event()

        def hears(data):
            heard.extend(data)
            if heard.endswith(b"!"):
                came.set()

        one = child(UP + "os.write(1, str(len(told['word'])).encode() + b'!')\n" + LISTENS, heard=hears)
        await one.start()
        keeping = asyncio.create_task(one.keep())
        async with asyncio.timeout(20):
            await came.wait()
        assert heard == b"200000!"
        await one.stop()
        await keeping

    play(scenario)


def test_one_that_ends_again_and_again_is_started_with_pauses_that_grow():
    async def scenario():
        runtime = Patient(len(AGAIN_S) + 1)
        one = child(UP, runtime)
        await one.start()
        keeping = asyncio.create_task(one.keep())
        async with asyncio.timeout(60):
            await runtime.done.wait()
        assert runtime.slept == [*AGAIN_S, AGAIN_S[-1]]
        keeping.cancel()
        await one.stop()

    play(scenario)


def test_one_that_cannot_start_says_why_and_with_which_code():
    async def scenario():
        with pytest.raises(ChildFailed, match=r"^the port is taken$") as caught:
            await child(UP.replace("'ready'", "'the port is taken'") + "sys.exit(2)").start()
        assert caught.value.code == 2
        with pytest.raises(ChildFailed, match=r"the helper's process did not start") as caught:
            await child("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)").start()
        assert caught.value.code == -signal.SIGKILL

    play(scenario)


def test_one_that_is_stopped_while_it_comes_up_is_no_failure():
    async def scenario():
        one = child("from penstock import child\nchild.told()\n" + "import asyncio\nasyncio.run(child.until_end())\n")
        await one.begin()
        coming = asyncio.create_task(one.up())
        await asyncio.sleep(0)
        await one.stop()
        await coming

    play(scenario)


def test_one_that_ends_by_itself_while_it_is_stopped_ends_both():
    """Two read its last words at once, and each took what woke the other: a `serve` whose start had failed hung for ever, one in twenty."""

    async def scenario():
        one = child("from penstock import child\nchild.told()\nchild.say('the vault is locked')")
        await one.begin()
        coming = asyncio.create_task(one.up())
        await asyncio.sleep(0)
        os.waitid(os.P_PID, one._process.pid, os.WEXITED | os.WNOWAIT)
        async with asyncio.timeout(20):
            await one.stop()
            await coming

    play(scenario)


def test_one_that_does_not_end_is_killed():
    async def scenario():
        one = child(UP + "time.sleep(600)", end_s=0.0)
        await one.start()
        pid = one._process.pid
        await one.stop()
        await gone(pid)

    play(scenario)


def test_signals_of_a_terminal_do_not_end_it():
    async def scenario():
        one = child(UP + LISTENS)
        await one.start()
        for number in (signal.SIGINT, signal.SIGTERM):
            one._process.send_signal(number)
        await one.stop()
        assert one._process.returncode == 0

    play(scenario)


def test_one_that_is_killed_before_it_was_told_anything_is_a_failure_like_others(monkeypatch):
    """uvloop closes the pipe by itself then, and has a RuntimeError for who writes to it: that had ended the loop that keeps the signer."""
    start = asyncio.create_subprocess_exec

    async def killed(*words, **options):
        process = await start(*words, **options)
        process.kill()
        await process.wait()
        await asyncio.sleep(0)
        return process

    async def scenario():
        monkeypatch.setattr(asyncio, "create_subprocess_exec", killed)
        with pytest.raises(ChildFailed) as caught:
            await child(UP).start()
        assert caught.value.code == -signal.SIGKILL

    play(scenario)


FIRST_DIES = "import os, signal\nfrom pathlib import Path\nif not Path({mark!r}).exists():\n    Path({mark!r}).touch()\n    {end}\n"


def test_one_more_that_answers_is_started_again_though_its_first_start_was_killed(tmp_path):
    """It had ended the whole house."""

    async def scenario():
        up = asyncio.Event()
        code = FIRST_DIES.format(mark=str(tmp_path / "mark"), end="os.kill(os.getpid(), signal.SIGKILL)") + UP
        one = child(code + "os.write(1, b'!')\n" + LISTENS, heard=lambda _: up.set())
        keeping = asyncio.create_task(kept(one))
        async with asyncio.timeout(20):
            await up.wait()
        await one.stop()
        await keeping

    play(scenario)


def test_one_more_that_finds_a_setting_wrong_ends_the_house_with_its_sentence():
    async def scenario():
        code = "from penstock import child\nchild.told()\nchild.say('that port is taken')\nimport sys\nsys.exit(2)"
        with pytest.raises(ChildFailed, match="that port is taken"):
            await kept(child(code))

    play(scenario)
