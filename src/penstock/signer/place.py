"""Where things lie: the signer's folder and socket, and what a home has of it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from penstock.config import Settings

FOLDER: Final = "signer"
SOCKET: Final = "signer.socket"
SEAL_FILE: Final = "seal.json"
SEAL_CONTEXT: Final = "order seal:1"


class NotInitialised(Exception):
    """The home folder lacks something that `penstock init` makes."""


def folder_of(settings: Settings) -> Path:
    """The signer's own folder."""
    return settings.home / FOLDER


def socket_of(settings: Settings) -> Path:
    """Where the signer listens, and where the gateway asks."""
    return Path(settings.signer.socket) if settings.signer.socket else folder_of(settings) / SOCKET


def refuse_old_home(home: Path) -> None:
    """Before the signer had a folder of its own, seed and journal lay in the home itself. Raises NotInitialised, saying how to move them.

    A person moves them: a program that did it halfway would sign with an empty journal.
    """
    if (home / "seed.json").exists():
        raise NotInitialised(
            f"{home} is of a version before the signer had a folder of its own. Stop every penstock process, make a backup, and run there: "
            "mkdir -m 700 signer; mv signer.journal signer/; mv seed.json signer/; cp -p vault.* signer/; then `penstock init`"
        )
