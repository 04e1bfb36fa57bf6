"""What every lane of `penstock prove` is given and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Breach = Literal["double_payment", "lost_order", "ledger_imbalance", "overdraft", "lost_event", "leaked_secret", "other"]


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a lane may do: wall seconds, a seed to draw from, a folder of its own, and the databases to try ("sqlite", "postgresql").

    `size` 1 is what runs in `make test`; a lane stops early when its seconds are over and says how far it came.
    """

    seconds: float
    seed: int
    folder: Path
    size: int = 1
    postgresql: str = ""
    say: Callable[[str], None] = lambda line: None  # noqa: ARG005


@dataclass(frozen=True, slots=True)
class Found:
    """One breach: what kind, what happened in a sentence, and one line that replays it."""

    breach: Breach
    text: str
    replay: str = ""


@dataclass(frozen=True, slots=True)
class Tried:
    """What a lane did and found. `counts` are whole numbers by name (orders, crashes, seeds, lies, ...); `table` are rows to show."""

    lane: str
    counts: Mapping[str, int]
    found: tuple[Found, ...] = ()
    table: tuple[Mapping[str, Any], ...] = field(default=())
    took_s: float = 0.0
