"""One JSON object from raw bytes, or a refusal (failure model, section 7, points 3 and 5; spec, section 2).

The standard decoder does the work; its hooks and a few scans of the text make it strict. A plain body takes a shorter way to the same
value. A body that was lengthened by SHA-256's length extension holds 0x80 and is never valid UTF-8; that is why the encoding is checked
first and nothing is ever replaced.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeAlias

import msgspec

from penstock.core.errors import Problem, Refused

DEPTH_MAX: Final = 8
"""The outer object counts as 1."""

INTEGER_DIGITS_MAX: Final = 20

_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""Raw, anywhere in the text. Tab, line feed and carriage return may stand between values; within strings the decoder refuses them."""

_SUSPECT: Final = re.compile(r"\\(?:[bfnrt]|u00[01789]|u[dD][89a-fA-F])")
"""An escape that may make a control character or a lone surrogate: then, and only then, each string is looked at."""

_BRACKET: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
"""A bracket, or a string that may hide some. A string that never ends goes to the end of the text, so the scan is linear."""

_NOT_TEXT: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class JsonNumber:
    """A number as its source text: it never becomes a float, and never passes for a string."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JsonNumber) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"JsonNumber({self.text!r})"


JsonValue: TypeAlias = "str | JsonNumber | bool | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject: TypeAlias = dict[str, JsonValue]


def parse(body: bytes) -> JsonObject:
    """The object that `body` holds; an empty body is an empty object (spec 14.7). Raises Refused, 11000."""
    if not body:
        return {}
    return _plain(body) or _strict(body)


def _plain(body: bytes) -> JsonObject | None:
    """What nearly every request is, at a third of the cost: texts and flags by name, in ASCII, nothing escaped. None for all else."""
    if not body.isascii() or b"\\" in body or b"\x7f" in body:
        return None
    try:
        found: JsonObject = _decode_plain(body)
    except msgspec.MsgspecError:
        return None
    # Without escapes a quote only begins or ends a text. So a name that stands twice, of which one is left, shows in their number.
    texts = len(found) + [*map(type, found.values())].count(str)
    return found if body.count(b'"') == 2 * texts else None


def _strict(body: bytes) -> JsonObject:
    """Judges all there is, and says what is wrong."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        _refuse(f"The body is not valid UTF-8 at byte {error.start}.", error)
    if (found := _CONTROL.search(text)) is not None:
        _refuse(f"The body holds the control character U+{ord(found[0]):04X}, which text may not contain.")
    # Before the decoder sees it: how deep that one may recurse is up to whoever else runs in this process. Brackets inside strings
    # count too in the first look; a false alarm only costs the second.
    if text.count("{") + text.count("[") > DEPTH_MAX and _depth(text) > DEPTH_MAX:
        _refuse(f"The body is nested deeper than {DEPTH_MAX} levels.")
    try:
        value = _decode(text)
    except json.JSONDecodeError as error:
        _refuse(f"The body is not valid JSON at character {error.pos + 1}: {error.msg}.", error)
    if type(value) is not dict:
        _refuse("The body must be one JSON object, such as {} or one with the call's fields.")
    if _SUSPECT.search(text) is not None:
        _look_at(value)
    return value


def _refuse(msg: str, cause: BaseException | None = None) -> NoReturn:
    raise Refused(Problem.INVALID_ARGUMENT, msg) from cause


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                _refuse(f"The body holds the field {name[:64]!a} twice; each field may stand once.")
            seen.add(name)
    return found


def _integer(text: str) -> JsonNumber:
    if len(text) > INTEGER_DIGITS_MAX and len(text.lstrip("-")) > INTEGER_DIGITS_MAX:
        _refuse(f"The body holds an integer of more than {INTEGER_DIGITS_MAX} digits; send long numbers as strings.")
    return JsonNumber(text)


def _constant(text: str) -> NoReturn:
    _refuse(f"The body holds {text}, which is not JSON.")


_decode_plain: Final[Callable[[bytes], Any]] = msgspec.json.Decoder(dict[str, str | bool | None]).decode
_decode: Final = json.JSONDecoder(object_pairs_hook=_object, parse_float=JsonNumber, parse_int=_integer, parse_constant=_constant).decode


def _depth(text: str) -> int:
    """How deep the brackets outside strings go, at least up to one more than allowed."""
    depth = deepest = 0
    for token in _BRACKET.finditer(text):
        if token[0] in "{[":
            depth += 1
            deepest = max(deepest, depth)
            if deepest > DEPTH_MAX:
                break
        elif token[0] in "}]":
            depth -= 1
    return deepest


def _look_at(value: JsonValue) -> None:
    match value:
        case str():
            if (found := _NOT_TEXT.search(value)) is not None:
                _refuse(f"A text in the body holds U+{ord(found[0]):04X}: control characters and lone surrogates are not allowed.")
        case dict() | list():
            for inner in value:
                _look_at(inner)
            if isinstance(value, dict):
                for inner in value.values():
                    _look_at(inner)
        case _:
            pass
