"""Who is let in, what strangers learn, and what is signed (spec 1, 1.3, 2, 8; failure model, section 7)."""

import dataclasses
import hashlib

import pytest
from structlog.testing import capture_logs

from penstock.core.errors import Problem, Refused
from penstock.core.party import Merchant, Secret
from penstock.core.wire_signature import matches, sign
from penstock.http.limiter import Sources, TokenBuckets, bucket_key
from tests.fixtures.api import APP_ID, ENDPOINTS, NOW_S, SECRET, V1, VALID, WITHDRAWAL

VECTORS = [
    (b"", "d3fef38b08b155cc1cd93a9b39d62c069695125e5933a4f4d603b9f3062e4bd4"),
    (b"{}", "f89e3e5fcfe3dd2b01e38973730d2748e054fa1204c5b9c8da73dfa325add236"),
    (b'{"c_id":"9454818"}', "68536c352e3006eefabd4655f54dbf8b0fcaa44b45b5c99e4cf907d10c336df2"),
    (b'{"token_id": "t", "value": "1.5"}', "c476aa2ebe5a6d8115643cd73b3b79bbd00ea8623ecfe853442280131b9fdade"),
    ('{"product_name":"café"}'.encode(), "cf0dc9d4b21f2f72c3d6ff4efaa0d243af3cb91710288db949e58d99ef3c3f01"),
]

OTHER = "f" * 64


@pytest.mark.parametrize(("body", "signature"), VECTORS)
def test_published_vectors_are_made_and_verified(api, body, signature):
    assert sign(APP_ID, SECRET, "1700000000", body) == signature
    assert matches(APP_ID.encode(), SECRET, b"1700000000", body, signature.encode())
    assert api.post("/coin/all", body, timestamp="1700000000", signature=signature).code == 10000


@pytest.mark.parametrize(("body", "signature"), VECTORS)
def test_an_upper_case_signature_is_accepted(api, body, signature):
    assert api.post("/coin/all", body, timestamp="1700000000", signature=signature.upper()).code == 10000


def stranger(api):
    """What everybody is told who did not prove a secret."""
    reply = api.post("/coin/all", signature=OTHER)
    assert (reply.status, reply.code, reply.json["reason"], reply.json["data"]) == (200, 11005, "VerifySignFailed", None)
    return reply


STRANGERS = {
    "no headers": {"without": ("appid", "timestamp", "sign")},
    "no app id": {"without": ("appid",)},
    "no timestamp": {"without": ("timestamp",)},
    "no signature": {"without": ("sign",)},
    "an unknown app id": {"app_id": "202300000000000000000000000000002"},
    "an app id that cannot be one": {"app_id": "x" * 65},
    "an app id with a slash": {"app_id": "../1"},
    "an empty app id": {"app_id": ""},
    "another secret": {"secret": OTHER},
    "a wrong signature": {"signature": OTHER},
    "a short signature": {"signature": "f" * 63},
    "a signature that is not hex": {"signature": "g" * 64},
    "a signature with a space": {"signature": "f" * 64 + " "},
    "a signature in bytes above ASCII": {"signature": "é" * 64},
    "a timestamp in milliseconds": {"timestamp": "1700000000000"},
    "a timestamp with a sign": {"timestamp": "+1700000000"},
    "a timestamp with a space": {"timestamp": " 1700000000"},
    "a timestamp with an exponent": {"timestamp": "1.7e9"},
    "a timestamp of ten digits and a point": {"timestamp": "1700000000."},
    "a timestamp with a long fraction": {"timestamp": "1700000000.1234567890"},
    "a timestamp with a line feed": {"timestamp": "1700000000\n"},
    "a timestamp that holds the body": {"timestamp": "1700000000{}"},
    "a second app id": {"extra": (("Appid", APP_ID),)},
    "a second signature": {"extra": (("Sign", OTHER),)},
    "a second timestamp": {"extra": (("Timestamp", str(NOW_S)),)},
    "two lengths": {"extra": (("Content-Length", "0"),)},
    "a length and chunks": {"extra": (("Transfer-Encoding", "chunked"),)},
}


@pytest.mark.parametrize("how", STRANGERS.values(), ids=STRANGERS)
def test_everybody_who_proves_no_secret_gets_one_constant_unsigned_answer(api, how):
    reply = api.post("/coin/all", **how)
    constant = stranger(api)
    assert (reply.status, reply.headers, reply.body) == (constant.status, constant.headers, constant.body)
    assert not reply.is_signed
    assert api.house.effects == []


@pytest.mark.parametrize("path", ENDPOINTS)
def test_no_endpoint_acts_for_a_stranger(api, path):
    assert api.post(path, VALID[path], signature=OTHER).body == stranger(api).body
    assert api.house.effects == []


def test_a_stranger_learns_nothing_about_body_age_or_merchant(api):
    constant = stranger(api).body
    api.house.merchants[APP_ID] = dataclasses.replace(api.house.merchants[APP_ID], disabled=True, ip_allow=("203.0.113.9",))
    assert api.post("/withdraw", b"\xff not json", signature=OTHER).body == constant
    assert api.post("/withdraw", WITHDRAWAL, timestamp="1600000000", signature=OTHER).body == constant


def test_a_merchant_without_secrets_lets_nobody_in(api):
    api.house.merchants[APP_ID] = dataclasses.replace(api.house.merchants[APP_ID], secrets=())
    assert api.post("/coin/all", secret="0" * 64).body == stranger(api).body


def test_what_cannot_be_an_app_id_is_not_looked_up(api):
    asked = []

    async def by_app_id(app_id: str) -> None:
        asked.append(app_id)

    api.house.by_app_id = by_app_id
    api.limit()
    for app_id in ("", "x" * 65, "a b", "a'--", "é", "1\n", APP_ID):
        assert api.post("/coin/all", app_id=app_id).code == 11005
    assert asked == [APP_ID]


def test_the_signature_covers_the_raw_bytes(api):
    spaced = b'{ "c_id" :\t"9454818" , "x": "\\u00e9 \\/" }\r\n'
    assert api.post("/check/user", spaced).code == 10000
    assert api.post("/check/user", spaced, signature=sign(APP_ID, SECRET, str(NOW_S), spaced.strip())).code == 11005


def test_an_extended_body_is_refused(api):
    """Length extension: whoever knows one signature can sign that text, padding, and more, without the secret."""
    known = (APP_ID + SECRET + str(NOW_S)).encode() + b"{}"
    padding = b"\x80" + b"\x00" * ((55 - len(known)) % 64) + (8 * len(known)).to_bytes(8, "big")
    forged = b"{}" + padding + b'{"c_id":"9454818"}'
    whole = hashlib.sha256((APP_ID + SECRET + str(NOW_S)).encode() + forged).hexdigest()
    for path in ENDPOINTS:
        reply = api.post(path, forged, signature=whole)
        assert reply.code == 11000
        assert "UTF-8" in reply.msg


def test_both_secrets_are_valid_in_a_rotation_and_the_answer_takes_the_one_that_matched(api):
    new = "e" * 64
    api.house.merchants[APP_ID] = dataclasses.replace(api.house.merchants[APP_ID], secrets=(Secret(new), Secret(SECRET)))
    assert api.post("/coin/all", secret=new).is_signed_with(new)
    assert api.post("/coin/all", secret=SECRET).is_signed_with(SECRET)
    assert not api.post("/coin/all", secret="d" * 64).is_signed


@pytest.mark.parametrize("path", ENDPOINTS)
def test_every_answer_to_a_true_signature_is_signed_success_or_not(api, path):
    for body in (VALID[path], {"code": 1, "msg": ""}, b"nonsense"):
        reply = api.post(path, body)
        assert reply.status == 200
        assert reply.is_signed_with(SECRET)
        assert reply.headers["appid"] == APP_ID
        assert reply.headers["timestamp"] == str(NOW_S)
        assert reply.headers["content-type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize(("age", "code"), [(-121, 11006), (-120, 10000), (0, 10000), (120, 10000), (121, 11006), (10_000, 11006)])
def test_a_timestamp_may_be_120_seconds_off_and_a_late_one_is_told_so_signed(api, age, code):
    reply = api.post("/coin/all", timestamp=str(NOW_S + age))
    assert reply.code == code
    assert reply.is_signed_with(SECRET)
    if code == 11006:
        assert str(NOW_S) in reply.msg


@pytest.mark.parametrize("timestamp", ["1700000000.5", "1700000000.123456789", "1700000120.999999"])
def test_a_float_timestamp_is_signed_as_text_and_judged_by_its_integer_part(api, timestamp):
    assert api.post("/coin/all", timestamp=timestamp).code == 10000


def test_age_comes_before_state_and_state_before_the_body(api):
    api.house.merchants[APP_ID] = dataclasses.replace(api.house.merchants[APP_ID], disabled=True)
    assert api.post("/withdraw", b"nonsense", timestamp="1600000000").code == 11006
    assert api.post("/withdraw", b"nonsense").code == 12000
    assert api.post("/withdraw", WITHDRAWAL).is_signed_with(SECRET)
    assert api.house.effects == []


def test_an_allow_list_admits_addresses_and_networks(api):
    api.house.merchants[APP_ID] = dataclasses.replace(api.house.merchants[APP_ID], ip_allow=("192.0.2.7", "2001:db8::/32"))
    assert api.post("/coin/all").code == 10000
    assert api.post("/coin/all", client=("::ffff:192.0.2.7", 1)).code == 10000
    assert api.post("/coin/all", client=("2001:db8:1::9", 1)).code == 10000
    refused = api.post("/coin/all", client=("192.0.2.8", 1))
    assert (refused.code, refused.is_signed) == (12002, True)
    assert "192.0.2.8" in refused.msg
    assert api.post("/coin/all", client=None).code == 12002


@pytest.mark.parametrize("form", ["", "/"])
@pytest.mark.parametrize("path", ENDPOINTS)
def test_each_path_works_with_and_without_a_slash_and_only_as_post(api, path, form):
    assert api.post(path + form, VALID[path]).is_signed
    for method in ("GET", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH"):
        reply = api.send(method, V1 + path + form)
        assert (reply.status, reply.is_signed) == (404, False)


@pytest.mark.parametrize("path", ["", "/", "/withdrawal", "/withdraw//", "/Withdraw", "/pay/CreateTokenTradeOrder", "/withdraw/x"])
def test_unknown_paths_are_a_constant_404(api, path):
    reply = api.post(path, WITHDRAWAL)
    assert (reply.status, reply.code, reply.is_signed) == (404, 11003, False)
    assert reply.body == api.send("GET", "/anything").body


def test_64_kib_pass_and_one_more_byte_does_not(api):
    body = b'{"x":"' + b"a" * (65_536 - 8) + b'"}'
    assert len(body) == 65_536
    for chunk in (1 << 20, 1000):
        assert api.post("/coin/all", body, chunk=chunk).code == 10000
        for without in ((), ("content-length",)):
            large = api.post("/coin/all", body + b" ", chunk=chunk, without=without)
            assert (large.status, large.is_signed, large.headers["connection"]) == (413, False, "close")


def test_a_body_that_is_announced_too_large_is_not_read(api):
    start, _ = api.exchange("POST", V1 + "/coin/all", [], [("content-length", "65537")])
    assert start["status"] == 413


def test_a_body_in_chunks_is_one_body(api):
    assert api.post("/check/user", {"c_id": "9454818"}, chunk=3).code == 10000


def test_a_caller_who_goes_away_gets_no_answer(api):
    assert api.exchange("POST", V1 + "/coin/all", [{"type": "http.disconnect"}]) == []
    half = {"type": "http.request", "body": b"{", "more_body": True}
    assert api.exchange("POST", V1 + "/coin/all", [half, {"type": "http.disconnect"}]) == []


def test_a_body_that_does_not_come_is_not_waited_for_for_ever(api):
    api.limit(body_seconds_max=0)
    start, _ = api.exchange("POST", V1 + "/coin/all", [])
    assert start["status"] == 408


def test_a_content_encoding_is_refused_to_a_known_caller(api):
    reply = api.post("/coin/all", extra=(("Content-Encoding", "gzip"),))
    assert (reply.code, reply.is_signed) == (11001, True)
    assert api.post("/coin/all", extra=(("Content-Encoding", "gzip"),), signature=OTHER).body == stranger(api).body


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json;charset=uf8", b"{}"),
        ("application/x-www-form-urlencoded", b""),
        ("application/json; charset=utf-16", b"{}"),
        ("multipart/form-data; boundary=x", b"{}"),
        ("text/html", b"{}"),
    ],
)
def test_the_content_type_is_never_judged(api, kind, body):
    assert api.post("/assets", body, extra=(("Content-Type", kind),)).code == 10000


def test_form_fields_are_no_fields(api):
    assert api.post("/check/user", b"c_id=9454818", extra=(("Content-Type", "application/x-www-form-urlencoded"),)).code == 11000


# ------------------------------------------------------------------------------------------------------------ when it fails


def test_a_surprise_is_a_signed_service_error_and_leaks_nothing(api):
    api.house.raises = RuntimeError(f"secret {SECRET} in the text")
    with capture_logs() as logs:
        reply = api.post("/withdraw", WITHDRAWAL)
    assert (reply.status, reply.code, reply.msg) == (200, 224066, "Service error, please try again")
    assert reply.is_signed_with(SECRET)
    assert [entry["event"] for entry in logs] == ["http.request.failed"]
    assert SECRET not in repr(logs)
    assert logs[0]["error"] == "RuntimeError"
    assert any("withdraw" in place for place in logs[0]["place"])


def test_when_credentials_cannot_be_looked_up_nothing_is_signed(api):
    async def by_app_id(app_id: str) -> Merchant:
        raise ConnectionError(app_id)

    api.house.by_app_id = by_app_id
    api.limit()
    with capture_logs() as logs:
        reply = api.post("/coin/all")
    assert (reply.status, reply.code, reply.is_signed, reply.headers["retry-after"]) == (503, 224066, False, "1")
    assert APP_ID not in repr(logs)


@pytest.mark.parametrize("problem", Problem)
def test_each_refusal_of_a_room_goes_out_as_it_is(api, problem):
    api.house.raises = Refused(problem, "This is wrong, that would be right.", retry_after_s=7 if problem is Problem.RATE_LIMIT else None)
    reply = api.post("/withdraw", WITHDRAWAL)
    assert reply.json == {"code": problem.code, "reason": problem.reason, "msg": "This is wrong, that would be right.", "data": None}
    assert reply.is_signed_with(SECRET)
    assert reply.headers.get("retry-after") == ("7" if problem is Problem.RATE_LIMIT else None)


# ------------------------------------------------------------------------------------------------------------------- limits


def test_a_source_that_asks_too_often_is_refused_unsigned_and_recovers(api):
    api.limit(requests_per_second=5)
    replies = [api.post("/coin/all", signature=OTHER) for _ in range(6)]
    assert [reply.code for reply in replies] == [11005] * 5 + [11004]
    assert (replies[5].status, replies[5].headers["retry-after"], replies[5].is_signed) == (200, "1", False)
    assert api.post("/coin/all", signature=OTHER, client=("192.0.2.8", 1)).code == 11005
    api.runtime.seconds += 0.2
    assert api.post("/coin/all").code == 10000
    assert api.post("/coin/all").code == 11004
    api.runtime.seconds += 3600
    assert [api.post("/coin/all").code for _ in range(6)] == [10000] * 5 + [11004]


def test_a_merchant_who_asks_too_often_from_many_addresses_is_refused_signed(api):
    api.limit(requests_per_second=5)
    api.house.merchants["2" * 33] = Merchant(2, "Other", "2" * 33, (Secret(SECRET),), "")
    replies = [api.post("/withdraw", WITHDRAWAL, client=(f"192.0.2.{n}", 1)) for n in range(6)]
    assert [reply.code for reply in replies] == [10000] * 5 + [11004]
    assert replies[5].is_signed_with(SECRET)
    assert replies[5].headers["retry-after"] == "1"
    assert len(api.house.effects) == 5
    assert api.post("/coin/all", app_id="2" * 33, client=("192.0.2.99", 1)).code == 10000


def test_zero_is_no_limit(api):
    api.limit(requests_per_second=0)
    assert {api.post("/coin/all", signature=OTHER).code for _ in range(300)} == {11005}


def test_the_limiter_forgets_the_longest_unused(api):
    buckets = TokenBuckets(1, keys_max=3)
    assert [buckets.take(key, 0.0) for key in "abca"] == [True, True, True, False]
    assert buckets.take("d", 0.0)
    assert len(buckets) == 3
    assert not buckets.take("a", 0.0)
    assert buckets.take("b", 0.0)


def test_a_clock_that_goes_back_takes_nothing_away_for_ever():
    buckets = TokenBuckets(10, keys_max=3)
    assert buckets.take("a", 100.0)
    buckets.take("a", 99.0)
    assert buckets.take("a", 100.0)


PROXIES = Sources(("10.0.0.0/8", "2001:db8::/64"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "source"),
    [
        ("192.0.2.7", [], "192.0.2.7"),
        ("192.0.2.7", [b"203.0.113.1"], "192.0.2.7"),  # not a proxy of ours: its word does not count
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [b"203.0.113.1"], "203.0.113.1"),
        ("10.0.0.1", [b"203.0.113.66, 203.0.113.1"], "203.0.113.1"),  # the left one is what the client wrote
        ("10.0.0.1", [b"203.0.113.66", b"203.0.113.1 , 10.2.3.4"], "203.0.113.1"),
        ("10.0.0.1", [b"10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        ("10.0.0.1", [b"203.0.113.1, rubbish, 10.2.2.2"], "10.2.2.2"),
        ("10.0.0.1", [b""], "10.0.0.1"),
        ("10.0.0.1", [b"203.0.113.1:4711"], "203.0.113.1"),
        ("10.0.0.1", [b"[2001:db8:1::1]:4711"], "2001:db8:1::1"),
        ("2001:db8::1", [b"::ffff:203.0.113.1"], "203.0.113.1"),
        ("::ffff:10.0.0.1", [b"203.0.113.1"], "203.0.113.1"),
        ("", [b"203.0.113.1"], ""),
        ("10.0.0.1", [b"\xff\xfe"], "10.0.0.1"),
    ],
)
def test_only_trusted_proxies_name_the_source(peer, forwarded, source):
    assert PROXIES.of(peer, forwarded) == source


def test_nobody_is_trusted_by_default():
    assert Sources(()).of("127.0.0.1", [b"203.0.113.1"]) == "127.0.0.1"


def test_a_wrong_proxy_is_said_at_the_start(api):
    with pytest.raises(ValueError, match="proxy"):
        api.limit(trusted_proxies=("proxy.example",))


def test_limit_and_allow_list_see_the_forwarded_address(api):
    api.limit(requests_per_second=2, trusted_proxies=("192.0.2.7",))
    api.house.merchants[APP_ID] = dataclasses.replace(api.house.merchants[APP_ID], ip_allow=("203.0.113.1",))
    ahead = (("X-Forwarded-For", "203.0.113.1"),)
    assert [api.post("/coin/all", extra=ahead).code for _ in range(3)] == [10000, 10000, 11004]
    assert api.post("/coin/all", extra=(("X-Forwarded-For", "203.0.113.2"),)).code == 12002


def test_one_ipv6_customer_is_one_source():
    assert bucket_key("2001:db8:1:2::1") == bucket_key("2001:db8:1:2:ffff::9") != bucket_key("2001:db8:1:3::1")
    assert bucket_key("::ffff:192.0.2.7") == bucket_key("192.0.2.7") == "192.0.2.7"
