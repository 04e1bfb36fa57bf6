"""Lies over real sockets: bodies that never end, drip, break off or are huge, in front of devnet and of anvil."""

import asyncio
import contextlib

import pytest

from penstock.catalog import Catalog
from penstock.core.event import Final, Included
from penstock.devnet.boxes import make_networks
from penstock.devnet.server import Box
from penstock.networks import RAILS, Site
from penstock.prove.lanes.lying import SCENES
from penstock.prove.liars.liar import Liar
from penstock.prove.liars.lies import LIES
from penstock.prove.liars.lines import lying_proxy
from penstock.rails.base import NodeUnreachable, Verdict
from penstock.rails.post import ANSWER_BYTES_MAX, HttpPost
from penstock.runtime import SystemRuntime
from tests.fixtures.scripted import nodes_of
from tests.integration.test_rail_on_anvil import NATIVE, House, network

PATIENCE_S = 0.4
LINES = ("never_answers", "one_byte_a_second", "reset_mid_body", "truncated_json", "huge_body", "deep_json", "html_with_200")
GIVEN_BYTES_MAX = 32 * ANSWER_BYTES_MAX
"""What a client that stops listening at its bound may have been sent all the same, in the few calls of one look."""


class Hasty(HttpPost):
    """The real port, with less patience."""

    async def __call__(self, url, body, timeout_s, **more):
        return await super().__call__(url, body, min(timeout_s, PATIENCE_S), **more)


@contextlib.asynccontextmanager
async def rail_behind(liar_name, family):
    """A family's rail over HTTP to two nodes of its devnet, the first behind a liar; and the same with the liar alone."""
    runtime, post, catalog = SystemRuntime(), Hasty(), Catalog.load()
    scene = SCENES[family]
    networks = make_networks(catalog, [scene.chain], now_ms=runtime.now_ms, seed=1)
    async with Box(networks, runtime=runtime) as box:
        settings = box.networks[0].settings
        catalog = catalog.with_network(scene.chain, chain_id=settings["chain_id"])
        liar = Liar(LIES[liar_name], family, chain_id=settings["chain_id"])
        async with lying_proxy(box.url(scene.chain), liar) as proxy:
            form = settings.get("rpc_url", "{url}")
            urls = tuple(form.format(url=url) for url in (proxy.url, box.url(scene.chain, 1)))
            net, native = catalog.network(scene.chain), catalog.native(scene.chain)
            own = settings.get("node_id") or OWN[family]
            rails = [RAILS[family](Site(net, some, post, runtime, (own,), (), None)) for some in (urls, urls[:1])]
            try:
                yield rails, native, proxy
            finally:
                await post.close()
    runtime.close()


OWN = {
    "evm": "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
    "bitcoin": "bcrt1qyjwcjvxtg5lxda89su08g6grfv8c2hfwvtjyje",
    "tron": "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t",
    "xrp": "rPT1Sjq2YGrBMTttX4GZHjKu9dyfzbpAYe",
}


@pytest.mark.parametrize("family", list(SCENES))
@pytest.mark.parametrize("lie", LINES)
def test_a_broken_line_to_one_node_costs_little_and_the_other_answers(lie, family):
    async def main():
        async with rail_behind(lie, family) as (rails, native, proxy):
            both, alone = rails
            with pytest.raises(NodeUnreachable) as refused:
                await alone.heads()
            assert proxy.url.rpartition(":")[2] not in str(refused.value)
            heads = await both.heads()
            assert heads.head >= 0
            assert (await both.estimate(native)).fee_cap > 0
            assert proxy.sent_bytes <= GIVEN_BYTES_MAX

    asyncio.run(main())


@pytest.mark.parametrize(
    "lie", ["timeout_after_accept", "reset_after_accept", "http_500_after_accept", "refused_after_accept", "foreign_hash"]
)
def test_what_anvil_took_and_a_broken_line_hid_is_paid_once(anvil, tmp_path, lie):
    async def main():
        runtime = SystemRuntime()
        house = House(anvil, tmp_path, runtime, network())
        async with lying_proxy(anvil, Liar(LIES[lie], "evm", chain_id=31337)) as proxy:
            house.post = Hasty()
            house.nodes = nodes_of([proxy.url], house.post, runtime, chain_id=31337)
            rail = type(house.rail)(network(), house.nodes, runtime, own=[house.address])
            house.rail = rail
            version = await house.signed(await house.bound(NATIVE, 5))
            assert (await rail.submit(version.raw)).verdict is Verdict.UNKNOWN
            # A node that has it in its pool still may say so by now.
            assert (await rail.submit(version.raw)).verdict in (Verdict.UNKNOWN, Verdict.ACCEPTED)
            await house.until(Included, version)
            await house.rpc("anvil_mine", "0x1")
            await house.until(Final, version)
            assert await house.slots() == 1
        house.journal.close()
        await house.post.close()
        runtime.close()

    asyncio.run(main())
