"""A dictionary that forgets: for what may begin anew or be found again, so that nothing that strangers send grows it without end."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Latest(dict[K, V]):
    """At most `most` keys: of one too many, the key that was put in first is forgotten. Writing a key that is there makes it no younger.

    `update` and `|=` are dict's own and do not count.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def __setitem__(self, key: K, value: V) -> None:
        if key not in self and len(self) >= self._most:
            del self[next(iter(self))]
        super().__setitem__(key, value)

    def setdefault(self, key: K, default: V) -> V:
        """What is there, or `default` from now on."""
        if key not in self:
            self[key] = default
        return self[key]
