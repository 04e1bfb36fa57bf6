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

    task: asyncio.Task[None]
    under_way: set[asyncio.Task[Any]]
    """The tasks of all connections, which its own leaves by itself."""

    async def run_asgi(self, app: Any) -> None:
        """Answer. What is no application of ours is served by uvicorn's own rules."""
        self._respond = getattr(app, "respond", None)
        try:
            await super().run_asgi(app if self._respond is None else self._at_once)
        finally:
            self.under_way.discard(self.task)

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
        self._head_is_due = True
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
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of a caller. An offer to upgrade is passed over (RFC 9110, 7.8): the request is read again without it, and keeps its body."""
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
        if self._head_is_due:
            self._head_bytes += len(data)
            self._expect_a_head()
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
        """The first byte of a request. Nearly every head is here as a whole, so only what is left of one is waited for."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._head_is_due = True

    def on_headers_complete(self) -> None:
        """Begin to serve it."""
        self._head_is_here()
        self._upgrades = self.parser.should_upgrade()
        if self._upgrades:
            return
        http_version = self.parser.get_http_version()
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        self.scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": http_version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme or "http",
            "method": self.parser.get_method().decode("ascii"),
            "root_path": "",
            "path": urllib.parse.unquote(path) if "%" in path else path,
            "raw_path": url.path,
            "query_string": url.query or b"",
            "headers": self.headers,
        }
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
        """It was answered: the next one, or a rest."""
        self.quiet_since = self.loop.time()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self.timeout_keep_alive_task is None:
            self._rest(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """Perhaps nobody has asked for long enough. One timer for many requests: to set and to end one for each costs more than this look."""
        self.timeout_keep_alive_task = None
        if self.is_at_work or self._head_is_due:
            return  # its answer begins the next rest, or its head is waited for
        left_s = self.quiet_since + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self._rest(left_s)
        else:
            self.transport.close()

    def _rest(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Without a callback at its end, which is a turn of the loop: the exchange itself says when it is over."""
        cycle.task, cycle.under_way = self.loop.create_task(cycle.run_asgi(app)), self.tasks
        self.tasks.add(cycle.task)

    def _expect_a_head(self) -> None:
        if self._overdue is None:
            self._overdue = self.loop.call_later(HEAD_S, self._leave)

    def _head_is_here(self) -> None:
        self._head_bytes = 0
        self._head_is_due = False
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _leave(self) -> None:
        self._overdue = None
        if self.is_at_work:  # the head of the next one may wait for this one's answer
            self._expect_a_head()
        else:
            self.transport.close()
