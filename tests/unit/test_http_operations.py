"""Health, readiness, metrics, and our own description of the API, held against what the API does."""

import json

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.core import NotSet
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from penstock.http.app import PREFIX, handlers
from penstock.http.openapi import document
from penstock.http.operations import PATHS
from tests.fixtures.api import APP_ID, ENDPOINTS, SECRET, V1, VALID, an_order


def test_alive(api):
    reply = api.get("/healthz")
    assert (reply.status, reply.json, reply.is_signed) == (200, {"status": "ok"}, False)


def test_ready_with_warnings(api):
    reply = api.get("/readyz")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json; charset=utf-8")
    assert reply.json == {"ready": True, "reasons": [], "warnings": ["prices come from a file and do not age"]}


def test_not_ready_says_why(api):
    api.house.unready = ["there is no fee estimate for ETH yet"]
    reply = api.get("/readyz")
    assert (reply.status, reply.json["ready"], reply.json["reasons"]) == (503, False, ["there is no fee estimate for ETH yet"])


def test_readiness_that_cannot_be_told_is_not_ready(api):
    api.house.raises = RuntimeError(SECRET)
    reply = api.get("/readyz")
    assert (reply.status, reply.json["reasons"]) == (503, ["readiness cannot be told: RuntimeError"])


@pytest.mark.parametrize("path", sorted(PATHS))
def test_these_pages_are_only_read(api, path):
    head = api.get(path, "HEAD")
    assert (head.status, head.body) == (200, b"")
    for method in ("POST", "PUT", "DELETE"):
        assert api.get(path, method).status == 404


def test_requests_are_counted_by_path_and_code_and_timed(api):
    for _ in range(3):
        api.post("/coin/all")
    api.post("/coin/all/", signature="0" * 64)
    api.post("/check/user", {"c_id": "1"})
    api.send("GET", "/wp-login.php")
    page = api.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    text = page.body.decode()
    for line in (
        'penstock_http_requests_total{code="10000",path="/coin/all"} 3.0',
        'penstock_http_requests_total{code="11005",path="/coin/all"} 1.0',
        'penstock_http_requests_total{code="224083",path="/check/user"} 1.0',
        'penstock_http_requests_total{code="11003",path="other"} 1.0',
        'penstock_http_request_seconds_count{path="/coin/all"} 4.0',
    ):
        assert line in text
    assert "wp-login" not in text
    assert APP_ID not in text


def test_the_metrics_of_two_applications_do_not_mix(api):
    api.post("/coin/all")
    api.limit()
    assert b'path="/coin/all"' not in api.get("/metrics").body


# ------------------------------------------------------------------------------------------------------------------ lifespan


def test_a_server_that_asks_about_start_and_stop_is_answered(api):
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message["type"])

    api._runner.run(api.app({"type": "lifespan"}, receive, send))
    api._runner.run(api.app({"type": "websocket"}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


# ------------------------------------------------------------------------------------------------------------------- openapi


def test_the_description_is_served_and_names_every_path(api):
    served = api.get("/openapi.json").json
    assert served == document()
    assert set(served["paths"]) == {PREFIX + path for path in handlers()} | PATHS
    assert set(handlers()) == set(ENDPOINTS)


SCHEMA = schemathesis.openapi.from_dict(document())
OPERATIONS = {f"{found.ok().method.upper()} {found.ok().path}": found.ok() for found in SCHEMA.get_all_operations()}
CHECKS = [status_code_conformance, content_type_conformance, response_headers_conformance, response_schema_conformance]
GENTLE = settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much]
)


def as_bytes(body):
    if isinstance(body, NotSet):
        return b""
    return body if isinstance(body, bytes) else json.dumps(body, default=repr).encode()


def conforms(case, reply):
    """What was answered is what the description says."""
    seen = requests.Request(case.method, f"http://penstock.invalid{case.path}").prepare()
    headers = {name: [value] for name, value in reply.headers.items()}
    case.validate_response(
        schemathesis.Response(status_code=reply.status, headers=headers, content=reply.body, request=seen, elapsed=0.0, verify=True),
        checks=CHECKS,
    )


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["as described", "otherwise"])
@pytest.mark.parametrize("name", [name for name in OPERATIONS if name.startswith("POST")])
def test_whatever_is_sent_the_answer_is_as_described(api, name, mode):
    operation = OPERATIONS[name]
    path = operation.path.removeprefix(V1)
    api.house.orders[1, "0"] = an_order(merchant_order_id="0")

    @GENTLE
    @given(operation.as_strategy(generation_mode=mode))
    def check(case):
        raw = as_bytes(case.body)
        reply = api.post(path, raw)
        conforms(case, reply)
        assert reply.is_signed_with(SECRET) or reply.status == 413
        assert reply.json["code"] != 224066
        conforms(case, api.post(path, raw, signature="0" * 64))

    check()


@pytest.mark.parametrize("path", ENDPOINTS)
def test_a_valid_call_is_valid_by_the_description_too(api, path):
    """So the description is not so wide that everything fits it."""
    operation = OPERATIONS[f"POST {V1}{path}"]
    api.house.orders[1, "order-1"] = an_order()

    @settings(max_examples=1)
    @given(operation.as_strategy(), st.just(VALID[path]))
    def check(case, body):
        reply = api.post(path, body)
        assert reply.code in (10000, 11013)
        conforms(case, reply)

    check()


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name.startswith("GET")])
def test_the_pages_are_as_described(api, name):
    operation = OPERATIONS[name]

    @settings(max_examples=1)
    @given(operation.as_strategy())
    def check(case):
        for api.house.unready in ([], ["a reason"]):
            conforms(case, api.get(operation.path))

    check()


def test_the_metrics_show_what_waits(api):
    assert b'penstock_waiting{kind="order",state="held"} 3.0' in api.get("/metrics").body
