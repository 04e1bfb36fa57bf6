"""The gateway's side of the signer's socket. A signer that is away is no failure: whoever asks waits and asks again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from penstock.core.intent import Death, Intent, JournalEntry, Signed, SignLater, SignRefused, Standing
from penstock.runtime import Runtime
from penstock.signer import wire
from penstock.signer.addresses import PublicAddresses, PublicKeys
from penstock.signer.policy import AllowedNetwork

ANSWER_S: Final = 15.0
STANDING_S: Final = 2.0
T = TypeVar("T")


class SignerAway(SignLater):
    """The signer's process does not answer now. Whether it signed is not known; asking again gives the same bytes."""

    def __init__(self, text: str) -> None:
        super().__init__(text, everything=True)


class RemoteSigner(PublicAddresses):
    """`core.intent.Signer` over the socket at `path`; a connection for each request."""

    def __init__(self, public: PublicKeys, allowed: Mapping[str, AllowedNetwork], path: Path, runtime: Runtime) -> None:
        super().__init__(public, allowed)
        self._path = path
        self._runtime = runtime

    async def sign(self, intents: list[Intent]) -> list[Signed]:
        """As the signer answers. Raises SignRefused, SignLater, SignerAway."""
        signed: list[Signed] = []
        for batch in wire.batches(intents):
            signed += await self._ask({"op": "sign", "intents": batch}, ANSWER_S, wire.signed_of)
            self._runtime.crash_point("signer:journaled")
        return signed

    async def bury(self, deaths: list[Death]) -> None:
        """As the signer answers. Raises SignRefused, SignerAway."""
        for batch in wire.batches(deaths):
            await self._ask({"op": "bury", "deaths": batch}, ANSWER_S, msgspec.json.decode)
            self._runtime.crash_point("signer:buried")

    async def entries(self, after: int) -> list[JournalEntry]:
        """As the signer answers. Raises SignerAway."""
        return await self._ask({"op": "entries", "after": after}, ANSWER_S, wire.entries_of)

    async def standing(self) -> Standing:
        """As the signer answers; one that does not answer signs nothing."""
        try:
            return await self._ask({"op": "standing"}, STANDING_S, wire.standing_of)
        except SignRefused as away:
            return Standing(str(away), {})

    async def _ask(self, request: Mapping[str, Any], timeout_s: float, read: Callable[[msgspec.Raw], T]) -> T:
        try:
            async with asyncio.timeout(timeout_s):
                body = await self._exchange(wire.framed(request))
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise SignerAway("the signer does not answer; nothing is lost, and orders go on when it is back") from error
        try:
            answer = wire.answer_of(body)
            if (wrong := answer.error) is None:
                return read(answer.ok)
        except ValueError as error:
            raise SignerAway("the signer is out of order: its answer makes no sense") from error
        match wrong.code:
            case "later":
                raise SignLater(wrong.text, everything=answer.everything)
            case "refused":
                raise SignRefused(wrong.text)
            case "internal" | "malformed":
                raise SignLater(wrong.text, everything=False)  # what it cannot digest keeps nothing else waiting
            case _:
                raise SignerAway(f"the signer is out of order: {wrong.text}")

    async def _exchange(self, frame: bytes) -> bytes:
        reader, writer = await wire.connected(self._path, self._runtime)
        try:
            writer.write(frame)
            with contextlib.suppress(ConnectionError):
                await writer.drain()  # who refuses us may have answered and gone already
            return await wire.read_frame(reader, body_s=ANSWER_S) or b""
        except wire.Malformed as error:
            raise ConnectionResetError(str(error)) from error
        finally:
            await wire.hang_up(writer)
