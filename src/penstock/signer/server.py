"""The signer behind its Unix socket: who may ask, what is asked, and an answer to everything. It trusts nobody on the other side."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import structlog

from penstock.core.intent import SignLater, SignRefused
from penstock.signer import wire
from penstock.signer.journal import JournalBroken
from penstock.signer.reading import ReadingSigner

log = structlog.get_logger()

CONNECTIONS_MAX: Final = 64
"""One more closes the one that has been silent for longest: nobody keeps others out by holding on."""
BODY_S: Final = 5.0
_CREDENTIALS: Final = struct.Struct("3i")


class SignerServer:
    """Answers requests of the users that may ask."""

    def __init__(self, signer: ReadingSigner, uids: frozenset[int], *, broken: Callable[[], None]) -> None:
        self._signer = signer
        self._uids = uids
        self._broken = broken
        self._idle: dict[asyncio.StreamWriter, None] = {}
        self._open = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        try:
            if not self._may_ask(writer):
                return
            self._open += 1
            try:
                await self._converse(reader, writer)
            finally:
                self._open -= 1
                self._idle.pop(writer, None)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the other side went away, or never said what it began; there is nobody to tell
        finally:
            await wire.hang_up(writer)

    def _may_ask(self, writer: asyncio.StreamWriter) -> bool:
        peer: socket.socket = writer.get_extra_info("socket")
        _, uid, _ = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if uid in self._uids:
            return True
        log.error("signer.stranger", uid=uid)
        writer.write(wire.framed(wire.error("stranger", "this user may not ask the signer; signer.uids names those who may")))
        return False

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._make_room()
        while True:
            self._idle[writer] = None
            try:
                body = await wire.read_frame(reader, body_s=BODY_S)
                request = None if body is None else wire.request_of(body)
            except wire.Malformed as error:
                writer.write(wire.framed(wire.error("malformed", str(error))))
                return  # where the next frame begins is not known any more
            self._idle.pop(writer, None)
            if request is None:
                return
            writer.write(wire.framed(await self.answer(request)))
            await writer.drain()

    def _make_room(self) -> None:
        if self._open > CONNECTIONS_MAX and self._idle:
            silent = next(iter(self._idle))
            del self._idle[silent]
            silent.transport.abort()

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """What a request gets; never an exception, and never what an unexpected one says."""
        try:
            return {"ok": await self._do(request)}
        except SignLater as later:
            return wire.error("later", str(later)) | {"everything": later.everything}
        except SignRefused as refusal:
            return wire.error("refused", str(refusal))
        except wire.Malformed as error:
            return wire.error("malformed", str(error))
        except JournalBroken as error:
            self._broken()  # before the log: a disk that is full may take no log either
            log.error("signer.journal.broken", detail=str(error))  # noqa: TRY400  the sentence says it all
            return wire.error("journal", str(error))
        except Exception as error:  # noqa: BLE001  the text of a surprise may hold anything
            log.error("signer.failed", error=type(error).__name__)  # noqa: TRY400
            return wire.error("internal", "the signer failed at this request; its log names the kind of failure")

    async def _do(self, request: dict[str, Any]) -> Any:
        match request:
            case {"op": "sign", "intents": intents} if len(request) == 2:
                return [wire.shown(signed) for signed in await self._signer.sign(wire.intents_of(intents))]
            case {"op": "bury", "deaths": deaths} if len(request) == 2:
                return await self._signer.bury(wire.deaths_of(deaths))
            case {"op": "entries", "after": after} if len(request) == 2 and isinstance(after, int) and 0 <= after < 2**63:
                return await self._signer.told(int(after))
            case {"op": "standing"} if len(request) == 1:
                return asdict(await self._signer.standing())
            case _:
                raise wire.Malformed("there is no such request")


def listening(path: Path, *, for_others: bool) -> socket.socket:
    """The socket, mode 0600; 0666 where other users are configured, who are known by their uid. Only for who holds the journal's lock."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()  # of a signer that was killed
    before = os.umask(0o177)
    try:
        with wire.reachable(path) as name:
            listener.bind(name)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    if for_others:
        path.chmod(0o666)
    listener.listen(CONNECTIONS_MAX)
    return listener
