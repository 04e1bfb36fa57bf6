"""A wire between gateway and PostgreSQL that loses the answer of a COMMIT: the server has done it, and nobody hears of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import urlsplit, urlunsplit

_CHUNK: Final = 65_536


class Wire:
    """Forwards everything; each `lose` cuts one more connection between a COMMIT and its answer."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._to_lose = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.lost = 0

    def lose(self, count: int = 1) -> None:
        """The answers of the next so many COMMITs do not come."""
        self._to_lose = count

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the gateway's, until one side ends it."""
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        ends = [writer]
        answering: asyncio.Task[None] | None = None
        try:
            server, to_server = await asyncio.open_connection(*self._target)
            ends.append(to_server)
            answering = asyncio.create_task(_pour(server, writer))
            while data := await reader.read(_CHUNK):
                is_last = self._to_lose > 0 and b"COMMIT" in data
                if is_last:
                    self._to_lose -= 1
                    answering.cancel()
                    await asyncio.wait([answering])
                to_server.write(data)
                await to_server.drain()
                if is_last:
                    await server.read(1)  # it has done it
                    self.lost += 1
                    break
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            if answering is not None:
                answering.cancel()
            for end in ends:
                end.transport.abort()

    def cut(self) -> None:
        """End every connection."""
        for task in self._tasks:
            task.cancel()


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.transport.abort()  # whoever waits for an answer must learn that none comes


@contextlib.asynccontextmanager
async def wired(url: str) -> AsyncIterator[tuple[str, Wire]]:
    """The same database behind a wire."""
    parts = urlsplit(url)
    wire = Wire(parts.hostname or "127.0.0.1", parts.port or 5432)
    server = await asyncio.start_server(wire.connect, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    user = parts.netloc.rpartition("@")[0]
    try:
        yield urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{port}")), wire
    finally:
        server.close()
        wire.cut()
        await asyncio.sleep(0)
