"""Bad weather from a seed on every network: faults, forks, prices and power cuts all at once, and in the end everybody is paid once."""

import asyncio
import contextlib
import random

import pytest

from penstock.prove.simulated.virtual import Crash
from tests.conformance.places import PLACES

SEEDS = range(1, 6)
STORM_S = 120.0
"""On the house's clock, which begins some twenty seconds before the first order."""
ORDERS = 8
CRASHES = 3


class Storm:
    """What happens to the network until it clears up."""

    def __init__(self, house, place, seed):
        self.house, self.place = house, place
        self.chance = random.Random(seed)

    async def blow(self):
        """Until it clears up; after a power cut it goes on where it was."""
        network, loop = self.house.network, self.house.loop
        while loop.time() < STORM_S:
            await asyncio.sleep(self.chance.random() * 4)
            node = self.chance.choice(network.nodes)
            node.faults = type(node.faults)()
            with contextlib.suppress(ValueError):
                await self._strike(network, node)
        for node in network.nodes:
            node.faults = type(node.faults)()
        with contextlib.suppress(ValueError):
            network.spike(1)

    async def _strike(self, network, node):
        chance = self.chance
        losses = () if self.place.own_node else ("drop", "blind", "forget")
        prices = ("spike",) if self.place.bumps else ()
        match chance.choice(("break", "slow", "twice", "down", "lag", "fork", "calm", *prices, *losses)):
            case "drop":
                node.faults.drop = chance.randint(1, 3)
            case "break":
                node.faults.break_after, node.faults.breakage = chance.randint(1, 3), chance.choice(("500", "503", "reset", "timeout"))
            case "slow":
                node.faults.delay_ms = chance.randint(100, 5_000)
            case "twice":
                node.faults.duplicate = chance.randint(1, 3)
            case "down":
                node.faults.down = chance.choice(("500", "503", "reset", "timeout"))
            case "lag":
                node.faults.lag = chance.randint(1, 3)
            case "blind":
                for other in network.nodes:
                    other.faults.blind = other is node  # who sees none of ours on any node has been robbed, as far as anybody can tell
            case "fork":
                depth = chance.randint(1, 4)
                if depth in self.place.reorgs:
                    network.fork(depth, chance.choice(("keep", "drop", "reorder")))
            case "spike":
                network.spike(chance.randint(2, 6))
            case "forget":
                for txid in await self._sent():
                    network.forget(txid)

    async def _sent(self):
        rows = await self.house.product.database.read(lambda tx: tx.all("SELECT txid FROM version WHERE sends > 0 ORDER BY id"))
        return [row["txid"] for row in rows]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", list(PLACES))
def test_everybody_is_paid_once_whatever_the_weather(tmp_path, name, seed):
    place = PLACES[name]
    with place.house(tmp_path) as house:
        chance, storm, began = random.Random(seed * 1_000), Storm(house, place, seed), house.loop.time()
        value = place.pays[place.main]
        wishes = {f"o{number}": (*place.recipient(house, number, value), chance.random() * 30) for number in range(ORDERS)}

        async def client(order, address, memo, at_s):
            await asyncio.sleep(max(0.0, began + at_s - house.loop.time()))
            answer = await house.withdraw(order, place.main, value, address, memo)
            assert answer["code"] == 10000, answer
            await house.until(order, "succeeded", "failed", "quarantined")

        async def life():
            await asyncio.gather(storm.blow(), *(client(order, *wish) for order, wish in wishes.items()))

        for _ in range(CRASHES):
            try:
                house.die()
                house.start(crash_after=chance.randint(50, 400))
                house.run(life())
                break
            except Crash:
                continue
        house.restart()
        house.run(life())
        for order, (address, _, _) in wishes.items():
            assert house.run(house.order(order))["state"] == "succeeded"
            assert place.received(house, address, place.main) == value
        house.judge()
        assert all(len(set(house.events[order])) == 1 for order in wishes)
