"""Every EVM network of the catalogue, each in its box: the own coin and every token, paid, booked to the last base unit and reported."""

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.catalog import Catalog
from tests.fixtures.commands import base_environment
from tests.fixtures.gateway import Make, ready, unique
from tests.fixtures.networks import BoxChain, fresh_address
from tests.fixtures.processes import running, wait_until


@pytest.fixture(scope="module")
def boxes() -> Iterator[list[BoxChain]]:
    """`penstock devnet` with every EVM network."""
    names = [network.chain for network in Catalog.load().networks() if network.family == "evm"]
    with tempfile.TemporaryDirectory(prefix="penstock-box-") as folder:
        log = Path(folder) / "log"
        command = [sys.executable, "-m", "penstock", "devnet", "--listen", "127.0.0.1:0", "--json"]
        command += [part for name in names for part in ("--only", name)]
        with running(command, log=log, env=base_environment(Path(folder)), cwd=Path(folder)) as process:
            line = wait_until(
                lambda: next((x for x in log.read_text().splitlines() if x.startswith("{")), None), process=process, log=log, timeout_s=30
            )
            yield [BoxChain(n["network"], n["url"], n["chain_id"]) for n in json.loads(line)["networks"]]


@pytest.mark.slow
def test_each_coin_and_token_of_each_network_is_paid_and_booked(new_gateway: Make, boxes: list[BoxChain]) -> None:
    assert {box.name for box in boxes} == {network.chain for network in Catalog.load().networks() if network.family == "evm"}
    gateway = new_gateway(*boxes)
    address = gateway.hot_address()
    coins = {symbol: "1000" for box in boxes for symbol in box.tokens}
    for box in boxes:
        box.fund(address, dict.fromkeys(box.tokens, "2000"))
    gateway.start()
    ready(gateway)
    merchant = gateway.merchant(**coins)
    paid = {}
    for box in boxes:
        for symbol, token in box.tokens.items():
            recipient, name = fresh_address(), unique(f"{box.name}-{symbol}")
            flag = len(paid) % 2 == 0
            answer = merchant.accepted(merchant_order_id=name, address=recipient, token_id=token.id, value="1.5", merchant_pays_fee=flag)
            paid[name] = (box, symbol, recipient, answer)
    for found in merchant.final(*paid):
        box, symbol, recipient, answer = paid[found["order_detail"]["merchant_order_id"]]
        assert found["order_detail"]["status"] == "Successful", found
        assert box.balance(recipient, symbol) == box.units(answer["net_receivable"], symbol)
        event = merchant.event(found["order_detail"]["merchant_order_id"])
        assert (event["chain"], event["txid"]) == (box.name, found["trade_list"][0]["txid"])
        assert event["network_fee"] == answer["network_fee"]
    for box in boxes:
        box.mine(6)

    def equal() -> bool | None:
        return all(row["on_chain"] == row["in_books"] for row in gateway.command("treasury") if row["on"]) or None

    gateway.wait(equal)
    assert gateway.audit()["warnings"] == []
