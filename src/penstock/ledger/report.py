"""Findings, and the report that gathers them.

"Stop" findings mean that the books can not be trusted; "alert" findings that somebody should look.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Literal

Level = Literal["stop", "alert"]

ALERTS: Final = frozenset({"I4", "I11", "I12", "I14", "I15", "I16"})
"""Invariants whose breach stops nothing (failure model, section 4)."""
NAMED_MAX: Final = 20
"""How many breaches of one invariant are named; the count tells the rest."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One breach of one invariant. `chain` and `coin_id` are what it is about, "" for everything; `mark` is what makes it the same
    finding though the amounts in its text move.
    """

    invariant: str
    level: Level
    text: str
    chain: str = ""
    coin_id: str = ""
    mark: str = ""

    @property
    def digest(self) -> str:
        """By which a person's word about it is remembered."""
        said = [self.invariant, self.chain, self.coin_id, self.mark or self.text]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()


@dataclass(slots=True)
class Report:
    """What was checked and what differs."""

    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    balances: dict[str, dict[str, str]] = field(default_factory=dict)
    head: str = ""
    whole: bool = True
    """False for a reading of a part of what is new: then only what that part names was checked."""
    _seen: Counter[str] = field(default_factory=Counter)

    @property
    def breaches(self) -> list[Finding]:
        """Stop-level findings."""
        return [f for f in self.findings if f.level == "stop"]

    @property
    def warnings(self) -> list[Finding]:
        """Alert-level findings."""
        return [f for f in self.findings if f.level == "alert"]

    def add(self, invariant: str, text: str, *, chain: str = "", coin_id: str = "", mark: str = "") -> None:
        """Name the first breaches, count the rest."""
        self._seen[invariant] += 1
        if self._seen[invariant] <= NAMED_MAX:
            level: Level = "alert" if invariant in ALERTS else "stop"
            self.findings.append(Finding(invariant, level, text, chain, coin_id, mark))

    def close(self) -> None:
        """Say how many were not named."""
        for invariant, count in self._seen.items():
            if count > NAMED_MAX:
                level: Level = "alert" if invariant in ALERTS else "stop"
                self.findings.append(Finding(invariant, level, f"and {count - NAMED_MAX} more"))
        self._seen.clear()
