"""The attacks below requests: framing, what never ends, thousands of idle connections, floods (test plan, E3, E8)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from penstock.http.connections import FILES_KEPT, HEAD_S
from penstock.prove.callers.lines import HANG_S, Hang, Line, Reply, as_headers, conversation, json_bytes, request
from penstock.prove.callers.ring import Ring
from penstock.prove.callers.shapes import SENTINEL, Shape, shapes
from penstock.prove.installed.program import Program, files
from penstock.prove.merchant import V1, Merchant

IDLE_MAX: Final = 10_000
HOSTS: Final = ("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5")
"""Other callers on this machine, where its loopback has them (Linux); else everybody is 127.0.0.1."""
PAUSE_S: Final = 0.05


@dataclass(slots=True)
class Healthy:
    """A merchant who goes on as if nothing were wrong, one request at a time."""

    program: Program
    merchant: Merchant
    account: str
    answered: int = 0
    accepted: int = 0
    took_ms: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    leaves: bool = False

    async def go_on(self) -> None:
        """Until told to leave: a withdrawal inside the house, then a look at it."""
        number = 0
        while not self.leaves:
            number += 1
            name = f"healthy-{number}"
            fields = {
                "merchant_order_id": name,
                "address": self.account,
                "token_id": "264f4725-3cfd-4ff6-bc80-ff9d799d5fb2",
                "value": "0.01",
            }
            if await self._ask("/withdraw", fields):
                self.accepted += 1
            await self._ask("/bill/info", {"merchant_order_ids": [name]})
            await asyncio.sleep(PAUSE_S)

    async def _ask(self, path: str, fields: dict[str, Any]) -> bool:
        started = time.monotonic()
        try:
            answer = await self.program.ask(self.merchant, path, fields)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            self.failures.append(f"{path}: {type(error).__name__}")
            return False
        self.answered += 1
        self.took_ms.append(int((time.monotonic() - started) * 1000))
        if answer["code"] != 10000 or "unsigned" in answer:
            self.failures.append(f"{path}: {answer['code']} {answer.get('msg')}")
            return False
        return True

    def slowest_ms(self, share: float) -> int:
        """So many milliseconds or less took this share of the answers."""
        return sorted(self.took_ms)[int(len(self.took_ms) * share)] if self.took_ms else 0


@contextlib.asynccontextmanager
async def going_on(healthy: Healthy) -> AsyncIterator[None]:
    """Somebody is served meanwhile."""
    task = asyncio.create_task(healthy.go_on())
    try:
        yield
    finally:
        healthy.leaves = True  # after the answer to what is under way
        await task


async def framings(ring: Ring) -> None:
    """Shapes that two parsers may read in two ways: refused, or answered once; never a second answer out of the same bytes."""
    body = b"{}"
    headers = as_headers(ring.rich.headers(body))
    smuggled = request(f"{V1}/coin/all", as_headers(ring.rich.headers(body)), body)

    async def one(shape: Shape) -> None:
        try:
            replies = await conversation(ring.program.port, shape.raw + SENTINEL)
        except Hang as error:
            ring.breach(f"{shape.name}: {error}")
            return
        except OSError as error:
            ring.breach(f"{shape.name}: nobody was let in ({type(error).__name__})")
            return
        ring.counts["http_shapes"] += 1
        _judge_shape(ring, shape, replies)

    await ring.unharmed("a shape of HTTP", lambda: _all(one(shape) for shape in shapes(headers, body, smuggled)))


async def _all(jobs: Any) -> None:
    await asyncio.gather(*jobs)


def _judge_shape(ring: Ring, shape: Shape, replies: list[Reply]) -> None:
    calls = [reply for reply in replies if reply.body != b'{"status":"ok"}']
    for reply in calls:
        ring.judge(shape.name, reply, repr(shape.raw[:600]))
    if len(calls) > 1:
        ring.breach(f"{shape.name}: {len(calls)} answers to one request", replay=repr(shape.raw[:600]))
    if shape.ambiguous and any(reply.code == 10000 for reply in calls):
        ring.breach(f"{shape.name}: acted upon", replay=repr(shape.raw[:600]))


async def endless(ring: Ring) -> None:
    """Heads and bodies that come slowly, never end, or are too much. Takes as long as the gateway's patience with a head."""
    body = json_bytes(ring.withdrawal("endless"))
    good = request(f"{V1}/withdraw", as_headers(ring.poor.headers(body)), body)
    head, _, _ = good.partition(b"\r\n\r\n")
    port, drip = ring.program.port, [piece for n in range(2 * int(HEAD_S)) for piece in (b"X-%d: y\r\n" % n, 0.5)]
    chunked = request(f"{V1}/withdraw", [(b"Transfer-Encoding", b"chunked")], b"", length=False)
    cases: list[tuple[str, Callable[[], Any], set[int]]] = [
        ("silence", lambda: conversation(port, b"", patience_s=HEAD_S + HANG_S), {0}),
        ("a slow head", lambda: conversation(port, b"POST /x HTTP/1.1\r\n", *drip, patience_s=HEAD_S + HANG_S), {0, 400}),
        ("half a head", lambda: conversation(port, head[:60], patience_s=HEAD_S + HANG_S), {0}),
        ("half a body", lambda: conversation(port, good[:-10], patience_s=HEAD_S + HANG_S), {408}),
        ("an endless head", lambda: conversation(port, b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 4_000_000, patience_s=HANG_S), {0, 400}),
        ("too long a body", lambda: conversation(port, good.replace(b"Content-Length: ", b"Content-Length: 99"), patience_s=HANG_S), {408, 413}),
        ("chunks without end", lambda: conversation(port, chunked + b"1000\r\n" + b"x" * 4096 + b"\r\n", *[b"1000\r\n" + b"x" * 4096 + b"\r\n"] * 40), {0, 413}),
        ("a slow second request", lambda: conversation(port, SENTINEL.replace(b"Connection: close\r\n", b"") + head[:40], patience_s=HEAD_S + HANG_S), {200}),
    ]  # fmt: skip

    async def one(name: str, talk: Callable[[], Any], expected: set[int]) -> None:
        try:
            replies = await talk()
        except Hang as error:
            ring.breach(f"{name}: {error}")
            return
        ring.counts["endless_requests"] += 1
        statuses = {reply.status for reply in replies} or {0}
        if not statuses <= expected:
            ring.breach(f"{name}: answered with HTTP {sorted(statuses)} where {sorted(expected)} is due")

    # What is cut off in the middle has no effect either.
    async def cut(at: int) -> None:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(good[:at])
            await writer.drain()
            writer.transport.abort()
            ring.counts["cut_requests"] += 1

    async def attack() -> None:
        await asyncio.gather(*(one(*case) for case in cases), *(cut(at) for at in range(1, len(good), max(1, len(good) // 100))))

    await ring.unharmed("a request that never ended", attack)


async def idle(ring: Ring) -> None:
    """Connections that say nothing, as many as there may be, from several places, while somebody else is served."""
    opened: list[asyncio.StreamWriter] = []
    sources = await _sources(ring.program.port)
    with files(IDLE_MAX + 2 * FILES_KEPT) as given, contextlib.ExitStack() as stack:
        stack.callback(_abort, opened)
        most = max(0, min(IDLE_MAX if ring.size > 1 else 1_500, given - 2 * FILES_KEPT))
        while len(opened) < most and not ring.is_over:
            found = await asyncio.gather(
                *(_open(ring.program.port, sources[n % len(sources)]) for n in range(min(200, most - len(opened)))), return_exceptions=True
            )
            opened += [one for one in found if isinstance(one, asyncio.StreamWriter)]
            if not any(isinstance(one, asyncio.StreamWriter) for one in found):
                break
        ring.counts["idle_connections"] += len(opened)
        for number in range(50):
            await _still_served(ring, number)


def _abort(writers: list[asyncio.StreamWriter]) -> None:
    for writer in writers:
        writer.transport.abort()


async def _open(port: int, source: str) -> asyncio.StreamWriter:
    async with asyncio.timeout(10):
        _, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0) if source else None, limit=64)
    return writer


async def _still_served(ring: Ring, number: int) -> None:
    """A new connection is let in and answered while all the others are there."""
    body = b"{}"
    try:
        async with Line(ring.program.port) as line:
            reply = await ring.send(line, "/assets", as_headers(ring.poor.headers(body)), body)
    except (Hang, OSError) as error:
        ring.breach(f"beside idle connections caller {number} was not let in: {type(error).__name__}")
        return
    if reply.code != 10000:
        ring.breach(f"beside idle connections caller {number} got HTTP {reply.status} {reply.msg}")


async def _sources(port: int) -> list[str]:
    found = []
    for host in HOSTS:
        with contextlib.suppress(OSError):
            writer = await _open(port, host)
            writer.transport.abort()
            found.append(host)
    return found or [""]


async def flood(ring: Ring, limited: Program, healthy: Healthy, seconds: float) -> None:
    """E8: bad requests as fast as they go, from elsewhere, at a gateway with a limit; a merchant beside them notices nothing."""
    sources = [source for source in await _sources(limited.port) if source]
    if not sources:
        ring.counts["flood_not_tried"] += 1
        return
    ends_at = time.monotonic() + seconds
    raw = request(f"{V1}/withdraw", [(b"Appid", b"0" * 33), (b"Timestamp", b"1700000000"), (b"Sign", b"0" * 64)], b"{}")

    async def one(source: str) -> None:
        async with Line(limited.port, source=source) as line:
            while time.monotonic() < ends_at:
                try:
                    reply = await line.send(raw)
                except (Hang, OSError) as error:
                    ring.breach(f"a flood met {type(error).__name__}")
                    return
                ring.counts["flood_requests"] += 1
                ring.counts["flood_refused_for_its_rate"] += reply.code == 11004

    async with going_on(healthy):
        await asyncio.gather(*(one(source) for source in sources * 4))
    if ring.counts["flood_requests"] > 2_000 * seconds and not ring.counts["flood_refused_for_its_rate"]:
        ring.breach("a flood was not slowed down")
