"""The gateway over the real world: database, public keys, sockets outwards, the wired rooms, and the port where callers are answered.

Only `process` takes this, and late: reading all that is named here takes most of a second, in which the signer's process starts beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import structlog
import uvicorn

from penstock.config import Settings, SettingWrong, bare_environment
from penstock.core.seal import OrderSeal
from penstock.db import StandbyDatabase, open_database
from penstock.http.app import UVICORN
from penstock.ids import IdSource
from penstock.ledger.beside import beside
from penstock.orders.replica import Replica
from penstock.rails.post import HttpPost
from penstock.runtime import Runtime, SystemRuntime, rest_memory
from penstock.signer import addresses
from penstock.signer.client import RemoteSigner
from penstock.signer.place import SEAL_CONTEXT, SEAL_FILE, NotInitialised, socket_of
from penstock.signer.policy import allowed_networks, load_catalog
from penstock.vault import Vault
from penstock.webhooks.targets import HttpTargets
from penstock.wiring import Product, World

log = structlog.get_logger()

BUSY_S: Final = 3.0
"""How long a start waits for the processes of one that was killed to leave the port."""


@contextlib.asynccontextmanager
async def connected(settings: Settings, runtime: SystemRuntime, *, every: bool) -> AsyncIterator[Product]:
    """The product of a home; `every`: with the addresses of networks that are off as well. Raises what each of its parts raises."""
    async with contextlib.AsyncExitStack() as stack:
        vault = Vault.open(settings.home, runtime, passphrase=settings.passphrase)
        seal = load_seal(settings.home, vault)
        database = open_database(runtime, settings.database_url)
        stack.push_async_callback(database.close)
        await database.migrate()
        ids = await IdSource.lease(runtime, database, f"{socket.gethostname()}:{os.getpid()}")
        stack.push_async_callback(ids.release)
        rpc, targets = HttpPost(), HttpTargets(runtime, allow_private=settings.webhooks.allow_private_targets)
        stack.push_async_callback(rpc.close)
        stack.push_async_callback(targets.close)
        allowed = allowed_networks(settings, load_catalog(settings), every=every)
        remote = RemoteSigner(addresses.load_public(settings.home), allowed, socket_of(settings), runtime)
        past = None
        if settings.database.replica_url:
            standby = StandbyDatabase(runtime, settings.database.replica_url)
            stack.push_async_callback(standby.close)
            past = Replica(database, standby)
        world = World(runtime, rpc, targets, fetch, lambda: beside(runtime, settings.database_url, bare_environment()))
        product = Product(settings, world, database, ids, vault, remote, seal, past)
        await product.connect()
        yield product


def load_seal(home: Path, vault: Vault) -> OrderSeal:
    """What orders are sealed with when they are accepted. Raises NotInitialised or VaultError."""
    if not (home / SEAL_FILE).exists() or not (home / addresses.FILE).exists():
        raise NotInitialised(f"{home} lacks {SEAL_FILE} or {addresses.FILE}; run `penstock init`, which makes what is missing")
    return OrderSeal(vault.kept(home / SEAL_FILE, SEAL_CONTEXT))


async def migrate(settings: Settings, runtime: SystemRuntime) -> list[str]:
    """Bring the schema up to date; what was applied."""
    database = open_database(runtime, settings.database_url)
    applied = await database.migrate()
    await database.close()
    return applied


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


async def listen(
    product: Product,
    settings: Settings,
    role: str,
    *,
    number: int = 0,
    up: Callable[[], object] = lambda: None,
    leaving: Callable[[], Awaitable[None]] | None = None,
    until: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Answer callers until SIGTERM, or `until` that returns, or until a loop of the product ends; then close the rooms. Raises what that loop
    ended with.

    Where several processes share the port, `number` tells them apart; `up` is called once it is open, `leaving` awaited while callers hear the
    last answers.
    """
    host, _, port = settings.server.listen.rpartition(":")
    options: dict[str, Any] = {**UVICORN, "loop": "none"}
    app = product.app(calls=role != "worker", process=number if settings.server.processes > 1 else None)
    config = uvicorn.Config(app, host=host, port=int(port), log_config=None, **options)
    server = _Server(config, role, up, leaving)
    if until is None:
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(signal_number, server.leave)
    else:
        product.runtime.spawn(_leave(server, until), name="end")
    product.on_broken = server.leave
    if product.broken is not None:
        server.leave()  # a loop that began before we listen can have ended before
    sockets = [await _listening(product.runtime, role, host, int(port), config.backlog)] if _is_shared(settings, role) else None
    rest_memory()
    try:
        await server.serve(sockets)
    finally:
        await product.stop()
        log.info("serve.stopped")
    if product.broken is not None:
        raise product.broken


async def _leave(server: _Server, until: Callable[[], Awaitable[None]]) -> None:
    await until()
    server.leave()


def _is_shared(settings: Settings, role: str) -> bool:
    """Processes that answer callers share a port on one machine, and the system spreads the connections."""
    return role == "api" or (role == "all" and settings.server.processes > 1)


async def _listening(runtime: Runtime, role: str, host: str, port: int, backlog: int) -> socket.socket:
    """A listening socket that other processes of the same user may open as well. Raises SettingWrong, and for the role that does everything
    also where somebody has the port: two houses on one port would each answer half of the callers.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    address, deadline = (host.strip("[]"), port), runtime.monotonic() + BUSY_S
    while True:
        try:
            if role == "all":
                socket.create_server(address, family=family).close()
            return socket.create_server(address, family=family, backlog=backlog, reuse_port=True)
        except (OSError, ValueError) as error:
            is_busy = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            if role != "all" or not is_busy or runtime.monotonic() > deadline:
                raise SettingWrong(f"server.listen: cannot listen on {host}:{port}: {error}; --listen takes another place") from error
        await runtime.sleep(0.05)


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling, which would end the process before the rooms are closed."""

    def __init__(self, config: uvicorn.Config, role: str, up: Callable[[], object], leaving: Callable[[], Awaitable[None]] | None) -> None:
        super().__init__(config)
        self._role = role
        self._up = up
        self._leaving = leaving

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so only then; where it cannot, one sentence and the exit code of a wrong setting."""
        listen = f"{self.config.host}:{self.config.port}"
        try:
            await super().startup(sockets)
        except SystemExit as error:
            raise SettingWrong(f"server.listen: cannot listen on {listen}, see the line above; --listen takes another place") from error
        log.info("serve.started", listen=listen, role=self._role)
        self._up()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what was asked, here and in the processes beside us."""
        others = asyncio.ensure_future(self._leaving()) if self._leaving is not None else None  # noqa: TID251  awaited below
        await super().shutdown(sockets)
        if others is not None:
            await others

    def leave(self) -> None:
        """Stop listening and finish what is under way."""
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are ours."""
        yield
