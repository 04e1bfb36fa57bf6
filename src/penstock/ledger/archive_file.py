"""The file of an archive: one JSON object a line under gzip, which says what it is, and can be checked without Penstock (docs/archive.md).

The first line is the head, the last one counts the others and has the SHA-256 of their bytes. The file's own SHA-256 is in its name and in
the table `archive`. Amounts are text: what reads JSON elsewhere may have no integers of 78 digits.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from penstock.core.canonical import canonical
from penstock.runtime import Runtime
from penstock.sql import amount_columns as _amounts
from penstock.vault import sync_folder

FORM: Final = "penstock archive 1"
_CHUNK: Final = 1 << 20


class ArchiveDamaged(Exception):
    """The file is not what was written, or not there."""


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was read back from where it will stay. `counts` are its lines by kind."""

    name: str
    sha256: str
    bytes: int
    counts: Mapping[str, int]


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other archive commands off the folder, which is made. Raises BlockingIOError where one is at work, and OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(place)


def write(folder: Path, number: int, lines: Iterable[Mapping[str, Any]], runtime: Runtime) -> Written:
    """Write, sync, name by content, sync the folder, read back. Nothing is left where it fails. Raises OSError or ArchiveDamaged."""
    part = folder / f"archive-{number:06d}.part"
    try:
        counts = _write(part, lines)
        runtime.crash_point("archive.file:written")
        sha256 = digest(part)
        path = folder / f"archive-{number:06d}-{sha256[:16]}.jsonl.gz"
        part.rename(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    sync_folder(folder)
    runtime.crash_point("archive.file:named")
    read = Counter(kind_of(line) for line in lines_of(path, sha256))
    if read != counts:
        raise ArchiveDamaged(f"{path} does not read back as it was written")
    return Written(path.name, sha256, path.stat().st_size, dict(counts))


def _write(part: Path, lines: Iterable[Mapping[str, Any]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    seen = hashlib.sha256()
    number = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(number, "wb") as raw:
        with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6) as packed:
            for line in lines:
                data = encoded(line)
                packed.write(data)
                seen.update(data)
                counts[kind_of(line)] += 1
            packed.write(encoded({"end": {"lines": dict(counts), "sha256": seen.hexdigest()}}))
        raw.flush()
        os.fsync(raw.fileno())
    return counts


def digest(path: Path) -> str:
    """The SHA-256 of a file as it lies there. Raises OSError."""
    seen = hashlib.sha256()
    with path.open("rb") as raw:
        while chunk := raw.read(_CHUNK):
            seen.update(chunk)
    return seen.hexdigest()


def lines_of(path: Path, sha256: str) -> Iterator[dict[str, Any]]:
    """Every line but the last, of a file that was checked as a whole before its first line is given. Raises ArchiveDamaged."""
    try:
        if digest(path) != sha256:
            raise ArchiveDamaged(f"{path} is not the file that was written: its SHA-256 is another")
        yield from _lines(path)
    except FileNotFoundError as error:
        raise ArchiveDamaged(f"{path} is not there; name the folder that has it") from error
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise ArchiveDamaged(f"{path} cannot be read: {error}") from error


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    counts: Counter[str] = Counter()
    seen = hashlib.sha256()
    with gzip.open(path, "rb") as packed:
        for data in packed:
            line = json.loads(data, object_hook=_integers)
            if "end" in line:
                if line["end"] == {"lines": dict(counts), "sha256": seen.hexdigest()} and not packed.read(1):
                    return
                break
            seen.update(data)
            counts[kind_of(line)] += 1
            yield line
    raise ValueError("its last line does not fit the others")


def kind_of(line: Mapping[str, Any]) -> str:
    """What a line is about: its one name."""
    return next(iter(line))


def encoded(value: Mapping[str, Any]) -> bytes:
    """One line, always the same for the same value."""
    return canonical(_texts(value)) + b"\n"


def _texts(value: Any) -> Any:
    """Amounts as text, at any depth."""
    if isinstance(value, list):
        return [_texts(item) if isinstance(item, dict | list) else item for item in value]
    said = dict(value)
    for name in _amounts().intersection(value):
        if isinstance(value[name], int):
            said[name] = str(value[name])
    for name, item in value.items():
        if isinstance(item, dict | list):
            said[name] = _texts(item)
    return said


def _integers(value: dict[str, Any]) -> dict[str, Any]:
    for name in _amounts().intersection(value):
        if isinstance(value[name], str):
            value[name] = int(value[name])
    return value
