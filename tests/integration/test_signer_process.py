"""The signer's real process: what it answers, who may ask, how it ends, and that it never forgets."""

import asyncio
import contextlib
import json
import os
import re
import resource
import signal
import stat
import struct
from pathlib import Path

import pytest
from msgspec import to_builtins
from msgspec.structs import replace

from penstock.config import load
from penstock.core.intent import SignLater, SignRefused
from penstock.core.party import Secret
from penstock.prove.installed.signer_house import UNITS, environment_of, signer_house
from penstock.runtime import SystemRuntime
from penstock.setup import initialise
from penstock.signer import switch, wire
from penstock.signer.child import SignerChild, SignerFailed
from penstock.signer.client import SignerAway
from penstock.signer.journal import FILE, FileJournal, entries
from penstock.signer.place import folder_of
from penstock.signer.program import READ_FIRST_BYTES
from penstock.vault import Vault

WAIT_S = 60.0


def inside(tmp_path, scenario, **settings):
    """Run a scenario against one signer."""

    async def body():
        async with signer_house(tmp_path / "home", **settings) as house:
            return await scenario(house)

    return asyncio.run(body())


async def until(probe):
    """Ask again until it is so."""
    async with asyncio.timeout(WAIT_S):
        while not await probe():
            await asyncio.sleep(0.02)


async def talk(house, data):
    """Raw bytes in, one frame out; None when it closed without a word."""
    reader, writer = await wire.connected(house.socket, house.runtime)
    try:
        writer.write(data)
        body = await wire.read_frame(reader, body_s=WAIT_S)
        return None if body is None else json.loads(body)
    finally:
        await wire.hang_up(writer)


def test_every_family_is_paid_over_the_socket_and_the_same_intent_gives_the_same_bytes(tmp_path):
    async def scenario(house):
        intents = [house.honest(token) for token in house.tokens()]
        assert len({intent.family for intent in intents}) == 5
        signed = await house.signer.sign(intents)
        assert await house.signer.sign(intents[::-1]) == signed[::-1]
        assert (await house.signer.standing()).stopped == ""
        with pytest.raises(SignRefused, match="the seal of order") as caught:
            await house.signer.sign([replace(intents[0], attempt_id=99, slot=99, payments=house.honest(house.tokens()[2]).payments)])
        assert not isinstance(caught.value, SignLater)

    inside(tmp_path, scenario)


def test_a_frame_takes_what_fits_and_the_client_sends_several(tmp_path):
    async def scenario(house):
        token = house.tokens()[0]
        intents = [house.honest(token) for _ in range(1_200)]
        assert [s.attempt_id for s in await house.signer.sign(intents)] == [i.attempt_id for i in intents]

    inside(tmp_path, scenario)


def test_what_was_signed_stays_signed_through_kill_9_and_the_next_one_has_the_same_bytes(tmp_path):
    async def scenario(house):
        keeping = asyncio.create_task(house.child.keep())
        token = house.tokens()[0]
        first = house.honest(token)
        signed = await house.signer.sign([first])
        for _ in range(3):
            os.kill(house.child._process.pid, signal.SIGKILL)

            async def back():
                with contextlib.suppress(SignerAway):
                    return await house.signer.sign([first]) == signed
                return False

            await until(back)
        with pytest.raises(SignRefused, match="death is not proved"):
            await house.signer.sign([house.sealed(replace(first, attempt_id=9, slot=9))])
        await house.child.stop()
        await keeping

    inside(tmp_path, scenario)


def test_while_it_is_away_nothing_is_refused_and_everything_may_be_asked_again(tmp_path):
    async def scenario(house):
        intent = house.honest(house.tokens()[0])
        await house.child.stop()
        with pytest.raises(SignLater, match="does not answer") as caught:
            await house.signer.sign([intent])
        assert caught.value.everything
        assert "does not answer" in (await house.signer.standing()).stopped

    inside(tmp_path, scenario)


def test_a_torn_line_in_its_journal_is_cut_off_and_an_altered_one_keeps_it_from_starting(tmp_path):
    async def scenario(house):
        token = house.tokens()[0]
        intents = [house.honest(token) for _ in range(2)]
        signed = await house.signer.sign(intents)
        await house.child.stop()
        path = folder_of(house.settings) / FILE
        whole = path.read_bytes()
        path.write_bytes(whole + b'{"entry": {"att')
        child = SignerChild(house.runtime, house.settings.home, environment_of(house.settings.home), None)
        await child.start()
        assert await house.signer.sign(intents) == signed
        assert path.read_bytes() == whole
        await child.stop()
        path.write_bytes(whole.replace(b'"units":%d' % UNITS, b'"units":%d' % (UNITS + 1), 1))
        with pytest.raises(SignerFailed, match="the file was altered"):
            await SignerChild(house.runtime, house.settings.home, environment_of(house.settings.home), None).start()

    inside(tmp_path, scenario)


def test_a_long_journal_is_read_beside_and_a_break_in_it_ends_the_process_with_its_sentence(tmp_path, capfd):
    async def scenario(house):
        signed = await house.signer.sign([intent := house.honest(house.tokens()[0])])
        await house.child.stop()
        folder = folder_of(house.settings)
        journal = FileJournal(folder)
        list(journal.read())
        journal.append([{"kind": "death", "at_ms": 1, "attempt_id": 10**6 + n, "proof": "x" * 500_000} for n in range(40)])
        journal.close()
        assert journal.bytes_before < READ_FIRST_BYTES < (folder / FILE).stat().st_size

        async def answers():
            with contextlib.suppress(SignLater):
                return await house.signer.sign([intent]) == signed
            return False

        child = SignerChild(house.runtime, house.settings.home, environment_of(house.settings.home), None)
        await child.start()
        await until(answers)
        await child.stop()
        (folder / FILE).write_bytes((folder / FILE).read_bytes().replace(b'"attempt_id":1000039', b'"attempt_id":1000038'))
        child = SignerChild(house.runtime, house.settings.home, environment_of(house.settings.home), None)
        await child.start()
        async with asyncio.timeout(WAIT_S):
            assert await child._process.wait() == 2
        with pytest.raises(SignLater):
            await house.signer.sign([intent])
        await child.stop()

    inside(tmp_path, scenario)
    assert re.search(r"line 41 does not follow.*signer\.journal\.broken", capfd.readouterr().err)


def test_a_journal_altered_long_ago_ends_the_process_while_it_works_and_keeps_the_next_from_starting(tmp_path):
    async def scenario(house):
        await house.child.stop()
        folder = folder_of(house.settings)
        journal = FileJournal(folder)
        list(journal.read())
        journal.append([{"kind": "death", "at_ms": 1, "attempt_id": 10**6 + n, "proof": "x"} for n in range(600)])
        journal.close()

        def child():
            return SignerChild(house.runtime, house.settings.home, environment_of(house.settings.home), None)

        await (first := child()).start()
        await first.stop()
        (folder / FILE).write_bytes((folder / FILE).read_bytes().replace(b'"attempt_id":1000004', b'"attempt_id":1000003', 1))
        await (second := child()).start()
        async with asyncio.timeout(WAIT_S):
            assert await second._process.wait() == 2
        await second.stop()
        with pytest.raises(SignerFailed, match="line 5 does not follow"):
            await child().start()

    inside(tmp_path, scenario)


def test_a_disk_that_is_full_ends_the_process_and_the_next_one_goes_on(tmp_path):
    async def scenario(house):
        keeping = asyncio.create_task(house.child.keep())
        token = house.tokens()[0]
        pid = house.child._process.pid
        size = (folder_of(house.settings) / FILE).stat().st_size
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size + 10, hard))  # its logs find no room any more either
        intent = house.honest(token)
        with pytest.raises(SignLater):
            await house.signer.sign([intent])

        async def signed():
            with contextlib.suppress(SignerAway):
                return bool(await house.signer.sign([intent]))
            return False

        await until(signed)
        assert house.child._process.pid != pid
        await house.child.stop()
        await keeping

    inside(tmp_path, scenario)


def test_it_ends_when_its_parent_is_gone_and_the_next_child_waits_for_its_lock(tmp_path):
    async def scenario(house):
        first = house.child._process
        first._transport.get_pipe_transport(0).close()  # what the end of the parent is
        second = SignerChild(house.runtime, house.settings.home, environment_of(house.settings.home), None)
        await second.start()
        assert await first.wait() == 0
        assert await house.signer.sign([house.honest(house.tokens()[0])])
        await second.stop()

    inside(tmp_path, scenario)


def test_signals_of_a_terminal_are_its_parents_business(tmp_path):
    async def scenario(house):
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(house.child._process.pid, number)
        assert await house.signer.sign([house.honest(house.tokens()[0])])

    inside(tmp_path, scenario)


def test_two_signers_never_hold_one_folder(tmp_path):
    async def scenario(house):
        with pytest.raises(SignerFailed, match="another penstock process signs on this home"):
            await SignerChild(house.runtime, house.settings.home, environment_of(house.settings.home), None).start()
        assert await house.signer.sign([house.honest(house.tokens()[0])])

    inside(tmp_path, scenario)


def test_its_socket_is_for_its_own_user_unless_others_are_configured(tmp_path):
    async def alone(house):
        assert stat.S_IMODE(house.socket.stat().st_mode) == 0o600

    async def shared(house):
        assert stat.S_IMODE(house.socket.stat().st_mode) == 0o666

    inside(tmp_path / "a", alone)
    inside(tmp_path / "b", shared, PENSTOCK_SIGNER__UIDS="4242")


def test_it_dumps_no_core_and_its_memory_is_nobody_elses(tmp_path):
    async def scenario(house):
        pid = house.child._process.pid
        assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
        # The kernel gives the files of a process that is not dumpable to root; its own user keeps none of them.
        assert Path(f"/proc/{pid}/mem").stat().st_uid == 0

    inside(tmp_path, scenario)


def test_a_home_whose_path_is_longer_than_a_socket_may_have_works_all_the_same(tmp_path):
    async def scenario(house):
        assert len(str(house.socket)) > 150
        assert await house.signer.sign([house.honest(house.tokens()[0])])

    inside(tmp_path / ("deep" * 20) / ("deeper" * 15), scenario)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (struct.pack(">I", 2**32 - 1), "at most"),
        (struct.pack(">I", 4) + b"\xff\xfe\0\0", "not one JSON object"),
        (struct.pack(">I", 2) + b"[]", "not one JSON object"),
        (struct.pack(">I", 17) + b'{"op":1,"op": "a"', "JSON object"),
        (wire.framed({"op": "seed"}), "no such request"),
        (wire.framed({"op": "sign", "intents": [{}]}), "other fields or kinds of values"),
        (wire.framed({"op": "sign", "intents": 7}), "must be a list"),
        (wire.framed({"op": "standing", "x": 1}), "no such request"),
    ],
)
def test_what_is_no_request_gets_a_coded_error_and_nothing_else(tmp_path, frame, words):
    async def scenario(house):
        answer = await talk(house, frame)
        assert answer["error"]["code"] == "malformed" and words in answer["error"]["text"]
        assert await house.signer.sign([house.honest(house.tokens()[0])])

    inside(tmp_path, scenario)


def test_the_passphrase_goes_over_the_pipe_and_a_wrong_one_is_said_in_one_sentence(tmp_path):
    async def scenario():
        home = tmp_path / "home"
        environment = environment_of(home)
        settings = load(home, environment | {"PENSTOCK_PASSPHRASE": "correct horse"})
        await initialise(settings, key_file=False, asked=None)
        runtime = SystemRuntime()
        with pytest.raises(SignerFailed, match="the passphrase does not open the vault"):
            await SignerChild(runtime, home, environment, Secret("wrong horse")).start()
        with pytest.raises(SignerFailed, match="locked by a passphrase"):
            await SignerChild(runtime, home, environment, None).start()
        child = SignerChild(runtime, home, environment, Secret("correct horse"))
        await child.start()
        shown = Path(f"/proc/{child._process.pid}/cmdline").read_bytes()
        with contextlib.suppress(PermissionError):  # its files are root's
            shown += Path(f"/proc/{child._process.pid}/environ").read_bytes()
        assert b"horse" not in shown
        await child.stop()

    asyncio.run(scenario())


def test_a_stop_counts_from_the_next_signature_on_also_for_a_signer_that_hangs(tmp_path):
    """H2. It is stopped while it cannot answer anybody; when it wakes up it signs nothing of what waited."""

    async def scenario(house):
        folder, token = folder_of(house.settings), house.tokens()[0]
        pid = house.child._process.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            asked = asyncio.create_task(house.signer.sign([house.honest(token)]))
            await asyncio.sleep(0)
            switch.turn(folder, house.runtime, stop=True, reason="it hangs")
        finally:
            os.kill(pid, signal.SIGCONT)
        with pytest.raises(SignLater, match="stopped: it hangs"):
            await asked
        await house.child.stop()
        journal = FileJournal(folder)
        assert [entry["kind"] for entry in entries(journal)] == ["stop"]
        journal.close()

    inside(tmp_path, scenario)


def test_its_log_and_answers_hold_neither_seed_nor_seal_key(tmp_path, capfd):
    async def scenario(house):
        folder = folder_of(house.settings)
        vault = Vault.open(folder, house.runtime, passphrase=None)
        secrets = [vault.kept(folder / "seed.json", "seed:1"), vault.kept(folder / "seal.json", "order seal:1")]
        intent = house.honest(house.tokens()[0])
        answers = [
            await talk(house, wire.framed({"op": "sign", "intents": [to_builtins(intent) | change]}))
            for change in ({}, {"slot": "x"}, {"kind": "x"})
        ]
        answers.append(await talk(house, wire.framed({"op": "standing"})))
        return secrets, repr(answers)

    secrets, said = inside(tmp_path, scenario)
    said += "".join(capfd.readouterr())
    assert "signer.started" in said
    for secret in secrets:
        assert secret.hex() not in said and repr(secret) not in said


def test_the_journal_is_told_over_the_socket_page_by_page(tmp_path):
    async def scenario(house):
        intents = [house.honest(token) for token in house.tokens()]
        signed = await house.signer.sign(intents)
        told = await house.signer.entries(0)
        assert [(entry.number, entry.kind, entry.intent, entry.txid) for entry in told] == [
            (number, "sign", intent, made.txid) for number, (intent, made) in enumerate(zip(intents, signed, strict=True), start=1)
        ]
        assert await house.signer.entries(2) == told[2:]
        assert await house.signer.entries(len(told)) == []

    inside(tmp_path, scenario)
