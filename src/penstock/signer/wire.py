"""What travels over the signer's socket: a length in four bytes, then one JSON object; of requests the strictest form, each value of its kind.

Requests are {"op": ...}; answers {"ok": ...} or {"error": {"code": ..., "text": ...}}. No answer holds a key or what one is made of.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, TypeVar

import msgspec

from penstock.core.canonical import canonical, canonical_sorted
from penstock.core.intent import Death, Intent, JournalEntry, Signed, Standing
from penstock.core.nesting import is_deeper
from penstock.runtime import Runtime

FRAME_BYTES_MAX: Final = 4 * 1024 * 1024
BATCH_BYTES_MAX: Final = 1024 * 1024
"""What the client puts into a frame, unless a single record is longer."""
RECORDS_MAX: Final = 1_000

Code = Literal["refused", "later", "journal", "malformed", "stranger", "internal"]
"""refused and later: what the signer says of an intent; journal: it cannot record and ends; the others are no answer to a request of ours."""

_QUEUE_FULL_S: Final = 0.01
_HEADER: Final = struct.Struct(">I")
_PATH_BYTES_MAX: Final = 100
_DIGITS_MAX: Final = 78
_NUMBER_MAX: Final = 10**_DIGITS_MAX - 1
_PARTS_MAX: Final = 10_000
"""Payments or resources of one intent."""
_DEPTH_MAX: Final = 8
T = TypeVar("T")


class _Sign(msgspec.Struct):
    """A request to sign."""

    op: Literal["sign"]
    intents: list[Intent]


class _Wrong(msgspec.Struct):
    """Why a request failed."""

    code: Code
    text: str


class Answer(msgspec.Struct):
    """What the signer says of a request: `ok` as it was written, or what is wrong and whether that is so of everything."""

    ok: msgspec.Raw = msgspec.Raw()
    error: _Wrong | None = None
    everything: bool = False


class _Shown(msgspec.Struct):
    """A signed transaction as an answer has it."""

    attempt_id: int
    version: int
    txid: str
    raw: str


_SIGN: Final = msgspec.json.Decoder(_Sign)
_ANSWER: Final = msgspec.json.Decoder(Answer)
_SIGNED: Final = msgspec.json.Decoder(list[_Shown])
_ENTRIES: Final = msgspec.json.Decoder(list[JournalEntry])
_STANDING: Final = msgspec.json.Decoder(Standing)


class Malformed(ValueError):
    """A frame or a request that is none; the text says what is wrong and repeats nothing of it."""


def framed(value: Mapping[str, Any]) -> bytes:
    """One frame. Raises Malformed when it would be too long."""
    body = canonical(value)
    if len(body) > FRAME_BYTES_MAX:
        raise Malformed(f"a frame has at most {FRAME_BYTES_MAX} bytes")
    return _HEADER.pack(len(body)) + body


def error(code: Code, text: str) -> dict[str, Any]:
    """The answer to a request that failed."""
    return {"error": {"code": code, "text": text}}


async def read_frame(reader: asyncio.StreamReader, *, body_s: float) -> bytes | None:
    """The next frame's body; None at the end. Raises Malformed, TimeoutError for a body that does not come, IncompleteReadError."""
    try:
        header = await reader.readexactly(_HEADER.size)
    except asyncio.IncompleteReadError as ended:
        if ended.partial:
            raise
        return None
    (size,) = _HEADER.unpack(header)
    if size > FRAME_BYTES_MAX:
        raise Malformed(f"a frame has at most {FRAME_BYTES_MAX} bytes")
    async with asyncio.timeout(body_s):
        return await reader.readexactly(size)


def request_of(body: bytes) -> dict[str, Any]:
    """One JSON object and nothing else: no doubled names, no fractions, no numbers beyond 78 digits, no broken text. Raises Malformed."""
    return _plain(body) or _strict(body)


def _plain(body: bytes) -> dict[str, Any] | None:
    """A request to sign exactly as a client of ours writes it, with its intents made; None for everything else, however harmless.

    The same bytes come out of what was read: so nothing stands there twice, or in another form, or under a name that is not looked at.
    """
    try:
        request = _SIGN.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if canonical(request) != body or len(request.intents) > RECORDS_MAX or not all(map(_is_bounded, request.intents)):
        return None
    return {"op": request.op, "intents": tuple(request.intents)}


def _is_bounded(intent: Intent) -> bool:
    numbers = [intent.attempt_id, intent.version, intent.chain_id, intent.slot, intent.fee_cap, *intent.terms.values()]
    for payment in intent.payments:
        numbers += (payment.order_id, payment.units, payment.weight)
    numbers += (resource.units for resource in intent.resources)
    return min(numbers) >= -_NUMBER_MAX and max(numbers) <= _NUMBER_MAX and max(len(intent.payments), len(intent.resources)) <= _PARTS_MAX


def _strict(body: bytes) -> dict[str, Any]:
    if is_deeper(body, _DEPTH_MAX):
        raise Malformed(f"the frame is not one JSON object of at most {_DEPTH_MAX} levels")
    try:
        text = body.decode()
        value = json.loads(text, object_pairs_hook=_object, parse_float=_no_number, parse_constant=_no_number, parse_int=_whole_number)
        if "\\u" in text:  # only escaped can there be half a surrogate pair, and a text with one has no bytes
            json.dumps(value, ensure_ascii=False).encode()
    except Malformed:
        raise
    except (ValueError, RecursionError) as error:
        raise Malformed("the frame is not one JSON object") from error
    if not isinstance(value, dict):
        raise Malformed("the frame is not one JSON object")
    return value


def intents_of(value: object) -> list[Intent]:
    """The intents of a request. Raises Malformed."""
    if isinstance(value, tuple):
        return list(value)  # by the short way, which has looked at all of it: JSON has no tuples
    intents = _made(value, Intent, "intents")
    if not all(map(_is_bounded, intents)):
        raise Malformed(f"an intent has numbers of at most {_DIGITS_MAX} digits, and {_PARTS_MAX} payments and resources")
    return intents


def deaths_of(value: object) -> list[Death]:
    """The deaths of a request. Raises Malformed."""
    return _made(value, Death, "deaths")


def answer_of(body: bytes) -> Answer:
    """What the signer answered. Raises ValueError, as those that read its `ok`."""
    return _ANSWER.decode(body)


def signed_of(ok: msgspec.Raw) -> list[Signed]:
    """What the signer made."""
    return [Signed(it.attempt_id, it.version, it.txid, bytes.fromhex(it.raw)) for it in _SIGNED.decode(ok)]


def entries_of(ok: msgspec.Raw | bytes) -> list[JournalEntry]:
    """A page of the signer's journal."""
    return _ENTRIES.decode(ok)


def standing_of(ok: msgspec.Raw) -> Standing:
    """What the signer would sign now."""
    return _STANDING.decode(ok)


def shown(signed: Signed) -> _Shown:
    """A signed transaction as an answer has it."""
    return _Shown(signed.attempt_id, signed.version, signed.txid, signed.raw.hex())


def batches(records: Sequence[Intent] | Sequence[Death]) -> Iterator[list[msgspec.Raw]]:
    """In order, each as JSON, as many together as go into a frame."""
    batch: list[msgspec.Raw] = []
    size = 0
    for item in records:
        record = msgspec.Raw(canonical(item))
        length = len(record)
        if batch and (size + length > BATCH_BYTES_MAX or len(batch) == RECORDS_MAX):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += length
    if batch:
        yield batch


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close a connection to the end, whatever became of it."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def connected(path: Path, runtime: Runtime) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the socket; where many wait to be let in, it waits as well. Raises OSError.

    A full queue refuses with EAGAIN on Unix sockets; asyncio takes that for a connection under way, and writes into nothing.
    """
    mine = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        with reachable(path) as name:
            while True:
                try:
                    mine.connect(name)
                except BlockingIOError:
                    await runtime.sleep(_QUEUE_FULL_S)
                else:
                    return await asyncio.open_unix_connection(sock=mine)
    except BaseException:
        mine.close()
        raise


@contextlib.contextmanager
def reachable(path: Path) -> Iterator[str]:
    """A name of the socket that the system takes: it allows about 100 bytes, and homes may lie deeper."""
    if len(os.fsencode(path)) <= _PATH_BYTES_MAX:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _made(value: object, cls: type[T], name: str) -> list[T]:
    """Records of a request. Raises Malformed, which says where and not what."""
    if not isinstance(value, list) or len(value) > RECORDS_MAX:
        raise Malformed(f"{name} must be a list of at most {RECORDS_MAX}")
    try:
        made = msgspec.convert(value, list[cls])  # type: ignore[valid-type]
    except msgspec.ValidationError as error:
        where = str(error).rpartition(" - at ")[2]  # the first words may hold a name that a stranger chose
        raise Malformed(f"{name} have other fields or kinds of values than they must, at {where}") from None
    if canonical_sorted(made) != canonical_sorted(value):
        raise Malformed(f"{name} must have all their fields")  # some may be left out of what is read again, of nothing that is asked
    return made


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Malformed("a name is there twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise Malformed(f"only whole numbers are taken, not one of {len(text)} characters")


def _whole_number(text: str) -> int:
    if len(text) > _DIGITS_MAX + 1:
        raise Malformed(f"a number has at most {_DIGITS_MAX} digits")
    return int(text)
