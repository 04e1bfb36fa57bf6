"""What operators and machines ask: is it alive, is it ready, how much does it do, what does the API look like.

These are GETs, unsigned, and tell nothing about merchants. /metrics and /readyz belong behind the operator's own fence.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from penstock.core.wire import compact
from penstock.http.answers import Answer, plain
from penstock.http.openapi import document
from penstock.http.ports import Readiness

log = structlog.get_logger()

_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

PATHS: Final = frozenset({"/healthz", "/readyz", "/metrics", "/openapi.json"})


class Metrics:
    """Requests by path and code, and how long they took. Labels are bounded: only paths and codes of our own.

    Where several processes answer on one port, whoever is asked tells its own numbers, under its own label: they add up.
    """

    def __init__(self, registry: CollectorRegistry, process: int | None = None) -> None:
        self.registry: Final = registry
        self._own: dict[str, str] = {} if process is None else {"process": str(process)}
        self._answers: Counter[tuple[str, int]] = Counter()
        self._slots: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(_BUCKETS) + 1))
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._waiting = Gauge(
            "penstock_waiting", "Rows that somebody has to act on, by kind and state", ("kind", "state"), registry=registry
        )
        registry.register(self)

    def answered(self, path: str, code: int, seconds: float) -> None:
        """Count one. Plain numbers, put into the words of the page when that is asked for: this runs for every request."""
        self._answers[path, code] += 1
        self._slots[path][bisect_left(_BUCKETS, seconds)] += 1
        self._seconds[path] += seconds

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client asks of a collector."""
        requests = CounterMetricFamily("penstock_http_requests", "Answers of the merchant API", labels=("path", "code", *self._own))
        for (path, code), count in self._answers.items():
            requests.add_metric((path, str(code), *self._own.values()), count)
        yield requests
        took = HistogramMetricFamily("penstock_http_request_seconds", "From the first byte seen to the answer", labels=("path", *self._own))
        for path, slots in self._slots.items():
            bounds = (*(str(bound) for bound in _BUCKETS), "+Inf")
            took.add_metric((path, *self._own.values()), [*zip(bounds, accumulate(slots), strict=True)], self._seconds[path])
        yield took

    def waiting(self, rows: Sequence[tuple[str, str, int]]) -> None:
        """What waits now; kinds and states that have nothing are gone from the page."""
        self._waiting.clear()
        for kind, state, count in rows:
            self._waiting.labels(kind, state).set(count)


class Operations:
    """The four pages."""

    def __init__(self, readiness: Readiness, metrics: Metrics) -> None:
        self._readiness = readiness
        self._metrics = metrics
        self._healthy = plain(200, b'{"status":"ok"}', 0)
        self._openapi = plain(200, compact(document()), 0)

    async def answer(self, path: str) -> Answer:
        """The page at `path`, one of PATHS."""
        match path:
            case "/healthz":
                return self._healthy
            case "/readyz":
                return await self._ready()
            case "/metrics":
                await self._count()
                return plain(200, generate_latest(self._metrics.registry), 0, content_type=CONTENT_TYPE_LATEST.encode())
            case _:
                return self._openapi

    async def _count(self) -> None:
        try:
            self._metrics.waiting(await self._readiness.waiting())
        except Exception as error:  # noqa: BLE001  the counters are worth having without it
            log.warning("metrics.waiting.unknown", error=type(error).__name__)
            self._metrics.waiting([])

    async def _ready(self) -> Answer:
        try:
            reasons, warnings = await self._readiness.reasons()
        except Exception as error:  # noqa: BLE001 - whatever fails while we ask is a reason not to be ready
            reasons, warnings = [f"readiness cannot be told: {type(error).__name__}"], []
        body = compact({"ready": not reasons, "reasons": list(reasons), "warnings": list(warnings)})
        return plain(503 if reasons else 200, body, 0)
