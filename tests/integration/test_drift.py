"""H3: one base unit of difference between books and chain is told within 60 seconds after it is final, on an EVM network."""

import asyncio

import pytest
from structlog.testing import capture_logs

from penstock.catalog import Catalog
from penstock.commands import Commands
from penstock.core.intent import Intent, Payment
from penstock.rails.evm import codec
from penstock.signer.keys import derive
from tests.fixtures.house import evm_house

USDT = Catalog.load().by_symbol("USDT", "ETH")
STRANGER = "0x00000000000000000000000000000000000000bb"
WITHIN_S = 60


@pytest.fixture
def house(tmp_path):
    with evm_house(tmp_path) as built:
        assert built.run(built.withdraw("before", "USDT", "5", "0x" + "12" * 20))["code"] == 10000
        built.run(built.until("before", "succeeded"))
        built.wait(30)
        yield built


def final_at(house, txid):
    """Virtual seconds at which the block of a transaction became final."""
    chain = house.network.chain

    async def watch():
        while True:
            found = chain.receipt(txid)
            if found is not None and found[0].number <= chain.final:
                return house.loop.time()
            await asyncio.sleep(0.5)
            house.network.tick()

    return house.run(asyncio.wait_for(watch(), 1_000))


def told_after(house, since, event, logs, within_s=WITHIN_S, **said_of):
    """The first such event, about this, looked for until so long after `since`."""

    async def watch():
        while house.loop.time() < since + within_s:
            found = [said for said in logs if said["event"] == event and said.items() >= said_of.items()]
            if found:
                return found[0]
            await asyncio.sleep(0.5)
        raise AssertionError(f"nothing was told within {within_s} s: {[said['event'] for said in logs]}")

    return house.run(watch())


def test_a_base_unit_that_left_without_us_stops_the_network_and_is_named(house):
    hot, chain = house.run(house.hot()), house.network.chain
    chain_id = chain.spec.chain_id
    stolen = Intent(
        attempt_id=1, version=1, kind="pay", chain="ETH", family="evm", chain_id=chain_id, sender=hot,
        slot=1, token_id=USDT.id, contract=USDT.contract, payments=(Payment(1, STRANGER, "", 1),),
        terms={"gas_limit": 90_000, "max_fee_per_gas": 2 * chain.next_base_fee() + 10**9, "max_priority_fee_per_gas": 10**9}, fee_cap=10**18,
    )  # fmt: skip
    with capture_logs() as logs:
        txid = chain.submit(codec.sign(stolen, derive(house.keys, codec.path(chain_id, 0))).raw)
        since = final_at(house, txid)
        told = told_after(house, since, "treasury.outflow.unexplained", logs, token=USDT.id)
    assert (told["log_level"], told["missing"]) == ("error", "0.000001")
    lane = house.run(house.product.database.read(lambda tx: tx.one("SELECT halted FROM lane")))
    assert lane["halted"]
    _, warnings = house.run(house.product.readiness.reasons())
    assert any(text.startswith("nothing is sent on ETH") for text in warnings)
    assert ("lane", "halted", 1) in house.run(house.product.readiness.waiting())


def test_a_base_unit_that_arrived_unexplained_is_booked_and_shown(house):
    hot = house.run(house.hot())
    with capture_logs() as logs:
        txid = house.network.fund(hot, 1, USDT.contract)
        since = final_at(house, txid)
        told = told_after(house, since, "treasury.inflow.booked", logs)
    assert (told["token"], told["arrived"], told["log_level"]) == (USDT.id, "0.000001", "warning")
    report = house.run(Commands(house.product).audit())
    assert report["breaches"] == []
    assert report["balances"]["house:funding"]["USDT"] == "0.000001"
    house.judge()


def test_books_that_lose_a_unit_are_found_by_the_next_pass(house):
    """The chain is right and somebody wrote another entry: the treasury's sum is not what the last look showed."""

    def bend(tx):
        for line, account, amount in ((0, f"treasury:{USDT.id}", 10**12), (1, "house:funding", -(10**12))):
            tx.run(
                "INSERT INTO posting (entry_id, line, account, coin_id, amount) VALUES (7, :line, :account, :coin, :amount)",
                line=line, account=account, coin=USDT.coin.id, amount=amount,
            )  # fmt: skip
        tx.run("INSERT INTO batch (id, committer, number, previous_hash, hash, at_ms) VALUES (7, 'x', 1, 'x', 'x', 1)")
        tx.run(
            "INSERT INTO entry (id, batch_id, ref_kind, ref_id, posting_kind, chain, block, note, at_ms) "
            "VALUES (7, 7, 'seen', 'x', 'left', 'ETH', 1, '', 1)"
        )

    with capture_logs() as logs:
        house.run(house.product.database.write("bend", bend))
        since = house.loop.time()
        told_after(house, since, "audit.stop", logs, WITHIN_S + 5)
    stops = [said for said in logs if said["event"] == "audit.stop"]
    assert [(said["invariant"], said["chain"]) for said in stops] == [("I10", "ETH")]
    assert "the hot address held 95 USDT, and the books say 94.999999" in stops[0]["text"]
    reasons, _ = house.run(house.product.readiness.reasons())
    assert len(reasons) == 1
