"""The signature of requests, answers and webhooks (spec, section 2): plain SHA-256 over a concatenation.

The construction is the vendor's and weak in known ways (no separators, length extension, no path). What makes up for it
stands in the failure model, section 7: a strict timestamp, strict UTF-8 and JSON, and disjoint body schemas.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final

WINDOW_S: Final = 120
"""A timestamp may be this many seconds before or after the server's clock (spec, open point 16)."""

_TIMESTAMP: Final = re.compile(rb"[0-9]{10}(?:\.[0-9]{1,9})?")
_SIGN: Final = re.compile(rb"[0-9a-fA-F]{64}")


def sign(app_id: str, app_secret: str, timestamp: str, body: bytes) -> str:
    """Lower-case hex of SHA256(appId, appSecret, timestamp, body)."""
    return hashlib.sha256(f"{app_id}{app_secret}{timestamp}".encode() + body).hexdigest()


def is_well_formed(timestamp: bytes, signature: bytes) -> bool:
    """Whether both headers have the only forms ever accepted (spec 14.14; failure model, section 7)."""
    return _TIMESTAMP.fullmatch(timestamp) is not None and _SIGN.fullmatch(signature) is not None


def matches(app_id: bytes, app_secret: str, timestamp: bytes, body: bytes, signature: bytes) -> bool:
    """Compare in constant time, upper or lower case."""
    expected = hashlib.sha256(app_id + app_secret.encode() + timestamp + body).hexdigest().encode()
    return hmac.compare_digest(expected, signature.lower())


def is_timely(timestamp: bytes, now_ms: int) -> bool:
    """Whether the integer part of a well-formed timestamp lies within the window, both sides included."""
    return abs(now_ms // 1000 - int(timestamp[:10])) <= WINDOW_S
