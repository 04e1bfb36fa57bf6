"""Prices from an HTTP source: used while they are fresh, and when they are stale only new quotes that need them are refused."""

import http.server
import json
import threading
from collections.abc import Iterator

import pytest

from tests.fixtures.gateway import Make, ready, token_id
from tests.fixtures.networks import AnvilChain, fresh_address


class Source(http.server.ThreadingHTTPServer):
    """A price source that can be told to fail."""

    works = True


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"ethereum": {"usd": 2500.5}, "tether": {"usd": 1}}).encode()
        self.send_response(200 if self.server.works else 500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Quiet."""


@pytest.fixture(scope="module")
def source() -> Iterator[Source]:
    with Source(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_stale_price_refuses_new_quotes_and_nothing_else(new_gateway: Make, ethereum: AnvilChain, source: Source) -> None:
    source.works = True
    gateway = new_gateway(
        ethereum,
        PENSTOCK_PRICES__URL=f"http://127.0.0.1:{source.server_port}/simple?ids={{ids}}",
        PENSTOCK_PRICES__IDS__ETH="ethereum",
        PENSTOCK_PRICES__IDS__USDT="tether",
        PENSTOCK_PRICES__POINTER="/{id}/usd",
        PENSTOCK_PRICES__AGE_MAX_S="4",
    )
    ethereum.fund(gateway.hot_address(), {"ETH": "1000", "USDT": "1000"})
    gateway.start()
    gateway.wait(lambda: not ready(gateway)["warnings"] or None)  # the start has compared what it has to
    merchant, (account, _) = gateway.merchant(USDT="900"), gateway.account()
    usdt = token_id("USDT", "ETH")
    recipient = fresh_address()
    quoted = merchant.accepted(merchant_order_id="fresh", address=recipient, token_id=usdt, value="10")
    assert quoted["network_fee"] != "0"
    assert merchant.call("/token/rate", {"token_id": token_id("ETH", "ETH"), "amount": "5001"}).data == {"price": "2500.5", "value": "2"}

    source.works = False
    gateway.wait(lambda: merchant.withdraw(address=fresh_address(), token_id=usdt, value="0.1").code == 224066 or None)
    refused = merchant.withdraw(address=fresh_address(), token_id=usdt, value="10")
    assert "old" in refused.json["msg"]
    inside = merchant.accepted(address=account, token_id=usdt, value="1")
    assert inside["network_fee"] == "0"
    again = merchant.withdraw(merchant_order_id="fresh", address=recipient, token_id=usdt, value="10")
    assert again.data == quoted  # the stored order wins over the refusal
    assert merchant.final("fresh")[0]["order_detail"]["status"] == "Successful"
    assert any("gave no answer" in warning for warning in gateway.get("/readyz").json["warnings"])

    source.works = True
    gateway.wait(lambda: merchant.withdraw(address=fresh_address(), token_id=usdt, value="0.1").code == 10000 or None)
