"""The EVM rail and the signer against anvil, a node that we did not write."""

import asyncio
import json
from pathlib import Path

import pytest
from bip_utils import Bip39MnemonicDecoder
from msgspec import structs

import penstock
from penstock.core.event import Absent, FailedOnChain, Final, Included, Pending
from penstock.core.intent import Payment
from penstock.core.money import Coin, Network, Token
from penstock.rails.base import LaneView, Verdict, VersionView, WrongNetwork
from penstock.rails.evm import codec
from penstock.rails.evm.rail import EvmRail
from penstock.rails.post import HttpPost
from penstock.rails.rpc import Call
from penstock.runtime import SystemRuntime
from penstock.signer.journal import FileJournal
from penstock.signer.local import LocalSigner
from penstock.signer.policy import allow
from penstock.signer.seed import Seed
from tests.fixtures.nodes import MNEMONIC
from tests.fixtures.not_run import not_run
from tests.fixtures.scripted import nodes_of
from tests.fixtures.seals import SEAL, sealed

RECIPIENT = "0xAa000000000000000000000000000000000000Aa"
CONTRACT = "0xdAC17F958D2ee523a2206206994597C13D831ec7"
NATIVE = Token("native", Coin("eth", "ETH", "Ether", 18), "ETH", "ERC20", None, "1", 18)
USDT = Token("usdt", Coin("c", "USDT", "Tether", 6), "ETH", "ERC20", CONTRACT, CONTRACT, 6)


def network(**params):
    merged = {"has_finality_tag": True, "fee_model": "eip1559", "fee_max": "0.05", "gas_price_max_wei": 500 * 10**9} | params
    return Network("ETH", "evm", "Anvil", "native", 31337, None, 1_000, 2, is_test=True, params=tuple(sorted(merged.items())))


class House:
    """Rail and signer of a house whose hot address is anvil's first account."""

    def __init__(self, url, home, runtime, net):
        self.post, self.runtime = HttpPost(), runtime
        self.nodes = nodes_of([url], self.post, runtime, chain_id=net.chain_id)
        self.journal = FileJournal(home)
        seed = Seed(Bip39MnemonicDecoder().Decode(MNEMONIC))
        self.signer = LocalSigner(seed, self.journal, runtime, {"ETH": allow(net, [NATIVE, USDT])}, SEAL)
        self.address = self.signer.addresses("ETH")[0]
        self.rail = EvmRail(net, self.nodes, runtime, own=[self.address], contracts=[CONTRACT])

    async def rpc(self, method, *params):
        return await self.nodes.read(Call(method, params), lambda answer: answer)

    async def deploy(self):
        """The devnet's token at a fixed address, all of it ours."""
        compiled = Path(penstock.__file__).parent / "devnet" / "evm" / "tokens" / "compiled.json"
        if not compiled.exists():
            not_run("ERC-20 on anvil: the devnet's token is not built in yet")
        await self.rpc("anvil_setCode", CONTRACT, json.loads(compiled.read_text())["contracts"]["PlainToken"]["code"])
        slot = "0x" + codec.keccak256(bytes.fromhex(self.address[2:]).rjust(32, b"\0") + bytes(32)).hex()
        await self.rpc("anvil_setStorageAt", CONTRACT, slot, f"0x{10**12:064x}")

    async def bound(self, token, units, *, attempt_id=1, recipient=RECIPIENT):
        payment = Payment(attempt_id, recipient, "", units)
        slot = await self.slots()
        (fees,) = await self.rail.prepare([payment], token, self.address, await self.rail.estimate(token))
        return self.rail.bind([payment], token, LaneView("ETH", self.address, slot), fees, attempt_id=attempt_id)

    async def slots(self):
        return (await self.rail.holdings(self.address, [])).slots_mined

    async def held(self, address, token, block):
        return (await self.rail.holdings_at(address, [token], block)).units[token.id]

    async def signed(self, intent):
        intent = sealed(intent)
        (signed,) = await self.signer.sign([intent])
        return VersionView(signed.version, signed.txid, signed.raw, intent)

    async def pay(self, token, units, **more):
        version = await self.signed(await self.bound(token, units, **more))
        assert (await self.rail.submit(version.raw)).verdict is Verdict.ACCEPTED
        return version

    async def until(self, kind, *versions):
        """Observe until it is of this kind; anvil mines right after it answers."""
        for _ in range(200):
            seen = await self.rail.observe(versions)
            if isinstance(seen, kind):
                return seen
            await asyncio.sleep(0.02)
        raise AssertionError(seen)


@pytest.fixture
def on_anvil(anvil, tmp_path):
    """Runs a scenario with a house on this anvil."""

    def run(scenario, net=None):
        async def main():
            runtime = SystemRuntime()
            house = House(anvil, tmp_path, runtime, net or network())
            try:
                await scenario(house)
            finally:
                house.journal.close()
                await house.post.close()
                runtime.close()

        asyncio.run(main())

    return run


MANUAL = pytest.mark.parametrize("anvil", [{"block_time_s": 3600}], indirect=True)


@pytest.mark.parametrize("fee_model", ["eip1559", "legacy"])
@pytest.mark.parametrize("token", [NATIVE, USDT], ids=["native", "erc20"])
def test_a_payment_arrives_to_the_base_unit(on_anvil, token, fee_model):
    async def scenario(house):
        if token is USDT:
            await house.deploy()
        before = await house.held(house.address, NATIVE, (await house.rail.heads()).head)
        version = await house.pay(token, 1_234_567)
        first = await house.until(Included, version)
        assert (first.depth, first.succeeded) == (1, True)
        await house.rpc("anvil_mine", "0x1")
        final = await house.until(Final, version)
        heads = await house.rail.heads()
        assert heads.final >= final.block
        held = await house.held(RECIPIENT, token, final.block) - await house.held(RECIPIENT, token, 0)
        assert held == 1_234_567
        after = await house.held(house.address, NATIVE, final.block)
        assert before - after == final.fee + (1_234_567 if token is NATIVE else 0)
        assert final.fee <= version.intent.fee_cap
        assert (await house.rail.holdings_at(house.address, [], final.block)).slots_used == 1
        assert (await house.rail.submit(version.raw)).verdict is Verdict.UNKNOWN  # nonce too low: our own payment

    on_anvil(scenario, network(fee_model=fee_model))


@MANUAL
def test_a_bump_replaces_the_waiting_version(on_anvil):
    async def scenario(house):
        first = await house.pay(NATIVE, 5)
        assert await house.rail.observe([first]) == Pending()
        assert (await house.rail.submit(first.raw)).verdict is Verdict.ACCEPTED  # already known
        await house.rpc("anvil_setNextBlockBaseFeePerGas", hex(10**10))
        await house.rpc("anvil_mine", "0x1")
        assert await house.rail.observe([first]) == Pending(stuck=True)
        house.rail._fees._market = None  # what it remembers for a second
        bumped = house.rail.bump(first.intent, await house.rail.estimate(NATIVE), version=2)
        second = await house.signed(bumped)
        assert (await house.rail.submit(second.raw)).verdict is Verdict.ACCEPTED
        await house.rpc("anvil_mine", "0x2")
        seen = await house.until(Final, first, second)
        assert seen.txid == second.txid
        assert await house.slots() == 1

    on_anvil(scenario)


@MANUAL
def test_an_eighth_more_is_enough_for_the_node(on_anvil):
    async def scenario(house):
        version = await house.pay(NATIVE, 5)
        for number in (2, 3, 4):
            version = await house.signed(house.rail.bump(version.intent, None, version=number))
            assert (await house.rail.submit(version.raw)).verdict is Verdict.ACCEPTED

    on_anvil(scenario)


@MANUAL
def test_a_cancel_uses_the_nonce_and_moves_nothing(on_anvil):
    async def scenario(house):
        await house.deploy()
        pay = await house.pay(USDT, 1_000_000)
        cancel = await house.signed(house.rail.bump(pay.intent, None, version=2, cancel=True))
        assert (await house.rail.submit(cancel.raw)).verdict is Verdict.ACCEPTED
        await house.rpc("anvil_mine", "0x2")
        seen = await house.until(FailedOnChain, pay, cancel)
        assert (seen.txid, seen.detail) == (cancel.txid, "our own cancel used the nonce")
        assert await house.held(RECIPIENT, USDT, seen.block) == 0

    on_anvil(scenario)


@MANUAL
def test_a_reorg_takes_the_payment_back_and_the_same_bytes_land_again(on_anvil):
    async def scenario(house):
        version = await house.pay(NATIVE, 5)
        await house.rpc("anvil_mine", "0x1")
        first = await house.until(Included, version)
        await house.rpc("anvil_reorg", 1, [])
        assert isinstance(await house.rail.observe([version]), Absent | Pending)
        assert (await house.rail.submit(version.raw)).verdict is Verdict.ACCEPTED
        await house.rpc("anvil_mine", "0x2")
        again = await house.until(Final, version)
        assert (again.txid, again.block) == (version.txid, first.block + 1)

    on_anvil(scenario)


def test_a_token_that_reverts_fails_finally_and_costs_only_gas(on_anvil):
    async def scenario(house):
        await house.deploy()
        version = await house.pay(USDT, 10**12 + 1)
        await house.rpc("anvil_mine", "0x1")
        seen = await house.until(FailedOnChain, version)
        assert seen.detail == "the transaction reverted"
        assert 0 < seen.fee <= version.intent.fee_cap

    on_anvil(scenario)


def test_a_recipient_with_code_is_paid_with_the_gas_it_needs(on_anvil):
    async def scenario(house):
        # Stores 1 in slot 0 whenever it is paid: PUSH1 1 PUSH1 0 SSTORE.
        await house.rpc("anvil_setCode", RECIPIENT, "0x600160005500")
        version = await house.pay(NATIVE, 7)
        assert 40_000 < version.intent.terms["gas_limit"] < 100_000
        await house.rpc("anvil_mine", "0x1")
        await house.until(Final, version)

    on_anvil(scenario)


def test_many_payments_share_questions(on_anvil):
    async def scenario(house):
        first = await house.bound(NATIVE, 3)
        intents = [
            sealed(structs.replace(first, attempt_id=n + 1, slot=first.slot + n, payments=(Payment(n + 1, RECIPIENT, "", 3),)))
            for n in range(40)
        ]
        signed = await house.signer.sign(intents)
        said = await asyncio.gather(*(house.rail.submit(s.raw) for s in signed))
        assert {s.verdict for s in said} == {Verdict.ACCEPTED}
        await house.rpc("anvil_mine", "0x2")
        views = [VersionView(1, s.txid, s.raw, i) for s, i in zip(signed, intents, strict=True)]
        seen = await asyncio.gather(*(house.until(Final, view) for view in views))
        assert len({s.txid for s in seen}) == 40

    on_anvil(scenario)


@pytest.mark.parametrize("anvil", [{"chain_id": 31338}], indirect=True)
def test_a_node_of_another_chain_is_never_used(on_anvil):
    async def scenario(house):
        with pytest.raises(WrongNetwork, match="chain id 31338, and 31337"):
            await house.rail.heads()

    on_anvil(scenario)
