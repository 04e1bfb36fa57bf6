"""`python -m penstock.signer --child`: what `serve` starts. The first line of its input is the passphrase, as JSON."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from typing import Final

from penstock import logs
from penstock.config import SettingWrong, load
from penstock.core.party import Secret
from penstock.listing import CatalogError
from penstock.runtime import SystemRuntime
from penstock.signer.journal import JournalBroken, SignerBusy
from penstock.signer.keys import KeysUnusable
from penstock.signer.program import harden, run, until_end_of
from penstock.vault import VaultError

_LINE_BYTES_MAX: Final = 64 * 1024


def main(machine: SystemRuntime | None = None) -> int:
    """Says "ready" or one sentence on its output; 2 when it could not start. `machine` as for `program.run`."""
    harden()
    os.umask(0o077)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the end of the pipe ends us: the parent stops us when it has no more to sign
    logs.configure(logging.INFO)
    try:
        asyncio.run(run(load(), _passphrase(), ready=lambda: _say("ready"), until=lambda: until_end_of(0), machine=machine))
    except (SettingWrong, CatalogError, VaultError, SignerBusy, JournalBroken, KeysUnusable) as error:
        _say(str(error))
        return 2
    return 0


def _passphrase() -> Secret | None:
    """Read byte by byte: what follows the line stays in the pipe, whose end we wait for."""
    line = b""
    while not line.endswith(b"\n") and len(line) < _LINE_BYTES_MAX and (byte := os.read(0, 1)):
        line += byte
    try:
        text = json.loads(line)["passphrase"]
    except (ValueError, KeyError, TypeError):
        raise VaultError("the signer's parent did not give it the passphrase") from None
    return Secret(str(text)) if text is not None else None


def _say(line: str) -> None:
    sys.stdout.write(line.replace("\n", " ") + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
