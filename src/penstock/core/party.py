"""Who asks and who is paid inside the house: merchants and internal accounts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

_EMAIL: Final = re.compile(r"[^@\s]{1,64}@[^@\s]{1,190}")


class Secret:
    """A text that never prints itself: not in logs, errors, pages or tracebacks."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the one place that needs it."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True, slots=True)
class Merchant:
    """An API client. `secrets` has the newest first; two during a rotation. `ip_allow` empty means any address."""

    id: int
    name: str
    app_id: str
    secrets: tuple[Secret, ...]
    webhook_url: str
    disabled: bool = False
    ip_allow: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Account:
    """A person inside the house: `id` has 7 digits, `email` is in the form of `normalise_email`."""

    id: int
    email: str
    nickname: str


def normalise_email(text: str) -> str | None:
    """Trimmed, compared without case (spec 5.2); None when it is no e-mail address."""
    folded = text.strip().casefold()
    return folded if _EMAIL.fullmatch(folded) else None
