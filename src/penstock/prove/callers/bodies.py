"""Bodies of validly signed requests that mean harm, and a judge that knows the grammar without our decoder (test plan, E1, E2)."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from penstock.prove.callers.lines import json_bytes

AMOUNTS: Final = (
    "0", "-1", "+1", "1e3", "1E-2", "0x10", "1_000", "1,5", "1.", ".5", "01", "00", "1.0000000000000000000", "\u0661\u0662", "\uff11", "\u00b9", "\u00bd", "\u221e", "NaN",
    "Infinity", "-0", " 1", "1 ", "1\u00a0", "1\u200b", "1.5.5", "1'000", "1e", "--1", "9" * 20, "9" * 60, "9" * 79, "0." + "0" * 17 + "1", "0." + "0" * 18 + "1",
    "1" + "0" * 400, "1.00", "true", "null", "[]", "{}", "$1", "1 USDT", "\u0000", "1\n", "1;DROP TABLE orders",
)  # fmt: skip
NUMBERS: Final = (
    "0",
    "-0",
    "1e2",
    "1.0",
    "1E400",
    "-1",
    "1" * 20,
    "1" * 21,
    "1" * 5_000,
    "0.1",
    "1e-18",
    "00",
    "+1",
    ".5",
    "1.",
    "0x1",
    "NaN",
    "Infinity",
    "-Infinity",
)
TEXTS: Final = (
    "", " ", "0", "null", "\u202e", "\ufeff", "\u200b", "\u0000", "\ud800", "a" * 65, "a" * 2_049, "é", "e\u0301", "😀", "\\u0000", "../../etc/passwd", "' OR '1'='1", "{{7*7}}", "${jndi:ldap://x}",
    "%00", "\r\nX: y", "<script>", "=1+1", "@", "a@b", "1" * 64, "-1", "true",
)  # fmt: skip
VALUES: Final[tuple[Any, ...]] = (None, True, False, 0, 1, -1, [], {}, [[]], [None], {"a": {}}, ["x"] * 3, {"$gt": ""}, [{"value": "1"}])
FIELDS: Final = ("merchant_order_id", "address", "token_id", "value", "memo", "merchant_pays_fee")
MORE: Final = (
    "merchant_order_ids",
    "start_timestamp",
    "end_timestamp",
    "webhook_result",
    "transaction_type",
    "c_id",
    "amount",
    "coin_id",
    "code",
    "msg",
    "pay_status",
    "order_type",
    "__proto__",
    "constructor",
)
RAW: Final = (
    b"", b" ", b"null", b"[]", b"1", b'"a"', b"{", b"}", b"{}{}", b"{} {}", b"\xef\xbb\xbf{}", b"{}\x00", b"\x00{}", b"{\xc0\xaf}", b"\xff\xfe{\x00}\x00", b"{,}", b"{'a':1}", b'{"a":1,}', b'{"a" 1}',
    b'{"a":tru}', b'{"a":"\n"}', b'{"a":"\\x"}', b'{"a":"\\ud800"}', b'{"\\udfff":1}', b'{"a":01}', b'{"a":1}//', b"/**/{}", b"a=b&c=d", b"<xml/>", b"\x1f\x8b\x08\x00", b"[" * 30_000, b'{"a":' * 10_000,
    b'{"a":"' + b"x" * 65_500 + b'"}', b"{" + b" " * 65_600 + b"}", b'{"a":' + b"9" * 60_000 + b"}", b"{" + b",".join(b'"%d":1' % n for n in range(6_000)) + b"}", b'{"a":"' + b"\\u0041" * 10_000 + b'"}',
    b'{"a":"' + b"\\" * 60_001 + b'"}', b'"' * 60_000, b'{"":' * 8 + b"1" + b"}" * 8, b'{"":' * 9 + b"1" + b"}" * 9,
)  # fmt: skip


def hostile_bodies(valid: Mapping[str, Mapping[str, Any]], source: random.Random) -> Iterator[tuple[str, bytes]]:
    """Path and body, without end. `valid` is a body for each path that it takes."""
    makers: list[Callable[[str, dict[str, Any], random.Random], bytes]] = [_one_field, _raw_number, _twice, _byte, _two_fields, _nested]
    while True:
        for path, fields in valid.items():
            for maker in makers:
                yield path, maker(path, dict(fields), source)
        yield source.choice(list(valid)), source.choice(RAW)


def _odd(source: random.Random) -> Any:
    return source.choice(
        (source.choice(AMOUNTS), source.choice(TEXTS), source.choice(VALUES), source.randbytes(source.randrange(40)).decode("latin-1"))
    )


def _name(fields: Mapping[str, Any], source: random.Random) -> str:
    return source.choice((*fields, *fields, *FIELDS, *MORE))


def _encoded(fields: dict[str, Any], source: random.Random) -> bytes:
    # Escaped, a lone surrogate is ASCII; unescaped it cannot be written, and goes out as it would from a careless client.
    return json.dumps(fields, ensure_ascii=source.random() < 0.5).encode("utf-8", "surrogatepass")


def _one_field(_: str, fields: dict[str, Any], source: random.Random) -> bytes:
    fields[_name(fields, source)] = _odd(source)
    return _encoded(fields, source)


def _two_fields(_: str, fields: dict[str, Any], source: random.Random) -> bytes:
    fields.pop(source.choice((*fields, "")), None)
    fields[_name(fields, source)] = _odd(source)
    return _encoded(fields, source)


def _raw_number(_: str, fields: dict[str, Any], source: random.Random) -> bytes:
    fields[_name(fields, source)] = "RAW"
    return json_bytes(fields).replace(b'"RAW"', source.choice(NUMBERS).encode())


def _twice(_: str, fields: dict[str, Any], source: random.Random) -> bytes:
    name = source.choice((*fields, "a"))
    extra = json.dumps(name) if source.random() < 0.5 else '"' + "".join(f"\\u{ord(c):04x}" for c in name) + '"'
    return json_bytes(fields)[:-1] + f"{',' if fields else ''}{extra}:1,{extra}:{json.dumps(_odd(source))}}}".encode()


def _byte(_: str, fields: dict[str, Any], source: random.Random) -> bytes:
    body = bytearray(json_bytes(fields))
    for _turn in range(source.randrange(1, 4)):
        body[source.randrange(len(body))] = source.randrange(256)
    return bytes(body)


def _nested(_: str, fields: dict[str, Any], source: random.Random) -> bytes:
    depth = source.choice((1, 5, 6, 7, 8, 9, 50, 2_000))
    opening, closing = source.choice(((b"[", b"]"), (b'{"a":', b"}")))
    return json_bytes(fields)[:-1] + (b"," if fields else b"") + b'"n":' + opening * depth + b"1" + closing * depth + b"}"


# ------------------------------------------------------------------------------------------------------------------- the judge


def may_be_a_withdrawal(body: bytes) -> bool:
    """Whether these bytes can be read as a withdrawal by the written rules alone: failure model, section 7; spec, sections 4.1, 10 and 14."""
    fields = _strict(body)
    if fields is None or {"code", "msg"} <= set(fields) or {"pay_status", "order_type"} <= set(fields):
        return False
    return (
        _is_text(fields.get("merchant_order_id"), 64)
        and _is_text(fields.get("address"), 2_048)
        and _is_text(fields.get("token_id"), 64)
        and re.fullmatch(r"[0-9]{1,60}(\.[0-9]{1,60})?", _source(fields.get("value")), re.ASCII) is not None
        and re.search(r"[1-9]", _source(fields.get("value"))) is not None
        and (fields.get("merchant_pays_fee") in (None, "", True, False) or _source(fields["merchant_pays_fee"]) == "0")
    )


class _Number(str):
    """A number's source text."""

    __slots__ = ()


def _strict(body: bytes) -> dict[str, Any] | None:
    try:
        text = body.decode("utf-8", "strict")
        found = json.loads(text, parse_float=_Number, parse_int=_Number, parse_constant=_never, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or text.startswith("\ufeff") or "\x00" in text or _depth(found) > 8:
        return None
    return None if any(re.search("[\x00-\x1f\x7f-\x9f\ud800-\udfff]", word) for word in _words(found)) else found


def _never(text: str) -> Any:
    raise ValueError(text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("twice")
    return dict(pairs)


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max((_depth(one) for one in inner), default=0)


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _words(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _words(inner)


def _source(value: Any) -> str:
    return str(value) if isinstance(value, str) else ""


def _is_text(value: Any, most: int) -> bool:
    if isinstance(value, _Number):
        return value.isascii() and value.isdigit() and int(value) < 2**53
    return isinstance(value, str) and 0 < len(value) <= most and value.isprintable()
