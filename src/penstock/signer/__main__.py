"""`python -m penstock.signer --child`: what `serve` starts. The first line of its input is the passphrase, as JSON."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from penstock import child, logs
from penstock.config import SettingWrong, load
from penstock.core.party import Secret
from penstock.listing import CatalogError
from penstock.runtime import SystemRuntime
from penstock.signer.journal import JournalBroken, SignerBusy
from penstock.signer.keys import KeysUnusable
from penstock.signer.program import harden, run
from penstock.vault import VaultError


def main(machine: SystemRuntime | None = None) -> int:
    """Says "ready" or one sentence on its output; 2 when it could not start. `machine` as for `program.run`."""
    harden()
    os.umask(0o077)
    logs.configure(logging.INFO)
    try:
        asyncio.run(run(load(), _passphrase(), ready=lambda: child.say("ready"), until=child.until_end, machine=machine))
    except (SettingWrong, CatalogError, VaultError, SignerBusy, JournalBroken, KeysUnusable) as error:
        child.say(str(error))
        return 2
    return 0


def _passphrase() -> Secret | None:
    try:
        text = child.told()["passphrase"]
    except (ValueError, KeyError, TypeError):
        raise VaultError("the signer's parent did not give it the passphrase") from None
    return Secret(str(text)) if text is not None else None


if __name__ == "__main__":
    sys.exit(main())
