"""A signer whose journal is still being read, because its index is made anew. It says later to everything: nothing is signed by half a memory.

A journal of a million payments takes a minute, and a gateway that only takes orders needs no signer meanwhile.
"""

from __future__ import annotations

import asyncio
from typing import Any

from penstock.core.intent import Death, Intent, Signed, SignLater, Standing
from penstock.signer.local import LocalSigner


class ReadingSigner:
    """Passes everything on to the signer as soon as it is there; raises JournalBroken where it never will be."""

    def __init__(self, reading: asyncio.Future[LocalSigner]) -> None:
        self._reading = reading

    def _signer(self) -> LocalSigner:
        if not self._reading.done():
            raise SignLater("the signer still reads its journal; orders go on when it has", everything=True)
        return self._reading.result()

    async def sign(self, intents: list[Intent]) -> list[Signed]:
        """As `LocalSigner.sign`, or SignLater."""
        return await self._signer().sign(intents)

    async def bury(self, deaths: list[Death]) -> None:
        """As `LocalSigner.bury`, or SignLater."""
        await self._signer().bury(deaths)

    async def told(self, after: int) -> list[dict[str, Any]]:
        """As `LocalSigner.told`, or SignLater."""
        return await self._signer().told(after)

    async def standing(self) -> Standing:
        """As `LocalSigner.standing`, or SignLater."""
        return await self._signer().standing()
