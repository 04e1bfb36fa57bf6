"""What was signed, durable before a signature leaves (failure model, R3).

One JSON line an entry, each with the hash of the line before it, appended and fsynced. A crash may tear the last line: its
signature never left, so it is cut off. Any other break means that the file was edited or the disk lies, and nothing is
signed until a person has looked.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

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
_MARK_EVERY: Final = 256
"""So many entries lie between two places of the file that are kept in memory: a page is found without reading what is before it."""

Numbered = tuple[int, str, Mapping[str, Any]]
"""Number, hash and entry."""


class JournalBroken(Exception):
    """The journal was altered or cannot be written: nothing is signed. The text says where."""


class SignerBusy(Exception):
    """Another process signs for this home."""


class Journal(Protocol):
    """The signer's memory. `append` returns only when the entries will survive a power cut."""

    def entries(self) -> Iterator[Mapping[str, Any]]:
        """Everything that was appended, oldest first. Raises JournalBroken."""
        ...

    def append(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Write all and make them durable. Raises JournalBroken, and from then on always."""
        ...

    def page(self, after: int) -> list[Numbered]:
        """The next entries behind that number, empty at the end. Only after `entries` was read once. Raises JournalBroken."""
        ...


def chained(entries: Iterable[Mapping[str, Any]], after: int) -> list[Numbered]:
    """A page of a journal that is in memory as a whole."""
    last, found = _FIRST, []
    for number, entry in enumerate(entries, start=1):
        last = _link(last, _canonical(entry))
        if number > after:
            found.append((number, last, entry))
        if len(found) == PAGE_ENTRIES:
            break
    return found


class FileJournal:
    """The journal as `signer.journal` in the signer's folder, held by one process at a time."""

    def __init__(self, home: Path) -> None:
        """Take the lock and open the file. Raises SignerBusy or JournalBroken."""
        self._path = home / FILE
        self._broken = ""
        self._last = _FIRST
        self._size = 0
        self._count = 0
        self._marks = [(0, _FIRST)]
        self._read = False
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

    def entries(self) -> Iterator[Mapping[str, Any]]:
        """Read and check the whole chain, and cut off a torn last line. Raises JournalBroken."""
        self._last, self._size, self._count, self._marks = _FIRST, 0, 0, [(0, _FIRST)]
        with self._path.open("rb") as file:
            number = 0
            while line := file.readline(_LINE_BYTES_MAX + 1):
                if self._broken:
                    raise JournalBroken(self._broken)  # closed meanwhile
                if not line.endswith(b"\n"):
                    if b"\n" in file.read():
                        raise JournalBroken(f"{FILE} line {number + 1} is longer than any entry")
                    break
                number += 1
                entry = self._checked(line, number)
                yield entry
                self._passed(line)
        if os.fstat(self._handle).st_size != self._size:
            os.ftruncate(self._handle, self._size)
            os.fsync(self._handle)
        self._read = True

    def _passed(self, line: bytes) -> None:
        self._size += len(line)
        self._count += 1
        if self._count % _MARK_EVERY == 0:
            self._marks.append((self._size, self._last))

    def page(self, after: int) -> list[Numbered]:
        """Read from the nearest mark on, each line checked against the hash before it."""
        found: list[Numbered] = []
        if self._broken or not self._read:
            raise JournalBroken(self._broken or f"{FILE} has not been read yet")
        if after >= self._count:
            return found
        mark = after // _MARK_EVERY
        start, last = self._marks[mark]
        bytes_read = 0
        with self._path.open("rb") as file:
            file.seek(start)
            for number in range(mark * _MARK_EVERY + 1, self._count + 1):
                line = file.readline(_LINE_BYTES_MAX + 1)
                entry, last = _read(line, last, number)
                if number <= after:
                    continue
                found.append((number, last, entry))
                bytes_read += len(line)
                if len(found) == PAGE_ENTRIES or bytes_read >= _PAGE_BYTES:
                    break
        return found

    def _checked(self, line: bytes, number: int) -> Mapping[str, Any]:
        entry, self._last = _read(line, self._last, number)
        return entry

    def append(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """One write and one fsync for all."""
        if self._broken or not self._read:
            raise JournalBroken(self._broken or f"{FILE} has not been read yet")
        last, lines = self._last, []
        for entry in entries:
            text = _canonical(entry)
            last = _link(last, text)
            lines.append((last, _line(text, last)))
        data = b"".join(line for _, line in lines)
        try:
            written = 0
            while written < len(data):
                written += os.write(self._handle, data[written:])
            os.fsync(self._handle)
        except OSError as error:
            # What reached the disk is not known any more; only reading it anew tells, so this process signs nothing from here on.
            self._broken = f"{FILE} could not be written ({error.strerror}); free the disk and start again"
            raise JournalBroken(self._broken) from error
        for link, line in lines:
            self._last = link
            self._passed(line)

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


def _read(line: bytes, last: str, number: int) -> tuple[Mapping[str, Any], str]:
    """An entry and its hash. Raises JournalBroken unless the line follows from the one before."""
    text = line[len(_BEFORE) : -_AFTER_BYTES]
    link = _link(last, text)
    if line != _line(text, link):
        raise JournalBroken(
            f"{FILE} line {number} does not follow from the line before it: the file was altered, or the disk lost a part of it"
        )
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise JournalBroken(f"{FILE} line {number} is not an entry") from error
    return entry, link


def _link(last: str, text: bytes) -> str:
    return hashlib.sha256(last.encode() + text).hexdigest()


def _canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _line(text: bytes, link: str) -> bytes:
    """In canonical JSON as well: `entry` stands before `hash`."""
    return b'%s%s,"hash":"%s"}\n' % (_BEFORE, text, link.encode())
