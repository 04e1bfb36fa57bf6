"""`serve` killed with -9, stopped with SIGTERM, cut off from its node and from its receivers: one payment, sound books, nothing forgotten.

One gateway for each database goes through all of it. On SQLite a new start takes over at once what the dead one held. On PostgreSQL the
leases of the dead run out first, which one test waits for; the others turn them forward by hand (`expire_leases`).
"""

import contextlib
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from tests.fixtures.gateway import Gateway, Make, Merchant, ready, token_id, unique
from tests.fixtures.networks import AnvilChain, fresh_address
from tests.fixtures.node_proxy import NodeProxy, node_proxy
from tests.fixtures.processes import free_port
from tests.fixtures.sink import running_sink

USDT, ETH = token_id("USDT", "ETH"), token_id("ETH", "ETH")
MET_S = 20


@dataclass
class Place:
    gateway: Gateway
    chain: AnvilChain
    line: NodeProxy
    merchant: Merchant
    hot: str

    def pay(self, value: str = "1", **fields: Any) -> tuple[str, str]:
        """An on-chain order to a fresh address: its id and the address. The merchant pays the fee, so `value` must arrive."""
        name, address = unique("crash"), fresh_address()
        wanted = {"merchant_order_id": name, "address": address, "token_id": USDT, "value": value, "merchant_pays_fee": True}
        self.merchant.accepted(**wanted | fields)
        return name, address

    def paid(self, address: str, symbol: str = "USDT") -> Decimal:
        return Decimal(self.chain.balance(address, symbol)).scaleb(-self.chain.tokens[symbol].decimals)


@pytest.fixture(scope="module")
def line(ethereum: AnvilChain) -> Iterator[NodeProxy]:
    with node_proxy(ethereum.url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def place(new_gateway: Make, ethereum: AnvilChain, line: NodeProxy) -> Place:
    gateway = new_gateway(ethereum, node_urls={"ETH": line.url}, PENSTOCK_WEBHOOKS__SCHEDULE="1,1,1,2,2,5,5")
    hot = gateway.hot_address()
    ethereum.fund(hot, {"ETH": "100", "USDT": "100000"})
    merchant = gateway.merchant(USDT="20000", ETH="20")
    gateway.start()
    ready(gateway)
    return Place(gateway, ethereum, line, merchant, hot)


@pytest.fixture(autouse=True)
def sound(place: Place) -> Iterator[None]:
    """Whatever a test did, the line is good again, the gateway runs, and the books are sound."""
    yield
    place.line.release()
    place.line.delay_s = 0
    if place.gateway.process is None:
        place.gateway.start()
    place.gateway.audit()


def crash(gateway: Gateway) -> None:
    """kill -9, and a new start."""
    gateway.kill()
    if gateway.is_postgresql:
        gateway.expire_leases()
    gateway.start()


@pytest.mark.parametrize("when", ["before", "after"], ids=["before the node had it", "before its answer came"])
def test_killed_between_commit_and_answer_pays_once(place: Place, when: str) -> None:
    nonce = place.chain.nonce(place.hot)
    known = len(place.line.submitted)
    place.line.order(when)
    name, address = place.pay("3")
    assert place.line.met.wait(MET_S)
    # Its bytes are in the database before the first of them goes out (R3).
    shown = place.gateway.order(name)
    assert shown["state"] == "sending" and [v["number"] for v in shown["attempts"][0]["versions"]] == [1]
    txid = shown["attempts"][0]["versions"][0]["txid"]
    assert txid
    place.gateway.kill()
    place.line.release()
    if when == "before":
        assert place.paid(address) == 0
    elif place.gateway.is_postgresql:
        place.gateway.expire_leases()
    place.gateway.start()
    [found] = place.merchant.final(name)
    assert found["order_detail"]["status"] == "Successful" and found["trade_list"][0]["txid"] == txid
    assert place.paid(address) == 3
    assert place.chain.nonce(place.hot) == nonce + 1
    assert len(set(place.line.submitted[known:])) == 1, "the same bytes, however often"
    assert place.merchant.event(name)["txid"] == txid


@pytest.mark.parametrize("how", ["reset", "500"])
def test_an_answer_that_was_lost_is_not_a_failure(place: Place, how: str) -> None:
    nonce = place.chain.nonce(place.hot)
    known = len(place.line.submitted)
    place.line.order(how, times=3)
    orders = [place.pay("2", token_id=token) for token in (USDT, ETH, USDT)]
    for found in place.merchant.final(*(name for name, _ in orders)):
        assert found["order_detail"]["status"] == "Successful"
    assert [place.paid(address, symbol) for (_, address), symbol in zip(orders, ("USDT", "ETH", "USDT"), strict=True)] == [2, 2, 2]
    assert place.chain.nonce(place.hot) == nonce + 3
    assert len(set(place.line.submitted[known:])) == 3


def test_killed_again_and_again_under_load(place: Place) -> None:
    """Clients that repeat an id until they are answered, as the spec tells them to, while the gateway dies at random moments."""
    gateway, merchant = place.gateway, place.merchant
    c_id, _ = gateway.account()
    nonce, before = place.chain.nonce(place.hot), Decimal(merchant.balance("USDT"))
    place.line.delay_s = 0.02
    outside = [{"merchant_order_id": unique("load"), "address": fresh_address(), "token_id": USDT, "value": "5"} for _ in range(24)]
    inside = [{"merchant_order_id": unique("load"), "address": c_id, "token_id": USDT, "value": "2"} for _ in range(200)]
    orders = [fields | {"merchant_pays_fee": True} for fields in outside] + inside
    random.Random(7).shuffle(orders)
    waiting, lock, ends = list(orders), threading.Lock(), threading.Event()
    answers: dict[str, set[str]] = {fields["merchant_order_id"]: set() for fields in orders}

    def ask(fields: dict[str, Any]) -> bool:
        with contextlib.suppress(OSError):
            reply = merchant.call("/withdraw", fields)
            if reply.code == 10000:
                answers[fields["merchant_order_id"]].add(reply.data["order_id"])
                return True
        return False

    def client(is_forgetful: bool) -> None:
        while not ends.is_set():
            with lock:
                fields = waiting.pop() if waiting else None
            if fields is None:
                return
            while not ask(fields) and not ends.is_set():
                ends.wait(0.02)
            ends.wait(0.01)
            if is_forgetful:
                ask(fields)  # as if the answer had been lost

    def answered() -> int:
        return sum(1 for ids in answers.values() if ids)

    threads = [threading.Thread(target=client, args=(number % 2 == 0,)) for number in range(6)]
    for thread in threads:
        thread.start()
    try:
        moments = random.Random(11)
        for share in (0.1, 0.4, 0.7):
            gateway.wait(lambda share=share: answered() >= share * len(orders) or None)
            ends.wait(moments.uniform(0, 0.05))
            assert answered() < len(orders), "the load was over before the kill"
            crash(gateway)
        for thread in threads:
            thread.join(30)
        assert not waiting
    finally:
        ends.set()
        for thread in threads:
            thread.join(30)
    found = merchant.final(*answers)
    assert all(one["order_detail"]["status"] == "Successful" for one in found)
    for one in found:
        detail = one["order_detail"]
        assert answers[detail["merchant_order_id"]] == {detail["order_id"]}
    assert [place.paid(fields["address"]) for fields in outside] == [5] * len(outside)
    assert place.chain.nonce(place.hot) == nonce + len(outside)
    fees = sum(Decimal(one["trade_list"][0]["network_fee"]) for one in found)
    assert Decimal(merchant.balance("USDT")) == before - 5 * len(outside) - 2 * len(inside) - fees
    [owned] = gateway.command("account", "show", c_id)["balances"]
    assert owned == {"crypto": "USDT", "available": str(2 * len(inside)), "reserved": "0"}
    for name in answers:
        merchant.event(name)


def test_a_clean_stop_loses_no_accepted_request(place: Place) -> None:
    gateway, merchant = place.gateway, place.merchant
    c_id, _ = gateway.account()
    ends = threading.Event()
    accepted: dict[str, str] = {}

    def client(number: int) -> None:
        while not ends.is_set():
            name = unique("stop")
            fields = {"merchant_order_id": name, "token_id": USDT, "value": "1", "merchant_pays_fee": True}
            try:
                reply = merchant.call("/withdraw", fields | {"address": c_id if number else fresh_address()})
            except OSError:
                return  # the door is closed
            if reply.code == 10000:
                accepted[name] = reply.data["order_id"]

    threads = [threading.Thread(target=client, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    try:
        gateway.wait(lambda: len(accepted) > 60 or None)
        assert gateway.stop() == 0, gateway.log.read_text()[-4000:]
    finally:
        ends.set()
        for thread in threads:
            thread.join(30)
    gateway.start()
    found = {one["order_detail"]["merchant_order_id"]: one["order_detail"]["order_id"] for one in merchant.info(*accepted)}
    assert found == accepted
    assert all(one["order_detail"]["status"] == "Successful" for one in merchant.final(*accepted))
    # Nobody else's money was left reserved by requests that never got an answer.
    rows = gateway.command("order", "list", "--app-id", merchant.app_id, "--limit", "1000")["orders"]
    names = [row["merchant_order_id"] for row in rows if row["merchant_order_id"].startswith("stop-")]
    merchant.final(*names)


def test_webhooks_of_a_receiver_that_was_down_come_after_a_restart(place: Place) -> None:
    gateway = place.gateway
    port, path = free_port(), f"/{unique('late')}"
    name = unique("late-shop")
    added = gateway.command("merchant", "add", name, "--webhook-url", f"http://127.0.0.1:{port}{path}")
    merchant = Merchant(gateway, added["app_id"], added["app_secret"], path)
    gateway.credit(merchant, "USDT", "10")
    c_id, _ = gateway.account()
    orders = [merchant.accepted(address=c_id, token_id=USDT, value="1")["order_id"] for _ in range(5)]
    shown = gateway.wait(lambda: ((webhook := gateway.order(orders[0])["webhook"])["sends"] and webhook) or None)
    assert shown["state"] == "due" and "connect" in shown["sends"][0]["result"]
    crash(gateway)
    with running_sink(port) as sink:
        gateway.wait(lambda: len({arrival.body["order_id"] for arrival in sink.at(path)}) == 5 or None)
        for arrival in sink.at(path):
            merchant.verify(arrival)
        assert {arrival.body["order_id"] for arrival in sink.at(path)} == set(orders)
        for order_id in orders:
            gateway.wait(lambda order_id=order_id: gateway.order(order_id)["webhook"]["state"] == "delivered" or None)
        # Sent again on demand: the same event under the same id, with a signature of its own.
        count = len(sink.at(path))
        assert gateway.command("webhook", "resend", orders[0])["queued"] is True
        again = gateway.wait(lambda: sink.at(path)[count:] or None)
        merchant.verify(again[0])
        first = next(one for one in sink.at(path) if one.body["order_id"] == orders[0])
        assert again[0].raw == first.raw and again[0].headers["webhook-id"] == first.headers["webhook-id"]
        # The merchant asks for a span by the API; once a minute.
        start = int(gateway.order(orders[0])["created_at_ms"] / 1000) - 5
        count = len(sink.at(path))
        body = {"start_timestamp": start, "webhook_result": "All Result"}
        assert merchant.call("/webhook/resend", body).data == {"resend_count": 5}
        gateway.wait(lambda: len(sink.at(path)) >= count + 5 or None)
        assert merchant.call("/webhook/resend", body | {"transaction_type": "API Withdrawal"}).code == 11009


def test_receivers_that_answer_wrongly_are_asked_again(place: Place) -> None:
    """Only status 200 with the word counts; a redirect is not followed."""
    gateway, merchant = place.gateway, place.merchant
    c_id, _ = gateway.account()
    said = iter([(500, b"success", {}), (200, b"unsuccessful", {}), (302, b"success", {"Location": f"{gateway.sink.url}/elsewhere"})])
    name = unique("wrong")
    gateway.sink.answers = lambda arrival: (
        next(said, (200, b"Success\n", {})) if arrival.body["merchant_order_id"] == name else (200, b"success", {})
    )
    merchant.accepted(merchant_order_id=name, address=c_id, token_id=USDT, value="1")
    shown = gateway.wait(lambda: ((one := gateway.order(name)["webhook"]) and one["state"] == "delivered" and one) or None)
    assert [send["status"] for send in shown["sends"]] == [500, 200, 302, 200]
    assert len(merchant.arrivals(name)) == 4 and gateway.sink.at("/elsewhere") == []
    assert len({arrival.headers["webhook-id"] for arrival in merchant.arrivals(name)}) == 1
