"""The index beside the journal: it answers for the past, is believed only where the journal agrees, and nobody signs twice by touching it."""

import asyncio
import contextlib
import gc
import json
import os
import shutil
import sqlite3

import pytest
from bip_utils import Bip39MnemonicDecoder

from penstock.core.intent import Death, Payment
from penstock.runtime import SystemRuntime
from penstock.signer import journal as journal_module
from penstock.signer import switch, wire
from penstock.signer.index import FILE, Index
from penstock.signer.journal import FILE as JOURNAL
from penstock.signer.journal import FileJournal, JournalBroken, canonical, entries, follow
from penstock.signer.local import LocalSigner
from penstock.signer.memory import Attempt, Noted
from penstock.signer.policy import DAY_MS, Caps
from penstock.signer.seed import Seed
from tests.fixtures.nodes import MNEMONIC
from tests.fixtures.seals import SEAL
from tests.unit.test_signer import ALLOWED, RECIPIENT, USDT, pay, refusal, sign

SEED = Seed(Bip39MnemonicDecoder().Decode(MNEMONIC))
PAST = 300
"""More than lie between two marks."""
CAPS = Caps({}, {"USDT": 10**30}, {"usdt": ("USDT", 10**12)})


class Killed(BaseException):
    """The process ends here."""


class Runtime(SystemRuntime):
    """Dies where it is told to."""

    def __init__(self):
        super().__init__()
        self.dies_at = ""
        self.later_ms = 0

    def now_ms(self):
        return super().now_ms() + self.later_ms

    def crash_point(self, label):
        if label == self.dies_at:
            raise Killed(label)


class Home:
    """A folder, and the signers that open it one after another."""

    def __init__(self, folder):
        self.folder, self.runtime, self.lines_read = folder, Runtime(), 0
        folder.mkdir(mode=0o700, exist_ok=True)
        self.open()

    def open(self):
        self.journal = FileJournal(self.folder)
        self.index = None
        try:
            self.index = Index(self.folder / FILE, self.journal)
            read = lambda: switch.read(self.folder)  # noqa: E731
            self.signer = LocalSigner(SEED, self.journal, self.runtime, ALLOWED, SEAL, caps=CAPS, switch=read, index=self.index)
        except JournalBroken:
            self.close()
            raise
        return self.signer

    def close(self):
        self.journal.close()
        if self.index is not None:
            self.index.close()

    def restart(self):
        self.close()
        return self.open()

    def proofread(self):
        after, looked = 0, 0
        while after := asyncio.run(self.signer.proofread(after)):
            looked = after
        return looked


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "home")
    yield home
    home.close()


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    """A home with a past, made once; tests work on copies."""
    home = Home(tmp_path_factory.mktemp("lived") / "home")
    for start in range(1, PAST, 50):
        sign(home.signer, *[payment(number) for number in range(start, min(start + 50, PAST))])
    home.close()
    return home.folder


@pytest.fixture
def old(lived, tmp_path):
    home = Home.__new__(Home)
    home.folder, home.runtime = shutil.copytree(lived, tmp_path / "old"), Runtime()
    home.open()
    yield home
    home.close()


def payment(number, **changes):
    keyed = Payment(1_000 + number, RECIPIENT, "", 5, key=f"1/order-{number}")
    return pay(**({"attempt_id": number, "slot": number, "payments": (keyed,)} | changes))


def stranger_to(number):
    """Another attempt that asks for the same order."""
    return payment(number, attempt_id=10_000 + number, slot=10_000 + number)


def remembers_all(home, count=PAST - 1):
    """Everything that was signed is the same again, and nothing of it is signed for another attempt."""
    asked = [payment(number) for number in range(1, count + 1)]
    txids = [entry["txid"] for entry in entries(home.journal) if entry["kind"] == "sign"]
    assert [one.txid for one in sign(home.signer, *asked)] == txids[:count]
    for number in (1, 2, count // 2, count):
        assert "death is not proved" in refusal(home.signer, stranger_to(number))
        assert "belongs to attempt" in refusal(home.signer, payment(10_000 + number, slot=number))
    assert home.index.place == home.journal.end


def kept(home):
    """What is in memory of anything that was signed, by whatever test of this process."""
    asyncio.run(home.signer.standing())  # on the signer's one thread: what it did before, it has let go of
    gc.collect()
    return [one for one in gc.get_objects() if isinstance(one, Attempt | Noted)]


def test_a_start_reads_no_more_of_a_long_past_than_lies_between_two_marks_and_keeps_none_of_it(old, monkeypatch):
    read = []
    inner = journal_module._read
    monkeypatch.setattr(journal_module, "_read", lambda line, before: read.append(before.number) or inner(line, before))
    others = kept(old)
    old.restart()
    assert 0 < len(read) <= 256
    remembers_all(old)
    assert [one for one in kept(old) if not any(one is other for other in others)] == []


def test_what_was_killed_between_journal_and_index_is_read_at_the_next_start(home):
    sign(home.signer, payment(1))
    home.runtime.dies_at = "signer:journaled"
    with pytest.raises(Killed):
        home.signer._sign([payment(2), payment(3)])
    assert home.index.place.number == 1
    assert home.journal.end.number == 3
    home.runtime.dies_at = ""
    with pytest.raises(JournalBroken, match="lags behind"):
        sign(home.signer, stranger_to(2))
    with pytest.raises(JournalBroken, match="lags behind"):
        asyncio.run(home.signer.bury([Death(2, "x")]))
    home.restart()
    remembers_all(home, 3)
    assert home.journal.end.number == 3


def test_a_kill_that_tears_the_journal_leaves_an_index_that_agrees(old):
    old.close()
    with (old.folder / JOURNAL).open("ab") as file:
        file.write(b'{"entry":{"at_ms"')
    old.open()
    assert old.index.believed.number == PAST - 1
    remembers_all(old)


def garbage(path):
    path.write_bytes(os.urandom(9_000))


def no_rows(path):
    path.write_bytes(b"")


def without_its_end(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def readable_by_others(path):
    path.chmod(0o644)


def a_link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def whose_log_is_the_journal_under_another_name(path):
    path.with_name(f"{FILE}-wal").hardlink_to(path.with_name(JOURNAL))


def that_is_the_journal_under_another_name(path):
    path.unlink()
    path.hardlink_to(path.with_name(JOURNAL))


def of_a_later_form(path):
    with contextlib.closing(sqlite3.connect(path)) as sql:
        sql.execute("PRAGMA user_version = 99")


def that_leads(path):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as sql:
        sql.execute("UPDATE place SET number = number + 1")


def without_its_marks_hash(path):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as sql:
        sql.execute("UPDATE mark SET hash = 'x'")


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.unlink(),
        garbage,
        no_rows,
        without_its_end,
        readable_by_others,
        a_link,
        whose_log_is_the_journal_under_another_name,
        that_is_the_journal_under_another_name,
        of_a_later_form,
        that_leads,
        without_its_marks_hash,
    ],
)
def test_an_index_that_is_gone_or_harmed_is_made_anew_from_the_journal(old, harm):
    old.close()
    harm(old.folder / FILE)
    old.open()
    remembers_all(old)
    assert (old.folder / FILE).stat().st_mode & 0o777 == 0o600
    assert not (old.folder / FILE).is_symlink()
    sign(old.signer, payment(PAST))
    old.restart()
    assert old.index.believed == old.journal.end
    remembers_all(old, PAST)


def test_an_older_index_is_read_on_from_where_it_is(old):
    old.close()
    older = (old.folder / FILE).read_bytes()
    old.open()
    sign(old.signer, payment(PAST))
    old.close()
    (old.folder / FILE).write_bytes(older)
    old.open()
    assert old.index.believed.number == PAST - 1
    remembers_all(old, PAST)


def test_the_index_of_another_home_is_not_believed(old, home):
    others = [payment(number, payments=(Payment(9_000 + number, RECIPIENT, "", 5),)) for number in range(1, PAST + 100)]
    sign(home.signer, *others)
    home.close()
    old.close()
    shutil.copy(home.folder / FILE, old.folder / FILE)
    old.open()
    remembers_all(old)


def test_a_journal_put_back_from_an_older_backup_decides_and_a_newer_index_beside_it_does_not(old):
    old.close()
    older = (old.folder / JOURNAL).read_bytes()
    old.open()
    sign(old.signer, payment(PAST), payment(PAST + 1))
    old.close()
    (old.folder / JOURNAL).write_bytes(older)
    old.open()
    assert old.index.believed.number == 0
    remembers_all(old)
    sign(old.signer, payment(PAST + 1, recipient="0xAA00000000000000000000000000000000000002"))


def test_another_journal_of_the_same_length_decides_about_what_is_signed(home):
    """Planted: an index believed without its agreement with the journal."""
    sign(home.signer, payment(1))
    home.close()
    path = home.folder / JOURNAL
    entry = json.loads(path.read_bytes())["entry"]
    whole = path.read_bytes()
    other = json.loads(json.dumps(entry).replace("1/order-1", "1/order-2").replace("1001", "1002"))
    _, line = follow(journal_module.START, canonical(other))
    assert len(line) == len(whole)
    path.write_bytes(line)
    home.open()
    assert home.index.place == home.journal.end
    assert "death is not proved" in refusal(home.signer, stranger_to(2))


def test_a_journal_that_was_altered_before_the_last_mark_is_found_while_it_works_and_refused_from_then_on(old):
    old.close()
    path = old.folder / JOURNAL
    path.write_bytes(path.read_bytes().replace(b'"units":5', b'"units":6', 1))
    old.open()
    with pytest.raises(JournalBroken, match="line 1 does not follow"):
        old.proofread()
    with pytest.raises(JournalBroken, match="lags behind"):
        sign(old.signer, payment(PAST))
    with pytest.raises(JournalBroken, match="line 1 does not follow"):
        old.restart()


def test_a_page_that_was_altered_takes_the_index_with_it(old):
    path = old.folder / JOURNAL
    path.write_bytes(path.read_bytes().replace(b'"units":5', b'"units":6', 1))
    with pytest.raises(JournalBroken, match="line 1 does not follow"):
        asyncio.run(old.signer.entries(0))
    with pytest.raises(JournalBroken, match="line 1 does not follow"):
        old.restart()


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM holder WHERE name = 'key 1/order-7'",
        "DELETE FROM holder WHERE name = 'order 1007'",
        "DELETE FROM holder WHERE name LIKE 'held % slot 7'",
        "DELETE FROM attempt WHERE id = '7'",
        "UPDATE attempt SET known = (SELECT known FROM attempt WHERE id = '8') WHERE id = '7'",
    ],
)
def test_an_index_with_a_hole_is_found_by_comparing_it_with_the_journal(old, change):
    """A thief who can write to it alone, or a disk that loses a page."""
    assert old.proofread() == 0 or old.index.believed.number == PAST - 1
    old.close()
    with contextlib.closing(sqlite3.connect(old.folder / FILE, isolation_level=None)) as sql:
        assert sql.execute(change).rowcount == 1
    old.open()
    with pytest.raises(JournalBroken, match="does not know entry 7"):
        old.proofread()
    old.restart()
    remembers_all(old)


def test_comparing_an_index_that_is_right_goes_through_all_that_was_believed(old):
    switch.turn(old.folder, old.runtime, stop=True, reason="a break")
    asyncio.run(old.signer.standing())
    switch.turn(old.folder, old.runtime, stop=False, reason="over")
    asyncio.run(old.signer.standing())
    asyncio.run(old.signer.bury([Death(77_777, "never signed here")]))
    old.restart()
    assert old.proofread() == PAST + 2


def test_a_disk_without_room_for_the_index_signs_nothing_more_and_loses_nothing(old):
    (pages,) = old.index._sql.execute("PRAGMA page_count").fetchone()
    old.index._sql.execute(f"PRAGMA max_page_count = {pages}")
    many = [payment(number) for number in range(PAST, PAST + 100)]
    with pytest.raises(JournalBroken, match="full"):
        sign(old.signer, *many)
    behind = old.journal.end.number
    assert behind == old.index.place.number + 100
    with pytest.raises(JournalBroken, match="lags behind"):
        sign(old.signer, stranger_to(behind))
    old.restart()
    remembers_all(old, behind)


def test_a_request_that_comes_after_the_index_is_closed_leaves_it_as_it_is(old):
    old.index.close()
    with pytest.raises(JournalBroken, match="cannot be used"):
        sign(old.signer, payment(1))
    old.restart()
    assert old.index.believed == old.journal.end


def test_an_index_that_is_found_torn_while_it_works_is_made_anew_at_the_next_start(old):
    old.index._sql.execute("UPDATE attempt SET known = x'00' WHERE id = '7'")
    with pytest.raises(JournalBroken, match="cannot be used"):
        sign(old.signer, payment(7))
    old.restart()
    assert old.index.believed.number == 0
    remembers_all(old)


def test_the_switch_and_what_counts_against_the_caps_outlive_a_restart_without_being_read_again(home, monkeypatch):
    sign(home.signer, payment(1), payment(2, token="usdt", contract=USDT))
    switch.turn(home.folder, home.runtime, stop=True, reason="half a pair \ud800")
    before = asyncio.run(home.signer.standing())
    assert before.left == {"USDT": 10**30 - 10 * 10**12}
    assert before.stopped == "the signer is stopped: half a pair ?"
    (home.folder / switch.FILE).unlink()
    monkeypatch.setattr(Index, "_heard", None)
    home.restart()
    assert asyncio.run(home.signer.standing()) == before


def test_sums_of_days_that_are_over_are_kept_no_longer(home):
    for number in range(1, 7):
        sign(home.signer, payment(number))
        home.runtime.later_ms += DAY_MS // 3
    assert len(home.index.spent()) <= 5
    home.runtime.later_ms += 2 * DAY_MS
    sign(home.signer, payment(7))
    assert [(what, units) for what, units, _ in home.index.spent()] == [("usdt", 5)]


def test_a_turn_of_the_switch_that_comes_out_of_a_backup_turns_nothing(home):
    switch.turn(home.folder, home.runtime, stop=False, reason="go")
    asyncio.run(home.signer.standing())
    older = (home.folder / switch.FILE).read_bytes()
    switch.turn(home.folder, home.runtime, stop=True, reason="stop")
    asyncio.run(home.signer.standing())
    (home.folder / switch.FILE).write_bytes(older)
    home.restart()
    assert "stop" in asyncio.run(home.signer.standing()).stopped


def test_numbers_and_names_of_any_size_are_remembered(home):
    huge = payment(2**62, slot=7)
    nul = payment(2, payments=(Payment(5, RECIPIENT, "", 5, key="1/a\0b"),))
    signed = sign(home.signer, huge, nul)
    home.restart()
    assert sign(home.signer, huge, nul) == signed
    assert "death is not proved" in refusal(home.signer, payment(3, payments=(Payment(6, RECIPIENT, "", 5, key="1/a\0b"),)))
    sign(home.signer, payment(3, payments=(Payment(6, RECIPIENT, "", 5, key="1/a"),)))


def test_who_held_an_order_until_it_died_is_known_and_so_is_who_holds_it_now(home):
    sign(home.signer, payment(1))
    home.close()
    # An EVM transaction never expires; a journal of a family that does would say this.
    journal = FileJournal(home.folder)
    list(journal.read())
    journal.append([{"kind": "death", "at_ms": 1, "attempt_id": 1, "proof": "x"}])
    journal.close()
    home.open()
    assert "is dead" in refusal(home.signer, payment(1))
    sign(home.signer, stranger_to(1))
    home.restart()
    assert home.proofread() == 3
    assert "attempt 10001 was signed for this order" in refusal(home.signer, payment(4, payments=payment(1).payments))


@pytest.mark.parametrize("text", ["plain", "del \x7f", "control \x01\n\t\b\f\r", 'quote " \\ /', "ü", "語", "😀", "half \ud800", "<&>"])
def test_the_text_of_an_entry_is_the_one_that_json_has_always_given(text):
    entry = {"kind": "stop", "id": text, "at_ms": -5, "big": 10**40, "z": [None, True, {"b": 1, "a": text}], "é": 1}
    assert canonical(entry) == json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()
    del entry["é"]
    assert canonical(entry) == json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()


def test_a_reason_with_half_a_pair_in_a_journal_of_before_is_told_all_the_same(home):
    """It was told never, and a gateway that started held every network for ever."""
    home.journal.append([{"kind": "stop", "at_ms": 1, "id": "\ud800", "reason": "Gr\udcfc\udcdfe \U0001f600"}])
    home.restart()
    (told,) = asyncio.run(home.signer.entries(0))
    assert (told.number, told.kind, told.text) == (1, "stop", "Gr??e \U0001f600")
    assert json.loads(wire.framed({"ok": asyncio.run(home.signer.told(0))})[4:])["ok"][0]["text"] == told.text
    home.restart()
    assert home.proofread() == 1


def test_what_is_told_of_an_entry_is_the_same_as_a_record_and_over_the_wire(home):
    sign(home.signer, payment(1), payment(2))
    asyncio.run(home.signer.bury([Death(77_777, "never signed here")]))
    told = asyncio.run(home.signer.entries(0))
    over = wire.framed({"ok": asyncio.run(home.signer.told(0))})[4:]
    assert wire.entries_of(wire.answer_of(over).ok) == told
    assert json.loads(canonical(told)) == json.loads(over)["ok"]
    assert [entry.intent for entry in told] == [payment(1), payment(2), None]
    assert [(entry.kind, entry.attempt_id, entry.text) for entry in told[1:]] == [("sign", 2, ""), ("death", 77_777, "never signed here")]
