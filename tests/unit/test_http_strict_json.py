"""One strict JSON object or a refusal (failure model, section 7; spec, sections 2 and 14)."""

import contextlib
import json
import string
import sys
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.core.errors import Problem, Refused
from penstock.http import strict_json
from penstock.http.strict_json import JsonNumber, parse
from tests.fixtures import slow_json


def refused(body):
    with pytest.raises(Refused) as caught:
        parse(body)
    assert caught.value.problem is Problem.INVALID_ARGUMENT
    assert caught.value.msg.endswith(".")
    caught.value.msg.encode()  # no lone surrogate ever goes out
    return caught.value.msg


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"", {}),
        (b"{}", {}),
        (b" \t\r\n{ } \n", {}),
        (b'{"a": 1}', {"a": JsonNumber("1")}),
        (b'{"a":1.50,"b":-0,"c":1e-07,"d":1E+2}', {n: JsonNumber(t) for n, t in zip("abcd", ("1.50", "-0", "1e-07", "1E+2"), strict=True)}),
        (b'{"a":99999999999999999999}', {"a": JsonNumber("9" * 20)}),
        (b'{"a":-99999999999999999999}', {"a": JsonNumber("-" + "9" * 20)}),
        ('{"a":"é€😀"}'.encode(), {"a": "é€😀"}),
        (b'{"a":"\\u00e9\\u20ac\\ud83d\\ude00\\/\\"\\\\"}', {"a": 'é€😀/"\\'}),
        (b'{"a":"\\\\u0000 \\\\ud800 \\\\n"}', {"a": "\\u0000 \\ud800 \\n"}),  # escaped backslashes, no control characters
        (b'{"a":[true,false,null,{}]}', {"a": [True, False, None, {}]}),
        (b'{"a":"{{{{{{{{{{[[[["}', {"a": "{{{{{{{{{{[[[["}),
    ],
)
def test_what_is_read(body, value):
    assert parse(body) == value


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"\xef\xbb\xbf{}", "character 1"),
        (b"{}\x00", "U+0000"),
        (b'{"a":"\x00"}', "U+0000"),
        (b'{"a":"\\u0000"}', "U+0000"),
        (b'{"a":"\x1f"}', "U+001F"),
        (b'{"a":"\n"}', "control character"),
        (b'{"a":"\\n"}', "U+000A"),
        (b'{"a":["x",{"b":"\\t"}]}', "U+0009"),
        (b'{"\\b":1}', "U+0008"),
        (b'{"a":"\x7f"}', "U+007F"),
        ('{"a":"\x85"}'.encode(), "U+0085"),
        (b'{"a":"\\u009F"}', "U+009F"),
        (b'{"a":"\\u007f"}', "U+007F"),
        (b'{"a":"\\u001b"}', "U+001B"),
        (b'{"a":"\\uDbFf"}', "U+DBFF"),
        (b'{"a":"\\udc00"}', "U+DC00"),
        (b'{"a":"\\ud800"}', "U+D800"),
        (b'{"a":"\\uDFFF"}', "U+DFFF"),
        (b'{"a":"\\ude00\\ud83d"}', "surrogate"),
        (b'{"a":"\xed\xa0\x80"}', "UTF-8"),
        (b'{"a":"\xc0\xaf"}', "UTF-8"),
        (b'{"a":"\xff"}', "UTF-8 at byte 6"),
        (b"{}\x80", "UTF-8"),
        (b"{} {}", "character 4"),
        (b"{}x", "character 3"),
        (b"[]", "one JSON object"),
        (b'"text"', "one JSON object"),
        (b"1", "one JSON object"),
        (b"null", "one JSON object"),
        (b" ", "not valid JSON"),
        (b'{"a":1,"a":1}', "field 'a' twice"),
        (b'{"x":{"a":1,"\\u0061":2}}', "field 'a' twice"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":Infinity}', "Infinity"),
        (b'{"a":-Infinity}', "-Infinity"),
        (b'{"a":100000000000000000000}', "20 digits"),
        (b'{"a":-100000000000000000000}', "20 digits"),
        (b'{"a":01}', "not valid JSON"),
        (b'{"a":.5}', "not valid JSON"),
        (b'{"a":+1}', "not valid JSON"),
        (b'{"a":0x10}', "not valid JSON"),
        ('{"a":\u0661}'.encode(), "not valid JSON"),
        (b"{'a':1}", "not valid JSON"),
        (b'{"a":1,}', "not valid JSON"),
        (b'{"a":1}//', "not valid JSON"),
        (b"c_id=9454818", "not valid JSON"),
        (b'{"a":' * 8 + b"{}" + b"}" * 8, "8 levels"),
        (b'{"a":' + b"[" * 8 + b"]" * 8 + b"}", "8 levels"),
        (b'{"a":' + b"[" * 60_000, "8 levels"),
        (b'{"a":' * 12_000, "8 levels"),
    ],
)
def test_what_is_refused_and_why(body, says):
    assert says in refused(body)


@pytest.mark.parametrize("limit", [400, 100_000])
def test_depth_does_not_depend_on_how_deep_python_may_recurse(limit):
    """Other packages raise Python's limit (py-evm does), and then the decoder alone would go on until the stack ends."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(limit)
    try:
        for opening in (b"[", b'{"a":', b'[{"a":', b'["\\"",'):
            assert "8 levels" in refused(b'{"a":' + opening * (65_000 // len(opening)))
    finally:
        sys.setrecursionlimit(before)


@pytest.mark.parametrize("body", [b'{"' + b'\\"' * 32_000, b'{"' + b"[\\" * 20_000 + b'":1}', b'{"a":[' + b"[]," * 21_000 + b"[]]}"])
def test_hostile_bodies_take_no_longer_than_others(body):
    started = time.process_time()
    with contextlib.suppress(Refused):
        parse(body)
    assert time.process_time() - started < 0.5


def test_eight_levels_pass():
    assert parse(b'{"a":' * 7 + b"{}" + b"}" * 7)
    assert parse(b'{"a":' + b"[" * 7 + b"]" * 7 + b"}")


def test_a_number_is_no_string():
    assert not isinstance(parse(b'{"a":1}')["a"], str)
    assert JsonNumber("1") != "1"
    assert repr(JsonNumber("1")) == "JsonNumber('1')"
    assert len({JsonNumber("1"), JsonNumber("1"), JsonNumber("1.0")}) == 2


def test_the_documents_own_request_is_not_json():
    """The base document prints comments and forgets two commas (spec 16.12)."""
    body = b'{\n  "address": "r",\n  // Pass Cwallet id\n  "merchant_pays_fee": false      \n  "value": "10"\n}'
    assert "not valid JSON" in refused(body)


def plain(value):
    """Ours in the oracle's terms."""
    match value:
        case JsonNumber(text=text):
            return ("number", text)
        case list():
            return [plain(item) for item in value]
        case dict():
            return {name: plain(item) for name, item in value.items()}
        case _:
            return value


def agree(body):
    try:
        expected = slow_json.parse(body)
    except slow_json.NotStrict:
        refused(body)
    else:
        assert plain(parse(body)) == expected


texts = st.text(st.one_of(st.sampled_from('ab"\\/{}[]:, é😀\x7f\x85'), st.characters()), max_size=8)
numbers = st.one_of(st.integers(-(10**22), 10**22), st.floats(allow_nan=True))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=20,
)


@given(st.dictionaries(texts, values, max_size=5), st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_whatever_a_json_writer_writes_is_judged_like_the_grammar(value, ascii_only, indent):
    agree(json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass"))


names = st.sampled_from(["a", "b", "token_id", "value", ""])
pieces = st.sampled_from([*'"\\,:{}[]', " ", "\n", "\t", "\x00", "\x1f", "\x7f", "é", "a", "25", "0x7099", '","', '":"', '","a":"'])
raw_values = st.one_of(
    st.lists(pieces, max_size=4).map(lambda found: f'"{"".join(found)}"'),
    st.sampled_from(["true", "false", "null", "1", "-0", "1e5", "NaN", "{}", "[]", '{"a":"b"}', "True", ""]),
)


@settings(max_examples=1000)
@given(st.lists(st.tuples(names, raw_values), max_size=5))
@example([("a", '"x"'), ("a", '"x"')])
@example([("a", "true"), ("b", '"x"'), ("a", "null")])
@example([("a", '"x\x7f"')])
def test_an_object_of_plain_texts_is_judged_like_any_other(pairs):
    """The shorter way gives what the strict one gives, or leaves the body to it: names that stand twice, and whatever hides in a text."""
    body = ("{" + ",".join(f'"{name}":{value}' for name, value in pairs) + "}").encode()
    agree(body)
    plain_value = strict_json._plain(body)
    assert plain_value is None or plain_value == strict_json._strict(body)


@pytest.mark.parametrize("indent", [None, 1])
def test_a_request_as_every_client_writes_it_takes_the_shorter_way(indent):
    fields = {"token_id": "8e57", "address": "0x7099", "value": "12.5", "merchant_order_id": "n-1", "merchant_pays_fee": True, "memo": None}
    assert strict_json._plain(json.dumps(fields, indent=indent).encode()) == fields


TOKENS = [
    *'{}[]:,"\\ \n',
    *string.digits,
    *"-+.eE",
    "true",
    "false",
    "null",
    "NaN",
    "Infinity",
    "\\u",
    "00",
    "d8",
    "dc",
    "7f",
    "é",
    "\x00",
    "a",
]
TOKENS += [
    '"a"',
    '"a":',
    '{"a":',
    '"\\u0061"',
    '"\\ud83d\\ude00"',
    "1.5",
    "99999999999999999999",
    "1e5",
    "\ufeff",
    "\x85",
    "}}",
    "[[[[[[[[[",
    "]]]",
]


@settings(max_examples=1000)
@given(st.lists(st.sampled_from(TOKENS), max_size=14).map("".join))
@example('{"a":{"a":{"a":{"a":{"a":{"a":{"a":{"a":1}}}}}}}}')
@example('{"a":[[[[[[[[[]]]]]]]]]}')
@example('{"a":"\\ud83d\\\\ude00"}')
@example('{"a":"\\\\\\u0000"}')
@example('{"\\ud800":0}')
def test_pieces_of_json_are_judged_like_the_grammar(text):
    agree(text.encode())
    agree(b'{"k":' + text.encode() + b"}")


@settings(max_examples=300)
@given(st.dictionaries(texts, values, min_size=1, max_size=3), st.data())
def test_one_changed_byte_is_judged_like_the_grammar(value, data):
    body = bytearray(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    agree(bytes(body))


@given(st.binary(max_size=30))
def test_bytes_are_judged_like_the_grammar(body):
    agree(body)
