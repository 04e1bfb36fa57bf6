"""The signature of the wire: the published vectors, the window's edges, and why the construction's weak points do not matter here."""

import hashlib
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.wire_signature import WINDOW_S, is_timely, is_well_formed, matches, sign
from penstock.prove.callers.extension import extend, padding

APP_ID = "202300000000000000000000000000001"
SECRET = "0123456789abcdef0123456789abcdef"
STAMP = "1700000000"
NOW_MS = 1_700_000_000_000

VECTORS = [  # spec, section 2
    (b"", "d3fef38b08b155cc1cd93a9b39d62c069695125e5933a4f4d603b9f3062e4bd4"),
    (b"{}", "f89e3e5fcfe3dd2b01e38973730d2748e054fa1204c5b9c8da73dfa325add236"),
    (b'{"c_id":"9454818"}', "68536c352e3006eefabd4655f54dbf8b0fcaa44b45b5c99e4cf907d10c336df2"),
    (b'{"token_id": "t", "value": "1.5"}', "c476aa2ebe5a6d8115643cd73b3b79bbd00ea8623ecfe853442280131b9fdade"),
    (b'{"product_name":"caf\xc3\xa9"}', "cf0dc9d4b21f2f72c3d6ff4efaa0d243af3cb91710288db949e58d99ef3c3f01"),
]


@pytest.mark.parametrize(("body", "expected"), VECTORS)
def test_the_vectors_of_the_specification(body, expected):
    assert sign(APP_ID, SECRET, STAMP, body) == expected
    assert matches(APP_ID.encode(), SECRET, STAMP.encode(), body, expected.encode())
    assert matches(APP_ID.encode(), SECRET, STAMP.encode(), body, expected.upper().encode())


bodies = st.one_of(st.binary(max_size=300), st.sampled_from([body for body, _ in VECTORS]))


@given(bodies, st.integers(0, 255), st.integers(0, 7))
def test_one_bit_of_signature_body_or_timestamp_decides(body, place, bit):
    signature, stamp = sign(APP_ID, SECRET, STAMP, body), STAMP.encode()
    good = bytes.fromhex(signature)
    bad = bytearray(good)
    bad[place % 32] ^= 1 << bit
    assert not matches(APP_ID.encode(), SECRET, stamp, body, bytes(bad).hex().encode())
    if body:
        other = bytearray(body)
        other[place % len(body)] ^= 1 << bit
        assert not matches(APP_ID.encode(), SECRET, stamp, bytes(other), signature.encode())
    assert not matches(APP_ID.encode(), SECRET, b"1700000001", body, signature.encode())
    assert not matches(APP_ID.encode(), SECRET[:-1] + "0", stamp, body, signature.encode())
    assert not matches(APP_ID.encode()[:-1] + b"2", SECRET, stamp, body, signature.encode())


GOOD = b"a" * 64


@pytest.mark.parametrize("stamp", [b"1700000000", b"0000000000", b"9999999999", b"1700000000.1", b"1700000000.123456789"])
def test_the_only_forms_of_a_timestamp(stamp):
    assert is_well_formed(stamp, GOOD)


@pytest.mark.parametrize(
    "stamp",
    [
        b"", b"170000000", b"17000000000", b"1700000000000", b" 1700000000", b"1700000000 ", b"1700000000\n", b"\n1700000000", b"1700000000.",
        b"1700000000.1234567890", b".1700000000", b"1700000000,5", b"1700000000.5.5", b"+170000000", b"-170000000", b"17e0000000", b"0x70000000",
        b'1700000000{"a":1}', "\u0661700000000".encode(), "\uff11700000000".encode(), b"1700000000\x00", b"1_70000000",
    ],
)  # fmt: skip
def test_any_other_timestamp_is_malformed(stamp):
    assert not is_well_formed(stamp, GOOD)


@pytest.mark.parametrize("signature", [b"a" * 64, b"A" * 64, b"0123456789abcdefABCDEF" + b"0" * 42])
def test_a_signature_is_sixty_four_hex_digits_in_either_case(signature):
    assert is_well_formed(STAMP.encode(), signature)


@pytest.mark.parametrize(
    "signature",
    [b"", b"a" * 63, b"a" * 65, b"g" * 64, b"a" * 63 + b"\n", b"a" * 64 + b"\n", b" " + b"a" * 63, b"0x" + b"a" * 62, b"\xff" * 64],
)
def test_any_other_signature_is_malformed(signature):
    assert not is_well_formed(STAMP.encode(), signature)


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_whatever_is_well_formed_has_the_written_form(stamp, signature):
    good = re.fullmatch(rb"[0-9]{10}(\.[0-9]{1,9})?", stamp) and re.fullmatch(rb"[0-9a-fA-F]{64}", signature)
    assert is_well_formed(stamp, signature) == bool(good)


@pytest.mark.parametrize(
    ("offset_ms", "timely"),
    [
        (0, True), (WINDOW_S * 1000, True), (WINDOW_S * 1000 + 999, True), (WINDOW_S * 1000 + 1000, False), (-WINDOW_S * 1000, True),
        (-WINDOW_S * 1000 - 1, False), (-WINDOW_S * 1000 - 1000, False), (86_400_000, False), (-86_400_000, False),
    ],
)  # fmt: skip
def test_the_window_is_two_minutes_by_whole_seconds_on_both_sides(offset_ms, timely):
    assert is_timely(STAMP.encode(), NOW_MS + offset_ms) == timely
    assert is_timely(STAMP.encode() + b".999999999", NOW_MS + offset_ms) == timely


def test_a_digest_is_continued_as_the_library_would_have_gone_on():
    text, suffix = b"unknown", b"known"
    assert extend(hashlib.sha256(text).hexdigest(), len(text), suffix) == hashlib.sha256(text + padding(len(text)) + suffix).hexdigest()


def strict_object(body):
    """What the entrance takes: strict UTF-8 and one JSON object, or nothing at all."""
    return body == b"" or isinstance(json.loads(body.decode("utf-8", "strict")), dict)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=10), st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    ),
    st.sampled_from([b"", b"}", b',"value":"1000000"}', b'{"merchant_order_id":"forged","value":"1000000"}', b" "]),
    st.booleans(),
)
def test_a_length_extended_body_carries_the_right_signature_and_is_never_utf8(content, suffix, empty):
    body = b"" if empty else json.dumps(content, ensure_ascii=False).encode()
    signature = sign(APP_ID, SECRET, STAMP, body)
    length = len(APP_ID) + len(SECRET) + len(STAMP) + len(body)
    forged_body, forged = body + padding(length) + suffix, extend(signature, length, suffix)
    # The weak point is real ...
    assert matches(APP_ID.encode(), SECRET, STAMP.encode(), forged_body, forged.encode())
    assert is_well_formed(STAMP.encode(), forged.encode())
    # ... and what decodes bodies closes it.
    with pytest.raises(UnicodeDecodeError):
        strict_object(forged_body)


@given(st.integers(0, 40))
def test_a_body_moved_into_the_timestamp_has_the_same_signature_and_a_malformed_timestamp(cut):
    body = b'{"merchant_order_id":"1","value":"1.5"}'
    stamp, rest = STAMP.encode() + body[: max(1, cut)], body[max(1, cut) :]
    assert matches(APP_ID.encode(), SECRET, stamp, rest, sign(APP_ID, SECRET, STAMP, body).encode())
    assert not is_well_formed(stamp, GOOD)


@given(st.integers(1, 9))
def test_digits_moved_from_the_body_into_the_timestamp_leave_no_object_behind(count):
    # "1700000000" + ".5" is a well-formed timestamp; the body it was taken from was no object, and was refused when it was sent.
    fraction = b"." + b"5" * count
    signature = sign(APP_ID, SECRET, STAMP, fraction + b"{}")
    assert is_well_formed(STAMP.encode() + fraction, signature.encode())
    assert matches(APP_ID.encode(), SECRET, STAMP.encode() + fraction, b"{}", signature.encode())
    with pytest.raises(json.JSONDecodeError):
        strict_object(fraction + b"{}")
