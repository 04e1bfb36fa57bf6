"""The process around the rooms: home folder, lock, the signer's process. `serve` and every command begin here.

Little is imported at the top: a start gives the signer its process first, and then reads the gateway's own modules while that one reads its.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

from penstock.child import Child, ChildFailed
from penstock.config import Settings, SettingWrong, child_environment, spelled
from penstock.runtime import SystemRuntime
from penstock.signer import child
from penstock.signer.child import SignerChild, SignerFailed
from penstock.signer.journal import take_lock
from penstock.signer.place import NotInitialised, refuse_old_home

if TYPE_CHECKING:
    from penstock.wiring import Product

FILES_WANTED: Final = 16_384
"""Callers, nodes and up to 2,000 webhooks at once each hold a descriptor; the usual soft limit is 1,024."""
LOCK: Final = "serve.lock"
"""One `serve` works on a home: the leases that a start takes over rely on it. Those that it starts to answer callers hold none."""
ANSWERER: Final = ("-m", "penstock.answerer")
ANSWERER_END_S: Final = 40.0
"""More than callers are given to hear the end of what they asked."""
SETTINGS_WRONG: Final = 2
"""The exit code that says so (`__main__`)."""
OUTSIDE: Final = b"o"
"""What such a process says when it has committed something that leaves the house."""


async def migrate(settings: Settings) -> list[str]:
    """Bring the schema up to date."""
    from penstock import gateway  # noqa: PLC0415  see above

    runtime = SystemRuntime()
    try:
        return await gateway.migrate(settings, runtime)
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
        from penstock import gateway  # noqa: PLC0415  see above

        product = await stack.enter_async_context(gateway.connected(settings, runtime, every=not signing))
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
    await process.begin()
    starting = asyncio.ensure_future(process.up())  # noqa: TID251  its failure is ours, and awaited: the runtime need not report it

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


async def serve(settings: Settings, role: str, machine: SystemRuntime | None = None, signer: Sequence[str] = child.WORDS) -> None:
    """Run until SIGTERM: stop listening, answer what was accepted, then stop. `machine` and `signer` as for `opened`."""
    if role != "all" and settings.database_url.startswith("sqlite"):
        raise SettingWrong(
            f"--role {role} needs PostgreSQL: on SQLite one `serve` does everything, with server.processes in several processes"
        )
    async with opened(settings, signing=role != "api", machine=machine, signer=signer) as product:
        await product.start(role)
        await answered(product, settings, role)


async def answered(product: Product, settings: Settings, role: str) -> None:
    """Answer callers of a started product until SIGTERM, in as many processes as the settings say. Raises what ends one of them."""
    from penstock import gateway  # noqa: PLC0415  see above

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, FILES_WANTED)), hard))
    beside = [] if role == "worker" else [_answerer(product, settings, number, role) for number in range(1, settings.server.processes)]

    async def keep() -> None:
        await asyncio.gather(*(kept(one) for one in beside))

    async def stop() -> None:
        await asyncio.gather(*(one.stop() for one in beside))

    try:
        await gateway.listen(product, settings, role, up=lambda: product.keep_beside(keep), leaving=stop)
    finally:
        await stop()


async def kept(answerer: Child) -> None:
    """From its first start on. Raises ChildFailed where the settings are wrong for it: no other start would help."""
    try:
        await answerer.start()
    except ChildFailed as error:
        if error.code == SETTINGS_WRONG:
            raise
    await answerer.keep()


def _answerer(product: Product, settings: Settings, number: int, role: str) -> Child:
    """One more process that answers callers. Of its commits our workers hear at once."""
    first = {
        "home": str(settings.home),
        "settings": spelled(settings),
        "passphrase": None if settings.passphrase is None else settings.passphrase.reveal(),
        "number": number,
        "signs": role != "api",
    }

    def heard(data: bytes) -> None:
        product.intake.committed(OUTSIDE in data)

    return Child(product.runtime, f"answerer {number}", ANSWERER, child_environment(), first, heard=heard, end_s=ANSWERER_END_S)
