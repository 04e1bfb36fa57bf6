"""The signer's process: hardened first, then keys, journal and lock, then the socket; it ends with its parent or with SIGTERM.

`serve` starts it as its child (`--child`): the passphrase comes over the pipe, the end of the pipe is the end. In production it runs
as a user of its own: `penstock signer` with a home and settings of its own, and `signer.socket` in the gateway's.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog

from penstock.config import Settings, SettingWrong
from penstock.core.party import Secret
from penstock.core.seal import OrderSeal
from penstock.runtime import SystemRuntime, rest_memory
from penstock.signer import switch
from penstock.signer.index import FILE, Index
from penstock.signer.journal import FileJournal, JournalBroken, SignerBusy
from penstock.signer.local import LocalSigner
from penstock.signer.place import SEAL_CONTEXT, SEAL_FILE, folder_of, refuse_old_home, socket_of
from penstock.signer.policy import allowed_networks, caps_of, load_catalog
from penstock.signer.reading import ReadingSigner
from penstock.signer.seed import load_seed
from penstock.signer.server import SignerServer, listening
from penstock.vault import Vault

log = structlog.get_logger()

BUSY_S: Final = 3.0
"""How long a new child waits for the one before it, whose parent was killed a moment ago, to end."""

READ_FIRST_BYTES: Final = 16 * 1024 * 1024
"""What the index does not know of the journal is read before we are ready up to that, some 18,000 payments: a break in it keeps us from
starting. More, where an index is made anew, is read beside, with nothing signed meanwhile: a gateway can take orders without us.
"""

_PROOF_REST_S: Final = 0.02
"""Between two looks of the proofreader, each of some milliseconds."""

_PR_SET_DUMPABLE: Final = 4


def harden() -> None:
    """No core dumps, and no other process of this user reads our memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, AttributeError):  # not on every system; the limit above holds everywhere
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


async def run(
    settings: Settings,
    passphrase: Secret | None,
    *,
    ready: Callable[[], None],
    until: Callable[[], Awaitable[None]],
    machine: SystemRuntime | None = None,
) -> None:
    """Serve until told to end. Raises what keeps it from starting, each with one sentence, and JournalBroken when it cannot go on.

    `machine` is the real one; `penstock prove` brings one that kills its process.
    """
    folder, runtime = folder_of(settings), machine or SystemRuntime()
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(runtime.close)
        refuse_old_home(settings.home)
        catalog = load_catalog(settings)
        vault = Vault.open(folder, runtime, passphrase=passphrase)
        seed = load_seed(folder, vault)
        seal = OrderSeal(vault.kept(folder / SEAL_FILE, SEAL_CONTEXT))
        journal = await _journal(folder, runtime)
        stack.callback(journal.close)
        index = Index(folder / FILE, journal)
        stack.push_async_callback(_close, runtime, journal, index)
        unread_bytes = journal.bytes_before - index.place.size
        allowed, caps = allowed_networks(settings, catalog), caps_of(settings, catalog)
        broken = asyncio.Event()

        async def read() -> LocalSigner:
            signer = await runtime.in_thread(
                "signer",
                lambda: LocalSigner(seed, journal, runtime, allowed, seal, caps=caps, switch=lambda: switch.read(folder), index=index),
            )
            log.info("signer.journal.read", stopped=(await signer.standing()).stopped, read_bytes=unread_bytes)
            proofreading = runtime.spawn(_proofread(runtime, signer, broken), name="proofreading")
            stack.callback(proofreading.cancel)
            return signer

        rest_memory()
        reading = asyncio.ensure_future(read())  # noqa: TID251  its failure is ours, and looked at: the runtime need not report it
        stack.callback(reading.cancel)
        if unread_bytes <= READ_FIRST_BYTES:
            await reading
        reading.add_done_callback(lambda done: None if done.cancelled() or done.exception() is None else broken.set())
        server = SignerServer(ReadingSigner(reading), frozenset({os.geteuid(), *settings.signer.uids}), broken=broken.set)
        try:
            listener = listening(socket_of(settings), for_others=bool(settings.signer.uids))
        except OSError as error:
            raise SettingWrong(f"signer.socket: cannot listen there: {error.strerror}") from error
        serving = await asyncio.start_unix_server(lambda *ends: _spawned(runtime, server, *ends), sock=listener)
        stack.callback(serving.close)
        log.info("signer.started", networks=sorted(allowed), journal_bytes=journal.bytes_before)
        ready()
        ends = [runtime.spawn(_wait(until), name="end"), runtime.spawn(_wait(broken.wait), name="broken")]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in ends:
            task.cancel()
        if broken.is_set():
            if reading.done() and (unread := reading.exception()) is not None:
                log.error("signer.journal.broken", detail=str(unread))
                raise unread
            raise JournalBroken("the journal cannot be used any more; it is read anew at the next start")
        log.info("signer.stopped")


async def _proofread(runtime: SystemRuntime, signer: LocalSigner, broken: asyncio.Event) -> None:
    """What a start took from the index is compared with the journal while the signer works."""
    after = 0
    try:
        while after := await signer.proofread(after):
            await runtime.sleep(_PROOF_REST_S)
    except JournalBroken as error:
        broken.set()
        log.error("signer.journal.broken", detail=str(error))  # noqa: TRY400  the sentence says it all


async def _close(runtime: SystemRuntime, journal: FileJournal, index: Index) -> None:
    """The journal first, so that a long reading ends; the index when nothing uses it any more."""
    journal.close()
    await runtime.in_thread("signer", index.close)


def _spawned(runtime: SystemRuntime, server: SignerServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    runtime.spawn(server.talk(reader, writer), name="conversation")  # asyncio's own task prints its traceback when it is told to end


async def _wait(for_what: Callable[[], Awaitable[object]]) -> None:
    await for_what()


async def _journal(folder: Path, runtime: SystemRuntime) -> FileJournal:
    deadline = runtime.monotonic() + BUSY_S
    while True:
        try:
            return FileJournal(folder)
        except SignerBusy:
            if runtime.monotonic() > deadline:
                raise
        await runtime.sleep(0.05)


async def until_signal() -> None:
    """SIGTERM or SIGINT."""
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    await told.wait()
