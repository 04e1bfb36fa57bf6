"""What the journal says, found by name: a file beside it that answers what was signed without anybody reading the past.

The journal alone is believed. The index says up to which of its entries it goes and under which hash, goes on from there where the
journal agrees, and is thrown away and made anew where it does not. It is written behind the journal: it may lag by what a crash has
cut off, never lead. A power cut leaves it older, not with holes (WAL, synchronous NORMAL). Why it carries no seal:
docs/adr/0009-index-of-the-signer.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import stat
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import structlog

from penstock.signer.journal import PAGE_ENTRIES, START, Journal, JournalAltered, JournalBroken, Numbered, Place, entry_of, page
from penstock.signer.memory import Attempt, Buried, Memory, Noted, told_by
from penstock.signer.policy import DAY_MS, MINUTE_MS, counted
from penstock.signer.switch import Turn

T = TypeVar("T")

log = structlog.get_logger()

FILE: Final = "signer.index"

_FORM: Final = 2
"""Of tables and of all that is made from an entry (`memory`, `counted`, `expires_ms` of the codecs): whoever changes it raises the number,
and every index is made anew.
"""
_SCHEMA: Final = """
CREATE TABLE place (id INTEGER PRIMARY KEY CHECK (id = 1), number INTEGER NOT NULL, size INTEGER NOT NULL, hash TEXT NOT NULL);
CREATE TABLE mark (number INTEGER PRIMARY KEY, size INTEGER NOT NULL, hash TEXT NOT NULL);
CREATE TABLE attempt (id TEXT PRIMARY KEY, known BLOB, dead INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE holder (name TEXT PRIMARY KEY, attempt_id TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE spent (minute INTEGER NOT NULL, what TEXT NOT NULL, at_ms INTEGER NOT NULL, units TEXT NOT NULL,
    PRIMARY KEY (minute, what)) WITHOUT ROWID;
CREATE TABLE turn (number INTEGER PRIMARY KEY, id TEXT NOT NULL, stop INTEGER NOT NULL, reason TEXT NOT NULL);
"""
"""Ids are texts: a journal of before may have any, and SQLite holds 64 bits. `known` is an `Attempt` as JSON, and so are the
texts of a turn: its file may have half a surrogate pair.
"""
_MARK_EVERY: Final = 256
"""So many entries lie between two places of the journal that are kept: a page is found without reading what is before it."""
_CACHE_KIB: Final = 4096
_AT_ONCE: Final = 200
"""Names in a question."""
_SLICE_BYTES: Final = 256 * 1024
"""Of the journal in a transaction, while the past is read."""
_PROOF_ENTRIES: Final = 100
_ATTEMPT: Final = msgspec.json.Decoder(Attempt)
_TORN: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class Index:
    """The index at `path`, or in memory, of one journal. For whoever holds that journal's lock, on one thread at a time."""

    def __init__(self, path: Path | None, journal: Journal) -> None:
        """Begin where it agrees with the journal, or anew. Raises JournalBroken when there is no room for one."""
        self._path = path
        self._journal = journal
        self.place = START
        try:
            why = self._opened()
        except (sqlite3.Error, OSError, ValueError, TypeError) as error:
            why = f"it cannot be read ({type(error).__name__})"
        if why:
            log.warning("signer.index.anew", detail=why, entries=self.place.number)
            self.forget()
            try:
                self._opened()
            except (sqlite3.Error, OSError) as error:
                raise JournalBroken(f"{FILE} cannot be made ({error})") from error
        self.believed = self.place
        """How far it went before this process: what `proofread` is for."""

    def _opened(self) -> str:
        """Open it; why it is not believed, "" when it is."""
        if self._path is not None:
            _claim(self._path)
        self._sql = sqlite3.connect(self._path or ":memory:", isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._sql.close)
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = NORMAL", f"cache_size = -{_CACHE_KIB}"):
            self._sql.execute(f"PRAGMA {pragma}").fetchall()
        (form,) = self._sql.execute("PRAGMA user_version").fetchone()
        if form == 0:
            self._sql.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_FORM}; COMMIT;")
        elif form != _FORM:
            return f"it is of form {form}, not {_FORM}"
        row = self._sql.execute("SELECT number, size, hash FROM place").fetchone()
        self.place = START if row is None else Place(*row)
        return self._disagreement()

    def _disagreement(self) -> str:
        if self.place == START:
            return ""
        try:
            # From the mark before: the chain from there to here shows that the journal has both.
            read = deque(self._journal.read(self.mark(self.place.number - 1), upto=self.place.number), maxlen=1)
        except JournalBroken as error:
            return f"the journal does not agree: {error}"
        return "" if [place for place, _ in read] == [self.place] else "the journal is another one"

    def forget(self) -> None:
        """Throw it away: the next one is made from the journal, from its first line on."""
        self.close()
        self.place = START
        if self._path is not None:
            for file in _files(self._path):
                file.unlink(missing_ok=True)

    def close(self) -> None:
        """Let another process open it."""
        with contextlib.suppress(sqlite3.Error, AttributeError):
            self._sql.close()

    def catch_up(self) -> None:
        """Read the journal on to its end. Raises JournalBroken."""
        for entries in _slices(self._journal.read(self.place), self.place.size):
            memory = self._heard(entries)
            self.keep(memory, [place for place, _ in entries])

    def _heard(self, entries: Sequence[Numbered]) -> Memory:
        told = [told_by(entry_of(place, text), place.number) for place, text in entries]
        names = [name for one in told if isinstance(one, Noted) for name in one.names]
        memory = self.recall(names, _attempts_of(told))
        for one in told:
            memory.note(one)
        return memory

    def recall(self, names: Iterable[str], attempt_ids: Iterable[int]) -> Memory:
        """Who holds these names, and all about them and these attempts. Raises JournalBroken when it cannot be read."""
        memory = Memory()
        with self._guarded():
            found = self._asked("SELECT name, attempt_id FROM holder WHERE name IN ", names)
            memory.holders = {name: int(attempt_id) for name, attempt_id in found}
            ids = {str(attempt_id) for attempt_id in (*attempt_ids, *memory.holders.values())}
            for attempt_id, known, dead in self._asked("SELECT id, known, dead FROM attempt WHERE id IN ", ids):
                if dead:
                    memory.dead.add(int(attempt_id))
                if known is not None:
                    memory.attempts[int(attempt_id)] = _ATTEMPT.decode(known)
        return memory

    def _asked(self, question: str, values: Iterable[str]) -> Iterator[Any]:
        for some in _pages(values):
            yield from self._sql.execute(f"{question}({','.join('?' * len(some))})", some)

    def keep(self, memory: Memory, places: Sequence[Place]) -> None:
        """What is new in a memory, now that the journal has it up to the last of these places. Raises JournalBroken."""
        noted = [one for one in memory.fresh if isinstance(one, Noted)]
        attempts = [(str(each), _known(memory.attempts.get(each)), each in memory.dead) for each in _attempts_of(memory.fresh)]
        holders = [(name, str(one.intent.attempt_id)) for one in noted for name in one.names]
        turns = [(json.dumps(one.id), one.stop, json.dumps(one.reason)) for one in memory.fresh if isinstance(one, Turn)]
        marks = [place for place in places if place.number % _MARK_EVERY == 0]
        with self._guarded():
            self._sql.execute("BEGIN")
            self._sql.executemany("INSERT OR REPLACE INTO attempt VALUES (?, ?, ?)", attempts)
            self._sql.executemany("INSERT OR REPLACE INTO holder VALUES (?, ?)", holders)
            self._sql.executemany("INSERT INTO turn (id, stop, reason) VALUES (?, ?, ?)", turns)
            self._sql.executemany("INSERT OR REPLACE INTO mark VALUES (?, ?, ?)", marks)
            self._keep_spent(memory.first)
            self._sql.execute("INSERT OR REPLACE INTO place VALUES (1, ?, ?, ?)", places[-1])
            self._sql.execute("COMMIT")
        self.place = places[-1]

    def _keep_spent(self, first: Sequence[Noted]) -> None:
        minutes: dict[tuple[int, str], tuple[int, int]] = {}
        for one in first:
            what, units = counted(one.intent)
            at_ms, sum_units = minutes.get(key := (one.at_ms // MINUTE_MS, what), (0, 0))
            minutes[key] = max(at_ms, one.at_ms), sum_units + units
        for key, (at_ms, units) in minutes.items():
            row = self._sql.execute("SELECT at_ms, units FROM spent WHERE minute = ? AND what = ?", key).fetchone() or (0, 0)
            self._sql.execute("INSERT OR REPLACE INTO spent VALUES (?, ?, ?, ?)", (*key, max(at_ms, row[0]), str(units + int(row[1]))))
        if minutes:
            newest = max(minute for minute, _ in minutes)
            self._sql.execute("DELETE FROM spent WHERE minute < ?", (newest - DAY_MS // MINUTE_MS - 1,))

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, msgspec.MsgspecError) as error:
            with contextlib.suppress(sqlite3.Error):
                self._sql.rollback()
            if isinstance(error, msgspec.MsgspecError) or getattr(error, "sqlite_errorcode", 0) & 0xFF in _TORN:
                self.forget()
            raise JournalBroken(f"{FILE} cannot be used ({error}); it is read on or made anew at the next start") from error

    def mark(self, after: int) -> Place:
        """A place of the journal at or before the entry of that number, from which to read. Raises JournalBroken."""
        question = "SELECT number, size, hash FROM mark WHERE number <= ? ORDER BY number DESC LIMIT 1"
        with self._guarded():
            row = self._sql.execute(question, (after,)).fetchone()
        return START if row is None else Place(*row)

    def page(self, after: int, *, entries_max: int = PAGE_ENTRIES) -> list[Numbered]:
        """The journal's entries behind that number. Raises JournalBroken, with the index thrown away where the journal was altered."""
        try:
            return page(self._journal, self.mark(after), after, entries_max=entries_max)
        except JournalAltered:
            self.forget()
            raise

    def last_turn(self) -> Turn | None:
        """How the switch stands, as far as the journal knows."""
        with self._guarded():
            row = self._sql.execute("SELECT id, stop, reason FROM turn ORDER BY number DESC LIMIT 1").fetchone()
        return None if row is None else Turn(json.loads(row[0]), bool(row[1]), json.loads(row[2]))

    def knows_turn(self, turn_id: str) -> bool:
        """Whether the journal has that turn of the switch."""
        with self._guarded():
            return self._sql.execute("SELECT 1 FROM turn WHERE id = ?", (json.dumps(turn_id),)).fetchone() is not None

    def spent(self) -> list[tuple[str, int, int]]:
        """What was signed within the last day that it knows, as `counted` says it, and when: a sum for each minute, oldest first."""
        with self._guarded():
            rows = self._sql.execute("SELECT what, units, at_ms FROM spent ORDER BY minute").fetchall()
        return [(what, int(units), at_ms) for what, units, at_ms in rows]

    def proofread(self, after: int) -> int:
        """Compare some entries of the journal with what the index says of them; the number of the last, 0 when all that was believed at the
        start is proved. Raises JournalBroken, with the index thrown away, when they differ or the journal was altered.
        """
        if after >= self.believed.number:
            return 0
        entries = self.page(after, entries_max=_PROOF_ENTRIES)
        told = [told_by(entry_of(place, text), place.number) for place, text in entries]
        memory = self.recall({name for one in told if isinstance(one, Noted) for name in one.names}, _attempts_of(told))
        for (place, _), one in zip(entries, told, strict=True):
            if not (self.knows_turn(one.id) if isinstance(one, Turn) else _has(memory, one)):
                self.forget()
                raise JournalBroken(f"{FILE} does not know entry {place.number} of the journal; it is made anew at the next start")
        return entries[-1][0].number


def _claim(path: Path) -> None:
    """Files of ours alone, an empty one where there is none: under a link SQLite would write into another. Raises OSError or ValueError."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    for file in filter(os.path.lexists, _files(path)):
        status = file.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077 or status.st_uid != os.geteuid() or status.st_nlink != 1:
            raise ValueError(f"{file.name} is not a file of this user alone")


def _files(path: Path) -> list[Path]:
    """All that SQLite may keep beside it."""
    return [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm", "-journal")]


def _attempts_of(told: Sequence[Noted | Buried | Turn]) -> dict[int, None]:
    """Each once, in order."""
    return {one.intent.attempt_id if isinstance(one, Noted) else one.attempt_id: None for one in told if not isinstance(one, Turn)}


def _has(memory: Memory, told: Noted | Buried) -> bool:
    if isinstance(told, Buried):
        return told.attempt_id in memory.dead
    attempt = memory.attempts.get(told.intent.attempt_id)
    version = attempt.versions.get(told.intent.version) if attempt is not None and attempt.base == told.base else None
    # A later attempt may have what was one's that is dead.
    held = all(memory.holders.get(name, -1) >= 0 for name in told.names)
    return version == (told.digest, told.txid) and held


def _known(attempt: Attempt | None) -> bytes | None:
    return None if attempt is None else msgspec.json.encode(attempt)


def _slices(entries: Iterable[Numbered], begin: int) -> Iterator[list[Numbered]]:
    some: list[Numbered] = []
    for place, text in entries:
        some.append((place, text))
        if place.size - begin >= _SLICE_BYTES:
            yield some
            some, begin = [], place.size
    if some:
        yield some


def _pages(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, _AT_ONCE)):
        yield some
