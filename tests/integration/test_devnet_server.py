"""The box over HTTP: what a client of a real node would send, and what breaks when it is told to break."""

import asyncio
import contextlib

import aiohttp
import pytest

from penstock.catalog import Catalog
from penstock.devnet.boxes import make_networks
from penstock.devnet.server import Box, serve
from penstock.rails.evm import codec
from penstock.runtime import SystemRuntime
from tests.fixtures.evm import ALICE, ETHER, GWEI

NAMES = ("ETH", "BSC", "BASE")


def with_box(scenario):
    """Run a coroutine function of (box, session) on a box with three networks of the catalogue."""

    async def run():
        runtime = SystemRuntime()
        networks = make_networks(Catalog.load(), NAMES, now_ms=runtime.now_ms)
        async with Box(networks, runtime=runtime) as box, aiohttp.ClientSession() as session:
            for network in box.networks:
                network.chain.set_block_time(0)
            await scenario(box, session)

    asyncio.run(run())


async def rpc(session, url, method, *params):
    async with session.post(url, json={"jsonrpc": "2.0", "id": 7, "method": method, "params": params}) as response:
        assert response.status == 200
        answer = await response.json()
    assert answer["id"] == 7
    return answer.get("result", answer.get("error"))


async def do(session, box, **command):
    async with session.post(f"{box.base_url}/control", json=command) as response:
        return response.status, await response.json()


def test_a_payment_over_http_on_every_network():
    async def scenario(box, session):
        for name in NAMES:
            url = box.url(name)
            chain_id = int(await rpc(session, url, "eth_chainId"), 16)
            assert chain_id == box.network(name).chain.spec.chain_id
            await do(session, box, network=name, do="fund", address=ALICE.address, units=str(ETHER))
            await do(session, box, network=name, do="mine")
            legacy = name == "BSC"
            raw = ALICE.pay(0, "0x" + "22" * 20, 5, chain_id=chain_id, legacy=legacy, fee=GWEI * 10, tip=GWEI)
            txid = await rpc(session, url, "eth_sendRawTransaction", "0x" + raw.hex())
            assert txid == codec.transaction_id(raw)
            assert (await do(session, box, network=name, do="mine"))[1] == {"head": 2}
            receipt = await rpc(session, box.url(name, 1), "eth_getTransactionReceipt", txid)
            assert receipt["status"] == "0x1", "the second node tells of the same network"
            assert ("l1Fee" in receipt) == (name == "BASE")

    with_box(scenario)


def test_the_overview_says_that_nothing_here_is_real():
    async def scenario(box, session):
        async with session.get(box.base_url) as response:
            overview = await response.json()
        assert "not a real network" in overview["what"]
        assert [network["network"] for network in overview["networks"]] == list(NAMES)
        assert overview["networks"][0]["urls"] == [box.url("ETH"), box.url("ETH", 1)]
        assert overview["networks"][0]["tokens"]["USDT"]["decimals"] == 6

    with_box(scenario)


def test_batches_and_bodies_that_are_no_json():
    async def scenario(box, session):
        calls = [{"jsonrpc": "2.0", "id": number, "method": "eth_blockNumber"} for number in range(3)]
        async with session.post(box.url("ETH"), json=calls) as response:
            assert [answer["result"] for answer in await response.json()] == ["0x0"] * 3
        for body in (b"{", b"\xff", b"[" * 100_000):
            async with session.post(box.url("ETH"), data=body) as response:
                assert (await response.json())["error"]["code"] == -32700
        async with session.post(f"{box.base_url}/DOGE", json={}) as response:
            assert response.status == 404
        for node in ("2", "x", "-1"):
            async with session.post(f"{box.base_url}/ETH/{node}", json={}) as response:
                assert response.status == 404

    with_box(scenario)


def test_broken_answers_reach_the_caller_as_http_breaks():
    async def scenario(box, session):
        url = box.url("ETH")
        call = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"}
        for how, status in (("500", 500), ("503", 503)):
            await do(session, box, network="ETH", do="faults", down=how)
            async with session.post(url, json=call) as response:
                assert response.status == status
        await do(session, box, network="ETH", do="faults", down="reset")
        with pytest.raises(aiohttp.ClientError):
            await session.post(url, json=call)
        await do(session, box, network="ETH", do="faults", down="timeout")
        with pytest.raises(TimeoutError):
            await session.post(url, json=call, timeout=aiohttp.ClientTimeout(total=0.2))
        assert await rpc(session, box.url("ETH", 1), "eth_blockNumber") == "0x0", "the other node is well"
        await do(session, box, network="ETH", do="heal")
        assert await rpc(session, url, "eth_blockNumber") == "0x0"

    with_box(scenario)


def test_a_wrong_command_is_a_400_with_a_sentence():
    async def scenario(box, session):
        status, answer = await do(session, box, network="ETH", do="explode")
        assert status == 400
        assert "'do' is one of" in answer["error"]

    with_box(scenario)


def test_a_web_page_gets_nothing_done():
    async def scenario(box, session):
        for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
            async with session.post(f"{box.base_url}/control", json={"network": "ETH", "do": "mine"}, headers=headers) as response:
                assert response.status == 403
        assert box.network("ETH").chain.head.number == 0

    with_box(scenario)


def test_it_never_listens_beyond_this_machine():
    runtime = SystemRuntime()
    networks = make_networks(Catalog.load(), ["ETH"], now_ms=runtime.now_ms)
    for listen in ("0.0.0.0:8545", "192.168.1.1:8545", "example.org:8545", ":8545", "127.0.0.1:99999"):
        with pytest.raises(ValueError, match="loopback only"):
            Box(networks, runtime=runtime, listen=listen)


def test_serve_runs_until_it_is_told_to_stop():
    async def run():
        runtime, opened = SystemRuntime(), asyncio.get_running_loop().create_future()
        networks = make_networks(Catalog.load(), ["ETH"], now_ms=runtime.now_ms)
        serving = runtime.spawn(serve(networks, "127.0.0.1:0", runtime=runtime, announce=opened.set_result), name="devnet")
        box = await asyncio.wait_for(opened, 5)
        async with aiohttp.ClientSession() as session:
            assert await rpc(session, box.url("ETH"), "net_version") == str(box.network("ETH").chain.spec.chain_id)
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving

    asyncio.run(run())
