"""What counts as success, how a send is signed, and how many an endpoint bears at once."""

import base64
import hashlib
import hmac
import itertools
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.party import Merchant, Secret
from penstock.core.snowflake import compose, wire_id
from penstock.webhooks.deliver import AT_ONCE_MAX, DEADLINE_S, SCHEDULE_S, Gate, Reply, accepted, signed_headers
from penstock.webhooks.outbox import LEASE_MS, Event

SUCCESS = [
    "success", "Success", "SUCCESS\n", "  success\r\n", "\ufeffsuccess", '"success"', '{"msg":"success"}', '{"msg":"Success"}',
    '{"code":10000,"data":{"status":"success"}}', '["success"]', '{"success":true}', '{"success":"true"}', '{"success":1}',
    "<html>Success</html>", "ok, success!", "result=success", '{"msg":"webhook success"}', "success\x00", "{success}", '{"a":"success"',
]  # fmt: skip
FAILURE = [
    "", "ok", "unsuccessful", "successful", "no_success", "success1", "succes", '{"success":false}', '{"success":null}', '{"success":0}',
    '{"msg":"unsuccessful"}', "{}", "[]", "null", "200", '{"success":{"of":"nothing"}}', "s u c c e s s", "[" * 100_000, "9" * 10_000,
    '{"a":' * 20 + '"success"' + "}" * 20,
]  # fmt: skip


@pytest.mark.parametrize("text", SUCCESS)
def test_success(text):
    assert accepted(Reply(200, text))
    assert not accepted(Reply(201, text))
    assert not accepted(Reply(302, text))
    assert not accepted(Reply(500, text))


@pytest.mark.parametrize("text", FAILURE, ids=range(len(FAILURE)))
def test_no_success(text):
    assert not accepted(Reply(200, text))


def test_deep_nesting_is_not_parsed_whatever_the_recursion_limit_is():
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000_000)
    try:
        for opening in ("[", '{"a":'):
            assert not accepted(Reply(200, opening * 10_000))
            assert accepted(Reply(200, opening * 10_000 + '"success"'))
    finally:
        sys.setrecursionlimit(before)


@given(st.text(), st.integers(100, 599))
def test_no_answer_breaks_the_judgement(text, status):
    assert accepted(Reply(status, text)) in (True, False)


APP_ID, SECRET, BODY = "202300000000000000000000000000001", "0123456789abcdef0123456789abcdef", b'{"c_id":"9454818"}'


def headers(*secrets, tries=0, body=BODY):
    merchant = Merchant(1, "Shop", APP_ID, tuple(Secret(text) for text in secrets), "https://shop.example/")
    return signed_headers(merchant, Event(compose(1_700_000_000_000, 1, 1), 1, "", 0, tries, ""), body, 1_700_000_000_999)


def test_the_signature_is_the_one_of_the_specification():
    made = headers(SECRET)
    assert made["Sign"] == "68536c352e3006eefabd4655f54dbf8b0fcaa44b45b5c99e4cf907d10c336df2"
    assert (made["Appid"], made["Timestamp"]) == (APP_ID, "1700000000")
    assert made["Content-Type"] == "application/json; charset=utf-8"
    cafe = headers(SECRET, body='{"product_name":"café"}'.encode())
    assert cafe["Sign"] == "cf0dc9d4b21f2f72c3d6ff4efaa0d243af3cb91710288db949e58d99ef3c3f01"


def standard_webhooks_verify(secret, made, body):
    """The rules of https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md, written afresh."""
    signed = b".".join([made["Webhook-Id"].encode(), made["Webhook-Timestamp"].encode(), body])
    expected = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    offered = [part.split(",", 1) for part in made["Webhook-Signature"].split(" ")]
    return any(version == "v1" and hmac.compare_digest(expected, signature) for version, signature in offered)


def test_standard_webhooks_headers_verify_with_each_valid_secret_and_no_other():
    made = headers("new", "old")
    assert made["Webhook-Id"] == wire_id(compose(1_700_000_000_000, 1, 1))
    assert standard_webhooks_verify(b"new", made, BODY)
    assert standard_webhooks_verify(b"old", made, BODY)
    assert not standard_webhooks_verify(b"other", made, BODY)
    assert not standard_webhooks_verify(b"new", made, BODY + b" ")


def test_during_a_rotation_every_second_send_fits_the_secret_that_the_receiver_has():
    def plain(secret):
        return hashlib.sha256(f"{APP_ID}{secret}1700000000".encode() + BODY).hexdigest()

    assert [headers("new", "old", tries=n)["Sign"] for n in range(3)] == [plain("new"), plain("old"), plain("new")]


def test_the_schedule_is_7_sends_within_30_minutes_and_16_within_96_hours():
    at = [0, *itertools.accumulate(SCHEDULE_S)]
    assert len(at) == 16
    assert at[6] + 6 * DEADLINE_S < 30 * 60 < at[7]
    assert at[15] + 15 * DEADLINE_S < 96 * 3600
    assert 0.9 * at[15] > 72 * 3600
    assert LEASE_MS >= (DEADLINE_S + 5) * 1000


def test_an_endpoint_begins_with_2_doubles_to_64_and_halves():
    gate = Gate()
    seen = []
    for _ in range(200):
        gate.finished(delivered=True)
        seen.append(gate.at_once)
    assert [next(n for n, at_once in enumerate(seen, 1) if at_once == size) for size in (4, 8, 16, 32, 64)] == [2, 6, 14, 30, 62]
    assert max(seen) == AT_ONCE_MAX
    for size in (32, 16, 8, 4, 2, 1, 1):
        gate.finished(delivered=False)
        assert (gate.at_once, gate.proven) == (size, False)


def test_another_url_is_another_endpoint():
    gate = Gate()
    gate.leads_to("https://a.example/")
    for _ in range(10):
        gate.finished(delivered=True)
    gate.leads_to("https://a.example/")
    assert gate.at_once == 8
    gate.leads_to("https://b.example/")
    assert (gate.at_once, gate.proven) == (2, False)
