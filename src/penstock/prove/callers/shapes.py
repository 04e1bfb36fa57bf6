"""HTTP that two parsers may read in two ways, and HTTP that never ends (test plan, E3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from penstock.prove.callers.lines import Headers, request
from penstock.prove.merchant import V1

SENTINEL: Final = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
"""Behind each shape: its answer ends the conversation, so every answer before it belongs to the shape."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What is sent. `ambiguous`: another server may see another end of the body, so it must not be acted upon; else it may be answered once."""

    name: str
    raw: bytes
    ambiguous: bool = True


def shapes(signed: Headers, body: bytes, smuggled: bytes) -> Iterator[Shape]:
    """Around a validly signed call whose body is `body`; `smuggled` is a whole request that hides behind it."""
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    length = b"%d" % len(body)
    te, cl = b"Transfer-Encoding", b"Content-Length"

    def make(name: str, extra: Headers, content: bytes, *, ambiguous: bool = True) -> Shape:
        return Shape(name, request(f"{V1}/assets", [*signed, *extra], content, length=False), ambiguous)

    yield make("CL.TE", [(cl, b"%d" % (len(body) + len(smuggled))), (te, b"chunked")], chunked + smuggled)
    yield make("TE.CL", [(te, b"chunked"), (cl, b"4")], chunked + smuggled)
    yield make("TE.TE", [(te, b"chunked"), (te, b"identity")], chunked + smuggled)
    yield make("TE twice", [(te, b"chunked"), (te, b"chunked")], chunked + smuggled)
    yield make("TE then a word", [(te, b"chunked, identity")], chunked + smuggled)
    yield make("TE unknown", [(te, b"xchunked")], chunked + smuggled)
    yield make("TE gzip, chunked", [(te, b"gzip, chunked")], chunked)
    yield make("TE with a tab", [(te, b"\tchunked"), (cl, length)], body + smuggled)
    yield make("TE with a blank before the colon", [(b"Transfer-Encoding ", b"chunked"), (cl, length)], body + smuggled)
    yield make("TE on a folded line", [(b"X", b"x\r\n Transfer-Encoding: chunked"), (cl, length)], body)
    yield make("CL twice, other", [(cl, length), (cl, b"%d" % (len(body) + len(smuggled)))], body + smuggled)
    yield make("CL twice, same", [(cl, length), (cl, length)], body)
    yield make("CL as a list", [(cl, length + b", " + length)], body)
    for wrong in (b"+" + length, b"-1", b"0x" + length, length + b" 5", b"1e1", b"", b"\xef\xbc\x92", b"9" * 30, b"18446744073709551618"):
        yield make(f"CL {wrong!r}", [(cl, wrong)], body + smuggled)
    yield make("CL with a blank before the colon", [(b"Content-Length ", length)], body)
    yield make("CL on a folded line", [(b"X", b"y"), (b"Content-Length", b"\r\n " + length)], body)
    yield make("CL with an underscore", [(b"Content_Length", length)], body)
    yield from _chunks(signed, body, smuggled)
    yield from _lines(signed, body, smuggled)


def _chunks(signed: Headers, body: bytes, smuggled: bytes) -> Iterator[Shape]:
    te = (b"Transfer-Encoding", b"chunked")
    size = b"%x" % len(body)

    def make(name: str, content: bytes, *, ambiguous: bool = True) -> Shape:
        return Shape(f"chunk {name}", request(f"{V1}/assets", [*signed, te], content, length=False), ambiguous)

    for wrong in (
        b"-1",
        b"+" + size,
        b"0x" + size,
        b" " + size,
        size + b" ",
        size + b"\x00",
        b"",
        b"g",
        b"f" * 17,
        b"1" + b"0" * 16,
        size + b"_",
    ):
        yield make(f"size {wrong!r}", wrong + b"\r\n" + body + b"\r\n0\r\n\r\n" + smuggled)
    yield make("bare LF", size + b"\n" + body + b"\n0\n\n" + smuggled)
    yield make("bare CR", size + b"\r" + body + b"\r0\r\r" + smuggled)
    yield make("without its end of line", size + b"\r\n" + body + b"0\r\n\r\n" + smuggled)
    yield make("longer than its size", size + b"\r\n" + body + b"xx\r\n0\r\n\r\n" + smuggled)
    yield make("extension", size + b";a=b\r\n" + body + b"\r\n0\r\n\r\n", ambiguous=False)
    yield make("extension with a line", size + b";a=b\nX\r\n" + body + b"\r\n0\r\n\r\n" + smuggled)
    yield make("trailer", size + b"\r\n" + body + b"\r\n0\r\nSign: " + b"0" * 64 + b"\r\n\r\n", ambiguous=False)
    yield make("in single bytes", b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n", ambiguous=False)
    yield make("leading zeros", b"0" * 12 + size + b"\r\n" + body + b"\r\n0\r\n\r\n", ambiguous=False)


def _lines(signed: Headers, body: bytes, smuggled: bytes) -> Iterator[Shape]:
    good = request(f"{V1}/assets", signed, body)
    head, _, _ = good.partition(b"\r\n\r\n")
    first, rest = head.split(b"\r\n", 1)
    yield Shape("bare LF lines", good.replace(b"\r\n", b"\n") + smuggled)
    yield Shape("bare CR lines", good.replace(b"\r\n", b"\r") + smuggled)
    yield Shape("NUL in a header", head + b"\r\nX: a\x00b\r\n\r\n" + body)
    yield Shape("a header without a colon", head + b"\r\nX\r\n\r\n" + body)
    yield Shape("a header without a name", head + b"\r\n: x\r\n\r\n" + body)
    yield Shape("a blank line first", b"\r\n" + good, ambiguous=False)
    yield Shape("a blank before the method", b" " + good)
    yield Shape("HTTP/0.9", b"POST /ccpayment/v1/assets\r\n" + rest + b"\r\n\r\n" + body, ambiguous=False)
    yield Shape("HTTP/1.0 with chunks", first.replace(b"1.1", b"1.0") + b"\r\nTransfer-Encoding: chunked\r\n" + rest + b"\r\n\r\n" + body)
    yield Shape("HTTP/9.9", first.replace(b"1.1", b"9.9") + b"\r\n" + rest + b"\r\n\r\n" + body)
    yield Shape("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    yield Shape("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200)
    yield Shape(
        "h2c upgrade",
        head + b"\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n" + body,
        ambiguous=False,
    )
    yield Shape("websocket upgrade", head + b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + body, ambiguous=False)
    yield Shape("another address form", good.replace(b" /cc", b" http://elsewhere.example/cc", 1), ambiguous=False)
    yield Shape("CONNECT", b"CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: x\r\n\r\n")
    yield Shape("a method of another case", b"p" + good[1:])
    yield Shape("a long path", good.replace(b"/assets", b"/assets" + b"a" * 70_000, 1), ambiguous=False)
    yield Shape("dots in the path", good.replace(b"/ccpayment", b"/x/../ccpayment", 1), ambiguous=False)
    yield Shape("an encoded path", good.replace(b"/assets", b"/%61ssets", 1), ambiguous=False)
    yield Shape("a NUL in the path", good.replace(b"/assets", b"/assets\x00", 1))
    yield Shape("a huge header", head + b"\r\nX: " + b"a" * 200_000 + b"\r\n\r\n" + body, ambiguous=False)
    yield Shape("many headers", head + b"\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(5_000)) + b"\r\n" + body, ambiguous=False)
