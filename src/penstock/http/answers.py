"""Answers as bytes: the envelope of spec 1.2, the signature of 1.3, and the few that are never signed.

Only a caller whose own signature was right gets a signature back. Everybody else gets constants, so that a stranger is never handed
bytes signed with a merchant's secret.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from penstock.core.errors import Problem, Refused
from penstock.core.wire import compact
from penstock.core.wire_signature import sign

SUCCESS: Final = 10_000

Headers = list[tuple[bytes, bytes]]

_JSON: Final = (b"content-type", b"application/json; charset=utf-8")
_CLOSE: Final = (b"connection", b"close")
_RETRY_SOON: Final = (b"retry-after", b"1")


class Answer(NamedTuple):
    """What goes out. `code` is the wire code, for the metrics."""

    status: int
    headers: Headers
    body: bytes
    code: int


def success_body(data: object) -> bytes:
    """A success; no `reason`, because one Java SDK refuses fields it does not know (spec 1.2)."""
    return b'{"code":10000,"msg":"success","data":' + compact(data) + b"}"


def failure_body(problem: Problem, msg: str) -> bytes:
    """A failure; `data` is always null."""
    return compact({"code": problem.code, "reason": problem.reason, "msg": msg, "data": None})


def signed(body: bytes, code: int, *, app_id: str, secret: str, now_ms: int, retry_after_s: int | None = None) -> Answer:
    """An answer to a caller who proved the secret."""
    timestamp = str(now_ms // 1000)
    headers = [
        _JSON,
        (b"content-length", b"%d" % len(body)),
        (b"appid", app_id.encode()),
        (b"timestamp", timestamp.encode()),
        (b"sign", sign(app_id, secret, timestamp, body).encode()),
    ]
    if retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, retry_after_s)))
    return Answer(200, headers, body, code)


def signed_refusal(refused: Refused, *, app_id: str, secret: str, now_ms: int) -> Answer:
    """A failure told to a caller who proved the secret."""
    body = failure_body(refused.problem, refused.msg)
    return signed(body, refused.problem.code, app_id=app_id, secret=secret, now_ms=now_ms, retry_after_s=refused.retry_after_s)


def plain(status: int, body: bytes, code: int, *extra: tuple[bytes, bytes], content_type: bytes = _JSON[1]) -> Answer:
    """An answer without a signature."""
    return Answer(status, [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *extra], body, code)


def _constant(status: int, problem: Problem, msg: str, *extra: tuple[bytes, bytes]) -> Answer:
    return plain(status, failure_body(problem, msg), problem.code, *extra)


NOT_VERIFIED: Final = _constant(
    200,
    Problem.VERIFY_SIGN_FAILED,
    "The request is not verified: send Appid, Timestamp (Unix seconds) and Sign (hex SHA-256 of app id, app secret, timestamp and raw body).",
)
"""The one answer to all who did not prove a secret, whatever the cause (spec 1.3)."""

TOO_MANY: Final = _constant(
    200, Problem.RATE_LIMIT, "Too many requests from this address: wait a second, or ask the operator for a higher limit.", _RETRY_SOON
)

NOT_FOUND: Final = _constant(404, Problem.NOT_FOUND, "There is no such path and method: calls are POST requests under /ccpayment/v1/.")

TOO_LARGE: Final = _constant(413, Problem.INVALID_ARGUMENT, "The body is too large: at most 64 KiB are read.", _CLOSE)

TOO_SLOW: Final = _constant(408, Problem.INVALID_ARGUMENT, "The body did not arrive in time: send it at once.", _CLOSE)

OVERLOADED: Final = _constant(503, Problem.RATE_LIMIT, "The server has more requests than it can hold: come back in a second.", _RETRY_SOON)
"""Said before anything was read, so it cannot be signed."""

OUT_OF_ORDER: Final = _constant(503, Problem.SERVICE_ERROR, "Service error, please try again", _RETRY_SOON)
"""Credentials cannot be looked up, so nothing can be signed either."""
