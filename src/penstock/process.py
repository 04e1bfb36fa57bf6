"""The process around the rooms: home folder, database, keys, sockets and signals. `serve` and every command begin here."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import structlog
import uvicorn

from penstock.config import Settings, SettingWrong
from penstock.core import seal
from penstock.core.intent import Signer
from penstock.core.party import Secret
from penstock.db import open_database
from penstock.http.app import UVICORN
from penstock.ids import IdSource
from penstock.rails.rpc import HttpPost
from penstock.runtime import SystemRuntime
from penstock.signer.journal import FileJournal
from penstock.signer.local import AddressesOnly, LocalSigner
from penstock.signer.seed import create_seed, load_seed
from penstock.vault import Vault
from penstock.webhooks.targets import HttpTargets
from penstock.wiring import Product, World, allowed_networks, load_catalog

log = structlog.get_logger()

FILES_WANTED: Final = 16_384
"""Callers, nodes and up to 2,000 webhooks at once each hold a descriptor; the usual soft limit is 1,024."""

SETTINGS_TEMPLATE: Final = """\
# Penstock's settings. Each can also be given as PENSTOCK_SECTION__KEY, and the environment wins.

[server]
listen = "127.0.0.1:8080"

# A network is off until it has node URLs.
# [networks.ETH]
# rpc_urls = ["https://your-node.example"]
"""


SEAL_FILE: Final = "seal.json"
SEAL_CONTEXT: Final = "order seal:1"


class NotInitialised(Exception):
    """The home folder has no keys yet."""


async def initialise(settings: Settings, *, key_file: bool, asked: str | None) -> dict[str, Any]:
    """Make what is missing: home folder, settings file, vault, seed, database. Changes nothing that is there."""
    home = settings.home
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    runtime = SystemRuntime()
    try:
        template = home / "penstock.toml"
        if not template.exists():
            template.write_text(SETTINGS_TEMPLATE, "utf-8")
        passphrase = Secret(asked) if asked else settings.passphrase
        vault = Vault.create(home, runtime, passphrase=passphrase, key_file=key_file or passphrase is None)
        seed = create_seed(home, vault, runtime)
        vault.keep(home / SEAL_FILE, runtime.random_bytes(seal.KEY_BYTES), SEAL_CONTEXT)
        database = open_database(runtime, settings.database_url)
        applied = await database.migrate()
        await database.close()
        catalog = load_catalog(settings)
        addresses = AddressesOnly(seed, allowed_networks(settings, catalog, every=True))
        unlocked_by = "key file" if (home / "vault.key").exists() else "passphrase"
        hot = {network.family: await addresses.address(network.chain, 0) for network in catalog.networks() if addresses.has(network.chain)}
        return {"home": str(home), "unlocked_by": unlocked_by, "migrations": applied, "hot_addresses": hot}
    finally:
        runtime.close()


def load_seal(home: Path, vault: Vault) -> seal.OrderSeal:
    """What orders are sealed with when they are accepted. Raises NotInitialised or VaultError."""
    if not (home / SEAL_FILE).exists():
        raise NotInitialised(f"{home} has no key to seal orders with; run `penstock init`, which makes what is missing")
    return seal.OrderSeal(vault.kept(home / SEAL_FILE, SEAL_CONTEXT))


async def migrate(settings: Settings) -> list[str]:
    """Bring the schema up to date."""
    runtime = SystemRuntime()
    try:
        database = open_database(runtime, settings.database_url)
        applied = await database.migrate()
        await database.close()
        return applied
    finally:
        runtime.close()


@contextlib.asynccontextmanager
async def opened(settings: Settings, *, signing: bool) -> AsyncIterator[Product]:
    """The product over the real world: database, keys, sockets. Raises what each of them raises."""
    if not (settings.home / "vault.json").exists():
        raise NotInitialised(f"{settings.home} has no keys yet; run `penstock init` first")
    runtime = SystemRuntime()
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(runtime.close)
        vault = Vault.open(settings.home, runtime, passphrase=settings.passphrase)
        seed = load_seed(settings.home, vault)
        order_seal = load_seal(settings.home, vault)
        database = open_database(runtime, settings.database_url)
        stack.push_async_callback(database.close)
        await database.migrate()
        ids = await IdSource.lease(runtime, database, f"{socket.gethostname()}:{os.getpid()}")
        stack.push_async_callback(ids.release)
        rpc, targets = HttpPost(), HttpTargets(runtime, allow_private=settings.webhooks.allow_private_targets)
        stack.push_async_callback(rpc.close)
        stack.push_async_callback(targets.close)
        allowed = allowed_networks(settings, load_catalog(settings), every=not signing)
        signer: Signer = AddressesOnly(seed, allowed)
        if signing:
            journal = FileJournal(settings.home)
            stack.callback(journal.close)
            signer = LocalSigner(seed, journal, runtime, allowed, order_seal)
        product = Product(settings, World(runtime, rpc, targets, fetch), database, ids, vault, signer, order_seal)
        await product.connect()
        yield product


@contextlib.asynccontextmanager
async def command(settings: Settings) -> AsyncIterator[Product]:
    """Open everything for one command beside a running `serve`; nothing is signed and no pump runs."""
    async with opened(settings, signing=False) as product:
        yield product


async def fetch(url: str, *, bytes_max: int, timeout_s: int) -> bytes:
    """The price source's GET: the body of a 200 that is not too long, or an exception."""
    async with (
        aiohttp.ClientSession(trust_env=False, timeout=aiohttp.ClientTimeout(total=timeout_s)) as session,
        session.get(url, allow_redirects=False) as answer,
    ):
        answer.raise_for_status()
        body = await answer.content.read(bytes_max + 1)
        if answer.status != 200 or len(body) > bytes_max:
            raise ValueError(f"status {answer.status}, {len(body)} bytes or more")
        return body


async def serve(settings: Settings, role: str) -> None:
    """Run until SIGTERM: stop listening, answer what was accepted, then stop."""
    if role != "all" and settings.database_url.startswith("sqlite"):
        raise SettingWrong(f"--role {role} needs PostgreSQL: SQLite serves one process; set database.url")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, FILES_WANTED)), hard))
    async with opened(settings, signing=role != "api") as product:
        await product.start(role)
        host, _, port = settings.server.listen.rpartition(":")
        options: dict[str, Any] = {**UVICORN, "loop": "none"}
        config = uvicorn.Config(product.app(calls=role != "worker"), host=host, port=int(port), log_config=None, **options)
        server = _Server(config, role)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, server.leave)
        product.on_broken = server.leave
        try:
            await server.serve()
        finally:
            await product.stop()
            log.info("serve.stopped")
        if product.broken is not None:
            raise product.broken


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling, which would end the process before the rooms are closed."""

    def __init__(self, config: uvicorn.Config, role: str) -> None:
        super().__init__(config)
        self._role = role

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so only then; where it cannot, one sentence and the exit code of a wrong setting."""
        listen = f"{self.config.host}:{self.config.port}"
        try:
            await super().startup(sockets)
        except SystemExit as error:
            raise SettingWrong(f"server.listen: cannot listen on {listen}, see the line above") from error
        log.info("serve.started", listen=listen, role=self._role)

    def leave(self) -> None:
        """Stop listening and finish what is under way."""
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are ours."""
        yield
