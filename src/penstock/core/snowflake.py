"""Order, record and app ids in the vendor's 33-digit form (spec, section 11).

14 digits `YYYYMMDDhhmmss` in UTC, then a 19-digit snowflake: milliseconds since Twitter's epoch, 10 bits of worker, 12 bits
of sequence. The books store the snowflake; the prefix follows from it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

EPOCH_MS: Final = 1_288_834_974_657
WORKERS: Final = 1024
SEQUENCES: Final = 4096

_WIRE: Final = re.compile(r"[0-9]{33}", re.ASCII)


def compose(at_ms: int, worker: int, sequence: int) -> int:
    """A snowflake from its parts."""
    return (at_ms - EPOCH_MS) << 22 | worker << 12 | sequence


def moment_ms(snowflake: int) -> int:
    """The Unix millisecond in which it was drawn."""
    return (snowflake >> 22) + EPOCH_MS


def wire_id(snowflake: int) -> str:
    """The 33 digits."""
    return f"{_prefix(moment_ms(snowflake) // 1000)}{snowflake:019d}"


@lru_cache(maxsize=1024)
def _prefix(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y%m%d%H%M%S}"


def from_wire(text: str) -> int | None:
    """The snowflake of 33 digits whose prefix fits its own time, else None."""
    if _WIRE.fullmatch(text) is None:
        return None
    snowflake = int(text[14:])
    return snowflake if snowflake >> 63 == 0 and wire_id(snowflake) == text else None
