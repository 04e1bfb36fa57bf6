"""Requests that nobody with the secret made, built from those that somebody did (test plan, E4, E6, E7)."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from penstock.core import wire_signature
from penstock.prove.callers.extension import extend, padding
from penstock.prove.callers.lines import Headers, Reply, as_headers
from penstock.prove.merchant import Merchant

UNVERIFIED: Final = 11005
EXPIRED: Final = 11006
INVALID: Final = 11000

LOOKALIKES: Final = {"0": "\uff10", "1": "\u0661", "2": "\u0968", "3": "\uff13", "a": "\u0430", "c": "\u0441", "e": "\u0435"}
"""Digits and letters of other scripts that print like ASCII."""
SUFFIXES: Final = (b"", b"}", b" ", b"{}", b',"value":"1000000"}', b'{"merchant_order_id":"forged","value":"1000000"}')


@dataclass(frozen=True, slots=True)
class Forged:
    """A request, the wire codes that refuse it, and what was done to it."""

    how: str
    headers: Headers
    body: bytes
    refusals: frozenset[int] = frozenset({UNVERIFIED})


def is_refused(forged: Forged, reply: Reply) -> bool:
    """Whether the gateway took it for what it is: a refusal in words, HTTP 4xx from the parser, or a closed connection."""
    return reply.status in (0, 400, 404, 408, 413, 431) or (reply.status == 200 and reply.code in forged.refusals)


def _flipped(text: bytes, bit: int) -> bytes:
    place, which = divmod(bit, 8)
    return text[:place] + bytes([text[place] ^ 1 << which]) + text[place + 1 :]


def bit_flips(merchant: Merchant, body: bytes, source: random.Random) -> Iterator[Forged]:
    """Each bit of app id, timestamp and signature, and bits of the body, one at a time, without end."""
    while True:
        headers = merchant.headers(body)
        for name in headers:
            value = headers[name].encode()
            for bit in source.sample(range(8 * len(value)), 8 * len(value)):
                changed = _flipped(value, bit)
                # Either case of a hexadecimal digit is the same digit; outer blanks are HTTP's, not the value's.
                if name != "Sign" or changed.lower() != value.lower():
                    yield Forged(f"bit {bit} of {name}", _with(headers, name, changed), body)
        for bit in source.sample(range(8 * len(body)), min(64, 8 * len(body))):
            yield Forged(f"bit {bit} of the body", as_headers(headers), _flipped(body, bit))


def _with(headers: dict[str, str], name: str, value: bytes) -> Headers:
    return [(key.encode(), value if key == name else text.encode()) for key, text in headers.items()]


def cuts_and_lookalikes(merchant: Merchant, body: bytes, source: random.Random) -> Iterator[Forged]:
    """Truncated, lengthened, doubled, in other scripts, moved from one part to another, without end."""
    while True:
        headers = merchant.headers(body)
        sign, stamp = headers["Sign"], headers["Timestamp"]
        for name, value in headers.items():
            cut = source.randrange(len(value))
            yield Forged(f"{name} cut", _with(headers, name, value[:cut].encode()), body)
            yield Forged(f"{name} longer", _with(headers, name, (value + source.choice("0a ;,")).encode() + b"0"), body)
            yield Forged(f"{name} doubled", [*as_headers(headers), (name.encode(), value.encode())], body)
            yield Forged(f"{name} doubled, one wrong", [(name.encode(), b"0" * len(value)), *as_headers(headers)], body)
            yield Forged(f"{name} as a list", _with(headers, name, f"{value}, {value}".encode()), body)
            yield Forged(f"{name} missing", [(k, v) for k, v in as_headers(headers) if k != name.encode()], body)
            yield Forged(f"{name} empty", _with(headers, name, b""), body)
            yield Forged(f"{name} in another case", [(k.swapcase(), v + b"x") for k, v in as_headers(headers)], body)
            ours = [character for character in LOOKALIKES if character in value]
            if ours:
                like = source.choice(ours)
                yield Forged(f"{name} with a lookalike", _with(headers, name, value.replace(like, LOOKALIKES[like], 1).encode()), body)
        yield Forged("body cut", as_headers(headers), body[: source.randrange(len(body))])
        yield Forged("body longer", as_headers(headers), body + source.choice((b" ", b"\n", b"{}", b"\x00")))
        yield Forged("body moved into the timestamp", _with(headers, "Timestamp", (stamp + body[:1].decode()).encode()), body[1:])
        yield Forged("timestamp moved into the body", _with(headers, "Timestamp", stamp[:-1].encode()), stamp[-1:].encode() + body)
        yield Forged("signature of nothing", _with(headers, "Sign", merchant.headers(b"")["Sign"].encode()), body)
        yield Forged("another secret", _with(headers, "Sign", _signed_with(merchant, "0" * 64, stamp, body)), body)
        yield Forged("no secret", _with(headers, "Sign", _signed_with(merchant, "", stamp, body)), body)
        yield Forged("prefix of the signature", _with(headers, "Sign", (sign[:32] + "0" * 32).encode()), body)
        for stamped in (f"{stamp}.", f"+{stamp}", f"{stamp}e0", f" {stamp}", f"0{stamp}", f"{stamp}.0000000000", "1e9", f"{stamp}000"):
            # Signed with the true secret, so only the form of the timestamp refuses it.
            yield Forged("timestamp in another form", as_headers(merchant.headers(body, timestamp=stamped)), body)


def _signed_with(merchant: Merchant, secret: str, stamp: str, body: bytes) -> bytes:
    return wire_signature.sign(merchant.app_id, secret, stamp, body).encode()


def extensions(merchant: Merchant, body: bytes, source: random.Random) -> Iterator[Forged]:
    """Lengthened behind the attacker's back of SHA-256: the signature is right, the body is not what anybody sent. Without end."""
    while True:
        for known in (body, b"{}", b""):
            headers = merchant.headers(known)
            yield from lengthened(merchant, headers, known, source.choice(SUFFIXES), "length extension")


def lengthened(merchant: Merchant, headers: dict[str, str], known: bytes, suffix: bytes, how: str) -> Iterator[Forged]:
    """From something signed to something longer; `merchant` gives the lengths alone, which an attacker knows."""
    length = len(merchant.app_id) + len(merchant.secret) + len(headers["Timestamp"]) + len(known)
    forged = _with(headers, "Sign", extend(headers["Sign"], length, suffix).encode())
    # The hash fits, so the caller is told what is wrong with the body: it is never UTF-8.
    yield Forged(how, forged, known + padding(length) + suffix, frozenset({INVALID}))


def out_of_time(merchant: Merchant, body: bytes) -> Iterator[Forged]:
    """Signed by the secret, one second too old or far too new. (How new is too new depends on the second in which it arrives.)"""
    for offset_s in (-121, -122, -3_600, -86_400, 180, 3_600, 86_400):
        stamp = str(int(time.time()) + offset_s)
        yield Forged("out of time", as_headers(merchant.headers(body, timestamp=stamp)), body, frozenset({EXPIRED}))
        yield Forged(
            "out of time, with a fraction",
            as_headers(merchant.headers(body, timestamp=f"{stamp}.0")),
            body,
            frozenset({EXPIRED}),
        )


def unauthenticated(body: bytes) -> Iterator[Forged]:
    """What a stranger can send who knows no app id (E7)."""
    stamp = str(int(time.time())).encode()
    yield Forged("nothing", [], body)
    yield Forged("zeros", [(b"Appid", b"0" * 33), (b"Timestamp", stamp), (b"Sign", b"0" * 64)], body)
    yield Forged("SQL", [(b"Appid", b"' OR 1=1 --"), (b"Timestamp", stamp), (b"Sign", b"0" * 64)], body)
    yield Forged("other words", [(b"Authorization", b"Bearer x"), (b"X-Api-Key", b"x"), (b"Cookie", b"session=1")], body)
    yield Forged("forwarded", [(b"X-Forwarded-For", b"127.0.0.1"), (b"X-Real-Ip", b"127.0.0.1"), (b"X-Original-Url", b"/metrics")], body)
