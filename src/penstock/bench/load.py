"""The load generator: a process of its own that signs, sends over connections that stay open, and measures.

    python -m penstock.bench.load < plan.json > result.json

Everything is signed and laid out as bytes, and every connection is open, before the clock starts. Each sends its next request when the answer
before has come.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Final

import uvloop

from penstock.bench.processes import Meter, Used
from penstock.core import wire_signature
from penstock.core.wire import compact

SUCCESS: Final = b'{"code":10000,'
STALLED_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send: `path` and one JSON body a request, each signed by one of the merchants (app id, secret), spread evenly. `pids` are
    the processes to be weighed meanwhile.
    """

    host: str
    port: int
    path: str
    merchants: list[tuple[str, str]]
    bodies: list[dict[str, Any]]
    connections: int
    pids: Mapping[str, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measured:
    """What came back: requests by outcome, latencies in milliseconds, and who used the CPU meanwhile; `load` is the generator itself."""

    done: int
    refused: int
    began_at_ms: int
    p50_ms: float
    p99_ms: float
    used: Used
    codes: dict[str, int]

    @property
    def per_second(self) -> float:
        """Successful answers a second."""
        return self.done / self.used.took_s


def spelled(plan: Plan) -> deque[bytes]:
    """Each request as it stands on the wire."""
    now = str(int(time.time()))
    wanted: deque[bytes] = deque()
    for number, fields in enumerate(plan.bodies):
        app_id, secret = plan.merchants[number % len(plan.merchants)]
        body = compact(fields)
        sign = wire_signature.sign(app_id, secret, now, body)
        head = (
            f"POST /ccpayment/v1{plan.path} HTTP/1.1\r\nHost: {plan.host}:{plan.port}\r\nAppid: {app_id}\r\nTimestamp: {now}\r\nSign: {sign}\r\n"
            f"Content-Type: application/json; charset=utf-8\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        wanted.append(head.encode() + body)
    return wanted


class _Connection(asyncio.Protocol):
    """One connection: the next request when the answer before has come."""

    def __init__(self, waiting: deque[bytes], latencies: list[float], codes: Counter[bytes], ended: asyncio.Future[None]) -> None:
        self._waiting = waiting
        self._latencies = latencies
        self._codes = codes
        self._ended = ended
        self._buffer = b""
        self._sent_at = 0.0
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def ask(self) -> None:
        """Send the next request, or leave."""
        if not self._waiting:
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(self._waiting.popleft())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, split, body = self._buffer.partition(b"\r\n\r\n")
        if not split:
            return
        _, _, rest = head.lower().partition(b"content-length: ")
        if len(body) < int(rest.partition(b"\r\n")[0]):
            return
        self._latencies.append(time.perf_counter() - self._sent_at)
        self._codes[b"10000" if body.startswith(SUCCESS) else body[:24]] += 1
        self._buffer = b""
        self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended.done():
            if exc is not None or self._waiting:
                self._codes[b"connection lost"] += 1
            self._ended.set_result(None)


async def run(plan: Plan) -> Measured:
    """Send all and measure. Raises TimeoutError when nothing comes back any more."""
    waiting = spelled(plan)
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    codes: Counter[bytes] = Counter()
    ended = [loop.create_future() for _ in range(plan.connections)]
    callers = [
        (await loop.create_connection(partial(_Connection, waiting, latencies, codes, end), plan.host, plan.port))[1] for end in ended
    ]
    meter, began_at_ms = Meter(load=[os.getpid()], **plan.pids), time.time_ns() // 1_000_000
    for caller in callers:
        caller.ask()
    await asyncio.wait_for(asyncio.gather(*ended), STALLED_S + len(plan.bodies) / 50)
    used = meter.read()
    latencies.sort()
    done = codes.pop(b"10000", 0)
    return Measured(
        done=done,
        refused=sum(codes.values()),
        began_at_ms=began_at_ms,
        p50_ms=_at(latencies, 0.5) * 1000,
        p99_ms=_at(latencies, 0.99) * 1000,
        used=used,
        codes={code.decode("utf-8", "replace"): count for code, count in codes.most_common(5)},
    )


def _at(ordered: list[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


def names(count: int, prefix: str, *, sequential: bool, seed: int) -> Iterable[str]:
    """Ids of orders: counted up, or without any order, as merchants choose them."""
    dice = random.Random(seed)
    return (f"{prefix}-{number:09d}" if sequential else f"{dice.getrandbits(96):024x}-{prefix}" for number in range(count))


def main() -> None:
    """One plan in, one result out."""
    fields = json.load(sys.stdin)
    plan = Plan(**{**fields, "merchants": [tuple(pair) for pair in fields["merchants"]]})
    print(json.dumps(asdict(uvloop.run(run(plan)))))


if __name__ == "__main__":
    main()
