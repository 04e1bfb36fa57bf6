"""Raw connections to the gateway: what is sent is exactly what was written, and every byte that comes back is looked at."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

HANG_S: Final = 30.0
"""An answer that takes longer is a hang; a machine that is merely busy answers sooner."""

Headers = Sequence[tuple[bytes, bytes]]


class Hang(Exception):
    """No answer, and the connection stayed open."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer as it came. Status 0: the server closed without one."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def code(self) -> int:
        """The wire code; 0 where the body is none of the API's."""
        with contextlib.suppress(ValueError, AttributeError):
            found = json.loads(self.body)
            if isinstance(found, dict) and isinstance(found.get("code"), int):
                return int(found["code"])
        return 0

    @property
    def msg(self) -> str:
        """The sentence of an API answer."""
        with contextlib.suppress(ValueError):
            found = json.loads(self.body)
            return str(found.get("msg", "")) if isinstance(found, dict) else ""
        return ""

    @property
    def is_signed(self) -> bool:
        """Whether it carries any header of a signature."""
        return bool({"appid", "timestamp", "sign"} & set(self.headers))


def request(path: str, headers: Headers, body: bytes, *, method: str = "POST", length: bool = True) -> bytes:
    """The bytes of one HTTP request, without any repair."""
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: 127.0.0.1", *(name + b": " + value for name, value in headers)]
    if length:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    """The next answer; status 0 at the end of the stream."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return Reply(0)
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    try:
        if "content-length" in headers:
            body = await reader.readexactly(int(headers["content-length"]))
        else:
            body = await reader.read()  # "Invalid HTTP request received.", then the end
    except (asyncio.IncompleteReadError, ConnectionError):
        return Reply(0)
    return Reply(int(first.split(" ")[1]), headers, body)


class Line:
    """One connection that is kept while the server keeps it."""

    def __init__(self, port: int, *, source: str = "") -> None:
        self._port, self._source = port, source
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.hang_up()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            where = (self._source, 0) if self._source else None
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, local_addr=where, limit=1 << 20)
        return self._streams

    async def send(self, raw: bytes) -> Reply:
        """One request and its answer; once more on a new connection where a kept one was closed. Raises Hang, OSError."""
        kept = self._streams is not None
        reply = await self._send(raw)
        if reply.status == 0 and kept:
            reply = await self._send(raw)
        return reply

    async def _send(self, raw: bytes) -> Reply:
        try:
            async with asyncio.timeout(HANG_S):
                reader, writer = await self._open()
                with contextlib.suppress(ConnectionError):
                    writer.write(raw)
                    await writer.drain()
                reply = await read_reply(reader)
        except TimeoutError as error:
            self.hang_up()
            raise Hang(f"no answer within {HANG_S:g} s to {raw[:200]!r}") from error
        if reply.status != 200 or reply.headers.get("connection") == "close":
            self.hang_up()
        return reply

    def hang_up(self) -> None:
        """Close, at once."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


async def conversation(port: int, *pieces: bytes | float, patience_s: float = HANG_S) -> list[Reply]:
    """All answers to these bytes until the server closes; a number is a pause in seconds. Raises Hang when it stays open."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    replies = []
    try:
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                if isinstance(piece, bytes):
                    writer.write(piece)
                    await writer.drain()
                else:
                    await asyncio.sleep(piece)
        async with asyncio.timeout(patience_s):
            while (reply := await read_reply(reader)).status:
                replies.append(reply)
    except TimeoutError as error:
        raise Hang(f"the connection stayed open after {pieces[0]!r:.200}") from error
    finally:
        writer.transport.abort()
    return replies


def as_headers(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    """Text headers as bytes."""
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def json_bytes(value: Any) -> bytes:
    """Compact JSON in UTF-8."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
