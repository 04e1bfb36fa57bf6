"""The connections that callers hold: how long a request's head may take, how many there may be, and what `Upgrade` means here (nothing).

uvicorn waits for a head for ever, keeps as much of it as comes, refuses everybody once too many connections are open, and takes the body
of a request that offers an upgrade for the next request. Each lets a stranger hurt somebody else.
"""

from __future__ import annotations

import asyncio
import functools
import heapq
import resource
import urllib.parse
from typing import Any, Final, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from penstock.http.answers import OVERLOADED, Answer

HEAD_S: Final = 20.0
"""From the opening of a connection, or the first byte of a further request, to the end of its head."""
HEAD_BYTES_MAX: Final = 64 * 1024
"""Of a head that is not complete yet."""
CONNECTIONS_MAX: Final = 12_000
REQUESTS_MAX: Final = 4_096
"""At work at once; above it nothing is read, and the answer is to come back in a second."""
FILES_KEPT: Final = 256
"""Descriptors that callers never get: nodes, databases and the house's own files."""


@functools.cache
def connections_max() -> int:
    """How many callers may be connected, by what the system gives this process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS_MAX if soft == resource.RLIM_INFINITY else max(64, min(CONNECTIONS_MAX, (soft - FILES_KEPT) * 3 // 4))


class _Exchange(RequestResponseCycle):
    """One request and its answer: the body is given over where it is here already, and the answer goes out in one write.

    As ASGI has it, the same takes four messages, two writes and a fifth more of everything that an acceptance costs (docs/performance.md).
    """

    async def run_asgi(self, app: Any) -> None:
        """Answer. What is no application of ours is served by uvicorn's own rules."""
        self._respond = getattr(app, "respond", None)
        await super().run_asgi(app if self._respond is None else self._at_once)

    async def _at_once(self, scope: Any, receive: Any, send: Any) -> None:
        del send
        answer = await self._respond(scope, receive, None if self.more_body else bytes(self.body))  # type: ignore[misc]
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if answer is None:
            self.disconnected = True
        if self.disconnected:
            return
        self.response_started = self.response_complete = True
        self.transport.write(self._spelled(answer))
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def _spelled(self, answer: Answer) -> bytes:
        """The answer as it stands on the wire. Its headers are our own words, so none is looked at for a line break."""
        parts = [STATUS_LINE[answer.status]]
        for name, value in answer.headers:
            if name == b"connection":
                self.keep_alive = False  # all that we ever say of it is that it ends
            else:
                parts += (name, b": ", value, b"\r\n")
        parts.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        if self.scope["method"] != "HEAD":
            parts.append(answer.body)
        return b"".join(parts)


class _Overloaded:
    """Answers everybody so."""

    async def respond(self, scope: Any, receive: Any, body: bytes | None = None) -> Answer:
        """Without a look at the request: this must cost next to nothing."""
        del scope, receive, body
        return OVERLOADED


class Connection(HttpToolsProtocol):
    """One caller's connection."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._overdue: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._upgrades = False
        self.quiet_since = self.loop.time()

    @property
    def is_at_work(self) -> bool:
        """Whether a request waits for its answer."""
        return bool(self.cycle) and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Admit it; when there are too many, those that were quiet longest make room."""
        super().connection_made(transport)
        self._expect_a_head()
        if len(self.connections) > connections_max():
            quiet = [one for one in cast("set[Connection]", self.connections) if not one.is_at_work]
            # A sixteenth at once, so that a flood does not make us count all of them for each.
            for one in heapq.nsmallest(max(1, len(quiet) // 16), quiet, key=lambda one: one.quiet_since):
                one.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._head_is_here()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of a caller. An offer to upgrade is passed over (RFC 9110, 7.8): the request is read again without it, and keeps its body."""
        self._unset_keepalive_if_required()
        is_sound = True
        while data and is_sound:
            try:
                self.parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as offered:
                head = self._without_upgrade()
                data, is_sound = head + data[offered.args[0] :], bool(head)
            except httptools.HttpParserError:
                is_sound = False
        if self._overdue is not None:
            self._head_bytes += len(data)
        if not is_sound or self._head_bytes > HEAD_BYTES_MAX:
            self.send_400_response("Invalid HTTP request received.")

    def _without_upgrade(self) -> bytes:
        """The head that was just read, for a fresh parser; nothing for CONNECT, which is an upgrade by itself."""
        self._upgrades = False
        method = self.parser.get_method()
        self.parser = httptools.HttpRequestParser(self)
        lines = [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"" if method == b"CONNECT" else b"\r\n".join([method + b" " + self.url + b" HTTP/1.1", *lines, b"\r\n"])

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._expect_a_head()

    def on_headers_complete(self) -> None:
        """Begin to serve it."""
        self._head_is_here()
        self._upgrades = self.parser.should_upgrade()
        if self._upgrades:
            return
        http_version = self.parser.get_http_version()
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        self.scope["method"] = self.parser.get_method().decode("ascii")
        self.scope["http_version"] = http_version
        self.scope["path"] = urllib.parse.unquote(path) if "%" in path else path
        self.scope["raw_path"] = url.path
        self.scope["query_string"] = url.query or b""
        before: _Exchange | None = self.cycle  # type: ignore[assignment]
        self.cycle = _Exchange(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=http_version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        app: Any = _Overloaded() if len(self.tasks) >= REQUESTS_MAX else self.config.loaded_app
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, app)
        else:
            # One request after the other, in the order in which they came.
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, app))

    def on_message_complete(self) -> None:
        """The last byte of a request."""
        if not self._upgrades:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """It was answered."""
        self.quiet_since = self.loop.time()
        super().on_response_complete()

    def _expect_a_head(self) -> None:
        if self._overdue is None:
            self._overdue = self.loop.call_later(HEAD_S, self._leave)

    def _head_is_here(self) -> None:
        self._head_bytes = 0
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _leave(self) -> None:
        self._overdue = None
        if self.is_at_work:  # the head of the next one may wait for this one's answer
            self._expect_a_head()
        else:
            self.transport.close()
