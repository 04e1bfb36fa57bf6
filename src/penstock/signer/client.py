"""The gateway's side of the signer's socket. A signer that is away is no failure: whoever asks waits and asks again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from penstock.core.intent import Death, Intent, JournalEntry, Signed, SignLater, SignRefused, Standing
from penstock.runtime import Runtime
from penstock.signer import wire
from penstock.signer.addresses import PublicAddresses, PublicKeys
from penstock.signer.policy import AllowedNetwork

ANSWER_S: Final = 15.0
STANDING_S: Final = 2.0


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
            signed += wire.signed_of(await self._ask({"op": "sign", "intents": batch}, ANSWER_S))
            self._runtime.crash_point("signer:journaled")
        return signed

    async def bury(self, deaths: list[Death]) -> None:
        """As the signer answers. Raises SignRefused, SignerAway."""
        for batch in wire.batches(deaths):
            await self._ask({"op": "bury", "deaths": batch}, ANSWER_S)
            self._runtime.crash_point("signer:buried")

    async def entries(self, after: int) -> list[JournalEntry]:
        """As the signer answers. Raises SignerAway."""
        try:
            return wire.entries_of(await self._ask({"op": "entries", "after": after}, ANSWER_S))
        except wire.Malformed as error:
            raise SignerAway(f"the signer is out of order: {error}") from error

    async def standing(self) -> Standing:
        """As the signer answers; one that does not answer signs nothing."""
        try:
            answer = await self._ask({"op": "standing"}, STANDING_S)
            return Standing(str(answer["stopped"]), {str(coin): int(units) for coin, units in answer["left"].items()})
        except SignRefused as away:
            return Standing(str(away), {})
        except (KeyError, TypeError, ValueError, AttributeError):
            return Standing("the signer is out of order: its answer makes no sense", {})

    async def _ask(self, request: Mapping[str, Any], timeout_s: float) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._exchange(wire.framed(request))
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise SignerAway("the signer does not answer; nothing is lost, and orders go on when it is back") from error
        match answer:
            case {"ok": value}:
                return value
            case {"error": {"code": "later", "text": str(text)}, "everything": bool(everything)}:
                raise SignLater(text, everything=everything)
            case {"error": {"code": "refused", "text": str(text)}}:
                raise SignRefused(text)
            case {"error": {"code": "internal" | "malformed", "text": str(text)}}:
                raise SignLater(text, everything=False)  # what it cannot digest keeps nothing else waiting
            case {"error": {"text": str(text)}}:
                raise SignerAway(f"the signer is out of order: {text}")
            case _:
                raise SignerAway("the signer is out of order: its answer makes no sense")

    async def _exchange(self, frame: bytes) -> dict[str, Any] | None:
        reader, writer = await wire.connected(self._path, self._runtime)
        try:
            writer.write(frame)
            with contextlib.suppress(ConnectionError):
                await writer.drain()  # who refuses us may have answered and gone already
            return await wire.read_frame(reader, body_s=ANSWER_S)
        except wire.Malformed as error:
            raise ConnectionResetError(str(error)) from error
        finally:
            await wire.hang_up(writer)
