"""A house with real history, lived in virtual time: payouts inside and outside, cancelled and waiting ones, a halt that a person ended."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

from penstock.catalog import Catalog
from penstock.commands import Commands
from penstock.config import NetworkSettings, Settings
from penstock.core.money import CoinAmount
from penstock.core.order import holder_of_merchant
from penstock.core.seal import KEY_BYTES, OrderSeal
from penstock.core.withdrawal import WithdrawRequest
from penstock.db import Database, open_database
from penstock.devnet.evm.box import network_of
from penstock.devnet.evm.chain import EvmChain
from penstock.devnet.evm.specs import specs
from penstock.ids import IdSource
from penstock.ledger.audit import Terms
from penstock.ledger.book import Book, credit
from penstock.ledger.signed import Said
from penstock.orders import attempts
from penstock.orders.archiver import AGE_MIN_MS, Archiver
from penstock.prove.simulated.house import MemoryJournal
from penstock.prove.simulated.reach import BoxPost
from penstock.prove.simulated.virtual import START_MS, Journal, VirtualLoop, VirtualRuntime
from penstock.signer.local import LocalSigner
from penstock.signer.policy import allowed_networks
from penstock.signer.seed import create_seed
from penstock.vault import Vault
from penstock.webhooks.deliver import Reply
from penstock.wiring import Product, World

CHAIN: Final = "ETH"
PAYOUTS: Final = 8
END_S: Final = 2_000.0


class _Receiver:
    """A merchant that says success."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        del url, headers, body
        return Reply(200, "success")


class TamperedHouse:
    """The database of a house that has lived, in the hands of whoever wants to change its past."""

    def __init__(self, url: str, folder: Path, seed: int) -> None:
        self._url = url
        self._folder = folder
        self._loop = VirtualLoop()
        self._source = random.Random(seed)
        self._runtime = VirtualRuntime(self._loop, self._source, Journal())
        self._runtime.delay_s = 0.0
        self.database: Database = open_database(self._runtime, url)
        self.terms = Terms({})
        self.said: Said
        self.archives = folder / "archive"
        self._signed = MemoryJournal()

    def live(self) -> None:
        """Its whole life; it is at rest afterwards. Raises TimeoutError where it never comes to rest."""
        self.run(self._live())

    def run(self, work: Any) -> Any:
        """Virtual time goes on until this is done."""
        return self._loop.run_until_complete(work)

    def close(self) -> None:
        """Let go of database and loop."""
        self._runtime.bury()
        self.database._close()
        self._loop.close()

    async def _live(self) -> None:
        await self.database.migrate()
        product, chain = await self._product()
        await product.connect()
        commands = Commands(product)
        merchant = await commands.add_merchant("shop", "https://shop.example/webhook")
        person = await commands.add_account("ada@example.com", "Ada")
        for coin, amount in (("USDT", "500"), ("ETH", "2")):
            await commands.credit(merchant["app_id"], coin, amount, "the merchant's own")
        token = product.catalog.by_symbol("USDT", CHAIN)
        network = product.catalog.network(CHAIN)
        assert token is not None and token.contract is not None and network is not None  # noqa: S101,PT018  the shipped catalogue has them
        hot = await product.treasury.address_of(network)
        chain.fund(hot, 3 * 10**18)
        chain.fund_token(token.contract, hot, 200 * 10**6)
        await product.start()
        payer = await product.directory.by_app_id(merchant["app_id"])
        assert payer is not None  # noqa: S101  it was added above
        until_ms = 0
        for number in range(PAYOUTS):
            until_ms = self._runtime.now_ms() if number == PAYOUTS // 2 else until_ms
            inside = number % 4 == 0
            address = str(person["c_id"]) if inside else f"0x{number + 1:040x}"
            request = WithdrawRequest(f"w{number}", address, token.id, (10 + number) * 10**18, "", number % 2 == 0, False)
            await self._ask(product, payer, request)
            await asyncio.sleep(15)
        await self._until(product, "SELECT COUNT(*) AS n FROM orders WHERE state NOT IN ('succeeded', 'failed')")
        for name in ("waits", "cancelled"):  # more than the treasury has left
            await self._ask(product, payer, WithdrawRequest(name, f"0x{0xABC:040x}", token.id, 150 * 10**18, "", False, False))
        await asyncio.sleep(30)
        await commands.cancel_order("cancelled", "asked to")
        await self.database.write("halt", lambda tx: attempts.halt_lane(tx, CHAIN, "somebody wants to look"))
        await asyncio.sleep(5)
        await commands.resume(CHAIN, "nothing was wrong")
        await self._until(product, "SELECT COUNT(*) AS n FROM outbox WHERE state = 'due'")
        await asyncio.sleep(130)  # two passes of the audit
        self.terms = product.audit_terms()
        self.said = Said(product.signer.entries)
        await self.said.hear()
        await product.stop()
        await self._archive(product, until_ms, merchant["app_id"])

    async def _archive(self, product: Product, before_ms: int, app_id: str) -> None:
        """A month later the first half of it is moved into a file, and a pass of the audit sees that."""
        drawn = iter(product.ids.next(20))  # before their lease runs out
        payer, coin = await product.directory.by_app_id(app_id), product.catalog.coin_by_symbol("USDT")
        assert payer is not None and coin is not None  # noqa: S101,PT018  the house has lived with both

        def draw(count: int) -> list[int]:
            return list(islice(drawn, count))

        await asyncio.sleep(AGE_MIN_MS / 1000)
        await Archiver(
            runtime=self._runtime,
            database=self.database,
            next_ids=draw,
            terms=lambda: self.terms,
            folder=self.archives,
        ).run(before_ms)
        later = Book(draw, lambda: "later")
        await credit(
            self.database,
            later,
            next(drawn),
            holder_of_merchant(payer.id),
            CoinAmount(coin, 1),
            reason="later",
            at_ms=self._runtime.now_ms(),
        )
        await product.auditor.turn()

    async def _product(self) -> tuple[Product, EvmChain]:
        spec = next(spec for spec in specs(Catalog.load()) if spec.name == CHAIN)
        chain = EvmChain(spec, now_ms=lambda: START_MS + int(self._loop.time() * 1000), seed=1)
        post = BoxPost([network_of(chain, nodes=2)])
        networks = {CHAIN: NetworkSettings(rpc_urls=post.urls(CHAIN), chain_id=spec.chain_id, confirmations=3)}
        settings = Settings(home=self._folder, networks=networks)
        vault = Vault.create(self._folder, self._runtime, passphrase=None, key_file=True)
        seed, seal = create_seed(self._folder, vault, self._runtime), OrderSeal(bytes(KEY_BYTES))
        catalog = Catalog.load().with_network(CHAIN, chain_id=spec.chain_id)
        signer = LocalSigner(seed, self._signed, self._runtime, allowed_networks(settings, catalog, every=True), seal)
        ids = await IdSource.lease(self._runtime, self.database, "tamper")

        async def rpc(url: str, body: bytes, timeout_s: float, **how: Any) -> tuple[int, bytes]:
            how.pop("tls_cert", None)
            return await post(url, body, timeout_s, **how)

        world = World(self._runtime, rpc, _Receiver(), _no_prices)
        return Product(settings, world, self.database, ids, vault, signer, seal), chain

    async def _ask(self, product: Product, payer: Any, request: WithdrawRequest) -> None:
        while True:
            try:
                await product.accept.withdraw(payer, request)
            except Exception as error:
                if self._loop.time() > END_S:
                    raise TimeoutError(request.merchant_order_id) from error
                await asyncio.sleep(1)  # no estimate yet
            else:
                return

    async def _until(self, product: Product, count: str) -> None:
        while True:
            row = await self.database.read(lambda tx: tx.one(count))
            if row is not None and not row["n"]:
                return
            if self._loop.time() > END_S or product.broken is not None:
                raise TimeoutError(f"the house does not come to rest: {row}, {product.broken!r}")
            await asyncio.sleep(1)


async def _no_prices(url: str, *, bytes_max: int, timeout_s: int) -> bytes:
    raise ValueError(f"{url} is not asked here ({bytes_max}, {timeout_s})")
