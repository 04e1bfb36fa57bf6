"""Schemathesis against the description that the running program serves at /openapi.json: whatever is sent, answers are as described."""

import hypothesis
import pytest
import requests
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.fixtures.api import ENDPOINTS
from tests.fixtures.gateway import V1, Gateway, Merchant

CONFORMS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
"""All but those that expect HTTP 4xx for what is refused: here the outcome stands in `code` (spec, section 1)."""


@pytest.fixture(scope="module")
def merchant(gateway: Gateway) -> Merchant:
    return gateway.merchant(USDT="100", ETH="1")


@pytest.fixture(scope="module")
def description(gateway: Gateway) -> schemathesis.BaseSchema:
    """Without its security schemes: the three headers are ours, so that what is generated is bodies."""
    document = gateway.get("/openapi.json").json
    return schemathesis.openapi.from_dict({name: value for name, value in document.items() if name != "security"})


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("path", ENDPOINTS)
def test_answers_are_as_described(
    gateway: Gateway, merchant: Merchant, description: schemathesis.BaseSchema, path: str, mode: GenerationMode
) -> None:
    operation = description[V1 + path]["POST"]

    @hypothesis.settings(max_examples=12, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck), database=None)
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def check(case: schemathesis.Case) -> None:
        answer = send(case, gateway, merchant)
        case.validate_response(answer, checks=CONFORMS)
        if answer.status_code == 200:
            assert all(name in answer.headers for name in ("Appid", "Timestamp", "Sign"))

    check()


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/openapi.json"])
def test_pages_are_as_described(gateway: Gateway, merchant: Merchant, description: schemathesis.BaseSchema, path: str) -> None:
    case = description[path]["GET"].Case()
    answer = send(case, gateway, merchant)
    case.validate_response(answer, checks=CONFORMS)


def send(case: schemathesis.Case, gateway: Gateway, merchant: Merchant) -> requests.Response:
    """As generated, but signed: the signature is over the bytes that really go out."""
    request = requests.Request(**case.as_transport_kwargs(base_url=gateway.url)).prepare()
    body = request.body.encode() if isinstance(request.body, str) else request.body or b""
    for name in ("Appid", "Timestamp", "Sign"):
        request.headers.pop(name, None)
    request.headers.update(merchant.headers(body))
    with requests.Session() as session:
        session.trust_env = False
        return session.send(request, timeout=20)


def test_every_path_is_described(gateway: Gateway) -> None:
    document = gateway.get("/openapi.json").json
    assert document["openapi"].startswith("3.1") and len([path for path in document["paths"] if "/v1/" in path]) == 14
    for path in document["paths"]:
        if "/v1/" not in path:
            assert gateway.get(path).status == 200
        else:
            assert gateway.get(path).status == 404
