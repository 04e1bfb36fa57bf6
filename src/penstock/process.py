"""The process around the rooms: home folder, database, keys, sockets and signals. `serve` and every command begin here."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import structlog
import uvicorn

from penstock.config import Settings, SettingWrong, child_environment
from penstock.core.seal import OrderSeal
from penstock.db import StandbyDatabase, open_database
from penstock.http.app import UVICORN
from penstock.ids import IdSource
from penstock.orders.replica import Replica
from penstock.rails.post import HttpPost
from penstock.runtime import SystemRuntime, rest_memory
from penstock.signer import addresses, child
from penstock.signer.child import SignerChild, SignerFailed
from penstock.signer.client import RemoteSigner
from penstock.signer.journal import take_lock
from penstock.signer.place import SEAL_CONTEXT, SEAL_FILE, NotInitialised, refuse_old_home, socket_of
from penstock.signer.policy import allowed_networks, load_catalog
from penstock.vault import Vault
from penstock.webhooks.targets import HttpTargets
from penstock.wiring import Product, World

log = structlog.get_logger()

FILES_WANTED: Final = 16_384
"""Callers, nodes and up to 2,000 webhooks at once each hold a descriptor; the usual soft limit is 1,024."""
LOCK: Final = "serve.lock"
"""One process works on a home: SQLite, and the leases that a start takes over, rely on it."""


def load_seal(home: Path, vault: Vault) -> OrderSeal:
    """What orders are sealed with when they are accepted. Raises NotInitialised or VaultError."""
    if not (home / SEAL_FILE).exists() or not (home / addresses.FILE).exists():
        raise NotInitialised(f"{home} lacks {SEAL_FILE} or {addresses.FILE}; run `penstock init`, which makes what is missing")
    return OrderSeal(vault.kept(home / SEAL_FILE, SEAL_CONTEXT))


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
async def opened(
    settings: Settings, *, signing: bool, machine: SystemRuntime | None = None, signer: Sequence[str] = child.WORDS
) -> AsyncIterator[Product]:
    """The product over the real world: database, public keys, sockets, and the signer's process. Raises what each of them raises.

    `machine` is the real one; `penstock prove` brings one that kills its process or turns its clock, and a `signer` on such a machine.
    """
    refuse_old_home(settings.home)
    if not (settings.home / "vault.json").exists():
        raise NotInitialised(f"{settings.home} has no keys yet; run `penstock init` first")
    runtime = machine or SystemRuntime()
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(runtime.close)
        signer_up: Callable[[], Awaitable[None]] = _nothing
        if signing:
            stack.callback(os.close, take_lock(settings.home / LOCK))
            signer_up = await stack.enter_async_context(_signer_running(settings, runtime, signer))
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
        allowed = allowed_networks(settings, load_catalog(settings), every=not signing)
        remote = RemoteSigner(addresses.load_public(settings.home), allowed, socket_of(settings), runtime)
        past = None
        if settings.database.replica_url:
            standby = StandbyDatabase(runtime, settings.database.replica_url)
            stack.push_async_callback(standby.close)
            past = Replica(database, standby)
        product = Product(settings, World(runtime, rpc, targets, fetch), database, ids, vault, remote, seal, past)
        await product.connect()
        await signer_up()
        yield product


async def _nothing() -> None:
    """A signer that runs by itself is waited for by nobody: orders wait while it is away."""


@contextlib.asynccontextmanager
async def _signer_running(settings: Settings, runtime: SystemRuntime, words: Sequence[str]) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """A signer of our own, unless the settings name one that runs by itself. It comes up while we do; who is given waits for it, and
    raises SignerFailed.
    """
    if settings.signer.socket:
        yield _nothing
        return
    process = SignerChild(runtime, settings.home, child_environment(), settings.passphrase, words)
    starting = asyncio.ensure_future(process.start())  # noqa: TID251  its failure is ours, and awaited: the runtime need not report it

    async def up() -> None:
        await starting
        runtime.spawn(process.keep(), name="signer")

    try:
        yield up
    finally:
        await process.stop()
        with contextlib.suppress(SignerFailed):  # who waited for it was told; nobody else is there to tell
            await starting


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


async def serve(settings: Settings, role: str, machine: SystemRuntime | None = None, signer: Sequence[str] = child.WORDS) -> None:
    """Run until SIGTERM: stop listening, answer what was accepted, then stop. `machine` and `signer` as for `opened`."""
    if role != "all" and settings.database_url.startswith("sqlite"):
        raise SettingWrong(f"--role {role} needs PostgreSQL: SQLite serves one process; set database.url")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, FILES_WANTED)), hard))
    async with opened(settings, signing=role != "api", machine=machine, signer=signer) as product:
        await product.start(role)
        await listen(product, settings, role)


async def listen(product: Product, settings: Settings, role: str) -> None:
    """Answer callers until SIGTERM or until a loop of the product ends; then close the rooms. Raises what that loop ended with."""
    host, _, port = settings.server.listen.rpartition(":")
    options: dict[str, Any] = {**UVICORN, "loop": "none"}
    config = uvicorn.Config(product.app(calls=role != "worker"), host=host, port=int(port), log_config=None, **options)
    server = _Server(config, role)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, server.leave)
    product.on_broken = server.leave
    if product.broken is not None:
        server.leave()  # a loop that began before we listen can have ended before
    # Processes that only answer callers share a port on one machine: start as many as cores are free, and the system spreads the connections.
    sockets = [_shared(host, int(port), config.backlog)] if role == "api" else None
    rest_memory()
    try:
        await server.serve(sockets)
    finally:
        await product.stop()
        log.info("serve.stopped")
    if product.broken is not None:
        raise product.broken


def _shared(host: str, port: int, backlog: int) -> socket.socket:
    """A listening socket that other processes of the same user may open as well. Raises SettingWrong."""
    try:
        return socket.create_server(
            (host.strip("[]"), port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=backlog, reuse_port=True
        )
    except (OSError, ValueError) as error:
        raise SettingWrong(f"server.listen: cannot listen on {host}:{port}: {error}") from error


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
