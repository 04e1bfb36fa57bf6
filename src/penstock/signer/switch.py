"""The kill switch: a file in the signer's folder that it reads before each signature, so that it works while everything else hangs.

What the file says counts from the moment it has its name. The signer notes each turn in its journal; a file that is missing or
that was put back from a backup changes nothing, one that cannot be read stops.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.runtime import Runtime
from penstock.vault import sync_folder

FILE: Final = "switch.json"
_REASON_MAX: Final = 500
_FILE_BYTES_MAX: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the switch; `id` tells it from every other one."""

    id: str
    stop: bool
    reason: str


def turn(folder: Path, runtime: Runtime, *, stop: bool, reason: str) -> Turn:
    """Turn the switch, durably. Raises OSError, also where there is no signer's folder."""
    turned = Turn(runtime.random_bytes(8).hex(), stop, _text(reason).strip()[:_REASON_MAX] or "no reason given")
    temporary = folder / f".{FILE}.{turned.id}"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(json.dumps({"id": turned.id, "stop": stop, "reason": turned.reason}).encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / FILE)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    sync_folder(folder)
    return turned


def read(folder: Path) -> Turn | None:
    """The last turn; None where nobody ever turned it. A file that makes no sense stops."""
    try:
        handle = os.open(folder / FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        return Turn("", stop=True, reason=f"{FILE} cannot be read: {error.strerror}")
    with os.fdopen(handle, "rb") as file:
        try:
            match json.loads(file.read(_FILE_BYTES_MAX)):
                case {"id": str(name), "stop": bool(stop), "reason": str(reason)} if name:
                    return Turn(name, stop, _text(reason))
        except (OSError, ValueError, RecursionError):
            pass  # as damaged as the wrong kinds
    return Turn("", stop=True, reason=f"{FILE} is damaged; run `penstock signer go` or `stop` once more")


def _text(reason: str) -> str:
    """What a terminal of another encoding has typed comes as halves of surrogate pairs, which no answer of the signer can hold."""
    return reason.encode(errors="replace").decode()
