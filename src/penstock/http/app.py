"""The merchant API as a small ASGI application. Nothing here is a framework's.

    app = build_app(ports, limits, runtime)

A request goes this way, and leaves at the first step that refuses it:

    path known, POST              else 404
    source within its rate        else 11004, unsigned
    body within 64 KiB, in time   else 413, 408
    headers, app id, signature    else the one constant answer, unsigned            from here on every answer is signed
    age                           else 11006
    merchant enabled, address     else 12000, 12002
    merchant within its rate      else 11004
    body: strict JSON, not one of our own bodies coming back, fields               else 11000
    the call

Served by `uvicorn.Config(app, host=..., port=..., **UVICORN)`, whose connections ask `App.respond` and write its answer at once; any
other server calls it as ASGI has it.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from types import MappingProxyType
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry

from penstock.core.errors import Problem, Refused
from penstock.http import answers, resources, withdrawals
from penstock.http.answers import SUCCESS, Answer
from penstock.http.connections import Connection
from penstock.http.fields import Call
from penstock.http.gate import Caller, Gate, RequestHeaders, admit, read_headers
from penstock.http.limiter import Sources, TokenBuckets, bucket_key
from penstock.http.operations import PATHS, Metrics, Operations
from penstock.http.ports import Limits, Ports
from penstock.http.strict_json import JsonObject, parse
from penstock.runtime import Runtime

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Handler = Callable[[Call], Awaitable[object]]

PREFIX: Final = "/ccpayment/v1"

UVICORN: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "http": Connection,  # over httptools; never h11: ten times slower, and another parser than the one our tests know
        "loop": "uvloop",
        "ws": "none",
        "lifespan": "off",  # wiring starts and stops things
        "proxy_headers": False,  # we read X-Forwarded-For ourselves, from trusted peers only
        "server_header": False,
        "date_header": False,
        "access_log": False,
        "backlog": 2048,
        "timeout_keep_alive": 75,  # above the idle time of common load balancers, so that they close first
        "timeout_graceful_shutdown": 30,  # no accepted request is lost
    }
)
"""How to serve it."""

log = structlog.get_logger()


class _BodyTooLarge(Exception):
    """More than the limit came, or was announced."""


class _CallerGone(Exception):
    """The connection closed before the body was complete."""


def handlers() -> dict[str, Handler]:
    """Every call of spec section 3, by its path under /ccpayment/v1."""
    return {
        "/withdraw": withdrawals.withdraw,
        "/bill/info": withdrawals.order_information,
        "/check/user": resources.check_user,
        "/assets": resources.assets,
        "/network/fee": resources.network_fee,
        "/token/rate": resources.token_rate,
        "/coin/all": resources.coins,
        "/get/network/height/info": resources.heights,
        "/concise/url/get": resources.not_yet,
        "/bill/create": resources.not_yet,
        "/payment/address/get": resources.not_yet,
        "/webhook/resend": resources.WebhookResend(),
        "/support/token": resources.coins_old,
        "/token/chain": resources.tokens_old,
    }


def build_app(
    ports: Ports,
    limits: Limits,
    runtime: Runtime,
    *,
    registry: CollectorRegistry | None = None,
    calls: bool = True,
    process: int | None = None,
) -> App:
    """The application. `registry` is where its metrics go, and what /metrics prints; without `calls` only the operator's pages answer.
    `process` tells its numbers from those of others on the same port.

    Raises ValueError for a bad trusted proxy.
    """
    return App(ports, limits, runtime, Metrics(registry or CollectorRegistry(), process), calls=calls)


class App:
    """One process's API."""

    def __init__(self, ports: Ports, limits: Limits, runtime: Runtime, metrics: Metrics, *, calls: bool) -> None:
        self._ports = ports
        self._limits = limits
        self._runtime = runtime
        self._gate = Gate(ports.merchants)
        self._sources = Sources(limits.trusted_proxies)
        self._per_source = TokenBuckets(limits.requests_per_second, keys_max=limits.callers_max)
        self._per_merchant = TokenBuckets(limits.requests_per_second, keys_max=limits.callers_max)
        self._metrics = metrics
        self._operations = Operations(ports.readiness, self._metrics)
        # Both forms of each path, so that no client is ever redirected (spec, section 1).
        self._routes: dict[str, tuple[str, Handler]] = {
            PREFIX + path + slash: (path, handler) for path, handler in handlers().items() for slash in ("", "/") if calls
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event as ASGI has it."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        answer = await self.respond(scope, receive)
        if answer is not None:
            await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})

    async def respond(self, scope: Scope, receive: Receive, body: bytes | None = None) -> Answer | None:
        """The answer to one request, None when its caller is gone. `body` is the whole of it, where that is here already."""
        started = self._runtime.monotonic()
        route = self._routes.get(scope["path"]) if scope["method"] == "POST" else None
        try:
            if route is not None:
                answer = await self._call(scope, receive, body, route[1], started)
            elif scope["path"] in PATHS and scope["method"] in ("GET", "HEAD"):
                answer = await self._operations.answer(scope["path"])
            else:
                answer = answers.NOT_FOUND
        except _CallerGone:
            return None
        if route is not None:
            self._metrics.answered(route[0], answer.code, self._runtime.monotonic() - started)
        elif answer is answers.NOT_FOUND:
            self._metrics.answered("other", answer.code, self._runtime.monotonic() - started)
        self._runtime.crash_point("answer:begun")
        return answer

    async def _call(self, scope: Scope, receive: Receive, body: bytes | None, handler: Handler, started: float) -> Answer:
        """Everything up to the signature; from there on `_answer`."""
        headers = read_headers(scope["headers"])
        client = scope.get("client")
        source = self._sources.of(client[0] if client else "", headers.forwarded)
        if not self._per_source.take(bucket_key(source), started):
            return answers.TOO_MANY
        try:
            if body is None:
                body = await self._read(receive, headers.content_length)
            elif len(body) > self._limits.body_bytes_max:
                return answers.TOO_LARGE
        except _BodyTooLarge:
            return answers.TOO_LARGE
        except TimeoutError:
            return answers.TOO_SLOW
        try:
            caller = await self._gate.authenticate(headers, body)
        except Exception as error:  # noqa: BLE001 - without credentials nothing can be said, whatever the cause
            _log_failure(scope["path"], error)
            return answers.OUT_OF_ORDER
        if caller is None:
            return answers.NOT_VERIFIED
        return await self._answer(caller, headers, body, source, handler, scope["path"], started)

    async def _answer(
        self, caller: Caller, headers: RequestHeaders, body: bytes, source: str, handler: Handler, path: str, started: float
    ) -> Answer:
        """A signed answer, whatever happens."""
        app_id, secret = caller.merchant.app_id, caller.secret
        try:
            self._admit(caller, headers, source, started)
            fields = parse(body)
            _refuse_our_own(fields)
            data = await handler(Call(self._ports, self._limits, caller.merchant, fields, headers.signature, started))
            success = answers.success_body(data)
        except Refused as refused:
            return answers.signed_refusal(refused, app_id=app_id, secret=secret, now_ms=self._runtime.now_ms())
        except Exception as error:  # noqa: BLE001 - nothing may leak to the caller; the operator gets the place
            _log_failure(path, error)
            unknown = Refused(Problem.SERVICE_ERROR, "Service error, please try again")
            return answers.signed_refusal(unknown, app_id=app_id, secret=secret, now_ms=self._runtime.now_ms())
        return answers.signed(success, SUCCESS, app_id=app_id, secret=secret, now_ms=self._runtime.now_ms())

    def _admit(self, caller: Caller, headers: RequestHeaders, source: str, started: float) -> None:
        admit(caller, headers, source, self._runtime.now_ms())
        if not self._per_merchant.take(caller.merchant.id, started):
            raise Refused(
                Problem.RATE_LIMIT, "Too many requests of this merchant: wait a second, or ask the operator for more.", retry_after_s=1
            )
        if headers.content_encoding:
            raise Refused(Problem.HEADER_INVALID, "Content-Encoding is not accepted: send the body as it is, without that header.")

    async def _read(self, receive: Receive, announced: int | None) -> bytes:
        """The whole body. Raises _BodyTooLarge, TimeoutError or _CallerGone."""
        limit = self._limits.body_bytes_max
        if announced is not None and announced > limit:
            raise _BodyTooLarge
        async with asyncio.timeout(self._limits.body_seconds_max):
            message = await receive()
            body: bytes = message.get("body", b"")
            if not message.get("more_body", False) and message["type"] == "http.request" and len(body) <= limit:
                return body
            chunks, size = [body], len(body)
            while message["type"] == "http.request" and message.get("more_body", False) and size <= limit:
                message = await receive()
                chunks.append(message.get("body", b""))
                size += len(chunks[-1])
        if message["type"] != "http.request":
            raise _CallerGone
        if size > limit:
            raise _BodyTooLarge
        return b"".join(chunks)


def _refuse_our_own(fields: JsonObject) -> None:
    """Answers and webhooks are signed by the same formula; sent back to us they would be valid requests (spec 1.3)."""
    if ("code" in fields and "msg" in fields) or ("pay_status" in fields and "order_type" in fields):
        raise Refused(
            Problem.INVALID_ARGUMENT, "The body has the form of an answer or a webhook, which is no request: leave out its first fields."
        )


def _log_failure(path: str, error: Exception) -> None:
    """Where it happened, without the exception's text, which may hold what was sent or a secret."""
    place = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)[-6:]]
    log.error("http.request.failed", path=path, error=type(error).__name__, place=place)


async def _lifespan(receive: Receive, send: Send) -> None:
    """Nothing to start or stop: wiring does that."""
    done: Iterable[str] = ("lifespan.startup", "lifespan.shutdown")
    for expected in done:
        message = await receive()
        if message["type"] == expected:
            await send({"type": f"{expected}.complete"})
