"""PayMany on anvil, a node that we did not write: deployed by anybody, allowed once, and then many are paid together or not at all."""

import asyncio

import pytest

from penstock.core.event import FailedOnChain, Final
from penstock.core.intent import Payment
from penstock.rails.base import CannotOpen, LaneView
from penstock.rails.evm import codec
from tests.integration.test_rail_on_anvil import CONTRACT, NATIVE, USDT, House, network, on_anvil

__all__ = ["on_anvil"]

MANY = network(batch_max=100)


def recipient(number):
    return codec.checksum(f"0x{0xAA0000 + number:040x}")


class Bank(House):
    """A house that pays many at once."""

    async def called(self, sender, to, data):
        """Whether a call of somebody's succeeded."""
        call = {"from": sender, "to": to, "data": "0x" + data.hex(), "gas": hex(1_000_000)}
        sent = await self.rpc("eth_sendTransaction", call)
        while (receipt := await self.rpc("eth_getTransactionReceipt", sent)) is None:
            await asyncio.sleep(0.02)
        return receipt["status"] == "0x1"

    async def put_there(self):
        assert await self.called(self.address, codec.DEPLOYER, codec.DEPLOYMENT)

    async def opened(self):
        await self.put_there()
        (token,) = await self.rail.unopened(self.address, [USDT])
        lane = LaneView("ETH", self.address, await self.slots())
        version = await self.signed(self.rail.open(token, lane, await self.rail.estimate(USDT), attempt_id=1))
        await self.rail.submit(version.raw)
        await self.landed(Final, version)
        assert await self.rail.unopened(self.address, [USDT]) == []

    async def landed(self, kind, version):
        await asyncio.sleep(0.05)
        await self.rpc("anvil_mine", "0x2")
        return await self.until(kind, version)

    async def together(self, payments):
        return await self.rail.prepare(payments, USDT, self.address, await self.rail.estimate(USDT))

    async def many(self, payments, *, attempt_id):
        (fees, *_) = await self.together(payments)
        lane = LaneView("ETH", self.address, await self.slots())
        return await self.signed(self.rail.bind(payments, USDT, lane, fees, attempt_id=attempt_id))

    async def got(self, *numbers):
        head = (await self.rail.heads()).head
        return [await self.held(recipient(number), USDT, head) for number in numbers]


def payments(count, units=1_000, first=100):
    return [Payment(first + number, recipient(number), "", units + number) for number in range(count)]


def of(scenario):
    """With the token, in a bank."""

    async def run(house):
        house.__class__ = Bank
        await house.deploy()
        await scenario(house)

    return run


def test_whoever_deploys_it_puts_the_very_code_at_the_very_address(on_anvil):
    async def scenario(house):
        with pytest.raises(CannotOpen, match=f"{codec.DEPLOYER}, without value, with these data: 0x{codec.DEPLOYMENT.hex()}"):
            await house.rail.unopened(house.address, [USDT])
        assert [fees.together for fees in await house.together(payments(3))] == [1, 1, 1]
        await house.put_there()
        assert await house.rpc("eth_getCode", codec.PAY_MANY, "latest") == "0x" + codec.CODE.hex()
        assert [fees.together for fees in await house.together(payments(3))] == [1, 1, 1], "it is not allowed to yet"

    on_anvil(of(scenario), MANY)


def test_forty_are_paid_to_the_base_unit_for_two_thirds_of_the_gas(on_anvil):
    async def scenario(house):
        await house.opened()
        twice = Payment(900, recipient(7), "", 1_007)
        version = await house.many([*payments(39), twice], attempt_id=2)
        before = await house.held(house.address, NATIVE, (await house.rail.heads()).head)
        await house.rail.submit(version.raw)
        final = await house.landed(Final, version)
        assert await house.got(0, 7, 38) == [1_000, 2 * 1_007, 1_038]
        assert before - await house.held(house.address, NATIVE, final.block) == final.fee <= version.intent.fee_cap
        many = int((await house.rpc("eth_getTransactionReceipt", version.txid))["gasUsed"], 16)
        alone = await house.pay(USDT, 5, attempt_id=3, recipient=recipient(1_000))
        await house.landed(Final, alone)
        one = int((await house.rpc("eth_getTransactionReceipt", alone.txid))["gasUsed"], 16)
        assert many < version.intent.terms["gas_limit"]
        assert many / 40 < one * 0.67

    on_anvil(of(scenario), MANY)


def test_all_or_none(on_anvil):
    """The coins of the last one are gone between trial and block."""

    async def scenario(house):
        await house.opened()
        version = await house.many(payments(3, units=3 * 10**11), attempt_id=2)
        slot = "0x" + codec.keccak256(bytes.fromhex(house.address[2:]).rjust(32, b"\0") + bytes(32)).hex()
        await house.rpc("anvil_setStorageAt", CONTRACT, slot, f"0x{7 * 10**11:064x}")
        await house.rail.submit(version.raw)
        await house.landed(FailedOnChain, version)
        assert await house.got(0, 1, 2) == [0, 0, 0]

    on_anvil(of(scenario), MANY)


def test_who_would_be_refused_goes_alone_and_the_others_together(on_anvil):
    async def scenario(house):
        await house.opened()
        asked = [*payments(5), Payment(200, recipient(50), "", 10**13), *payments(4, first=300)]
        assert [fees.together > 1 for fees in await house.together(asked)] == [True] * 5 + [False] + [True] * 4

    on_anvil(of(scenario), MANY)


# Runtime codes that answer whatever they are asked: nothing at all, true, and false.
@pytest.mark.parametrize(("code", "pays"), [("0x5f5ff3", True), ("0x60015f5260205ff3", True), ("0x5f5f5260205ff3", False)])
def test_a_token_that_says_nothing_has_paid_and_one_that_says_false_has_not(on_anvil, code, pays):
    async def scenario(house):
        await house.put_there()
        await house.rpc("anvil_setCode", CONTRACT, code)
        data = codec.pay_call_data(CONTRACT, [(recipient(1), 1), (recipient(2), 2)])
        assert await house.called(house.address, codec.PAY_MANY, data) == pays

    on_anvil(of(scenario), MANY)


def test_a_stranger_moves_nothing_of_ours_and_a_token_that_is_none_pays_nobody(on_anvil):
    async def scenario(house):
        await house.opened()
        stranger = (await house.rpc("eth_accounts"))[3]
        for token in (CONTRACT, recipient(77)):
            assert not await house.called(stranger, codec.PAY_MANY, codec.pay_call_data(token, [(recipient(1), 1), (recipient(2), 2)]))
        assert await house.got(1, 2) == [0, 0]

    on_anvil(of(scenario), MANY)
