"""What travels over the signer's socket: a length in four bytes, then one strict JSON object; intents decoded field by field.

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
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, cast

import msgspec

from penstock.core.canonical import canonical
from penstock.core.intent import Death, Intent, JournalEntry, Kind, Payment, Resource, Signed
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
_FIELDS: Final[Mapping[type, Mapping[str, type]]] = {
    cls: {field.name: str if field.type == "str" else int for field in fields(cls)} for cls in (Intent, Payment, Resource, Death)
}
"""Of each record the fields; of those that hold texts and whole numbers alone, which is which."""


class _Sign(msgspec.Struct):
    """A request to sign."""

    op: Literal["sign"]
    intents: list[Intent]


_SIGN: Final = msgspec.json.Decoder(_Sign)


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


async def read_frame(reader: asyncio.StreamReader, *, body_s: float) -> dict[str, Any] | None:
    """The next object; None at the end. Raises Malformed, TimeoutError for a body that does not come, IncompleteReadError."""
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
        return decoded(await reader.readexactly(size))


def decoded(body: bytes) -> dict[str, Any]:
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
    if canonical(request) != body or not all(map(_is_bounded, request.intents)):
        return None
    return {"op": request.op, "intents": request.intents}


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
    return [_intent(item) for item in _list(value, RECORDS_MAX, "intents")]


def deaths_of(value: object) -> list[Death]:
    """The deaths of a request. Raises Malformed."""
    return [_made(Death, item) for item in _list(value, RECORDS_MAX, "deaths")]


def signed_of(value: object) -> list[Signed]:
    """What the signer made. Raises Malformed."""
    try:
        items = cast("list[dict[str, Any]]", value)
        return [Signed(int(i["attempt_id"]), int(i["version"]), str(i["txid"]), bytes.fromhex(i["raw"])) for i in items]
    except (KeyError, TypeError, ValueError) as error:
        raise Malformed("the signer's answer makes no sense") from error


def entries_of(value: object) -> list[JournalEntry]:
    """A page of the signer's journal. Raises Malformed."""
    try:
        items = [dict(item) for item in cast("list[dict[str, Any]]", value)]
        return [
            JournalEntry(**{**item, "intent": None if item["intent"] is None else Intent.from_record(item["intent"])}) for item in items
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise Malformed("the signer's answer makes no sense") from error


def shown(signed: Signed) -> dict[str, Any]:
    """A signed transaction as an answer has it."""
    return {"attempt_id": signed.attempt_id, "version": signed.version, "txid": signed.txid, "raw": signed.raw.hex()}


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


def _intent(value: object) -> Intent:
    if isinstance(value, Intent):
        return value  # of a plain request
    said = _known(Intent, value)
    said["payments"] = tuple(_made(Payment, item) for item in _list(said["payments"], _PARTS_MAX, "payments"))
    said["resources"] = tuple(_made(Resource, item) for item in _list(said["resources"], _PARTS_MAX, "resources"))
    terms = said["terms"]
    if not isinstance(terms, dict) or not all(_is_int(number) for number in terms.values()):
        raise Malformed("terms must be whole numbers by name")
    for name in ("attempt_id", "version", "chain_id", "slot", "fee_cap"):
        if not _is_int(said[name]):
            raise Malformed(f"{name} must be a whole number")
    for name in ("kind", "chain", "family", "sender", "token_id"):
        if not isinstance(said[name], str):
            raise Malformed(f"{name} must be a text")
    if said["contract"] is not None and not isinstance(said["contract"], str):
        raise Malformed("contract must be a text or null")
    return Intent(**{**said, "kind": cast("Kind", said["kind"])})


def _made(cls: Any, value: object) -> Any:
    """A record of texts and whole numbers alone."""
    said = _known(cls, value)
    for name, kind in _FIELDS[cls].items():
        if type(said[name]) is not kind:
            raise Malformed(f"{name} must be a {'text' if kind is str else 'whole number'}")
    return cls(**said)


def _known(cls: type, value: object) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() != _FIELDS[cls].keys():
        raise Malformed(f"{cls.__name__.lower()} must have exactly the fields {', '.join(sorted(_FIELDS[cls]))}")
    return dict(value)


def _list(value: object, most: int, name: str) -> list[object]:
    if not isinstance(value, list) or len(value) > most:
        raise Malformed(f"{name} must be a list of at most {most}")
    return value


def _is_int(value: object) -> bool:
    return type(value) is int


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
