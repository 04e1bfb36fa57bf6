"""What was signed, durable before a signature leaves (failure model, R3).

One JSON line an entry, each with the hash of the line before it, appended and fsynced. A crash may tear the last line: its
signature never left, so it is cut off. Any other break means that the file was edited or the disk lies, and nothing is
signed until a person has looked.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from penstock.core.canonical import canonical_sorted

FILE: Final = "signer.journal"
LOCK: Final = "signer.lock"

_FIRST: Final = "0" * 64
_LINE_BYTES_MAX: Final = 1024 * 1024
"""More than the longest intent that the signer takes (`local`), written in ASCII."""


PAGE_ENTRIES: Final = 500
_PAGE_BYTES: Final = 1024 * 1024
"""A page of the journal ends behind either, so that it goes into one frame of the signer's socket."""
_BEFORE: Final = b'{"entry":'
_AFTER_BYTES: Final = len(b',"hash":""}\n') + 64
"""What a line has before and behind its entry, whose very bytes are hashed: nothing is encoded again to be compared."""


class Place(NamedTuple):
    """Behind an entry: how many there are up to it, the bytes that they take, and the hash over all of them."""

    number: int
    size: int
    hash: str


START: Final = Place(0, 0, _FIRST)

Numbered = tuple[Place, bytes]
"""The text of an entry and the place behind it."""


class JournalBroken(Exception):
    """The journal was altered or cannot be written: nothing is signed. The text says where."""


class JournalAltered(JournalBroken):
    """What stands in it does not follow from what is before: reading it again gives the same."""


class SignerBusy(Exception):
    """Another process signs for this home."""


class Journal(Protocol):
    """What the signer believes. `append` returns only when the entries will survive a power cut."""

    @property
    def end(self) -> Place | None:
        """Behind the last entry; None before `read` has come there once."""
        ...

    def read(self, after: Place = START, *, upto: int | None = None) -> Iterator[Numbered]:
        """Every entry behind that place, oldest first, to the end or to that number. Raises JournalBroken, also where `upto` is not there.

        To the end only from a place that it has: the start, or one that `upto` has shown.
        """
        ...

    def append(self, entries: Sequence[Mapping[str, Any]]) -> list[Place]:
        """Write all and make them durable, and say where each ends. Raises JournalBroken, and from then on always."""
        ...


def page(journal: Journal, mark: Place, after: int, *, entries_max: int = PAGE_ENTRIES) -> list[Numbered]:
    """The next entries behind that number, read from a place before it; empty at the end. Raises JournalBroken."""
    found: list[Numbered] = []
    if journal.end is None:
        raise JournalBroken(f"{FILE} has not been read yet")
    if after >= journal.end.number:
        return found
    begin = mark
    for place, text in journal.read(mark):
        if place.number <= after:
            begin = place
            continue
        found.append((place, text))
        if len(found) == entries_max or place.size - begin.size >= _PAGE_BYTES:
            break
    return found


def follow(place: Place, text: bytes) -> tuple[Place, bytes]:
    """The place behind an entry that is written behind a place, and its line."""
    link = _link(place.hash, text)
    line = _line(text, link)
    return Place(place.number + 1, place.size + len(line), link), line


def entry_of(place: Place, text: bytes) -> Mapping[str, Any]:
    """What `canonical` made the text of. Raises JournalAltered."""
    try:
        entry: Mapping[str, Any] = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise JournalAltered(f"{FILE} line {place.number} is not an entry") from error
    return entry


def entries(journal: Journal) -> Iterator[Mapping[str, Any]]:
    """All of it. Raises JournalBroken."""
    return (entry_of(place, text) for place, text in journal.read())


class FileJournal:
    """The journal as `signer.journal` in the signer's folder, held by one process at a time."""

    def __init__(self, home: Path) -> None:
        """Take the lock and open the file. Raises SignerBusy or JournalBroken."""
        self._path = home / FILE
        self._broken = ""
        self.end: Place | None = None
        self._lock = take_lock(home / LOCK)
        try:
            self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            os.close(self._lock)
            raise JournalBroken(f"{FILE} cannot be opened: {error.strerror}") from error
        if os.fstat(self._handle).st_mode & 0o077:
            mode = stat.S_IMODE(os.fstat(self._handle).st_mode)
            self.close()
            raise JournalBroken(f"{FILE} can be read by others (mode {mode:04o}); run chmod 600 {FILE}")
        self.bytes_before = os.fstat(self._handle).st_size
        folder = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(folder)
        os.close(folder)

    def read(self, after: Place = START, *, upto: int | None = None) -> Iterator[Numbered]:
        """Each line checked against the hash before it. Who comes to the end first cuts off a torn last line. Raises JournalBroken."""
        place, last = after, upto if upto is not None or self.end is None else self.end.number
        with self._path.open("rb") as file:
            file.seek(place.size)
            while last is None or place.number < last:
                line = file.readline(_LINE_BYTES_MAX + 1)
                if self._broken:
                    raise JournalBroken(self._broken)  # closed meanwhile
                if last is None and not line.endswith(b"\n"):
                    if b"\n" in file.read():
                        raise JournalBroken(f"{FILE} line {place.number + 1} is longer than any entry")
                    self._cut(place)
                    return
                place, text = _read(line, place)
                yield place, text

    def _cut(self, place: Place) -> None:
        size = os.fstat(self._handle).st_size
        if size < place.size:
            raise JournalBroken(f"{FILE} has no entry {place.number}")
        if size > place.size:
            os.ftruncate(self._handle, place.size)
            os.fsync(self._handle)
        self.end = place

    def append(self, entries: Sequence[Mapping[str, Any]]) -> list[Place]:
        """One write and one fsync for all."""
        if self._broken or self.end is None:
            raise JournalBroken(self._broken or f"{FILE} has not been read yet")
        place, places, lines = self.end, [], []
        for entry in entries:
            place, line = follow(place, canonical(entry))
            places.append(place)
            lines.append(line)
        data = b"".join(lines)
        try:
            written = 0
            while written < len(data):
                written += os.write(self._handle, data[written:])
            os.fsync(self._handle)
        except OSError as error:
            # What reached the disk is not known any more; only reading it anew tells, so this process signs nothing from here on.
            self._broken = f"{FILE} could not be written ({error.strerror}); free the disk and start again"
            raise JournalBroken(self._broken) from error
        self.end = place
        return places

    def close(self) -> None:
        """Let another process sign."""
        self._broken = self._broken or f"{FILE} is closed"
        for handle in (self._handle, self._lock):
            if handle >= 0:
                os.close(handle)
        self._handle = self._lock = -1


def take_lock(path: Path) -> int:
    """A lock that lasts until the descriptor is closed or the process is gone, however it went. Raises SignerBusy."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise SignerBusy(
            "another penstock process signs on this home; stop it first (and never copy a home: two journals of one seed can pay twice)"
        ) from error
    return lock


def _read(line: bytes, before: Place) -> Numbered:
    """An entry's text and the place behind it. Raises JournalAltered unless the line follows from the one before."""
    text = line[len(_BEFORE) : -_AFTER_BYTES]
    place, expected = follow(before, text)
    if line != expected:
        raise JournalAltered(
            f"{FILE} line {place.number} does not follow from the line before it: the file was altered, or the disk lost a part of it"
        )
    return place, text


def _link(last: str, text: bytes) -> str:
    return hashlib.sha256(last.encode() + text).hexdigest()


def canonical(value: Mapping[str, Any]) -> bytes:
    """Sorted, compact and in ASCII. What is plain anyway is the same text by the faster library; DEL is the one that it does not escape."""
    with contextlib.suppress(UnicodeEncodeError):
        text = canonical_sorted(value)
        if text.isascii() and b"\x7f" not in text:
            return text
    return json.dumps(msgspec.to_builtins(value), sort_keys=True, separators=(",", ":")).encode()


def _line(text: bytes, link: str) -> bytes:
    """In canonical JSON as well: `entry` stands before `hash`."""
    return b'%s%s,"hash":"%s"}\n' % (_BEFORE, text, link.encode())
