"""One connection to a webhook's receiver: a request goes out, its answer comes back, one at a time (HTTP/1.1, RFC 9112).

What the bytes of an answer mean is llhttp's business (httptools). A receiver is a stranger: whatever it sends, what is kept of it is bounded,
and a connection on which anything came that nobody asked for is not used again.
"""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple, cast

import httptools

BODY_BYTES_MAX: Final = 64 * 1024
"""What is read of an answer's body; the rest is not waited for."""
HEAD_BYTES_MAX: Final = 32 * 1024
"""Of headers, and of what comes between two pieces of a body."""
BYTES_MAX: Final = 512 * 1024
"""Of all that comes for one request, with what chunks take besides their bytes: 64 KiB byte by byte are 384."""

_LONG_HEAD: Final = f"no HTTP answer (its head is longer than {HEAD_BYTES_MAX >> 10} KiB)"


class NoAnswer(Exception):
    """What came is no answer; the text says why, in our own words."""


class Answer(NamedTuple):
    """`body` is at most BODY_BYTES_MAX bytes, as they came."""

    status: int
    body: bytes


class _Reading:
    """What has come of one answer. The parser calls what begins with `on_`."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.keeps = False
        """Whether the connection may be used again."""
        self._parser = httptools.HttpResponseParser(self)
        # Line ends without CR and other slips of receivers written by hand: no proxy stands between us that could read them otherwise.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._count = self._head = self._dry = 0
        self._body = bytearray()
        self._in_body = False
        self._has_length = False

    def take(self, data: bytes) -> None:
        """Bytes, as they come."""
        self._count += len(data)
        self._dry += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.keeps = False  # it may stand behind a whole answer
            self._fail(f"no HTTP answer ({type(error).__name__})")
        if self._dry > HEAD_BYTES_MAX:
            self._fail(_LONG_HEAD)
        elif self._count > BYTES_MAX:
            self._fail("no HTTP answer (it does not end)")

    def end(self) -> None:
        """The connection is over, which ends a body whose length nobody has told."""
        if not self._in_body:
            self._fail("the connection was closed before an answer")
        elif self._has_length:
            self._fail("the connection was closed within the answer")
        else:
            self._finish()

    def over(self) -> None:
        """Nobody reads any more. The parser holds what it calls: a circle, which would keep a stranger's bytes until the collector comes."""
        del self._parser

    def on_message_begin(self) -> None:
        """Of an answer; a second one has nothing to say."""
        self.keeps = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """What says where the body ends."""
        self._head += len(name) + len(value) + 4
        if self._head > HEAD_BYTES_MAX:
            self._fail(_LONG_HEAD)
        name = name.lower().strip()
        if name == b"content-length" or (name == b"transfer-encoding" and value.lower().rpartition(b",")[2].strip() == b"chunked"):
            self._has_length = True

    def on_headers_complete(self) -> None:
        """The body follows."""
        self._in_body = True

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        self._dry = 0
        self._body += data
        if len(self._body) > BODY_BYTES_MAX:
            self._finish()

    def on_message_complete(self) -> None:
        """An interim answer (1xx) is none: another one follows."""
        if 100 <= self._parser.get_status_code() < 200:
            self._in_body = self._has_length = False
        elif not self.answer.done():
            self.keeps = self._parser.should_keep_alive()
            self._finish()

    def _finish(self) -> None:
        if not self.answer.done():
            self.answer.set_result(Answer(self._parser.get_status_code(), bytes(self._body[:BODY_BYTES_MAX])))

    def _fail(self, why: str) -> None:
        if not self.answer.done():
            self.answer.set_exception(NoAnswer(why))


class Line(asyncio.Protocol):
    """A connection. Whoever asks on it has it alone."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._reading: _Reading | None = None
        self.idle_since = 0.0
        """Kept by the owner, who decides how long it is kept."""

    @property
    def is_open(self) -> bool:
        """Whether another request may go out on it."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """By the loop."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """By the loop."""
        if self._reading is None:
            self.close()  # nobody has asked
        else:
            self._reading.take(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """By the loop."""
        self._transport = None
        if self._reading is not None:
            self._reading.end()

    async def ask(self, request: bytes) -> Answer:
        """Send it whole and read the answer. Raises NoAnswer. Whoever stops waiting closes the connection."""
        if self._transport is None:
            raise NoAnswer("the connection was closed before an answer")
        reading = self._reading = _Reading()
        try:
            self._transport.write(request)
            return await reading.answer
        finally:
            self._reading = None
            reading.over()
            if not reading.keeps:
                self.close()

    def close(self) -> None:
        """At once."""
        if self._transport is not None:
            self._transport.abort()
