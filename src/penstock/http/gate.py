"""Who may come in: headers, signature, age, merchant (spec 1.3 and section 8; failure model, section 7).

The order is fixed. Until the signature fits, there is one constant answer and no difference between an unknown app id, a wrong
signature and a header that is missing, malformed or there twice.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec

from penstock.core.errors import Problem, Refused
from penstock.core.party import Merchant, Secret
from penstock.core.wire_signature import WINDOW_S, is_timely, is_well_formed, matches
from penstock.http.limiter import is_within, networks
from penstock.http.ports import Merchants

_APP_ID: Final = re.compile(rb"[0-9A-Za-z]{1,64}")

_DUMMY: Final = (Secret("0" * 64),)
"""An unknown app id costs the same hash as a known one."""

_ONCE: Final = (b"appid", b"timestamp", b"sign", b"content-length", b"content-encoding", b"transfer-encoding")
_FORWARDED: Final = b"x-forwarded-for"


class RequestHeaders(msgspec.Struct, frozen=True):
    """The few headers that count. `sound` is False where one stands twice, or the length is told in conflicting ways."""

    app_id: bytes
    timestamp: bytes
    signature: bytes
    content_encoding: bytes
    content_length: int | None
    forwarded: list[bytes]
    sound: bool


def read_headers(pairs: Sequence[tuple[bytes, bytes]]) -> RequestHeaders:
    """Pick them out of an ASGI header list (names are lower case there)."""
    found = dict(pairs)
    sound = True
    if len(found) < len(pairs):  # some name stands more than once
        names = Counter(name for name, _ in pairs)
        sound = all(names[name] <= 1 for name in _ONCE)
    # Any coding but the plain one is a body that we would read as something else than who sent it.
    sound = sound and found.get(b"transfer-encoding", b"chunked").lower() == b"chunked"
    length = found.get(b"content-length")
    if length is not None and (not (length.isdigit() and len(length) <= 18) or b"transfer-encoding" in found):
        sound, length = False, None
    return RequestHeaders(
        app_id=found.get(b"appid", b""),
        timestamp=found.get(b"timestamp", b""),
        signature=found.get(b"sign", b""),
        content_encoding=found.get(b"content-encoding", b""),
        content_length=None if length is None else int(length),
        forwarded=[value for name, value in pairs if name == _FORWARDED] if _FORWARDED in found else [],
        sound=sound,
    )


class Caller(msgspec.Struct, frozen=True):
    """A merchant who proved a secret; answers are signed with that one (two are valid during a rotation)."""

    merchant: Merchant
    secret: str


class Gate:
    """Authentication, then admission."""

    def __init__(self, merchants: Merchants) -> None:
        self._merchants: Final = merchants

    async def authenticate(self, headers: RequestHeaders, body: bytes) -> Caller | None:
        """The caller whose signature fits the raw bytes, or None."""
        if not (headers.sound and is_well_formed(headers.timestamp, headers.signature) and _APP_ID.fullmatch(headers.app_id)):
            return None
        merchant = await self._merchants.by_app_id(headers.app_id.decode())
        matched: Secret | None = None
        for secret in (merchant.secrets if merchant is not None else ()) or _DUMMY:
            if matches(headers.app_id, secret.reveal(), headers.timestamp, body, headers.signature):
                matched = secret
        if merchant is None or matched is None or not merchant.secrets:
            return None
        return Caller(merchant, matched.reveal())


def admit(caller: Caller, headers: RequestHeaders, source: str, now_ms: int) -> None:
    """Age, then the merchant's own state and allow-list. Raises Refused."""
    if not is_timely(headers.timestamp, now_ms):
        raise Refused(
            Problem.REQUEST_EXPIRED,
            f"The Timestamp is more than {WINDOW_S} seconds from the server's clock, which says {now_ms // 1000}: send the current Unix time.",
        )
    merchant = caller.merchant
    if merchant.disabled:
        raise Refused(Problem.MERCHANT_DISABLED, "The merchant is disabled: ask the operator to enable it.")
    if merchant.ip_allow and not is_within(source, networks(merchant.ip_allow)):
        raise Refused(
            Problem.IP_NOT_IN_WHITELIST,
            f"The source address {source or '(none)'} is not on the merchant's allow-list: call from a listed address, or ask the operator.",
        )
